//! The cloud service: parse, log, build, run, drain.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use weir_cloud::{Config, Role, telemetry};

/// Weir's cloud service: folds the log (JetStream) into device state and history, and answers queries over HTTP.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  weir-cloud all --config /etc/weir/cloud.toml\n\nAsk it with `weir`."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fold the log into the store
    Project(File),
    /// Answer queries from the store
    Serve(File),
    /// Both in one process
    All(File),
    /// Check a configuration file and print every setting it means
    Check(File),
}

#[derive(Args)]
struct File {
    /// The configuration file; `deploy/cloud.toml` explains every setting
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let (role, file) = match Arguments::parse().command {
        Command::Project(file) => (Role::Project, file),
        Command::Serve(file) => (Role::Serve, file),
        Command::All(file) => (Role::All, file),
        Command::Check(file) => return report(check(&file)),
    };
    report(run(role, &file))
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-cloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &File) -> anyhow::Result<()> {
    let config = Config::load(&file.config)?;
    let settings = toml::to_string(&config).context("printing the settings")?;
    print!("# {} is valid. Every setting it means:\n\n{settings}", file.config.display());
    Ok(())
}

#[tokio::main]
async fn run(role: Role, file: &File) -> anyhow::Result<()> {
    let config = Config::load(&file.config)?;
    telemetry::start_logging(&config.log);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = weir_cloud::start(&config, role).await?;
    let ended = tokio::select! {
        ended = running.ended() => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tracing::info!("stopping");
    let drained = running.shutdown().await;
    Ok(ended.and(drained)?)
}
