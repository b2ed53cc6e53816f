//! What the spool holds, for people and for metrics.

use serde::Serialize;

use super::{Full, Spool};

/// What the spool holds.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Which spool this is; a string in JSON, it may exceed 2^53.
    #[serde(serialize_with = "as_string")]
    pub incarnation: u64,
    /// The next number.
    pub next: u64,
    /// Everything below is in the stream.
    pub delivered: u64,
    /// Stream sequence of the message that holds the last delivered uplink.
    pub stream_sequence: u64,
    /// Uplinks that wait.
    pub waiting: u64,
    /// Unix milliseconds when the oldest waiting uplink was taken.
    pub oldest_received_ms: Option<u64>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub budget_bytes: u64,
    /// Bytes free on the spool's file system; `None` if it does not say.
    pub free_bytes: Option<u64>,
    /// What is to stay free there.
    pub free_min_bytes: u64,
    /// Why nothing more can be stored, if so.
    pub full: Option<Full>,
    /// Why the last commit failed, until one succeeds.
    pub trouble: Option<String>,
    /// Uplinks that are lost by damage, as far as they belong to what is kept.
    pub lost: u64,
    /// Damaged epochs that are set aside.
    pub aside: usize,
    /// Oldest first.
    pub epochs: Vec<EpochStatus>,
}

/// One epoch.
#[derive(Debug, Clone, Serialize)]
pub struct EpochStatus {
    /// Its folder's name.
    pub name: String,
    /// Its first number.
    pub first: u64,
    /// The number after its last.
    pub end: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it is being written.
    pub open: bool,
}

impl Spool {
    /// What the spool holds. May read the disk for the oldest uplink's time: blocks.
    pub fn status(&self) -> Status {
        let delivered = self.delivered();
        // What lies before was given up.
        let waits_from = delivered.number.max(self.oldest_number());
        let oldest = self.read_from(waits_from, 1).ok();
        let oldest_received_ms = oldest.and_then(|records| {
            let part = records.first()?.part_from(waits_from)?;
            Some(part.received_ms)
        });
        self.look();
        let lost = self.lost().count(self.incarnation);
        // Reads the disk: not while the state is held, for which commits wait.
        let aside = self.aside_count();
        let state = self.state();
        let ends = state.epochs.iter().skip(1).map(|epoch| epoch.first).chain([state.next]);
        let last = state.epochs.len().saturating_sub(1);
        let epochs = state.epochs.iter().zip(ends).enumerate().map(|(at, (epoch, end))| EpochStatus {
            name: super::epoch_name(epoch.first),
            first: epoch.first,
            end,
            bytes: epoch.bytes,
            open: at == last && state.active.is_some(),
        });
        Status {
            incarnation: self.incarnation,
            next: state.next,
            delivered: delivered.number,
            stream_sequence: delivered.stream_sequence,
            waiting: state.next.saturating_sub(waits_from),
            oldest_received_ms,
            bytes: state.epochs.iter().map(|epoch| epoch.bytes).sum(),
            budget_bytes: self.config.bytes_max,
            free_bytes: state.disk.free_bytes,
            free_min_bytes: self.config.free_min,
            full: state.disk.full,
            trouble: state.disk.trouble.clone(),
            lost,
            aside,
            epochs: epochs.collect(),
        }
    }
}

fn as_string<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}
