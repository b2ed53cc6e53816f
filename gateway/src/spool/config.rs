//! The `[spool]` table of the configuration, with every default.

use std::path::PathBuf;

use serde::Deserialize;

use super::error::Error;

const MIB: u64 = 1024 * 1024;

/// How the spool is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The spool's folder; made if it is not there. One gateway has one spool.
    pub folder: PathBuf,
    /// Most bytes on disk, everything counted.
    #[serde(default = "bytes_max")]
    pub bytes_max: u64,
    /// Delivered epochs stay up to this many bytes, to be sent again should the stream lose them. Counted in `bytes_max`; gives way
    /// to what is not delivered.
    #[serde(default = "keep_delivered_bytes")]
    pub keep_delivered_bytes: u64,
    /// An epoch is closed when it has this many bytes.
    #[serde(default = "epoch_bytes")]
    pub epoch_bytes: u64,
    /// A commit waits this long for more uplinks to share its sync: fewer writes to flash, later acknowledgements.
    #[serde(default)]
    pub commit_delay_ms: u64,
    /// What to do when `bytes_max` is reached.
    #[serde(default)]
    pub when_full: WhenFull,
}

/// What to do when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Acknowledge nothing more until something has been delivered: devices keep their events.
    #[default]
    Refuse,
}

fn bytes_max() -> u64 {
    4096 * MIB
}
fn keep_delivered_bytes() -> u64 {
    256 * MIB
}
fn epoch_bytes() -> u64 {
    16 * MIB
}

impl Config {
    /// The defaults, in a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            bytes_max: bytes_max(),
            keep_delivered_bytes: keep_delivered_bytes(),
            epoch_bytes: epoch_bytes(),
            commit_delay_ms: 0,
            when_full: WhenFull::default(),
        }
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Error::Config`] names the key and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let key = |key, value, ok: bool, allowed: String| {
            if ok { Ok(()) } else { Err(Error::Config { key, value, allowed }) }
        };
        let epoch_ok = (MIB..=256 * MIB).contains(&self.epoch_bytes);
        key("epoch_bytes", self.epoch_bytes, epoch_ok, format!("from {MIB} to {}", 256 * MIB))?;
        let least = self.bytes_max_least();
        key(
            "bytes_max",
            self.bytes_max,
            self.bytes_max >= least,
            format!("at least {least} (2 epochs and 16 MiB)"),
        )?;
        let delay = self.commit_delay_ms;
        key("commit_delay_ms", delay, delay <= 10_000, "at most 10000".to_owned())
    }

    /// With less, a full spool could be unable to go on after all of it has been delivered.
    const fn bytes_max_least(&self) -> u64 {
        2 * self.epoch_bytes + 16 * MIB
    }
}
