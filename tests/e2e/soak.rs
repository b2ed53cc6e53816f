//! Promises 1, 3, 5 and 6 under faults nobody chose: a short pass of `weir-soak`, and that it finds what is lost.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::process::{self, Finished};
use weir_tests::programs;

/// However busy the machine is with other tests.
const ENDS_WITHIN: Duration = Duration::from_secs(240);

#[test]
fn seeded_faults_lose_and_double_nothing_acknowledged() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("soak with seed {seed}");
    soaks_well(seed, &["--seconds", "20", "--round-seconds", "3"])
}

/// The log is restored while the gateway is killed, a neighbour sends garbage; then a gateway hangs and the uplink is cut.
#[test]
fn a_known_seed_loses_and_doubles_nothing_acknowledged() -> Result<()> {
    soaks_well(42, &["--rounds", "2", "--round-seconds", "3"])
}

/// The check of the check: a few segments are taken out of the log and of the views.
#[test]
fn a_soak_that_loses_something_says_so_with_seed_and_files() -> Result<()> {
    let seed = fastrand::u64(..);
    let round = ["--rounds", "1", "--round-seconds", "2", "--only", "uplink-cut"];
    let ended = soak(seed, &[round.as_slice(), &["--within", "10", "--lose-messages"]].concat())?;
    let told = || format!("{ended:?}");
    ensure!(ended.status.code() == Some(1), "{}", told());
    let figures: Value = serde_json::from_str(&ended.out).with_context(told)?;
    ensure!(figures["events_lost"].as_u64() > Some(0), "{}", told());
    ensure!(figures["seed"] == seed && figures["failure"]["round"] == 1, "{}", told());
    ensure!(ended.err.matches(&seed.to_string()).count() >= 2, "the seed is told first and last: {}", told());
    let kept = Path::new(figures["failure"]["kept"].as_str().with_context(told)?);
    for file in ["gw-1.log", "nats/store", "cloud/weir.db", "round-1.json"] {
        ensure!(kept.join(file).exists(), "{file} was not kept: {}", told());
    }
    std::fs::remove_dir_all(kept)?;
    Ok(())
}

fn soaks_well(seed: u64, more: &[&str]) -> Result<()> {
    let ended = soak(seed, more)?;
    let told = || format!("seed {seed}: {ended:?}");
    ensure!(ended.status.success(), "{}", told());
    let figures: Value = serde_json::from_str(&ended.out).with_context(told)?;
    ensure!(figures["uplinks_acknowledged"].as_u64() > Some(500), "{}", told());
    ensure!(figures["events_stored"] == figures["events_emitted"], "{}", told());
    for none in ["events_lost", "events_doubled", "contradictions"] {
        ensure!(figures[none] == 0, "{none}: {}", told());
    }
    Ok(())
}

fn soak(seed: u64, more: &[&str]) -> Result<Finished> {
    let seed = seed.to_string();
    let folder = tempfile::tempdir()?.keep();
    let mut arguments = vec!["--json", "--seed", &seed, "--folder", folder.to_str().context("not UTF-8")?];
    arguments.extend(more);
    let ended = process::output(&programs::ours("weir-soak")?, &arguments, ENDS_WITHIN)?;
    // What was found something in stays.
    let _ = std::fs::remove_dir(folder);
    Ok(ended)
}
