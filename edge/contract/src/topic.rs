//! MQTT topics: `weir/1/{device}/events`, `…/time`, `…/commands`.

use crate::{Id, Inline, NAME_LEN_MAX};

const PREFIX: &str = "weir/1/";
const EVENTS: &str = "/events";
const TIME: &str = "/time";
const COMMANDS: &str = "/commands";

/// The most bytes a topic of the contract can have.
pub const TOPIC_LEN_MAX: usize = PREFIX.len() + NAME_LEN_MAX + COMMANDS.len();

/// A topic of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A device's uplinks.
    Events(Id),
    /// The time, for a device.
    Time(Id),
    /// Commands to a device.
    Commands(Id),
}

impl Topic {
    /// `None` for any other topic, and for filters with wildcards.
    pub fn parse(topic: &str) -> Option<Self> {
        let (device, leaf) = topic.strip_prefix(PREFIX)?.split_once('/')?;
        let device = device.parse().ok()?;
        match leaf {
            "events" => Some(Topic::Events(device)),
            "time" => Some(Topic::Time(device)),
            "commands" => Some(Topic::Commands(device)),
            _ => None,
        }
    }

    /// The device it belongs to.
    pub fn device(&self) -> Id {
        match self {
            Topic::Events(device) | Topic::Time(device) | Topic::Commands(device) => *device,
        }
    }
}

/// `weir/1/{device}/events`: where a device publishes its uplinks.
pub fn events(device: &Id) -> Inline<TOPIC_LEN_MAX> {
    Inline::concat(&[PREFIX, device, EVENTS])
}

/// `weir/1/{device}/time`: where a device learns the time.
pub fn time(device: &Id) -> Inline<TOPIC_LEN_MAX> {
    Inline::concat(&[PREFIX, device, TIME])
}

/// `weir/1/{device}/commands`: where a device is told what to do.
pub fn commands(device: &Id) -> Inline<TOPIC_LEN_MAX> {
    Inline::concat(&[PREFIX, device, COMMANDS])
}
