//! What was refused lately, for a person to look at: a bounded list, newest last. It is in memory only: whoever sends rubbish
//! must not be able to wear out a card by it. That it happened is told to the journal and the log, which stay.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::reason::Reason;

/// The most refusals kept.
pub const KEPT_MAX: usize = 256;
/// The most bytes kept of a refused payload.
pub const PAYLOAD_BYTES_KEPT_MAX: usize = 1024;
/// The most bytes kept of each text.
const TEXT_BYTES_KEPT_MAX: usize = 256;

/// A client whose packets are refused is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Clients told of in that time; of more it is told together.
const TOLD_MAX: usize = 16;

/// One refused packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The client's name, or its address while it has none.
    pub client: String,
    /// The topic or filter, if it came to that.
    pub topic: String,
    /// MQTT 5's reason code for it.
    #[serde(serialize_with = "code")]
    pub reason: Reason,
    /// What exactly is wrong, in words.
    pub said: String,
    /// How long the payload was.
    pub payload_len: usize,
    /// Its beginning, in hexadecimal digits.
    pub payload_hex: String,
}

fn code<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

/// The list. Refusals come at the pace of misbehaving clients, so one lock will do.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    kept: Mutex<VecDeque<Refused>>,
    told: Mutex<Told>,
}

/// Who was told of lately, and when; and how many refusals nobody was told of since.
#[derive(Debug, Default)]
struct Told {
    clients: Vec<(Box<str>, Instant)>,
    untold: u64,
}

impl Refusals {
    pub fn keep(&self, at_ms: u64, client: &str, topic: &str, reason: Reason, said: &str, payload: &[u8]) {
        let begin = &payload[..payload.len().min(PAYLOAD_BYTES_KEPT_MAX)];
        let refused = Refused {
            at_ms,
            client: cut(client),
            topic: cut(topic),
            reason,
            said: cut(said),
            payload_len: payload.len(),
            payload_hex: begin.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let mut kept = self.kept.lock().expect("nothing panics while it holds the lock");
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(refused);
    }

    /// Whether a refusal for this client is to be told now, in the log and the journal: not each one, for whoever sends rubbish
    /// sends a lot of it. Then says how many there were since the last time, whosoever, with this one.
    pub fn is_due(&self, client: &str, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().expect("nothing panics while it holds the lock");
        told.untold += 1;
        told.clients.retain(|(_, at)| now.saturating_duration_since(*at) < TELL_EVERY);
        if told.clients.len() >= TOLD_MAX || told.clients.iter().any(|(name, _)| **name == *client) {
            return None;
        }
        told.clients.push((client.into(), now));
        Some(std::mem::take(&mut told.untold))
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<Refused> {
        self.kept.lock().expect("nothing panics while it holds the lock").iter().cloned().collect()
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_BYTES_KEPT_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_told_of_now_and_then_and_a_crowd_of_them_together() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.is_due("a", begin), Some(1));
        assert!((0..1000).all(|_| refusals.is_due("a", begin).is_none()));
        assert_eq!(refusals.is_due("b", begin), Some(1001));
        let told = (0..1000).filter(|index| refusals.is_due(&format!("c{index}"), begin).is_some());
        assert_eq!(told.count(), TOLD_MAX - 2);
        assert_eq!(refusals.is_due("a", begin + TELL_EVERY), Some(987));
    }

    #[test]
    fn the_newest_are_kept_and_of_each_a_beginning() {
        let refusals = Refusals::default();
        for at_ms in 0..300 {
            refusals.keep(at_ms, &"c".repeat(1000), "t", Reason::PayloadFormatInvalid, "why", &[0xab; 5000]);
        }
        let all = refusals.all();
        assert_eq!((all.len(), all[0].at_ms, all[255].at_ms), (KEPT_MAX, 44, 299));
        assert_eq!((all[0].payload_len, all[0].payload_hex.len()), (5000, 2 * PAYLOAD_BYTES_KEPT_MAX));
        assert!(all[0].client.len() <= TEXT_BYTES_KEPT_MAX);
        let json = serde_json::to_value(&all[0]).unwrap();
        assert_eq!(json["reason"], "payload-format-invalid");
    }
}
