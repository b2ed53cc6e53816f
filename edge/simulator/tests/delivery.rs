//! `run` and `load` deliver what they say they deliver, also when connections break.

mod support {
    pub mod sink;
}

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, FromArgMatches};
use support::sink::{Behaviour, Sink};
use weir_contract::body::Body;
use weir_contract::uplink::Uplink;
use weir_simulator::load::{self, LoadOptions};
use weir_simulator::manifest::Manifest;
use weir_simulator::run::{self, RunOptions};

fn options<O: Args + FromArgMatches>(sink: &Sink, arguments: &str) -> O {
    let gateway = format!("mqtt://{}", sink.address);
    let all = ["test", "--gateway", &gateway].into_iter().chain(arguments.split_whitespace());
    let matches =
        O::augment_args(clap::Command::new("test")).try_get_matches_from(all).expect("good arguments");
    O::from_arg_matches(&matches).expect("good arguments")
}

/// What a sink has, by boot: stored numbers, and numbers told as lost. Fails if an event was ever told in two ways.
#[derive(Default)]
struct Stored {
    events: BTreeMap<(u64, u32), (u64, Vec<u8>)>,
    lost: BTreeSet<(u64, u32)>,
    repeated: usize,
}

impl Stored {
    fn in_sink(sink: &Sink) -> Self {
        let mut stored = Self::default();
        for payload in sink.uplinks() {
            let uplink = Uplink::read(&payload).expect("an uplink as the contract says");
            for event in uplink.events() {
                let fact = (event.at, event.body.to_vec());
                let known = stored.events.insert((uplink.header.boot, event.seq), fact.clone());
                stored.repeated += usize::from(known.is_some());
                assert!(known.is_none_or(|known| known == fact), "an event never changes");
                let body = Body::read(&event.kind, event.version, event.body).expect("the body of its kind");
                if let Some(Body::EventsLost { boot, from, to, .. }) = body {
                    stored.lost.extend((from..=to).map(|seq| (boot, seq)));
                }
            }
        }
        stored
    }

    /// Emitted = stored + ledger, each number in one of them.
    fn assert_accounts_for(&self, manifest: &Manifest) {
        let mut emitted = 0;
        for boot in manifest.devices.iter().flat_map(|device| &device.boots) {
            for seq in 1..=boot.emitted {
                let number = (boot.boot, seq);
                let (stored, lost) = (self.events.contains_key(&number), self.lost.contains(&number));
                assert!(stored != lost, "{number:?}: stored {stored}, lost {lost}");
                emitted += 1;
            }
        }
        assert_eq!(emitted, self.events.len() + self.lost.len(), "nothing else is in the sink");
    }
}

#[test]
fn a_load_that_ends_acknowledged_has_arrived() {
    let sink = Sink::start(Behaviour { remember: true, ..Behaviour::default() });
    let options: LoadOptions = options(&sink, "--uplinks 20011 --clients 7 --batch 3 --threads 2 --seed 5");
    let (manifest, summary) = load::run(&options).expect("a load");
    assert_eq!((summary.acknowledged, summary.unacknowledged, manifest.emitted()), (20_011, 0, 60_033));
    let stored = Stored::in_sink(&sink);
    stored.assert_accounts_for(&manifest);
    assert_eq!(stored.repeated, 0);
}

#[test]
fn a_load_publishes_again_what_a_broken_connection_left_unacknowledged() {
    let sink = Sink::start(Behaviour { remember: true, close_after: Some(700) });
    let options: LoadOptions = options(&sink, "--uplinks 10000 --clients 3 --window 20 --drain 60");
    let (manifest, summary) = load::run(&options).expect("a load");
    assert_eq!((summary.acknowledged, summary.unacknowledged), (10_000, 0));
    assert!(summary.troubles >= 12 && summary.again >= summary.troubles, "{summary:?}");
    let stored = Stored::in_sink(&sink);
    stored.assert_accounts_for(&manifest);
    assert!(
        stored.repeated as u64 >= summary.troubles,
        "the last publish of each connection was stored before"
    );
}

#[test]
fn a_paced_load_keeps_its_pace() {
    let sink = Sink::start(Behaviour::default());
    let options: LoadOptions = options(&sink, "--clients 50 --rate 2000 --seconds 1");
    let (_, summary) = load::run(&options).expect("a load");
    assert!((1..=2050).contains(&summary.sent), "{} in a second, never more than 2000/s", summary.sent);
    assert_eq!(summary.unacknowledged, 0);
}

#[test]
fn the_same_seed_gives_the_same_devices_boots_and_values() {
    let run = || {
        let sink = Sink::start(Behaviour { remember: true, ..Behaviour::default() });
        let options: LoadOptions = options(&sink, "--uplinks 100 --clients 2 --seed 77");
        let (manifest, _) = load::run(&options).expect("a load");
        let stored = Stored::in_sink(&sink);
        let bodies: Vec<_> = stored.events.into_iter().map(|(number, (_, body))| (number, body)).collect();
        (manifest, bodies)
    };
    assert_eq!(run(), run());
}

fn run_devices(options: RunOptions) -> (Manifest, run::Summary) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(run::run(options)).expect("a run");
    runtime.shutdown_background();
    done
}

#[test]
fn devices_deliver_everything_whatever_goes_wrong() {
    let sink = Sink::start(Behaviour { remember: true, close_after: Some(6) });
    let faults = "reconnects=30,drops=60,silences=20,boots=40,duplicates=0.2,skewed=0.5";
    let arguments = format!(
        "--devices 20 --rate 30 --seconds 4 --batch 4 --linger-ms 50 --profile mixed --faults {faults}"
    );
    let (manifest, summary) = run_devices(options(&sink, &arguments));
    println!("seed {}", summary.seed);
    assert_eq!((summary.unacknowledged, summary.lost), (0, 0));
    assert_eq!(summary.acknowledged, manifest.emitted());
    let all =
        [summary.faults.reconnects, summary.faults.drops, summary.faults.boots, summary.faults.duplicates];
    assert!(all.into_iter().all(|count| count > 0) && summary.troubles > 0, "{summary:?}");
    let stored = Stored::in_sink(&sink);
    stored.assert_accounts_for(&manifest);
    assert!(stored.lost.is_empty() && stored.repeated > 0);
}

#[test]
fn full_outboxes_tell_what_they_lost() {
    let sink = Sink::start(Behaviour { remember: true, close_after: Some(10) });
    let arguments = "--devices 5 --rate 200 --seconds 3 --batch 4 --linger-ms 20 --outbox-bytes 700 --faults drops=60,boots=30";
    let (manifest, summary) = run_devices(options(&sink, arguments));
    println!("seed {}", summary.seed);
    assert!(summary.lost > 0 && summary.unacknowledged == 0, "{summary:?}");
    let stored = Stored::in_sink(&sink);
    stored.assert_accounts_for(&manifest);
    assert_eq!(stored.lost.len() as u64, summary.lost);
    assert_eq!(summary.acknowledged + summary.lost, manifest.emitted());
}

#[test]
fn what_nobody_acknowledges_is_told_as_such() {
    let sink = Sink::start(Behaviour { remember: true, close_after: Some(1) });
    let arguments = "--devices 3 --rate 20 --seconds 1 --drain 0.5";
    let (manifest, summary) = run_devices(options(&sink, arguments));
    assert_eq!((summary.acknowledged, summary.unacknowledged), (0, manifest.emitted()));
    assert!(summary.emitted >= 30 && manifest.unacknowledged() == summary.emitted, "{summary:?}");
}
