//! The properties of MQTT 5 (2.2.2): which packet may have which, how often, and with which values.
//!
//! What breaks the form is `Malformed`; what has the form, and is not allowed, is a `ProtocolError` (MQTT 5, 1.2), with
//! the exceptions that the standard names.

use super::reader::Reader;
use super::reason::Reason;
use super::topics;

/// Identifiers of properties that somebody here wants to know.
pub(super) mod id {
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const USER: u8 = 0x26;
}

/// Where properties may stand in what a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
    Publish,
    Puback,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

impl Place {
    /// Which may be there (MQTT 5, 2.2.2.2).
    fn allows(self, id: u8) -> bool {
        match self {
            Place::Connect => matches!(id, 0x11 | 0x15 | 0x16 | 0x17 | 0x19 | 0x21 | 0x22 | id::USER | 0x27),
            Place::Will => matches!(id, 0x01 | id::MESSAGE_EXPIRY | 0x03 | 0x08 | 0x09 | 0x18 | id::USER),
            Place::Publish => {
                matches!(id, 0x01 | id::MESSAGE_EXPIRY | 0x03 | 0x08 | 0x09 | id::TOPIC_ALIAS | id::USER)
            }
            Place::Puback => matches!(id, 0x1f | id::USER),
            Place::Subscribe => matches!(id, 0x0b | id::USER),
            Place::Unsubscribe => id == id::USER,
            Place::Disconnect => matches!(id, 0x11 | 0x1f | id::USER),
        }
    }
}

/// A property's value, as far as it is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u32),
    Pair(&'a str, &'a str),
    Other,
}

/// Reads the length of the properties and then each; `seen` is told what it is and where its value lies in them. Returns them
/// without their length.
pub(super) fn read<'a>(
    place: Place,
    r: &mut Reader<'a>,
    mut seen: impl FnMut(u8, usize, Value<'a>),
) -> Result<&'a [u8], Reason> {
    let len = r.varint()?;
    let raw = r.take(len)?;
    let mut r = Reader { rest: raw };
    let mut before = 0_u64;
    while !r.rest.is_empty() {
        let id = r.u8()?;
        // All identifiers there are are below 64, in one byte.
        if id >= 64 {
            return Err(Reason::Malformed);
        }
        // The user property alone may be there more than once.
        if id != id::USER && before & (1 << id) != 0 {
            return Err(Reason::ProtocolError);
        }
        before |= 1 << id;
        let at = raw.len() - r.rest.len();
        let value = value(id, &mut r)?;
        if !place.allows(id) {
            return Err(Reason::ProtocolError);
        }
        seen(id, at, value);
    }
    Ok(raw)
}

/// Reads a value of the property's type (MQTT 5, 2.2.2.2, table 2-4) and holds it to what is allowed.
fn value<'a>(id: u8, r: &mut Reader<'a>) -> Result<Value<'a>, Reason> {
    let allowed = |allowed: bool, number: u32| {
        if allowed { Ok(Value::Number(number)) } else { Err(Reason::ProtocolError) }
    };
    match id {
        // payload format indicator, request problem information, request response information
        0x01 | 0x17 | 0x19 => {
            let value = r.u8()?;
            allowed(value <= 1, value.into())
        }
        // session expiry, will delay, message expiry
        0x02 | 0x11 | 0x18 => Ok(Value::Number(r.u32()?)),
        // maximum packet size
        0x27 => {
            let value = r.u32()?;
            allowed(value > 0, value)
        }
        // receive maximum
        0x21 => {
            let value = r.u16()?;
            allowed(value > 0, value.into())
        }
        // topic alias maximum
        0x22 => Ok(Value::Number(r.u16()?.into())),
        // Our topic alias maximum is 0, so any is too great; and 0 is none (3.3.2.3.4).
        id::TOPIC_ALIAS => r.u16().and(Err(Reason::TopicAliasInvalid)),
        // subscription identifier
        0x0b => {
            let value = r.varint()?;
            allowed(value > 0, u32::try_from(value).unwrap_or(u32::MAX))
        }
        // content type, authentication method, reason string
        0x03 | 0x15 | 0x1f => r.string().map(|_| Value::Other),
        // response topic: a topic name, without wildcards (3.3.2.3.5)
        0x08 => {
            let topic = r.string()?;
            if topics::is_name(topic) { Ok(Value::Other) } else { Err(Reason::ProtocolError) }
        }
        // correlation data, authentication data
        0x09 | 0x16 => r.binary().map(|_| Value::Other),
        id::USER => Ok(Value::Pair(r.string()?, r.string()?)),
        // What only servers send has its type, too; nobody reads on after it.
        0x12 | 0x13 | 0x1a | 0x1c | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Err(Reason::ProtocolError),
        _ => Err(Reason::Malformed),
    }
}
