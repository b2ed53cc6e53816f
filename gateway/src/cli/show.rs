//! `weir-gateway status`, `spool`, `refusals`: ask the running gateway, show the answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use serde_json::Value;

use super::arguments::Ask;
use crate::admin::Status;
use crate::config::Config;
use crate::config::value::show as bytes;
use crate::running::ADDRESSES_FILE;
use crate::wear;

const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) fn status(ask: &Ask) -> Result<()> {
    let answer = get(ask, "/status")?;
    if ask.json {
        return json(&answer);
    }
    let status: Status = serde_json::from_value(answer).context("the answer is not a gateway's status")?;
    let mut table = table();
    let uplink = &status.uplink;
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("gateway", format!("{} at {} (version {})", status.gateway, status.site, status.version));
    row("running since", time(status.started_ms));
    if let Some(doubt) = status.clock_doubt {
        row("CLOCK NOT SET", doubt.in_words().to_owned());
    }
    row(
        "takes uplinks",
        match &status.custody.error {
            None => "yes".to_owned(),
            Some(error) => format!("NO: {error}"),
        },
    );
    row("uplink", text(&uplink["state"]));
    if let Some(trouble) = uplink["trouble"]["text"].as_str() {
        row("  because", trouble.to_owned());
        row("  what helps", text(&uplink["trouble"]["help"]));
        row("  failed tries", text(&uplink["failures"]));
    }
    row("  since", uplink["since_ms"].as_u64().map(time).unwrap_or_default());
    row("  server", text(&uplink["server"]));
    row("  last delivery", uplink["delivered_at_ms"].as_u64().map_or("none yet".to_owned(), time));
    row("taken", format!("{} uplinks", status.spool.next - 1));
    row("in the stream", format!("{} uplinks", status.spool.delivered.saturating_sub(1)));
    row(
        "waiting",
        match status.spool.oldest_age_ms {
            Some(age_ms) if status.spool.waiting > 0 => {
                format!("{} uplinks, the oldest for {}", status.spool.waiting, duration(age_ms))
            }
            _ => format!("{} uplinks", status.spool.waiting),
        },
    );
    if let Some(gone @ 1..) = uplink["gone"].as_u64() {
        row("GONE", format!("{gone} uplinks are neither in the stream nor in the spool any more"));
    }
    if status.spool.lost > 0 {
        let lost = status.spool.lost;
        row("DAMAGED", format!("{lost} uplinks are lost by damage on the disk, and told in the ledger"));
    }
    if status.spool.aside > 0 {
        let aside = status.spool.aside;
        row("set aside", format!("{aside} damaged epochs, in the folder damaged of the spool"));
    }
    if let Some((from, to)) = uplink["again"]["from"].as_u64().zip(uplink["again"]["to"].as_u64()) {
        row("sending again", format!("numbers {from} to {}, as it was asked to", to.saturating_sub(1)));
    }
    row("on disk", format!("{} of {}", bytes(status.spool.bytes), bytes(status.spool.budget_bytes)));
    if let Some(free) = status.spool.free_bytes {
        let keep = bytes(status.spool.free_min_bytes);
        row("free on its disk", format!("{}, {keep} of it to stay free", bytes(free)));
    }
    show_wear(&status.wear, &mut row);
    row("sent since start", sent(uplink));
    if let Some(ahead @ 1..) = uplink["ahead"].as_u64() {
        let left_out = uplink["ahead_left_out"].as_u64().unwrap_or_default();
        row("ahead of it", format!("copies of {ahead} new uplinks; {left_out} found no room"));
    }
    let commands = &status.commands;
    row("commands", waiting_commands(commands));
    if let Some(trouble) = commands["trouble"]["text"].as_str() {
        row("  none come", trouble.to_owned());
    }
    for broker in status.sources.as_array().into_iter().flatten() {
        for (name, value) in source(broker) {
            row(&name, value);
        }
    }
    println!("{table}");
    show_commands(commands);
    Ok(())
}

pub(super) fn spool(ask: &Ask) -> Result<()> {
    let answer = get(ask, "/spool")?;
    if ask.json {
        return json(&answer);
    }
    let mut table = table();
    table.set_header(["epoch", "first", "last", "uplinks", "bytes", "state"]);
    let delivered = answer["delivered"].as_u64().unwrap_or_default();
    for epoch in answer["epochs"].as_array().into_iter().flatten() {
        let number = |key: &str| epoch[key].as_u64().unwrap_or_default();
        let (first, end) = (number("first"), number("end"));
        let state = match () {
            () if epoch["open"] == true => "being written",
            () if end <= delivered => "delivered, kept",
            () if first < delivered => "being sent",
            () => "waiting",
        };
        table.add_row([
            text(&epoch["name"]),
            first.to_string(),
            end.saturating_sub(1).to_string(),
            end.saturating_sub(first).to_string(),
            bytes(number("bytes")),
            state.to_owned(),
        ]);
    }
    println!("{table}");
    println!(
        "incarnation {}; next number {}; delivered below {delivered}; {} waiting; {} of {}",
        text(&answer["incarnation"]),
        text(&answer["next"]),
        text(&answer["waiting"]),
        bytes(answer["bytes"].as_u64().unwrap_or_default()),
        bytes(answer["budget_bytes"].as_u64().unwrap_or_default()),
    );
    Ok(())
}

pub(super) fn refusals(ask: &Ask) -> Result<()> {
    let answer = get(ask, "/refusals")?;
    if ask.json {
        return json(&answer);
    }
    let refusals = answer["refusals"].as_array().context("the answer is not a gateway's refusals")?;
    if refusals.is_empty() {
        println!("nothing was refused since the gateway was started");
        return Ok(());
    }
    let mut table = table();
    table.set_header(["when", "client", "topic", "why", "bytes", "payload begins with"]);
    for refused in refusals {
        let begin: String = text(&refused["payload_hex"]).chars().take(32).collect();
        table.add_row([
            refused["at_ms"].as_u64().map(time).unwrap_or_default(),
            text(&refused["client"]),
            text(&refused["topic"]),
            text(&refused["said"]),
            text(&refused["payload_len"]),
            begin,
        ]);
    }
    println!("{table}");
    Ok(())
}

/// The flash, as far as something is known of it.
fn show_wear(wear: &wear::Status, row: &mut impl FnMut(&str, String)) {
    if let Some(written) = wear.written_bytes {
        let each = wear.bytes_per_event.map_or(String::new(), |each| format!(", {each:.0} B for each event"));
        row("written to disk", format!("{} in {}{each}", bytes(written), duration(1000 * wear.seconds)));
    }
    let Some(per_day) = wear.disk_bytes_per_day else { return };
    let all = format!("{} a day, by everybody", bytes(per_day));
    row(&format!("  to {}", wear.disk.as_deref().unwrap_or("its disk")), all);
    if let Some(days) = wear.lasts_days {
        let endurance = bytes(wear.endurance_bytes.unwrap_or_default());
        let lasts = match days {
            ..730 => format!("{days} days"),
            _ => format!("{} years", days / 365),
        };
        row("  a new card lasts", format!("{lasts} of that, with {endurance}"));
    }
    if let Some(percent) = wear.used_percent_max {
        row("  it says of itself", format!("up to {percent} % of its life is used"));
    }
}

/// Lines for one of other people's brokers.
fn source(broker: &Value) -> Vec<(String, String)> {
    let number = |key: &str| broker[key].as_u64().unwrap_or_default();
    let since = broker["since_ms"].as_u64().map(time).unwrap_or_default();
    let state = match broker["state"].as_str() {
        Some("held-back") => "connected; the spool is full, so nothing is taken".to_owned(),
        _ => text(&broker["state"]),
    };
    let from = text(&broker["broker"]);
    let mut lines =
        vec![(format!("source {}", text(&broker["name"])), format!("{from} {state}, since {since}"))];
    let mut line = |name: &str, value: String| lines.push((format!("  {name}"), value));
    if let Some(trouble) = broker["trouble"].as_str() {
        line("because", trouble.to_owned());
    }
    let (messages, readings, uplinks) = (number("messages"), number("readings"), number("uplinks"));
    line("since start", format!("{messages} messages: {readings} readings, {uplinks} uplinks"));
    let (known, marked) = (number("known_again"), number("marked_again"));
    if known + marked > 0 {
        line("came again", format!("{known} known and not stored again, {marked} stored and marked"));
    }
    if number("sessions_lost") > 0 {
        line(
            "FORGOTTEN",
            format!("{} times the broker had forgotten us, and what it had kept", number("sessions_lost")),
        );
    }
    if number("not_understood") > 0 {
        let last = &broker["last_not_understood"];
        let last = format!("the last on {}: {}", text(&last["topic"]), text(&last["said"]));
        line("not understood", format!("{}; {last}", number("not_understood")));
    }
    lines
}

fn waiting_commands(commands: &Value) -> String {
    let number = |key: &str| commands[key].as_u64().unwrap_or_default();
    let refused = match number("refused") {
        0 => String::new(),
        refused => format!("; {refused} refused since start"),
    };
    format!("{} wait for devices{refused}", number("pending"))
}

fn show_commands(commands: &Value) {
    let Some(waiting @ [_, ..]) = commands["waiting"].as_array().map(Vec::as_slice) else { return };
    let mut table = table();
    table.set_header(["device", "command", "id", "until", "state"]);
    for command in waiting {
        let state = match (&command["accepted"], &command["connected"]) {
            (Value::Bool(true), _) => "accepted",
            (_, Value::Bool(true)) => "sent, not answered",
            _ => "the device is not connected",
        };
        let until = command["deadline_ms"].as_u64().map(time).unwrap_or_default();
        let [device, name, id] = ["device", "name", "id"].map(|key| text(&command[key]));
        table.add_row([device, name, id, until, state.to_owned()]);
    }
    println!("\n{table}");
}

/// Asks the gateway's admin interface.
fn get(ask: &Ask, path: &str) -> Result<Value> {
    let address = address(ask)?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .http_status_as_error(false)
        .build()
        .into();
    let mut response = agent
        .get(format!("http://{address}{path}"))
        .call()
        .with_context(|| format!("no gateway answers on {address}; is it running?"))?;
    let answer: Value = response
        .body_mut()
        .read_json()
        .with_context(|| format!("{address} does not answer as a gateway does"))?;
    match answer["error"]["message"].as_str() {
        Some(message) if !response.status().is_success() => bail!("{address}: {message}"),
        _ => Ok(answer),
    }
}

fn address(ask: &Ask) -> Result<String> {
    let Some(file) = &ask.config else {
        return ask.admin.clone().context("neither --config nor --admin");
    };
    let config = Config::load(file)?;
    if config.admin.address.port() != 0 {
        return Ok(config.admin.address.to_string());
    }
    // The running gateway has written down which port it was given.
    let said = config.spool.folder.join(ADDRESSES_FILE);
    let said = std::fs::read(&said)
        .with_context(|| format!("cannot read {}; is the gateway running?", said.display()))?;
    let said: Value = serde_json::from_slice(&said).context("the file of addresses is no JSON")?;
    let address = said["admin"].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
    Ok(address.context("the file of addresses names no admin address")?.to_string())
}

pub(super) fn json(answer: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(answer).context("cannot write JSON")?);
    Ok(())
}

pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn sent(uplink: &Value) -> String {
    let number = |key: &str| uplink[key].as_u64().unwrap_or_default();
    let (raw, sent, uplinks) = (number("bytes_raw"), number("bytes_sent"), number("uplinks"));
    if uplinks == 0 {
        return "nothing".to_owned();
    }
    format!(
        "{uplinks} uplinks in {} segments: {}, compressed to {} ({} bytes for an uplink)",
        number("segments"),
        bytes(raw),
        bytes(sent),
        sent / uplinks
    )
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| unix_ms.to_string(), |timestamp| format!("{timestamp:.3}"))
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}.{} s", ms % 1000 / 100),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [
            (0, "0.0 s"),
            (1_500, "1.5 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ];
        for (ms, shown) in cases {
            assert_eq!(duration(ms), shown);
        }
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
