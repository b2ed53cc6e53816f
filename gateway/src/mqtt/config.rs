//! `[mqtt]`, `[[mqtt.listener]]` and `[[mqtt.client]]` of `gateway.toml`: every limit has its default here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use weir_contract::Id;
use weir_contract::topic::TOPIC_LEN_MAX;

use super::connection::CONNECTION_BYTES;
use super::{local, passwords, session, topics};
use crate::config::fit::Need;
use crate::config::value;

/// What a TLS connection holds beside: received and not yet read, written and not yet sent.
const TLS_BYTES: u64 = 64 * 1024;

/// How devices and local clients connect, what they may do, and how much of everything there may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen; without any, plain on 127.0.0.1:1883.
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// What clients may do beyond being a device.
    #[serde(rename = "client")]
    pub clients: Vec<NamedClient>,
    /// Whose events are not taken over MQTT, whoever sends them: the gateway's own, in which it tells about others.
    #[serde(skip)]
    pub gateway: Option<Id>,
    /// Lines of `name:hash` (`weir-gateway hash-password`). With such a file everybody who shows no client certificate
    /// has to log in, and is who the user name says.
    pub password_file: Option<PathBuf>,
    /// Connections at a time, those still shaking hands included.
    #[serde(deserialize_with = "value::between::<1, 1_000_000, _>")]
    pub connections_max: u64,
    /// Of these, from one address (of IPv6: from one /64).
    #[serde(deserialize_with = "value::between::<1, 1_000_000, _>")]
    pub connections_per_address_max: u64,
    /// Unacknowledged messages of a connection at a time (MQTT 5: Receive Maximum).
    #[serde(deserialize_with = "value::between::<1, 65_535, _>")]
    pub inflight_max: u64,
    /// The longest payload on topics other than events; on those it is what the contract says.
    #[serde(deserialize_with = "value::bytes::<1, 1_048_576, _>", serialize_with = "value::as_bytes")]
    pub payload_bytes_max: u64,
    /// The longest topic or filter.
    #[serde(deserialize_with = "value::bytes::<64, 65_535, _>", serialize_with = "value::as_bytes")]
    pub topic_bytes_max: u64,
    /// Silence of one and a half times this ends a connection, whatever keep-alive it asked for.
    #[serde(deserialize_with = "value::between::<1_000, 65_535_000, _>")]
    pub keep_alive_ms_max: u64,
    /// From the accepted socket (after TLS, if any) to a CONNECT.
    #[serde(deserialize_with = "value::between::<10, 600_000, _>")]
    pub connect_timeout_ms: u64,
    /// For the TLS handshake.
    #[serde(deserialize_with = "value::between::<10, 600_000, _>")]
    pub handshake_timeout_ms: u64,
    /// For a packet once it has begun, and for a reader to take what is written to it.
    #[serde(deserialize_with = "value::between::<10, 600_000, _>")]
    pub packet_timeout_ms: u64,
    /// Filters one client may subscribe to at a time.
    #[serde(deserialize_with = "value::between::<1, 1_000, _>")]
    pub filters_per_client_max: u64,
    /// Different filters in `subscribe` of all clients together; each costs up to 1 MiB of queue while it is busy. What clients
    /// think of that is narrower costs nothing more.
    #[serde(deserialize_with = "value::between::<0, 1_000, _>")]
    pub filters_max: u64,
    /// Connections that subscribe to more than their own time and commands, at a time.
    #[serde(deserialize_with = "value::between::<0, 10_000, _>")]
    pub subscribers_max: u64,
    /// Topics with a retained message.
    #[serde(deserialize_with = "value::between::<0, 10_000_000, _>")]
    pub topics_max: u64,
    /// Retained messages together, with all they take.
    #[serde(deserialize_with = "value::bytes::<0, 1_073_741_824, _>", serialize_with = "value::as_bytes")]
    pub retained_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listeners: Vec::new(),
            clients: Vec::new(),
            gateway: None,
            password_file: None,
            connections_max: 10_000,
            // Half of them: a site behind one router may be that large, and who comes from elsewhere still finds a place.
            connections_per_address_max: 5_000,
            inflight_max: 1_024,
            payload_bytes_max: 65_536,
            topic_bytes_max: 256,
            keep_alive_ms_max: 3_600_000,
            connect_timeout_ms: 10_000,
            handshake_timeout_ms: 10_000,
            packet_timeout_ms: 60_000,
            filters_per_client_max: 16,
            filters_max: 32,
            subscribers_max: 64,
            topics_max: 32_768,
            retained_bytes_max: 8 * 1024 * 1024,
        }
    }
}

impl Config {
    /// The limits of a connection's session.
    pub(super) fn session_limits(&self) -> session::Limits {
        // Every limit has been checked to be far below that.
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        session::Limits {
            inflight: u16::try_from(self.inflight_max).unwrap_or(u16::MAX),
            payload_bytes: size(self.payload_bytes_max),
            topic_bytes: size(self.topic_bytes_max).max(TOPIC_LEN_MAX),
            filters: size(self.filters_per_client_max),
        }
    }

    /// What may be in memory with every connection busy and the spool full, so that each holds back what it has read. Not
    /// counted: the system's socket buffers.
    pub(crate) fn needs(&self) -> Vec<Need> {
        let tls = if self.listeners.iter().any(|listener| listener.tls.is_some()) { TLS_BYTES } else { 0 };
        let connection = CONNECTION_BYTES + tls + self.session_limits().memory_bytes();
        let logins = u64::from(self.password_file.is_some()) * passwords::MEMORY_BYTES;
        let message = self.session_limits().body_bytes() as u64;
        vec![
            Need::count("mqtt.connections_max", self.connections_max, connection),
            Need::count("mqtt.filters_max", self.filters_max, local::FEED_BYTES_MAX as u64 + message),
            Need::count(
                "mqtt.subscribers_max",
                self.subscribers_max,
                session::SUBSCRIBER_BYTES as u64 + 2 * message,
            ),
            Need::bytes("mqtt.retained_bytes_max", self.retained_bytes_max, 1),
            Need::bytes("mqtt.password_file", logins, 1),
        ]
    }

    /// The listeners, or the default one.
    pub(super) fn listeners(&self) -> Vec<Listener> {
        if self.listeners.is_empty() { vec![Listener::default()] } else { self.listeners.clone() }
    }
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `address:port`; port 0 takes a free one.
    pub address: SocketAddr,
    /// With this, TLS 1.2 and 1.3 only; without, plain.
    pub tls: Option<Tls>,
}

impl Default for Listener {
    fn default() -> Self {
        Listener { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883), tls: None }
    }
}

/// How a listener proves itself, and whom it believes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: the certificate, then its issuers.
    pub certificate: PathBuf,
    /// PEM: the key.
    pub key: PathBuf,
    /// PEM: who may have signed clients' certificates. A client that shows one is who its common name (CN) says.
    pub client_ca: Option<PathBuf>,
    /// Whether clients have to show one.
    #[serde(default)]
    pub require_client_certificate: bool,
}

/// What a client of this name may do beyond being the device of this name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NamedClient {
    /// CN of its certificate, or user name, or (where neither is asked for) client identifier.
    pub name: String,
    /// Filters of what it may publish.
    #[serde(default, deserialize_with = "filters")]
    pub publish: Vec<String>,
    /// Filters of what it may subscribe to.
    #[serde(default, deserialize_with = "filters")]
    pub subscribe: Vec<String>,
}

fn filters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let filters = Vec::<String>::deserialize(deserializer)?;
    match filters.iter().find(|filter| !topics::is_filter(filter) || !topics::is_served(filter)) {
        None => Ok(filters),
        Some(wrong) => Err(serde::de::Error::custom(format!(
            "{wrong:?} is no topic filter: not beginning with `$`, `+` alone in its level, `#` alone in the last"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_configured_is_loopback_and_plain() {
        let config: Config = toml::from_str("").unwrap();
        assert_eq!(config.listeners(), [Listener { address: "127.0.0.1:1883".parse().unwrap(), tls: None }]);
    }

    #[test]
    fn listeners_and_clients_are_read() {
        let config: Config = toml::from_str(
            r#"
            payload_bytes_max = "16 KiB"
            [[listener]]
            address = "127.0.0.1:0"
            [[listener]]
            address = "0.0.0.0:8883"
            tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem", require_client_certificate = true }
            [[client]]
            name = "dashboard"
            subscribe = ["weir/1/+/events", "plant/#"]
            "#,
        )
        .unwrap();
        assert_eq!(config.payload_bytes_max, 16_384);
        assert!(config.listeners[1].tls.as_ref().unwrap().require_client_certificate);
        assert_eq!(config.clients[0].subscribe, ["weir/1/+/events", "plant/#"]);
    }

    #[test]
    fn what_would_let_in_anybody_or_forget_a_right_is_refused() {
        let cases = [
            (
                "[[listener]]\naddress = \"127.0.0.1:0\"\n\
                 tls = { certificate = \"a.pem\", key = \"a.key\", client_ca = \"ca.pem\" }",
                "require_client_certificate",
            ),
            ("[[client]]\nname = \"x\"\n[[client]]\nname = \"x\"", "names \"x\" twice"),
        ];
        for (text, said) in cases {
            let error = super::super::check(&toml::from_str(text).unwrap()).expect_err(text);
            let said_in = |error: &dyn std::error::Error| error.to_string().contains(said);
            let source = std::error::Error::source(&error);
            assert!(said_in(&error) || source.is_some_and(said_in), "{text}: {error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_is_allowed() {
        let cases = [
            ("inflight_max = 0", "between 1 and 65535"),
            ("conections_max = 5", "connections_max"),
            ("[[client]]\nname = \"x\"\npublish = [\"a#\"]", "is no topic filter"),
            ("[[client]]\nname = \"x\"\nsubscribe = [\"$SYS/#\"]", "is no topic filter"),
            ("[[listener]]\naddress = \"localhost\"", "address"),
        ];
        for (text, said) in cases {
            let error = toml::from_str::<Config>(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
