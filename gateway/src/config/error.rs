//! What can be wrong with a configuration file.

use std::path::PathBuf;

use super::fit::Unfit;
use crate::{source, spool};

/// What can be wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened or read.
    #[error("cannot read the configuration {}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no TOML, or something in it is not allowed; the cause shows the line and what is allowed.
    #[error("the configuration {} does not fit", file.display())]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// The line, and what is allowed there.
        source: Box<toml::de::Error>,
    },
    /// Values of `[spool]` that do not go together.
    #[error("the configuration {} does not fit: [spool]", file.display())]
    Spool {
        /// Which file.
        file: PathBuf,
        /// The key, and what is allowed.
        source: spool::Error,
    },
    /// Values of `[source]` that do not go together.
    #[error("the configuration {} does not fit", file.display())]
    Source {
        /// Which file.
        file: PathBuf,
        /// Which broker, and what is allowed.
        source: Box<source::config::Error>,
    },
    /// Limits that do not fit this machine.
    #[error("the configuration {} does not fit this machine", file.display())]
    Unfit {
        /// Which file.
        file: PathBuf,
        /// The key, and what is allowed.
        source: Box<Unfit>,
    },
}
