//! Local subscribers, retained messages, wills.

use super::harness::*;

const RIGHTS: &str = "[[client]]\nname = \"app\"\npublish = [\"plant/#\"]\nsubscribe = [\"plant/#\", \"weir/1/+/events\"]\n\
                      [[client]]\nname = \"other\"\npublish = [\"plant/#\"]\nsubscribe = [\"plant/#\"]";

#[tokio::test]
async fn local_subscribers_see_events_and_other_topics() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    for filter in ["weir/1/+/events", "plant/#"] {
        app.send(&subscribe(filter, 1)).await;
        app.expect(&suback(1)).await;
    }
    let mut device = Client::connect(gateway.address(), "dev-1").await;
    device.publish_uplink("dev-1", 1, 1).await;
    device.expect(&puback(1)).await;
    assert_eq!(app.message().await, ("weir/1/dev-1/events".to_owned(), uplink_payload(1)));
    let mut other = Client::connect_v5(gateway.address(), "other").await;
    other.send(&publish("plant/pump", 1, 3, b"\0on")).await;
    other.expect(&puback(3)).await;
    assert_eq!(app.message().await, ("plant/pump".to_owned(), b"on".to_vec()));
}

#[tokio::test]
async fn a_message_comes_with_the_lesser_qos() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/#", 1)).await;
    app.expect(&suback(1)).await;
    app.send(&publish("plant/a", 0, 0, b"x")).await;
    let (head, _) = app.packet().await;
    assert_eq!(head, 0x30);
    app.send(&publish("plant/a", 1, 1, b"x")).await;
    app.expect(&puback(1)).await;
    let (head, _) = app.packet().await;
    assert_eq!(head, 0x32);
}

#[tokio::test]
async fn a_retained_message_is_there_for_those_who_come_later() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut other = Client::connect(gateway.address(), "other").await;
    let mut retained = publish("plant/state", 1, 1, b"ready");
    retained[0] |= 1;
    other.send(&retained).await;
    other.expect(&puback(1)).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/+", 0)).await;
    app.expect(&suback(0)).await;
    let (head, body) = app.packet().await;
    assert_eq!((head, &body[2..]), (0x31, b"plant/stateready".as_slice()));
}

#[tokio::test]
async fn a_will_is_published_for_who_leaves_without_a_word() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/#", 0)).await;
    app.expect(&suback(0)).await;
    let with_will = connect_v4("other", 60, 0x04, &[string("plant/gone"), string("bye")]);
    for says_goodbye in [true, false] {
        let mut other = Client::open(gateway.address()).await;
        other.send(&with_will).await;
        other.expect(&CONNACK_V4).await;
        if says_goodbye {
            other.send(&DISCONNECT).await;
            other.closed().await;
        }
    }
    assert_eq!(app.message().await, ("plant/gone".to_owned(), b"bye".to_vec()));
    app.nothing_comes().await;
}

/// Who says DISCONNECT has said it, even if nobody listened at that time.
#[tokio::test]
async fn no_will_is_published_for_who_left_properly_while_it_was_held_back() {
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"";
    let gateway = Gateway::with_full_spool(&format!("inflight_max = 4\n{RIGHTS}\n{listener}")).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/#", 0)).await;
    app.expect(&suback(0)).await;
    let with_will = |payload: &str| connect_v4("other", 60, 0x04, &[string("plant/gone"), string(payload)]);
    let uplink = |seq: u16| publish("weir/1/other/events", 1, seq, &uplink_payload(u32::from(seq)));
    // Its last packets are kept, or (after so many) not even read.
    for (will, uplinks) in [("kept", 1), ("unread", 20)] {
        let mut other = Client::open(gateway.address()).await;
        let held: Vec<u8> = (1..=uplinks).flat_map(uplink).collect();
        other.send(&[with_will(will), held].concat()).await;
        other.expect(&CONNACK_V4).await;
        other.nothing_comes().await;
        other.send(&DISCONNECT).await;
        // The next one takes its place.
        let mut next = Client::open(gateway.address()).await;
        next.send(&connect_v4("other", 60, 0, &[])).await;
        next.expect(&CONNACK_V4).await;
        other.closed().await;
    }
    // It has more to read than it cares for, and resets the connection after its DISCONNECT.
    let mut other = Client::open(gateway.address()).await;
    other.send(&[with_will("reset"), subscribe("plant/#", 0)].concat()).await;
    other.expect(&[&CONNACK_V4[..], &suback(0)].concat()).await;
    for _ in 0..100 {
        app.send(&publish("plant/noise", 0, 0, &[0; 1000])).await;
    }
    for _ in 0..100 {
        assert_eq!(app.message().await.0, "plant/noise");
    }
    other.send(&DISCONNECT).await;
    drop(other);
    let mut silent = Client::open(gateway.address()).await;
    silent.send(&with_will("silent")).await;
    silent.expect(&CONNACK_V4).await;
    drop(silent);
    assert_eq!(app.message().await, ("plant/gone".to_owned(), b"silent".to_vec()));
}

/// What is found unread when a connection ends may begin in the middle of a packet.
#[tokio::test]
async fn a_payload_that_was_not_read_is_not_taken_for_a_goodbye_nor_does_it_hide_one() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/gone", 0)).await;
    app.expect(&suback(0)).await;
    for (payload, says_goodbye) in [([0xff; 50], true), ([0xe0, 0].repeat(25).try_into().unwrap(), false)] {
        let mut other = Client::open(gateway.address()).await;
        let will = if says_goodbye { "wrong" } else { "right" };
        let with_will = connect_v4("other", 60, 0x04, &[string("plant/gone"), string(will)]);
        other.send(&[with_will, subscribe("plant/#", 0)].concat()).await;
        other.expect(&[&CONNACK_V4[..], &suback(0)].concat()).await;
        let packet = publish("plant/x", 0, 0, &payload);
        let (begin, rest) = packet.split_at(packet.len() - payload.len());
        other.send(begin).await;
        // It reads nothing any more until the gateway cannot write to it, and so does not read of it.
        for _ in 0..400 {
            app.send(&publish("plant/noise", 0, 0, &[0; 60_000])).await;
        }
        app.send(&PINGREQ).await;
        app.expect(&PINGRESP).await;
        other.send(rest).await;
        if says_goodbye {
            other.send(&DISCONNECT).await;
        }
        // Another takes its place.
        let mut next = Client::open(gateway.address()).await;
        next.send(&connect_v4("other", 60, 0, &[])).await;
        next.expect(&CONNACK_V4).await;
        next.send(&DISCONNECT).await;
        next.closed().await;
    }
    assert_eq!(app.message().await, ("plant/gone".to_owned(), b"right".to_vec()));
    app.nothing_comes().await;
}

#[tokio::test]
async fn a_devices_will_may_be_an_uplink() {
    let gateway = Gateway::start("").await;
    let mut will = connect_v4("dev-1", 60, 0x04, &[string("weir/1/dev-1/events")]);
    let payload = uplink_payload(9);
    will.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    will.extend(&payload);
    will[1] = u8::try_from(will.len() - 2).unwrap();
    let mut device = Client::open(gateway.address()).await;
    device.send(&will).await;
    device.expect(&CONNACK_V4).await;
    drop(device);
    eventually("the will is stored", || gateway.stored().iter().any(|stored| stored.payload == payload))
        .await;
    // Of another device, or no uplink: refused at once.
    for (topic, payload) in [("weir/1/dev-2/events", ""), ("plant/x", "x"), ("weir/1/dev-1/events", "x")] {
        let mut device = Client::open(gateway.address()).await;
        device.send(&connect_v4("dev-1", 60, 0x04, &[string(topic), string(payload)])).await;
        let refused = device.closed().await;
        assert_ne!(refused.get(3), Some(&0), "{refused:02x?}");
    }
}

#[tokio::test]
async fn no_local_is_kept() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect_v5(gateway.address(), "app").await;
    app.send(&packet(0x82, &[&[0, 9, 0], &string("plant/#")[..], &[0b0101]].concat())).await;
    app.expect(&[0x90, 4, 0, 9, 0, 1]).await;
    app.send(&publish("plant/a", 1, 1, b"\0mine")).await;
    app.expect(&puback(1)).await;
    let mut other = Client::connect(gateway.address(), "other").await;
    other.send(&publish("plant/a", 1, 1, b"theirs")).await;
    other.expect(&puback(1)).await;
    let (_, body) = app.packet().await;
    assert!(body.ends_with(b"theirs"), "{body:02x?}");
}

#[tokio::test]
async fn thousands_of_messages_reach_a_subscriber_in_order() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/#", 1)).await;
    app.expect(&suback(1)).await;
    let address = gateway.address();
    let publisher = tokio::spawn(async move {
        let mut other = Client::connect(address, "other").await;
        for number in 1..=3000_u16 {
            other.send(&publish("plant/a", 1, number, &number.to_be_bytes())).await;
            other.expect(&puback(number)).await;
        }
    });
    for number in 1..=3000_u16 {
        assert_eq!(app.message().await.1, number.to_be_bytes());
    }
    publisher.await.unwrap();
}
