//! What is gathered for the next commit: entries one after the other, cut into records.

use weir_contract::Id;
use weir_contract::segment::{entry_len, write_entry};

use crate::spool::{NewRecord, RECORD_BYTES_MAX};

/// The most bytes of entries gathered for one commit.
pub(super) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Buffers that grew beyond this are not kept between commits.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// Uplinks for one commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<u8>,
    records: Vec<Cut>,
}

/// A record within the batch; it begins where the one before ends.
#[derive(Debug)]
struct Cut {
    count: u32,
    received_ms: u64,
    start: usize,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether an entry of `len` bytes may be added.
    pub fn has_room(&self, len: usize) -> bool {
        self.entries.len() + len <= BATCH_BYTES_MAX
    }

    pub fn push(
        &mut self,
        device: &Id,
        received_ms: u64,
        traceparent: Option<&[u8]>,
        payload: &[u8],
        len: usize,
    ) {
        debug_assert_eq!(len, entry_len(device, received_ms, traceparent, payload));
        let start = self.entries.len();
        write_entry(&mut self.entries, device, received_ms, traceparent, payload);
        match self.records.last_mut() {
            Some(record) if start + len - record.start <= RECORD_BYTES_MAX => record.count += 1,
            _ => self.records.push(Cut { count: 1, received_ms, start }),
        }
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = NewRecord<'_>> {
        let ends = self.records.iter().skip(1).map(|next| next.start).chain([self.entries.len()]);
        self.records.iter().zip(ends).map(|(cut, end)| NewRecord {
            count: cut.count,
            received_ms: cut.received_ms,
            entries: &self.entries[cut.start..end],
        })
    }

    /// Empties it for the next commit, keeping a modest buffer.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(BUFFER_BYTES_KEPT);
        self.records.clear();
    }
}
