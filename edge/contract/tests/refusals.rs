//! Every wrong shape is refused, and the refusal says what is wrong and where.

use ciborium::Value;
use weir_contract::body::{self, Body};
use weir_contract::command::Command;
use weir_contract::segment::Segment;
use weir_contract::time::Time;
use weir_contract::uplink::Uplink;
use weir_contract::{Malformed, NESTING_MAX, What};

use crate::support::corpus::{self, hex};
use crate::support::{cbor, value};

/// What reading `bytes` as `rule` comes to.
fn refusal(rule: &str, bytes: &[u8]) -> Option<Malformed> {
    match rule {
        "uplink" => Uplink::read(bytes).err(),
        "segment" => Segment::read(bytes).err(),
        "command" => Command::read(bytes).err(),
        "time" => Time::read(bytes).err(),
        kind => {
            let kind = kind.parse().expect("a kind");
            Body::read(&kind, body::VERSION, bytes)
                .map(|body| assert!(body.is_some(), "{kind} is known"))
                .err()
        }
    }
}

fn refused(rule: &str, bytes: &[u8]) -> Malformed {
    refusal(rule, bytes).unwrap_or_else(|| panic!("{rule} accepts {bytes:02x?}"))
}

fn all_frozen() -> impl Iterator<Item = (String, Vec<u8>)> {
    let others = corpus::names("also-read").into_iter().map(|name| format!("also-read/{name}"));
    corpus::names("").into_iter().chain(others).map(|name| {
        let bytes = corpus::bytes(&name);
        (rule_of(&name).to_owned(), bytes)
    })
}

fn rule_of(name: &str) -> &str {
    name.trim_start_matches("also-read/").split_once('/').expect("rule/case").0
}

#[test]
fn what_ends_early_is_truncated_wherever_it_ends() {
    for (rule, bytes) in all_frozen() {
        for end in 0..bytes.len() {
            let refusal = refused(&rule, &bytes[..end]);
            assert_eq!(refusal.what, What::Truncated, "{rule} after {end} bytes of {bytes:02x?}");
            assert!(refusal.at <= end);
        }
    }
}

#[test]
fn what_goes_on_after_its_end_is_refused_there() {
    for (rule, mut bytes) in all_frozen() {
        let at = bytes.len();
        bytes.push(0);
        assert_eq!(refused(&rule, &bytes), Malformed { at, what: What::TrailingBytes }, "{rule}");
    }
}

/// One value of each sort that CBOR knows.
#[rustfmt::skip] // a table
fn sorts() -> [(&'static str, Value); 10] {
    [
        ("unsigned", Value::from(7)), ("negative", Value::from(-7)), ("float", Value::Float(7.5)),
        ("bytes", Value::Bytes(vec![7])), ("text", Value::from("seven")), ("bool", Value::Bool(true)),
        ("null", Value::Null), ("array", Value::Array(vec![])), ("map", Value::Map(vec![])),
        ("tagged", Value::Tag(1, Box::new(Value::from(7)))),
    ]
}

const ANY: &str = "unsigned negative float bytes text bool null array map tagged";

/// Puts every sort of value in the place of each of `fields` in an array (name and the sorts it may have), and leaves
/// each away. `around` makes the message from the array and says how many bytes stand before it.
fn check_array(
    rule: &str,
    array: &Value,
    fields: &[(&'static str, &str)],
    around: impl Fn(Value) -> (Value, usize),
) {
    let items = array.as_array().expect("an array");
    let before = |index: usize| 1 + items[..index].iter().map(|item| cbor(item).len()).sum::<usize>();
    for (index, &(field, allowed)) in fields.iter().enumerate() {
        for (sort, wrong) in sorts() {
            let mut items = items.clone();
            items[index] = wrong;
            let (message, start) = around(Value::Array(items));
            match refusal(rule, &cbor(&message)) {
                None => assert!(allowed.contains(sort), "{rule} accepts {field} that is {sort}"),
                Some(_) if allowed.contains(sort) => {}
                Some(refusal) => assert_names(refusal, start + before(index), field, sort),
            }
        }
        let (message, start) = around(Value::Array(items[..index].to_vec()));
        let missing = Malformed { at: start + before(index), what: What::Missing(field) };
        assert_eq!(refused(rule, &cbor(&message)), missing, "{rule} without {field}");
    }
}

fn assert_names(refusal: Malformed, at: usize, field: &str, sort: &str) {
    let Malformed { what: What::Expected(expected), .. } = refusal else {
        panic!("{field} that is {sort}: {refusal}")
    };
    assert_eq!(refusal.at, at, "{field} that is {sort}: {refusal}");
    assert!(expected.starts_with(&format!("{field}: ")), "{field} that is {sort}: {refusal}");
}

fn itself(value: Value) -> (Value, usize) {
    (value, 0)
}

#[test]
fn fields_of_an_uplink_of_the_wrong_type_or_missing_are_refused_by_name() {
    let uplink = value(&corpus::bytes("uplink/earlier-boot-epoch-via"));
    let fields = [
        ("boot", "unsigned"),
        ("now", "unsigned null"),
        ("epoch", "unsigned null"),
        ("events", "nothing but events"),
    ];
    check_array("uplink", &uplink, &fields, |value| match value {
        // An empty array has the right type; its refusal is another.
        Value::Array(mut items) if items.get(3) == Some(&Value::Array(vec![])) => {
            items[3] = Value::Null;
            (Value::Array(items), 0)
        }
        other => (other, 0),
    });
    let with_via = |via: Value| {
        let Value::Array(mut items) = uplink.clone() else { panic!("an array") };
        items[4] = via;
        cbor(&Value::Array(items))
    };
    let at = with_via(Value::Null).len() - 1;
    for (sort, wrong) in sorts().into_iter().filter(|(sort, _)| *sort != "unsigned") {
        assert_names(refused("uplink", &with_via(wrong)), at, "via", sort);
    }
}

#[test]
fn fields_of_an_event_of_the_wrong_type_or_missing_are_refused_by_name() {
    let uplink = value(&corpus::bytes("uplink/earlier-boot-epoch-via"));
    let items = uplink.as_array().expect("an array");
    let start = 2 + items[..3].iter().map(|item| cbor(item).len()).sum::<usize>();
    let event = &items[3].as_array().expect("events")[0];
    let fields =
        [("seq", "unsigned"), ("at", "unsigned"), ("kind", "text"), ("version", "unsigned"), ("body", "map")];
    check_array("uplink", event, &fields, |event| {
        let mut items = items.clone();
        items[3] = Value::Array(vec![event]);
        (Value::Array(items), start)
    });
}

#[test]
fn fields_of_a_segment_of_the_wrong_type_or_missing_are_refused_by_name() {
    let segment = value(&corpus::bytes("segment/one-traced"));
    let items = segment.as_array().expect("an array");
    let fields = [("incarnation", "unsigned"), ("first", "unsigned")];
    check_array("segment", &segment, &fields, itself);

    let start = 1 + cbor(&items[0]).len() + cbor(&items[1]).len() + 1;
    let entry = &items[2].as_array().expect("uplinks")[0];
    let fields =
        [("device", "text"), ("received", "unsigned"), ("traceparent", "bytes null"), ("payload", "bytes")];
    check_array("segment", entry, &fields, |entry| {
        (Value::Array(vec![items[0].clone(), items[1].clone(), Value::Array(vec![entry])]), start)
    });
}

#[test]
fn fields_of_commands_and_times_of_the_wrong_type_or_missing_are_refused_by_name() {
    let command = value(&corpus::bytes("command/with-args"));
    let fields = [("id", "text"), ("name", "text"), ("deadline", "unsigned"), ("args", ANY)];
    check_array("command", &command, &fields, itself);
    check_array("time", &value(&corpus::bytes("time/now")), &[("unix_ms", "unsigned")], itself);
}

#[test]
#[rustfmt::skip] // a table
fn fields_of_bodies_of_the_wrong_type_or_missing_are_refused_by_name() {
    let number = "unsigned negative float";
    let integer = "unsigned negative";
    for (name, required, optional) in [
        ("device-started/power-on", vec![("fw", "text"), ("hw", "text"), ("reason", "text")], vec![]),
        ("reading-taken/half", vec![("sensor", "text"), ("value", "unsigned negative float bool text")], vec![("unit", "text")]),
        ("limit-crossed/rising", vec![("sensor", "text"), ("value", number), ("limit", number), ("rising", "bool")], vec![]),
        ("events-lost/of-a-gateway", vec![("boot", "unsigned"), ("from", "unsigned"), ("to", "unsigned"), ("reason", "text")], vec![("device", "text")]),
        ("command-accepted/plain", vec![("id", "text")], vec![]),
        ("command-completed/with-result", vec![("id", "text")], vec![("result", ANY)]),
        ("command-failed/with-both", vec![("id", "text")], vec![("reason", "text"), ("result", ANY)]),
        ("command-expired/by-gateway", vec![("device", "text"), ("id", "text")], vec![]),
        ("command-refused/too-many", vec![("device", "text"), ("reason", "text")], vec![("id", "text")]),
        ("config-applied/first", vec![("revision", "unsigned"), ("config", ANY)], vec![]),
        ("device-connected/over-ip6", vec![("device", "text"), ("address", "text")], vec![]),
        ("device-disconnected/keep-alive", vec![("device", "text"), ("reason", "text")], vec![]),
        ("clock-stepped/forwards", vec![("by_ms", integer)], vec![]),
    ] {
        check_body(name, &required, &optional);
    }
}

fn check_body(name: &str, required: &[(&'static str, &str)], optional: &[(&'static str, &str)]) {
    let rule = rule_of(name);
    let Value::Map(entries) = value(&corpus::bytes(name)) else { panic!("a body is a map") };
    assert_eq!(entries.len(), required.len() + optional.len(), "{name} has every field");
    for (index, (key, _)) in entries.iter().enumerate() {
        let key = key.as_text().expect("a text key");
        let mut fields = required.iter().chain(optional);
        let &(key, allowed) = fields.find(|(field, _)| *field == key).expect("a field");
        let before = entries[..index].iter().map(|(key, value)| cbor(key).len() + cbor(value).len());
        let at = 1 + before.sum::<usize>() + cbor(&Value::from(key)).len();
        for (sort, wrong) in sorts() {
            let mut entries = entries.clone();
            entries[index].1 = wrong;
            match refusal(rule, &cbor(&Value::Map(entries))) {
                None => assert!(allowed.contains(sort), "{rule} accepts {key} that is {sort}"),
                // 7 may be out of the range that another field sets.
                Some(_) if allowed.contains(sort) => {}
                Some(refusal) => assert_names(refusal, at, key, sort),
            }
        }
        let mut without = entries.clone();
        without.remove(index);
        let bytes = cbor(&Value::Map(without));
        let missing = Malformed { at: bytes.len(), what: What::Missing(key) };
        let expected = required.iter().any(|(field, _)| *field == key).then_some(missing);
        assert_eq!(refusal(rule, &bytes), expected, "{rule} without {key}");
    }
}

#[test]
#[rustfmt::skip] // a table
fn wrong_values_of_the_right_type_are_refused() {
    use What::{Expected, NoEvents, NotConsecutive, NotWellFormed, TooDeep, Truncated};
    let deep = |levels: usize| format!("8401f6f68185010061 6101 a16161{}00", "81".repeat(levels));
    for (rule, bytes, at, what) in [
        // Not of CBOR at all.
        ("uplink", "", 0, Truncated),
        ("uplink", "1c", 0, NotWellFormed),
        ("uplink", "ff", 0, NotWellFormed),
        ("uplink", "841e", 1, NotWellFormed),
        ("uplink", "8401f6f681850100 62c328 01a0", 8, NotWellFormed),
        ("uplink", "8401f6f681850100 7f6161 01 ff 01a0", 8, NotWellFormed),
        ("uplink", "8401f6f681850100616101 a1 6161 f801", 14, NotWellFormed),
        ("uplink", "8401f6f681850100616101 a1 6161 ff", 14, NotWellFormed),
        ("uplink", "8401f6f681850100616101 bf 6161 ff", 14, NotWellFormed),
        ("uplink", "9b ffffffffffffffff 01", 10, Truncated),
        ("reading-taken", "a1 62c328 00", 1, NotWellFormed),
        ("reading-taken", "a1 6178 7f 41 00 ff", 3, NotWellFormed),
        // Uplinks.
        ("uplink", "00", 0, Expected("an uplink: an array")),
        ("uplink", "8401f6f680", 5, NoEvents),
        ("uplink", "8401f6f69fff", 6, NoEvents),
        ("uplink", "8401f6f68100", 5, Expected("an event: an array")),
        ("uplink", "8401f6f681 85 00 00616101a0", 6, Expected("seq: 1 or more")),
        ("uplink", "8401f6f681 85 1b0000000100000000 00616101a0", 6, Expected("seq: an unsigned integer below 2^32")),
        ("uplink", "8401f6f681850100 60 01a0", 8, Expected("kind: 1 to 32 of a-z 0-9 -")),
        ("uplink", "8401f6f681850100 6141 01a0", 8, Expected("kind: 1 to 32 of a-z 0-9 -")),
        ("uplink", "8401f6f681850100 62612f 01a0", 8, Expected("kind: 1 to 32 of a-z 0-9 -")),
        ("uplink", "8401f6f681850100 7821616161616161616161616161616161616161616161616161616161616161616161 01a0", 8, Expected("kind: 1 to 32 of a-z 0-9 -")),
        ("uplink", "8401f6f6818501006161 00 a0", 10, Expected("version: 1 or more")),
        ("uplink", "8401f6f6818501006161 1a00010000 a0", 10, Expected("version: an unsigned integer below 2^16")),
        ("uplink", "8401f6f681850100616101 a10000", 12, Expected("body: text keys")),
        ("uplink", "8401f6f682 850100616101a0 850300616101a0", 12, NotConsecutive { expected: 2 }),
        ("uplink", "8401f6f682 850200616101a0 850200616101a0", 12, NotConsecutive { expected: 3 }),
        ("uplink", "8401f6f682 850200616101a0 850100616101a0", 12, NotConsecutive { expected: 3 }),
        ("uplink", "8401f6f682 851affffffff00616101a0 850100616101a0", 16, Expected("no seq after the greatest one")),
        ("uplink", &deep(NESTING_MAX), 14 + NESTING_MAX - 1, TooDeep),
        // Bodies.
        ("reading-taken", "80", 0, Expected("body: a map")),
        ("reading-taken", "a10000", 1, Expected("body: text keys")),
        ("reading-taken", "a2 6673656e736f72 63612f62 6576616c7565 01", 8, Expected("sensor: 1 to 32 of A-Z a-z 0-9 _ -")),
        ("events-lost", "a464626f6f74016466726f6d 00 62746f01 66726561736f6e6178", 12, Expected("from: 1 or more")),
        ("events-lost", "a464626f6f74016466726f6d 02 62746f 01 66726561736f6e6178", 16, Expected("to: not less than from")),
        ("clock-stepped", "a1 6562795f6d73 1b8000000000000000", 7, Expected("by_ms: an integer of 64 bits")),
        // Segments.
        ("segment", "830100818461 64 01f640", 2, Expected("first: 1 or more")),
        ("segment", "83010180", 4, What::Missing("an uplink")),
        ("segment", "8301 1bffffffffffffffff 81 8461 64 01f640", 2, Expected("first: numbers that end below 2^64")),
        ("segment", "83010181 84 63612e62 01f640", 5, Expected("device: 1 to 32 of A-Z a-z 0-9 _ -")),
    ] {
        let bytes = hex(&bytes.replace(' ', ""));
        assert_eq!(refused(rule, &bytes), Malformed { at, what }, "{rule} of {bytes:02x?}");
    }
    let as_deep_as_may_be = hex(&deep(NESTING_MAX - 1).replace(' ', ""));
    assert_eq!(refusal("uplink", &as_deep_as_may_be), None);
}

#[test]
fn refusals_read_well() {
    for (bytes, said) in [
        ("84", "ends inside an item, at byte 1"),
        ("00", "expected an uplink: an array, at byte 0"),
        ("8401f6f681850100616101a000", "bytes after the end, at byte 12"),
        ("8101", "now is missing, at byte 2"),
        ("8401f6f680", "no events, at byte 5"),
    ] {
        assert_eq!(refused("uplink", &hex(bytes)).to_string(), said);
    }
}
