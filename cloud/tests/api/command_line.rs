//! The binary `weir`, run as a person runs it.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::fixture::{Log, Service, reading, two_kilns, uplink};

fn weir(service: &Service, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .env("WEIR_API", &service.base)
        .output()
        .expect("weir is built with the tests")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn complained(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn json_is_what_the_api_says() {
    let service = Service::with(&two_kilns());
    for (arguments, path) in [
        (vec!["state", "kiln-1"], "/v1/devices/kiln-1/state"),
        (vec!["state", "kiln-1", "--at", "1795197601500"], "/v1/devices/kiln-1/state?at=1795197601500"),
        (vec!["boots", "kiln-1"], "/v1/devices/kiln-1/boots"),
        (vec!["devices"], "/v1/devices"),
        (vec!["history", "kiln-1"], "/v1/devices/kiln-1/events"),
        (vec!["history", "kiln-1", "--limit", "2"], "/v1/devices/kiln-1/events?limit=2"),
        (vec!["history", "kiln-1", "--kind", "no-such-kind"], "/v1/devices/kiln-1/events?kind=no-such-kind"),
        (vec!["dead-letters"], "/v1/dead-letters"),
        (vec!["status"], "/v1/status"),
    ] {
        let arguments = [&arguments[..], &["--json"]].concat();
        let text = said(&weir(&service, &arguments));
        let printed: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(printed, service.get(path), "{arguments:?}");
    }
}

#[test]
fn tables_have_what_was_asked_and_no_colours_in_a_pipe() {
    let service = Service::with(&two_kilns());
    for (arguments, parts) in [
        (vec!["devices"], vec!["DEVICE", "kiln-2", "3 devices, 1 connected"]),
        (
            vec!["state", "kiln-1"],
            vec!["1.5.0 on rev-b", "oven", "30.0", "above 25.0", "7 stored, 3 lost, 0 missing"],
        ),
        (vec!["state", "kiln-1", "--at", "2026-11-20T18:00:01.5Z"], vec!["1.4.0", "20.0", "500ms earlier"]),
        (
            vec!["history", "kiln-1"],
            vec!["boot 18446744073709551615", "boot 7\n", "sensor=oven value=21.5 unit=Cel"],
        ),
        (
            vec!["boots", "kiln-1"],
            vec!["stored   3 events: 1–3; 3 more that arrived again", "lost     4–6: outbox-full"],
        ),
        (vec!["boots", "kiln-2"], vec!["missing  1–2"]),
        (vec!["dead-letters"], vec!["#", "message 3 on weir.1.segments.hall.gw-1.main"]),
        (vec!["status"], vec!["role serve", "1 dead letter", "gw-1"]),
    ] {
        let text = said(&weir(&service, &arguments));
        assert!(!text.contains('\x1b'), "{text:?}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?} should say {part:?}:\n{text}");
        }
    }
}

#[test]
fn long_histories_come_whole_and_in_order() {
    let mut log = Log::new();
    for part in 0..25_u32 {
        let facts: Vec<_> =
            (0..100).map(|n| reading(u64::from(part * 100 + n), "oven", f64::from(n))).collect();
        log.segment(&[("kiln-1", uplink(5, 0, part * 100 + 1, &facts))]);
    }
    let service = Service::with(&log);
    let seqs = |arguments: &[&str]| -> Vec<u64> {
        let text = said(&weir(&service, arguments));
        let document: Value = serde_json::from_str(&text).expect("one JSON document, however many pages");
        let events = document["events"].as_array().expect("a list");
        events.iter().filter_map(|event| event["seq"].as_u64()).collect()
    };
    assert_eq!(seqs(&["history", "kiln-1", "--json"]), (1..=2_500).collect::<Vec<_>>());
    let newest = seqs(&["history", "kiln-1", "--json", "--newest-first", "--limit", "1100"]);
    assert_eq!(newest, (1_401..=2_500).rev().collect::<Vec<_>>());
    let text = said(&weir(&service, &["history", "kiln-1"]));
    assert_eq!(text.lines().count(), 1 + 2_500, "a heading and a line for each event");
}

#[test]
fn it_says_what_is_wrong_and_by_its_exit_code_whose_fault_it_is() {
    let service = Service::with(&two_kilns());
    assert!(complained(&weir(&service, &["state", "kiln-9"]), 1).contains("`weir devices`"));
    assert!(complained(&weir(&service, &["state", "kiln/1"]), 2).contains("names no device"));
    assert!(complained(&weir(&service, &["state", "kiln-1", "--at", "noon"]), 2).contains("10m ago"));
    assert!(complained(&weir(&service, &["history", "kiln-1", "--kind", "No Kind"]), 2).contains("kind"));
    assert!(complained(&weir(&service, &["history", "kiln-1", "--limit", "0"]), 2).contains("limit"));
    assert!(complained(&weir(&service, &["devices", "--api", "ftp://x"]), 2).contains("http://host:port"));
    let nobody = complained(&weir(&service, &["devices", "--api", "http://127.0.0.1:1"]), 2);
    assert!(nobody.contains("http://127.0.0.1:1") && nobody.contains("weir doctor"), "{nobody}");
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let service = Service::with(&two_kilns());
    let output = weir(&service, &["doctor"]);
    let text = said(&output);
    assert!(text.contains("ok       cloud:"), "{text}");
    assert!(text.contains("warning  dead letters: 1 thing"), "{text}");
    assert!(text.contains("warning  missing: 2 events of kiln-2:"), "{text}");
    assert!(text.contains("warning  lost: 3 events of kiln-1:"), "{text}");

    let gone = weir(&service, &["doctor", "--gateway", "http://127.0.0.1:1", "--json"]);
    assert_eq!(gone.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&gone.stdout).expect("JSON");
    assert_eq!(answer["ok"], json!(false));
    let last = answer["checks"].as_array().and_then(|checks| checks.last()).expect("checks");
    assert_eq!(
        (&last["check"], &last["verdict"]),
        (&json!("gateway at http://127.0.0.1:1"), &json!("failed"))
    );

    let nobody = weir(&service, &["doctor", "--api", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stdout).contains("weir-cloud all --config"));
}
