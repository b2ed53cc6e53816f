//! `weir`: asks the cloud's API, prints tables for people and JSON for programs.

use std::process::ExitCode;

use clap::Parser as _;

pub mod arguments;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let _ = arguments::Arguments::parse();
    ExitCode::SUCCESS
}
