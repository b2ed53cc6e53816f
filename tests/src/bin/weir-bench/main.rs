//! Speed and size of Weir on this machine, with what was meant to be reached, and rivals under the same load.
//!
//! Load, gateway and nats-server share the machine's cores, as they would on one box.

mod disk;
mod load;
mod pipeline;
mod report;
mod rivals;
mod size;
mod speed;
mod wear;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use weir_tests::{process, programs};

use report::Report;

/// Measures speed and size of Weir, prints a table and writes JSON.
#[derive(Parser)]
#[command(name = "weir-bench", version)]
struct Arguments {
    /// Smaller sizes and shorter times: a few minutes become one, and numbers become rough
    #[arg(long)]
    quick: bool,
    /// Leave out nats-server and mosquitto in Weir's place
    #[arg(long)]
    no_rivals: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    only: Vec<Part>,
    /// Where to write the numbers as JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Where spools and streams are kept meanwhile: the disk that is measured
    #[arg(long, default_value = "target")]
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Acknowledged uplinks a second
    Speed,
    /// Latency of PUBACKs at a steady rate, and bytes on the uplink
    Latency,
    /// Bytes written to disk for each event: what flash wears out by
    Wear,
    /// Memory, processor time while idle
    Size,
    /// A large backlog: memory, start, drain; and the cloud reading all of it
    Backlog,
}

impl Part {
    const ALL: [Part; 5] = [Part::Speed, Part::Latency, Part::Wear, Part::Size, Part::Backlog];
}

/// What is different when in a hurry.
struct Scale {
    /// Of one measurement.
    time: Duration,
    /// Events.
    backlog: u64,
    /// Connections.
    idle: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let scale = if arguments.quick {
        Scale { time: Duration::from_secs(3), backlog: 500_000, idle: 500 }
    } else {
        Scale { time: Duration::from_secs(10), backlog: 10_000_000, idle: 4_000 }
    };
    if cfg!(debug_assertions) {
        eprintln!(
            "weir-bench: this is a debug build; its numbers mean nothing (make bench builds for release)"
        );
    }
    std::fs::create_dir_all(&arguments.folder)?;
    let folder = arguments.folder.canonicalize()?;
    let mut report = Report::new(machine(), arguments.quick);
    eprintln!("{}", report.machine);
    let sync = disk::fdatasync(&folder).context("measuring the disk")?;
    report.note(
        "payloads of the load are much alike, so zstd does better here than with readings of the field",
    );
    for (name, time) in [("append of 4 KiB and fdatasync, p50", sync.p50), ("  p99", sync.p99)] {
        let ms = time.as_secs_f64() * 1e3;
        report.add("disk", name, ms, report::Unit::Milliseconds, report::Target::None);
    }
    for part in &arguments.only {
        match part {
            Part::Speed => speed::acknowledged(&mut report, &folder, &scale, sync.p50, !arguments.no_rivals)?,
            Part::Latency => speed::latency(&mut report, &folder, &scale)?,
            Part::Wear => wear::written(&mut report, &folder, &scale)?,
            Part::Size => size::idle(&mut report, &folder, &scale)?,
            Part::Backlog => size::backlog(&mut report, &folder, &scale)?,
        }
    }
    println!("{}\n{}", report.machine, report.table());
    for note in report.notes() {
        println!("- {note}");
    }
    report.write_json(&arguments.json).with_context(|| format!("writing {}", arguments.json.display()))?;
    println!("The same as JSON: {}", arguments.json.display());
    Ok(())
}

/// What all numbers depend on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let nats = programs::nats_server()
        .and_then(|nats| process::output(&nats, &["--version"], Duration::from_secs(5)));
    let nats = nats.map(|said| said.out.trim().to_owned()).unwrap_or_default();
    format!("{cores} cores, {model}; {nats}; weir {}", env!("CARGO_PKG_VERSION"))
}
