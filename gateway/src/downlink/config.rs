//! `[commands]`: how many commands may wait for devices, and how often they are sent.

use serde::{Deserialize, Serialize};

use crate::config::value;

/// How many commands may wait for devices, and how often they are sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether this gateway takes commands from the stream and sends them to devices.
    pub enabled: bool,
    /// Most commands that wait for one device; one more is refused.
    #[serde(deserialize_with = "value::between::<1, 1_000, _>")]
    pub per_device_max: u64,
    /// Most commands that wait for all devices.
    #[serde(deserialize_with = "value::between::<1, 100_000, _>")]
    pub pending_max: u64,
    /// Most bytes of all commands that wait.
    #[serde(deserialize_with = "value::bytes::<1_024, 67_108_864, _>")]
    pub bytes_max: u64,
    /// A command that a connected device has not answered is sent again after this; twice as long after each further time.
    #[serde(deserialize_with = "value::between::<10, 3_600_000, _>")]
    pub retry_ms: u64,
    /// The longest wait before a command is sent again.
    #[serde(deserialize_with = "value::between::<10, 86_400_000, _>")]
    pub retry_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            enabled: true,
            per_device_max: 64,
            pending_max: 4_096,
            bytes_max: 1_048_576,
            retry_ms: 5_000,
            retry_ms_max: 300_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_what_is_allowed() {
        for (text, said) in [
            ("per_device_max = 0", "between 1 and 1000"),
            ("pending_max = 1000000", "between 1 and 100000"),
            ("bytes_max = \"1 GiB\"", "between 1 KiB and 64 MiB"),
            ("retry_ms = 1", "between 10 and 3600000"),
            ("retries = 1", "per_device_max"),
        ] {
            let error = toml::from_str::<Config>(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
