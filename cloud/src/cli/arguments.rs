//! What `weir` can be asked.

use clap::{Args, Parser, Subcommand};

/// Asks Weir's cloud about devices: their state now or at any past moment, their history, and what was lost.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    after_help = "Times: RFC 3339 (2026-11-20T18:00:00Z), `10m ago`, `now-1h`, or Unix milliseconds.

Examples:
  weir devices
  weir state kiln-1
  weir state kiln-1 --at '10m ago'
  weir history kiln-1 --since 1h --kind reading-taken
  weir boots kiln-1
  weir command kiln-1 set-period --arg period_ms=500 --wait
  weir doctor --gateway http://127.0.0.1:9880

Exit codes: 0 done; 1 not found, a check failed, or a command was not completed; 2 the question could not be asked or understood."
)]
pub struct Arguments {
    /// What to ask.
    #[command(subcommand)]
    pub command: Command,
    /// How to ask, and how to print.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where the cloud's API is [default: $WEIR_API, else http://127.0.0.1:9890]
    #[arg(long, global = true, value_name = "URL")]
    pub api: Option<String>,
    /// Print the API's own JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// Longest wait for one answer
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// The questions.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List every device: where it is, whether it is connected, how much was stored and lost
    Devices,
    /// Show one device's state, now or at a past moment
    State {
        /// The device's name
        device: String,
        /// The moment; now if absent
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Print one device's events, oldest first
    History(History),
    /// Show what was stored, lost and is missing of each boot of a device
    Boots {
        /// The device's name
        device: String,
    },
    /// Have a device do something: set-period, set-limit, restart, identify, or what else it knows
    #[command(after_help = COMMANDS)]
    Command(ToDo),
    /// List what arrived but could not be read, and why
    DeadLetters {
        /// At most this many, the oldest ones
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Show how far the projection is, and what the store holds
    Status,
    /// Check every link of the chain, and say what is wrong and what to do
    Doctor {
        /// A gateway's admin address, as http://127.0.0.1:9880, to look at its spool and uplink too
        #[arg(long, value_name = "URL")]
        gateway: Vec<String>,
    },
}

const COMMANDS: &str = "Commands of every device:
  set-period   period_ms=MILLISECONDS [sensor=NAME]           how often to read a sensor, or all of them
  set-limit    sensor=NAME limit=NUMBER|null [hysteresis=NUMBER]  tell when it is crossed
  restart      restart
  identify     blink, beep

Examples:
  weir command kiln-1 set-period --arg period_ms=500 --wait
  weir command kiln-1 set-limit --arg sensor=oven --arg limit=900 --arg hysteresis=5 --ttl 2h

Exit codes with --wait: 0 completed; 1 failed, refused, expired, or nothing heard by its deadline.";

/// `weir command`.
#[derive(Debug, Clone, Args)]
pub struct ToDo {
    /// The device's name
    pub device: String,
    /// What to do
    #[arg(value_name = "COMMAND")]
    pub name: String,
    /// An argument; VALUE is JSON, or a text as it stands
    #[arg(long = "arg", value_name = "KEY=VALUE")]
    pub args: Vec<String>,
    /// How long there is to do it, as `30s`, `10m`, `2h`, `7d`
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: String,
    /// The gateway that is to deliver it; where the device was last heard, if absent
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
    /// That gateway's site; the device's, if absent
    #[arg(long, value_name = "NAME")]
    pub site: Option<String>,
    /// Its id; the same id again is the same command, and done once
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Wait until it is completed, has failed, was refused or has expired
    #[arg(long)]
    pub wait: bool,
}

/// `weir history`.
#[derive(Debug, Clone, Args)]
pub struct History {
    /// The device's name
    pub device: String,
    /// Only events from this moment on; `1h` means an hour ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events before this moment
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only events of this kind, as `reading-taken`
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// At most this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Newest first
    #[arg(long)]
    pub newest_first: bool,
}
