//! What goes ahead of the backlog. Pure.
//!
//! Days of backlog would hide the present for as long as it takes to send them. So while the `main` lane is behind, copies of
//! the newest uplinks go ahead of it in the lane [`LANE_LIVE`](weir_contract::subject::LANE_LIVE): those with urgent
//! events first, then the newest that fit into this lane's share of what is sent.
//!
//! Only copies: each uplink is in its place in `main` too, sooner or later. So this lane promises nothing, nothing is
//! released for it, and it may leave out whatever does not fit; the cloud knows events by their names and takes whichever
//! copy comes first.

use std::ops::Range;
use std::time::Duration;

use weir_contract::Kind;
use weir_contract::segment::first_entry;
use weir_contract::uplink::Uplink;

use crate::spool::Record;

/// The most segments that go ahead at a time: each is a round trip that `main` waits for.
const RUNS_MAX: usize = 4;
/// This much goes ahead, however small the segments of `main` have become.
const BYTES_MIN: usize = 4 * 1024;

/// Whether anything is to go ahead, and from where on.
#[derive(Debug)]
pub struct Ahead {
    after: Duration,
    share_percent: usize,
    urgent: Vec<Kind>,
    /// Since some beginning, as is every `now`.
    in_step_at: Duration,
    /// Uplinks with smaller numbers have had their turn, here or in `main`.
    from: u64,
}

/// What goes ahead now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pick {
    /// Runs of consecutive uplinks, each to be a segment; oldest first.
    pub runs: Vec<Vec<Record>>,
    /// Uplinks that would have been new, but did not fit.
    pub left_out: u64,
}

/// An uplink among the newest.
struct Candidate {
    record: usize,
    number: u64,
    /// Where it is in its record's entries.
    at: Range<usize>,
    urgent: bool,
    picked: bool,
}

impl Ahead {
    /// Nothing goes ahead until `main` has been behind for `after`; then at most `share_percent` beside what `main` sends.
    /// `urgent` kinds go before others.
    #[must_use]
    pub fn new(after: Duration, share_percent: u64, urgent: Vec<Kind>) -> Self {
        let share_percent = usize::try_from(share_percent).unwrap_or_default();
        Ahead { after, share_percent, urgent, in_step_at: Duration::ZERO, from: 0 }
    }

    /// What `main` sends now, up to `end`, is all there is.
    pub fn in_step(&mut self, end: u64, now: Duration) {
        self.in_step_at = now;
        self.from = self.from.max(end);
    }

    /// Whether something should go ahead.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.share_percent > 0 && now.saturating_sub(self.in_step_at) >= self.after
    }

    /// The first number that has not had its turn.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Picks from the newest `records` what goes ahead beside `main_bytes` of `main`, which sends what is below `main_end`.
    pub fn pick(&mut self, records: &[impl AsRef<Record>], main_end: u64, main_bytes: usize) -> Pick {
        let records: Vec<&Record> = records.iter().map(AsRef::as_ref).collect();
        let Some(end) = records.last().map(|record| record.end()) else { return Pick::default() };
        let mut candidates = self.candidates(&records, self.from.max(main_end));
        self.from = end;
        let bytes_max = (main_bytes * self.share_percent / 100).max(BYTES_MIN);
        let left = choose_urgent(&mut candidates, bytes_max);
        choose_newest(&mut candidates, left);
        let left_out = candidates.iter().filter(|candidate| !candidate.picked).count() as u64;
        Pick { runs: runs(&records, &candidates), left_out }
    }

    fn candidates(&self, records: &[&Record], from: u64) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (record, Record { first, count, entries, .. }) in records.iter().copied().enumerate() {
            let mut at = 0;
            for number in *first..first + u64::from(*count) {
                // What the spool holds has been checked when it was read.
                let Ok((entry, len)) = first_entry(&entries[at..]) else { break };
                if number >= from {
                    let urgent = self.is_urgent(&entry.payload);
                    candidates.push(Candidate { record, number, at: at..at + len, urgent, picked: false });
                }
                at += len;
            }
        }
        candidates
    }

    fn is_urgent(&self, payload: &[u8]) -> bool {
        !self.urgent.is_empty()
            && Uplink::read(payload)
                .is_ok_and(|uplink| uplink.events().any(|event| self.urgent.contains(&event.kind)))
    }
}

/// Takes the newest of the urgent, one run of the limit being kept for the newest of all. Gives the bytes that are left.
fn choose_urgent(candidates: &mut [Candidate], bytes_max: usize) -> usize {
    let mut left = bytes_max;
    let mut runs = 0;
    let mut follower = None;
    for candidate in candidates.iter_mut().rev().filter(|candidate| candidate.urgent) {
        runs += usize::from(follower != Some(candidate.number + 1));
        if runs == RUNS_MAX || candidate.at.len() > left {
            break;
        }
        follower = Some(candidate.number);
        left -= candidate.at.len();
        candidate.picked = true;
    }
    left
}

/// Takes the newest of all, without a gap, as far as they fit.
fn choose_newest(candidates: &mut [Candidate], mut left: usize) {
    for candidate in candidates.iter_mut().rev().filter(|candidate| !candidate.picked) {
        let Some(rest) = left.checked_sub(candidate.at.len()) else { break };
        left = rest;
        candidate.picked = true;
    }
}

/// What was picked, as parts of the records.
fn runs(records: &[&Record], candidates: &[Candidate]) -> Vec<Vec<Record>> {
    let picked: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.picked).collect();
    let follows = |a: &&Candidate, b: &&Candidate| a.number + 1 == b.number;
    picked
        .chunk_by(follows)
        .map(|run| run.chunk_by(|a, b| a.record == b.record).map(|part| part_of(records, part)).collect())
        .collect()
}

fn part_of(records: &[&Record], part: &[&Candidate]) -> Record {
    let (first, last) = (part[0], part[part.len() - 1]);
    let record = records[first.record];
    Record {
        first: first.number,
        count: u32::try_from(part.len()).expect("no more than the record has"),
        received_ms: record.received_ms,
        entries: record.entries.slice(first.at.start..last.at.end),
    }
}

#[cfg(test)]
mod tests;
