//! Acknowledged means on disk: killed processes, cut power, failing disks.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tempfile::TempDir;

use super::child::{Taker, check};

#[test]
fn what_was_acknowledged_outlives_kill_9() {
    let base = tempfile::tempdir().expect("a folder");
    let spool = base.path().join("spool");
    let mut acknowledged = Vec::new();
    // The same spool again and again: what an earlier start left must outlive the later ones too.
    for round in 1..=5 {
        let mut taker = Taker::start(&spool, |command| command);
        acknowledged.extend(taker.acknowledged(round * 700));
        acknowledged = taker.kill(acknowledged);
    }
    let held = check(&spool, &acknowledged);
    assert!(held >= acknowledged.len());
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Disk::new();
    let mut acknowledged = Vec::new();
    for _ in 0..4 {
        let mut taker = Taker::start(&disk.spool(), |command| disk.under(command));
        acknowledged.extend(taker.acknowledged(random.usize(1..3000)));
        acknowledged = taker.kill(acknowledged);
        // Nothing that was not synced, then mixtures of what was and what was not.
        for unsynced in [0.0, 0.1, 0.5, 0.9, 1.0] {
            let after = disk.cut(unsynced, &mut random);
            let began = Instant::now();
            check(&after.path().join("spool"), &acknowledged);
            assert!(began.elapsed() < Duration::from_secs(20), "it starts soon");
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_its_sync_has_returned() {
    let disk = Disk::new();
    let gate = disk.base.path().join("gate");
    let mut taker = Taker::start(&disk.spool(), |command| {
        let mut command = disk.under(command);
        command.env("WEIR_DISK_GATE", &gate);
        command
    });
    eventually(|| gate.with_extension("entered").exists());
    // The first commit stands before its fdatasync. Give a wrong acknowledgement the time to appear.
    let (told, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let first = taker.acknowledged(1);
        told.send(()).expect("the test waits");
        (taker, first)
    });
    let early = heard.recv_timeout(Duration::from_millis(500));
    fs::write(gate.with_extension("open"), "").expect("opened");
    assert!(early.is_err(), "acknowledged while fdatasync had not returned");
    heard.recv_timeout(Duration::from_secs(30)).expect("acknowledged once it has");
    let (taker, first) = reader.join().expect("reads");
    taker.kill(first);
}

#[test]
fn while_the_disk_fails_to_sync_nothing_is_acknowledged_and_then_it_goes_on() {
    let disk = Disk::new();
    let fail = disk.base.path().join("fail");
    let taker = Taker::start(&disk.spool(), |command| {
        let mut command = disk.under(command);
        command.env("WEIR_DISK_FAIL", &fail);
        command
    });
    let mut heard = Heard::by(taker);
    heard.wait_for(500);
    for _ in 0..3 {
        fs::write(&fail, "").expect("the disk fails from now on");
        // What had been synced by then may still be on its way.
        while heard.next(A_WHILE).is_some() {}
        assert_eq!(heard.next(2 * A_WHILE), None, "acknowledged what could not be synced");
        check(&disk.cut(0.0, &mut fastrand::Rng::new()).path().join("spool"), &heard.acknowledged);
        fs::remove_file(&fail).expect("the disk is well again");
        heard.wait_for(300);
    }
    let acknowledged = heard.kill();
    check(&disk.cut(0.0, &mut fastrand::Rng::new()).path().join("spool"), &acknowledged);
    check(&disk.spool(), &acknowledged);
}

#[test]
fn what_cannot_be_written_is_not_acknowledged_and_stored_in_another_epoch() {
    let base = tempfile::tempdir().expect("a folder");
    let spool = base.path().join("spool");
    // No file may grow beyond 600 KiB: sled's log cannot be continued there. So every epoch fails, many in their first commit.
    let taker = Taker::start(&spool, |command| {
        let mut limited = Command::new("bash");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$@\"", "bash"]);
        limited.arg(command.get_program()).args(command.get_args());
        limited
    });
    let mut heard = Heard::by(taker);
    heard.wait_for(2000);
    let acknowledged = heard.kill();
    let epochs = fs::read_dir(spool.join("epochs")).expect("a folder").count();
    assert!(epochs > 2, "only {epochs} epochs: nothing has failed");
    check(&spool, &acknowledged);
}

/// Long enough for a wrong acknowledgement to appear.
const A_WHILE: Duration = Duration::from_millis(400);

/// What a child says, without waiting for it for ever.
struct Heard {
    lines: std::sync::mpsc::Receiver<String>,
    reader: std::thread::JoinHandle<()>,
    process: u32,
    acknowledged: Vec<String>,
}

impl Heard {
    fn by(mut taker: Taker) -> Self {
        let (told, lines) = std::sync::mpsc::channel();
        let process = taker.process();
        let reader = std::thread::spawn(move || {
            while let Some(name) = taker.next("acknowledged ") {
                if told.send(name).is_err() {
                    break;
                }
            }
        });
        Self { lines, reader, process, acknowledged: Vec::new() }
    }

    /// The next acknowledgement, if one comes in time.
    fn next(&mut self, time: Duration) -> Option<String> {
        let name = self.lines.recv_timeout(time).ok()?;
        self.acknowledged.push(name.clone());
        Some(name)
    }

    fn wait_for(&mut self, count: usize) {
        for _ in 0..count {
            self.next(Duration::from_secs(60)).expect("it goes on");
        }
    }

    /// Kills the child (SIGKILL) and gives everything that was acknowledged.
    fn kill(mut self) -> Vec<String> {
        let killed = Command::new("kill").args(["-9", &self.process.to_string()]).status();
        assert!(killed.expect("kill").success());
        self.reader.join().expect("reads to the end");
        self.acknowledged.extend(self.lines.try_iter());
        self.acknowledged
    }
}

fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "in time");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A folder whose unsynced contents can be forgotten: `disk.c` notes what is synced.
struct Disk {
    base: TempDir,
}

impl Disk {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a folder");
        for folder in ["root", "shadow"] {
            fs::create_dir(base.path().join(folder)).expect("made");
        }
        Self { base }
    }

    fn root(&self) -> PathBuf {
        self.base.path().join("root")
    }

    fn spool(&self) -> PathBuf {
        self.root().join("spool")
    }

    fn under(&self, mut command: Command) -> Command {
        let (root, shadow) = (self.root(), self.base.path().join("shadow"));
        command.env("LD_PRELOAD", layer()).env("WEIR_DISK_ROOT", root).env("WEIR_DISK_SHADOW", shadow);
        command
    }

    /// What a power cut now may leave: everything synced, and of each file and folder, with this probability, (part of) what
    /// was not.
    fn cut(&self, unsynced: f64, random: &mut fastrand::Rng) -> TempDir {
        let after = tempfile::tempdir().expect("a folder");
        let mut cut = Cut { shadow: self.base.path().join("shadow"), unsynced, random };
        cut.folder(&identity(&self.root()), Some(&self.root()), after.path());
        after
    }
}

struct Cut<'a> {
    shadow: PathBuf,
    unsynced: f64,
    random: &'a mut fastrand::Rng,
}

impl Cut<'_> {
    /// `now` is where it is at present, if it still is.
    fn folder(&mut self, identity: &str, now: Option<&Path>, to: &Path) {
        let now = now.filter(|now| self::identity(now) == identity);
        let noted = fs::read_to_string(self.shadow.join(format!("folder-{identity}"))).unwrap_or_default();
        let names = match now {
            Some(now) if self.random.f64() < self.unsynced => list(now),
            _ => noted,
        };
        for line in names.lines() {
            let [kind, identity, name] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { continue };
            let (now, to) = (now.map(|now| now.join(name)), to.join(name));
            if kind == "folder" {
                fs::create_dir(&to).expect("made");
                self.folder(identity, now.as_deref(), &to);
            } else {
                self.file(identity, now.as_deref(), &to);
            }
        }
    }

    fn file(&mut self, identity: &str, now: Option<&Path>, to: &Path) {
        let mut contents = fs::read(self.shadow.join(format!("file-{identity}"))).unwrap_or_default();
        let now = now.filter(|now| self::identity(now) == identity).and_then(|now| fs::read(now).ok());
        if let Some(now) = now.filter(|_| self.random.f64() < self.unsynced) {
            // Blocks reach the disk in any order; the length may be known before the contents.
            let length = self.random.usize(contents.len().min(now.len())..=now.len());
            contents.resize(length, 0);
            for start in (0..length).step_by(4096) {
                let end = (start + 4096).min(length);
                if self.random.bool() {
                    contents[start..end].copy_from_slice(&now[start..end]);
                }
            }
        }
        fs::write(to, contents).expect("written");
    }
}

/// As `disk.c` lists a folder.
fn list(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let line = |entry: fs::DirEntry| {
        let kind = if entry.path().is_dir() { "folder" } else { "file" };
        format!("{kind} {} {}\n", identity(&entry.path()), entry.file_name().to_string_lossy())
    };
    entries.map(line).collect()
}

/// As `disk.c` names a file: numbers of inodes are used again, so the time of birth belongs to it.
fn identity(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return String::new() };
    let born =
        metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}{:09}", metadata.ino(), born.as_secs(), born.subsec_nanos())
}

/// The compiled layer.
pub(crate) fn layer() -> OsString {
    static LAYER: OnceLock<TempDir> = OnceLock::new();
    let folder = LAYER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("disk.c");
        fs::write(&source, include_str!("disk.c")).expect("written");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(folder.path().join("disk.so"))
            .arg(&source)
            .arg("-ldl");
        assert!(cc.status().expect("a C compiler, as Rust needs for linking").success());
        folder
    });
    folder.path().join("disk.so").into_os_string()
}
