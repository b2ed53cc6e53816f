//! Values and times out of what others write: numbers stay exact.

use serde_json::{Number, Value as Json};
use weir_contract::Text;
use weir_contract::body::Scalar;

/// The longest text that is a value.
pub const TEXT_BYTES_MAX: usize = 256;
/// 2000-01-01 to 2100-01-01: a clock that says something else is not set.
const TIME_MS: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;

/// A value of a reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Any other number; finite.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Words, at most [`TEXT_BYTES_MAX`] bytes.
    Text(Box<str>),
}

impl Value {
    /// As the contract has it.
    pub fn scalar(&self) -> Scalar<'_> {
        match self {
            Value::Int(value) => Scalar::Int(*value),
            Value::Float(value) => Scalar::Float(*value),
            Value::Bool(value) => Scalar::Bool(*value),
            Value::Text(value) => Scalar::Text(Text::from(&**value)),
        }
    }
}

/// `digits` × 10^`exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    /// Reads what JSON, TOML and Rust write of numbers: `-12.50e3`. `None` for what is none, or has more than 38 digits.
    pub fn parse(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let unsigned = whole.strip_prefix(['-', '+']).unwrap_or(whole);
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if (unsigned.is_empty() && fraction.is_empty()) || !is_number(unsigned) || !is_number(fraction) {
            return None;
        }
        let digits: i128 = [whole, fraction].concat().parse().ok()?;
        let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        Some(Decimal { digits, exponent })
    }

    /// The number as it is written shortest.
    pub fn of(number: f64) -> Option<Decimal> {
        Decimal::parse(&format!("{number:e}"))
    }

    fn times(self, other: Decimal) -> Option<Decimal> {
        let digits = self.digits.checked_mul(other.digits)?;
        Some(Decimal { digits, exponent: self.exponent.checked_add(other.exponent)? })
    }

    fn plus(self, other: Decimal) -> Option<Decimal> {
        let exponent = self.exponent.min(other.exponent);
        let at = |decimal: Decimal| {
            let shift = u32::try_from(decimal.exponent.checked_sub(exponent)?).ok()?;
            decimal.digits.checked_mul(10_i128.checked_pow(shift)?)
        };
        Some(Decimal { digits: at(self)?.checked_add(at(other)?)?, exponent })
    }

    /// A whole number that fits, if it is one.
    fn whole(self) -> Option<i64> {
        if let Ok(shift) = u32::try_from(self.exponent) {
            let whole = self.digits.checked_mul(10_i128.checked_pow(shift)?)?;
            return i64::try_from(whole).ok();
        }
        let unit = 10_i128.checked_pow(self.exponent.unsigned_abs())?;
        (self.digits % unit == 0).then(|| i64::try_from(self.digits / unit).ok()).flatten()
    }

    /// The nearest float; `None` beyond the greatest.
    fn float(self) -> Option<f64> {
        let nearest: f64 = format!("{}e{}", self.digits, self.exponent).parse().ok()?;
        nearest.is_finite().then_some(nearest)
    }
}

/// How a number is made another: multiplied, then added to; in decimal digits, so that 2157 × 0.01 is 21.57.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    /// By what it is multiplied.
    pub scale: Decimal,
    /// What is added.
    pub offset: Decimal,
}

impl Scaling {
    fn of(self, number: &Number) -> Option<Value> {
        let scaled = Decimal::parse(&number.to_string())?.times(self.scale)?.plus(self.offset)?;
        scaled.whole().map(Value::Int).or_else(|| scaled.float().map(Value::Float))
    }
}

/// A number, perhaps scaled. `None` if the result is no number that can be kept.
pub fn number(number: &Number, scaling: Option<Scaling>) -> Option<Value> {
    match scaling {
        Some(scaling) => scaling.of(number),
        None => number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Float)),
    }
}

/// The number a text is.
pub fn number_in(text: &str) -> Option<Number> {
    let text = text.trim();
    let float = || {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        text.parse().ok().filter(|_| plain).and_then(Number::from_f64)
    };
    text.parse().ok().or_else(float)
}

/// Yes or no, in the words people use for it.
pub fn yes_or_no(json: &Json) -> Option<bool> {
    match json {
        Json::Bool(value) => Some(*value),
        Json::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Json::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Json::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "online" | "open" | "1" => Some(true),
            "false" | "off" | "no" | "offline" | "closed" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFormat {
    /// `2026-11-21T16:00:00.123Z`, or with an offset.
    #[serde(rename = "rfc3339")]
    Rfc3339,
    /// Seconds since 1970, perhaps with a fraction.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
}

/// Unix milliseconds; `None` for what is no such time, or none of a clock that is set.
pub fn time_ms(json: &Json, format: TimeFormat) -> Option<u64> {
    let number = match json {
        Json::Number(number) => Some(number.clone()),
        Json::String(text) => number_in(text),
        _ => None,
    };
    let shifted = |exponent| {
        let decimal = Decimal::parse(&number.as_ref()?.to_string())?;
        let ms = Decimal { exponent: decimal.exponent.checked_add(exponent)?, ..decimal };
        // What is finer than a millisecond is cut off.
        ms.whole().or_else(|| ms.float().filter(|ms| ms.abs() < 1e15).map(truncate))
    };
    let ms = match format {
        TimeFormat::Rfc3339 => json.as_str()?.trim().parse::<jiff::Timestamp>().ok()?.as_millisecond(),
        TimeFormat::UnixS => shifted(3)?,
        TimeFormat::UnixMs => shifted(0)?,
    };
    TIME_MS.contains(&ms).then(|| ms.unsigned_abs())
}

#[expect(clippy::cast_possible_truncation, reason = "cutting off is what it is for; it is below 1e15")]
fn truncate(ms: f64) -> i64 {
    ms as i64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scaled(number_text: &str, scale: f64, offset: f64) -> Option<Value> {
        let scaling = Scaling { scale: Decimal::of(scale)?, offset: Decimal::of(offset)? };
        number(&number_text.parse().unwrap(), Some(scaling))
    }

    #[test]
    fn scaling_is_done_in_decimal_digits() {
        assert_eq!(scaled("2157", 0.01, 0.0), Some(Value::Float(21.57)));
        assert_eq!(scaled("1013.25", 100.0, 0.0), Some(Value::Int(101_325)));
        assert_eq!(scaled("0.1", 3.0, 0.0), Some(Value::Float(0.3)));
        assert_eq!(scaled("12.345", 3_600_000.0, 0.0), Some(Value::Int(44_442_000)));
        assert_eq!(scaled("70", 0.1, -273.15), Some(Value::Float(-266.15)));
        assert_eq!(scaled("-9223372036854775808", 1.0, 0.0), Some(Value::Int(i64::MIN)));
        assert_eq!(scaled("1e308", 1000.0, 0.0), None);
    }

    #[test]
    fn numbers_stay_what_they_are() {
        let read = |text: &str| number(&text.parse().unwrap(), None);
        assert_eq!(read("9007199254740993"), Some(Value::Int(9_007_199_254_740_993)));
        assert_eq!(read("18446744073709551615"), Some(Value::Float(18_446_744_073_709_551_615.0)));
        assert_eq!(read("21.50"), Some(Value::Float(21.5)));
        // The nearest float needs all digits: reading fast and nearly right gives another.
        for text in ["0.1234567890123456789", "9.5367431640625001e-7", "7.2057594037927933e16"] {
            assert_eq!(read(text), Some(Value::Float(text.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn texts_that_are_numbers_are_read_and_others_not() {
        for (text, value) in [(" 21.5\n", 21.5), ("+4", 4.0), ("007", 7.0), ("1e3", 1000.0)] {
            assert_eq!(number_in(text).and_then(|number| number.as_f64()), Some(value), "{text}");
        }
        for wrong in ["", "nan", "inf", "12 C", "0x10", "1e999", "--1"] {
            assert_eq!(number_in(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_read_in_three_ways_and_clocks_that_are_not_set_are_not_believed() {
        use TimeFormat::{Rfc3339, UnixMs, UnixS};
        let cases = [
            (json!("2026-11-21T16:00:00.123Z"), Rfc3339, Some(1_795_276_800_123)),
            (json!("2026-11-21T17:00:00+01:00"), Rfc3339, Some(1_795_276_800_000)),
            (json!("2026-11-21T17:00:00"), Rfc3339, None),
            (json!(1_795_276_800), UnixS, Some(1_795_276_800_000)),
            (json!(1_795_276_800.123_9), UnixS, Some(1_795_276_800_123)),
            (json!("1795276800"), UnixS, Some(1_795_276_800_000)),
            (json!(1_795_276_800_123_u64), UnixMs, Some(1_795_276_800_123)),
            (json!(12), UnixS, None),
            (json!(1e300), UnixS, None),
            (json!(null), UnixMs, None),
        ];
        for (json, format, expected) in cases {
            assert_eq!(time_ms(&json, format), expected, "{json} {format:?}");
        }
    }
}
