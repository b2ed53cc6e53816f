//! The one place that reads the wall clock, and that knows whether it can be right.
//!
//! A gateway may have no battery for its clock: it begins in 1970, or where it was last stopped, until somebody on the network
//! tells it the time. Until then it takes uplinks as ever, but tells no device what time it is. [`Steps`] finds out when the
//! clock was set, by the clock that only ever goes forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::journal::{self, Entry};

/// 2026-11-01T00:00:00Z. No gateway of this version ran before that: a clock that says so is not set.
pub const NOT_BEFORE_MS: u64 = 1_793_491_200_000;
/// Clocks that part by more have not drifted: one was set.
const STEP_MS: u64 = 500;
/// How often they are compared.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells the wall time. Cheap to clone; a clone of a manual clock is the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    manual: Option<Arc<AtomicU64>>,
    set: Arc<watch::Sender<u64>>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Clock { manual: None, set: Arc::new(watch::Sender::new(0)) }
    }

    /// A clock that stands at `unix_ms` until [`Clock::set`].
    #[must_use]
    pub fn manual(unix_ms: u64) -> Self {
        Clock { manual: Some(Arc::new(AtomicU64::new(unix_ms))), ..Clock::system() }
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn set(&self, unix_ms: u64) {
        if let Some(manual) = &self.manual {
            manual.store(unix_ms, Ordering::Relaxed);
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, as far as the machine knows; 0 on one whose clock stands before that.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        if let Some(manual) = &self.manual {
            return manual.load(Ordering::Relaxed);
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The same, if it can be right: for those who would believe it.
    #[must_use]
    pub fn known_unix_ms(&self) -> Option<u64> {
        Some(self.unix_ms()).filter(|unix_ms| *unix_ms >= NOT_BEFORE_MS)
    }

    /// How often the clock has been set since the start.
    #[must_use]
    pub fn steps(&self) -> u64 {
        *self.set.borrow()
    }

    /// Resolves when the clock has been set more often than that.
    pub async fn stepped(&self, steps: u64) {
        let mut set = self.set.subscribe();
        // It cannot fail: the sender is in `self`.
        let _ = set.wait_for(|now| *now > steps).await;
    }

    /// Looks again and again whether the clock was set, and tells the log, the journal and [`Self::steps`].
    pub async fn watch(self, journal: journal::Sender) {
        let mut steps = Steps::new(self.unix_ms(), Instant::now());
        if self.known_unix_ms().is_none() {
            tracing::warn!(
                unix_ms = self.unix_ms(),
                "the clock is not set: no device is told the time until it is, and times of receipt are of no use"
            );
        }
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(by_ms) = steps.look(self.unix_ms(), Instant::now()) {
                tracing::warn!(by_ms, known = self.known_unix_ms().is_some(), "the clock was set");
                journal.send(Entry::ClockStepped { by_ms });
                self.set.send_modify(|steps| *steps += 1);
            }
        }
    }
}

/// Finds steps of the wall clock. Pure: both clocks go in.
#[derive(Debug)]
struct Steps {
    unix_ms: u64,
    at: Instant,
}

impl Steps {
    fn new(unix_ms: u64, at: Instant) -> Self {
        Steps { unix_ms, at }
    }

    /// By how much the wall clock was set since the last look, if it was. What is less is drift, and is not added up: an hour of
    /// it is no step.
    fn look(&mut self, unix_ms: u64, at: Instant) -> Option<i64> {
        let passed_ms = u64::try_from(at.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let expected_ms = self.unix_ms.saturating_add(passed_ms);
        *self = Steps { unix_ms, at };
        let by_ms = i128::from(unix_ms) - i128::from(expected_ms);
        let by_ms = i64::try_from(by_ms).unwrap_or(if by_ms < 0 { i64::MIN } else { i64::MAX });
        (by_ms.unsigned_abs() > STEP_MS).then_some(by_ms)
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

    #[test]
    fn a_clock_that_is_not_set_is_not_believed() {
        let clock = Clock::manual(60_000);
        assert_eq!(clock.known_unix_ms(), None);
        clock.set(NOT_BEFORE_MS);
        assert_eq!(clock.known_unix_ms(), Some(NOT_BEFORE_MS));
    }

    #[test]
    fn steps_are_told_apart_from_drift() {
        let begin = Instant::now();
        let mut steps = Steps::new(60_000, begin);
        let after = |ms| begin + Duration::from_millis(ms);
        // A clock that gains 1 % is a bad one, and not set.
        for second in 1..1000 {
            assert_eq!(steps.look(60_000 + second * 1010, after(second * 1000)), None);
        }
        let mut steps = Steps::new(60_000, begin);
        assert_eq!(steps.look(NOT_BEFORE_MS, after(1000)), i64::try_from(NOT_BEFORE_MS - 61_000).ok());
        assert_eq!(steps.look(NOT_BEFORE_MS + 5_000, after(6_000)), None, "it was late, not set");
        assert_eq!(steps.look(NOT_BEFORE_MS + 4_000, after(7_000)), Some(-2_000));
        assert_eq!(steps.look(u64::MAX, after(8_000)), Some(i64::MAX));
    }
}
