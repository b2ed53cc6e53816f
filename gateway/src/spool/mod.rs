//! The spool: uplinks on disk, from their acknowledgement until the stream has them, and a while longer.
//!
//! # What an acknowledgement means
//! When [`Writer::append`] has returned, its records are in a sled database and `fdatasync` on that database's log has returned: they
//! outlive a killed process and a power cut. Nothing is acknowledged before, and nothing is shown to readers before, so what has been
//! forwarded is also on disk. After a failed write or sync the writer is poisoned, and nothing more goes into that epoch: what the disk
//! holds of it beyond what readers have been told of is unknown. [`Writer::renew`] goes on in another epoch, whose first number
//! hides whatever that is.
//!
//! # Format
//! ```text
//! FOLDER/lock                          who has it
//! FOLDER/incarnation                   made once: which spool this is
//! FOLDER/numbers                       which numbers were given out ([`numbers`])
//! FOLDER/losses                        which are lost by damage, and told ([`losses`])
//! FOLDER/given-up, given-up.2          with `drop-oldest`: what was given up last, until it is told
//! FOLDER/delivered                     what the stream has acknowledged; may be behind the truth, never ahead
//! FOLDER/*.damaged                     the last incarnation or delivered that could not be read
//! FOLDER/epochs/00000000000000000001/  an epoch: a sled database of records from this number on
//! FOLDER/epochs/00000000000000104822/  the next one
//! FOLDER/epochs/*.new, *.gone          being made or made ahead, being deleted: removed at start
//! FOLDER/epochs/*.saved                what a repair has saved ([`repair`]): put in its place at start
//! FOLDER/damaged/                      damaged epochs that are done with ([`aside`])
//! ```
//! The record's form is in [`record`], the epoch's in [`epoch`].
//!
//! # Limits
//! An epoch has 8 MiB and at most 2^20 uplinks; at most one is open for writing and one for reading, so memory does not grow with
//! the backlog. A record has at most 60 KiB, or is one uplink. The tail in memory has 2 MiB. The whole has `bytes_max` on disk,
//! and leaves `free_min` of its file system free ([`room`]). On a disk that is full all the same, nothing is acknowledged; what
//! is there is still read, delivered and deleted, none of which needs room ([`disk`]).
//!
//! # Invariants
//! - Numbers are given out once within an incarnation, without holes, whatever is damaged ([`recovery`]). A hole is damage, and
//!   reading tells it ([`Error::Missing`]); what is readable around it is read ([`closed`]).
//! - Epochs are written only by the process that made them, in the order of their names; names are durable before contents. By
//!   any other process, and when they are closed, they are only read.
//! - An epoch is deleted only when a newer one exists, and it is wholly delivered, or what is in it was written down and will be
//!   told ([`give_up`]).
//! - Opening reads only the last epoch.

pub mod account;
mod aside;
mod closed;
mod config;
mod damage;
mod disk;
mod epoch;
mod error;
mod folder;
mod give_up;
mod inspect;
mod keeping;
mod losses;
mod numbers;
pub mod record;
mod recovery;
mod repair;
mod room;
mod scan;
mod since;
mod status;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use self::closed::Closed;
use self::damage::Failing;
use self::epoch::{Blank, Epoch, SLED_SEGMENT_BYTES};
use self::folder::Folder;
use self::give_up::Note;
use self::losses::Losses;
use self::numbers::Numbers;
use self::room::Ground;
use self::tail::Tail;
use crate::config::value;
use crate::facts;

pub use self::account::GivenUp;
pub use self::config::{Config, WhenFull};
pub use self::error::Error;
pub use self::folder::Delivered;
pub use self::inspect::{DamagedFile, EpochReport, Gone, Report, inspect};
pub use self::losses::Lost;
pub use self::record::{Draft, RECORD_BYTES_MAX, Record};
pub use self::repair::{Repaired, RepairedEpoch};
pub use self::room::{Full, Patience};
pub use self::status::{EpochStatus, Status};
pub use self::writer::Writer;

/// The spool, for those who read and release. Everything here may be called from any thread.
#[derive(Debug)]
pub struct Spool {
    config: Config,
    folder: Folder,
    incarnation: u64,
    state: Mutex<State>,
    /// Held while reading: one reader at a time.
    reading: Mutex<Reading>,
    numbers: Numbers,
    /// What damaged epochs have on disk that are set aside.
    aside_bytes: AtomicU64,
    /// What is lost by damage.
    losses: Mutex<Losses>,
    /// Tells that there may be something to tell.
    lost: Notify,
    /// Which epoch cannot be read, and since when.
    failing: Mutex<Failing>,
    /// What was given up last. Held while more is.
    note: Mutex<Note>,
    /// Tells that something may have to be given up.
    giving_up: Notify,
    /// Held while the `delivered` file is written.
    marking: Mutex<()>,
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

/// The disk, as it was when it was looked at last.
#[derive(Debug, Default)]
struct Disk {
    free_bytes: Option<u64>,
    /// Less than is to be stored next.
    short: bool,
    /// Why the last commit failed.
    trouble: Option<String>,
    /// Whether and why the spool is full, as it was told.
    full: Option<Full>,
    /// What the keeper could not do, and why, as it was told.
    undone: BTreeMap<&'static str, String>,
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
    /// Numbers below are in the stream: `delivered`, unless something is being sent again on request.
    in_stream: u64,
    /// Numbers below are not there any more, or are to be deleted, and were never delivered, as far as they had not been.
    given_up: u64,
    disk: Disk,
}

/// The closed epoch that was read last.
type Reading = Option<(u64, Closed)>;

/// What is known of an epoch without opening it.
#[derive(Debug, Clone, Copy)]
struct Known {
    first: u64,
    bytes: u64,
    /// When it was first known to be wholly delivered.
    delivered_at: Option<Instant>,
}

/// Repairs the spool in `folder`, which no gateway must have, or says what would be done. `now_ms` is Unix time.
///
/// # Errors
/// [`Error::InUse`] while a gateway has it; [`Error::NotOurs`] unless this runs as the folder's owner; there is none; the disk does not let it be done: what was not done is as it was.
pub fn repair(folder: &Path, dry: bool, now_ms: u64) -> Result<Repaired, Error> {
    repair::repair(folder, dry, now_ms, writer::random)
}

impl Spool {
    /// Opens the spool, making it if there is none. `now_ms` is Unix time.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it; other errors say which file cannot be read or written.
    pub fn open(config: &Config, now_ms: u64) -> Result<(Arc<Self>, Writer), Error> {
        writer::open(config, now_ms).map_err(|error| {
            if error.is_read_only() {
                Error::ReadOnly { folder: config.folder.clone(), source: Box::new(error) }
            } else {
                error
            }
        })
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

    /// Why nothing more can be stored, if so.
    pub fn full(&self) -> Option<Full> {
        self.state().disk.full
    }

    /// How many uplinks wait to be delivered.
    pub fn waiting(&self) -> u64 {
        let state = self.state();
        let oldest = state.epochs.front().map_or(state.next, |epoch| epoch.first);
        state.next.saturating_sub(state.delivered.number.max(oldest))
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

    /// The newest records, as far as they are in memory and do not end before `number`: never blocks.
    pub fn newest(&self, number: u64) -> Vec<Arc<Record>> {
        self.state().tail.newest(number)
    }

    /// Records from the one that holds `number` on: at least one, then as many as keep below `bytes_max`; empty if there
    /// is none yet. Reads the disk: blocks.
    ///
    /// # Errors
    /// [`Error::Missing`] if `number` is gone: tell it, and go on at its `to`. [`Error::GivenUp`] likewise, but it is told. Other errors: reading failed, may be tried again.
    pub fn read_from(&self, number: u64, bytes_max: usize) -> Result<Vec<Arc<Record>>, Error> {
        self.read_by(None, number, bytes_max)
    }

    /// The same, perhaps by who is reading already.
    fn read_by(
        &self,
        held: Option<&mut Reading>,
        number: u64,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Record>>, Error> {
        let state = self.state();
        if number >= state.next {
            return Ok(Vec::new());
        }
        if let Some(records) = state.tail.read(number, bytes_max) {
            return Ok(records);
        }
        if number < state.given_up {
            return Err(Error::GivenUp { from: number, to: state.given_up });
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
        let mut locked;
        let reading = match held {
            Some(held) => held,
            None => {
                locked = self.reading();
                &mut *locked
            }
        };
        let given_up = self.state().given_up;
        if number < given_up {
            return Err(Error::GivenUp { from: number, to: given_up });
        }
        if self.oldest_number() > first {
            let reason = "their epoch has been deleted meanwhile".to_owned();
            return Err(Error::Missing { from: number, to: end, reason });
        }
        if reading.as_ref().is_some_and(|(open, _)| *open != first) {
            disk::let_go(reading.take());
        }
        let read = self.read_closed(reading, first, number..end, bytes_max);
        let mut failing = self.failing();
        failing.note(first, number, &read, Instant::now());
        failing.forget_below(self.oldest_number());
        drop(failing);
        read
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
            state.in_stream = state.in_stream.max(number);
            state.note_delivered(Instant::now());
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
        state.in_stream = state.in_stream.min(number);
        self.deliver_from(state, number, stream_sequence);
    }

    /// The same for what the stream still has: it stays until it is released again, and should there be no room for it, it is
    /// no loss.
    pub fn send_again(&self, number: u64, stream_sequence: u64) {
        self.deliver_from(self.state(), number, stream_sequence);
    }

    fn deliver_from(&self, mut state: MutexGuard<'_, State>, number: u64, stream_sequence: u64) {
        if number < state.delivered.number {
            state.delivered = Delivered { number, stream_sequence };
            state.note_delivered(Instant::now());
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

    fn reading(&self) -> MutexGuard<'_, Reading> {
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

    /// Looks what is free on the disk, which others fill, too.
    pub(crate) fn look(&self) {
        let free_bytes = disk::free_bytes(self.folder());
        let mut state = self.state();
        state.disk.free_bytes = free_bytes;
        let changed = self.count_room(&mut state);
        let crowded = self.deletable_in(&state).is_some() || self.to_give_up_in(&state).is_some();
        drop(state);
        self.call_keeper(crowded, changed);
    }

    fn call_keeper(&self, sweep: bool, look: bool) {
        if sweep {
            self.chores().sweep();
        } else if look {
            // Whether the spool is full says how long he sleeps: he has asked already, or will.
            drop(self.chores());
        } else {
            return;
        }
        self.chores_changed.notify_one();
    }

    /// Looks whether so many bytes may be written now. If not, the spool is full until they may.
    pub(crate) fn may_store(&self, bytes: u64) -> bool {
        let free_bytes = disk::free_bytes(self.folder());
        let mut state = self.state();
        state.disk.free_bytes = free_bytes;
        let fits = free_bytes.is_none_or(|free| free >= bytes) && self.ground(&state).disk_bytes() > 0;
        state.disk.short = !fits;
        let changed = self.count_room(&mut state);
        drop(state);
        // Whatever is kept beyond its delivery gives way.
        self.call_keeper(!fits, changed);
        fits
    }

    /// A commit has failed: the spool is full until one succeeds.
    pub(crate) fn hold(&self, error: &Error) {
        let text = error.with_causes();
        let mut state = self.state();
        if state.disk.trouble.as_ref() != Some(&text) {
            tracing::error!(
                error = text,
                "the disk does not take what is stored: nothing is acknowledged until it does"
            );
            state.disk.trouble = Some(text);
        }
        let changed = self.count_room(&mut state);
        drop(state);
        self.call_keeper(true, changed);
    }

    fn ground(&self, state: &State) -> Ground {
        Ground {
            used_bytes: state.epochs.iter().map(Known::cost_bytes).sum::<u64>()
                + self.aside_bytes.load(Ordering::Relaxed),
            bytes_max: self.config.bytes_max,
            free_bytes: state.disk.free_bytes,
            free_min: self.config.free_min,
            short: state.disk.short,
            held: state.disk.trouble.is_some(),
        }
    }

    /// Says whether the spool has become full, or has room again: it was not so before.
    fn count_room(&self, state: &mut State) -> bool {
        let room = self.ground(state).room();
        self.room_bytes.store(room.bytes, Ordering::Relaxed);
        self.room.notify_waiters();
        let before = state.disk.full;
        let full = room::full(before, room);
        if full != before {
            state.disk.full = full;
            facts::spool_full(full);
            self.tell_full(full, state.disk.free_bytes);
        }
        full != before
    }

    fn tell_full(&self, full: Option<Full>, free_bytes: Option<u64>) {
        let free = free_bytes.map_or_else(|| "unknown".to_owned(), value::show);
        match full {
            None => tracing::info!(free, "there is room in the spool again: uplinks are taken"),
            Some(Full::BytesMax) => tracing::warn!(
                bytes_max = value::show(self.config.bytes_max),
                "the spool is full: nothing is acknowledged until something is delivered"
            ),
            Some(Full::FreeMin) => tracing::warn!(
                free,
                free_min = value::show(self.config.free_min),
                "the disk is full: nothing is acknowledged until it has room"
            ),
            // Said by whoever failed.
            Some(Full::Disk) => {}
        }
    }
}

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
