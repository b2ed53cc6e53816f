//! How many uplinks a second are acknowledged, which means on disk, and how soon.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::Scale;
use crate::load::{Load, PAYLOAD_BYTES};
use crate::pipeline::Pipeline;
use crate::report::{Report, Target, Unit};
use crate::rivals::{Mosquitto, NatsLeaf, Rival};

/// Unacknowledged publishes of each client.
const WINDOW: f64 = 20.0;

/// QoS 1 uplinks of 100 B as fast as they are taken, from 100 clients, 1,000 and one.
pub fn acknowledged(
    report: &mut Report,
    folder: &Path,
    scale: &Scale,
    sync: Duration,
    rivals: bool,
) -> Result<()> {
    const GROUP: &str = "acknowledged, 100 B, window 20";
    // One client has 20 in flight at a time, and each 20 wait for one sync of the disk.
    let one = 0.6 * WINDOW / sync.as_secs_f64();
    let mut ours = Vec::new();
    for (clients, target) in [(100, 300_000.0), (1_000, 250_000.0), (1, one)] {
        let mut pipeline = Pipeline::start(folder, false)?;
        let arrived = pipeline.load(Load::unpaced(clients, scale.time))?;
        let usage = pipeline.gateway_usage()?;
        let per_s = arrived.loaded.acknowledged_per_s;
        report.add(
            GROUP,
            format!("weir, {clients} clients, fdatasync before PUBACK"),
            per_s,
            Unit::PerSecond,
            Target::AtLeast(target),
        );
        report.add(GROUP, "  arrived in JetStream", arrived.per_s, Unit::PerSecond, Target::None);
        report.add(GROUP, "  PUBACK p99", arrived.loaded.latency_ms.p99, Unit::Milliseconds, Target::None);
        report.add(
            GROUP,
            "  gateway resident, at most",
            usage.resident_bytes_max as f64,
            Unit::Bytes,
            Target::None,
        );
        ours.push((clients, per_s));
    }
    if rivals {
        against_rivals(report, folder, scale, &ours)?;
    }
    Ok(())
}

fn against_rivals(report: &mut Report, folder: &Path, scale: &Scale, ours: &[(u32, f64)]) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(folder)?;
    for &(clients, our_per_s) in ours {
        let load = Load::unpaced(clients, scale.time);
        let target = if clients == 100 { Target::AtLeast(2.5) } else { Target::None };
        let leaf = NatsLeaf::start(&folder.path().join(format!("leaf-{clients}")))?.load(load)?;
        tell_rival(report, &format!("nats-server leaf, {clients} clients"), &leaf, our_per_s, target);
        match Mosquitto::start(&folder.path().join(format!("mosquitto-{clients}")))? {
            None => report.note("mosquitto is not installed here and was left out"),
            Some(mut mosquitto) => {
                let bridge = mosquitto.load(load)?;
                let name = format!("mosquitto bridge, {clients} clients");
                tell_rival(report, &name, &bridge, our_per_s, Target::None);
            }
        }
    }
    Ok(())
}

fn tell_rival(report: &mut Report, name: &str, rival: &Rival, our_per_s: f64, target: Target) {
    const GROUP: &str = "rivals, the same load, no fdatasync";
    report.add(GROUP, name, rival.loaded.acknowledged_per_s, Unit::PerSecond, Target::None);
    report.add(GROUP, "  resident, at most", rival.edge.resident_bytes_max as f64, Unit::Bytes, Target::None);
    report.add(
        GROUP,
        "  weir is faster by",
        our_per_s / rival.loaded.acknowledged_per_s,
        Unit::Times,
        target,
    );
    if rival.loaded.unacknowledged > 0 {
        report.note(format!("{name}: {} uplinks never got a PUBACK", rival.loaded.unacknowledged));
    }
}

/// A steady 5,000 uplinks a second from 1,000 clients.
pub fn latency(report: &mut Report, folder: &Path, scale: &Scale) -> Result<()> {
    const GROUP: &str = "5,000/s from 1,000 clients";
    let mut pipeline = Pipeline::start(folder, true)?;
    let load = Load { rate: Some(5_000), ..Load::unpaced(1_000, scale.time) };
    let cpu_before = pipeline.gateway_usage()?.cpu;
    let arrived = pipeline.load(load)?;
    let cpu = (pipeline.gateway_usage()?.cpu - cpu_before).as_secs_f64() / scale.time.as_secs_f64();
    report.add(GROUP, "PUBACK p50", arrived.loaded.latency_ms.p50, Unit::Milliseconds, Target::Under(2.0));
    report.add(GROUP, "PUBACK p99", arrived.loaded.latency_ms.p99, Unit::Milliseconds, Target::Under(10.0));
    report.add(GROUP, "gateway's processor time", cpu * 100.0, Unit::PercentOfCore, Target::None);
    let sent = pipeline.link.as_ref().map_or(0, weir_tests::link::Link::sent_bytes);
    let per_event = sent as f64 / arrived.loaded.acknowledged as f64;
    report.add(
        GROUP,
        format!("uplink bytes per event of {PAYLOAD_BYTES} B, live"),
        per_event,
        Unit::Bytes,
        Target::None,
    );
    Ok(())
}
