//! Finds records in an epoch's log without the database that wrote it, however damaged that log is.
//!
//! sled reads its log from message to message. Where one is damaged it takes the log for ended there, or passes over the rest of
//! a segment; and it then *writes*: what follows is overwritten, the segments behind are zeroed (`advance_snapshot` in its source).
//! So what another process has left is never opened with it. Each record says itself which it is ([`super::record`]), so they are
//! looked for by what they begin with, in windows of a megabyte, and every one that is whole is found, whatever lies between.
//! sled may have written a record twice (it moves pages when it tidies up): the copies are the same.
//!
//! A block that the disk does not read is passed over like any other damage, after it was tried a few times; whether to
//! believe that is the caller's decision ([`Scan::unreadable`]).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use memchr::memmem::Finder;
use rustix::io::Errno;

use super::record::{self, BEGINNING, HEAD_BYTES, Head, VALUE_BYTES_MAX};

/// Read at a time; several of the longest records.
const WINDOW_BYTES: usize = 1 << 20;
/// What a disk reads or does not read as a whole.
const BLOCK_BYTES: usize = 4096;
/// How often a block is tried that cannot be read.
const TRIES: usize = 3;
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// After so many, blocks are tried once only: the disk is gone, and a start is not to take minutes.
const PATIENT_BLOCKS: usize = 16;

/// What is scanned: a file, or what a test puts in its place.
pub(super) trait Source {
    /// As [`FileExt::read_at`].
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }
}

/// A record that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub first: u64,
    pub count: u32,
    /// The first number of its commit.
    pub commit: u64,
    /// Where its value begins in the file.
    pub at: u64,
    /// Bytes of its value.
    pub length: u32,
}

impl Found {
    /// Number after its last uplink.
    pub const fn end(&self) -> u64 {
        self.first + self.count as u64
    }
}

/// What is in a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// In the order of their numbers; none twice.
    pub found: Vec<Found>,
    /// Bytes of the file that the disk does not read.
    pub unreadable: Vec<Range<u64>>,
}

impl Scan {
    /// Everything below was on the disk before the last commit that is found began.
    pub fn proven(&self) -> u64 {
        self.found.iter().map(|found| found.commit).max().unwrap_or_default()
    }

    /// The number after the last that is there, counted on from `number` without a hole.
    pub fn end_from(&self, number: u64) -> u64 {
        let mut end = number;
        for found in &self.found {
            if found.first <= end {
                end = end.max(found.end());
            }
        }
        end
    }

    /// Which of these numbers no record holds.
    pub fn holes(&self, numbers: Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut next = numbers.start;
        for found in &self.found {
            if found.first > next && next < numbers.end {
                holes.push(next..found.first.min(numbers.end));
            }
            next = next.max(found.end());
        }
        if next < numbers.end {
            holes.push(next..numbers.end);
        }
        holes
    }
}

/// Finds the records of this spool whose numbers begin in `numbers`.
///
/// # Errors
/// The file cannot be read for a reason that has nothing to do with its blocks.
pub(super) fn scan(source: &impl Source, incarnation: u64, numbers: &Range<u64>) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let is_ours = |head: &Head| head.stamp.incarnation == incarnation && numbers.contains(&head.first);
    scan.unreadable = walk(source, is_ours, |head, at| {
        scan.found.push(Found {
            first: head.first,
            count: head.count,
            commit: head.stamp.commit,
            at,
            length: u32::try_from(head.length).expect("bounded"),
        });
        true
    })?;
    scan.found.sort_by_key(|found| (found.first, found.at));
    scan.found.dedup_by_key(|found| found.first);
    Ok(scan)
}

/// Whose records these are: of the first that is whole, `None` if there is none.
///
/// # Errors
/// As [`scan`].
pub(super) fn whose(source: &impl Source) -> io::Result<Option<u64>> {
    let mut incarnation = None;
    walk(
        source,
        |_| true,
        |head, _| {
            incarnation = Some(head.stamp.incarnation);
            false
        },
    )?;
    Ok(incarnation)
}

/// Goes through all whole records `wanted`, until told to stop. Gives what could not be read.
fn walk(
    source: &impl Source,
    wanted: impl Fn(&Head) -> bool,
    mut take: impl FnMut(&Head, u64) -> bool,
) -> io::Result<Vec<Range<u64>>> {
    let finder = Finder::new(&BEGINNING);
    let mut window = Window::open(source)?;
    let mut from = 0;
    loop {
        let Some(found) = finder.find(&window.buffer[from..window.len]) else {
            if window.is_last() {
                return Ok(window.unreadable);
            }
            // The beginning of one may be at the end.
            let kept = from.max(window.len - (BEGINNING.len() - 1));
            window.fill(window.at + kept as u64)?;
            from = 0;
            continue;
        };
        let begin = from + found;
        let wants = Head::read(&window.buffer[begin..window.len]).map_or(HEAD_BYTES, |head| head.length);
        if window.len - begin < wants && begin > 0 && !window.is_last() {
            window.fill(window.at + begin as u64)?;
            from = 0;
            continue;
        }
        let value = &window.buffer[begin..window.len];
        let whole = Head::read(value)
            .filter(|head| wanted(head) && value.get(..head.length).is_some_and(record::is_whole));
        let Some(head) = whole else {
            from = begin + 1;
            continue;
        };
        if !take(&head, window.at + begin as u64) {
            return Ok(window.unreadable);
        }
        from = begin + head.length;
    }
}

/// A part of the file.
struct Window<'a, S> {
    source: &'a S,
    buffer: Vec<u8>,
    len: usize,
    /// Where it begins in the file.
    at: u64,
    unreadable: Vec<Range<u64>>,
    /// How many blocks these are.
    unreadable_blocks: usize,
}

impl<'a, S: Source> Window<'a, S> {
    /// The file's beginning.
    fn open(source: &'a S) -> io::Result<Self> {
        let (buffer, unreadable) = (vec![0; WINDOW_BYTES], Vec::new());
        let mut window = Window { source, buffer, len: 0, at: 0, unreadable, unreadable_blocks: 0 };
        window.fill(0)?;
        Ok(window)
    }

    /// Whether the file ends with it.
    fn is_last(&self) -> bool {
        self.len < self.buffer.len()
    }

    /// Reads what is at `at`: less than a whole window only at the file's end. What the disk does not read becomes zeros.
    fn fill(&mut self, at: u64) -> io::Result<()> {
        (self.at, self.len) = (at, 0);
        while self.len < self.buffer.len() {
            let position = at + self.len as u64;
            let read = match self.source.read_at(&mut self.buffer[self.len..], position) {
                Err(error) if is_of_the_block(&error) => self.pass_over(position)?,
                read => read?,
            };
            if read == 0 {
                break;
            }
            self.len += read;
        }
        Ok(())
    }

    /// Reads block by block, until one is read, or is passed over.
    fn pass_over(&mut self, position: u64) -> io::Result<usize> {
        let to_boundary = BLOCK_BYTES - usize::try_from(position % BLOCK_BYTES as u64).expect("small");
        let end = self.buffer.len().min(self.len + to_boundary);
        let tries = if self.unreadable_blocks < PATIENT_BLOCKS { TRIES } else { 1 };
        for attempt in 0..tries {
            if attempt > 0 {
                std::thread::park_timeout(TRY_AGAIN);
            }
            match self.source.read_at(&mut self.buffer[self.len..end], position) {
                Err(error) if is_of_the_block(&error) => {}
                read => return read,
            }
        }
        self.unreadable_blocks += 1;
        self.buffer[self.len..end].fill(0);
        let block = position..position + (end - self.len) as u64;
        match self.unreadable.last_mut() {
            // Windows overlap.
            Some(last) if block.start <= last.end => last.end = last.end.max(block.end),
            _ => self.unreadable.push(block),
        }
        Ok(end - self.len)
    }
}

/// Whether it is a certain place of the disk that cannot be read.
pub(super) fn is_of_the_block(error: &io::Error) -> bool {
    // Of a file system with checksums, too.
    let of_the_block = [Errno::IO, Errno::UCLEAN, Errno::BADMSG].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| of_the_block.contains(&number))
}

/// Whether there is a record of the first version in the log, whose numbers begin in `numbers`: those have nothing by which
/// they could be found everywhere, but sled's own message around them.
pub(super) fn is_old(source: &impl Source, numbers: &Range<u64>) -> io::Result<bool> {
    // An addition to a leaf, and the length of the key.
    let finder = Finder::new(&[0, 8]);
    let mut window = Window::open(source)?;
    loop {
        let bytes = &window.buffer[..window.len];
        if finder.find_iter(bytes).any(|at| is_old_at(&bytes[at + 2..], numbers)) {
            return Ok(true);
        }
        if window.is_last() {
            return Ok(false);
        }
        window.fill(window.at + (WINDOW_BYTES - VALUE_BYTES_MAX) as u64)?;
    }
}

fn is_old_at(bytes: &[u8], numbers: &Range<u64>) -> bool {
    let Some((key, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let first = u64::from_be_bytes(*key);
    // sled's variable-length integer.
    let length = match rest {
        [short @ 0..=240, ..] => Some((1, usize::from(*short))),
        [middle @ 241..=248, low, ..] => Some((2, 240 + 256 * usize::from(middle - 241) + usize::from(*low))),
        [249, high, low, ..] => Some((3, 2288 + 256 * usize::from(*high) + usize::from(*low))),
        [250, a, b, c, ..] => Some((4, usize::from(*a) + (usize::from(*b) << 8) + (usize::from(*c) << 16))),
        _ => None,
    };
    let value = length.and_then(|(skip, length)| rest.get(skip..)?.get(..length));
    numbers.contains(&first) && value.is_some_and(|value| record::is_whole_old(first, value))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Draft, Stamp};
    use super::*;

    const OURS: u64 = 77;

    /// A disk with blocks that cannot be read.
    struct Disk {
        bytes: Vec<u8>,
        bad: Vec<Range<u64>>,
    }

    impl Source for Disk {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            let start = usize::try_from(at).expect("small").min(self.bytes.len());
            let end = (start + buffer.len()).min(self.bytes.len());
            if self.bad.iter().any(|bad| bad.start < end as u64 && at < bad.end) {
                return Err(io::Error::from_raw_os_error(5));
            }
            buffer[..end - start].copy_from_slice(&self.bytes[start..end]);
            Ok(end - start)
        }
    }

    fn value(incarnation: u64, first: u64, len: usize) -> Vec<u8> {
        let mut draft = Draft::default();
        draft.push(&"d1".parse().expect("a name"), 1, None, &vec![b'x'; len]);
        draft.seal(first, Stamp { incarnation, commit: first }).to_vec()
    }

    /// Records of all lengths with this and that between them, and where each begins.
    fn log(count: u64, random: &mut fastrand::Rng) -> (Vec<u8>, Vec<Range<usize>>) {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for first in 1..=count {
            let between = random.usize(0..100);
            bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(between));
            let len = if random.u8(0..4) == 0 { random.usize(1..65_536) } else { random.usize(1..2000) };
            let value = value(OURS, first, len);
            places.push(bytes.len()..bytes.len() + value.len());
            bytes.extend(value);
        }
        (bytes, places)
    }

    fn found(bytes: Vec<u8>, bad: Vec<Range<u64>>) -> (Vec<u64>, Scan) {
        let scan = scan(&Disk { bytes, bad }, OURS, &(1..1000)).expect("scanned");
        (scan.found.iter().map(|found| found.first).collect(), scan)
    }

    #[test]
    fn every_whole_record_is_found_wherever_it_lies_and_whatever_is_damaged_around_it() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            let (mut bytes, places) = log(200, &mut random);
            let mut hit = vec![false; places.len()];
            for _ in 0..random.usize(0..30) {
                let start = random.usize(..bytes.len());
                let end = (start + random.usize(1..5000)).min(bytes.len());
                for (place, hit) in places.iter().zip(&mut hit) {
                    *hit |= place.start < end && start < place.end;
                }
                bytes[start..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
            }
            let whole = (1..).zip(&hit).filter(|(_, hit)| !**hit).map(|(first, _)| first);
            assert!(found(bytes, Vec::new()).0.into_iter().eq(whole));
        }
    }

    #[test]
    fn a_block_that_cannot_be_read_costs_what_is_in_it() {
        let mut random = fastrand::Rng::with_seed(7);
        let (bytes, places) = log(200, &mut random);
        let bad = [8192..12_288, 1_048_576 - 4096..1_048_576 + 4096];
        let whole: Vec<u64> = (1..)
            .zip(&places)
            .filter(|(_, place)| {
                bad.iter().all(|bad| bad.end <= place.start as u64 || place.end as u64 <= bad.start)
            })
            .map(|(first, _)| first)
            .collect();
        assert!(whole.len() < places.len());
        let (found, scan) = found(bytes, bad.to_vec());
        assert_eq!(found, whole);
        assert_eq!(scan.unreadable, bad);
    }

    #[test]
    fn what_a_device_sends_is_no_record_though_it_looks_like_one() {
        // What is inside a record that is whole is not looked at; what is inside a damaged one is another spool's.
        let forged = value(OURS, 500, 10);
        let mut draft = Draft::default();
        draft.push(&"d1".parse().expect("a name"), 1, None, &forged);
        let outer = draft.seal(1, Stamp { incarnation: OURS, commit: 1 }).to_vec();
        assert_eq!(found(outer, Vec::new()).0, [1]);
        let mut draft = Draft::default();
        draft.push(&"d1".parse().expect("a name"), 1, None, &value(OURS + 1, 500, 10));
        let mut outer = draft.seal(1, Stamp { incarnation: OURS, commit: 1 }).to_vec();
        outer[HEAD_BYTES] ^= 1;
        assert!(found(outer, Vec::new()).0.is_empty());
    }

    #[test]
    fn holes_and_ends_are_told_exactly() {
        let found = |first, count| Found { first, count, commit: first, at: 0, length: 0 };
        let scan = Scan { found: vec![found(3, 2), found(5, 1), found(9, 4)], unreadable: Vec::new() };
        assert_eq!(scan.holes(1..20), [1..3, 6..9, 13..20]);
        assert_eq!(scan.holes(3..6), []);
        assert_eq!(scan.holes(4..13), [6..9, 13..13][..1]);
        assert_eq!(
            (scan.end_from(3), scan.end_from(6), scan.end_from(10), scan.end_from(20)),
            (6, 6, 13, 20)
        );
        assert_eq!(scan.proven(), 9);
    }
}
