//! The straight way: device, gateway, log, store, query.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use weir_tests::device::Device;
use weir_tests::sim::Size;
use weir_tests::wait::eventually;
use weir_tests::{SETTLED_WITHIN, World};

#[test]
fn an_event_can_be_queried_as_history_and_as_state() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("thermo-1")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 3)?;
    device.emit(&mut client, 1)?;
    world.cloud.await_events("thermo-1", 4, SETTLED_WITHIN)?;

    let events = world.cloud.events("thermo-1")?;
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64()).collect();
    ensure!(seqs == [Some(1), Some(2), Some(3), Some(4)], "{events:?}");
    let last = &events[3];
    ensure!(last["boot"] == device.boot(), "{last}");
    ensure!(last["kind"] == "reading-taken" && last["version"] == 1, "{last}");
    ensure!(last["body"] == json!({"sensor": "temp", "value": 4, "unit": "Cel"}), "{last}");
    ensure!(last["gateway"] == "gw-1", "{last}");

    let state = world.cloud.get("/v1/devices/thermo-1/state")?;
    ensure!(state["sensors"]["temp"]["value"] == 4, "{state}");
    ensure!(state["gateway"] == "gw-1" && state["site"] == "lab", "{state}");

    let shown = world.cloud.weir(&["state", "thermo-1"])?;
    ensure!(shown.contains("temp") && shown.contains("thermo-1"), "{shown}");
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn mqtt_3_and_mqtt_5_devices_are_served_on_one_port() -> Result<()> {
    let mut world = World::start()?;
    let (mut older, mut newer) = (Device::new("older")?, Device::new("newer")?);
    let mut older_client = older.connect(world.gateway().mqtt())?;
    let mut newer_client = newer.connect_v5(world.gateway().mqtt())?;
    for _ in 0..10 {
        older.emit(&mut older_client, 2)?;
        newer.emit(&mut newer_client, 3)?;
    }
    world.verify_devices(&[&older, &newer])?;
    world.end()
}

#[test]
fn a_device_is_told_the_time_when_it_subscribes() -> Result<()> {
    let mut world = World::start()?;
    for connect in [Device::connect, Device::connect_v5] {
        let device = Device::new("clockless")?;
        let mut client = connect(&device, world.gateway().mqtt())?;
        let before_ms = weir_tests::clock::now_ms();
        ensure!(client.subscribe("weir/1/clockless/time")? <= 1);
        let weir_tests::mqtt::Packet::Publish { topic, payload } =
            client.next(weir_tests::mqtt::ANSWER_WITHIN)?
        else {
            anyhow::bail!("no time was published");
        };
        ensure!(topic == "weir/1/clockless/time", "{topic}");
        let told_ms = weir_contract::time::Time::read(&payload).map_err(anyhow::Error::msg)?.unix_ms;
        ensure!((before_ms..=weir_tests::clock::now_ms()).contains(&told_ms), "{told_ms} is not now");
        client.disconnect()?;
    }
    world.end()
}

#[test]
fn connections_are_told_by_the_gateway_as_events() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("guest")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 1)?;
    let await_connected = |wanted: bool| {
        eventually(SETTLED_WITHIN, &format!("the state to say connected: {wanted}"), || {
            let state = world.cloud.get("/v1/devices/guest/state")?;
            ensure!(state["connected"] == wanted, "{state}");
            Ok(Some(()))
        })
    };
    await_connected(true)?;
    client.disconnect()?;
    await_connected(false)?;
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn many_devices_deliver_everything_once() -> Result<()> {
    let mut world = World::start()?;
    let size = Size { devices: 100, rate: 5.0, run_s: 6 };
    let manifest = world.simulate(size, &["--seed", "1"])?.finish(Duration::from_secs(40))?;
    world.verify(&manifest)?;
    world.verify_log()?;
    world.end()
}

#[test]
fn devices_with_faults_of_every_kind_deliver_everything_once() -> Result<()> {
    let mut world = World::start()?;
    let size = Size { devices: 60, rate: 5.0, run_s: 10 };
    let faults = ["--seed", "2", "--faults", "rough"];
    let manifest = world.simulate(size, &faults)?.finish(Duration::from_secs(60))?;
    world.verify(&manifest)?;
    world.end()
}

#[test]
fn a_moment_in_the_past_is_answered_as_it_was() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("historic")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 5)?;
    weir_tests::wait::pause(Duration::from_millis(50));
    let between_ms = weir_tests::clock::now_ms();
    weir_tests::wait::pause(Duration::from_millis(50));
    device.emit(&mut client, 5)?;
    world.cloud.await_events("historic", 10, SETTLED_WITHIN)?;

    let then = world.cloud.get(&format!("/v1/devices/historic/state?at={between_ms}"))?;
    ensure!(then["sensors"]["temp"]["value"] == 5, "{then}");
    let now = world.cloud.get("/v1/devices/historic/state")?;
    ensure!(now["sensors"]["temp"]["value"] == 10, "{now}");
    world.verify_devices(&[&device])?;
    world.end()
}
