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
use core::mem::MaybeUninit;
use core::panic::{Location, PanicInfo};

use cortex_m::peripheral::SCB;
use heapless::String;
use plain_words::Word;

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
    let mut place = Note { magic: 0, len: 0, text: [0; LEN_MAX], check: 0 };
    let reason = match read(&mut place) {
        None => "power-on",
        Some(SILENCE) => silent,
        Some(said) => said,
    };
    // The texts of a board are shorter, and a note is no longer than this.
    let reason = String::try_from(reason).unwrap_or_default();
    write(&[SILENCE.into()]);
    reason
}

/// Ends this run: the chip is reset, and `words` is what the next run gets to know.
pub fn restart(words: &str) -> ! {
    restart_saying(&[words.into()])
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

/// Reads the note into `note`. `None` if there is none.
fn read(note: &mut Note) -> Option<&str> {
    *note = critical_section::with(|_| {
        #[expect(unsafe_code, reason = "see Place")]
        // SAFETY: in a critical section; every pattern of bits is a Note, and `check` tells whether it is one of ours.
        unsafe {
            PLACE.0.get().cast::<Note>().read_volatile()
        }
    });
    if note.magic != MAGIC || note.check != check(note) {
        return None;
    }
    core::str::from_utf8(note.text.get(..note.len as usize)?).ok()
}

/// Leaves a note of these words, cut where it is full.
#[inline(never)]
fn write(words: &[Word<'_>]) {
    let mut note = Note { magic: MAGIC, len: 0, text: [0; LEN_MAX], check: 0 };
    plain_words::say(words, &mut |piece| {
        for byte in piece {
            if let Some(place) = note.text.get_mut(note.len as usize) {
                *place = *byte;
                note.len += 1;
            }
        }
    });
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
#[inline(never)]
fn check(note: &Note) -> u32 {
    let head = note.len.to_le_bytes();
    let bytes = head.iter().chain(&note.text);
    bytes.fold(0x811C_9DC5 ^ note.magic, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The same, of several words.
#[inline(never)]
fn restart_saying(words: &[Word<'_>]) -> ! {
    write(words);
    SCB::sys_reset()
}

/// Its place is the reason that is told. What a panic says of itself besides would need `core::fmt`, with all that anybody
/// could ever panic with. This goes wherever a panic begins, and so the compiler sees that nobody wants the rest, and
/// leaves that out as well.
#[inline(always)]
#[expect(
    unused_attributes,
    reason = "an exported function stays one, but is put in place of its calls all the same"
)]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => panicked(place),
        None => restart("panic"),
    }
}

#[inline(never)]
fn panicked(place: &Location<'_>) -> ! {
    cortex_m::interrupt::disable();
    let file = place.file();
    let name = file.bytes().rposition(|byte| byte == b'/').map_or(0, |slash| slash + 1);
    restart_saying(&[
        "panic ".into(),
        file.get(name..).unwrap_or_default().into(),
        ":".into(),
        place.line().into(),
    ])
}

/// Hard faults: an instruction or an address that is none, and a stack that has left its memory.
#[expect(
    unsafe_code,
    reason = "the vector table finds the handler by its name, and it looks at the stack before it uses it"
)]
mod fault {
    use super::{Word, restart, restart_saying};
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
        let (at, from) = (Word::Address(frame.pc()), Word::Address(frame.lr()));
        restart_saying(&["fault at ".into(), at, ", from ".into(), from])
    }

    extern "C" fn overflow() -> ! {
        restart("stack overflow")
    }
}
