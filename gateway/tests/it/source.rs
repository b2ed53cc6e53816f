//! Events from somebody else's broker: a real Mosquitto, restarted, and the gateway's own process, killed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_contract::body::{Body, Scalar};
use weir_contract::uplink::{self, Event, Header, Uplink};

use crate::mosquitto::{Mosquitto, Publisher};
use crate::nats::Nats;
use crate::process::{Daemon, NO_NATS, http};
use crate::wait::{SOON, until};

/// `x/DEVICE` with `{"n": NUMBER}`, and our own devices.
fn source(broker: &Mosquitto, more: &str) -> String {
    format!(
        r#"
        [[source.mqtt]]
        name = "house"
        broker = "{}"
        backoff_ms_max = 200
        presets = ["weir"]
        {more}
        [[source.mqtt.rule]]
        topic = "x/{{device}}"
        reading = [{{ sensor = "n", path = "/n", as = "number" }}, {{ sensor = "text", path = "/text" }}]
        "#,
        broker.url()
    )
}

/// A reading as the stream has it.
#[derive(Debug, PartialEq)]
struct Stored {
    boot: u64,
    seq: u32,
    n: i64,
    /// Whether it says that the broker had sent it before.
    again: bool,
}

/// Readings of the sensor `n`, in the order of the stream.
async fn stored(nats: &Nats) -> Vec<Stored> {
    let mut all = Vec::new();
    for payload in nats.segments().await.iter().flat_map(|segment| &segment.payloads) {
        let uplink = Uplink::read(payload).expect("an uplink");
        for event in uplink.events() {
            let body =
                Body::read(&event.kind, event.version, event.body).expect("a body as the contract has it");
            if let Some(Body::ReadingTaken { value: Scalar::Int(n), .. }) = body {
                let again = event.body.ends_with(b"\x65again\xf5");
                all.push(Stored { boot: uplink.header.boot, seq: event.seq, n, again });
            }
        }
    }
    all
}

fn house(daemon: &Daemon) -> Value {
    daemon.ask_json("status")["sources"][0].clone()
}

async fn connected(daemon: &Daemon) {
    until("it is connected and has subscribed", async || house(daemon)["state"] == "connected").await;
}

/// So many readings of the sensor `n`, or more.
async fn in_the_stream(nats: &Nats, count: usize) -> Vec<Stored> {
    until("they are in the stream", async || stored(nats).await.len() >= count).await;
    stored(nats).await
}

fn number(n: i64) -> Vec<u8> {
    json!({ "n": n }).to_string().into_bytes()
}

/// Publishes for as long as it lives, whatever happens to the broker; knows what that has acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<i64>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: std::net::SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let (stopped, known) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let mut publisher = None;
            for n in 1_i64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if publisher.is_none() {
                    publisher = Publisher::try_connect(address);
                }
                let Some(connected) = &mut publisher else {
                    std::thread::yield_now();
                    continue;
                };
                if connected.publish(&format!("x/d{}", n % 5), &number(n), false) {
                    known.lock().unwrap().insert(n);
                } else {
                    publisher = None;
                }
            }
        });
        Load { stop, acknowledged, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn more(&self, count: usize) {
        let before = self.count();
        until("more is published", async || self.count() >= before + count).await;
    }

    fn end(mut self) -> BTreeSet<i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.acknowledged.lock().unwrap().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_acknowledged_is_in_the_stream_whoever_is_killed_or_restarted() {
    for version in ["3.1.1", "5"] {
        let nats = Nats::start().await;
        let mut broker = Mosquitto::start().await;
        let config = source(&broker, &format!("version = \"{version}\""));
        let mut daemon = Daemon::start(&nats.url(), &config).await;
        connected(&daemon).await;
        let load = Load::start(broker.address());
        for _ in 0..3 {
            load.more(300).await;
            daemon = Daemon::start_in(daemon.kill(), &nats.url(), &config).await;
            load.more(300).await;
            broker.terminate();
            broker.start_again().await;
        }
        load.more(300).await;
        let acknowledged = load.end();
        let mut found = stored(&nats).await;
        let deadline = Instant::now() + SOON;
        loop {
            let numbers: BTreeSet<i64> = found.iter().map(|stored| stored.n).collect();
            let missing: Vec<&i64> = acknowledged.difference(&numbers).collect();
            if missing.is_empty() {
                break;
            }
            let late = Instant::now() >= deadline;
            assert!(
                !late,
                "{} missing, {:?} …; {}\n{}",
                missing.len(),
                missing[0],
                house(&daemon),
                daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
            found = stored(&nats).await;
        }
        assert_eq!(house(&daemon)["sessions_lost"], 0);
        // What is there twice came again, and says so; and no number was given twice or left out.
        let mut times: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
        let mut boots: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for stored in &found {
            let (all, marked) = times.entry(stored.n).or_default();
            (*all, *marked) = (*all + 1, *marked + usize::from(stored.again));
            assert!(
                boots.entry(stored.boot).or_default().insert(stored.seq),
                "{stored:?} has another's number"
            );
        }
        assert!(times.values().all(|(all, marked)| *all <= marked + 1), "doubled and not marked");
        for (boot, seqs) in boots {
            assert_eq!(seqs.last().map(|last| *last as usize), Some(seqs.len()), "boot {boot} has holes");
        }
        let doubled = found.len() - times.len();
        eprintln!(
            "MQTT {version}: {} acknowledged, {} in the stream, {doubled} of them twice, each marked",
            acknowledged.len(),
            times.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_to_a_broker_before_it_is_on_disk() {
    let nats = Nats::start().await;
    let broker = Mosquitto::start().await;
    let config = source(&broker, "");
    let slow = format!("spool.commit_delay_ms = 10000\n{config}");
    let daemon = Daemon::start(&nats.url(), &slow).await;
    connected(&daemon).await;
    let mut publisher = Publisher::connect(broker.address());
    assert!((1..=10).all(|n| publisher.publish("x/d", &number(n), false)));
    until("all are taken", async || house(&daemon)["messages"] == 10).await;
    let folder = daemon.kill();
    assert!(stored(&nats).await.is_empty(), "the test is too slow: the commit was there before");
    let daemon = Daemon::start_in(folder, &nats.url(), &config).await;
    until("the broker has sent them again", async || house(&daemon)["messages"] == 10).await;
    let numbers: Vec<i64> = in_the_stream(&nats, 10).await.iter().map(|stored| stored.n).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_and_comes_again_is_not_stored_twice() {
    let nats = Nats::start().await;
    let mut broker = Mosquitto::start().await;
    let slow = format!("spool.commit_delay_ms = 8000\n{}", source(&broker, ""));
    let daemon = Daemon::start(&nats.url(), &slow).await;
    connected(&daemon).await;
    let mut publisher = Publisher::connect(broker.address());
    // The same value each time: only the broker can know that they are ten.
    assert!((1..=10).all(|_| publisher.publish("x/d", &number(7), false)));
    until("all are taken", async || house(&daemon)["messages"] == 10).await;
    broker.terminate();
    broker.start_again().await;
    until("all have come again", async || house(&daemon)["known_again"] == 10).await;
    let found = in_the_stream(&nats, 10).await;
    assert_eq!(
        found.iter().map(|stored| (stored.seq, stored.again)).collect::<Vec<_>>(),
        (1..=10).map(|seq| (seq, false)).collect::<Vec<_>>()
    );
    assert_eq!(house(&daemon)["marked_again"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_leaves_messages_with_the_broker() {
    let nats = Nats::start().await;
    let broker = Mosquitto::start().await;
    let config = source(&broker, "");
    let full = format!("spool.free_min = \"1000 TiB\"\n{config}");
    let folder = {
        // The session is made first: what is published before that is nobody's.
        let daemon = Daemon::start(&nats.url(), &config).await;
        connected(&daemon).await;
        daemon.kill()
    };
    let mut publisher = Publisher::connect(broker.address());
    assert!((1..=200).all(|n| publisher.publish("x/d", &number(n), false)));
    let daemon = Daemon::start_in(folder, &nats.url(), &full).await;
    until("it is held back", async || house(&daemon)["state"] == "held-back").await;
    assert_eq!(house(&daemon)["messages"], 0);
    let shown = daemon.ask("status", &[]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("the spool is full"), "{shown:?}");
    let daemon = Daemon::start_in(daemon.kill(), &nats.url(), &config).await;
    until("the broker has given all", async || house(&daemon)["messages"] == 200).await;
    let numbers: BTreeSet<i64> = in_the_stream(&nats, 200).await.iter().map(|stored| stored.n).collect();
    assert_eq!(numbers, (1..=200).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_forgets_is_told_also_when_the_gateway_was_away() {
    let mut broker = Mosquitto::stopped("persistence false\nallow_anonymous true");
    broker.start_again().await;
    let config = source(&broker, "");
    let daemon = Daemon::start(NO_NATS, &config).await;
    connected(&daemon).await;
    assert_eq!(house(&daemon)["sessions_lost"], 0, "nobody knows us at first");
    broker.terminate();
    broker.start_again().await;
    until("it is told", async || house(&daemon)["sessions_lost"] == 1).await;
    let folder = daemon.kill();
    broker.terminate();
    broker.start_again().await;
    let daemon = Daemon::start_in(folder, NO_NATS, &config).await;
    until("it is told", async || house(&daemon)["sessions_lost"] == 1).await;
    assert!(daemon.log().contains("has forgotten our session"), "{}", daemon.log());
    assert!(
        http(&daemon, "/metrics").contains("weir_gateway_source_sessions_lost_total{source=\"house\"} 1")
    );
}

fn uplink_of_two() -> Vec<u8> {
    let mut payload = vec![0; 200];
    let kind = "noise-made".parse().expect("a kind");
    let event = |seq| Event { seq, at: 5, kind, version: 1, body: &[0xa0] };
    let header = Header { boot: 77, now: Some(10), epoch: None, via: None };
    let len = uplink::write(&mut payload, &header, [event(1), event(2)].into_iter()).expect("room");
    payload.truncate(len);
    payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_counted_and_told_and_stops_nothing() {
    let nats = Nats::start().await;
    let broker = Mosquitto::start().await;
    let mut publisher = Publisher::connect(broker.address());
    assert!(publisher.publish("x/old", &number(-1), true), "retained before anybody asked");
    let config = source(&broker, "payload_bytes_max = \"10 KiB\"");
    let daemon = Daemon::start(&nats.url(), &config).await;
    connected(&daemon).await;
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(20_000));
    let not_understood: [(&str, &[u8]); 6] = [
        ("x/d", b"no JSON"),
        ("x/d", b"{\"other\": 1}"),
        ("x/d", b"\xff\xfe\x00"),
        ("x/d", long.as_bytes()),
        ("x/gw-1", b"{\"n\": 1}"),
        ("weir/1/d-9/events", b"no uplink"),
    ];
    for (topic, payload) in not_understood {
        assert!(publisher.publish(topic, payload, false));
    }
    let uplink = uplink_of_two();
    assert!((0..3).all(|_| publisher.publish("weir/1/d-9/events", &uplink, false)));
    assert!(publisher.publish("x/d", &number(5), false));
    until("all have come", async || house(&daemon)["messages"].as_u64() >= Some(11)).await;
    assert_eq!(in_the_stream(&nats, 1).await.iter().map(|stored| stored.n).collect::<Vec<_>>(), [5]);
    let payloads: Vec<_> = nats.segments().await.into_iter().flat_map(|segment| segment.payloads).collect();
    assert_eq!(payloads.iter().filter(|payload| **payload == uplink).count(), 1, "as it is, and once");
    let status = house(&daemon);
    assert_eq!(
        (&status["not_understood"], &status["uplinks"], &status["readings"]),
        (&json!(6), &json!(3), &json!(1))
    );
    let metrics = http(&daemon, "/metrics");
    for (reason, count) in
        [("not-json", 2), ("no-reading", 1), ("too-long", 1), ("gateways-own", 1), ("not-an-uplink", 1)]
    {
        let line = format!(
            "weir_gateway_source_not_understood_total{{source=\"house\",reason=\"{reason}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    assert!(metrics.contains("weir_gateway_source_retained_total{source=\"house\"} 1"), "{metrics}");
    let refusals = daemon.ask_json("refusals");
    assert_eq!(refusals["refusals"][0]["client"], "source house", "{refusals}");
    let told = daemon.log().lines().filter(|line| line.contains("not understood")).count();
    assert_eq!(told, 1, "once a minute: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_believed_by_its_certificate_and_told_our_password() {
    let nats = Nats::start().await;
    let mut broker = Mosquitto::stopped("");
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = broker.folder().to_owned();
    let file = |name: &str| folder.join(name);
    std::fs::write(file("cert.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    std::fs::write(file("password"), "se cret\nand a remark\n").unwrap();
    let made = Command::new("mosquitto_passwd")
        .arg("-b")
        .arg("-c")
        .arg(file("passwords"))
        .args(["weir", "se cret"])
        .status();
    assert!(made.expect("mosquitto_passwd comes with mosquitto: make setup").success());
    let [cert, key, passwords] =
        ["cert.pem", "key.pem", "passwords"].map(|name| file(name).display().to_string());
    broker.set_more(&format!(
        "certfile {cert}\nkeyfile {key}\nallow_anonymous false\npassword_file {passwords}\npersistence true"
    ));
    broker.start_again().await;
    let port = broker.address().port();
    let config = |user: &str, version: &str, ca: &str| {
        format!(
            "[source.mqtt]\nbroker = \"mqtts://localhost:{port}\"\nversion = \"{version}\"\nuser = \"{user}\"\n\
             password_file = {:?}\n{ca}\nbackoff_ms_max = 100\npresets = [\"zigbee2mqtt\"]\n",
            file("password")
        )
    };
    let ca = format!("tls.ca = {cert:?}");
    for version in ["3.1.1", "5"] {
        let daemon = Daemon::start(&nats.url(), &config("weir", version, &ca)).await;
        connected(&daemon).await;
        let wrong = Daemon::start(&nats.url(), &config("somebody", version, &ca)).await;
        until("why not is told", async || {
            house(&wrong)["trouble"].as_str().is_some_and(|why| why.contains("uthor"))
        })
        .await;
        assert_eq!(house(&wrong)["state"], "connecting");
    }
    // Its own signature is nobody's word.
    let stranger = Daemon::start(&nats.url(), &config("weir", "5", "")).await;
    until("why not is told", async || {
        house(&stranger)["trouble"].as_str().is_some_and(|why| why.contains("ertificate"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_acknowledges_what_it_has_taken() {
    let nats = Nats::start().await;
    let broker = Mosquitto::start().await;
    let config = source(&broker, "");
    let mut daemon = Daemon::start(&nats.url(), &format!("spool.commit_delay_ms = 500\n{config}")).await;
    connected(&daemon).await;
    let mut publisher = Publisher::connect(broker.address());
    assert!((1..=10).all(|n| publisher.publish("x/d", &number(n), false)));
    until("all are taken", async || house(&daemon)["messages"] == 10).await;
    let begun = Instant::now();
    assert!(daemon.terminate().await.success(), "{}", daemon.log());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let daemon = Daemon::start_in(daemon.kill(), &nats.url(), &config).await;
    connected(&daemon).await;
    assert!(publisher.publish("x/d", &number(11), false));
    until("the next has come", async || house(&daemon)["messages"] == 1).await;
    let numbers: Vec<i64> = in_the_stream(&nats, 11).await.iter().map(|stored| stored.n).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<_>>(), "each once");
}

#[test]
fn rules_can_be_tried_on_samples() {
    let folder = tempfile::tempdir().unwrap();
    let map = |arguments: &[&str], input: &str| {
        use std::io::Write;
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-gateway"));
        command.arg("map").args(arguments).current_dir(folder.path());
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may need none.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let sample = r#"zigbee2mqtt/living room {"temperature":21.57,"pressure":1013.2}"#;
    let (code, said, _) =
        map(&["--preset", "zigbee2mqtt", "--try", r#"zigbee2mqtt/kitchen {"temperature":21.57}"#], "");
    assert_eq!(code, Some(0));
    for part in ["device kitchen, by zigbee2mqtt/{device}", "temperature  21.57  Cel"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let lines = "tele/p/LWT Online\ntele/p/SENSOR {\"ENERGY\":{\"Power\":7}}\n\ntele/p/SENSOR broken\n";
    let (code, said, _) = map(&["--preset", "tasmota", "--try", "-", "--json"], lines);
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, answers.len()), (Some(1), 3), "one is not understood: {said}");
    assert_eq!(answers[1]["readings"][0], json!({"sensor": "power", "value": 7, "unit": "W"}));
    assert_eq!(answers[2]["problems"][0]["reason"], "not-json");
    std::fs::write(folder.path().join("samples"), &lines[..40]).unwrap();
    assert_eq!(map(&["--preset", "tasmota", "--try", "@samples"], "").0, Some(1), "the second is cut");
    let (code, said, _) = map(&["--show", "weir"], "");
    assert!(code == Some(0) && said.contains("take = \"uplinks\""), "{said}");
    let (code, _, said) = map(&["--preset", "zigbee", "--try", sample], "");
    assert!(code == Some(2) && said.contains("zigbee2mqtt, tasmota"), "{said}");

    let broker = "[[source.mqtt]]\nbroker = \"mqtt://b\"\npresets = [\"zigbee2mqtt\"]\nnames = { \"living room\" = \"lounge\" }\n";
    let config = format!("[gateway]\nsite = \"s\"\nid = \"g\"\n[spool]\nfolder = \"f\"\n{broker}");
    std::fs::write(folder.path().join("g.toml"), &config).unwrap();
    // A topic has no blank in `mosquitto_sub -v`, which prints one between; with JSON it can be told where it ends.
    let (code, said, errors) = map(&["--config", "g.toml", "--try", sample], "");
    assert!(code == Some(0) && said.contains("device lounge"), "{said}{errors}");
    std::fs::write(
        folder.path().join("g.toml"),
        config.replace("topic", "x").replace("\"zigbee2mqtt\"", "\"zigbe\""),
    )
    .unwrap();
    let (code, _, said) = map(&["--config", "g.toml", "--try", sample], "");
    assert!(code == Some(1) && said.contains("line 8") && said.contains("`zigbee2mqtt`"), "{said}");
}
