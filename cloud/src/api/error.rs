//! Errors as the API tells them: a status, a code for programs, a sentence for people.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use weir_contract::Id;

use super::types::{ErrorAnswer, ErrorDetail};

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// What is, where the method is not.
    allowed: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into(), allowed: "" }
    }

    /// 404: there is no such route.
    pub fn no_such_route(path: &str, routes: &[&str]) -> Self {
        let message = format!("there is no {path:?} here; there is {}", routes.join(", "));
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// 405: everything but commands is read.
    pub fn method_not_allowed(method: &str, allowed: &'static str) -> Self {
        let message = format!("{method} is not possible; allowed: {allowed}");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message);
        ApiError { allowed, ..error }
    }

    /// 403: the configuration does not let anybody command devices here.
    pub fn commands_off() -> Self {
        let message = "commands are switched off here; `commands = true` in the [api] section of weir-cloud's \
                       configuration switches them on, for everybody who reaches this API";
        Self::new(StatusCode::FORBIDDEN, "commands-off", message)
    }

    /// 400: a command that no device will get.
    pub fn bad_command(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-command", format!("not a command: {message}"))
    }

    /// 409: it is not known which gateway a command should go to.
    pub fn never_heard(device: &Id) -> Self {
        let message = format!(
            "no gateway has taken anything of {:?} yet; say `site` and `gateway` to send it a command",
            device.as_str()
        );
        Self::new(StatusCode::CONFLICT, "never-heard", message)
    }

    /// 503: the stream of commands does not take it.
    pub fn no_stream(why: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-sent", format!("the command is not sent: {why}"))
    }

    /// 400: a query parameter that is not known or has a value that is not allowed.
    pub fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", message)
    }

    /// 400: a device name in the path that no device can have.
    pub fn bad_device(name: &str, allowed: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-device",
            format!("{name:?} names no device; allowed: {allowed}"),
        )
    }

    /// 404: nothing was ever heard of this device.
    pub fn unknown_device(device: &Id) -> Self {
        let message = format!(
            "nothing was ever heard of a device {:?}; /v1/devices lists those known",
            device.as_str()
        );
        Self::new(StatusCode::NOT_FOUND, "unknown-device", message)
    }

    /// 503: as many requests as allowed are being worked on.
    pub fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests at once; try again in a second")
    }

    /// 503: no answer within the time allowed.
    pub fn timed_out(limit_ms: u64) -> Self {
        let message = format!("no answer within {limit_ms} ms; ask for less, or try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timed-out", message)
    }

    /// 500: the store cannot be read. The cause is logged, not told.
    pub fn store_failed() -> Self {
        let message = "the store cannot be read; the service's log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store-failed", message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let answer = ErrorAnswer { error: ErrorDetail { code: self.code.to_owned(), message: self.message } };
        let mut response = (self.status, Json(answer)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(self.allowed));
        }
        response
    }
}
