//! Shows Weir at work on this machine: devices emit, the uplink is cut and restored, a person asks, and everything
//! emitted is proven to be stored once.

mod numbers;
mod screen;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use weir_tests::sim::{self, Simulation, Size};
use weir_tests::wait::pause;
use weir_tests::{Plan, SETTLED_WITHIN, World, clock, programs};

use numbers::Numbers;
use screen::Screen;

/// Starts a whole Weir on this machine, real processes all; cuts its uplink for a while; shows that nothing is lost.
#[derive(Parser)]
#[command(name = "weir-demo", version)]
struct Arguments {
    /// How many devices
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Events a second of each device
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// How long they emit
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u64).range(4..=86_400))]
    seconds: u64,
    /// How long the uplink is cut, in the middle of it; 0 for not at all
    #[arg(long, default_value_t = 8)]
    outage: u64,
    /// Keep everything up afterwards, for you to try
    #[arg(long)]
    serve: bool,
}

/// How often the numbers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long devices may take for their last acknowledgements, and the spool to drain.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// The device whose story is told.
const TOLD: &str = "sim-0001";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nweir-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.outage + 2 <= arguments.seconds, "--seconds must be at least two more than --outage");
    let mut screen = Screen::new();
    screen.title();
    let mut world = World::planned(Plan { link: true, ..Plan::default() })?;
    screen.addresses(&[
        ("nats-server", &world.nats.url(), "the log, in JetStream"),
        (
            "weir-gateway",
            &world.gateway().mqtt_url(),
            "acknowledges what is on its disk, sends it on when it can",
        ),
        ("weir-cloud", &world.cloud.url()?, "folds the log into state and history, answers"),
    ]);
    let story = emit(arguments, &mut world, &mut screen)?;
    ask(&world, &screen, &story)?;
    prove(&world, &screen, &story)?;
    if arguments.serve {
        serve(&mut world, &screen)?;
    }
    world.end()
}

/// What happened.
struct Story {
    manifest: std::path::PathBuf,
    /// In the middle of the outage.
    moment_ms: u64,
}

/// Lets the devices emit, with the outage in the middle, until everything has arrived.
fn emit(arguments: &Arguments, world: &mut World, screen: &mut Screen) -> Result<Story> {
    let size = Size { devices: arguments.devices, rate: arguments.rate, run_s: arguments.seconds };
    screen.section(&format!(
        "{} devices, {} events a second each, for {} s",
        size.devices, size.rate, size.run_s
    ));
    let mut simulation = world.simulate(size, &["--progress"])?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for a bar's length only")]
    screen.begin((f64::from(arguments.devices) * arguments.rate * arguments.seconds as f64) as u64);
    let mut watch = Watch { began: Instant::now(), is_up: true, screen };

    let (run, outage) = (Duration::from_secs(arguments.seconds), Duration::from_secs(arguments.outage));
    let cut_at = (run - outage) / 2;
    watch.until(cut_at, world, &mut simulation)?;
    let moment_ms = clock::now_ms() + u64::try_from(outage.as_millis() / 2)?;
    if !outage.is_zero() {
        watch.screen.say("the uplink is cut: devices are acknowledged as before, the gateway's spool grows");
        world.link()?.cut();
        watch.is_up = false;
        watch.until(cut_at + outage, world, &mut simulation)?;
        world.link()?.restore();
        watch.is_up = true;
        watch.screen.say("the uplink is back: the gateway asks the log what it holds and goes on from there");
    }
    watch.until(run, world, &mut simulation)?;
    let manifest = watch.until_settled(world, simulation)?;
    Ok(Story { manifest, moment_ms })
}

/// Shows numbers while time passes.
struct Watch<'a> {
    began: Instant,
    is_up: bool,
    screen: &'a mut Screen,
}

impl Watch<'_> {
    fn until(&mut self, time: Duration, world: &World, simulation: &mut Simulation) -> Result<()> {
        while self.began.elapsed() < time {
            simulation.check_running()?;
            self.look(world, simulation)?;
            pause(LOOK_EVERY);
        }
        Ok(())
    }

    /// Until the devices are done and nothing waits anywhere.
    fn until_settled(&mut self, world: &World, mut simulation: Simulation) -> Result<std::path::PathBuf> {
        let deadline = Instant::now() + CATCH_UP_WITHIN;
        let mut last = self.look(world, &simulation)?;
        while simulation.is_running()? || last.waiting > 0 || last.lag_messages > 0 {
            ensure!(Instant::now() < deadline, "not everything arrived within a minute: {last:?}");
            pause(LOOK_EVERY);
            last = self.look(world, &simulation)?;
        }
        self.screen.finish(&last);
        simulation.finish(Duration::ZERO)
    }

    fn look(&mut self, world: &World, simulation: &Simulation) -> Result<Numbers> {
        let numbers = Numbers::look(world, simulation, self.began.elapsed(), self.is_up)?;
        self.screen.show(&numbers);
        Ok(numbers)
    }
}

/// What a person asks, and the answers.
fn ask(world: &World, screen: &Screen, story: &Story) -> Result<()> {
    screen.section("Asking");
    let moment = jiff::Timestamp::from_millisecond(story.moment_ms.try_into()?)?.to_string();
    let answer = |arguments: &[&str], explanation: &str| -> Result<()> {
        screen.command(&format!("weir {}", arguments.join(" ")), explanation, &world.cloud.weir(arguments)?);
        Ok(())
    };
    let devices = shortened(&world.cloud.weir(&["devices"])?);
    screen.command("weir devices", "every device; the gateway tells of itself too", &devices);
    answer(&["state", TOLD], "what is known of one of them now")?;
    answer(
        &["state", TOLD, "--at", &moment],
        "and at a moment in the outage: what it measured then was told to the cloud only later",
    )?;
    answer(&["history", TOLD, "--newest-first", "--limit", "5"], "its last events, one by one")
}

/// A long table by its beginning.
fn shortened(output: &str) -> String {
    const LINES_MAX: usize = 7;
    let lines: Vec<&str> = output.trim_end().lines().collect();
    if lines.len() <= LINES_MAX {
        return output.to_owned();
    }
    format!("{}\n… and {} more", lines[..LINES_MAX].join("\n"), lines.len() - LINES_MAX)
}

/// Compares what was emitted with what the cloud answers.
fn prove(world: &World, screen: &Screen, story: &Story) -> Result<()> {
    screen
        .section("Conservation: every number a device gave to an event is stored once, or its loss is told");
    world.verify(&story.manifest).context("the conservation check failed")?;
    let report = sim::verify(&story.manifest, &world.cloud.url()?, SETTLED_WITHIN, &[])?;
    screen.command(
        &format!("weir-sim verify --manifest manifest.json --cloud {}", world.cloud.url()?),
        "compares what the devices say they emitted with what the cloud answers",
        &report,
    );
    println!("\nNothing is missing and nothing is doubled.");
    Ok(())
}

/// Leaves it to a person, until Ctrl-C.
fn serve(world: &mut World, screen: &Screen) -> Result<()> {
    let alive = Size { devices: 20, rate: 1.0, run_s: 10_000_000 };
    let _alive = world.simulate(alive, &["--name", "live"])?;
    let (folder, api, mqtt) = (programs::folder()?, world.cloud.url()?, world.gateway().mqtt_url());
    let tool = |name: &str| shown(&folder.join(name));
    screen.section("All of it is yours until Ctrl-C; twenty devices, live-0001 and so on, go on emitting. In another terminal:");
    println!("  export WEIR_API={api}");
    println!("  {} devices", tool("weir"));
    println!("  {} state live-0001", tool("weir"));
    println!("  {} state {TOLD} --at '1m ago'", tool("weir"));
    println!("  {} doctor --gateway http://{}", tool("weir"), world.gateway().admin_address()?);
    println!(
        "  {} run --gateway {mqtt} --devices 1000 --rate 5 --seconds 30 --name visitor",
        tool("weir-sim")
    );
    println!("  {} status --config {}", tool("weir-gateway"), world.gateway().config_file().display());
    println!("  kill -9 {}    # the gateway; it is started again at once", world.gateway().process()?.id());
    println!("  curl {api}/v1/devices/{TOLD}/state");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                pressed = &mut interrupt => return pressed.context("waiting for Ctrl-C"),
                _ = looks.tick() => restart_what_was_killed(world)?,
            }
        }
    })?;
    println!("\nStopping.");
    Ok(())
}

/// As systemd would.
fn restart_what_was_killed(world: &mut World) -> Result<()> {
    let gateway = world.gateway();
    if gateway.process()?.check_running().is_err() {
        gateway.start_again()?;
        println!("  the gateway was killed; started again as process {}", gateway.process()?.id());
    }
    Ok(())
}

/// As short as a path can be from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
