//! How long this disk takes to make a small append durable: what every "stored" here is made of.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

const APPENDS: usize = 300;
/// About what a group commit of 20 uplinks of 100 B is.
const APPEND_BYTES: usize = 4096;

/// The median time of appending and `fdatasync`, in the folder where spools will be.
pub fn fdatasync(folder: &Path) -> Result<Duration> {
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
    Ok(times[APPENDS / 2])
}
