//! MQTT 3.1.1 and 5 as clients speak it.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::time::{Instant, timeout};

use super::harness::*;

#[tokio::test]
async fn a_stock_client_gets_its_acknowledgements_in_both_versions() {
    let gateway = Gateway::start("").await;
    let address = gateway.address();
    let mut options = MqttOptions::new("dev-4", "127.0.0.1", address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 100);
    client.subscribe("weir/1/dev-4/time", QoS::AtMostOnce).await.unwrap();
    for seq in 1..=10 {
        client.publish("weir/1/dev-4/events", QoS::AtLeastOnce, false, uplink_payload(seq)).await.unwrap();
    }
    let (mut acknowledged, mut times) = (0, 0);
    while acknowledged < 10 || times < 1 {
        match timeout(DEADLINE, events.poll()).await.expect("in time").expect("a connection") {
            Event::Incoming(Packet::PubAck(_)) => acknowledged += 1,
            Event::Incoming(Packet::Publish(publish)) => {
                assert_eq!(publish.topic, "weir/1/dev-4/time");
                assert!(
                    weir_contract::time::Time::read(&publish.payload).unwrap().unix_ms > 1_700_000_000_000
                );
                times += 1;
            }
            _ => {}
        }
    }

    use rumqttc::v5::mqttbytes::QoS as QoS5;
    use rumqttc::v5::mqttbytes::v5::{Packet as Packet5, PubAckReason};
    let mut options = rumqttc::v5::MqttOptions::new("dev-5", "127.0.0.1", address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = rumqttc::v5::AsyncClient::new(options, 100);
    client.publish("weir/1/dev-5/events", QoS5::AtLeastOnce, false, uplink_payload(1)).await.unwrap();
    client.publish("weir/1/dev-5/events", QoS5::AtLeastOnce, false, "no uplink").await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        match timeout(DEADLINE, events.poll()).await.expect("in time").expect("a connection") {
            rumqttc::v5::Event::Incoming(Packet5::PubAck(ack)) => {
                let said = ack.properties.and_then(|properties| properties.reason_string);
                reasons.push((ack.reason, said));
            }
            rumqttc::v5::Event::Incoming(Packet5::ConnAck(ack)) => {
                assert_eq!(ack.properties.unwrap().max_qos, Some(1));
            }
            _ => {}
        }
    }
    assert_eq!(reasons[0], (PubAckReason::Success, None));
    assert_eq!(reasons[1].0, PubAckReason::PayloadFormatInvalid);
    assert!(reasons[1].1.as_deref().unwrap().contains("not an uplink"), "{reasons:?}");
    assert_eq!(gateway.stored().len(), 11);
}

#[tokio::test]
async fn a_payload_that_is_no_uplink_is_refused_and_can_be_looked_at() {
    let gateway = Gateway::start("").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    client.send(&publish("weir/1/dev-1/events", 1, 5, b"hello")).await;
    client.expect(&puback(5)).await;
    assert!(gateway.stored().is_empty());
    let refused = gateway.listeners.refusals().all();
    assert_eq!((refused.len(), refused[0].client.as_str()), (1, "dev-1"));
    assert_eq!(refused[0].payload_hex, "68656c6c6f");
    // It goes on.
    client.publish_uplink("dev-1", 6, 1).await;
    client.expect(&puback(6)).await;
}

#[tokio::test]
async fn the_newest_connection_of_a_client_stays() {
    let gateway = Gateway::start("").await;
    let mut first = Client::connect(gateway.address(), "dev-1").await;
    let mut second = Client::connect_v5(gateway.address(), "dev-1").await;
    assert!(first.closed().await.is_empty());
    let mut third = Client::connect(gateway.address(), "dev-1").await;
    assert_eq!(second.closed().await, [0xe0, 1, 0x8e]);
    third.publish_uplink("dev-1", 1, 1).await;
    third.expect(&puback(1)).await;
}

#[tokio::test]
async fn a_hundred_takeovers_at_once_leave_one() {
    let gateway = Gateway::start("").await;
    let address = gateway.address();
    let clients: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::open(address).await;
                client.send(&connect_v4("dev-1", 60, 0, &[])).await;
                client
            })
        })
        .collect();
    let mut open = Vec::new();
    for client in clients {
        open.push(client.await.unwrap());
    }
    // One of them is answered when it publishes; the others are closed.
    let mut answered = 0;
    for client in &mut open {
        let mut read = [0; 6];
        let pinged = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            client.stream.write_all(&PINGREQ).await?;
            client.stream.read_exact(&mut read).await
        };
        if timeout(DEADLINE, pinged).await.expect("answered or closed").is_ok() && read[4..] == PINGRESP {
            answered += 1;
        }
    }
    assert!(answered >= 1);
    gateway.is_alive().await;
}

#[tokio::test]
async fn silence_of_one_and_a_half_keep_alives_ends_a_connection() {
    let gateway = Gateway::start("").await;
    let began = Instant::now();
    let mut silent = Client::open(gateway.address()).await;
    silent.send(&connect_v4("silent", 1, 0, &[])).await;
    silent.expect(&CONNACK_V4).await;
    let mut talking = Client::open(gateway.address()).await;
    talking.send(&connect_v4("talking", 1, 0, &[])).await;
    talking.expect(&CONNACK_V4).await;
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            talking.send(&PINGREQ).await;
            talking.expect(&PINGRESP).await;
        }
    };
    let ((), _) = tokio::join!(talk, silent.closed());
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    talking.send(&PINGREQ).await;
    talking.expect(&PINGRESP).await;
}

#[tokio::test]
async fn a_client_without_keep_alive_has_ours() {
    let gateway = Gateway::start("keep_alive_ms_max = 1000").await;
    let mut v5 = Client::open(gateway.address()).await;
    v5.send(&connect_v5("dev-5", &[])).await;
    let (_, connack) = v5.packet().await;
    assert!(
        connack.windows(3).any(|three| three == [0x13, 0, 1]),
        "server keep alive is told: {connack:02x?}"
    );
    let mut v4 = Client::open(gateway.address()).await;
    v4.send(&connect_v4("dev-4", 0, 0, &[])).await;
    v4.expect(&CONNACK_V4).await;
    assert_eq!(v5.closed().await, [0xe0, 1, 0x8d]);
    v4.closed().await;
}

#[tokio::test]
async fn qos_2_is_refused_as_each_version_allows() {
    let gateway = Gateway::start("").await;
    let mut v4 = Client::connect(gateway.address(), "dev-4").await;
    v4.send(&publish("weir/1/dev-4/events", 2, 1, &uplink_payload(1))).await;
    assert!(v4.closed().await.is_empty());
    let mut v5 = Client::connect_v5(gateway.address(), "dev-5").await;
    v5.send(&publish("weir/1/dev-5/events", 2, 1, &[&[0], &uplink_payload(1)[..]].concat())).await;
    assert_eq!(v5.closed().await, [0xe0, 1, 0x9b]);
    // A will of QoS 2 (MQTT 5).
    let mut will = Client::open(gateway.address()).await;
    let mut body = b"\0\x04MQTT\x05\x16\0\x3c\0".to_vec();
    body.extend([string("dev-6"), vec![0], string("weir/1/dev-6/events"), string("x")].concat());
    will.send(&packet(0x10, &body)).await;
    let (head, connack) = will.packet().await;
    assert_eq!((head, connack[1]), (0x20, 0x9b));
    assert!(gateway.stored().is_empty());
}

#[tokio::test]
async fn other_levels_of_the_protocol_are_told_so() {
    let gateway = Gateway::start("").await;
    let mut old = Client::open(gateway.address()).await;
    old.send(&packet(0x10, b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01a")).await;
    assert_eq!(old.closed().await, [0x20, 2, 0, 1]);
    let mut new = Client::open(gateway.address()).await;
    new.send(&packet(0x10, b"\0\x04MQTT\x06\x02\0\x3c\0\0\x01a")).await;
    let (head, connack) = new.packet().await;
    assert_eq!((head, connack[1]), (0x20, 0x84));
}

#[tokio::test]
async fn a_client_without_identifier_is_given_one() {
    let gateway = Gateway::start("").await;
    let mut v5 = Client::open(gateway.address()).await;
    v5.send(&connect_v5("", &[])).await;
    let (_, connack) = v5.packet().await;
    let at = connack.windows(5).position(|five| five == b"auto-").expect("an identifier");
    let id = String::from_utf8(connack[at..at + 21].to_vec()).unwrap();
    v5.send(&publish(&format!("weir/1/{id}/events"), 1, 1, &[&[0], &uplink_payload(1)[..]].concat())).await;
    v5.expect(&puback(1)).await;
    // MQTT 3.1.1 allows it with a clean session only.
    let mut v4 = Client::open(gateway.address()).await;
    v4.send(&packet(0x10, b"\0\x04MQTT\x04\x00\0\x3c\0\0")).await;
    assert_eq!(v4.closed().await, [0x20, 2, 0, 2]);
}

#[tokio::test]
async fn malformed_packets_end_their_connection_only() {
    let gateway = Gateway::start("").await;
    let mut bystander = Client::connect(gateway.address(), "bystander").await;
    let before_connect: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10, 0xff, 0xff, 0xff, 0xff],
        &[0x10, 2, 0, 0],
        &[0x30, 5, 0, 1, b'a', 0, 0],
        &PINGREQ,
        &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 3, 0, 60, 0, 0],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 252],
    ];
    for bytes in before_connect {
        let mut client = Client::open(gateway.address()).await;
        client.send(bytes).await;
        client.closed().await;
    }
    let after_connect: [(&[u8], u8); 9] = [
        (&[0x20, 2, 0, 0], 0x82),
        (&[0xb0, 4, 0, 1, 0, 0], 0x82),
        (&[0xf0, 0], 0x82),
        (&[0x10, 0], 0x81),
        (&[0x30, 2, 0, 9], 0x81),
        (&[0x82, 3, 0, 1, 0], 0x81),
        (&[0x82, 8, 0, 0, 0, 0, 2, b'a', b'/', 0], 0x82),
        (&[0x62, 2, 0, 1], 0x82),
        (&[0x36, 4, 0, 1, b'a', 0], 0x81),
    ];
    for (bytes, reason) in after_connect {
        let mut client = Client::connect_v5(gateway.address(), "dev-1").await;
        client.send(bytes).await;
        let goodbye = client.closed().await;
        let code = goodbye.get(2).copied();
        assert!(code == Some(reason) || code == Some(0x82), "{bytes:02x?}: {goodbye:02x?}");
    }
    bystander.send(&PINGREQ).await;
    bystander.expect(&PINGRESP).await;
    gateway.is_alive().await;
}

#[tokio::test]
async fn random_bytes_never_harm_anybody_else() {
    let gateway = Gateway::start("").await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        let mut client = Client::open(gateway.address()).await;
        if round % 3 > 0 {
            let connect =
                if round % 3 == 1 { connect_v4("dev-1", 60, 0, &[]) } else { connect_v5("dev-1", &[]) };
            client.send(&connect).await;
        }
        let heads = [0x10, 0x30, 0x32, 0x40, 0x82, 0xa2, 0xc0, 0xe0, random.u8(..)];
        let mut body: Vec<u8> = (0..random.usize(0..60)).map(|_| random.u8(..)).collect();
        if let Some(first) = body.first_mut() {
            *first = 0;
        }
        let bytes = packet(heads[random.usize(..heads.len())], &body);
        // The other side may have closed already.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &bytes).await;
    }
    gateway.is_alive().await;
}
