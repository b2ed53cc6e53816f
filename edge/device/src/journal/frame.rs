//! Frames: the unit in which the journal writes, each with its own checksum, never across a page.
//!
//! ```text
//! crc: u32 | len: u16 | tag: u8 | check: u8 | payload: len bytes | 0xFF up to the alignment
//! ```
//!
//! `crc` is over the salt and everything after itself; `check` is over the salt, `len` and `tag`, so that what is no
//! frame is seen without reading far. The salt is the page's generation: what an earlier lap has left is no frame.
//! Erased memory is no frame either, and is told apart from one that is broken.

use core::fmt;

use embedded_storage::nor_flash::NorFlash;

use crate::crc::Crc;

/// Bytes of a frame before its payload.
pub(super) const HEAD_LEN: usize = 8;
/// The same, as part of an address.
const HEAD: u32 = 8;

/// Why a write did not happen as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageError<E> {
    /// The driver says so.
    Driver(E),
    /// What was written is not what is read back: worn out, or not what it claims to be.
    NotAsWritten {
        /// The first wrong byte, by its address.
        at: u32,
    },
    /// It is longer than there is room for, by design.
    TooLong {
        /// The most bytes allowed.
        len_max: usize,
    },
}

impl<E: fmt::Debug> fmt::Display for StorageError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => write!(f, "the storage's driver failed: {error:?}"),
            Self::NotAsWritten { at } => write!(f, "the storage does not keep what is written at {at:#x}"),
            Self::TooLong { len_max } => write!(f, "longer than {len_max} bytes"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for StorageError<E> {}

/// What stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing was written since it was erased.
    Blank,
    /// Something that is no frame, or no longer.
    Broken,
    /// A frame; its payload is in the buffer, from [`HEAD_LEN`] on.
    Frame { tag: u8, len: usize },
}

/// The storage, for who reads and writes frames.
#[derive(Debug, Clone)]
pub(super) struct Medium<F> {
    flash: F,
}

impl<F: NorFlash> Medium<F> {
    /// Frames begin at multiples of this. Payloads of four bytes would not gain from less.
    pub(super) const ALIGN: usize = {
        let (write, read) = (F::WRITE_SIZE, F::READ_SIZE);
        assert!(write.is_power_of_two() && read.is_power_of_two(), "sizes of a NorFlash are powers of two");
        assert!(read <= HEAD_LEN, "a head must be readable by itself");
        let larger = if write > read { write } else { read };
        if larger > 4 { larger } else { 4 }
    };

    pub(super) fn new(flash: F) -> Self {
        Self { flash }
    }

    pub(super) fn into_inner(self) -> F {
        self.flash
    }

    pub(super) fn capacity(&self) -> usize {
        self.flash.capacity()
    }

    /// Bytes that a frame with this payload takes.
    pub(super) const fn frame_len(payload_len: usize) -> usize {
        (HEAD_LEN + payload_len).next_multiple_of(Self::ALIGN)
    }

    /// The longest payload that a buffer can hold as a frame.
    pub(super) const fn payload_len_max(buffer_len: usize) -> usize {
        (buffer_len - buffer_len % Self::ALIGN).saturating_sub(HEAD_LEN)
    }

    /// Writes the payload that stands in `buffer` from [`HEAD_LEN`] on as a frame, reads it back, and tells its length.
    /// `buffer` must have room for the padding.
    pub(super) fn write(
        &mut self,
        at: u32,
        salt: u32,
        tag: u8,
        payload_len: usize,
        buffer: &mut [u8],
    ) -> Result<u32, StorageError<F::Error>> {
        let frame_len = Self::frame_len(payload_len);
        let len_max = buffer.len().saturating_sub(HEAD_LEN);
        let too_long = || StorageError::TooLong { len_max };
        let frame = buffer.get_mut(..frame_len).ok_or_else(too_long)?;
        let len = u16::try_from(payload_len).map_err(|_| too_long())?.to_le_bytes();
        frame[4..6].copy_from_slice(&len);
        frame[6] = tag;
        frame[7] = check(salt, [len[0], len[1], tag]);
        let end = HEAD_LEN + payload_len;
        let crc = checksum(salt, &frame[4..end]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        frame[end..].fill(0xff);
        self.flash.write(at, frame).map_err(StorageError::Driver)?;
        self.compare(at, frame)?;
        // A page is shorter than 4 GiB.
        Ok(u32::try_from(frame_len).unwrap_or(u32::MAX))
    }

    fn compare(&mut self, at: u32, written: &[u8]) -> Result<(), StorageError<F::Error>> {
        let mut piece = [0; 32];
        let mut at = at;
        for written in written.chunks(piece.len()) {
            // Frames are multiples of the alignment long, and so of what can be read.
            let piece = &mut piece[..written.len()];
            self.flash.read(at, piece).map_err(StorageError::Driver)?;
            for (read, written) in piece.iter().zip(written) {
                if read != written {
                    return Err(StorageError::NotAsWritten { at });
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// What stands at `at`; nothing goes beyond `end`.
    pub(super) fn read(
        &mut self,
        at: u32,
        end: u32,
        salt: u32,
        buffer: &mut [u8],
    ) -> Result<Found, StorageError<F::Error>> {
        // Where no head fits any more, nothing was written.
        let Some(room) = end.checked_sub(at).map(|room| room as usize).filter(|&room| room >= HEAD_LEN)
        else {
            return Ok(Found::Blank);
        };
        let buffer_len = buffer.len();
        let head = &mut buffer[..HEAD_LEN];
        self.flash.read(at, head).map_err(StorageError::Driver)?;
        if head.iter().all(|&byte| byte == 0xff) {
            return Ok(Found::Blank);
        }
        let (len, tag) = (usize::from(u16::from_le_bytes([head[4], head[5]])), head[6]);
        if head[7] != check(salt, [head[4], head[5], tag]) || Self::frame_len(len) > room.min(buffer_len) {
            return Ok(Found::Broken);
        }
        let crc = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let padded = HEAD_LEN + len.next_multiple_of(F::READ_SIZE);
        let payload = &mut buffer[HEAD_LEN..padded];
        self.flash.read(at + HEAD, payload).map_err(StorageError::Driver)?;
        let whole = checksum(salt, &buffer[4..HEAD_LEN + len]) == crc;
        Ok(if whole { Found::Frame { tag, len } } else { Found::Broken })
    }

    /// Whether `from..to` is as after an erase.
    pub(super) fn is_blank(&mut self, from: u32, to: u32) -> Result<bool, StorageError<F::Error>> {
        let mut piece = [0; 32];
        let mut at = from;
        while at < to {
            let len = (to - at).min(32);
            let piece = &mut piece[..len as usize];
            self.flash.read(at, piece).map_err(StorageError::Driver)?;
            if piece.iter().any(|&byte| byte != 0xff) {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }

    pub(super) fn erase(&mut self, from: u32, to: u32) -> Result<(), StorageError<F::Error>> {
        self.flash.erase(from, to).map_err(StorageError::Driver)
    }
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    Crc::new().add(&salt.to_le_bytes()).add(bytes).value()
}

fn check(salt: u32, len_and_tag: [u8; 3]) -> u8 {
    checksum(salt, &len_and_tag).to_le_bytes()[0]
}
