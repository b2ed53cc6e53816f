//! What a subscriber is sent, and what of it is on the way.

use super::*;
use crate::mqtt::local::Delivery;

fn delivery(message: &Message<'_>) -> Delivery {
    let limits = LocalLimits { subscribers: 1, retained: 0, retained_bytes: 0 };
    let local = Local::new(["#".to_owned()], limits);
    let mut link = local.open().unwrap();
    link.subscribe("#").unwrap();
    local.publish(message).unwrap();
    link.take().unwrap()
}

/// The packet identifiers of the QoS 1 messages in `out`.
fn packet_ids(out: &[u8]) -> Vec<u16> {
    let (mut at, mut ids) = (0, Vec::new());
    while let Ok(Some(frame)) = frame::next(&out[at..], 1000) {
        // Of either version: what comes before the identifier is the same.
        let publish = frame::publish(Version::V4, &frame).unwrap();
        ids.extend((publish.qos > 0).then_some(publish.packet_id));
        at += frame.whole.len();
    }
    ids
}

#[test]
fn a_message_is_on_the_way_until_it_is_acknowledged() {
    let (mut session, mut outside) = (session_with(Version::V4, local_rights()), recorder());
    receive(&mut session, &subscribe(Version::V4, "plant/#", 1), &mut outside);
    session.out.clear();
    let on_the_way = delivery(&message("plant/a", b"payload"));
    for _ in 0..4 {
        session.deliver(&on_the_way);
    }
    // Published with QoS 0: nobody is asked.
    session.deliver(&delivery(&Message { qos: 0, ..message("plant/a", b"payload") }));
    assert_eq!(packet_ids(&std::mem::take(&mut session.out)), [1, 2, 3, 4]);
    session.deliver(&on_the_way);
    assert!(!session.can_deliver(), "its receive maximum");
    // Of nothing, twice, and out of order.
    for (packet_id, can) in [(77, false), (2, true), (2, true)] {
        receive(&mut session, &packet(0x40, &[0, packet_id]), &mut outside);
        assert_eq!(session.can_deliver(), can, "{packet_id}");
    }
    session.out.clear();
    session.packet_ids = 0x7fff;
    session.deliver(&on_the_way);
    assert_eq!(packet_ids(&session.out), [2], "what is on the way has its identifier to itself");
}

#[test]
fn a_subscriber_that_never_acknowledges_gets_no_more_than_it_takes() {
    let (mut session, mut outside) = (session_with(Version::V5, local_rights()), recorder());
    receive(&mut session, &subscribe(Version::V5, "plant/#", 1), &mut outside);
    let delivery = delivery(&message("plant/a", b"payload"));
    let delivered = (1..).find(|_| {
        session.deliver(&delivery);
        !session.can_deliver()
    });
    assert_eq!(delivered, Some(5), "its receive maximum");
}

#[test]
fn the_options_of_a_subscription_are_kept() {
    const NO_LOCAL: u8 = 0b0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;
    let (mut session, mut outside) = (session_with(Version::V5, local_rights()), recorder());
    receive(
        &mut session,
        &subscribe(Version::V5, "plant/#", 1 | NO_LOCAL | RETAIN_AS_PUBLISHED),
        &mut outside,
    );
    session.out.clear();
    session.deliver(&delivery(&Message { origin: 7, ..message("plant/a", b"mine") }));
    session.deliver(&delivery(&message("elsewhere", b"x")));
    assert!(session.out.is_empty());
    let retained = Delivery { from_retained: false, ..delivery(&message("plant/a", b"x")) };
    session.deliver(&retained);
    assert_eq!(session.out[0], 0x32);
    session.out.clear();
    // Each message comes with the greatest QoS that was granted, and no greater than its own.
    receive(&mut session, &subscribe(Version::V5, "plant/a", 0), &mut outside);
    session.out.clear();
    session.deliver(&delivery(&message("plant/a", b"x")));
    assert_eq!(session.out[0], 0x32);
}

/// Writes all that is owed, the client acknowledging as it reads; returns how many there were.
fn retained_come(session: &mut Session<u64>, outside: &mut Recorder) -> usize {
    session.out.clear();
    let mut came = 0;
    while session.owes_retained() {
        session.deliver_retained(outside);
        let ids = packet_ids(&std::mem::take(&mut session.out));
        came += ids.len();
        for packet_id in ids {
            session.received(packet_id);
        }
    }
    came
}

#[test]
fn retained_messages_come_with_every_subscription_that_wants_them() {
    const ON_NEW: u8 = 0b01_0000;
    const NEVER: u8 = 0b10_0000;
    let mut outside = recorder();
    outside.retained = (0..200).map(|index| format!("plant/{index}")).collect();
    for version in [Version::V4, Version::V5] {
        let mut session = session_with(version, local_rights());
        for _ in 0..2 {
            receive(&mut session, &subscribe(version, "plant/#", 1), &mut outside);
            assert_eq!(retained_come(&mut session, &mut outside), 200, "again with every SUBSCRIBE");
        }
    }
    let mut session = session_with(Version::V5, local_rights());
    for (options, come) in [(ON_NEW, 200), (ON_NEW, 0), (NEVER, 0), (0, 200)] {
        receive(&mut session, &subscribe(Version::V5, "plant/#", 1 | options), &mut outside);
        assert_eq!(retained_come(&mut session, &mut outside), come, "{options:#b}");
    }
    receive(&mut session, &packet(0xa2, b"\0\x05\0\0\x07plant/#"), &mut outside);
    receive(&mut session, &subscribe(Version::V5, "plant/#", 1 | NEVER), &mut outside);
    assert_eq!(retained_come(&mut session, &mut outside), 0);
}

#[test]
fn what_is_too_long_for_a_client_is_not_sent() {
    let (mut session, mut outside) = (session_with(Version::V5, local_rights()), recorder());
    receive(&mut session, &subscribe(Version::V5, "plant/#", 1), &mut outside);
    session.out.clear();
    session.deliver(&delivery(&message("plant/a", &[0; 600])));
    assert!(session.out.is_empty() && session.sent.is_empty());
}
