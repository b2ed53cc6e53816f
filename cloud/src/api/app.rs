//! What request handlers work with.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, watch};
use tracing::error;

use super::Config;
use super::error::ApiError;
use super::types;
use crate::projection::Progress;
use crate::service::Role;
use crate::store::{self, Reader};
use crate::{clock, nats};

/// Everything an answer is made from. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    role: Role,
    config: Config,
    reader: Reader,
    log: Option<LogView>,
    commands: Option<nats::Client>,
    metrics: &'static PrometheusHandle,
    reads: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// What a process that reads the log knows of it.
pub struct LogView {
    /// How far the projection has come.
    pub progress: watch::Receiver<Progress>,
    /// The connection it reads by.
    pub nats: nats::Client,
}

impl App {
    /// Puts together what handlers need.
    pub fn new(
        role: Role,
        config: Config,
        reader: Reader,
        log: Option<LogView>,
        commands: Option<nats::Client>,
        metrics: &'static PrometheusHandle,
    ) -> App {
        let places =
            |count: u64| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS)));
        let (reads, requests) = (places(config.store_reads_max), places(config.requests_max));
        App(Arc::new(Inner { role, config, reader, log, commands, metrics, reads, requests }))
    }

    /// The limits.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// What this process does.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The connection that commands are sent by, if they are.
    pub fn commands(&self) -> Option<&nats::Client> {
        self.0.commands.as_ref()
    }

    /// Places for requests under way.
    pub fn requests(&self) -> &Arc<Semaphore> {
        &self.0.requests
    }

    /// The metrics of the process, as text for Prometheus.
    pub fn render_metrics(&self) -> String {
        self.0.metrics.run_upkeep();
        self.0.metrics.render()
    }

    /// Asks the store on a thread that may block. A question whose asker has given up still keeps its place until it is
    /// done: so there are never more of them than places.
    pub async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Reader) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = Arc::clone(&self.0.reads).acquire_owned().await.expect("nobody closes this semaphore");
        let reader = self.0.reader.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let answer = ask(&reader);
            drop(place);
            answer
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => {
                error!(error = %chain(&failure), "the store cannot be read");
                Err(ApiError::store_failed())
            }
            Err(panic) => {
                error!(error = %panic, "reading the store panicked");
                Err(ApiError::store_failed())
            }
        }
    }

    /// How the service is.
    pub async fn status(&self) -> Result<types::Status, ApiError> {
        let stored = self.read(|reader| reader.status()).await?;
        let progress = self.0.log.as_ref().map(|log| log.progress.borrow().clone());
        let connected = self.0.log.as_ref().map(|log| nats::is_connected(&log.nats));
        Ok(types::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: self.0.role.as_str().to_owned(),
            position: position(stored.position.as_ref(), progress, clock::unix_ms()),
            store: stored.into(),
            nats: types::Nats { connected },
        })
    }
}

fn position(
    stored: Option<&store::types::Position>,
    progress: Option<Progress>,
    now_ms: u64,
) -> types::Position {
    // What was true when the log was last read may not be true any more.
    let current = progress.as_ref().filter(|progress| progress.reading);
    let lag_messages = current.and_then(|progress| progress.lag_messages);
    let lag_seconds = current.and_then(|progress| lag_seconds(progress, now_ms));
    types::Position {
        stream: stored.map(|position| position.stream.clone()),
        stream_sequence: stored.map_or(0, |position| position.stream_sequence),
        stream_last_sequence: progress.as_ref().and_then(|progress| progress.stream_last_sequence),
        lag_messages,
        lag_seconds,
        reading: progress.as_ref().map(|progress| progress.reading),
        trouble: progress.and_then(|progress| progress.trouble),
    }
}

/// 0 when nothing waits; else the age of the last message folded; unknown before the log was first asked.
fn lag_seconds(progress: &Progress, now_ms: u64) -> Option<f64> {
    if progress.lag_messages? == 0 {
        return Some(0.0);
    }
    let age_ms = now_ms.saturating_sub(progress.last_logged_at_ms?);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a lag are far below 2^53")]
    Some(age_ms as f64 / 1_000.0)
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}

/// Bytes gathered for a page, against its limit.
pub struct Budget {
    left: u64,
}

impl Budget {
    /// Room for `bytes_max`.
    pub fn new(bytes_max: u64) -> Budget {
        Budget { left: bytes_max }
    }

    /// Room left.
    pub fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    /// Takes `bytes`; says whether there is room for more.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.left = self.left.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.left > 0
    }
}
