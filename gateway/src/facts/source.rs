//! Facts about other people's brokers.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use super::with;

/// Whether there is a connection to somebody else's broker.
pub fn connected(source: &str, connected: bool) {
    let is = if connected { 1.0 } else { 0.0 };
    with(|_| gauge!("weir_gateway_source_connected", "source" => source.to_owned()).set(is));
}

/// A message of somebody else's broker was taken.
pub fn message(source: &str) {
    of_source("weir_gateway_source_messages_total", source, 1);
}

/// So many readings were made of one.
pub fn readings(source: &str, count: u64) {
    of_source("weir_gateway_source_readings_total", source, count);
}

/// One was an uplink.
pub fn uplink(source: &str) {
    of_source("weir_gateway_source_uplinks_total", source, 1);
}

/// One was retained before we subscribed, and left alone.
pub fn retained(source: &str) {
    of_source("weir_gateway_source_retained_total", source, 1);
}

/// The broker had forgotten our session.
pub fn session_lost(source: &str) {
    of_source("weir_gateway_source_sessions_lost_total", source, 1);
}

/// One, or a part of it, was not understood. `reason` is one of a few fixed words.
pub fn not_understood(source: &str, reason: &'static str) {
    with(|_| {
        let source = source.to_owned();
        counter!("weir_gateway_source_not_understood_total", "source" => source, "reason" => reason)
            .increment(1);
    });
}

/// One came again: `known` and not stored a second time, or stored and `marked`.
pub fn again(source: &str, what: &'static str) {
    with(|_| {
        counter!("weir_gateway_source_again_total", "source" => source.to_owned(), "what" => what)
            .increment(1);
    });
}

fn of_source(name: &'static str, source: &str, count: u64) {
    with(|_| counter!(name, "source" => source.to_owned()).increment(count));
}

pub(super) fn describe() {
    for (name, help) in [
        ("messages", "Messages taken from other brokers"),
        ("readings", "Readings made of them"),
        ("uplinks", "Uplinks among them"),
        ("retained", "Messages among them that were retained before we subscribed, and left alone"),
        ("not_understood", "Messages of other brokers, or parts of them, that no rule understood"),
        ("again", "Messages that came again: known and not stored a second time, or stored and marked"),
        ("sessions_lost", "How often a broker had forgotten us, and what it had kept for us"),
    ] {
        describe_counter!(format!("weir_gateway_source_{name}_total"), Unit::Count, help);
    }
    describe_gauge!("weir_gateway_source_connected", Unit::Count, "1 while connected to this broker");
}
