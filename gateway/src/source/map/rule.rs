//! Rules as the configuration writes them, each checked where it stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_contract::Id;

use super::pattern::{BadPattern, Place, Template, Topic};
use super::value::{Decimal, Scaling, TimeFormat};

/// Most readings one rule may name.
pub const READINGS_MAX: usize = 64;
/// The longest unit.
const UNIT_BYTES_MAX: usize = 32;
/// Most words one reading may translate.
const VALUES_MAX: usize = 32;

/// What is made of the messages on some topics.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Said")]
pub struct Rule {
    /// Which topics: `zigbee2mqtt/{device}`.
    pub topic: String,
    /// What is taken of them.
    pub take: Take,
    /// Whose readings they are, as a template.
    pub device: String,
    /// What the payload is.
    pub payload: Payload,
    /// Only messages in which this holds.
    pub when: Option<When>,
    /// When it was observed; else when it is received.
    pub time: Option<Time>,
    /// What it says, in the order in which it is looked for. What one has taken is left alone by those after it.
    pub reading: Vec<Reading>,
}

/// A rule as it is written, not yet held together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    topic: String,
    #[serde(default)]
    take: Take,
    #[serde(default = "device_default")]
    device: String,
    #[serde(default)]
    payload: Payload,
    when: Option<When>,
    time: Option<Time>,
    #[serde(default)]
    reading: Vec<Reading>,
}

fn device_default() -> String {
    "{device}".to_owned()
}

/// What is taken of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// Readings, which the gateway numbers.
    #[default]
    Readings,
    /// Nothing; and that is right so.
    Nothing,
    /// The payload is an uplink of a device of ours, and stays as it is.
    Uplinks,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// JSON.
    #[default]
    Json,
    /// One value, plain.
    Text,
}

/// A condition: at `path` stands `is`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// A place in the payload.
    pub path: String,
    /// What has to stand there.
    pub is: Word,
}

/// Where a message says when it was observed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// A place in the payload.
    pub path: String,
    /// How it is written.
    pub format: TimeFormat,
}

/// One value of a message, or several of one kind.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Which sensor, as a template.
    pub sensor: String,
    /// Where it stands in the payload; `""` is the whole.
    #[serde(default)]
    pub path: String,
    /// Its unit (SenML, RFC 8428).
    pub unit: Option<String>,
    /// By what a number is multiplied.
    pub scale: Option<f64>,
    /// What is added after that.
    pub offset: Option<f64>,
    /// What it has to be; a text may be read as one.
    #[serde(rename = "as", default)]
    pub kind: Kind,
    /// What words mean.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Word>,
}

/// What a value has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// As JSON says it.
    #[default]
    Any,
    /// A number, or a text that is one.
    Number,
    /// Yes or no, in whatever words.
    Bool,
    /// A text.
    Text,
}

/// A value in the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected true, false, a number or a text")]
pub enum Word {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Words.
    Text(String),
}

/// What is wrong with a rule, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// A pattern or template.
    #[error("{key} = {bad}")]
    Pattern {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        bad: BadPattern,
    },
    /// A template that uses a capture nobody makes.
    #[error("{key} = {template:?}: nothing captures {{{name}}}; captured are: {known}")]
    Unknown {
        /// Which key.
        key: &'static str,
        /// The template.
        template: String,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A template without a capture that is no name.
    #[error("{key} = {text:?}: {bad}")]
    Name {
        /// Which key.
        key: &'static str,
        /// What was read.
        text: String,
        /// What is allowed.
        bad: weir_contract::BadName,
    },
    /// Keys that do not go together.
    #[error("{0}")]
    Keys(&'static str),
    /// Too many of something, or too long.
    #[error("{key}: {found} are more than {max}")]
    TooMany {
        /// Which key.
        key: &'static str,
        /// How many there are.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A number that is none.
    #[error("{key} = {value}: a finite number is allowed")]
    Number {
        /// Which key.
        key: &'static str,
        /// What was read.
        value: String,
    },
}

impl TryFrom<Said> for Rule {
    type Error = BadRule;

    fn try_from(said: Said) -> Result<Rule, BadRule> {
        let Said { topic, take, device, payload, when, time, reading } = said;
        let rule = Rule { topic, take, device, payload, when, time, reading };
        Checked::new(&rule)?;
        Ok(rule)
    }
}

/// A rule whose patterns have been read.
#[derive(Debug)]
pub(super) struct Checked {
    pub topic: Topic,
    pub take: Take,
    pub device: Template,
    pub payload: Payload,
    pub when: Option<(Place, Word)>,
    pub time: Option<(Place, TimeFormat)>,
    pub readings: Vec<CheckedReading>,
}

/// A reading whose patterns have been read.
#[derive(Debug)]
pub(super) struct CheckedReading {
    pub sensor: Template,
    pub place: Place,
    pub unit: Option<Box<str>>,
    pub scaling: Option<Scaling>,
    pub kind: Kind,
    pub values: BTreeMap<String, Word>,
}

impl Checked {
    pub fn new(rule: &Rule) -> Result<Checked, BadRule> {
        let topic = Topic::parse(&rule.topic).map_err(in_key("topic"))?;
        let readings_only = rule.when.is_none() && rule.time.is_none() && rule.reading.is_empty();
        match rule.take {
            Take::Readings if rule.reading.is_empty() => {
                return Err(BadRule::Keys("a rule that takes readings names at least one `reading`"));
            }
            Take::Nothing | Take::Uplinks if !readings_only => {
                return Err(BadRule::Keys(
                    "`reading`, `time` and `when` are only for a rule that takes readings",
                ));
            }
            _ => {}
        }
        if rule.reading.len() > READINGS_MAX {
            return Err(BadRule::TooMany { key: "reading", found: rule.reading.len(), max: READINGS_MAX });
        }
        let device = Template::parse(&rule.device).map_err(in_key("device"))?;
        if rule.take != Take::Nothing {
            check_template("device", &rule.device, &device, &topic.names().collect::<Vec<_>>())?;
        }
        if rule.payload == Payload::Text && (rule.when.is_some() || rule.time.is_some()) {
            return Err(BadRule::Keys("`time` and `when` are only for JSON"));
        }
        let one_place = |key, path: &str| {
            let place = Place::parse(path).map_err(in_key(key))?;
            let many = BadRule::Keys("the `path` of `time` and of `when` is one place: without captures");
            if place.captures() { Err(many) } else { Ok(place) }
        };
        let when = rule.when.as_ref();
        let when = when.map(|when| Ok((one_place("when.path", &when.path)?, when.is.clone()))).transpose()?;
        let time = rule.time.as_ref();
        let time = time.map(|time| Ok((one_place("time.path", &time.path)?, time.format))).transpose()?;
        let reading = |reading| CheckedReading::new(reading, &topic, rule.payload);
        let readings = rule.reading.iter().map(reading).collect::<Result<_, _>>()?;
        Ok(Checked { topic, take: rule.take, device, payload: rule.payload, when, time, readings })
    }
}

impl CheckedReading {
    fn new(reading: &Reading, topic: &Topic, payload: Payload) -> Result<CheckedReading, BadRule> {
        let sensor = Template::parse(&reading.sensor).map_err(in_key("sensor"))?;
        let place = Place::parse(&reading.path).map_err(in_key("path"))?;
        if payload == Payload::Text && !place.is_whole() {
            return Err(BadRule::Keys("a payload that is text is one value: no `path`"));
        }
        check_template(
            "sensor",
            &reading.sensor,
            &sensor,
            &topic.names().chain(place.names()).collect::<Vec<_>>(),
        )?;
        let unit = reading.unit.as_deref();
        if let Some(unit) = unit.filter(|unit| unit.is_empty() || unit.len() > UNIT_BYTES_MAX) {
            return Err(BadRule::TooMany { key: "unit: bytes", found: unit.len(), max: UNIT_BYTES_MAX });
        }
        if reading.values.len() > VALUES_MAX {
            return Err(BadRule::TooMany { key: "values", found: reading.values.len(), max: VALUES_MAX });
        }
        let scaled = reading.scale.is_some() || reading.offset.is_some();
        if scaled && matches!(reading.kind, Kind::Bool | Kind::Text) {
            return Err(BadRule::Keys("`scale` and `offset` are for numbers"));
        }
        let decimal = |key, number: f64| {
            Decimal::of(number).ok_or_else(|| BadRule::Number { key, value: number.to_string() })
        };
        let scale = decimal("scale", reading.scale.unwrap_or(1.0))?;
        let offset = decimal("offset", reading.offset.unwrap_or(0.0))?;
        Ok(CheckedReading {
            sensor,
            place,
            unit: unit.map(Into::into),
            scaling: scaled.then_some(Scaling { scale, offset }),
            kind: reading.kind,
            values: reading.values.clone(),
        })
    }
}

fn in_key(key: &'static str) -> impl Fn(BadPattern) -> BadRule {
    move |bad| BadRule::Pattern { key, bad }
}

/// Every name a template uses is captured; and one that uses none is a name already.
fn check_template(key: &'static str, text: &str, template: &Template, known: &[&str]) -> Result<(), BadRule> {
    if let Some(name) = template.names().find(|name| !known.contains(name)) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let (template, name) = (text.to_owned(), name.to_owned());
        return Err(BadRule::Unknown { key, template, name, known });
    }
    if template.names().next().is_none() {
        text.parse::<Id>().map_err(|bad| BadRule::Name { key, text: text.to_owned(), bad })?;
    }
    Ok(())
}
