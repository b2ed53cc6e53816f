//! What the disk has to do for the spool besides storing: say what is free, and let epochs be read when there is no room.
//!
//! sled writes when it opens a database: it fills the last segment up and writes an index. On a full disk, or one that
//! is read-only by now, an epoch could be neither read nor delivered, and delivering is what makes room. So what cannot be opened
//! where it is is copied to a file system in memory, and opened there: the copy is never written back.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::epoch::Epoch;
use super::error::Error;

/// Bytes free on the file system of a folder, for an ordinary user.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Opens an epoch to read it: where it is, or, if the disk does not let that be done, as a copy in memory.
///
/// # Errors
/// What kept it from being opened where it is.
pub(super) fn open_epoch(path: &Path) -> Result<Epoch, Error> {
    let error = match Epoch::open(path) {
        Err(error) if !error.is_damage() && error.may_pass() => error,
        opened => return opened,
    };
    let copied = Copy::of(path).map_err(Error::io("copy", path)).and_then(|copy| Epoch::open(&copy.path));
    match copied {
        Ok(epoch) => {
            tracing::debug!(epoch = %path.display(), error = error.with_causes(), "an epoch is read from a copy in memory");
            Ok(epoch)
        }
        Err(in_memory) => {
            tracing::warn!(
                error = in_memory.with_causes(),
                "an epoch cannot be read from a copy in memory either"
            );
            Err(error)
        }
    }
}

/// Has what is in memory written, and forgets what is in memory: what is read afterwards is what the disk holds. (After a failed
/// sync the kernel keeps pages that are not on disk, and calls them clean.)
pub(super) fn settle(path: &Path) -> Result<(), Error> {
    let log = path.join("db");
    let settle = || -> io::Result<()> {
        let file = File::open(&log)?;
        file.sync_all()?;
        // A file system without a cache has nothing to forget.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    };
    settle().map_err(Error::io("sync", &log))
}

/// Lets go of a database: sled asserts in doing so that the disk takes a sync, though everything of ours is synced already.
pub(super) fn let_go<T>(database: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
        tracing::warn!("the disk failed while an epoch was closed; everything in it was synced before");
    }
}

/// A copy of an epoch's log in memory, whose names are gone when this is dropped; what has it open has it.
struct Copy {
    path: PathBuf,
}

impl Copy {
    fn of(epoch: &Path) -> io::Result<Self> {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let name = format!("weir-{}-{}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
        let mut failed = io::Error::from(ErrorKind::NotFound);
        for place in [PathBuf::from("/dev/shm"), std::env::temp_dir()] {
            match Copy::make(place.join(&name)).and_then(|copy| copy.fill(epoch).map(|()| copy)) {
                Ok(copy) => return Ok(copy),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Only where nothing is yet.
    fn make(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    fn fill(&self, epoch: &Path) -> io::Result<()> {
        for file in ["db", "conf"] {
            fs::copy(epoch.join(file), self.path.join(file))?;
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What is left in memory is gone with the machine at the latest.
        let _ = fs::remove_dir_all(&self.path);
    }
}
