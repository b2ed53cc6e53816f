//! rumqttd's codec, behind `frame.rs`: it sees whole packets only, and only of types a client may send (its MQTT 5 part
//! panics on some of a server's). It reads what is not on the hot path.

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Filter, LastWill, LastWillProperties, Packet, Protocol};

use super::frame::{Frame, Properties, Version};
use super::reason::Reason;
use super::strict;

/// What a CONNECT says.
#[derive(Debug)]
pub(super) struct Connect {
    pub version: Version,
    /// 0 is none.
    pub keep_alive_s: u16,
    /// May be empty.
    pub client_id: String,
    /// The client has no use for a session that outlives the connection.
    pub clean: bool,
    /// User name and password; either may be empty.
    pub login: Option<(String, String)>,
    pub will: Option<Will>,
    /// Unacknowledged QoS 1 messages it takes at a time.
    pub receive_max: u16,
    /// The longest packet it takes.
    pub packet_bytes_max: usize,
    /// It reads reason strings.
    pub wants_reasons: bool,
    /// It wants to authenticate by other means than name and password.
    pub authentication_method: bool,
}

/// What is published for a client that leaves without DISCONNECT.
#[derive(Debug)]
pub(super) struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub properties: WillProperties,
}

/// Properties of a will, as those of the PUBLISH it becomes.
#[derive(Debug, Default)]
pub(super) struct WillProperties {
    raw: Box<[u8]>,
    expiry: Option<(usize, u32)>,
}

impl WillProperties {
    pub fn get(&self) -> Properties<'_> {
        Properties { raw: &self.raw, expiry: self.expiry }
    }
}

/// Reads a CONNECT of that version.
pub(super) fn connect(version: Version, frame: &Frame<'_>) -> Result<Connect, Reason> {
    strict::connect(version, frame)?;
    let Packet::Connect(connect, properties, will, will_properties, login) = read(version, frame)? else {
        return Err(Reason::ProtocolError);
    };
    let properties = properties.as_ref();
    let receive_max = properties.and_then(|properties| properties.receive_maximum).unwrap_or(u16::MAX);
    let packet_bytes_max = properties.and_then(|properties| properties.max_packet_size).unwrap_or(u32::MAX);
    let expiry_s = properties.and_then(|properties| properties.session_expiry_interval).unwrap_or(0);
    Ok(Connect {
        version,
        keep_alive_s: connect.keep_alive,
        client_id: connect.client_id,
        clean: match version {
            Version::V4 => connect.clean_session,
            Version::V5 => expiry_s == 0,
        },
        login: login.map(|login| (login.username, login.password)),
        will: will.map(|will| read_will(&will, will_properties.as_ref())).transpose()?,
        receive_max,
        packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
        wants_reasons: properties.and_then(|properties| properties.request_problem_info) != Some(0),
        authentication_method: properties
            .is_some_and(|properties| properties.authentication_method.is_some()),
    })
}

fn read_will(will: &LastWill, properties: Option<&LastWillProperties>) -> Result<Will, Reason> {
    Ok(Will {
        topic: String::from_utf8(will.topic.to_vec()).map_err(|_| Reason::Malformed)?,
        // Copied: it would keep the whole packet in memory as long as the connection lasts.
        payload: Bytes::copy_from_slice(&will.message),
        qos: will.qos as u8,
        retain: will.retain,
        properties: properties.map(will_properties).unwrap_or_default(),
    })
}

/// As those of a PUBLISH.
fn will_properties(properties: &LastWillProperties) -> WillProperties {
    fn add(raw: &mut Vec<u8>, id: u8, texts: &[&[u8]]) {
        raw.push(id);
        for text in texts {
            let len = u16::try_from(text.len()).expect("it was read with two bytes of length");
            raw.extend_from_slice(&len.to_be_bytes());
            raw.extend_from_slice(text);
        }
    }
    let (mut raw, mut expiry) = (Vec::new(), None);
    if let Some(seconds) = properties.message_expiry_interval {
        raw.push(0x02);
        expiry = Some((raw.len(), seconds));
        raw.extend_from_slice(&seconds.to_be_bytes());
    }
    if let Some(indicator) = properties.payload_format_indicator {
        raw.extend_from_slice(&[0x01, indicator]);
    }
    if let Some(kind) = &properties.content_type {
        add(&mut raw, 0x03, &[kind.as_bytes()]);
    }
    if let Some(topic) = &properties.response_topic {
        add(&mut raw, 0x08, &[topic.as_bytes()]);
    }
    if let Some(data) = &properties.correlation_data {
        add(&mut raw, 0x09, &[data]);
    }
    for (name, value) in &properties.user_properties {
        add(&mut raw, 0x26, &[name.as_bytes(), value.as_bytes()]);
    }
    WillProperties { raw: raw.into(), expiry }
}

/// What a SUBSCRIBE says.
pub(super) struct Subscribe {
    pub packet_id: u16,
    pub filters: Vec<Filter>,
    pub has_identifier: bool,
}

/// Reads a SUBSCRIBE.
pub(super) fn subscribe(version: Version, frame: &Frame<'_>) -> Result<Subscribe, Reason> {
    strict::subscribe(version, frame)?;
    let Packet::Subscribe(subscribe, properties) = read(version, frame)? else {
        return Err(Reason::ProtocolError);
    };
    let has_identifier = properties.is_some_and(|properties| properties.id.is_some());
    Ok(Subscribe { packet_id: subscribe.pkid, filters: subscribe.filters, has_identifier })
}

/// Reads an UNSUBSCRIBE: its packet identifier and filters.
pub(super) fn unsubscribe(version: Version, frame: &Frame<'_>) -> Result<(u16, Vec<String>), Reason> {
    strict::unsubscribe(version, frame)?;
    let Packet::Unsubscribe(unsubscribe, _) = read(version, frame)? else {
        return Err(Reason::ProtocolError);
    };
    Ok((unsubscribe.pkid, unsubscribe.filters))
}

fn read(version: Version, frame: &Frame<'_>) -> Result<Packet, Reason> {
    let mut bytes = BytesMut::from(frame.whole);
    let read = match version {
        Version::V4 => V4.read_mut(&mut bytes, frame.body.len()),
        Version::V5 => V5.read_mut(&mut bytes, frame.body.len()),
    };
    read.map_err(|_| Reason::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::super::frame::{self, kind};
    use super::*;

    fn read_with(bytes: &[u8], version: Version) {
        let Ok(Some(frame)) = frame::next(bytes, 1000) else { return };
        match frame.kind() {
            kind::CONNECT => drop(connect(version, &frame)),
            kind::SUBSCRIBE => drop(subscribe(version, &frame)),
            kind::UNSUBSCRIBE => drop(unsubscribe(version, &frame)),
            _ => {}
        }
    }

    fn packet(head: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![head, u8::try_from(body.len()).unwrap()];
        packet.extend_from_slice(body);
        packet
    }

    #[test]
    fn a_connect_is_read_in_both_versions() {
        let body = b"\0\x04MQTT\x04\xee\0\x3c\0\x05dev-1\0\x01w\0\x02hi\0\x01u\0\x01p";
        let bytes = packet(0x10, body);
        let frame = frame::next(&bytes, 1000).unwrap().unwrap();
        let connect = connect(Version::V4, &frame).unwrap();
        assert_eq!((connect.client_id.as_str(), connect.keep_alive_s, connect.clean), ("dev-1", 60, true));
        assert_eq!(connect.login, Some(("u".to_owned(), "p".to_owned())));
        let will = connect.will.unwrap();
        assert!(will.properties.get().raw.is_empty());
        assert_eq!(
            (will.topic.as_str(), &will.payload[..], will.qos, will.retain),
            ("w", b"hi".as_slice(), 1, true)
        );

        let body = b"\0\x04MQTT\x05\x02\0\x3c\x0a\x21\0\x14\x27\0\0\x10\0\x17\0\0\x05dev-1";
        let bytes = packet(0x10, body);
        let frame = frame::next(&bytes, 1000).unwrap().unwrap();
        let connect = super::connect(Version::V5, &frame).unwrap();
        assert_eq!((connect.receive_max, connect.packet_bytes_max), (20, 4096));
        assert!(!connect.wants_reasons && connect.clean && connect.will.is_none());
    }

    #[test]
    fn the_reserved_connect_flag_is_refused() {
        let bytes = packet(0x10, b"\0\x04MQTT\x04\x03\0\x3c\0\x05dev-1");
        let frame = frame::next(&bytes, 1000).unwrap().unwrap();
        assert_eq!(connect(Version::V4, &frame).err(), Some(Reason::Malformed));
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

        /// rumqttd's codec is not ours: that it does not panic on what we give it is found out here.
        #[test]
        fn arbitrary_bodies_never_panic(
            head in prop::sample::select(vec![0x10_u8, 0x82, 0xa2]),
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            read_with(&packet(head, &body), Version::V4);
            read_with(&packet(head, &body), Version::V5);
        }

        #[test]
        fn a_spoilt_connect_never_panics(
            version in 4..=5_u8,
            flags in any::<u8>(),
            spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            tail in prop::collection::vec(any::<u8>(), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body = b"\0\x04MQTT\x00\x00\0\x3c".to_vec();
            (body[6], body[7]) = (version, flags);
            body.extend_from_slice(&tail);
            for (index, byte) in spoilt {
                let index = index.index(body.len());
                body[index] = byte;
            }
            body.truncate(cut.index(body.len() + 1));
            read_with(&packet(0x10, &body), Version::V4);
            read_with(&packet(0x10, &body), Version::V5);
        }
    }
}
