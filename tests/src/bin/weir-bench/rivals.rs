//! What people use today for the same way, under the same load: device, edge, hub.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use weir_tests::nats::{Nats, NatsConfig};
use weir_tests::process::{Process, Usage};

use crate::load::{Load, Loaded};

const START_WITHIN: Duration = Duration::from_secs(20);
const SUBJECTS: &str = "weir.1.*.events";

/// What a rival did.
pub struct Rival {
    /// What the devices saw.
    pub loaded: Loaded,
    /// What the edge process used.
    pub edge: Usage,
}

/// nats-server as a leaf with MQTT and JetStream, whose stream a hub sources.
pub struct NatsLeaf {
    leaf: Nats,
    mqtt: SocketAddr,
    _hub: Nats,
}

impl NatsLeaf {
    /// Starts both.
    pub fn start(folder: &Path) -> Result<NatsLeaf> {
        let (leaf_port, mqtt) = (free_address()?, free_address()?);
        let config = |domain: &str, more| NatsConfig {
            domain: Some(domain.to_owned()),
            more,
            ..NatsConfig::default()
        };
        let more = format!("leafnodes {{ host: 127.0.0.1, port: {} }}\n", leaf_port.port());
        let hub = Nats::start("hub", &folder.join("hub"), config("hub", more))?;
        let more = format!(
            "mqtt {{ host: 127.0.0.1, port: {} }}\nleafnodes {{ remotes: [{{ url: \"nats://{leaf_port}\" }}] }}\n",
            mqtt.port()
        );
        let leaf = Nats::start("edge", &folder.join("edge"), config("edge", more))?;
        let stream = |name: &str| jetstream::stream::Config { name: name.to_owned(), ..Default::default() };
        leaf.create(jetstream::stream::Config { subjects: vec![SUBJECTS.to_owned()], ..stream("EVENTS") })?;
        let source = jetstream::stream::Source {
            name: "EVENTS".to_owned(),
            external: Some(jetstream::stream::External {
                api_prefix: "$JS.edge.API".to_owned(),
                delivery_prefix: None,
            }),
            ..Default::default()
        };
        hub.create(jetstream::stream::Config { sources: Some(vec![source]), ..stream("ALL") })?;
        Ok(NatsLeaf { leaf, mqtt, _hub: hub })
    }

    /// Loads it.
    pub fn load(&mut self, load: Load) -> Result<Rival> {
        let loaded = load.run(self.mqtt, None)?;
        Ok(Rival { loaded, edge: self.leaf.process()?.usage()? })
    }
}

/// mosquitto at the edge, bridging everything to another mosquitto.
pub struct Mosquitto {
    edge: Process,
    mqtt: SocketAddr,
    _hub: Process,
}

impl Mosquitto {
    /// Starts both; `None` where there is no mosquitto.
    pub fn start(folder: &Path) -> Result<Option<Mosquitto>> {
        let Some(program) =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"]
                .into_iter()
                .map(Path::new)
                .find(|path| path.is_file())
        else {
            return Ok(None);
        };
        std::fs::create_dir_all(folder)?;
        let (hub_address, mqtt) = (free_address()?, free_address()?);
        let common = "allow_anonymous true\npersistence true\nmax_queued_messages 0\nuser root\n";
        let start = |name: &str, address: SocketAddr, more: &str| -> Result<Process> {
            let file = folder.join(format!("{name}.conf"));
            let store = folder.join(format!("{name}/"));
            std::fs::create_dir_all(&store)?;
            let text = format!(
                "listener {} 127.0.0.1\n{common}persistence_location {}/\n{more}",
                address.port(),
                store.display()
            );
            std::fs::write(&file, text)?;
            let file = file.to_str().context("not UTF-8")?;
            let mut process =
                Process::start(name, program, &["-c", file], &folder.join(format!("{name}.log")))?;
            process.until(START_WITHIN, "mosquitto to listen", || {
                Ok(std::net::TcpStream::connect(address).ok())
            })?;
            Ok(process)
        };
        let hub = start("hub", hub_address, "")?;
        let bridge = format!("connection hub\naddress {hub_address}\ntopic # out 1\ncleansession false\n");
        let edge = start("edge", mqtt, &bridge)?;
        Ok(Some(Mosquitto { edge, mqtt, _hub: hub }))
    }

    /// Loads it.
    pub fn load(&mut self, load: Load) -> Result<Rival> {
        let loaded = load.run(self.mqtt, None)?;
        Ok(Rival { loaded, edge: self.edge.usage()? })
    }
}

/// These servers cannot say which free port they took, so one is looked for before.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
