//! Messages of the contract as plain CBOR values, any of them, and what we make of them.

use std::collections::BTreeSet;

use ciborium::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use weir_contract::body::{Body, Outcome, Scalar};
use weir_contract::uplink::{Event, Header};
use weir_contract::{Id, Kind};

use super::{cbor, value};

/// A known kind and its body as a value, keys in the order of the contract.
pub fn known_body() -> BoxedStrategy<(Kind, Value)> {
    let answer = || {
        (text(), proptest::option::of(text()), proptest::option::of(anything()))
            .prop_map(|(id, reason, result)| map([("id", Some(id)), ("reason", reason), ("result", result)]))
    };
    let some = |name: &'static str, body: BoxedStrategy<Value>| {
        body.prop_map(move |body| (kind(name), body)).boxed()
    };
    prop_oneof![
        some("device-started", all([("fw", text()), ("hw", text()), ("reason", text())])),
        some(
            "reading-taken",
            (id_text(), scalar(), proptest::option::of(text()))
                .prop_map(|(sensor, value, unit)| {
                    map([("sensor", Some(sensor)), ("value", Some(value)), ("unit", unit)])
                })
                .boxed()
        ),
        some(
            "limit-crossed",
            all([("sensor", id_text()), ("value", float()), ("limit", float()), ("rising", boolean())])
        ),
        some(
            "events-lost",
            (proptest::option::of(id_text()), unsigned(), 1..=u32::MAX, 1..=u32::MAX, text())
                .prop_map(|(device, boot, a, b, reason)| {
                    map([
                        ("device", device),
                        ("boot", Some(boot)),
                        ("from", Some(a.min(b).into())),
                        ("to", Some(a.max(b).into())),
                        ("reason", Some(reason)),
                    ])
                })
                .boxed()
        ),
        some("command-accepted", answer().boxed()),
        some("command-completed", answer().boxed()),
        some("command-failed", answer().boxed()),
        some("command-expired", all([("device", id_text()), ("id", text())])),
        some(
            "command-refused",
            (id_text(), proptest::option::of(text()), text())
                .prop_map(|(device, id, reason)| {
                    map([("device", Some(device)), ("id", id), ("reason", Some(reason))])
                })
                .boxed()
        ),
        some("config-applied", all([("revision", unsigned()), ("config", anything())])),
        some("device-connected", all([("device", id_text()), ("address", text())])),
        some("device-disconnected", all([("device", id_text()), ("reason", text())])),
        some("clock-stepped", all([("by_ms", any::<i64>().prop_map(Value::from).boxed())])),
    ]
    .boxed()
}

/// What [`known_body`]s mean. `opaque` is the encoding of `result` or `config`, where there is one.
pub fn as_body<'a>(kind: &str, body: &'a Value, opaque: &'a [u8]) -> Body<'a> {
    let field = |key: &str| find(body, key);
    let get = |key: &str| field(key).unwrap_or_else(|| panic!("{kind} has {key}"));
    let text = |key: &str| get(key).as_text().expect("text");
    let id = |key: &str| text(key).parse::<Id>().expect("an id");
    let int = |key: &str| i128::from(get(key).as_integer().expect("an integer"));
    let float = |key: &str| get(key).as_float().expect("a float");
    let answered = |outcome| Body::CommandAnswered {
        outcome,
        id: text("id").into(),
        reason: field("reason").map(|reason| reason.as_text().expect("text").into()),
        result: field("result").map(|_| opaque),
    };
    match kind {
        "device-started" => Body::DeviceStarted {
            fw: text("fw").into(),
            hw: text("hw").into(),
            reason: text("reason").into(),
        },
        "reading-taken" => Body::ReadingTaken {
            sensor: id("sensor"),
            value: as_scalar(get("value")),
            unit: field("unit").map(|unit| unit.as_text().expect("text").into()),
        },
        "limit-crossed" => Body::LimitCrossed {
            sensor: id("sensor"),
            value: float("value"),
            limit: float("limit"),
            rising: get("rising").as_bool().expect("a boolean"),
        },
        "events-lost" => Body::EventsLost {
            device: field("device").map(|_| id("device")),
            boot: u64::try_from(int("boot")).expect("64 bits"),
            from: u32::try_from(int("from")).expect("32 bits"),
            to: u32::try_from(int("to")).expect("32 bits"),
            reason: text("reason").into(),
        },
        "command-accepted" => answered(Outcome::Accepted),
        "command-completed" => answered(Outcome::Completed),
        "command-failed" => answered(Outcome::Failed),
        "command-expired" => Body::CommandExpired { device: id("device"), id: text("id").into() },
        "command-refused" => Body::CommandRefused {
            device: id("device"),
            id: field("id").map(|id| id.as_text().expect("text").into()),
            reason: text("reason").into(),
        },
        "config-applied" => {
            Body::ConfigApplied { revision: u64::try_from(int("revision")).expect("64 bits"), config: opaque }
        }
        "device-connected" => Body::DeviceConnected { device: id("device"), address: text("address").into() },
        "device-disconnected" => {
            Body::DeviceDisconnected { device: id("device"), reason: text("reason").into() }
        }
        "clock-stepped" => Body::ClockStepped { by_ms: i64::try_from(int("by_ms")).expect("64 bits") },
        _ => panic!("{kind} is no known kind"),
    }
}

fn as_scalar(value: &Value) -> Scalar<'_> {
    match value {
        Value::Integer(int) => Scalar::Int(i64::try_from(i128::from(*int)).expect("64 bits")),
        Value::Float(float) => Scalar::Float(*float),
        Value::Bool(bool) => Scalar::Bool(*bool),
        Value::Text(text) => Scalar::Text(text.as_str().into()),
        other => panic!("{other:?} is no scalar"),
    }
}

/// The encoding of what is opaque in a body, as ciborium writes it.
pub fn opaque(body: &Value) -> Vec<u8> {
    find(body, "result").or_else(|| find(body, "config")).map(cbor).unwrap_or_default()
}

/// Whether two bodies mean the same: opaque items may be encoded differently.
pub fn same_body(a: &Body<'_>, b: &Body<'_>) -> bool {
    fn split<'a>(body: &Body<'a>) -> (Body<'a>, Option<Value>) {
        match *body {
            Body::CommandAnswered { outcome, id, reason, result } => {
                (Body::CommandAnswered { outcome, id, reason, result: None }, result.map(value))
            }
            Body::ConfigApplied { revision, config } => {
                (Body::ConfigApplied { revision, config: &[] }, Some(value(config)))
            }
            other => (other, None),
        }
    }
    split(a) == split(b)
}

/// An uplink in owned form.
#[derive(Debug, Clone)]
pub struct Letter {
    pub header: Header,
    pub events: Vec<Fact>,
}

/// An event in owned form.
#[derive(Debug, Clone)]
pub struct Fact {
    pub seq: u32,
    pub at: u64,
    pub kind: Kind,
    pub version: u16,
    pub body: Value,
}

impl Letter {
    /// The whole uplink as a value.
    pub fn value(&self) -> Value {
        let optional = |number: Option<u64>| number.map_or(Value::Null, Value::from);
        let Header { boot, now, epoch, via } = self.header;
        let events = self.events.iter().map(Fact::value).collect();
        let mut items = vec![boot.into(), optional(now), optional(epoch), Value::Array(events)];
        items.extend(via.map(Value::from));
        Value::Array(items)
    }

    /// As our writer writes it.
    pub fn bytes(&self) -> Vec<u8> {
        let bodies: Vec<_> = self.events.iter().map(|event| cbor(&event.body)).collect();
        let events = self.events.iter().zip(&bodies).map(|(event, body)| event.borrow(body));
        let mut buffer = vec![0; 1 << 20];
        let len = weir_contract::uplink::write(&mut buffer, &self.header, events).expect("it fits");
        buffer.truncate(len);
        buffer
    }
}

impl Fact {
    fn value(&self) -> Value {
        let Fact { seq, at, kind, version, body } = self;
        Value::Array(vec![(*seq).into(), (*at).into(), kind.as_str().into(), (*version).into(), body.clone()])
    }

    /// As our event, with its body encoded as `body`.
    pub fn borrow<'a>(&self, body: &'a [u8]) -> Event<'a> {
        Event { seq: self.seq, at: self.at, kind: self.kind, version: self.version, body }
    }
}

/// Any uplink that fits.
pub fn letter() -> impl Strategy<Value = Letter> {
    let body = prop_oneof![
        3 => known_body().prop_map(|(kind, body)| (kind, 1, body)),
        1 => ("[a-z0-9-]{1,32}", 1..=u16::MAX, opaque_map()).prop_map(|(kind, version, body)| {
            (kind.parse().expect("a kind"), version, body)
        }),
    ];
    let event = (wide(), body).boxed();
    let events = prop_oneof![9 => vec(event.clone(), 1..8), 1 => vec(event, 1..=256)];
    (header(), 0..u32::MAX - 256, any::<bool>(), events)
        .prop_map(|(header, before, to_the_end, events)| {
            let count = u32::try_from(events.len()).expect("at most 256");
            let before = if to_the_end { u32::MAX - count } else { before };
            let events = (before + 1..=u32::MAX)
                .zip(events)
                .map(|(seq, (at, (kind, version, body)))| Fact { seq, at, kind, version, body })
                .collect();
            Letter { header, events }
        })
        .prop_filter("fits in an uplink", |letter| {
            letter.bytes().len() <= weir_contract::uplink::UPLINK_LEN_MAX
        })
}

fn header() -> impl Strategy<Value = Header> {
    let optional = || proptest::option::of(wide());
    (wide(), optional(), optional(), optional()).prop_map(|(boot, now, epoch, via)| Header {
        boot,
        now,
        epoch,
        via: via.filter(|_| now.is_none()),
    })
}

/// Any id.
pub fn id() -> impl Strategy<Value = Id> {
    "[A-Za-z0-9_-]{1,32}".prop_map(|text| text.parse().expect("an id"))
}

/// Numbers of every encoded length.
pub fn wide() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

/// Any item: what `any` stands for. No NaN, which equals nothing; no bignums, which ciborium turns into integers.
pub fn anything() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        scalar(),
        unsigned(),
        Just(Value::Null),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        wide().prop_map(|n| Value::from(-1 - i64::try_from(n >> 1).expect("63 bits"))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::Map),
            (32_u64..10_000, inner).prop_map(|(tag, item)| Value::Tag(tag, Box::new(item))),
        ]
    })
    .boxed()
}

fn opaque_map() -> impl Strategy<Value = Value> {
    vec((text(), anything()), 0..4).prop_map(Value::Map)
}

fn scalar() -> BoxedStrategy<Value> {
    prop_oneof![float(), boolean(), text(), any::<i64>().prop_map(Value::from)].boxed()
}

/// Floats, of which every length of encoding is likely.
fn float() -> BoxedStrategy<Value> {
    let any_bits = any::<u64>().prop_map(f64::from_bits);
    let any_bits_32 = any::<u32>().prop_map(|bits| f64::from(f32::from_bits(bits)));
    let steps = (any::<i16>(), -24..24_i32).prop_map(|(n, power)| f64::from(n) * f64::powi(2.0, power));
    prop_oneof![any_bits, any_bits_32, steps]
        .prop_filter("NaN equals nothing", |float| !float.is_nan())
        .prop_map(Value::Float)
        .boxed()
}

fn boolean() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::Bool).boxed()
}

fn unsigned() -> BoxedStrategy<Value> {
    wide().prop_map(Value::from).boxed()
}

fn text() -> BoxedStrategy<Value> {
    prop_oneof!["\\PC{0,12}", "[a-z]{0,30}", "[a-z]{250,260}"].prop_map(Value::Text).boxed()
}

fn id_text() -> BoxedStrategy<Value> {
    id().prop_map(|id| Value::from(id.as_str())).boxed()
}

fn kind(name: &str) -> Kind {
    name.parse().expect("a kind")
}

/// A map with every one of these keys.
fn all<const N: usize>(fields: [(&'static str, BoxedStrategy<Value>); N]) -> BoxedStrategy<Value> {
    let keys = fields.each_ref().map(|(key, _)| *key);
    let values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
    values
        .prop_map(move |values| Value::Map(keys.iter().map(|key| Value::from(*key)).zip(values).collect()))
        .boxed()
}

fn map<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let entries = fields.into_iter().filter_map(|(key, value)| Some((Value::from(key), value?)));
    Value::Map(entries.collect())
}

/// The value of `key` in a map.
pub fn find<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    let entries = map.as_map().expect("a map");
    entries.iter().find_map(|(k, v)| (k.as_text() == Some(key)).then_some(v))
}

/// The keys of a map.
pub fn keys(map: &Value) -> BTreeSet<&str> {
    map.as_map().expect("a map").iter().filter_map(|(key, _)| key.as_text()).collect()
}
