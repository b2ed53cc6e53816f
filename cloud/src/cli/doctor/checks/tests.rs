use serde_json::json;

use super::*;
use crate::api::types::{Nats, Opaque, Store, Time};

const NOW: u64 = 1_795_200_059_123;

fn well() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        role: "all".to_owned(),
        position: Position {
            stream: Some("WEIR".to_owned()),
            stream_sequence: 10,
            stream_last_sequence: Some(10),
            lag_messages: Some(0),
            lag_seconds: Some(0.0),
            reading: Some(true),
            trouble: None,
        },
        store: Store {
            devices: 1,
            events: 5,
            duplicates: 0,
            dead_letters: 0,
            file_bytes: 1,
            gateways: vec![Gateway {
                site: "hall".to_owned(),
                gateway: "gw-1".to_owned(),
                lane: "main".to_owned(),
                incarnation: Opaque(1),
                last_number: 5,
                missing: Vec::new(),
                missing_count: 0,
                last_logged_at: Time(NOW),
            }],
        },
        nats: Nats { connected: Some(true) },
    }
}

fn device(name: &str, lost: u64, missing: u64) -> Device {
    Device {
        device: name.to_owned(),
        site: None,
        gateway: None,
        connected: None,
        last_event_at: None,
        last_received_at: None,
        firmware: None,
        boots: 1,
        events: 5,
        lost,
        missing,
    }
}

fn gateway_well() -> GatewaySays {
    GatewaySays {
        status: json!({
            "gateway": "gw-1",
            "custody": { "ok": true, "error": null },
            "uplink": { "state": "up", "since_ms": NOW - 60_000, "trouble": null },
            "spool": { "waiting": 0, "oldest_age_ms": null, "bytes": 10, "budget_bytes": 100 },
            "commands": { "pending": 2, "refused": 0, "trouble": null },
        }),
        refusals: json!({ "refusals": [] }),
    }
}

/// The verdict on one link; whatever is not well must come with advice.
fn verdict(checks: &[Check], link: &str) -> Verdict {
    let check = checks.iter().find(|check| check.check.contains(link)).expect("the link is looked at");
    assert_eq!(check.advice.is_some(), check.verdict != Verdict::Ok, "{check:?}");
    check.verdict
}

#[test]
fn when_all_is_well_every_check_is_ok() {
    let mut checks = vec![reachable("http://a", Ok((200, String::new()))), ready(Ok((200, String::new())))];
    checks.extend(status(&well(), NOW));
    checks.extend(devices(Ok(vec![device("kiln-1", 0, 0)])));
    checks.extend(gateway("http://g", &Ok(gateway_well()), NOW));
    for check in checks {
        assert_eq!((check.verdict, &check.advice), (Verdict::Ok, &None), "{check:?}");
    }
}

#[test]
fn each_broken_link_is_found() {
    let gone = || Failure::Unreachable("nothing listens there".to_owned());
    assert_eq!(reachable("http://a", Err(gone())).verdict, Verdict::Failed);
    assert_eq!(reachable("http://a", Ok((404, String::new()))).verdict, Verdict::Failed);
    assert_eq!(ready(Ok((503, r#"{"ready":false,"reason":"disk"}"#.to_owned()))).finding, "disk");
    assert_eq!(ready(Err(gone())).verdict, Verdict::Failed);

    let mut broken = well();
    broken.nats.connected = Some(false);
    assert_eq!(verdict(&status(&broken, NOW), "NATS"), Verdict::Failed);
    let mut broken = well();
    broken.position.reading = Some(false);
    assert_eq!(verdict(&status(&broken, NOW), "projection"), Verdict::Failed);
    let mut broken = well();
    broken.store.dead_letters = 3;
    assert_eq!(verdict(&status(&broken, NOW), "dead letters"), Verdict::Warning);
    let mut broken = well();
    broken.store.gateways[0].missing_count = 3;
    assert_eq!(verdict(&status(&broken, NOW), "gw-1"), Verdict::Failed);
    let mut broken = well();
    let elsewhere = Gateway { site: "yard".to_owned(), ..broken.store.gateways[0].clone() };
    broken.store.gateways.push(elsewhere);
    assert_eq!(verdict(&status(&broken, NOW), "names"), Verdict::Failed);
    let mut broken = well();
    broken.store.gateways.clear();
    assert_eq!(verdict(&status(&broken, NOW), "gateways"), Verdict::Warning);
    assert_eq!(verdict(&devices(Err(gone())), "devices"), Verdict::Failed);
}

#[test]
fn what_left_the_log_before_it_was_read_is_no_hole() {
    let judged = |missing: Vec<(u64, u64)>, missing_count| {
        let mut status = well();
        let gateway = &mut status.store.gateways[0];
        (gateway.last_number, gateway.missing, gateway.missing_count) = (100, missing, missing_count);
        verdict(&super::status(&status, NOW), "gw-1")
    };
    assert_eq!(judged(vec![(1, 50)], 50), Verdict::Ok);
    assert_eq!(judged(vec![(1, 50), (60, 60)], 51), Verdict::Failed);
    assert_eq!(judged(vec![(2, 50)], 49), Verdict::Failed);
}

#[test]
fn lag_is_judged_by_its_age_not_by_its_messages() {
    for (messages, seconds, expected) in [
        (1_000_000, 1.0, Verdict::Ok),
        (1, LAG_SECONDS_WARN, Verdict::Warning),
        (1, LAG_SECONDS_FAIL, Verdict::Failed),
        (0, 0.0, Verdict::Ok),
    ] {
        let mut behind = well();
        behind.position.lag_messages = Some(messages);
        behind.position.lag_seconds = Some(seconds);
        assert_eq!(
            verdict(&status(&behind, NOW), "projection"),
            expected,
            "{messages} messages, {seconds} s"
        );
    }
}

#[test]
fn a_process_that_does_not_read_the_log_says_whom_to_ask() {
    let mut serve = well();
    serve.nats.connected = None;
    serve.position.reading = None;
    serve.position.lag_messages = None;
    let checks = status(&serve, NOW);
    assert_eq!(verdict(&checks, "NATS"), Verdict::Warning);
    assert_eq!(verdict(&checks, "projection"), Verdict::Warning);
}

#[test]
fn devices_with_most_missing_come_first() {
    let fleet: Vec<Device> = (1..=7).map(|n| device(&format!("d{n}"), 0, n)).collect();
    let checks = devices(Ok(fleet));
    assert_eq!(verdict(&checks, "missing"), Verdict::Warning);
    let finding = &checks.iter().find(|check| check.check == "missing").expect("it is looked at").finding;
    assert!(finding.starts_with("28 events of d7, d6, d5, d4, d3 and 2 more"), "{finding}");
    assert_eq!(verdict(&devices(Ok(vec![device("d", 4, 0)])), "lost"), Verdict::Warning);
}

#[test]
fn each_trouble_of_a_gateway_is_found() {
    let judged = |change: fn(&mut GatewaySays), link: &str| {
        let mut says = gateway_well();
        change(&mut says);
        verdict(&gateway("http://g", &Ok(says), NOW), link)
    };
    assert_eq!(judged(|g| g.status["custody"]["ok"] = json!(false), "custody"), Verdict::Failed);
    assert_eq!(judged(|g| g.status["uplink"]["state"] = json!("down"), "uplink"), Verdict::Failed);
    assert_eq!(judged(|g| g.status["uplink"]["state"] = json!("conflict"), "uplink"), Verdict::Failed);
    assert_eq!(judged(|g| g.status["spool"]["waiting"] = json!(7), "spool"), Verdict::Ok);
    let deaf = |g: &mut GatewaySays| g.status["commands"]["trouble"] = json!({ "text": "no stream" });
    assert_eq!(judged(deaf, "commands"), Verdict::Warning);
    assert_eq!(judged(|g| g.status["commands"]["refused"] = json!(3), "commands"), Verdict::Warning);
    let filling = |g: &mut GatewaySays| {
        g.status["spool"] =
            json!({ "waiting": 7, "bytes": 60, "budget_bytes": 100, "oldest_age_ms": 61_000 });
    };
    assert_eq!(judged(filling, "spool"), Verdict::Warning);
    let full =
        |g: &mut GatewaySays| g.status["spool"] = json!({ "waiting": 7, "bytes": 99, "budget_bytes": 100 });
    assert_eq!(judged(full, "spool"), Verdict::Failed);
    let refused = |g: &mut GatewaySays| {
        g.refusals = json!({ "refusals": [{ "client": "sim-1", "said": "not CBOR, at byte 0" }] });
    };
    assert_eq!(judged(refused, "refusals"), Verdict::Warning);
    assert_eq!(judged(|g| g.status = json!({}), "spool"), Verdict::Warning);
    assert_eq!(judged(|g| g.status = json!([1]), "uplink"), Verdict::Warning);

    let gone: Result<GatewaySays, Failure> = Err(Failure::Unreachable("nothing listens there".to_owned()));
    assert_eq!(verdict(&gateway("http://g", &gone, NOW), "gateway at http://g"), Verdict::Failed);
}
