//! A writer with foreign habits: everything CBOR allows that ours never does, and what later versions may add.
//!
//! Bytes are put together here by hand, from RFC 8949 §3.

use ciborium::Value;

use super::messages::keys;

/// Encodes `value`, choosing among all the ways at random.
pub fn encode(value: &Value, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut writer = Writer { out: Vec::new(), random };
    writer.item(value);
    writer.out
}

/// An array that a later version has added to.
pub fn grown_array(array: Value, random: &mut fastrand::Rng) -> Value {
    let Value::Array(mut items) = array else { panic!("{array:?} is no array") };
    items.extend((0..random.usize(0..3)).map(|_| news(random)));
    Value::Array(items)
}

/// A map that a later version has added to, and in another order: neither means anything.
pub fn grown_map(map: Value, random: &mut fastrand::Rng) -> Value {
    let taken = keys(&map).len();
    let Value::Map(mut entries) = map else { panic!("{map:?} is no map") };
    entries.extend((0..random.usize(0..3)).map(|i| (Value::from(format!("x-{taken}-{i}")), news(random))));
    random.shuffle(&mut entries);
    Value::Map(entries)
}

/// What nobody has heard of yet.
fn news(random: &mut fastrand::Rng) -> Value {
    match random.u8(0..7) {
        0 => Value::Null,
        1 => Value::from(random.u64(..)),
        2 => Value::Bytes(vec![0xff; random.usize(0..300)]),
        3 => Value::from("later"),
        4 => Value::Tag(1, Box::new(Value::Float(random.f64()))),
        5 => Value::Array(vec![Value::Bool(true), Value::Map(vec![(Value::from(1), Value::from(-1))])]),
        _ => Value::Map(vec![]),
    }
}

struct Writer<'r> {
    out: Vec<u8>,
    random: &'r mut fastrand::Rng,
}

impl Writer<'_> {
    fn item(&mut self, value: &Value) {
        match value {
            Value::Integer(integer) => {
                let integer = i128::from(*integer);
                if integer < 0 {
                    self.head(1, u64::try_from(-1 - integer).expect("64 bits"));
                } else {
                    self.head(0, u64::try_from(integer).expect("64 bits"));
                }
            }
            Value::Bytes(bytes) => {
                let cuts = self.cuts(bytes.len(), |_| true);
                self.string(2, bytes, &cuts);
            }
            Value::Text(text) => {
                // A chunk is text by itself: no character is cut (§3.2.3).
                let cuts = self.cuts(text.len(), |at| text.is_char_boundary(at));
                self.string(3, text.as_bytes(), &cuts);
            }
            Value::Array(items) => {
                self.container(4, items.len(), |writer| items.iter().for_each(|item| writer.item(item)));
            }
            Value::Map(entries) => self.container(5, entries.len(), |writer| {
                for (key, value) in entries {
                    writer.item(key);
                    writer.item(value);
                }
            }),
            Value::Tag(tag, item) => {
                self.head(6, *tag);
                self.item(item);
            }
            Value::Float(float) => self.float(*float),
            Value::Bool(bool) => self.out.push(if *bool { 0xf5 } else { 0xf4 }),
            Value::Null => self.out.push(0xf6),
            other => panic!("no foreign form of {other:?}"),
        }
    }

    /// A head of any length that holds `argument`.
    fn head(&mut self, major: u8, argument: u64) {
        let shortest = match argument {
            0..24 => 0,
            24..0x100 => 1,
            0x100..0x1_0000 => 2,
            0x1_0000..0x1_0000_0000 => 3,
            _ => 4,
        };
        let bytes = argument.to_be_bytes();
        match self.random.u8(shortest..=4) {
            0 => self.out.push(major << 5 | bytes[7]),
            length => {
                self.out.push(major << 5 | (23 + length));
                self.out.extend_from_slice(&bytes[8 - (1 << (length - 1))..]);
            }
        }
    }

    fn string(&mut self, major: u8, bytes: &[u8], cuts: &[usize]) {
        if self.random.bool() {
            self.head(major, bytes.len() as u64);
            self.out.extend_from_slice(bytes);
            return;
        }
        self.out.push(major << 5 | 31);
        let mut start = 0;
        for &end in cuts {
            self.head(major, (end - start) as u64);
            self.out.extend_from_slice(&bytes[start..end]);
            start = end;
        }
        self.out.push(0xff);
    }

    /// Where chunks end, in order, the last at `len`; some chunks are empty, and there may be none of nothing.
    fn cuts(&mut self, len: usize, allowed: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut cuts: Vec<_> = (0..self.random.usize(0..4)).map(|_| self.random.usize(0..=len)).collect();
        cuts.retain(|&at| allowed(at));
        if len > 0 {
            cuts.push(len);
        }
        cuts.sort_unstable();
        cuts
    }

    fn container(&mut self, major: u8, len: usize, inside: impl FnOnce(&mut Self)) {
        if self.random.bool() {
            self.head(major, len as u64);
            inside(self);
        } else {
            self.out.push(major << 5 | 31);
            inside(self);
            self.out.push(0xff);
        }
    }

    /// A float of any length that keeps the value.
    fn float(&mut self, float: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "compared with the original below")]
        let single = float as f32;
        let mut forms = vec![[&[0xfb][..], &float.to_be_bytes()].concat()];
        if f64::from(single).to_bits() == float.to_bits() {
            forms.push([&[0xfa][..], &single.to_be_bytes()].concat());
        }
        let shortest = super::cbor(&Value::Float(float));
        forms.push(shortest);
        let form = self.random.choice(&forms).expect("one at least");
        self.out.extend_from_slice(form);
    }
}
