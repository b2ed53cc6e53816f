//! What systemd is told, and when it is not told any more.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Daemon, Device, NO_NATS};
use crate::wait::{SOON, until};

/// Of the tests' watchdog; systemd's is 120 s.
const WATCHDOG: Duration = Duration::from_millis(400);

/// In systemd's place: hears what the gateway says.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        Manager { socket, path, _folder: folder }
    }

    fn watches(&self, command: &mut Command) {
        let watchdog = WATCHDOG.as_micros().to_string();
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", watchdog).env_remove("WATCHDOG_PID");
    }

    /// The next message, if there is one soon.
    fn hear(&self) -> Option<String> {
        let mut buffer = [0; 1000];
        let len = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).expect("text"))
    }

    /// Reads on until a message has this line.
    fn hear_of(&self, line: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "waited in vain for {line}");
            match self.hear() {
                Some(message) if message.lines().any(|said| said == line) => return message,
                _ => {}
            }
        }
    }

    /// Whether a pulse comes within a time in which there should be many.
    fn hears_a_pulse(&self) -> bool {
        let deadline = Instant::now() + WATCHDOG * 4;
        while Instant::now() < deadline {
            if self.hear().is_some_and(|message| message.starts_with("WATCHDOG=1\n")) {
                return true;
            }
        }
        false
    }

    fn forget(&self) {
        while self.hear().is_some() {}
    }
}

/// The disk of custody's own tests, compiled: its syncs wait at a gate, or fail.
fn layer(folder: &Path) -> PathBuf {
    let (source, layer) = (folder.join("disk.c"), folder.join("disk.so"));
    std::fs::write(&source, include_str!("../../src/custody/tests/disk.c")).expect("written");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&layer).arg(&source).arg("-ldl");
    assert!(cc.status().expect("a C compiler, as Rust needs for linking").success());
    layer
}

async fn start(manager: &Manager, more: impl FnOnce(&mut Command)) -> Daemon {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Daemon::start_under(folder, NO_NATS, "", |command| {
        manager.watches(command);
        more(command);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_hears_ready_when_devices_are_taken_in_then_a_pulse_then_stopping() {
    let manager = Manager::new();
    let mut daemon = start(&manager, |_| {}).await;
    let first = manager.hear_of("READY=1");
    assert!(first.contains("STATUS=uplink "), "{first}");
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!(device.publish(10), "ready is ready");
    for _ in 0..3 {
        manager.hear_of("WATCHDOG=1");
    }
    // The device's uplink and the gateway's own, that the device has come.
    until("the status tells what waits", async || {
        manager.hear().is_some_and(|said| said.contains("2 uplinks wait for it, 1 connections"))
    })
    .await;
    let ended = daemon.terminate().await;
    manager.hear_of("STOPPING=1");
    assert!(ended.success(), "{ended}: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_stops_the_pulse_and_one_that_answers_again_lets_it_go_on() {
    let manager = Manager::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let daemon = start(&manager, |command| {
        command
            .env("LD_PRELOAD", layer(folder.path()))
            .env("WEIR_DISK_ROOT", "/")
            .env("WEIR_DISK_GATE", &gate);
    })
    .await;
    manager.hear_of("WATCHDOG=1");
    // Whoever connects makes the gateway store something.
    let _device = Device::connect(daemon.mqtt, "d-1");
    until("a commit waits for the disk", async || gate.with_extension("entered").exists()).await;
    manager.forget();
    assert!(!manager.hears_a_pulse(), "a gateway that cannot acknowledge passes for alive");
    std::fs::write(gate.with_extension("open"), "").expect("opened");
    manager.hear_of("WATCHDOG=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_is_told_and_gone_on_from_by_itself() {
    let manager = Manager::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fail = folder.path().join("fail");
    let daemon = start(&manager, |command| {
        command
            .env("LD_PRELOAD", layer(folder.path()))
            .env("WEIR_DISK_ROOT", "/")
            .env("WEIR_DISK_FAIL", &fail);
    })
    .await;
    manager.hear_of("WATCHDOG=1");
    std::fs::write(&fail, "").expect("the disk fails from now on");
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!(
        device.give(10) && !device.is_acknowledged(Duration::from_secs(1)),
        "acknowledged, and not on disk"
    );
    manager.forget();
    let message = manager.hear_of("WATCHDOG=1");
    assert!(message.contains("nothing is acknowledged (disk)"), "{message}");
    assert!(daemon.log().contains("the disk does not take what is stored"), "{}", daemon.log());
    std::fs::remove_file(&fail).expect("the disk is well again");
    assert!(device.is_acknowledged(SOON), "{}", daemon.log());
}
