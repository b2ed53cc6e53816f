//! Starts a whole Weir on this machine, real processes all: nats-server, gateways, cloud, devices. The end-to-end tests
//! (`e2e/`), `weir-demo` and `weir-bench` are written with it.
//!
//! Everything listens on free loopback ports and keeps its files in one temporary folder, so worlds do not meet. Every
//! wait has a deadline. Nothing outlives the process that started it.

pub mod board;
pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod credentials;
pub mod device;
pub mod gateway;
pub mod http;
pub mod link;
pub mod mqtt;
pub mod nats;
pub mod probe;
pub mod process;
pub mod programs;
pub mod sim;
pub mod tls;
pub mod wait;
mod world;

pub use world::{Change, Plan, SETTLED_WITHIN, SITE, World, check_log, plain};
