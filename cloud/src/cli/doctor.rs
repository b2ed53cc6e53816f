//! `weir doctor`: asks every link of the chain how it is, and judges what it says.
//!
//! Gathering is here, judging is in [`checks`] and pure.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::client::{self, Client, Failure};
use super::print::{Style, Tone, counted, plain};
use super::{Outcome, Session};
use crate::api::types;

pub mod checks;

pub use checks::{Check, Verdict};

/// Devices looked at, at most: enough to find what is wrong, bounded for fleets.
const DEVICES_MAX: usize = 100_000;
/// Longest wait for a gateway's answer.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(10);
/// Devices asked for at a time.
const DEVICES_PAGE: u64 = 10_000;

impl Session {
    /// Checks the cloud and the given gateways.
    pub(super) fn doctor(&mut self, gateways: &[String]) -> Result<Outcome, Failure> {
        let mut checks = self.check_cloud();
        for address in gateways {
            checks.extend(checks::gateway(address, &ask_gateway(address), self.now_ms));
        }
        let bad = checks.iter().any(|check| check.verdict == Verdict::Failed);
        if self.json {
            let answer = serde_json::json!({ "ok": !bad, "checks": checks });
            writeln!(self.out, "{answer:#}")?;
        } else {
            let text = report(&checks, self.style);
            self.out.write_all(text.as_bytes())?;
        }
        Ok(if bad { Outcome::Bad } else { Outcome::Done })
    }

    fn check_cloud(&self) -> Vec<Check> {
        let reachable = checks::reachable(self.client.base(), self.client.ask("/healthz", &[]));
        let mut checks = vec![reachable];
        if checks[0].verdict == Verdict::Failed {
            return checks;
        }
        checks.push(checks::ready(self.client.ask("/readyz", &[])));
        let status =
            self.client.get("/v1/status", &[]).and_then(|answer| client::parse::<types::Status>(&answer));
        match status {
            Ok(status) => {
                checks.extend(checks::status(&status, self.now_ms));
                if status.role != "project" {
                    checks.extend(checks::devices(self.all_devices()));
                }
            }
            Err(failure) => checks.push(checks::no_status(&failure)),
        }
        checks
    }

    fn all_devices(&self) -> Result<Vec<types::Device>, Failure> {
        let mut devices = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = vec![("limit", DEVICES_PAGE.to_string())];
            query.extend(after.map(|device| ("after", device)));
            let page: types::Devices = client::parse(&self.client.get("/v1/devices", &query)?)?;
            devices.extend(page.devices);
            after = page.next;
            if after.is_none() || devices.len() >= DEVICES_MAX {
                return Ok(devices);
            }
        }
    }
}

/// What a gateway says at its admin address.
fn ask_gateway(address: &str) -> Result<checks::GatewaySays, Failure> {
    let client = Client::new(address, GATEWAY_PATIENCE)?;
    let ask = |path: &str| -> Result<Value, Failure> {
        let (status, body) = client.ask(path, &[])?;
        if status != 200 {
            return Err(Failure::Unusable(format!("{address}{path} answers {status}")));
        }
        client::parse(&body)
    };
    Ok(checks::GatewaySays { status: ask("/status")?, refusals: ask("/refusals")? })
}

fn report(checks: &[Check], style: Style) -> String {
    let mut text = String::new();
    for check in checks {
        let (word, tone) = match check.verdict {
            Verdict::Ok => ("ok", Tone::Good),
            Verdict::Warning => ("warning", Tone::Warning),
            Verdict::Failed => ("failed", Tone::Bad),
        };
        let word = style.paint(&format!("{word:<8}"), tone);
        text.push_str(&format!("{word} {}: {}\n", check.check, plain(&check.finding)));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("         {}\n", style.paint(&format!("→ {advice}"), Tone::Dim)));
        }
    }
    let of = |verdict| checks.iter().filter(|check| check.verdict == verdict).count() as u64;
    let (warnings, failed) = (of(Verdict::Warning), of(Verdict::Failed));
    let summary = match (failed, warnings) {
        (0, 0) => style.paint("all is well", Tone::Good),
        (0, warnings) => style.paint(&format!("works, with {}", counted(warnings, "warning")), Tone::Warning),
        (failed, warnings) => {
            style.paint(&format!("{failed} failed, {}", counted(warnings, "warning")), Tone::Bad)
        }
    };
    text.push_str(&format!("\n{}: {summary}\n", counted(checks.len() as u64, "check")));
    text
}
