//! From times to the numbers of events, and the order of a device's boots.
//!
//! History is told by boot and number. Which numbers were observed in a span of time is looked up in `boots` (which of them had
//! any) and in `stretches` (where in the boot): a few rows too many are looked at, none is missed.

use rusqlite::{Connection, params};

use super::super::Fault;
use super::super::codec::read_span;
use super::super::schema::STRETCH;
use crate::projection::beginning::{self, Beginning};

/// Times from the first up to, and not including, the second: Unix milliseconds.
pub type SpanMs = (u64, u64);

/// A boot of a device.
#[derive(Debug, Clone, Copy)]
pub struct BootName {
    pub ordinal: u32,
    pub number: u64,
    /// Wall times of its earliest and of its latest event; `None` if there is none.
    observed_ms: Option<(u64, u64)>,
}

impl BootName {
    /// Whether an event of it may have been observed in `span`.
    pub fn was_on(&self, span: SpanMs) -> bool {
        self.observed_ms.is_some_and(|(earliest_ms, latest_ms)| earliest_ms < span.1 && latest_ms >= span.0)
    }
}

/// The boots of a device, oldest first.
pub fn boots_in_order(connection: &Connection, device: i64) -> Result<Vec<BootName>, Fault> {
    let mut select = connection.prepare_cached("SELECT ordinal, boot, state FROM boots WHERE device = ?")?;
    let mut rows = select.query([device])?;
    let mut boots: Vec<(BootName, Beginning)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (beginning, observed_ms) = read_span(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let number = row.get::<_, i64>(1)?.cast_unsigned();
        boots.push((BootName { ordinal: row.get(0)?, number, observed_ms }, beginning));
    }
    boots.sort_unstable_by_key(|(boot, _)| boot.number);
    let order = beginning::in_order(boots.iter().map(|(boot, beginning)| (boot.number, beginning)));
    let named = |number: u64| {
        let place = boots.binary_search_by_key(&number, |(boot, _)| boot.number).ok()?;
        Some(boots[place].0)
    };
    Ok(order.into_iter().filter_map(named).collect())
}

/// Ranges of numbers, both ends included and ascending, among which are all those of a boot that were observed in `span`.
pub fn numbers(
    connection: &Connection,
    device: i64,
    boot: u32,
    span: SpanMs,
) -> Result<Vec<(u32, u32)>, Fault> {
    let mut select = connection.prepare_cached(SELECT)?;
    let mut rows = select.query(params![device, boot, span.0.cast_signed(), span.1.cast_signed()])?;
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    while let Some(row) = rows.next()? {
        let stretch: u32 = row.get(0)?;
        let from = stretch.saturating_mul(STRETCH);
        let to = from.saturating_add(STRETCH - 1);
        match ranges.last_mut() {
            Some(last) if last.1.checked_add(1) == Some(from) => last.1 = to,
            _ => ranges.push((from, to)),
        }
    }
    Ok(ranges)
}

const SELECT: &str = "
SELECT stretch FROM stretches WHERE device = ?1 AND boot = ?2 AND latest_ms >= ?3 AND earliest_ms < ?4
ORDER BY stretch";
