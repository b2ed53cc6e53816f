//! A message on its way to subscribers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::mqtt::frame::Properties;

/// What a message takes beside its texts: its own fields, its allocations, its places in a feed and among the retained.
const OVERHEAD_BYTES: usize = 320;

/// A message from a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Message<'a> {
    /// Number of the connection it came from, for subscribers that do not want their own messages.
    pub origin: u32,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    /// Of MQTT 5.
    pub properties: Properties<'a>,
}

/// The same, kept.
#[derive(Debug)]
pub(in crate::mqtt) struct Kept {
    /// Grows from message to message.
    pub serial: u64,
    pub origin: u32,
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    pub qos: u8,
    pub retain: bool,
    properties: Box<[u8]>,
    /// Where the message expiry interval lies in the properties, and what it was.
    expiry: Option<(usize, u32)>,
    at: Instant,
}

/// A message for a subscriber.
#[derive(Debug, Clone)]
pub(in crate::mqtt) struct Delivery {
    pub kept: Arc<Kept>,
    /// It is sent because it was retained, not because it was published just now.
    pub from_retained: bool,
}

impl Kept {
    pub fn new(message: &Message<'_>, serial: u64) -> Self {
        Kept {
            serial,
            origin: message.origin,
            topic: message.topic.into(),
            payload: message.payload.into(),
            qos: message.qos,
            retain: message.retain,
            properties: message.properties.raw.into(),
            expiry: message.properties.expiry,
            at: Instant::now(),
        }
    }

    /// All it takes in memory.
    pub fn len(&self) -> usize {
        OVERHEAD_BYTES + 2 * self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Whether its publisher no longer wants it delivered (MQTT 5, 3.3.2.3.3).
    pub fn has_expired(&self) -> bool {
        self.expiry.is_some_and(|(_, seconds)| self.at.elapsed().as_secs() >= u64::from(seconds))
    }

    /// As they go to a subscriber: with what is left of the expiry interval.
    pub fn properties(&self) -> Cow<'_, [u8]> {
        let Some((at, seconds)) = self.expiry else { return Cow::Borrowed(&self.properties) };
        let waited = u32::try_from(self.at.elapsed().as_secs()).unwrap_or(u32::MAX);
        let mut properties = self.properties.to_vec();
        properties[at..at + 4].copy_from_slice(&seconds.saturating_sub(waited).to_be_bytes());
        Cow::Owned(properties)
    }
}
