//! Makes segments out of records: consecutive uplinks, as many as fit, compressed if that makes them shorter.

use std::sync::Arc;

use bytes::Bytes;
use weir_contract::segment::{HEAD_LEN_MAX, Head, SEGMENT_LEN_MAX, first_entry, write_head};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::spool::Record;

/// Shorter than this is not worth trying.
const COMPRESSED_FROM_BYTES: usize = 128;

/// A segment ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Which uplinks it holds.
    pub head: Head,
    /// What is published.
    pub payload: Bytes,
    /// Whether `payload` is a Zstandard frame.
    pub compressed: bool,
    /// Bytes before compression.
    pub raw_len: usize,
    /// Whether there were more uplinks than it could hold.
    pub full: bool,
}

/// Makes segments. Keeps its buffers: about 1 MiB with the compressor.
pub struct Builder {
    incarnation: u64,
    compressor: Option<Compressor<'static>>,
    raw: Vec<u8>,
}

impl Builder {
    /// For segments of this incarnation. Level 0 does not compress.
    ///
    /// # Errors
    /// zstd does not know the level, or there is no memory.
    pub fn new(incarnation: u64, level: i32) -> std::io::Result<Self> {
        let compressor = match level {
            0 => None,
            level => {
                let mut compressor = Compressor::new(level)?;
                // A bit that flips on the stream's disk is found out, not decoded.
                compressor.set_parameter(CParameter::ChecksumFlag(true))?;
                Some(compressor)
            }
        };
        Ok(Builder { incarnation, compressor, raw: Vec::new() })
    }

    /// A segment that begins with the uplink `from`, which must be in the first record, of at most `bytes_max` bytes before
    /// compression, but at least one uplink. `None` if the records do not hold it.
    pub fn build(&mut self, from: u64, records: &[Arc<Record>], bytes_max: usize) -> Option<Segment> {
        let first = records.first()?.part_from(from).filter(|part| part.first == from)?;
        let room = bytes_max.saturating_sub(HEAD_LEN_MAX);
        let mut parts: Vec<Record> = Vec::with_capacity(records.len());
        let mut len = 0;
        let mut full = false;
        for part in std::iter::once(&first).chain(records[1..].iter().map(AsRef::as_ref)) {
            let follows = parts.last().is_none_or(|last| last.end() == part.first);
            if !follows || len + part.entries.len() > room {
                full = follows;
                break;
            }
            len += part.entries.len();
            parts.push(part.clone());
        }
        if parts.is_empty() {
            parts.push(begin_of(&first, room));
        }
        let end = parts.last()?.end();
        let head = Head { incarnation: self.incarnation, first: from, count: end - from };
        Some(self.encode(head, &parts, full))
    }

    fn encode(&mut self, head: Head, parts: &[Record], full: bool) -> Segment {
        self.raw.clear();
        write_head(&mut self.raw, &head);
        for part in parts {
            self.raw.extend_from_slice(&part.entries);
        }
        let raw_len = self.raw.len();
        let compressed = self
            .compressor
            .as_mut()
            .filter(|_| raw_len >= COMPRESSED_FROM_BYTES)
            // Out of memory at worst: it is sent as it is.
            .and_then(|compressor| compressor.compress(&self.raw).ok())
            .filter(|compressed| compressed.len() < raw_len);
        let (payload, compressed) = match compressed {
            Some(compressed) => (Bytes::from(compressed), true),
            None => (Bytes::copy_from_slice(&self.raw), false),
        };
        Segment { head, payload, compressed, raw_len, full }
    }
}

/// As many of a record's uplinks as fit, at least one.
fn begin_of(record: &Record, room: usize) -> Record {
    let mut begin = record.clone();
    let (mut len, mut count) = (0, 0);
    while count < record.count {
        let Ok((_, entry)) = first_entry(&record.entries[len..]) else { break };
        if count > 0 && len + entry > room {
            break;
        }
        len += entry;
        count += 1;
    }
    begin.entries.truncate(len);
    begin.count = count;
    begin
}

/// The bytes of a segment as published, before compression.
///
/// # Errors
/// It is no Zstandard frame, or longer than a segment may be.
pub fn decode(payload: &[u8], compressed: bool) -> std::io::Result<Vec<u8>> {
    if compressed { zstd::bulk::decompress(payload, SEGMENT_LEN_MAX) } else { Ok(payload.to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_contract::segment::{self, write_entry};

    /// Records of `count` uplinks each from number 1, each uplink of `len` bytes that say its number.
    fn records(counts: &[u32], len: usize) -> Vec<Arc<Record>> {
        let device = "sensor-1".parse().unwrap();
        let mut number = 1;
        let record = |count: &u32| {
            let first = number;
            let mut entries = Vec::new();
            for _ in 0..*count {
                let mut payload = format!("{number:>20}").into_bytes();
                payload.resize(len, b'.');
                write_entry(&mut entries, &device, 1_000 + number, None, &payload);
                number += 1;
            }
            Arc::new(Record { first, count: *count, received_ms: 1_000 + first, entries: entries.into() })
        };
        counts.iter().map(record).collect()
    }

    /// The numbers in a segment, read back as the cloud reads it.
    fn numbers(segment: &Segment) -> Vec<u64> {
        let raw = decode(&segment.payload, segment.compressed).unwrap();
        assert_eq!(raw.len(), segment.raw_len);
        let read = segment::Segment::read(&raw).unwrap();
        assert_eq!(read.head, segment.head);
        read.entries()
            .map(|entry| std::str::from_utf8(&entry.payload[..20]).unwrap().trim().parse().unwrap())
            .collect()
    }

    #[test]
    fn what_waits_is_merged() {
        let mut builder = Builder::new(9, 1).unwrap();
        let segment = builder.build(1, &records(&[3, 1, 5], 60), 65_536).unwrap();
        assert_eq!((segment.head, segment.full), (Head { incarnation: 9, first: 1, count: 9 }, false));
        assert_eq!(numbers(&segment), (1..=9).collect::<Vec<_>>());
    }

    #[test]
    fn it_begins_in_the_middle_of_a_record() {
        let mut builder = Builder::new(9, 1).unwrap();
        for from in 1..=9 {
            let records = records(&[3, 1, 5], 60);
            let start = records.iter().position(|record| record.end() > from).unwrap();
            let segment = builder.build(from, &records[start..], 65_536).unwrap();
            assert_eq!(numbers(&segment), (from..=9).collect::<Vec<_>>());
        }
    }

    #[test]
    fn it_is_never_longer_than_allowed_and_nothing_is_left_out() {
        for (len, bytes_max) in [(60, 1_000), (60, 100), (600, 400), (60, 65_536), (20, 0)] {
            for level in [0, 1] {
                let mut builder = Builder::new(u64::MAX, level).unwrap();
                let records = records(&[3, 1, 50, 1, 7], len);
                let mut sent = Vec::new();
                let mut from = 1;
                while from < 63 {
                    let start = records.iter().position(|record| record.end() > from).unwrap();
                    let segment = builder.build(from, &records[start..], bytes_max).unwrap();
                    assert!(segment.raw_len <= bytes_max || segment.head.count == 1, "{}", segment.raw_len);
                    sent.extend(numbers(&segment));
                    from = segment.head.end();
                }
                assert_eq!(sent, (1..=62).collect::<Vec<_>>(), "{len} {bytes_max} {level}");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_sent_as_it_is() {
        let mut noise = vec![0; 4_000];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        let mut entries = Vec::new();
        write_entry(&mut entries, &"d".parse().unwrap(), 1, None, &noise);
        let record = Record { first: 1, count: 1, received_ms: 1, entries: entries.into() };
        let segment = Builder::new(9, 1).unwrap().build(1, &[Arc::new(record)], 65_536).unwrap();
        assert!(!segment.compressed && segment.payload.len() == segment.raw_len);
        let record = &records(&[100], 60)[0];
        let segment = Builder::new(9, 1).unwrap().build(1, &[Arc::clone(record)], 65_536).unwrap();
        assert!(segment.compressed && segment.payload.len() < segment.raw_len);
    }

    #[test]
    fn a_hole_ends_a_segment_and_a_number_that_is_not_there_makes_none() {
        let mut builder = Builder::new(9, 0).unwrap();
        let records = records(&[3, 4, 5], 60);
        let with_hole = [Arc::clone(&records[0]), Arc::clone(&records[2])];
        let segment = builder.build(1, &with_hole, 65_536).unwrap();
        assert_eq!(numbers(&segment), [1, 2, 3]);
        assert_eq!(builder.build(99, &records, 65_536), None);
        assert_eq!(builder.build(1, &[], 65_536), None);
    }
}
