//! The history of a device, page by page, in the device's own order: by when its boots began, then by number. Times only choose.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Row, params};
use weir_contract::{Id, Kind};

use super::super::types::{Cursor, EventQuery, EventsPage, Order, Place, StoredEvent, TIME_MS_MAX};
use super::super::{Damaged, Fault};
use super::stretches::{BootName, SpanMs, boots_in_order, numbers};
use super::{device_id, millis, name};
use crate::projection::boot::clock_of;

/// Most events that are looked at for one page, when only some of them are asked for.
const LOOKED_AT_MAX: usize = 100_000;

pub fn events(connection: &Connection, query: &EventQuery) -> Result<Option<EventsPage>, Fault> {
    let Some(device) = device_id(connection, &query.device)? else { return Ok(None) };
    let kinds = kinds(connection)?;
    let wanted: Option<HashSet<i64>> = query
        .kind
        .map(|kind| kinds.iter().filter(|(_, (name, _))| *name == kind).map(|(id, _)| *id).collect());
    if wanted.as_ref().is_some_and(HashSet::is_empty) || query.limit == 0 {
        return Ok(Some(EventsPage::default()));
    }
    let end_ms = TIME_MS_MAX + 1;
    let span = (query.from_ms.unwrap_or(0).min(end_ms), query.to_ms.unwrap_or(end_ms).min(end_ms));
    let places = Places { connection, known: HashMap::new() };
    let page = EventsPage::default();
    let mut walk = Walk {
        connection,
        device,
        query,
        span,
        kinds,
        wanted,
        places,
        page,
        last: None,
        looked_at: 0,
        body_bytes: 0,
    };
    for (boot, behind) in boots_to_visit(connection, device, query, span)? {
        if walk.boot(&boot, behind)? == Visited::UpToHere {
            break;
        }
    }
    Ok(Some(walk.page))
}

/// The boots in which to look, in the order asked for; of the first perhaps only what lies behind a number.
fn boots_to_visit(
    connection: &Connection,
    device: i64,
    query: &EventQuery,
    span: SpanMs,
) -> Result<Vec<(BootName, Option<u32>)>, Fault> {
    let mut boots = boots_in_order(connection, device)?;
    if query.order == Order::Descending {
        boots.reverse();
    }
    if let Some(after) = query.after {
        let place = boots.iter().position(|boot| boot.ordinal == after.boot);
        boots.drain(..place.unwrap_or(boots.len()));
    }
    let behind =
        |boot: &BootName| query.after.filter(|after| after.boot == boot.ordinal).map(|after| after.seq);
    Ok(boots.into_iter().filter(|boot| boot.was_on(span)).map(|boot| (boot, behind(&boot))).collect())
}

/// Whether the page can take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visited {
    Whole,
    UpToHere,
}

/// A page being filled on the way through history.
struct Walk<'c> {
    connection: &'c Connection,
    device: i64,
    query: &'c EventQuery,
    span: SpanMs,
    kinds: Kinds,
    /// `None`: all.
    wanted: Option<HashSet<i64>>,
    places: Places<'c>,
    page: EventsPage,
    last: Option<Cursor>,
    looked_at: usize,
    body_bytes: usize,
}

impl Walk<'_> {
    /// The page is full, or took long enough.
    fn is_over(&self) -> bool {
        self.page.events.len() == self.query.limit
            || self.body_bytes >= self.query.body_bytes_max && !self.page.events.is_empty()
            || self.looked_at == LOOKED_AT_MAX
    }

    /// Adds events of `boot`; only those behind the number `behind`, if one is given.
    fn boot(&mut self, boot: &BootName, behind: Option<u32>) -> Result<Visited, Fault> {
        let mut ranges = numbers(self.connection, self.device, boot.ordinal, self.span)?;
        if self.query.order == Order::Descending {
            ranges.reverse();
        }
        for (from, to) in ranges {
            let range = match (self.query.order, behind) {
                (_, None) => (from, to),
                (Order::Ascending, Some(behind)) => (from.max(behind.saturating_add(1)), to),
                (Order::Descending, Some(behind)) => (from, to.min(behind.saturating_sub(1))),
            };
            if range.0 <= range.1 && self.range(boot, range)? == Visited::UpToHere {
                return Ok(Visited::UpToHere);
            }
        }
        Ok(Visited::Whole)
    }

    fn range(&mut self, boot: &BootName, (from, to): (u32, u32)) -> Result<Visited, Fault> {
        let mut select = self.connection.prepare_cached(match self.query.order {
            Order::Ascending => SELECT_ASCENDING,
            Order::Descending => SELECT_DESCENDING,
        })?;
        let mut rows = select.query(params![self.device, boot.ordinal, from, to])?;
        while let Some(row) = rows.next()? {
            // There is one more.
            if self.is_over() {
                self.page.next = self.last;
                return Ok(Visited::UpToHere);
            }
            self.looked_at += 1;
            self.last = Some(Cursor { boot: boot.ordinal, seq: row.get(0)? });
            let at_ms = row.get::<_, i64>(1)?.cast_unsigned();
            let kind = row.get(3)?;
            if (self.span.0..self.span.1).contains(&at_ms)
                && self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&kind))
            {
                let event = event(row, self.query.device, boot.number, &self.kinds, &mut self.places)?;
                self.body_bytes += event.body.len();
                self.page.events.push(event);
            }
        }
        Ok(Visited::Whole)
    }
}

pub const SELECT_ASCENDING: &str = "
SELECT seq, at_ms, clock, kind, delay_ms, segment, place, body FROM events
WHERE device = ? AND boot = ? AND seq BETWEEN ? AND ? ORDER BY seq";
pub const SELECT_DESCENDING: &str = "
SELECT seq, at_ms, clock, kind, delay_ms, segment, place, body FROM events
WHERE device = ? AND boot = ? AND seq BETWEEN ? AND ? ORDER BY seq DESC";

fn event(
    row: &Row<'_>,
    device: Id,
    boot: u64,
    kinds: &Kinds,
    places: &mut Places<'_>,
) -> Result<StoredEvent, Fault> {
    let at_ms = row.get::<_, i64>(1)?;
    let absent = |what: &str| Damaged::new(format!("an event of a {what} that is not there"));
    let (kind, version) = *kinds.get(&row.get(3)?).ok_or_else(|| absent("kind"))?;
    let segment = places.get(row.get(5)?)?;
    Ok(StoredEvent {
        device,
        boot,
        seq: row.get(0)?,
        at_ms: at_ms.cast_unsigned(),
        clock: clock_of(row.get(2)?).ok_or_else(|| absent("clock"))?,
        received_at_ms: at_ms.saturating_add(row.get(4)?).max(0).cast_unsigned(),
        kind,
        version,
        body: row.get(7)?,
        place: segment.place,
        incarnation: segment.incarnation,
        number: segment.first + row.get::<_, i64>(6)?.cast_unsigned(),
        stream_sequence: segment.sequence,
        logged_at_ms: segment.logged_at_ms,
    })
}

/// Names and versions of kinds by their ids.
pub type Kinds = HashMap<i64, (Kind, u16)>;

pub fn kinds(connection: &Connection) -> Result<Kinds, Fault> {
    let mut select = connection.prepare_cached("SELECT id, name, version FROM kinds")?;
    let mut rows = select.query([])?;
    let mut kinds = HashMap::new();
    while let Some(row) = rows.next()? {
        kinds.insert(
            row.get(0)?,
            (name(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?, row.get(2)?),
        );
    }
    Ok(kinds)
}

/// What the events of one segment have in common.
#[derive(Debug, Clone, Copy)]
pub struct InSegment {
    pub place: Place,
    pub incarnation: u64,
    pub first: u64,
    pub sequence: u64,
    pub logged_at_ms: u64,
}

/// Segments by their ids, looked up once each.
pub struct Places<'c> {
    pub connection: &'c Connection,
    pub known: HashMap<i64, InSegment>,
}

impl Places<'_> {
    pub fn get(&mut self, segment: i64) -> Result<InSegment, Fault> {
        if let Some(known) = self.known.get(&segment) {
            return Ok(*known);
        }
        let sql = "SELECT site, gateway, incarnation, first, sequence, segments.logged_ns
                   FROM segments JOIN spools ON spools.id = segments.spool WHERE segments.id = ?";
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query([segment])?;
        let row =
            rows.next()?.ok_or_else(|| Damaged::new("an event of a segment that is not there".to_owned()))?;
        let found = InSegment {
            place: Place {
                site: name(&row.get::<_, String>(0)?)?,
                gateway: name(&row.get::<_, String>(1)?)?,
            },
            incarnation: row.get::<_, i64>(2)?.cast_unsigned(),
            first: row.get::<_, i64>(3)?.cast_unsigned(),
            sequence: row.get::<_, i64>(4)?.cast_unsigned(),
            logged_at_ms: millis(row.get(5)?),
        };
        self.known.insert(segment, found);
        Ok(found)
    }
}
