//! `weir-provision`: writes provisioning records, and reads them.
//!
//! The record itself is [`weir_device::provision`]'s; here are the files that carry it to a board.

mod format;
mod image;
mod read;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Makes one image of the firmware a certain device: its name, its gateway, its password
#[derive(Debug, Parser)]
#[command(name = "weir-provision", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  a record to be put at the beginning of the board's EEPROM
    weir-provision write --device dev-1 --gateway 192.168.1.20:1883 --out record.bin
  what a board or file says
    weir-provision read record.bin

On a Raspberry Pi it comes with the gateway's package. `weir-provision write --help` has an example for every kind of board";

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a record as a file, into an EEPROM's image, or both
    ///
    /// Exit code 0: written; 2: could not.
    #[command(after_help = WRITE_EXAMPLES)]
    Write(write::WriteOptions),
    /// Tell what a record says: of a binary file, an EEPROM's image, Intel HEX or UF2
    ///
    /// The password is not told. Exit code 0: there is a record; 1: there is none that can be read; 2: could not look.
    #[command(after_help = READ_EXAMPLES)]
    Read(read::ReadOptions),
}

const WRITE_EXAMPLES: &str = "\
Examples:
  a record of 256 bytes
    weir-provision write --device dev-1 --gateway 192.168.1.20:1883 --out record.bin
  with a password, the first line of a file
    weir-provision write --device dev-1 --gateway gw.lan --password-file secret --out record.bin
  into the image of a 24C256; what else is in it stays, so the device keeps its events
    weir-provision write --device dev-1 --gateway gw.lan --image eeprom.bin --size 32768
  for a board with flash, at an address, for its programmer or as a file to be dropped on its USB drive
    weir-provision write --device dev-1 --gateway gw.lan --out record.hex --address 0x08120000
    weir-provision write --device dev-1 --gateway gw.lan --out record.uf2 --address 0x101F0000
  many, one after the other
    for n in 1 2 3; do weir-provision write --device dev-$n --gateway gw.lan --out dev-$n.bin; done";

const READ_EXAMPLES: &str = "\
Examples:
  weir-provision read record.bin
  weir-provision read eeprom.bin --json
  weir-provision read record.uf2";

const NO_RECORD: u8 = 1;
const COULD_NOT: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Write(options) => write::run(&options).map(|()| true),
        Command::Read(options) => read::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NO_RECORD),
        Err(error) => {
            eprintln!("weir-provision: {error:#}");
            ExitCode::from(COULD_NOT)
        }
    }
}

/// A number, decimal or with `0x` before it.
fn number<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let digits = text.replace('_', "");
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let bits = size_of::<N>() * 8;
    parsed
        .ok()
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| format!("a number of at most {bits} bits is needed, decimal or like 0x1000"))
}
