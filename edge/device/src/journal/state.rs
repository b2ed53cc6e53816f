//! What the journal remembers beside events, in its first pages: a log that begins each page with all that counts.
//!
//! ```text
//!   page:  PAGE {generation} | CONFIG | NOTE | FACTS | update | update | …
//! ```
//!
//! A page counts from its FACTS on, which is written last of the beginning: until then the page before it does. So one
//! page at least is whole at any time, whatever is cut where. Page `generation % pages` holds a generation.
//!
//! A frame that broke ends the use of its page for writing: NOR flash must not be written twice.

use embedded_storage::nor_flash::NorFlash;

use super::frame::{Found, HEAD_LEN, Medium, StorageError};
use super::wire::{Put, Take};
use super::{CONFIG_LEN_MAX, NOTE_LEN_MAX};
use crate::losses::{Loss, Losses, Reason};

const VERSION: u8 = 1;

/// Tags of frames in these pages. Never given again.
mod tag {
    pub(super) const PAGE: u8 = 0x50;
    pub(super) const FACTS: u8 = 0x51;
    pub(super) const CONFIG: u8 = 0x52;
    pub(super) const NOTE: u8 = 0x53;
    pub(super) const BOOT: u8 = 0x54;
    pub(super) const EPOCH: u8 = 0x55;
    pub(super) const FREED: u8 = 0x56;
    pub(super) const LOSS: u8 = 0x57;
}

/// Where the pages lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) start: u32,
    pub(super) page_len: u32,
    pub(super) count: u32,
}

impl Pages {
    pub(super) fn address(&self, generation: u32) -> u32 {
        self.start + generation % self.count * self.page_len
    }
}

/// What is kept in RAM of what is remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Power-ups so far, and more: it jumps where one may have been forgotten.
    pub(super) count: u64,
    /// The number of the last one.
    pub(super) boot: u64,
    /// The last event in the log when it began: boot and number.
    pub(super) seen: (u64, u32),
    /// A boot and its epoch.
    pub(super) epoch: Option<(u64, u64)>,
    pub(super) freed: Freed,
    pub(super) losses: Losses,
    /// What is broken before this place of the event log has been counted as lost.
    pub(super) searched: u64,
    /// After the last frame of the log whose torn end has been counted as lost.
    pub(super) torn: u64,
}

/// Up to where the event log is not needed any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) to: u64,
    /// The last event before it.
    pub(super) boot: u64,
    /// Its number; [`UNKNOWN`] if it is not known.
    pub(super) seq: u32,
    /// Losses up to this one have been told.
    pub(super) told: u32,
}

/// No event's number in [`Freed`].
pub(super) const UNKNOWN: u32 = u32::MAX;

impl Freed {
    /// The last event before it, if it is known.
    pub(super) fn last(&self) -> Option<(u64, u32)> {
        (self.to > 0 && self.seq != UNKNOWN).then_some((self.boot, self.seq))
    }
}

/// Where some bytes lie.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: u32,
    generation: u32,
    len: usize,
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Update<'a> {
    /// `count`, `boot` and `seen`.
    Boot,
    /// `epoch`.
    Epoch,
    /// `freed`.
    Freed,
    /// This one, `searched`, and what of `freed` is told.
    Loss(Loss),
    Config(&'a [u8]),
    Note(&'a str),
}

/// What mounting found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Everything is as it was written.
    Good,
    /// Something was cut or has changed: updates may be missing.
    Damaged,
    /// There is nothing at all, and never was.
    Blank,
    /// There is something, and nothing of it can be read.
    Lost,
}

/// The log.
#[derive(Debug, Clone)]
pub(super) struct State {
    pages: Pages,
    generation: u32,
    /// Where in the page the next frame goes; at the page's end if it is not to be written any more.
    end: u32,
    config: Option<Place>,
    note: Option<Place>,
    pub(super) facts: Facts,
}

impl State {
    pub(super) fn mount<F: NorFlash>(
        medium: &mut Medium<F>,
        pages: Pages,
        buffer: &mut [u8],
    ) -> Result<(Self, Health), StorageError<F::Error>> {
        let mut health = Health::Good;
        // From the newest page down to the first that is whole.
        let mut newest = Self::newest(medium, pages, u32::MAX, buffer, &mut health)?;
        while let Some(generation) = newest {
            let mut state = Self::empty(pages, generation);
            let (whole, clean) = state.fold(medium, buffer)?;
            if !clean {
                health = Health::Damaged;
                state.end = pages.page_len;
            }
            if whole {
                return Ok((state, health));
            }
            health = Health::Damaged;
            newest = Self::newest(medium, pages, generation, buffer, &mut health)?;
        }
        let blank = medium.is_blank(pages.start, pages.start + pages.count * pages.page_len)?;
        let mut state = Self::empty(pages, 0);
        state.end = pages.page_len;
        Ok((state, if blank { Health::Blank } else { Health::Lost }))
    }

    fn empty(pages: Pages, generation: u32) -> Self {
        Self { pages, generation, end: 0, config: None, note: None, facts: Facts::default() }
    }

    /// The greatest generation below `below` that a page says it is of.
    fn newest<F: NorFlash>(
        medium: &mut Medium<F>,
        pages: Pages,
        below: u32,
        buffer: &mut [u8],
        health: &mut Health,
    ) -> Result<Option<u32>, StorageError<F::Error>> {
        let mut newest = None;
        for index in 0..pages.count {
            let address = pages.start + index * pages.page_len;
            match medium.read(address, address + pages.page_len, 0, buffer)? {
                Found::Frame { tag: tag::PAGE, .. } => {
                    let mut take = Take(&buffer[HEAD_LEN..]);
                    let generation = take.u8().filter(|&version| version == VERSION).and(take.u32());
                    newest = newest.max(generation.filter(|&at| at < below && pages.address(at) == address));
                }
                Found::Blank => {}
                Found::Broken | Found::Frame { .. } => *health = Health::Damaged,
            }
        }
        Ok(newest)
    }

    /// Reads the page. Returns whether it counts, and whether nothing in it is broken.
    fn fold<F: NorFlash>(
        &mut self,
        medium: &mut Medium<F>,
        buffer: &mut [u8],
    ) -> Result<(bool, bool), StorageError<F::Error>> {
        let start = self.pages.address(self.generation);
        let end = start + self.pages.page_len;
        let (mut whole, mut clean) = (false, true);
        // The alignment is at most a page's length.
        let align = u32::try_from(Medium::<F>::ALIGN).unwrap_or(u32::MAX);
        let mut at = start + frame_len::<F>(PAGE_LEN);
        loop {
            match medium.read(at, end, self.generation, buffer)? {
                Found::Frame { tag, len } => {
                    let place = Place { address: at, generation: self.generation, len };
                    let known = match tag {
                        tag::CONFIG => self.config.replace(place).map_or(Some(()), |_| Some(())),
                        tag::NOTE => self.note.replace(place).map_or(Some(()), |_| Some(())),
                        _ => self.facts.fold(tag, &buffer[HEAD_LEN..HEAD_LEN + len]),
                    };
                    clean &= known.is_some();
                    whole |= tag == tag::FACTS;
                    at += frame_len::<F>(len);
                }
                Found::Blank => break,
                Found::Broken => {
                    clean = false;
                    at += align;
                }
            }
        }
        self.end = at.min(end) - start;
        clean &= medium.is_blank(at.min(end), end)?;
        Ok((whole, clean))
    }

    /// Writes down a change that the facts in RAM have made already.
    pub(super) fn write<F: NorFlash>(
        &mut self,
        medium: &mut Medium<F>,
        update: Update<'_>,
        buffer: &mut [u8],
    ) -> Result<(), StorageError<F::Error>> {
        let (tag, len) = self.facts.update(&update, &mut buffer[HEAD_LEN..]);
        let frame_len = frame_len::<F>(len);
        if self.end + frame_len > self.pages.page_len {
            return self.turn(medium, Some(update), buffer);
        }
        let address = self.pages.address(self.generation) + self.end;
        // Whatever becomes of it, nothing may be written there again.
        self.end += frame_len;
        let written = medium.write(address, self.generation, tag, len, buffer);
        if written.is_err() {
            self.end = self.pages.page_len;
        }
        written?;
        self.placed(tag, Place { address, generation: self.generation, len });
        Ok(())
    }

    fn placed(&mut self, tag: u8, place: Place) {
        match tag {
            tag::CONFIG => self.config = Some(place),
            tag::NOTE => self.note = Some(place),
            _ => {}
        }
    }

    /// Begins the next page with all that counts.
    pub(super) fn turn<F: NorFlash>(
        &mut self,
        medium: &mut Medium<F>,
        update: Option<Update<'_>>,
        buffer: &mut [u8],
    ) -> Result<(), StorageError<F::Error>> {
        let generation = self.generation + 1;
        let start = self.pages.address(generation);
        let mut next = Self { generation, end: 0, config: None, note: None, ..self.clone() };
        // Until the new page counts, the old one must not look as if it went on.
        self.end = self.pages.page_len;
        medium.erase(start, start + self.pages.page_len)?;
        let len = Put::new(&mut buffer[HEAD_LEN..]).u8(VERSION).u32(generation).len();
        next.end += medium.write(start, 0, tag::PAGE, len, buffer)?;
        let (config, note) = match update {
            Some(Update::Config(bytes)) => (Some(bytes), None),
            Some(Update::Note(text)) => (None, Some(text.as_bytes())),
            _ => (None, None),
        };
        for (tag, new, old) in [(tag::CONFIG, config, self.config), (tag::NOTE, note, self.note)] {
            let len = match (new, old) {
                (Some(bytes), _) => Put::new(&mut buffer[HEAD_LEN..]).bytes(bytes).len(),
                (None, Some(place)) => match Self::load(medium, place, buffer)? {
                    Some(bytes) => bytes.len(),
                    // It has changed since it was written: there is none any more.
                    None => continue,
                },
                (None, None) => continue,
            };
            let address = start + next.end;
            next.end += medium.write(address, generation, tag, len, buffer)?;
            next.placed(tag, Place { address, generation, len });
        }
        let len = self.facts.write(&mut buffer[HEAD_LEN..]);
        next.end += medium.write(start + next.end, generation, tag::FACTS, len, buffer)?;
        *self = next;
        Ok(())
    }

    fn load<'b, F: NorFlash>(
        medium: &mut Medium<F>,
        place: Place,
        buffer: &'b mut [u8],
    ) -> Result<Option<&'b [u8]>, StorageError<F::Error>> {
        let end = place.address + frame_len::<F>(place.len);
        let found = medium.read(place.address, end, place.generation, buffer)?;
        Ok(matches!(found, Found::Frame { .. }).then(|| &buffer[HEAD_LEN..HEAD_LEN + place.len]))
    }

    /// The configuration, as it was last written.
    pub(super) fn config<'b, F: NorFlash>(
        &self,
        medium: &mut Medium<F>,
        buffer: &'b mut [u8],
    ) -> Result<Option<&'b [u8]>, StorageError<F::Error>> {
        self.config.map_or(Ok(None), |place| Self::load(medium, place, buffer))
    }

    /// The note, as it was last written.
    pub(super) fn note<'b, F: NorFlash>(
        &self,
        medium: &mut Medium<F>,
        buffer: &'b mut [u8],
    ) -> Result<Option<&'b [u8]>, StorageError<F::Error>> {
        self.note.map_or(Ok(None), |place| Self::load(medium, place, buffer))
    }
}

/// Bytes of the payload of PAGE.
const PAGE_LEN: usize = 1 + 4;
/// The most bytes of the payload of FACTS.
const FACTS_LEN_MAX: usize = 8 * 2 + 12 + 17 + 24 + 8 * 2 + 4 + 1 + crate::losses::LOSSES_MAX * LOSS_LEN;
const LOSS_LEN: usize = 4 + 8 + 4 + 4 + 1;

/// The least length of the journal's buffer, without the alignment.
pub(super) const BUFFER_LEN_MIN: usize = HEAD_LEN + FACTS_LEN_MAX;

/// The least length of a page of this log: what it begins with fits twice.
pub(super) const fn page_len_min<F: NorFlash>() -> usize {
    let beginning = Medium::<F>::frame_len(PAGE_LEN)
        + Medium::<F>::frame_len(CONFIG_LEN_MAX)
        + Medium::<F>::frame_len(NOTE_LEN_MAX)
        + Medium::<F>::frame_len(FACTS_LEN_MAX);
    2 * beginning
}

#[expect(clippy::cast_possible_truncation, reason = "frames are shorter than 2^17 bytes")]
pub(super) const fn frame_len<F: NorFlash>(payload_len: usize) -> u32 {
    Medium::<F>::frame_len(payload_len) as u32
}

impl Facts {
    fn write(&self, payload: &mut [u8]) -> usize {
        let Freed { to, boot, seq, told } = self.freed;
        let (epoch_boot, epoch) = self.epoch.map_or((0, None), |(boot, epoch)| (boot, Some(epoch)));
        let put = self.put_boot(Put::new(payload)).u64(epoch_boot).optional_u64(epoch);
        let put = put.u64(to).u64(boot).u32(seq).u32(told);
        let put = put.u64(self.searched).u64(self.torn).u32(self.losses.given());
        let losses = self.losses.as_slice();
        // At most LOSSES_MAX.
        let put = put.u8(losses.len().to_le_bytes()[0]);
        losses.iter().fold(put, put_loss).len()
    }

    fn put_boot<'b>(&self, put: Put<'b>) -> Put<'b> {
        put.u64(self.count).u64(self.boot).u64(self.seen.0).u32(self.seen.1)
    }

    fn take_boot(&mut self, take: &mut Take<'_>) -> Option<()> {
        (self.count, self.boot) = (take.u64()?, take.u64()?);
        self.seen = (take.u64()?, take.u32()?);
        Some(())
    }

    fn update(&self, update: &Update<'_>, payload: &mut [u8]) -> (u8, usize) {
        let put = Put::new(payload);
        match *update {
            Update::Boot => (tag::BOOT, self.put_boot(put).len()),
            Update::Epoch => {
                let (boot, epoch) = self.epoch.unwrap_or_default();
                (tag::EPOCH, put.u64(boot).u64(epoch).len())
            }
            Update::Freed => {
                let Freed { to, boot, seq, told } = self.freed;
                (tag::FREED, put.u64(to).u64(boot).u32(seq).u32(told).len())
            }
            Update::Loss(loss) => {
                (tag::LOSS, put_loss(put, &loss).u64(self.searched).u32(self.freed.told).len())
            }
            Update::Config(bytes) => (tag::CONFIG, put.bytes(bytes).len()),
            Update::Note(text) => (tag::NOTE, put.bytes(text.as_bytes()).len()),
        }
    }

    fn fold(&mut self, tag: u8, payload: &[u8]) -> Option<()> {
        let mut take = Take(payload);
        match tag {
            tag::FACTS => {
                self.take_boot(&mut take)?;
                let (boot, epoch) = (take.u64()?, take.optional_u64()?);
                self.epoch = epoch.map(|epoch| (boot, epoch));
                self.freed = take_freed(&mut take)?;
                (self.searched, self.torn) = (take.u64()?, take.u64()?);
                self.losses = Losses::default();
                self.losses.restore_given(take.u32()?);
                for _ in 0..take.u8()? {
                    self.losses.restore(take_loss(&mut take)?);
                }
            }
            tag::BOOT => self.take_boot(&mut take)?,
            tag::EPOCH => self.epoch = Some((take.u64()?, take.u64()?)),
            tag::FREED => {
                self.freed = take_freed(&mut take)?;
                self.losses.told(self.freed.told);
            }
            tag::LOSS => {
                let loss = take_loss(&mut take)?;
                (self.searched, self.freed.told) = (take.u64()?, take.u32()?);
                // First those that made place for it.
                self.losses.told(self.freed.told);
                self.losses.restore(loss);
            }
            // By a later version of the firmware.
            _ => {}
        }
        Some(())
    }
}

fn take_freed(take: &mut Take<'_>) -> Option<Freed> {
    Some(Freed { to: take.u64()?, boot: take.u64()?, seq: take.u32()?, told: take.u32()? })
}

fn put_loss<'b>(put: Put<'b>, loss: &Loss) -> Put<'b> {
    put.u32(loss.id).u64(loss.boot).u32(loss.from).u32(loss.to).u8(loss.reason.code())
}

fn take_loss(take: &mut Take<'_>) -> Option<Loss> {
    let (id, boot, from, to) = (take.u32()?, take.u64()?, take.u32()?, take.u32()?);
    let reason = Reason::of(take.u8()?)?;
    Some(Loss { id, boot, from, to, reason, at: 0 })
}
