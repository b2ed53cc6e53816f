mod damage;
mod failing;
mod giving_up;
mod holding;
mod mending;
mod model;
mod ruin;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir_contract::segment::first_entry;

use super::{Config, Draft, Error, Spool, Writer};

/// Some moment.
const NOW_MS: u64 = 1_800_000_000_000;

/// Small epochs, so that there are several.
fn config(folder: &Path) -> Config {
    Config { epoch_bytes: 1 << 20, ..Config::new(folder.join("spool")) }
}

/// Stores a record; gives the number after it.
pub(crate) fn append<T: AsRef<str>>(writer: &mut Writer, texts: &[T]) -> u64 {
    let mut draft = Draft::default();
    let device = "d1".parse().expect("a name");
    for text in texts {
        draft.push(&device, NOW_MS, None, text.as_ref().as_bytes());
    }
    writer.append(&mut [draft]).expect("stored")
}

/// Stores records of one uplink each, 40 KiB long, until there are so many epochs; gives what was stored.
fn fill(spool: &Spool, writer: &mut Writer, epochs: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while spool.status().epochs.len() < epochs {
        let text = format!("{} {}", texts.len() + 1, "x".repeat(40_000));
        append(writer, &[&text]);
        texts.push(text);
    }
    texts
}

/// All payloads from a number on, which must be there without a hole.
pub(crate) fn read_all(spool: &Spool, number: u64) -> Vec<String> {
    let (texts, missing) = read_what_is_there(spool, number);
    assert_eq!(missing, [], "nothing is missing");
    texts.into_iter().map(|(_, text)| text).collect()
}

/// Texts with their numbers.
type Numbered = Vec<(u64, String)>;

/// All payloads from a number on, and what is missing between them, as `from..to`.
fn read_what_is_there(spool: &Spool, mut number: u64) -> (Numbered, Vec<(u64, u64)>) {
    let (mut texts, mut missing) = (Vec::new(), Vec::new());
    loop {
        let records = match spool.read_from(number, 100_000) {
            Ok(records) => records,
            Err(Error::Missing { from, to, reason }) => {
                println!("missing {from}..{to}: {reason}");
                assert!(
                    from == number && to > from,
                    "a hole begins where reading stands, and ends: {from}..{to}"
                );
                missing.push((from, to));
                number = to;
                continue;
            }
            Err(error) => panic!("{}", error.with_causes()),
        };
        if records.is_empty() {
            return (texts, missing);
        }
        for record in records {
            let mut rest = record.part_from(number).expect("it holds the number").entries;
            while !rest.is_empty() {
                let (entry, len) = first_entry(&rest).expect("an entry");
                texts.push((number, String::from_utf8(entry.payload.into_owned()).expect("text")));
                rest = rest.slice(len..);
                number += 1;
            }
            assert_eq!(number, record.end(), "as many entries as it says");
        }
    }
}

/// A copy of a spool in use: what a killed process leaves. Copying takes its time, and epochs go meanwhile: what tells that they
/// were delivered is written before, so it is copied after.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    // What is being deleted or renamed may be gone by now, as it may in a crash.
    let unless_gone =
        |error: std::io::Error| assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries.map(|entry| entry.expect("an entry").path()).collect(),
        Err(error) => {
            unless_gone(error);
            Vec::new()
        }
    };
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    let name = |path: &Path| to.join(path.file_name().expect("a name"));
    for folder in folders {
        copy(&folder, &name(&folder));
    }
    for file in files {
        std::fs::copy(&file, name(&file)).map_or_else(unless_gone, |_| ());
    }
}

/// The folders of the epochs, oldest first.
fn epoch_folders(config: &Config) -> Vec<PathBuf> {
    let folder = config.folder.join("epochs");
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<_> = entries.filter(|path| path.extension().is_none()).collect();
    folders.sort();
    folders
}

fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "in time");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
