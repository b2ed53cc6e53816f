//! Giving up the oldest uplinks of a full spool, where the configuration says so (`when_full = "drop-oldest"`).
//!
//! As many of the oldest epochs as it takes go at once. What was in them is written down before they are deleted, in a file that
//! has its place on the disk beforehand, so that a disk without a free byte does not keep it from being written. When that is
//! durable they are given up: nobody reads them any more, and what could not be deleted at once is deleted later. It stays
//! written down until it is told, that is until the gateway's own events that tell it are as durable as any
//! ([`Spool::told`]). A crash in between tells it again: a ledger takes that for what it is.
//!
//! ```text
//! FOLDER/given-up, FOLDER/given-up.2   length u32 | crc32 u32 | CBOR (see account), integers little-endian
//! ```
//!
//! They are written in turns, so that one that was being written when the power was cut leaves the one before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use weir_contract::Id;

use super::account::{Account, GivenUp};
use super::error::Error;
use super::folder::{read_small, sync_folder};
use super::losses::{Lost, Stage};
use super::{Reading, Spool, State, WhenFull, disk, epoch};
use crate::{durable, facts};

/// Each file has this many bytes from the beginning: some ten thousand runs of events.
const NOTE_BYTES: usize = 256 * 1024;
/// Read at a time.
const READ_BYTES_MAX: usize = 256 * 1024;

/// What was given up last, as it is written down.
#[derive(Debug)]
pub(super) struct Note {
    paths: [PathBuf; 2],
    pub given_up: GivenUp,
}

impl Note {
    /// Reads it, if there is one. One that is not whole was being written: nothing had been given up by it.
    pub fn open(folder: &Path, incarnation: u64) -> Result<Self, Error> {
        let paths = ["given-up", "given-up.2"].map(|name| folder.join(name));
        let mut given_up = GivenUp { incarnation, ..GivenUp::default() };
        for path in &paths {
            let bytes = read_small(path)?.unwrap_or_default();
            if let Some(found) = read(&bytes, incarnation)
                && found.turn >= given_up.turn
            {
                given_up = found;
            }
        }
        if given_up.incarnation != incarnation {
            // Of an earlier spool in this folder: it is still to be told, but its numbers mean nothing here.
            (given_up.first, given_up.end) = (0, 0);
        }
        Ok(Self { paths, given_up })
    }

    /// Takes its place on the disk.
    pub fn reserve(&self) -> Result<(), Error> {
        for path in &self.paths {
            let reserve = || -> io::Result<()> {
                let file = File::options().create(true).write(true).truncate(false).open(path)?;
                let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
                if len < NOTE_BYTES {
                    // Not only its length: zeros that are written have their place, a hole has none.
                    file.write_all_at(&vec![0; NOTE_BYTES - len], len as u64)?;
                    file.sync_all()?;
                }
                Ok(())
            };
            reserve().map_err(Error::io("make", path))?;
        }
        sync_folder(self.folder())
    }

    /// Writes it beside the one before; durable when this returns.
    fn write(&mut self, mut given_up: GivenUp) -> Result<(), Error> {
        given_up.turn = self.given_up.turn + 1;
        let path = &self.paths[usize::from(given_up.turn.is_multiple_of(2))];
        let body = given_up.encode();
        let len = u32::try_from(body.len()).expect("no spool has so many uplinks");
        let bytes = [&len.to_le_bytes()[..], &crc32fast::hash(&body).to_le_bytes(), &body].concat();
        let write = || -> io::Result<()> {
            let is_new = !path.try_exists()?;
            let file = File::options().create(true).write(true).truncate(false).open(path)?;
            let mut written = file.write_all_at(&bytes, 0).and_then(|()| file.sync_all());
            if written.is_ok() && is_new {
                written = durable::sync_folder(self.folder());
            }
            if written.is_err() {
                // It counts only if it is known to be durable, but may be found by the next start. If not even this can be
                // written, that start tells a loss too many.
                let _ = file.write_all_at(&[0; 8], 0);
            }
            written
        };
        write().map_err(Error::io("write", path))?;
        self.given_up = given_up;
        Ok(())
    }

    fn folder(&self) -> &Path {
        self.paths[0].parent().expect("it is in the spool's folder")
    }
}

fn read(bytes: &[u8], incarnation: u64) -> Option<GivenUp> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    let whole = !body.is_empty() && crc32fast::hash(body) == u32::from_le_bytes(*crc);
    whole.then(|| GivenUp::decode(body, incarnation).ok()).flatten()
}

impl Spool {
    /// What was given up and has not been told, perhaps by an earlier run.
    pub fn untold(&self) -> Option<GivenUp> {
        let note = self.note();
        (!note.given_up.is_told()).then(|| note.given_up.clone())
    }

    /// What was given up is told: durable where it will be delivered from.
    ///
    /// # Errors
    /// The disk does not take that; then it is told again after the next start.
    pub fn told(&self) -> Result<(), Error> {
        let mut note = self.note();
        let told = GivenUp { losses: Vec::new(), unreadable: Vec::new(), ..note.given_up };
        note.write(told)?;
        if let Err(error) = note.reserve() {
            tracing::debug!(error = error.with_causes(), "there is no place for what will be given up");
        }
        Ok(())
    }

    /// Resolves when the oldest uplinks have to be given up.
    pub async fn must_give_up(&self) {
        while self.to_give_up_in(&self.state()).is_none() {
            self.giving_up.notified().await;
        }
    }

    /// Resolves when the oldest uplinks have to be given up and nothing finds room any more: perhaps not even what tells what
    /// was given up before.
    pub async fn must_give_up_more(&self) {
        let must = |state: &State| state.disk.full.is_some() && self.to_give_up_in(state).is_some();
        while !must(&self.state()) {
            self.giving_up.notified().await;
        }
    }

    /// Gives as many of the oldest epochs up as it takes until there is room, if that is (still) what has to be done; with
    /// them, under one note, what was given up before and has not been told. Reads and writes the disk: blocks.
    ///
    /// # Errors
    /// Nothing more has been given up, or not everything that was could be deleted; may be tried again.
    pub fn give_up_oldest(&self, gateway: &Id) -> Result<Option<GivenUp>, Error> {
        let mut note = self.note();
        // What is read here is read by nobody else meanwhile: the uplink comes no further than what it has read already.
        let mut reading = self.reading();
        self.delete_given_up(&mut reading)?;
        let before = self.before(&note)?;
        let (oldest, account) = loop {
            let Some(oldest) = self.to_give_up_in(&self.state()) else { return Ok(None) };
            let mut account = Account::after(gateway, &before);
            self.read_oldest(&mut reading, &oldest, &mut account)?;
            // What it had read already may have been delivered by now.
            let still =
                |now: Oldest| (now.first, now.from) == (oldest.first, oldest.from) && now.end >= oldest.end;
            if self.to_give_up_in(&self.state()).is_some_and(still) {
                break (oldest, account);
            }
        };
        let first = if before.end == 0 { oldest.first } else { before.first };
        note.write(GivenUp { incarnation: self.incarnation, ..account.close(first, oldest.end) })?;
        let given_up = note.given_up.clone();
        self.state().given_up = oldest.end;
        let events = given_up.events().saturating_sub(before.events());
        facts::given_up(given_up.uplinks - before.uplinks, events);
        tracing::warn!(
            from = oldest.from,
            to = oldest.end - 1,
            events,
            "the spool is full: its oldest uplinks are given up, and the ledger is told"
        );
        self.delete_given_up(&mut reading)?;
        drop(reading);
        self.look();
        Ok(Some(given_up))
    }

    /// What was given up before and is still to be told, for a note that has what follows it as well. Numbers of an
    /// earlier spool do not go into it: those are told as what is lost by damage is.
    fn before(&self, note: &Note) -> Result<GivenUp, Error> {
        let mut before = note.given_up.clone();
        if before.is_told() {
            return Ok(GivenUp::default());
        }
        if before.incarnation != self.incarnation {
            for (from, end) in std::mem::take(&mut before.unreadable) {
                let lost = Lost { incarnation: before.incarnation, numbers: from..end };
                if self.lost().add(&lost, Stage::ToTell)? {
                    self.lost.notify_one();
                }
            }
        }
        Ok(before)
    }

    /// Adds up what is in the oldest epochs.
    fn read_oldest(
        &self,
        reading: &mut Reading,
        oldest: &Oldest,
        account: &mut Account<'_>,
    ) -> Result<(), Error> {
        let mut number = oldest.from;
        while number < oldest.end {
            match self.read_by(Some(&mut *reading), number, READ_BYTES_MAX) {
                Ok(records) if records.is_empty() => break,
                Ok(records) => {
                    for record in records.iter().filter(|record| record.first < oldest.end) {
                        account.record(record, number);
                        number = record.end();
                    }
                }
                Err(Error::Missing { to, .. }) => {
                    account.unreadable(number, to.min(oldest.end));
                    number = to;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes what is written down as given up.
    fn delete_given_up(&self, reading: &mut Reading) -> Result<(), Error> {
        let gone = |state: &State| {
            let oldest = state.epochs.front().filter(|oldest| oldest.first < state.given_up);
            // The newest says where numbers go on.
            oldest.filter(|_| state.epochs.len() > 1).map(|oldest| oldest.first)
        };
        loop {
            let Some(first) = gone(&self.state()) else { return Ok(()) };
            disk::let_go(reading.take_if(|(open, _)| *open == first));
            let hidden = epoch::hide(&self.epoch_path(first))?;
            let mut state = self.state();
            state.epochs.pop_front();
            self.count_room(&mut state);
            drop(state);
            if let Err(error) = epoch::remove(&hidden) {
                tracing::warn!(
                    error = error.with_causes(),
                    "could not remove an epoch that was given up; the next start will"
                );
            }
        }
    }

    /// The oldest epochs that are to be given up, if any.
    pub(super) fn to_give_up_in(&self, state: &State) -> Option<Oldest> {
        // What is delivered goes first; the newest always stays.
        if self.config.when_full != WhenFull::DropOldest || self.deletable_in(state).is_some() {
            return None;
        }
        let (mut ground, mut end) = (self.ground(state), None);
        for (epoch, next) in state.epochs.iter().zip(state.epochs.iter().skip(1)) {
            if !self.is_crowded_on(&ground) {
                break;
            }
            ground = ground.without(epoch.cost_bytes(), epoch.bytes);
            // While a commit goes over into a new epoch, that begins behind what is durable.
            end = Some(next.first.min(state.next));
        }
        let first = state.epochs.front()?.first;
        let end = end.filter(|end| *end > first)?;
        let in_stream = state.delivered.number.max(state.in_stream).max(state.given_up);
        Some(Oldest { first, from: in_stream.clamp(first, end), end })
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        // Whoever panicked has written it, or has not.
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Epochs that are to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Oldest {
    /// The name of the first.
    pub first: u64,
    /// The first number that is not in the stream.
    pub from: u64,
    /// The number after their last.
    pub end: u64,
}
