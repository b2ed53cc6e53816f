//! JetStream as the log: how it is kept, and reading it in order.

use serde::{Deserialize, Serialize};

use crate::config::{Invalid, within};

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
