//! The cloud's store is gone: every view has to be made again from the log, while new events come.

use std::time::Instant;

use anyhow::Result;

use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

pub const KINDS: &[Kind] = &[Kind { name: "views lost", parts: &[Part::Cloud], make: |_| Box::new(Lost) }];

struct Lost;

impl Fault for Lost {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        field.world.cloud.kill9()?;
        field.world.cloud.forget_everything()
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        let ended = Instant::now();
        field.world.cloud.start_again()?;
        Ok(ended)
    }
}
