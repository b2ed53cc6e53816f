//! JSON over HTTP, as the operator's tools use it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// GET; anything but a 2xx with JSON (or text, given as a JSON string) is an error that quotes the answer.
pub fn get(url: &str) -> Result<Value> {
    let (status, body) = get_any(url)?;
    if !(200..300).contains(&status) {
        bail!("GET {url}: {status} {body}");
    }
    Ok(serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// GET; the status and the body, whatever they are.
pub fn get_any(url: &str) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent.get(url).call().with_context(|| format!("GET {url}"))?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}
