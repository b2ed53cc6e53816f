//! The gateway against real counterparts: nats-server, sockets, its own process.

mod nats;
mod proxy;
mod uplink;
mod wait;
