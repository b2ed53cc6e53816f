//! The one place of this package that reads the wall clock. Everything else is given `now`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z; 0 if the machine's clock stands before that.
#[expect(clippy::disallowed_methods, reason = "this is the module the ban points to")]
pub fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
