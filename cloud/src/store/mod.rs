//! The views on disk. The only module that knows the database.

mod reader;
pub mod types;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use reader::Reader;

use crate::config::Invalid;

/// `[store]`: where views are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The SQLite file; made if absent. Its `-wal` and `-shm` files lie beside it.
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
    #[error("the store {} cannot {doing}", file.display())]
    Sqlite {
        /// The database.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// The store, opened for writing: one per file.
#[derive(Debug)]
pub struct Store {
    config: Config,
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, is used by another process, or is not ours.
    pub fn open(config: &Config) -> Result<Store, Error> {
        Ok(Store { config: config.clone() })
    }

    /// Whoever wants to ask while it is written.
    pub fn reader(&self) -> Reader {
        Reader::at(self.file())
    }

    /// The database file.
    pub fn file(&self) -> &Path {
        &self.config.path
    }
}
