//! The one place in this package that reads the wall clock; and one that is wrong, for one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Unix time in milliseconds.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock of one process (libfaketime, which `make setup` installs); how long things take it sees as everybody does.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    /// What it stands at, as libfaketime reads it.
    file: PathBuf,
}

impl WallClock {
    /// One that is kept in `file`; `None` where there is no libfaketime.
    #[must_use]
    pub fn of_one_process(file: &Path) -> Option<WallClock> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
        let library = libraries.find(|library| library.exists())?;
        Some(WallClock { library, file: file.to_owned() })
    }

    /// From now on it is wrong by so many seconds, and goes on.
    pub fn set(&self, wrong_by_s: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{wrong_by_s:+}")).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &self.file).with_context(|| format!("renaming {}", new.display()))
    }

    /// What the process is to be started with.
    pub fn environment(&self) -> Result<Vec<String>> {
        let text = |path: &Path| Ok::<_, anyhow::Error>(path.to_str().context("not UTF-8")?.to_owned());
        Ok(vec![
            format!("LD_PRELOAD={}", text(&self.library)?),
            format!("FAKETIME_TIMESTAMP_FILE={}", text(&self.file)?),
            "FAKETIME_NO_CACHE=1".to_owned(),
            // Its two names, by version.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ])
    }
}
