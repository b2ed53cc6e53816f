//! Who the device is and where its gateway is.

use weir_contract::Id;

/// What one device of many is told, and its image is not.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name: unique at its gateway.
    pub device: Id,
    /// The gateway: an IPv4 address or a name.
    pub gateway_host: heapless::String<64>,
    /// The port of its MQTT listener.
    pub gateway_port: u16,
}
