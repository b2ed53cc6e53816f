//! What the API counts, for Prometheus.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::types::Status;

/// A request was answered.
pub fn answered(route: &'static str, status: u16, took: Duration) {
    counter!("weir_cloud_requests_total", "route" => route, "status" => status.to_string()).increment(1);
    histogram!("weir_cloud_request_seconds", "route" => route).record(took.as_secs_f64());
}

/// What is read from the service's status whenever metrics are asked for.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn measured(status: &Status) {
    gauge!("weir_cloud_stream_sequence").set(status.position.stream_sequence as f64);
    // Not a number rather than the number of a better time: nobody shall take an outage for being up to date.
    let lag_messages = status.position.lag_messages.map_or(f64::NAN, |messages| messages as f64);
    gauge!("weir_cloud_lag_messages").set(lag_messages);
    gauge!("weir_cloud_lag_seconds").set(status.position.lag_seconds.unwrap_or(f64::NAN));
    if let Some(connected) = status.nats.connected {
        gauge!("weir_cloud_nats_connected").set(f64::from(connected));
    }
    gauge!("weir_cloud_devices").set(status.store.devices as f64);
    gauge!("weir_cloud_stored_events").set(status.store.events as f64);
    gauge!("weir_cloud_stored_duplicates").set(status.store.duplicates as f64);
    gauge!("weir_cloud_dead_letters").set(status.store.dead_letters as f64);
    gauge!("weir_cloud_store_bytes").set(status.store.file_bytes as f64);
    let missing: u64 = status.store.gateways.iter().map(|gateway| gateway.missing_count).sum();
    gauge!("weir_cloud_missing_uplinks").set(missing as f64);
}

/// Explains every metric to Prometheus.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("weir_cloud_requests_total", "Requests answered, by route and status");
    describe_histogram!("weir_cloud_request_seconds", "Time from a request's head to its answer's, by route");
    describe_gauge!("weir_cloud_stream_sequence", "Stream sequence of the last message folded");
    describe_gauge!(
        "weir_cloud_lag_messages",
        "Messages in the log that are not folded yet; NaN while the log is not read"
    );
    describe_gauge!(
        "weir_cloud_lag_seconds",
        "Age of the last message folded while others wait, else 0; NaN while the log is not read"
    );
    describe_gauge!("weir_cloud_nats_connected", "1 while the connection to NATS stands");
    describe_gauge!("weir_cloud_devices", "Devices known of");
    describe_gauge!("weir_cloud_stored_events", "Events in history");
    describe_gauge!("weir_cloud_stored_duplicates", "Events that arrived again and were dropped");
    describe_gauge!("weir_cloud_dead_letters", "Dead letters kept");
    describe_gauge!("weir_cloud_store_bytes", "Size of the database");
    describe_gauge!(
        "weir_cloud_missing_uplinks",
        "Uplinks of gateways that have not arrived although later ones have"
    );
}
