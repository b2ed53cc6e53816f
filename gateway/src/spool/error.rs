//! What can go wrong with a spool, each naming the file or folder.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// An error of the spool. A variant per failed step; the cause is the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has the folder.
    #[error("the spool folder {} is in use by {owner}; one gateway has one spool", folder.display())]
    InUse {
        /// The spool's folder.
        folder: PathBuf,
        /// What its lock file says about who has it.
        owner: String,
    },
    /// The file system cannot be written.
    #[error(
        "the file system of the spool folder {} is read-only, so nothing can be stored, and nothing is acknowledged; what the \
         spool holds stays as it is. A card that fails is made read-only: see what the kernel says (dmesg), then make it writable \
         (mount -o remount,rw …), or replace it, or set spool.folder to a folder on another", folder.display()
    )]
    ReadOnly {
        /// The spool's folder.
        folder: PathBuf,
        /// What could not be done.
        source: Box<Error>,
    },
    /// The folder is another user's: a gateway that runs as its owner could not delete what is made in it now.
    #[error("the spool folder {} belongs to the user with id {owner}, and this runs as {user}", folder.display())]
    NotOurs {
        /// The spool's folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// sled failed in an epoch.
    #[error("cannot {what} the epoch {}", path.display())]
    Sled {
        /// What was being done.
        what: &'static str,
        /// The epoch's folder.
        path: PathBuf,
        /// sled's answer.
        source: Box<sled::Error>,
    },
    /// A panic: sled asserts that its files are what it wrote.
    #[error("cannot {what} {}: {message}", path.display())]
    Panicked {
        /// What was being done.
        what: &'static str,
        /// The epoch's folder.
        path: PathBuf,
        /// What the panic said.
        message: String,
    },
    /// A file of ours does not read as one.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Numbers that should be here are not. Whoever reads goes on at `to` and tells what is gone.
    #[error("the uplinks {from} to {} are not in the spool: {reason}", to - 1)]
    Missing {
        /// The first number that is gone.
        from: u64,
        /// The next number that may be read.
        to: u64,
        /// Why.
        reason: String,
    },
    /// Numbers that were given up because the spool was full: it is told already. Whoever reads goes on at `to`.
    #[error("the uplinks {from} to {} were given up because the spool was full", to - 1)]
    GivenUp {
        /// The first number that is gone.
        from: u64,
        /// The next number that may be read.
        to: u64,
    },
    /// A release of what is not there yet.
    #[error("cannot release up to {number}: the spool ends at {next}")]
    ReleasedAhead {
        /// The number given.
        number: u64,
        /// The next number to be stored.
        next: u64,
    },
    /// A configuration that cannot work.
    #[error("spool.{key}: {allowed}")]
    Config {
        /// The key within `[spool]`.
        key: &'static str,
        /// What it is, and what is allowed.
        allowed: String,
    },
}

impl Error {
    /// Whether the files are not what was written, so that trying again is of no use. Everything else (too many open
    /// files, no memory, a disk that fails to read) may pass: what cannot be read now is not gone.
    pub(super) fn is_damage(&self) -> bool {
        let gone = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof);
        match self {
            Self::Io { source, .. } => gone(source),
            Self::Sled { source, .. } => match &**source {
                sled::Error::Io(error) => gone(error),
                _ => true,
            },
            Self::Panicked { .. } | Self::Damaged { .. } | Self::Missing { .. } => true,
            Self::InUse { .. }
            | Self::ReadOnly { .. }
            | Self::NotOurs { .. }
            | Self::GivenUp { .. }
            | Self::ReleasedAhead { .. }
            | Self::Config { .. } => false,
        }
    }

    /// Whether it may be done later on the same files: the disk is full, read-only or failing now, or the machine is short of
    /// something. Not so where files are not what they were, or not ours.
    pub(crate) fn may_pass(&self) -> bool {
        let passes = |error: &io::Error| {
            !matches!(
                error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::AlreadyExists
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
                    | ErrorKind::DirectoryNotEmpty
                    | ErrorKind::PermissionDenied
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::InvalidInput
                    | ErrorKind::InvalidData
            )
        };
        match self {
            Self::Io { source, .. } => passes(source),
            Self::Sled { source, .. } => matches!(&**source, sled::Error::Io(error) if passes(error)),
            _ => false,
        }
    }

    /// Whether the disk has no room for more, or takes nothing more: what it holds can be read all the same.
    pub(crate) fn is_no_room(&self) -> bool {
        let kind = match self {
            Self::Io { source, .. } => source.kind(),
            Self::Sled { source, .. } => match &**source {
                sled::Error::Io(error) => error.kind(),
                _ => return false,
            },
            _ => return false,
        };
        matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
    }

    /// The error with its causes, in one line.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    /// Whether a file system that cannot be written is the reason.
    pub(super) fn is_read_only(&self) -> bool {
        let is = |error: &io::Error| error.kind() == ErrorKind::ReadOnlyFilesystem;
        match self {
            Self::Io { source, .. } => is(source),
            Self::Sled { source, .. } => matches!(&**source, sled::Error::Io(error) if is(error)),
            _ => false,
        }
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(super) fn sled(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(sled::Error) -> Self {
        let path = path.into();
        move |source| Self::Sled { what, path, source: Box::new(source) }
    }
}
