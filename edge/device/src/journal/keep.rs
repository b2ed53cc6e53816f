//! The journal as the memory of an outbox.

use embedded_storage::nor_flash::NorFlash;
use weir_contract::{Kind, NoRoom};

use super::events::{Context, Entry, NEXT_BOOT_LEN, NextBoot, header_len, read_page, tag};
use super::frame::{Found, HEAD_LEN, Medium, StorageError};
use super::state::{Freed, UNKNOWN, Update, frame_len};
use super::{FREED_LAG, Journal, Place};
use crate::losses::{Loss, Reason};
use crate::memory::{Memory, Next, Refused, Stamp, Unreadable};

/// Reading, and how far what was read fits together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    /// What is broken before this has been counted as lost.
    pub(super) at: u64,
    /// The event before it, if that is known.
    pub(super) known: Option<(u64, u32)>,
}

/// The reader, and the one before it: an uplink ends where the event after it has been looked at.
pub(super) type Readers = [Reader; 2];

/// The epoch of a boot, as it was looked up last.
pub(super) type Looked = Option<(u64, Option<u64>)>;

impl<F: NorFlash, B: AsRef<[u8]> + AsMut<[u8]>> Memory for Journal<F, B> {
    type Position = Place;

    fn push(
        &mut self,
        stamp: Stamp,
        kind: &Kind,
        version: u16,
        tells: Option<Stamp>,
        write: impl Fn(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), Refused> {
        let event =
            |payload: &mut [u8], before| Entry::write(payload, None, stamp, before, (kind, version), &write);
        // How long it is, and whether all that goes before it has room too, before anything is written.
        let len = self.measure(|payload| event(payload, 0))?;
        let telling = match tells.zip(self.losses().first().copied()) {
            Some((stamp, loss)) => {
                Some((stamp, loss, self.measure(|payload| telling(payload, stamp, &loss, 0))?))
            }
            None => None,
        };
        let next_boot = (self.events.context.boot != stamp.boot).then_some(NEXT_BOOT_LEN);
        let telling_len = telling.map(|telling| telling.2);
        if !self.has_room(next_boot, telling_len, Some(len)) {
            return Err(Refused::Full);
        }
        if next_boot.is_some() {
            self.begin_boot()?;
        }
        if let Some((stamp, loss, len)) = telling {
            self.append_telling(stamp, &loss, len)?;
        }
        let before = self.events.context.seq;
        self.append(tag::EVENT, len, |payload| event(payload, before))?;
        self.events.context.seq = stamp.seq;
        Ok(())
    }

    fn tell(&mut self, stamp: Stamp) -> Result<(), Refused> {
        let Some(loss) = self.losses().first().copied() else { return Ok(()) };
        let len = self.measure(|payload| telling(payload, stamp, &loss, 0))?;
        let next_boot = (self.events.context.boot != stamp.boot).then_some(NEXT_BOOT_LEN);
        if !self.has_room(next_boot, Some(len), None) {
            return Err(Refused::Full);
        }
        if next_boot.is_some() {
            self.begin_boot()?;
        }
        self.append_telling(stamp, &loss, len)
    }

    fn lose(&mut self, stamp: Stamp, reason: Reason) -> Result<(), Refused> {
        let Stamp { boot, seq, at } = stamp;
        let loss = self.state.facts.losses.add(boot, (seq, seq), at, reason).ok_or(Refused::Full)?;
        // Where storage does not work, it is known until the power is cut.
        let written = self.state.write(&mut self.medium, Update::Loss(loss), self.buffer.as_mut());
        self.note_error(written);
        Ok(())
    }

    fn losses(&self) -> &[Loss] {
        self.state.facts.losses.as_slice()
    }

    fn start(&self) -> Place {
        Place(self.state.facts.freed.to.max(self.events.oldest()))
    }

    fn end(&self) -> Place {
        Place(self.events.head)
    }

    fn next(&mut self, position: Place) -> Result<Next<'_, Place>, Unreadable> {
        let found = self.find(position.0);
        let Some((tag, len, next)) = self.note_error(found).ok_or(Unreadable)? else { return Ok(None) };
        let payload = &self.buffer.as_ref()[HEAD_LEN..HEAD_LEN + len];
        let entry = Entry::read(tag, payload).ok_or(Unreadable)?;
        Ok(Some((entry.record, Place(next))))
    }

    fn go_back(&mut self, position: Place, boot: u64, seq: u32) {
        self.readers = [Reader { at: position.0, known: Some((boot, seq - 1)) }; 2];
        // What is found broken now was not before. It may be told twice then that something else is, which changes nothing.
        let searched = &mut self.state.facts.searched;
        *searched = position.0.min(*searched);
    }

    fn free(&mut self, position: Place, last: (u64, u32)) {
        self.freed(position.0, last);
    }

    fn free_all(&mut self) {
        // Pages that hold nothing but broken frames, say.
        let [reader, _] = self.readers;
        if reader.at == self.events.head {
            self.freed(self.events.head, reader.known.unwrap_or((0, UNKNOWN)));
        }
    }

    fn epoch(&mut self, boot: u64, position: Place) -> Option<u64> {
        if self.events.context.boot == boot {
            return self.events.context.epoch;
        }
        if let Some((known, epoch)) = self.looked
            && known == boot
        {
            return epoch;
        }
        let found = self.look_up_epoch(boot, position.0);
        let epoch = self.note_error(found)?;
        self.looked = Some((boot, epoch));
        epoch
    }

    fn set_epoch(&mut self, _: u64, epoch: u64) {
        self.epoch = Some(epoch);
        if self.events.context.boot == self.boot() {
            self.keep_epoch();
        }
    }
}

fn telling(payload: &mut [u8], stamp: Stamp, loss: &Loss, before: u32) -> Result<usize, NoRoom> {
    let body = loss.body();
    let what = (&body.kind(), body.version());
    Entry::write(payload, Some(loss.id), stamp, before, what, |buffer| body.write(buffer))
}

/// Writing.
impl<F: NorFlash, B: AsRef<[u8]> + AsMut<[u8]>> Journal<F, B> {
    /// The most bytes of a payload: written without knowledge of what is before it, which takes the most.
    fn measure(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>) -> Result<usize, Refused> {
        let len_max = Medium::<F>::payload_len_max(self.buffer.as_ref().len());
        let payload = &mut self.buffer.as_mut()[HEAD_LEN..HEAD_LEN + len_max];
        write(payload).map_err(|_| Refused::Full)
    }

    /// Whether payloads of at most these lengths find room, the first two twice each.
    fn has_room(&self, next_boot: Option<usize>, telling: Option<usize>, event: Option<usize>) -> bool {
        let freed = self.state.facts.freed.to;
        let mut head = self.events.head;
        let frames = [
            next_boot.map(|len| 2 * frame_len::<F>(len)),
            telling.map(|len| 2 * frame_len::<F>(len)),
            event.map(frame_len::<F>),
        ];
        frames.into_iter().flatten().all(|len| {
            let place = self.events.place::<F>(head, len, freed);
            head = place.map_or(head, |place| place.1);
            place.is_some()
        })
    }

    /// Sees to it that so many bytes can be appended in one page.
    fn make_room(&mut self, len: u32) -> Result<(), Refused> {
        let freed = self.state.facts.freed.to;
        let head = self.events.head;
        let (begin, _) = self.events.place::<F>(head, len, freed).ok_or(Refused::Full)?;
        if begin == head {
            return Ok(());
        }
        let generation = self.events.generation(begin);
        if !self.events.may_open(generation, self.freed_written) {
            // Else a cut could leave a page half erased that still counts.
            let written = self.write_freed();
            self.note_error(written).ok_or(Refused::Failed)?;
        }
        let opened = self.events.open(&mut self.medium, generation, self.buffer.as_mut());
        self.note_error(opened).ok_or(Refused::Failed)
    }

    /// Appends a frame of at most this payload length.
    fn append(
        &mut self,
        tag: u8,
        len_max: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), Refused> {
        self.make_room(frame_len::<F>(len_max))?;
        let buffer = self.buffer.as_mut();
        let len = write(&mut buffer[HEAD_LEN..]).map_err(|_| Refused::Full)?;
        let (address, generation) =
            (self.events.address(self.events.head), self.events.generation(self.events.head));
        let written = self.medium.write(address, generation, tag, len, buffer);
        match self.note_error(written) {
            Some(frame_len) => {
                self.events.head += u64::from(frame_len);
                Ok(())
            }
            None => {
                self.events.close();
                Err(Refused::Failed)
            }
        }
    }

    /// The present boot begins in the log.
    fn begin_boot(&mut self) -> Result<(), Refused> {
        let (count, boot) = (self.state.facts.count, self.state.facts.boot);
        let next = NextBoot { before: self.events.context, boot, count, epoch: self.epoch };
        // Both in one page: where a page begins, it tells the boot of the event before it.
        self.make_room(2 * frame_len::<F>(NEXT_BOOT_LEN))?;
        self.append(tag::NEXT_BOOT, NEXT_BOOT_LEN, |payload| Ok(next.write(payload)))?;
        let told = self.events.context.told;
        self.events.context = Context { count, boot, seq: 0, epoch: self.epoch, told };
        // Without the second one, all is told too.
        let _ = self.append(tag::NEXT_BOOT, NEXT_BOOT_LEN, |payload| Ok(next.write(payload)));
        if self.epoch.is_some() {
            self.keep_epoch();
        }
        Ok(())
    }

    fn append_telling(&mut self, stamp: Stamp, loss: &Loss, len: usize) -> Result<(), Refused> {
        // Both in one page: who has read the first one skips the second.
        self.make_room(2 * frame_len::<F>(len))?;
        let before = self.events.context.seq;
        let write = |payload: &mut [u8]| telling(payload, stamp, loss, before);
        self.append(tag::TELLS, len, write)?;
        self.events.context.seq = stamp.seq;
        self.events.context.told = loss.id;
        self.state.facts.freed.told = loss.id;
        self.state.facts.losses.told(loss.id);
        // It is told, whatever becomes of the second one; where that is not, the page has been closed.
        let _ = self.append(tag::TELLS_AGAIN, len, write);
        Ok(())
    }

    fn keep_epoch(&mut self) {
        self.events.context.epoch = self.epoch;
        self.state.facts.epoch = self.epoch.map(|epoch| (self.events.context.boot, epoch));
        let written = self.state.write(&mut self.medium, Update::Epoch, self.buffer.as_mut());
        self.note_error(written);
    }

    fn freed(&mut self, to: u64, (boot, seq): (u64, u32)) {
        self.state.facts.freed = Freed { to, boot, seq, told: self.events.context.told };
        if to >= self.freed_written + FREED_LAG {
            let written = self.write_freed();
            self.note_error(written);
        }
    }

    fn write_freed(&mut self) -> Result<(), StorageError<F::Error>> {
        self.state.write(&mut self.medium, Update::Freed, self.buffer.as_mut())?;
        self.freed_written = self.state.facts.freed.to;
        Ok(())
    }

    fn note_error<T>(&mut self, result: Result<T, StorageError<F::Error>>) -> Option<T> {
        result.map_err(|error| self.error = Some(error)).ok()
    }
}

/// What is found at a place: tag and length of an event's frame, whose payload is in the buffer, and the place after it.
type FoundEvent = Option<(u8, usize, u64)>;

/// Reading.
impl<F: NorFlash, B: AsRef<[u8]> + AsMut<[u8]>> Journal<F, B> {
    /// Finds the event at or after a place.
    fn find(&mut self, place: u64) -> Result<FoundEvent, StorageError<F::Error>> {
        let mut at = place.max(self.events.oldest());
        // Only who goes on where everything before is known can tell what is missing.
        let reader = self.readers.into_iter().find(|reader| reader.at == place && at == place);
        let searching = reader.is_some();
        let mut known = reader.and_then(|reader| reader.known);
        while at < self.events.head {
            let Some((tag, len)) = self.frame_at(&mut at)? else { continue };
            let payload = &self.buffer.as_ref()[HEAD_LEN..HEAD_LEN + len];
            let Some(seen) = Seen::read(tag, payload, known) else {
                at += u64::from(frame_len::<F>(len));
                continue;
            };
            if searching && let Some(hole) = seen.hole {
                // That takes the buffer, so the frame is read again, and fits now.
                self.claim(hole, at)?;
                known = Some((hole.0, hole.2));
                continue;
            }
            known = seen.known;
            let frame_len = u64::from(frame_len::<F>(len));
            let next = if tag == tag::TELLS { at + 2 * frame_len } else { at + frame_len };
            if seen.is_event {
                if let Some(reader) = reader {
                    self.readers = [Reader { at: next, known }, reader];
                }
                return Ok(Some((tag, len, next)));
            }
            at = next;
        }
        if let Some(reader) = reader {
            // What was written last in this boot, and broke, nothing else tells of.
            let Context { boot, seq, .. } = self.events.context;
            if let Some((of, last)) = known
                && of == boot
                && last < seq
            {
                self.claim((boot, last + 1, seq), self.events.head)?;
                known = Some((boot, seq));
            }
            self.readers = [Reader { at: self.events.head, known }, reader];
        }
        Ok(None)
    }

    /// Reads the frame at a place, or moves on where there is none.
    fn frame_at(&mut self, at: &mut u64) -> Result<Option<(u8, usize)>, StorageError<F::Error>> {
        let generation = self.events.generation(*at);
        let begins = self.events.offset(*at) == 0;
        let page_end = self.events.next_page(*at);
        let address = self.events.address(*at);
        let end = self.events.pages.address(generation) + self.events.pages.page_len;
        let salt = if begins { 0 } else { generation };
        let buffer = self.buffer.as_mut();
        match self.medium.read(address, end, salt, buffer)? {
            Found::Frame { tag: tag::PAGE, len } if begins => {
                let page = read_page(&buffer[HEAD_LEN..HEAD_LEN + len]);
                if page.is_some_and(|page| page.0 == generation) {
                    return Ok(Some((tag::PAGE, len)));
                }
                *at += u64::from(header_len::<F>());
            }
            Found::Frame { tag, len } if !begins => return Ok(Some((tag, len))),
            _ if begins => *at += u64::from(header_len::<F>()),
            Found::Blank => *at = page_end,
            Found::Broken | Found::Frame { .. } => *at = (*at + Medium::<F>::ALIGN as u64).min(page_end),
        }
        Ok(None)
    }

    /// Counts numbers as lost whose frames are broken, once.
    fn claim(&mut self, (boot, from, to): (u64, u32, u32), at: u64) -> Result<(), StorageError<F::Error>> {
        let facts = &mut self.state.facts;
        if at < facts.searched || facts.losses.contains(boot, from, to) {
            return Ok(());
        }
        facts.searched = at + 1;
        match facts.losses.add(boot, (from, to), 0, Reason::StorageCorrupt) {
            Some(loss) => self.state.write(&mut self.medium, Update::Loss(loss), self.buffer.as_mut()),
            None => {
                self.untold += u64::from(to - from) + 1;
                Ok(())
            }
        }
    }

    /// Looks for the epoch of a boot that is not the last one of the log: pages that began in it may tell, and the frame
    /// that begins the boot after it does.
    fn look_up_epoch(&mut self, boot: u64, place: u64) -> Result<Option<u64>, StorageError<F::Error>> {
        let mut from = place.max(self.events.oldest());
        let mut page = self.events.next_page(from);
        let mut known = None;
        while page < self.events.head {
            let mut at = page;
            if self.frame_at(&mut at)?.is_some()
                && let Some((_, context)) = read_page(&self.buffer.as_ref()[HEAD_LEN..])
            {
                if context.boot != boot {
                    break;
                }
                // What is learned later is better.
                (from, known) = (page, context.epoch.or(known));
            }
            page = self.events.next_page(page);
        }
        while from < self.events.head {
            let Some((tag, len)) = self.frame_at(&mut from)? else { continue };
            let payload = &self.buffer.as_ref()[HEAD_LEN..HEAD_LEN + len];
            if tag == tag::NEXT_BOOT
                && let Some(next) = NextBoot::read(payload)
            {
                if next.before.boot == boot {
                    return Ok(next.before.epoch.or(known));
                }
                if next.boot == boot {
                    known = next.epoch.or(known);
                }
            }
            from += u64::from(frame_len::<F>(len));
        }
        Ok(known)
    }
}

/// What a frame says of what is before it.
struct Seen {
    is_event: bool,
    /// The last event up to it.
    known: Option<(u64, u32)>,
    /// Numbers that should have come before it and have not: boot, first, last.
    hole: Option<(u64, u32, u32)>,
}

impl Seen {
    /// `None` if it is to be skipped.
    fn read(tag: u8, payload: &[u8], known: Option<(u64, u32)>) -> Option<Self> {
        // What must have been the last event before this frame, and what it is with it.
        let (boot, before, after, is_event) = match tag {
            tag::PAGE => {
                let (_, context) = read_page(payload)?;
                (context.boot, context.seq, (context.boot, context.seq), false)
            }
            tag::NEXT_BOOT => {
                let next = NextBoot::read(payload)?;
                if known.is_none_or(|known| known.0 == next.boot) {
                    return None;
                }
                (next.before.boot, next.before.seq, (next.boot, 0), false)
            }
            tag::EVENT | tag::TELLS | tag::TELLS_AGAIN => {
                let entry = Entry::read(tag, payload)?;
                let (boot, seq) = (entry.record.boot, entry.record.event.seq);
                (boot, entry.before, (boot, seq), true)
            }
            _ => return None,
        };
        let from = match known {
            Some((of, seq)) if of == boot => seq + 1,
            // The boot began unseen, and its beginning with it.
            Some(_) => 1,
            None => before + 1,
        };
        let hole = (from <= before).then_some((boot, from, before));
        Some(Self { is_event, known: Some(after), hole })
    }
}
