//! What the contract promises, held against bytes that never change, a foreign implementation of CBOR, the published
//! CDDL, and bytes of any kind whatever.
//!
//! Random tests print their seed; `WEIR_SEED=… cargo test -p weir-contract` repeats them.

mod agreement;
mod bounds;
mod cbor;
mod cddl;
mod frozen;
mod hostile;
mod names;
mod refusals;
mod support;
mod texts;
mod times;
