//! What the process says about itself: log lines and metrics.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Invalid;

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `text` for people, `json` for collectors. Goes to standard error.
    pub format: Format,
    /// Directives of `tracing`, as `info,weir_cloud=debug`. `$WEIR_LOG` wins over it. The default leaves out what the NATS
    /// client repeats at every attempt: [`crate::nats`] tells it once.
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Config { format: Format::Text, filter: "info,async_nats=error".to_owned() }
    }
}

impl Config {
    /// Checks that the filter can be understood.
    pub fn check(&self) -> Result<(), Invalid> {
        EnvFilter::try_new(&self.filter).map(drop).map_err(|_| {
            Invalid::new(
                "log.filter",
                &self.filter,
                "`error`, `warn`, `info`, `debug`, `trace`, or a list as `info,weir_cloud=debug`",
            )
        })
    }
}

/// Starts logging for the whole process. Does nothing if something else (a test) has done so already.
pub fn start_logging(config: &Config) {
    let directives = std::env::var("WEIR_LOG").unwrap_or_else(|_| config.filter.clone());
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // Fails only when a subscriber is set already.
    let _ = match config.format {
        Format::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            registry.with(layer.with_ansi(colours)).try_init()
        }
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
}

/// The process's metrics. The first call installs the recorder, so call it before anything counts.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&[
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ])
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed in this process; /metrics will be empty");
        }
        handle
    })
}
