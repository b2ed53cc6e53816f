//! What the thermometer is set to. Times in milliseconds, temperatures in °C, sizes in bytes.

/// What the sensor is called in events.
pub const SENSOR: &str = "temperature";
/// Degrees Celsius, as SenML (RFC 8428) writes them.
pub const UNIT: &str = "Cel";

/// A reading is taken so often.
pub const PERIOD_MS: u64 = 1_000;
/// A sensor that did not answer is asked again so much later.
pub const SENSOR_RETRY_MS: u64 = 1_000;
/// A reading is worth an event if it differs from the last one told by so much …
pub const CHANGE_MIN: f64 = 0.5;
/// … or if nothing was told for so long.
pub const SILENCE_MS_MAX: u64 = 60_000;
/// A temperature this high, or higher, is `limit-crossed`,
pub const LIMIT: f64 = 40.0;
/// and is over only when it has fallen so far below.
pub const LIMIT_HYSTERESIS: f64 = 1.0;

/// Memory for events that are not acknowledged: some 60 readings.
pub const OUTBOX_LEN: usize = 4096;
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
/// What was sent is acknowledged by the other side's TCP within this time, or the connection is given up.
pub const SILENT_PEER_MS_MAX: u64 = 10_000;
/// Waits between attempts to connect grow from here …
pub const BACKOFF_MS_MIN: u32 = 500;
/// … to here.
pub const BACKOFF_MS_MAX: u32 = 15_000;

/// Both loops go round at least so often if nothing else happens …
pub const ROUND_MS_MAX: u64 = 2_000;
/// … and a step of the link, which may wait for the network, takes no longer than a peer may be silent. A watchdog must
/// leave them this much.
pub const WATCHDOG_MS_MIN: u64 = SILENT_PEER_MS_MAX + 2 * ROUND_MS_MAX;
