//! Local delivery: subscribers on this gateway, retained messages, wills. The only place that knows rumqttd's router.
//!
//! The router is good at fan-out and easily killed: a packet identifier it did not expect, a word to a connection that
//! has gone, a topic that begins with `é`. So it is spoken to by one thread that owns every link and knows the rules:
//!
//! * topics are ASCII and without wildcards, filters do not begin with `$` (checked by the session);
//! * nothing is published with a QoS, so the router has nothing to acknowledge: all publishing goes over one link;
//! * it is told only the very next acknowledgement it waits for (`session.rs` puts them in order);
//! * a link is woken after `Unschedule` only, and before it is closed;
//! * names of links are unique while they live, and used again after, because the router remembers every name for ever.
//!   For the same reason different filters and topics have a limit.
//!
//! Should it die all the same, subscribers are disconnected and the next one gets a new router; retained messages are
//! lost then, uplinks never: they do not pass here on their way to disk.
//!
//! The router forgets the QoS a message was published with, and drops a retained message on any empty payload. Hence
//! every payload travels with a short header of ours ([`HEADER_LEN`]).

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    self, Disconnect, DisconnectReasonCode, Packet, PubAck, PubAckReason, Publish, PublishProperties,
    RetainForwardRule,
};
use rumqttd::{Forward, Notification, Router, RouterConfig};
use tokio::sync::oneshot;

use super::reason::Reason;
use super::topics;
use crate::facts;

/// Bytes of messages that wait for the router's thread; more are not taken.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages that wait in the router's own queue; more are dropped.
const ROUTER_WAITING_MAX: usize = 4096;
/// Messages handed to the router with one wake.
const BATCH_MAX: usize = 256;
/// A filter's queue: this many bytes, this many times. What a slow subscriber has not read by then it misses.
const QUEUE_SEGMENT_BYTES: usize = 128 * 1024;
const QUEUE_SEGMENTS: usize = 4;
/// What precedes a payload: flags, and the number of the connection it came from.
const HEADER_LEN: usize = 5;
const FLAG_QOS_1: u8 = 1;
const FLAG_RETAIN: u8 = 2;

/// How much of everything the router is trusted with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub filters: usize,
    pub subscribers: usize,
    pub topics: usize,
    pub retained_bytes: usize,
}

/// A message from a client.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// Number of the connection it came from, for subscribers that do not want their own messages.
    pub origin: u32,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub properties: Option<PublishProperties>,
}

/// A message for a subscriber.
#[derive(Debug)]
pub(super) struct Delivery {
    /// As the router gave it, without our header.
    pub publish: Publish,
    pub properties: Option<PublishProperties>,
    /// What the router wants acknowledged; `None` if the subscription has QoS 0.
    pub packet_id: Option<u16>,
    /// The QoS it was published with.
    pub qos_published: u8,
    /// Whether it was published to be retained.
    pub retain_published: bool,
    /// It is sent because it was retained, not because it was published just now.
    pub from_retained: bool,
    pub origin: u32,
}

/// The way to the router. Cheap to share; nothing here waits.
#[derive(Debug)]
pub(super) struct Local {
    commands: mpsc::Sender<Command>,
    waiting_bytes: Arc<AtomicUsize>,
    filters_on_events: AtomicUsize,
    limits: Limits,
    books: Mutex<Books>,
}

/// What the router holds for ever, counted because it does not.
#[derive(Debug, Default)]
struct Books {
    filters: HashSet<String>,
    /// Hashes: a collision lets one topic more in.
    topics: HashSet<u64>,
    hasher: RandomState,
    retained: HashMap<String, usize>,
    retained_bytes: usize,
    subscribers: usize,
    subscriptions: usize,
    links_opened: u64,
}

#[derive(Debug)]
enum Command {
    Publish { publish: Publish, properties: Option<PublishProperties>, bytes: usize },
    Open { key: u64, receiver: oneshot::Sender<LinkRx> },
    Subscribe { key: u64, filter: String, qos: u8 },
    Unsubscribe { key: u64, filter: String },
    Acknowledge { key: u64, packet_id: u16 },
    Close { key: u64 },
}

impl Local {
    /// Starts the router and the thread that speaks to it.
    pub fn start(limits: Limits) -> std::io::Result<Arc<Self>> {
        let (commands, received) = mpsc::channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let mut speaker = Speaker::new(limits, Arc::clone(&waiting_bytes));
        std::thread::Builder::new().name("weir-local".to_owned()).spawn(move || speaker.run(&received))?;
        Ok(Arc::new(Self {
            commands,
            waiting_bytes,
            filters_on_events: AtomicUsize::new(0),
            limits,
            books: Mutex::default(),
        }))
    }

    /// Whether any subscriber may want events. Only then are they copied.
    pub fn wants_events(&self) -> bool {
        self.filters_on_events.load(Ordering::Relaxed) > 0
    }

    /// Hands a message to whoever subscribed, and keeps it if it is to be retained. Best effort: a subscriber that does
    /// not keep up misses messages. An error says which limit is reached; then nobody gets it.
    pub fn publish(&self, message: &Message<'_>) -> Result<(), Reason> {
        debug_assert!(topics::is_name(message.topic) && topics::is_routable(message.topic));
        {
            let mut books = self.books();
            if books.subscriptions == 0 && !message.retain {
                return Ok(());
            }
            let hash = books.hasher.hash_one(message.topic);
            if books.topics.len() >= self.limits.topics && !books.topics.contains(&hash) {
                return Err(Reason::QuotaExceeded);
            }
            books.topics.insert(hash);
            if message.retain {
                books.retain(message.topic, message.payload.len(), self.limits.retained_bytes)?;
            }
        }
        let bytes = message.topic.len() + message.payload.len() + 64;
        if self.waiting_bytes.load(Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            facts::local_dropped();
            return Err(Reason::QuotaExceeded);
        }
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let publish = Publish::new(
            Bytes::copy_from_slice(message.topic.as_bytes()),
            with_header(message),
            message.retain,
        );
        self.command(Command::Publish { publish, properties: message.properties.clone(), bytes });
        Ok(())
    }

    /// A link for one connection's subscriptions.
    pub fn open(self: &Arc<Self>) -> Result<(Link, Deliveries), Reason> {
        let key = {
            let mut books = self.books();
            if books.subscribers >= self.limits.subscribers {
                return Err(Reason::QuotaExceeded);
            }
            books.subscribers += 1;
            books.links_opened += 1;
            books.links_opened
        };
        let (receiver, opened) = oneshot::channel();
        self.command(Command::Open { key, receiver });
        let deliveries = Deliveries { receiving: Receiving::Opening(opened), owes_wake: false };
        Ok((Link { local: Arc::clone(self), key, filters: Vec::new() }, deliveries))
    }

    fn command(&self, command: Command) {
        // The thread ends when the last sender has gone, so there is always somebody to hear.
        drop(self.commands.send(command));
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("nothing panics while it holds the lock")
    }
}

impl Books {
    fn retain(&mut self, topic: &str, payload_len: usize, bytes_max: usize) -> Result<(), Reason> {
        if payload_len == 0 {
            self.retained_bytes -= self.retained.remove(topic).unwrap_or(0);
            return Ok(());
        }
        let before = self.retained.get(topic).copied().unwrap_or(0);
        let after = self.retained_bytes - before + payload_len;
        if after > bytes_max {
            return Err(Reason::QuotaExceeded);
        }
        self.retained_bytes = after;
        self.retained.insert(topic.to_owned(), payload_len);
        Ok(())
    }
}

/// One connection's subscriptions with the router; dropping it ends them.
#[derive(Debug)]
pub(super) struct Link {
    local: Arc<Local>,
    key: u64,
    filters: Vec<String>,
}

/// What comes over a [`Link`].
#[derive(Debug)]
pub(super) struct Deliveries {
    receiving: Receiving,
    /// The router said `Unschedule` and waits to be woken.
    owes_wake: bool,
}

#[derive(Debug)]
enum Receiving {
    Opening(oneshot::Receiver<LinkRx>),
    Open(LinkRx),
    Lost,
}

/// The router has gone; the connection has to be closed, so that the client subscribes again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Link {
    /// Subscribes, with QoS 0 or 1. The caller does not subscribe twice to one filter.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<(), Reason> {
        let mut books = self.local.books();
        if !books.filters.contains(filter) {
            if books.filters.len() >= self.local.limits.filters {
                return Err(Reason::QuotaExceeded);
            }
            books.filters.insert(filter.to_owned());
        }
        books.subscriptions += 1;
        facts::router_subscriptions(books.subscriptions);
        drop(books);
        if topics::overlap(filter, topics::ALL_EVENTS) {
            self.local.filters_on_events.fetch_add(1, Ordering::Relaxed);
        }
        self.filters.push(filter.to_owned());
        self.local.command(Command::Subscribe { key: self.key, filter: filter.to_owned(), qos });
        Ok(())
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        if let Some(index) = self.filters.iter().position(|subscribed| subscribed == filter) {
            let filter = self.filters.swap_remove(index);
            self.forget(&filter);
            self.local.command(Command::Unsubscribe { key: self.key, filter });
        }
    }

    /// Tells the router what its subscriber acknowledged: always the next it waits for.
    pub fn acknowledge(&self, packet_id: u16) {
        self.local.command(Command::Acknowledge { key: self.key, packet_id });
    }

    fn forget(&self, filter: &str) {
        let mut books = self.local.books();
        books.subscriptions -= 1;
        facts::router_subscriptions(books.subscriptions);
        drop(books);
        if topics::overlap(filter, topics::ALL_EVENTS) {
            self.local.filters_on_events.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Deliveries {
    /// The next message, waiting for one. May be given up and called again at any time.
    pub async fn next(&mut self) -> Result<Delivery, Lost> {
        loop {
            match &mut self.receiving {
                Receiving::Opening(opened) => {
                    self.receiving = opened.await.map_or(Receiving::Lost, Receiving::Open);
                }
                Receiving::Open(receiver) if self.owes_wake => match receiver.wake().await {
                    Ok(()) => self.owes_wake = false,
                    Err(_) => self.receiving = Receiving::Lost,
                },
                Receiving::Open(receiver) => match receiver.next().await {
                    Ok(Some(Notification::Forward(forward))) => return Ok(without_header(forward)),
                    // Everything before it has been taken, so it is time.
                    Ok(Some(Notification::Unschedule)) => self.owes_wake = true,
                    Ok(Some(Notification::Disconnect(..))) | Err(_) => self.receiving = Receiving::Lost,
                    // Acknowledgements of subscriptions: the session has answered already.
                    Ok(_) => {}
                },
                Receiving::Lost => return Err(Lost),
            }
        }
    }

    /// The next message, if there is one already.
    pub fn next_if_there(&mut self) -> Option<Result<Delivery, Lost>> {
        let Receiving::Open(receiver) = &mut self.receiving else { return None };
        while !self.owes_wake {
            // There is no other way to ask without waiting.
            match receiver.recv_deadline(Instant::now()) {
                Ok(Some(Notification::Forward(forward))) => return Some(Ok(without_header(forward))),
                Ok(Some(Notification::Unschedule)) => self.owes_wake = true,
                Ok(Some(Notification::Disconnect(..))) => return Some(Err(Lost)),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for filter in std::mem::take(&mut self.filters) {
            self.forget(&filter);
        }
        self.local.books().subscribers -= 1;
        self.local.command(Command::Close { key: self.key });
    }
}

fn with_header(message: &Message<'_>) -> Bytes {
    // The router forgets a retained message when it sees an empty payload, so that is the one without a header.
    if message.retain && message.payload.is_empty() {
        return Bytes::new();
    }
    let mut framed = BytesMut::with_capacity(HEADER_LEN + message.payload.len());
    let qos = if message.qos == 0 { 0 } else { FLAG_QOS_1 };
    framed.put_u8(qos | if message.retain { FLAG_RETAIN } else { 0 });
    framed.put_u32(message.origin);
    framed.put_slice(message.payload);
    framed.freeze()
}

fn without_header(forward: Forward) -> Delivery {
    let Forward { mut publish, properties, .. } = forward;
    let (payload, topic) = (std::mem::take(&mut publish.payload), std::mem::take(&mut publish.topic));
    // QoS and packet identifier are private to the router's crate, but in its bytes.
    let head = publish.serialize();
    let packet_id = (head[0] & 0b0110 != 0)
        .then(|| u16::from_be_bytes([head[1], head[2]]))
        .filter(|packet_id| *packet_id != 0);
    let (flags, origin) = match payload.get(..HEADER_LEN) {
        Some(header) => (header[0], u32::from_be_bytes([header[1], header[2], header[3], header[4]])),
        None => (FLAG_RETAIN, 0),
    };
    let from_retained = publish.retain;
    publish.topic = topic;
    publish.payload = if payload.len() < HEADER_LEN { Bytes::new() } else { payload.slice(HEADER_LEN..) };
    Delivery {
        publish,
        properties,
        packet_id,
        qos_published: flags & FLAG_QOS_1,
        retain_published: flags & FLAG_RETAIN != 0,
        from_retained,
        origin,
    }
}

type Build = Box<dyn Fn(&str) -> Result<(LinkTx, LinkRx), Lost> + Send>;

/// The thread that speaks to the router.
struct Speaker {
    limits: Limits,
    waiting_bytes: Arc<AtomicUsize>,
    router: Option<Running>,
    links: HashMap<u64, (u32, LinkTx)>,
    /// Names that may be used again, and the least that never was.
    free: Vec<u32>,
    next: u32,
}

/// A router and the link all messages are published over.
struct Running {
    build: Build,
    publisher: LinkTx,
    /// Nothing comes here, but the router counts on it.
    _receiver: LinkRx,
}

impl Speaker {
    fn new(limits: Limits, waiting_bytes: Arc<AtomicUsize>) -> Self {
        Self { limits, waiting_bytes, router: None, links: HashMap::new(), free: Vec::new(), next: 0 }
    }

    fn run(&mut self, commands: &mpsc::Receiver<Command>) {
        // The last message of a batch goes with the wake.
        let mut last = None;
        while let Ok(command) = commands.recv() {
            let mut command = Some(command);
            for _ in 0..BATCH_MAX {
                match command.take() {
                    Some(Command::Publish { publish, properties, bytes }) => {
                        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                        self.enqueue(last.replace(Packet::Publish(publish, properties)));
                    }
                    Some(other) => {
                        self.publish(last.take());
                        self.obey(other);
                    }
                    None => break,
                }
                command = commands.try_recv().ok();
            }
            self.publish(last.take());
            if let Some(command) = command {
                self.one(command);
            }
        }
    }

    fn one(&mut self, command: Command) {
        match command {
            Command::Publish { publish, properties, bytes } => {
                self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.publish(Some(Packet::Publish(publish, properties)));
            }
            other => self.obey(other),
        }
    }

    /// Puts a message where the router will find it with the next wake.
    fn enqueue(&mut self, packet: Option<Packet>) {
        let (Some(packet), Some(router)) = (packet, self.router()) else { return };
        let mut waiting = router.publisher.buffer();
        if waiting.len() < ROUTER_WAITING_MAX {
            waiting.push_back(packet);
        } else {
            facts::local_dropped();
        }
    }

    fn publish(&mut self, packet: Option<Packet>) {
        let (Some(packet), Some(router)) = (packet, self.router()) else { return };
        if send(&mut router.publisher, packet).is_err() {
            self.bury();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish { .. } => unreachable!("the caller has taken those"),
            Command::Open { key, receiver } => self.open(key, receiver),
            Command::Subscribe { key, filter, qos } => {
                let qos = if qos == 0 { protocol::QoS::AtMostOnce } else { protocol::QoS::AtLeastOnce };
                let filter = protocol::Filter {
                    path: filter,
                    qos,
                    nolocal: false,
                    preserve_retain: false,
                    retain_forward_rule: RetainForwardRule::OnEverySubscribe,
                };
                self.tell(
                    key,
                    Packet::Subscribe(protocol::Subscribe { pkid: 1, filters: vec![filter] }, None),
                );
            }
            Command::Unsubscribe { key, filter } => {
                let unsubscribe = protocol::Unsubscribe { pkid: 1, filters: vec![filter] };
                self.tell(key, Packet::Unsubscribe(unsubscribe, None));
            }
            Command::Acknowledge { key, packet_id } => {
                self.tell(
                    key,
                    Packet::PubAck(PubAck { pkid: packet_id, reason: PubAckReason::Success }, None),
                );
            }
            Command::Close { key } => {
                let reason_code = DisconnectReasonCode::NormalDisconnection;
                self.tell(key, Packet::Disconnect(Disconnect { reason_code }, None));
                if let Some((name, _)) = self.links.remove(&key) {
                    self.free.push(name);
                }
            }
        }
    }

    fn open(&mut self, key: u64, receiver: oneshot::Sender<LinkRx>) {
        let name = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let Some(router) = self.router() else { return };
        match (router.build)(&format!("subscriber-{name}")) {
            Ok((sender, link_rx)) => {
                self.links.insert(key, (name, sender));
                // If nobody waits for it any more, its `Close` is on the way.
                drop(receiver.send(link_rx));
            }
            Err(_) => self.bury(),
        }
    }

    fn tell(&mut self, key: u64, packet: Packet) {
        // Not there: it belonged to a router that died.
        let Some((_, link)) = self.links.get_mut(&key) else { return };
        if send(link, packet).is_err() {
            self.bury();
        }
    }

    /// The router, started if need be.
    fn router(&mut self) -> Option<&mut Running> {
        if self.router.is_none() {
            self.router = start_router(&self.limits).ok();
        }
        self.router.as_mut()
    }

    /// The router died. Subscribers find out by their links; the next command starts another.
    fn bury(&mut self) {
        tracing::error!(
            subscribers = self.links.len(),
            "local delivery failed and starts anew; retained messages are lost"
        );
        self.router = None;
        self.links.clear();
        self.free.clear();
    }
}

fn start_router(limits: &Limits) -> Result<Running, Lost> {
    let config = RouterConfig {
        // The publisher, and links that are being closed while others are opened.
        max_connections: limits.subscribers + 16,
        max_outgoing_packet_count: 100,
        max_segment_size: QUEUE_SEGMENT_BYTES,
        max_segment_count: QUEUE_SEGMENTS,
        ..RouterConfig::default()
    };
    let events = Router::new(0, config).spawn();
    let build: Build = Box::new(move |name| {
        let (sender, receiver, _) =
            LinkBuilder::new(name, events.clone()).clean_session(true).build().map_err(|_| Lost)?;
        Ok((sender, receiver))
    });
    let (publisher, receiver) = build("publisher")?;
    Ok(Running { build, publisher, _receiver: receiver })
}

/// `LinkTx::send` is an async function that never waits but for the router's queue, and that it does by blocking.
fn send(link: &mut LinkTx, packet: Packet) -> Result<(), Lost> {
    let sent = std::pin::pin!(link.send(packet));
    match sent.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => sent.map(|_| ()).map_err(|_| Lost),
        Poll::Pending => unreachable!("it awaits nothing"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits { filters: 3, subscribers: 2, topics: 4, retained_bytes: 100 };

    fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
        Message { origin: 7, topic, payload, qos: 1, retain: false, properties: None }
    }

    async fn next(link: &mut (Link, Deliveries)) -> Delivery {
        tokio::time::timeout(Duration::from_secs(5), link.1.next())
            .await
            .expect("in time")
            .expect("a living router")
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_was_published_as_it_was_published() {
        let local = Local::start(LIMITS).unwrap();
        let mut link = local.open().unwrap();
        link.0.subscribe("a/+", 1).unwrap();
        local.publish(&message("a/b", b"hello")).unwrap();
        local.publish(&Message { qos: 0, ..message("a/c", b"") }).unwrap();
        let first = next(&mut link).await;
        assert_eq!(
            (&first.publish.topic[..], &first.publish.payload[..]),
            (b"a/b".as_slice(), b"hello".as_slice())
        );
        assert_eq!((first.qos_published, first.origin, first.packet_id), (1, 7, Some(1)));
        let second = next(&mut link).await;
        assert_eq!((second.publish.payload.len(), second.qos_published, second.packet_id), (0, 0, Some(2)));
    }

    #[tokio::test]
    async fn a_retained_message_waits_for_its_subscriber_until_it_is_cleared() {
        let local = Local::start(LIMITS).unwrap();
        local.publish(&Message { retain: true, ..message("a/b", b"kept") }).unwrap();
        // An empty message that is not retained clears nothing.
        local.publish(&message("a/b", b"")).unwrap();
        let mut link = local.open().unwrap();
        link.0.subscribe("a/#", 0).unwrap();
        let kept = next(&mut link).await;
        assert!(kept.from_retained && kept.publish.payload == b"kept".as_slice());
        local.publish(&Message { retain: true, ..message("a/b", b"") }).unwrap();
        assert_eq!(next(&mut link).await.publish.payload.len(), 0);
        let mut other = local.open().unwrap();
        other.0.subscribe("a/b", 0).unwrap();
        local.publish(&message("a/b", b"now")).unwrap();
        assert!(!next(&mut other).await.from_retained);
    }

    #[tokio::test]
    async fn events_are_copied_only_while_somebody_may_want_them() {
        let local = Local::start(LIMITS).unwrap();
        let mut link = local.open().unwrap();
        link.0.subscribe("plant/#", 0).unwrap();
        assert!(!local.wants_events());
        link.0.subscribe("weir/1/dev-1/#", 0).unwrap();
        assert!(local.wants_events());
        link.0.unsubscribe("weir/1/dev-1/#");
        assert!(!local.wants_events());
        link.0.subscribe("#", 0).unwrap();
        drop(link);
        assert!(!local.wants_events());
    }

    #[tokio::test]
    async fn every_limit_is_kept() {
        let local = Local::start(LIMITS).unwrap();
        let (mut one, two) = (local.open().unwrap(), local.open().unwrap());
        assert_eq!(local.open().err(), Some(Reason::QuotaExceeded));
        drop(two);
        local.open().expect("there is room again");
        for filter in ["a/1", "a/2", "#"] {
            one.0.subscribe(filter, 0).unwrap();
        }
        one.0.unsubscribe("a/1");
        assert_eq!(one.0.subscribe("a/4", 0).err(), Some(Reason::QuotaExceeded));
        one.0.subscribe("a/1", 0).expect("the router has it already");
        for topic in ["t/1", "t/2", "t/3", "t/4", "t/1"] {
            local.publish(&message(topic, b"x")).unwrap();
        }
        assert_eq!(local.publish(&message("t/5", b"x")).err(), Some(Reason::QuotaExceeded));
        let retained = |payload| local.publish(&Message { retain: true, ..message("t/1", payload) });
        retained(&[1; 100]).unwrap();
        retained(&[2; 90]).unwrap();
        assert_eq!(retained(&[3; 101]).err(), Some(Reason::QuotaExceeded));
    }

    #[tokio::test]
    async fn many_subscribers_come_and_go_while_messages_flow() {
        let local = Local::start(Limits { subscribers: 8, ..LIMITS }).unwrap();
        for round in 0..200_u32 {
            let mut link = local.open().unwrap();
            link.0.subscribe("a/b", 1).unwrap();
            for _ in 0..300 {
                local.publish(&message("a/b", &round.to_be_bytes())).unwrap();
            }
            // Leaves with messages on the way, sometimes before its link is there.
            if round % 2 == 0 {
                next(&mut link).await;
            }
        }
        let mut link = local.open().unwrap();
        link.0.subscribe("a/b", 1).unwrap();
        local.publish(&message("a/b", b"end")).unwrap();
        while next(&mut link).await.publish.payload != b"end".as_slice() {}
    }

    #[tokio::test]
    async fn when_the_router_dies_subscribers_are_told_and_the_next_one_is_served() {
        let local = Local::start(LIMITS).unwrap();
        let mut link = local.open().unwrap();
        link.0.subscribe("a/b", 1).unwrap();
        local.publish(&message("a/b", b"1")).unwrap();
        next(&mut link).await;
        // What `is_routable` keeps out.
        let publish = Publish::new("é/x".as_bytes(), b"".as_slice(), false);
        local.command(Command::Publish { publish, properties: None, bytes: 0 });
        assert_eq!(
            tokio::time::timeout(Duration::from_secs(5), link.1.next()).await.expect("in time").err(),
            Some(Lost)
        );
        drop(link);
        // The thread finds out when it speaks to it, at the latest with the second message.
        let mut served = None;
        for _ in 0..50 {
            let mut link = local.open().unwrap();
            link.0.subscribe("a/b", 1).unwrap();
            local.publish(&message("a/b", b"2")).unwrap();
            if let Ok(Ok(delivery)) = tokio::time::timeout(Duration::from_secs(1), link.1.next()).await {
                served = Some(delivery);
                break;
            }
        }
        assert_eq!(served.expect("a new router").publish.payload, b"2".as_slice());
    }
}
