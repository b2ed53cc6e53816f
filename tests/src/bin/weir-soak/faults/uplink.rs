//! The network between all gateways and nats-server: LTE at its worst.

use std::time::Instant;

use anyhow::Result;
use weir_tests::link::Link;

use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

const UPLINK: &[Part] = &[Part::Uplink];

pub const KINDS: &[Kind] = &[
    Kind { name: "uplink cut", parts: UPLINK, make: |_| Box::new(Bad(Ill::Cut)) },
    Kind { name: "uplink swallows everything", parts: UPLINK, make: |_| Box::new(Bad(Ill::Swallows)) },
    Kind { name: "uplink swallows answers", parts: UPLINK, make: |_| Box::new(Bad(Ill::SwallowsAnswers)) },
    Kind {
        name: "uplink slow",
        parts: UPLINK,
        make: |rng| Box::new(Bad(Ill::Slow { bytes_per_s: rng.u64(4_000..40_000) })),
    },
    Kind {
        name: "uplink breaks in mid-message",
        parts: UPLINK,
        // Between nothing but the greeting and a few segments.
        make: |rng| Box::new(Bad(Ill::Breaks { after_bytes: rng.u64(500..30_000) })),
    },
];

/// How a network is bad.
#[derive(Clone, Copy)]
pub enum Ill {
    Cut,
    Swallows,
    SwallowsAnswers,
    Slow { bytes_per_s: u64 },
    Breaks { after_bytes: u64 },
}

impl Ill {
    pub fn befalls(self, link: &Link) {
        match self {
            Ill::Cut => link.cut(),
            Ill::Swallows => link.swallow(),
            Ill::SwallowsAnswers => link.swallow_answers(),
            Ill::Slow { bytes_per_s } => link.slow(bytes_per_s),
            Ill::Breaks { after_bytes } => link.break_after(after_bytes),
        }
    }
}

struct Bad(Ill);

impl Fault for Bad {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        self.0.befalls(field.world.link()?);
        Ok(())
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        field.world.link()?.restore();
        Ok(Instant::now())
    }
}
