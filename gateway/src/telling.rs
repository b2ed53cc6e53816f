//! Tells what the spool has lost by damage: as `uplinks-gone`, for the ledger. Each number once: it is noted as told only when
//! the gateway's own events that tell it are on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::custody::Custody;
use crate::journal::{self, Entry};

/// Why numbers are gone.
pub const REASON: &str = "spool-damaged";
/// Before a disk that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Tells what is lost, for ever; until custody takes nothing any more. `flushes` ask the journal.
pub async fn run(custody: Custody, journal: journal::Sender, flushes: mpsc::Sender<journal::Flush>) {
    let spool = Arc::clone(custody.spool());
    loop {
        spool.must_tell_losses().await;
        let lost = spool.untold_losses();
        for lost in &lost {
            let (from, to) = (lost.numbers.start, lost.numbers.end - 1);
            let entry = Entry::UplinksGone { incarnation: lost.incarnation, from, to, reason: REASON.into() };
            if !journal.tell(entry).await {
                // After the next start.
                return;
            }
        }
        let (flushed, told) = oneshot::channel();
        if flushes.send(flushed).await.is_err() || told.await.is_err() || custody.failed().is_some() {
            return;
        }
        // If that cannot be noted, it would be told again only after the next start.
        loop {
            let (spool, lost) = (Arc::clone(&spool), lost.clone());
            let noted = spawn_blocking(move || spool.losses_told(&lost)).await;
            match noted.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())) {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(
                        error = error.with_causes(),
                        "what is lost is told, but that is not noted"
                    );
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }
}
