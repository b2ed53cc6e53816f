//! Commands: out of the stream, over the gateway's disk, to a device that does each once; answered, or told to have
//! expired or to be refused. The device is the core that every device runs, driven by the test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use toml::Table;
use weir_contract::command::Command;
use weir_contract::topic;
use weir_device::{Action, Agent, Config, Device, Duty, Ram, Sensor, Settings, Token, record_len_max};
use weir_tests::mqtt::{Client, Connect, Packet};
use weir_tests::sim::Size;
use weir_tests::wait::{eventually, pause};
use weir_tests::{Plan, SETTLED_WITHIN, SITE, World};

const WITHIN: Duration = Duration::from_secs(60);
const LONG: &str = "10m";

/// A device: what every device runs, a memory that outlives power cuts, and a count of what it did.
struct Probe {
    device: Device<Ram<[u8; 16_384]>, 4>,
    agent: Agent<1>,
    memory: Option<Vec<u8>>,
    began: Instant,
    client: Option<Client>,
    sent: HashMap<u16, Token>,
    identified: u32,
    restarts: u32,
    /// Commands received, repeated ones counted.
    received: u32,
    /// It reads commands, and does not act on them.
    deaf: bool,
}

impl Probe {
    fn new(name: &str) -> Result<Probe> {
        let id = name.parse().map_err(|error| anyhow!("{name}: {error}"))?;
        let config = Config { backoff_ms_min: 20, backoff_ms_max: 200, ..Config::new(id) };
        let sensor = Sensor {
            name: "temp".parse().map_err(|error| anyhow!("temp: {error}"))?,
            unit: Some("Cel"),
            change_min: 0.0,
            silence_ms_max: u64::MAX,
            settings: Settings { period_ms: 60_000, limit: None },
        };
        Ok(Probe {
            device: Device::new(config, fastrand::u64(..), Ram::new([0; 16_384]), fastrand::u64(..)),
            agent: Agent::new(&[sensor]),
            memory: None,
            began: Instant::now(),
            client: None,
            sent: HashMap::new(),
            identified: 0,
            restarts: 0,
            received: 0,
            deaf: false,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Lives until `condition` holds.
    fn live(
        &mut self,
        gateway: SocketAddr,
        what: &str,
        mut condition: impl FnMut(&Probe) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        while !condition(self) {
            ensure!(Instant::now() < deadline, "waited in vain for {what}");
            self.act(gateway)?;
        }
        Ok(())
    }

    /// Lives for a while.
    fn live_for(&mut self, gateway: SocketAddr, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        self.live(gateway, "time to pass", |_| Instant::now() >= until)
    }

    /// Until everything it emitted is acknowledged.
    fn drain(&mut self, gateway: SocketAddr) -> Result<()> {
        self.live(gateway, "everything to be acknowledged", |probe| {
            probe.device.is_connected() && probe.device.is_drained()
        })
    }

    fn act(&mut self, gateway: SocketAddr) -> Result<()> {
        let now = self.now();
        let mut buffer = [0; 2048];
        match self.device.poll(now, &mut buffer) {
            Action::Wait(_) => return self.hear(),
            Action::Connect => match Client::connect(gateway, &Connect::new(self.device.id())) {
                Ok(client) => {
                    self.client = Some(client);
                    self.device.connected();
                }
                Err(_) => self.device.disconnected(now),
            },
            Action::Subscribe => {
                let id = *self.device.id();
                for filter in [topic::time(&id), topic::commands(&id)] {
                    let subscribed = self.client.as_mut().context("connected")?.subscribe(&filter);
                    if subscribed.is_err() {
                        return self.lost();
                    }
                }
            }
            Action::Publish(publish) => {
                let topic = topic::events(self.device.id());
                let client = self.client.as_mut().context("connected")?;
                match client.publish_unawaited(&topic, publish.payload) {
                    Ok(packet) => _ = self.sent.insert(packet, publish.token),
                    Err(_) => return self.lost(),
                }
            }
        }
        Ok(())
    }

    fn lost(&mut self) -> Result<()> {
        self.client = None;
        self.sent.clear();
        let now = self.now();
        self.device.disconnected(now);
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        let Some(client) = &mut self.client else {
            pause(Duration::from_millis(5));
            return Ok(());
        };
        match client.next(Duration::from_millis(20)) {
            Ok(Packet::PubAck(packet, _)) => {
                if let Some(token) = self.sent.remove(&packet) {
                    self.device.acknowledged(token);
                }
            }
            Ok(Packet::Publish { topic, payload }) => self.take(&topic, &payload)?,
            Ok(Packet::Closed) => return self.lost(),
            Ok(other) => bail!("{other:?}"),
            // Nothing came in time.
            Err(_) => {}
        }
        Ok(())
    }

    fn take(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let is_command = topic.ends_with("/commands");
        self.received += u32::from(is_command);
        if is_command && self.deaf {
            return Ok(());
        }
        let now = self.now();
        let mut duty = self
            .agent
            .received(now, &mut self.device, topic, payload)
            .map_err(|error| anyhow!("{topic}: {error}"))?;
        while duty == Duty::Keep {
            let mut record = [0; record_len_max(1)];
            let len = self.agent.record(&self.device, &mut record).map_err(|_| anyhow!("a long record"))?;
            self.memory = Some(record[..len].to_vec());
            duty = self.agent.kept(now, &mut self.device);
        }
        match duty {
            Duty::Identify => self.identified += 1,
            Duty::Restart => self.restarts += 1,
            Duty::Nothing | Duty::Keep => {}
        }
        Ok(())
    }
}

/// A world whose gateway sends commands again soon.
fn world() -> Result<World> {
    let change = |config: &mut Table| {
        let commands: Table = "retry_ms = 200\nretry_ms_max = 1000".parse().expect("this is TOML");
        config.insert("commands".into(), commands.into());
    };
    World::planned(Plan { gateway: Some(Box::new(change)), ..Plan::default() })
}

/// Sends a command by the operator's command line; its id.
fn send(world: &mut World, device: &str, more: &[&str]) -> Result<String> {
    let gateway = world.gateway().id().to_owned();
    let mut arguments = vec!["command", device, "--json", "--site", SITE, "--gateway", &gateway];
    arguments.extend(more);
    let answer: Value = serde_json::from_str(&world.cloud.weir(&arguments)?)?;
    Ok(answer["id"].as_str().with_context(|| format!("no id in {answer}"))?.to_owned())
}

/// Waits until a device's state says this of a command.
fn await_outcome(world: &World, device: &str, id: &str, outcome: &str) -> Result<Value> {
    eventually(SETTLED_WITHIN, &format!("command {id} to be {outcome}"), || {
        let state = world.cloud.get(&format!("/v1/devices/{device}/state"))?;
        let commands = state["commands"].as_array().context("no commands")?;
        let command = commands.iter().find(|command| command["id"] == id).context("not told yet")?;
        ensure!(command["outcome"] == outcome, "it is {command}");
        Ok(Some(command.clone()))
    })
}

fn await_pending(world: &mut World, count: u64) -> Result<()> {
    eventually(WITHIN, &format!("{count} commands to wait at the gateway"), || {
        let commands = world.gateway().admin("/status")?["commands"].clone();
        ensure!(commands["pending"] == count, "{commands}");
        Ok(Some(()))
    })
}

fn count_of(world: &World, device: &str, kind: &str) -> Result<usize> {
    let events = world.cloud.events(device)?;
    Ok(events.iter().filter(|event| event["kind"] == kind).count())
}

#[test]
fn a_command_reaches_a_connected_device_and_its_outcome_the_operator() -> Result<()> {
    let mut world = world()?;
    let mut probe = Probe::new("obedient")?;
    let gateway = world.gateway().mqtt();
    probe.live(gateway, "a connection", |probe| probe.device.is_connected())?;
    let id = send(&mut world, "obedient", &["set-period", "--arg", "period_ms=500"])?;
    probe.live(gateway, "a new period", |probe| probe.agent.revision() == 1)?;
    probe.drain(gateway)?;
    await_outcome(&world, "obedient", &id, "completed")?;
    let state = world.cloud.get("/v1/devices/obedient/state")?;
    ensure!(state["config"]["config"] == json!({"temp": {"period_ms": 500}}), "{}", state["config"]);
    await_pending(&mut world, 0)?;

    let id = send(&mut world, "obedient", &["set-period", "--arg", "period_ms=1"])?;
    probe.live(gateway, "the second command", |probe| probe.received >= 2)?;
    probe.drain(gateway)?;
    let failed = await_outcome(&world, "obedient", &id, "failed")?;
    let reason = failed["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("10 to 86400000"), "the reason names what is allowed: {reason}");
    world.end()
}

#[test]
fn simulated_devices_obey_and_the_operator_may_wait_for_it() -> Result<()> {
    let mut world = world()?;
    let simulation = world.simulate(Size { devices: 2, rate: 2.0, run_s: 20 }, &["--seed", "77"])?;
    world.cloud.await_events("sim-0001", 1, WITHIN)?;
    let wait =
        ["command", "sim-0001", "set-period", "--arg", "period_ms=50", "--arg", "sensor=battery", "--wait"];
    let waited = world.cloud.weir_any(&wait, WITHIN)?;
    ensure!(waited.status.success() && waited.out.contains("\ncompleted "), "{waited:?}");
    let failing = world.cloud.weir_any(&["command", "sim-0001", "dance", "--wait"], WITHIN)?;
    ensure!(failing.status.code() == Some(1) && failing.out.contains("known are set-period"), "{failing:?}");
    let restart = world.cloud.weir_any(&["command", "sim-0002", "restart", "--wait"], WITHIN)?;
    ensure!(restart.status.success(), "{restart:?}");
    let manifest = simulation.finish(WITHIN)?;
    world.verify(&manifest)?;
    let state = world.cloud.get("/v1/devices/sim-0002/state")?;
    ensure!(state["firmware"]["reason"] == "command", "{}", state["firmware"]);
    let battery = world.cloud.events("sim-0001")?;
    let battery = battery.iter().filter(|event| event["body"]["sensor"] == "battery").count();
    ensure!(battery > 60, "{battery} readings of the battery in 20 s, every 2 s of them before the command");
    world.end()
}

#[test]
fn a_device_that_was_away_gets_its_commands_in_order_when_it_connects() -> Result<()> {
    let mut world = world()?;
    let ids: Vec<String> = ["100", "200", "300"]
        .iter()
        .map(|period| send(&mut world, "sleeper", &["set-period", "--arg", &format!("period_ms={period}")]))
        .collect::<Result<_>>()?;
    await_pending(&mut world, 3)?;
    let mut probe = Probe::new("sleeper")?;
    let gateway = world.gateway().mqtt();
    probe.live(gateway, "three new periods", |probe| probe.agent.revision() == 3)?;
    probe.drain(gateway)?;
    for id in &ids {
        await_outcome(&world, "sleeper", id, "completed")?;
    }
    let period = probe.agent.sensors().next().context("a sensor")?.settings.period_ms;
    ensure!(period == 300, "the last one counts, not {period}");
    await_pending(&mut world, 0)?;
    world.end()
}

#[test]
fn a_gateway_killed_after_it_took_a_command_delivers_it_though_nats_is_gone() -> Result<()> {
    let mut world = world()?;
    let id = send(&mut world, "patient", &["identify", "--ttl", LONG])?;
    await_pending(&mut world, 1)?;
    world.gateway().kill9()?;
    world.nats.stop()?;
    world.gateway().start_again()?;
    let mut probe = Probe::new("patient")?;
    let gateway = world.gateway().mqtt();
    probe.live(gateway, "the command", |probe| probe.identified == 1)?;
    probe.drain(gateway)?;
    await_pending(&mut world, 0)?;
    // Answered while NATS is away, the gateway killed again: nothing comes back.
    world.gateway().kill9()?;
    world.nats.start_again()?;
    world.gateway().start_again()?;
    await_outcome(&world, "patient", &id, "completed")?;
    probe.live_for(gateway, Duration::from_secs(2))?;
    ensure!(probe.identified == 1, "done once, not {} times", probe.identified);
    ensure!(count_of(&world, "patient", "command-completed")? == 1);
    world.end()
}

#[test]
fn a_command_that_comes_again_and_again_is_done_once() -> Result<()> {
    let mut world = world()?;
    let mut probe = Probe::new("once")?;
    let gateway = world.gateway().mqtt();
    probe.live(gateway, "a connection", |probe| probe.device.is_connected())?;
    // It does not answer: the gateway sends again.
    probe.deaf = true;
    let id = send(&mut world, "once", &["identify", "--id", "c-1"])?;
    probe.live(gateway, "the command three times", |probe| probe.received >= 3)?;
    probe.deaf = false;
    probe.live(gateway, "the command to be done", |probe| probe.identified == 1)?;
    probe.drain(gateway)?;
    await_outcome(&world, "once", &id, "completed")?;
    // The operator sends it again, the stream has it twice.
    let subject = format!("weir.1.commands.{SITE}.{}.once", world.gateway().id());
    world.nats.publish(&subject, &[], &identify("c-1", u64::MAX / 2))?;
    world.nats.publish(&subject, &[], &identify("c-2", u64::MAX / 2))?;
    probe.live(gateway, "the other command", |probe| probe.identified == 2)?;
    probe.drain(gateway)?;
    await_outcome(&world, "once", "c-2", "completed")?;
    ensure!(probe.identified == 2, "c-1 once and c-2 once, not {}", probe.identified);
    world.end()
}

#[test]
fn a_command_whose_deadline_passes_expires_and_history_and_state_say_so() -> Result<()> {
    let mut world = world()?;
    let mut probe = Probe::new("late")?;
    let gateway = world.gateway().mqtt();
    probe.drain(gateway)?;
    probe.lost()?;
    let wait = ["command", "late", "identify", "--ttl", "2s", "--wait", "--site", SITE, "--gateway"];
    let gateway_id = world.gateway().id().to_owned();
    let waited = world.cloud.weir_any(&[&wait[..], &[&gateway_id]].concat(), WITHIN)?;
    ensure!(waited.status.code() == Some(1) && waited.out.contains("\nexpired "), "{waited:?}");
    ensure!(count_of(&world, &gateway_id, "command-expired")? == 1);
    await_pending(&mut world, 0)?;
    probe.live_for(gateway, Duration::from_secs(1))?;
    ensure!(probe.identified == 0, "too late is too late");
    world.end()
}

#[test]
fn what_is_no_command_and_what_is_too_many_is_refused_and_told_and_the_rest_goes_on() -> Result<()> {
    let mut world = World::planned(Plan {
        gateway: Some(Box::new(|config: &mut Table| {
            let commands: Table = "per_device_max = 2".parse().expect("this is TOML");
            config.insert("commands".into(), commands.into());
        })),
        ..Plan::default()
    })?;
    let gateway_id = world.gateway().id().to_owned();
    let subject = format!("weir.1.commands.{SITE}.{gateway_id}.crowded");
    for poison in [&b"no cbor"[..], b"\x84", &[0xff; 3000]] {
        world.nats.publish(&subject, &[], poison)?;
    }
    let ids: Vec<String> =
        (0..3).map(|_| send(&mut world, "crowded", &["identify"])).collect::<Result<_>>()?;
    await_pending(&mut world, 2)?;
    eventually(SETTLED_WITHIN, "four refusals in the history", || {
        let refused = count_of(&world, &gateway_id, "command-refused")?;
        ensure!(refused == 4, "{refused}");
        Ok(Some(()))
    })?;
    let mut probe = Probe::new("crowded")?;
    let gateway = world.gateway().mqtt();
    probe.live(gateway, "two commands", |probe| probe.identified == 2)?;
    probe.drain(gateway)?;
    await_outcome(&world, "crowded", &ids[0], "completed")?;
    let refused = await_outcome(&world, "crowded", &ids[2], "refused")?;
    ensure!(refused["reason"].as_str().is_some_and(|reason| reason.contains("per_device_max")), "{refused}");
    let status = world.gateway().admin("/status")?["commands"].clone();
    ensure!(status["refused"] == 4 && status["pending"] == 0, "{status}");
    world.end()
}

#[test]
fn an_answer_given_while_nats_is_away_ends_the_command_and_arrives_later() -> Result<()> {
    let mut world = world()?;
    let id = send(&mut world, "cut-off", &["identify", "--ttl", LONG])?;
    await_pending(&mut world, 1)?;
    world.nats.stop()?;
    let mut probe = Probe::new("cut-off")?;
    let gateway = world.gateway().mqtt();
    probe.live(gateway, "the command", |probe| probe.identified == 1)?;
    probe.drain(gateway)?;
    await_pending(&mut world, 0)?;
    world.nats.start_again()?;
    await_outcome(&world, "cut-off", &id, "completed")?;
    world.end()
}

#[test]
fn commands_are_off_unless_switched_on_and_refused_with_what_is_wrong() -> Result<()> {
    let world = World::planned(Plan {
        cloud: Some(Box::new(|config: &mut Table| {
            config["api"].as_table_mut().expect("a section").remove("commands");
        })),
        ..Plan::default()
    })?;
    let off = world.cloud.weir_any(&["command", "d", "identify"], WITHIN)?;
    ensure!(off.status.code() == Some(2) && off.err.contains("commands = true"), "{off:?}");
    world.end()?;
    let mut world = World::start()?;
    let refused = |world: &World, arguments: &[&str]| -> Result<String> {
        let finished = world.cloud.weir_any(arguments, WITHIN)?;
        ensure!(!finished.status.success(), "{finished:?}");
        Ok(finished.err)
    };
    let said = refused(&world, &["command", "nobody", "identify"])?;
    ensure!(said.contains("nothing was ever heard of a device"), "{said}");
    let said =
        refused(&world, &["command", "nobody", "identify", "--ttl", "8d", "--site", "s", "--gateway", "g"])?;
    ensure!(said.contains("7 days"), "{said}");
    let long = format!("text={}", "x".repeat(2000));
    let said = refused(&world, &["command", "d", "say", "--arg", &long, "--site", "s", "--gateway", "g"])?;
    ensure!(said.contains("1024 bytes"), "{said}");
    world.nats.stop()?;
    let said = eventually(WITHIN, "the cloud to notice that NATS is away", || {
        let said = refused(&world, &["command", "d", "identify", "--site", "s", "--gateway", "g"])?;
        ensure!(said.contains("not sent"), "{said}");
        Ok(Some(said))
    })?;
    ensure!(said.contains("NATS"), "{said}");
    world.nats.start_again()?;
    world.end()
}

fn identify(id: &str, deadline_ms: u64) -> Vec<u8> {
    let command = Command { id: id.into(), name: "identify".into(), deadline_ms, args: &[0xa0] };
    let mut payload = vec![0; 200];
    let len = command.write(&mut payload).expect("room");
    payload.truncate(len);
    payload
}
