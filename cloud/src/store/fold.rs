//! One transaction: messages of the log into rows.

use std::mem;

use rusqlite::{CachedStatement, OptionalExtension, Transaction, params};
use weir_contract::segment::{Entry, Segment};
use weir_contract::subject::{Source, parse_segments};
use weir_contract::uplink::Uplink;
use weir_contract::{Id, Kind};

use super::Fault;
use super::cache::{BootKey, Cache, Slot, Spool};
use super::codec::{read_boot, read_runs, write_boot, write_runs};
use super::schema::STRETCH;
use super::types::{Place, Position};
use crate::log::{Content, Opened};
use crate::projection::boot::{Boot, Fact, NewEvent, Said, Taken, clock_code};
use crate::projection::registers::Stamp;
use crate::projection::runs::Runs;

/// Most bytes of a dead letter that are kept.
const DEAD_LETTER_BYTES_MAX: usize = 256 * 1024;

/// What a transaction has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Folded {
    /// Messages of the log.
    pub messages: u64,
    /// Uplinks that could be read.
    pub uplinks: u64,
    /// New events.
    pub events: u64,
    /// Events that were stored already.
    pub duplicates: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// Folds `messages`, which lead from `before` to `after`, within `transaction`.
pub fn fold(
    transaction: &Transaction<'_>,
    cache: &mut Cache,
    before: Option<&Position>,
    after: &Position,
    messages: &[Opened],
) -> Result<Folded, Fault> {
    let log = log_id(transaction, after)?;
    let read: Vec<Read<'_>> = messages.iter().map(read).collect();
    let mut fold = Fold { transaction, cache, log, rows: Vec::new(), folded: Folded::default() };
    for (message, read) in messages.iter().zip(&read) {
        fold.folded.messages += 1;
        match read {
            Read::Segment(source, segment, entries) => fold.segment(message, source, segment, entries)?,
            Read::Unreadable(reason, bytes) => {
                fold.dead_letter(message, &Letter { reason, bytes, ..Letter::default() })?;
            }
        }
    }
    let rows = mem::take(&mut fold.rows);
    let folded = fold.folded;
    insert_events(transaction, rows)?;
    write_boots(transaction, cache)?;
    write_spools(transaction, cache)?;
    add_totals(transaction, &folded)?;
    move_position(transaction, log, before, after)?;
    Ok(folded)
}

/// A message, as far as it can be read.
enum Read<'m> {
    Segment(Source, Segment<'m>, Vec<Entry<'m>>),
    Unreadable(String, &'m [u8]),
}

fn read(message: &Opened) -> Read<'_> {
    let bytes = match &message.content {
        Content::Plain(bytes) => bytes,
        Content::Unreadable { reason, bytes } => return Read::Unreadable(reason.clone(), bytes),
    };
    let Some(source) = parse_segments(&message.subject) else {
        return Read::Unreadable("the subject is none of segments".to_owned(), bytes);
    };
    match Segment::read(bytes) {
        Ok(segment) if last_number(&segment).is_some() => {
            let entries = segment.entries().collect();
            Read::Segment(source, segment, entries)
        }
        Ok(_) => Read::Unreadable("the uplinks' numbers go beyond the greatest".to_owned(), bytes),
        Err(malformed) => Read::Unreadable(malformed.to_string(), bytes),
    }
}

fn last_number(segment: &Segment<'_>) -> Option<u64> {
    // SQLite's numbers are signed.
    let last = segment.head.first.checked_add(segment.head.count.checked_sub(1)?)?;
    i64::try_from(last).ok().map(|_| last)
}

/// What a dead letter says beside which message it is of.
#[derive(Default)]
struct Letter<'a> {
    number: Option<u64>,
    device: Option<Id>,
    event: Option<(u64, u32)>,
    reason: &'a str,
    bytes: &'a [u8],
}

/// A row of `events`.
struct Row<'m> {
    device: i64,
    ordinal: i64,
    kind: i64,
    received_ms: u64,
    segment: i64,
    place: i64,
    event: NewEvent<'m>,
}

/// Where an uplink stands and whose it is.
struct Of {
    device: i64,
    ordinal: i64,
    boot: u64,
    segment: i64,
    place: i64,
    number: u64,
}

struct Fold<'t, 'm> {
    transaction: &'t Transaction<'t>,
    cache: &'t mut Cache,
    log: i64,
    rows: Vec<Row<'m>>,
    folded: Folded,
}

impl<'m> Fold<'_, 'm> {
    fn segment(
        &mut self,
        message: &Opened,
        source: &Source,
        segment: &Segment<'_>,
        entries: &'m [Entry<'m>],
    ) -> Result<(), Fault> {
        let head = segment.head;
        let spool = spool(self.transaction, self.cache, source, head.incarnation)?;
        spool.logged_ns = spool.logged_ns.max(message.logged_ns);
        spool.dirty = true;
        let spool_id = spool.id;
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO segments (log, sequence, logged_ns, spool, first) VALUES (?, ?, ?, ?, ?)",
        )?;
        insert.execute(params![
            self.log,
            message.sequence.cast_signed(),
            message.logged_ns,
            spool_id,
            head.first.cast_signed()
        ])?;
        let segment_id = self.transaction.last_insert_rowid();

        let mut facts = Vec::new();
        for ((entry, number), place) in entries.iter().zip(head.first..).zip(0..) {
            self.uplink(message, source, head.incarnation, entry, number, (segment_id, place), &mut facts)?;
        }
        let last = head.first + (head.count - 1);
        if let Some(spool) = spool_of(self.cache, source, head.incarnation) {
            spool.numbers.insert(head.first, last);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "an uplink and everything that says where it stands")]
    fn uplink(
        &mut self,
        message: &Opened,
        source: &Source,
        incarnation: u64,
        entry: &'m Entry<'m>,
        number: u64,
        (segment, place): (i64, i64),
        facts: &mut Vec<Fact<'m>>,
    ) -> Result<(), Fault> {
        let letter = Letter {
            number: Some(number),
            device: Some(entry.device),
            bytes: &entry.payload,
            ..Letter::default()
        };
        // A gateway names an uplink once and for ever: sent again, it needs no second dead letter.
        let again = |cache: &mut Cache| {
            spool_of(cache, source, incarnation).is_some_and(|spool| spool.numbers.contains(number))
        };
        let uplink = match Uplink::read(&entry.payload) {
            Ok(uplink) => uplink,
            Err(_) if again(self.cache) => return Ok(()),
            Err(malformed) => {
                return self.dead_letter(message, &Letter { reason: &malformed.to_string(), ..letter });
            }
        };
        self.folded.uplinks += 1;

        let device = device_id(self.transaction, self.cache, &entry.device)?;
        let key = BootKey { device, boot: uplink.header.boot };
        let slot = slot(self.transaction, self.cache, key)?;
        let place_taken = Place { site: source.site, gateway: source.gateway };
        let taken = Taken { device: entry.device, place: place_taken, received_ms: entry.received_ms };
        facts.clear();
        if let Err(refused) = slot.boot.take(&uplink, &taken, facts) {
            if again(self.cache) {
                return Ok(());
            }
            return self.dead_letter(message, &Letter { reason: &refused.to_string(), ..letter });
        }
        slot.dirty = true;
        let of = Of { device, ordinal: slot.ordinal, boot: key.boot, segment, place, number };

        let events_before = self.folded.events;
        for fact in facts.drain(..) {
            self.fact(message, &taken, &of, fact)?;
        }
        self.folded.duplicates += uplink.len() as u64 - (self.folded.events - events_before);
        Ok(())
    }

    fn fact(&mut self, message: &Opened, taken: &Taken, of: &Of, fact: Fact<'m>) -> Result<(), Fault> {
        let letter = |seq| Letter {
            number: Some(of.number),
            device: Some(taken.device),
            event: Some((of.boot, seq)),
            ..Letter::default()
        };
        match fact {
            Fact::Event(event) => {
                let kind = kind_id(self.transaction, self.cache, event.kind, event.version)?;
                self.folded.events += 1;
                self.rows.push(Row {
                    device: of.device,
                    ordinal: of.ordinal,
                    kind,
                    received_ms: taken.received_ms.min(super::types::TIME_MS_MAX),
                    segment: of.segment,
                    place: of.place,
                    event,
                });
            }
            Fact::Lost { device, boot, from, to, reason, stamp } => {
                let device = device_id(self.transaction, self.cache, &device)?;
                let slot = slot(self.transaction, self.cache, BootKey { device, boot })?;
                if let Err(refused) = slot.boot.lose(from, to) {
                    return self
                        .dead_letter(message, &Letter { reason: &refused.to_string(), ..letter(stamp.seq) });
                }
                slot.dirty = true;
                let ordinal = slot.ordinal;
                self.insert_lost((device, ordinal), (from, to), of, stamp, &reason)?;
            }
            Fact::Said { device, said, stamp } => {
                let device = device_id(self.transaction, self.cache, &device)?;
                self.insert_report(device, of, stamp, &said)?;
            }
            Fact::Unread { seq, reason, body } => {
                self.dead_letter(message, &Letter { reason: &reason, bytes: body, ..letter(seq) })?;
            }
        }
        Ok(())
    }

    fn insert_lost(
        &self,
        (device, ordinal): (i64, i64),
        (from, to): (u32, u32),
        teller: &Of,
        stamp: Stamp,
        reason: &str,
    ) -> Result<(), Fault> {
        let sql = "INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let at_ms = stamp.at_ms.cast_signed();
        self.transaction.prepare_cached(sql)?.execute(params![
            device,
            ordinal,
            from,
            to,
            teller.device,
            teller.ordinal,
            stamp.seq,
            at_ms,
            reason
        ])?;
        Ok(())
    }

    fn insert_report(&self, device: i64, gateway: &Of, stamp: Stamp, said: &Said) -> Result<(), Fault> {
        let (what, connected, detail) = match said {
            Said::Connected(address) => (REPORT_CONNECTION, true, address.to_string()),
            Said::Disconnected(reason) => (REPORT_CONNECTION, false, reason.to_string()),
            Said::Expired(id) => (REPORT_COMMAND, false, id.to_string()),
            Said::Refused { id, reason } => (REPORT_COMMAND, true, format!("{id}\0{reason}")),
        };
        let sql = "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.transaction.prepare_cached(sql)?.execute(params![
            device,
            what,
            gateway.device,
            gateway.ordinal,
            stamp.seq,
            stamp.at_ms.cast_signed(),
            clock_code(stamp.clock),
            connected,
            detail
        ])?;
        Ok(())
    }

    fn dead_letter(&mut self, message: &Opened, letter: &Letter<'_>) -> Result<(), Fault> {
        self.folded.dead_letters += 1;
        let kept = &letter.bytes[..letter.bytes.len().min(DEAD_LETTER_BYTES_MAX)];
        let reason = match letter.bytes.len() {
            len if len > kept.len() => {
                format!("{} (only the first {} of {len} bytes are kept)", letter.reason, kept.len())
            }
            _ => letter.reason.to_owned(),
        };
        let sql = "INSERT INTO dead_letters (log, sequence, logged_ns, subject, number, device, boot, seq, reason, bytes)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.transaction.prepare_cached(sql)?.execute(params![
            self.log,
            message.sequence.cast_signed(),
            message.logged_ns,
            message.subject,
            letter.number.map(u64::cast_signed),
            letter.device.as_deref(),
            letter.event.map(|(boot, _)| boot.cast_signed()),
            letter.event.map(|(_, seq)| seq),
            reason,
            kept
        ])?;
        Ok(())
    }
}

/// `reports.what`: a device connected or disconnected.
pub const REPORT_CONNECTION: i64 = 0;
/// `reports.what`: a command was not answered in time; or, `connected` being 1, it was refused: `detail` is its id, U+0000
/// and the reason then.
pub const REPORT_COMMAND: i64 = 1;

/// Rows in the order of the table: those of a device go to the same page.
fn insert_events(transaction: &Transaction<'_>, mut rows: Vec<Row<'_>>) -> Result<(), Fault> {
    rows.sort_unstable_by_key(|row| (row.device, row.ordinal, row.event.stamp.seq));
    let mut insert =
        transaction.prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    let mut widen = transaction.prepare_cached(WIDEN_STRETCH)?;
    let stretch = |row: &Row<'_>| (row.device, row.ordinal, row.event.stamp.seq / STRETCH);
    for rows in rows.chunk_by(|a, b| stretch(a) == stretch(b)) {
        let (mut earliest_ms, mut latest_ms) = (u64::MAX, 0);
        for row in rows {
            insert_event(&mut insert, row)?;
            earliest_ms = earliest_ms.min(row.event.stamp.at_ms);
            latest_ms = latest_ms.max(row.event.stamp.at_ms);
        }
        let (device, ordinal, stretch) = stretch(&rows[0]);
        let (earliest_ms, latest_ms) = (earliest_ms.cast_signed(), latest_ms.cast_signed());
        widen.execute(params![device, ordinal, stretch, earliest_ms, latest_ms])?;
    }
    Ok(())
}

const WIDEN_STRETCH: &str = "
INSERT INTO stretches VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  earliest_ms = min(earliest_ms, excluded.earliest_ms), latest_ms = max(latest_ms, excluded.latest_ms)";

fn insert_event(insert: &mut CachedStatement<'_>, row: &Row<'_>) -> Result<(), Fault> {
    let stamp = row.event.stamp;
    // Both are at most year 9999.
    let (at_ms, received_ms) = (stamp.at_ms.cast_signed(), row.received_ms.cast_signed());
    insert.execute(params![
        row.device,
        row.ordinal,
        stamp.seq,
        at_ms,
        clock_code(stamp.clock),
        row.kind,
        received_ms - at_ms,
        row.segment,
        row.place,
        row.event.body
    ])?;
    Ok(())
}

fn write_boots(transaction: &Transaction<'_>, cache: &mut Cache) -> Result<(), Fault> {
    let mut update =
        transaction.prepare_cached("UPDATE boots SET state = ? WHERE device = ? AND ordinal = ?")?;
    let mut state = Vec::new();
    cache.flush(|key, slot| {
        write_boot(&mut state, &slot.boot);
        update.execute(params![state, key.device, slot.ordinal])?;
        Ok(state.len())
    })
}

fn write_spools(transaction: &Transaction<'_>, cache: &mut Cache) -> Result<(), Fault> {
    let mut update =
        transaction.prepare_cached("UPDATE spools SET numbers = ?, logged_ns = ? WHERE id = ?")?;
    for spool in cache.spools.values_mut().filter(|spool| spool.dirty) {
        update.execute(params![write_runs(&spool.numbers), spool.logged_ns, spool.id])?;
        spool.dirty = false;
    }
    Ok(())
}

fn add_totals(transaction: &Transaction<'_>, folded: &Folded) -> Result<(), Fault> {
    let sql =
        "UPDATE totals SET events = events + ?, duplicates = duplicates + ?, dead_letters = dead_letters + ?";
    let added = [folded.events, folded.duplicates, folded.dead_letters].map(u64::cast_signed);
    transaction.prepare_cached(sql)?.execute(added)?;
    Ok(())
}

/// Moves the position, provided that it is where we left it: had anybody else written, our memory would be wrong.
fn move_position(
    transaction: &Transaction<'_>,
    log: i64,
    before: Option<&Position>,
    after: &Position,
) -> Result<(), Fault> {
    if super::read_position(transaction)?.as_ref() != before {
        return Err(Fault::Moved);
    }
    let sql = "INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?)";
    let sequence = after.stream_sequence.cast_signed();
    transaction.prepare_cached(sql)?.execute(params![log, sequence, after.logged_at_ns])?;
    Ok(())
}

fn log_id(transaction: &Transaction<'_>, position: &Position) -> Result<i64, Fault> {
    let find = "SELECT id FROM logs WHERE stream = ? AND created_ns = ?";
    let key = params![position.stream, position.stream_created_ns];
    let found = transaction.prepare_cached(find)?.query_row(key, |row| row.get(0)).optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction.prepare_cached("INSERT INTO logs (stream, created_ns) VALUES (?, ?)")?.execute(key)?;
    Ok(transaction.last_insert_rowid())
}

fn device_id(transaction: &Transaction<'_>, cache: &mut Cache, device: &Id) -> Result<i64, Fault> {
    if let Some(&id) = cache.devices.get(device) {
        return Ok(id);
    }
    let find = "SELECT id FROM devices WHERE name = ?";
    let found =
        transaction.prepare_cached(find)?.query_row(params![device.as_str()], |row| row.get(0)).optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            let insert = "INSERT INTO devices (name) VALUES (?)";
            transaction.prepare_cached(insert)?.execute(params![device.as_str()])?;
            transaction.last_insert_rowid()
        }
    };
    cache.devices.insert(*device, id);
    Ok(id)
}

fn kind_id(transaction: &Transaction<'_>, cache: &mut Cache, kind: Kind, version: u16) -> Result<i64, Fault> {
    if let Some(&id) = cache.kinds.get(&(kind, version)) {
        return Ok(id);
    }
    let key = params![kind.as_str(), version];
    let find = "SELECT id FROM kinds WHERE name = ? AND version = ?";
    let found = transaction.prepare_cached(find)?.query_row(key, |row| row.get(0)).optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            transaction.prepare_cached("INSERT INTO kinds (name, version) VALUES (?, ?)")?.execute(key)?;
            transaction.last_insert_rowid()
        }
    };
    cache.kinds.insert((kind, version), id);
    Ok(id)
}

/// What is known of a boot: from memory, or from the store, or new.
fn slot<'c>(
    transaction: &Transaction<'_>,
    cache: &'c mut Cache,
    key: BootKey,
) -> Result<&'c mut Slot, Fault> {
    if cache.boot(key).is_some() {
        return Ok(cache.boot(key).expect("it was there a line ago"));
    }
    let find = "SELECT ordinal, state FROM boots WHERE device = ? AND boot = ?";
    let found = transaction
        .prepare_cached(find)?
        .query_row(params![key.device, key.boot.cast_signed()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    let (ordinal, boot) = match found {
        Some((ordinal, state)) => (ordinal, read_boot(&state)?),
        None => (new_boot(transaction, key)?, Boot::default()),
    };
    Ok(cache.remember(key, ordinal, boot))
}

fn new_boot(transaction: &Transaction<'_>, key: BootKey) -> Result<i64, Fault> {
    let next = "SELECT coalesce(max(ordinal), 0) + 1 FROM boots WHERE device = ?";
    let ordinal: i64 = transaction.prepare_cached(next)?.query_row([key.device], |row| row.get(0))?;
    let mut state = Vec::new();
    write_boot(&mut state, &Boot::default());
    let insert = "INSERT INTO boots (device, ordinal, boot, state) VALUES (?, ?, ?, ?)";
    transaction.prepare_cached(insert)?.execute(params![
        key.device,
        ordinal,
        key.boot.cast_signed(),
        state
    ])?;
    Ok(ordinal)
}

fn spool_of<'c>(cache: &'c mut Cache, source: &Source, incarnation: u64) -> Option<&'c mut Spool> {
    cache.spools.get_mut(&(*source, incarnation))
}

/// What is known of a spool: from memory, or from the store, or new.
fn spool<'c>(
    transaction: &Transaction<'_>,
    cache: &'c mut Cache,
    source: &Source,
    incarnation: u64,
) -> Result<&'c mut Spool, Fault> {
    use std::collections::hash_map::Entry::{Occupied, Vacant};
    let vacant = match cache.spools.entry((*source, incarnation)) {
        Occupied(known) => return Ok(known.into_mut()),
        Vacant(vacant) => vacant,
    };
    let find = "SELECT id, numbers, logged_ns FROM spools WHERE site = ? AND gateway = ? AND lane = ? AND incarnation = ?";
    let incarnation = incarnation.cast_signed();
    let key = params![source.site.as_str(), source.gateway.as_str(), source.lane.as_str(), incarnation];
    let found = transaction
        .prepare_cached(find)?
        .query_row(key, |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)))
        .optional()?;
    if let Some((id, numbers, logged_ns)) = found {
        return Ok(vacant.insert(Spool { id, numbers: read_runs(&numbers)?, logged_ns, dirty: false }));
    }
    let insert = "INSERT INTO spools (site, gateway, lane, incarnation, numbers, logged_ns) VALUES (?, ?, ?, ?, x'80', 0)";
    transaction.prepare_cached(insert)?.execute(key)?;
    let id = transaction.last_insert_rowid();
    Ok(vacant.insert(Spool { id, numbers: Runs::new(), logged_ns: 0, dirty: false }))
}
