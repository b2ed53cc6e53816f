//! The words every part of Weir shares: names, uplinks, event bodies, commands, segments, topics, subjects.
//!
//! `no_std`, no allocator (except [`segment`]), no IO, no clock. The published form of the same contract is
//! `weir.cddl` beside this crate; the bytes in `tests/wire/v1` are frozen.
//!
//! Writers produce definite lengths and shortest integers (RFC 8949 §4.2). Readers take any well-formed CBOR of the
//! right shape (long integers, indefinite lengths, chunked strings), ignore unknown trailing array items and unknown
//! map keys, and refuse everything else with a [`Malformed`] that says what and where. Reading never panics and costs
//! time linear in the input.

#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod name;

pub mod body;
pub mod cbor;
pub mod command;
pub mod order;
#[cfg(feature = "alloc")]
pub mod segment;
pub mod subject;
mod text;
pub mod time;
pub mod topic;
pub mod uplink;

pub use cbor::{Malformed, NESTING_MAX, NoRoom, What};
pub use name::{BadName, Id, Inline, Kind, NAME_LEN_MAX};
pub use text::Text;
