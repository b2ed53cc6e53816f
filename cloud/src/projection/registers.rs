//! What the events of one boot tell of a device: for every thing told, the latest telling by number.
//!
//! Each register keeps the telling with the greatest seq, so that events may be applied in any order, and those of
//! different boots can be kept apart and laid over each other in the order of the boots ([`super::device`]): no arrival,
//! however late, makes it necessary to fold a history again.

use weir_contract::Id;
use weir_contract::body::{Body, Outcome, Scalar};
use weir_contract::time::Clock;

use crate::store::types::{Origin, Value};

/// Most sensors of a boot whose latest reading is kept; those read longest ago go first. All stay in history.
pub const SENSORS_MAX: usize = 1024;
/// Most commands of a boot whose outcome is kept.
pub const COMMANDS_MAX: usize = 64;
/// Most bytes of a text in a state. An event with a longer one stays in history, and a dead letter tells of it.
pub const TEXT_LEN_MAX: usize = 1024;
/// Most bytes of a configuration, or of a command's result, in a state.
pub const ITEM_LEN_MAX: usize = 16 * 1024;

/// Where in its boot something was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The event's number.
    pub seq: u32,
    /// Its wall time.
    pub at_ms: u64,
    /// Whose clock that is.
    pub clock: Clock,
}

impl Stamp {
    /// The same, for those who do not know which boot is meant.
    pub fn of(self, boot: u64) -> Origin {
        Origin { boot, seq: self.seq, at_ms: self.at_ms, clock: self.clock }
    }
}

/// Something told, and by which event.
#[derive(Debug, Clone, PartialEq)]
pub struct Told<T> {
    /// By which event.
    pub stamp: Stamp,
    /// What.
    pub what: T,
}

/// The latest telling per key, for a bounded number of keys: those told of latest.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest<K, T>(Vec<(K, Told<T>)>);

impl<K, T> Default for Latest<K, T> {
    fn default() -> Self {
        Latest(Vec::new())
    }
}

impl<K: Ord, T> Latest<K, T> {
    /// By key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &Told<T>)> {
        self.0.iter().map(|(key, told)| (key, told))
    }

    /// Takes a telling, unless a later one of the same key is known, or `keys_max` others are later.
    pub fn tell(&mut self, keys_max: usize, key: K, told: Told<T>) {
        match self.0.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(place) => {
                let known = &mut self.0[place].1;
                if known.stamp.seq < told.stamp.seq {
                    *known = told;
                }
            }
            Err(place) => {
                self.0.insert(place, (key, told));
                if self.0.len() > keys_max {
                    let earliest = (0..self.0.len()).min_by_key(|&i| self.0[i].1.stamp.seq);
                    earliest.map(|i| self.0.remove(i));
                }
            }
        }
    }
}

/// See [`Body::DeviceStarted`].
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// Firmware version.
    pub fw: Box<str>,
    /// Hardware version.
    pub hw: Box<str>,
    /// Why it started.
    pub reason: Box<str>,
}

/// See [`Body::ReadingTaken`].
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The value.
    pub value: Value,
    /// Its unit.
    pub unit: Option<Box<str>>,
}

/// See [`Body::LimitCrossed`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossed {
    /// The value.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// Upwards?
    pub rising: bool,
}

/// See [`Body::ConfigApplied`].
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Which one.
    pub revision: u64,
    /// Raw CBOR.
    pub config: Box<[u8]>,
}

/// See [`Body::CommandAnswered`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<Box<str>>,
    /// Raw CBOR.
    pub result: Option<Box<[u8]>>,
}

/// Everything the events of one boot tell of the device's state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registers {
    /// What it said when it started.
    pub started: Option<Told<Started>>,
    /// By sensor.
    pub readings: Latest<Id, Read>,
    /// By sensor.
    pub limits: Latest<Id, Crossed>,
    /// The configuration it works by.
    pub config: Option<Told<Applied>>,
    /// By command.
    pub commands: Latest<Box<str>, Answered>,
}

/// Part of a body is longer than a state keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {len} bytes is more than the {len_max} a state keeps")]
pub struct TooLong {
    what: &'static str,
    len: usize,
    len_max: usize,
}

impl Registers {
    /// Applies one event of the boot.
    ///
    /// # Errors
    /// [`TooLong`] if a part of the body is; then nothing of it is applied.
    pub fn apply(&mut self, stamp: Stamp, body: &Body<'_>) -> Result<(), TooLong> {
        match *body {
            Body::ReadingTaken { sensor, value, unit } => {
                let unit = unit.map(|unit| text("a unit", unit)).transpose()?;
                let told = Told { stamp, what: Read { value: owned(value)?, unit } };
                self.readings.tell(SENSORS_MAX, sensor, told);
            }
            Body::LimitCrossed { sensor, value, limit, rising } => {
                let told = Told { stamp, what: Crossed { value, limit, rising } };
                self.limits.tell(SENSORS_MAX, sensor, told);
            }
            Body::DeviceStarted { fw, hw, reason } => {
                let what =
                    Started { fw: text("fw", fw)?, hw: text("hw", hw)?, reason: text("a reason", reason)? };
                later(&mut self.started, Told { stamp, what });
            }
            Body::ConfigApplied { revision, config } => {
                let what = Applied { revision, config: item("a config", config)? };
                later(&mut self.config, Told { stamp, what });
            }
            Body::CommandAnswered { outcome, id, reason, result } => {
                let reason = reason.map(|reason| text("a reason", reason)).transpose()?;
                let result = result.map(|result| item("a result", result)).transpose()?;
                let told = Told { stamp, what: Answered { outcome, reason, result } };
                self.commands.tell(COMMANDS_MAX, text("a command's id", id)?, told);
            }
            // These tell of other things than the state of the one who tells.
            Body::EventsLost { .. }
            | Body::CommandExpired { .. }
            | Body::CommandRefused { .. }
            | Body::DeviceConnected { .. }
            | Body::DeviceDisconnected { .. }
            | Body::ClockStepped { .. } => {}
        }
        Ok(())
    }
}

fn later<T>(known: &mut Option<Told<T>>, told: Told<T>) {
    if known.as_ref().is_none_or(|known| known.stamp.seq < told.stamp.seq) {
        *known = Some(told);
    }
}

fn owned(value: Scalar<'_>) -> Result<Value, TooLong> {
    Ok(match value {
        Scalar::Int(int) => Value::Int(int),
        Scalar::Float(float) => Value::Float(float),
        Scalar::Bool(bool) => Value::Bool(bool),
        Scalar::Text(words) => Value::Text(text("a value", words)?.into()),
    })
}

/// A text that fits in a state.
pub(super) fn text(what: &'static str, text: weir_contract::Text<'_>) -> Result<Box<str>, TooLong> {
    match text.len() {
        len if len > TEXT_LEN_MAX => Err(TooLong { what, len, len_max: TEXT_LEN_MAX }),
        _ => Ok(text.to_cow().into()),
    }
}

fn item(what: &'static str, item: &[u8]) -> Result<Box<[u8]>, TooLong> {
    match item.len() {
        len if len > ITEM_LEN_MAX => Err(TooLong { what, len, len_max: ITEM_LEN_MAX }),
        _ => Ok(item.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Latest, Stamp, Told};
    use weir_contract::time::Clock;

    fn told(seq: u32) -> Told<u32> {
        Told { stamp: Stamp { seq, at_ms: 0, clock: Clock::Device }, what: seq }
    }

    #[test]
    fn the_keys_told_of_latest_are_kept_in_whatever_order_they_are_told() {
        let tellings: Vec<(u32, u32)> = (0..100).map(|i| ((i * 37) % 23, i + 1)).collect();
        let mut expected: Latest<u32, u32> = Latest::default();
        for &(key, seq) in &tellings {
            expected.tell(5, key, told(seq));
        }
        assert_eq!(expected.iter().len(), 5);
        for shift in 0..100 {
            let mut shuffled = tellings.clone();
            shuffled.sort_by_key(|&(_, seq)| (u64::from(seq) * 7919 + shift * 31) % 101);
            let mut latest = Latest::default();
            for (key, seq) in shuffled {
                latest.tell(5, key, told(seq));
            }
            assert_eq!(latest, expected);
        }
    }
}
