//! MQTT's data types (MQTT 5, 1.5), read where they lie. Whatever is missing is `Malformed`.

use super::reason::Reason;

/// Reads from the beginning of `rest`.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Reason::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, Reason> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Reason> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn u32(&mut self) -> Result<u32, Reason> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn varint(&mut self) -> Result<usize, Reason> {
        let (value, len) = varint(self.rest)?.ok_or(Reason::Malformed)?;
        self.take(len)?;
        Ok(value)
    }

    pub fn binary(&mut self) -> Result<&'a [u8], Reason> {
        let len = usize::from(self.u16()?);
        self.take(len)
    }

    /// UTF-8 without U+0000.
    pub fn string(&mut self) -> Result<&'a str, Reason> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Reason::Malformed)?;
        if text.as_bytes().contains(&0) { Err(Reason::Malformed) } else { Ok(text) }
    }

    /// A packet identifier, which is never 0 (MQTT 5, 2.2.1).
    pub fn packet_id(&mut self) -> Result<u16, Reason> {
        match self.u16()? {
            0 => Err(Reason::ProtocolError),
            packet_id => Ok(packet_id),
        }
    }

    /// Nothing may follow.
    pub fn end(&self) -> Result<(), Reason> {
        if self.rest.is_empty() { Ok(()) } else { Err(Reason::Malformed) }
    }
}

/// A variable byte integer and how many bytes it takes; `None` if it does not end here.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Reason> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Reason::Malformed) }
}
