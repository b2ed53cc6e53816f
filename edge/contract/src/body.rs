//! Bodies of the event kinds of version 1. Other kinds are carried and kept, and change no state.

use crate::cbor::{Malformed, NoRoom, Reader, What, Writer};
use crate::{Id, Kind, Text};

/// The version of every body in this module.
pub const VERSION: u16 = 1;

/// A measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// A whole number. CBOR integers beyond `i64` are read as [`Scalar::Float`].
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Words.
    Text(Text<'a>),
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The device has it and will do it.
    Accepted,
    /// Done.
    Completed,
    /// Not done, and will not be.
    Failed,
}

/// The body of an event of a known kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Body<'a> {
    /// A device has powered up.
    DeviceStarted {
        /// Version of its firmware.
        fw: Text<'a>,
        /// Its hardware.
        hw: Text<'a>,
        /// Why it started: power-on, watchdog, panic …
        reason: Text<'a>,
    },
    /// A sensor was read.
    ReadingTaken {
        /// Which sensor.
        sensor: Id,
        /// What it read.
        value: Scalar<'a>,
        /// A unit of SenML (RFC 8428 §12.1).
        unit: Option<Text<'a>>,
    },
    /// A reading went past a limit.
    LimitCrossed {
        /// Which sensor.
        sensor: Id,
        /// What it read.
        value: f64,
        /// The limit.
        limit: f64,
        /// Upwards or downwards.
        rising: bool,
    },
    /// Ledger: the events `from ..= to` of `boot` are gone.
    EventsLost {
        /// Whose events, where another tells of it (a gateway of a device).
        device: Option<Id>,
        /// The boot they belong to.
        boot: u64,
        /// The first lost number, from 1.
        from: u32,
        /// The last lost number.
        to: u32,
        /// Why: `outbox-full` …
        reason: Text<'a>,
    },
    /// A device's answer to a command.
    CommandAnswered {
        /// What became of it.
        outcome: Outcome,
        /// The command's id.
        id: Text<'a>,
        /// Why, where it failed.
        reason: Option<Text<'a>>,
        /// One CBOR item, raw.
        result: Option<&'a [u8]>,
    },
    /// By a gateway: a command's deadline passed without an answer.
    CommandExpired {
        /// Whose command.
        device: Id,
        /// The command's id.
        id: Text<'a>,
    },
    /// By a gateway: a command was not taken, and will not be delivered.
    CommandRefused {
        /// Whose command.
        device: Id,
        /// The command's id, if it could be read.
        id: Option<Text<'a>>,
        /// Why: too many wait, malformed …
        reason: Text<'a>,
    },
    /// A device runs with a configuration from here on.
    ConfigApplied {
        /// The configuration's revision.
        revision: u64,
        /// One CBOR item, raw.
        config: &'a [u8],
    },
    /// By a gateway: a device's connection came up.
    DeviceConnected {
        /// Which device.
        device: Id,
        /// From which network address.
        address: Text<'a>,
    },
    /// By a gateway: a device's connection ended.
    DeviceDisconnected {
        /// Which device.
        device: Id,
        /// How: `closed`, `keep-alive`, `taken-over` …
        reason: Text<'a>,
    },
    /// The clock of the gateway or device was put right.
    ClockStepped {
        /// By how many milliseconds, forwards positive.
        by_ms: i64,
    },
}

/// Names of the kinds in this module.
pub mod kind {
    /// See [`super::Body::DeviceStarted`].
    pub const DEVICE_STARTED: &str = "device-started";
    /// See [`super::Body::ReadingTaken`].
    pub const READING_TAKEN: &str = "reading-taken";
    /// See [`super::Body::LimitCrossed`].
    pub const LIMIT_CROSSED: &str = "limit-crossed";
    /// See [`super::Body::EventsLost`].
    pub const EVENTS_LOST: &str = "events-lost";
    /// See [`super::Body::CommandAnswered`].
    pub const COMMAND_ACCEPTED: &str = "command-accepted";
    /// See [`super::Body::CommandAnswered`].
    pub const COMMAND_COMPLETED: &str = "command-completed";
    /// See [`super::Body::CommandAnswered`].
    pub const COMMAND_FAILED: &str = "command-failed";
    /// See [`super::Body::CommandExpired`].
    pub const COMMAND_EXPIRED: &str = "command-expired";
    /// See [`super::Body::CommandRefused`].
    pub const COMMAND_REFUSED: &str = "command-refused";
    /// See [`super::Body::ConfigApplied`].
    pub const CONFIG_APPLIED: &str = "config-applied";
    /// See [`super::Body::DeviceConnected`].
    pub const DEVICE_CONNECTED: &str = "device-connected";
    /// See [`super::Body::DeviceDisconnected`].
    pub const DEVICE_DISCONNECTED: &str = "device-disconnected";
    /// See [`super::Body::ClockStepped`].
    pub const CLOCK_STEPPED: &str = "clock-stepped";
}

impl<'a> Body<'a> {
    /// The kind of event this is the body of.
    pub fn kind(&self) -> Kind {
        let name = match self {
            Body::DeviceStarted { .. } => kind::DEVICE_STARTED,
            Body::ReadingTaken { .. } => kind::READING_TAKEN,
            Body::LimitCrossed { .. } => kind::LIMIT_CROSSED,
            Body::EventsLost { .. } => kind::EVENTS_LOST,
            Body::CommandAnswered { outcome: Outcome::Accepted, .. } => kind::COMMAND_ACCEPTED,
            Body::CommandAnswered { outcome: Outcome::Completed, .. } => kind::COMMAND_COMPLETED,
            Body::CommandAnswered { outcome: Outcome::Failed, .. } => kind::COMMAND_FAILED,
            Body::CommandExpired { .. } => kind::COMMAND_EXPIRED,
            Body::CommandRefused { .. } => kind::COMMAND_REFUSED,
            Body::ConfigApplied { .. } => kind::CONFIG_APPLIED,
            Body::DeviceConnected { .. } => kind::DEVICE_CONNECTED,
            Body::DeviceDisconnected { .. } => kind::DEVICE_DISCONNECTED,
            Body::ClockStepped { .. } => kind::CLOCK_STEPPED,
        };
        name.parse().expect("the names above are kinds")
    }

    /// The version of its schema.
    pub fn version(&self) -> u16 {
        VERSION
    }

    /// Reads the body of an event of `kind` and `version`; `None` if this module does not know them.
    ///
    /// Where a key stands twice, the later one counts.
    ///
    /// # Errors
    /// [`Malformed`] if it is known and has another shape than the contract says.
    pub fn read(kind: &Kind, version: u16, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        if version != VERSION {
            return Ok(None);
        }
        let fields = || Fields::of(body);
        let read = match kind.as_str() {
            kind::DEVICE_STARTED => read_device_started(&fields()?),
            kind::READING_TAKEN => read_reading_taken(&fields()?),
            kind::LIMIT_CROSSED => read_limit_crossed(&fields()?),
            kind::EVENTS_LOST => read_events_lost(&fields()?),
            kind::COMMAND_ACCEPTED => read_command_answered(&fields()?, Outcome::Accepted),
            kind::COMMAND_COMPLETED => read_command_answered(&fields()?, Outcome::Completed),
            kind::COMMAND_FAILED => read_command_answered(&fields()?, Outcome::Failed),
            kind::COMMAND_EXPIRED => read_command_expired(&fields()?),
            kind::COMMAND_REFUSED => read_command_refused(&fields()?),
            kind::CONFIG_APPLIED => read_config_applied(&fields()?),
            kind::DEVICE_CONNECTED => read_device_connected(&fields()?),
            kind::DEVICE_DISCONNECTED => read_device_disconnected(&fields()?),
            kind::CLOCK_STEPPED => read_clock_stepped(&fields()?),
            _ => return Ok(None),
        };
        read.map(Some)
    }

    /// Writes it and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if it does not fit in `buffer`.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, NoRoom> {
        let mut w = Writer::new(buffer);
        self.write_into(&mut w);
        w.end()
    }

    fn write_into(&self, w: &mut Writer<'_>) {
        match *self {
            Body::DeviceStarted { fw, hw, reason } => {
                w.map(3).str("fw").text(fw).str("hw").text(hw).str("reason").text(reason);
            }
            Body::ReadingTaken { sensor, value, unit } => {
                w.map(2 + usize::from(unit.is_some())).str("sensor").str(&sensor).str("value");
                write_scalar(w, value);
                write_optional(w, "unit", unit);
            }
            Body::LimitCrossed { sensor, value, limit, rising } => {
                w.map(4).str("sensor").str(&sensor).str("value").float(value);
                w.str("limit").float(limit).str("rising").bool(rising);
            }
            Body::EventsLost { device, boot, from, to, reason } => {
                w.map(4 + usize::from(device.is_some()));
                if let Some(device) = device {
                    w.str("device").str(&device);
                }
                w.str("boot").u64(boot).str("from").u64(from.into()).str("to").u64(to.into());
                w.str("reason").text(reason);
            }
            Body::CommandAnswered { outcome: _, id, reason, result } => {
                w.map(1 + usize::from(reason.is_some()) + usize::from(result.is_some()));
                w.str("id").text(id);
                write_optional(w, "reason", reason);
                if let Some(result) = result {
                    w.str("result").raw(result);
                }
            }
            Body::CommandExpired { device, id } => {
                w.map(2).str("device").str(&device).str("id").text(id);
            }
            Body::CommandRefused { device, id, reason } => {
                w.map(2 + usize::from(id.is_some())).str("device").str(&device);
                write_optional(w, "id", id);
                w.str("reason").text(reason);
            }
            Body::ConfigApplied { revision, config } => {
                w.map(2).str("revision").u64(revision).str("config").raw(config);
            }
            Body::DeviceConnected { device, address } => {
                w.map(2).str("device").str(&device).str("address").text(address);
            }
            Body::DeviceDisconnected { device, reason } => {
                w.map(2).str("device").str(&device).str("reason").text(reason);
            }
            Body::ClockStepped { by_ms } => {
                w.map(1).str("by_ms").i64(by_ms);
            }
        }
    }
}

fn write_optional(w: &mut Writer<'_>, key: &str, text: Option<Text<'_>>) {
    if let Some(text) = text {
        w.str(key).text(text);
    }
}

fn write_scalar(w: &mut Writer<'_>, value: Scalar<'_>) {
    match value {
        Scalar::Int(int) => w.i64(int),
        Scalar::Float(float) => w.float(float),
        Scalar::Bool(bool) => w.bool(bool),
        Scalar::Text(text) => w.text(text),
    };
}

/// The keys of the known bodies; others are ignored.
const KEYS: [&str; 18] = [
    "fw", "hw", "reason", "sensor", "value", "unit", "limit", "rising", "device", "boot", "from", "to", "id",
    "result", "revision", "config", "address", "by_ms",
];

const SENSOR: &str = "sensor: 1 to 32 of A-Z a-z 0-9 _ -";
const DEVICE: &str = "device: 1 to 32 of A-Z a-z 0-9 _ -";

/// A body's map: where the value of each known key stands.
struct Fields<'a> {
    body: &'a [u8],
    /// Offset of the value per key of [`KEYS`]; 0 where it is absent (the map's own head is at 0).
    values: [u32; KEYS.len()],
    end: usize,
}

impl<'a> Fields<'a> {
    fn of(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let mut entries = r.map("body: a map")?;
        let mut values = [0; KEYS.len()];
        while r.more(&mut entries)? {
            let key = r.text("body: text keys")?;
            if let Some(index) = KEYS.iter().position(|known| key == *known) {
                values[index] = u32::try_from(r.position())
                    .or_else(|_| r.refuse(What::TooLong { len_max: crate::uplink::UPLINK_LEN_MAX }))?;
            }
            r.skip()?;
        }
        let end = r.position();
        r.end()?;
        Ok(Self { body, values, end })
    }

    /// A reader at the value of `key`.
    fn find(&self, key: &'static str) -> Option<Reader<'a>> {
        let index = KEYS.iter().position(|known| *known == key)?;
        let offset = self.values[index] as usize;
        (offset != 0).then(|| Reader::at(self.body, offset))
    }

    fn get(&self, key: &'static str) -> Result<Reader<'a>, Malformed> {
        self.find(key).ok_or(Malformed { at: self.end, what: What::Missing(key) })
    }

    fn id(&self, key: &'static str, expected: &'static str) -> Result<Id, Malformed> {
        self.get(key)?.name(expected)
    }

    /// Where it stands, and what it is.
    fn u32_at(&self, key: &'static str, expected: &'static str) -> Result<(usize, u32), Malformed> {
        let mut reader = self.get(key)?;
        Ok((reader.position(), reader.u32(expected)?))
    }

    fn text(&self, key: &'static str, expected: &'static str) -> Result<Text<'a>, Malformed> {
        self.get(key)?.text(expected)
    }

    fn optional_text(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<Text<'a>>, Malformed> {
        self.find(key).map(|mut r| r.text(expected)).transpose()
    }
}

fn read_device_started<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::DeviceStarted {
        fw: fields.text("fw", "fw: text")?,
        hw: fields.text("hw", "hw: text")?,
        reason: fields.text("reason", "reason: text")?,
    })
}

fn read_reading_taken<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::ReadingTaken {
        sensor: fields.id("sensor", SENSOR)?,
        value: read_scalar(&mut fields.get("value")?)?,
        unit: fields.optional_text("unit", "unit: text")?,
    })
}

fn read_scalar<'a>(r: &mut Reader<'a>) -> Result<Scalar<'a>, Malformed> {
    const EXPECTED: &str = "value: a number, a boolean or text";
    Ok(match r.peek()? {
        0xF4 | 0xF5 => Scalar::Bool(r.bool(EXPECTED)?),
        0x60..=0x7F => Scalar::Text(r.text(EXPECTED)?),
        0xF9..=0xFB => Scalar::Float(r.f64(EXPECTED)?),
        _ => match r.clone().i64(EXPECTED) {
            Ok(_) => Scalar::Int(r.i64(EXPECTED)?),
            Err(_) => Scalar::Float(r.f64(EXPECTED)?),
        },
    })
}

fn read_limit_crossed<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::LimitCrossed {
        sensor: fields.id("sensor", SENSOR)?,
        value: fields.get("value")?.f64("value: a number")?,
        limit: fields.get("limit")?.f64("limit: a number")?,
        rising: fields.get("rising")?.bool("rising: a boolean")?,
    })
}

fn read_events_lost<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    let device = fields.find("device").map(|mut r| r.name(DEVICE)).transpose()?;
    let boot = fields.get("boot")?.u64("boot: an unsigned integer")?;
    let (from_at, from) = fields.u32_at("from", "from: an unsigned integer below 2^32")?;
    let (to_at, to) = fields.u32_at("to", "to: an unsigned integer below 2^32")?;
    if from == 0 {
        return Err(Malformed { at: from_at, what: What::Expected("from: 1 or more") });
    }
    if to < from {
        return Err(Malformed { at: to_at, what: What::Expected("to: not less than from") });
    }
    Ok(Body::EventsLost { device, boot, from, to, reason: fields.text("reason", "reason: text")? })
}

fn read_command_answered<'a>(fields: &Fields<'a>, outcome: Outcome) -> Result<Body<'a>, Malformed> {
    Ok(Body::CommandAnswered {
        outcome,
        id: fields.text("id", "id: text")?,
        reason: fields.optional_text("reason", "reason: text")?,
        result: fields.find("result").map(|mut r| r.raw()).transpose()?,
    })
}

fn read_command_expired<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::CommandExpired { device: fields.id("device", DEVICE)?, id: fields.text("id", "id: text")? })
}

fn read_command_refused<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::CommandRefused {
        device: fields.id("device", DEVICE)?,
        id: fields.optional_text("id", "id: text")?,
        reason: fields.text("reason", "reason: text")?,
    })
}

fn read_config_applied<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::ConfigApplied {
        revision: fields.get("revision")?.u64("revision: an unsigned integer")?,
        config: fields.get("config")?.raw()?,
    })
}

fn read_device_connected<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::DeviceConnected {
        device: fields.id("device", DEVICE)?,
        address: fields.text("address", "address: text")?,
    })
}

fn read_device_disconnected<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::DeviceDisconnected {
        device: fields.id("device", DEVICE)?,
        reason: fields.text("reason", "reason: text")?,
    })
}

fn read_clock_stepped<'a>(fields: &Fields<'a>) -> Result<Body<'a>, Malformed> {
    Ok(Body::ClockStepped { by_ms: fields.get("by_ms")?.i64("by_ms: an integer of 64 bits")? })
}
