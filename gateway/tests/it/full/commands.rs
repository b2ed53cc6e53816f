//! Commands while the disk has no room: what is not kept is not taken, what is kept is not forgotten, and what cannot be
//! answered on disk is not answered.

use std::process::Command as Process;

use async_nats::jetstream::stream::Config;
use weir_contract::command::Command;
use weir_contract::subject::{COMMANDS_STREAM, COMMANDS_STREAM_SUBJECTS};
use weir_contract::uplink::Uplink;

use super::{Daemon, Disk};
use crate::nats::Nats;
use crate::process::Device;
use crate::wait::until;

const IN_THE_YEAR_2096_MS: u64 = 4_000_000_000_000;

async fn nats_with_commands() -> Nats {
    let nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let subjects = vec![COMMANDS_STREAM_SUBJECTS.to_owned()];
    let config = Config { name: COMMANDS_STREAM.to_owned(), subjects, ..Config::default() };
    nats.jetstream().await.create_stream(config).await.expect("making the stream");
    nats
}

async fn command(nats: &Nats, device: &str, id: &str, name: &str, args: &[u8]) {
    let command = Command { id: id.into(), name: name.into(), deadline_ms: IN_THE_YEAR_2096_MS, args };
    let mut payload = [0; 200];
    let len = command.write(&mut payload).expect("room");
    let subject = format!("weir.1.commands.plant.gw-1.{device}");
    let jetstream = nats.jetstream().await;
    let published = jetstream.publish(subject, payload[..len].to_vec().into()).await;
    published.expect("sent").await.expect("the stream has it");
}

/// The kinds of what the stream has of the gateway itself.
async fn kinds(nats: &Nats) -> Vec<String> {
    let payloads = nats.segments().await.into_iter().flat_map(|segment| segment.payloads);
    let kinds = |payload: Vec<u8>| {
        let uplink = Uplink::read(&payload).expect("an uplink");
        uplink.events().map(|event| event.kind.to_string()).collect::<Vec<_>>()
    };
    payloads.flat_map(kinds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_finds_no_room_is_not_taken_and_comes_again_and_one_that_was_kept_stays() {
    let disk = Disk::tmpfs();
    let nats = nats_with_commands().await;
    let mut daemon = Daemon::start(&disk, &nats.url(), "free_min = 0").await;
    until("commands come", async || daemon.status()["commands"]["trouble"].is_null()).await;
    disk.fill();
    command(&nats, "d-1", "c-1", "identify", b"\xa0").await;
    until("it says why it takes none", async || {
        let trouble = daemon.status()["commands"]["trouble"].to_string();
        trouble.contains("No space left")
    })
    .await;
    assert_eq!(daemon.status()["commands"]["pending"], 0, "it is not kept");
    disk.clear();
    until("it comes again", async || daemon.status()["commands"]["pending"] == 1).await;
    disk.fill();
    daemon.kill();
    let mut daemon = Daemon::start(&disk, &nats.url(), "free_min = 0").await;
    assert_eq!(daemon.status()["commands"]["waiting"][0]["id"], "c-1", "it was kept");
    daemon.assert_running();
}

/// The disk has room for the command, the spool none for the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_on_disk_waits_also_for_a_start_and_does_not_keep_it_from_stopping() {
    let disk = Disk::tmpfs();
    let nats = nats_with_commands().await;
    let mut daemon = Daemon::start(&disk, &nats.url(), "free_min = \"12 MiB\"").await;
    until("commands come", async || daemon.status()["commands"]["trouble"].is_null()).await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!(device.publish(10));
    disk.leave(6 << 20);
    until("the spool is full", async || daemon.status()["spool"]["full"] == "free-min").await;
    // Its coming finds no room: the journal waits, and then whoever waits for the journal.
    let _other = Device::connect(daemon.mqtt, "d-2");
    command(&nats, "gw-1", "c-1", "resend", b"\xa1\x64from\x01").await;
    until("it is kept", async || daemon.status()["commands"]["pending"] == 1).await;
    assert!(!kinds(&nats).await.iter().any(|kind| kind.starts_with("command-")));

    let told = Process::new("kill").arg(daemon.child.id().to_string()).status().expect("kill");
    assert!(told.success());
    until("it has ended", async || daemon.child.try_wait().expect("asking for it").is_some()).await;
    disk.clear();
    let mut daemon = Daemon::start(&disk, &nats.url(), "free_min = \"12 MiB\"").await;
    until("it is done and answered", async || {
        let kinds = kinds(&nats).await;
        kinds.iter().any(|kind| kind == "command-completed") && daemon.status()["commands"]["pending"] == 0
    })
    .await;
    daemon.assert_running();
}
