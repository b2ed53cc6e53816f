//! The spool's folder: who has it, which spool it is, how far it is delivered. Files are written whole, beside the old
//! one, synced, renamed over it, and the folder synced: after a power cut there is the old file or the new one.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::scan::is_of_the_block;
use crate::durable;

/// What the uplink has had acknowledged by the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Every uplink with a smaller number is in the stream.
    pub number: u64,
    /// Stream sequence of the message that holds the last of them, 0 for none.
    pub stream_sequence: u64,
}

/// The contents of the `delivered` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub delivered: Delivered,
    /// No uplink with this number or a greater one had been stored when this was written, and every smaller number had
    /// been given away: whatever the epochs say, numbering goes on no lower.
    pub next: u64,
}

impl Default for Mark {
    fn default() -> Self {
        Self { delivered: Delivered { number: 1, stream_sequence: 0 }, next: 1 }
    }
}

const MAGIC: &str = "weir spool 1";

/// A locked spool folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held for as long as this process has the spool; the operating system lets go of it with the process.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be and takes it for this process.
    pub fn open(path: &Path, now_ms: u64) -> Result<Self, Error> {
        durable::create_folder(&path.join("epochs")).map_err(Error::io("create", path))?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(Error::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse { folder: path.to_owned(), owner: owner(&mut lock) });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io { what: "lock", path: lock_path, source });
            }
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "process {} since {now_ms} (Unix ms)", std::process::id()))
            // It is locked all the same; only who has it cannot be said on a full disk.
            .or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })
            .map_err(Error::io("write", &lock_path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Takes a folder that is there, to look into it: nothing is made or changed.
    pub fn hold(path: &Path) -> Result<File, Error> {
        let lock_path = path.join("lock");
        let mut lock =
            File::open(&lock_path).map_err(Error::io("open (is this the folder of a spool?)", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => {
                Err(Error::InUse { folder: path.to_owned(), owner: owner(&mut lock) })
            }
            Err(TryLockError::Error(source)) => Err(Error::Io { what: "lock", path: lock_path, source }),
        }
    }

    /// Where the epochs are.
    pub fn epochs(&self) -> PathBuf {
        self.path.join("epochs")
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The spool's incarnation, if there is one.
    pub fn read_incarnation(&self) -> Result<Option<u64>, Error> {
        Self::incarnation_in(&self.path)
    }

    /// The incarnation of the spool in a folder.
    pub fn incarnation_in(folder: &Path) -> Result<Option<u64>, Error> {
        let path = folder.join("incarnation");
        let Some(fields) = read_fields(&path)? else { return Ok(None) };
        match fields[..] {
            [incarnation] => Ok(Some(incarnation)),
            _ => Err(Error::Damaged { path, what: "it has not one number".to_owned() }),
        }
    }

    /// Writes down which spool this is.
    pub fn write_incarnation(&self, incarnation: u64) -> Result<(), Error> {
        write_fields(&self.path.join("incarnation"), &[incarnation])
    }

    /// Keeps a file that cannot be read, as `incarnation.damaged`.
    pub fn set_incarnation_aside(&self) -> Result<(), Error> {
        let path = self.path.join("incarnation");
        match fs::rename(&path, path.with_extension("damaged")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("rename", path)(error)),
            _ => sync_folder(&self.path),
        }
    }

    /// How far the spool was delivered when that was last written down. To be asked before the incarnation.
    ///
    /// A file that cannot be read is set aside as `delivered.damaged`. The stream is asked where to go on, and the epochs
    /// say which numbers were given away; if there is no epoch, nothing does, and the spool begins anew under another
    /// incarnation, so that no number means two uplinks.
    pub fn mark(&self) -> Result<Mark, Error> {
        let path = self.path.join("delivered");
        let damage = match Self::mark_in(&self.path) {
            Ok(mark) => return Ok(mark.unwrap_or_default()),
            Err(error @ Error::Damaged { .. }) => error,
            Err(error) => return Err(error),
        };
        tracing::error!(
            error = damage.with_causes(),
            "set aside as delivered.damaged; the stream will be asked how far it is delivered"
        );
        if !self.has_epochs()? {
            let incarnation = self.path.join("incarnation");
            match fs::remove_file(&incarnation) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", incarnation)(error));
                }
                // Durable first: with the old incarnation numbers would begin at 1 again.
                _ => sync_folder(&self.path)?,
            }
        }
        fs::rename(&path, path.with_extension("damaged")).map_err(Error::io("rename", &path))?;
        sync_folder(&self.path)?;
        Ok(Mark::default())
    }

    /// What is written down in a folder, if anything is.
    pub fn mark_in(folder: &Path) -> Result<Option<Mark>, Error> {
        let path = folder.join("delivered");
        let Some(fields) = read_fields(&path)? else { return Ok(None) };
        match fields[..] {
            [number, stream_sequence, next] => {
                Ok(Some(Mark { delivered: Delivered { number, stream_sequence }, next }))
            }
            _ => Err(Error::Damaged { path, what: "it has not three numbers".to_owned() }),
        }
    }

    /// Whether there is an epoch; not one that is being made or deleted.
    fn has_epochs(&self) -> Result<bool, Error> {
        let epochs = self.epochs();
        for entry in fs::read_dir(&epochs).map_err(Error::io("list", &epochs))? {
            let name = entry.map_err(Error::io("list", &epochs))?.file_name();
            if name.to_string_lossy().parse::<u64>().is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes down how far the spool is delivered.
    pub fn write_mark(&self, mark: &Mark) -> Result<(), Error> {
        let Mark { delivered: Delivered { number, stream_sequence }, next } = *mark;
        write_fields(&self.path.join("delivered"), &[number, stream_sequence, next])
    }
}

fn owner(lock: &mut File) -> String {
    let mut owner = String::new();
    // Only for the message: an owner who has not written his name yet is still an owner.
    let _ = lock.read_to_string(&mut owner);
    if owner.is_empty() { "another process".to_owned() } else { owner.trim().to_owned() }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), Error> {
    durable::sync_folder(path).map_err(Error::io("sync", path))
}

/// A file of one line: magic, numbers, and a checksum of both. A person can read it.
fn write_fields(path: &Path, fields: &[u64]) -> Result<(), Error> {
    let mut line = MAGIC.to_owned();
    for field in fields {
        line.push_str(&format!(" {field}"));
    }
    let line = format!("{line} crc {:08x}\n", crc32fast::hash(line.as_bytes()));
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(Error::io("write", path))?;
    sync_folder(path.parent().expect("a file of the spool is in its folder"))
}

/// What a small file of the spool holds; `None` if there is none. One whose blocks the disk does not read is as good as an
/// empty one: damaged, and no reason not to start.
///
/// # Errors
/// It cannot be read for another reason.
pub(super) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        match fs::read(path) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if is_of_the_block(&error) => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
    tracing::error!(file = %path.display(), "the disk does not read it");
    Ok(Some(Vec::new()))
}

/// `None` if there is no such file.
fn read_fields(path: &Path) -> Result<Option<Vec<u64>>, Error> {
    let Some(bytes) = read_small(path)? else { return Ok(None) };
    let line = String::from_utf8(bytes).unwrap_or_default();
    let fields = line.trim_end().rsplit_once(" crc ").and_then(|(said, crc)| {
        let right = u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(said.as_bytes());
        let numbers = said.strip_prefix(MAGIC).filter(|_| right)?;
        numbers.split_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()
    });
    fields.map(Some).ok_or_else(|| Error::Damaged {
        path: path.to_owned(),
        what: "it is not a line of this format with a right checksum".to_owned(),
    })
}
