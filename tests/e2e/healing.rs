//! Promises 5 and 6: the gateway heals the log, and views can be made again from the log.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::device::Device;
use weir_tests::sim::Size;
use weir_tests::{SETTLED_WITHIN, World};

#[test]
fn a_log_that_lost_everything_is_filled_again_by_the_gateway() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("survivor")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    for _ in 0..50 {
        device.emit(&mut client, 2)?;
    }
    world.cloud.await_events("survivor", 100, SETTLED_WITHIN)?;
    // The stream and the views are gone; a new cloud starts from nothing.
    world.cloud.stop()?;
    world.nats.stop()?;
    world.nats.forget_everything()?;
    world.cloud.forget_everything()?;
    world.nats.start_again()?;
    world.cloud.start_again()?;
    device.emit(&mut client, 2)?;
    world.verify_devices(&[&device])?;
    ensure!(world.verify_log()? >= 51);
    world.end()
}

#[test]
fn a_log_restored_from_an_old_backup_is_completed_by_the_gateway() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("rewound")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 10)?;
    world.cloud.await_events("rewound", 10, SETTLED_WITHIN)?;
    world.nats.stop()?;
    let backup = world.nats.back_up()?;
    world.nats.start_again()?;
    for _ in 0..20 {
        device.emit(&mut client, 10)?;
    }
    world.cloud.await_events("rewound", 210, SETTLED_WITHIN)?;
    world.nats.stop()?;
    world.nats.restore(&backup)?;
    world.nats.start_again()?;
    // The cloud, whose views know more than the log now, must neither double nor skip what is sent again.
    device.emit(&mut client, 10)?;
    world.verify_devices(&[&device])?;
    // And the log by itself tells the whole story.
    world.cloud.stop()?;
    world.cloud.forget_everything()?;
    world.cloud.start_again()?;
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn views_made_again_from_the_log_are_the_same() -> Result<()> {
    let mut world = World::start()?;
    let simulation = world.simulate(Size { devices: 10, rate: 10.0, run_s: 4 }, &["--seed", "31"])?;
    let manifest = simulation.finish(Duration::from_secs(40))?;
    world.verify(&manifest)?;
    let before = views(&world)?;
    world.cloud.stop()?;
    world.cloud.forget_everything()?;
    world.cloud.start_again()?;
    world.verify(&manifest)?;
    ensure!(views(&world)? == before, "the rebuilt views differ");
    world.end()
}

/// Every answer there is about every device.
pub(super) fn views(world: &World) -> Result<Vec<String>> {
    let devices = world.cloud.get("/v1/devices?limit=1000")?;
    let mut views = Vec::new();
    for device in devices["devices"].as_array().into_iter().flatten() {
        let name = device["device"].as_str().unwrap_or_default();
        // Simulated devices only: the gateway goes on telling of itself.
        if !name.starts_with("sim-") {
            continue;
        }
        views.push(world.cloud.get(&format!("/v1/devices/{name}/boots"))?.to_string());
        views.extend(world.cloud.events(name)?.iter().map(ToString::to_string));
        let mut state = world.cloud.get(&format!("/v1/devices/{name}/state"))?;
        // The moment of the question.
        state.as_object_mut().map(|state| state.remove("at"));
        views.push(state.to_string());
    }
    Ok(views)
}
