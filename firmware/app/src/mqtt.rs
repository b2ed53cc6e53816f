//! As much of an MQTT 3.1.1 client as a device needs, without IO: packets are written into and read from buffers.
//!
//! Why not one of the published clients: they keep what is not acknowledged and send it again, which is what the
//! outbox is there for; keeping it twice took 13 KB of flash and 3 KB of RAM. What is left of MQTT then is below.
//!
//! Numbers in brackets are sections of the OASIS standard, *MQTT Version 3.1.1*.

/// What a packet with a payload has before the payload, at most: fixed header, topic, packet identifier.
pub(crate) const HEAD_LEN_MAX: usize = 1 + 4 + 2 + TOPIC_LEN_MAX + 2;
const TOPIC_LEN_MAX: usize = 64;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
/// With all of its flags.
const PUBLISH_LAST: u8 = 0x3F;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xD0;
const QOS_1: u8 = 0b0010;
const QOS_BITS: u8 = 0b0110;
const SUBSCRIPTION_FAILED: u8 = 0x80;

/// PINGREQ \[3.12\].
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// The identifier of the one SUBSCRIBE of a connection. Uplinks have others.
const SUBSCRIBE_IDENTIFIER: u16 = u16::MAX;

/// Who connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) client_id: &'a str,
    /// Also the user name, if there is one.
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) keep_alive_s: u16,
}

/// A packet from the gateway.
#[derive(Debug, PartialEq)]
pub(crate) enum Packet<'p> {
    /// The gateway has answered CONNECT: with 0, or why not \[3.2.2.3\].
    Connected { refusal: u8 },
    /// It has an uplink on disk.
    Acknowledged { identifier: u16 },
    /// A message; one with an identifier wants to be acknowledged.
    Message { topic: &'p str, payload: &'p [u8], identifier: Option<u16> },
    /// It is there.
    Pong,
    /// It listens to what was subscribed, or not.
    Subscribed { granted: bool },
}

/// The gateway does not speak MQTT as it should, or says what does not fit in the buffer: the connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// Writes CONNECT \[3.1\]: a clean session, no will. Its length.
pub(crate) fn connect(buffer: &mut [u8], login: &Login<'_>) -> Result<usize, Broken> {
    const CLEAN_SESSION: u8 = 0b10;
    const USER_NAME_AND_PASSWORD: u8 = 0b1100_0000;
    let flags = CLEAN_SESSION | if login.password.is_some() { USER_NAME_AND_PASSWORD } else { 0 };
    packet(buffer, CONNECT, |out| {
        out.field(b"MQTT")?;
        out.bytes(&[4, flags])?;
        out.number(login.keep_alive_s)?;
        out.field(login.client_id.as_bytes())?;
        if let Some(password) = login.password {
            out.field(login.client_id.as_bytes())?;
            out.field(password)?;
        }
        Ok(())
    })
}

/// Writes SUBSCRIBE \[3.8\], QoS 1. Its length.
pub(crate) fn subscribe(buffer: &mut [u8], topics: &[&str]) -> Result<usize, Broken> {
    packet(buffer, SUBSCRIBE, |out| {
        out.number(SUBSCRIBE_IDENTIFIER)?;
        topics.iter().try_for_each(|topic| {
            out.field(topic.as_bytes())?;
            out.bytes(&[1])
        })
    })
}

/// PUBACK \[3.4\].
pub(crate) fn acknowledge(identifier: u16) -> [u8; 4] {
    let [high, low] = identifier.to_be_bytes();
    [PUBACK, 2, high, low]
}

/// The identifier of the uplink that the device calls `token`: no two in flight have the same.
pub(crate) fn identifier(token: u32) -> u16 {
    // 1 to 65,534: 0 is no identifier, and 65,535 is SUBSCRIBE's. Tokens in flight are neighbours.
    u16::try_from(token % u32::from(SUBSCRIBE_IDENTIFIER - 1)).map_or(1, |number| number + 1)
}

/// Makes a PUBLISH \[3.3\], QoS 1, of the `len` bytes of payload that stand in `buffer` after [`HEAD_LEN_MAX`]: writes
/// what goes before them.
pub(crate) fn publish<'b>(
    buffer: &'b mut [u8],
    topic: &str,
    identifier: u16,
    again: bool,
    len: usize,
) -> Result<&'b [u8], Broken> {
    const DUP: u8 = 0b1000;
    let mut head = [0; HEAD_LEN_MAX];
    let mut out = Out { buffer: &mut head, len: 0 };
    out.bytes(&[PUBLISH | QOS_1 | if again { DUP } else { 0 }])?;
    out.length(2 + topic.len() + 2 + len)?;
    out.field(topic.as_bytes())?;
    out.number(identifier)?;
    let head_len = out.len;
    let start = HEAD_LEN_MAX - head_len;
    let packet = buffer.get_mut(start..HEAD_LEN_MAX + len).ok_or(Broken)?;
    packet[..head_len].copy_from_slice(&head[..head_len]);
    Ok(packet)
}

/// The length of the packet at the beginning of `bytes`; `None` if that is not known yet \[2.2.3\].
pub(crate) fn packet_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let mut len = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(2 + at + len));
        }
    }
    if bytes.len() > 4 { Err(Broken) } else { Ok(None) }
}

/// Reads a whole packet.
pub(crate) fn read(packet: &[u8]) -> Result<Packet<'_>, Broken> {
    let head = *packet.first().ok_or(Broken)?;
    let length_len = packet[1..].iter().position(|byte| byte & 0x80 == 0).ok_or(Broken)? + 1;
    let body = &packet[1 + length_len..];
    // The lower bits of all but PUBLISH are as the standard has them, or the connection is to be closed [2.2.2].
    match (head, body) {
        (CONNACK, [0..=1, refusal @ 0..=5]) => Ok(Packet::Connected { refusal: *refusal }),
        (PUBACK, [high, low]) => Ok(Packet::Acknowledged { identifier: u16::from_be_bytes([*high, *low]) }),
        (SUBACK, [_, _, codes @ ..])
            if !codes.is_empty() && codes.iter().all(|code| matches!(code, 0..=2 | &SUBSCRIPTION_FAILED)) =>
        {
            Ok(Packet::Subscribed { granted: codes.iter().all(|code| *code != SUBSCRIPTION_FAILED) })
        }
        (PINGRESP, []) => Ok(Packet::Pong),
        (PUBLISH..=PUBLISH_LAST, body) => read_message(head, body).ok_or(Broken),
        _ => Err(Broken),
    }
}

fn read_message(head: u8, body: &[u8]) -> Option<Packet<'_>> {
    let (len, rest) = body.split_first_chunk()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let topic = core::str::from_utf8(topic).ok()?;
    match head & QOS_BITS {
        0 => Some(Packet::Message { topic, payload: rest, identifier: None }),
        QOS_1 => {
            let (identifier, payload) = rest.split_first_chunk()?;
            // 0 is none [2.3.1].
            let identifier = Some(u16::from_be_bytes(*identifier)).filter(|identifier| *identifier != 0)?;
            Some(Packet::Message { topic, payload, identifier: Some(identifier) })
        }
        _ => None,
    }
}

fn packet(
    buffer: &mut [u8],
    head: u8,
    body: impl Fn(&mut Out<'_>) -> Result<(), Broken>,
) -> Result<usize, Broken> {
    // These packets are short: their length is written in one byte.
    const ROOM_FOR_LENGTH: usize = 2;
    let mut out = Out { buffer, len: ROOM_FOR_LENGTH };
    body(&mut out)?;
    let len = out.len;
    let short = u8::try_from(len - ROOM_FOR_LENGTH).ok().filter(|len| *len < 0x80).ok_or(Broken)?;
    buffer[..ROOM_FOR_LENGTH].copy_from_slice(&[head, short]);
    Ok(len)
}

struct Out<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let end = self.len + bytes.len();
        self.buffer.get_mut(self.len..end).ok_or(Broken)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    fn number(&mut self, number: u16) -> Result<(), Broken> {
        self.bytes(&number.to_be_bytes())
    }

    fn field(&mut self, field: &[u8]) -> Result<(), Broken> {
        self.number(u16::try_from(field.len()).map_err(|_| Broken)?)?;
        self.bytes(field)
    }

    fn length(&mut self, mut len: usize) -> Result<(), Broken> {
        loop {
            let [low, ..] = len.to_le_bytes();
            len >>= 7;
            self.bytes(&[if len == 0 { low & 0x7F } else { low | 0x80 }])?;
            if len == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use mqttbytes::{QoS, v4};
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn packets_are_as_the_standard_has_them() {
        let mut buffer = [0; 128];
        let login = Login { client_id: "a1", password: None, keep_alive_s: 20 };
        let len = connect(&mut buffer, &login).unwrap();
        assert_eq!(buffer[..len], *b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x14\x00\x02a1");
        let len = connect(&mut buffer, &Login { password: Some(b"pw"), ..login }).unwrap();
        assert_eq!(buffer[..len], *b"\x10\x16\x00\x04MQTT\x04\xc2\x00\x14\x00\x02a1\x00\x02a1\x00\x02pw");
        let len = subscribe(&mut buffer, &["x/y", "z"]).unwrap();
        assert_eq!(buffer[..len], *b"\x82\x0c\xff\xff\x00\x03x/y\x01\x00\x01z\x01");
        assert_eq!(acknowledge(0x0102), [0x40, 2, 1, 2]);
    }

    #[test]
    fn an_uplink_stands_where_it_was_written() {
        let mut buffer = [0; HEAD_LEN_MAX + 300];
        buffer[HEAD_LEN_MAX..].fill(7);
        let packet = publish(&mut buffer, "t", 5, false, 300).unwrap();
        assert_eq!(packet[..8], *b"\x32\xb1\x02\x00\x01t\x00\x05");
        assert!(packet[8..].iter().all(|byte| *byte == 7) && packet.len() == 308);
        assert_eq!(publish(&mut buffer, "t", 5, true, 0).unwrap(), b"\x3a\x05\x00\x01t\x00\x05");
        assert_eq!(publish(&mut buffer, "t", 5, true, 301), Err(Broken));
    }

    #[test]
    fn what_the_gateway_says_is_understood() {
        assert_eq!(read(b"\x20\x02\x00\x05"), Ok(Packet::Connected { refusal: 5 }));
        assert_eq!(read(b"\x40\x02\x01\x00"), Ok(Packet::Acknowledged { identifier: 256 }));
        assert_eq!(read(b"\x90\x04\xff\xff\x01\x00"), Ok(Packet::Subscribed { granted: true }));
        assert_eq!(read(b"\x90\x04\xff\xff\x01\x80"), Ok(Packet::Subscribed { granted: false }));
        assert_eq!(read(b"\xd0\x00"), Ok(Packet::Pong));
        let message = Packet::Message { topic: "t", payload: b"hi", identifier: None };
        assert_eq!(read(b"\x30\x05\x00\x01thi"), Ok(message));
        let message = Packet::Message { topic: "t", payload: b"", identifier: Some(9) };
        assert_eq!(read(b"\x33\x05\x00\x01t\x00\x09"), Ok(message));
    }

    #[test]
    fn what_is_no_packet_is_refused_and_never_a_panic() {
        assert_eq!(packet_len(b"\x30"), Ok(None));
        assert_eq!(packet_len(b"\x30\x80"), Ok(None));
        assert_eq!(packet_len(b"\x30\x80\x01"), Ok(Some(131)));
        assert_eq!(packet_len(b"\x30\x80\x80\x80\x80"), Err(Broken));
        for first in 0..=u8::MAX {
            for rest in
                [&b""[..], b"\x00", b"\x01\x00", b"\x02\x00\x09", b"\x03\x00\x01\xff", b"\x02\x00\x00"]
            {
                let packet: Vec<u8> = [&[first], rest].concat();
                let _ = read(&packet);
            }
        }
        assert_eq!(read(b"\x35\x05\x00\x01t\x00\x09"), Err(Broken), "QoS 2 was not asked for");
    }

    /// What an independent codec finds at the beginning of `bytes`, and how long it is.
    fn independent(bytes: &[u8]) -> Option<(v4::Packet, usize)> {
        let mut stream = BytesMut::from(bytes);
        let packet = v4::read(&mut stream, 1 << 20).ok()?;
        Some((packet, bytes.len() - stream.len()))
    }

    /// Packets as gateways send them.
    fn packet_of_a_gateway(random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let identifier = random.u16(1..);
        let text = |random: &mut fastrand::Rng| -> String {
            (0..random.usize(1..40)).map(|_| random.alphanumeric()).collect()
        };
        let written = match random.u8(0..5) {
            0 => v4::ConnAck::new(v4::ConnectReturnCode::NotAuthorized, false).write(&mut bytes),
            1 => v4::PubAck::new(identifier).write(&mut bytes),
            2 => v4::SubAck::new(identifier, [v4::SubscribeReasonCode::Failure].into()).write(&mut bytes),
            3 => v4::PingResp.write(&mut bytes),
            _ => {
                let payload: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
                let qos = if random.bool() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let mut publish = v4::Publish::new(text(random), qos, payload);
                publish.pkid = identifier;
                publish.write(&mut bytes)
            }
        };
        written.expect("it can be written");
        bytes.to_vec()
    }

    #[test]
    fn what_a_gateway_sends_is_understood_as_others_understand_it() {
        let seed = fastrand::u64(..);
        std::println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let bytes = packet_of_a_gateway(&mut random);
            // However it is split, its length is known before it is read, and is not less than what has come.
            for end in 0..bytes.len() {
                assert!(packet_len(&bytes[..end]).unwrap().is_none_or(|len| len > end), "{bytes:?} to {end}");
            }
            assert_eq!(packet_len(&bytes), Ok(Some(bytes.len())));
            same(read(&bytes).unwrap(), &independent(&bytes).unwrap().0);
        }
    }

    #[test]
    fn what_is_damaged_is_refused_or_means_the_same_to_others() {
        let seed = fastrand::u64(..);
        std::println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut understood, mut refused) = (0, 0);
        for _ in 0..200_000 {
            let mut bytes = packet_of_a_gateway(&mut random);
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(0..4) {
                    0 => bytes[at] ^= 1 << random.u32(0..8),
                    1 => bytes[at] = random.u8(..),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, random.u8(..)),
                }
            }
            let Ok(Some(len)) = packet_len(&bytes) else { continue };
            let Some(packet) = bytes.get(..len) else { continue };
            match read(packet) {
                Ok(ours) => {
                    let Some((theirs, theirs_len)) = independent(&bytes) else {
                        panic!("{ours:?} of {packet:?}")
                    };
                    assert_eq!(theirs_len, len, "{packet:?}");
                    same(ours, &theirs);
                    understood += 1;
                }
                Err(Broken) => refused += 1,
            }
        }
        assert!(understood > 1_000 && refused > 1_000, "{understood} understood, {refused} refused");
    }

    fn same(ours: Packet<'_>, theirs: &v4::Packet) {
        match (ours, theirs) {
            (Packet::Connected { refusal }, v4::Packet::ConnAck(ack)) => assert_eq!(refusal, ack.code as u8),
            (Packet::Acknowledged { identifier }, v4::Packet::PubAck(ack)) => {
                assert_eq!(identifier, ack.pkid)
            }
            (Packet::Subscribed { granted }, v4::Packet::SubAck(ack)) => {
                assert_eq!(granted, !ack.return_codes.contains(&v4::SubscribeReasonCode::Failure));
            }
            (Packet::Pong, v4::Packet::PingResp) => {}
            (Packet::Message { topic, payload, identifier }, v4::Packet::Publish(publish)) => {
                assert_eq!((topic, payload), (publish.topic.as_str(), &publish.payload[..]));
                assert_eq!(identifier, (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid));
            }
            (ours, theirs) => panic!("{ours:?}, not {theirs:?}"),
        }
    }

    #[test]
    fn what_we_send_is_understood_by_others() {
        let mut buffer = [0; HEAD_LEN_MAX + 512];
        for len in 0..=512_usize {
            let payload: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            buffer[HEAD_LEN_MAX..][..len].copy_from_slice(&payload);
            let packet = publish(&mut buffer, "weir/1/a/events", 7, len % 2 == 1, len).unwrap();
            let Some((v4::Packet::Publish(theirs), read)) = independent(packet) else { panic!("{packet:?}") };
            assert_eq!((read, theirs.pkid, theirs.dup), (packet.len(), 7, len % 2 == 1));
            assert_eq!((theirs.topic.as_str(), &theirs.payload[..]), ("weir/1/a/events", &payload[..]));
        }
        let login = Login { client_id: "a1", password: Some(b"pw"), keep_alive_s: 20 };
        let len = connect(&mut buffer, &login).unwrap();
        let Some((v4::Packet::Connect(theirs), _)) = independent(&buffer[..len]) else {
            panic!("no CONNECT")
        };
        assert_eq!((theirs.client_id.as_str(), theirs.keep_alive, theirs.clean_session), ("a1", 20, true));
        assert_eq!((theirs.login, theirs.last_will), (Some(v4::Login::new("a1", "pw")), None));
        let len = subscribe(&mut buffer, &["x/y", "z"]).unwrap();
        let Some((v4::Packet::Subscribe(theirs), _)) = independent(&buffer[..len]) else {
            panic!("no SUBSCRIBE")
        };
        let filters: Vec<_> =
            theirs.filters.iter().map(|filter| (filter.path.as_str(), filter.qos)).collect();
        assert_eq!(filters, [("x/y", QoS::AtLeastOnce), ("z", QoS::AtLeastOnce)]);
        assert!(matches!(independent(&PINGREQ), Some((v4::Packet::PingReq, 2))));
    }

    #[test]
    fn identifiers_of_neighbours_differ_and_are_never_the_subscriptions() {
        for token in (65_000..66_200).chain(u32::MAX - 300..=u32::MAX) {
            let (this, next) = (identifier(token), identifier(token.wrapping_add(1)));
            assert!(this != 0 && this != SUBSCRIBE_IDENTIFIER && this != next, "{token}");
        }
    }
}
