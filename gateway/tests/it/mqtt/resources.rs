//! What connections cost, and what happens when the system gives no more.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::harness::*;

const CONNECTIONS: usize = 2_000;
const BYTES_MAX: usize = 10 * 1024;

/// The gateway as a process, so that nobody else's memory is counted.
struct Daemon {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with at most so many files; `None` leaves that to the system.
    async fn start(files_max: Option<u32>) -> (Daemon, SocketAddr) {
        let folder = tempfile::TempDir::new().unwrap();
        let spool = folder.path().join("spool");
        let config = folder.path().join("gateway.toml");
        let text = format!(
            "gateway = {{ site = \"s\", id = \"gw\" }}\nmqtt.listener = [{{ address = \"127.0.0.1:0\" }}]\n\
             spool.folder = {spool:?}\nuplink.servers = [\"nats://127.0.0.1:1\"]\nadmin.address = \"127.0.0.1:0\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let program = env!("CARGO_BIN_EXE_weir-gateway");
        let mut command = match files_max {
            None => Command::new(program),
            Some(files_max) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\"")).arg(program);
                command
            }
        };
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let daemon = Daemon { child, _folder: folder };
        let addresses = spool.join("addresses.json");
        eventually("it has said where it listens", || addresses.exists()).await;
        let said: serde_json::Value = serde_json::from_slice(&std::fs::read(addresses).unwrap()).unwrap();
        (daemon, said["mqtt"][0].as_str().unwrap().parse().unwrap())
    }

    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Hundredths of a second of processor time so far.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A device that has published once and then falls silent.
fn idle(address: SocketAddr, device: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let uplink = publish(&format!("weir/1/{device}/events"), 1, 1, &uplink_payload(1));
    let bytes = [connect_v4(device, 600, 0, &[]), subscribe(&format!("weir/1/{device}/commands"), 1), uplink]
        .concat();
    stream.write_all(&bytes).unwrap();
    let mut answers = [0; 4 + 5 + 4];
    stream.read_exact(&mut answers).unwrap();
    stream
}

#[tokio::test]
async fn an_idle_connection_costs_less_than_ten_kilobytes() {
    let (daemon, address) = Daemon::start(None).await;
    let mut connections: Vec<_> = (0..200).map(|index| idle(address, &format!("warm-{index}"))).collect();
    let before = daemon.resident_bytes();
    connections.extend((0..CONNECTIONS).map(|index| idle(address, &format!("dev-{index}"))));
    let each = daemon.resident_bytes().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each idle connection");
    assert!(each < BYTES_MAX, "{each} bytes for each idle connection");
}

#[tokio::test]
async fn a_full_file_table_costs_no_processor_and_is_gone_with_its_cause() {
    let (daemon, address) = Daemon::start(Some(100)).await;
    let mut connections = Vec::new();
    for _ in 0..150 {
        connections.push(TcpStream::connect(address).unwrap());
    }
    let before = daemon.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = daemon.cpu_ticks() - before;
    assert!(used < 30, "{used} hundredths of a second in a second");
    drop(connections);
    let served = tokio::task::spawn_blocking(move || idle(address, "dev-1"));
    tokio::time::timeout(Duration::from_secs(30), served).await.expect("in time").unwrap();
    drop(daemon);
}
