//! The outbox: numbers events and keeps them until they are acknowledged.
//!
//! # Format
//!
//! Events of all boots lie oldest first in a [`Memory`]. The oldest of them are in *flights*, one per uplink that has
//! been made and not wholly freed; the rest are unsent. An uplink has events of one boot:
//!
//! ```text
//!   flights: [a/7 a/8] [b/1 b/2 b/3] [b/4 b/5]   unsent: b/6 b/7 · b/11 b/12      (b/11 is the events-lost of 8..=10)
//!             sent      ack'd         sent
//! ```
//!
//! What lies in the memory when a boot begins is unsent, whatever was known of it before.
//!
//! # Limits
//!
//! The memory given, `WINDOW` flights, events of at most `event_len_max` bytes.
//!
//! # When it is full
//!
//! A new event is lost, not an old one: what was promised first is kept, and nothing in flight has to be taken back. It
//! gets its number all the same. When there is room again for the loss record and the next event (or when nothing else
//! is left to send), one `events-lost` covers the whole run, with a number of its own. What earlier boots have lost and not
//! told is told by the present one.
//!
//! # What an acknowledgement means
//!
//! The gateway has the uplink on disk. Its events are freed as soon as all older ones are acknowledged too.

use heapless::Deque;
use weir_contract::body::Body;
use weir_contract::uplink::{EVENT_OVERHEAD_MAX, Header, Writer};
use weir_contract::{Kind, NoRoom};

use crate::losses::Reason;
use crate::memory::{Memory, Refused, Stamp, Unreadable};

/// The greatest number an event gets; the one above is left for an `events-lost`.
const EVENT_NUMBER_MAX: u32 = u32::MAX - 1;

/// How long to wait before storage that could not be read is asked again.
const UNREADABLE_WAIT_MS: u64 = 1000;

/// Names an uplink that has been published, also when it is published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Emitted {
    /// It is kept under this number.
    Kept(u32),
    /// There was no room: its number will be covered by an `events-lost`.
    Lost(u32),
    /// There is no number for it, and it is not told of: all of this boot's are used, or so many losses of so many boots
    /// wait to be told that not one more can be remembered.
    Exhausted,
}

/// What an acknowledgement told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Number of the uplink's first event.
    pub first: u32,
    /// Number of its last.
    pub last: u32,
}

impl Acknowledged {
    /// How many events that is.
    pub fn events(&self) -> u32 {
        self.last - self.first + 1
    }
}

/// How large an uplink may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UplinkLimits {
    pub(crate) events_max: u16,
    /// Without the uplink's header.
    pub(crate) events_len_max: usize,
}

/// An uplink to be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run<P> {
    pub(crate) token: Token,
    pub(crate) boot: u64,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) again: bool,
    from: P,
    to: P,
}

/// The events of a device that are not acknowledged yet. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Outbox<M: Memory, const WINDOW: usize> {
    boot: u64,
    epoch: Option<u64>,
    memory: M,
    /// The greatest number given so far in this boot; 0 for none.
    last: u32,
    event_len_max: usize,
    flights: Deque<Flight<M::Position>, WINDOW>,
    /// Before the oldest event that is in no flight.
    unsent: M::Position,
    /// What has been looked at of them.
    draft: Option<Draft<M::Position>>,
}

#[derive(Debug, Clone, Copy)]
struct Flight<P> {
    run: Run<P>,
    state: FlightState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlightState {
    /// To be published again, on the next connection.
    Waiting,
    Sent,
    Acknowledged,
}

impl<M: Memory, const WINDOW: usize> Outbox<M, WINDOW> {
    /// An outbox for the events of `boot`, and for those of earlier boots that are in `memory`. An event that takes more
    /// than `event_len_max` bytes in an uplink (see [`weir_contract::uplink::EVENT_OVERHEAD_MAX`]) is lost, as one that
    /// finds no room.
    pub fn new(boot: u64, memory: M, event_len_max: usize) -> Self {
        let unsent = memory.start();
        Self { boot, epoch: None, memory, last: 0, event_len_max, flights: Deque::new(), unsent, draft: None }
    }

    /// The present boot.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Unix milliseconds at the boot's zero, if the device has learned it.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = Some(epoch);
        self.memory.set_epoch(self.boot, epoch);
    }

    /// The greatest number given so far in this boot; 0 for none.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Whether every number given is acknowledged or covered by an acknowledged `events-lost`.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.unsent == self.memory.end() && self.memory.losses().is_empty()
    }

    /// Where the events are.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the events are, for what else is kept there.
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// As after a power cut: all but the memory is gone.
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// How many uplinks are published and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.flights.iter().filter(|flight| flight.state == FlightState::Sent).count()
    }

    /// Keeps an event observed at `at`, or counts it as lost.
    pub fn emit(&mut self, at: u64, body: &Body<'_>) -> Emitted {
        self.keep(at, &body.kind(), body.version(), |buffer| body.write(buffer))
    }

    /// Keeps an event of any kind; `body` is one CBOR map with text keys.
    pub fn emit_raw(&mut self, at: u64, kind: &Kind, version: u16, body: &[u8]) -> Emitted {
        self.keep(at, kind, version, |buffer| {
            buffer.get_mut(..body.len()).ok_or(NoRoom)?.copy_from_slice(body);
            Ok(body.len())
        })
    }

    fn keep(
        &mut self,
        at: u64,
        kind: &Kind,
        version: u16,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Emitted {
        // If something is lost already, the events-lost takes the next number and the event the one after.
        let tells = !self.memory.losses().is_empty();
        let seq = self.last.saturating_add(1).saturating_add(u32::from(tells));
        if seq > EVENT_NUMBER_MAX {
            return Emitted::Exhausted;
        }
        let tells = tells.then(|| self.next_stamp(at));
        let body_len_max = self.event_len_max.saturating_sub(EVENT_OVERHEAD_MAX);
        let waiting = self.memory.losses().len();
        let kept = self.memory.push(Stamp { boot: self.boot, seq, at }, kind, version, tells, |buffer| {
            let len = buffer.len().min(body_len_max);
            write(&mut buffer[..len])
        });
        let reason = match kept {
            Ok(()) => {
                self.last = seq;
                return Emitted::Kept(seq);
            }
            Err(Refused::Full) => Reason::OutboxFull,
            Err(Refused::Failed) => Reason::StorageFailed,
        };
        // Storage may fail between the two.
        self.last += u32::from(self.memory.losses().len() < waiting);
        let stamp = self.next_stamp(at);
        match self.memory.lose(stamp, reason) {
            Ok(()) => {
                self.last = stamp.seq;
                Emitted::Lost(stamp.seq)
            }
            Err(_) => Emitted::Exhausted,
        }
    }

    fn next_stamp(&self, at: u64) -> Stamp {
        Stamp { boot: self.boot, seq: self.last + 1, at }
    }

    /// Turns what is lost into `events-lost` events, as far as there is room.
    fn tell_losses(&mut self, now: u64) {
        while let Some(loss) = self.memory.losses().first() {
            let at = if loss.boot == self.boot { loss.at } else { now };
            if self.last == u32::MAX || self.memory.tell(self.next_stamp(at)).is_err() {
                return;
            }
            self.last += 1;
        }
    }

    /// The next uplink to publish: one that must be published again, else a new one named `token`.
    pub(crate) fn next_run(&mut self, token: Token) -> Option<Run<M::Position>> {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.state == FlightState::Waiting) {
            flight.state = FlightState::Sent;
            return Some(flight.run);
        }
        if self.flights.is_full() {
            return None;
        }
        let Draft { run, .. } = self.draft.take()?;
        let run = Run { token, ..run };
        self.flights.push_back(Flight { run, state: FlightState::Sent }).ok()?;
        self.unsent = run.to;
        Some(run)
    }

    /// Whether [`Outbox::next_run`] should be called now, given that new uplinks wait up to `linger_ms` to become full.
    pub(crate) fn readiness(&mut self, now: u64, linger_ms: u64, limits: UplinkLimits) -> Readiness {
        if self.flights.iter().any(|flight| flight.state == FlightState::Waiting) {
            return Readiness::Ready;
        }
        if self.flights.is_full() {
            return Readiness::Nothing;
        }
        if self.look(limits).is_err() {
            return Readiness::At(now.saturating_add(UNREADABLE_WAIT_MS));
        }
        if self.draft.is_none() && !self.memory.losses().is_empty() {
            // Nothing else is left to send: losses are told now, if there is room.
            self.tell_losses(now);
            if self.look(limits).is_err() {
                return Readiness::At(now.saturating_add(UNREADABLE_WAIT_MS));
            }
        }
        match &self.draft {
            None => Readiness::Nothing,
            Some(draft) if draft.full || draft.run.boot != self.boot => Readiness::Ready,
            Some(draft) => Readiness::At(draft.oldest_at.saturating_add(linger_ms)),
        }
    }

    /// Looks at unsent events until they make a full uplink, or there are no more.
    fn look(&mut self, limits: UplinkLimits) -> Result<(), Unreadable> {
        while self.draft.as_ref().is_none_or(|draft| !draft.full) {
            let from = self.draft.as_ref().map_or(self.unsent, |draft| draft.run.to);
            let Some((record, to)) = self.memory.next(from)? else {
                if self.draft.is_none() {
                    if self.flights.is_empty() {
                        self.memory.free_all();
                    }
                    self.unsent = self.memory.end();
                }
                return Ok(());
            };
            let (boot, seq) = (record.boot, record.event.seq);
            let len = EVENT_OVERHEAD_MAX + record.event.body.len();
            match &mut self.draft {
                Some(draft) => {
                    let fits = draft.count() < usize::from(limits.events_max)
                        && draft.len + len <= limits.events_len_max;
                    if (boot, Some(seq)) != (draft.run.boot, draft.run.last.checked_add(1)) || !fits {
                        draft.full = true;
                        return Ok(());
                    }
                    draft.len += len;
                    (draft.run.last, draft.run.to) = (seq, to);
                }
                None if len > limits.events_len_max => {
                    // By an earlier firmware that made longer uplinks.
                    let stamp = Stamp { boot, seq, at: record.event.at };
                    self.memory.lose(stamp, Reason::TooLong).map_err(|_| Unreadable)?;
                    self.unsent = to;
                    continue;
                }
                None => {
                    let run = Run { token: Token(0), boot, first: seq, last: seq, again: false, from, to };
                    self.draft = Some(Draft { run, len, full: false, oldest_at: record.event.at });
                }
            }
            if let Some(draft) = &mut self.draft {
                draft.full |= draft.count() == usize::from(limits.events_max);
            }
        }
        Ok(())
    }

    /// Unix milliseconds at the zero of the boot of a run.
    pub(crate) fn epoch_of(&mut self, run: &Run<M::Position>) -> Option<u64> {
        if run.boot == self.boot { self.epoch } else { self.memory.epoch(run.boot, run.from) }
    }

    /// A boot that began later than that of a run, which is an earlier one: whose events come next, if the run's have ended,
    /// so that boots which never learned the time are put in order one after the other; else the present one.
    pub(crate) fn boot_after(&mut self, run: &Run<M::Position>) -> u64 {
        match self.memory.next(run.to) {
            Ok(Some((record, _))) if record.boot != run.boot => record.boot,
            _ => self.boot,
        }
    }

    /// Writes the uplink of a run and returns its length. If it cannot be read any more, what is in flight from there on is
    /// forgotten, and will be looked at again.
    pub(crate) fn write(
        &mut self,
        run: &Run<M::Position>,
        header: &Header,
        buffer: &mut [u8],
    ) -> Result<usize, Unreadable> {
        let written = self.write_events(run, header, buffer);
        if written.is_err() {
            while self.flights.back().is_some_and(|flight| flight.run.token != run.token) {
                self.flights.pop_back();
            }
            self.flights.pop_back();
            self.draft = None;
            self.unsent = run.from;
            self.memory.go_back(run.from, run.boot, run.first);
        }
        written
    }

    fn write_events(
        &mut self,
        run: &Run<M::Position>,
        header: &Header,
        buffer: &mut [u8],
    ) -> Result<usize, Unreadable> {
        let mut writer = Writer::begin(buffer, header, run.count()).map_err(|_| Unreadable)?;
        let mut position = run.from;
        for seq in run.first..=run.last {
            let (record, next) = self.memory.next(position)?.ok_or(Unreadable)?;
            if (record.boot, record.event.seq) != (run.boot, seq) {
                return Err(Unreadable);
            }
            writer.event(&record.event).map_err(|_| Unreadable)?;
            position = next;
        }
        writer.end().map_err(|_| Unreadable)
    }

    /// The gateway has this uplink on disk. `None` if it is none of this outbox, or known to be acknowledged.
    pub fn acknowledge(&mut self, token: Token) -> Option<Acknowledged> {
        let flight = self.flights.iter_mut().find(|flight| flight.run.token == token)?;
        if flight.state == FlightState::Acknowledged {
            return None;
        }
        flight.state = FlightState::Acknowledged;
        let acknowledged = Acknowledged { first: flight.run.first, last: flight.run.last };
        let mut freed = None;
        while self.flights.front().is_some_and(|flight| flight.state == FlightState::Acknowledged) {
            freed = self.flights.pop_front().map(|flight| flight.run);
        }
        if let Some(run) = freed {
            let all = run.to == self.memory.end();
            self.memory.free(run.to, (run.boot, run.last));
            if all {
                // Empty memory may begin anew somewhere else.
                self.unsent = self.memory.end();
            }
        }
        Some(acknowledged)
    }

    /// The connection is gone: what was published on it and is not acknowledged is to be published again.
    pub(crate) fn disconnected(&mut self) {
        for flight in self.flights.iter_mut().filter(|flight| flight.state == FlightState::Sent) {
            flight.state = FlightState::Waiting;
            flight.run.again = true;
        }
    }
}

impl<P> Run<P> {
    fn count(&self) -> usize {
        // Runs are consecutive and of at most 65,535 events.
        (self.last - self.first + 1) as usize
    }
}

/// The uplink that the oldest unsent events would make; its run has no token yet.
#[derive(Debug, Clone)]
struct Draft<P> {
    run: Run<P>,
    /// Bytes that the events take at most.
    len: usize,
    /// No event that comes later can join it.
    full: bool,
    oldest_at: u64,
}

impl<P> Draft<P> {
    fn count(&self) -> usize {
        self.run.count()
    }
}

/// See [`Outbox::readiness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// There is nothing to publish.
    Nothing,
    /// There will be at this time (which may have passed).
    At(u64),
    /// There is.
    Ready,
}
