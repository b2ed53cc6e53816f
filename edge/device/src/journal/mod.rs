//! The journal: what a device must not forget when its power is cut, in an EEPROM or in NOR flash.
//!
//! - every event from the moment [`crate::Device::emit`] returns until the gateway has it, and runs of lost numbers until
//!   they are told;
//! - how often it was powered up, so that every boot has a number of its own;
//! - each boot's epoch, once learned;
//! - a configuration and a note (why the next start happens), as the firmware likes.
//!
//! ```ignore
//! let memory = Eeprom(eeprom24x::Storage::new(eeprom, delay));                 // or any NorFlash
//! let mut record = [0; RECORD_LEN];
//! memory.read(0, &mut record)?;
//! let record = Record::read(&record)?;                                         // crate::provision
//! let seed = record.seed.unwrap_or(0) ^ random;                                // random: 0 without a generator
//! let mut journal = Journal::mount(memory, RECORD_LEN as u32..32768, [0; 512], seed)?;
//! let boot = journal.boot();                                                   // counted, written, unique
//! let config = journal.config();                                               // Option<&[u8]>
//! let device = Device::new(Config::new(record.device), boot, journal, seed);   // the journal is the device's memory
//! ```
//!
//! Calls block while the storage works. In a 24C256 behind I2C at 400 kHz an event takes two or three writes of 5 ms, and
//! once in 13 events another 90 ms, where the next 1 KiB has to be erased first; mounting a full one takes 120 ms.
//!
//! # Format
//!
//! Everything is a frame with a checksum (`frame.rs`). The area is cut into pages of whole erase units: an eighth for the
//! state, a log of small facts that begins each page anew (`state.rs`); all others for the events, a log that goes
//! round (`events.rs`). Each log goes through its pages in turn, so no place wears much sooner than another.
//! Where a log has written, it does not write again before it has erased; a page with a broken end is left as it is, and
//! the log goes on in the next one.
//!
//! # Costs
//!
//! A reading takes 76 bytes, one write, and 1.2 erased pages of 64 bytes; 32 KiB hold 349 of them. A lost event is
//! written down too: 44 bytes in the state's pages. The struct takes some 600 bytes of RAM beside its buffer. The tests in
//! `tests/journal/wear.rs` measure all this.
//!
//! # Limits
//!
//! Events of up to the buffer's length less 72 bytes, or a page's. Configurations of [`CONFIG_LEN_MAX`], notes of
//! [`NOTE_LEN_MAX`] bytes. An area of at least two pages for each log; see [`MountError`]. Eight runs of lost numbers that
//! wait to be told, three of them kept for what is found broken: each boot that finds no room makes one. Where there is
//! none left for a new boot, it gives its events no numbers ([`crate::Emitted::Exhausted`]) until something has been
//! delivered.
//!
//! # What an acknowledgement means
//!
//! The event is not needed any more. That is written down once in a kilobyte of events, and before their page is erased: so
//! many may be sent again after a cut of power.
//!
//! # What a cut of power leaves
//!
//! A frame is there whole, or is not. An event whose frame is not was never emitted; if its torn bytes are found, the
//! number it would have had is told as lost (`power-cut`), because something was observed. A boot number is written
//! before it is used; where frames are unreadable, so that one may have been used and forgotten, the counter jumps ahead.
//!
//! # What changed bits leave
//!
//! A frame that does not fit its checksum is skipped; numbers that are missing then are told as lost (`storage-corrupt`),
//! and the rest flows. Where an end of a boot is missing, the frame that begins the next boot tells how far it went. What
//! else is needed to account for others stands there twice. In the state, a changed bit can take back what was written
//! since its page began: a configuration is the one before, a boot number is skipped, events are sent again, and a loss
//! that has not been told by then may be told shorter than it was.

mod events;
mod frame;
mod keep;
mod state;
mod wire;

use core::fmt;
use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;

pub use frame::StorageError;

use crate::losses::Reason;
use events::Events;
use frame::Medium;
use keep::{Looked, Reader, Readers};
use state::{Facts, Freed, Health, Pages, State, UNKNOWN, Update};

/// The most bytes of a configuration, if the buffer is 8 bytes (and the padding of a write) longer.
pub const CONFIG_LEN_MAX: usize = 768;
/// The most bytes of a note.
pub const NOTE_LEN_MAX: usize = 96;
/// The least length of a journal's buffer. More allows longer events.
pub const BUFFER_LEN_MIN: usize = 320;

const _: () = assert!(BUFFER_LEN_MIN >= state::BUFFER_LEN_MIN);

/// The length of an event page, or an erase unit's if that is more.
const EVENT_PAGE_LEN_MIN: usize = 1024;
/// One of this many pages is the state's.
const STATE_SHARE: u32 = 8;
/// By how much the count of power-ups jumps where some may have been forgotten: more than a page of the state holds.
const COUNT_JUMP: u64 = 1 << 16;
/// And where all of them may have been.
const COUNT_LEAP: u64 = 1 << 32;

/// By how many bytes of events the note of what the gateway has may lag behind: so many may be sent again after a cut of
/// power.
const FREED_LAG: u64 = 1024;

/// A place in the journal, between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

/// Why a journal cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountError<E> {
    /// Storage does not work.
    Storage(StorageError<E>),
    /// The area does not begin and end at erase units, or is not inside the storage.
    Area,
    /// The area is too small.
    TooSmall {
        /// The least bytes it must have.
        len_min: u32,
    },
    /// The buffer is shorter than [`BUFFER_LEN_MIN`].
    Buffer,
}

impl<E: fmt::Debug> fmt::Display for MountError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Area => f.write_str("the journal's area must be whole erase units of the storage"),
            Self::TooSmall { len_min } => write!(f, "the journal's area must have at least {len_min} bytes"),
            Self::Buffer => write!(f, "the journal's buffer must have at least {BUFFER_LEN_MIN} bytes"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for MountError<E> {}

/// A mounted journal. `B` is its buffer: bytes for the longest frame.
#[derive(Debug)]
pub struct Journal<F: NorFlash, B> {
    medium: Medium<F>,
    buffer: B,
    state: State,
    events: Events,
    readers: Readers,
    looked: Looked,
    /// The present boot's, if it has been learned.
    epoch: Option<u64>,
    /// Up to here the state knows that the event log is not needed any more.
    freed_written: u64,
    untold: u64,
    error: Option<StorageError<F::Error>>,
}

impl<F: NorFlash, B: AsRef<[u8]> + AsMut<[u8]>> Journal<F, B> {
    /// Reads what there is in `area` of `flash` and counts one more power-up. Storage that holds no journal becomes an
    /// empty one.
    ///
    /// `seed` tells devices, and boards of one device, apart: it is mixed into boot numbers. Provisioned
    /// ([`crate::provision::Record::seed`]), random, or both.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn mount(flash: F, area: Range<u32>, mut buffer: B, seed: u64) -> Result<Self, MountError<F::Error>> {
        if buffer.as_ref().len() < BUFFER_LEN_MIN.next_multiple_of(Medium::<F>::ALIGN) {
            return Err(MountError::Buffer);
        }
        let mut medium = Medium::new(flash);
        let layout = Layout::new::<F>(&area, medium.capacity())?;
        let bytes = buffer.as_mut();
        let (mut state, health) =
            State::mount(&mut medium, layout.state, bytes).map_err(MountError::Storage)?;
        let freed = state.facts.freed;
        let (mut events, found) =
            Events::mount(&mut medium, layout.events, freed.to, bytes).map_err(MountError::Storage)?;
        let facts = &mut state.facts;
        facts.freed.told = freed.told.max(events.context.told);
        facts.losses.told(facts.freed.told);
        if found.empty {
            facts.freed = Freed { to: events.head, boot: 0, seq: UNKNOWN, told: facts.freed.told };
        }
        let (lost, untold) = lost_at_the_end(facts, &events, found.torn);
        if let Some((boot, epoch)) = facts.epoch
            && boot == events.context.boot
        {
            events.context.epoch = Some(epoch);
        }
        facts.count = facts.count.max(events.context.count)
            + match health {
                Health::Good => 1,
                Health::Blank if found.blank => 1,
                Health::Damaged => COUNT_JUMP,
                Health::Blank | Health::Lost => COUNT_LEAP,
            };
        facts.boot = mix(facts.count, seed);
        facts.seen = (events.context.boot, events.context.seq);
        let start = facts.freed.to.max(events.oldest());
        let known = facts.freed.last().filter(|_| start == facts.freed.to);
        if start > facts.freed.to {
            facts.freed = Freed { to: start, boot: 0, seq: UNKNOWN, told: facts.freed.told };
        }
        // With a new loss, all in one.
        let counted = if lost {
            state.turn(&mut medium, None, bytes)
        } else {
            state.write(&mut medium, Update::Boot, bytes)
        };
        counted.map_err(MountError::Storage)?;
        Ok(Self {
            medium,
            buffer,
            state,
            events,
            readers: [Reader { at: start, known }; 2],
            looked: None,
            epoch: None,
            freed_written: freed.to,
            untold,
            error: None,
        })
    }

    /// How many numbers are lost that could not even be remembered as lost: more than a few different places broke while
    /// nothing could be told.
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// What last went wrong with the storage since this was asked before; [`crate::Emitted::Lost`] tells whether an event
    /// was kept.
    pub fn take_error(&mut self) -> Option<StorageError<F::Error>> {
        self.error.take()
    }

    /// The number of this power-up: no other of this device has it.
    pub fn boot(&self) -> u64 {
        self.state.facts.boot
    }

    /// The configuration that was kept last.
    ///
    /// # Errors
    /// [`StorageError::Driver`].
    pub fn config(&mut self) -> Result<Option<&[u8]>, StorageError<F::Error>> {
        self.state.config(&mut self.medium, self.buffer.as_mut())
    }

    /// Keeps a configuration in place of the one before: whatever happens, the one or the other is there.
    ///
    /// # Errors
    /// It is longer than [`CONFIG_LEN_MAX`] or the buffer, or storage does not work; then the old one stays.
    pub fn set_config(&mut self, config: &[u8]) -> Result<(), StorageError<F::Error>> {
        let len_max = CONFIG_LEN_MAX.min(Medium::<F>::payload_len_max(self.buffer.as_ref().len()));
        if config.len() > len_max {
            return Err(StorageError::TooLong { len_max });
        }
        self.state.write(&mut self.medium, Update::Config(config), self.buffer.as_mut())
    }

    /// The note that an earlier boot has left for its successors.
    ///
    /// # Errors
    /// [`StorageError::Driver`].
    pub fn note(&mut self) -> Result<Option<&str>, StorageError<F::Error>> {
        let bytes = self.state.note(&mut self.medium, self.buffer.as_mut())?;
        Ok(bytes.and_then(|bytes| core::str::from_utf8(bytes).ok()).filter(|note| !note.is_empty()))
    }

    /// Leaves a note for the boots to come, as much of it as fits; the empty one takes the present one away.
    ///
    /// # Errors
    /// Storage does not work.
    pub fn set_note(&mut self, note: &str) -> Result<(), StorageError<F::Error>> {
        let mut fits = note.len().min(NOTE_LEN_MAX);
        while !note.is_char_boundary(fits) {
            fits -= 1;
        }
        self.state.write(&mut self.medium, Update::Note(&note[..fits]), self.buffer.as_mut())
    }

    /// The storage.
    pub fn into_flash(self) -> F {
        self.medium.into_inner()
    }
}

/// Counts as lost what stood at the end of the log and does not any more. Returns whether there is something new, and how
/// many numbers could not be remembered.
fn lost_at_the_end(facts: &mut Facts, events: &Events, torn: Option<u64>) -> (bool, u64) {
    let ((boot, last), context) = (facts.seen, events.context);
    let freed = facts.freed.last().unwrap_or_default();
    // What the last boot had found there, and has not moved away from.
    if boot == context.boot && context.seq < last && freed != facts.seen {
        let from = if freed.0 == boot { freed.1.max(context.seq) } else { context.seq } + 1;
        let kept = from > last
            || facts.losses.contains(boot, from, last)
            || facts.losses.add(boot, (from, last), 0, Reason::StorageCorrupt).is_some();
        facts.torn = torn.unwrap_or(facts.torn);
        return (from <= last, if kept { 0 } else { u64::from(last - from) + 1 });
    }
    let Some(torn) = torn.filter(|&torn| torn != facts.torn && torn >= facts.freed.to) else {
        return (false, 0);
    };
    facts.torn = torn;
    let boot = facts.boot;
    let logged = if context.boot == boot { context.seq } else { 0 };
    let mut lost = facts.losses.as_slice().iter().filter(|loss| loss.boot == boot && loss.from > logged);
    let (from, to, reason) = match lost.next() {
        // What found no room came after what was kept, and that is not all there.
        Some(loss) if loss.from > logged + 1 => (logged + 1, loss.from - 1, Reason::StorageCorrupt),
        // The last boot was writing an event, under the next number.
        _ => {
            let next = logged.max(facts.losses.last_of(boot)) + 1;
            (next, next, Reason::PowerCut)
        }
    };
    let kept = facts.losses.add(boot, (from, to), 0, reason).is_some();
    (true, if kept { 0 } else { u64::from(to - from) + 1 })
}

/// Where the logs lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    state: Pages,
    events: Pages,
}

impl Layout {
    fn new<F: NorFlash>(area: &Range<u32>, capacity: usize) -> Result<Self, MountError<F::Error>> {
        let unit = u32::try_from(F::ERASE_SIZE).map_err(|_| MountError::Area)?;
        let len = area.end.checked_sub(area.start).ok_or(MountError::Area)?;
        if !area.start.is_multiple_of(unit) || !len.is_multiple_of(unit) || area.end as usize > capacity {
            return Err(MountError::Area);
        }
        let page_len =
            |least: usize| u32::try_from(least.next_multiple_of(F::ERASE_SIZE)).map_err(|_| MountError::Area);
        let state_page_len = page_len(state::page_len_min::<F>())?;
        let event_page_len = page_len(EVENT_PAGE_LEN_MIN)?;
        let len_min = 2 * state_page_len + 2 * event_page_len;
        if len < len_min {
            return Err(MountError::TooSmall { len_min });
        }
        let count = (len / STATE_SHARE / state_page_len).max(2);
        let state = Pages { start: area.start, page_len: state_page_len, count };
        let rest = len - count * state_page_len;
        let events = Pages {
            start: area.start + count * state_page_len,
            page_len: event_page_len,
            count: rest / event_page_len,
        };
        Ok(Self { state, events })
    }
}

/// A boot number: for one seed, another one for each count (each step can be undone; the constants and the finish are
/// those of splitmix64, Steele et al. 2014); for other seeds, a different row of them.
fn mix(count: u64, seed: u64) -> u64 {
    let finish = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    finish(finish(seed).wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}
