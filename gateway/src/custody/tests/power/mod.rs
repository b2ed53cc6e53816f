//! The power is cut at any moment of a gateway's life: hundreds of times, with everything that was not synced forgotten,
//! torn or out of order ([`disk`]), and again while it recovers from that.
//!
//! A cut that breaks a promise prints what makes it again: `WEIR_SEED=… cargo test -p weir-gateway --lib custody::tests::power`.
//! `WEIR_CUTS` is how many there are.

mod disk;
mod life;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use self::disk::{Disk, Entry, Luck, differences};
use self::life::{Said, live};

/// A start must not take longer on any machine that runs the tests; it is measured, and said.
const OPEN_MAX: Duration = Duration::from_secs(5);

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_record_of_a_life_is_what_is_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, again) = (folder.path().join("root"), folder.path().join("again"));
    for path in [&root, &again] {
        std::fs::create_dir(path).expect("made");
    }
    let mut disk = Disk::of(&root);
    live(&root, 7, 30).iter().for_each(|entry| disk.apply(entry));
    disk.lay_out_now(&again);
    assert_eq!(differences(&root, &again), Vec::<String>::new());
}

#[test]
fn hundreds_of_power_cuts_take_back_no_promise() {
    let seed = number_from("WEIR_SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number_from("WEIR_CUTS").unwrap_or(400);
    println!("WEIR_SEED={seed} WEIR_CUTS={count}");
    let mut cuts = Cuts { random: fastrand::Rng::with_seed(seed), done: 0, longest: Duration::ZERO };
    while cuts.done < count {
        let folder = in_memory();
        // Some lives are short: a folder that is only just there, an epoch that is only just begun.
        let (cut_count, bursts) = if cuts.random.bool() { (30, 2) } else { (50, 45) };
        cuts.of_a_life(folder.path(), &Said::default(), cut_count.min(count - cuts.done), bursts, 0);
    }
    println!("{} cuts, the longest start took {:?}", cuts.done, cuts.longest);
    assert!(cuts.longest < OPEN_MAX, "a start took {:?}", cuts.longest);
}

/// What is on the disk after a cut is made up, so it need not be on one: there no sync takes time.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

struct Cuts {
    random: fastrand::Rng,
    done: u64,
    longest: Duration,
}

impl Cuts {
    /// Cuts a life that begins with what is below `root`, and in which `said` has been said before.
    fn of_a_life(&mut self, root: &Path, said: &Said, count: u64, bursts: u32, depth: u32) {
        let mut disk = Disk::of(root);
        let record = live(root, self.random.u64(..), bursts);
        let mut moments: Vec<usize> = (0..count).map(|_| self.moment(&record)).collect();
        moments.sort_unstable();
        let mut said = said.clone();
        let mut next = 0;
        for moment in moments {
            for entry in &record[next..moment] {
                disk.apply(entry);
                said.hear(entry);
            }
            next = moment;
            self.at(&disk, &said, depth);
        }
    }

    /// Any moment, but rather one just after something was synced, promised, made, renamed or removed.
    fn moment(&mut self, record: &[Entry]) -> usize {
        let at = self.random.usize(..=record.len());
        let kind = b"Spcmru"[self.random.usize(..6)];
        let next = record[at..].iter().position(|entry| entry.what == kind).map(|more| at + more + 1);
        if self.random.u8(0..3) == 0 { at } else { next.unwrap_or(at) }
    }

    fn at(&mut self, disk: &Disk, said: &Said, depth: u32) {
        let kept = [0.0, 0.05, 0.5, 0.95, 1.0][self.random.usize(..5)];
        let luck = Luck { kept, in_order: self.random.bool() };
        let after = in_memory();
        disk.cut(luck, &mut self.random, after.path());
        self.done += 1;
        let acknowledged = said.acknowledged();
        let checked = catch_unwind(AssertUnwindSafe(|| {
            // While it recovers, and then again.
            if depth < 2 && self.random.u8(0..12) == 0 {
                self.of_a_life(after.path(), said, 6, 2, depth + 1);
            } else {
                self.longest = self.longest.max(said.check(after.path()));
            }
        }));
        if let Err(panic) = checked {
            println!("cut {} after {acknowledged} acknowledgements, {luck:?}, depth {depth}", self.done);
            println!("{} is what it left", after.keep().display());
            resume_unwind(panic);
        }
    }
}
