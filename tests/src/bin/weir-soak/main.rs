//! Lets everything go wrong that can, for as long as asked, and proves again and again that nothing acknowledged was
//! lost or doubled.
//!
//! Real processes: nats-server, gateways, a cloud, devices by the dozen. In each round devices emit, and faults from a
//! seeded plan come and go ([`schedule`]); then everything is whole again, and one waits, with a deadline, until the
//! cloud has stored what was acknowledged, and has every number accounted for ([`round`]). After some rounds the views
//! are made again from the log alone, every round is proven once more, and all begins anew in an empty folder: so
//! neither time nor disk is spent on history.

mod faults;
mod field;
mod figures;
mod round;
mod schedule;
mod screen;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use weir_tests::programs;
use weir_tests::sim::Proof;

use faults::Kind;
use field::{Extent, Field};
use figures::{Failure, Figures};
use round::{Outcome, Round, is_whole};
use screen::Screen;

/// Kills, cuts and starves a whole Weir on this machine for as long as asked, and proves that it keeps its promises.
///
/// Exit code 0: nothing acknowledged was lost or doubled, and everything recovered in time; 1: it was not so, and the
/// seed, what was found and where the files are is told.
#[derive(Parser)]
#[command(name = "weir-soak", version)]
struct Arguments {
    /// How long; with --minutes and --seconds, all together [default: 3 minutes]
    #[arg(long, value_name = "H")]
    hours: Option<f64>,
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// No more rounds than this
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    rounds: u64,
    /// The same seed gives the same faults; without, one is drawn and told
    #[arg(long, default_value_t = fastrand::u64(..), hide_default_value = true)]
    seed: u64,
    /// Begin with this round: to have a late one again without those before it
    #[arg(long, value_name = "ROUND", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// How long devices emit in a round; faults are as much longer or shorter
    #[arg(long, value_name = "S", default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    round_seconds: u64,
    /// Gateways
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    gateways: u8,
    /// Devices at each gateway
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    devices: u32,
    /// Events a second of each device
    #[arg(long, value_name = "R", default_value_t = 10.0)]
    rate: f64,
    /// Only these kinds of faults
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<String>,
    /// Tell all kinds of faults, and end
    #[arg(long)]
    list: bool,
    /// Tell what would happen when, for so many rounds, and end
    #[arg(long, value_name = "ROUNDS")]
    plan: Option<u64>,
    /// How long everything may take to arrive, once a round's faults are over
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    within: u64,
    /// Where spools, streams and stores are kept meanwhile, and stay if something is found
    #[arg(long, default_value = "target/soak")]
    folder: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Take a few messages out of the log in the first round, to see that a loss is found
    #[arg(long, hide = true)]
    lose_messages: bool,
}

/// After so many rounds all begins anew.
const ROUNDS_IN_A_WORLD: u64 = 40;
const DEFAULT_TIME: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weir-soak: seed {}: {error:#}", arguments.seed);
            ExitCode::FAILURE
        }
    }
}

/// Says whether all went well.
fn run(arguments: &Arguments) -> Result<bool> {
    let kinds = chosen(&arguments.only)?;
    if arguments.list {
        kinds.iter().for_each(|kind| println!("{}", kind.word()));
        return Ok(true);
    }
    let mut extent = Extent {
        gateways: arguments.gateways.into(),
        devices: arguments.devices,
        rate: arguments.rate,
        round: Duration::from_secs(arguments.round_seconds),
        within: Duration::from_secs(arguments.within),
        folder: arguments.folder.clone(),
    };
    if let Some(rounds) = arguments.plan {
        print_plan(arguments, rounds, &extent, &kinds);
        return Ok(true);
    }
    let asked = asked(arguments)?;
    let figures = Figures::new(arguments.seed, arguments.from, &kinds);
    eprintln!("weir-soak: seed {}; the same faults again: {}", figures.seed, figures.again());
    std::fs::create_dir_all(&extent.folder).with_context(|| format!("making {}", extent.folder.display()))?;
    extent.folder = extent.folder.canonicalize()?;
    programs::nats_server()?;
    programs::ours("weir-gateway")?;
    let mut soak = Soak { extent, kinds, figures, screen: Screen::begin(asked), begun: Instant::now() };
    soak.run(arguments, asked);
    soak.screen.end();
    soak.figures.seconds = soak.begun.elapsed().as_secs();
    soak.tell(arguments.json)?;
    Ok(soak.figures.failure.is_none())
}

/// A run.
struct Soak {
    extent: Extent,
    kinds: Vec<&'static Kind>,
    figures: Figures,
    screen: Screen,
    begun: Instant,
}

impl Soak {
    /// Round after round, until the time is over or something is found.
    fn run(&mut self, arguments: &Arguments, asked: Duration) {
        let interrupted = listen_for_interrupt();
        let mut numbers = (arguments.from..).take(usize::try_from(arguments.rounds).unwrap_or(usize::MAX));
        let mut next = numbers.next();
        while let Some(first) = next {
            let mut field = match Field::start(&self.extent) {
                Ok(field) => field,
                Err(error) => return self.fail(first, "", &error, None),
            };
            for _ in 0..ROUNDS_IN_A_WORLD {
                let Some(number) = next else { break };
                let sabotage = (arguments.lose_messages && number == arguments.from)
                    .then_some(Field::lose_messages as fn(&mut Field) -> Result<()>);
                if !self.round(&mut field, number, sabotage) {
                    return;
                }
                let over = self.begun.elapsed() >= asked;
                self.figures.interrupted = interrupted.load(Ordering::SeqCst) && !over;
                next = if over || self.figures.interrupted { None } else { numbers.next() };
            }
            if !self.close(field) {
                return;
            }
        }
    }

    /// Runs a round. Says whether all went well.
    fn round(
        &mut self,
        field: &mut Field,
        number: u64,
        sabotage: Option<fn(&mut Field) -> Result<()>>,
    ) -> bool {
        let round = Round::planned(self.figures.seed, number, &self.extent, &self.kinds);
        let told = round.told(&self.kinds);
        self.screen.now(number, &told);
        let kept = Some(field.folder().to_owned());
        match round.run(field, &self.extent, &self.kinds, sabotage) {
            Ok(outcome) => {
                self.figures.add(&round, &outcome, &self.kinds);
                self.screen.done(number, &told, &outcome);
                let Outcome { proof, .. } = outcome;
                if !is_whole(&proof) {
                    self.fail(number, &told, &anyhow!("{}", findings(&proof)), kept);
                }
            }
            Err(error) => self.fail(number, &told, &error, kept),
        }
        self.figures.failure.is_none()
    }

    /// Proves everything once more from the log alone, and ends a world. Says whether all went well.
    fn close(&mut self, mut field: Field) -> bool {
        let number = self.figures.from + self.figures.rounds.saturating_sub(1);
        self.screen.now(number, "all rounds once more, from the log alone");
        let kept = Some(field.folder().to_owned());
        let proof = match field.prove_from_the_log() {
            Ok(proof) => proof,
            Err(error) => {
                self.fail(number, "", &error.context("views made again from the log"), kept);
                return false;
            }
        };
        if !is_whole(&proof) {
            self.figures.blame(&proof);
            self.fail(number, "", &anyhow!("views made again from the log: {}", findings(&proof)), kept);
            return false;
        }
        self.screen.say(&format!(
            "  {}  all rounds once more from the log alone: {} events, each exactly once",
            figures::told(self.begun.elapsed()),
            proof.stored
        ));
        if let Err(error) = field.end() {
            self.fail(number, "", &error.context("in the end"), kept);
        }
        self.figures.failure.is_none()
    }

    fn fail(&mut self, round: u64, faults: &str, error: &anyhow::Error, kept: Option<PathBuf>) {
        let what = format!("{error:#}");
        self.figures.failure = Some(Failure { round, faults: faults.to_owned(), what, kept });
    }

    /// The figures, and what was found.
    fn tell(&self, json: bool) -> Result<()> {
        let figures = &self.figures;
        if json {
            println!("{}", serde_json::to_string_pretty(figures)?);
        } else {
            println!("{}", figures.table());
        }
        if let Some(Failure { round, faults, what, kept }) = &figures.failure {
            let seed = figures.seed;
            eprintln!("\nweir-soak: seed {seed}, round {round} ({faults}): {what}");
            eprintln!(
                "weir-soak: the round again: make soak ARGS=\"--seed {seed} --from {round} --rounds 1\""
            );
            if let Some(kept) = kept {
                eprintln!("weir-soak: logs, spools, stream and store are in {}", kept.display());
            }
        } else if !json {
            println!(
                "Nothing acknowledged was lost, nothing is doubled. The same faults again: {}",
                figures.again()
            );
        }
        Ok(())
    }
}

fn findings(proof: &Proof) -> String {
    format!(
        "of {} events emitted, {} stored, {} in the ledger: {} are lost, {} doubled, {} never given, {} contradictions, {} \
         never acknowledged; {} unknown boots: {}",
        proof.emitted,
        proof.stored,
        proof.lost,
        proof.missing,
        proof.doubled,
        proof.invented,
        proof.contradictions,
        proof.undelivered,
        proof.other_boots,
        proof.findings.join("; ")
    )
}

fn chosen(only: &[String]) -> Result<Vec<&'static Kind>> {
    let all = faults::kinds();
    if only.is_empty() {
        return Ok(all);
    }
    let words = || all.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = only.iter().find(|word| all.iter().all(|kind| kind.word() != **word)) {
        bail!("--only: there is no fault {unknown:?}; there are {}", words());
    }
    Ok(all.into_iter().filter(|kind| only.contains(&kind.word())).collect())
}

fn asked(arguments: &Arguments) -> Result<Duration> {
    let given = [(arguments.hours, 3600.0), (arguments.minutes, 60.0), (arguments.seconds, 1.0)];
    let seconds: f64 = given.iter().filter_map(|(count, unit)| count.map(|count| count * unit)).sum();
    ensure!(arguments.rate > 0.0 && arguments.rate <= 1000.0, "--rate is from above 0 to 1000");
    if given.iter().all(|(count, _)| count.is_none()) {
        return Ok(DEFAULT_TIME);
    }
    Duration::try_from_secs_f64(seconds).context("--hours, --minutes, --seconds: not a time")
}

fn print_plan(arguments: &Arguments, rounds: u64, extent: &Extent, kinds: &[&Kind]) {
    for number in (arguments.from..).take(usize::try_from(rounds).unwrap_or(usize::MAX)) {
        println!("round {number}");
        for blow in Round::planned(arguments.seed, number, extent, kinds).blows {
            let (from, to) = (blow.from.as_secs_f64(), blow.to.as_secs_f64());
            let again = if blow.again { ", again" } else { "" };
            println!("  {from:>8.3} s to {to:>8.3} s  {}{again}", kinds[blow.kind].name);
        }
    }
}

/// Ctrl-C lets the round come to its end; a second one ends at once.
fn listen_for_interrupt() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if told.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
                eprintln!("weir-soak: this round comes to its end first; Ctrl-C once more ends at once");
            }
        });
    });
    interrupted
}
