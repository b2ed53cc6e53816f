//! The commands that wait for devices, on disk: one file for each.
//!
//! Commands are few and short, come seldom, and end in any order; so each is a file of its own, written beside, synced,
//! renamed, and the folder synced, before it counts as kept. That is the same discipline as the spool's, without its
//! machinery for a million uplinks.
//!
//! # Format
//!
//! `{number:020}.command`: `[1, device, command as it came]` in CBOR, then CRC-32 (big-endian) of that. When a command has
//! ended, its file is renamed to `….ended`; the latest [`ENDED_KEPT_MAX`] of those stay, so that what the stream delivers
//! again after a crash is known.
//!
//! # What is not here
//!
//! Whether a command was sent or accepted: after a restart it is sent again, and the device knows it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use weir_contract::Id;

use super::core::{ENDED_KEPT_MAX, Order};
use crate::durable;

const COMMAND: &str = "command";
const ENDED: &str = "ended";
const VERSION: u8 = 1;

/// What went wrong with the folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error { what, path, source }
    }
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub struct Left {
    /// Commands that wait, in the order in which they were taken.
    pub waiting: Vec<Order>,
    /// Whose, and which, ended last; oldest first.
    pub ended: Vec<(Id, Box<str>)>,
    /// Files that do not read as ours; they are left alone.
    pub damaged: Vec<PathBuf>,
}

/// The folder. One process has it: the one that has the spool.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    next: u64,
    ended: Vec<u64>,
}

impl Store {
    /// Opens the folder, making it if need be, and reads what is in it.
    ///
    /// # Errors
    /// [`Error`]
    pub fn open(folder: &Path) -> Result<(Self, Left), Error> {
        durable::create_folder(folder).map_err(Error::of("make", folder))?;
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::of("list", folder))? {
            let path = entry.map_err(Error::of("list", folder))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            match (number, path.extension().and_then(|extension| extension.to_str())) {
                (Some(number), Some(COMMAND)) => files.push((number, false, path)),
                (Some(number), Some(ENDED)) => files.push((number, true, path)),
                // Written and not renamed: it never counted.
                (_, Some("new")) => fs::remove_file(&path).map_err(Error::of("remove", &path))?,
                _ => {}
            }
        }
        files.sort();
        let mut store = Store { folder: folder.to_owned(), next: 1, ended: Vec::new() };
        let mut left = Left::default();
        for (number, ended, path) in files {
            store.next = number + 1;
            let bytes = fs::read(&path).map_err(Error::of("read", &path))?;
            match (decode(number, &bytes), ended) {
                (None, _) => left.damaged.push(path),
                (Some(order), false) => left.waiting.push(order),
                (Some(order), true) => {
                    store.ended.push(number);
                    left.ended.push((order.device, order.id));
                }
            }
        }
        Ok((store, left))
    }

    /// The number of the next command.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Keeps a command; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`Error`]; it may be there or not, and may be tried again.
    pub fn keep(&mut self, order: &Order) -> Result<(), Error> {
        let path = self.path(order.number, COMMAND);
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&encode(order))?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(Error::of("write", &path))?;
        sync_folder(&self.folder)?;
        self.next = self.next.max(order.number + 1);
        Ok(())
    }

    /// A command has ended. If the power is cut at once, it may wait again after the next start.
    ///
    /// # Errors
    /// [`Error`]
    pub fn end(&mut self, number: u64) -> Result<(), Error> {
        let (from, to) = (self.path(number, COMMAND), self.path(number, ENDED));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::of("rename", &from)(error));
            }
            _ => self.ended.push(number),
        }
        while self.ended.len() > ENDED_KEPT_MAX {
            let number = self.ended.remove(0);
            let oldest = self.path(number, ENDED);
            match fs::remove_file(&oldest) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::of("remove", &oldest)(error));
                }
                _ => {}
            }
        }
        sync_folder(&self.folder)
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{number:020}.{extension}"))
    }
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    durable::sync_folder(folder).map_err(Error::of("sync", folder))
}

fn encode(order: &Order) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    let written = encoder
        .array(3)
        .and_then(|e| e.u8(VERSION))
        .and_then(|e| e.str(&order.device))
        .and_then(|e| e.bytes(&order.payload));
    written.expect("a vector takes everything");
    let mut bytes = encoder.into_writer();
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_be_bytes());
    bytes
}

fn decode(number: u64, bytes: &[u8]) -> Option<Order> {
    let (item, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(item) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut decoder = minicbor::Decoder::new(item);
    decoder.array().ok()?;
    if decoder.u8().ok()? != VERSION {
        return None;
    }
    let device = decoder.str().ok()?.parse().ok()?;
    Order::read(number, device, decoder.bytes().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use weir_contract::command::Command;

    use super::*;

    fn order(number: u64) -> Order {
        let id = format!("c-{number}");
        let command =
            Command { id: id.as_str().into(), name: "identify".into(), deadline_ms: 9, args: &[0xa0] };
        let mut payload = [0; 100];
        let len = command.write(&mut payload).expect("room");
        Order::read(number, "dev-1".parse().expect("a name"), &payload[..len]).expect("a command")
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_in_its_order_and_what_ended_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("commands");
        let (mut store, left) = Store::open(&folder).expect("opened");
        assert!(left.waiting.is_empty() && store.next_number() == 1);
        for number in 1..=12 {
            store.keep(&order(number)).expect("kept");
        }
        store.end(2).expect("ended");
        let (store, left) = Store::open(&folder).expect("opened");
        let numbers: Vec<u64> = left.waiting.iter().map(|order| order.number).collect();
        assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(left.waiting[0], order(1));
        assert_eq!(left.ended, [("dev-1".parse().expect("a name"), "c-2".into())]);
        assert_eq!(store.next_number(), 13);
    }

    #[test]
    fn only_the_latest_ended_ones_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = Store::open(folder.path()).expect("opened");
        let count = ENDED_KEPT_MAX as u64 + 3;
        for number in 1..=count {
            store.keep(&order(number)).expect("kept");
            store.end(number).expect("ended");
        }
        let (_, left) = Store::open(folder.path()).expect("opened");
        assert_eq!((left.ended.len(), &*left.ended[0].1), (ENDED_KEPT_MAX, "c-4"));
    }

    #[test]
    fn damage_is_told_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = Store::open(folder.path()).expect("opened");
        for number in 1..=3 {
            store.keep(&order(number)).expect("kept");
        }
        let path = store.path(2, COMMAND);
        let mut bytes = fs::read(&path).expect("there");
        bytes[7] ^= 1;
        fs::write(&path, bytes).expect("written");
        fs::write(folder.path().join("00000000000000000004.new"), b"half").expect("written");
        let (store, left) = Store::open(folder.path()).expect("opened");
        assert_eq!((left.waiting.len(), left.damaged), (2, vec![path]));
        assert_eq!(store.next_number(), 4);
    }
}
