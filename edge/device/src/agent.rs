//! The agent: a device's sensors, how it is configured, and the commands that change that. The same for every device.
//!
//! # How a command is done
//!
//! ```text
//!   received ──► Duty::Keep ──► the shell keeps record() ──► kept ──► config-applied, command-completed, Duty::…
//! ```
//!
//! What a command changes is kept where it outlives a power cut *before* it is done and answered. Whenever the power is
//! cut, the command was kept, and will be answered when it comes again; or it was not, and is done when it comes again.
//! A restart is told to be completed after it.
//!
//! # The record
//!
//! One opaque CBOR item of at most [`record_len_max`] bytes: revision, settings that commands have changed, ids of the
//! latest commands, a restart under way. Whoever keeps it (EEPROM, flash, file) keeps it whole or keeps the one before.

use heapless::{String, Vec};
use weir_contract::body::{Body, Outcome, Scalar};
use weir_contract::cbor::{Reader, Writer};
use weir_contract::command::{COMMAND_ID_LEN_MAX, Command};
use weir_contract::order::{BadOrder, Order};
use weir_contract::topic::Topic;
use weir_contract::{Id, Malformed, NAME_LEN_MAX, NoRoom, Text, What};

use crate::device::Device;
use crate::memory::Memory;
use crate::recent::{COMMANDS_REMEMBERED, Recent, Seen, hash};
use crate::sampler::{Crossing, Limit, Sampler};

/// The most sensors of a device, so that its configuration fits in an event.
pub const SENSORS_MAX: usize = 8;
/// How long a device that is to restart may go on to deliver what it has, in milliseconds.
pub const RESTART_WAIT_MS_MAX: u64 = 5_000;

const RECORD_VERSION: u64 = 1;
/// `name: {"period_ms": …, "limit": …, "hysteresis": …}`
const CONFIG_SENSOR_LEN_MAX: usize = (2 + NAME_LEN_MAX) + 1 + (10 + 5) + (6 + 9) + (11 + 9);
const CONFIG_LEN_MAX: usize = 1 + SENSORS_MAX * CONFIG_SENSOR_LEN_MAX;
/// What an order may fail with, where it names the sensors.
const REASON_LEN_MAX: usize = 32 + SENSORS_MAX * (NAME_LEN_MAX + 2);

/// The most bytes of the record of an agent with so many sensors.
pub const fn record_len_max(sensors: usize) -> usize {
    const HEAD: usize = 1 + 1 + 9 + 1 + 1;
    const SENSOR: usize = (2 + NAME_LEN_MAX) + 1 + 5 + 9 + 9;
    const COMMAND: usize = 1 + 9 + 1;
    HEAD + sensors * SENSOR + (COMMANDS_REMEMBERED + 1) * COMMAND + 2 + COMMAND_ID_LEN_MAX
}

/// A sensor, as the device is built with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensor {
    /// Its name in events and commands.
    pub name: Id,
    /// A unit of SenML (RFC 8428 §12.1).
    pub unit: Option<&'static str>,
    /// A smaller change than this is not reported (0: every reading is).
    pub change_min: f64,
    /// … unless nothing was reported for so long.
    pub silence_ms_max: u64,
    /// What commands can change.
    pub settings: Settings,
}

/// What commands can change of a sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How often it is read.
    pub period_ms: u32,
    /// Where an event is due, if anywhere.
    pub limit: Option<Threshold>,
}

/// A limit and how far a value must fall below it to be below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The limit.
    pub limit: f64,
    /// 0 or more.
    pub hysteresis: f64,
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Duty {
    /// Nothing.
    Nothing,
    /// Keep [`Agent::record`] where it outlives a power cut, then call [`Agent::kept`], or [`Agent::not_kept`] if that
    /// cannot be done. Until then the agent takes no further command; gateways send them again.
    Keep,
    /// Show which device this is: blink, beep.
    Identify,
    /// Restart as soon as all events are acknowledged, after [`RESTART_WAIT_MS_MAX`] at the latest.
    Restart,
}

/// A record is none of an agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRecord;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Agent<const SENSORS: usize> {
    revision: u64,
    sensors: Vec<Fitted, SENSORS>,
    pending: Option<Pending>,
    /// The command by which the device restarts.
    restarting: Option<String<COMMAND_ID_LEN_MAX>>,
}

/// A sensor in use.
#[derive(Debug, Clone)]
struct Fitted {
    sensor: Sensor,
    /// Its settings are no more those it was built with.
    changed: bool,
    sampler: Sampler,
    limit: Option<Limit>,
}

/// What is done as soon as it is kept.
#[derive(Debug, Clone)]
struct Pending {
    /// `None`: nothing but that a restart was told to be completed.
    id: Option<String<COMMAND_ID_LEN_MAX>>,
    change: Change,
}

/// Why a command cannot be done.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    BadOrder(BadOrder),
    NoSuchSensor,
    LongId,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Period { sensor: Option<usize>, period_ms: u32 },
    Limit { sensor: usize, limit: Option<Threshold> },
    Restart,
    Identify,
    Nothing,
}

impl<const SENSORS: usize> Agent<SENSORS> {
    const FIT_IN_AN_EVENT: () = assert!(SENSORS <= SENSORS_MAX, "a configuration must fit in an event");

    /// An agent for these sensors, as they are built.
    ///
    /// # Panics
    /// If there are more than `SENSORS`.
    pub fn new(sensors: &[Sensor]) -> Self {
        let () = Self::FIT_IN_AN_EVENT;
        let fitted = sensors.iter().map(|sensor| Fitted::new(*sensor));
        assert!(sensors.len() <= SENSORS, "more sensors than there is room for");
        Self { revision: 0, sensors: fitted.collect(), pending: None, restarting: None }
    }

    /// Goes on as an earlier boot has left it. Settings of sensors that are no longer there are let go.
    ///
    /// # Errors
    /// [`BadRecord`] changes nothing: the device is as it was built.
    pub fn restore<M: Memory, const W: usize>(
        &mut self,
        device: &mut Device<M, W>,
        record: &[u8],
    ) -> Result<(), BadRecord> {
        let mut restored = self.clone();
        let commands = restored.read_record(record).map_err(|_| BadRecord)?;
        *self = restored;
        device.remember(commands);
        Ok(())
    }

    /// To be called once, after the device's `device-started` was emitted: tells how the device is configured, if that
    /// is not as it was built, and that a restart is completed.
    pub fn started<M: Memory, const W: usize>(&mut self, now: u64, device: &mut Device<M, W>) -> Duty {
        if self.revision > 0 {
            self.tell_config(now, device);
        }
        let Some(id) = self.restarting.take() else { return Duty::Nothing };
        let _ = device.answer(now, id.as_str().into(), Outcome::Completed, None, None);
        self.pending = Some(Pending { id: None, change: Change::Nothing });
        Duty::Keep
    }

    /// A message has come: the time, or a command.
    ///
    /// # Errors
    /// The payload is not what the contract says for this topic; nothing has changed.
    pub fn received<M: Memory, const W: usize>(
        &mut self,
        now: u64,
        device: &mut Device<M, W>,
        topic: &str,
        payload: &[u8],
    ) -> Result<Duty, Malformed> {
        if self.pending.is_some() && matches!(Topic::parse(topic), Some(Topic::Commands(_))) {
            return Ok(Duty::Keep);
        }
        let Some(command) = device.received(now, topic, payload)? else { return Ok(Duty::Nothing) };
        match self.plan(&command) {
            Ok(pending) => {
                self.pending = Some(pending);
                Ok(Duty::Keep)
            }
            Err(refusal) => {
                let reason = self.reason(refusal);
                let _ = device.answer(now, command.id, Outcome::Failed, Some(&reason), None);
                Ok(Duty::Nothing)
            }
        }
    }

    /// What `command` asks for, or why it cannot be done.
    fn plan(&self, command: &Command<'_>) -> Result<Pending, Refusal> {
        let change = match Order::read(command).map_err(Refusal::BadOrder)? {
            Order::SetPeriod { sensor, period_ms } => {
                let sensor = sensor.map(|name| self.find(&name)).transpose()?;
                Change::Period { sensor, period_ms }
            }
            Order::SetLimit { sensor, limit, hysteresis } => Change::Limit {
                sensor: self.find(&sensor)?,
                limit: limit.map(|limit| Threshold { limit, hysteresis }),
            },
            Order::Restart => Change::Restart,
            Order::Identify => Change::Identify,
        };
        let mut id = String::new();
        command.id.chunks().try_for_each(|chunk| id.push_str(chunk)).map_err(|_| Refusal::LongId)?;
        Ok(Pending { id: Some(id), change })
    }

    fn find(&self, name: &Id) -> Result<usize, Refusal> {
        self.sensors.iter().position(|fitted| fitted.sensor.name == *name).ok_or(Refusal::NoSuchSensor)
    }

    /// A refusal in words that name what is allowed.
    fn reason(&self, refusal: Refusal) -> String<REASON_LEN_MAX> {
        let mut reason = String::new();
        // All names fit, as many and as long as they may be.
        let mut say = |text: &str| drop(reason.push_str(text));
        match refusal {
            Refusal::BadOrder(bad) => say(bad.reason()),
            Refusal::LongId => say("an id has at most 64 bytes"),
            Refusal::NoSuchSensor => {
                say("no such sensor; there are");
                for fitted in &self.sensors {
                    say(" ");
                    say(&fitted.sensor.name);
                }
            }
        }
        reason
    }

    /// The record is kept: does what it was kept for.
    pub fn kept<M: Memory, const W: usize>(&mut self, now: u64, device: &mut Device<M, W>) -> Duty {
        let Some(Pending { id, change }) = self.pending.take() else { return Duty::Nothing };
        if change.is_of_settings() {
            self.revision = self.revision.saturating_add(1);
            for (index, fitted) in self.sensors.iter_mut().enumerate() {
                if let Some(settings) = change.applied(index, &fitted.sensor.settings) {
                    fitted.set(now, settings);
                }
            }
            self.tell_config(now, device);
        }
        if let Change::Restart = change {
            self.restarting = id;
            return Duty::Restart;
        }
        if let Some(id) = id {
            let _ = device.answer(now, id.as_str().into(), Outcome::Completed, None, None);
        }
        if let Change::Identify = change { Duty::Identify } else { Duty::Nothing }
    }

    /// The record could not be kept: what it was to be kept for is not done.
    pub fn not_kept<M: Memory, const W: usize>(&mut self, now: u64, device: &mut Device<M, W>) {
        if let Some(Pending { id: Some(id), .. }) = self.pending.take() {
            let reason = Some("the device cannot write its memory");
            let _ = device.answer(now, id.as_str().into(), Outcome::Failed, reason, None);
        }
    }

    fn tell_config<M: Memory, const W: usize>(&self, now: u64, device: &mut Device<M, W>) {
        let mut config = [0; CONFIG_LEN_MAX];
        let len = self.write_config(&mut config).expect("as many bytes as the most sensors take");
        // A loss is in the ledger, and the configuration is told again at the next start.
        let _ = device.emit(now, &Body::ConfigApplied { revision: self.revision, config: &config[..len] });
    }

    /// Writes `{name: {"period_ms": …, "limit": …, "hysteresis": …}, …}` and returns its length.
    fn write_config(&self, buffer: &mut [u8]) -> Result<usize, NoRoom> {
        let mut w = Writer::new(buffer);
        w.map(self.sensors.len());
        for Fitted { sensor: Sensor { name, settings, .. }, .. } in &self.sensors {
            w.str(name).map(if settings.limit.is_some() { 3 } else { 1 });
            w.str("period_ms").u64(settings.period_ms.into());
            if let Some(Threshold { limit, hysteresis }) = settings.limit {
                w.str("limit").float(limit).str("hysteresis").float(hysteresis);
            }
        }
        w.end()
    }

    /// How often its configuration has changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The sensors with their present settings, in the order given.
    pub fn sensors(&self) -> impl ExactSizeIterator<Item = &Sensor> {
        self.sensors.iter().map(|fitted| &fitted.sensor)
    }

    /// When the next sensor is to be read.
    pub fn due_at(&self) -> Option<u64> {
        self.sensors.iter().map(|fitted| fitted.sampler.due_at()).min()
    }

    /// A sensor that is to be read at `now`, by its place in the order given: the one that waits longest.
    pub fn due(&self, now: u64) -> Option<usize> {
        let due = self.sensors.iter().enumerate().map(|(index, fitted)| (fitted.sampler.due_at(), index));
        due.min().filter(|(due_at, _)| *due_at <= now).map(|(_, index)| index)
    }

    /// A sensor was read: emits what of that is worth an event.
    ///
    /// # Panics
    /// If there is no such sensor.
    pub fn sample<M: Memory, const W: usize>(
        &mut self,
        now: u64,
        device: &mut Device<M, W>,
        index: usize,
        value: f64,
    ) {
        let Fitted { sensor: Sensor { name, unit, .. }, sampler, .. } = &mut self.sensors[index];
        if sampler.sample(now, value) {
            let unit = unit.map(Text::from);
            // A loss, here and below, is in the ledger.
            let _ =
                device.emit(now, &Body::ReadingTaken { sensor: *name, value: Scalar::Float(value), unit });
        }
        if let Some(crossed) = self.watch(index, value) {
            let _ = device.emit(now, &crossed);
        }
    }

    /// The `limit-crossed` of a value, if it crosses.
    ///
    /// # Panics
    /// If there is no such sensor.
    pub fn watch(&mut self, index: usize, value: f64) -> Option<Body<'static>> {
        let fitted = &mut self.sensors[index];
        let limit = fitted.limit.as_mut()?;
        let crossing = limit.watch(value)?;
        Some(Body::LimitCrossed {
            sensor: fitted.sensor.name,
            value,
            limit: limit.limit(),
            rising: crossing == Crossing::Rising,
        })
    }

    /// Writes what is to be kept, with what is pending as if it were done, and returns its length, which is at most
    /// [`record_len_max`].
    ///
    /// # Errors
    /// [`NoRoom`] if `buffer` is too short.
    pub fn record<M: Memory, const W: usize>(
        &self,
        device: &Device<M, W>,
        buffer: &mut [u8],
    ) -> Result<usize, NoRoom> {
        let mut w = Writer::new(buffer);
        self.write_record(&mut w, device.commands());
        w.end()
    }
}

impl Fitted {
    fn new(sensor: Sensor) -> Self {
        let Sensor { change_min, silence_ms_max, settings: Settings { period_ms, limit }, .. } = sensor;
        Self {
            sensor,
            changed: false,
            sampler: Sampler::new(period_ms.into(), change_min, silence_ms_max),
            limit: limit.map(|Threshold { limit, hysteresis }| Limit::new(limit, hysteresis)),
        }
    }

    fn set(&mut self, now: u64, settings: Settings) {
        if settings.limit != self.sensor.settings.limit {
            self.limit = settings.limit.map(|Threshold { limit, hysteresis }| Limit::new(limit, hysteresis));
        }
        self.sampler.set_period(now, settings.period_ms.into());
        self.sensor.settings = settings;
        self.changed = true;
    }
}

impl Change {
    fn is_of_settings(self) -> bool {
        matches!(self, Change::Period { .. } | Change::Limit { .. })
    }

    /// What becomes of the settings of the sensor in this place; `None` if they are not changed.
    fn applied(self, index: usize, settings: &Settings) -> Option<Settings> {
        match self {
            Change::Period { sensor, period_ms } if sensor.is_none_or(|sensor| sensor == index) => {
                Some(Settings { period_ms, ..*settings })
            }
            Change::Limit { sensor, limit } if sensor == index => Some(Settings { limit, ..*settings }),
            _ => None,
        }
    }
}

/// The record: `[version, revision, {name: [period_ms, limit / null, hysteresis]}, [[id's hash, done], …], restarting / null]`.
impl<const SENSORS: usize> Agent<SENSORS> {
    fn write_record(&self, w: &mut Writer<'_>, commands: &Recent) {
        let change = self.pending.as_ref().map_or(Change::Nothing, |pending| pending.change);
        let revision = self.revision.saturating_add(u64::from(change.is_of_settings()));
        w.array(5).u64(RECORD_VERSION).u64(revision);
        let settings = self.sensors.iter().enumerate().filter_map(|(index, fitted)| {
            let Sensor { name, settings, .. } = &fitted.sensor;
            let applied = change.applied(index, settings);
            applied.or(fitted.changed.then_some(*settings)).map(|settings| (name, settings))
        });
        w.map(settings.clone().count());
        for (name, Settings { period_ms, limit }) in settings {
            w.str(name).array(3).u64(period_ms.into());
            match limit {
                Some(Threshold { limit, hysteresis }) => w.float(limit).float(hysteresis),
                None => w.null().u64(0),
            };
        }
        let pending_id = self.pending.as_ref().and_then(|pending| pending.id.as_ref());
        let (restarting, done) = match change {
            Change::Restart => (pending_id, None),
            _ => (self.restarting.as_ref(), pending_id),
        };
        let done = done.map(|id| hash(&id.as_str().into()));
        // What was accepted and not done is to be done when it comes again; the pending one comes last.
        let seen = || {
            let ended = commands.iter().filter(|seen| seen.outcome != Outcome::Accepted);
            ended.filter(|seen| Some(seen.id_hash) != done)
        };
        w.array(seen().count() + usize::from(done.is_some()));
        for Seen { id_hash, outcome, .. } in seen() {
            w.array(2).u64(*id_hash).bool(*outcome == Outcome::Completed);
        }
        if let Some(id_hash) = done {
            w.array(2).u64(id_hash).bool(true);
        }
        match restarting {
            Some(id) => w.str(id),
            None => w.null(),
        };
    }

    fn read_record(&mut self, record: &[u8]) -> Result<Recent, Malformed> {
        let mut r = Reader::new(record);
        if r.array("a record")?.counted() != Some(5) || r.u64("a version")? != RECORD_VERSION {
            return r.refuse(What::Expected("a record of version 1"));
        }
        self.revision = r.u64("a revision")?;
        let mut changed = r.map("settings")?;
        while r.more(&mut changed)? {
            let name = r.text("a sensor")?;
            r.array("a sensor's settings")?;
            let period_ms = r.u32("a period")?;
            let limit = if r.null()? { None } else { Some(r.f64("a limit")?) };
            let hysteresis = r.f64("a hysteresis")?;
            let limit = limit.map(|limit| Threshold { limit, hysteresis });
            if let Some(fitted) = self.sensors.iter_mut().find(|fitted| name == *fitted.sensor.name) {
                fitted.set(0, Settings { period_ms, limit });
            }
        }
        let mut commands = Recent::default();
        let mut seen = r.array("commands")?;
        while r.more(&mut seen)? {
            r.array("a command")?;
            let id_hash = r.u64("its id")?;
            let outcome = if r.bool("its end")? { Outcome::Completed } else { Outcome::Failed };
            commands.push(Seen { id_hash, outcome, told: false });
        }
        self.restarting = None;
        if !r.null()? {
            let id = r.text("a command's id")?;
            let mut restarting = String::new();
            if id.chunks().try_for_each(|chunk| restarting.push_str(chunk)).is_err() {
                return r.refuse(What::Expected("a shorter id"));
            }
            self.restarting = Some(restarting);
        }
        Ok(commands)
    }
}
