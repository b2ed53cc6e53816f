//! Who may do what: a client publishes events only for the device it is, and hears only what is for that device.

use anyhow::{Context, Result, ensure};
use weir_tests::device::Device;
use weir_tests::mqtt::{Client, Connect, Packet, packet};
use weir_tests::{SETTLED_WITHIN, World};

/// MQTT 5: not authorized. As a SUBACK code too.
const NOT_AUTHORIZED: u8 = 0x87;
/// MQTT 5: the topic filter is not accepted.
const FILTER_INVALID: u8 = 0x8F;
/// MQTT 3.1.1: a subscription that failed.
const FAILURE: u8 = 0x80;

#[test]
fn a_device_cannot_speak_for_another() -> Result<()> {
    let mut world = World::start()?;
    let mut honest = Device::new("honest")?;
    let mut liar_device = Device::new("liar")?;
    let mut honest_client = honest.connect(world.gateway().mqtt())?;
    honest.emit(&mut honest_client, 1)?;

    let mut victim = Device::new("honest")?;
    let forged = victim.uplink(5)?;
    let mut liar = liar_device.connect_v5(world.gateway().mqtt())?;
    ensure!(liar.publish("weir/1/honest/events", &forged)? == NOT_AUTHORIZED);
    // A refusal is no reason to be cut off.
    liar_device.emit(&mut liar, 1)?;

    // 3.1.1 has no way to refuse but to end the connection or to acknowledge and drop; either way nothing is stored.
    let mut liar = liar_device.connect(world.gateway().mqtt())?;
    let _ = liar.publish("weir/1/honest/events", &forged);
    honest.emit(&mut honest_client, 1)?;
    world.verify_devices(&[&honest, &liar_device])?;
    ensure!(world.cloud.event_count("honest")? == 2, "a forged event was stored");
    world.end()
}

#[test]
fn a_device_hears_only_what_is_for_it() -> Result<()> {
    let mut world = World::start()?;
    let device = Device::new("listener")?;
    let allowed = ["weir/1/listener/commands", "weir/1/listener/time"];
    let forbidden =
        ["weir/1/other/commands", "weir/1/+/commands", "#", "weir/#", "+/1/listener/commands", "$SYS/#"];

    let mut client = device.connect_v5(world.gateway().mqtt())?;
    for filter in allowed {
        ensure!(client.subscribe(filter)? <= 1, "{filter} was refused");
    }
    for filter in forbidden {
        let code = client.subscribe(filter)?;
        ensure!(code == NOT_AUTHORIZED || code == FILTER_INVALID, "{filter} was answered with {code:#x}");
    }
    let mut client = device.connect(world.gateway().mqtt())?;
    for filter in forbidden {
        let code = client.subscribe(filter)?;
        ensure!(code == FAILURE, "{filter} was answered with {code:#x}");
    }
    client.ping()?;
    world.end()
}

#[test]
fn a_client_whose_name_is_no_device_may_be_let_in_but_speaks_for_none() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("b")?;
    let uplink = device.uplink(1)?;
    let too_long = "x".repeat(33);
    for id in ["a/b", "+", "#", "sp ace", "dot.ted", "\u{e9}", too_long.as_str()] {
        for topic in ["weir/1/b/events".to_owned(), format!("weir/1/{id}/events")] {
            let connect = Connect::new(id).v5();
            let (mut client, Packet::ConnAck(0)) = Client::try_connect(world.gateway().mqtt(), &connect)?
            else {
                continue;
            };
            let code = client.publish(&topic, &uplink);
            ensure!(!matches!(code, Ok(0)), "{id:?} published on {topic}");
        }
    }
    ensure!(world.cloud.event_count("b")? == 0);
    world.end()
}

#[test]
fn qos_2_is_refused_as_the_protocol_allows() -> Result<()> {
    let mut world = World::start()?;
    let device = Device::new("thorough")?;
    for connect in [Device::connect, Device::connect_v5] {
        let mut client = connect(&device, world.gateway().mqtt())?;
        // QoS 2 PUBLISH with packet id 1, once as 3.1.1 reads it and once as 5 does.
        let mut body = b"\x00\x16weir/1/thorough/events\x00\x01".to_vec();
        body.push(0);
        client.send(&packet(0x34, &body))?;
        /// MQTT 5: QoS not supported.
        const NOT_SUPPORTED: u8 = 0x9B;
        match client.next(weir_tests::mqtt::ANSWER_WITHIN)? {
            Packet::Closed => {}
            Packet::Disconnect(code) => ensure!(code == NOT_SUPPORTED, "{code:#x}"),
            other => anyhow::bail!("{other:?}"),
        }
    }
    world.end()
}

#[test]
fn a_wrong_password_is_turned_away() -> Result<()> {
    let mut world = World::start()?;
    let program = weir_tests::programs::ours("weir-gateway")?;
    let shell = format!("printf 'correct horse' | {} hash-password", program.display());
    let within = std::time::Duration::from_secs(20);
    let hash =
        weir_tests::process::output("/bin/sh".as_ref(), &["-c", &shell], within)?.success("hash-password")?;
    let file = world.folder().join("passwords");
    std::fs::write(&file, format!("guarded:{}\n", hash.trim()))?;
    let gateway = world.gateway();
    gateway.stop()?;
    let mqtt = gateway.config_mut()["mqtt"].as_table_mut().context("[mqtt]")?;
    mqtt.insert("password_file".into(), file.to_string_lossy().into_owned().into());
    gateway.start_again()?;

    let mut device = Device::new("guarded")?;
    let login = |password: &str| Connect {
        login: Some(("guarded".to_owned(), password.to_owned())),
        ..Connect::new("guarded")
    };
    let address = world.gateway().mqtt();
    for wrong in [login("battery staple"), login(""), Connect::new("guarded"), login("wrong").v5()] {
        ensure!(Client::connect(address, &wrong).is_err(), "let in with {:?}", wrong.login);
    }
    let mut client = Client::connect(address, &login("correct horse"))?;
    device.emit(&mut client, 1)?;
    world.cloud.await_events("guarded", 1, SETTLED_WITHIN)?;
    world.verify_devices(&[&device])?;
    world.end()
}
