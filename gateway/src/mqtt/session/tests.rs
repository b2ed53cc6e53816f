//! What a session does with bytes, given as bytes: no socket, no disk, tickets are numbers.

use proptest::prelude::{any, prop, proptest};
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Packet, Protocol, PubAckReason};
use weir_contract::time;
use weir_contract::uplink::{self, Event, Header};

use super::*;
use crate::mqtt::local::{Limits as LocalLimits, Local};
use crate::mqtt::topics::Rights;

mod subscribers;

/// Takes `room` more uplinks, and remembers everything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Recorder {
    room: usize,
    ticket: u64,
    taken: Vec<(String, Vec<u8>)>,
    published: Vec<(String, Vec<u8>, u8, bool)>,
    subscribed: Vec<String>,
    refused: Vec<(String, Reason)>,
    wants_events: bool,
    listening: Vec<Option<Id>>,
    /// Topics with a retained message.
    retained: Vec<String>,
    clock_is_unset: bool,
}

impl Outside for Recorder {
    type Ticket = u64;

    fn offer(&mut self, bytes: &[u8], uplinks: &[Uplink], mut taken: impl FnMut(&Uplink, u64)) -> usize {
        let count = uplinks.len().min(self.room);
        self.room -= count;
        for uplink in &uplinks[..count] {
            self.taken.push((uplink.device.to_string(), bytes[uplink.payload.clone()].to_vec()));
            taken(uplink, self.ticket);
        }
        count
    }
    fn wants_events(&self) -> bool {
        self.wants_events
    }
    fn publish(&mut self, message: &Message<'_>) -> Result<(), Reason> {
        self.published.push((message.topic.into(), message.payload.into(), message.qos, message.retain));
        Ok(())
    }
    fn subscribe(&mut self, filter: &str) -> Result<(), Reason> {
        self.subscribed.push(filter.into());
        Ok(())
    }
    fn unsubscribe(&mut self, filter: &str) {
        self.subscribed.retain(|subscribed| subscribed != filter);
    }
    fn retained(&self, filter: &str, after: &str) -> Page {
        let limits = LocalLimits { subscribers: 1, retained: 1000, retained_bytes: 1 << 20 };
        let local = Local::new([], limits);
        for topic in &self.retained {
            local.publish(&Message { retain: true, ..message(topic, b"kept") }).unwrap();
        }
        local.retained_page(filter, after)
    }
    fn listen(&mut self, device: &Id) {
        self.listening.push(Some(*device));
    }
    fn stop_listening(&mut self) {
        self.listening.push(None);
    }
    fn refused(&mut self, _: &Client, topic: &str, reason: Reason, _: &str, _: &[u8]) {
        self.refused.push((topic.into(), reason));
    }
    fn unix_ms(&self) -> Option<u64> {
        (!self.clock_is_unset).then_some(1_700_000_000_000)
    }
}

fn recorder() -> Recorder {
    Recorder { room: usize::MAX, ticket: 1, ..Recorder::default() }
}

const LIMITS: Limits = Limits { inflight: 10, payload_bytes: 1000, topic_bytes: 100, filters: 3 };

fn session_with(version: Version, rights: Rights) -> Session<u64> {
    let client = Client {
        name: "dev-1".into(),
        device: "dev-1".parse().ok(),
        gateway: None,
        rights: Some(std::sync::Arc::new(rights)),
    };
    let abilities = Abilities { version, receive_max: 5, packet_bytes_max: 500, wants_reasons: true };
    Session::new(client, abilities, LIMITS, 7)
}

fn session(version: Version) -> Session<u64> {
    session_with(version, Rights::default())
}

fn local_rights() -> Rights {
    Rights { publish: vec!["plant/#".into(), "$x/#".into()], subscribe: vec!["plant/#".into()] }
}

fn uplink_payload(seq: u32) -> Vec<u8> {
    let event = Event { seq, at: 5, kind: "reading-taken".parse().unwrap(), version: 1, body: &[0xa0] };
    let header = Header { boot: 1, now: Some(9), epoch: None, via: None };
    let mut bytes = [0; 200];
    let len = uplink::write(&mut bytes, &header, [event].into_iter()).unwrap();
    bytes[..len].to_vec()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    let mut packet = vec![head, u8::try_from(body.len()).unwrap()];
    packet.extend_from_slice(body);
    packet
}

fn publish(version: Version, qos: u8, packet_id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | (qos << 1), &body)
}

fn uplink(version: Version, packet_id: u16) -> Vec<u8> {
    publish(version, 1, packet_id, "weir/1/dev-1/events", &uplink_payload(u32::from(packet_id)))
}

fn subscribe(version: Version, filter: &str, options: u8) -> Vec<u8> {
    let mut body = vec![0, 9];
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(&u16::try_from(filter.len()).unwrap().to_be_bytes());
    body.extend_from_slice(filter.as_bytes());
    body.push(options);
    packet(0x82, &body)
}

fn receive(session: &mut Session<u64>, bytes: &[u8], outside: &mut Recorder) -> (usize, Progress) {
    session.receive(bytes, &mut Vec::new(), outside)
}

const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: [u8; 2] = [0xd0, 0];

#[test]
fn an_uplink_is_acknowledged_when_it_is_stored_and_not_before() {
    for version in [Version::V4, Version::V5] {
        let (mut session, mut outside) = (session(version), recorder());
        outside.ticket = 8;
        let bytes = uplink(version, 3);
        assert_eq!(receive(&mut session, &bytes, &mut outside), (bytes.len(), Progress::Read));
        assert_eq!(outside.taken, [("dev-1".to_owned(), uplink_payload(3))]);
        session.acknowledge(7);
        assert!(session.out.is_empty() && session.awaits_storage());
        session.acknowledge(8);
        assert_eq!(session.out, [0x40, 2, 0, 3]);
        assert!(!session.awaits_storage());
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_their_publishes() {
    let (mut session, mut outside) = (session(Version::V5), recorder());
    let refused = publish(Version::V5, 1, 2, "weir/1/dev-1/events", b"no cbor");
    let bytes = [uplink(Version::V5, 1), refused, uplink(Version::V5, 3)].concat();
    receive(&mut session, &bytes, &mut outside);
    session.acknowledge(0);
    assert!(session.out.is_empty(), "the refusal waits for what came before it");
    session.acknowledge(1);
    let mut out = session.out.as_slice().into();
    let mut ids = Vec::new();
    while let Ok(Packet::PubAck(ack, _)) = V5.read_mut(&mut out, 1000) {
        ids.push((ack.pkid, ack.reason));
    }
    use PubAckReason::{PayloadFormatInvalid, Success};
    assert_eq!(ids, [(1, Success), (2, PayloadFormatInvalid), (3, Success)]);
    assert_eq!(outside.refused, [("weir/1/dev-1/events".to_owned(), Reason::PayloadFormatInvalid)]);
}

#[test]
fn qos_0_is_taken_without_a_promise() {
    let (mut session, mut outside) = (session(Version::V4), recorder());
    let bytes = publish(Version::V4, 0, 0, "weir/1/dev-1/events", &uplink_payload(1));
    receive(&mut session, &bytes, &mut outside);
    assert_eq!(outside.taken.len(), 1);
    assert!(!session.awaits_storage());
}

#[test]
fn what_finds_no_room_stays_whole_and_in_order() {
    let (mut session, mut outside) = (session(Version::V4), recorder());
    outside.room = 1;
    let one = uplink(Version::V4, 1);
    let bytes = [one.clone(), uplink(Version::V4, 2), PINGREQ.to_vec(), uplink(Version::V4, 3)].concat();
    assert_eq!(receive(&mut session, &bytes, &mut outside), (one.len(), Progress::NoRoom));
    let mut held = bytes[one.len()..].to_vec();
    assert_eq!(session.answer_pings(&mut held), Ok(2));
    assert_eq!(session.out, PINGRESP);
    assert_eq!(session.answer_pings(&mut held), Ok(2));
    assert_eq!(session.out, PINGRESP, "a ping is answered once");
    outside.room = 2;
    assert_eq!(receive(&mut session, &held, &mut outside), (held.len(), Progress::Read));
    session.acknowledge(1);
    assert_eq!(session.out[2..], [0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3]);
}

#[test]
fn too_many_in_flight_wait_or_break_the_agreement() {
    let uplinks = |version| (1..=11).map(|packet_id| uplink(version, packet_id)).collect::<Vec<_>>().concat();
    let (mut session, mut outside) = (session(Version::V4), recorder());
    let bytes = uplinks(Version::V4);
    let (done, progress) = receive(&mut session, &bytes, &mut outside);
    assert_eq!((progress, outside.taken.len()), (Progress::TooManyInFlight, 10));
    session.acknowledge(1);
    assert_eq!(receive(&mut session, &bytes[done..], &mut outside), (bytes.len() - done, Progress::Read));
    let mut session = self::session(Version::V5);
    let (_, progress) = receive(&mut session, &uplinks(Version::V5), &mut outside);
    assert_eq!(progress, Progress::End(End::Closed(Reason::ReceiveMaximumExceeded)));

    // QoS 0 is not in flight, however much of it comes.
    let mut session = self::session(Version::V5);
    let mut bytes = Vec::new();
    for seq in 1..=3 * u32::from(LIMITS.inflight) {
        bytes.extend(publish(Version::V5, 0, 0, "weir/1/dev-1/events", &uplink_payload(seq)));
    }
    bytes.extend(publish(Version::V5, 1, 7, "weir/1/dev-1/events", &uplink_payload(1000)));
    let mut outside = recorder();
    let received = session.receive(&bytes, &mut Vec::new(), &mut outside);
    assert_eq!(received, (bytes.len(), Progress::Read));
    assert_eq!((outside.taken.len(), session.pending.len()), (3 * usize::from(LIMITS.inflight) + 1, 1));
}

#[test]
fn another_devices_events_are_refused() {
    let other = |version| publish(version, 1, 1, "weir/1/dev-2/events", &uplink_payload(1));
    let mut outside = recorder();
    let (_, progress) = receive(&mut session(Version::V4), &other(Version::V4), &mut outside);
    assert_eq!(progress, Progress::End(End::Closed(Reason::NotAuthorized)));
    let mut v5 = session(Version::V5);
    let (_, progress) = receive(&mut v5, &other(Version::V5), &mut outside);
    assert_eq!(progress, Progress::Read);
    v5.acknowledge(0);
    assert_eq!(v5.out[4], 0x87);
    assert!(outside.taken.is_empty());
    assert_eq!(outside.refused.len(), 2);
}

#[test]
fn a_bridge_may_publish_for_many_devices_if_the_configuration_says_so() {
    let rights = Rights { publish: vec!["weir/1/+/events".into()], subscribe: Vec::new() };
    let (mut session, mut outside) = (session_with(Version::V4, rights), recorder());
    let bytes = publish(Version::V4, 1, 1, "weir/1/dev-2/events", &uplink_payload(1));
    assert_eq!(receive(&mut session, &bytes, &mut outside).1, Progress::Read);
    assert_eq!(outside.taken[0].0, "dev-2");
}

#[test]
fn other_topics_go_to_local_subscribers() {
    let (mut session, mut outside) = (session_with(Version::V4, local_rights()), recorder());
    let bytes = [
        publish(Version::V4, 1, 1, "plant/pump", b"on"),
        publish(Version::V4, 1, 2, "$x/y", b""),
        publish(Version::V4, 0, 0, "plant/pump", &[0; 100]),
    ]
    .concat();
    assert_eq!(receive(&mut session, &bytes, &mut outside).1, Progress::Read);
    session.acknowledge(0);
    assert_eq!(session.out, [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    assert_eq!(outside.published[0], ("plant/pump".to_owned(), b"on".to_vec(), 1, false));
    assert_eq!((outside.published.len(), outside.refused[0].1), (2, Reason::TopicNameInvalid));
}

#[test]
fn events_are_shown_to_those_who_want_them() {
    let (mut session, mut outside) = (session(Version::V4), recorder());
    receive(&mut session, &uplink(Version::V4, 1), &mut outside);
    assert!(outside.published.is_empty());
    outside.wants_events = true;
    receive(&mut session, &uplink(Version::V4, 2), &mut outside);
    assert_eq!(outside.published, [("weir/1/dev-1/events".to_owned(), uplink_payload(2), 1, false)]);
}

#[test]
fn a_device_that_subscribes_to_time_is_told_the_time_after_the_suback() {
    for filter in ["weir/1/dev-1/time", "weir/1/dev-1/#"] {
        let (mut session, mut outside) = (session(Version::V4), recorder());
        receive(&mut session, &subscribe(Version::V4, filter, 1), &mut outside);
        assert_eq!(session.out[..5], [0x90, 3, 0, 9, 1]);
        let mut rest = session.out[5..].into();
        let Ok(Packet::Publish(publish, _)) = rumqttd::protocol::v4::V4.read_mut(&mut rest, 1000) else {
            panic!()
        };
        assert_eq!(publish.topic, "weir/1/dev-1/time".as_bytes());
        assert_eq!(time::Time::read(&publish.payload).unwrap().unix_ms, 1_700_000_000_000);
        assert!(outside.subscribed.is_empty(), "its own topics need no queue");
    }
}

#[test]
fn a_time_that_is_not_known_is_not_told_and_told_when_it_is() {
    let (mut session, mut outside) = (session(Version::V4), recorder());
    outside.clock_is_unset = true;
    receive(&mut session, &subscribe(Version::V4, "weir/1/dev-1/time", 0), &mut outside);
    assert_eq!(session.out, [0x90, 3, 0, 9, 0], "the answer, and nothing else");
    assert!(session.wants_time());
    session.out.clear();
    session.tell_time(5);
    assert_eq!(session.out, publish(Version::V4, 0, 0, "weir/1/dev-1/time", &[0x81, 5]));
}

#[test]
fn subscriptions_are_granted_by_rights_and_limits() {
    let cases = [
        ("weir/1/dev-2/time", 0x87),
        ("#", 0x87),
        ("plant/#", 1),
        ("plant/a", 1),
        ("$share/g/plant/a", 0x9e),
        ("plant/#/a", 0x8f),
        ("plant/b", 1),
        ("plant/c", 0x97),
        ("plant/a", 1),
    ];
    let (mut session, mut outside) = (session_with(Version::V5, local_rights()), recorder());
    for (filter, code) in cases {
        receive(&mut session, &subscribe(Version::V5, filter, 2), &mut outside);
        assert_eq!(session.out[..], [0x90, 4, 0, 9, 0, code], "{filter}");
        session.out.clear();
    }
    assert_eq!(outside.subscribed.len(), 3);
    receive(&mut session, &packet(0xa2, b"\0\x05\0\0\x07plant/a\0\x07plant/x"), &mut outside);
    assert_eq!(session.out, [0xb0, 5, 0, 5, 0, 0, 0x11]);
    assert_eq!(outside.subscribed.len(), 2);
}

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message { origin: 1, topic, payload, qos: 1, retain: false, properties: frame::Properties::default() }
}

#[test]
fn what_breaks_the_protocol_ends_the_session_with_its_reason() {
    let cases: [(Vec<u8>, Reason); 7] = [
        (publish(Version::V5, 2, 1, "plant/a", b""), Reason::QosNotSupported),
        (publish(Version::V5, 1, 1, "plant/+", b""), Reason::TopicNameInvalid),
        (publish(Version::V5, 1, 1, "", b""), Reason::TopicNameInvalid),
        (packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\0"), Reason::ProtocolError),
        (packet(0x62, &[0, 1]), Reason::ProtocolError),
        (packet(0x20, &[0, 0, 0]), Reason::ProtocolError),
        (packet(0x82, b"\0\x09\x02\x0b\x01\0\x07plant/a\x01"), Reason::SubscriptionIdentifiersNotSupported),
    ];
    for (bytes, reason) in cases {
        // What came before it is taken and acknowledged.
        let (mut session, mut outside) = (session_with(Version::V5, local_rights()), recorder());
        let bytes = [uplink(Version::V5, 1), bytes].concat();
        let (_, progress) = receive(&mut session, &bytes, &mut outside);
        assert_eq!(progress, Progress::End(End::Closed(reason)), "{bytes:02x?}");
        assert_eq!(outside.taken.len(), 1);
    }
}

#[test]
fn a_disconnect_says_whether_the_will_is_wanted() {
    let ends = |version, body: &[u8]| receive(&mut session(version), &packet(0xe0, body), &mut recorder()).1;
    assert_eq!(ends(Version::V4, &[]), Progress::End(End::Left { wants_will: false }));
    assert_eq!(ends(Version::V5, &[0x04]), Progress::End(End::Left { wants_will: true }));
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

    /// However a stream of packets is cut, and however little room there is, the same is taken, published, refused and
    /// answered.
    #[test]
    fn every_chunking_gives_the_same(
        kinds in prop::collection::vec(0..7_u8, 1..20),
        cuts in prop::collection::vec(1..60_usize, 1..30),
        rooms in prop::collection::vec(0..3_usize, 1..10),
        v5 in any::<bool>(),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut stream = Vec::new();
        for (index, kind) in kinds.iter().enumerate() {
            let packet_id = u16::try_from(index + 1).unwrap();
            stream.extend(match kind {
                0 | 1 => uplink(version, packet_id),
                2 => publish(version, 1, packet_id, "plant/a", b"x"),
                3 => publish(version, 1, packet_id, "weir/1/dev-1/events", b"x"),
                4 => subscribe(version, "plant/a", 0),
                5 => publish(version, 0, 0, "weir/1/dev-1/events", &uplink_payload(u32::from(packet_id))),
                _ => PINGREQ.to_vec(),
            });
        }
        let whole = {
            let (mut session, mut outside) = (session_with(version, local_rights()), recorder());
            session.limits.inflight = 100;
            assert_eq!(receive(&mut session, &stream, &mut outside).1, Progress::Read);
            session.acknowledge(1);
            (session.out, outside)
        };
        let (mut session, mut outside) = (session_with(version, local_rights()), recorder());
        session.limits.inflight = 100;
        outside.room = 0;
        let (mut held, mut at, mut rooms) = (Vec::new(), 0, rooms.iter().cycle());
        let mut idle = 0;
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(stream.len());
            held.extend_from_slice(&stream[at..end]);
            at = end;
            let (done, _) = receive(&mut session, &held, &mut outside);
            held.drain(..done);
            outside.room += rooms.next().unwrap();
            idle = if done == 0 && at == stream.len() { idle + 1 } else { 0 };
            if at == stream.len() && held.is_empty() {
                break;
            }
            if idle > 20 {
                outside.room += 1;
            }
        }
        session.acknowledge(1);
        let (out, expected) = whole;
        outside.room = expected.room;
        assert_eq!(outside, expected);
        // Pings are answered at once, acknowledgements when stored; so the order between them is free.
        let sorted = |out: &[u8]| {
            let mut packets = Vec::new();
            let mut bytes = out.into();
            while let Ok(packet) = V5.read_mut(&mut bytes, 1000) {
                packets.push(format!("{packet:?}"));
            }
            packets.sort();
            packets
        };
        if v5 {
            assert_eq!(sorted(&session.out), sorted(&out));
        }
        assert_eq!(session.out.len(), out.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut session = session_with(version, local_rights());
        receive(&mut session, &bytes, &mut recorder());
        let mut held = bytes;
        let _ = session.answer_pings(&mut held);
    }

    #[test]
    fn spoilt_packets_never_panic(
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        v5 in any::<bool>(),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut bytes = [
            uplink(version, 1), subscribe(version, "plant/#", 1), publish(version, 1, 2, "plant/a", b"x"),
            packet(0xa2, b"\0\x05\0\0\x07plant/a"), PINGREQ.to_vec(),
        ].concat();
        for (index, byte) in spoilt {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        receive(&mut session_with(version, local_rights()), &bytes, &mut recorder());
    }
}

#[test]
fn commands_go_to_the_device_that_asked_for_them_one_at_a_time() {
    for version in [Version::V4, Version::V5] {
        let (mut session, mut outside) = (session(version), recorder());
        receive(&mut session, &subscribe(version, "weir/1/dev-1/commands", 1), &mut outside);
        assert_eq!(outside.listening, ["dev-1".parse().ok()]);
        assert!(outside.subscribed.is_empty(), "no queue has to be read");
        session.out.clear();
        session.command(b"do it");
        let sent = publish(version, 1, 0x8000, "weir/1/dev-1/commands", b"do it");
        assert_eq!(session.out, sent);
        assert!(!session.can_command(), "it is not acknowledged");
        receive(&mut session, &packet(0x40, &0x8000_u16.to_be_bytes()), &mut outside);
        assert!(session.can_command());
        let mut filter = vec![0, 9];
        if version == Version::V5 {
            filter.push(0);
        }
        filter.extend_from_slice(&[0, 21]);
        filter.extend_from_slice(b"weir/1/dev-1/commands");
        receive(&mut session, &packet(0xa2, &filter), &mut outside);
        assert_eq!(outside.listening.last(), Some(&None));
    }
}

#[test]
fn commands_are_for_those_who_subscribe_to_them() {
    let (mut session, mut outside) = (session(Version::V5), recorder());
    receive(&mut session, &subscribe(Version::V5, "weir/1/dev-1/time", 1), &mut outside);
    assert!(outside.listening.is_empty());
    session.out.clear();
    session.command(b"do it");
    assert!(session.out.is_empty());
    receive(&mut session, &subscribe(Version::V5, "weir/1/dev-1/+", 0), &mut outside);
    assert_eq!(outside.listening.len(), 1);
    session.out.clear();
    session.command(b"do it");
    assert_eq!(session.out, publish(Version::V5, 0, 0, "weir/1/dev-1/commands", b"do it"));
    assert!(session.can_command(), "nothing is acknowledged of QoS 0");
}
