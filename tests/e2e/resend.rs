//! Promise 5, by hand: an operator has a gateway send again what it keeps. What was lost comes back, what is there already
//! stays as it is.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use weir_contract::segment::Segment;
use weir_tests::device::Device;
use weir_tests::sim::Size;
use weir_tests::wait::eventually;
use weir_tests::{SETTLED_WITHIN, World};

use crate::healing::views;

const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn what_was_deleted_from_the_log_by_hand_comes_back_by_a_resend() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("bereft")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    for _ in 0..20 {
        device.emit(&mut client, 3)?;
        world.gateway().await_delivered(SETTLED_WITHIN)?;
    }
    world.cloud.await_events("bereft", 60, SETTLED_WITHIN)?;
    // No gateway can find that out: what follows is still there.
    let last = world.nats.stream()?.last_sequence;
    for sequence in 3..last - 2 {
        world.nats.delete(sequence)?;
    }
    world.cloud.stop()?;
    world.cloud.forget_everything()?;
    world.cloud.start_again()?;
    world.cloud.await_events("bereft", 1, SETTLED_WITHIN)?;
    ensure!(world.cloud.event_count("bereft")? < 60, "nothing is missing");
    let told = world.cloud.weir(&["resend", "--gateway", "gw-1", "--from", "1", "--wait"])?;
    ensure!(told.contains("completed") && told.contains("uplinks were sent again"), "{told}");
    device.emit(&mut client, 1)?;
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn everything_sent_again_twice_changes_neither_state_nor_history_nor_ledger() -> Result<()> {
    let mut world = World::start()?;
    let simulation = world.simulate(
        Size { devices: 10, rate: 10.0, run_s: 4 },
        &["--seed", "32", "--faults", "reconnects=1,duplicates=0.1"],
    )?;
    let manifest = simulation.finish(WITHIN)?;
    world.verify(&manifest)?;
    all_read(&world)?;
    let before = views(&world)?;
    let messages = world.nats.stream()?.messages;
    for from in ["1", "1h"] {
        let finished =
            world.cloud.weir_any(&["resend", "--gateway", "gw-1", "--from", from, "--wait"], WITHIN)?;
        ensure!(finished.status.success(), "{finished:?}");
    }
    // The repetitions really are in the log: the simulated devices' uplinks three times.
    ensure!(uplinks_of(&world, "sim-0001")? >= 3, "the log has no repetitions");
    ensure!(world.nats.stream()?.messages > messages + 2);
    all_read(&world)?;
    world.verify(&manifest)?;
    same(&before, &views(&world)?)?;
    // History shows who was told what.
    let events = world.cloud.events("gw-1")?;
    let completed = events.iter().filter(|event| event["kind"] == "command-completed").count();
    ensure!(completed == 2, "{completed} resends in history");
    // Nor does a log in which everything stands three times, read from its start.
    world.cloud.stop()?;
    world.cloud.forget_everything()?;
    world.cloud.start_again()?;
    world.verify(&manifest)?;
    all_read(&world)?;
    same(&before, &views(&world)?)?;
    world.end()
}

/// Waits until everything the gateway has is in the log, and in the views.
fn all_read(world: &World) -> Result<()> {
    world.gateways[0].await_delivered(SETTLED_WITHIN)?;
    eventually(SETTLED_WITHIN, "the cloud to have read the log", || {
        let (position, last) =
            (world.cloud.get("/v1/status")?["position"].clone(), world.nats.stream()?.last_sequence);
        ensure!(position["lag_messages"] == 0 && position["stream_sequence"] == last, "{position}, {last}");
        Ok(Some(()))
    })
}

fn same(before: &[String], after: &[String]) -> Result<()> {
    // What came again is counted, and that is all.
    let uncounted = |views: &[String]| -> Vec<String> {
        views.iter().map(|view| view.split("\"duplicates\":").map(after_number).collect()).collect()
    };
    let (before, after) = (uncounted(before), uncounted(after));
    ensure!(before.len() == after.len(), "{} answers were {}", after.len(), before.len());
    let changed = before.iter().zip(&after).find(|(before, after)| before != after);
    changed.map_or(Ok(()), |(before, after)| bail!("changed from\n{before}\nto\n{after}"))
}

fn after_number(text: &str) -> &str {
    text.trim_start_matches(|char: char| char.is_ascii_digit())
}

/// How often each uplink of a device is in the log: the rarest of them.
fn uplinks_of(world: &World, device: &str) -> Result<usize> {
    let mut seen = std::collections::BTreeMap::<Vec<u8>, usize>::new();
    for message in world.nats.messages()? {
        let bytes = weir_tests::plain(&message.headers, &message.payload)?;
        let segment = Segment::read(&bytes).map_err(|error| anyhow!("{error}"))?;
        for entry in segment.entries().filter(|entry| &*entry.device == device) {
            *seen.entry(entry.payload.to_vec()).or_default() += 1;
        }
    }
    seen.values().min().copied().with_context(|| format!("{device} is not in the log"))
}

#[test]
fn a_gateway_killed_while_it_sends_again_does_it_after_its_next_start() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("halfway")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    for _ in 0..300 {
        device.emit(&mut client, 5)?;
    }
    world.gateway().await_delivered(SETTLED_WITHIN)?;
    // Whether it has only just heard of it, is in the middle, or done: it is killed, twice.
    world.cloud.weir(&["resend", "--gateway", "gw-1", "--from", "1"])?;
    world.gateway().kill9()?;
    world.gateway().start_again()?;
    world.gateway().kill9()?;
    world.gateway().start_again()?;
    eventually(SETTLED_WITHIN, "the resend to be completed", || {
        let state = world.cloud.get("/v1/devices/gw-1/state")?;
        let commands = state["commands"].as_array().context("no commands")?;
        Ok(commands.iter().find(|command| command["outcome"] == "completed").map(|_| ()))
    })?;
    ensure!(uplinks_of(&world, "halfway")? >= 2, "not all of it was sent again");
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn a_resend_that_cannot_be_done_says_why() -> Result<()> {
    let mut world = World::start()?;
    let mut device = Device::new("brief")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    device.emit(&mut client, 1)?;
    world.verify_devices(&[&device])?;
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--gateway", "gw-1", "--from", "1000000", "--wait"], 1, "has not been given out yet"),
        (&["--gateway", "gw-1", "--from", "0"], 2, "numbers begin with 1"),
        (&["--gateway", "gw-1", "--from", "soon"], 2, "allowed"),
        (&["--gateway", "no gateway", "--from", "1"], 2, "allowed"),
        (&["--gateway", "gw-9", "--from", "1"], 1, "gw-9"),
    ];
    for (more, code, said) in cases {
        let mut arguments = vec!["resend"];
        arguments.extend(more);
        let finished = world.cloud.weir_any(&arguments, WITHIN)?;
        let text = format!("{finished:?}");
        ensure!(finished.status.code() == Some(code) && text.contains(said), "{more:?}: {text}");
    }
    let unknown = world.cloud.weir_any(&["command", "gw-1", "dance", "--wait"], WITHIN)?;
    ensure!(unknown.status.code() == Some(1) && unknown.out.contains("known is resend"), "{unknown:?}");
    world.end()
}
