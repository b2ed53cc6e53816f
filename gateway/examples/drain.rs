//! How fast a backlog goes into JetStream, on this machine: no sockets but the one to NATS.
//!
//! `cargo run --release -p weir-gateway --example drain -- NATS_URL [UPLINKS] [FOLDER] [EVENTS] [LEVEL]`
//!
//! Fills a spool with UPLINKS uplinks of EVENTS readings each, then starts the uplink and waits until the stream has all of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use weir_contract::body::{Body, Scalar};
use weir_contract::subject::Source;
use weir_contract::uplink::{self as wire, Event, Header};
use weir_gateway::clock::Clock;
use weir_gateway::custody::{Custody, Full, Waiter};
use weir_gateway::intake::SeqRun;
use weir_gateway::{journal, spool, uplink};

const DEVICES: u32 = 100;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("say where NATS is: nats://127.0.0.1:4222")?;
    let uplinks: u32 = args.next().map_or(Ok(1_000_000), |arg| arg.parse())?;
    let folder = args.next().map_or_else(|| std::env::temp_dir().join("weir-drain-bench"), PathBuf::from);
    let events: u32 = args.next().map_or(Ok(1), |arg| arg.parse())?;
    let zstd_level: u64 = args.next().map_or(Ok(1), |arg| arg.parse())?;
    let _ = std::fs::remove_dir_all(&folder);
    let config = spool::Config { bytes_max: 64 << 30, ..spool::Config::new(&folder) };
    let (custody, committer) = Custody::start(&config, 0)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;

    let began = Instant::now();
    runtime.block_on(fill(&custody, uplinks, events))?;
    let total = f64::from(uplinks) * f64::from(events);
    println!("stored: {:.0} events/s", total / began.elapsed().as_secs_f64());

    runtime.block_on(async {
        let id = |text: &str| text.parse().expect("a name");
        let source = Source { site: id("bench"), gateway: id("drain"), lane: id("main") };
        let config = uplink::Config { servers: vec![url], zstd_level, ..uplink::Config::default() };
        let (journal, _entries) = journal::channel();
        let began = Instant::now();
        let running = uplink::start(config, &source, Arc::clone(custody.spool()), journal, Clock::system());
        let all = running.drain(custody.spool().next_number(), Duration::from_secs(600)).await;
        let took = began.elapsed().as_secs_f64();
        let status = running.status().borrow().clone();
        anyhow::ensure!(all, "not everything was delivered: {status:?}");
        println!(
            "drained: {:.0} events/s in {} segments ({:.0} segments/s); {:.1} bytes per event raw, {:.1} sent; resident {}",
            total / took,
            status.segments,
            status.segments as f64 / took,
            status.bytes_raw as f64 / total,
            status.bytes_sent as f64 / total,
            resident(),
        );
        Ok(())
    })?;
    committer.stop().map_err(|error| anyhow::anyhow!(error.with_causes()))?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn fill(custody: &Custody, uplinks: u32, events: u32) -> anyhow::Result<()> {
    let waiter = Waiter::new();
    let mut ticket = None;
    for number in 0..uplinks {
        let (device, nth) = (number % DEVICES, number / DEVICES);
        let device = format!("sensor-{device}").parse()?;
        let run = SeqRun { boot: 7, first: nth * events + 1, last: (nth + 1) * events };
        let payload = payload(run)?;
        let received_ms = 1_800_000_000_000 + u64::from(nth) * 1000;
        ticket = loop {
            let offered = custody.gather().offer(&device, received_ms, None, &payload, run, &waiter);
            match offered {
                Ok(ticket) => break Some(ticket),
                Err(Full::Closed) => anyhow::bail!("custody is closed"),
                Err(_) => custody.room().await.map_err(|error| anyhow::anyhow!(error.with_causes()))?,
            }
        };
    }
    while ticket.is_some_and(|ticket| custody.stored() < ticket) {
        waiter.notified().await;
    }
    Ok(())
}

/// Readings with the noise that sensors have.
fn payload(run: SeqRun) -> anyhow::Result<Vec<u8>> {
    let bodies: Vec<Vec<u8>> = (run.first..=run.last)
        .map(|_| {
            let value = Scalar::Float(20.0 + f64::from(fastrand::u16(..1000)) / 100.0);
            let body = Body::ReadingTaken { sensor: "temperature".parse()?, value, unit: Some("Cel".into()) };
            let mut buffer = vec![0; 128];
            let len = body.write(&mut buffer).map_err(|_| anyhow::anyhow!("no room"))?;
            buffer.truncate(len);
            anyhow::Ok(buffer)
        })
        .collect::<Result<_, _>>()?;
    let kind = "reading-taken".parse()?;
    let events: Vec<Event<'_>> = (run.first..)
        .zip(&bodies)
        .map(|(seq, body)| Event { seq, at: u64::from(seq) * 1000, kind, version: 1, body })
        .collect();
    let header = Header { boot: run.boot, now: Some(u64::from(run.last) * 1000), epoch: None, via: None };
    let mut buffer = vec![0; wire::UPLINK_LEN_MAX];
    let len =
        wire::write(&mut buffer, &header, events.iter().copied()).map_err(|_| anyhow::anyhow!("no room"))?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Resident memory, where the system says it.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}
