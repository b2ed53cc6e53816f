//! Storms of connections: opened, broken, left half open, taken over.

use super::*;
use crate::mqtt::harness::{packet, subscribe};

/// How many connections there can be on this machine: as many as were wanted, or what the file limit leaves.
fn connections_possible(wanted: u64) -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux says it");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux says it");
    let allowed: u64 = line.split_whitespace().nth(3).and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    wanted.min(allowed.saturating_sub(1000))
}

#[tokio::test]
async fn ten_thousand_connections_at_once() {
    let count = connections_possible(10_000);
    let daemon =
        Daemon::start("mqtt.connections_max = 10100\nmqtt.connections_per_address_max = 10100", |_| {}, None)
            .await;
    suffer(&format!("{count} connections"), &daemon, |address| {
        let connections: Vec<TcpStream> =
            (0..count).map(|index| connect(address, &format!("dev-{index}"))).collect();
        // All of them are served.
        for mut stream in connections.iter().step_by(97) {
            stream.write_all(&[0xc0, 0]).expect("a connection");
            let mut pong = [0; 2];
            stream.read_exact(&mut pong).expect("an answer");
        }
    });
}

#[tokio::test]
async fn connections_are_reset_right_after_connect_and_taken_over_again_and_again() {
    let daemon = Daemon::start(RIGHTS, |_| {}, None).await;
    suffer("resets after CONNECT", &daemon, |address| {
        again_and_again(|round| {
            let mut stream = open(address);
            let subscribes = [connect_v4("app", 60, 0, &[]), subscribe("#", 1)].concat();
            let _ = stream.write_all(&subscribes[..subscribes.len() - round as usize % 20]);
            reset(stream);
        });
    });
    suffer("takeovers", &daemon, |address| {
        let mut before = Vec::new();
        again_and_again(|round| {
            let mut stream = open(address);
            stream.write_all(&connect_v4("app", 60, 0, &[])).expect("a connection");
            before.push(stream);
            if round % 50 == 0 {
                before.clear();
            }
        });
    });
}

/// With no time to linger, closing is a reset.
fn reset(stream: TcpStream) {
    stream.set_nonblocking(true).expect("an option of every socket");
    let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
    stream.set_zero_linger().expect("an option of every TCP socket");
}

#[tokio::test]
async fn half_open_connections_and_half_handshakes_block_nobody() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (pem, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let toml = "mqtt.listener = [{ address = \"127.0.0.1:0\" }, { address = \"127.0.0.1:0\", \
                tls = { certificate = \"FOLDER/a.pem\", key = \"FOLDER/a.key\" } }]";
    let prepare = |folder: &std::path::Path| {
        std::fs::write(folder.join("a.pem"), pem).expect("a file");
        std::fs::write(folder.join("a.key"), key).expect("a file");
    };
    let daemon = Daemon::start(toml, prepare, None).await;
    let tls = daemon.addresses[1];
    suffer("half-open connections", &daemon, |address| {
        let mut open_ones = Vec::new();
        again_and_again(|round| {
            let mut plain = open(address);
            let connect = connect_v4("half", 60, 0, &[]);
            let _ = plain.write_all(&connect[..round as usize % connect.len()]);
            let mut secure = open(tls);
            // The beginning of a ClientHello.
            let _ = secure.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..round as usize % 12]);
            open_ones.push((plain, secure));
            open_ones.truncate(2000);
        });
    });
}

#[tokio::test]
async fn malformed_packets_without_end() {
    let daemon = Daemon::start(RIGHTS, |_| {}, None).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    suffer("malformed packets", &daemon, |address| {
        let valid = [
            connect_v4("app", 60, 0, &[]),
            subscribe("plant/#", 1),
            publish("weir/1/app/events", 1, 1, &uplink_payload(1)),
            publish("plant/a", 1, 2, b"x"),
            packet(0xa2, b"\0\x05\0\x07plant/#"),
            packet(0x40, &[0, 1]),
        ];
        again_and_again(|round| {
            let mut stream = open(address);
            let mut bytes = valid.concat();
            let keep = if round % 2 == 0 { valid[0].len() } else { 0 };
            for _ in 0..random.usize(1..6) {
                let at = random.usize(keep..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = stream.write_all(&bytes);
        });
    });
}
