//! Whatever the bytes: no reader panics, and what one accepts holds together.
#![no_main]

#[path = "../../tests/support/readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::read(bytes);
});
