//! Floods: one client sends all it can of something.

use std::net::Shutdown;

use super::*;
use crate::mqtt::harness::{PINGREQ, packet, string, subscribe};

/// Writes `bytes` over and over, and reads the answers, or not.
fn flood(address: SocketAddr, client_id: &str, bytes: &[u8], reads: bool) {
    let mut stream = connect(address, client_id);
    let mut reader = stream.try_clone().expect("a second handle");
    let reading = reads.then(|| std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink())));
    stream.set_write_timeout(Some(ATTACK)).expect("an option of every socket");
    again_and_again(|_| {
        // It may be held back, or thrown out: that is what limits are for.
        let _ = stream.write_all(bytes);
    });
    let _ = stream.shutdown(Shutdown::Both);
    if let Some(reading) = reading {
        let _ = reading.join().expect("it does not panic");
    }
}

fn uplinks(device: &str, qos: u8) -> Vec<u8> {
    let topic = format!("weir/1/{device}/events");
    (1..=2000).flat_map(|seq| publish(&topic, qos, seq, &uplink_payload(u32::from(seq)))).collect()
}

/// A spool that such a flood cannot fill.
async fn daemon() -> Daemon {
    Daemon::start(RIGHTS, |_| {}, None).await
}

#[tokio::test]
async fn a_flood_of_publishes_with_and_without_acknowledgements() {
    let daemon = daemon().await;
    for (what, qos, reads) in
        [("QoS 0", 0, true), ("QoS 1", 1, true), ("QoS 1, acknowledgements not read", 1, false)]
    {
        suffer(what, &daemon, |address| flood(address, "flood", &uplinks("flood", qos), reads));
    }
}

#[tokio::test]
async fn a_flood_of_rubbish_on_an_events_topic() {
    let daemon = daemon().await;
    let rubbish: Vec<u8> =
        (1..=500).flat_map(|id| publish("weir/1/flood/events", 1, id, &[0xff; 3000])).collect();
    suffer("rubbish", &daemon, |address| flood(address, "flood", &rubbish, true));
}

#[tokio::test]
async fn a_flood_of_pings() {
    let daemon = daemon().await;
    for reads in [true, false] {
        suffer("pings", &daemon, |address| flood(address, "flood", &PINGREQ.repeat(10_000), reads));
    }
}

#[tokio::test]
async fn a_churn_of_subscriptions_that_were_never_thought_of_before() {
    let daemon = daemon().await;
    let churn = |prefix: &str| -> Vec<u8> {
        let one = |index: u32| {
            let filter = format!("{prefix}/{index}");
            [subscribe(&filter, 1), packet(0xa2, &[&[0, 9], &string(&filter)[..]].concat())].concat()
        };
        (0..1000).flat_map(one).collect()
    };
    suffer("a device's churn", &daemon, |address| flood(address, "flood", &churn("weir/1/flood"), true));
    suffer("a program's churn", &daemon, |address| flood(address, "app", &churn("plant"), true));
    // Others can still subscribe to what nobody has thought of yet.
    let mut other = connect(daemon.addresses[0], "other");
    other.write_all(&subscribe("something/else", 1)).expect("a connection");
    expect(&mut other, &[0x90, 3, 0, 9, 1]);
}

#[tokio::test]
async fn a_flood_of_giant_topics_and_packets() {
    let daemon = daemon().await;
    suffer("giant topics", &daemon, |address| {
        again_and_again(|round| {
            let mut stream = connect(address, "app");
            let topic = "t/".repeat(32_000);
            let giant = match round % 3 {
                0 => publish(&topic, 1, 1, b"x"),
                1 => subscribe(&topic, 1),
                // 256 MiB to come.
                _ => vec![0x30, 0xff, 0xff, 0xff, 0x7f],
            };
            let _ = stream.write_all(&giant);
            // Thrown out, or refused.
            let _ = stream.read(&mut [0; 16]);
        });
    });
}
