//! `POST /v1/devices/{device}/commands`: the one thing that the API does to devices. Off unless the configuration says so.
//!
//! The API has no login. So that a page in somebody's browser cannot command devices through it, a command must say that
//! it is JSON, which no browser sends to a foreign address without asking first.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use weir_contract::Id;
use weir_contract::command::{COMMAND_ID_LEN_MAX, COMMAND_LEN_MAX, Command};
use weir_contract::subject::Target;

use super::app::App;
use super::error::ApiError;
use super::routes::Device;
use super::types::{CommandRequest, CommandTaken};
use crate::log::commands;
use crate::{clock, times};

/// How long a command may take if it does not say.
const TTL_MS_DEFAULT: u64 = 3_600_000;
/// The longest: the stream keeps no command for longer.
const TTL_MS_MAX: u64 = 7 * 86_400_000;

/// Send a command to a device
#[utoipa::path(post, path = "/v1/devices/{device}/commands",
    params(("device" = String, Path)),
    request_body = CommandRequest,
    responses(
        (status = 202, body = CommandTaken, description = "It is in the stream; the device's state tells what becomes of it"),
        (status = 400, body = super::types::ErrorAnswer), (status = 403, body = super::types::ErrorAnswer),
        (status = 404, body = super::types::ErrorAnswer), (status = 409, body = super::types::ErrorAnswer),
        (status = 503, body = super::types::ErrorAnswer)))]
pub async fn command(
    State(app): State<App>,
    Device(device): Device,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Some(nats) = app.commands() else { return Err(ApiError::commands_off()) };
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return Err(ApiError::bad_command("its Content-Type must be application/json"));
    }
    let request: CommandRequest =
        serde_json::from_slice(&body).map_err(|error| ApiError::bad_command(error.to_string()))?;
    let now_ms = clock::unix_ms();
    let deadline_ms = deadline(&request, now_ms)?;
    let id = match &request.id {
        Some(id) if id.is_empty() || id.len() > COMMAND_ID_LEN_MAX => {
            return Err(ApiError::bad_command(format!("id: allowed are 1 to {COMMAND_ID_LEN_MAX} bytes")));
        }
        Some(id) => id.clone(),
        None => format!("{now_ms:012x}-{:08x}", fastrand::u32(..)),
    };
    let target = target(&app, device, &request).await?;
    let args = args(&request.args)?;
    let command =
        Command { id: id.as_str().into(), name: request.name.as_str().into(), deadline_ms, args: &args };
    let payload = encoded(&command)?;
    let wait_max = Duration::from_millis(app.config().request_timeout_ms / 2);
    let sequence = commands::publish(nats, &target, &command, payload, wait_max).await.map_err(|error| {
        tracing::warn!(%device, id, error = %chain(&error), "a command could not be put into the stream");
        match error {
            commands::Error::Disconnected => ApiError::no_stream("there is no connection to NATS"),
            commands::Error::NotAcknowledged(source) => ApiError::no_stream(&format!(
                "NATS has not acknowledged it ({source}); whether it was taken is unknown: send it again with \"id\": {id:?}"
            )),
        }
    })?;
    tracing::info!(%device, id, name = request.name, gateway = %target.gateway, "a command is in the stream");
    let taken = CommandTaken {
        id,
        device: device.to_string(),
        site: target.site.to_string(),
        gateway: target.gateway.to_string(),
        deadline: times::rfc3339(deadline_ms),
        stream_sequence: sequence,
    };
    Ok((StatusCode::ACCEPTED, Json(taken)).into_response())
}

fn deadline(request: &CommandRequest, now_ms: u64) -> Result<u64, ApiError> {
    let bad = |said: String| Err(ApiError::bad_command(said));
    let deadline_ms = match (&request.deadline, request.ttl_ms) {
        (Some(_), Some(_)) => return bad("deadline or ttl_ms, not both".to_owned()),
        (Some(Value::String(text)), None) => times::parse_absolute(text)
            .map_err(|error| ApiError::bad_command(format!("deadline: {error}")))?,
        (Some(Value::Number(number)), None) if number.is_u64() => number.as_u64().unwrap_or_default(),
        (Some(_), None) => return bad(format!("deadline: allowed is {}", times::ABSOLUTE)),
        (None, ttl_ms) => now_ms.saturating_add(ttl_ms.unwrap_or(TTL_MS_DEFAULT)),
    };
    if deadline_ms <= now_ms {
        return bad("its deadline has passed already".to_owned());
    }
    if deadline_ms - now_ms > TTL_MS_MAX {
        return bad(
            "its deadline is more than 7 days away; the stream keeps no command for longer".to_owned()
        );
    }
    Ok(deadline_ms)
}

/// The gateway that is asked for, else the one that heard the device last.
async fn target(app: &App, device: Id, request: &CommandRequest) -> Result<Target, ApiError> {
    let name = |key: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => text
            .parse::<Id>()
            .map(Some)
            .map_err(|error| ApiError::bad_command(format!("{key}: {text:?} is no name; allowed: {error}"))),
    };
    let (site, gateway) = (name("site", &request.site)?, name("gateway", &request.gateway)?);
    if let (Some(site), Some(gateway)) = (site, gateway) {
        return Ok(Target { site, gateway, device });
    }
    let state = app.read(move |reader| reader.state(&device, None)).await?;
    let heard = state.ok_or_else(|| ApiError::unknown_device(&device))?.heard;
    let heard = heard.ok_or_else(|| ApiError::never_heard(&device))?;
    Ok(Target { site: site.unwrap_or(heard.site), gateway: gateway.unwrap_or(heard.gateway), device })
}

/// Arguments as CBOR.
fn args(args: &Option<Value>) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let empty = Value::Object(serde_json::Map::new());
    ciborium::into_writer(args.as_ref().unwrap_or(&empty), &mut bytes)
        .map_err(|error| ApiError::bad_command(format!("args: {error}")))?;
    Ok(bytes)
}

/// The command as it is published; checked as whoever receives it will.
fn encoded(command: &Command<'_>) -> Result<Vec<u8>, ApiError> {
    let mut payload = vec![0; COMMAND_LEN_MAX];
    let Ok(len) = command.write(&mut payload) else {
        return Err(ApiError::bad_command(format!("it is longer than {COMMAND_LEN_MAX} bytes as CBOR")));
    };
    payload.truncate(len);
    Command::read(&payload).map_err(|malformed| ApiError::bad_command(format!("args: {malformed}")))?;
    Ok(payload)
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
