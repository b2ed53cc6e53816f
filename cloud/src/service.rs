//! Puts the parts of `weir-cloud` together, keeps them running, and stops them in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::api::server::Server;
use crate::api::{App, LogView};
use crate::projection::{self, Progress};
use crate::store::{self, Reader, Store};
use crate::{Config, api, nats, telemetry};

/// What one process of `weir-cloud` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Folds the log into the store.
    Project,
    /// Answers queries from the store.
    Serve,
    /// Both in one process.
    All,
}

impl Role {
    /// `project`, `serve` or `all`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Project => "project",
            Role::Serve => "serve",
            Role::All => "all",
        }
    }
}

/// Where a running service listens. Written as JSON to a file beside the store, for tools and tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The HTTP API.
    pub api: SocketAddr,
}

/// Why the service did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API's address cannot be taken.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The setting it comes from.
        key: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// Mostly: in use, or not an address of this machine.
        source: std::io::Error,
    },
    /// The file that tells tools our addresses cannot be written.
    #[error("cannot write {}", file.display())]
    Addresses {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No NATS client.
    #[error(transparent)]
    Nats(#[from] nats::Error),
    /// The store cannot be opened.
    #[error("store.path cannot be used")]
    Store(#[from] store::Error),
    /// There is nothing to answer from.
    #[error("store.path: there is no {} yet; a process with role `project` or `all` makes it", file.display())]
    NoStore {
        /// The file of the setting.
        file: PathBuf,
    },
    /// The projection ended.
    #[error(transparent)]
    Projection(#[from] projection::Error),
    /// A part of the service panicked.
    #[error("a part of the service failed")]
    Panicked(#[source] tokio::task::JoinError),
}

/// A service at work. Dropping it stops everything at once; [`Running::shutdown`] drains.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    addresses_file: PathBuf,
    stop: watch::Sender<bool>,
    parts: JoinSet<Result<(), Error>>,
}

/// Starts the parts of a role. When this returns, queries are answered.
pub async fn start(config: &Config, role: Role) -> Result<Running, Error> {
    let metrics = telemetry::metrics();
    let (stop, stopped) = watch::channel(false);
    let mut parts = JoinSet::new();

    let (key, address) = match role {
        Role::Project => ("api.project_address", config.api.project_address),
        Role::Serve | Role::All => ("api.address", config.api.address),
    };
    let server = Server::bind(address).await.map_err(|source| Error::Listen { key, address, source })?;
    let addresses = Addresses { api: server.address() };

    let (reader, log, commands) = match role {
        Role::Serve if !config.store.path.exists() => {
            return Err(Error::NoStore { file: config.store.path.clone() });
        }
        Role::Serve => {
            let nats =
                if config.api.commands { Some(nats::connect(&config.nats).await?.client) } else { None };
            (open(config, Reader::open).await?, None, nats)
        }
        Role::Project | Role::All => {
            let store = open(config, Store::open).await?;
            let reader = store.reader();
            let nats = nats::connect(&config.nats).await?;
            let (report, progress) = watch::channel(Progress::default());
            let running =
                projection::run(nats.clone(), config.stream.clone(), store, report, stopped.clone());
            parts.spawn(async { Ok(running.await?) });
            let commands = config.api.commands.then(|| nats.client.clone());
            (reader, Some(LogView { progress, nats: nats.client }), commands)
        }
    };

    let app = App::new(role, config.api.clone(), reader, log, commands, metrics);
    let limits = config.api.clone();
    parts.spawn(async move {
        server.run(api::router(app), limits, stopped).await;
        Ok(())
    });

    let addresses_file = addresses_file(&config.store.path, role);
    write_addresses(&addresses_file, &addresses)?;
    info!(api = %addresses.api, role = role.as_str(), "weir-cloud is running");
    Ok(Running { addresses, addresses_file, stop, parts })
}

/// Opens the store on a thread that may block: it may have a journal to replay.
async fn open<T: Send + 'static>(
    config: &Config,
    how: fn(&store::Config) -> Result<T, store::Error>,
) -> Result<T, Error> {
    let config = config.store.clone();
    Ok(tokio::task::spawn_blocking(move || how(&config)).await.map_err(Error::Panicked)??)
}

impl Running {
    /// Resolves when a part has ended though nobody asked it to: there is nothing left to do but to stop.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match self.parts.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(Error::Panicked(panic)),
            None => Ok(()),
        }
    }

    /// Stops taking work, finishes what is under way, and returns when all is quiet: the first failure, if any.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        let mut result = Ok(());
        while let Some(ended) = self.parts.join_next().await {
            result = result.and(ended.unwrap_or_else(|panic| Err(Error::Panicked(panic))));
        }
        remove_addresses(&self.addresses_file, &self.addresses);
        result
    }
}

/// `<store path>.addresses.json`; a process that only projects has its own, as both may run beside each other.
fn addresses_file(store: &Path, role: Role) -> PathBuf {
    let mut file = store.as_os_str().to_owned();
    file.push(match role {
        Role::Project => ".project.addresses.json",
        Role::Serve | Role::All => ".addresses.json",
    });
    file.into()
}

/// Best effort: whoever reads the file after a crash finds an address at which nobody listens, too. A file that another process has
/// put there meanwhile stays.
fn remove_addresses(file: &Path, addresses: &Addresses) {
    if std::fs::read(file).is_ok_and(|found| found == encoded(addresses)) {
        let _ = std::fs::remove_file(file);
    }
}

fn encoded(addresses: &Addresses) -> Vec<u8> {
    let mut text = serde_json::to_vec(addresses).expect("addresses are plain strings");
    text.push(b'\n');
    text
}

/// Replaces the file in one step, so that a reader sees all of it or none.
fn write_addresses(file: &Path, addresses: &Addresses) -> Result<(), Error> {
    let failed = |source| Error::Addresses { file: file.into(), source };
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, encoded(addresses)).map_err(failed)?;
    std::fs::rename(&draft, file).map_err(failed)
}
