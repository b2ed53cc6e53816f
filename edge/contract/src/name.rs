//! Names: identifiers of sites, gateways, devices and sensors, and kinds of events.
//!
//! They are short and kept inline, so that they can be copied around without an allocator, and they hold nothing that
//! is a wildcard or a separator in MQTT or NATS.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;
use core::str::FromStr;

/// The most bytes an [`Id`] or a [`Kind`] can have.
pub const NAME_LEN_MAX: usize = 32;

/// A short string of at most `N` (≤ 255) bytes, kept inline.
#[derive(Clone, Copy)]
pub struct Inline<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Inline<N> {
    const FITS_ITS_LENGTH: () = assert!(N <= u8::MAX as usize, "the length is kept in one byte");

    /// The empty string.
    pub(crate) const fn new() -> Self {
        let () = Self::FITS_ITS_LENGTH;
        Self { len: 0, bytes: [0; N] }
    }

    /// Appends `part` whole, or nothing of it.
    pub(crate) fn push_str(&mut self, part: &str) -> Result<(), fmt::Error> {
        let start = usize::from(self.len);
        let end = start + part.len();
        self.bytes.get_mut(start..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.len = u8::try_from(end).map_err(|_| fmt::Error)?;
        Ok(())
    }

    /// Joins parts whose lengths are bounded by their types.
    pub(crate) fn concat(parts: &[&str]) -> Self {
        let mut whole = Self::new();
        for part in parts {
            whole.push_str(part).expect("N is the sum of the parts' greatest lengths");
        }
        whole
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.len)];
        // Only whole `str`s are ever appended; checking again is cheaper than explaining `unsafe`.
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl<const N: usize> Deref for Inline<N> {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> fmt::Display for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Why a string is no [`Id`] or no [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadName {
    expected: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
}

impl core::error::Error for BadName {}

/// Declares a name type: which bytes it may hold, and what to say of one that holds others.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(Inline<NAME_LEN_MAX>);

        impl $name {
            /// The most bytes this name can have.
            pub const LEN_MAX: usize = NAME_LEN_MAX;

            /// The name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let bad = BadName { expected: $expected };
                let allowed: fn(&u8) -> bool = $allowed;
                if text.is_empty() || !text.as_bytes().iter().all(allowed) {
                    return Err(bad);
                }
                let mut inline = Inline::new();
                inline.push_str(text).map_err(|_| bad)?;
                Ok(Self(inline))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = BadName;
            fn try_from(text: &str) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        // Agrees with `Hash`, `Eq` and `Ord` below, so that maps keyed by names can be asked with a `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Eq for $name {}

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                self.as_str().cmp(other.as_str())
            }
        }

        impl core::hash::Hash for $name {
            fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The name of a site, a gateway, a device or a sensor: `[A-Za-z0-9_-]{1,32}`.
    Id,
    "a name is 1 to 32 of A-Z a-z 0-9 _ -",
    |byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-'
}

name! {
    /// The kind of an event, in the past tense: `[a-z0-9-]{1,32}`.
    Kind,
    "a kind is 1 to 32 of a-z 0-9 -",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-'
}
