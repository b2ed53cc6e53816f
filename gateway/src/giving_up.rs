//! Tells what a full spool gives up, where it is to drop its oldest uplinks: as `events-lost`, for the ledger.
//!
//! What was given up is told before more is: the gateway's own events that tell it are on disk by then. Only if nothing
//! finds room any more, perhaps not even these, more is given up at once, and all of it is told together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use weir_contract::Id;

use crate::custody::Custody;
use crate::journal::{self, Entry};
use crate::spool::account::REASON;
use crate::spool::{Error, GivenUp, Spool};

/// Before a disk that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Gives up what has to be given up, and tells it, for ever; until custody takes nothing any more. `flushes` ask the journal.
pub async fn run(
    custody: Custody,
    gateway: Id,
    journal: journal::Sender,
    flushes: mpsc::Sender<journal::Flush>,
) {
    let spool = Arc::clone(custody.spool());
    loop {
        if let Some(given_up) = spool.untold() {
            tokio::select! {
                told = tell(&given_up, &journal, &flushes) => {
                    if !told || custody.failed().is_some() {
                        // After the next start.
                        return;
                    }
                    on_disk(&spool, Spool::told).await;
                    spool.must_give_up().await;
                }
                () = spool.must_give_up_more() => {}
            }
        } else {
            spool.must_give_up().await;
        }
        on_disk(&spool, move |spool| spool.give_up_oldest(&gateway).map(|_| ())).await;
    }
}

/// Does it until the disk lets it be done.
async fn on_disk(spool: &Arc<Spool>, work: impl Fn(&Spool) -> Result<(), Error> + Clone + Send + 'static) {
    let mut known = None;
    loop {
        let (spool, work) = (Arc::clone(spool), work.clone());
        let done = spawn_blocking(move || work(&spool)).await;
        let Err(error) = done.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
        else {
            return;
        };
        let error = error.with_causes();
        if known.as_ref() != Some(&error) {
            tracing::error!(error, "the spool is full and nothing can be given up; trying again");
            known = Some(error);
        }
        sleep(TRY_AGAIN).await;
    }
}

/// Whether it is told, and on disk.
async fn tell(given_up: &GivenUp, journal: &journal::Sender, flushes: &mpsc::Sender<journal::Flush>) -> bool {
    for entry in entries(given_up) {
        if !journal.tell(entry).await {
            return false;
        }
    }
    journal::flush(flushes).await
}

/// What tells it. Pure.
fn entries(given_up: &GivenUp) -> impl Iterator<Item = Entry> {
    let losses = given_up.losses.iter().map(|loss| Entry::EventsLost(loss.clone()));
    // It may be an earlier spool's.
    let incarnation = given_up.incarnation;
    let unreadable = given_up.unreadable.iter().map(move |(from, end)| Entry::UplinksGone {
        incarnation,
        from: *from,
        to: end - 1,
        reason: REASON.into(),
    });
    losses.chain(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_gone_are_told_as_those_of_the_spool_they_were_of() {
        let given_up = GivenUp { incarnation: 7, unreadable: vec![(3, 5)], ..GivenUp::default() };
        let told: Vec<Entry> = entries(&given_up).collect();
        assert!(matches!(told[..], [Entry::UplinksGone { incarnation: 7, from: 3, to: 4, .. }]), "{told:?}");
    }
}
