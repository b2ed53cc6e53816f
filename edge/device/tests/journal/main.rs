//! The journal on a chip whose power is cut anywhere.

#[allow(dead_code, reason = "for the event log, which follows")]
mod chip;
mod state;
