//! The daemon as its owner meets it: started, asked, told to stop, with a failing disk.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weir_contract::uplink::{self, Event, Header, Uplink};

use crate::nats::Nats;
use crate::wait::{SOON, until};

/// A running `weir-gateway`; killed when dropped.
pub struct Daemon {
    child: Child,
    folder: TempDir,
    pub mqtt: SocketAddr,
}

impl Daemon {
    pub async fn start(nats_url: &str, more: &str) -> Daemon {
        Daemon::start_in(tempfile::tempdir().expect("a temporary folder"), nats_url, more).await
    }

    pub async fn start_in(folder: TempDir, nats_url: &str, more: &str) -> Daemon {
        Daemon::start_under(folder, nats_url, more, |_| {}).await
    }

    /// With something different about the command.
    pub async fn start_under(
        folder: TempDir,
        nats_url: &str,
        more: &str,
        change: impl FnOnce(&mut Command),
    ) -> Daemon {
        configure(folder.path(), nats_url, more);
        let log = File::create(folder.path().join("log")).expect("a log file");
        let mut command = program(["run", "--config"], folder.path());
        change(&mut command);
        let child = command.stderr(log).spawn().expect("starting it");
        let mut daemon = Daemon { child, folder, mqtt: ([127, 0, 0, 1], 0).into() };
        until("the gateway has said where it listens", async || daemon.read_addresses()).await;
        daemon
    }

    fn read_addresses(&mut self) -> bool {
        assert!(self.child.try_wait().expect("asking for it").is_none(), "it has ended: {}", self.log());
        let said = std::fs::read(self.folder.path().join("spool/addresses.json")).ok();
        let said = said.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        if let Some(said) = &said {
            self.mqtt = said["mqtt"][0].as_str().expect("an address").parse().expect("an address");
        }
        said.is_some()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it, and keeps what it has on disk.
    pub fn into_folder(mut self) -> TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn metrics(&self) -> String {
        http(self, "/metrics")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What `weir-gateway COMMAND --config … ` prints.
    pub fn ask(&self, command: &str, more: &[&str]) -> Output {
        let mut ask = program([command, "--config"], self.folder.path());
        ask.args(more).output().expect("asking it")
    }

    pub fn ask_json(&self, command: &str) -> Value {
        let output = self.ask(command, &["--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// `kill -9`; what it had stored is in the folder.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().expect("killing it");
        self.child.wait().expect("its end");
        // Or the next one is taken to listen where this one did; who was told to stop has removed it.
        let _ = std::fs::remove_file(self.folder.path().join("spool/addresses.json"));
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// SIGTERM, then its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(told.success());
        self.ended().await
    }

    pub async fn ended(&mut self) -> ExitStatus {
        until("the gateway has ended", async || self.child.try_wait().expect("asking for it").is_some())
            .await;
        self.child.wait().expect("it has ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn program(words: [&str; 2], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-gateway"));
    command
        .args(words)
        .arg(config_file(folder))
        .env_remove("WEIR_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("gateway.toml")
}

fn configure(folder: &Path, nats_url: &str, more: &str) {
    let spool = folder.join("spool");
    let text = format!(
        r#"
        gateway = {{ site = "plant", id = "gw-1" }}
        mqtt.listener = [{{ address = "127.0.0.1:0" }}]
        spool.folder = {spool:?}
        uplink.servers = [{nats_url:?}]
        uplink.backoff_ms_max = 200
        uplink.drain_ms_max = 2000
        admin.address = "127.0.0.1:0"
        {more}
        "#
    );
    std::fs::write(config_file(folder), text).expect("writing the configuration");
}

/// A device that speaks just enough MQTT 3.1.1.
pub struct Device {
    name: &'static str,
    stream: TcpStream,
    sent: u32,
}

impl Device {
    pub fn connect(address: SocketAddr, name: &'static str) -> Device {
        let mut stream = TcpStream::connect(address).expect("connecting");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec();
        body.extend(text(name));
        stream.write_all(&packet(0x10, &body)).expect("sending CONNECT");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("a CONNACK");
        assert_eq!(answer, [0x20, 2, 0, 0]);
        Device { name, stream, sent: 0 }
    }

    /// The same boot on a new connection: its numbers go on.
    pub fn again(&self, address: SocketAddr) -> Device {
        Device { sent: self.sent, ..Device::connect(address, self.name) }
    }

    /// To say what else there is to say.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Publishes an uplink of one event; says whether it was acknowledged.
    pub fn publish(&mut self, body_len: usize) -> bool {
        self.give(body_len) && self.is_acknowledged(SOON)
    }

    /// Sends an uplink of one event; says whether the gateway took its bytes.
    pub fn give(&mut self, body_len: usize) -> bool {
        self.sent += 1;
        let mut body = vec![0xa1, 0x61, b'x', 0x5a];
        body.extend(u32::try_from(body_len).expect("short").to_be_bytes());
        body.resize(body.len() + body_len, 7);
        let kind = "noise-made".parse().expect("a kind");
        let event = Event { seq: self.sent, at: 5, kind, version: 1, body: &body };
        let mut payload = vec![0; body.len() + 200];
        let header = Header { boot: 1, now: Some(10), epoch: None, via: None };
        let len = uplink::write(&mut payload, &header, [event].into_iter()).expect("room");
        self.send(&payload[..len])
    }

    fn publish_bytes(&mut self, payload: &[u8]) -> bool {
        self.send(payload) && self.is_acknowledged(SOON)
    }

    fn send(&mut self, payload: &[u8]) -> bool {
        let mut body = text(&format!("weir/1/{}/events", self.name));
        body.extend([0, 1]);
        body.extend(payload);
        self.stream.write_all(&packet(0x32, &body)).is_ok()
    }

    /// Whether a PUBACK comes in time.
    pub fn is_acknowledged(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a time-out");
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).is_ok() && answer == [0x40, 2, 0, 1]
    }
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut len = body.len();
    loop {
        let digit = u8::try_from(len % 128).expect("below 128");
        len /= 128;
        packet.push(if len > 0 { digit | 128 } else { digit });
        if len == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub const NO_NATS: &str = "nats://127.0.0.1:1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_delivers_what_it_has_taken_and_ends_with_0() {
    let nats = Nats::start().await;
    let mut daemon = Daemon::start(&nats.url(), "").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..20).all(|_| device.publish(10)));
    let ended = daemon.terminate().await;
    assert!(ended.success(), "{ended}: {}", daemon.log());
    let segments = nats.segments().await;
    let payloads: Vec<_> = segments.iter().flat_map(|segment| &segment.payloads).collect();
    let events = payloads.iter().map(|payload| Uplink::read(payload).expect("an uplink"));
    let kinds: Vec<String> = events
        .flat_map(|uplink| uplink.events().map(|event| event.kind.to_string()).collect::<Vec<_>>())
        .collect();
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!((count("noise-made"), count("device-connected"), count("device-disconnected")), (20, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_without_a_cloud_it_keeps_what_it_has_taken_and_sends_it_after_the_next_start() {
    let mut daemon = Daemon::start(NO_NATS, "").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..20).all(|_| device.publish(10)));
    let ended = daemon.terminate().await;
    assert!(ended.success(), "{ended}: {}", daemon.log());

    let nats = Nats::start().await;
    let folder = std::mem::replace(&mut daemon.folder, tempfile::tempdir().expect("a temporary folder"));
    let daemon = Daemon::start_in(folder, &nats.url(), "").await;
    until("all is delivered", async || {
        let spool = &daemon.ask_json("status")["spool"];
        spool["waiting"] == 0 && spool["next"].as_u64() > Some(20)
    })
    .await;
    let payloads = nats.segments().await.into_iter().flat_map(|segment| segment.payloads);
    let from_device = payloads.filter(|payload| Uplink::read(payload).expect("an uplink").header.boot == 1);
    assert_eq!(from_device.count(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_waits_for_nothing_to_share_a_segment() {
    let nats = Nats::start().await;
    let mut daemon = Daemon::start(&nats.url(), "uplink.linger_ms = 60000").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!(device.publish(10));
    until("the first goes at once", async || !nats.segments().await.is_empty()).await;
    assert!(device.publish(10));
    let ended = daemon.terminate().await;
    assert!(ended.success() && daemon.log().contains("everything is in the stream"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_ends_it_with_1_and_a_clear_message() {
    let mut daemon = Daemon::start(NO_NATS, "spool.epoch_bytes = \"1 MiB\"").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!(device.publish(1_000));
    let epochs = daemon.folder.path().join("spool/epochs");
    // At once, whatever is being written there.
    std::fs::rename(&epochs, daemon.folder.path().join("elsewhere")).expect("moving the epochs");
    std::fs::write(&epochs, "no folder").expect("a file in their place");
    let refused = (0..200).find(|_| !device.publish(50_000));
    assert!(refused.is_some(), "acknowledged 10 MB without a place to put them");
    let ended = daemon.ended().await;
    assert_eq!(ended.code(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("the spool cannot be written"), "{}", daemon.log());
    assert!(daemon.log().contains(epochs.to_str().expect("UTF-8")), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_spool_is_told_so() {
    let daemon = Daemon::start(NO_NATS, "").await;
    let output = program(["run", "--config"], daemon.folder.path()).output().expect("starting a second one");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("is in use by"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_and_programs_are_told_how_it_does() {
    let nats = Nats::start().await;
    let daemon = Daemon::start(&nats.url(), "").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!(device.publish(10));
    assert!(device.publish_bytes(b"no uplink"), "MQTT 3.1.1 knows no refusal");
    until("all is delivered", async || {
        let status = daemon.ask_json("status");
        status["spool"]["waiting"] == 0 && status["spool"]["next"].as_u64() > Some(2)
    })
    .await;

    let status = daemon.ask_json("status");
    assert_eq!((status["gateway"].as_str(), status["custody"]["ok"].as_bool()), (Some("gw-1"), Some(true)));
    assert_eq!(status["uplink"]["state"], "up");
    let spool = daemon.ask_json("spool");
    assert_eq!(spool["next"], status["spool"]["next"]);
    assert_eq!(daemon.ask_json("refusals")["refusals"][0]["client"], "d-1");
    for (command, said) in
        [("status", "in the stream"), ("spool", "being written"), ("refusals", "weir/1/d-1/events")]
    {
        let output = daemon.ask(command, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(said), "{command}: {text}");
    }

    let metrics = http(&daemon, "/metrics");
    for line in [
        "weir_gateway_uplinks_taken_total ",
        "weir_gateway_uplink_state{state=\"up\"} 1",
        "weir_gateway_connections 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(http(&daemon, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(http(&daemon, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http(&daemon, "/nothing").starts_with("HTTP/1.1 404"));
}

pub fn http(daemon: &Daemon, path: &str) -> String {
    let said = std::fs::read(daemon.folder.path().join("spool/addresses.json")).expect("the addresses");
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    let mut stream = TcpStream::connect(said["admin"].as_str().expect("an address")).expect("connecting");
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").expect("asking");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// What the kernel counts, not what we believe to have written: an event is synced alone, so it costs a block at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_flash_wears_out_by_is_told_for_each_event() {
    const EVENTS: u64 = 50;
    const BLOCK: u64 = 4096;
    // Not where everything may be kept in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on disk");
    let daemon = Daemon::start_in(folder, NO_NATS, "spool.card_endurance = \"36 TiB\"").await;
    let before = daemon.ask_json("status")["wear"]["written_bytes"].as_u64().expect("the kernel counts");
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..EVENTS).all(|_| device.publish(100)));
    let status = daemon.ask_json("status");
    let wear = &status["wear"];
    let written = wear["written_bytes"].as_u64().expect("counted");
    assert!(written - before >= EVENTS * BLOCK, "{before} {wear}");
    let told = |key: &str| wear[key].as_f64().unwrap_or_default();
    // The gateway's own first events are among them.
    let events = written as f64 / told("bytes_per_event");
    assert!((50.0..60.0).contains(&events), "{events} {wear}");
    assert!(told("amplification") > 10.0, "{wear}");
    assert_eq!(wear["endurance_bytes"], 36_u64 << 40);
    assert_eq!(wear["lasts_days"], Value::Null, "nothing is known after a few seconds");
    let output = daemon.ask("status", &[]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("written to disk") && table.contains(" B for each event"), "{table}");
    let metrics = http(&daemon, "/metrics");
    for line in ["weir_gateway_disk_written_bytes_total ", "weir_gateway_disk_written_bytes_per_event "] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_without_the_device_knowing_is_told_to_its_owner() {
    let nats = Nats::start().await;
    let mut daemon = Daemon::start(&nats.url(), "").await;
    let mut device = Device::connect(daemon.mqtt, "d-1");
    assert!((0..1000).all(|_| device.publish_bytes(b"no uplink")), "MQTT 3.1.1 knows no refusal");
    let metrics = http(&daemon, "/metrics");
    let counted = "weir_gateway_uplinks_refused_total{reason=\"payload-format-invalid\"} 1000";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(daemon.terminate().await.success());
    let told = daemon.log().lines().filter(|line| line.contains("WARN") && line.contains("d-1")).count();
    assert_eq!(told, 1, "once a minute: {}", daemon.log());
    let segments = nats.segments().await;
    let payloads = segments.iter().flat_map(|segment| &segment.payloads);
    let events = payloads.map(|payload| Uplink::read(payload).expect("an uplink"));
    let told = events.flat_map(|uplink| {
        let refused = uplink.events().filter(|event| event.kind == "publishes-refused");
        refused.map(|event| event.body.to_vec()).collect::<Vec<_>>()
    });
    let told: Vec<Vec<u8>> = told.collect();
    let body = String::from_utf8_lossy(told.first().expect("it is in the log"));
    assert!(told.len() == 1 && body.contains("d-1") && body.contains("not an uplink"), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_publishes_as_the_gateway_itself() {
    let daemon = Daemon::start(NO_NATS, "").await;
    let mut device = Device::connect(daemon.mqtt, "gw-1");
    assert!(!device.publish(10));
    let refusals = daemon.ask_json("refusals");
    assert_eq!(refusals["refusals"][0]["topic"], "weir/1/gw-1/events", "{refusals}");
    assert_eq!(daemon.ask_json("status")["spool"]["next"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_running_is_said_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    configure(folder.path(), NO_NATS, "");
    let output = program(["status", "--config"], folder.path()).output().expect("asking");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("is the gateway running?"), "{said}");
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_and_what_is_allowed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    configure(folder.path(), NO_NATS, "uplink.zstd_level = 99");
    for command in ["check", "run"] {
        let output = program([command, "--config"], folder.path()).output().expect("running it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        for part in ["gateway.toml", "zstd_level = 99", "between 0 and 19"] {
            assert!(said.contains(part), "{command}: {said}");
        }
    }
    configure(folder.path(), NO_NATS, "");
    let output = program(["check", "--config"], folder.path()).output().expect("running it");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("gw-1"));
    assert!(!folder.path().join("spool").exists(), "to check is to touch nothing");
}

#[test]
fn limits_that_do_not_fit_the_machine_are_refused_with_the_key_and_what_is_allowed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cases = [
        ("spool.bytes_max = \"1000 TiB\"", "spool.bytes_max = 1000 TiB does not fit", "has room for"),
        (
            "mqtt.connections_max = 1000000",
            "mqtt.connections_max = 1000000 does not fit",
            "Allowed here: at most",
        ),
    ];
    for (wrong, key, allowed) in cases {
        configure(folder.path(), NO_NATS, wrong);
        for command in ["check", "run"] {
            let output = program([command, "--config"], folder.path()).output().expect("running it");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            for part in ["gateway.toml does not fit this machine", key, allowed] {
                assert!(said.contains(part), "{command}: {said}");
            }
        }
        assert!(!folder.path().join("spool").exists(), "nothing was made");
    }
}

#[test]
fn a_file_of_the_uplink_that_cannot_be_read_is_found_by_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    configure(folder.path(), NO_NATS, "uplink.credentials_file = \"/nowhere/gw.creds\"");
    let output = program(["check", "--config"], folder.path()).output().expect("running it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("uplink.credentials_file") && said.contains("/nowhere/gw.creds"), "{said}");
}

/// As when other files have filled the disk.
#[test]
fn a_spool_that_may_fill_its_disk_is_warned_about_in_the_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    configure(folder.path(), NO_NATS, "");
    std::fs::create_dir(folder.path().join("spool")).expect("a folder");
    std::fs::write(folder.path().join("spool/incarnation"), "it is not new").expect("a file");
    let text = std::fs::read_to_string(config_file(folder.path())).expect("it is there");
    // An address that is not this machine's, so it ends.
    let text = text.replace("admin.address = \"127.0.0.1:0\"", "admin.address = \"192.0.2.1:9880\"");
    std::fs::write(config_file(folder.path()), text + "spool.bytes_max = \"1000 TiB\"\n").expect("written");
    let output = program(["run", "--config"], folder.path()).output().expect("running it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("spool.bytes_max = 1000 TiB does not fit") && said.contains("WARN"), "{said}");
}

#[test]
fn to_check_a_configuration_shows_what_is_in_effect() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    configure(folder.path(), NO_NATS, "mqtt.inflight_max = 99");
    let text = std::fs::read_to_string(config_file(folder.path())).expect("it is there");
    let text = text.replace("id = \"gw-1\"", "id = \"gw-1\", profile = \"pi-zero-2\"");
    std::fs::write(config_file(folder.path()), text).expect("written");
    let output = program(["check", "--config"], folder.path()).output().expect("running it");
    let said = String::from_utf8_lossy(&output.stdout);
    for part in [
        "gateway.toml is right",
        "connections_max = 250",
        "inflight_max = 99",
        "bytes_max = \"1 GiB\"",
        "of memory",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_for_programs_are_json() {
    let mut daemon = Daemon::start(NO_NATS, "log.format = \"json\"").await;
    daemon.terminate().await;
    let log = daemon.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().any(|line| line["gateway"] == "gw-1"), "{log}");
}
