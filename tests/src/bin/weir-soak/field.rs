//! What faults happen to: a whole Weir, and the devices at its gateways.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::link::Link;
use weir_tests::nats::NatsConfig;
use weir_tests::sim::{self, Proof, Simulation, Size};
use weir_tests::{Change, Plan, World};

use crate::faults::log;
use crate::schedule::mix;

/// How much there is of everything.
#[derive(Clone, Debug)]
pub struct Extent {
    pub gateways: usize,
    /// At each gateway.
    pub devices: u32,
    /// Events a second of each device.
    pub rate: f64,
    /// Devices emit so long in each round.
    pub round: Duration,
    /// How long everything may take to arrive, once all is whole again.
    pub within: Duration,
    /// Where files are kept meanwhile.
    pub folder: PathBuf,
}

/// How long devices may take for their last acknowledgements, all faults being over.
pub const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// A whole Weir.
pub struct Field {
    pub world: World,
    /// Devices reach each gateway over one of these.
    pub doors: Vec<Link>,
    /// A device at each gateway that strangers may be at.
    pub victims: Vec<String>,
    /// What was emitted in each round.
    manifests: Vec<PathBuf>,
    within: Duration,
}

impl Field {
    /// Starts it.
    pub fn start(extent: &Extent) -> Result<Field> {
        let nats = NatsConfig { more: log::rights(true), ..NatsConfig::default() };
        let plan = Plan { nats, link: true, folder: Some(extent.folder.clone()), ..Plan::default() };
        let mut world = World::planned(plan)?;
        world.keep_files();
        // Started again it has the same ports in its configuration, so that this can be reloaded.
        world.nats.stop()?;
        world.nats.start_again()?;
        for place in 1..extent.gateways {
            let uplink = format!("nats://{}", world.link()?.address());
            let over_the_link: Change = Box::new(move |config| {
                config["uplink"]
                    .as_table_mut()
                    .expect("[uplink]")
                    .insert("servers".into(), vec![uplink].into());
            });
            world.add_gateway(&format!("gw-{}", place + 1), Some(over_the_link))?;
        }
        let doors = world.gateways.iter().map(|gateway| Link::to(gateway.mqtt())).collect::<Result<_>>()?;
        Ok(Field { world, doors, victims: Vec::new(), manifests: Vec::new(), within: extent.within })
    }

    /// Where its files are. They stay there until it has [`end`](Self::end)ed well.
    pub fn folder(&self) -> &Path {
        self.world.folder()
    }

    /// Devices begin to emit at each gateway; they have names, numbers and troubles of their own in each round.
    pub fn emit(&mut self, extent: &Extent, seed: u64, number: u64) -> Result<Vec<Simulation>> {
        self.victims.clear();
        let mut simulations = Vec::new();
        for (place, door) in self.doors.iter().enumerate() {
            let name = format!("r{number}-g{}", place + 1);
            let seed = mix(mix(seed, number), place as u64).to_string();
            let drain = ACKNOWLEDGED_WITHIN.as_secs().to_string();
            let more =
                ["--name", &name, "--seed", &seed, "--faults", "rough", "--drain", &drain, "--progress"];
            let size = Size { devices: extent.devices, rate: extent.rate, run_s: extent.round.as_secs() };
            let url = format!("mqtt://{}", door.address());
            let folder = self.folder().join(format!("devices-{name}"));
            simulations.push(Simulation::start(&folder, &url, size, &more)?);
            self.victims.push(format!("{name}-0001"));
        }
        Ok(simulations)
    }

    /// Compares what was emitted in a round with what the cloud answers, event by event.
    pub fn prove(&mut self, number: u64, manifests: &[PathBuf]) -> Result<Proof> {
        let all = merge(&self.folder().join(format!("round-{number}.json")), manifests)?;
        self.manifests.push(all.clone());
        self.examine(&all)
    }

    fn examine(&self, manifest: &Path) -> Result<Proof> {
        sim::examine(manifest, &self.world.cloud.url()?, self.within)
    }

    /// Forgets the views, has them made again from the log alone, and proves all rounds once more: so the log by itself
    /// tells the whole story.
    pub fn prove_from_the_log(&mut self) -> Result<Proof> {
        self.world.cloud.stop()?;
        self.world.cloud.forget_everything()?;
        self.world.cloud.start_again()?;
        let all = merge(&self.folder().join("all-rounds.json"), &self.manifests)?;
        self.examine(&all)
    }

    /// The log loses a few messages that nobody knows of, and the views are made again without them: for trying whether
    /// a loss is found.
    pub fn lose_messages(&mut self) -> Result<()> {
        const FEW: u64 = 3;
        let log = self.world.nats.stream()?;
        ensure!(log.messages > 4 * FEW, "the log has only {} messages", log.messages);
        let middle = log.last_sequence - log.messages / 2;
        for sequence in middle..middle + FEW {
            self.world.nats.lose(sequence)?;
        }
        self.world.cloud.stop()?;
        self.world.cloud.forget_everything()?;
        self.world.cloud.start_again()
    }

    /// Stops everything in good order and removes its files. They stay if that goes wrong.
    pub fn end(self) -> Result<()> {
        let folder = self.folder().to_owned();
        self.world.verify_log().context("the log's numbers")?;
        self.world.end()?;
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    }
}

/// One manifest of many.
fn merge(to: &Path, manifests: &[PathBuf]) -> Result<PathBuf> {
    let mut devices = Vec::new();
    for file in manifests {
        let read = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let mut manifest: Value = serde_json::from_slice(&read)?;
        devices.append(manifest["devices"].as_array_mut().context("a manifest has devices")?);
    }
    std::fs::write(to, serde_json::to_vec(&serde_json::json!({ "devices": devices }))?)?;
    Ok(to.to_owned())
}
