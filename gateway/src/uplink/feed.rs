//! Takes segments out of the spool: from memory while the uplink keeps up, else from disk, off the runtime and one ahead.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use weir_contract::segment::{Head, SEGMENT_LEN_MAX, Segment as ReadSegment, write_head};

use super::nats::Message;
use super::pacing::{Kind, Trouble};
use super::resume::{Content, Last};
use super::segment::{self, Builder, Segment};
use crate::spool::{self, Record, Spool};

/// Up to this many bytes are made into a segment without leaving the runtime's thread.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What there is from a number on.
#[derive(Debug)]
pub(super) enum Taken {
    /// Nothing yet.
    Nothing,
    /// A segment that begins with it.
    Segment(Segment),
    /// Damage: it and those up to `to` (exclusive) cannot be read, and never will be.
    Gone { to: u64, reason: String },
    /// It and those up to `to` (exclusive) were given up, and that is told.
    GivenUp { to: u64 },
}

/// Segments, in order.
pub(super) struct Feed {
    spool: Arc<Spool>,
    level: i32,
    /// Out on loan while a segment is being made elsewhere.
    builder: Option<Builder>,
    /// A segment that is being made while the one before is under way.
    ahead: Option<(u64, JoinHandle<Made>)>,
}

type Made = (Builder, Result<Taken, Trouble>);

impl Feed {
    pub fn new(spool: Arc<Spool>, level: i32) -> Self {
        Feed { spool, level, builder: None, ahead: None }
    }

    /// A segment that begins with `from`, of at most `bytes_max` bytes before compression.
    pub async fn take(&mut self, from: u64, bytes_max: usize) -> Result<Taken, Trouble> {
        if let Some((begins, making)) = self.ahead.take() {
            let taken = self.made(making).await;
            if begins == from
                && let Ok(Taken::Segment(segment)) = taken
                && segment.raw_len <= bytes_max
            {
                return Ok(Taken::Segment(segment));
            }
        }
        match self.spool.try_tail(from, bytes_max) {
            Some(records) if records.is_empty() => Ok(Taken::Nothing),
            Some(records) if len(&records) <= INLINE_BYTES_MAX => {
                let mut builder = self.builder()?;
                let taken = build(&mut builder, from, &records, bytes_max);
                self.builder = Some(builder);
                taken
            }
            _ => {
                let making = self.make(from, bytes_max)?;
                self.made(making).await
            }
        }
    }

    /// Begins to make the segment that will be taken next.
    pub fn prepare(&mut self, from: u64, bytes_max: usize) {
        if self.ahead.is_none()
            && let Ok(making) = self.make(from, bytes_max)
        {
            self.ahead = Some((from, making));
        }
    }

    fn make(&mut self, from: u64, bytes_max: usize) -> Result<JoinHandle<Made>, Trouble> {
        let mut builder = self.builder()?;
        let spool = Arc::clone(&self.spool);
        Ok(spawn_blocking(move || {
            let taken = match spool.read_from(from, bytes_max) {
                Ok(records) if records.is_empty() => Ok(Taken::Nothing),
                Ok(records) => build(&mut builder, from, &records, bytes_max),
                Err(spool::Error::Missing { to, reason, .. }) => Ok(Taken::Gone { to, reason }),
                Err(spool::Error::GivenUp { to, .. }) => Ok(Taken::GivenUp { to }),
                Err(error) => Err(unreadable(&error)),
            };
            (builder, taken)
        }))
    }

    async fn made(&mut self, making: JoinHandle<Made>) -> Result<Taken, Trouble> {
        let (builder, taken) = making.await.map_err(|error| Trouble::new(Kind::Spool, error.to_string()))?;
        self.builder = Some(builder);
        taken
    }

    fn builder(&mut self) -> Result<Builder, Trouble> {
        match self.builder.take() {
            Some(builder) => Ok(builder),
            None => builder(&self.spool, self.level),
        }
    }
}

/// Makes segments of this spool.
pub(super) fn builder(spool: &Spool, level: i32) -> Result<Builder, Trouble> {
    Builder::new(spool.incarnation(), level)
        .map_err(|error| Trouble::new(Kind::Spool, format!("cannot prepare compression: {error}")))
}

fn build(
    builder: &mut Builder,
    from: u64,
    records: &[Arc<Record>],
    bytes_max: usize,
) -> Result<Taken, Trouble> {
    let built = builder.build(from, records, bytes_max).map(Taken::Segment);
    built.ok_or_else(|| {
        Trouble::new(Kind::Spool, format!("the spool's record does not hold the uplink {from}"))
    })
}

fn len(records: &[Arc<Record>]) -> usize {
    records.iter().map(|record| record.entries.len()).sum()
}

fn unreadable(error: &spool::Error) -> Trouble {
    Trouble::new(Kind::Spool, format!("the spool cannot be read: {}", error.with_causes()))
}

/// What a message of the stream holds, compared with what the spool has under the same numbers. Reads the disk.
pub(super) async fn compare(spool: &Arc<Spool>, message: Message) -> Result<Last, Trouble> {
    let spool = Arc::clone(spool);
    let compared = spawn_blocking(move || {
        let sequence = message.sequence;
        let Some((head, raw)) = read(&message) else {
            return Last { sequence, head: None, content: Content::NotHeld };
        };
        let ours = head.incarnation == spool.incarnation() && head.end() <= spool.next_number();
        let content = if ours { compare_bytes(&spool, &head, &raw) } else { Content::NotHeld };
        Last { sequence, head: Some(head), content }
    });
    compared.await.map_err(|error| Trouble::new(Kind::Spool, error.to_string()))
}

/// The head of the segment that a message is, if it is one.
pub(super) fn head(message: &Message) -> Option<Head> {
    read(message).map(|(head, _)| head)
}

fn read(message: &Message) -> Option<(Head, Vec<u8>)> {
    let raw = segment::decode(&message.payload, message.compressed).ok()?;
    let head = ReadSegment::read(&raw).ok()?.head;
    Some((head, raw))
}

fn compare_bytes(spool: &Spool, head: &Head, raw: &[u8]) -> Content {
    let mut held = Vec::with_capacity(raw.len());
    write_head(&mut held, head);
    let mut number = head.first;
    while number < head.end() {
        let records = match spool.read_from(number, SEGMENT_LEN_MAX) {
            Ok(records) if !records.is_empty() => records,
            _ => return Content::NotHeld,
        };
        for record in records {
            let Some(part) = record.part_from(number) else { continue };
            held.extend_from_slice(&part.entries);
            number = part.end();
        }
    }
    // What was read may go on beyond the segment.
    if held.get(..raw.len()) == Some(raw) { Content::Same } else { Content::Differs }
}
