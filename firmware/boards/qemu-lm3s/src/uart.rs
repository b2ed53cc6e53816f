//! UART 0, for the log.

use crate::registers::Register;

const UART0: usize = 0x4000_C000;
const DR: Register = Register::at(UART0, 0x000);
const FR: Register = Register::at(UART0, 0x018);
const IBRD: Register = Register::at(UART0, 0x024);
const FBRD: Register = Register::at(UART0, 0x028);
const LCRH: Register = Register::at(UART0, 0x02C);
const CTL: Register = Register::at(UART0, 0x030);
const RCGC1: Register = Register::at(0x400F_E000, 0x104);
const RCGC2: Register = Register::at(0x400F_E000, 0x108);
/// GPIO A: its pins 0 and 1 are UART 0.
const GPIOA_AFSEL: Register = Register::at(0x4000_4000, 0x420);
const GPIOA_DEN: Register = Register::at(0x4000_4000, 0x51C);

const FR_TXFF: u32 = 1 << 5;
const LCRH_8_BITS_FIFO: u32 = 0x3 << 5 | 1 << 4;
const CTL_ENABLE_TX: u32 = 1 << 8 | 1;

/// 115,200 baud, 8N1; from now on what is logged is written there.
pub(crate) fn start() {
    RCGC1.set(1);
    RCGC2.set(1);
    let _ = RCGC2.read();
    GPIOA_AFSEL.set(0b11);
    GPIOA_DEN.set(0b11);
    CTL.write(0);
    // 12.5 MHz / (16 · 115,200 Hz) = 6 + 50/64.
    IBRD.write(6);
    FBRD.write(50);
    LCRH.write(LCRH_8_BITS_FIFO);
    CTL.write(CTL_ENABLE_TX);
    weir_firmware::log::start(write);
}

fn write(bytes: &[u8]) {
    for byte in bytes {
        while FR.read() & FR_TXFF != 0 {}
        DR.write(u32::from(*byte));
    }
}
