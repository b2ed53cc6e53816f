//! The conservation check: for every boot of every device, emitted = stored + ledger, each number exactly once.
//!
//! Two things are asked of the cloud. Its account of each boot (runs of stored numbers, runs told as lost, rows in the
//! table of events) must add up to what the manifest says was emitted. And reading the whole history, page by page, must
//! show exactly the stored numbers, none of them twice.

mod api;
mod proof;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::manifest::{self, BootEntry, DeviceEntry, Manifest};
use crate::output::{grouped, table};
use api::{Boot, Cloud};
use proof::{Account, Reading};

/// Questions asked at the same time.
const ASKING_MAX: usize = 8;
/// Between two looks at what has not arrived yet.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Findings told one by one.
const FINDINGS_MAX: usize = 20;

/// Options of `weir-sim verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyOptions {
    /// What was emitted, as `run` or `load` wrote it
    #[arg(long, value_name = "FILE")]
    pub manifest: PathBuf,
    /// The cloud's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9890")]
    pub cloud: String,
    /// How long to wait for what has not arrived yet, as 500ms, 30s or 2m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    pub wait: Duration,
    /// Believe the cloud's account of runs and rows; do not read every event
    #[arg(long)]
    pub runs_only: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "expected a time as 500ms, 30s or 2m")?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        unit => return Err(format!("{unit:?} is no unit; use ms, s or m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// It could not be proven nor disproven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no manifest.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The cloud does not answer.
    #[error("cannot ask the cloud")]
    Cloud(#[from] api::Error),
}

/// What was found. Counts are of event numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Emitted = stored + ledger, each exactly once; apart from what nobody ever acknowledged to the device.
    pub proven: bool,
    /// Devices in the manifest.
    pub devices: usize,
    /// Their boots.
    pub boots: usize,
    /// Numbers they gave.
    pub emitted: u64,
    /// Of these, stored.
    pub stored: u64,
    /// Of these, in the ledger of losses.
    pub lost: u64,
    /// Of these, neither, and never acknowledged to the device either.
    pub undelivered: u64,
    /// Of these, neither, though acknowledged.
    pub missing: u64,
    /// Accounted for more than once.
    pub doubled: u64,
    /// In the cloud, and never given by the device.
    pub invented: u64,
    /// Rows counted in the table of events, and read in the history, that do not agree with the runs; events out of
    /// order; losses told of what is stored, or told twice.
    pub contradictions: u64,
    /// Whether every event was read.
    pub history_read: bool,
    /// Boots of these devices that the cloud knows and the manifest does not: other runs.
    pub other_boots: u64,
    /// The first findings, in words.
    pub findings: Vec<String>,
}

/// Asks the cloud.
///
/// # Errors
/// [`Error`] if it cannot be asked; what is found wrong is in the report.
pub fn run(options: &VerifyOptions) -> Result<Report, Error> {
    let manifest = Manifest::read(&options.manifest)?;
    let cloud = Cloud::at(&options.cloud);
    let deadline = Instant::now() + options.wait;
    let mut checked: Vec<Option<DeviceCheck>> = manifest.devices.iter().map(|_| None).collect();
    loop {
        let open: Vec<usize> = (0..checked.len())
            .filter(|&index| checked[index].as_ref().is_none_or(|c| !c.is_complete()))
            .collect();
        let asked = each(&open, |&index| check(&cloud, &manifest.devices[index]).map(|check| (index, check)));
        let over = Instant::now() >= deadline;
        match asked {
            Ok(checks) => {
                for (index, check) in checks {
                    checked[index] = Some(check);
                }
                if over || checked.iter().flatten().all(DeviceCheck::is_complete) {
                    break;
                }
            }
            // The cloud may be starting.
            Err(error) if over => return Err(error.into()),
            Err(_) => {}
        }
        // Nothing to be woken by: the cloud is asked again.
        std::thread::park_timeout(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now())));
    }
    let mut checks: Vec<DeviceCheck> = checked.into_iter().flatten().collect();
    if !options.runs_only {
        let readings = each(&manifest.devices, |device| read(&cloud, device))?;
        for (check, readings) in checks.iter_mut().zip(readings) {
            check.readings = Some(readings);
        }
    }
    Ok(report(&manifest, &checks, !options.runs_only))
}

/// What is known of one device.
struct DeviceCheck {
    /// In the order of the manifest's boots.
    accounts: Vec<Account>,
    /// Likewise, if the history was read.
    readings: Option<Vec<Reading>>,
    other_boots: usize,
}

impl DeviceCheck {
    fn is_complete(&self) -> bool {
        self.accounts.iter().all(Account::is_complete)
    }
}

fn check(cloud: &Cloud, device: &DeviceEntry) -> Result<DeviceCheck, api::Error> {
    let boots = cloud.boots(&device.device)?;
    let known: HashMap<&str, &Boot> = boots.iter().map(|boot| (boot.boot.as_str(), boot)).collect();
    let account = |entry: &BootEntry| Account::of(entry, known.get(entry.boot.to_string().as_str()).copied());
    let accounts = device.boots.iter().map(account).collect();
    let ours =
        device.boots.iter().filter(|entry| known.contains_key(entry.boot.to_string().as_str())).count();
    Ok(DeviceCheck { accounts, readings: None, other_boots: boots.len() - ours })
}

fn read(cloud: &Cloud, device: &DeviceEntry) -> Result<Vec<Reading>, api::Error> {
    let mut readings: Vec<Reading> = device.boots.iter().map(Reading::begin).collect();
    let places: HashMap<String, usize> =
        device.boots.iter().enumerate().map(|(place, entry)| (entry.boot.to_string(), place)).collect();
    let mut going_on: Option<usize> = None;
    cloud.history(&device.device, |event| {
        let place = places.get(&event.boot).copied();
        if let Some(before) = going_on.filter(|_| place != going_on) {
            readings[before].end();
        }
        going_on = place;
        if let Some(place) = place {
            readings[place].see(event.seq);
        }
    })?;
    Ok(readings)
}

/// Does `work` for each item, several at a time; answers in the order of the items. The first error ends it.
fn each<T: Sync, A: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<A, E> + Sync,
) -> Result<Vec<A>, E> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let failed = || failure.lock().expect("nobody panics while holding it");
    let mut answers: Vec<(usize, A)> = std::thread::scope(|scope| {
        let worker = || {
            let mut answers = Vec::new();
            while let Some((index, item)) =
                Some(next.fetch_add(1, Relaxed)).and_then(|i| Some((i, items.get(i)?)))
            {
                match work(item) {
                    Ok(answer) => answers.push((index, answer)),
                    Err(error) => {
                        failed().get_or_insert(error);
                    }
                }
                if failed().is_some() {
                    break;
                }
            }
            answers
        };
        let workers: Vec<_> = (0..ASKING_MAX.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<(usize, A)>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    if let Some(error) = failed().take() {
        return Err(error);
    }
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

fn report(manifest: &Manifest, checks: &[DeviceCheck], history_read: bool) -> Report {
    let mut report = Report { devices: manifest.devices.len(), history_read, ..Report::default() };
    for (device, check) in manifest.devices.iter().zip(checks) {
        report.other_boots += check.other_boots as u64;
        for (place, (entry, account)) in device.boots.iter().zip(&check.accounts).enumerate() {
            let reading = check.readings.as_ref().and_then(|readings| readings.get(place));
            report.add(&device.device, entry, account, reading);
        }
    }
    let wrong = report.missing + report.doubled + report.invented + report.contradictions;
    // Of nothing nothing is proven.
    report.proven = wrong == 0 && report.stored + report.lost > 0;
    if wrong == 0 && !report.proven {
        report.tell("nothing of what was emitted has arrived".to_owned());
    }
    report
}

impl Report {
    fn add(&mut self, device: &str, entry: &BootEntry, account: &Account, reading: Option<&Reading>) {
        self.boots += 1;
        self.emitted += u64::from(entry.emitted);
        let (stored, lost) = (account.stored.count(), account.lost.count());
        self.stored += stored;
        self.lost += lost;
        self.undelivered += account.undelivered;
        self.missing += account.missing.len() as u64;
        self.doubled += account.doubled.len() as u64;
        self.invented += account.invented;
        self.find(device, entry, &account.missing, "acknowledged, and neither stored nor in the ledger");
        self.find(device, entry, &account.doubled, "accounted for more than once");
        if account.invented > 0 {
            self.tell(format!("{device}/{}: {} numbers were never given", entry.boot, account.invented));
        }
        if account.rows != stored {
            self.contradictions += account.rows.abs_diff(stored);
            let rows = account.rows;
            self.tell(format!("{device}/{}: {stored} numbers are stored, in {rows} rows", entry.boot));
        }
        if account.lost_and_accounted_for > 0 {
            self.contradictions += account.lost_and_accounted_for;
            let told = account.lost_and_accounted_for;
            self.tell(format!(
                "{device}/{}: {told} losses are told of what is stored, or told twice",
                entry.boot
            ));
        }
        let Some(reading) = reading else { return };
        let differs = reading.differs_from(account, entry);
        self.doubled += reading.doubled.len() as u64;
        self.contradictions += (differs.len() + reading.disordered.len()) as u64 + reading.invented;
        self.find(device, entry, &reading.disordered, "stands in the history behind a later one");
        self.find(device, entry, &reading.doubled, "stands in the history more than once");
        self.find(device, entry, &differs, "is stored and not in the history, or the other way round");
    }

    fn find(&mut self, device: &str, entry: &BootEntry, numbers: &[u32], what: &str) {
        if let Some(first) = numbers.first() {
            let more =
                if numbers.len() > 1 { format!(" and {} more", numbers.len() - 1) } else { String::new() };
            self.tell(format!("{device}/{}/{first}{more}: {what}", entry.boot));
        }
    }

    fn tell(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("devices", grouped(self.devices as u64)),
            ("boots", grouped(self.boots as u64)),
            ("events emitted", grouped(self.emitted)),
            ("= stored", grouped(self.stored)),
            ("+ in the ledger of losses", grouped(self.lost)),
        ];
        if self.undelivered > 0 {
            rows.push(("+ never acknowledged to the device", grouped(self.undelivered)));
        }
        rows.extend([
            ("missing", grouped(self.missing)),
            ("doubled", grouped(self.doubled)),
            ("never emitted", grouped(self.invented)),
            ("contradictions", grouped(self.contradictions)),
        ]);
        if self.other_boots > 0 {
            rows.push(("boots that are not in the manifest", grouped(self.other_boots)));
        }
        let how =
            if self.history_read { "every event was read" } else { "by runs and rows; events were not read" };
        let verdict = if self.proven { "proven: each exactly once" } else { "NOT so" };
        let mut text = format!("{}\n{verdict} ({how})", table(&rows));
        for finding in &self.findings {
            text.push_str("\n  ");
            text.push_str(finding);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let parsed =
            ["500ms", "30s", "2m", "7", "0.5s"].map(|text| parse_time(text).expect("a time").as_millis());
        assert_eq!(parsed, [500, 30_000, 120_000, 7000, 500]);
        for bad in ["", "s", "1h", "-1s", "1e400"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_come_in_order_and_one_error_ends_it() {
        let items: Vec<u32> = (0..100).collect();
        let answers = each(&items, |&item| Ok::<_, ()>(item * 2)).expect("no error");
        assert!(answers.iter().zip(0..).all(|(&answer, item)| answer == item * 2));
        assert_eq!(each(&items, |&item| if item == 50 { Err(item) } else { Ok(()) }), Err(50));
    }

    #[test]
    fn a_single_event_missing_or_doubled_is_no_proof() {
        let entry = BootEntry { boot: 7, emitted: 3, unacknowledged: vec![] };
        let manifest =
            Manifest { devices: vec![DeviceEntry { device: "a".into(), boots: vec![entry.clone()] }] };
        let prove = |stored: &[[u32; 2]], rows, read: &[u32]| {
            let found =
                Boot { boot: "7".into(), stored: stored.into(), lost: vec![], told_lost: 0, events: rows };
            let mut reading = Reading::begin(&entry);
            read.iter().for_each(|&seq| reading.see(seq));
            let accounts = vec![Account::of(&entry, Some(&found))];
            report(
                &manifest,
                &[DeviceCheck { accounts, readings: Some(vec![reading]), other_boots: 0 }],
                true,
            )
        };
        assert!(prove(&[[1, 3]], 3, &[1, 2, 3]).proven);
        assert!(!prove(&[[1, 2]], 2, &[1, 2]).proven);
        assert!(!prove(&[[1, 3]], 4, &[1, 2, 3]).proven, "one row too many");
        assert!(!prove(&[[1, 3]], 3, &[1, 2, 3, 3]).proven, "one read twice");
        assert!(!prove(&[[1, 3]], 3, &[1, 2]).proven, "one cannot be read");
        assert!(!prove(&[[1, 3]], 3, &[1, 3, 2]).proven, "two have changed places");
    }

    #[test]
    fn of_nothing_nothing_is_proven() {
        let none = BootEntry { boot: 7, emitted: 3, unacknowledged: vec![[1, 3]] };
        let devices = vec![DeviceEntry { device: "a".into(), boots: vec![none.clone()] }];
        let accounts = vec![Account::of(&none, None)];
        let checks = [DeviceCheck { accounts, readings: None, other_boots: 0 }];
        let found = report(&Manifest { devices }, &checks, false);
        assert_eq!((found.proven, found.undelivered, found.findings.len()), (false, 3, 1));
        assert!(!report(&Manifest { devices: vec![] }, &[], false).proven);
    }
}
