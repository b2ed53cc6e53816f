//! The commands that every device knows: name and arguments of a [`Command`].
//!
//! ```text
//! set-period  {sensor?: id, period_ms: uint}                     without sensor: all of them
//! set-limit   {sensor: id, limit: real / null, hysteresis?: real}  null: no limit any more
//! restart     {} or null
//! identify    {} or null                                         make yourself seen: blink, beep
//! ```
//!
//! Arguments that are not known are refused, unlike anywhere else in the contract: a mistyped `sensor` must not change
//! the period of all sensors.

use core::fmt;

use crate::cbor::{Malformed, NoRoom, Reader, Writer};
use crate::command::Command;
use crate::{Id, Text};

/// The shortest period that can be asked for, in milliseconds.
pub const PERIOD_MS_MIN: u32 = 10;
/// The longest: a day.
pub const PERIOD_MS_MAX: u32 = 86_400_000;

const SET_PERIOD: &str = "set-period";
const SET_LIMIT: &str = "set-limit";
const RESTART: &str = "restart";
const IDENTIFY: &str = "identify";

/// Something every device can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// Read a sensor, or all of them, this often.
    SetPeriod {
        /// `None`: all of them.
        sensor: Option<Id>,
        /// [`PERIOD_MS_MIN`] to [`PERIOD_MS_MAX`].
        period_ms: u32,
    },
    /// Tell when a sensor's value crosses a limit.
    SetLimit {
        /// Which sensor.
        sensor: Id,
        /// Finite; `None`: no limit.
        limit: Option<f64>,
        /// How far below the limit a value must fall to be below it; finite, 0 or more.
        hysteresis: f64,
    },
    /// Restart.
    Restart,
    /// Show which device you are.
    Identify,
}

/// Why a command is no [`Order`]; its text names what would be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadOrder {
    /// No such command.
    Unknown,
    /// The arguments of [`Order::SetPeriod`] are others.
    SetPeriod,
    /// The arguments of [`Order::SetLimit`] are others.
    SetLimit,
    /// [`Order::Restart`] and [`Order::Identify`] take none.
    NoArguments,
}

impl BadOrder {
    /// The reason, for a `command-failed`.
    pub const fn reason(self) -> &'static str {
        match self {
            BadOrder::Unknown => "unknown command; known are set-period, set-limit, restart, identify",
            BadOrder::SetPeriod => "set-period takes period_ms (10 to 86400000) and perhaps sensor (a name)",
            BadOrder::SetLimit => {
                "set-limit takes sensor (a name), limit (a number or null) and perhaps hysteresis (0 or more)"
            }
            BadOrder::NoArguments => "restart and identify take no arguments",
        }
    }
}

impl fmt::Display for BadOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for BadOrder {}

impl Order {
    /// What `command` asks for.
    ///
    /// # Errors
    /// [`BadOrder`] if no device would know it.
    pub fn read(command: &Command<'_>) -> Result<Self, BadOrder> {
        // No name of an order is in chunks, but one that comes so is the same name.
        let is = |name: &str| command.name == Text::from(name);
        if is(SET_PERIOD) {
            read_set_period(command.args).ok().flatten().ok_or(BadOrder::SetPeriod)
        } else if is(SET_LIMIT) {
            read_set_limit(command.args).ok().flatten().ok_or(BadOrder::SetLimit)
        } else if is(RESTART) {
            read_nothing(command.args).then_some(Order::Restart).ok_or(BadOrder::NoArguments)
        } else if is(IDENTIFY) {
            read_nothing(command.args).then_some(Order::Identify).ok_or(BadOrder::NoArguments)
        } else {
            Err(BadOrder::Unknown)
        }
    }

    /// Its name in a [`Command`].
    pub const fn name(&self) -> &'static str {
        match self {
            Order::SetPeriod { .. } => SET_PERIOD,
            Order::SetLimit { .. } => SET_LIMIT,
            Order::Restart => RESTART,
            Order::Identify => IDENTIFY,
        }
    }

    /// Writes its arguments and returns their length.
    ///
    /// # Errors
    /// [`NoRoom`] if they do not fit in `buffer`.
    pub fn write_args(&self, buffer: &mut [u8]) -> Result<usize, NoRoom> {
        let mut w = Writer::new(buffer);
        match self {
            Order::SetPeriod { sensor, period_ms } => {
                w.map(1 + usize::from(sensor.is_some()));
                if let Some(sensor) = sensor {
                    w.str("sensor").str(sensor);
                }
                w.str("period_ms").u64((*period_ms).into());
            }
            Order::SetLimit { sensor, limit, hysteresis } => {
                w.map(3).str("sensor").str(sensor).str("limit");
                match limit {
                    Some(limit) => w.float(*limit),
                    None => w.null(),
                };
                w.str("hysteresis").float(*hysteresis);
            }
            Order::Restart | Order::Identify => {
                w.map(0);
            }
        }
        w.end()
    }
}

fn read_set_period(args: &[u8]) -> Result<Option<Order>, Malformed> {
    let (mut sensor, mut period_ms) = (None, None);
    let mut r = Reader::new(args);
    let mut entries = r.map("a map")?;
    while r.more(&mut entries)? {
        let key = r.text("text keys")?;
        if key == "sensor" {
            sensor = Some(r.name("a name")?);
        } else if key == "period_ms" {
            period_ms = Some(r.u32("a number of milliseconds")?);
        } else {
            return Ok(None);
        }
    }
    r.end()?;
    let period_ms = period_ms.filter(|period_ms| (PERIOD_MS_MIN..=PERIOD_MS_MAX).contains(period_ms));
    Ok(period_ms.map(|period_ms| Order::SetPeriod { sensor, period_ms }))
}

fn read_set_limit(args: &[u8]) -> Result<Option<Order>, Malformed> {
    let (mut sensor, mut limit, mut hysteresis) = (None, None, 0.0);
    let mut r = Reader::new(args);
    let mut entries = r.map("a map")?;
    while r.more(&mut entries)? {
        let key = r.text("text keys")?;
        if key == "sensor" {
            sensor = Some(r.name("a name")?);
        } else if key == "limit" {
            limit = Some(if r.null()? { None } else { Some(r.f64("a number")?) });
        } else if key == "hysteresis" {
            hysteresis = r.f64("a number")?;
        } else {
            return Ok(None);
        }
    }
    r.end()?;
    let sound = limit.is_some_and(|limit: Option<f64>| limit.is_none_or(f64::is_finite))
        && hysteresis.is_finite()
        && hysteresis >= 0.0;
    let order = |sensor| limit.map(|limit| Order::SetLimit { sensor, limit, hysteresis });
    Ok(sensor.filter(|_| sound).and_then(order))
}

fn read_nothing(args: &[u8]) -> bool {
    let mut r = Reader::new(args);
    let null = r.null() == Ok(true);
    let nothing = null || r.map("a map").and_then(|mut entries| r.more(&mut entries)) == Ok(false);
    nothing && r.end().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn order(name: &str, args: &[u8]) -> Result<Order, BadOrder> {
        Order::read(&Command { id: "c-1".into(), name: name.into(), deadline_ms: 1, args })
    }

    fn sensor() -> Id {
        "temp-1".parse().expect("a name")
    }

    #[test]
    fn what_is_written_is_read() {
        for given in [
            Order::SetPeriod { sensor: None, period_ms: PERIOD_MS_MIN },
            Order::SetPeriod { sensor: Some(sensor()), period_ms: PERIOD_MS_MAX },
            Order::SetLimit { sensor: sensor(), limit: Some(-30.25), hysteresis: 0.1 },
            Order::SetLimit { sensor: sensor(), limit: None, hysteresis: 0.0 },
            Order::Restart,
            Order::Identify,
        ] {
            let mut args = [0; 100];
            let len = given.write_args(&mut args).expect("room");
            assert_eq!(order(given.name(), &args[..len]), Ok(given));
        }
        assert_eq!(order("restart", &[0xf6]), Ok(Order::Restart), "null is no arguments");
        assert_eq!(order("restart", &[0xbf, 0xff]), Ok(Order::Restart), "of any length form");
        assert_eq!(
            order("set-limit", b"\xa2\x66sensor\x61x\x65limit\x05"),
            Ok(Order::SetLimit { sensor: "x".parse().expect("a name"), limit: Some(5.0), hysteresis: 0.0 }),
            "an integer is a number, and hysteresis may be left out"
        );
    }

    #[test]
    fn what_no_device_would_know_is_refused_with_what_one_would() {
        let cases: [(&str, &[u8], BadOrder); 15] = [
            ("dance", &[0xa0], BadOrder::Unknown),
            ("Restart", &[0xa0], BadOrder::Unknown),
            ("set-period", &[0xa0], BadOrder::SetPeriod),
            ("set-period", &[0xf6], BadOrder::SetPeriod),
            ("set-period", b"\xa1\x69period_ms\x09", BadOrder::SetPeriod),
            ("set-period", b"\xa1\x69period_ms\x1a\x05\x26\x5c\x01", BadOrder::SetPeriod),
            ("set-period", b"\xa1\x69period_ms\x20", BadOrder::SetPeriod),
            ("set-period", b"\xa2\x69period_ms\x18\x64\x65sensr\x61x", BadOrder::SetPeriod),
            ("set-period", b"\xa2\x69period_ms\x18\x64\x66sensor\x61.", BadOrder::SetPeriod),
            ("set-period", b"\xa1\x69period_ms\x18\x64\x00", BadOrder::SetPeriod),
            ("set-limit", b"\xa1\x65limit\x05", BadOrder::SetLimit),
            ("set-limit", b"\xa1\x66sensor\x61x", BadOrder::SetLimit),
            ("set-limit", b"\xa2\x66sensor\x61x\x65limit\xf9\x7e\x00", BadOrder::SetLimit),
            ("set-limit", b"\xa3\x66sensor\x61x\x65limit\x05\x6ahysteresis\x20", BadOrder::SetLimit),
            ("identify", b"\xa1\x61x\x01", BadOrder::NoArguments),
        ];
        for (name, args, refusal) in cases {
            assert_eq!(order(name, args), Err(refusal), "{name} {args:02x?}");
        }
    }

    #[test]
    fn arguments_cut_anywhere_are_refused() {
        let mut args: Vec<u8> = std::vec![0; 100];
        let given = Order::SetLimit { sensor: sensor(), limit: Some(1.0e300), hysteresis: 0.5 };
        let len = given.write_args(&mut args).expect("room");
        for end in 0..len {
            assert_eq!(order("set-limit", &args[..end]), Err(BadOrder::SetLimit), "cut at {end}");
        }
    }
}
