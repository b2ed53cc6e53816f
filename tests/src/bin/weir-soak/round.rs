//! One round: devices emit, faults come and go, everything is whole again; then one waits for what was acknowledged to
//! arrive, and proves that all of it did, once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use weir_tests::device::{Device, Manifest};
use weir_tests::sim::{self, Proof};
use weir_tests::wait::{eventually, pause};

use crate::faults::{Fault, Kind};
use crate::field::{ACKNOWLEDGED_WITHIN, Extent, Field};
use crate::schedule::{self, Blow, Part};

/// What a round is made of.
pub struct Round {
    pub number: u64,
    pub seed: u64,
    pub blows: Vec<Blow>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub acknowledged_uplinks: u64,
    /// Uplinks that devices published more than once.
    pub repeated_uplinks: u64,
    /// From the end of the last fault until all that was acknowledged by then was stored in the cloud.
    pub recovery: Duration,
    pub proof: Proof,
}

impl Round {
    /// Round `number` of a seed.
    pub fn planned(seed: u64, number: u64, extent: &Extent, kinds: &[&Kind]) -> Round {
        let parts: Vec<&[Part]> = kinds.iter().map(|kind| kind.parts).collect();
        Round { number, seed, blows: schedule::plan(seed, number, extent.round, &parts) }
    }

    /// Its faults in words: `gateway killed twice, uplink cut`.
    pub fn told(&self, kinds: &[&Kind]) -> String {
        let mut told: Vec<(usize, u32)> = Vec::new();
        for blow in &self.blows {
            match told.iter_mut().find(|(kind, _)| *kind == blow.kind) {
                Some((_, times)) => *times += 1,
                None => told.push((blow.kind, 1)),
            }
        }
        let words = told.into_iter().map(|(kind, times)| match times {
            1 => kinds[kind].name.to_owned(),
            2 => format!("{} twice", kinds[kind].name),
            _ => format!("{} {times} times", kinds[kind].name),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Runs it. An error: something did not come back, or ended that should not have, or could not be asked. What
    /// the proof says is for the caller to judge. `sabotage` is done to the field before the proof.
    pub fn run(
        &self,
        field: &mut Field,
        extent: &Extent,
        kinds: &[&Kind],
        sabotage: Option<fn(&mut Field) -> Result<()>>,
    ) -> Result<Outcome> {
        let begun = Instant::now();
        let simulations = field.emit(extent, self.seed, self.number)?;
        let ended = self.suffer(field, kinds, begun)?;
        let (recovery, witnesses) = recover(field, self.number, ended, extent.within)?;
        let mut manifests = vec![witnesses];
        let (mut acknowledged_uplinks, mut repeated_uplinks) = (0, 0);
        for simulation in simulations {
            let (manifest, summary) = simulation.finish_told(extent.round + ACKNOWLEDGED_WITHIN)?;
            acknowledged_uplinks += summary.acknowledged_uplinks;
            repeated_uplinks += summary.doubled;
            manifests.push(manifest);
        }
        if let Some(sabotage) = sabotage {
            sabotage(field)?;
        }
        let proof = field.prove(self.number, &manifests)?;
        field.world.check_running()?;
        field.world.check_logs()?;
        if is_whole(&proof) {
            field.world.verify_gateways()?;
        }
        Ok(Outcome { acknowledged_uplinks, repeated_uplinks, recovery, proof })
    }

    /// Makes the faults begin and end, each at its time. When the last one had ended.
    fn suffer(&self, field: &mut Field, kinds: &[&Kind], begun: Instant) -> Result<Instant> {
        let mut faults: Vec<Box<dyn Fault>> =
            self.blows.iter().map(|blow| (kinds[blow.kind].make)(&mut Rng::with_seed(blow.seed))).collect();
        let ends = self.blows.iter().enumerate().map(|(place, blow)| (blow.to, place, false));
        let begins = self.blows.iter().enumerate().map(|(place, blow)| (blow.from, place, true));
        let mut acts: Vec<(Duration, usize, bool)> = begins.chain(ends).collect();
        acts.sort();
        let mut last = begun;
        for (at, place, begins) in acts {
            pause(at.saturating_sub(begun.elapsed()));
            let (fault, name) = (&mut faults[place], kinds[self.blows[place].kind].name);
            if begins {
                fault.begin(field).with_context(|| format!("making it happen: {name}"))?;
            } else {
                last = last.max(fault.end(field).with_context(|| format!("taking it back: {name}"))?);
            }
        }
        Ok(last)
    }
}

/// Whether a proof proves what it should: a loss in the ledger is told, and no lie.
pub fn is_whole(proof: &Proof) -> bool {
    proof.proven && proof.undelivered == 0 && proof.other_boots == 0
}

/// Waits until everything acknowledged by now is stored in the cloud, and tells how long after `ended` that was.
///
/// What was acknowledged by now has numbers below a mark at each gateway. A witness behind it, an event of its own, is
/// acknowledged last; so when the log holds all below the mark, and the cloud has read that far and can be asked
/// about the witness, everything before it is stored. The witnesses' manifest is for the proof.
fn recover(
    field: &mut Field,
    number: u64,
    ended: Instant,
    within: Duration,
) -> Result<(Duration, std::path::PathBuf)> {
    let mut witnesses = Vec::new();
    let mut marks = Vec::new();
    for (place, gateway) in field.world.gateways.iter().enumerate() {
        let mut device = Device::new(&format!("r{number}-g{}-witness", place + 1))?;
        let mut client =
            eventually(within, "the gateway to take an event", || Ok(Some(device.connect(gateway.mqtt())?)))?;
        device.emit(&mut client, 1)?;
        witnesses.push(device);
        let status = gateway.admin("/status")?;
        marks.push(status["spool"]["next"].as_u64().context("the gateway tells no next number")?);
    }
    let within = within.saturating_sub(ended.elapsed());
    eventually(within, "everything acknowledged to be stored in the cloud", || {
        let mut sequence = 0;
        for (gateway, &mark) in field.world.gateways.iter().zip(&marks) {
            let uplink = &gateway.admin("/status")?["uplink"];
            ensure!(uplink["delivered"].as_u64() >= Some(mark), "{}, up to {mark}: {uplink}", gateway.id());
            sequence = sequence.max(uplink["stream_sequence"].as_u64().unwrap_or_default());
        }
        let position = &field.world.cloud.get("/v1/status")?["position"];
        ensure!(
            position["stream_sequence"].as_u64() >= Some(sequence),
            "the cloud, up to {sequence}: {position}"
        );
        for witness in &witnesses {
            ensure!(field.world.cloud.event_count(witness.name())? == 1, "{} is not stored", witness.name());
        }
        Ok(Some(()))
    })?;
    let recovery = ended.elapsed();
    let manifest = Manifest { devices: witnesses.iter().map(Device::emitted).collect() };
    let folder = field.folder().join(format!("witnesses-r{number}"));
    Ok((recovery, sim::write_manifest(&folder, &manifest)?))
}
