//! The gateway against real counterparts: nats-server, sockets, its own process.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod clock;
mod damage;
mod full;
mod mosquitto;
mod mqtt;
mod nats;
mod process;
mod proxy;
mod service;
mod source;
mod uplink;
mod wait;
