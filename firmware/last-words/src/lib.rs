//! Why the device started: what the run before said at its end.
//!
//! A note in a part of RAM (`.uninit`) that neither a reset nor the start-up code touches. A panic, a fault and a wanted
//! restart write into it; the next run [`take`]s it and puts it into its `device-started` event. A run that ends without
//! a word was ended from outside: power, reset pin, watchdog. Of these power alone wipes the note.
//!
//! Also here, because they speak the last words: the panic handler and the hard fault handler. Both reset the chip; an
//! outbox that outlives power cuts outlives this. The stack must lie below the variables (a board's `memory.x`), so that
//! one which grows too far faults.

#![no_std]

use core::cell::UnsafeCell;
use core::fmt::{self, Write as _};
use core::mem::MaybeUninit;
use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use heapless::String;

/// The longest note, in bytes.
pub const LEN_MAX: usize = 64;

/// "WEIR", little-endian: there is a note.
const MAGIC: u32 = 0x5249_4557;

/// What a run leaves when it begins: it stays if the run ends without a word.
const SILENCE: &str = "";

#[derive(Clone, Copy)]
#[repr(C)]
struct Note {
    magic: u32,
    len: u32,
    text: [u8; LEN_MAX],
    /// Of all above: RAM that has just been powered is not zero, but anything.
    check: u32,
}

struct Place(UnsafeCell<MaybeUninit<Note>>);

#[expect(unsafe_code, reason = "a place shared by all contexts")]
// SAFETY: used only in critical sections, and by handlers after which nothing else runs.
unsafe impl Sync for Place {}

#[expect(unsafe_code, reason = "memory that start-up leaves alone is asked for by its section")]
#[unsafe(link_section = ".uninit.last_words")]
static PLACE: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));

/// What the run before said at its end: `power-on` if there was none; `silent` if it ended without a word, which the
/// board may know more about (which of watchdog and reset pin it was). To be called once, early.
pub fn take(silent: &str) -> String<LEN_MAX> {
    let reason = match read() {
        None => text("power-on"),
        Some(said) if said.as_str() == SILENCE => text(silent),
        Some(said) => said,
    };
    write(SILENCE.as_bytes());
    reason
}

/// Ends this run: the chip is reset, and `words` is what the next run gets to know.
pub fn restart(words: &str) -> ! {
    write(words.as_bytes());
    SCB::sys_reset()
}

/// How much of the stack was ever used, in bytes, and how much there is. Needs `cortex-m-rt`'s `paint-stack`.
pub fn stack_used() -> (usize, usize) {
    #[expect(unsafe_code, reason = "the linker script's symbols")]
    // SAFETY: only their addresses are taken.
    unsafe extern "C" {
        static _stack_start: u32;
        static _stack_end: u32;
    }
    let (top, bottom) = (&raw const _stack_start, &raw const _stack_end);
    let words = (top.addr() - bottom.addr()) / size_of::<u32>();
    let mut untouched = 0;
    while untouched < words {
        #[expect(unsafe_code, reason = "nobody owns the unused part of the stack")]
        // SAFETY: between the ends of the stack, which are aligned and readable; what is below the stack pointer is
        // nobody's, what is above is only read.
        let word = unsafe { bottom.add(untouched).read_volatile() };
        if word != cortex_m_rt::STACK_PAINT_VALUE {
            break;
        }
        untouched += 1;
    }
    ((words - untouched) * size_of::<u32>(), words * size_of::<u32>())
}

fn text(of: &str) -> String<LEN_MAX> {
    let mut text = String::new();
    // What does not fit is left out: a reason cut short is better than none.
    let _ = of.chars().try_for_each(|c| text.push(c));
    text
}

fn read() -> Option<String<LEN_MAX>> {
    let note = critical_section::with(|_| {
        #[expect(unsafe_code, reason = "see Place")]
        // SAFETY: in a critical section; every pattern of bits is a Note, and `check` tells whether it is one of ours.
        unsafe {
            PLACE.0.get().cast::<Note>().read_volatile()
        }
    });
    let valid = note.magic == MAGIC && note.check == check(&note);
    let bytes = note.text.get(..usize::try_from(note.len).ok()?)?;
    valid.then(|| core::str::from_utf8(bytes).ok().map(text)).flatten()
}

fn write(words: &[u8]) {
    let len = words.len().min(LEN_MAX);
    let mut note = Note { magic: MAGIC, len: 0, text: [0; LEN_MAX], check: 0 };
    note.text[..len].copy_from_slice(&words[..len]);
    note.len = u32::try_from(len).unwrap_or(0);
    note.check = check(&note);
    critical_section::with(|_| {
        #[expect(unsafe_code, reason = "see Place")]
        // SAFETY: in a critical section.
        unsafe {
            PLACE.0.get().cast::<Note>().write_volatile(note);
        }
    });
}

/// FNV-1a.
fn check(note: &Note) -> u32 {
    let head = note.len.to_le_bytes();
    let bytes = head.iter().chain(&note.text);
    bytes.fold(0x811C_9DC5 ^ note.magic, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Takes what fits.
struct Short<'t>(&'t mut String<LEN_MAX>);

impl fmt::Write for Short<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        more.chars().try_for_each(|c| self.0.push(c)).map_err(|_| fmt::Error)
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    let mut words = String::new();
    // Where before why: the place alone leads to the reason.
    let file = info.location().map_or("", |place| place.file());
    let file = file.rsplit('/').next().unwrap_or_default();
    let line = info.location().map_or(0, |place| place.line());
    let _ = write!(Short(&mut words), "panic {file}:{line}: {}", info.message());
    restart(&words)
}

/// Hard faults: an instruction or an address that is none, and a stack that has left its memory.
#[expect(
    unsafe_code,
    reason = "the vector table finds the handler by its name, and it looks at the stack before it uses it"
)]
mod fault {
    use super::{Short, String, restart};
    use core::fmt::Write as _;
    use cortex_m_rt::ExceptionFrame;

    /// Called by the hardware. Where the stack has left its memory, or nearly, the fault's frame may not be on it, and what
    /// is called here would fault again, for good: it starts anew then. The program has no other stack than the main one.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    extern "C" fn HardFault() -> ! {
        core::arch::naked_asm!(
            "mrs r0, MSP",
            "ldr r1, =_stack_end + 512",
            "cmp r0, r1",
            "blo 0f",
            "bl {fault}",
            "0:",
            "ldr r1, =_stack_start",
            "mov sp, r1",
            "bl {overflow}",
            fault = sym fault,
            overflow = sym overflow,
        )
    }

    extern "C" fn fault(frame: &ExceptionFrame) -> ! {
        let mut words = String::new();
        let _ = write!(Short(&mut words), "fault at {:#x}, from {:#x}", frame.pc(), frame.lr());
        restart(&words)
    }

    extern "C" fn overflow() -> ! {
        restart("stack overflow")
    }
}
