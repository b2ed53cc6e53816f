//! Whatever happens to the log and on the way to it, everything it holds is folded once.

use std::time::Duration;

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};

use crate::nats::Nats;
use crate::{Gateway, Projection};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_log_and_what_arrives_is_folded_across_restarts() {
    let (nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    for _ in 0..20 {
        gateway.send(10).await;
    }
    let progress = projection.until_folded(20).await;
    assert_eq!((progress.reading, progress.stream_last_sequence), (true, Some(20)));
    projection.stop().await;

    // While it is away, more than one transaction takes.
    let mut last = 0;
    for _ in 0..200 {
        last = gateway.send(10).await;
    }
    let mut projection = Projection::start(&folder, &nats.url()).await;
    projection.until_folded(last).await;
    let boot = projection.boot("d");
    assert_eq!((boot.stored.as_slice(), boot.rows, boot.duplicates), (&[(1, 2200)][..], 2200, 0));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_a_server_that_is_not_there_yet() {
    let (mut nats, folder) = (Nats::absent(), folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    projection.until("in trouble", |progress| progress.trouble.is_some()).await;
    nats.start_again().await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    let last = gateway.send(3).await;
    let progress = projection.until_folded(last).await;
    assert_eq!(progress.trouble, None);
    assert_eq!(projection.boot("d").stored, [(1, 3)]);
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_when_the_server_was_away() {
    let (mut nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    for round in 0..3 {
        let last = gateway.send(100).await;
        projection.until_folded(last).await;
        // The consumer lives in its memory, and is gone each time.
        if round % 2 == 0 {
            nats.kill();
        } else {
            nats.stop();
        }
        projection.until("in trouble", |progress| progress.trouble.is_some()).await;
        nats.start_again().await;
    }
    let last = gateway.send(100).await;
    projection.until_folded(last).await;
    let boot = projection.boot("d");
    assert_eq!((boot.stored.as_slice(), boot.rows), (&[(1, 400)][..], 400));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_is_read_from_its_start() {
    let (nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    for _ in 0..5 {
        gateway.send(10).await;
    }
    projection.until_folded(5).await;
    gateway.context.delete_stream("WEIR").await.expect("deletes");
    // The gateway heals the log: it sends the last it still has again, and goes on.
    gateway.next = 31;
    for _ in 0..4 {
        gateway.send(10).await;
    }
    projection
        .until("folding the new stream", |progress| {
            progress.reading && progress.stream_sequence == 4 && progress.lag_messages == Some(0)
        })
        .await;
    let boot = projection.boot("d");
    assert_eq!((boot.stored.as_slice(), boot.rows, boot.duplicates), (&[(1, 70)][..], 70, 20));
    let created = projection.reader.position().expect("reads").expect("is there").stream_created_ns;
    projection.stop().await;

    // It is remembered which stream this is.
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let last = gateway.send(10).await;
    projection.until_folded(last).await;
    assert_eq!(projection.reader.position().expect("reads").expect("is there").stream_created_ns, created);
    assert_eq!(projection.boot("d").duplicates, 20);
    projection.stop().await;
}

/// The reading lives in the server's memory: one that was started again says nothing, and that must not be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_started_again_is_read_on_without_waiting_for_its_silence() {
    let (mut nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    let last = gateway.send(10).await;
    projection.until_folded(last).await;
    for _ in 0..3 {
        nats.stop();
        nats.start_again().await;
        let ended = projection.until("read anew", |progress| progress.trouble.is_some()).await;
        let trouble = ended.trouble.expect("that was waited for");
        assert!(trouble.contains("the connection was made anew"), "{trouble}");
        let last = gateway.send(10).await;
        projection.until_folded(last).await;
        projection.until("without trouble", |progress| progress.trouble.is_none()).await;
    }
    let boot = projection.boot("d");
    assert_eq!((boot.stored.as_slice(), boot.rows, boot.duplicates), (&[(1, 40)][..], 40, 0));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_in_time_and_grew_again_is_read_again() {
    let (mut nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    gateway.send(10).await;
    nats.stop();
    let backup = nats.back_up();
    nats.start_again().await;
    for _ in 0..3 {
        gateway.send(10).await;
    }
    projection.until_folded(4).await;
    projection.stop().await;
    nats.stop();
    nats.restore(&backup);
    nats.start_again().await;
    // Other messages take the sequences of those that are gone, and more.
    let mut other = Gateway::new(&nats.url(), "gw-2", "e").await;
    for _ in 0..5 {
        other.send(10).await;
    }
    let mut projection = Projection::start(&folder, &nats.url()).await;
    projection.until_folded(6).await;
    assert_eq!(projection.boot("d").stored, [(1, 40)]);
    let boot = projection.boot("e");
    assert_eq!((boot.stored.as_slice(), boot.rows), (&[(1, 50)][..], 50));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_dropped_before_it_was_read_shows_as_missing() {
    let (nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    gateway.send(10).await;
    projection.until_folded(1).await;
    projection.stop().await;
    for _ in 0..9 {
        gateway.send(10).await;
    }
    let stream = gateway.context.get_stream("WEIR").await.expect("is there");
    stream.purge().sequence(6).await.expect("drops messages 1 to 5");
    let mut projection = Projection::start(&folder, &nats.url()).await;
    projection.until_folded(10).await;
    let boot = projection.boot("d");
    assert_eq!(
        (boot.stored.as_slice(), boot.missing.as_slice()),
        (&[(1, 10), (51, 100)][..], &[(11, 50)][..])
    );
    let gateways = projection.reader.status().expect("reads").gateways;
    assert_eq!((gateways[0].missing.as_slice(), gateways[0].missing_count), (&[(11, 50)][..], 40));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_set_aside_and_the_rest_flows_on() {
    let (nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    gateway.send(2).await;
    gateway.publish(b"this is no segment".to_vec(), None).await;
    gateway.publish(b"this is no frame".to_vec(), Some("zstd")).await;
    gateway.publish(vec![], None).await;
    gateway.publish(vec![0x83], Some("rot13")).await;
    let last = gateway.send(2).await;
    projection.until_folded(last).await;
    assert_eq!(projection.boot("d").stored, [(1, 4)]);
    let letters = projection.dead_letters();
    let sequences: Vec<u64> = letters.iter().map(|letter| letter.stream_sequence).collect();
    assert_eq!(sequences, [2, 3, 4, 5]);
    assert_eq!(letters[1].bytes, b"this is no frame");
    assert!(letters.iter().all(|letter| !letter.reason.is_empty()));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_stream_is_used_as_it_is() {
    let (nats, folder) = (Nats::start().await, folder());
    let mut gateway = Gateway::new(&nats.url(), "gw", "d").await;
    let theirs = StreamConfig {
        name: "WEIR".into(),
        subjects: vec!["weir.1.segments.>".into()],
        max_age: Duration::from_secs(3600),
        discard: DiscardPolicy::Old,
        ..StreamConfig::default()
    };
    gateway.context.create_stream(theirs).await.expect("creates");
    let mut projection = Projection::start(&folder, &nats.url()).await;
    let last = gateway.send(5).await;
    projection.until_folded(last).await;
    let mut stream = gateway.context.get_stream("WEIR").await.expect("is there");
    let config = &stream.info().await.expect("answers").config;
    assert_eq!((config.max_age, config.discard), (Duration::from_secs(3600), DiscardPolicy::Old));
    projection.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_refuses_rather_than_drops_when_it_is_full() {
    let (nats, folder) = (Nats::start().await, folder());
    let mut projection = Projection::start(&folder, &nats.url()).await;
    projection.until("reading", |progress| progress.reading).await;
    let context = Gateway::new(&nats.url(), "gw", "d").await.context;
    for stream in ["WEIR", "WEIR_COMMANDS"] {
        let stream = context.get_stream(stream).await.expect("was made");
        let config = &stream.cached_info().config;
        assert_eq!((config.discard, config.allow_direct), (DiscardPolicy::New, true));
    }
    projection.stop().await;
}
