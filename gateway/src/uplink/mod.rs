//! The uplink: out of the spool, into JetStream, in order, exactly once, for ever.
//!
//! One task. It connects, looks what the stream holds ([`resume`]), and publishes segments one after the other, each with
//! the sequence of the one it must follow. Whenever an answer is not a plain acknowledgement it looks again: it never
//! assumes that a message arrived, nor that it did not. Between failures it waits ([`pacing`]); it never gives up.
//!
//! While it has a backlog, copies of what is new go [`ahead`] of it, in a lane of their own that promises nothing.
//!
//! # Invariants
//! - One segment is under way at a time, so an older one cannot arrive after a newer one.
//! - Nothing is released from the spool without an acknowledgement, or a look that found it.
//! - Idle, it waits for the spool or for the connection to fail, and for nothing else.

mod again;
mod ahead;
mod config;
mod feed;
mod files;
mod nats;
pub mod pacing;
pub mod resume;
pub mod segment;
mod status;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use weir_contract::Id;
use weir_contract::segment::{HEAD_LEN_MAX, SEGMENT_LEN_MAX};
use weir_contract::subject::{self, LANE_LIVE, Source};

pub use self::again::{Again, Plan, Refused, Resend};
pub use self::config::{Config, Tls};
pub use self::files::{Error as FileError, check};
pub(crate) use self::nats::Connection;
pub use self::status::{State, Status};

use self::again::Ask;
use self::ahead::{Ahead, Pick};
use self::feed::{Feed, Taken};
use self::nats::{Look, MESSAGE_OVERHEAD_BYTES, Session};
use self::pacing::{Allowance, Backoff, Kind, Meaning, SegmentSize, Trouble};
use self::resume::{GoOn, Own, Seen, Standing, Verdict};
use self::segment::{Builder, Segment};
use self::status::Board;
use crate::clock::Clock;
use crate::spool::{Record, Spool};
use crate::{facts, journal, telling};

/// The running uplink. Dropping it stops it; what was under way is looked for at the next start.
#[derive(Debug)]
pub struct Uplink {
    status: watch::Receiver<Status>,
    hurry: watch::Sender<bool>,
    resend: Resend,
    task: JoinHandle<()>,
}

/// Starts the uplink of `source` on the current runtime.
#[must_use]
pub fn start(
    config: Config,
    source: &Source,
    spool: Arc<Spool>,
    journal: journal::Sender,
    clock: Clock,
) -> Uplink {
    let (board, status) = Board::new(clock, spool.delivered());
    let level = i32::try_from(config.zstd_level).unwrap_or_default();
    let bytes_max = usize::try_from(config.segment_bytes_max).unwrap_or(usize::MAX);
    let (hurry, hurries) = watch::channel(false);
    let (resend, asks) = again::channel(status.clone());
    let lane: Id = LANE_LIVE.parse().expect("it is a name");
    let live_after = Duration::from_millis(config.live_after_ms);
    let worker = Worker {
        name: format!("{} {}", source.site, source.gateway),
        subject: subject::segments(source).to_string(),
        backoff: Backoff::new(config.backoff_ms, config.backoff_ms_max),
        size: SegmentSize::new(bytes_max),
        allowance: Allowance::new(config.max_bytes_per_s),
        ahead: Ahead::new(live_after, config.live_share_percent, config.urgent_kinds.clone()),
        live_subject: subject::segments(&Source { lane, ..*source }).to_string(),
        copier: None,
        started: Instant::now(),
        level,
        feed: Feed::new(Arc::clone(&spool), level),
        config,
        spool,
        journal,
        board,
        told_gone: 0,
        hurries,
        again: None,
        asks,
    };
    Uplink { status, hurry, resend, task: tokio::spawn(worker.run()) }
}

impl Uplink {
    /// How it goes; changes can be awaited.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Has it send again what the stream has acknowledged already.
    #[must_use]
    pub fn resend(&self) -> Resend {
        self.resend.clone()
    }

    /// Whether it runs; it never ends by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits until everything below `number` is in the stream, at most `wait_max`; meanwhile nothing waits for more to share its
    /// segment. Says whether it is.
    pub async fn drain(&self, number: u64, wait_max: Duration) -> bool {
        self.hurry.send_replace(true);
        let mut status = self.status.clone();
        let delivered = status.wait_for(|status| status.delivered >= number);
        let delivered = matches!(timeout(wait_max, delivered).await, Ok(Ok(_)));
        self.hurry.send_replace(false);
        delivered
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    name: String,
    subject: String,
    config: Config,
    spool: Arc<Spool>,
    journal: journal::Sender,
    board: Board,
    feed: Feed,
    backoff: Backoff,
    size: SegmentSize,
    allowance: Allowance,
    ahead: Ahead,
    live_subject: String,
    /// Makes the segments that go ahead; only there while the uplink is behind.
    copier: Option<Builder>,
    level: i32,
    /// What `now` is counted from.
    started: Instant,
    /// Numbers below have been told to be gone, as far as they are.
    told_gone: u64,
    /// The gateway goes down: there will be no more to wait for.
    hurries: watch::Receiver<bool>,
    /// What is being sent again on request.
    again: Option<Again>,
    asks: mpsc::Receiver<Ask>,
}

/// Where the next segment begins, and which stream sequence it must follow.
#[derive(Debug, Clone, Copy)]
struct Position {
    from: u64,
    follows: u64,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let trouble = match Session::connect(&self.config, &self.name, self.subject.clone()).await {
                Ok(session) => self.work(&session).await,
                Err(trouble) => trouble,
            };
            self.rest(trouble).await;
        }
    }

    /// Works until this connection is of no more use.
    async fn work(&mut self, session: &Session) -> Trouble {
        tracing::info!(server = session.server(), "connected to NATS");
        loop {
            let trouble = match self.look(session).await {
                Ok(position) => self.send(session, position).await,
                Err(trouble) => trouble,
            };
            match trouble.kind {
                // Of a cluster that is torn in two, this server may be on the side without a leader: another one may not.
                Kind::NoLeader => return trouble,
                Kind::Unreachable | Kind::Disconnected | Kind::Denied | Kind::TimedOut => return trouble,
                _ => self.rest(trouble).await,
            }
        }
    }

    /// Tells what went wrong, and waits a while.
    async fn rest(&mut self, trouble: Trouble) {
        let wait = self.backoff.failed(fastrand::u64(..));
        self.board.down(trouble, self.backoff.failures());
        sleep(wait).await;
    }

    /// Finds out where to go on.
    async fn look(&mut self, session: &Session) -> Result<Position, Trouble> {
        let marked_sequence = self.spool.delivered().stream_sequence;
        let Look { first_sequence, last_sequence, last, marked } =
            session.look(marked_sequence, self.config.create_stream).await?;
        let last = match last {
            Some(message) => Some(feed::compare(&self.spool, message).await?),
            None => None,
        };
        let at_delivered = marked.as_ref().and_then(feed::head);
        let seen = Seen { first_sequence, last_sequence, last, at_delivered };
        let delivered = self.spool.delivered();
        let own = Own {
            incarnation: self.spool.incarnation(),
            oldest: self.spool.oldest_number(),
            next: self.spool.next_number(),
            delivered: delivered.number,
            delivered_sequence: delivered.stream_sequence,
        };
        match resume::resume(&own, &seen) {
            Verdict::GoOn(go_on) => self.take_position(&own, go_on),
            Verdict::Stop(conflict) => Err(Trouble::new(Kind::Conflict, conflict.to_string())),
        }
    }

    fn take_position(&mut self, own: &Own, go_on: GoOn) -> Result<Position, Trouble> {
        let GoOn { from, follows, standing } = go_on;
        let (from, standing) = self.before(from, follows, standing);
        match &standing {
            Standing::WentBack { gone } => {
                tracing::error!(
                    known = own.delivered,
                    from,
                    gone = gone.end.saturating_sub(gone.start),
                    "the stream has lost what it had acknowledged; sending it again"
                );
                self.spool.take_back(from, follows);
                self.tell_gone(gone.start, gone.end, Cow::Borrowed("stream-went-back"));
            }
            Standing::Unreadable => {
                tracing::warn!(
                    sequence = follows,
                    "the last message on our subject is no segment; leaving it alone"
                );
            }
            Standing::Expired => {
                tracing::info!("the stream has let go of all our segments by its limits");
            }
            Standing::Renamed => {
                tracing::info!(
                    subject = self.subject,
                    "what was delivered is under another subject; going on here"
                );
            }
            Standing::Ahead => {
                tracing::info!(known = own.delivered, from, "the stream has more than was known");
                self.release(from, follows)?;
            }
            Standing::InStep => self.release(from, follows)?,
            Standing::First => {}
        }
        self.board.looked(from, follows);
        self.sent_again(from, follows);
        Ok(Position { from, follows })
    }

    /// Sends until something is not as it should be.
    async fn send(&mut self, session: &Session, mut position: Position) -> Trouble {
        let mut proven = false;
        let mut changed = self.spool.changed();
        let mut sent_at: Option<Instant> = None;
        loop {
            changed.mark_unchanged();
            if let Ok(ask) = self.asks.try_recv() {
                position = self.send_again(ask, position);
            }
            let bytes_max = self.size.bytes().min(self.allowance.segment_bytes_max());
            let bytes_max = bytes_max.min(session.payload_bytes_max()).max(HEAD_LEN_MAX);
            let segment = match self.feed.take(position.from, bytes_max).await {
                Ok(Taken::Segment(segment)) => segment,
                Ok(Taken::Nothing) => {
                    self.backoff.succeeded();
                    self.prove(session, &mut proven);
                    self.in_step(position.from);
                    tokio::select! {
                        _ = changed.changed() => {}
                        Some(ask) = self.asks.recv() => position = self.send_again(ask, position),
                        trouble = session.failed() => return trouble,
                    }
                    self.linger(sent_at).await;
                    continue;
                }
                Ok(Taken::Gone { to, reason }) => {
                    tracing::error!(
                        from = position.from,
                        to,
                        reason,
                        "the spool is damaged; going on behind the damage"
                    );
                    if let Err(trouble) = self.lose(position.from, to).await {
                        return trouble;
                    }
                    position.from = to;
                    continue;
                }
                Ok(Taken::GivenUp { to }) => {
                    tracing::info!(from = position.from, to, "going on behind what was given up");
                    position.from = to;
                    continue;
                }
                Err(trouble) => return trouble,
            };
            if segment.full {
                self.feed.prepare(segment.head.end(), bytes_max);
            }
            if let Err(trouble) = self.go_ahead(session, &segment).await {
                return trouble;
            }
            if let Err(trouble) = self.allow(session, &segment).await {
                return trouble;
            }
            let begun = Instant::now();
            match session.publish(&segment, position.follows).await {
                Meaning::Delivered(sequence) => {
                    position = Position { from: segment.head.end(), follows: sequence };
                    self.prove(session, &mut proven);
                    if let Err(trouble) = self.delivered(&segment, sequence, begun.elapsed()) {
                        return trouble;
                    }
                }
                Meaning::Unclear(trouble) => {
                    if trouble.kind == Kind::TimedOut {
                        self.size.timed_out();
                    }
                    return trouble;
                }
            }
            sent_at = (!segment.full).then_some(begun);
        }
    }

    /// Everything there is has been sent, or is being sent: what is below `end`.
    fn in_step(&mut self, end: u64) {
        self.ahead.in_step(end, self.started.elapsed());
        self.copier = None;
    }

    /// Lets copies of the newest go ahead of `segment`, if the uplink has been behind for a while.
    async fn go_ahead(&mut self, session: &Session, segment: &Segment) -> Result<(), Trouble> {
        // A segment ends with its epoch, too: then the rest is on disk.
        if !segment.full && self.spool.try_tail(segment.head.end(), 1).is_some() {
            self.in_step(segment.head.end());
        }
        if !self.ahead.is_due(self.started.elapsed()) || !session.takes_copies() {
            return Ok(());
        }
        let newest = self.spool.newest(self.ahead.from());
        let Pick { runs, mut left_out } = self.ahead.pick(&newest, segment.head.end(), segment.raw_len);
        drop(newest);
        let mut copied = 0;
        for run in runs {
            let copies = self.copies(&run)?;
            self.allow(session, &copies).await?;
            let arrived = session.publish_copies(&self.live_subject, &copies).await?;
            *if arrived { &mut copied } else { &mut left_out } += copies.head.count;
            if !session.takes_copies() {
                let subject = &self.live_subject;
                tracing::warn!(
                    subject,
                    "the server does not let us publish there: nothing goes ahead of the backlog"
                );
                break;
            }
        }
        facts::uplinks_ahead(copied, left_out);
        self.board.ahead(copied, left_out);
        Ok(())
    }

    fn copies(&mut self, run: &[Record]) -> Result<Segment, Trouble> {
        let copier = match &mut self.copier {
            Some(copier) => copier,
            none => none.insert(feed::builder(&self.spool, self.level)?),
        };
        let records: Vec<_> = run.iter().cloned().map(Arc::new).collect();
        let copies = run.first().and_then(|first| copier.build(first.first, &records, SEGMENT_LEN_MAX));
        copies.ok_or_else(|| Trouble::new(Kind::Spool, "what was to go ahead is no row of uplinks"))
    }

    /// Waits until `segment` may be sent.
    async fn allow(&mut self, session: &Session, segment: &Segment) -> Result<(), Trouble> {
        let wait = self.allowance.wait(self.started.elapsed());
        if !wait.is_zero() {
            tokio::select! {
                () = sleep(wait) => {}
                trouble = session.failed() => return Err(trouble),
            }
        }
        self.allowance.spend(segment.payload.len() + MESSAGE_OVERHEAD_BYTES / 4, self.started.elapsed());
        Ok(())
    }

    /// The uplink is up when it has delivered something, or has nothing to deliver; not when it is only connected.
    fn prove(&self, session: &Session, proven: &mut bool) {
        if !std::mem::replace(proven, true) {
            self.board.up(session.server());
        }
    }

    /// Lets more gather if the last segment, which was not full, went out only just now.
    async fn linger(&self, sent_at: Option<Instant>) {
        let linger = Duration::from_millis(self.config.linger_ms);
        if let Some(rest) = sent_at.and_then(|sent_at| linger.checked_sub(sent_at.elapsed())) {
            let mut hurries = self.hurries.clone();
            tokio::select! {
                () = sleep(rest) => {}
                _ = hurries.wait_for(|hurry| *hurry) => {}
            }
        }
    }

    fn delivered(&mut self, segment: &Segment, sequence: u64, took: Duration) -> Result<(), Trouble> {
        self.backoff.succeeded();
        self.size.delivered(took);
        facts::segment_delivered(segment.head.count, segment.raw_len, segment.payload.len(), took);
        self.board.delivered(segment, sequence);
        self.sent_again(segment.head.end(), sequence);
        self.release(segment.head.end(), sequence)
    }

    fn release(&self, number: u64, sequence: u64) -> Result<(), Trouble> {
        self.spool.release(number, sequence).map_err(|error| Trouble::new(Kind::Spool, error.with_causes()))
    }

    /// Has it told, once, that numbers are gone that the stream has never had.
    async fn lose(&mut self, from: u64, to: u64) -> Result<(), Trouble> {
        if to <= self.told_gone {
            return Ok(());
        }
        let spool = Arc::clone(&self.spool);
        let noted = spawn_blocking(move || spool.lose(from, to)).await;
        match noted.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())) {
            Ok(lost) => {
                self.told_gone = to;
                self.board.gone(lost);
            }
            // A disk that fails altogether has perhaps not lost what it does not read: nothing is gone until that can be noted.
            Err(error) if error.may_pass() && !error.is_no_room() => {
                return Err(Trouble::new(Kind::Spool, error.with_causes()));
            }
            Err(error) => {
                tracing::warn!(error = error.with_causes(), "cannot note what is lost; it is told without");
                self.tell_gone(from, to, Cow::Borrowed(telling::REASON));
            }
        }
        Ok(())
    }

    /// Tells once, in the journal, the metrics and the status, that numbers are gone.
    fn tell_gone(&mut self, from: u64, to: u64, reason: Cow<'static, str>) {
        let from = from.max(self.told_gone);
        if from >= to {
            return;
        }
        self.told_gone = to;
        facts::uplinks_gone(to - from);
        self.board.gone(to - from);
        let incarnation = self.spool.incarnation();
        self.journal.send(journal::Entry::UplinksGone { incarnation, from, to: to - 1, reason });
    }
}
