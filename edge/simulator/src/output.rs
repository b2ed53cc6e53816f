//! Results for people (tables) and for programs (JSON).

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies of acknowledgements, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Half of them were faster.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p99_9: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// The greatest latency that can be told from a greater one: ten minutes.
    const MICROSECONDS_MAX: u64 = 600_000_000;

    /// For latencies in microseconds, to three digits.
    pub fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, Self::MICROSECONDS_MAX, 3).expect("bounds that hdrhistogram allows")
    }

    /// Of a histogram of microseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let ms = |microseconds: u64| microseconds as f64 / 1000.0;
        Some(Self {
            p50: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            p99_9: ms(histogram.value_at_quantile(0.999)),
            max: ms(histogram.max()),
        })
    }

    /// `p50 / p99 / p99.9 / max`, for a table.
    pub fn line(latency: Option<&Self>) -> String {
        latency.map_or_else(
            || "-".into(),
            |l| format!("{:.2} / {:.2} / {:.2} / {:.2} ms", l.p50, l.p99, l.p99_9, l.max),
        )
    }
}

/// A table of names and values, values to the right.
pub fn table(rows: &[(&str, String)]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    for (name, value) in rows {
        table.add_row([*name, value.as_str()]);
    }
    if let Some(values) = table.column_mut(1) {
        values.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A whole number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number per second, rounded, with its thousands apart.
pub fn grouped_rate(per_s: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let whole = per_s.round() as u64;
    format!("{}/s", grouped(whole))
}

/// One line of JSON on standard output.
///
/// # Errors
/// Standard output is closed.
pub fn print_json(value: &impl Serialize) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let numbers = [0, 999, 1000, 1_234_567, u64::MAX].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn latencies_come_in_milliseconds() {
        let mut histogram = Latency::histogram();
        assert!(Latency::of(&histogram).is_none());
        for ms in 1..=1000 {
            histogram.record(ms * 1000).expect("in bounds");
        }
        let latency = Latency::of(&histogram).expect("not empty");
        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.p99_9 - 999.0).abs() < 1.0, "{latency:?}");
    }
}
