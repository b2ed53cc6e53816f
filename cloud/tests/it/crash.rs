//! `kill -9` of the real process.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use weir_cloud::store::{Config, Reader};

use crate::nats::Nats;
use crate::{Gateway, PATIENCE, id};

/// Kills in one test.
const KILLS: u32 = 8;
/// Segments sent between two kills.
const SEGMENTS: u32 = 40;
/// Events in a segment.
const EVENTS: u32 = 25;

struct Service(Child);

impl Service {
    fn start(folder: &TempDir, nats_url: &str) -> Service {
        let config = format!(
            "[nats]\nservers = [{nats_url:?}]\n[store]\npath = {:?}\n[api]\nproject_address = \"127.0.0.1:0\"\n",
            folder.path().join("weir.sqlite")
        );
        let file = folder.path().join("cloud.toml");
        std::fs::write(&file, config).expect("writes");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-cloud"));
        command.arg("project").arg("--config").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        Service(command.spawn().expect("weir-cloud starts"))
    }

    fn kill(mut self) {
        assert!(self.0.try_wait().expect("asks").is_none(), "it ended by itself");
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // After `kill` both do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_folds_every_message_once() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().expect("a folder"));
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    let mut killed_while_folding = 0;
    let mut last = 0;
    for kill in 0..KILLS {
        let service = Service::start(&folder, &nats.url());
        let folded_before = folded(&folder);
        for _ in 0..SEGMENTS {
            last = gateway.send(EVENTS).await;
        }
        // Any moment: sometimes it has just begun, sometimes it has folded some.
        let progress = u64::from(kill % 4) * u64::from(SEGMENTS) / 4;
        until(|| folded(&folder) >= (folded_before + progress).min(last)).await;
        service.kill();
        killed_while_folding += u32::from(folded(&folder) < last);
    }
    let service = Service::start(&folder, &nats.url());
    until(|| folded(&folder) == last).await;
    let boots = reader(&folder).expect("is there").boots(&id("d")).expect("reads").expect("is known");
    let events = KILLS * SEGMENTS * EVENTS;
    assert_eq!((boots.len(), boots[0].stored.as_slice()), (1, &[(1, events)][..]));
    // Nothing was even read twice: the position and what it stands for are one.
    assert_eq!((boots[0].rows, boots[0].duplicates), (u64::from(events), 0));
    assert!(killed_while_folding > 0, "no kill hit the folding, so this has shown nothing");
    service.kill();
}

fn reader(folder: &TempDir) -> Option<Reader> {
    Reader::open(&Config { path: folder.path().join("weir.sqlite") }).ok()
}

/// Up to which message; 0 if there is no store yet.
fn folded(folder: &TempDir) -> u64 {
    let position = reader(folder).and_then(|reader| reader.position().ok().flatten());
    position.map_or(0, |position| position.stream_sequence)
}

async fn until(mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it gets on");
}
