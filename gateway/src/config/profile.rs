//! Profiles: limits and budgets for a kind of machine, under one name. What the file itself says goes before them.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// `gateway.profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// 512 MB and a slow card.
    #[serde(rename = "pi-zero-2")]
    PiZero2,
    /// A Raspberry Pi with 1 GB or more.
    Pi,
    /// The defaults of every module.
    #[default]
    Server,
}

impl Profile {
    /// All of them, the smallest machine first.
    pub const ALL: [Profile; 3] = [Profile::PiZero2, Profile::Pi, Profile::Server];

    /// Its name in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::PiZero2 => "pi-zero-2",
            Profile::Pi => "pi",
            Profile::Server => "server",
        }
    }

    /// What it says: a part of a configuration file. What it leaves out has its default.
    #[must_use]
    pub fn settings(self) -> Table {
        let text = match self {
            Profile::PiZero2 => include_str!("profiles/pi-zero-2.toml"),
            Profile::Pi => include_str!("profiles/pi.toml"),
            Profile::Server => "",
        };
        text.parse().expect("a test reads every profile")
    }
}

/// Lays `over` over `under`: tables are joined, everything else is replaced.
pub(super) fn lay_over(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (_, value) => _ = under.insert(key, value),
        }
    }
}
