//! A memory chip that outlives its users, whose power can be cut in the middle of any byte, and that insists on the rules.

use std::cell::RefCell;
use std::rc::Rc;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

/// Bytes that a chip programs at once: what a cut can tear.
const PROGRAM_LEN: usize = 64;
/// An erase can be cut at so many places.
const ERASE_STEPS: usize = 8;

/// A chip that writes words of `WRITE` bytes and erases units of `ERASE`. Clones are the same chip.
#[derive(Debug, Clone)]
pub struct Chip<const WRITE: usize, const ERASE: usize>(Rc<RefCell<Inside>>);

/// A 24C256, and serial NOR flash.
pub type Eeprom = Chip<1, 64>;
pub type Nor = Chip<4, 4096>;

#[derive(Debug)]
struct Inside {
    bytes: Vec<u8>,
    /// Words that were written since they were erased.
    written: Vec<bool>,
    erased: Vec<u32>,
    counts: Counts,
    /// Steps until the power is cut.
    left: Option<u64>,
    /// The power is cut.
    dead: bool,
    random: fastrand::Rng,
}

/// What has been done to the chip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Places at which it could have been cut.
    pub steps: u64,
    pub writes: u64,
    pub bytes_written: u64,
    pub erases: u64,
    pub reads: u64,
    pub bytes_read: u64,
}

/// The power is gone, or the caller is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead;

impl NorFlashError for Dead {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const WRITE: usize, const ERASE: usize> Chip<WRITE, ERASE> {
    pub fn new(len: usize) -> Self {
        Self(Rc::new(RefCell::new(Inside {
            bytes: vec![0xff; len],
            written: vec![false; len / WRITE],
            erased: vec![0; len / ERASE],
            counts: Counts::default(),
            left: None,
            dead: false,
            random: fastrand::Rng::with_seed(7),
        })))
    }

    /// The power is cut after so many steps more. What is torn depends on the seed.
    pub fn cut_after(&self, steps: u64, seed: u64) {
        let mut inside = self.0.borrow_mut();
        inside.left = Some(steps);
        inside.random = fastrand::Rng::with_seed(seed);
    }

    pub fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    pub fn power_up(&self) {
        let mut inside = self.0.borrow_mut();
        (inside.left, inside.dead) = (None, false);
    }

    pub fn counts(&self) -> Counts {
        self.0.borrow().counts
    }

    /// How often each unit was erased.
    pub fn erased(&self) -> Vec<u32> {
        self.0.borrow().erased.clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }

    /// Another chip with the same content.
    pub fn copy(&self) -> Self {
        let inside = self.0.borrow();
        Self(Rc::new(RefCell::new(Inside {
            bytes: inside.bytes.clone(),
            written: inside.written.clone(),
            erased: inside.erased.clone(),
            random: inside.random.clone(),
            ..*inside
        })))
    }

    /// A bit changes by itself.
    pub fn flip(&self, at: usize, bits: u8) {
        let mut inside = self.0.borrow_mut();
        inside.bytes[at] ^= bits;
        inside.written[at / WRITE] = true;
    }
}

impl Inside {
    /// Whether there is power for one more step.
    fn step(&mut self) -> bool {
        self.counts.steps += 1;
        match &mut self.left {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.dead
    }

    /// A word that is being written when the power goes: old, new, or something between.
    fn tear(&mut self, range: std::ops::Range<usize>, new: &[u8]) {
        for (at, new) in range.zip(new) {
            self.bytes[at] = match self.random.u8(..4) {
                0 => self.bytes[at],
                1 => *new,
                2 => self.bytes[at] & (*new | self.random.u8(..)),
                _ => self.random.u8(..),
            };
        }
    }
}

impl<const WRITE: usize, const ERASE: usize> ErrorType for Chip<WRITE, ERASE> {
    type Error = Dead;
}

impl<const WRITE: usize, const ERASE: usize> ReadNorFlash for Chip<WRITE, ERASE> {
    const READ_SIZE: usize = if WRITE < 4 { WRITE } else { 4 };

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        check_read(self, offset, bytes.len()).expect("reads are aligned and inside");
        let mut inside = self.0.borrow_mut();
        if inside.dead {
            return Err(Dead);
        }
        inside.counts.reads += 1;
        inside.counts.bytes_read += bytes.len() as u64;
        let offset = offset as usize;
        bytes.copy_from_slice(&inside.bytes[offset..offset + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().bytes.len()
    }
}

impl<const WRITE: usize, const ERASE: usize> NorFlash for Chip<WRITE, ERASE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Dead> {
        check_erase(self, from, to).expect("erases are aligned and inside");
        let mut inside = self.0.borrow_mut();
        if inside.dead {
            return Err(Dead);
        }
        for unit in from as usize / ERASE..to as usize / ERASE {
            inside.counts.erases += 1;
            inside.erased[unit] += 1;
            for part in 0..ERASE_STEPS {
                let (len, start) = (ERASE / ERASE_STEPS, unit * ERASE);
                let range = start + part * len..start + (part + 1) * len;
                if !inside.step() {
                    // Not erased, nor what it was: all that is left must be erased again.
                    inside.tear(range, &vec![0xff; len]);
                    inside.written[start / WRITE..(start + ERASE) / WRITE].fill(true);
                    return Err(Dead);
                }
                inside.bytes[range].fill(0xff);
            }
            inside.written[unit * ERASE / WRITE..(unit + 1) * ERASE / WRITE].fill(false);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        check_write(self, offset, bytes.len()).expect("writes are aligned and inside");
        let mut inside = self.0.borrow_mut();
        if inside.dead {
            return Err(Dead);
        }
        inside.counts.writes += 1;
        inside.counts.bytes_written += bytes.len() as u64;
        let offset = offset as usize;
        for at in (0..bytes.len()).step_by(WRITE) {
            let word = (offset + at) / WRITE;
            assert!(!inside.written[word], "byte {} is written twice without an erase", offset + at);
        }
        for at in (0..bytes.len()).step_by(WRITE) {
            let here = offset + at;
            if !inside.step() {
                // Either this word is torn, or any of those that are programmed with it.
                let len = if inside.random.bool() {
                    WRITE
                } else {
                    (PROGRAM_LEN.max(WRITE) - here % PROGRAM_LEN.max(WRITE)).min(bytes.len() - at)
                };
                inside.tear(here..here + len, &bytes[at..at + len]);
                // What reads as erased nobody can tell from erased, so nobody can be asked not to write there.
                for word in offset / WRITE..(here + len) / WRITE {
                    inside.written[word] =
                        inside.bytes[word * WRITE..(word + 1) * WRITE].iter().any(|&byte| byte != 0xff);
                }
                return Err(Dead);
            }
            inside.bytes[here..here + WRITE].copy_from_slice(&bytes[at..at + WRITE]);
            inside.written[here / WRITE] = true;
        }
        Ok(())
    }
}
