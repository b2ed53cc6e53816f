//! The log: lines of text, each with milliseconds since power-up and a level before it. A board says where they go.

use core::cell::Cell;

use critical_section::Mutex;
use embassy_time::Instant;
pub(crate) use plain_words::Word;

/// All is well.
pub(crate) const INFO: &str = "INFO";
/// Something goes wrong, and is tried again or done without.
pub(crate) const WARN: &str = "WARN";
/// Nothing goes without somebody's help.
pub(crate) const ERROR: &str = "ERROR";

/// Characters that the time takes at least.
const TIME_WIDTH: usize = 8;

static OUT: Mutex<Cell<fn(&[u8])>> = Mutex::new(Cell::new(|_| {}));

/// From now on lines are given to `out`, in pieces, in UTF-8. It is called from the app's tasks, never from an interrupt.
pub fn start(out: fn(&[u8])) {
    critical_section::with(|cs| OUT.borrow(cs).set(out));
}

/// Writes a line. Called by [`log!`].
pub(crate) fn line(level: &'static str, words: &[Word<'_>]) {
    let mut out = critical_section::with(|cs| OUT.borrow(cs).get());
    plain_words::say_aligned(Instant::now().as_millis(), TIME_WIDTH, &mut out);
    plain_words::say(&[" ".into(), level.into(), " ".into()], &mut out);
    plain_words::say(words, &mut out);
    out(b"\n");
}

/// Writes a line of this level, of words and numbers: `log!(INFO, "stack: ", used, " bytes")`.
macro_rules! log {
    ($level:ident, $($word:expr),+ $(,)?) => {
        $crate::log::line($crate::log::$level, &[$($crate::log::Word::from($word)),+])
    };
}
pub(crate) use log;

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    // One test: there is one log.
    #[test]
    fn a_line_has_time_level_and_words() {
        static WRITTEN: Mutex<Cell<Vec<u8>>> = Mutex::new(Cell::new(Vec::new()));
        start(|piece| {
            critical_section::with(|cs| {
                let mut written = WRITTEN.borrow(cs).take();
                written.extend_from_slice(piece);
                WRITTEN.borrow(cs).set(written);
            });
        });
        log!(WARN, "code ", 5_u8, ", boot ", u64::MAX);
        let line = String::from_utf8(critical_section::with(|cs| WRITTEN.borrow(cs).take())).expect("UTF-8");
        let (time, rest) = line.split_at(TIME_WIDTH);
        assert!(time.trim_start().bytes().all(|byte| byte.is_ascii_digit()), "{line:?}");
        assert_eq!(rest, " WARN code 5, boot 18446744073709551615\n");
    }
}
