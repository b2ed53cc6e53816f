//! Sending again, on request, what the stream has acknowledged already.
//!
//! The row of segments simply goes on from an earlier number. Whatever interrupts that, the next look finds the last
//! segment that was sent, and goes on behind it. Repetitions are harmless: what reads the stream knows every event by its
//! device, boot and number.

use std::ops::Range;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::resume::Standing;
use super::status::Status;
use super::{Position, Worker};

/// Requests that may wait for the uplink to be up.
const WAITING_MAX: usize = 4;

/// Has the uplink send again what is still kept.
#[derive(Debug, Clone)]
pub struct Resend {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
}

/// What is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// These numbers; empty if nothing of what was asked for is kept, or delivered yet.
    pub again: Range<u64>,
    /// These are not kept any more.
    pub not_kept: Range<u64>,
}

/// Nothing can be sent again from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The number was never given out.
    #[error("number {from} has not been given out yet; the next one is {next}")]
    NotGivenOut {
        /// What was asked for.
        from: u64,
        /// The spool's next number.
        next: u64,
    },
    /// The gateway is going down.
    #[error("the gateway is going down; ask again once it is up")]
    GoingDown,
}

#[derive(Debug)]
pub(super) struct Ask {
    from: u64,
    answer: oneshot::Sender<Result<Plan, Refused>>,
}

/// What is being sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Again {
    /// The next number.
    pub from: u64,
    /// Numbers from here on are sent for the first time.
    pub to: u64,
    /// The last message of our row when that was decided or last confirmed: while none follows it, `from` has not been sent.
    #[serde(skip)]
    pub(super) follows: u64,
}

pub(super) fn channel(status: watch::Receiver<Status>) -> (Resend, mpsc::Receiver<Ask>) {
    let (asks, asked) = mpsc::channel(WAITING_MAX);
    (Resend { asks, status }, asked)
}

impl Resend {
    /// Has everything from number `from` on sent again, as far as it is kept. Waits until the uplink is up.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn ask(&self, from: u64) -> Result<Plan, Refused> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { from, answer }).await.map_err(|_| Refused::GoingDown)?;
        answered.await.map_err(|_| Refused::GoingDown)?
    }

    /// Waits until it is in the stream.
    ///
    /// # Errors
    /// [`Refused::GoingDown`]
    pub async fn done(&mut self, plan: &Plan) -> Result<(), Refused> {
        let delivered = self.status.wait_for(|status| status.delivered >= plan.again.end).await;
        delivered.map(|_| ()).map_err(|_| Refused::GoingDown)
    }
}

impl Worker {
    /// Takes what was asked for back, as far as it is kept. Where to go on.
    pub(super) fn send_again(&mut self, ask: Ask, position: Position) -> Position {
        let planned = self.plan(ask.from, position);
        let from = match &planned {
            Ok(plan) if plan.again.start < position.from => plan.again.start,
            _ => position.from,
        };
        // Whoever asked may have gone; it is sent all the same.
        let _ = ask.answer.send(planned);
        Position { from, ..position }
    }

    fn plan(&mut self, from: u64, position: Position) -> Result<Plan, Refused> {
        let (next, delivered) = (self.spool.next_number(), self.spool.delivered().number);
        let from = from.max(1);
        if from >= next {
            return Err(Refused::NotGivenOut { from, next });
        }
        let to = self.again.map_or(delivered, |again| again.to);
        if from >= delivered {
            // It is on its way, for the first time or again.
            return Ok(Plan { again: from..to.max(from), not_kept: from..from });
        }
        // Nothing of it is deleted from here on.
        self.spool.send_again(from, position.follows);
        let start = self.spool.oldest_number().clamp(from, delivered);
        // Never ahead: it is not above what was delivered.
        let _ = self.spool.release(start, position.follows);
        tracing::info!(from = start, to, not_kept = start - from, "sending again, as we were asked to");
        self.again = (start < to).then_some(Again { from: start, to, follows: position.follows });
        self.board.looked(start, position.follows);
        self.board.again(self.again);
        Ok(Plan { again: start..to, not_kept: from..start })
    }

    /// Where to go on, if the stream does not hold yet what has to be sent again before what it ends with.
    pub(super) fn before(&self, from: u64, follows: u64, standing: Standing) -> (u64, Standing) {
        match self.again {
            Some(again) if follows <= again.follows && again.from < from => match standing {
                Standing::WentBack { gone } => (again.from, Standing::WentBack { gone }),
                _ => (again.from, Standing::InStep),
            },
            _ => (from, standing),
        }
    }

    /// Everything below `from` is in the stream (again), the last of it in message `follows`.
    pub(super) fn sent_again(&mut self, from: u64, follows: u64) {
        let Some(again) = self.again else { return };
        self.again = (from < again.to).then_some(Again { from, follows, ..again });
        if self.again.is_none() {
            tracing::info!(to = again.to, "everything we were asked for has been sent again");
        }
        self.board.again(self.again);
    }
}
