//! What a device does with the time, with commands, and with uplinks that wait.

use weir_contract::body::{Body, Outcome};
use weir_contract::command::Command;
use weir_contract::time::Time;
use weir_contract::uplink::Uplink;
use weir_contract::{Id, topic};
use weir_device::{Action, Config, Device, Emitted, Publish, Ram};

type TestDevice = Device<Ram<[u8; 4096]>, 4>;

fn id() -> Id {
    "probe-1".parse().expect("a name")
}

/// A device that is connected and has subscribed.
fn online(config: Config) -> TestDevice {
    let mut device = TestDevice::new(config, 77, Ram::new([0; 4096]), 1);
    connect(&mut device, 0);
    device
}

fn connect(device: &mut TestDevice, now: u64) {
    let mut buffer = [0; 1024];
    assert_eq!(device.poll(now, &mut buffer), Action::Connect);
    assert_eq!(device.poll(now, &mut buffer), Action::Wait(None));
    device.connected();
    assert_eq!(device.poll(now, &mut buffer), Action::Subscribe);
}

fn crossed(device: &mut TestDevice, now: u64) {
    let sensor = "door".parse().expect("a name");
    let body = Body::LimitCrossed { sensor, value: 1.5, limit: 1.0, rising: true };
    assert!(matches!(device.emit(now, &body), Emitted::Kept(_)));
}

fn publish<'b>(device: &mut TestDevice, now: u64, buffer: &'b mut [u8]) -> Publish<'b> {
    match device.poll(now, buffer) {
        Action::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_uplink_waits_until_it_is_full_or_has_lingered() {
    let mut device = online(Config { uplink_events_max: 3, linger_ms: 100, ..Config::new(id()) });
    let mut buffer = [0; 1024];
    crossed(&mut device, 10);
    crossed(&mut device, 20);
    assert_eq!(device.poll(20, &mut buffer), Action::Wait(Some(110)));
    crossed(&mut device, 30);
    assert_eq!(publish(&mut device, 30, &mut buffer).last, 3);
    crossed(&mut device, 40);
    assert_eq!(device.poll(139, &mut buffer), Action::Wait(Some(140)));
    assert_eq!(publish(&mut device, 140, &mut buffer).last, 4);
    crossed(&mut device, 150);
    device.flush();
    assert_eq!(publish(&mut device, 150, &mut buffer).last, 5);
}

#[test]
fn boots_that_never_learned_the_time_name_the_one_after_them() {
    let mut memory = Ram::new([0; 4096]);
    for boot in [30, 10, 20] {
        let mut device = TestDevice::new(Config::new(id()), boot, memory, 1);
        crossed(&mut device, 5);
        crossed(&mut device, 6);
        memory = device.power_off();
    }
    let mut device = TestDevice::new(Config { uplink_events_max: 1, ..Config::new(id()) }, 40, memory, 1);
    connect(&mut device, 0);
    crossed(&mut device, 7);
    let mut sent = vec![];
    let mut buffer = [0; 1024];
    for _ in 0..7 {
        let publish = publish(&mut device, 9, &mut buffer);
        sent.push((publish.boot, Uplink::read(publish.payload).expect("an uplink").header.via));
        let token = publish.token;
        assert!(device.acknowledged(token).is_some());
    }
    let later = [(30, 40), (30, 10), (10, 40), (10, 20), (20, 40), (20, 40)];
    let expected = later.map(|(boot, via)| (boot, Some(via))).into_iter().chain([(40, None)]);
    assert_eq!(sent, expected.collect::<Vec<_>>());
}

#[test]
fn after_a_reconnect_the_same_uplinks_go_again_in_order_and_acknowledged_ones_do_not() {
    let mut device = online(Config { uplink_events_max: 2, window: 3, ..Config::new(id()) });
    let mut buffer = [0; 1024];
    for now in 0..8 {
        crossed(&mut device, now);
    }
    let mut next = |device: &mut TestDevice, now| {
        let publish = publish(device, now, &mut buffer);
        (publish.token, publish.first, publish.last, publish.again)
    };
    let sent: Vec<_> = (0..3).map(|_| next(&mut device, 9)).collect();
    assert_eq!(sent.iter().map(|sent| sent.1).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(device.poll(9, &mut [0; 1024]), Action::Wait(None), "the window is full");
    assert!(device.acknowledged(sent[1].0).is_some());
    device.disconnected(10);
    connect(&mut device, 1000);
    let again: Vec<_> = (0..2).map(|_| next(&mut device, 1000)).collect();
    assert_eq!(again, [(sent[0].0, 1, 2, true), (sent[2].0, 5, 6, true)]);
    let (_, first, last, again) = next(&mut device, 1000);
    assert_eq!((first, last, again), (7, 8, false));
}

#[test]
fn the_time_told_by_the_gateway_dates_the_boot() {
    let mut device = online(Config::new(id()));
    let mut buffer = [0; 1024];
    let tell = |device: &mut TestDevice, now, unix_ms| {
        let mut payload = [0; Time::LEN_MAX];
        let len = Time { unix_ms }.write(&mut payload).expect("fits");
        assert_eq!(device.received(now, &topic::time(&id()), &payload[..len]), Ok(None));
    };
    crossed(&mut device, 10);
    let uplink = publish(&mut device, 10, &mut buffer);
    assert_eq!(Uplink::read(uplink.payload).expect("an uplink").header.epoch, None);

    tell(&mut device, 1000, 1_800_000_001_000);
    assert_eq!(device.outbox().epoch(), Some(1_800_000_000_000));
    tell(&mut device, 2000, 1_800_000_002_400);
    assert_eq!(device.outbox().epoch(), Some(1_800_000_000_000), "400 ms are the network's");
    tell(&mut device, 3000, 1_800_000_004_000);
    assert_eq!(device.outbox().epoch(), Some(1_800_000_001_000), "a second is the clock's");

    crossed(&mut device, 3000);
    let uplink = publish(&mut device, 3000, &mut buffer);
    let header = Uplink::read(uplink.payload).expect("an uplink").header;
    assert_eq!((header.boot, header.now, header.epoch), (77, Some(3000), Some(1_800_000_001_000)));
}

#[test]
fn a_repeated_command_is_done_once_and_a_late_one_not_at_all() {
    let mut device = online(Config::new(id()));
    device.time_is(0, 1_800_000_000_000);
    let command = |id, deadline_ms| {
        let command = Command { id: Into::into(id), name: "blink".into(), deadline_ms, args: &[0xf6] };
        let mut payload = vec![0; 100];
        let len = command.write(&mut payload).expect("fits");
        payload.truncate(len);
        payload
    };
    let commands = topic::commands(&id());
    let good = command("c-1", 1_800_000_009_000);
    let taken = device.received(100, &commands, &good).expect("well-formed").expect("new");
    assert_eq!(taken.name, "blink");
    assert_eq!(device.received(200, &commands, &good), Ok(None), "seen before");
    assert_eq!(device.received(300, &commands, &command("c-2", 1_800_000_000_299)), Ok(None), "too late");
    assert!(device.received(300, &commands, &[0x80]).is_err(), "no command");
    let _ = device.answer(400, "c-1".into(), Outcome::Completed, None, None);

    let mut buffer = [0; 1024];
    let uplink = publish(&mut device, 400, &mut buffer);
    let uplink = Uplink::read(uplink.payload).expect("an uplink");
    let kinds: Vec<String> = uplink.events().map(|event| event.kind.to_string()).collect();
    assert_eq!(kinds, ["command-accepted", "command-failed", "command-completed"]);
}

#[test]
fn messages_for_others_change_nothing() {
    let mut device = online(Config::new(id()));
    let other = topic::time(&"probe-2".parse().expect("a name"));
    assert_eq!(device.received(1, &other, &[0x81, 0x01]), Ok(None));
    assert_eq!(device.received(1, "weir/1/probe-1/events", &[0x81, 0x01]), Ok(None));
    assert_eq!(device.outbox().epoch(), None);
}
