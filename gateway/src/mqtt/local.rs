//! Local delivery: subscribers on this gateway, retained messages, wills. Best effort, in memory, without a promise.
//!
//! Clients may see what the configuration's filters cover ([`NamedClient`](super::NamedClient)), so there is one queue for
//! each of those filters, a feed, whatever narrower filters clients think of. A message is put once into each feed that
//! somebody reads; a reader keeps its place, and takes what its own filters match. A feed forgets its oldest messages when it
//! has too many bytes: who is so slow that its place has been forgotten misses them, and that is counted.
//!
//! # Limits
//! - As many feeds as the configuration has filters, [`FEED_BYTES_MAX`] each, every message counted with all it takes.
//! - Retained messages have a limit in number and in bytes.
//! - A reader costs a place in each feed it reads, however slow it is. Nothing is kept for a client that has left.
//!
//! Nobody waits here: neither who publishes, nor for a reader.

mod feed;
mod message;
mod retained;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

pub(super) use self::feed::FEED_BYTES_MAX;
pub(super) use self::message::{Delivery, Message};
pub(super) use self::retained::Page;

use self::feed::Feed;
use self::message::Kept;
use self::retained::Retained;
use super::reason::Reason;
use super::topics;
use crate::facts;

/// How much of everything there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub subscribers: usize,
    pub retained: usize,
    pub retained_bytes: usize,
}

/// Everything that is published for others than the spool. Cheap to share.
#[derive(Debug)]
pub(super) struct Local {
    feeds: Box<[Feed]>,
    retained: Mutex<Retained>,
    limits: Limits,
    subscribers: AtomicUsize,
    subscriptions: AtomicUsize,
    filters_on_events: AtomicUsize,
    /// Of messages, the next.
    serial: AtomicU64,
}

impl Local {
    /// `filters` are all that clients may subscribe to.
    pub fn new(filters: impl IntoIterator<Item = String>, limits: Limits) -> Arc<Self> {
        let mut filters: Vec<String> = filters.into_iter().collect();
        filters.sort_unstable();
        filters.dedup();
        Arc::new(Self {
            feeds: filters.into_iter().map(Feed::new).collect(),
            retained: Mutex::new(Retained::new(limits.retained, limits.retained_bytes)),
            limits,
            subscribers: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
            filters_on_events: AtomicUsize::new(0),
            serial: AtomicU64::new(0),
        })
    }

    /// Whether any subscriber may want events. Only then are they copied.
    pub fn wants_events(&self) -> bool {
        self.filters_on_events.load(Ordering::Relaxed) > 0
    }

    /// Hands a message to whoever subscribed, and keeps it if it is to be retained. An error says which limit is reached:
    /// then it is not kept.
    pub fn publish(&self, message: &Message<'_>) -> Result<(), Reason> {
        debug_assert!(topics::is_name(message.topic) && topics::is_served(message.topic));
        let wanted = self.subscriptions.load(Ordering::Relaxed) > 0;
        if !wanted && !message.retain {
            return Ok(());
        }
        let kept = Arc::new(Kept::new(message, self.serial.fetch_add(1, Ordering::Relaxed)));
        // First, so that who subscribes meanwhile meets it here or there.
        let retained = if message.retain { self.retained().keep(&kept) } else { Ok(()) };
        // Also when the store is full: who has filled it keeps no message from those who listen.
        if wanted {
            for feed in self.feeds.iter().filter(|feed| topics::matches(feed.filter(), message.topic)) {
                feed.append(&kept);
            }
        }
        retained
    }

    /// A subscriber's place.
    pub fn open(self: &Arc<Self>) -> Result<Link, Reason> {
        let subscribers = self.subscribers.fetch_add(1, Ordering::Relaxed);
        let link =
            Link { local: Arc::clone(self), bell: Arc::default(), filters: Vec::new(), places: Vec::new() };
        // If it is one too many, dropping it takes it back.
        if subscribers < self.limits.subscribers { Ok(link) } else { Err(Reason::QuotaExceeded) }
    }

    /// Retained messages that `filter` matches, after the topic where the last page ended ("" before the first).
    pub fn retained_page(&self, filter: &str, after: &str) -> Page {
        self.retained().page(filter, after)
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().expect("nothing panics while it holds the lock")
    }
}

/// One connection's subscriptions; dropping it ends them.
#[derive(Debug)]
pub(super) struct Link {
    local: Arc<Local>,
    /// Rung when there is something in a feed it reads.
    bell: Arc<Notify>,
    filters: Vec<String>,
    places: Vec<Place>,
}

/// Where a reader is in a feed.
#[derive(Debug)]
struct Place {
    feed: usize,
    /// How many of its filters are read there.
    filters: usize,
    /// The number of the message it takes next.
    next: u64,
    /// Messages with an earlier serial may not be there.
    since: u64,
}

impl Link {
    /// Subscribes to what comes from now on. The caller has the right to, and does not subscribe twice to one filter.
    pub fn subscribe(&mut self, filter: &str) -> Result<(), Reason> {
        let feed = self.feed_of(filter).ok_or(Reason::NotAuthorized)?;
        match self.places.iter_mut().find(|place| place.feed == feed) {
            Some(place) => place.filters += 1,
            None => {
                let next = self.local.feeds[feed].enter(&self.bell);
                let since = self.local.serial.load(Ordering::Relaxed);
                self.places.push(Place { feed, filters: 1, next, since });
                // A message that is in several feeds is taken from the first that has it.
                self.places.sort_unstable_by_key(|place| place.feed);
            }
        }
        self.count(filter, |counter| counter.fetch_add(1, Ordering::Relaxed) + 1);
        self.filters.push(filter.to_owned());
        Ok(())
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        let Some(index) = self.filters.iter().position(|subscribed| subscribed == filter) else { return };
        let filter = self.filters.swap_remove(index);
        self.count(&filter, |counter| counter.fetch_sub(1, Ordering::Relaxed) - 1);
        let Some(feed) = self.feed_of(&filter) else { return };
        let Some(at) = self.places.iter().position(|place| place.feed == feed) else { return };
        self.places[at].filters -= 1;
        if self.places[at].filters == 0 {
            self.places.remove(at);
            self.local.feeds[feed].leave(&self.bell);
        }
    }

    /// Rung when it is worth asking for [`Self::take`].
    pub fn bell(&self) -> &Arc<Notify> {
        &self.bell
    }

    /// As [`Local::retained_page`], without what is still to come as it was published: it was so after what waits before it,
    /// and must not be seen before that.
    pub fn retained_page(&self, filter: &str, after: &str) -> Page {
        let mut page = self.local.retained_page(filter, after);
        page.messages.retain(|delivery| !self.will_take(&delivery.kept));
        page
    }

    /// Whether this message is yet to be taken.
    fn will_take(&self, kept: &Kept) -> bool {
        self.places.iter().any(|place| {
            let feed = &self.local.feeds[place.feed];
            let next = || feed.read(place.next).map(|(_, next)| next.serial);
            let may_be_there = kept.serial >= place.since && topics::matches(feed.filter(), &kept.topic);
            may_be_there && next().is_some_and(|next| next <= kept.serial)
        })
    }

    /// The next message that one of its filters matches, if there is one.
    pub fn take(&mut self) -> Option<Delivery> {
        for at in 0..self.places.len() {
            let (before, rest) = self.places.split_at_mut(at);
            let place = &mut rest[0];
            while let Some((number, kept)) = self.local.feeds[place.feed].read(place.next) {
                facts::local_dropped(number - place.next);
                place.next = number + 1;
                let elsewhere = |place: &Place| {
                    let filter = self.local.feeds[place.feed].filter();
                    kept.serial >= place.since && topics::matches(filter, &kept.topic)
                };
                let wanted = self.filters.iter().any(|filter| topics::matches(filter, &kept.topic));
                if wanted && !before.iter().any(elsewhere) && !kept.has_expired() {
                    return Some(Delivery { kept, from_retained: false });
                }
            }
        }
        None
    }

    /// Which feed has everything that `filter` matches; always the same. Of several the narrowest: the busy one is where a
    /// reader's place is forgotten first, for messages that it does not even want.
    fn feed_of(&self, filter: &str) -> Option<usize> {
        let feeds = self.local.feeds.iter().enumerate();
        let covering = feeds.filter(|(_, feed)| topics::covers(feed.filter(), filter));
        let narrowest =
            covering.reduce(
                |best, other| if topics::covers(best.1.filter(), other.1.filter()) { other } else { best },
            );
        narrowest.map(|(index, _)| index)
    }

    fn count(&self, filter: &str, by: impl Fn(&AtomicUsize) -> usize) {
        facts::local_subscriptions(by(&self.local.subscriptions));
        if topics::overlap(filter, topics::ALL_EVENTS) {
            by(&self.local.filters_on_events);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for filter in self.filters.clone() {
            self.unsubscribe(&filter);
        }
        self.local.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
