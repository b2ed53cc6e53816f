//! Damaged epochs that are done with: kept under their names for whoever wants to look at them, in `FOLDER/damaged`, a few only, and
//! only while nothing else needs the room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::error::Error;
use super::folder::sync_folder;
use super::{Known, Spool, epoch, epoch_name};
use crate::durable;

/// So many are kept by a running gateway.
const KEPT_MAX: usize = 4;
/// In the folder of an epoch that a repair has made: how many of its numbers were gone by then, in digits.
const REPAIRED: &str = "repaired";

/// Where they are.
pub(super) fn folder(spool: &Path) -> PathBuf {
    spool.join("damaged")
}

/// What is there, in the order of names, with what each has on disk.
fn list(spool: &Path) -> Vec<(PathBuf, u64)> {
    // What cannot be listed takes no room that could be given back.
    let entries = fs::read_dir(folder(spool)).into_iter().flatten().flatten();
    let bytes = |path: &Path| fs::metadata(path.join("db")).map_or(0, |log| log.len());
    let mut there: Vec<_> =
        entries.map(|entry| entry.path()).map(|path| (path.clone(), bytes(&path))).collect();
    there.sort();
    there
}

/// What all of it has on disk.
pub(super) fn bytes(spool: &Path) -> u64 {
    list(spool).iter().map(|&(_, bytes)| Known { first: 0, bytes, delivered_at: None }.cost_bytes()).sum()
}

/// Writes down that an epoch was made by a repair, without so many of its numbers: durable when this returns.
pub(super) fn mark_repaired(epoch: &Path, gone: u64) -> Result<(), Error> {
    let path = epoch.join(REPAIRED);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        writeln!(file, "{gone}")?;
        file.sync_all()
    };
    write().map_err(Error::io("write", &path))?;
    sync_folder(epoch)
}

/// How many numbers were gone from an epoch when a repair made it; 0 if none has.
fn repaired(epoch: &Path) -> u64 {
    fs::read_to_string(epoch.join(REPAIRED)).ok().and_then(|gone| gone.trim().parse().ok()).unwrap_or(0)
}

impl Spool {
    /// Removes an epoch that is out of the row; if it was damaged, it is set aside instead. What a repair has made is
    /// sound, though numbers are gone from it: the damaged one was set aside then.
    pub(super) fn remove_or_set_aside(&self, gone: &Path, first: u64, end: u64) -> Result<(), Error> {
        let damaged = self.lost().count_in(self.incarnation, &(first..end)) > repaired(gone);
        let crowded = self.is_crowded(&self.state());
        if !damaged || crowded || list(self.folder()).len() >= KEPT_MAX {
            return epoch::remove(gone);
        }
        self.set_aside(gone, first).or_else(|error| {
            tracing::warn!(error = error.with_causes(), "a damaged epoch cannot be set aside: it is removed");
            epoch::remove(gone)
        })
    }

    fn set_aside(&self, gone: &Path, first: u64) -> Result<(), Error> {
        let place = folder(self.folder());
        durable::create_folder(&place).map_err(Error::io("create", &place))?;
        let aside = place.join(epoch_name(first));
        epoch::remove(&aside)?;
        fs::rename(gone, &aside).map_err(Error::io("rename", gone))?;
        sync_folder(&place)?;
        self.aside_bytes.store(bytes(self.folder()), Ordering::Relaxed);
        tracing::warn!(epoch = %aside.display(), "a damaged epoch is set aside; delete it when nobody wants to look at it");
        Ok(())
    }

    /// Deletes what is set aside if the room is needed.
    pub(super) fn drop_aside(&self) -> Result<(), Error> {
        if self.aside_bytes.load(Ordering::Relaxed) == 0 || !self.is_crowded(&self.state()) {
            return Ok(());
        }
        let mut dropped = Ok(());
        for (path, _) in list(self.folder()) {
            match epoch::remove(&path) {
                Ok(()) => tracing::warn!(
                    epoch = %path.display(),
                    "a damaged epoch that was set aside gave way: the room is needed"
                ),
                Err(error) => dropped = Err(error),
            }
        }
        self.aside_bytes.store(bytes(self.folder()), Ordering::Relaxed);
        self.look();
        dropped
    }

    /// How many are set aside.
    pub(super) fn aside_count(&self) -> usize {
        list(self.folder()).len()
    }
}
