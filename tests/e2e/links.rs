//! Promise 3 on bad links: far, losing, silent; a name that cannot be resolved; a cluster that is torn in two. What a link
//! loses TCP sends again, later: so loss is stalls, and connections that break. (`tc netem` is not in every kernel, so a
//! forwarder does all of that.)

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use toml::Value;
use weir_tests::cloud::Cloud;
use weir_tests::cluster::Cluster;
use weir_tests::device::{Device, Manifest};
use weir_tests::gateway::Gateway;
use weir_tests::link::Weather;
use weir_tests::programs::Program;
use weir_tests::sim::{self, Size};
use weir_tests::wait::{eventually, pause};
use weir_tests::{Change, Plan, SETTLED_WITHIN, SITE, World, check_log};

/// Elections take a few seconds, on a busy machine several rounds of them.
const ELECTED_WITHIN: Duration = Duration::from_secs(90);
/// The gateway keeps nothing for what it has sent or has yet to send: what it takes more of while a link is bad.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

/// A gateway that gives up a silent server soon.
fn impatient() -> Change {
    Box::new(|config| {
        let uplink = config["uplink"].as_table_mut().expect("a section");
        uplink.insert("ack_timeout_ms".into(), 3000.into());
        uplink.insert("connect_timeout_ms".into(), 2000.into());
    })
}

#[test]
fn a_link_that_is_far_loses_and_breaks_loses_nothing_and_memory_stays_flat() -> Result<()> {
    let mut world = World::planned(Plan { link: true, gateway: Some(impatient()), ..Plan::default() })?;
    let size = Size { devices: 30, rate: 20.0, run_s: 14 };
    let simulation = world.simulate(size, &["--seed", "61"])?;
    pause(Duration::from_secs(2));
    let before = world.gateway().process()?.usage()?.resident_bytes;
    // As a satellite, then as a modem in a cellar: half a second there and back, stalls of up to two, broken now and then.
    let weathers = [
        Weather { delay_ms: 300, ..Weather::default() },
        Weather { delay_ms: 250, stall_percent: 4, stall_ms: 2000, break_percent: 1, seed: 7 },
    ];
    for weather in weathers {
        world.link()?.be(weather);
        pause(Duration::from_secs(4));
    }
    // Servers are reached, and say nothing: connections half open.
    world.link()?.swallow();
    pause(Duration::from_secs(3));
    world.link()?.restore();
    world.link()?.be(weathers[1]);
    let manifest = simulation.finish(SETTLED_WITHIN)?;
    let during = world.gateway().process()?.usage()?.resident_bytes_max;
    world.gateway().await_delivered(SETTLED_WITHIN)?;
    world.verify(&manifest)?;
    ensure!(world.verify_log()? > 0);
    let growth = during.saturating_sub(before);
    println!("{} KiB more resident", growth >> 10);
    ensure!(growth < GROWTH_BYTES_MAX, "{growth} bytes more resident");
    world.end()
}

/// Whatever runs under this has its own `/etc/hosts`: the file that is given.
fn with_hosts(hosts: &Path) -> Result<Option<Program>> {
    let hosts = hosts.to_str().context("UTF-8")?;
    let script = format!("mount --bind {hosts} /etc/hosts && exec \"$0\" \"$@\"");
    let program = Program::ours("weir-gateway")?.under("unshare", &["--mount", "sh", "-c", &script])?;
    let arguments = ["--mount", "mount", "--bind", hosts, "/etc/hosts"];
    if Command::new("unshare").args(arguments).status().is_ok_and(|status| status.success()) {
        return Ok(Some(program));
    }
    eprintln!("SKIPPED: this user may not mount a file over /etc/hosts in a namespace of its own");
    Ok(None)
}

#[test]
fn a_name_that_cannot_be_resolved_for_a_while_is_asked_for_again() -> Result<()> {
    const NAME: &str = "log.weir.invalid";
    let folder = tempfile::tempdir()?;
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {NAME}\n"))?;
    let Some(program) = with_hosts(&hosts)? else { return Ok(()) };
    let by_name: Change = Box::new(|config| {
        impatient()(config);
        let uplink = config["uplink"].as_table_mut().expect("a section");
        let there = uplink["servers"][0].as_str().expect("a server").replace("127.0.0.1", NAME);
        uplink.insert("servers".into(), vec![there].into());
    });
    let plan = Plan { link: true, gateway: Some(by_name), gateway_program: Some(program), ..Plan::default() };
    let mut world = World::planned(plan)?;
    let mut device = Device::new("by-name")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 5)?;
    world.gateway().await_delivered(SETTLED_WITHIN)?;
    // The resolver fails; with the connection goes what was known of the name. In place: another file would not be under it.
    fs::write(&hosts, "127.0.0.1 localhost\n")?;
    world.link()?.cut();
    device.emit(&mut client, 5)?;
    eventually(SETTLED_WITHIN, "the gateway to tell that it reaches nobody", || {
        let uplink = world.gateway().admin("/status")?["uplink"].clone();
        Ok((uplink["state"] == "down" && uplink["trouble"]["kind"] == "unreachable").then_some(()))
    })?;
    world.link()?.restore();
    pause(Duration::from_secs(3));
    let waiting = world.gateway().admin("/status")?["spool"]["waiting"].clone();
    ensure!(waiting != 0, "it was delivered to a name that nobody knows");
    device.emit(&mut client, 5)?;
    fs::write(&hosts, format!("127.0.0.1 localhost {NAME}\n"))?;
    world.gateway().await_delivered(SETTLED_WITHIN)?;
    world.verify_devices(&[&device])?;
    world.verify_log()?;
    world.end()
}

#[test]
fn a_server_cut_off_from_the_others_takes_nothing_and_the_gateway_goes_where_the_majority_is() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("weir-").tempdir()?;
    let in_folder = |name: &str| folder.path().join(name);
    let mut cluster = Cluster::start_linked(folder.path(), 3)?;
    let urls: Value = cluster.urls().into();
    let mut config = Cloud::config(&in_folder("cloud"), &cluster.urls()[0])?;
    config["nats"].as_table_mut().expect("[nats]").insert("servers".into(), urls.clone());
    config["stream"].as_table_mut().expect("[stream]").insert("replicas".into(), 3.into());
    let mut cloud = Cloud::start(&in_folder("cloud"), config)?;
    let leader = cluster.leader()?;
    cluster.check_replicas(3)?;
    // The gateway begins at the server that will be alone.
    let mut config = Gateway::config(SITE, "gw-1", &in_folder("gw-1"), &cluster.urls()[leader])?;
    impatient()(&mut config);
    let mut gateway = Gateway::start("gw-1", &in_folder("gw-1"), config)?;
    let mut device = Device::new("torn")?;
    let mut client = device.connect(gateway.mqtt())?;
    device.emit(&mut client, 5)?;
    gateway.await_delivered(ELECTED_WITHIN)?;
    let delivered = gateway.admin("/status")?["spool"]["delivered"].clone();
    cluster.part(leader);
    for _ in 0..20 {
        device.emit(&mut client, 5)?;
    }
    eventually(ELECTED_WITHIN, "the gateway to tell that nothing is taken", || {
        Ok((gateway.admin("/status")?["uplink"]["state"] == "down").then_some(()))
    })?;
    // It knows this server only: what that cannot keep is not delivered, however often it is offered.
    pause(Duration::from_secs(4));
    let status = gateway.admin("/status")?;
    ensure!(status["spool"]["delivered"] == delivered, "taken for delivered by a minority: {status}");
    // Told of all of them it finds the others by itself, while the first is still cut off: wherever it begins.
    for _ in 0..4 {
        ensure!(gateway.stop()?.success());
        let config = gateway.config_mut()["uplink"].as_table_mut().expect("[uplink]");
        config.insert("servers".into(), urls.clone());
        gateway.start_again()?;
        client = device.connect(gateway.mqtt())?;
        device.emit(&mut client, 5)?;
        gateway.await_delivered(ELECTED_WITHIN)?;
    }
    cluster.join();
    cluster.await_healthy()?;
    device.emit(&mut client, 5)?;
    gateway.await_delivered(ELECTED_WITHIN)?;
    let manifest = sim::write_manifest(&in_folder("devices"), &Manifest { devices: vec![device.emitted()] })?;
    let proof = sim::prove(&manifest, &cloud.url()?, ELECTED_WITHIN)?;
    ensure!(proof.lost == 0 && proof.stored == proof.emitted, "{proof:?}");
    eventually(ELECTED_WITHIN, "every server to have the whole log", || {
        Ok(cluster.servers.iter().all(|server| server.messages().is_ok()).then_some(()))
    })?;
    ensure!(check_log(&cluster.servers[leader].messages()?)? > 0);
    ensure!(gateway.stop()?.success() && cloud.stop()?.success());
    cluster.stop()
}
