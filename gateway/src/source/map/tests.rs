use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_contract::Id;

use super::*;

fn mapper(rules: &str) -> Mapper {
    #[derive(serde::Deserialize)]
    struct File {
        rule: Vec<Rule>,
    }
    let file: File = toml::from_str(rules).unwrap_or_else(|error| panic!("{error}"));
    Mapper::new(&file.rule, &BTreeMap::new(), Some("gw-1".parse().unwrap())).unwrap()
}

fn preset(preset: Preset) -> Mapper {
    Mapper::new(&preset.rules(), &BTreeMap::new(), None).unwrap()
}

/// `device: sensor=value unit, …`, or why not.
fn told(mapper: &Mapper, topic: &str, payload: &str) -> String {
    match mapper.map(topic, payload.as_bytes()) {
        Outcome::Readings(Readings { device, readings, problems, .. }) => {
            let mut parts: Vec<String> = readings
                .iter()
                .map(|Reading { sensor, value, unit }| {
                    let value = match value {
                        Value::Int(value) => value.to_string(),
                        Value::Float(value) => format!("{value:?}"),
                        Value::Bool(value) => value.to_string(),
                        Value::Text(value) => format!("'{value}'"),
                    };
                    format!("{sensor}={value}{}", unit.map_or(String::new(), |unit| format!(" {unit}")))
                })
                .collect();
            parts.extend(problems.iter().map(|problem| format!("!{}", problem.reason.as_str())));
            format!("{device}: {}", parts.join(", "))
        }
        Outcome::Uplink { device, .. } => format!("{device}: uplink"),
        Outcome::Nothing { .. } => "nothing".to_owned(),
        Outcome::Unmapped { problem, .. } => format!("!{}", problem.reason.as_str()),
    }
}

/// What the devices really send, from their makers' documentation, and what is made of it.
#[test]
fn presets_understand_what_the_devices_send() {
    let cases = [
        (
            Preset::Zigbee2mqtt,
            "zigbee2mqtt/kitchen",
            r#"{"battery":97,"humidity":45.12,"linkquality":120,"pressure":1013.2,"temperature":21.57,"voltage":2985}"#,
            "kitchen: temperature=21.57 Cel, humidity=45.12 %RH, pressure=101320 Pa, battery=97 %EL, voltage=2985, linkquality=120",
        ),
        (
            Preset::Zigbee2mqtt,
            "zigbee2mqtt/0x00158d0001a2b3c4",
            r#"{"contact":false,"update":{"state":"idle"},"battery":null}"#,
            "0x00158d0001a2b3c4: contact=false",
        ),
        (
            Preset::Zigbee2mqtt,
            "zigbee2mqtt/plug/availability",
            r#"{"state":"offline"}"#,
            "plug: online=false",
        ),
        (
            Preset::Zigbee2mqtt,
            "zigbee2mqtt/plug",
            r#"{"state":"ON","energy":12.345,"power":3}"#,
            "plug: power=3 W, energy=44442000 J, state=true",
        ),
        (Preset::Tasmota, "tele/plug1/LWT", "Online", "plug1: online=true"),
        (Preset::Tasmota, "stat/plug1/POWER", "OFF", "plug1: POWER=false"),
        (Preset::Tasmota, "stat/plug1/POWER2", "ON", "plug1: POWER2=true"),
        (Preset::Tasmota, "stat/plug1/RESULT", r#"{"POWER":"ON"}"#, "nothing"),
        (
            Preset::Tasmota,
            "tele/plug1/SENSOR",
            r#"{"Time":"2026-11-21T17:00:00","ENERGY":{"Total":1.5,"Power":7,"Factor":0.98,"Voltage":230,"Current":0.031}}"#,
            "plug1: power=7 W, power-factor=0.98 /, voltage=230 V, current=0.031 A, energy=5400000 J",
        ),
        (
            Preset::Tasmota,
            "tele/th/SENSOR",
            r#"{"Time":"2026-11-21T17:00:00","AM2301":{"Temperature":20.6,"Humidity":55.1},"DS18B20":{"Id":"01","Temperature":19.1},"TempUnit":"C"}"#,
            "th: AM2301-temperature=20.6 Cel, DS18B20-temperature=19.1 Cel, AM2301-humidity=55.1 %RH",
        ),
        (
            Preset::Tasmota,
            "tele/th/SENSOR",
            r#"{"BME280":{"Temperature":68.1,"Humidity":55,"Pressure":1013},"TempUnit":"F"}"#,
            "th: BME280-temperature=68.1 degF, BME280-humidity=55 %RH, BME280-pressure=101300 Pa",
        ),
        (
            Preset::Tasmota,
            "tele/plug1/STATE",
            r#"{"UptimeSec":70,"POWER1":"ON","POWER2":"OFF","Wifi":{"AP":1,"RSSI":80,"Signal":-60}}"#,
            "plug1: rssi=-60 dBm, uptime=70 s, POWER1=true, POWER2=false",
        ),
        (
            Preset::ShellyGen1,
            "shellies/shellyht-F3/sensor/temperature",
            "21.25",
            "shellyht-F3: temperature=21.25 Cel",
        ),
        (Preset::ShellyGen1, "shellies/shelly1pm-A/relay/0", "on", "shelly1pm-A: relay0=true"),
        (
            Preset::ShellyGen1,
            "shellies/shelly1pm-A/relay/0/energy",
            "120",
            "shelly1pm-A: relay0-energy=7200 J",
        ),
        (Preset::ShellyGen1, "shellies/shelly1pm-A/relay/0/power", "broken", "!wrong-kind"),
        (
            Preset::ShellyGen2,
            "shellyplus1pm-a8/events/rpc",
            r#"{"src":"shellyplus1pm-a8","dst":"x","method":"NotifyStatus","params":{"ts":1795276800.12,"switch:0":{"id":0,"apower":8.9,"output":true,"aenergy":{"total":2.5},"temperature":{"tC":35.1,"tF":95.2}}}}"#,
            "shellyplus1pm-a8: switch_0-power=8.9 W, switch_0-energy=9000 J, switch_0-on=true, switch_0-inner-temperature=35.1 Cel",
        ),
        (
            Preset::ShellyGen2,
            "shellyplusht-b1/events/rpc",
            r#"{"method":"NotifyFullStatus","params":{"ts":1795276800,"temperature:0":{"id":0,"tC":19.5,"tF":67.1},"humidity:0":{"id":0,"rh":61},"devicepower:0":{"battery":{"V":5.9,"percent":88}}}}"#,
            "shellyplusht-b1: temperature_0=19.5 Cel, humidity_0=61 %RH, devicepower_0-battery=88 %EL",
        ),
        (Preset::ShellyGen2, "shellyplusht-b1/online", "true", "shellyplusht-b1: online=true"),
        (
            Preset::Esphome,
            "porch/sensor/outside_temperature/state",
            "-3.5",
            "porch: outside_temperature=-3.5",
        ),
        (Preset::Esphome, "porch/sensor/outside_temperature/state", "nan", "!wrong-kind"),
        (Preset::Esphome, "porch/binary_sensor/door/state", "ON", "porch: door=true"),
        (Preset::Esphome, "porch/status", "offline", "porch: online=false"),
        (Preset::Homeassistant, "homeassistant/sensor/outside/state", "4.5", "outside: state=4.5"),
        (
            Preset::Homeassistant,
            "homeassistant/sensor/outside/state",
            "unavailable",
            "outside: state='unavailable'",
        ),
        (Preset::Homeassistant, "homeassistant/binary_sensor/door/state", "on", "door: state=true"),
        (Preset::Weir, "weir/1/d-1/events", "x", "d-1: uplink"),
    ];
    for (name, topic, payload, expected) in cases {
        assert_eq!(told(&preset(name), topic, payload), expected, "{name:?} {topic} {payload}");
    }
}

#[test]
fn every_preset_is_read_and_subscribes_to_something() {
    for name in Preset::ALL {
        assert!(!preset(name).filters().is_empty(), "{name:?}");
        assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
    }
    assert_eq!(preset(Preset::Zigbee2mqtt).filters(), ["zigbee2mqtt/+", "zigbee2mqtt/+/availability"]);
}

#[test]
fn filters_that_others_cover_are_left_out() {
    let rule = |topic: &str| {
        format!("[[rule]]\ntopic = {topic:?}\ndevice = \"d\"\nreading = [{{ sensor = \"s\" }}]\n")
    };
    let text: String =
        ["a/{x}/c", "a/b/c", "a/+/c", "d/#", "d", "d/e", "+/q"].into_iter().map(rule).collect();
    assert_eq!(mapper(&text).filters(), ["+/q", "a/+/c", "d/#"]);
}

#[test]
fn the_first_rule_that_fits_counts() {
    let mapper = mapper(
        r#"
        [[rule]]
        topic = "x/{device}"
        when = { path = "/type", is = "a" }
        reading = [{ sensor = "from-a", path = "/v" }]
        [[rule]]
        topic = "x/hidden"
        take = "nothing"
        [[rule]]
        topic = "x/{device}"
        reading = [{ sensor = "from-all", path = "/v" }]
        "#,
    );
    assert_eq!(told(&mapper, "x/d", r#"{"type":"a","v":1}"#), "d: from-a=1");
    assert_eq!(told(&mapper, "x/d", r#"{"type":"b","v":1}"#), "d: from-all=1");
    assert_eq!(told(&mapper, "x/hidden", "anything"), "nothing");
    assert_eq!(told(&mapper, "y/d", "{}"), "!no-rule");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_of_the_message_is_taken() {
    let mapper = mapper(
        r#"
        [[rule]]
        topic = "x/{device}"
        time = { path = "/t", format = "unix-s" }
        reading = [
            { sensor = "n", path = "/n", as = "number" },
            { sensor = "n", path = "/m", as = "number" },
            { sensor = "s", path = "/s", as = "text" },
            { sensor = "o", path = "/o" },
        ]
        "#,
    );
    let long = "ä".repeat(200);
    let cases = [
        (r#"{"n":1,"s":"x"}"#, "d: n=1, s='x'"),
        (r#"{"n":"1.50","s":7}"#, "d: n=1.5, s='7'"),
        (r#"{"n":"warm","s":"x"}"#, "d: s='x', !wrong-kind"),
        (r#"{"n":1,"m":2}"#, "d: n=1, !sensor-twice"),
        (r#"{"o":{"x":1},"n":true}"#, "!wrong-kind"),
        (r#"{"n":1,"t":12}"#, "d: n=1, !bad-time"),
        (r#"{"n":null}"#, "nothing"),
        (r#"{"other":1}"#, "!no-reading"),
        ("[1,2]", "!no-reading"),
        ("21.5 C", "!not-json"),
        ("", "!not-json"),
        (r#"{"n":1e999}"#, "!not-json"),
        (&format!(r#"{{"s":"{long}","n":0}}"#), "d: n=0, !text-too-long"),
    ];
    for (payload, expected) in cases {
        assert_eq!(told(&mapper, "x/d", payload), expected, "{payload}");
    }
    assert_eq!(told(&mapper, "x/gw-1", r#"{"n":1}"#), "!gateways-own");
    let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(told(&mapper, "x/d", &nested), "!not-json");
}

#[test]
fn a_message_has_at_most_so_many_readings() {
    let mapper =
        mapper("[[rule]]\ntopic = \"x/{device}\"\nreading = [{ sensor = \"{k}\", path = \"/{k}\" }]\n");
    let entries: Vec<String> = (0..EVENTS_MAX + 5).map(|n| format!("\"k{n}\":{n}")).collect();
    let payload = format!("{{{}}}", entries.join(","));
    let Outcome::Readings(readings) = mapper.map("x/d", payload.as_bytes()) else { panic!("no readings") };
    assert_eq!((readings.readings.len(), readings.problems[0].reason), (EVENTS_MAX, Reason::TooMany));
}

#[test]
fn devices_keep_their_names_apart() {
    let id = |called: &str| device_id(called).unwrap().to_string();
    assert_eq!(id("kitchen-2"), "kitchen-2");
    assert!(id("living room").starts_with("living_room-") && id("living room").len() == 18);
    assert_ne!(id("living room"), id("living_room"));
    assert_ne!(id(&"ü".repeat(50)), id(&"ö".repeat(50)));
    assert_eq!(device_id(""), None);
    let names = BTreeMap::from([("living room".to_owned(), "lounge".parse::<Id>().unwrap())]);
    let mapper = Mapper::new(&Preset::Zigbee2mqtt.rules(), &names, None).unwrap();
    assert_eq!(told(&mapper, "zigbee2mqtt/living room", r#"{"battery":5}"#), "lounge: battery=5 %EL");
}

#[test]
fn a_bad_rule_is_refused_with_what_is_wrong_and_what_is_allowed() {
    let cases = [
        ("topic = \"a/{x}\"", "names at least one `reading`"),
        ("topic = \"a/{x}\"\nreading = [{ sensor = \"s\" }]", "nothing captures {device}; captured are: x"),
        (
            "topic = \"a/{device}\"\nreading = [{ sensor = \"{k}\", path = \"/t\" }]",
            "nothing captures {k}; captured are: device",
        ),
        ("topic = \"a/b+\"\nreading = [{ sensor = \"s\" }]", "`+` alone in its level"),
        ("topic = \"a/{device}\"\nreading = [{ sensor = \"a b\" }]", "1 to 32 of"),
        ("topic = \"a/{device}\"\nreading = [{ sensor = \"s\", path = \"t\" }]", "RFC 6901"),
        (
            "topic = \"a/{device}\"\nreading = [{ sensor = \"s\", scale = nan }]",
            "scale = NaN: a finite number",
        ),
        (
            "topic = \"a/{device}\"\nreading = [{ sensor = \"s\", as = \"bool\", scale = 2 }]",
            "are for numbers",
        ),
        (
            "topic = \"a/{device}\"\nreading = [{ sensor = \"s\", as = \"float\" }]",
            "expected one of `any`, `number`",
        ),
        (
            "topic = \"a/{device}\"\npayload = \"text\"\nreading = [{ sensor = \"s\", path = \"/x\" }]",
            "no `path`",
        ),
        (
            "topic = \"a/{device}\"\ntake = \"uplinks\"\nreading = [{ sensor = \"s\" }]",
            "only for a rule that takes readings",
        ),
        ("topic = \"a/{device}\"\nreading = [{ sensr = \"s\" }]", "unknown field `sensr`"),
    ];
    for (rule, said) in cases {
        let error = toml::from_str::<Rule>(rule).expect_err(rule).to_string();
        assert!(error.contains(said), "{rule}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic_and_what_comes_out_is_bounded(
        topic in prop_oneof!["[a-z{}/+#$ü0-9]{0,40}", "zigbee2mqtt/[a-z ]{0,50}", "[a-z]{1,5}/events/rpc"],
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            json_like().prop_map(String::into_bytes),
        ],
    ) {
        let rules: Vec<Rule> = Preset::ALL.into_iter().flat_map(Preset::rules).collect();
        let mapper = Mapper::new(&rules, &BTreeMap::new(), None).unwrap();
        match mapper.map(&topic, &payload) {
            Outcome::Readings(readings) => {
                prop_assert!((1..=EVENTS_MAX).contains(&readings.readings.len()));
                prop_assert!(readings.problems.len() <= PROBLEMS_MAX);
                for reading in &readings.readings {
                    match &reading.value {
                        Value::Text(text) => prop_assert!(text.len() <= value::TEXT_BYTES_MAX),
                        Value::Float(value) => prop_assert!(value.is_finite()),
                        Value::Int(_) | Value::Bool(_) => {}
                    }
                }
            }
            Outcome::Unmapped { problem, .. } => prop_assert!(problem.said.len() < 1000),
            Outcome::Uplink { .. } | Outcome::Nothing { .. } => {}
        }
    }

    #[test]
    fn every_number_comes_out_as_it_went_in(int in any::<i64>(), float in any::<f64>()) {
        let mapper = mapper("[[rule]]\ntopic = \"x/{device}\"\nreading = [{ sensor = \"s\", path = \"/v\" }]\n");
        let value = |text: &str| match mapper.map("x/d", format!("{{\"v\":{text}}}").as_bytes()) {
            Outcome::Readings(readings) => readings.readings[0].value.clone(),
            other => panic!("{text}: {other:?}"),
        };
        prop_assert_eq!(value(&int.to_string()), Value::Int(int));
        if float.is_finite() {
            let Value::Float(read) = value(&format!("{float:e}")) else { panic!("no float: {float:e}") };
            prop_assert_eq!(read.to_bits(), float.to_bits());
        }
    }
}

/// What looks like a device's JSON, mostly.
fn json_like() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        "[ -~]{0,300}".prop_map(|text| format!("{text:?}")),
        Just("null".to_owned()),
        Just("true".to_owned()),
        "[ -~]{0,5}",
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let key = prop_oneof![
            Just("temperature".to_owned()),
            Just("params".to_owned()),
            Just("state".to_owned()),
            Just("switch:0".to_owned()),
            Just("ts".to_owned()),
            Just("battery".to_owned()),
            "[a-z:]{0,40}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key, inner), 0..8).prop_map(|entries| {
                let entries: Vec<String> =
                    entries.into_iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}
