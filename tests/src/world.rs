//! A whole Weir on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use async_nats::jetstream::message::StreamMessage;
use tempfile::TempDir;
use toml::Table;
use weir_contract::segment::{SEGMENT_LEN_MAX, Segment};
use weir_contract::subject;

use crate::cloud::Cloud;
use crate::device::{Device, Manifest};
use crate::gateway::Gateway;
use crate::link::Link;
use crate::nats::{Nats, NatsConfig};
use crate::process;
use crate::programs::Program;
use crate::sim::{self, Simulation, Size};
use crate::wait;

/// The site all gateways of a world stand at.
pub const SITE: &str = "lab";
/// How long after the last acknowledgement everything has to be in the store, outages having ended.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// How much of each log a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// nats-server, gateways and a cloud: real processes on free ports, their files in a folder that goes when they go.
///
/// A test ends with [`end`](World::end). One that does not get there, because it failed, shows the logs.
pub struct World {
    /// The log in the cloud.
    pub nats: Nats,
    /// The gateways; the first one is called `gw-1`.
    pub gateways: Vec<Gateway>,
    /// Views of the log.
    pub cloud: Cloud,
    /// What the first gateway reaches nats-server over, if that was planned.
    link: Option<Link>,
    folder: TempDir,
    simulations: u32,
    ended: bool,
    kept: bool,
}

/// What can be different about a world. Everything is as users have it, unless changed here.
#[derive(Default)]
pub struct Plan {
    /// The nats-server.
    pub nats: NatsConfig,
    /// The first gateway reaches nats-server over a [`Link`] that can fail.
    pub link: bool,
    /// How long JetStream remembers message ids, if the stream is to be there before Weir is.
    pub duplicate_window: Option<Duration>,
    /// Changes to the configuration of the first gateway.
    pub gateway: Option<Change>,
    /// The build of the first gateway: ours for this machine, unless another is given.
    pub gateway_program: Option<Program>,
    /// Changes to the configuration of the cloud.
    pub cloud: Option<Change>,
    /// Where its folder is made: where the system has its temporary files, unless another place is given.
    pub folder: Option<PathBuf>,
}

/// A change to a configuration.
pub type Change = Box<dyn FnOnce(&mut Table)>;

impl World {
    /// nats-server, one gateway, a cloud.
    pub fn start() -> Result<World> {
        World::planned(Plan::default())
    }

    /// The same with something different.
    pub fn planned(plan: Plan) -> Result<World> {
        let place = plan.folder.unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new().prefix("weir-").tempdir_in(&place);
        let folder = folder.with_context(|| format!("making a folder in {}", place.display()))?;
        let mut shown = ShowLogs(Some(folder.path().to_owned()));
        let nats = Nats::start("nats", &folder.path().join("nats"), plan.nats)?;
        if let Some(window) = plan.duplicate_window {
            nats.create_stream(window)?;
        }
        let cloud_folder = folder.path().join("cloud");
        let mut config = Cloud::config(&cloud_folder, &nats.url())?;
        if let Some(change) = plan.cloud {
            change(&mut config);
        }
        let cloud = Cloud::start(&cloud_folder, config)?;
        let link = if plan.link { Some(Link::to(nats.address())?) } else { None };
        let mut world = World {
            nats,
            gateways: Vec::new(),
            cloud,
            link,
            folder,
            simulations: 0,
            ended: false,
            kept: false,
        };
        // From here on the world's own drop shows them.
        shown.0 = None;
        world.add(plan.gateway_program, "gw-1", plan.gateway)?;
        Ok(world)
    }

    /// One more gateway.
    pub fn add_gateway(&mut self, id: &str, change: Option<Change>) -> Result<()> {
        self.add(None, id, change)
    }

    fn add(&mut self, program: Option<Program>, id: &str, change: Option<Change>) -> Result<()> {
        let folder = self.folder.path().join(id);
        let uplink = match &self.link {
            Some(link) if self.gateways.is_empty() => format!("nats://{}", link.address()),
            _ => self.nats.url(),
        };
        let mut config = Gateway::config(SITE, id, &folder, &uplink)?;
        if let Some(change) = change {
            change(&mut config);
        }
        let program = program.map_or_else(|| Program::ours("weir-gateway"), Ok)?;
        self.gateways.push(Gateway::start_program(program, id, &folder, config)?);
        Ok(())
    }

    /// A gateway with a spool of its own under a name that another one already has.
    pub fn add_impostor(&mut self, id: &str) -> Result<()> {
        let folder = self.folder.path().join(format!("{id}-impostor"));
        let config = Gateway::config(SITE, id, &folder, &self.nats.url())?;
        self.gateways.push(Gateway::start(id, &folder, config)?);
        Ok(())
    }

    /// The first gateway.
    #[must_use]
    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateways[0]
    }

    /// What the first gateway reaches nats-server over.
    pub fn link(&self) -> Result<&Link> {
        self.link.as_ref().context("no link was planned")
    }

    /// Where this world's files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts simulated devices at the first gateway.
    pub fn simulate(&mut self, size: Size, more: &[&str]) -> Result<Simulation> {
        self.simulations += 1;
        let folder = self.folder.path().join(format!("simulation-{}", self.simulations));
        Simulation::start(&folder, &self.gateways[0].mqtt_url(), size, more)
    }

    /// Proves from outside that all these devices emitted is stored exactly once, and that nothing had to be given up.
    pub fn verify_devices(&self, devices: &[&Device]) -> Result<()> {
        let manifest = Manifest { devices: devices.iter().map(|device| device.emitted()).collect() };
        let file = sim::write_manifest(&self.folder.path().join("devices"), &manifest)?;
        self.verify(&file)
    }

    /// Proves it for what a manifest says was emitted.
    pub fn verify(&self, manifest: &Path) -> Result<()> {
        let proof = sim::prove(manifest, &self.cloud.url()?, SETTLED_WITHIN)?;
        // A loss that is told of is no lie; but nothing that a test does to its world is a reason to lose something.
        ensure!(proof.lost == 0 && proof.undelivered == 0 && proof.other_boots == 0, "{proof:?}");
        ensure!(proof.stored == proof.emitted, "{proof:?}");
        self.verify_gateways()
    }

    /// Proves that nothing is missing of what the gateways tell of themselves, up to where it has arrived.
    pub fn verify_gateways(&self) -> Result<()> {
        let mut ids: Vec<&str> = self.gateways.iter().map(Gateway::id).collect();
        ids.dedup();
        for id in ids {
            wait::eventually(SETTLED_WITHIN, "the gateway's own events", || {
                let (status, body) = self.cloud.get_any(&format!("/v1/devices/{id}/boots"))?;
                // It may have had nothing to tell yet.
                if status == 404 {
                    return Ok(Some(()));
                }
                let boots: serde_json::Value = serde_json::from_str(&body)?;
                let whole = |boot: &serde_json::Value| boot["missing"].as_array().is_some_and(Vec::is_empty);
                Ok(boots["boots"].as_array().filter(|boots| boots.iter().all(whole)).map(|_| ()))
            })?;
        }
        Ok(())
    }

    /// Proves that the log holds everything once and in order, see [`check_log`]. How many uplinks there are.
    pub fn verify_log(&self) -> Result<u64> {
        check_log(&self.nats.messages()?)
    }

    /// Fails if a process has ended that should be running.
    pub fn check_running(&mut self) -> Result<()> {
        self.nats.process()?.check_running()?;
        for gateway in &mut self.gateways {
            gateway.process()?.check_running()?;
        }
        self.cloud.process()?.check_running()
    }

    /// Fails if anything has panicked.
    pub fn check_logs(&self) -> Result<()> {
        for log in logs(self.folder.path()) {
            let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
            if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
                bail!("{}: {line}", log.display());
            }
        }
        Ok(())
    }

    /// From now on its files stay where they are however it ends, for somebody to look at; logs are not shown.
    pub fn keep_files(&mut self) {
        self.kept = true;
        self.folder.disable_cleanup(true);
    }

    /// Ends a test that went well: whatever should be running is, nothing panicked, and all of it stops when told to.
    pub fn end(mut self) -> Result<()> {
        for gateway in &mut self.gateways {
            if gateway.is_started() {
                gateway.process()?.check_running()?;
                let status = gateway.stop()?;
                if !status.success() {
                    bail!("{} was told to stop and ended with {status}", gateway.id());
                }
            }
        }
        if self.cloud.is_started() {
            self.cloud.process()?.check_running()?;
            let status = self.cloud.stop()?;
            if !status.success() {
                bail!("the cloud was told to stop and ended with {status}");
            }
        }
        self.check_logs()?;
        self.nats.stop().context("stopping nats-server")?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.ended && !self.kept {
            show_logs(self.folder.path());
        }
    }
}

/// Proves that a log holds every uplink number of every gateway's spool once and in order: numbers of one incarnation go
/// on from 1 without hole or repetition from message to message. How many uplinks there are.
pub fn check_log(messages: &[StreamMessage]) -> Result<u64> {
    let mut next: BTreeMap<(String, u64), u64> = BTreeMap::new();
    let mut uplinks = 0;
    for message in messages {
        let subject = message.subject.to_string();
        let source = subject::parse_segments(&subject).with_context(|| format!("no segment: {subject}"))?;
        // Copies: all of it has to be in the main lane too.
        if source.lane == subject::LANE_LIVE {
            continue;
        }
        let bytes = plain(&message.headers, &message.payload)?;
        let head = Segment::read(&bytes).map_err(|error| anyhow!("{subject}: {error}"))?.head;
        let expected = next.entry((subject.clone(), head.incarnation)).or_insert(1);
        ensure!(
            head.first == *expected,
            "message {} on {subject} begins with uplink {} where {expected} was to come",
            message.sequence,
            head.first
        );
        *expected = head.first + head.count;
        uplinks += head.count;
    }
    Ok(uplinks)
}

/// A segment's bytes, decompressed if its header says that they are compressed.
pub fn plain(headers: &async_nats::HeaderMap, payload: &[u8]) -> Result<Vec<u8>> {
    match headers.get(subject::HEADER_ENCODING).map(async_nats::HeaderValue::as_str) {
        None => Ok(payload.to_vec()),
        Some(subject::ENCODING_ZSTD) => Ok(zstd::bulk::decompress(payload, SEGMENT_LEN_MAX)?),
        Some(other) => bail!("a segment in an unknown encoding: {other}"),
    }
}

/// Shows the logs of a world that did not come about.
struct ShowLogs(Option<PathBuf>);

impl Drop for ShowLogs {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            show_logs(folder);
        }
    }
}

fn show_logs(folder: &Path) {
    for log in logs(folder) {
        eprintln!("---- {}", log.file_name().unwrap_or_default().display());
        eprintln!("{}", process::tail(&log, LOG_LINES_SHOWN));
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut logs: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    logs
}
