//! Promises 1 and 3: acknowledged means stored, and everything arrives once however long whatever was away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::device::Device;
use weir_tests::sim::Size;
use weir_tests::wait::{eventually, pause};
use weir_tests::{Plan, SETTLED_WITHIN, World};

/// Enough devices and events that something is always under way.
const LOAD: Size = Size { devices: 50, rate: 20.0, run_s: 10 };
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_gateway_killed_twice_under_load_has_lost_nothing_it_acknowledged() -> Result<()> {
    let mut world = World::start()?;
    let mut simulation = world.simulate(LOAD, &["--seed", "11"])?;
    for _ in 0..2 {
        pause(Duration::from_secs(3));
        simulation.check_running()?;
        world.gateway().kill9()?;
        world.gateway().start_again()?;
    }
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.verify(&manifest)?;
    world.verify_log()?;
    world.end()
}

#[test]
fn what_a_killed_gateway_acknowledged_is_in_its_spool() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("once-only")?;
    world.nats.stop()?;
    // This device sends everything once and forgets what was acknowledged, as the contract lets it.
    for round in 1..=3_u64 {
        let mut client = device.connect(world.gateway().mqtt())?;
        for _ in 0..200 {
            device.emit(&mut client, 1)?;
        }
        world.gateway().kill9().with_context(|| format!("round {round}"))?;
        world.gateway().start_again()?;
    }
    world.nats.start_again()?;
    world.verify_devices(&[&device])?;
    ensure!(world.verify_log()? >= 600);
    world.end()
}

#[test]
fn nats_may_be_away_longer_than_any_duplicate_window() -> Result<()> {
    let plan = Plan { duplicate_window: Some(Duration::from_secs(1)), ..Plan::default() };
    let mut world = World::planned(plan)?;
    let simulation = world.simulate(LOAD, &["--seed", "12"])?;
    pause(Duration::from_secs(2));
    world.nats.stop()?;
    pause(Duration::from_secs(6));
    world.nats.start_again()?;
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.verify(&manifest)?;
    world.verify_log()?;
    world.end()
}

#[test]
fn nats_killed_under_load_changes_nothing() -> Result<()> {
    let mut world = World::start()?;
    let simulation = world.simulate(LOAD, &["--seed", "13"])?;
    for _ in 0..2 {
        pause(Duration::from_secs(2));
        world.nats.kill9()?;
        pause(Duration::from_secs(1));
        world.nats.start_again()?;
    }
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.verify(&manifest)?;
    world.verify_log()?;
    world.end()
}

#[test]
fn gateway_and_nats_killed_together_lose_nothing() -> Result<()> {
    let mut world = World::start()?;
    let simulation = world.simulate(LOAD, &["--seed", "14"])?;
    pause(Duration::from_secs(2));
    world.nats.kill9()?;
    pause(Duration::from_secs(2));
    world.gateway().kill9()?;
    world.gateway().start_again()?;
    pause(Duration::from_secs(1));
    world.nats.start_again()?;
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.verify(&manifest)?;
    world.verify_log()?;
    world.end()
}

/// The worst a network does to exactly-once: segments arrive, their acknowledgements do not.
#[test]
fn lost_acknowledgements_of_nats_double_nothing() -> Result<()> {
    let mut world = World::planned(Plan { link: true, ..Plan::default() })?;
    let mut device = Device::new("unlucky")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    for round in 0..4_u32 {
        device.emit(&mut client, 5)?;
        world.cloud.await_events("unlucky", u64::from(round) * 105 + 5, SETTLED_WITHIN)?;
        world.gateway().await_delivered(SETTLED_WITHIN)?;
        world.link()?.swallow_answers();
        for _ in 0..20 {
            device.emit(&mut client, 5)?;
        }
        let expected = u64::from(round) * 105 + 6;
        // The log gets at least the first of them …
        world.cloud.await_events("unlucky", expected, SETTLED_WITHIN)?;
        if round % 2 == 1 {
            world.gateway().kill9()?;
            world.link()?.restore();
            world.gateway().start_again()?;
            client = device.connect(world.gateway().mqtt())?;
        } else {
            world.link()?.restore();
        }
        // … and none twice.
        world.cloud.await_events("unlucky", u64::from(round + 1) * 105, SETTLED_WITHIN)?;
        world.verify_log()?;
    }
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn a_network_that_swallows_everything_is_noticed_and_overcome() -> Result<()> {
    let mut world = World::planned(Plan { link: true, ..Plan::default() })?;
    let mut device = Device::new("tunnel")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 5)?;
    world.cloud.await_events("tunnel", 5, SETTLED_WITHIN)?;
    world.link()?.swallow();
    for _ in 0..50 {
        device.emit(&mut client, 5)?;
    }
    pause(Duration::from_secs(3));
    world.link()?.restore();
    world.verify_devices(&[&device])?;
    world.verify_log()?;
    world.end()
}

#[test]
fn a_gateway_whose_first_days_are_without_uplink_delivers_them_later() -> Result<()> {
    let mut world = World::start()?;
    world.nats.stop()?;
    world.add_gateway("gw-remote", None)?;
    let mut device = Device::new("pioneer")?;
    let mut client = device.connect(world.gateways[1].mqtt())?;
    for _ in 0..300 {
        device.emit(&mut client, 3)?;
    }
    world.gateways[1].stop()?;
    world.gateways[1].start_again()?;
    let mut client = device.connect(world.gateways[1].mqtt())?;
    device.emit(&mut client, 3)?;
    world.nats.start_again()?;
    world.verify_devices(&[&device])?;
    world.verify_log()?;
    world.end()
}

#[test]
fn a_cloud_killed_while_it_reads_stores_every_event_once() -> Result<()> {
    let mut world = World::start()?;
    let simulation = world.simulate(LOAD, &["--seed", "15"])?;
    for _ in 0..3 {
        pause(Duration::from_secs(2));
        world.cloud.kill9()?;
        world.cloud.start_again()?;
    }
    pause(Duration::from_secs(1));
    world.cloud.stop()?;
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.cloud.start_again()?;
    world.verify(&manifest)?;
    world.end()
}

#[test]
fn a_gateway_told_to_stop_has_lost_nothing_and_ends_soon() -> Result<()> {
    let mut world = World::start()?;
    let simulation = world.simulate(LOAD, &["--seed", "16"])?;
    for _ in 0..2 {
        pause(Duration::from_secs(3));
        let status = world.gateway().stop()?;
        ensure!(status.success(), "ended with {status}");
        world.gateway().start_again()?;
    }
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.verify(&manifest)?;
    world.end()
}

#[test]
fn the_backlog_is_off_the_disk_once_it_is_delivered() -> Result<()> {
    // Nothing is kept for healing here, so delivered means deleted.
    let keep_nothing = |config: &mut toml::Table| {
        config["spool"].as_table_mut().expect("[spool]").insert("keep_delivered_bytes".into(), 0.into());
    };
    let mut world = World::planned(Plan { gateway: Some(Box::new(keep_nothing)), ..Plan::default() })?;
    world.nats.stop()?;
    let simulation = world.simulate(Size { devices: 20, rate: 200.0, run_s: 5 }, &["--seed", "17"])?;
    let manifest = simulation.finish(CATCH_UP_WITHIN)?;
    world.nats.start_again()?;
    world.verify(&manifest)?;
    world.gateway().await_delivered(SETTLED_WITHIN)?;
    // Delivered epochs are deleted as folders; what is left is the one being written and those made ahead.
    eventually(SETTLED_WITHIN, "a small spool", || {
        let status = world.gateways[0].admin("/status")?;
        ensure!(status["spool"]["epochs"].as_u64().is_some_and(|epochs| epochs <= 2), "{status}");
        Ok(Some(()))
    })?;
    world.end()
}
