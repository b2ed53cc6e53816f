//! What a Weir device does, given inputs and the time: it samples, numbers what it observes, keeps it until a gateway
//! has it on disk, and says what it could not keep.
//!
//! `no_std`, no allocator, no IO, no clock. The shell around it (firmware, simulator) carries bytes and time:
//!
//! ```text
//!   sensor ──► Agent (Sampler, Limit) ──► Device::emit ──► Outbox ──► Device::poll ──► Action ──► MQTT client
//!                                                    ▲                                         │
//!                                                    └── acknowledged ◄── connected, disconnected, received
//! ```
//!
//! The outbox keeps its events in a [`Memory`]: [`Ram`], or a [`journal::Journal`] in an EEPROM or flash, which also counts
//! boots and keeps what else must outlive a cut of power. Who the device is, its [`provision::Record`] says.
//!
//! A shell's loop: give [`Device`] what happened, call [`Device::poll`] until it says [`Action::Wait`], do what it says.
//!
//! # Invariants
//!
//! - Every number 1..=last of a boot is acknowledged, kept, or covered by an `events-lost`: exactly one of them.
//! - Events of a boot are published in order; after a reconnect the oldest unacknowledged ones go first, in the same uplinks.
//! - An event is freed only when it and all before it are acknowledged, in whatever order the acknowledgements come.
//! - All times are milliseconds since boot, given by the caller. They may stand still; they do not go back.

#![no_std]

#[cfg(test)]
extern crate std;

mod agent;
mod crc;
mod device;
mod eeprom;
pub mod journal;
mod losses;
mod memory;
mod outbox;
pub mod provision;
mod ram;
mod recent;
mod sampler;
mod session;

pub use agent::{
    Agent, BadRecord, Duty, RESTART_WAIT_MS_MAX, SENSORS_MAX, Sensor, Settings, Threshold, record_len_max,
};
pub use device::{Action, Config, Device, Publish};
pub use eeprom::{Eeprom, EepromError};
pub use losses::{Loss, Reason};
pub use memory::{Memory, Next, Record, Refused, Stamp, Unreadable};
pub use outbox::{Acknowledged, Emitted, Outbox, Token};
pub use ram::{Position, Ram};
pub use recent::{COMMANDS_REMEMBERED, Recent, Seen};
pub use sampler::{Crossing, Limit, Sampler};
pub use session::{Backoff, Session, Step};
