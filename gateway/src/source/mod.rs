//! Events from somebody else's broker (Mosquitto, EMQX …): taken by MQTT, understood by rules, stored like everybody's.
//!
//! * [`map`]: what a message means. Pure
//! * [`numbers`]: boot and seq for devices that number nothing themselves. Pure
//! * [`window`]: what is taken and not acknowledged yet, and what comes again. Pure
//! * `link`: the connection, by rumqttc; `tls`
//! * `broker`: from message to acknowledgement
//! * [`config`]: what `[[source.mqtt]]` says; [`status`]: how it goes
//!
//! An acknowledgement to the broker means what it means to a device: what it acknowledges is on disk. The broker keeps the rest in a
//! session that outlives connections, so what is published while this gateway is away, or held back by a full spool, comes later.
//!
//! What may come twice: a message whose acknowledgement was lost on its way, and what a killed gateway had stored and not
//! acknowledged. The broker marks both (DUP), and so do the events made of them (`again`). Uplinks of our own devices have
//! numbers of their own, and are stored once.

mod broker;
pub mod config;
mod link;
pub mod map;
pub mod numbers;
pub mod status;
mod tls;
pub mod window;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_contract::Id;

pub use config::Config;
pub use status::Status;

use self::broker::Worker;
use self::config::Broker;
use self::link::{Link, Login};
use self::numbers::Numbers;
use self::status::Board;
use self::window::Window;
use crate::clock::Clock;
use crate::custody::{Custody, Waiter};
use crate::mqtt::refusals::Refusals;

/// Where it is kept which brokers know us, in the spool's folder.
const FOLDER: &str = "sources";
/// For all of them to end.
const STOP_MAX: Duration = Duration::from_secs(8);

/// Why a source cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The password's file.
    #[error("[[source.mqtt]] {name}: cannot read the password from {}", file.display())]
    Password {
        /// Which broker.
        name: Id,
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A certificate or a key.
    #[error("[[source.mqtt]] {name}: TLS cannot be set up")]
    Tls {
        /// Which broker.
        name: Id,
        /// What is wrong.
        source: tls::Error,
    },
    /// A rule.
    #[error("[[source.mqtt]] {name}: a rule")]
    Rule {
        /// Which broker.
        name: Id,
        /// What is wrong with it.
        source: map::BadRule,
    },
}

/// Reads the files a configuration names, and nothing else.
///
/// # Errors
/// What cannot be used.
pub fn check(config: &Config) -> Result<(), Error> {
    config.mqtt.iter().try_for_each(|broker| login(broker, String::new()).map(drop))
}

fn login(broker: &Broker, client_id: String) -> Result<Login, Error> {
    let name = broker.name;
    let password = config::password(broker).map_err(|source| {
        let file = broker.password_file.clone().unwrap_or_default();
        Error::Password { name, file, source }
    })?;
    let user = broker.user.clone().map(|user| (user, password.unwrap_or_default()));
    let tls = broker.broker.tls.then(|| tls::client(&broker.tls.clone().unwrap_or_default()));
    let tls = tls.transpose().map_err(|source| Error::Tls { name, source })?;
    Ok(Login { client_id, user, tls })
}

/// The sources of a running gateway.
pub struct Sources {
    boards: Vec<Board>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// Looks at how the sources do.
#[derive(Clone)]
pub struct Reader(Vec<Board>);

impl Reader {
    /// In the order of the configuration.
    #[must_use]
    pub fn all(&self) -> Vec<Status> {
        self.0.iter().map(Board::read).collect()
    }
}

/// What sources have of the gateway.
pub(crate) struct Surroundings<'a> {
    pub gateway: Id,
    pub spool: &'a Path,
    pub custody: Custody,
    pub clock: Clock,
    pub refusals: Arc<Refusals>,
}

/// Starts to take messages. Whether the brokers can be reached is not asked.
///
/// # Errors
/// Files that cannot be used.
pub(crate) fn start(config: &Config, around: &Surroundings<'_>) -> Result<Sources, Error> {
    let numbers = Arc::new(Mutex::new(Numbers::default()));
    let began = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let mut sources = Sources { boards: Vec::new(), tasks: Vec::new(), stop };
    let mut ready = Vec::new();
    for broker in &config.mqtt {
        let name = broker.name;
        let mapper = broker.mapper(Some(around.gateway)).map_err(|source| Error::Rule { name, source })?;
        let client_id = broker.client_id.clone().unwrap_or_else(|| format!("weir-{}-{name}", around.gateway));
        ready.push((broker, mapper, login(broker, client_id)?));
    }
    for (broker, mapper, login) in ready {
        let board = Board::new(broker.name.to_string(), broker.broker.to_string(), around.clock.unix_ms());
        let session = format!("{} as {}\n", broker.broker, login.client_id);
        let worker = Worker {
            link: Link::start(broker, login, mapper.filters()),
            broker: broker.clone(),
            mapper,
            custody: around.custody.clone(),
            clock: around.clock.clone(),
            numbers: Arc::clone(&numbers),
            refusals: Arc::clone(&around.refusals),
            board: board.clone(),
            began,
            marker: around.spool.join(FOLDER).join(broker.name.as_str()),
            session,
            window: Window::default(),
            waiter: Waiter::new(),
        };
        sources.boards.push(board);
        sources.tasks.push(tokio::spawn(worker.run(stopped.clone())));
    }
    Ok(sources)
}

impl Sources {
    /// To look at how they do.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(self.boards.clone())
    }

    /// Whether all are at work; none ends by itself while custody takes anything.
    #[must_use]
    pub fn are_running(&self) -> bool {
        self.tasks.iter().all(|task| !task.is_finished())
    }

    /// Takes nothing more, acknowledges what was taken as soon as it is stored, says goodbye.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            let ended = task.abort_handle();
            if timeout(STOP_MAX, task).await.is_err() {
                ended.abort();
            }
        }
    }
}
