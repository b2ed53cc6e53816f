//! The log, as lines on a UART: milliseconds since power-up, level, message.
//!
//! Whoever logs waits until the UART has taken the line: at 115,200 baud, 4 ms for one of 50 characters.

#![no_std]

use core::cell::RefCell;
use core::fmt::{self, Write as _};

use critical_section::Mutex;
use embassy_time::Instant;
use log::{LevelFilter, Log, Metadata, Record};

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

    /// From now on what is logged is written to `uart`. To be called once, before any task runs.
    pub fn start(&'static self, uart: U) {
        critical_section::with(|cs| {
            self.uart.borrow_ref_mut(cs).replace(uart);
            #[expect(
                unsafe_code,
                reason = "a processor may not be able to exchange a value in one step, which `set_logger` would need"
            )]
            // SAFETY: nobody else sets or uses a logger meanwhile: called once, in a critical section, before any task
            // runs.
            unsafe {
                if log::set_logger_racy(self).is_ok() {
                    log::set_max_level_racy(LevelFilter::Info);
                }
            }
        });
    }
}

impl<U: Send> Log for Lines<U> {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now_ms = Instant::now().as_millis();
        critical_section::with(|cs| {
            if let Some(uart) = self.uart.borrow_ref_mut(cs).as_mut() {
                let mut line = Line { uart, write: self.write };
                let _ = writeln!(line, "{now_ms:>8} {} {}", record.level(), record.args());
            }
        });
    }

    fn flush(&self) {}
}

struct Line<'u, U> {
    uart: &'u mut U,
    write: fn(&mut U, &[u8]),
}

impl<U> fmt::Write for Line<'_, U> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (self.write)(self.uart, text.as_bytes());
        Ok(())
    }
}
