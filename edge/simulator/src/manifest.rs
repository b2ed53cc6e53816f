//! What was emitted: written by `run` and `load`, read by `verify`.
//!
//! ```json
//! {"devices": [{"device": "sim-0001", "boots": [{"boot": "1234", "emitted": 4711, "unacknowledged": [[4700, 4711]]}]}]}
//! ```

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What every device emitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// One entry for each device that emitted anything.
    pub devices: Vec<DeviceEntry>,
}

/// What a device emitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// Its name.
    pub device: String,
    /// Its boots, oldest first.
    pub boots: Vec<BootEntry>,
}

/// What a device emitted in one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// The boot.
    #[serde(with = "decimal")]
    pub boot: u64,
    /// The greatest number given: the numbers 1 to this must be stored or in the ledger.
    pub emitted: u32,
    /// Numbers `[from, to]` among them that no gateway had acknowledged in the end: they may or may not be stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unacknowledged: Vec<[u32; 2]>,
}

impl BootEntry {
    /// Whether nobody had acknowledged this number in the end.
    #[must_use]
    pub fn is_unacknowledged(&self, number: u32) -> bool {
        self.unacknowledged.iter().any(|&[from, to]| (from..=to).contains(&number))
    }
}

/// A manifest could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system says no.
    #[error("cannot {verb} the manifest {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a manifest.
    #[error("{} is not a manifest as `weir-sim run` and `load` write it", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Manifest {
    /// How many numbers were given in all.
    pub fn emitted(&self) -> u64 {
        self.boots().map(|boot| u64::from(boot.emitted)).sum()
    }

    /// How many of them were not acknowledged in the end.
    pub fn unacknowledged(&self) -> u64 {
        let runs = self.boots().flat_map(|boot| &boot.unacknowledged);
        runs.map(|[from, to]| u64::from(to - from) + 1).sum()
    }

    fn boots(&self) -> impl Iterator<Item = &BootEntry> {
        self.devices.iter().flat_map(|device| &device.boots)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error`] names the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file =
            File::open(path).map_err(|source| Error::File { verb: "open", path: path.into(), source })?;
        let manifest: Self = serde_json::from_reader(BufReader::new(file))
            .map_err(|source| Error::Content { path: path.into(), source })?;
        let runs = manifest.boots().flat_map(|boot| boot.unacknowledged.iter().map(move |run| (boot, run)));
        for (boot, &[from, to]) in runs {
            if from == 0 || from > to || to > boot.emitted {
                let source =
                    serde::de::Error::custom(format!("[{from}, {to}] is no run of 1..={}", boot.emitted));
                return Err(Error::Content { path: path.into(), source });
            }
        }
        Ok(manifest)
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// [`Error`] names the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let error = |source| Error::File { verb: "write", path: path.into(), source };
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let mut file = BufWriter::new(File::create(&unfinished).map_err(error)?);
        serde_json::to_writer(&mut file, self).map_err(|source| error(source.into()))?;
        file.write_all(b"\n").and_then(|()| file.flush()).map_err(error)?;
        std::fs::rename(&unfinished, path).map_err(error)
    }
}

/// 64-bit numbers as text: JSON readers may take numbers beyond 2⁵³ for others.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format!("{text:?} is no decimal number of 64 bits")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("manifest.json");
        let manifest = Manifest {
            devices: vec![DeviceEntry {
                device: "sim-0001".into(),
                boots: vec![
                    BootEntry { boot: u64::MAX, emitted: 10, unacknowledged: vec![[3, 3], [8, 10]] },
                    BootEntry { boot: 1, emitted: 2, unacknowledged: vec![] },
                ],
            }],
        };
        manifest.write(&path).expect("written");
        assert_eq!(Manifest::read(&path).expect("read"), manifest);
        assert_eq!((manifest.emitted(), manifest.unacknowledged()), (12, 4));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_run_outside_the_numbers_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("manifest.json");
        for run in ["[0, 1]", "[2, 1]", "[1, 11]"] {
            let boot = format!(r#"{{"boot": "1", "emitted": 10, "unacknowledged": [{run}]}}"#);
            std::fs::write(&path, format!(r#"{{"devices": [{{"device": "a", "boots": [{boot}]}}]}}"#))
                .expect("written");
            assert!(matches!(Manifest::read(&path), Err(Error::Content { .. })), "{run}");
        }
    }
}
