//! Patterns for topics and for places in JSON, whose `{captures}` name what stands there, and templates that use the names.
//!
//! ```text
//! topic     zigbee2mqtt/{device}      shellies/{device}/relay/{n}/power      +/status      site/#
//! place     /temperature              /params/switch:{n}/apower              /{key}        (the whole)
//! template  z2m-{device}              switch{n}-power
//! ```
//!
//! A capture takes a whole level of a topic or a whole key, or what is left of it between fixed text before and after.

use serde_json::Value;

/// The longest pattern or template.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Most captures of one pattern.
const CAPTURES_MAX: usize = 8;
/// The longest name of a capture.
const CAPTURE_NAME_BYTES_MAX: usize = 32;

/// What is wrong with a pattern, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Too long, or empty where that means nothing.
    #[error("{text:?}: 1 to {PATTERN_BYTES_MAX} bytes are allowed")]
    Length {
        /// What was read.
        text: String,
    },
    /// Braces that are no capture.
    #[error(
        "{text:?}: a capture is {{name}}, its name 1 to {CAPTURE_NAME_BYTES_MAX} of a-z A-Z 0-9 _, one in each level or key"
    )]
    Capture {
        /// What was read.
        text: String,
    },
    /// The same name twice.
    #[error("{text:?}: {{{name}}} stands there twice; each capture needs a name of its own")]
    Twice {
        /// What was read.
        text: String,
        /// The name.
        name: String,
    },
    /// More captures than there may be.
    #[error("{text:?}: at most {CAPTURES_MAX} captures are allowed")]
    TooMany {
        /// What was read.
        text: String,
    },
    /// A wildcard that does not stand alone.
    #[error("{text:?} is no topic: not beginning with `$`, `+` alone in its level, `#` alone in the last")]
    Topic {
        /// What was read.
        text: String,
    },
    /// A place that is no JSON pointer.
    #[error(
        "{text:?} is no place in JSON: \"\" is the whole, else /key/key, with ~1 for / and ~0 for ~ in a key (RFC 6901)"
    )]
    Place {
        /// What was read.
        text: String,
    },
}

/// What captures have taken: name and text, in the order in which they stand.
pub type Captured<'a> = Vec<(&'a str, &'a str)>;

/// A level of a topic, or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Exactly this.
    Is(Box<str>),
    /// Anything.
    Any,
    /// Anything between two texts, under a name.
    Capture { before: Box<str>, name: Box<str>, after: Box<str> },
}

impl Step {
    /// `text` is the level or key as it stands in the pattern, `whole` the pattern, for errors; `wildcard` says whether `+` is one.
    fn parse(text: &str, whole: &str, wildcard: bool) -> Result<Step, BadPattern> {
        if wildcard && text == "+" {
            return Ok(Step::Any);
        }
        let Some((before, rest)) = text.split_once('{') else {
            let stray = text.contains('}');
            return if stray {
                Err(BadPattern::Capture { text: whole.into() })
            } else {
                Ok(Step::Is(text.into()))
            };
        };
        let parts = rest.split_once('}').filter(|(name, after)| is_name(name) && !after.contains(['{', '}']));
        match parts {
            Some((name, after)) if !before.contains('}') => {
                Ok(Step::Capture { before: before.into(), name: name.into(), after: after.into() })
            }
            _ => Err(BadPattern::Capture { text: whole.into() }),
        }
    }

    /// Whether `text` fits; adds what is captured.
    fn take<'a>(&'a self, text: &'a str, captured: &mut Captured<'a>) -> bool {
        match self {
            Step::Is(is) => **is == *text,
            Step::Any => true,
            Step::Capture { before, name, after } => {
                let inner = text.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                match inner.filter(|inner| !inner.is_empty()) {
                    Some(inner) => captured.push((name, inner)),
                    None => return false,
                }
                true
            }
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Step::Capture { name, .. } => Some(name),
            Step::Is(_) | Step::Any => None,
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=CAPTURE_NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Checks the captures of all steps together.
fn check_names(steps: &[Step], text: &str) -> Result<(), BadPattern> {
    let names: Vec<&str> = steps.iter().filter_map(Step::name).collect();
    if names.len() > CAPTURES_MAX {
        return Err(BadPattern::TooMany { text: text.into() });
    }
    match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        Some((_, name)) => Err(BadPattern::Twice { text: text.into(), name: (*name).to_owned() }),
        None => Ok(()),
    }
}

/// A pattern for topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    levels: Vec<Step>,
    /// Whether it ends with `#`.
    open: bool,
}

impl Topic {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub fn parse(text: &str) -> Result<Topic, BadPattern> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(BadPattern::Length { text: text.into() });
        }
        let wrong = || BadPattern::Topic { text: text.into() };
        if text.starts_with('$') || text.contains('\0') {
            return Err(wrong());
        }
        let (text_levels, open) = match text.strip_suffix('#') {
            None => (text, false),
            Some("") => return Ok(Topic { levels: Vec::new(), open: true }),
            Some(rest) => (rest.strip_suffix('/').ok_or_else(wrong)?, true),
        };
        let mut levels = Vec::new();
        for level in text_levels.split('/') {
            let step = Step::parse(level, text, true)?;
            if level != "+" && level.contains(['+', '#']) {
                return Err(wrong());
            }
            levels.push(step);
        }
        check_names(&levels, text)?;
        Ok(Topic { levels, open })
    }

    /// What the captures take of `topic`, if it fits.
    pub fn take<'a>(&'a self, topic: &'a str) -> Option<Captured<'a>> {
        let mut captured = Vec::new();
        let mut levels = topic.split('/');
        for step in &self.levels {
            if !step.take(levels.next()?, &mut captured) {
                return None;
            }
        }
        // As in MQTT, what begins with `$` is a broker's own.
        (self.open || levels.next().is_none()).then_some(captured).filter(|_| !topic.starts_with('$'))
    }

    /// The filter to subscribe with: captures are `+`.
    pub fn filter(&self) -> String {
        let levels = self.levels.iter().map(|step| match step {
            Step::Is(is) => is,
            Step::Any | Step::Capture { .. } => "+",
        });
        let levels: Vec<&str> = levels.chain(self.open.then_some("#")).collect();
        levels.join("/")
    }

    /// The names of its captures.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(Step::name)
    }
}

/// A place in JSON, or several where it captures: a JSON pointer (RFC 6901) whose keys may be captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    steps: Vec<Step>,
}

impl Place {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub fn parse(text: &str) -> Result<Place, BadPattern> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(BadPattern::Length { text: text.into() });
        }
        if text.is_empty() {
            return Ok(Place { steps: Vec::new() });
        }
        let wrong = || BadPattern::Place { text: text.into() };
        let rest = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        for key in rest.split('/') {
            if key.replace("~0", "").replace("~1", "").contains('~') {
                return Err(wrong());
            }
            steps.push(Step::parse(&key.replace("~1", "/").replace("~0", "~"), text, false)?);
        }
        check_names(&steps, text)?;
        Ok(Place { steps })
    }

    /// Whether it may be in several places.
    pub fn captures(&self) -> bool {
        self.steps.iter().any(|step| step.name().is_some())
    }

    /// Whether it is all there is.
    pub fn is_whole(&self) -> bool {
        self.steps.is_empty()
    }

    /// The names of its captures.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(Step::name)
    }

    /// Calls `found` with what stands there, and what the captures have taken of its keys; until it returns false.
    pub fn find<'a>(&'a self, json: &'a Value, found: &mut impl FnMut(&'a Value, &Captured<'a>) -> bool) {
        descend(&self.steps, json, &mut Vec::new(), found);
    }

    /// What stands there, where it captures nothing.
    pub fn one<'a>(&'a self, json: &'a Value) -> Option<&'a Value> {
        let mut one = None;
        self.find(json, &mut |value, _| {
            one = Some(value);
            false
        });
        one
    }
}

/// No deeper than the pattern is long.
fn descend<'a>(
    steps: &'a [Step],
    json: &'a Value,
    captured: &mut Captured<'a>,
    found: &mut impl FnMut(&'a Value, &Captured<'a>) -> bool,
) -> bool {
    let Some((step, rest)) = steps.split_first() else { return found(json, captured) };
    match (step, json) {
        (Step::Is(key), Value::Object(map)) => {
            map.get(&**key).is_none_or(|value| descend(rest, value, captured, found))
        }
        (Step::Is(key), Value::Array(items)) => {
            let item = key.parse().ok().and_then(|index: usize| items.get(index));
            item.is_none_or(|value| descend(rest, value, captured, found))
        }
        (_, Value::Object(map)) => map.iter().all(|(key, value)| {
            let before = captured.len();
            let goes_on = !step.take(key, captured) || descend(rest, value, captured, found);
            captured.truncate(before);
            goes_on
        }),
        _ => true,
    }
}

/// Text with captures in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Text, then a capture's name, if any; again and again.
    pieces: Vec<(Box<str>, Option<Box<str>>)>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub fn parse(text: &str) -> Result<Template, BadPattern> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(BadPattern::Length { text: text.into() });
        }
        let wrong = || BadPattern::Capture { text: text.into() };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(wrong)?;
            if !is_name(name) || before.contains('}') {
                return Err(wrong());
            }
            pieces.push((before.into(), Some(name.into())));
            rest = after;
        }
        if rest.contains('}') {
            return Err(wrong());
        }
        pieces.push((rest.into(), None));
        Ok(Template { pieces })
    }

    /// The names it uses.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|(_, name)| name.as_deref())
    }

    /// The text, with what was captured in it. What nobody has captured is left out; rules are checked for that.
    pub fn fill(&self, captured: &[&Captured<'_>]) -> String {
        let mut text = String::new();
        for (before, name) in &self.pieces {
            text.push_str(before);
            let Some(name) = name else { continue };
            let mut all = captured.iter().flat_map(|captured| captured.iter());
            if let Some((_, taken)) = all.find(|(known, _)| *known == &**name) {
                text.push_str(taken);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn topics_are_taken_apart_level_by_level() {
        let cases = [
            ("zigbee2mqtt/{device}", "zigbee2mqtt/kitchen", Some(vec![("device", "kitchen")])),
            ("zigbee2mqtt/{device}", "zigbee2mqtt/kitchen/set", None),
            ("zigbee2mqtt/{device}", "zigbee2mqtt", None),
            ("zigbee2mqtt/{device}", "zigbee2mqtt/", None),
            ("tele/{d}/S", "tele/küche/S", Some(vec![("d", "küche")])),
            ("shelly-{id}/x", "shelly-a8/x", Some(vec![("id", "a8")])),
            ("shelly-{id}/x", "other-a8/x", None),
            ("+/b", "a/b", Some(vec![])),
            ("a/#", "a", Some(vec![])),
            ("a/#", "a/b/c", Some(vec![])),
            ("#", "$SYS/x", None),
        ];
        for (pattern, topic, expected) in cases {
            let pattern = Topic::parse(pattern).unwrap();
            assert_eq!(pattern.take(topic), expected, "{pattern:?} {topic}");
        }
    }

    #[test]
    fn a_filter_lets_through_what_the_pattern_may_fit() {
        for (pattern, filter) in
            [("a/{b}/c", "a/+/c"), ("{a}/#", "+/#"), ("#", "#"), ("x/s-{n}", "x/+"), ("a", "a")]
        {
            assert_eq!(Topic::parse(pattern).unwrap().filter(), filter);
        }
    }

    #[test]
    fn places_are_found_once_or_under_every_key() {
        let json =
            json!({"a": {"x": 1, "y": {"t": 2}}, "b": [10, 20], "s:0": {"p": 3}, "s:1": {"p": 4}, "/~": 5});
        let found = |place: &str| {
            let mut all = Vec::new();
            let place = Place::parse(place).unwrap();
            place.find(&json, &mut |value, captured| {
                let names: Vec<&str> = captured.iter().map(|(_, taken)| *taken).collect();
                all.push((names.join(","), value.clone()));
                true
            });
            all
        };
        assert_eq!(found("/a/x"), [(String::new(), json!(1))]);
        assert_eq!(found("/b/1"), [(String::new(), json!(20))]);
        assert_eq!(found("/~1~0"), [(String::new(), json!(5))]);
        assert_eq!(found("/s:{n}/p"), [("0".into(), json!(3)), ("1".into(), json!(4))]);
        assert_eq!(found("/{k}/{l}/t"), [("a,y".into(), json!(2))]);
        assert_eq!(found("/a/none"), []);
        assert_eq!(found(""), [(String::new(), json.clone())]);
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_what_is_allowed() {
        for (wrong, said) in [
            ("", "1 to 256 bytes"),
            ("a/{b", "a capture is {name}"),
            ("a/b}", "a capture is {name}"),
            ("a/{b}{c}", "one in each level"),
            ("a/{b-c}", "0-9 _"),
            ("a/{b}/{b}", "stands there twice"),
            ("a/b+", "`+` alone"),
            ("a/#/b", "`#` alone in the last"),
            ("a#", "`#` alone in the last"),
            ("$SYS/#", "beginning with `$`"),
        ] {
            let error = Topic::parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        for wrong in ["a", "/a~2", "/{a}/{a}", "/{"] {
            Place::parse(wrong).expect_err(wrong);
        }
        for wrong in ["", "{", "}", "{a b}", "{}"] {
            Template::parse(wrong).expect_err(wrong);
        }
        let nine: String = (0..9).map(|n| format!("/{{c{n}}}")).collect();
        assert!(matches!(Place::parse(&nine), Err(BadPattern::TooMany { .. })));
    }

    #[test]
    fn templates_are_filled_with_what_was_captured() {
        let template = Template::parse("{a}-x-{b}{a}").unwrap();
        let (one, two) = (vec![("a", "1")], vec![("b", "2")]);
        assert_eq!(template.fill(&[&one, &two]), "1-x-21");
        assert_eq!(template.names().collect::<Vec<_>>(), ["a", "b", "a"]);
    }
}
