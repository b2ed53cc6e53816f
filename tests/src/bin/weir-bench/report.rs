//! What was measured: each number with its unit, what it was meant to reach, and whether it did.

use std::path::Path;

use anyhow::Result;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// A number's unit, and how it is written.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things in a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Hundredths of one core.
    PercentOfCore,
    /// One number divided by another.
    Times,
}

/// What a number was meant to reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// Less than this.
    Under(f64),
    /// Told, with no target.
    None,
}

impl Target {
    fn reached(self, value: f64) -> Option<bool> {
        match self {
            Target::AtLeast(least) => Some(value >= least),
            Target::Under(most) => Some(value < most),
            Target::None => None,
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    group: &'static str,
    name: String,
    value: f64,
    unit: Unit,
    target: Target,
    reached: Option<bool>,
}

/// All numbers, in the order they were measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What they were measured on.
    pub machine: String,
    /// Whether sizes were scaled down, so that targets for size say little.
    quick: bool,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    /// An empty one.
    pub fn new(machine: String, quick: bool) -> Report {
        Report { machine, quick, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a number, and says it at once: a bench takes minutes.
    pub fn add(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: Unit,
        target: Target,
    ) {
        let row = Row { group, name: name.into(), value, unit, target, reached: target.reached(value) };
        eprintln!("  {:<58} {:>14}  {}", row.name, written(value, unit), verdict(&row));
        self.rows.push(row);
    }

    /// Adds a sentence about what the numbers do not say.
    pub fn note(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        eprintln!("  ({sentence})");
        self.notes.push(sentence);
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["", "what", "measured", "target", "reached"]);
        let mut group = "";
        for row in &self.rows {
            let shown = if row.group == group { "" } else { row.group };
            group = row.group;
            let target = match row.target {
                Target::AtLeast(least) => format!("≥ {}", written(least, row.unit)),
                Target::Under(most) => format!("< {}", written(most, row.unit)),
                Target::None => String::new(),
            };
            table.add_row([shown, &row.name, &written(row.value, row.unit), &target, verdict(row)]);
        }
        for column in [2, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// The sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// For programs.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

fn verdict(row: &Row) -> &'static str {
    match row.reached {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    }
}

fn written(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
        Unit::Milliseconds => format!("{} ms", grouped(value)),
        Unit::Bytes if value >= 1e6 => format!("{:.1} MB", value / 1e6),
        Unit::Bytes if value >= 1e4 => format!("{:.1} KB", value / 1e3),
        Unit::Bytes => format!("{value:.1} B"),
        Unit::PercentOfCore => format!("{value:.2} %"),
        Unit::Times => format!("{value:.2} ×"),
    }
}

/// A whole number with its thousands apart: `1,234,567`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_their_unit() {
        assert_eq!(written(1_234_567.4, Unit::PerSecond), "1,234,567/s");
        assert_eq!(written(0.5, Unit::Milliseconds), "0.50 ms");
        assert_eq!(written(24e6, Unit::Bytes), "24.0 MB");
        assert_eq!(written(9_999.0, Unit::Bytes), "9999.0 B");
    }

    #[test]
    fn a_target_is_reached_or_not() {
        assert_eq!(Target::AtLeast(2.0).reached(2.0), Some(true));
        assert_eq!(Target::Under(2.0).reached(2.0), Some(false));
        assert_eq!(Target::None.reached(2.0), None);
    }
}
