//! Giving up the oldest uplinks of a full spool, where the configuration says so (`when_full = "drop-oldest"`).
//!
//! What was in an epoch is written down before it is deleted, in a file that has its place on the disk beforehand, so that
//! a disk without a free byte does not keep it from being written. It stays written down until it is told, that is until the
//! gateway's own events that tell it are as durable as any ([`Spool::told`]). A crash in between tells it again: a ledger takes
//! that for what it is.
//!
//! ```text
//! FOLDER/given-up   length u32 | crc32 u32 | CBOR (see account), integers little-endian
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use weir_contract::Id;

use super::account::{Account, GivenUp};
use super::error::Error;
use super::folder::sync_folder;
use super::{Spool, State, WhenFull, disk, epoch};
use crate::facts;

/// The file has this many bytes from the beginning: some ten thousand runs of events.
const NOTE_BYTES: usize = 256 * 1024;
/// Read at a time.
const READ_BYTES_MAX: usize = 256 * 1024;

/// The file that says what was given up last.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    pub given_up: GivenUp,
}

impl Note {
    /// Reads it, if there is one. One that is not whole was being written: nothing had been given up by it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("given-up");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(Error::io("read", &path))?,
        };
        Ok(Self { given_up: read(&bytes).unwrap_or_default(), path })
    }

    /// Takes its place on the disk.
    pub fn reserve(&self) -> Result<(), Error> {
        let reserve = || -> io::Result<()> {
            let file = File::options().create(true).write(true).truncate(false).open(&self.path)?;
            let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            if len < NOTE_BYTES {
                // Not only its length: zeros that are written have their place, a hole has none.
                file.write_all_at(&vec![0; NOTE_BYTES - len], len as u64)?;
                file.sync_all()?;
            }
            Ok(())
        };
        reserve().map_err(Error::io("make", &self.path))?;
        sync_folder(self.path.parent().expect("it is in the spool's folder"))
    }

    /// Writes it over; durable when this returns.
    fn write(&mut self, given_up: GivenUp) -> Result<(), Error> {
        let body = given_up.encode();
        let len = u32::try_from(body.len()).expect("no epoch has so many uplinks");
        let bytes = [&len.to_le_bytes()[..], &crc32fast::hash(&body).to_le_bytes(), &body].concat();
        let write = || -> io::Result<()> {
            let file = File::options().create(true).write(true).truncate(false).open(&self.path)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &self.path))?;
        self.given_up = given_up;
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Option<GivenUp> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    let whole = !body.is_empty() && crc32fast::hash(body) == u32::from_le_bytes(*crc);
    whole.then(|| GivenUp::decode(body).ok()).flatten()
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
        note.write(told)
    }

    /// Resolves when the oldest uplinks have to be given up.
    pub async fn must_give_up(&self) {
        while self.to_give_up_in(&self.state()).is_none() {
            self.giving_up.notified().await;
        }
    }

    /// Gives the oldest epoch up, if that is (still) what has to be done. Reads and writes the disk: blocks. What was given up
    /// before must have been told.
    ///
    /// # Errors
    /// Nothing has been given up; may be tried again.
    pub fn give_up_oldest(&self, gateway: &Id) -> Result<Option<GivenUp>, Error> {
        let mut note = self.note();
        let Some((first, from, end)) = self.to_give_up_in(&self.state()) else { return Ok(None) };
        let mut account = Account::new(gateway);
        let mut number = from;
        while number < end {
            match self.read_from(number, READ_BYTES_MAX) {
                Ok(records) => {
                    for record in records.iter().filter(|record| record.first < end) {
                        account.record(record, number);
                        number = record.end();
                    }
                }
                Err(Error::Missing { to, .. }) => {
                    account.unreadable(number, to.min(end));
                    number = to;
                }
                Err(error) => return Err(error),
            }
        }
        let given_up = account.close(first, end);
        note.write(given_up.clone())?;
        let path = self.epoch_path(first);
        let mut reading = self.reading();
        disk::let_go(reading.take_if(|(open, _)| *open == first));
        let mut state = self.state();
        let gone = epoch::hide(&path)?;
        state.epochs.pop_front();
        state.given_up = end;
        self.count_room(&mut state);
        drop((state, reading));
        if let Err(error) = epoch::remove(&gone) {
            tracing::warn!(
                error = error.with_causes(),
                "could not remove an epoch that was given up; the next start will"
            );
        }
        facts::given_up(given_up.uplinks, given_up.events());
        tracing::warn!(
            from,
            to = end - 1,
            events = given_up.events(),
            "the spool is full: its oldest uplinks are given up, and the ledger is told"
        );
        self.look();
        Ok(Some(given_up))
    }

    /// The oldest epoch, its first number that is not in the stream, and its end, if it is to be given up.
    pub(super) fn to_give_up_in(&self, state: &State) -> Option<(u64, u64, u64)> {
        // What is delivered goes first; the newest always stays.
        if self.config.when_full != WhenFull::DropOldest || self.deletable_in(state).is_some() {
            return None;
        }
        let (first, end) = (state.epochs.front()?.first, state.epochs.get(1)?.first);
        self.is_crowded(state)
            .then(|| (first, first.max(state.delivered.number.max(state.in_stream).min(end)), end))
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        // Whoever panicked has written it, or has not.
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
