//! What each part of the pipeline says of itself, at one moment.

use std::time::Duration;

use anyhow::{Context, Result};
use weir_tests::World;
use weir_tests::sim::{Progress, Simulation};

/// Where the events are.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Since the devices began.
    pub elapsed: Duration,
    /// Whether the gateway's uplink is whole.
    pub is_up: bool,
    /// Events the devices have made.
    pub emitted: u64,
    /// Those a PUBACK has come for: they are on the gateway's disk.
    pub acknowledged: u64,
    /// Uplinks on the gateway's disk that the log does not hold yet.
    pub waiting: u64,
    /// Events of the devices in the cloud's history; the gateway's own (who connected, who left) are not counted.
    pub stored: u64,
    /// How far the cloud's views are behind the log.
    pub lag_messages: u64,
}

impl Numbers {
    /// Asks everybody.
    pub fn look(world: &World, simulation: &Simulation, elapsed: Duration, is_up: bool) -> Result<Numbers> {
        let gateway = world.gateways[0].admin("/status")?;
        let cloud = world.cloud.get("/v1/status")?;
        let events = cloud["store"]["events"].as_u64().context("the cloud tells no events")?;
        let Progress { emitted, acknowledged } = simulation.progress()?;
        Ok(Numbers {
            elapsed,
            is_up,
            emitted,
            acknowledged,
            waiting: gateway["spool"]["waiting"].as_u64().context("the gateway tells no backlog")?,
            stored: events.saturating_sub(world.cloud.event_count(world.gateways[0].id())?),
            lag_messages: cloud["position"]["lag_messages"].as_u64().unwrap_or_default(),
        })
    }
}
