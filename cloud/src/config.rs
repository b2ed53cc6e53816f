//! The configuration file of `weir-cloud`: one TOML file, a section per module.
//!
//! Each module owns its section's type, defaults and limits; this one puts them together. Every setting has a default, so
//! an empty file is a working configuration. `deploy/cloud.toml` explains each of them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{api, log, nats, store, telemetry};

/// Everything `weir-cloud` can be told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[nats]`: where JetStream is and who we are to it.
    pub nats: nats::Config,
    /// `[stream]`: how the log is kept.
    pub stream: log::Config,
    /// `[store]`: where views are kept.
    pub store: store::Config,
    /// `[api]`: where queries are answered, and the limits on them.
    pub api: api::Config,
    /// `[log]`: what this process says about itself.
    pub log: telemetry::Config,
}

/// Why a configuration file cannot be used. Names the file, and the key or the line in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or may not be read.
    #[error("cannot read the configuration file {}", file.display())]
    Read {
        /// The file asked for.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type. The cause quotes the line and says what is allowed.
    #[error("{} is not a configuration of weir-cloud", file.display())]
    Parse {
        /// The file that was read.
        file: PathBuf,
        /// Where in the file, and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A value of the right type that makes no sense.
    #[error("{}: {invalid}", file.display())]
    Invalid {
        /// The file that was read.
        file: PathBuf,
        /// The key, its value and what is allowed.
        invalid: Invalid,
    },
}

/// A setting whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Dotted path of the setting, as `api.address`.
    pub key: &'static str,
    /// The value as found.
    pub value: String,
    /// What would be accepted, as a phrase that follows "allowed: ".
    pub allowed: String,
}

impl Invalid {
    /// A refusal of `value` for `key`.
    pub fn new(key: &'static str, value: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Invalid { key, value: value.to_string(), allowed: allowed.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} is not allowed; allowed: {}", self.key, self.value, self.allowed)
    }
}

impl std::error::Error for Invalid {}

/// Checks a number against its inclusive limits.
pub fn within(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), Invalid> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(key, value, format!("a whole number from {least} to {most}")))
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let text =
            std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
        let config: Config = toml::from_str(&text)
            .map_err(|source| Error::Parse { file: file.into(), source: Box::new(source) })?;
        config.check().map_err(|invalid| Error::Invalid { file: file.into(), invalid })?;
        Ok(config)
    }

    /// Checks what types alone cannot: ranges, and settings that need each other.
    pub fn check(&self) -> Result<(), Invalid> {
        self.nats.check()?;
        self.stream.check()?;
        self.store.check()?;
        self.api.check()?;
        self.log.check()
    }
}

#[cfg(test)]
mod tests;
