//! How many connections come from one address: nobody takes all there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::logins::Source;

/// Connections by where they come from.
#[derive(Debug)]
pub(super) struct Crowd {
    allowed: u64,
    counts: Mutex<HashMap<Source, u64>>,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    source: Source,
}

impl Crowd {
    pub fn new(allowed: u64) -> Arc<Self> {
        Arc::new(Crowd { allowed, counts: Mutex::default() })
    }

    /// A place for one more from there, if it may be.
    pub fn enter(self: &Arc<Self>, source: Source) -> Option<Seat> {
        let mut counts = self.counts();
        let count = counts.entry(source).or_default();
        if *count >= self.allowed {
            return None;
        }
        *count += 1;
        Some(Seat { crowd: Arc::clone(self), source })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Source, u64>> {
        self.counts.lock().expect("nothing panics while it holds the lock")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}
