//! One client's session, without IO: bytes in, bytes out, and what it wants of the world through [`Outside`].
//!
//! * Uplinks are offered in runs, one lock for as many as one read brought. Each is acknowledged when its ticket is
//!   stored, never before, and acknowledgements leave in the order of their publishes (MQTT 5, 4.6), refusals included.
//! * Nothing is copied before it is taken. What cannot be taken now stays with the caller, who offers it again.
//! * A session ends with its connection.

mod subscriber;

pub(super) use self::subscriber::OUT_BYTES_MAX as SUBSCRIBER_BYTES;

use std::collections::VecDeque;
use std::ops::Range;

use weir_contract::topic::{self, TOPIC_LEN_MAX, Topic};
use weir_contract::uplink::UPLINK_LEN_MAX;
use weir_contract::{Id, Inline};

use self::subscriber::Subscription;
use super::answer;
use super::codec;
use super::frame::{self, Frame, Version, kind};
use super::local::{Message, Page};
use super::reason::Reason;
use super::topics::{self, Client};
use crate::intake::{self, SeqRun};

/// Room in a packet for what is neither topic nor payload: identifiers, properties, a CONNECT's name and password.
const EXTRA_BYTES_MAX: usize = 4096;
/// Queues that grew beyond this many are not kept while empty.
const QUEUE_KEPT: usize = 64;

/// What the session needs done.
pub(super) trait Outside {
    /// When something will be on disk: compare with what is.
    type Ticket: Copy + Ord;
    /// Takes uplinks that lie in `bytes`, in order, as many as there is room for, and says how many that are.
    fn offer(&mut self, bytes: &[u8], uplinks: &[Uplink], taken: impl FnMut(&Uplink, Self::Ticket)) -> usize;
    /// Whether local subscribers may want events.
    fn wants_events(&self) -> bool;
    /// Hands a message to local subscribers.
    fn publish(&mut self, message: &Message<'_>) -> Result<(), Reason>;
    /// What is published on topics that the filter matches is to be delivered from now on.
    fn subscribe(&mut self, filter: &str) -> Result<(), Reason>;
    /// Some retained messages that the filter matches, on topics after `after`.
    fn retained(&self, filter: &str, after: &str) -> Page;
    /// Undoes that.
    fn unsubscribe(&mut self, filter: &str);
    /// The device listens to commands from now on; what waits for it comes.
    fn listen(&mut self, device: &Id);
    /// The device no longer listens.
    fn stop_listening(&mut self);
    /// Something was refused.
    fn refused(&mut self, client: &Client, topic: &str, reason: Reason, said: &str, payload: &[u8]);
    /// The wall time, if it is known.
    fn unix_ms(&self) -> Option<u64>;
}

/// An uplink where it lies in the bytes that were read.
#[derive(Debug)]
pub(super) struct Uplink {
    pub device: Id,
    pub run: SeqRun,
    pub traceparent: Option<Range<usize>>,
    pub payload: Range<usize>,
    /// `None` with QoS 0.
    packet_id: Option<u16>,
    /// Where its packet begins.
    at: usize,
}

/// How far reading got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All whole packets are read.
    Read,
    /// There is no room for the next uplink; come again when there is.
    NoRoom,
    /// The client has as many publishes unacknowledged as it may; come again when some are acknowledged.
    TooManyInFlight,
    /// The connection is to be closed.
    End(End),
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client said DISCONNECT, and whether its will is to be published all the same.
    Left { wants_will: bool },
    /// The connection broke, or the client closed it without a word.
    Lost,
    /// The gateway ends it, for this reason.
    Closed(Reason),
}

/// The limits a session keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub inflight: u16,
    pub payload_bytes: usize,
    pub topic_bytes: usize,
    pub filters: usize,
}

impl Limits {
    /// The longest body of a packet.
    pub fn body_bytes(&self) -> usize {
        self.payload_bytes.max(UPLINK_LEN_MAX) + self.topic_bytes.max(TOPIC_LEN_MAX) + EXTRA_BYTES_MAX
    }

    /// The most a session holds: what it may not read yet, and what is not acknowledged yet.
    pub fn memory_bytes(&self) -> u64 {
        let pending = usize::from(self.inflight) * size_of::<Pending<crate::custody::Ticket>>();
        (self.body_bytes() + pending) as u64
    }
}

/// What the client said of itself in its CONNECT.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    pub version: Version,
    pub receive_max: u16,
    pub packet_bytes_max: usize,
    pub wants_reasons: bool,
}

/// A client's session.
#[derive(Debug)]
pub(super) struct Session<T> {
    pub client: Client,
    /// Bytes to be written.
    pub out: Vec<u8>,
    abilities: Abilities,
    limits: Limits,
    number: u32,
    /// The topic nearly every publish is on.
    events_topic: Option<Inline<TOPIC_LEN_MAX>>,
    pending: VecDeque<Pending<T>>,
    subscriptions: Vec<Subscription>,
    /// Packet identifiers of messages that the client has not acknowledged.
    sent: Vec<u16>,
    /// The last one that was used.
    packet_ids: u16,
    /// Those, and a command.
    unacknowledged: u16,
    /// The packet identifier of a command that the client has not acknowledged.
    command: Option<u16>,
    commands: u16,
}

/// A publish that has yet to be acknowledged.
#[derive(Debug)]
struct Pending<T> {
    packet_id: u16,
    reason: Reason,
    /// `None` if there is nothing to wait for.
    ticket: Option<T>,
    said: Option<Box<str>>,
}

impl<T: Copy + Ord> Session<T> {
    /// `number` tells connections apart.
    pub fn new(client: Client, abilities: Abilities, limits: Limits, number: u32) -> Self {
        Session {
            events_topic: client.device.as_ref().map(topic::events),
            client,
            out: Vec::new(),
            abilities,
            limits,
            number,
            pending: VecDeque::new(),
            subscriptions: Vec::new(),
            sent: Vec::new(),
            packet_ids: 0,
            unacknowledged: 0,
            command: None,
            commands: 0,
        }
    }

    /// Reads the packets at the beginning of `bytes`; returns how many bytes of them are done with. `uplinks` is a
    /// buffer that is worth keeping from call to call.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        uplinks: &mut Vec<Uplink>,
        outside: &mut impl Outside<Ticket = T>,
    ) -> (usize, Progress) {
        uplinks.clear();
        let mut at = 0;
        let progress = loop {
            let frame = match frame::next(&bytes[at..], self.limits.body_bytes()) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Progress::Read,
                Err(reason) => break Progress::End(End::Closed(reason)),
            };
            let read = if frame.kind() == kind::PUBLISH {
                let inflight = usize::from(self.limits.inflight);
                // Of what was gathered only QoS 1 will be in flight (MQTT 5, 3.3.4).
                if self.pending.len() + uplinks.len() >= inflight
                    && let Some(stopped_at) = self.offer(bytes, uplinks, outside)
                {
                    return (stopped_at, Progress::NoRoom);
                }
                if self.pending.len() >= inflight {
                    // It may be that there is only more room than we know of.
                    break match (self.abilities.version, frame.head & 0b0110) {
                        (Version::V5, 0b0010) => Progress::End(End::Closed(Reason::ReceiveMaximumExceeded)),
                        _ => Progress::TooManyInFlight,
                    };
                }
                self.read_publish(&frame, at, uplinks)
            } else {
                Ok(Read::Other)
            };
            match read {
                Ok(Read::Uplink(uplink)) => uplinks.push(uplink),
                Err(reason) => break Progress::End(End::Closed(reason)),
                // Whatever else there is comes after the uplinks before it.
                Ok(read) => {
                    if let Some(stopped_at) = self.offer(bytes, uplinks, outside) {
                        return (stopped_at, Progress::NoRoom);
                    }
                    let done = match read {
                        Read::Refused { publish, reason, said } => {
                            self.refuse(&publish, reason, said, outside)
                        }
                        Read::Elsewhere(publish) => self.publish_elsewhere(&publish, outside),
                        Read::Uplink(_) | Read::Other => self.read_other(&frame, outside),
                    };
                    if let Err(end) = done {
                        return (at, Progress::End(end));
                    }
                }
            }
            at += frame.whole.len();
        };
        // Also when the connection is about to end: what came before was right.
        match self.offer(bytes, uplinks, outside) {
            Some(stopped_at) => (stopped_at, Progress::NoRoom),
            None => (at, progress),
        }
    }

    /// Everything up to `stored` is on disk: writes the acknowledgements that waited for it.
    pub fn acknowledge(&mut self, stored: T) {
        let ready = |pending: &Pending<T>| pending.ticket.is_none_or(|ticket| ticket <= stored);
        while self.pending.front().is_some_and(ready) {
            let Some(pending) = self.pending.pop_front() else { break };
            let may_say = self.abilities.wants_reasons && self.abilities.packet_bytes_max >= answer::LEN_MAX;
            let said = if may_say { pending.said.as_deref().unwrap_or("") } else { "" };
            answer::puback(&mut self.out, self.abilities.version, pending.packet_id, pending.reason, said);
        }
        if self.pending.is_empty() && self.pending.capacity() > QUEUE_KEPT {
            self.pending.shrink_to(QUEUE_KEPT);
        }
    }

    /// Whether publishes wait to be stored.
    pub fn awaits_storage(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Answers the pings among packets that cannot be read yet and takes them out. Returns how many publishes there are.
    pub fn answer_pings(&mut self, held: &mut Vec<u8>) -> Result<usize, Reason> {
        // Packets that stay are moved to `kept`, once: there may be tens of thousands of pings between them.
        let (mut at, mut kept, mut publishes) = (0, 0, 0);
        let ended = loop {
            let frame = match frame::next(&held[at..], self.limits.body_bytes()) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(reason) => break Err(reason),
            };
            let (kind, len) = (frame.kind(), frame.whole.len());
            if kind == kind::PINGREQ {
                answer::pingresp(&mut self.out);
            } else {
                publishes += usize::from(kind == kind::PUBLISH);
                held.copy_within(at..at + len, kept);
                kept += len;
            }
            at += len;
        };
        held.drain(kept..at);
        ended.map(|()| publishes)
    }

    /// Whether the client may hold back as many publishes as `held` besides those not yet acknowledged.
    pub fn may_hold(&self, held: usize) -> bool {
        self.pending.len() + held < usize::from(self.limits.inflight)
    }

    /// Passes over whole packets at the beginning of `unheard` without obeying them, and takes them out. Says whether one of
    /// them is the client's DISCONNECT.
    pub fn farewell(&self, unheard: &mut Vec<u8>) -> Result<Option<End>, Reason> {
        let mut at = 0;
        while let Some(frame) = frame::next(&unheard[at..], self.limits.body_bytes())? {
            if frame.kind() == kind::DISCONNECT {
                return self.left(&frame).map(Some);
            }
            at += frame.whole.len();
        }
        unheard.drain(..at);
        Ok(None)
    }

    /// Appends a DISCONNECT, where the version has one.
    pub fn say_goodbye(&mut self, reason: Reason) {
        answer::disconnect(&mut self.out, self.abilities.version, reason);
    }

    /// Offers uplinks; if there is no room for all, says where the first one left begins.
    fn offer(
        &mut self,
        bytes: &[u8],
        uplinks: &mut Vec<Uplink>,
        outside: &mut impl Outside<Ticket = T>,
    ) -> Option<usize> {
        if uplinks.is_empty() {
            return None;
        }
        let pending = &mut self.pending;
        let taken = outside.offer(bytes, uplinks, |uplink, ticket| {
            if let Some(packet_id) = uplink.packet_id {
                pending.push_back(Pending {
                    packet_id,
                    reason: Reason::Success,
                    ticket: Some(ticket),
                    said: None,
                });
            }
        });
        if outside.wants_events() {
            for uplink in &uplinks[..taken] {
                let message = Message {
                    origin: self.number,
                    topic: &topic::events(&uplink.device),
                    payload: &bytes[uplink.payload.clone()],
                    qos: u8::from(uplink.packet_id.is_some()),
                    retain: false,
                    properties: frame::Properties::default(),
                };
                // Who only listens has no promise, and its limits are no reason to refuse an uplink.
                let _ = outside.publish(&message);
            }
        }
        let stopped_at = uplinks.get(taken).map(|uplink| uplink.at);
        uplinks.clear();
        stopped_at
    }

    /// Sorts a publish: an uplink that may be offered, a message for others, or neither.
    fn read_publish<'a>(&self, frame: &Frame<'a>, at: usize, uplinks: &[Uplink]) -> Result<Read<'a>, Reason> {
        let publish = frame::publish(self.abilities.version, frame)?;
        let device = match (&self.events_topic, &self.client.device) {
            (Some(own), Some(device)) if **own == *publish.topic => *device,
            _ => {
                if !topics::is_name(publish.topic) || publish.topic.len() > self.limits.topic_bytes {
                    return Err(Reason::TopicNameInvalid);
                }
                let Some(Topic::Events(device)) = Topic::parse(publish.topic) else {
                    return Ok(Read::Elsewhere(publish));
                };
                if !self.client.may_publish_events_of(&device) {
                    let said = "this client may not publish events of that device".to_owned();
                    return Ok(Read::Refused { publish, reason: Reason::NotAuthorized, said });
                }
                device
            }
        };
        debug_assert!(uplinks.last().is_none_or(|before| before.at < at));
        match intake::read(publish.payload) {
            Ok(run) => Ok(Read::Uplink(Uplink {
                device,
                run,
                traceparent: publish.traceparent.map(|part| place(frame, at, part)),
                payload: place(frame, at, publish.payload),
                packet_id: (publish.qos > 0).then_some(publish.packet_id),
                at,
            })),
            Err(refusal) => {
                let reason = Reason::PayloadFormatInvalid;
                Ok(Read::Refused { publish, reason, said: refusal.to_string() })
            }
        }
    }

    /// A publish that is not taken: says so where the version can, and otherwise acknowledges, lest it come again.
    fn refuse(
        &mut self,
        publish: &frame::Publish<'_>,
        reason: Reason,
        said: String,
        outside: &mut impl Outside<Ticket = T>,
    ) -> Result<(), End> {
        outside.refused(&self.client, publish.topic, reason, &said, publish.payload);
        if self.abilities.version == Version::V4 && reason == Reason::NotAuthorized {
            return Err(End::Closed(reason));
        }
        self.answer(publish, reason, Some(said.into()));
        Ok(())
    }

    /// Queues the acknowledgement of a publish that nothing has to be stored for.
    fn answer(&mut self, publish: &frame::Publish<'_>, reason: Reason, said: Option<Box<str>>) {
        if publish.qos > 0 {
            self.pending.push_back(Pending { packet_id: publish.packet_id, reason, ticket: None, said });
        }
    }

    /// A publish that is no uplink: for local subscribers, without the spool's promise.
    fn publish_elsewhere(
        &mut self,
        publish: &frame::Publish<'_>,
        outside: &mut impl Outside<Ticket = T>,
    ) -> Result<(), End> {
        let refused = if !self.client.may_publish(publish.topic) {
            Some((Reason::NotAuthorized, "this client may not publish on that topic"))
        } else if !topics::is_served(publish.topic) {
            Some((Reason::TopicNameInvalid, "topics that begin with `$` are not served"))
        } else if publish.payload.len() > self.limits.payload_bytes {
            Some((Reason::QuotaExceeded, "the payload is too long"))
        } else {
            None
        };
        if let Some((reason, said)) = refused {
            return self.refuse(publish, reason, said.to_owned(), outside);
        }
        let message = Message {
            origin: self.number,
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
        };
        match outside.publish(&message) {
            Ok(()) => {
                self.answer(publish, Reason::Success, None);
                Ok(())
            }
            Err(reason) => {
                self.refuse(publish, reason, "a limit of local delivery is reached".to_owned(), outside)
            }
        }
    }

    fn left(&self, disconnect: &Frame<'_>) -> Result<End, Reason> {
        let wants_will = frame::disconnect_wants_will(self.abilities.version, disconnect)?;
        Ok(End::Left { wants_will })
    }

    fn read_other(&mut self, frame: &Frame<'_>, outside: &mut impl Outside<Ticket = T>) -> Result<(), End> {
        let version = self.abilities.version;
        match frame.kind() {
            kind::PINGREQ => answer::pingresp(&mut self.out),
            kind::PUBACK => {
                let packet_id = frame::puback(version, frame).map_err(End::Closed)?;
                self.received(packet_id);
            }
            kind::SUBSCRIBE => self.subscribe(frame, outside).map_err(End::Closed)?,
            kind::UNSUBSCRIBE => {
                let (packet_id, filters) = codec::unsubscribe(version, frame).map_err(End::Closed)?;
                let existed: Vec<_> =
                    filters.iter().map(|filter| self.unsubscribe(filter, outside)).collect();
                answer::unsuback(&mut self.out, version, packet_id, &existed);
            }
            kind::DISCONNECT => return Err(self.left(frame).unwrap_or_else(End::Closed)),
            // A second CONNECT, or a part of QoS 2.
            _ => return Err(End::Closed(Reason::ProtocolError)),
        }
        Ok(())
    }
}

/// What a packet turned out to be.
enum Read<'a> {
    Uplink(Uplink),
    Elsewhere(frame::Publish<'a>),
    Refused { publish: frame::Publish<'a>, reason: Reason, said: String },
    Other,
}

/// Where `part` of a frame lies, if the frame begins at `at`.
fn place(frame: &Frame<'_>, at: usize, part: &[u8]) -> Range<usize> {
    let start = at + (part.as_ptr().addr() - frame.whole.as_ptr().addr());
    start..start + part.len()
}

#[cfg(test)]
mod tests;
