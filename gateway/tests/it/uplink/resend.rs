//! Sending again on request what the stream has acknowledged already.

use weir_gateway::uplink::{Plan, Refused};

use super::harness::{Gateway, config, folder, numbers};
use crate::nats::Nats;
use crate::proxy::Proxy;
use crate::wait::until;

/// How often each of `1..=last` is in the stream; the last time round in order.
async fn copies(nats: &Nats, last: u32) -> Vec<usize> {
    let all = numbers(&nats.segments().await);
    (1..=last).map(|number| all.iter().filter(|&&found| found == number).count()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_sent_again_from_a_number_on_as_often_as_asked() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=30).await;
    gateway.all_delivered().await;
    let mut resend = gateway.uplink.resend();
    for round in 1..=2 {
        let plan = resend.ask(1).await.expect("it is kept");
        assert_eq!(plan, Plan { again: 1..31, not_kept: 1..1 });
        resend.done(&plan).await.expect("it runs");
        assert_eq!(copies(&nats, 30).await, vec![round + 1; 30]);
    }
    let plan = resend.ask(21).await.expect("it is kept");
    gateway.take(31).await;
    resend.done(&plan).await.expect("it runs");
    gateway.all_delivered().await;
    let found = copies(&nats, 31).await;
    assert_eq!((&found[..20], &found[20..30], found[30]), (&[3; 20][..], &[4; 10][..], 1));
    // A restart neither forgets nor repeats anything.
    gateway.stop().await;
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take(32).await;
    gateway.all_delivered().await;
    assert_eq!(copies(&nats, 32).await[30..], [1, 1]);
    assert_eq!((gateway.status().again, gateway.status().gone), (None, 0));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_was_never_given_out_is_refused_and_what_is_still_to_come_is_awaited() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=5).await;
    gateway.all_delivered().await;
    let resend = gateway.uplink.resend();
    assert_eq!(resend.ask(6).await, Err(Refused::NotGivenOut { from: 6, next: 6 }));
    assert_eq!(resend.ask(u64::MAX).await, Err(Refused::NotGivenOut { from: u64::MAX, next: 6 }));
    assert_eq!(copies(&nats, 5).await, [1; 5]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_any_more_is_told_and_is_no_loss() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::with_60_delivered_and_the_oldest_gone(folder.path(), config(&nats.url())).await;
    let mut resend = gateway.uplink.resend();
    let plan = resend.ask(1).await.expect("some of it is kept");
    let oldest = plan.again.start;
    assert_eq!(plan, Plan { again: oldest..61, not_kept: 1..oldest });
    assert!(oldest > 1);
    resend.done(&plan).await.expect("it runs");
    let kept_from = usize::try_from(oldest).expect("small") - 1;
    let found = copies(&nats, 60).await;
    assert!(
        found[..kept_from].iter().all(|&count| count == 1)
            && found[kept_from..].iter().all(|&count| count == 2)
    );
    assert_eq!(gateway.status().gone, 0);
    gateway.stop().await;
}

/// The connection breaks before the first segment goes, after one has arrived unacknowledged, and in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_resend_goes_on_and_leaves_nothing_out() {
    let nats = Nats::start().await;
    let proxy = Proxy::start(nats.port()).await;
    let folder = folder();
    let gateway = Gateway::start(
        folder.path(),
        weir_gateway::uplink::Config { segment_bytes_max: 1024, ..config(&proxy.url()) },
    );
    gateway.take_all(1..=200).await;
    gateway.all_delivered().await;
    let mut resend = gateway.uplink.resend();

    proxy.pass_answers(false);
    let plan = resend.ask(1).await.expect("it is kept");
    until("the first of it has arrived", async || copies(&nats, 1).await[0] == 2).await;
    proxy.pass_answers(true);
    for _ in 0..5 {
        proxy.cut_and_wait().await;
    }
    resend.done(&plan).await.expect("it runs");
    let found = copies(&nats, 200).await;
    assert_eq!(found, vec![2; 200], "a lost acknowledgement doubles nothing here either");

    // It is asked for while nothing arrives any more: the stream still ends with what it had.
    proxy.cut();
    let asked = tokio::spawn(async move { (resend.ask(150).await, resend) });
    for _ in 0..5 {
        proxy.cut_and_wait().await;
    }
    let (plan, mut resend) = asked.await.expect("no panic");
    resend.done(&plan.expect("it is kept")).await.expect("it runs");
    let found = copies(&nats, 200).await;
    assert_eq!((&found[..149], &found[149..]), (&[2; 149][..], &[3; 51][..]));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_number_since_a_time_is_found() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    for number in 1..=50 {
        // Taken at 1,000 times its number.
        gateway.take_at(number, u64::from(number) * 1_000).await;
    }
    let spool = gateway.custody.spool();
    for (unix_ms, number) in [(0, 1), (1_000, 1), (1_001, 2), (25_500, 26), (50_000, 50), (50_001, 51)] {
        assert_eq!(spool.number_taken_at(unix_ms).expect("it can be read"), number, "at {unix_ms}");
    }
    gateway.stop().await;
}
