//! Reading items one after another.

#[cfg(feature = "alloc")]
use super::BYTES_IN_CHUNKS;
use super::float::widened;
use super::{
    ARRAY, BREAK, BYTES, EIGHT_BYTES, FALSE, INDEFINITE, MAP, Malformed, NEGATIVE, NESTING_MAX, NULL,
    ONE_BYTE, OTHER, TAG, TEXT, TEXT_IN_CHUNKS, TRUE, TWO_BYTES, UNSIGNED, What,
};
use crate::text::Text;

/// Items left in an array, or entries left in a map: counted, or until a break.
pub struct Items(Option<u64>);

impl Items {
    /// How many are left, if that was told beforehand.
    pub fn counted(&self) -> Option<u64> {
        self.0
    }
}

/// The head of an item.
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    /// The lower five bits of the first byte.
    info: u8,
    /// 0 where the length is indefinite.
    argument: u64,
}

impl Head {
    fn is_indefinite(self) -> bool {
        self.info == INDEFINITE
    }

    fn unsigned(self, max: u64) -> Option<u64> {
        (self.major == UNSIGNED && self.argument <= max).then_some(self.argument)
    }

    fn i64(self) -> Option<i64> {
        let magnitude = i64::try_from(self.argument).ok()?;
        match self.major {
            UNSIGNED => Some(magnitude),
            NEGATIVE => Some(-1 - magnitude),
            _ => None,
        }
    }

    fn bool(self) -> Option<bool> {
        match (self.major, self.info) {
            (OTHER, FALSE) => Some(false),
            (OTHER, TRUE) => Some(true),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "documented: rounded")]
    fn f64(self) -> Option<f64> {
        match (self.major, self.info) {
            (UNSIGNED, _) => Some(self.argument as f64),
            (NEGATIVE, _) => Some(match self.argument.checked_add(1) {
                Some(magnitude) => -(magnitude as f64),
                None => -18_446_744_073_709_551_616.0,
            }),
            (OTHER, TWO_BYTES..=EIGHT_BYTES) => Some(widened(self.argument, self.info)),
            _ => None,
        }
    }

    fn items(self, major: u8) -> Option<Items> {
        (self.major == major).then_some(Items(if self.is_indefinite() { None } else { Some(self.argument) }))
    }
}

/// A cursor over CBOR bytes.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::at(bytes, 0)
    }

    /// A reader of the same bytes that starts at `position`, so that places in refusals stay true.
    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, at: position }
    }

    /// Where the next item begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Says what is wrong here.
    ///
    /// # Errors
    /// Always: that is what it is for.
    pub fn refuse<T>(&self, what: What) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, what })
    }

    /// The bytes must end here.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { self.refuse(What::TrailingBytes) }
    }

    /// The first byte of the next item.
    pub(crate) fn peek(&self) -> Result<u8, Malformed> {
        self.bytes.get(self.at).copied().ok_or(Malformed { at: self.at, what: What::Truncated })
    }

    /// So many bytes.
    fn take(&mut self, len: u64) -> Result<&'a [u8], What> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(What::Truncated)?;
        self.at += taken.len();
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, What> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        let (major, info) = (first >> 5, first & 0x1F);
        let argument = match info {
            0..ONE_BYTE => u64::from(info),
            ONE_BYTE..=EIGHT_BYTES => {
                let bytes = self.take(1 << (info - ONE_BYTE))?;
                bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            INDEFINITE if !matches!(major, UNSIGNED | NEGATIVE | TAG) => 0,
            _ => return Err(What::NotWellFormed),
        };
        Ok(Head { major, info, argument })
    }

    /// Reads an item that is nothing but a head, or the head of one.
    fn read<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(Head) -> Option<T>,
    ) -> Result<T, Malformed> {
        let start = self.at;
        match self.head() {
            Ok(head) => read(head).ok_or_else(|| self.unexpected(start, expected)),
            Err(what) => Err(Malformed { at: start, what }),
        }
    }

    /// What is at `start` is not what was expected there; or cannot be read by anybody.
    #[inline(never)]
    fn unexpected(&self, start: usize, expected: &'static str) -> Malformed {
        let skipped = Self::at(self.bytes, start).skip();
        let unreadable = matches!(skipped, Err(Malformed { what: What::NotWellFormed, .. }));
        Malformed { at: start, what: if unreadable { What::NotWellFormed } else { What::Expected(expected) } }
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// There is none.
    pub fn u64(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        self.unsigned(expected, u64::MAX)
    }

    /// An unsigned integer below 2^32.
    ///
    /// # Errors
    /// There is none.
    pub fn u32(&mut self, expected: &'static str) -> Result<u32, Malformed> {
        #[expect(clippy::cast_possible_truncation, reason = "not greater")]
        self.unsigned(expected, u32::MAX.into()).map(|number| number as u32)
    }

    pub(crate) fn u16(&mut self, expected: &'static str) -> Result<u16, Malformed> {
        #[expect(clippy::cast_possible_truncation, reason = "not greater")]
        self.unsigned(expected, u16::MAX.into()).map(|number| number as u16)
    }

    #[inline(never)]
    fn unsigned(&mut self, expected: &'static str, max: u64) -> Result<u64, Malformed> {
        self.read(expected, |head| head.unsigned(max))
    }

    pub(crate) fn i64(&mut self, expected: &'static str) -> Result<i64, Malformed> {
        self.read(expected, Head::i64)
    }

    /// Yes or no.
    ///
    /// # Errors
    /// It is something else.
    pub fn bool(&mut self, expected: &'static str) -> Result<bool, Malformed> {
        self.read(expected, Head::bool)
    }

    /// Any CBOR number; an integer beyond 2^53 is rounded to the nearest `f64`.
    ///
    /// # Errors
    /// It is none.
    #[inline(never)]
    pub fn f64(&mut self, expected: &'static str) -> Result<f64, Malformed> {
        self.read(expected, Head::f64)
    }

    /// A number, or null for none.
    pub(crate) fn optional_u64(&mut self, expected: &'static str) -> Result<Option<u64>, Malformed> {
        if self.null()? { Ok(None) } else { self.u64(expected).map(Some) }
    }

    /// Whether a null is next, which is read then.
    ///
    /// # Errors
    /// The bytes end here.
    pub fn null(&mut self) -> Result<bool, Malformed> {
        let null = self.peek()? == NULL;
        self.at += usize::from(null);
        Ok(null)
    }

    /// The beginning of an array.
    ///
    /// # Errors
    /// There is none.
    pub fn array(&mut self, expected: &'static str) -> Result<Items, Malformed> {
        self.items(expected, ARRAY)
    }

    /// The beginning of a map.
    ///
    /// # Errors
    /// There is none.
    pub fn map(&mut self, expected: &'static str) -> Result<Items, Malformed> {
        self.items(expected, MAP)
    }

    #[inline(never)]
    fn items(&mut self, expected: &'static str, major: u8) -> Result<Items, Malformed> {
        self.read(expected, |head| head.items(major))
    }

    /// Whether another item (or entry) follows; consumes the break of an indefinite-length array or map.
    ///
    /// # Errors
    /// The bytes end here.
    pub fn more(&mut self, items: &mut Items) -> Result<bool, Malformed> {
        match &mut items.0 {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.peek()? == BREAK => {
                self.at += 1;
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
        let start = self.at;
        self.skip()?;
        Ok(self.since(start))
    }

    /// The bytes read since the reader was at `start`.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Bytes in one piece.
    #[cfg(feature = "alloc")]
    pub(crate) fn whole_bytes(&mut self, expected: &'static str) -> Result<&'a [u8], Malformed> {
        self.whole(expected, BYTES)
    }

    /// The pieces of bytes that are in chunks, joined; `None` if they are in one piece.
    #[cfg(feature = "alloc")]
    pub(crate) fn joined_bytes(&mut self) -> Result<Option<alloc::vec::Vec<u8>>, Malformed> {
        if self.peek()? != BYTES_IN_CHUNKS {
            return Ok(None);
        }
        let item = self.raw()?;
        let mut chunks = Reader::at(item, 1);
        // `raw` has found every chunk well-formed; the break at the end is none.
        Ok(Some(core::iter::from_fn(|| chunks.whole_bytes("a chunk").ok()).flatten().copied().collect()))
    }

    /// A string of this type, in one piece.
    fn whole(&mut self, expected: &'static str, major: u8) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        let string = |head: Head| (head.major == major && !head.is_indefinite()).then_some(head.argument);
        let len = self.read(expected, string)?;
        self.take(len).map_err(|what| Malformed { at: start, what })
    }

    /// Text in one piece or in chunks.
    ///
    /// # Errors
    /// There is none, or it is no UTF-8.
    #[inline(never)]
    pub fn text(&mut self, expected: &'static str) -> Result<Text<'a>, Malformed> {
        if self.peek()? == TEXT_IN_CHUNKS {
            return Ok(Text::chunked(self.raw()?));
        }
        let at = self.at;
        let text = core::str::from_utf8(self.whole(expected, TEXT)?);
        text.map(Text::from).map_err(|_| Malformed { at, what: What::NotWellFormed })
    }

    /// The next piece of text that has been read as well-formed; `None` at its end.
    pub(crate) fn chunk(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.whole("a chunk", TEXT).ok()?).ok()
    }

    /// An [`crate::Id`] or a [`crate::Kind`].
    pub(crate) fn name<N: core::str::FromStr>(&mut self, expected: &'static str) -> Result<N, Malformed> {
        let at = self.at;
        let text = self.text(expected)?;
        let mut inline = crate::Inline::<{ crate::NAME_LEN_MAX }>::new();
        text.chunks()
            .try_for_each(|chunk| inline.push_str(chunk))
            .ok()
            .and_then(|()| inline.parse().ok())
            .ok_or(Malformed { at, what: What::Expected(expected) })
    }

    /// Skips one item of any kind, checking that it is well-formed and not nested too deeply.
    ///
    /// # Errors
    /// It is not.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_nested(NESTING_MAX)
    }

    /// The same, with room for fewer levels where some have been entered already.
    pub(crate) fn skip_nested(&mut self, levels_left: usize) -> Result<(), Malformed> {
        let start = self.at;
        let refused = |what| Malformed { at: start, what };
        let head = self.head().map_err(refused)?;
        // A map's entry has two items, what a tag is put on is one.
        let (mut items, each) = match head.major {
            UNSIGNED | NEGATIVE => return Ok(()),
            BYTES | TEXT => return self.skip_string(head).map_err(refused),
            ARRAY | MAP => (head.items(head.major), usize::from(head.major - ARRAY) + 1),
            TAG => (Some(Items(Some(1))), 1),
            // §3.3: simple values below 32 have no two-byte form, and a break is no item.
            _ if head.info == INDEFINITE || (head.info == ONE_BYTE && head.argument < 32) => {
                return Err(refused(What::NotWellFormed));
            }
            _ => return Ok(()),
        };
        let levels_left = levels_left.checked_sub(1).ok_or(refused(What::TooDeep))?;
        let Some(items) = &mut items else { return Ok(()) };
        while self.more(items)? {
            for _ in 0..each {
                self.skip_nested(levels_left)?;
            }
        }
        Ok(())
    }

    /// Skips what follows the head of a string.
    #[inline(never)]
    fn skip_string(&mut self, head: Head) -> Result<(), What> {
        let mut chunk = head;
        loop {
            if head.is_indefinite() {
                chunk = self.head()?;
                if (chunk.major, chunk.info) == (OTHER, INDEFINITE) {
                    return Ok(());
                }
                if chunk.major != head.major || chunk.is_indefinite() {
                    return Err(What::NotWellFormed);
                }
            }
            let bytes = self.take(chunk.argument)?;
            if head.major == TEXT && core::str::from_utf8(bytes).is_err() {
                return Err(What::NotWellFormed);
            }
            if !head.is_indefinite() {
                return Ok(());
            }
        }
    }
}
