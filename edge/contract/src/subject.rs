//! NATS: streams, subjects and headers.

use crate::{Id, Inline, NAME_LEN_MAX};

/// The stream that holds the segments: the log.
pub const STREAM: &str = "WEIR";
/// The subjects of [`STREAM`].
pub const STREAM_SUBJECTS: &str = "weir.1.segments.>";
/// The stream that holds commands until they are answered.
pub const COMMANDS_STREAM: &str = "WEIR_COMMANDS";
/// The subjects of [`COMMANDS_STREAM`].
pub const COMMANDS_STREAM_SUBJECTS: &str = "weir.1.commands.>";
/// The header that says how a segment is encoded; absent where it is plain CBOR.
pub const HEADER_ENCODING: &str = "Weir-Encoding";
/// The value of [`HEADER_ENCODING`] for a Zstandard frame (RFC 8878).
pub const ENCODING_ZSTD: &str = "zstd";

/// The lane that holds every uplink of a gateway, once and in the order of their numbers.
pub const LANE_MAIN: &str = "main";
/// The lane of copies that go ahead while `main` is behind: some of the newest uplinks, under the numbers they have in
/// `main`, where they come too. Whoever reads both meets some uplinks twice, and knows the events by their names.
pub const LANE_LIVE: &str = "live";

const SEGMENTS: &str = "weir.1.segments.";
const COMMANDS: &str = "weir.1.commands.";

/// The most bytes a subject of the contract can have.
pub const SUBJECT_LEN_MAX: usize = SEGMENTS.len() + 3 * NAME_LEN_MAX + 2;

/// Who a segment comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Where the gateway stands.
    pub site: Id,
    /// The gateway.
    pub gateway: Id,
    /// Which of the gateway's rows of segments: [`LANE_MAIN`] or [`LANE_LIVE`].
    pub lane: Id,
}

/// `weir.1.segments.{site}.{gateway}.{lane}`.
pub fn segments(source: &Source) -> Inline<SUBJECT_LEN_MAX> {
    Inline::concat(&[SEGMENTS, &source.site, ".", &source.gateway, ".", &source.lane])
}

/// Who publishes on `subject`, if it is a segments subject.
pub fn parse_segments(subject: &str) -> Option<Source> {
    let mut parts = subject.strip_prefix(SEGMENTS)?.split('.');
    let mut id = || parts.next()?.parse().ok();
    let source = Source { site: id()?, gateway: id()?, lane: id()? };
    parts.next().is_none().then_some(source)
}

/// `weir.1.commands.{site}.{gateway}.{device}`.
pub fn commands(site: &Id, gateway: &Id, device: &Id) -> Inline<SUBJECT_LEN_MAX> {
    Inline::concat(&[COMMANDS, site, ".", gateway, ".", device])
}

/// The commands to all devices of a gateway: what it reads of [`COMMANDS_STREAM`].
pub fn commands_of_gateway(site: &Id, gateway: &Id) -> Inline<SUBJECT_LEN_MAX> {
    Inline::concat(&[COMMANDS, site, ".", gateway, ".*"])
}

/// Whom a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Where the gateway stands.
    pub site: Id,
    /// The gateway that is to deliver it.
    pub gateway: Id,
    /// The device.
    pub device: Id,
}

/// Whom a command on `subject` is for, if it is a commands subject.
pub fn parse_commands(subject: &str) -> Option<Target> {
    let mut parts = subject.strip_prefix(COMMANDS)?.split('.');
    let mut id = || parts.next()?.parse().ok();
    let target = Target { site: id()?, gateway: id()?, device: id()? };
    parts.next().is_none().then_some(target)
}
