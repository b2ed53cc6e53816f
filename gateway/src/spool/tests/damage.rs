//! Damaged files: what can be read is read, what cannot is told, nothing panics, no number is given out twice.

use std::fs;
use std::path::Path;

use super::{NOW_MS, append, config, copy, epoch_folders, eventually, fill, read_what_is_there};
use crate::spool::epoch::Epoch;
use crate::spool::numbers::{self, Claim};
use crate::spool::record::tests::old_value;
use crate::spool::{Config, Delivered, Draft, Error, Spool, epoch_name};

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
    fs::write(last.join("db"), "no log of sled's at all\n").expect("written");
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
fn a_damaged_incarnation_is_made_anew_from_what_the_spool_holds() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..6 {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
        let incarnation = spool.incarnation();
        let next = append(&mut writer, &["a", "b"]);
        writer.close();
        drop(spool);
        let path = config.folder.join("incarnation");
        let whole = fs::read_to_string(&path).expect("a line");
        match round % 3 {
            0 => fs::remove_file(&path).expect("removed"),
            _ => {
                while String::from_utf8_lossy(&fs::read(&path).expect("there")).trim_end() == whole.trim_end()
                {
                    damage(&path, &mut random);
                }
            }
        }
        // It stands in `numbers` and in every record: either is enough.
        if round % 2 == 0 {
            fs::write(config.folder.join("numbers"), "no numbers at all").expect("written");
        }
        let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens without help");
        assert_eq!(spool.incarnation(), incarnation);
        assert!(spool.next_number() >= next);
        assert_eq!(read_what_is_there(&spool, 1).0.len(), 2);
        assert_eq!(fs::read_to_string(&path).expect("a line"), whole);
    }
}

#[test]
fn a_spool_that_nothing_names_is_another_one_and_goes_on_with_its_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let incarnation = spool.incarnation();
    let next = append(&mut writer, &["a", "b"]);
    spool.release(next, 7).expect("it is there");
    writer.close();
    drop(spool);
    for file in ["incarnation", "numbers"] {
        fs::remove_file(config.folder.join(file)).expect("removed");
    }
    fs::write(epoch_folders(&config)[0].join("db"), "no log at all").expect("written");
    let mut begins = 0;
    for _ in 0..2 {
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens without help");
        assert_ne!(spool.incarnation(), incarnation);
        assert!(spool.next_number() >= next, "no number comes twice, though they have another name");
        assert_eq!(
            spool.delivered(),
            Delivered { number: 1, stream_sequence: 0 },
            "the stream knows nothing of it"
        );
        begins = append(&mut writer, &["c"]);
        writer.close();
    }
    assert!(begins > next);
}

#[test]
fn a_damaged_mark_is_set_aside_and_no_number_comes_twice() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..12 {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
        let incarnation = spool.incarnation();
        let next = append(&mut writer, &["a", "b"]);
        spool.release(next, 7).expect("it is there");
        writer.close();
        drop(spool);
        let no_epochs = round % 2 == 0;
        if no_epochs {
            epoch_folders(&config).into_iter().for_each(|path| fs::remove_dir_all(path).expect("removed"));
        }
        let path = config.folder.join("delivered");
        let whole = fs::read_to_string(&path).expect("a line");
        // What only the end of the line has suffered from is still that line.
        let is_whole = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end() == whole.trim_end();
        while is_whole(&fs::read(&path).expect("there")) {
            damage(&path, &mut random);
        }
        let damaged = fs::read(&path).expect("there");
        for _ in 0..2 {
            let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens without help");
            if no_epochs {
                assert_ne!(
                    spool.incarnation(),
                    incarnation,
                    "its numbers begin again, so it is another spool"
                );
            } else {
                assert_eq!((spool.incarnation(), spool.next_number()), (incarnation, next));
                assert_eq!(
                    spool.delivered(),
                    Delivered { number: 1, stream_sequence: 0 },
                    "the stream is asked"
                );
                assert_eq!(read_what_is_there(&spool, 1).1, []);
            }
            assert_eq!(fs::read(path.with_extension("damaged")).expect("kept"), damaged);
            writer.close();
        }
    }
}

#[test]
fn a_damaged_index_of_an_epoch_costs_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 2);
    writer.close();
    drop(spool);
    let mut damaged = 0;
    for _ in 0..5 {
        // An older version made them by reading.
        for path in epoch_folders(&config) {
            drop(Epoch::open(&path).expect("it is sled's"));
        }
        for entry in epoch_folders(&config).into_iter().flat_map(|path| fs::read_dir(path).expect("a folder"))
        {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
                damage(&path, &mut random);
                damaged += 1;
            }
        }
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        let (texts, missing) = read_what_is_there(&spool, 1);
        assert_eq!(missing, [], "{damaged} indexes were damaged");
        assert!(texts.iter().map(|(_, text)| text).eq(&stored));
        writer.close();
    }
    assert!(damaged > 4, "the damage was real, {damaged} times");
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

#[test]
fn where_nothing_says_how_far_numbers_went_they_go_on_where_they_cannot_have_come_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    append(&mut writer, &["a"]);
    let next = append(&mut writer, &["the last commit"]);
    let killed = Config { folder: folder.path().join("killed"), ..config };
    copy(&spool.config.folder, &killed.folder);
    // What would have proven the last commit, and the commit itself.
    fs::write(killed.folder.join("numbers"), vec![0; 8192]).expect("written");
    let log = epoch_folders(&killed)[0].join("db");
    let mut bytes = fs::read(&log).expect("there");
    let at = memchr::memmem::find(&bytes, b"the last commit").expect("it is there");
    bytes[at] ^= 1;
    fs::write(log, bytes).expect("written");
    for _ in 0..2 {
        let (spool, _writer) = Spool::open(&killed, NOW_MS).expect("opens");
        assert!(spool.next_number() >= next, "{} may have been given out", spool.next_number());
        let (texts, missing) = read_what_is_there(&spool, 1);
        assert_eq!(texts, [(1, "a".to_owned())]);
        assert_eq!(missing, [(2, spool.next_number())]);
    }
}

#[test]
fn a_spool_of_the_first_version_is_read_and_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
    let incarnation = spool.incarnation();
    writer.close();
    drop(spool);
    fs::remove_file(config.folder.join("numbers")).expect("that version had none");
    let mut next = 1;
    for _ in 0..2 {
        next = old_epoch(&config, next);
    }
    // One that has nothing to store, and so begins no epoch of its own.
    for _ in 0..2 {
        let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!((spool.incarnation(), spool.next_number()), (incarnation, next));
    }
    for round in 0..3 {
        let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!((spool.incarnation(), spool.next_number()), (incarnation, next + round));
        let (texts, missing) = read_what_is_there(&spool, 1);
        assert_eq!((texts.len() as u64, missing), (next - 1 + round, vec![]));
        let old = texts.iter().take_while(|(number, _)| *number < next);
        assert!(old.into_iter().all(|(number, text)| text.starts_with(&format!("{number} x"))));
        append(&mut writer, &["new"]);
        writer.close();
    }
}

/// An epoch as the first version wrote it; the number after its last.
fn old_epoch(config: &Config, first: u64) -> u64 {
    let mut number = first;
    let path = config.folder.join("epochs").join(epoch_name(number));
    let db = sled::Config::new().path(path).segment_size(512 * 1024).flush_every_ms(None).open();
    let db = db.expect("made");
    for _ in 0..20 {
        let leaf = db.open_tree(number.to_be_bytes()).expect("made");
        for _ in 0..9 {
            let mut draft = Draft::default();
            let text = format!("{number} {}", "x".repeat(3000));
            draft.push(&"d1".parse().expect("a name"), NOW_MS, None, text.as_bytes());
            leaf.insert(number.to_be_bytes(), old_value(number, &draft)).expect("stored");
            number += 1;
        }
    }
    db.flush().expect("written");
    number
}

#[test]
fn what_the_version_before_stored_after_this_one_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let first = append(&mut writer, &["new"]);
    writer.close();
    drop(spool);
    // It knows no `numbers`, so these say what they said.
    let next = old_epoch(&config, first);
    let (spool, _writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(spool.next_number(), next);
    let (texts, missing) = read_what_is_there(&spool, 1);
    assert_eq!((texts.len() as u64, missing), (next - 1, vec![]));
}

/// After a power cut `numbers` may be some seconds behind, so it proves nothing of a log that cannot be asked.
#[test]
fn where_a_whole_log_is_gone_numbers_that_may_be_behind_are_not_believed() {
    enum Gone {
        TheLog,
        AllEpochs,
    }
    for gone in [Gone::TheLog, Gone::AllEpochs] {
        for other_start in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let config = config(folder.path());
            let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
            append(&mut writer, &["a"]);
            let said = fs::read(config.folder.join("numbers")).expect("written");
            let next = append(&mut writer, &["b", "c"]);
            let killed = Config { folder: folder.path().join("killed"), ..config };
            copy(&spool.config.folder, &killed.folder);
            let numbers = killed.folder.join("numbers");
            if other_start {
                fs::write(&numbers, written_in_another_start_of_the_machine(&said)).expect("written");
            }
            match gone {
                Gone::TheLog => fs::remove_file(epoch_folders(&killed)[0].join("db")),
                Gone::AllEpochs => fs::remove_dir_all(&epoch_folders(&killed)[0]),
            }
            .expect("removed");
            let (spool, mut writer) = Spool::open(&killed, NOW_MS).expect("opens");
            let begins = spool.next_number();
            if other_start {
                assert!(begins >= next, "{begins} was given out before");
            } else {
                assert_eq!(begins, next, "nothing that was said can be missing");
            }
            append(&mut writer, &["d"]);
            let (texts, missing) = read_what_is_there(&spool, 1);
            assert_eq!((texts, missing), (vec![(begins, "d".to_owned())], vec![(1, begins)]));
        }
    }
}

fn written_in_another_start_of_the_machine(said: &[u8]) -> Vec<u8> {
    let claim = numbers::decode(said).expect("whole");
    let copy = numbers::encode(&Claim { machine_start: claim.machine_start ^ 1, ..claim });
    let mut bytes = said.to_vec();
    for at in numbers::COPIES_AT {
        let at = usize::try_from(at).expect("small");
        bytes[at..at + copy.len()].copy_from_slice(&copy);
    }
    bytes
}

#[test]
fn a_damaged_epoch_that_is_done_with_is_set_aside_as_it_is_and_gives_way_when_room_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { keep_delivered_bytes: 0, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 3);
    writer.close();
    drop(spool);
    let first = epoch_folders(&config)[0].clone();
    let mut bytes = fs::read(first.join("db")).expect("there");
    let at = memchr::memmem::find(&bytes, b"3 xxx").expect("it is there");
    bytes[at] ^= 1;
    fs::write(first.join("db"), &bytes).expect("written");

    let aside = config.folder.join("damaged").join(first.file_name().expect("a name"));
    let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(read_what_is_there(&spool, 1).1, [(3, 4)]);
    spool.lose(3, 4).expect("noted");
    spool.release(stored.len() as u64, 9).expect("it is there");
    eventually(|| spool.status().aside == 1 && spool.deletable().is_none());
    assert_eq!(fs::read(aside.join("db")).expect("kept"), bytes);
    assert_eq!(epoch_folders(&config).len(), 1, "the sound ones are deleted");
    writer.close();
    drop(spool);

    // The least there may be: nearly all of it is wanted for what arrives.
    let crowded = Config { bytes_max: 18 << 20, epoch_bytes: 1 << 20, ..config };
    let (spool, mut writer) = Spool::open(&crowded, NOW_MS).expect("opens");
    while aside.exists() {
        append(&mut writer, &["x".repeat(60_000)]);
        assert!(spool.status().bytes < crowded.bytes_max, "it has given way by then");
    }
    writer.close();
}
