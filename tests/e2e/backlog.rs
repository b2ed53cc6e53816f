//! A long backlog on a narrow link does not hide the present, and takes no more of the link than it may.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use toml::Table;
use weir_tests::device::Device;
use weir_tests::wait::eventually;
use weir_tests::{Change, Plan, SETTLED_WITHIN, World};

/// What the gateway may send a second.
const BYTES_PER_S: u64 = 48 * 1024;
/// The backlog: so many uplinks of this length, some ten seconds of the link.
const UPLINKS: u32 = 128;
const UPLINK_BYTES: usize = 4 * 1024;

/// A gateway on a narrow link that lets the present go ahead after a moment, and does not compress.
fn narrow() -> Change {
    Box::new(|config: &mut Table| {
        let uplink = config["uplink"].as_table_mut().expect("a section");
        uplink.insert("max_bytes_per_s".into(), i64::try_from(BYTES_PER_S).expect("it fits").into());
        uplink.insert("zstd_level".into(), 0.into());
        uplink.insert("live_after_ms".into(), 200.into());
    })
}

fn waiting(world: &mut World) -> Result<u64> {
    world.gateway().admin("/status")?["spool"]["waiting"].as_u64().context("it is a number")
}

#[test]
fn the_present_goes_ahead_of_a_long_backlog() -> Result<()> {
    let mut world = World::planned(Plan { link: true, gateway: Some(narrow()), ..Plan::default() })?;
    let mut device = Device::new("talker")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    // The cloud stays connected.
    world.link()?.cut();
    device.emit_large(UPLINK_BYTES);
    for _ in 0..UPLINKS {
        device.emit(&mut client, 1)?;
    }
    world.link()?.restore();
    eventually(SETTLED_WITHIN, "the backlog to begin to move", || {
        Ok((waiting(&mut world)? < u64::from(UPLINKS)).then_some(()))
    })?;
    let (begun, carried) = (Instant::now(), world.link()?.sent_bytes());
    // What is new from here on: the same device, and one that nobody has heard of.
    let mut newcomer = Device::new("newcomer")?;
    let mut newcomers = newcomer.connect(world.gateway().mqtt())?;
    newcomer.emit(&mut newcomers, 1)?;
    device.emit_large(0);
    device.emit(&mut client, 1)?;
    let newest = u64::from(UPLINKS) + 1;
    let value = |world: &World| -> Result<Option<u64>> {
        let (status, body) = world.cloud.get_any("/v1/devices/talker/state")?;
        ensure!(status == 200 || status == 404, "{status} {body}");
        let state: serde_json::Value = serde_json::from_str(&body)?;
        Ok(state["sensors"]["temp"]["value"].as_u64())
    };
    eventually(SETTLED_WITHIN, "the present in the cloud", || {
        let there = value(&world)? == Some(newest) && world.cloud.event_count("newcomer")? == 1;
        Ok(there.then_some(()))
    })?;
    let behind = waiting(&mut world)?;
    ensure!(
        behind > u64::from(UPLINKS) / 4,
        "only {behind} were still waiting: it may have come in its turn"
    );
    let ahead = world.gateway().admin("/status")?["uplink"]["ahead"].as_u64();
    ensure!(ahead.is_some_and(|ahead| ahead >= 2), "{ahead:?} went ahead");
    // What comes later with the backlog is older: no moment shows it as the present.
    eventually(SETTLED_WITHIN, "the backlog in the cloud", || {
        ensure!(value(&world)? == Some(newest), "the present went back to {:?}", value(&world)?);
        Ok((waiting(&mut world)? == 0).then_some(()))
    })?;
    let (took, carried) = (begun.elapsed(), world.link()?.sent_bytes() - carried);
    // A segment and a copy may have been paid for before, and there are questions and pings.
    let allowed = BYTES_PER_S as f64 * (took + Duration::from_secs(2)).as_secs_f64() * 1.1;
    ensure!((carried as f64) < allowed, "{carried} bytes in {took:.1?}");
    world.verify_devices(&[&device, &newcomer])?;
    world.verify_log()?;
    let report = world.cloud.weir(&["doctor"])?;
    ensure!(report.contains("copies went ahead"), "{report}");
    world.end()
}
