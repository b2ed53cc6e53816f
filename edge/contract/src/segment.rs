//! A segment: one JetStream message, consecutive uplinks of one gateway.
//!
//! ```text
//! segment = [incarnation, first, [1* [device, received, traceparent / null, payload]]]
//! ```
//!
//! An entry is encoded once, when its uplink is taken: what a gateway keeps on disk are entries, and a segment is
//! [`write_head`] followed by as many of them as are waiting.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::Id;
use crate::cbor::{
    ARRAY, BYTES, HEAD_LEN_MAX as ITEM_HEAD_LEN_MAX, Items, Malformed, NULL, Reader, TEXT, UNSIGNED, What,
    head, head_len,
};

/// The most bytes a segment can have before compression.
pub const SEGMENT_LEN_MAX: usize = 256 * 1024;
/// The most bytes [`write_head`] writes.
pub const HEAD_LEN_MAX: usize = 1 + 3 * ITEM_HEAD_LEN_MAX;
/// The most bytes of a trace context: W3C `traceparent` has 55.
pub const TRACEPARENT_LEN_MAX: usize = 64;
/// The most bytes an entry takes beside its payload.
pub const ENTRY_OVERHEAD_MAX: usize =
    1 + (2 + Id::LEN_MAX) + ITEM_HEAD_LEN_MAX + (2 + TRACEPARENT_LEN_MAX) + 5;

/// An uplink in a gateway's custody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The device that sent it.
    pub device: Id,
    /// Unix milliseconds, by the gateway's clock, when it was taken.
    pub received_ms: u64,
    /// W3C trace context, if the device sent one.
    pub traceparent: Option<Cow<'a, [u8]>>,
    /// The uplink, byte for byte as the device made it.
    pub payload: Cow<'a, [u8]>,
}

/// Length of the entry that [`write_entry`] would write.
pub fn entry_len(device: &Id, received_ms: u64, traceparent: Option<&[u8]>, payload: &[u8]) -> usize {
    let string_len = |len: usize| head_len(len as u64) + len;
    1 + string_len(device.len())
        + head_len(received_ms)
        + traceparent.map_or(1, |trace| string_len(trace.len()))
        + string_len(payload.len())
}

/// Appends one element of `uplinks` to `out`.
pub fn write_entry(
    out: &mut Vec<u8>,
    device: &Id,
    received_ms: u64,
    traceparent: Option<&[u8]>,
    payload: &[u8],
) {
    out.reserve(entry_len(device, received_ms, traceparent, payload));
    put(out, ARRAY, 4);
    put_string(out, TEXT, device.as_bytes());
    put(out, UNSIGNED, received_ms);
    match traceparent {
        Some(trace) => put_string(out, BYTES, trace),
        None => out.push(NULL),
    }
    put_string(out, BYTES, payload);
}

fn put(out: &mut Vec<u8>, major: u8, argument: u64) {
    let (head, len) = head(major, argument);
    out.extend_from_slice(&head[..len]);
}

fn put_string(out: &mut Vec<u8>, major: u8, bytes: &[u8]) {
    put(out, major, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends what stands before the entries of a segment to `out`.
pub fn write_head(out: &mut Vec<u8>, head: &Head) {
    put(out, ARRAY, 3);
    put(out, UNSIGNED, head.incarnation);
    put(out, UNSIGNED, head.first);
    put(out, ARRAY, head.count);
}

/// What a segment holds: uplinks `first .. first + count` of one incarnation of a gateway's spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Random number made when the spool was created.
    pub incarnation: u64,
    /// Number of the first uplink, from 1.
    pub first: u64,
    /// How many uplinks it holds.
    pub count: u64,
}

impl Head {
    /// Number after the last uplink.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// A segment that has been read: every entry has the right shape. Payloads are opaque.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// Which uplinks it holds.
    pub head: Head,
    bytes: &'a [u8],
    entries_start: usize,
}

impl<'a> Segment<'a> {
    /// Reads and checks it; payloads are not looked into.
    ///
    /// # Errors
    /// [`Malformed`] says what the contract does not allow and where.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > SEGMENT_LEN_MAX {
            return Err(Malformed { at: SEGMENT_LEN_MAX, what: What::TooLong { len_max: SEGMENT_LEN_MAX } });
        }
        let mut r = Reader::new(bytes);
        let mut items = r.array("a segment: an array")?;
        r.must_have(&mut items, "incarnation")?;
        let incarnation = r.u64("incarnation: an unsigned integer")?;
        r.must_have(&mut items, "first")?;
        let at = r.position();
        let first = r.u64("first: an unsigned integer")?;
        if first == 0 {
            return Err(Malformed { at, what: What::Expected("first: 1 or more") });
        }
        r.must_have(&mut items, "uplinks")?;
        let entries_start = r.position();
        let mut entries = r.array("uplinks: an array")?;
        let mut count: u64 = 0;
        while r.more(&mut entries)? {
            read_entry(&mut r)?;
            count += 1;
        }
        if count == 0 {
            return r.refuse(What::Missing("an uplink"));
        }
        if first.checked_add(count).is_none() {
            return Err(Malformed { at, what: What::Expected("first: numbers that end below 2^64") });
        }
        r.skip_rest(&mut items)?;
        r.end()?;
        Ok(Self { head: Head { incarnation, first, count }, bytes, entries_start })
    }

    /// Its entries in order; the number of the k-th is `head.first + k`.
    pub fn entries(&self) -> Entries<'a> {
        let mut reader = Reader::at(self.bytes, self.entries_start);
        let items = reader.array("uplinks").ok();
        Entries { reader, items }
    }
}

/// The entries of a [`Segment`].
pub struct Entries<'a> {
    reader: Reader<'a>,
    items: Option<Items>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        // All of it has been read once without error; were that ever untrue, iteration would end, not panic.
        let items = self.items.as_mut()?;
        if !self.reader.more(items).ok()? {
            return None;
        }
        read_entry(&mut self.reader).ok()
    }
}

/// The entry that `bytes`, a row of entries, begins with, and its length.
///
/// # Errors
/// [`Malformed`] if it does not begin with an entry.
pub fn first_entry(bytes: &[u8]) -> Result<(Entry<'_>, usize), Malformed> {
    let mut r = Reader::new(bytes);
    let entry = read_entry(&mut r)?;
    Ok((entry, r.position()))
}

fn read_entry<'a>(r: &mut Reader<'a>) -> Result<Entry<'a>, Malformed> {
    let mut items = r.array("an uplink: an array")?;
    r.must_have(&mut items, "device")?;
    let device = r.name("device: 1 to 32 of A-Z a-z 0-9 _ -")?;
    r.must_have(&mut items, "received")?;
    let received_ms = r.u64("received: an unsigned integer")?;
    r.must_have(&mut items, "traceparent")?;
    let traceparent = if r.null()? { None } else { Some(r.bytes("traceparent: bytes")?) };
    r.must_have(&mut items, "payload")?;
    let payload = r.bytes("payload: bytes")?;
    r.skip_rest(&mut items)?;
    Ok(Entry { device, received_ms, traceparent, payload })
}

impl<'a> Reader<'a> {
    /// Bytes in one piece, or joined from chunks.
    fn bytes(&mut self, expected: &'static str) -> Result<Cow<'a, [u8]>, Malformed> {
        match self.joined_bytes()? {
            Some(joined) => Ok(Cow::Owned(joined)),
            None => self.whole_bytes(expected).map(Cow::Borrowed),
        }
    }
}
