//! What is lost and not told yet: runs of numbers that no `events-lost` covers.

use heapless::Vec;
use weir_contract::body::Body;

/// How many runs can wait to be told at once. Within a boot a full outbox makes one; more come only from boots that ended
/// before theirs was told.
pub(crate) const LOSSES_MAX: usize = 8;
/// Places kept for what is found broken: such a run must be remembered before what lies behind it can flow.
const FOR_BROKEN: usize = 3;

/// Why events are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There was no room.
    OutboxFull,
    /// The power was cut while it was written.
    PowerCut,
    /// It was written, and cannot be read again.
    StorageCorrupt,
    /// It could not be written.
    StorageFailed,
    /// It does not fit in the uplinks that the device makes now.
    TooLong,
}

impl Reason {
    /// By their codes in storage: added to, never changed.
    const ALL: [Self; 5] =
        [Self::OutboxFull, Self::PowerCut, Self::StorageCorrupt, Self::StorageFailed, Self::TooLong];

    /// As it stands in an `events-lost`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutboxFull => "outbox-full",
            Self::PowerCut => "power-cut",
            Self::StorageCorrupt => "storage-corrupt",
            Self::StorageFailed => "storage-failed",
            Self::TooLong => "too-long",
        }
    }

    pub(crate) fn code(self) -> u8 {
        Self::ALL.iter().position(|&reason| reason == self).map_or(0, |at| at.to_le_bytes()[0])
    }

    pub(crate) fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// A run of lost numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Counts up; what is told is told in this order.
    pub(crate) id: u32,
    /// The boot they belong to.
    pub boot: u64,
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
    /// Why.
    pub reason: Reason,
    /// When the first was lost, in milliseconds of its boot; known only in that boot.
    pub(crate) at: u64,
}

impl Loss {
    /// As an `events-lost`.
    pub(crate) fn body(&self) -> Body<'static> {
        let Self { boot, from, to, .. } = *self;
        Body::EventsLost { device: None, boot, from, to, reason: self.reason.as_str().into() }
    }
}

/// All runs that wait to be told, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses {
    waiting: Vec<Loss, LOSSES_MAX>,
    /// Ids given so far.
    given: u32,
}

impl Losses {
    pub(crate) fn as_slice(&self) -> &[Loss] {
        &self.waiting
    }

    pub(crate) fn given(&self) -> u32 {
        self.given
    }

    /// Adds `from ..= to`: to the last run, if it goes on. Returns that run; `None` if there is no place for one more.
    pub(crate) fn add(&mut self, boot: u64, (from, to): (u32, u32), at: u64, reason: Reason) -> Option<Loss> {
        if let Some(last) = self.waiting.last_mut()
            && (last.boot, last.reason) == (boot, reason)
            && last.to.checked_add(1) == Some(from)
        {
            last.to = to;
            return Some(*last);
        }
        let found = matches!(reason, Reason::StorageCorrupt | Reason::PowerCut);
        let places = if found { LOSSES_MAX } else { LOSSES_MAX - FOR_BROKEN };
        if self.waiting.len() >= places {
            return None;
        }
        self.given += 1;
        let loss = Loss { id: self.given, boot, from, to, reason, at };
        self.waiting.push(loss).ok()?;
        Some(loss)
    }

    /// As it was written down.
    pub(crate) fn restore(&mut self, loss: Loss) {
        self.given = self.given.max(loss.id);
        match self.waiting.iter_mut().find(|waiting| waiting.id == loss.id) {
            Some(waiting) => *waiting = loss,
            None => drop(self.waiting.push(loss)),
        }
    }

    pub(crate) fn restore_given(&mut self, given: u32) {
        self.given = self.given.max(given);
    }

    /// Those up to this id have been told.
    pub(crate) fn told(&mut self, id: u32) {
        self.given = self.given.max(id);
        self.waiting.retain(|waiting| waiting.id > id);
    }

    /// Whether all these numbers are waiting to be told, or were counted so before.
    pub(crate) fn contains(&self, boot: u64, from: u32, to: u32) -> bool {
        self.waiting.iter().any(|loss| loss.boot == boot && loss.from <= from && to <= loss.to)
    }

    /// The greatest number of `boot` among them; 0 for none.
    pub(crate) fn last_of(&self, boot: u64) -> u32 {
        self.waiting.iter().filter(|loss| loss.boot == boot).map(|loss| loss.to).max().unwrap_or(0)
    }
}
