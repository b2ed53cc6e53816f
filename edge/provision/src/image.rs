//! Files on this machine: an EEPROM's image with a record in it, written whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use weir_contract::Id;
use weir_device::provision::{RECORD_LEN, Record, RecordError};

/// The image, as it is or as erased memory is.
///
/// # Errors
/// It cannot be read, has another size than was said, or there is none and no size was said.
pub fn load(path: &Path, size: Option<u32>) -> anyhow::Result<Vec<u8>> {
    let size = size.map(|size| size as usize);
    match fs::read(path) {
        Ok(bytes) => {
            if let Some(size) = size.filter(|&size| size != bytes.len()) {
                bail!("--size {size}: {} has {} bytes", path.display(), bytes.len());
            }
            Ok(bytes)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match size {
            Some(size) => Ok(vec![0xff; size]),
            None => bail!("{} is not there; give --size (32768 for a 24C256) to make it", path.display()),
        },
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Who the image is of, and its seed, if there is a good record in it.
pub fn owner(image: &[u8], at: usize) -> Option<(Id, Option<u64>)> {
    let record = Record::read(image.get(at..)?).ok()?;
    Some((record.device, record.seed))
}

/// Puts a record into the image. What else is in it stays, unless all of it is to be blank.
///
/// # Errors
/// It does not fit, or another device's events are in it.
pub fn put(
    image: &mut [u8],
    at: usize,
    record: &[u8; RECORD_LEN],
    device: Id,
    blank: bool,
) -> anyhow::Result<()> {
    let len = image.len();
    ensure!(
        at + RECORD_LEN <= len,
        "--at {at:#x}: a record of {RECORD_LEN} bytes does not fit in {len} bytes"
    );
    let there = image[at..].to_vec();
    match Record::read(&there) {
        _ if blank => image.fill(0xff),
        Ok(there) if there.device != device => bail!(
            "the image is {}'s, whose events may be in it and would be told as {device}'s; --blank erases all of it",
            there.device
        ),
        Ok(_) | Err(RecordError::Blank) => {}
        Err(error) => {
            bail!("at {at:#x} of the image stands something else ({error}); --blank erases all of it")
        }
    }
    image[at..at + RECORD_LEN].copy_from_slice(record);
    Ok(())
}

/// Writes a file whole, or leaves the one that was there. Where it holds a password, only its owner may read it.
///
/// # Errors
/// It cannot be written.
pub fn save(path: &Path, bytes: &[u8], secret: bool) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = create(&beside, secret).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(unix)]
fn create(path: &Path, secret: bool) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mode = if secret { 0o600 } else { 0o666 };
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path, _: bool) -> std::io::Result<fs::File> {
    fs::File::create(path)
}
