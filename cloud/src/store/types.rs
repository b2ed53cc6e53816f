//! What the store answers, in the words of the contract.
//!
//! Times are Unix milliseconds (`…_ms`), never beyond year 9999 ([`TIME_MS_MAX`]). Boots and incarnations are opaque 64-bit
//! numbers: in JSON they belong in strings. Bodies are raw CBOR, as the device wrote them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use weir_contract::time::Clock;
use weir_contract::{Id, Kind};

/// 9999-12-31T23:59:59.999Z. Later times, which only a mad clock gives, are kept as this one, so that every time that
/// leaves the store can be written as RFC 3339.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Where in a boot an event stands, and when it was observed: what every value of a state can be traced back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The boot the event belongs to.
    pub boot: u64,
    /// Its number in that boot.
    pub seq: u32,
    /// Its wall time.
    pub at_ms: u64,
    /// Whose clock `at_ms` comes from.
    pub clock: Clock,
}

/// One line of the list of devices.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSummary {
    /// The device. Gateways are devices too: they report on themselves.
    pub device: Id,
    /// Where it was last heard, by time of receipt; `None` if it is only known by what others said of it.
    pub heard: Option<Place>,
    /// Whether it is connected to a gateway now; `None` if no gateway ever spoke of it.
    pub connected: Option<bool>,
    /// Wall time of its latest event.
    pub last_event_at_ms: Option<u64>,
    /// When a gateway last took an uplink of it.
    pub last_received_at_ms: Option<u64>,
    /// Firmware version of its latest boot that told one.
    pub firmware: Option<String>,
    /// Boots known of.
    pub boots: u64,
    /// How its numbers are accounted for, over all boots.
    pub account: Account,
}

/// A page of devices, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DevicesPage {
    /// In the order of their names.
    pub devices: Vec<DeviceSummary>,
    /// Ask with `after` = this for the next page; `None` if there is none.
    pub next: Option<Id>,
}

/// The law of conservation: of the numbers 1 to the highest one heard of, each is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Stored events.
    pub events: u64,
    /// Numbers that are not stored and that the ledger says were lost.
    pub lost: u64,
    /// Numbers that are neither: on their way, or a defect.
    pub missing: u64,
}

/// Where an uplink was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Where the gateway stands.
    pub site: Id,
    /// The gateway.
    pub gateway: Id,
}

/// What a device is, as far as its events tell: now, or at a moment of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceState {
    /// The device.
    pub device: Id,
    /// The moment asked for: events observed at it or before it have been folded. `None` is now.
    pub at_ms: Option<u64>,
    /// Where it was last heard.
    pub heard: Option<Place>,
    /// Whether it is connected to a gateway, by what the gateways say; `None` if none ever spoke of it.
    pub connection: Option<Connection>,
    /// The latest `device-started`.
    pub firmware: Option<Firmware>,
    /// The latest boot.
    pub boot: Option<u64>,
    /// By sensor: the latest reading in event order, and the latest crossing of a limit.
    pub sensors: BTreeMap<Id, Sensor>,
    /// The latest `config-applied`.
    pub config: Option<AppliedConfig>,
    /// What became of the latest commands, latest first; a bounded number of them.
    pub commands: Vec<CommandState>,
    /// How its numbers are accounted for, over all boots.
    pub account: Account,
    /// Wall time of its latest event.
    pub last_event_at_ms: Option<u64>,
    /// When a gateway last took an uplink of it.
    pub last_received_at_ms: Option<u64>,
}

/// What the gateways say of a device's connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Whether at least one gateway has a connection with it.
    pub connected: bool,
    /// The gateway that spoke last.
    pub gateway: Id,
    /// When that gateway saw the change.
    pub changed_at_ms: u64,
    /// The device's address when it connected, or why it disconnected.
    pub detail: String,
}

/// What a device said when it started.
#[derive(Debug, Clone, PartialEq)]
pub struct Firmware {
    /// Firmware version.
    pub fw: String,
    /// Hardware version.
    pub hw: String,
    /// Why it started.
    pub reason: String,
    /// The event that told.
    pub origin: Origin,
}

/// What is known of one sensor of a device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sensor {
    /// The latest reading.
    pub reading: Option<Reading>,
    /// The latest crossing of a limit.
    pub limit: Option<Limit>,
}

/// A value of a sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The value.
    pub value: Value,
    /// Its unit, by SenML (RFC 8428).
    pub unit: Option<String>,
    /// The event that told.
    pub origin: Origin,
}

/// What a reading can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Any other number. May be NaN or infinite, which JSON cannot say.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Words.
    Text(String),
}

/// A sensor's value went over a limit, or came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// The value that crossed it.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// Upwards?
    pub rising: bool,
    /// The event that told.
    pub origin: Origin,
}

/// A configuration that a device works by.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedConfig {
    /// Which one.
    pub revision: u64,
    /// What it says, raw CBOR.
    pub config: Vec<u8>,
    /// The event that told.
    pub origin: Origin,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandState {
    /// The command.
    pub id: String,
    /// `accepted`, `completed`, `failed`; by a gateway's word `expired`, `refused`.
    pub outcome: &'static str,
    /// Why, where it failed.
    pub reason: Option<String>,
    /// What came out of it, raw CBOR.
    pub result: Option<Vec<u8>>,
    /// The event that told.
    pub origin: Origin,
}

/// Which events of a device, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct EventQuery {
    /// Of this device.
    pub device: Id,
    /// Observed at this time or later.
    pub from_ms: Option<u64>,
    /// Observed before this time.
    pub to_ms: Option<u64>,
    /// Of this kind only.
    pub kind: Option<Kind>,
    /// Either way through the device's own order: by when its boots began, then by number.
    pub order: Order,
    /// At most so many, and at least 1.
    pub limit: usize,
    /// No more once their bodies have so many bytes: what a page may cost in memory, whatever a device makes of its events.
    pub body_bytes_max: usize,
    /// Go on behind this one.
    pub after: Option<Cursor>,
}

/// Which way through history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// A place in the history of a device: the event behind which to go on. It stays valid while data arrives. Opaque text to
/// those who pass it around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Ordinal.
    pub(crate) boot: u32,
    pub(crate) seq: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.boot, self.seq)
    }
}

/// A text that no query has returned as a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is what an earlier answer gave as `next`")]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (boot, seq) = text.split_once('.').ok_or(BadCursor)?;
        // Both are counted from 1.
        let part = |hex| u32::from_str_radix(hex, 16).ok().filter(|&part| part > 0).ok_or(BadCursor);
        Ok(Cursor { boot: part(boot)?, seq: part(seq)? })
    }
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventsPage {
    /// In the order asked for. May be fewer than asked for although there are more: a page also ends when many events had
    /// to be looked at to find those of the kind. Only `next` says whether there is more.
    pub events: Vec<StoredEvent>,
    /// Ask with `after` = this for the next page; `None` at the end of history.
    pub next: Option<Cursor>,
}

/// An event in history, with its way here.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Who observed it.
    pub device: Id,
    /// In which boot.
    pub boot: u64,
    /// Its number in that boot.
    pub seq: u32,
    /// Wall time when it was observed.
    pub at_ms: u64,
    /// Whose clock `at_ms` comes from.
    pub clock: Clock,
    /// When the gateway took the uplink it came in.
    pub received_at_ms: u64,
    /// What kind of fact.
    pub kind: Kind,
    /// Version of the body's schema.
    pub version: u16,
    /// One CBOR map with text keys, raw.
    pub body: Vec<u8>,
    /// Where the uplink was taken.
    pub place: Place,
    /// The gateway's incarnation in which it was taken.
    pub incarnation: u64,
    /// The uplink's number in that incarnation.
    pub number: u64,
    /// The stream sequence of the segment it came in.
    pub stream_sequence: u64,
    /// When the stream took that segment.
    pub logged_at_ms: u64,
}

/// One boot of a device and what became of its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct BootAccount {
    /// The boot.
    pub boot: u64,
    /// Wall time when it began, as far as is known: by the device, or the best estimate of the gateways. `None` for an
    /// earlier boot of a device without a clock; its place among the others is then known by the boot that sent it.
    pub began_at_ms: Option<u64>,
    /// Ranges of numbers, both ends included, whose events are stored.
    pub stored: Vec<(u32, u32)>,
    /// Ranges that the ledger says were lost, less what is stored all the same; no two overlap.
    pub lost: Vec<LostRange>,
    /// How many numbers the ledger's entries name, each as often as one names it: more than `lost` has where a loss was
    /// told of what is stored, or was told twice.
    pub told_lost: u64,
    /// Ranges below the highest number heard of that are in neither.
    pub missing: Vec<(u32, u32)>,
    /// Rows counted in the table of events, not taken from `stored`: that both agree is what a check wants to see.
    pub rows: u64,
    /// Events that arrived again and were dropped.
    pub duplicates: u64,
}

/// A range of numbers in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// First number.
    pub from: u32,
    /// Last number.
    pub to: u32,
    /// Why.
    pub reason: String,
    /// Who says so: the device itself, or a gateway.
    pub by: Id,
}

/// Something in the log that could not be read, or did not make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Ascending; pages go on `after` it.
    pub id: u64,
    /// The stream sequence of the message.
    pub stream_sequence: u64,
    /// When the stream took the message.
    pub logged_at_ms: u64,
    /// Its subject.
    pub subject: String,
    /// The uplink's number, where the segment could be read.
    pub number: Option<u64>,
    /// The uplink's device, where the segment could be read.
    pub device: Option<Id>,
    /// Boot and number of the event, where the uplink could be read.
    pub event: Option<(u64, u32)>,
    /// What was wrong, and where in `bytes`.
    pub reason: String,
    /// The smallest part that could not be read: the message, the uplink, or the event's body.
    pub bytes: Vec<u8>,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeadLettersPage {
    /// Oldest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Ask with `after` = this for the next page; `None` if there is none.
    pub next: Option<u64>,
}

/// Up to where the log has been folded. Committed with the writes it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Name of the stream.
    pub stream: String,
    /// When that stream was created, Unix nanoseconds: tells a stream from one that was made anew under its name.
    pub stream_created_ns: i64,
    /// Sequence of the last message folded.
    pub stream_sequence: u64,
    /// When the stream took that message, Unix nanoseconds: tells whether the stream still holds what was folded.
    pub logged_at_ns: i64,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoreStatus {
    /// `None` if nothing has been folded yet.
    pub position: Option<Position>,
    /// Devices known of, gateways among them.
    pub devices: u64,
    /// Events in history.
    pub events: u64,
    /// Events that arrived again and were dropped.
    pub duplicates: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// Bytes of the database file and of its write-ahead log.
    pub file_bytes: u64,
    /// What has arrived of each gateway, by site, gateway, lane and incarnation.
    pub gateways: Vec<GatewayStatus>,
}

/// What has arrived of one incarnation of a gateway's spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// The gateway.
    pub place: Place,
    /// Which of its rows of segments.
    pub lane: Id,
    /// The incarnation.
    pub incarnation: u64,
    /// The highest number of an uplink that has arrived.
    pub last_number: u64,
    /// Ranges of numbers, both ends included, that have not arrived: the first few of them. They are gone from the
    /// log, or the log was cut before it was read.
    pub missing: Vec<(u64, u64)>,
    /// How many numbers have not arrived.
    pub missing_count: u64,
    /// When the stream last took a segment of it.
    pub last_logged_at_ms: u64,
}
