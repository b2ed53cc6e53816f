//! One simulated device: carries bytes and time between a [`Device`] and its [`Link`], and does to it what can go wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fastrand::Rng;
use rumqttc::Transport;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};
use weir_contract::time::Time;
use weir_contract::{Id, topic};
use weir_device::{
    Action, Config, Device, Duty, Emitted, Memory, Publish, RESTART_WAIT_MS_MAX, Ram, SENSORS_MAX, Settings,
    Token, record_len_max,
};

use super::Fleet;
use super::faults::{Clock, Fault, FaultPlan};
use super::link::{Link, Told};
use super::profile::{Observation, Observer, SimAgent};
use crate::manifest::{BootEntry, DeviceEntry};

/// Uplinks in flight at most, whatever is asked for.
const WINDOW: usize = super::WINDOW_MAX as usize;
/// Events emitted at most before the connection is looked after again.
const EMITTED_AT_ONCE_MAX: u64 = 256;
const WAIT_MS_MAX: u64 = 60_000;

thread_local! {
    /// Where uplinks are written before they are published: one for each thread, not one for each device.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Its memory outlives a cut of power, as an EEPROM's would.
type Outlasting = Ram<Box<[u8]>>;
type SimDevice = Device<Outlasting, WINDOW>;

/// What the whole fleet is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Events, faults.
    Running,
    /// No new events, no faults: everything kept is to be acknowledged.
    Draining,
    /// Stop now.
    Stopped,
}

/// A device and all around it.
pub(super) struct Actor {
    fleet: Arc<Fleet>,
    id: Id,
    topic: String,
    rng: Rng,
    observer: Observer,
    faults: FaultPlan,
    device: SimDevice,
    agent: SimAgent,
    /// What the agent wants to be kept over a power cut.
    record: Option<Vec<u8>>,
    /// A command says so: as soon as all is acknowledged, or then.
    restart_at: Option<Instant>,
    clock: Clock,
    powered_at: Instant,
    link: Option<Link>,
    transport: Transport,
    next_event: Schedule,
    next_fault: Option<(Instant, Fault)>,
    reason: Option<&'static str>,
    /// The greatest number of each boot, in order of boots.
    numbers: Vec<(u64, u32)>,
    /// When each uplink that is not acknowledged was first published.
    published_at: HashMap<Token, Instant>,
}

/// Events of each source at even intervals, as long as the power is on.
struct Schedule {
    /// When the next event of each is due, and how often there is one.
    sources: Vec<(Instant, Duration)>,
    left: u64,
}

impl Actor {
    pub(super) fn new(
        fleet: Arc<Fleet>,
        number: usize,
        id: Id,
        transport: Transport,
        started: Instant,
    ) -> Self {
        let options = &fleet.options;
        let mut rng = Rng::with_seed(options.seed.wrapping_add(1 + number as u64));
        let mut faults = FaultPlan::new(options.faults, rng.fork());
        let clock = faults.clock();
        let phase = fleet.interval().mul_f64(number as f64 / options.devices as f64);
        let sources = options.profile.sources();
        let next_event = Schedule::new(started + phase, fleet.interval(), sources, options.events_per_device);
        let next_fault = next_fault(&mut faults, started);
        // Not all of them knock at the same moment.
        let connect_at = number as u64 * 1000 / super::CONNECTS_PER_S;
        let memory = Ram::new(vec![0; options.outbox_bytes].into_boxed_slice());
        let (boot, device) = power_up(&fleet, id, connect_at, &mut rng, memory);
        Self {
            topic: topic::events(&id).to_string(),
            observer: Observer::new(options.profile, options.body_bytes, rng.fork()),
            faults,
            device,
            agent: agent(&fleet),
            record: None,
            restart_at: None,
            clock,
            powered_at: started,
            link: None,
            transport,
            next_event,
            next_fault,
            reason: Some("power-on"),
            numbers: vec![(boot, 0)],
            published_at: HashMap::new(),
            rng,
            id,
            fleet,
        }
    }

    /// Lives until the fleet stops, or has drained. Tells what it emitted.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) -> DeviceEntry {
        loop {
            let now_phase = *phase.borrow_and_update();
            match now_phase {
                Phase::Running => {
                    self.emit_what_is_due();
                    self.restart_if_due();
                    self.suffer_what_is_due().await;
                }
                Phase::Draining => {
                    self.device.flush();
                    if self.device.is_drained() {
                        break;
                    }
                }
                Phase::Stopped => break,
            }
            let wake = self.act(now_phase);
            let told = async {
                match &mut self.link {
                    Some(link) => link.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = told => self.hear(told),
                () = sleep_until(wake) => {}
                changed = phase.changed() => if changed.is_err() { break },
            }
        }
        if let Some(link) = self.link.take() {
            link.disconnect().await;
        }
        self.entry()
    }

    /// Milliseconds since boot, by the device's clock.
    fn now(&self) -> u64 {
        let elapsed_ms = self.powered_at.elapsed().as_secs_f64() * 1000.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and `as` saturates"
        )]
        let now = (elapsed_ms * self.clock.rate) as u64;
        now
    }

    fn is_powered(&self) -> bool {
        self.powered_at <= Instant::now()
    }

    fn emit_what_is_due(&mut self) {
        for _ in 0..EMITTED_AT_ONCE_MAX {
            if !self.is_powered() {
                return;
            }
            let Some(source) = self.next_event.take_due() else { return };
            let now = self.now();
            let reason = self.reason.take();
            let Observation { kind, version, body } = match reason {
                Some(reason) => self.observer.started(reason),
                None => self.observer.observe(source, &mut self.agent),
            };
            let emitted = self.device.emit_raw(now, &kind, version, &body);
            self.count(emitted);
            if reason.is_some() {
                let before = self.device.outbox().last();
                let duty = self.agent.started(now, &mut self.device);
                self.obey(now, duty);
                self.count_since(before);
            }
        }
    }

    /// Does what the agent says has to be done.
    fn obey(&mut self, now: u64, mut duty: Duty) {
        while duty == Duty::Keep {
            let mut record = vec![0; record_len_max(SENSORS_MAX)];
            let len = self.agent.record(&self.device, &mut record).expect("as long as it may be");
            record.truncate(len);
            self.record = Some(record);
            let before: Vec<Settings> = self.agent.sensors().map(|sensor| sensor.settings).collect();
            duty = self.agent.kept(now, &mut self.device);
            for (source, (sensor, before)) in self.agent.sensors().zip(before).enumerate() {
                if sensor.settings.period_ms != before.period_ms {
                    let period = Duration::from_millis(sensor.settings.period_ms.into());
                    self.next_event.set_interval(source, period);
                }
            }
        }
        match duty {
            Duty::Restart => {
                self.restart_at = Some(Instant::now() + Duration::from_millis(RESTART_WAIT_MS_MAX));
            }
            Duty::Identify => tracing::info!(device = %self.id, "here I am"),
            Duty::Nothing | Duty::Keep => {}
        }
    }

    fn restart_if_due(&mut self) {
        let Some(restart_at) = self.restart_at else { return };
        if self.is_powered() && (self.device.is_drained() || Instant::now() >= restart_at) {
            self.cut_power("command");
        }
    }

    /// Counts what the device has emitted by itself since its number `before`.
    fn count_since(&mut self, before: u32) {
        let emitted = self.device.outbox().last() - before;
        self.fleet.stats.emitted.fetch_add(emitted.into(), Relaxed);
        self.note_numbers();
    }

    fn count(&mut self, emitted: Emitted) {
        let stats = &self.fleet.stats;
        match emitted {
            Emitted::Kept(_) => stats.emitted.fetch_add(1, Relaxed),
            Emitted::Lost(_) => {
                stats.lost.fetch_add(1, Relaxed);
                stats.emitted.fetch_add(1, Relaxed)
            }
            Emitted::Exhausted => 0,
        };
        self.note_numbers();
    }

    /// Numbers are given by emitting, and by polling, which may tell of a loss.
    fn note_numbers(&mut self) {
        if let Some(present) = self.numbers.last_mut() {
            present.1 = self.device.outbox().last();
        }
    }

    async fn suffer_what_is_due(&mut self) {
        let Some((at, fault)) = self.next_fault else { return };
        if Instant::now() < at || !self.is_powered() {
            return;
        }
        self.next_fault = next_fault(&mut self.faults, Instant::now());
        self.suffer(fault).await;
    }

    async fn suffer(&mut self, fault: Fault) {
        let stats = &self.fleet.stats;
        if fault == Fault::Boot {
            stats.boots.fetch_add(1, Relaxed);
            self.cut_power("power-cut");
            return;
        }
        let Some(link) = self.link.take() else { return };
        match fault {
            Fault::Reconnect => {
                stats.reconnects.fetch_add(1, Relaxed);
                link.disconnect().await;
            }
            Fault::Silence => {
                stats.silences.fetch_add(1, Relaxed);
                link.fall_silent();
            }
            Fault::Drop | Fault::Boot => {
                stats.drops.fetch_add(1, Relaxed);
                drop(link);
            }
        }
        self.lost_connection();
    }

    /// Switches the device off for a while; it starts again for `reason`, with its outboxes and its record.
    fn cut_power(&mut self, reason: &'static str) {
        self.restart_at = None;
        if self.link.take().is_some() && self.device.is_connected() {
            self.fleet.stats.connected.fetch_sub(1, Relaxed);
        }
        self.published_at.clear();
        let off = Duration::from_millis(self.faults.power_off_ms());
        self.powered_at = Instant::now() + off;
        self.next_event.pause_until(self.powered_at);
        let none = Ram::new(Box::default());
        let (_, nobody) = power_up(&self.fleet, self.id, 0, &mut self.rng, none);
        let memory = std::mem::replace(&mut self.device, nobody).power_off();
        let (boot, device) = power_up(&self.fleet, self.id, 0, &mut self.rng, memory);
        self.device = device;
        self.numbers.push((boot, 0));
        self.reason = Some(reason);
        self.agent = agent(&self.fleet);
        if let Some(record) = &self.record {
            self.agent.restore(&mut self.device, record).expect("its own record");
        }
    }

    /// Does what the device wants done; returns when to come back if nothing happens before.
    fn act(&mut self, phase: Phase) -> Instant {
        if !self.is_powered() {
            return self.powered_at;
        }
        let wait_ms = BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < self.fleet.uplink_len_max() {
                buffer.resize(self.fleet.uplink_len_max(), 0);
            }
            self.act_until_wait(buffer)
        });
        self.note_numbers();
        let mut wake = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        if phase == Phase::Running {
            let due = [self.next_event.due(), self.next_fault.map(|fault| fault.0), self.restart_at];
            wake = due.into_iter().flatten().fold(wake, Instant::min);
        }
        wake
    }

    fn act_until_wait(&mut self, buffer: &mut [u8]) -> u64 {
        loop {
            let now = self.now();
            match self.device.poll(now, buffer) {
                Action::Wait(until) => return until.map_or(WAIT_MS_MAX, |until| until.saturating_sub(now)),
                Action::Connect => self.connect(),
                Action::Subscribe => {
                    if let Some(link) = &mut self.link {
                        link.subscribe(&self.id);
                    }
                }
                Action::Publish(publish) => self.publish(&publish),
            }
        }
    }

    fn publish(&mut self, publish: &Publish<'_>) {
        let twice = self.faults.duplicates();
        if let Some(link) = &mut self.link {
            link.publish(&self.topic, publish.payload, Some(publish.token));
            if twice {
                link.publish(&self.topic, publish.payload, None);
            }
        }
        let stats = &self.fleet.stats;
        stats.published.fetch_add(1, Relaxed);
        stats.published_bytes.fetch_add(publish.payload.len() as u64, Relaxed);
        stats.duplicates.fetch_add(u64::from(twice), Relaxed);
        stats.again.fetch_add(u64::from(publish.again), Relaxed);
        self.published_at.entry(publish.token).or_insert_with(Instant::now);
    }

    fn connect(&mut self) {
        let login = self.fleet.options.target.login(&self.id);
        self.link = Some(Link::connect(&self.fleet.link, &self.id, self.transport.clone(), login));
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Connected => {
                self.device.connected();
                let stats = &self.fleet.stats;
                stats.connects.fetch_add(1, Relaxed);
                stats.connected.fetch_add(1, Relaxed);
            }
            Told::Ended(why) => {
                debug!(device = %self.id, why, "connection ended");
                self.fleet.stats.trouble(&why);
                self.link = None;
                self.lost_connection();
            }
            Told::Acknowledged(token) => {
                if let Some(acknowledged) = self.device.acknowledged(token) {
                    let stats = &self.fleet.stats;
                    stats.acknowledged.fetch_add(u64::from(acknowledged.events()), Relaxed);
                    stats.acknowledged_uplinks.fetch_add(1, Relaxed);
                    if let Some(published_at) = self.published_at.remove(&token) {
                        stats.record_latency(published_at.elapsed());
                    }
                }
            }
            Told::Message { topic, payload } => self.receive(&topic, &payload),
        }
    }

    fn lost_connection(&mut self) {
        if self.device.is_connected() {
            self.fleet.stats.connected.fetch_sub(1, Relaxed);
        }
        let now = self.now();
        self.device.disconnected(now);
    }

    fn receive(&mut self, topic: &str, payload: &[u8]) {
        let now = self.now();
        if topic.ends_with("/time") && self.clock != Clock::default() {
            return self.hear_time_wrong(now, payload);
        }
        let before = self.device.outbox().last();
        match self.agent.received(now, &mut self.device, topic, payload) {
            Ok(Duty::Nothing) => {}
            Ok(duty) => {
                self.fleet.stats.commands.fetch_add(1, Relaxed);
                self.obey(now, duty);
            }
            Err(error) => warn!(device = %self.id, topic, %error, "cannot read a message of the gateway"),
        }
        self.count_since(before);
    }

    fn hear_time_wrong(&mut self, now: u64, payload: &[u8]) {
        if !self.clock.deaf
            && let Ok(Time { unix_ms }) = Time::read(payload)
        {
            self.device.time_is(now, unix_ms.saturating_add_signed(self.clock.told_off_by_ms));
        }
    }

    /// What it emitted, and what of it was not acknowledged in the end.
    fn entry(&self) -> DeviceEntry {
        let mut unacknowledged: BTreeMap<u64, Vec<[u32; 2]>> = BTreeMap::new();
        let memory = self.device.outbox().memory();
        for (boot, seq) in memory.kept() {
            add_to_runs(unacknowledged.entry(boot).or_default(), seq, seq);
        }
        for loss in memory.losses() {
            let uncovered = u64::from(loss.to - loss.from) + 1;
            self.fleet.stats.uncovered.fetch_add(uncovered, Relaxed);
            add_to_runs(unacknowledged.entry(loss.boot).or_default(), loss.from, loss.to);
        }
        let boots = self.numbers.iter().filter(|(_, last)| *last > 0);
        let boots = boots.map(|&(boot, emitted)| BootEntry {
            boot,
            emitted,
            unacknowledged: unacknowledged.remove(&boot).unwrap_or_default(),
        });
        DeviceEntry { device: self.id.to_string(), boots: boots.collect() }
    }
}

impl Schedule {
    /// Together the sources have an event every `interval`.
    fn new(first: Instant, interval: Duration, sources: usize, left: u64) -> Self {
        let each = interval * u32::try_from(sources).expect("few");
        let sources =
            (0..sources).map(|source| (first + interval * u32::try_from(source).expect("few"), each));
        Self { sources: sources.collect(), left }
    }

    /// When the next event is due; `None` if there will be none.
    fn due(&self) -> Option<Instant> {
        self.sources.iter().map(|(next, _)| *next).min().filter(|_| self.left > 0)
    }

    /// The source of an event that is due now; it is taken as emitted.
    fn take_due(&mut self) -> Option<usize> {
        let due = self.due().filter(|due| *due <= Instant::now())?;
        let source = self.sources.iter().position(|(next, _)| *next == due)?;
        let (next, interval) = &mut self.sources[source];
        *next += *interval;
        self.left -= 1;
        Some(source)
    }

    /// From now on this often: the next one after that, or when it was due if that is sooner.
    fn set_interval(&mut self, source: usize, new: Duration) {
        if let Some((next, interval)) = self.sources.get_mut(source) {
            *next = (*next).min(Instant::now() + new);
            *interval = new;
        }
    }

    /// Nothing is observed without power, and nothing is made up for afterwards.
    fn pause_until(&mut self, time: Instant) {
        let Some(first) = self.sources.iter().map(|(next, _)| *next).min() else { return };
        let late = time.saturating_duration_since(first);
        self.sources.iter_mut().for_each(|(next, _)| *next += late);
    }
}

/// The sensors as the device is built: together they have an event every interval.
fn agent(fleet: &Fleet) -> SimAgent {
    let profile = fleet.options.profile;
    let period = fleet.interval() * u32::try_from(profile.sources()).expect("few");
    let period_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX).max(1);
    SimAgent::new(&profile.sensors(period_ms))
}

fn next_fault(faults: &mut FaultPlan, now: Instant) -> Option<(Instant, Fault)> {
    faults.next().map(|(wait_ms, fault)| (now + Duration::from_millis(wait_ms), fault))
}

/// A boot's number is drawn anew at each power-up, as devices without memory of their own do.
fn power_up(fleet: &Fleet, id: Id, connect_at: u64, rng: &mut Rng, memory: Outlasting) -> (u64, SimDevice) {
    let options = &fleet.options;
    let boot = rng.u64(..);
    let config = Config {
        window: options.window,
        uplink_events_max: options.batch,
        uplink_len_max: fleet.uplink_len_max(),
        linger_ms: options.linger_ms,
        connect_at,
        backoff_ms_min: 200,
        backoff_ms_max: 5000,
        ..Config::new(id)
    };
    (boot, Device::new(config, boot, memory, rng.u64(..)))
}

/// Adds `from ..= to`, which are above all before, to runs `[from, to]`.
fn add_to_runs(runs: &mut Vec<[u32; 2]>, from: u32, to: u32) {
    match runs.last_mut() {
        Some([_, last]) if *last + 1 == from => *last = to,
        _ => runs.push([from, to]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_runs() {
        let mut runs = vec![];
        for (from, to) in [(1, 1), (2, 2), (3, 3), (7, 7), (9, 9), (10, 20)] {
            add_to_runs(&mut runs, from, to);
        }
        assert_eq!(runs, [[1, 3], [7, 7], [9, 20]]);
    }
}
