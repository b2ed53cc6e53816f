//! The gateway as a process, so that nobody else's memory and processor time are counted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::eventually;

/// Killed when dropped.
pub(super) struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    pub addresses: Vec<SocketAddr>,
}

impl Daemon {
    /// Starts it with this in its configuration (`FOLDER` stands for a folder of its own), and with at most so many files;
    /// `None` leaves that to the system. Without a listener in `toml` it has a plain one.
    pub async fn start(toml: &str, prepare: impl FnOnce(&Path), files_max: Option<u32>) -> Daemon {
        let folder = tempfile::TempDir::new().expect("a folder");
        prepare(folder.path());
        let listener = match toml.contains("mqtt.listener") {
            true => "",
            false => "mqtt.listener = [{ address = \"127.0.0.1:0\" }]\n",
        };
        let toml = toml.replace("FOLDER", folder.path().to_str().expect("UTF-8"));
        let text = format!(
            "gateway = {{ site = \"s\", id = \"gw\" }}\nspool.folder = {:?}\nuplink.servers = [\"nats://127.0.0.1:1\"]\n\
             admin.address = \"127.0.0.1:0\"\n{listener}{toml}",
            folder.path().join("spool")
        );
        let config = folder.path().join("gateway.toml");
        std::fs::write(&config, text).expect("a file");
        let program = env!("CARGO_BIN_EXE_weir-gateway");
        let mut command = match files_max {
            None => Command::new(program),
            Some(files_max) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\"")).arg(program);
                command
            }
        };
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn().expect("the gateway");
        let mut daemon = Daemon { child, folder, addresses: Vec::new() };
        eventually("it has said where it listens", || {
            daemon.addresses = daemon.said().map(|said| addresses(&said["mqtt"])).unwrap_or_default();
            !daemon.addresses.is_empty()
        })
        .await;
        daemon
    }

    fn said(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(self.file("spool/addresses.json")).ok()?).ok()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has in memory now.
    pub fn resident_bytes(&self) -> usize {
        self.status_bytes("VmRSS:")
    }

    /// The most it has had in memory.
    pub fn resident_bytes_peak(&self) -> usize {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, key: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// Hundredths of a second of processor time so far.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
        ticks(11) + ticks(12)
    }
}

fn addresses(said: &serde_json::Value) -> Vec<SocketAddr> {
    let texts = said.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
