//! `[mqtt]`, `[[mqtt.listener]]` and `[[mqtt.client]]` of `gateway.toml`: every limit has its default here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use weir_contract::Id;

use super::topics;
use crate::config::value;

/// How devices and local clients connect, what they may do, and how much of everything there may be.
#[derive(Clone, Debug, Deserialize)]
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
    /// Unacknowledged messages of a connection at a time (MQTT 5: Receive Maximum).
    #[serde(deserialize_with = "value::between::<1, 65_535, _>")]
    pub inflight_max: u64,
    /// The longest payload on topics other than events; on those it is what the contract says.
    #[serde(deserialize_with = "value::bytes::<1, 1_048_576, _>")]
    pub payload_bytes_max: u64,
    /// The longest topic or filter.
    #[serde(deserialize_with = "value::bytes::<64, 65_535, _>")]
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
    /// Different filters of local subscribers since the start; each costs up to 2 MiB of queue while it is busy.
    #[serde(deserialize_with = "value::between::<0, 1_000, _>")]
    pub filters_max: u64,
    /// Connections that subscribe to more than their own time and commands, at a time.
    #[serde(deserialize_with = "value::between::<0, 10_000, _>")]
    pub subscribers_max: u64,
    /// Different topics handed to local subscribers or retained, since the start.
    #[serde(deserialize_with = "value::between::<0, 10_000_000, _>")]
    pub topics_max: u64,
    /// Payloads of retained messages together.
    #[serde(deserialize_with = "value::bytes::<0, 1_073_741_824, _>")]
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
    /// The listeners, or the default one.
    pub(super) fn listeners(&self) -> Vec<Listener> {
        if self.listeners.is_empty() { vec![Listener::default()] } else { self.listeners.clone() }
    }
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    match filters.iter().find(|filter| !topics::is_filter(filter) || !topics::is_routable(filter)) {
        None => Ok(filters),
        Some(wrong) => Err(serde::de::Error::custom(format!(
            "{wrong:?} is no topic filter: ASCII, not beginning with `$`, `+` alone in its level, `#` alone in the last"
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
