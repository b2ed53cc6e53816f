//! Judges what the links of the chain say of themselves. Pure.

use serde::Serialize;
use serde_json::Value;
use weir_contract::subject::LANE_LIVE;

use crate::api::types::{Device, Gateway, Position, Readiness, Status};
use crate::cli::client::Failure;
use crate::cli::print::{count, counted, seconds_long};
use crate::times::{ago, duration};

/// Lag that is worth a warning; below it the projection is merely at work.
const LAG_SECONDS_WARN: f64 = 5.0;
/// Lag at which people see old data.
const LAG_SECONDS_FAIL: f64 = 300.0;
/// Share of a spool's budget, in percent, at which it is filling up.
const SPOOL_PERCENT_WARN: u64 = 50;
/// Share at which it is about to refuse.
const SPOOL_PERCENT_FAIL: u64 = 95;
/// Names listed before it is said how many more there are.
const NAMES_MAX: usize = 5;

/// What came of looking at one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The link.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub finding: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but somebody should look.
    Warning,
    /// It does not work.
    Failed,
}

impl Check {
    fn ok(check: impl Into<String>, finding: impl Into<String>) -> Check {
        Check { check: check.into(), verdict: Verdict::Ok, finding: finding.into(), advice: None }
    }

    fn warning(check: impl Into<String>, finding: impl Into<String>, advice: impl Into<String>) -> Check {
        let advice = Some(advice.into());
        Check { check: check.into(), verdict: Verdict::Warning, finding: finding.into(), advice }
    }

    fn failed(check: impl Into<String>, finding: impl Into<String>, advice: impl Into<String>) -> Check {
        let advice = Some(advice.into());
        Check { check: check.into(), verdict: Verdict::Failed, finding: finding.into(), advice }
    }
}

/// Does anybody answer at the API's address?
pub fn reachable(base: &str, answer: Result<(u16, String), Failure>) -> Check {
    match answer {
        Ok((200, _)) => Check::ok("cloud", format!("{base} answers")),
        Ok((status, _)) => Check::failed(
            "cloud",
            format!("{base} answers {status}"),
            "give weir-cloud's address by --api or $WEIR_API",
        ),
        Err(failure) => Check::failed(
            "cloud",
            failure.to_string(),
            "start `weir-cloud all --config FILE`, or give its address by --api or $WEIR_API",
        ),
    }
}

/// Can it answer queries?
pub fn ready(answer: Result<(u16, String), Failure>) -> Check {
    let advice = "the log of weir-cloud says what is wrong with its store";
    match answer {
        Ok((200, _)) => Check::ok("queries", "can be answered"),
        Ok((status, body)) => {
            let reason = serde_json::from_str::<Readiness>(&body).ok().and_then(|readiness| readiness.reason);
            let finding = reason.unwrap_or_else(|| format!("/readyz answers {status}"));
            Check::failed("queries", finding, advice)
        }
        Err(failure) => Check::failed("queries", failure.to_string(), advice),
    }
}

/// The service lives, but does not say how it is.
pub fn no_status(failure: &Failure) -> Check {
    Check::failed("status", failure.to_string(), "the log of weir-cloud says what is wrong")
}

/// What the service says of itself.
pub fn status(status: &Status, now_ms: u64) -> Vec<Check> {
    let mut checks = vec![nats(status), log(&status.position), dead_letters(status.store.dead_letters)];
    if status.store.gateways.is_empty() {
        checks.push(Check::warning(
            "gateways",
            "nothing has arrived of any gateway yet",
            "look at a gateway with --gateway http://its-admin-address:9880",
        ));
    }
    checks.extend(status.store.gateways.iter().map(|gateway| arrived(gateway, now_ms)));
    checks.extend(one_name_at_two_sites(&status.store.gateways));
    checks
}

fn nats(status: &Status) -> Check {
    match status.nats.connected {
        Some(true) => Check::ok("NATS", "the cloud is connected"),
        Some(false) => Check::failed(
            "NATS",
            "the cloud is not connected; gateways keep what they have, and queries answer what was known before",
            "start nats-server, or correct [nats] in the cloud's configuration; weir-cloud's log says what it tries",
        ),
        None => Check::warning(
            "NATS",
            format!("unknown: this process (role {}) does not read the log", status.role),
            "ask the process with role `project`, by --api http://its-address:9891",
        ),
    }
}

fn log(position: &Position) -> Check {
    if position.reading == Some(false) {
        let trouble = position.trouble.as_deref().unwrap_or("the log is not being read");
        return Check::failed(
            "projection",
            trouble,
            "once NATS can be reached it goes on by itself where it stopped",
        );
    }
    let Some(messages) = position.lag_messages else {
        return Check::warning(
            "projection",
            "how far behind it is, is unknown here",
            "ask the process that projects",
        );
    };
    if messages == 0 {
        return Check::ok(
            "projection",
            format!("up to date, at message {}", count(position.stream_sequence)),
        );
    }
    let seconds = position.lag_seconds.unwrap_or_default();
    let behind = format!("{} ({}) behind the log", counted(messages, "message"), seconds_long(seconds));
    if seconds >= LAG_SECONDS_FAIL {
        Check::failed(
            "projection",
            behind,
            "if the number falls, wait; if not, the disk or the processor is too slow",
        )
    } else if seconds >= LAG_SECONDS_WARN {
        Check::warning("projection", behind, "ask again in a minute: the number should fall")
    } else {
        Check::ok("projection", behind)
    }
}

fn dead_letters(letters: u64) -> Check {
    if letters == 0 {
        return Check::ok("dead letters", "none: everything that arrived could be read");
    }
    let finding = format!("{} arrived that could not be read", counted(letters, "thing"));
    Check::warning("dead letters", finding, "`weir dead-letters` tells each, with the reason")
}

/// A gateway tells of devices under its name, so two of one name contradict each other, however far apart they are.
fn one_name_at_two_sites(gateways: &[Gateway]) -> Option<Check> {
    let other_site = |a: &Gateway| {
        gateways.iter().find(|b| a.gateway == b.gateway && a.site != b.site).map(|b| (a.clone(), b.clone()))
    };
    let (a, b) = gateways.iter().find_map(other_site)?;
    Some(Check::failed(
        "names of gateways",
        format!("{} stands at {} and at {}", a.gateway, a.site, b.site),
        "give each gateway a name of its own (`gateway.id`): what they tell of devices' connections is mixed up",
    ))
}

fn arrived(gateway: &Gateway, now_ms: u64) -> Check {
    let name = format!("gateway {}", gateway.gateway);
    let last = ago(gateway.last_logged_at.0, now_ms);
    if gateway.lane == LANE_LIVE {
        // Copies: what is left out here comes in the main lane.
        return Check::ok(name, format!("copies went ahead of a backlog, the last {last}"));
    }
    if gateway.missing_count == 0 {
        return Check::ok(
            name,
            format!("{} arrived, the last {last}", counted(gateway.last_number, "uplink")),
        );
    }
    // What lies before the first that arrived is no hole: the log began behind it, or had let go of it.
    let before = gateway.missing.first().filter(|(from, _)| *from == 1).map_or(0, |(_, to)| *to);
    if gateway.missing_count == before {
        let earlier = counted(before, "earlier uplink");
        return Check::ok(
            name,
            format!("all since uplink {} arrived, the last {last}; {earlier} had left the log", before + 1),
        );
    }
    let holes = counted(gateway.missing_count - before, "uplink");
    let first = gateway.missing.iter().find(|(from, _)| *from > before);
    let first_missing = first.map(|(from, _)| *from);
    let first = first.map_or_else(String::new, |(from, to)| format!(", from {from} to {to} first"));
    Check::failed(
        name,
        format!("{holes} never arrived although later ones did{first}"),
        format!(
            "the log lost them, or let go of them before they were read; `weir resend --gateway {} --from {}` gets what the \
             gateway still keeps",
            gateway.gateway,
            first_missing.unwrap_or(1),
        ),
    )
}

/// How the devices' numbers are accounted for.
pub fn devices(answer: Result<Vec<Device>, Failure>) -> Vec<Check> {
    let devices = match answer {
        Ok(devices) => devices,
        Err(failure) => {
            let advice = "the log of weir-cloud says what is wrong with its store";
            return vec![Check::failed("devices", failure.to_string(), advice)];
        }
    };
    let events: u64 = devices.iter().map(|device| device.events).sum();
    let stored =
        format!("{} of {} stored", counted(events, "event"), counted(devices.len() as u64, "device"));
    let mut checks = vec![match devices.is_empty() {
        true => Check::warning("devices", "none has been heard of", "is a device or weir-sim running?"),
        false => Check::ok("devices", stored),
    }];
    checks.push(match named(&devices, |device| device.missing) {
        None => Check::ok("missing", "none: every number is stored or in the ledger"),
        Some(finding) => Check::warning(
            "missing",
            format!("{finding}: neither stored nor in the ledger"),
            "normal while a gateway that has them is offline; `weir boots DEVICE` tells which",
        ),
    });
    checks.push(match named(&devices, |device| device.lost) {
        None => Check::ok("lost", "none"),
        Some(finding) => Check::warning(
            "lost",
            format!("{finding}: in the ledger as lost"),
            "`weir boots DEVICE` tells which and why",
        ),
    });
    checks
}

/// `12 events of kiln-1, kiln-2`: of the devices that have some, those with most first.
fn named(devices: &[Device], of: impl Fn(&Device) -> u64) -> Option<String> {
    let mut having: Vec<(u64, &str)> = devices
        .iter()
        .map(|device| (of(device), device.device.as_str()))
        .filter(|(some, _)| *some > 0)
        .collect();
    having.sort_by(|a, b| b.cmp(a));
    let all: u64 = having.iter().map(|(some, _)| some).sum();
    let names: Vec<&str> = having.iter().take(NAMES_MAX).map(|(_, name)| *name).collect();
    let more = having.len().checked_sub(NAMES_MAX).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
    (all > 0).then(|| format!("{} of {}{more}", counted(all, "event"), names.join(", ")))
}

/// What a gateway says of itself at its admin address. Read by name: the gateway's program may be of another version.
pub struct GatewaySays {
    /// `/status`
    pub status: Value,
    /// `/refusals`
    pub refusals: Value,
}

/// Judges what a gateway says.
pub fn gateway(address: &str, answer: &Result<GatewaySays, Failure>, now_ms: u64) -> Vec<Check> {
    let says = match answer {
        Ok(says) => says,
        Err(failure) => {
            let advice = "start weir-gateway, or give the `[admin] address` of its configuration";
            return vec![Check::failed(format!("gateway at {address}"), failure.to_string(), advice)];
        }
    };
    let name = text(&says.status, "/gateway").unwrap_or(address);
    vec![
        custody(name, &says.status),
        uplink(name, &says.status, now_ms),
        spool(name, &says.status),
        commands(name, &says.status),
        refusals(name, &says.refusals),
    ]
}

fn custody(name: &str, status: &Value) -> Check {
    let check = format!("{name} custody");
    match status.pointer("/custody/ok").and_then(Value::as_bool) {
        Some(true) => Check::ok(check, "takes uplinks"),
        Some(false) => Check::failed(
            check,
            text(status, "/custody/error").unwrap_or("takes nothing").to_owned(),
            "look at the disk (full, read-only, worn out?), then start weir-gateway again",
        ),
        None => not_told(check),
    }
}

fn uplink(name: &str, status: &Value, now_ms: u64) -> Check {
    let check = format!("{name} uplink");
    let since = number(status, "/uplink/since_ms")
        .map_or_else(String::new, |ms| format!(", since {}", ago(ms, now_ms)));
    let trouble = text(status, "/uplink/trouble/text").unwrap_or("no reason given");
    match text(status, "/uplink/state") {
        Some("up") => Check::ok(check, format!("up{since}")),
        Some("conflict") => Check::failed(
            check,
            format!("in conflict{since}: {trouble}"),
            "two gateways have one name, or two processes one spool: stop one, or give it another `[gateway] id`",
        ),
        Some(state) => Check::failed(
            check,
            format!("{state}{since}: {trouble}"),
            match text(status, "/uplink/trouble/help") {
                Some(help) => format!("nothing is lost, the spool keeps it; {help}"),
                None => "nothing is lost, the spool keeps it; correct [uplink] in the gateway's configuration, or the network"
                    .to_owned(),
            },
        ),
        None => not_told(check),
    }
}

fn spool(name: &str, status: &Value) -> Check {
    let check = format!("{name} spool");
    let Some(waiting) = number(status, "/spool/waiting") else { return not_told(check) };
    if waiting == 0 {
        return Check::ok(check, "empty: everything is in the log");
    }
    let oldest = number(status, "/spool/oldest_age_ms")
        .map_or_else(String::new, |age_ms| format!(", the oldest for {}", duration(age_ms)));
    let bytes = number(status, "/spool/bytes").unwrap_or(0);
    let budget = number(status, "/spool/budget_bytes").unwrap_or(0).max(1);
    let percent = bytes.saturating_mul(100) / budget;
    let finding =
        format!("{} waiting{oldest}; {percent} % of its disk budget is used", counted(waiting, "uplink"));
    if percent >= SPOOL_PERCENT_FAIL {
        let advice =
            "when it is full devices are made to wait: bring the uplink back, or raise spool.bytes_max";
        Check::failed(check, finding, advice)
    } else if percent >= SPOOL_PERCENT_WARN {
        Check::warning(check, finding, "bring the uplink back, or raise spool.bytes_max")
    } else {
        Check::ok(check, finding)
    }
}

fn commands(name: &str, status: &Value) -> Check {
    let check = format!("{name} commands");
    let Some(pending) = number(status, "/commands/pending") else { return not_told(check) };
    let waiting = format!("{} waiting for devices", counted(pending, "command"));
    if let Some(trouble) = text(status, "/commands/trouble/text") {
        let advice =
            "those it has are delivered; new ones wait in the stream WEIR_COMMANDS until this is cured";
        return Check::warning(check, format!("none come: {trouble}; {waiting}"), advice);
    }
    match number(status, "/commands/refused") {
        Some(refused @ 1..) => Check::warning(
            check,
            format!("{} refused since its start; {waiting}", counted(refused, "command")),
            "`weir state DEVICE` tells which and why",
        ),
        _ => Check::ok(check, waiting),
    }
}

fn refusals(name: &str, refusals: &Value) -> Check {
    let check = format!("{name} refusals");
    let Some(kept) = refusals.pointer("/refusals").and_then(Value::as_array) else { return not_told(check) };
    let Some(last) = kept.last() else { return Check::ok(check, "none lately") };
    let said = |key: &str| last.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let finding = format!(
        "{} of publishes or clients lately, the last one of {}: {}",
        counted(kept.len() as u64, "refusal"),
        said("client"),
        said("said"),
    );
    Check::warning(check, finding, "`weir-gateway refusals --config FILE` tells each, and why")
}

fn not_told(check: String) -> Check {
    Check::warning(check, "the gateway does not say", "is it another version, or another program's address?")
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer)?.as_str()
}

fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer)?.as_u64()
}

#[cfg(test)]
mod tests;
