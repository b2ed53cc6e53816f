//! Any damage to any file: every number is afterwards read as it was or told to be lost, once; none is given out twice; a
//! start never fails, and never needs a hand.
//!
//! What breaks it prints what makes it again: `WEIR_SEED=… cargo test -p weir-gateway --lib spool::tests::ruin`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use weir_contract::segment::first_entry;

use super::{NOW_MS, config, copy, epoch_folders};
use crate::spool::{Config, Draft, Error, Spool, Writer, inspect, repair};

const ROUNDS: u64 = 60;

#[test]
fn whatever_is_damaged_each_number_is_read_or_told_once_and_none_is_given_out_twice() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("WEIR_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut worst = 0;
    let mut base = Life::new(&mut random);
    for round in 0..ROUNDS {
        if round % 10 == 9 {
            base = Life::new(&mut random);
        }
        let (mut life, folder) = base.copied();
        let mut done = Vec::new();
        let lived = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..random.usize(1..4) {
                done.push(life.damage(&mut random));
            }
            worst = worst.max(life.check(&mut random));
        }));
        if let Err(panic) = lived {
            println!("round {round}, after: {}", done.join("; "));
            println!("{} is what is left", folder.keep().display());
            resume_unwind(panic);
        }
    }
    println!("at most {worst} uplinks were lost in a round");
    assert!(worst > 100, "the damage was real");
}

#[test]
fn what_lies_behind_a_damaged_place_is_read() {
    let mut random = fastrand::Rng::with_seed(1);
    let (life, _folder) = Life::new(&mut random).copied();
    // One bit in each epoch, the last included: each costs one record.
    let folders = epoch_folders(&life.config);
    for folder in &folders {
        let path = folder.join("db");
        let mut bytes = fs::read(&path).expect("there");
        let third = bytes.len() / 3;
        let at = third + bytes[third..].iter().position(|&byte| byte == b'x').expect("filling");
        bytes[at] ^= 4;
        fs::write(path, bytes).expect("written");
    }
    let (spool, _writer) = Spool::open(&life.config, NOW_MS).expect("opens");
    assert_eq!(spool.next_number(), life.next());
    let (there, lost) = read(&spool);
    assert_eq!(lost.len(), folders.len(), "{lost:?}");
    assert!(lost.iter().all(|lost| lost.end - lost.start <= RECORD_UPLINKS_MAX));
    let lost: u64 = lost.iter().map(|lost| lost.end - lost.start).sum();
    assert_eq!(there.len() as u64 + lost, life.next() - 1);
}

/// Uplinks in one of our records.
const RECORD_UPLINKS_MAX: u64 = 20;

/// A spool that was killed, or stopped, and everything that was acknowledged.
struct Life {
    config: Config,
    /// By number: number `at + 1` is `stored[at]`.
    stored: Vec<String>,
    delivered: u64,
    _folder: Option<TempDir>,
}

impl Life {
    /// Small commits and large ones, a few epochs, some of it delivered and some of that deleted.
    fn new(random: &mut fastrand::Rng) -> Self {
        let folder = in_memory();
        let config = Config { keep_delivered_bytes: 0, ..config(folder.path()) };
        let mut life = Life { config, stored: Vec::new(), delivered: 1, _folder: Some(folder) };
        let (spool, mut writer) = Spool::open(&life.config, NOW_MS).expect("opens");
        let small = random.bool();
        while spool.status().epochs.len() < 4 || random.u8(0..10) > 0 {
            life.append(&mut writer, random, small);
        }
        let part = random.u64(0..life.next() / 3) + 1;
        spool.release(part, part).expect("it is there");
        super::eventually(|| spool.deletable().is_none());
        life.delivered = part;
        if random.bool() {
            // A stop writes down more than a kill leaves.
            writer.close();
        } else {
            let killed = life.config.folder.with_extension("killed");
            copy(&life.config.folder, &killed);
            life.config.folder = killed;
        }
        life
    }

    fn next(&self) -> u64 {
        self.stored.len() as u64 + 1
    }

    /// A commit of some records.
    fn append(&mut self, writer: &mut Writer, random: &mut fastrand::Rng, small: bool) {
        let device = "d1".parse().expect("a name");
        let mut drafts = Vec::new();
        for _ in 0..random.usize(1..if small { 3 } else { 12 }) {
            let mut draft = Draft::default();
            for _ in 0..random.u64(1..RECORD_UPLINKS_MAX) {
                let len = random.usize(0..if small { 300 } else { 2500 });
                let text = format!("{} {}", self.next(), "x".repeat(len));
                draft.push(&device, NOW_MS, None, text.as_bytes());
                self.stored.push(text);
            }
            drafts.push(draft);
        }
        assert_eq!(writer.append(&mut drafts).expect("stored"), self.next());
    }

    /// A copy, to be ruined.
    fn copied(&self) -> (Self, TempDir) {
        let folder = in_memory();
        let config = Config { folder: folder.path().join("spool"), ..self.config.clone() };
        copy(&self.config.folder, &config.folder);
        (Life { config, stored: self.stored.clone(), delivered: self.delivered, _folder: None }, folder)
    }

    /// Damages something; says what.
    fn damage(&mut self, random: &mut fastrand::Rng) -> String {
        let epochs = epoch_folders(&self.config);
        let epoch = |random: &mut fastrand::Rng| epochs[random.usize(..epochs.len())].clone();
        let last = || epochs.last().expect("there are some").join("db");
        let path = match random.u8(0..12) {
            0..5 => epoch(random).join("db"),
            5..8 => last(),
            8 => return whole(&epoch(random)),
            9 => epoch(random).join("conf"),
            _ => {
                let files = fs::read_dir(&self.config.folder).expect("a folder");
                let files = files.map(|file| file.expect("a file").path()).filter(|path| path.is_file());
                let mut files: Vec<PathBuf> = files.collect();
                files.sort();
                files[random.usize(..files.len())].clone()
            }
        };
        if random.u8(0..10) == 0 { whole(&path) } else { part(&path, random) }
    }

    /// Starts again and again, reads, tells, stores more. Gives how many uplinks were lost.
    fn check(&self, random: &mut fastrand::Rng) -> usize {
        let mut told = BTreeMap::new();
        let mut read_as = BTreeMap::new();
        let mut given_out = BTreeSet::new();
        let mut incarnations = BTreeSet::new();
        let report = inspect(&self.config.folder).ok();
        // What a repair does is done by a start as well; and it may be broken off.
        let repaired = random.bool() && repair(&self.config.folder, false, NOW_MS).is_ok();
        if repaired {
            let after = inspect(&self.config.folder).expect("looked into");
            assert!(after.sound, "{after:?}");
        }
        for _ in 0..3 {
            let (spool, mut writer) = Spool::open(&self.config, NOW_MS).expect("opens without help");
            incarnations.insert(spool.incarnation());
            self.look(&spool, &mut told, &mut read_as);
            let first = spool.next_number();
            assert!(first >= self.next() || incarnations.len() > 1, "{first} is given out again");
            let mut draft = Draft::default();
            for _ in 0..random.u64(1..4) {
                draft.push(&"d2".parse().expect("a name"), NOW_MS, None, b"new");
            }
            let next = writer.append(&mut [draft]).expect("stored");
            for number in first..next {
                assert!(given_out.insert((spool.incarnation(), number)), "{number} is given out twice");
            }
            if random.bool() {
                writer.close();
            }
        }
        let mut lost = 0;
        for (number, text) in
            (1..).zip(&self.stored).skip(usize::try_from(self.delivered).expect("small") - 1)
        {
            match (read_as.get(&number), told.get(&number)) {
                (Some(read), None) => assert!(read == text, "{number} is what it was"),
                (None, Some(1)) => lost += 1,
                (read, told) => panic!("{number} is read: {}, told: {told:?} times", read.is_some()),
            }
        }
        if let Some(report) = report {
            assert!(!report.sound || lost == 0, "{lost} are lost, and it was called sound");
            let gone = report.epochs.iter().flat_map(|epoch| &epoch.gone).chain(&report.gone_before);
            for number in gone.flat_map(|gone| gone.from.max(self.delivered)..=gone.to) {
                assert!(number >= self.next() || told.contains_key(&number), "{number} was called gone");
            }
        }
        lost
    }

    /// As the uplink does, from what the stream has on: reads, has told what is gone.
    fn look(&self, spool: &Arc<Spool>, told: &mut BTreeMap<u64, u32>, read_as: &mut BTreeMap<u64, String>) {
        let (there, lost) = read_from(spool, self.delivered);
        for (number, text) in there {
            if number < self.next() {
                read_as.insert(number, text);
            }
        }
        for lost in lost {
            spool.lose(lost.start, lost.end).expect("noted");
        }
        let untold = spool.untold_losses();
        for number in untold.iter().flat_map(|lost| lost.numbers.clone()).take_while(|&at| at < self.next()) {
            *told.entry(number).or_default() += 1;
        }
        spool.losses_told(&untold).expect("noted");
        assert_eq!(spool.untold_losses(), []);
    }
}

/// There no sync takes time.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// All there is, and what is not there.
fn read(spool: &Spool) -> (Vec<(u64, String)>, Vec<Range<u64>>) {
    read_from(spool, 1)
}

fn read_from(spool: &Spool, mut number: u64) -> (Vec<(u64, String)>, Vec<Range<u64>>) {
    let (mut there, mut lost) = (Vec::new(), Vec::new());
    loop {
        match spool.read_from(number, 100_000) {
            Err(Error::Missing { from, to, .. }) => {
                lost.push(from..to);
                number = to;
            }
            Err(error) => panic!("{}", error.with_causes()),
            Ok(records) if records.is_empty() => return (there, lost),
            Ok(records) => {
                for record in records {
                    let mut rest = record.part_from(number).expect("it holds the number").entries;
                    while !rest.is_empty() {
                        let (entry, len) = first_entry(&rest).expect("an entry");
                        there.push((number, String::from_utf8(entry.payload.into_owned()).expect("text")));
                        rest = rest.slice(len..);
                        number += 1;
                    }
                }
            }
        }
    }
}

/// Takes it away.
fn whole(path: &Path) -> String {
    if path.is_dir() {
        fs::remove_dir_all(path).expect("removed");
    } else if path.exists() {
        fs::remove_file(path).expect("removed");
    }
    format!("{} is gone", path.display())
}

/// Flips bits, zeroes a stretch, or cuts it.
fn part(path: &Path, random: &mut fastrand::Rng) -> String {
    let Ok(mut bytes) = fs::read(path) else { return format!("{} is gone already", path.display()) };
    if bytes.is_empty() {
        return format!("{} is empty already", path.display());
    }
    // sled makes its file longer than what is in it: rather where something is.
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(bytes.len(), |last| last + 1);
    let at = random.usize(..used);
    let what = match random.u8(0..4) {
        0 => {
            bytes[at] ^= 1 << random.u8(0..8);
            format!("a bit at {at} is flipped")
        }
        1 => {
            for _ in 0..20 {
                let at = random.usize(..used);
                bytes[at] ^= 1 << random.u8(0..8);
            }
            "20 bits are flipped".to_owned()
        }
        2 => {
            let end = (at + random.usize(1..200_000)).min(bytes.len());
            bytes[at..end].fill(0);
            format!("{at} to {end} are zeros")
        }
        _ => {
            bytes.truncate(at);
            format!("it is cut at {at}")
        }
    };
    fs::write(path, bytes).expect("written");
    format!("{}: {what}", path.display())
}
