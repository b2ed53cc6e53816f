//! How fast the flash under the spool wears out: what is written, for each event and each day, and how long the card lasts.
//!
//! Flash ends after so many bytes written (the makers' TBW), so what is written is counted where it leaves the machine:
//!
//! - what this process had written, by `/proc/self/io` (proc(5), `write_bytes`): whole blocks, with all that the spool
//!   writes beside the uplinks;
//! - what the whole disk under the spool's folder took, by `/sys/dev/block/MAJOR:MINOR/stat` (the kernel's
//!   `Documentation/block/stat.rst`, the seventh field, in sectors of 512 bytes): the file system's journal and everybody
//!   else on this machine included. This is what ends a card's life.
//!
//! What the card writes inside itself, moving blocks around, only eMMC tells, and coarsely (`life_time`). A file system
//! without one disk under it (tmpfs, overlay, network) has none of these numbers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::custody::Taken;

/// Rates of a shorter time are no rates: the first minutes are the start's own writes.
const RATES_AFTER: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECTOR: u64 = 512;

/// What was written since the gateway was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// By this process, in bytes; `None` where the kernel does not count that.
    pub own: Option<u64>,
    /// To the whole disk, in bytes; `None` where there is not one disk.
    pub disk: Option<u64>,
}

/// Looks at the counters.
#[derive(Clone, Debug)]
pub struct Wear {
    disk: Option<Disk>,
    /// What can be written to the card in all, in bytes; 0 is unknown.
    endurance: u64,
    began: Instant,
    /// The counters then.
    before: Written,
}

/// A whole disk, in sysfs.
#[derive(Clone, Debug)]
struct Disk {
    name: String,
    folder: PathBuf,
}

/// What is told of it; bytes since the gateway was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// For how long this was counted.
    pub seconds: u64,
    /// Bytes that this process had written to disk, whole blocks.
    pub written_bytes: Option<u64>,
    /// Of that, for each event taken.
    pub bytes_per_event: Option<f64>,
    /// Of that, for each byte of the uplinks that were stored: the write amplification.
    pub amplification: Option<f64>,
    /// The disk under the spool, as the kernel calls it.
    pub disk: Option<String>,
    /// Bytes that were written to that disk, by everybody.
    pub disk_written_bytes: Option<u64>,
    /// The same for a day, as things go; after ten minutes.
    pub disk_bytes_per_day: Option<u64>,
    /// What can be written to it in all, as it was configured (`spool.card_endurance`).
    pub endurance_bytes: Option<u64>,
    /// How long a new one lasts as things go: its endurance by a day's writes.
    pub lasts_days: Option<u64>,
    /// Of its life, the percentage that is used at most, in its own words (eMMC, in steps of ten).
    pub used_percent_max: Option<u8>,
}

impl Wear {
    /// Begins to count, for a spool in that folder, which is there, on a card of so many bytes of endurance (0: unknown).
    #[must_use]
    pub fn start(folder: &Path, endurance: u64, now: Instant) -> Self {
        let disk = Disk::under(folder);
        let before = counters(disk.as_ref());
        Wear { disk, endurance, began: now, before }
    }

    /// How much was written while `taken` was taken. Reads three small files of the kernel's.
    #[must_use]
    pub fn look(&self, taken: Taken, now: Instant) -> Status {
        let after = counters(self.disk.as_ref());
        // A counter that goes back was another disk's.
        let since = |after: Option<u64>, before: Option<u64>| after?.checked_sub(before?);
        let written =
            Written { own: since(after.own, self.before.own), disk: since(after.disk, self.before.disk) };
        let used_percent_max = self.disk.as_ref().and_then(Disk::used_percent_max);
        let disk = self.disk.as_ref().map(|disk| disk.name.clone());
        Status { disk, used_percent_max, ..rates(written, taken, now - self.began, self.endurance) }
    }
}

/// The numbers made of the counters. Pure.
fn rates(written: Written, taken: Taken, time: Duration, endurance: u64) -> Status {
    let per_day = written.disk.filter(|_| time >= RATES_AFTER).map(|bytes| {
        let per_day = u128::from(bytes) * DAY.as_millis() / time.as_millis();
        u64::try_from(per_day).unwrap_or(u64::MAX)
    });
    let endurance = Some(endurance).filter(|&bytes| bytes > 0);
    let lasts_days = per_day.zip(endurance).and_then(|(per_day, endurance)| endurance.checked_div(per_day));
    Status {
        seconds: time.as_secs(),
        written_bytes: written.own,
        bytes_per_event: written.own.and_then(|bytes| ratio(bytes, taken.events)),
        amplification: written.own.and_then(|bytes| ratio(bytes, taken.bytes)),
        disk: None,
        disk_written_bytes: written.disk,
        disk_bytes_per_day: per_day,
        endurance_bytes: endurance,
        lasts_days,
        used_percent_max: None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn ratio(bytes: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| bytes as f64 / of as f64)
}

fn counters(disk: Option<&Disk>) -> Written {
    let own = fs::read_to_string("/proc/self/io").ok();
    Written { own: own.as_deref().and_then(own_bytes), disk: disk.and_then(Disk::written_bytes) }
}

/// `write_bytes` of `/proc/PID/io`. What was taken back before it was written (`cancelled_write_bytes`: files deleted
/// meanwhile) is not taken off: the spool syncs what it writes.
fn own_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

/// The sectors written, of a disk's `stat`, in bytes.
fn disk_bytes(stat: &str) -> Option<u64> {
    stat.split_ascii_whitespace().nth(6)?.parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// `life_time` of an eMMC (JEDEC 84-B50, DEVICE_LIFE_TIME_EST_TYP_A and _B): 1 is 0 to 10 % used, 11 is more than all.
fn used_percent(life_time: &str) -> Option<u8> {
    let used = |word: &str| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let most = life_time.split_ascii_whitespace().filter_map(used).max()?;
    (1..=11).contains(&most).then_some(most * 10)
}

impl Disk {
    /// The whole disk on which a folder is, if it is on one.
    fn under(folder: &Path) -> Option<Disk> {
        let device = fs::metadata(folder).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // A partition wears out no part of its own.
        let folder = if folder.join("partition").exists() { folder.parent()?.to_owned() } else { folder };
        Some(Disk { name: folder.file_name()?.to_str()?.to_owned(), folder })
    }

    fn written_bytes(&self) -> Option<u64> {
        disk_bytes(&fs::read_to_string(self.folder.join("stat")).ok()?)
    }

    fn used_percent_max(&self) -> Option<u8> {
        used_percent(&fs::read_to_string(self.folder.join("device/life_time")).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn a_cards_life_is_its_endurance_by_what_a_day_writes() {
        let written = Written { own: Some(50_000), disk: Some(GB) };
        let taken = Taken { uplinks: 100, events: 500, bytes: 10_000 };
        let hour = Duration::from_secs(3600);
        let told = rates(written, taken, hour, 30_000 * GB);
        assert_eq!(told.disk_bytes_per_day, Some(24 * GB));
        assert_eq!((told.endurance_bytes, told.lasts_days), (Some(30_000 * GB), Some(1250)));
        assert_eq!((told.bytes_per_event, told.amplification), (Some(100.0), Some(5.0)));
        assert_eq!((told.seconds, told.written_bytes), (3600, Some(50_000)));
        // Not known: not told.
        let told = rates(written, taken, hour, 0);
        assert_eq!((told.endurance_bytes, told.lasts_days), (None, None));
        let nothing = rates(Written::default(), taken, hour, 30_000 * GB);
        assert_eq!(
            (nothing.disk_bytes_per_day, nothing.lasts_days, nothing.bytes_per_event),
            (None, None, None)
        );
    }

    #[test]
    fn the_first_minutes_and_nothing_written_promise_nothing() {
        let written = Written { own: Some(0), disk: Some(5 * GB) };
        let taken = Taken::default();
        let early = rates(written, taken, RATES_AFTER - Duration::from_millis(1), 30_000 * GB);
        assert_eq!((early.disk_bytes_per_day, early.lasts_days), (None, None));
        assert_eq!((early.bytes_per_event, early.amplification), (None, None), "no events, no bytes");
        let idle = rates(Written { own: Some(0), disk: Some(0) }, taken, DAY, 30_000 * GB);
        assert_eq!((idle.disk_bytes_per_day, idle.lasts_days), (Some(0), None));
        let flood = rates(Written { own: None, disk: Some(u64::MAX) }, taken, RATES_AFTER, u64::MAX);
        assert_eq!(flood.disk_bytes_per_day, Some(u64::MAX));
    }

    #[test]
    fn the_kernels_files_are_read_as_they_are() {
        let io = "rchar: 1948\nwchar: 12\nsyscr: 7\nsyscw: 1\nread_bytes: 0\nwrite_bytes: 49152\ncancelled_write_bytes: 4096\n";
        assert_eq!(own_bytes(io), Some(49_152));
        assert_eq!(own_bytes("rchar: 1948\n"), None);
        let stat = " 2943808    75629 100074602 13665308  4346368  1162243 401633456  3583254        0   926704 17632818\n";
        assert_eq!(disk_bytes(stat), Some(401_633_456 * 512));
        assert_eq!(disk_bytes(""), None);
        assert_eq!(
            ["0x01 0x02\n", "0x0b 0x01", "0x00 0x00", "nonsense"].map(used_percent),
            [Some(20), Some(110), None, None]
        );
    }
}
