//! The routes, and the handlers behind them.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Serialize;
use utoipa::OpenApi;
use weir_contract::Id;

use super::app::{App, Budget};
use super::error::ApiError;
use super::{commands, facts, guard, query, types};
use crate::service::Role;
use crate::store::types::{EventQuery, EventsPage, StoredEvent};
use crate::store::{self, Reader};

/// Events asked of the store at a time: what a page holds in memory at most beyond its size limit.
const EVENTS_CHUNK: usize = 500;
/// What a byte of a body is reckoned to take when it is shown as JSON: more than an ordinary one does, and a quarter of what
/// the worst can, a list of small numbers.
const JSON_BYTES_PER_CBOR: usize = 8;
/// Dead letters asked of the store at a time; each may be as large as a segment.
const DEAD_LETTERS_CHUNK: usize = 16;

/// Most bytes of a command as JSON; as CBOR it has at most 1,024.
const COMMAND_BYTES_MAX: usize = 16 * 1024;

/// Routes of every role.
const OPERATIONS: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/v1/status", "/openapi.json"];
/// Routes of the roles that answer queries.
const QUERIES: [&str; 6] = [
    "/v1/devices",
    "/v1/devices/{device}/state",
    "/v1/devices/{device}/events",
    "/v1/devices/{device}/boots",
    "/v1/devices/{device}/commands",
    "/v1/dead-letters",
];

/// The API of a role.
pub fn router(app: App) -> Router {
    facts::describe();
    let answers_queries = app.role() != Role::Project;
    let mut limited = Router::new()
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/openapi.json", get(openapi));
    if answers_queries {
        let commands_limit = DefaultBodyLimit::max(COMMAND_BYTES_MAX);
        limited = limited
            .route("/v1/devices", get(devices))
            .route("/v1/devices/{device}/state", get(state))
            .route("/v1/devices/{device}/events", get(events))
            .route("/v1/devices/{device}/boots", get(boots))
            .route("/v1/devices/{device}/commands", post(commands::command).layer(commands_limit))
            .route("/v1/dead-letters", get(dead_letters));
    }
    limited
        .layer(middleware::from_fn_with_state(app.clone(), guard::limit))
        // Not limited: whether the process lives must be seen also, and above all, when it is busy.
        .route("/healthz", get(healthy))
        .fallback(async move |uri: Uri| {
            let queries = if answers_queries { &QUERIES[..] } else { &[] };
            ApiError::no_such_route(uri.path(), &[queries, &OPERATIONS].concat())
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let allowed = if uri.path().ends_with("/commands") { "POST" } else { "GET, HEAD" };
            ApiError::method_not_allowed(method.as_str(), allowed)
        })
        .layer(middleware::from_fn(guard::count))
        .with_state(app)
}

/// The device in the path.
pub(super) struct Device(pub Id);

impl<S: Send + Sync> FromRequestParts<S> for Device {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Device, ApiError> {
        let name: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Ok(Path(name)) = name else {
            return Err(ApiError::bad_device(parts.uri.path(), "a name in UTF-8"));
        };
        name.parse().map(Device).map_err(|allowed| ApiError::bad_device(&name, allowed))
    }
}

/// An answer made on the thread that read the store, so that large ones do not hold up others.
fn encoded(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("the API's types have text keys and cannot fail")
}

fn json(bytes: Vec<u8>) -> Response<Body> {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], bytes).into_response()
}

/// Devices, by name
#[utoipa::path(get, path = "/v1/devices",
    params(
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 10000; default 1000"),
        ("after" = Option<String>, Query, description = "Go on behind this device: `next` of the page before")),
    responses((status = 200, body = types::Devices), (status = 400, body = types::ErrorAnswer)))]
async fn devices(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let page = query::devices(query.as_deref())?;
    let read = move |reader: &Reader| {
        let devices = reader.devices(page.after.as_ref(), page.limit)?;
        Ok(encoded(&types::Devices::from(devices)))
    };
    app.read(read).await.map(json)
}

/// State of a device, now or at a past moment
#[utoipa::path(get, path = "/v1/devices/{device}/state",
    params(
        ("device" = String, Path),
        ("at" = Option<String>, Query, description = "RFC 3339 or Unix milliseconds: the state as the events up to and at this moment tell; now if absent")),
    responses((status = 200, body = types::State), (status = 400, body = types::ErrorAnswer), (status = 404, body = types::ErrorAnswer)))]
async fn state(
    State(app): State<App>,
    Device(device): Device,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let at_ms = query::state(query.as_deref())?;
    let read = move |reader: &Reader| {
        let state = reader.state(&device, at_ms)?;
        Ok(state.map(|state| encoded(&types::State::from(state))))
    };
    app.read(read).await?.map(json).ok_or_else(|| ApiError::unknown_device(&device))
}

/// History of a device
#[utoipa::path(get, path = "/v1/devices/{device}/events",
    params(
        ("device" = String, Path),
        ("from" = Option<String>, Query, description = "RFC 3339 or Unix milliseconds: observed at this moment or later"),
        ("to" = Option<String>, Query, description = "RFC 3339 or Unix milliseconds: observed before this moment"),
        ("kind" = Option<String>, Query, description = "Only events of this kind"),
        ("order" = Option<String>, Query, description = "`asc` (default): oldest first; `desc`: newest first"),
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 10000; default 100"),
        ("after" = Option<String>, Query, description = "Go on behind this cursor: `next` of the page before")),
    responses((status = 200, body = types::Events), (status = 400, body = types::ErrorAnswer), (status = 404, body = types::ErrorAnswer)))]
async fn events(
    State(app): State<App>,
    Device(device): Device,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query::events(device, query.as_deref())?;
    let bytes_max = app.config().page_bytes_max;
    let deadline = Instant::now() + Duration::from_millis(app.config().request_timeout_ms / 2);
    let read = move |reader: &Reader| {
        let Some(page) = read_events(reader, query, bytes_max, deadline)? else { return Ok(None) };
        let events = page.events.into_iter().map(types::Event::from).collect();
        Ok(Some(encoded(&types::Events { events, next: page.next.map(|cursor| cursor.to_string()) })))
    };
    app.read(read).await?.map(json).ok_or_else(|| ApiError::unknown_device(&device))
}

/// Gathers a page in pieces, until it is full in number or in bytes, or its time is up.
fn read_events(
    reader: &Reader,
    mut query: EventQuery,
    bytes_max: u64,
    deadline: Instant,
) -> Result<Option<EventsPage>, store::Error> {
    let mut budget = Budget::new(bytes_max);
    let mut page = EventsPage::default();
    let limit = query.limit;
    loop {
        query.limit = (limit - page.events.len()).min(EVENTS_CHUNK);
        query.body_bytes_max = budget.left() / JSON_BYTES_PER_CBOR;
        let Some(chunk) = reader.events(&query)? else { return Ok(None) };
        let cost = |event: &StoredEvent| size_of_val(event) + event.body.len() * JSON_BYTES_PER_CBOR;
        let bytes = chunk.events.iter().map(cost).sum();
        page.events.extend(chunk.events);
        page.next = chunk.next;
        let room = budget.take(bytes) && page.events.len() < limit && Instant::now() < deadline;
        query.after = page.next;
        if page.next.is_none() || !room {
            return Ok(Some(page));
        }
    }
}

/// What became of the numbers of each boot of a device
#[utoipa::path(get, path = "/v1/devices/{device}/boots",
    params(("device" = String, Path)),
    responses((status = 200, body = types::Boots), (status = 404, body = types::ErrorAnswer)))]
async fn boots(
    State(app): State<App>,
    Device(device): Device,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    query::nothing(query.as_deref())?;
    let read = move |reader: &Reader| {
        let Some(boots) = reader.boots(&device)? else { return Ok(None) };
        let boots = boots.into_iter().map(types::Boot::from).collect();
        Ok(Some(encoded(&types::Boots { device: device.to_string(), boots })))
    };
    app.read(read).await?.map(json).ok_or_else(|| ApiError::unknown_device(&device))
}

/// What arrived but could not be read, oldest first
#[utoipa::path(get, path = "/v1/dead-letters",
    params(
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 10000; default 100"),
        ("after" = Option<u64>, Query, description = "Go on behind this id: `next` of the page before")),
    responses((status = 200, body = types::DeadLetters), (status = 400, body = types::ErrorAnswer)))]
async fn dead_letters(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let page = query::dead_letters(query.as_deref())?;
    let bytes_max = app.config().page_bytes_max;
    app.read(move |reader| Ok(encoded(&read_dead_letters(reader, &page, bytes_max)?))).await.map(json)
}

fn read_dead_letters(
    reader: &Reader,
    page: &query::Page<u64>,
    bytes_max: u64,
) -> Result<types::DeadLetters, store::Error> {
    let mut budget = Budget::new(bytes_max);
    let mut letters = types::DeadLetters { dead_letters: Vec::new(), next: page.after };
    loop {
        let limit = (page.limit - letters.dead_letters.len()).min(DEAD_LETTERS_CHUNK);
        let chunk = reader.dead_letters(letters.next, limit)?;
        let bytes = chunk.dead_letters.iter().map(|letter| letter.bytes.len()).sum();
        letters.dead_letters.extend(chunk.dead_letters.into_iter().map(types::DeadLetter::from));
        letters.next = chunk.next;
        if letters.next.is_none() || !budget.take(bytes) || letters.dead_letters.len() >= page.limit {
            return Ok(letters);
        }
    }
}

/// How far the log has been folded, and what the store holds
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = types::Status)))]
async fn status(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Json<types::Status>, ApiError> {
    query::nothing(query.as_deref())?;
    app.status().await.map(Json)
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    facts::measured(&app.status().await?);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], app.render_metrics()).into_response())
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, content_type = "text/plain")))]
async fn healthy() -> Result<&'static str, Infallible> {
    Ok("ok\n")
}

/// Whether queries can be answered: the store can be read. How fresh the answers are, `/v1/status` says
#[utoipa::path(get, path = "/readyz",
    responses((status = 200, body = types::Readiness), (status = 503, body = types::Readiness)))]
async fn ready(State(app): State<App>) -> Response {
    match app.read(|reader| reader.position()).await {
        Ok(_) => Json(types::Readiness { ready: true, reason: None }).into_response(),
        Err(failure) => {
            let reason = Some(failure.to_string());
            (StatusCode::SERVICE_UNAVAILABLE, Json(types::Readiness { ready: false, reason })).into_response()
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "State and history of devices; commands to them, where they are switched on. Every error is an `ErrorAnswer`; \
                       503 (`busy`, `timed-out`) is worth another try."
    ),
    paths(devices, state, events, boots, commands::command, dead_letters, status, metrics, healthy, ready)
)]
struct Description;

/// This description
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let described: Vec<String> = Description::openapi().paths.paths.into_keys().collect();
        let mut served: Vec<&str> = [&QUERIES[..], &OPERATIONS].concat();
        served.retain(|route| *route != "/openapi.json");
        served.sort_unstable();
        assert_eq!(described, served);
    }
}
