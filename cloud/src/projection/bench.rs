//! How fast the projection is: the real way from compressed segments to committed rows, without a network.

use std::path::Path;
use std::time::{Duration, Instant};

use weir_contract::body::{Body, Scalar};
use weir_contract::segment::{Head, SEGMENT_LEN_MAX, write_entry, write_head};
use weir_contract::subject::{ENCODING_ZSTD, STREAM, Source, segments};
use weir_contract::uplink::{self, Event, Header};
use weir_contract::{Id, Text};

use crate::log::{Message, Opener};
use crate::store::{self, Config, Store};

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Devices, taking turns.
    pub devices: u32,
    /// Numeric readings in one uplink.
    pub events_per_uplink: u32,
    /// Uplinks in one segment, as far as they fit.
    pub uplinks_per_segment: u32,
    /// Segments in one transaction.
    pub segments_per_transaction: usize,
    /// Events in all, at least.
    pub events: u64,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Events folded.
    pub events: u64,
    /// In this time: decompressing, decoding, folding, writing. Making the segments is not counted.
    pub took: Duration,
    /// Time on a core, of what `took` counts: what it would take were nobody else using the machine, and the disk no
    /// hindrance. Zero where the system does not tell.
    pub on_core: Duration,
    /// Bytes of the database, when it is closed.
    pub file_bytes: u64,
    /// Bytes of compressed segments.
    pub log_bytes: u64,
}

impl Measured {
    /// Events per second of `time`.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    pub fn events_per(&self, time: Duration) -> f64 {
        self.events as f64 / time.as_secs_f64()
    }
}

/// Folds `shape` into a new store in `folder`, on the calling thread alone.
///
/// # Errors
/// The store cannot be written.
pub fn run(shape: Shape, folder: &Path) -> Result<Measured, store::Error> {
    let config = Config { path: folder.join("bench.sqlite") };
    let mut store = Store::open(&config)?;
    let mut opener =
        Opener::new().map_err(|source| store::Error::Lock { file: config.path.clone(), source })?;
    let mut load = Load::new(shape);
    let none = Duration::ZERO;
    let mut measured = Measured { events: 0, took: none, on_core: none, file_bytes: 0, log_bytes: 0 };
    while measured.events < shape.events {
        let messages: Vec<Message> = (0..shape.segments_per_transaction).map(|_| load.message()).collect();
        measured.log_bytes += messages.iter().map(|message| message.payload.len() as u64).sum::<u64>();
        let (began, began_on_core) = (Instant::now(), on_core());
        let opened: Vec<_> = messages.into_iter().map(|message| opener.open(message)).collect();
        measured.events += store.fold(STREAM, 1, &opened)?.events;
        measured.took += began.elapsed();
        measured.on_core += on_core().saturating_sub(began_on_core);
    }
    drop(store);
    measured.file_bytes = std::fs::metadata(&config.path).map_or(0, |metadata| metadata.len());
    Ok(measured)
}

/// How long this thread has been on a core: Linux, `/proc/PID/schedstat`, first number.
fn on_core() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = told.split_whitespace().next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

/// Makes segments: devices take turns with temperatures, one every 100 ms of their time.
struct Load {
    shape: Shape,
    names: Vec<Id>,
    next_seq: Vec<u32>,
    turn: usize,
    number: u64,
    sequence: u64,
    now_ms: u64,
    buffer: Vec<u8>,
}

impl Load {
    fn new(shape: Shape) -> Load {
        let names = (0..shape.devices)
            .map(|device| format!("device-{device:06}").parse().expect("letters and digits"))
            .collect();
        let next_seq = vec![1; shape.devices as usize];
        let buffer = vec![0; uplink::UPLINK_LEN_MAX];
        Load { shape, names, next_seq, turn: 0, number: 1, sequence: 0, now_ms: 1_800_000_000_000, buffer }
    }

    fn message(&mut self) -> Message {
        let mut entries = Vec::new();
        let mut count = 0;
        while count < u64::from(self.shape.uplinks_per_segment) && entries.len() < SEGMENT_LEN_MAX - 32 * 1024
        {
            let (device, payload) = self.uplink();
            write_entry(&mut entries, &device, self.now_ms, None, &payload);
            count += 1;
        }
        let mut segment = Vec::new();
        write_head(&mut segment, &Head { incarnation: 1, first: self.number, count });
        segment.extend(entries);
        self.number += count;
        self.sequence += 1;
        let main = "main".parse().expect("letters");
        let source =
            Source { site: main, gateway: "gateway-1".parse().expect("letters and digits"), lane: main };
        Message {
            sequence: self.sequence,
            logged_ns: self.now_ms.cast_signed() * 1_000_000,
            subject: segments(&source).to_string(),
            encoding: Some(ENCODING_ZSTD.to_owned()),
            payload: zstd::bulk::compress(&segment, 1).expect("memory for a segment").into(),
            pending: 0,
        }
    }

    fn uplink(&mut self) -> (Id, Vec<u8>) {
        let (device, first) = (self.turn, self.next_seq[self.turn]);
        self.turn = (self.turn + 1) % self.names.len();
        if self.turn == 0 {
            self.now_ms += 100 * u64::from(self.shape.events_per_uplink);
        }
        self.next_seq[device] += self.shape.events_per_uplink;
        let seqs = first..self.next_seq[device];
        let bodies: Vec<[u8; 64]> = seqs.clone().map(|seq| body(device, seq)).collect();
        let events: Vec<Event<'_>> = seqs
            .zip(&bodies)
            .map(|(seq, body)| Event {
                seq,
                at: u64::from(seq) * 100,
                kind: weir_contract::body::kind::READING_TAKEN.parse().expect("a kind"),
                version: 1,
                body: &body[1..][..usize::from(body[0])],
            })
            .collect();
        let now = u64::from(self.next_seq[device]) * 100;
        let header =
            Header { boot: 0x1234_5678_9abc + device as u64, now: Some(now), epoch: None, via: None };
        let len = uplink::write(&mut self.buffer, &header, events.into_iter()).expect("few events fit");
        (self.names[device], self.buffer[..len].to_vec())
    }
}

/// A reading's body, and its length in front.
fn body(device: usize, seq: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    let value = Scalar::Float(20.0 + f64::from(seq % 977) * 0.01 + device as f64 * 0.1);
    let sensor = "temperature".parse().expect("letters");
    let reading = Body::ReadingTaken { sensor, value, unit: Some(Text::from("Cel")) };
    let len = reading.write(&mut bytes[1..]).expect("a reading is shorter");
    bytes[0] = u8::try_from(len).expect("a reading is shorter");
    bytes
}
