//! The spool: uplinks on disk, from their acknowledgement until the stream has them, and a while longer.
//!
//! # What an acknowledgement means
//! When [`Writer::append`] has returned, its records are in a sled database and `fdatasync` on that database's log has returned: they
//! outlive a killed process and a power cut. Nothing is acknowledged before, and nothing is shown to readers before, so what has been
//! forwarded is also on disk. After a failed write or sync the writer is poisoned: what the disk holds is unknown until the
//! next start has read it back.
//!
//! # Format
//! ```text
//! FOLDER/lock                          who has it
//! FOLDER/incarnation                   made once: which spool this is
//! FOLDER/delivered                     what the stream has acknowledged; may be behind the truth, never ahead
//! FOLDER/epochs/00000000000000000001/  an epoch: a sled database of records from this number on
//! FOLDER/epochs/00000000000000104822/  the next one
//! FOLDER/epochs/*.new, *.gone          being made or made ahead, being deleted: removed at start
//! ```
//! The record's form is in [`record`], the epoch's in [`epoch`].
//!
//! # Limits
//! An epoch has 8 MiB and at most 2^20 uplinks; at most one is open for writing and one for reading, so memory does not grow with
//! the backlog. A record has at most 60 KiB, or is one uplink. The tail in memory has 2 MiB. The whole has `bytes_max` on disk.
//!
//! # Invariants
//! - Numbers are given out once within an incarnation, without holes. A hole is damage, and reading tells it ([`Error::Missing`]).
//! - Epochs are written only by the process that made them, in the order of their names; names are durable before contents.
//! - An epoch is deleted only when it is wholly delivered, the `delivered` file says so, and a newer one exists.
//! - Opening reads only the last epoch.

mod config;
mod epoch;
mod error;
mod folder;
pub mod record;
mod status;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use self::epoch::{Blank, Epoch, SLED_SEGMENT_BYTES};
use self::folder::Folder;
use self::tail::Tail;

pub use self::config::{Config, WhenFull};
pub use self::error::Error;
pub use self::folder::Delivered;
pub use self::record::{Draft, RECORD_BYTES_MAX, Record};
pub use self::status::{EpochStatus, Status};
pub use self::writer::Writer;

/// The spool, for those who read and release. Everything here may be called from any thread.
#[derive(Debug)]
pub struct Spool {
    config: Config,
    folder: Folder,
    incarnation: u64,
    state: Mutex<State>,
    /// The closed epoch that was read last. Held while reading: one reader at a time.
    reading: Mutex<Option<(u64, Arc<Epoch>)>>,
    /// The next epoch, made ahead.
    spare: Mutex<Option<Blank>>,
    chores: Mutex<writer::Chores>,
    chores_changed: Condvar,
    next: watch::Sender<u64>,
    /// How many epochs were made, for their places.
    blanks: AtomicU64,
    room_bytes: AtomicU64,
    room: Notify,
}

#[derive(Debug)]
struct State {
    /// Oldest first; the last may be the one being written.
    epochs: VecDeque<Known>,
    active: Option<Arc<Epoch>>,
    tail: Tail,
    /// The first number that is not durable.
    next: u64,
    delivered: Delivered,
}

/// What is known of an epoch without opening it.
#[derive(Debug, Clone, Copy)]
struct Known {
    first: u64,
    bytes: u64,
}

impl Spool {
    /// Opens the spool, making it if there is none. `now_ms` is Unix time.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it; other errors say which file cannot be read or written.
    pub fn open(config: &Config, now_ms: u64) -> Result<(Arc<Self>, Writer), Error> {
        writer::open(config, now_ms)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.config.folder
    }

    /// The random number made when this spool was created.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The first number that is not durable yet.
    pub fn next_number(&self) -> u64 {
        self.state().next
    }

    /// The first number that can be read: of the oldest epoch that is still kept.
    pub fn oldest_number(&self) -> u64 {
        let state = self.state();
        state.epochs.front().map_or(state.next, |epoch| epoch.first)
    }

    /// What the stream has acknowledged, as far as this was released.
    pub fn delivered(&self) -> Delivered {
        self.state().delivered
    }

    /// Tells of new records: the value is [`Self::next_number`].
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Records from the one that holds `number` on, if they are in memory: never blocks. At least one record, then as many
    /// as keep below `bytes_max`; empty if there is none yet. `None`: [`Self::read_from`] has to be asked.
    pub fn try_tail(&self, number: u64, bytes_max: usize) -> Option<Vec<Arc<Record>>> {
        let state = self.state();
        if number >= state.next {
            return Some(Vec::new());
        }
        state.tail.read(number, bytes_max)
    }

    /// Records from the one that holds `number` on: at least one, then as many as keep below `bytes_max`; empty if there
    /// is none yet. Reads the disk: blocks.
    ///
    /// # Errors
    /// [`Error::Missing`] if `number` is gone: tell it, and go on at its `to`. Other errors: reading failed, may be tried again.
    pub fn read_from(&self, number: u64, bytes_max: usize) -> Result<Vec<Arc<Record>>, Error> {
        let state = self.state();
        if number >= state.next {
            return Ok(Vec::new());
        }
        if let Some(records) = state.tail.read(number, bytes_max) {
            return Ok(records);
        }
        let after = state.epochs.partition_point(|epoch| epoch.first <= number);
        // While a commit goes over into a new epoch, that begins behind what is durable.
        let end = state.epochs.get(after).map_or(state.next, |epoch| epoch.first.min(state.next));
        let Some(at) = after.checked_sub(1) else {
            let reason = "no epoch holds them any more".to_owned();
            return Err(Error::Missing { from: number, to: end, reason });
        };
        let first = state.epochs[at].first;
        let active = state.active.clone().filter(|_| after == state.epochs.len());
        drop(state);

        if let Some(epoch) = active {
            return epoch.read(number, end, bytes_max);
        }
        let mut reading = self.reading();
        if self.oldest_number() > first {
            let reason = "their epoch has been deleted meanwhile".to_owned();
            return Err(Error::Missing { from: number, to: end, reason });
        }
        if reading.as_ref().is_none_or(|(open, _)| *open != first) {
            *reading = None;
            match Epoch::open(&self.epoch_path(first)) {
                Ok(epoch) => *reading = Some((first, Arc::new(epoch))),
                Err(error) if !error.is_damage() => return Err(error),
                Err(error) => {
                    return Err(Error::Missing { from: number, to: end, reason: error.with_causes() });
                }
            }
        }
        let (_, epoch) = reading.as_ref().expect("opened just now");
        epoch.read(number, end, bytes_max)
    }

    /// The stream has everything below `number`; the last of it is in its message `stream_sequence`. Never blocks on the disk.
    ///
    /// # Errors
    /// [`Error::ReleasedAhead`] if that much was never stored: somebody mixes spools up, and nothing is released.
    pub fn release(&self, number: u64, stream_sequence: u64) -> Result<(), Error> {
        let mut state = self.state();
        if number > state.next {
            return Err(Error::ReleasedAhead { number, next: state.next });
        }
        if number >= state.delivered.number {
            state.delivered = Delivered { number, stream_sequence };
            drop(state);
            self.chores().sweep();
            self.chores_changed.notify_one();
        }
        Ok(())
    }

    /// The stream has lost what it had acknowledged: everything from `number` on counts as not delivered again. As far as
    /// it is still kept it can be read; it stays until it is released again.
    pub fn take_back(&self, number: u64, stream_sequence: u64) {
        let mut state = self.state();
        if number < state.delivered.number {
            state.delivered = Delivered { number, stream_sequence };
            drop(state);
            self.chores().mark();
            self.chores_changed.notify_one();
        }
    }

    /// Bytes that may still be stored within the budget.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.room_bytes.load(Ordering::Relaxed)
    }

    /// Wakes those who wait for room, when there may be more.
    pub(crate) fn room(&self) -> &Notify {
        &self.room
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    fn chores(&self) -> MutexGuard<'_, writer::Chores> {
        self.chores.lock().expect("nothing panics while it is held")
    }

    fn reading(&self) -> MutexGuard<'_, Option<(u64, Arc<Epoch>)>> {
        // Whoever panicked while reading has left nothing half done.
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Option<Blank>> {
        self.spare.lock().expect("nothing panics while it is held")
    }

    fn epoch_path(&self, first: u64) -> PathBuf {
        self.folder.epochs().join(epoch_name(first))
    }

    /// Where an epoch is made: never the same place twice.
    fn blank_path(&self) -> PathBuf {
        let made = self.blanks.fetch_add(1, Ordering::Relaxed);
        self.folder.epochs().join(format!("{made}.new"))
    }

    fn count_room(&self, state: &State) {
        let used: u64 = state.epochs.iter().map(Known::cost_bytes).sum();
        let room = self.config.bytes_max.saturating_sub(used + RESERVE_BYTES);
        self.room_bytes.store(room, Ordering::Relaxed);
        self.room.notify_waiters();
    }
}

/// Kept free for a new epoch's first bytes and for the small files.
const RESERVE_BYTES: u64 = 1024 * 1024;

impl Known {
    /// What it may have on disk: opening a log fills its last segment up and writes an index.
    fn cost_bytes(&self) -> u64 {
        self.bytes.next_multiple_of(SLED_SEGMENT_BYTES) + SLED_SEGMENT_BYTES / 4
    }
}

/// The name of the epoch that begins with this number: names sort as numbers do.
fn epoch_name(first: u64) -> String {
    format!("{first:020}")
}
