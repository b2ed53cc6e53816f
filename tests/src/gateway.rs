//! A `weir-gateway` process. Killed or stopped and started again it has the same addresses and spool.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use toml::Table;

use crate::http;
use crate::process::Process;
use crate::programs::Program;
use crate::wait::eventually;

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A gateway and its files.
pub struct Gateway {
    id: String,
    folder: PathBuf,
    program: Program,
    environment: Vec<String>,
    config: Table,
    process: Option<Process>,
    mqtt: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Gateway {
    /// What a gateway called `id` at `site` is configured with, its files in `folder`, before a test changes it:
    /// one plain listener, and free ports everywhere. It tries again sooner than in the field, so that tests are short.
    pub fn config(site: &str, id: &str, folder: &Path, nats_url: &str) -> Result<Table> {
        let spool = folder.join("spool");
        let text = format!(
            r#"
            [gateway]
            site = {site:?}
            id = {id:?}
            [[mqtt.listener]]
            address = "127.0.0.1:0"
            [spool]
            folder = {spool:?}
            [uplink]
            servers = [{nats_url:?}]
            ack_timeout_ms = 2000
            ping_interval_ms = 1000
            backoff_ms_max = 1000
            [admin]
            address = "127.0.0.1:0"
            "#
        );
        Ok(text.parse()?)
    }

    /// Starts a gateway with its files in `folder`.
    pub fn start(id: &str, folder: &Path, config: Table) -> Result<Gateway> {
        Gateway::start_program(Program::ours("weir-gateway")?, id, folder, config)
    }

    /// Starts another build of the gateway.
    pub fn start_program(program: Program, id: &str, folder: &Path, config: Table) -> Result<Gateway> {
        std::fs::create_dir_all(folder)?;
        let (id, folder) = (id.to_owned(), folder.to_owned());
        let (environment, mqtt) = (Vec::new(), Vec::new());
        let mut gateway =
            Gateway { id, folder, program, environment, config, process: None, mqtt, admin: None };
        gateway.start_again()?;
        Ok(gateway)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill9`](Self::kill9).
    pub fn start_again(&mut self) -> Result<()> {
        let file = self.config_file();
        std::fs::write(&file, toml::to_string(&self.config)?)?;
        let said = self.spool_folder()?.join("addresses.json");
        let _ = std::fs::remove_file(&said);
        let file = file.to_str().context("a folder that is not UTF-8")?;
        let program = match self.environment.as_slice() {
            [] => self.program.clone(),
            variables => self.program.with_environment(variables.to_vec())?,
        };
        let arguments = program.arguments(&["run", "--config", file]);
        let log = self.folder.with_extension("log");
        let mut process = Process::start(&self.id, &program.file, &arguments, &log)?;
        let addresses: Addresses = process.until(START_WITHIN, &format!("{} to listen", self.id), || {
            Ok(std::fs::read(&said).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        })?;
        self.process = Some(process);
        self.keep(addresses)
    }

    /// From now on it has the ports it was given the first time: those it talks to find it again.
    fn keep(&mut self, addresses: Addresses) -> Result<()> {
        let listeners = self.config["mqtt"]["listener"].as_array_mut().context("no listeners")?;
        for (listener, address) in listeners.iter_mut().zip(&addresses.mqtt) {
            listener
                .as_table_mut()
                .context("a listener is a table")?
                .insert("address".into(), address.to_string().into());
        }
        let admin = self.config["admin"].as_table_mut().context("[admin] is a table")?;
        admin.insert("address".into(), addresses.admin.to_string().into());
        (self.mqtt, self.admin) = (addresses.mqtt, Some(addresses.admin));
        Ok(())
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("the gateway is not running")?.kill9()
    }

    /// SIGTERM, after which it drains and ends.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the gateway is not running")?.terminate(STOP_WITHIN)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.id))
    }

    /// Whether it is meant to be running.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Where its first listener is.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt[0]
    }

    /// Where its other listener is, if it was configured with one.
    pub fn second_listener(&self) -> Result<SocketAddr> {
        self.mqtt.get(1).copied().context("there is no second listener")
    }

    /// `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.mqtt())
    }

    /// Where its admin interface is: `127.0.0.1:PORT`.
    pub fn admin_address(&self) -> Result<SocketAddr> {
        self.admin.context("never started")
    }

    /// What its admin interface says: `/status`, `/spool`, `/refusals` …
    pub fn admin(&self, path: &str) -> Result<Value> {
        http::get(&format!("http://{}{path}", self.admin_address()?))
    }

    /// Waits until the log has acknowledged everything in the spool.
    pub fn await_delivered(&self, within: Duration) -> Result<()> {
        eventually(within, "the spool to be delivered", || {
            let status = self.admin("/status")?;
            ensure!(status["spool"]["waiting"] == 0, "{} wait", status["spool"]["waiting"]);
            Ok(Some(()))
        })
    }

    /// The configuration file it runs with.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    /// What it will be started with the next time.
    pub fn config_mut(&mut self) -> &mut Table {
        &mut self.config
    }

    /// What it will have in its environment the next time it is started, each `NAME=value`.
    pub fn set_environment(&mut self, variables: Vec<String>) {
        self.environment = variables;
    }

    /// Where its spool is.
    pub fn spool_folder(&self) -> Result<PathBuf> {
        Ok(self.config["spool"]["folder"].as_str().context("spool.folder is a text")?.into())
    }
}

#[derive(serde::Deserialize)]
struct Addresses {
    mqtt: Vec<SocketAddr>,
    admin: SocketAddr,
}
