use super::*;
use crate::api::types::{Boot, Firmware, Gateway, Limit, Lost, Nats, Origin, Position, Store};

/// 2026-11-20T18:40:59.123Z
const NOW: u64 = 1_795_200_059_123;
const TEXT: Style = Style { colours: false };

fn kiln() -> Device {
    Device {
        device: "kiln-1".to_owned(),
        site: Some("hall".to_owned()),
        gateway: Some("gw-1".to_owned()),
        connected: Some(true),
        last_event_at: Some(Time(NOW - 3_000)),
        last_received_at: Some(Time(NOW - 2_000)),
        firmware: Some("1.4.0".to_owned()),
        boots: 2,
        events: 1_234_567,
        lost: 12,
        missing: 0,
    }
}

fn origin(ms: u64, seq: u32) -> Origin {
    Origin { at: Time(ms), clock: "device".to_owned(), boot: Opaque(77), seq }
}

fn kiln_state() -> State {
    let oven = Sensor {
        value: Json::Float(21.5),
        unit: Some("Cel".to_owned()),
        at: Some(Time(NOW - 3_000)),
        clock: Some("device".to_owned()),
        boot: Some(Opaque(77)),
        seq: Some(9),
        limit: Some(Limit {
            value: Json::Float(20.5),
            limit: Json::Float(20.0),
            rising: true,
            origin: origin(NOW - 60_000, 8),
        }),
    };
    State {
        device: "kiln-1".to_owned(),
        at: None,
        site: Some("hall".to_owned()),
        gateway: Some("gw-1".to_owned()),
        connected: Some(true),
        connection_changed_at: Some(Time(NOW - 600_000)),
        connection_gateway: Some("gw-1".to_owned()),
        connection_detail: Some("10.0.0.7:51234".to_owned()),
        firmware: Some(Firmware {
            fw: "1.4.0".to_owned(),
            hw: "rev-b".to_owned(),
            reason: "power-on".to_owned(),
            origin: origin(NOW - 600_000, 1),
        }),
        boot: Some(Opaque(77)),
        sensors: [("oven".to_owned(), oven)].into(),
        config: None,
        commands: Vec::new(),
        events: 1_234_567,
        lost: 12,
        missing: 0,
        last_event_at: Some(Time(NOW - 3_000)),
        last_received_at: Some(Time(NOW - 2_000)),
    }
}

#[test]
fn devices_are_a_table() {
    let quiet = Device {
        device: "quiet".to_owned(),
        site: None,
        gateway: None,
        connected: None,
        last_event_at: None,
        last_received_at: None,
        firmware: None,
        boots: 0,
        events: 0,
        lost: 0,
        missing: 7,
    };
    assert_eq!(
        devices(&[kiln(), quiet], TEXT, NOW),
        "\
DEVICE  SITE  GATEWAY  CONNECTED  LAST EVENT  RECEIVED  FIRMWARE  BOOTS     EVENTS  LOST  MISSING
kiln-1  hall  gw-1     yes        3s ago      2s ago    1.4.0         2  1,234,567    12        0
quiet   -     -        -          -           -         -             0          0     0        7

2 devices, 1 connected
"
    );
    assert!(devices(&[], TEXT, NOW).contains("weir doctor"));
}

#[test]
fn state_now_tells_how_long_ago() {
    assert_eq!(
        state(&kiln_state(), TEXT, NOW),
        "\
device      kiln-1
state at    2026-11-20T18:40:59.123Z (now)
heard by    gw-1 at hall
connected   yes, since 2026-11-20T18:30:59.123Z (10m ago); gw-1 says: 10.0.0.7:51234
firmware    1.4.0 on rev-b, started 2026-11-20T18:30:59.123Z (10m ago) (power-on)
boot        77
last event  2026-11-20T18:40:56.123Z (3s ago)
received    2026-11-20T18:40:57.123Z (2s ago)
events      1,234,567 stored, 12 lost, 0 missing

SENSOR  VALUE  UNIT  OBSERVED                  AGE  CLOCK   LIMIT
oven     21.5  Cel   2026-11-20T18:40:56.123Z  3s   device  above 20.0 since 2026-11-20T18:39:59.123Z
"
    );
}

#[test]
fn past_state_tells_how_long_before_that_moment() {
    let past = State { at: Some(Time(NOW - 2_000)), ..kiln_state() };
    let text = state(&past, TEXT, NOW + 3_600_000);
    assert!(text.contains("state at    2026-11-20T18:40:57.123Z (1h ago)"), "{text}");
    assert!(text.contains("last event  2026-11-20T18:40:56.123Z (1s earlier)"), "{text}");
    assert!(text.contains("2026-11-20T18:40:56.123Z  1s   device"), "{text}");
}

#[test]
fn colours_come_only_where_they_are_wanted() {
    let coloured = Style { colours: true };
    assert!(devices(&[kiln()], coloured, NOW).contains("\x1b["));
    assert!(state(&kiln_state(), coloured, NOW).contains("\x1b["));
    assert!(!devices(&[kiln()], TEXT, NOW).contains('\x1b'));
    assert!(!state(&kiln_state(), TEXT, NOW).contains('\x1b'));
}

#[test]
fn a_device_cannot_write_to_the_terminal() {
    let hostile = "\x1b]0;owned\x07\u{9b}2J\r\n";
    let device = Device { firmware: Some(hostile.to_owned()), ..kiln() };
    let mut state_of = kiln_state();
    state_of.connection_detail = Some(hostile.to_owned());
    state_of.sensors.get_mut("oven").expect("it has one").value = Json::Text(hostile.to_owned());
    state_of.sensors.get_mut("oven").expect("it has one").unit = Some(hostile.to_owned());
    for text in [devices(&[device], TEXT, NOW), state(&state_of, TEXT, NOW)] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("owned"));
    }
}

#[test]
fn an_event_is_one_line() {
    let reading = Event {
        device: "kiln-1".to_owned(),
        boot: Opaque(77),
        seq: 9,
        at: Time(NOW),
        clock: "device".to_owned(),
        received_at: Time(NOW),
        logged_at: Time(NOW),
        kind: "reading-taken".to_owned(),
        version: 1,
        body: serde_json::from_str(r#"{"sensor":"oven","value":21.5,"note":"two words","deep":{"a":[1]}}"#)
            .expect("JSON"),
        site: "hall".to_owned(),
        gateway: "gw-1".to_owned(),
        incarnation: Opaque(5),
        number: 3,
        stream_sequence: 4,
    };
    assert_eq!(
        event(&reading, TEXT),
        " 2026-11-20T18:40:59.123Z        9  reading-taken      sensor=oven value=21.5 note=\"two words\" deep={\"a\":[1]}\n"
    );
    let unsure = Event { clock: "unknown".to_owned(), ..reading };
    assert!(event(&unsure, TEXT).starts_with('≤'), "the time is an upper bound");
    assert_eq!(boot_heading(Opaque(77), TEXT), "boot 77\n");
}

#[test]
fn boots_tell_what_became_of_every_number() {
    let boot = Boot {
        boot: Opaque(77),
        began_at: Some(Time(NOW - 600_000)),
        stored: vec![(1, 10), (12, 12)],
        lost: vec![Lost { from: 13, to: 15, reason: "outbox-full".to_owned(), by: "kiln-1".to_owned() }],
        told_lost: 3,
        missing: vec![(11, 11)],
        events: 11,
        duplicates: 3,
    };
    let damaged = Boot {
        boot: Opaque(78),
        began_at: None,
        events: 10,
        lost: Vec::new(),
        duplicates: 0,
        ..boot.clone()
    };
    let both = Boots { device: "kiln-1".to_owned(), boots: vec![boot, damaged] };
    assert_eq!(
        boots(&both, TEXT),
        "\
boot 77, began 2026-11-20T18:30:59.123Z
  stored   11 events: 1–10, 12; 3 more that arrived again, dropped
  lost     13–15: outbox-full, says kiln-1
  missing  11
boot 78, began at an unknown time
  stored   10 events: 1–10, 12
  DEFECT   11 numbers are marked as stored, but 10 are
  missing  11
"
    );
}

#[test]
fn many_ranges_are_counted_not_listed() {
    let many: Vec<(u32, u32)> = (0..100).map(|at| (at * 10 + 1, at * 10 + 2)).collect();
    assert_eq!(ranges(&many, 2), "1–2, 11–12 and 98 more ranges");
    assert_eq!(ranges(&[(5, 5)], 2), "5");
    assert_eq!(ranges(&[], 2), "none");
}

#[test]
fn a_dead_letter_says_what_is_wrong_and_where() {
    let letter = DeadLetter {
        id: 4,
        stream_sequence: 17,
        logged_at: Time(NOW),
        subject: "weir.1.segments.hall.gw-1.main".to_owned(),
        number: Some(9),
        device: Some("kiln-1".to_owned()),
        boot: Some(Opaque(77)),
        seq: Some(3),
        reason: "a reading without a value, at byte 12".to_owned(),
        bytes: "Zm9vYmFy".to_owned(),
    };
    assert_eq!(
        dead_letter(&letter, TEXT),
        "\
#4 2026-11-20T18:40:59.123Z a reading without a value, at byte 12
    message 17 on weir.1.segments.hall.gw-1.main, uplink 9 of kiln-1, event 77/3; 6 bytes, in full with --json
"
    );
}

#[test]
fn status_tells_the_lag_and_every_gateway() {
    let running = Status {
        version: "0.1.0".to_owned(),
        role: "all".to_owned(),
        position: Position {
            stream: Some("WEIR".to_owned()),
            stream_sequence: 4_711,
            stream_last_sequence: Some(4_721),
            lag_messages: Some(10),
            lag_seconds: Some(2.5),
            reading: Some(true),
            trouble: None,
        },
        store: Store {
            devices: 12,
            events: 1_234_567,
            duplicates: 5,
            dead_letters: 0,
            file_bytes: 3 << 20,
            gateways: vec![Gateway {
                site: "hall".to_owned(),
                gateway: "gw-1".to_owned(),
                lane: "main".to_owned(),
                incarnation: Opaque(99),
                last_number: 1_000,
                missing: vec![(5, 6)],
                missing_count: 2,
                last_logged_at: Time(NOW - 5_000),
            }],
        },
        nats: Nats { connected: Some(true) },
    };
    assert_eq!(
        status(&running, TEXT, NOW),
        "\
weir-cloud  0.1.0 (role all)
nats        connected
log         folded to 4,711, 10 messages (2s) behind
store       1,234,567 events of 12 devices, 3.0 MiB
again       5 events that arrived again, dropped
unreadable  0 dead letters

GATEWAY  SITE  LANE  INCARNATION  UPLINKS TO  NOT ARRIVED  LAST ARRIVED
gw-1     hall  main  99                1,000            2  5s ago
"
    );
}

#[test]
fn numbers_and_sizes_are_readable() {
    assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([812, 1_536, 3 << 20, 5 << 30].map(words::bytes), ["812 B", "1.5 KiB", "3.0 MiB", "5.0 GiB"]);
}
