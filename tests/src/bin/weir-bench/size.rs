//! What a gateway takes of a machine: idle, and with a backlog that an outage of days would leave.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use weir_tests::cloud::Cloud;
use weir_tests::mqtt::{Client, Connect};
use weir_tests::process::Usage;
use weir_tests::wait::{eventually, pause};

use crate::Scale;
use crate::load::{Load, PAYLOAD_BYTES};
use crate::pipeline::{Pipeline, idle_cpu};
use crate::report::{Report, Target, Unit};

const MB: f64 = 1e6;
/// Until what was allocated for connecting is given back.
const SETTLE: Duration = Duration::from_secs(2);
const IDLE_LOOK: Duration = Duration::from_secs(10);
/// Processor time "near 0".
const IDLE_CPU_PERCENT: f64 = 1.0;
const PROJECTED_WITHIN: Duration = Duration::from_secs(900);

/// Memory and processor time while nothing happens.
pub fn idle(report: &mut Report, folder: &Path, scale: &Scale) -> Result<()> {
    const GROUP: &str = "idle";
    let mut pipeline = Pipeline::start(folder, false)?;
    let few = connect(&pipeline, "few", 100)?;
    pause(SETTLE);
    let with_few = pipeline.gateway_usage()?.resident_bytes as f64;
    report.add(GROUP, "gateway resident, 100 connections", with_few, Unit::Bytes, Target::Under(24.0 * MB));
    let many = connect(&pipeline, "many", scale.idle)?;
    pause(SETTLE);
    let with_many = pipeline.gateway_usage()?.resident_bytes as f64;
    let each = (with_many - with_few) / many.len() as f64;
    report.add(
        GROUP,
        format!("each of {} idle connections", many.len()),
        each,
        Unit::Bytes,
        Target::Under(10_000.0),
    );

    let cloud_folder = pipeline.folder().join("cloud");
    let mut cloud = Cloud::start(&cloud_folder, Cloud::config(&cloud_folder, &pipeline.nats.url())?)?;
    pause(SETTLE);
    let gateway = pipeline.gateway.process()?.id();
    let ids = [
        ("gateway", gateway),
        ("cloud", cloud.process()?.id()),
        ("nats-server", pipeline.nats.process()?.id()),
    ];
    for (name, id) in ids {
        let target = if name == "nats-server" { Target::None } else { Target::Under(IDLE_CPU_PERCENT) };
        let percent = idle_cpu(|| Usage::of(id), IDLE_LOOK)?;
        report.add(GROUP, format!("{name}'s processor time"), percent, Unit::PercentOfCore, target);
    }
    drop(few);
    Ok(())
}

fn connect(pipeline: &Pipeline, name: &str, count: usize) -> Result<Vec<Client>> {
    let connect = |index| {
        let connect = Connect { keep_alive_s: 0, ..Connect::new(&format!("{name}-{index}")) };
        Client::connect(pipeline.address(), &connect)
    };
    (0..count)
        .map(connect)
        .collect::<Result<_>>()
        .context("the limit of open files may be too low (ulimit -n)")
}

/// Fills a spool while the log is away, starts the gateway on it, lets it drain, and lets a cloud read all of it.
pub fn backlog(report: &mut Report, folder: &Path, scale: &Scale) -> Result<()> {
    const GROUP: &str = "backlog";
    let mut pipeline = Pipeline::start(folder, false)?;
    eventually(Duration::from_secs(20), "the stream", || Ok(pipeline.nats.stream().ok()))?;
    pipeline.nats.stop()?;
    let load = Load { uplinks: Some(scale.backlog), ..Load::unpaced(100, Duration::from_secs(600)) };
    let loaded = load.run(pipeline.address(), None)?;
    ensure!(loaded.acknowledged >= scale.backlog, "only {} were acknowledged", loaded.acknowledged);
    let millions = loaded.acknowledged as f64 / 1e6;
    pause(SETTLE);
    let resident = pipeline.gateway_usage()?.resident_bytes_max as f64;
    report.add(
        GROUP,
        format!("gateway resident at most, filling {millions:.1} million"),
        resident,
        Unit::Bytes,
        Target::None,
    );
    let now = pipeline.gateway_usage()?.resident_bytes as f64;
    report.add(GROUP, "gateway resident then", now, Unit::Bytes, Target::Under(64.0 * MB));
    let on_disk = pipeline.spool_bytes()? as f64 / loaded.acknowledged as f64;
    report.add(
        GROUP,
        format!("spool bytes per event of {PAYLOAD_BYTES} B"),
        on_disk,
        Unit::Bytes,
        Target::None,
    );

    pipeline.gateway.kill9()?;
    let began = Instant::now();
    pipeline.gateway.start_again()?;
    let took_ms = began.elapsed().as_secs_f64() * 1e3;
    report.add(
        GROUP,
        "start after kill -9, until it listens",
        took_ms,
        Unit::Milliseconds,
        Target::Under(1_000.0),
    );
    pause(SETTLE);
    let restarted = pipeline.gateway_usage()?.resident_bytes as f64;
    report.add(GROUP, "gateway resident after that start", restarted, Unit::Bytes, Target::Under(64.0 * MB));

    drain(report, &mut pipeline)?;
    project(report, &mut pipeline)
}

/// From the log's return until it holds everything.
fn drain(report: &mut Report, pipeline: &mut Pipeline) -> Result<()> {
    const GROUP: &str = "drain";
    pipeline.nats.start_again()?;
    let first = eventually(Duration::from_secs(60), "the first segment", || {
        let delivered = pipeline.delivered()?;
        Ok((delivered > 0).then_some(delivered))
    })?;
    let began = Instant::now();
    pipeline.await_delivered()?;
    let drained = pipeline.delivered()? - first;
    let per_s = drained as f64 / began.elapsed().as_secs_f64();
    report.add(GROUP, "backlog into JetStream", per_s, Unit::PerSecond, Target::AtLeast(500_000.0));
    let usage = pipeline.gateway_usage()?;
    report.add(
        GROUP,
        "gateway resident at most",
        usage.resident_bytes_max as f64,
        Unit::Bytes,
        Target::Under(64.0 * MB),
    );
    let stream = pipeline.nats.stream()?;
    let per_event = stream.bytes as f64 / pipeline.delivered()? as f64;
    report.add(
        GROUP,
        format!("bytes per event of {PAYLOAD_BYTES} B, as the stream counts"),
        per_event,
        Unit::Bytes,
        Target::None,
    );
    Ok(())
}

/// A cloud that starts with nothing reads the whole log.
fn project(report: &mut Report, pipeline: &mut Pipeline) -> Result<()> {
    const GROUP: &str = "projection into SQLite";
    let events = pipeline.delivered()?;
    let folder = pipeline.folder().join("cloud");
    let began = Instant::now();
    let mut cloud = Cloud::start(&folder, Cloud::config(&folder, &pipeline.nats.url())?)?;
    eventually(PROJECTED_WITHIN, "the cloud to have read everything", || {
        let status = cloud.get("/v1/status")?;
        let position = &status["position"];
        if position["lag_messages"] != 0 || position["stream_sequence"] != position["stream_last_sequence"] {
            bail!("{position}");
        }
        Ok(status["store"]["events"].as_u64().filter(|stored| *stored >= events))
    })?;
    let took = began.elapsed().as_secs_f64();
    let usage = cloud.process()?.usage()?;
    report.add(GROUP, "with history", events as f64 / took, Unit::PerSecond, Target::AtLeast(100_000.0));
    report.add(
        GROUP,
        "for each core-second",
        events as f64 / usage.cpu.as_secs_f64(),
        Unit::PerSecond,
        Target::AtLeast(100_000.0),
    );
    report.add(GROUP, "cloud resident at most", usage.resident_bytes_max as f64, Unit::Bytes, Target::None);
    Ok(())
}
