//! How each source does, for people and machines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::map::Problem;

/// How a source does.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The broker's address.
    pub broker: String,
    /// `connecting`, `connected`, or `held-back`: the spool takes nothing now.
    pub state: &'static str,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// What is wrong, if something is.
    pub trouble: Option<String>,
    /// Messages that came since the start.
    pub messages: u64,
    /// Readings made of them.
    pub readings: u64,
    /// Uplinks among them.
    pub uplinks: u64,
    /// Messages, or parts of them, that were not understood.
    pub not_understood: u64,
    /// The last of these.
    pub last_not_understood: Option<NotUnderstood>,
    /// Messages that came again and were certainly stored: not stored a second time.
    pub known_again: u64,
    /// Messages that came again and may be stored already: stored, and marked.
    pub marked_again: u64,
    /// How often the broker had forgotten us, with what it had kept for us.
    pub sessions_lost: u64,
}

/// A message that was not understood.
#[derive(Clone, Debug, Serialize)]
pub struct NotUnderstood {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Its topic.
    pub topic: String,
    /// A word for why.
    pub reason: &'static str,
    /// Why, in words.
    pub said: String,
}

/// The status that others may look at.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<Status>>);

impl Board {
    pub fn new(name: String, broker: String, now_ms: u64) -> Board {
        Board(Arc::new(Mutex::new(Status {
            name,
            broker,
            state: "connecting",
            since_ms: now_ms,
            trouble: None,
            messages: 0,
            readings: 0,
            uplinks: 0,
            not_understood: 0,
            last_not_understood: None,
            known_again: 0,
            marked_again: 0,
            sessions_lost: 0,
        })))
    }

    pub fn read(&self) -> Status {
        self.lock().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    pub fn state(&self, state: &'static str, now_ms: u64) {
        let mut status = self.lock();
        if status.state != state {
            (status.state, status.since_ms) = (state, now_ms);
        }
    }

    pub fn not_understood(&self, at_ms: u64, topic: &str, reason: &'static str, problem: &Problem) {
        let mut status = self.lock();
        status.not_understood += 1;
        let (topic, said) = (topic.chars().take(128).collect(), problem.said.clone());
        status.last_not_understood = Some(NotUnderstood { at_ms, topic, reason, said });
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
