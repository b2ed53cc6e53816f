//! When an event happened, as far as its uplink tells.

use weir_contract::time::{Clock, boot_began_ms, wall_ms};
use weir_contract::uplink::Header;

const RECEIVED: u64 = 1_790_000_000_000;

fn header(now: Option<u64>, epoch: Option<u64>) -> Header {
    Header { boot: 1, now, epoch, via: None }
}

#[test]
fn a_device_that_knows_the_time_is_believed() {
    for now in [None, Some(60_000)] {
        let header = header(now, Some(1_789_999_000_000));
        assert_eq!(wall_ms(&header, RECEIVED, 1_500), (1_789_999_001_500, Clock::Device));
        assert_eq!(boot_began_ms(&header, RECEIVED), Some(1_789_999_000_000));
    }
}

#[test]
fn else_the_event_is_as_old_as_it_was_when_it_was_sent() {
    let header = header(Some(60_000), None);
    assert_eq!(wall_ms(&header, RECEIVED, 59_000), (RECEIVED - 1_000, Clock::Gateway));
    assert_eq!(wall_ms(&header, RECEIVED, 60_000), (RECEIVED, Clock::Gateway));
    assert_eq!(boot_began_ms(&header, RECEIVED), Some(RECEIVED - 60_000));
}

#[test]
fn of_an_earlier_boot_only_the_receipt_is_known() {
    let header = Header { via: Some(2), ..header(None, None) };
    assert_eq!(wall_ms(&header, RECEIVED, 59_000), (RECEIVED, Clock::Unknown));
    assert_eq!(boot_began_ms(&header, RECEIVED), None);
}

#[test]
fn nonsense_stays_within_bounds() {
    // Observed after it was sent: no event is of the future.
    assert_eq!(wall_ms(&header(Some(1), None), RECEIVED, u64::MAX), (RECEIVED, Clock::Gateway));
    // Older than 1970, by the gateway's clock.
    assert_eq!(wall_ms(&header(Some(u64::MAX), None), RECEIVED, 0), (0, Clock::Gateway));
    assert_eq!(boot_began_ms(&header(Some(u64::MAX), None), RECEIVED), Some(0));
    // Beyond what 64 bits hold.
    assert_eq!(wall_ms(&header(None, Some(u64::MAX)), RECEIVED, 1), (u64::MAX, Clock::Device));
}

#[test]
fn clocks_have_names() {
    let names = [Clock::Device, Clock::Gateway, Clock::Unknown].map(Clock::as_str);
    assert_eq!(names, ["device", "gateway", "unknown"]);
}
