//! `[source]` and `[[source.mqtt]]` of `gateway.toml`: every limit has its default here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weir_contract::Id;

use super::map::{BadRule, Mapper, Preset, Rule};
use crate::config::fit::Need;
use crate::config::value;

/// Most brokers.
const SOURCES_MAX: usize = 16;
/// Most rules of one.
const RULES_MAX: usize = 256;
/// Most names of one.
const NAMES_MAX: usize = 4096;
/// A device's place in the tables that number its events.
const DEVICE_BYTES: u64 = 160;
/// The longest password.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Where events come from beside our own listeners.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Other people's brokers.
    #[serde(deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub mqtt: Vec<Broker>,
}

/// Somebody else's broker, and what its messages mean.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// What it is called in logs, metrics and status; unique among the brokers.
    #[serde(default = "name_default", deserialize_with = "value::id", serialize_with = "value::as_text")]
    pub name: Id,
    /// `mqtt://host:1883`, or `mqtts://host:8883` for TLS.
    pub broker: Address,
    /// Which MQTT is spoken.
    #[serde(default)]
    pub version: Version,
    /// Under which the broker keeps what we have not acknowledged; unique among its clients, for ever. Without it `weir-` and the
    /// gateway's id and this name.
    #[serde(deserialize_with = "client_id", default)]
    pub client_id: Option<String>,
    /// Whom to log in as.
    pub user: Option<String>,
    /// With which password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Or: a file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// How to encrypt, and whom to believe; only with `mqtts://`.
    #[serde(deserialize_with = "tls", default)]
    pub tls: Option<Tls>,
    /// Silence for which the connection is tried with a ping.
    #[serde(default = "keep_alive_default", deserialize_with = "value::between::<5_000, 3_600_000, _>")]
    pub keep_alive_ms: u64,
    /// To connect, TLS and CONNACK included.
    #[serde(default = "connect_timeout_default", deserialize_with = "value::between::<1_000, 600_000, _>")]
    pub connect_timeout_ms: u64,
    /// Longest wait between two tries to connect.
    #[serde(default = "backoff_default", deserialize_with = "value::between::<10, 3_600_000, _>")]
    pub backoff_ms_max: u64,
    /// Most messages that are taken and not acknowledged yet.
    #[serde(default = "inflight_default", deserialize_with = "value::between::<1, 65_535, _>")]
    pub inflight_max: u64,
    /// The longest message that is read at all.
    #[serde(
        default = "packet_default",
        deserialize_with = "value::bytes::<65_536, 268_435_455, _>",
        serialize_with = "value::as_bytes"
    )]
    pub packet_bytes_max: u64,
    /// The longest payload that rules are asked about.
    #[serde(
        default = "payload_default",
        deserialize_with = "value::bytes::<1, 16_777_216, _>",
        serialize_with = "value::as_bytes"
    )]
    pub payload_bytes_max: u64,
    /// What becomes of retained messages that were there before we subscribed.
    #[serde(default)]
    pub retained: Retained,
    /// Rules of ours for what people have at home; after those of the file.
    #[serde(default)]
    pub presets: Vec<Preset>,
    /// Names of devices, for what rules call them.
    #[serde(
        default,
        deserialize_with = "names",
        serialize_with = "names_as_text",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub names: BTreeMap<String, Id>,
    /// What messages mean; the first that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<Rule>,
}

fn name_default() -> Id {
    "mqtt".parse().expect("it is a name")
}

fn keep_alive_default() -> u64 {
    60_000
}

fn connect_timeout_default() -> u64 {
    10_000
}

fn backoff_default() -> u64 {
    10_000
}

fn inflight_default() -> u64 {
    256
}

fn packet_default() -> u64 {
    1 << 20
}

fn payload_default() -> u64 {
    64 << 10
}

/// How to encrypt, and whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: whose signature under the broker's certificate is believed; without it, the system's list.
    pub ca: Option<PathBuf>,
    /// PEM: our own certificate, then its issuers.
    pub certificate: Option<PathBuf>,
    /// PEM: its key. Only together with the certificate.
    pub key: Option<PathBuf>,
}

/// Which MQTT is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Version {
    /// 3.1.1
    #[default]
    #[serde(rename = "3.1.1")]
    V4,
    /// 5
    #[serde(rename = "5")]
    V5,
}

/// What becomes of retained messages that were there before we subscribed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retained {
    /// They are left alone: they are told again at every connect, and nobody knows when they were true.
    #[default]
    Ignore,
    /// They are taken as if they were new.
    Take,
}

/// `scheme://host:port`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// With TLS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let host = &self.host;
        if host.contains(':') {
            return write!(f, "{scheme}://[{host}]:{}", self.port);
        }
        write!(f, "{scheme}://{host}:{}", self.port)
    }
}

impl std::str::FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Address, &'static str> {
        const WRONG: &str = "not a broker; say \"mqtt://host:1883\", or \"mqtts://host:8883\" for TLS";
        if text.contains('@') {
            return Err(
                "a broker's address holds no password, because it is shown; say `user` and `password_file`",
            );
        }
        let (tls, rest) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(WRONG),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let default = if tls { 8883 } else { 1883 };
        let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, default),
            Some(Some((host, port))) => {
                (host, port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(WRONG)?)
            }
            Some(None) => return Err(WRONG),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, port.parse().map_err(|_| WRONG)?),
                None => (rest, default),
            },
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(is_host) || port == 0 {
            return Err(WRONG);
        }
        Ok(Address { tls, host: host.to_owned(), port })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is shown to nobody.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// What it is.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl Config {
    /// Holds together what stands in different places.
    ///
    /// # Errors
    /// What does not go together, in which broker, and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for broker in &self.mqtt {
            let name = broker.name;
            let wrong = |what| Err(Error::Broker { name, what });
            if !names.insert(name) {
                return wrong("there are two of that name; give each a `name` of its own");
            }
            if broker.rule.is_empty() && broker.presets.is_empty() {
                return wrong("neither `presets` nor a `rule`: nothing would be taken");
            }
            if broker.rules().len() > RULES_MAX {
                return wrong("at most 256 rules are allowed, those of presets included");
            }
            if broker.password.is_some() && broker.password_file.is_some() {
                return wrong("`password` or `password_file`, not both");
            }
            if broker.user.is_none() && (broker.password.is_some() || broker.password_file.is_some()) {
                return wrong("a password needs a `user`");
            }
            if broker.tls.is_some() && !broker.broker.tls {
                return wrong("`tls` needs an address that begins with mqtts://");
            }
            if broker.payload_bytes_max > broker.packet_bytes_max {
                return wrong("payload_bytes_max: at most packet_bytes_max is allowed");
            }
            let mapper = broker.mapper(None).map_err(|source| Error::Rule { name, source })?;
            if mapper.filters().is_empty() {
                return wrong("every rule takes nothing: nothing would be subscribed to");
            }
        }
        Ok(())
    }

    /// What may be in memory: a packet that is read and one that is mapped, messages that wait for the disk, devices' numbers.
    pub(crate) fn needs(&self) -> Vec<Need> {
        if self.mqtt.is_empty() {
            return Vec::new();
        }
        let sum = |each: fn(&Broker) -> u64| self.mqtt.iter().map(each).fold(0, u64::saturating_add);
        let message = |broker: &Broker| broker.inflight_max.saturating_mul(512);
        vec![
            Need::bytes("source.mqtt.packet_bytes_max", sum(|broker| broker.packet_bytes_max), 3),
            // JSON that has been read takes up to sixteen times as much as its text.
            Need::bytes("source.mqtt.payload_bytes_max", sum(|broker| broker.payload_bytes_max), 16),
            Need::bytes("source.mqtt.inflight_max", sum(message), 1),
            Need::count("source.mqtt", super::numbers::DEVICES_MAX as u64, DEVICE_BYTES),
        ]
    }
}

impl Broker {
    /// Its own rules, then those of its presets.
    pub fn rules(&self) -> Vec<Rule> {
        self.rule.iter().cloned().chain(self.presets.iter().flat_map(|preset| preset.rules())).collect()
    }

    /// Its rules, read. Nobody is `gateway`.
    ///
    /// # Errors
    /// The first rule that is none; there is none after [`Config::check`].
    pub fn mapper(&self, gateway: Option<Id>) -> Result<Mapper, BadRule> {
        Mapper::new(&self.rules(), &self.names, gateway)
    }
}

/// What is wrong with `[[source.mqtt]]`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that do not go together.
    #[error("[[source.mqtt]] {name}: {what}")]
    Broker {
        /// Which broker.
        name: Id,
        /// What is wrong, and what is allowed.
        what: &'static str,
    },
    /// A rule.
    #[error("[[source.mqtt]] {name}: a rule")]
    Rule {
        /// Which broker.
        name: Id,
        /// What is wrong with it.
        source: BadRule,
    },
}

/// `[source.mqtt]` is one broker, `[[source.mqtt]]` several.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Broker>, D::Error> {
    struct OneOrMore;
    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<Broker>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("[source.mqtt], or [[source.mqtt]] for each of several brokers")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Broker>, A::Error> {
            Ok(vec![Broker::deserialize(MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Broker>, A::Error> {
            let mut brokers = Vec::new();
            while let Some(broker) = seq.next_element()? {
                brokers.push(broker);
                if brokers.len() > SOURCES_MAX {
                    return Err(A::Error::custom(format!("at most {SOURCES_MAX} brokers are allowed")));
                }
            }
            Ok(brokers)
        }
    }
    deserializer.deserialize_any(OneOrMore)
}

fn client_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let id = String::deserialize(deserializer)?;
    if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
        return Err(D::Error::custom("a client id has 1 to 128 bytes and no control characters"));
    }
    Ok(Some(id))
}

fn tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Tls>, D::Error> {
    let tls = Tls::deserialize(deserializer)?;
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(D::Error::custom("certificate and key: only together"));
    }
    Ok(Some(tls))
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Id>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    if texts.len() > NAMES_MAX {
        return Err(D::Error::custom(format!("at most {NAMES_MAX} names are allowed")));
    }
    let id = |(called, text): (String, String)| match text.parse() {
        Ok(id) => Ok((called, id)),
        Err(bad) => Err(D::Error::custom(format!("{text:?} is no identifier: {bad}"))),
    };
    texts.into_iter().map(id).collect()
}

fn names_as_text<S: Serializer>(names: &BTreeMap<String, Id>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(names.iter().map(|(called, id)| (called, id.to_string())))
}

/// The password, if any.
///
/// # Errors
/// A file that cannot be read, or whose first line is no password.
pub fn password(broker: &Broker) -> Result<Option<String>, std::io::Error> {
    let Some(file) = &broker.password_file else {
        return Ok(broker.password.as_ref().map(|password| password.expose().to_owned()));
    };
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() || line.len() > PASSWORD_BYTES_MAX {
        let what = format!("its first line is to be the password, 1 to {PASSWORD_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    }
    Ok(Some(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
            format!("{error}: {cause}")
        })?;
        Ok(config)
    }

    const LEAST: &str = "broker = \"mqtt://b\"\npresets = [\"weir\"]\n";

    #[test]
    fn one_broker_or_several_may_be_named() {
        let one = read(&format!("[mqtt]\n{LEAST}")).unwrap();
        assert_eq!(
            (one.mqtt[0].name.as_str(), one.mqtt[0].broker.to_string()),
            ("mqtt", "mqtt://b:1883".to_owned())
        );
        let two = read(&format!("[[mqtt]]\nname = \"a\"\n{LEAST}[[mqtt]]\nname = \"b\"\n{LEAST}")).unwrap();
        assert_eq!(two.mqtt.len(), 2);
        assert_eq!(two.needs().len(), 4);
        assert!(read("").unwrap().needs().is_empty());
    }

    #[test]
    fn addresses_are_read_and_shown_the_same() {
        for (text, shown) in [
            ("mqtt://h", "mqtt://h:1883"),
            ("mqtts://h/", "mqtts://h:8883"),
            ("mqtt://[::1]:99", "mqtt://[::1]:99"),
            ("mqtts://1.2.3.4:8884", "mqtts://1.2.3.4:8884"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for wrong in [
            "h:1883",
            "tcp://h",
            "mqtt://",
            "mqtt://h:0",
            "mqtt://h:x",
            "mqtt://a b",
            "mqtt://u:p@h",
            "mqtt://[::1",
        ] {
            wrong.parse::<Address>().expect_err(wrong);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_is_allowed() {
        let cases = [
            ("[mqtt]\npresets = [\"weir\"]".to_owned(), "missing field `broker`"),
            ("[mqtt]\nbroker = \"mqtt://u:p@h\"".to_owned(), "line 2"),
            ("[mqtt]\nbroker = \"http://h\"".to_owned(), "say \"mqtt://host:1883\""),
            ("[mqtt]\nbroker = \"mqtt://h\"".to_owned(), "nothing would be taken"),
            (format!("[mqtt]\n{LEAST}presets = 1"), "duplicate key"),
            (format!("[[mqtt]]\n{LEAST}[[mqtt]]\n{LEAST}"), "a `name` of its own"),
            (format!("[mqtt]\n{LEAST}password = \"x\""), "needs a `user`"),
            (format!("[mqtt]\n{LEAST}user = \"u\"\npassword = \"x\"\npassword_file = \"f\""), "not both"),
            (format!("[mqtt]\n{LEAST}tls.ca = \"x\""), "begins with mqtts://"),
            (format!("[mqtt]\n{LEAST}tls.key = \"x\""), "only together"),
            (format!("[mqtt]\n{LEAST}version = \"4\""), "expected `3.1.1` or `5`"),
            (format!("[mqtt]\n{LEAST}inflight_max = 0"), "between 1 and 65535"),
            (format!("[mqtt]\n{LEAST}payload_bytes_max = \"2 MiB\""), "at most packet_bytes_max"),
            (format!("[mqtt]\n{LEAST}names = {{ a = \"b c\" }}"), "is no identifier"),
            ("[mqtt]\nbroker = \"mqtt://h\"\npresets = [\"zigbee\"]".to_owned(), "`zigbee2mqtt`"),
            (
                format!(
                    "[mqtt]\n{LEAST}[[mqtt.rule]]\ntopic = \"a/{{x}}\"\nreading = [{{ sensor = \"s\" }}]"
                ),
                "line 4",
            ),
        ];
        for (text, said) in cases {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(said), "{text}\n{error}");
        }
    }

    #[test]
    fn a_password_is_shown_to_nobody() {
        let config = read(&format!("[mqtt]\n{LEAST}user = \"u\"\npassword = \"se cret\"")).unwrap();
        let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
        assert!(shown.contains("***") && !shown.contains("cret"), "{shown}");
        assert_eq!(password(&config.mqtt[0]).unwrap().as_deref(), Some("se cret"));
    }
}
