//! Messages that are taken and not yet acknowledged, in their order; and which of those that come again are the same. Pure.
//!
//! Acknowledgements are sent in the order in which the messages came (MQTT-4.6.0-2), each when what it acknowledges is stored.
//!
//! A message comes again (DUP) after a connection broke. If it was taken and its acknowledgement never given to the socket, it is
//! certainly the same when session, packet identifier, topic and payload are: without our acknowledgement the broker cannot
//! have given its identifier to another. It is not stored a second time then. If its acknowledgement was on its way, nobody
//! can know: the identifier may be a new message's by now, and the same value is not rare. It is stored again, and marked.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What of a message is remembered to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print(u64);

impl Print {
    /// Of a message.
    pub fn of(topic: &str, payload: &[u8]) -> Print {
        let mut hasher = DefaultHasher::new();
        (topic, payload).hash(&mut hasher);
        Print(hasher.finish())
    }
}

/// Messages in the order in which they came.
#[derive(Debug)]
pub struct Window<T> {
    /// Not stored yet.
    waiting: VecDeque<Waiting<T>>,
    /// Stored, and their acknowledgements not given to the socket yet.
    unsent: VecDeque<Waiting<T>>,
    /// What was not acknowledged when the connection before this one broke.
    before: HashMap<u16, (Print, T)>,
}

#[derive(Debug)]
struct Waiting<T> {
    packet: u16,
    print: Print,
    /// The commit it is in; `None` if there is nothing to store.
    ticket: Option<T>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Window { waiting: VecDeque::new(), unsent: VecDeque::new(), before: HashMap::new() }
    }
}

impl<T: Copy + Ord> Window<T> {
    /// How many wait to be stored.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A message came; `again` is what the broker says of it. The commit it is in already, if it is certainly one that is.
    pub fn known(&mut self, packet: u16, print: Print, again: bool) -> Option<T> {
        // Whatever comes under an identifier, what had it before is over.
        let (before, ticket) = self.before.remove(&packet)?;
        (again && before == print).then_some(ticket)
    }

    /// A message has been taken, with this commit; `None` if there is nothing to store.
    pub fn take(&mut self, packet: u16, print: Print, ticket: Option<T>) {
        self.waiting.push_back(Waiting { packet, print, ticket });
    }

    /// The next message to acknowledge, if everything up to `stored` is on disk.
    pub fn next_stored(&mut self, stored: T) -> Option<u16> {
        let first = self.waiting.front()?;
        if first.ticket.is_some_and(|ticket| ticket > stored) {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let packet = first.packet;
        self.unsent.push_back(first);
        Some(packet)
    }

    /// The acknowledgement of this one has been given to the socket.
    pub fn sent(&mut self, packet: u16) {
        // They go out in their order: it is the first.
        if let Some(place) = self.unsent.iter().position(|unsent| unsent.packet == packet) {
            self.unsent.remove(place);
        }
    }

    /// The connection broke.
    pub fn disconnected(&mut self) {
        // What the broker did not send again on the connection that broke is not believed to be the same on the next: a broker
        // that forgot something meanwhile counts anew.
        self.before.clear();
        for Waiting { packet, print, ticket } in self.unsent.drain(..).chain(self.waiting.drain(..)) {
            if let Some(ticket) = ticket {
                self.before.insert(packet, (print, ticket));
            }
        }
    }

    /// There is a connection; whether the broker knows us from the one before.
    pub fn connected(&mut self, session_present: bool) {
        if !session_present {
            self.before.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(text: &str) -> Print {
        Print::of("t", text.as_bytes())
    }

    fn stored(window: &mut Window<u64>, upto: u64) -> Vec<u16> {
        std::iter::from_fn(|| window.next_stored(upto)).collect()
    }

    #[test]
    fn acknowledgements_go_in_order_and_none_before_it_is_stored() {
        let mut window = Window::default();
        for (packet, ticket) in [(1, Some(5)), (2, None), (3, Some(5)), (4, Some(6)), (5, None)] {
            window.take(packet, print("x"), ticket);
        }
        assert_eq!(stored(&mut window, 4), [0; 0], "what has nothing to store waits for its turn, too");
        assert_eq!(stored(&mut window, 5), [1, 2, 3]);
        assert_eq!(stored(&mut window, 9), [4, 5]);
        assert!(window.is_empty());
    }

    #[test]
    fn what_was_not_acknowledged_is_known_when_it_comes_again() {
        let mut window = Window::default();
        window.take(1, print("a"), Some(1));
        window.take(2, print("b"), Some(2));
        window.take(3, print("c"), Some(1));
        assert_eq!(stored(&mut window, 2), [1, 2, 3]);
        window.sent(1);
        window.disconnected();
        assert_eq!(
            stored(&mut window, 9),
            [0; 0],
            "nothing of the old connection is acknowledged on the new one"
        );
        window.connected(true);
        assert_eq!(
            window.known(1, print("a"), true),
            None,
            "it was acknowledged: its identifier may be another's"
        );
        assert_eq!(window.known(2, print("b"), true), Some(2));
        assert_eq!(window.known(2, print("b"), true), None, "once");
        assert_eq!(
            window.known(3, print("c"), true),
            Some(1),
            "stored, and its acknowledgement was not sent"
        );
    }

    #[test]
    fn what_only_looks_the_same_is_not() {
        let again = |session, packet, text, dup| {
            let mut window = Window::default();
            window.take(7, print("21.5"), Some(1));
            window.disconnected();
            window.connected(session);
            window.known(packet, print(text), dup)
        };
        assert_eq!(again(true, 7, "21.5", true), Some(1));
        assert_eq!(again(false, 7, "21.5", true), None, "another session");
        assert_eq!(again(true, 8, "21.5", true), None, "another identifier");
        assert_eq!(again(true, 7, "21.6", true), None, "another value");
        assert_eq!(again(true, 7, "21.5", false), None, "sent for the first time");
    }

    #[test]
    fn only_the_connection_before_is_remembered() {
        let mut window = Window::default();
        window.take(7, print("x"), Some(1));
        window.disconnected();
        window.connected(true);
        window.disconnected();
        window.connected(true);
        assert_eq!(window.known(7, print("x"), true), None);
    }
}
