//! Of the numbers of a boot, each is stored once, or lost and accounted for, or missing.

use weir_contract::Text;
use weir_contract::body::Body;

use super::*;
use crate::store::Error;
use crate::store::types::{Account, LostRange};

fn lost(device: Option<&str>, boot: u64, from: u32, to: u32, reason: &'static str) -> Body<'static> {
    Body::EventsLost { device: device.map(id), boot, from, to, reason: Text::from(reason) }
}

#[test]
fn what_arrives_twice_is_stored_once_and_counted() {
    let mut fixture = Fixture::new();
    let folded = fixture.fold(&[segment(1, "gw", 1, &[readings("d", 7, 1, 10)])]);
    assert_eq!((folded.events, folded.duplicates), (10, 0));
    // The same uplink again, one that overlaps, from another gateway too, and after a restart.
    let folded = fixture.fold(&[segment(2, "gw", 1, &[readings("d", 7, 1, 10)])]);
    assert_eq!((folded.events, folded.duplicates), (0, 10));
    let mut fixture = fixture.reopened();
    let folded = fixture.fold(&[segment(3, "gw-2", 1, &[readings("d", 7, 6, 10)])]);
    assert_eq!((folded.events, folded.duplicates), (5, 5));

    let boots = fixture.reader().boots(&id("d")).expect("reads").expect("is there");
    assert_eq!(boots.len(), 1);
    assert_eq!((boots[0].boot, boots[0].rows, boots[0].duplicates), (7, 15, 15));
    assert_eq!(boots[0].stored, [(1, 15)]);
    let seqs: Vec<u32> = fixture.history("d").iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=15).collect::<Vec<_>>());
    let status = fixture.reader().status().expect("reads");
    assert_eq!((status.events, status.duplicates), (15, 15));
}

#[test]
fn a_boots_numbers_are_the_stored_the_lost_and_the_missing() {
    let mut fixture = Fixture::new();
    let told = entry("d", T0, known(7, T0), 11, &[(11, lost(None, 7, 4, 8, "outbox-full"))]);
    fixture.fold(&[segment(1, "gw", 1, &[readings("d", 7, 1, 3), told])]);
    // 7 turns up all the same, the gateway gives up 8 to 9, and 10 is nowhere.
    let gave_up = entry("gw", T0, known(1, T0 + 100), 1, &[(1, lost(Some("d"), 7, 8, 9, "spool-full"))]);
    fixture.fold(&[segment(2, "gw", 3, &[readings("d", 7, 7, 1), gave_up])]);

    let boot = &fixture.reader().boots(&id("d")).expect("reads").expect("is there")[0];
    assert_eq!(boot.stored, [(1, 3), (7, 7), (11, 11)]);
    let range = |from, to, reason: &str, by| LostRange { from, to, reason: reason.into(), by: id(by) };
    // The ledger's entries overlap in 8: it belongs to the earlier one.
    assert_eq!(
        boot.lost,
        [range(4, 6, "outbox-full", "d"), range(8, 8, "outbox-full", "d"), range(9, 9, "spool-full", "gw")]
    );
    assert_eq!(boot.missing, [(10, 10)]);
    assert_eq!(boot.rows, 5);
    let account = fixture.reader().state(&id("d"), None).expect("reads").expect("is there").account;
    assert_eq!(account, Account { events: 5, lost: 5, missing: 1 });
}

#[test]
fn a_boot_of_which_everything_was_lost_is_accounted_for() {
    let mut fixture = Fixture::new();
    let told = entry("d", T0, known(8, T0), 1, &[(1, lost(None, 7, 1, 400, "outbox-full"))]);
    fixture.fold(&[segment(1, "gw", 1, &[told])]);
    let boots = fixture.reader().boots(&id("d")).expect("reads").expect("is there");
    let of_7 = boots.iter().find(|boot| boot.boot == 7).expect("known by the ledger");
    assert_eq!((of_7.rows, of_7.lost[0].from, of_7.lost[0].to), (0, 1, 400));
    assert_eq!(fixture.reader().state(&id("d"), None).expect("reads").expect("is there").boot, Some(8));
}

#[test]
fn gaps_in_a_gateways_numbers_are_told() {
    let mut fixture = Fixture::new();
    fixture.fold(&[
        segment(1, "gw", 1, &[readings("d", 7, 1, 1), readings("d", 7, 2, 1)]),
        segment(2, "gw", 6, &[readings("d", 7, 3, 1)]),
        segment(3, "gw-2", 1, &[readings("d", 7, 4, 1)]),
    ]);
    let fixture = fixture.reopened();
    let gateways = fixture.reader().status().expect("reads").gateways;
    assert_eq!(gateways.len(), 2);
    assert_eq!((gateways[0].last_number, gateways[0].missing_count), (6, 3));
    assert_eq!((gateways[0].missing.as_slice(), gateways[0].incarnation), (&[(3, 5)][..], u64::MAX));
    assert_eq!((gateways[1].last_number, gateways[1].missing_count), (1, 0));
}

#[test]
fn the_position_is_committed_with_what_it_stands_for() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.store.position(), None);
    fixture.fold(&[
        segment(4, "gw", 1, &[readings("d", 7, 1, 1)]),
        segment(9, "gw", 2, &[readings("d", 7, 2, 1)]),
    ]);
    let fixture = fixture.reopened();
    let position = fixture.store.position().expect("something is folded").clone();
    assert_eq!(
        (position.stream.as_str(), position.stream_created_ns, position.stream_sequence),
        (STREAM, 1, 9)
    );
    assert_eq!(position.logged_at_ns, (T0 + 9).cast_signed() * 1_000_000);
    assert_eq!(fixture.reader().position().expect("reads"), Some(position));
}

#[test]
fn a_transaction_that_fails_leaves_nothing_behind() {
    let mut fixture = Fixture::new();
    fixture.fold(&[segment(1, "gw", 1, &[readings("d", 7, 1, 5)])]);
    // A disk that is full, as far as SQLite can tell.
    let pages: i64 =
        fixture.store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("pages");
    fixture.store.connection.pragma_update(None, "max_page_count", pages).expect("limits");
    let much: Vec<Entry> = (0..300).map(|i| readings("d", 7, 6 + i * 10, 10)).collect();
    let failed = fixture.store.fold(STREAM, 1, &[segment(2, "gw", 2, &much)]);
    assert!(matches!(failed, Err(Error::Sqlite { .. })), "{failed:?}");

    assert_eq!(fixture.store.position().map(|position| position.stream_sequence), Some(1));
    assert_eq!(fixture.history("d").len(), 5);
    // There is room again, and the store has not forgotten what it holds nor remembered what it does not.
    fixture.store.connection.pragma_update(None, "max_page_count", 1_000_000).expect("limits");
    let folded = fixture.fold(&[segment(2, "gw", 2, &much)]);
    assert_eq!((folded.events, folded.duplicates), (3000, 0));
    assert_eq!(fixture.reader().boots(&id("d")).expect("reads").expect("is there")[0].stored, [(1, 3005)]);
}

#[test]
fn a_store_has_one_writer() {
    let fixture = Fixture::new();
    assert!(matches!(Store::open(&config(&fixture.folder)), Err(Error::InUse { .. })));
    drop(fixture.reopened());
}

#[test]
fn a_database_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = rusqlite::Connection::open(config(&folder).path).expect("a database");
    other.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("writes");
    assert!(matches!(Store::open(&config(&folder)), Err(Error::Foreign { .. })));
    assert!(matches!(Reader::open(&config(&folder)), Err(Error::Foreign { .. })));
    let rows: i64 = other.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("still there");
    assert_eq!(rows, 1);
}
