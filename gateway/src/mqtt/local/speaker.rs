//! The thread that speaks to rumqttd's router.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    self, Disconnect, DisconnectReasonCode, Packet, PubAck, PubAckReason, RetainForwardRule,
};
use rumqttd::{Router, RouterConfig};
use tokio::sync::oneshot;

use super::{Books, Command, Limits, Lost};
use crate::facts;

/// Messages that wait in the router's own queue; more are dropped.
const ROUTER_WAITING_MAX: usize = 4096;
/// Messages handed to the router with one wake.
const BATCH_MAX: usize = 256;
/// A filter's queue: this many bytes, this many times. What a slow subscriber has not read by then it misses.
const QUEUE_SEGMENT_BYTES: usize = 128 * 1024;
const QUEUE_SEGMENTS: usize = 4;
/// For the router to answer a new link.
const BUILD_TIMEOUT: Duration = Duration::from_secs(5);

type Build = Arc<dyn Fn(&str) -> Result<(LinkTx, LinkRx), Lost> + Send + Sync>;

/// What the thread that speaks to the router has.
pub(super) struct Speaker {
    limits: Limits,
    waiting_bytes: Arc<AtomicUsize>,
    books: Arc<Mutex<Books>>,
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
    pub fn new(limits: Limits, waiting_bytes: Arc<AtomicUsize>, books: Arc<Mutex<Books>>) -> Self {
        Self { limits, waiting_bytes, books, router: None, links: HashMap::new(), free: Vec::new(), next: 0 }
    }

    /// Obeys until nobody can command any more.
    pub fn run(&mut self, commands: &mpsc::Receiver<Command>) {
        while let Ok(first) = commands.recv() {
            // The last message of a batch goes with the wake.
            let (mut next, mut last, mut taken) = (Some(first), None, 0);
            while let Some(command) = next {
                match command {
                    Command::Publish { publish, properties, bytes } => {
                        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                        self.enqueue(last.replace(Packet::Publish(publish, properties)));
                    }
                    other => {
                        self.publish(last.take());
                        self.obey(other);
                    }
                }
                taken += 1;
                next = if taken < BATCH_MAX { commands.try_recv().ok() } else { None };
            }
            self.publish(last);
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
            Command::Publish { .. } => unreachable!("the caller keeps those"),
            Command::Open { key, receiver } => self.open(key, receiver),
            Command::Subscribe { key, filter, qos, bytes } => {
                self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
        match build(&router.build, format!("subscriber-{name}")) {
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
        self.books.lock().expect("nothing panics while it holds the lock").forget_router();
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
    let builder: Build = Arc::new(move |name| {
        let (sender, receiver, _) =
            LinkBuilder::new(name, events.clone()).clean_session(true).build().map_err(|_| Lost)?;
        Ok((sender, receiver))
    });
    let (publisher, receiver) = build(&builder, "publisher".to_owned())?;
    Ok(Running { build: builder, publisher, _receiver: receiver })
}

/// Builds a link. A router that dies at this moment never answers, so somebody else waits for it.
fn build(builder: &Build, name: String) -> Result<(LinkTx, LinkRx), Lost> {
    let (done, built) = mpsc::sync_channel(1);
    let builder = Arc::clone(builder);
    let waiting = std::thread::Builder::new().name("weir-link".to_owned());
    waiting.spawn(move || done.send(builder(&name)).ok()).map_err(|_| Lost)?;
    built.recv_timeout(BUILD_TIMEOUT).unwrap_or(Err(Lost))
}

/// `LinkTx::send` is an async function that never waits but for the router's queue, and that it does by blocking.
fn send(link: &mut LinkTx, packet: Packet) -> Result<(), Lost> {
    let sent = std::pin::pin!(link.send(packet));
    match sent.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => sent.map(|_| ()).map_err(|_| Lost),
        Poll::Pending => unreachable!("it awaits nothing"),
    }
}
