//! The uplink against a real nats-server: every promise it makes, and everything that can go wrong on the way.

mod harness;
mod identity;
mod refusing;
mod resend;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::DiscardPolicy;
use tokio::time::{sleep, timeout};
use weir_contract::subject::STREAM;
use weir_contract::uplink::Uplink as ReadUplink;
use weir_gateway::custody::Waiter;
use weir_gateway::intake::SeqRun;
use weir_gateway::uplink::pacing::Kind;
use weir_gateway::uplink::{Config, State};

use self::harness::{Gateway, assert_consecutive, config, folder, numbers, payload, spool_config};
use crate::nats::{A_WHILE, Nats};
use crate::proxy::Proxy;
use crate::wait::until;

const SUBJECT: &str = "weir.1.segments.plant.gw-1.main";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_arrives_in_order_and_once() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=300).await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=300).collect::<Vec<_>>());
    assert_consecutive(&segments);
    assert!(segments.iter().all(|segment| segment.subject == SUBJECT));
    let status = gateway.status();
    assert_eq!((status.state, status.uplinks, status.gone), (State::Up, 300, 0));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_is_merged_into_full_segments() {
    let mut nats = Nats::start().await;
    nats.kill();
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    for number in 1..=1_000 {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(1_000)).as_bytes()).await;
    }
    nats.start_again().await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=1_000).collect::<Vec<_>>());
    assert!(segments.len() <= 10, "1 MB went in {} segments", segments.len());
    gateway.stop().await;
}

/// Kills and restarts both ends while uplinks keep coming.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_nats_and_the_gateway_are_killed_again_and_again() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // An acknowledgement of nats-server does not mean that it has synced, but a killed process loses nothing it has written.
    let mut nats = Nats::start().await;
    let folder = folder();
    let mut gateway = Gateway::start(folder.path(), config(&nats.url()));
    let mut taken = 0;
    for _ in 0..12 {
        let more = random.u32(1..200);
        let kill_at = random.u32(0..more);
        for number in 1..=more {
            gateway.take(taken + number).await;
            if number == kill_at {
                match random.u8(..3) {
                    0 => nats.kill(),
                    1 => {
                        gateway.stop().await;
                        gateway = Gateway::start(folder.path(), config(&nats.url()));
                    }
                    _ => sleep(Duration::from_millis(random.u64(..50))).await,
                }
            }
        }
        taken += more;
        if nats.is_stopped() {
            nats.start_again().await;
        }
    }
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_consecutive(&segments);
    assert_eq!(numbers(&segments), (1..=taken).collect::<Vec<_>>());
    assert_eq!(gateway.status().gone, 0);
    gateway.stop().await;
}

/// The segment arrives, its acknowledgement does not; and no deduplication window is there to help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_doubles_nothing_long_after_any_duplicate_window() {
    let nats = Nats::start().await;
    let stream = nats.make_stream(|config| config.duplicate_window = Duration::from_millis(100)).await;
    let proxy = Proxy::start(nats.port()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&proxy.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;

    proxy.pass_answers(false);
    gateway.take(2).await;
    until("the segment has arrived", async || {
        stream.get_info().await.expect("its state").state.messages == 2
    })
    .await;
    assert_eq!(gateway.status().delivered, 2, "nobody has said so yet");
    gateway.stop().await;
    sleep(Duration::from_millis(300)).await;

    proxy.pass_answers(true);
    let gateway = Gateway::start(folder.path(), config(&proxy.url()));
    gateway.take(3).await;
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), [1, 2, 3]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_swallows_answers_is_given_up_and_made_anew() {
    let nats = Nats::start().await;
    let proxy = Proxy::start(nats.port()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&proxy.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;
    proxy.pass_answers(false);
    gateway.take_all(2..=20).await;
    gateway.until_trouble(Kind::TimedOut).await;
    proxy.pass_answers(true);
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=20).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_without_nats_from_the_first_start_and_says_why_nothing_is_delivered() {
    let mut nats = Nats::start().await;
    nats.kill();
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=10).await;
    let status = gateway.until_trouble(Kind::Unreachable).await;
    assert_eq!(status.state, State::Down);
    assert!(status.trouble.expect("trouble").text.contains("refused"));
    nats.start_again().await;
    gateway.all_delivered().await;
    assert_eq!(gateway.status().trouble, None);
    assert_eq!(numbers(&nats.segments().await), (1..=10).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_cannot_be_resolved_is_said() {
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config("nats://no-such-host.invalid:4222"));
    let status = gateway.until_trouble(Kind::Unreachable).await;
    assert!(status.trouble.expect("trouble").text.contains("no-such-host.invalid"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_under_the_same_name_is_found_out() {
    let nats = Nats::start().await;
    let (one, two) = (folder(), folder());
    let first = Gateway::start(one.path(), config(&nats.url()));
    first.take_all(1..=5).await;
    first.all_delivered().await;
    let second = Gateway::start(two.path(), config(&nats.url()));
    second.take_all(101..=105).await;
    second.all_delivered().await;

    // A replaced machine looks the same, so the newer one goes on; the older one stops and says so.
    first.take_all(6..=9).await;
    let status = first.until_trouble(Kind::Conflict).await;
    assert_eq!((status.state, status.delivered), (State::Conflict, 6));
    sleep(A_WHILE).await;
    assert_eq!(numbers(&nats.segments().await), (1..=5).chain(101..=105).collect::<Vec<_>>());
    assert_eq!(second.status().state, State::Up);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_spool_is_found_out_and_nothing_of_it_is_taken_for_delivered() {
    let nats = Nats::start().await;
    let (one, two) = (folder(), folder());
    let original = Gateway::start(one.path(), config(&nats.url()));
    original.take_all(1..=5).await;
    original.all_delivered().await;
    original.stop().await;
    crate::nats::copy(&one.path().join("spool"), &two.path().join("spool"));

    let original = Gateway::start(one.path(), config(&nats.url()));
    original.take_all(6..=9).await;
    original.all_delivered().await;
    let copy = Gateway::start(two.path(), config(&nats.url()));
    copy.take_all(1_006..=1_012).await;
    let status = copy.until_trouble(Kind::Conflict).await;
    assert_eq!(status.delivered, 6);
    assert_eq!(numbers(&nats.segments().await), (1..=9).collect::<Vec<_>>());
    original.stop().await;
    copy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_restored_from_an_older_copy_gets_again_what_it_lost() {
    let mut nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=20).await;
    gateway.all_delivered().await;
    nats.kill();
    let backup = nats.back_up();
    nats.start_again().await;
    gateway.take_all(21..=40).await;
    gateway.all_delivered().await;
    nats.kill();
    nats.restore(&backup);
    gateway.take_all(41..=50).await;
    nats.start_again().await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=50).collect::<Vec<_>>());
    assert_consecutive(&segments);
    assert_eq!(gateway.status().gone, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_made_anew_and_gets_everything_that_is_kept() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=20).await;
    gateway.all_delivered().await;
    nats.jetstream().await.delete_stream(STREAM).await.expect("deleting the stream");
    gateway.take(21).await;
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=21).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_neither_the_stream_nor_the_spool_has_any_more_is_told() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::with_60_delivered_and_the_oldest_gone(folder.path(), config(&nats.url())).await;
    let oldest = gateway.custody.spool().oldest_number();
    nats.jetstream().await.delete_stream(STREAM).await.expect("deleting the stream");
    gateway.take(61).await;
    until("the gap has been told", async || gateway.status().gone > 0).await;
    gateway.all_delivered().await;
    assert_eq!(gateway.status().gone, oldest - 1);

    let segments = nats.segments().await;
    assert_consecutive(&segments);
    let first = u32::try_from(oldest).expect("small");
    assert_eq!(numbers(&segments), (first..=61).collect::<Vec<_>>());
    until("the gateway's own event is in the stream", async || {
        let segments = nats.segments().await;
        let payloads = segments.iter().flat_map(|segment| &segment.payloads);
        payloads
            .filter_map(|payload| ReadUplink::read(payload).ok())
            .any(|uplink| uplink.events().any(|event| event.kind == "uplinks-gone"))
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_present_goes_ahead_of_a_backlog_of_many_epochs() {
    let mut nats = Nats::start().await;
    let folder = folder();
    let mut spool = spool_config(folder.path());
    spool.epoch_bytes = 1024 * 1024;
    // An epoch takes a quarter of a second, all of it three.
    let narrow =
        Config { zstd_level: 0, max_bytes_per_s: 4 * 1024 * 1024, live_after_ms: 600, ..config(&nats.url()) };
    let gateway = Gateway::start_with(&spool, narrow);
    nats.kill();
    for number in 1..=240 {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(50_000)).as_bytes()).await;
    }
    nats.start_again().await;
    // When it begins, the newest of the backlog go ahead; that the end of an epoch is not the end of the backlog shows later.
    until("some epochs are delivered", async || gateway.status().delivered > 60).await;
    let before = gateway.status().ahead;
    gateway.take(241).await;
    until("the present has gone ahead, or the backlog is delivered", async || {
        let status = gateway.status();
        status.ahead > before || status.delivered > 241
    })
    .await;
    let status = gateway.status();
    assert!(status.ahead > before && status.delivered < 200, "{before} before; {status:?}");
    gateway.all_delivered().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_by_retention_is_not_taken_for_loss() {
    let nats = Nats::start().await;
    let stream = nats
        .make_stream(|config| {
            config.max_age = Duration::from_millis(300);
            config.duplicate_window = Duration::from_millis(100);
        })
        .await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take_all(1..=20).await;
    gateway.all_delivered().await;
    let segments = gateway.status().segments;
    until("the stream is empty", async || stream.get_info().await.expect("its state").state.messages == 0)
        .await;
    // In the same connection, and after a restart.
    gateway.take(21).await;
    gateway.all_delivered().await;
    assert_eq!((gateway.status().segments, gateway.status().gone), (segments + 1, 0));
    until("the stream is empty", async || stream.get_info().await.expect("its state").state.messages == 0)
        .await;
    gateway.stop().await;
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take(22).await;
    gateway.all_delivered().await;
    assert_eq!((gateway.status().uplinks, gateway.status().gone), (1, 0));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_said_and_nothing_is_taken_for_delivered() {
    let nats = Nats::start().await;
    let stream = nats
        .make_stream(|config| {
            config.max_messages = 1;
            config.discard = DiscardPolicy::New;
        })
        .await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;
    gateway.take_all(2..=5).await;
    let status = gateway.until_trouble(Kind::Full).await;
    assert_eq!((status.state, status.delivered), (State::Down, 2));

    let mut roomy = stream.get_info().await.expect("its configuration").config;
    roomy.max_messages = -1;
    nats.jetstream().await.update_stream(roomy).await.expect("changing the stream");
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=5).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_stream_is_said_where_it_may_not_be_made() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { create_stream: false, ..config(&nats.url()) });
    gateway.take(1).await;
    gateway.until_trouble(Kind::NoStream).await;
    nats.make_stream(|_| ()).await;
    gateway.all_delivered().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_is_said() {
    let nats =
        Nats::start_with("accounts { APP { users: [{ user: a, password: a }] } }\nno_auth_user: a").await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), config(&nats.url()));
    gateway.until_trouble(Kind::NoStream).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_fit_what_the_server_takes() {
    let nats = Nats::start_with("max_payload: 16384").await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { zstd_level: 0, ..config(&nats.url()) });
    for number in 1..=100 {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(3_000)).as_bytes()).await;
    }
    gateway.all_delivered().await;
    assert_eq!(numbers(&nats.segments().await), (1..=100).collect::<Vec<_>>());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_uplink_is_not_held_back_by_lingering_and_a_busy_row_is() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { linger_ms: 500, ..config(&nats.url()) });
    gateway.take_all(1..=1).await;
    timeout(Duration::from_millis(400), gateway.all_delivered()).await.expect("the first goes at once");
    gateway.take_all(2..=50).await;
    gateway.all_delivered().await;
    assert!(gateway.status().segments <= 3, "{:?}", gateway.status());
    assert_eq!(numbers(&nats.segments().await), (1..=50).collect::<Vec<_>>());
    gateway.stop().await;
}

/// A lot at once, taken from several tasks, while the uplink runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_many_arrives_whole() {
    let nats = Nats::start().await;
    let folder = folder();
    let gateway = Arc::new(Gateway::start(folder.path(), config(&nats.url())));
    let next = Arc::new(AtomicU32::new(1));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (gateway, next) = (Arc::clone(&gateway), Arc::clone(&next));
            tokio::spawn(async move {
                let waiter = Waiter::new();
                let device = "d-1".parse().expect("a name");
                for _ in 0..500 {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let run = SeqRun { boot: u64::from(number), first: 1, last: 1 };
                    let payload = payload(number);
                    loop {
                        let offered = gateway.custody.gather().offer(
                            &device,
                            1,
                            None,
                            payload.as_bytes(),
                            run,
                            &waiter,
                        );
                        match offered {
                            Ok(_) => break,
                            Err(_) => gateway.custody.room().await.expect("custody works"),
                        }
                    }
                    if number % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    until("all is on disk", async || gateway.custody.spool().next_number() == 10_001).await;
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_consecutive(&segments);
    let mut numbers = numbers(&segments);
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10_000).collect::<Vec<_>>());
    let Ok(gateway) = Arc::try_unwrap(gateway) else { panic!("all tasks have ended") };
    gateway.stop().await;
}
