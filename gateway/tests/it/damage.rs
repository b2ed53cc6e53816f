//! A spool that something has happened to, as its owner meets it: told by name, repaired by a command, told in the ledger.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use weir_contract::uplink::Uplink;

use crate::nats::Nats;
use crate::process::{Daemon, Device, NO_NATS};
use crate::wait::until;

/// A gateway that is stopped, with so many uplinks of a device in its spool.
async fn stopped(uplinks: usize) -> TempDir {
    let mut daemon = Daemon::start(NO_NATS, "").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..uplinks).all(|_| device.publish(500)));
    assert!(daemon.terminate().await.success());
    daemon.into_folder()
}

/// Flips a bit in the middle of the last epoch; the bytes of all uplinks are sevens.
fn flip(folder: &Path) {
    let epochs = std::fs::read_dir(folder.join("spool/epochs")).expect("a folder");
    let last = epochs.map(|epoch| epoch.expect("an epoch").path()).max().expect("there is one");
    let log = last.join("db");
    let mut bytes = std::fs::read(&log).expect("there");
    let sevens: Vec<usize> =
        bytes.windows(8).enumerate().filter(|(_, w)| *w == [7; 8]).map(|(at, _)| at).collect();
    bytes[sevens[sevens.len() / 2]] ^= 1;
    std::fs::write(log, bytes).expect("written");
}

fn spool(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-gateway"));
    command.arg("spool").args(words).arg("--config").arg(folder.join("gateway.toml"));
    command.output().expect("asking it")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// How many uplinks of devices are in the stream.
async fn from_devices(nats: &Nats) -> usize {
    let payloads = nats.segments().await.into_iter().flat_map(|segment| segment.payloads);
    payloads.filter(|payload| Uplink::read(payload).expect("an uplink").header.boot == 1).count()
}

/// What the gateway has told to be gone, in the stream.
async fn told_gone(nats: &Nats) -> usize {
    let payloads = nats.segments().await.into_iter().flat_map(|segment| segment.payloads);
    let told = payloads.map(|payload| {
        let uplink = Uplink::read(&payload).expect("an uplink");
        uplink.events().filter(|event| event.kind == "uplinks-gone").count()
    });
    told.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_repair_work_on_a_stopped_gateway_and_what_is_gone_is_told_once() {
    let folder = stopped(40).await;
    let sound = spool(folder.path(), &["verify"]);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(String::from_utf8_lossy(&sound.stdout).contains("The spool is sound."), "{sound:?}");
    flip(folder.path());
    let damaged = spool(folder.path(), &["verify"]);
    assert_eq!(damaged.status.code(), Some(3), "{damaged:?}");
    let said = String::from_utf8_lossy(&damaged.stdout);
    assert!(said.contains("DAMAGED") && said.contains("between the bytes"), "{said}");
    let report = json(&spool(folder.path(), &["verify", "--json"]));
    let gone = &report["epochs"][0]["gone"][0];
    assert_eq!((&report["sound"], &gone["from"]), (&Value::Bool(false), &gone["to"]), "{report}");
    let dry = spool(folder.path(), &["repair", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(3), "{dry:?}");
    let repaired = spool(folder.path(), &["repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    assert_eq!(spool(folder.path(), &["verify"]).status.code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path().join("spool/damaged")).expect("a folder").count(), 1);

    let nats = Nats::start().await;
    nats.make_stream_if_absent().await;
    let mut folder = folder;
    // The second start tells nothing again: what it takes is delivered behind what it had to tell.
    for run in 1..=2 {
        let mut daemon = Daemon::start_under(folder, &nats.url(), "", |_| {}).await;
        let refused = spool(daemon.folder(), &["verify"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("stop the gateway first"), "{refused:?}");
        until("what is gone is told", async || told_gone(&nats).await > 0).await;
        assert!(Device::connect(daemon.mqtt, "d-2").publish(500));
        until("what comes after it is there", async || from_devices(&nats).await == 39 + run).await;
        assert!(daemon.terminate().await.success());
        folder = daemon.into_folder();
    }
    assert_eq!(told_gone(&nats).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_goes_on_by_itself_around_damage_and_says_so() {
    let folder = stopped(40).await;
    flip(folder.path());
    let nats = Nats::start().await;
    nats.make_stream_if_absent().await;
    let mut daemon = Daemon::start_under(folder, &nats.url(), "", |_| {}).await;
    until("what is gone is told", async || told_gone(&nats).await == 1).await;
    let status = daemon.ask_json("status");
    assert_eq!(status["spool"]["lost"], 1, "{status}");
    assert!(daemon.metrics().contains("weir_gateway_spool_lost_uplinks 1"));
    assert!(daemon.terminate().await.success());
    assert_eq!(from_devices(&nats).await, 39);
}
