//! The watchdog: resets the chip if nobody feeds it.
//!
//! Its first time-out interrupts, which says who it was. Its second one resets, whether or not interrupts are let through;
//! the next run cannot tell that from the reset pin.

use crate::registers::{Interrupt, Register, enable};

const TIMEOUT_S: u32 = 10;
const CLOCK_HZ: u32 = 12_500_000;

const WATCHDOG0: usize = 0x4000_0000;
const LOAD: Register = Register::at(WATCHDOG0, 0x000);
const CTL: Register = Register::at(WATCHDOG0, 0x008);
const ICR: Register = Register::at(WATCHDOG0, 0x00C);
const RCGC0: Register = Register::at(0x400F_E000, 0x100);

const RCGC0_WATCHDOG: u32 = 1 << 3;
const CTL_RESET_AND_INTERRUPT: u32 = 0b11;

/// The running watchdog. It cannot be stopped.
pub(crate) struct Watchdog(());

impl Watchdog {
    /// Starts it.
    pub(crate) fn start() -> Self {
        RCGC0.set(RCGC0_WATCHDOG);
        let _ = RCGC0.read();
        LOAD.write(TIMEOUT_S * CLOCK_HZ);
        CTL.write(CTL_RESET_AND_INTERRUPT);
        enable(Interrupt::Watchdog);
        Self(())
    }
}

impl weir_firmware::Watchdog for Watchdog {
    fn feed(&mut self) {
        // Clears the interrupt and counts from the beginning.
        ICR.write(1);
        LOAD.write(TIMEOUT_S * CLOCK_HZ);
    }
}

#[expect(unsafe_code, reason = "the vector table finds it by its name")]
#[unsafe(no_mangle)]
extern "C" fn WATCHDOG() {
    last_words::restart("watchdog")
}
