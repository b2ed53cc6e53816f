use weir_contract::command::Command;

use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(30);

fn order(number: u64, deadline_ms: u64) -> Order {
    let id = format!("c-{number}");
    let command = Command { id: id.as_str().into(), name: "identify".into(), deadline_ms, args: &[0xa0] };
    let mut payload = [0; 100];
    let len = command.write(&mut payload).unwrap();
    Order::read(number, "dev-1".parse().unwrap(), &payload[..len]).unwrap()
}

#[tokio::test]
async fn an_expired_command_is_put_away_when_what_tells_it_is_on_disk_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(folder.path()).unwrap();
    let expires = order(1, 500);
    store.keep(&expires).unwrap();
    let limits = Limits { per_device: 9, pending: 9, bytes: 9_999, retry_ms: 1, retry_ms_max: 1 };
    let (journal, _entries) = journal::channel();
    let hub = Arc::new(Hub::new(limits, journal, Clock::manual(1_000)));
    hub.restore(vec![expires], &[]);
    let (flushes, mut asked) = mpsc::channel(1);
    let telling = tokio::spawn(tell_expired(Arc::clone(&hub), Arc::new(Mutex::new(store)), flushes));
    let (away, _) = hub.tick();
    assert_eq!(away, Vec::<u64>::new());
    let flushed = timeout(SOON, asked.recv()).await.expect("it asks for that").unwrap();
    // The disk is full: it takes a while.
    sleep(Duration::from_millis(100)).await;
    let (_, left) = Store::open(folder.path()).unwrap();
    assert_eq!(left.waiting.len(), 1, "a gateway that ends now tells it after the next start");
    flushed.send(()).unwrap();
    while Store::open(folder.path()).unwrap().1.ended.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(asked);
    telling.abort();
}
