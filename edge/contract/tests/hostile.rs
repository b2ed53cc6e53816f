//! Nothing that comes in can make a reader panic, or accept what does not hold together.

use ciborium::Value;
use ciborium::de::Error;

use crate::support::corpus;
use crate::support::readers::{self, ReadAs};
use crate::support::seed;

const INPUTS: usize = 1_000_000;

#[test]
fn reading_never_panics_whatever_the_bytes() {
    let corpus = frozen_bytes();
    let mut random = fastrand::Rng::with_seed(seed());
    let mut tally = Tally::default();
    for _ in 0..INPUTS {
        let input = hostile(&corpus, &mut random);
        let outcome = std::panic::catch_unwind(|| readers::read(&input));
        let read_as = outcome.unwrap_or_else(|_| panic!("at {}", hex(&input)));
        if read_as.anything() {
            assert_well_formed(&input);
        }
        tally.count(read_as);
    }
    println!("{tally:?} of {INPUTS}");
    // Else the mutations are so crude that they test nothing but the first bytes.
    let least = tally.uplinks.min(tally.segments).min(tally.bodies).min(tally.commands).min(tally.times);
    assert!(least > INPUTS / 1000, "too few inputs are accepted: {tally:?}");
}

#[test]
fn frozen_bytes_are_read_as_what_they_are() {
    for bytes in frozen_bytes() {
        assert!(readers::read(&bytes).anything(), "{}", hex(&bytes));
    }
}

#[test]
fn names_are_read_from_any_text() {
    let mut random = fastrand::Rng::with_seed(seed());
    let words = [
        "weir/1/",
        "weir.1.segments.",
        "weir.1.commands.",
        "site",
        "pump-7",
        "/events",
        "/time",
        "/commands",
        "/",
        ".",
        ">",
        "*",
        "+",
        "#",
        "é",
        "$SYS",
        "\0",
        "",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345",
        "main",
    ];
    for _ in 0..100_000 {
        let text: String = (0..random.usize(0..9)).map(|_| *random.choice(&words).expect("one")).collect();
        readers::read(text.as_bytes());
    }
}

#[derive(Debug, Default)]
struct Tally {
    uplinks: usize,
    segments: usize,
    bodies: usize,
    commands: usize,
    times: usize,
}

impl Tally {
    fn count(&mut self, read: ReadAs) {
        self.uplinks += usize::from(read.uplink);
        self.segments += usize::from(read.segment);
        self.bodies += usize::from(read.body);
        self.commands += usize::from(read.command);
        self.times += usize::from(read.time);
    }
}

/// What we accept, ciborium must find well-formed.
fn assert_well_formed(input: &[u8]) {
    match ciborium::from_reader::<Value, _>(input) {
        Err(error @ (Error::Io(_) | Error::Syntax(_))) => panic!("ciborium: {error:?} in {}", hex(input)),
        // Well-formed, but beyond what a `Value` can hold: simple values, odd bignums.
        Err(Error::Semantic(..) | Error::RecursionLimitExceeded) | Ok(_) => {}
    }
}

pub fn frozen_bytes() -> Vec<Vec<u8>> {
    let ours = corpus::names("").into_iter();
    let others = corpus::names("also-read").into_iter().map(|name| format!("also-read/{name}"));
    ours.chain(others).map(|name| corpus::bytes(&name)).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Noise now and then, mostly frozen bytes with up to four things done to them.
pub fn hostile(corpus: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    if random.u8(0..10) == 0 {
        return noise(random);
    }
    let mut bytes = random.choice(corpus).expect("frozen bytes").clone();
    // The large ones now and then only: they are slow and no more telling.
    if bytes.len() > 1000 && random.u8(0..20) > 0 {
        bytes = random.choice(corpus).expect("frozen bytes").clone();
    }
    for _ in 0..random.usize(1..=4) {
        mutate(&mut bytes, corpus, random);
    }
    bytes
}

/// Bytes that look like CBOR more often than chance has it.
fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let head = |random: &mut fastrand::Rng| random.u8(0..8) << 5 | random.u8(0..6);
    let len = random.usize(0..64);
    (0..len).map(|_| if random.bool() { head(random) } else { random.u8(..) }).collect()
}

/// Items and heads that have broken readers before.
const NASTY: [&[u8]; 24] = [
    b"\x00",
    b"\x18\x00",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x1c",
    b"\x1f",
    b"\x5f",
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7f\x60\xff",
    b"\x7f\x61\xff\xff",
    b"\x62\xc3\x28",
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x9f",
    b"\xbf",
    b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\xd9\xd9\xf7",
    b"\xf6",
    b"\xf7",
    b"\xf8\x18",
    b"\xf9\x7e\x00",
    b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xff",
];

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(0..=bytes.len());
    let to = random.usize(at..=bytes.len().min(at + 40));
    match random.u8(0..12) {
        // Nothing: what is whole is to be read, too.
        0 => {}
        1 => bytes.truncate(at),
        2 => {
            bytes.drain(at..to);
        }
        3 => {
            let copy = bytes[at..to].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => {
            bytes.splice(at..to, random.choice(&NASTY).expect("one").iter().copied());
        }
        5 => {
            bytes.splice(at..at, random.choice(&NASTY).expect("one").iter().copied());
        }
        6 => {
            // The end of another.
            let other = random.choice(corpus).expect("frozen bytes");
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.usize(0..=other.len())..]);
        }
        7 => {
            // The depth.
            let wrap = *random.choice(b"\x81\xc1\x9f\xa1").expect("one");
            bytes.splice(at..at, std::iter::repeat_n(wrap, random.usize(1..40)));
        }
        8 => {
            // Definite becomes indefinite.
            if let Some(head) = bytes.get_mut(at).filter(|head| (0x40..0xc0).contains(*head)) {
                *head |= 0x1f;
                bytes.insert(to.max(at + 1), 0xff);
            }
        }
        9 => {
            // One more or less: lengths, counts, numbers.
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if random.bool() { byte.wrapping_add(1) } else { byte.wrapping_sub(1) };
            }
        }
        10 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.u8(..);
            }
        }
    }
}
