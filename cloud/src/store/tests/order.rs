//! In whatever order a history arrives, late, doubled, with holes, through several gateways and in transactions of any size,
//! the store ends the same; and its states of the past are what a plain fold of the sorted history says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::projection::beginning::{Beginning, in_order};
use crate::store::types::{BootAccount, DeviceState, Value};

const DEVICES: [&str; 2] = ["d-0", "d-1"];
const SENSORS: [&str; 3] = ["t", "u", "v"];

/// An uplink, the gateway it came through, and in plain words what is in it.
#[derive(Debug, Clone)]
struct Sent {
    gateway: &'static str,
    header: Header,
    entry: Entry,
    /// Seq, wall time, sensor, value.
    readings: Vec<(u32, u64, &'static str, i64)>,
}

/// A device's life: some boots, of some of which the time is only known by the gateways or by the next boot.
fn history(rng: &mut fastrand::Rng) -> Vec<Sent> {
    let mut all = Vec::new();
    for device in DEVICES {
        let mut began_ms = T0 + rng.u64(0..10_000);
        let boots: Vec<u64> = (0..rng.u64(1..5)).map(|_| rng.u64(..)).collect();
        for (i, &boot) in boots.iter().enumerate() {
            let mut at = 0;
            let mut seq = 1;
            let clock = rng.u8(0..3);
            for _ in 0..rng.u32(1..12) {
                let count = rng.u32(1..6);
                let sent_at = at + 1_000 * u64::from(count);
                let received_ms = began_ms + sent_at + rng.u64(0..3_000);
                // Now and then a device is told a wrong time, and later a right one.
                let error_ms = if rng.u8(0..4) == 0 { rng.u64(0..20_000) } else { 0 };
                let header = match clock {
                    0 => Header { boot, now: Some(sent_at), epoch: Some(began_ms - error_ms), via: None },
                    1 => Header { boot, now: Some(sent_at), epoch: None, via: None },
                    _ => Header { boot, now: None, epoch: None, via: boots.get(i + 1).copied() },
                };
                let readings: Vec<_> = (0..count)
                    .map(|k| {
                        (
                            seq + k,
                            at + 1_000 * u64::from(k),
                            *rng.choice(&SENSORS).expect("some"),
                            rng.i64(..),
                        )
                    })
                    .collect();
                all.push(sent(rng, device, header, received_ms, &readings));
                seq += count;
                at = sent_at;
            }
            if rng.bool() {
                let from = rng.u32(1..=seq);
                let lost = Body::EventsLost {
                    device: None,
                    boot,
                    from,
                    to: seq + rng.u32(0..3),
                    reason: Text::from("x"),
                };
                let header = Header { boot: boot ^ 1, now: None, epoch: Some(began_ms + at), via: None };
                let entry = entry(device, began_ms + at, header, 1, &[(0, lost)]);
                all.push(Sent { gateway: "gw-a", header, entry, readings: vec![] });
            }
            began_ms += at + rng.u64(5_000..60_000);
        }
    }
    all
}

fn sent(
    rng: &mut fastrand::Rng,
    device: &str,
    header: Header,
    received_ms: u64,
    readings: &[(u32, u64, &'static str, i64)],
) -> Sent {
    let bodies: Vec<_> =
        readings.iter().map(|&(_, at, sensor, value)| (at, reading(sensor, value))).collect();
    let wall = |at| weir_contract::time::wall_ms(&header, received_ms, at).0;
    Sent {
        gateway: if rng.bool() { "gw-a" } else { "gw-b" },
        header,
        entry: entry(device, received_ms, header, readings[0].0, &bodies),
        readings: readings.iter().map(|&(seq, at, sensor, value)| (seq, wall(at), sensor, value)).collect(),
    }
}

/// Folds in the order given, in segments and transactions of any size, opening the store anew now and then.
fn folded(rng: &mut fastrand::Rng, arrivals: &[Sent]) -> Fixture {
    let mut fixture = Fixture::new();
    let mut numbers = BTreeMap::from([("gw-a", 1), ("gw-b", 1)]);
    let mut waiting = Vec::new();
    let mut rest = arrivals;
    for sequence in 1.. {
        let gateway = match rest.first() {
            Some(first) => first.gateway,
            None => break,
        };
        let of_gateway = rest.iter().take_while(|sent| sent.gateway == gateway).count();
        let (now, later) = rest.split_at(rng.usize(1..=of_gateway));
        rest = later;
        let entries: Vec<Entry> = now.iter().map(|sent| sent.entry.clone()).collect();
        let number = numbers.get_mut(gateway).expect("both are there");
        waiting.push(segment(sequence, gateway, *number, &entries));
        *number += entries.len() as u64;
        if rng.u8(0..3) == 0 || rest.is_empty() {
            fixture.fold(&waiting);
            waiting.clear();
            if rng.u8(0..8) == 0 {
                fixture = fixture.reopened();
            }
        }
    }
    fixture
}

/// Everything a reader sees that does not tell in which order, and by which of several ways, it came.
#[derive(Debug, PartialEq)]
struct Seen {
    now: Vec<Option<DeviceState>>,
    then: Vec<Option<DeviceState>>,
    boots: Vec<Option<Vec<BootAccount>>>,
    events: Vec<(Id, u64, u64, u32, Vec<u8>)>,
}

fn seen(fixture: &Fixture, at_ms: u64) -> Seen {
    let reader = fixture.reader();
    let mut events = Vec::new();
    for device in DEVICES {
        let history = fixture.history(device);
        events.extend(
            history.into_iter().map(|event| (event.device, event.at_ms, event.boot, event.seq, event.body)),
        );
    }
    let then = |device: &&str| {
        let state = reader.state(&id(device), Some(at_ms)).expect("reads");
        // Of an uplink that came by two ways, the first to arrive is told.
        state.map(|state| DeviceState { heard: None, last_received_at_ms: None, ..state })
    };
    Seen {
        now: DEVICES.iter().map(|device| reader.state(&id(device), None).expect("reads")).collect(),
        then: DEVICES.iter().map(then).collect(),
        boots: DEVICES.iter().map(|device| reader.boots(&id(device)).expect("reads")).collect(),
        events,
    }
}

/// A reading: seq, wall time, sensor, value.
type Plain = (u32, u64, &'static str, i64);

/// The readings of a device that `arrivals` hold, once each, in the device's order, with their boots.
fn plain_history(arrivals: &[Sent], device: &str) -> Vec<(u64, Plain)> {
    let of_device = || arrivals.iter().filter(|sent| sent.entry.device == *device);
    let mut beginnings: BTreeMap<u64, Beginning> = BTreeMap::new();
    for sent in of_device() {
        let last_seq = sent.readings.last().map_or(1, |(seq, ..)| *seq);
        let beginning = beginnings.entry(sent.header.boot).or_default();
        beginning.learn(&sent.header, last_seq, sent.entry.received_ms);
    }
    let order = in_order(beginnings.iter().map(|(&boot, beginning)| (boot, beginning)));
    let rank = |boot| order.iter().position(|&known| known == boot);
    let of_boot =
        |sent: &Sent| sent.readings.iter().map(|&reading| (sent.header.boot, reading)).collect::<Vec<_>>();
    let mut events: Vec<_> = of_device().flat_map(of_boot).collect();
    events.sort_unstable_by_key(|&(boot, (seq, ..))| (rank(boot), seq));
    events.dedup_by_key(|&mut (boot, (seq, ..))| (boot, seq));
    events
}

/// The latest value of each sensor, by folding the events up to `at_ms` one after the other, in their order.
fn plain_fold(arrivals: &[Sent], device: &str, at_ms: u64) -> BTreeMap<Id, i64> {
    let events = plain_history(arrivals, device).into_iter().map(|(_, reading)| reading);
    events.filter(|(_, at, ..)| *at <= at_ms).map(|(_, _, sensor, value)| (id(sensor), value)).collect()
}

/// History between two times, read in pages of `limit`, as boots and numbers.
fn paged(fixture: &Fixture, query: &EventQuery) -> Vec<(u64, u32)> {
    let mut seen = Vec::new();
    let mut query = query.clone();
    loop {
        let page = fixture.reader().events(&query).expect("reads").unwrap_or_default();
        seen.extend(
            page.events
                .iter()
                .filter(|event| &*event.kind == "reading-taken")
                .map(|event| (event.boot, event.seq)),
        );
        query.after = page.next;
        if query.after.is_none() {
            return seen;
        }
    }
}

fn values(state: &DeviceState) -> BTreeMap<Id, i64> {
    let value = |reading: &crate::store::types::Reading| match reading.value {
        Value::Int(int) => int,
        ref other => panic!("{other:?} was never sent"),
    };
    state.sensors.iter().filter_map(|(name, sensor)| Some((*name, value(sensor.reading.as_ref()?)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_arrival_ends_in_the_same_store(seed in any::<u64>()) {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let mut arrivals = history(rng);
        // Some never arrive, some twice, and of a device that knows the time also by another gateway, later.
        arrivals.retain(|_| rng.u8(0..8) > 0);
        for i in 0..arrivals.len() {
            if rng.u8(0..4) == 0 {
                let mut again = arrivals[i].clone();
                if again.header.epoch.is_some() {
                    again.gateway = "gw-b";
                    again.entry.received_ms += 60_000;
                }
                arrivals.push(again);
            }
        }
        let at_ms = T0 + rng.u64(0..300_000);
        let sorted = seen(&folded(rng, &arrivals), at_ms);
        for (device, (now, then)) in DEVICES.iter().zip(sorted.now.iter().zip(&sorted.then)) {
            for (state, at_ms) in [(now, u64::MAX), (then, at_ms)] {
                let values = state.as_ref().map(values).unwrap_or_default();
                prop_assert_eq!(values, plain_fold(&arrivals, device, at_ms));
            }
        }
        let last = folded(rng, &arrivals);
        for device in DEVICES {
            let between = (T0 + rng.u64(0..150_000), T0 + rng.u64(50_000..300_000));
            for (from_ms, to_ms) in [(None, None), (Some(between.0), Some(between.1)), (None, Some(at_ms))] {
                let chosen = from_ms.unwrap_or(0)..to_ms.unwrap_or(u64::MAX);
                let mut plain: Vec<_> = plain_history(&arrivals, device).into_iter()
                    .filter(|(_, (_, at, ..))| chosen.contains(at)).map(|(boot, (seq, ..))| (boot, seq)).collect();
                let limit = rng.usize(1..20);
                let query = EventQuery { device: id(device), from_ms, to_ms, kind: None, order: Order::Ascending, limit, body_bytes_max: rng.usize(1..1000), after: None };
                prop_assert_eq!(&paged(&last, &query), &plain);
                plain.reverse();
                prop_assert_eq!(paged(&last, &EventQuery { order: Order::Descending, ..query }), plain);
            }
        }
        for _ in 0..3 {
            rng.shuffle(&mut arrivals);
            prop_assert_eq!(&seen(&folded(rng, &arrivals), at_ms), &sorted);
        }
    }
}
