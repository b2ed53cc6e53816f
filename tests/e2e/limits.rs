//! Promise 4: everything is bounded, and a full spool says no instead of losing.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weir_tests::device::Device;
use weir_tests::mqtt::{Client, Connect, Packet};
use weir_tests::{Plan, SETTLED_WITHIN, World};

#[test]
fn a_full_spool_holds_devices_back_and_loses_nothing() -> Result<()> {
    /// Uplinks in flight: together fewer bytes than a gateway reads on for while it has no room for them.
    const WINDOW: usize = 3;
    let small = |config: &mut toml::Table| {
        let spool = config["spool"].as_table_mut().expect("[spool]");
        spool.insert("epoch_bytes".into(), (2 << 20).into());
        spool.insert("bytes_max".into(), (32 << 20).into());
    };
    let mut world = World::planned(Plan { gateway: Some(Box::new(small)), ..Plan::default() })?;
    world.nats.stop()?;
    let mut device = Device::new("glutton")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    let mut in_flight = VecDeque::new();
    let mut acknowledged = 0;
    device.emit_large(16 << 10);
    loop {
        ensure!(acknowledged < 10_000, "the spool never was full");
        while in_flight.len() < WINDOW {
            let uplink = device.uplink(1)?;
            in_flight.push_back(client.publish_unawaited(&device.topic(), &uplink)?);
        }
        match client.next(Duration::from_secs(3)) {
            Ok(Packet::PubAck(id, 0)) => {
                ensure!(in_flight.pop_front() == Some(id), "PUBACKs out of order");
                acknowledged += 1;
            }
            Ok(other) => bail!("{other:?} instead of a PUBACK"),
            // Nothing came: because of this, or because the machine is busy with something else.
            Err(_) if is_full(&world)? => break,
            Err(_) => {}
        }
    }
    ensure!(acknowledged > 100, "only {acknowledged} uplinks fit");
    // Held back is not cut off.
    client.ping()?;
    world.nats.start_again()?;
    for id in in_flight {
        ensure!(client.await_puback(id)? == 0);
    }
    world.verify_devices(&[&device])?;
    world.end()
}

fn is_full(world: &World) -> Result<bool> {
    let spool = &world.gateways[0].admin("/status")?["spool"];
    let bytes = |name: &str| spool[name].as_u64().with_context(|| format!("no {name} in {spool}"));
    Ok(bytes("bytes")? * 2 > bytes("budget_bytes")?)
}

#[test]
fn one_connection_too_many_is_turned_away_and_the_others_stay() -> Result<()> {
    let few = |config: &mut toml::Table| {
        config["mqtt"].as_table_mut().expect("[mqtt]").insert("connections_max".into(), 20.into());
    };
    let mut world = World::planned(Plan { gateway: Some(Box::new(few)), ..Plan::default() })?;
    let address = world.gateway().mqtt();
    let mut devices = Vec::new();
    for index in 0..20 {
        let device = Device::new(&format!("seat-{index}"))?;
        let client = device.connect(address)?;
        devices.push((device, client));
    }
    let refused = Client::connect(address, &Connect::new("late"));
    ensure!(refused.is_err(), "a 21st connection was let in");
    for (device, client) in &mut devices {
        device.emit(client, 1)?;
    }
    // A place that becomes free is given again.
    let (_, gone) = devices.pop().context("twenty were let in")?;
    gone.disconnect()?;
    weir_tests::wait::eventually(SETTLED_WITHIN, "the free place", || {
        Ok(Client::connect(address, &Connect::new("late")).ok())
    })?;
    world.end()
}

#[test]
fn a_client_that_says_nothing_is_let_go() -> Result<()> {
    let hasty = |config: &mut toml::Table| {
        config["mqtt"].as_table_mut().expect("[mqtt]").insert("connect_timeout_ms".into(), 500.into());
    };
    let mut world = World::planned(Plan { gateway: Some(Box::new(hasty)), ..Plan::default() })?;
    let address = world.gateway().mqtt();
    let silent = std::net::TcpStream::connect(address)?;
    silent.set_read_timeout(Some(Duration::from_secs(10)))?;
    ensure!(std::io::Read::read(&mut &silent, &mut [0; 16])? == 0, "the gateway still waits for a CONNECT");

    let connect = Connect { keep_alive_s: 1, ..Connect::new("sleepy") };
    let mut sleepy = Client::connect(address, &connect)?;
    // MQTT lets a server wait one and a half times the keep-alive.
    ensure!(sleepy.next(Duration::from_secs(10))? == Packet::Closed);
    world.end()
}
