//! History: every event once, in order, page by page, with its way here.

use weir_contract::time::Clock;

use super::*;
use crate::store::schema::STRETCH;
use crate::store::types::Cursor;

fn query(device: &str) -> EventQuery {
    EventQuery {
        device: id(device),
        from_ms: None,
        to_ms: None,
        kind: None,
        order: Order::Ascending,
        limit: 10_000,
        body_bytes_max: usize::MAX,
        after: None,
    }
}

fn seqs(fixture: &Fixture, query: &EventQuery) -> (Vec<u32>, Option<Cursor>) {
    let page = fixture.reader().events(query).expect("reads").expect("is there");
    (page.events.iter().map(|event| event.seq).collect(), page.next)
}

#[test]
fn an_event_tells_its_way_here() {
    let mut fixture = Fixture::new();
    let header = Header { boot: u64::MAX, now: Some(5_000), epoch: None, via: None };
    let uplink = entry("d", T0, header, 1, &[(2_000, reading("t", 20))]);
    fixture.fold(&[segment(42, "gw", 1_000, &[readings("x", 1, 1, 1), uplink])]);
    let event = &fixture.history("d")[0];
    assert_eq!((event.at_ms, event.clock, event.received_at_ms), (T0 - 3_000, Clock::Gateway, T0));
    assert_eq!((event.boot, event.seq, event.version, &*event.kind), (u64::MAX, 1, 1, "reading-taken"));
    assert_eq!((&*event.place.site, &*event.place.gateway), ("plant", "gw"));
    assert_eq!((event.incarnation, event.number, event.stream_sequence), (u64::MAX, 1_001, 42));
    assert_eq!(event.logged_at_ms, T0 + 42);
}

#[test]
fn pages_follow_each_other_without_hole_or_double_while_data_arrives() {
    let mut fixture = Fixture::new();
    for (sequence, first_seq) in (1..).zip((1..100).step_by(10)) {
        fixture.fold(&[segment(sequence, "gw", sequence, &[readings("d", 7, first_seq, 10)])]);
    }
    for order in [Order::Ascending, Order::Descending] {
        let mut seen = Vec::new();
        let mut after: Option<Cursor> = None;
        loop {
            // As text, the way it travels.
            let after_text = after.map(|cursor| cursor.to_string());
            let after_read = after_text.map(|text| text.parse().expect("a cursor"));
            let (page, next) =
                seqs(&fixture, &EventQuery { order, limit: 7, after: after_read, ..query("d") });
            seen.extend(page);
            after = next;
            let late = u32::try_from(seen.len()).expect("few") + 1_000;
            fixture.fold(&[segment(
                u64::from(late),
                "gw",
                u64::from(late),
                &[readings("other", 1, late, 1)],
            )]);
            if after.is_none() {
                break;
            }
        }
        if order == Order::Descending {
            seen.reverse();
        }
        assert_eq!(seen, (1..=100).collect::<Vec<_>>(), "{order:?}");
    }
}

#[test]
fn times_and_kinds_narrow_history() {
    let mut fixture = Fixture::new();
    let started =
        Body::DeviceStarted { fw: Text::from("1"), hw: Text::from("2"), reason: Text::from("power-on") };
    let header = known(7, T0);
    fixture.fold(&[segment(
        1,
        "gw",
        1,
        &[readings("d", 7, 1, 9), entry("d", T0, header, 10, &[(10_000, started)])],
    )]);
    let between = EventQuery { from_ms: Some(T0 + 3_000), to_ms: Some(T0 + 6_000), ..query("d") };
    assert_eq!(seqs(&fixture, &between), (vec![3, 4, 5], None));
    let of_kind = |kind: &str| EventQuery { kind: Some(kind.parse().expect("a kind")), ..query("d") };
    assert_eq!(seqs(&fixture, &of_kind("device-started")), (vec![10], None));
    assert_eq!(seqs(&fixture, &of_kind("unheard-of")), (vec![], None));
    let nothing = EventQuery { from_ms: Some(T0 + 99_000), to_ms: Some(T0), ..query("d") };
    assert_eq!(seqs(&fixture, &nothing), (vec![], None));
    assert_eq!(fixture.reader().events(&query("nobody")).expect("reads"), None);
}

/// A device without a clock: what one uplink took longer than the next puts its events behind the next's in time.
#[test]
fn times_choose_events_and_never_order_them() {
    let mut fixture = Fixture::new();
    let count = 3 * STRETCH;
    let delay_ms = |seq: u32| u64::from(seq % 7) * 40;
    let observed_ms = |seq: u32| T0 + u64::from(seq) * 10 + delay_ms(seq);
    let uplinks: Vec<_> = (1..=count)
        .map(|seq| {
            let at = u64::from(seq) * 10;
            let header = Header { boot: 7, now: Some(at), epoch: None, via: None };
            entry("d", observed_ms(seq), header, seq, &[(at, reading("t", i64::from(seq)))])
        })
        .collect();
    fixture.fold(&[segment(1, "gw", 1, &uplinks)]);
    assert_eq!(seqs(&fixture, &query("d")), ((1..=count).collect(), None));
    for (from_ms, to_ms) in [(0, 100), (5_000, 5_200), (5_100, 10_300), (15_000, 99_000), (99_000, 100_000)] {
        let between = T0 + from_ms..T0 + to_ms;
        let expected: Vec<u32> = (1..=count).filter(|seq| between.contains(&observed_ms(*seq))).collect();
        let asked = EventQuery { from_ms: Some(between.start), to_ms: Some(between.end), ..query("d") };
        assert_eq!(seqs(&fixture, &asked), (expected.clone(), None));
        let then = fixture.reader().state(&id("d"), Some(between.end)).expect("reads").expect("is there");
        let known = (1..=count).filter(|seq| observed_ms(*seq) <= between.end).count();
        assert_eq!((then.account.events, then.account.missing), (known as u64, 0));
        let backwards = EventQuery { order: Order::Descending, ..asked };
        assert_eq!(seqs(&fixture, &backwards), (expected.into_iter().rev().collect(), None));
    }
}

#[test]
fn history_is_searched_and_not_scanned() {
    let fixture = Fixture::new();
    for sql in
        [crate::store::reader::history::SELECT_ASCENDING, crate::store::reader::history::SELECT_DESCENDING]
    {
        let plan: Vec<String> = fixture
            .store
            .connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .expect("prepares")
            .query_map([1, 1, 1, 1], |row| row.get(3))
            .expect("plans")
            .collect::<Result<_, _>>()
            .expect("plans");
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].contains("SEARCH events") && plan[0].contains("seq>"), "{plan:?}");
    }
}

#[test]
fn a_time_beyond_year_9999_is_kept_as_its_end() {
    let mut fixture = Fixture::new();
    let mad = entry("d", u64::MAX, known(7, u64::MAX), 1, &[(u64::MAX, reading("t", 1))]);
    fixture.fold(&[segment(1, "gw", 1, &[mad])]);
    let event = &fixture.history("d")[0];
    assert_eq!(
        (event.at_ms, event.received_at_ms),
        (crate::store::types::TIME_MS_MAX, crate::store::types::TIME_MS_MAX)
    );
    assert!(
        fixture.reader().state(&id("d"), Some(u64::MAX)).expect("reads").expect("is there").sensors.len()
            == 1
    );
}
