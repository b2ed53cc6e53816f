//! Whatever happens, power cuts included, every number of every boot reaches the gateway or is told as lost, once.

use std::ops::Range;

use crate::world::{Happening, World, happening};

/// A history that fills an outbox, overflows it, goes through boots, and drains.
fn history(seed: u64, len: usize, online: u32) -> Vec<Happening> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| happening(&mut random, online)).collect()
}

/// The power is cut at each step of a short history.
fn at_every_step<const WRITE: usize, const ERASE: usize>(
    len: usize,
    area: &Range<u32>,
    history: &[Happening],
) {
    let steps = {
        let mut world = World::<WRITE, ERASE>::new(len, area.clone());
        history.iter().for_each(|&happening| world.happen(happening));
        let steps = world.chip.counts().steps;
        world.drain();
        steps
    };
    for cut in 0..steps {
        let mut world = World::<WRITE, ERASE>::off(len, area.clone());
        world.chip.cut_after(cut, cut);
        world.power_up();
        if world.chip.is_dead() {
            world.power_cut();
        }
        history.iter().for_each(|&happening| world.happen(happening));
        world.drain();
    }
}

#[test]
fn wherever_a_short_history_is_cut_every_number_is_accounted_for() {
    at_every_step::<1, 64>(16_384, &(256..8192), &history(1, 60, 30));
    at_every_step::<1, 64>(16_384, &(0..7168), &history(2, 90, 5));
    at_every_step::<4, 4096>(16_384, &(0..16_384), &history(3, 70, 40));
    at_every_step::<256, 4096>(32_768, &(0..32_768), &history(4, 120, 20));
}

/// Fills the outbox, then goes on as the gateway takes it, a few events at a time: pages are erased as soon as they may be.
fn at_the_brim(fill: usize, rounds: usize) -> Vec<Happening> {
    let emit = Happening::Emit { body_len: 40 };
    let mut history = vec![Happening::Poll, Happening::Poll];
    history.resize(fill, emit);
    for _ in 0..rounds {
        let deliver = [Happening::Poll, Happening::Store { which: 0 }, Happening::Acknowledge { which: 0 }];
        history.extend(deliver.into_iter().chain([emit; 6]));
    }
    history
}

#[test]
fn a_full_journal_that_is_cut_while_it_makes_room_gives_up_nothing_that_is_needed() {
    at_every_step::<1, 64>(16_384, &(0..8192), &at_the_brim(50, 12));
    at_every_step::<4, 4096>(16_384, &(0..16_384), &at_the_brim(110, 14));
}

fn long_histories<const WRITE: usize, const ERASE: usize>(
    len: usize,
    area: &Range<u32>,
    seeds: Range<u64>,
) -> Sum {
    let mut sum = Sum::default();
    for seed in seeds {
        let context = std::panic::AssertUnwindSafe(|| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut world = World::<WRITE, ERASE>::new(len, area.clone());
            for _ in 0..random.usize(1..12) {
                let online = [0, 5, 60, 150][random.usize(..4)];
                world.chip.cut_after(random.u64(..20_000), random.u64(..));
                for happening in history(random.u64(..), random.usize(1..150), online) {
                    world.happen(happening);
                }
            }
            world.drain();
            world
        });
        let world = std::panic::catch_unwind(context).unwrap_or_else(|_| panic!("with seed {seed}"));
        sum.kept += world.kept.len();
        sum.lost += world.lost.len();
        sum.cuts += world.cuts;
        sum.exhausted += world.exhausted;
    }
    sum
}

/// So that a test that tests nothing is seen.
#[derive(Debug, Default)]
struct Sum {
    kept: usize,
    lost: usize,
    cuts: u32,
    exhausted: u32,
}

#[test]
fn however_often_power_is_cut_every_number_is_accounted_for() {
    let sums = [
        long_histories::<1, 64>(8192, &(256..8192), 0..150),
        long_histories::<1, 64>(32_768, &(256..32_768), 1000..1040),
        long_histories::<4, 4096>(16_384, &(0..16_384), 2000..2100),
        long_histories::<32, 4096>(32_768, &(4096..32_768), 3000..3050),
        long_histories::<256, 4096>(32_768, &(0..32_768), 4000..4040),
    ];
    println!("{sums:#?}");
    assert!(sums.iter().all(|sum| sum.kept > 1000 && sum.cuts > 100));
    assert!(sums[0].lost > 100 && sums[2].lost > 100, "outboxes were full");
}

#[test]
fn what_rots_is_told_as_lost_and_the_rest_flows() {
    for seed in 0..1000 {
        let context = std::panic::AssertUnwindSafe(|| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut world = World::<1, 64>::new(16_384, 0..16_384);
            for happening in history(random.u64(..), 150, 0) {
                world.happen(happening);
            }
            // Somewhere in the event log, which begins after the state's pages.
            let written: Vec<usize> =
                (EVENTS_START..16_384).filter(|&at| world.chip.bytes()[at] != 0xff).collect();
            let place = written[random.usize(..written.len())];
            world.chip.flip(place, 1 << random.u8(..8));
            world.rotten = true;
            if random.bool() {
                world.power_cut();
            }
            let emitted = world.kept.len();
            world.drain();
            let gone = world.kept.keys().filter(|name| !world.stored.contains_key(name)).count();
            assert!(gone <= 1, "{gone} of {emitted} events are gone with one bit");
        });
        std::panic::catch_unwind(context).unwrap_or_else(|_| panic!("with seed {seed}"));
    }
}

/// Two pages of the state's of some 2.3 KiB.
const EVENTS_START: usize = 5 * 1024;
