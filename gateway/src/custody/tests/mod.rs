mod child;
pub(crate) mod crash;
mod power;
mod taking;

/// Some moment.
const NOW_MS: u64 = 1_800_000_000_000;
