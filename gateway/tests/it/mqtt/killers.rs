//! Ordinary network events that kill rumqttd's own listener, or its router, leave this one alive.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::harness::*;

const RIGHTS: &str = "[[client]]\nname = \"app\"\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
                      [[client]]\nname = \"other\"\npublish = [\"#\"]\nsubscribe = [\"#\"]";

/// Subscribers are still served.
async fn delivers(gateway: &Gateway) {
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/#", 1)).await;
    app.expect(&suback(1)).await;
    app.send(&publish("plant/x", 1, 1, b"works")).await;
    app.expect(&puback(1)).await;
    assert_eq!(app.message().await.1, b"works");
}

#[tokio::test]
async fn a_reset_right_after_connect_and_another_connect() {
    let gateway = Gateway::start(RIGHTS).await;
    for _ in 0..50 {
        let mut client = Client::open(gateway.address()).await;
        client.send(&connect_v4("app", 60, 0, &[])).await;
        // With no time to linger, closing is a reset.
        client.stream.set_zero_linger().expect("an option of every TCP socket");
        drop(client);
    }
    delivers(&gateway).await;
    gateway.is_alive().await;
}

#[tokio::test]
async fn a_slow_subscriber_that_leaves() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut publisher = Client::connect(gateway.address(), "other").await;
    for round in 0..5_u16 {
        let mut slow = Client::connect(gateway.address(), "app").await;
        slow.send(&subscribe("plant/#", u8::from(round % 2 == 0))).await;
        slow.expect(&suback(u8::from(round % 2 == 0))).await;
        for number in 1..=1000_u16 {
            publisher.send(&publish("plant/a", 1, number, &[0; 1000])).await;
            publisher.expect(&puback(number)).await;
        }
        // It never read.
        slow.stream.set_zero_linger().expect("an option of every TCP socket");
        drop(slow);
        for number in 1..=100_u16 {
            publisher.send(&publish("plant/a", 1, number, b"on")).await;
            publisher.expect(&puback(number)).await;
        }
    }
    delivers(&gateway).await;
}

#[tokio::test]
async fn a_topic_that_does_not_begin_with_ascii() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("#", 0)).await;
    app.expect(&suback(0)).await;
    app.send(&publish("é/x", 1, 1, b"x")).await;
    app.expect(&puback(1)).await;
    assert_eq!(app.message().await, ("é/x".to_owned(), b"x".to_vec()));
    app.send(&subscribe("é/#", 0)).await;
    app.expect(&suback(0)).await;
    // `#` is not for what begins with `$`.
    app.send(&publish("$SYS/x", 1, 2, b"x")).await;
    app.closed().await;
    assert_eq!(gateway.listeners.refusals().all().len(), 1);
    delivers(&gateway).await;
}

#[tokio::test]
async fn a_subscriber_that_never_acknowledges_or_not_what_it_was_sent() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut silent = Client::connect(gateway.address(), "app").await;
    silent.send(&subscribe("plant/#", 1)).await;
    silent.expect(&suback(1)).await;
    let mut publisher = Client::connect(gateway.address(), "other").await;
    for number in 1..=500_u16 {
        publisher.send(&publish("plant/a", 1, number, b"on")).await;
        publisher.expect(&puback(number)).await;
    }
    for _ in 0..100 {
        silent.packet().await;
    }
    // Acknowledgements of nothing, and out of order.
    for packet_id in [777_u16, 65_535, 3, 2, 3] {
        silent.send(&packet(0x40, &packet_id.to_be_bytes())).await;
    }
    // They open the way for two, and what is acknowledged again for none.
    for _ in 0..2 {
        silent.packet().await;
    }
    silent.nothing_comes().await;
    silent.send(&packet(0x40, &[0, 1])).await;
    silent.packet().await;
    silent.nothing_comes().await;
    drop(silent);
    delivers(&gateway).await;
}

#[tokio::test]
async fn unsubscribing_while_messages_flow() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    let mut publisher = Client::connect(gateway.address(), "other").await;
    for round in 0..50_u16 {
        app.send(&subscribe("plant/#", 1)).await;
        for number in 1..=20 {
            publisher.send(&publish("plant/a", 1, number, &round.to_be_bytes())).await;
            publisher.expect(&puback(number)).await;
        }
        app.send(&packet(0xa2, &[&[0, 9], &string("plant/#")[..]].concat())).await;
    }
    // Everything it was sent is acknowledged, so that it stays welcome.
    loop {
        match timeout(Duration::from_millis(500), app.packet()).await {
            Ok((0x32, body)) => {
                let topic_end = 2 + usize::from(body[1]);
                app.send(&packet(0x40, &body[topic_end..topic_end + 2])).await;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    app.send(&PINGREQ).await;
    app.expect(&PINGRESP).await;
    drop(app);
    delivers(&gateway).await;
}

#[tokio::test]
async fn a_client_with_the_name_of_a_link() {
    let gateway = Gateway::start(RIGHTS).await;
    let mut app = Client::connect(gateway.address(), "app").await;
    app.send(&subscribe("plant/#", 0)).await;
    app.expect(&suback(0)).await;
    for name in ["publisher", "subscriber-1", "a+b#c$/"] {
        let mut client = Client::connect(gateway.address(), name).await;
        client.send(&PINGREQ).await;
        client.expect(&PINGRESP).await;
    }
    app.send(&publish("plant/x", 0, 0, b"still there")).await;
    assert_eq!(app.message().await.1, b"still there");
}

#[tokio::test]
async fn half_a_packet_and_gone() {
    let gateway = Gateway::start(RIGHTS).await;
    let whole =
        [connect_v4("app", 60, 0, &[]), subscribe("plant/#", 1), publish("plant/a", 1, 1, b"x")].concat();
    for end in 1..whole.len() {
        let mut client = Client::open(gateway.address()).await;
        client.stream.write_all(&whole[..end]).await.unwrap();
        drop(client);
    }
    delivers(&gateway).await;
    gateway.is_alive().await;
}
