//! The app of every board: a thermometer that loses nothing.
//!
//! # Purpose
//!
//! Reads a temperature sensor and tells a Weir gateway what changed, what crossed the limit, and when it was; keeps what
//! it could not tell yet. Everything it decides is in `weir-device`; here that is tied to a sensor, a network and a clock.
//!
//! # Settings
//!
//! How often it samples, what change is worth an event, the limit: [`settings`]. Who it is and where its gateway is:
//! its provisioning record.
//!
//! # Telemetry
//!
//! | event | when |
//! |---|---|
//! | `device-started` | once per power-up; with firmware, board, and why it started |
//! | `reading-taken` | sensor `temperature`, °C: a change of half a degree, or after a minute without an event |
//! | `limit-crossed` | the limit is reached, and when it is left by the hysteresis |
//! | `command-*`, `events-lost` | as the contract says |
//!
//! # How it runs
//!
//! Two loops in one task, on one thread: [`sampling`] and [`link`] (MQTT); the network stack has a task of its own. The
//! loops share a [`Core`](core::Core), borrowed only between awaits. The watchdog is fed while both go round.

#![no_std]

#[cfg(test)]
extern crate std;

mod app;
mod core;
mod identity;
mod link;
pub mod log;
mod mqtt;
mod network;
mod sampling;
pub mod settings;

pub use app::{Board, End, Memory, Watchdog, run};
