//! Numbers for the events of devices that have none of their own. Pure.
//!
//! A device that only says "21.5" has no boot and counts nothing, so the gateway does it for it: a boot is one run of the gateway,
//! a random number that no other run has, and in it every event the gateway takes from the device is 1, 2, 3 … A number is
//! given when custody takes the event, and never again: what a killed gateway had taken and not stored, it had not acknowledged
//! either; it comes again, to a new boot, with numbers of that boot.

use std::collections::HashMap;

use weir_contract::cbor::Writer;
use weir_contract::uplink::{self, EVENT_OVERHEAD_MAX, Event, HEADER_LEN_MAX, Header, UPLINK_LEN_MAX};
use weir_contract::{Id, body};

use super::map::{EVENTS_MAX, Readings, Value, value};
use crate::intake::SeqRun;

/// Devices in each of two generations. One that comes back after that many others begins a new boot.
pub const DEVICES_MAX: usize = 8 * 1024;

/// How long before its first event a boot is said to have begun: a message that waited at the broker for less has its own time.
/// All boots say the same, so their order stays right.
pub const LOOK_BACK_MS: u64 = 31 * 24 * 3600 * 1000;

/// A reading: names, unit and text, keys and heads.
const BODY_BYTES_MAX: usize = 64 + 2 * 32 + value::TEXT_BYTES_MAX;
const UPLINK_BYTES_MAX: usize = HEADER_LEN_MAX + EVENTS_MAX * (EVENT_OVERHEAD_MAX + BODY_BYTES_MAX);
const _: () = assert!(UPLINK_BYTES_MAX <= UPLINK_LEN_MAX, "the longest message makes an uplink");

/// Where a device is in its counting.
#[derive(Debug, Clone, Copy)]
struct Place {
    boot: u64,
    next: u32,
    /// The boot's zero, by the clock that only goes forward.
    zero_ms: u64,
}

/// The numbers of all devices.
#[derive(Debug, Default)]
pub struct Numbers {
    recent: HashMap<Id, Place>,
    older: HashMap<Id, Place>,
}

/// When a message is received.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Milliseconds on a clock that only goes forward, from [`LOOK_BACK_MS`] at the start of the process.
    pub elapsed_ms: u64,
    /// Unix milliseconds, if that is known.
    pub unix_ms: Option<u64>,
    /// Whether the broker says that it has sent this before.
    pub again: bool,
}

impl Numbers {
    /// The readings as an uplink, under the device's next numbers. They are given only with [`Self::given`]. `random` is the boot,
    /// if the device begins one.
    pub fn write(&mut self, readings: &Readings<'_>, received: Received, random: u64) -> (Vec<u8>, SeqRun) {
        let count = u32::try_from(readings.readings.len()).unwrap_or(u32::MAX);
        let place = self.place(readings.device, received, random, count);
        let now = received.elapsed_ms.saturating_sub(place.zero_ms);
        let epoch = received.unix_ms.map(|unix_ms| unix_ms.saturating_sub(now));
        // By the message's own clock, if it can be said so; else by the gateway's, if it is set.
        let by_device = epoch.zip(readings.at_ms).and_then(|(epoch, at_ms)| at_ms.checked_sub(epoch));
        let header = Header {
            boot: place.boot,
            now: received.unix_ms.map(|_| now),
            epoch: epoch.filter(|_| by_device.is_some()),
            via: None,
        };
        let kind = body::kind::READING_TAKEN.parse().expect("it is a kind");
        let at = by_device.unwrap_or(now);
        let bodies: Vec<Vec<u8>> =
            readings.readings.iter().map(|reading| write_body(reading, received.again)).collect();
        let events = (place.next..).zip(&bodies);
        let events: Vec<Event<'_>> =
            events.map(|(seq, body)| Event { seq, at, kind, version: body::VERSION, body }).collect();
        let mut payload = vec![
            0;
            HEADER_LEN_MAX
                + bodies.iter().map(|body| body.len() + EVENT_OVERHEAD_MAX).sum::<usize>()
        ];
        let len = uplink::write(&mut payload, &header, events.iter().copied());
        payload.truncate(len.expect("the buffer is as long as that many events can be"));
        (payload, SeqRun { boot: place.boot, first: place.next, last: place.next + (count - 1) })
    }

    /// Custody has taken these.
    pub fn given(&mut self, device: &Id, run: SeqRun) {
        if let Some(place) = self.recent.get_mut(device).filter(|place| place.boot == run.boot) {
            place.next = run.last.saturating_add(1);
        }
    }

    /// Where a device is; it begins a boot if it is new, or if so many numbers are not left.
    fn place(&mut self, device: Id, received: Received, random: u64, count: u32) -> Place {
        let old = self.older.remove(&device).or_else(|| self.recent.get(&device).copied());
        let place = old.filter(|place| place.next.checked_add(count).is_some()).unwrap_or(Place {
            boot: random,
            next: 1,
            zero_ms: received.elapsed_ms.saturating_sub(LOOK_BACK_MS),
        });
        if self.recent.len() >= DEVICES_MAX && !self.recent.contains_key(&device) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(device, place);
        place
    }
}

/// As the contract's reading, and `again: true` where the broker says that it has sent the message before.
fn write_body(reading: &super::map::Reading<'_>, again: bool) -> Vec<u8> {
    let mut buffer = vec![0; BODY_BYTES_MAX];
    let mut w = Writer::new(&mut buffer);
    w.map(2 + usize::from(reading.unit.is_some()) + usize::from(again));
    w.str("sensor").str(&reading.sensor).str("value");
    match &reading.value {
        Value::Int(value) => w.i64(*value),
        Value::Float(value) => w.float(*value),
        Value::Bool(value) => w.bool(*value),
        Value::Text(value) => w.str(value),
    };
    if let Some(unit) = reading.unit {
        w.str("unit").str(unit);
    }
    if again {
        w.str("again").bool(true);
    }
    let len = w.end().expect("names, units and texts are bounded so that it fits");
    buffer.truncate(len);
    buffer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_contract::body::{Body, Scalar};
    use weir_contract::time::{Clock, wall_ms};
    use weir_contract::uplink::Uplink;

    use super::*;
    use crate::intake;
    use crate::source::map::Reading;

    const UNIX_MS: u64 = 1_800_000_000_000;

    fn readings(device: &str, values: &[Value], at_ms: Option<u64>) -> Readings<'static> {
        let reading = |(index, value): (usize, &Value)| Reading {
            sensor: format!("s{index}").parse().unwrap(),
            value: value.clone(),
            unit: Some("Cel"),
        };
        let readings = values.iter().enumerate().map(reading).collect();
        Readings { device: device.parse().unwrap(), at_ms, readings, problems: Vec::new(), rule: "r" }
    }

    fn received(after_ms: u64, unix_ms: Option<u64>) -> Received {
        Received { elapsed_ms: LOOK_BACK_MS + after_ms, unix_ms, again: false }
    }

    #[test]
    fn readings_become_an_uplink_of_the_contract() {
        let values = [Value::Int(-5), Value::Float(21.57), Value::Bool(true), Value::Text("on".into())];
        let mut numbers = Numbers::default();
        let again = Received { again: true, ..received(0, Some(UNIX_MS)) };
        let (payload, run) = numbers.write(&readings("d", &values, None), again, 7);
        assert_eq!(intake::read(&payload), Ok(run));
        assert_eq!(run, SeqRun { boot: 7, first: 1, last: 4 });
        let scalars = [Scalar::Int(-5), Scalar::Float(21.57), Scalar::Bool(true), Scalar::Text("on".into())];
        for (event, scalar) in Uplink::read(&payload).unwrap().events().zip(scalars) {
            let body = Body::read(&event.kind, event.version, event.body).unwrap().unwrap();
            assert!(matches!(body, Body::ReadingTaken { value, unit: Some(_), .. } if value == scalar));
            assert!(event.body.ends_with(b"\x65again\xf5"), "that it may have come before is said");
        }
    }

    #[test]
    fn a_number_is_given_once_and_none_is_left_out() {
        let mut numbers = Numbers::default();
        let mut seen = BTreeSet::new();
        for (random, device) in [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "b")] {
            let message = readings(device, &[Value::Int(1), Value::Int(2)], None);
            let (_, refused) = numbers.write(&message, received(0, None), random);
            let (_, run) = numbers.write(&message, received(0, None), random + 100);
            assert_eq!(refused, run, "what custody has not taken has used up nothing");
            numbers.given(&message.device, run);
            assert!((run.first..=run.last).all(|seq| seen.insert((run.boot, seq))));
        }
        assert_eq!(seen, (1..=6).map(|seq| (1, seq)).chain((1..=4).map(|seq| (2, seq))).collect());
    }

    #[test]
    fn a_device_that_was_forgotten_or_has_used_up_its_numbers_begins_a_new_boot() {
        let mut numbers = Numbers::default();
        let take = |numbers: &mut Numbers, device: &str, random| {
            let message = readings(device, &[Value::Int(1)], None);
            let (_, run) = numbers.write(&message, received(0, None), random);
            numbers.given(&message.device, run);
            run
        };
        take(&mut numbers, "first", 1);
        for other in 0..2 * DEVICES_MAX {
            take(&mut numbers, &format!("d{other}"), 2);
        }
        assert!(numbers.recent.len() + numbers.older.len() <= 2 * DEVICES_MAX);
        assert_eq!(take(&mut numbers, "first", 3), SeqRun { boot: 3, first: 1, last: 1 });
        let device = "first".parse().unwrap();
        numbers.given(&device, SeqRun { boot: 3, first: 2, last: u32::MAX - 1 });
        assert_eq!(take(&mut numbers, "first", 4), SeqRun { boot: 4, first: 1, last: 1 });
    }

    #[test]
    fn the_time_is_the_messages_own_or_that_of_its_receipt_and_it_is_said_which() {
        let mut numbers = Numbers::default();
        let mut time = |at_ms, unix_ms: Option<u64>| {
            let (payload, run) =
                numbers.write(&readings("d", &[Value::Int(1)], at_ms), received(5_000, unix_ms), 1);
            numbers.given(&"d".parse().unwrap(), run);
            let uplink = Uplink::read(&payload).unwrap();
            let at = uplink.events().next().unwrap().at;
            wall_ms(&uplink.header, unix_ms.unwrap_or(60_000), at)
        };
        assert_eq!(time(None, Some(UNIX_MS)), (UNIX_MS, Clock::Gateway));
        assert_eq!(time(Some(UNIX_MS - 3_600_000), Some(UNIX_MS)), (UNIX_MS - 3_600_000, Clock::Device));
        assert_eq!(time(Some(UNIX_MS + 500), Some(UNIX_MS)), (UNIX_MS + 500, Clock::Device));
        assert_eq!(
            time(Some(UNIX_MS - 2 * LOOK_BACK_MS), Some(UNIX_MS)),
            (UNIX_MS, Clock::Gateway),
            "too old to be said"
        );
        assert_eq!(time(None, None), (60_000, Clock::Unknown), "the gateway's clock is not set");
    }

    #[test]
    fn the_largest_message_is_an_uplink() {
        let values = vec![Value::Text("x".repeat(value::TEXT_BYTES_MAX).into()); EVENTS_MAX];
        let mut message = readings("d", &values, None);
        for (index, reading) in message.readings.iter_mut().enumerate() {
            (reading.sensor, reading.unit) =
                (format!("{index:032}").parse().unwrap(), Some("12345678901234567890123456789012"));
        }
        let again = Received { elapsed_ms: u64::MAX, unix_ms: Some(u64::MAX), again: true };
        let (payload, run) = Numbers::default().write(&message, again, u64::MAX);
        assert_eq!(intake::read(&payload), Ok(run));
    }
}
