//! The Weir gateway: takes events over MQTT, keeps them on disk, forwards them to NATS JetStream.
//!
//! Data flows down this list of modules:
//!
//! * [`mqtt`]: sockets, connections, permissions; [`source`]: other people's brokers, and what their messages mean
//! * [`intake`]: is this payload an uplink? Pure
//! * [`custody`]: group commit; an acknowledgement is sent after what it acknowledges is on disk
//! * [`spool`]: the disk; the only place that knows sled
//! * [`uplink`]: JetStream, and how NATS is reached
//!
//! Commands flow the other way: [`downlink`], out of JetStream, onto the disk, to devices.
//!
//! Beside it: [`journal`] (what the gateway itself has to tell), [`giving_up`] (what a full spool drops, told), [`telling`] (what damage took, told), [`admin`] (HTTP for operators and machines),
//! [`facts`] (metrics), [`logging`], [`config`], [`cli`], [`service`] (systemd). [`running`] puts them together.
//!
//! The wall clock is read in [`clock`] and nowhere else.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod custody;
pub mod downlink;
mod durable;
pub mod facts;
pub mod giving_up;
pub mod intake;
pub mod journal;
pub mod logging;
pub mod mqtt;
pub mod running;
pub mod service;
pub mod source;
pub mod spool;
pub mod telling;
pub mod uplink;
pub mod wear;

pub use running::{Running, start};
