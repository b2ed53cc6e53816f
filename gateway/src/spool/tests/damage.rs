//! Damaged files: what can be read is read, what cannot is told, nothing panics, no number is given out twice.

use std::fs;
use std::path::Path;

use super::{NOW_MS, append, config, copy, epoch_folders, fill, read_what_is_there};
use crate::spool::{Config, Error, Spool};

#[test]
fn damage_in_an_epoch_is_told_as_missing_numbers_and_the_rest_is_read() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let whole = config(folder.path());
    let (spool, mut writer) = Spool::open(&whole, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 3);
    writer.close();
    drop(spool);
    let mut damaged = 0;
    for round in 0..40 {
        let config = Config { folder: folder.path().join(format!("round-{round}")), ..whole.clone() };
        copy(&whole.folder, &config.folder);
        let victim = random.usize(0..2);
        damage(&epoch_folders(&config)[victim].join("db"), &mut random);
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("only the last one is needed to open");
        let (texts, missing) = read_what_is_there(&spool, 1);
        damaged += usize::from(!missing.is_empty());
        for (number, text) in &texts {
            assert!(
                *text == stored[usize::try_from(*number).expect("small") - 1],
                "number {number} is what it was"
            );
        }
        let mut numbers: Vec<u64> = texts.iter().map(|(number, _)| *number).collect();
        numbers.extend(missing.iter().flat_map(|&(from, to)| from..to));
        numbers.sort_unstable();
        assert!(
            numbers.iter().copied().eq(1..=stored.len() as u64),
            "every number is read or told to be missing, once"
        );
        writer.close();
        drop(spool);
        fs::remove_dir_all(&config.folder).expect("removed");
    }
    assert!(damaged > 10, "the damage was real in {damaged} rounds");
}

#[test]
fn an_unreadable_last_epoch_never_makes_numbers_come_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 2);
    writer.close();
    drop(spool);
    let last = epoch_folders(&config).pop().expect("two");
    fs::write(last.join("conf"), "no configuration of sled's at all\n").expect("written");
    for _ in 0..2 {
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens all the same");
        assert!(spool.next_number() > stored.len() as u64);
        writer.close();
    }
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    append(&mut writer, &["after"]);
    let (texts, missing) = read_what_is_there(&spool, 1);
    assert_eq!(missing.len(), 1);
    assert_eq!(texts.last().map(|(_, text)| text.as_str()), Some("after"));
    assert_eq!(missing[0].1, spool.next_number() - 1, "told up to where numbers go on");
}

#[test]
fn a_damaged_mark_or_incarnation_is_an_error_with_its_name() {
    for name in ["delivered", "incarnation"] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
        let next = append(&mut writer, &["a"]);
        spool.release(next, 1).expect("it is there");
        writer.close();
        drop(spool);
        let path = config.folder.join(name);
        let text = fs::read_to_string(&path).expect("a line");
        fs::write(&path, text.replace("weir", "wier")).expect("written");
        let error = Spool::open(&config, NOW_MS).expect_err("damaged").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        if name == "incarnation" {
            fs::remove_file(&path).expect("removed");
            let error = Spool::open(&config, NOW_MS).expect_err("no new name for old numbers").to_string();
            assert!(error.contains("there are epochs"), "{error}");
        }
    }
}

/// Flips bits, zeroes a stretch, or cuts the file.
fn damage(path: &Path, random: &mut fastrand::Rng) {
    let mut bytes = fs::read(path).expect("readable");
    match random.u8(0..3) {
        0 => {
            for _ in 0..random.usize(1..20) {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(0..8);
            }
        }
        1 => {
            let start = random.usize(..bytes.len());
            let end = (start + random.usize(1..100_000)).min(bytes.len());
            bytes[start..end].fill(0);
        }
        _ => bytes.truncate(random.usize(..bytes.len())),
    }
    fs::write(path, bytes).expect("written");
}

#[test]
fn what_cannot_be_read_just_now_is_not_told_to_be_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 3);
    writer.close();
    drop(spool);
    let log = epoch_folders(&config)[0].join("db");
    let aside = log.with_extension("aside");
    let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens");
    // Opening it fails, as it would with too many open files.
    fs::rename(&log, &aside).expect("moved");
    fs::create_dir(&log).expect("made");
    match spool.read_from(1, 1) {
        Err(Error::Sled { .. } | Error::Io { .. }) => {}
        other => panic!("{other:?}"),
    }
    fs::remove_dir(&log).expect("removed");
    fs::rename(&aside, &log).expect("moved back");
    let (texts, missing) = read_what_is_there(&spool, 1);
    assert_eq!(missing, []);
    assert!(texts.iter().map(|(_, text)| text).eq(&stored));
}
