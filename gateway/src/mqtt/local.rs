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

mod speaker;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::local::LinkRx;
use rumqttd::protocol::{Publish, PublishProperties};
use rumqttd::{Forward, Notification};
use tokio::sync::oneshot;

use self::speaker::Speaker;
use super::reason::Reason;
use super::topics;
use crate::facts;

/// Bytes of messages and subscriptions that wait for the router's thread; more are not taken.
pub(super) const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a filter's queue takes while it is busy, measured; the router keeps one segment more and indexes beside what is configured.
pub(super) const FILTER_BYTES: u64 = 2 * 1024 * 1024;
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
    books: Arc<Mutex<Books>>,
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
    Subscribe { key: u64, filter: String, qos: u8, bytes: usize },
    Unsubscribe { key: u64, filter: String },
    Acknowledge { key: u64, packet_id: u16 },
    Close { key: u64 },
}

impl Local {
    /// Starts the router and the thread that speaks to it.
    pub fn start(limits: Limits) -> std::io::Result<Arc<Self>> {
        let (commands, received) = mpsc::channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let books = Arc::new(Mutex::new(Books::default()));
        let mut speaker = Speaker::new(limits, Arc::clone(&waiting_bytes), Arc::clone(&books));
        std::thread::Builder::new().name("weir-local".to_owned()).spawn(move || speaker.run(&received))?;
        Ok(Arc::new(Self { commands, waiting_bytes, filters_on_events: AtomicUsize::new(0), limits, books }))
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
        let bytes = message.topic.len() + message.payload.len() + size_of::<Command>();
        self.wait_with(bytes).inspect_err(|_| facts::local_dropped())?;
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

    /// Counts what is about to wait for the router's thread, or refuses it.
    fn wait_with(&self, bytes: usize) -> Result<(), Reason> {
        if self.waiting_bytes.load(Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            return Err(Reason::QuotaExceeded);
        }
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
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
    /// The router is another one; what subscribers and links there are is up to them.
    fn forget_router(&mut self) {
        self.filters.clear();
        self.topics.clear();
        self.retained.clear();
        self.retained_bytes = 0;
    }

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
        // Ending it again waits, too; what only ends things is never refused, so it is counted here.
        let bytes = 2 * (filter.len() + size_of::<Command>());
        self.local.wait_with(bytes)?;
        let mut books = self.local.books();
        if !books.filters.contains(filter) {
            if books.filters.len() >= self.local.limits.filters {
                self.local.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
        self.local.command(Command::Subscribe { key: self.key, filter: filter.to_owned(), qos, bytes });
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

#[cfg(test)]
mod tests;
