//! The history of a device, page by page.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Row, params};
use weir_contract::{Id, Kind};

use super::super::types::{Cursor, EventQuery, EventsPage, Order, Place, StoredEvent, TIME_MS_MAX};
use super::super::{Damaged, Fault};
use super::{device_id, millis, name};
use crate::projection::boot::clock_of;

/// Most events that are looked at for one page, when only some of them are of the kind asked for.
const LOOKED_AT_MAX: usize = 100_000;

pub fn events(connection: &Connection, query: &EventQuery) -> Result<Option<EventsPage>, Fault> {
    let Some(device) = device_id(connection, &query.device)? else { return Ok(None) };
    let kinds = kinds(connection)?;
    let wanted: Option<HashSet<i64>> = query
        .kind
        .map(|kind| kinds.iter().filter(|(_, (name, _))| *name == kind).map(|(id, _)| *id).collect());
    let mut page = EventsPage::default();
    if wanted.as_ref().is_some_and(HashSet::is_empty) || query.limit == 0 {
        return Ok(Some(page));
    }
    let boots = boot_numbers(connection, device)?;
    let mut places = Places { connection, known: HashMap::new() };
    let (from, to) = bounds(query);
    let mut select = connection.prepare_cached(match query.order {
        Order::Ascending => SELECT_ASCENDING,
        Order::Descending => SELECT_DESCENDING,
    })?;
    let mut rows = select.query(params![device, from.0, from.1, from.2, to.0, to.1, to.2])?;
    let mut last = None;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        // There is one more: the page is full, or took long enough.
        if page.events.len() == query.limit || looked_at == LOOKED_AT_MAX {
            page.next = last;
            break;
        }
        looked_at += 1;
        last = Some(Cursor {
            at_ms: row.get::<_, i64>(0)?.cast_unsigned(),
            boot: row.get(1)?,
            seq: row.get(2)?,
        });
        if wanted.as_ref().is_some_and(|wanted| row.get(4).is_ok_and(|kind: i64| !wanted.contains(&kind))) {
            continue;
        }
        page.events.push(event(row, query.device, &kinds, &boots, &mut places)?);
    }
    Ok(Some(page))
}

pub const SELECT_ASCENDING: &str = "
SELECT at_ms, boot, seq, clock, kind, delay_ms, segment, place, body FROM events
WHERE device = ?1 AND (at_ms, boot, seq) > (?2, ?3, ?4) AND (at_ms, boot, seq) < (?5, ?6, ?7)
ORDER BY at_ms, boot, seq";
pub const SELECT_DESCENDING: &str = "
SELECT at_ms, boot, seq, clock, kind, delay_ms, segment, place, body FROM events
WHERE device = ?1 AND (at_ms, boot, seq) > (?2, ?3, ?4) AND (at_ms, boot, seq) < (?5, ?6, ?7)
ORDER BY at_ms DESC, boot DESC, seq DESC";

type Key = (i64, i64, i64);

/// The keys between which to look, both excluded.
fn bounds(query: &EventQuery) -> (Key, Key) {
    let ms = |ms: u64| ms.min(TIME_MS_MAX + 1).cast_signed();
    // Ordinals of boots begin at 1.
    let mut from = (ms(query.from_ms.unwrap_or(0)), 0, 0);
    let mut to = (ms(query.to_ms.unwrap_or(TIME_MS_MAX + 1)), 0, 0);
    if let Some(Cursor { at_ms, boot, seq }) = query.after {
        let after = (ms(at_ms), i64::from(boot), i64::from(seq));
        match query.order {
            Order::Ascending => from = from.max(after),
            Order::Descending => to = to.min(after),
        }
    }
    (from, to)
}

fn event(
    row: &Row<'_>,
    device: Id,
    kinds: &Kinds,
    boots: &HashMap<u32, u64>,
    places: &mut Places<'_>,
) -> Result<StoredEvent, Fault> {
    let at_ms = row.get::<_, i64>(0)?;
    let absent = |what: &str| Damaged::new(format!("an event of a {what} that is not there"));
    let (kind, version) = *kinds.get(&row.get(4)?).ok_or_else(|| absent("kind"))?;
    let segment = places.get(row.get(6)?)?;
    Ok(StoredEvent {
        device,
        boot: *boots.get(&row.get(1)?).ok_or_else(|| absent("boot"))?,
        seq: row.get(2)?,
        at_ms: at_ms.cast_unsigned(),
        clock: clock_of(row.get(3)?).ok_or_else(|| absent("clock"))?,
        received_at_ms: at_ms.saturating_add(row.get(5)?).max(0).cast_unsigned(),
        kind,
        version,
        body: row.get(8)?,
        place: segment.place,
        incarnation: segment.incarnation,
        number: segment.first + row.get::<_, i64>(7)?.cast_unsigned(),
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

/// Numbers of a device's boots by their ordinals.
fn boot_numbers(connection: &Connection, device: i64) -> Result<HashMap<u32, u64>, Fault> {
    let mut select = connection.prepare_cached("SELECT ordinal, boot FROM boots WHERE device = ?")?;
    let rows = select.query_map([device], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    Ok(rows.collect::<Result<_, _>>()?)
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
