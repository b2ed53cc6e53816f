//! One queue for all readers of one filter.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::message::Kept;

/// What a feed keeps at most, one message more not counted.
pub(in crate::mqtt) const FEED_BYTES_MAX: usize = 1024 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Feed {
    filter: String,
    queue: Mutex<Queue>,
}

/// Messages have numbers, without holes.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Arc<Kept>>,
    /// The number of the oldest, or of the next one to come.
    first: u64,
    bytes: usize,
    readers: Vec<Arc<Notify>>,
}

impl Feed {
    pub fn new(filter: String) -> Self {
        Feed { filter, queue: Mutex::default() }
    }

    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// A reader of what comes from now on; returns its place.
    pub fn enter(&self, bell: &Arc<Notify>) -> u64 {
        let mut queue = self.queue();
        queue.readers.push(Arc::clone(bell));
        queue.first + queue.messages.len() as u64
    }

    pub fn leave(&self, bell: &Arc<Notify>) {
        let mut queue = self.queue();
        queue.readers.retain(|reader| !Arc::ptr_eq(reader, bell));
        if queue.readers.is_empty() {
            queue.first += queue.messages.len() as u64;
            (queue.messages, queue.bytes) = (VecDeque::new(), 0);
        }
    }

    /// Keeps a message if anybody reads.
    pub fn append(&self, message: &Arc<Kept>) {
        let mut queue = self.queue();
        if queue.readers.is_empty() {
            return;
        }
        while queue.bytes >= FEED_BYTES_MAX
            && let Some(oldest) = queue.messages.pop_front()
        {
            queue.bytes -= oldest.len();
            queue.first += 1;
        }
        queue.bytes += message.len();
        queue.messages.push_back(Arc::clone(message));
        queue.readers.iter().for_each(|reader| reader.notify_one());
    }

    /// The message in this place, or the oldest there is after it, and its number.
    pub fn read(&self, place: u64) -> Option<(u64, Arc<Kept>)> {
        let queue = self.queue();
        let number = place.max(queue.first);
        let index = usize::try_from(number - queue.first).ok()?;
        queue.messages.get(index).map(|message| (number, Arc::clone(message)))
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.queue().bytes
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds the lock")
    }
}
