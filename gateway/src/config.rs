//! One TOML file, composed of what each module calls its own `Config`. Defaults live beside what they configure; a
//! [`Profile`] puts others under them for a kind of machine.

mod error;
pub mod fit;
pub mod machine;
pub mod profile;
pub mod value;

use std::path::Path;

use serde::{Deserialize, Serialize};
use weir_contract::Id;

use crate::{admin, downlink, logging, mqtt, source, spool, uplink};

pub use error::Error;
pub use machine::Machine;
pub use profile::Profile;

/// The whole of `gateway.toml`. `deploy/gateway.toml` explains every key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this gateway is.
    pub gateway: Gateway,
    /// How devices connect, and what they may do.
    #[serde(default)]
    pub mqtt: mqtt::Config,
    /// Where events come from beside that.
    #[serde(default)]
    pub source: source::Config,
    /// Where uplinks are kept.
    pub spool: spool::Config,
    /// Where they go.
    #[serde(default)]
    pub uplink: uplink::Config,
    /// Commands to devices.
    #[serde(default)]
    pub commands: downlink::Config,
    /// HTTP for operators.
    #[serde(default)]
    pub admin: admin::Config,
    /// Log lines.
    #[serde(default)]
    pub log: logging::Config,
}

/// Who this gateway is, and how much of the machine it takes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Where it stands; several gateways may share a site.
    #[serde(deserialize_with = "value::id", serialize_with = "value::as_text")]
    pub site: Id,
    /// Its name, unique among all gateways and devices, for ever. Two gateways with one name find each other out and one of them stops.
    #[serde(deserialize_with = "value::id", serialize_with = "value::as_text")]
    pub id: Id,
    /// What kind of machine this is: limits and budgets for it, where this file does not say its own.
    #[serde(default)]
    pub profile: Profile,
    /// Threads that carry connections and requests. The committer and the uplink's compression have their own.
    #[serde(default = "threads_default", deserialize_with = "value::between::<1, 64, _>")]
    pub threads: u64,
}

fn threads_default() -> u64 {
    2
}

impl Config {
    /// Reads and checks the file. Relative paths in it are relative to the folder the process is started in.
    ///
    /// # Errors
    /// Names the file, the line and what is allowed there.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| Error::Unreadable { file: file.into(), source })?;
        let config = Self::parse(&text)
            .map_err(|source| Error::Invalid { file: file.into(), source: Box::new(source) })?;
        config.spool.check().map_err(|source| Error::Spool { file: file.into(), source })?;
        config
            .source
            .check()
            .map_err(|source| Error::Source { file: file.into(), source: Box::new(source) })?;
        Ok(config)
    }

    /// Whether the limits, which `file` says, fit this machine. Returns what does not and is let pass: to be told.
    ///
    /// # Errors
    /// Names the key whose limit does not fit, and what would.
    pub fn fit_here(&self, file: &Path) -> Result<Option<Box<fit::Unfit>>, Error> {
        let machine = Machine::look(&self.spool.folder);
        fit::check(self, &machine).map_err(|source| Error::Unfit { file: file.into(), source })
    }

    /// Reads and checks the text of a file, and puts its profile under it.
    ///
    /// # Errors
    /// Names the line and what is allowed there.
    pub fn parse(text: &str) -> Result<Config, toml::de::Error> {
        // First by itself: only so an error can show its line.
        let said: Config = toml::from_str(text)?;
        let mut settings = said.gateway.profile.settings();
        profile::lay_over(&mut settings, text.parse()?);
        settings.try_into()
    }

    /// What a file that says only what it must is, with this profile.
    fn of_profile(profile: Profile) -> Config {
        let text = "gateway = { site = \"s\", id = \"g\", profile = \"PROFILE\" }\nspool.folder = \"f\"\n";
        Self::parse(&text.replace("PROFILE", profile.as_str())).expect("a test reads every profile")
    }
}

#[cfg(test)]
mod tests;
