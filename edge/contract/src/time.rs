//! Time: what a device is told, and how an event's wall time is found.

use crate::cbor::{HEAD_LEN_MAX, Malformed, NoRoom, Reader, Writer};
use crate::uplink::Header;

/// 2026-11-01T00:00:00Z, in Unix milliseconds. Nothing of this version ran before that: a clock that says so is not set.
pub const NOT_BEFORE_MS: u64 = 1_793_491_200_000;

/// The payload of `weir/1/{device}/time`: `[unix_ms]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Unix milliseconds when it was sent.
    pub unix_ms: u64,
}

impl Time {
    /// The most bytes it can have.
    pub const LEN_MAX: usize = 1 + HEAD_LEN_MAX;

    /// Reads it.
    ///
    /// # Errors
    /// [`Malformed`] says what the contract does not allow and where.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut items = r.array("a time: an array")?;
        r.must_have(&mut items, "unix_ms")?;
        let unix_ms = r.u64("unix_ms: an unsigned integer")?;
        r.skip_rest(&mut items)?;
        r.end()?;
        Ok(Self { unix_ms })
    }

    /// Writes it and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if it does not fit in `buffer`.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, NoRoom> {
        Writer::new(buffer).array(1).u64(self.unix_ms).end()
    }
}

/// Whose clock an event's wall time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clock {
    /// The device knew its boot's beginning.
    Device,
    /// The gateway's, less the event's age when it was sent.
    Gateway,
    /// Nobody's: the time of receipt, an upper bound.
    Unknown,
}

impl Clock {
    /// `device`, `gateway` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Clock::Device => "device",
            Clock::Gateway => "gateway",
            Clock::Unknown => "unknown",
        }
    }
}

/// The wall time, in Unix milliseconds, of an event observed at `at` (ms since boot) in an uplink with `header`, taken
/// by a gateway at `received_ms` (Unix ms).
pub fn wall_ms(header: &Header, received_ms: u64, at: u64) -> (u64, Clock) {
    match (header.epoch, header.now) {
        (Some(epoch), _) => (epoch.saturating_add(at), Clock::Device),
        (None, Some(now)) => (received_ms.saturating_sub(now.saturating_sub(at)), Clock::Gateway),
        (None, None) => (received_ms, Clock::Unknown),
    }
}

/// The wall time, in Unix milliseconds, at which the boot of an uplink began, as far as that uplink tells: what the
/// device says, else an upper bound that gets better with every uplink (the least one is nearest).
///
/// `None` for an uplink of an earlier boot of unknown time: that boot began before the one in [`Header::via`].
pub fn boot_began_ms(header: &Header, received_ms: u64) -> Option<u64> {
    header.epoch.or_else(|| header.now.map(|now| received_ms.saturating_sub(now)))
}
