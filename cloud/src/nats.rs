//! How this process reaches NATS: addresses, identity, TLS. What is said over the connection is [`crate::log`]'s business.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use async_nats::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{Invalid, within};

/// `[nats]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Servers of one cluster, tried in turn: `nats://host:port`, or `tls://host:port`.
    pub servers: Vec<String>,
    /// A `.creds` file (JWT and seed), if the servers ask for one.
    pub credentials_file: Option<PathBuf>,
    /// Longest wait for a connection to one server.
    pub connect_timeout_ms: u64,
    /// Longest wait for the answer to one request.
    pub request_timeout_ms: u64,
    /// TLS beyond what `tls://` alone means.
    pub tls: Tls,
}

/// `[nats.tls]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of the authority that signed the servers' certificates; the system's authorities if absent.
    pub ca: Option<PathBuf>,
    /// PEM file of our own certificate, if the servers ask for one. Goes with `key`.
    pub certificate: Option<PathBuf>,
    /// PEM file of the key of `certificate`.
    pub key: Option<PathBuf>,
    /// Never talk to a server without TLS, whatever it offers.
    pub required: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            credentials_file: None,
            connect_timeout_ms: 5_000,
            request_timeout_ms: 5_000,
            tls: Tls::default(),
        }
    }
}

impl Config {
    /// Checks ranges and what needs each other.
    pub fn check(&self) -> Result<(), Invalid> {
        let form = "a list of one or more `nats://host:port` or `tls://host:port`";
        if self.servers.is_empty() {
            return Err(Invalid::new("nats.servers", "[]", form));
        }
        for server in &self.servers {
            let known_scheme = server.starts_with("nats://") || server.starts_with("tls://");
            if !known_scheme || server.parse::<async_nats::ServerAddr>().is_err() {
                return Err(Invalid::new("nats.servers", server, form));
            }
        }
        within("nats.connect_timeout_ms", self.connect_timeout_ms, 100, 600_000)?;
        within("nats.request_timeout_ms", self.request_timeout_ms, 100, 600_000)?;
        match (&self.tls.certificate, &self.tls.key) {
            (Some(cert), None) => {
                Err(Invalid::new("nats.tls.certificate", cert.display(), "only together with nats.tls.key"))
            }
            (None, Some(key)) => {
                Err(Invalid::new("nats.tls.key", key.display(), "only together with nats.tls.certificate"))
            }
            _ => Ok(()),
        }
    }
}

/// Why no client could be made. Servers that do not answer are not among the reasons: they are tried for ever.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials file cannot be read.
    #[error("nats.credentials_file: cannot read {}", file.display())]
    Credentials {
        /// The file of the setting.
        file: PathBuf,
        /// What was wrong with it.
        source: std::io::Error,
    },
    /// The client refused its options, for example a certificate file that cannot be read.
    #[error("cannot set up the NATS client for {servers}")]
    Client {
        /// The servers of the setting, without passwords.
        servers: String,
        /// What was wrong.
        source: async_nats::ConnectError,
    },
}

/// A client, and how often it has connected.
#[derive(Debug, Clone)]
pub struct Connection {
    /// To ask and to publish with.
    pub client: Client,
    /// Counts up whenever a connection has been made.
    made: watch::Receiver<u64>,
}

impl Connection {
    /// How often a connection has been made until now.
    #[must_use]
    pub fn made(&self) -> u64 {
        *self.made.borrow()
    }

    /// Resolves when a connection has been made more often than that: what the server kept for the one before may be gone.
    pub async fn made_after(&mut self, times: u64) {
        if self.made.wait_for(|made| *made > times).await.is_err() {
            // The client has ended, and makes none any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Makes a client that connects in the background, and again whenever the connection is lost, for ever.
///
/// # Errors
/// [`Error`]: the settings; not servers that do not answer.
pub async fn connect(config: &Config) -> Result<Connection, Error> {
    let trouble = Trouble { servers: without_passwords(&config.servers), told: Mutex::default() };
    let (counted, made) = watch::channel(0);
    let mut options = async_nats::ConnectOptions::new()
        .name("weir-cloud")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(Duration::from_millis(config.connect_timeout_ms))
        .request_timeout(Some(Duration::from_millis(config.request_timeout_ms)))
        .event_callback(move |event| {
            trouble.tell(&event);
            if matches!(event, async_nats::Event::Connected) {
                counted.send_modify(|made| *made += 1);
            }
            async {}
        });
    if let Some(file) = &config.credentials_file {
        let text = tokio::fs::read_to_string(file)
            .await
            .map_err(|source| Error::Credentials { file: file.clone(), source })?;
        options =
            options.credentials(&text).map_err(|source| Error::Credentials { file: file.clone(), source })?;
    }
    if let Some(ca) = &config.tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.certificate, &config.tls.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if config.tls.required {
        options = options.require_tls(true);
    }
    let client = options
        .connect(&config.servers)
        .await
        .map_err(|source| Error::Client { servers: without_passwords(&config.servers), source })?;
    Ok(Connection { client, made })
}

/// Tells of the connection's ups and downs, and of a trouble that goes on only once: an outage may last for days, and the client
/// tries every few seconds.
struct Trouble {
    servers: String,
    told: Mutex<Option<String>>,
}

impl Trouble {
    fn tell(&self, event: &async_nats::Event) {
        let servers = &self.servers;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            async_nats::Event::Connected => {
                *told = None;
                tracing::info!(servers, "connected to NATS");
            }
            async_nats::Event::Disconnected => {
                tracing::warn!(servers, "lost the connection to NATS; trying again");
            }
            // Our own doing, at the end.
            async_nats::Event::Draining | async_nats::Event::Closed => {}
            other => {
                let what = other.to_string();
                if told.as_deref() != Some(&what) {
                    tracing::warn!(servers, event = what, "trouble with NATS; trying again");
                    *told = Some(what);
                }
            }
        }
    }
}

/// Whether the connection stands right now.
pub fn is_connected(client: &Client) -> bool {
    client.connection_state() == async_nats::connection::State::Connected
}

/// `nats://user:password@host:port` without what stands before the `@`.
fn without_passwords(servers: &[String]) -> String {
    let shown: Vec<String> = servers
        .iter()
        .map(|server| match (server.split_once("://"), server.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => server.clone(),
        })
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_told() {
        let servers = ["nats://me:secret@a:4222".to_owned(), "tls://b:4222".to_owned()];
        assert_eq!(without_passwords(&servers), "nats://a:4222, tls://b:4222");
    }
}
