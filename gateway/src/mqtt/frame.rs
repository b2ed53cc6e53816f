//! MQTT packets as they lie in the bytes a socket gave: where one ends, and what a PUBLISH says.
//! Nothing is copied, nothing is kept, and no bytes whatever make it panic.
//!
//! PUBLISH, PUBACK, PINGREQ and DISCONNECT are read here because they are the hot path; the rest is read by rumqttd's
//! codec (see `codec.rs`).

use weir_contract::segment::TRACEPARENT_LEN_MAX;

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
    let whole_len = 1 + length_len + body_len;
    Ok(bytes.get(..whole_len).map(|whole| Frame { head, body: &whole[1 + length_len..], whole }))
}

/// A variable byte integer and how many bytes it takes; `None` if it does not end here.
fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Reason> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Reason::Malformed) }
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
        1 => match r.u16()? {
            0 => return Err(Reason::ProtocolError),
            packet_id => packet_id,
        },
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
    let len = r.varint()?;
    let raw = r.take(len)?;
    let mut r = Reader { rest: raw };
    let (mut expiry, mut traceparent) = (None, None);
    let mut seen = 0_u64;
    while !r.rest.is_empty() {
        let id = r.u8()?;
        // Every property of a PUBLISH but the user property may be there only once.
        if id < 64 && id != 0x26 {
            if seen & (1 << id) != 0 {
                return Err(Reason::ProtocolError);
            }
            seen |= 1 << id;
        }
        match id {
            // payload format indicator
            0x01 => drop(r.take(1)?),
            // message expiry interval
            0x02 => {
                let at = raw.len() - r.rest.len();
                let seconds = r.take(4)?;
                expiry = Some((at, u32::from_be_bytes([seconds[0], seconds[1], seconds[2], seconds[3]])));
            }
            // content type, response topic
            0x03 | 0x08 => drop(r.string()?),
            // correlation data
            0x09 => drop(r.binary()?),
            // A subscription identifier comes from servers only.
            0x0b => return Err(Reason::ProtocolError),
            // Topic alias: our maximum is 0.
            0x23 => return Err(Reason::TopicAliasInvalid),
            // user property
            0x26 => {
                let (name, value) = (r.string()?, r.string()?);
                // A longer one is none (W3C Trace Context gives 55 bytes to version 00) and is left out.
                if name == "traceparent" && value.len() <= TRACEPARENT_LEN_MAX {
                    traceparent = Some(value.as_bytes());
                }
            }
            _ => return Err(Reason::Malformed),
        }
    }
    Ok((Properties { raw, expiry }, traceparent))
}

/// The packet identifier of a PUBACK. Its reason code changes nothing for us: taken or not, it is not sent again.
pub(super) fn puback(frame: &Frame<'_>) -> Result<u16, Reason> {
    Reader { rest: frame.body }.u16()
}

/// Whether a DISCONNECT asks that the will be published all the same (MQTT 5, reason code 0x04).
pub(super) fn disconnect_wants_will(version: Version, frame: &Frame<'_>) -> bool {
    version == Version::V5 && frame.body.first() == Some(&0x04)
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

/// Reads MQTT's data types (MQTT 5, 1.5); everything missing is `Malformed`.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Reason::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Reason> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Reason> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn varint(&mut self) -> Result<usize, Reason> {
        let (value, len) = varint(self.rest)?.ok_or(Reason::Malformed)?;
        self.take(len)?;
        Ok(value)
    }

    fn binary(&mut self) -> Result<&'a [u8], Reason> {
        let len = usize::from(self.u16()?);
        self.take(len)
    }

    fn string(&mut self) -> Result<&'a str, Reason> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Reason::Malformed)?;
        if text.as_bytes().contains(&0) { Err(Reason::Malformed) } else { Ok(text) }
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
        let cases: [(&[u8], Reason); 6] = [
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
    fn what_no_client_may_send_is_refused_at_its_first_byte() {
        for head in 0..=255_u8 {
            let refused = next(&[head], BODY_LEN_MAX).is_err();
            let allowed = matches!(head, 0x10 | 0x40 | 0x50 | 0x62 | 0x70 | 0x82 | 0xa2 | 0xc0 | 0xe0)
                || (head >> 4 == 3 && head & 0b0110 != 0b0110);
            assert_eq!(refused, !allowed, "{head:#04x}");
        }
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
