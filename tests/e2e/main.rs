//! Weir's promises, tested from outside on real processes.

mod tidy;
