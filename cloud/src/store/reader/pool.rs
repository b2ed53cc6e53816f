//! Connections for reading: made when needed, kept for the next, a bounded number of them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::super::{BUSY_TIMEOUT_MS, Fault};

/// Most idle connections kept.
const IDLE_MAX: usize = 8;
/// Memory that SQLite may use to keep pages of one connection.
const CACHE_KIB: i64 = 4 * 1024;

#[derive(Debug)]
pub struct Pool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub fn new(file: &Path) -> Pool {
        Pool { file: file.to_owned(), idle: Mutex::new(Vec::new()) }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Lends a connection. One that was lent when something went wrong is not kept.
    pub fn with<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = ask(&connection)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(answer)
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }
}
