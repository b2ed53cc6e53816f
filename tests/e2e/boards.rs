//! The real firmware, on emulated boards: what it measures reaches the cloud, whatever is pulled.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::board::Board;
use weir_tests::wait::{eventually, pause};
use weir_tests::{SETTLED_WITHIN, World};

/// By the board's own clock: what the emulator waits for the machine it runs on is not the board's.
const FIRST_EVENT_MS_MAX: u64 = 1000;
const CONNECTS_WITHIN: Duration = Duration::from_secs(60);
/// Longer than a board takes to notice that nobody answers.
const CABLE_PULLED: Duration = Duration::from_secs(25);
/// Long enough for a ping.
const IDLE: Duration = Duration::from_secs(13);
/// Of one processor.
const IDLE_SHARE_MAX: f64 = 0.05;

#[test]
fn the_first_event_is_acknowledged_within_a_second_of_power_up() -> Result<()> {
    let mut world = World::start()?;
    let board = board(&mut world, "quick")?;
    let took_ms = first_acknowledged_ms(&board)?;
    ensure!(took_ms <= FIRST_EVENT_MS_MAX, "it took {took_ms} ms");
    world.cloud.await_events("quick", 1, SETTLED_WITHIN)?;
    let events = world.cloud.events("quick")?;
    ensure!(
        events[0]["kind"] == "device-started" && events[0]["body"]["reason"] == "power-on",
        "{}",
        events[0]
    );
    world.end()
}

#[test]
fn what_the_sensor_measures_is_seen_in_the_cloud() -> Result<()> {
    let mut world = World::start()?;
    let mut board = board(&mut world, "warm")?;
    for celsius in [21.5, -12.5, 42.0, 0.0] {
        board.set_temperature(celsius)?;
        eventually(SETTLED_WITHIN, &format!("{celsius} °C in the state"), || {
            let state = world.cloud.get("/v1/devices/warm/state")?;
            let value = temperature(&state).with_context(|| format!("no temperature in {state}"))?;
            ensure!(value == celsius, "it is {value}");
            Ok(Some(()))
        })?;
    }
    let events = world.cloud.events("warm")?;
    let crossed: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "limit-crossed")
        .map(|event| &event["body"]["rising"])
        .collect();
    ensure!(crossed == [true, false], "40 °C were crossed once up and once down: {crossed:?}");
    world.end()
}

#[test]
fn what_is_measured_while_the_cable_is_pulled_arrives_when_it_is_back() -> Result<()> {
    let mut world = World::start()?;
    let mut board = board(&mut world, "cut-off")?;
    first_acknowledged_ms(&board)?;
    board.set_cable(false)?;
    let begin = Instant::now();
    let mut celsius = 10.0;
    while begin.elapsed() < CABLE_PULLED {
        celsius += 1.0;
        board.set_temperature(celsius)?;
        pause(Duration::from_millis(1500));
    }
    board.set_cable(true)?;
    eventually(SETTLED_WITHIN, "the last reading", || {
        Ok((temperature(&world.cloud.get("/v1/devices/cut-off/state")?) == Some(celsius)).then_some(()))
    })?;
    nothing_is_missing(&world, &board)?;
    let readings =
        world.cloud.events("cut-off")?.iter().filter(|event| event["kind"] == "reading-taken").count();
    ensure!(readings >= 10, "{readings} readings");
    world.end()
}

#[test]
fn no_cut_of_power_loses_a_number() -> Result<()> {
    const CUTS: usize = 12;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::start()?;
    let mut boards = ["cut-a", "cut-b", "cut-c"]
        .map(|device| board(&mut world, device))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    for cut in 0..CUTS {
        // Sometimes it goes before it is up, sometimes while it cannot send, sometimes while it sends.
        let (cable, gateway) = (cut % 3 == 1, cut % 4 == 2);
        let board = random.choice(&mut boards).context("there are boards")?;
        if cable {
            board.set_cable(false)?;
        }
        if gateway {
            world.gateway().kill9()?;
        }
        for _ in 0..random.u32(0..4) {
            board.set_temperature(f64::from(random.i32(-80..180)) / 2.0)?;
            pause(Duration::from_millis(random.u64(0..1200)));
        }
        board.cut_power()?;
        board.power_up()?;
        if gateway {
            world.gateway().start_again()?;
        }
    }
    for board in &mut boards {
        board.set_temperature(99.5)?;
        let path = format!("/v1/devices/{}/state", board.device());
        eventually(SETTLED_WITHIN, &format!("the last reading of {}", board.device()), || {
            Ok((temperature(&world.cloud.get(&path)?) == Some(99.5)).then_some(()))
        })?;
        nothing_is_missing(&world, board)?;
        let boots = board.boots()?;
        ensure!(boots.iter().collect::<BTreeSet<_>>().len() == boots.len(), "a number came twice: {boots:?}");
    }
    world.verify_log()?;
    world.end()
}

/// More than its EEPROM holds is measured while nobody listens, and then its power is cut as well.
#[test]
fn what_a_full_board_gave_up_is_in_the_ledger_number_by_number() -> Result<()> {
    /// An event takes about 76 of 32,768 bytes.
    const CHANGES: u32 = 500;
    const PERIOD_MS: u64 = 50;
    let mut world = World::start()?;
    let mut board = board(&mut world, "full")?;
    first_acknowledged_ms(&board)?;
    world.cloud.await_events("full", 1, SETTLED_WITHIN)?;
    let period = format!("period_ms={PERIOD_MS}");
    let command = ["command", "full", "set-period", "--arg", &period, "--wait"];
    let obeyed = world.cloud.weir_any(&command, SETTLED_WITHIN)?;
    ensure!(obeyed.status.success(), "{obeyed:?}");
    world.gateway().kill9()?;
    for change in 0..CHANGES {
        board.set_temperature(f64::from(change % 30))?;
        pause(Duration::from_millis(PERIOD_MS * 3 / 2));
    }
    board.cut_power()?;
    board.power_up()?;
    world.gateway().start_again()?;
    // What it measures while it is still full is given up, too.
    eventually(SETTLED_WITHIN, "what it kept", || {
        let boots = world.cloud.get("/v1/devices/full/boots")?;
        Ok((boots["boots"][0]["events"].as_u64() >= Some(300)).then_some(()))
    })?;
    board.set_temperature(33.5)?;
    eventually(SETTLED_WITHIN, "the last reading", || {
        Ok((temperature(&world.cloud.get("/v1/devices/full/state")?) == Some(33.5)).then_some(()))
    })?;
    nothing_is_missing(&world, &board)?;
    let boots = world.cloud.get("/v1/devices/full/boots")?;
    let lost = &boots["boots"][0]["lost"];
    let full = |range: &Value| range["reason"] == "outbox-full" && range["by"] == "full";
    ensure!(lost.as_array().is_some_and(|lost| lost.iter().any(full)), "{boots}");
    world.end()
}

#[test]
fn a_board_obeys_and_keeps_what_it_was_told_over_a_cut_of_power() -> Result<()> {
    let mut world = World::start()?;
    let mut board = board(&mut world, "obeys")?;
    first_acknowledged_ms(&board)?;
    world.cloud.await_events("obeys", 1, SETTLED_WITHIN)?;
    let obeys = |world: &World, command: &[&str]| -> Result<()> {
        let arguments = [&["command", "obeys"], command, &["--wait"]].concat();
        let finished = world.cloud.weir_any(&arguments, SETTLED_WITHIN)?;
        ensure!(finished.status.success(), "{command:?}: {finished:?}");
        Ok(())
    };
    obeys(&world, &["set-period", "--arg", "period_ms=100"])?;
    obeys(&world, &["identify"])?;
    board.await_log(SETTLED_WITHIN, "being asked who it is", |line| {
        line.contains("this is me").then_some(())
    })?;
    // Nearly as long as a command may be: it is heard, and refused for what it says.
    let long = format!("step={}", "x".repeat(900));
    let dance = ["command", "obeys", "dance", "--arg", &long, "--wait"];
    let refused = world.cloud.weir_any(&dance, SETTLED_WITHIN)?;
    ensure!(!refused.status.success() && format!("{refused:?}").contains("unknown command"), "{refused:?}");
    board.cut_power()?;
    board.power_up()?;
    obeys(&world, &["restart"])?;
    let state = world.cloud.get("/v1/devices/obeys/state")?;
    let config = &state["config"];
    ensure!(config["config"]["temperature"]["period_ms"] == 100, "{config}");
    let events = world.cloud.events("obeys")?;
    let starts = events.iter().filter(|event| event["kind"] == "device-started");
    let reasons: Vec<&Value> = starts.map(|event| &event["body"]["reason"]).collect();
    ensure!(reasons == ["power-on", "power-on", "restart-command"], "{reasons:?}");
    nothing_is_missing(&world, &board)?;
    world.end()
}

#[test]
fn a_reset_tells_its_reason_and_loses_nothing() -> Result<()> {
    let mut world = World::start()?;
    let mut board = board(&mut world, "reset")?;
    first_acknowledged_ms(&board)?;
    board.reset()?;
    let reasons = eventually(SETTLED_WITHIN, "a second start", || {
        let events = world.cloud.events("reset")?;
        let starts = events.iter().filter(|event| event["kind"] == "device-started");
        let reasons: Vec<String> = starts.map(|event| event["body"]["reason"].to_string()).collect();
        Ok((reasons.len() > 1).then_some(reasons))
    })?;
    ensure!(reasons == ["\"power-on\"", "\"watchdog-or-pin\""], "{reasons:?}");
    nothing_is_missing(&world, &board)?;
    world.end()
}

#[test]
fn an_idle_board_leaves_its_host_alone() -> Result<()> {
    let mut world = World::start()?;
    let board = board(&mut world, "idle")?;
    first_acknowledged_ms(&board)?;
    let before = board.usage()?.cpu;
    pause(IDLE);
    let share = (board.usage()?.cpu - before).as_secs_f64() / IDLE.as_secs_f64();
    ensure!(share <= IDLE_SHARE_MAX, "{:.1} % of a processor", share * 100.0);
    ensure!(!board.log()?.contains("no connection"), "an idle connection ended:\n{}", board.log()?);
    world.end()
}

pub(crate) fn board(world: &mut World, device: &str) -> Result<Board> {
    let gateway = world.gateway().mqtt();
    Board::start(&world.folder().join(device), device, gateway)
}

/// Milliseconds from power-up to the first acknowledgement, by the board's clock.
pub(crate) fn first_acknowledged_ms(board: &Board) -> Result<u64> {
    board.await_log(CONNECTS_WITHIN, "the first acknowledgement", |line| {
        let (_, rest) = line.split_once("first event acknowledged ")?;
        rest.split(' ').next()?.parse().ok()
    })
}

/// The temperature in a device's state.
pub(crate) fn temperature(state: &Value) -> Option<f64> {
    state["sensors"]["temperature"]["value"].as_f64()
}

/// Every number of every boot, up to the last that came, is stored or in the ledger.
pub(crate) fn nothing_is_missing(world: &World, board: &Board) -> Result<()> {
    eventually(SETTLED_WITHIN, "no number missing", || {
        let answer = world.cloud.get(&format!("/v1/devices/{}/boots", board.device()))?;
        let boots = answer["boots"].as_array().context("no boots")?;
        for number in board.boots()? {
            let boot = boots.iter().find(|boot| boot["boot"] == number.to_string().as_str());
            let boot = boot.with_context(|| format!("boot {number} is not in {answer}"))?;
            ensure!(boot["missing"].as_array().is_some_and(Vec::is_empty), "{boot}");
            // Each once: as many rows as numbers.
            let stored = boot["stored"].as_array().context("no ranges")?;
            let numbers = stored.iter().map(|range| Some(range[1].as_u64()? - range[0].as_u64()? + 1));
            ensure!(numbers.sum::<Option<u64>>() == boot["events"].as_u64(), "{boot}");
        }
        Ok(Some(()))
    })
}
