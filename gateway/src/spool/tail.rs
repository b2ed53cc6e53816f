//! The newest records, in memory, for an uplink that keeps up: no epoch is read for them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::Record;

/// The most bytes of entries held (the newest record is always held).
pub(super) const TAIL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A row of consecutive records.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl Tail {
    /// Adds the newest record and lets go of the oldest.
    pub fn push(&mut self, record: Record) {
        if self.records.back().is_some_and(|last| last.end() != record.first) {
            self.records.clear();
            self.bytes = 0;
        }
        self.bytes += record.entries.len();
        self.records.push_back(Arc::new(record));
        while self.bytes > TAIL_BYTES_MAX && self.records.len() > 1 {
            self.bytes -= self.records.pop_front().map_or(0, |oldest| oldest.entries.len());
        }
    }

    /// Those that hold `number` or greater ones, as far as they are here.
    pub fn newest(&self, number: u64) -> Vec<Arc<Record>> {
        let start = self.records.partition_point(|record| record.end() <= number);
        self.records.range(start..).cloned().collect()
    }

    /// Records from the one that holds `number` on, until `bytes_max` is passed; `None` if that is not here (any more).
    pub fn read(&self, number: u64, bytes_max: usize) -> Option<Vec<Arc<Record>>> {
        if number < self.records.front()?.first {
            return None;
        }
        let start = self.records.partition_point(|record| record.end() <= number);
        let mut bytes = 0;
        let within = |record: &&Arc<Record>| {
            let wanted = bytes < bytes_max || bytes == 0;
            bytes += record.entries.len();
            wanted
        };
        Some(self.records.range(start..).take_while(within).cloned().collect())
    }
}
