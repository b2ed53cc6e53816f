//! The file that says which numbers have been given out, and which are gone because they were deleted.
//!
//! A record proves what was stored before its commit began, so only the last commit is not proven by the epochs. When that
//! is damaged, nothing in them tells it from a commit that a power cut tore before anybody was told of it. So after each commit its end is
//! written here, into a file that has its place on the disk, and is not synced: it outlives a killed process at once, and a
//! power cut as soon as the system has written it, some seconds later, many commits in one write. Whatever stands here is
//! true whenever it arrives. While the machine has not been started again it is exact; after that it may be behind, by what
//! the system had not written yet when the power was cut.
//!
//! ```text
//! FOLDER/numbers   two copies, 4 KiB apart, integers little-endian:
//!                  "weirnum1" | incarnation u64 | next u64 | kept u64 | the machine's start u128 | crc32 u32
//! ```
//!
//! A start of the machine has a number of its own (`/proc/sys/kernel/random/boot_id`, random(4)); 0 is an unknown one.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::error::Error;
use super::folder::{read_small, sync_folder};

const MAGIC: [u8; 8] = *b"weirnum1";
const COPY_BYTES: usize = 52;
/// On different blocks of the disk.
pub(super) const COPIES_AT: [u64; 2] = [0, 4096];
const FILE_BYTES: usize = 8192;

/// What is known of numbers besides the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Which spool this is.
    pub incarnation: u64,
    /// Every smaller number was given out.
    pub next: u64,
    /// What is not there of smaller numbers was deleted: it was delivered, or given up.
    pub kept: u64,
    /// The start of the machine in which this was written.
    pub machine_start: u128,
}

impl Claim {
    /// Whether nothing that was written since can be missing.
    pub fn is_exact(&self) -> bool {
        self.machine_start != 0 && self.machine_start == machine_start()
    }
}

/// Of the start in which this runs.
pub(super) fn machine_start() -> u128 {
    static START: LazyLock<u128> = LazyLock::new(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        u128::from_str_radix(&id.trim().replace('-', ""), 16).unwrap_or_default()
    });
    *START
}

/// What the file says at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// There is no such file: the spool is new, or was made by a version that had none.
    Nothing,
    /// It is not readable.
    Damaged,
    /// This; one of the copies may be damaged.
    Claim(Claim),
}

impl Said {
    pub fn claim(self) -> Option<Claim> {
        match self {
            Said::Claim(claim) => Some(claim),
            Said::Nothing | Said::Damaged => None,
        }
    }
}

/// The file, for the one who writes it.
#[derive(Debug)]
pub(super) struct Numbers {
    path: PathBuf,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// `None` while there is no room for it.
    file: Option<File>,
    claim: Claim,
}

/// Reads the file in a spool's folder.
pub(super) fn read(folder: &Path) -> Result<Said, Error> {
    let path = folder.join("numbers");
    let Some(bytes) = read_small(&path)? else { return Ok(Said::Nothing) };
    let copies = COPIES_AT.iter().filter_map(|&at| decode(bytes.get(usize::try_from(at).ok()?..)?));
    Ok(copies.max_by_key(|claim| (claim.next, claim.kept)).map_or(Said::Damaged, Said::Claim))
}

pub(super) fn encode(claim: &Claim) -> [u8; COPY_BYTES] {
    let mut bytes = [0; COPY_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&claim.incarnation.to_le_bytes());
    bytes[16..24].copy_from_slice(&claim.next.to_le_bytes());
    bytes[24..32].copy_from_slice(&claim.kept.to_le_bytes());
    bytes[32..48].copy_from_slice(&claim.machine_start.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..48]);
    bytes[48..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Option<Claim> {
    let copy = bytes.get(..COPY_BYTES)?;
    let field = |at: usize| u64::from_le_bytes(copy[at..at + 8].try_into().expect("eight bytes"));
    let whole = copy.starts_with(&MAGIC) && crc32fast::hash(&copy[..48]).to_le_bytes() == copy[48..];
    let machine_start = u128::from_le_bytes(copy[32..48].try_into().expect("sixteen bytes"));
    whole.then(|| Claim { incarnation: field(8), next: field(16), kept: field(24), machine_start })
}

impl Numbers {
    /// Makes the file or writes it over: durable when this returns, unless the disk has no room for it.
    ///
    /// # Errors
    /// It can be neither made nor written.
    pub fn begin(folder: &Path, claim: Claim) -> Result<Self, Error> {
        let path = folder.join("numbers");
        let file = match make(&path, &claim) {
            Ok(file) => Some(file),
            Err(error) if may_come_later(&error) => {
                tracing::warn!(error = error.to_string(), file = %path.display(), "is written later");
                None
            }
            Err(error) => return Err(Error::io("write", &path)(error)),
        };
        Ok(Self { path, written: Mutex::new(Written { file, claim }) })
    }

    /// Every number below `next` was given out, and is on the disk.
    pub fn given_out(&self, next: u64) {
        let mut written = self.written();
        written.claim.next = written.claim.next.max(next);
        // It is a help only: the next start can do without, unless the last commit is damaged as well.
        if let Err(error) = written.write(&self.path) {
            tracing::debug!(error = error.to_string(), "could not write down which numbers were given out");
        }
    }

    /// What is below `kept` is going to be deleted; durable when this returns. Only one at a time does this.
    ///
    /// # Errors
    /// It is not written down.
    pub fn kept_from(&self, kept: u64) -> Result<(), Error> {
        let mut written = self.written();
        let before = written.claim.kept;
        written.claim.kept = before.max(kept);
        let file = match written.write(&self.path).and_then(|()| written.file()) {
            // Deleting is what makes room for it.
            Err(_) if written.file.is_none() => return Ok(()),
            file => file,
        };
        // A commit does not wait for this sync.
        drop(written);
        let synced = file.and_then(|file| file.map_or(Ok(()), |file| file.sync_data()));
        synced.map_err(Error::io("write", &self.path)).inspect_err(|_| self.written().claim.kept = before)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Whoever panicked has left both copies, or one.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn write(&mut self, path: &Path) -> io::Result<()> {
        match &self.file {
            Some(file) => write(file, &self.claim),
            None => {
                self.file = Some(make(path, &self.claim)?);
                Ok(())
            }
        }
    }

    /// The file, for who syncs it without holding this.
    fn file(&self) -> io::Result<Option<File>> {
        self.file.as_ref().map(File::try_clone).transpose()
    }
}

fn make(path: &Path, claim: &Claim) -> io::Result<File> {
    let file = File::options().create(true).write(true).truncate(false).open(path)?;
    if file.metadata()?.len() != FILE_BYTES as u64 {
        // Written, not only as long: so it has its place.
        file.write_all_at(&[0; FILE_BYTES], 0)?;
        file.set_len(FILE_BYTES as u64)?;
    }
    write(&file, claim)?;
    file.sync_all()?;
    sync_folder(path.parent().expect("it is in the spool's folder")).map_err(io::Error::other)?;
    Ok(file)
}

fn write(file: &File, claim: &Claim) -> io::Result<()> {
    let copy = encode(claim);
    COPIES_AT.iter().try_for_each(|&at| file.write_all_at(&copy, at))
}

fn may_come_later(error: &io::Error) -> bool {
    use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn either_copy_is_enough_and_none_is_told_from_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("numbers");
        assert_eq!(read(folder.path()).expect("read"), Said::Nothing);
        let claim = Claim { incarnation: 7, next: 10, kept: 3, machine_start: 4 };
        let numbers = Numbers::begin(folder.path(), claim).expect("made");
        numbers.given_out(12);
        numbers.kept_from(5).expect("written");
        let said = Said::Claim(Claim { next: 12, kept: 5, ..claim });
        assert_eq!(read(folder.path()).expect("read"), said);
        let whole = fs::read(&path).expect("there");
        for copy in COPIES_AT {
            let mut bytes = whole.clone();
            bytes[usize::try_from(copy).expect("small") + 17] ^= 1;
            fs::write(&path, bytes).expect("written");
            assert_eq!(read(folder.path()).expect("read"), said);
        }
        for damaged in [vec![], vec![0; FILE_BYTES], whole[..COPY_BYTES - 1].to_vec()] {
            fs::write(&path, damaged).expect("written");
            assert_eq!(read(folder.path()).expect("read"), Said::Damaged);
        }
    }
}
