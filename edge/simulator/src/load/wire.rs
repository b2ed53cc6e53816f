//! As much of MQTT 3.1.1 (OASIS 2014) as a publisher of QoS 1 needs.

/// DISCONNECT.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];
/// PINGREQ.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];

/// A packet that has come from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    /// The connection is accepted (0) or refused.
    ConnAck {
        code: u8,
    },
    /// A publish is acknowledged.
    PubAck {
        id: u16,
    },
    Other,
}

/// What has come is no MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoMqtt;

/// CONNECT with a clean session.
pub(super) fn connect(client_id: &str, keep_alive_s: u16, login: Option<&(String, String)>) -> Vec<u8> {
    let mut rest = Vec::new();
    text(&mut rest, "MQTT");
    let flags = 0x02 | if login.is_some() { 0xc0 } else { 0 };
    rest.extend([4, flags]);
    rest.extend(keep_alive_s.to_be_bytes());
    text(&mut rest, client_id);
    if let Some((username, password)) = login {
        text(&mut rest, username);
        text(&mut rest, password);
    }
    let mut packet = vec![0x10];
    length(&mut packet, rest.len());
    packet.extend(rest);
    packet
}

/// The head of a PUBLISH of QoS 1 whose payload has `payload_len` bytes, up to and without the packet identifier.
pub(super) fn publish_head(topic: &str, payload_len: usize) -> Vec<u8> {
    let mut packet = vec![0x32];
    length(&mut packet, 2 + topic.len() + 2 + payload_len);
    text(&mut packet, topic);
    packet
}

/// Reads whole packets from the beginning of `bytes`; returns how many bytes they were.
pub(super) fn read_packets(bytes: &[u8], mut read: impl FnMut(Packet)) -> Result<usize, NoMqtt> {
    let mut start = 0;
    // The common case first: PUBACKs, one after the other.
    loop {
        while let Some(&[0x40, 2, high, low]) = bytes.get(start..start + 4) {
            read(Packet::PubAck { id: u16::from_be_bytes([high, low]) });
            start += 4;
        }
        let Some((head_len, rest_len)) = packet_len(&bytes[start..])? else { return Ok(start) };
        let Some(rest) = bytes.get(start + head_len..start + head_len + rest_len) else { return Ok(start) };
        read(match (bytes[start], rest) {
            (0x20, &[_, code]) => Packet::ConnAck { code },
            (0x40 | 0x20, _) => return Err(NoMqtt),
            _ => Packet::Other,
        });
        start += head_len + rest_len;
    }
}

/// Length of the fixed header and of the rest; `None` if there is no whole header yet.
fn packet_len(bytes: &[u8]) -> Result<Option<(usize, usize)>, NoMqtt> {
    let mut rest_len = 0;
    for place in 0..4 {
        let Some(&byte) = bytes.get(1 + place) else { return Ok(None) };
        rest_len |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + place, rest_len)));
        }
    }
    Err(NoMqtt)
}

fn text(packet: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names and passwords are short");
    packet.extend(len.to_be_bytes());
    packet.extend(text.as_bytes());
}

fn length(packet: &mut Vec<u8>, mut len: usize) {
    loop {
        let low = u8::try_from(len & 0x7f).expect("seven bits");
        len >>= 7;
        packet.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_wherever_the_stream_is_cut() {
        let mut stream = vec![0x20, 2, 0, 0, 0x40, 2, 0, 1, 0xd0, 0, 0x40, 2, 0xff, 0xff];
        stream.extend([0x30, 0x83, 0x01]);
        stream.extend([7; 131]);
        stream.extend([0x40, 2, 0, 2]);
        let expected = [
            Packet::ConnAck { code: 0 },
            Packet::PubAck { id: 1 },
            Packet::Other,
            Packet::PubAck { id: 0xffff },
            Packet::Other,
            Packet::PubAck { id: 2 },
        ];
        for cut in 0..=stream.len() {
            let mut packets = vec![];
            let first = read_packets(&stream[..cut], |packet| packets.push(packet)).expect("MQTT");
            let second = read_packets(&stream[first..], |packet| packets.push(packet)).expect("MQTT");
            assert_eq!((packets.as_slice(), first + second), (&expected[..], stream.len()), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_mqtt_is_told() {
        assert_eq!(read_packets(&[0x30, 0xff, 0xff, 0xff, 0xff, 1], |_| {}), Err(NoMqtt));
        assert_eq!(read_packets(&[0x40, 1, 0], |_| {}), Err(NoMqtt));
    }

    #[test]
    fn connect_is_as_the_standard_says() {
        let login = ("u".to_string(), "pw".to_string());
        let expected = b"\x10\x14\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a\x00\x01u\x00\x02pw";
        assert_eq!(connect("a", 60, Some(&login)), expected);
    }
}
