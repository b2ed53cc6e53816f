use proptest::prelude::*;

use super::*;

fn device() -> Id {
    "kiln-1".parse().expect("a device's name")
}

fn refusal(query: &str) -> String {
    format!("{:?}", events(device(), Some(query)).expect_err(query))
}

#[test]
fn every_parameter_of_history_is_read() {
    let query = "from=2026-11-20T18:00:00Z&to=1795200059123&kind=reading-taken&limit=7&order=desc&after=1a.2";
    let read = events(device(), Some(query)).expect("all of it is allowed");
    assert_eq!(read.from_ms, Some(1_795_197_600_000));
    assert_eq!(read.to_ms, Some(1_795_200_059_123));
    assert_eq!(read.kind, Some("reading-taken".parse().expect("a kind")));
    assert_eq!((read.limit, read.order), (7, Order::Descending));
    assert_eq!(read.after.map(|cursor| cursor.to_string()).as_deref(), Some("1a.2"));
}

#[test]
fn without_parameters_history_begins_at_its_beginning() {
    let read = events(device(), None).expect("nothing is required");
    assert_eq!((read.from_ms, read.to_ms, read.kind, read.after), (None, None, None, None));
    assert_eq!((read.limit, read.order), (LIMIT_DEFAULT, Order::Ascending));
}

#[test]
fn a_refusal_names_the_parameter_the_value_and_what_is_allowed() {
    for (query, parts) in [
        ("limit=0", ["limit", "0", "from 1 to 10000"]),
        ("limit=10001", ["limit", "10001", "from 1 to 10000"]),
        ("limit=ten", ["limit", "ten", "from 1 to 10000"]),
        ("limit=", ["limit", "", "from 1 to 10000"]),
        ("limit=-1", ["limit", "-1", "from 1 to 10000"]),
        ("from=yesterday", ["from", "yesterday", "RFC 3339"]),
        ("to=2026-11-20", ["to", "2026-11-20", "RFC 3339"]),
        ("kind=Reading", ["kind", "Reading", "reading-taken"]),
        ("order=up", ["order", "up", "asc, desc"]),
        ("after=xyz", ["after", "xyz", "next"]),
        ("since=1h", ["since", "no parameter", "from, to, kind, limit, order, after"]),
        ("limit=1&limit=2", ["limit", "twice", "once"]),
        ("from=5&to=4", ["from", "later than to", "1970-01-01T00:00:00.004Z"]),
        ("kind=%ff", ["kind", "\u{fffd}", "reading-taken"]),
    ] {
        let refusal = refusal(query);
        for part in parts {
            assert!(refusal.contains(part), "{query}: {refusal}");
        }
    }
}

#[test]
fn a_time_zone_survives_an_unescaped_plus() {
    let escaped = state(Some("at=2026-11-20T20:40:59%2B02:00")).expect("a time");
    assert_eq!(state(Some("at=2026-11-20T20:40:59+02:00")).expect("a time"), escaped);
    assert_eq!(escaped, Some(1_795_200_059_000));
}

proptest! {
    #[test]
    fn no_query_string_makes_reading_panic(query in "[a-z%&=+0-9é.:TZ-]{0,60}") {
        let _ = events(device(), Some(&query));
        let _ = devices(Some(&query));
        let _ = dead_letters(Some(&query));
        let _ = state(Some(&query));
        let _ = nothing(Some(&query));
    }
}
