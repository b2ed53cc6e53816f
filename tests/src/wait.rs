//! Waiting for a condition, never for a time: every wait has a deadline and says what it was waiting for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until `condition` gives a value; fails after `within`, telling `what` was awaited and the last reason
/// the condition gave for not being met.
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(error) => format!(" (last: {error:#})"),
        };
        if Instant::now() >= deadline {
            bail!("waited {:.1} s in vain for {what}{last}", within.as_secs_f64());
        }
        pause(LOOK_EVERY);
    }
}

/// Lets time pass where time itself is what a scenario is made of: an outage of so many seconds, a rate.
#[expect(clippy::disallowed_methods, reason = "the one place in this package that sleeps")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
