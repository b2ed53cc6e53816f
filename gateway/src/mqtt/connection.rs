//! One connection: carries bytes and time between a socket, a session and custody.
//!
//! An idle connection keeps no buffers: it waits until there is something to read, reads into a buffer of its thread, and
//! the session takes what it needs out of that. Only the part of a packet that is still to be completed is kept.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};
use weir_contract::Id;
use weir_contract::topic::Topic;

use super::answer::{self, Terms};
use super::codec::Will;
use super::greeting::{self, Guest};
use super::local::{Deliveries, Delivery, Link, Lost, Message};
use super::reason::Reason;
use super::registry::Place;
use super::session::{Abilities, End, Outside, Progress, Session, Uplink};
use super::shared::Shared;
use super::topics::Client;
use crate::custody::{Full, Ticket, Waiter};
use crate::journal::Entry;
use crate::{facts, intake};

/// Read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Buffers of a connection that grew beyond this are not kept while empty.
const BUFFER_BYTES_KEPT: usize = 1024;
/// Messages from the router that are written at once.
const DELIVERIES_MAX: usize = 64;
/// For the last bytes to be written.
const GOODBYE: Duration = Duration::from_secs(2);
/// For what was sent before the gateway went down to be stored and acknowledged.
const DRAIN: Duration = Duration::from_secs(5);
/// For the connection whose place is taken to leave.
const TAKEOVER: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { bytes: vec![0; READ_BYTES].into(), uplinks: Vec::new() });
}

/// Buffers that a thread has for all its connections: used within one poll, never across two.
struct Scratch {
    bytes: Box<[u8]>,
    uplinks: Vec<Uplink>,
}

/// Serves a client until it leaves. `proven` is there if it showed a certificate: the common name in it, if any.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    proven: Option<Option<String>>,
    shared: Arc<Shared>,
) {
    let greeting = timeout(shared.times.connect, Box::pin(greeting::greet(&mut stream, proven, &shared)));
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        () = shared.closed() => return,
    };
    match greeted {
        Err(_) => facts::connection_refused("no-connect"),
        Ok(Ok(None)) => facts::connection_refused("no-mqtt"),
        Ok(Ok(Some(guest))) => stay(stream, peer, guest, &shared).await,
        Ok(Err(refusal)) => {
            facts::connection_refused(refusal.reason.as_str());
            tracing::info!(%peer, client = refusal.name, reason = %refusal.reason, "a connection was refused: {}", refusal.said);
            let client = if refusal.name.is_empty() { peer.to_string() } else { refusal.name };
            shared.refusals.keep(shared.clock.unix_ms(), &client, "", refusal.reason, refusal.said, &[]);
            let mut out = Vec::new();
            if let Some(version) = refusal.version {
                answer::connack_refusing(&mut out, version, refusal.reason, refusal.said);
            }
            drop(
                timeout(GOODBYE, async {
                    stream.write_all(&out).await?;
                    stream.shutdown().await
                })
                .await,
            );
        }
    }
}

/// Serves a client that may stay.
async fn stay(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    guest: Guest,
    shared: &Arc<Shared>,
) {
    let Guest { client, client_id, connect, assigned, rest } = guest;
    let (place, before) = shared.registry.enter(&client.name, &client_id);
    if shared.closing.is_closed() {
        // Those who were there have been told already.
        place.end(Reason::ServerShuttingDown);
    }
    if let Some(before) = before {
        // One after the other, so that they are told apart by those who hear of them.
        drop(timeout(TAKEOVER, before.gone()).await);
    }
    let keep_alive_max_s = u16::try_from(shared.times.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
    let keep_alive_s = match connect.keep_alive_s {
        0 => keep_alive_max_s,
        asked => asked.min(keep_alive_max_s),
    };
    let abilities = Abilities {
        version: connect.version,
        receive_max: connect.receive_max,
        packet_bytes_max: connect.packet_bytes_max,
        wants_reasons: connect.wants_reasons,
    };
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let presence = Presence::begin(&client, peer, shared);
    let mut session = Session::new(client, abilities, shared.limits, number);
    let terms = Terms {
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        receive_max: shared.limits.inflight,
        packet_bytes_max: u32::try_from(shared.limits.body_bytes()).unwrap_or(u32::MAX),
        assigned_client_id: assigned.then_some(client_id.as_str()),
        wanted_session: !connect.clean,
    };
    answer::connack(&mut session.out, connect.version, &terms);
    let now = Instant::now();
    let connection = Connection {
        session,
        held: rest,
        written: 0,
        state: State::Reading,
        waiter: Waiter::new(),
        link: None,
        opened: None,
        keep_alive: Duration::from_millis(u64::from(keep_alive_s) * 1500),
        heard: now,
        incomplete_since: None,
        unwritten_since: None,
        shared: Arc::clone(shared),
    };
    drop(client_id);
    let mut connection = Box::new(connection);
    let will = connect.will.map(Box::new);
    let end = connection.run(&mut stream, &place).await;
    presence.end(end);
    if let (Some(will), true) = (will, wants_will(end)) {
        connection.publish_will(&will);
    }
    drop((connection, place));
    drop(timeout(GOODBYE, stream.shutdown()).await);
}

/// MQTT 5, 3.1.2.5: the will is for clients that did not say DISCONNECT. When the gateway goes down nobody is left to
/// hear it.
fn wants_will(end: End) -> bool {
    match end {
        End::Left { wants_will } => wants_will,
        End::Lost => true,
        End::Closed(reason) => reason != Reason::ServerShuttingDown,
    }
}

/// A connection after its CONNACK.
struct Connection {
    session: Session<Ticket>,
    /// Bytes read that the session could not read yet.
    held: Vec<u8>,
    /// How much of the session's output has been written.
    written: usize,
    state: State,
    waiter: Arc<Waiter>,
    link: Option<Link>,
    /// What comes over a link that was opened just now.
    opened: Option<Deliveries>,
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
    /// The other side takes no more for now, and has until the next deadline.
    Stuck,
    /// Everything is written, and nothing more will be.
    Done,
    Lost,
}

impl Connection {
    /// Carries bytes until the connection ends.
    async fn run(&mut self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), place: &Place) -> End {
        let shared = Arc::clone(&self.shared);
        let waiter = Arc::clone(&self.waiter);
        let mut alarm = pin!(sleep_until(self.deadline()));
        if !self.held.is_empty() {
            self.read_held();
        }
        let mut deliveries = None;
        loop {
            if let Some(opened) = self.opened.take() {
                deliveries = Some(opened);
            }
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
            let may_deliver = stays && deliveries.is_some() && self.session.can_deliver();
            tokio::select! {
                biased;
                reason = place.told_to_end(), if stays => self.told_to_end(reason),
                () = waiter.notified(), if self.session.awaits_storage() && !leaving => self.stored(),
                moved = poll_fn(|cx| self.poll_stream(stream, cx)) => match moved {
                    Moved::Read | Moved::Stuck => {}
                    Moved::Done => return self.end(),
                    Moved::Lost => return match self.state { State::Reading => End::Lost, _ => self.end() },
                },
                room = shared.custody.room(), if matches!(self.state, State::NoRoom { .. }) => match room {
                    Ok(()) => self.read_held(),
                    Err(_) => self.leave(End::Closed(Reason::UnspecifiedError)),
                },
                delivered = next(&mut deliveries), if may_deliver => self.delivered(delivered, &mut deliveries),
                () = alarm.as_mut() => {
                    self.check_time();
                    alarm.as_mut().reset(self.deadline());
                }
            }
        }
    }

    /// Writes what is to be written, then reads what is to be read.
    fn poll_stream(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Moved> {
        let was_stuck = self.unwritten_since.is_some();
        match self.poll_write(stream, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Moved::Lost),
            Poll::Pending if was_stuck => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Moved::Stuck),
        }
        match self.state {
            State::Leaving { .. } => Poll::Ready(Moved::Done),
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
                _ => return Poll::Ready(Moved::Lost),
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
        let mut world = World::new(&shared, &self.waiter, &mut self.link, &mut self.opened);
        let (done, progress) = self.session.receive(bytes, uplinks, &mut world);
        let closed = world.closed;
        match progress {
            _ if closed => self.leave(End::Closed(Reason::ServerUnavailable)),
            Progress::Read => {}
            Progress::NoRoom => self.state = State::NoRoom { full: false },
            Progress::TooManyInFlight => self.state = State::TooManyInFlight,
            Progress::End(end) => self.leave(end),
        }
        // Refusals have nothing to wait for, and a repeated uplink may be stored long since.
        self.session.acknowledge(shared.custody.stored());
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
            State::Draining { .. } | State::Leaving { .. } => self.held = Vec::new(),
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
        self.held = Vec::new();
        self.state = State::Leaving { end, until: Instant::now() + GOODBYE };
    }

    fn end(&self) -> End {
        match self.state {
            State::Draining { end, .. } | State::Leaving { end, .. } => end,
            State::Reading | State::NoRoom { .. } | State::TooManyInFlight => End::Lost,
        }
    }

    /// Writes a message from the router, and more if there are more: one write for many.
    fn delivered(&mut self, first: Result<Delivery, Lost>, deliveries: &mut Option<Deliveries>) {
        let shared = Arc::clone(&self.shared);
        let mut next = Some(first);
        for room in (0..DELIVERIES_MAX).rev() {
            match next.take() {
                Some(Ok(delivery)) => {
                    let mut world = World::new(&shared, &self.waiter, &mut self.link, &mut self.opened);
                    self.session.deliver(delivery, &mut world);
                }
                Some(Err(Lost)) => return self.leave(End::Closed(Reason::ServerUnavailable)),
                None => break,
            }
            if room > 0 && self.session.can_deliver() {
                next = deliveries.as_mut().and_then(Deliveries::next_if_there);
            }
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

    /// Does what the client would have done with a last PUBLISH.
    fn publish_will(&mut self, will: &Will) {
        let shared = Arc::clone(&self.shared);
        let client = &self.session.client;
        let refused = |reason: Reason| {
            let said = "the will could not be published";
            shared.refusals.keep(
                shared.clock.unix_ms(),
                &client.name,
                &will.topic,
                reason,
                said,
                &will.payload,
            );
        };
        if let Some(Topic::Events(device)) = Topic::parse(&will.topic) {
            let Ok(run) = intake::read(&will.payload) else { return refused(Reason::PayloadFormatInvalid) };
            let received_ms = shared.clock.unix_ms();
            let offered =
                shared.custody.gather().offer(&device, received_ms, None, &will.payload, run, &self.waiter);
            if offered.is_err() {
                refused(Reason::QuotaExceeded);
            }
            return;
        }
        let message = Message {
            origin: u32::MAX,
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.as_deref().cloned(),
        };
        if let Err(reason) = shared.local.publish(&message) {
            refused(reason);
        }
    }
}

/// The next message for a subscriber.
async fn next(deliveries: &mut Option<Deliveries>) -> Result<Delivery, Lost> {
    match deliveries {
        Some(deliveries) => deliveries.next().await,
        None => std::future::pending().await,
    }
}

/// The world as one read or one delivery sees it.
struct World<'a> {
    shared: &'a Shared,
    waiter: &'a Arc<Waiter>,
    link: &'a mut Option<Link>,
    opened: &'a mut Option<Deliveries>,
    /// One time for all that was read at once; asked for when first needed.
    received_ms: Option<u64>,
    /// Custody takes nothing any more.
    closed: bool,
}

impl<'a> World<'a> {
    fn new(
        shared: &'a Shared,
        waiter: &'a Arc<Waiter>,
        link: &'a mut Option<Link>,
        opened: &'a mut Option<Deliveries>,
    ) -> Self {
        World { shared, waiter, link, opened, received_ms: None, closed: false }
    }
}

impl Outside for World<'_> {
    type Ticket = Ticket;

    fn offer(&mut self, bytes: &[u8], uplinks: &[Uplink], mut taken: impl FnMut(&Uplink, Ticket)) -> usize {
        let received_ms = *self.received_ms.get_or_insert_with(|| self.shared.clock.unix_ms());
        let mut gather = self.shared.custody.gather();
        for (index, uplink) in uplinks.iter().enumerate() {
            let traceparent = uplink.traceparent.clone().map(|place| &bytes[place]);
            let payload = &bytes[uplink.payload.clone()];
            match gather.offer(&uplink.device, received_ms, traceparent, payload, uplink.run, self.waiter) {
                Ok(ticket) => taken(uplink, ticket),
                Err(full) => {
                    self.closed = full == Full::Closed;
                    return index;
                }
            }
        }
        uplinks.len()
    }

    fn wants_events(&self) -> bool {
        self.shared.local.wants_events()
    }

    fn publish(&mut self, message: &Message<'_>) -> Result<(), Reason> {
        self.shared.local.publish(message)
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> Result<(), Reason> {
        if self.link.is_none() {
            let (link, deliveries) = self.shared.local.open()?;
            (*self.link, *self.opened) = (Some(link), Some(deliveries));
        }
        self.link.as_mut().expect("it is there now").subscribe(filter, qos)
    }

    fn unsubscribe(&mut self, filter: &str) {
        if let Some(link) = self.link {
            link.unsubscribe(filter);
        }
    }

    fn acknowledge(&mut self, packet_id: u16) {
        if let Some(link) = self.link {
            link.acknowledge(packet_id);
        }
    }

    fn refused(&mut self, client: &Client, topic: &str, reason: Reason, said: &str, payload: &[u8]) {
        facts::uplink_refused(reason.as_str());
        tracing::debug!(client = %client.name, topic, %reason, "refused: {said}");
        self.shared.refusals.keep(self.shared.clock.unix_ms(), &client.name, topic, reason, said, payload);
    }

    fn unix_ms(&self) -> u64 {
        self.shared.clock.unix_ms()
    }
}

/// Tells that a client is there, and, whatever happens, that it no longer is.
struct Presence<'a> {
    /// `None` for clients that are no devices.
    device: Option<Id>,
    name: Box<str>,
    peer: SocketAddr,
    shared: &'a Shared,
    reason: Cow<'static, str>,
}

impl<'a> Presence<'a> {
    fn begin(client: &Client, peer: SocketAddr, shared: &'a Shared) -> Self {
        facts::connection_opened();
        tracing::debug!(client = %client.name, %peer, "connected");
        // Whoever has rights of its own is a local program.
        let device = client.device.filter(|_| client.rights.is_none());
        if let Some(device) = device {
            shared.journal.send(Entry::Connected { device, address: peer });
        }
        Presence { device, name: client.name.clone(), peer, shared, reason: "failed".into() }
    }

    fn end(mut self, end: End) {
        self.reason = match end {
            End::Left { .. } => "left".into(),
            End::Lost => "lost".into(),
            End::Closed(reason) => reason.as_str().into(),
        };
        if let End::Closed(reason) = end
            && reason != Reason::ServerShuttingDown
        {
            facts::connection_refused(reason.as_str());
            tracing::info!(client = %self.name, peer = %self.peer, %reason, "a connection was closed");
        }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        facts::connection_closed();
        tracing::debug!(client = %self.name, peer = %self.peer, reason = %self.reason, "disconnected");
        if let Some(device) = self.device {
            self.shared
                .journal
                .send(Entry::Disconnected { device, reason: std::mem::take(&mut self.reason) });
        }
    }
}
