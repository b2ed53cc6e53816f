//! What a device does with commands, and what it knows of them after a power cut at any point.

use weir_contract::body::{Body, Outcome};
use weir_contract::command::Command;
use weir_contract::order::Order;
use weir_contract::uplink::Uplink;
use weir_contract::{Id, topic};
use weir_device::{
    Action, Agent, BadRecord, Config, Device, Duty, Memory, Ram, SENSORS_MAX, Sensor, Settings, Threshold,
    record_len_max,
};

type TestDevice = Device<Ram<[u8; 32_768]>, 8>;
type TestAgent = Agent<SENSORS_MAX>;

fn id(name: &str) -> Id {
    name.parse().expect("a name")
}

fn sensor(name: &str) -> Sensor {
    Sensor {
        name: id(name),
        unit: Some("Cel"),
        change_min: 0.0,
        silence_ms_max: u64::MAX,
        settings: Settings { period_ms: 1000, limit: None },
    }
}

/// A device with two sensors, its memory, and what it has told.
struct Probe {
    device: TestDevice,
    agent: TestAgent,
    memory: Vec<u8>,
    told: Vec<String>,
}

impl Probe {
    fn new() -> Self {
        let mut probe = Self { device: boot(1), agent: agent(), memory: Vec::new(), told: Vec::new() };
        probe.connect();
        probe
    }

    fn connect(&mut self) {
        let mut buffer = [0; 1024];
        assert_eq!(self.device.poll(0, &mut buffer), Action::Connect);
        self.device.connected();
        assert_eq!(self.device.poll(0, &mut buffer), Action::Subscribe);
    }

    /// Loses all but its memory, and starts again; what was not published is lost too.
    fn cut_power(&mut self, boot_number: u64) -> Duty {
        (self.device, self.agent) = (boot(boot_number), agent());
        if !self.memory.is_empty() {
            self.agent.restore(&mut self.device, &self.memory).expect("its own record");
        }
        self.connect();
        self.agent.started(5, &mut self.device)
    }

    fn keep(&mut self) {
        let mut record = [0; record_len_max(2)];
        let len = self.agent.record(&self.device, &mut record).expect("as long as it may be");
        self.memory = record[..len].to_vec();
    }

    /// Receives a command and does what is to be done, all but restarting.
    fn obey(&mut self, command: &[u8]) -> Duty {
        let duty = self.receive(command);
        if duty != Duty::Keep {
            return duty;
        }
        self.keep();
        self.agent.kept(10, &mut self.device)
    }

    fn receive(&mut self, command: &[u8]) -> Duty {
        let topic = topic::commands(self.device.id());
        self.agent.received(10, &mut self.device, &topic, command).expect("well-formed")
    }

    /// Publishes all; what was told since the last time, in words.
    fn tell(&mut self) -> Vec<String> {
        let mut buffer = [0; 1024];
        while let Action::Publish(publish) = self.device.poll(20, &mut buffer) {
            let uplink = Uplink::read(publish.payload).expect("an uplink");
            for event in uplink.events() {
                let body = Body::read(&event.kind, event.version, event.body).expect("as the contract says");
                self.told.push(in_words(&body.expect("of a known kind")));
            }
            let token = publish.token;
            self.device.acknowledged(token);
        }
        std::mem::take(&mut self.told)
    }
}

fn boot(number: u64) -> TestDevice {
    TestDevice::new(Config::new(id("probe-1")), number, Ram::new([0; 32_768]), 1)
}

fn agent() -> TestAgent {
    Agent::new(&[sensor("indoor"), sensor("outdoor")])
}

fn in_words(body: &Body<'_>) -> String {
    match body {
        Body::CommandAnswered { outcome, id, reason, .. } => match (outcome, reason) {
            (Outcome::Accepted, _) => format!("{id} accepted"),
            (Outcome::Completed, _) => format!("{id} completed"),
            (Outcome::Failed, reason) => format!("{id} failed: {}", reason.expect("with a reason")),
        },
        Body::ConfigApplied { revision, .. } => format!("config {revision}"),
        Body::ReadingTaken { sensor, .. } => format!("{sensor} read"),
        Body::LimitCrossed { sensor, value, limit, rising } => {
            format!("{sensor} {} {limit} at {value}", if *rising { "above" } else { "below" })
        }
        other => format!("{other:?}"),
    }
}

fn command(id: &str, order: &Order) -> Vec<u8> {
    let mut args = [0; 100];
    let len = order.write_args(&mut args).expect("room");
    raw(id, order.name(), &args[..len])
}

fn raw(id: &str, name: &str, args: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; 500];
    let command = Command { id: id.into(), name: name.into(), deadline_ms: u64::MAX, args };
    let len = command.write(&mut payload).expect("room");
    payload.truncate(len);
    payload
}

fn set_period(command_id: &str, sensor: Option<&str>, period_ms: u32) -> Vec<u8> {
    command(command_id, &Order::SetPeriod { sensor: sensor.map(id), period_ms })
}

#[test]
fn a_period_is_set_for_one_sensor_or_for_all_and_told() {
    let mut probe = Probe::new();
    assert_eq!(probe.obey(&set_period("c-1", Some("outdoor"), 250)), Duty::Nothing);
    assert_eq!(probe.tell(), ["c-1 accepted", "config 1", "c-1 completed"]);
    let periods = |probe: &Probe| probe.agent.sensors().map(|s| s.settings.period_ms).collect::<Vec<_>>();
    assert_eq!(periods(&probe), [1000, 250]);
    assert_eq!(probe.obey(&set_period("c-2", None, 50)), Duty::Nothing);
    assert_eq!(periods(&probe), [50, 50]);
    assert_eq!((probe.agent.revision(), probe.tell().len()), (2, 3));
    assert_eq!(probe.agent.due(10), Some(0), "never read: due at once");
    probe.agent.sample(10, &mut probe.device, 0, 20.0);
    probe.agent.sample(10, &mut probe.device, 1, 5.0);
    assert_eq!((probe.agent.due(49), probe.agent.due_at()), (None, Some(50)));
    assert_eq!(probe.tell(), ["indoor read", "outdoor read"]);
}

#[test]
fn a_limit_is_watched_with_hysteresis_until_it_is_taken_away() {
    let mut probe = Probe::new();
    let set_limit =
        |id_: &str, limit| command(id_, &Order::SetLimit { sensor: id("indoor"), limit, hysteresis: 0.5 });
    let _ = probe.obey(&set_limit("c-1", Some(30.0)));
    probe.tell();
    let crossings = |probe: &mut Probe, values: &[f64]| {
        for value in values {
            // Not due: what is not reported is watched all the same.
            probe.agent.sample(0, &mut probe.device, 0, *value);
        }
        probe.tell().into_iter().filter(|told| !told.ends_with("read")).collect::<Vec<_>>()
    };
    assert_eq!(
        crossings(&mut probe, &[29.9, 30.1, 29.6, 30.2, 29.4]),
        ["indoor above 30 at 30.1", "indoor below 30 at 29.4"]
    );
    let _ = probe.obey(&set_limit("c-2", None));
    probe.tell();
    assert!(crossings(&mut probe, &[31.0]).is_empty());
}

#[test]
fn what_cannot_be_done_fails_with_what_could_be() {
    let mut probe = Probe::new();
    let before = probe.agent.sensors().copied().collect::<Vec<_>>();
    for (payload, reason) in [
        (raw("c-1", "dance", &[0xa0]), "unknown command; known are set-period, set-limit, restart, identify"),
        (
            raw("c-1", "set-period", &[0xa0]),
            "set-period takes period_ms (10 to 86400000) and perhaps sensor (a name)",
        ),
        (set_period("c-1", Some("cellar"), 100), "no such sensor; there are indoor outdoor"),
        (raw(&"c".repeat(65), "identify", &[0xa0]), "an id has at most 64 bytes"),
    ] {
        let mut probe = Probe::new();
        assert_eq!(probe.obey(&payload), Duty::Nothing);
        let told = probe.tell();
        assert!(told[0].ends_with("accepted") && told[1].ends_with(reason), "{told:?}");
        assert_eq!(probe.agent.revision(), 0);
    }
    assert_eq!(before, probe.agent.sensors().copied().collect::<Vec<_>>());
    assert!(probe.tell().is_empty());
}

#[test]
fn a_configuration_outlives_a_power_cut_and_is_told_again() {
    let mut probe = Probe::new();
    let _ = probe.obey(&set_period("c-1", Some("outdoor"), 250));
    let limit = Order::SetLimit { sensor: id("outdoor"), limit: Some(-5.25), hysteresis: 0.25 };
    let _ = probe.obey(&command("c-2", &limit));
    probe.tell();
    assert_eq!(probe.cut_power(2), Duty::Nothing);
    assert_eq!(probe.tell(), ["config 2"]);
    let outdoor = probe.agent.sensors().nth(1).expect("the second").settings;
    let limit = Some(Threshold { limit: -5.25, hysteresis: 0.25 });
    assert_eq!(outdoor, Settings { period_ms: 250, limit });
}

#[test]
fn a_repeated_command_is_done_once_however_often_the_power_is_cut() {
    let mut probe = Probe::new();
    let payload = set_period("c-1", None, 100);
    let _ = probe.obey(&payload);
    assert_eq!(probe.receive(&payload), Duty::Nothing);
    // Cut before anything is published: the answer is gone, the memory of it is not.
    let _ = probe.cut_power(2);
    assert_eq!(probe.obey(&payload), Duty::Nothing);
    assert_eq!(probe.obey(&payload), Duty::Nothing, "told in this boot");
    assert_eq!(probe.tell(), ["config 1", "c-1 completed"]);
    assert_eq!(probe.agent.revision(), 1, "done once");
}

#[test]
fn a_command_is_not_answered_before_it_is_kept_and_is_done_after_a_cut_in_between() {
    let mut probe = Probe::new();
    let payload = set_period("c-1", None, 100);
    assert_eq!(probe.receive(&payload), Duty::Keep);
    assert_eq!(probe.tell(), ["c-1 accepted"]);
    assert_eq!(probe.receive(&set_period("c-2", None, 200)), Duty::Keep, "one at a time");
    let _ = probe.cut_power(2);
    assert_eq!(probe.obey(&payload), Duty::Nothing);
    assert_eq!(probe.tell(), ["c-1 accepted", "config 1", "c-1 completed"]);

    // Kept, and cut before it was answered.
    let payload = set_period("c-3", None, 300);
    assert_eq!(probe.receive(&payload), Duty::Keep);
    probe.keep();
    let _ = probe.cut_power(3);
    assert_eq!(probe.agent.revision(), 2);
    assert_eq!(probe.obey(&payload), Duty::Nothing);
    assert_eq!(probe.tell(), ["config 2", "c-3 completed"]);
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let mut probe = Probe::new();
    assert_eq!(probe.receive(&set_period("c-1", None, 100)), Duty::Keep);
    probe.agent.not_kept(10, &mut probe.device);
    assert_eq!(probe.tell(), ["c-1 accepted", "c-1 failed: the device cannot write its memory"]);
    assert_eq!(probe.agent.sensors().next().expect("one").settings.period_ms, 1000);
}

#[test]
fn a_restart_is_completed_after_it_and_done_once() {
    let mut probe = Probe::new();
    let payload = command("c-1", &Order::Restart);
    assert_eq!(probe.obey(&payload), Duty::Restart);
    assert_eq!(probe.tell(), ["c-1 accepted"]);
    assert_eq!(probe.cut_power(2), Duty::Keep);
    probe.keep();
    assert_eq!(probe.agent.kept(10, &mut probe.device), Duty::Nothing);
    assert_eq!(probe.tell(), ["c-1 completed"]);
    assert_eq!(probe.cut_power(3), Duty::Nothing);
    assert_eq!(probe.obey(&payload), Duty::Nothing);
    assert_eq!(probe.tell(), ["c-1 completed"], "again, for whoever has not heard it");
}

#[test]
fn identify_is_shown_once() {
    let mut probe = Probe::new();
    let payload = command("c-1", &Order::Identify);
    assert_eq!(probe.obey(&payload), Duty::Identify);
    assert_eq!(probe.obey(&payload), Duty::Nothing);
    let _ = probe.cut_power(2);
    assert_eq!(probe.obey(&payload), Duty::Nothing);
}

#[test]
fn the_longest_record_and_configuration_have_room() {
    let names: Vec<String> = (0..SENSORS_MAX).map(|n| format!("{n}{}", "s".repeat(31))).collect();
    let sensors: Vec<Sensor> = names.iter().map(|name| sensor(name)).collect();
    let mut agent = TestAgent::new(&sensors);
    let mut device = boot(1);
    device.connected();
    let topic = topic::commands(device.id());
    let mut orders = vec![("p".to_owned(), Order::SetPeriod { sensor: None, period_ms: 86_400_000 })];
    for (n, name) in names.iter().enumerate() {
        let order = Order::SetLimit { sensor: id(name), limit: Some(1.0e-300), hysteresis: 1.0e300 };
        orders.push((format!("{n}{}", "i".repeat(63)), order));
    }
    orders.extend((0..16).map(|n| (format!("x-{n}"), Order::Identify)));
    orders.push(("r".repeat(64), Order::Restart));
    for (command_id, order) in &orders {
        let payload = command(command_id, order);
        assert_eq!(agent.received(1, &mut device, &topic, &payload), Ok(Duty::Keep));
        let mut record = vec![0; record_len_max(SENSORS_MAX)];
        let len = agent.record(&device, &mut record).expect("room");
        let mut again = TestAgent::new(&sensors);
        again.restore(&mut boot(2), &record[..len]).expect("a record");
        let _ = agent.kept(1, &mut device);
        assert_eq!(again.sensors().collect::<Vec<_>>(), agent.sensors().collect::<Vec<_>>());
        for end in 0..len {
            assert_eq!(again.restore(&mut boot(2), &record[..end]), Err(BadRecord), "cut at {end}");
        }
    }
    assert_eq!(agent.revision(), 1 + SENSORS_MAX as u64);
    assert!(device.outbox().memory().losses().is_empty(), "each config-applied fits in an event");
}
