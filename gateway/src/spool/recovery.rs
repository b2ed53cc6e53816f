//! What a start finds out before anything is stored: which spool this is, and where numbers go on. It never fails because of
//! damage, asks nobody, and gives no number out twice.
//!
//! Everything below some number is *proven* to have been stored, and may have been acknowledged and forwarded: by the name
//! of the last epoch, by the beginning of the last commit found in it ([`super::scan::Scan::proven`]), by the files `numbers` and
//! `delivered`. What is not there below that is damage: numbers go on behind it, and whoever reads comes upon the hole and tells it.
//! What is there above, without a hole, belongs to the last commit, and is kept. What lies behind a hole above was torn by a
//! power cut before anybody was told of it.
//!
//! Where the file `numbers` is damaged as well, the last commit is not proven: then numbers go on where no epoch can have come
//! to. So they do where the whole log of the last epoch is gone or cannot be read, and `numbers` may be behind: the machine was
//! started again since it was written.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

use super::closed::Index;
use super::epoch::{self, EPOCH_UPLINKS_MAX, Epoch};
use super::error::Error;
use super::folder::{Delivered, Folder, Mark};
use super::losses::{Losses, Lost, Stage};
use super::numbers::{self, Claim, Numbers, Said};
use super::scan::{self, Scan};
use super::{Known, disk, epoch_name};

/// What a spool can have given out in the time that the file `numbers` may be behind: some ten seconds, by the kernel's
/// `dirty_expire_centisecs` and `dirty_writeback_centisecs`, at more than a million uplinks a second.
const UNSEEN_MAX: u64 = 1 << 26;

/// Which spool this is.
pub(super) struct Named {
    pub incarnation: u64,
    past: Past,
}

/// Where it goes on.
pub(super) struct Recovered {
    pub next: u64,
    /// Whether the writer has to begin with [`super::Writer::renew`].
    pub renew: bool,
    pub numbers: Numbers,
}

impl Named {
    /// Finds out which spool this is. `mark` is what `delivered` says. What is lost under another incarnation, which is not gone
    /// on with, is noted in `losses`.
    ///
    /// # Errors
    /// The disk does not let it be read or written now. Not for damage.
    pub fn find(
        folder: &Folder,
        mark: &mut Mark,
        epochs: &VecDeque<Known>,
        losses: &mut Losses,
        random: impl FnOnce() -> u64,
    ) -> Result<Self, Error> {
        let said = numbers::read(folder.path())?;
        if said == Said::Damaged {
            tracing::error!(folder = %folder.path().display(), "the file numbers is damaged, and made anew");
        }
        let incarnation = find_incarnation(folder, mark, epochs, losses, said, random)?;
        // What another spool's file says is of no use.
        let claim = said.claim().filter(|claim| claim.incarnation == incarnation);
        let past = match said {
            Said::Nothing => Past::Unsaid,
            _ => claim.map_or(Past::Damaged, Past::Said),
        };
        Ok(Self { incarnation, past })
    }

    /// Finds out where its numbers go on. Numbers below `given_up` were given up, as far as they are not there.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn go_on(
        &self,
        folder: &Folder,
        mark: &mut Mark,
        epochs: &mut VecDeque<Known>,
        given_up: u64,
    ) -> Result<Recovered, Error> {
        let incarnation = self.incarnation;
        let oldest = epochs.front().map(|epoch| epoch.first);
        if let Some(oldest) = oldest.filter(|&oldest| oldest != given_up) {
            settle_deleted(mark, oldest, self.past);
        }
        let next = find_next(folder, mark, epochs, incarnation, self.past)?;
        let kept = match self.past {
            Past::Said(claim) => claim.kept,
            Past::Unsaid => oldest.unwrap_or(next),
            Past::Damaged => 0,
        };
        let claim = Claim { incarnation, next, kept, machine_start: numbers::machine_start() };
        let numbers = Numbers::begin(folder.path(), claim)?;
        let renew = drop_empty(folder, mark, epochs, next)?;
        Ok(Recovered { next, renew, numbers })
    }
}

/// What the file `numbers` says of this spool.
#[derive(Debug, Clone, Copy)]
enum Past {
    /// There was none: an older version has no such file.
    Unsaid,
    Damaged,
    Said(Claim),
}

impl Past {
    fn next(self) -> u64 {
        if let Past::Said(claim) = self { claim.next } else { 0 }
    }

    fn is_exact(self) -> bool {
        matches!(self, Past::Said(claim) if claim.is_exact())
    }
}

/// The incarnation: from its file, or else from wherever it is written, or a new one if that is nowhere.
fn find_incarnation(
    folder: &Folder,
    mark: &mut Mark,
    epochs: &VecDeque<Known>,
    losses: &mut Losses,
    said: Said,
    random: impl FnOnce() -> u64,
) -> Result<u64, Error> {
    let damage = match folder.read_incarnation() {
        Ok(Some(incarnation)) if !epochs.is_empty() || said.claim().is_some() => {
            return Ok(incarnation);
        }
        // Nothing says where its numbers go on. A spool that has only just been made may have another name as well.
        Ok(said) if epochs.is_empty() => {
            let numbers = mark.delivered.number..mark.next;
            let left = said.filter(|_| !numbers.is_empty()).map(|incarnation| Lost { incarnation, numbers });
            let incarnation = random();
            if let Some(Lost { incarnation: before, numbers }) = &left {
                tracing::error!(
                    before,
                    from = numbers.start,
                    incarnation,
                    "all epochs are gone: it is another spool from now on"
                );
            }
            // Before the old one is forgotten: after a crash in between it is found, and noted, once more.
            if let Some(left) = &left {
                losses.add(left, Stage::ToTell)?;
            }
            *mark = Mark::default();
            folder.write_mark(mark)?;
            folder.write_incarnation(incarnation)?;
            return Ok(incarnation);
        }
        Ok(_) => "it is missing".to_owned(),
        Err(error) if error.is_damage() => error.with_causes(),
        Err(error) => return Err(error),
    };
    let written = match said.claim() {
        Some(claim) => Some(claim.incarnation),
        None => whose(&folder.epochs(), epochs.iter().rev().map(|epoch| epoch.first))?,
    };
    folder.set_incarnation_aside()?;
    if let Some(incarnation) = written {
        tracing::error!(
            damage,
            incarnation,
            "the file incarnation is damaged, and made anew from what the spool holds"
        );
        folder.write_incarnation(incarnation)?;
        return Ok(incarnation);
    }
    // Numbers go on as they are, so none comes twice under either name. What had been delivered is sent once more; the cloud
    // knows events by their devices' numbers.
    let incarnation = random();
    tracing::error!(
        damage,
        incarnation,
        "the file incarnation is damaged, and nothing else says which spool this is: it is another from now on"
    );
    let from = epochs.front().map_or(mark.next, |oldest| oldest.first);
    mark.delivered = Delivered { number: from, stream_sequence: 0 };
    folder.write_mark(mark)?;
    folder.write_incarnation(incarnation)?;
    Ok(incarnation)
}

/// What a record says of its spool; the newest epochs are asked first.
pub(super) fn whose(epochs: &Path, newest: impl Iterator<Item = u64>) -> Result<Option<u64>, Error> {
    for first in newest {
        let log = epochs.join(epoch_name(first)).join("db");
        let said = std::fs::File::open(&log).and_then(|file| scan::whose(&file));
        match said.map_err(Error::io("read", &log)) {
            Ok(Some(incarnation)) => return Ok(Some(incarnation)),
            Ok(None) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What was deleted has been delivered, though there may have been no room to write that down. What is not there for any other
/// reason counts as not delivered: the stream knows, and what it has not got is told.
fn settle_deleted(mark: &mut Mark, oldest: u64, past: Past) {
    let deleted = match past {
        Past::Unsaid => oldest,
        Past::Damaged => 0,
        Past::Said(claim) => claim.kept.min(oldest),
    };
    mark.delivered.number = mark.delivered.number.max(deleted);
}

/// The next number.
fn find_next(
    folder: &Folder,
    mark: &Mark,
    epochs: &VecDeque<Known>,
    incarnation: u64,
    past: Past,
) -> Result<u64, Error> {
    let proven = mark.next.max(mark.delivered.number).max(past.next());
    let Some(last) = epochs.back().map(|epoch| epoch.first) else {
        // An empty spool says so in `delivered`, before its last epoch is deleted.
        let all_gone = past.next() > mark.next && !past.is_exact();
        return Ok(if all_gone { proven.saturating_add(UNSEEN_MAX) } else { proven });
    };
    let path = folder.epochs().join(epoch_name(last));
    let numbers = last..last.saturating_add(EPOCH_UPLINKS_MAX);
    let Log { scan, is_read, is_old } = look(&path, incarnation, &numbers)?;
    // Whatever `numbers` says: a version that does not know it may have gone on meanwhile.
    let may_be_old = is_old
        || matches!(past, Past::Unsaid)
            && scan.found.is_empty()
            && !is_of_this_version(folder, epochs, incarnation)?;
    if may_be_old {
        return Ok(old_next(&path, last)?.max(proven));
    }
    let proven = proven.max(last).max(scan.proven());
    let next = scan.end_from(proven);
    let holes = scan.holes(last..next);
    if let Some(hole) = holes.first() {
        tracing::error!(
            epoch = %path.display(),
            from = hole.start,
            lost = holes.iter().map(|hole| hole.end - hole.start).sum::<u64>(),
            "the last epoch is damaged; numbers go on behind it"
        );
    }
    if matches!(past, Past::Said(_)) && (is_read || past.is_exact()) {
        return Ok(next);
    }
    tracing::error!(
        next,
        "nothing says how far numbers were given out: they go on where they cannot have come to"
    );
    Ok(next.max(numbers.end))
}

/// The log of the last epoch.
#[derive(Default)]
struct Log {
    scan: Scan,
    /// Whether it is there, and the disk reads all of it.
    is_read: bool,
    /// Whether it has records of the first version, and no others.
    is_old: bool,
}

/// What is in an epoch's log; nothing if there is none.
fn look(path: &Path, incarnation: u64, numbers: &Range<u64>) -> Result<Log, Error> {
    let index = disk::settle(path).and_then(|()| Index::open(path, incarnation, numbers));
    match index {
        Ok(index) => {
            let is_old = index.is_old(numbers)?;
            let scan = index.into_scan();
            Ok(Log { is_read: scan.unreadable.is_empty(), scan, is_old })
        }
        Err(error) if error.is_damage() => {
            tracing::error!(error = error.with_causes(), "the last epoch cannot be read");
            Ok(Log::default())
        }
        Err(error) => Err(error),
    }
}

/// Whether any epoch but the last has records of this version: then the file `numbers` was there.
fn is_of_this_version(folder: &Folder, epochs: &VecDeque<Known>, incarnation: u64) -> Result<bool, Error> {
    let before_last = epochs.iter().rev().skip(1).take(1).map(|epoch| epoch.first);
    Ok(whose(&folder.epochs(), before_last)?.is_some_and(|written| written == incarnation))
}

/// The number after the last of an epoch of the first version.
fn old_next(path: &Path, first: u64) -> Result<u64, Error> {
    let end = disk::open_epoch(path).and_then(|epoch: Epoch| epoch.end());
    match end {
        Ok(Some(end)) => Ok(end),
        Ok(None) => Ok(first),
        Err(error) if !error.is_damage() => Err(error),
        Err(error) => {
            // Its numbers may have been given out and even forwarded: none of them may be given out again.
            tracing::error!(
                error = error.with_causes(),
                "the last epoch cannot be read, numbers go on behind it"
            );
            Ok(first + EPOCH_UPLINKS_MAX)
        }
    }
}

/// An empty last epoch has the name that the next one needs. Says whether the writer has to see to it.
fn drop_empty(
    folder: &Folder,
    mark: &mut Mark,
    epochs: &mut VecDeque<Known>,
    next: u64,
) -> Result<bool, Error> {
    let Some(last) = epochs.back().filter(|epoch| epoch.first == next) else { return Ok(false) };
    let path = folder.epochs().join(epoch_name(last.first));
    // Its name is also what says where numbers go on, so that is written down first.
    let written = folder.write_mark(&Mark { next, ..*mark });
    match written.and_then(|()| epoch::hide(&path)).and_then(|gone| epoch::remove(&gone)) {
        Ok(()) => {
            mark.next = next;
            epochs.pop_back();
            Ok(false)
        }
        // On a full disk it stays until there is something to put in its place.
        Err(error) if error.may_pass() && path.exists() => Ok(true),
        Err(error) => Err(error),
    }
}
