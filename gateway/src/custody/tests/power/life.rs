//! One life of a gateway's files: a child process that takes uplinks, shows and releases them, and keeps commands, while
//! all it does to the disk is recorded. What it says goes into the same record, so what it had promised at any moment is known.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir_contract::command::Command;
use weir_contract::segment::first_entry;

use super::disk::{Entry, read_record};
use crate::custody::{Custody, Waiter};
use crate::downlink::core::Order;
use crate::downlink::store::Store;
use crate::intake::SeqRun;
use crate::spool::{Config, Spool};

const FOLDER: &str = "WEIR_TEST_LIFE";
const SEED: &str = "WEIR_TEST_LIFE_SEED";
const BURSTS: &str = "WEIR_TEST_LIFE_BURSTS";
const NOW_MS: u64 = super::super::NOW_MS;
const DEVICES: u32 = 4;
const BURST: u32 = 5;

/// The smallest epochs there can be, and none is kept longer than it must.
pub(super) fn config(root: &Path) -> Config {
    Config { epoch_bytes: 500_000, keep_delivered_bytes: 0, ..Config::new(root.join("deep/spool")) }
}

fn commands(root: &Path) -> PathBuf {
    root.join("deep/commands")
}

/// Lives a life on what is below `root`, and gives its record. `bursts` is how many a device hands over.
pub(super) fn live(root: &Path, seed: u64, bursts: u32) -> Vec<Entry> {
    let beside = tempfile::tempdir().expect("a folder");
    let record = beside.path().join("record");
    let test = format!("{}::lives", module_path!().split_once("::").expect("in a crate").1);
    let mut child = Process::new(std::env::current_exe().expect("this test's program"));
    child
        .args([&test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", recorder())
        .env("WEIR_RECORD", &record)
        .env("WEIR_RECORD_ROOT", root)
        .env(FOLDER, root)
        .env(SEED, seed.to_string())
        .env(BURSTS, bursts.to_string());
    let output = child.stdin(Stdio::null()).stdout(Stdio::null()).output().expect("the child starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a life on {} failed: {told}", root.display());
    read_record(&record)
}

/// What the child does.
#[test]
#[ignore = "is run as a child by the tests that cut its power"]
fn lives() {
    let Some(root) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let number = |name: &str| std::env::var(name).expect("set").parse::<u64>().expect("a number");
    let (seed, bursts) = (number(SEED), u32::try_from(number(BURSTS)).expect("few"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (custody, committer) = Custody::start(&config(&root), NOW_MS).expect("starts");
    println!("incarnation {}", custody.spool().incarnation());
    let stop = tokio::sync::watch::Sender::new(false);
    let readers = {
        let (spool, stopped) = (custody.spool().clone(), stop.subscribe());
        let folder = commands(&root);
        [
            std::thread::spawn(move || release(&spool, &stopped, fastrand::Rng::with_seed(seed))),
            std::thread::spawn(move || command(&folder, fastrand::Rng::with_seed(!seed))),
        ]
    };
    runtime.expect("a runtime").block_on(async {
        let take = |device| tokio::spawn(take(custody.clone(), seed, device, bursts));
        for device in (0..DEVICES).map(take).collect::<Vec<_>>() {
            device.await.expect("ends");
        }
    });
    stop.send_replace(true);
    for reader in readers {
        reader.join().expect("ends");
    }
    committer.stop().expect("stops");
}

/// One device: offers a few, waits until they are stored, says so.
async fn take(custody: Custody, boot: u64, device: u32, bursts: u32) {
    let id = format!("d{device}").parse().expect("a name");
    let waiter = Waiter::new();
    for burst in 0..bursts {
        let seqs = burst * BURST + 1..(burst + 1) * BURST + 1;
        let mut ticket = None;
        for seq in seqs.clone() {
            let text = text(boot, device, seq);
            let run = SeqRun { boot, first: seq, last: seq };
            let taken = loop {
                let offered = custody.gather().offer(&id, NOW_MS, None, text.as_bytes(), run, &waiter);
                match offered {
                    Ok(taken) => break taken,
                    Err(_) => custody.room().await.expect("the disk works"),
                }
            };
            ticket = Some(taken);
        }
        while custody.stored() < ticket.expect("some were offered") {
            assert!(custody.failed().is_none(), "the disk works");
            waiter.notified().await;
        }
        let lines: String = seqs.map(|seq| format!("acknowledged {boot}:{device}:{seq}\n")).collect();
        print!("{lines}");
    }
}

/// As an uplink does: reads, and releases what it has read, sooner or later.
fn release(spool: &Spool, stopped: &tokio::sync::watch::Receiver<bool>, mut random: fastrand::Rng) {
    let mut number = spool.delivered().number;
    let mut changed = spool.changed();
    loop {
        let last_round = *stopped.borrow();
        let records = spool.read_from(number, 100_000).expect("readable");
        if records.is_empty() {
            if last_round {
                return;
            }
            if !changed.has_changed().unwrap_or(false) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            changed.mark_unchanged();
            continue;
        }
        let mut lines = String::new();
        for record in records {
            let mut rest = record.part_from(number).expect("it holds the number").entries;
            while !rest.is_empty() {
                let (entry, len) = first_entry(&rest).expect("an entry");
                let text = std::str::from_utf8(&entry.payload).expect("text");
                lines.push_str(&format!("shown {number} {}\n", name(text)));
                rest = rest.slice(len..);
                number += 1;
            }
        }
        print!("{lines}");
        if random.bool() {
            println!("releasing {number}");
            spool.release(number, number).expect("it is there");
        }
    }
}

/// As the downlink does: keeps commands, which end in any order.
fn command(folder: &Path, mut random: fastrand::Rng) {
    let (mut store, left) = Store::open(folder).expect("opens");
    assert_eq!(left.damaged, Vec::<PathBuf>::new(), "a cut of the power damages no command");
    let mut waiting: Vec<u64> = left.waiting.iter().map(|order| order.number).collect();
    for _ in 0..12 {
        if waiting.is_empty() || random.u8(0..3) > 0 {
            let number = store.next_number();
            store.keep(&order(number)).expect("kept");
            println!("kept {number}");
            waiting.push(number);
        } else {
            let number = waiting.swap_remove(random.usize(..waiting.len()));
            println!("ending {number}");
            store.end(number).expect("ended");
        }
    }
}

fn order(number: u64) -> Order {
    let id = format!("c-{number}");
    let command = Command { id: id.as_str().into(), name: "identify".into(), deadline_ms: 9, args: &[0xa0] };
    let mut payload = [0; 100];
    let len = command.write(&mut payload).expect("room");
    Order::read(number, "d1".parse().expect("a name"), &payload[..len]).expect("a command")
}

/// A payload says which it is; the rest is filling that depends on that.
fn text(boot: u64, device: u32, seq: u32) -> String {
    let filling = (seq as usize * 397 + device as usize * 1009) % 4000;
    let filling = if seq.is_multiple_of(97) { 65_000 } else { filling };
    let letter = char::from(b'a' + u8::try_from((seq + device) % 26).expect("a letter"));
    format!("{boot}:{device}:{seq} {}", String::from(letter).repeat(filling))
}

fn name(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// What has been said up to some moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    unfinished: String,
    incarnation: Option<u64>,
    acknowledged: Vec<String>,
    shown: BTreeMap<u64, String>,
    /// The most that may have been released.
    releasing: u64,
    kept: BTreeSet<u64>,
    /// Which commands may have ended.
    ending: BTreeSet<u64>,
}

impl Said {
    /// Another entry of the record.
    pub fn hear(&mut self, entry: &Entry) {
        if entry.what != b'p' {
            return;
        }
        self.unfinished.push_str(std::str::from_utf8(&entry.a).expect("text"));
        while let Some((line, rest)) = self.unfinished.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.unfinished = rest;
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            match words[0] {
                "incarnation" => {
                    let same = self.incarnation.replace(number(1)).is_none_or(|before| before == number(1));
                    assert!(same, "the spool is still the same one");
                }
                "acknowledged" => self.acknowledged.push(words[1].to_owned()),
                "shown" => {
                    let before = self.shown.insert(number(1), words[2].to_owned());
                    assert!(before.is_none_or(|before| before == words[2]), "{line}: it was another");
                }
                "releasing" => self.releasing = self.releasing.max(number(1)),
                "kept" => {
                    self.kept.insert(number(1));
                }
                "ending" => {
                    self.ending.insert(number(1));
                }
                _ => {}
            }
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Opens what is below `root` as the next start would, and checks that every promise was kept. Gives how long the
    /// spool took to open.
    pub fn check(&self, root: &Path) -> Duration {
        self.check_commands(root);
        // Nothing is to be deleted while it is looked at.
        let config = Config { keep_delivered_bytes: 1 << 30, ..config(root) };
        let began = Instant::now();
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens without help");
        let took = began.elapsed();
        assert!(self.incarnation.is_none_or(|said| said == spool.incarnation()), "it is the same spool");
        let (oldest, next) = (spool.oldest_number(), spool.next_number());
        assert!(oldest <= self.releasing.max(1), "{oldest} is the oldest, nobody released what is before");
        assert!(
            spool.delivered().number <= self.releasing.max(1),
            "nothing counts as delivered that was not"
        );
        let texts = crate::spool::tests::read_all(&spool, oldest);
        assert_eq!(next, oldest + texts.len() as u64, "numbers without a hole");
        let mut last: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for text in &texts {
            let parts: Vec<u64> = name(text).split(':').map(|part| part.parse().expect("a number")).collect();
            let (device, seq) =
                (u32::try_from(parts[1]).expect("few"), u32::try_from(parts[2]).expect("few"));
            assert!(*text == self::text(parts[0], device, seq), "{} is whole", name(text));
            let before = last.insert((parts[0], device), seq);
            assert!(before.is_none_or(|before| before + 1 == seq), "{} is in its place", name(text));
        }
        let there: BTreeSet<&str> = texts.iter().map(|text| name(text)).collect();
        assert_eq!(there.len(), texts.len(), "each is there once");
        let gone: BTreeSet<&str> = self.shown.range(..oldest).map(|(_, name)| name.as_str()).collect();
        for name in &self.acknowledged {
            let name = name.as_str();
            assert!(there.contains(name) || gone.contains(name), "{name} was acknowledged, and is gone");
        }
        for (&number, shown) in self.shown.range(oldest..) {
            let at = usize::try_from(number - oldest).expect("few");
            let is = texts.get(at).map(|text| name(text));
            assert_eq!(is, Some(shown.as_str()), "the number {number} stays what it was when it was shown");
        }
        assert_eq!(crate::spool::tests::append(&mut writer, &["after"]), next + 1);
        assert_eq!(crate::spool::tests::read_all(&spool, next), ["after"]);
        writer.close();
        took
    }

    fn check_commands(&self, root: &Path) {
        if !commands(root).exists() {
            assert!(self.kept.is_empty(), "commands were kept");
            return;
        }
        let (_, left) = Store::open(&commands(root)).expect("opens");
        assert_eq!(left.damaged, Vec::<PathBuf>::new(), "a cut of the power damages no command");
        let waiting: BTreeSet<u64> = left.waiting.iter().map(|order| order.number).collect();
        for number in self.kept.difference(&self.ending) {
            assert!(waiting.contains(number), "the command {number} was kept, and has not ended");
        }
        for waiting in &left.waiting {
            assert_eq!(*waiting, order(waiting.number), "it is whole");
        }
    }
}

/// The compiled recorder.
fn recorder() -> OsString {
    static RECORDER: OnceLock<TempDir> = OnceLock::new();
    let folder = RECORDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("recorder.c");
        fs::write(&source, include_str!("recorder.c")).expect("written");
        let mut cc = Process::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(folder.path().join("recorder.so"))
            .arg(&source)
            .arg("-ldl");
        assert!(cc.status().expect("a C compiler, as Rust needs for linking").success());
        folder
    });
    folder.path().join("recorder.so").into_os_string()
}
