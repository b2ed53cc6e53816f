//! Random scripts: packets that are right, or nearly, in any order, cut anywhere.

use std::time::{Duration, Instant};

use weir_contract::uplink::{self, Event, Header};

use super::*;

/// How many scripts a test run tries; `WEIR_SCRIPTS` is for more. `WEIR_SCRIPTS_TO` names a folder to keep them in.
const SCRIPTS: u64 = 6_000;
/// No script may take longer: what a client sends has no cost that grows faster than it.
const SCRIPT_MAX: Duration = Duration::from_secs(5);

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_a_client_sends_the_rules_of_mqtt_are_kept_and_nothing_is_acknowledged_before_it_is_stored() {
    let seed = number_from("WEIR_SEED").unwrap_or_else(|| fastrand::u64(..));
    let scripts = number_from("WEIR_SCRIPTS").unwrap_or(SCRIPTS);
    println!("WEIR_SEED={seed} WEIR_SCRIPTS={scripts}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sum = Report::default();
    let folder = std::env::var_os("WEIR_SCRIPTS_TO").map(std::path::PathBuf::from);
    for number in 0..scripts {
        let script = script(&mut random);
        if let Some(folder) = &folder {
            std::fs::write(folder.join(number.to_string()), &script)
                .expect("a folder for the fuzzer's first inputs");
        }
        let begun = Instant::now();
        let run = std::panic::catch_unwind(|| run(&script));
        let Ok(report) = run else { panic!("script {number} of WEIR_SEED={seed}: {script:02x?}") };
        assert!(begun.elapsed() < SCRIPT_MAX, "script {number} took {:?}", begun.elapsed());
        sum.connected += report.connected;
        sum.acknowledged += report.acknowledged;
        sum.stored += report.stored;
        sum.delivered += report.delivered;
        sum.granted += report.granted;
        sum.lasted += report.lasted;
        sum.closed += report.closed;
    }
    println!("{sum:?}");
    // A trial that comes to nothing proves nothing.
    let some = usize::try_from(scripts / 20).expect("a number");
    let least =
        [sum.connected, sum.acknowledged, sum.stored, sum.delivered, sum.granted, sum.lasted, sum.closed];
    assert!(least.iter().all(|count| *count > some), "{sum:?}");
}

fn script(random: &mut fastrand::Rng) -> Vec<u8> {
    let is_v5 = random.bool();
    let mut stream = connect(random, is_v5);
    for _ in 0..random.usize(0..40) {
        let mut packet = packet(random, is_v5);
        if random.u8(..) < 4 {
            spoil(random, &mut packet);
        }
        stream.extend(packet);
    }
    if random.u8(..) < 8 {
        spoil(random, &mut stream);
    }
    let mut script = vec![random.u8(..)];
    let mut rest = stream.as_slice();
    while !rest.is_empty() {
        let step = random.u8(0..14);
        if step < 8 {
            let (now, later) = rest.split_at(rest.len().min(usize::from(random.u8(..)) * 2 + 1));
            // The last one may be shorter than it says.
            let number = u8::try_from(now.len().div_ceil(2)).unwrap_or(u8::MAX);
            let (now, later) = match usize::from(number.saturating_sub(1)) * 2 + 1 {
                len if len <= now.len() => rest.split_at(len),
                _ => (now, later),
            };
            script.extend([0, number.saturating_sub(1)]);
            script.extend_from_slice(now);
            rest = later;
        } else {
            script.extend([4 + step % 4, random.u8(..)]);
        }
    }
    for _ in 0..random.usize(0..12) {
        script.extend([4 + random.u8(0..4), random.u8(..)]);
    }
    script
}

/// Flips, drops, doubles or adds a few bytes.
fn spoil(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 if at < bytes.len() => _ = bytes.remove(at),
            _ if at < bytes.len() => bytes[at] = random.u8(..),
            _ => {}
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("it is short").to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn framed(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut len = body.len();
    while len > 0x7f {
        packet.push(0x80 | u8::try_from(len & 0x7f).expect("seven bits"));
        len >>= 7;
    }
    packet.push(u8::try_from(len).expect("seven bits"));
    packet.extend_from_slice(body);
    packet
}

fn connect(random: &mut fastrand::Rng, is_v5: bool) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([if is_v5 { 5 } else { 4 }, 2, 0, 60]);
    if is_v5 {
        match random.u8(0..3) {
            0 => body.push(0),
            1 => body.extend([3, 0x21, 0, random.u8(1..8)]),
            _ => body.extend([8, 0x27, 0, 0, 0, random.u8(20..), 0x21, 0, 3]),
        }
    }
    body.extend(text(DEVICE));
    framed(0x10, &body)
}

fn packet(random: &mut fastrand::Rng, is_v5: bool) -> Vec<u8> {
    let filters =
        ["plant/#", "plant/+", "plant/a", "weir/1/+/events", "weir/1/dev-1/time", "weir/1/dev-1/#", "#"];
    let properties: &[&[u8]] = if is_v5 { &[&[0], &[0], &[2, 1, 1], &[5, 2, 0, 0, 0, 9]] } else { &[&[]] };
    let mut body = Vec::new();
    match random.u8(0..12) {
        0..=3 => {
            let id = random.u8(1..30);
            body.extend(text("weir/1/dev-1/events"));
            let qos = u8::from(random.u8(..) > 40);
            body.extend_from_slice(&[0, id][..2 * usize::from(qos)]);
            body.extend_from_slice(random.choice(properties).expect("several"));
            body.extend(uplink(random));
            framed(0x30 | qos << 1, &body)
        }
        4..=5 => {
            let topics = ["plant/a", "plant/b/c", "weir/1/dev-1/events", "elsewhere", "$x/y"];
            let allowed = if random.u8(..) < 10 { 5 } else { 3 };
            let topic = topics[random.usize(0..allowed)];
            body.extend(text(topic));
            let qos = u8::from(random.bool());
            body.extend_from_slice(&[0, random.u8(1..30)][..2 * usize::from(qos)]);
            body.extend_from_slice(random.choice(properties).expect("several"));
            body.resize(body.len() + random.usize(0..300), b'y');
            framed(0x30 | qos << 1 | u8::from(random.bool()), &body)
        }
        6..=7 => {
            body.extend([0, random.u8(1..30)]);
            body.extend_from_slice(&[0][..usize::from(is_v5)]);
            for _ in 0..random.usize(1..3) {
                body.extend(text(random.choice(filters).expect("several")));
                body.push(random.u8(0..3) | if is_v5 { random.u8(0..12) << 2 } else { 0 });
            }
            framed(0x82, &body)
        }
        8 => {
            body.extend([0, random.u8(1..30)]);
            body.extend_from_slice(&[0][..usize::from(is_v5)]);
            body.extend(text(random.choice(filters).expect("several")));
            framed(0xa2, &body)
        }
        9..=10 => framed(0x40, &[if random.u8(..) < 30 { 0x80 } else { 0 }, random.u8(1..12)]),
        _ => vec![0xc0, 0],
    }
}

fn uplink(random: &mut fastrand::Rng) -> Vec<u8> {
    let event = Event {
        seq: random.u32(1..1000),
        at: 5,
        kind: "reading-taken".parse().expect("a kind"),
        version: 1,
        body: &[0xa0],
    };
    let header = Header { boot: 1, now: Some(9), epoch: None, via: None };
    let mut bytes = [0; 200];
    let len = uplink::write(&mut bytes, &header, [event].into_iter()).expect("there is room");
    bytes[..len].to_vec()
}
