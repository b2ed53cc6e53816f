//! MQTT: our own listener around rumqttd's codec.
//!
//! A device publishes uplinks on `weir/1/{device}/events`. A PUBLISH with QoS 1 there is acknowledged after the uplink is
//! on disk (see [`crate::custody`]), and not a moment before. With QoS 0 it is taken without that promise. Everything
//! else that MQTT 3.1.1 and 5 offer is for programs beside the gateway, by rights the configuration names: other
//! topics, retained messages, wills, subscriptions to events. Those are delivered as well as can be and kept nowhere; a
//! PUBACK there means that the gateway has seen the message.
//!
//! From the outside in:
//!
//! * `listen`: sockets, TLS handshakes; `tls`; `crowd`: so many from each address
//! * `greeting`: CONNECT, who it is ([`passwords`], `logins`, `topics`), whether it may stay
//! * `connection`: from CONNACK to the will, bytes and time; `registry`: one connection for each client
//! * `session`: the protocol, without IO; `frame` and `answer` (packets, borrowed), `codec` (rumqttd's), `strict` and
//!   `properties` (what the standard forbids and that codec does not)
//! * `local`: queues for local subscribers, retained messages
//! * [`refusals`]: what was refused lately
//! * `trial`: all of the protocol against random clients, for tests and the fuzzer
//!
//! What is not there: QoS 2 (refused as each version allows), sessions that outlive a connection (Session Present is always
//! 0), shared subscriptions, subscription identifiers, topic aliases.
//!
//! Invariants:
//!
//! * Nothing a client sends makes anything panic; no client waits for another.
//! * Everything has a limit ([`Config`]): connections, bytes before CONNECT, packets, unacknowledged publishes, filters,
//!   topics, time for a handshake, a CONNECT, a packet, an answer to be read.
//! * When there is no room for an uplink its socket is no longer read: clients wait, nothing is dropped.
//! * A client is the device whose name it has, and publishes that device's events only.

mod answer;
mod codec;
mod config;
mod connection;
mod crowd;
mod frame;
mod greeting;
mod listen;
mod local;
mod logins;
pub mod passwords;
mod properties;
mod reader;
mod reason;
pub mod refusals;
mod registry;
mod session;
mod shared;
mod strict;
mod tls;
mod topics;
#[cfg(any(test, fuzzing))]
pub mod trial;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use self::config::{Config, Listener, NamedClient, Tls};
pub use self::reason::Reason;
pub use self::tls::Error as TlsError;

use self::crowd::Crowd;
use self::local::Local;
use self::passwords::Passwords;
use self::refusals::{Refusals, Refused};
use self::shared::{Shared, Times};
use self::topics::Rights;
use crate::clock::Clock;
use crate::custody::Custody;
use crate::downlink::Hub;
use crate::journal;

/// For all connections to have gone when the gateway goes down.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Why the listeners could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, or not ours.
    #[error("cannot listen for MQTT on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or a key.
    #[error("TLS on {address} cannot be set up")]
    Tls {
        /// Of which listener.
        address: SocketAddr,
        /// What is wrong.
        source: TlsError,
    },
    /// The password file.
    #[error("logins cannot be checked")]
    Passwords(#[from] passwords::Error),
    /// Two tables of `[[mqtt.client]]` for one name.
    #[error("`[[mqtt.client]]` names {name:?} twice: put what it may do into one table")]
    ClientTwice {
        /// The name.
        name: String,
    },
    /// More filters than there may be queues.
    #[error(
        "`subscribe` of all `[[mqtt.client]]` has {filters} different filters; allowed (mqtt.filters_max): {allowed}"
    )]
    Filters {
        /// How many there are.
        filters: usize,
        /// How many there may be.
        allowed: u64,
    },
}

/// The running listeners.
#[derive(Debug)]
pub struct Listeners {
    /// The real addresses, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    accepting: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// Looks at what was refused lately.
#[derive(Debug, Clone)]
pub struct RefusalsReader(Arc<Refusals>);

/// Reads the files that [`start`] would read: certificates, keys, passwords.
///
/// # Errors
/// As `start` would fail for them.
pub fn check(config: &Config) -> Result<(), Error> {
    for Listener { address, tls } in config.listeners() {
        if let Some(tls) = &tls {
            tls::acceptor(tls, config.password_file.is_some())
                .map_err(|source| Error::Tls { address, source })?;
        }
    }
    config.password_file.as_deref().map(Passwords::load).transpose()?;
    rights(config)?;
    Ok(())
}

/// Who may do more than a device may, by name.
fn rights(config: &Config) -> Result<HashMap<String, Arc<Rights>>, Error> {
    let filters: HashSet<&String> = config.clients.iter().flat_map(|client| &client.subscribe).collect();
    if filters.len() as u64 > config.filters_max {
        return Err(Error::Filters { filters: filters.len(), allowed: config.filters_max });
    }
    let mut rights = HashMap::new();
    for NamedClient { name, publish, subscribe } in &config.clients {
        let may = Arc::new(Rights { publish: publish.clone(), subscribe: subscribe.clone() });
        if rights.insert(name.clone(), may).is_some() {
            return Err(Error::ClientTwice { name: name.clone() });
        }
    }
    Ok(rights)
}

/// Binds every listener and starts to accept.
///
/// # Errors
/// An address that cannot be bound, certificates or passwords that cannot be read. Nothing is left running then.
pub async fn start(
    config: Config,
    custody: Custody,
    commands: Arc<Hub>,
    journal: journal::Sender,
    clock: Clock,
) -> Result<Listeners, Error> {
    listen::make_room_for_files(config.connections_max);
    let mut bound = Vec::new();
    for listener in config.listeners() {
        let address = listener.address;
        let asks_passwords = config.password_file.is_some();
        let acceptor = |tls| tls::acceptor(tls, asks_passwords);
        let has_to_prove =
            asks_passwords || listener.tls.as_ref().is_some_and(|tls| tls.require_client_certificate);
        let tls = listener.tls.as_ref().map(acceptor).transpose();
        let tls = tls.map_err(|source| Error::Tls { address, source })?;
        let socket = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let address = socket.local_addr().map_err(|source| Error::Listen { address, source })?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "this listener is plain and not on loopback: whoever reaches it can read and pretend to be any device; give it `tls`"
            );
        }
        if tls.is_some() && !has_to_prove && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "nobody has to prove who he is on this listener: whoever reaches it can pretend to be any device; \
                 give it `client_ca` and `require_client_certificate`, or set `mqtt.password_file`"
            );
        }
        bound.push((socket, address, tls));
    }
    let shared = Arc::new(share(&config, custody, commands, journal, clock)?);
    let mut listeners = Listeners { addresses: Vec::new(), accepting: Vec::new(), shared };
    for (socket, address, tls) in bound {
        tracing::info!(%address, tls = tls.is_some(), "listening for MQTT");
        listeners.addresses.push(address);
        let accepting = listen::accept(socket, tls, Arc::clone(&listeners.shared));
        listeners.accepting.push(tokio::spawn(accepting));
    }
    Ok(listeners)
}

fn share(
    config: &Config,
    custody: Custody,
    commands: Arc<Hub>,
    journal: journal::Sender,
    clock: Clock,
) -> Result<Shared, Error> {
    // Every limit has been checked to be far below that.
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let local = local::Limits {
        subscribers: size(config.subscribers_max),
        retained: size(config.topics_max),
        retained_bytes: size(config.retained_bytes_max),
    };
    let session_limits = config.session_limits();
    let passwords = config.password_file.as_deref().map(Passwords::load).transpose()?;
    Ok(Shared {
        limits: session_limits,
        times: Times {
            keep_alive_max: Duration::from_millis(config.keep_alive_ms_max),
            connect: Duration::from_millis(config.connect_timeout_ms),
            handshake: Duration::from_millis(config.handshake_timeout_ms),
            packet: Duration::from_millis(config.packet_timeout_ms),
        },
        gateway: config.gateway,
        rights: rights(config)?,
        passwords,
        custody,
        commands,
        journal,
        clock,
        local: Local::new(config.clients.iter().flat_map(|client| client.subscribe.clone()), local),
        registry: Arc::default(),
        refusals: Arc::default(),
        connections: Arc::new(Semaphore::new(size(config.connections_max))),
        connections_max: u32::try_from(config.connections_max).unwrap_or(u32::MAX),
        crowd: Crowd::new(config.connections_per_address_max),
        closing: Semaphore::const_new(0),
        numbers: AtomicU32::new(1),
    })
}

impl Listeners {
    /// What was refused lately.
    #[must_use]
    pub fn refusals(&self) -> RefusalsReader {
        RefusalsReader(Arc::clone(&self.shared.refusals))
    }

    /// Whether every address is still listened on; none is given up by itself.
    #[must_use]
    pub fn are_accepting(&self) -> bool {
        self.accepting.iter().all(|accepting| !accepting.is_finished())
    }

    /// How many connections there are, those still shaking hands included.
    #[must_use]
    pub fn connections(&self) -> usize {
        (self.shared.connections_max as usize).saturating_sub(self.shared.connections.available_permits())
    }

    /// Accepts nothing more, reads nothing more, acknowledges what was sent before as soon as it is stored, says goodbye
    /// (MQTT 5), and returns when every connection has gone. Stop custody after this, not before.
    pub async fn shutdown(self) {
        self.shared.closing.close();
        for accepting in self.accepting {
            // It ends at once; if it panicked, there is nothing more to end.
            drop(accepting.await);
        }
        self.shared.registry.end_all(Reason::ServerShuttingDown);
        let all_gone = self.shared.connections.acquire_many(self.shared.connections_max);
        if timeout(SHUTDOWN, all_gone).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

impl RefusalsReader {
    /// To add to it, what comes from elsewhere.
    pub(crate) fn shared(&self) -> Arc<Refusals> {
        Arc::clone(&self.0)
    }

    /// Oldest first; at most [`refusals::KEPT_MAX`].
    #[must_use]
    pub fn all(&self) -> Vec<Refused> {
        self.0.all()
    }
}
