//! What a running fleet counts, and the summary in the end.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::RunOptions;
use crate::manifest::Manifest;
use crate::output::{Latency, grouped, table};

/// Counters shared by all devices. The numbers of [`Summary`] that must be exact come from the devices themselves.
pub(super) struct Stats {
    pub(super) emitted: AtomicU64,
    pub(super) lost: AtomicU64,
    /// Lost, and no `events-lost` of it was made.
    pub(super) uncovered: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) published_bytes: AtomicU64,
    pub(super) again: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) acknowledged_uplinks: AtomicU64,
    pub(super) connected: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) commands: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) drops: AtomicU64,
    pub(super) silences: AtomicU64,
    pub(super) boots: AtomicU64,
    /// Connections that ended by themselves, and why the last one did.
    troubles: AtomicU64,
    last_trouble: Mutex<String>,
    latency: Mutex<Histogram<u64>>,
}

impl Stats {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            emitted: zero(),
            lost: zero(),
            uncovered: zero(),
            published: zero(),
            published_bytes: zero(),
            again: zero(),
            duplicates: zero(),
            acknowledged: zero(),
            acknowledged_uplinks: zero(),
            connected: zero(),
            connects: zero(),
            commands: zero(),
            reconnects: zero(),
            drops: zero(),
            silences: zero(),
            boots: zero(),
            troubles: zero(),
            last_trouble: Mutex::new(String::new()),
            latency: Mutex::new(Latency::histogram()),
        }
    }

    pub(super) fn record_latency(&self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.lock().expect("nobody panics while holding it").saturating_record(microseconds);
    }

    pub(super) fn trouble(&self, why: &str) {
        self.troubles.fetch_add(1, Relaxed);
        why.clone_into(&mut self.last_trouble.lock().expect("nobody panics while holding it"));
    }

    pub(super) fn last_trouble(&self) -> Option<String> {
        let why = self.last_trouble.lock().expect("nobody panics while holding it");
        (!why.is_empty()).then(|| why.clone())
    }
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Devices that ran.
    pub devices: usize,
    /// The seed that gives the same devices, events and faults again.
    pub seed: u64,
    /// From the first event to the last acknowledgement.
    pub seconds: f64,
    /// Numbers given: events and records of loss.
    pub emitted: u64,
    /// Of these, acknowledged: on a gateway's disk.
    pub acknowledged: u64,
    /// Of these, lost in a full outbox and covered by an `events-lost`.
    pub lost: u64,
    /// Of these, neither, in the end.
    pub unacknowledged: u64,
    /// Uplinks published, repetitions included.
    pub sent_uplinks: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Uplinks acknowledged.
    pub acknowledged_uplinks: u64,
    /// Uplinks published more than once: after a reconnect, and on purpose.
    pub doubled: u64,
    /// Of an uplink's acknowledgement since it was first published.
    pub latency_ms: Option<Latency>,
    /// Connections accepted.
    pub connects: u64,
    /// Connections that ended, or could not be made, without our doing.
    pub troubles: u64,
    /// Why the last of them did.
    pub last_trouble: Option<String>,
    /// Commands done.
    pub commands: u64,
    /// What went wrong on purpose.
    pub faults: FaultCounts,
}

/// How often things went wrong on purpose.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "named as in `Faults`")]
pub struct FaultCounts {
    pub reconnects: u64,
    pub drops: u64,
    pub silences: u64,
    pub boots: u64,
    pub duplicates: u64,
}

impl Summary {
    pub(super) fn new(options: &RunOptions, stats: &Stats, manifest: &Manifest, ran: Duration) -> Self {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (emitted, unacknowledged) = (manifest.emitted(), manifest.unacknowledged());
        // Losses that no events-lost covers are among the unacknowledged.
        let lost = get(&stats.lost).saturating_sub(get(&stats.uncovered));
        let histogram = stats.latency.lock().expect("nobody panics while holding it");
        Self {
            devices: options.devices,
            seed: options.seed,
            seconds: ran.as_secs_f64(),
            emitted,
            acknowledged: emitted.saturating_sub(unacknowledged).saturating_sub(lost),
            lost,
            unacknowledged,
            sent_uplinks: get(&stats.published) + get(&stats.duplicates),
            sent_bytes: get(&stats.published_bytes),
            acknowledged_uplinks: get(&stats.acknowledged_uplinks),
            doubled: get(&stats.again) + get(&stats.duplicates),
            latency_ms: Latency::of(&histogram),
            connects: get(&stats.connects),
            troubles: get(&stats.troubles),
            last_trouble: stats.last_trouble(),
            commands: get(&stats.commands),
            faults: FaultCounts {
                reconnects: get(&stats.reconnects),
                drops: get(&stats.drops),
                silences: get(&stats.silences),
                boots: get(&stats.boots),
                duplicates: get(&stats.duplicates),
            },
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let faults = &self.faults;
        let mut rows = vec![
            ("devices", grouped(self.devices as u64)),
            ("seed", self.seed.to_string()),
            ("time", format!("{:.1} s", self.seconds)),
            ("events emitted", grouped(self.emitted)),
            ("  acknowledged", grouped(self.acknowledged)),
            ("  lost, and said so", grouped(self.lost)),
            ("  not acknowledged", grouped(self.unacknowledged)),
            ("uplinks sent", grouped(self.sent_uplinks)),
            ("  of these doubled", grouped(self.doubled)),
            ("acknowledged after p50 / p99 / p99.9 / max", Latency::line(self.latency_ms.as_ref())),
            ("connections", grouped(self.connects)),
        ];
        let made = [
            ("  reconnects made", faults.reconnects),
            ("  sockets dropped", faults.drops),
            ("  silent deaths", faults.silences),
            ("  power cuts", faults.boots),
            ("  uplinks doubled on purpose", faults.duplicates),
        ];
        rows.extend(made.into_iter().filter(|row| row.1 > 0).map(|(name, count)| (name, grouped(count))));
        if self.troubles > 0 {
            rows.push(("  ended or refused by the other side", grouped(self.troubles)));
        }
        table(&rows).to_string()
    }
}
