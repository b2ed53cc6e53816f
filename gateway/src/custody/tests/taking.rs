//! What is taken, what is taken for a repetition, who is woken.

use std::time::Duration;

use super::NOW_MS;
use crate::custody::{Custody, Ticket, Waiter};
use crate::intake::SeqRun;
use crate::spool;
use crate::spool::tests::read_all;
use weir_contract::Id;

fn device(name: &str) -> Id {
    name.parse().expect("a valid name")
}

fn run(boot: u64, first: u32, last: u32) -> SeqRun {
    SeqRun { boot, first, last }
}

async fn stored(custody: &Custody, ticket: Ticket, waiter: &Waiter) {
    let wait = async {
        while custody.stored() < ticket {
            waiter.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("stored in time");
}

#[tokio::test]
async fn an_uplink_is_stored_and_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) = Custody::start(&spool::Config::new(folder.path()), NOW_MS).expect("starts");
    let waiter = Waiter::new();
    let ticket =
        custody.gather().offer(&device("d1"), NOW_MS, None, b"one", run(7, 1, 1), &waiter).expect("room");
    stored(&custody, ticket, &waiter).await;
    assert_eq!(read_all(custody.spool(), 1), ["one"]);
    committer.stop().expect("stops");
}
