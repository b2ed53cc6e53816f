//! Custody: from "a client has sent this" to "it is on disk", by group commit.
//!
//! Connections [`gather`](Custody::gather) uplinks into a batch; one thread takes the batch, stores it, waits for the disk, and wakes each
//! connection that has something in it. While it waits for the disk the next batch gathers, so the more there is to do the more shares
//! one sync.
//!
//! # Invariants
//! - [`Custody::stored`] passes a [`Ticket`] only after `fdatasync` has returned for everything offered under it.
//! - A failed commit acknowledges nothing. If the disk may become well again (it is full, or does not write now), the same
//!   uplinks are stored again then, in another epoch; until then nothing more is taken. Any other failure is final until
//!   the process has been started again and has read back what the disk holds. Nothing is ever kept in memory only.
//! - Memory is bounded: one batch gathers, one is being stored.

mod batch;
mod commits;
mod runs;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use weir_contract::Id;
use weir_contract::segment::{ENTRY_OVERHEAD_MAX, entry_len};
use weir_contract::uplink::UPLINK_LEN_MAX;

use self::batch::{BATCH_BYTES_MAX, Batch};
use self::commits::Commits;
use self::runs::Runs;
use crate::facts;
use crate::intake::SeqRun;
use crate::spool::{self, Spool, WhenFull};

/// An uplink with the largest payload, as an entry.
const ENTRY_LEN_MAX: usize = UPLINK_LEN_MAX + ENTRY_OVERHEAD_MAX;

/// A batch of this size is stored without waiting for more.
const BATCH_BYTES_DUE: usize = BATCH_BYTES_MAX / 2;

/// Some thousand events of the gateway itself that tell what was given up.
const OWN_RESERVE_BYTES: usize = 512 * 1024;

/// What is gathered and what is being stored.
pub(crate) const MEMORY_BYTES_MAX: u64 = 2 * BATCH_BYTES_MAX as u64 + runs::MEMORY_BYTES_MAX;

/// A handle to the custody of uplinks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Custody {
    shared: Arc<Shared>,
}

/// Names the group commit an uplink is in. Stored when [`Custody::stored`] is the same or greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// How many commits there had been with this one, since the start.
    pub const fn ordinal(self) -> u64 {
        self.0
    }
}

/// How much was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Uplinks.
    pub uplinks: u64,
    /// Their events.
    pub events: u64,
    /// Their bytes, as they came.
    pub bytes: u64,
}

impl std::ops::AddAssign for Taken {
    fn add_assign(&mut self, more: Self) {
        self.uplinks += more.uplinks;
        self.events += more.events;
        self.bytes += more.bytes;
    }
}

/// Why an uplink is not taken now. Nothing of it is left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As much as one commit takes has been gathered; there is room after the next one.
    #[error("a whole batch waits for the disk")]
    Batch,
    /// The spool's budget or its disk is used up; there is room when something has been delivered, or the disk has room.
    #[error("the spool is full")]
    Spool,
    /// Nothing is taken any more: a commit has failed, or the gateway is going down.
    #[error("nothing is taken into custody any more")]
    Closed,
}

/// Who is to be woken when something is stored: one per connection.
#[derive(Debug, Default)]
pub struct Waiter {
    notify: Notify,
    /// The last batch it was put on the list of. Only touched under the lock of what is gathered.
    listed: AtomicU64,
}

impl Waiter {
    /// A waiter nobody has to wake yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Resolves when something offered with this waiter has been stored, or custody has failed; at once if that
    /// has happened since the last time. Then ask [`Custody::stored`] and [`Custody::failed`].
    pub fn notified(&self) -> Notified<'_> {
        self.notify.notified()
    }

    fn wake(&self) {
        self.notify.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    spool: Arc<Spool>,
    /// Room that only the gateway's own uplinks take.
    own_reserve: usize,
    gathering: Mutex<Gathering>,
    /// Tells the committer that there is something.
    gathered: Condvar,
    /// The last commit that is on disk.
    stored: AtomicU64,
    taken: Mutex<Taken>,
    /// The last pulse the committing thread has answered.
    pulse: AtomicU64,
    pulsed: Notify,
    failed: OnceLock<Arc<spool::Error>>,
    failing: Notify,
}

#[derive(Debug)]
struct Gathering {
    batch: Batch,
    /// When its first uplink came.
    begun: Instant,
    /// The commit that `batch` will be.
    ticket: u64,
    waiters: Vec<Arc<Waiter>>,
    /// Bytes of the batch that is being stored.
    storing_bytes: usize,
    /// The waiters of the batch that is being stored.
    storing: Vec<Arc<Waiter>>,
    runs: Runs,
    /// The last pulse that was asked for.
    pulse: u64,
    closed: bool,
}

/// The right to offer uplinks: a lock that everyone else waits for. Take it once per socket read, never hold it across an await.
#[derive(Debug)]
pub struct Gather<'a> {
    shared: &'a Shared,
    gathering: Option<MutexGuard<'a, Gathering>>,
    /// Bytes in the batch when the lock was taken.
    len_before: usize,
}

/// The committing thread. Dropping it stops it too, but only [`Self::stop`] tells how that went.
#[derive(Debug)]
pub struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Custody {
    /// Opens the spool and starts the committing thread. `now_ms` is Unix time.
    ///
    /// # Errors
    /// What [`Spool::open`] says.
    pub fn start(config: &spool::Config, now_ms: u64) -> Result<(Self, Committer), spool::Error> {
        let (spool, writer) = Spool::open(config, now_ms)?;
        let gathering = Gathering {
            batch: Batch::default(),
            begun: Instant::now(),
            ticket: 1,
            waiters: Vec::new(),
            storing_bytes: 0,
            storing: Vec::new(),
            runs: Runs::default(),
            pulse: 0,
            closed: false,
        };
        let own_reserve = if config.when_full == WhenFull::DropOldest { OWN_RESERVE_BYTES } else { 0 };
        let shared = Arc::new(Shared {
            spool,
            own_reserve,
            gathering: Mutex::new(gathering),
            gathered: Condvar::new(),
            stored: AtomicU64::new(0),
            taken: Mutex::default(),
            pulse: AtomicU64::new(0),
            pulsed: Notify::new(),
            failed: OnceLock::new(),
            failing: Notify::new(),
        });
        let commits =
            Commits { shared: shared.clone(), writer, delay: Duration::from_millis(config.commit_delay_ms) };
        let thread = std::thread::Builder::new().name("custody".to_owned()).spawn(move || commits.run());
        let thread = thread.map_err(|source| spool::Error::Io {
            what: "start a thread for",
            path: config.folder.clone(),
            source,
        })?;
        Ok((Self { shared: shared.clone() }, Committer { shared, thread: Some(thread) }))
    }

    /// Takes the lock under which uplinks are offered.
    pub fn gather(&self) -> Gather<'_> {
        let gathering = self.shared.gathering();
        Gather { shared: &self.shared, len_before: gathering.batch.len(), gathering: Some(gathering) }
    }

    /// Everything with this ticket or a smaller one is on disk, and synced.
    pub fn stored(&self) -> Ticket {
        Ticket(self.shared.stored.load(Ordering::Acquire))
    }

    /// Resolves when an uplink of any size can be offered, as far as others leave it: offer again, and be ready to wait
    /// again. Resolves also when custody is stopped: the offer will say so.
    ///
    /// # Errors
    /// The error with which custody failed: there will be no room any more.
    pub async fn room(&self) -> Result<(), Arc<spool::Error>> {
        self.room_of(ENTRY_LEN_MAX + self.shared.own_reserve).await
    }

    /// The same for an uplink of the gateway itself, with a payload of so many bytes.
    ///
    /// # Errors
    /// As [`Self::room`].
    pub async fn own_room(&self, payload_len: usize) -> Result<(), Arc<spool::Error>> {
        self.room_of(payload_len + ENTRY_OVERHEAD_MAX).await
    }

    async fn room_of(&self, len: usize) -> Result<(), Arc<spool::Error>> {
        loop {
            let mut notified = std::pin::pin!(self.shared.spool.room().notified());
            notified.as_mut().enable();
            if let Some(error) = self.failed() {
                return Err(error);
            }
            let room = self.shared.room_for(&self.shared.gathering(), len);
            match room {
                Ok(()) | Err(Full::Closed) => return Ok(()),
                Err(Full::Batch | Full::Spool) => notified.await,
            }
        }
    }

    /// The error with which custody failed, if it has. The process should end, and be started again.
    pub fn failed(&self) -> Option<Arc<spool::Error>> {
        self.shared.failed.get().cloned()
    }

    /// Resolves when custody has failed.
    pub async fn failure(&self) -> Arc<spool::Error> {
        loop {
            let mut notified = std::pin::pin!(self.shared.failing.notified());
            notified.as_mut().enable();
            if let Some(error) = self.failed() {
                return error;
            }
            notified.await;
        }
    }

    /// Resolves when the committing thread has gone round since the call, and the spool's own thread is there: neither
    /// hangs in a disk that does not answer, nor has it ended.
    ///
    /// # Errors
    /// The error with which custody failed: it has no pulse any more.
    pub async fn pulse(&self) -> Result<(), Arc<spool::Error>> {
        let asked = {
            let mut gathering = self.shared.gathering();
            gathering.pulse += 1;
            gathering.pulse
        };
        self.shared.gathered.notify_one();
        loop {
            let mut notified = std::pin::pin!(self.shared.pulsed.notified());
            notified.as_mut().enable();
            if let Some(error) = self.failed() {
                return Err(error);
            }
            if self.shared.pulse.load(Ordering::Acquire) >= asked {
                return Ok(());
            }
            notified.await;
        }
    }

    /// What was stored since the start.
    pub fn taken(&self) -> Taken {
        *self.shared.taken()
    }

    /// The spool, to read and release.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.shared.spool
    }
}

impl Gather<'_> {
    /// Takes an uplink. Acknowledge it when [`Custody::stored`] has reached the ticket; `waiter` is woken then.
    ///
    /// An uplink whose events have all been taken before is not stored again: its ticket is that of what it repeats, which may
    /// be stored already; the waiter is woken all the same.
    ///
    /// # Errors
    /// [`Full`] leaves nothing behind: stop reading from this client, await [`Custody::room`], offer it again.
    pub fn offer(
        &mut self,
        device: &Id,
        received_ms: u64,
        traceparent: Option<&[u8]>,
        payload: &[u8],
        run: SeqRun,
        waiter: &Arc<Waiter>,
    ) -> Result<Ticket, Full> {
        self.take(device, received_ms, traceparent, payload, run, waiter, self.shared.own_reserve)
    }

    /// The same for an uplink of the gateway itself. Where the spool drops its oldest, the last room is kept for that: what is
    /// told of what was dropped has to be stored before more can be.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub fn offer_own(
        &mut self,
        gateway: &Id,
        received_ms: u64,
        payload: &[u8],
        run: SeqRun,
        waiter: &Arc<Waiter>,
    ) -> Result<Ticket, Full> {
        self.take(gateway, received_ms, None, payload, run, waiter, 0)
    }

    #[expect(clippy::too_many_arguments, reason = "an uplink has that many parts")]
    fn take(
        &mut self,
        device: &Id,
        received_ms: u64,
        traceparent: Option<&[u8]>,
        payload: &[u8],
        run: SeqRun,
        waiter: &Arc<Waiter>,
        reserve: usize,
    ) -> Result<Ticket, Full> {
        let gathering = self.gathering.as_deref_mut().expect("only dropping takes it");
        if gathering.closed {
            return Err(Full::Closed);
        }
        if let Some(ticket) = gathering.runs.ticket_of(device, run) {
            gathering.list(ticket, waiter);
            facts::uplinks_repeated(1);
            return Ok(Ticket(ticket));
        }
        let len = entry_len(device, received_ms, traceparent, payload);
        self.shared.room_for(gathering, len + reserve)?;
        if gathering.batch.is_empty() {
            gathering.begun = Instant::now();
        }
        gathering.batch.push(device, received_ms, traceparent, payload, (run.events(), len));
        let ticket = gathering.ticket;
        gathering.runs.take(device, run, ticket);
        gathering.list(ticket, waiter);
        Ok(Ticket(ticket))
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        let len = self.gathering.take().map_or(0, |gathering| gathering.batch.len());
        let passes = |bytes: usize| self.len_before < bytes && len >= bytes;
        if passes(1) || passes(BATCH_BYTES_DUE) {
            self.shared.gathered.notify_one();
        }
    }
}

impl Gathering {
    /// Sees to it that `waiter` is woken when this commit has been stored.
    fn list(&mut self, ticket: u64, waiter: &Arc<Waiter>) {
        let waiters = match ticket {
            current if current == self.ticket => &mut self.waiters,
            storing if storing + 1 == self.ticket && self.storing_bytes > 0 => &mut self.storing,
            _ => return waiter.wake(),
        };
        if waiter.listed.swap(ticket, Ordering::Relaxed) != ticket {
            waiters.push(waiter.clone());
        }
    }
}

impl Shared {
    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().expect("nothing panics while it is held")
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while it is held")
    }

    fn room_for(&self, gathering: &Gathering, len: usize) -> Result<(), Full> {
        if gathering.closed {
            return Err(Full::Closed);
        }
        if !gathering.batch.has_room(len) {
            return Err(Full::Batch);
        }
        let bytes = gathering.storing_bytes + gathering.batch.len() + len;
        if on_disk(bytes) > self.spool.room_bytes() {
            return Err(Full::Spool);
        }
        Ok(())
    }
}

/// What so many bytes of entries take on disk, at most: keys, heads, and the ends of sled's segments that stay empty.
const fn on_disk(bytes: usize) -> u64 {
    (bytes + bytes / 4) as u64
}

impl Committer {
    /// Stores what has been gathered and closes the spool. Nothing is taken any more.
    ///
    /// # Errors
    /// The error with which custody failed, now or before.
    pub fn stop(mut self) -> Result<(), Arc<spool::Error>> {
        self.close();
        self.shared.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn close(&mut self) {
        self.shared.gathering().closed = true;
        self.shared.gathered.notify_one();
        self.shared.spool.room().notify_waiters();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the committing thread panicked");
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}
