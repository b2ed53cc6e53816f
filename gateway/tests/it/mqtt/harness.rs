//! A gateway without an uplink, and a client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weir_contract::segment::{Head, Segment, write_head};
use weir_contract::uplink::{self, Event, Header};
use weir_gateway::clock::Clock;
use weir_gateway::custody::{Committer, Custody};
use weir_gateway::downlink::Hub;
use weir_gateway::mqtt::{self, Listeners};
use weir_gateway::{journal, spool};

/// Nothing here takes longer, or it is broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// For things that must not happen.
pub(super) const A_WHILE: Duration = Duration::from_millis(150);

/// Listeners, custody and spool, in a folder that goes with them.
pub(super) struct Gateway {
    pub listeners: Listeners,
    pub custody: Custody,
    pub journal: journal::Receiver,
    _committer: Committer,
    _folder: TempDir,
}

/// What the spool holds of an uplink.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub device: String,
    pub traceparent: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

impl Gateway {
    /// One plain listener on loopback, and what `toml` says.
    pub async fn start(toml: &str) -> Gateway {
        Self::with_spool(&format!("{toml}\n[[listener]]\naddress = \"127.0.0.1:0\""), |_| {}).await
    }

    /// Exactly what `toml` says, with another spool than usual.
    pub async fn with_spool(toml: &str, change: impl FnOnce(&mut spool::Config)) -> Gateway {
        let folder = TempDir::new().expect("a folder");
        let mut config = spool::Config::new(folder.path());
        change(&mut config);
        let clock = Clock::system();
        let (custody, committer) = Custody::start(&config, clock.unix_ms()).expect("a spool");
        let (sender, journal) = journal::channel();
        let config = toml::from_str(toml).expect("a configuration");
        let commands = Hub::without_commands(sender.clone(), clock.clone());
        let listeners =
            mqtt::start(config, custody.clone(), commands, sender, clock).await.expect("listeners");
        Gateway { listeners, custody, journal, _committer: committer, _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.listeners.addresses[0]
    }

    /// Everything in the spool.
    pub fn stored(&self) -> Vec<Stored> {
        stored_in(self.custody.spool())
    }

    /// What a gateway would find that was killed now and started again.
    pub fn stored_on_disk(&self) -> Vec<Stored> {
        let copy = TempDir::new().expect("a folder");
        copy_folder(self.custody.spool().folder(), copy.path());
        let (spool, writer) =
            spool::Spool::open(&spool::Config::new(copy.path()), 0).expect("the spool opens after a crash");
        let stored = stored_in(&spool);
        writer.close();
        stored
    }

    /// A small spool, filled until nothing more is taken; `toml` says the listener, too.
    pub async fn with_full_spool(toml: &str) -> Gateway {
        let gateway = Self::with_spool(toml, |spool| {
            (spool.epoch_bytes, spool.bytes_max, spool.keep_delivered_bytes) = (1 << 20, 18 << 20, 0);
        })
        .await;
        let mut filler = Client::connect(gateway.address(), "filler").await;
        for seq in 1..1000 {
            let packet = publish("weir/1/filler/events", 1, seq, &large_uplink_payload(u32::from(seq)));
            filler.send(&packet).await;
            let mut read = [0; 4];
            if timeout(Duration::from_secs(1), filler.stream.read_exact(&mut read)).await.is_err() {
                return gateway;
            }
        }
        panic!("the spool never fills");
    }

    /// Still serves everybody.
    pub async fn is_alive(&self) {
        let mut client = Client::connect(self.address(), "alive").await;
        client.publish_uplink("alive", 1, 1).await;
        client.expect(&puback(1)).await;
    }
}

fn stored_in(spool: &spool::Spool) -> Vec<Stored> {
    let (mut number, mut all) = (spool.oldest_number(), Vec::new());
    while number < spool.next_number() {
        for record in spool.read_from(number, 1 << 20).expect("the spool can be read") {
            let mut segment = Vec::new();
            write_head(
                &mut segment,
                &Head { incarnation: 1, first: record.first, count: u64::from(record.count) },
            );
            segment.extend_from_slice(&record.entries);
            let segment = Segment::read(&segment).expect("records hold entries");
            all.extend(segment.entries().map(|entry| Stored {
                device: entry.device.to_string(),
                traceparent: entry.traceparent.map(Into::into),
                payload: entry.payload.into(),
            }));
            number = record.first + u64::from(record.count);
        }
    }
    all
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

pub(super) fn uplink_payload(seq: u32) -> Vec<u8> {
    let event =
        Event { seq, at: 5, kind: "reading-taken".parse().expect("a kind"), version: 1, body: &[0xa0] };
    let header = Header { boot: 1, now: Some(9), epoch: None, via: None };
    let mut bytes = [0; 200];
    let len = uplink::write(&mut bytes, &header, [event].into_iter()).expect("room");
    bytes[..len].to_vec()
}

/// An uplink of nearly 64 KiB that does not compress.
pub(super) fn large_uplink_payload(seq: u32) -> Vec<u8> {
    let mut body = vec![0xa1, 0x61, b'x', 0x59, 0xf0, 0x00];
    body.extend((0..0xf000_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[1]));
    let event = Event { seq, at: 5, kind: "blob-taken".parse().expect("a kind"), version: 1, body: &body };
    let header = Header { boot: 1, now: Some(9), epoch: None, via: None };
    let mut bytes = vec![0; 65_536];
    let len = uplink::write(&mut bytes, &header, [event].into_iter()).expect("room");
    bytes.truncate(len);
    bytes
}

pub(super) fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut len = body.len();
    while len > 0x7f {
        packet.push(0x80 | u8::try_from(len & 0x7f).expect("seven bits"));
        len >>= 7;
    }
    packet.push(u8::try_from(len).expect("seven bits"));
    packet.extend_from_slice(body);
    packet
}

pub(super) fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// CONNECT of MQTT 3.1.1 with a clean session; `flags` and `tail` add a will, a name, a password.
pub(super) fn connect_v4(client_id: &str, keep_alive_s: u16, flags: u8, tail: &[Vec<u8>]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(0x02 | flags);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    body.extend_from_slice(&string(client_id));
    body.extend_from_slice(&tail.concat());
    packet(0x10, &body)
}

pub(super) fn connect_v5(client_id: &str, properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\x02\0\x3c".to_vec();
    body.push(u8::try_from(properties.len()).expect("short"));
    body.extend_from_slice(properties);
    body.extend_from_slice(&string(client_id));
    packet(0x10, &body)
}

/// PUBLISH of MQTT 3.1.1; for MQTT 5 begin the payload with the length of the properties.
pub(super) fn publish(topic: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | (qos << 1), &body)
}

pub(super) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 9];
    body.extend_from_slice(&string(filter));
    body.push(qos);
    packet(0x82, &body)
}

pub(super) fn suback(code: u8) -> Vec<u8> {
    vec![0x90, 3, 0, 9, code]
}

pub(super) fn puback(packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x40, 2, high, low]
}

pub(super) const CONNACK_V4: [u8; 4] = [0x20, 2, 0, 0];
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(super) const PINGRESP: [u8; 2] = [0xd0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// A connection, byte by byte.
pub(super) struct Client<S = TcpStream> {
    pub stream: S,
}

impl Client {
    /// A connection without a CONNECT.
    pub async fn open(address: SocketAddr) -> Client {
        let stream =
            timeout(DEADLINE, TcpStream::connect(address)).await.expect("in time").expect("a listener");
        stream.set_nodelay(true).expect("an option of every socket");
        Client { stream }
    }

    /// An accepted client of MQTT 3.1.1.
    pub async fn connect(address: SocketAddr, client_id: &str) -> Client {
        let mut client = Client::open(address).await;
        client.send(&connect_v4(client_id, 60, 0, &[])).await;
        client.expect(&CONNACK_V4).await;
        client
    }

    /// An accepted client of MQTT 5.
    pub async fn connect_v5(address: SocketAddr, client_id: &str) -> Client {
        let mut client = Client::open(address).await;
        client.send(&connect_v5(client_id, &[])).await;
        let (head, body) = client.packet().await;
        assert_eq!((head, body[1]), (0x20, 0), "{body:02x?}");
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("in time").expect("a connection");
    }

    pub async fn publish_uplink(&mut self, device: &str, packet_id: u16, seq: u32) {
        self.send(&publish(&format!("weir/1/{device}/events"), 1, packet_id, &uplink_payload(seq))).await;
    }

    pub async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        let done = timeout(DEADLINE, self.stream.read_exact(&mut read)).await;
        done.unwrap_or_else(|_| panic!("waiting for {bytes:02x?}")).expect("a connection");
        assert_eq!(read, bytes, "\n read: {read:02x?}\n want: {bytes:02x?}");
    }

    /// The next packet: its first byte and its body.
    pub async fn packet(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let head = self.stream.read_u8().await?;
            let (mut len, mut shift) = (0, 0);
            loop {
                let byte = self.stream.read_u8().await?;
                len |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body).await?;
            std::io::Result::Ok((head, body))
        };
        timeout(DEADLINE, read).await.expect("a packet in time").expect("a connection")
    }

    /// A message: its topic and payload. Acknowledged if it asks for that.
    pub async fn message(&mut self) -> (String, Vec<u8>) {
        let (head, body) = self.packet().await;
        assert_eq!(head >> 4, 3, "{head:#04x} {body:02x?}");
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, mut rest) = body[2..].split_at(topic_len);
        if head & 0b0110 != 0 {
            self.send(&packet(0x40, &rest[..2])).await;
            rest = &rest[2..];
        }
        (String::from_utf8(topic.to_vec()).expect("UTF-8"), rest.to_vec())
    }

    /// The other side closes, after what is read until then.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        match timeout(DEADLINE, self.stream.read_to_end(&mut read)).await {
            Ok(_) => read,
            Err(_) => panic!("the connection was not closed; it sent {read:02x?}"),
        }
    }

    pub async fn nothing_comes(&mut self) {
        let mut byte = [0];
        if let Ok(read) = timeout(A_WHILE, self.stream.read(&mut byte)).await {
            panic!("{read:?} {byte:02x?}");
        }
    }
}

/// Waits until `check` holds.
pub(super) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let done = timeout(DEADLINE, async {
        while !check() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    done.await.unwrap_or_else(|_| panic!("never: {what}"));
}
