//! The uplink against a real nats-server: every promise it makes, and everything that can go wrong on the way.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::DiscardPolicy;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use weir_contract::subject::{STREAM, Source};
use weir_contract::uplink::Uplink as ReadUplink;
use weir_gateway::clock::Clock;
use weir_gateway::custody::{Committer, Custody, Full, Waiter};
use weir_gateway::intake::SeqRun;
use weir_gateway::uplink::pacing::Kind;
use weir_gateway::uplink::{self, Config, State, Status, Uplink};
use weir_gateway::{journal, spool};

use crate::nats::{A_WHILE, Nats, Stored};
use crate::proxy::Proxy;
use crate::wait::{SOON, until};

const SUBJECT: &str = "weir.1.segments.plant.gw-1.main";

/// Custody, journal and uplink of a gateway, without its listeners.
struct Gateway {
    custody: Custody,
    committer: Committer,
    uplink: Uplink,
    journal: journal::Sender,
    journal_stop: oneshot::Sender<()>,
    journal_task: tokio::task::JoinHandle<()>,
    waiter: Arc<Waiter>,
}

fn config(url: &str) -> Config {
    Config {
        servers: vec![url.to_owned()],
        ack_timeout_ms: 1_000,
        connect_timeout_ms: 1_000,
        backoff_ms: 20,
        backoff_ms_max: 200,
        ..Config::default()
    }
}

fn spool_config(folder: &Path) -> spool::Config {
    spool::Config::new(folder.join("spool"))
}

fn source() -> Source {
    let id = |text: &str| text.parse().expect("a name");
    Source { site: id("plant"), gateway: id("gw-1"), lane: id("main") }
}

impl Gateway {
    fn start(folder: &Path, config: Config) -> Gateway {
        Gateway::start_with(&spool_config(folder), config)
    }

    fn start_with(spool: &spool::Config, config: Config) -> Gateway {
        let clock = Clock::manual(1_700_000_000_000);
        let (custody, committer) = Custody::start(spool, clock.unix_ms()).expect("opening the spool");
        let (journal, entries) = journal::channel();
        let (journal_stop, stop) = oneshot::channel();
        let source = source();
        let journal_task =
            tokio::spawn(journal::run(entries, source.gateway, custody.clone(), clock.clone(), stop));
        let uplink = uplink::start(config, &source, Arc::clone(custody.spool()), journal.clone(), clock);
        let waiter = Waiter::new();
        Gateway { custody, committer, uplink, journal, journal_stop, journal_task, waiter }
    }

    /// Takes uplink `number` of a device; says so when it is on disk.
    async fn take(&self, number: u32) {
        self.take_bytes(number, payload(number).as_bytes()).await;
    }

    async fn take_bytes(&self, number: u32, payload: &[u8]) {
        let device = "d-1".parse().expect("a name");
        let run = SeqRun { boot: 1, first: number, last: number };
        let ticket = loop {
            let offered = self.custody.gather().offer(&device, 1, None, payload, run, &self.waiter);
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

    async fn take_all(&self, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            self.take(number).await;
        }
    }

    fn status(&self) -> Status {
        self.uplink.status().borrow().clone()
    }

    /// Waits until everything that is on disk is in the stream.
    async fn all_delivered(&self) {
        let next = self.custody.spool().next_number();
        assert!(self.uplink.drain(next, SOON).await, "not delivered below {next}: {:?}", self.status());
    }

    async fn until_trouble(&self, kind: Kind) -> Status {
        let mut status = self.uplink.status();
        let told =
            status.wait_for(|status| status.trouble.as_ref().is_some_and(|trouble| trouble.kind == kind));
        let told = timeout(SOON, told).await.map(|told| told.expect("the uplink runs").clone());
        told.unwrap_or_else(|_| panic!("waited for trouble {kind:?}, but: {:?}", self.status()))
    }

    /// As a power cut would: the uplink ends wherever it is.
    async fn stop(self) {
        drop(self.uplink);
        drop(self.journal);
        drop(self.journal_stop);
        self.journal_task.await.expect("the journal ends");
        drop(self.custody);
        let committer = self.committer;
        tokio::task::spawn_blocking(|| committer.stop()).await.expect("it stops").expect("the disk works");
    }
}

fn payload(number: u32) -> String {
    format!("uplink {number} {}", ".".repeat(usize::try_from(number % 50).expect("small")))
}

/// The numbers of the device's uplinks in the stream, as [`payload`] wrote them.
fn numbers(segments: &[Stored]) -> Vec<u32> {
    let payloads = segments.iter().flat_map(|segment| &segment.payloads);
    payloads
        .filter_map(|payload| std::str::from_utf8(payload).ok()?.split(' ').nth(1)?.parse().ok())
        .collect()
}

/// Custody numbers follow one another, whatever they are of.
fn assert_consecutive(segments: &[Stored]) {
    let mut next: HashMap<(&str, u64), u64> = HashMap::new();
    for segment in segments {
        let expected = next.entry((&segment.subject, segment.head.incarnation)).or_insert(segment.head.first);
        assert_eq!(segment.head.first, *expected, "at stream sequence {}", segment.sequence);
        *expected = segment.head.end();
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_arrives_in_order_and_once() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=300).await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=300).collect::<Vec<_>>());
    assert_consecutive(&segments);
    assert!(segments.iter().all(|segment| segment.subject == SUBJECT));
    let status = gateway.status();
    assert_eq!((status.state, status.uplinks, status.gone), (State::Up, 300, 0));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_is_merged_into_full_segments() {
    let mut nats = Nats::start().await;
    nats.kill();
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    for number in 1..=1_000 {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(1_000)).as_bytes()).await;
    }
    nats.start_again().await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=1_000).collect::<Vec<_>>());
    assert!(segments.len() <= 10, "1 MB went in {} segments", segments.len());
    gateway.stop().await;
}

/// Kills and restarts both ends while uplinks keep coming.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_nats_and_the_gateway_are_killed_again_and_again() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // An acknowledgement of nats-server does not mean that it has synced, but a killed process loses nothing it has written.
    let mut nats = Nats::start().await;
    let folder = folder();
    let mut gateway = Gateway::start(folder.path(), config(&nats.url()));
    let mut taken = 0;
    for _ in 0..12 {
        let more = random.u32(1..200);
        let kill_at = random.u32(0..more);
        for number in 1..=more {
            gateway.take(taken + number).await;
            if number == kill_at {
                match random.u8(..3) {
                    0 => nats.kill(),
                    1 => {
                        gateway.stop().await;
                        gateway = Gateway::start(folder.path(), config(&nats.url()));
                    }
                    _ => sleep(Duration::from_millis(random.u64(..50))).await,
                }
            }
        }
        taken += more;
        if nats.is_stopped() {
            nats.start_again().await;
        }
    }
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_consecutive(&segments);
    assert_eq!(numbers(&segments), (1..=taken).collect::<Vec<_>>());
    assert_eq!(gateway.status().gone, 0);
    gateway.stop().await;
}

/// The segment arrives, its acknowledgement does not; and no deduplication window is there to help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_doubles_nothing_long_after_any_duplicate_window() {
    let nats = Nats::start().await;
    let stream = nats.make_stream(|config| config.duplicate_window = Duration::from_millis(100)).await;
    let proxy = Proxy::start(nats.port()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&proxy.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;

    proxy.pass_answers(false);
    gateway.take(2).await;
    until("the segment has arrived", async || {
        stream.get_info().await.expect("its state").state.messages == 2
    })
    .await;
    assert_eq!(gateway.status().delivered, 2, "nobody has said so yet");
    gateway.stop().await;
    sleep(Duration::from_millis(300)).await;

    proxy.pass_answers(true);
    let gateway = Gateway::start(folder.path(), config(&proxy.url()));
    gateway.take(3).await;
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), [1, 2, 3]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_swallows_answers_is_given_up_and_made_anew() {
    let nats = Nats::start().await;
    let proxy = Proxy::start(nats.port()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&proxy.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;
    proxy.pass_answers(false);
    gateway.take_all(2..=20).await;
    gateway.until_trouble(Kind::TimedOut).await;
    proxy.pass_answers(true);
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=20).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_without_nats_from_the_first_start_and_says_why_nothing_is_delivered() {
    let mut nats = Nats::start().await;
    nats.kill();
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=10).await;
    let status = gateway.until_trouble(Kind::Unreachable).await;
    assert_eq!(status.state, State::Down);
    assert!(status.trouble.expect("trouble").text.contains("refused"));
    nats.start_again().await;
    gateway.all_delivered().await;
    assert_eq!(gateway.status().trouble, None);
    assert_eq!(numbers(&nats.segments().await), (1..=10).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_cannot_be_resolved_is_said() {
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config("nats://no-such-host.invalid:4222"));
    let status = gateway.until_trouble(Kind::Unreachable).await;
    assert!(status.trouble.expect("trouble").text.contains("no-such-host.invalid"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_under_the_same_name_is_found_out() {
    let nats = Nats::start().await;
    let (one, two) = (folder(), folder());
    let first = Gateway::start(one.path(), config(&nats.url()));
    first.take_all(1..=5).await;
    first.all_delivered().await;
    let second = Gateway::start(two.path(), config(&nats.url()));
    second.take_all(101..=105).await;
    second.all_delivered().await;

    // A replaced machine looks the same, so the newer one goes on; the older one stops and says so.
    first.take_all(6..=9).await;
    let status = first.until_trouble(Kind::Conflict).await;
    assert_eq!((status.state, status.delivered), (State::Conflict, 6));
    sleep(A_WHILE).await;
    assert_eq!(numbers(&nats.segments().await), (1..=5).chain(101..=105).collect::<Vec<_>>());
    assert_eq!(second.status().state, State::Up);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_spool_is_found_out_and_nothing_of_it_is_taken_for_delivered() {
    let nats = Nats::start().await;
    let (one, two) = (folder(), folder());
    let original = Gateway::start(one.path(), config(&nats.url()));
    original.take_all(1..=5).await;
    original.all_delivered().await;
    original.stop().await;
    crate::nats::copy(&one.path().join("spool"), &two.path().join("spool"));

    let original = Gateway::start(one.path(), config(&nats.url()));
    original.take_all(6..=9).await;
    original.all_delivered().await;
    let copy = Gateway::start(two.path(), config(&nats.url()));
    copy.take_all(1_006..=1_012).await;
    let status = copy.until_trouble(Kind::Conflict).await;
    assert_eq!(status.delivered, 6);
    assert_eq!(numbers(&nats.segments().await), (1..=9).collect::<Vec<_>>());
    original.stop().await;
    copy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_restored_from_an_older_copy_gets_again_what_it_lost() {
    let mut nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=20).await;
    gateway.all_delivered().await;
    nats.kill();
    let backup = nats.back_up();
    nats.start_again().await;
    gateway.take_all(21..=40).await;
    gateway.all_delivered().await;
    nats.kill();
    nats.restore(&backup);
    gateway.take_all(41..=50).await;
    nats.start_again().await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=50).collect::<Vec<_>>());
    assert_consecutive(&segments);
    assert_eq!(gateway.status().gone, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_made_anew_and_gets_everything_that_is_kept() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=20).await;
    gateway.all_delivered().await;
    nats.jetstream().await.delete_stream(STREAM).await.expect("deleting the stream");
    gateway.take(21).await;
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=21).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_neither_the_stream_nor_the_spool_has_any_more_is_told() {
    let nats = Nats::start().await;
    let folder = folder();
    let mut spool = spool_config(folder.path());
    spool.epoch_bytes = 1024 * 1024;
    spool.keep_delivered_bytes = 0;
    let gateway = Gateway::start_with(&spool, config(&nats.url()));
    for number in 1..=60 {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(50_000)).as_bytes()).await;
    }
    gateway.all_delivered().await;
    until("delivered epochs are gone", async || gateway.custody.spool().oldest_number() > 1).await;
    let oldest = gateway.custody.spool().oldest_number();
    nats.jetstream().await.delete_stream(STREAM).await.expect("deleting the stream");
    gateway.take(61).await;
    until("the gap has been told", async || gateway.status().gone > 0).await;
    gateway.all_delivered().await;
    assert_eq!(gateway.status().gone, oldest - 1);

    let segments = nats.segments().await;
    assert_consecutive(&segments);
    let first = u32::try_from(oldest).expect("small");
    assert_eq!(numbers(&segments), (first..=61).collect::<Vec<_>>());
    until("the gateway's own event is in the stream", async || {
        let segments = nats.segments().await;
        let payloads = segments.iter().flat_map(|segment| &segment.payloads);
        payloads
            .filter_map(|payload| ReadUplink::read(payload).ok())
            .any(|uplink| uplink.events().any(|event| event.kind == "uplinks-gone"))
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_by_retention_is_not_taken_for_loss() {
    let nats = Nats::start().await;
    let stream = nats
        .make_stream(|config| {
            config.max_age = Duration::from_millis(300);
            config.duplicate_window = Duration::from_millis(100);
        })
        .await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=20).await;
    gateway.all_delivered().await;
    let segments = gateway.status().segments;
    until("the stream is empty", async || stream.get_info().await.expect("its state").state.messages == 0)
        .await;
    // In the same connection, and after a restart.
    gateway.take(21).await;
    gateway.all_delivered().await;
    assert_eq!((gateway.status().segments, gateway.status().gone), (segments + 1, 0));
    until("the stream is empty", async || stream.get_info().await.expect("its state").state.messages == 0)
        .await;
    gateway.stop().await;
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take(22).await;
    gateway.all_delivered().await;
    assert_eq!((gateway.status().uplinks, gateway.status().gone), (1, 0));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_said_and_nothing_is_taken_for_delivered() {
    let nats = Nats::start().await;
    let stream = nats
        .make_stream(|config| {
            config.max_messages = 1;
            config.discard = DiscardPolicy::New;
        })
        .await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;
    gateway.take_all(2..=5).await;
    let status = gateway.until_trouble(Kind::Full).await;
    assert_eq!((status.state, status.delivered), (State::Down, 2));

    let mut roomy = stream.get_info().await.expect("its configuration").config;
    roomy.max_messages = -1;
    nats.jetstream().await.update_stream(roomy).await.expect("changing the stream");
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=5).collect::<Vec<_>>());
    gateway.stop().await;
}

const TWO_USERS: &str = r#"
    accounts {
        APP {
            jetstream: enabled
            users: [
                { user: all, password: all }
                { user: narrow, password: narrow, permissions: { publish: ["$JS.API.>"], subscribe: ["_INBOX.>"] } }
            ]
        }
    }
    no_auth_user: all
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_said_with_the_servers_words() {
    let nats = Nats::start_with(TWO_USERS).await;
    let folder = folder();
    let url = format!("nats://narrow:narrow@127.0.0.1:{}", nats.port());
    let gateway = Gateway::start(folder.path(), config(&url));
    gateway.take(1).await;
    let status = gateway.until_trouble(Kind::Denied).await;
    assert_eq!(status.delivered, 1);
    assert!(status.trouble.expect("trouble").text.contains(SUBJECT));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said() {
    let nats = Nats::start_with(TWO_USERS).await;
    let folder = folder();
    let url = format!("nats://narrow:wrong@127.0.0.1:{}", nats.port());
    let gateway = Gateway::start(folder.path(), config(&url));
    gateway.until_trouble(Kind::Denied).await;
    gateway.stop().await;
}

/// Certificates for a server and a gateway, each of an authority of its own, as PEM files.
struct Papers {
    folder: TempDir,
}

impl Papers {
    fn new() -> Papers {
        let papers = Papers { folder: folder() };
        for (authority, name) in [("servers", "localhost"), ("clients", "gw-1")] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new([]).expect("no names");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).expect("an authority");
            papers.write(&format!("{authority}-ca.pem"), &certificate.pem());
            let issuer = rcgen::Issuer::new(params, key);
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
            papers.write(
                &format!("{name}.pem"),
                &params.signed_by(&key, &issuer).expect("a certificate").pem(),
            );
            papers.write(&format!("{name}.key"), &key.serialize_pem());
        }
        papers
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("writing a file");
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_speaks_tls_shows_its_certificate_and_believes_only_the_right_server() {
    let papers = Papers::new();
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        papers.file("localhost.pem"),
        papers.file("localhost.key"),
        papers.file("clients-ca.pem")
    );
    let nats = Nats::start_with(&tls).await;
    let url = format!("tls://localhost:{}", nats.port());
    let with = |ca: &str, own: bool| {
        let own = |name: &str| own.then(|| papers.file(name));
        let tls =
            uplink::Tls { ca: Some(papers.file(ca)), certificate: own("gw-1.pem"), key: own("gw-1.key") };
        Config { tls: Some(tls), ..config(&url) }
    };
    let folder = folder();
    let gateway = Gateway::start(folder.path(), with("servers-ca.pem", true));
    gateway.take_all(1..=10).await;
    gateway.all_delivered().await;
    gateway.stop().await;

    for (wrong, says) in
        [(with("clients-ca.pem", true), "certificate"), (with("servers-ca.pem", false), "connect")]
    {
        let gateway = Gateway::start(folder.path(), wrong);
        gateway.take(11).await;
        let status = gateway.until_trouble(Kind::Unreachable).await;
        assert!(status.trouble.as_ref().expect("trouble").text.contains(says), "{status:?}");
        assert_eq!(status.delivered, 11);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_stream_is_said_where_it_may_not_be_made() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { create_stream: false, ..config(&nats.url()) });
    gateway.take(1).await;
    gateway.until_trouble(Kind::NoStream).await;
    nats.make_stream(|_| ()).await;
    gateway.all_delivered().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_is_said() {
    let nats =
        Nats::start_with("accounts { APP { users: [{ user: a, password: a }] } }\nno_auth_user: a").await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.until_trouble(Kind::NoStream).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_fit_what_the_server_takes() {
    let nats = Nats::start_with("max_payload: 16384").await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { zstd_level: 0, ..config(&nats.url()) });
    for number in 1..=100 {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(3_000)).as_bytes()).await;
    }
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=100).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_uplink_is_not_held_back_by_lingering_and_a_busy_row_is() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { linger_ms: 500, ..config(&nats.url()) });
    gateway.take_all(1..=1).await;
    timeout(Duration::from_millis(400), gateway.all_delivered()).await.expect("the first goes at once");
    gateway.take_all(2..=50).await;
    gateway.all_delivered().await;
    assert!(gateway.status().segments <= 3, "{:?}", gateway.status());
    assert_eq!(numbers(&nats.segments().await), (1..=50).collect::<Vec<_>>());
    gateway.stop().await;
}

/// A lot at once, taken from several tasks, while the uplink runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_many_arrives_whole() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Arc::new(Gateway::start(folder.path(), config(&nats.url())));
    let next = Arc::new(AtomicU32::new(1));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (gateway, next) = (Arc::clone(&gateway), Arc::clone(&next));
            tokio::spawn(async move {
                let waiter = Waiter::new();
                let device = "d-1".parse().expect("a name");
                for _ in 0..500 {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let run = SeqRun { boot: u64::from(number), first: 1, last: 1 };
                    let payload = payload(number);
                    loop {
                        let offered = gateway.custody.gather().offer(
                            &device,
                            1,
                            None,
                            payload.as_bytes(),
                            run,
                            &waiter,
                        );
                        match offered {
                            Ok(_) => break,
                            Err(_) => gateway.custody.room().await.expect("custody works"),
                        }
                    }
                    if number % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    until("all is on disk", async || gateway.custody.spool().next_number() == 10_001).await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_consecutive(&segments);
    let mut numbers = numbers(&segments);
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10_000).collect::<Vec<_>>());
    let Ok(gateway) = Arc::try_unwrap(gateway) else { panic!("all tasks have ended") };
    gateway.stop().await;
}
