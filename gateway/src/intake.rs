//! Intake: is this payload an uplink? Pure; bodies stay opaque, so a kind nobody here knows passes through untouched.

use weir_contract::uplink::{UPLINK_LEN_MAX, Uplink};

/// The events an uplink carries, by name: `first ..= last` of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRun {
    /// The boot they were observed in.
    pub boot: u64,
    /// Number of the first event.
    pub first: u32,
    /// Number of the last event.
    pub last: u32,
}

impl SeqRun {
    /// How many events it has.
    #[must_use]
    pub const fn events(self) -> u64 {
        self.last.saturating_sub(self.first) as u64 + 1
    }
}

/// Why a payload is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than an uplink may be.
    #[error("the payload has {len} bytes, an uplink has at most {UPLINK_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not the CBOR of an uplink; says what and at which byte.
    #[error("the payload is not an uplink: {0}")]
    Malformed(#[source] weir_contract::Malformed),
}

impl Refusal {
    /// The reason code of an MQTT 5 PUBACK that refuses (MQTT 5.0 §3.4.2.1).
    pub const fn reason_code(&self) -> u8 {
        match self {
            Self::TooLong { .. } | Self::Malformed(_) => 0x99, // payload format invalid
        }
    }
}

/// Reads the frame of an uplink: which events it carries.
///
/// # Errors
/// [`Refusal`] if it is not an uplink that could ever be taken; sending it again is of no use.
pub fn read(payload: &[u8]) -> Result<SeqRun, Refusal> {
    if payload.len() > UPLINK_LEN_MAX {
        return Err(Refusal::TooLong { len: payload.len() });
    }
    let uplink = Uplink::read(payload).map_err(Refusal::Malformed)?;
    Ok(SeqRun { boot: uplink.header.boot, first: uplink.first_seq(), last: uplink.last_seq() })
}

#[cfg(test)]
mod tests {
    use weir_contract::uplink::{Event, Header, write};

    use super::*;

    fn uplink(seqs: std::ops::RangeInclusive<u32>) -> Vec<u8> {
        let kind = "reading-taken".parse().expect("a kind");
        let event = |seq| Event { seq, at: 5, kind, version: 1, body: &[0xa0] };
        let events: Vec<_> = seqs.map(event).collect();
        let mut buffer = vec![0; UPLINK_LEN_MAX];
        let header = Header { boot: 7, now: Some(9), epoch: None, via: None };
        let len = write(&mut buffer, &header, events.into_iter()).expect("room");
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn an_uplink_is_read_for_the_events_it_carries() {
        assert_eq!(read(&uplink(3..=8)), Ok(SeqRun { boot: 7, first: 3, last: 8 }));
    }

    #[test]
    fn what_is_no_uplink_is_refused_with_the_reason_and_the_place() {
        let whole = uplink(1..=3);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        let error = read(b"\x84\x01not an uplink").expect_err("it is none");
        assert!(error.to_string().contains("at byte"), "{error}");
        assert_eq!(error.reason_code(), 0x99);
        let long = vec![0; UPLINK_LEN_MAX + 1];
        assert_eq!(read(&long), Err(Refusal::TooLong { len: UPLINK_LEN_MAX + 1 }));
    }
}
