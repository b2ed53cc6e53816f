//! What connections cost, and what happens when the system gives no more.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::daemon::Daemon;
use super::harness::*;

const CONNECTIONS: usize = 2_000;
const BYTES_MAX: usize = 10 * 1024;

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
    let daemon = Daemon::start("", |_| {}, None).await;
    let address = daemon.addresses[0];
    let mut connections: Vec<_> = (0..200).map(|index| idle(address, &format!("warm-{index}"))).collect();
    let before = daemon.resident_bytes();
    connections.extend((0..CONNECTIONS).map(|index| idle(address, &format!("dev-{index}"))));
    let each = daemon.resident_bytes().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each idle connection");
    assert!(each < BYTES_MAX, "{each} bytes for each idle connection");
}

#[tokio::test]
async fn a_full_file_table_costs_no_processor_and_is_gone_with_its_cause() {
    let daemon = Daemon::start("", |_| {}, Some(100)).await;
    let address = daemon.addresses[0];
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
