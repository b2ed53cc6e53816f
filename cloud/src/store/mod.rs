//! The views on disk: what is known of every device, its history, and up to where the log has been folded into them. The only
//! module that knows the database (SQLite).
//!
//! - One transaction takes the writes of one or several segments *and* the position in the log that they stand for. So after
//!   a crash the store is exactly the fold of the log up to its position, and reading goes on behind it.
//! - The write-ahead log is synced at checkpoints only (`synchronous = NORMAL`): a power cut may take back the last
//!   transactions, position and writes alike, and they are folded again from the log. That is allowed here because the log
//!   is the truth; nothing is acknowledged to anybody on the strength of this file.
//! - One writer per file ([`Store`]); readers ([`Reader`]) see whole transactions, and neither waits for the other.
//! - A store of another version is not read: it is deleted and made again from the log.
//!
//! Limits: what the writer remembers between transactions is bounded ([`cache`]); what one device can make it remember is
//! bounded by the fold ([`crate::projection::boot`]).

mod cache;
mod codec;
mod fold;
mod reader;
mod schema;
pub mod types;

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use crate::config::Invalid;
use crate::log::Opened;
use types::Position;

pub use codec::Damaged;
pub use fold::Folded;
pub use reader::Reader;

/// `[store]`: where views are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The SQLite file; made if absent. Its `-wal`, `-shm` and `.lock` files lie beside it.
    pub path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Config { path: "weir-cloud.sqlite".into() }
    }
}

impl Config {
    /// Checks that there is a path.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.path.as_os_str().is_empty() {
            return Err(Invalid::new("store.path", "", "the path of a file, as /var/lib/weir/cloud.sqlite"));
        }
        Ok(())
    }
}

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refused.
    #[error("cannot {doing} the store {}", file.display())]
    Sqlite {
        /// The database.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The store holds something that was never written to it.
    #[error("the store {} is damaged; delete it, and it is made again from the log", file.display())]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What was found.
        source: Damaged,
    },
    /// The file is not a store, or one of another version.
    #[error("{} {found}; delete it or name another, and the store is made again from the log", file.display())]
    Foreign {
        /// The database.
        file: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// Another process writes to this store.
    #[error("another process writes to the store {}", file.display())]
    InUse {
        /// The database.
        file: PathBuf,
    },
    /// The file beside the store that says it is in use cannot be made.
    #[error("cannot lock {}", file.display())]
    Lock {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// What can go wrong inside, before it is known of which file and in what undertaking.
#[derive(Debug)]
enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(Damaged),
    /// The position is not where we left it.
    Moved,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sqlite(error)
    }
}

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Self {
        Fault::Damaged(damaged)
    }
}

impl Fault {
    fn while_doing(self, doing: &'static str, file: &Path) -> Error {
        let file = file.to_owned();
        match self {
            Fault::Sqlite(source) => Error::Sqlite { file, doing, source },
            Fault::Damaged(source) => Error::Damaged { file, source },
            Fault::Moved => Error::InUse { file },
        }
    }
}

/// The store, opened for writing: one per file.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    connection: Connection,
    cache: cache::Cache,
    position: Option<Position>,
    reader: Reader,
    /// Holds the lock for as long as the store is open.
    _lock: File,
}

/// Memory that SQLite may use to keep pages of the writer's connection.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
/// Size at which the write-ahead log is copied into the database. Pages that many transactions write to, and the last page of
/// every active device is such, are then copied once instead of many times.
const CHECKPOINT_PAGES: i64 = 16 * 1024;
/// Size to which the write-ahead log is cut when a long query has kept it from being copied and it has grown beyond.
const JOURNAL_BYTES_KEPT: i64 = 128 * 1024 * 1024;
/// How long to wait for a reader that is just opening or closing the file.
const BUSY_TIMEOUT_MS: u64 = 10_000;

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, is used by another process, or is not ours.
    pub fn open(config: &Config) -> Result<Store, Error> {
        let file = config.path.clone();
        let lock = lock(&file)?;
        let opened = (|| {
            let mut connection = Connection::open(&file)?;
            prepare(&connection)?;
            let version = schema_of(&mut connection)?;
            Ok((connection, version))
        })();
        let (connection, found) = opened.map_err(|fault: Fault| fault.while_doing("open", &file))?;
        if let Some(found) = found {
            return Err(Error::Foreign { file, found });
        }
        let reader = Reader::at(&file);
        let position = reader.position()?;
        Ok(Store { file, connection, cache: cache::Cache::default(), position, reader, _lock: lock })
    }

    /// Whoever wants to ask while it is written.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The database file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Up to where the log has been folded; `None` if nothing has been yet.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Folds messages of the stream that was created at `stream_created_ns`, in the stream's order, in one transaction.
    ///
    /// # Errors
    /// [`Error`] if they could not be written; then nothing of them is.
    pub fn fold(
        &mut self,
        stream: &str,
        stream_created_ns: i64,
        messages: &[Opened],
    ) -> Result<Folded, Error> {
        let Some(last) = messages.last() else { return Ok(Folded::default()) };
        let position = Position {
            stream: stream.to_owned(),
            stream_created_ns,
            stream_sequence: last.sequence,
            logged_at_ns: last.logged_ns,
        };
        let folded = (|| {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let folded =
                fold::fold(&transaction, &mut self.cache, self.position.as_ref(), &position, messages)?;
            transaction.commit()?;
            Ok(folded)
        })();
        let folded = folded.map_err(|fault: Fault| {
            // What is remembered is ahead of what was rolled back.
            self.cache = cache::Cache::default();
            fault.while_doing("write to", &self.file)
        })?;
        self.position = Some(position);
        self.cache.trim();
        Ok(folded)
    }
}

fn lock(file: &Path) -> Result<File, Error> {
    let mut path = file.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let lock = File::create(&path).map_err(|source| Error::Lock { file: path.clone(), source })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse { file: file.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::Lock { file: path, source }),
    }
}

fn prepare(connection: &Connection) -> Result<(), Fault> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES_KEPT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Makes the tables in an empty file. What the file is, if it is not a store of our version.
fn schema_of(connection: &mut Connection) -> Result<Option<String>, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |pragma| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(schema::CREATE)?;
        transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", schema::VERSION)?;
        transaction.commit()?;
        return Ok(None);
    }
    Ok(foreign(application, version))
}

/// What a file is, if it is not a store of our version.
fn foreign(application: i64, version: i64) -> Option<String> {
    if application != schema::APPLICATION_ID {
        return Some("is a database of something else".to_owned());
    }
    (version != schema::VERSION)
        .then(|| format!("is a store of version {version}, and this is version {}", schema::VERSION))
}

fn read_position(connection: &Connection) -> Result<Option<Position>, Fault> {
    let sql =
        "SELECT stream, created_ns, sequence, logged_ns FROM position JOIN logs ON logs.id = position.log";
    let position = connection.query_row(sql, params![], |row| {
        Ok(Position {
            stream: row.get(0)?,
            stream_created_ns: row.get(1)?,
            stream_sequence: row.get::<_, i64>(2)?.cast_unsigned(),
            logged_at_ns: row.get(3)?,
        })
    });
    Ok(position.optional()?)
}

#[cfg(test)]
mod tests;
