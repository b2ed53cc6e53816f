//! The committing thread: takes what has been gathered, stores it, wakes those who wait for it.
//!
//! A commit that fails for want of space, or because the disk does not write now, is nobody's loss: nothing of it is
//! acknowledged, and the batch is stored again when the disk is well, in another epoch ([`Writer::renew`]). Until then nothing is taken,
//! and what is stored goes on being delivered, which is what makes room. A commit that fails for any other reason is final.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::{BATCH_BYTES_DUE, Gathering, Shared};
use crate::facts;
use crate::spool::{self, Patience, Writer};

/// How often a disk without room is looked at: others make room on it as well, and tell nobody.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The committing thread.
pub(super) struct Commits {
    pub shared: Arc<Shared>,
    pub writer: Writer,
    pub delay: Duration,
}

/// The gateway is going down: what has not been stored is not acknowledged.
struct Closed;

impl Commits {
    /// Commits until there is nothing more to come, or one fails for good.
    pub fn run(mut self) {
        let committed = catch_unwind(AssertUnwindSafe(|| self.commit()));
        match committed {
            Ok(Ok(())) => self.writer.close(),
            Ok(Err(error)) => self.fail(error),
            Err(_) => {
                let path = self.shared.spool.folder().to_owned();
                self.fail(spool::Error::Panicked {
                    what: "store in",
                    path,
                    message: "see standard error".to_owned(),
                });
            }
        }
    }

    fn commit(&mut self) -> Result<(), spool::Error> {
        let mut batch = Batch::default();
        while let Some((ticket, begun)) = self.next_batch(&mut batch) {
            // Half of the room is free again: the batch that was swapped in is empty.
            self.shared.spool.room().notify_waiters();
            let first = self.shared.spool.next_number();
            let Ok(next) = self.store(&mut batch)? else {
                tracing::warn!("the disk has no room for what was taken last; devices keep it");
                return Ok(());
            };
            self.stored(ticket);
            *self.shared.taken() += batch.taken();
            facts::uplinks_taken(next - first, batch.taken().events, batch.len() as u64);
            facts::committed(begun.elapsed());
            batch.clear();
        }
        Ok(())
    }

    /// Stores a batch, however long the disk has no room for it.
    fn store(&mut self, batch: &mut Batch) -> Result<Result<u64, Closed>, spool::Error> {
        let mut patience = Patience::default();
        loop {
            if self.wait_for_room(batch.len()).is_err() {
                return Ok(Err(Closed));
            }
            let stored = self.writer.renew().and_then(|()| self.writer.append(batch.drafts()));
            let error = match stored {
                Ok(next) => return Ok(Ok(next)),
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            facts::commit_failed();
            self.shared.spool.hold(&error);
            if self.wait(patience.failed()).is_err() {
                return Ok(Err(Closed));
            }
        }
    }

    /// Waits until so many bytes may be written; at once if there is no doubt.
    fn wait_for_room(&self, len: usize) -> Result<(), Closed> {
        while !self.shared.spool.may_store(super::on_disk(len)) {
            self.wait(LOOK_EVERY)?;
        }
        Ok(())
    }

    /// Waits, alive: what waits for the disk's room does not wait for the disk.
    fn wait(&self, time: Duration) -> Result<(), Closed> {
        let deadline = Instant::now() + time;
        let mut gathering = self.shared.gathering();
        loop {
            self.answer_pulse(&gathering);
            let left = deadline.saturating_duration_since(Instant::now());
            if gathering.closed {
                return Err(Closed);
            }
            if left.is_zero() {
                return Ok(());
            }
            gathering = self.wait_in(gathering, left);
        }
    }

    fn wait_in<'a>(&self, gathering: MutexGuard<'a, Gathering>, time: Duration) -> MutexGuard<'a, Gathering> {
        let waited = self.shared.gathered.wait_timeout(gathering, time);
        waited.expect("nothing panics while it is held").0
    }

    /// Waits for uplinks and takes them; `None` when there will be no more.
    fn next_batch(&self, batch: &mut Batch) -> Option<(u64, Instant)> {
        let mut gathering = self.shared.gathering();
        self.answer_pulse(&gathering);
        while gathering.batch.is_empty() {
            if gathering.closed {
                return None;
            }
            gathering = self.shared.gathered.wait(gathering).expect("nothing panics while it is held");
            self.answer_pulse(&gathering);
        }
        let deadline = gathering.begun + self.delay;
        while !gathering.closed && gathering.batch.len() < BATCH_BYTES_DUE {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            gathering = self.wait_in(gathering, left);
            self.answer_pulse(&gathering);
        }
        std::mem::swap(&mut gathering.batch, batch);
        gathering.storing_bytes = batch.len();
        let waiters = std::mem::take(&mut gathering.waiters);
        gathering.storing = waiters;
        let ticket = gathering.ticket;
        gathering.ticket += 1;
        Some((ticket, gathering.begun))
    }

    /// Only here, between two commits: who waits for the disk has no pulse.
    fn answer_pulse(&self, gathering: &Gathering) {
        if gathering.pulse > self.shared.pulse.load(Ordering::Relaxed) && self.writer.is_kept() {
            self.shared.pulse.store(gathering.pulse, Ordering::Release);
            self.shared.pulsed.notify_waiters();
        }
    }

    fn stored(&self, ticket: u64) {
        let mut gathering = self.shared.gathering();
        self.shared.stored.store(ticket, Ordering::Release);
        gathering.storing_bytes = 0;
        let waiters = std::mem::take(&mut gathering.storing);
        drop(gathering);
        self.shared.spool.room().notify_waiters();
        for waiter in waiters {
            waiter.wake();
        }
    }

    fn fail(&self, error: spool::Error) {
        tracing::error!(
            error = error.with_causes(),
            "storing failed for good: nothing is acknowledged any more"
        );
        facts::custody_failed();
        // Set once: this thread ends here.
        let _ = self.shared.failed.set(Arc::new(error));
        let mut gathering = self.shared.gathering();
        gathering.closed = true;
        let mut waiters = std::mem::take(&mut gathering.storing);
        waiters.append(&mut gathering.waiters);
        drop(gathering);
        self.shared.failing.notify_waiters();
        self.shared.pulsed.notify_waiters();
        self.shared.spool.room().notify_waiters();
        for waiter in waiters {
            waiter.wake();
        }
    }
}
