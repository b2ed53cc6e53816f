//! An uplink: one MQTT publish from a device to a gateway, some consecutive events of one boot.
//!
//! ```text
//! uplink = [boot, now / null, epoch / null, [1*256 event], ? via]
//! event  = [seq, at, kind, version, body]
//! ```
//!
//! Gateways store and forward it byte for byte, so what is read here in a gateway, in the cloud and in a test is what
//! the device wrote.

use crate::cbor::{self, HEAD_LEN_MAX, Items, Malformed, NESTING_MAX, NoRoom, Reader, What};
use crate::{Kind, NAME_LEN_MAX};

/// The most bytes an uplink can have.
pub const UPLINK_LEN_MAX: usize = 64 * 1024;
/// The most events an uplink can have.
pub const UPLINK_EVENTS_MAX: usize = 256;

/// The most bytes an uplink takes beside its events: array head, `boot`, `now`, `epoch`, events head, `via`.
pub const HEADER_LEN_MAX: usize = 1 + 3 * HEAD_LEN_MAX + 3 + HEAD_LEN_MAX;
/// The most bytes an event takes beside its body: array head, `seq`, `at`, `kind`, `version`.
pub const EVENT_OVERHEAD_MAX: usize = 1 + 5 + HEAD_LEN_MAX + (2 + NAME_LEN_MAX) + 3;

/// What the events of an uplink have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The power-up in which the events were observed: opaque, unique for the device, compared for equality only.
    pub boot: u64,
    /// Milliseconds since boot when sent; `None` if the events are of an earlier boot than the one that sends them.
    pub now: Option<u64>,
    /// Unix milliseconds at this boot's zero, if the device knows it.
    pub epoch: Option<u64>,
    /// Where `now` is `None`: a later boot, the one in which it is sent or one between them whose events are sent next.
    pub via: Option<u64>,
}

/// An immutable fact that a device observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its number within the boot: 1, 2, 3 …
    pub seq: u32,
    /// Milliseconds since boot when observed.
    pub at: u64,
    /// What kind of fact, in the past tense.
    pub kind: Kind,
    /// Version of the body's schema, from 1.
    pub version: u16,
    /// One CBOR map with text keys, raw; [`crate::body::Body::read`] reads the known ones.
    pub body: &'a [u8],
}

/// An uplink that has been read: well-formed throughout, its events consecutive.
#[derive(Debug, Clone, Copy)]
pub struct Uplink<'a> {
    /// What its events have in common.
    pub header: Header,
    bytes: &'a [u8],
    events_start: usize,
    first_seq: u32,
    len: u16,
}

impl<'a> Uplink<'a> {
    /// Reads and checks all of it, bodies for being well-formed maps with text keys only.
    ///
    /// # Errors
    /// [`Malformed`] says what the contract does not allow and where.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > UPLINK_LEN_MAX {
            return Err(Malformed { at: UPLINK_LEN_MAX, what: What::TooLong { len_max: UPLINK_LEN_MAX } });
        }
        let mut r = Reader::new(bytes);
        let mut items = r.array("an uplink: an array")?;
        r.must_have(&mut items, "boot")?;
        let boot = r.u64("boot: an unsigned integer")?;
        r.must_have(&mut items, "now")?;
        let now = r.optional_u64("now: an unsigned integer or null")?;
        r.must_have(&mut items, "epoch")?;
        let epoch = r.optional_u64("epoch: an unsigned integer or null")?;
        r.must_have(&mut items, "events")?;
        let events_start = r.position();
        let (first_seq, len) = check_events(&mut r)?;
        let via = if r.more(&mut items)? { Some(r.u64("via: an unsigned integer")?) } else { None };
        r.skip_rest(&mut items)?;
        r.end()?;
        Ok(Self { header: Header { boot, now, epoch, via }, bytes, events_start, first_seq, len })
    }

    /// Number of its first event.
    pub fn first_seq(&self) -> u32 {
        self.first_seq
    }

    /// Number of its last event.
    pub fn last_seq(&self) -> u32 {
        // Reading has counted up to it.
        self.first_seq + u32::from(self.len - 1)
    }

    /// How many events it has: 1 to [`UPLINK_EVENTS_MAX`].
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Its events in order.
    pub fn events(&self) -> Events<'a> {
        let mut reader = Reader::at(self.bytes, self.events_start);
        let items = reader.array("events").ok();
        Events { reader, items, left: self.len }
    }
}

/// The events of an [`Uplink`].
pub struct Events<'a> {
    reader: Reader<'a>,
    items: Option<Items>,
    left: u16,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        // All of it has been read once without error; were that ever untrue, iteration would end, not panic.
        let items = self.items.as_mut()?;
        if !self.reader.more(items).ok()? {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        read_event(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// Checks every event; returns the first one's number and how many there are.
fn check_events(r: &mut Reader<'_>) -> Result<(u32, u16), Malformed> {
    let mut items = r.array("events: an array")?;
    let mut first_seq = None;
    let mut len: u16 = 0;
    while r.more(&mut items)? {
        if usize::from(len) == UPLINK_EVENTS_MAX {
            return r.refuse(What::TooManyEvents);
        }
        let at = r.position();
        let event = read_event(r)?;
        let first = *first_seq.get_or_insert(event.seq);
        match first.checked_add(u32::from(len)) {
            Some(expected) if expected != event.seq => {
                return Err(Malformed { at, what: What::NotConsecutive { expected } });
            }
            None => return Err(Malformed { at, what: What::Expected("no seq after the greatest one") }),
            Some(_) => len += 1,
        }
    }
    match first_seq {
        Some(first) => Ok((first, len)),
        None => r.refuse(What::NoEvents),
    }
}

fn read_event<'a>(r: &mut Reader<'a>) -> Result<Event<'a>, Malformed> {
    let mut items = r.array("an event: an array")?;
    r.must_have(&mut items, "seq")?;
    let at = r.position();
    let seq = r.u32("seq: an unsigned integer below 2^32")?;
    if seq == 0 {
        return Err(Malformed { at, what: What::Expected("seq: 1 or more") });
    }
    r.must_have(&mut items, "at")?;
    let observed_at = r.u64("at: an unsigned integer")?;
    r.must_have(&mut items, "kind")?;
    let kind = r.name("kind: 1 to 32 of a-z 0-9 -")?;
    r.must_have(&mut items, "version")?;
    let at = r.position();
    let version = r.u16("version: an unsigned integer below 2^16")?;
    if version == 0 {
        return Err(Malformed { at, what: What::Expected("version: 1 or more") });
    }
    r.must_have(&mut items, "body")?;
    let body = read_body(r)?;
    r.skip_rest(&mut items)?;
    Ok(Event { seq, at: observed_at, kind, version, body })
}

/// A map with text keys, raw.
fn read_body<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let start = r.position();
    let mut entries = r.map("body: a map")?;
    while r.more(&mut entries)? {
        r.text("body: text keys")?;
        // The map itself is the outermost level.
        r.skip_nested(NESTING_MAX - 1)?;
    }
    Ok(r.since(start))
}

/// Writes an uplink and returns its length.
///
/// The caller keeps the contract: 1 to [`UPLINK_EVENTS_MAX`] events, consecutive, bodies maps with text keys.
///
/// # Errors
/// [`NoRoom`] if it does not fit in `buffer`.
pub fn write<'e>(
    buffer: &mut [u8],
    header: &Header,
    events: impl ExactSizeIterator<Item = Event<'e>>,
) -> Result<usize, NoRoom> {
    let mut writer = Writer::begin(buffer, header, events.len())?;
    for event in events {
        writer.event(&event)?;
    }
    writer.end()
}

/// Writes an uplink event by event, for who cannot hold more than one of them at a time. The caller keeps the contract, as
/// with [`write()`].
pub struct Writer<'b> {
    cbor: cbor::Writer<'b>,
    via: Option<u64>,
}

impl<'b> Writer<'b> {
    /// Begins an uplink of so many events.
    ///
    /// # Errors
    /// [`NoRoom`] if `buffer` is too short.
    pub fn begin(buffer: &'b mut [u8], header: &Header, events: usize) -> Result<Self, NoRoom> {
        let mut w = cbor::Writer::new(buffer);
        w.array(if header.via.is_some() { 5 } else { 4 }).u64(header.boot);
        for optional in [header.now, header.epoch] {
            match optional {
                Some(ms) => w.u64(ms),
                None => w.null(),
            };
        }
        w.array(events).end()?;
        Ok(Self { cbor: w, via: header.via })
    }

    /// Adds the next event.
    ///
    /// # Errors
    /// [`NoRoom`] if `buffer` is too short.
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), NoRoom> {
        write_event_into(&mut self.cbor, event).map(drop)
    }

    /// Ends the uplink and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if `buffer` is too short.
    pub fn end(mut self) -> Result<usize, NoRoom> {
        if let Some(via) = self.via {
            self.cbor.u64(via);
        }
        self.cbor.end()
    }
}

/// Writes one event, as it stands in an uplink, and returns its length.
///
/// # Errors
/// [`NoRoom`] if it does not fit in `buffer`.
pub fn write_event(buffer: &mut [u8], event: &Event<'_>) -> Result<usize, NoRoom> {
    write_event_into(&mut cbor::Writer::new(buffer), event)
}

fn write_event_into(w: &mut cbor::Writer<'_>, event: &Event<'_>) -> Result<usize, NoRoom> {
    w.array(5).u64(event.seq.into()).u64(event.at).str(&event.kind).u64(event.version.into());
    w.raw(event.body).end()
}
