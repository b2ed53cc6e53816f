//! CRC-32 as of ISO-HDLC (Ethernet, zip): 64 bytes of table, for programs that count their flash.

/// The remainders of four bits, reflected polynomial 0xEDB88320.
const TABLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut nibble = 0;
    while nibble < table.len() {
        #[expect(clippy::cast_possible_truncation, reason = "below 16")]
        let mut remainder = nibble as u32;
        let mut bit = 0;
        while bit < 4 {
            remainder = if remainder & 1 == 1 { (remainder >> 1) ^ 0xEDB8_8320 } else { remainder >> 1 };
            bit += 1;
        }
        table[nibble] = remainder;
        nibble += 1;
    }
    table
};

/// A checksum over bytes that come piece by piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc(u32);

impl Crc {
    pub(crate) const fn new() -> Self {
        Self(u32::MAX)
    }

    #[must_use]
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let step = |crc: u32, nibble: u32| (crc >> 4) ^ TABLE[((crc ^ nibble) & 0xf) as usize];
        Self(bytes.iter().fold(self.0, |crc, &byte| {
            let byte = u32::from(byte);
            step(step(crc, byte), byte >> 4)
        }))
    }

    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_comes_out_in_any_pieces() {
        // https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-32-iso-hdlc
        assert_eq!(Crc::new().add(b"123456789").value(), 0xCBF4_3926);
        assert_eq!(Crc::new().add(b"1234").add(b"").add(b"56789").value(), 0xCBF4_3926);
    }
}
