//! The journal on a chip whose power is cut anywhere.

mod chip;
mod conservation;
mod state;
mod wear;
mod world;
