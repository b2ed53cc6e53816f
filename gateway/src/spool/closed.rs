//! An epoch that is not being written (any more), for reading. Its log is read as a file ([`super::scan`]), never written: so it is
//! read from a disk that is full or read-only as well, and what is damaged stays as it is.
//!
//! Memory: an index of its records, at most some hundred kilobytes, and what is being read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk;
use super::epoch::Epoch;
use super::error::Error;
use super::record::{self, Record};
use super::scan::{self, Found, Scan};

/// Records that lie farther apart are read one by one.
const SPAN_BYTES_MAX: u64 = 1024 * 1024;

/// An epoch that was closed, or that another process has left.
#[derive(Debug)]
pub(super) enum Closed {
    /// Of this version.
    Indexed(Index),
    /// Of records of the first version: sled has to read it.
    Old(Epoch),
}

/// A log, and where its records are.
#[derive(Debug)]
pub(super) struct Index {
    log: PathBuf,
    file: File,
    scan: Scan,
}

impl Closed {
    /// Opens the epoch that holds `numbers`. `given_up`: what the disk does not read now is taken for gone.
    ///
    /// # Errors
    /// The log is not there, or cannot be read now.
    pub fn open(path: &Path, incarnation: u64, numbers: &Range<u64>, given_up: bool) -> Result<Self, Error> {
        let index = Index::open(path, incarnation, numbers)?;
        if let Some(bytes) = index.scan.unreadable.first()
            && !given_up
        {
            let what = format!("the disk does not read the bytes {} to {}", bytes.start, bytes.end - 1);
            return Err(Error::io("read", index.log)(io::Error::other(what)));
        }
        if index.is_old(numbers)? {
            return disk::open_epoch(path).map(Closed::Old);
        }
        Ok(Closed::Indexed(index))
    }

    /// Records from the one that holds `number` on, up to (not including) `end`, until `bytes_max` is passed.
    ///
    /// Stops before what is missing; if that is the first, [`Error::Missing`] tells up to where, at most `end`. Any other
    /// error says that reading failed, not that something is gone.
    pub fn read(
        &self,
        number: u64,
        end: u64,
        bytes_max: usize,
        given_up: bool,
    ) -> Result<Vec<Arc<Record>>, Error> {
        match self {
            Closed::Indexed(index) => index.read(number, end, bytes_max, given_up),
            Closed::Old(epoch) => epoch.read(number, end, bytes_max),
        }
    }
}

impl Index {
    /// Scans the log.
    pub fn open(path: &Path, incarnation: u64, numbers: &Range<u64>) -> Result<Self, Error> {
        let log = path.join("db");
        let file = File::open(&log).map_err(Error::io("open", &log))?;
        let scan = scan::scan(&file, incarnation, numbers).map_err(Error::io("read", &log))?;
        Ok(Self { log, file, scan })
    }

    /// As [`Closed::read`].
    pub fn read(
        &self,
        number: u64,
        end: u64,
        bytes_max: usize,
        given_up: bool,
    ) -> Result<Vec<Arc<Record>>, Error> {
        let start = self.scan.found.partition_point(|found| found.end() <= number);
        let (mut wanted, mut bytes) = (number, 0);
        let wanted: Vec<Found> = self.scan.found[start..]
            .iter()
            .take_while(|found| {
                let take = found.first <= wanted && wanted < end && (bytes < bytes_max || bytes == 0);
                (wanted, bytes) = (found.end(), bytes + found.length as usize);
                take
            })
            .copied()
            .collect();
        let mut records = Vec::with_capacity(wanted.len());
        for span in spans(&wanted) {
            match self.read_span(span, &mut records) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if records.is_empty() && !given_up => return Err(error),
                Err(_) => break,
            }
        }
        if !records.is_empty() || number >= end {
            return Ok(records);
        }
        // What was found but cannot be read any more ends with its record, what was not found at the next that was.
        let to = match self.scan.found.get(start) {
            Some(found) if found.first <= number => found.end(),
            Some(found) => found.first,
            None => end,
        };
        let reason = format!("{} is damaged where they were", self.log.display());
        Err(Error::Missing { from: number, to: to.min(end), reason })
    }

    /// Reads records that lie close together; says whether all of them are what they were.
    fn read_span(&self, span: &[Found], records: &mut Vec<Arc<Record>>) -> Result<bool, Error> {
        let (Some(first), Some(last)) = (span.first(), span.last()) else { return Ok(true) };
        let length = last.at + u64::from(last.length) - first.at;
        let mut buffer = vec![0; usize::try_from(length).expect("a span has a megabyte")];
        match self.file.read_exact_at(&mut buffer, first.at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) if span.len() == 1 => return Err(Error::io("read", &self.log)(error)),
            Err(_) => {
                // Not all of it may be bad.
                for one in span {
                    if !self.read_span(std::slice::from_ref(one), records)? {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
            Ok(()) => {}
        }
        let buffer = Bytes::from(buffer);
        for found in span {
            let at = usize::try_from(found.at - first.at).expect("within the span");
            match record::read_whole(&buffer.slice(at..at + found.length as usize)) {
                Ok((_, record)) if record.first == found.first => records.push(Arc::new(record)),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether these are records of the first version, and no others.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn is_old(&self, numbers: &Range<u64>) -> Result<bool, Error> {
        let Scan { found, unreadable } = &self.scan;
        let nothing_else = found.is_empty() && unreadable.is_empty();
        Ok(nothing_else && scan::is_old(&self.file, numbers).map_err(Error::io("read", &self.log))?)
    }

    /// What is there, without the file.
    pub fn into_scan(self) -> Scan {
        self.scan
    }

    /// What is there.
    pub fn scanned(&self) -> &Scan {
        &self.scan
    }

    /// The log.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Records that lie close together in the file, and in order.
fn spans(found: &[Found]) -> impl Iterator<Item = &[Found]> {
    let mut begins = None;
    found.chunk_by(move |before, next| {
        let begin = *begins.get_or_insert(before.at);
        let together = before.at < next.at && next.at + u64::from(next.length) - begin <= SPAN_BYTES_MAX;
        if !together {
            begins = None;
        }
        together
    })
}
