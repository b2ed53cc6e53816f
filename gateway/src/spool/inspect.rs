//! Looks into the spool of a gateway that does not run, and changes nothing: what each epoch holds, what is damaged and where,
//! and which numbers that costs.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use super::closed::Index;
use super::epoch::EPOCH_UPLINKS_MAX;
use super::error::Error;
use super::folder::{Folder, Mark};
use super::give_up::Note;
use super::losses::{Losses, Lost};
use super::numbers::{self, Said};
use super::scan::{self, Found};
use super::{epoch_name, recovery};

/// What is in a spool, and what is wrong with it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The spool's folder.
    pub folder: String,
    /// Whether nothing is damaged, or what is gone is settled by a repair, or told.
    pub sound: bool,
    /// Which spool it is, if that can be read anywhere; a string, it may exceed 2^53.
    pub incarnation: Option<String>,
    /// Everything below was in the stream when that was last written down; `None` if that is damaged.
    pub delivered: Option<u64>,
    /// The number after the last that is known to have been given out.
    pub next: u64,
    /// Damaged small files, and what becomes of them.
    pub files: Vec<DamagedFile>,
    /// Oldest first.
    pub epochs: Vec<EpochReport>,
    /// What no epoch holds, and was not delivered either.
    pub gone_before: Option<Gone>,
}

/// A file that is damaged.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedFile {
    /// Its name in the spool's folder.
    pub file: String,
    /// What is wrong, and what a start or a repair makes of it.
    pub what: String,
}

/// One epoch.
#[derive(Debug, Clone, Serialize)]
pub struct EpochReport {
    /// Its folder's name.
    pub name: String,
    /// Its first number.
    pub first: u64,
    /// The number after its last.
    pub end: u64,
    /// Records that are whole.
    pub records: usize,
    /// Uplinks in them.
    pub uplinks: u64,
    /// Bytes of its log.
    pub bytes: u64,
    /// Which numbers are gone, and where they were.
    pub gone: Vec<Gone>,
    /// Bytes of the log, from and to (not included), that the disk does not read.
    pub unreadable: Vec<(u64, u64)>,
    /// Why it cannot be looked into at all.
    pub trouble: Option<String>,
    /// It is of the first version of records: only a running gateway reads it.
    pub old: bool,
}

/// Numbers that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Where in the log they were: behind this byte,
    pub behind_byte: u64,
    /// and before this one.
    pub before_byte: u64,
    /// It is noted already: it is told, or will be.
    pub settled: bool,
}

impl EpochReport {
    /// Whether a repair has something to do here.
    pub fn is_damaged(&self) -> bool {
        self.trouble.is_some() || self.gone.iter().any(|gone| !gone.settled)
    }

    /// How many numbers are gone.
    pub fn gone_count(&self) -> u64 {
        self.gone.iter().map(|gone| gone.to - gone.from + 1).sum()
    }
}

/// Looks into the spool in `folder`. Reads all of it: some seconds for a gigabyte.
///
/// # Errors
/// [`Error::InUse`] while a gateway has it; there is none; the disk does not let it be read.
pub fn inspect(folder: &Path) -> Result<Report, Error> {
    let _held = Folder::hold(folder)?;
    look(folder)
}

/// The same, by who has it already.
pub(super) fn look(folder: &Path) -> Result<Report, Error> {
    let mut files = Vec::new();
    let mut damaged = |file: &str, what: &str| {
        files.push(DamagedFile { file: file.to_owned(), what: what.to_owned() });
    };
    let firsts = firsts(folder)?;
    let said = numbers::read(folder)?;
    if said == Said::Damaged {
        damaged("numbers", "not readable; made anew, numbers go on where they cannot have come to");
    }
    let written = Folder::incarnation_in(folder);
    let incarnation = match &written {
        Ok(Some(incarnation)) => Some(*incarnation),
        _ => match said.claim() {
            Some(claim) => Some(claim.incarnation),
            None => recovery::whose(&folder.join("epochs"), firsts.iter().rev().copied())?,
        },
    };
    let is_new = firsts.is_empty() && matches!(written, Ok(None));
    if !is_new && !matches!(written, Ok(Some(_))) {
        let what = match incarnation {
            Some(_) => "not readable; made anew from what the spool holds",
            None => "not readable, and nothing else says it: the spool gets another name",
        };
        damaged("incarnation", what);
    }
    let mark = match Folder::mark_in(folder) {
        Ok(mark) => Some(mark.unwrap_or_default()),
        Err(error) if error.is_damage() => {
            damaged("delivered", "not readable; the stream is asked how far it is delivered");
            None
        }
        Err(error) => return Err(error),
    };
    let losses = Losses::open(folder)?;
    let ours = incarnation.unwrap_or_default();
    // What was given up to make room is told by its own note; a start deletes what is left of it.
    let given_up = Note::open(folder, ours)?.given_up.end;
    let is_settled = |numbers: &Range<u64>| {
        let numbers = numbers.start.max(given_up)..numbers.end;
        numbers.is_empty() || losses.knows(&Lost { incarnation: ours, numbers })
    };
    let mut report = Report {
        folder: folder.display().to_string(),
        sound: true,
        incarnation: incarnation.map(|incarnation| incarnation.to_string()),
        delivered: mark.map(|mark| mark.delivered.number),
        next: said.claim().map_or(1, |claim| claim.next),
        files,
        epochs: Vec::new(),
        gone_before: None,
    };
    let Mark { delivered, next } = mark.unwrap_or_default();
    report.next = report.next.max(next).max(delivered.number);
    let ends = firsts.iter().skip(1).map(|&first| Some(first)).chain([None]);
    for (&first, end) in firsts.iter().zip(ends) {
        let epoch = look_into(folder, first, end, ours, report.next, &is_settled)?;
        report.next = report.next.max(epoch.end);
        report.epochs.push(epoch);
    }
    let kept = said.claim().map_or(0, |claim| claim.kept).max(delivered.number).max(given_up);
    let oldest = firsts.first().copied().unwrap_or(report.next);
    if kept < oldest && said != Said::Nothing && mark.is_some() {
        let settled = is_settled(&(kept..oldest));
        let gone = Gone { from: kept, to: oldest - 1, behind_byte: 0, before_byte: 0, settled };
        report.gone_before = Some(gone);
    }
    if said == Said::Nothing && report.epochs.iter().any(|epoch| epoch.records > 0) {
        let what = "missing; made anew, numbers go on where they cannot have come to".to_owned();
        report.files.push(DamagedFile { file: "numbers".to_owned(), what });
    }
    let before = report.gone_before.as_ref().is_none_or(|gone| gone.settled);
    report.sound = before && report.files.is_empty() && !report.epochs.iter().any(EpochReport::is_damaged);
    Ok(report)
}

/// The names of the epochs, in order.
fn firsts(folder: &Path) -> Result<Vec<u64>, Error> {
    let path = folder.join("epochs");
    let mut firsts = Vec::new();
    for entry in fs::read_dir(&path).map_err(Error::io("list", &path))? {
        let name = entry.map_err(Error::io("list", &path))?.file_name();
        let name = name.to_string_lossy();
        firsts.extend(name.parse().ok().filter(|&first| epoch_name(first) == name));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// `end`: where the next one begins; the last ends no earlier than `proven`.
fn look_into(
    folder: &Path,
    first: u64,
    end: Option<u64>,
    incarnation: u64,
    proven: u64,
    is_settled: &impl Fn(&Range<u64>) -> bool,
) -> Result<EpochReport, Error> {
    let path = folder.join("epochs").join(epoch_name(first));
    let all = first..end.unwrap_or(first.saturating_add(EPOCH_UPLINKS_MAX));
    let mut report = EpochReport {
        name: epoch_name(first),
        first,
        end: end.unwrap_or(proven.max(first)),
        records: 0,
        uplinks: 0,
        bytes: fs::metadata(path.join("db")).map_or(0, |metadata| metadata.len()),
        gone: Vec::new(),
        unreadable: Vec::new(),
        trouble: None,
        old: false,
    };
    let index = match Index::open(&path, incarnation, &all) {
        Ok(index) => index,
        Err(error) if error.is_damage() => {
            let whole = report.first..report.end;
            let settled = is_settled(&whole);
            if !whole.is_empty() {
                let (from, to) = (whole.start, whole.end - 1);
                report.gone.push(Gone { from, to, behind_byte: 0, before_byte: 0, settled });
            }
            report.trouble = Some(error.with_causes()).filter(|_| !settled);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let scan = index.scanned();
    report.unreadable = scan.unreadable.iter().map(|bytes| (bytes.start, bytes.end)).collect();
    if scan.found.is_empty() && scan::is_old(index.file(), &all).map_err(Error::io("read", &path))? {
        report.old = true;
        return Ok(report);
    }
    report.records = scan.found.len();
    if end.is_none() {
        report.end = scan.end_from(report.end.max(scan.proven()));
    }
    report.gone = scan
        .holes(report.first..report.end)
        .into_iter()
        .map(|hole| {
            let (behind_byte, before_byte) = place(&scan.found, &hole, report.bytes);
            Gone { from: hole.start, to: hole.end - 1, behind_byte, before_byte, settled: is_settled(&hole) }
        })
        .collect();
    report.uplinks = report.end - report.first - report.gone_count();
    Ok(report)
}

/// Between which bytes a hole lies.
fn place(found: &[Found], hole: &Range<u64>, bytes: u64) -> (u64, u64) {
    let after = found.partition_point(|found| found.first < hole.end);
    let behind = after.checked_sub(1).map_or(0, |at| found[at].at + u64::from(found[at].length));
    let before = found.get(after).map_or(bytes, |found| found.at);
    (behind.min(before), before)
}
