//! The HTTP API and the command line against a real store, filled by the real fold with uplinks as devices write them, and asked
//! over real sockets.

mod command_line;
mod fixture;
mod limits;
mod queries;
