//! The event log: all pages but the state's, gone through in a ring.
//!
//! ```text
//!   page:  PAGE {generation, context} | NEXT-BOOT ×2 | EVENT | EVENT | TELLS ×2 | EVENT | …
//! ```
//!
//! A place in it is counted in bytes from the first page ever: `generation × page length + offset`; it only grows. Page
//! `generation % pages` holds a generation, so a place tells its address.
//!
//! Each event says what the last one of its boot before it was: a gap in numbers that it knows of is of events that found
//! no room (an `events-lost` tells of them), one that it does not know of is of frames that broke. NEXT-BOOT tells how far
//! the boot before went, and its epoch. PAGE tells where the log stood when the page began. What is not an event but
//! needed to account for others (NEXT-BOOT; TELLS, an `events-lost`) stands there twice, so that one broken frame spoils
//! nothing but itself.

use embedded_storage::nor_flash::NorFlash;
use weir_contract::body::kind;
use weir_contract::uplink::Event;
use weir_contract::{Kind, NoRoom};

use super::frame::{Found, HEAD_LEN, Medium, StorageError};
use super::state::{Pages, frame_len};
use super::wire::{Put, Take};
use crate::memory::{Record, Stamp};

const VERSION: u8 = 1;

/// Tags of frames in these pages. Never given again.
pub(super) mod tag {
    pub(in super::super) const PAGE: u8 = 0x10;
    pub(in super::super) const EVENT: u8 = 0x11;
    /// Also the id of the loss that it tells; the same again follows at once.
    pub(in super::super) const TELLS: u8 = 0x12;
    pub(in super::super) const TELLS_AGAIN: u8 = 0x13;
    pub(in super::super) const NEXT_BOOT: u8 = 0x14;
}

/// Kinds that take one byte, by their place. Added to, never changed.
const KINDS: [&str; 12] = [
    kind::DEVICE_STARTED,
    kind::READING_TAKEN,
    kind::LIMIT_CROSSED,
    kind::EVENTS_LOST,
    kind::COMMAND_ACCEPTED,
    kind::COMMAND_COMPLETED,
    kind::COMMAND_FAILED,
    kind::COMMAND_EXPIRED,
    kind::CONFIG_APPLIED,
    kind::DEVICE_CONNECTED,
    kind::DEVICE_DISCONNECTED,
    kind::CLOCK_STEPPED,
];
/// Set in the kind's byte where it is a place in [`KINDS`], not a length.
const IN_KINDS: u8 = 0x80;
/// A gap that takes four bytes more.
const GAP_LONG: u8 = 0xff;

/// Where a log stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// Power-ups up to this boot.
    pub(super) count: u64,
    /// The boot of the last event.
    pub(super) boot: u64,
    /// Its number; 0 if the boot has none yet.
    pub(super) seq: u32,
    pub(super) epoch: Option<u64>,
    /// Losses up to this one have been told.
    pub(super) told: u32,
}

/// A boot begins in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextBoot {
    pub(super) before: Context,
    pub(super) boot: u64,
    pub(super) count: u64,
    pub(super) epoch: Option<u64>,
}

/// The log's end, for writing.
#[derive(Debug, Clone)]
pub(super) struct Events {
    pub(super) pages: Pages,
    /// Where the next frame goes; at the start of a page that has yet to be erased, if no other has room.
    pub(super) head: u64,
    pub(super) context: Context,
}

/// What the end of a page looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scan {
    /// After the last frame.
    end: u32,
    frames: u32,
    /// Something broken comes after it.
    torn: bool,
    /// It is a TELLS that stands there once only.
    single: bool,
}

/// What mounting found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mounted {
    /// After the last frame, if something broken comes after it.
    pub(super) torn: Option<u64>,
    /// No page was found, so nothing before the head is of the log.
    pub(super) empty: bool,
    /// And there never was one.
    pub(super) blank: bool,
}

impl Events {
    /// Finds the end of the log. Nothing before `freed` matters any more.
    pub(super) fn mount<F: NorFlash>(
        medium: &mut Medium<F>,
        pages: Pages,
        freed: u64,
        buffer: &mut [u8],
    ) -> Result<(Self, Mounted), StorageError<F::Error>> {
        let mut events = Self { pages, head: 0, context: Context::default() };
        let mut newest = None;
        let mut blank = true;
        for index in 0..pages.count {
            let at = pages.start + index * pages.page_len;
            match medium.read(at, at + pages.page_len, 0, buffer)? {
                Found::Frame { tag: tag::PAGE, len } => {
                    blank = false;
                    let page = read_page(&buffer[HEAD_LEN..HEAD_LEN + len]);
                    newest = newest
                        .max(page.map(|page| page.0).filter(|&generation| pages.address(generation) == at));
                }
                Found::Blank => {}
                Found::Broken | Found::Frame { .. } => blank = false,
            }
        }
        let Some(mut generation) = newest else {
            // No generation may come again while frames of it might lie around.
            let first = if blank && freed == 0 { 1 } else { events.generation(freed) + 2 * pages.count };
            events.head = events.start_of(first);
            return Ok((events, Mounted { torn: None, empty: true, blank: blank && freed == 0 }));
        };
        let at = pages.address(generation);
        if let Found::Frame { len, .. } = medium.read(at, at + pages.page_len, 0, buffer)?
            && let Some((_, context)) = read_page(&buffer[HEAD_LEN..HEAD_LEN + len])
        {
            events.context = context;
        }
        let mut scan = events.scan(medium, generation, buffer)?;
        // A page whose beginning has broken is known by its frames.
        loop {
            let at = pages.address(generation + 1);
            let found = medium.read(at, at + pages.page_len, 0, buffer)?;
            if !matches!(found, Found::Broken) {
                break;
            }
            let next = events.scan(medium, generation + 1, buffer)?;
            if next.frames == 0 {
                break;
            }
            (generation, scan) = (generation + 1, next);
        }
        events.head = if !(scan.torn || scan.single) {
            events.start_of(generation) + u64::from(scan.end)
        } else if scan.frames == 0 && freed <= events.start_of(generation) {
            // Nothing in it is worth keeping.
            events.start_of(generation)
        } else {
            events.start_of(generation + 1)
        };
        if events.head < freed {
            events.head = events.start_of(events.generation(freed) + 1);
        }
        let end = events.start_of(generation) + u64::from(scan.end);
        let torn = (scan.torn && !scan.single).then_some(end);
        Ok((events, Mounted { torn, empty: false, blank: false }))
    }

    /// Goes through a page's frames to the last one.
    fn scan<F: NorFlash>(
        &mut self,
        medium: &mut Medium<F>,
        generation: u32,
        buffer: &mut [u8],
    ) -> Result<Scan, StorageError<F::Error>> {
        let start = self.pages.address(generation);
        let end = start + self.pages.page_len;
        let align = u32::try_from(Medium::<F>::ALIGN).unwrap_or(u32::MAX);
        let mut at = start + header_len::<F>();
        let mut scan = Scan { end: at - start, frames: 0, torn: false, single: false };
        while at < end {
            match medium.read(at, end, generation, buffer)? {
                Found::Frame { tag, len } => {
                    self.context.fold(tag, &buffer[HEAD_LEN..HEAD_LEN + len]);
                    at += frame_len::<F>(len);
                    let (frames, single) = (scan.frames + 1, tag == tag::TELLS);
                    scan = Scan { end: at - start, frames, torn: false, single };
                }
                Found::Blank => {
                    scan.torn |= !medium.is_blank(at, end)?;
                    break;
                }
                Found::Broken => {
                    scan.torn = true;
                    at += align;
                }
            }
        }
        Ok(scan)
    }

    pub(super) fn page_len(&self) -> u64 {
        u64::from(self.pages.page_len)
    }

    /// Generations are bounded by what a storage endures, far below 2³².
    pub(super) fn generation(&self, place: u64) -> u32 {
        u32::try_from(place / self.page_len()).unwrap_or(u32::MAX)
    }

    pub(super) fn start_of(&self, generation: u32) -> u64 {
        u64::from(generation) * self.page_len()
    }

    /// Where the page after this place begins.
    pub(super) fn next_page(&self, place: u64) -> u64 {
        self.start_of(self.generation(place) + 1)
    }

    pub(super) fn offset(&self, place: u64) -> u32 {
        u32::try_from(place % self.page_len()).unwrap_or(u32::MAX)
    }

    pub(super) fn address(&self, place: u64) -> u32 {
        self.pages.address(self.generation(place)) + self.offset(place)
    }

    /// The oldest place that may still hold a frame.
    pub(super) fn oldest(&self) -> u64 {
        let open = self.generation(self.head) + u32::from(self.offset(self.head) != 0);
        self.start_of(open.saturating_sub(self.pages.count))
    }

    /// Whether a page may be erased for this generation, if nothing before `freed` is needed.
    pub(super) fn may_open(&self, generation: u32, freed: u64) -> bool {
        self.start_of(generation + 1) <= freed + u64::from(self.pages.count) * self.page_len()
    }

    /// Where a frame of this length would begin and the head be after it; `None` if the page that it needs is not free.
    pub(super) fn place<F: NorFlash>(&self, head: u64, len: u32, freed: u64) -> Option<(u64, u64)> {
        let offset = self.offset(head);
        if offset != 0 && offset + len <= self.pages.page_len {
            return Some((head, head + u64::from(len)));
        }
        let start = if offset == 0 { head } else { self.next_page(head) };
        let fits = header_len::<F>() + len <= self.pages.page_len;
        let begin = start + u64::from(header_len::<F>());
        (fits && self.may_open(self.generation(start), freed)).then_some((begin, begin + u64::from(len)))
    }

    /// Erases a page and begins it. Whatever happens, nothing else is written where this was tried.
    pub(super) fn open<F: NorFlash>(
        &mut self,
        medium: &mut Medium<F>,
        generation: u32,
        buffer: &mut [u8],
    ) -> Result<(), StorageError<F::Error>> {
        self.head = self.start_of(generation);
        let address = self.pages.address(generation);
        medium.erase(address, address + self.pages.page_len)?;
        let Context { count, boot, seq, epoch, told } = self.context;
        let put = Put::new(&mut buffer[HEAD_LEN..]).u8(VERSION).u32(generation);
        let len = put.u64(count).u64(boot).u32(seq).optional_u64(epoch).u32(told).len();
        medium.write(address, 0, tag::PAGE, len, buffer)?;
        self.head += u64::from(header_len::<F>());
        Ok(())
    }

    /// Nothing more goes into the page that the head is in.
    pub(super) fn close(&mut self) {
        if self.offset(self.head) != 0 {
            self.head = self.next_page(self.head);
        }
    }
}

impl Context {
    fn fold(&mut self, tag: u8, payload: &[u8]) {
        match tag {
            tag::EVENT | tag::TELLS | tag::TELLS_AGAIN => {
                if let Some(entry) = Entry::read(tag, payload) {
                    (self.boot, self.seq) = (entry.record.boot, entry.record.event.seq);
                    self.told = self.told.max(entry.tells);
                }
            }
            tag::NEXT_BOOT => {
                if let Some(next) = NextBoot::read(payload)
                    && next.boot != self.boot
                {
                    let NextBoot { boot, count, epoch, .. } = next;
                    *self = Self { count, boot, seq: 0, epoch, told: self.told };
                }
            }
            // By a later version of the firmware.
            _ => {}
        }
    }
}

impl NextBoot {
    pub(super) fn write(&self, payload: &mut [u8]) -> usize {
        let Context { boot, seq, epoch, .. } = self.before;
        let put = Put::new(payload).u64(boot).u32(seq).optional_u64(epoch);
        put.u64(self.boot).u64(self.count).optional_u64(self.epoch).len()
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut take = Take(payload);
        let (boot, seq, epoch) = (take.u64()?, take.u32()?, take.optional_u64()?);
        let before = Context { boot, seq, epoch, ..Context::default() };
        Some(Self { before, boot: take.u64()?, count: take.u64()?, epoch: take.optional_u64()? })
    }
}

/// Bytes of the payload of PAGE.
const PAGE_LEN: usize = 1 + 4 + 8 + 8 + 4 + 9 + 4;
/// Bytes of the payload of NEXT-BOOT.
pub(super) const NEXT_BOOT_LEN: usize = 8 + 4 + 9 + 8 + 8 + 9;

pub(super) const fn header_len<F: NorFlash>() -> u32 {
    frame_len::<F>(PAGE_LEN)
}

/// Generation and context of a page.
pub(super) fn read_page(payload: &[u8]) -> Option<(u32, Context)> {
    let mut take = Take(payload);
    if take.u8()? != VERSION {
        return None;
    }
    let generation = take.u32()?;
    let (count, boot, seq) = (take.u64()?, take.u64()?, take.u32()?);
    Some((generation, Context { count, boot, seq, epoch: take.optional_u64()?, told: take.u32()? }))
}

/// An event as it stands in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'b> {
    pub(super) record: Record<'b>,
    /// The last event of its boot before it; 0 for none.
    pub(super) before: u32,
    /// The loss that it tells; 0 for none.
    pub(super) tells: u32,
}

impl<'b> Entry<'b> {
    /// The payload; `tells` only for TELLS.
    pub(super) fn write(
        payload: &mut [u8],
        tells: Option<u32>,
        stamp: Stamp,
        before: u32,
        (kind, version): (&Kind, u16),
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<usize, NoRoom> {
        const HEAD_LEN_MAX: usize = 4 + 8 + 4 + 8 + 2 + 5 + 1 + weir_contract::NAME_LEN_MAX;
        if payload.len() < HEAD_LEN_MAX {
            return Err(NoRoom);
        }
        let mut put = Put::new(payload);
        if let Some(tells) = tells {
            put = put.u32(tells);
        }
        put = put.u64(stamp.boot).u32(stamp.seq).u64(stamp.at).bytes(&version.to_le_bytes());
        let gap = stamp.seq.saturating_sub(before);
        put = match u8::try_from(gap) {
            Ok(gap) if gap < GAP_LONG => put.u8(gap),
            _ => put.u8(GAP_LONG).u32(gap),
        };
        put = match (0..).zip(KINDS).find(|(_, known)| *kind == **known) {
            Some((place, _)) => put.u8(IN_KINDS | place),
            // A kind has at most 32 bytes.
            None => put.u8(kind.len().to_le_bytes()[0]).bytes(kind.as_bytes()),
        };
        let head_len = put.len();
        Ok(head_len + write(&mut payload[head_len..])?)
    }

    pub(super) fn read(tag: u8, payload: &'b [u8]) -> Option<Self> {
        let mut take = Take(payload);
        let tells = if tag == tag::EVENT { 0 } else { take.u32()? };
        let (boot, seq, at, version) = (take.u64()?, take.u32()?, take.u64()?, take.u16()?);
        let gap = match take.u8()? {
            GAP_LONG => take.u32()?,
            gap => u32::from(gap),
        };
        let kind = match take.u8()? {
            place if place & IN_KINDS != 0 => KINDS.get(usize::from(place & !IN_KINDS)).copied()?,
            len => core::str::from_utf8(take.bytes(usize::from(len))?).ok()?,
        };
        let event = Event { seq, at, kind: kind.parse().ok()?, version, body: take.0 };
        Some(Self { record: Record { boot, event }, before: seq.checked_sub(gap)?, tells })
    }
}
