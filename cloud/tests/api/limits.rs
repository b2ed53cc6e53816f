//! The service stays up, and within its limits, whatever clients do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ciborium::Value as Cbor;
use weir_cloud::{Config, Role};

use crate::fixture::{Log, Service, other, reading, two_kilns, uplink};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn raw(service: &Service) -> TcpStream {
    let address = service.base.trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Reads until the other side closes.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed within {PATIENCE:?}: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sixteen megabytes of history: more than sockets keep.
fn bulky_history() -> Log {
    let note = Cbor::Map(vec![(Cbor::Text("note".to_owned()), Cbor::Text("x".repeat(8_000)))]);
    let mut log = Log::new();
    for part in 0..300_u32 {
        let facts: Vec<_> = (0..7).map(|n| other(u64::from(part * 7 + n), "note-made", &note)).collect();
        log.segment(&[("kiln-1", uplink(5, 0, part * 7 + 1, &facts))]);
    }
    log
}

fn long_history() -> Log {
    let mut log = Log::new();
    for part in 0..120_u32 {
        let facts: Vec<_> =
            (0..200).map(|n| reading(u64::from(part * 200 + n), "oven", f64::from(n))).collect();
        log.segment(&[("kiln-1", uplink(5, 0, part * 200 + 1, &facts))]);
    }
    log
}

#[test]
fn a_page_ends_early_at_its_size_and_says_where_the_next_begins() {
    let service = Service::with_limits(&long_history(), |config| config.api.page_bytes_max = 65_536);
    let mut seen = 0;
    let mut after = String::new();
    let mut pages = 0;
    loop {
        let page = service.get(&format!("/v1/devices/kiln-1/events?limit=10000{after}"));
        let events = page["events"].as_array().expect("a list").len();
        assert!(events < 2_000, "{events} events are more than 64 KiB");
        (seen, pages) = (seen + events, pages + 1);
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, 24_000);
    assert!(pages > 12, "{pages} pages");
}

#[test]
fn a_client_that_does_not_read_holds_its_place_only_for_a_time() {
    let service = Service::with_limits(&bulky_history(), |config| {
        config.api.requests_max = 1;
        config.api.request_timeout_ms = 3_000;
        config.api.page_bytes_max = 64 << 20;
    });
    let mut lazy = raw(&service);
    write!(lazy, "GET /v1/devices/kiln-1/events?limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it is sent");
    lazy.read_exact(&mut [0; 1]).expect("the answer has begun");

    let (status, code, message) = service.refusal("/v1/devices");
    assert_eq!((status, code.as_str()), (503, "busy"), "{message}");
    assert_eq!(service.ask("/healthz").0, 200, "that it lives is seen also when it is busy");

    let began = Instant::now();
    while service.ask("/v1/devices").0 != 200 {
        assert!(began.elapsed() < PATIENCE, "the place is never given back");
        std::thread::yield_now();
    }
    drop(lazy);
}

#[test]
fn a_client_that_does_not_finish_its_request_is_hung_up_on() {
    let service = Service::with_limits(&two_kilns(), |config| config.api.idle_timeout_ms = 300);
    let mut silent = raw(&service);
    let mut half = raw(&service);
    write!(half, "GET /v1/devices HTTP/1.1\r\nHost:").expect("it is sent");
    assert_eq!(read_to_end(&mut silent), "");
    assert!(!read_to_end(&mut half).contains("200 OK"));
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let service = Service::with_limits(&two_kilns(), |config| {
        config.api.connections_max = 2;
        config.api.idle_timeout_ms = 1_000;
    });
    let _idle = [raw(&service), raw(&service)];
    assert_eq!(service.ask("/healthz").0, 200, "it is accepted when an idle one has been closed");
}

#[test]
fn a_question_that_takes_too_long_is_given_up() {
    // One place to read the store, and sixteen who want it: those at the end of the queue wait longer than is allowed.
    let service = Service::with_limits(&long_history(), |config| {
        config.api.store_reads_max = 1;
        config.api.request_timeout_ms = 50;
    });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || service.ask("/v1/devices/kiln-1/events?limit=10000").0;
        let askers: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        askers.into_iter().map(|asker| asker.join().expect("it asks")).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&503), "{statuses:?}");
    let began = Instant::now();
    while service.ask("/healthz").0 != 200 || service.ask("/v1/dead-letters").0 != 200 {
        assert!(began.elapsed() < PATIENCE, "it does not recover");
    }
}

#[test]
fn many_clients_at_once_all_get_an_answer() {
    let service = Service::with(&two_kilns());
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(service.get("/v1/devices/kiln-1/state")["boot"], "7");
                }
            });
        }
    });
}

#[test]
fn malformed_requests_are_refused_and_harm_nobody() {
    let service = Service::with(&two_kilns());
    for request in [
        "\r\n\r\n\r\n".to_owned(),
        "NONSENSE\r\n\r\n".to_owned(),
        "GET\u{0} / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)),
        "GET /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(),
    ] {
        let mut stream = raw(&service);
        // It may hang up before all of it is sent.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(service.ask("/v1/devices").0, 200);
}

#[test]
fn stopping_finishes_what_was_asked_and_takes_nothing_new() {
    let mut service = Service::with_limits(&bulky_history(), |config| config.api.page_bytes_max = 64 << 20);
    let mut stream = raw(&service);
    write!(stream, "GET /v1/devices/kiln-1/events?limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it is sent");
    stream.read_exact(&mut [0; 1]).expect("the answer has begun");
    let idle = raw(&service);
    let reader = std::thread::spawn(move || read_to_end(&mut stream));
    service.shut_down();
    let answer = reader.join().expect("it reads");
    assert!(
        answer.ends_with('}'),
        "the whole answer arrives: {:?}",
        &answer[answer.len().saturating_sub(80)..]
    );
    drop(idle);
    assert!(
        TcpStream::connect(service.base.trim_start_matches("http://")).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn a_process_that_only_projects_answers_for_itself_and_no_queries() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let mut config = Config::default();
    config.store.path = folder.path().join("cloud.sqlite");
    config.api.project_address = "127.0.0.1:0".parse().expect("an address");
    // Nobody listens there: the service must start, and say so, all the same.
    config.nats.servers = vec!["nats://127.0.0.1:1".to_owned()];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let running = runtime.block_on(weir_cloud::start(&config, Role::Project)).expect("it starts");
    let base = format!("http://{}", running.addresses.api);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
    let ask = |path: &str| agent.get(format!("{base}{path}")).call().expect("an answer");
    assert_eq!(ask("/v1/devices").status(), 404);
    assert_eq!(ask("/metrics").status(), 200);
    let status: serde_json::Value = ask("/v1/status").body_mut().read_json().expect("JSON");
    assert_eq!(status["role"], "project");
    assert_eq!(status["nats"]["connected"], false);
    assert_eq!(status["position"]["reading"], false);
    assert_eq!(status["position"]["lag_messages"], serde_json::Value::Null, "nobody knows it then");

    let told = std::fs::read_to_string(folder.path().join("cloud.sqlite.project.addresses.json"))
        .expect("it is told");
    assert_eq!(told, format!("{{\"api\":\"{}\"}}\n", running.addresses.api));
    runtime.block_on(running.shutdown()).expect("it ends well");
    assert!(
        !folder.path().join("cloud.sqlite.project.addresses.json").exists(),
        "nobody listens there any more"
    );
}

#[test]
fn without_a_store_it_is_said_who_makes_one() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let mut config = Config::default();
    config.store.path = folder.path().join("cloud.sqlite");
    config.api.address = "127.0.0.1:0".parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let refusal = runtime.block_on(weir_cloud::start(&config, Role::Serve)).expect_err("there is no store");
    assert!(refusal.to_string().contains("role `project`"), "{refusal}");
    assert!(!config.store.path.exists(), "it makes none itself");
}
