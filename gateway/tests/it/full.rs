//! A disk that others fill, and really full: the daemon on a small file system of its own, in a mount namespace.
//!
//! Nothing acknowledged is lost, nothing is acknowledged that is not stored, the daemon starts and delivers on a full
//! disk, and it takes uplinks again by itself when the disk has room.

mod commands;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weir_contract::body::Body;
use weir_contract::uplink::Uplink;

use crate::nats::{A_WHILE, Nats};
use crate::process::Device;
use crate::wait::{SOON, until};

/// A small file system that exists for one process and those who enter its namespace.
struct Disk {
    folder: TempDir,
    holder: Child,
    user_namespace: bool,
}

impl Disk {
    /// In memory.
    fn tmpfs() -> Disk {
        Disk::mounted("mount -t tmpfs -o size=48m weir disk")
            .expect("a tmpfs can be mounted in a namespace: needs root, or user namespaces")
    }

    /// ext4 in a file, as a card has it; only root may mount one.
    fn ext4() -> Option<Disk> {
        Disk::mounted("truncate -s 48M image && mkfs.ext4 -q -m 0 image && mount -o loop image disk")
    }

    fn mounted(mount: &str) -> Option<Disk> {
        let script = format!("{mount} && echo mounted && exec cat");
        [false, true].into_iter().find_map(|user_namespace| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::create_dir(folder.path().join("disk")).expect("a place to mount it");
            let how: &[&str] = if user_namespace { &["-Urm"] } else { &["-m"] };
            // It ends with the test, whose end of the pipe is closed then.
            let holder = Command::new("unshare")
                .args(how)
                .args(["sh", "-c", &script])
                .current_dir(folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn();
            let mut disk = Disk { folder, holder: holder.ok()?, user_namespace };
            let said = BufReader::new(disk.holder.stdout.take().expect("piped")).lines().next();
            matches!(said, Some(Ok(line)) if line == "mounted").then_some(disk)
        })
    }

    /// Where it is for those in the namespace.
    fn inside(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Where it is for the test.
    fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.inside().strip_prefix("/").expect("an absolute path"))
    }

    /// A command in the namespace.
    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-m"]);
        if self.user_namespace {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Somebody else fills it to the last byte.
    fn fill(&self) {
        let mut foreign =
            File::options().append(true).create(true).open(self.outside().join("foreign")).expect("a file");
        for size in [1 << 20, 64 << 10, 4 << 10, 512, 16] {
            let error = loop {
                if let Err(error) = foreign.write_all(&vec![7; size]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }

    /// Somebody else leaves so many bytes of it.
    fn leave(&self, bytes: u64) {
        let stat = rustix::fs::statvfs(self.outside()).expect("it is mounted");
        let taken = usize::try_from(stat.f_bavail * stat.f_frsize - bytes).expect("small");
        fs::write(self.outside().join("foreign"), vec![7; taken]).expect("there is room");
    }

    /// Somebody else takes his file away.
    fn clear(&self) {
        fs::remove_file(self.outside().join("foreign")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A daemon whose spool is on a small disk. It says its addresses beforehand: on a full disk it cannot write them down.
struct Daemon {
    child: Child,
    mqtt: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    async fn start(disk: &Disk, nats_url: &str, spool: &str) -> Daemon {
        let mut daemon = Daemon::spawn(disk, nats_url, spool);
        until("it answers", async || daemon.is_up()).await;
        daemon
    }

    fn spawn(disk: &Disk, nats_url: &str, spool: &str) -> Daemon {
        let [mqtt, admin] = free_addresses();
        let folder = disk.folder.path();
        let file = folder.join("gateway.toml");
        let text = format!(
            r#"
            gateway = {{ site = "plant", id = "gw-1" }}
            mqtt.listener = [{{ address = "{mqtt}" }}]
            uplink.servers = [{nats_url:?}]
            uplink.backoff_ms_max = 200
            admin.address = "{admin}"
            [spool]
            folder = {:?}
            bytes_max = "32 MiB"
            epoch_bytes = "1 MiB"
            {spool}
            "#,
            disk.inside().join("spool")
        );
        fs::write(&file, text).expect("writing the configuration");
        let log = folder.join("log");
        let to = File::options().append(true).create(true).open(&log).expect("a log file");
        let mut command = disk.enter(env!("CARGO_BIN_EXE_weir-gateway"));
        let child = command.args(["run", "--config"]).arg(&file).stdin(Stdio::null()).stderr(to).spawn();
        Daemon { child: child.expect("starting it"), mqtt, admin, log }
    }

    fn is_up(&mut self) -> bool {
        self.assert_running();
        TcpStream::connect(self.admin).is_ok() && TcpStream::connect(self.mqtt).is_ok()
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("asking for it");
        assert!(ended.is_none(), "it has ended: {ended:?}\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("connecting");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").expect("asking");
        std::io::read_to_string(&mut stream).expect("an answer")
    }

    fn status(&self) -> Value {
        let answer = self.get("/status");
        let body = answer.split_once("\r\n\r\n").expect("a head and a body").1;
        serde_json::from_str(body).expect("JSON")
    }

    /// `kill -9`.
    fn kill(&mut self) {
        self.child.kill().expect("killing it");
        self.child.wait().expect("its end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("its address"))
}

/// Which events of a device the stream has, by number.
async fn delivered(nats: &Nats, len: usize) -> BTreeSet<u32> {
    let payloads = nats.segments().await.into_iter().flat_map(|segment| segment.payloads);
    let of_device = |payload: Vec<u8>| {
        let uplink = Uplink::read(&payload).expect("an uplink");
        let ours = uplink.header.boot == 1 && payload.len() > len;
        ours.then(|| uplink.events().map(|event| event.seq).collect::<Vec<_>>())
    };
    payloads.filter_map(of_device).flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_holds_devices_back_delivers_and_recovers_by_itself() {
    held_back_and_recovered(Disk::tmpfs(), "free_min = \"12 MiB\"", "free-min").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_card_without_a_floor_holds_devices_back_delivers_and_recovers_by_itself() {
    let Some(disk) = Disk::ext4() else {
        eprintln!("NO ext4 CAN BE MOUNTED HERE (needs root and loop devices): a tmpfs is filled instead");
        return held_back_and_recovered(Disk::tmpfs(), "free_min = 0", "").await;
    };
    held_back_and_recovered(disk, "free_min = 0", "").await;
}

async fn held_back_and_recovered(disk: Disk, spool: &str, why: &str) {
    const LEN: usize = 20_000;
    let mut nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let url = nats.url();
    nats.kill();
    let mut daemon = Daemon::start(&disk, &url, spool).await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..300).all(|_| device.publish(LEN)), "there is room");
    disk.fill();
    // The next may be on its way already; the others have no place.
    let more = (0..20).take_while(|_| device.give(LEN) && device.is_acknowledged(A_WHILE)).count();
    assert!(more < 20, "acknowledged 400 KB on a full disk");
    let stored = 300 + u32::try_from(more).expect("few");
    until("it says that it is full", async || daemon.status()["custody"]["ok"] == false).await;
    let status = daemon.status();
    let said = status["spool"]["full"].as_str().expect("why it is full");
    assert!(why.is_empty() || said == why, "{said} instead of {why}");
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 503"), "not ready");
    assert!(daemon.get("/metrics").contains(&format!("weir_gateway_spool_full{{reason=\"{said}\"}} 1")));
    assert!(!device.is_acknowledged(A_WHILE), "acknowledged on a full disk");
    daemon.assert_running();

    daemon.kill();
    disk.fill();
    let mut daemon = Daemon::start(&disk, &url, spool).await;
    assert!(daemon.status()["spool"]["next"].as_u64() > Some(u64::from(stored)), "what was stored is there");
    let mut late = Device::connect(daemon.mqtt, "d-2");
    assert!(late.give(10) && !late.is_acknowledged(A_WHILE), "acknowledged after a start on a full disk");
    nats.start_again().await;
    let all: BTreeSet<u32> = (1..=stored).collect();
    // What is delivered makes room on the disk; somebody else takes it at once.
    until("all of it is delivered, though the disk is full", async || {
        disk.fill();
        delivered(&nats, LEN).await.is_superset(&all)
    })
    .await;
    // Without a floor the room that deleting makes may be the daemon's for a moment; the floor is higher than that.
    let early = late.is_acknowledged(A_WHILE);
    assert!(why.is_empty() || !early, "acknowledged below the floor: {}", daemon.log());
    daemon.assert_running();

    disk.clear();
    assert!(early || late.is_acknowledged(SOON), "it goes on by itself: {}", daemon.log());
    assert!((0..100).all(|_| late.publish(LEN)), "there is room again");
    until("it says that it is not full", async || daemon.status()["custody"]["ok"] == true).await;
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
    daemon.assert_running();
    let log = daemon.log();
    let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    assert!(lines("full") + lines("takes") < 40, "a line for each change, not for each try:\n{log}");
    assert!(Path::new(&disk.outside().join("spool")).is_dir());
}

/// What a foreign file leaves is taken in turns by it and by the spool, byte by byte, at any step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_full_and_free_again_and_again_loses_nothing() {
    const LEN: usize = 30_000;
    let disk = Disk::tmpfs();
    let nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let mut daemon = Daemon::start(&disk, &nats.url(), "free_min = 0\nkeep_delivered_bytes = 0").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    let mut acknowledged = 0;
    for round in 0..6 {
        for _ in 0..40 {
            assert!(device.publish(LEN), "round {round}: {}", daemon.log());
            acknowledged += 1;
        }
        disk.fill();
        let held = device.give(LEN) && !device.is_acknowledged(Duration::from_millis(300));
        disk.clear();
        assert!(
            !held || device.is_acknowledged(SOON),
            "round {round}: it goes on by itself: {}",
            daemon.log()
        );
        acknowledged += 1;
    }
    let all: BTreeSet<u32> = (1..=acknowledged).collect();
    until("everything acknowledged is delivered", async || delivered(&nats, LEN).await == all).await;
    daemon.assert_running();
}

/// Numbers of the device's events that are in the ledger, as the stream has it.
async fn lost(nats: &Nats, device: &str) -> BTreeSet<u32> {
    let mut lost = BTreeSet::new();
    for payload in nats.segments().await.into_iter().flat_map(|segment| segment.payloads) {
        for event in Uplink::read(&payload).expect("an uplink").events() {
            if let Ok(Some(Body::EventsLost { device: Some(of), boot, from, to, reason })) =
                Body::read(&event.kind, event.version, event.body)
                && &*of == device
            {
                assert!(boot == 1 && reason == "spool-full", "{boot} {reason:?}");
                lost.extend(from..=to);
            }
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_that_drops_its_oldest_takes_the_present_and_tells_exactly_what_it_gave_up() {
    const LEN: usize = 30_000;
    let settings = "free_min = \"4 MiB\"\nwhen_full = \"drop-oldest\"";
    let disk = Disk::tmpfs();
    let mut nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let url = nats.url();
    nats.kill();
    let mut daemon = Daemon::start(&disk, &url, settings).await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    // By the budget, then by the disk that somebody else fills, twice with a kill at any step.
    let mut all = 0;
    for round in 0..3 {
        for at in 0..500 {
            assert!(device.publish(LEN), "round {round}, {at}: {}", daemon.log());
            all += 1;
        }
        if round < 2 {
            let mut foreign = File::options().append(true).create(true).open(disk.outside().join("foreign"));
            let foreign = foreign.as_mut().expect("a file");
            foreign.write_all(&vec![7; 4 << 20]).expect("there is room");
            daemon.kill();
            daemon = Daemon::start(&disk, &url, settings).await;
            device = device.again(daemon.mqtt);
        }
    }
    assert!(daemon.status()["custody"]["ok"] == true, "{}", daemon.log());
    nats.start_again().await;
    let all: BTreeSet<u32> = (1..=all).collect();
    until("every number is delivered or in the ledger", async || {
        let (stored, lost) = (delivered(&nats, LEN).await, lost(&nats, "d-1").await);
        assert!(lost.is_subset(&all), "only what there was");
        all.iter().all(|seq| stored.contains(seq) || lost.contains(seq))
    })
    .await;
    let (stored, lost) = (delivered(&nats, LEN).await, lost(&nats, "d-1").await);
    assert!(lost.len() > 500 && stored.contains(&1500), "{} lost, {} stored", lost.len(), stored.len());
    assert!(stored.is_disjoint(&lost), "what is told to be lost is");
    assert!(lost.last() < stored.first(), "the oldest went");
    let metrics = daemon.get("/metrics");
    assert!(metrics.contains("weir_gateway_events_given_up_total"), "{metrics}");
    assert_eq!(daemon.status()["spool"]["waiting"], 0);
}

/// What one epoch has is no room for anything while somebody else has taken the floor, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_foreign_file_costs_as_many_epochs_as_it_takes_and_the_present_is_taken() {
    const LEN: usize = 30_000;
    let disk = Disk::tmpfs();
    let mut nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let url = nats.url();
    nats.kill();
    let mut daemon = Daemon::start(&disk, &url, "free_min = \"4 MiB\"\nwhen_full = \"drop-oldest\"").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..600).all(|_| device.publish(LEN)), "there is room");
    disk.leave(1 << 20);
    assert!((0..200).all(|_| device.publish(LEN)), "the present is taken: {}", daemon.log());
    nats.start_again().await;
    until("every number is delivered or in the ledger, none in both", async || {
        let (stored, lost) = (delivered(&nats, LEN).await, lost(&nats, "d-1").await);
        assert!(stored.is_disjoint(&lost), "what is told to be lost is");
        (1..=800).all(|seq| stored.contains(&seq) || lost.contains(&seq))
    })
    .await;
    assert_eq!(daemon.status()["spool"]["waiting"], 0);
    daemon.assert_running();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_to_drop_its_oldest_from_now_on_starts_on_a_disk_without_a_free_byte() {
    const LEN: usize = 30_000;
    let disk = Disk::tmpfs();
    let nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let mut daemon = Daemon::start(&disk, "nats://127.0.0.1:1", "free_min = 0").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..100).all(|_| device.publish(LEN)), "there is room");
    daemon.kill();
    disk.fill();
    let settings = "free_min = 0\nwhen_full = \"drop-oldest\"";
    let mut daemon = Daemon::start(&disk, &nats.url(), settings).await;
    let all: BTreeSet<u32> = (1..=100).collect();
    until("what it has is delivered or in the ledger", async || {
        let mut told = delivered(&nats, LEN).await;
        told.extend(lost(&nats, "d-1").await);
        told == all
    })
    .await;
    disk.clear();
    let mut device = device.again(daemon.mqtt);
    assert!((0..50).all(|_| device.publish(LEN)), "it goes on by itself: {}", daemon.log());
    daemon.assert_running();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_read_only_at_the_start_is_an_error_that_says_what_to_do_and_harms_nothing() {
    const LEN: usize = 1_000;
    let disk = Disk::tmpfs();
    let nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let mut daemon = Daemon::start(&disk, "nats://127.0.0.1:1", "free_min = 0").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..20).all(|_| device.publish(LEN)), "there is room");
    daemon.kill();
    let remount = |how: &str| {
        let mounted =
            disk.enter("mount").args(["-o", how]).arg(disk.inside()).status().expect("mount can be run");
        assert!(mounted.success());
    };
    remount("remount,ro");
    let mut refused = Daemon::spawn(&disk, &nats.url(), "free_min = 0");
    until("it has ended", async || refused.child.try_wait().expect("asking for it").is_some()).await;
    assert_eq!(refused.child.wait().expect("it has ended").code(), Some(1));
    let (said, folder) = (refused.log(), disk.inside().join("spool").display().to_string());
    for part in [folder.as_str(), "is read-only", "nothing is acknowledged", "dmesg", "remount,rw"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    remount("remount,rw");
    let mut daemon = Daemon::start(&disk, &nats.url(), "free_min = 0").await;
    let all: BTreeSet<u32> = (1..=20).collect();
    until("what it had is delivered", async || delivered(&nats, LEN).await == all).await;
    daemon.assert_running();
}
