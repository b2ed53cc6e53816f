//! The outbox: numbers events and keeps them until they are acknowledged.
//!
//! # Format
//!
//! Events lie oldest first in a [`Ring`] of the memory given to [`Outbox::new`]. The oldest of them are in *flights*,
//! one per uplink that has been made and not wholly freed; the rest are unsent:
//!
//! ```text
//!   flights: [1 2 3] [4 5] [6 7 8]   unsent: 9 10 · 14 15 16        (14 is the events-lost of 11..=13)
//!             sent    ack'd  sent
//! ```
//!
//! # Limits
//!
//! The memory given, `WINDOW` flights, events of at most `event_len_max` bytes.
//!
//! # When it is full
//!
//! A new event is lost, not an old one: what was promised first is kept, and nothing in flight has to be taken back. It
//! gets its number all the same. When there is room again for the loss record and the next event (or when nothing else
//! is left to send), one `events-lost` covers the whole run, with a number of its own.
//!
//! # What an acknowledgement means
//!
//! The gateway has the uplink on disk. Its events are freed as soon as all older ones are acknowledged too.

use heapless::Deque;
use weir_contract::body::Body;
use weir_contract::uplink::{EVENT_OVERHEAD_MAX, Event};
use weir_contract::{Kind, NoRoom};

use crate::ring::{Position, Ring};

/// The greatest number an event gets; the one above is left for an `events-lost`.
const EVENT_NUMBER_MAX: u32 = u32::MAX - 1;

/// Reason in the `events-lost` of an outbox.
const OUTBOX_FULL: &str = "outbox-full";

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
    /// All numbers of this boot are used: it has none and is not told of. Begin a new boot.
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
pub(crate) struct Run {
    pub(crate) token: Token,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) again: bool,
    position: Position,
}

/// The events of one boot that are not acknowledged yet. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Outbox<S, const WINDOW: usize> {
    boot: u64,
    epoch: Option<u64>,
    ring: Ring<S>,
    /// The greatest number given so far; 0 for none.
    last: u32,
    event_len_max: usize,
    loss: Option<Loss>,
    flights: Deque<Flight, WINDOW>,
    unsent: Unsent,
}

/// A run of numbers that nothing in the ring covers yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    from: u32,
    to: u32,
    /// When the first was lost.
    at: u64,
}

/// Where the records lie that are in no flight.
#[derive(Debug, Clone, Copy)]
struct Unsent {
    /// Meaningless while `count` is 0.
    position: Position,
    count: usize,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    run: Run,
    state: FlightState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlightState {
    /// To be published again, on the next connection.
    Waiting,
    Sent,
    Acknowledged,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>, const WINDOW: usize> Outbox<S, WINDOW> {
    /// An empty outbox for the events of `boot`, in memory `bytes`. An event that takes more than `event_len_max` bytes
    /// in an uplink (see [`weir_contract::uplink::EVENT_OVERHEAD_MAX`]) is lost, as one that finds no room.
    pub fn new(boot: u64, bytes: S, event_len_max: usize) -> Self {
        let ring = Ring::new(bytes);
        let unsent = Unsent { position: ring.first(), count: 0 };
        Self { boot, epoch: None, ring, last: 0, event_len_max, loss: None, flights: Deque::new(), unsent }
    }

    /// The boot whose events these are.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Unix milliseconds at the boot's zero, if the device has learned it.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = Some(epoch);
    }

    /// The greatest number given so far; 0 for none.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Whether every number given is acknowledged or covered by an acknowledged `events-lost`.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.loss.is_none()
    }

    /// Numbers of the events kept, ascending.
    pub fn kept(&self) -> impl Iterator<Item = u32> {
        let in_flight: usize = self.flights.iter().map(|flight| flight.run.count()).sum();
        self.ring.iter(self.ring.first(), in_flight + self.unsent.count).map(|event| event.seq)
    }

    /// The run of numbers, if any, that is lost and that no `events-lost` covers yet.
    pub fn uncovered(&self) -> Option<(u32, u32)> {
        self.loss.map(|loss| (loss.from, loss.to))
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
        let seq = self.last.saturating_add(1).saturating_add(u32::from(self.loss.is_some()));
        if seq > EVENT_NUMBER_MAX {
            return Emitted::Exhausted;
        }
        let before = (self.ring.mark(), self.unsent, self.last, self.loss);
        if self.cover_loss().is_ok() && self.push(seq, at, kind, version, write).is_ok() {
            self.last = seq;
            return Emitted::Kept(seq);
        }
        // Covering the loss alone would only begin the next one.
        let (mark, unsent, last, loss) = before;
        self.ring.roll_back(mark);
        (self.unsent, self.last) = (unsent, last + 1);
        let lost = self.last;
        self.loss = Some(loss.map_or(Loss { from: lost, to: lost, at }, |loss| Loss { to: lost, ..loss }));
        Emitted::Lost(lost)
    }

    /// Turns the run of lost numbers, if there is one, into an `events-lost` under the next number.
    fn cover_loss(&mut self) -> Result<(), NoRoom> {
        let Some(Loss { from, to, at }) = self.loss else { return Ok(()) };
        let body = Body::EventsLost { device: None, boot: self.boot, from, to, reason: OUTBOX_FULL.into() };
        self.push(self.last + 1, at, &body.kind(), body.version(), |buffer| body.write(buffer))?;
        self.last += 1;
        self.loss = None;
        Ok(())
    }

    fn push(
        &mut self,
        seq: u32,
        at: u64,
        kind: &Kind,
        version: u16,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), NoRoom> {
        let body_len_max = self.event_len_max.saturating_sub(EVENT_OVERHEAD_MAX);
        let position = self.ring.push(seq, at, kind, version, |buffer| {
            let len = buffer.len().min(body_len_max);
            write(&mut buffer[..len])
        })?;
        if self.unsent.count == 0 {
            self.unsent.position = position;
        }
        self.unsent.count += 1;
        Ok(())
    }

    /// The next uplink to publish: one that must be published again, else a new one named `token`.
    pub(crate) fn next_run(&mut self, token: Token, limits: UplinkLimits) -> Option<Run> {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.state == FlightState::Waiting) {
            flight.state = FlightState::Sent;
            return Some(flight.run);
        }
        let Draft { run, next, .. } = self.draft(limits)?;
        let run = Run { token, ..run };
        self.flights.push_back(Flight { run, state: FlightState::Sent }).ok()?;
        self.unsent = Unsent { position: next, count: self.unsent.count - run.count() };
        Some(run)
    }

    /// Whether [`Outbox::next_run`] should be called now, given that new uplinks wait up to `linger_ms` to become full.
    pub(crate) fn readiness(&mut self, linger_ms: u64, limits: UplinkLimits) -> Readiness {
        if self.flights.iter().any(|flight| flight.state == FlightState::Waiting) {
            return Readiness::Ready;
        }
        if self.unsent.count == 0 {
            // Nothing else is left to send: the loss is told now, if there is room.
            let _ = self.cover_loss();
        }
        if self.flights.is_full() {
            return Readiness::Nothing;
        }
        match self.draft(limits) {
            None => Readiness::Nothing,
            Some(draft) if draft.full => Readiness::Ready,
            Some(draft) => Readiness::At(draft.oldest_at.saturating_add(linger_ms)),
        }
    }

    /// The uplink that the oldest unsent events would make.
    fn draft(&self, limits: UplinkLimits) -> Option<Draft> {
        let start = self.unsent.position;
        let mut draft: Option<Draft> = None;
        let mut events_len = 0;
        let mut next = start;
        for _ in 0..self.unsent.count {
            let (event, after) = self.ring.read(next);
            events_len += EVENT_OVERHEAD_MAX + event.body.len();
            match &mut draft {
                None => {
                    let run = Run {
                        token: Token(0),
                        first: event.seq,
                        last: event.seq,
                        again: false,
                        position: start,
                    };
                    draft = Some(Draft { run, next: after, full: false, oldest_at: event.at });
                }
                Some(draft) => {
                    let fits = draft.run.count() < usize::from(limits.events_max)
                        && events_len <= limits.events_len_max;
                    if event.seq != draft.run.last + 1 || !fits {
                        draft.full = true;
                        break;
                    }
                    draft.run.last = event.seq;
                    draft.next = after;
                }
            }
            next = after;
        }
        let mut draft = draft?;
        draft.full |= draft.run.count() == usize::from(limits.events_max);
        Some(draft)
    }

    /// The events of a run.
    pub(crate) fn events(&self, run: &Run) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.ring.iter(run.position, run.count())
    }

    /// The gateway has this uplink on disk. `None` if it is none of this outbox, or known to be acknowledged.
    pub fn acknowledge(&mut self, token: Token) -> Option<Acknowledged> {
        let flight = self.flights.iter_mut().find(|flight| flight.run.token == token)?;
        if flight.state == FlightState::Acknowledged {
            return None;
        }
        flight.state = FlightState::Acknowledged;
        let acknowledged = Acknowledged { first: flight.run.first, last: flight.run.last };
        while self.flights.front().is_some_and(|flight| flight.state == FlightState::Acknowledged) {
            let freed = self.flights.pop_front().map_or(0, |flight| flight.run.count());
            for _ in 0..freed {
                self.ring.pop();
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

    /// As after a power cut with the memory kept: which uplinks were made of the events is forgotten.
    #[must_use]
    pub fn after_power_cut(mut self) -> Self {
        let in_flight: usize = self.flights.iter().map(|flight| flight.run.count()).sum();
        self.flights.clear();
        self.unsent = Unsent { position: self.ring.first(), count: self.unsent.count + in_flight };
        self
    }
}

impl Run {
    fn count(&self) -> usize {
        // Runs are consecutive and of at most 65,535 events.
        (self.last - self.first + 1) as usize
    }
}

/// See [`Outbox::draft`].
struct Draft {
    run: Run,
    /// Where the next unsent event lies.
    next: Position,
    /// No event that comes later can join it.
    full: bool,
    oldest_at: u64,
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
