//! Waiting for conditions, with a deadline.

use std::time::{Duration, Instant};

/// Long enough for a slow machine that runs everything at once.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
