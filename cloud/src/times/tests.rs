use proptest::prelude::*;

use super::*;

/// 2026-11-20T18:40:59.123Z
const NOW: u64 = 1_795_200_059_123;

#[test]
fn a_time_is_written_as_rfc_3339_with_milliseconds() {
    assert_eq!(rfc3339(NOW), "2026-11-20T18:40:59.123Z");
    assert_eq!(rfc3339(NOW - 123), "2026-11-20T18:40:59.000Z");
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
}

#[test]
fn a_time_beyond_all_calendars_is_written_as_the_last_one() {
    assert!(rfc3339(u64::MAX).starts_with("9999-12-3"));
    assert_eq!(rfc3339(u64::MAX), rfc3339(TIME_MS_MAX));
}

#[test]
fn ages_are_told_in_two_units() {
    for (age_ms, said) in [
        (0, "now"),
        (999, "now"),
        (1_000, "1s ago"),
        (59_999, "59s ago"),
        (600_000, "10m ago"),
        (605_000, "10m 5s ago"),
        (7_500_000, "2h 5m ago"),
        (7_200_000 + 30_000, "2h ago"),
        (90_000_000, "1d 1h ago"),
        (400 * 86_400_000, "400d ago"),
    ] {
        assert_eq!(ago(NOW - age_ms, NOW), said);
    }
    assert_eq!(ago(NOW + 3_000, NOW), "in 3s");
    assert_eq!(duration(850), "850ms");
}

#[test]
fn people_may_write_times_in_these_ways() {
    for (text, moment) in [
        ("2026-11-20T18:40:59.123Z", NOW),
        ("2026-11-20T18:40:59Z", NOW - 123),
        ("2026-11-20T20:40:59.123+02:00", NOW),
        ("2026-11-20 18:40:59.123Z", NOW),
        ("1795200059123", NOW),
        ("now", NOW),
        (" now ", NOW),
        ("10m ago", NOW - 600_000),
        ("10 minutes ago", NOW - 600_000),
        ("1h 30m ago", NOW - 5_400_000),
        ("1h30m", NOW - 5_400_000),
        ("now-1h", NOW - 3_600_000),
        ("now - 1h", NOW - 3_600_000),
        ("2d", NOW - 172_800_000),
        ("1w ago", NOW - 7 * 86_400_000),
        ("500ms ago", NOW - 500),
    ] {
        assert_eq!(parse(text, NOW), Ok(moment), "{text}");
    }
}

#[test]
fn what_is_no_time_is_refused_with_what_is() {
    for text in [
        "",
        "yesterday",
        "10 ago m",
        "ago",
        "now-",
        "now+1h",
        "-1h",
        "1 month ago",
        "2026-11-20",
        "2026-11-20T18:40:59",
        "18:40",
        "1e3",
        "9999999999999999999",
        "99999999999999999999999",
        "1969-12-31T23:59:59Z",
        "100000w ago",
    ] {
        let refused = parse(text, NOW).expect_err(text).to_string();
        assert!(refused.contains("RFC 3339") && refused.contains("10m ago"), "{refused}");
        let refused = parse_absolute(text).expect_err(text).to_string();
        assert!(refused.contains("RFC 3339") && !refused.contains("ago;"), "{refused}");
    }
    assert!(parse_absolute("10m ago").is_err(), "the API has no `now`");
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(unix_ms in 0..TIME_MS_MAX - 2 * 86_400_000) {
        prop_assert_eq!(parse_absolute(&rfc3339(unix_ms)), Ok(unix_ms));
        prop_assert_eq!(parse_absolute(&unix_ms.to_string()), Ok(unix_ms));
    }

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,40}", now_ms: u64) {
        let _ = parse(&text, now_ms);
        let _ = parse_absolute(&text);
    }
}
