//! Names, topics and subjects: what they may be, and that nothing else passes for one.

use std::collections::BTreeMap;

use weir_contract::subject::{self, Source, Target};
use weir_contract::topic::{self, Topic};
use weir_contract::{Id, Kind};

fn id(text: &str) -> Id {
    text.parse().expect("an id")
}

#[test]
fn ids_hold_nothing_that_is_a_wildcard_or_separator() {
    for text in ["a", "Z", "0", "_", "-", "pump-7", "Hall_2", &"x".repeat(32)] {
        assert_eq!(text.parse::<Id>().map(|id| id.to_string()), Ok(text.to_owned()));
    }
    let too_long = "x".repeat(33);
    for text in ["", &too_long, "a/b", "a.b", "a b", "+", "#", "*", ">", "$SYS", "é", "a\0", "a\n"] {
        let refusal = text.parse::<Id>().expect_err(text);
        assert_eq!(refusal.to_string(), "a name is 1 to 32 of A-Z a-z 0-9 _ -");
    }
}

#[test]
fn kinds_are_ids_in_small_letters() {
    for text in ["a", "0", "-", "reading-taken", &"x".repeat(32)] {
        assert_eq!(text.parse::<Kind>().map(|kind| kind.to_string()), Ok(text.to_owned()));
    }
    let too_long = "x".repeat(33);
    for text in ["", &too_long, "Reading", "a_b", "a/b", "a.b", "a b", "é"] {
        let refusal = text.parse::<Kind>().expect_err(text);
        assert_eq!(refusal.to_string(), "a kind is 1 to 32 of a-z 0-9 -");
    }
}

#[test]
fn every_other_byte_is_refused() {
    for byte in 0..=127_u8 {
        let text = String::from(char::from(byte));
        let allowed = byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        assert_eq!(text.parse::<Id>().is_ok(), allowed, "{text:?}");
        let allowed = byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert_eq!(text.parse::<Kind>().is_ok(), allowed, "{text:?}");
    }
}

#[test]
fn maps_keyed_by_names_are_asked_with_plain_text() {
    let mut devices = BTreeMap::from([(id("pump-7"), 7), (id("pump-10"), 10), (id("Pump"), 0)]);
    assert_eq!(devices.get("pump-7"), Some(&7));
    assert_eq!(devices.remove("pump-8"), None);
    let order: Vec<_> = devices.keys().map(Id::as_str).collect();
    assert_eq!(order, ["Pump", "pump-10", "pump-7"], "the order of the texts");
    assert_eq!(format!("{:>8}|{:?}", id("a"), id("a")), "       a|\"a\"");
}

#[test]
fn topics_are_written_and_read() {
    let device = id("pump-7");
    for (topic, text) in [
        (Topic::Events(device), topic::events(&device)),
        (Topic::Time(device), topic::time(&device)),
        (Topic::Commands(device), topic::commands(&device)),
    ] {
        assert_eq!(Topic::parse(&text), Some(topic));
        assert_eq!(topic.device(), device);
    }
    assert_eq!(&*topic::events(&device), "weir/1/pump-7/events");
    assert_eq!(&*topic::time(&device), "weir/1/pump-7/time");
    assert_eq!(&*topic::commands(&device), "weir/1/pump-7/commands");
}

#[test]
fn other_topics_and_filters_are_none_of_ours() {
    for text in [
        "",
        "weir",
        "weir/1",
        "weir/1/",
        "weir/1/pump-7",
        "weir/1//events",
        "weir/1/pump-7/",
        "weir/1/pump-7/event",
        "weir/1/pump-7/events/",
        "weir/1/pump-7/events/x",
        "/weir/1/pump-7/events",
        "weir/2/pump-7/events",
        "Weir/1/pump-7/events",
        "weir/1/+/events",
        "weir/1/pump-7/+",
        "weir/1/pump-7/#",
        "weir/1/#",
        "#",
        "weir/1/pump.7/events",
        "$SYS/weir/1/pump-7/events",
    ] {
        assert_eq!(Topic::parse(text), None, "{text}");
    }
}

#[test]
fn subjects_are_written_and_read() {
    let source = Source { site: id("hall"), gateway: id("gw-1"), lane: id("main") };
    let text = subject::segments(&source);
    assert_eq!(&*text, "weir.1.segments.hall.gw-1.main");
    assert_eq!(subject::parse_segments(&text), Some(source));
    let target = Target { site: source.site, gateway: source.gateway, device: id("pump-7") };
    let commands = subject::commands(&target.site, &target.gateway, &target.device);
    assert_eq!(&*commands, "weir.1.commands.hall.gw-1.pump-7");
    assert_eq!(subject::parse_commands(&commands), Some(target));
    assert_eq!(&*subject::commands_of_gateway(&target.site, &target.gateway), "weir.1.commands.hall.gw-1.*");
    assert!(subject::STREAM_SUBJECTS.strip_suffix('>').is_some_and(|prefix| text.starts_with(prefix)));
}

#[test]
fn other_subjects_are_none_of_ours() {
    for text in [
        "",
        "weir.1.segments",
        "weir.1.segments.",
        "weir.1.segments.hall.gw-1",
        "weir.1.segments.hall.gw-1.",
        "weir.1.segments.hall.gw-1.main.",
        "weir.1.segments.hall.gw-1.main.x",
        "weir.1.segments.hall..main",
        "weir.1.segments.hall.*.main",
        "weir.1.segments.>",
        "weir.1.commands.hall.gw-1.main",
        "weir.2.segments.hall.gw-1.main",
        "weir.1.segments.hall.gw 1.main",
    ] {
        assert_eq!(subject::parse_segments(text), None, "{text}");
        let commands = text.replace("commands", "others").replace("segments", "commands");
        assert!(text.contains("commands") || subject::parse_commands(&commands).is_none(), "{commands}");
    }
}
