//! What the gateway itself has to tell: who connected, who left, what it lost.
//!
//! The gateway is a source like any device: its events have numbers within a boot (one run of the process), travel as
//! uplinks whose device is the gateway's id, and are kept on disk before they are forwarded. [`Sender::send`] never
//! blocks and never grows: what does not fit is counted, and the count becomes one `events-lost` event.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use weir_contract::Id;

/// Entries that may wait to be written.
pub const WAITING_MAX: usize = 1024;

/// Something the gateway observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A device's connection was accepted.
    Connected {
        /// Which device.
        device: Id,
        /// Where it connected from.
        address: SocketAddr,
    },
    /// A device's connection ended.
    Disconnected {
        /// Which device.
        device: Id,
        /// Why, in a few words; at most 200 bytes are kept.
        reason: Cow<'static, str>,
    },
    /// Uplinks that the stream had acknowledged are gone from it, and from the spool as well.
    UplinksLost {
        /// Whose numbers they are.
        incarnation: u64,
        /// The first number.
        from: u64,
        /// The last number.
        to: u64,
        /// Why, in a few words.
        reason: Cow<'static, str>,
    },
}

/// An entry and when it was observed.
#[derive(Debug)]
struct Observed {
    at: Instant,
    entry: Entry,
}

/// Takes entries from anywhere in the gateway.
#[derive(Clone, Debug)]
pub struct Sender {
    entries: mpsc::Sender<Observed>,
    lost: Arc<AtomicU32>,
}

/// The other end: what has been sent and not yet been written.
#[derive(Debug)]
pub struct Receiver {
    entries: mpsc::Receiver<Observed>,
    lost: Arc<AtomicU32>,
}

/// A journal with room for [`WAITING_MAX`] entries.
#[must_use]
pub fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let lost = Arc::new(AtomicU32::new(0));
    (Sender { entries: sender, lost: Arc::clone(&lost) }, Receiver { entries: receiver, lost })
}

impl Sender {
    /// Takes an entry. Never blocks; what does not fit is counted as lost, and told.
    pub fn send(&self, entry: Entry) {
        if self.entries.try_send(Observed { at: Instant::now(), entry }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
