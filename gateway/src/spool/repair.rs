//! Repairs the spool of a gateway that does not run: what is readable of a damaged epoch is saved into a sound one under the
//! same name, the damaged one is set aside, and what is gone is noted, so that the next run tells it in the ledger.
//!
//! A running gateway reads around damage as well; a repair is for a disk that gets worse, and for peace of mind. It may
//! be broken off at any moment and done again:
//!
//! ```text
//! FOLDER/epochs/NAME.saved        sound and whole; takes the place of NAME as soon as that is out of its way
//! FOLDER/damaged/NAME.TIME        what was set aside, for whoever wants to look at it; deleted when the room is needed
//! ```

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::closed::Index;
use super::epoch::{self, Blank};
use super::error::Error;
use super::folder::{Folder, sync_folder};
use super::give_up::Note;
use super::inspect::{self, EpochReport, Report};
use super::losses::{Losses, Lost, Stage};
use super::record::{Draft, Stamp};
use super::recovery::Named;
use super::{aside as set_aside, disk, writer};
use crate::durable;

/// Read at a time.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// What a saved epoch has room for beyond the one it is made from.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;

/// What was repaired, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Repaired {
    /// What was there before.
    pub before: Report,
    /// Whether it was done, and not only looked at.
    pub done: bool,
    /// Epochs that were made anew.
    pub epochs: Vec<RepairedEpoch>,
    /// What is there now, looked into again; `None` after a dry run.
    pub after: Option<Report>,
}

impl Repaired {
    /// Whether the spool is sound now.
    pub fn is_sound(&self) -> bool {
        self.after.as_ref().unwrap_or(&self.before).sound
    }
}

/// An epoch that was made anew.
#[derive(Debug, Clone, Serialize)]
pub struct RepairedEpoch {
    /// Its name.
    pub name: String,
    /// Uplinks that were saved.
    pub saved: u64,
    /// Uplinks that are gone.
    pub gone: u64,
    /// Where the damaged one is, if there was anything of it.
    pub set_aside: Option<String>,
}

/// Repairs the spool in `folder`, or says what would be done. `now_ms` is Unix time.
///
/// # Errors
/// [`Error::InUse`] while a gateway has it; [`Error::NotOurs`]; there is none; the disk does not let it be done: what was not done is as it was.
pub fn repair(
    folder: &Path,
    dry: bool,
    now_ms: u64,
    random: impl FnOnce() -> u64,
) -> Result<Repaired, Error> {
    if dry {
        let before = inspect::inspect(folder)?;
        let damaged = before.epochs.iter().filter(|epoch| epoch.is_damaged());
        let epochs = damaged.map(|epoch| planned(folder, epoch, now_ms)).collect();
        return Ok(Repaired { before, done: false, epochs, after: None });
    }
    is_ours(folder)?;
    drop(Folder::hold(folder)?);
    let held = Folder::open(folder, now_ms)?;
    finish(&held.epochs())?;
    let before = inspect::look(folder)?;
    // As a start does: the small files are made anew, and it is settled where numbers go on.
    let mut mark = held.mark()?;
    let mut epochs: VecDeque<_> = writer::list_epochs(&held)?;
    let mut losses = Losses::open(folder)?;
    let named = Named::find(&held, &mut mark, &epochs, &mut losses, random)?;
    let incarnation = named.incarnation;
    let given_up = Note::open(folder, incarnation)?.given_up;
    writer::finish_giving_up(&held, &given_up, &mut epochs)?;
    named.go_on(&held, &mut mark, &mut epochs, given_up.end)?;
    let damaged = inspect::look(folder)?;
    let mut repaired = Vec::new();
    for epoch in damaged.epochs.iter().filter(|epoch| epoch.is_damaged()) {
        repaired.push(make_anew(folder, epoch, incarnation, &mut losses, now_ms)?);
    }
    if let Some(gone) = &damaged.gone_before {
        losses.add(&Lost { incarnation, numbers: gone.from..gone.to + 1 }, Stage::Known)?;
    }
    let after = inspect::look(folder)?;
    Ok(Repaired { before, done: true, epochs: repaired, after: Some(after) })
}

/// What is made here has to be the gateway's: it is to move it, and to delete it.
fn is_ours(folder: &Path) -> Result<(), Error> {
    let user = rustix::process::geteuid().as_raw();
    match fs::metadata(folder).map(|metadata| metadata.uid()) {
        Ok(owner) if owner != user => Err(Error::NotOurs { folder: folder.to_owned(), owner, user }),
        // What is wrong otherwise is told by who opens it.
        _ => Ok(()),
    }
}

fn planned(folder: &Path, epoch: &EpochReport, now_ms: u64) -> RepairedEpoch {
    let there = folder.join("epochs").join(&epoch.name).exists();
    let aside = aside(folder, &epoch.name, now_ms).display().to_string();
    RepairedEpoch {
        name: epoch.name.clone(),
        saved: epoch.uplinks,
        gone: epoch.gone_count(),
        set_aside: there.then_some(aside),
    }
}

/// Where an epoch is set aside.
fn aside(folder: &Path, name: &str, now_ms: u64) -> PathBuf {
    let time = i64::try_from(now_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map_or_else(|| now_ms.to_string(), |time| time.strftime("%Y%m%dT%H%M%S%3fZ").to_string());
    set_aside::folder(folder).join(format!("{name}.{time}"))
}

fn make_anew(
    folder: &Path,
    epoch: &EpochReport,
    incarnation: u64,
    losses: &mut Losses,
    now_ms: u64,
) -> Result<RepairedEpoch, Error> {
    let path = folder.join("epochs").join(&epoch.name);
    let needed = epoch.bytes + ROOM_BYTES;
    if let Some(free) = disk::free_bytes(folder).filter(|&free| free < needed) {
        let what = format!("{free} bytes are free, saving what is readable may need {needed}");
        return Err(Error::io("save", path)(std::io::Error::new(std::io::ErrorKind::StorageFull, what)));
    }
    let saved = path.with_extension("saved");
    let Saved { uplinks, gone } = save(&path, epoch, incarnation, &saved)?;
    let done = RepairedEpoch {
        saved: uplinks,
        gone: gone.iter().map(|numbers| numbers.end - numbers.start).sum(),
        ..planned(folder, epoch, now_ms)
    };
    for numbers in gone {
        losses.add(&Lost { incarnation, numbers }, Stage::Known)?;
    }
    if let Some(aside) = &done.set_aside {
        let damaged = set_aside::folder(folder);
        durable::create_folder(&damaged).map_err(Error::io("create", &damaged))?;
        fs::rename(&path, aside).map_err(Error::io("rename", &path))?;
        sync_folder(&damaged)?;
        sync_folder(&folder.join("epochs"))?;
    }
    finish(&folder.join("epochs"))?;
    Ok(done)
}

/// What a sound epoch was made from.
#[derive(Debug)]
pub(super) struct Saved {
    /// So many are in it.
    pub uplinks: u64,
    /// Numbers that are not.
    pub gone: Vec<Range<u64>>,
}

/// Puts what is readable into a sound epoch. What cannot be read just now is not gone: then there is no such epoch.
pub(super) fn save(path: &Path, epoch: &EpochReport, incarnation: u64, saved: &Path) -> Result<Saved, Error> {
    let (blank, being_made) = (path.with_extension("0.new"), path.with_extension("1.new"));
    for left in [&blank, &being_made] {
        epoch::remove(left)?;
    }
    let mut writing = Blank::make(&blank)?.name(epoch.first, &being_made)?;
    let mut done = Saved { uplinks: 0, gone: Vec::new() };
    let mut number = epoch.first;
    let index = match Index::open(path, incarnation, &(epoch.first..epoch.end)) {
        Ok(index) => Some(index),
        Err(error) if error.is_damage() => None,
        Err(error) => return Err(error),
    };
    while number < epoch.end {
        let read = index.as_ref().map(|index| index.read(number, epoch.end, READ_BYTES_MAX, true));
        match read {
            Some(Ok(records)) => {
                for record in records {
                    let stamp = Stamp { incarnation, commit: record.first };
                    writing.append(record.first, stamp, &mut Draft::of(&record))?;
                    done.uplinks += record.end() - number;
                    number = record.end();
                }
            }
            Some(Err(Error::Missing { to, .. })) => {
                done.gone.push(number..to);
                number = to;
            }
            Some(Err(error)) => return Err(error),
            None => {
                done.gone.push(number..epoch.end);
                number = epoch.end;
            }
        }
    }
    writing.barrier()?;
    disk::let_go(writing);
    let gone: u64 = done.gone.iter().map(|numbers| numbers.end - numbers.start).sum();
    set_aside::mark_repaired(&being_made, gone)?;
    fs::rename(&being_made, saved).map_err(Error::io("rename", &being_made))?;
    sync_folder(path.parent().expect("an epoch is in a folder"))?;
    Ok(done)
}

/// Finishes what a repair was broken off in: what is saved takes its place.
pub(super) fn finish(epochs: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(epochs).map_err(Error::io("list", epochs))? {
        let saved = entry.map_err(Error::io("list", epochs))?.path();
        if saved.extension().is_none_or(|extension| extension != "saved") {
            continue;
        }
        let path = saved.with_extension("");
        if path.exists() {
            // The damaged one is still in its place: it is saved anew by whoever repairs.
            epoch::remove(&saved)?;
        } else {
            fs::rename(&saved, &path).map_err(Error::io("rename", &saved))?;
            sync_folder(epochs)?;
        }
    }
    Ok(())
}
