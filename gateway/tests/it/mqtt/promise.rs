//! PUBACK means stored.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use weir_gateway::journal;

use super::harness::*;

#[tokio::test]
async fn an_acknowledged_uplink_is_on_disk() {
    let gateway = Gateway::start("").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    for seq in 1..=20 {
        client.publish_uplink("dev-1", u16::try_from(seq).unwrap(), seq).await;
        client.expect(&puback(u16::try_from(seq).unwrap())).await;
        // A process killed at this moment finds it when it comes back.
        let stored = gateway.stored_on_disk();
        assert_eq!(stored.len(), seq as usize);
        assert_eq!(stored[seq as usize - 1].payload, uplink_payload(seq));
        assert_eq!(stored[seq as usize - 1].device, "dev-1");
    }
}

#[tokio::test]
async fn an_uplink_is_not_acknowledged_before_its_commit() {
    let toml = "[[listener]]\naddress = \"127.0.0.1:0\"";
    let gateway = Gateway::with_spool(toml, |spool| spool.commit_delay_ms = 400).await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    let before = gateway.custody.stored();
    let began = Instant::now();
    client.publish_uplink("dev-1", 1, 1).await;
    client.send(&PINGREQ).await;
    client.expect(&PINGRESP).await;
    assert_eq!(gateway.custody.stored(), before, "the commit waits for company");
    client.expect(&puback(1)).await;
    assert!(gateway.custody.stored() > before);
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn every_chunking_of_a_stream_is_acknowledged_in_order() {
    let gateway = Gateway::start("").await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..20_u32 {
        let device = format!("dev-{round}");
        let mut client = Client::connect(gateway.address(), &device).await;
        let mut stream = Vec::new();
        for seq in 1..=30_u16 {
            let topic = format!("weir/1/{device}/events");
            stream.extend(publish(&topic, 1, seq, &uplink_payload(u32::from(seq))));
        }
        let chunk_max = if round == 0 { 1 } else { random.usize(1..400) };
        let mut rest = stream.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.usize(1..=chunk_max).min(rest.len()));
            client.send(chunk).await;
            rest = after;
        }
        for seq in 1..=30 {
            client.expect(&puback(seq)).await;
        }
    }
    assert_eq!(gateway.stored().len(), 20 * 30);
}

#[tokio::test]
async fn qos_0_is_stored_as_well_but_not_acknowledged() {
    let gateway = Gateway::start("").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    client.send(&publish("weir/1/dev-1/events", 0, 0, &uplink_payload(1))).await;
    eventually("it is stored", || gateway.stored().len() == 1).await;
    client.nothing_comes().await;
}

#[tokio::test]
async fn a_repeated_uplink_is_acknowledged_and_stored_once() {
    let gateway = Gateway::start("").await;
    for _ in 0..2 {
        let mut client = Client::connect(gateway.address(), "dev-1").await;
        for _ in 0..3 {
            client.publish_uplink("dev-1", 7, 1).await;
            client.expect(&puback(7)).await;
        }
    }
    assert_eq!(gateway.stored().len(), 1);
}

#[tokio::test]
async fn the_trace_of_an_mqtt_5_publish_is_kept() {
    let gateway = Gateway::start("").await;
    let mut client = Client::connect_v5(gateway.address(), "dev-1").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut payload = vec![0x26];
    payload.extend(string("traceparent"));
    payload.extend(string(trace));
    payload.insert(0, u8::try_from(payload.len()).unwrap());
    payload.extend(uplink_payload(1));
    client.send(&publish("weir/1/dev-1/events", 1, 1, &payload)).await;
    client.expect(&puback(1)).await;
    let stored = gateway.stored();
    assert_eq!(stored[0].traceparent.as_deref(), Some(trace.as_bytes()));
    assert_eq!(stored[0].payload, uplink_payload(1));
}

#[tokio::test]
async fn many_clients_at_once_get_every_acknowledgement() {
    let gateway = Gateway::start("").await;
    let clients = (0..50).map(|index| {
        let address = gateway.address();
        tokio::spawn(async move {
            let device = format!("dev-{index}");
            let mut client = Client::connect(address, &device).await;
            for window in 0..10_u16 {
                for seq in 1..=20 {
                    let seq = window * 20 + seq;
                    client.publish_uplink(&device, seq, u32::from(seq)).await;
                }
                for seq in 1..=20 {
                    client.expect(&puback(window * 20 + seq)).await;
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(gateway.stored().len(), 50 * 200);
}

#[tokio::test]
async fn a_full_spool_makes_clients_wait_and_loses_nothing() {
    let toml = "inflight_max = 40\n[[listener]]\naddress = \"127.0.0.1:0\"";
    let gateway = Gateway::with_spool(toml, |spool| {
        (spool.epoch_bytes, spool.bytes_max, spool.keep_delivered_bytes) = (1 << 20, 18 << 20, 0);
    })
    .await;
    let mut client = Client::connect_v5(gateway.address(), "dev-1").await;
    let payload = |seq: u32| [vec![0], large_uplink_payload(seq)].concat();
    let mut acknowledged = 0_u16;
    loop {
        client
            .send(&publish("weir/1/dev-1/events", 1, acknowledged + 1, &payload(u32::from(acknowledged + 1))))
            .await;
        let expected = puback(acknowledged + 1);
        let mut read = [0; 4];
        match timeout(
            Duration::from_secs(1),
            tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut read),
        )
        .await
        {
            Ok(done) => assert_eq!(done.map(|_| read.to_vec()).unwrap(), expected),
            Err(_) => break,
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the spool never fills");
    }
    assert!(acknowledged > 50, "{acknowledged}");
    // It waits, and is served as far as can be.
    client.send(&PINGREQ).await;
    client.expect(&PINGRESP).await;
    let spool = gateway.custody.spool();
    spool.release(spool.next_number(), 1).unwrap();
    client.expect(&puback(acknowledged + 1)).await;
    assert_eq!(spool.next_number() - 1, u64::from(acknowledged) + 1);
}

#[tokio::test]
async fn what_was_sent_before_the_gateway_goes_down_is_acknowledged() {
    let toml = "[[listener]]\naddress = \"127.0.0.1:0\"";
    let gateway = Gateway::with_spool(toml, |spool| spool.commit_delay_ms = 500).await;
    let mut v4 = Client::connect(gateway.address(), "dev-4").await;
    let mut v5 = Client::connect_v5(gateway.address(), "dev-5").await;
    let mut silent = Client::open(gateway.address()).await;
    v4.publish_uplink("dev-4", 1, 1).await;
    v5.send(&publish("weir/1/dev-5/events", 1, 1, &[&[0], &uplink_payload(1)[..]].concat())).await;
    for client in [&mut v4, &mut v5] {
        // So that the publish has been read.
        client.send(&PINGREQ).await;
        client.expect(&PINGRESP).await;
    }
    let custody = gateway.custody.clone();
    let shutdown = tokio::spawn(gateway.listeners.shutdown());
    assert_eq!(v4.closed().await, puback(1));
    assert_eq!(v5.closed().await, [puback(1), vec![0xe0, 1, 0x8b]].concat());
    assert!(silent.closed().await.is_empty());
    timeout(DEADLINE, shutdown).await.expect("in time").unwrap();
    assert_eq!(custody.spool().next_number(), 3);
}

#[tokio::test]
async fn who_comes_and_goes_is_told_to_the_journal() {
    let gateway = Gateway::start("[[client]]\nname = \"dashboard\"").await;
    let Gateway { listeners, custody, journal, .. } = gateway;
    let (stop, stopped) = tokio::sync::mpsc::channel(1);
    let clock = weir_gateway::clock::Clock::system();
    let run = tokio::spawn(journal::run(journal, "gw-1".parse().unwrap(), custody.clone(), clock, stopped));
    let address = listeners.addresses[0];
    let mut device = Client::connect(address, "dev-1").await;
    let mut dashboard = Client::connect(address, "dashboard").await;
    for client in [&mut device, &mut dashboard] {
        client.send(&DISCONNECT).await;
        client.closed().await;
    }
    eventually("both are told", || custody.spool().next_number() > 1).await;
    listeners.shutdown().await;
    drop(stop);
    timeout(DEADLINE, run).await.expect("in time").unwrap();
    let records = custody.spool().read_from(1, 1 << 20).unwrap();
    let told: Vec<u8> = records.iter().flat_map(|record| record.entries.to_vec()).collect();
    let told = String::from_utf8_lossy(&told).into_owned();
    for said in ["device-connected", "device-disconnected", "dev-1", "left"] {
        assert!(told.contains(said), "{said} is not in {told}");
    }
    assert!(!told.contains("dashboard"), "a program is no device");
}
