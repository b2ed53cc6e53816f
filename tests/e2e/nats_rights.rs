//! Gateway and cloud reach a nats-server that lets in only who can prove who it is, and lets each do only what it must.

use anyhow::{Context, Result, ensure};
use toml::Table;
use weir_tests::device::Device;
use weir_tests::nats::NatsConfig;
use weir_tests::tls::{Authority, Paper};
use weir_tests::wait::eventually;
use weir_tests::{Change, Plan, SETTLED_WITHIN, SITE, World, credentials};

/// The configuration that users are told to begin with.
const DEPLOYED: &str = include_str!("../../deploy/nats/nats.conf");

#[test]
fn certificates_on_both_sides_are_enough() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = world_with_certificates(folder.path(), NatsConfig::default())?;
    delivers_over_an_outage(&mut world)?;
    world.end()
}

#[test]
fn the_rights_that_our_deployment_gives_are_enough() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rights_begin =
        DEPLOYED.find("GATEWAY_GREENHOUSE_1 {").context("deploy/nats/nats.conf has changed its shape")?;
    let more = DEPLOYED[rights_begin..].replace("greenhouse", SITE);
    let nats = NatsConfig { map_certificates: true, more, ..NatsConfig::default() };
    let mut world = world_with_certificates(folder.path(), nats)?;
    delivers_over_an_outage(&mut world)?;
    takes_a_command(&mut world)?;
    world.end()
}

/// As they were given before there were copies that go ahead of a backlog.
#[test]
fn rights_to_the_main_lane_alone_are_enough() -> Result<()> {
    let more = r#"
        authorization {
            users: [
                { user: gw, password: gw, permissions: {
                    publish: ["weir.1.segments.*.*.main", "$JS.API.>", "$JS.ACK.>"], subscribe: ["_INBOX.>"]
                } }
                { user: all, password: all }
            ]
        }
        no_auth_user: all
    "#;
    let nats = NatsConfig { more: more.to_owned(), ..NatsConfig::default() };
    let gateway: Change = Box::new(|config: &mut Table| {
        let uplink = config["uplink"].as_table_mut().expect("a section");
        for server in uplink["servers"].as_array_mut().expect("a list") {
            *server = server.as_str().expect("a text").replace("nats://", "nats://gw:gw@").into();
        }
        uplink.insert("live_after_ms".into(), 0.into());
        uplink.insert("max_bytes_per_s".into(), (16 * 1024).into());
        uplink.insert("zstd_level".into(), 0.into());
    });
    let mut world = World::planned(Plan { nats, gateway: Some(gateway), ..Plan::default() })?;
    let mut device = Device::new("modest")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    world.nats.stop()?;
    device.emit_large(1024);
    for _ in 0..64 {
        device.emit(&mut client, 1)?;
    }
    world.nats.start_again()?;
    world.gateway().await_delivered(SETTLED_WITHIN)?;
    world.verify_devices(&[&device])?;
    let status = world.gateway().admin("/status")?;
    ensure!(
        status["uplink"]["ahead"] == 0 && status["uplink"]["ahead_left_out"].as_u64() > Some(0),
        "{status}"
    );
    world.end()
}

#[test]
fn a_credentials_file_is_enough() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let credentials = credentials::make(folder.path())?;
    let file = credentials.file.to_str().context("not UTF-8")?.to_owned();
    let show = |section: &'static str, key: &'static str| -> Change {
        let file = file.clone();
        Box::new(move |config: &mut Table| {
            config[section].as_table_mut().expect("a section").insert(key.into(), file.into());
        })
    };
    let plan = Plan {
        nats: NatsConfig { more: credentials.server, ..NatsConfig::default() },
        gateway: Some(show("uplink", "credentials_file")),
        cloud: Some(show("nats", "credentials_file")),
        ..Plan::default()
    };
    let mut world = World::planned(plan)?;
    delivers_over_an_outage(&mut world)?;
    world.end()
}

fn world_with_certificates(folder: &std::path::Path, nats: NatsConfig) -> Result<World> {
    let authority = Authority::new(folder, "cloud")?;
    let (server, gateway, cloud) =
        (authority.sign("nats")?, authority.sign("gw-1")?, authority.sign("weir-cloud")?);
    let show = |section: &'static str, paper: Paper| -> Change {
        Box::new(move |config: &mut Table| {
            let (ca, certificate, key) = (paper.authority, paper.certificate, paper.key);
            let tls: Table = format!("ca = {ca:?}\ncertificate = {certificate:?}\nkey = {key:?}\n")
                .parse()
                .expect("this is TOML");
            config[section].as_table_mut().expect("a section").insert("tls".into(), tls.into());
        })
    };
    World::planned(Plan {
        nats: NatsConfig { tls: Some(server), ..nats },
        gateway: Some(show("uplink", gateway)),
        cloud: Some(show("nats", cloud)),
        ..Plan::default()
    })
}

fn delivers_over_an_outage(world: &mut World) -> Result<()> {
    let mut device = Device::new("far")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 10)?;
    world.verify_devices(&[&device])?;
    world.nats.stop()?;
    device.emit(&mut client, 10)?;
    world.nats.start_again()?;
    device.emit(&mut client, 10)?;
    world.verify_devices(&[&device])?;
    Ok(())
}

/// The gateway fetches a command from the stream and acknowledges it.
fn takes_a_command(world: &mut World) -> Result<()> {
    let gateway = world.gateway().id().to_owned();
    world.cloud.weir(&["command", "far", "identify", "--site", SITE, "--gateway", &gateway])?;
    eventually(SETTLED_WITHIN, "the command to wait at the gateway", || {
        let commands = world.gateway().admin("/status")?["commands"].clone();
        ensure!(commands["pending"] == 1 && commands["trouble"].is_null(), "{commands}");
        Ok(Some(()))
    })
}
