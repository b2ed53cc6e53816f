//! A gateway without a battery for its clock, as a process: it begins in 1970, and is told the time later.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_contract::body::Body;
use weir_contract::uplink::Uplink;

use crate::nats::Nats;
use crate::process::{Daemon, Device};
use crate::wait::until;

/// Sets the wall clock of one process and leaves the other as it is (libfaketime); `make setup` installs it.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|library| library.exists())
}

/// From now on the clock stands there, and goes on: seconds from the right time.
fn set_clock(file: &Path, offset_s: i64) {
    let new = file.with_extension("new");
    fs::write(&new, format!("{offset_s:+}")).expect("a file");
    fs::rename(&new, file).expect("a file");
}

fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the right time, to be wrong by")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("after 1970")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_late_is_told_to_nobody_before_and_to_everybody_after() {
    let Some(library) = library() else {
        eprintln!("SKIPPED: there is no libfaketime on this machine; make setup installs it");
        return;
    };
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = folder.path().join("clock");
    let since_1970 = i64::try_from(now().as_secs()).expect("a number");
    set_clock(&clock, 60 - since_1970);
    let mut daemon = Daemon::start_under(folder, &nats.url(), "", by_clock(&library, &clock)).await;
    until("it says that its clock is not set", async || daemon.log().contains("the clock is not set")).await;

    let mut device = Device::connect(daemon.mqtt, "d-1");
    is_told_nothing(&mut device);

    // The network is there, and with it the time.
    set_clock(&clock, 0);
    let told = read_time(device.stream());
    assert!(told.abs_diff(ms(now())) < 10_000, "it is told {told}");
    // And whenever it is set again.
    set_clock(&clock, 3600);
    let told = read_time(device.stream());
    assert!(told.abs_diff(ms(now()) + 3_600_000) < 10_000, "it is told {told}");

    assert!(daemon.terminate().await.success(), "{}", daemon.log());
    let payloads = nats.segments().await.into_iter().flat_map(|segment| segment.payloads);
    let (mut steps, mut epochs, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
    for payload in payloads {
        let uplink = Uplink::read(&payload).expect("an uplink");
        if uplink.header.boot == 1 {
            continue;
        }
        epochs.push(uplink.header.epoch);
        for event in uplink.events() {
            seqs.push(event.seq);
            let body = Body::read(&event.kind, event.version, event.body).expect("a body");
            if let Some(Body::ClockStepped { by_ms }) = body {
                steps.push(by_ms);
            }
        }
    }
    assert_eq!(steps.len(), 2, "{steps:?}: {}", daemon.log());
    assert!((steps[0] / 1000 - (since_1970 - 60)).abs() < 60, "{steps:?}");
    assert!((3_598_000..3_602_000).contains(&steps[1]), "{steps:?}");
    assert_eq!(epochs.first(), Some(&None), "it does not claim to know when it began before it does");
    assert!(epochs.last().expect("several").is_some());
    assert!(seqs.is_sorted(), "events keep their order");
}

/// What fake-hwclock does: at the start of the machine the clock shows what was saved an hour before its power was cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_restored_from_the_disk_is_told_to_nobody_before_it_is_set() {
    let Some(library) = library() else {
        eprintln!("SKIPPED: there is no libfaketime on this machine; make setup installs it");
        return;
    };
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let remembered = folder.path().join("spool/clock");
    let written = || fs::read_to_string(&remembered).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = folder.path().join("clock");
    fs::create_dir(folder.path().join("spool")).expect("a folder");
    fs::write(&remembered, ms(now()).to_string()).expect("a file");
    set_clock(&clock, -3600);
    let mut daemon = Daemon::start_under(folder, &nats.url(), "", by_clock(&library, &clock)).await;
    until("it says that its clock is not set", async || daemon.log().contains("the clock is not set")).await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    is_told_nothing(&mut device);
    let status = daemon.ask_json("status");
    assert_eq!(status["clock_doubt"], "went-back", "{status}");
    assert!(
        written().is_some_and(|written| written + 3_000_000 > ms(now())),
        "what it doubts is not written down"
    );

    set_clock(&clock, 0);
    let told = read_time(device.stream());
    assert!(told.abs_diff(ms(now())) < 10_000, "it is told {told}");
    let status = daemon.ask_json("status");
    assert!(status["clock_doubt"].is_null(), "{status}");
    until("the time is written down", async || written().is_some_and(|at| at.abs_diff(ms(now())) < 10_000))
        .await;
    assert!(daemon.terminate().await.success(), "{}", daemon.log());
}

/// The gateway's clock is read from that file.
fn by_clock(library: &Path, clock: &Path) -> impl FnOnce(&mut Command) {
    move |command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("DONT_FAKE_MONOTONIC", "1");
    }
}

/// It asks for the time, and gets an answer to that, and nothing else before the acknowledgement of an uplink.
fn is_told_nothing(device: &mut Device) {
    let stream = device.stream();
    stream.write_all(b"\x82\x14\0\x09\0\x0fweir/1/d-1/time\0").expect("a connection");
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).expect("an answer");
    assert_eq!(suback, [0x90, 3, 0, 9, 0]);
    assert!(device.publish(10), "it takes uplinks as ever; and nothing came before the acknowledgement");
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a number")
}

/// The next PUBLISH, which tells the time.
fn read_time(stream: &mut std::net::TcpStream) -> u64 {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a packet");
    let mut body = vec![0; usize::from(head[1])];
    stream.read_exact(&mut body).expect("a packet");
    assert_eq!((head[0], &body[2..17]), (0x30, b"weir/1/d-1/time".as_slice()));
    weir_contract::time::Time::read(&body[17..]).expect("a time").unix_ms
}
