//! Promise 3 with a log on three servers: leaders die, minorities are cut off, servers are restarted in turn, quorums are
//! lost. Nothing is taken for delivered that is not, nothing is lost, nothing doubled, and nobody has to restart a gateway.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use toml::Value;
use weir_tests::cloud::Cloud;
use weir_tests::cluster::Cluster;
use weir_tests::device::{Device, Manifest};
use weir_tests::gateway::Gateway;
use weir_tests::sim::{self, Simulation, Size};
use weir_tests::wait::{eventually, pause};
use weir_tests::{SITE, check_log};

/// Elections take a few seconds, on a busy machine several rounds of them.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
const WITHOUT_QUORUM: Duration = Duration::from_secs(4);

/// A cluster of three, a gateway and a cloud that know all of them.
struct Three {
    cluster: Cluster,
    gateway: Gateway,
    cloud: Cloud,
    folder: TempDir,
}

impl Three {
    fn start() -> Result<Three> {
        let folder = tempfile::Builder::new().prefix("weir-").tempdir()?;
        let cluster = Cluster::start(folder.path(), 3)?;
        let urls: Value = cluster.urls().into();
        let in_folder = |name: &str| folder.path().join(name);
        let mut config = Cloud::config(&in_folder("cloud"), &cluster.urls()[0])?;
        config["nats"].as_table_mut().expect("[nats]").insert("servers".into(), urls.clone());
        config["stream"].as_table_mut().expect("[stream]").insert("replicas".into(), 3.into());
        let cloud = Cloud::start(&in_folder("cloud"), config)?;
        // Whoever is first makes the stream, and the gateway would make it on one server.
        cluster.leader()?;
        cluster.check_replicas(3)?;
        let mut config = Gateway::config(SITE, "gw-1", &in_folder("gw-1"), &cluster.urls()[0])?;
        config["uplink"].as_table_mut().expect("[uplink]").insert("servers".into(), urls);
        let gateway = Gateway::start("gw-1", &in_folder("gw-1"), config)?;
        Ok(Three { cluster, gateway, cloud, folder })
    }

    /// All of it is stored once, and the log has every number of the spool once.
    fn verify(&mut self, manifest: &Path) -> Result<()> {
        self.cluster.start_again()?;
        self.gateway.await_delivered(SETTLED_WITHIN)?;
        let proof = sim::prove(manifest, &self.cloud.url()?, SETTLED_WITHIN)?;
        ensure!(proof.lost == 0 && proof.stored == proof.emitted, "{proof:?}");
        ensure!(check_log(&self.cluster.servers[0].messages()?)? > 0);
        let status = self.gateway.admin("/status")?;
        ensure!(status["uplink"]["gone"] == 0, "{status}");
        self.gateway.process()?.check_running()?;
        self.cloud.process()?.check_running()
    }

    fn end(mut self) -> Result<()> {
        ensure!(self.gateway.stop()?.success() && self.cloud.stop()?.success());
        self.cluster.stop()
    }
}

#[test]
fn a_cluster_that_loses_its_leader_again_and_again_loses_and_doubles_nothing() -> Result<()> {
    let mut three = Three::start()?;
    let size = Size { devices: 20, rate: 5.0, run_s: 20 };
    let folder = three.folder.path().join("simulation");
    let simulation = Simulation::start(&folder, &three.gateway.mqtt_url(), size, &["--seed", "51"])?;
    pause(Duration::from_secs(2));
    // Killed under load.
    let leader = three.cluster.leader()?;
    three.cluster.servers[leader].kill9()?;
    pause(Duration::from_secs(2));
    three.cluster.start_again()?;
    // Cut off: its connections stand, and it neither hears nor says anything. Then it is back, and believes for a while that
    // it leads.
    let leader = three.cluster.leader()?;
    three.cluster.servers[leader].process()?.freeze()?;
    pause(Duration::from_secs(6));
    three.cluster.servers[leader].process()?.thaw()?;
    three.cluster.await_healthy()?;
    // Upgraded: one after the other.
    for number in 0..3 {
        three.cluster.servers[number].stop()?;
        three.cluster.start_again()?;
    }
    let manifest = simulation.finish(SETTLED_WITHIN)?;
    three.verify(&manifest)?;
    three.end()
}

#[test]
fn a_cluster_without_a_majority_takes_nothing_and_the_gateway_says_so() -> Result<()> {
    let mut three = Three::start()?;
    let mut device = Device::new("minority")?;
    let mut client = device.connect(three.gateway.mqtt())?;
    device.emit(&mut client, 5)?;
    three.gateway.await_delivered(SETTLED_WITHIN)?;
    let delivered = three.gateway.admin("/status")?["spool"]["delivered"].clone();
    let leader = three.cluster.leader()?;
    three.cluster.servers[(leader + 1) % 3].kill9()?;
    three.cluster.servers[(leader + 2) % 3].kill9()?;
    for _ in 0..20 {
        device.emit(&mut client, 5)?;
    }
    eventually(SETTLED_WITHIN, "the gateway to tell what it is", || {
        let uplink = three.gateway.admin("/status")?["uplink"].clone();
        let kind = uplink["trouble"]["kind"].as_str().unwrap_or_default();
        ensure!(uplink["state"] == "down" && ["no-leader", "timed-out"].contains(&kind), "{uplink}");
        Ok(Some(()))
    })?;
    pause(WITHOUT_QUORUM);
    let status = three.gateway.admin("/status")?;
    ensure!(status["spool"]["delivered"] == delivered, "taken for delivered: {status}");
    three.cluster.start_again()?;
    device.emit(&mut client, 5)?;
    let manifest = Manifest { devices: vec![device.emitted()] };
    let manifest = sim::write_manifest(&three.folder.path().join("devices"), &manifest)?;
    three.verify(&manifest)?;
    three.end()
}
