//! What came of a load.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::worker::Report;
use super::{Course, LoadOptions, Shared};
use crate::output::{Latency, grouped, grouped_rate, table};

/// What came of a load. Counts are of uplinks.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Clients asked for.
    pub clients: u32,
    /// Uplinks in flight of each.
    pub window: u16,
    /// Threads that did the work.
    pub threads: u32,
    /// Events in an uplink.
    pub batch: u32,
    /// Bytes of an uplink.
    pub payload_bytes: usize,
    /// The seed that gives the same devices, boots and values again.
    pub seed: u64,
    /// How long it took until all were connected.
    pub connect_seconds: f64,
    /// How long new uplinks were published after that.
    pub seconds: f64,
    /// Published, repetitions not counted.
    pub sent: u64,
    /// Published again after a reconnect.
    pub again: u64,
    /// Acknowledged in the end.
    pub acknowledged: u64,
    /// Not acknowledged in the end.
    pub unacknowledged: u64,
    /// Acknowledged per second while new ones were published.
    pub acknowledged_per_s: f64,
    /// Events in these.
    pub events_per_s: f64,
    /// From publishing to acknowledgement; with `--rate`, from when it was due if it was held up.
    pub latency_ms: Option<Latency>,
    /// Connections that ended or could not be made.
    pub troubles: u64,
    /// Why the last of them did.
    pub last_trouble: Option<String>,
    /// CPU time of all threads, where the system tells.
    pub cpu_seconds: Option<f64>,
}

impl Summary {
    pub(super) fn new(
        options: &LoadOptions,
        shared: &Shared,
        course: &Course,
        payload_bytes: usize,
        reports: &[Report],
    ) -> Self {
        let mut latencies = Latency::histogram();
        for report in reports {
            latencies.add(&report.latencies).expect("the same bounds");
        }
        let clients = reports.iter().flat_map(|report| &report.clients);
        let seconds = course.publishing.as_secs_f64();
        let acknowledged_per_s = if seconds > 0.0 { course.acknowledged as f64 / seconds } else { 0.0 };
        let last_trouble = shared.last_trouble();
        Self {
            clients: options.clients,
            window: options.window,
            threads: options.threads,
            batch: options.batch,
            payload_bytes,
            seed: options.seed,
            connect_seconds: course.connect.as_secs_f64(),
            seconds,
            sent: shared.sent.load(Relaxed),
            again: shared.again.load(Relaxed),
            acknowledged: shared.acknowledged.load(Relaxed),
            unacknowledged: clients.map(|client| client.unacknowledged() as u64).sum(),
            acknowledged_per_s,
            events_per_s: acknowledged_per_s * f64::from(options.batch),
            latency_ms: Latency::of(&latencies),
            troubles: shared.troubles.load(Relaxed),
            last_trouble: (!last_trouble.is_empty()).then_some(last_trouble),
            cpu_seconds: reports.iter().map(|report| report.cpu.map(|cpu| cpu.as_secs_f64())).sum(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("clients × window", format!("{} × {}", grouped(self.clients.into()), self.window)),
            ("uplink", format!("{} bytes, {} events", self.payload_bytes, self.batch)),
            ("seed", self.seed.to_string()),
            ("connected after", format!("{:.2} s", self.connect_seconds)),
            ("published for", format!("{:.2} s", self.seconds)),
            ("uplinks sent", grouped(self.sent)),
            ("  acknowledged", grouped(self.acknowledged)),
            ("  not acknowledged", grouped(self.unacknowledged)),
            ("acknowledged uplinks", grouped_rate(self.acknowledged_per_s)),
            ("acknowledged events", grouped_rate(self.events_per_s)),
            ("acknowledged after p50 / p99 / p99.9 / max", Latency::line(self.latency_ms.as_ref())),
        ];
        if let Some(cpu) = self.cpu_seconds {
            rows.push(("CPU time of this load", format!("{cpu:.2} s")));
        }
        if self.again > 0 {
            rows.push(("  sent again", grouped(self.again)));
        }
        if let Some(why) = &self.last_trouble {
            rows.push(("connections ended or refused", format!("{} ({why})", grouped(self.troubles))));
        }
        table(&rows).to_string()
    }
}
