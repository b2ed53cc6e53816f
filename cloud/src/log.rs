//! JetStream as the log: how it is kept, and reading it in order. With [`crate::nats`] the only module that knows NATS.
//!
//! - [`provision`]: the streams, made if absent; an existing one is never changed, but what differs is told.
//! - [`resume`] (pure): where to go on reading, given a position and what the stream is like now.
//! - [`reading`]: messages in the stream's order from there. Whatever goes wrong ends a reading; the next one begins at the
//!   position reached. Nothing is acknowledged and the server remembers nothing of us: the position in the store is the only one.
//! - [`message`] (pure): a message's bytes as a plain segment.
//! - [`commands`]: the other way, commands to devices.

pub mod commands;
pub mod message;
pub mod provision;
pub mod reading;
pub mod resume;

use serde::{Deserialize, Serialize};

use crate::config::{Invalid, within};

pub use message::{Content, Message, Opened, Opener};

/// `[stream]`: how the log is kept when this process creates it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Copies of the log, on as many servers of the cluster.
    pub replicas: u64,
    /// Age at which the log drops a segment; 0 keeps for ever.
    pub max_age_hours: u64,
    /// Size at which the log refuses more (gateways then keep what they have); 0 is the servers' own limit.
    pub max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { replicas: 1, max_age_hours: 0, max_bytes: 0 }
    }
}

impl Config {
    /// Checks ranges.
    pub fn check(&self) -> Result<(), Invalid> {
        within("stream.replicas", self.replicas, 1, 5)?;
        within("stream.max_age_hours", self.max_age_hours, 0, 24 * 366 * 100)?;
        within("stream.max_bytes", self.max_bytes, 0, 1 << 50)
    }
}

/// Why the log cannot be read at the moment. All of it may pass: try again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream is not there and cannot be made, or the server does not answer.
    #[error("stream {stream} is not available")]
    Stream {
        /// Its name.
        stream: &'static str,
        /// What the server said.
        source: async_nats::Error,
    },
    /// The server does not say what stands at our position.
    #[error("cannot ask for message {sequence}, the last one folded")]
    Position {
        /// Its stream sequence.
        sequence: u64,
        /// What the server said.
        source: async_nats::Error,
    },
    /// Reading cannot begin, or has broken off.
    #[error("cannot read on")]
    Read {
        /// What the server said, or that it says nothing.
        source: async_nats::Error,
    },
    /// Messages were left out on the way to us.
    #[error("message {got} of this reading came where {expected} should have")]
    LeftOut {
        /// The next one in the reading.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// A message without the server's data about it.
    #[error("a message does not say where in the stream it stands")]
    Nameless {
        /// What is wrong with it.
        source: async_nats::Error,
    },
    /// The connection was lost and made anew; the reading was the old one's.
    #[error("the connection was made anew")]
    Reconnected,
    /// The server ended the reading without saying why.
    #[error("the server has ended the reading")]
    Ended,
}
