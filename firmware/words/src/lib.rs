//! Words and numbers put one after another as text: what the log, and the reason of a panic, are made of.
//!
//! In place of `core::fmt`: that is reached through pointers to functions, so that as soon as one line is formatted by
//! it, 8 KB of flash go to everything that any text could ever ask for.

#![no_std]

/// A piece of text.
#[derive(Debug, Clone, Copy)]
pub enum Word<'a> {
    /// As it is.
    Text(&'a str),
    /// In decimal.
    Number(u64),
    /// In hexadecimal, after `0x`.
    Address(u32),
}

impl<'a> From<&'a str> for Word<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Word<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Word<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u8> for Word<'_> {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Word<'_> {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

/// Gives the text of `words` to `out`, piece by piece. All of it is UTF-8, and no piece ends inside a character.
// By a pointer, so that it is in the image once, whatever takes the text.
#[inline(never)]
pub fn say(words: &[Word<'_>], out: &mut dyn FnMut(&[u8])) {
    for word in words {
        match *word {
            Word::Text(text) => out(text.as_bytes()),
            Word::Number(number) => digits(number, 10, 0, out),
            Word::Address(address) => {
                out(b"0x");
                digits(address.into(), 16, 0, out);
            }
        }
    }
}

/// Gives `number` in decimal to `out`, after as many spaces as make it `width` characters (at most 20).
pub fn say_aligned(number: u64, width: usize, out: &mut dyn FnMut(&[u8])) {
    digits(number, 10, width, out);
}

#[inline(never)]
fn digits(mut number: u64, base: u64, width: usize, out: &mut dyn FnMut(&[u8])) {
    // As many as the greatest number has in decimal.
    let mut text = [b' '; 20];
    let len = text.len();
    let mut used = 0;
    for place in text.iter_mut().rev() {
        *place = match u8::try_from(number % base) {
            Ok(digit @ 0..=9) => b'0' + digit,
            Ok(digit) => b'a' + (digit - 10),
            Err(_) => b'?',
        };
        used += 1;
        number /= base;
        if number == 0 {
            break;
        }
    }
    let start = len.saturating_sub(used.max(width));
    out(text.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn text(words: &[Word<'_>]) -> String {
        let mut bytes = Vec::new();
        say(words, &mut |piece| bytes.extend_from_slice(piece));
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn words_and_numbers_stand_as_they_are() {
        assert_eq!(
            text(&["stack: ".into(), 0_u32.into(), " of ".into(), u64::MAX.into()]),
            "stack: 0 of 18446744073709551615"
        );
        assert_eq!(text(&["at ".into(), Word::Address(0xDEAD_01B0)]), "at 0xdead01b0");
        assert_eq!(text(&[Word::Address(0), Word::from(10_usize), Word::from(99_u8)]), "0x01099");
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn numbers_are_aligned_and_never_cut() {
        for (number, width, aligned) in
            [(7, 8, "       7"), (123_456_789, 8, "123456789"), (0, 0, "0"), (5, 99, "                   5")]
        {
            let mut bytes = Vec::new();
            say_aligned(number, width, &mut |piece| bytes.extend_from_slice(piece));
            assert_eq!(bytes, aligned.as_bytes());
        }
    }
}
