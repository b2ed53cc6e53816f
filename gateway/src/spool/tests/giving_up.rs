//! A full spool that is to drop its oldest: exactly what was in it is told, at least once, whatever happens in between.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weir_contract::Id;
use weir_contract::body::Body;
use weir_contract::uplink::{self, Event, Header};

use super::{NOW_MS, config, copy};
use crate::spool::account::{Account, REASON};
use crate::spool::record::tests::STAMP;
use crate::spool::{Config, Draft, Error, GivenUp, Spool, WhenFull, Writer, inspect, repair};

pub(super) const GATEWAY: &str = "gw-1";

pub(super) fn id(name: &str) -> Id {
    name.parse().expect("a name")
}

pub(super) fn dropping(folder: &std::path::Path) -> Config {
    Config { when_full: WhenFull::DropOldest, bytes_max: 18 << 20, free_min: 0, ..config(folder) }
}

/// An uplink with events `from ..= to`, the first of which may be a loss that is told.
pub(super) fn payload(
    boot: u64,
    from: u32,
    to: u32,
    loss: Option<(Option<&str>, u64, u32, u32)>,
    len: usize,
) -> Vec<u8> {
    let mut told = vec![0; 200];
    let kind = if let Some((device, boot, from, to)) = loss {
        let body = Body::EventsLost { device: device.map(id), boot, from, to, reason: "outbox-full".into() };
        let len = body.write(&mut told).expect("room");
        told.truncate(len);
        body.kind()
    } else {
        told =
            [&[0xa1, 0x61, b'x', 0x59][..], &u16::try_from(len).expect("short").to_be_bytes(), &vec![7; len]]
                .concat();
        "noise-made".parse().expect("a kind")
    };
    let noise = "noise-made".parse().expect("a kind");
    let seqs: Vec<u32> = (from..=to).collect();
    let events = seqs.iter().map(|&seq| {
        let (kind, body) = if seq == from { (kind, &told[..]) } else { (noise, &[0xa0][..]) };
        Event { seq, at: 5, kind, version: 1, body }
    });
    let header = Header { boot, now: Some(10), epoch: None, via: None };
    let mut payload = vec![0; 65_000];
    let len = uplink::write(&mut payload, &header, events).expect("room");
    payload.truncate(len);
    payload
}

pub(super) fn store(writer: &mut Writer, device: &str, payload: &[u8]) {
    let mut draft = Draft::default();
    draft.push(&id(device), NOW_MS, None, payload);
    writer.append(&mut [draft]).expect("stored");
}

pub(super) type Name = (String, u64, u32);

pub(super) fn names(given_up: &GivenUp) -> BTreeSet<Name> {
    let name = |loss: &crate::spool::account::Loss, seq| (loss.device.to_string(), loss.boot, seq);
    given_up.losses.iter().flat_map(|loss| (loss.from..=loss.to).map(move |seq| name(loss, seq))).collect()
}

/// Fills a spool with events of three devices until its oldest epoch has to go; gives what is in each epoch.
pub(super) fn overfill(spool: &Spool, writer: &mut Writer) -> Vec<(u64, Name)> {
    let mut stored = Vec::new();
    for seq in 1.. {
        let device = format!("d{}", seq % 3);
        stored.push((spool.next_number(), (device.clone(), 7, seq)));
        store(writer, &device, &payload(7, seq, seq, None, 30_000));
        if spool.to_give_up_in(&spool.state()).is_some() {
            break;
        }
    }
    stored
}

#[test]
fn what_is_given_up_is_told_event_by_event_and_the_rest_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(spool.give_up_oldest(&id(GATEWAY)).expect("nothing to do"), None, "there is room");
    let stored = overfill(&spool, &mut writer);
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    let oldest = spool.oldest_number();
    assert!(given_up.end == oldest && oldest > 10, "an epoch as a whole");
    let gone: BTreeSet<Name> =
        stored.iter().filter(|(number, _)| *number < oldest).map(|(_, name)| name.clone()).collect();
    assert_eq!(names(&given_up), gone);
    assert!(given_up.losses.iter().all(|loss| &*loss.reason == REASON));
    assert!(matches!(spool.read_from(1, 1), Err(Error::GivenUp { from: 1, to }) if to == oldest));
    assert_eq!(spool.waiting(), spool.next_number() - oldest);
    assert_eq!(spool.delivered().number, 1, "it was not delivered");
    assert!(!spool.read_from(oldest, 1).expect("the next is there").is_empty());
    writer.close();
}

#[test]
fn as_many_epochs_go_at_once_as_it_takes_whatever_their_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let tight = dropping(folder.path());
    let wide = Config { bytes_max: 64 << 20, ..tight.clone() };
    let mut stored = Vec::new();
    // Each start begins another epoch, however little goes into it.
    for seq in 1..=12 {
        let (spool, mut writer) = Spool::open(&wide, NOW_MS).expect("opens");
        stored.push((spool.next_number(), ("tiny".to_owned(), 7, seq)));
        store(&mut writer, "tiny", &payload(7, seq, seq, None, 10));
        writer.close();
    }
    let (spool, mut writer) = Spool::open(&wide, NOW_MS).expect("opens");
    for seq in 1..=700 {
        stored.push((spool.next_number(), ("d1".to_owned(), 7, seq)));
        store(&mut writer, "d1", &payload(7, seq, seq, None, 30_000));
    }
    assert_eq!(spool.give_up_oldest(&id(GATEWAY)).expect("nothing to do"), None, "there is room");
    writer.close();
    drop(spool);

    let (spool, writer) = Spool::open(&tight, NOW_MS).expect("opens with less");
    let epochs = spool.status().epochs.len();
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("many epochs");
    assert_eq!(spool.to_give_up_in(&spool.state()), None, "there is room to tell it");
    let (left, oldest) = (spool.status().epochs.len(), spool.oldest_number());
    assert!(epochs > 30 && left > 3, "{left} of {epochs} stay: no more went than had to");
    assert_eq!(super::epoch_folders(&tight).len(), left);
    let gone: BTreeSet<Name> =
        stored.iter().filter(|(number, _)| *number < oldest).map(|(_, name)| name.clone()).collect();
    assert_eq!((names(&given_up), given_up.end), (gone, oldest));
    writer.close();
}

#[test]
fn what_was_given_up_and_finds_no_room_to_be_told_is_told_with_what_follows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let first = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    for seq in 10_001.. {
        store(&mut writer, "d1", &payload(7, seq, seq, None, 30_000));
        if spool.to_give_up_in(&spool.state()).is_some() {
            break;
        }
    }
    let both = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("another");
    assert!(both.end > first.end && both.first == first.first && both.uplinks > first.uplinks);
    assert!(names(&both).is_superset(&names(&first)), "all of it is still to be told");
    writer.close();
    drop(spool);
    let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(spool.untold().as_ref(), Some(&both));
    spool.told().expect("written");
    assert_eq!(spool.untold(), None);
    writer.close();
}

#[test]
fn what_is_delivered_until_it_is_written_down_is_not_told_to_be_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    // An uplink has read something, and delivers it while others wait to read.
    let reading = spool.reading();
    let given_up = std::thread::scope(|scope| {
        let giving_up = scope.spawn(|| spool.give_up_oldest(&id(GATEWAY)));
        // Long enough for it to have begun; what it tells must not depend on that.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        spool.release(11, 9).expect("it is there");
        drop(reading);
        giving_up.join().expect("no panic").expect("the disk is well").expect("an epoch")
    });
    let first = names(&given_up).into_iter().map(|(_, _, seq)| seq).min();
    assert_eq!(first, Some(11), "each uplink is one event");
    writer.close();
}

#[test]
fn who_waits_to_read_what_is_given_up_meanwhile_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let mut reading = spool.reading();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| spool.read_from(1, 1));
        // Long enough for it to stand before the door; what it is told must not depend on that.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        let second = spool.state().epochs[1].first;
        spool.state().given_up = second;
        spool.state().epochs.pop_front();
        *reading = None;
        drop(reading);
        let told = reader.join().expect("no panic");
        assert!(matches!(told, Err(Error::GivenUp { from: 1, to }) if to == second), "{told:?}");
    });
    writer.close();
}

#[test]
fn what_is_delivered_and_kept_goes_before_anything_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    let stored = overfill(&spool, &mut writer);
    let second = spool.state().epochs[1].first;
    spool.release(second, 9).expect("it is there");
    assert_eq!(spool.give_up_oldest(&id(GATEWAY)).expect("no need"), None);
    super::eventually(|| spool.oldest_number() > 1);
    assert_eq!(spool.untold(), None, "{} uplinks", stored.len());
    writer.close();
}

#[test]
fn what_the_stream_has_is_no_loss_though_it_is_to_be_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    for seq in 1..=10 {
        store(&mut writer, "early", &payload(7, seq, seq, None, 30_000));
    }
    spool.release(11, 9).expect("it is there");
    spool.send_again(1, 9);
    overfill(&spool, &mut writer);
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    let names = names(&given_up);
    assert!(!names.is_empty() && names.iter().all(|(device, ..)| device != "early"), "{names:?}");
    writer.close();

    // What the stream has lost is lost.
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    for seq in 1..=10 {
        store(&mut writer, "early", &payload(7, seq, seq, None, 30_000));
    }
    spool.release(11, 9).expect("it is there");
    spool.take_back(1, 0);
    overfill(&spool, &mut writer);
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    let early = self::names(&given_up).into_iter().filter(|(device, ..)| device == "early").count();
    assert_eq!(early, 10);
    writer.close();
}

#[test]
fn a_crash_before_it_is_told_tells_it_after_the_next_start_and_no_more_after_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let before = folder.path().join("before");
    copy(&config.folder, &before);
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    let after = folder.path().join("after");
    copy(&config.folder, &after);
    // Written down, not deleted yet: what a crash between the two leaves.
    std::fs::copy(after.join("given-up"), before.join("given-up")).expect("copied");
    writer.close();
    for left in [before, after] {
        let config = Config { folder: left, ..config.clone() };
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!(spool.untold().as_ref(), Some(&given_up));
        assert_eq!((spool.oldest_number(), spool.delivered().number), (given_up.end, 1));
        assert!(matches!(spool.read_from(1, 1), Err(Error::GivenUp { .. })));
        writer.close();
        drop(spool);
        // Killed before it was told: once more.
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!(spool.untold().as_ref(), Some(&given_up));
        spool.told().expect("written");
        writer.close();
        drop(spool);
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!(spool.untold(), None);
        assert_eq!(spool.delivered().number, 1, "still known as given up, not taken for delivered");
        writer.close();
    }
}

#[test]
fn a_note_that_was_not_written_whole_gives_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let before = folder.path().join("before");
    copy(&config.folder, &before);
    spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    let mut note = std::fs::read(config.folder.join("given-up")).expect("there");
    writer.close();
    note[20] ^= 1;
    std::fs::write(before.join("given-up"), note).expect("written");
    let (spool, writer) = Spool::open(&Config { folder: before, ..config }, NOW_MS).expect("opens");
    assert_eq!((spool.untold(), spool.oldest_number()), (None, 1));
    writer.close();
}

#[test]
fn a_note_that_was_not_written_whole_leaves_the_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let first = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    spool.told().expect("written");
    overfill(&spool, &mut writer);
    let before = folder.path().join("before");
    copy(&config.folder, &before);
    spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("another");
    for name in ["given-up", "given-up.2"] {
        let mut note = std::fs::read(config.folder.join(name)).expect("there");
        if note != std::fs::read(before.join(name)).expect("there") {
            note[20] ^= 1;
        }
        std::fs::write(before.join(name), note).expect("written");
    }
    writer.close();
    let (spool, writer) = Spool::open(&Config { folder: before, ..config }, NOW_MS).expect("opens");
    assert_eq!((spool.untold(), spool.oldest_number()), (None, first.end));
    assert_eq!(spool.delivered().number, 1, "what was given up before is not taken for delivered");
    writer.close();
}

#[test]
fn a_note_of_another_spool_in_this_folder_is_told_and_its_numbers_mean_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    writer.close();
    drop(spool);
    std::fs::remove_dir_all(config.folder.join("epochs")).expect("removed");
    std::fs::remove_file(config.folder.join("incarnation")).expect("removed");
    std::fs::remove_file(config.folder.join("delivered")).expect("removed");
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_ne!(spool.incarnation(), given_up.incarnation);
    assert_eq!(names(&spool.untold().expect("it is still to be told")), names(&given_up));
    store(&mut writer, "d1", &payload(7, 1, 1, None, 10));
    assert!(!spool.read_from(1, 1).expect("it is not given up").is_empty());
    writer.close();
}

#[test]
fn unreadable_numbers_of_another_spool_in_this_folder_never_become_this_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    std::fs::remove_file(super::epoch_folders(&config)[0].join("db")).expect("it was there");
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    let [(from, to)] = given_up.unreadable[..] else { panic!("{given_up:?}") };
    writer.close();
    drop(spool);
    std::fs::remove_dir_all(config.folder.join("epochs")).expect("removed");
    for file in ["incarnation", "delivered"] {
        std::fs::remove_file(config.folder.join(file)).expect("removed");
    }
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    assert_eq!(spool.untold().expect("still to be told").incarnation, given_up.incarnation);
    overfill(&spool, &mut writer);
    let next = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    assert_eq!((next.incarnation, &next.unreadable), (spool.incarnation(), &vec![]));
    assert_eq!(next.first, 1);
    assert!(names(&next).is_superset(&names(&given_up)), "events are the same whoever keeps them");
    let lost = crate::spool::Lost { incarnation: given_up.incarnation, numbers: from..to };
    assert!(spool.untold_losses().contains(&lost), "{:?}", spool.untold_losses());
    writer.close();
}

#[test]
fn what_was_told_is_not_counted_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, mut writer) = Spool::open(&dropping(folder.path()), NOW_MS).expect("opens");
    for _ in 0..3 {
        overfill(&spool, &mut writer);
        let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("an epoch");
        assert_eq!(given_up.uplinks, given_up.end - given_up.first);
        spool.told().expect("written");
    }
    writer.close();
}

#[test]
fn a_spool_that_gave_its_oldest_up_is_sound_and_a_repair_finds_nothing_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let before = folder.path().join("before");
    copy(&config.folder, &before);
    let given_up = spool.give_up_oldest(&id(GATEWAY)).expect("given up").expect("one epoch");
    writer.close();
    drop(spool);
    // Written down, not deleted yet, and damaged: nobody will read it any more.
    std::fs::copy(config.folder.join("given-up"), before.join("given-up")).expect("copied");
    let half = Config { folder: before, ..config };
    std::fs::write(super::epoch_folders(&half)[0].join("db"), "no log at all").expect("written");
    for config in [config, half] {
        let report = inspect(&config.folder).expect("looked into");
        assert!(report.sound, "{report:?}");
        let repaired = repair(&config.folder, false, NOW_MS).expect("nothing to do");
        assert!(repaired.epochs.is_empty() && repaired.is_sound(), "{repaired:?}");
        let (spool, writer) = Spool::open(&config, NOW_MS).expect("opens");
        assert_eq!(spool.untold().as_ref(), Some(&given_up));
        assert_eq!((spool.oldest_number(), spool.delivered().number), (given_up.end, 1));
        assert_eq!(spool.status().lost, 0, "it is given up, not damaged");
        writer.close();
    }
}

#[test]
fn what_cannot_be_deleted_of_what_was_set_aside_keeps_nothing_else_from_being_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = dropping(folder.path());
    std::fs::create_dir_all(config.folder.join("damaged")).expect("made");
    // Not an epoch: somebody's notes.
    std::fs::write(config.folder.join("damaged/notes"), "looked at it").expect("written");
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    overfill(&spool, &mut writer);
    let second = spool.state().epochs[1].first;
    spool.release(second, 9).expect("it is there");
    super::eventually(|| spool.oldest_number() > 1);
    super::eventually(|| !spool.state().disk.undone.is_empty());
    assert_eq!(spool.state().disk.undone.len(), 1, "told once, though other chores are done");
    writer.close();
}

#[test]
fn what_given_up_uplinks_say_of_losses_is_told_again_but_no_devices_word_on_another() {
    let gateway = id(GATEWAY);
    let mut account = Account::new(&gateway);
    let mut draft = Draft::default();
    draft.push(&id("d1"), NOW_MS, None, &payload(7, 9, 12, Some((None, 6, 1, 3)), 0));
    draft.push(&id("d1"), NOW_MS, None, &payload(7, 13, 13, Some((Some("d2"), 6, 1, 3)), 0));
    draft.push(&gateway, NOW_MS, None, &payload(5, 1, 1, Some((Some("d3"), 4, 5, 6)), 0));
    draft.push(&id("d4"), NOW_MS, None, b"no uplink");
    let value = draft.seal(100, STAMP).to_vec();
    let record = draft.record(100, value.into());
    account.record(&record, 100);
    account.unreadable(104, 110);
    let given_up = account.close(100, 110);
    let told: Vec<_> = given_up
        .losses
        .iter()
        .map(|loss| (&*loss.device, loss.boot, loss.from, loss.to, &*loss.reason))
        .collect();
    assert_eq!(
        told,
        [
            ("d1", 6, 1, 3, "outbox-full"),
            ("d1", 7, 9, 13, REASON),
            ("d3", 4, 5, 6, "outbox-full"),
            ("gw-1", 5, 1, 1, REASON),
        ]
    );
    assert_eq!((given_up.unreadable, given_up.uplinks), (vec![(103, 110)], 10));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_account_is_the_set_of_events_whatever_their_order(
        uplinks in prop::collection::vec((0_u8..3, 0_u64..2, 1_u32..400, 0_u32..20), 1..60), skip in 0_u64..10,
    ) {
        let gateway = id(GATEWAY);
        let mut draft = Draft::default();
        for (device, boot, first, more) in &uplinks {
            draft.push(&id(&format!("d{device}")), NOW_MS, None, &payload(*boot, *first, first + more, None, 1));
        }
        let value = draft.seal(1, STAMP).to_vec();
        let record = draft.record(1, value.into());
        let mut account = Account::new(&gateway);
        account.record(&record, 1 + skip);
        let given_up = account.close(1, record.end());
        let gone = uplinks.iter().skip(usize::try_from(skip).expect("small"));
        let expected: BTreeSet<Name> = gone
            .flat_map(|(device, boot, first, more)| (*first..=first + more).map(move |seq| (format!("d{device}"), *boot, seq)))
            .collect();
        prop_assert_eq!(given_up.events(), expected.len() as u64, "no event twice");
        prop_assert_eq!(names(&given_up), expected);
        prop_assert_eq!(GivenUp::decode(&given_up.encode(), 5).expect("readable"), given_up);
    }
}
