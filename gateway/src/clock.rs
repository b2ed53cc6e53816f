//! The one place that reads the wall clock, and that knows whether it can be right.
//!
//! A gateway may have no battery for its clock: it begins in 1970, or where it was last stopped, until somebody on the network
//! tells it the time. Until then it takes uplinks as ever, but tells no device what time it is, and does not claim to know when
//! it began itself. The clock is not believed ([`Doubt`])
//!
//! * when it shows a time before this version was made;
//! * when it shows a time before one that it has shown already, in an earlier run: that is written down every ten minutes
//!   ([`Clock::remember`]), so a clock that was restored from the disk is found out if it was saved before the last of them;
//! * when the machine has no clock that goes on without power, and systemd-timesyncd, which sets it, has not heard from any
//!   server yet.
//!
//! A clock that is set while we run is believed from then on, whatever was doubted before; likewise one that systemd-timesyncd
//! has set since the machine was started: then it was the time of the earlier run that was wrong. What cannot be found out: a clock
//! restored from a later time than ours, on a machine where something else than timesyncd sets it. It is told when it is set.
//!
//! [`Steps`] finds out when the clock was set, by the clock that only ever goes forward, also while the machine sleeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use weir_contract::time::NOT_BEFORE_MS;

use crate::journal::{self, Entry};

/// Clocks that part by more have not drifted: one was set.
const STEP_MS: u64 = 500;
/// How often they are compared.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the time is written down.
const REMEMBER_EVERY: Duration = Duration::from_secs(600);
/// A clock that was set by so little since it was written down is the same clock.
const SAME_MS: u64 = 2_000;
/// Where systemd-timesyncd is at work, and what it touches there when it has heard from a server
/// (systemd-timesyncd.service(8)).
const TIMESYNC_FOLDER: &str = "run/systemd/timesync";
const SYNCHRONIZED_FILE: &str = "synchronized";
/// Clocks that go on without power.
const RTC_FOLDER: &str = "sys/class/rtc";

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// It shows a time before this version was made.
    BeforeThisVersion,
    /// It shows a time before one that it has shown in an earlier run.
    WentBack,
    /// Nothing keeps it going without power, and nobody has set it since the machine was started.
    NotSynchronized,
}

impl Doubt {
    /// For a person, with what helps.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Doubt::BeforeThisVersion => {
                "it shows a time before this version was made; devices are told no time until it is set"
            }
            Doubt::WentBack => {
                "at the start it showed a time before one of an earlier run; devices are told no time until it is set, by \
                 timesyncd or by hand (if it is right: remove `clock` in the spool's folder and start again)"
            }
            Doubt::NotSynchronized => {
                "nothing keeps it going without power, and timesyncd has heard from no server yet; devices are told no time \
                 until then"
            }
        }
    }
}

/// Tells the wall time. Cheap to clone; a clone of a manual clock is the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    manual: Option<Arc<AtomicU64>>,
    set: Arc<watch::Sender<u64>>,
    trust: Arc<Mutex<Trust>>,
    /// The machine's folders: `/`.
    root: Arc<Path>,
}

/// What is known of the clock beside what it shows.
#[derive(Debug, Default)]
struct Trust {
    /// At the start it showed a time before one that it has shown in an earlier run. That it has come to where it was, later,
    /// makes it no better.
    went_back: bool,
    not_synchronized: bool,
    /// Where what it shows is written down.
    file: Option<PathBuf>,
}

impl Trust {
    /// Pure.
    fn doubt(&self, unix_ms: u64) -> Option<Doubt> {
        if unix_ms < NOT_BEFORE_MS {
            Some(Doubt::BeforeThisVersion)
        } else if self.went_back {
            Some(Doubt::WentBack)
        } else {
            self.not_synchronized.then_some(Doubt::NotSynchronized)
        }
    }
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Clock::of_machine(Path::new("/"))
    }

    fn of_machine(root: &Path) -> Self {
        let trust = Trust { not_synchronized: awaits_synchronization(root), ..Trust::default() };
        let (set, trust) = (Arc::new(watch::Sender::new(0)), Arc::new(Mutex::new(trust)));
        Clock { manual: None, set, trust, root: root.into() }
    }

    /// A clock that stands at `unix_ms` until [`Clock::set`].
    #[must_use]
    pub fn manual(unix_ms: u64) -> Self {
        let clock = Clock { manual: Some(Arc::new(AtomicU64::new(unix_ms))), ..Clock::system() };
        clock.trust().not_synchronized = false;
        clock
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn set(&self, unix_ms: u64) {
        if let Some(manual) = &self.manual {
            manual.store(unix_ms, Ordering::Relaxed);
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, as far as the machine knows; 0 on one whose clock stands before that.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        if let Some(manual) = &self.manual {
            return manual.load(Ordering::Relaxed);
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The same, if it can be right: for those who would believe it.
    #[must_use]
    pub fn known_unix_ms(&self) -> Option<u64> {
        let unix_ms = self.unix_ms();
        self.trust().doubt(unix_ms).is_none().then_some(unix_ms)
    }

    /// Why it is not believed now, if so.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        self.trust().doubt(self.unix_ms())
    }

    /// Reads what the clock has shown in an earlier run, and has it written down there from now on. A file that cannot be read
    /// is none: the clock is then believed as far as it would be without it.
    pub fn remember(&self, file: &Path) {
        let shown_ms = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let went_back = shown_ms.is_some_and(|shown_ms| self.unix_ms().saturating_add(SAME_MS) < shown_ms)
            && !self.is_synchronized();
        let mut trust = self.trust();
        (trust.went_back, trust.file) = (went_back, Some(file.into()));
    }

    /// How often the clock has been set since the start.
    #[must_use]
    pub fn steps(&self) -> u64 {
        *self.set.borrow()
    }

    /// Resolves when the clock has been set more often than that.
    pub async fn stepped(&self, steps: u64) {
        let mut set = self.set.subscribe();
        // It cannot fail: the sender is in `self`.
        let _ = set.wait_for(|now| *now > steps).await;
    }

    /// Looks again and again whether the clock was set, and tells the log, the journal and [`Self::steps`].
    pub async fn watch(self, journal: journal::Sender) {
        let mut steps = Steps::new(self.unix_ms(), since_boot());
        let mut written_at = None;
        let mut doubt = self.doubt();
        if let Some(doubt) = doubt {
            tracing::warn!(
                unix_ms = self.unix_ms(),
                ?doubt,
                "the clock is not set: no device is told the time until it is, and times of receipt are of no use"
            );
        }
        loop {
            if doubt.is_none() && written_at.is_none_or(|at| since_boot() >= at + REMEMBER_EVERY) {
                self.write_down();
                written_at = Some(since_boot());
            }
            sleep(LOOK_EVERY).await;
            let step = steps.look(self.unix_ms(), since_boot());
            if let Some(by_ms) = step {
                // Whoever set it knew better than what we remember.
                let mut trust = self.trust();
                (trust.went_back, trust.not_synchronized) = (false, false);
                drop(trust);
                written_at = None;
                tracing::warn!(by_ms, known = self.known_unix_ms().is_some(), "the clock was set");
                journal.send(Entry::ClockStepped { by_ms });
            } else if matches!(doubt, Some(Doubt::NotSynchronized | Doubt::WentBack)) {
                self.look_for_synchronization();
            }
            let before = std::mem::replace(&mut doubt, self.doubt());
            // Also when it was right all the time, or has come to where it was: from now on that is known.
            if step.is_some() || (before.is_some() && doubt.is_none()) {
                self.set.send_modify(|steps| *steps += 1);
            }
        }
    }

    /// A clock that was set before we looked does not step: it is only said to be right.
    fn look_for_synchronization(&self) {
        let synchronized = self.is_synchronized();
        let awaits = awaits_synchronization(&self.root);
        let mut trust = self.trust();
        let before = (trust.went_back, trust.not_synchronized);
        trust.went_back &= !synchronized;
        trust.not_synchronized &= awaits;
        if before != (trust.went_back, trust.not_synchronized) {
            tracing::info!("the clock is synchronised");
        }
    }

    /// Whether timesyncd has set the machine's clock since the machine was started.
    fn is_synchronized(&self) -> bool {
        self.manual.is_none() && self.root.join(TIMESYNC_FOLDER).join(SYNCHRONIZED_FILE).exists()
    }

    /// Not synced: what a power cut takes of it was of the last minutes.
    fn write_down(&self) {
        let unix_ms = self.unix_ms();
        let Some(file) = self.trust().file.clone() else { return };
        let new = file.with_extension("new");
        let written = fs::write(&new, unix_ms.to_string()).and_then(|()| fs::rename(&new, &file));
        if let Err(error) = written {
            tracing::debug!(file = %file.display(), %error, "the time cannot be written down");
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().expect("nothing panics while it holds the lock")
    }
}

/// Whether the machine's clock comes from nowhere until timesyncd has heard from a server.
fn awaits_synchronization(root: &Path) -> bool {
    let has_rtc = fs::read_dir(root.join(RTC_FOLDER)).is_ok_and(|mut clocks| clocks.next().is_some());
    let timesync = root.join(TIMESYNC_FOLDER);
    !has_rtc && timesync.is_dir() && !timesync.join(SYNCHRONIZED_FILE).exists()
}

/// How long the machine has been on, asleep or not.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Finds steps of the wall clock. Pure: both clocks go in.
#[derive(Debug)]
struct Steps {
    unix_ms: u64,
    /// By a clock that nobody sets and that does not sleep.
    at: Duration,
}

impl Steps {
    fn new(unix_ms: u64, at: Duration) -> Self {
        Steps { unix_ms, at }
    }

    /// By how much the wall clock was set since the last look, if it was. What is less is drift, and is not added up: an hour of
    /// it is no step.
    fn look(&mut self, unix_ms: u64, at: Duration) -> Option<i64> {
        let passed_ms = u64::try_from(at.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        let expected_ms = self.unix_ms.saturating_add(passed_ms);
        *self = Steps { unix_ms, at };
        let by_ms = i128::from(unix_ms) - i128::from(expected_ms);
        let by_ms = i64::try_from(by_ms).unwrap_or(if by_ms < 0 { i64::MIN } else { i64::MAX });
        (by_ms.unsigned_abs() > STEP_MS).then_some(by_ms)
    }
}

#[cfg(test)]
mod tests;
