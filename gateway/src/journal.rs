//! What the gateway itself has to tell: who connected, who left, which commands came to nothing, what it lost.
//!
//! The gateway is a source like any device: its events have numbers within a boot (one run of the process), travel as
//! uplinks whose device is the gateway's id, and are kept on disk before they are forwarded. [`Sender::send`] never
//! blocks and never grows: what does not fit is counted, and the count becomes one `events-lost` event.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use weir_contract::body::{Body, Outcome};
use weir_contract::cbor::Writer;
use weir_contract::uplink::{self, EVENT_OVERHEAD_MAX, Event, HEADER_LEN_MAX, Header};
use weir_contract::{Id, Kind, NoRoom, Text};

use crate::clock::Clock;
use crate::custody::{Custody, Full, Ticket, Waiter};
use crate::facts;
use crate::intake::SeqRun;
use crate::spool::account::Loss;

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
    /// A command's deadline passed before the device said how it ended.
    CommandExpired {
        /// Whose command.
        device: Id,
        /// Which.
        id: Box<str>,
    },
    /// A command was not taken.
    CommandRefused {
        /// Whose command.
        device: Id,
        /// Which, if it can be read.
        id: Option<Box<str>>,
        /// Why, in a few words; at most 200 bytes are kept.
        reason: Cow<'static, str>,
    },
    /// The wall clock was set.
    ClockStepped {
        /// Forward, or (negative) back.
        by_ms: i64,
    },
    /// Something a device published was refused: it is not stored, and where its version of MQTT has no word for that, the
    /// device does not know.
    PublishesRefused {
        /// Which device.
        device: Id,
        /// How many were since this was last told, of whatever device.
        count: u64,
        /// Why this one was, in a few words; at most 200 bytes are kept.
        reason: Cow<'static, str>,
    },
    /// What became of a command to the gateway itself.
    CommandAnswered {
        /// Which.
        id: Box<str>,
        /// What became of it.
        outcome: Outcome,
        /// In words; at most 200 bytes are kept.
        reason: Option<String>,
        /// One CBOR item of at most 80 bytes.
        result: Option<Vec<u8>>,
    },
    /// Events that had been acknowledged were given up, because the spool was full.
    EventsLost(Loss),
    /// Uplinks that the stream had acknowledged are gone from it, and from the spool as well; or they were given up and
    /// cannot be read.
    UplinksGone {
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

    /// Takes an entry, however long that takes; says whether anybody will write it.
    pub async fn tell(&self, entry: Entry) -> bool {
        self.entries.send(Observed { at: Instant::now(), entry }).await.is_ok()
    }
}

/// Answered when everything that was sent before it is on disk; dropped if that will not be.
pub type Flush = oneshot::Sender<()>;

/// Waits until everything that was sent before is on disk, however long that takes. Says whether it is: not so if custody has
/// failed, or the gateway goes down.
pub async fn flush(flushes: &mpsc::Sender<Flush>) -> bool {
    let (flushed, told) = oneshot::channel();
    flushes.send(flushed).await.is_ok() && told.await.is_ok()
}

/// Takes what is sent into custody until nobody can ask for a flush any more; then what has been sent by then.
pub async fn run(
    receiver: Receiver,
    gateway: Id,
    custody: Custody,
    clock: Clock,
    mut flushes: mpsc::Receiver<Flush>,
) {
    let mut journal = Journal {
        gateway,
        custody,
        clock,
        pages: Pages::new(fastrand::u64(..)),
        waiter: Waiter::new(),
        last: None,
    };
    let Receiver { mut entries, lost } = receiver;
    let mut stopping = false;
    let mut page = Vec::with_capacity(PAGE_ENTRIES_MAX);
    loop {
        let flush = tokio::select! {
            received = entries.recv_many(&mut page, PAGE_ENTRIES_MAX) => {
                if received == 0 {
                    break;
                }
                None
            }
            asked = flushes.recv(), if !stopping => {
                if asked.is_none() {
                    stopping = true;
                    entries.close();
                }
                asked
            }
        };
        while !page.is_empty() || fill(&mut page, &mut entries) {
            if journal.keep(&page, lost.swap(0, Ordering::Relaxed)).await.is_err() {
                return;
            }
            page.clear();
        }
        if let Some(flushed) = flush {
            if journal.stored().await.is_err() {
                return;
            }
            // Whoever asked may have lost patience.
            let _ = flushed.send(());
        }
    }
    // What could not be stored is told by custody itself.
    let _ = journal.stored().await;
}

/// Takes what there is without waiting; whether there was anything.
fn fill(page: &mut Vec<Observed>, entries: &mut mpsc::Receiver<Observed>) -> bool {
    page.extend(std::iter::from_fn(|| entries.try_recv().ok()).take(PAGE_ENTRIES_MAX));
    !page.is_empty()
}

/// Entries in one uplink.
const PAGE_ENTRIES_MAX: usize = 64;
/// The most bytes of a reason.
const REASON_BYTES_MAX: usize = 200;
/// An event of ours: two texts of at most that, names and numbers.
const BODY_BYTES_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = HEADER_LEN_MAX + (PAGE_ENTRIES_MAX + 1) * (EVENT_OVERHEAD_MAX + BODY_BYTES_MAX);

struct Journal {
    gateway: Id,
    custody: Custody,
    clock: Clock,
    pages: Pages,
    waiter: Arc<Waiter>,
    last: Option<Ticket>,
}

/// Custody takes nothing any more.
struct Closed;

impl Journal {
    async fn keep(&mut self, page: &[Observed], lost: u32) -> Result<(), Closed> {
        facts::journal_lost(lost.into());
        let (payload, run) = self.pages.write(page, lost, Instant::now(), self.clock.known_unix_ms());
        loop {
            let received_ms = self.clock.unix_ms();
            let offered =
                self.custody.gather().offer_own(&self.gateway, received_ms, &payload, run, &self.waiter);
            match offered {
                Ok(ticket) => {
                    self.last = Some(ticket);
                    return Ok(());
                }
                Err(Full::Closed) => return Err(Closed),
                Err(Full::Batch | Full::Spool) => {
                    self.custody.own_room(payload.len()).await.map_err(|_| Closed)?;
                }
            }
        }
    }

    /// Waits until what was kept is on disk.
    async fn stored(&self) -> Result<(), Closed> {
        while self.last.is_some_and(|last| self.custody.stored() < last) {
            if self.custody.failed().is_some() {
                return Err(Closed);
            }
            self.waiter.notified().await;
        }
        Ok(())
    }
}

/// Numbers entries and writes them as uplinks. Pure.
struct Pages {
    boot: u64,
    began: Instant,
    next_seq: u32,
}

impl Pages {
    fn new(boot: u64) -> Self {
        Pages { boot, began: Instant::now(), next_seq: 1 }
    }

    /// One uplink with these entries, after `lost` that found no room. It is `unix_ms` at `now`, if that is known: told with
    /// every uplink, so that the boots of a gateway whose clock is set right only later are put in order by its last word.
    fn write(
        &mut self,
        page: &[Observed],
        lost: u32,
        now: Instant,
        unix_ms: Option<u64>,
    ) -> (Vec<u8>, SeqRun) {
        let first = self.next_seq.saturating_add(lost);
        let mut bodies = Vec::with_capacity(page.len() + 1);
        if lost > 0 {
            let (boot, from, to) = (self.boot, self.next_seq, first - 1);
            let body = Body::EventsLost { device: None, boot, from, to, reason: "journal-full".into() };
            bodies.push((now, body.kind(), encode(|buffer| body.write(buffer))));
        }
        bodies.extend(page.iter().map(|observed| {
            let (kind, body) = observed.entry.body();
            (observed.at, kind, body)
        }));
        let events: Vec<Event<'_>> = (first..)
            .zip(&bodies)
            .map(|(seq, (at, kind, body))| Event { seq, at: self.ms(*at), kind: *kind, version: 1, body })
            .collect();
        let last = events.last().map_or(first, |event| event.seq);
        let epoch = unix_ms.map(|unix_ms| unix_ms.saturating_sub(self.ms(now)));
        let header = Header { boot: self.boot, now: Some(self.ms(now)), epoch, via: None };
        let mut payload = vec![0; PAGE_BYTES_MAX];
        let len = uplink::write(&mut payload, &header, events.iter().copied());
        payload.truncate(len.expect("the buffer is as long as that many events can be"));
        self.next_seq = last.saturating_add(1);
        (payload, SeqRun { boot: self.boot, first, last })
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Entry {
    /// The kind and the body of the event that tells it.
    fn body(&self) -> (Kind, Vec<u8>) {
        match self {
            Entry::Connected { device, address } => {
                let address = address.to_string();
                let body = Body::DeviceConnected { device: *device, address: address.as_str().into() };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::Disconnected { device, reason } => {
                let body = Body::DeviceDisconnected { device: *device, reason: cut(reason).into() };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::CommandExpired { device, id } => {
                let body = Body::CommandExpired { device: *device, id: (&**id).into() };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::CommandRefused { device, id, reason } => {
                let id = id.as_deref().map(Text::from);
                let body = Body::CommandRefused { device: *device, id, reason: cut(reason).into() };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::ClockStepped { by_ms } => {
                let body = Body::ClockStepped { by_ms: *by_ms };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::PublishesRefused { device, count, reason } => {
                let kind = "publishes-refused".parse().expect("it is one");
                let body = encode(|buffer| {
                    let mut w = Writer::new(buffer);
                    w.map(3).str("device").str(device).str("count").u64(*count);
                    w.str("reason").str(cut(reason)).end()
                });
                (kind, body)
            }
            Entry::CommandAnswered { id, outcome, reason, result } => {
                let reason = reason.as_deref().map(|reason| Text::from(cut(reason)));
                let (id, result) = ((&**id).into(), result.as_deref());
                let body = Body::CommandAnswered { outcome: *outcome, id, reason, result };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::EventsLost(Loss { device, boot, reason, from, to }) => {
                let reason = cut(reason).into();
                let body =
                    Body::EventsLost { device: Some(*device), boot: *boot, from: *from, to: *to, reason };
                (body.kind(), encode(|buffer| body.write(buffer)))
            }
            Entry::UplinksGone { incarnation, from, to, reason } => {
                let kind = "uplinks-gone".parse().expect("it is one");
                let body = encode(|buffer| {
                    let mut w = Writer::new(buffer);
                    w.map(4).str("incarnation").u64(*incarnation).str("from").u64(*from);
                    w.str("to").u64(*to).str("reason").str(cut(reason)).end()
                });
                (kind, body)
            }
        }
    }
}

fn encode(write: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>) -> Vec<u8> {
    let mut buffer = vec![0; BODY_BYTES_MAX];
    let len = write(&mut buffer).expect("texts are cut so that a body fits");
    buffer.truncate(len);
    buffer
}

fn cut(text: &str) -> &str {
    let fits = |end: &usize| *end <= REASON_BYTES_MAX;
    let ends = text.char_indices().map(|(start, char)| start + char.len_utf8());
    &text[..ends.take_while(fits).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_contract::uplink::Uplink;

    use super::*;

    const UNIX_MS: Option<u64> = Some(1_800_000_000_000);

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    fn observed(entry: Entry) -> Observed {
        Observed { at: Instant::now(), entry }
    }

    fn left(reason: impl Into<Cow<'static, str>>) -> Observed {
        observed(Entry::Disconnected { device: id("d"), reason: reason.into() })
    }

    #[test]
    fn entries_become_events_of_the_contract() {
        let mut pages = Pages::new(42);
        let address = "[2001:db8::1]:50000".parse().unwrap();
        let gone =
            Entry::UplinksGone { incarnation: u64::MAX, from: 5, to: 9, reason: "spool-damaged".into() };
        let page =
            [observed(Entry::Connected { device: id("d"), address }), left("keep-alive"), observed(gone)];
        let (payload, run) = pages.write(&page, 0, Instant::now(), UNIX_MS);
        assert_eq!(run, SeqRun { boot: 42, first: 1, last: 3 });
        let uplink = Uplink::read(&payload).unwrap();
        let events: Vec<_> = uplink.events().collect();
        let bodies: Vec<_> =
            events.iter().map(|event| Body::read(&event.kind, event.version, event.body).unwrap()).collect();
        assert!(
            matches!(bodies[0], Some(Body::DeviceConnected { address, .. }) if address == "[2001:db8::1]:50000")
        );
        assert!(matches!(bodies[1], Some(Body::DeviceDisconnected { reason, .. }) if reason == "keep-alive"));
        assert!(bodies[2].is_none() && events[2].kind == "uplinks-gone");
    }

    #[test]
    fn every_number_is_an_event_or_covered_by_events_lost() {
        let mut pages = Pages::new(42);
        let mut accounted = BTreeSet::new();
        for (count, lost) in [(1, 0), (64, 3), (2, 1), (64, 1000), (1, 0)] {
            let page: Vec<_> = (0..count).map(|_| left("bye")).collect();
            let (payload, run) = pages.write(&page, lost, Instant::now(), UNIX_MS);
            let uplink = Uplink::read(&payload).unwrap();
            assert_eq!((uplink.first_seq(), uplink.last_seq()), (run.first, run.last));
            for event in uplink.events() {
                assert!(accounted.insert(event.seq));
                if let Some(Body::EventsLost { device, boot, from, to, .. }) =
                    Body::read(&event.kind, 1, event.body).unwrap()
                {
                    assert_eq!((device, boot), (None, 42));
                    assert!((from..=to).all(|seq| accounted.insert(seq)));
                }
            }
        }
        let last = *accounted.last().unwrap();
        assert_eq!(u32::try_from(accounted.len()), Ok(last), "no hole");
        assert_eq!(last, 132 + 1004 + 3);
    }

    #[test]
    fn the_longest_entries_fit() {
        let reason = "ä".repeat(1000);
        let page: Vec<_> = (0..PAGE_ENTRIES_MAX).map(|_| left(reason.clone())).collect();
        let (payload, _) = Pages::new(u64::MAX).write(&page, 7, Instant::now(), UNIX_MS);
        Uplink::read(&payload).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        let (sender, receiver) = channel();
        for _ in 0..WAITING_MAX + 5 {
            sender.send(Entry::Disconnected { device: id("d"), reason: "bye".into() });
        }
        assert_eq!(receiver.lost.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn a_flush_of_what_could_not_be_stored_is_not_answered() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::spool::Config::new(folder.path().join("spool"));
        let clock = Clock::manual(1_000);
        let (custody, _committer) = Custody::start(&config, clock.unix_ms()).unwrap();
        // No place for the first epoch, which is no matter of a full disk.
        let epochs = config.folder.join("epochs");
        std::fs::remove_dir(&epochs).unwrap();
        std::fs::write(&epochs, "no folder").unwrap();
        let (sender, receiver) = channel();
        let (flushes, asked) = mpsc::channel(1);
        let running = tokio::spawn(run(receiver, id("gw"), custody.clone(), clock, asked));
        assert!(sender.tell(left("bye").entry).await);
        assert!(!flush(&flushes).await, "it is not on disk");
        assert!(custody.failed().is_some());
        running.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_sent_before_a_flush_or_the_stop_is_on_disk_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::spool::Config::new(folder.path().join("spool"));
        let clock = Clock::manual(1_000);
        let (custody, committer) = Custody::start(&config, clock.unix_ms()).unwrap();
        let (sender, receiver) = channel();
        let (flushes, asked) = mpsc::channel(1);
        let running = tokio::spawn(run(receiver, id("gw"), custody.clone(), clock, asked));
        let send_200 = || (0..200).for_each(|_| sender.send(left("bye".to_owned()).entry));
        send_200();
        let (flushed, told) = oneshot::channel();
        flushes.send(flushed).await.unwrap();
        told.await.unwrap();
        let pages_of_200 = 200_u64.div_ceil(PAGE_ENTRIES_MAX as u64);
        assert!(custody.spool().next_number() > pages_of_200, "each page is an uplink");
        // What is found out between a flush and the stop is not lost either.
        let before = custody.spool().next_number();
        send_200();
        drop(flushes);
        running.await.unwrap();
        assert!(custody.spool().next_number() >= before + pages_of_200);
        tokio::task::spawn_blocking(|| committer.stop()).await.unwrap().unwrap();
    }
}
