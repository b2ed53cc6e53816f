//! Three nats-servers that keep the streams together: each message is on all of them, and acknowledged once two have it.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::nats::{Nats, NatsConfig};
use crate::wait::eventually;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// The servers.
pub struct Cluster {
    /// Each can be stopped, killed, frozen, started again.
    pub servers: Vec<Nats>,
}

impl Cluster {
    /// Starts one of `count` servers with their files in `folder`.
    pub fn start(folder: &Path, count: usize) -> Result<Cluster> {
        // Held together, so that they differ; let go of just before the servers take them.
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let ports: Vec<u16> =
            listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_>>()?;
        drop(listeners);
        let routes: Vec<String> = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let mut servers = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let name = format!("nats-{}", number + 1);
            let more = format!(
                "cluster {{ name: weir, listen: \"127.0.0.1:{port}\", routes: [{}] }}\n",
                routes.join(", ")
            );
            let config = NatsConfig { more, ..NatsConfig::default() };
            servers.push(Nats::launch(&name, &folder.join(&name), config)?);
        }
        let cluster = Cluster { servers };
        cluster.await_healthy()?;
        Ok(cluster)
    }

    /// Waits until every server that runs has caught up with the others.
    pub fn await_healthy(&self) -> Result<()> {
        self.servers.iter().filter(|server| server.is_started()).try_for_each(Nats::await_healthy)
    }

    /// Where they are.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Nats::url).collect()
    }

    /// Which of them leads the stream of segments.
    pub fn leader(&self) -> Result<usize> {
        eventually(READY_WITHIN, "the stream to have a leader", || {
            let running = self.servers.iter().find(|server| server.is_started()).context("none runs")?;
            let leader = running.stream_leader()?;
            Ok(self.servers.iter().position(|server| server.is_started() && server.name() == leader))
        })
    }

    /// Starts those again that do not run.
    pub fn start_again(&mut self) -> Result<()> {
        for server in &mut self.servers {
            if !server.is_started() {
                server.launch_again()?;
            }
        }
        self.await_healthy()
    }

    /// Stops them all.
    pub fn stop(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Nats::stop)
    }

    /// On how many servers the stream of segments is.
    pub fn check_replicas(&self, count: usize) -> Result<()> {
        let found = self.servers[0].replicas()?;
        ensure!(found == count, "the stream has {found} replicas");
        Ok(())
    }
}
