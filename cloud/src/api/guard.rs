//! What every request goes through: a limit on their number, a time-out, and the count.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::app::App;
use super::error::ApiError;
use super::facts;

/// Refuses what is too much at once, and gives up on what takes too long. A request holds its place until its answer has
/// been sent, so that `requests_max` × `page_bytes_max` bounds the memory of answers.
pub async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Ok(place) = Arc::clone(app.requests()).try_acquire_owned() else {
        return ApiError::busy().into_response();
    };
    let limit_ms = app.config().request_timeout_ms;
    let response = tokio::time::timeout(Duration::from_millis(limit_ms), next.run(request))
        .await
        .unwrap_or_else(|_| ApiError::timed_out(limit_ms).into_response());
    response.map(|body| Body::new(Placed { body, piece: Bytes::new(), _place: place }))
}

/// Counts requests and how long they took, by route.
pub async fn count(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = route(request.uri().path());
    let response = next.run(request).await;
    facts::answered(route, response.status().as_u16(), began.elapsed());
    response
}

/// The route of a path, with few values whatever is asked for: each is a time series.
fn route(path: &str) -> &'static str {
    match path {
        "/v1/devices" => "devices",
        "/v1/dead-letters" => "dead-letters",
        "/v1/status" => "status",
        "/metrics" => "metrics",
        "/healthz" | "/readyz" => "health",
        _ if !path.starts_with("/v1/devices/") => "other",
        _ if path.ends_with("/state") => "state",
        _ if path.ends_with("/events") => "events",
        _ if path.ends_with("/boots") => "boots",
        _ if path.ends_with("/commands") => "commands",
        _ => "other",
    }
}

/// Bytes handed over at a time. In one piece the whole answer would be in hyper's hands, and its place free, long before it is sent.
const PIECE_BYTES: usize = 64 * 1024;

/// An answer that gives its place back when it is sent or given up.
struct Placed {
    body: Body,
    /// What is left of the frame that is being sent.
    piece: Bytes,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.piece = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let len = self.piece.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, piece) = (self.body.size_hint(), self.piece.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + piece);
        }
        hint.set_lower(rest.lower() + piece);
        hint
    }
}
