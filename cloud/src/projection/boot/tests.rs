//! Given uplinks, when one more is taken, then this is known. Plain functions, no store.

use weir_contract::body::Scalar;
use weir_contract::uplink::{self, Event, Header};
use weir_contract::{Id, Text};

use super::*;
use crate::store::types::Value;

const BOOT: u64 = 7;

fn id(name: &str) -> Id {
    name.parse().expect("a name")
}

fn by(gateway: &str, received_ms: u64) -> Taken {
    Taken { device: id("d"), place: Place { site: id("plant"), gateway: id(gateway) }, received_ms }
}

/// An uplink of the boot under test, of a device that was switched on at 1,000.
fn bytes(first_seq: u32, bodies: &[Body<'_>]) -> Vec<u8> {
    let mut encoded: Vec<Vec<u8>> = Vec::new();
    for body in bodies {
        let mut buffer = vec![0; 8 * 1024];
        let len = body.write(&mut buffer).expect("fits");
        encoded.push(buffer[..len].to_vec());
    }
    let events: Vec<Event<'_>> = (first_seq..)
        .zip(bodies.iter().zip(&encoded))
        .map(|(seq, (body, bytes))| Event {
            seq,
            at: u64::from(seq),
            kind: body.kind(),
            version: 1,
            body: bytes,
        })
        .collect();
    let mut buffer = vec![0; uplink::UPLINK_LEN_MAX];
    let header = Header { boot: BOOT, now: None, epoch: Some(1_000), via: None };
    let len = uplink::write(&mut buffer, &header, events.into_iter()).expect("fits");
    buffer[..len].to_vec()
}

fn temperature(value: i64) -> Body<'static> {
    Body::ReadingTaken { sensor: id("t"), value: Scalar::Int(value), unit: None }
}

/// What is known after these uplinks, and what followed from the last one, in words.
fn taken(uplinks: &[Vec<u8>]) -> (Boot, Vec<String>) {
    let mut boot = Boot::default();
    let mut followed = Vec::new();
    for bytes in uplinks {
        let uplink = Uplink::read(bytes).expect("an uplink");
        let mut facts = Vec::new();
        boot.take(&uplink, &by("gw", 5_000), &mut facts).expect("few holes");
        followed = facts.iter().map(in_words).collect();
    }
    (boot, followed)
}

fn in_words(fact: &Fact<'_>) -> String {
    match fact {
        Fact::Event(event) => format!("event {} at {}", event.stamp.seq, event.stamp.at_ms),
        Fact::Lost { device, boot, from, to, reason, .. } => {
            format!("{device} lost {boot}/{from}-{to}: {reason}")
        }
        Fact::Said { device, said, .. } => format!("said of {device}: {said:?}"),
        Fact::Unread { seq, reason, .. } => format!("unread {seq}: {reason}"),
    }
}

fn latest(boot: &Boot) -> Option<(u32, Value)> {
    let (_, told) = boot.registers.readings.iter().next()?;
    Some((told.stamp.seq, told.what.value.clone()))
}

#[test]
fn given_nothing_when_events_arrive_then_they_are_history_and_state() {
    let (boot, followed) = taken(&[bytes(1, &[temperature(20), temperature(21)])]);
    assert_eq!(followed, ["event 1 at 1001", "event 2 at 1002"]);
    assert_eq!(latest(&boot), Some((2, Value::Int(21))));
    assert_eq!((boot.account().events, boot.span_ms), (2, Some((1_001, 1_002))));
}

#[test]
fn given_later_events_when_earlier_ones_arrive_then_state_stays_and_the_hole_closes() {
    let later = bytes(3, &[temperature(23)]);
    let (boot, _) = taken(std::slice::from_ref(&later));
    assert_eq!((boot.account().missing, boot.missing().ranges()), (2, &[(1, 2)][..]));
    let (boot, followed) = taken(&[later, bytes(1, &[temperature(1), temperature(2)])]);
    assert_eq!(followed, ["event 1 at 1001", "event 2 at 1002"]);
    assert_eq!((latest(&boot), boot.account().missing), (Some((3, Value::Int(23))), 0));
}

#[test]
fn given_events_when_an_uplink_overlaps_then_only_what_is_new_follows() {
    let (boot, followed) =
        taken(&[bytes(1, &[temperature(1), temperature(2)]), bytes(2, &[temperature(99), temperature(3)])]);
    assert_eq!(followed, ["event 3 at 1003"]);
    assert_eq!((boot.duplicates, boot.account().events), (1, 3));
}

#[test]
fn given_a_loss_in_the_ledger_when_some_of_it_turns_up_then_it_counts_as_stored() {
    let lost =
        Body::EventsLost { device: None, boot: BOOT, from: 1, to: 4, reason: Text::from("outbox-full") };
    let (mut boot, followed) = taken(&[bytes(5, &[lost])]);
    assert_eq!(followed, ["d lost 7/1-4: outbox-full", "event 5 at 1005"]);
    boot.lose(1, 4).expect("few holes");
    assert_eq!(boot.account(), Account { events: 1, lost: 4, missing: 0 });
    let late = bytes(2, &[temperature(2)]);
    boot.take(&Uplink::read(&late).expect("an uplink"), &by("gw-2", 6_000), &mut Vec::new())
        .expect("few holes");
    assert_eq!(boot.account(), Account { events: 2, lost: 3, missing: 0 });
}

#[test]
fn given_a_text_longer_than_a_state_keeps_then_it_is_history_only() {
    let words = "x".repeat(5_000);
    let body = Body::ReadingTaken { sensor: id("t"), value: Scalar::Text(Text::from(&*words)), unit: None };
    let (boot, followed) = taken(&[bytes(1, &[body])]);
    assert_eq!(
        followed,
        ["unread 1: a value of 5000 bytes is more than the 1024 a state keeps", "event 1 at 1001"]
    );
    assert_eq!((latest(&boot), boot.account().events), (None, 1));
}

#[test]
fn what_one_boot_makes_us_remember_is_bounded() {
    let mut boot = Boot::default();
    let mut take = |seq| {
        let bytes = bytes(seq, &[temperature(1)]);
        boot.take(&Uplink::read(&bytes).expect("an uplink"), &by("gw", 1), &mut Vec::new())
    };
    let most = u32::try_from(RUNS_MAX).expect("not many");
    for hole in 0..most {
        take(2 + 2 * hole).expect("room");
    }
    assert_eq!(take(10_000_000), Err(TooManyHoles));
    assert_eq!(take(3), Ok(()), "what closes a hole is always welcome");
    assert_eq!(take(10_000_000), Ok(()), "and makes room");
    assert_eq!(boot.stored.ranges().len(), RUNS_MAX);
}

#[test]
fn the_order_of_arrival_makes_no_difference() {
    let uplinks: Vec<Vec<u8>> = (0..6)
        .map(|i| bytes(1 + 3 * i, &[temperature(i64::from(i)), temperature(-1), temperature(7)]))
        .collect();
    let (expected, _) = taken(&uplinks);
    let mut shuffled = uplinks;
    let rng = &mut fastrand::Rng::with_seed(4);
    for _ in 0..100 {
        rng.shuffle(&mut shuffled);
        assert_eq!(taken(&shuffled).0, expected);
    }
}
