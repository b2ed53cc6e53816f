//! `weir-gateway map`: what rules make of messages.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use serde_json::{Value as Json, json};
use weir_contract::Id;

use super::arguments::Samples;
use crate::config::Config;
use crate::intake;
use crate::source::map::{Mapper, Outcome, Problem, Readings, Rule, Value};

/// The longest line that is read: a topic, a blank, a payload.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(super) fn map(samples: &Samples) -> Result<ExitCode> {
    if let Some(preset) = samples.show {
        print!("{}", preset.text());
        return Ok(ExitCode::SUCCESS);
    }
    let (mapper, of) = mapper(samples)?;
    let mut printer = Printer { json: samples.json, all_understood: true, count: 0 };
    let sample = samples.sample.as_deref().context("nothing to try: --try")?;
    match sample.strip_prefix('@') {
        _ if sample == "-" => each_line(std::io::stdin().lock(), "standard input", &mapper, &mut printer)?,
        Some(file) => {
            let open = std::fs::File::open(file).with_context(|| format!("cannot read {file}"))?;
            each_line(BufReader::new(open), file, &mapper, &mut printer)?;
        }
        None => printer.show(&mapper, sample.as_bytes()).with_context(|| of)?,
    }
    Ok(if printer.all_understood { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rules, and what they are called.
fn mapper(samples: &Samples) -> Result<(Mapper, String)> {
    let Some(file) = &samples.config else {
        let rules: Vec<Rule> = samples.preset.iter().flat_map(|preset| preset.rules()).collect();
        return Ok((Mapper::new(&rules, &BTreeMap::new(), None)?, "a sample".to_owned()));
    };
    let config = Config::load(file)?;
    let brokers = &config.source.mqtt;
    let names = || brokers.iter().map(|broker| broker.name.to_string()).collect::<Vec<_>>().join(", ");
    let broker = match (&samples.source, brokers.as_slice()) {
        (_, []) => bail!("{} has no [source.mqtt]; --preset NAME tries rules without one", file.display()),
        (None, [one]) => one,
        (None, _) => bail!("{} has several brokers: say --source with one of {}", file.display(), names()),
        (Some(name), all) => match all.iter().find(|broker| broker.name.as_str() == name) {
            Some(broker) => broker,
            None => bail!("{} has no broker {name}; it has {}", file.display(), names()),
        },
    };
    Ok((broker.mapper(Some(config.gateway.id))?, format!("a sample for {}", broker.name)))
}

fn each_line(mut lines: impl BufRead, of: &str, mapper: &Mapper, printer: &mut Printer) -> Result<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let len = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if len.with_context(|| format!("cannot read {of}"))? == 0 {
            break;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            printer.show(mapper, line).with_context(|| format!("{of}, line {number}"))?;
        }
    }
    if printer.count == 0 {
        bail!("{of} has no message; a line is `TOPIC PAYLOAD`, as mosquitto_sub -v prints it");
    }
    Ok(())
}

struct Printer {
    json: bool,
    all_understood: bool,
    count: u64,
}

impl Printer {
    fn show(&mut self, mapper: &Mapper, line: &[u8]) -> Result<()> {
        let end = end_of_topic(line);
        let topic = std::str::from_utf8(&line[..end]).context("the topic is no UTF-8")?;
        if topic.is_empty() || topic.contains(['+', '#', '{', '"']) {
            bail!("{topic:?} is no topic; a sample is `TOPIC PAYLOAD`, as mosquitto_sub -v prints it");
        }
        let payload = line.get(end + 1..).unwrap_or_default();
        let outcome = mapper.map(topic, payload);
        let uplink = match &outcome {
            Outcome::Uplink { .. } => Some(intake::read(payload).map_err(|refusal| refusal.to_string())),
            _ => None,
        };
        let refused = matches!(uplink, Some(Err(_)));
        self.all_understood &= !refused && !matches!(outcome, Outcome::Unmapped { .. });
        self.count += 1;
        if self.json {
            println!("{}", as_json(topic, &outcome, uplink.as_ref().and_then(|read| read.as_ref().err())));
            return Ok(());
        }
        if self.count > 1 {
            println!();
        }
        println!("{topic}");
        match &outcome {
            Outcome::Readings(readings) => show_readings(readings),
            Outcome::Uplink { device, rule } => match uplink {
                Some(Err(refusal)) => println!("  NOT UNDERSTOOD by {rule}: {refusal}"),
                _ => println!("  an uplink of {device}, taken as it is, by {rule}"),
            },
            Outcome::Nothing { rule } => println!("  nothing is taken, by {rule}"),
            Outcome::Unmapped { rule, problem } => {
                let by = rule.map_or(String::new(), |rule| format!(" by {rule}"));
                println!("  NOT UNDERSTOOD{by}: {} ({})", problem.said, problem.reason.as_str());
            }
        }
        Ok(())
    }
}

/// `mosquitto_sub -v` prints a blank between them, and topics may have blanks, too: JSON begins with a brace or a bracket after
/// one; else it is the first blank.
fn end_of_topic(line: &[u8]) -> usize {
    let json = line.windows(2).position(|two| two[0] == b' ' && matches!(two[1], b'{' | b'['));
    json.or_else(|| line.iter().position(|byte| *byte == b' ')).unwrap_or(line.len())
}

fn show_readings(readings: &Readings<'_>) {
    println!("  device {}, by {}", readings.device, readings.rule);
    println!("  observed {}", readings.at_ms.map_or("when it is received".to_owned(), time));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SENSOR", "VALUE", "UNIT"]);
    for reading in &readings.readings {
        let value = match &reading.value {
            Value::Text(text) => format!("{text:?}"),
            other => as_json_value(other).to_string(),
        };
        table.add_row([reading.sensor.to_string(), value, reading.unit.unwrap_or("").to_owned()]);
    }
    for line in table.to_string().lines() {
        // It has a blank before each column.
        println!(" {}", line.trim_end());
    }
    for problem in &readings.problems {
        println!("  left out: {} ({})", problem.said, problem.reason.as_str());
    }
}

fn as_json(topic: &str, outcome: &Outcome<'_>, refused: Option<&String>) -> Json {
    let told = |problem: &Problem| json!({ "reason": problem.reason.as_str(), "said": problem.said });
    let id = |id: &Id| id.to_string();
    match outcome {
        Outcome::Readings(readings) => json!({
            "topic": topic,
            "rule": readings.rule,
            "device": id(&readings.device),
            "at_ms": readings.at_ms,
            "readings": readings.readings.iter().map(|reading| json!({
                "sensor": id(&reading.sensor),
                "value": as_json_value(&reading.value),
                "unit": reading.unit,
            })).collect::<Vec<_>>(),
            "problems": readings.problems.iter().map(told).collect::<Vec<_>>(),
        }),
        Outcome::Uplink { device, rule } => match refused {
            None => json!({ "topic": topic, "rule": rule, "device": id(device), "uplink": true }),
            Some(said) => {
                let problem = json!({ "reason": "not-an-uplink", "said": said });
                json!({ "topic": topic, "rule": rule, "problems": [problem] })
            }
        },
        Outcome::Nothing { rule } => json!({ "topic": topic, "rule": rule, "nothing": true }),
        Outcome::Unmapped { rule, problem } => {
            json!({ "topic": topic, "rule": rule, "problems": [told(problem)] })
        }
    }
}

fn as_json_value(value: &Value) -> Json {
    match value {
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::Text(value) => json!(value),
    }
}

fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| unix_ms.to_string(), |timestamp| format!("{timestamp:.3}"))
}
