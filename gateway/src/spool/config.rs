//! The `[spool]` table of the configuration, with every default.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::tail::TAIL_BYTES_MAX;
use crate::config::fit::Need;
use crate::config::value;

const MIB: u64 = 1024 * 1024;

/// How the spool is kept.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The spool's folder; made if it is not there. One gateway has one spool.
    pub folder: PathBuf,
    /// Most bytes on disk, everything counted.
    #[serde(
        default = "bytes_max",
        deserialize_with = "value::bytes::<{ 32 * MIB }, { 1 << 50 }, _>",
        serialize_with = "value::as_bytes"
    )]
    pub bytes_max: u64,
    /// What stays free on the spool's file system, whoever fills it: with less the spool is full.
    #[serde(
        default = "free_min",
        deserialize_with = "value::bytes::<0, { 1 << 50 }, _>",
        serialize_with = "value::as_bytes"
    )]
    pub free_min: u64,
    /// Delivered epochs stay up to this many bytes, to be sent again should the stream lose them. Counted in
    /// `bytes_max`; gives way to what is not delivered.
    #[serde(
        default = "keep_delivered_bytes",
        deserialize_with = "value::bytes::<0, { 1 << 50 }, _>",
        serialize_with = "value::as_bytes"
    )]
    pub keep_delivered_bytes: u64,
    /// Delivered epochs stay for so many seconds, as far as `keep_delivered_bytes` allows; 0: as long as that allows. Counted
    /// from their delivery, or from the start if that is later.
    #[serde(default, deserialize_with = "value::between::<0, { 10 * 365 * 24 * 3600 }, _>")]
    pub keep_delivered_s: u64,
    /// An epoch is closed when it has this many bytes. Twice as much is held in memory at most.
    #[serde(
        default = "epoch_bytes",
        deserialize_with = "value::bytes::<MIB, { 256 * MIB }, _>",
        serialize_with = "value::as_bytes"
    )]
    pub epoch_bytes: u64,
    /// A commit waits this long for more uplinks to share its sync: fewer writes to flash, later acknowledgements.
    #[serde(default, deserialize_with = "value::between::<0, 10000, _>")]
    pub commit_delay_ms: u64,
    /// What can be written to the card in all before it wears out (its maker's TBW), to tell how long it lasts; 0 is
    /// unknown.
    #[serde(
        default,
        deserialize_with = "value::bytes::<0, { 1 << 60 }, _>",
        serialize_with = "value::as_bytes"
    )]
    pub card_endurance: u64,
    /// What to do when `bytes_max` or `free_min` is reached.
    #[serde(default)]
    pub when_full: WhenFull,
}

/// What to do when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Acknowledge nothing more until something has been delivered: devices keep their events.
    #[default]
    Refuse,
    /// Give up the oldest epoch, as a whole, and tell the ledger exactly which events of which device were in it.
    DropOldest,
}

fn bytes_max() -> u64 {
    4096 * MIB
}
fn free_min() -> u64 {
    256 * MIB
}
fn keep_delivered_bytes() -> u64 {
    256 * MIB
}
fn epoch_bytes() -> u64 {
    8 * MIB
}

impl Config {
    /// The defaults, in a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            bytes_max: bytes_max(),
            free_min: free_min(),
            keep_delivered_bytes: keep_delivered_bytes(),
            keep_delivered_s: 0,
            epoch_bytes: epoch_bytes(),
            commit_delay_ms: 0,
            card_endurance: 0,
            when_full: WhenFull::default(),
        }
    }

    /// What may be in memory: the epoch that is written, the one that is read, the one made ahead is empty; sled's pages
    /// of an epoch take up to twice its bytes. Batches and the tail have limits of their own.
    pub(crate) fn needs(&self) -> Vec<Need> {
        vec![
            Need::bytes("spool.epoch_bytes", self.epoch_bytes, 4),
            Need::bytes(
                "(records to be stored and sent)",
                crate::custody::MEMORY_BYTES_MAX + TAIL_BYTES_MAX as u64,
                1,
            ),
        ]
    }

    /// Checks what no single key can tell.
    ///
    /// # Errors
    /// [`Error::Config`] names the key and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        // With less, a full spool could be unable to go on after all of it has been delivered.
        let least = 2 * self.epoch_bytes + 16 * MIB;
        if self.bytes_max >= least {
            return Ok(());
        }
        let (least, is) = (value::show(least), value::show(self.bytes_max));
        Err(Error::Config {
            key: "bytes_max",
            allowed: format!("{is} is less than {least}: two epochs and 16 MiB"),
        })
    }
}
