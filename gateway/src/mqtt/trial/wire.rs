//! Packets as rumqttc reads them, of either version and either side.

use bytes::BytesMut;
use rumqttc::mqttbytes as v4bytes;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes as v5bytes;
use rumqttc::v5::mqttbytes::v5;

use crate::mqtt::frame::Version;

/// Longer than any packet here.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// What matters of a packet.
#[derive(Debug)]
pub(super) enum Packet {
    Connack { accepted: bool },
    Publish { qos: u8, id: u16, topic: Vec<u8>, payload: Vec<u8> },
    Puback { id: u16, ok: bool },
    Subscribe { id: u16, filters: Vec<String> },
    Suback { id: u16, granted: Vec<Option<u8>> },
    Unsubscribe { id: u16, filters: Vec<String> },
    Unsuback { id: u16 },
    Ping,
    Pong,
    Disconnect,
    Other,
}

/// Bytes in one direction.
pub(super) struct Wire {
    version: Version,
    bytes: BytesMut,
}

impl Wire {
    pub fn new(version: Version) -> Wire {
        Wire { version, bytes: BytesMut::new() }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are not read.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next packet, if it is all there; what cannot be read is an error.
    pub fn next(&mut self) -> Option<Result<Packet, String>> {
        if self.bytes.is_empty() {
            return None;
        }
        let packet = match self.version {
            Version::V4 => match v4::Packet::read(&mut self.bytes, PACKET_BYTES_MAX as usize) {
                Err(v4bytes::Error::InsufficientBytes(_)) => return None,
                packet => packet.map(of_v4).map_err(|error| error.to_string()),
            },
            Version::V5 => match v5::Packet::read(&mut self.bytes, Some(PACKET_BYTES_MAX)) {
                Err(v5bytes::Error::InsufficientBytes(_)) => return None,
                packet => packet.map(of_v5).map_err(|error| error.to_string()),
            },
        };
        Some(packet)
    }
}

fn of_v4(packet: v4::Packet) -> Packet {
    match packet {
        v4::Packet::ConnAck(ack) => Packet::Connack { accepted: ack.code == v4::ConnectReturnCode::Success },
        v4::Packet::Publish(publish) => Packet::Publish {
            qos: publish.qos as u8,
            id: publish.pkid,
            topic: publish.topic.into_bytes(),
            payload: publish.payload.to_vec(),
        },
        v4::Packet::PubAck(ack) => Packet::Puback { id: ack.pkid, ok: true },
        v4::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| filter.path).collect(),
        },
        v4::Packet::SubAck(ack) => {
            let granted = |code| match code {
                v4::SubscribeReasonCode::Success(qos) => Some(qos as u8),
                v4::SubscribeReasonCode::Failure => None,
            };
            Packet::Suback { id: ack.pkid, granted: ack.return_codes.into_iter().map(granted).collect() }
        }
        v4::Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.topics }
        }
        v4::Packet::UnsubAck(ack) => Packet::Unsuback { id: ack.pkid },
        v4::Packet::PingReq => Packet::Ping,
        v4::Packet::PingResp => Packet::Pong,
        v4::Packet::Disconnect => Packet::Disconnect,
        _ => Packet::Other,
    }
}

fn of_v5(packet: v5::Packet) -> Packet {
    match packet {
        v5::Packet::ConnAck(ack) => Packet::Connack { accepted: ack.code == v5::ConnectReturnCode::Success },
        v5::Packet::Publish(publish) => Packet::Publish {
            qos: publish.qos as u8,
            id: publish.pkid,
            topic: publish.topic.to_vec(),
            payload: publish.payload.to_vec(),
        },
        v5::Packet::PubAck(ack) => {
            Packet::Puback { id: ack.pkid, ok: ack.reason == v5::PubAckReason::Success }
        }
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| filter.path).collect(),
        },
        v5::Packet::SubAck(ack) => {
            let granted = |code| match code {
                v5::SubscribeReasonCode::Success(qos) => Some(qos as u8),
                _ => None,
            };
            Packet::Suback { id: ack.pkid, granted: ack.return_codes.into_iter().map(granted).collect() }
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        v5::Packet::UnsubAck(ack) => Packet::Unsuback { id: ack.pkid },
        v5::Packet::PingReq(_) => Packet::Ping,
        v5::Packet::PingResp(_) => Packet::Pong,
        v5::Packet::Disconnect(_) => Packet::Disconnect,
        _ => Packet::Other,
    }
}
