//! Processes that end without a word (`kill -9`), or hang: their sockets stay open and nobody answers.

use std::time::Instant;

use anyhow::Result;
use fastrand::Rng;

use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

pub const KINDS: &[Kind] = &[
    Kind { name: "gateway killed", parts: &[Part::Gateways], make: |rng| Box::new(Killed(gateways(rng))) },
    Kind { name: "nats-server killed", parts: &[Part::Log], make: |_| Box::new(Killed(Who::Nats)) },
    Kind { name: "cloud killed", parts: &[Part::Cloud], make: |_| Box::new(Killed(Who::Cloud)) },
    Kind { name: "gateway hung", parts: &[Part::Gateways], make: |rng| Box::new(Hung(gateways(rng))) },
    Kind { name: "nats-server hung", parts: &[Part::Log], make: |_| Box::new(Hung(Who::Nats)) },
];

#[derive(Clone, Copy)]
enum Who {
    /// One of them.
    Gateway(usize),
    AllGateways,
    Nats,
    Cloud,
}

fn gateways(rng: &mut Rng) -> Who {
    match rng.u8(..3) {
        0 => Who::AllGateways,
        _ => Who::Gateway(rng.usize(..)),
    }
}

impl Who {
    /// The places of the gateways that are meant.
    fn gateways(self, field: &Field) -> Vec<usize> {
        let count = field.world.gateways.len();
        match self {
            Who::Gateway(any) => vec![any % count],
            Who::AllGateways => (0..count).collect(),
            Who::Nats | Who::Cloud => Vec::new(),
        }
    }
}

struct Killed(Who);

impl Fault for Killed {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        for place in self.0.gateways(field) {
            field.world.gateways[place].kill9()?;
        }
        match self.0 {
            Who::Nats => field.world.nats.kill9(),
            Who::Cloud => field.world.cloud.kill9(),
            Who::Gateway(_) | Who::AllGateways => Ok(()),
        }
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        let ended = Instant::now();
        for place in self.0.gateways(field) {
            field.world.gateways[place].start_again()?;
        }
        match self.0 {
            Who::Nats => field.world.nats.start_again()?,
            Who::Cloud => field.world.cloud.start_again()?,
            Who::Gateway(_) | Who::AllGateways => {}
        }
        Ok(ended)
    }
}

struct Hung(Who);

impl Fault for Hung {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        for place in self.0.gateways(field) {
            field.world.gateways[place].process()?.freeze()?;
        }
        match self.0 {
            Who::Nats => field.world.nats.process()?.freeze(),
            Who::Cloud => field.world.cloud.process()?.freeze(),
            Who::Gateway(_) | Who::AllGateways => Ok(()),
        }
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        for place in self.0.gateways(field) {
            field.world.gateways[place].process()?.thaw()?;
        }
        match self.0 {
            Who::Nats => field.world.nats.process()?.thaw()?,
            Who::Cloud => field.world.cloud.process()?.thaw()?,
            Who::Gateway(_) | Who::AllGateways => {}
        }
        Ok(Instant::now())
    }
}
