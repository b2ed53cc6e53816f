//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
  weir-gateway hash-password --name alice >> passwords

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
    /// Show what the running gateway keeps on disk: epochs, numbers, bytes
    Spool(Ask),
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
        for wrong in [
            "weir-gateway",
            "weir-gateway run",
            "weir-gateway status",
            "weir-gateway status --config a --admin b",
        ] {
            parse(wrong).expect_err(wrong);
        }
    }
}
