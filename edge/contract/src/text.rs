//! Text as it stands in a message.

use core::fmt::{self, Write as _};

use crate::cbor::Reader;

/// UTF-8 text borrowed from a message: nearly always in one piece, but CBOR lets a writer send it in chunks
/// (RFC 8949 §3.2.3), and without an allocator they cannot be joined.
#[derive(Clone, Copy)]
pub struct Text<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Whole(&'a str),
    /// A well-formed indefinite-length text item, head and break included.
    Chunked(&'a [u8]),
}

impl<'a> Text<'a> {
    /// `item` has been read as a well-formed indefinite-length text.
    pub(crate) fn chunked(item: &'a [u8]) -> Self {
        Self(Form::Chunked(item))
    }

    /// The text, if it came in one piece.
    pub fn as_str(&self) -> Option<&'a str> {
        match self.0 {
            Form::Whole(text) => Some(text),
            Form::Chunked(_) => None,
        }
    }

    /// The pieces in order.
    pub fn chunks(&self) -> Chunks<'a> {
        match self.0 {
            Form::Whole(text) => Chunks { whole: Some(text), chunked: Reader::new(&[]) },
            Form::Chunked(item) => Chunks { whole: None, chunked: Reader::at(item, 1) },
        }
    }

    /// Length in bytes of UTF-8.
    pub fn len(&self) -> usize {
        self.chunks().map(str::len).sum()
    }

    /// Whether it is the empty text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text in one piece.
    #[cfg(feature = "alloc")]
    pub fn to_cow(&self) -> alloc::borrow::Cow<'a, str> {
        match self.0 {
            Form::Whole(text) => text.into(),
            Form::Chunked(_) => self.chunks().collect::<alloc::string::String>().into(),
        }
    }
}

/// The pieces of a [`Text`].
#[derive(Clone)]
pub struct Chunks<'a> {
    whole: Option<&'a str>,
    chunked: Reader<'a>,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        // The break at the end is no text, which ends the iteration.
        self.whole.take().or_else(|| self.chunked.chunk())
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Form::Whole(text))
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunks().try_for_each(|chunk| f.write_str(chunk))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped as `str` does it: what a device says must not write to a terminal.
        f.write_char('"')?;
        self.chunks().try_for_each(|chunk| write!(f, "{}", chunk.escape_debug()))?;
        f.write_char('"')
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Form::Whole(this), Form::Whole(other)) => this == other,
            _ => self.chunks().flat_map(str::bytes).eq(other.chunks().flat_map(str::bytes)),
        }
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        *self == Text::from(other)
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == Text::from(*other)
    }
}
