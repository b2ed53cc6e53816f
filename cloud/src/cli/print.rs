//! Answers as text for people. Pure: what is printed depends on the answer, the style and `now_ms`.
//!
//! Texts of devices are printed with their control characters escaped: no device moves somebody's cursor.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use crate::api::json::Json;
use crate::api::types::{Boots, DeadLetter, Device, Event, Opaque, Sensor, State, Status, Time};
use crate::times::{ago, duration, rfc3339};

mod words;

pub use words::{Style, Tone, count, counted, plain, ranges, seconds_long};

/// Ranges shown of a boot before it is said how many more there are.
const RANGES_MAX: usize = 8;

/// Width of the names before values.
const LABEL_WIDTH: usize = 12;

/// The list of devices.
pub fn devices(devices: &[Device], style: Style, now_ms: u64) -> String {
    if devices.is_empty() {
        return "no devices yet: nothing has arrived. `weir doctor` looks why\n".to_owned();
    }
    let age = |time: Option<Time>| time.map_or_else(unknown, |Time(ms)| ago(ms, now_ms));
    let mut table = Columns::new(
        style,
        &[
            "<DEVICE",
            "<SITE",
            "<GATEWAY",
            "<CONNECTED",
            "<LAST EVENT",
            "<RECEIVED",
            "<FIRMWARE",
            ">BOOTS",
            ">EVENTS",
            ">LOST",
            ">MISSING",
        ],
    );
    for device in devices {
        table.row(vec![
            (device.device.clone(), Tone::Plain),
            (device.site.clone().unwrap_or_else(unknown), Tone::Plain),
            (device.gateway.clone().unwrap_or_else(unknown), Tone::Plain),
            connected(device.connected),
            (age(device.last_event_at), Tone::Plain),
            (age(device.last_received_at), Tone::Plain),
            (device.firmware.as_deref().map_or_else(unknown, plain), Tone::Plain),
            (count(device.boots), Tone::Plain),
            (count(device.events), Tone::Plain),
            (count(device.lost), Tone::warning_unless(device.lost == 0)),
            (count(device.missing), Tone::bad_unless(device.missing == 0)),
        ]);
    }
    let up = devices.iter().filter(|device| device.connected == Some(true)).count();
    format!("{}\n{}, {up} connected\n", table.finish(), counted(devices.len() as u64, "device"))
}

/// The state of a device.
pub fn state(state: &State, style: Style, now_ms: u64) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{}{value}", style.paint(&format!("{label:<LABEL_WIDTH$}"), Tone::Dim));
    };
    // Ages are told against the moment that was asked for.
    let moment_ms = state.at.map_or(now_ms, |Time(ms)| ms);
    let when = |Time(ms): Time| match state.at {
        None => format!("{} ({})", rfc3339(ms), ago(ms, now_ms)),
        Some(_) if ms <= moment_ms => format!("{} ({} earlier)", rfc3339(ms), duration(moment_ms - ms)),
        Some(_) => rfc3339(ms),
    };
    line("device", style.paint(&state.device, Tone::Strong));
    line(
        "state at",
        match state.at {
            None => format!("{} (now)", rfc3339(now_ms)),
            Some(Time(ms)) => format!("{} ({})", rfc3339(ms), ago(ms, now_ms)),
        },
    );
    if let (Some(site), Some(gateway)) = (&state.site, &state.gateway) {
        line("heard by", format!("{gateway} at {site}"));
    }
    line("connected", connection(state, style, when));
    if let Some(firmware) = &state.firmware {
        let (fw, hw, reason) = (plain(&firmware.fw), plain(&firmware.hw), plain(&firmware.reason));
        line("firmware", format!("{fw} on {hw}, started {} ({reason})", when(firmware.origin.at)));
    }
    if let Some(Opaque(boot)) = state.boot {
        line("boot", boot.to_string());
    }
    if let Some(last) = state.last_event_at {
        line("last event", when(last));
    }
    if let Some(last) = state.last_received_at {
        line("received", when(last));
    }
    let lost = style.paint(&format!("{} lost", count(state.lost)), Tone::warning_unless(state.lost == 0));
    let missing =
        style.paint(&format!("{} missing", count(state.missing)), Tone::bad_unless(state.missing == 0));
    line("events", format!("{} stored, {lost}, {missing}", count(state.events)));
    if let Some(config) = &state.config {
        line(
            "config",
            format!(
                "revision {}, applied {}: {}",
                config.revision,
                when(config.origin.at),
                value(&config.config)
            ),
        );
    }
    for command in &state.commands {
        let why =
            command.reason.as_deref().map_or_else(String::new, |reason| format!(" ({})", plain(reason)));
        line(
            "command",
            format!("{} {}{why} {}", plain(&command.id), command.outcome, when(command.origin.at)),
        );
    }
    if state.at.is_some() && state.last_event_at.is_none() {
        text.push_str("\nnothing of it had happened by then, as far as is known\n");
    }
    if !state.sensors.is_empty() {
        text.push('\n');
        text.push_str(&sensors(state, style, moment_ms));
    }
    text
}

fn connection(state: &State, style: Style, when: impl Fn(Time) -> String) -> String {
    let (word, tone) = connected(state.connected);
    let mut said = style.paint(&word, tone);
    if let Some(changed_at) = state.connection_changed_at {
        let _ = write!(said, ", since {}", when(changed_at));
    }
    if let (Some(gateway), Some(detail)) = (&state.connection_gateway, &state.connection_detail) {
        let _ = write!(said, "; {gateway} says: {}", plain(detail));
    }
    said
}

fn sensors(state: &State, style: Style, moment_ms: u64) -> String {
    let mut table =
        Columns::new(style, &["<SENSOR", ">VALUE", "<UNIT", "<OBSERVED", "<AGE", "<CLOCK", "<LIMIT"]);
    for (name, sensor) in &state.sensors {
        let age = sensor.at.map_or_else(unknown, |Time(ms)| {
            if ms <= moment_ms { duration(moment_ms - ms) } else { ago(ms, moment_ms) }
        });
        let (limit, tone) = limit(sensor);
        table.row(vec![
            (name.clone(), Tone::Plain),
            (value(&sensor.value), Tone::Strong),
            (sensor.unit.as_deref().map_or_else(String::new, plain), Tone::Plain),
            (sensor.at.map_or_else(unknown, |Time(ms)| rfc3339(ms)), Tone::Plain),
            (age, Tone::Plain),
            (sensor.clock.clone().unwrap_or_else(unknown), Tone::Dim),
            (limit, tone),
        ]);
    }
    table.finish()
}

fn limit(sensor: &Sensor) -> (String, Tone) {
    match &sensor.limit {
        None => (String::new(), Tone::Plain),
        Some(limit) => {
            let (way, tone) = if limit.rising { ("above", Tone::Warning) } else { ("below", Tone::Plain) };
            (format!("{way} {} since {}", value(&limit.limit), rfc3339(limit.origin.at.0)), tone)
        }
    }
}

/// The line above the events of another boot.
pub fn boot_heading(Opaque(boot): Opaque, style: Style) -> String {
    format!("{}\n", style.paint(&format!("boot {boot}"), Tone::Dim))
}

/// An event of history.
pub fn event(event: &Event, style: Style) -> String {
    let clock = if event.clock == "unknown" { "≤" } else { " " };
    let kind = style.paint(&format!("{:<18}", event.kind), Tone::Strong);
    format!("{clock}{} {:>8}  {kind} {}\n", rfc3339(event.at.0), event.seq, body(&event.body))
}

/// A body as `key=value`, for people.
fn body(body: &Json) -> String {
    match body {
        Json::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, inner)| format!("{}={}", plain(key), value(inner))).collect();
            entries.join(" ")
        }
        other => value(other),
    }
}

/// A value as one word: text without quotes where that cannot be misread, else JSON.
fn value(value: &Json) -> String {
    match value {
        Json::Text(text)
            if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "._-:/%".contains(c)) =>
        {
            text.clone()
        }
        other => plain(&other.to_string()),
    }
}

/// What became of each boot.
pub fn boots(boots: &Boots, style: Style) -> String {
    let mut text = String::new();
    for boot in &boots.boots {
        let began = boot.began_at.map_or_else(|| "at an unknown time".to_owned(), |Time(ms)| rfc3339(ms));
        let heading = style.paint(&format!("boot {}", boot.boot.0), Tone::Strong);
        let _ = writeln!(text, "{heading}, began {began}");
        let mut line = |label: &str, value: String, tone: Tone| {
            let _ = writeln!(text, "  {label:<9}{}", style.paint(&value, tone));
        };
        let again = match boot.duplicates {
            0 => String::new(),
            again => format!("; {} more that arrived again, dropped", count(again)),
        };
        line(
            "stored",
            format!("{}: {}{again}", counted(boot.events, "event"), ranges(&boot.stored, RANGES_MAX)),
            Tone::Plain,
        );
        let in_runs: u64 = boot.stored.iter().map(|(from, to)| u64::from(*to) - u64::from(*from) + 1).sum();
        if in_runs != boot.events {
            let said =
                format!("{} numbers are marked as stored, but {} are", count(in_runs), count(boot.events));
            line("DEFECT", said, Tone::Bad);
        }
        for lost in boot.lost.iter().take(RANGES_MAX) {
            let range = ranges(&[(lost.from, lost.to)], 1);
            line("lost", format!("{range}: {}, says {}", plain(&lost.reason), lost.by), Tone::Warning);
        }
        if boot.lost.len() > RANGES_MAX {
            line("", format!("and {} more ranges", boot.lost.len() - RANGES_MAX), Tone::Warning);
        }
        if !boot.missing.is_empty() {
            line("missing", ranges(&boot.missing, RANGES_MAX), Tone::Bad);
        }
    }
    if text.is_empty() { format!("{} has sent no events itself\n", boots.device) } else { text }
}

/// A dead letter.
pub fn dead_letter(letter: &DeadLetter, style: Style) -> String {
    let mut place = format!("message {} on {}", letter.stream_sequence, plain(&letter.subject));
    if let Some(number) = letter.number {
        let _ = write!(place, ", uplink {number}");
    }
    if let Some(device) = &letter.device {
        let _ = write!(place, " of {device}");
    }
    if let (Some(Opaque(boot)), Some(seq)) = (letter.boot, letter.seq) {
        let _ = write!(place, ", event {boot}/{seq}");
    }
    let bytes = letter.bytes.len() * 3 / 4;
    format!(
        "{} {} {}\n    {place}; {bytes} bytes, in full with --json\n",
        style.paint(&format!("#{}", letter.id), Tone::Strong),
        rfc3339(letter.logged_at.0),
        style.paint(&plain(&letter.reason), Tone::Bad),
    )
}

/// How the service is.
pub fn status(status: &Status, style: Style, now_ms: u64) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{}{value}", style.paint(&format!("{label:<LABEL_WIDTH$}"), Tone::Dim));
    };
    line("weir-cloud", format!("{} (role {})", status.version, status.role));
    line(
        "nats",
        match status.nats.connected {
            Some(true) => style.paint("connected", Tone::Good),
            Some(false) => style.paint("not connected", Tone::Bad),
            None => "not asked by this process, which only answers queries".to_owned(),
        },
    );
    line("log", words::position(&status.position, style));
    let store = &status.store;
    line(
        "store",
        format!(
            "{} of {}, {}",
            counted(store.events, "event"),
            counted(store.devices, "device"),
            words::bytes(store.file_bytes)
        ),
    );
    line("again", format!("{} that arrived again, dropped", counted(store.duplicates, "event")));
    line(
        "unreadable",
        style.paint(
            &counted(store.dead_letters, "dead letter"),
            Tone::warning_unless(store.dead_letters == 0),
        ),
    );
    if store.gateways.is_empty() {
        return text;
    }
    let mut table = Columns::new(
        style,
        &["<GATEWAY", "<SITE", "<LANE", "<INCARNATION", ">UPLINKS TO", ">NOT ARRIVED", "<LAST ARRIVED"],
    );
    for gateway in &store.gateways {
        table.row(vec![
            (gateway.gateway.clone(), Tone::Plain),
            (gateway.site.clone(), Tone::Plain),
            (gateway.lane.clone(), Tone::Plain),
            (gateway.incarnation.0.to_string(), Tone::Dim),
            (count(gateway.last_number), Tone::Plain),
            (count(gateway.missing_count), Tone::bad_unless(gateway.missing_count == 0)),
            (ago(gateway.last_logged_at.0, now_ms), Tone::Plain),
        ]);
    }
    format!("{text}\n{}", table.finish())
}

fn connected(connected: Option<bool>) -> (String, Tone) {
    match connected {
        Some(true) => ("yes".to_owned(), Tone::Good),
        Some(false) => ("no".to_owned(), Tone::Warning),
        None => (unknown(), Tone::Plain),
    }
}

fn unknown() -> String {
    "-".to_owned()
}

/// Aligned columns under a heading, without lines.
struct Columns {
    table: Table,
    style: Style,
}

impl Columns {
    /// `<NAME` is aligned to the left, `>NAME` to the right.
    fn new(style: Style, headings: &[&str]) -> Columns {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if style.colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(
            headings.iter().map(|heading| Cell::new(&heading[1..]).add_attribute(Attribute::Bold)),
        );
        for (column, heading) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Columns { table, style }
    }

    fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.table.add_row(cells.into_iter().map(|(text, tone)| {
            let cell = Cell::new(text);
            match tone {
                Tone::Plain => cell,
                Tone::Strong => cell.add_attribute(Attribute::Bold),
                Tone::Dim => cell.add_attribute(Attribute::Dim),
                Tone::Good => cell.fg(Color::Green),
                Tone::Warning => cell.fg(Color::Yellow),
                Tone::Bad => cell.fg(Color::Red),
            }
        }));
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for line in self.table.lines() {
            text.push_str(if self.style.colours { &line } else { line.trim_end() });
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests;
