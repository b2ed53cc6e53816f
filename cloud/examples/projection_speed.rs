//! How many events per second the projection folds into SQLite on one core, for a few shapes of what arrives:
//! `cargo run --release -p weir-cloud --example projection_speed [EVENTS]`.

use weir_cloud::projection::bench::{Shape, run};

fn main() -> anyhow::Result<()> {
    let events = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let live = Shape {
        devices: 1_000,
        events_per_uplink: 1,
        uplinks_per_segment: 1_000,
        segments_per_transaction: 40,
        events,
    };
    let shapes = [
        ("1,000 devices, 1 event per uplink", live),
        (
            "1,000 devices, 16 events per uplink",
            Shape { events_per_uplink: 16, uplinks_per_segment: 200, ..live },
        ),
        ("10,000 devices, 1 event per uplink", Shape { devices: 10_000, ..live }),
        (
            "1,000 devices, live: 100 events at a time",
            Shape { segments_per_transaction: 1, uplinks_per_segment: 100, ..live },
        ),
        ("10 devices, 1 event per uplink", Shape { devices: 10, ..live }),
    ];
    println!(
        "{:<42} {:>10} {:>15} {:>10} {:>12} {:>12}",
        "shape", "events/s", "per s on a core", "disk B/ev.", "log B/ev.", "resident MB"
    );
    for (name, shape) in shapes {
        let folder = tempfile::tempdir()?;
        let measured = run(shape, folder.path())?;
        println!(
            "{name:<42} {:>10.0} {:>15.0} {:>10} {:>12} {:>12}",
            measured.events_per(measured.took),
            measured.events_per(measured.on_core),
            measured.file_bytes / measured.events,
            measured.log_bytes / measured.events,
            resident_mb()?,
        );
    }
    Ok(())
}

/// The most memory this process has had so far, the segments that wait to be folded included.
fn resident_mb() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) / 1024)
}
