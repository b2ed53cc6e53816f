//! What is gathered for the next commit: uplinks, as the records they will be.

use weir_contract::Id;

use super::Taken;
use crate::spool::Draft;

/// The most bytes of entries gathered for one commit.
pub(super) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many records' buffers are kept between commits.
const DRAFTS_KEPT: usize = 4;

/// Uplinks for one commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The first `used` have uplinks, the others are buffers for more.
    drafts: Vec<Draft>,
    used: usize,
    len: usize,
    taken: Taken,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether an entry of `len` bytes may be added.
    pub fn has_room(&self, len: usize) -> bool {
        self.len + len <= BATCH_BYTES_MAX
    }

    /// What is in it.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// Adds an uplink of so many events whose entry has `len` bytes.
    pub fn push(
        &mut self,
        device: &Id,
        received_ms: u64,
        traceparent: Option<&[u8]>,
        payload: &[u8],
        (events, len): (u64, usize),
    ) {
        if self.used == 0 || !self.drafts[self.used - 1].has_room(len) {
            if self.used == self.drafts.len() {
                self.drafts.push(Draft::default());
            }
            self.used += 1;
        }
        self.drafts[self.used - 1].push(device, received_ms, traceparent, payload);
        self.len += len;
        self.taken += Taken { uplinks: 1, events, bytes: payload.len() as u64 };
    }

    /// The records, in order.
    pub fn drafts(&mut self) -> &mut [Draft] {
        &mut self.drafts[..self.used]
    }

    /// Empties it for the next commit.
    pub fn clear(&mut self) {
        self.drafts.truncate(DRAFTS_KEPT);
        self.drafts.iter_mut().for_each(Draft::clear);
        (self.used, self.len, self.taken) = (0, 0, Taken::default());
    }
}
