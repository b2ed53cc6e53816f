//! Values with limits, for `#[serde(deserialize_with = …)]`: what does not fit is refused at its line in the file.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;
use weir_contract::Id;

/// An identifier: `[A-Za-z0-9_-]{1,32}`.
///
/// # Errors
/// Anything else.
pub fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|bad| D::Error::custom(format!("{text:?} is no identifier: {bad}")))
}

/// A whole number from `MIN` to `MAX`.
///
/// # Errors
/// Anything else.
pub fn between<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u64, D::Error> {
    let value = i64::deserialize(deserializer)?;
    u64::try_from(value)
        .ok()
        .filter(|value| (MIN..=MAX).contains(value))
        .ok_or_else(|| D::Error::custom(format!("{value} is not between {MIN} and {MAX}")))
}

/// A number of bytes: a whole number, or text such as `"64 KiB"`, `"256 MiB"`, `"2 GiB"`, from `MIN` to `MAX`.
///
/// # Errors
/// Anything else.
pub fn bytes<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u64, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "expected a number of bytes, such as 1048576 or \"1 MiB\"")]
    enum Bytes {
        Number(u64),
        Text(String),
    }
    let value = match Bytes::deserialize(deserializer)? {
        Bytes::Number(value) => value,
        Bytes::Text(text) => parse_bytes(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no number of bytes; say 1048576, \"1024 KiB\" or \"1 MiB\""
            ))
        })?,
    };
    if (MIN..=MAX).contains(&value) {
        return Ok(value);
    }
    Err(D::Error::custom(format!("{} is not between {} and {}", show(value), show(MIN), show(MAX))))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// As [`id`] and the like read it.
///
/// # Errors
/// The serializer's.
pub fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// As [`bytes`] reads it: with a unit where that is exact.
///
/// # Errors
/// The serializer's.
pub fn as_bytes<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = show(*bytes);
    match parse_bytes(&text).filter(|same| same == bytes) {
        Some(_) => serializer.serialize_str(&text),
        None => serializer.serialize_u64(*bytes),
    }
}

/// A number of bytes for people: `0 B`, `1.5 MiB`.
#[must_use]
pub fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let scale = 1_u64 << (10 * unit);
    let (whole, tenths) = (bytes / scale, bytes % scale * 10 / scale);
    let unit = UNITS[unit];
    if tenths == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "bytes::<1024, 1073741824, _>")]
        size: u64,
    }

    fn size(text: &str) -> Result<u64, String> {
        toml::from_str::<Sample>(text).map(|sample| sample.size).map_err(|error| error.to_string())
    }

    #[test]
    fn bytes_are_a_number_or_a_number_with_a_unit() {
        assert_eq!(size("size = 4096"), Ok(4096));
        assert_eq!(size("size = \"64 KiB\""), Ok(65_536));
        assert_eq!(size("size = \"1MiB\""), Ok(1 << 20));
    }

    #[test]
    fn bytes_outside_the_limits_are_refused_with_the_limits() {
        let error = size("size = 12").expect_err("too small");
        assert!(error.contains("12 B is not between 1 KiB and 1 GiB"), "{error}");
        assert!(error.contains("line 1"), "{error}");
        for wrong in ["size = \"64 KB\"", "size = \"9999999999 TiB\"", "size = -1", "size = \"\""] {
            size(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn bytes_are_shown_short() {
        assert_eq!([0, 1023, 1024, 1536, 1 << 40].map(show), ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 TiB"]);
    }
}
