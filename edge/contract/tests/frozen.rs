//! What the frozen bytes mean, in so many words.

use std::collections::BTreeSet;

use weir_contract::body::{self, Body, Outcome, Scalar};
use weir_contract::command::Command;
use weir_contract::segment::{self, Entry, Head, Segment};
use weir_contract::time::Time;
use weir_contract::uplink::{self, Event, Header, Uplink};
use weir_contract::{Id, Kind};

use crate::support::{cbor, corpus, value};

const BOOT: u64 = 0x0123_4567_89ab_cdef;
const BOOT_BEFORE: u64 = 0xfedc_ba98_7654_3210;
const TRACEPARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// `{"sensor": "temp", "value": 21.5, "unit": "Cel"}`
const READING: &[u8] = b"\xa3\x66sensor\x64temp\x65value\xf9\x4d\x60\x64unit\x63Cel";
/// `{}`
const EMPTY: &[u8] = b"\xa0";
/// `null`
const NULL: &[u8] = b"\xf6";

fn id(text: &str) -> Id {
    text.parse().expect("an id")
}

fn kind(text: &str) -> Kind {
    text.parse().expect("a kind")
}

#[rustfmt::skip] // a table
fn bodies() -> Vec<(&'static str, Body<'static>)> {
    let reading = |sensor, value| Body::ReadingTaken { sensor: id(sensor), value, unit: None };
    let reading_in = |unit: &'static str, sensor, value| Body::ReadingTaken { sensor: id(sensor), value, unit: Some(unit.into()) };
    let int = |value| reading("n", Scalar::Int(value));
    let float = |value| reading("x", Scalar::Float(value));
    let started = |fw: &'static str, hw: &'static str, reason: &'static str| Body::DeviceStarted { fw: fw.into(), hw: hw.into(), reason: reason.into() };
    let crossed = |sensor, value, limit, rising| Body::LimitCrossed { sensor: id(sensor), value, limit, rising };
    let lost = |device: Option<&str>, boot, from, to, reason: &'static str| Body::EventsLost { device: device.map(id), boot, from, to, reason: reason.into() };
    let answered = |outcome, id: &'static str, reason: Option<&'static str>, result| Body::CommandAnswered { outcome, id: id.into(), reason: reason.map(Into::into), result };
    vec![
        ("device-started/power-on", started("1.4.2", "lm3s6965evb", "power-on")),
        ("device-started/empty-texts", started("", "", "")),

        ("reading-taken/half", reading_in("Cel", "temp", Scalar::Float(21.5))),
        ("reading-taken/single", reading_in("Pa", "pressure", Scalar::Float(100_000.5))),
        ("reading-taken/double", reading("ph", Scalar::Float(0.1))),
        ("reading-taken/negative-zero", float(-0.0)),
        ("reading-taken/half-smallest", float(5.960_464_477_539_063e-8)),
        ("reading-taken/half-largest", float(65_504.0)),
        ("reading-taken/single-above-half", float(65_505.0)),
        ("reading-taken/single-smallest", float(f64::from(f32::from_bits(1)))),
        ("reading-taken/double-largest", float(f64::MAX)),
        ("reading-taken/infinite", float(f64::NEG_INFINITY)),
        ("reading-taken/int-0", int(0)),
        ("reading-taken/int-23", int(23)),
        ("reading-taken/int-24", int(24)),
        ("reading-taken/int-255", int(255)),
        ("reading-taken/int-256", int(256)),
        ("reading-taken/int-65535", int(65_535)),
        ("reading-taken/int-65536", int(65_536)),
        ("reading-taken/int-u32-max", int(4_294_967_295)),
        ("reading-taken/int-above-u32-max", int(4_294_967_296)),
        ("reading-taken/int-max", int(i64::MAX)),
        ("reading-taken/int-minus-1", int(-1)),
        ("reading-taken/int-minus-24", int(-24)),
        ("reading-taken/int-minus-25", int(-25)),
        ("reading-taken/int-minus-256", int(-256)),
        ("reading-taken/int-minus-257", int(-257)),
        ("reading-taken/int-min", int(i64::MIN)),
        ("reading-taken/true", reading("door", Scalar::Bool(true))),
        ("reading-taken/false", reading("door", Scalar::Bool(false))),
        ("reading-taken/text", reading("mode", Scalar::Text("größer – ≈ 🌡".into()))),
        ("reading-taken/sensor-32", reading("ABCDEFGHIJKLMNOPQRSTUVWXYZ_-0189", Scalar::Int(1))),

        ("limit-crossed/rising", crossed("temp", 30.25, 30.0, true)),
        ("limit-crossed/falling", crossed("level-2", -0.300_000_000_000_000_04, -0.3, false)),
        ("limit-crossed/whole", crossed("temp", 31.0, -30.0, true)),

        ("events-lost/of-a-device", lost(None, BOOT, 4711, 4999, "outbox-full")),
        ("events-lost/of-a-gateway", lost(Some("pump-7"), u64::MAX, 1, u32::MAX, "spool-full")),
        ("events-lost/one", lost(None, 0, 1, 1, "flash-worn")),

        ("command-accepted/plain", answered(Outcome::Accepted, "c-1", None, None)),
        ("command-completed/with-result", answered(Outcome::Completed, "0197a1f0-6f7b-7cc2-9e1c-2f6f3f1c0a55", None,
            // {"opened": true, "positions": [0, 90]}
            Some(b"\xa2\x66opened\xf5\x69positions\x82\x00\x18\x5a"))),
        ("command-completed/null-result", answered(Outcome::Completed, "c-2", None, Some(NULL))),
        ("command-failed/with-reason", answered(Outcome::Failed, "c-3", Some("valve is stuck"), None)),
        // [1, 2.5, h'03']
        ("command-failed/with-both", answered(Outcome::Failed, "c-4", Some("half done"), Some(b"\x83\x01\xf9\x41\x00\x41\x03"))),
        ("command-expired/by-gateway", Body::CommandExpired { device: id("pump-7"), id: "c-5".into() }),

        ("command-refused/too-many", Body::CommandRefused { device: id("pump-7"), id: Some("c-6".into()), reason: "too many".into() }),
        ("command-refused/unreadable", Body::CommandRefused { device: id("pump-7"), id: None, reason: "malformed".into() }),

        // {"period_ms": 1000, "sensors": ["temp"]}
        ("config-applied/first", Body::ConfigApplied { revision: 1, config: b"\xa2\x69period_ms\x19\x03\xe8\x67sensors\x81\x64temp" }),
        ("config-applied/none", Body::ConfigApplied { revision: u64::MAX, config: NULL }),

        ("device-connected/over-ip6", Body::DeviceConnected { device: id("pump-7"), address: "[2001:db8::7]:51234".into() }),
        ("device-disconnected/keep-alive", Body::DeviceDisconnected { device: id("pump-7"), reason: "keep-alive".into() }),
        ("clock-stepped/forwards", Body::ClockStepped { by_ms: 1_800_000 }),
        ("clock-stepped/backwards", Body::ClockStepped { by_ms: i64::MIN }),
    ]
}

const NOT_A_NUMBER: &str = "reading-taken/not-a-number";

#[test]
fn bodies_mean_what_they_did() {
    for (name, body) in bodies() {
        let bytes = corpus::bytes(name);
        assert_eq!(read_body(name, &bytes), body, "reading {name}");
        assert_eq!(written(&body), bytes, "writing {name}");
    }
}

#[test]
fn not_a_number_is_still_none() {
    // Apart from the others, because it does not equal itself.
    let bytes = corpus::bytes(NOT_A_NUMBER);
    let body = read_body(NOT_A_NUMBER, &bytes);
    assert!(
        matches!(body, Body::ReadingTaken { value: Scalar::Float(float), .. } if float.is_nan()),
        "{body:?}"
    );
    assert_eq!(written(&body), bytes);
}

#[test]
fn minus_nought_keeps_its_sign() {
    let name = "reading-taken/negative-zero";
    let Body::ReadingTaken { value: Scalar::Float(float), .. } = read_body(name, &corpus::bytes(name)) else {
        panic!("a reading")
    };
    assert!(float.is_sign_negative());
}

/// A body alone; its kind is the folder's name.
fn read_body<'a>(name: &str, bytes: &'a [u8]) -> Body<'a> {
    let rule = name.trim_start_matches("also-read/").split_once('/').expect("rule/case").0;
    Body::read(&kind(rule), body::VERSION, bytes)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .unwrap_or_else(|| panic!("{rule} is a known kind"))
}

fn written(body: &Body<'_>) -> Vec<u8> {
    let mut buffer = [0; 256];
    let len = body.write(&mut buffer).expect("it fits");
    buffer[..len].to_vec()
}

/// One event, and what stands around it.
#[rustfmt::skip] // a table
fn uplinks() -> Vec<(&'static str, Header, Vec<Event<'static>>)> {
    let header = |boot, now, epoch, via| Header { boot, now, epoch, via };
    let read = |seq| vec![Event { seq, at: 60_500, kind: kind("reading-taken"), version: 1, body: READING }];
    let event = |seq, at, name, version, body| Event { seq, at, kind: kind(name), version, body };
    vec![
        ("uplink/gateway-times", header(BOOT, Some(61_000), None, None), read(1)),
        ("uplink/device-times", header(BOOT, Some(61_000), Some(1_790_000_000_000), None), read(7)),
        ("uplink/earlier-boot", header(BOOT_BEFORE, None, Some(1_789_990_000_000), None), read(7)),
        ("uplink/earlier-boot-via", header(BOOT_BEFORE, None, None, Some(BOOT)), read(4711)),
        ("uplink/earlier-boot-epoch-via", header(BOOT_BEFORE, None, Some(1_789_990_000_000), Some(BOOT)), read(4711)),
        ("uplink/earlier-boot-bare", header(BOOT_BEFORE, None, None, None), read(4711)),
        ("uplink/smallest", header(0, Some(0), Some(0), None), vec![event(1, 0, "x", 1, EMPTY)]),
        ("uplink/widest-numbers", header(u64::MAX, None, Some(u64::MAX), Some(u64::MAX)), vec![
            event(u32::MAX, u64::MAX, "abcdefghijklmnopqrstuvwxyz-01289", 65_535, b"\xa1\x61k\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ]),
        ("uplink/widest-now", header(u64::MAX, Some(u64::MAX), Some(u64::MAX), None), vec![event(u32::MAX, u64::MAX, "z", 65_535, EMPTY)]),
        ("uplink/mixed", header(BOOT, Some(120_000), None, None), vec![
            event(41, 100_000, "device-started", 1, b"\xa3\x62fw\x651.4.2\x62hw\x6blm3s6965evb\x66reason\x68watchdog"),
            event(42, 100_250, "reading-taken", 1, READING),
            // {"sensors": ["a", "b"], "values": [1.5, -2]}
            event(43, 100_250, "reading-taken", 2, b"\xa2\x67sensors\x82\x61a\x61b\x66values\x82\xf9\x3e\x00\x21"),
            // {"by": 90, "raw": h'00ff', "when": 0("2026-11-20T12:00:00Z")}
            event(44, 100_251, "valve-turned", 1, b"\xa3\x62by\x18\x5a\x63raw\x42\x00\xff\x64when\xc0\x742026-11-20T12:00:00Z"),
            event(45, 100_250, "events-lost", 1, b"\xa4\x64boot\x1b\x01\x23\x45\x67\x89\xab\xcd\xef\x64from\x18\x1e\x62to\x18\x28\x66reason\x6boutbox-full"),
        ]),
        ("uplink/events-256", header(BOOT, Some(400_000), None, None),
            (1000..1256).map(|seq| event(seq, 300 * u64::from(seq), "tick", 1, EMPTY)).collect()),
    ]
}

#[test]
fn uplinks_mean_what_they_did() {
    for (name, header, events) in uplinks() {
        let bytes = corpus::bytes(name);
        let read = Uplink::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.header, header, "reading {name}");
        assert_eq!(read.events().collect::<Vec<_>>(), events, "reading {name}");
        assert_eq!((read.first_seq(), read.len()), (events[0].seq, events.len()), "reading {name}");
        assert_eq!(read.last_seq(), events[events.len() - 1].seq, "reading {name}");

        let mut buffer = vec![0; bytes.len()];
        let len = uplink::write(&mut buffer, &header, events.into_iter());
        assert_eq!((len, buffer), (Ok(bytes.len()), bytes), "writing {name}");
    }
}

fn segments() -> Vec<(&'static str, u64, u64, Vec<Entry<'static>>)> {
    let entry = |device, received_ms, traceparent: Option<&'static [u8]>, payload: Vec<u8>| Entry {
        device: id(device),
        received_ms,
        traceparent: traceparent.map(Into::into),
        payload: payload.into(),
    };
    let first = || corpus::bytes("uplink/gateway-times");
    let two_readings = {
        let mut events = Vec::new();
        for (seq, at, value) in [(2, 61_500, b"\xf9\x4d\x70"), (3, 61_999, b"\xf9\x4d\x80")] {
            let body = [b"\xa3\x66sensor\x64temp\x65value", &value[..], b"\x64unit\x63Cel"].concat();
            events.push((seq, at, body));
        }
        let header = Header { boot: BOOT, now: Some(62_000), epoch: None, via: None };
        let events = events.iter().map(|(seq, at, body)| Event {
            seq: *seq,
            at: *at,
            kind: kind("reading-taken"),
            version: 1,
            body,
        });
        let mut buffer = [0; 200];
        let len = uplink::write(&mut buffer, &header, events).expect("it fits");
        buffer[..len].to_vec()
    };
    vec![
        ("segment/one", BOOT_BEFORE, 1, vec![entry("pump-7", 1_790_000_000_123, None, first())]),
        (
            "segment/one-traced",
            BOOT_BEFORE,
            1,
            vec![entry("pump-7", 1_790_000_000_123, Some(TRACEPARENT), first())],
        ),
        (
            "segment/traced",
            BOOT_BEFORE,
            4711,
            vec![
                entry("pump-7", 1_790_000_000_123, Some(TRACEPARENT), first()),
                entry("AbcdefghijklmnopqrstuvwxyZ_-0123", 1_790_000_000_124, None, two_readings),
            ],
        ),
        (
            "segment/widest-numbers",
            u64::MAX,
            u64::MAX - 1,
            vec![entry("d", u64::MAX, Some(b""), corpus::bytes("uplink/smallest"))],
        ),
    ]
}

#[test]
fn segments_mean_what_they_did() {
    for (name, incarnation, first, entries) in segments() {
        let bytes = corpus::bytes(name);
        let head = Head { incarnation, first, count: entries.len() as u64 };
        let read = Segment::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.head, head, "reading {name}");
        assert_eq!(read.entries().collect::<Vec<_>>(), entries, "reading {name}");
        assert_eq!(head.end(), first + head.count);

        let mut written = Vec::new();
        segment::write_head(&mut written, &head);
        for Entry { device, received_ms, traceparent, payload } in &entries {
            segment::write_entry(&mut written, device, *received_ms, traceparent.as_deref(), payload);
        }
        assert_eq!(written, bytes, "writing {name}");
    }
}

fn commands() -> Vec<(&'static str, Command<'static>)> {
    let command = |id: &'static str, name: &'static str, deadline_ms, args| Command {
        id: id.into(),
        name: name.into(),
        deadline_ms,
        args,
    };
    vec![
        (
            "command/with-args",
            command(
                "0197a1f0-6f7b-7cc2-9e1c-2f6f3f1c0a55",
                "valve-open",
                1_790_000_060_000,
                // {"valve": 2, "percent": 62.5}
                b"\xa2\x65valve\x02\x67percent\xf9\x53\xd0",
            ),
        ),
        ("command/without-args", command("c-1", "restart", u64::MAX, NULL)),
        ("command/empty-args", command("c-1", "restart", 1_790_000_060_000, b"\x80")),
    ]
}

#[test]
fn commands_mean_what_they_did() {
    for (name, command) in commands() {
        let bytes = corpus::bytes(name);
        assert_eq!(Command::read(&bytes), Ok(command), "reading {name}");
        let mut buffer = vec![0; bytes.len()];
        assert_eq!((command.write(&mut buffer), buffer), (Ok(bytes.len()), bytes), "writing {name}");
    }
}

const TIMES: [(&str, u64); 3] =
    [("time/now", 1_790_000_000_123), ("time/zero", 0), ("time/largest", u64::MAX)];

#[test]
fn times_mean_what_they_did() {
    for (name, unix_ms) in TIMES {
        let bytes = corpus::bytes(name);
        assert_eq!(Time::read(&bytes), Ok(Time { unix_ms }), "reading {name}");
        let mut buffer = vec![0; bytes.len()];
        assert_eq!((Time { unix_ms }.write(&mut buffer), buffer), (Ok(bytes.len()), bytes), "writing {name}");
    }
}

/// What is never written by us, and what it means: the same as these.
const ALSO_READ: [(&str, &str); 11] = [
    ("command/trailing", "command/empty-args"),
    ("device-started/indefinite", "device-started/power-on"),
    ("events-lost/wide", "events-lost/of-a-device"),
    ("limit-crossed/integers", "limit-crossed/whole"),
    ("reading-taken/unknown-keys", "reading-taken/int-256"),
    ("reading-taken/wide-float", "reading-taken/half"),
    ("reading-taken/wide-int", "reading-taken/int-256"),
    ("segment/indefinite", "segment/one-traced"),
    ("time/trailing", "time/zero"),
    ("uplink/indefinite", "uplink/gateway-times"),
    ("uplink/trailing", "uplink/earlier-boot-via"),
];

#[test]
fn other_encodings_mean_the_same() {
    for (other, ours) in ALSO_READ {
        let (rule, _) = ours.split_once('/').expect("rule/case");
        let (other, ours) = (corpus::bytes(&format!("also-read/{other}")), corpus::bytes(ours));
        assert_ne!(other, ours);
        match rule {
            "uplink" => assert_same_uplinks(&other, &ours),
            "segment" => {
                let (other, ours) =
                    (Segment::read(&other).expect("read"), Segment::read(&ours).expect("read"));
                assert_eq!(other.head, ours.head);
                assert!(other.entries().eq(ours.entries()), "{other:?} {ours:?}");
            }
            "command" => assert_eq!(Command::read(&other), Command::read(&ours)),
            "time" => assert_eq!(Time::read(&other), Time::read(&ours)),
            kind => assert_eq!(read_body(&format!("{kind}/"), &other), read_body(&format!("{kind}/"), &ours)),
        }
    }
}

fn assert_same_uplinks(other: &[u8], ours: &[u8]) {
    let (other, ours) = (Uplink::read(other).expect("read"), Uplink::read(ours).expect("read"));
    assert_eq!(other.header, ours.header);
    assert_eq!(other.len(), ours.len());
    for (other, ours) in other.events().zip(ours.events()) {
        assert_eq!(Event { body: ours.body, ..other }, ours);
        assert_eq!(
            Body::read(&other.kind, other.version, other.body),
            Body::read(&ours.kind, ours.version, ours.body)
        );
    }
}

#[test]
fn every_file_is_told_the_meaning_of() {
    let told = bodies().into_iter().map(|(name, _)| name);
    let told = told.chain(uplinks().into_iter().map(|(name, ..)| name));
    let told = told.chain(segments().into_iter().map(|(name, ..)| name));
    let told = told.chain(commands().into_iter().map(|(name, _)| name));
    let told: BTreeSet<_> = told.chain(TIMES.map(|(name, _)| name)).chain([NOT_A_NUMBER]).collect();
    assert_eq!(told, corpus::names("").iter().map(String::as_str).collect());

    let told: BTreeSet<_> = ALSO_READ.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, corpus::names("also-read").iter().map(String::as_str).collect());
}

#[test]
fn every_known_kind_is_frozen() {
    let frozen: BTreeSet<_> = bodies().into_iter().map(|(_, body)| body.kind()).collect();
    for name in [
        body::kind::DEVICE_STARTED,
        body::kind::READING_TAKEN,
        body::kind::LIMIT_CROSSED,
        body::kind::EVENTS_LOST,
        body::kind::COMMAND_ACCEPTED,
        body::kind::COMMAND_COMPLETED,
        body::kind::COMMAND_FAILED,
        body::kind::COMMAND_EXPIRED,
        body::kind::CONFIG_APPLIED,
        body::kind::DEVICE_CONNECTED,
        body::kind::DEVICE_DISCONNECTED,
        body::kind::CLOCK_STEPPED,
    ] {
        assert!(frozen.contains(name), "no frozen bytes of {name}");
    }
}

#[test]
fn what_we_write_is_what_ciborium_writes() {
    // The shortest form and definite lengths, by an implementation that is not ours.
    for name in corpus::names("") {
        let bytes = corpus::bytes(&name);
        assert_eq!(cbor(&value(&bytes)), bytes, "{name}");
    }
}
