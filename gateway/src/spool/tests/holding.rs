//! What a spool holds, for how long, and what a start finds.

use std::fs;
use std::time::{Duration, Instant};

use super::{NOW_MS, append, config, copy, epoch_folders, eventually, fill, read_all, read_what_is_there};
use crate::spool::epoch::Blank;
use crate::spool::{Config, Delivered, Error, Spool, epoch_name};

#[test]
fn a_restart_continues_the_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let incarnation = spool.incarnation();
    assert_eq!(append(&mut writer, &["a", "b"]), 3);
    assert_eq!(append(&mut writer, &["c"]), 4);
    writer.close();
    drop(spool);
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens again");
    assert_eq!(spool.incarnation(), incarnation);
    assert_eq!(spool.next_number(), 4);
    assert_eq!(append(&mut writer, &["d"]), 5);
    assert_eq!(read_all(&spool, 1), ["a", "b", "c", "d"]);
    assert_eq!(read_all(&spool, 2), ["b", "c", "d"]);
    assert!(spool.read_from(5, 1).expect("nothing yet").is_empty());
}

#[test]
fn a_second_process_is_refused_and_told_who_has_the_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
    let error = Spool::open(&config, NOW_MS).expect_err("it is in use").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(error.contains(&config.folder.display().to_string()), "{error}");
    writer.close();
    drop(spool);
    Spool::open(&config, NOW_MS).expect("it is free again");
}

#[test]
fn sled_writes_everything_once_and_nothing_into_files_that_are_not_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let mut stored_bytes = 0;
    // All sizes, from a few bytes to the longest an uplink can be, in every order.
    for (at, len) in (0..600).zip([10, 65_536, 100, 60_000, 59_000, 1, 30_000, 3_000].into_iter().cycle()) {
        let text = "x".repeat(if at % 3 == 0 { len } else { len / 3 });
        append(&mut writer, &[&text]);
        stored_bytes += text.len() as u64;
    }
    let status = spool.status();
    assert!(status.bytes < stored_bytes * 5 / 4, "{} bytes on disk for {stored_bytes}", status.bytes);
    let folders = epoch_folders(&config);
    assert!(folders.len() > 5);
    for folder in folders {
        let blobs = fs::read_dir(folder.join("blobs")).expect("sled makes it").count();
        assert_eq!(blobs, 0, "{} has blobs, which sled never syncs", folder.display());
    }
    assert_eq!(read_all(&spool, 1).len(), 600);
}

#[test]
fn a_start_reads_only_the_last_epoch() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 5);
    writer.close();
    drop(spool);
    let folders = epoch_folders(&config);
    for folder in &folders[..4] {
        fs::rename(folder.join("db"), folder.join("elsewhere")).expect("moved");
    }
    let (spool, writer) = Spool::open(&config, NOW_MS).expect("the others are not looked into");
    for folder in &folders[..4] {
        fs::rename(folder.join("elsewhere"), folder.join("db")).expect("moved back");
    }
    assert_eq!(spool.next_number(), stored.len() as u64 + 1);
    assert_eq!(read_all(&spool, 1), stored);
    writer.close();
}

#[test]
fn delivered_epochs_stay_within_their_budget_and_then_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { keep_delivered_bytes: 4 << 20, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 8);
    spool.release(spool.next_number(), 77).expect("all is there");
    eventually(|| spool.deletable().is_none());
    assert!(spool.status().bytes < (4 << 20) + (2 << 20), "{} bytes are kept", spool.status().bytes);
    assert_eq!(epoch_folders(&config).len(), spool.status().epochs.len());
    assert!(spool.status().epochs.len() > 2, "some are kept");
    let oldest = usize::try_from(spool.oldest_number()).expect("small");
    assert_eq!(read_all(&spool, spool.oldest_number()), stored[oldest - 1..], "and can be sent again");
    match spool.read_from(1, 1) {
        Err(Error::Missing { from: 1, to, .. }) => assert_eq!(to, spool.oldest_number()),
        other => panic!("{other:?}"),
    }
    writer.close();
}

#[test]
fn delivered_epochs_stay_for_their_time_and_what_is_not_delivered_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { keep_delivered_s: 2, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    fill(&spool, &mut writer, 4);
    let [second, third] = [1, 2].map(|at| spool.state().epochs[at].first);
    let began = Instant::now();
    spool.release(second, 9).expect("it is there");
    eventually(|| spool.oldest_number() == second);
    assert!(began.elapsed() >= Duration::from_secs(2), "it went after {:?}", began.elapsed());
    // Taken back, it is not delivered any more; delivered again, its time begins again.
    spool.release(third, 10).expect("it is there");
    spool.take_back(second, 9);
    assert_eq!(spool.kept_for(&spool.state()), None);
    spool.release(third, 10).expect("it is there");
    eventually(|| spool.oldest_number() == third);
    assert_eq!(read_all(&spool, third).len() as u64, spool.next_number() - third);
    writer.close();
    let text = "folder = 'x'\nkeep_delivered_s = -1";
    let error = toml::from_str::<Config>(text).expect_err("no time").to_string();
    assert!(error.contains("keep_delivered_s") && error.contains("between 0 and"), "{error}");
}

#[test]
fn what_is_taken_back_stays_until_it_is_delivered_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 3);
    spool.release(spool.next_number(), 9).expect("all is there");
    spool.take_back(5, 2);
    assert_eq!(spool.delivered(), Delivered { number: 5, stream_sequence: 2 });
    writer.close();
    drop(spool);
    let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens again");
    assert_eq!(spool.delivered(), Delivered { number: 5, stream_sequence: 2 });
    assert_eq!(read_all(&spool, 5), stored[4..]);
}

#[test]
fn more_than_there_is_cannot_be_released() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&config(folder.path()), NOW_MS).expect("opens");
    append(&mut writer, &["a"]);
    assert!(matches!(spool.release(3, 1), Err(Error::ReleasedAhead { number: 3, next: 2 })));
    assert_eq!(spool.delivered().number, 1);
}

#[test]
fn what_was_delivered_is_known_after_a_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { keep_delivered_bytes: 0, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    fill(&spool, &mut writer, 3);
    let next = spool.next_number();
    spool.release(next, 42).expect("all is there");
    writer.close();
    drop(spool);
    for _ in 0..2 {
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!(spool.delivered(), Delivered { number: next, stream_sequence: 42 });
        assert_eq!(spool.next_number(), next);
        assert_eq!(spool.status().waiting, 0);
        writer.close();
    }
}

#[test]
fn a_kill_while_an_epoch_is_made_or_deleted_is_cleaned_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    append(&mut writer, &["a"]);
    let epochs = config.folder.join("epochs");
    writer.close();
    drop(spool);
    // Half made, half deleted.
    fs::create_dir_all(epochs.join("spare.new/blobs")).expect("made");
    fs::write(epochs.join("spare.new/conf"), "").expect("written");
    fs::create_dir(epochs.join(epoch_name(77)).with_extension("gone")).expect("made");
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(epoch_folders(&config).len(), 1);
    assert_eq!(fs::read_dir(&epochs).expect("a folder").count(), 1, "leftovers are removed");
    append(&mut writer, &["b"]);
    assert_eq!(read_all(&spool, 1), ["a", "b"]);
}

#[test]
fn a_kill_between_naming_an_epoch_and_its_first_record_loses_no_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { keep_delivered_bytes: 0, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let next = append(&mut writer, &["a", "b"]);
    writer.close();
    drop(spool);
    let epochs = config.folder.join("epochs");
    let blank = Blank::make(&epochs.join("next.new")).expect("made");
    drop(blank.name(next, &epochs.join(epoch_name(next))).expect("named"));
    // Everything before it is deleted, as if it had been delivered: only the name tells where numbers go on.
    fs::remove_dir_all(epochs.join(epoch_name(1))).expect("removed");
    for round in 0..2 {
        let copied = folder.path().join(format!("copy-{round}"));
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
        copy(&config.folder, &copied);
        assert_eq!(spool.next_number(), next);
        assert_eq!(read_what_is_there(&spool, next), (vec![], vec![]));
        if round == 1 {
            append(&mut writer, &["c"]);
            assert_eq!(read_all(&spool, next), ["c"]);
        }
        writer.close();
        // Killed at this very start, too.
        let (spool, _writer) =
            Spool::open(&Config { folder: copied, ..config.clone() }, NOW_MS).expect("opens");
        assert_eq!(spool.next_number(), next);
    }
}

#[test]
fn a_budget_that_cannot_work_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { bytes_max: 20 << 20, epoch_bytes: 8 << 20, ..config(folder.path()) };
    let error = Spool::open(&config, NOW_MS).expect_err("too small").to_string();
    assert!(error.contains("spool.bytes_max") && error.contains("32 MiB"), "{error}");
    let text = "folder = 'x'\nbytes_max = '1 GiB'\nwhen_full = 'refuse'\ncommit_delay_ms = 20";
    let config: Config = toml::from_str(text).expect("valid");
    assert_eq!((config.bytes_max, config.commit_delay_ms), (1 << 30, 20));
    let error =
        toml::from_str::<Config>("folder = 'x'\nwhen_full = 'shrug'").expect_err("unknown").to_string();
    assert!(error.contains("refuse"), "{error}");
}
