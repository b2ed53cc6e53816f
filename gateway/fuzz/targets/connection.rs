//! Whatever a client sends, and however it is cut: what `weir_gateway::mqtt::trial` promises.
#![no_main]

use weir_gateway::mqtt::trial;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    trial::run(script);
});
