//! More than one gateway, more than one connection of a device, more than one arrival of an event.

use anyhow::{Context, Result, ensure};
use weir_tests::device::Device;
use weir_tests::mqtt::{ANSWER_WITHIN, Packet};
use weir_tests::{SETTLED_WITHIN, World};

#[test]
fn a_device_that_roams_is_one_history_in_its_own_order() -> Result<()> {
    let mut world = World::start()?;
    world.add_gateway("gw-2", None)?;
    let mut device = Device::new("roamer")?;
    for round in 0..6 {
        let mut client = device.connect(world.gateways[round % 2].mqtt())?;
        for _ in 0..20 {
            device.emit(&mut client, 2)?;
        }
        client.disconnect()?;
    }
    world.verify_devices(&[&device])?;
    let state = world.cloud.get("/v1/devices/roamer/state")?;
    ensure!(state["sensors"]["temp"]["value"] == 240, "{state}");
    let order: Vec<_> =
        world.cloud.events("roamer")?.iter().filter_map(|event| event["seq"].as_u64()).collect();
    ensure!(order == (1..=240).collect::<Vec<_>>(), "history is not in the device's order: {order:?}");
    world.end()
}

/// "Latest" is the last measured, not the last received: the first gateway's part arrives after the second's.
#[test]
fn an_older_boot_that_arrives_later_changes_no_present_state() -> Result<()> {
    let mut world = World::start()?;
    world.add_gateway("gw-2", None)?;
    let mut device = Device::new("commuter")?;

    // gw-1 takes custody and then vanishes with it.
    world.nats.stop()?;
    let mut client = device.connect(world.gateways[0].mqtt())?;
    device.emit(&mut client, 100)?;
    world.gateways[0].kill9()?;
    world.nats.start_again()?;

    device.power_cycle();
    let mut client = device.connect(world.gateways[1].mqtt())?;
    device.emit(&mut client, 7)?;
    world.cloud.await_events("commuter", 7, SETTLED_WITHIN)?;

    world.gateways[0].start_again()?;
    world.verify_devices(&[&device])?;
    let state = world.cloud.get("/v1/devices/commuter/state")?;
    ensure!(state["sensors"]["temp"]["value"] == 7, "{state}");
    ensure!(state["boot"] == device.boot(), "{state}");
    world.end()
}

#[test]
fn repeated_overlapping_and_reordered_uplinks_are_stored_once() -> Result<()> {
    let mut world = World::start()?;
    world.add_gateway("gw-2", None)?;
    let mut device = Device::new("stutterer")?;
    let uplinks: Vec<_> = (0..30).map(|_| device.uplink(3)).collect::<Result<_>>()?;
    let topic = device.topic();

    let mut client = device.connect_v5(world.gateways[0].mqtt())?;
    for uplink in &uplinks {
        let id = client.publish_unawaited(&topic, uplink)?;
        client.publish_again(&topic, uplink, id)?;
        ensure!(client.await_puback(id)? == 0);
    }
    // The same again after a reconnect, as after a PUBACK that was lost; then backwards, through the other gateway too.
    let mut again = device.connect(world.gateways[0].mqtt())?;
    let mut elsewhere = device.connect(world.gateways[1].mqtt())?;
    for uplink in uplinks.iter().rev() {
        device.send(&mut again, uplink)?;
        device.send(&mut elsewhere, uplink)?;
    }
    // Other cuts through the same events.
    for first in (1..80).step_by(7) {
        let overlapping = device.uplink_of(first, 10)?;
        device.send(&mut elsewhere, &overlapping)?;
    }
    world.verify_devices(&[&device])?;
    ensure!(world.cloud.event_count("stutterer")? == 90);
    let state = world.cloud.get("/v1/devices/stutterer/state")?;
    ensure!(state["sensors"]["temp"]["value"] == 90, "{state}");
    world.end()
}

#[test]
fn numbers_that_arrive_backwards_are_put_right() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("backwards")?;
    let mut uplinks: Vec<_> = (0..20).map(|_| device.uplink(2)).collect::<Result<_>>()?;
    uplinks.reverse();
    let mut client = device.connect(world.gateway().mqtt())?;
    for uplink in &uplinks {
        device.send(&mut client, uplink)?;
    }
    world.verify_devices(&[&device])?;
    let state = world.cloud.get("/v1/devices/backwards/state")?;
    ensure!(state["sensors"]["temp"]["value"] == 40, "{state}");
    world.end()
}

#[test]
fn a_second_connection_of_a_client_takes_over_from_the_first() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("twin")?;
    let mut first = device.connect_v5(world.gateway().mqtt())?;
    device.emit(&mut first, 1)?;
    let mut second = device.connect_v5(world.gateway().mqtt())?;
    device.emit(&mut second, 1)?;
    /// MQTT 5, 4.13: session taken over.
    const TAKEN_OVER: u8 = 0x8E;
    let told = first.next(ANSWER_WITHIN)?;
    ensure!(told == Packet::Disconnect(TAKEN_OVER), "{told:?}");
    ensure!(first.next(ANSWER_WITHIN)? == Packet::Closed);

    let mut third = device.connect(world.gateway().mqtt())?;
    device.emit(&mut third, 1)?;
    let told = second.next(ANSWER_WITHIN)?;
    ensure!(told == Packet::Disconnect(TAKEN_OVER), "{told:?}");
    // A 3.1.1 client cannot be told; its connection just ends.
    let mut fourth = device.connect(world.gateway().mqtt())?;
    device.emit(&mut fourth, 1)?;
    ensure!(third.next(ANSWER_WITHIN)? == Packet::Closed);
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn clients_that_take_over_from_each_other_without_end_harm_nobody() -> Result<()> {
    let mut world = World::start()?;
    let address = world.gateway().mqtt();
    let mut bystander = Device::new("bystander")?;
    let mut client = bystander.connect(address)?;
    let fighter = Device::new("fighter")?;
    let mut fighters = Vec::new();
    for _ in 0..200 {
        fighters.push(fighter.connect(address).context("connecting once more")?);
        bystander.emit(&mut client, 1)?;
    }
    world.verify_devices(&[&bystander])?;
    world.end()
}

#[test]
fn two_gateways_with_one_name_are_found_out() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("witness")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 1)?;
    world.cloud.await_events("witness", 1, SETTLED_WITHIN)?;
    // An impostor: another spool, so another incarnation, under the same name.
    world.add_impostor("gw-1")?;
    let mut other = Device::new("misled")?;
    let mut other_client = other.connect(world.gateways[1].mqtt())?;
    weir_tests::wait::eventually(SETTLED_WITHIN, "one of the two to tell of a conflict", || {
        // Both go on to take custody, whichever may deliver.
        device.emit(&mut client, 1)?;
        other.emit(&mut other_client, 1)?;
        let told = world.gateways.iter().any(|gateway| {
            gateway.admin("/status").is_ok_and(|status| status["uplink"].to_string().contains("conflict"))
        });
        Ok(told.then_some(()))
    })?;
    world.end()
}
