//! A ring of event records in one piece of memory: the only place that knows how events lie in it.
//!
//! # Format
//!
//! A record is never split: one that does not fit before the end of the memory begins at its start. Little-endian:
//!
//! ```text
//! body_len: u16 | seq: u32 | at: u64 | version: u16 | kind_len: u8 | kind | body
//! ```
//!
//! Records carry their number, so that a ring kept in an EEPROM can be read again after a power cut. Storage that cannot
//! lend slices would replace this module, and nothing else.

use weir_contract::uplink::Event;
use weir_contract::{Kind, NoRoom};

/// Bytes of a record before its kind.
const HEAD_LEN: usize = 2 + 4 + 8 + 2 + 1;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(usize);

/// Where the records begin and end: everything about a ring but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    head: usize,
    tail: usize,
    /// Where the upper records end, when newer ones lie below them, in `0..tail`.
    wrapped_at: Option<usize>,
}

/// The ring, oldest record first.
#[derive(Debug, Clone)]
pub(crate) struct Ring<S> {
    bytes: S,
    mark: Mark,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Ring<S> {
    pub(crate) fn new(bytes: S) -> Self {
        Self { bytes, mark: Mark { head: 0, tail: 0, wrapped_at: None } }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mark.head == self.mark.tail && self.mark.wrapped_at.is_none()
    }

    /// The present state, to come back to when a later `push` of the same attempt fails.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Forgets what was pushed since `mark` was taken. Nothing may have been popped since.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// Appends a record, whose body `write` writes (it may be called twice), or changes nothing.
    pub(crate) fn push(
        &mut self,
        seq: u32,
        at: u64,
        kind: &Kind,
        version: u16,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<Position, NoRoom> {
        let Mark { head, tail, wrapped_at } = self.mark;
        if wrapped_at.is_some() {
            let len = self.put(tail, head, seq, at, kind, version, write)?;
            self.mark.tail += len;
            return Ok(Position(tail));
        }
        let end = self.bytes.as_ref().len();
        if let Ok(len) = self.put(tail, end, seq, at, kind, version, &write) {
            self.mark.tail += len;
            return Ok(Position(tail));
        }
        let len = self.put(0, head, seq, at, kind, version, write)?;
        self.mark = Mark { head, tail: len, wrapped_at: Some(tail) };
        Ok(Position(0))
    }

    /// Writes a record into `from..to` of the memory and returns its length.
    #[expect(clippy::too_many_arguments, reason = "the fields of a record, and where it goes")]
    fn put(
        &mut self,
        from: usize,
        to: usize,
        seq: u32,
        at: u64,
        kind: &Kind,
        version: u16,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<usize, NoRoom> {
        let room = &mut self.bytes.as_mut()[from..to];
        let (head, rest) = room.split_at_mut_checked(HEAD_LEN).ok_or(NoRoom)?;
        let (name, rest) = rest.split_at_mut_checked(kind.len()).ok_or(NoRoom)?;
        let body_len = write(rest)?;
        head[..2].copy_from_slice(&u16::try_from(body_len).map_err(|_| NoRoom)?.to_le_bytes());
        head[2..6].copy_from_slice(&seq.to_le_bytes());
        head[6..14].copy_from_slice(&at.to_le_bytes());
        head[14..16].copy_from_slice(&version.to_le_bytes());
        head[16] = u8::try_from(kind.len()).map_err(|_| NoRoom)?;
        name.copy_from_slice(kind.as_bytes());
        Ok(HEAD_LEN + kind.len() + body_len)
    }

    /// Where the oldest record lies. There must be one.
    pub(crate) fn first(&self) -> Position {
        Position(self.mark.head)
    }

    /// The record at `position`, which must be one that `push`, `first` or `read` told and that has not been popped;
    /// and where the next one lies, if there is one.
    pub(crate) fn read(&self, position: Position) -> (Event<'_>, Position) {
        let record = &self.bytes.as_ref()[position.0..];
        let (head, rest) = record.split_at(HEAD_LEN);
        let body_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let seq = u32::from_le_bytes(array(&head[2..6]));
        let at = u64::from_le_bytes(array(&head[6..14]));
        let version = u16::from_le_bytes([head[14], head[15]]);
        let (name, rest) = rest.split_at(usize::from(head[16]));
        let kind = core::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse().ok())
            .expect("the bytes of a Kind were written here");
        let event = Event { seq, at, kind, version, body: &rest[..body_len] };
        (event, self.fold(position.0 + HEAD_LEN + name.len() + body_len))
    }

    /// The `count` records from `position` on.
    pub(crate) fn iter(&self, position: Position, count: usize) -> Iter<'_, S> {
        Iter { ring: self, position, left: count }
    }

    /// Frees the oldest record. There must be one.
    pub(crate) fn pop(&mut self) {
        let (_, next) = self.read(self.first());
        if next.0 == 0 {
            self.mark.wrapped_at = None;
        }
        self.mark.head = next.0;
        if self.is_empty() {
            self.mark = Mark { head: 0, tail: 0, wrapped_at: None };
        }
    }

    fn fold(&self, position: usize) -> Position {
        Position(if self.mark.wrapped_at == Some(position) { 0 } else { position })
    }
}

/// See [`Ring::iter`].
pub(crate) struct Iter<'r, S> {
    ring: &'r Ring<S>,
    position: Position,
    left: usize,
}

impl<'r, S: AsRef<[u8]> + AsMut<[u8]>> Iterator for Iter<'r, S> {
    type Item = Event<'r>;

    fn next(&mut self) -> Option<Event<'r>> {
        self.left = self.left.checked_sub(1)?;
        let (event, next) = self.ring.read(self.position);
        self.position = next;
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> ExactSizeIterator for Iter<'_, S> {}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
