//! What other people's messages mean: by rules, topic and payload become readings of a device. Pure.
//!
//! A message is given to the first rule whose topic fits it (and whose `when` holds). Of that rule's readings each takes what
//! stands at its place; what one has taken is left alone by those after it, so that a last one may take all the rest. Null and
//! what is not there is no reading and no fault. What cannot be read is told in a [`Problem`] and never in a panic: whatever the
//! bytes are, at most [`EVENTS_MAX`] readings come out, of texts of at most [`value::TEXT_BYTES_MAX`] bytes; JSON is nested at most
//! 128 deep.

pub mod pattern;
pub mod presets;
pub mod rule;
#[cfg(test)]
mod tests;
pub mod value;

use std::collections::BTreeMap;

use serde_json::Value as Json;
use weir_contract::Id;

use self::pattern::Captured;
pub use self::presets::Preset;
pub use self::rule::{BadRule, Rule};
use self::rule::{Checked, CheckedReading, Kind, Payload, Take, Word};
pub use self::value::Value;

/// Most readings of one message.
pub const EVENTS_MAX: usize = 128;
/// Most problems told of one message.
const PROBLEMS_MAX: usize = 8;

/// What a message is.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<'m> {
    /// Readings of a device; at least one.
    Readings(Readings<'m>),
    /// An uplink of this device.
    Uplink {
        /// Whose.
        device: Id,
        /// The rule, by its topic.
        rule: &'m str,
    },
    /// Nothing, and that is right so: a rule says it, or all its values are null.
    Nothing {
        /// The rule, by its topic.
        rule: &'m str,
    },
    /// Nothing that can be understood.
    Unmapped {
        /// The rule that was to understand it, if any, by its topic.
        rule: Option<&'m str>,
        /// Why.
        problem: Problem,
    },
}

/// Readings of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings<'m> {
    /// Whose.
    pub device: Id,
    /// When they were observed by what the message says, in Unix milliseconds.
    pub at_ms: Option<u64>,
    /// 1 to [`EVENTS_MAX`].
    pub readings: Vec<Reading<'m>>,
    /// What else there was, and could not be read.
    pub problems: Vec<Problem>,
    /// The rule, by its topic.
    pub rule: &'m str,
}

/// One reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading<'m> {
    /// Of which sensor.
    pub sensor: Id,
    /// What.
    pub value: Value,
    /// In which unit.
    pub unit: Option<&'m str>,
}

/// Why something was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One of a few fixed words, for counting.
    pub reason: Reason,
    /// What exactly, for people; short.
    pub said: String,
}

/// The few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule's topic fits, or its `when` does not hold.
    NoRule,
    /// The payload is no JSON.
    NotJson,
    /// The payload is no UTF-8.
    NotText,
    /// Nothing the rule looks for is there.
    NoReading,
    /// A value is of another kind than the rule wants.
    WrongKind,
    /// A text is too long for a value.
    TextTooLong,
    /// Two values for one sensor.
    SensorTwice,
    /// More readings than a message may have.
    TooMany,
    /// The time is none.
    BadTime,
    /// The device's name is empty.
    NoDevice,
    /// The device is the gateway itself.
    GatewaysOwn,
}

impl Reason {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoRule => "no-rule",
            Reason::NotJson => "not-json",
            Reason::NotText => "not-text",
            Reason::NoReading => "no-reading",
            Reason::WrongKind => "wrong-kind",
            Reason::TextTooLong => "text-too-long",
            Reason::SensorTwice => "sensor-twice",
            Reason::TooMany => "too-many",
            Reason::BadTime => "bad-time",
            Reason::NoDevice => "no-device",
            Reason::GatewaysOwn => "gateways-own",
        }
    }
}

fn problem(reason: Reason, said: impl Into<String>) -> Problem {
    Problem { reason, said: said.into() }
}

/// Rules that have been read.
#[derive(Debug)]
pub struct Mapper {
    rules: Vec<(String, Checked)>,
    names: BTreeMap<String, Id>,
    gateway: Option<Id>,
}

impl Mapper {
    /// `names` are the devices' names for what rules call them; nobody may be `gateway`.
    ///
    /// # Errors
    /// The first rule that is none.
    pub fn new(rules: &[Rule], names: &BTreeMap<String, Id>, gateway: Option<Id>) -> Result<Mapper, BadRule> {
        let checked = |rule: &Rule| Ok((rule.topic.clone(), Checked::new(rule)?));
        Ok(Mapper {
            rules: rules.iter().map(checked).collect::<Result<_, _>>()?,
            names: names.clone(),
            gateway,
        })
    }

    /// What to subscribe to so that every rule gets its messages: no filter covers another, so that no message comes twice for
    /// that. Rules that take nothing need nothing.
    pub fn filters(&self) -> Vec<String> {
        let rules = self.rules.iter().filter(|(_, rule)| rule.take != Take::Nothing);
        let mut filters: Vec<String> = rules.map(|(_, rule)| rule.topic.filter()).collect();
        filters.sort_unstable();
        filters.dedup();
        let covered = |inner: &String| filters.iter().any(|outer| outer != inner && covers(outer, inner));
        filters.iter().filter(|filter| !covered(filter)).cloned().collect()
    }

    /// What a message is.
    pub fn map<'m>(&'m self, topic: &'m str, payload: &[u8]) -> Outcome<'m> {
        let mut json = None;
        for (name, rule) in &self.rules {
            let Some(captured) = rule.topic.take(topic) else { continue };
            if let Some((place, is)) = &rule.when {
                let json = json.get_or_insert_with(|| read_json(payload));
                if !json.as_ref().is_ok_and(|json| place.one(json).is_some_and(|there| is_word(there, is))) {
                    continue;
                }
            }
            let outcome = match (rule.take, rule.payload) {
                (Take::Nothing, _) => Ok(Outcome::Nothing { rule: name }),
                (Take::Uplinks, _) => {
                    self.device(rule, &captured).map(|device| Outcome::Uplink { device, rule: name })
                }
                (Take::Readings, Payload::Json) => match json.get_or_insert_with(|| read_json(payload)) {
                    Ok(json) => self.readings(name, rule, &captured, json),
                    Err(problem) => Err(problem.clone()),
                },
                (Take::Readings, Payload::Text) => {
                    read_text(payload).and_then(|text| self.readings(name, rule, &captured, &text))
                }
            };
            return outcome.unwrap_or_else(|problem| Outcome::Unmapped { rule: Some(name), problem });
        }
        let problem =
            problem(Reason::NoRule, "no rule's topic fits, or what its `when` asks for does not hold");
        Outcome::Unmapped { rule: None, problem }
    }

    fn readings<'m>(
        &'m self,
        name: &'m str,
        rule: &'m Checked,
        captured: &Captured<'_>,
        json: &Json,
    ) -> Result<Outcome<'m>, Problem> {
        let device = self.device(rule, captured)?;
        let mut found = Found::default();
        for reading in &rule.readings {
            reading.place.find(json, &mut |there, inner| {
                found.take(reading, there, captured, inner);
                !found.is_full()
            });
        }
        let mut at_ms = None;
        if let Some((place, format)) = &rule.time {
            let there = place.one(json).filter(|there| !there.is_null());
            at_ms = there.and_then(|there| value::time_ms(there, *format));
            if let (Some(there), None) = (there, at_ms) {
                found.problem(
                    Reason::BadTime,
                    format!("{} is no time as the rule says, or of a clock that is not set", short(there)),
                );
            }
        }
        let Found { readings, mut problems, nulls, .. } = found;
        match problems.pop() {
            Some(problem) if readings.is_empty() => Err(problem),
            None if readings.is_empty() && nulls => Ok(Outcome::Nothing { rule: name }),
            None if readings.is_empty() => {
                Err(problem(Reason::NoReading, "nothing is there of what the rule looks for"))
            }
            last => {
                problems.extend(last);
                Ok(Outcome::Readings(Readings { device, at_ms, readings, problems, rule: name }))
            }
        }
    }

    fn device(&self, rule: &Checked, captured: &Captured<'_>) -> Result<Id, Problem> {
        let called = rule.device.fill(&[captured]);
        let device = match self.names.get(&called) {
            Some(name) => *name,
            None => {
                device_id(&called).ok_or_else(|| problem(Reason::NoDevice, "the device's name is empty"))?
            }
        };
        if self.gateway == Some(device) {
            return Err(problem(Reason::GatewaysOwn, format!("{device} is this gateway's own name")));
        }
        Ok(device)
    }
}

/// What has been found in a message.
#[derive(Default)]
struct Found<'m> {
    readings: Vec<Reading<'m>>,
    problems: Vec<Problem>,
    /// What has been taken, or refused: by its place in memory.
    taken: Vec<*const Json>,
    /// Whether something was null.
    nulls: bool,
    full: bool,
}

impl<'m> Found<'m> {
    fn take(&mut self, reading: &'m CheckedReading, there: &Json, topic: &Captured<'_>, keys: &Captured<'_>) {
        if self.taken.iter().any(|taken| std::ptr::eq(*taken, there)) {
            return;
        }
        self.nulls |= there.is_null();
        // Who takes what there is takes no heed of what is no value.
        if there.is_null() || (reading.place.captures() && (there.is_object() || there.is_array())) {
            return;
        }
        if self.readings.len() == EVENTS_MAX {
            self.full = true;
            return self
                .problem(Reason::TooMany, format!("more than {EVENTS_MAX} values; the first are taken"));
        }
        self.taken.push(there);
        let called = reading.sensor.fill(&[topic, keys]);
        let Some(sensor) = sensor_id(&called) else { return };
        if self.readings.iter().any(|other| other.sensor == sensor) {
            return self.problem(Reason::SensorTwice, format!("a second value for {sensor}"));
        }
        match reading.value(there) {
            Ok(value) => self.readings.push(Reading { sensor, value, unit: reading.unit.as_deref() }),
            Err(Problem { reason, said }) => self.problem(reason, format!("{sensor}: {said}")),
        }
    }

    fn problem(&mut self, reason: Reason, said: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { reason, said });
        }
    }

    fn is_full(&self) -> bool {
        self.full
    }
}

impl CheckedReading {
    fn value(&self, there: &Json) -> Result<Value, Problem> {
        if let Some(word) = word_for(&self.values, there) {
            return Ok(match word {
                Word::Bool(value) => Value::Bool(*value),
                Word::Int(value) => Value::Int(*value),
                Word::Float(value) => Value::Float(*value),
                Word::Text(value) => Value::Text(value.as_str().into()),
            });
        }
        let wrong = |wanted: &str| problem(Reason::WrongKind, format!("{} is no {wanted}", short(there)));
        let is_number = self.kind == Kind::Number || (self.scaling.is_some() && self.kind == Kind::Any);
        match (self.kind, there) {
            (Kind::Bool, there) => value::yes_or_no(there).map(Value::Bool).ok_or_else(|| wrong("yes or no")),
            (_, Json::String(text)) if is_number => {
                let number = value::number_in(text).and_then(|number| value::number(&number, self.scaling));
                number.ok_or_else(|| wrong("number"))
            }
            (Kind::Any | Kind::Number, Json::Number(number)) => {
                value::number(number, self.scaling).ok_or_else(|| wrong("number that can be kept"))
            }
            (Kind::Any, Json::Bool(value)) if !is_number => Ok(Value::Bool(*value)),
            (Kind::Any | Kind::Text, Json::String(text)) if text.len() <= value::TEXT_BYTES_MAX => {
                Ok(Value::Text(text.as_str().into()))
            }
            (Kind::Any | Kind::Text, Json::String(text)) => {
                let said = format!("a text of {} bytes; allowed are {}", text.len(), value::TEXT_BYTES_MAX);
                Err(problem(Reason::TextTooLong, said))
            }
            (Kind::Text, Json::Number(number)) => Ok(Value::Text(number.to_string().into())),
            (Kind::Text, _) => Err(wrong("text")),
            _ if is_number => Err(wrong("number")),
            _ => Err(wrong("value")),
        }
    }
}

fn word_for<'a>(values: &'a BTreeMap<String, Word>, there: &Json) -> Option<&'a Word> {
    if values.is_empty() {
        return None;
    }
    match there {
        Json::String(text) => values.get(text.trim()),
        Json::Bool(_) | Json::Number(_) => values.get(&there.to_string()),
        _ => None,
    }
}

fn is_word(there: &Json, word: &Word) -> bool {
    match (there, word) {
        (Json::Bool(there), Word::Bool(is)) => there == is,
        (Json::Number(there), Word::Int(is)) => there.as_i64() == Some(*is),
        (Json::Number(there), Word::Float(is)) => there.as_f64() == Some(*is),
        (Json::String(there), Word::Text(is)) => there == is,
        _ => false,
    }
}

fn read_json(payload: &[u8]) -> Result<Json, Problem> {
    serde_json::from_slice(payload).map_err(|error| problem(Reason::NotJson, format!("no JSON: {error}")))
}

/// A plain value: a number where it is one.
fn read_text(payload: &[u8]) -> Result<Json, Problem> {
    let text = std::str::from_utf8(payload).map_err(|_| problem(Reason::NotText, "no UTF-8"))?;
    let text = text.trim();
    Ok(match value::number_in(text) {
        Some(number) => Json::Number(number),
        None if text.is_empty() => Json::Null,
        None => Json::String(text.to_owned()),
    })
}

/// The beginning of what somebody wrote.
fn short(json: &Json) -> String {
    let kind = match json {
        Json::Object(_) => return "an object".to_owned(),
        Json::Array(_) => return "a list".to_owned(),
        other => other.to_string(),
    };
    match kind.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &kind[..end]),
        None => kind,
    }
}

/// A device's id out of whatever it is called. What is no id has its other characters made `_`, and six digits of a checksum after
/// it: two devices never become one by that.
pub fn device_id(called: &str) -> Option<Id> {
    if called.is_empty() {
        return None;
    }
    let id = called.parse().ok();
    id.or_else(|| with_checksum(called))
}

/// A sensor's id out of whatever it is called: other characters are `_`.
fn sensor_id(called: &str) -> Option<Id> {
    replaced(called).parse().ok().or_else(|| with_checksum(called))
}

fn with_checksum(called: &str) -> Option<Id> {
    let begin: String = replaced(called).chars().take(Id::LEN_MAX - 7).collect();
    format!("{begin}-{:06x}", crc32fast::hash(called.as_bytes()) & 0xff_ffff).parse().ok()
}

fn replaced(called: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    called.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// Whether everything that `inner` matches is matched by `outer`, too.
fn covers(outer: &str, inner: &str) -> bool {
    let mut inner = inner.split('/');
    for level in outer.split('/') {
        match (level, inner.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", _) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}
