//! One broker: from "a message has come" to "it is acknowledged there", which is after it is on this gateway's disk.
//!
//! # Invariants
//! - [`Link::acknowledge`] is called only for what custody says is stored, for what there is nothing to store of, and in the
//!   order in which it came.
//! - While custody has no room nothing is taken, and so nothing is acknowledged: the broker holds the rest.
//! - What is not understood is counted, told and acknowledged: it never stops what comes after it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use weir_contract::Id;

use super::config::{Broker, Retained};
use super::link::{Event, Link, Message};
use super::map::{Mapper, Outcome, Problem, Reason};
use super::numbers::{LOOK_BACK_MS, Numbers, Received};
use super::status::Board;
use super::window::{Print, Window};
use crate::clock::Clock;
use crate::custody::{Custody, Full, Ticket, Waiter};
use crate::facts;
use crate::intake;
use crate::mqtt::{self, refusals::Refusals};

/// When the gateway goes down: for what was taken to be stored and acknowledged.
const DRAIN: Duration = Duration::from_secs(5);
/// And to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a broker's task works with.
pub(super) struct Worker {
    pub broker: Broker,
    pub mapper: Mapper,
    pub link: Link,
    pub custody: Custody,
    pub clock: Clock,
    pub numbers: Arc<Mutex<Numbers>>,
    pub refusals: Arc<Refusals>,
    pub board: Board,
    /// When the process began.
    pub began: Instant,
    /// Says that this broker knows our session; see [`Worker::session`].
    pub marker: PathBuf,
    /// Whom it knows.
    pub session: String,
    pub window: Window<Ticket>,
    pub waiter: Arc<Waiter>,
}

/// Resolves when the gateway goes down.
async fn told(stop: &mut watch::Receiver<bool>) {
    // That nobody can tell any more is told enough.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Custody takes nothing any more.
struct Closed;

/// A message was taken or not.
enum Taken {
    Yes,
    /// There is no room for it.
    NoRoom(Message),
}

impl Worker {
    /// Takes messages until told to stop, or until custody takes nothing any more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut held: Option<Message> = None;
        loop {
            let custody = self.custody.clone();
            let waiter = Arc::clone(&self.waiter);
            let done = tokio::select! {
                biased;
                () = told(&mut stop) => break,
                () = waiter.notified(), if !self.window.is_empty() => self.acknowledge(),
                room = custody.room(), if held.is_some() => match (room, held.take()) {
                    (Ok(()), Some(message)) => self.take(message, &mut held),
                    _ => Err(Closed),
                },
                event = self.link.events.recv(), if held.is_none() && self.may_take() => match event {
                    Some(event) => self.event(event, &mut held).await,
                    None => Err(Closed),
                },
            };
            if done.is_err() {
                // Nothing more will be stored, so nothing more is acknowledged; the process ends.
                return;
            }
        }
        let drained = async {
            while !self.window.is_empty() && self.custody.failed().is_none() {
                self.waiter.notified().await;
                if self.acknowledge().is_err() {
                    break;
                }
            }
        };
        // What is not stored by then comes again.
        drop(timeout(DRAIN, drained).await);
        self.link.leave(GOODBYE).await;
    }

    fn may_take(&self) -> bool {
        self.window.len() < usize::try_from(self.broker.inflight_max).unwrap_or(usize::MAX)
    }

    /// Acknowledges what is stored.
    fn acknowledge(&mut self) -> Result<(), Closed> {
        if self.custody.failed().is_some() {
            return Err(Closed);
        }
        let stored = self.custody.stored();
        while let Some(packet) = self.window.next_stored(stored) {
            self.link.acknowledge(packet);
        }
        Ok(())
    }

    async fn event(&mut self, event: Event, held: &mut Option<Message>) -> Result<(), Closed> {
        let name = self.broker.name;
        match event {
            Event::Message(message) => return self.take(message, held),
            Event::Acknowledged(packet) => self.window.sent(packet),
            Event::Connected { session_present } => {
                self.window.connected(session_present);
                self.board.state("connected", self.clock.unix_ms());
                self.board.change(|status| status.trouble = None);
                facts::source::connected(&name, true);
                tracing::info!(source = %name, broker = %self.broker.broker, session_present, "connected to a broker");
                self.session(session_present).await;
            }
            Event::Subscribed { refused } if refused.is_empty() => {}
            Event::Subscribed { refused } => {
                let why = format!("the broker does not let us subscribe to {}", refused.join(", "));
                tracing::error!(source = %name, "{why}");
                self.board.change(|status| status.trouble = Some(why));
            }
            Event::Disconnected { why } => {
                self.window.disconnected();
                let was_there = self.board.read().state != "connecting";
                let told = self.board.read().trouble.as_ref() == Some(&why);
                if was_there || !told {
                    tracing::warn!(source = %name, broker = %self.broker.broker, "no connection to the broker: {why}; it is tried again");
                }
                self.board.state("connecting", self.clock.unix_ms());
                self.board.change(|status| status.trouble = Some(why));
                facts::source::connected(&name, false);
                self.link.go_on();
            }
        }
        Ok(())
    }

    /// Finds out whether the broker has forgotten us: then what it had kept is gone, and nobody can say what that was. Whether it
    /// knew us is kept beside the spool, because it and this gateway may lose their power together.
    async fn session(&self, present: bool) {
        let (marker, session) = (self.marker.clone(), self.session.clone());
        let known = tokio::task::spawn_blocking(move || {
            let known = std::fs::read_to_string(&marker).is_ok_and(|known| known == session);
            if !known {
                let folder = marker.parent().map(std::fs::create_dir_all).transpose();
                if let Err(error) = folder.and_then(|_| std::fs::write(&marker, &session)) {
                    tracing::warn!(%error, file = %marker.display(), "that the broker knows us cannot be remembered");
                }
            }
            known
        });
        if !present && known.await.unwrap_or(false) {
            let name = self.broker.name;
            facts::source::session_lost(&name);
            tracing::error!(
                source = %name, broker = %self.broker.broker,
                "the broker has forgotten our session, and every message it had kept for us: it has no persistence, or was set up \
                 anew, or another client used our client id; see deploy/other-brokers.md"
            );
            self.board.change(|status| status.sessions_lost += 1);
        }
    }

    /// Takes a message, or holds it until there is room.
    fn take(&mut self, message: Message, held: &mut Option<Message>) -> Result<(), Closed> {
        let name = self.broker.name;
        match self.offer(message)? {
            Taken::Yes => {
                facts::source::message(&name);
                self.board.change(|status| status.messages += 1);
                self.board.state("connected", self.clock.unix_ms());
                // There may be nothing to wait for.
                self.acknowledge()
            }
            Taken::NoRoom(message) => {
                if self.custody.spool().full().is_some() {
                    self.board.state("held-back", self.clock.unix_ms());
                }
                *held = Some(message);
                Ok(())
            }
        }
    }

    fn offer(&mut self, message: Message) -> Result<Taken, Closed> {
        let print = Print::of(&message.topic, &message.payload);
        let known = message.packet.and_then(|packet| self.window.known(packet, print, message.again));
        let ticket = match known {
            Some(ticket) => {
                facts::source::again(&self.broker.name, "known");
                self.board.change(|status| status.known_again += 1);
                Some(ticket)
            }
            None => match self.store(&message) {
                Ok(ticket) => ticket,
                Err(Full::Closed) => return Err(Closed),
                Err(Full::Batch | Full::Spool) => return Ok(Taken::NoRoom(message)),
            },
        };
        if let Some(packet) = message.packet {
            self.window.take(packet, print, ticket);
        }
        Ok(Taken::Yes)
    }

    /// Gives custody what a message is; the commit it is in, if there is something to store.
    fn store(&self, message: &Message) -> Result<Option<Ticket>, Full> {
        let Message { topic, payload, .. } = message;
        if message.retained && self.broker.retained == Retained::Ignore {
            facts::source::retained(&self.broker.name);
            return Ok(None);
        }
        if payload.len() as u64 > self.broker.payload_bytes_max {
            let said = format!(
                "{} bytes; allowed (payload_bytes_max): {}",
                payload.len(),
                self.broker.payload_bytes_max
            );
            self.not_understood(message, "too-long", &Problem { reason: Reason::TooMany, said });
            return Ok(None);
        }
        match self.mapper.map(topic, payload) {
            Outcome::Nothing { .. } => Ok(None),
            Outcome::Unmapped { problem, .. } => {
                self.not_understood(message, problem.reason.as_str(), &problem);
                Ok(None)
            }
            Outcome::Uplink { device, .. } => self.store_uplink(message, device),
            Outcome::Readings(readings) => {
                let received_ms = self.clock.unix_ms();
                let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let received = Received {
                    elapsed_ms: elapsed_ms.saturating_add(LOOK_BACK_MS),
                    unix_ms: self.clock.known_unix_ms(),
                    again: message.again,
                };
                // One after the other, so that numbers are offered in their order.
                let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
                let (uplink, run) = numbers.write(&readings, received, fastrand::u64(..));
                let device = &readings.device;
                let ticket =
                    self.custody.gather().offer(device, received_ms, None, &uplink, run, &self.waiter)?;
                numbers.given(device, run);
                drop(numbers);
                let count = readings.readings.len() as u64;
                facts::source::readings(&self.broker.name, count);
                self.board.change(|status| status.readings += count);
                if message.again {
                    facts::source::again(&self.broker.name, "marked");
                    self.board.change(|status| status.marked_again += 1);
                }
                for problem in &readings.problems {
                    self.not_understood(message, problem.reason.as_str(), problem);
                }
                Ok(Some(ticket))
            }
        }
    }

    /// A device of ours at somebody else's broker: its uplink stays as it is, and if it comes again its numbers tell.
    fn store_uplink(&self, message: &Message, device: Id) -> Result<Option<Ticket>, Full> {
        let run = match intake::read(&message.payload) {
            Ok(run) => run,
            Err(refusal) => {
                let said = refusal.to_string();
                self.not_understood(message, "not-an-uplink", &Problem { reason: Reason::WrongKind, said });
                return Ok(None);
            }
        };
        let received_ms = self.clock.unix_ms();
        let ticket =
            self.custody.gather().offer(&device, received_ms, None, &message.payload, run, &self.waiter)?;
        facts::source::uplink(&self.broker.name);
        self.board.change(|status| status.uplinks += 1);
        Ok(Some(ticket))
    }

    fn not_understood(&self, message: &Message, reason: &'static str, problem: &Problem) {
        let Message { topic, payload, .. } = message;
        let name = &self.broker.name;
        facts::source::not_understood(name, reason);
        let now_ms = self.clock.unix_ms();
        self.board.not_understood(now_ms, topic, reason, problem);
        let client = format!("source {name}");
        self.refusals.keep(
            now_ms,
            &client,
            topic,
            mqtt::Reason::PayloadFormatInvalid,
            &problem.said,
            payload,
        );
        if let Some(count) = self.refusals.is_due(&client, Instant::now()) {
            tracing::warn!(
                source = %name, topic, reason, count,
                "not understood: {}; `weir-gateway refusals` shows how it begins, `weir-gateway map --try` what rules make of it",
                problem.said
            );
        }
    }
}
