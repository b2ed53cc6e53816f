//! A disk that fails to sync in a chosen place: what was begun there is done when the disk is well again, and nobody panics.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::giving_up::{GATEWAY, Name, dropping, id, names, overfill};
use super::{NOW_MS, append, config, epoch_folders, eventually, fill, read_all};
use crate::custody::tests::crash::layer;
use crate::spool::epoch::Blank;
use crate::spool::{Config, Draft, Error, Spool, disk};

const FAIL: &str = "WEIR_DISK_FAIL";
/// The ending of the path of the folder in which epochs have their names.
const NAMES: &str = "/epochs";
const EVERYTHING: &str = "";

#[test]
fn what_a_failed_sync_interrupts_is_done_when_the_disk_is_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut under = Command::new(std::env::current_exe().expect("this test's program"));
    let tests = module_path!().split_once("::").expect("in a crate").1;
    let under = under.args([tests, "--ignored", "--test-threads=1"]);
    let under =
        under.env("LD_PRELOAD", layer()).env("WEIR_DISK_ROOT", "/").env(FAIL, folder.path().join("fail"));
    let output = under.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("6 passed"), "{said}");
}

/// The disk fails to sync what has such an ending, until this is dropped.
struct Failing(PathBuf);

impl Failing {
    fn at(ending: &str) -> Failing {
        let file = PathBuf::from(std::env::var_os(FAIL).expect("run by the test above"));
        std::fs::write(&file, ending).expect("written");
        Failing(file)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it is there");
    }
}

#[test]
#[ignore = "is run under a layer that fails syncs"]
fn a_delivered_epoch_is_deleted_though_its_folder_could_not_be_synced_at_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { keep_delivered_bytes: 0, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    fill(&spool, &mut writer, 4);
    let next = spool.next_number();
    let failing = Failing::at(NAMES);
    spool.release(next, 9).expect("it is there");
    eventually(|| !spool.state().disk.undone.is_empty());
    assert_eq!(spool.oldest_number(), 1);
    drop(failing);
    spool.release(next, 9).expect("it is there");
    eventually(|| epoch_folders(&config).len() == 1 && spool.status().epochs.len() == 1);
    writer.close();
}

#[test]
#[ignore = "is run under a layer that fails syncs"]
fn what_is_given_up_is_told_event_by_event_though_its_folder_could_not_be_synced_at_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    let stored = overfill(&spool, &mut writer);
    let failing = Failing::at(NAMES);
    for _ in 0..2 {
        spool.give_up_oldest(&id(GATEWAY)).expect_err("it cannot be deleted");
        assert!(matches!(spool.read_from(1, 1), Err(Error::GivenUp { .. })), "nobody delivers it any more");
    }
    drop(failing);
    assert_eq!(spool.give_up_oldest(&id(GATEWAY)).expect("deleted"), None, "it was given up already");
    let (given_up, oldest) = (spool.untold().expect("to be told"), spool.oldest_number());
    let gone: BTreeSet<Name> =
        stored.iter().filter(|(number, _)| *number < oldest).map(|(_, name)| name.clone()).collect();
    assert_eq!((given_up.end, given_up.unreadable.len()), (oldest, 0));
    assert_eq!(names(&given_up), gone);
    writer.close();
}

#[test]
#[ignore = "is run under a layer that fails syncs"]
fn an_epoch_is_begun_though_its_name_could_not_be_synced_at_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let mut draft = Draft::default();
    draft.push(&id("d1"), NOW_MS, None, b"a");
    for _ in 0..3 {
        let failing = Failing::at(NAMES);
        writer.append(std::slice::from_mut(&mut draft)).expect_err("it has no name");
        writer.renew().expect_err("nobody knows whether it has");
        drop(failing);
        writer.renew().expect("the disk is well");
    }
    append(&mut writer, &["a", "b"]);
    assert_eq!(
        (read_all(&spool, 1), epoch_folders(&config).len()),
        (vec!["a".to_owned(), "b".to_owned()], 1)
    );
    writer.close();
}

#[test]
#[ignore = "is run under a layer that fails syncs"]
fn what_a_failed_commit_has_left_on_the_disk_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { epoch_bytes: 8 << 20, ..config(folder.path()) };
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    append(&mut writer, &["a"]);
    let failing = Failing::at("/db");
    let mut drafts = Vec::from_iter((0..60).map(|_| Draft::default()));
    drafts.iter_mut().for_each(|draft| draft.push(&id("d1"), NOW_MS, None, &[7; 50_000]));
    writer.append(&mut drafts).expect_err("it cannot be synced");
    writer.renew().expect("it is let go of");
    drop(failing);
    let log = epoch_folders(&config)[0].join("db");
    let there = std::fs::metadata(log).expect("there").len();
    assert!(there > 2 << 20, "the failed commit has left {there} bytes");
    assert_eq!(spool.status().bytes, there);
    writer.close();
}

#[test]
#[ignore = "is run under a layer that fails syncs"]
fn an_epoch_that_cannot_be_made_named_or_removed_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let failing = Failing::at(EVERYTHING);
    Blank::make(&path("a.new")).expect_err("nothing can be synced");
    drop(failing);
    let [named, discarded] = ["b.new", "c.new"].map(|name| Blank::make(&path(name)).expect("made"));
    let _failing = Failing::at(EVERYTHING);
    named.name(1, &path("00000000000000000001")).expect_err("its name cannot be synced");
    discarded.discard().expect("removing needs no sync");
    assert!(!path("c.new").exists());
}

#[test]
#[ignore = "is run under a layer that fails syncs"]
fn a_spool_that_is_read_from_and_closed_while_the_disk_fails_panics_nowhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let stored = fill(&spool, &mut writer, 3);
    let oldest = epoch_folders(&config).remove(0);
    let _failing = Failing::at(EVERYTHING);
    drop(disk::open_epoch(&oldest));
    assert_eq!(read_all(&spool, 1), stored);
    writer.close();
    drop(spool);
}
