//! The JSON shapes of the API: what the server writes and `weir` reads.
//!
//! - Times are RFC 3339 in UTC with milliseconds; [`Time`].
//! - Boots and incarnations are opaque 64-bit numbers and therefore strings of decimal digits.
//! - Ranges of numbers are `[first, last]`, both included.
//! - What is not known is `null`, never left out.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::json::Json;
use crate::times;

mod from_store;

/// A moment: Unix milliseconds inside, RFC 3339 outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-20T18:40:59.123Z"))]
pub struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&times::rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        times::parse_absolute(&text).map(Time).map_err(D::Error::custom)
    }
}

/// A 64-bit number as a string of decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, pattern = "^[0-9]{1,20}$", examples("13518518515158000001"))]
pub struct Opaque(pub u64);

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Opaque, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Opaque).map_err(|_| D::Error::custom("not a 64-bit number in decimal digits"))
    }
}

/// Every error, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs; stays the same.
    #[schema(examples("unknown-device"))]
    pub code: String,
    /// For people; names what was found and what is allowed.
    pub message: String,
}

/// A page of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Devices {
    /// In the order of their names.
    pub devices: Vec<Device>,
    /// Ask with `after` = this for the next page; `null` if there is none.
    pub next: Option<String>,
}

/// One line of the list of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its name.
    pub device: String,
    /// Site where it was last heard.
    pub site: Option<String>,
    /// Gateway that last heard it.
    pub gateway: Option<String>,
    /// Whether it is connected to a gateway; `null` if no gateway ever spoke of it.
    pub connected: Option<bool>,
    /// Time of its latest event.
    pub last_event_at: Option<Time>,
    /// When a gateway last took something of it.
    pub last_received_at: Option<Time>,
    /// Firmware version.
    pub firmware: Option<String>,
    /// Boots known of.
    pub boots: u64,
    /// Events stored.
    pub events: u64,
    /// Events that the ledger says were lost.
    pub lost: u64,
    /// Numbers that are neither stored nor in the ledger: on their way, or a defect.
    pub missing: u64,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Origin {
    /// When the event was observed.
    pub at: Time,
    /// Whose clock `at` is: `device`, `gateway`, or `unknown` (then `at` is an upper bound).
    pub clock: String,
    /// The boot of the event.
    pub boot: Opaque,
    /// Its number in that boot.
    pub seq: u32,
}

/// What a device is, now or at a moment of the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct State {
    /// Its name.
    pub device: String,
    /// The moment asked for; `null` is now.
    pub at: Option<Time>,
    /// Site where it was last heard.
    pub site: Option<String>,
    /// Gateway that last heard it.
    pub gateway: Option<String>,
    /// Whether it is connected to a gateway; `null` if no gateway ever spoke of it.
    pub connected: Option<bool>,
    /// When that changed.
    pub connection_changed_at: Option<Time>,
    /// The gateway that says so.
    pub connection_gateway: Option<String>,
    /// The address it connected from, or why it was disconnected.
    pub connection_detail: Option<String>,
    /// What it said when it last started.
    pub firmware: Option<Firmware>,
    /// Its latest boot.
    pub boot: Option<Opaque>,
    /// The latest reading of each sensor, in the order of events, not of arrival.
    pub sensors: BTreeMap<String, Sensor>,
    /// The configuration it works by.
    pub config: Option<AppliedConfig>,
    /// Its latest commands, latest first.
    pub commands: Vec<Command>,
    /// Events stored.
    pub events: u64,
    /// Events that the ledger says were lost.
    pub lost: u64,
    /// Numbers that are neither stored nor in the ledger.
    pub missing: u64,
    /// Time of its latest event.
    pub last_event_at: Option<Time>,
    /// When a gateway last took something of it.
    pub last_received_at: Option<Time>,
}

/// What a device said when it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Firmware {
    /// Firmware version.
    pub fw: String,
    /// Hardware version.
    pub hw: String,
    /// Why it started.
    pub reason: String,
    /// The event that told.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A sensor's latest reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sensor {
    /// A number, a string, `true` or `false`; `null` if only a crossed limit is known.
    #[schema(value_type = Option<Object>)]
    pub value: Json,
    /// Unit by SenML (RFC 8428).
    pub unit: Option<String>,
    /// When it was observed.
    pub at: Option<Time>,
    /// Whose clock `at` is.
    pub clock: Option<String>,
    /// The boot of the event.
    pub boot: Option<Opaque>,
    /// Its number in that boot.
    pub seq: Option<u32>,
    /// The latest crossing of a limit.
    pub limit: Option<Limit>,
}

/// A value went over a limit, or came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// The value that crossed it.
    #[schema(value_type = f64)]
    pub value: Json,
    /// The limit.
    #[schema(value_type = f64)]
    pub limit: Json,
    /// Upwards?
    pub rising: bool,
    /// The event that told.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A configuration that a device works by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppliedConfig {
    /// Which one: a number, or a string of digits beyond 2^53.
    #[schema(value_type = u64)]
    pub revision: Json,
    /// What it says.
    #[schema(value_type = Object)]
    pub config: Json,
    /// The event that told.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A command to a device, as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// What to do: `set-period`, `set-limit`, `restart`, `identify`, or what else the device knows.
    pub name: String,
    /// What the command takes, a map for those named above; `{}` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub args: Option<serde_json::Value>,
    /// How long there is to do it, in milliseconds; an hour if neither this nor `deadline` is said, 7 days at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Until when it may be begun: RFC 3339 or Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deadline: Option<serde_json::Value>,
    /// The gateway that is to deliver it; where the device was last heard, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// That gateway's site; the device's, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Its id, 1 to 64 bytes: the same id again is the same command, and done once. Made up if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A command that is in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandTaken {
    /// Its id: the device's state tells by it what becomes of the command.
    pub id: String,
    /// The device.
    pub device: String,
    /// Site of the gateway.
    pub site: String,
    /// The gateway that is to deliver it.
    pub gateway: String,
    /// Until when it may be begun, RFC 3339.
    pub deadline: String,
    /// Where it stands in the stream of commands.
    pub stream_sequence: u64,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Command {
    /// The command.
    pub id: String,
    /// `accepted`, `completed`, `failed`; by a gateway's word `expired`, `refused`.
    pub outcome: String,
    /// Why, where it failed.
    pub reason: Option<String>,
    /// What came out of it.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Json>,
    /// The event that told.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// In the order asked for. May be fewer than `limit` although there are more; only `next` tells.
    pub events: Vec<Event>,
    /// Ask with `after` = this for the next page; `null` at the end of history.
    pub next: Option<String>,
}

/// An event, with its way here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Who observed it.
    pub device: String,
    /// In which boot.
    pub boot: Opaque,
    /// Its number in that boot.
    pub seq: u32,
    /// When it was observed.
    pub at: Time,
    /// Whose clock `at` is: `device`, `gateway`, or `unknown` (then `at` is an upper bound).
    pub clock: String,
    /// When the gateway took it.
    pub received_at: Time,
    /// When the log took it.
    pub logged_at: Time,
    /// What kind of fact.
    #[schema(examples("reading-taken"))]
    pub kind: String,
    /// Version of the body's schema.
    pub version: u16,
    /// The fact: its CBOR as JSON. Byte strings are base64url without padding; whole numbers beyond ±2^53, NaN and the
    /// infinities are strings; tags are left out; what is nested too deep is `{"$cbor": base64url}`.
    #[schema(value_type = Object)]
    pub body: Json,
    /// Site of the gateway.
    pub site: String,
    /// The gateway that took it.
    pub gateway: String,
    /// The gateway's incarnation.
    pub incarnation: Opaque,
    /// The number of its uplink in that incarnation.
    pub number: u64,
    /// The stream sequence of the segment it came in.
    pub stream_sequence: u64,
}

/// What became of the numbers of each boot of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Boots {
    /// The device.
    pub device: String,
    /// Oldest first.
    pub boots: Vec<Boot>,
}

/// What became of the numbers of a boot: each is stored, lost or missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Boot {
    /// The boot.
    pub boot: Opaque,
    /// When it began, as far as is known.
    pub began_at: Option<Time>,
    /// Ranges whose events are stored.
    pub stored: Vec<(u32, u32)>,
    /// Ranges that the ledger says were lost.
    pub lost: Vec<Lost>,
    /// How many numbers the ledger's entries name, each as often as one names it: more than `lost` has where a loss was
    /// told of what is stored, or was told twice.
    pub told_lost: u64,
    /// Ranges below the highest number heard of that are in neither.
    pub missing: Vec<(u32, u32)>,
    /// Rows counted in the table of events, not taken from `stored`: a check that both agree.
    pub events: u64,
    /// Events that arrived again and were dropped.
    pub duplicates: u64,
}

/// A range in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// First number.
    pub from: u32,
    /// Last number.
    pub to: u32,
    /// Why.
    pub reason: String,
    /// Who says so: the device, or a gateway.
    pub by: String,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    /// Oldest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Ask with `after` = this for the next page; `null` if there is none.
    pub next: Option<u64>,
}

/// Something in the log that could not be read, or did not make sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Ascending.
    pub id: u64,
    /// The stream sequence of the message.
    pub stream_sequence: u64,
    /// When the log took the message.
    pub logged_at: Time,
    /// Its subject.
    pub subject: String,
    /// The uplink's number, where that could be read.
    pub number: Option<u64>,
    /// Its device, where that could be read.
    pub device: Option<String>,
    /// The event's boot, where that could be read.
    pub boot: Option<Opaque>,
    /// The event's number, where that could be read.
    pub seq: Option<u32>,
    /// What was wrong, and where in `bytes`.
    pub reason: String,
    /// The smallest part that could not be read, base64url.
    pub bytes: String,
}

/// How the service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// What this process does: `project`, `serve`, `all`.
    pub role: String,
    /// How far the log has been folded.
    pub position: Position,
    /// What the store holds.
    pub store: Store,
    /// The connection to NATS.
    pub nats: Nats,
}

/// How far the log has been folded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Position {
    /// The stream; `null` if nothing has been folded yet.
    pub stream: Option<String>,
    /// Sequence of the last message folded; 0 if none.
    pub stream_sequence: u64,
    /// Sequence of the last message the stream holds. This and the rest is `null` where this process does not read the log.
    pub stream_last_sequence: Option<u64>,
    /// Messages not folded yet; `null` while the log is not being read, as nobody knows then.
    pub lag_messages: Option<u64>,
    /// How old the last message folded is while there are others waiting; else 0. `null` as `lag_messages`.
    pub lag_seconds: Option<f64>,
    /// Whether the log is being read right now.
    pub reading: Option<bool>,
    /// Why not, if not.
    pub trouble: Option<String>,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Store {
    /// Devices known of, gateways among them.
    pub devices: u64,
    /// Events in history.
    pub events: u64,
    /// Events that arrived again and were dropped.
    pub duplicates: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// Bytes of the database.
    pub file_bytes: u64,
    /// What has arrived of each gateway.
    pub gateways: Vec<Gateway>,
}

/// What has arrived of one incarnation of a gateway's spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gateway {
    /// Where it stands.
    pub site: String,
    /// The gateway.
    pub gateway: String,
    /// Which of its rows of segments.
    pub lane: String,
    /// The incarnation.
    pub incarnation: Opaque,
    /// Highest number of an uplink that has arrived.
    pub last_number: u64,
    /// Ranges of numbers that have not arrived, the first few.
    pub missing: Vec<(u64, u64)>,
    /// How many numbers have not arrived.
    pub missing_count: u64,
    /// When the log last took a segment of it.
    pub last_logged_at: Time,
}

/// The connection to NATS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nats {
    /// Whether it stands; `null` in a process that has none.
    pub connected: Option<bool>,
}

/// Whether queries can be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether they can.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
}
