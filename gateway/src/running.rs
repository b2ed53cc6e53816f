//! Puts the parts together, and takes them apart in the order that loses nothing.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use weir_contract::Id;
use weir_contract::subject::{LANE_MAIN, Source};

use crate::clock::Clock;
use crate::config::Config;
use crate::custody::{Committer, Custody};
use crate::downlink::Downlink;
use crate::uplink::Uplink;
use crate::wear::Wear;
use crate::{admin, downlink, facts, giving_up, journal, mqtt, source, spool, telling, uplink};

/// Where the addresses are written, in the spool's folder.
pub const ADDRESSES_FILE: &str = "addresses.json";
/// What the clock has shown, in the spool's folder.
const CLOCK_FILE: &str = "clock";
/// Where the commands that wait for devices are kept, in the spool's folder.
const COMMANDS_FOLDER: &str = "commands";
/// For the gateway's own last events to be stored when it goes down.
const JOURNAL_STOP_MAX: Duration = Duration::from_secs(5);
/// And before what it has is drained.
const JOURNAL_FLUSH_MAX: Duration = Duration::from_secs(5);

/// How often a full disk is asked for the few bytes of the addresses.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Why the gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Metrics cannot be kept.
    #[error("cannot set up metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The spool cannot be opened or made.
    #[error("cannot open the spool")]
    Spool(#[from] spool::Error),
    /// A listener, a certificate or a password file.
    #[error("cannot take devices in")]
    Mqtt(#[from] mqtt::Error),
    /// A password or a certificate for somebody else's broker.
    #[error("cannot take from other brokers")]
    Source(#[from] source::Error),
    /// The commands that wait for devices cannot be read.
    #[error("cannot open the folder of commands")]
    Downlink(#[from] downlink::Error),
    /// The admin address.
    #[error("cannot listen for admin requests on {address} (admin.address)")]
    Admin {
        /// Which one.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file that says the addresses.
    #[error("cannot write {}", file.display())]
    Addresses {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A part of a running gateway that should never end has ended. It does not come back: the process has to be started again.
#[derive(Debug, thiserror::Error)]
pub enum Dead {
    /// The disk has failed; the process ends, see [`Running::failed`].
    #[error("the spool has failed")]
    Spool(#[source] Arc<spool::Error>),
    /// A task has ended, by a panic that is in the log.
    #[error("{0} has ended, which it never should")]
    Part(&'static str),
}

/// A running gateway. To be taken down by [`Running::shutdown`]; dropped, it ends like a killed process.
pub struct Running {
    /// Where it really listens.
    pub addresses: Addresses,
    custody: Custody,
    committer: Committer,
    listeners: mqtt::Listeners,
    sources: source::Sources,
    journal: JoinHandle<()>,
    journal_flushes: mpsc::Sender<journal::Flush>,
    giving_up: JoinHandle<()>,
    /// Tells what the spool has lost.
    telling_losses: JoinHandle<()>,
    uplink: Uplink,
    downlink: Downlink,
    drain_max: Duration,
    addresses_file: PathBuf,
    /// Looks at the clock.
    watching: JoinHandle<()>,
    /// Writes the addresses as soon as the disk has room for them.
    telling: Option<JoinHandle<()>>,
    _admin: admin::Server,
}

/// Where a gateway really listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For MQTT, in the order of the configuration.
    pub mqtt: Vec<SocketAddr>,
    /// For admin requests.
    pub admin: SocketAddr,
}

/// Starts a gateway on the current runtime.
///
/// # Errors
/// What cannot work is found out here: spool, addresses, certificates. Whether the cloud can be reached is not asked.
pub async fn start(config: Config) -> Result<Running, StartError> {
    facts::install()?;
    let clock = Clock::system();
    let started_ms = clock.unix_ms();
    let folder = config.spool.folder.clone();
    clock.remember(&folder.join(CLOCK_FILE));
    let endurance = config.spool.card_endurance;
    let started = spawn_blocking(move || {
        let started = Custody::start(&config.spool, started_ms)?;
        Ok::<_, spool::Error>((started, Wear::start(&config.spool.folder, endurance, Instant::now())))
    });
    let ((custody, committer), wear) =
        started.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;

    let (journal, entries) = journal::channel();
    let (journal_flushes, flushes) = mpsc::channel(1);
    let lane: Id = LANE_MAIN.parse().expect("it is a name");
    let source = Source { site: config.gateway.site, gateway: config.gateway.id, lane };
    let journal_task =
        tokio::spawn(journal::run(entries, config.gateway.id, custody.clone(), clock.clone(), flushes));
    let drain_max = Duration::from_millis(config.uplink.drain_ms_max);
    let spool = Arc::clone(custody.spool());
    let uplink =
        uplink::start(config.uplink.clone(), &source, Arc::clone(&spool), journal.clone(), clock.clone());
    let gateway = config.gateway.id;
    let giving_up =
        tokio::spawn(giving_up::run(custody.clone(), gateway, journal.clone(), journal_flushes.clone()));
    let telling_losses =
        tokio::spawn(telling::run(custody.clone(), journal.clone(), journal_flushes.clone()));
    let watching = tokio::spawn(clock.clone().watch(journal.clone()));
    let setup = downlink::Setup {
        config: config.commands,
        uplink: config.uplink,
        folder: folder.join(COMMANDS_FOLDER),
        site: source.site,
        gateway: source.gateway,
        journal: journal.clone(),
        clock: clock.clone(),
        own: downlink::Own { spool, resend: uplink.resend(), flushes: journal_flushes.clone() },
    };
    let downlink = downlink::start(setup)?;
    let mqtt = mqtt::Config { gateway: Some(source.gateway), ..config.mqtt };
    let listeners = mqtt::start(mqtt, custody.clone(), downlink.hub(), journal, clock.clone()).await?;

    let refusals = listeners.refusals();
    let around = source::Surroundings {
        gateway,
        spool: &folder,
        custody: custody.clone(),
        clock: clock.clone(),
        refusals: refusals.shared(),
    };
    let taken_from = source::start(&config.source, &around)?;
    let reader = taken_from.reader();
    let sources = admin::Sources {
        site: source.site,
        gateway: source.gateway,
        started_ms,
        clock,
        custody: custody.clone(),
        uplink: uplink.status(),
        commands: downlink.hub(),
        wear,
        refusals: Arc::new(move || json!(refusals.all())),
        brokers: Arc::new(move || json!(reader.all())),
    };
    let address = config.admin.address;
    let admin = admin::Server::start(address, admin::router(sources))
        .await
        .map_err(|source| StartError::Admin { address, source })?;

    let addresses = Addresses { mqtt: listeners.addresses.clone(), admin: admin.address() };
    let addresses_file = folder.join(ADDRESSES_FILE);
    let telling = match tell(&addresses, &addresses_file) {
        Ok(()) => None,
        Err(source) if source.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(file = %addresses_file.display(), "the disk is full: the addresses are written later");
            Some(tokio::spawn(tell_later(addresses.clone(), addresses_file.clone())))
        }
        Err(source) => return Err(StartError::Addresses { file: addresses_file, source }),
    };
    tracing::info!(
        site = %source.site, gateway = %source.gateway, mqtt = ?addresses.mqtt, admin = %addresses.admin,
        spool = %folder.display(), "the gateway is running"
    );
    Ok(Running {
        addresses,
        custody,
        committer,
        listeners,
        sources: taken_from,
        journal: journal_task,
        journal_flushes,
        giving_up,
        telling_losses,
        uplink,
        downlink,
        drain_max,
        addresses_file,
        watching,
        telling,
        _admin: admin,
    })
}

/// Writes the addresses so that a reader sees all of them or none.
fn tell(addresses: &Addresses, file: &std::path::Path) -> io::Result<()> {
    let text = json!({ "mqtt": addresses.mqtt, "admin": addresses.admin }).to_string();
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, file)
}

/// Whoever wants to know before has to be told by somebody else: the configuration says the addresses, unless the port is 0.
async fn tell_later(addresses: Addresses, file: PathBuf) {
    // What an earlier run has left says something else.
    let _ = std::fs::remove_file(&file);
    while tell(&addresses, &file).is_err() {
        tokio::time::sleep(TELL_AGAIN).await;
    }
}

impl Running {
    /// Resolves if the spool fails for good: nothing is acknowledged from then on, and the process has to end.
    pub async fn failed(&self) -> Arc<spool::Error> {
        self.custody.failure().await
    }

    /// Resolves when every part has shown that it is alive: the one that commits has gone round since the call, the others
    /// have not ended. It takes as long as a commit does, on a disk that does not answer for ever.
    ///
    /// # Errors
    /// A part is dead.
    pub async fn pulse(&self) -> Result<(), Dead> {
        let parts = [
            ("the uplink", self.uplink.is_running()),
            ("a listener", self.listeners.are_accepting()),
            ("a source", self.sources.are_running()),
            ("the journal", !self.journal.is_finished()),
            ("what gives up", !self.giving_up.is_finished()),
            ("what tells losses", !self.telling_losses.is_finished()),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, alive)| !alive) {
            return Err(Dead::Part(part));
        }
        self.custody.pulse().await.map_err(Dead::Spool)
    }

    /// How it does, in a line for people.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let spool = self.custody.spool();
        let waiting = spool.waiting();
        let uplink = self.uplink.status();
        let uplink = uplink.borrow();
        let to = uplink.server.as_deref().map_or(String::new(), |server| format!(" ({server})"));
        let (state, connections) = (uplink.state.as_str(), self.listeners.connections());
        let full = spool
            .full()
            .map_or(String::new(), |full| format!(", nothing is acknowledged ({})", full.as_str()));
        format!("uplink {state}{to}, {waiting} uplinks wait for it, {connections} connections{full}")
    }

    /// Accepts nothing more, stores what has been taken, tries for a while to deliver it, and closes.
    ///
    /// # Errors
    /// The disk has failed: what was not acknowledged is still with the devices.
    pub async fn shutdown(self) -> Result<(), Arc<spool::Error>> {
        tracing::info!("going down: no more connections; storing and delivering what was taken");
        // What a device answers from here on is still stored; that it was is found out after the next start.
        drop(self.downlink);
        self.watching.abort();
        tokio::join!(self.listeners.shutdown(), self.sources.shutdown());
        // If the journal has gone, there is nobody to wait for; if the spool is full, it may not even ask whether somebody
        // waits, and what it has comes last.
        let _ = timeout(JOURNAL_FLUSH_MAX, journal::flush(&self.journal_flushes)).await;
        let spool = self.custody.spool();
        let delivered = self.uplink.drain(spool.next_number(), self.drain_max).await;
        let waiting = spool.waiting();
        drop(self.uplink);
        // Only now: what the uplink found out meanwhile must be told as well.
        self.giving_up.abort();
        let _ = self.giving_up.await;
        self.telling_losses.abort();
        let _ = self.telling_losses.await;
        drop(self.journal_flushes);
        if timeout(JOURNAL_STOP_MAX, self.journal).await.is_err() {
            tracing::warn!("the gateway's own last events found no room in the spool");
        }
        let stopped = spawn_blocking(move || self.committer.stop()).await;
        if let Some(telling) = self.telling {
            telling.abort();
        }
        let _ = std::fs::remove_file(&self.addresses_file);
        if delivered {
            tracing::info!("everything is in the stream; bye");
        } else {
            tracing::info!(
                waiting,
                "what is not in the stream is on disk, and will be sent after the next start; bye"
            );
        }
        stopped.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}
