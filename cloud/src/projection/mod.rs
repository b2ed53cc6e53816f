//! Folds the log into the store.
//!
//! Pure, tested as plain functions:
//! - [`runs`]: sets of numbers as ranges: what has arrived, and so what has not;
//! - [`beginning`]: the order of a device's boots;
//! - [`registers`]: what the events of one boot tell of the device's state;
//! - [`boot`]: the fold itself, an uplink into what is known of a boot;
//! - [`device`]: the state of a device, its boots laid over each other.
//!
//! None of it does IO or reads a clock, and none of it depends on the order in which uplinks arrive.
//!
//! [`run`] is the loop around it: one task reads the log, one thread opens messages, one thread folds and writes
//! ([`pipeline`]). The channels between them are bounded; a slow disk slows the reading down, and the log keeps the rest.

pub mod beginning;
pub mod bench;
pub mod boot;
pub mod device;
mod facts;
mod pipeline;
pub mod registers;
pub mod runs;

use std::error::Error as _;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::log::provision::Difference;
use crate::log::reading::Reading;
use crate::log::{self, Error as LogError};
use crate::nats::Connection;
use crate::store::{self, Store};
use pipeline::{Pipeline, WriterGone};

/// First wait before trying again.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait before trying again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How far the projection has come, for status, readiness and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the log is being read right now: connected, stream there, consumer running.
    pub reading: bool,
    /// Sequence of the last message folded; 0 if none.
    pub stream_sequence: u64,
    /// Sequence of the last message the stream is known to hold; `None` before it was first asked.
    pub stream_last_sequence: Option<u64>,
    /// Messages the stream holds that are not folded yet; `None` before it was first asked.
    pub lag_messages: Option<u64>,
    /// When the stream took the last message folded, Unix milliseconds. While `lag_messages` is above 0, now less this is
    /// the lag in time.
    pub last_logged_at_ms: Option<u64>,
    /// Why the log is not being read, if it is not.
    pub trouble: Option<String>,
}

/// Why the projection ended by itself. NATS being away is not among the reasons: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed. What is in it is whole, but nothing more can be written: end, and start again.
    #[error("the projection cannot write to its store")]
    Store(#[from] store::Error),
    /// A thread cannot be started, or has no memory.
    #[error("the projection cannot start")]
    Start(#[source] std::io::Error),
}

/// Reads the log from the store's position and folds it into the store, until `stop` becomes true.
/// What has been read by then is committed first.
///
/// # Errors
/// Only if the store fails.
pub async fn run(
    nats: Connection,
    stream: log::Config,
    store: Store,
    progress: watch::Sender<Progress>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let pipeline = Pipeline::start(store, progress.clone())?;
    let mut reader = Reader { nats, stream, progress, differences: Vec::new(), backoff: BACKOFF_MIN };
    tokio::select! {
        // The writer is gone only if it has failed, which its end tells.
        WriterGone = reader.read_for_ever(&pipeline) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    pipeline.end().await
}

/// Reads the log, for ever.
struct Reader {
    nats: Connection,
    stream: log::Config,
    progress: watch::Sender<Progress>,
    /// What has been told of them already.
    differences: Vec<Difference>,
    backoff: Duration,
}

impl Reader {
    async fn read_for_ever(&mut self, pipeline: &Pipeline) -> WriterGone {
        loop {
            let trouble = match self.read(pipeline).await {
                Ok(gone) => return gone,
                Err(trouble) => trouble,
            };
            let text = in_full(&trouble);
            facts::not_reading();
            self.progress.send_modify(|progress| {
                if progress.trouble.as_ref() != Some(&text) {
                    warn!(error = %text, "the log cannot be read at the moment; trying again");
                }
                progress.reading = false;
                progress.trouble = Some(text);
            });
            tokio::time::sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One reading, to its end. Begins behind what is committed: what was read before and is still on its way to the store
    /// gets there first.
    async fn read(&mut self, pipeline: &Pipeline) -> Result<WriterGone, LogError> {
        let position = match pipeline.settle().await {
            Ok(position) => position,
            Err(gone) => return Ok(gone),
        };
        let mut reading = Reading::begin(&self.nats, &self.stream, position.as_ref()).await?;
        self.tell(&reading);
        if let Err(gone) = pipeline.begin(&reading).await {
            return Ok(gone);
        }
        loop {
            let message = reading.next().await?;
            self.backoff = BACKOFF_MIN;
            if let Err(gone) = pipeline.fold(message).await {
                return Ok(gone);
            }
        }
    }

    fn tell(&mut self, reading: &Reading) {
        facts::reading();
        let (from, found) = (reading.resume.next, reading.resume.found);
        if reading.is_alarming() {
            warn!(from, last = reading.stream_last, "{found}");
        } else {
            info!(from, last = reading.stream_last, "{found}");
        }
        if self.differences != reading.differences {
            self.differences.clone_from(&reading.differences);
            for difference in &self.differences {
                warn!("{difference}");
            }
        }
    }
}

/// An error with its causes.
fn in_full(error: &LogError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
