//! How long delivered epochs stay: within a budget, for a time, and only while there is room.
//!
//! The time is counted from when this process knew an epoch to be delivered, by a clock that nobody sets. So it is never
//! shorter than configured; after a start it begins anew.

use std::time::{Duration, Instant};

use super::{Known, Spool, State};

impl State {
    /// How many of the oldest epochs are wholly delivered: those after which the next one begins no later than what is not.
    /// So the newest never is.
    fn delivered_epochs(&self) -> usize {
        self.epochs.partition_point(|epoch| epoch.first <= self.delivered.number).saturating_sub(1)
    }

    /// Notes which epochs are delivered now, and which are not any more. To be called when `delivered` has changed.
    pub(super) fn note_delivered(&mut self, now: Instant) {
        let delivered = self.delivered_epochs();
        for (at, epoch) in self.epochs.iter_mut().enumerate() {
            epoch.delivered_at = if at < delivered { epoch.delivered_at.or(Some(now)) } else { None };
        }
    }
}

impl Spool {
    /// The oldest epoch, if it is to go.
    pub(super) fn deletable(&self) -> Option<u64> {
        self.deletable_in(&self.state())
    }

    pub(super) fn deletable_in(&self, state: &State) -> Option<u64> {
        let kept_bytes: u64 = state.epochs.iter().take(state.delivered_epochs()).map(Known::cost_bytes).sum();
        let crowded = kept_bytes > 0 && (self.is_crowded(state) || state.disk.trouble.is_some());
        let over = self.kept_for(state) == Some(Duration::ZERO);
        let too_much = kept_bytes > self.config.keep_delivered_bytes || crowded || over;
        state.epochs.front().filter(|_| too_much).map(|epoch| epoch.first)
    }

    /// How long the oldest delivered epoch still has; `None` if there is none, or no time is set.
    pub(super) fn kept_for(&self, state: &State) -> Option<Duration> {
        let keep = Duration::from_secs(self.config.keep_delivered_s);
        let delivered_at = state.epochs.front()?.delivered_at?;
        (!keep.is_zero()).then(|| keep.saturating_sub(delivered_at.elapsed()))
    }
}
