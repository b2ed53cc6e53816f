//! The command line.

mod arguments;
mod map;
mod passwords;
mod show;
mod spool;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::{Arguments, Command};
use crate::config::value::show;
use crate::config::{Config, Machine, fit};
use crate::running::Dead;
use crate::service::Manager;
use crate::{logging, mqtt, running, source, uplink};

/// For reads that are under way when everything else has ended.
const BLOCKING_STOP_MAX: Duration = Duration::from_secs(2);

/// Ends with 0, with 1 if something went wrong, with 2 if the command line cannot be understood, with 3 if what was looked into is
/// damaged.
#[must_use]
pub fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-gateway: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<ExitCode> {
    let done = match arguments.what_to_do() {
        Command::Run(file) => run(&file.config),
        Command::Check(file) => check(&file.config),
        Command::Status(ask) => show::status(&ask),
        Command::Spool(task) => return spool::act(&task),
        Command::Refusals(ask) => show::refusals(&ask),
        Command::HashPassword { name } => passwords::hash(name.as_deref()),
        Command::Map(samples) => return map::map(&samples),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn run(file: &Path) -> Result<()> {
    let config = Config::load(file)?;
    logging::start(&config.log);
    if let Some(unfit) = config.fit_here(file)? {
        tracing::warn!("{unfit}; the spool is opened for what it holds, and is full when the disk is");
    }
    let threads = usize::try_from(config.gateway.threads).context("gateway.threads")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        // Besides these: the committer. They read the spool, compress, and check passwords.
        .max_blocking_threads(8)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(until_told(config));
    // A read from a failing disk may never return; it is not waited for.
    runtime.shutdown_timeout(BLOCKING_STOP_MAX);
    ended
}

/// Runs until SIGTERM or SIGINT, or until the disk fails.
async fn until_told(config: Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let manager = Manager::from_environment().context("NOTIFY_SOCKET: nobody is behind it")?;
    let running = running::start(config).await?;
    manager.ready(&running).await;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = running.failed() => return Err(spool_failed(&error)),
        dead = manager.watch(&running) => match dead {
            Dead::Spool(error) => return Err(spool_failed(&error)),
            Dead::Part(_) => bail!("{dead}; what was acknowledged is on disk"),
        },
    }
    manager.stopping().await;
    tokio::select! {
        stopped = running.shutdown() => {
            stopped.map_err(|error| anyhow::anyhow!("the spool failed: {}", error.with_causes()))
        }
        _ = terminate.recv() => bail!("told twice to stop: ended at once; what was acknowledged is on disk"),
        _ = interrupt.recv() => bail!("told twice to stop: ended at once; what was acknowledged is on disk"),
    }
}

/// Nothing of what waits can be stored any more: there is nothing to drain.
fn spool_failed(error: &crate::spool::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "the spool cannot be written, so nothing is acknowledged any more; devices keep what they have. \
         Start again when the disk is well: {}",
        error.with_causes()
    )
}

fn check(file: &Path) -> Result<()> {
    let config = Config::load(file)?;
    let unfit = config.fit_here(file)?;
    // The files it names, too: a certificate that cannot be read is better found out now.
    let does_not_fit = || format!("the configuration {} does not fit", file.display());
    mqtt::check(&config.mqtt).with_context(does_not_fit)?;
    uplink::check(&config.uplink).with_context(does_not_fit)?;
    source::check(&config.source).with_context(does_not_fit)?;
    let settings = toml::to_string(&config).context("the settings cannot be shown")?;
    let (memory, needed) = (Machine::look(&config.spool.folder).memory, fit::needs(&config));
    let there =
        memory.map_or_else(String::new, |memory| format!(" of {} ({})", show(memory.bytes), memory.whose));
    println!("# {} is right: gateway {} at site {}", file.display(), config.gateway.id, config.gateway.site);
    println!("# With everything in use it needs {} of memory{there}.", show(fit::needed_bytes(&needed)));
    if let Some(unfit) = unfit {
        println!("# But: {unfit}.");
    }
    println!("# In effect, defaults and the profile's settings included:\n\n{settings}");
    Ok(())
}

/// The error and its causes in one text.
fn with_causes(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join(": ")
}
