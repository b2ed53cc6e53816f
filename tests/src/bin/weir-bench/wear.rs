//! What is written to disk for each event, which is what flash wears out by: it depends on how many share a commit.

use std::path::Path;

use anyhow::Result;

use crate::Scale;
use crate::load::{Load, PAYLOAD_BYTES};
use crate::pipeline::Pipeline;
use crate::report::{Report, Target, Unit};

/// A commit writes whole blocks, so the first is a house with ten sensors, the worst there is; the second the same with the
/// commits of profile `pi-zero-2`, the third with a second's patience; and the last a plant where many share every commit.
const CASES: [(u32, u32, u32); 4] = [(10, 100, 0), (10, 100, 50), (10, 100, 1000), (1_000, 5_000, 0)];

/// Bytes written for each event, and for each byte that devices sent.
pub fn written(report: &mut Report, folder: &Path, scale: &Scale) -> Result<()> {
    const GROUP: &str = "written to disk for each event";
    for (clients, rate, delay_ms) in CASES {
        let settings = |spool: &mut toml::Table| {
            spool.insert("commit_delay_ms".into(), i64::from(delay_ms).into());
        };
        let mut pipeline = Pipeline::start_with(folder, false, settings)?;
        let before = pipeline.written()?;
        let arrived = pipeline.load(Load { rate: Some(rate), ..Load::unpaced(clients, scale.time) })?;
        let Some((after, before)) = pipeline.written()?.zip(before) else {
            report.note("this kernel does not count what a process writes");
            return Ok(());
        };
        let each = (after - before) as f64 / arrived.loaded.acknowledged as f64;
        let name = format!("{rate}/s from {clients} devices, commit_delay_ms {delay_ms}");
        report.add(GROUP, name, each, Unit::Bytes, Target::None);
        let amplification = each / f64::from(PAYLOAD_BYTES);
        report.add(GROUP, "  write amplification", amplification, Unit::Times, Target::None);
    }
    Ok(())
}
