//! Reading CBOR of unknown origin, and what is said of what cannot be read.
//!
//! minicbor reads heads, numbers and strings. What it leaves to us: arrays and maps of either length form read item by
//! item, skipping opaque items without an allocator and with bounded nesting, and refusals that name their place.

use core::convert::Infallible;
use core::fmt;

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode;
use minicbor::encode::write::EndOfSlice;

use crate::text::Text;

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

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Truncated => f.write_str("ends inside an item")?,
            What::TrailingBytes => f.write_str("bytes after the end")?,
            What::NotWellFormed => f.write_str("not well-formed CBOR")?,
            What::Expected(what) => write!(f, "expected {what}")?,
            What::Missing(what) => write!(f, "{what} is missing")?,
            What::TooDeep => write!(f, "nested deeper than {NESTING_MAX}")?,
            What::TooLong { len_max } => write!(f, "longer than {len_max} bytes")?,
            What::NoEvents => f.write_str("no events")?,
            What::TooManyEvents => write!(f, "more than {} events", crate::uplink::UPLINK_EVENTS_MAX)?,
            What::NotConsecutive { expected } => write!(f, "expected seq {expected}")?,
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

impl From<EndOfSlice> for NoRoom {
    fn from(_: EndOfSlice) -> Self {
        NoRoom
    }
}

impl From<Infallible> for NoRoom {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl<E: Into<NoRoom>> From<minicbor::encode::Error<E>> for NoRoom {
    fn from(_: minicbor::encode::Error<E>) -> Self {
        // Writing plain items to a slice has one way to fail.
        NoRoom
    }
}

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

/// Items left in an array, or entries left in a map: counted, or until a break.
pub(crate) struct Items(Option<u64>);

/// A cursor over CBOR bytes.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    decoder: Decoder<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(bytes) }
    }

    /// A reader of the same bytes that starts at `position`, so that places in refusals stay true.
    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Self {
        let mut reader = Self::new(bytes);
        reader.decoder.set_position(position);
        reader
    }

    pub(crate) fn position(&self) -> usize {
        self.decoder.position()
    }

    pub(crate) fn refuse<T>(&self, what: What) -> Result<T, Malformed> {
        Err(Malformed { at: self.position(), what })
    }

    /// The bytes must end here.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.position() == self.decoder.input().len() { Ok(()) } else { self.refuse(What::TrailingBytes) }
    }

    fn read<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, decode::Error>,
    ) -> Result<T, Malformed> {
        let at = self.position();
        read(&mut self.decoder).map_err(|error| {
            let what = if error.is_end_of_input() {
                What::Truncated
            } else if self.is_unreadable_at(at) {
                What::NotWellFormed
            } else {
                What::Expected(expected)
            };
            Malformed { at, what }
        })
    }

    /// Whether the item at `at` has a head that no CBOR item has, or is text that is no UTF-8.
    fn is_unreadable_at(&self, at: usize) -> bool {
        let mut probe = Self::at(self.decoder.input(), at);
        matches!(probe.skip(), Err(Malformed { what: What::NotWellFormed, .. }))
    }

    pub(crate) fn u64(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        self.read(expected, Decoder::u64)
    }

    pub(crate) fn u32(&mut self, expected: &'static str) -> Result<u32, Malformed> {
        self.read(expected, Decoder::u32)
    }

    pub(crate) fn u16(&mut self, expected: &'static str) -> Result<u16, Malformed> {
        self.read(expected, Decoder::u16)
    }

    pub(crate) fn i64(&mut self, expected: &'static str) -> Result<i64, Malformed> {
        self.read(expected, Decoder::i64)
    }

    pub(crate) fn bool(&mut self, expected: &'static str) -> Result<bool, Malformed> {
        self.read(expected, Decoder::bool)
    }

    pub(crate) fn datatype(&self) -> Result<Type, Malformed> {
        self.decoder.datatype().map_err(|_| Malformed { at: self.position(), what: What::Truncated })
    }

    /// Any CBOR number; an integer beyond 2^53 is rounded to the nearest `f64`.
    pub(crate) fn f64(&mut self, expected: &'static str) -> Result<f64, Malformed> {
        match self.datatype()? {
            Type::F16 | Type::F32 | Type::F64 => self.read(expected, Decoder::f64),
            _ => self.read(expected, Decoder::int).map(|int| {
                #[expect(clippy::cast_precision_loss, reason = "documented: rounded")]
                let rounded = i128::from(int) as f64;
                rounded
            }),
        }
    }

    /// A number, or null for none.
    pub(crate) fn optional_u64(&mut self, expected: &'static str) -> Result<Option<u64>, Malformed> {
        if self.datatype()? == Type::Null {
            self.read(expected, Decoder::null)?;
            return Ok(None);
        }
        self.u64(expected).map(Some)
    }

    pub(crate) fn array(&mut self, expected: &'static str) -> Result<Items, Malformed> {
        self.read(expected, Decoder::array).map(Items)
    }

    pub(crate) fn map(&mut self, expected: &'static str) -> Result<Items, Malformed> {
        self.read(expected, Decoder::map).map(Items)
    }

    /// Whether another item (or entry) follows; consumes the break of an indefinite-length array or map.
    pub(crate) fn more(&mut self, items: &mut Items) -> Result<bool, Malformed> {
        match &mut items.0 {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.datatype()? == Type::Break => {
                self.decoder.set_position(self.position() + 1);
                items.0 = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// The array must have another item, called `name`.
    pub(crate) fn must_have(&mut self, items: &mut Items, name: &'static str) -> Result<(), Malformed> {
        if self.more(items)? { Ok(()) } else { self.refuse(What::Missing(name)) }
    }

    /// Skips what a later version of the contract may have added at the end of an array.
    pub(crate) fn skip_rest(&mut self, items: &mut Items) -> Result<(), Malformed> {
        while self.more(items)? {
            self.skip()?;
        }
        Ok(())
    }

    /// The next item, raw, whatever it is.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.position();
        self.skip()?;
        Ok(self.since(start))
    }

    /// The bytes read since the reader was at `start`.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.decoder.input()[start..self.position()]
    }

    /// Bytes in one piece.
    #[cfg(feature = "alloc")]
    pub(crate) fn whole_bytes(&mut self, expected: &'static str) -> Result<&'a [u8], Malformed> {
        self.read(expected, Decoder::bytes)
    }

    /// Text in one piece or in chunks.
    pub(crate) fn text(&mut self, expected: &'static str) -> Result<Text<'a>, Malformed> {
        if self.datatype()? == Type::StringIndef {
            return Ok(Text::chunked(self.raw()?));
        }
        self.read(expected, Decoder::str).map(Text::from)
    }

    /// An [`crate::Id`] or a [`crate::Kind`].
    pub(crate) fn name<N: core::str::FromStr>(&mut self, expected: &'static str) -> Result<N, Malformed> {
        let at = self.position();
        let text = self.text(expected)?;
        let mut inline = crate::Inline::<{ crate::NAME_LEN_MAX }>::new();
        text.chunks()
            .try_for_each(|chunk| inline.push_str(chunk))
            .ok()
            .and_then(|()| inline.parse().ok())
            .ok_or(Malformed { at, what: What::Expected(expected) })
    }

    /// Skips one item of any kind, checking that it is well-formed and not nested too deeply.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_nested(NESTING_MAX)
    }

    /// The same, with room for fewer levels where some have been entered already.
    pub(crate) fn skip_nested(&mut self, levels_left: usize) -> Result<(), Malformed> {
        let at = self.position();
        let d = &mut self.decoder;
        let scalar = match d.datatype() {
            Err(error) => Err(error),
            Ok(Type::Unknown(_) | Type::Break) => return self.refuse(What::NotWellFormed),
            Ok(Type::Array | Type::ArrayIndef | Type::Map | Type::MapIndef | Type::Tag) => {
                return self.skip_container(levels_left);
            }
            Ok(Type::Bytes | Type::BytesIndef) => {
                d.bytes_iter().and_then(|mut chunks| chunks.try_for_each(|chunk| chunk.map(drop)))
            }
            Ok(Type::String | Type::StringIndef) => {
                d.str_iter().and_then(|mut chunks| chunks.try_for_each(|chunk| chunk.map(drop)))
            }
            Ok(Type::Bool) => d.bool().map(drop),
            Ok(Type::Null) => d.null(),
            Ok(Type::Undefined) => d.undefined(),
            Ok(Type::F16 | Type::F32 | Type::F64) => d.f64().map(drop),
            Ok(Type::Simple) => match (d.input()[at], d.simple()) {
                // RFC 8949 §3.3: simple values below 32 have no two-byte form.
                (0xf8, Ok(0..32)) => return Err(Malformed { at, what: What::NotWellFormed }),
                (_, simple) => simple.map(drop),
            },
            Ok(_) => d.int().map(drop),
        };
        scalar.map_err(|error| Malformed {
            at,
            what: if error.is_end_of_input() { What::Truncated } else { What::NotWellFormed },
        })
    }

    fn skip_container(&mut self, levels_left: usize) -> Result<(), Malformed> {
        let Some(levels_left) = levels_left.checked_sub(1) else {
            return self.refuse(What::TooDeep);
        };
        match self.datatype()? {
            Type::Tag => {
                self.read("a tag", Decoder::tag)?;
                self.skip_nested(levels_left)
            }
            Type::Array | Type::ArrayIndef => {
                let mut items = self.array("an array")?;
                while self.more(&mut items)? {
                    self.skip_nested(levels_left)?;
                }
                Ok(())
            }
            _ => {
                let mut entries = self.map("a map")?;
                while self.more(&mut entries)? {
                    self.skip_nested(levels_left)?;
                    self.skip_nested(levels_left)?;
                }
                Ok(())
            }
        }
    }
}
