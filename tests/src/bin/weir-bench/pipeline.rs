//! A nats-server and a gateway, without the cloud: what devices and the log feel of Weir.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use weir_tests::gateway::Gateway;
use weir_tests::link::Link;
use weir_tests::nats::{Nats, NatsConfig};
use weir_tests::process::Usage;
use weir_tests::wait::pause;

use crate::load::{Load, Loaded};

const DELIVERED_WITHIN: Duration = Duration::from_secs(300);

/// Both, on free ports, in a folder that goes when they go.
pub struct Pipeline {
    /// The log.
    pub nats: Nats,
    /// The gateway.
    pub gateway: Gateway,
    /// Between the two, if bytes are counted.
    pub link: Option<Link>,
    folder: TempDir,
}

/// A load, and when all of it was in the log.
pub struct Arrived {
    /// What the devices saw.
    pub loaded: Loaded,
    /// Uplinks that arrived in the log, for each second until the last one had.
    pub per_s: f64,
}

impl Pipeline {
    /// Starts both. `counted` puts a link between them that counts bytes.
    pub fn start(parent: &Path, counted: bool) -> Result<Pipeline> {
        Pipeline::start_with(parent, counted, |_| {})
    }

    /// The same with other settings of the spool.
    pub fn start_with(
        parent: &Path,
        counted: bool,
        settings: impl FnOnce(&mut toml::Table),
    ) -> Result<Pipeline> {
        let folder = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(parent)?;
        let nats = Nats::start("nats", &folder.path().join("nats"), NatsConfig::default())?;
        let link = if counted { Some(Link::to(nats.address())?) } else { None };
        let url = link.as_ref().map_or_else(|| nats.url(), |link| format!("nats://{}", link.address()));
        let gateway_folder = folder.path().join("gateway");
        let mut config = Gateway::config("bench", "gw-1", &gateway_folder, &url)?;
        let spool = config["spool"].as_table_mut().context("[spool]")?;
        // Room for the largest backlog here, and nothing kept that would be counted as backlog.
        spool.insert("bytes_max".into(), (8_i64 << 30).into());
        settings(spool);
        let gateway = Gateway::start("gw-1", &gateway_folder, config)?;
        Ok(Pipeline { nats, gateway, link, folder })
    }

    /// Loads the gateway and waits until everything is in the log.
    pub fn load(&mut self, load: Load) -> Result<Arrived> {
        let before = self.delivered()?;
        let began = Instant::now();
        let loaded = load.run(self.gateway.mqtt(), None)?;
        ensure!(loaded.unacknowledged == 0, "{} were not acknowledged in the end", loaded.unacknowledged);
        self.await_delivered()?;
        let uplinks = self.delivered()? - before;
        ensure!(
            uplinks >= loaded.acknowledged,
            "{} were acknowledged and {uplinks} arrived in the log",
            loaded.acknowledged
        );
        Ok(Arrived { loaded, per_s: uplinks as f64 / began.elapsed().as_secs_f64() })
    }

    /// Waits until nothing is in the spool that the log does not hold.
    pub fn await_delivered(&self) -> Result<()> {
        self.gateway.await_delivered(DELIVERED_WITHIN)
    }

    /// How many uplinks the log has acknowledged.
    pub fn delivered(&self) -> Result<u64> {
        let status = self.gateway.admin("/status")?;
        Ok(status["spool"]["delivered"].as_u64().context("nothing told of what is delivered")? - 1)
    }

    /// Bytes the gateway had written to disk since it was started, and events it took; `None` where the kernel does not
    /// count them.
    pub fn written(&self) -> Result<Option<u64>> {
        let status = self.gateway.admin("/status")?;
        Ok(status["wear"]["written_bytes"].as_u64())
    }

    /// Bytes the spool takes on disk, as the file system counts them.
    pub fn spool_bytes(&self) -> Result<u64> {
        folder_bytes(&self.gateway.spool_folder()?)
    }

    /// What the gateway uses.
    pub fn gateway_usage(&mut self) -> Result<Usage> {
        self.gateway.process()?.usage()
    }

    /// Where devices connect.
    pub fn address(&self) -> SocketAddr {
        self.gateway.mqtt()
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Processor time a process takes while nothing happens, in hundredths of a core.
pub fn idle_cpu(usage: impl Fn() -> Result<Usage>, time: Duration) -> Result<f64> {
    let before = usage()?;
    pause(time);
    Ok((usage()?.cpu - before.cpu).as_secs_f64() / time.as_secs_f64() * 100.0)
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { folder_bytes(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(bytes)
}
