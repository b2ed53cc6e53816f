//! What goes wrong in a round, and when. Pure: the same seed, number and length give the same plan on any machine, and
//! any round can be had again without those before it.
//!
//! Rounds lead through all kinds of faults in an order that the seed decides, so that every kind comes before one comes
//! twice. Often others strike at the same moment or a little later, and often the fault comes again while the parts
//! are still recovering from it. What strikes at one time never concerns the same part: each fault finds what it needs.

use std::time::Duration;

use fastrand::Rng;

/// What a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The gateways' processes.
    Gateways,
    /// The network between the gateways and nats-server.
    Uplink,
    /// nats-server and what it holds.
    Log,
    /// The cloud's process and its views.
    Cloud,
    /// The network between devices and gateways.
    Doors,
    /// Strangers who talk to gateways.
    Strangers,
    /// A record that is played back, beside everything else.
    Replay,
}

/// One fault in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    /// Which kind: its place in the list of kinds.
    pub kind: usize,
    /// When it begins, from the round's beginning.
    pub from: Duration,
    /// When it ends.
    pub to: Duration,
    /// What else there is to decide about it comes from this.
    pub seed: u64,
    /// The same thing has happened just before.
    pub again: bool,
}

/// No fault is under way before this part of a round, so that there is something to lose …
const BEGIN: f64 = 0.1;
/// … nor after this one, so that devices are still emitting when it is over.
const END: f64 = 0.85;
/// How often a fault comes again.
const AGAIN: f64 = 0.35;
/// How often another one strikes beside it; a third, after that, and a fourth.
const BESIDE: f64 = 0.55;
const BESIDE_MAX: usize = 3;

/// The faults of round `number` (from 1), which takes `length`, in the order they begin. `kinds` says what each kind
/// concerns.
pub fn plan(seed: u64, number: u64, length: Duration, kinds: &[&[Part]]) -> Vec<Blow> {
    if kinds.is_empty() {
        return Vec::new();
    }
    let mut rng = Rng::with_seed(mix(seed, number));
    let at = |share: f64| length.mul_f64(share);
    let between = |rng: &mut Rng, least: f64, most: f64| least + rng.f64() * (most - least);
    let lead = lead(seed, number, kinds.len());
    let from = between(&mut rng, BEGIN, 0.3);
    let to = from + between(&mut rng, 0.03, 0.35);
    let first = Blow { kind: lead, from: at(from), to: at(to), seed: rng.u64(..), again: false };
    let mut blows = vec![first];
    let mut last_to = to;
    while rng.f64() < AGAIN && blows.len() < 3 {
        let from = last_to + between(&mut rng, 0.005, 0.08);
        let to = from + between(&mut rng, 0.02, 0.1);
        if to > END {
            break;
        }
        blows.push(Blow { from: at(from), to: at(to), again: true, ..first });
        last_to = to;
    }
    let mut concerned = kinds[lead].to_vec();
    for _ in 0..BESIDE_MAX {
        let free: Vec<usize> = (0..kinds.len())
            .filter(|&kind| kinds[kind].iter().all(|part| !concerned.contains(part)))
            .collect();
        if free.is_empty() || rng.f64() >= BESIDE {
            break;
        }
        let kind = free[rng.usize(..free.len())];
        concerned.extend(kinds[kind]);
        let at_once = rng.bool();
        let from = if at_once { from + between(&mut rng, 0.0, 0.02) } else { between(&mut rng, BEGIN, 0.6) };
        let to = from + between(&mut rng, 0.03, 0.25);
        blows.push(Blow { kind, from: at(from), to: at(to), seed: rng.u64(..), again: false });
    }
    blows.sort_by_key(|blow| blow.from);
    blows
}

/// The kind that a round is about: of every `kinds` rounds in a row, beginning with the first, each another one.
fn lead(seed: u64, number: u64, kinds: usize) -> usize {
    let turns = kinds as u64;
    let (cycle, turn) = (number.saturating_sub(1) / turns, number.saturating_sub(1) % turns);
    let mut order: Vec<usize> = (0..kinds).collect();
    Rng::with_seed(mix(seed, u64::MAX - cycle)).shuffle(&mut order);
    order.into_iter().nth(usize::try_from(turn).unwrap_or_default()).unwrap_or_default()
}

/// A seed for each number of a seed, no two alike (the finalizer of SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(6);
    const KINDS: [&[Part]; 9] = [
        &[Part::Gateways],
        &[Part::Log],
        &[Part::Log],
        &[Part::Cloud],
        &[Part::Uplink],
        &[Part::Uplink],
        &[Part::Doors],
        &[Part::Strangers],
        &[Part::Log, Part::Cloud],
    ];

    fn each_plan(mut check: impl FnMut(&str, Vec<Blow>)) {
        let seed = fastrand::u64(..);
        for number in 1..=5_000 {
            check(&format!("seed {seed}, round {number}"), plan(seed, number, LENGTH, &KINDS));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_one_another() {
        let seed = fastrand::u64(..);
        let rounds = |seed, from| (from..=300).map(|n| plan(seed, n, LENGTH, &KINDS)).collect::<Vec<_>>();
        assert_eq!(rounds(seed, 1), rounds(seed, 1), "seed {seed}");
        assert_eq!(
            rounds(seed, 1)[99..],
            rounds(seed, 100),
            "seed {seed}: a late round needs no earlier one"
        );
        assert_ne!(rounds(seed, 1), rounds(seed ^ 1, 1), "seed {seed}");
        let known = plan(42, 1, LENGTH, &KINDS);
        let told: Vec<_> =
            known.iter().map(|blow| (blow.kind, blow.from.as_millis(), blow.to.as_millis())).collect();
        assert_eq!(told, KNOWN, "a seed that somebody has noted means something else now");
    }

    /// Round 1 of seed 42.
    const KNOWN: [(usize, u128, u128); 3] = [(8, 1_634, 3_079), (0, 1_640, 3_122), (7, 1_725, 2_041)];

    #[test]
    fn every_kind_leads_before_one_leads_twice() {
        let seed = fastrand::u64(..);
        for cycle in 0..50 {
            let mut leads: Vec<usize> = (1..=9).map(|turn| lead(seed, cycle * 9 + turn, 9)).collect();
            leads.sort_unstable();
            assert_eq!(leads, (0..9).collect::<Vec<_>>(), "seed {seed}, cycle {cycle}");
        }
    }

    #[test]
    fn devices_emit_before_and_after_every_fault() {
        each_plan(|which, blows| {
            assert!(!blows.is_empty(), "{which}");
            assert!(blows.is_sorted_by_key(|blow| blow.from), "{which}: {blows:?}");
            for blow in &blows {
                assert!(blow.from >= LENGTH.mul_f64(BEGIN) && blow.from < blow.to, "{which}: {blow:?}");
                assert!(blow.to <= LENGTH.mul_f64(END) + Duration::from_nanos(1), "{which}: {blow:?}");
            }
        });
    }

    #[test]
    fn what_strikes_at_one_time_concerns_different_parts() {
        each_plan(|which, blows| {
            for (place, one) in blows.iter().enumerate() {
                for other in &blows[place + 1..] {
                    let meet = one.from < other.to && other.from < one.to;
                    let share = KINDS[one.kind].iter().any(|part| KINDS[other.kind].contains(part));
                    assert!(!(meet && share), "{which}: {one:?} and {other:?}");
                }
            }
        });
    }

    #[test]
    fn faults_come_alone_together_and_again() {
        let (mut alone, mut together, mut again) = (0, 0, 0);
        each_plan(|_, blows| {
            alone += u32::from(blows.len() == 1);
            together += u32::from(blows.iter().any(|blow| blow.kind != blows[0].kind));
            again += u32::from(blows.iter().any(|blow| blow.again));
        });
        assert!(alone > 1_000 && together > 1_500 && again > 1_000, "{alone} {together} {again}");
    }

    #[test]
    fn one_kind_only_is_a_plan_too() {
        let only = plan(7, 3, LENGTH, &KINDS[..1]);
        assert!(!only.is_empty() && only.iter().all(|blow| blow.kind == 0));
        assert!(plan(7, 3, LENGTH, &[]).is_empty());
    }
}
