//! A cloud that refuses: whatever its reason, it is named, nothing is taken for delivered, and once it is cured the uplink
//! goes on by itself.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::DiscardPolicy;
use futures_util::StreamExt as _;
use tokio::time::sleep;
use weir_contract::subject::{STREAM, STREAM_SUBJECTS};
use weir_gateway::uplink::pacing::Kind;
use weir_gateway::uplink::{Config, State, Status};

use super::SUBJECT;
use super::harness::{Gateway, assert_consecutive, config, folder, numbers};
use crate::nats::{A_WHILE, Nats};

/// Uplinks that compress to nothing are of no use here.
fn plain(url: &str) -> Config {
    Config { zstd_level: 0, segment_bytes_max: 32 * 1024, ..config(url) }
}

async fn take_large(gateway: &Gateway, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        gateway.take_bytes(number, format!("uplink {number} {}", "x".repeat(10_000)).as_bytes()).await;
    }
}

/// What is in the stream is exactly what is said to be delivered, or one segment more, whose acknowledgement was lost.
async fn in_trouble(gateway: &Gateway, nats: &Nats, kind: Kind) -> Status {
    let status = gateway.until_trouble(kind).await;
    assert_eq!(status.state, State::Down);
    let trouble = status.trouble.clone().expect("trouble");
    assert!(!trouble.text.is_empty() && !trouble.help.is_empty(), "{trouble:?}");
    let found = numbers(&nats.segments().await);
    assert_eq!(found, (1..=u32::try_from(found.len()).expect("few")).collect::<Vec<_>>());
    let delivered = gateway.status().delivered;
    assert!(delivered <= found.len() as u64 + 1, "{delivered} of {found:?}");
    status
}

async fn cured(gateway: Gateway, nats: &Nats, last: u32) {
    gateway.all_delivered().await;
    let segments = nats.segments().await;
    assert_eq!(numbers(&segments), (1..=last).collect::<Vec<_>>());
    assert_consecutive(&segments);
    let status = gateway.status();
    assert_eq!((status.state, status.trouble, status.gone), (State::Up, None, 0));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_all_its_bytes() {
    let nats = Nats::start().await;
    let stream = nats
        .make_stream(|config| {
            config.max_bytes = 100_000;
            config.discard = DiscardPolicy::New;
        })
        .await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    take_large(&gateway, 1..=30).await;
    let status = in_trouble(&gateway, &nats, Kind::Full).await;
    assert!(status.trouble.expect("trouble").text.contains("maximum bytes"));
    let mut roomy = stream.get_info().await.expect("its configuration").config;
    roomy.max_bytes = -1;
    nats.jetstream().await.update_stream(roomy).await.expect("changing the stream");
    cured(gateway, &nats, 30).await;
}

fn account(storage: &str) -> String {
    format!(
        "accounts {{ APP {{ jetstream {{ max_file: {storage} }}, users: [{{ user: a, password: a }}] }} }}\nno_auth_user: a"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_has_used_up_its_storage() {
    let mut nats = Nats::start_with(&account("150KB")).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    take_large(&gateway, 1..=40).await;
    in_trouble(&gateway, &nats, Kind::Full).await;
    nats.kill();
    nats.set_more(&account("10MB"));
    nats.start_again().await;
    cured(gateway, &nats, 40).await;
}

fn rights(publish: &str) -> String {
    format!(
        "authorization {{ users: [
           {{ user: a, password: a, permissions: {{ publish: [\"{publish}\", \"$JS.API.>\"], subscribe: \"_INBOX.>\" }} }}
           {{ user: b, password: b }} ] }}\nno_auth_user: b"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_right_to_publish() {
    let nats = Nats::start_with(&rights("weir.1.segments.plant.somebody-else.main")).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&format!("nats://a:a@127.0.0.1:{}", nats.port())));
    take_large(&gateway, 1..=3).await;
    nats.make_stream_if_absent().await;
    let status = in_trouble(&gateway, &nats, Kind::Denied).await;
    assert_eq!(status.delivered, 1);
    assert!(status.trouble.expect("trouble").text.contains(SUBJECT));
    nats.reload(&rights(SUBJECT));
    cured(gateway, &nats, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_right_to_look() {
    let blind = "authorization { users: [
           { user: a, password: a, permissions: { publish: [\"weir.1.segments.>\"], subscribe: \"_INBOX.>\" } }
           { user: b, password: b } ] }\nno_auth_user: b";
    let nats = Nats::start_with(blind).await;
    nats.make_stream(|_| ()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&format!("nats://a:a@127.0.0.1:{}", nats.port())));
    take_large(&gateway, 1..=3).await;
    in_trouble(&gateway, &nats, Kind::Denied).await;
    assert!(nats.segments().await.is_empty(), "nothing is sent into the dark");
    nats.reload(&rights(SUBJECT));
    cured(gateway, &nats, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_longer_than_the_server_takes() {
    let mut nats = Nats::start_with("max_payload: 8192").await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    gateway.take_all(1..=20).await;
    take_large(&gateway, 21..=22).await;
    gateway.take_all(23..=25).await;
    let status = in_trouble(&gateway, &nats, Kind::TooLong).await;
    assert!(status.trouble.expect("trouble").text.contains("max_payload 8192"));
    sleep(A_WHILE).await;
    assert_eq!(
        numbers(&nats.segments().await),
        (1..=20).collect::<Vec<_>>(),
        "order is kept, nothing is skipped"
    );
    nats.kill();
    nats.set_more("max_payload: 512KB");
    nats.start_again().await;
    cured(gateway, &nats, 25).await;
}

/// The stream's own limit is below the segments': they are made to fit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_fit_what_the_stream_takes() {
    let nats = Nats::start().await;
    nats.make_stream(|config| config.max_message_size = 16 * 1024).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), Config { segment_bytes_max: 262_144, ..plain(&nats.url()) });
    take_large(&gateway, 1..=30).await;
    cured(gateway, &nats, 30).await;
}

/// The limit comes while the gateway is connected, and an uplink is above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_longer_than_the_stream_takes() {
    let nats = Nats::start().await;
    let stream = nats.make_stream(|_| ()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    gateway.take_all(1..=5).await;
    gateway.all_delivered().await;
    let mut narrow = stream.get_info().await.expect("its configuration").config;
    narrow.max_message_size = 4 * 1024;
    nats.jetstream().await.update_stream(narrow.clone()).await.expect("changing the stream");
    gateway.take_all(6..=9).await;
    take_large(&gateway, 10..=10).await;
    in_trouble(&gateway, &nats, Kind::TooLong).await;
    narrow.max_message_size = -1;
    nats.jetstream().await.update_stream(narrow).await.expect("changing the stream");
    cured(gateway, &nats, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_switched_off_and_on_again() {
    let off = "accounts { APP { users: [{ user: a, password: a }] } }\nno_auth_user: a";
    let on = "accounts { APP { jetstream: enabled, users: [{ user: a, password: a }] } }\nno_auth_user: a";
    let mut nats = Nats::start_with(on).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    gateway.take_all(1..=3).await;
    gateway.all_delivered().await;
    nats.kill();
    nats.set_more(off);
    nats.start_again().await;
    gateway.take_all(4..=6).await;
    let status = gateway.until_trouble(Kind::NoStream).await;
    assert_eq!(status.delivered, 4);
    nats.kill();
    nats.set_more(on);
    nats.start_again().await;
    cured(gateway, &nats, 6).await;
}

/// The stream of the right name listens elsewhere, and another one takes what is ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_stream_on_our_subject() {
    let nats = Nats::start().await;
    let ours = nats.make_stream(|config| config.subjects = vec!["elsewhere".to_owned()]).await;
    let other = nats.make_stream(|config| config.name = "OTHER".to_owned()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    gateway.take_all(1..=3).await;
    let status = in_trouble(&gateway, &nats, Kind::WrongStream).await;
    assert_eq!(status.delivered, 1);
    assert_eq!(other.get_info().await.expect("its state").state.messages, 0);
    nats.jetstream().await.delete_stream("OTHER").await.expect("deleting a stream");
    let mut right = ours.get_info().await.expect("its configuration").config;
    right.subjects = vec![STREAM_SUBJECTS.to_owned()];
    nats.jetstream().await.update_stream(right).await.expect("changing the stream");
    cured(gateway, &nats, 3).await;
}

/// Somebody answers in the stream's place: of another stream, with sequences it had before, as for a duplicate, with noise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_no_acknowledgement() {
    let nats = Nats::start().await;
    let ours = nats.make_stream(|_| ()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    gateway.take_all(1..=3).await;
    gateway.all_delivered().await;
    let mut elsewhere = ours.get_info().await.expect("its configuration").config;
    elsewhere.subjects = vec!["elsewhere".to_owned()];
    nats.jetstream().await.update_stream(elsewhere.clone()).await.expect("changing the stream");
    let sequence = gateway.status().stream_sequence;
    let lies = [
        format!("{{\"stream\":\"OTHER\",\"seq\":{}}}", sequence + 1),
        format!("{{\"stream\":\"{STREAM}\",\"seq\":{sequence}}}"),
        format!("{{\"stream\":\"{STREAM}\",\"seq\":0}}"),
        format!("{{\"stream\":\"{STREAM}\",\"seq\":{},\"duplicate\":true}}", sequence + 1),
        "{}".to_owned(),
        "+OK".to_owned(),
        String::new(),
    ];
    let liar = async_nats::connect(nats.url()).await.expect("connecting");
    let mut asked = liar.subscribe(SUBJECT).await.expect("subscribing");
    liar.flush().await.expect("flushing");
    gateway.take_all(4..=5).await;
    for lie in lies.iter().cycle().take(2 * lies.len()) {
        let question = asked.next().await.expect("another try");
        let reply = question.reply.expect("it wants an answer");
        liar.publish(reply, lie.clone().into()).await.expect("answering");
        liar.flush().await.expect("flushing");
        gateway.until_trouble(Kind::WrongStream).await;
        assert_eq!(gateway.status().delivered, 4, "after {lie:?}");
    }
    drop(asked);
    liar.drain().await.expect("leaving");
    elsewhere.subjects = vec![STREAM_SUBJECTS.to_owned()];
    nats.jetstream().await.update_stream(elsewhere).await.expect("changing the stream");
    cured(gateway, &nats, 5).await;
}

/// Every answer is "wrong last sequence": somebody is always there first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intruder_on_our_subject_delays_us_and_stops_nothing() {
    let nats = Nats::start().await;
    nats.make_stream(|_| ()).await;
    let folder = folder();
    let gateway = Gateway::start(folder.path(), plain(&nats.url()));
    gateway.take(1).await;
    gateway.all_delivered().await;
    let intruder = nats.jetstream().await;
    let mut number = 1;
    for _ in 0..20 {
        let noise =
            intruder.publish_with_headers(SUBJECT, HeaderMap::new(), "noise".into()).await.expect("sent");
        noise.await.expect("taken");
        number += 1;
        gateway.take(number).await;
    }
    gateway.all_delivered().await;
    let stream = nats.jetstream().await.get_stream(STREAM).await.expect("the stream");
    let state = stream.get_info().await.expect("its state").state;
    for sequence in 1..=state.last_sequence {
        if stream.get_raw_message(sequence).await.is_ok_and(|message| message.payload.as_ref() == b"noise") {
            stream.delete_message(sequence).await.expect("deleting noise");
        }
    }
    cured(gateway, &nats, number).await;
}
