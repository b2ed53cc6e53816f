//! A board that nobody hears: its outbox overflows and its power is cut again and again, and what it tells afterwards is
//! whole and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::board::Board;
use weir_tests::wait::{eventually, pause};
use weir_tests::{SETTLED_WITHIN, World};

use crate::boards::{board, first_acknowledged_ms, temperature};

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const CHANGE_SEEN_WITHIN: Duration = Duration::from_secs(30);
/// Long enough for a board to sample and to keep what it has seen, most of the time.
const CHANGE_LASTS: Duration = Duration::from_millis(50);

#[test]
fn an_outbox_that_overflows_before_each_of_many_cuts_tells_every_number() -> Result<()> {
    /// More than the EEPROM holds: each change is a reading and a limit crossed, and 349 events have room.
    const CHANGES_TO_FILL: u32 = 240;
    const CUTS: usize = 7;
    /// So many boots' losses can be remembered until something is delivered; the boots after them give no numbers.
    const BOOTS_REMEMBERED: usize = 5;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::start()?;
    let mut board = board(&mut world, "brim")?;
    first_acknowledged_ms(&board)?;
    let period = ["command", "brim", "set-period", "--arg", "period_ms=10", "--wait"];
    world.cloud.weir_any(&period, SETTLED_WITHIN)?.success("set-period")?;
    world.gateway().kill9()?;

    let mut changes = Vec::new();
    for cut in 0..CUTS {
        let count = if cut == 0 { CHANGES_TO_FILL } else { random.u32(3..10) };
        for change in 0..count {
            let before = board.stored()?;
            board.set_temperature(if change % 2 == 0 { 60.0 } else { 20.5 })?;
            if cut < BOOTS_REMEMBERED {
                // It writes down what it has seen, or that there was no room for it.
                eventually(CHANGE_SEEN_WITHIN, "the change in the EEPROM", || {
                    Ok((board.stored()? != before).then_some(()))
                })?;
            }
            pause(CHANGE_LASTS);
        }
        // In the middle of a change that it is writing down, or between two.
        board.set_temperature(f64::from(random.i32(-80..60)) / 2.0)?;
        pause(random.u32(0..30) * Duration::from_millis(1));
        changes.push(count);
        board.cut_power()?;
        power_up(&mut board)?;
    }
    world.gateway().start_again()?;
    last_reading(&world, &mut board, 33.5)?;

    let numbers = board.boots()?;
    let told = boots(&world, "brim", &numbers[..BOOTS_REMEMBERED])?;
    for (boot, (number, count)) in numbers.iter().zip(&changes).enumerate() {
        let Some(told) = told.get(number) else { continue };
        ensure!(told.lost > 0, "boot {boot} has not overflowed: {told:?}");
        // Two events of a change, and the start.
        ensure!(told.numbers > u64::from(*count), "boot {boot} with {count} changes: {told:?}");
    }
    let last = told.get(&numbers[CUTS]).context("nobody tells of the last boot")?;
    ensure!(last.numbers > last.lost, "the last one was heard: {last:?}");
    world.verify_log()?;
    world.end()
}

/// Without a gateway, a board does not know the time: nobody but itself knows which of its boots came first.
#[test]
fn boots_that_nobody_heard_are_one_history_in_their_order() -> Result<()> {
    const CUTS: u32 = 6;
    let mut world = World::start()?;
    let mut board = board(&mut world, "unheard")?;
    first_acknowledged_ms(&board)?;
    world.gateway().kill9()?;
    for cut in 0..CUTS {
        board.cut_power()?;
        power_up(&mut board)?;
        board.set_temperature(f64::from(cut))?;
    }
    world.gateway().start_again()?;
    last_reading(&world, &mut board, 33.5)?;
    boots(&world, "unheard", &board.boots()?)?;
    let events = world.cloud.events("unheard")?;
    let mut order: Vec<u64> = events.iter().map(boot).collect::<Result<_>>()?;
    order.dedup();
    ensure!(order == board.boots()?, "{order:?} is not {:?}", board.boots()?);
    world.end()
}

/// Powers a board up, and waits until it has told its start and measured for the first time.
fn power_up(board: &mut Board) -> Result<()> {
    let before = board.samples_told()?;
    board.power_up()?;
    eventually(STARTS_WITHIN, "the board's first sample", || {
        Ok((board.samples_told()? > before).then_some(()))
    })
}

/// Has the board measure something new, and waits until the cloud knows that: all that came before is there then.
fn last_reading(world: &World, board: &mut Board, celsius: f64) -> Result<()> {
    let path = format!("/v1/devices/{}/state", board.device());
    eventually(SETTLED_WITHIN, "a place in the outbox", || {
        // What finds it full is given up, so it is measured until it is not.
        board.set_temperature(celsius - 5.0)?;
        pause(CHANGE_LASTS);
        board.set_temperature(celsius)?;
        pause(4 * CHANGE_LASTS);
        Ok((temperature(&world.cloud.get(&path)?) == Some(celsius)).then_some(()))
    })
}

/// What the cloud tells of a boot.
#[derive(Debug)]
struct Told {
    /// All of them: 1 to this.
    numbers: u64,
    lost: u64,
}

/// What the cloud tells of every boot, once nothing is missing: `these` boots are there, and each number is stored or
/// lost, exactly once.
fn boots(world: &World, device: &str, these: &[u64]) -> Result<BTreeMap<u64, Told>> {
    eventually(SETTLED_WITHIN, "every number", || {
        let answer = world.cloud.get(&format!("/v1/devices/{device}/boots"))?;
        let boots = answer["boots"].as_array().context("no boots")?;
        let told = boots.iter().map(|told| Ok((boot(told)?, account(told)?)));
        let told: BTreeMap<u64, Told> = told.collect::<Result<_>>()?;
        for boot in these {
            ensure!(told.contains_key(boot), "nobody tells of boot {boot}: {told:?}");
        }
        Ok(Some(told))
    })
}

fn account(boot: &Value) -> Result<Told> {
    let pair = |range: &Value| Some((range[0].as_u64()?, range[1].as_u64()?));
    let stored = boot["stored"].as_array().context("no ranges")?.iter().map(pair);
    let lost = boot["lost"].as_array().context("no losses")?;
    let lost = lost.iter().map(|range| Some((range["from"].as_u64()?, range["to"].as_u64()?)));
    let lost: Option<Vec<(u64, u64)>> = lost.collect();
    let lost = lost.with_context(|| format!("losses in another shape: {boot}"))?;
    let mut all: Vec<(u64, u64)> = stored.collect::<Option<_>>().context("ranges in another shape")?;
    let events: u64 = all.iter().map(|(from, to)| to - from + 1).sum();
    ensure!(boot["events"] == events, "as many events as numbers: {boot}");
    all.extend(&lost);
    all.sort_unstable();
    let mut next = 1;
    for (from, to) in all {
        ensure!(from == next, "{next} is missing, or twice: {boot}");
        next = to + 1;
    }
    Ok(Told { numbers: next - 1, lost: lost.iter().map(|(from, to)| to - from + 1).sum() })
}

fn boot(of: &Value) -> Result<u64> {
    of["boot"].as_str().and_then(|boot| boot.parse().ok()).with_context(|| format!("no boot in {of}"))
}
