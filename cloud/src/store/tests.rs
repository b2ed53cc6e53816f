//! The store as its readers see it, after segments have been folded into it.

mod conservation;
mod history;
mod order;
mod poison;
mod state;

use bytes::Bytes;
use tempfile::TempDir;
use weir_contract::body::{Body, Scalar};
use weir_contract::segment::{Head, write_entry, write_head};
use weir_contract::subject::{STREAM, Source, segments};
use weir_contract::uplink::{self, Event, Header};
use weir_contract::{Id, Text};

use super::types::{EventQuery, Order, StoredEvent};
use super::{Config, Folded, Reader, Store};
use crate::log::{Content, Opened};

/// Some moment: 2027-01-15T08:00:00Z.
const T0: u64 = 1_800_000_000_000;

fn id(name: &str) -> Id {
    name.parse().expect("a name")
}

/// An uplink as a gateway has taken it.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    device: Id,
    received_ms: u64,
    payload: Vec<u8>,
}

/// Events of one boot from `first_seq` on: when, in ms since boot, and what.
fn entry(
    device: &str,
    received_ms: u64,
    header: Header,
    first_seq: u32,
    events: &[(u64, Body<'_>)],
) -> Entry {
    let bodies: Vec<Vec<u8>> = events
        .iter()
        .map(|(_, body)| {
            let mut bytes = vec![0; 4096];
            let len = body.write(&mut bytes).expect("fits");
            bytes.truncate(len);
            bytes
        })
        .collect();
    let events: Vec<Event<'_>> = (first_seq..)
        .zip(events.iter().zip(&bodies))
        .map(|(seq, ((at, body), bytes))| Event { seq, at: *at, kind: body.kind(), version: 1, body: bytes })
        .collect();
    let mut payload = vec![0; 65_536];
    let len = uplink::write(&mut payload, &header, events.into_iter()).expect("fits");
    payload.truncate(len);
    Entry { device: id(device), received_ms, payload }
}

/// Of a device that knows the time.
fn known(boot: u64, epoch: u64) -> Header {
    Header { boot, now: Some(0), epoch: Some(epoch), via: None }
}

fn reading(sensor: &str, value: i64) -> Body<'static> {
    Body::ReadingTaken { sensor: id(sensor), value: Scalar::Int(value), unit: Some(Text::from("Cel")) }
}

/// `count` readings of sensor `t`, a second apart, with their seq as value.
fn readings(device: &str, boot: u64, first_seq: u32, count: u32) -> Entry {
    let events: Vec<(u64, Body<'_>)> = (first_seq..first_seq + count)
        .map(|seq| (u64::from(seq) * 1000, reading("t", i64::from(seq))))
        .collect();
    entry(device, T0 + 1_000_000, known(boot, T0), first_seq, &events)
}

/// A message of gateway `gateway` with `entries` numbered from `first` on.
fn segment(sequence: u64, gateway: &str, first: u64, entries: &[Entry]) -> Opened {
    let mut bytes = Vec::new();
    write_head(&mut bytes, &Head { incarnation: u64::MAX, first, count: entries.len() as u64 });
    for entry in entries {
        write_entry(&mut bytes, &entry.device, entry.received_ms, None, &entry.payload);
    }
    message(sequence, gateway, bytes)
}

fn message(sequence: u64, gateway: &str, bytes: Vec<u8>) -> Opened {
    let subject = segments(&Source { site: id("plant"), gateway: id(gateway), lane: id("main") }).to_string();
    let logged_ns = (T0 + sequence).cast_signed() * 1_000_000;
    Opened { sequence, logged_ns, subject, content: Content::Plain(Bytes::from(bytes)), pending: 0 }
}

/// A store in a folder of its own.
struct Fixture {
    folder: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&config(&folder)).expect("a new store");
        Fixture { folder, store }
    }

    fn fold(&mut self, messages: &[Opened]) -> Folded {
        self.store.fold(STREAM, 1, messages).expect("folds")
    }

    /// Closes the store and opens it again.
    fn reopened(self) -> Self {
        let Fixture { folder, store } = self;
        drop(store);
        let store = Store::open(&config(&folder)).expect("the same store");
        Fixture { folder, store }
    }

    fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// All events of a device, oldest first.
    fn history(&self, device: &str) -> Vec<StoredEvent> {
        let query = EventQuery {
            device: id(device),
            from_ms: None,
            to_ms: None,
            kind: None,
            order: Order::Ascending,
            limit: usize::MAX,
            body_bytes_max: usize::MAX,
            after: None,
        };
        self.reader().events(&query).expect("reads").map(|page| page.events).unwrap_or_default()
    }
}

fn config(folder: &TempDir) -> Config {
    Config { path: folder.path().join("weir.sqlite") }
}
