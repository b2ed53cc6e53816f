//! Devices over TLS: with the right certificate, a wrong one, none.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml::Table;
use weir_tests::device::Device;
use weir_tests::mqtt::{Client, Connect};
use weir_tests::sim::{Simulation, Size};
use weir_tests::tls::{self, Authority, Paper};
use weir_tests::{Plan, SETTLED_WITHIN, World};

/// A world whose gateway also has a TLS listener that asks for certificates, and who signs them.
struct Guarded {
    world: World,
    devices: Authority,
    /// Who signed the gateway's certificate.
    servers: PathBuf,
    _folder: tempfile::TempDir,
}

fn guarded() -> Result<Guarded> {
    let folder = tempfile::tempdir()?;
    let (servers, devices) =
        (Authority::new(folder.path(), "servers")?, Authority::new(folder.path(), "devices")?);
    let gateway = servers.sign("gateway")?;
    // For its path only: the gateway trusts whom this authority signs.
    let devices_ca = devices.sign("unused")?.authority;
    let server_ca = gateway.authority.clone();
    let change = move |config: &mut Table| add_tls_listener(config, &gateway, &devices_ca);
    let world = World::planned(Plan { gateway: Some(Box::new(change)), ..Plan::default() })?;
    Ok(Guarded { world, devices, servers: server_ca, _folder: folder })
}

fn add_tls_listener(config: &mut Table, gateway: &Paper, devices: &Path) {
    let text = format!(
        "address = \"127.0.0.1:0\"\n[tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\nrequire_client_certificate = true\n",
        gateway.certificate, gateway.key, devices
    );
    let listener: Table = text.parse().expect("this is TOML");
    config["mqtt"]["listener"].as_array_mut().expect("a list of listeners").push(listener.into());
}

#[test]
fn a_device_with_its_certificate_is_that_device() -> Result<()> {
    let mut guarded = guarded()?;
    let world = &mut guarded.world;
    let mut device = Device::new("sealed")?;
    let tls = tls::client(&guarded.servers, Some(&guarded.devices.sign("sealed")?))?;
    let address = world.gateway().second_listener()?;
    for connect in [Connect::new("sealed"), Connect::new("sealed").v5()] {
        let mut client = Client::connect(address, &connect.tls(tls.clone()))?;
        device.emit(&mut client, 5)?;
    }
    world.verify_devices(&[&device])?;
    guarded.world.end()
}

#[test]
fn a_device_cannot_be_another_than_its_certificate_says() -> Result<()> {
    let mut guarded = guarded()?;
    let world = &mut guarded.world;
    let tls = tls::client(&guarded.servers, Some(&guarded.devices.sign("mallory")?))?;
    let address = world.gateway().second_listener()?;
    let mut device = Device::new("alice")?;
    let uplink = device.uplink(1)?;
    // Either it is turned away, or it is let in as the one its certificate names; never as alice.
    if let Ok(mut client) = Client::connect(address, &Connect::new("alice").v5().tls(tls)) {
        ensure!(client.publish("weir/1/alice/events", &uplink)? != 0, "mallory spoke for alice");
    }
    ensure!(world.cloud.event_count("alice")? == 0);
    guarded.world.end()
}

#[test]
fn no_certificate_or_a_strangers_certificate_is_turned_away() -> Result<()> {
    let mut guarded = guarded()?;
    let elsewhere = tempfile::tempdir()?;
    let stranger = Authority::new(elsewhere.path(), "strangers")?.sign("sealed")?;
    let address = guarded.world.gateway().second_listener()?;
    let without = tls::client(&guarded.servers, None)?;
    let wrong = tls::client(&guarded.servers, Some(&stranger))?;
    for (tls, who) in [(without, "nobody"), (wrong, "a stranger")] {
        ensure!(Client::connect(address, &Connect::new("sealed").tls(tls)).is_err(), "{who} was let in");
    }
    // Nor does a device talk to a gateway it does not trust, nor anybody without TLS at all.
    let trusts_others = tls::client(&stranger.authority, Some(&guarded.devices.sign("sealed")?))?;
    ensure!(Client::connect(address, &Connect::new("sealed").tls(trusts_others)).is_err());
    ensure!(Client::connect(address, &Connect::new("sealed")).is_err());
    guarded.world.end()
}

#[test]
fn simulated_devices_each_with_a_certificate_deliver_everything_once() -> Result<()> {
    let mut guarded = guarded()?;
    let mut files = None;
    for index in 1..=8 {
        files = Some(guarded.devices.sign(&format!("sim-{index:04}"))?);
    }
    let files = files.context("eight were signed")?;
    let folder = files.certificate.parent().context("in a folder")?;
    let (cert, key) = (folder.join("{device}.pem"), folder.join("{device}.key"));
    let options = [("--ca", guarded.servers.as_path()), ("--cert", cert.as_path()), ("--key", key.as_path())];
    let options: Vec<&str> =
        options.iter().flat_map(|(name, path)| [*name, path.to_str().unwrap_or_default()]).collect();
    let url = format!("mqtts://{}", guarded.world.gateway().second_listener()?);
    let size = Size { devices: 8, rate: 20.0, run_s: 3 };
    let simulation = Simulation::start(&guarded.world.folder().join("sealed"), &url, size, &options)?;
    let manifest = simulation.finish(SETTLED_WITHIN)?;
    guarded.world.verify(&manifest)?;
    guarded.world.end()
}

#[test]
fn silent_tls_connections_hold_up_nobody() -> Result<()> {
    let mut guarded = guarded()?;
    let world = &mut guarded.world;
    let address = world.gateway().second_listener()?;
    let silent: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(address)).collect::<Result<_, _>>()?;
    let mut device = Device::new("patient")?;
    let tls = tls::client(&guarded.servers, Some(&guarded.devices.sign("patient")?))?;
    let mut client = Client::connect(address, &Connect::new("patient").tls(tls))?;
    device.emit(&mut client, 1)?;
    drop(silent);
    world.verify_devices(&[&device])?;
    guarded.world.end()
}
