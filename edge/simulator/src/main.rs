//! `weir-sim`: simulated devices, load, and the conservation check.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use weir_simulator::{load, output, run, verify};

/// Simulated Weir devices, raw load, and the check that nothing was lost
#[derive(Debug, Parser)]
#[command(name = "weir-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  weir-sim run --devices 200 --rate 5 --seconds 60 --batch 10 --faults mild --manifest m.json
  weir-sim verify --manifest m.json --cloud http://127.0.0.1:9890 --wait 30s
  weir-sim load --clients 100 --window 20 --seconds 10";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many devices that sample, keep what they saw until it is acknowledged, and suffer faults
    ///
    /// Ends by itself, or at Ctrl-C or SIGTERM in good order: devices deliver what they have, for --drain seconds at most
    /// (a second signal ends at once). Exit code 0: everything was acknowledged or told as lost; 1: something was not; 2:
    /// could not run.
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::RunOptions),
    /// Publish as many valid uplinks per second as the gateway acknowledges
    ///
    /// Exit code 0: everything was acknowledged; 1: something was not; 2: could not run.
    #[command(after_help = LOAD_EXAMPLES)]
    Load(load::LoadOptions),
    /// Prove by asking the cloud that emitted = stored + ledger, each event exactly once
    ///
    /// Exit code 0: proven; 1: it is not so; 2: could not ask.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(verify::VerifyOptions),
}

const RUN_EXAMPLES: &str = "\
Examples:
  ten devices, ten events per second each, for half a minute
    weir-sim run
  ten thousand devices in uplinks of up to 20 events, with everything that can go wrong
    weir-sim run --devices 10000 --rate 2 --batch 20 --faults rough --seed 7 --manifest m.json
  only dropped connections and doubled uplinks, 4 KiB of memory each, so that outboxes overflow
    weir-sim run --faults drops=6,duplicates=0.1 --outbox-bytes 4096
  TLS with one certificate per device
    weir-sim run --gateway mqtts://gateway:8883 --ca ca.pem --cert '{device}.pem' --key '{device}.key'";

const LOAD_EXAMPLES: &str = "\
Examples:
  as much as 100 clients with 20 uplinks in flight can get acknowledged in 10 seconds
    weir-sim load
  latency at 5000 uplinks per second from 1000 clients
    weir-sim load --clients 1000 --rate 5000 --seconds 30
  a million uplinks of 10 events, and a manifest of them
    weir-sim load --uplinks 1000000 --batch 10 --payload-bytes 500 --manifest m.json
  10000 idle connections for a minute
    weir-sim load --clients 10000 --idle --seconds 60";

const VERIFY_EXAMPLES: &str = "\
Examples:
  wait until everything has arrived, half a minute at most, then prove it
    weir-sim verify --manifest m.json --wait 30s
  for a program, without reading every event
    weir-sim verify --manifest m.json --runs-only --json";

const NOT_ALL: u8 = 1;
const COULD_NOT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_env("WEIR_SIM_LOG").unwrap_or_else(|_| EnvFilter::new("warn,rumqttc=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match cli.command {
        Command::Run(options) => run_devices(options),
        Command::Load(options) => run_load(&options),
        Command::Verify(options) => run_verify(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_ALL),
        Err(error) => {
            eprintln!("weir-sim: {error:#}");
            ExitCode::from(COULD_NOT)
        }
    }
}

fn run_devices(options: run::RunOptions) -> anyhow::Result<bool> {
    let (json, path) = (options.json, options.manifest.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let (manifest, summary) = runtime.block_on(run::run(options))?;
    runtime.shutdown_background();
    if let Some(path) = path {
        manifest.write(&path)?;
    }
    if json {
        output::print_json(&summary)?;
    } else {
        println!("{}", summary.table());
    }
    if summary.unacknowledged > 0 {
        let why = summary.last_trouble.as_deref().unwrap_or("no acknowledgement came");
        eprintln!("weir-sim: {} events were not acknowledged ({why})", summary.unacknowledged);
    }
    Ok(summary.unacknowledged == 0)
}

fn run_load(options: &load::LoadOptions) -> anyhow::Result<bool> {
    let (json, path) = (options.json, options.manifest.clone());
    let (manifest, summary) = load::run(options)?;
    if let Some(path) = path {
        manifest.write(&path)?;
    }
    if json {
        output::print_json(&summary)?;
    } else {
        println!("{}", summary.table());
    }
    if summary.unacknowledged > 0 {
        eprintln!("weir-sim: {} uplinks were not acknowledged", summary.unacknowledged);
    }
    Ok(summary.unacknowledged == 0)
}

fn run_verify(options: &verify::VerifyOptions) -> anyhow::Result<bool> {
    let report = verify::run(options)?;
    if options.json {
        output::print_json(&report)?;
    } else {
        println!("{}", report.table());
    }
    Ok(report.proven)
}
