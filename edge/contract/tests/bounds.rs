//! The lengths that are said to be the greatest are: nothing is longer, and something is as long.

use proptest::prelude::*;
use weir_contract::body::{Body, Scalar};
use weir_contract::command::Command;
use weir_contract::segment::{self, Head, SEGMENT_LEN_MAX};
use weir_contract::subject::{self, Source};
use weir_contract::time::Time;
use weir_contract::topic::{self, TOPIC_LEN_MAX};
use weir_contract::uplink::{
    self, EVENT_OVERHEAD_MAX, Event, HEADER_LEN_MAX, Header, UPLINK_EVENTS_MAX, UPLINK_LEN_MAX, Uplink,
};
use weir_contract::{Id, NoRoom, What};

use crate::support::messages::{as_body, known_body, letter, opaque, wide};
use crate::support::{cbor, for_all};

const WIDEST: Header =
    Header { boot: u64::MAX, now: Some(u64::MAX), epoch: Some(u64::MAX), via: Some(u64::MAX) };

fn widest_id() -> Id {
    "w".repeat(Id::LEN_MAX).parse().expect("an id")
}

fn widest_event(seq: u32, body: &[u8]) -> Event<'_> {
    let kind = "w".repeat(32).parse().expect("a kind");
    Event { seq, at: u64::MAX, kind, version: u16::MAX, body }
}

#[test]
fn uplinks_are_never_longer_than_said_and_may_be_as_long() {
    for_all(2_000, letter(), |letter| {
        let said: usize =
            letter.events.iter().map(|event| EVENT_OVERHEAD_MAX + cbor(&event.body).len()).sum();
        assert!(letter.bytes().len() <= HEADER_LEN_MAX + said);
    });
    let first = u32::MAX - 255;
    let events = (first..=u32::MAX).map(|seq| widest_event(seq, b"\xa0"));
    let events = events.collect::<Vec<_>>();
    let mut buffer = vec![0; UPLINK_LEN_MAX];
    let len = uplink::write(&mut buffer, &WIDEST, events.into_iter());
    assert_eq!(len, Ok(HEADER_LEN_MAX + UPLINK_EVENTS_MAX * (EVENT_OVERHEAD_MAX + 1)));
    assert_eq!(uplink::write_event(&mut buffer, &widest_event(u32::MAX, b"")), Ok(EVENT_OVERHEAD_MAX));
}

#[test]
fn an_uplink_has_at_most_64_kib_and_256_events() {
    // {"k": h'00…'}: all of it filler.
    let with_filler = |filler: usize| {
        let len = u16::try_from(filler).expect("below 64 KiB").to_be_bytes();
        let body = [b"\xa1\x61k\x59", &len[..], &vec![0; filler][..]].concat();
        let mut buffer = vec![0; 2 * UPLINK_LEN_MAX];
        let written =
            uplink::write(&mut buffer, &WIDEST, [widest_event(1, &body)].into_iter()).expect("fits");
        buffer.truncate(written);
        buffer
    };
    let filler = UPLINK_LEN_MAX - with_filler(0).len();
    assert_eq!(with_filler(filler).len(), UPLINK_LEN_MAX);
    Uplink::read(&with_filler(filler)).expect("as long as may be");
    let refusal = Uplink::read(&with_filler(filler + 1)).expect_err("one byte too long");
    assert_eq!(refusal.what, What::TooLong { len_max: UPLINK_LEN_MAX });

    let of = |count: u32| {
        let events: Vec<_> = (1..=count).map(|seq| widest_event(seq, b"\xa0")).collect();
        let mut buffer = vec![0; UPLINK_LEN_MAX];
        let len = uplink::write(&mut buffer, &WIDEST, events.into_iter()).expect("fits");
        buffer.truncate(len);
        buffer
    };
    assert_eq!(Uplink::read(&of(256)).expect("as many as may be").len(), UPLINK_EVENTS_MAX);
    assert_eq!(Uplink::read(&of(257)).expect_err("one too many").what, What::TooManyEvents);
}

#[test]
fn entries_are_as_long_as_said() {
    let entry = |device: &Id, received_ms, traceparent: Option<&[u8]>, payload: &[u8]| {
        let mut out = Vec::new();
        segment::write_entry(&mut out, device, received_ms, traceparent, payload);
        assert_eq!(out.len(), segment::entry_len(device, received_ms, traceparent, payload));
        out.len() - payload.len()
    };
    let trace =
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=segment::TRACEPARENT_LEN_MAX));
    let payload_len = prop_oneof![0..=300_usize, 65_500..=UPLINK_LEN_MAX];
    let any_entry = (crate::support::messages::id(), wide(), trace, payload_len);
    for_all(2_000, any_entry, |(device, received_ms, trace, payload_len)| {
        let overhead = entry(&device, received_ms, trace.as_deref(), &vec![0; payload_len]);
        assert!(overhead <= segment::ENTRY_OVERHEAD_MAX);
    });
    let widest_trace = [0; segment::TRACEPARENT_LEN_MAX];
    let widest = entry(&widest_id(), u64::MAX, Some(&widest_trace), &vec![0; UPLINK_LEN_MAX]);
    assert_eq!(widest, segment::ENTRY_OVERHEAD_MAX);

    let mut out = Vec::new();
    segment::write_head(&mut out, &Head { incarnation: u64::MAX, first: u64::MAX, count: u64::MAX });
    assert_eq!(out.len(), segment::HEAD_LEN_MAX);
}

#[test]
fn the_widest_uplink_fits_into_a_segment() {
    const { assert!(segment::HEAD_LEN_MAX + segment::ENTRY_OVERHEAD_MAX + UPLINK_LEN_MAX <= SEGMENT_LEN_MAX) };
}

#[test]
fn a_segment_has_at_most_256_kib() {
    let mut bytes = vec![0; SEGMENT_LEN_MAX + 1];
    let refusal = segment::Segment::read(&bytes).expect_err("one byte too long");
    assert_eq!(refusal.what, What::TooLong { len_max: SEGMENT_LEN_MAX });
    bytes.pop();
    let refusal = segment::Segment::read(&bytes).expect_err("no segment");
    assert_eq!(refusal.what, What::Expected("a segment: an array"), "not for its length");
}

#[test]
fn topics_subjects_and_times_are_as_long_as_said() {
    let widest = widest_id();
    let source = Source { site: widest, gateway: widest, lane: widest };
    assert_eq!(subject::segments(&source).len(), subject::SUBJECT_LEN_MAX);
    assert!(subject::commands(&widest, &widest, &widest).len() <= subject::SUBJECT_LEN_MAX);
    assert_eq!(topic::commands(&widest).len(), TOPIC_LEN_MAX);
    assert!(topic::events(&widest).len() <= TOPIC_LEN_MAX);
    assert!(topic::time(&widest).len() <= TOPIC_LEN_MAX);
    assert_eq!(Time { unix_ms: u64::MAX }.write(&mut [0; 64]), Ok(Time::LEN_MAX));
}

/// `write` succeeds in a buffer of exactly the length it takes, and in none that is shorter.
fn assert_needs_its_length(write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>) {
    let mut buffer = vec![0; 1 << 14];
    let len = write(&mut buffer).expect("it fits");
    assert_eq!(write(&mut vec![0; len]), Ok(len));
    for short in 0..len {
        assert_eq!(write(&mut buffer[..short]), Err(NoRoom), "in {short} of {len} bytes");
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    for_all(200, known_body(), |(kind, value)| {
        let opaque = opaque(&value);
        let body = as_body(&kind, &value, &opaque);
        assert_needs_its_length(|buffer| body.write(buffer));
        let event = Event { seq: 1, at: 2, kind, version: 1, body: &opaque };
        assert_needs_its_length(|buffer| uplink::write_event(buffer, &event));
        assert_needs_its_length(|buffer| uplink::write(buffer, &WIDEST, [event, event].into_iter()));
    });
    let sensor = widest_id();
    for value in [Scalar::Float(0.1), Scalar::Float(1e9), Scalar::Float(1.5), Scalar::Float(f64::NAN)] {
        assert_needs_its_length(|buffer| Body::ReadingTaken { sensor, value, unit: None }.write(buffer));
    }
    let command = Command { id: "c-1".into(), name: "restart".into(), deadline_ms: 300, args: b"\x80" };
    assert_needs_its_length(|buffer| command.write(buffer));
    assert_needs_its_length(|buffer| Time { unix_ms: u64::MAX }.write(buffer));
}
