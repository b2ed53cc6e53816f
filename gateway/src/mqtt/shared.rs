//! What all connections share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::sync::Semaphore;
use weir_contract::Id;

use super::crowd::Crowd;
use super::local::Local;
use super::passwords::Passwords;
use super::refusals::Refusals;
use super::registry::Registry;
use super::session;
use super::topics::Rights;
use crate::clock::Clock;
use crate::custody::Custody;
use crate::downlink::Hub;
use crate::journal;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub limits: session::Limits,
    pub times: Times,
    /// Whose events are not taken over MQTT.
    pub gateway: Option<Id>,
    pub rights: HashMap<String, Arc<Rights>>,
    pub passwords: Option<Passwords>,
    pub custody: Custody,
    pub commands: Arc<Hub>,
    pub journal: journal::Sender,
    pub clock: Clock,
    pub local: Arc<Local>,
    pub registry: Arc<Registry>,
    pub refusals: Arc<Refusals>,
    /// A permit for each connection there may be.
    pub connections: Arc<Semaphore>,
    pub connections_max: u32,
    /// And how many from each address.
    pub crowd: Arc<Crowd>,
    /// Never has permits; closed when the gateway goes down.
    pub closing: Semaphore,
    /// The last number given to a connection.
    pub numbers: AtomicU32,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub keep_alive_max: Duration,
    pub connect: Duration,
    pub handshake: Duration,
    pub packet: Duration,
}

impl Shared {
    /// Resolves when the gateway goes down.
    pub async fn closed(&self) {
        let closed = self.closing.acquire().await;
        debug_assert!(closed.is_err(), "it never has permits");
    }
}
