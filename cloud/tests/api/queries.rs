//! What is asked is answered, and what cannot be is refused with a reason.

use std::collections::BTreeSet;

use ciborium::Value as Cbor;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::fixture::{EPOCH, Log, Service, other, reading, two_kilns, uplink};

#[test]
fn devices_are_listed_by_name_and_page_by_page() {
    let service = Service::with(&two_kilns());
    let all = service.get("/v1/devices");
    let names: Vec<&str> = all["devices"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|device| device["device"].as_str())
        .collect();
    assert_eq!(names, ["gw-1", "kiln-1", "kiln-2"]);
    let kiln = &all["devices"][1];
    assert_eq!((&kiln["site"], &kiln["gateway"]), (&json!("hall"), &json!("gw-1")));
    assert_eq!(kiln["connected"], true);
    assert_eq!(kiln["firmware"], "1.5.0");
    assert_eq!((&kiln["boots"], &kiln["events"]), (&json!(2), &json!(7)));
    assert_eq!((&kiln["lost"], &kiln["missing"]), (&json!(3), &json!(0)));
    assert_eq!(kiln["last_event_at"], "2026-11-20T18:10:01.500Z");
    assert_eq!(all["devices"][2]["missing"], 2, "kiln-2 began with number 3");

    let first = service.get("/v1/devices?limit=2");
    assert_eq!(first["devices"].as_array().map(Vec::len), Some(2));
    let next = first["next"].as_str().expect("there is more");
    let rest = service.get(&format!("/v1/devices?limit=2&after={next}"));
    assert_eq!(rest["devices"], json!([all["devices"][2]]));
    assert_eq!(rest["next"], json!(null));
}

#[test]
fn state_is_of_now_or_of_any_past_moment() {
    let service = Service::with(&two_kilns());
    let now = service.get("/v1/devices/kiln-1/state");
    assert_eq!(now["at"], json!(null));
    assert_eq!(now["firmware"]["fw"], "1.5.0");
    assert_eq!(now["boot"], "7");
    assert_eq!(now["connected"], true);
    let oven = &now["sensors"]["oven"];
    assert_eq!((&oven["value"], &oven["unit"], &oven["seq"]), (&json!(30.0), &json!("Cel"), &json!(3)));
    assert_eq!((&oven["at"], &oven["clock"]), (&json!("2026-11-20T18:10:01.000Z"), &json!("device")));
    assert_eq!(oven["limit"]["rising"], true);

    // The same moment in each way of saying it.
    for at in ["2026-11-20T18:00:01.500Z", "2026-11-20T20:00:01.5%2B02:00", &(EPOCH + 1_500).to_string()] {
        let past = service.get(&format!("/v1/devices/kiln-1/state?at={at}"));
        assert_eq!(past["at"], "2026-11-20T18:00:01.500Z");
        assert_eq!(past["sensors"]["oven"]["value"], 20.0);
        assert_eq!(past["firmware"]["fw"], "1.4.0");
        assert_eq!(past["boot"], u64::MAX.to_string(), "a number beyond 2^53 is a string");
    }
}

#[test]
fn history_goes_by_time_kind_and_either_way() {
    let service = Service::with(&two_kilns());
    let seqs = |query: &str| -> Vec<(String, u64)> {
        let answer = service.get(&format!("/v1/devices/kiln-1/events?{query}"));
        let of = |event: &serde_json::Value| {
            (event["boot"].as_str().expect("a string").to_owned(), event["seq"].as_u64().expect("a number"))
        };
        answer["events"].as_array().expect("a list").iter().map(of).collect()
    };
    let (first, second) = (u64::MAX.to_string(), "7".to_owned());
    let all: Vec<(String, u64)> =
        (1..=3).map(|seq| (first.clone(), seq)).chain((1..=4).map(|seq| (second.clone(), seq))).collect();
    assert_eq!(seqs(""), all);
    assert_eq!(seqs("order=desc"), all.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(seqs("kind=device-started"), [all[0].clone(), all[3].clone()]);
    assert_eq!(
        seqs(&format!("from={}&to={}", EPOCH + 1_000, EPOCH + 2_000)),
        [all[1].clone()],
        "to is not included"
    );
    assert_eq!(seqs("kind=never-heard-of"), []);
    assert_eq!(seqs("from=2030-01-01T00:00:00Z"), []);
}

#[test]
fn an_event_tells_its_whole_way() {
    let service = Service::with(&two_kilns());
    let answer = service.get("/v1/devices/kiln-1/events?limit=3");
    assert_eq!(
        answer["events"][2],
        json!({
            "device": "kiln-1", "boot": u64::MAX.to_string(), "seq": 3,
            "at": "2026-11-20T18:00:02.000Z", "clock": "device",
            "received_at": "2026-11-20T19:00:00.000Z", "logged_at": "2026-11-20T19:00:01.000Z",
            "kind": "reading-taken", "version": 1,
            "body": { "sensor": "oven", "value": 21.5, "unit": "Cel" },
            "site": "hall", "gateway": "gw-1", "incarnation": u64::MAX.to_string(), "number": 1, "stream_sequence": 1,
        })
    );
}

#[test]
fn pages_have_every_event_exactly_once() {
    let mut log = Log::new();
    for part in 0..20_u32 {
        // Many events of one moment: their order must be total all the same.
        let facts: Vec<_> = (0..100_u32).map(|n| reading(u64::from(n / 10), "oven", f64::from(n))).collect();
        log.segment(&[("kiln-1", uplink(5, 0, part * 100 + 1, &facts))]);
    }
    let service = Service::with(&log);
    for (order, limit) in [("asc", 7), ("desc", 7), ("asc", 1_000), ("desc", 1_999)] {
        let mut seen = BTreeSet::new();
        let mut after = String::new();
        loop {
            let page = service.get(&format!("/v1/devices/kiln-1/events?order={order}&limit={limit}{after}"));
            for event in page["events"].as_array().expect("a list") {
                assert!(seen.insert(event["seq"].as_u64().expect("a number")), "{event} comes twice");
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen, (1..=2_000).collect(), "{order} by {limit}");
    }
}

#[test]
fn bodies_are_shown_as_the_documented_json() {
    let body = Cbor::Map(vec![
        (Cbor::Text("zeta".into()), Cbor::Bytes(vec![0xff, 0xfe])),
        (Cbor::Text("alpha".into()), Cbor::Integer(u64::MAX.into())),
        (Cbor::Text("nan".into()), Cbor::Float(f64::NAN)),
        (Cbor::Text("nested".into()), Cbor::Array(vec![Cbor::Null, Cbor::Bool(true)])),
    ]);
    let mut log = Log::new();
    log.segment(&[("kiln-1", uplink(5, 0, 1, &[other(0, "photo-made", &body)]))]);
    let (_, text) = Service::with(&log).ask("/v1/devices/kiln-1/events");
    let expected = r#""body":{"zeta":"__4","alpha":"18446744073709551615","nan":"NaN","nested":[null,true]}"#;
    assert!(text.contains(expected), "keys stay in the device's order: {text}");
}

#[test]
fn boots_account_for_every_number() {
    let service = Service::with(&two_kilns());
    let kiln_1 = service.get("/v1/devices/kiln-1/boots");
    assert_eq!(
        kiln_1,
        json!({ "device": "kiln-1", "boots": [
            {
                "boot": u64::MAX.to_string(), "began_at": "2026-11-20T18:00:00.000Z", "stored": [[1, 3]],
                "lost": [{ "from": 4, "to": 6, "reason": "outbox-full", "by": "kiln-1" }], "told_lost": 3, "missing": [],
                "events": 3, "duplicates": 3,
            },
            {
                "boot": "7", "began_at": "2026-11-20T18:10:00.000Z", "stored": [[1, 4]],
                "lost": [], "told_lost": 0, "missing": [], "events": 4, "duplicates": 0,
            },
        ]})
    );
    let kiln_2 = service.get("/v1/devices/kiln-2/boots");
    assert_eq!(kiln_2["boots"][0]["missing"], json!([[1, 2]]));
}

#[test]
fn what_could_not_be_read_is_a_dead_letter() {
    let service = Service::with(&two_kilns());
    let answer = service.get("/v1/dead-letters");
    let letters = answer["dead_letters"].as_array().expect("a list");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["stream_sequence"], 3);
    assert_eq!(letters[0]["bytes"].as_str().map(str::len), Some(54), "40 bytes as base64url");
    assert!(letters[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    assert_eq!(service.get("/v1/dead-letters?after=1000000"), json!({ "dead_letters": [], "next": null }));
}

#[test]
fn many_dead_letters_come_page_by_page() {
    let mut log = Log::new();
    (0..50_u8).for_each(|n| log.message(vec![0xff, n]));
    let service = Service::with(&log);
    let mut ids = Vec::new();
    let mut after = String::new();
    loop {
        let page = service.get(&format!("/v1/dead-letters?limit=20{after}"));
        ids.extend(
            page["dead_letters"].as_array().expect("a list").iter().map(|letter| letter["id"].as_u64()),
        );
        let Some(next) = page["next"].as_u64() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(ids.len(), 50);
    assert!(ids.is_sorted_by(|a, b| a < b));
}

#[test]
fn status_metrics_and_readiness_tell_how_it_is() {
    let service = Service::with(&two_kilns());
    let status = service.get("/v1/status");
    assert_eq!(status["role"], "serve");
    assert_eq!(status["position"]["stream_sequence"], 4);
    assert_eq!(status["position"]["lag_messages"], json!(null), "this process does not read the log");
    assert_eq!(status["nats"]["connected"], json!(null));
    assert_eq!(status["store"]["events"], 9);
    assert_eq!(status["store"]["dead_letters"], 1);
    assert_eq!(status["store"]["gateways"][0]["last_number"], 5);
    assert_eq!(service.get("/readyz"), json!({ "ready": true, "reason": null }));
    assert_eq!(service.ask("/healthz"), (200, "ok\n".to_owned()));
    let (_, metrics) = service.ask("/metrics");
    assert!(metrics.contains("weir_cloud_stored_events"), "{metrics}");
    let description = service.get("/openapi.json");
    assert!(description["paths"]["/v1/devices/{device}/state"]["get"].is_object());
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let service = Service::with(&two_kilns());
    for route in ["state", "events", "boots"] {
        let (status, code, message) = service.refusal(&format!("/v1/devices/kiln-9/{route}"));
        assert_eq!((status, code.as_str()), (404, "unknown-device"));
        assert!(message.contains("kiln-9"), "{message}");
    }
    for path in ["/", "/v1", "/v1/devices/", "/v1/devices/kiln-1", "/v1/devices/kiln-1/stats", "/v2/devices"]
    {
        let (status, code, message) = service.refusal(path);
        assert_eq!((status, code.as_str()), (404, "not-found"), "{path}");
        assert!(message.contains("/v1/devices/{device}/state"), "{message}");
    }
    for name in ["kiln%201", "%ff", "a%2Fb", &"x".repeat(33)] {
        let (status, code, _) = service.refusal(&format!("/v1/devices/{name}/state"));
        assert_eq!((status, code.as_str()), (400, "bad-device"), "{name}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request =
            ureq::http::Request::builder().method(method).uri(format!("{}/v1/devices", service.base));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let mut answer = agent.run(request.body(()).expect("a request")).expect("an answer");
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.headers()["allow"], "GET, HEAD");
        let body = answer.body_mut().read_to_string().expect("a body");
        assert!(body.contains("method-not-allowed"), "{body}");
    }
}

#[test]
fn a_bad_parameter_is_refused_with_its_name_and_what_is_allowed() {
    let service = Service::with(&two_kilns());
    for (path, parts) in [
        ("/v1/devices?limit=0", ["limit", "1 to 10000"]),
        ("/v1/devices?after=a%20b", ["after", "a b"]),
        ("/v1/devices/kiln-1/state?at=yesterday", ["at", "RFC 3339"]),
        ("/v1/devices/kiln-1/events?order=up", ["order", "asc, desc"]),
        ("/v1/devices/kiln-1/events?after=0.0", ["after", "next"]),
        ("/v1/devices/kiln-1/events?after=1.2.3", ["after", "next"]),
        ("/v1/devices/kiln-1/boots?limit=1", ["limit", "none"]),
        ("/v1/dead-letters?after=x", ["after", "dead letter"]),
        ("/v1/status?x=1", ["x", "none"]),
    ] {
        let (status, code, message) = service.refusal(path);
        assert_eq!((status, code.as_str()), (400, "bad-parameter"), "{path}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

/// Query strings that are nearly right, quite wrong, and hostile.
fn query_string() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("from"),
        Just("to"),
        Just("kind"),
        Just("limit"),
        Just("order"),
        Just("after"),
        Just("at"),
        Just("x"),
        Just(""),
    ];
    let value = prop_oneof![
        "[0-9]{1,20}",
        "[0-9a-f]{1,17}\\.[0-9a-f]{1,9}\\.[0-9a-f]{1,9}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|%2B[0-9]{2}:[0-9]{2})",
        "(asc|desc|reading-taken|kiln-1)",
        "(%[0-9a-f]{2}){0,8}",
        "[!-~&&[^#%& ]]{0,30}",
    ];
    prop::collection::vec((name, value), 0..5).prop_map(|pairs| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    })
}

#[test]
fn no_query_string_is_answered_by_a_server_error() {
    let service = Service::with(&two_kilns());
    let routes = [
        "/v1/devices",
        "/v1/devices/kiln-1/state",
        "/v1/devices/kiln-1/events",
        "/v1/devices/kiln-1/boots",
        "/v1/dead-letters",
        "/v1/status",
    ];
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(prop::sample::select(routes.to_vec()), query_string()), |(route, query)| {
            let path = format!("{route}?{query}").replace(['"', '<', '>', '\\', '^', '`', '{', '|', '}'], "");
            let (status, body) = service.ask(&path);
            prop_assert!(status == 200 || status == 400, "{path}: {status} {body}");
            prop_assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
            Ok(())
        })
        .expect("every answer is 200 or 400");
}
