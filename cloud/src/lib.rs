//! The cloud side of Weir: folds the log into device state and history, and answers queries about them.

pub mod log;
pub mod projection;
pub mod store;
