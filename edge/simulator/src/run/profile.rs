//! What simulated devices observe: each by sensors of its own, whose period and limit commands can change.

use clap::ValueEnum;
use fastrand::Rng;
use weir_contract::body::{Body, Scalar};
use weir_contract::{Id, Kind};
use weir_device::{Agent, SENSORS_MAX, Sensor, Settings, Threshold};

/// What kind of values devices report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Readings of temperature, humidity, pressure and voltage that wander, and a limit they cross
    Numeric,
    /// Words: what doors, pumps and machines say
    Text,
    /// Both, switches, and events of a kind the contract does not know
    Mixed,
}

const SENSORS: [(&str, &str, f64, f64); 4] = [
    ("temperature", "Cel", 21.0, 0.2),
    ("humidity", "%RH", 45.0, 0.5),
    ("pressure", "Pa", 101_325.0, 8.0),
    ("battery", "V", 3.7, 0.01),
];
const SENSORS_LEN: usize = SENSORS.len();
const WORDS: [(&str, &[&str]); 3] = [
    ("door", &["open", "closed", "ajar", "locked"]),
    ("pump", &["idle", "priming", "running", "dry", "überhitzt"]),
    ("display", &["ready", "please wait", "call service", "温度が高い"]),
];

/// What a switch reads.
const SWITCH: &str = "switch";

/// A device's sensors and what commands have made of them.
pub(crate) type SimAgent = Agent<SENSORS_MAX>;

impl Profile {
    /// The sensors of a device that reads each of them every `period_ms`.
    pub(crate) fn sensors(self, period_ms: u32) -> Vec<Sensor> {
        let sensor = |which: usize, name_: &str, unit| Sensor {
            name: name(name_),
            unit,
            change_min: 0.0,
            silence_ms_max: u64::MAX,
            settings: Settings {
                period_ms,
                limit: (which == 0 && unit.is_some())
                    .then_some(Threshold { limit: SENSORS[0].2 + 0.5, hysteresis: 0.3 }),
            },
        };
        let numbers =
            SENSORS.iter().enumerate().map(|(which, (name, unit, ..))| sensor(which, name, Some(*unit)));
        let words = WORDS.iter().enumerate().map(|(which, (name, _))| sensor(which, name, None));
        match self {
            Profile::Numeric => numbers.collect(),
            Profile::Text => words.collect(),
            Profile::Mixed => numbers.chain(words).chain([sensor(1, SWITCH, None)]).collect(),
        }
    }

    /// From how many places in a device events come: its sensors, and what else happens in it.
    pub(crate) fn sources(self) -> usize {
        match self {
            Profile::Numeric => SENSORS.len(),
            Profile::Text => WORDS.len(),
            Profile::Mixed => SENSORS.len() + WORDS.len() + 2,
        }
    }
}

/// One event to emit.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) kind: Kind,
    pub(crate) version: u16,
    /// CBOR.
    pub(crate) body: Vec<u8>,
}

/// The source of one device's events.
#[derive(Debug)]
pub(crate) struct Observer {
    profile: Profile,
    body_len_min: usize,
    rng: Rng,
    values: [f64; SENSORS.len()],
    /// A crossing that has been seen and not reported yet.
    crossing: Option<Observation>,
}

impl Observer {
    pub(crate) fn new(profile: Profile, body_len_min: usize, rng: Rng) -> Self {
        let values = SENSORS.map(|(_, _, start, _)| start);
        Self { profile, body_len_min, rng, values, crossing: None }
    }

    /// The first event of a boot.
    pub(crate) fn started(&self, reason: &str) -> Observation {
        let fw = concat!("sim-", env!("CARGO_PKG_VERSION"));
        self.observation(&Body::DeviceStarted {
            fw: fw.into(),
            hw: "simulator".into(),
            reason: reason.into(),
        })
    }

    /// The next event from one of the device's [`Profile::sources`].
    pub(crate) fn observe(&mut self, source: usize, agent: &mut SimAgent) -> Observation {
        const WORDS_END: usize = SENSORS.len() + WORDS.len();
        match (self.profile, source) {
            (Profile::Numeric, which) | (Profile::Mixed, which @ 0..SENSORS_LEN) => self.number(which, agent),
            (Profile::Text, which) => self.word(which),
            (Profile::Mixed, which @ SENSORS_LEN..WORDS_END) => self.word(which - SENSORS.len()),
            (Profile::Mixed, WORDS_END) => self.switch(),
            (Profile::Mixed, _) => self.unknown(),
        }
    }

    fn number(&mut self, which: usize, agent: &mut SimAgent) -> Observation {
        if let Some(crossing) = self.crossing.take() {
            return crossing;
        }
        let (sensor, unit, start, step) = SENSORS[which];
        // Wanders, and is drawn back to where it began. Sensors have few digits.
        let wandered = self.values[which] + (self.rng.f64() - 0.5) * 2.0 * step;
        let value = ((wandered + (start - wandered) * 0.02) * 100.0).round() / 100.0;
        self.values[which] = value;
        self.crossing = agent.watch(which, value).map(|crossed| self.observation(&crossed));
        self.observation(&Body::ReadingTaken {
            sensor: name(sensor),
            value: Scalar::Float(value),
            unit: Some(unit.into()),
        })
    }

    fn word(&mut self, which: usize) -> Observation {
        let (sensor, words) = WORDS[which];
        let word = words[self.rng.usize(..words.len())];
        self.observation(&Body::ReadingTaken {
            sensor: name(sensor),
            value: Scalar::Text(word.into()),
            unit: None,
        })
    }

    fn switch(&mut self) -> Observation {
        let value = if self.rng.bool() {
            Scalar::Bool(self.rng.bool())
        } else {
            Scalar::Int(self.rng.i64(-5..100_000))
        };
        self.observation(&Body::ReadingTaken { sensor: name(SWITCH), value, unit: None })
    }

    /// `{"n": …}`, of a kind that only this device knows.
    fn unknown(&mut self) -> Observation {
        let body = vec![0xa1, 0x61, b'n', self.rng.u8(..24)];
        let kind = "simulation-advanced".parse().expect("a kind");
        Observation { kind, version: 7, body: padded(body, self.body_len_min) }
    }

    fn observation(&self, body: &Body<'_>) -> Observation {
        let mut buffer = vec![0; 256];
        let len = body.write(&mut buffer).expect("the texts above are short");
        buffer.truncate(len);
        Observation { kind: body.kind(), version: body.version(), body: padded(buffer, self.body_len_min) }
    }
}

fn name(name: &str) -> Id {
    name.parse().expect("the names above are names")
}

/// Makes a body at least `len_min` long by one more entry, `"note"`, which readers ignore.
fn padded(mut body: Vec<u8>, len_min: usize) -> Vec<u8> {
    const KEY: [u8; 5] = [0x64, b'n', b'o', b't', b'e'];
    const TEXT_HEAD_MIN: usize = 1;
    let short_by = len_min.saturating_sub(body.len());
    if short_by == 0 {
        return body;
    }
    let note = short_by.saturating_sub(KEY.len() + TEXT_HEAD_MIN).min(usize::from(u16::MAX));
    // A map of fewer than 23 entries has its length in its first byte.
    body[0] += 1;
    body.extend(KEY);
    let note_len = u16::try_from(note).expect("limited above");
    match note_len {
        0..24 => body.push(0x60 | note_len.to_be_bytes()[1]),
        24..256 => body.extend([0x78, note_len.to_be_bytes()[1]]),
        _ => body.extend([&[0x79][..], &note_len.to_be_bytes()].concat()),
    }
    body.resize(body.len() + note, b'.');
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_contract::uplink::{self, Event, Header, Uplink};

    #[test]
    fn every_observation_is_an_event_as_the_contract_says() {
        let mut kinds = std::collections::BTreeSet::new();
        for (profile, body_len_min) in
            [(Profile::Numeric, 0), (Profile::Text, 40), (Profile::Mixed, 0), (Profile::Mixed, 5000)]
        {
            let mut observer = Observer::new(profile, body_len_min, Rng::with_seed(3));
            let mut agent = SimAgent::new(&profile.sensors(1000));
            for number in 0..2000 {
                let Observation { kind, version, body } = match number {
                    0 => observer.started("test"),
                    _ => observer.observe(number % profile.sources(), &mut agent),
                };
                assert!(body.len() >= body_len_min, "{} bytes, not {body_len_min}", body.len());
                assert!(body.len() < body_len_min + 120);
                let mut buffer = vec![0; 6000];
                let header = Header { boot: 1, now: Some(1), epoch: None, via: None };
                let event = Event { seq: 1, at: 1, kind, version, body: &body };
                let len = uplink::write(&mut buffer, &header, [event].into_iter()).expect("fits");
                Uplink::read(&buffer[..len]).expect("well-formed");
                Body::read(&kind, version, &body).expect("the body of its kind");
                kinds.insert(kind);
            }
        }
        let kinds: Vec<_> = kinds.iter().map(Kind::as_str).collect();
        assert_eq!(kinds, ["device-started", "limit-crossed", "reading-taken", "simulation-advanced"]);
    }
}
