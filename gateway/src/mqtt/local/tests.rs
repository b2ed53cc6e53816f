//! Queues, readers and retained messages, without connections.

use std::collections::BTreeSet;

use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::mqtt::frame::Properties;

const LIMITS: Limits = Limits { subscribers: 2, retained: 4, retained_bytes: 4000 };

fn local(filters: &[&str]) -> Arc<Local> {
    Local::new(filters.iter().map(|filter| (*filter).to_owned()), LIMITS)
}

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message { origin: 7, topic, payload, qos: 1, retain: false, properties: Properties::default() }
}

fn retained<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message { retain: true, ..message(topic, payload) }
}

/// The payloads there are.
fn taken(link: &mut Link) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.take()).map(|delivery| delivery.kept.payload.to_vec()).collect()
}

fn topics_of(local: &Local, filter: &str) -> Vec<String> {
    let (mut topics, mut after) = (Vec::new(), Some(Box::<str>::default()));
    while let Some(from) = after {
        let page = local.retained_page(filter, &from);
        topics.extend(page.messages.iter().map(|delivery| delivery.kept.topic.to_string()));
        after = page.next;
    }
    topics
}

#[tokio::test]
async fn a_subscriber_gets_what_was_published_as_it_was_published() {
    let local = local(&["#"]);
    let mut link = local.open().unwrap();
    link.subscribe("a/+").unwrap();
    let properties = Properties { raw: b"\x01\x01", expiry: None };
    local.publish(&Message { properties, ..message("a/b", b"hello") }).unwrap();
    local.publish(&message("elsewhere", b"x")).unwrap();
    local.publish(&Message { qos: 0, ..message("a/\u{e9}", b"") }).unwrap();
    link.bell().notified().await;
    let first = link.take().unwrap().kept;
    assert_eq!((&*first.topic, &*first.payload, first.qos, first.origin), ("a/b", b"hello".as_slice(), 1, 7));
    assert_eq!(*first.properties(), *properties.raw);
    let second = link.take().unwrap().kept;
    assert_eq!((&*second.topic, second.payload.len(), second.qos), ("a/\u{e9}", 0, 0));
    assert!(link.take().is_none());
}

#[test]
fn a_message_that_several_feeds_have_is_taken_once() {
    let local = local(&["a/#", "a/+", "#"]);
    let mut link = local.open().unwrap();
    for filter in ["#", "a/+", "a/#"] {
        link.subscribe(filter).unwrap();
    }
    local.publish(&message("a/b", b"1")).unwrap();
    local.publish(&message("c", b"2")).unwrap();
    assert_eq!(taken(&mut link), [b"1", b"2"]);
    // What waits in one while another is opened is not lost to it.
    link.unsubscribe("a/#");
    link.unsubscribe("#");
    local.publish(&message("a/b", b"3")).unwrap();
    link.subscribe("#").unwrap();
    assert_eq!(taken(&mut link), [b"3"]);
}

#[test]
fn who_is_too_slow_misses_the_oldest_and_memory_is_bounded_whatever_is_published() {
    let local = local(&["#"]);
    let mut link = local.open().unwrap();
    link.subscribe("#").unwrap();
    let property = [0x26_u8; 60_000];
    let shapes: [(&[u8], &[u8]); 3] = [(&[0; 50_000], b""), (b"", &property), (b"", b"")];
    for (payload, raw) in shapes {
        for _ in 0..20_000 {
            local
                .publish(&Message { properties: Properties { raw, expiry: None }, ..message("t", payload) })
                .unwrap();
        }
        local.publish(&message("t", b"last")).unwrap();
        assert!(local.feeds[0].bytes() <= FEED_BYTES_MAX + 70_000, "{}", local.feeds[0].bytes());
        let taken = taken(&mut link);
        assert!(taken.len() > 10, "{}", taken.len());
        assert_eq!(taken.last().unwrap(), b"last");
    }
}

#[test]
fn who_reads_little_misses_nothing_because_of_what_others_read() {
    // In whatever order the configuration names them.
    for filters in [["#", "plant/#", "plant/+/state"], ["plant/+/state", "plant/#", "#"]] {
        let local = local(&filters);
        let (mut narrow, mut wide) = (local.open().unwrap(), local.open().unwrap());
        narrow.subscribe("plant/1/state").unwrap();
        wide.subscribe("#").unwrap();
        local.publish(&message("plant/1/state", b"on")).unwrap();
        for _ in 0..100 {
            local.publish(&message("elsewhere", &[0; 50_000])).unwrap();
            local.publish(&message("plant/1/noise", &[0; 50_000])).unwrap();
        }
        assert_eq!(taken(&mut narrow), [b"on"], "{filters:?}");
    }
}

#[test]
fn what_is_retained_after_who_subscribed_does_not_overtake_what_was_published_before_it() {
    let local = local(&["#"]);
    local.publish(&retained("a", b"1")).unwrap();
    local.publish(&retained("b", b"1")).unwrap();
    let mut link = local.open().unwrap();
    link.subscribe("a").unwrap();
    let page = |link: &Link| {
        let page = link.retained_page("+", "");
        page.messages.iter().map(|delivery| delivery.kept.payload.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(page(&link), [b"1", b"1"]);
    local.publish(&message("a", b"2")).unwrap();
    local.publish(&retained("a", b"3")).unwrap();
    assert_eq!(page(&link), [b"1"], "only what is not to come as it was published");
    assert_eq!(taken(&mut link), [b"2", b"3"]);
    assert_eq!(page(&link), [b"3", b"1"]);
}

#[test]
fn nothing_is_kept_for_who_has_left() {
    let local = local(&["#"]);
    let mut link = local.open().unwrap();
    link.subscribe("#").unwrap();
    local.publish(&message("t", b"x")).unwrap();
    drop(link);
    assert_eq!(local.feeds[0].bytes(), 0);
    local.publish(&message("t", b"x")).unwrap();
    assert_eq!((local.feeds[0].bytes(), local.subscriptions.load(Ordering::Relaxed)), (0, 0));
    let mut link = local.open().unwrap();
    link.subscribe("#").unwrap();
    assert!(link.take().is_none());
}

#[test]
fn events_are_copied_only_while_somebody_may_want_them() {
    let local = local(&["#", "plant/#"]);
    let mut link = local.open().unwrap();
    link.subscribe("plant/#").unwrap();
    assert!(!local.wants_events());
    link.subscribe("weir/1/dev-1/#").unwrap();
    assert!(local.wants_events());
    link.unsubscribe("weir/1/dev-1/#");
    assert!(!local.wants_events());
    link.subscribe("#").unwrap();
    drop(link);
    assert!(!local.wants_events());
}

#[test]
fn subscribers_have_a_limit_and_leave_their_place_to_others() {
    let local = local(&["a/#"]);
    let (mut one, two) = (local.open().unwrap(), local.open().unwrap());
    assert_eq!(local.open().err(), Some(Reason::QuotaExceeded));
    drop(two);
    local.open().expect("there is room again");
    // However many filters it thinks of, there is one queue.
    for index in 0..1000 {
        one.subscribe(&format!("a/{index}")).unwrap();
        one.unsubscribe(&format!("a/{index}"));
    }
    assert_eq!(one.subscribe("b").err(), Some(Reason::NotAuthorized));
    assert_eq!((local.feeds.len(), one.places.len()), (1, 0));
}

#[test]
fn a_retained_message_waits_until_it_is_cleared_and_has_limits() {
    let local = local(&[]);
    for topic in ["t/1", "t/2", "t/3", "u"] {
        local.publish(&retained(topic, b"x")).unwrap();
    }
    // An empty message that is not retained clears nothing.
    local.publish(&message("u", b"")).unwrap();
    assert_eq!(topics_of(&local, "#"), ["t/1", "t/2", "t/3", "u"]);
    assert_eq!(local.publish(&retained("v", b"x")).err(), Some(Reason::QuotaExceeded), "the number");
    local.publish(&retained("u", b"")).unwrap();
    local.publish(&retained("v", b"x")).unwrap();
    assert_eq!(topics_of(&local, "t/+"), ["t/1", "t/2", "t/3"]);
    assert_eq!(local.publish(&retained("v", &[0; 4000])).err(), Some(Reason::QuotaExceeded), "the bytes");
    let properties = Properties { raw: &[0; 4000], expiry: None };
    let beside = Message { properties, ..retained("v", b"x") };
    assert_eq!(local.publish(&beside).err(), Some(Reason::QuotaExceeded), "what is beside the payload");
    local.publish(&retained("v", &[1; 1000])).unwrap();
    local.publish(&retained("v", &[2; 1200])).expect("it takes the place of the other");
}

#[test]
fn what_has_expired_gives_way_and_is_not_sent() {
    let local = local(&[]);
    let properties = Properties { raw: &[2, 0, 0, 0, 0], expiry: Some((1, 0)) };
    for topic in ["a", "b", "c", "d"] {
        local.publish(&Message { properties, ..retained(topic, b"x") }).unwrap();
    }
    assert!(topics_of(&local, "#").is_empty());
    local.publish(&retained("e", b"x")).expect("there is room");
    assert_eq!(topics_of(&local, "#"), ["e"]);
}

proptest! {
    /// Page by page there comes what a simple search finds.
    #[test]
    fn pages_hold_everything_that_matches(
        topics in prop::collection::btree_set(prop::sample::select(vec!["a", "a/b", "a/b/c", "ab", "b", "b/c", "c/a", "a/c"]), 0..8),
        filler in 0..40_u32,
        filter in prop::sample::select(vec!["#", "a/#", "a/+", "+/c", "a", "a/b", "+", "b/#", "x/+"]),
        _seed in any::<u8>(),
    ) {
        let limits = Limits { retained: 1000, retained_bytes: 1 << 20, ..LIMITS };
        let local = Local::new([], limits);
        let mut all: BTreeSet<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        all.extend((0..filler).map(|index| format!("x/{index}")));
        for topic in &all {
            local.publish(&retained(topic, b"x")).unwrap();
        }
        let expected: Vec<String> = all.into_iter().filter(|topic| topics::matches(filter, topic)).collect();
        assert_eq!(topics_of(&local, filter), expected);
    }
}
