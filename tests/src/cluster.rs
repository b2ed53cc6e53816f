//! Three nats-servers that keep the streams together: each message is on all of them, and acknowledged once two have it.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::link::Link;
use crate::nats::{Nats, NatsConfig};
use crate::wait::eventually;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// The servers.
pub struct Cluster {
    /// Each can be stopped, killed, frozen, started again.
    pub servers: Vec<Nats>,
    /// From which to which, if they reach each other over links that can fail.
    links: Vec<(usize, usize, Link)>,
}

/// What servers tell each other of where they are: nowhere, so that they stay on their links.
const NOWHERE: &str = "127.0.0.1:1";

impl Cluster {
    /// Starts one of `count` servers with their files in `folder`.
    pub fn start(folder: &Path, count: usize) -> Result<Cluster> {
        Cluster::start_over(folder, count, false)
    }

    /// The same, each of them reaching each other one over a link: [`part`](Self::part).
    pub fn start_linked(folder: &Path, count: usize) -> Result<Cluster> {
        Cluster::start_over(folder, count, true)
    }

    fn start_over(folder: &Path, count: usize, linked: bool) -> Result<Cluster> {
        // Held together, so that they differ; let go of just before the servers take them.
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let ports: Vec<u16> =
            listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_>>()?;
        drop(listeners);
        let mut links = Vec::new();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            if linked && from != to {
                links.push((from, to, Link::to(([127, 0, 0, 1], ports[to]).into())?));
            }
        }
        let routes = |of: usize| -> String {
            let direct = ports.iter().map(|port| format!("127.0.0.1:{port}")).filter(|_| !linked);
            let over =
                links.iter().filter(|(from, ..)| *from == of).map(|(.., link)| link.address().to_string());
            direct.chain(over).map(|address| format!("\"nats://{address}\"")).collect::<Vec<_>>().join(", ")
        };
        let advertise = if linked { format!(", advertise: \"{NOWHERE}\"") } else { String::new() };
        let mut servers = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let name = format!("nats-{}", number + 1);
            let more = format!(
                "cluster {{ name: weir, listen: \"127.0.0.1:{port}\"{advertise}, routes: [{}] }}\n",
                routes(number)
            );
            let config = NatsConfig { more, ..NatsConfig::default() };
            servers.push(Nats::launch(&name, &folder.join(&name), config)?);
        }
        let cluster = Cluster { servers, links };
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

    /// Cuts a server off from the others. Clients reach all of them as before.
    pub fn part(&self, server: usize) {
        let touching = self.links.iter().filter(|(from, to, _)| *from == server || *to == server);
        touching.for_each(|(.., link)| link.cut());
    }

    /// Undoes that.
    pub fn join(&self) {
        self.links.iter().for_each(|(.., link)| link.restore());
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
