//! Promise 7: what cannot be read is refused with a reason or becomes a dead letter; the rest flows on.

use anyhow::{Result, ensure};
use weir_contract::segment::{self, Head};
use weir_contract::subject;
use weir_tests::device::Device;
use weir_tests::wait::eventually;
use weir_tests::{SETTLED_WITHIN, World};

/// MQTT 5: payload format invalid.
const PAYLOAD_INVALID: u8 = 0x99;

#[test]
fn a_payload_that_is_no_uplink_is_refused_and_can_be_looked_at() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("garbler")?;
    let mut cut_short = device.uplink(3)?;
    cut_short.truncate(cut_short.len() - 2);
    let broken: [&[u8]; 4] = [b"", b"{\"temp\": 21}", &[0xFF; 100], &cut_short];

    let mut client = device.connect_v5(world.gateway().mqtt())?;
    for payload in broken {
        let code = client.publish("weir/1/garbler/events", payload)?;
        ensure!(code == PAYLOAD_INVALID, "{payload:02x?} was answered with {code:#x}");
    }
    // 3.1.1 cannot be told, and would send the same again for ever if it got no PUBACK.
    let mut client = device.connect(world.gateway().mqtt())?;
    for payload in broken {
        client.publish("weir/1/garbler/events", payload)?;
    }
    let refusals = world.gateways[0].admin("/refusals")?.to_string();
    ensure!(refusals.matches("garbler").count() >= 8, "{refusals}");

    // The truncated uplink's numbers are still the device's to send.
    let whole = device.uplink_of(1, 3)?;
    device.send(&mut client, &whole)?;
    device.emit(&mut client, 1)?;
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn bytes_that_are_no_mqtt_harm_only_the_one_who_sends_them() -> Result<()> {
    let mut world = World::start()?;
    let address = world.gateway().mqtt();
    let mut device = Device::new("neighbour")?;
    let mut client = device.connect(address)?;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        let stranger = Device::new(&format!("stranger-{round}"))?;
        let length = random.usize(1..200);
        let mut noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        if round % 3 == 0 {
            // Past the CONNECT, where there is more to break.
            let mut intruder = stranger.connect_v5(address)?;
            let _ = intruder.send(&noise);
            continue;
        }
        if round % 3 == 1 {
            noise.splice(0..0, *b"\x10\x7F\x00\x04MQTT");
        }
        let socket = std::net::TcpStream::connect(address)?;
        let _ = std::io::Write::write_all(&mut &socket, &noise);
        device.emit(&mut client, 1)?;
    }
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn poison_in_the_log_becomes_dead_letters_and_the_rest_flows_on() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("healthy")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 2)?;

    // Not a segment; says zstd and is not; a segment with one good uplink between two that cannot be read.
    let subject = "weir.1.segments.lab.poisoner.main";
    let mut poison = vec![world.nats.publish(subject, &[], b"not a segment")?];
    let encoded = [(subject::HEADER_ENCODING, subject::ENCODING_ZSTD)];
    poison.push(world.nats.publish(subject, &encoded, b"not zstd")?);
    poison.push(world.nats.publish(subject, &[(subject::HEADER_ENCODING, "rot13")], b"?")?);
    let mut guest = Device::new("between")?;
    let good = guest.uplink(4)?;
    let mut bytes = Vec::new();
    segment::write_head(&mut bytes, &Head { incarnation: 1, first: 1, count: 3 });
    let (id, now_ms) = ("between".parse().map_err(anyhow::Error::msg)?, weir_tests::clock::now_ms());
    segment::write_entry(&mut bytes, &id, now_ms, None, b"no uplink");
    segment::write_entry(&mut bytes, &id, now_ms, None, &good);
    segment::write_entry(&mut bytes, &id, now_ms, None, &[0x84, 0x01]);
    poison.push(world.nats.publish(subject, &[], &bytes)?);

    device.emit(&mut client, 2)?;
    world.verify_devices(&[&device, &guest])?;
    let letters = eventually(SETTLED_WITHIN, "the dead letters", || {
        Ok(Some(world.cloud.dead_letters()?).filter(|letters| letters.len() >= 5))
    })?;
    ensure!(letters.len() == 5, "{letters:?}");
    for letter in &letters {
        ensure!(
            letter["stream_sequence"].as_u64().is_some_and(|sequence| poison.contains(&sequence)),
            "{letter}"
        );
        ensure!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{letter}");
        ensure!(letter["subject"] == subject, "{letter}");
    }
    world.end()
}

#[test]
fn a_question_that_makes_no_sense_gets_a_clear_answer() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("asked")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 1)?;
    world.cloud.await_events("asked", 1, SETTLED_WITHIN)?;
    for (path, expected) in [
        ("/v1/devices/nobody/state", 404),
        ("/v1/devices/no%20name/state", 400),
        ("/v1/devices/asked/state?at=yesterday-ish", 400),
        ("/v1/devices/asked/events?limit=0", 400),
        ("/v1/devices/asked/events?limit=1000000", 400),
        ("/v1/devices/asked/events?order=sideways", 400),
        ("/v1/devices/asked/events?kind=NOT!", 400),
        ("/v1/nothing", 404),
    ] {
        let (status, body) = world.cloud.get_any(path)?;
        ensure!(status == expected, "{path}: {status} {body}");
        let error: serde_json::Value = serde_json::from_str(&body)?;
        ensure!(
            error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()),
            "{path}: {body}"
        );
    }
    world.end()
}
