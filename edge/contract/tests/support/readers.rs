//! Every reader of the contract held against the same bytes. Shared with the fuzz target.

use weir_contract::body::{self, Body, Scalar};
use weir_contract::command::Command;
use weir_contract::segment::{self, Segment};
use weir_contract::subject;
use weir_contract::time::{self, Time};
use weir_contract::topic::{self, Topic};
use weir_contract::uplink::{self, Uplink};
use weir_contract::{Malformed, Text};

/// What of the contract some bytes were read as.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadAs {
    pub uplink: bool,
    pub segment: bool,
    pub body: bool,
    pub command: bool,
    pub time: bool,
}

impl ReadAs {
    pub fn anything(self) -> bool {
        self.uplink || self.segment || self.body || self.command || self.time
    }
}

/// Reads `bytes` as everything they could be. None of it panics, refusals point into the bytes, and what is accepted
/// holds together and means the same when it is written and read again.
pub fn read(bytes: &[u8]) -> ReadAs {
    let names = core::str::from_utf8(bytes).unwrap_or("weir/1/é/events");
    read_names(names);
    ReadAs {
        uplink: accepted(bytes, Uplink::read(bytes), |uplink| check_uplink(&uplink, bytes)),
        segment: accepted(bytes, Segment::read(bytes), |segment| check_segment(&segment, bytes)),
        body: read_bodies(bytes),
        command: accepted(bytes, Command::read(bytes), |command| check_command(command, bytes)),
        time: accepted(bytes, Time::read(bytes), |time| {
            let mut buffer = [0; Time::LEN_MAX];
            let len = time.write(&mut buffer).expect("LEN_MAX is enough");
            assert_eq!(Time::read(&buffer[..len]), Ok(time));
        }),
    }
}

fn accepted<T>(bytes: &[u8], read: Result<T, Malformed>, check: impl FnOnce(T)) -> bool {
    match read {
        Ok(value) => {
            check(value);
            true
        }
        Err(Malformed { at, what }) => {
            assert!(at <= bytes.len(), "{what:?} at {at} of {}", bytes.len());
            false
        }
    }
}

fn check_uplink(uplink: &Uplink<'_>, bytes: &[u8]) {
    assert_eq!(uplink.events().count(), uplink.len(), "every event is there");
    assert!((1..=uplink::UPLINK_EVENTS_MAX).contains(&uplink.len()));
    let mut seqs = uplink.first_seq()..=uplink.last_seq();
    for event in uplink.events() {
        assert_eq!(Some(event.seq), seqs.next());
        let _ = time::wall_ms(&uplink.header, u64::from(event.seq), event.at);
        if let Ok(Some(body)) = Body::read(&event.kind, event.version, event.body) {
            check_body(&body, event.body);
        }
    }
    assert_eq!(seqs.next(), None);
    let _ = time::boot_began_ms(&uplink.header, 0);

    let mut buffer = vec![0; bytes.len()];
    let len = uplink::write(&mut buffer, &uplink.header, uplink.events()).expect("ours is the shortest");
    let again = Uplink::read(&buffer[..len]).expect("what we write, we read");
    assert_eq!(again.header, uplink.header);
    assert!(again.events().eq(uplink.events()));
}

fn check_segment(segment: &Segment<'_>, bytes: &[u8]) {
    assert_eq!(segment.entries().count() as u64, segment.head.count, "every entry is there");
    assert_eq!(segment.head.end() - segment.head.count, segment.head.first, "every uplink has a number");
    let mut again = Vec::new();
    segment::write_head(&mut again, &segment.head);
    for entry in segment.entries() {
        let (device, trace) = (&entry.device, entry.traceparent.as_deref());
        segment::write_entry(&mut again, device, entry.received_ms, trace, &entry.payload);
    }
    assert!(again.len() <= bytes.len(), "ours is the shortest");
    let again = Segment::read(&again).expect("what we write, we read");
    assert_eq!(again.head, segment.head);
    assert!(again.entries().eq(segment.entries()));
}

fn check_command(command: Command<'_>, bytes: &[u8]) {
    check_text(&command.id);
    let mut buffer = vec![0; bytes.len()];
    let len = command.write(&mut buffer).expect("ours is the shortest");
    assert_eq!(Command::read(&buffer[..len]), Ok(command));
}

fn read_bodies(bytes: &[u8]) -> bool {
    let kinds = [
        body::kind::DEVICE_STARTED,
        body::kind::READING_TAKEN,
        body::kind::LIMIT_CROSSED,
        body::kind::EVENTS_LOST,
        body::kind::COMMAND_ACCEPTED,
        body::kind::COMMAND_EXPIRED,
        body::kind::CONFIG_APPLIED,
        body::kind::DEVICE_CONNECTED,
        body::kind::DEVICE_DISCONNECTED,
        body::kind::CLOCK_STEPPED,
    ];
    let mut any = false;
    for kind in kinds {
        let kind = kind.parse().expect("a kind");
        any |= accepted(bytes, Body::read(&kind, body::VERSION, bytes), |body| {
            check_body(&body.expect("it is known"), bytes);
        });
    }
    any
}

fn check_body(body: &Body<'_>, bytes: &[u8]) {
    if let Body::ReadingTaken { value: Scalar::Text(text), .. } | Body::CommandAnswered { id: text, .. } =
        body
    {
        check_text(text);
    }
    // Ours is the shortest, but for integers that become floats: five bytes may become nine, and a body has two.
    let mut buffer = vec![0; bytes.len() + 16];
    let len = body.write(&mut buffer).expect("it fits");
    let again = Body::read(&body.kind(), body.version(), &buffer[..len]);
    let again = again.expect("what we write, we read").expect("it is known");
    assert_eq!(
        format!("{again:?}"),
        format!("{body:?}"),
        "compared as text, because NaN does not equal itself"
    );
}

fn check_text(text: &Text<'_>) {
    let whole = text.to_cow();
    assert_eq!(text.len(), whole.len());
    assert_eq!(*text, *whole);
    assert_eq!(text.to_string(), whole);
    assert_eq!(text.is_empty(), whole.is_empty());
}

fn read_names(text: &str) {
    if let Some(topic) = Topic::parse(text) {
        let device = topic.device();
        let again = match topic {
            Topic::Events(_) => topic::events(&device),
            Topic::Time(_) => topic::time(&device),
            Topic::Commands(_) => topic::commands(&device),
        };
        assert_eq!(&*again, text);
    }
    if let Some(source) = subject::parse_segments(text) {
        assert_eq!(&*subject::segments(&source), text);
    }
}
