//! Looking into a spool that nobody has, and repairing it.

use std::fs;
use std::path::Path;

use super::{NOW_MS, config, copy, epoch_folders, eventually, fill, read_what_is_there};
use crate::spool::{Config, Error, Gone, Spool, inspect, repair};

/// A stopped spool of three epochs, and what is in it.
fn stopped(folder: &Path) -> (Config, Vec<String>) {
    let config = config(folder);
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 3);
    writer.close();
    (config, stored)
}

/// Everything below a folder, with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.push((path.display().to_string(), Vec::new()));
            all.extend(contents(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).expect("readable")));
        }
    }
    all.sort();
    all
}

/// Flips a bit in the record with this number; each has a text of its own that begins with it.
fn flip(config: &Config, number: u64) -> u64 {
    let text = format!("{number} xxxx");
    for folder in epoch_folders(config) {
        let path = folder.join("db");
        let mut bytes = fs::read(&path).expect("there");
        if let Some(at) = memchr::memmem::find(&bytes, text.as_bytes()) {
            bytes[at + 100] ^= 1;
            fs::write(path, bytes).expect("written");
            return at as u64;
        }
    }
    panic!("{number} is nowhere");
}

#[test]
fn verify_says_what_is_gone_and_where_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, stored) = stopped(folder.path());
    let report = inspect(&config.folder).expect("looked into");
    assert!(report.sound, "{report:?}");
    assert_eq!(report.epochs.len(), 3);
    assert_eq!(report.epochs.iter().map(|epoch| epoch.uplinks).sum::<u64>(), stored.len() as u64);
    assert_eq!(report.next, stored.len() as u64 + 1);

    let places = [(3, flip(&config, 3)), (stored.len() as u64, flip(&config, stored.len() as u64))];
    let before = contents(&config.folder);
    let report = inspect(&config.folder).expect("looked into");
    assert_eq!(contents(&config.folder), before);
    assert!(!report.sound);
    for (epoch, (number, at)) in [(0, places[0]), (2, places[1])] {
        let [Gone { from, to, behind_byte, before_byte, settled: false }] = report.epochs[epoch].gone[..]
        else {
            panic!("{:?}", report.epochs[epoch].gone)
        };
        assert_eq!((from, to), (number, number));
        assert!(behind_byte < at && at < before_byte, "{behind_byte} {at} {before_byte}");
    }
    assert!(report.epochs[1].gone.is_empty());
}

#[test]
fn repair_saves_what_is_readable_and_sets_the_damaged_epoch_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, stored) = stopped(folder.path());
    flip(&config, 3);
    let damaged = fs::read(epoch_folders(&config)[0].join("db")).expect("there");
    let planned = repair(&config.folder, true, NOW_MS).expect("planned");
    assert!(!planned.done && planned.epochs.len() == 1);
    assert!(!config.folder.join("damaged").exists(), "a dry run changes nothing");
    let done = repair(&config.folder, false, NOW_MS).expect("repaired");
    let [epoch] = &done.epochs[..] else { panic!("{:?}", done.epochs) };
    assert_eq!((epoch.gone, &epoch.name), (1, &planned.epochs[0].name));
    let aside = epoch.set_aside.as_ref().expect("there was something");
    assert!(aside.ends_with("damaged/00000000000000000001.20270115T080000000Z"), "{aside}");
    assert_eq!(fs::read(Path::new(aside).join("db")).expect("as it was"), damaged);
    assert!(inspect(&config.folder).expect("looked into").sound);
    assert!(repair(&config.folder, false, NOW_MS).expect("nothing to do").epochs.is_empty());

    let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens");
    let (texts, missing) = read_what_is_there(&spool, 1);
    assert_eq!(missing, [(3, 4)]);
    assert!(texts.iter().all(|(number, text)| *text == stored[usize::try_from(*number).expect("small") - 1]));
    assert_eq!(texts.len(), stored.len() - 1);
    assert_eq!(spool.untold_losses(), [], "whoever reads knows whether the stream has it");
    assert_eq!(spool.lose(3, 4).expect("noted"), 1);
    assert_eq!(spool.untold_losses().len(), 1, "and then it is told");
}

#[test]
fn a_repair_that_is_broken_off_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, stored) = stopped(folder.path());
    flip(&config, 3);
    let name = epoch_folders(&config)[0].clone();
    let repaired = Config { folder: folder.path().join("repaired"), ..config };
    copy(&config.folder, &repaired.folder);
    repair(&repaired.folder, false, NOW_MS).expect("repaired");
    let saved = name.with_extension("saved");
    // The damaged one still in its place, then out of it already.
    for out_of_the_way in [false, true] {
        copy(&epoch_folders(&repaired)[0], &saved);
        if out_of_the_way {
            fs::rename(&name, folder.path().join("aside")).expect("moved");
        }
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        let (texts, missing) = read_what_is_there(&spool, 1);
        assert_eq!((texts.len(), missing), (stored.len() - 1, vec![(3, 4)]));
        assert!(!saved.exists());
        writer.close();
    }
}

#[test]
fn what_cannot_be_read_just_now_is_not_repaired_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, stored) = stopped(folder.path());
    flip(&config, 3);
    let report = inspect(&config.folder).expect("looked into");
    let incarnation = report.incarnation.as_ref().expect("whole").parse().expect("a number");
    let (path, epoch) = (&epoch_folders(&config)[0], &report.epochs[0]);
    let saved = path.with_extension("saved");
    // Reading it fails, as it would with too many open files.
    let (log, aside) = (path.join("db"), path.join("aside"));
    fs::rename(&log, &aside).expect("moved");
    fs::create_dir(&log).expect("made");
    let error = repair::save(path, epoch, incarnation, &saved).expect_err("it may be readable later");
    assert!(matches!(error, Error::Io { .. }) && !saved.exists(), "{error}");
    fs::remove_dir(&log).expect("removed");
    fs::rename(&aside, &log).expect("moved back");
    // It has become worse since it was looked into: what counts is what was saved.
    flip(&config, 5);
    let done = repair::save(path, epoch, incarnation, &saved).expect("saved");
    assert_eq!((done.uplinks, done.gone), (epoch.end - epoch.first - 2, vec![3..4, 5..6]));
    fs::remove_dir_all(&saved).expect("removed");
    let repaired = repair(&config.folder, false, NOW_MS).expect("repaired");
    assert!(repaired.is_sound() && !repaired.before.sound);
    assert_eq!((repaired.epochs[0].saved, repaired.epochs[0].gone), (epoch.end - epoch.first - 2, 2));
    let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(read_what_is_there(&spool, 1).0.len(), stored.len() - 2);
}

#[test]
fn what_a_repair_has_made_is_no_damaged_epoch_and_what_is_damaged_is_set_aside_once() {
    for is_repaired in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, _) = stopped(folder.path());
        let config = Config { keep_delivered_bytes: 0, ..config };
        flip(&config, 3);
        if is_repaired {
            repair(&config.folder, false, NOW_MS).expect("repaired");
        }
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!(read_what_is_there(&spool, 1).1, [(3, 4)]);
        spool.lose(3, 4).expect("noted");
        spool.release(spool.next_number(), 9).expect("it is there");
        eventually(|| spool.oldest_number() > 1);
        writer.close();
        let aside = fs::read_dir(config.folder.join("damaged")).expect("a folder").count();
        assert_eq!(aside, 1, "repaired: {is_repaired}");
    }
}

#[test]
fn a_repair_is_done_by_nobody_but_the_spools_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, _) = stopped(folder.path());
    let user = rustix::process::geteuid();
    // Who may give folders away does so; for anybody else there is one of another's.
    let anothers = if user.is_root() {
        std::os::unix::fs::chown(&config.folder, Some(65_534), None).expect("given away");
        config.folder.as_path()
    } else {
        Path::new("/")
    };
    let before = contents(&config.folder);
    let error = repair(anothers, false, NOW_MS).expect_err("it is another's");
    assert!(matches!(error, Error::NotOurs { user: us, .. } if us == user.as_raw()), "{error}");
    assert_eq!(contents(&config.folder), before);
}

#[test]
fn a_spool_in_use_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (_spool, _writer) = Spool::open(&config, NOW_MS).expect("opens");
    for refused in [
        inspect(&config.folder).map(drop),
        repair(&config.folder, true, NOW_MS).map(drop),
        repair(&config.folder, false, NOW_MS).map(drop),
    ] {
        let error = refused.expect_err("a gateway has it");
        assert!(matches!(error, Error::InUse { .. }), "{error}");
    }
    let error = inspect(&folder.path().join("nowhere")).expect_err("there is none").to_string();
    assert!(error.contains("nowhere/lock"), "{error}");
}
