//! One device: its outbox, its session, its clock and the commands it has seen, as one state machine.

use weir_contract::body::{Body, Outcome};
use weir_contract::command::Command;
use weir_contract::time::Time;
use weir_contract::topic::Topic;
use weir_contract::uplink::{HEADER_LEN_MAX, Header, UPLINK_EVENTS_MAX, UPLINK_LEN_MAX};
use weir_contract::{Id, Kind, Malformed, Text};

use crate::memory::{Memory, Unreadable};
use crate::outbox::{Acknowledged, Emitted, Outbox, Readiness, Token, UplinkLimits};
use crate::recent::Recent;
use crate::session::{Backoff, Session, Step};

/// A known beginning of the boot is corrected only if the gateway's time says it is off by more than this. Smaller
/// differences are the network's, and events of one boot should not move against each other for them.
const EPOCH_ERROR_MS_MAX: u64 = 500;

/// How a device behaves. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who it is: also its MQTT client id.
    pub id: Id,
    /// The most uplinks published and not acknowledged.
    pub window: u16,
    /// The most events in an uplink, 1 to [`UPLINK_EVENTS_MAX`].
    pub uplink_events_max: u16,
    /// The most bytes in an uplink: what [`Device::poll`]'s buffer must hold. At least 256, so that an `events-lost` fits.
    pub uplink_len_max: usize,
    /// How long an event may wait for others to share its uplink.
    pub linger_ms: u64,
    /// When to connect first.
    pub connect_at: u64,
    /// The first wait after a lost connection is up to this.
    pub backoff_ms_min: u32,
    /// No wait after a lost connection is longer.
    pub backoff_ms_max: u32,
}

impl Config {
    /// Defaults for a device with few kilobytes of memory: uplinks of up to 16 events and 1 KiB, sent at once, four of
    /// them in flight, back-off from half a second to half a minute.
    pub fn new(id: Id) -> Self {
        Self {
            id,
            window: 4,
            uplink_events_max: 16,
            uplink_len_max: 1024,
            linger_ms: 0,
            connect_at: 0,
            backoff_ms_min: 500,
            backoff_ms_max: 30_000,
        }
    }

    /// The most bytes an event may take in an uplink, for [`Outbox::new`].
    pub fn event_len_max(&self) -> usize {
        self.limits().events_len_max
    }

    fn limits(&self) -> UplinkLimits {
        UplinkLimits {
            // The cast is of a constant of the contract, 256.
            #[expect(clippy::cast_possible_truncation, reason = "256")]
            events_max: self.uplink_events_max.clamp(1, UPLINK_EVENTS_MAX as u16),
            events_len_max: self.uplink_len_max.min(UPLINK_LEN_MAX).saturating_sub(HEADER_LEN_MAX),
        }
    }
}

/// What the shell should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'b> {
    /// Nothing until this time, or until something happens.
    Wait(Option<u64>),
    /// Open an MQTT connection with the device's id as client id and a clean session (the outbox is what remembers);
    /// then call [`Device::connected`] or [`Device::disconnected`].
    Connect,
    /// Subscribe to the device's `time` and `commands` topics (QoS 1), see [`weir_contract::topic`].
    Subscribe,
    /// Publish an uplink on the device's `events` topic with QoS 1; its PUBACK is [`Device::acknowledged`].
    Publish(Publish<'b>),
}

/// An uplink to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'b> {
    /// To be given back with the acknowledgement.
    pub token: Token,
    /// The boot of its events.
    pub boot: u64,
    /// Number of the first event in it.
    pub first: u32,
    /// Number of the last event in it.
    pub last: u32,
    /// Whether it was published before, on an earlier connection.
    pub again: bool,
    /// The uplink.
    pub payload: &'b [u8],
}

/// A device. `M` is memory for events, `WINDOW` bounds the uplinks in flight.
#[derive(Debug, Clone)]
pub struct Device<M: Memory, const WINDOW: usize> {
    config: Config,
    outbox: Outbox<M, WINDOW>,
    session: Session,
    tokens: u32,
    flushing: bool,
    commands: Recent,
}

impl<M: Memory, const WINDOW: usize> Device<M, WINDOW> {
    /// A device that has just been powered up. `boot` is unique for this power-up of this device (random, or
    /// [`crate::journal::Journal::boot`]); `seed` should differ between devices. What earlier boots have left in `memory`
    /// is published before anything newer.
    pub fn new(config: Config, boot: u64, memory: M, seed: u64) -> Self {
        let outbox = Outbox::new(boot, memory, config.event_len_max());
        let backoff = Backoff::new(config.backoff_ms_min, config.backoff_ms_max, seed);
        let session = Session::new(config.connect_at, backoff);
        Self { config, outbox, session, tokens: 0, flushing: false, commands: Recent::default() }
    }

    /// The device loses power: what is left is its memory.
    pub fn power_off(self) -> M {
        self.outbox.into_memory()
    }

    /// Who it is.
    pub fn id(&self) -> &Id {
        &self.config.id
    }

    /// What is not acknowledged.
    pub fn outbox(&self) -> &Outbox<M, WINDOW> {
        &self.outbox
    }

    /// The memory that it was made with.
    pub fn memory_mut(&mut self) -> &mut M {
        self.outbox.memory_mut()
    }

    /// Whether everything emitted is acknowledged.
    pub fn is_drained(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Keeps an event observed at `now`, or counts it as lost.
    pub fn emit(&mut self, now: u64, body: &Body<'_>) -> Emitted {
        self.outbox.emit(now, body)
    }

    /// Keeps an event of any kind observed at `now`; `body` is one CBOR map with text keys.
    pub fn emit_raw(&mut self, now: u64, kind: &Kind, version: u16, body: &[u8]) -> Emitted {
        self.outbox.emit_raw(now, kind, version, body)
    }

    /// From now on no event waits for others to share its uplink.
    pub fn flush(&mut self) {
        self.flushing = true;
    }

    /// The gateway has accepted the connection.
    pub fn connected(&mut self) {
        self.session.connected();
    }

    /// The connection is gone, or could not be made.
    pub fn disconnected(&mut self, now: u64) {
        self.session.disconnected(now);
        self.outbox.disconnected();
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.session.is_up()
    }

    /// The gateway has acknowledged the uplink named `token`; says which events that were, if it was news.
    pub fn acknowledged(&mut self, token: Token) -> Option<Acknowledged> {
        let acknowledged = self.outbox.acknowledge(token)?;
        self.session.progressed();
        Some(acknowledged)
    }

    /// A message has come. Takes the time from it, or returns the command in it, if it is a new one that can still be
    /// done; its acceptance has been emitted, and [`Device::answer`] tells how it went.
    ///
    /// # Errors
    /// The payload is not what the contract says for this topic; nothing has changed.
    pub fn received<'m>(
        &mut self,
        now: u64,
        topic: &str,
        payload: &'m [u8],
    ) -> Result<Option<Command<'m>>, Malformed> {
        match Topic::parse(topic) {
            Some(Topic::Time(device)) if device == self.config.id => {
                self.time_is(now, Time::read(payload)?.unix_ms);
                Ok(None)
            }
            Some(Topic::Commands(device)) if device == self.config.id => {
                Ok(self.take_command(now, Command::read(payload)?))
            }
            _ => Ok(None),
        }
    }

    /// It is `unix_ms` (Unix milliseconds) at `now`.
    pub fn time_is(&mut self, now: u64, unix_ms: u64) {
        let epoch = unix_ms.saturating_sub(now);
        if self.outbox.epoch().is_none_or(|known| known.abs_diff(epoch) > EPOCH_ERROR_MS_MAX) {
            self.outbox.set_epoch(epoch);
        }
    }

    fn take_command<'m>(&mut self, now: u64, command: Command<'m>) -> Option<Command<'m>> {
        if let Some(seen) = self.commands.find(&command.id) {
            if !seen.told {
                let reason = (seen.outcome == Outcome::Failed).then_some("it failed when it came first");
                let _ = self.answer(now, command.id, seen.outcome, reason, None);
            }
            return None;
        }
        let late = self.outbox.epoch().is_some_and(|epoch| epoch.saturating_add(now) > command.deadline_ms);
        if late {
            let _ = self.answer(now, command.id, Outcome::Failed, Some("deadline passed"), None);
            return None;
        }
        let _ = self.answer(now, command.id, Outcome::Accepted, None, None);
        Some(command)
    }

    /// Tells how a command went; `result` is one CBOR item. If the command comes again and this answer found no room in
    /// the outbox, it is given again.
    pub fn answer(
        &mut self,
        now: u64,
        id: Text<'_>,
        outcome: Outcome,
        reason: Option<&str>,
        result: Option<&[u8]>,
    ) -> Emitted {
        let emitted =
            self.emit(now, &Body::CommandAnswered { outcome, id, reason: reason.map(Text::from), result });
        self.commands.note(&id, outcome, matches!(emitted, Emitted::Kept(_)));
        emitted
    }

    /// The commands seen last.
    pub fn commands(&self) -> &Recent {
        &self.commands
    }

    /// Knows again the commands that an earlier boot has seen.
    pub fn remember(&mut self, commands: Recent) {
        self.commands = commands;
    }

    /// What to do at `now`. To be asked again after every action and every report, until it says [`Action::Wait`].
    ///
    /// # Panics
    /// If `buffer` is shorter than [`Config::uplink_len_max`].
    pub fn poll<'b>(&mut self, now: u64, buffer: &'b mut [u8]) -> Action<'b> {
        assert!(buffer.len() >= self.config.uplink_len_max, "the buffer must hold an uplink");
        match self.session.step(now) {
            Step::Wait(until) => Action::Wait(until),
            Step::Connect => Action::Connect,
            Step::Subscribe => Action::Subscribe,
            Step::Publish => self.publish(now, buffer),
        }
    }

    fn publish<'b>(&mut self, now: u64, buffer: &'b mut [u8]) -> Action<'b> {
        if self.outbox.in_flight() >= usize::from(self.config.window) {
            return Action::Wait(None);
        }
        let linger_ms = if self.flushing { 0 } else { self.config.linger_ms };
        match self.outbox.readiness(now, linger_ms, self.config.limits()) {
            Readiness::Nothing => return Action::Wait(None),
            Readiness::At(time) if time > now => return Action::Wait(Some(time)),
            Readiness::At(_) | Readiness::Ready => {}
        }
        let Some(run) = self.outbox.next_run(Token(self.tokens)) else { return Action::Wait(None) };
        self.tokens = self.tokens.wrapping_add(1);
        let (boot, present) = (run.boot, self.outbox.boot());
        let epoch = self.outbox.epoch_of(&run);
        let (now_there, via) =
            if boot == present { (Some(now), None) } else { (None, Some(self.outbox.boot_after(&run))) };
        let header = Header { boot, now: now_there, epoch, via };
        match self.outbox.write(&run, &header, buffer) {
            Ok(len) => Action::Publish(Publish {
                token: run.token,
                boot,
                first: run.first,
                last: run.last,
                again: run.again,
                payload: &buffer[..len],
            }),
            // Asked again at once, it looks for what can still be read.
            Err(Unreadable) => Action::Wait(Some(now)),
        }
    }
}
