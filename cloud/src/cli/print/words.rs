//! Words and numbers for people.

use crate::api::types::Position;
use crate::times::duration;

/// How text is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether the terminal's colours may be used.
    pub colours: bool,
}

/// What a piece of text is to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// What the eye should find first.
    Strong,
    /// What it may skip.
    Dim,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

impl Tone {
    /// [`Tone::Warning`], unless all is well.
    pub fn warning_unless(well: bool) -> Tone {
        if well { Tone::Plain } else { Tone::Warning }
    }

    /// [`Tone::Bad`], unless all is well.
    pub fn bad_unless(well: bool) -> Tone {
        if well { Tone::Plain } else { Tone::Bad }
    }
}

impl Style {
    /// `text` in the terminal's rendition of `tone`.
    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            _ if !self.colours => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Text of a stranger, with its control characters escaped.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A number with its thousands set off: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 event`, `1,234 events`.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A size: `812 B`, `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// Ranges, both ends included: `1–4711, 4713`; of more than `most` it is said how many there are.
pub fn ranges(ranges: &[(u32, u32)], most: usize) -> String {
    if ranges.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(most)
        .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}–{to}") })
        .collect();
    let shown = shown.join(", ");
    match ranges.len().checked_sub(most) {
        Some(more) if more > 0 => format!("{shown} and {}", counted(more as u64, "more range")),
        _ => shown,
    }
}

/// How far the log has been folded, in a sentence.
pub fn position(position: &Position, style: Style) -> String {
    let at = format!("folded to {}", count(position.stream_sequence));
    let lag = match (position.lag_messages, position.lag_seconds) {
        (Some(0), _) => style.paint("up to date", Tone::Good),
        (Some(messages), Some(seconds)) => {
            let behind = format!("{} ({}) behind", counted(messages, "message"), seconds_long(seconds));
            style.paint(&behind, Tone::Warning)
        }
        (Some(messages), None) => {
            style.paint(&format!("{} behind", counted(messages, "message")), Tone::Warning)
        }
        (None, _) => "how far behind is unknown".to_owned(),
    };
    match (position.reading, &position.trouble) {
        (Some(false), Some(trouble)) => {
            format!("{at}, {lag}; {}", style.paint(&format!("not being read: {}", plain(trouble)), Tone::Bad))
        }
        (Some(false), None) => format!("{at}, {lag}; {}", style.paint("not being read", Tone::Bad)),
        _ => format!("{at}, {lag}"),
    }
}

/// Seconds as a length of time.
pub fn seconds_long(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
    let ms = (seconds.max(0.0) * 1_000.0) as u64;
    duration(ms)
}
