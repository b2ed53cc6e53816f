//! How much may still be stored, and if nothing, why not. Pure.

use std::time::Duration;

use serde::Serialize;

/// Kept free for a new epoch's first bytes and for the small files.
const RESERVE_BYTES: u64 = 1024 * 1024;
/// With less, an uplink of any size does not fit: the spool is full.
const FULL_BELOW_BYTES: u64 = 96 * 1024;
/// With as much, a spool that was full is not any more: it is not told at every uplink.
const ROOMY_FROM_BYTES: u64 = 1024 * 1024;

/// Why nothing more can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Full {
    /// `bytes_max` is reached.
    BytesMax,
    /// The file system has no more than `free_min`.
    FreeMin,
    /// The disk does not take what is written.
    Disk,
}

impl Full {
    /// All of them.
    pub const ALL: [Full; 3] = [Full::BytesMax, Full::FreeMin, Full::Disk];

    /// The word for it in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Full::BytesMax => "bytes-max",
            Full::FreeMin => "free-min",
            Full::Disk => "disk",
        }
    }
}

/// What there is, and what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ground {
    /// What the epochs have on disk.
    pub used_bytes: u64,
    /// The most they may have.
    pub bytes_max: u64,
    /// What is free on the file system, for those who are not its administrator; `None` if it does not say.
    pub free_bytes: Option<u64>,
    /// What is to stay free there.
    pub free_min: u64,
    /// What waits to be written is more than that.
    pub short: bool,
    /// The last commit failed for want of a disk that writes.
    pub held: bool,
}

/// What may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub bytes: u64,
    /// What bounds it.
    pub bound: Full,
}

impl Ground {
    /// What may still be stored.
    pub fn room(&self) -> Room {
        let budget = self.bytes_max.saturating_sub(self.used_bytes.saturating_add(RESERVE_BYTES));
        let disk = self.disk_bytes();
        match () {
            () if self.held => Room { bytes: 0, bound: Full::Disk },
            () if self.short => Room { bytes: 0, bound: Full::FreeMin },
            () if disk < budget => Room { bytes: disk, bound: Full::FreeMin },
            () => Room { bytes: budget, bound: Full::BytesMax },
        }
    }

    /// Whether less than that may be stored, now that nothing is held back.
    pub fn lacks(&self, bytes: u64) -> bool {
        self.used_bytes.saturating_add(bytes) > self.bytes_max || self.disk_bytes() < bytes
    }

    /// Without an epoch that is counted with `cost_bytes`, and has `bytes` on the disk.
    pub fn without(&self, cost_bytes: u64, bytes: u64) -> Ground {
        Ground {
            used_bytes: self.used_bytes.saturating_sub(cost_bytes),
            free_bytes: self.free_bytes.map(|free| free.saturating_add(bytes)),
            ..*self
        }
    }

    /// What the disk has beyond what is to stay free.
    pub fn disk_bytes(&self) -> u64 {
        let free =
            self.free_bytes.map(|free| free.saturating_sub(self.free_min.saturating_add(RESERVE_BYTES)));
        free.unwrap_or(u64::MAX)
    }
}

/// Whether the spool counts as full after this, given whether it did before.
pub(super) fn full(before: Option<Full>, room: Room) -> Option<Full> {
    let enough = if before.is_some() { ROOMY_FROM_BYTES } else { FULL_BELOW_BYTES };
    (room.bytes < enough).then_some(room.bound)
}

/// How long to wait before a disk that failed is tried again: twice as long each time, up to a limit.
#[derive(Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(250);
    const MOST: Duration = Duration::from_secs(10);

    /// It failed once more: the time to wait.
    pub fn failed(&mut self) -> Duration {
        let wait = Self::FIRST.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        wait.min(Self::MOST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const WELL: Ground = Ground {
        used_bytes: 0,
        bytes_max: 100 * MIB,
        free_bytes: Some(500 * MIB),
        free_min: 64 * MIB,
        short: false,
        held: false,
    };

    #[test]
    fn the_nearer_of_budget_and_floor_bounds_what_is_stored() {
        assert_eq!(WELL.room(), Room { bytes: 99 * MIB, bound: Full::BytesMax });
        let low = Ground { free_bytes: Some(70 * MIB), ..WELL };
        assert_eq!(low.room(), Room { bytes: 5 * MIB, bound: Full::FreeMin });
        let below = Ground { free_bytes: Some(63 * MIB), ..WELL };
        assert_eq!(below.room(), Room { bytes: 0, bound: Full::FreeMin });
        let silent = Ground { free_bytes: None, ..WELL };
        assert_eq!(silent.room().bound, Full::BytesMax, "a file system that does not say has no floor");
        assert_eq!(Ground { held: true, ..WELL }.room(), Room { bytes: 0, bound: Full::Disk });
        assert_eq!(Ground { short: true, ..WELL }.room(), Room { bytes: 0, bound: Full::FreeMin });
    }

    #[test]
    fn what_is_full_stays_so_until_there_is_room_worth_telling() {
        let room = |bytes| Room { bytes, bound: Full::FreeMin };
        assert_eq!(full(None, room(200 * 1024)), None);
        assert_eq!(full(None, room(1000)), Some(Full::FreeMin));
        assert_eq!(full(Some(Full::FreeMin), room(200 * 1024)), Some(Full::FreeMin));
        assert_eq!(full(Some(Full::FreeMin), room(MIB)), None);
    }

    #[test]
    fn a_failing_disk_is_tried_ever_more_rarely_and_for_ever() {
        let mut patience = Patience::default();
        let waits: Vec<_> = (0..50).map(|_| patience.failed()).collect();
        assert!(waits.is_sorted() && waits[0] < Duration::from_secs(1) && waits[49] == Patience::MOST);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn storing_what_there_is_room_for_breaks_neither_limit(
            used_bytes: u64, bytes_max: u64, free in proptest::option::of(any::<u64>()), free_min: u64,
        ) {
            let ground = Ground { used_bytes, bytes_max, free_bytes: free, free_min, ..WELL };
            let room = ground.room().bytes;
            if room > 0 {
                prop_assert!(used_bytes + room < bytes_max);
                prop_assert!(free.is_none_or(|free| free - room > free_min));
            }
        }
    }
}
