//! MQTT over real sockets, with real custody and a real spool.

mod access;
mod attacks;
mod daemon;
mod harness;
mod killers;
mod limits;
mod local;
mod promise;
mod protocol;
mod resources;
