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
use sled::IVec;
use weir_contract::Id;
use weir_contract::segment::{first_entry, write_entry};

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

/// A record that is being gathered, in the form it will have on disk, so that its entries are not copied again.
#[derive(Debug)]
pub struct Draft {
    /// A value whose head is filled in last.
    value: Vec<u8>,
    count: u32,
    received_ms: u64,
}

impl Default for Draft {
    fn default() -> Self {
        Self { value: vec![0; ENTRIES_AT], count: 0, received_ms: 0 }
    }
}

impl Draft {
    /// Whether an entry of `len` bytes goes into the same record.
    pub fn has_room(&self, len: usize) -> bool {
        self.count == 0 || self.value.len() - ENTRIES_AT + len <= RECORD_BYTES_MAX
    }

    /// Adds an uplink.
    pub fn push(&mut self, device: &Id, received_ms: u64, traceparent: Option<&[u8]>, payload: &[u8]) {
        if self.count == 0 {
            self.received_ms = received_ms;
        }
        self.count += 1;
        write_entry(&mut self.value, device, received_ms, traceparent, payload);
    }

    /// How many uplinks it has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Forgets everything but its buffer.
    pub fn clear(&mut self) {
        self.value.truncate(ENTRIES_AT);
        self.count = 0;
    }

    /// The value to be stored when its first uplink has this number.
    pub(super) fn seal(&mut self, first: u64) -> &[u8] {
        self.value[0] = VERSION;
        self.value[COUNT_AT..RECEIVED_AT].copy_from_slice(&self.count.to_le_bytes());
        self.value[RECEIVED_AT..ENTRIES_AT].copy_from_slice(&self.received_ms.to_le_bytes());
        let crc = checksum(first, &self.value[COUNT_AT..]);
        self.value[CRC_AT..COUNT_AT].copy_from_slice(&crc.to_le_bytes());
        &self.value
    }

    /// The record that `value`, sealed with this number, is. Shares its memory.
    pub(super) fn record(&self, first: u64, value: IVec) -> Record {
        let entries = Bytes::from_owner(value).slice(ENTRIES_AT..);
        Record { first, count: self.count, received_ms: self.received_ms, entries }
    }
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

/// Reads a record back and checks it. It shares the value's memory.
pub(super) fn read_value(key: &[u8], value: IVec) -> Result<Record, Damage> {
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
    Ok(Record { first, count, received_ms, entries: Bytes::from_owner(value).slice(ENTRIES_AT..) })
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
    use super::*;

    fn entries(count: u8) -> Vec<u8> {
        draft(count).value.split_off(ENTRIES_AT)
    }

    fn draft(count: u8) -> Draft {
        let mut draft = Draft::default();
        for at in 0..count {
            let device = "d1".parse().expect("a name");
            draft.push(&device, 1000 + u64::from(at), None, &vec![at; usize::from(at) * 40]);
        }
        draft
    }

    fn value(first: u64, count: u8) -> Vec<u8> {
        draft(count).seal(first).to_vec()
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Record, Damage> {
        read_value(key, value.into())
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = read(&7_u64.to_be_bytes(), &value(7, 3)).expect("whole");
        assert_eq!(record, Record { first: 7, count: 3, received_ms: 1000, entries: entries(3).into() });
        assert_eq!(record.end(), 10);
    }

    #[test]
    fn any_changed_byte_is_found_out() {
        let (key, value) = (7_u64.to_be_bytes(), value(7, 3));
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 0x10;
            assert!(read(&key, &changed).is_err(), "byte {at}");
            assert!(read(&key, &value[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(read(&8_u64.to_be_bytes(), &value), Err(Damage::Checksum), "under another's key");
        assert_eq!(read(b"7", &value), Err(Damage::Key));
    }

    #[test]
    fn a_part_of_a_record_is_its_later_uplinks() {
        let record = read(&7_u64.to_be_bytes(), &value(7, 5)).expect("whole");
        assert_eq!(record.part_from(1).as_ref(), Some(&record));
        assert_eq!(record.part_from(7).as_ref(), Some(&record));
        let part = record.part_from(9).expect("three of five");
        assert_eq!((part.first, part.count, part.received_ms), (9, 3, 1002));
        assert!(record.entries.ends_with(&part.entries));
        assert_eq!(record.part_from(11).map(|part| part.count), Some(1));
        assert_eq!(record.part_from(12), None);
    }
}
