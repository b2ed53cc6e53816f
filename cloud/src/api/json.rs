//! CBOR bodies as JSON.
//!
//! Bodies are kept as the device wrote them; JSON is made only to show them. What JSON cannot say is mapped so:
//!
//! | CBOR | JSON |
//! |---|---|
//! | whole numbers within ±2^53 | number |
//! | larger whole numbers | string of decimal digits, as JavaScript would round the number |
//! | floats | number; `"NaN"`, `"Infinity"`, `"-Infinity"` as strings |
//! | byte strings | string, base64url without padding (RFC 4648 §5) |
//! | undefined and other simple values | `null` |
//! | tags | what is tagged |
//! | map keys that are not text | their JSON as text |
//! | anything nested deeper than [`DEPTH_MAX`], or not CBOR | `{"$cbor": "…"}`, its bytes as base64url |
//!
//! Keys stay in the device's order.

use std::fmt;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// Arrays and maps within each other, at most.
pub const DEPTH_MAX: usize = 32;

/// Largest whole number that every JSON reader keeps exactly (RFC 7493 §2.2).
const EXACT_MAX: u64 = (1 << 53) - 1;

/// Any JSON, with the keys of its objects in the order they were written.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number from 0 on.
    Natural(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Any other number; finite.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Map(Vec<(String, Json)>),
}

impl Json {
    /// Shows one CBOR item. Never fails: what cannot be read is shown as its bytes.
    pub fn from_cbor(bytes: &[u8]) -> Json {
        let mut decoder = Decoder::new(bytes);
        match item(&mut decoder, DEPTH_MAX) {
            Ok(json) if decoder.position() == bytes.len() => json,
            _ => raw(bytes),
        }
    }

    /// A whole number, as a string where a JSON reader might round it.
    pub fn natural(number: u64) -> Json {
        if number <= EXACT_MAX { Json::Natural(number) } else { Json::Text(number.to_string()) }
    }

    /// A whole number, as a string where a JSON reader might round it.
    pub fn integer(number: i64) -> Json {
        match u64::try_from(number) {
            Ok(number) => Json::natural(number),
            Err(_) if number.unsigned_abs() <= EXACT_MAX => Json::Negative(number),
            Err(_) => Json::Text(number.to_string()),
        }
    }

    /// A number, or the name of what JSON has no number for.
    pub fn float(number: f64) -> Json {
        if number.is_finite() {
            Json::Float(number)
        } else if number.is_nan() {
            Json::Text("NaN".to_owned())
        } else if number > 0.0 {
            Json::Text("Infinity".to_owned())
        } else {
            Json::Text("-Infinity".to_owned())
        }
    }

    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Bytes as base64url without padding (RFC 4648 §5).
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, a, b, c]);
        for digit in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

fn raw(bytes: &[u8]) -> Json {
    Json::Map(vec![("$cbor".to_owned(), Json::Text(base64url(bytes)))])
}

fn item(decoder: &mut Decoder<'_>, depth_left: usize) -> Result<Json, Error> {
    Ok(match decoder.datatype()? {
        Type::Bool => Json::Bool(decoder.bool()?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Json::natural(decoder.u64()?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => whole(i128::from(decoder.int()?)),
        Type::F16 => Json::float(f64::from(decoder.f16()?)),
        Type::F32 => Json::float(f64::from(decoder.f32()?)),
        Type::F64 => Json::float(decoder.f64()?),
        Type::String | Type::StringIndef => {
            let mut text = String::new();
            for part in decoder.str_iter()? {
                text.push_str(part?);
            }
            Json::Text(text)
        }
        Type::Bytes | Type::BytesIndef => {
            let mut bytes = Vec::new();
            for part in decoder.bytes_iter()? {
                bytes.extend_from_slice(part?);
            }
            Json::Text(base64url(&bytes))
        }
        Type::Array | Type::ArrayIndef | Type::Map | Type::MapIndef | Type::Tag if depth_left == 0 => {
            let start = decoder.position();
            decoder.skip()?;
            raw(&decoder.input()[start..decoder.position()])
        }
        Type::Array | Type::ArrayIndef => list(decoder, depth_left - 1)?,
        Type::Map | Type::MapIndef => map(decoder, depth_left - 1)?,
        Type::Tag => {
            decoder.tag()?;
            item(decoder, depth_left - 1)?
        }
        Type::Null | Type::Undefined | Type::Simple => {
            decoder.skip()?;
            Json::Null
        }
        Type::Break | Type::Unknown(_) => return Err(Error::message("not an item")),
    })
}

fn whole(number: i128) -> Json {
    i64::try_from(number).map_or_else(|_| Json::Text(number.to_string()), Json::integer)
}

fn list(decoder: &mut Decoder<'_>, depth_left: usize) -> Result<Json, Error> {
    let mut items = Vec::new();
    match decoder.array()? {
        Some(count) => {
            for _ in 0..count {
                items.push(item(decoder, depth_left)?);
            }
        }
        None => {
            while decoder.datatype()? != Type::Break {
                items.push(item(decoder, depth_left)?);
            }
            decoder.skip()?;
        }
    }
    Ok(Json::List(items))
}

fn map(decoder: &mut Decoder<'_>, depth_left: usize) -> Result<Json, Error> {
    let mut entries = Vec::new();
    let mut entry = |decoder: &mut Decoder<'_>| {
        let key = match item(decoder, depth_left)? {
            Json::Text(text) => text,
            other => other.to_string(),
        };
        entries.push((key, item(decoder, depth_left)?));
        Ok::<(), Error>(())
    };
    match decoder.map()? {
        Some(count) => {
            for _ in 0..count {
                entry(decoder)?;
            }
        }
        None => {
            while decoder.datatype()? != Type::Break {
                entry(decoder)?;
            }
            decoder.skip()?;
        }
    }
    Ok(Json::Map(entries))
}

impl fmt::Display for Json {
    /// Compact JSON text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(yes) => serializer.serialize_bool(*yes),
            Json::Natural(number) => serializer.serialize_u64(*number),
            Json::Negative(number) => serializer.serialize_i64(*number),
            Json::Float(number) => serializer.serialize_f64(*number),
            Json::Text(text) => serializer.serialize_str(text),
            Json::List(items) => serializer.collect_seq(items),
            Json::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Json, E> {
        Ok(Json::Bool(yes))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Natural(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(u64::try_from(number).map_or(Json::Negative(number), Json::Natural))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Json::Map(map))
    }
}

#[cfg(test)]
mod tests;
