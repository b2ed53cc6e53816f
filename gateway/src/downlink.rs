//! The downlink: commands out of JetStream, onto our disk, to devices, until they are answered or their deadline passes.
//!
//! ```text
//!   WEIR_COMMANDS ──► nats ──► store (disk) ──► core: who, when ──► Mailbox ──► the device's connection
//!                       ▲         │               ▲      │
//!                       └── ack ◄─┘               │      └──► journal: command-expired, command-refused
//!                                     saw: answers in uplinks
//! ```
//!
//! A command is acknowledged to the stream when it is on our disk: from then on the gateway needs no network to deliver
//! it, for as long as its deadline lasts. It is addressed to a gateway and a device; if the device has roamed to another
//! gateway it expires here.
//!
//! # Invariants
//! - Uplinks are looked into only while a command waits for that very device; otherwise [`Hub::is_idle`] is all they cost.
//! - What the stream has delivered is kept, or refused in the journal: nothing is dropped in silence.

mod config;
pub(crate) mod core;
mod nats;
mod own;
pub(crate) mod store;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use weir_contract::Id;
use weir_contract::body::{Body, Outcome};
use weir_contract::subject;
use weir_contract::uplink::Uplink;

pub use self::config::Config;
pub use self::core::Waiting;
pub use self::own::Own;
pub use self::store::Error;

use self::core::{Admission, Core, Effect, Limits, Listener, Order, Refusal};
use self::nats::{Incoming, Source};
use self::store::Store;
use crate::clock::Clock;
use crate::uplink::pacing::{Backoff, Trouble};
use crate::{facts, journal, uplink};

/// Commands that a connection has yet to write.
const MAILBOX_MAX: usize = 16;
/// How often the wall clock is looked at, should it be set.
const LOOK_MS: u64 = 60_000;
/// Commands shown at a time.
const SHOWN_MAX: usize = 100;

/// The running downlink. Dropping it stops it; what waits is on disk.
#[derive(Debug)]
pub struct Downlink {
    hub: Arc<Hub>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where connections and commands meet.
#[derive(Debug)]
pub struct Hub {
    /// Commands that wait; a copy of what `state` says.
    pending: AtomicUsize,
    state: Mutex<State>,
    changed: Notify,
    /// Tells that there is something that has expired.
    expired: Notify,
    journal: journal::Sender,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    core: Core,
    slots: HashMap<Listener, Arc<Slot>>,
    listeners: Listener,
    /// Commands that have ended and may be put away.
    over: Vec<u64>,
    /// Commands that have expired, which is still to be told.
    expired: Vec<Expired>,
    trouble: Option<Trouble>,
    refused: u64,
}

/// A command that has expired.
#[derive(Debug)]
struct Expired {
    number: u64,
    device: Id,
    id: Box<str>,
}

/// A device that listens to commands on a connection; dropping it ends that.
#[derive(Debug)]
pub struct Mailbox {
    hub: Arc<Hub>,
    device: Id,
    listener: Listener,
    slot: Arc<Slot>,
}

/// What is to be written on a connection.
#[derive(Debug, Default)]
pub struct Slot {
    commands: Mutex<VecDeque<Arc<[u8]>>>,
    filled: Notify,
}

/// How commands go, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Commands that wait.
    pub pending: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Refused since the start.
    pub refused: u64,
    /// Why no commands come, if so.
    pub trouble: Option<Trouble>,
    /// The first of those that wait, by deadline.
    pub waiting: Vec<Waiting>,
}

/// What the downlink needs.
pub struct Setup {
    /// `[commands]`
    pub config: Config,
    /// `[uplink]`: how NATS is reached.
    pub uplink: uplink::Config,
    /// Where commands are kept.
    pub folder: PathBuf,
    /// Where the gateway stands.
    pub site: Id,
    /// The gateway.
    pub gateway: Id,
    /// Who is told.
    pub journal: journal::Sender,
    /// The wall clock.
    pub clock: Clock,
    /// For commands to the gateway itself.
    pub own: Own,
}

/// Starts the downlink on the current runtime. Reads what waits, from the disk.
///
/// # Errors
/// The folder cannot be read.
pub fn start(setup: Setup) -> Result<Downlink, Error> {
    let Setup { config, uplink, folder, site, gateway, journal, clock, own } = setup;
    // Checked to be far below that.
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let limits = Limits {
        per_device: size(config.per_device_max),
        pending: size(config.pending_max),
        bytes: size(config.bytes_max),
        retry_ms: config.retry_ms,
        retry_ms_max: config.retry_ms_max.max(config.retry_ms),
    };
    let hub = Arc::new(Hub::new(limits, journal, clock));
    if !config.enabled {
        return Ok(Downlink { hub, tasks: Vec::new() });
    }
    let (store, left) = Store::open(&folder)?;
    for path in &left.damaged {
        tracing::error!(file = %path.display(), "a kept command is damaged and will not be delivered");
    }
    hub.restore(left.waiting, &left.ended);
    let store = Arc::new(Mutex::new(store));
    let taker = Taker {
        backoff: Backoff::new(uplink.backoff_ms, uplink.backoff_ms_max),
        uplink,
        site,
        gateway,
        hub: Arc::clone(&hub),
        store: Arc::clone(&store),
        untold_max: limits.pending,
    };
    let tasks = vec![
        tokio::spawn(taker.run()),
        tokio::spawn(attend(Arc::clone(&hub), Arc::clone(&store))),
        tokio::spawn(tell_expired(Arc::clone(&hub), store, own.flushes.clone())),
        tokio::spawn(own::run(Arc::clone(&hub), gateway, own)),
    ];
    Ok(Downlink { hub, tasks })
}

impl Downlink {
    /// Where connections and commands meet.
    #[must_use]
    pub fn hub(&self) -> Arc<Hub> {
        Arc::clone(&self.hub)
    }
}

impl Drop for Downlink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Hub {
    fn new(limits: Limits, journal: journal::Sender, clock: Clock) -> Self {
        let state = State {
            core: Core::new(limits),
            slots: HashMap::new(),
            listeners: 0,
            over: Vec::new(),
            expired: Vec::new(),
            trouble: None,
            refused: 0,
        };
        let (pending, state) = (AtomicUsize::new(0), Mutex::new(state));
        Hub { pending, state, changed: Notify::new(), expired: Notify::new(), journal, clock }
    }

    /// Commands for nobody: for tests and for gateways without a downlink.
    #[must_use]
    pub fn without_commands(journal: journal::Sender, clock: Clock) -> Arc<Self> {
        let limits = Limits { per_device: 0, pending: 0, bytes: 0, retry_ms: 1, retry_ms_max: 1 };
        Arc::new(Hub::new(limits, journal, clock))
    }

    fn restore(&self, waiting: Vec<Order>, ended: &[(Id, Box<str>)]) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        for (device, id) in ended {
            state.core.remember_ended(device, id);
        }
        for order in waiting {
            state.core.take(now_ms, order);
        }
        self.settle(state);
    }

    /// Whether no command waits for any device.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }

    /// A device listens from now on: what waits for it comes through the mailbox.
    #[must_use]
    pub fn listen(self: &Arc<Self>, device: Id) -> Mailbox {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        state.listeners += 1;
        let listener = state.listeners;
        let slot = Arc::<Slot>::default();
        state.slots.insert(listener, Arc::clone(&slot));
        state.core.subscribed(now_ms, &device, listener);
        self.settle(state);
        Mailbox { hub: Arc::clone(self), device, listener, slot }
    }

    /// An uplink of a device was taken: looks for answers in it, if the device has something to answer.
    pub fn saw(&self, device: &Id, payload: &[u8]) {
        let mut state = self.state();
        if !state.core.awaits(device) {
            return;
        }
        let Ok(uplink) = Uplink::read(payload) else { return };
        let now_ms = self.clock.unix_ms();
        for event in uplink.events().filter(|event| event.kind.starts_with("command-")) {
            if let Ok(Some(Body::CommandAnswered { outcome, id, .. })) =
                Body::read(&event.kind, event.version, event.body)
            {
                state.core.answered(now_ms, device, &id.to_cow(), outcome);
            }
        }
        self.settle(state);
    }

    /// Whether this command waits for this device.
    fn waits(&self, device: &Id, id: &str) -> bool {
        self.state().core.waits(device, id)
    }

    /// A device has said what became of a command.
    fn answered(&self, device: &Id, id: &str, outcome: Outcome) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        state.core.answered(now_ms, device, id, outcome);
        self.settle(state);
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            pending: state.core.pending(),
            bytes: state.core.bytes(),
            refused: state.refused,
            trouble: state.trouble.clone(),
            waiting: state.core.waiting(SHOWN_MAX),
        }
    }

    /// Does what is due; what has ended and may be put away, and how long there is nothing more to do.
    fn tick(&self) -> (Vec<u64>, Duration) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        state.core.tick(now_ms);
        self.apply(&mut state);
        let due_ms = state.core.due_at();
        let wait_ms = due_ms.map_or(LOOK_MS, |due_ms| due_ms.saturating_sub(now_ms).min(LOOK_MS));
        (std::mem::take(&mut state.over), Duration::from_millis(wait_ms))
    }

    /// Does what the core says, and has [`attend`] look when it is wanted next.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        self.apply(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    fn apply(&self, state: &mut State) {
        for effect in state.core.take_effects() {
            match effect {
                Effect::Send { listener, payload } => {
                    if let Some(slot) = state.slots.get(&listener) {
                        slot.fill(payload);
                        facts::command_sent();
                    }
                }
                Effect::Answered { number, outcome } => {
                    facts::command_ended(if outcome == Outcome::Completed { "completed" } else { "failed" });
                    state.over.push(number);
                }
                Effect::Expired { number, device, id } => {
                    facts::command_ended("expired");
                    tracing::info!(%device, id, "a command has expired before the device told its end");
                    state.expired.push(Expired { number, device, id });
                    self.expired.notify_one();
                }
            }
        }
        let pending = state.core.pending();
        facts::commands_pending(pending);
        self.pending.store(pending, Ordering::Relaxed);
    }

    fn refuse(&self, device: Option<Id>, id: Option<Box<str>>, refusal: &Refusal) {
        self.state().refused += 1;
        facts::command_refused(refusal.as_str());
        tracing::warn!(device = device.as_deref(), id, "a command was refused: {refusal}");
        if let Some(device) = device {
            let reason = refusal.to_string();
            self.journal.send(journal::Entry::CommandRefused { device, id, reason: reason.into() });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What panicked under it was counting and sorting; whatever it left is better than a gateway that stands still.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// What is to be written.
    #[must_use]
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.slots.remove(&self.listener);
        state.core.unsubscribed(&self.device, self.listener);
    }
}

impl Slot {
    fn fill(&self, payload: Arc<[u8]>) {
        let mut commands = self.commands();
        // A connection that does not write: what finds no room is sent again later.
        if commands.len() < MAILBOX_MAX {
            commands.push_back(payload);
            self.filled.notify_one();
        }
    }

    /// Resolves when there is a command.
    pub async fn filled(&self) {
        while self.commands().is_empty() {
            self.filled.notified().await;
        }
    }

    /// The next command.
    #[must_use]
    pub fn take(&self) -> Option<Arc<[u8]>> {
        self.commands().pop_front()
    }

    fn commands(&self) -> MutexGuard<'_, VecDeque<Arc<[u8]>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is due, tells what has expired, puts away what has ended.
async fn attend(hub: Arc<Hub>, store: Arc<Mutex<Store>>) {
    loop {
        let (away, wait) = hub.tick();
        for number in away {
            put_away(&store, number).await;
        }
        tokio::select! {
            () = hub.changed.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Tells what has expired, and puts it away when that is on disk: until then it would be told after the next start.
async fn tell_expired(hub: Arc<Hub>, store: Arc<Mutex<Store>>, flushes: mpsc::Sender<journal::Flush>) {
    loop {
        hub.expired.notified().await;
        let expired = std::mem::take(&mut hub.state().expired);
        let mut told = Vec::with_capacity(expired.len());
        for Expired { number, device, id } in expired {
            if !hub.journal.tell(journal::Entry::CommandExpired { device, id }).await {
                return;
            }
            told.push(number);
        }
        if !journal::flush(&flushes).await {
            return;
        }
        for number in told {
            put_away(&store, number).await;
        }
    }
}

async fn put_away(store: &Arc<Mutex<Store>>, number: u64) {
    if let Err(error) = on_disk(store, move |store| store.end(number)).await {
        // After the next start it may be sent again, and the device knows it; or told again.
        tracing::error!(number, error = with_cause(&error), "a command that has ended cannot be put away");
    }
}

/// Takes commands from the stream.
struct Taker {
    uplink: uplink::Config,
    site: Id,
    gateway: Id,
    backoff: Backoff,
    hub: Arc<Hub>,
    store: Arc<Mutex<Store>>,
    untold_max: usize,
}

impl Taker {
    async fn run(mut self) {
        loop {
            let trouble = match Source::open(&self.uplink, &self.site, &self.gateway).await {
                Ok(source) => self.take_all(source).await,
                Err(trouble) => trouble,
            };
            let wait = self.backoff.failed(fastrand::u64(..));
            self.tell(&trouble);
            sleep(wait).await;
        }
    }

    fn tell(&self, trouble: &Trouble) {
        let known = self.hub.state().trouble.replace(trouble.clone());
        if known.as_ref() != Some(trouble) {
            tracing::warn!(%trouble, "no commands come; those that have come are delivered");
        }
    }

    /// Takes commands until something is wrong.
    async fn take_all(&mut self, mut source: Source) -> Trouble {
        self.backoff.succeeded();
        self.hub.state().trouble = None;
        loop {
            let taken = match source.next().await {
                Ok(incoming) => self.take(&incoming).await,
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = taken {
                return trouble;
            }
        }
    }

    /// Keeps a command, or refuses it; then it need not come again.
    async fn take(&self, incoming: &Incoming) -> Result<(), Trouble> {
        let target = subject::parse_commands(incoming.subject());
        let device = target.map(|target| target.device);
        match self.read(device, incoming.payload()) {
            Ok((Admission::New, order)) => {
                let kept = order.clone();
                if let Err(error) = on_disk(&self.store, move |store| store.keep(&kept)).await {
                    self.tell(&Trouble::new(uplink::pacing::Kind::Spool, with_cause(&error)));
                    return incoming.give_back().await;
                }
                self.hub.state().trouble = None;
                facts::command_taken();
                tracing::debug!(device = %order.device, id = %order.id, name = %order.name, "a command was taken");
                let now_ms = self.hub.clock.unix_ms();
                let mut state = self.hub.state();
                state.core.take(now_ms, order);
                self.hub.settle(state);
            }
            Ok((Admission::Known, _)) => {}
            Err(Refused { id, why }) => self.hub.refuse(device, id, &why),
        }
        incoming.acknowledge().await
    }

    fn read(&self, device: Option<Id>, payload: &[u8]) -> Result<(Admission, Order), Refused> {
        let unreadable = |why| Refused { id: None, why };
        let nobody = || unreadable(Refusal::Malformed("its subject names no device".to_owned()));
        let device = device.ok_or_else(nobody)?;
        let number = lock(&self.store).next_number();
        let order = Order::read(number, device, payload).map_err(unreadable)?;
        let admission = {
            let state = self.hub.state();
            // What cannot be told to have expired, because the disk is full, still takes its place on it.
            let untold = state.expired.len();
            if untold < self.untold_max { state.core.admit(&order) } else { Err(Refusal::Full(untold)) }
        };
        match admission {
            Ok(admission) => Ok((admission, order)),
            Err(why) => Err(Refused { id: Some(order.id), why }),
        }
    }
}

/// A command that is not taken.
struct Refused {
    /// Which, if it can be read.
    id: Option<Box<str>>,
    why: Refusal,
}

async fn on_disk(
    store: &Arc<Mutex<Store>>,
    work: impl FnOnce(&mut Store) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let store = Arc::clone(store);
    let done = spawn_blocking(move || work(&mut lock(&store))).await;
    done.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

#[cfg(test)]
mod tests;
