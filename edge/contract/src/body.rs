//! Bodies of the event kinds of version 1. Other kinds are carried and kept, and change no state.

use minicbor::Encoder;
use minicbor::data::Type;
use minicbor::encode::write::Cursor;
use minicbor::encode::{self, Write};

use crate::cbor::{Malformed, NoRoom, Reader, What};
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
        let mut e = Encoder::new(Cursor::new(buffer));
        self.write_into(&mut e)?;
        Ok(e.writer().position())
    }

    fn write_into<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
        match *self {
            Body::DeviceStarted { fw, hw, reason } => {
                e.map(3)?;
                write_text(e, "fw", fw)?;
                write_text(e, "hw", hw)?;
                write_text(e, "reason", reason)
            }
            Body::ReadingTaken { sensor, value, unit } => {
                e.map(2 + u64::from(unit.is_some()))?.str("sensor")?.str(&sensor)?.str("value")?;
                write_scalar(e, value)?;
                unit.map_or(Ok(()), |unit| write_text(e, "unit", unit))
            }
            Body::LimitCrossed { sensor, value, limit, rising } => {
                e.map(4)?.str("sensor")?.str(&sensor)?.str("value")?;
                write_float(e, value)?;
                e.str("limit")?;
                write_float(e, limit)?;
                e.str("rising")?.bool(rising)?.ok()
            }
            Body::EventsLost { device, boot, from, to, reason } => {
                e.map(4 + u64::from(device.is_some()))?;
                if let Some(device) = device {
                    e.str("device")?.str(&device)?;
                }
                e.str("boot")?.u64(boot)?.str("from")?.u32(from)?.str("to")?.u32(to)?;
                write_text(e, "reason", reason)
            }
            Body::CommandAnswered { outcome: _, id, reason, result } => {
                e.map(1 + u64::from(reason.is_some()) + u64::from(result.is_some()))?;
                write_text(e, "id", id)?;
                if let Some(reason) = reason {
                    write_text(e, "reason", reason)?;
                }
                result.map_or(Ok(()), |result| write_raw(e, "result", result))
            }
            Body::CommandExpired { device, id } => {
                e.map(2)?.str("device")?.str(&device)?;
                write_text(e, "id", id)
            }
            Body::CommandRefused { device, id, reason } => {
                e.map(2 + u64::from(id.is_some()))?.str("device")?.str(&device)?;
                if let Some(id) = id {
                    write_text(e, "id", id)?;
                }
                write_text(e, "reason", reason)
            }
            Body::ConfigApplied { revision, config } => {
                e.map(2)?.str("revision")?.u64(revision)?;
                write_raw(e, "config", config)
            }
            Body::DeviceConnected { device, address } => {
                e.map(2)?.str("device")?.str(&device)?;
                write_text(e, "address", address)
            }
            Body::DeviceDisconnected { device, reason } => {
                e.map(2)?.str("device")?.str(&device)?;
                write_text(e, "reason", reason)
            }
            Body::ClockStepped { by_ms } => e.map(1)?.str("by_ms")?.i64(by_ms)?.ok(),
        }
    }
}

fn write_text<W: Write>(
    e: &mut Encoder<W>,
    key: &str,
    text: Text<'_>,
) -> Result<(), encode::Error<W::Error>> {
    e.str(key)?;
    text.write(e)
}

fn write_raw<W: Write>(e: &mut Encoder<W>, key: &str, item: &[u8]) -> Result<(), encode::Error<W::Error>> {
    e.str(key)?.writer_mut().write_all(item).map_err(encode::Error::write)
}

fn write_scalar<W: Write>(e: &mut Encoder<W>, value: Scalar<'_>) -> Result<(), encode::Error<W::Error>> {
    match value {
        Scalar::Int(int) => e.i64(int)?.ok(),
        Scalar::Float(float) => write_float(e, float),
        Scalar::Bool(bool) => e.bool(bool)?.ok(),
        Scalar::Text(text) => text.write(e),
    }
}

/// Writes the shortest float that keeps the value (RFC 8949 §4.2.1).
///
/// # Errors
/// What the writer says.
pub fn write_float<W: Write>(e: &mut Encoder<W>, value: f64) -> Result<(), encode::Error<W::Error>> {
    #[expect(clippy::cast_possible_truncation, reason = "compared with the original below")]
    let single = value as f32;
    if value.is_nan() {
        return e.f16(f32::NAN)?.ok();
    }
    #[expect(clippy::float_cmp, reason = "exactly the same value is what is asked")]
    if f64::from(single) != value {
        return e.f64(value)?.ok();
    }
    let mut half = [0; 3];
    // A half float is head and two bytes, so it fits.
    let _ = Encoder::new(&mut half[..]).f16(single);
    match minicbor::Decoder::new(&half).f16() {
        #[expect(clippy::float_cmp, reason = "exactly the same value is what is asked")]
        Ok(kept) if kept == single => e.f16(single)?.ok(),
        _ => e.f32(single)?.ok(),
    }
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
    Ok(match r.datatype()? {
        Type::Bool => Scalar::Bool(r.bool(EXPECTED)?),
        Type::String | Type::StringIndef => Scalar::Text(r.text(EXPECTED)?),
        Type::F16 | Type::F32 | Type::F64 => Scalar::Float(r.f64(EXPECTED)?),
        _ => match r.clone().i64(EXPECTED) {
            Ok(int) => Scalar::Int(int),
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
