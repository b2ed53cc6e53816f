//! MQTT packets as they lie in the bytes a socket gave: where one ends, and what a PUBLISH says.
//! Nothing is copied, nothing is kept, and no bytes whatever make it panic.
//!
//! PUBLISH, PUBACK, PINGREQ and DISCONNECT are read here because they are the hot path; the rest is read by rumqttd's
//! codec (see `codec.rs`).

use weir_contract::segment::TRACEPARENT_LEN_MAX;

use super::properties::{self, Place, Value};
use super::reader::{Reader, varint};
use super::reason::Reason;

/// The version of the protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V4,
    /// MQTT 5.
    V5,
}

/// A packet's type, the upper half of its first byte (MQTT 5, 2.1.2).
pub(super) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const DISCONNECT: u8 = 14;
}

/// One whole packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The first byte: type and flags.
    pub head: u8,
    /// Everything after the length.
    pub body: &'a [u8],
    /// First byte, length and body.
    pub whole: &'a [u8],
}

impl Frame<'_> {
    pub fn kind(&self) -> u8 {
        self.head >> 4
    }
}

/// The packet that begins at `bytes`; `None` if it is not all there yet.
///
/// What no client may send is refused from its first byte on, and a packet that will be too long from its length on,
/// so that nobody has to wait for the rest, nor keep it.
pub(super) fn next(bytes: &[u8], body_len_max: usize) -> Result<Option<Frame<'_>>, Reason> {
    let Some((&head, rest)) = bytes.split_first() else { return Ok(None) };
    let flags = head & 0x0f;
    let allowed = match head >> 4 {
        kind::PUBLISH => flags & 0b0110 != 0b0110,
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => flags == 0b0010,
        kind::CONNECT | kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::PINGREQ | kind::DISCONNECT => {
            flags == 0
        }
        // 0 is reserved; CONNACK, SUBACK, UNSUBACK and PINGRESP are a server's; AUTH (15) needs a method we never agree to.
        _ => return Err(Reason::ProtocolError),
    };
    if !allowed {
        return Err(Reason::Malformed);
    }
    let Some((body_len, length_len)) = varint(rest)? else { return Ok(None) };
    if body_len > body_len_max {
        return Err(Reason::PacketTooLarge);
    }
    if body_len > 0 && head >> 4 == kind::PINGREQ {
        return Err(Reason::Malformed);
    }
    let whole_len = 1 + length_len + body_len;
    Ok(bytes.get(..whole_len).map(|whole| Frame { head, body: &whole[1 + length_len..], whole }))
}

/// A PUBLISH from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Publish<'a> {
    /// 0 or 1: QoS 2 is refused in reading.
    pub qos: u8,
    pub retain: bool,
    /// 0 with QoS 0, else never.
    pub packet_id: u16,
    /// UTF-8 without U+0000; it may be empty, too long or hold wildcards.
    pub topic: &'a str,
    /// The user property `traceparent` (MQTT 5).
    pub traceparent: Option<&'a [u8]>,
    /// None with MQTT 3.1.1.
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

/// Properties of a PUBLISH that subscribers may be given as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Properties<'a> {
    /// Without their length.
    pub raw: &'a [u8],
    /// Where the message expiry interval lies in them, and what it is in seconds.
    pub expiry: Option<(usize, u32)>,
}

/// Reads a PUBLISH; the error is the reason to close the connection with.
pub(super) fn publish<'a>(version: Version, frame: &Frame<'a>) -> Result<Publish<'a>, Reason> {
    let qos = (frame.head >> 1) & 0b11;
    let mut r = Reader { rest: frame.body };
    let topic = r.string()?;
    let packet_id = match qos {
        0 => 0,
        1 => r.packet_id()?,
        _ => return Err(Reason::QosNotSupported),
    };
    let (properties, traceparent) = match version {
        Version::V4 => (Properties::default(), None),
        Version::V5 => publish_properties(&mut r)?,
    };
    let retain = frame.head & 1 != 0;
    Ok(Publish { qos, retain, packet_id, topic, traceparent, properties, payload: r.rest })
}

/// Walks the properties of a PUBLISH and picks the trace out of them.
fn publish_properties<'a>(r: &mut Reader<'a>) -> Result<(Properties<'a>, Option<&'a [u8]>), Reason> {
    let (mut expiry, mut traceparent) = (None, None);
    let raw = properties::read(Place::Publish, r, |id, at, value| match (id, value) {
        (properties::id::MESSAGE_EXPIRY, Value::Number(seconds)) => expiry = Some((at, seconds)),
        // A longer one is none (W3C Trace Context gives 55 bytes to version 00) and is left out.
        (_, Value::Pair("traceparent", value)) if value.len() <= TRACEPARENT_LEN_MAX => {
            traceparent = Some(value.as_bytes());
        }
        _ => {}
    })?;
    Ok((Properties { raw, expiry }, traceparent))
}

/// The packet identifier of a PUBACK. Its reason code changes nothing for us: taken or not, it is not sent again.
pub(super) fn puback(version: Version, frame: &Frame<'_>) -> Result<u16, Reason> {
    let mut r = Reader { rest: frame.body };
    let packet_id = r.packet_id()?;
    if version == Version::V5 {
        reason_and_properties(Place::Puback, &mut r)?;
    }
    r.end()?;
    Ok(packet_id)
}

/// Whether a DISCONNECT leaves the will to be published: whatever reason it has (MQTT 5) but that all is well (3.14.4).
pub(super) fn disconnect_wants_will(version: Version, frame: &Frame<'_>) -> Result<bool, Reason> {
    let mut r = Reader { rest: frame.body };
    let code = match version {
        Version::V4 => 0,
        Version::V5 => reason_and_properties(Place::Disconnect, &mut r)?,
    };
    r.end()?;
    Ok(code != 0)
}

/// The reason code, which may be left out, and the properties, which may be left out after it (MQTT 5, 3.4.2).
fn reason_and_properties(place: Place, r: &mut Reader<'_>) -> Result<u8, Reason> {
    if r.rest.is_empty() {
        return Ok(0);
    }
    let code = r.u8()?;
    if !r.rest.is_empty() {
        properties::read(place, r, |_, _, _| {})?;
    }
    Ok(code)
}

/// The protocol version a CONNECT asks for, read before its codec can be chosen. `Err(None)` is no MQTT at all;
/// `Err(Some(level))` is MQTT of another level.
pub(super) fn connect_version(frame: &Frame<'_>) -> Result<Version, Option<u8>> {
    let mut r = Reader { rest: frame.body };
    let name = r.string().map_err(|_| None)?;
    let level = r.u8().map_err(|_| None)?;
    match (name, level) {
        ("MQTT", 4) => Ok(Version::V4),
        ("MQTT", 5) => Ok(Version::V5),
        ("MQTT" | "MQIsdp", level) => Err(Some(level)),
        _ => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

    const BODY_LEN_MAX: usize = 4096;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        next(bytes, BODY_LEN_MAX).expect("a packet").expect("a whole one")
    }

    #[test]
    fn a_publish_is_read_where_it_lies() {
        let bytes = [0x33, 10, 0, 3, b'a', b'/', b'b', 0, 7, b'x', b'y', b'z'];
        let publish = publish(Version::V4, &frame(&bytes)).unwrap();
        assert_eq!((publish.qos, publish.retain, publish.packet_id), (1, true, 7));
        assert_eq!((publish.topic, publish.payload), ("a/b", b"xyz".as_slice()));
    }

    #[test]
    fn the_trace_is_found_among_other_properties() {
        let mut properties = vec![0x01, 0, 0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 11];
        properties.extend_from_slice(b"traceparent");
        properties.extend_from_slice(&[0, 4]);
        properties.extend_from_slice(b"00-1");
        let mut body = vec![0, 1, b't', 0, 9, u8::try_from(properties.len()).unwrap()];
        body.extend_from_slice(&properties);
        body.push(0xa0);
        let mut bytes = vec![0x32, u8::try_from(body.len()).unwrap()];
        bytes.extend_from_slice(&body);
        let publish = publish(Version::V5, &frame(&bytes)).unwrap();
        assert_eq!(publish.traceparent, Some(b"00-1".as_slice()));
        assert_eq!(publish.payload, [0xa0]);
    }

    #[test]
    fn what_a_client_may_not_publish_has_its_reason() {
        let cases: [(&[u8], Reason); 13] = [
            (&[0x30, 6, 0, 1, b't', 2, 0x01, 2], Reason::ProtocolError),
            (&[0x30, 9, 0, 1, b't', 5, 0x08, 0, 2, b'a', b'#'], Reason::ProtocolError),
            (&[0x30, 7, 0, 1, b't', 3, 0x08, 0, 0], Reason::ProtocolError),
            (&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0], Reason::TopicAliasInvalid),
            (&[0x30, 10, 0, 1, b't', 6, 0x26, 0, 1, 0, 0, 0], Reason::Malformed),
            (&[0x30, 6, 0, 1, b't', 2, 0x24, 1], Reason::ProtocolError),
            (&[0x30, 6, 0, 1, b't', 2, 0x0e, 1], Reason::Malformed),
            (&[0x34, 5, 0, 1, b't', 0, 1], Reason::QosNotSupported),
            (&[0x32, 6, 0, 1, b't', 0, 0, 0], Reason::ProtocolError),
            (&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 1], Reason::TopicAliasInvalid),
            (&[0x30, 6, 0, 1, b't', 2, 0x0b, 1], Reason::ProtocolError),
            (&[0x30, 8, 0, 1, b't', 4, 0x01, 0, 0x01, 0], Reason::ProtocolError),
            (&[0x30, 4, 0, 2, 0xc3, 0x28], Reason::Malformed),
        ];
        for (bytes, reason) in cases {
            assert_eq!(publish(Version::V5, &frame(bytes)), Err(reason), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_puback_and_a_disconnect_are_whole() {
        let body = |bytes: &[u8]| {
            let mut packet = vec![0x40, u8::try_from(bytes.len()).unwrap()];
            packet.extend_from_slice(bytes);
            packet
        };
        let read = |version, bytes: &[u8]| puback(version, &frame(&body(bytes)));
        assert_eq!(read(Version::V4, &[0, 7]), Ok(7));
        assert_eq!(read(Version::V5, &[0, 7, 0x10, 4, 0x1f, 0, 1, b'x']), Ok(7));
        for (version, bytes) in
            [(Version::V4, &[0, 7, 0][..]), (Version::V5, &[0, 7, 0, 1]), (Version::V4, &[7])]
        {
            assert_eq!(read(version, bytes), Err(Reason::Malformed), "{bytes:?}");
        }
        assert_eq!(read(Version::V5, &[0, 0]), Err(Reason::ProtocolError));
        let wants_will = |version, bytes: &[u8]| disconnect_wants_will(version, &frame(&body(bytes)));
        for (code, wants) in [(0, false), (4, true), (0x80, true), (0x81, true)] {
            assert_eq!(wants_will(Version::V5, &[code]), Ok(wants), "{code:#x}");
        }
        assert_eq!(wants_will(Version::V5, &[0, 5, 0x11, 0, 0, 0, 0]), Ok(false));
        assert_eq!(wants_will(Version::V5, &[0, 2, 0x01, 0]), Err(Reason::ProtocolError));
        assert_eq!(wants_will(Version::V4, &[0]), Err(Reason::Malformed));
    }

    #[test]
    fn what_no_client_may_send_is_refused_at_its_first_byte() {
        for head in 0..=255_u8 {
            let refused = next(&[head], BODY_LEN_MAX).is_err();
            let allowed = matches!(head, 0x10 | 0x40 | 0x50 | 0x62 | 0x70 | 0x82 | 0xa2 | 0xc0 | 0xe0)
                || (head >> 4 == 3 && head & 0b0110 != 0b0110);
            assert_eq!(refused, !allowed, "{head:#04x}");
        }
        assert_eq!(next(&[0xc0, 1], BODY_LEN_MAX), Err(Reason::Malformed), "a ping with something in it");
        assert_eq!(next(&[0x30, 0xff, 0xff, 0x7f], BODY_LEN_MAX), Err(Reason::PacketTooLarge));
        assert_eq!(next(&[0x30, 0x80, 0x80, 0x80, 0x80], BODY_LEN_MAX), Err(Reason::Malformed));
    }

    #[test]
    fn the_protocol_level_is_known_before_a_codec_is_chosen() {
        let connect = |name: &[u8], level| {
            let mut body = vec![0, u8::try_from(name.len()).unwrap()];
            body.extend_from_slice(name);
            body.push(level);
            let mut bytes = vec![0x10, u8::try_from(body.len()).unwrap()];
            bytes.extend_from_slice(&body);
            connect_version(&frame(&bytes))
        };
        assert_eq!(connect(b"MQTT", 4), Ok(Version::V4));
        assert_eq!(connect(b"MQTT", 5), Ok(Version::V5));
        assert_eq!(connect(b"MQIsdp", 3), Err(Some(3)));
        assert_eq!(connect(b"MQTT", 6), Err(Some(6)));
        assert_eq!(connect(b"HTTP", 1), Err(None));
    }

    /// Packets that are nearly right, so that the readers get deep into them.
    fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
        let head = prop_oneof![
            any::<u8>(),
            prop::sample::select(vec![0x30_u8, 0x32, 0x33, 0x10, 0x82, 0xa2, 0xc0, 0xe0, 0x40])
        ];
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (prop::collection::vec(any::<u8>(), 0..3), prop::collection::vec(any::<u8>(), 0..30)).prop_map(
                |(topic, rest)| {
                    let mut body = vec![0, u8::try_from(topic.len()).unwrap()];
                    body.extend_from_slice(&topic);
                    body.extend_from_slice(&[0, 1]);
                    body.extend_from_slice(&rest);
                    body
                }
            ),
        ];
        (head, body).prop_map(|(head, body)| {
            let mut packet = vec![head, u8::try_from(body.len()).unwrap()];
            packet.extend_from_slice(&body);
            packet
        })
    }

    /// All packets of `bytes` as text, until something is refused or not all there.
    fn read_all(bytes: &[u8]) -> Vec<String> {
        let (mut at, mut all) = (0, Vec::new());
        loop {
            match next(&bytes[at..], BODY_LEN_MAX) {
                Ok(Some(frame)) => {
                    at += frame.whole.len();
                    let read = (frame.kind() == kind::PUBLISH)
                        .then(|| (publish(Version::V4, &frame), publish(Version::V5, &frame)));
                    all.push(format!("{frame:?} {read:?}"));
                }
                end => {
                    all.push(format!("{end:?}"));
                    return all;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        /// A beginning never reads as something else than the whole does: what is read of it is a beginning of what is
        /// read of the whole.
        #[test]
        fn a_packet_reads_the_same_however_it_is_cut(packets in prop::collection::vec(nearly_right(), 1..6), cut in any::<prop::sample::Index>()) {
            let bytes = packets.concat();
            let whole = read_all(&bytes);
            let part = read_all(&bytes[..cut.index(bytes.len() + 1)]);
            let (end, read) = part.split_last().unwrap();
            assert_eq!(read, &whole[..read.len()]);
            assert!(end == "Ok(None)" || Some(end) == whole.get(read.len()), "{end} {whole:?}");
        }
    }
}
