//! A real nats-server with JetStream in a folder of its own. Stopped and started again it has the same port and store.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Runtime;
use weir_contract::subject;

use crate::process::Process;
use crate::programs;
use crate::tls::Paper;
use crate::wait::eventually;

const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Messages read within one deadline.
const MESSAGES_AT_ONCE: usize = 500;

/// What is not the same for every server.
#[derive(Default)]
pub struct NatsConfig {
    /// Let only clients in whose certificate this authority signed; shows this certificate itself.
    pub tls: Option<Paper>,
    /// With `tls`: a client is the user its certificate names; `more` says what users may do.
    pub map_certificates: bool,
    /// JetStream's domain, if it is to have one.
    pub domain: Option<String>,
    /// More lines for the configuration file.
    pub more: String,
}

/// A nats-server process.
pub struct Nats {
    name: String,
    folder: PathBuf,
    config: NatsConfig,
    port: Option<u16>,
    monitor_port: Option<u16>,
    process: Option<Process>,
}

impl Nats {
    /// Starts one with its files in `folder`.
    pub fn start(name: &str, folder: &Path, config: NatsConfig) -> Result<Nats> {
        let nats = Nats::launch(name, folder, config)?;
        nats.await_healthy()?;
        Ok(nats)
    }

    /// The same, not yet healthy: one of a cluster is not before the others are there.
    pub fn launch(name: &str, folder: &Path, config: NatsConfig) -> Result<Nats> {
        std::fs::create_dir_all(folder)?;
        let (name, folder) = (name.to_owned(), folder.to_owned());
        let mut nats = Nats { name, folder, config, port: None, monitor_port: None, process: None };
        nats.launch_again()?;
        Ok(nats)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill9`](Self::kill9).
    pub fn start_again(&mut self) -> Result<()> {
        self.launch_again()?;
        self.await_healthy()
    }

    /// The same, not yet healthy.
    pub fn launch_again(&mut self) -> Result<()> {
        let file = self.folder.join("nats.conf");
        std::fs::write(&file, self.config_text()?)?;
        let log = self.folder.with_extension("log");
        let mut process = Process::start(&self.name, &programs::nats_server()?, &["-c", text(&file)?], &log)?;
        let ports = self.folder.join(format!("nats-server_{}.ports", process.id()));
        let found = process.until(START_WITHIN, "nats-server to listen", || {
            Ok(std::fs::read(&ports)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()))
        })?;
        self.port = Some(port_of(&found["nats"][0])?);
        self.monitor_port = Some(port_of(&found["monitoring"][0])?);
        self.process = Some(process);
        Ok(())
    }

    /// JetStream recovers its streams before it says that it is healthy.
    pub fn await_healthy(&self) -> Result<()> {
        eventually(START_WITHIN, "nats-server to be healthy", || {
            Ok(self.monitor("/healthz").ok().filter(|health| health["status"] == "ok"))
        })?;
        Ok(())
    }

    /// SIGTERM; everything it has is on disk afterwards.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate(STOP_WITHIN)?;
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill9()?;
        }
        Ok(())
    }

    /// Has it read other last lines of its configuration, and lets it apply them, while it runs. Its ports must be
    /// settled: it must have been started a second time.
    pub fn reload(&mut self, more: &str) -> Result<()> {
        more.clone_into(&mut self.config.more);
        std::fs::write(self.folder.join("nats.conf"), self.config_text()?)?;
        let loaded = |nats: &Nats| Ok::<_, anyhow::Error>(nats.monitor("/varz")?["config_load_time"].clone());
        let before = loaded(self)?;
        self.process()?.hang_up()?;
        eventually(START_WITHIN, "nats-server to have read its configuration", || {
            Ok((loaded(self)? != before).then_some(()))
        })
    }

    /// Takes away everything it stored, as a lost disk would. It must not be running.
    pub fn forget_everything(&self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is running", self.name);
        std::fs::remove_dir_all(self.store())?;
        Ok(())
    }

    /// Copies everything it has stored, as a backup would. It must not be running.
    pub fn back_up(&self) -> Result<Backup> {
        ensure!(self.process.is_none(), "{} is running", self.name);
        let to = self.folder.join(format!("backup-{}", fastrand::u32(..)));
        copy_folder(&self.store(), &to)?;
        Ok(Backup(to))
    }

    /// Puts a backup in the place of everything it has stored. It must not be running.
    pub fn restore(&self, backup: &Backup) -> Result<()> {
        self.forget_everything()?;
        copy_folder(&backup.0, &self.store())
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.name))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is meant to be running.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// `nats://127.0.0.1:PORT` (`tls://` with TLS); the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.config.tls.is_some() { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.port.unwrap_or_default())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port.unwrap_or_default()).into()
    }

    /// What the server says of itself: `/varz`, `/jsz`, `/connz` …
    pub fn monitor(&self, path: &str) -> Result<serde_json::Value> {
        crate::http::get(&format!("http://127.0.0.1:{}{path}", self.monitor_port.unwrap_or_default()))
    }

    /// Publishes one message to JetStream and waits for its acknowledgement; its sequence in the stream.
    pub fn publish(&self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<u64> {
        let (subject, payload) = (subject.to_owned(), bytes::Bytes::copy_from_slice(payload));
        let mut map = async_nats::HeaderMap::new();
        for &(name, value) in headers {
            map.insert(name, value);
        }
        wait(async {
            let log = self.jetstream().await?;
            Ok(log.publish_with_headers(subject, map, payload).await?.await?.sequence)
        })
    }

    /// How the stream of segments is: messages, bytes, sequences.
    pub fn stream(&self) -> Result<async_nats::jetstream::stream::State> {
        wait(async {
            let log = self.jetstream().await?;
            let mut stream = log.get_stream(subject::STREAM).await?;
            Ok(stream.info().await?.state.clone())
        })
    }

    /// Creates the stream of segments before any part of Weir does, with a duplicate window so short
    /// that nothing can lean on it.
    pub fn create_stream(&self, duplicate_window: Duration) -> Result<()> {
        self.create(async_nats::jetstream::stream::Config {
            name: subject::STREAM.to_owned(),
            subjects: vec![subject::STREAM_SUBJECTS.to_owned()],
            duplicate_window,
            allow_direct: true,
            ..Default::default()
        })
    }

    /// From now on the stream of segments takes no message more than it has; or as many as come.
    pub fn fill(&self, full: bool) -> Result<()> {
        wait(async {
            let log = self.jetstream().await?;
            let mut stream = log.get_stream(subject::STREAM).await?;
            let info = stream.info().await?;
            let messages = i64::try_from(info.state.messages.max(1))?;
            let max_messages = if full { messages } else { -1 };
            log.update_stream(async_nats::jetstream::stream::Config { max_messages, ..info.config.clone() })
                .await?;
            Ok(())
        })
    }

    /// Takes one message out of the stream of segments, without its sender knowing.
    pub fn lose(&self, sequence: u64) -> Result<()> {
        wait(async {
            self.jetstream().await?.get_stream(subject::STREAM).await?.delete_message(sequence).await?;
            Ok(())
        })
    }

    /// Creates any stream.
    pub fn create(&self, config: async_nats::jetstream::stream::Config) -> Result<()> {
        wait(async {
            self.jetstream().await?.create_stream(config).await?;
            Ok(())
        })
    }

    /// Changes the stream of segments.
    pub fn change_stream(
        &self,
        change: impl FnOnce(&mut async_nats::jetstream::stream::Config),
    ) -> Result<()> {
        wait(async {
            let log = self.jetstream().await?;
            let mut config = log.get_stream(subject::STREAM).await?.cached_info().config.clone();
            change(&mut config);
            log.update_stream(config).await?;
            Ok(())
        })
    }

    /// Deletes one message of the stream of segments.
    pub fn delete(&self, sequence: u64) -> Result<()> {
        wait(async {
            self.jetstream().await?.get_stream(subject::STREAM).await?.delete_message(sequence).await?;
            Ok(())
        })
    }

    /// The name of the server that leads the stream of segments; empty if none does.
    pub fn stream_leader(&self) -> Result<String> {
        wait(async {
            let stream = self.jetstream().await?.get_stream(subject::STREAM).await?;
            let cluster = stream.cached_info().cluster.clone();
            Ok(cluster.and_then(|cluster| cluster.leader).unwrap_or_default())
        })
    }

    /// On how many servers the stream of segments is.
    pub fn replicas(&self) -> Result<usize> {
        wait(async {
            let stream = self.jetstream().await?.get_stream(subject::STREAM).await?;
            Ok(stream.cached_info().config.num_replicas)
        })
    }

    /// The subject and payload of every message of the stream of segments, in order.
    pub fn messages(&self) -> Result<Vec<async_nats::jetstream::message::StreamMessage>> {
        let state = self.stream()?;
        let mut messages = Vec::new();
        // However many there are, each answer has its own deadline.
        let sequences: Vec<u64> = (state.first_sequence..=state.last_sequence).collect();
        for part in sequences.chunks(MESSAGES_AT_ONCE) {
            messages.extend(wait(async {
                let stream = self.jetstream().await?.get_stream(subject::STREAM).await?;
                let mut messages = Vec::new();
                for &sequence in part {
                    messages.push(stream.get_raw_message(sequence).await?);
                }
                Ok(messages)
            })?);
        }
        Ok(messages)
    }

    async fn jetstream(&self) -> Result<async_nats::jetstream::Context> {
        if self.config.tls.is_some() {
            bail!("the tests talk to a nats-server with TLS only through Weir");
        }
        Ok(async_nats::jetstream::new(async_nats::connect(self.url()).await?))
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn config_text(&self) -> Result<String> {
        let store = self.store();
        let mut config = format!(
            "server_name: {:?}\nhost: 127.0.0.1\nport: {}\nhttp: \"127.0.0.1:{}\"\nports_file_dir: {:?}\n\
             max_payload: 1MB\njetstream {{ store_dir: {:?}, max_mem: 64MB, max_file: 60GB{} }}\n",
            self.name,
            self.port.map_or_else(|| "-1".to_owned(), |port| port.to_string()),
            self.monitor_port.map_or_else(|| "-1".to_owned(), |port| port.to_string()),
            text(&self.folder)?,
            text(&store)?,
            self.config.domain.as_ref().map_or_else(String::new, |domain| format!(", domain: {domain}")),
        );
        if let Some(paper) = &self.config.tls {
            writeln!(
                config,
                "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, {}: true }}",
                text(&paper.certificate)?,
                text(&paper.key)?,
                text(&paper.authority)?,
                if self.config.map_certificates { "verify_and_map" } else { "verify" },
            )?;
        }
        config.push_str(&self.config.more);
        Ok(config)
    }
}

/// What a nats-server had stored at some time.
pub struct Backup(PathBuf);

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Runs NATS client work to its end, with a deadline.
fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime of one thread can be had")
    });
    RUNTIME.block_on(async { tokio::time::timeout(ANSWER_WITHIN, work).await })?
}

fn port_of(url: &serde_json::Value) -> Result<u16> {
    let url = url.as_str().unwrap_or_default();
    let port = url.rsplit(':').next().unwrap_or_default().trim_end_matches('/');
    port.parse().with_context(|| format!("no port in {url:?}"))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "weir.1.segments.lab.gw-1.main";

    #[test]
    fn stopped_or_killed_and_started_again_it_has_its_port_and_store() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut nats = Nats::start("nats", &folder.path().join("nats"), NatsConfig::default())?;
        nats.create_stream(Duration::from_secs(1))?;
        let url = nats.url();
        assert_eq!(nats.publish(SUBJECT, &[], b"one")?, 1);
        nats.stop()?;
        let backup = nats.back_up()?;
        nats.start_again()?;
        assert_eq!(nats.publish(SUBJECT, &[], b"two")?, 2);
        nats.kill9()?;
        nats.start_again()?;
        assert_eq!(nats.stream()?.messages, 2);
        assert_eq!(nats.url(), url);
        nats.stop()?;
        nats.restore(&backup)?;
        nats.start_again()?;
        assert_eq!(nats.messages()?.len(), 1);
        Ok(())
    }
}
