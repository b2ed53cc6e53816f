//! Answers from the store. Every answer is one consistent moment of it.

pub(super) mod history;
mod pool;
pub(super) mod stretches;
mod views;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use weir_contract::Id;

use super::types::{
    BootAccount, DeadLetter, DeadLettersPage, DeviceState, DevicesPage, EventQuery, EventsPage,
    GatewayStatus, Place, Position, StoreStatus,
};
use super::{Config, Damaged, Error, Fault, codec, foreign, read_position};
use pool::Pool;

/// Most ranges of missing numbers of a spool that [`Reader::status`] lists.
const MISSING_LISTED_MAX: usize = 16;

/// Asks the store; cheap to clone. Its methods block (they read a file): call them where that is allowed, as many at a time
/// as is wished. They neither wait for the writer nor hold it up.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: Arc<Pool>,
}

impl Reader {
    /// Opens an existing store for reading only, for a process that does not project itself.
    ///
    /// # Errors
    /// There is no such file, or it is not a store of this version.
    pub fn open(config: &Config) -> Result<Reader, Error> {
        let reader = Reader::at(&config.path);
        let found = reader.ask("open", |connection| {
            let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            Ok(foreign(number("application_id")?, number("user_version")?))
        })?;
        match found {
            Some(found) => Err(Error::Foreign { file: config.path.clone(), found }),
            None => Ok(reader),
        }
    }

    pub(super) fn at(file: &Path) -> Reader {
        Reader { pool: Arc::new(Pool::new(file)) }
    }

    /// Devices in the order of their names, behind `after`.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read; so with all of these.
    pub fn devices(&self, after: Option<&Id>, limit: usize) -> Result<DevicesPage, Error> {
        self.read(|connection| views::devices(connection, after, limit))
    }

    /// State of a device now, or as its events up to and at `at_ms` tell. `None` if there is no such device.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read.
    pub fn state(&self, device: &Id, at_ms: Option<u64>) -> Result<Option<DeviceState>, Error> {
        self.read(|connection| views::state(connection, device, at_ms))
    }

    /// History of a device. `None` if there is no such device.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read.
    pub fn events(&self, query: &EventQuery) -> Result<Option<EventsPage>, Error> {
        self.read(|connection| history::events(connection, query))
    }

    /// Boots of a device, oldest first, and what became of their numbers. `None` if there is no such device.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read.
    pub fn boots(&self, device: &Id) -> Result<Option<Vec<BootAccount>>, Error> {
        self.read(|connection| views::boots(connection, device))
    }

    /// Dead letters, oldest first, behind `after`.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read.
    pub fn dead_letters(&self, after: Option<u64>, limit: usize) -> Result<DeadLettersPage, Error> {
        self.read(|connection| dead_letters(connection, after, limit))
    }

    /// Up to where the log has been folded; `None` if nothing has been yet.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read.
    pub fn position(&self) -> Result<Option<Position>, Error> {
        self.read(read_position)
    }

    /// What the store holds, in numbers.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read.
    pub fn status(&self) -> Result<StoreStatus, Error> {
        let file_bytes = self.file_bytes();
        self.read(|connection| status(connection, file_bytes))
    }

    fn read<T>(&self, answer: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        self.ask("read", |connection| {
            // What is asked for in several queries is of one moment.
            let transaction = connection.unchecked_transaction()?;
            answer(&transaction)
        })
    }

    fn ask<T>(
        &self,
        doing: &'static str,
        answer: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.pool.with(answer).map_err(|fault| fault.while_doing(doing, self.pool.file()))
    }

    fn file_bytes(&self) -> u64 {
        let len = |suffix: &str| {
            let mut path = self.pool.file().as_os_str().to_owned();
            path.push(suffix);
            std::fs::metadata(PathBuf::from(path)).map_or(0, |metadata| metadata.len())
        };
        len("") + len("-wal")
    }
}

/// A name that was written by us.
fn name<T: std::str::FromStr>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| Damaged::new(format!("{text:?} where a name should be")).into())
}

fn millis(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0) / 1_000_000
}

/// The id of a device in the store.
fn device_id(connection: &Connection, device: &Id) -> Result<Option<i64>, Fault> {
    let mut find = connection.prepare_cached("SELECT id FROM devices WHERE name = ?")?;
    Ok(find.query_row([device.as_str()], |row| row.get(0)).optional()?)
}

fn dead_letters(connection: &Connection, after: Option<u64>, limit: usize) -> Result<DeadLettersPage, Fault> {
    let sql = "SELECT id, sequence, logged_ns, subject, number, device, boot, seq, reason, bytes
               FROM dead_letters WHERE id > ? ORDER BY id LIMIT ?";
    let mut select = connection.prepare_cached(sql)?;
    let after = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = select.query(params![after, more])?;
    let mut page = DeadLettersPage::default();
    while let Some(row) = rows.next()? {
        if page.dead_letters.len() == limit {
            page.next = page.dead_letters.last().map(|letter| letter.id);
            break;
        }
        let device =
            row.get_ref(5)?.as_str_or_null().map_err(rusqlite::Error::from)?.map(name).transpose()?;
        let boot = row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned);
        page.dead_letters.push(DeadLetter {
            id: row.get::<_, i64>(0)?.cast_unsigned(),
            stream_sequence: row.get::<_, i64>(1)?.cast_unsigned(),
            logged_at_ms: millis(row.get(2)?),
            subject: row.get(3)?,
            number: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
            device,
            event: boot.zip(row.get(7)?),
            reason: row.get(8)?,
            bytes: row.get(9)?,
        });
    }
    Ok(page)
}

fn status(connection: &Connection, file_bytes: u64) -> Result<StoreStatus, Fault> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned));
    Ok(StoreStatus {
        position: read_position(connection)?,
        devices: count("SELECT count(*) FROM devices")?,
        events: count("SELECT events FROM totals")?,
        duplicates: count("SELECT duplicates FROM totals")?,
        dead_letters: count("SELECT dead_letters FROM totals")?,
        file_bytes,
        gateways: gateways(connection)?,
    })
}

fn gateways(connection: &Connection) -> Result<Vec<GatewayStatus>, Fault> {
    let sql = "SELECT site, gateway, lane, incarnation, numbers, logged_ns FROM spools
               ORDER BY site, gateway, lane, logged_ns";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([])?;
    let mut gateways = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |column| row.get::<_, String>(column);
        let numbers = codec::read_runs::<u64>(&row.get::<_, Vec<u8>>(4)?)?;
        let last_number = numbers.last().unwrap_or(0);
        let missing = numbers.gaps_up_to(last_number);
        gateways.push(GatewayStatus {
            place: Place { site: name(&text(0)?)?, gateway: name(&text(1)?)? },
            lane: name(&text(2)?)?,
            incarnation: row.get::<_, i64>(3)?.cast_unsigned(),
            last_number,
            missing_count: missing.count(),
            missing: missing.ranges().iter().copied().take(MISSING_LISTED_MAX).collect(),
            last_logged_at_ms: millis(row.get(5)?),
        });
    }
    Ok(gateways)
}
