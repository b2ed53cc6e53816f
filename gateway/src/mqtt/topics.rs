//! Topic names and topic filters (MQTT 5, 4.7), and who may use which.

use weir_contract::Id;
use weir_contract::topic;

/// Matches every topic that devices publish events on.
pub(super) const ALL_EVENTS: &str = "weir/1/+/events";

/// Whether MQTT allows `topic` in a PUBLISH: not empty, no wildcard, no U+0000.
pub(super) fn is_name(topic: &str) -> bool {
    !topic.is_empty() && !topic.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0))
}

/// Whether `topic` or `filter` is for clients to use: what begins with `$` is a broker's own (MQTT 5, 4.7.2).
pub(super) fn is_served(topic: &str) -> bool {
    !topic.starts_with('$')
}

/// Whether MQTT allows `filter` in a SUBSCRIBE: wildcards stand alone in their level, `#` only at the end.
pub(super) fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let right = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !right {
            return false;
        }
    }
    true
}

/// Whether `filter` matches `topic`.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    covers(filter, topic)
}

/// Whether everything that `inner` (a filter or a topic) matches is matched by `outer`, too.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    // Topics that begin with `$` are not matched by a leading wildcard.
    if inner.starts_with('$') && outer.starts_with(['+', '#']) {
        return false;
    }
    let mut inner = inner.split('/');
    for level in outer.split('/') {
        if level == "#" {
            return true;
        }
        match (level, inner.next()) {
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    // `a/#` matches `a`, too, so `a` does not cover it: whatever is left is more than `outer` has.
    inner.next().is_none()
}

/// Whether there are topics that both filters match.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(x), Some(y)) if x == y => {}
            _ => return false,
        }
    }
}

/// What the configuration allows a client beyond being a device.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

/// Who is at the other end of a connection, and so what it may do.
///
/// Whose name is a device's name is that device: it may publish that device's events and subscribe to that device's
/// topics, and nothing else. Everything beyond has to be configured.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The name it proved (certificate, password) or, where no proof is asked for, its client identifier.
    pub name: Box<str>,
    /// The device it is, if its name can be a device's.
    pub device: Option<Id>,
    /// Whose events it may not publish, whatever the configuration lets it: the gateway's own.
    pub gateway: Option<Id>,
    /// Shared by all connections of that name; `None` for most devices.
    pub rights: Option<std::sync::Arc<Rights>>,
}

impl Client {
    /// Whether it may publish events of `device`.
    pub fn may_publish_events_of(&self, device: &Id) -> bool {
        let is_device = self.device.as_ref() == Some(device);
        self.gateway.as_ref() != Some(device) && (is_device || self.may_publish(&topic::events(device)))
    }

    /// Whether the configuration lets it publish on `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.publish.iter().any(|filter| covers(filter, topic)))
    }

    /// Whether the configuration lets it see everything that `filter` matches.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.subscribe.iter().any(|outer| covers(outer, filter)))
    }

    /// Whether `filter` is for what the gateway tells the device it is: time, commands, or both.
    pub fn is_own(&self, filter: &str) -> bool {
        let Some(device) = &self.device else { return false };
        let rest = filter.strip_prefix("weir/1/").and_then(|rest| rest.strip_prefix(device.as_str()));
        matches!(rest, Some("/time" | "/commands" | "/+" | "/#"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop, proptest};

    fn client(name: &str, publish: &[&str], subscribe: &[&str]) -> Client {
        let own = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect();
        let rights = Rights { publish: own(publish), subscribe: own(subscribe) };
        let rights = Some(std::sync::Arc::new(rights));
        Client { name: name.into(), device: name.parse().ok(), gateway: None, rights }
    }

    #[test]
    fn wildcards_match_as_the_standard_says() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("A", "a", false),
        ];
        for (filter, topic, expected) in cases {
            // `a/#` matches its parent, which `covers` decides, too.
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_filter_is_checked_level_by_level() {
        for filter in ["#", "+", "a/#", "+/a/+", "/", "a//b", "weir/1/+/events", "é"] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "##", "a\0"] {
            assert!(!is_filter(filter), "{filter}");
        }
    }

    #[test]
    fn what_begins_with_a_dollar_sign_is_not_for_clients() {
        assert!(is_served("a/b") && is_served("é/x") && is_served("a/$b"));
        assert!(!is_served("$SYS/x"));
    }

    #[test]
    fn a_device_may_use_its_own_topics_only() {
        let device = client("dev-1", &[], &[]);
        assert!(device.may_publish_events_of(&"dev-1".parse().unwrap()));
        assert!(!device.may_publish_events_of(&"dev-2".parse().unwrap()));
        assert!(!device.may_publish("weir/1/dev-1/commands"));
        for filter in ["weir/1/dev-1/time", "weir/1/dev-1/commands", "weir/1/dev-1/#", "weir/1/dev-1/+"] {
            assert!(device.is_own(filter), "{filter}");
        }
        let others =
            ["weir/1/dev-2/time", "weir/1/+/time", "weir/1/dev-1", "weir/1/dev-11/time", "#", "weir/1/#"];
        // What it may think of below its own name would be without end.
        for filter in
            others.into_iter().chain(["weir/1/dev-1/events", "weir/1/dev-1/x", "weir/1/dev-1/time/#"])
        {
            assert!(!device.is_own(filter) && !device.may_subscribe(filter), "{filter}");
        }
    }

    #[test]
    fn nobody_speaks_for_the_gateway() {
        let gateway = "gw-1".parse().unwrap();
        let mut client = client("gw-1", &["weir/1/+/events"], &[]);
        client.gateway = Some(gateway);
        assert!(!client.may_publish_events_of(&gateway));
        assert!(client.may_publish_events_of(&"dev-2".parse().unwrap()));
    }

    #[test]
    fn a_named_client_may_do_what_its_filters_cover() {
        let client = client("a client", &["plant/+/set", "weir/1/+/events"], &["plant/#", "weir/1/+/events"]);
        assert_eq!(client.device, None);
        assert!(client.may_publish("plant/pump/set"));
        assert!(!client.may_publish("plant/pump/get"));
        assert!(client.may_publish_events_of(&"dev-2".parse().unwrap()));
        assert!(client.may_subscribe("plant/#"));
        assert!(client.may_subscribe("plant/+/x"));
        assert!(client.may_subscribe("weir/1/dev-2/events"));
        assert!(!client.may_subscribe("+/pump"));
        assert!(!client.may_subscribe("weir/1/+/time"));
    }

    fn filter() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "+", "#", ""]), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a filter", |filter| is_filter(filter))
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a topic", |topic| is_name(topic))
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(5_000))]

        /// Granting a filter never grants more than the rights say.
        #[test]
        fn what_is_covered_is_matched(outer in filter(), inner in filter(), topic in name()) {
            if covers(&outer, &inner) && matches(&inner, &topic) {
                assert!(matches(&outer, &topic), "{outer} covers {inner}, but does not match {topic}");
            }
        }

        /// Events are never kept from a subscriber because its filter was thought to miss them.
        #[test]
        fn filters_that_match_one_topic_overlap(a in filter(), b in filter(), topic in name()) {
            if matches(&a, &topic) && matches(&b, &topic) {
                assert!(overlap(&a, &b), "{a} {b} {topic}");
            }
        }

        /// We and rumqttd agree on what a filter matches.
        #[test]
        fn rumqttd_matches_alike(filter in filter(), topic in name()) {
            assert_eq!(matches(&filter, &topic), rumqttd::protocol::matches(&topic, &filter), "{filter} {topic}");
        }
    }
}
