//! State: what the events tell, in the order in which they happened, now and at any moment of the past.

use weir_contract::body::Outcome;

use super::*;
use crate::store::types::{DeviceState, Value};

fn state(fixture: &Fixture, device: &str) -> DeviceState {
    fixture.reader().state(&id(device), None).expect("reads").expect("is there")
}

fn value(state: &DeviceState, sensor: &str) -> Option<Value> {
    state.sensors.get(sensor).and_then(|sensor| sensor.reading.as_ref()).map(|reading| reading.value.clone())
}

#[test]
fn the_latest_reading_is_the_latest_in_the_devices_order_and_not_the_last_to_arrive() {
    let mut fixture = Fixture::new();
    let epoch = |boot, ms| known(boot, T0 + ms);
    // The device roams: its boots arrive through two gateways, the older one last.
    let newer = entry("d", T0 + 70_000, epoch(3, 60_000), 1, &[(1_000, reading("t", 30))]);
    let older =
        entry("d", T0 + 90_000, epoch(9, 0), 1, &[(2_000, reading("t", 10)), (3_000, reading("u", 11))]);
    let later_seq = entry("d", T0 + 95_000, epoch(9, 0), 3, &[(4_000, reading("t", 12))]);
    fixture.fold(&[segment(1, "gw-a", 1, &[newer]), segment(2, "gw-b", 1, &[later_seq, older])]);

    let now = state(&fixture, "d");
    assert_eq!((value(&now, "t"), value(&now, "u")), (Some(Value::Int(30)), Some(Value::Int(11))));
    assert_eq!(now.boot, Some(3));
    assert_eq!(now.heard.map(|place| place.gateway), Some(id("gw-b")));
    let origin = now.sensors["u"].reading.as_ref().expect("is there").origin;
    assert_eq!((origin.boot, origin.seq, origin.at_ms), (9, 2, T0 + 3_000));
    let order: Vec<u64> = fixture
        .reader()
        .boots(&id("d"))
        .expect("reads")
        .expect("is there")
        .iter()
        .map(|boot| boot.boot)
        .collect();
    assert_eq!(order, [9, 3]);
}

#[test]
fn state_follows_when_the_order_of_boots_turns_out_to_be_another() {
    let mut fixture = Fixture::new();
    let header = |boot, now| Header { boot, now: Some(now), epoch: None, via: None };
    // Delayed on its way, boot 1 seems to begin after boot 2; a faster uplink tells better.
    let slow = entry("d", T0 + 50_000, header(1, 1_000), 1, &[(1_000, reading("t", 1))]);
    let second = entry("d", T0 + 21_000, header(2, 1_000), 1, &[(500, reading("t", 2))]);
    fixture.fold(&[segment(1, "gw", 1, &[slow, second])]);
    assert_eq!(value(&state(&fixture, "d"), "t"), Some(Value::Int(1)));
    let fast = entry("d", T0 + 50_100, header(1, 45_000), 2, &[(2_000, reading("u", 0))]);
    fixture.fold(&[segment(2, "gw", 3, &[fast])]);
    assert_eq!(value(&state(&fixture, "d"), "t"), Some(Value::Int(2)));
}

#[test]
fn everything_a_device_tells_of_itself_is_in_its_state() {
    let mut fixture = Fixture::new();
    let text = Text::from;
    let config = [0xa1, 0x61, b'p', 5];
    let answer = |outcome, id, reason: Option<&'static str>| Body::CommandAnswered {
        outcome,
        id: text(id),
        reason: reason.map(text),
        result: None,
    };
    let events = [
        (1, Body::DeviceStarted { fw: text("1.2"), hw: text("B"), reason: text("watchdog") }),
        (2, reading("t", 21)),
        (3, Body::LimitCrossed { sensor: id("t"), value: 21.0, limit: 20.0, rising: true }),
        (4, Body::ConfigApplied { revision: 3, config: &config }),
        (5, answer(Outcome::Accepted, "c-1", None)),
        (6, answer(Outcome::Accepted, "c-2", None)),
        (7, answer(Outcome::Failed, "c-1", Some("stuck"))),
    ];
    let of_gateway = [
        (1, Body::DeviceConnected { device: id("d"), address: text("10.0.0.9:4711") }),
        (2, Body::CommandExpired { device: id("d"), id: text("c-1") }),
        (3, Body::CommandExpired { device: id("d"), id: text("c-2") }),
        (4, Body::CommandExpired { device: id("d"), id: text("c-3") }),
        (5, Body::ClockStepped { by_ms: -4 }),
        (6, Body::CommandRefused { device: id("d"), id: Some(text("c-4")), reason: text("too many") }),
        (7, Body::CommandRefused { device: id("d"), id: None, reason: text("malformed") }),
    ];
    fixture.fold(&[segment(
        1,
        "gw",
        1,
        &[
            entry("d", T0 + 100, known(7, T0), 1, &events),
            entry("gw", T0 + 100, known(1, T0 + 50), 1, &of_gateway),
        ],
    )]);

    let now = state(&fixture, "d");
    let firmware = now.firmware.clone().expect("told");
    assert_eq!(
        (firmware.fw.as_str(), firmware.hw.as_str(), firmware.reason.as_str()),
        ("1.2", "B", "watchdog")
    );
    let limit = now.sensors["t"].limit.clone().expect("crossed");
    assert_eq!((limit.value, limit.limit, limit.rising, limit.origin.seq), (21.0, 20.0, true, 3));
    let applied = now.config.clone().expect("applied");
    assert_eq!((applied.revision, applied.config.as_slice()), (3, &config[..]));
    let mut commands: Vec<(&str, &str)> =
        now.commands.iter().map(|command| (command.id.as_str(), command.outcome)).collect();
    commands.sort_unstable();
    assert_eq!(commands, [("c-1", "failed"), ("c-2", "expired"), ("c-3", "expired"), ("c-4", "refused")]);
    let refused = now.commands.iter().find(|command| command.id == "c-4").expect("told");
    assert_eq!(refused.reason.as_deref(), Some("too many"));
    let connection = now.connection.clone().expect("told");
    assert_eq!(
        (connection.connected, connection.detail.as_str(), connection.changed_at_ms),
        (true, "10.0.0.9:4711", T0 + 51)
    );

    let devices = fixture.reader().devices(None, 10).expect("reads").devices;
    let names: Vec<&str> = devices.iter().map(|device| &*device.device).collect();
    assert_eq!(names, ["d", "gw"]);
    assert_eq!(
        (devices[0].connected, devices[0].firmware.as_deref(), devices[0].account.events),
        (Some(true), Some("1.2"), 7)
    );
}

#[test]
fn a_device_is_connected_as_long_as_one_gateway_has_it() {
    let mut fixture = Fixture::new();
    let text = Text::from;
    let said = |gateway: &str, boot, at_ms, seq, connected| {
        let device = id("d");
        let body = match connected {
            true => Body::DeviceConnected { device, address: text("a") },
            false => Body::DeviceDisconnected { device, reason: text("closed") },
        };
        entry(gateway, at_ms, known(boot, at_ms), seq, &[(0, body)])
    };
    let connected = |fixture: &Fixture, at_ms| {
        let state = fixture.reader().state(&id("d"), at_ms).expect("reads").expect("is there");
        state.connection.map(|connection| (connection.connected, connection.gateway))
    };
    // It moves from A to B; A notices late.
    fixture.fold(&[segment(1, "a", 1, &[said("a", 1, T0, 1, true)])]);
    fixture.fold(&[segment(2, "b", 1, &[said("b", 1, T0 + 10, 1, true)])]);
    fixture.fold(&[segment(3, "a", 2, &[said("a", 1, T0 + 20, 2, false)])]);
    assert_eq!(connected(&fixture, None), Some((true, id("b"))));
    // B goes down without a word and comes back; the device does not.
    fixture.fold(&[segment(
        4,
        "b",
        2,
        &[entry("b", T0 + 40, known(2, T0 + 30), 1, &[(5, Body::ClockStepped { by_ms: 1 })])],
    )]);
    assert_eq!(connected(&fixture, None), Some((false, id("b"))));
    // The past stays what it was.
    assert_eq!(connected(&fixture, Some(T0 - 1)), None);
    assert_eq!(connected(&fixture, Some(T0 + 5)), Some((true, id("a"))));
    assert_eq!(connected(&fixture, Some(T0 + 34)), Some((true, id("b"))));
    assert_eq!(connected(&fixture, Some(T0 + 35)), Some((false, id("b"))));
}

#[test]
fn a_past_state_is_what_the_events_up_to_then_tell() {
    let mut fixture = Fixture::new();
    fixture.fold(&[segment(1, "gw", 1, &[readings("d", 7, 1, 100)])]);
    let later = entry("d", T0 + 900_000, known(8, T0 + 500_000), 1, &[(0, reading("t", -1))]);
    let lost =
        Body::EventsLost { device: None, boot: 7, from: 101, to: 110, reason: Text::from("outbox-full") };
    let told = entry("d", T0 + 900_000, known(8, T0 + 500_000), 2, &[(1, lost)]);
    fixture.fold(&[segment(2, "gw", 2, &[later, told])]);
    let at = |ms| fixture.reader().state(&id("d"), Some(T0 + ms)).expect("reads").expect("is there");

    assert_eq!((value(&at(0), "t"), at(0).boot, at(0).account.events), (None, None, 0));
    assert_eq!((value(&at(1_000), "t"), at(1_000).account.events), (Some(Value::Int(1)), 1));
    assert_eq!((value(&at(41_999), "t"), at(41_999).account.events), (Some(Value::Int(41)), 41));
    assert_eq!(
        (value(&at(200_000), "t"), at(200_000).account.lost, at(200_000).boot),
        (Some(Value::Int(100)), 0, Some(7))
    );
    assert_eq!(
        (value(&at(500_000), "t"), at(500_000).account.lost, at(500_000).boot),
        (Some(Value::Int(-1)), 0, Some(8))
    );
    assert_eq!(at(500_001).account, state(&fixture, "d").account);
    assert_eq!(at(500_001).account.lost, 10);
}

#[test]
fn devices_come_in_pages_by_name() {
    let mut fixture = Fixture::new();
    let entries: Vec<Entry> = (0..7).rev().map(|i| readings(&format!("d-{i}"), 1, 1, 1)).collect();
    fixture.fold(&[segment(1, "gw", 1, &entries)]);
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = fixture.reader().devices(after.as_ref(), 3).expect("reads");
        names.extend(page.devices.iter().map(|device| device.device.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, (0..7).map(|i| format!("d-{i}")).collect::<Vec<_>>());
}
