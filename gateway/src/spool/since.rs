//! Numbers by time.

use super::{Error, Spool};

impl Spool {
    /// The first number that was taken at `unix_ms` or later, as far as it is kept; the next number if there is none. A clock
    /// that was set meanwhile makes it an estimate. Reads the disk: blocks.
    ///
    /// # Errors
    /// Reading failed.
    pub fn number_taken_at(&self, unix_ms: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (self.oldest_number(), self.next_number());
        while low < high {
            let middle = low + (high - low) / 2;
            let taken_ms = match self.read_from(middle, 1) {
                Ok(records) => {
                    records.first().and_then(|record| record.part_from(middle)).map(|part| part.received_ms)
                }
                // Nothing is known of damage; what follows it is to be looked at.
                Err(Error::Missing { to, .. }) if to < high => {
                    low = to;
                    continue;
                }
                Err(Error::Missing { .. }) => None,
                Err(error) => return Err(error),
            };
            match taken_ms {
                Some(taken_ms) if taken_ms < unix_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}
