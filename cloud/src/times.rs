//! Times as people and programs write them. Pure: whoever calls says what time it is now.
//!
//! Inside Weir a time is Unix milliseconds. Outside it is RFC 3339 in UTC with milliseconds, `2026-11-20T18:40:59.123Z`.

use std::fmt;

use jiff::fmt::temporal::DateTimePrinter;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::store::types::TIME_MS_MAX;

/// RFC 3339 in UTC, always with three decimals. Times beyond the year 9999 are written as its end.
pub fn rfc3339(unix_ms: u64) -> String {
    let unix_ms = i64::try_from(unix_ms.min(TIME_MS_MAX)).expect("the year 9999 fits");
    // The largest `Timestamp` is a day before the end of 9999, so that it has a civil time in every time zone.
    let moment = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::MAX);
    DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&moment)
}

/// How long before (or after) `now_ms`, in its two largest units: `10m ago`, `2h 5m ago`, `in 3s`, `now`.
pub fn ago(unix_ms: u64, now_ms: u64) -> String {
    match now_ms.abs_diff(unix_ms) {
        0..1_000 => "now".to_owned(),
        age_ms if unix_ms <= now_ms => format!("{} ago", duration(age_ms)),
        age_ms => format!("in {}", duration(age_ms)),
    }
}

/// A length of time in its two largest units: `850ms`, `12s`, `2h 5m`, `3d 1h`.
pub fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let Some(largest) = UNITS.iter().position(|(unit_ms, _)| ms >= *unit_ms) else {
        return format!("{ms}ms");
    };
    let (unit_ms, name) = UNITS[largest];
    let first = format!("{}{name}", ms / unit_ms);
    match UNITS.get(largest + 1).map(|(small_ms, small)| (ms % unit_ms / small_ms, small)) {
        Some((rest, small)) if rest > 0 => format!("{first} {rest}{small}"),
        _ => first,
    }
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTime {
    text: String,
    allowed: &'static str,
}

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a time; allowed: {}", self.text, self.allowed)
    }
}

impl std::error::Error for BadTime {}

/// What [`parse_absolute`] takes.
pub const ABSOLUTE: &str = "RFC 3339 with a time zone, as 2026-11-20T18:40:59Z, or Unix milliseconds";

/// What [`parse`] takes.
pub const RELATIVE: &str = "RFC 3339 with a time zone, as 2026-11-20T18:40:59Z; Unix milliseconds; `now`; \
                            or a time before now, as `10m ago`, `now-1h`, `2d`";

/// Reads RFC 3339 or Unix milliseconds, from 1970 to 9999.
///
/// # Errors
/// [`BadTime`] says what is allowed.
pub fn parse_absolute(text: &str) -> Result<u64, BadTime> {
    absolute(text).ok_or_else(|| BadTime { text: text.to_owned(), allowed: ABSOLUTE })
}

/// Reads a time as a person writes it: what [`parse_absolute`] takes, or one relative to now.
///
/// # Errors
/// [`BadTime`] says what is allowed.
pub fn parse(text: &str, now_ms: u64) -> Result<u64, BadTime> {
    let text = text.trim();
    let bad = || BadTime { text: text.to_owned(), allowed: RELATIVE };
    if text == "now" {
        return Ok(now_ms);
    }
    if let Some(moment) = absolute(text) {
        return Ok(moment);
    }
    let age = text
        .strip_suffix("ago")
        .or_else(|| text.strip_prefix("now").map(str::trim_start).and_then(|rest| rest.strip_prefix('-')))
        .unwrap_or(text);
    let age_ms = length(age.trim()).ok_or_else(bad)?;
    now_ms.checked_sub(age_ms).ok_or_else(bad)
}

fn absolute(text: &str) -> Option<u64> {
    let unix_ms = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<u64>().ok()?
    } else {
        u64::try_from(text.parse::<Timestamp>().ok()?.as_millisecond()).ok()?
    };
    (unix_ms <= TIME_MS_MAX).then_some(unix_ms)
}

/// A length of time: `10m`, `1h 30m`, `2 days`, `1w`. Not months or years, whose length depends on when.
pub fn length(text: &str) -> Option<u64> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let span: Span = text.parse().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    u64::try_from(length.as_millis()).ok()
}

#[cfg(test)]
mod tests;
