//! The network between devices and their gateways. (Single devices that come, go, hang and lose power are
//! `weir-sim`'s own faults, in every round.)

use std::time::Instant;

use anyhow::Result;

use super::uplink::Ill;
use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

const DOORS: &[Part] = &[Part::Doors];

pub const KINDS: &[Kind] = &[
    Kind { name: "devices all cut off", parts: DOORS, make: |_| Box::new(Bad(Ill::Cut)) },
    Kind { name: "pubacks lost", parts: DOORS, make: |_| Box::new(Bad(Ill::SwallowsAnswers)) },
    Kind {
        name: "devices break off in mid-packet",
        parts: DOORS,
        make: |rng| Box::new(Bad(Ill::Breaks { after_bytes: rng.u64(20..2_000) })),
    },
];

struct Bad(Ill);

impl Fault for Bad {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        field.doors.iter().for_each(|door| self.0.befalls(door));
        Ok(())
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        field.doors.iter().for_each(|door| door.restore());
        Ok(Instant::now())
    }
}
