//! An epoch: one small sled database of consecutive records. The only file that knows sled.
//!
//! What sled 0.34.7 writes into its folder, and what makes each durable (found by reading its source):
//! - `db`: the log, everything that is stored. [`sled::Db::flush`] has written all of it when it returns, but only calls
//!   `sync_file_range`, which flushes neither the disk's cache nor the file's length: [`Writing::barrier`] calls
//!   `sync_data` on the file after it.
//! - `conf`: written when the database is made, never again: synced then.
//! - `snap.*`: an index of the log, written when an existing database is opened. Not needed: without it the log is read. Removed
//!   before each opening, because sled takes one that a cut of the power left half written for the index of what there is.
//! - `blobs/*`: what is longer than a quarter of a 512 KiB segment: a long value, **or a page**, that is a leaf with all its
//!   values, whenever sled writes a leaf as a whole. Written without any sync, so nothing must ever go there.
//!
//! sled writes a leaf as a whole when a chain of ten additions to it is joined, and when one of 17 is split: keeping all
//! records in one tree would write everything three times, and into unsynced blobs. So the records are spread over
//! trees of one leaf, each closed before either happens ([`LEAF_RECORDS_MAX`], [`LEAF_BYTES_MAX`]): everything is written
//! once, into `db`. A tree is named like its first record's key. As the last safeguard the folder is renamed after sled has opened it, so
//! that an attempt to write a blob fails, and with it the commit.
//!
//! An epoch is written only by the process that made it. What another process left is read, never continued, and without sled
//! ([`super::closed`]), which would change it in opening it; but for epochs of the first version of records.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk;
use super::error::Error;
use super::folder::sync_folder;
use super::record::{self, Draft, Record, Stamp};

/// sled joins a chain of ten: the first is the empty leaf, so nine records make ten.
const LEAF_RECORDS_MAX: u32 = 9;
/// A leaf of this size with its overhead is no blob: sled's limit is 131,052 bytes.
const LEAF_BYTES_MAX: usize = 120_000;
/// sled writes the names of all trees with each new one.
const LEAVES_MAX: u32 = 512;
/// Bounds how far numbering must jump when the last epoch cannot be read.
pub(super) const EPOCH_UPLINKS_MAX: u64 = 1 << 20;
/// sled's unit of allocation.
pub(super) const SLED_SEGMENT_BYTES: u64 = 512 * 1024;
/// sled's cache; it holds an epoch's pages beside this, up to the size of an epoch.
const CACHE_BYTES: u64 = 1024 * 1024;
/// sled lets go of a database's lock some time after the database has been dropped.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// An epoch's database, for reading; shared between the writer and readers.
#[derive(Debug)]
pub(super) struct Epoch {
    path: PathBuf,
    db: Database,
}

/// A database. Whoever lets go of the last of it, on whatever way out, does not panic if the disk fails then.
#[derive(Debug)]
struct Database(Option<sled::Db>);

impl Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        disk::let_go(self.0.take());
    }
}

/// The epoch that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    /// Before the database, so that this is not the last of it.
    leaf: Option<Leaf>,
    epoch: Arc<Epoch>,
    file: File,
    leaves: u32,
    /// Its first number.
    first: u64,
}

#[derive(Debug)]
struct Leaf {
    tree: sled::Tree,
    records: u32,
    bytes: usize,
}

/// An empty epoch that has no name yet: everything of it is durable but its place in the row.
#[derive(Debug)]
pub(super) struct Blank {
    path: PathBuf,
    db: Database,
    file: File,
}

impl Blank {
    /// Makes an empty database where nothing is yet.
    pub fn make(path: &Path) -> Result<Self, Error> {
        fs::create_dir(path).map_err(Error::io("create", path))?;
        let db = open_db(path)?;
        guarded("make", path, || db.flush())?;
        let log = path.join("db");
        let file = File::open(&log).map_err(Error::io("open", &log))?;
        file.sync_all().map_err(Error::io("sync", &log))?;
        let conf = path.join("conf");
        File::open(&conf).and_then(|file| file.sync_all()).map_err(Error::io("sync", &conf))?;
        sync_folder(path)?;
        Ok(Self { path: path.to_owned(), db, file })
    }

    /// Removes it.
    pub fn discard(self) -> Result<(), Error> {
        drop((self.db, self.file));
        remove(&self.path)
    }

    /// Puts it in the row: the name is durable when this returns. If it fails, the name may be there all the same, and has to be
    /// hidden before it is given again.
    pub fn name(self, first: u64, path: &Path) -> Result<Writing, Error> {
        fs::rename(&self.path, path).map_err(Error::io("rename", self.path))?;
        sync_folder(path.parent().expect("an epoch is in a folder"))?;
        // What is synced must be what has the name: everything acknowledged hangs on it.
        let (log, ours) = (path.join("db"), self.file.metadata().map_err(Error::io("look at", path))?);
        let named = fs::metadata(&log).map_err(Error::io("look at", &log))?;
        if (named.dev(), named.ino()) != (ours.dev(), ours.ino()) {
            return Err(Error::Damaged { path: log, what: "somebody has put another file here".to_owned() });
        }
        let epoch = Arc::new(Epoch { path: path.to_owned(), db: self.db });
        Ok(Writing { epoch, file: self.file, leaf: None, leaves: 0, first })
    }
}

impl Writing {
    /// Its database, for readers.
    pub fn epoch(&self) -> Arc<Epoch> {
        self.epoch.clone()
    }

    /// Adds a record; durable only after [`Self::barrier`].
    pub fn append(&mut self, first: u64, stamp: Stamp, draft: &mut Draft) -> Result<Record, Error> {
        let value = sled::IVec::from(draft.seal(first, stamp));
        let key = first.to_be_bytes();
        let path = &self.epoch.path;
        let fits =
            |leaf: &Leaf| leaf.records < LEAF_RECORDS_MAX && leaf.bytes + value.len() <= LEAF_BYTES_MAX;
        if !self.leaf.as_ref().is_some_and(fits) {
            let tree = guarded("write", path, || self.epoch.db.open_tree(key))?;
            self.leaf = Some(Leaf { tree, records: 0, bytes: 0 });
            self.leaves += 1;
        }
        let leaf = self.leaf.as_mut().expect("made just now");
        guarded("write", path, || leaf.tree.insert(key, value.clone()))?;
        leaf.records += 1;
        leaf.bytes += value.len();
        Ok(draft.record(first, value))
    }

    /// Everything appended is on the disk when this returns.
    pub fn barrier(&self) -> Result<(), Error> {
        guarded("flush", &self.epoch.path, || self.epoch.db.flush())?;
        self.file.sync_data().map_err(Error::io("sync", self.epoch.path.join("db")))
    }

    /// Length of its log in bytes.
    pub fn log_bytes(&self) -> Result<u64, Error> {
        let metadata = self.file.metadata().map_err(Error::io("look at", self.epoch.path.join("db")))?;
        Ok(metadata.len())
    }

    /// Whether a record of `count` uplinks from `number` on may go into it.
    pub fn has_room(&self, number: u64, count: u64) -> bool {
        self.leaves < LEAVES_MAX && number + count - self.first <= EPOCH_UPLINKS_MAX
    }
}

impl Epoch {
    /// Opens what is there, to read it. Waits a little if this process has only just closed it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // sled would make what is not there.
        let log = path.join("db");
        fs::metadata(&log).map_err(Error::io("open", &log))?;
        remove_indexes(path)?;
        let deadline = Instant::now() + LOCK_WAIT;
        let db = loop {
            match open_db(path) {
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                opened => break opened?,
            }
        };
        Ok(Self { path: path.to_owned(), db })
    }

    /// Number after the last record that can be read, `None` if there is no record.
    pub fn end(&self) -> Result<Option<u64>, Error> {
        for leaf in self.leaves().into_iter().rev() {
            let last = guarded("read", &self.path, || self.db.open_tree(leaf.to_be_bytes())?.last())?;
            if let Some((key, value)) = last {
                let record = record::read_value(&key, value).map_err(|damage| self.damaged(&damage))?;
                return Ok(Some(record.end()));
            }
        }
        Ok(None)
    }

    /// Records from the one that holds `number` on, up to (not including) `end`, until `bytes_max` is passed.
    ///
    /// Stops before what is missing; if that is the first, [`Error::Missing`] tells up to where, at most `end`. Any other
    /// error says that reading failed, not that something is gone.
    pub fn read(&self, number: u64, end: u64, bytes_max: usize) -> Result<Vec<Arc<Record>>, Error> {
        let leaves = self.leaves();
        let start = leaves.partition_point(|&first| first <= number).saturating_sub(1);
        let ends = leaves.iter().skip(start + 1).copied().chain([end]);
        let found =
            leaves.iter().skip(start).zip(ends).flat_map(|(&leaf, leaf_end)| self.read_leaf(leaf, leaf_end));
        let (mut records, mut bytes, mut wanted) = (Vec::new(), 0, number);
        let mut hole = None;
        for Found { end: found_end, record } in found {
            if found_end <= wanted {
                continue;
            }
            match record {
                Ok(record) if record.first <= wanted => {
                    wanted = record.end();
                    bytes += record.entries.len();
                    records.push(Arc::new(record));
                }
                Ok(record) => {
                    hole = Some((record.first, format!("{} has not got them", self.path.display())));
                }
                Err(error) if error.is_damage() => hole = Some((found_end, error.with_causes())),
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            }
            if hole.is_some() || wanted >= end || bytes >= bytes_max {
                break;
            }
        }
        if !records.is_empty() || number >= end {
            return Ok(records);
        }
        let (to, reason) = hole.unwrap_or_else(|| (end, format!("{} ends before them", self.path.display())));
        Err(Error::Missing { from: number, to: to.min(end), reason })
    }

    /// What is in a leaf, in order. `leaf_end` is where the next one begins.
    fn read_leaf(&self, leaf: u64, leaf_end: u64) -> Vec<Found> {
        let values: Result<Vec<_>, _> =
            guarded("read", &self.path, || self.db.open_tree(leaf.to_be_bytes())?.iter().collect());
        let values = match values {
            Ok(values) => values,
            Err(error) => return vec![Found { end: leaf_end, record: Err(error) }],
        };
        let next_keys = values.iter().skip(1).map(|(key, _)| record::read_key(key).unwrap_or(leaf_end));
        let ends: Vec<u64> = next_keys.chain([leaf_end]).collect();
        let found =
            values.into_iter().zip(ends).map(|((key, value), end)| match record::read_value(&key, value) {
                Ok(record) => Found { end: record.end(), record: Ok(record) },
                Err(damage) => Found { end, record: Err(self.damaged(&damage)) },
            });
        found.collect()
    }

    /// The trees' names in order.
    fn leaves(&self) -> Vec<u64> {
        // sled's own tree has a longer name.
        let mut leaves: Vec<u64> =
            self.db.tree_names().iter().filter_map(|name| record::read_key(name).ok()).collect();
        leaves.sort_unstable();
        leaves
    }

    fn damaged(&self, damage: &record::Damage) -> Error {
        Error::Damaged { path: self.path.clone(), what: damage.to_string() }
    }
}

/// A record, or what is there instead of the ones before `end`.
struct Found {
    end: u64,
    record: Result<Record, Error>,
}

/// Takes an epoch out of the row at one stroke; gives where its folder is until it is removed. May be repeated: what an earlier
/// attempt has renamed without knowing whether that is durable is made so.
pub(super) fn hide(path: &Path) -> Result<PathBuf, Error> {
    let gone = path.with_extension("gone");
    if path.try_exists().map_err(Error::io("look at", path))? {
        remove(&gone)?;
        fs::rename(path, &gone).map_err(Error::io("rename", path))?;
    }
    // Else a power cut could bring its name back, and what is in it would be gone all the same.
    sync_folder(path.parent().expect("an epoch is in a folder"))?;
    Ok(gone)
}

/// Removes a folder that is not in the row. What is left after a kill half-way, the next start removes.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_indexes(path: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let entry = entry.map_err(Error::io("list", path))?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

fn open_db(path: &Path) -> Result<Database, Error> {
    let config = sled::Config::new()
        .path(path)
        .segment_size(usize::try_from(SLED_SEGMENT_BYTES).expect("half a megabyte"))
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    guarded("open", path, || config.open()).map(|db| Database(Some(db)))
}

fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Sled { source, .. } if source.to_string().contains("could not acquire lock"))
}

/// Calls sled, which asserts things about its files that damage can make untrue.
fn guarded<T>(what: &'static str, path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(Error::sled(what, path)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let message = message.unwrap_or_else(|| "sled panicked".to_owned());
            Err(Error::Panicked { what, path: path.to_owned(), message })
        }
    }
}
