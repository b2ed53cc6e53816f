//! The link's loop: does what the device says should be done, over MQTT.
//!
//! There is no last will: the gateway tells the end of a connection itself, as a `device-disconnected` event with time and
//! reason, kept like any other event. A will could say less: it is written when the connection begins, so it knows neither
//! time nor reason, and as an uplink it would need the number of an event that is not yet observed.

use embassy_futures::select::{Either, select};
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{Read as _, Write as _};
use embedded_storage::nor_flash::NorFlash;
use heapless::Vec;
use weir_contract::command::COMMAND_LEN_MAX;
use weir_contract::topic;
use weir_device::{Action, Token};

use crate::app::{Shared, now_ms};
use crate::identity::Identity;
use crate::log::log;
use crate::mqtt::{self, Broken, HEAD_LEN_MAX, Login, Packet};
use crate::network::{Connection, Network, Unreachable};
use crate::settings;

/// An uplink and what goes before it; also for CONNECT and SUBSCRIBE, which are shorter.
const SEND_LEN: usize = HEAD_LEN_MAX + settings::UPLINK_LEN_MAX;
/// The longest packet from the gateway: a command with its topic.
const RECEIVE_LEN: usize = HEAD_LEN_MAX + COMMAND_LEN_MAX;
/// So long after the last packet sent, a ping is.
const PING_AFTER_MS: u64 = settings::KEEP_ALIVE_S as u64 * 1000 / 2;
const _: () = assert!(PING_AFTER_MS + settings::ROUND_MS_MAX < settings::SILENT_PEER_MS_MAX);

/// Buffers of the link.
pub(crate) struct Memory {
    send: [u8; SEND_LEN],
    receive: [u8; RECEIVE_LEN],
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self { send: [0; SEND_LEN], receive: [0; RECEIVE_LEN] }
    }
}

/// Goes round for ever: connects when the device says so, and talks until the connection ends.
pub(crate) async fn run<F: NorFlash>(
    shared: &Shared<'_, '_, F>,
    identity: &Identity,
    mut network: Network<'_>,
    memory: &mut Memory,
) -> ! {
    loop {
        shared.link_goes_round();
        let action = shared.core().device.poll(now_ms(), &mut memory.send[HEAD_LEN_MAX..]);
        match action {
            Action::Wait(until) => shared.news_or(until).await,
            // Said only while there is a connection, and heard below.
            Action::Subscribe | Action::Publish(_) => {}
            Action::Connect => {
                let end = match network.open(identity).await {
                    Ok(connection) => Link::new(shared, identity, connection, memory).run().await,
                    Err(unreachable) => End::Unreachable(unreachable),
                };
                end.tell();
                shared.core().device.disconnected(now_ms());
            }
        }
    }
}

/// Why there is no connection any more.
enum End {
    Unreachable(Unreachable),
    /// By the other side, or by TCP.
    Closed,
    /// Nothing came that should have come.
    Silent,
    /// With CONNACK's code.
    Refused(u8),
    NotMqtt,
}

impl End {
    /// Tells the log.
    fn tell(&self) {
        let why = match self {
            Self::Unreachable(why) => why.words(),
            Self::Closed => "it was closed",
            Self::Silent => "the gateway is silent",
            Self::Refused(code) => {
                return log!(WARN, "no connection: the gateway refuses this device, with code ", *code);
            }
            Self::NotMqtt => "the gateway says what cannot be understood",
        };
        log!(WARN, "no connection: ", why);
    }
}

impl From<Broken> for End {
    fn from(_: Broken) -> Self {
        Self::NotMqtt
    }
}

impl From<embassy_net::tcp::Error> for End {
    fn from(_: embassy_net::tcp::Error) -> Self {
        Self::Closed
    }
}

/// One connection.
struct Link<'l, 'c, 'm, 'n, F: NorFlash> {
    shared: &'l Shared<'c, 'm, F>,
    identity: &'l Identity,
    connection: Connection<'n>,
    send: &'l mut [u8],
    receive: &'l mut [u8],
    /// How much of `receive` has come and is not done with.
    received_len: usize,
    /// Published on this connection and not acknowledged.
    in_flight: Vec<(u16, Token), { settings::WINDOW }>,
    /// The uplink with the first event of this boot.
    first: Option<Token>,
    sent_at: u64,
    /// When a ping was sent that is not answered.
    pinged_at: Option<u64>,
}

impl<'l, 'c, 'm, 'n, F: NorFlash> Link<'l, 'c, 'm, 'n, F> {
    fn new(
        shared: &'l Shared<'c, 'm, F>,
        identity: &'l Identity,
        connection: Connection<'n>,
        memory: &'l mut Memory,
    ) -> Self {
        let Memory { send, receive } = memory;
        Self {
            shared,
            identity,
            connection,
            send,
            receive,
            received_len: 0,
            in_flight: Vec::new(),
            first: None,
            sent_at: 0,
            pinged_at: None,
        }
    }

    async fn run(mut self) -> End {
        match self.talk().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn talk(&mut self) -> Result<core::convert::Infallible, End> {
        self.log_in().await?;
        self.shared.core().device.connected();
        log!(INFO, "connected");
        loop {
            self.shared.link_goes_round();
            let until = self.act().await?;
            let ping_at = self.keep_alive().await?;
            let until = until.map_or(ping_at, |until| until.min(ping_at));
            // Only the reading is given up when something else comes, and what was read stays in the buffer.
            match select(
                next_packet(&mut self.connection, self.receive, &mut self.received_len),
                self.shared.news_or(Some(until)),
            )
            .await
            {
                Either::First(len) => self.hear(len?).await?,
                Either::Second(()) => {}
            }
        }
    }

    async fn log_in(&mut self) -> Result<(), End> {
        let login = Login {
            client_id: &self.identity.device,
            password: self.identity.password.as_deref(),
            keep_alive_s: settings::KEEP_ALIVE_S,
        };
        let len = mqtt::connect(self.send, &login)?;
        send(&mut self.connection, &mut self.sent_at, &self.send[..len]).await?;
        let answer = next_packet(&mut self.connection, self.receive, &mut self.received_len);
        let len = with_timeout(Duration::from_millis(settings::CONNECT_MS_MAX), answer)
            .await
            .map_err(|_| End::Silent)??;
        match mqtt::read(&self.receive[..len])? {
            Packet::Connected { refusal: 0 } => {}
            Packet::Connected { refusal } => return Err(End::Refused(refusal)),
            _ => return Err(End::NotMqtt),
        }
        self.done_with(len);
        Ok(())
    }

    /// Does what the device wants done now; returns until when it wants nothing more.
    async fn act(&mut self) -> Result<Option<u64>, End> {
        loop {
            let action = self.shared.core().device.poll(now_ms(), &mut self.send[HEAD_LEN_MAX..]);
            let packet = match action {
                Action::Wait(until) => return Ok(until),
                // Not said while there is a connection.
                Action::Connect => return Err(End::Closed),
                Action::Subscribe => {
                    let device = &self.identity.device;
                    let len = mqtt::subscribe(self.send, &[&topic::time(device), &topic::commands(device)])?;
                    &self.send[..len]
                }
                Action::Publish(publish) => {
                    let identifier = mqtt::identifier(publish.token.0);
                    let (again, len) = (publish.again, publish.payload.len());
                    if publish.first == 1 && publish.boot == self.shared.core().device.outbox().boot() {
                        self.first = Some(publish.token);
                    }
                    // The device publishes no more than its window.
                    let _ = self.in_flight.push((identifier, publish.token));
                    mqtt::publish(self.send, &topic::events(&self.identity.device), identifier, again, len)?
                }
            };
            send(&mut self.connection, &mut self.sent_at, packet).await?;
        }
    }

    /// Pings when it is time; returns when it is next.
    async fn keep_alive(&mut self) -> Result<u64, End> {
        let now = now_ms();
        if let Some(pinged_at) = self.pinged_at {
            let answer_until = pinged_at + settings::SILENT_PEER_MS_MAX;
            return if now < answer_until { Ok(answer_until) } else { Err(End::Silent) };
        }
        if now >= self.sent_at + PING_AFTER_MS {
            send(&mut self.connection, &mut self.sent_at, &mqtt::PINGREQ).await?;
            self.pinged_at = Some(now);
        }
        Ok(now + PING_AFTER_MS)
    }

    /// A packet has come, in the first `len` bytes of the buffer.
    async fn hear(&mut self, len: usize) -> Result<(), End> {
        match mqtt::read(&self.receive[..len])? {
            Packet::Acknowledged { identifier } => {
                if let Some(at) = self.in_flight.iter().position(|(sent, _)| *sent == identifier) {
                    let (_, token) = self.in_flight.remove(at);
                    self.acknowledged(token);
                }
            }
            Packet::Message { topic, payload, identifier } => {
                self.shared.received(topic, payload);
                if let Some(identifier) = identifier {
                    let acknowledgement = mqtt::acknowledge(identifier);
                    send(&mut self.connection, &mut self.sent_at, &acknowledgement).await?;
                }
            }
            Packet::Pong => self.pinged_at = None,
            Packet::Subscribed { granted: true } => {}
            Packet::Subscribed { granted: false } => log!(WARN, "the gateway lets this device hear nothing"),
            Packet::Connected { .. } => return Err(End::NotMqtt),
        }
        self.done_with(len);
        Ok(())
    }

    fn acknowledged(&mut self, token: Token) {
        let news = self.shared.core().device.acknowledged(token).is_some();
        if news && self.first == Some(token) {
            self.first = None;
            log!(INFO, "first event acknowledged ", now_ms(), " ms after power-up");
        }
    }

    fn done_with(&mut self, len: usize) {
        self.receive.copy_within(len..self.received_len, 0);
        self.received_len -= len;
    }
}

async fn send(connection: &mut Connection<'_>, sent_at: &mut u64, packet: &[u8]) -> Result<(), End> {
    connection.write_all(packet).await?;
    *sent_at = now_ms();
    Ok(())
}

/// Waits for a whole packet in `buffer`, which holds `filled` bytes, and returns its length. May be dropped while it
/// waits.
async fn next_packet(
    connection: &mut Connection<'_>,
    buffer: &mut [u8],
    filled: &mut usize,
) -> Result<usize, End> {
    loop {
        let len = mqtt::packet_len(&buffer[..*filled])?;
        match len {
            Some(len) if len <= *filled => return Ok(len),
            Some(len) if len > buffer.len() => return Err(End::NotMqtt),
            _ => {}
        }
        match connection.read(&mut buffer[*filled..]).await? {
            0 => return Err(End::Closed),
            more => *filled += more,
        }
    }
}
