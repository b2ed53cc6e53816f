//! Raw speed: as many valid uplinks per second as a gateway acknowledges, from an MQTT client made for nothing else.
//!
//! Payloads are not encoded but filled into a template; there is one read and one write per wake; a few threads carry all
//! connections. What is published is as real as a device's: consecutive numbers, so that `weir-sim verify` can prove that
//! all of it has arrived.

mod client;
mod summary;
mod template;
mod wire;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use crate::clock;
use crate::manifest::{DeviceEntry, Manifest};
use crate::output::grouped;
use crate::run::{device_id, parse_name};
use crate::stop::StopSignals;
use crate::target::TargetArgs;
use client::Client;
pub use summary::Summary;
use template::Template;
use worker::{Connection, Report, Worker};

/// Options of `weir-sim load`.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// Where to connect. No TLS.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many clients, each a device of its own
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub clients: u32,
    /// Uplinks that a client publishes before it waits for an acknowledgement
    #[arg(long, value_name = "W", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub window: u16,
    /// How long to publish
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Publish this many uplinks, however long it takes, instead of for a time
    #[arg(long, value_name = "N", conflicts_with_all = ["seconds", "idle"])]
    pub uplinks: Option<u64>,
    /// Publish nothing, only stay connected
    #[arg(long, conflicts_with = "rate")]
    pub idle: bool,
    /// Uplinks per second, all clients together; without, as fast as they are acknowledged
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// About this many bytes in an uplink (at least 25, and 70 for each event)
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub payload_bytes: u32,
    /// Events in an uplink
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
    /// Threads to do it with
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// The same seed gives the same devices, boots and values; without, one is drawn and told. A gateway that has seen a
    /// seed's boots takes them for repeated
    #[arg(long, default_value_t = fastrand::u64(..), hide_default_value = true)]
    pub seed: u64,
    /// Devices are called NAME-0001, NAME-0002 …
    #[arg(long, value_name = "NAME", default_value = "load", value_parser = parse_name)]
    pub name: String,
    /// How long to wait in the end for what is not acknowledged yet
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub drain: f64,
    /// Write what was emitted to this file, for `weir-sim verify`
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// How long clients may take to connect before the load begins without the rest.
const CONNECT_WAIT: Duration = Duration::from_secs(30);

/// A load failed before it began, or broke down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot be together.
    #[error("{0}")]
    Options(&'static str),
    /// More clients than open files.
    #[error(transparent)]
    Files(#[from] crate::files::TooMany),
    /// The gateway's name does not lead anywhere.
    #[error("cannot find the gateway {host}")]
    Address {
        /// As given.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// Sockets, threads or signals fail.
    #[error("the operating system refuses {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody could connect.
    #[error("no client could connect to {gateway}: {why}")]
    NotConnected {
        /// Where.
        gateway: SocketAddr,
        /// What the last one was told.
        why: String,
    },
}

/// What workers are told and what they tell while they work.
struct Shared {
    /// Publish.
    go: AtomicBool,
    /// When that was said, in microseconds since the start.
    went_us: AtomicU64,
    /// Publish nothing new, wait for acknowledgements.
    stop: AtomicBool,
    /// End now.
    quit: AtomicBool,
    /// There is a number of uplinks to make, and then it is over.
    ends_by_itself: bool,
    connected: AtomicU64,
    sent: AtomicU64,
    again: AtomicU64,
    acknowledged: AtomicU64,
    troubles: AtomicU64,
    last_trouble: Mutex<String>,
}

impl Shared {
    fn new(ends_by_itself: bool) -> Self {
        Self {
            go: AtomicBool::new(false),
            went_us: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            ends_by_itself,
            connected: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            again: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            troubles: AtomicU64::new(0),
            last_trouble: Mutex::new(String::new()),
        }
    }

    fn trouble(&self, why: &str) {
        self.troubles.fetch_add(1, Relaxed);
        why.clone_into(&mut self.last_trouble.lock().expect("nobody panics while holding it"));
    }

    fn last_trouble(&self) -> String {
        self.last_trouble.lock().expect("nobody panics while holding it").clone()
    }
}

/// What happened when, while it ran.
struct Course {
    connect: Duration,
    publishing: Duration,
    /// Acknowledged while publishing.
    acknowledged: u64,
}

/// Runs the load; returns what was emitted and what came of it.
///
/// # Errors
/// [`Error`] if it could not begin. Whatever goes wrong later is in the summary.
pub fn run(options: &LoadOptions) -> Result<(Manifest, Summary), Error> {
    check(options)?;
    crate::files::allow(options.clients.into())?;
    let gateway = resolve(&options.target)?;
    let shared = Arc::new(Shared::new(options.uplinks.is_some()));
    let started = Instant::now();
    let clients = clients(options);
    let payload_bytes = clients.first().map_or(0, |connection| connection.1);
    let mut workers = Vec::new();
    let mut connections: Vec<Connection> = clients.into_iter().map(|client| client.0).collect();
    let threads = (options.threads as usize).min(connections.len());
    for left in (1..=threads).rev() {
        let share: Vec<_> = connections.drain(..connections.len() / left).collect();
        let turn_us = options.rate.map(|rate| 1e6 / rate * f64::from(options.clients) / share.len() as f64);
        let what = "a poller of sockets";
        let worker = Worker::new(shared.clone(), gateway, share, turn_us, started)
            .map_err(|source| Error::System { what, source })?;
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || worker.run());
        workers.push(thread.map_err(|source| Error::System { what: "a thread", source })?);
    }
    let course = conduct(options, &shared, started, || workers.iter().all(|worker| worker.is_finished()));
    shared.quit.store(true, Relaxed);
    let reports = workers
        .into_iter()
        .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    let reports: Vec<Report> = reports
        .collect::<Result<_, _>>()
        .map_err(|source| Error::System { what: "to poll sockets", source })?;
    let course = course?;
    if course.connect >= CONNECT_WAIT && shared.acknowledged.load(Relaxed) == 0 && !options.idle {
        return Err(Error::NotConnected { gateway, why: shared.last_trouble() });
    }
    let summary = Summary::new(options, &shared, &course, payload_bytes, &reports);
    Ok((manifest(reports), summary))
}

fn check(options: &LoadOptions) -> Result<(), Error> {
    let positive = |number: f64| number > 0.0 && number <= 1e9;
    if options.target.gateway.tls {
        return Err(Error::Options("load speaks no TLS: use mqtt://, or weir-sim run"));
    }
    if !positive(options.seconds) || !(0.0..=1e9).contains(&options.drain) {
        return Err(Error::Options("--seconds must be above 0, --drain 0 or more"));
    }
    if options.rate.is_some_and(|rate| !positive(rate)) {
        return Err(Error::Options("--rate must be above 0"));
    }
    Ok(())
}

fn resolve(target: &TargetArgs) -> Result<SocketAddr, Error> {
    let host = target.gateway.host.clone();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (name, target.gateway.port).to_socket_addrs();
    let nowhere = || std::io::Error::from(std::io::ErrorKind::NotFound);
    addresses
        .and_then(|mut found| found.next().ok_or_else(nowhere))
        .map_err(|source| Error::Address { host, source })
}

/// The clients, each with the length of its uplinks.
fn clients(options: &LoadOptions) -> Vec<(Connection, usize)> {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let epoch = clock::unix_ms().saturating_sub(template::AGE_MS_MIN);
    let count = u64::from(options.clients);
    (0..count)
        .map(|number| {
            let device = device_id(&options.name, usize::try_from(number + 1).expect("at most 50,000"));
            let boot = rng.u64(..);
            let template =
                Template::new(device, boot, epoch, options.batch, options.payload_bytes as usize, &mut rng);
            let uplinks = match options.uplinks {
                _ if options.idle => 0,
                Some(uplinks) => uplinks / count + u64::from(number < uplinks % count),
                None => u64::MAX,
            };
            let client = Client::new(device, boot, template, options.window.into(), options.batch, uplinks);
            let login = options.target.login(&device);
            let connect = wire::connect(&device, worker::KEEP_ALIVE_S, login.as_ref());
            let len = client.payload_len();
            (Connection::new(client, connect, rng.u64(..)), len)
        })
        .collect()
}

/// Leads the workers: connect, publish, wait for the rest. Blocks until it is over.
fn conduct(
    options: &LoadOptions,
    shared: &Shared,
    started: Instant,
    finished: impl Fn() -> bool,
) -> Result<Course, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { what: "a runtime", source })?;
    runtime.block_on(async {
        let mut signals =
            StopSignals::listen().map_err(|source| Error::System { what: "to hear signals", source })?;
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}").expect("well-formed"),
        );
        let everybody = u64::from(options.clients);
        let connected = || shared.connected.load(Relaxed) == everybody;
        let stopped = wait(&mut signals, &bar, shared, CONNECT_WAIT, || connected() || finished()).await;
        let connect = started.elapsed();
        shared.went_us.store(u64::try_from(connect.as_micros()).unwrap_or(u64::MAX), Relaxed);
        shared.go.store(true, Relaxed);
        if !stopped {
            let limit = if options.uplinks.is_some() {
                Duration::MAX
            } else {
                Duration::from_secs_f64(options.seconds)
            };
            wait(&mut signals, &bar, shared, limit, &finished).await;
        }
        let acknowledged = shared.acknowledged.load(Relaxed);
        let publishing = started.elapsed().saturating_sub(connect);
        shared.stop.store(true, Relaxed);
        wait(&mut signals, &bar, shared, Duration::from_secs_f64(options.drain), &finished).await;
        bar.finish_and_clear();
        Ok(Course { connect, publishing, acknowledged })
    })
}

/// Until the time is over, or `done`, or a signal comes: then returns true.
async fn wait(
    signals: &mut StopSignals,
    bar: &ProgressBar,
    shared: &Shared,
    limit: Duration,
    done: impl Fn() -> bool,
) -> bool {
    let began = Instant::now();
    while !done() {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        tokio::select! {
            () = signals.next() => return true,
            () = sleep(left.min(Duration::from_millis(5))) => {}
        }
        if !bar.is_hidden() {
            let [connected, sent, acknowledged] = [&shared.connected, &shared.sent, &shared.acknowledged]
                .map(|counter| grouped(counter.load(Relaxed)));
            bar.set_message(format!("{connected} connected, {sent} sent, {acknowledged} acknowledged"));
        }
    }
    false
}

fn manifest(reports: Vec<Report>) -> Manifest {
    let clients = reports.into_iter().flat_map(|report| report.clients);
    let mut devices: Vec<DeviceEntry> = clients
        .map(|client| DeviceEntry { device: client.device.to_string(), boots: vec![client.entry()] })
        .filter(|device| device.boots[0].emitted > 0)
        .collect();
    devices.sort_by(|a, b| a.device.cmp(&b.device));
    Manifest { devices }
}
