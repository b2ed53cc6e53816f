//! Which command goes to which device when, and which is over. Pure: what happens and the wall time go in, [`Effect`]s
//! come out.
//!
//! # Invariants
//! - To one device commands go in the order in which they were taken: the next one is first sent when the one before is
//!   answered or over.
//! - A command that is taken ends in exactly one way: answered by the device, or expired.
//! - Everything has a limit; what is over it is refused, and said to be.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use weir_contract::Id;
use weir_contract::body::Outcome;
use weir_contract::command::{COMMAND_ID_LEN_MAX, COMMAND_LEN_MAX, Command};

/// Answered or expired commands that are remembered, so that one the stream delivers again is not done again.
pub const ENDED_KEPT_MAX: usize = 256;

/// See the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Commands for one device.
    pub per_device: usize,
    /// Commands for all.
    pub pending: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The first wait before a command is sent again.
    pub retry_ms: u64,
    /// The longest.
    pub retry_ms_max: u64,
}

/// A command that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its place in the store: 1, 2, 3 …
    pub number: u64,
    /// Whom it is for.
    pub device: Id,
    /// The command's id.
    pub id: Box<str>,
    /// What is to be done.
    pub name: Box<str>,
    /// Unix milliseconds.
    pub deadline_ms: u64,
    /// The command, as it came.
    pub payload: Arc<[u8]>,
}

impl Order {
    /// Reads a command.
    ///
    /// # Errors
    /// Why no gateway would take it.
    pub fn read(number: u64, device: Id, payload: &[u8]) -> Result<Self, Refusal> {
        if payload.len() > COMMAND_LEN_MAX {
            return Err(Refusal::Malformed(format!(
                "a command has at most {COMMAND_LEN_MAX} bytes, this has {}",
                payload.len()
            )));
        }
        let command = Command::read(payload)
            .map_err(|malformed| Refusal::Malformed(format!("not a command: {malformed}")))?;
        let id = command.id.to_cow();
        if id.is_empty() || id.len() > COMMAND_ID_LEN_MAX {
            return Err(Refusal::Malformed(format!("an id has 1 to {COMMAND_ID_LEN_MAX} bytes")));
        }
        Ok(Order {
            number,
            device,
            id: id.into(),
            name: command.name.to_cow().into(),
            deadline_ms: command.deadline_ms,
            payload: payload.into(),
        })
    }
}

/// Why a command is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error("{0}")]
    Malformed(String),
    /// Too many wait for this device.
    #[error("{0} commands wait for this device; no more are taken (commands.per_device_max)")]
    DeviceFull(usize),
    /// Too many wait.
    #[error("{0} commands wait at this gateway; no more are taken (commands.pending_max)")]
    Full(usize),
    /// They take too many bytes.
    #[error("the commands that wait at this gateway take {0} bytes; no more are taken (commands.bytes_max)")]
    BytesFull(usize),
}

impl Refusal {
    /// In one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::DeviceFull(_) => "device-full",
            Refusal::Full(_) => "full",
            Refusal::BytesFull(_) => "bytes-full",
        }
    }
}

/// Whether a command is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is new: keep it, then [`Core::take`] it.
    New,
    /// It was taken before; nothing is to be done.
    Known,
}

/// Names a connection that listens to commands.
pub type Listener = u64;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send it to the device on this connection.
    Send {
        /// The connection.
        listener: Listener,
        /// The command.
        payload: Arc<[u8]>,
    },
    /// The device has said how it went: it need not be kept any more.
    Answered {
        /// Its place in the store.
        number: u64,
        /// How it went.
        outcome: Outcome,
    },
    /// Its deadline has passed: tell that; it need not be kept any more.
    Expired {
        /// Its place in the store.
        number: u64,
        /// Whom it was for.
        device: Id,
        /// Which command.
        id: Box<str>,
    },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    rows: HashMap<Id, Row>,
    /// (deadline, number, device)
    deadlines: BTreeSet<(u64, u64, Id)>,
    /// (when to send again, device)
    retries: BTreeSet<(u64, Id)>,
    ended: Ended,
    pending: usize,
    bytes: usize,
    effects: Vec<Effect>,
}

/// What waits for a device.
#[derive(Debug, Default)]
struct Row {
    queue: VecDeque<Pending>,
    listener: Option<Listener>,
    /// When the first one that is not accepted is sent again; also in `retries`.
    retry_at: Option<u64>,
    /// How often it was sent on this connection.
    sends: u32,
}

#[derive(Debug)]
struct Pending {
    order: Order,
    accepted: bool,
}

/// A command that waits, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    /// Whom it is for.
    pub device: String,
    /// Which command.
    pub id: String,
    /// What is to be done.
    pub name: String,
    /// Unix milliseconds.
    pub deadline_ms: u64,
    /// The device has said that it will do it.
    pub accepted: bool,
    /// The device listens.
    pub connected: bool,
}

impl Core {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Self {
        Core {
            limits,
            rows: HashMap::new(),
            deadlines: BTreeSet::new(),
            retries: BTreeSet::new(),
            ended: Ended::default(),
            pending: 0,
            bytes: 0,
            effects: Vec::new(),
        }
    }

    /// Whether `order` is to be taken.
    ///
    /// # Errors
    /// There is no room.
    pub fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let row = self.rows.get(&order.device);
        if self.waits(&order.device, &order.id) || self.ended.contains(&order.device, &order.id) {
            return Ok(Admission::Known);
        }
        let for_device = row.map_or(0, |row| row.queue.len());
        if for_device >= self.limits.per_device {
            return Err(Refusal::DeviceFull(for_device));
        }
        if self.pending >= self.limits.pending {
            return Err(Refusal::Full(self.pending));
        }
        if self.bytes + order.payload.len() > self.limits.bytes {
            return Err(Refusal::BytesFull(self.bytes));
        }
        Ok(Admission::New)
    }

    /// Takes a command, which is kept from now on. What is kept already may be more than the limits allow.
    pub fn take(&mut self, now_ms: u64, order: Order) {
        let device = order.device;
        self.pending += 1;
        self.bytes += order.payload.len();
        self.deadlines.insert((order.deadline_ms, order.number, device));
        let row = self.rows.entry(device).or_default();
        row.queue.push_back(Pending { order, accepted: false });
        if row.retry_at.is_none() {
            self.send_next(now_ms, &device);
        }
    }

    /// A command that ended before, as the store remembers it.
    pub fn remember_ended(&mut self, device: &Id, id: &str) {
        self.ended.add(device, id);
    }

    /// A device listens on a connection: it gets what it has not answered, and what it has only accepted, first.
    pub fn subscribed(&mut self, now_ms: u64, device: &Id, listener: Listener) {
        let row = self.rows.entry(*device).or_default();
        row.listener = Some(listener);
        let accepted = row.queue.iter().filter(|pending| pending.accepted);
        self.effects.extend(
            accepted.map(|pending| Effect::Send { listener, payload: Arc::clone(&pending.order.payload) }),
        );
        self.start_over(device);
        self.send_next(now_ms, device);
    }

    /// A connection no longer listens.
    pub fn unsubscribed(&mut self, device: &Id, listener: Listener) {
        if self.rows.get(device).is_some_and(|row| row.listener == Some(listener)) {
            self.start_over(device);
            if let Some(row) = self.rows.get_mut(device) {
                row.listener = None;
            }
            self.forget_if_idle(device);
        }
    }

    /// Whether a device has something to answer.
    pub fn awaits(&self, device: &Id) -> bool {
        self.rows.get(device).is_some_and(|row| !row.queue.is_empty())
    }

    /// Whether this very command waits for a device.
    pub fn waits(&self, device: &Id, id: &str) -> bool {
        self.rows.get(device).is_some_and(|row| row.queue.iter().any(|pending| *pending.order.id == *id))
    }

    /// A device has said what became of a command.
    pub fn answered(&mut self, now_ms: u64, device: &Id, id: &str, outcome: Outcome) {
        let Some(row) = self.rows.get_mut(device) else { return };
        let Some(place) = row.queue.iter().position(|pending| *pending.order.id == *id) else { return };
        let outstanding = row.queue.iter().position(|pending| !pending.accepted) == Some(place);
        if outcome == Outcome::Accepted {
            row.queue[place].accepted = true;
        } else {
            let number = self.remove(device, place).number;
            self.effects.push(Effect::Answered { number, outcome });
        }
        if outstanding {
            self.start_over(device);
            self.send_next(now_ms, device);
        }
        self.forget_if_idle(device);
    }

    /// What is due at `now_ms`: commands to be sent again, deadlines.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some(&(deadline_ms, number, device)) = self.deadlines.first()
            && deadline_ms <= now_ms
        {
            let queue = self.rows.get(&device).map(|row| &row.queue);
            let place =
                queue.and_then(|queue| queue.iter().position(|pending| pending.order.number == number));
            let Some(place) = place else {
                self.deadlines.pop_first();
                continue;
            };
            let order = self.remove(&device, place);
            self.effects.push(Effect::Expired { number, device, id: order.id });
            // If it was not the one under way, that one comes a little early once more.
            self.start_over(&device);
            self.send_next(now_ms, &device);
            self.forget_if_idle(&device);
        }
        // No wait is longer; the clock was set back.
        let latest_ms = now_ms.saturating_add(self.limits.retry_ms_max);
        while let Some(retry) = self
            .retries
            .first()
            .filter(|(at_ms, _)| *at_ms <= now_ms)
            .or(self.retries.last().filter(|(at_ms, _)| *at_ms > latest_ms))
        {
            let retry @ (_, device) = *retry;
            self.retries.remove(&retry);
            if let Some(row) = self.rows.get_mut(&device) {
                row.retry_at = None;
            }
            self.send_next(now_ms, &device);
        }
    }

    /// When [`Core::tick`] has something to do next.
    pub fn due_at(&self) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(at_ms, ..)| *at_ms);
        let retry = self.retries.first().map(|(at_ms, _)| *at_ms);
        deadline.into_iter().chain(retry).min()
    }

    /// What is to be done, in this order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How many commands wait.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The commands that wait, by deadline; at most `count`.
    pub fn waiting(&self, count: usize) -> Vec<Waiting> {
        let rows = self.deadlines.iter().filter_map(|(_, number, device)| {
            let row = self.rows.get(device)?;
            let pending = row.queue.iter().find(|pending| pending.order.number == *number)?;
            Some((row, pending))
        });
        rows.take(count)
            .map(|(row, Pending { order, accepted })| Waiting {
                device: order.device.to_string(),
                id: order.id.to_string(),
                name: order.name.to_string(),
                deadline_ms: order.deadline_ms,
                accepted: *accepted,
                connected: row.listener.is_some(),
            })
            .collect()
    }

    /// Sends the first command that is not accepted, if the device listens and it was not sent just now.
    fn send_next(&mut self, now_ms: u64, device: &Id) {
        let Some(row) = self.rows.get_mut(device) else { return };
        let (Some(listener), None) = (row.listener, row.retry_at) else { return };
        let Some(next) = row.queue.iter().find(|pending| !pending.accepted) else { return };
        self.effects.push(Effect::Send { listener, payload: Arc::clone(&next.order.payload) });
        let wait_ms =
            self.limits.retry_ms.saturating_mul(1 << row.sends.min(32)).min(self.limits.retry_ms_max);
        row.sends = row.sends.saturating_add(1);
        let retry_at = now_ms.saturating_add(wait_ms);
        row.retry_at = Some(retry_at);
        self.retries.insert((retry_at, *device));
    }

    /// What is sent next is sent for the first time.
    fn start_over(&mut self, device: &Id) {
        if let Some(row) = self.rows.get_mut(device) {
            row.sends = 0;
            if let Some(retry_at) = row.retry_at.take() {
                self.retries.remove(&(retry_at, *device));
            }
        }
    }

    fn remove(&mut self, device: &Id, place: usize) -> Order {
        let row = self.rows.get_mut(device);
        let order = row.and_then(|row| row.queue.remove(place)).expect("the caller has found it").order;
        self.pending -= 1;
        self.bytes -= order.payload.len();
        self.deadlines.remove(&(order.deadline_ms, order.number, *device));
        self.ended.add(device, &order.id);
        order
    }

    fn forget_if_idle(&mut self, device: &Id) {
        if self.rows.get(device).is_some_and(|row| row.queue.is_empty() && row.listener.is_none()) {
            self.rows.remove(device);
        }
    }
}

/// The commands that ended last.
#[derive(Debug, Default)]
struct Ended {
    order: VecDeque<(Id, Box<str>)>,
    set: HashSet<(Id, Box<str>)>,
}

impl Ended {
    fn contains(&self, device: &Id, id: &str) -> bool {
        self.set.contains(&(*device, id.into()))
    }

    fn add(&mut self, device: &Id, id: &str) {
        let new = (*device, Box::from(id));
        if self.set.insert(new.clone()) {
            self.order.push_back(new);
        }
        while self.order.len() > ENDED_KEPT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.set.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
