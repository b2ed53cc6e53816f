//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::source::map::Preset;

/// Takes events over MQTT, keeps them on disk through outages, forwards them to NATS JetStream.
#[derive(Debug, Parser)]
#[command(
    name = "weir-gateway",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  weir-gateway --config gateway.toml              run it
  weir-gateway check --config gateway.toml        is the configuration right?
  weir-gateway status --config gateway.toml       how does the running one do?
  weir-gateway spool --config gateway.toml        what is kept on disk?
  weir-gateway spool verify --config gateway.toml is what a stopped one keeps whole? (spool repair mends it)
  weir-gateway hash-password --name alice >> passwords
  weir-gateway map --preset zigbee2mqtt --try 'zigbee2mqtt/kitchen {\"temperature\":21.5}'

deploy/gateway.toml explains every setting. Logs go to standard error; WEIR_LOG=debug tells more."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<File>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until SIGTERM or SIGINT (also without this word)
    ///
    /// On SIGTERM it accepts nothing more, stores what it has taken, tries for uplink.drain_ms_max to deliver it, and
    /// ends with 0; told a second time it ends at once, with 1. If the spool's disk fails it ends with 1 at once: nothing is acknowledged that is not on disk.
    Run(File),
    /// Check a configuration file, without touching anything else
    ///
    /// Ends with 0 if it is right; else names the line and what is allowed there, and ends with 1.
    Check(File),
    /// Show how the running gateway does: what is on disk, what is in the stream, what is wrong
    #[command(after_help = "\
Examples:
  weir-gateway status --config gateway.toml
  weir-gateway status --admin 10.0.0.7:9880 --json | jq .uplink.state")]
    Status(Ask),
    /// Show what the running gateway keeps on disk; verify or repair the spool of one that is stopped
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "\
Examples:
  weir-gateway spool --config gateway.toml                     epochs, numbers, bytes of the running one
  weir-gateway spool verify --config gateway.toml              is anything damaged, and what does it cost?
  weir-gateway spool repair --config gateway.toml --dry-run    what would a repair do?"
    )]
    Spool(Spool),
    /// Show what the running gateway refused lately, and why
    Refusals(Ask),
    /// Make a line of the password file (mqtt.password_file); reads the password from standard input
    #[command(after_help = "\
Examples:
  weir-gateway hash-password --name alice >> passwords
  printf %s \"$SECRET\" | weir-gateway hash-password --name alice >> passwords")]
    HashPassword {
        /// Print `NAME:hash`; without it the hash alone
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Show what rules make of messages from somebody else's broker ([source.mqtt]), without touching anything
    ///
    /// Ends with 0 if every message is understood, with 1 if one is not.
    #[command(after_help = "\
Examples:
  weir-gateway map --preset zigbee2mqtt --try 'zigbee2mqtt/kitchen {\"temperature\":21.5}'
  mosquitto_sub -v -t '#' -W 60 | weir-gateway map --config gateway.toml --try -
  weir-gateway map --preset tasmota --try @samples.txt --json | jq .device
  weir-gateway map --show zigbee2mqtt             the rules of a preset, to be changed")]
    Map(Samples),
}

/// Which rules, and which messages.
#[derive(Args, Clone, Debug)]
pub struct Samples {
    /// The rules of this configuration
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where it has several brokers: the rules of this one
    #[arg(long, value_name = "NAME", requires = "config")]
    pub source: Option<String>,
    /// These rules; more than once for several
    #[arg(long, value_name = "NAME", value_parser = preset, conflicts_with = "config", required_unless_present_any = ["config", "show"])]
    pub preset: Vec<Preset>,
    /// `TOPIC PAYLOAD` as mosquitto_sub -v prints it, `@FILE` with such lines, or `-` for standard input
    #[arg(long = "try", value_name = "SAMPLE", required_unless_present = "show")]
    pub sample: Option<String>,
    /// JSON, a line for each message, for programs
    #[arg(long)]
    pub json: bool,
    /// Print the rules of a preset
    #[arg(long, value_name = "NAME", value_parser = preset, conflicts_with_all = ["config", "preset", "sample"])]
    pub show: Option<Preset>,
}

fn preset(text: &str) -> Result<Preset, String> {
    let known = Preset::ALL.map(Preset::as_str);
    let preset = Preset::ALL.into_iter().find(|preset| preset.as_str() == text);
    preset.ok_or_else(|| format!("known are {}", known.join(", ")))
}

/// Whom to ask, or what to do with a spool that nobody has.
#[derive(Args, Clone, Debug)]
pub struct Spool {
    #[command(subcommand)]
    pub task: Option<SpoolTask>,
    #[command(flatten)]
    pub ask: Option<Ask>,
}

/// What to do with the spool of a stopped gateway.
#[derive(Clone, Debug, Subcommand)]
pub enum SpoolTask {
    /// Look into every epoch of a stopped gateway's spool: what it holds, what is damaged and where, which numbers are gone
    ///
    /// Changes nothing. Ends with 0 if the spool is sound, with 3 if something is damaged, with 1 if it could not be looked into: a
    /// gateway has it, there is none, or the disk does not let it be read.
    #[command(after_help = "\
Examples:
  weir-gateway spool verify --config gateway.toml
  weir-gateway spool verify --folder /mnt/card/var/lib/weir/spool --json | jq '.epochs[].gone'")]
    Verify {
        #[command(flatten)]
        place: Place,
        /// JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Save what is readable of damaged epochs, set these aside, note what is gone for the ledger
    ///
    /// A damaged epoch is kept in the folder `damaged` of the spool, under its name and the time; delete it when nobody wants to look
    /// at it any more. What is gone is told by the gateway after its next start. Needs room for one epoch at a time. May be broken off
    /// and done again. To be run by the user whose spool it is: the gateway, who is that user, has to delete later what a repair makes.
    /// Ends with 0 when the spool is sound, with 3 if it is still damaged or a dry run found damage, with 1 if it could not be done.
    #[command(after_help = "\
Examples:
  sudo systemctl stop weir-gateway
  sudo -u weir-gateway weir-gateway spool repair --config /etc/weir/gateway.toml --dry-run
  sudo -u weir-gateway weir-gateway spool repair --config /etc/weir/gateway.toml
  sudo systemctl start weir-gateway")]
    Repair {
        #[command(flatten)]
        place: Place,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

/// Where a spool is.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The spool of this configuration
    #[arg(long, short, value_name = "FILE", required_unless_present = "folder")]
    pub config: Option<PathBuf>,
    /// The spool in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    pub folder: Option<PathBuf>,
}

/// Which configuration.
#[derive(Args, Clone, Debug)]
pub struct File {
    /// The configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

/// Whom to ask, and how to show the answer.
#[derive(Args, Clone, Debug)]
pub struct Ask {
    /// Ask the gateway that runs with this configuration
    #[arg(long, short, value_name = "FILE", required_unless_present = "admin")]
    pub config: Option<PathBuf>,
    /// Ask the gateway whose admin interface is here
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub admin: Option<String>,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// What to do; to run, if nothing else is said.
    #[must_use]
    pub fn what_to_do(self) -> Command {
        match (self.command, self.run) {
            (Some(command), _) => command,
            (None, Some(file)) => Command::Run(file),
            (None, None) => unreachable!("clap asks for --config where there is no command"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_configuration_alone_means_run() {
        let parse = |text: &str| Arguments::try_parse_from(text.split(' ')).map(Arguments::what_to_do);
        assert!(matches!(parse("weir-gateway --config g.toml"), Ok(Command::Run(_))));
        assert!(matches!(parse("weir-gateway -c g.toml"), Ok(Command::Run(_))));
        assert!(matches!(parse("weir-gateway run --config g.toml"), Ok(Command::Run(_))));
        assert!(matches!(parse("weir-gateway status --admin localhost:9880 --json"), Ok(Command::Status(_))));
        let spool = |text| match parse(text) {
            Ok(Command::Spool(spool)) => (spool.task, spool.ask),
            other => panic!("{other:?}"),
        };
        assert!(matches!(spool("weir-gateway spool --config g.toml --json"), (None, Some(_))));
        let verify = spool("weir-gateway spool verify --config g.toml --json");
        assert!(matches!(verify, (Some(SpoolTask::Verify { json: true, .. }), _)));
        let repair = spool("weir-gateway spool repair --folder f --dry-run");
        assert!(matches!(repair, (Some(SpoolTask::Repair { dry_run: true, .. }), _)));
        for wrong in [
            "weir-gateway spool",
            "weir-gateway spool verify",
            "weir-gateway spool repair --config a --folder b",
            "weir-gateway",
            "weir-gateway run",
            "weir-gateway status",
            "weir-gateway status --config a --admin b",
        ] {
            parse(wrong).expect_err(wrong);
        }
    }
}
