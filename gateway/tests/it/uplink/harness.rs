//! A gateway's custody, journal and uplink, without its listeners.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use weir_contract::subject::Source;
use weir_gateway::clock::Clock;
use weir_gateway::custody::{Committer, Custody, Full, Waiter};
use weir_gateway::intake::SeqRun;
use weir_gateway::uplink::pacing::Kind;
use weir_gateway::uplink::{self, Config, Status, Uplink};
use weir_gateway::{journal, spool};

use crate::nats::Stored;
use crate::wait::{SOON, until};

/// Custody, journal and uplink of a gateway, without its listeners.
pub struct Gateway {
    pub custody: Custody,
    pub committer: Committer,
    pub uplink: Uplink,
    pub journal: journal::Sender,
    pub journal_stop: mpsc::Sender<journal::Flush>,
    pub journal_task: tokio::task::JoinHandle<()>,
    pub waiter: Arc<Waiter>,
}

pub fn config(url: &str) -> Config {
    Config {
        servers: vec![url.to_owned()],
        ack_timeout_ms: 1_000,
        connect_timeout_ms: 1_000,
        backoff_ms: 20,
        backoff_ms_max: 200,
        ..Config::default()
    }
}

pub fn spool_config(folder: &Path) -> spool::Config {
    spool::Config::new(folder.join("spool"))
}

pub fn source() -> Source {
    let id = |text: &str| text.parse().expect("a name");
    Source { site: id("plant"), gateway: id("gw-1"), lane: id("main") }
}

impl Gateway {
    pub fn start(folder: &Path, config: Config) -> Gateway {
        Gateway::start_with(&spool_config(folder), config)
    }

    pub fn start_with(spool: &spool::Config, config: Config) -> Gateway {
        let clock = Clock::manual(1_700_000_000_000);
        let (custody, committer) = Custody::start(spool, clock.unix_ms()).expect("opening the spool");
        let (journal, entries) = journal::channel();
        let (journal_stop, stop) = mpsc::channel(1);
        let source = source();
        let journal_task =
            tokio::spawn(journal::run(entries, source.gateway, custody.clone(), clock.clone(), stop));
        let uplink = uplink::start(config, &source, Arc::clone(custody.spool()), journal.clone(), clock);
        let waiter = Waiter::new();
        Gateway { custody, committer, uplink, journal, journal_stop, journal_task, waiter }
    }

    /// One that has taken and delivered 60 uplinks in several epochs, of which only the one being written is kept.
    pub async fn with_60_delivered_and_the_oldest_gone(folder: &Path, config: Config) -> Gateway {
        let mut spool = spool_config(folder);
        spool.epoch_bytes = 1024 * 1024;
        spool.keep_delivered_bytes = 0;
        let gateway = Gateway::start_with(&spool, config);
        for number in 1..=60 {
            gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(50_000)).as_bytes()).await;
        }
        gateway.all_delivered().await;
        let only_one_stays = async || gateway.custody.spool().status().epochs.len() == 1;
        until("delivered epochs are gone", only_one_stays).await;
        assert!(gateway.custody.spool().oldest_number() > 1);
        gateway
    }

    /// Takes uplink `number` of a device; says so when it is on disk.
    pub async fn take(&self, number: u32) {
        self.take_bytes(number, payload(number).as_bytes()).await;
    }

    pub async fn take_bytes(&self, number: u32, payload: &[u8]) {
        self.offer(number, 1, payload).await;
    }

    /// As if it had been taken at this time.
    pub async fn take_at(&self, number: u32, unix_ms: u64) {
        self.offer(number, unix_ms, payload(number).as_bytes()).await;
    }

    async fn offer(&self, number: u32, received_ms: u64, payload: &[u8]) {
        let device = "d-1".parse().expect("a name");
        let run = SeqRun { boot: 1, first: number, last: number };
        let ticket = loop {
            let offered = self.custody.gather().offer(&device, received_ms, None, payload, run, &self.waiter);
            match offered {
                Ok(ticket) => break ticket,
                Err(Full::Closed) => panic!("custody is closed: {:?}", self.custody.failed()),
                Err(_) => self.custody.room().await.expect("custody works"),
            }
        };
        while self.custody.stored() < ticket {
            self.waiter.notified().await;
            assert!(self.custody.failed().is_none());
        }
    }

    pub async fn take_all(&self, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            self.take(number).await;
        }
    }

    pub fn status(&self) -> Status {
        self.uplink.status().borrow().clone()
    }

    /// Waits until everything that is on disk is in the stream.
    pub async fn all_delivered(&self) {
        let next = self.custody.spool().next_number();
        assert!(self.uplink.drain(next, SOON).await, "not delivered below {next}: {:?}", self.status());
    }

    pub async fn until_trouble(&self, kind: Kind) -> Status {
        let mut status = self.uplink.status();
        let told =
            status.wait_for(|status| status.trouble.as_ref().is_some_and(|trouble| trouble.kind == kind));
        let told = timeout(SOON, told).await.map(|told| told.expect("the uplink runs").clone());
        told.unwrap_or_else(|_| panic!("waited for trouble {kind:?}, but: {:?}", self.status()))
    }

    /// As a power cut would: the uplink ends wherever it is.
    pub async fn stop(self) {
        let spool = Arc::downgrade(self.custody.spool());
        drop(self.uplink);
        drop(self.journal);
        drop(self.journal_stop);
        self.journal_task.await.expect("the journal ends");
        drop(self.custody);
        let committer = self.committer;
        tokio::task::spawn_blocking(|| committer.stop()).await.expect("it stops").expect("the disk works");
        // A reading of the disk that the uplink had begun goes on to its end, and holds the folder until then.
        until("the spool is let go", async || spool.strong_count() == 0).await;
    }
}

pub fn payload(number: u32) -> String {
    format!("uplink {number} {}", ".".repeat(usize::try_from(number % 50).expect("small")))
}

/// The numbers of the device's uplinks in the stream, as [`payload`] wrote them.
pub fn numbers(segments: &[Stored]) -> Vec<u32> {
    let payloads = segments.iter().flat_map(|segment| &segment.payloads);
    payloads
        .filter_map(|payload| std::str::from_utf8(payload).ok()?.split(' ').nth(1)?.parse().ok())
        .collect()
}

/// Custody numbers follow one another, whatever they are of.
pub fn assert_consecutive(segments: &[Stored]) {
    let mut next: HashMap<(&str, u64), u64> = HashMap::new();
    for segment in segments {
        let expected = next.entry((&segment.subject, segment.head.incarnation)).or_insert(segment.head.first);
        assert_eq!(segment.head.first, *expected, "at stream sequence {}", segment.sequence);
        *expected = segment.head.end();
    }
}

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}
