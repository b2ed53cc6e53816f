//! The log refuses, or forgets.

use std::time::Instant;

use anyhow::{Context, Result};
use weir_tests::nats::Backup;

use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

pub const KINDS: &[Kind] = &[
    Kind { name: "log full", parts: &[Part::Log], make: |_| Box::new(Full) },
    Kind { name: "log forbidden", parts: &[Part::Log], make: |_| Box::new(Forbidden) },
    Kind {
        name: "log restored from an old copy",
        parts: &[Part::Log],
        make: |rng| Box::new(Restored { copy: None, killed: rng.bool() }),
    },
];

/// The stream takes nothing any more.
struct Full;

impl Fault for Full {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        field.world.nats.fill(true)
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        field.world.nats.fill(false)?;
        Ok(Instant::now())
    }
}

/// Nobody may publish segments any more.
struct Forbidden;

/// The end of nats-server's configuration: anybody is one user, who may do everything, or may not publish segments.
/// (Who anybody is cannot be changed while it runs; what he may, can.)
pub fn rights(segments: bool) -> String {
    let deny = if segments { "weir.1.nothing" } else { "weir.1.segments.>" };
    format!(
        "authorization {{ users: [ {{ user: anybody, password: none, permissions: {{ publish: {{ deny: {deny:?} }} }} }} ] }}\n\
         no_auth_user: anybody\n"
    )
}

impl Fault for Forbidden {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        field.world.nats.reload(&rights(false))
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        field.world.nats.reload(&rights(true))?;
        Ok(Instant::now())
    }
}

/// What the log takes between beginning and end, it has forgotten afterwards, although it had acknowledged it.
struct Restored {
    copy: Option<Backup>,
    /// Whether the server was killed in the end, or stopped.
    killed: bool,
}

impl Fault for Restored {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        let nats = &mut field.world.nats;
        nats.stop()?;
        self.copy = Some(nats.back_up()?);
        nats.start_again()
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        let nats = &mut field.world.nats;
        let down = if self.killed { nats.kill9() } else { nats.stop() };
        down?;
        let copy = self.copy.take().context("no copy was made")?;
        nats.restore(&copy)?;
        let ended = Instant::now();
        nats.start_again()?;
        Ok(ended)
    }
}
