//! Uplinks without encoding: a PUBLISH packet made once, into which numbers and times are written.

use weir_contract::{Id, topic};

use super::wire;

/// Times in an uplink, in ms since boot, must take five bytes of CBOR: boots are this old when they begin to publish.
pub(super) const AGE_MS_MIN: u64 = 100_000;

/// The PUBLISH packet of one client's uplinks: readings of a temperature, one per event.
pub(super) struct Template {
    device: Id,
    boot: u64,
    epoch: u64,
    batch: u32,
    /// Bytes by which each event is longer than it must be.
    padding: Vec<u8>,
    packet: Vec<u8>,
    packet_id_at: usize,
    now_at: usize,
    events: Vec<Places>,
    /// Bytes that the numbers of the first and the last event take in `packet`.
    widths: (usize, usize),
}

/// Where in the packet the things stand that change.
#[derive(Clone, Copy)]
struct Places {
    seq: usize,
    at: usize,
    value: usize,
}

impl Template {
    /// For uplinks of `batch` events and about `payload_len` bytes (more, if that is too short).
    pub(super) fn new(
        device: Id,
        boot: u64,
        epoch: u64,
        batch: u32,
        payload_len: usize,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut template = Self {
            device,
            boot,
            epoch,
            batch,
            padding: Vec::new(),
            packet: Vec::new(),
            packet_id_at: 0,
            now_at: 0,
            events: Vec::new(),
            widths: (0, 0),
        };
        // The length asked for is reached with numbers of three bytes and of five alike, but for two bytes.
        template.build(u32::MAX / 2);
        let short_by = payload_len.saturating_sub(template.payload_len()) / batch as usize;
        template.padding =
            std::iter::repeat_with(|| rng.alphanumeric()).take(short_by).map(|c| c as u8).collect();
        template.build(1);
        template
    }

    /// Bytes of the payload as it stands.
    pub(super) fn payload_len(&self) -> usize {
        self.packet.len() - self.packet_id_at - 2
    }

    /// Appends the uplink whose first event is `first`, observed at `at` and sent at `now` (ms since boot).
    pub(super) fn write(&mut self, out: &mut Vec<u8>, packet_id: u16, first: u32, at: u32, now: u32) {
        let last = first + (self.batch - 1);
        let widths = (seq_width(first), seq_width(last));
        if widths != self.widths || widths.0 != widths.1 {
            self.build(first);
        }
        put(&mut self.packet, self.packet_id_at, packet_id.to_be_bytes());
        put(&mut self.packet, self.now_at, now.to_be_bytes());
        for (&Places { seq, at: at_place, value }, number) in self.events.iter().zip(first..) {
            put_seq(&mut self.packet, seq, number);
            put(&mut self.packet, at_place, at.to_be_bytes());
            put(&mut self.packet, value, temperature(number).to_be_bytes());
        }
        out.extend_from_slice(&self.packet);
    }

    /// Makes the packet anew, for numbers from `first` on.
    fn build(&mut self, first: u32) {
        let mut payload = vec![0x84, 0x1b];
        payload.extend(self.boot.to_be_bytes());
        payload.push(0x1a);
        let now_at = payload.len();
        payload.extend([0; 4]);
        payload.push(0x1b);
        payload.extend(self.epoch.to_be_bytes());
        head(&mut payload, 0x80, self.batch as usize);
        let mut events = Vec::with_capacity(self.batch as usize);
        for number in first..first + self.batch {
            events.push(self.event(&mut payload, number));
        }
        self.packet = wire::publish_head(&topic::events(&self.device), payload.len());
        self.packet_id_at = self.packet.len();
        self.packet.extend([0; 2]);
        let start = self.packet.len();
        self.packet.extend(payload);
        self.now_at = start + now_at;
        let place = |p: Places| Places { seq: start + p.seq, at: start + p.at, value: start + p.value };
        self.events = events.into_iter().map(place).collect();
        self.widths = (seq_width(first), seq_width(first + (self.batch - 1)));
    }

    /// `[seq, at, "reading-taken", 1, {"sensor": …, "value": …, "unit": "Cel"}]`, padded by a longer name or a note.
    fn event(&self, payload: &mut Vec<u8>, number: u32) -> Places {
        payload.push(0x85);
        let seq = payload.len();
        payload.resize(seq + seq_width(number), 0);
        put_seq(payload, seq, number);
        payload.push(0x1a);
        let at = payload.len();
        payload.extend([0; 4]);
        payload.extend(b"\x6dreading-taken\x01");
        let (suffix, note) =
            if self.padding.len() <= 12 { (&self.padding[..], None) } else { (&[][..], Some(&self.padding)) };
        payload.push(0xa3 + u8::from(note.is_some()));
        payload.extend(b"\x66sensor");
        head(payload, 0x60, 11 + suffix.len());
        payload.extend(b"temperature");
        payload.extend(suffix);
        payload.extend(b"\x65value\xfb");
        let value = payload.len();
        payload.extend([0; 8]);
        payload.extend(b"\x64unit\x63Cel");
        if let Some(note) = note {
            payload.extend(b"\x64note");
            // The whole entry is as long as the padding (at two lengths a byte shorter: no text head fits them).
            let head_len = match note.len() {
                0..30 => 1,
                30..263 => 2,
                _ => 3,
            };
            let text = &note[5 + head_len..];
            head(payload, 0x60, text.len());
            payload.extend(text);
        }
        Places { seq, at, value }
    }
}

/// What the sensor read when it made this event: never the same twice in a row, two decimals, not short in binary.
fn temperature(number: u32) -> f64 {
    20.0 + f64::from(number.wrapping_mul(7919) % 997) / 100.0 + 0.001
}

/// Bytes of a number in shortest CBOR.
fn seq_width(seq: u32) -> usize {
    match seq {
        0..24 => 1,
        24..256 => 2,
        256..65_536 => 3,
        _ => 5,
    }
}

fn put_seq(bytes: &mut [u8], at: usize, seq: u32) {
    let [a, b, c, d] = seq.to_be_bytes();
    match seq {
        0..24 => bytes[at] = d,
        24..256 => put(bytes, at, [0x18, d]),
        256..65_536 => put(bytes, at, [0x19, c, d]),
        _ => put(bytes, at, [0x1a, a, b, c, d]),
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// The head of an array or text of `len`, in shortest CBOR.
fn head(bytes: &mut Vec<u8>, major: u8, len: usize) {
    let len = u16::try_from(len).expect("an uplink is shorter");
    let [high, low] = len.to_be_bytes();
    match len {
        0..24 => bytes.push(major | low),
        24..256 => bytes.extend([major | 24, low]),
        _ => bytes.extend([major | 25, high, low]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_contract::body::{Body, Scalar};
    use weir_contract::uplink::Uplink;

    /// The payload of a PUBLISH, after checks of what stands before it.
    fn payload<'p>(packet: &'p [u8], topic: &str, packet_id: u16) -> &'p [u8] {
        assert_eq!(packet[0], 0x32);
        let topic_at =
            packet.windows(topic.len()).position(|window| window == topic.as_bytes()).expect("a topic");
        let id_at = topic_at + topic.len();
        assert_eq!(packet[id_at..id_at + 2], packet_id.to_be_bytes());
        &packet[id_at + 2..]
    }

    #[test]
    fn every_uplink_is_as_the_contract_says_and_as_long_as_asked_for() {
        let device: Id = "load-0001".parse().expect("a name");
        for (batch, payload_len) in
            [(1, 100), (1, 90), (1, 107), (1, 109), (1, 125), (1, 400), (1, 60_000), (7, 1000), (256, 20_000)]
        {
            let mut rng = fastrand::Rng::with_seed(1);
            let mut template = Template::new(device, 99, 1_800_000_000_000, batch, payload_len, &mut rng);
            let firsts = (1..40).chain(200..300).chain(65_400..65_600).chain([70_000, 4_000_000_000]);
            // Back again, as after a reconnect.
            for first in firsts.chain([3, 65_530, 1]) {
                let mut packet = vec![];
                template.write(&mut packet, 0x1234, first, 200_000, 200_007);
                let payload = payload(&packet, &topic::events(&device), 0x1234);
                let uplink = Uplink::read(payload).expect("as the contract says");
                let header = uplink.header;
                assert_eq!(
                    (header.boot, header.now, header.epoch),
                    (99, Some(200_007), Some(1_800_000_000_000))
                );
                assert_eq!((uplink.first_seq(), uplink.len()), (first, batch as usize));
                for event in uplink.events() {
                    assert_eq!(event.at, 200_000);
                    let body = Body::read(&event.kind, event.version, event.body).expect("a good body");
                    let Some(Body::ReadingTaken { value: Scalar::Float(value), .. }) = body else {
                        panic!("{body:?}")
                    };
                    assert!((20.0..30.0).contains(&value));
                }
                assert_eq!(payload.len(), template.payload_len());
                if first >= 65_536 && payload_len > 95 && batch < 200 {
                    let error = payload_len.abs_diff(payload.len());
                    assert!(error <= batch as usize, "{} bytes, not {payload_len}", payload.len());
                }
            }
        }
    }
}
