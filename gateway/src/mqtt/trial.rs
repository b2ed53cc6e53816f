//! A connection on trial: a client's bytes, whatever they are and however they are cut, against greeting's codec, session and
//! local delivery as they are, and a custody that stores when the script says so. Everything that is answered is read by
//! another codec than ours and rumqttd's, and held against what that codec reads of the client:
//!
//! * every answer is a packet that a server may send at that point; after a DISCONNECT comes nothing;
//! * acknowledgements come in the order of the publishes, and for an uplink not before custody's word;
//! * what custody is offered are the uplinks that were sent, whole, each once, in order;
//! * messages are for topics that were subscribed to, with no greater QoS, no longer than the client takes, no more at a time,
//!   and with identifiers that are free;
//! * what waits to be read or written is bounded; in the end everything is answered, if the connection lasted.
//!
//! For a test with random scripts, and for the fuzzer (`gateway/fuzz`).

mod wire;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rumqttc::mqttbytes::matches;
use weir_contract::Id;

use self::wire::{Packet, Wire};
use super::answer::{self, Terms};
use super::codec;
use super::frame::{self, Frame, Properties, Version, kind};
use super::local::{Limits as LocalLimits, Link, Local, Message, Page};
use super::reason::Reason;
use super::session::{Abilities, End, Limits, Outside, Progress, SUBSCRIBER_BYTES, Session, Uplink};
use super::topics::{Client, Rights};
use crate::intake;

/// Whose events the client on trial may publish.
const DEVICE: &str = "dev-1";
/// The longest CONNECT that is read.
const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Read at once.
const READ_BYTES: usize = 700;
/// On the way to a client at a time, whatever it takes.
const ON_THE_WAY_MAX: usize = 100;
/// Longer than any script can be.
const STEPS_MAX: usize = 100_000;

/// What a script came to; a test sees in it that its scripts come to something.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// A CONNECT was accepted.
    pub connected: usize,
    /// Publishes acknowledged, and those of them that had to be stored first.
    pub acknowledged: usize,
    /// Of these, uplinks.
    pub stored: usize,
    /// Messages the client was sent.
    pub delivered: usize,
    /// Subscriptions granted.
    pub granted: usize,
    /// Everything was read and answered, and the connection would have gone on.
    pub lasted: usize,
    /// The gateway closed it.
    pub closed: usize,
}

/// Runs a script: a byte that says the limits, then steps of two bytes or more.
///
/// # Panics
/// If a promise of this module's documentation is broken.
pub fn run(script: &[u8]) -> Report {
    let mut script = script.iter().copied();
    let limits = Limits {
        inflight: 1 + u16::from(script.next().unwrap_or(0) % 16),
        payload_bytes: 1000,
        topic_bytes: 100,
        filters: 4,
    };
    let mut trial = Trial::new(limits);
    while let (Some(step), Some(number)) = (script.next(), script.next()) {
        match step % 8 {
            0..=3 => trial.send(&script.by_ref().take(usize::from(number) * 2 + 1).collect::<Vec<_>>()),
            4 => trial.world.room += usize::from(number % 8),
            5 => trial.world.stored = trial.world.tickets,
            6 => trial.somebody_publishes(number),
            _ => match number % 4 {
                0 => trial.reads = true,
                1 => trial.reads = false,
                2 => trial.command(),
                _ => trial.tell_time(),
            },
        }
        trial.go_on();
        if trial.over {
            break;
        }
    }
    trial.finish()
}

/// Sans-IO, what `connection` is with sockets.
struct Trial {
    /// After its CONNECT.
    session: Option<Session<u64>>,
    /// Sent and not read yet: the system's buffers.
    socket: VecDeque<u8>,
    held: Vec<u8>,
    state: State,
    world: World,
    limits: Limits,
    /// Whether the client reads what it is sent.
    reads: bool,
    over: bool,
    expected: Expected,
    report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    NoRoom { full: bool },
    TooManyInFlight,
}

/// What another codec reads of the client, and what follows from it.
struct Expected {
    client: Option<Wire>,
    /// Before the version is known.
    unread: Vec<u8>,
    /// It cannot read what comes from here on: nothing more is expected.
    blind: bool,
    /// QoS 1 publishes that are not acknowledged, and which uplink they are.
    publishes: VecDeque<(u16, Option<usize>)>,
    /// Payloads of the uplinks that were sent.
    uplinks: Vec<Vec<u8>>,
    subscribes: VecDeque<(u16, Vec<String>)>,
    unsubscribes: VecDeque<(u16, Vec<String>)>,
    pings: usize,
    /// What was granted, by filter.
    granted: HashMap<String, u8>,
    /// Identifiers of messages that the client has not acknowledged.
    on_the_way: HashSet<u16>,
    /// What it acknowledged before it was sent that; it may be read only after.
    early: HashSet<u16>,
    on_the_way_max: usize,
    packet_bytes_max: usize,
    said_goodbye: bool,
    /// So many of what was taken are what was sent.
    compared: usize,
}

/// Custody, local delivery and commands.
struct World {
    room: usize,
    tickets: u64,
    stored: u64,
    /// Uplinks that were taken: payload and ticket.
    taken: Vec<(Vec<u8>, u64)>,
    local: Arc<Local>,
    link: Option<Link>,
    listens: bool,
}

impl Outside for World {
    type Ticket = u64;

    fn offer(&mut self, bytes: &[u8], uplinks: &[Uplink], mut taken: impl FnMut(&Uplink, u64)) -> usize {
        let count = uplinks.len().min(self.room);
        self.room -= count;
        for uplink in &uplinks[..count] {
            assert_eq!(uplink.device.as_str(), DEVICE);
            self.tickets += 1;
            self.taken.push((bytes[uplink.payload.clone()].to_vec(), self.tickets));
            taken(uplink, self.tickets);
        }
        count
    }
    fn wants_events(&self) -> bool {
        self.local.wants_events()
    }
    fn publish(&mut self, message: &Message<'_>) -> Result<(), Reason> {
        self.local.publish(message)
    }
    fn subscribe(&mut self, filter: &str) -> Result<(), Reason> {
        if self.link.is_none() {
            self.link = Some(self.local.open()?);
        }
        self.link.as_mut().expect("it is there now").subscribe(filter)
    }
    fn retained(&self, filter: &str, after: &str) -> Page {
        match &self.link {
            Some(link) => link.retained_page(filter, after),
            None => self.local.retained_page(filter, after),
        }
    }
    fn unsubscribe(&mut self, filter: &str) {
        self.link.as_mut().expect("it has subscribed").unsubscribe(filter);
    }
    fn listen(&mut self, _: &Id) {
        self.listens = true;
    }
    fn stop_listening(&mut self) {
        self.listens = false;
    }
    fn refused(&mut self, _: &Client, _: &str, _: Reason, _: &str, _: &[u8]) {}
    fn unix_ms(&self) -> Option<u64> {
        Some(1_800_000_000_000)
    }
}

fn owned(filters: &[&str]) -> Vec<String> {
    filters.iter().map(|filter| (*filter).to_owned()).collect()
}

impl Trial {
    fn new(limits: Limits) -> Trial {
        let filters = owned(&["plant/#", "plant/+", "weir/1/+/events"]);
        let local =
            Local::new(filters, LocalLimits { subscribers: 1, retained: 20, retained_bytes: 1 << 16 });
        let world =
            World { room: 2, tickets: 0, stored: 0, taken: Vec::new(), local, link: None, listens: false };
        Trial {
            session: None,
            socket: VecDeque::new(),
            held: Vec::new(),
            state: State::Reading,
            world,
            limits,
            reads: true,
            over: false,
            expected: Expected::new(),
            report: Report::default(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.extend(bytes);
        self.expected.hear(bytes);
    }

    fn somebody_publishes(&mut self, number: u8) {
        let topic = ["plant/a", "plant/b/c", "weir/1/dev-2/events", "elsewhere"][usize::from(number % 4)];
        let (qos, retain) = (number >> 2 & 1, number & 8 != 0);
        let payload = vec![b'x'; usize::from(number >> 4) * 60];
        let message =
            Message { origin: 0, topic, payload: &payload, qos, retain, properties: Properties::default() };
        // The store of retained messages may be full.
        let _ = self.world.local.publish(&message);
    }

    fn command(&mut self) {
        if let Some(session) = self.session.as_mut().filter(|_| self.world.listens)
            && session.can_command()
        {
            session.command(b"do it");
        }
    }

    fn tell_time(&mut self) {
        if let Some(session) = self.session.as_mut().filter(|session| session.wants_time())
            && session.can_deliver()
        {
            session.tell_time(1_800_000_000_001);
        }
    }

    /// Does everything that can be done now.
    fn go_on(&mut self) {
        for _ in 0..STEPS_MAX {
            self.hold_to_bounds();
            if self.reads {
                self.read_answers();
            }
            let unwritten = self.session.as_ref().is_some_and(|session| !session.out.is_empty());
            if self.over || unwritten || !(self.greet() || self.deliver() || self.read()) {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    fn hold_to_bounds(&self) {
        let body = self.limits.body_bytes();
        assert!(self.held.len() <= body + 5 + READ_BYTES, "{} bytes are held", self.held.len());
        if let Some(session) = &self.session {
            let answers = usize::from(self.limits.inflight) * answer::LEN_MAX;
            let most = SUBSCRIBER_BYTES + body + answers + READ_BYTES;
            assert!(session.out.len() <= most, "{} bytes are to be written", session.out.len());
        }
    }

    /// Reads the CONNECT; whether there was something to do.
    fn greet(&mut self) -> bool {
        if self.session.is_some() {
            return false;
        }
        let bytes: Vec<u8> = self.socket.iter().copied().collect();
        let frame = match frame::next(&bytes, CONNECT_BYTES_MAX) {
            Ok(None) => return false,
            Ok(Some(frame)) if frame.kind() == kind::CONNECT => frame,
            Ok(Some(_)) | Err(_) => {
                self.over = true;
                return false;
            }
        };
        self.socket.drain(..frame.whole.len());
        self.admit(&frame);
        true
    }

    fn admit(&mut self, frame: &Frame<'_>) {
        let mut out = Vec::new();
        let Ok(version) = frame::connect_version(frame) else {
            self.over = true;
            return;
        };
        let connect = match codec::connect(version, frame) {
            Ok(connect) => connect,
            Err(reason) => {
                answer::connack_refusing(&mut out, version, reason, "it cannot be read");
                let mut answers = Wire::new(version);
                answers.push(&out);
                assert!(matches!(answers.next(), None | Some(Ok(Packet::Connack { accepted: false }))));
                self.over = true;
                return;
            }
        };
        let client = Client {
            name: DEVICE.into(),
            device: DEVICE.parse().ok(),
            gateway: None,
            rights: Some(Arc::new(Rights {
                publish: owned(&["plant/#", "$x/#"]),
                subscribe: owned(&["plant/#", "plant/+", "weir/1/+/events"]),
            })),
        };
        let abilities = Abilities {
            version,
            receive_max: connect.receive_max,
            packet_bytes_max: connect.packet_bytes_max,
            wants_reasons: connect.wants_reasons,
        };
        let mut session = Session::new(client, abilities, self.limits, 7);
        let terms = Terms {
            keep_alive_s: Some(60),
            receive_max: self.limits.inflight,
            packet_bytes_max: u32::try_from(self.limits.body_bytes()).expect("it is short"),
            assigned_client_id: connect.client_id.is_empty().then_some("auto-1"),
            wanted_session: !connect.clean,
        };
        answer::connack(&mut session.out, version, &terms);
        self.expected.on_the_way_max = usize::from(connect.receive_max).min(ON_THE_WAY_MAX);
        self.expected.packet_bytes_max = connect.packet_bytes_max;
        self.expected.begin(version);
        self.session = Some(session);
        self.report.connected = 1;
    }

    fn deliver(&mut self) -> bool {
        let Some(session) = self.session.as_mut().filter(|session| session.can_deliver()) else {
            return false;
        };
        if session.owes_retained() {
            session.deliver_retained(&self.world);
            return true;
        }
        let delivery = self.world.link.as_mut().and_then(Link::take);
        delivery.as_ref().inspect(|delivery| session.deliver(delivery)).is_some()
    }

    /// Reads of the client, as a connection does.
    fn read(&mut self) -> bool {
        let Some(session) = &mut self.session else { return false };
        match self.state {
            State::NoRoom { .. } if self.world.room > 0 => self.state = State::Reading,
            State::NoRoom { full: true } => return false,
            State::TooManyInFlight => {
                session.acknowledge(self.world.stored);
                if !session.may_hold(0) {
                    return false;
                }
                self.state = State::Reading;
            }
            State::Reading | State::NoRoom { full: false } => {
                if self.socket.is_empty() {
                    let before = session.out.len();
                    session.acknowledge(self.world.stored);
                    return session.out.len() > before;
                }
                let len = self.socket.len().min(READ_BYTES);
                self.held.extend(self.socket.drain(..len));
            }
        }
        if self.state == State::Reading {
            let (done, progress) = session.receive(&self.held, &mut Vec::new(), &mut self.world);
            self.held.drain(..done);
            session.acknowledge(self.world.stored);
            match progress {
                Progress::Read => {}
                Progress::NoRoom => self.state = State::NoRoom { full: false },
                Progress::TooManyInFlight => self.state = State::TooManyInFlight,
                Progress::End(end) => self.end(end),
            }
        }
        if let (State::NoRoom { .. }, Some(session), false) = (self.state, &mut self.session, self.over) {
            match session.answer_pings(&mut self.held) {
                Ok(publishes) => {
                    let full = self.held.len() >= self.limits.body_bytes() || !session.may_hold(publishes);
                    self.state = State::NoRoom { full };
                }
                Err(reason) => self.end(End::Closed(reason)),
            }
        }
        true
    }

    fn end(&mut self, end: End) {
        if let (End::Closed(reason), Some(session)) = (end, &mut self.session) {
            session.say_goodbye(reason);
            // What is left unread is looked through for the client's own goodbye.
            let _ = session.farewell(&mut self.held);
            self.report.closed = 1;
        }
        self.read_answers();
        self.over = true;
    }

    fn read_answers(&mut self) {
        if let Some(session) = &mut self.session {
            self.expected.answers(&std::mem::take(&mut session.out), &self.world, &mut self.report);
        }
    }

    /// Lets everything be stored and read; then nothing may be owed.
    fn finish(mut self) -> Report {
        self.reads = true;
        for _ in 0..STEPS_MAX {
            if self.over {
                return self.report;
            }
            self.world.room = usize::MAX / 2;
            self.world.stored = self.world.tickets;
            let before = (self.socket.len(), self.held.len(), self.expected.owed());
            self.go_on();
            if before == (self.socket.len(), self.held.len(), self.expected.owed()) {
                break;
            }
        }
        if self.session.is_some() && !self.expected.blind && !self.over {
            assert_eq!(self.expected.owed(), 0, "some packets were never answered");
            assert_eq!(self.world.taken.len(), self.expected.uplinks.len(), "some uplinks were never taken");
            self.report.lasted = 1;
        }
        self.report
    }
}

impl Expected {
    fn new() -> Expected {
        Expected {
            client: None,
            unread: Vec::new(),
            blind: false,
            publishes: VecDeque::new(),
            uplinks: Vec::new(),
            subscribes: VecDeque::new(),
            unsubscribes: VecDeque::new(),
            pings: 0,
            granted: HashMap::new(),
            on_the_way: HashSet::new(),
            early: HashSet::new(),
            on_the_way_max: 0,
            packet_bytes_max: 0,
            said_goodbye: false,
            compared: 0,
        }
    }

    /// How many answers are to come.
    fn owed(&self) -> usize {
        self.publishes.len() + self.subscribes.len() + self.unsubscribes.len() + self.pings
    }

    fn begin(&mut self, version: Version) {
        self.client = Some(Wire::new(version));
        let unread = std::mem::take(&mut self.unread);
        self.hear(&unread);
    }

    /// What the client has sent.
    fn hear(&mut self, bytes: &[u8]) {
        let Some(client) = &mut self.client else { return self.unread.extend_from_slice(bytes) };
        client.push(bytes);
        while let Some(packet) = client.next() {
            if self.blind {
                return;
            }
            let Ok(packet) = packet else {
                self.blind = true;
                return;
            };
            match packet {
                Packet::Publish { qos, id, topic, payload, .. } => {
                    let is_uplink =
                        topic == b"weir/1/dev-1/events" && intake::read(&payload).is_ok() && qos < 2;
                    let uplink = is_uplink.then_some(self.uplinks.len());
                    self.uplinks.extend(is_uplink.then_some(payload));
                    self.publishes.extend((qos == 1).then_some((id, uplink)));
                }
                Packet::Puback { id, .. } => _ = self.on_the_way.remove(&id) || self.early.insert(id),
                Packet::Subscribe { id, filters } => self.subscribes.push_back((id, filters)),
                Packet::Unsubscribe { id, filters } => self.unsubscribes.push_back((id, filters)),
                Packet::Ping => self.pings += 1,
                _ => {}
            }
        }
    }

    /// What the gateway has written.
    fn answers(&mut self, out: &[u8], world: &World, report: &mut Report) {
        let (Some(client), false) = (&self.client, out.is_empty()) else { return };
        let mut answers = Wire::new(client.version());
        answers.push(out);
        for (payload, _) in &world.taken[self.compared..] {
            let sent = self.uplinks.get(self.compared);
            assert!(self.blind || sent == Some(payload), "uplink {} was not sent like that", self.compared);
            self.compared += 1;
        }
        loop {
            let before = answers.len();
            let Some(packet) = answers.next() else { break };
            let len = before - answers.len();
            self.answer(packet.expect("a server's packet"), len, world, report);
            let (now, most) = (self.on_the_way.len(), self.on_the_way_max);
            assert!(self.blind || now <= most, "{now} are on the way, {most} may be");
        }
        assert_eq!(answers.len(), 0, "half a packet was written");
    }

    fn answer(&mut self, packet: Packet, len: usize, world: &World, report: &mut Report) {
        assert!(!self.said_goodbye, "{packet:?} after DISCONNECT");
        match packet {
            Packet::Connack { accepted } => assert!(accepted, "it was accepted before"),
            Packet::Puback { id, ok } => {
                let front = self.publishes.pop_front();
                assert!(front.is_some() || self.blind, "a PUBACK of {id} for nothing");
                let Some((sent, uplink)) = front else { return };
                assert_eq!(id, sent, "acknowledgements keep the order of publishes");
                report.acknowledged += 1;
                if let Some(uplink) = uplink {
                    let ticket = world.taken.get(uplink).map(|(_, ticket)| *ticket);
                    assert!(ok && ticket.is_some_and(|ticket| ticket <= world.stored), "not stored: {id}");
                    report.stored += 1;
                }
            }
            Packet::Suback { id, granted } => {
                let front = self.subscribes.pop_front();
                assert!(front.is_some() || self.blind, "a SUBACK for nothing");
                let Some((sent, filters)) = front else { return };
                assert_eq!((id, granted.len()), (sent, filters.len()), "one code for each filter");
                for (filter, qos) in filters.into_iter().zip(granted) {
                    report.granted += usize::from(qos.is_some());
                    self.granted.extend(qos.map(|qos| (filter, qos)));
                }
            }
            Packet::Unsuback { id } => {
                let front = self.unsubscribes.pop_front();
                assert!(front.is_some() || self.blind, "an UNSUBACK for nothing");
                let Some((sent, filters)) = front else { return };
                assert_eq!(id, sent);
                filters.iter().for_each(|filter| _ = self.granted.remove(filter));
            }
            Packet::Publish { qos, id, topic, .. } => {
                report.delivered += 1;
                let topic = String::from_utf8(topic).expect("a topic is UTF-8");
                let granted = self.granted.iter().filter(|(filter, _)| matches(&topic, filter));
                let granted = granted.map(|(_, qos)| *qos).max();
                assert!(
                    self.blind || granted.is_some_and(|granted| qos <= granted),
                    "{topic} with QoS {qos}"
                );
                assert!(len <= self.packet_bytes_max, "{len} bytes, {} are taken", self.packet_bytes_max);
                let is_free = qos == 0 || self.early.contains(&id) || self.on_the_way.insert(id);
                assert!(self.blind || is_free, "{id} is on the way already");
            }
            Packet::Pong => {
                assert!(self.pings > 0 || self.blind, "a PINGRESP for nothing");
                self.pings = self.pings.saturating_sub(1);
            }
            Packet::Disconnect => self.said_goodbye = true,
            other => panic!("no server sends {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
