//! A `weir-cloud all` process. Killed or stopped and started again it has the same address and store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use toml::Table;

use crate::process::{self, Finished, Process};
use crate::wait::eventually;
use crate::{http, programs};

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const PAGE: usize = 1000;

/// A cloud and its files.
pub struct Cloud {
    folder: PathBuf,
    config: Table,
    process: Option<Process>,
    api: Option<SocketAddr>,
}

impl Cloud {
    /// What it is configured with, its files in `folder`, before a test changes it.
    pub fn config(folder: &Path, nats_url: &str) -> Result<Table> {
        let store = folder.join("weir.db");
        let text = format!(
            r#"
            [nats]
            servers = [{nats_url:?}]
            [stream]
            [store]
            path = {store:?}
            [api]
            address = "127.0.0.1:0"
            commands = true
            "#
        );
        Ok(text.parse()?)
    }

    /// Starts one with its files in `folder`.
    pub fn start(folder: &Path, config: Table) -> Result<Cloud> {
        std::fs::create_dir_all(folder)?;
        let mut cloud = Cloud { folder: folder.to_owned(), config, process: None, api: None };
        cloud.start_again()?;
        Ok(cloud)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill9`](Self::kill9).
    pub fn start_again(&mut self) -> Result<()> {
        let file = self.folder.join("cloud.toml");
        std::fs::write(&file, toml::to_string(&self.config)?)?;
        let said = PathBuf::from(format!("{}.addresses.json", self.store()?.display()));
        let _ = std::fs::remove_file(&said);
        let arguments = ["all", "--config", file.to_str().context("a folder that is not UTF-8")?];
        let log = self.folder.with_extension("log");
        let mut process = Process::start("cloud", &programs::ours("weir-cloud")?, &arguments, &log)?;
        let addresses: Addresses = process.until(START_WITHIN, "the cloud to listen", || {
            Ok(std::fs::read(&said).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        })?;
        self.process = Some(process);
        let api = self.config["api"].as_table_mut().context("[api] is a table")?;
        api.insert("address".into(), addresses.api.to_string().into());
        self.api = Some(addresses.api);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("the cloud is not running")?.kill9()
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the cloud is not running")?.terminate(STOP_WITHIN)
    }

    /// Takes away everything it stored: all views have to be made again from the log. It must not be running.
    pub fn forget_everything(&self) -> Result<()> {
        ensure!(self.process.is_none(), "the cloud is running");
        let store = self.store()?;
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", store.display()));
        }
        ensure!(!store.exists(), "{} is still there", store.display());
        Ok(())
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the cloud is not running")
    }

    /// Whether it is meant to be running.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> Result<String> {
        Ok(format!("http://{}", self.api.context("never started")?))
    }

    /// An answer of the API; `path` as `/v1/devices`.
    pub fn get(&self, path: &str) -> Result<Value> {
        http::get(&format!("{}{path}", self.url()?))
    }

    /// The status and body of an answer, whatever they are.
    pub fn get_any(&self, path: &str) -> Result<(u16, String)> {
        http::get_any(&format!("{}{path}", self.url()?))
    }

    /// Every event of a device, page by page, the oldest first.
    pub fn events(&self, device: &str) -> Result<Vec<Value>> {
        self.all(&format!("/v1/devices/{device}/events?order=asc&limit={PAGE}"), "events", "after")
    }

    /// Every dead letter.
    pub fn dead_letters(&self) -> Result<Vec<Value>> {
        self.all(&format!("/v1/dead-letters?limit={PAGE}"), "dead_letters", "after")
    }

    /// How many events of a device are stored; 0 if nobody knows the device.
    pub fn event_count(&self, device: &str) -> Result<u64> {
        let (status, body) = self.get_any(&format!("/v1/devices/{device}/boots"))?;
        match status {
            404 => Ok(0),
            200 => {
                let answer: Value = serde_json::from_str(&body)?;
                let boots = answer["boots"].as_array().context("no boots in the answer")?;
                Ok(boots.iter().filter_map(|boot| boot["events"].as_u64()).sum())
            }
            _ => bail!("boots of {device}: {status} {body}"),
        }
    }

    /// Waits until so many events of a device are stored.
    pub fn await_events(&self, device: &str, count: u64, within: Duration) -> Result<()> {
        eventually(within, &format!("{count} events of {device} in the store"), || {
            let stored = self.event_count(device)?;
            if stored < count {
                bail!("{stored} are there");
            }
            Ok(Some(()))
        })
    }

    /// Runs the operator's command line against this cloud and gives what it printed.
    pub fn weir(&self, arguments: &[&str]) -> Result<String> {
        let url = self.url()?;
        let mut all = arguments.to_vec();
        all.extend(["--api", &url]);
        process::output(&programs::ours("weir")?, &all, ANSWER_WITHIN)?
            .success(&format!("weir {}", arguments.join(" ")))
    }

    /// The same, whatever it ends with.
    pub fn weir_any(&self, arguments: &[&str], within: Duration) -> Result<Finished> {
        let url = self.url()?;
        let mut all = arguments.to_vec();
        all.extend(["--api", &url]);
        process::output(&programs::ours("weir")?, &all, within)
    }

    fn all(&self, path: &str, list: &str, cursor: &str) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let page = self.get(&format!("{path}{next}"))?;
            found.extend(
                page[list].as_array().with_context(|| format!("no {list} in {page}"))?.iter().cloned(),
            );
            next = match &page["next"] {
                Value::Null => return Ok(found),
                Value::String(text) => format!("&{cursor}={text}"),
                other => format!("&{cursor}={other}"),
            };
        }
    }

    fn store(&self) -> Result<PathBuf> {
        Ok(self.config["store"]["path"].as_str().context("store.path is a text")?.into())
    }
}

#[derive(serde::Deserialize)]
struct Addresses {
    api: SocketAddr,
}
