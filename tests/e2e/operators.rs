//! What a person who runs Weir is told: how it is, what is wrong, what a configuration may say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::device::Device;
use weir_tests::process::{self, Finished};
use weir_tests::wait::eventually;
use weir_tests::{SETTLED_WITHIN, World, programs};

const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn the_doctor_finds_a_healthy_chain_healthy_and_says_which_link_is_broken() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("patient-1")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 3)?;
    world.verify_devices(&[&device])?;
    let gateway = format!("http://{}", world.gateway().admin_address()?);

    let well = doctor(&world, &gateway)?;
    ensure!(well.status.success(), "{well:?}");

    world.nats.stop()?;
    eventually(SETTLED_WITHIN, "the doctor to find out that NATS is away", || {
        let ill = doctor(&world, &gateway)?;
        ensure!(!ill.status.success() && ill.out.to_lowercase().contains("nats"), "{ill:?}");
        Ok(Some(()))
    })?;
    world.nats.start_again()?;
    eventually(SETTLED_WITHIN, "the doctor to find everything well again", || {
        let well = doctor(&world, &gateway)?;
        ensure!(well.status.success(), "{well:?}");
        Ok(Some(()))
    })?;
    world.end()
}

#[test]
fn the_gateways_own_tools_show_what_it_keeps() -> Result<()> {
    let mut world = World::start()?;
    world.nats.stop()?;
    let mut device = Device::new("kept")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    for _ in 0..7 {
        device.emit(&mut client, 1)?;
    }
    let waiting =
        world.gateway().admin("/status")?["spool"]["waiting"].as_u64().context("no backlog told")?;
    // Seven uplinks of the device, and at least one in which the gateway tells that the device connected.
    ensure!(waiting >= 8, "{waiting} uplinks wait");
    for command in ["status", "spool", "refusals"] {
        gateway_tool(&mut world, &[command])?.success(command)?;
    }
    let spool = gateway_tool(&mut world, &["spool", "--json"])?.success("spool")?;
    let spool: serde_json::Value = serde_json::from_str(&spool)?;
    ensure!(spool["epochs"].as_array().is_some_and(|epochs| !epochs.is_empty()), "{spool}");
    world.nats.start_again()?;
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn a_wrong_configuration_is_told_with_file_key_and_what_is_allowed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cases = [
        ("weir-gateway", "[gateway]\nsite = \"lab\"\nid = \"gw 1\"\n[spool]\nfolder = \"s\"\n", "identifier"),
        (
            "weir-gateway",
            "[gateway]\nsite = \"lab\"\nid = \"gw-1\"\n[spool]\nfolder = \"s\"\nbytes_min = 1\n",
            "bytes_max",
        ),
        ("weir-cloud", "[api]\nadress = \"127.0.0.1:0\"\n", "address"),
        ("weir-cloud", "[stream]\nreplicas = 9\n", "from 1 to 5"),
    ];
    for (program, config, allowed) in cases {
        let file = folder.path().join("wrong.toml");
        std::fs::write(&file, config)?;
        let file = file.to_str().context("not UTF-8")?;
        let told = process::output(&programs::ours(program)?, &["check", "--config", file], WITHIN)?;
        ensure!(!told.status.success(), "{program} accepted {config}");
        ensure!(told.err.contains("wrong.toml") && told.err.contains(allowed), "{told:?}");
    }
    Ok(())
}

fn doctor(world: &World, gateway: &str) -> Result<Finished> {
    let url = world.cloud.url()?;
    process::output(&programs::ours("weir")?, &["doctor", "--api", &url, "--gateway", gateway], WITHIN)
}

fn gateway_tool(world: &mut World, arguments: &[&str]) -> Result<Finished> {
    let file = world.gateway().config_file();
    let mut all = arguments.to_vec();
    all.extend(["--config", file.to_str().context("not UTF-8")?]);
    process::output(&programs::ours("weir-gateway")?, &all, WITHIN)
}
