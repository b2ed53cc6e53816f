//! The log, as lines on a UART.
//!
//! Whoever logs waits until the UART has taken the line: at 115,200 baud, 4 ms for one of 50 characters.

#![no_std]

use core::cell::RefCell;

use critical_section::Mutex;

/// Lines on a UART of type `U`. Silent until it is [started](Self::start).
pub struct Lines<U> {
    uart: Mutex<RefCell<Option<U>>>,
    write: fn(&mut U, &[u8]),
}

impl<U: Send> Lines<U> {
    /// `write` writes bytes, and waits until they are taken. What it cannot write is lost.
    pub const fn new(write: fn(&mut U, &[u8])) -> Self {
        Self { uart: Mutex::new(RefCell::new(None)), write }
    }

    /// From now on what is logged is written to `uart`. `log` gives it to [`Self::write`].
    pub fn start(&self, uart: U, log: fn(&[u8])) {
        critical_section::with(|cs| self.uart.borrow_ref_mut(cs).replace(uart));
        weir_firmware::log::start(log);
    }

    /// Writes a piece of a line.
    pub fn write(&self, piece: &[u8]) {
        critical_section::with(|cs| {
            if let Some(uart) = self.uart.borrow_ref_mut(cs).as_mut() {
                (self.write)(uart, piece);
            }
        });
    }
}
