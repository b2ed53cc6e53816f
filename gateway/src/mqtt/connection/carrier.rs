//! Carries bytes and time between a socket, a session and custody.
//!
//! An idle connection keeps no buffers: it waits until there is something to read, reads into a buffer of its thread, and
//! the session takes what it needs out of that. Only the part of a packet that is still to be completed is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::GOODBYE;
use super::world::World;
use crate::custody::{Ticket, Waiter};
use crate::downlink::{Mailbox, Slot};
use crate::mqtt::local::Link;
use crate::mqtt::reason::Reason;
use crate::mqtt::registry::Place;
use crate::mqtt::session::{End, Progress, Session, Uplink};
use crate::mqtt::shared::Shared;

/// Read from a socket at once.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Buffers of a connection that grew beyond this are not kept while empty.
const BUFFER_BYTES_KEPT: usize = 1024;
/// Messages for a subscriber that are written at once.
const DELIVERIES_MAX: usize = 64;
/// Reads of what was not read before its connection ended.
const UNHEARD_READS_MAX: usize = 128;
/// For what was sent before the gateway went down to be stored and acknowledged.
const DRAIN: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { bytes: vec![0; READ_BYTES].into(), uplinks: Vec::new() });
}

/// Buffers that a thread has for all its connections: used within one poll, never across two.
struct Scratch {
    bytes: Box<[u8]>,
    uplinks: Vec<Uplink>,
}

/// A connection after its CONNACK.
pub(super) struct Carrier {
    session: Session<Ticket>,
    /// Bytes read that the session could not read yet.
    held: Vec<u8>,
    /// How much of the session's output has been written.
    written: usize,
    state: State,
    waiter: Arc<Waiter>,
    link: Option<Link>,
    /// Where commands come, if the device listens.
    mailbox: Option<Mailbox>,
    /// If the device wants to know the time: how often the clock had been set when it was told.
    steps: Option<u64>,
    /// One and a half times what was agreed on.
    keep_alive: Duration,
    /// When the last whole packet came.
    heard: Instant,
    /// Since when a packet has been under way.
    incomplete_since: Option<Instant>,
    /// Since when nothing could be written of what is to be written.
    unwritten_since: Option<Instant>,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Packets are read as they come.
    Reading,
    /// There is no room for an uplink.
    NoRoom {
        /// No more is read of the client until there is.
        full: bool,
    },
    /// The client has to wait for acknowledgements.
    TooManyInFlight,
    /// Nothing more is read; what is pending is acknowledged, until then at the latest.
    Draining { end: End, until: Instant },
    /// Only the last bytes are to be written, until then at the latest.
    Leaving { end: End, until: Instant },
}

/// What there was to do with the socket.
enum Moved {
    /// Something was read and dealt with.
    Read,
    /// The other side has taken what it was slow to take: there is room for messages again.
    Written,
    /// The other side takes no more for now, and has until the next deadline.
    Stuck,
    /// Everything is written and nothing more will be, or the connection broke.
    Over,
}

impl Carrier {
    /// `held` is what came after the CONNECT; silence for `keep_alive` ends it.
    pub fn new(session: Session<Ticket>, held: Vec<u8>, keep_alive: Duration, shared: Arc<Shared>) -> Self {
        Carrier {
            session,
            held,
            written: 0,
            state: State::Reading,
            waiter: Waiter::new(),
            link: None,
            mailbox: None,
            steps: None,
            keep_alive,
            heard: Instant::now(),
            incomplete_since: None,
            unwritten_since: None,
            shared,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session<Ticket> {
        &self.session
    }

    /// Carries bytes until the connection ends.
    pub async fn run(&mut self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), place: &Place) -> End {
        let shared = Arc::clone(&self.shared);
        let waiter = Arc::clone(&self.waiter);
        let mut alarm = pin!(sleep_until(self.deadline()));
        if !self.held.is_empty() {
            self.read_held();
        }
        loop {
            if let State::Draining { end, .. } = self.state
                && !self.session.awaits_storage()
            {
                self.leave(end);
            }
            let deadline = self.deadline();
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            let leaving = matches!(self.state, State::Leaving { .. });
            let stays = !leaving && !matches!(self.state, State::Draining { .. });
            let can_deliver = stays && self.session.can_deliver();
            let owes_retained = can_deliver && self.session.owes_retained();
            let bell = self.link.as_ref().filter(|_| can_deliver).map(|link| Arc::clone(link.bell()));
            let may_command = stays && self.session.can_command();
            let steps = self.steps;
            let slot =
                self.mailbox.as_ref().filter(|_| may_command).map(|mailbox| Arc::clone(mailbox.slot()));
            tokio::select! {
                biased;
                reason = place.told_to_end(), if stays => self.told_to_end(reason),
                () = waiter.notified(), if self.session.awaits_storage() && !leaving => self.stored(),
                moved = poll_fn(|cx| self.poll_stream(stream, cx)) => match moved {
                    Moved::Read | Moved::Written | Moved::Stuck => {}
                    Moved::Over => break,
                },
                room = shared.custody.room(), if matches!(self.state, State::NoRoom { .. }) => match room {
                    Ok(()) => self.read_held(),
                    Err(_) => self.leave(End::Closed(Reason::UnspecifiedError)),
                },
                () = std::future::ready(()), if owes_retained => self.deliver_retained(),
                () = rung(bell.as_deref()), if bell.is_some() => self.deliver(),
                () = shared.clock.stepped(steps.unwrap_or(u64::MAX)), if can_deliver && steps.is_some() => self.tell_time(),
                () = filled(slot.as_deref()), if slot.is_some() => self.command(),
                () = alarm.as_mut() => {
                    self.check_time();
                    alarm.as_mut().reset(self.deadline());
                }
            }
        }
        Box::pin(self.last_word(stream)).await
    }

    /// Writes what is to be written, then reads what is to be read.
    fn poll_stream(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Moved> {
        let was_stuck = self.unwritten_since.is_some();
        let was_full = !self.session.can_deliver();
        match self.poll_write(stream, cx) {
            // What waits to be delivered is looked for only if this is told: there may be nothing to read for long.
            Poll::Ready(Ok(())) if was_full && self.session.can_deliver() => {
                return Poll::Ready(Moved::Written);
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Moved::Over),
            Poll::Pending if was_stuck => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Moved::Stuck),
        }
        match self.state {
            State::Leaving { .. } => Poll::Ready(Moved::Over),
            State::Reading | State::NoRoom { full: false } => self.poll_read(stream, cx),
            State::NoRoom { full: true } | State::TooManyInFlight | State::Draining { .. } => Poll::Pending,
        }
    }

    fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.session.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.session.out.len() {
            let poll = Pin::new(&mut *stream).poll_write(cx, &self.session.out[self.written..])?;
            match self.stuck_if_pending(poll) {
                Poll::Ready(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => self.written += written,
                Poll::Pending => return Poll::Pending,
            }
        }
        let flushed = Pin::new(stream).poll_flush(cx)?;
        ready!(self.stuck_if_pending(flushed));
        self.session.out.clear();
        self.session.out.shrink_to(BUFFER_BYTES_KEPT);
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Notes since when the other side has taken nothing.
    fn stuck_if_pending<T>(&mut self, poll: Poll<T>) -> Poll<T> {
        match poll {
            Poll::Ready(_) => self.unwritten_since = None,
            Poll::Pending => _ = self.unwritten_since.get_or_insert_with(Instant::now),
        }
        poll
    }

    fn poll_read(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<Moved> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch.bytes);
            match ready!(Pin::new(stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Moved::Over),
            }
            let bytes = buffer.filled();
            if self.state != State::Reading {
                self.held.extend_from_slice(bytes);
                self.hold();
            } else if self.held.is_empty() {
                let done = self.receive(bytes, &mut scratch.uplinks);
                self.held.extend_from_slice(&bytes[done..]);
                self.after_reading(done);
                self.go_on(&mut scratch.uplinks);
            } else {
                self.held.extend_from_slice(bytes);
                self.receive_held(&mut scratch.uplinks);
                self.go_on(&mut scratch.uplinks);
            }
            Poll::Ready(Moved::Read)
        })
    }

    /// Reads again what could not be read before.
    fn read_held(&mut self) {
        self.state = State::Reading;
        SCRATCH.with_borrow_mut(|scratch| {
            self.receive_held(&mut scratch.uplinks);
            self.go_on(&mut scratch.uplinks);
        });
    }

    /// Goes on with a client that had too many in flight, if some of them needed no waiting for.
    fn go_on(&mut self, uplinks: &mut Vec<Uplink>) {
        while self.state == State::TooManyInFlight && self.session.may_hold(0) {
            self.state = State::Reading;
            self.receive_held(uplinks);
        }
    }

    fn receive_held(&mut self, uplinks: &mut Vec<Uplink>) {
        let mut held = std::mem::take(&mut self.held);
        let done = self.receive(&held, uplinks);
        held.drain(..done);
        if !held.is_empty() || held.capacity() <= BUFFER_BYTES_KEPT {
            self.held = held;
        }
        self.after_reading(done);
    }

    /// Gives bytes to the session; returns how many it is done with.
    fn receive(&mut self, bytes: &[u8], uplinks: &mut Vec<Uplink>) -> usize {
        let shared = Arc::clone(&self.shared);
        let mut world = World::new(&shared, &self.waiter, &mut self.link, &mut self.mailbox);
        let (done, progress) = self.session.receive(bytes, uplinks, &mut world);
        let closed = world.closed;
        if self.session.wants_time() != self.steps.is_some() {
            self.steps = self.session.wants_time().then(|| shared.clock.steps());
        }
        // Refusals have nothing to wait for, and a repeated uplink may be stored long since.
        self.session.acknowledge(shared.custody.stored());
        match progress {
            _ if closed => self.leave(End::Closed(Reason::UnspecifiedError)),
            Progress::Read => {}
            Progress::NoRoom => self.state = State::NoRoom { full: false },
            Progress::TooManyInFlight => self.state = State::TooManyInFlight,
            Progress::End(end) => self.leave(end),
        }
        done
    }

    fn after_reading(&mut self, done: usize) {
        let now = Instant::now();
        if done > 0 {
            self.heard = now;
            self.incomplete_since = None;
        }
        match self.state {
            State::Reading if !self.held.is_empty() => {
                self.incomplete_since.get_or_insert(now);
            }
            State::Reading | State::TooManyInFlight => self.incomplete_since = None,
            State::NoRoom { .. } => self.hold(),
            // What is held begins with a packet, and `last_word` goes on from there.
            State::Draining { .. } | State::Leaving { .. } => {}
        }
    }

    /// While there is no room: pings are answered, and publishes are kept as long as they are few.
    fn hold(&mut self) {
        self.heard = Instant::now();
        self.incomplete_since = None;
        match self.session.answer_pings(&mut self.held) {
            Ok(publishes) => {
                // No more than an unfinished packet may take anyway.
                let bytes_max = self.shared.limits.body_bytes();
                let full = self.held.len() >= bytes_max || !self.session.may_hold(publishes);
                self.state = State::NoRoom { full };
            }
            Err(reason) => self.leave(End::Closed(reason)),
        }
    }

    /// Something of this connection's is on disk, or custody has failed.
    fn stored(&mut self) {
        if self.shared.custody.failed().is_some() {
            return self.leave(End::Closed(Reason::UnspecifiedError));
        }
        self.session.acknowledge(self.shared.custody.stored());
        if self.state == State::TooManyInFlight {
            self.read_held();
        }
    }

    fn told_to_end(&mut self, reason: Reason) {
        let end = End::Closed(reason);
        if reason == Reason::ServerShuttingDown {
            self.state = State::Draining { end, until: Instant::now() + DRAIN };
        } else {
            self.leave(end);
        }
    }

    /// Says goodbye; then only that is left to be written.
    fn leave(&mut self, end: End) {
        if let End::Closed(reason) = end {
            self.session.say_goodbye(reason);
        }
        self.state = State::Leaving { end, until: Instant::now() + GOODBYE };
    }

    /// Why the connection ends, all things considered. Who said DISCONNECT may have been held back at that time, or have gone
    /// while there was something to be written to it: that is no reason to publish its will.
    async fn last_word(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> End {
        use Reason::{KeepAliveTimeout, SessionTakenOver, UnspecifiedError};
        let end = self.end();
        if !matches!(end, End::Lost | End::Closed(KeepAliveTimeout | SessionTakenOver | UnspecifiedError)) {
            return end;
        }
        let mut unheard = std::mem::take(&mut self.held);
        for _ in 0..UNHEARD_READS_MAX {
            match self.session.farewell(&mut unheard) {
                Ok(Some(left)) => return left,
                Ok(None) => {}
                Err(_) => break,
            }
            if !poll_fn(|cx| Poll::Ready(read_unheard(stream, cx, &mut unheard))).await {
                break;
            }
        }
        end
    }

    fn end(&self) -> End {
        match self.state {
            State::Draining { end, .. } | State::Leaving { end, .. } => end,
            State::Reading | State::NoRoom { .. } | State::TooManyInFlight => End::Lost,
        }
    }

    /// Writes messages for a subscriber: one write for many.
    fn deliver(&mut self) {
        let Some(link) = &mut self.link else { return };
        for _ in 0..DELIVERIES_MAX {
            if !self.session.can_deliver() {
                break;
            }
            match link.take() {
                Some(delivery) => self.session.deliver(&delivery),
                None => return,
            }
        }
        // There may be more, for later.
        link.bell().notify_one();
    }

    /// Writes retained messages.
    fn deliver_retained(&mut self) {
        let shared = Arc::clone(&self.shared);
        let world = World::new(&shared, &self.waiter, &mut self.link, &mut self.mailbox);
        self.session.deliver_retained(&world);
    }

    /// The clock was set: what the device was told, if anything, is no longer true.
    fn tell_time(&mut self) {
        self.steps = Some(self.shared.clock.steps());
        if let Some(unix_ms) = self.shared.clock.known_unix_ms() {
            self.session.tell_time(unix_ms);
        }
    }

    /// Writes a command.
    fn command(&mut self) {
        if let Some(payload) = self.mailbox.as_ref().and_then(|mailbox| mailbox.slot().take()) {
            self.session.command(&payload);
        }
    }

    /// When something will be overdue.
    fn deadline(&self) -> Instant {
        match self.state {
            State::Draining { until, .. } | State::Leaving { until, .. } => return until,
            State::Reading | State::NoRoom { .. } | State::TooManyInFlight => {}
        }
        let packet = [self.incomplete_since, self.unwritten_since].into_iter().flatten().min();
        let packet = packet.map(|since| since + self.shared.times.packet);
        let keep_alive = self.heard + self.keep_alive;
        packet.map_or(keep_alive, |packet| packet.min(keep_alive))
    }

    fn check_time(&mut self) {
        let now = Instant::now();
        let overdue =
            |since: Option<Instant>| since.is_some_and(|since| now >= since + self.shared.times.packet);
        match self.state {
            State::Draining { end, until } if now >= until => self.leave(end),
            State::Leaving { end, until } if now >= until => {
                // It does not even read its goodbye.
                self.session.out.clear();
                self.written = 0;
                self.state = State::Leaving { end, until };
            }
            State::Draining { .. } | State::Leaving { .. } => {}
            _ if overdue(self.unwritten_since) || overdue(self.incomplete_since) => {
                self.leave(End::Closed(Reason::KeepAliveTimeout));
            }
            State::Reading if now >= self.heard + self.keep_alive => {
                self.leave(End::Closed(Reason::KeepAliveTimeout));
            }
            State::Reading => {}
            // Who is not listened to cannot be told off for silence.
            State::NoRoom { .. } | State::TooManyInFlight => self.heard = now,
        }
    }
}

/// Reads what is there, without waiting; whether there was anything.
fn read_unheard(stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>, bytes: &mut Vec<u8>) -> bool {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(&mut scratch.bytes);
        let read = Pin::new(stream).poll_read(cx, &mut buffer);
        bytes.extend_from_slice(buffer.filled());
        matches!(read, Poll::Ready(Ok(()))) && !buffer.filled().is_empty()
    })
}

/// Resolves when there may be a message for a subscriber.
async fn rung(bell: Option<&Notify>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

/// Resolves when there is a command to be written.
async fn filled(slot: Option<&Slot>) {
    match slot {
        Some(slot) => slot.filled().await,
        None => std::future::pending().await,
    }
}
