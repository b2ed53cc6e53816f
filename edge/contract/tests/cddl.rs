//! The published contract, `weir.cddl`, and the frozen bytes agree.

use cddl_cat::cbor::validate_cbor;
use cddl_cat::context::BasicContext;
use cddl_cat::flatten::flatten_from_str;
use ciborium::Value;
use weir_contract::{segment, topic, uplink};

use crate::support::{corpus, value};

const CDDL: &str = include_str!("../weir.cddl");

struct Contract(BasicContext);

impl Contract {
    fn published() -> Self {
        Self::with("")
    }

    /// With more rules than are published.
    fn with(rules: &str) -> Self {
        // Two things cddl-cat 0.7 does otherwise than RFC 8610: it looks for a `.regexp` anywhere in a text (§3.8.3: the
        // whole text), and its integer literals end at -2^63 + 1.
        let text = CDDL
            .replace(".regexp \"", ".regexp \"^")
            .replace("{1,32}\"", "{1,32}$\"")
            .replace("-9223372036854775808..9223372036854775807", "int");
        let flat = flatten_from_str(&(text + rules)).expect("weir.cddl is CDDL");
        Self(BasicContext::new(flat))
    }

    fn check(&self, rule: &str, value: &Value) -> Result<(), String> {
        let definition = self.0.rules.get(rule).unwrap_or_else(|| panic!("no rule {rule} in weir.cddl"));
        validate_cbor(definition, &untagged(value), &self.0).map_err(|error| error.to_string())
    }
}

/// cddl-cat 0.7 knows no tags at all. In the contract they appear only inside `any`.
fn untagged(value: &Value) -> Value {
    match value {
        Value::Tag(_, item) => untagged(item),
        Value::Array(items) => Value::Array(items.iter().map(untagged).collect()),
        Value::Map(entries) => {
            Value::Map(entries.iter().map(|(key, value)| (untagged(key), untagged(value))).collect())
        }
        other => other.clone(),
    }
}

fn rule_of(name: &str) -> &str {
    name.split_once('/').expect("rule/case").0
}

#[test]
fn frozen_bytes_obey_the_published_contract() {
    let contract = Contract::published();
    for folder in ["", "also-read"] {
        for name in corpus::names(folder) {
            let value = value(&corpus::bytes(format!("{folder}/{name}").trim_start_matches('/')));
            contract.check(rule_of(&name), &value).unwrap_or_else(|error| panic!("{folder}/{name}: {error}"));
        }
    }
}

#[test]
fn events_of_known_kinds_obey_the_rule_of_their_kind() {
    // `event` would let them pass as events of unknown kinds.
    let contract = Contract::with("known-uplink = uplink-of<known-event>\n");
    for name in ["uplink/gateway-times", "uplink/earlier-boot-via", "also-read/uplink/indefinite"] {
        let value = value(&corpus::bytes(name));
        contract.check("known-uplink", &value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let unknown = value(&corpus::bytes("uplink/smallest"));
    assert!(contract.check("known-uplink", &unknown).is_err(), "a kind nobody knows is no known event");
}

#[test]
fn what_a_gateway_tells_of_uplinks_that_are_gone_is_in_the_published_contract() {
    let contract = Contract::published();
    let told = |from: u8| {
        let mut body = b"\xa4\x6bincarnation\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x64from".to_vec();
        body.push(from);
        body.extend(b"\x62to\x09\x66reason\x6dspool-damaged");
        contract.check("uplinks-gone", &value(&body))
    };
    told(5).unwrap_or_else(|error| panic!("{error}"));
    assert!(told(0).is_err(), "no uplink has the number 0");
}

#[test]
fn what_a_gateway_tells_of_publishes_it_refused_is_in_the_published_contract() {
    let contract = Contract::published();
    let told = |device: &str| {
        let mut body = b"\xa3\x66device".to_vec();
        body.push(0x60 + u8::try_from(device.len()).expect("short"));
        body.extend(device.as_bytes());
        body.extend(b"\x65count\x03\x66reason\x65no CB");
        contract.check("publishes-refused", &value(&body))
    };
    told("sensor-1").unwrap_or_else(|error| panic!("{error}"));
    assert!(told("sensor/1").is_err(), "that is no name");
}

#[test]
fn the_published_contract_refuses_what_we_refuse() {
    let contract = Contract::published();
    // Kept beside the bytes because it is the meaning that is wrong, not the encoding.
    for (rule, hex, why) in [
        ("uplink", "80", "nothing in it"),
        ("uplink", "8401f6f680", "no events"),
        ("uplink", "8420f6f681850100616101a0", "negative boot"),
        ("uplink", "8401f6f681850000616101a0", "seq 0"),
        ("uplink", "8401f6f681851b000000010000000000616101a0", "seq 2^32"),
        ("uplink", "8401f6f681850100616100a0", "version 0"),
        ("uplink", "8401f6f68185010061611a00010000a0", "version 2^16"),
        ("uplink", "8401f6f681850100614101a0", "kind in capitals"),
        ("uplink", "8401f6f6818501006001a0", "empty kind"),
        ("uplink", "8401f6f68185010061610180", "body is an array"),
        ("uplink", "8401f6f681850100616101a10000", "body with a number as key"),
        ("reading-taken", "a26673656e736f7264612f62636576616c756501", "a sensor with a slash"),
        ("reading-taken", "a16673656e736f726178", "no value"),
        (
            "limit-crossed",
            "a4 6673656e736f72 6178 6576616c7565 f5 656c696d6974 01 66726973696e67 f5",
            "value is true",
        ),
        ("events-lost", "a464626f6f74016466726f6d0062746f0166726561736f6e6178", "from 0"),
        ("clock-stepped", "a16562795f6d73f93c00", "by a float"),
        ("segment", "83010180", "no uplinks"),
        ("segment", "8301008184616401f64c8401f6f681850100616101a0", "first is 0"),
        ("segment", "8301018184616401f64c8401f6f681850000616101a0", "an uplink with seq 0 in it"),
        ("command", "836163617200", "no arguments"),
        ("time", "80", "no time"),
        ("time", "8120", "before 1970"),
    ] {
        let value = value(&corpus::hex(&hex.replace(' ', "")));
        assert!(contract.check(rule, &value).is_err(), "{rule} with {why} passes: {value:?}");
    }
}

#[test]
fn the_limits_in_the_comments_are_those_of_the_code() {
    for (limit, said) in [
        (uplink::UPLINK_LEN_MAX, "at most 65,536 bytes"),
        (uplink::UPLINK_EVENTS_MAX, "[1*256 e]"),
        (segment::SEGMENT_LEN_MAX, "at most 262,144 bytes before compression"),
        (segment::TRACEPARENT_LEN_MAX, "bstr .size (0..64)"),
        (weir_contract::NAME_LEN_MAX, "{1,32}"),
        (weir_contract::NESTING_MAX, "at most 16 deep"),
    ] {
        assert!(CDDL.contains(said), "weir.cddl no longer says {said}");
        let digits: String = said.chars().filter(char::is_ascii_digit).collect();
        assert!(digits.ends_with(&limit.to_string()), "weir.cddl says {said}, the code {limit}");
    }
}

#[test]
fn topics_and_subjects_are_those_of_the_code() {
    let id = |text: &str| text.parse().expect("an id");
    let (site, gateway, device) = (id("SITE"), id("GATEWAY"), id("DEVICE"));
    let source = weir_contract::subject::Source { site, gateway, lane: id("LANE") };
    for name in [
        topic::events(&device).to_string(),
        topic::time(&device).to_string(),
        topic::commands(&device).to_string(),
        weir_contract::subject::segments(&source).to_string(),
    ] {
        let name = ["SITE", "GATEWAY", "DEVICE", "LANE"]
            .iter()
            .fold(name, |name, part| name.replace(part, &format!("{{{}}}", part.to_lowercase())));
        assert!(CDDL.contains(&name), "weir.cddl does not name {name}");
    }
    assert!(CDDL.contains(weir_contract::subject::HEADER_ENCODING));
}
