//! A child process that takes uplinks into custody and prints which are acknowledged, until it is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use weir_contract::segment::first_entry;

use crate::custody::{Custody, Waiter};
use crate::intake::SeqRun;
use crate::spool::{Config, Spool};

const FOLDER: &str = "WEIR_TEST_FOLDER";
const NOW_MS: u64 = super::NOW_MS;
const DEVICES: u32 = 8;

/// Small epochs, so that they are begun and closed all the time.
pub(super) fn config(folder: &Path) -> Config {
    Config { epoch_bytes: 1 << 20, ..Config::new(folder) }
}

/// What the child does. Payloads are text: device, number, and filling of varied length.
#[test]
#[ignore = "is run as a child by the tests that kill it"]
fn takes_uplinks_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (custody, committer) = Custody::start(&config(&PathBuf::from(folder)), NOW_MS).expect("starts");
    runtime.expect("a runtime").block_on(async {
        let devices = (0..DEVICES).map(|device| tokio::spawn(take(custody.clone(), device)));
        let devices: Vec<_> = devices.collect();
        let error = custody.failure().await;
        for device in devices {
            device.await.expect("ends");
        }
        println!("failed: {}", error.with_causes());
        committer.stop().expect_err("it has failed");
    });
}

/// One device: offers a few, waits until they are stored, says so. Ends when custody fails.
async fn take(custody: Custody, device: u32) {
    let id = format!("d{device}").parse().expect("a name");
    let waiter = Waiter::new();
    // Another start of the same device is another boot.
    let boot = u64::from(std::process::id());
    for burst in 0_u32.. {
        let seqs = burst * 5 + 1..burst * 5 + 6;
        let texts: Vec<String> = seqs.clone().map(|seq| text(boot, device, seq)).collect();
        let offered = Arc::new(texts);
        let mut ticket = None;
        for (seq, text) in seqs.zip(offered.iter()) {
            let run = SeqRun { boot, first: seq, last: seq };
            loop {
                let taken = custody.gather().offer(&id, NOW_MS, None, text.as_bytes(), run, &waiter);
                if let Ok(taken) = taken {
                    ticket = Some(taken);
                    break;
                }
                if custody.room().await.is_err() {
                    return;
                }
            }
        }
        let ticket = ticket.expect("five were offered");
        while custody.stored() < ticket {
            if custody.failed().is_some() {
                return;
            }
            waiter.notified().await;
        }
        let lines: String = offered.iter().map(|text| format!("acknowledged {}\n", name(text))).collect();
        print!("{lines}");
    }
}

fn text(boot: u64, device: u32, seq: u32) -> String {
    let filling = (seq as usize * 37 + device as usize * 101) % 700;
    // Now and then one as long as an uplink can be: it needs a record of its own.
    let filling = if seq.is_multiple_of(97) { 65_000 } else { filling };
    format!("{boot}:{device}:{seq} {}", "x".repeat(filling))
}

fn name(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// A running child; killed when dropped.
pub(super) struct Taker {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Taker {
    /// Starts the child. `wrap` may put something in front of it, or set its environment.
    pub fn start(folder: &Path, wrap: impl FnOnce(Command) -> Command) -> Self {
        let test =
            format!("{}::takes_uplinks_until_killed", module_path!().split_once("::").expect("in a crate").1);
        let mut command = Command::new(std::env::current_exe().expect("this test's program"));
        command.args([&test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        let mut command = wrap(command);
        let child = command.env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        Self { child, lines }
    }

    /// The next line that begins with `start`, without it; `None` at the end of its output.
    pub fn next(&mut self, start: &str) -> Option<String> {
        loop {
            let line = self.lines.next()?.expect("text");
            if let Some(rest) = line.strip_prefix(start) {
                return Some(rest.to_owned());
            }
        }
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and gives everything it had said was acknowledged.
    pub fn kill(mut self, mut acknowledged: Vec<String>) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        while let Some(name) = self.next("acknowledged ") {
            acknowledged.push(name);
        }
        acknowledged
    }

    /// Waits until so many have been acknowledged.
    pub fn acknowledged(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next("acknowledged ").expect("it runs until it is killed")).collect()
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a spool as the next start would, and checks that everything acknowledged is there, each device's uplinks are in
/// order and whole, and that it can be continued. Gives how many uplinks it holds.
pub(super) fn check(folder: &Path, acknowledged: &[String]) -> usize {
    let (spool, mut writer) = Spool::open(&config(folder), NOW_MS).expect("opens without help");
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut last: BTreeMap<(String, u32), u32> = BTreeMap::new();
    let texts = crate::spool::tests::read_all(&spool, spool.oldest_number());
    for text in &texts {
        let parts: Vec<&str> = name(text).split(':').collect();
        let number = |at: usize| parts[at].parse::<u32>().expect("a number");
        let (device, seq) = (number(1), number(2));
        assert_eq!(*text, self::text(parts[0].parse().expect("a boot"), device, seq), "it is whole");
        let before = last.insert((parts[0].to_owned(), device), seq).unwrap_or(0);
        assert_eq!(seq, before + 1, "device {device} in order and without a hole");
        *found.entry(name(text).to_owned()).or_default() += 1;
    }
    for name in acknowledged {
        assert_eq!(found.get(name), Some(&1), "{name} was acknowledged, so it is here once");
    }
    assert_eq!(spool.next_number(), spool.oldest_number() + texts.len() as u64, "numbers without a hole");
    let stored = crate::spool::tests::append(&mut writer, &["after"]);
    let records = spool.read_from(stored - 1, 1).expect("readable");
    let (entry, _) = first_entry(&records[0].entries).expect("an entry");
    assert_eq!(&*entry.payload, b"after");
    writer.close();
    texts.len()
}
