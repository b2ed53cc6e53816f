//! The one place that reads the wall clock. Everything else is given a [`Clock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the wall time. Cheap to clone; a clone of a manual clock is the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Clock(None)
    }

    /// A clock that stands at `unix_ms` until [`Clock::set`].
    #[must_use]
    pub fn manual(unix_ms: u64) -> Self {
        Clock(Some(Arc::new(AtomicU64::new(unix_ms))))
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn set(&self, unix_ms: u64) {
        if let Some(manual) = &self.0 {
            manual.store(unix_ms, Ordering::Relaxed);
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; 0 on a machine whose clock stands before that.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        if let Some(manual) = &self.0 {
            return manual.load(Ordering::Relaxed);
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_and_its_clones_follow() {
        let clock = Clock::manual(5);
        let clone = clock.clone();
        clock.set(7);
        assert_eq!((clock.unix_ms(), clone.unix_ms()), (7, 7));
    }

    #[test]
    fn the_machines_clock_is_past_2020() {
        assert!(Clock::system().unix_ms() > 1_577_836_800_000);
    }
}
