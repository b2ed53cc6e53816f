//! Time: SysTick counts, timer 0 wakes. Nothing ticks while nobody waits, so an idle board leaves its host alone.
//!
//! SysTick runs through its 24 bits and interrupts once per round (1.3 s); rounds are counted, and the present time is
//! rounds and counter together. Timer 0 is set to the next time somebody waits for.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{Peripherals, SCB, SYST};
use cortex_m_rt::exception;
use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

use crate::registers::{Interrupt, Register, enable};

/// The PLL's 200 MHz by 16. A round of SysTick should be long: rounds that pass while the host gives the emulator no
/// processor are seen as one.
const CLOCK_HZ: u64 = 12_500_000;
const SYSDIV: u32 = 16;
/// What SysTick counts in a round.
const ROUND: u32 = 1 << 24;

const RCC: Register = Register::at(0x400F_E000, 0x060);
const RIS: Register = Register::at(0x400F_E000, 0x050);
const RCGC1: Register = Register::at(0x400F_E000, 0x104);
const RCC_SYSDIV_POS: u32 = 23;
const RCC_SYSDIV: u32 = 0xF << RCC_SYSDIV_POS;
const RCC_USESYSDIV: u32 = 1 << 22;
const RCC_PWRDN: u32 = 1 << 13;
const RCC_OEN: u32 = 1 << 12;
const RCC_BYPASS: u32 = 1 << 11;
const RCC_XTAL_8MHZ: u32 = 0xE << 6;
const RCC_XTAL: u32 = 0xF << 6;
const RCC_OSCSRC: u32 = 0x3 << 4;
const RCC_MOSCDIS: u32 = 1 << 0;
const RIS_PLLLRIS: u32 = 1 << 6;
const RCGC1_TIMER0: u32 = 1 << 16;

const RCGC1_TIMER1: u32 = 1 << 17;

const TIMER0: usize = 0x4003_0000;
const GPTMCFG: Register = Register::at(TIMER0, 0x000);
const GPTMTAMR: Register = Register::at(TIMER0, 0x004);
const GPTMCTL: Register = Register::at(TIMER0, 0x00C);
const GPTMIMR: Register = Register::at(TIMER0, 0x018);
const GPTMICR: Register = Register::at(TIMER0, 0x024);
const GPTMTAILR: Register = Register::at(TIMER0, 0x028);
/// Timer 1, see [`stir`].
const TIMER1: usize = 0x4003_1000;
const STIR_CFG: Register = Register::at(TIMER1, 0x000);
const STIR_TAMR: Register = Register::at(TIMER1, 0x004);
const STIR_CTL: Register = Register::at(TIMER1, 0x00C);
const STIR_TAILR: Register = Register::at(TIMER1, 0x028);
/// A millisecond.
const STIR_CYCLES: u32 = 12_500;
const CFG_32_BIT: u32 = 0;
const TAMR_ONE_SHOT: u32 = 1;
const CTL_ENABLE: u32 = 1;
const TIMEOUT: u32 = 1;

struct Clock {
    rounds: Mutex<Cell<u32>>,
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock {
    rounds: Mutex::new(Cell::new(0)),
    queue: Mutex::new(RefCell::new(Queue::new())),
});

/// Sets the processor's clock and starts the time. To be called once, first of all.
pub(crate) fn start() {
    let rcc = RCC.read() & !(RCC_SYSDIV | RCC_XTAL | RCC_OSCSRC | RCC_MOSCDIS | RCC_PWRDN | RCC_OEN);
    RCC.write(rcc | RCC_BYPASS | RCC_XTAL_8MHZ | (SYSDIV - 1) << RCC_SYSDIV_POS | RCC_USESYSDIV);
    while RIS.read() & RIS_PLLLRIS == 0 {}
    RCC.write(RCC.read() & !RCC_BYPASS);

    RCGC1.set(RCGC1_TIMER0 | RCGC1_TIMER1);
    // The clock reaches the timer some cycles later.
    let _ = RCGC1.read();
    GPTMCTL.write(0);
    GPTMCFG.write(CFG_32_BIT);
    GPTMTAMR.write(TAMR_ONE_SHOT);
    GPTMIMR.write(TIMEOUT);
    enable(Interrupt::Timer0A);
    STIR_CTL.write(0);
    STIR_CFG.write(CFG_32_BIT);
    STIR_TAMR.write(TAMR_ONE_SHOT);

    let mut systick = Peripherals::take().expect("nobody else takes them").SYST;
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(ROUND - 1);
    systick.clear_current();
    systick.enable_counter();
    // The first round begins when the counter has taken its value; QEMU may take that for the end of a round.
    while SYST::get_current() == 0 {}
    SCB::clear_pendst();
    systick.enable_interrupt();
}

/// Has a timer run out soon, at which nothing happens here. In QEMU its main loop then goes round: a board that does not
/// tick lets it sleep, and only there does its user network look after connections that it was asked to open.
pub(crate) fn stir() {
    STIR_CTL.write(0);
    STIR_TAILR.write(STIR_CYCLES);
    STIR_CTL.write(CTL_ENABLE);
}

impl Clock {
    fn cycles(&self, cs: CriticalSection<'_>) -> u64 {
        let rounds = self.rounds.borrow(cs).get();
        let counted = ROUND - 1 - SYST::get_current();
        if !SCB::is_pendst_pending() {
            return u64::from(rounds) * u64::from(ROUND) + u64::from(counted);
        }
        // A round has ended that is not counted yet; the counter may have been read before its end.
        let counted = ROUND - 1 - SYST::get_current();
        (u64::from(rounds) + 1) * u64::from(ROUND) + u64::from(counted)
    }

    fn set_alarm(&self, cs: CriticalSection<'_>, at: u64) -> bool {
        GPTMCTL.write(0);
        GPTMICR.write(TIMEOUT);
        if at == u64::MAX {
            return true;
        }
        let now = ticks(self.cycles(cs));
        if at <= now {
            return false;
        }
        // Too early is no harm: the alarm is set anew then. Rounded up, so that it is not too early for nothing.
        let cycles = (at - now).saturating_mul(CLOCK_HZ).div_ceil(embassy_time_driver::TICK_HZ);
        GPTMTAILR.write(u32::try_from(cycles).unwrap_or(u32::MAX));
        GPTMCTL.write(CTL_ENABLE);
        true
    }

    fn wake_who_is_due(&self, cs: CriticalSection<'_>) {
        let mut queue = self.queue.borrow(cs).borrow_mut();
        loop {
            let next = queue.next_expiration(ticks(self.cycles(cs)));
            if self.set_alarm(cs, next) {
                return;
            }
        }
    }
}

impl Driver for Clock {
    fn now(&self) -> u64 {
        ticks(critical_section::with(|cs| self.cycles(cs)))
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            if self.queue.borrow(cs).borrow_mut().schedule_wake(at, waker) {
                self.wake_who_is_due(cs);
            }
        });
    }
}

fn ticks(cycles: u64) -> u64 {
    // 12.5 MHz against 1 MHz: exact in small numbers, so that it does not overflow for 23,000 years.
    const { assert!(embassy_time_driver::TICK_HZ * 25 == CLOCK_HZ * 2) };
    cycles * 2 / 25
}

#[exception]
fn SysTick() {
    critical_section::with(|cs| {
        let rounds = CLOCK.rounds.borrow(cs);
        rounds.set(rounds.get().wrapping_add(1));
    });
}

#[expect(unsafe_code, reason = "the vector table finds it by its name")]
#[unsafe(no_mangle)]
extern "C" fn TIMER0A() {
    GPTMICR.write(TIMEOUT);
    critical_section::with(|cs| CLOCK.wake_who_is_due(cs));
}
