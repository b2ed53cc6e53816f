//! Why a board started: whatever ended its last run, the next one tells it, and no number is lost.
//!
//! The image is the one that people flash. What goes wrong in it is made to go wrong by a debug probe: the program is put
//! where it should not be.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::board::{Board, function};
use weir_tests::probe::{Probe, Register};
use weir_tests::wait::eventually;
use weir_tests::{World, programs};

use crate::boards::{board, first_acknowledged_ms, nothing_is_missing};

/// The beginning of the board's memory, the end of its stack: no run gets so deep.
const UNUSED: u32 = 0x2000_0000;
/// An instruction that is none: `udf #0`.
const UNDEFINED: [u8; 2] = [0x00, 0xDE];
/// `cpsie i`, or `cpsid i`, and `b .`: for ever, with interrupts let through or held back.
const HANGS: [u8; 4] = [0x62, 0xB6, 0xFE, 0xE7];
const HANGS_DEAF: [u8; 4] = [0x72, 0xB6, 0xFE, 0xE7];
/// The watchdog interrupts after ten seconds without food, and resets after ten more.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_panic_a_fault_and_a_stack_that_overflows_are_told_by_the_next_start() -> Result<()> {
    let mut world = World::start()?;
    let mut board = board(&mut world, "mishaps")?;
    first_acknowledged_ms(&board)?;

    // The program's beginning, run again, finds that the chip's parts are taken: that is an `expect` of ours.
    let mut probe = halt_after_news(&mut board, 12.5)?;
    probe.set(Register::Program, function("main")?)?;
    probe.resume()?;
    let reason = await_start(&world, &board, 2)?;
    let line = reason.strip_prefix("panic clock.rs:").context(reason.clone())?;
    let line: usize = line.parse().with_context(|| format!("{reason} names no line"))?;
    let source = fs::read_to_string(programs::root().join("firmware/boards/qemu-lm3s/src/clock.rs"))?;
    ensure!(
        source.lines().nth(line - 1).is_some_and(|line| line.contains("nobody else takes them")),
        "{reason}"
    );

    let mut probe = halt_after_news(&mut board, 22.5)?;
    probe.write(UNUSED, &UNDEFINED)?;
    probe.set(Register::Program, UNUSED)?;
    probe.resume()?;
    let reason = await_start(&world, &board, 3)?;
    ensure!(reason.starts_with("fault at 0x20000000, from 0x"), "{reason}");

    // Below it is nothing. A chip faults when that is written; the emulator forgets what is written there, and the fault
    // comes when the program wants to return to where it came from.
    let mut probe = halt_after_news(&mut board, 32.5)?;
    probe.set(Register::Stack, UNUSED + 16)?;
    probe.resume()?;
    let reason = await_start(&world, &board, 4)?;
    ensure!(reason == "stack overflow", "{reason}");

    ensure!(world.cloud.weir(&["state", "mishaps"])?.contains("(stack overflow)"));
    nothing_is_missing(&world, &board)?;
    world.end()
}

#[test]
fn a_board_that_hangs_is_started_again_by_its_watchdog() -> Result<()> {
    let mut world = World::start()?;
    let mut hanging = Vec::new();
    for (device, hangs, reason) in
        [("hangs", HANGS, "watchdog"), ("hangs-deaf", HANGS_DEAF, "watchdog-or-pin")]
    {
        let mut board = board(&mut world, device)?;
        first_acknowledged_ms(&board)?;
        let mut probe = halt_after_news(&mut board, 12.5)?;
        probe.write(UNUSED, &hangs)?;
        probe.set(Register::Program, UNUSED)?;
        probe.resume()?;
        hanging.push((board, reason));
    }
    for (board, reason) in &hanging {
        let told = await_start(&world, board, 2)?;
        ensure!(told == *reason, "{told}");
        nothing_is_missing(&world, board)?;
    }
    world.end()
}

/// Halts a board that has just measured something new, which it may have told or not.
fn halt_after_news(board: &mut Board, celsius: f64) -> Result<Probe> {
    board.set_temperature(celsius)?;
    board.halt()
}

/// Waits until the cloud's history knows that the board has started for the `nth` time, and says why that was.
fn await_start(world: &World, board: &Board, nth: usize) -> Result<String> {
    eventually(STARTS_WITHIN, &format!("start {nth} of {}", board.device()), || {
        let events = world.cloud.events(board.device())?;
        let mut starts = events.iter().filter(|event| event["kind"] == "device-started");
        let Some(start) = starts.nth(nth - 1) else { return Ok(None) };
        ensure!(starts.next().is_none(), "there are more");
        Ok(Some(start["body"]["reason"].as_str().context("a start without a reason")?.to_owned()))
    })
}
