//! A record: what one group commit puts in the spool, and its form on disk.
//!
//! ```text
//! key   = first number, big-endian u64
//! value = version u8 (1) | crc32 u32 | count u32 | received u64 (Unix ms of the first uplink) | entries
//! ```
//!
//! Integers little-endian. The checksum (CRC-32 as in IEEE 802.3) covers the key and all that follows it, so a value that
//! is damaged, cut, or under another's key is found out. `entries` are `count` elements of a segment's `uplinks`, one
//! after the other, as [`weir_contract::segment::write_entry`] made them.

use bytes::Bytes;
use weir_contract::segment::first_entry;

/// The most bytes of entries a record has; an uplink that is longer by itself is a record of its own.
pub const RECORD_BYTES_MAX: usize = 60 * 1024;

const VERSION: u8 = 1;
const CRC_AT: usize = 1;
const COUNT_AT: usize = 5;
const RECEIVED_AT: usize = 9;
const ENTRIES_AT: usize = 17;

/// Consecutive uplinks in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number of the first uplink.
    pub first: u64,
    /// How many uplinks; at least one.
    pub count: u32,
    /// Unix milliseconds when the first of them was taken.
    pub received_ms: u64,
    /// The uplinks as elements of a segment, concatenated.
    pub entries: Bytes,
}

impl Record {
    /// Number after the last uplink.
    pub const fn end(&self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }

    /// The part from `number` on: the whole if it begins later, `None` if it ends before.
    pub fn part_from(&self, number: u64) -> Option<Self> {
        if number >= self.end() {
            return None;
        }
        let mut part = self.clone();
        while part.first < number {
            let (_, len) = first_entry(&part.entries).ok()?;
            part.first += 1;
            part.count -= 1;
            part.entries = part.entries.slice(len..);
        }
        if part.first > self.first {
            part.received_ms = first_entry(&part.entries).ok()?.0.received_ms;
        }
        Some(part)
    }
}

/// Appends the value of a record to `out`.
pub(super) fn write_value(out: &mut Vec<u8>, first: u64, count: u32, received_ms: u64, entries: &[u8]) {
    let start = out.len();
    out.reserve(ENTRIES_AT + entries.len());
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&received_ms.to_le_bytes());
    out.extend_from_slice(entries);
    let crc = checksum(first, &out[start + COUNT_AT..]);
    out[start + CRC_AT..start + COUNT_AT].copy_from_slice(&crc.to_le_bytes());
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("a record is cut short")]
    Short,
    #[error("a record has version {0}, this program knows {VERSION}")]
    Version(u8),
    #[error("a record's checksum is wrong")]
    Checksum,
    #[error("a record's key is not a number")]
    Key,
}

/// Reads a record back and checks it.
pub(super) fn read_value(key: &[u8], value: &[u8]) -> Result<Record, Damage> {
    let first = read_key(key)?;
    if value.len() <= ENTRIES_AT {
        return Err(Damage::Short);
    }
    if value[0] != VERSION {
        return Err(Damage::Version(value[0]));
    }
    if checksum(first, &value[COUNT_AT..]).to_le_bytes() != value[CRC_AT..COUNT_AT] {
        return Err(Damage::Checksum);
    }
    let count = u32::from_le_bytes(value[COUNT_AT..RECEIVED_AT].try_into().expect("four bytes"));
    let received_ms = u64::from_le_bytes(value[RECEIVED_AT..ENTRIES_AT].try_into().expect("eight bytes"));
    if count == 0 {
        return Err(Damage::Short);
    }
    Ok(Record { first, count, received_ms, entries: Bytes::copy_from_slice(&value[ENTRIES_AT..]) })
}

/// The number a key stands for.
pub(super) fn read_key(key: &[u8]) -> Result<u64, Damage> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| Damage::Key)
}

fn checksum(first: u64, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first.to_be_bytes());
    hasher.update(rest);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use weir_contract::segment::write_entry;

    use super::*;

    fn entries(count: u8) -> Vec<u8> {
        let mut entries = Vec::new();
        for at in 0..count {
            let device = "d1".parse().expect("a name");
            write_entry(&mut entries, &device, 1000 + u64::from(at), None, &vec![at; usize::from(at) * 40]);
        }
        entries
    }

    fn value(first: u64, count: u8) -> Vec<u8> {
        let mut value = Vec::new();
        write_value(&mut value, first, u32::from(count), 1000, &entries(count));
        value
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = read_value(&7_u64.to_be_bytes(), &value(7, 3)).expect("whole");
        assert_eq!(record, Record { first: 7, count: 3, received_ms: 1000, entries: entries(3).into() });
        assert_eq!(record.end(), 10);
    }

    #[test]
    fn any_changed_byte_is_found_out() {
        let (key, value) = (7_u64.to_be_bytes(), value(7, 3));
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 0x10;
            assert!(read_value(&key, &changed).is_err(), "byte {at}");
            assert!(read_value(&key, &value[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(read_value(&8_u64.to_be_bytes(), &value), Err(Damage::Checksum), "under another's key");
        assert_eq!(read_value(b"7", &value), Err(Damage::Key));
    }

    #[test]
    fn a_part_of_a_record_is_its_later_uplinks() {
        let record = read_value(&7_u64.to_be_bytes(), &value(7, 5)).expect("whole");
        assert_eq!(record.part_from(1).as_ref(), Some(&record));
        assert_eq!(record.part_from(7).as_ref(), Some(&record));
        let part = record.part_from(9).expect("three of five");
        assert_eq!((part.first, part.count, part.received_ms), (9, 3, 1002));
        assert!(record.entries.ends_with(&part.entries));
        assert_eq!(record.part_from(11).map(|part| part.count), Some(1));
        assert_eq!(record.part_from(12), None);
    }
}
