//! A device whose every uplink the test decides on, and the manifest that says what it emitted.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use serde::Serialize;
use weir_contract::body::{Body, Scalar};
use weir_contract::uplink::{self, Event, Header};
use weir_contract::{Id, topic};

use crate::mqtt::{Client, Connect};

/// One boot of a device: numbers its events and makes uplinks of them.
pub struct Device {
    id: Id,
    boot: u64,
    powered: Instant,
    /// When each event was observed, in milliseconds since the boot's beginning.
    observed_ms: Vec<u64>,
    past_boots: Vec<Boot>,
    /// If not empty, this is what is read.
    text: String,
}

impl Device {
    /// A device that has just been powered up.
    pub fn new(name: &str) -> Result<Device> {
        let id = name.parse().map_err(|error| anyhow!("{name}: {error}"))?;
        let (boot, powered) = (fastrand::u64(..), Instant::now());
        Ok(Device { id, boot, powered, observed_ms: Vec::new(), past_boots: Vec::new(), text: String::new() })
    }

    /// Its name, which is its MQTT client id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.id
    }

    /// Its topic for uplinks.
    #[must_use]
    pub fn topic(&self) -> String {
        topic::events(&self.id).to_string()
    }

    /// Its present boot, in decimal.
    #[must_use]
    pub fn boot(&self) -> String {
        self.boot.to_string()
    }

    /// From now on every event is a text of so many bytes.
    pub fn emit_large(&mut self, bytes: usize) {
        self.emit_text("x".repeat(bytes));
    }

    /// From now on every event is this text.
    pub fn emit_text(&mut self, text: String) {
        self.text = text;
    }

    /// Connects it with MQTT 3.1.1.
    pub fn connect(&self, gateway: SocketAddr) -> Result<Client> {
        Client::connect(gateway, &Connect::new(self.name()))
    }

    /// Connects it with MQTT 5.
    pub fn connect_v5(&self, gateway: SocketAddr) -> Result<Client> {
        Client::connect(gateway, &Connect::new(self.name()).v5())
    }

    /// Emits the next `count` events as one uplink and has them acknowledged.
    pub fn emit(&mut self, client: &mut Client, count: u32) -> Result<()> {
        let uplink = self.uplink(count)?;
        self.send(client, &uplink)
    }

    /// Sends an uplink and has it acknowledged.
    pub fn send(&self, client: &mut Client, uplink: &[u8]) -> Result<()> {
        let code = client.publish(&self.topic(), uplink)?;
        ensure!(code == 0, "{}: an uplink was refused with reason code {code:#x}", self.name());
        Ok(())
    }

    /// Powers it down and up again: a new boot, numbers from 1.
    pub fn power_cycle(&mut self) {
        self.past_boots = self.boots();
        (self.boot, self.powered, self.observed_ms) = (fastrand::u64(..), Instant::now(), Vec::new());
    }

    /// The next `count` events as one uplink: readings of `temp`, whose values are the events' numbers.
    pub fn uplink(&mut self, count: u32) -> Result<Vec<u8>> {
        let first = u32::try_from(self.observed_ms.len())? + 1;
        let now_ms = self.now_ms()?;
        self.observed_ms.extend(std::iter::repeat_n(now_ms, count as usize));
        self.uplink_of(first, count)
    }

    /// The events from `first` on, which may have been sent before, as one uplink.
    pub fn uplink_of(&self, first: u32, count: u32) -> Result<Vec<u8>> {
        let mut bodies = vec![vec![0; 64 + self.text.len()]; count as usize];
        let mut lengths = Vec::new();
        for (seq, buffer) in (first..).zip(&mut bodies) {
            let sensor = "temp".parse().map_err(|error| anyhow!("temp: {error}"))?;
            let body = match self.text.as_str() {
                "" => Body::ReadingTaken { sensor, value: Scalar::Int(seq.into()), unit: Some("Cel".into()) },
                text => Body::ReadingTaken { sensor, value: Scalar::Text(text.into()), unit: None },
            };
            lengths.push(body.write(buffer).map_err(|_| anyhow!("a body longer than its buffer"))?);
        }
        let kind = "reading-taken".parse().map_err(|error| anyhow!("kind: {error}"))?;
        let events: Vec<Event<'_>> = (first..)
            .zip(bodies.iter().zip(&lengths))
            .map(|(seq, (body, &length))| Event {
                seq,
                at: self.observed_ms[seq as usize - 1],
                kind,
                version: 1,
                body: &body[..length],
            })
            .collect();
        let header = Header { boot: self.boot, now: Some(self.now_ms()?), epoch: None, via: None };
        let mut out = vec![0; uplink::UPLINK_LEN_MAX];
        let length =
            uplink::write(&mut out, &header, events.into_iter()).map_err(|_| anyhow!("too many events"))?;
        out.truncate(length);
        Ok(out)
    }

    /// All it emitted, boot by boot.
    #[must_use]
    pub fn emitted(&self) -> Emitted {
        Emitted { device: self.id.to_string(), boots: self.boots() }
    }

    fn boots(&self) -> Vec<Boot> {
        let mut boots = self.past_boots.clone();
        if !self.observed_ms.is_empty() {
            boots.push(Boot { boot: self.boot.to_string(), emitted: self.observed_ms.len() });
        }
        boots
    }

    fn now_ms(&self) -> Result<u64> {
        Ok(u64::try_from(self.powered.elapsed().as_millis())?)
    }
}

/// What `weir-sim verify` compares the cloud's answers with.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Manifest {
    /// All devices.
    pub devices: Vec<Emitted>,
}

/// What one device emitted.
#[derive(Clone, Debug, Serialize)]
pub struct Emitted {
    /// The device.
    pub device: String,
    /// Its boots.
    pub boots: Vec<Boot>,
}

/// What a device emitted in one boot.
#[derive(Clone, Debug, Serialize)]
pub struct Boot {
    /// The boot, in decimal: it may be too large for a JSON number.
    pub boot: String,
    /// It emitted the numbers from 1 to this.
    pub emitted: usize,
}
