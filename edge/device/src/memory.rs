//! What an outbox needs of the memory that it keeps events in.

use core::fmt;

use weir_contract::uplink::Event;
use weir_contract::{Kind, NoRoom};

use crate::losses::{Loss, Reason};

/// Keeps events in the order in which they came, over all boots, and the losses that are not told yet.
///
/// [`crate::Ram`] forgets with the power; [`crate::journal::Journal`] does not.
pub trait Memory {
    /// Between two events, or before the first, or after the last.
    type Position: Copy + PartialEq + fmt::Debug;

    /// Keeps an event whose body `write` writes (it may be called twice). With `tells`, an `events-lost` of the oldest
    /// loss goes before it, under that stamp. There must be one then; it is told by this.
    ///
    /// # Errors
    /// The event is not kept.
    fn push(
        &mut self,
        stamp: Stamp,
        kind: &Kind,
        version: u16,
        tells: Option<Stamp>,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), Refused>;

    /// Turns the oldest loss, which there must be, into an `events-lost`.
    ///
    /// # Errors
    /// It stays what it was.
    fn tell(&mut self, stamp: Stamp) -> Result<(), Refused>;

    /// Remembers that the event of this stamp is lost.
    ///
    /// # Errors
    /// There is no room even for that: the number is not given.
    fn lose(&mut self, stamp: Stamp, reason: Reason) -> Result<(), Refused>;

    /// What is lost and not told yet, oldest first.
    fn losses(&self) -> &[Loss];

    /// Before the oldest event that has not been freed.
    fn start(&self) -> Self::Position;

    /// After the newest event.
    fn end(&self) -> Self::Position;

    /// The event after `position`, and the position after that. Events that turn out to be unreadable are skipped and
    /// have become losses.
    ///
    /// # Errors
    /// Now it cannot be told.
    fn next(&mut self, position: Self::Position) -> Result<Next<'_, Self::Position>, Unreadable>;

    /// Reading goes back to `position`, which is before the event `seq` of `boot`, because something after it that was
    /// read before cannot be read again.
    fn go_back(&mut self, position: Self::Position, boot: u64, seq: u32);

    /// The events before `position`, the last of which is this one, are not needed any more.
    fn free(&mut self, position: Self::Position, last: (u64, u32));

    /// Everything has been read, and nothing of it is needed any more.
    fn free_all(&mut self);

    /// Unix milliseconds at the zero of a boot, some event of which lies after `position`, if that was learned.
    fn epoch(&mut self, boot: u64, position: Self::Position) -> Option<u64>;

    /// The present boot has learned its epoch.
    fn set_epoch(&mut self, boot: u64, epoch: u64);
}

/// What comes next in a [`Memory`]: nothing, or an event and the position after it.
pub type Next<'m, P> = Option<(Record<'m>, P)>;

/// Which event, and when it was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The boot.
    pub boot: u64,
    /// Its number.
    pub seq: u32,
    /// Milliseconds since the boot.
    pub at: u64,
}

/// An event of some boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'m> {
    /// The boot.
    pub boot: u64,
    /// The event.
    pub event: Event<'m>,
}

/// Why something is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// Storage does not work.
    Failed,
}

/// Storage cannot be read, or holds something else than it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;
