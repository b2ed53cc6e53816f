//! `weir-provision read`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use weir_device::provision::Record;

use crate::format::{self, Format};
use crate::number;

/// What to read, and how to tell it.
#[derive(Debug, Args)]
pub struct ReadOptions {
    /// A plain file, an EEPROM's image, Intel HEX or UF2
    file: PathBuf,
    /// Where in the file's memory the record is
    #[arg(long, value_name = "OFFSET", default_value = "0", value_parser = number::<u32>)]
    at: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A record as it is told.
#[derive(Debug, Serialize)]
struct Told {
    device: String,
    host: String,
    port: u16,
    password: bool,
    /// As text: not all programs read whole numbers of 64 bits.
    seed: Option<String>,
    /// Where on the board it goes, if the file says so.
    address: Option<String>,
}

/// Tells what the record says; returns whether there is one.
///
/// # Errors
/// The file cannot be read, or is none of its format.
pub fn run(options: &ReadOptions) -> anyhow::Result<bool> {
    let shown = options.file.display();
    let file = fs::read(&options.file).with_context(|| format!("cannot read {shown}"))?;
    let (format, address, bytes) = format::parse(&file).with_context(|| format!("cannot read {shown}"))?;
    let record = match Record::read(bytes.get(options.at as usize..).unwrap_or_default()) {
        Ok(record) => record,
        Err(error) => {
            eprintln!("weir-provision: {shown}, at {:#x}: {error}", options.at);
            return Ok(false);
        }
    };
    let told = Told {
        device: record.device.to_string(),
        host: record.host.to_string(),
        port: record.port,
        password: record.password.is_some(),
        seed: record.seed.map(|seed| format!("{seed:#018x}")),
        address: (format != Format::Bin).then(|| format!("{:#010x}", address + options.at)),
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        println!("device    {}", told.device);
        println!("gateway   {}:{}", told.host, told.port);
        println!("password  {}", if told.password { "yes" } else { "none" });
        println!("seed      {}", told.seed.as_deref().unwrap_or("none"));
        if let Some(address) = told.address {
            println!("address   {address}");
        }
    }
    Ok(true)
}
