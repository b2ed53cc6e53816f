//! Thousands of Weir devices over real MQTT, and the check that nothing was lost.
//!
//! - [`run`]: many [`weir_device::Device`]s, each over its own rumqttc connection, with seeded faults.
//! - [`load`]: as many valid uplinks per second as a gateway will take, by an MQTT client made for nothing else.
//! - [`verify`]: asks the cloud and proves: emitted = stored + ledger, each exactly once.
//!
//! `run` and `load` write a [`manifest`] of what they emitted; `verify` reads it.

pub mod clock;
pub mod files;
pub mod load;
pub mod manifest;
pub mod output;
pub mod run;
pub mod stop;
pub mod target;
pub mod verify;
