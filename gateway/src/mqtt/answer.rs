//! The packets the gateway answers with, appended to what a connection has yet to write.

use super::frame::Version;
use super::reason::Reason;

/// The most bytes of a reason string: for a person to read, and it costs the device's radio time.
const SAID_LEN_MAX: usize = 100;
/// No answer to a publish is longer.
pub(super) const LEN_MAX: usize = SAID_LEN_MAX + 16;

/// What a client is told in its CONNACK.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Seconds, if other than the client asked for.
    pub keep_alive_s: Option<u16>,
    pub receive_max: u16,
    pub packet_bytes_max: u32,
    /// Its identifier, if the gateway made it up.
    pub assigned_client_id: Option<&'a str>,
    /// The client asked for a session that outlives the connection; here none does.
    pub wanted_session: bool,
}

/// Appends a CONNACK that accepts. Session Present is always 0: sessions end with their connection.
pub(super) fn connack(out: &mut Vec<u8>, version: Version, terms: &Terms<'_>) {
    match version {
        Version::V4 => out.extend_from_slice(&[0x20, 2, 0, 0]),
        Version::V5 => {
            let mut properties = Vec::with_capacity(64);
            if terms.wanted_session {
                properties.extend_from_slice(&[0x11, 0, 0, 0, 0]);
            }
            properties.push(0x21);
            properties.extend_from_slice(&terms.receive_max.to_be_bytes());
            properties.extend_from_slice(&[0x24, 1]); // maximum QoS
            properties.push(0x27);
            properties.extend_from_slice(&terms.packet_bytes_max.to_be_bytes());
            if let Some(id) = terms.assigned_client_id {
                properties.push(0x12);
                string(&mut properties, id);
            }
            properties.extend_from_slice(&[0x29, 0, 0x2a, 0]); // neither subscription identifiers nor shared subscriptions
            if let Some(seconds) = terms.keep_alive_s {
                properties.push(0x13);
                properties.extend_from_slice(&seconds.to_be_bytes());
            }
            let mut body = vec![0, Reason::Success.code()];
            varint(&mut body, properties.len());
            body.extend_from_slice(&properties);
            packet(out, 0x20, &body);
        }
    }
}

/// Appends a CONNACK that refuses, if this version has a word for the reason.
pub(super) fn connack_refusing(out: &mut Vec<u8>, version: Version, reason: Reason, said: &str) {
    let v4_code = match reason {
        Reason::UnsupportedProtocolVersion => 1,
        Reason::ClientIdentifierNotValid => 2,
        Reason::ServerUnavailable | Reason::ServerBusy | Reason::ServerShuttingDown => 3,
        Reason::BadUserNameOrPassword => 4,
        Reason::NotAuthorized => 5,
        _ => 0,
    };
    match version {
        Version::V4 if v4_code == 0 => {}
        Version::V4 => out.extend_from_slice(&[0x20, 2, 0, v4_code]),
        Version::V5 => {
            let mut body = vec![0, reason.code()];
            reason_string(&mut body, said);
            packet(out, 0x20, &body);
        }
    }
}

/// Appends a PUBACK. `said` is for a person to read, where the version and the client have room for it.
pub(super) fn puback(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: Reason, said: &str) {
    let [high, low] = packet_id.to_be_bytes();
    match (version, reason, said) {
        (Version::V4, ..) | (Version::V5, Reason::Success, _) => out.extend_from_slice(&[0x40, 2, high, low]),
        (Version::V5, reason, "") => out.extend_from_slice(&[0x40, 3, high, low, reason.code()]),
        (Version::V5, reason, said) => {
            let mut body = vec![high, low, reason.code()];
            reason_string(&mut body, said);
            packet(out, 0x40, &body);
        }
    }
}

/// Appends a SUBACK; `codes` are what was granted or why not, one for each filter.
pub(super) fn suback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[Result<u8, Reason>]) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(codes.iter().map(|code| match (code, version) {
        (Ok(qos), _) => *qos,
        (Err(_), Version::V4) => 0x80,
        (Err(reason), Version::V5) => reason.code(),
    }));
    packet(out, 0x90, &body);
}

/// Appends an UNSUBACK; `existed` says of each filter whether there was such a subscription.
pub(super) fn unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, existed: &[bool]) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
        body.extend(existed.iter().map(|existed| if *existed { 0x00 } else { 0x11 }));
    }
    packet(out, 0xb0, &body);
}

/// Appends a PINGRESP.
pub(super) fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends a DISCONNECT; before MQTT 5 a server has none and closes.
pub(super) fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason) {
    if version == Version::V5 {
        out.extend_from_slice(&[0xe0, 1, reason.code()]);
    }
}

/// A PUBLISH, of QoS 1 if it has a packet identifier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publish<'a> {
    pub topic: &'a str,
    pub packet_id: Option<u16>,
    pub retain: bool,
    /// As they lie in a packet, without their length; MQTT 3.1.1 has none.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

/// Appends a PUBLISH.
pub(super) fn publish(out: &mut Vec<u8>, version: Version, publish: &Publish<'_>) {
    let Publish { topic, packet_id, retain, properties, payload } = *publish;
    let mut body = Vec::with_capacity(topic.len() + properties.len() + payload.len() + 8);
    string(&mut body, topic);
    if let Some(packet_id) = packet_id {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        varint(&mut body, properties.len());
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(payload);
    packet(out, 0x30 | u8::from(packet_id.is_some()) << 1 | u8::from(retain), &body);
}

fn packet(out: &mut Vec<u8>, head: u8, body: &[u8]) {
    out.push(head);
    varint(out, body.len());
    out.extend_from_slice(body);
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(0x80 | u8::try_from(value & 0x7f).expect("seven bits"));
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(
        &u16::try_from(text.len()).expect("MQTT's strings are of two bytes' length").to_be_bytes(),
    );
    out.extend_from_slice(text.as_bytes());
}

/// The properties of a packet that has none but perhaps a reason string.
fn reason_string(body: &mut Vec<u8>, said: &str) {
    let mut end = said.len().min(SAID_LEN_MAX);
    while !said.is_char_boundary(end) {
        end -= 1;
    }
    if end == 0 {
        body.push(0);
        return;
    }
    varint(body, 3 + end);
    body.push(0x1f);
    string(body, &said[..end]);
}

#[cfg(test)]
mod tests {
    // An independent codec: rumqttd's panics on half of what servers send.
    use rumqttc::mqttbytes::v4;
    use rumqttc::v5::mqttbytes::v5::{
        ConnectReturnCode, Packet, PubAckReason, SubscribeReasonCode, UnsubAckReason,
    };

    use super::*;

    /// What a client's codec reads of it.
    fn read(out: &[u8]) -> Packet {
        let mut bytes = out.into();
        let packet = Packet::read(&mut bytes, Some(1000)).expect("a packet");
        assert!(bytes.is_empty(), "{bytes:?} is left over");
        packet
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn a_connack_tells_the_terms() {
        let terms = Terms {
            keep_alive_s: Some(60),
            receive_max: 1024,
            packet_bytes_max: 70_000,
            assigned_client_id: Some("auto-1"),
            wanted_session: true,
        };
        let out = written(|out| connack(out, Version::V5, &terms));
        let Packet::ConnAck(ack) = read(&out) else { panic!() };
        let properties = ack.properties.expect("properties");
        assert!(!ack.session_present);
        assert_eq!(ack.code, ConnectReturnCode::Success);
        assert_eq!((properties.receive_max, properties.max_qos), (Some(1024), Some(1)));
        assert_eq!((properties.max_packet_size, properties.server_keep_alive), (Some(70_000), Some(60)));
        assert_eq!(properties.assigned_client_identifier.as_deref(), Some("auto-1"));
        assert_eq!(
            (properties.session_expiry_interval, properties.shared_subscription_available),
            (Some(0), Some(0))
        );
        assert_eq!(written(|out| connack(out, Version::V4, &terms)), [0x20, 2, 0, 0]);
    }

    #[test]
    fn a_refused_connect_gets_what_its_version_can_say() {
        let refusing = |version, reason| written(|out| connack_refusing(out, version, reason, "no"));
        assert_eq!(refusing(Version::V4, Reason::BadUserNameOrPassword), [0x20, 2, 0, 4]);
        assert_eq!(refusing(Version::V4, Reason::QosNotSupported), Vec::<u8>::new());
        let Packet::ConnAck(ack) = read(&refusing(Version::V5, Reason::QosNotSupported)) else { panic!() };
        assert_eq!(ack.code, ConnectReturnCode::QoSNotSupported);
        assert_eq!(ack.properties.unwrap().reason_string.as_deref(), Some("no"));
    }

    #[test]
    fn a_puback_says_why_only_to_those_who_can_read_it() {
        let refusing = |version, said: &str| {
            written(|out| puback(out, version, 0x0102, Reason::PayloadFormatInvalid, said))
        };
        assert_eq!(refusing(Version::V4, "why"), [0x40, 2, 1, 2]);
        assert_eq!(refusing(Version::V5, ""), [0x40, 3, 1, 2, 0x99]);
        for said in ["why", &"ä".repeat(200)] {
            let Packet::PubAck(ack) = read(&refusing(Version::V5, said)) else { panic!() };
            let properties = ack.properties.expect("properties");
            assert_eq!((ack.pkid, ack.reason), (0x0102, PubAckReason::PayloadFormatInvalid));
            assert!(said.starts_with(properties.reason_string.as_deref().unwrap()));
        }
    }

    #[test]
    fn subscriptions_are_answered_filter_by_filter() {
        let codes = [Ok(1), Err(Reason::NotAuthorized), Ok(0)];
        assert_eq!(written(|out| suback(out, Version::V4, 7, &codes)), [0x90, 5, 0, 7, 1, 0x80, 0]);
        let out = written(|out| suback(out, Version::V5, 7, &codes));
        let Packet::SubAck(ack) = read(&out) else { panic!() };
        assert_eq!(ack.return_codes[1], SubscribeReasonCode::NotAuthorized);
        assert_eq!(ack.return_codes.len(), 3);
        assert_eq!(written(|out| unsuback(out, Version::V4, 7, &[true])), [0xb0, 2, 0, 7]);
        let out = written(|out| unsuback(out, Version::V5, 7, &[true, false]));
        let Packet::UnsubAck(ack) = read(&out) else { panic!() };
        assert_eq!(ack.reasons, [UnsubAckReason::Success, UnsubAckReason::NoSubscriptionExisted]);
    }

    #[test]
    fn a_long_payload_has_a_long_length() {
        let long =
            Publish { topic: "a/b", packet_id: None, retain: false, properties: &[], payload: &[7; 300] };
        let written_for = |version| written(|out| publish(out, version, &long));
        let Packet::Publish(publish) = read(&written_for(Version::V5)) else { panic!() };
        assert_eq!((&publish.topic[..], publish.payload.len()), (b"a/b".as_slice(), 300));
        let mut bytes = written_for(Version::V4).as_slice().into();
        let Ok(v4::Packet::Publish(publish)) = v4::Packet::read(&mut bytes, 1000) else { panic!() };
        assert_eq!((publish.topic.as_str(), publish.payload.len(), bytes.len()), ("a/b", 300, 0));
        assert_eq!(written(|out| disconnect(out, Version::V5, Reason::ServerShuttingDown)), [0xe0, 1, 0x8b]);
        assert_eq!(written(|out| disconnect(out, Version::V4, Reason::ServerShuttingDown)), Vec::<u8>::new());
    }
}
