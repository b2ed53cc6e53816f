//! The cloud side of Weir: folds the log into device state and history, and answers queries about them.
//!
//! Data's way through the modules:
//!
//! ```text
//! JetStream ─► log ─► projection ─► store ─► api ─► cli (another process, over HTTP)
//! ```
//!
//! What holds everywhere:
//! - the log is the truth: everything in the store can be dropped and read again from it;
//! - only [`log`] and [`nats`] know NATS, only [`store`] knows the database;
//! - the fold does no IO and reads no clock; only [`clock`] reads the time;
//! - a query never waits for the projection, and the projection never waits for a query.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod log;
pub mod nats;
pub mod projection;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod times;

pub use config::Config;
pub use service::{Role, Running, start};
