//! One MQTT connection of one device, over rumqttc.
//!
//! rumqttc forgets what it has not yet delivered when the gateway answers CONNACK with session present 0 (0.25:
//! `EventLoop::poll` clears `pending`), as a gateway without sessions always does. Here that cannot lose anything: an
//! event loop lives for one connection only, and what was not acknowledged on it is published again by the device, which
//! keeps it in its outbox. Keeping it in two places would send it twice.
//!
//! The event loop is polled in a task of its own, because publishing waits for it when its channel is full.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, QoS, SubscribeFilter, Transport,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_contract::{Id, topic};
use weir_device::Token;

/// How long a silent device's socket stays open.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT_S: u64 = 10;
/// Events that may wait between the task that polls and the device.
const EVENTS_WAITING_MAX: usize = 64;

/// Everything needed to connect, whoever connects.
#[derive(Clone)]
pub(crate) struct LinkConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) keep_alive: Duration,
    /// Uplinks a device publishes at most without an acknowledgement.
    pub(crate) window: u16,
}

/// What a link tells.
#[derive(Debug)]
pub(crate) enum Told {
    Connected,
    /// It is over; nothing more will come.
    Ended(String),
    Acknowledged(Token),
    Message {
        topic: String,
        payload: Vec<u8>,
    },
}

/// A connection, being made or made.
pub(crate) struct Link {
    client: AsyncClient,
    events: mpsc::Receiver<Raw>,
    task: JoinHandle<()>,
    silence: watch::Sender<bool>,
    /// Published and not yet written to the socket, in order. `None` is a duplicate nobody waits for.
    unwritten: VecDeque<Option<Token>>,
    /// Written and not acknowledged, by packet identifier.
    written: HashMap<u16, Option<Token>>,
}

/// What the polling task passes on.
enum Raw {
    Connected,
    Ended(String),
    Written(u16),
    Acknowledged(u16),
    Message { topic: String, payload: Vec<u8> },
}

impl Link {
    /// Begins to connect.
    pub(crate) fn connect(
        config: &LinkConfig,
        device: &Id,
        transport: Transport,
        login: Option<(String, String)>,
    ) -> Self {
        let mut options = MqttOptions::new(device.as_str(), &config.host, config.port);
        // Every uplink may be published twice, and subscribing takes packet identifiers too.
        let inflight = config.window.saturating_mul(2).saturating_add(8);
        options
            .set_clean_session(true)
            .set_keep_alive(config.keep_alive)
            .set_inflight(inflight)
            .set_transport(transport)
            .set_max_packet_size(64 * 1024, 70 * 1024);
        if let Some((username, password)) = login {
            options.set_credentials(username, password);
        }
        let (client, mut event_loop) = AsyncClient::new(options, usize::from(inflight));
        event_loop.network_options.set_connection_timeout(CONNECT_TIMEOUT_S).set_tcp_nodelay(true);
        let (tell, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (silence, silenced) = watch::channel(false);
        let task = tokio::spawn(poll(event_loop, tell, silenced));
        Self { client, events, task, silence, unwritten: VecDeque::new(), written: HashMap::new() }
    }

    /// The next thing to know. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            match self.events.recv().await {
                Some(Raw::Connected) => return Told::Connected,
                Some(Raw::Ended(why)) => return Told::Ended(why),
                None => return Told::Ended("closed".into()),
                Some(Raw::Message { topic, payload }) => return Told::Message { topic, payload },
                Some(Raw::Written(packet)) => {
                    if let Some(token) = self.unwritten.pop_front() {
                        self.written.insert(packet, token);
                    }
                }
                Some(Raw::Acknowledged(packet)) => {
                    if let Some(Some(token)) = self.written.remove(&packet) {
                        return Told::Acknowledged(token);
                    }
                }
            }
        }
    }

    /// Asks for the device's time and commands.
    pub(crate) fn subscribe(&mut self, device: &Id) {
        let filters = [topic::time(device), topic::commands(device)];
        let filters = filters.map(|topic| SubscribeFilter::new(topic.to_string(), QoS::AtLeastOnce));
        // A channel that is full or closed means a connection about to end, which `next` tells.
        let _ = self.client.try_subscribe_many(filters);
    }

    /// Publishes an uplink; `token` comes back with its acknowledgement. Without a token nobody waits for it.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], token: Option<Token>) {
        if self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_ok() {
            self.unwritten.push_back(token);
        }
    }

    /// Says goodbye and closes.
    pub(crate) async fn disconnect(mut self) {
        if self.client.try_disconnect().is_ok() {
            let _ =
                tokio::time::timeout(GOODBYE, async { while self.events.recv().await.is_some() {} }).await;
        }
    }

    /// Leaves the socket open, and neither reads nor writes any more. (Dropping a link closes the socket without a word.)
    pub(crate) fn fall_silent(self) {
        self.silence.send_replace(true);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !*self.silence.borrow() {
            self.task.abort();
        }
    }
}

async fn poll(mut event_loop: EventLoop, tell: mpsc::Sender<Raw>, mut silenced: watch::Receiver<bool>) {
    loop {
        let polled = tokio::select! {
            biased;
            Ok(_) = silenced.wait_for(|silenced| *silenced) => break,
            polled = event_loop.poll() => polled,
        };
        let raw = match polled {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => Raw::Connected,
            Ok(Event::Incoming(Incoming::PubAck(ack))) => Raw::Acknowledged(ack.pkid),
            Ok(Event::Incoming(Incoming::Publish(publish))) => {
                Raw::Message { topic: publish.topic, payload: publish.payload.to_vec() }
            }
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => Raw::Written(packet),
            Ok(_) => continue,
            Err(error) => Raw::Ended(error.to_string()),
        };
        let ended = matches!(raw, Raw::Ended(_));
        if tell.send(raw).await.is_err() || ended {
            break;
        }
    }
    if *silenced.borrow() {
        tokio::time::sleep(SILENCE).await;
    }
}
