//! Many simulated devices over real MQTT, with faults.

mod actor;
mod faults;
mod link;
mod profile;
mod stats;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rumqttc::Transport;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use weir_contract::Id;
use weir_contract::uplink::{EVENT_OVERHEAD_MAX, HEADER_LEN_MAX, UPLINK_LEN_MAX};

use crate::manifest::{DeviceEntry, Manifest};
use crate::output::print_json;
use crate::stop::StopSignals;
use crate::target::TargetArgs;
use actor::{Actor, Phase};
pub use faults::Faults;
use link::LinkConfig;
pub use profile::Profile;
use stats::Stats;
pub use stats::{FaultCounts, Summary};

/// How often progress is shown.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Devices connect at this pace in the beginning.
const CONNECTS_PER_S: u64 = 2000;
/// The smallest uplink limit a device is given, whatever its bodies: room for any event the simulator makes.
const UPLINK_LEN_MIN: usize = 1024;
/// Rough bytes of a body without padding.
const BODY_LEN_TYPICAL: usize = 96;

/// Options of `weir-sim run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Where to connect.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = parse_devices)]
    pub devices: usize,
    /// Events per second of each device
    #[arg(long, value_name = "R", default_value_t = 10.0, value_parser = parse_rate)]
    pub rate: f64,
    /// How long devices emit events; then they only deliver what they have
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// No device emits more events than this
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub events_per_device: u64,
    /// Events in an uplink at most
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: u16,
    /// How long an event waits for others to share its uplink
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub linger_ms: u64,
    /// Uplinks a device publishes before it waits for an acknowledgement
    #[arg(long, value_name = "W", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=i64::from(WINDOW_MAX)))]
    pub window: u16,
    /// What the devices observe
    #[arg(long, value_enum, default_value_t = Profile::Numeric)]
    pub profile: Profile,
    /// Pad bodies to at least this many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = parse_body_bytes)]
    pub body_bytes: usize,
    /// Memory of a device for events that are not acknowledged (10,000 devices with 65536 take about a gigabyte)
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = parse_outbox_bytes)]
    pub outbox_bytes: usize,
    /// What goes wrong: none, mild, rough, or NAME=NUMBER,…
    ///
    /// Per device and minute: reconnects, drops (socket closed without a word), silences (socket left open), boots (power
    /// cut, events kept). Shares from 0 to 1: duplicates (of uplinks), skewed (of devices: clock wrong)
    #[arg(long, value_name = "FAULTS", default_value = "none")]
    pub faults: Faults,
    /// The same seed gives the same devices, boots, events and faults; without, one is drawn and told. A gateway that has
    /// seen a seed's boots takes them for repeated
    #[arg(long, default_value_t = fastrand::u64(..), hide_default_value = true)]
    pub seed: u64,
    /// Devices are called NAME-0001, NAME-0002 …
    #[arg(long, value_name = "NAME", default_value = "sim", value_parser = parse_name)]
    pub name: String,
    /// MQTT keep-alive
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub keep_alive: u16,
    /// How long to wait in the end for what is not acknowledged yet
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = parse_seconds)]
    pub drain: f64,
    /// Write what was emitted to this file, for `weir-sim verify`
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Print {"emitted": …, "acknowledged": …} now and then, for a program that watches
    #[arg(long)]
    pub progress: bool,
}

/// The greatest `--window`.
const WINDOW_MAX: u16 = 16;

fn parse_devices(text: &str) -> Result<usize, String> {
    let devices = text.parse().map_err(|_| "not a number")?;
    if (1..=10_000).contains(&devices) { Ok(devices) } else { Err("from 1 to 10000".into()) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number")?;
    if (1e-6..=1e6).contains(&rate) { Ok(rate) } else { Err("from 0.000001 to 1000000".into()) }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1e7).contains(&seconds) { Ok(seconds) } else { Err("from 0 to 10000000".into()) }
}

fn parse_body_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().map_err(|_| "not a number")?;
    if bytes <= 60_000 { Ok(bytes) } else { Err("at most 60000, so that an event fits in an uplink".into()) }
}

fn parse_outbox_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().map_err(|_| "not a number")?;
    if (256..=1 << 30).contains(&bytes) { Ok(bytes) } else { Err("from 256 to 1073741824".into()) }
}

/// A prefix that leaves room for a dash and up to five digits.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let longest = format!("{text}-00000");
    longest.parse::<Id>().map_err(|_| "1 to 26 of A-Z a-z 0-9 _ -".to_string())?;
    Ok(text.into())
}

/// A run failed before it began.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] crate::target::Error),
    /// More devices than open files.
    #[error(transparent)]
    Files(#[from] crate::files::TooMany),
    /// The operating system refuses.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
}

/// What all devices share.
struct Fleet {
    options: RunOptions,
    link: LinkConfig,
    stats: Stats,
}

impl Fleet {
    /// Between two events of one device.
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.options.rate)
    }

    fn uplink_len_max(&self) -> usize {
        let event = EVENT_OVERHEAD_MAX + self.options.body_bytes.max(BODY_LEN_TYPICAL) + BODY_LEN_TYPICAL;
        (HEADER_LEN_MAX + usize::from(self.options.batch) * event).clamp(UPLINK_LEN_MIN, UPLINK_LEN_MAX)
    }
}

/// Runs the fleet; returns what it emitted and what came of it.
///
/// # Errors
/// [`Error`] if it cannot begin. Whatever goes wrong later is in the summary.
pub async fn run(options: RunOptions) -> Result<(Manifest, Summary), Error> {
    // Silent devices keep a socket beside the one they come back on.
    crate::files::allow(options.devices as u64 * if options.faults.silences > 0.0 { 2 } else { 1 })?;
    let mut signals = StopSignals::listen().map_err(Error::Signals)?;
    let ids: Vec<Id> = (1..=options.devices).map(|number| device_id(&options.name, number)).collect();
    let transports = transports(&options.target, &ids)?;
    let address = &options.target.gateway;
    let link = LinkConfig {
        host: address.host.clone(),
        port: address.port,
        keep_alive: Duration::from_secs(options.keep_alive.into()),
        window: options.window,
    };
    let fleet = Arc::new(Fleet { link, stats: Stats::new(), options });
    let (phase, phases) = watch::channel(Phase::Running);
    let started = Instant::now();
    let mut actors = JoinSet::new();
    for ((number, id), transport) in ids.into_iter().enumerate().zip(transports) {
        actors.spawn(Actor::new(fleet.clone(), number, id, transport, started).run(phases.clone()));
    }
    let entries = conduct(&fleet, &mut actors, &phase, &mut signals, started).await;
    let manifest = Manifest { devices: entries };
    let summary = Summary::new(&fleet.options, &fleet.stats, &manifest, started.elapsed());
    Ok((manifest, summary))
}

/// `NAME-0001`
pub(crate) fn device_id(name: &str, number: usize) -> Id {
    format!("{name}-{number:04}").parse().expect("checked when the name was given")
}

fn transports(target: &TargetArgs, ids: &[Id]) -> Result<Vec<Transport>, Error> {
    if target.transport_is_shared() {
        return Ok(vec![target.transport("")?; ids.len()]);
    }
    ids.iter().map(|id| target.transport(id).map_err(Error::from)).collect()
}

/// Leads the fleet through its phases, shows progress, and gathers what the devices tell in the end.
async fn conduct(
    fleet: &Fleet,
    actors: &mut JoinSet<DeviceEntry>,
    phase: &watch::Sender<Phase>,
    signals: &mut StopSignals,
    started: Instant,
) -> Vec<DeviceEntry> {
    let bar = progress_bar(fleet.options.seconds);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut deadline = started + Duration::from_secs_f64(fleet.options.seconds);
    let mut entries = Vec::with_capacity(fleet.options.devices);
    loop {
        let next = |now: Phase| if now == Phase::Running { Phase::Draining } else { Phase::Stopped };
        let now = *phase.borrow();
        let ended = tokio::select! {
            joined = actors.join_next() => match joined {
                Some(Ok(entry)) => { entries.push(entry); false }
                // A device that panicked must not end quietly.
                Some(Err(failure)) => std::panic::resume_unwind(failure.into_panic()),
                None => break,
            },
            () = sleep_until(deadline), if now != Phase::Stopped => true,
            () = signals.next() => true,
            _ = ticks.tick() => {
                show_progress(&bar, fleet, now, started);
                if fleet.options.progress {
                    print_progress(&fleet.stats);
                }
                false
            }
        };
        if ended {
            deadline = Instant::now() + Duration::from_secs_f64(fleet.options.drain);
            phase.send_replace(next(now));
        }
    }
    bar.finish_and_clear();
    entries.retain(|entry| !entry.boots.is_empty());
    entries.sort_by(|a, b| a.device.cmp(&b.device));
    entries
}

/// Whoever watches may have gone; that is no reason to end.
fn print_progress(stats: &Stats) {
    let (emitted, acknowledged) = (stats.emitted.load(Relaxed), stats.acknowledged.load(Relaxed));
    let _ = print_json(&serde_json::json!({"emitted": emitted, "acknowledged": acknowledged}));
}

/// Draws on standard error, and only if that is a terminal.
fn progress_bar(seconds: f64) -> ProgressBar {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10,000,000")]
    let bar = ProgressBar::new((seconds * 10.0) as u64);
    let style =
        ProgressStyle::with_template("{bar:30} {elapsed_precise} {msg}").expect("a well-formed template");
    bar.set_style(style);
    bar
}

fn show_progress(bar: &ProgressBar, fleet: &Fleet, phase: Phase, started: Instant) {
    if bar.is_hidden() {
        return;
    }
    let stats = &fleet.stats;
    let doing = if phase == Phase::Running { "" } else { " (delivering the rest)" };
    let trouble = match stats.last_trouble() {
        Some(why) if stats.connected.load(Relaxed) == 0 => format!("; {why}"),
        _ => String::new(),
    };
    bar.set_position(u64::try_from(started.elapsed().as_millis() / 100).unwrap_or(u64::MAX));
    bar.set_message(format!(
        "{} of {} connected, {} emitted, {} acknowledged{doing}{trouble}",
        stats.connected.load(Relaxed),
        fleet.options.devices,
        stats.emitted.load(Relaxed),
        stats.acknowledged.load(Relaxed),
    ));
}
