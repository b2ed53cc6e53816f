//! What the thermometer is set to. Times in milliseconds, temperatures in °C, sizes in bytes.

use weir_device::{Sensor, Settings, Threshold};

use crate::core::name;

/// The sensor, as it is built. Commands change its period and its limit.
pub(crate) fn sensor() -> Sensor {
    Sensor {
        name: name("temperature"),
        // SenML's (RFC 8428) for degrees Celsius.
        unit: Some("Cel"),
        change_min: 0.5,
        silence_ms_max: 60_000,
        settings: Settings { period_ms: 1_000, limit: Some(Threshold { limit: 40.0, hysteresis: 1.0 }) },
    }
}

/// A sensor that did not answer is asked again so much later.
pub const SENSOR_RETRY_MS: u64 = 1_000;

/// For the longest thing kept at once, an event or a configuration.
pub const JOURNAL_BUFFER_LEN: usize = 512;
/// The most uplinks published and not acknowledged.
pub const WINDOW: usize = 4;
/// The longest uplink.
pub const UPLINK_LEN_MAX: usize = 512;
/// The most events in an uplink.
pub const UPLINK_EVENTS_MAX: u16 = 16;

/// The gateway hears from the device at least this often, or takes it for gone.
pub const KEEP_ALIVE_S: u16 = 20;
/// A connection is made within this time, or not at all.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// What was sent is acknowledged by the other side's TCP within this time, or the connection is given up. The stack counts
/// from the last packet that came, however long before the sending that was: a ping must go out earlier than that.
pub const SILENT_PEER_MS_MAX: u64 = 15_000;
/// Waits between attempts to connect grow from here …
pub const BACKOFF_MS_MIN: u32 = 500;
/// … to here.
pub const BACKOFF_MS_MAX: u32 = 15_000;

/// Asked which board it is, the light blinks so often …
pub const BLINKS: u32 = 20;
/// … and is on and off so long each.
pub const BLINK_MS: u64 = 100;

/// Both loops go round at least so often if nothing else happens …
pub const ROUND_MS_MAX: u64 = 2_000;
/// … but the link's may wait for DHCP, DNS, TCP and CONNACK in turn, or for a peer that is silent. If it takes longer, the
/// watchdog is not fed any more.
pub const LINK_ROUND_MS_MAX: u64 = 4 * CONNECT_MS_MAX + ROUND_MS_MAX;
/// A watchdog must leave so much between two meals: memory may take its time, too.
pub const WATCHDOG_MS_MIN: u64 = 3 * ROUND_MS_MAX;
