//! Retained messages (MQTT 5, 3.3.1.3): the last one of each topic.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Delivery, Kept};
use crate::mqtt::reason::Reason;
use crate::mqtt::topics;

/// Topics looked at for one page, so that nobody holds the lock for long.
const LOOKED_AT_MAX: usize = 512;
/// What has expired may take room for this long.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// Messages of one page.
const PAGE_MAX: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Retained {
    messages: BTreeMap<Box<str>, Arc<Kept>>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
    /// When those that had expired were last put away.
    tidied: Option<Instant>,
}

/// A few retained messages.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Page {
    pub messages: Vec<Delivery>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<Box<str>>,
}

impl Retained {
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Retained { messages: BTreeMap::new(), bytes: 0, messages_max, bytes_max, tidied: None }
    }

    /// Keeps a message in place of the one before; an empty one only clears the topic.
    pub fn keep(&mut self, message: &Arc<Kept>) -> Result<(), Reason> {
        if message.payload.is_empty() {
            self.forget(&message.topic);
            return Ok(());
        }
        if !self.has_room(message) {
            self.tidy();
            if !self.has_room(message) {
                return Err(Reason::QuotaExceeded);
            }
        }
        self.forget(&message.topic);
        self.bytes += message.len();
        self.messages.insert(message.topic.clone(), Arc::clone(message));
        Ok(())
    }

    /// Puts away what has expired; not at every publish that finds no room, for it takes a look at everything.
    fn tidy(&mut self) {
        if self.tidied.is_some_and(|at| at.elapsed() < TIDY_EVERY) {
            return;
        }
        self.tidied = Some(Instant::now());
        self.messages.retain(|_, kept| !kept.has_expired());
        self.bytes = self.messages.values().map(|kept| kept.len()).sum();
    }

    fn has_room(&self, message: &Kept) -> bool {
        let before = self.messages.get(&message.topic).map_or(0, |kept| kept.len());
        let fits = self.bytes - before + message.len() <= self.bytes_max;
        fits && (before > 0 || self.messages.len() < self.messages_max)
    }

    fn forget(&mut self, topic: &str) {
        self.bytes -= self.messages.remove(topic).map_or(0, |kept| kept.len());
    }

    /// What `filter` matches, in the order of topics.
    pub fn page(&self, filter: &str, after: &str) -> Page {
        // All it matches begins like it, up to its first wildcard: `a/#` matches `a`, too.
        let wildcard = filter.find(['+', '#']);
        let begin = wildcard.map_or(filter, |at| filter[..at].trim_end_matches('/'));
        let from = if after < begin { Bound::Included(begin) } else { Bound::Excluded(after) };
        let mut page = Page::default();
        let mut looked_at = 0;
        for (topic, kept) in self.messages.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(begin) {
                return Page { next: None, ..page };
            }
            looked_at += 1;
            if topics::matches(filter, topic) && !kept.has_expired() {
                page.messages.push(Delivery { kept: Arc::clone(kept), from_retained: true });
            }
            page.next = Some(topic.clone());
            if looked_at == LOOKED_AT_MAX || page.messages.len() == PAGE_MAX {
                return page;
            }
        }
        Page { next: None, ..page }
    }
}
