//! How fast custody is by itself, on this machine and this disk: no sockets, no NATS.
//!
//! `cargo run --release -p weir-gateway --example custody -- [FOLDER] [SECONDS] [CLIENTS] [WINDOW] [THREADS]`
//!
//! Clients offer uplinks of 100 bytes, a window at a time, and wait until those are on disk, as connections do. Then the spool is
//! closed and opened, and everything is read back from the epochs. Prints one line for each.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weir_gateway::custody::{Custody, Waiter};
use weir_gateway::intake::SeqRun;
use weir_gateway::spool;

const NOW_MS: u64 = 1_800_000_000_000;
const PAYLOAD: [u8; 100] = [0x5a; 100];

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(|| std::env::temp_dir().join("weir-custody-bench"), PathBuf::from);
    let mut number = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse());
    let (seconds, clients, window, threads) = (number(5)?, number(100)?, number(20)?, number(2)?);
    let config = spool::Config { bytes_max: 64 << 30, ..spool::Config::new(&folder) };
    let (custody, committer) = Custody::start(&config, NOW_MS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::try_from(threads)?)
        .enable_all()
        .build()?;
    let (stop, offered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| runtime.spawn(offer(custody.clone(), client, window, stop.clone(), offered.clone())))
        .collect();
    runtime.block_on(async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("no client panics");
        }
    });
    let took = began.elapsed().as_secs_f64();
    let uplinks = offered.load(Ordering::Relaxed);
    let commits = custody.stored().ordinal();
    let status = custody.spool().status();
    println!(
        "stored: {:.0} uplinks/s, {:.0} commits/s, {:.0} uplinks/commit; {} epochs, {:.1} bytes on disk per uplink, resident {}",
        uplinks as f64 / took,
        commits as f64 / took,
        uplinks as f64 / commits as f64,
        status.epochs.len(),
        status.bytes as f64 / uplinks as f64,
        resident(),
    );
    let began = Instant::now();
    drop(custody);
    committer.stop().map_err(|error| anyhow::anyhow!(error.with_causes()))?;
    let stopped = began.elapsed();
    let began = Instant::now();
    let (spool, writer) = spool::Spool::open(&config, NOW_MS)?;
    println!("stopped in {stopped:.1?}, opened again with all of it in {:.1?}", began.elapsed());
    read_back(&spool)?;
    writer.close();
    remove(&folder)
}

/// Reads and releases everything, as an uplink would.
fn read_back(spool: &spool::Spool) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut wanted, mut bytes) = (1, 0);
    loop {
        let records = spool.read_from(wanted, 256 * 1024)?;
        let Some(last) = records.last() else { break };
        wanted = last.end();
        bytes += records.iter().map(|record| record.entries.len()).sum::<usize>();
        spool.release(wanted, 1)?;
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "read back: {:.0} uplinks/s, {:.0} MB/s, resident {}",
        (wanted - 1) as f64 / took,
        bytes as f64 / took / 1e6,
        resident()
    );
    Ok(())
}

async fn offer(custody: Custody, client: u64, window: u64, stop: Arc<AtomicBool>, offered: Arc<AtomicU64>) {
    let device = format!("bench-{client}").parse().expect("a name");
    let waiter = Waiter::new();
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut ticket = None;
        {
            let mut gather = custody.gather();
            for _ in 0..window {
                let run = SeqRun { boot: 1, first: seq + 1, last: seq + 1 };
                match gather.offer(&device, NOW_MS, None, &PAYLOAD, run, &waiter) {
                    Ok(taken) => ticket = Some(taken),
                    Err(_) => break,
                }
                seq += 1;
                offered.fetch_add(1, Ordering::Relaxed);
            }
        }
        match ticket {
            Some(ticket) => {
                while custody.stored() < ticket {
                    waiter.notified().await;
                    assert!(custody.failed().is_none(), "custody failed");
                }
            }
            None => custody.room().await.expect("custody does not fail"),
        }
    }
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".to_owned(), |rss| rss.trim().to_owned())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(folder)?)
}
