//! Local delivery against the real router.

use std::time::Duration;

use super::*;

const LIMITS: Limits = Limits { filters: 3, subscribers: 2, topics: 4, retained_bytes: 100 };

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message { origin: 7, topic, payload, qos: 1, retain: false, properties: None }
}

async fn next(link: &mut (Link, Deliveries)) -> Delivery {
    tokio::time::timeout(Duration::from_secs(5), link.1.next())
        .await
        .expect("in time")
        .expect("a living router")
}

#[tokio::test]
async fn a_subscriber_gets_what_was_published_as_it_was_published() {
    let local = Local::start(LIMITS).unwrap();
    let mut link = local.open().unwrap();
    link.0.subscribe("a/+", 1).unwrap();
    local.publish(&message("a/b", b"hello")).unwrap();
    local.publish(&Message { qos: 0, ..message("a/c", b"") }).unwrap();
    let first = next(&mut link).await;
    assert_eq!(
        (&first.publish.topic[..], &first.publish.payload[..]),
        (b"a/b".as_slice(), b"hello".as_slice())
    );
    assert_eq!((first.qos_published, first.origin, first.packet_id), (1, 7, Some(1)));
    let second = next(&mut link).await;
    assert_eq!((second.publish.payload.len(), second.qos_published, second.packet_id), (0, 0, Some(2)));
}

#[tokio::test]
async fn a_retained_message_waits_for_its_subscriber_until_it_is_cleared() {
    let local = Local::start(LIMITS).unwrap();
    local.publish(&Message { retain: true, ..message("a/b", b"kept") }).unwrap();
    // An empty message that is not retained clears nothing.
    local.publish(&message("a/b", b"")).unwrap();
    let mut link = local.open().unwrap();
    link.0.subscribe("a/#", 0).unwrap();
    let kept = next(&mut link).await;
    assert!(kept.from_retained && kept.publish.payload == b"kept".as_slice());
    local.publish(&Message { retain: true, ..message("a/b", b"") }).unwrap();
    assert_eq!(next(&mut link).await.publish.payload.len(), 0);
    let mut other = local.open().unwrap();
    other.0.subscribe("a/b", 0).unwrap();
    local.publish(&message("a/b", b"now")).unwrap();
    assert!(!next(&mut other).await.from_retained);
}

#[tokio::test]
async fn events_are_copied_only_while_somebody_may_want_them() {
    let local = Local::start(LIMITS).unwrap();
    let mut link = local.open().unwrap();
    link.0.subscribe("plant/#", 0).unwrap();
    assert!(!local.wants_events());
    link.0.subscribe("weir/1/dev-1/#", 0).unwrap();
    assert!(local.wants_events());
    link.0.unsubscribe("weir/1/dev-1/#");
    assert!(!local.wants_events());
    link.0.subscribe("#", 0).unwrap();
    drop(link);
    assert!(!local.wants_events());
}

#[tokio::test]
async fn every_limit_is_kept() {
    let local = Local::start(LIMITS).unwrap();
    let (mut one, two) = (local.open().unwrap(), local.open().unwrap());
    assert_eq!(local.open().err(), Some(Reason::QuotaExceeded));
    drop(two);
    local.open().expect("there is room again");
    for filter in ["a/1", "a/2", "#"] {
        one.0.subscribe(filter, 0).unwrap();
    }
    one.0.unsubscribe("a/1");
    assert_eq!(one.0.subscribe("a/4", 0).err(), Some(Reason::QuotaExceeded));
    one.0.subscribe("a/1", 0).expect("the router has it already");
    for topic in ["t/1", "t/2", "t/3", "t/4", "t/1"] {
        local.publish(&message(topic, b"x")).unwrap();
    }
    assert_eq!(local.publish(&message("t/5", b"x")).err(), Some(Reason::QuotaExceeded));
    let retained = |payload| local.publish(&Message { retain: true, ..message("t/1", payload) });
    retained(&[1; 100]).unwrap();
    retained(&[2; 90]).unwrap();
    assert_eq!(retained(&[3; 101]).err(), Some(Reason::QuotaExceeded));
}

/// The router's thread hears nothing here, as when the router is slow.
#[test]
fn who_subscribes_without_end_fills_no_memory() {
    let (commands, _never_read) = mpsc::channel();
    let local = Arc::new(Local {
        commands,
        waiting_bytes: Arc::default(),
        filters_on_events: AtomicUsize::new(0),
        limits: LIMITS,
        books: Arc::default(),
    });
    let (mut link, _deliveries) = local.open().unwrap();
    let refused = (0..1_000_000).find(|_| {
        let refused = link.subscribe("a/b", 1).is_err();
        link.unsubscribe("a/b");
        refused
    });
    let most = WAITING_BYTES_MAX / (2 * size_of::<Command>());
    assert!(refused.is_some_and(|times| times < most), "{refused:?}");
    assert!(local.publish(&message("a/b", &[0; 1000])).is_ok(), "nobody subscribes, so nothing waits");
}

#[tokio::test]
async fn many_subscribers_come_and_go_while_messages_flow() {
    let local = Local::start(Limits { subscribers: 8, ..LIMITS }).unwrap();
    for round in 0..200_u32 {
        let mut link = local.open().unwrap();
        link.0.subscribe("a/b", 1).unwrap();
        for _ in 0..300 {
            local.publish(&message("a/b", &round.to_be_bytes())).unwrap();
        }
        // Leaves with messages on the way, sometimes before its link is there.
        if round % 2 == 0 {
            next(&mut link).await;
        }
    }
    let mut link = local.open().unwrap();
    link.0.subscribe("a/b", 1).unwrap();
    local.publish(&message("a/b", b"end")).unwrap();
    while next(&mut link).await.publish.payload != b"end".as_slice() {}
}

#[tokio::test]
async fn when_the_router_dies_subscribers_are_told_and_the_next_one_is_served() {
    let local = Local::start(LIMITS).unwrap();
    let mut link = local.open().unwrap();
    link.0.subscribe("a/b", 1).unwrap();
    local.publish(&message("a/b", b"1")).unwrap();
    next(&mut link).await;
    // What `is_routable` keeps out.
    let publish = Publish::new("é/x".as_bytes(), b"".as_slice(), false);
    local.command(Command::Publish { publish, properties: None, bytes: 0 });
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), link.1.next()).await.expect("in time").err(),
        Some(Lost)
    );
    drop(link);
    // The thread finds out when it speaks to it, at the latest with the second message.
    let mut served = None;
    for _ in 0..50 {
        let mut link = local.open().unwrap();
        link.0.subscribe("a/b", 1).unwrap();
        local.publish(&message("a/b", b"2")).unwrap();
        if let Ok(Ok(delivery)) = tokio::time::timeout(Duration::from_secs(1), link.1.next()).await {
            served = Some(delivery);
            break;
        }
    }
    assert_eq!(served.expect("a new router").publish.payload, b"2".as_slice());
}
