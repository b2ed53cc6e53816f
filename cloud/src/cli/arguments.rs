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
  weir doctor --gateway http://127.0.0.1:9880

Exit codes: 0 done; 1 not found, or a check failed; 2 the question could not be asked or understood."
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
