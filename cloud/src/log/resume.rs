//! Where to go on reading, given up to where the log has been folded and what the stream is like now. Pure.
//!
//! Reading too much is always safe: what is stored already is dropped event by event. Reading too little is not, so in doubt
//! the stream is read from its start.

use std::fmt;

use crate::store::types::Position;

/// A stream as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamFacts {
    /// When it was created, Unix nanoseconds.
    pub created_ns: i64,
    /// Sequence of the first message it holds; one more than `last` if it holds none.
    pub first: u64,
    /// Sequence of the last message it ever took.
    pub last: u64,
}

/// Where to go on, and why there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Sequence of the first message to read.
    pub next: u64,
    /// What was found.
    pub found: Found,
}

/// How the stream stands to what has been folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing has been folded yet.
    Fresh,
    /// It goes on where we left it.
    GoesOn,
    /// It has dropped messages that were never folded.
    Dropped {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// It is another one of the same name: deleted and made anew.
    Recreated,
    /// It has lost what was folded, and perhaps holds other messages in its place: restored from a backup, or its disk lost
    /// writes.
    WentBack {
        /// Sequence of the last message folded.
        folded: u64,
        /// Sequence of its last message.
        last: u64,
    },
}

/// Compares the position with the stream. `logged_at_ns` is when the stream took the message that now stands at the
/// position; `None` if none stands there.
pub fn resume(position: Option<&Position>, stream: StreamFacts, logged_at_ns: Option<i64>) -> Resume {
    let from_start = |found| Resume { next: 1, found };
    let Some(position) = position else { return from_start(Found::Fresh) };
    if position.stream_created_ns != stream.created_ns {
        return from_start(Found::Recreated);
    }
    let folded = position.stream_sequence;
    let another_message = logged_at_ns.is_some_and(|at_ns| at_ns != position.logged_at_ns);
    if folded > stream.last || another_message {
        return from_start(Found::WentBack { folded, last: stream.last });
    }
    let next = folded + 1;
    if stream.first > next {
        return Resume { next, found: Found::Dropped { from: next, to: stream.first - 1 } };
    }
    Resume { next, found: Found::GoesOn }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Fresh => f.write_str("nothing has been folded yet: reading the log from its start"),
            Found::GoesOn => f.write_str("reading on where we left off"),
            Found::Dropped { from, to } => write!(
                f,
                "the log dropped messages {from} to {to} before they were read: what was in them is missing here"
            ),
            Found::Recreated => {
                f.write_str("the log was made anew: reading it from its start, beside what is stored")
            }
            Found::WentBack { folded, last } => write!(
                f,
                "the log has gone back in time (it ends with {last} or holds other messages, and {folded} were folded): \
                 reading it from its start"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: StreamFacts = StreamFacts { created_ns: 100, first: 1, last: 50 };

    fn position(stream_sequence: u64) -> Position {
        Position { stream: "WEIR".into(), stream_created_ns: 100, stream_sequence, logged_at_ns: 777 }
    }

    fn after(position: &Position, stream: StreamFacts, logged_at_ns: Option<i64>) -> (u64, Found) {
        let resume = resume(Some(position), stream, logged_at_ns);
        (resume.next, resume.found)
    }

    #[test]
    fn goes_on_behind_the_last_message_folded() {
        assert_eq!(after(&position(40), NOW, Some(777)), (41, Found::GoesOn));
        assert_eq!(after(&position(50), NOW, Some(777)), (51, Found::GoesOn));
        assert_eq!(resume(None, NOW, None), Resume { next: 1, found: Found::Fresh });
    }

    #[test]
    fn what_retention_dropped_after_it_was_folded_is_no_loss() {
        assert_eq!(after(&position(40), StreamFacts { first: 41, ..NOW }, None), (41, Found::GoesOn));
        // All of it has expired.
        assert_eq!(after(&position(50), StreamFacts { first: 51, ..NOW }, None), (51, Found::GoesOn));
        // One message was deleted by hand.
        assert_eq!(after(&position(40), NOW, None), (41, Found::GoesOn));
    }

    #[test]
    fn what_retention_dropped_before_it_was_folded_is_told() {
        let found = Found::Dropped { from: 41, to: 44 };
        assert_eq!(after(&position(40), StreamFacts { first: 45, ..NOW }, None), (41, found));
    }

    #[test]
    fn another_stream_of_the_same_name_is_read_from_its_start() {
        let anew = StreamFacts { created_ns: 101, ..NOW };
        assert_eq!(after(&position(40), anew, Some(777)), (1, Found::Recreated));
    }

    #[test]
    fn a_stream_that_went_back_is_read_from_its_start() {
        assert_eq!(after(&position(51), NOW, None), (1, Found::WentBack { folded: 51, last: 50 }));
        // It has grown beyond our position again, with other messages.
        assert_eq!(after(&position(40), NOW, Some(778)), (1, Found::WentBack { folded: 40, last: 50 }));
    }
}
