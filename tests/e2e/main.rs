//! Weir's promises, tested from outside on real processes. Every module says which promises; every test ends with
//! a check that what devices emitted is stored once or accounted for, or refused with a reason.

mod arm;
mod backlog;
mod boards;
mod cluster;
mod commands;
mod delivers;
mod gateways;
mod healing;
mod limits;
mod links;
mod nats_rights;
mod operators;
mod outages;
mod outboxes;
mod permissions;
mod refusals;
mod refusing_cloud;
mod resend;
mod resets;
mod soak;
mod stock_clients;
mod tidy;
mod tls;
