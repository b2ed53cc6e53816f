//! Folds the log into the store.

use tokio::sync::watch;

use crate::log;
use crate::store::{self, Store};

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
}

/// Reads the log from the store's position and folds it into the store, until `stop` becomes true.
/// What is being folded then is committed first.
///
/// # Errors
/// Only if the store fails.
pub async fn run(
    nats: async_nats::Client,
    stream: log::Config,
    store: Store,
    progress: watch::Sender<Progress>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let _ = (nats, stream, store, progress);
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}
