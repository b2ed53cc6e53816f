//! `weir-provision write`.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use weir_contract::Id;
use weir_device::provision::{Host, PASSWORD_LEN_MAX, RECORD_LEN, Record};

use crate::format::{Format, UF2_RP2040, hex, uf2};
use crate::{image, number};

/// Where a gateway listens if nothing else is said.
const PORT: u16 = 1883;

/// What to write, and where.
#[derive(Debug, Args)]
pub struct WriteOptions {
    /// The device's name, 1 to 32 of A-Z a-z 0-9 _ -; also its MQTT client id and user name
    #[arg(long, value_name = "NAME")]
    device: Id,
    /// Where its gateway is: an IPv4 address or host name, and a port if it is not 1883
    #[arg(long, value_name = "HOST[:PORT]")]
    gateway: String,
    /// The file whose first line is the device's password, of at most 64 bytes
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What boot numbers are mixed with; else random, or what the image has. Boards that replace each other under one name
    /// must differ
    #[arg(long, value_name = "NUMBER", value_parser = number::<u64>)]
    seed: Option<u64>,
    /// The file to write the record to
    #[arg(long, value_name = "FILE", required_unless_present = "image")]
    out: Option<PathBuf>,
    /// How --out is written; else by its ending, .hex or .uf2
    #[arg(long, requires = "out")]
    format: Option<Format>,
    /// The address of the record in the board's memory: for .hex and .uf2
    #[arg(long, requires = "out", value_parser = number::<u32>)]
    address: Option<u32>,
    /// The family that a .uf2 is for; else the RP2040's
    #[arg(long, requires = "out", value_name = "NUMBER", value_parser = number::<u32>)]
    family: Option<u32>,
    /// The image of an EEPROM to put the record into
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The image's size in bytes: 32768 for a 24C256. Needed to make one
    #[arg(long, requires = "image", value_name = "BYTES", value_parser = number::<u32>)]
    size: Option<u32>,
    /// Where in the image the record goes
    #[arg(long, requires = "image", value_name = "OFFSET", default_value = "0", value_parser = number::<u32>)]
    at: u32,
    /// Erase all else in the image: the events, boots and settings of the device that it was
    #[arg(long, requires = "image")]
    blank: bool,
}

/// Writes the record to where the options say.
///
/// # Errors
/// Something is not allowed, or a file cannot be read or written.
pub fn run(options: &WriteOptions) -> anyhow::Result<()> {
    let (host, port) = gateway(&options.gateway)?;
    let password = options.password_file.as_deref().map(password).transpose()?;
    let at = options.at as usize;
    let mut loaded = match &options.image {
        Some(path) => Some((path, image::load(path, options.size)?)),
        None => None,
    };
    let owned = loaded.as_ref().and_then(|(_, bytes)| image::owner(bytes, at));
    let kept_seed = owned.filter(|(device, _)| *device == options.device && !options.blank);
    let seed = options.seed.or(kept_seed.and_then(|(_, seed)| seed)).unwrap_or_else(random);
    let record =
        Record { device: options.device, host, port, password: password.as_deref(), seed: Some(seed) };
    let bytes = record.write()?;
    // Nothing is written unless everything can be.
    let out = options.out.as_ref().map(|path| Ok::<_, anyhow::Error>((path, file(options, path, &bytes)?)));
    let out = out.transpose()?;
    if let Some((_, image)) = &mut loaded {
        image::put(image, at, &bytes, options.device, options.blank)?;
    }
    let files = out.iter().chain(&loaded);
    for (path, bytes) in files {
        image::save(path, bytes, password.is_some())?;
        println!("{}: {} for {}:{}, seed {seed:#018x}", path.display(), options.device, host, port);
    }
    Ok(())
}

fn gateway(text: &str) -> anyhow::Result<(Host<'_>, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)),
        None => (text, Some(PORT)),
    };
    let port = port.with_context(|| format!("--gateway {text}: a port is a number from 1 to 65535"))?;
    let host = Host::parse(host).with_context(|| format!("--gateway {text}"))?;
    Ok((host, port))
}

/// The first line, which must be all.
fn password(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let mut bytes = fs::read(path).with_context(|| format!("--password-file: cannot read {shown}"))?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    if bytes.ends_with(b"\r") {
        bytes.pop();
    }
    ensure!(!bytes.contains(&b'\n'), "--password-file: {shown} has more than one line");
    let len = bytes.len();
    ensure!(
        (1..=PASSWORD_LEN_MAX).contains(&len),
        "--password-file: {shown} has a password of {len} bytes; 1 to {PASSWORD_LEN_MAX} are allowed"
    );
    Ok(bytes)
}

fn file(
    options: &WriteOptions,
    path: &std::path::Path,
    record: &[u8; RECORD_LEN],
) -> anyhow::Result<Vec<u8>> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let format = options.format.unwrap_or(match ending {
        Some("hex") => Format::Hex,
        Some("uf2") => Format::Uf2,
        _ => Format::Bin,
    });
    if options.family.is_some() && format != Format::Uf2 {
        bail!("--family: only UF2 has families");
    }
    match (format, options.address) {
        (Format::Bin, None) => Ok(record.to_vec()),
        (Format::Bin, Some(_)) => bail!("--address: a plain file has none; use --format hex or uf2"),
        (_, None) => bail!("--address: {} needs the record's address on the board", path.display()),
        (Format::Hex, Some(address)) => Ok(hex(address, record).into_bytes()),
        (Format::Uf2, Some(address)) => {
            ensure!(
                address.is_multiple_of(256),
                "--address {address:#x}: for UF2, a multiple of 256 is needed"
            );
            Ok(uf2(address, record, options.family.unwrap_or(UF2_RP2040)))
        }
    }
}

/// A number that differs from all others: the hasher's keys are the operating system's random numbers.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
