//! Which numbers are lost by damage, so that each is told, and once only: noted durably when it is found, told by
//! whoever keeps the gateway's own events, noted as told when those are on disk.
//!
//! ```text
//! FOLDER/losses    a line for each: weir loss 1 <incarnation> <from> <to, not included> <known, to-tell, told> crc <crc32>
//! ```
//!
//! A person can read it. A line that is not whole is passed over: what it said is found again. A crash between the
//! telling and the note tells it again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::folder::{read_small, sync_folder};

/// The most that is noted; more are told without a note.
const LOSSES_MAX: usize = 4096;
const MAGIC: &str = "weir loss 1";

/// What has become of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Found by a repair; what is read next tells whether it was delivered before.
    Known,
    /// Not told yet.
    ToTell,
    /// Told.
    Told,
}

impl Stage {
    const ALL: [(Stage, &str); 3] =
        [(Stage::Known, "known"), (Stage::ToTell, "to-tell"), (Stage::Told, "told")];

    fn word(self) -> &'static str {
        Stage::ALL[self as usize].1
    }
}

/// Numbers that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Of which spool.
    pub incarnation: u64,
    /// The first and the one after the last.
    pub numbers: Range<u64>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Losses {
    path: PathBuf,
    lost: Vec<(Lost, Stage)>,
}

impl Losses {
    /// Reads what was noted.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("losses");
        let bytes = read_small(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lost = text.lines().filter_map(|line| {
            let read = read_line(line);
            if read.is_none() {
                tracing::error!(file = %path.display(), line, "a line is damaged and passed over");
            }
            read
        });
        Ok(Self { lost: lost.take(LOSSES_MAX).collect(), path })
    }

    /// Notes that numbers are gone. Says whether that is news.
    ///
    /// # Errors
    /// It is not noted.
    pub fn add(&mut self, lost: &Lost, stage: Stage) -> Result<bool, Error> {
        let mut after = self.lost.clone();
        let mut news = false;
        for numbers in self.not_covered(lost, stage) {
            news = true;
            after.push((Lost { numbers, ..*lost }, stage));
        }
        // What was known only is now to be told, as far as it has been come upon.
        if stage > Stage::Known {
            after.retain(|(known, known_stage)| {
                let passed = *known_stage == Stage::Known
                    && known.incarnation == lost.incarnation
                    && lost.numbers.start <= known.numbers.start
                    && known.numbers.end <= lost.numbers.end;
                !passed
            });
        }
        if !news {
            return Ok(false);
        }
        if after.len() > LOSSES_MAX {
            return Err(Error::Damaged {
                path: self.path.clone(),
                what: format!("there are more than {LOSSES_MAX} losses"),
            });
        }
        self.put(after)?;
        Ok(true)
    }

    /// What of `lost` is not noted at this stage or a later one.
    fn not_covered(&self, lost: &Lost, stage: Stage) -> Vec<Range<u64>> {
        let mut open = vec![lost.numbers.clone()];
        let noted = self
            .lost
            .iter()
            .filter(|(noted, noted_stage)| noted.incarnation == lost.incarnation && *noted_stage >= stage);
        for (noted, _) in noted {
            open = open.into_iter().flat_map(|range| without(&range, &noted.numbers)).collect();
        }
        open
    }

    /// How many of these numbers are noted.
    pub fn count_in(&self, incarnation: u64, numbers: &Range<u64>) -> u64 {
        let ours = self.all().filter(|lost| lost.incarnation == incarnation);
        let within = ours.map(|lost| {
            lost.numbers.end.min(numbers.end).saturating_sub(lost.numbers.start.max(numbers.start))
        });
        within.sum()
    }

    /// Whether all of these numbers are noted.
    pub fn knows(&self, lost: &Lost) -> bool {
        self.not_covered(lost, Stage::Known).is_empty()
    }

    /// What has to be told.
    pub fn untold(&self) -> Vec<Lost> {
        let untold = self.lost.iter().filter(|(_, stage)| *stage == Stage::ToTell);
        untold.map(|(lost, _)| lost.clone()).collect()
    }

    /// These are told.
    ///
    /// # Errors
    /// That is not noted.
    pub fn told(&mut self, told: &[Lost]) -> Result<(), Error> {
        let mut after = self.lost.clone();
        for (lost, stage) in &mut after {
            if told.contains(lost) {
                *stage = Stage::Told;
            }
        }
        self.put(after)
    }

    /// Forgets what was told of numbers that nobody will come upon again.
    ///
    /// # Errors
    /// The file is as it was.
    pub fn forget_below(&mut self, incarnation: u64, number: u64) -> Result<(), Error> {
        let mut after = self.lost.clone();
        after.retain(|(lost, stage)| {
            *stage == Stage::ToTell || (lost.incarnation == incarnation && lost.numbers.end > number)
        });
        if after.len() == self.lost.len() { Ok(()) } else { self.put(after) }
    }

    /// How many numbers of a spool are noted.
    pub fn count(&self, incarnation: u64) -> u64 {
        let ours = self.all().filter(|lost| lost.incarnation == incarnation);
        ours.map(|lost| lost.numbers.end - lost.numbers.start).sum()
    }

    /// Everything that is noted.
    pub fn all(&self) -> impl Iterator<Item = &Lost> {
        self.lost.iter().map(|(lost, _)| lost)
    }

    fn put(&mut self, lost: Vec<(Lost, Stage)>) -> Result<(), Error> {
        let text: String = lost.iter().map(|(lost, stage)| line(lost, *stage)).collect();
        let new = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(Error::io("write", &self.path))?;
        sync_folder(self.path.parent().expect("it is in the spool's folder"))?;
        self.lost = lost;
        Ok(())
    }
}

/// What of `range` lies outside of `other`.
fn without(range: &Range<u64>, other: &Range<u64>) -> Vec<Range<u64>> {
    let before = range.start..range.end.min(other.start);
    let after = range.start.max(other.end)..range.end;
    [before, after].into_iter().filter(|part| !part.is_empty()).collect()
}

fn line(lost: &Lost, stage: Stage) -> String {
    let Range { start, end } = lost.numbers;
    let said = format!("{MAGIC} {} {start} {end} {}", lost.incarnation, stage.word());
    format!("{said} crc {:08x}\n", crc32fast::hash(said.as_bytes()))
}

fn read_line(line: &str) -> Option<(Lost, Stage)> {
    let (said, crc) = line.rsplit_once(" crc ")?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(said.as_bytes()) {
        return None;
    }
    let mut fields = said.strip_prefix(MAGIC)?.split_whitespace();
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (incarnation, start, end) = (number()?, number()?, number()?);
    let word = fields.next()?;
    let (stage, _) = Stage::ALL.into_iter().find(|(_, known)| *known == word)?;
    (start < end).then_some((Lost { incarnation, numbers: start..end }, stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(numbers: Range<u64>) -> Lost {
        Lost { incarnation: 7, numbers }
    }

    #[test]
    fn each_number_is_news_once_whatever_the_ranges_it_is_found_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut losses = Losses::open(folder.path()).expect("none yet");
        assert!(losses.add(&lost(10..20), Stage::ToTell).expect("noted"));
        assert!(!losses.add(&lost(12..20), Stage::ToTell).expect("noted"));
        assert!(losses.add(&lost(5..25), Stage::ToTell).expect("noted"));
        assert_eq!(losses.untold(), [lost(10..20), lost(5..10), lost(20..25)]);
        losses.told(&losses.untold()).expect("noted");
        let mut losses = Losses::open(folder.path()).expect("read");
        assert!(losses.untold().is_empty());
        assert!(!losses.add(&lost(5..25), Stage::ToTell).expect("noted"), "it is told");
        losses.forget_below(7, 20).expect("forgotten");
        assert_eq!(losses.all().collect::<Vec<_>>(), [&lost(20..25)]);
    }

    #[test]
    fn what_a_repair_has_found_is_told_when_it_is_come_upon() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut losses = Losses::open(folder.path()).expect("none yet");
        losses.add(&lost(10..20), Stage::Known).expect("noted");
        assert!(losses.untold().is_empty() && !losses.add(&lost(12..14), Stage::Known).expect("noted"));
        assert!(losses.add(&lost(10..20), Stage::ToTell).expect("noted"));
        assert_eq!(losses.untold(), [lost(10..20)]);
        assert_eq!(losses.all().count(), 1);
    }

    #[test]
    fn a_damaged_line_costs_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut losses = Losses::open(folder.path()).expect("none yet");
        losses.add(&lost(10..20), Stage::ToTell).expect("noted");
        losses.add(&lost(30..40), Stage::ToTell).expect("noted");
        let path = folder.path().join("losses");
        let mut bytes = fs::read(&path).expect("there");
        bytes[14] ^= 1;
        fs::write(&path, bytes).expect("written");
        assert_eq!(Losses::open(folder.path()).expect("read").untold(), [lost(30..40)]);
    }
}
