//! The HTTP API: JSON over HTTP/1.1. Read only, unless commands are switched on.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Invalid, within};

mod app;
mod commands;
mod error;
mod facts;
mod guard;
pub mod json;
mod query;
mod routes;
pub mod server;
mod stall;
pub mod types;

pub use app::{App, LogView};
pub use routes::router;

/// `[api]`: where queries are answered, and the limits on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where roles `serve` and `all` listen. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Where role `project` listens: it answers for its health, its metrics and its lag, not for devices.
    pub project_address: SocketAddr,
    /// Whether whoever reaches the API may send commands to devices. Off: it has no login, and until it is said that who
    /// reaches it may do that, it only answers questions.
    pub commands: bool,
    /// Longest time to an answer; then 503.
    pub request_timeout_ms: u64,
    /// Longest time for a client to send a request's head, and to stay idle between two.
    pub idle_timeout_ms: u64,
    /// Requests worked on at once, until their answers are sent; more are refused with 503.
    pub requests_max: u64,
    /// Connections kept at once; more wait to be accepted.
    pub connections_max: u64,
    /// Queries that read the store at once; more wait their turn.
    pub store_reads_max: u64,
    /// A page of events ends early at about this size.
    pub page_bytes_max: u64,
    /// On SIGTERM, the longest wait for requests under way.
    pub drain_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            address: SocketAddr::from(([127, 0, 0, 1], 9890)),
            project_address: SocketAddr::from(([127, 0, 0, 1], 9891)),
            commands: false,
            request_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            requests_max: 64,
            connections_max: 1_024,
            store_reads_max: 4,
            page_bytes_max: 4 << 20,
            drain_timeout_ms: 10_000,
        }
    }
}

impl Config {
    /// Checks ranges.
    pub fn check(&self) -> Result<(), Invalid> {
        within("api.request_timeout_ms", self.request_timeout_ms, 10, 600_000)?;
        within("api.idle_timeout_ms", self.idle_timeout_ms, 100, 3_600_000)?;
        within("api.requests_max", self.requests_max, 1, 65_536)?;
        within("api.connections_max", self.connections_max, 1, 65_536)?;
        within("api.store_reads_max", self.store_reads_max, 1, 64)?;
        within("api.page_bytes_max", self.page_bytes_max, 65_536, 256 << 20)?;
        within("api.drain_timeout_ms", self.drain_timeout_ms, 0, 600_000)
    }
}
