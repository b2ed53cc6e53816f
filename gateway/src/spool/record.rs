//! A record: what one group commit puts in the spool, and its form on disk.
//!
//! ```text
//! key   = first number, big-endian u64
//! value = version u8 (2) | "rec" | crc32 u32 | length u32 (of the whole value) | incarnation u64 | first number u64
//!       | back u32 (from there to the first number of its commit) | count u32
//!       | received u64 (Unix ms of the first uplink) | entries
//! ```
//!
//! Integers little-endian. The checksum (CRC-32 as in IEEE 802.3) covers all that follows it. `entries` are `count` elements of
//! a segment's `uplinks`, one after the other, as [`weir_contract::segment::write_entry`] made them.
//!
//! A value says all there is to know of it, so it is found and believed wherever in a file it lies ([`super::scan`]), also where
//! what is around it is damaged. No device can make up such a value in what it sends: the incarnation is random, and
//! devices are not told it. The first number of the commit is a proof: whoever began that commit knew that everything before
//! it was on the disk.
//!
//! Version 1 had no more than `version u8 (1) | crc32 u32 (of the key, too) | count u32 | received u64 | entries`. It is read, not written.

use bytes::Bytes;
use sled::IVec;
use weir_contract::Id;
use weir_contract::segment::{first_entry, write_entry};

/// The most bytes of entries a record has; an uplink that is longer by itself is a record of its own.
pub const RECORD_BYTES_MAX: usize = 60 * 1024;

/// What every value begins with: the version, and a word by which it is found.
pub(super) const BEGINNING: [u8; 4] = *b"\x02rec";
/// The bytes before the entries.
pub(super) const HEAD_BYTES: usize = 44;
/// No value is longer: the database would put it elsewhere.
pub(super) const VALUE_BYTES_MAX: usize = 128 * 1024;

const CRC_AT: usize = 4;
const LENGTH_AT: usize = 8;
const INCARNATION_AT: usize = 12;
const FIRST_AT: usize = 20;
const BACK_AT: usize = 28;
const COUNT_AT: usize = 32;
const RECEIVED_AT: usize = 36;

/// Of version 1.
const OLD_VERSION: u8 = 1;
const OLD_CRC_AT: usize = 1;
const OLD_COUNT_AT: usize = 5;
const OLD_RECEIVED_AT: usize = 9;
const OLD_HEAD_BYTES: usize = 17;

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
        Self { value: vec![0; HEAD_BYTES], count: 0, received_ms: 0 }
    }
}

impl Draft {
    /// Whether an entry of `len` bytes goes into the same record.
    pub fn has_room(&self, len: usize) -> bool {
        self.count == 0 || self.value.len() - HEAD_BYTES + len <= RECORD_BYTES_MAX
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
        self.value.truncate(HEAD_BYTES);
        self.count = 0;
    }

    /// The value to be stored when its first uplink has this number, in the commit and the spool that `stamp` says.
    pub(super) fn seal(&mut self, first: u64, stamp: Stamp) -> &[u8] {
        let back = u32::try_from(first - stamp.commit).expect("a commit has some megabytes at most");
        let length = u32::try_from(self.value.len()).expect("a record has some kilobytes at most");
        self.value[..CRC_AT].copy_from_slice(&BEGINNING);
        self.value[LENGTH_AT..INCARNATION_AT].copy_from_slice(&length.to_le_bytes());
        self.value[INCARNATION_AT..FIRST_AT].copy_from_slice(&stamp.incarnation.to_le_bytes());
        self.value[FIRST_AT..BACK_AT].copy_from_slice(&first.to_le_bytes());
        self.value[BACK_AT..COUNT_AT].copy_from_slice(&back.to_le_bytes());
        self.value[COUNT_AT..RECEIVED_AT].copy_from_slice(&self.count.to_le_bytes());
        self.value[RECEIVED_AT..HEAD_BYTES].copy_from_slice(&self.received_ms.to_le_bytes());
        let crc = crc32fast::hash(&self.value[LENGTH_AT..]);
        self.value[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
        &self.value
    }

    /// The same uplinks once more, to be stored elsewhere.
    pub(super) fn of(record: &Record) -> Self {
        let mut draft = Self { count: record.count, received_ms: record.received_ms, ..Self::default() };
        draft.value.extend_from_slice(&record.entries);
        draft
    }

    /// The record that `value`, sealed with this number, is. Shares its memory.
    pub(super) fn record(&self, first: u64, value: IVec) -> Record {
        let entries = Bytes::from_owner(value).slice(HEAD_BYTES..);
        Record { first, count: self.count, received_ms: self.received_ms, entries }
    }
}

/// What a record says besides its uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which spool it is in.
    pub incarnation: u64,
    /// The first number of its commit: everything below was on the disk when that began.
    pub commit: u64,
}

/// What is before the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the whole value.
    pub length: usize,
    pub stamp: Stamp,
    pub first: u64,
    pub count: u32,
    received_ms: u64,
}

impl Head {
    /// Reads the head of what may be a value; nothing is checked but that it could be one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let length = usize::try_from(u32_at(LENGTH_AT)).ok()?;
        let (first, count) = (u64_at(FIRST_AT), u32_at(COUNT_AT));
        let commit = first.checked_sub(u64::from(u32_at(BACK_AT)))?;
        let can_be = head.starts_with(&BEGINNING)
            && (HEAD_BYTES + 1..=VALUE_BYTES_MAX).contains(&length)
            && count > 0
            && first.checked_add(u64::from(count)).is_some();
        let stamp = Stamp { incarnation: u64_at(INCARNATION_AT), commit };
        can_be.then_some(Self { length, stamp, first, count, received_ms: u64_at(RECEIVED_AT) })
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("a record is cut short")]
    Short,
    #[error("a record has version {0}, this program knows 1 and 2")]
    Version(u8),
    #[error("a record's checksum is wrong")]
    Checksum,
    #[error("a record's key is not its number")]
    Key,
}

/// Reads a record back and checks it. It shares the value's memory.
pub(super) fn read_value(key: &[u8], value: IVec) -> Result<Record, Damage> {
    let first = read_key(key)?;
    match value.first() {
        Some(&OLD_VERSION) => read_old(first, value),
        _ => {
            let record = read_whole(&Bytes::from_owner(value))?.1;
            if record.first == first { Ok(record) } else { Err(Damage::Key) }
        }
    }
}

/// Reads a record from its value alone, and checks it. It shares the value's memory.
pub(super) fn read_whole(value: &Bytes) -> Result<(Head, Record), Damage> {
    if value.first().is_some_and(|&version| version != BEGINNING[0]) {
        return Err(Damage::Version(value[0]));
    }
    let head = Head::read(value).ok_or(Damage::Short)?;
    if head.length != value.len() {
        return Err(Damage::Short);
    }
    if crc32fast::hash(&value[LENGTH_AT..]).to_le_bytes() != value[CRC_AT..LENGTH_AT] {
        return Err(Damage::Checksum);
    }
    let (first, count, received_ms) = (head.first, head.count, head.received_ms);
    Ok((head, Record { first, count, received_ms, entries: value.slice(HEAD_BYTES..) }))
}

/// Whether the bytes, as long as the head says, are what was written.
pub(super) fn is_whole(value: &[u8]) -> bool {
    crc32fast::hash(&value[LENGTH_AT..]).to_le_bytes() == value[CRC_AT..LENGTH_AT]
}

/// A value of version 1.
fn read_old(first: u64, value: IVec) -> Result<Record, Damage> {
    if value.len() <= OLD_HEAD_BYTES {
        return Err(Damage::Short);
    }
    if !is_whole_old(first, &value) {
        return Err(Damage::Checksum);
    }
    let count = u32::from_le_bytes(value[OLD_COUNT_AT..OLD_RECEIVED_AT].try_into().expect("four bytes"));
    let received_ms =
        u64::from_le_bytes(value[OLD_RECEIVED_AT..OLD_HEAD_BYTES].try_into().expect("eight bytes"));
    if count == 0 {
        return Err(Damage::Short);
    }
    Ok(Record { first, count, received_ms, entries: Bytes::from_owner(value).slice(OLD_HEAD_BYTES..) })
}

/// Whether the bytes are a value of version 1 under this number.
pub(super) fn is_whole_old(first: u64, value: &[u8]) -> bool {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first.to_be_bytes());
    value.len() > OLD_HEAD_BYTES && value[0] == OLD_VERSION && {
        hasher.update(&value[OLD_COUNT_AT..]);
        hasher.finalize().to_le_bytes() == value[OLD_CRC_AT..OLD_COUNT_AT]
    }
}

/// The number a key stands for.
pub(super) fn read_key(key: &[u8]) -> Result<u64, Damage> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| Damage::Key)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn entries(count: u8) -> Vec<u8> {
        draft(count).value.split_off(HEAD_BYTES)
    }

    fn draft(count: u8) -> Draft {
        let mut draft = Draft::default();
        for at in 0..count {
            let device = "d1".parse().expect("a name");
            draft.push(&device, 1000 + u64::from(at), None, &vec![at; usize::from(at) * 40]);
        }
        draft
    }

    pub(in crate::spool) const STAMP: Stamp = Stamp { incarnation: 0x1234_5678_9abc_def0, commit: 1 };

    fn value(first: u64, count: u8) -> Vec<u8> {
        draft(count).seal(first, STAMP).to_vec()
    }

    /// As the first version wrote it.
    pub(in crate::spool) fn old_value(first: u64, draft: &Draft) -> Vec<u8> {
        let mut value = vec![OLD_VERSION; OLD_COUNT_AT];
        value.extend_from_slice(&draft.count.to_le_bytes());
        value.extend_from_slice(&draft.received_ms.to_le_bytes());
        value.extend_from_slice(&draft.value[HEAD_BYTES..]);
        let crc = crc32fast::hash(&[&first.to_be_bytes()[..], &value[OLD_COUNT_AT..]].concat());
        value[OLD_CRC_AT..OLD_COUNT_AT].copy_from_slice(&crc.to_le_bytes());
        value
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Record, Damage> {
        read_value(key, value.into())
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = read(&7_u64.to_be_bytes(), &value(7, 3)).expect("whole");
        assert_eq!(record, Record { first: 7, count: 3, received_ms: 1000, entries: entries(3).into() });
        assert_eq!(record.end(), 10);
        let (head, alone) = read_whole(&value(7, 3).into()).expect("it needs no key");
        assert_eq!((alone, head.stamp), (record, STAMP));
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let draft = draft(3);
        let value = old_value(7, &draft);
        assert_eq!(value[..5], [1, 52, 241, 33, 157], "bytes as they were");
        let record = read(&7_u64.to_be_bytes(), &value).expect("whole");
        assert_eq!(record, Record { first: 7, count: 3, received_ms: 1000, entries: entries(3).into() });
        assert_eq!(read(&8_u64.to_be_bytes(), &value), Err(Damage::Checksum), "under another's key");
        for at in 1..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 0x10;
            assert!(read(&7_u64.to_be_bytes(), &changed).is_err(), "byte {at}");
            assert!(read(&7_u64.to_be_bytes(), &value[..at]).is_err(), "cut at {at}");
        }
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
        assert_eq!(read(&8_u64.to_be_bytes(), &value), Err(Damage::Key), "under another's key");
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
