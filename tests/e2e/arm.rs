//! Promises 1 and 3 by the gateway that is installed on a Raspberry Pi: the binaries of `make pi`, run by qemu-user, with
//! everything around them as always. Without those binaries these tests say so and pass (unless `$WEIR_PI` names the architecture).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::device::Device;
use weir_tests::programs::Program;
use weir_tests::sim::Size;
use weir_tests::wait::pause;
use weir_tests::{Plan, SETTLED_WITHIN, World, process};

/// A program under emulation starts slowly on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

fn world_with_a_pi(architecture: &str) -> Result<Option<World>> {
    let Some(program) = Program::for_pi("weir-gateway", architecture)? else { return Ok(None) };
    // As its package configures it.
    let profile = |config: &mut toml::Table| {
        if let Some(gateway) = config["gateway"].as_table_mut() {
            gateway.insert("profile".into(), "pi".into());
        }
    };
    let plan = Plan { gateway_program: Some(program), gateway: Some(Box::new(profile)), ..Plan::default() };
    World::planned(plan).map(Some)
}

#[test]
fn what_an_arm64_gateway_acknowledged_before_kill_9_is_in_the_log_once() -> Result<()> {
    kill_9_again_and_again("arm64")
}

/// `make test` does not build it; after `make pi` it is there.
#[test]
fn what_an_armhf_gateway_acknowledged_before_kill_9_is_in_the_log_once() -> Result<()> {
    kill_9_again_and_again("armhf")
}

fn kill_9_again_and_again(architecture: &str) -> Result<()> {
    let Some(mut world) = world_with_a_pi(architecture)? else { return Ok(()) };
    let mut device = Device::new("once-only")?;
    world.nats.stop()?;
    // This device sends everything once and forgets what was acknowledged, as the contract lets it.
    for round in 1..=3_u64 {
        let mut client = device.connect(world.gateway().mqtt())?;
        for _ in 0..100 {
            device.emit(&mut client, 1)?;
        }
        world.gateway().kill9().with_context(|| format!("round {round}"))?;
        world.gateway().start_again()?;
    }
    world.nats.start_again()?;
    world.verify_devices(&[&device])?;
    ensure!(world.verify_log()? >= 300);
    world.end()
}

#[test]
fn an_arm64_gateway_killed_under_load_delivers_everything_once() -> Result<()> {
    let Some(mut world) = world_with_a_pi("arm64")? else { return Ok(()) };
    let load = Size { devices: 20, rate: 10.0, run_s: 6 };
    let mut simulation = world.simulate(load, &["--seed", "21"])?;
    pause(Duration::from_secs(3));
    simulation.check_running()?;
    world.gateway().kill9()?;
    world.gateway().start_again()?;
    let manifest = simulation.finish(SETTLED_WITHIN)?;
    world.verify(&manifest)?;
    world.verify_log()?;
    world.end()
}

#[test]
fn an_armhf_gateway_runs_on_the_processor_of_a_pi_2() -> Result<()> {
    let Some(program) = Program::for_pi("weir-gateway", "armhf")? else { return Ok(()) };
    let run = |own: &[&str]| process::output(&program.file, &program.arguments(own), WITHIN);
    let version = run(&["--version"])?.success("weir-gateway --version")?;
    ensure!(version.starts_with("weir-gateway "), "{version}");
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("gateway.toml");
    let spool = folder.path().join("spool");
    let text = format!(
        "gateway = {{ site = \"s\", id = \"g\", profile = \"pi-zero-2\" }}\nspool.folder = {spool:?}\n"
    );
    std::fs::write(&config, text)?;
    let config = config.to_str().context("a folder that is not UTF-8")?;
    let checked = run(&["check", "--config", config])?.success("weir-gateway check")?;
    ensure!(checked.contains("connections_max = 250"), "{checked}");
    Ok(())
}
