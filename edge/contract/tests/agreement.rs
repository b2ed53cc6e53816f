//! Our writer, our reader, ciborium, and writers with foreign habits mean the same by the same bytes.
//!
//! Our bytes being ciborium's also proves that they are the shortest and of definite length.

use ciborium::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use weir_contract::body::{self, Body, Scalar};
use weir_contract::command::Command;
use weir_contract::segment::{self, Entry, Head, Segment};
use weir_contract::time::Time;
use weir_contract::uplink::Uplink;

use crate::support::foreign::{self, grown_array, grown_map};
use crate::support::messages::{self, Letter, as_body, known_body, letter, opaque, same_body, wide};
use crate::support::{cbor, corpus, for_all, value};

#[test]
fn bodies_are_written_as_ciborium_writes_them_and_read_back() {
    for_all(8_000, known_body(), |(kind, value)| {
        let opaque = opaque(&value);
        let body = as_body(&kind, &value, &opaque);
        let mut buffer = [0; 1 << 14];
        let len = body.write(&mut buffer).expect("it fits");
        assert_eq!(buffer[..len], cbor(&value), "written");
        let read = Body::read(&kind, body::VERSION, &buffer[..len]);
        assert_eq!(read, Ok(Some(body)), "read");
        assert_eq!((body.kind(), body.version()), (kind, body::VERSION));
    });
}

#[test]
fn bodies_are_read_whatever_way_they_are_encoded() {
    for_all(8_000, (known_body(), any::<u64>()), |((kind, value), seed)| {
        let mut random = fastrand::Rng::with_seed(seed);
        let opaque = opaque(&value);
        let bytes = foreign::encode(&grown_map(value.clone(), &mut random), &mut random);
        let read = Body::read(&kind, body::VERSION, &bytes).expect("it is read").expect("it is known");
        assert!(same_body(&read, &as_body(&kind, &value, &opaque)), "{read:?}\nof {bytes:02x?}");
    });
}

#[test]
fn bodies_of_other_kinds_and_versions_are_none_of_ours() {
    for_all(1_000, (known_body(), 2..=u16::MAX), |((kind, value), version)| {
        let bytes = cbor(&value);
        assert_eq!(Body::read(&kind, version, &bytes), Ok(None));
        assert_eq!(Body::read(&kind, 0, &bytes), Ok(None));
        assert_eq!(Body::read(&"valve-turned".parse().expect("a kind"), 1, &bytes), Ok(None));
    });
}

#[test]
fn uplinks_are_written_as_ciborium_writes_them_and_read_back() {
    for_all(2_000, letter(), |letter| {
        let bytes = letter.bytes();
        assert_eq!(bytes, cbor(&letter.value()), "written");
        let uplink = Uplink::read(&bytes).expect("it is read");
        assert_means(&uplink, &letter);
        for (event, fact) in uplink.events().zip(&letter.events) {
            assert_eq!(event.body, cbor(&fact.body), "bodies are handed on byte for byte");
        }
    });
}

#[test]
fn uplinks_are_read_whatever_way_they_are_encoded() {
    for_all(2_000, (letter(), any::<u64>()), |(letter, seed)| {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = foreign::encode(&grown_uplink(&letter, &mut random), &mut random);
        match Uplink::read(&bytes) {
            Ok(uplink) => assert_means(&uplink, &letter),
            // Foreign habits cost length.
            Err(error) => assert!(bytes.len() > weir_contract::uplink::UPLINK_LEN_MAX, "{error}"),
        }
    });
}

/// What stands after `via` is nobody's yet; what stands in its place is `via`.
fn grown_uplink(letter: &Letter, random: &mut fastrand::Rng) -> Value {
    let Value::Array(mut items) = letter.value() else { panic!("an uplink is an array") };
    let Value::Array(events) = &mut items[3] else { panic!("events are an array") };
    *events = events.drain(..).map(|event| grown_array(event, random)).collect();
    if letter.header.via.is_some() { grown_array(Value::Array(items), random) } else { Value::Array(items) }
}

fn assert_means(uplink: &Uplink<'_>, letter: &Letter) {
    let (first, last) = (&letter.events[0], &letter.events[letter.events.len() - 1]);
    assert_eq!(uplink.header, letter.header);
    assert_eq!((uplink.first_seq(), uplink.last_seq()), (first.seq, last.seq));
    assert_eq!(uplink.len(), letter.events.len());
    assert_eq!(uplink.events().len(), letter.events.len());
    assert_eq!(uplink.events().count(), letter.events.len());
    for (event, fact) in uplink.events().zip(&letter.events) {
        assert_eq!(event, fact.borrow(event.body));
        assert_eq!(value(event.body), fact.body);
        let opaque = opaque_of(&fact.kind, &fact.body);
        if let Some(body) = Body::read(&event.kind, event.version, event.body).expect("it is read") {
            assert!(same_body(&body, &as_body(&fact.kind, &fact.body, &opaque)));
        }
    }
}

fn opaque_of(kind: &str, body: &Value) -> Vec<u8> {
    if kind.starts_with("command-") || kind == "config-applied" { opaque(body) } else { Vec::new() }
}

/// Incarnation, first number, and entries.
fn segment() -> impl Strategy<Value = (u64, u64, Vec<Entry<'static>>)> {
    let traceparent = proptest::option::of(vec(any::<u8>(), 0..=segment::TRACEPARENT_LEN_MAX));
    let payload = prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 65_500..=65_536)];
    let entry = (messages::id(), wide(), traceparent, payload).prop_map(
        |(device, received_ms, traceparent, payload)| Entry {
            device,
            received_ms,
            traceparent: traceparent.map(Into::into),
            payload: payload.into(),
        },
    );
    (wide(), wide().prop_map(|first| first.clamp(1, u64::MAX - 4)), vec(entry, 1..4))
}

fn segment_value(incarnation: u64, first: u64, entries: &[Entry<'_>]) -> Value {
    let entry = |entry: &Entry<'_>| {
        Value::Array(vec![
            entry.device.as_str().into(),
            entry.received_ms.into(),
            entry.traceparent.as_deref().map_or(Value::Null, |trace| Value::Bytes(trace.to_vec())),
            Value::Bytes(entry.payload.to_vec()),
        ])
    };
    Value::Array(vec![incarnation.into(), first.into(), Value::Array(entries.iter().map(entry).collect())])
}

#[test]
fn segments_are_written_as_ciborium_writes_them_and_read_back() {
    for_all(1_000, segment(), |(incarnation, first, entries)| {
        let head = Head { incarnation, first, count: entries.len() as u64 };
        let mut bytes = Vec::new();
        segment::write_head(&mut bytes, &head);
        let entries_start = bytes.len();
        for Entry { device, received_ms, traceparent, payload } in &entries {
            segment::write_entry(&mut bytes, device, *received_ms, traceparent.as_deref(), payload);
        }
        assert_eq!(bytes, cbor(&segment_value(incarnation, first, &entries)), "written");

        let read = Segment::read(&bytes).expect("it is read");
        assert_eq!(read.head, head);
        assert!(read.entries().eq(entries.iter().cloned()), "entries are read back");

        let mut rest = &bytes[entries_start..];
        for entry in &entries {
            let (found, len) = segment::first_entry(rest).expect("an entry");
            assert_eq!(&found, entry);
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
    });
}

#[test]
fn segments_are_read_whatever_way_they_are_encoded() {
    for_all(1_000, (segment(), any::<u64>()), |((incarnation, first, entries), seed)| {
        let mut random = fastrand::Rng::with_seed(seed);
        let Value::Array(mut items) = segment_value(incarnation, first, &entries) else {
            panic!("a segment is an array")
        };
        let Value::Array(uplinks) = &mut items[2] else { panic!("uplinks are an array") };
        *uplinks = uplinks.drain(..).map(|entry| grown_array(entry, &mut random)).collect();
        let bytes = foreign::encode(&grown_array(Value::Array(items), &mut random), &mut random);
        let read = Segment::read(&bytes).expect("it is read");
        assert_eq!(read.head, Head { incarnation, first, count: entries.len() as u64 });
        assert!(read.entries().eq(entries), "entries are read");
    });
}

#[test]
fn commands_and_times_are_written_and_read_whatever_way_they_are_encoded() {
    let command = ("\\PC{0,40}", "[a-z-]{0,40}", wide(), messages::anything());
    for_all(5_000, (command, any::<u64>()), |((id, name, deadline_ms, args), seed)| {
        let mut random = fastrand::Rng::with_seed(seed);
        let raw_args = cbor(&args);
        let command = Command { id: (*id).into(), name: (*name).into(), deadline_ms, args: &raw_args };
        let as_value =
            Value::Array(vec![id.as_str().into(), name.as_str().into(), deadline_ms.into(), args.clone()]);
        let mut buffer = [0; 1 << 14];
        let len = command.write(&mut buffer).expect("it fits");
        assert_eq!(buffer[..len], cbor(&as_value));
        assert_eq!(Command::read(&buffer[..len]), Ok(command));
        let bytes = foreign::encode(&grown_array(as_value, &mut random), &mut random);
        let read = Command::read(&bytes).expect("it is read");
        assert_eq!(Command { args: &raw_args, ..read }, command);
        assert_eq!(value(read.args), args);

        let time = Time { unix_ms: deadline_ms };
        let len = time.write(&mut buffer).expect("it fits");
        let as_value = Value::Array(vec![deadline_ms.into()]);
        assert_eq!(buffer[..len], cbor(&as_value));
        assert_eq!(Time::read(&buffer[..len]), Ok(time));
        let bytes = foreign::encode(&grown_array(as_value, &mut random), &mut random);
        assert_eq!(Time::read(&bytes), Ok(time));
    });
}

#[test]
fn not_a_number_is_kept() {
    // Apart from the others, because it does not equal itself.
    let kind = "limit-crossed".parse().expect("a kind");
    let sensor = "x".parse().expect("an id");
    let body = Body::LimitCrossed { sensor, value: f64::NAN, limit: -f64::NAN, rising: false };
    let mut buffer = [0; 100];
    let len = body.write(&mut buffer).expect("it fits");
    let Ok(Some(Body::LimitCrossed { value, limit, .. })) = Body::read(&kind, 1, &buffer[..len]) else {
        panic!("it is read as what it is")
    };
    assert!(value.is_nan() && limit.is_nan());
}

#[test]
fn readings_beyond_64_bits_signed_are_the_nearest_float() {
    let kind = "reading-taken".parse().expect("a kind");
    for (hex, float) in [
        ("1b8000000000000000", 9_223_372_036_854_775_808.0),
        ("1bffffffffffffffff", 18_446_744_073_709_551_616.0),
        ("3b8000000000000000", -9_223_372_036_854_775_808.0),
        ("3bffffffffffffffff", -18_446_744_073_709_551_616.0),
    ] {
        let bytes = corpus::hex(&format!("a26673656e736f7261786576616c7565{hex}"));
        let value = Scalar::Float(float);
        let read = Body::ReadingTaken { sensor: "x".parse().expect("an id"), value, unit: None };
        assert_eq!(Body::read(&kind, 1, &bytes), Ok(Some(read)), "{hex}");
    }
}
