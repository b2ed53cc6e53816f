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
  weir resend --gateway gw-1 --from 104822 --wait
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
    /// Have a gateway send again what the log has acknowledged before, as far as the gateway still keeps it
    #[command(after_help = RESEND)]
    Resend(Resend),
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

const RESEND: &str = "For when the log or what was made of it has lost something the gateway cannot know of: segments deleted by hand, a log \
copied to another server. A log that went back in time is completed by the gateways themselves.

Numbers are the gateway's custody numbers of uplinks: `weir-gateway spool` shows which it keeps (as many as fit in
spool.keep_delivered_bytes), `weir doctor` which have never arrived. From 1 on is everything. It is sent again in order, and before
what is new; events that are stored already are not stored again, and no state changes by it.

Who may: whoever may send commands (commands = true under [api] in the cloud's configuration). The gateway's history tells of each.

Examples:
  weir resend --gateway gw-1 --from 104822 --wait
  weir resend --gateway gw-1 --from 2h --ttl 7d
  weir resend --gateway gw-1 --site plant --from 1

Exit codes with --wait: 0 all of it is in the log again; 1 it failed, has expired, or nothing was heard by its deadline.";

/// `weir resend`.
#[derive(Debug, Clone, Args)]
pub struct Resend {
    /// The gateway's name
    #[arg(long, value_name = "NAME")]
    pub gateway: String,
    /// From where on: a custody number, or when the gateway took it, as `2h` (ago), `10m ago` or 2026-11-20T18:00:00Z
    #[arg(long, value_name = "NUMBER|TIME")]
    pub from: String,
    /// Where the gateway stands; where it was last heard, if absent
    #[arg(long, value_name = "NAME")]
    pub site: Option<String>,
    /// How long there is to do it, as `30s`, `10m`, `2h`, `7d`
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub ttl: String,
    /// Wait until all of it is in the log again
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
