//! From messages to commits: one thread takes messages out of their wrapping, one folds and writes.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;
use weir_contract::subject::STREAM;

use super::{Error, Progress, facts};
use crate::log::reading::Reading;
use crate::log::{Message, Opened, Opener};
use crate::store::types::Position;
use crate::store::{self, Store};

/// Messages waiting between the parts.
const QUEUE: usize = 64;
/// Most messages of one transaction. When there is much to catch up with, larger transactions cost less per event.
const TRANSACTION_MESSAGES_MAX: usize = 128;
/// Bytes of segments at which a transaction takes no more.
const TRANSACTION_BYTES_MAX: usize = 6 * 1024 * 1024;

/// What goes through the channels, in order.
enum Step<M> {
    /// A reading begins, of the stream created then.
    Begin { stream_created_ns: i64 },
    /// Fold this message.
    Fold(M),
    /// Say what is committed when you come to this.
    Settle(oneshot::Sender<Option<Position>>),
}

/// The writing thread has ended: it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterGone;

/// The threads, and the way in.
pub struct Pipeline {
    steps: mpsc::Sender<Step<Message>>,
    progress: watch::Sender<Progress>,
    opening: JoinHandle<()>,
    writing: JoinHandle<Result<(), store::Error>>,
}

impl Pipeline {
    /// Starts the threads.
    pub fn start(store: Store, progress: watch::Sender<Progress>) -> Result<Pipeline, Error> {
        progress.send_modify(|progress| {
            progress.stream_sequence = store.position().map_or(0, |position| position.stream_sequence);
            progress.last_logged_at_ms = store.position().map(|position| millis(position.logged_at_ns));
        });
        let opener = Opener::new().map_err(Error::Start)?;
        let (steps, to_open) = mpsc::channel(QUEUE);
        let (opened, to_write) = mpsc::channel(QUEUE);
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let opening = spawn("open").spawn(move || open(opener, to_open, &opened)).map_err(Error::Start)?;
        let writer = Writer { store, stream_created_ns: 0, progress: progress.clone() };
        let writing = spawn("fold").spawn(move || writer.write(to_write)).map_err(Error::Start)?;
        Ok(Pipeline { steps, progress, opening, writing })
    }

    /// Waits until everything sent so far is committed; up to where that is.
    pub async fn settle(&self) -> Result<Option<Position>, WriterGone> {
        let (settled, position) = oneshot::channel();
        self.send(Step::Settle(settled)).await?;
        position.await.map_err(|_| WriterGone)
    }

    /// What follows is of this reading.
    pub async fn begin(&self, reading: &Reading) -> Result<(), WriterGone> {
        self.progress.send_modify(|progress| {
            progress.reading = true;
            progress.trouble = None;
            progress.stream_last_sequence = Some(reading.stream_last);
            progress.lag_messages = Some(reading.pending);
        });
        facts::lag(reading.pending);
        self.send(Step::Begin { stream_created_ns: reading.stream_created_ns }).await
    }

    /// Sends a message on its way into the store.
    pub async fn fold(&self, message: Message) -> Result<(), WriterGone> {
        self.send(Step::Fold(message)).await
    }

    /// Commits what has been sent, and tells whether all went well.
    pub async fn end(self) -> Result<(), Error> {
        drop(self.steps);
        let joined = tokio::task::spawn_blocking(move || (self.opening.join(), self.writing.join())).await;
        match joined {
            Ok((Ok(()), Ok(result))) => result.map_err(Error::Store),
            Ok((Err(panic), _) | (_, Err(panic))) => std::panic::resume_unwind(panic),
            Err(join) => Err(Error::Start(io::Error::other(join))),
        }
    }

    async fn send(&self, step: Step<Message>) -> Result<(), WriterGone> {
        self.steps.send(step).await.map_err(|_| WriterGone)
    }
}

fn open(mut opener: Opener, mut steps: mpsc::Receiver<Step<Message>>, opened: &mpsc::Sender<Step<Opened>>) {
    while let Some(step) = steps.blocking_recv() {
        let step = match step {
            Step::Fold(message) => Step::Fold(opener.open(message)),
            Step::Begin { stream_created_ns } => Step::Begin { stream_created_ns },
            Step::Settle(settled) => Step::Settle(settled),
        };
        if opened.blocking_send(step).is_err() {
            return;
        }
    }
}

struct Writer {
    store: Store,
    stream_created_ns: i64,
    progress: watch::Sender<Progress>,
}

impl Writer {
    fn write(mut self, mut steps: mpsc::Receiver<Step<Opened>>) -> Result<(), store::Error> {
        let mut held = None;
        loop {
            let Some(step) = held.take().or_else(|| steps.blocking_recv()) else { return Ok(()) };
            match step {
                Step::Begin { stream_created_ns } => self.stream_created_ns = stream_created_ns,
                Step::Settle(settled) => {
                    // Nobody waits for it when the process ends.
                    let _ = settled.send(self.store.position().cloned());
                }
                Step::Fold(first) => {
                    let (messages, other) = gather(first, &mut steps);
                    held = other;
                    self.commit(&messages)?;
                }
            }
        }
    }

    fn commit(&mut self, messages: &[Opened]) -> Result<(), store::Error> {
        let began = Instant::now();
        let folded = self.store.fold(STREAM, self.stream_created_ns, messages)?;
        facts::folded(&folded, began.elapsed());
        let Some(last) = messages.last() else { return Ok(()) };
        if folded.dead_letters > 0 {
            let (count, up_to) = (folded.dead_letters, last.sequence);
            warn!(
                count,
                up_to_stream_sequence = up_to,
                "part of the log could not be read: see the dead letters"
            );
        }
        self.progress.send_modify(|progress| {
            progress.stream_sequence = last.sequence;
            progress.last_logged_at_ms = Some(millis(last.logged_ns));
            let known_last = last.sequence.saturating_add(last.pending);
            progress.stream_last_sequence = progress.stream_last_sequence.max(Some(known_last));
            // Counted by the server when it sent the last one; those that it has sent since are still on their way to us.
            progress.lag_messages = Some(last.pending);
            facts::lag(last.pending);
        });
        Ok(())
    }
}

/// What waits already, up to a transaction's size. The step that did not fit is given back.
fn gather(first: Opened, steps: &mut mpsc::Receiver<Step<Opened>>) -> (Vec<Opened>, Option<Step<Opened>>) {
    let mut bytes = first.bytes();
    let mut messages = vec![first];
    while messages.len() < TRANSACTION_MESSAGES_MAX && bytes < TRANSACTION_BYTES_MAX {
        match steps.try_recv() {
            Ok(Step::Fold(message)) => {
                bytes += message.bytes();
                messages.push(message);
            }
            Ok(other) => return (messages, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (messages, None)
}

fn millis(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0) / 1_000_000
}
