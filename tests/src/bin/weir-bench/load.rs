//! The same load for everybody: `weir-sim load`, valid uplinks of one event over MQTT 3.1.1 with QoS 1.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use weir_tests::{process, programs};

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections, each a device.
    pub clients: u32,
    /// Unacknowledged publishes of each.
    pub window: u32,
    /// Publishes a second, all together; as many as are taken if absent.
    pub rate: Option<u32>,
    /// For so long, or as long as `uplinks` take.
    pub time: Duration,
    /// Publish so many.
    pub uplinks: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Loaded {
    /// PUBACKs.
    pub acknowledged: u64,
    /// Publishes for which none came.
    pub unacknowledged: u64,
    /// A second.
    pub acknowledged_per_s: f64,
    /// From PUBLISH to PUBACK.
    pub latency_ms: Latency,
}

/// Milliseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Latency {
    /// Half of them were faster.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
}

/// Bytes of every payload.
pub const PAYLOAD_BYTES: u32 = 100;

impl Load {
    /// As many as are taken.
    pub fn unpaced(clients: u32, time: Duration) -> Load {
        Load { clients, window: 20, rate: None, time, uplinks: None }
    }

    /// Loads whoever listens for MQTT at `address`.
    pub fn run(self, address: SocketAddr, manifest: Option<&Path>) -> Result<Loaded> {
        let gateway = format!("mqtt://{address}");
        let mut arguments = vec!["load".to_owned(), "--json".to_owned(), "--gateway".to_owned(), gateway];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--clients", self.clients.to_string());
        option("--window", self.window.to_string());
        option("--payload-bytes", PAYLOAD_BYTES.to_string());
        if let Some(rate) = self.rate {
            option("--rate", rate.to_string());
        }
        match self.uplinks {
            Some(uplinks) => option("--uplinks", uplinks.to_string()),
            None => option("--seconds", self.time.as_secs().to_string()),
        }
        if let Some(manifest) = manifest {
            option("--manifest", manifest.display().to_string());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let within = self.time + Duration::from_secs(120);
        let said = process::output(&programs::ours("weir-sim")?, &arguments, within)?;
        // It fails when something was not acknowledged in the end, which is for the caller to judge.
        serde_json::from_str(&said.out).with_context(|| format!("weir-sim load: {said:?}"))
    }
}
