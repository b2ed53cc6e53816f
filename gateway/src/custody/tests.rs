use std::time::Duration;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

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
async fn an_offered_uplink_is_stored_and_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (custody, committer) =
        Custody::start(&spool::Config::new(folder.path().join("spool")), NOW_MS).expect("starts");
    let waiter = Waiter::new();
    let ticket =
        custody.gather().offer(&device("d1"), NOW_MS, None, b"one", run(7, 1, 1), &waiter).expect("room");
    stored(&custody, ticket, &waiter).await;
    let records = custody.spool().read_from(1, 1000).expect("readable");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].first, records[0].count), (1, 1));
    committer.stop().expect("stops");
}
