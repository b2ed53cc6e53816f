//! What damage does to a running spool: what is readable is read, what is gone is noted, and told once.

use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Spool;
use super::closed::Closed;
use super::error::Error;
use super::losses::{Losses, Lost, Stage};
use super::record::Record;
use crate::facts;

/// What a disk has not read for so long, it will not: it is gone. Passing troubles have passed by then.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);

impl Spool {
    /// Reads an epoch that is not being written (any more), from the record that holds the first of `numbers` on.
    pub(super) fn read_closed(
        &self,
        reading: &mut Option<(u64, Closed)>,
        first: u64,
        numbers: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, Error> {
        let Range { start, end } = numbers;
        let given_up = self.has_failed_long(first);
        let epoch = match reading {
            Some((_, epoch)) => epoch,
            none => match Closed::open(&self.epoch_path(first), self.incarnation, &(first..end), given_up) {
                Ok(epoch) => &none.insert((first, epoch)).1,
                Err(error) if !error.is_damage() => return Err(error),
                Err(error) => {
                    return Err(Error::Missing { from: start, to: end, reason: error.with_causes() });
                }
            },
        };
        epoch.read(start, end, bytes_max, given_up)
    }

    fn has_failed_long(&self, first: u64) -> bool {
        let failing = *self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.is_some_and(|(epoch, since)| epoch == first && since.elapsed() >= GIVEN_UP_AFTER)
    }

    /// Notes since when an epoch cannot be read; any other is well again when it is read.
    pub(super) fn count_failure<T>(&self, first: u64, read: &Result<T, Error>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Err(error) if !error.is_damage() => {
                if failing.is_none_or(|(epoch, _)| epoch != first) {
                    *failing = Some((first, Instant::now()));
                }
            }
            // The next block may be as bad.
            Err(_) => {}
            Ok(_) => *failing = None,
        }
    }

    /// Notes that the numbers `from .. to` are not in the spool: those that the stream has not got are to be told. Gives how many
    /// these are. Writes the disk: blocks.
    ///
    /// # Errors
    /// It is not noted: whoever found it has to tell it.
    pub fn lose(&self, from: u64, to: u64) -> Result<u64, Error> {
        let from = from.max(self.state().in_stream);
        if from >= to {
            return Ok(0);
        }
        let lost = Lost { incarnation: self.incarnation, numbers: from..to };
        if self.lost().add(&lost, Stage::ToTell)? {
            self.lost.notify_one();
        }
        Ok(to - from)
    }

    /// What is lost by damage and has not been told.
    pub fn untold_losses(&self) -> Vec<Lost> {
        self.lost().untold()
    }

    /// These are told: durably, where they will be delivered from.
    ///
    /// # Errors
    /// The disk does not take that; then it is told again after the next start.
    pub fn losses_told(&self, told: &[Lost]) -> Result<(), Error> {
        for lost in told {
            facts::uplinks_gone(lost.numbers.end - lost.numbers.start);
        }
        self.lost().told(told)
    }

    /// Resolves when there is something to tell.
    pub async fn must_tell_losses(&self) {
        while self.untold_losses().is_empty() {
            self.lost.notified().await;
        }
    }

    pub(super) fn lost(&self) -> MutexGuard<'_, Losses> {
        // Whoever panicked has changed nothing, or all.
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
