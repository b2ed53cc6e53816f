//! How the uplink goes, for people, programs and metrics.

use serde::Serialize;
use tokio::sync::watch;

use super::again::Again;
use super::pacing::{Kind, Trouble};
use super::segment::Segment;
use crate::clock::Clock;
use crate::facts;
use crate::spool::Delivered;

/// How the uplink goes.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// In one word.
    pub state: State,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// The server it is, or was last, connected to.
    pub server: Option<String>,
    /// Why it is not up.
    pub trouble: Option<Trouble>,
    /// Failures since the last success.
    pub failures: u32,
    /// Everything below this number is in the stream.
    pub delivered: u64,
    /// The stream sequence of the last segment.
    pub stream_sequence: u64,
    /// When the last segment was acknowledged, in Unix milliseconds.
    pub delivered_at_ms: Option<u64>,
    /// Segments since the start.
    pub segments: u64,
    /// Uplinks in them.
    pub uplinks: u64,
    /// Their bytes before compression.
    pub bytes_raw: u64,
    /// Their bytes as sent.
    pub bytes_sent: u64,
    /// Uplinks of which copies have gone ahead of the backlog.
    pub ahead: u64,
    /// Uplinks that were new and came later than they could, with the backlog: there was no room ahead of it.
    pub ahead_left_out: u64,
    /// Uplinks found to be gone from the stream and the spool since the start.
    pub gone: u64,
    /// What is being sent again on request.
    pub again: Option<Again>,
}

/// The uplink's state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has just been started.
    Starting,
    /// Connected and in step: what comes is sent at once.
    Up,
    /// Something is wrong; it tries again.
    Down,
    /// Another gateway has this one's name, or another process its spool: sends nothing, and looks whether that has ended.
    Conflict,
}

impl State {
    const ALL: [State; 4] = [State::Starting, State::Up, State::Down, State::Conflict];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Up => "up",
            State::Down => "down",
            State::Conflict => "conflict",
        }
    }
}

/// Where the worker writes its status.
pub(super) struct Board {
    clock: Clock,
    status: watch::Sender<Status>,
}

impl Board {
    pub fn new(clock: Clock, delivered: Delivered) -> (Self, watch::Receiver<Status>) {
        let status = Status {
            state: State::Starting,
            since_ms: clock.unix_ms(),
            server: None,
            trouble: None,
            failures: 0,
            delivered: delivered.number,
            stream_sequence: delivered.stream_sequence,
            delivered_at_ms: None,
            segments: 0,
            uplinks: 0,
            bytes_raw: 0,
            bytes_sent: 0,
            ahead: 0,
            ahead_left_out: 0,
            gone: 0,
            again: None,
        };
        tell_state(State::Starting);
        let (status, receiver) = watch::channel(status);
        (Board { clock, status }, receiver)
    }

    pub fn up(&self, server: String) {
        self.status.send_modify(|status| {
            if let Some(trouble) = status.trouble.take() {
                tracing::info!(server, failures = status.failures, after = %trouble, "the uplink is up again");
            }
            status.failures = 0;
            facts::uplink_trouble(None);
            status.server = Some(server);
            self.enter(status, State::Up);
        });
    }

    pub fn down(&self, trouble: Trouble, failures: u32) {
        let state = if trouble.kind == Kind::Conflict { State::Conflict } else { State::Down };
        facts::uplink_failed(trouble.kind.as_str());
        self.status.send_modify(|status| {
            // An outage may last for weeks: what is known already is not said again.
            let known = status.trouble.as_ref() == Some(&trouble);
            match state {
                State::Conflict if !known => tracing::error!(%trouble, "sending nothing"),
                _ if !known => tracing::warn!(%trouble, "the uplink is down; what comes is kept on disk"),
                _ => tracing::debug!(%trouble, failures, "the uplink is still down"),
            }
            facts::uplink_trouble(Some(trouble.kind.as_str()));
            status.trouble = Some(trouble);
            status.failures = failures;
            self.enter(status, state);
        });
    }

    pub fn looked(&self, delivered: u64, sequence: u64) {
        facts::delivered_number(delivered);
        self.status.send_modify(|status| {
            status.delivered = delivered;
            status.stream_sequence = sequence;
        });
    }

    pub fn delivered(&self, segment: &Segment, sequence: u64) {
        let now_ms = self.clock.unix_ms();
        facts::delivered_number(segment.head.end());
        self.status.send_modify(|status| {
            status.delivered = segment.head.end();
            status.stream_sequence = sequence;
            status.delivered_at_ms = Some(now_ms);
            status.segments += 1;
            status.uplinks += segment.head.count;
            status.bytes_raw += segment.raw_len as u64;
            status.bytes_sent += segment.payload.len() as u64;
        });
    }

    pub fn ahead(&self, copied: u64, left_out: u64) {
        self.status.send_modify(|status| {
            status.ahead += copied;
            status.ahead_left_out += left_out;
        });
    }

    pub fn gone(&self, count: u64) {
        self.status.send_modify(|status| status.gone += count);
    }

    pub fn again(&self, again: Option<Again>) {
        self.status.send_modify(|status| status.again = again);
    }

    fn enter(&self, status: &mut Status, state: State) {
        if status.state != state {
            status.state = state;
            status.since_ms = self.clock.unix_ms();
            tell_state(state);
        }
    }
}

fn tell_state(state: State) {
    let others: Vec<&str> =
        State::ALL.into_iter().filter(|other| *other != state).map(State::as_str).collect();
    facts::uplink_state(state.as_str(), &others);
}
