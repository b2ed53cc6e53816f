//! Metrics: one typed function per fact, so that names and labels are in this file and nowhere else.
//!
//! Handles are made once; a fact costs an atomic addition. Before [`install`] every function does nothing.

pub mod source;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
};
use metrics::{gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::spool::Full;
use crate::wear;

static FACTS: OnceLock<Facts> = OnceLock::new();

/// Seconds; from an NVMe disk's fdatasync to a bad SD card's, from loopback to a satellite.
const SECONDS_BUCKETS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The exporter keeps every sample of a histogram until somebody asks; nobody may ever ask.
const SAMPLES_KEPT_MAX: u32 = 4096;

struct Facts {
    exporter: PrometheusHandle,
    samples: AtomicU32,
    uplinks_taken: Counter,
    uplink_bytes_taken: Counter,
    events_taken: Counter,
    uplinks_repeated: Counter,
    commits: Histogram,
    syncs: Histogram,
    connections: Gauge,
    connections_accepted: Counter,
    local_subscriptions: Gauge,
    local_dropped: Counter,
    segments: Counter,
    segment_uplinks: Counter,
    segment_bytes_raw: Counter,
    segment_bytes_sent: Counter,
    segment_round_trips: Histogram,
    delivered_number: Gauge,
    uplinks_ahead: Counter,
    uplinks_ahead_left_out: Counter,
    uplinks_gone: Counter,
    spool_lost: Gauge,
    spool_aside: Gauge,
    journal_lost: Counter,
    spool_bytes: Gauge,
    spool_backlog: Gauge,
    spool_oldest: Gauge,
    custody_failed: Gauge,
    commits_failed: Counter,
    uplinks_given_up: Counter,
    events_given_up: Counter,
    disk_free: Gauge,
    commands_taken: Counter,
    commands_sent: Counter,
    commands_pending: Gauge,
}

/// Starts counting. A second call (several gateways in one test process) has no effect.
///
/// # Errors
/// The process has another recorder already, or the exporter cannot be built.
pub fn install() -> Result<(), BuildError> {
    if FACTS.get().is_some() {
        return Ok(());
    }
    let exporter = PrometheusBuilder::new().set_buckets(&SECONDS_BUCKETS)?.install_recorder();
    match exporter {
        Ok(exporter) => {
            FACTS.get_or_init(|| Facts::new(exporter));
            Ok(())
        }
        // Another thread was first.
        Err(_) if FACTS.get().is_some() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Everything, in Prometheus' text format; empty before [`install`].
#[must_use]
pub fn render() -> String {
    FACTS.get().map(|facts| facts.exporter.render()).unwrap_or_default()
}

/// Uplinks were stored, with so many events.
pub fn uplinks_taken(count: u64, events: u64, bytes: u64) {
    with(|facts| {
        facts.uplinks_taken.increment(count);
        facts.events_taken.increment(events);
        facts.uplink_bytes_taken.increment(bytes);
    });
}

/// Uplinks came that are in custody already; they are acknowledged and not stored again.
pub fn uplinks_repeated(count: u64) {
    with(|facts| facts.uplinks_repeated.increment(count));
}

/// A publish on an events topic was no uplink. `reason` is one of a few fixed words.
pub fn uplink_refused(reason: &'static str) {
    with(|_| counter!("weir_gateway_uplinks_refused_total", "reason" => reason).increment(1));
}

/// A group commit is on disk: from the first uplink gathered to the last wake.
pub fn committed(took: Duration) {
    sample(|facts| facts.commits.record(took));
}

/// fdatasync returned.
pub fn synced(took: Duration) {
    sample(|facts| facts.syncs.record(took));
}

/// The commit failed for good: nothing is acknowledged any more.
pub fn custody_failed() {
    with(|facts| facts.custody_failed.set(1.0));
}

/// A commit failed; it is tried again.
pub fn commit_failed() {
    with(|facts| facts.commits_failed.increment(1));
}

/// A full spool has given up its oldest uplinks, with so many events.
pub fn given_up(uplinks: u64, events: u64) {
    with(|facts| {
        facts.uplinks_given_up.increment(uplinks);
        facts.events_given_up.increment(events);
    });
}

/// How the flash under the spool wears out. What is not known has no value.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
pub fn wear(wear: &wear::Status) {
    with(|_| {
        if let Some(bytes) = wear.written_bytes {
            counter!("weir_gateway_disk_written_bytes_total").absolute(bytes);
        }
        if let Some(bytes) = wear.disk_written_bytes {
            counter!("weir_gateway_disk_device_written_bytes_total").absolute(bytes);
        }
        if let Some(bytes) = wear.bytes_per_event {
            gauge!("weir_gateway_disk_written_bytes_per_event").set(bytes);
        }
        if let Some(bytes) = wear.disk_bytes_per_day {
            gauge!("weir_gateway_disk_device_written_bytes_per_day").set(bytes as f64);
        }
        if let Some(days) = wear.lasts_days {
            gauge!("weir_gateway_disk_device_lasts_days").set(days as f64);
        }
    });
}

/// The spool is full for this reason, or is not any more.
pub fn spool_full(why: Option<Full>) {
    with(|_| {
        for reason in Full::ALL {
            let is = if why == Some(reason) { 1.0 } else { 0.0 };
            gauge!("weir_gateway_spool_full", "reason" => reason.as_str()).set(is);
        }
    });
}

/// A connection was accepted by CONNACK.
pub fn connection_opened() {
    with(|facts| {
        facts.connections.increment(1.0);
        facts.connections_accepted.increment(1);
    });
}

/// An accepted connection ended.
pub fn connection_closed() {
    with(|facts| facts.connections.decrement(1.0));
}

/// A connection was refused or cut. `reason` is one of a few fixed words.
pub fn connection_refused(reason: &'static str) {
    with(|_| counter!("weir_gateway_connections_refused_total", "reason" => reason).increment(1));
}

/// How many subscriptions local subscribers have.
pub fn local_subscriptions(count: usize) {
    with(|facts| facts.local_subscriptions.set(count as f64));
}

/// So many messages were forgotten before a local subscriber took them.
pub fn local_dropped(count: u64) {
    if count > 0 {
        with(|facts| facts.local_dropped.increment(count));
    }
}

/// JetStream acknowledged a segment.
pub fn segment_delivered(uplinks: u64, bytes_raw: usize, bytes_sent: usize, round_trip: Duration) {
    sample(|facts| {
        facts.segments.increment(1);
        facts.segment_uplinks.increment(uplinks);
        facts.segment_bytes_raw.increment(bytes_raw as u64);
        facts.segment_bytes_sent.increment(bytes_sent as u64);
        facts.segment_round_trips.record(round_trip);
    });
}

/// Copies of new uplinks have gone ahead of the backlog; others found no room there.
pub fn uplinks_ahead(copied: u64, left_out: u64) {
    with(|facts| {
        facts.uplinks_ahead.increment(copied);
        facts.uplinks_ahead_left_out.increment(left_out);
    });
}

/// Everything up to here, exclusive, is in the stream.
pub fn delivered_number(number: u64) {
    with(|facts| facts.delivered_number.set(number as f64));
}

/// The uplink is in this state, and in none of the `others`.
pub fn uplink_state(state: &'static str, others: &[&'static str]) {
    with(|_| {
        for other in others {
            gauge!("weir_gateway_uplink_state", "state" => *other).set(0.0);
        }
        gauge!("weir_gateway_uplink_state", "state" => state).set(1.0);
    });
}

/// A publish or a look at the stream failed. `reason` is one of a few fixed words.
pub fn uplink_failed(reason: &'static str) {
    with(|_| counter!("weir_gateway_uplink_failures_total", "reason" => reason).increment(1));
}

/// Why nothing is delivered at the moment, in one of a few fixed words; `None` if there is no trouble.
pub fn uplink_trouble(reason: Option<&'static str>) {
    static LAST: Mutex<Option<&str>> = Mutex::new(None);
    with(|_| {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = std::mem::replace(&mut *last, reason) {
            gauge!("weir_gateway_uplink_trouble", "reason" => last).set(0.0);
        }
        if let Some(reason) = reason {
            gauge!("weir_gateway_uplink_trouble", "reason" => reason).set(1.0);
        }
    });
}

/// Uplinks the stream had acknowledged are gone from it and from the spool.
pub fn uplinks_gone(count: u64) {
    with(|facts| facts.uplinks_gone.increment(count));
}

/// What is noted as lost by damage, and how many damaged epochs are set aside; set when somebody asks.
pub fn spool_damage(lost: u64, aside: usize) {
    with(|facts| {
        facts.spool_lost.set(lost as f64);
        facts.spool_aside.set(aside as f64);
    });
}

/// The gateway's own events that found no room.
pub fn journal_lost(count: u64) {
    with(|facts| facts.journal_lost.increment(count));
}

/// A command came from the stream and is on disk.
pub fn command_taken() {
    with(|facts| facts.commands_taken.increment(1));
}

/// A command came from the stream and was not taken. `reason` is one of a few fixed words.
pub fn command_refused(reason: &'static str) {
    with(|_| counter!("weir_gateway_commands_refused_total", "reason" => reason).increment(1));
}

/// A command was sent to a connected device, for the first time or again.
pub fn command_sent() {
    with(|facts| facts.commands_sent.increment(1));
}

/// A command is over. `outcome` is one of a few fixed words.
pub fn command_ended(outcome: &'static str) {
    with(|_| counter!("weir_gateway_commands_ended_total", "outcome" => outcome).increment(1));
}

/// How many commands wait for devices.
pub fn commands_pending(count: usize) {
    with(|facts| facts.commands_pending.set(count as f64));
}

/// What the spool holds; set when somebody asks.
pub fn spool(bytes: u64, backlog: u64, oldest: Option<Duration>, free_bytes: Option<u64>) {
    with(|facts| {
        if let Some(free_bytes) = free_bytes {
            facts.disk_free.set(free_bytes as f64);
        }
        facts.spool_bytes.set(bytes as f64);
        facts.spool_backlog.set(backlog as f64);
        facts.spool_oldest.set(oldest.map_or(0.0, |age| age.as_secs_f64()));
    });
}

fn with(tell: impl FnOnce(&Facts)) {
    if let Some(facts) = FACTS.get() {
        tell(facts);
    }
}

/// For facts with a histogram: has the exporter fold the samples into buckets every so many.
fn sample(tell: impl FnOnce(&Facts)) {
    with(|facts| {
        tell(facts);
        if facts.samples.fetch_add(1, Ordering::Relaxed) % SAMPLES_KEPT_MAX == SAMPLES_KEPT_MAX - 1 {
            facts.exporter.run_upkeep();
        }
    });
}

impl Facts {
    fn new(exporter: PrometheusHandle) -> Self {
        let count = |name: &'static str, unit: Unit, help: &'static str| {
            describe_counter!(name, unit, help);
            counter!(name)
        };
        let level = |name: &'static str, unit: Unit, help: &'static str| {
            describe_gauge!(name, unit, help);
            gauge!(name)
        };
        let seconds = |name: &'static str, help: &'static str| {
            describe_histogram!(name, Unit::Seconds, help);
            histogram!(name)
        };
        describe_counter!(
            "weir_gateway_uplinks_refused_total",
            Unit::Count,
            "Publishes on events topics that were no uplink"
        );
        describe_counter!(
            "weir_gateway_connections_refused_total",
            Unit::Count,
            "Connections refused or cut"
        );
        describe_counter!(
            "weir_gateway_uplink_failures_total",
            Unit::Count,
            "Publishes to JetStream and looks at it that failed"
        );
        describe_counter!(
            "weir_gateway_commands_refused_total",
            Unit::Count,
            "Commands from the stream that were not taken"
        );
        describe_counter!(
            "weir_gateway_commands_ended_total",
            Unit::Count,
            "Commands that devices have completed or failed, and those that expired"
        );
        describe_wear();
        describe_gauge!(
            "weir_gateway_spool_full",
            Unit::Count,
            "1 while the spool takes nothing for this reason"
        );
        source::describe();
        describe_gauge!("weir_gateway_uplink_state", Unit::Count, "1 for the state the uplink is in");
        Facts {
            exporter,
            samples: AtomicU32::new(0),
            uplinks_taken: count(
                "weir_gateway_uplinks_taken_total",
                Unit::Count,
                "Uplinks taken into custody",
            ),
            uplink_bytes_taken: count(
                "weir_gateway_uplinks_taken_bytes_total",
                Unit::Bytes,
                "Bytes of uplinks taken into custody",
            ),
            events_taken: count("weir_gateway_events_taken_total", Unit::Count, "Events of these uplinks"),
            uplinks_repeated: count(
                "weir_gateway_uplinks_repeated_total",
                Unit::Count,
                "Uplinks that were in custody already",
            ),
            commits: seconds(
                "weir_gateway_commit_seconds",
                "Group commits, from the first uplink gathered to the last wake",
            ),
            syncs: seconds("weir_gateway_fdatasync_seconds", "fdatasync of the spool"),
            connections: level("weir_gateway_connections", Unit::Count, "MQTT connections"),
            connections_accepted: count(
                "weir_gateway_connections_accepted_total",
                Unit::Count,
                "MQTT connections accepted",
            ),
            local_subscriptions: level(
                "weir_gateway_local_subscriptions",
                Unit::Count,
                "Subscriptions of local subscribers",
            ),
            local_dropped: count(
                "weir_gateway_local_messages_dropped_total",
                Unit::Count,
                "Messages that local subscribers were too slow to take",
            ),
            segments: count("weir_gateway_segments_total", Unit::Count, "Segments acknowledged by JetStream"),
            segment_uplinks: count(
                "weir_gateway_segment_uplinks_total",
                Unit::Count,
                "Uplinks in acknowledged segments",
            ),
            segment_bytes_raw: count(
                "weir_gateway_segment_raw_bytes_total",
                Unit::Bytes,
                "Acknowledged segments before compression",
            ),
            segment_bytes_sent: count(
                "weir_gateway_segment_sent_bytes_total",
                Unit::Bytes,
                "Acknowledged segments as sent",
            ),
            segment_round_trips: seconds(
                "weir_gateway_segment_round_trip_seconds",
                "From publishing a segment to its acknowledgement",
            ),
            delivered_number: level(
                "weir_gateway_delivered_number",
                Unit::Count,
                "Uplinks below this number are in the stream",
            ),
            uplinks_ahead: count(
                "weir_gateway_uplinks_ahead_total",
                Unit::Count,
                "Uplinks of which copies went ahead of the backlog",
            ),
            uplinks_ahead_left_out: count(
                "weir_gateway_uplinks_ahead_left_out_total",
                Unit::Count,
                "New uplinks that found no room ahead of the backlog and come with it",
            ),
            uplinks_gone: count(
                "weir_gateway_uplinks_gone_total",
                Unit::Count,
                "Uplinks that are in neither the stream nor the spool any more, by damage for example; each is told in the ledger",
            ),
            spool_lost: level(
                "weir_gateway_spool_lost_uplinks",
                Unit::Count,
                "Uplinks lost by damage in what the spool keeps, or kept lately; look at weir_gateway_uplinks_gone_total for all",
            ),
            spool_aside: level(
                "weir_gateway_spool_damaged_epochs",
                Unit::Count,
                "Damaged epochs that are set aside in the spool's folder",
            ),
            journal_lost: count(
                "weir_gateway_journal_lost_total",
                Unit::Count,
                "The gateway's own events that found no room",
            ),
            spool_bytes: level("weir_gateway_spool_bytes", Unit::Bytes, "Bytes the spool has on disk"),
            spool_backlog: level(
                "weir_gateway_spool_backlog_uplinks",
                Unit::Count,
                "Uplinks in custody that are not yet in the stream",
            ),
            spool_oldest: level(
                "weir_gateway_spool_oldest_age_seconds",
                Unit::Seconds,
                "Age of the oldest uplink not yet in the stream",
            ),
            custody_failed: level(
                "weir_gateway_custody_failed",
                Unit::Count,
                "1 after a commit that failed for good: nothing is acknowledged any more",
            ),
            commits_failed: count(
                "weir_gateway_commits_failed_total",
                Unit::Count,
                "Commits that failed; nothing of them was acknowledged, and they are tried again",
            ),
            uplinks_given_up: count(
                "weir_gateway_uplinks_given_up_total",
                Unit::Count,
                "Uplinks that a full spool gave up before they were delivered (spool.when_full)",
            ),
            events_given_up: count(
                "weir_gateway_events_given_up_total",
                Unit::Count,
                "Events in them, told to the ledger",
            ),
            disk_free: level(
                "weir_gateway_disk_free_bytes",
                Unit::Bytes,
                "Bytes free on the spool's file system",
            ),
            commands_taken: count(
                "weir_gateway_commands_taken_total",
                Unit::Count,
                "Commands taken from the stream",
            ),
            commands_sent: count(
                "weir_gateway_commands_sent_total",
                Unit::Count,
                "Commands sent to devices, each time counted",
            ),
            commands_pending: level(
                "weir_gateway_commands_pending",
                Unit::Count,
                "Commands that wait for devices",
            ),
        }
    }
}

fn describe_wear() {
    let counters = [
        ("weir_gateway_disk_written_bytes_total", "Bytes this process had written to disk, whole blocks"),
        ("weir_gateway_disk_device_written_bytes_total", "Bytes written to the spool's disk by everybody"),
    ];
    for (name, help) in counters {
        describe_counter!(name, Unit::Bytes, help);
    }
    let gauges = [
        ("weir_gateway_disk_written_bytes_per_event", "Bytes this process had written, for each event taken"),
        (
            "weir_gateway_disk_device_written_bytes_per_day",
            "Bytes a day written to the spool's disk by everybody",
        ),
        ("weir_gateway_disk_device_lasts_days", "Its endurance (spool.card_endurance) by that"),
    ];
    for (name, help) in gauges {
        describe_gauge!(name, help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_rendered_for_prometheus_and_installing_twice_is_harmless() {
        install().expect("nothing else in this test process installs a recorder");
        install().expect("a second time");
        uplinks_taken(3, 6, 300);
        uplink_refused("malformed");
        synced(Duration::from_millis(3));
        let text = render();
        for line in [
            "weir_gateway_uplinks_taken_total",
            "weir_gateway_uplinks_refused_total{reason=\"malformed\"} 1",
            "weir_gateway_fdatasync_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
