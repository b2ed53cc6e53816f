//! What damage does to a running spool: what is readable is read, what is gone is noted, and told once.

use std::collections::BTreeMap;
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

/// Epochs that the disk does not read, and for how long it has not: time goes in. Something else that can be read, an epoch
/// or a number before, says nothing about them.
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// By the epoch: from which number on, and since when.
    since: BTreeMap<u64, (u64, Instant)>,
}

impl Failing {
    /// Somebody read an epoch from a number on.
    pub fn note<T>(&mut self, epoch: u64, number: u64, read: &Result<T, Error>, now: Instant) {
        match read {
            Err(error) if !error.is_damage() => {
                self.since.entry(epoch).or_insert((number, now));
            }
            // The next block may be as bad.
            Err(_) => {}
            Ok(_) => {
                // What is given up stays so, else each block behind it would be waited for as long.
                let well = self.since.get(&epoch).is_some_and(|(from, _)| number >= *from);
                if well && !self.is_given_up(epoch, now) {
                    self.since.remove(&epoch);
                }
            }
        }
    }

    /// Whether what it does not read of an epoch is gone.
    pub fn is_given_up(&self, epoch: u64, now: Instant) -> bool {
        self.since.get(&epoch).is_some_and(|(_, since)| now.duration_since(*since) >= GIVEN_UP_AFTER)
    }

    /// Nobody reads these epochs any more.
    pub fn forget_below(&mut self, oldest: u64) {
        self.since = self.since.split_off(&oldest);
    }
}

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
        let given_up = self.failing().is_given_up(first, Instant::now());
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

    /// The epochs that cannot be read.
    pub(super) fn failing(&self) -> MutexGuard<'_, Failing> {
        // Whoever panicked has changed nothing, or all.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.lost().told(told)?;
        // Not before: it is tried again until it is noted.
        facts::uplinks_gone(told.iter().map(|lost| lost.numbers.end - lost.numbers.start).sum());
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_block_that_stays_unreadable_is_given_up_though_what_lies_before_it_is_read_meanwhile() {
        let failed = || Err::<(), _>(Error::io("read", "db")(io::Error::from_raw_os_error(5)));
        let mut failing = Failing::default();
        let begun = Instant::now();
        let mut now = begun;
        while now < begun + GIVEN_UP_AFTER {
            assert!(!failing.is_given_up(100, now));
            failing.note(100, 120, &failed(), now);
            // As the uplink does before it tries again: it looks at the end of what was delivered.
            failing.note(50, 99, &Ok(()), now);
            failing.note(100, 110, &Ok(()), now);
            now += Duration::from_secs(2);
        }
        assert!(failing.is_given_up(100, now) && !failing.is_given_up(50, now));
        failing.note(100, 130, &Ok(()), now);
        assert!(failing.is_given_up(100, now), "once, for all of the epoch");
        failing.forget_below(101);
        assert!(!failing.is_given_up(100, now));

        // What was a passing trouble begins anew the next time.
        failing.note(200, 220, &failed(), begun);
        failing.note(200, 220, &Ok(()), begun + GIVEN_UP_AFTER / 2);
        failing.note(200, 220, &failed(), begun + GIVEN_UP_AFTER);
        assert!(!failing.is_given_up(200, begun + GIVEN_UP_AFTER));
    }
}
