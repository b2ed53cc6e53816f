//! Writing items one after another.

use super::float::shortest;
use super::{ARRAY, FALSE, MAP, NEGATIVE, NULL, NoRoom, ONE_BYTE, OTHER, TEXT, TRUE, UNSIGNED, head};
use crate::text::Text;

/// Writes items one after another into a buffer: definite lengths, shortest forms (RFC 8949 §4.2.1).
///
/// What finds no room is left out, and so is all that follows it: [`Writer::end`] tells.
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
    full: bool,
}

impl<'b> Writer<'b> {
    /// Starts at the beginning of `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0, full: false }
    }

    /// How many bytes have been written.
    ///
    /// # Errors
    /// [`NoRoom`] if `buffer` was too short.
    pub fn end(&self) -> Result<usize, NoRoom> {
        if self.full { Err(NoRoom) } else { Ok(self.len) }
    }

    /// One item, written already.
    #[inline(never)]
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let rest = self.buffer.get_mut(self.len..).unwrap_or_default();
        match rest.get_mut(..bytes.len()) {
            Some(room) if !self.full => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.full = true,
        }
        self
    }

    #[inline(never)]
    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let (head, len) = head(major, argument);
        self.raw(head.get(..len).unwrap_or_default())
    }

    /// The beginning of an array of so many items.
    pub fn array(&mut self, len: usize) -> &mut Self {
        self.head(ARRAY, len as u64)
    }

    /// The beginning of a map of so many entries.
    pub fn map(&mut self, len: usize) -> &mut Self {
        self.head(MAP, len as u64)
    }

    /// A number.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.head(UNSIGNED, number)
    }

    /// A number.
    pub fn i64(&mut self, number: i64) -> &mut Self {
        match u64::try_from(number) {
            Ok(number) => self.u64(number),
            // -1 - n is written as n, which is n with all bits turned.
            Err(_) => self.head(NEGATIVE, (!number).cast_unsigned()),
        }
    }

    /// The shortest float that keeps the value.
    #[inline(never)]
    pub fn float(&mut self, value: f64) -> &mut Self {
        let (info, bits) = shortest(value);
        let bytes = bits.to_be_bytes();
        let len = 1 << (info - ONE_BYTE);
        self.raw(&[OTHER << 5 | info]).raw(bytes.get(bytes.len() - len..).unwrap_or_default())
    }

    /// Yes or no.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(&[OTHER << 5 | if value { TRUE } else { FALSE }])
    }

    /// Nothing.
    pub fn null(&mut self) -> &mut Self {
        self.raw(&[NULL])
    }

    /// Text.
    #[inline(never)]
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64).raw(text.as_bytes())
    }

    /// Text, in one piece whatever it came in.
    pub fn text(&mut self, text: Text<'_>) -> &mut Self {
        self.head(TEXT, text.len() as u64);
        for chunk in text.chunks() {
            self.raw(chunk.as_bytes());
        }
        self
    }
}
