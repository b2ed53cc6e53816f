//! `[uplink]`: where the segments go.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weir_contract::Kind;

use crate::config::fit::Need;
use crate::config::value;

/// Where the segments go, and how hard to try.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// NATS servers of one cluster, `nats://` or `tls://`; any of them will do. A user and a password may stand in the first
    /// (`nats://user:password@host:4222`).
    #[serde(deserialize_with = "servers", serialize_with = "without_passwords")]
    pub servers: Vec<String>,
    /// A NATS credentials file (`.creds`). Read at every connect, so it can be replaced while the gateway runs.
    pub credentials_file: Option<PathBuf>,
    /// How to encrypt, and whom to believe.
    #[serde(deserialize_with = "tls")]
    pub tls: Option<Tls>,
    /// Whether to make the stream if it is not there. The cloud makes it with the settings it wants; whoever is first.
    pub create_stream: bool,
    /// Most bytes of a segment before compression.
    #[serde(deserialize_with = "value::bytes::<1_024, 262_144, _>", serialize_with = "value::as_bytes")]
    pub segment_bytes_max: u64,
    /// Least time between two segments that are not full. A lone uplink is never held back.
    #[serde(deserialize_with = "value::between::<0, 60_000, _>")]
    pub linger_ms: u64,
    /// zstd's level; 0 does not compress.
    #[serde(deserialize_with = "value::between::<0, 19, _>")]
    pub zstd_level: u64,
    /// Most bytes a second to send, on average; 0 is as many as the link takes.
    #[serde(deserialize_with = "value::bytes::<0, { 1 << 40 }, _>", serialize_with = "value::as_bytes")]
    pub max_bytes_per_s: u64,
    /// When a backlog has lasted this long, copies of what is new go ahead of it.
    #[serde(deserialize_with = "value::between::<0, 3_600_000, _>")]
    pub live_after_ms: u64,
    /// What may go ahead, in hundredths of what is sent of the backlog; 0 lets nothing go ahead.
    #[serde(deserialize_with = "value::between::<0, 100, _>")]
    pub live_share_percent: u64,
    /// Kinds of events that go ahead of others that are newer.
    #[serde(deserialize_with = "kinds", serialize_with = "as_texts")]
    pub urgent_kinds: Vec<Kind>,
    /// How long to wait for a connection to a server, its TLS handshake included.
    #[serde(deserialize_with = "value::between::<100, 600_000, _>")]
    pub connect_timeout_ms: u64,
    /// How long to wait for an acknowledgement before looking whether the segment has arrived.
    #[serde(deserialize_with = "value::between::<100, 600_000, _>")]
    pub ack_timeout_ms: u64,
    /// A connection that is silent for twice this is given up.
    #[serde(deserialize_with = "value::between::<1_000, 3_600_000, _>")]
    pub ping_interval_ms: u64,
    /// The first wait after a failure is somewhere up to this; it doubles with each further one.
    #[serde(deserialize_with = "value::between::<1, 60_000, _>")]
    pub backoff_ms: u64,
    /// The longest wait after a failure.
    #[serde(deserialize_with = "value::between::<1, 3_600_000, _>")]
    pub backoff_ms_max: u64,
    /// When the gateway is stopped: how long to try to deliver what is in the spool.
    #[serde(deserialize_with = "value::between::<0, 600_000, _>")]
    pub drain_ms_max: u64,
}

/// How to encrypt, and whom to believe. With this table only encrypted connections are made.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: whose signature under the server's certificate is believed; without it, the system's list.
    pub ca: Option<PathBuf>,
    /// PEM: our own certificate, then its issuers.
    pub certificate: Option<PathBuf>,
    /// PEM: its key. Only together with the certificate.
    pub key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            credentials_file: None,
            tls: None,
            create_stream: true,
            segment_bytes_max: 262_144,
            linger_ms: 10,
            zstd_level: 1,
            max_bytes_per_s: 0,
            live_after_ms: 10_000,
            live_share_percent: 25,
            urgent_kinds: vec!["limit-crossed".parse().expect("it is a name")],
            connect_timeout_ms: 10_000,
            ack_timeout_ms: 30_000,
            ping_interval_ms: 30_000,
            backoff_ms: 250,
            backoff_ms_max: 10_000,
            drain_ms_max: 5_000,
        }
    }
}

impl Config {
    /// What may be in memory: a segment is gathered, compressed, and under way; records that were read for it; and what goes
    /// ahead, which is smaller.
    pub(crate) fn needs(&self) -> Vec<Need> {
        vec![Need::bytes("uplink.segment_bytes_max", self.segment_bytes_max, 9)]
    }
}

/// For people: what is shown may be copied into a question.
fn without_passwords<S: Serializer>(servers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(servers.iter().map(|server| match (server.find("://"), server.rfind('@')) {
        (Some(scheme), Some(host)) => format!("{}***{}", &server[..scheme + 3], &server[host..]),
        _ => server.clone(),
    }))
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Kind>, D::Error> {
    use serde::de::Error;
    const KINDS_MAX: usize = 16;
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.len() > KINDS_MAX {
        return Err(D::Error::custom(format!("{} kinds are more than {KINDS_MAX}", texts.len())));
    }
    let kind = |text: &String| {
        text.parse().map_err(|bad| D::Error::custom(format!("{text:?} is no kind of event: {bad}")))
    };
    texts.iter().map(kind).collect()
}

fn as_texts<S: Serializer>(kinds: &[Kind], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(kinds.iter().map(ToString::to_string))
}

fn tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Tls>, D::Error> {
    let tls = Tls::deserialize(deserializer)?;
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(serde::de::Error::custom("certificate and key: only together"));
    }
    Ok(Some(tls))
}

fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    use serde::de::Error;
    let servers = Vec::<String>::deserialize(deserializer)?;
    if servers.is_empty() {
        return Err(D::Error::custom("at least one server, such as \"nats://127.0.0.1:4222\""));
    }
    for server in &servers {
        let known = ["nats://", "tls://"].iter().any(|scheme| server.starts_with(scheme));
        let address =
            server.parse::<async_nats::ServerAddr>().ok().filter(|address| !address.host().is_empty());
        if !known || address.is_none() {
            return Err(D::Error::custom("not a server; say \"nats://host:4222\" or \"tls://host:4222\""));
        }
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_configured_is_the_local_server_in_plain() {
        let config: Config = toml::from_str("").unwrap();
        assert_eq!(config.servers, ["nats://127.0.0.1:4222"]);
        assert!(config.tls.is_none() && config.credentials_file.is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_is_allowed() {
        let cases = [
            ("servers = []", "at least one server"),
            ("servers = [\"http://x\"]", "say \"nats://host:4222\""),
            ("servers = [\"nats://\"]", "not a server"),
            ("segment_bytes_max = \"1 MiB\"", "between 1 KiB and 256 KiB"),
            ("zstd_level = 22", "between 0 and 19"),
            ("live_share_percent = 101", "between 0 and 100"),
            ("urgent_kinds = [\"Fire!\"]", "is no kind of event"),
            ("server = \"nats://x\"", "servers"),
            ("[tls]\ncert = \"x\"", "certificate"),
        ];
        for (text, said) in cases {
            let error = toml::from_str::<Config>(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
