//! `weir-sim`: many devices at once, and the check from outside that nothing was lost or doubled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::device::Manifest;
use crate::process::{self, Process};
use crate::programs;

/// Devices that are emitting in the background.
pub struct Simulation {
    process: Process,
    folder: PathBuf,
    run_s: u64,
}

impl Simulation {
    /// Starts `weir-sim run` against a gateway; `more` are further arguments.
    pub fn start(folder: &Path, gateway_url: &str, size: Size, more: &[&str]) -> Result<Simulation> {
        std::fs::create_dir_all(folder)?;
        let manifest = manifest_in(folder);
        let (devices, rate, run_s) =
            (size.devices.to_string(), size.rate.to_string(), size.run_s.to_string());
        let mut arguments = vec!["run", "--gateway", gateway_url, "--devices", &devices, "--rate", &rate];
        arguments.extend([
            "--seconds",
            &run_s,
            "--json",
            "--manifest",
            manifest.to_str().context("not UTF-8")?,
        ]);
        arguments.extend(more);
        let process = Process::start(
            "simulator",
            &programs::ours("weir-sim")?,
            &arguments,
            &folder.with_extension("log"),
        )?;
        Ok(Simulation { process, folder: folder.to_owned(), run_s: size.run_s })
    }

    /// Waits until all devices have emitted all they should and all of it is acknowledged; the manifest.
    pub fn finish(self, more: Duration) -> Result<PathBuf> {
        Ok(self.finish_told(more)?.0)
    }

    /// The same, and what the simulator counted.
    pub fn finish_told(mut self, more: Duration) -> Result<(PathBuf, Summary)> {
        let status = self.process.wait(Duration::from_secs(self.run_s) + more)?;
        if !status.success() {
            bail!("weir-sim: {status}\n{}", process::tail(&self.folder.with_extension("log"), 20));
        }
        let manifest = manifest_in(&self.folder);
        let text = std::fs::read_to_string(&manifest)?;
        ensure!(!text.contains("\"unacknowledged\""), "not everything was acknowledged in the end: {text}");
        let log = process::tail(&self.folder.with_extension("log"), 5);
        let summary = log.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        Ok((manifest, summary.context("weir-sim told no summary")?))
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// How far it is, if it was started with `--progress`.
    pub fn progress(&self) -> Result<Progress> {
        let log = process::tail(&self.folder.with_extension("log"), 5);
        let said = log.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        Ok(said.unwrap_or_default())
    }

    /// Fails if the simulator has ended, which it should not have yet.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running()
    }
}

/// How far a simulation is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Progress {
    /// Events made.
    pub emitted: u64,
    /// Events a PUBACK has come for.
    pub acknowledged: u64,
}

/// What a simulation has counted in the end.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Summary {
    /// Uplinks a PUBACK has come for.
    pub acknowledged_uplinks: u64,
    /// Uplinks published more than once, on purpose or because no PUBACK came.
    pub doubled: u64,
}

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Devices.
    pub devices: u32,
    /// Events a second of each.
    pub rate: f64,
    /// Seconds.
    pub run_s: u64,
}

/// Writes a manifest for devices that were not simulated by `weir-sim`.
pub fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let file = manifest_in(folder);
    std::fs::write(&file, serde_json::to_vec(manifest)?)?;
    Ok(file)
}

/// What `weir-sim verify` has found; see there.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Proof {
    /// Each number emitted is stored or in the ledger, once; apart from what nobody acknowledged.
    pub proven: bool,
    /// Event numbers that were given.
    pub emitted: u64,
    /// Of these, stored.
    pub stored: u64,
    /// Of these, in the ledger of losses.
    pub lost: u64,
    /// Of these, neither, and never acknowledged.
    pub undelivered: u64,
    /// Of these, neither, though acknowledged.
    pub missing: u64,
    /// Numbers that are there more than once.
    pub doubled: u64,
    /// Numbers that are there and were never given.
    pub invented: u64,
    /// Answers of the cloud that do not agree with each other, and events out of order.
    pub contradictions: u64,
    /// Boots of the same devices that the manifest does not know.
    pub other_boots: u64,
    /// The first things found wrong, in words.
    pub findings: Vec<String>,
}

/// `weir-sim verify`: every number emitted is stored once or in the ledger. An error holds its report.
pub fn prove(manifest: &Path, cloud_url: &str, within: Duration) -> Result<Proof> {
    read_proof(&verify(manifest, cloud_url, within, &["--json"])?)
}

/// The same, whatever is found: an error means only that it could not be looked.
pub fn examine(manifest: &Path, cloud_url: &str, within: Duration) -> Result<Proof> {
    let found = look(manifest, cloud_url, within, &["--json"])?;
    read_proof(&found.out).with_context(|| found.err.clone())
}

fn read_proof(report: &str) -> Result<Proof> {
    serde_json::from_str(report).with_context(|| format!("not what weir-sim verify says: {report}"))
}

/// The same, as it is told to people.
pub fn verify(manifest: &Path, cloud_url: &str, within: Duration, more: &[&str]) -> Result<String> {
    look(manifest, cloud_url, within, more)?.success("weir-sim verify")
}

fn look(manifest: &Path, cloud_url: &str, within: Duration, more: &[&str]) -> Result<process::Finished> {
    let wait = format!("{}s", within.as_secs());
    let manifest = manifest.to_str().context("not UTF-8")?;
    let mut arguments = vec!["verify", "--manifest", manifest, "--cloud", cloud_url, "--wait", &wait];
    arguments.extend(more);
    process::output(&programs::ours("weir-sim")?, &arguments, within + Duration::from_secs(60))
}

fn manifest_in(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}
