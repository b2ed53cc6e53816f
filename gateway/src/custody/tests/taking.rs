//! What is taken, what is known for a repetition, when there is room, who is woken.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use weir_contract::Id;

use super::NOW_MS;
use crate::custody::{Committer, Custody, Full, Ticket, Waiter};
use crate::intake::SeqRun;
use crate::spool::tests::read_all;
use crate::spool::{Config, Spool};

const SOON: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_millis(100);

fn start(config: &Config) -> (Custody, Committer) {
    Custody::start(config, NOW_MS).expect("starts")
}

fn device(name: &str) -> Id {
    name.parse().expect("a valid name")
}

/// One client: offers text as uplinks of device d1, boot 7.
struct Client {
    custody: Custody,
    waiter: Arc<Waiter>,
}

impl Client {
    fn new(custody: &Custody) -> Self {
        Self { custody: custody.clone(), waiter: Waiter::new() }
    }

    fn offer(&self, text: &str, first: u32, last: u32) -> Result<Ticket, Full> {
        self.offer_of_boot(7, text, first, last)
    }

    fn offer_of_boot(&self, boot: u64, text: &str, first: u32, last: u32) -> Result<Ticket, Full> {
        let run = SeqRun { boot, first, last };
        self.custody.gather().offer(&device("d1"), NOW_MS, None, text.as_bytes(), run, &self.waiter)
    }

    async fn stored(&self, ticket: Ticket) {
        let wait = async {
            while self.custody.stored() < ticket {
                self.waiter.notified().await;
            }
        };
        timeout(SOON, wait).await.expect("stored in time");
    }
}

#[tokio::test]
async fn an_uplink_is_stored_and_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = start(&Config::new(folder.path()));
    let client = Client::new(&custody);
    let mut changed = custody.spool().changed();
    client.stored(client.offer("one", 1, 1).expect("room")).await;
    timeout(SOON, changed.wait_for(|&next| next == 2)).await.expect("in time").expect("readers are told");
    assert_eq!(read_all(custody.spool(), 1), ["one"]);
    assert_eq!(custody.spool().try_tail(1, 1).expect("in memory").len(), 1);
    committer.stop().expect("stops");
}

#[tokio::test]
async fn a_repetition_is_acknowledged_and_not_stored_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = start(&Config::new(folder.path()));
    let client = Client::new(&custody);
    let ticket = client.offer("1-3", 1, 3).expect("room");
    // In the same batch or after it: what it repeats decides.
    assert_eq!(client.offer("1-3", 1, 3), Ok(ticket));
    client.stored(ticket).await;
    let other = Client::new(&custody);
    let again = other.offer("2-3", 2, 3).expect("room");
    assert_eq!(again, ticket);
    timeout(SOON, other.waiter.notified()).await.expect("woken, though there is no commit to wait for");
    assert!(custody.stored() >= again);
    committer.stop().expect("stops");
    assert_eq!(read_all(custody.spool(), 1), ["1-3"]);
}

#[tokio::test]
async fn an_uplink_with_any_event_that_was_not_taken_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = start(&Config::new(folder.path()));
    let client = Client::new(&custody);
    let runs = [(1, 3), (7, 9), (4, 6), (1, 9), (3, 7), (9, 10), (10, 10)];
    let is_new = [true, true, true, true, false, true, false];
    let mut expected = Vec::new();
    for ((first, last), is_new) in runs.into_iter().zip(is_new) {
        let text = format!("{first}-{last}");
        client.offer(&text, first, last).expect("room");
        if is_new {
            expected.push(text);
        }
    }
    client.offer_of_boot(8, "another boot", 1, 3).expect("room");
    expected.push("another boot".to_owned());
    committer.stop().expect("stops");
    assert_eq!(read_all(custody.spool(), 1), expected);
}

#[tokio::test]
async fn what_a_full_batch_refuses_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = start(&Config::new(folder.path()));
    let client = Client::new(&custody);
    let text = "x".repeat(60_000);
    let mut taken = 0;
    let refused = {
        let mut gather = custody.gather();
        loop {
            let run = SeqRun { boot: 7, first: taken + 1, last: taken + 1 };
            match gather.offer(&device("d1"), NOW_MS, None, text.as_bytes(), run, &client.waiter) {
                Ok(_) => taken += 1,
                Err(full) => break full,
            }
        }
    };
    assert_eq!(refused, Full::Batch);
    timeout(SOON, custody.room()).await.expect("in time").expect("no failure");
    let ticket = client.offer("the refused one", taken + 1, taken + 1).expect("room again");
    client.stored(ticket).await;
    let texts = read_all(custody.spool(), 1);
    assert_eq!(texts.len(), taken as usize + 1);
    assert_eq!(texts.last().map(String::as_str), Some("the refused one"));
    committer.stop().expect("stops");
}

#[tokio::test]
async fn a_full_spool_refuses_stays_within_its_budget_and_resumes_when_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { bytes_max: 24 << 20, ..super::child::config(folder.path()) };
    let (custody, committer) = start(&config);
    let client = Client::new(&custody);
    let text = "x".repeat(50_000);
    let mut seq = 0;
    for _ in 0..3 {
        let mut last = None;
        loop {
            match client.offer(&text, seq + 1, seq + 1) {
                Ok(ticket) => {
                    seq += 1;
                    last = Some(ticket);
                }
                // When what is gathered has been stored, its real size is known: there may be a little room again.
                Err(full) => match timeout(A_WHILE, custody.room()).await {
                    Ok(room) => room.expect("no failure"),
                    Err(_) if full == Full::Spool => break,
                    Err(_) => {}
                },
            }
        }
        client.stored(last.expect("something fitted")).await;
        let (used, budget) = (bytes_in(folder.path()), config.bytes_max);
        assert!(used <= budget, "{used} bytes on disk, {budget} allowed");
        assert!(used > budget / 2, "and the budget is used: {used} of {budget}");
        assert_eq!(custody.spool().next_number(), u64::from(seq) + 1, "nothing taken was dropped");
        let next = custody.spool().next_number();
        custody.spool().release(next, 1).expect("all is there");
        timeout(SOON, custody.room()).await.expect("room when delivered").expect("no failure");
    }
    committer.stop().expect("stops");
}

#[tokio::test]
async fn a_connection_is_woken_once_per_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = start(&Config::new(folder.path()));
    let client = Client::new(&custody);
    let mut ticket = None;
    {
        let mut gather = custody.gather();
        for seq in 1..=20 {
            let run = SeqRun { boot: 7, first: seq, last: seq };
            ticket = gather.offer(&device("d1"), NOW_MS, None, b"x", run, &client.waiter).ok();
        }
        assert_eq!(
            gather.gathering.as_ref().map(|gathering| gathering.waiters.len()),
            Some(1),
            "listed once"
        );
    }
    client.stored(ticket.expect("room")).await;
    timeout(A_WHILE, client.waiter.notified()).await.expect_err("not woken again");
    committer.stop().expect("stops");
}

#[tokio::test]
async fn a_commit_delay_lets_uplinks_share_a_sync() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = start(&Config { commit_delay_ms: 200, ..Config::new(folder.path()) });
    let client = Client::new(&custody);
    let first = client.offer("a", 1, 1).expect("room");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = client.offer("b", 2, 2).expect("room");
    assert_eq!(first, second);
    client.stored(second).await;
    assert_eq!(custody.stored().ordinal(), 1);
    committer.stop().expect("stops");
}

#[tokio::test]
async fn stopping_stores_what_was_taken_and_takes_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { commit_delay_ms: 10_000, ..Config::new(folder.path()) };
    let (custody, committer) = start(&config);
    let client = Client::new(&custody);
    let ticket = client.offer("a", 1, 1).expect("room");
    tokio::task::spawn_blocking(|| committer.stop())
        .await
        .expect("joins")
        .expect("stops, and does not wait for more");
    assert!(custody.stored() >= ticket);
    assert_eq!(client.offer("b", 2, 2), Err(Full::Closed));
    timeout(SOON, custody.room()).await.expect("nobody is left waiting").expect("no failure");
    drop((client, custody));
    let (spool, _writer) = Spool::open(&config, NOW_MS).expect("the folder is free");
    assert_eq!(read_all(&spool, 1), ["a"]);
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
