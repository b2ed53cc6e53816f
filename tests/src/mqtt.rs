//! A small blocking MQTT client (3.1.1 and 5) for tests: it shows every packet, and sends what a well-behaved
//! library would not.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::{IpAddr, ServerName};

/// How long a gateway may take to answer before a test fails.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

/// What a client says of itself when it connects.
#[derive(Clone)]
pub struct Connect {
    /// The client id; on a Weir gateway the device's name.
    pub client_id: String,
    /// The protocol's version.
    pub version: Version,
    /// Seconds; 0 for none.
    pub keep_alive_s: u16,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Topic and payload of the will.
    pub will: Option<(String, Vec<u8>)>,
    /// TLS, if any.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Connect {
    /// MQTT 3.1.1, no login, no TLS.
    #[must_use]
    pub fn new(client_id: &str) -> Connect {
        let client_id = client_id.to_owned();
        Connect { client_id, version: Version::V4, keep_alive_s: 60, login: None, will: None, tls: None }
    }

    /// The same with MQTT 5.
    #[must_use]
    pub fn v5(self) -> Connect {
        Connect { version: Version::V5, ..self }
    }

    /// The same over TLS.
    #[must_use]
    pub fn tls(self, config: Arc<rustls::ClientConfig>) -> Connect {
        Connect { tls: Some(config), ..self }
    }
}

/// What a gateway sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK: the return or reason code, 0 for success.
    ConnAck(u8),
    /// PUBACK: the packet id and the reason code (0 in 3.1.1).
    PubAck(u16, u8),
    /// SUBACK: the packet id and the code of the one filter.
    SubAck(u16, u8),
    /// PUBLISH.
    Publish {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT (MQTT 5): the reason code.
    Disconnect(u8),
    /// Any other packet: its first byte.
    Other(u8),
    /// The gateway closed the connection.
    Closed,
}

/// A connected client. Dropping it closes the socket without DISCONNECT.
pub struct Client {
    stream: Stream,
    version: Version,
    received: Vec<u8>,
    held: VecDeque<Packet>,
    next_id: u16,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Client {
    /// Connects and waits for a CONNACK of success.
    pub fn connect(address: SocketAddr, connect: &Connect) -> Result<Client> {
        let (client, answer) = Client::try_connect(address, connect)?;
        match answer {
            Packet::ConnAck(0) => Ok(client),
            other => bail!("{} was not let in: {other:?}", connect.client_id),
        }
    }

    /// Sends CONNECT; the client and whatever the gateway answered.
    pub fn try_connect(address: SocketAddr, connect: &Connect) -> Result<(Client, Packet)> {
        let socket = TcpStream::connect_timeout(&address, ANSWER_WITHIN).context("connecting")?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        let stream = match &connect.tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let name = ServerName::IpAddress(IpAddr::from(address.ip()));
                let session = rustls::ClientConnection::new(Arc::clone(config), name)?;
                Stream::Tls(Box::new(rustls::StreamOwned::new(session, socket)))
            }
        };
        let (version, next_id) = (connect.version, 1);
        let mut client = Client { stream, version, received: Vec::new(), held: VecDeque::new(), next_id };
        client.send(&connect_packet(connect))?;
        let answer = client.next(ANSWER_WITHIN)?;
        Ok((client, answer))
    }

    /// Publishes with QoS 1 and waits for its PUBACK; the reason code.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<u8> {
        let id = self.publish_unawaited(topic, payload)?;
        self.await_puback(id)
    }

    /// Publishes with QoS 1 and does not wait; the packet id.
    pub fn publish_unawaited(&mut self, topic: &str, payload: &[u8]) -> Result<u16> {
        let id = self.next_id();
        self.send(&publish_packet(self.version, topic, payload, id, false))?;
        Ok(id)
    }

    /// Publishes once more what was published before with this id: DUP is set.
    pub fn publish_again(&mut self, topic: &str, payload: &[u8], id: u16) -> Result<()> {
        self.send(&publish_packet(self.version, topic, payload, id, true))
    }

    /// Waits for this PUBACK, keeping other packets for [`next`](Self::next); the reason code.
    pub fn await_puback(&mut self, id: u16) -> Result<u8> {
        self.await_packet("a PUBACK", |packet| match packet {
            Packet::PubAck(acknowledged, code) if *acknowledged == id => Some(*code),
            _ => None,
        })
    }

    /// Subscribes with QoS 1; the code of the SUBACK.
    pub fn subscribe(&mut self, filter: &str) -> Result<u8> {
        let id = self.next_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        put_text(&mut body, filter);
        body.push(1);
        self.send(&packet(0x82, &body))?;
        self.await_packet("a SUBACK", |packet| match packet {
            Packet::SubAck(acknowledged, code) if *acknowledged == id => Some(*code),
            _ => None,
        })
    }

    /// Sends PINGREQ and waits for the answer.
    pub fn ping(&mut self) -> Result<()> {
        self.send(&[0xC0, 0])?;
        self.await_packet("a PINGRESP", |packet| (*packet == Packet::PingResp).then_some(()))
    }

    /// Says good-bye.
    pub fn disconnect(mut self) -> Result<()> {
        self.send(&[0xE0, 0])
    }

    /// Sends any bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes)?,
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// The next packet from the gateway.
    pub fn next(&mut self, within: Duration) -> Result<Packet> {
        match self.held.pop_front() {
            Some(packet) => Ok(packet),
            None => self.receive(Instant::now() + within),
        }
    }

    fn await_packet<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> Result<T> {
        if let Some((at, found)) =
            self.held.iter().enumerate().find_map(|(at, held)| Some((at, wanted(held)?)))
        {
            self.held.remove(at);
            return Ok(found);
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let packet = self.receive(deadline).with_context(|| format!("waiting for {what}"))?;
            if let Some(found) = wanted(&packet) {
                return Ok(found);
            }
            match packet {
                Packet::Closed | Packet::Disconnect(_) => bail!("{packet:?} instead of {what}"),
                packet => self.held.push_back(packet),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Packet> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((packet, length)) = read_packet(self.version, &self.received)? {
                let acknowledgement = puback_of(&self.received);
                self.received.drain(..length);
                if let Some(acknowledgement) = acknowledgement {
                    // Who has closed wants none.
                    let _ = self.send(&acknowledgement);
                }
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("nothing from the gateway in time");
            }
            let socket = match &self.stream {
                Stream::Plain(socket) => socket,
                Stream::Tls(stream) => stream.get_ref(),
            };
            socket.set_read_timeout(Some(left))?;
            let read = match &mut self.stream {
                Stream::Plain(socket) => socket.read(&mut buffer),
                Stream::Tls(stream) => stream.read(&mut buffer),
            };
            match read {
                Ok(0) => return Ok(Packet::Closed),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock
                    | std::io::ErrorKind::TimedOut
                    | std::io::ErrorKind::Interrupted => {}
                    std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::BrokenPipe => return Ok(Packet::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    fn next_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }
}

fn connect_packet(connect: &Connect) -> Vec<u8> {
    let v5 = connect.version == Version::V5;
    let mut flags = 0x02;
    flags |= if connect.will.is_some() { 0x0C } else { 0 };
    flags |= if connect.login.is_some() { 0xC0 } else { 0 };
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    body.extend([if v5 { 5 } else { 4 }, flags]);
    body.extend(connect.keep_alive_s.to_be_bytes());
    if v5 {
        body.push(0);
    }
    put_text(&mut body, &connect.client_id);
    if let Some((topic, payload)) = &connect.will {
        if v5 {
            body.push(0);
        }
        put_text(&mut body, topic);
        put_bytes(&mut body, payload);
    }
    if let Some((user, password)) = &connect.login {
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    packet(0x10, &body)
}

/// A QoS 1 PUBLISH.
#[must_use]
pub fn publish_packet(version: Version, topic: &str, payload: &[u8], id: u16, again: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 5);
    put_text(&mut body, topic);
    body.extend(id.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(payload);
    packet(if again { 0x3A } else { 0x32 }, &body)
}

/// A whole packet: first byte, remaining length, body.
#[must_use]
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left % 128).expect("less than 128");
        left /= 128;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).expect("MQTT's texts have at most 65,535 bytes").to_be_bytes());
    out.extend(bytes);
}

/// The first packet of `bytes` and its length, if all of it is there.
fn read_packet(version: Version, bytes: &[u8]) -> Result<Option<(Packet, usize)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, length_bytes)) = read_length(rest)? else { return Ok(None) };
    let Some(body) = rest.get(length_bytes..length_bytes + length) else { return Ok(None) };
    let id = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let v5 = version == Version::V5;
    let read = || {
        Some(match first >> 4 {
            2 => Packet::ConnAck(*body.get(1)?),
            3 => {
                let topic_end = 2 + usize::from(id(0)?);
                let topic = String::from_utf8_lossy(body.get(2..topic_end)?).into_owned();
                let mut payload_start = topic_end + if first & 0x06 == 0 { 0 } else { 2 };
                if v5 {
                    let (properties, length) = read_length(body.get(payload_start..)?).ok()??;
                    payload_start += properties + length;
                }
                Packet::Publish { topic, payload: body.get(payload_start..)?.to_vec() }
            }
            4 => Packet::PubAck(id(0)?, if v5 { body.get(2).copied().unwrap_or(0) } else { 0 }),
            9 => Packet::SubAck(id(0)?, *body.last()?),
            13 => Packet::PingResp,
            14 => Packet::Disconnect(body.first().copied().unwrap_or(0)),
            _ => Packet::Other(first),
        })
    };
    let packet = read().with_context(|| format!("the gateway sent a broken packet: {bytes:02x?}"))?;
    Ok(Some((packet, 1 + length_bytes + length)))
}

/// The PUBACK of the whole packet at the beginning of `bytes`, if that is a PUBLISH with QoS 1.
fn puback_of(bytes: &[u8]) -> Option<[u8; 4]> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0xF6 != 0x32 {
        return None;
    }
    let (_, length_bytes) = read_length(rest).ok()??;
    let body = rest.get(length_bytes..)?;
    let topic_end = 2 + usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    Some([0x40, 2, *body.get(topic_end)?, *body.get(topic_end + 1)?])
}

/// A variable byte integer and how many bytes it takes.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 1)));
        }
    }
    if bytes.len() >= 4 {
        bail!("the gateway sent a remaining length of more than four bytes");
    }
    Ok(None)
}
