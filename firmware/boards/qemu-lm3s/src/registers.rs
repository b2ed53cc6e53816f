//! Reading and writing the chip's registers: the only place that does.

/// A 32-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Register(*mut u32);

impl Register {
    /// The register at `offset` in the block at `base`. Both must be of the LM3S6965's memory map.
    pub(crate) const fn at(base: usize, offset: usize) -> Self {
        Self(core::ptr::without_provenance_mut(base + offset))
    }

    pub(crate) fn read(self) -> u32 {
        #[expect(unsafe_code, reason = "registers are at fixed addresses")]
        // SAFETY: every `Register` is made from addresses of the data sheet; they are aligned, and reading one has no
        // effect on memory.
        unsafe {
            self.0.read_volatile()
        }
    }

    pub(crate) fn write(self, value: u32) {
        #[expect(unsafe_code, reason = "registers are at fixed addresses")]
        // SAFETY: as above; no register used here makes the chip write to memory by itself.
        unsafe {
            self.0.write_volatile(value);
        }
    }

    pub(crate) fn set(self, bits: u32) {
        self.write(self.read() | bits);
    }
}

/// Interrupts of the LM3S6965 used here (data sheet, table 2-9).
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum Interrupt {
    /// The watchdog.
    Watchdog = 18,
    /// General-purpose timer 0, half A.
    Timer0A = 19,
    /// The Ethernet controller.
    Ethernet = 42,
}

#[expect(unsafe_code, reason = "the trait is unsafe")]
// SAFETY: the numbers are those of the data sheet, each is one interrupt of the chip.
unsafe impl cortex_m::interrupt::InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self as u16
    }
}

/// Lets an interrupt through whose handler is in the vector table.
pub(crate) fn enable(interrupt: Interrupt) {
    #[expect(unsafe_code, reason = "unmasking may break critical sections that work by masking")]
    // SAFETY: critical sections here mask all interrupts by PRIMASK, none masks a single one.
    unsafe {
        cortex_m::peripheral::NVIC::unmask(interrupt);
    }
}

/// The vector table of the chip's interrupts: those not used end in the default handler, which faults.
mod vectors {
    #[derive(Clone, Copy)]
    union Vector {
        handler: unsafe extern "C" fn(),
        reserved: usize,
    }

    #[expect(unsafe_code, reason = "the handlers, wherever they are")]
    // SAFETY: they are functions that the hardware may call.
    unsafe extern "C" {
        fn DefaultHandler();
        fn WATCHDOG();
        fn TIMER0A();
        fn ETHERNET();
    }

    #[expect(unsafe_code, reason = "cortex-m-rt looks for the table by its name and section")]
    #[unsafe(link_section = ".vector_table.interrupts")]
    #[unsafe(no_mangle)]
    static __INTERRUPTS: [Vector; 44] = {
        let mut table = [Vector { handler: DefaultHandler }; 44];
        table[super::Interrupt::Watchdog as usize] = Vector { handler: WATCHDOG };
        table[super::Interrupt::Timer0A as usize] = Vector { handler: TIMER0A };
        table[super::Interrupt::Ethernet as usize] = Vector { handler: ETHERNET };
        table[43] = Vector { reserved: 0 };
        table
    };
}
