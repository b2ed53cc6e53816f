//! The projection against a real nats-server.

mod crash;
mod log;
mod nats;

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_cloud::projection::{self, Progress};
use weir_cloud::store::types::{BootAccount, DeadLetter};
use weir_cloud::store::{Config, Reader, Store};
use weir_contract::Id;
use weir_contract::body::{Body, Scalar};
use weir_contract::segment::{Head, write_entry, write_head};
use weir_contract::subject::{Source, segments};
use weir_contract::uplink::{self, Event, Header};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn id(name: &str) -> Id {
    name.parse().expect("a name")
}

/// A projection at work on a store in a folder.
struct Projection {
    progress: watch::Receiver<Progress>,
    reader: Reader,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), projection::Error>>,
}

impl Projection {
    async fn start(folder: &TempDir, nats_url: &str) -> Projection {
        let store = Store::open(&Config { path: folder.path().join("weir.sqlite") }).expect("a store");
        let reader = store.reader();
        let nats = weir_cloud::nats::Config { servers: vec![nats_url.to_owned()], ..Default::default() };
        let nats = weir_cloud::nats::connect(&nats).await.expect("a client");
        let (report, progress) = watch::channel(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(projection::run(nats, Default::default(), store, report, stopped));
        Projection { progress, reader, stop, running }
    }

    async fn until(&mut self, what: &str, reached: impl FnMut(&Progress) -> bool) -> Progress {
        let waited = tokio::time::timeout(PATIENCE, self.progress.wait_for(reached)).await;
        let waited = waited.map(|reached| reached.map(|progress| progress.clone()));
        match waited {
            Ok(Ok(progress)) => progress,
            Ok(Err(_)) => panic!("the projection ended while waiting for it to be {what}"),
            Err(_) => panic!("waited in vain for the projection to be {what}: {:?}", *self.progress.borrow()),
        }
    }

    /// Waits until message `sequence` is folded and nothing is left.
    async fn until_folded(&mut self, sequence: u64) -> Progress {
        self.until("done", |progress| {
            progress.stream_sequence >= sequence && progress.lag_messages == Some(0)
        })
        .await
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(PATIENCE, self.running).await.expect("it ends");
        ended.expect("no panic").expect("no failure");
    }

    fn boot(&self, device: &str) -> BootAccount {
        let mut boots = self.reader.boots(&id(device)).expect("reads").expect("is known");
        assert_eq!(boots.len(), 1, "{boots:?}");
        boots.remove(0)
    }

    fn dead_letters(&self) -> Vec<DeadLetter> {
        self.reader.dead_letters(None, 1_000).expect("reads").dead_letters
    }
}

/// A gateway, as far as the log sees it: numbers uplinks of one device and publishes one segment after the other.
struct Gateway {
    context: async_nats::jetstream::Context,
    subject: String,
    device: Id,
    next: u64,
}

impl Gateway {
    async fn new(nats_url: &str, name: &str, device: &str) -> Gateway {
        let client = async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .connect(nats_url)
            .await
            .expect("connects in the background");
        let source = Source { site: id("plant"), gateway: id(name), lane: id("main") };
        let context = async_nats::jetstream::new(client);
        Gateway { context, subject: segments(&source).to_string(), device: id(device), next: 1 }
    }

    /// Publishes `count` uplinks of one event each, in one segment, compressed; its stream sequence.
    async fn send(&mut self, count: u32) -> u64 {
        let first = self.next;
        let mut bytes = Vec::new();
        write_head(&mut bytes, &Head { incarnation: 7, first, count: u64::from(count) });
        for number in (first..).take(count as usize) {
            let seq = u32::try_from(number).expect("few");
            write_entry(&mut bytes, &self.device, 1_800_000_000_000 + number, None, &uplink(seq));
        }
        self.next += u64::from(count);
        let compressed = zstd::bulk::compress(&bytes, 1).expect("compresses");
        self.publish(compressed, Some("zstd")).await
    }

    /// Publishes any bytes, until the server says that it has them.
    async fn publish(&self, payload: Vec<u8>, encoding: Option<&str>) -> u64 {
        let payload = Bytes::from(payload);
        let publish = async {
            loop {
                let mut headers = async_nats::HeaderMap::new();
                if let Some(encoding) = encoding {
                    headers.insert("Weir-Encoding", encoding);
                }
                let sent =
                    self.context.publish_with_headers(self.subject.clone(), headers, payload.clone()).await;
                if let Ok(sent) = sent
                    && let Ok(ack) = sent.await
                {
                    return ack.sequence;
                }
                // The stream is not there yet, or the server is away.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, publish).await.expect("the log takes a message")
    }
}

fn uplink(seq: u32) -> Vec<u8> {
    let mut body = [0; 64];
    let reading = Body::ReadingTaken { sensor: id("t"), value: Scalar::Int(i64::from(seq)), unit: None };
    let len = reading.write(&mut body).expect("fits");
    let event = Event { seq, at: u64::from(seq), kind: reading.kind(), version: 1, body: &body[..len] };
    let header = Header { boot: 1, now: Some(u64::from(seq)), epoch: None, via: None };
    let mut bytes = [0; 256];
    let len = uplink::write(&mut bytes, &header, [event].into_iter()).expect("fits");
    bytes[..len].to_vec()
}
