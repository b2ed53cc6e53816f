//! Everything has a limit, and a client that reaches it harms nobody else.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::harness::*;

#[tokio::test]
async fn there_are_no_more_connections_than_configured() {
    let gateway = Gateway::start("connections_max = 3").await;
    let mut clients = Vec::new();
    for index in 0..3 {
        clients.push(Client::connect(gateway.address(), &format!("dev-{index}")).await);
    }
    let mut fourth = Client::open(gateway.address()).await;
    assert!(fourth.closed().await.is_empty());
    // When one leaves there is room.
    drop(clients.pop());
    let began = Instant::now();
    loop {
        let mut client = Client::open(gateway.address()).await;
        // It may be closed while this is sent.
        let _ =
            tokio::io::AsyncWriteExt::write_all(&mut client.stream, &connect_v4("late", 60, 0, &[])).await;
        let mut read = [0; 4];
        if tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut read).await.is_ok() {
            assert_eq!(read, CONNACK_V4);
            break;
        }
        assert!(began.elapsed() < DEADLINE);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_does_not_say_connect_is_not_waited_for() {
    let gateway = Gateway::start("connect_timeout_ms = 300").await;
    let mut silent = Client::open(gateway.address()).await;
    let mut slow = Client::open(gateway.address()).await;
    slow.send(&[0x10, 20, 0]).await;
    assert!(silent.closed().await.is_empty());
    assert!(slow.closed().await.is_empty());
}

#[tokio::test]
async fn a_packet_that_does_not_end_is_not_waited_for() {
    let gateway = Gateway::start("packet_timeout_ms = 300").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    client.send(&publish("weir/1/dev-1/events", 1, 1, &uplink_payload(1))[..10]).await;
    let began = Instant::now();
    client.closed().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn packets_beyond_the_limits_end_their_connection() {
    let gateway = Gateway::start("payload_bytes_max = 1024\ntopic_bytes_max = 100").await;
    let mut long = Client::connect_v5(gateway.address(), "dev-1").await;
    long.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(long.closed().await, [0xe0, 1, 0x95]);
    let mut topic = Client::connect_v5(gateway.address(), "dev-1").await;
    topic.send(&publish(&"t".repeat(101), 0, 0, b"\0")).await;
    assert_eq!(topic.closed().await, [0xe0, 1, 0x90]);
    let mut connect = Client::open(gateway.address()).await;
    connect.send(&[0x10, 0xff, 0xff, 0x7f]).await;
    assert!(connect.closed().await.is_empty());
}

#[tokio::test]
async fn the_receive_maximum_is_an_agreement() {
    let toml = "inflight_max = 5\n[[listener]]\naddress = \"127.0.0.1:0\"";
    let gateway = Gateway::with_spool(toml, |spool| spool.commit_delay_ms = 300).await;
    let mut v5 = Client::open(gateway.address()).await;
    v5.send(&connect_v5("dev-5", &[])).await;
    let (_, connack) = v5.packet().await;
    assert!(connack.windows(3).any(|three| three == [0x21, 0, 5]), "{connack:02x?}");
    let stream = |device: &str, version_byte: &[u8]| -> Vec<u8> {
        let topic = format!("weir/1/{device}/events");
        let one =
            |seq: u16| publish(&topic, 1, seq, &[version_byte, &uplink_payload(u32::from(seq))].concat());
        (1..=12).flat_map(one).collect()
    };
    v5.send(&stream("dev-5", &[0])).await;
    assert_eq!(v5.closed().await[..3], [0xe0, 1, 0x93]);
    // MQTT 3.1.1 knows no such agreement: it is read as fast as it is acknowledged.
    let mut v4 = Client::connect(gateway.address(), "dev-4").await;
    v4.send(&stream("dev-4", &[])).await;
    for seq in 1..=12 {
        v4.expect(&puback(seq)).await;
    }
}

#[tokio::test]
async fn refusals_and_repetitions_do_not_fill_the_agreement() {
    let gateway = Gateway::start("inflight_max = 1").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    client.publish_uplink("dev-1", 1, 1).await;
    client.expect(&puback(1)).await;
    let mut stream = Vec::new();
    for packet_id in 1..=2000_u16 {
        let payload = if packet_id % 2 == 0 { uplink_payload(1) } else { vec![packet_id.to_be_bytes()[1]] };
        stream.extend(publish("weir/1/dev-1/events", 1, packet_id, &payload));
    }
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let write = tokio::io::AsyncWriteExt::write_all(&mut writer, &stream);
    let read = async {
        let mut read = vec![0; 4 * 2000];
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut read).await.map(|_| read)
    };
    let (written, read) = tokio::join!(write, read);
    written.unwrap();
    let expected: Vec<u8> = (1..=2000).flat_map(puback).collect();
    assert_eq!(read.unwrap(), expected);
}

#[tokio::test]
async fn filters_have_a_limit_for_each_client_and_for_all() {
    let toml = "filters_per_client_max = 3\nfilters_max = 1\nsubscribers_max = 2\n\
                [[client]]\nname = \"a\"\nsubscribe = [\"#\"]\n[[client]]\nname = \"b\"\nsubscribe = [\"#\"]\n\
                [[client]]\nname = \"c\"\nsubscribe = [\"#\"]";
    let gateway = Gateway::start(toml).await;
    let mut a = Client::connect(gateway.address(), "a").await;
    for (filter, code) in [("1", 0), ("2", 0), ("3", 0), ("4", 0x80), ("1", 0)] {
        a.send(&subscribe(filter, 0)).await;
        a.expect(&suback(code)).await;
    }
    let mut b = Client::connect(gateway.address(), "b").await;
    // Whatever one has thought of, others have their own.
    for (filter, code) in [("5", 0), ("6", 0), ("1", 0)] {
        b.send(&subscribe(filter, 0)).await;
        b.expect(&suback(code)).await;
    }
    let mut c = Client::connect(gateway.address(), "c").await;
    c.send(&subscribe("1", 0)).await;
    c.expect(&suback(0x80)).await;
    // A device's own topics cost nothing.
    c.send(&subscribe("weir/1/c/commands", 1)).await;
    c.expect(&suback(1)).await;
    drop(b);
    eventually_subscribed(&mut c).await;
}

async fn eventually_subscribed(client: &mut Client) {
    for _ in 0..500 {
        client.send(&subscribe("1", 0)).await;
        let (_, body) = client.packet().await;
        if body == [0, 9, 0] {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("there is never room for another subscriber");
}

#[tokio::test]
async fn who_does_not_read_its_answers_is_given_up() {
    let gateway = Gateway::start("packet_timeout_ms = 500").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    // Pings until neither side's buffers take any more.
    let pings = PINGREQ.repeat(100_000);
    let write = async {
        loop {
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &pings).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), write).await.expect("it is closed");
    gateway.is_alive().await;
}

#[tokio::test]
async fn a_slow_subscriber_that_begins_to_read_gets_the_rest_without_asking() {
    let rights =
        "[[client]]\nname = \"app\"\nsubscribe = [\"#\"]\n[[client]]\nname = \"other\"\npublish = [\"#\"]";
    let gateway = Gateway::start(rights).await;
    let mut slow = Client::connect(gateway.address(), "app").await;
    slow.send(&subscribe("plant/#", 0)).await;
    slow.expect(&suback(0)).await;
    let mut other = Client::connect(gateway.address(), "other").await;
    // More than all buffers on the way take; what is too much is missed, but not the last.
    for number in 1..=10_000_u16 {
        other.send(&publish("plant/a", 1, number, &[0; 1000])).await;
        other.expect(&puback(number)).await;
    }
    other.send(&publish("plant/a", 1, 1, b"end")).await;
    other.expect(&puback(1)).await;
    while slow.message().await.1 != b"end" {}
}
