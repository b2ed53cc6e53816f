use ciborium::Value as Cbor;
use proptest::prelude::*;

use super::*;

fn shown(cbor: &Cbor) -> String {
    let mut bytes = Vec::new();
    ciborium::into_writer(cbor, &mut bytes).expect("a vector takes everything");
    Json::from_cbor(&bytes).to_string()
}

fn text(text: &str) -> Cbor {
    Cbor::Text(text.to_owned())
}

#[test]
fn a_reading_looks_as_one_would_write_it() {
    let body = Cbor::Map(vec![
        (text("sensor"), text("oven")),
        (text("value"), Cbor::Float(21.5)),
        (text("unit"), text("Cel")),
    ]);
    assert_eq!(shown(&body), r#"{"sensor":"oven","value":21.5,"unit":"Cel"}"#);
}

#[test]
fn numbers_that_json_readers_round_become_strings() {
    let exact = (1_u64 << 53) - 1;
    for (number, json) in [
        (i128::from(exact), "9007199254740991".to_owned()),
        (i128::from(exact) + 1, "\"9007199254740992\"".to_owned()),
        (-i128::from(exact), "-9007199254740991".to_owned()),
        (-i128::from(exact) - 1, "\"-9007199254740992\"".to_owned()),
        (i128::from(u64::MAX), format!("\"{}\"", u64::MAX)),
        (-i128::from(u64::MAX) - 1, "\"-18446744073709551616\"".to_owned()),
        (0, "0".to_owned()),
        (-1, "-1".to_owned()),
    ] {
        assert_eq!(shown(&Cbor::Integer(number.try_into().expect("a CBOR integer"))), json);
    }
}

#[test]
fn numbers_that_json_has_not_become_their_names() {
    assert_eq!(shown(&Cbor::Float(f64::NAN)), r#""NaN""#);
    assert_eq!(shown(&Cbor::Float(f64::INFINITY)), r#""Infinity""#);
    assert_eq!(shown(&Cbor::Float(f64::NEG_INFINITY)), r#""-Infinity""#);
}

#[test]
fn bytes_become_base64url_without_padding() {
    // RFC 4648 §10, and the two characters in which base64url differs.
    for (bytes, json) in [
        ("", ""),
        ("f", "Zg"),
        ("fo", "Zm8"),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg"),
        ("fooba", "Zm9vYmE"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64url(bytes.as_bytes()), json);
    }
    assert_eq!(base64url(&[0xfb, 0xff, 0xfe]), "-__-");
    assert_eq!(shown(&Cbor::Bytes(vec![0xff, 0xfe])), r#""__4""#);
}

#[test]
fn everything_else_has_its_place_in_the_table() {
    assert_eq!(shown(&Cbor::Null), "null");
    assert_eq!(Json::from_cbor(&[0xf7]), Json::Null, "undefined");
    assert_eq!(Json::from_cbor(&[0xf0]), Json::Null, "a simple value");
    assert_eq!(shown(&Cbor::Tag(0, Box::new(text("2026-11-20T18:40:59Z")))), r#""2026-11-20T18:40:59Z""#);
    assert_eq!(shown(&Cbor::Map(vec![(Cbor::Integer(7.into()), Cbor::Bool(true))])), r#"{"7":true}"#);
    // Indefinite lengths are not what we write, but what a foreign device may: [_ 1, "ab" in two pieces, {_ }].
    let indefinite = [0x9f, 0x01, 0x7f, 0x61, b'a', 0x61, b'b', 0xff, 0xbf, 0xff, 0xff];
    assert_eq!(Json::from_cbor(&indefinite).to_string(), r#"[1,"ab",{}]"#);
}

#[test]
fn nesting_is_followed_to_a_depth_and_then_shown_as_bytes() {
    let nested = |depth: usize| (0..depth).fold(Cbor::Null, |inner, _| Cbor::Array(vec![inner]));
    assert_eq!(shown(&nested(DEPTH_MAX)), format!("{}null{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)));
    assert!(shown(&nested(DEPTH_MAX + 1)).contains(r#"{"$cbor":"gfY"}"#));
    // As deep as an uplink has room for.
    let mut bytes = vec![0x81; 65_000];
    bytes.push(0xf6);
    assert!(Json::from_cbor(&bytes).to_string().contains("$cbor"));
}

#[test]
fn what_is_not_cbor_is_shown_as_its_bytes() {
    assert_eq!(Json::from_cbor(&[0xff]).to_string(), r#"{"$cbor":"_w"}"#);
    assert_eq!(Json::from_cbor(&[]).to_string(), r#"{"$cbor":""}"#);
    assert_eq!(Json::from_cbor(&[0x01, 0x02]).to_string(), r#"{"$cbor":"AQI"}"#, "two items");
    let endless = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(Json::from_cbor(&endless).to_string(), r#"{"$cbor":"m___________"}"#, "a list of 2^64 - 1");
}

proptest! {
    #[test]
    fn any_bytes_become_json_that_reads_as_itself(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let json = Json::from_cbor(&bytes);
        let again: Json = serde_json::from_str(&json.to_string()).expect("it is JSON");
        prop_assert_eq!(again, json);
    }
}
