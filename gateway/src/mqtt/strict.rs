//! What the standard forbids and rumqttd's codec lets pass, in the packets that codec reads: CONNECT, SUBSCRIBE, UNSUBSCRIBE.

use super::frame::{Frame, Version};
use super::properties::{self, Place};
use super::reader::Reader;
use super::reason::Reason;

/// Holds a CONNECT of that version to MQTT 5, 3.1, or MQTT 3.1.1, 3.1.
pub(super) fn connect(version: Version, frame: &Frame<'_>) -> Result<(), Reason> {
    let mut r = Reader { rest: frame.body };
    // The protocol's name and level are what told the version.
    r.string()?;
    r.u8()?;
    let flags = r.u8()?;
    let (has_will, will_qos, will_is_retained) = (flags & 0x04 != 0, flags >> 3 & 0b11, flags & 0x20 != 0);
    let (has_password, has_name) = (flags & 0x40 != 0, flags & 0x80 != 0);
    let will_without_will = !has_will && (will_qos > 0 || will_is_retained);
    let password_without_name = version == Version::V4 && has_password && !has_name;
    if flags & 1 != 0 || will_qos == 3 || will_without_will || password_without_name {
        return Err(Reason::Malformed);
    }
    let _keep_alive = r.u16()?;
    if version == Version::V5 {
        let (mut method, mut data) = (false, false);
        properties::read(Place::Connect, &mut r, |id, _, _| {
            method |= id == properties::id::AUTHENTICATION_METHOD;
            data |= id == properties::id::AUTHENTICATION_DATA;
        })?;
        if data && !method {
            return Err(Reason::ProtocolError);
        }
    }
    let _client_id = r.string()?;
    if has_will {
        if version == Version::V5 {
            properties::read(Place::Will, &mut r, |_, _, _| {})?;
        }
        let (_topic, _payload) = (r.string()?, r.binary()?);
    }
    if has_name {
        r.string()?;
    }
    if has_password {
        r.binary()?;
    }
    r.end()
}

/// Holds a SUBSCRIBE to 3.8.
pub(super) fn subscribe(version: Version, frame: &Frame<'_>) -> Result<(), Reason> {
    let mut r = Reader { rest: frame.body };
    r.packet_id()?;
    if version == Version::V5 {
        properties::read(Place::Subscribe, &mut r, |_, _, _| {})?;
    }
    if r.rest.is_empty() {
        return Err(Reason::ProtocolError);
    }
    while !r.rest.is_empty() {
        r.string()?;
        let options = r.u8()?;
        let (qos, retain_handling) = (options & 0b11, options >> 4 & 0b11);
        match version {
            Version::V4 if options > 2 => return Err(Reason::Malformed),
            Version::V5 if options & 0b1100_0000 != 0 => return Err(Reason::Malformed),
            Version::V5 if qos == 3 || retain_handling == 3 => return Err(Reason::ProtocolError),
            Version::V4 | Version::V5 => {}
        }
    }
    Ok(())
}

/// Holds an UNSUBSCRIBE to 3.10.
pub(super) fn unsubscribe(version: Version, frame: &Frame<'_>) -> Result<(), Reason> {
    let mut r = Reader { rest: frame.body };
    r.packet_id()?;
    if version == Version::V5 {
        properties::read(Place::Unsubscribe, &mut r, |_, _, _| {})?;
    }
    if r.rest.is_empty() {
        return Err(Reason::ProtocolError);
    }
    while !r.rest.is_empty() {
        r.string()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    type Check = fn(Version, &Frame<'_>) -> Result<(), Reason>;

    fn check(check: Check, version: Version, head: u8, body: &[u8]) -> Result<(), Reason> {
        let mut packet = vec![head, u8::try_from(body.len()).unwrap()];
        packet.extend_from_slice(body);
        check(version, &frame::next(&packet, 1000).unwrap().unwrap())
    }

    /// A CONNECT of MQTT 5 with these flags, properties, and what comes after the client identifier.
    fn connect_v5(flags: u8, properties: &[u8], tail: &[u8]) -> Result<(), Reason> {
        let mut body = b"\0\x04MQTT\x05".to_vec();
        body.extend_from_slice(&[flags, 0, 60, u8::try_from(properties.len()).unwrap()]);
        body.extend_from_slice(properties);
        body.extend_from_slice(b"\0\x02id");
        body.extend_from_slice(tail);
        check(connect, Version::V5, 0x10, &body)
    }

    #[test]
    fn the_properties_of_a_connect_have_values_that_are_allowed() {
        use Reason::{Malformed, ProtocolError};
        let cases: [(&[u8], Result<(), Reason>); 16] = [
            (&[], Ok(())),
            (&[0x11, 0, 0, 0, 9, 0x21, 0, 1, 0x27, 0, 0, 0, 1, 0x22, 0, 0, 0x19, 1, 0x17, 0], Ok(())),
            (&[0x26, 0, 1, b'a', 0, 0, 0x26, 0, 1, b'a', 0, 0], Ok(())),
            (&[0x15, 0, 1, b'm', 0x16, 0, 1, 0xff], Ok(())),
            (&[0x21, 0, 0], Err(ProtocolError)),
            (&[0x27, 0, 0, 0, 0], Err(ProtocolError)),
            (&[0x17, 2], Err(ProtocolError)),
            (&[0x19, 2], Err(ProtocolError)),
            (&[0x21, 0, 1, 0x21, 0, 1], Err(ProtocolError)),
            (&[0x16, 0, 0], Err(ProtocolError)),
            (&[0x01, 0], Err(ProtocolError)),
            (&[0x12, 0, 0], Err(ProtocolError)),
            (&[0x26, 0, 1, 0, 0, 0], Err(Malformed)),
            (&[0x15, 0, 2, 0xc3, 0x28], Err(Malformed)),
            (&[0x7f], Err(Malformed)),
            (&[0x21, 0], Err(Malformed)),
        ];
        for (properties, expected) in cases {
            assert_eq!(connect_v5(2, properties, &[]), expected, "{properties:02x?}");
        }
    }

    #[test]
    fn a_will_a_name_and_a_password_are_there_if_the_flags_say_so() {
        use Reason::{Malformed, ProtocolError};
        let cases: [(u8, &[u8], Result<(), Reason>); 12] = [
            (0x06, b"\0\0\x01w\0\x01x", Ok(())),
            (0x06, b"\x02\x01\x01\0\x01w\0\x01x", Ok(())),
            (0x06, b"\x02\x01\x02\0\x01w\0\x01x", Err(ProtocolError)),
            (0x06, b"\x05\x08\0\x02a+\0\x01w\0\x01x", Err(ProtocolError)),
            (0x06, b"\x03\x23\0\x01\0\x01w\0\x01x", Err(Reason::TopicAliasInvalid)),
            (0x06, b"\0\0\x01\0\0\x01x", Err(Malformed)),
            (0x1e, b"\0\0\x01w\0\x01x", Err(Malformed)),
            (0x0a, b"", Err(Malformed)),
            (0x22, b"", Err(Malformed)),
            (0x82, b"\0\x01\0", Err(Malformed)),
            (0x42, b"\0\x02\xff\xff", Ok(())),
            (0x02, b"x", Err(Malformed)),
        ];
        for (flags, tail, expected) in cases {
            assert_eq!(connect_v5(flags, &[], tail), expected, "{flags:#x} {tail:02x?}");
        }
        let v4 = |flags: u8, tail: &[u8]| {
            let body = [b"\0\x04MQTT\x04", &[flags, 0, 60][..], b"\0\x02id", tail].concat();
            check(connect, Version::V4, 0x10, &body)
        };
        assert_eq!(v4(0xc2, b"\0\x01u\0\x01p"), Ok(()));
        assert_eq!(v4(0x42, b"\0\x01p"), Err(Malformed), "a password needs a name");
    }

    #[test]
    fn the_options_of_a_subscription_have_values_that_are_allowed() {
        use Reason::{Malformed, ProtocolError};
        let v5: [(&[u8], Result<(), Reason>); 9] = [
            (b"\0\x09\0\0\x01a\x2e", Ok(())),
            (b"\0\x09\x02\x0b\x01\0\x01a\x01", Ok(())),
            (b"\0\x09\x02\x0b\0\0\x01a\x01", Err(ProtocolError)),
            (b"\0\x09\0\0\x01a\x03", Err(ProtocolError)),
            (b"\0\x09\0\0\x01a\x30", Err(ProtocolError)),
            (b"\0\x09\0\0\x01a\x40", Err(Malformed)),
            (b"\0\x09\0\0\x01\0\x01", Err(Malformed)),
            (b"\0\0\0\0\x01a\x01", Err(ProtocolError)),
            (b"\0\x09\0", Err(ProtocolError)),
        ];
        for (body, expected) in v5 {
            assert_eq!(check(subscribe, Version::V5, 0x82, body), expected, "{body:02x?}");
        }
        assert_eq!(check(subscribe, Version::V4, 0x82, b"\0\x09\0\x01a\x02"), Ok(()));
        assert_eq!(check(subscribe, Version::V4, 0x82, b"\0\x09\0\x01a\x04"), Err(Malformed));
        assert_eq!(check(unsubscribe, Version::V5, 0xa2, b"\0\x09\0\0\x01a"), Ok(()));
        assert_eq!(check(unsubscribe, Version::V5, 0xa2, b"\0\x09\0"), Err(ProtocolError));
        assert_eq!(check(unsubscribe, Version::V4, 0xa2, b"\0\x09\0\x01\0"), Err(Malformed));
    }
}
