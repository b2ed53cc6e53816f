//! What the projection tells about itself, as metrics.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::store::Folded;

/// A transaction is committed.
pub fn folded(folded: &Folded, took: Duration) {
    counter!("weir_cloud_messages_folded_total").increment(folded.messages);
    counter!("weir_cloud_uplinks_folded_total").increment(folded.uplinks);
    counter!("weir_cloud_events_folded_total").increment(folded.events);
    counter!("weir_cloud_events_duplicate_total").increment(folded.duplicates);
    counter!("weir_cloud_dead_letters_total").increment(folded.dead_letters);
    histogram!("weir_cloud_transaction_seconds").record(took);
}

/// How many messages of the log are not folded yet.
pub fn lag(messages: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact beyond 2^53")]
    gauge!("weir_cloud_lag_messages").set(messages as f64);
}

/// The log is being read.
pub fn reading() {
    gauge!("weir_cloud_reading").set(1.0);
    counter!("weir_cloud_readings_total").increment(1);
}

/// The log is not being read.
pub fn not_reading() {
    gauge!("weir_cloud_reading").set(0.0);
}
