use std::sync::Arc;

use weir_contract::segment::write_entry;
use weir_contract::uplink::{Event, Header, write};

use super::*;

const AFTER: Duration = Duration::from_secs(10);

/// An uplink of one event of this kind, about a hundred bytes long as an entry.
fn uplink(seq: u32, kind: &str) -> Vec<u8> {
    let header = Header { boot: 1, now: None, epoch: None, via: None };
    // A map with one text of 64 bytes.
    let body = [&[0xa1, 0x61, b'x', 0x78, 64][..], &[b'.'; 64]].concat();
    let event = Event { seq, at: 5, kind: kind.parse().unwrap(), version: 1, body: &body };
    let mut bytes = vec![0; 256];
    let len = write(&mut bytes, &header, [event].into_iter()).unwrap();
    bytes.truncate(len);
    bytes
}

/// Records of these many uplinks each, from number 1; those in `urgent` are `limit-crossed`.
fn records(counts: &[u32], urgent: &[u64]) -> Vec<Arc<Record>> {
    let device = "sensor-1".parse().unwrap();
    let mut number = 1;
    let mut record = |count: &u32| {
        let first = number;
        let mut entries = Vec::new();
        for _ in 0..*count {
            let kind = if urgent.contains(&number) { "limit-crossed" } else { "reading-taken" };
            write_entry(&mut entries, &device, 1_000, None, &uplink(u32::try_from(number).unwrap(), kind));
            number += 1;
        }
        Arc::new(Record { first, count: *count, received_ms: 1_000, entries: entries.into() })
    };
    counts.iter().map(&mut record).collect()
}

/// Of an uplink among the newest: the larger its number, the longer it is.
fn entry_bytes() -> usize {
    records(&[300; 3], &[])[2].entries.len() / 300
}

/// Everything may be urgent that is a crossed limit, and half of what `main` sends goes ahead.
fn ahead() -> Ahead {
    Ahead::new(AFTER, 50, vec!["limit-crossed".parse().unwrap()])
}

/// The numbers of each run, read from its entries' own sequence numbers.
fn numbers(pick: &Pick) -> Vec<Vec<u64>> {
    let run = |run: &Vec<Record>| {
        let mut numbers = Vec::new();
        for part in run {
            assert_eq!(part.first, numbers.last().map_or(part.first, |last| last + 1), "a run has no gap");
            let mut rest = &part.entries[..];
            for number in part.first..part.end() {
                let (entry, len) = first_entry(rest).unwrap();
                assert_eq!(u64::from(Uplink::read(&entry.payload).unwrap().first_seq()), number);
                numbers.push(number);
                rest = &rest[len..];
            }
            assert!(rest.is_empty());
        }
        numbers
    };
    pick.runs.iter().map(run).collect()
}

#[test]
fn nothing_goes_ahead_before_the_backlog_has_lasted() {
    let mut ahead = Ahead::new(AFTER, 25, Vec::new());
    assert!(!ahead.is_due(AFTER / 2) && ahead.is_due(AFTER));
    ahead.in_step(40, AFTER);
    assert!(!ahead.is_due(AFTER + AFTER / 2) && ahead.is_due(2 * AFTER));
    assert_eq!(ahead.from(), 40);
    assert!(!Ahead::new(AFTER, 0, Vec::new()).is_due(9 * AFTER), "no share: switched off");
}

#[test]
fn what_fits_goes_ahead_whole_and_only_once() {
    let mut ahead = ahead();
    let pick = ahead.pick(&records(&[3, 4, 3], &[]), 1, 64 * 1024);
    assert_eq!((numbers(&pick), pick.left_out), (vec![(1..=10).collect()], 0));
    let pick = ahead.pick(&records(&[3, 4, 3, 2], &[]), 1, 64 * 1024);
    assert_eq!((numbers(&pick), pick.left_out), (vec![vec![11, 12]], 0));
    assert_eq!(ahead.pick(&records(&[3, 4, 3, 2], &[]), 1, 64 * 1024), Pick::default());
}

#[test]
fn what_main_sends_now_does_not_go_ahead_of_it() {
    let pick = ahead().pick(&records(&[3, 4, 3], &[]), 6, 64 * 1024);
    assert_eq!(numbers(&pick), [[6, 7, 8, 9, 10]]);
}

#[test]
fn the_newest_go_first_when_not_all_fit() {
    let pick = ahead().pick(&records(&[300; 3], &[]), 1, 2 * 100 * entry_bytes());
    assert_eq!((numbers(&pick), pick.left_out), (vec![(801..=900).collect()], 800));
}

#[test]
fn urgent_ones_go_before_newer_ones() {
    let urgent = [17, 150, 151, 880];
    let pick = ahead().pick(&records(&[300; 3], &urgent), 1, 2 * 100 * entry_bytes());
    let picked = numbers(&pick);
    assert_eq!(&picked[..2], [vec![17], vec![150, 151]]);
    assert_eq!((picked[2].first(), picked[2].last(), picked.len()), (Some(&804), Some(&900), 3));
}

#[test]
fn urgent_ones_everywhere_do_not_take_the_link() {
    let urgent: Vec<u64> = (1..=900).step_by(2).collect();
    let pick = ahead().pick(&records(&[300; 3], &urgent), 1, 2 * 100 * entry_bytes());
    let picked = numbers(&pick);
    assert!(picked.len() <= RUNS_MAX, "{picked:?}");
    assert_eq!(picked.iter().flatten().last(), Some(&900));
    assert!(picked.iter().map(Vec::len).sum::<usize>() <= 100);
}

#[test]
fn whatever_there_is_the_share_and_the_order_are_kept() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let counts: Vec<u32> = (0..random.usize(0..6)).map(|_| random.u32(1..40)).collect();
        let total: u64 = counts.iter().copied().map(u64::from).sum();
        let urgent: Vec<u64> = (0..random.usize(0..8)).map(|_| random.u64(1..=total + 1)).collect();
        let (main_end, main_bytes) = (random.u64(1..=total + 2), random.usize(0..40_000));
        let mut ahead = ahead();
        let pick = ahead.pick(&records(&counts, &urgent), main_end, main_bytes);
        let picked = numbers(&pick);
        let flat: Vec<u64> = picked.iter().flatten().copied().collect();
        assert!(flat.is_sorted() && flat.iter().all(|number| (main_end..=total).contains(number)));
        assert!(flat.windows(2).all(|pair| pair[0] < pair[1]) && picked.len() <= RUNS_MAX);
        let bytes: usize = pick.runs.iter().flatten().map(|part| part.entries.len()).sum();
        assert!(bytes <= (main_bytes / 2).max(BYTES_MIN), "{bytes} beside {main_bytes}");
        let wanted = (total + 1).saturating_sub(main_end);
        assert_eq!(flat.len() as u64 + pick.left_out, wanted, "each is picked or counted");
    }
}
