//! A ring of event records in one piece of memory, which is lost with the power.
//!
//! # Format
//!
//! A record is never split: one that does not fit before the end of the memory begins at its start. Little-endian:
//!
//! ```text
//! body_len: u16 | boot: u64 | seq: u32 | at: u64 | version: u16 | kind_len: u8 | kind | body
//! ```
//!
//! The memory is gone through in laps.

use core::ops::Range;

use heapless::Vec;
use weir_contract::uplink::Event;
use weir_contract::{Kind, NoRoom};

use crate::losses::{Loss, Losses, Reason};
use crate::memory::{Memory, Next, Record, Refused, Stamp, Unreadable};

/// Bytes of a record before its kind.
const HEAD_LEN: usize = 2 + 8 + 4 + 8 + 2 + 1;
/// Of how many boots the epoch is known.
const EPOCHS_MAX: usize = 4;

/// Where a record lies or will lie: bytes since the first lap began. A place behind the oldest record means that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position(u64);

/// Where the records begin and end: everything about a ring but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    head: u64,
    tail: u64,
    /// Where the records of a lap end, when the newest ones lie in the lap after it.
    wrapped_at: Option<u64>,
}

/// Memory that is lost with the power: what there is of it, bounds what is kept.
#[derive(Debug, Clone)]
pub struct Ram<S> {
    bytes: S,
    mark: Mark,
    losses: Losses,
    /// Boots and their epochs, the latest last.
    epochs: Vec<(u64, u64), EPOCHS_MAX>,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Ram<S> {
    /// Empty.
    pub fn new(bytes: S) -> Self {
        let mark = Mark { head: 0, tail: 0, wrapped_at: None };
        Self { bytes, mark, losses: Losses::default(), epochs: Vec::new() }
    }

    /// Boots and numbers of the events in it, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = (u64, u32)> {
        let mut position = self.start();
        core::iter::from_fn(move || {
            let (record, next) = self.read(position)?;
            position = next;
            Some((record.boot, record.event.seq))
        })
    }

    fn is_empty(&self) -> bool {
        self.mark.head == self.mark.tail
    }

    /// Appends a record, whose body `write` writes (it may be called twice), or changes nothing.
    fn put(
        &mut self,
        stamp: Stamp,
        kind: &Kind,
        version: u16,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), NoRoom> {
        let Mark { head, tail, .. } = self.mark;
        let limit = head + self.len();
        let (start, lap_end) = (self.place(tail), self.lap_end(tail));
        // Both are at most the memory's length.
        let here = start..start + usize::try_from(lap_end.min(limit) - tail).unwrap_or_default();
        if let Ok(len) = self.put_into(here, stamp, kind, version, &write) {
            self.mark.tail = tail + len;
            return Ok(());
        }
        let there = 0..usize::try_from(limit.saturating_sub(lap_end)).unwrap_or_default();
        let len = self.put_into(there, stamp, kind, version, write)?;
        self.mark = Mark { head, tail: lap_end + len, wrapped_at: Some(tail) };
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }

    /// Where in the memory that is.
    fn place(&self, position: u64) -> usize {
        // Below the memory's length.
        usize::try_from(position % self.len().max(1)).unwrap_or_default()
    }

    fn lap_end(&self, position: u64) -> u64 {
        position - self.place(position) as u64 + self.len()
    }

    /// Writes a record into `place` and returns its length.
    fn put_into(
        &mut self,
        place: Range<usize>,
        stamp: Stamp,
        kind: &Kind,
        version: u16,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<u64, NoRoom> {
        let room = &mut self.bytes.as_mut()[place];
        let (head, rest) = room.split_at_mut_checked(HEAD_LEN).ok_or(NoRoom)?;
        let (name, rest) = rest.split_at_mut_checked(kind.len()).ok_or(NoRoom)?;
        let body_len = write(rest)?;
        head[..2].copy_from_slice(&u16::try_from(body_len).map_err(|_| NoRoom)?.to_le_bytes());
        head[2..10].copy_from_slice(&stamp.boot.to_le_bytes());
        head[10..14].copy_from_slice(&stamp.seq.to_le_bytes());
        head[14..22].copy_from_slice(&stamp.at.to_le_bytes());
        head[22..24].copy_from_slice(&version.to_le_bytes());
        head[24] = u8::try_from(kind.len()).map_err(|_| NoRoom)?;
        name.copy_from_slice(kind.as_bytes());
        Ok((HEAD_LEN + kind.len() + body_len) as u64)
    }

    /// The record at `position`, and where the next one lies or will lie.
    fn read(&self, position: Position) -> Option<(Record<'_>, Position)> {
        let position = self.fold(position.0);
        if position == self.end() {
            return None;
        }
        let record = &self.bytes.as_ref()[self.place(position.0)..];
        let (head, rest) = record.split_at(HEAD_LEN);
        let body_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let boot = u64::from_le_bytes(array(&head[2..10]));
        let seq = u32::from_le_bytes(array(&head[10..14]));
        let at = u64::from_le_bytes(array(&head[14..22]));
        let version = u16::from_le_bytes([head[22], head[23]]);
        let (name, rest) = rest.split_at(usize::from(head[24]));
        let kind = core::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse().ok())
            .expect("the bytes of a Kind were written here");
        let event = Event { seq, at, kind, version, body: &rest[..body_len] };
        let len = (HEAD_LEN + name.len() + body_len) as u64;
        Some((Record { boot, event }, self.fold(position.0 + len)))
    }

    fn fold(&self, position: u64) -> Position {
        let position = position.max(self.mark.head);
        Position(if self.mark.wrapped_at == Some(position) { self.lap_end(position) } else { position })
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Memory for Ram<S> {
    type Position = Position;

    fn push(
        &mut self,
        stamp: Stamp,
        kind: &Kind,
        version: u16,
        tells: Option<Stamp>,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), Refused> {
        let before = (self.mark, self.losses.clone());
        let told = tells.map_or(Ok(()), |tells| self.tell(tells));
        if told.is_ok() && self.put(stamp, kind, version, write).is_ok() {
            return Ok(());
        }
        // Telling the loss alone would only begin the next one.
        (self.mark, self.losses) = before;
        Err(Refused::Full)
    }

    fn tell(&mut self, stamp: Stamp) -> Result<(), Refused> {
        let Some(loss) = self.losses.as_slice().first().copied() else { return Ok(()) };
        let body = loss.body();
        self.put(stamp, &body.kind(), body.version(), |buffer| body.write(buffer))
            .map_err(|_| Refused::Full)?;
        self.losses.told(loss.id);
        Ok(())
    }

    fn lose(&mut self, stamp: Stamp, reason: Reason) -> Result<(), Refused> {
        self.losses.add(stamp.boot, (stamp.seq, stamp.seq), stamp.at, reason).map(drop).ok_or(Refused::Full)
    }

    fn losses(&self) -> &[Loss] {
        self.losses.as_slice()
    }

    fn start(&self) -> Position {
        self.fold(self.mark.head)
    }

    fn end(&self) -> Position {
        Position(self.mark.tail)
    }

    fn next(&mut self, position: Position) -> Result<Next<'_, Position>, Unreadable> {
        Ok(self.read(position))
    }

    fn go_back(&mut self, _: Position, _: u64, _: u32) {}

    fn free(&mut self, position: Position, _: (u64, u32)) {
        let Position(head) = self.fold(position.0);
        self.mark.head = head;
        self.mark.wrapped_at = self.mark.wrapped_at.filter(|&end| end > head);
        if self.is_empty() && self.place(head) != 0 {
            // All of the memory in one piece.
            let start = self.lap_end(head);
            self.mark = Mark { head: start, tail: start, wrapped_at: None };
        }
    }

    fn free_all(&mut self) {}

    fn epoch(&mut self, boot: u64, _: Position) -> Option<u64> {
        self.epochs.iter().find(|known| known.0 == boot).map(|known| known.1)
    }

    fn set_epoch(&mut self, boot: u64, epoch: u64) {
        self.epochs.retain(|known| known.0 != boot);
        if self.epochs.is_full() {
            self.epochs.remove(0);
        }
        // There is room for one.
        let _ = self.epochs.push((boot, epoch));
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
