//! The spool against a model: a list of texts, and how far it is delivered.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::{NOW_MS, append, config, copy, read_what_is_there};
use crate::spool::{Config, Spool, Writer};

#[derive(Debug, Clone)]
enum Step {
    /// Store a record with uplinks of these lengths.
    Append(Vec<usize>),
    /// Release this part (in 256ths) of what waits.
    Release(u8),
    /// Read from this part of what is kept.
    Read(u8),
    /// Stop and start.
    Restart,
    /// Go on with a copy taken while the spool was in use.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(prop_oneof![3 => 10_usize..300, 1 => 300_usize..60_000], 1..30).prop_map(Step::Append),
        3 => any::<u8>().prop_map(Step::Release),
        3 => any::<u8>().prop_map(Step::Read),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    base: tempfile::TempDir,
    config: Config,
    open: Option<(Arc<Spool>, Writer)>,
    stored: Vec<String>,
    delivered: u64,
    crashes: usize,
}

impl Run {
    fn new(keep_delivered_bytes: u64) -> Self {
        let base = tempfile::tempdir().expect("a folder");
        let config = Config { keep_delivered_bytes, ..config(base.path()) };
        let open = Some(Spool::open(&config, NOW_MS).expect("opens"));
        Self { base, config, open, stored: Vec::new(), delivered: 1, crashes: 0 }
    }

    fn spool(&self) -> &Spool {
        &self.open.as_ref().expect("open").0
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(lengths) => self.append(lengths),
            Step::Release(part) => {
                let waiting = self.spool().next_number() - self.delivered;
                self.delivered += waiting * u64::from(*part) / 255;
                self.spool().release(self.delivered, self.delivered * 2).expect("it is there");
            }
            Step::Read(part) => {
                let (oldest, next) = (self.spool().oldest_number(), self.spool().next_number());
                self.check_from(oldest + (next - oldest) * u64::from(*part) / 255);
            }
            Step::Restart => {
                let (spool, writer) = self.open.take().expect("open");
                writer.close();
                drop(spool);
                self.start();
                assert_eq!(
                    self.spool().delivered().number,
                    self.delivered,
                    "a stop writes down what is delivered"
                );
            }
            Step::Crash => {
                self.crashes += 1;
                let copied: PathBuf = self.base.path().join(format!("crash-{}", self.crashes));
                copy(&self.config.folder, &copied);
                drop(self.open.take());
                self.config.folder = copied;
                self.start();
                let delivered = self.spool().delivered().number;
                assert!(delivered <= self.delivered, "what is written down is never ahead");
                self.delivered = delivered;
            }
        }
        assert_eq!(self.spool().next_number(), self.stored.len() as u64 + 1);
        assert!(self.spool().oldest_number() <= self.delivered, "what waits is kept");
    }

    fn append(&mut self, lengths: &[usize]) {
        let first = self.stored.len();
        let texts = lengths.iter().zip(first..).map(|(&length, at)| format!("{at} {}", "x".repeat(length)));
        // As custody does: what does not fit goes into another record.
        let (_, writer) = self.open.as_mut().expect("open");
        for text in texts {
            self.stored.push(text);
        }
        let mut rest = &self.stored[first..];
        while !rest.is_empty() {
            let fits = rest.iter().scan(0, |bytes, text| {
                *bytes += text.len() + 40;
                Some(*bytes)
            });
            let count = fits.take_while(|&bytes| bytes < crate::spool::RECORD_BYTES_MAX).count().max(1);
            append(writer, &rest[..count]);
            rest = &rest[count..];
        }
    }

    fn start(&mut self) {
        self.open = Some(Spool::open(&self.config, NOW_MS).expect("opens"));
    }

    fn check_from(&self, number: u64) {
        let (texts, missing) = read_what_is_there(self.spool(), number);
        // Deleting may overtake reading what is delivered.
        let delivered = |&(_, to): &(u64, u64)| to <= self.spool().oldest_number();
        assert!(missing.iter().all(delivered), "{missing:?} is missing");
        let expected =
            self.stored.iter().zip(1_u64..).filter(|(_, at)| texts.iter().any(|(number, _)| number == at));
        assert!(
            texts.iter().map(|(_, text)| text).eq(expected.map(|(text, _)| text)),
            "each number is what it was"
        );
        let waiting: u64 = texts.iter().filter(|(number, _)| *number >= self.delivered).count() as u64;
        assert_eq!(waiting, self.spool().next_number() - number.max(self.delivered), "everything that waits");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_spool_is_a_list_whatever_happens_to_it(
        keep in prop_oneof![Just(0), Just(3 << 20)],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut run = Run::new(keep);
        for step in &steps {
            run.step(step);
        }
        run.check_from(run.spool().oldest_number());
    }
}
