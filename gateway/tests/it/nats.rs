//! A real nats-server with JetStream, in a folder of its own. Started again it has the same port and store.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, Stream};
use tempfile::TempDir;
use weir_contract::segment::{Head, Segment};
use weir_contract::subject::{HEADER_ENCODING, STREAM, STREAM_SUBJECTS};
use weir_gateway::uplink::segment::decode;

use crate::wait::until;

/// A server; killed when dropped.
pub struct Nats {
    folder: TempDir,
    more: String,
    port: Option<u16>,
    process: Option<Child>,
}

/// A segment as the stream has it.
pub struct Stored {
    pub sequence: u64,
    pub subject: String,
    pub head: Head,
    /// Payloads of its uplinks.
    pub payloads: Vec<Vec<u8>>,
}

impl Nats {
    pub async fn start() -> Nats {
        Nats::start_with("").await
    }

    /// With more lines in its configuration.
    pub async fn start_with(more: &str) -> Nats {
        let mut nats = Nats::stopped(more);
        nats.start_again().await;
        nats
    }

    /// Not running yet.
    pub fn stopped(more: &str) -> Nats {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Nats { folder, more: more.to_owned(), port: None, process: None }
    }

    /// Other lines for its configuration, from the next start on.
    pub fn set_more(&mut self, more: &str) {
        more.clone_into(&mut self.more);
    }

    /// Other lines for its configuration, from now on; until the next start.
    pub fn reload(&self, more: &str) {
        self.write_config(more);
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let told = Command::new("kill").args(["-HUP", &id]).status().expect("kill can be run");
        assert!(told.success());
    }

    fn write_config(&self, more: &str) -> PathBuf {
        let config = self.folder.path().join("nats.conf");
        let port = self.port.map_or(-1, i32::from);
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nports_file_dir: {:?}\njetstream {{ store_dir: {:?} }}\n{}\n",
            self.folder.path(),
            self.store(),
            more
        );
        std::fs::write(&config, text).expect("writing the configuration");
        config
    }

    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is running");
        let config = self.write_config(&self.more);
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log file");
        let child = Command::new(program())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .spawn()
            .expect("starting nats-server");
        let ports = self.folder.path().join(format!("nats-server_{}.ports", child.id()));
        self.process = Some(child);
        until("nats-server listens", async || self.read_port(&ports)).await;
    }

    fn read_port(&mut self, file: &Path) -> bool {
        let ended = self.process.as_mut().and_then(|child| child.try_wait().expect("asking for the process"));
        assert!(ended.is_none(), "nats-server has ended:\n{}", self.log());
        let ports =
            std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        let url = ports.as_ref().and_then(|ports| ports["nats"][0].as_str());
        let port = url.and_then(|url| url.rsplit(':').next()?.parse().ok());
        self.port = port.or(self.port);
        port.is_some()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("killing nats-server");
            process.wait().expect("waiting for nats-server");
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.process.is_none()
    }

    /// Copies everything it has stored. It must not be running.
    pub fn back_up(&self) -> TempDir {
        assert!(self.process.is_none());
        let backup = tempfile::tempdir().expect("a temporary folder");
        copy(&self.store(), backup.path());
        backup
    }

    /// Puts a copy in the place of everything it has stored. It must not be running.
    pub fn restore(&self, backup: &TempDir) {
        assert!(self.process.is_none());
        std::fs::remove_dir_all(self.store()).expect("removing the store");
        copy(backup.path(), &self.store());
    }

    /// After a first start: where it listens, or will.
    pub fn port(&self) -> u16 {
        self.port.expect("it was never started")
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.url()).await.expect("connecting to nats-server"))
    }

    /// Makes the stream, with what a test needs to be different.
    pub async fn make_stream(&self, change: impl FnOnce(&mut Config)) -> Stream {
        let mut config = Config {
            name: STREAM.to_owned(),
            subjects: vec![STREAM_SUBJECTS.to_owned()],
            ..Config::default()
        };
        change(&mut config);
        self.jetstream().await.create_stream(config).await.expect("making the stream")
    }

    /// The gateway may have made it already.
    pub async fn make_stream_if_absent(&self) {
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![STREAM_SUBJECTS.to_owned()],
            ..Config::default()
        };
        let jetstream = self.jetstream().await;
        if jetstream.create_stream(config).await.is_err() {
            // A gateway makes it as well, with settings of its own, and was first.
            jetstream.get_stream(STREAM).await.expect("the stream");
        }
    }

    /// Every segment of the stream, in order.
    pub async fn segments(&self) -> Vec<Stored> {
        let stream = self.jetstream().await.get_stream(STREAM).await.expect("the stream");
        let state = stream.get_info().await.expect("its state").state;
        let mut segments = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let compressed = message.headers.get(HEADER_ENCODING).is_some();
            let raw = decode(&message.payload, compressed).expect("a readable message");
            let segment = Segment::read(&raw).expect("a segment");
            segments.push(Stored {
                sequence,
                subject: message.subject.to_string(),
                head: segment.head,
                payloads: segment.entries().map(|entry| entry.payload.into_owned()).collect(),
            });
        }
        segments
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `$NATS_SERVER`, else the project's own, else the one on PATH.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("NATS_SERVER") {
        return named.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let own = root.join(".tools/bin/nats-server");
    if own.exists() { own } else { "nats-server".into() }
}

/// Copies a folder and what is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("making a folder");
    for entry in std::fs::read_dir(from).expect("reading a folder") {
        let entry = entry.expect("reading a folder");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copying a file");
        }
    }
}

/// How long a test lets things happen that must not happen.
pub const A_WHILE: Duration = Duration::from_millis(500);
