//! The connection to a broker: the only place here that knows rumqttc.
//!
//! A task of its own polls it, so that pings go out while messages wait for the disk. What rumqttc does that would lose or
//! mistake something is seen to here:
//!
//! * After a connection broke, packets that had been read of it still stand in `state.events`, and would be told after the next
//!   CONNACK. They are thrown away: their identifiers are the old connection's, the broker sends them again.
//! * So is every acknowledgement that was not sent: given to a session that does not know the message, it would acknowledge another.
//!   [`Link::go_on`] is waited for before a new connection, so none is given in between.
//! * What it reads is bounded in bytes, not in messages: [`BYTES_HELD_TIMES`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    ConnectReturnCode, Outgoing, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport, v5,
};
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::config::{Broker, Version};

/// Read and not yet taken: so many times the longest packet.
const BYTES_HELD_TIMES: u32 = 2;
/// For what we send: the longest SUBSCRIBE.
const SENT_BYTES_MAX: usize = 256 * 1024;
/// Acknowledgements that wait to be sent: as many as there are packet identifiers, so that none finds no room, however many
/// messages a broker sends at once (Mosquitto 2.0 sends all it had queued when it was restarted). And SUBSCRIBE, DISCONNECT. Room is
/// taken only as it is used.
const REQUESTS_MAX: usize = u16::MAX as usize + 8;
/// The first wait after a failure.
const BACKOFF: Duration = Duration::from_millis(100);

/// What happens on a connection.
#[derive(Debug)]
pub enum Event {
    /// The broker has accepted us, and knows us from before or not.
    Connected {
        /// Whether it knows our session.
        session_present: bool,
    },
    /// It has answered our SUBSCRIBE: these filters it refuses.
    Subscribed {
        /// The filters.
        refused: Vec<String>,
    },
    /// A message.
    Message(Message),
    /// The acknowledgement of this one is given to the socket.
    Acknowledged(u16),
    /// The connection broke, or could not be made; [`Link::go_on`] is waited for.
    Disconnected {
        /// Why, for people.
        why: String,
    },
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its identifier on this connection; `None` with QoS 0.
    pub packet: Option<u16>,
    /// Whether the broker says that it has sent it before.
    pub again: bool,
    /// Whether it was retained before we subscribed.
    pub retained: bool,
    /// Its share of what may be held.
    _held: Option<OwnedSemaphorePermit>,
}

/// The connection, as long as this is there.
pub struct Link {
    /// What happens.
    pub events: mpsc::Receiver<Event>,
    client: Client,
    go_on: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

enum Client {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

enum Loop {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// Who we are there.
pub struct Login {
    /// The name of our session.
    pub client_id: String,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// With TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Link {
    /// Connects again and again, and subscribes to `filters` each time.
    pub fn start(broker: &Broker, login: Login, filters: Vec<String>) -> Link {
        let (client, eventloop) = connection(broker, login);
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let (sender, events) = mpsc::channel(size(broker.inflight_max).max(1));
        let (go_on, gone_on) = mpsc::channel(1);
        let driver = Driver {
            eventloop,
            subscriber: client.again(),
            filters,
            events: sender,
            gone_on,
            held: Arc::new(Semaphore::new(size(broker.packet_bytes_max) * BYTES_HELD_TIMES as usize)),
            held_max: u32::try_from(broker.packet_bytes_max).unwrap_or(u32::MAX),
            backoff_max: Duration::from_millis(broker.backoff_ms_max),
        };
        Link { events, client, go_on, task: tokio::spawn(driver.run()) }
    }

    /// Acknowledges a message of the connection there is. If it breaks before that is sent, the message comes again.
    pub fn acknowledge(&self, packet: u16) {
        let told = match &self.client {
            Client::V4(client) => {
                let mut publish = rumqttc::Publish::new("", QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet;
                client.try_ack(&publish).is_ok()
            }
            Client::V5(client) => {
                let mut publish =
                    v5::mqttbytes::v5::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, Bytes::new(), None);
                publish.pkid = packet;
                client.try_ack(&publish).is_ok()
            }
        };
        if !told {
            tracing::error!(
                packet,
                "an acknowledgement found no room: the broker keeps the message until the next connection"
            );
        }
    }

    /// Nothing of the connection that broke will be acknowledged any more: there may be another.
    pub fn go_on(&self) {
        // It is one at a time, so there is room; and who has ended need not be told.
        let _ = self.go_on.try_send(());
    }

    /// Says goodbye, after what has been acknowledged.
    pub async fn leave(mut self, within: Duration) {
        let said = match &self.client {
            Client::V4(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        };
        let gone = async {
            // What still comes is not taken, and comes again.
            while !matches!(self.events.recv().await, None | Some(Event::Disconnected { .. })) {}
        };
        if said {
            drop(tokio::time::timeout(within, gone).await);
        }
        self.task.abort();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    fn again(&self) -> Client {
        match self {
            Client::V4(client) => Client::V4(client.clone()),
            Client::V5(client) => Client::V5(client.clone()),
        }
    }

    fn subscribe(&self, filters: &[String]) -> bool {
        match self {
            Client::V4(client) => {
                let filters = filters.iter().map(|path| SubscribeFilter::new(path.clone(), QoS::AtLeastOnce));
                client.try_subscribe_many(filters).is_ok()
            }
            Client::V5(client) => {
                let filter = |path: &String| {
                    let mut filter = v5::mqttbytes::v5::Filter::new(path, v5::mqttbytes::QoS::AtLeastOnce);
                    // Not at every connect, but where the broker does not know the subscription yet.
                    filter.retain_forward_rule = v5::mqttbytes::v5::RetainForwardRule::OnNewSubscribe;
                    filter
                };
                client.try_subscribe_many(filters.iter().map(filter)).is_ok()
            }
        }
    }
}

fn connection(broker: &Broker, login: Login) -> (Client, Loop) {
    let Login { client_id, user, tls } = login;
    let inflight = u16::try_from(broker.inflight_max).unwrap_or(u16::MAX);
    let address = &broker.broker;
    // For the resolver; TLS names no addresses of IPv6.
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let transport =
        tls.map_or(Transport::Tcp, |config| Transport::tls_with_config(TlsConfiguration::Rustls(config)));
    let keep_alive = Duration::from_millis(broker.keep_alive_ms);
    let connect_s = broker.connect_timeout_ms.div_ceil(1000);
    match broker.version {
        Version::V4 => {
            let mut options = rumqttc::MqttOptions::new(client_id, host, address.port);
            let packet_max = usize::try_from(broker.packet_bytes_max).unwrap_or(usize::MAX);
            options.set_keep_alive(keep_alive).set_clean_session(false).set_manual_acks(true);
            options.set_max_packet_size(packet_max, SENT_BYTES_MAX).set_transport(transport);
            if let Some((user, password)) = user {
                options.set_credentials(user, password);
            }
            let (client, mut eventloop) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
            let mut network = rumqttc::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            network.set_connection_timeout(connect_s);
            eventloop.set_network_options(network);
            (Client::V4(client), Loop::V4(Box::new(eventloop)))
        }
        Version::V5 => {
            let mut options = v5::MqttOptions::new(client_id, host, address.port);
            options.set_keep_alive(keep_alive).set_clean_start(false).set_manual_acks(true);
            // Without that a session of MQTT 5 ends with its connection.
            options.set_session_expiry_interval(Some(u32::MAX)).set_receive_maximum(Some(inflight));
            options.set_max_packet_size(u32::try_from(broker.packet_bytes_max).ok()).set_transport(transport);
            options.set_connection_timeout(connect_s);
            let mut network = rumqttc::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            options.set_network_options(network);
            if let Some((user, password)) = user {
                options.set_credentials(user, password);
            }
            let (client, eventloop) = v5::AsyncClient::new(options, REQUESTS_MAX);
            (Client::V5(client), Loop::V5(Box::new(eventloop)))
        }
    }
}

/// What has been read, with what it is made of.
enum Read {
    Connected { session_present: bool },
    Subscribed { refused: Vec<usize> },
    Message { topic: String, payload: Bytes, packet: Option<u16>, again: bool, retained: bool },
    Acknowledged(u16),
    Other,
}

impl Loop {
    async fn poll(&mut self) -> Result<Read, String> {
        match self {
            Loop::V4(eventloop) => match eventloop.poll().await {
                Ok(event) => Ok(read_v4(event)),
                Err(error) => Err(why_v4(&error)),
            },
            Loop::V5(eventloop) => match eventloop.poll().await {
                Ok(event) => Ok(read_v5(event)),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// Acknowledgements that were given to the socket before it broke, and not told yet.
    fn acknowledged(&self) -> Vec<u16> {
        match self {
            Loop::V4(eventloop) => {
                let events = eventloop.state.events.iter();
                events
                    .filter_map(|event| {
                        if let rumqttc::Event::Outgoing(Outgoing::PubAck(packet)) = event {
                            Some(*packet)
                        } else {
                            None
                        }
                    })
                    .collect()
            }
            Loop::V5(eventloop) => {
                let events = eventloop.state.events.iter();
                events
                    .filter_map(|event| {
                        if let v5::Event::Outgoing(Outgoing::PubAck(packet)) = event {
                            Some(*packet)
                        } else {
                            None
                        }
                    })
                    .collect()
            }
        }
    }

    /// Everything of the connection that broke.
    fn forget(&mut self) {
        match self {
            Loop::V4(eventloop) => {
                eventloop.clean();
                eventloop.pending.clear();
                eventloop.state.events.clear();
            }
            Loop::V5(eventloop) => {
                eventloop.clean();
                eventloop.pending.clear();
                eventloop.state.events.clear();
            }
        }
    }
}

fn read_v4(event: rumqttc::Event) -> Read {
    let packet = match event {
        rumqttc::Event::Incoming(packet) => packet,
        rumqttc::Event::Outgoing(Outgoing::PubAck(packet)) => return Read::Acknowledged(packet),
        rumqttc::Event::Outgoing(_) => return Read::Other,
    };
    match packet {
        rumqttc::Packet::ConnAck(connack) => Read::Connected { session_present: connack.session_present },
        rumqttc::Packet::SubAck(suback) => {
            let codes = suback.return_codes.iter().enumerate();
            let refused = codes.filter(|(_, code)| **code == SubscribeReasonCode::Failure);
            Read::Subscribed { refused: refused.map(|(index, _)| index).collect() }
        }
        rumqttc::Packet::Publish(publish) => Read::Message {
            packet: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
            topic: publish.topic,
            payload: publish.payload,
            again: publish.dup,
            retained: publish.retain,
        },
        _ => Read::Other,
    }
}

fn read_v5(event: v5::Event) -> Read {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    let packet = match event {
        v5::Event::Incoming(packet) => packet,
        v5::Event::Outgoing(Outgoing::PubAck(packet)) => return Read::Acknowledged(packet),
        v5::Event::Outgoing(_) => return Read::Other,
    };
    match packet {
        Packet::ConnAck(connack) => Read::Connected { session_present: connack.session_present },
        Packet::SubAck(suback) => {
            let codes = suback.return_codes.iter().enumerate();
            let refused = codes.filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)));
            Read::Subscribed { refused: refused.map(|(index, _)| index).collect() }
        }
        Packet::Publish(publish) => Read::Message {
            packet: (publish.qos != v5::mqttbytes::QoS::AtMostOnce).then_some(publish.pkid),
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            again: publish.dup,
            retained: publish.retain,
        },
        _ => Read::Other,
    }
}

/// In words that say what helps, where rumqttc's do not.
fn why_v4(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectionError, StateError, mqttbytes};
    match error {
        ConnectionError::ConnectionRefused(code) => {
            let why = match code {
                ConnectReturnCode::BadUserNamePassword => "wrong user name or password",
                ConnectReturnCode::NotAuthorized => {
                    "not authorized; user, password, and the broker's list of who may do what"
                }
                ConnectReturnCode::BadClientId => "it does not take our client id",
                ConnectReturnCode::ServiceUnavailable => "it is not available now",
                _ => "it does not take this protocol",
            };
            format!("the broker refuses us: {why}")
        }
        ConnectionError::MqttState(StateError::Deserialization(
            mqttbytes::Error::PayloadSizeLimitExceeded(len),
        )) => {
            format!(
                "a message of {len} bytes is longer than packet_bytes_max: nothing comes before it has been taken"
            )
        }
        other => other.to_string(),
    }
}

struct Driver {
    eventloop: Loop,
    subscriber: Client,
    filters: Vec<String>,
    events: mpsc::Sender<Event>,
    gone_on: mpsc::Receiver<()>,
    held: Arc<Semaphore>,
    held_max: u32,
    backoff_max: Duration,
}

impl Driver {
    /// Until nobody listens any more.
    async fn run(mut self) {
        let mut backoff = BACKOFF;
        loop {
            let event = match self.eventloop.poll().await {
                Ok(Read::Other) => continue,
                Ok(Read::Connected { session_present }) => {
                    backoff = BACKOFF;
                    // There is room: nothing of an earlier connection is left.
                    self.subscriber.subscribe(&self.filters);
                    Event::Connected { session_present }
                }
                Ok(Read::Subscribed { refused }) => {
                    let refused =
                        refused.iter().filter_map(|index| self.filters.get(*index).cloned()).collect();
                    Event::Subscribed { refused }
                }
                Ok(Read::Message { topic, payload, packet, again, retained }) => {
                    let len =
                        u32::try_from(topic.len() + payload.len()).unwrap_or(u32::MAX).min(self.held_max);
                    let held = Arc::clone(&self.held).acquire_many_owned(len).await.ok();
                    Event::Message(Message { topic, payload, packet, again, retained, _held: held })
                }
                Ok(Read::Acknowledged(packet)) => Event::Acknowledged(packet),
                Err(why) => {
                    for packet in self.eventloop.acknowledged() {
                        if self.events.send(Event::Acknowledged(packet)).await.is_err() {
                            return;
                        }
                    }
                    if self.events.send(Event::Disconnected { why }).await.is_err()
                        || self.gone_on.recv().await.is_none()
                    {
                        return;
                    }
                    self.eventloop.forget();
                    // Somewhere in the second half of it, so that many do not come at once.
                    sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    backoff = (backoff * 2).min(self.backoff_max);
                    continue;
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }
}
