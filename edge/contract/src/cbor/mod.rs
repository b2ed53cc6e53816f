//! CBOR (RFC 8949): reading bytes of unknown origin, what is said of those that cannot be read, and writing.
//!
//! Of our own, because a microcontroller carries it: a reader that copies nothing, needs no allocator, bounds nesting and
//! names the place in each refusal, and a writer whose errors wait until its end, take a third of the flash that a
//! general library for the same took. An independent one holds both to account in this crate's tests.

use core::fmt;

mod float;
mod read;
mod write;

pub use read::{Items, Reader};
pub use write::Writer;

/// How deep arrays, maps and tags may be nested in an opaque item (an event's body, a command's arguments).
pub const NESTING_MAX: usize = 16;

/// What makes bytes unreadable, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the offending item in the bytes given, from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: What,
}

/// What makes bytes unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The bytes end inside an item.
    Truncated,
    /// There is more after the item.
    TrailingBytes,
    /// No CBOR (RFC 8949 §5.3.1), or text that is no UTF-8.
    NotWellFormed,
    /// Well-formed, of another type or range than the contract says.
    Expected(&'static str),
    /// An array ends before, or a map lacks, this.
    Missing(&'static str),
    /// Nested deeper than [`NESTING_MAX`].
    TooDeep,
    /// Longer than the contract allows.
    TooLong {
        /// The most bytes allowed.
        len_max: usize,
    },
    /// An uplink without events.
    NoEvents,
    /// An uplink with more events than the contract allows.
    TooManyEvents,
    /// Numbers of events do not follow one another.
    NotConsecutive {
        /// The number that should be here.
        expected: u32,
    },
}

impl What {
    /// It in words: two that follow one another. For who has no room for `core::fmt`; numbers are left out.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            What::Truncated => ("ends inside an item", ""),
            What::TrailingBytes => ("bytes after the end", ""),
            What::NotWellFormed => ("not well-formed CBOR", ""),
            What::Expected(what) => ("expected ", what),
            What::Missing(what) => (what, " is missing"),
            What::TooDeep => ("nested too deep", ""),
            What::TooLong { .. } => ("too long", ""),
            What::NoEvents => ("no events", ""),
            What::TooManyEvents => ("too many events", ""),
            What::NotConsecutive { .. } => ("not consecutive", ""),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::TooDeep => write!(f, "nested deeper than {NESTING_MAX}")?,
            What::TooLong { len_max } => write!(f, "longer than {len_max} bytes")?,
            What::TooManyEvents => write!(f, "more than {} events", crate::uplink::UPLINK_EVENTS_MAX)?,
            What::NotConsecutive { expected } => write!(f, "expected seq {expected}")?,
            what => {
                let (first, second) = what.words();
                f.write_str(first)?;
                f.write_str(second)?;
            }
        }
        write!(f, ", at byte {}", self.at)
    }
}

impl core::error::Error for Malformed {}

/// The buffer is too small for what was to be written; its content is unspecified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is too small")
    }
}

impl core::error::Error for NoRoom {}

// Major types (RFC 8949 §3.1).
pub(crate) const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
/// Simple values, floats, and the break.
const OTHER: u8 = 7;

// What stands in a head's lower five bits in place of its argument (§3, §3.3).
const FALSE: u8 = 20;
const TRUE: u8 = 21;
const ONE_BYTE: u8 = 24;
const TWO_BYTES: u8 = 25;
const FOUR_BYTES: u8 = 26;
const EIGHT_BYTES: u8 = 27;
const INDEFINITE: u8 = 31;

// Items of one byte.
pub(crate) const NULL: u8 = 0xF6;
const BREAK: u8 = 0xFF;
#[cfg(feature = "alloc")]
const BYTES_IN_CHUNKS: u8 = 0x5F;
const TEXT_IN_CHUNKS: u8 = 0x7F;

/// The largest encoding of an unsigned integer, and of the head of any item.
pub(crate) const HEAD_LEN_MAX: usize = 9;

/// Bytes the head of an item with argument `n` takes in its shortest form.
#[cfg(feature = "alloc")]
pub(crate) const fn head_len(n: u64) -> usize {
    match n {
        0..=0x17 => 1,
        0x18..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The head of an item, in its shortest form, and how long it is.
pub(crate) fn head(major: u8, argument: u64) -> ([u8; HEAD_LEN_MAX], usize) {
    let bytes = argument.to_be_bytes();
    let (info, len) = match argument {
        #[expect(clippy::cast_possible_truncation, reason = "less than 24")]
        0..=0x17 => (argument as u8, 0),
        0x18..=0xff => (ONE_BYTE, 1),
        0x100..=0xffff => (TWO_BYTES, 2),
        0x1_0000..=0xffff_ffff => (FOUR_BYTES, 4),
        _ => (EIGHT_BYTES, 8),
    };
    let mut head = [0; HEAD_LEN_MAX];
    head[0] = major << 5 | info;
    head.iter_mut().skip(1).zip(&bytes[bytes.len() - len..]).for_each(|(to, from)| *to = *from);
    (head, 1 + len)
}
