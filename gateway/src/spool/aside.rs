//! Damaged epochs that are done with: kept under their names for whoever wants to look at them, in `FOLDER/damaged`, a few only, and
//! only while nothing else needs the room.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::error::Error;
use super::folder::sync_folder;
use super::{Known, Spool, epoch, epoch_name};
use crate::durable;

/// So many are kept by a running gateway.
const KEPT_MAX: usize = 4;

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

impl Spool {
    /// Removes an epoch that is out of the row; if it was damaged, it is set aside instead.
    pub(super) fn remove_or_set_aside(&self, gone: &Path, first: u64, end: u64) -> Result<(), Error> {
        let damaged = self.lost().touches(self.incarnation, &(first..end));
        let crowded = self.is_crowded(&self.state());
        if !damaged || crowded || list(self.folder()).len() >= KEPT_MAX {
            return epoch::remove(gone);
        }
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
        for (path, _) in list(self.folder()) {
            tracing::warn!(epoch = %path.display(), "a damaged epoch that was set aside gives way: the room is needed");
            epoch::remove(&path)?;
        }
        self.aside_bytes.store(bytes(self.folder()), Ordering::Relaxed);
        self.look();
        Ok(())
    }

    /// How many are set aside.
    pub(super) fn aside_count(&self) -> usize {
        list(self.folder()).len()
    }
}
