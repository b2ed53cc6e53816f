//! Others who talk to the gateways, and should not.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use weir_tests::mqtt::{Client, Connect};
use weir_tests::wait::pause;

use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

pub const KINDS: &[Kind] = &[
    Kind {
        name: "a device fought over",
        parts: &[Part::Strangers],
        make: |rng| Box::new(Stranger::new(fight, rng)),
    },
    Kind {
        name: "a neighbour sends garbage",
        parts: &[Part::Strangers],
        make: |rng| Box::new(Stranger::new(send_garbage, rng)),
    },
];

/// How often a stranger comes.
const EVERY: Duration = Duration::from_millis(10);

/// One at each gateway, who comes again and again.
struct Stranger {
    does: fn(&mut Rng, SocketAddr, &str) -> Result<()>,
    seed: u64,
    over: Arc<AtomicBool>,
}

impl Stranger {
    fn new(does: fn(&mut Rng, SocketAddr, &str) -> Result<()>, rng: &mut Rng) -> Stranger {
        Stranger { does, seed: rng.u64(..), over: Arc::default() }
    }
}

impl Fault for Stranger {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        for (gateway, victim) in field.world.gateways.iter().zip(&field.victims) {
            let (does, seed, address) = (self.does, self.seed, gateway.mqtt());
            let (over, victim) = (Arc::clone(&self.over), victim.clone());
            std::thread::spawn(move || {
                let mut rng = Rng::with_seed(seed);
                while !over.load(Ordering::SeqCst) {
                    // Being refused, cut off or without an answer is what a stranger has to expect.
                    let _ = does(&mut rng, address, &victim);
                    pause(EVERY);
                }
            });
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Field) -> Result<Instant> {
        // One who waits for an answer goes when it comes, or when none does.
        self.over.store(true, Ordering::SeqCst);
        Ok(Instant::now())
    }
}

/// Connects under the name of a device that is connected, which therefore is sent away and comes back.
fn fight(_: &mut Rng, gateway: SocketAddr, victim: &str) -> Result<()> {
    Client::try_connect(gateway, &Connect::new(victim))?;
    Ok(())
}

/// Anything but MQTT; MQTT up to a point; packets that claim to be of any length.
fn send_garbage(rng: &mut Rng, gateway: SocketAddr, _: &str) -> Result<()> {
    const NAME: &str = "garbage";
    let mut bytes = vec![0; rng.usize(1..4_000)];
    rng.fill(&mut bytes);
    match rng.u8(..4) {
        0 => TcpStream::connect(gateway)?.write_all(&bytes)?,
        1 => Client::try_connect(gateway, &Connect::new(NAME))?.0.send(&bytes)?,
        2 => {
            bytes[0] = rng.u8(1..=15) << 4 | rng.u8(..16);
            Client::try_connect(gateway, &Connect::new(NAME).v5())?.0.send(&bytes)?;
        }
        // A well-formed PUBLISH, and what is in it is no uplink.
        _ => {
            let mut client = Client::connect(gateway, &Connect::new(NAME).v5())?;
            client.publish(&format!("weir/1/{NAME}/events"), &bytes)?;
        }
    }
    Ok(())
}
