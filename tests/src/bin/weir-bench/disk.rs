//! How long this disk takes to make a small append durable: what every "stored" here is made of.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

const APPENDS: usize = 1000;
/// About what a group commit of 20 uplinks of 100 B is.
const APPEND_BYTES: usize = 4096;

/// How long appending and `fdatasync` take: half of them, and 99 of 100, no longer than this.
pub struct Sync {
    /// The median.
    pub p50: Duration,
    /// What the slowest hundredth takes is in every PUBACK's p99.
    pub p99: Duration,
}

/// Measures it in the folder where spools will be.
pub fn fdatasync(folder: &Path) -> Result<Sync> {
    let path = folder.join("fdatasync");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let began = Instant::now();
        file.write_all(&[0x5A; APPEND_BYTES])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort();
    Ok(Sync { p50: times[APPENDS / 2], p99: times[APPENDS * 99 / 100] })
}
