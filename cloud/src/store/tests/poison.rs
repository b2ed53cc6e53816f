//! What cannot be read is kept with the reason, and everything else flows on.

use weir_contract::uplink::Event;

use super::*;
use crate::store::types::DeadLetter;

fn letters(fixture: &Fixture) -> Vec<DeadLetter> {
    fixture.reader().dead_letters(None, 100).expect("reads").dead_letters
}

#[test]
fn a_message_that_is_no_segment_becomes_a_dead_letter() {
    let mut fixture = Fixture::new();
    let mut elsewhere = segment(3, "gw", 1, &[readings("d", 7, 9, 1)]);
    elsewhere.subject = "weir.1.segments.too.many.parts.here".into();
    let mut unreadable = segment(4, "gw", 1, &[]);
    unreadable.content =
        Content::Unreadable { reason: "no zstd frame".into(), bytes: Bytes::from_static(b"???") };
    fixture.fold(&[
        message(1, "gw", b"not CBOR".to_vec()),
        segment(2, "gw", 1, &[readings("d", 7, 1, 2)]),
        elsewhere,
        unreadable,
        segment(5, "gw", u64::MAX, &[readings("d", 7, 8, 1)]),
        segment(6, "gw", 2, &[readings("d", 7, 3, 2)]),
    ]);
    assert_eq!(fixture.history("d").len(), 4);
    let letters = letters(&fixture);
    let sequences: Vec<u64> = letters.iter().map(|letter| letter.stream_sequence).collect();
    assert_eq!(sequences, [1, 3, 4, 5]);
    assert_eq!(
        (letters[0].bytes.as_slice(), letters[0].subject.as_str()),
        (&b"not CBOR"[..], "weir.1.segments.plant.gw.main")
    );
    assert_eq!((letters[2].reason.as_str(), letters[2].bytes.as_slice()), ("no zstd frame", &b"???"[..]));
    assert_eq!(fixture.store.position().map(|position| position.stream_sequence), Some(6));
    assert_eq!(fixture.reader().status().expect("reads").dead_letters, 4);
}

#[test]
fn an_uplink_that_cannot_be_read_leaves_its_neighbours_alone() {
    let mut fixture = Fixture::new();
    let poison = Entry { device: id("bad"), received_ms: T0, payload: vec![0xff, 1, 2] };
    let entries = [readings("d", 7, 1, 1), poison, readings("d", 7, 2, 1)];
    assert_eq!(fixture.fold(&[segment(1, "gw", 5, &entries)]).dead_letters, 1);
    assert_eq!(fixture.history("d").len(), 2);
    let told = letters(&fixture);
    assert_eq!((told[0].number, told[0].device, told[0].event), (Some(6), Some(id("bad")), None));
    assert_eq!(told[0].bytes, [0xff, 1, 2]);

    // The gateway sends the same again: one dead letter is enough.
    assert_eq!(fixture.fold(&[segment(2, "gw", 5, &entries)]).dead_letters, 0);
    assert_eq!(letters(&fixture).len(), 1);
}

#[test]
fn a_body_of_a_known_kind_that_does_not_fit_stays_in_history_and_changes_no_state() {
    let mut fixture = Fixture::new();
    let kind = |name: &str| name.parse().expect("a kind");
    let no_sensor = [0xa1, 0x65, b'v', b'a', b'l', b'u', b'e', 1];
    let events = [
        Event { seq: 1, at: 1, kind: kind("reading-taken"), version: 1, body: &no_sensor },
        Event { seq: 2, at: 2, kind: kind("reading-taken"), version: 9, body: &no_sensor },
        Event { seq: 3, at: 3, kind: kind("never-heard-of"), version: 1, body: &[0xa0] },
    ];
    let mut payload = vec![0; 1000];
    let len = uplink::write(&mut payload, &known(7, T0), events.into_iter()).expect("fits");
    payload.truncate(len);
    fixture.fold(&[segment(1, "gw", 1, &[Entry { device: id("d"), received_ms: T0, payload }])]);

    let history = fixture.history("d");
    assert_eq!(
        history.iter().map(|event| (event.seq, event.version)).collect::<Vec<_>>(),
        [(1, 1), (2, 9), (3, 1)]
    );
    assert_eq!(history[0].body, no_sensor);
    assert_eq!(history[2].kind, kind("never-heard-of"));
    let letters = letters(&fixture);
    assert_eq!(letters.len(), 1, "an unknown version and an unknown kind are no defects: {letters:?}");
    assert_eq!((letters[0].event, letters[0].bytes.as_slice()), (Some((7, 1)), &no_sensor[..]));
    assert!(fixture.reader().state(&id("d"), None).expect("reads").expect("is there").sensors.is_empty());
}

#[test]
fn only_a_gateway_speaks_of_other_devices() {
    let mut fixture = Fixture::new();
    let lie = |said| entry("liar", T0, known(1, T0), 1, &[(1, said)]);
    let device = id("victim");
    let lies = [
        Body::EventsLost { device: Some(device), boot: 7, from: 1, to: 9, reason: Text::from("ha") },
        Body::DeviceDisconnected { device, reason: Text::from("ha") },
        Body::DeviceConnected { device: id("liar"), address: Text::from("ha") },
        Body::CommandExpired { device, id: Text::from("c") },
        Body::EventsLost { device: None, boot: 1, from: 1, to: 9, reason: Text::from("itself") },
    ];
    for (number, said) in (1..).zip(lies) {
        let folded = fixture.fold(&[segment(
            number,
            "gw",
            number,
            &[Entry { device: id(&format!("liar-{number}")), ..lie(said) }],
        )]);
        assert_eq!((folded.events, folded.dead_letters), (1, 1), "{said:?}");
    }
    assert_eq!(fixture.reader().state(&id("victim"), None).expect("reads"), None);
    assert_eq!(
        fixture.reader().state(&id("liar-5"), None).expect("reads").expect("is there").account.lost,
        0
    );
}

#[test]
fn dead_letters_come_in_pages() {
    let mut fixture = Fixture::new();
    for sequence in 1..=5 {
        fixture.fold(&[message(sequence, "gw", vec![0xff])]);
    }
    let mut after = None;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let page = fixture.reader().dead_letters(after, 2).expect("reads");
        seen.extend(page.dead_letters.iter().map(|letter| letter.stream_sequence));
        after = page.next;
    }
    assert_eq!((seen.as_slice(), after), (&[1, 2, 3, 4, 5][..], None));
}
