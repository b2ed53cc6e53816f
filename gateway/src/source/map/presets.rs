//! Rules for what people have at home, in the same words as everybody's own. `weir-gateway map --show NAME` prints them, to be
//! changed where a device speaks otherwise.

use serde::{Deserialize, Serialize};

use super::Rule;

/// A name for a file of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Devices of ours: uplinks on `weir/1/{device}/events`.
    Weir,
    /// Zigbee2MQTT.
    Zigbee2mqtt,
    /// Tasmota.
    Tasmota,
    /// Shelly, first generation.
    ShellyGen1,
    /// Shelly, second generation and later.
    ShellyGen2,
    /// ESPHome.
    Esphome,
    /// Home Assistant's `mqtt_statestream`.
    Homeassistant,
}

#[derive(Deserialize)]
struct File {
    rule: Vec<Rule>,
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 7] = [
        Preset::Weir,
        Preset::Zigbee2mqtt,
        Preset::Tasmota,
        Preset::ShellyGen1,
        Preset::ShellyGen2,
        Preset::Esphome,
        Preset::Homeassistant,
    ];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Preset::Weir => "weir",
            Preset::Zigbee2mqtt => "zigbee2mqtt",
            Preset::Tasmota => "tasmota",
            Preset::ShellyGen1 => "shelly-gen1",
            Preset::ShellyGen2 => "shelly-gen2",
            Preset::Esphome => "esphome",
            Preset::Homeassistant => "homeassistant",
        }
    }

    /// The file.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Weir => include_str!("presets/weir.toml"),
            Preset::Zigbee2mqtt => include_str!("presets/zigbee2mqtt.toml"),
            Preset::Tasmota => include_str!("presets/tasmota.toml"),
            Preset::ShellyGen1 => include_str!("presets/shelly-gen1.toml"),
            Preset::ShellyGen2 => include_str!("presets/shelly-gen2.toml"),
            Preset::Esphome => include_str!("presets/esphome.toml"),
            Preset::Homeassistant => include_str!("presets/homeassistant.toml"),
        }
    }

    /// Its rules.
    pub fn rules(self) -> Vec<Rule> {
        let file: File = toml::from_str(self.text()).expect("a test reads every preset");
        file.rule
    }
}
