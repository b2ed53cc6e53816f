//! A store with a known content, a service that answers from it, and a client that asks.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_cloud::log::{Content, Opened};
use weir_cloud::store::Store;
use weir_cloud::{Config, Role, Running};
use weir_contract::body::{Body, Scalar};
use weir_contract::segment::{Head, write_entry, write_head};
use weir_contract::uplink::{self, Event, Header};
use weir_contract::{Id, Kind};

/// When the boots of the devices in these tests began: 2026-11-20T18:00:00Z.
pub const EPOCH: u64 = 1_795_197_600_000;

/// No answer takes longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn id(name: &str) -> Id {
    name.parse().expect("the test names it well")
}

/// An event as a device makes it: `at` milliseconds after its boot, its kind and its body's CBOR.
pub struct Fact {
    pub at: u64,
    pub kind: Kind,
    pub body: Vec<u8>,
}

pub fn fact(at: u64, body: &Body<'_>) -> Fact {
    let mut bytes = vec![0; 1_024];
    let len = body.write(&mut bytes).expect("the test's bodies are small");
    bytes.truncate(len);
    Fact { at, kind: body.kind(), body: bytes }
}

pub fn reading(at: u64, sensor: &str, value: f64) -> Fact {
    fact(
        at,
        &Body::ReadingTaken { sensor: id(sensor), value: Scalar::Float(value), unit: Some("Cel".into()) },
    )
}

pub fn started(at: u64, fw: &str) -> Fact {
    fact(at, &Body::DeviceStarted { fw: fw.into(), hw: "rev-b".into(), reason: "power-on".into() })
}

/// An event of a kind this version does not know, with any body.
pub fn other(at: u64, kind: &str, body: &ciborium::Value) -> Fact {
    let mut bytes = Vec::new();
    ciborium::into_writer(body, &mut bytes).expect("a vector takes everything");
    Fact { at, kind: kind.parse().expect("the test names it well"), body: bytes }
}

/// An uplink of consecutive events, the first numbered `first_seq`, of a boot that began at [`EPOCH`] plus `began`.
pub fn uplink(boot: u64, began: u64, first_seq: u32, facts: &[Fact]) -> Vec<u8> {
    let header = Header { boot, now: Some(3_600_000), epoch: Some(EPOCH + began), via: None };
    let events: Vec<Event<'_>> = (first_seq..)
        .zip(facts)
        .map(|(seq, fact)| Event { seq, at: fact.at, kind: fact.kind, version: 1, body: &fact.body })
        .collect();
    let mut bytes = vec![0; 64 * 1024];
    let len = uplink::write(&mut bytes, &header, events.into_iter()).expect("the test's uplinks are small");
    bytes.truncate(len);
    bytes
}

/// What gateway `gw-1` in `hall` sends.
pub struct Log {
    messages: Vec<Opened>,
    next_number: u64,
}

impl Log {
    pub fn new() -> Log {
        Log { messages: Vec::new(), next_number: 1 }
    }

    /// One segment.
    pub fn segment(&mut self, uplinks: &[(&str, Vec<u8>)]) {
        let mut plain = Vec::new();
        let count = uplinks.len().try_into().expect("few");
        write_head(&mut plain, &Head { incarnation: u64::MAX, first: self.next_number, count });
        for (device, payload) in uplinks {
            write_entry(&mut plain, &id(device), EPOCH + 3_600_000, None, payload);
        }
        self.next_number += count;
        self.message(plain);
    }

    /// A message with any bytes in it.
    pub fn message(&mut self, plain: Vec<u8>) {
        let sequence = u64::try_from(self.messages.len()).expect("few") + 1;
        self.messages.push(Opened {
            sequence,
            logged_ns: i64::try_from((EPOCH + 3_601_000) * 1_000_000).expect("not in the far future"),
            subject: "weir.1.segments.hall.gw-1.main".to_owned(),
            content: Content::Plain(plain.into()),
            pending: 0,
        });
    }
}

/// A service with role `serve` over a store that holds `log`.
pub struct Service {
    runtime: Runtime,
    running: Option<Running>,
    pub base: String,
    agent: ureq::Agent,
    /// Lives as long as the service.
    _folder: TempDir,
}

impl Service {
    pub fn with(log: &Log) -> Service {
        Service::with_limits(log, |_| {})
    }

    pub fn with_limits(log: &Log, limits: impl FnOnce(&mut Config)) -> Service {
        let folder = TempDir::new().expect("a temporary folder");
        let mut config = Config::default();
        config.store.path = folder.path().join("cloud.sqlite");
        config.api.address = "127.0.0.1:0".parse().expect("an address");
        limits(&mut config);
        config.check().expect("the test's limits are allowed");

        let mut store = Store::open(&config.store).expect("a new store");
        store.fold("WEIR", 1, &log.messages).expect("it can be written");
        drop(store);

        let runtime = Runtime::new().expect("a runtime");
        let running = runtime.block_on(weir_cloud::start(&config, Role::Serve)).expect("it starts");
        let base = format!("http://{}", running.addresses.api);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .new_agent();
        Service { runtime, running: Some(running), base, agent, _folder: folder }
    }

    /// Status and body of an answer.
    pub fn ask(&self, path: &str) -> (u16, String) {
        let mut answer = self.agent.get(format!("{}{path}", self.base)).call().expect(path);
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a body in UTF-8"))
    }

    /// The JSON of an answer that must be good.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Status, code and message of an answer that must be an error.
    pub fn refusal(&self, path: &str) -> (u16, String, String) {
        let (status, body) = self.ask(path);
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {status} {body}"));
        let text = |key: &str| answer["error"][key].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
        (status, text("code"), text("message"))
    }

    /// Drains the service, as SIGTERM does.
    pub fn shut_down(&mut self) {
        let running = self.running.take().expect("it is shut down once");
        self.runtime.block_on(running.shutdown()).expect("it ends well");
    }
}

/// `kiln-1` with two boots and a loss, `kiln-2` with a gap; a broken message; the gateway's own events.
pub fn two_kilns() -> Log {
    let mut log = Log::new();
    let kiln = [started(0, "1.4.0"), reading(1_000, "oven", 20.0), reading(2_000, "oven", 21.5)];
    let rebooted = [
        started(0, "1.5.0"),
        fact(
            500,
            &Body::EventsLost { device: None, boot: u64::MAX, from: 4, to: 6, reason: "outbox-full".into() },
        ),
        reading(1_000, "oven", 30.0),
        fact(1_500, &Body::LimitCrossed { sensor: id("oven"), value: 30.0, limit: 25.0, rising: true }),
    ];
    log.segment(&[("kiln-1", uplink(u64::MAX, 0, 1, &kiln))]);
    log.segment(&[
        ("kiln-1", uplink(7, 600_000, 1, &rebooted)),
        ("kiln-1", uplink(u64::MAX, 0, 1, &kiln)),
        ("kiln-2", uplink(1, 0, 3, &[reading(5_000, "oven", 1.0)])),
    ]);
    log.message(vec![0xff; 40]);
    let connected =
        fact(10, &Body::DeviceConnected { device: id("kiln-1"), address: "10.0.0.7:5123".into() });
    log.segment(&[("gw-1", uplink(9, 0, 1, &[connected]))]);
    log
}
