//! Hoarding: what is kept for clients has limits in bytes.

use super::*;
use crate::mqtt::harness::{connect_v5, packet, string, suback, subscribe};

/// PUBLISH of MQTT 5 with a user property of so many bytes.
fn publish_v5(head: u8, topic: &str, packet_id: u16, property_len: usize, payload: &[u8]) -> Vec<u8> {
    let mut properties = Vec::new();
    if property_len > 0 {
        properties.push(0x26);
        properties.extend(string("k"));
        properties.extend(string(&"v".repeat(property_len)));
    }
    let mut body = string(topic);
    body.extend_from_slice(&packet_id.to_be_bytes());
    let mut len = properties.len();
    while len > 0x7f {
        body.push(0x80 | u8::try_from(len & 0x7f).expect("seven bits"));
        len >>= 7;
    }
    body.push(u8::try_from(len).expect("seven bits"));
    body.extend_from_slice(&properties);
    body.extend_from_slice(payload);
    packet(head, &body)
}

/// A client of MQTT 5, accepted; it does not ask what the terms are.
fn connect_5(address: SocketAddr, client_id: &str) -> TcpStream {
    let mut stream = open(address);
    stream.write_all(&connect_v5(client_id, &[])).expect("a connection");
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a CONNACK");
    let mut body = vec![0; usize::from(head[1])];
    stream.read_exact(&mut body).expect("a CONNACK");
    assert_eq!((head[0], body[1]), (0x20, 0));
    stream
}

/// Publishes in windows; what the acknowledgements say does not matter.
fn publish_all(stream: &mut TcpStream, packets: impl Iterator<Item = Vec<u8>>) {
    let mut waiting = 0;
    for packet in packets {
        stream.write_all(&packet).expect("a connection");
        waiting += 1;
        if waiting == 50 {
            read_pubacks(stream, &mut waiting);
        }
    }
    read_pubacks(stream, &mut waiting);
}

fn read_pubacks(stream: &mut TcpStream, waiting: &mut u32) {
    for _ in 0..std::mem::take(waiting) {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a PUBACK");
        assert_eq!(head[0], 0x40);
        let mut rest = vec![0; usize::from(head[1])];
        stream.read_exact(&mut rest).expect("a PUBACK");
    }
}

#[tokio::test]
async fn subscribers_that_read_nothing_cost_no_memory_whatever_is_published() {
    let daemon = Daemon::start(RIGHTS, |_| {}, None).await;
    suffer("subscribers that read nothing", &daemon, |address| {
        let mut silent = connect(address, "app");
        silent.write_all(&subscribe("#", 1)).expect("a connection");
        expect(&mut silent, &suback(1));
        let mut publisher = connect_5(address, "other");
        // Much in the payload, much beside it, and little at all but often.
        publish_all(&mut publisher, (0..2000).map(|_| publish_v5(0x32, "plant/a", 1, 0, &[7; 60_000])));
        publish_all(&mut publisher, (0..2000).map(|_| publish_v5(0x32, "plant/a", 1, 60_000, b"x")));
        publish_all(&mut publisher, (0..20_000).map(|_| publish_v5(0x32, "p", 1, 0, b"")));
    });
}

#[tokio::test]
async fn retained_messages_are_bounded_in_number_and_in_bytes() {
    let daemon = Daemon::start(RIGHTS, |_| {}, None).await;
    suffer("hoarding retained messages", &daemon, |address| {
        let mut hoarder = connect_5(address, "app");
        let topic = |index: u32| format!("plant/{index}/{}", "t".repeat(200));
        publish_all(&mut hoarder, (0..2000).map(|index| publish_v5(0x33, &topic(index), 1, 60_000, b"x")));
        publish_all(&mut hoarder, (0..5_000).map(|index| publish_v5(0x33, &topic(index), 1, 0, b"")));
        publish_all(&mut hoarder, (0..35_000).map(|index| publish_v5(0x33, &topic(index), 1, 0, b"x")));
    });
}
