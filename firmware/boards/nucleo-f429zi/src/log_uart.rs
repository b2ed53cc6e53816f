//! The log, as lines on a UART: milliseconds since power-up, level, message.

use core::cell::RefCell;
use core::fmt::{self, Write as _};

use critical_section::Mutex;
use embassy_stm32::mode::Blocking;
use embassy_stm32::usart::UartTx;
use embassy_time::Instant;
use log::{LevelFilter, Log, Metadata, Record};

type Uart = UartTx<'static, Blocking>;

struct Lines(Mutex<RefCell<Option<Uart>>>);

static LINES: Lines = Lines(Mutex::new(RefCell::new(None)));

/// From now on what is logged is written there.
pub(crate) fn start(uart: Uart) {
    critical_section::with(|cs| LINES.0.borrow_ref_mut(cs).replace(uart));
    if log::set_logger(&LINES).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now_ms = Instant::now().as_millis();
        critical_section::with(|cs| {
            if let Some(uart) = self.0.borrow_ref_mut(cs).as_mut() {
                let _ = writeln!(Line(uart), "{now_ms:>8} {} {}", record.level(), record.args());
            }
        });
    }

    fn flush(&self) {}
}

struct Line<'u>(&'u mut Uart);

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.blocking_write(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
