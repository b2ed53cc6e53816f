//! What the machine under a gateway does: its disk is full, its clock is wrong, its power is cut, its files are damaged.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use weir_tests::clock::{WallClock, now_ms};
use weir_tests::gateway::Gateway;
use weir_tests::process::{self, Process};
use weir_tests::programs;

use super::{Fault, Kind};
use crate::field::Field;
use crate::schedule::Part;

pub const KINDS: &[Kind] = &[
    Kind { name: "disk full", parts: &[Part::Gateways], make: |rng| Box::new(Full { place: rng.usize(..) }) },
    Kind { name: "clock wrong", parts: &[Part::Gateways], make: |rng| Box::new(Clock::new(rng)) },
    Kind { name: "power cut", parts: &[Part::Replay], make: |rng| Box::new(Replayed::power_cuts(rng)) },
    Kind { name: "files damaged", parts: &[Part::Replay], make: |rng| Box::new(Replayed::damage(rng)) },
];

/// A gateway finds less free on its disk than is to stay free there. It is started again with that as its configuration, since
/// filling this machine's disk would concern others, too.
struct Full {
    place: usize,
}

impl Full {
    fn start_again<'a>(&self, field: &'a mut Field, free_min: Option<&str>) -> Result<&'a Gateway> {
        let count = field.world.gateways.len();
        let gateway = &mut field.world.gateways[self.place % count];
        gateway.kill9()?;
        let spool = gateway.config_mut()["spool"].as_table_mut().context("[spool]")?;
        match free_min {
            Some(free_min) => spool.insert("free_min".into(), free_min.into()),
            None => spool.remove("free_min"),
        };
        gateway.start_again()?;
        Ok(gateway)
    }
}

impl Fault for Full {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        // More than there is anywhere.
        let gateway = self.start_again(field, Some("1023 TiB"))?;
        let custody = &gateway.admin("/status")?["custody"];
        ensure!(custody["ok"] == false, "the disk is not taken for full: {custody}");
        Ok(())
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        let ended = Instant::now();
        self.start_again(field, None)?;
        Ok(ended)
    }
}

/// A gateway starts with a clock that is wrong, and it is set while it runs.
struct Clock {
    place: usize,
    wrong: Wrong,
    /// Where the machine has one that can be set for one process.
    clock: Option<WallClock>,
}

enum Wrong {
    /// It begins in 1970, as those do that have no battery.
    Unset,
    /// By so many seconds.
    By(i64),
}

impl Clock {
    fn new(rng: &mut Rng) -> Clock {
        const DAYS: i64 = 24 * 60 * 60;
        let wrong = match rng.u8(..3) {
            0 => Wrong::Unset,
            1 => Wrong::By(-rng.i64(1..8 * DAYS)),
            _ => Wrong::By(rng.i64(1..8 * DAYS)),
        };
        Clock { place: rng.usize(..), wrong, clock: None }
    }

    fn wrong_by_s(&self) -> Result<i64> {
        Ok(match self.wrong {
            Wrong::Unset => 60 - i64::try_from(now_ms() / 1000)?,
            Wrong::By(seconds) => seconds,
        })
    }

    fn gateway<'a>(&self, field: &'a mut Field) -> &'a mut Gateway {
        let count = field.world.gateways.len();
        &mut field.world.gateways[self.place % count]
    }
}

impl Fault for Clock {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        let folder = field.folder().to_owned();
        let gateway = self.gateway(field);
        gateway.kill9()?;
        // Where there is no libfaketime, it was killed, and no more.
        self.clock = WallClock::of_one_process(&folder.join(format!("{}.clock", gateway.id())));
        if let Some(clock) = &self.clock {
            clock.set(self.wrong_by_s()?)?;
            gateway.set_environment(clock.environment()?);
        }
        gateway.start_again()?;
        if self.clock.is_some() {
            let started =
                i64::try_from(gateway.admin("/status")?["started_ms"].as_u64().unwrap_or_default())?;
            let off = started / 1000 - i64::try_from(now_ms() / 1000)? - self.wrong_by_s()?;
            ensure!(off.abs() < 120, "its clock stands {off} s from where it was set");
        }
        Ok(())
    }

    fn end(&mut self, field: &mut Field) -> Result<Instant> {
        if let Some(clock) = &self.clock {
            clock.set(0)?;
            // It runs on with that clock; started the next time it has everybody's.
            self.gateway(field).set_environment(Vec::new());
        }
        Ok(Instant::now())
    }
}

/// What cannot be done to processes that others are to outlive happens to another spool beside them: a test of
/// weir-gateway, with a seed of its own.
struct Replayed {
    test: &'static str,
    seed: u64,
    log: PathBuf,
    replay: Option<Process>,
}

impl Replayed {
    /// The power is cut at any moment of a gateway's life, again and again, on a disk that forgets what was not synced: the
    /// record of its writes is played back. This machine's own cache cannot be made to forget.
    fn power_cuts(rng: &mut Rng) -> Replayed {
        Replayed::new("custody::tests::power::hundreds_of_power_cuts_take_back_no_promise", rng)
    }

    /// Files of a spool are damaged: what is gone is told by custody numbers, since nobody knows any more whose they were.
    fn damage(rng: &mut Rng) -> Replayed {
        Replayed::new(
            "spool::tests::ruin::whatever_is_damaged_each_number_is_read_or_told_once_and_none_is_given_out_twice",
            rng,
        )
    }

    fn new(test: &'static str, rng: &mut Rng) -> Replayed {
        Replayed { test, seed: rng.u64(..), log: PathBuf::new(), replay: None }
    }
}

impl Fault for Replayed {
    fn begin(&mut self, field: &mut Field) -> Result<()> {
        const CUTS: u32 = 25;
        let tests = programs::unit_tests("weir_gateway")?;
        let tests = tests.to_str().context("a folder that is not UTF-8")?;
        let (seed, cuts) = (format!("WEIR_SEED={}", self.seed), format!("WEIR_CUTS={CUTS}"));
        let arguments = [seed.as_str(), &cuts, tests, self.test, "--exact", "--nocapture"];
        self.log = field.folder().join(format!("replay-{}.log", self.seed));
        self.replay = Some(Process::start(self.test, "env".as_ref(), &arguments, &self.log)?);
        Ok(())
    }

    fn end(&mut self, _: &mut Field) -> Result<Instant> {
        const WITHIN: Duration = Duration::from_secs(120);
        let mut replay = self.replay.take().context("it has begun")?;
        let status = replay.wait(WITHIN)?;
        let said = process::tail(&self.log, 15);
        // A test of another name is none, and none has failed.
        ensure!(status.success() && said.contains("1 passed"), "{status}; the end of its log:\n{said}");
        Ok(Instant::now())
    }
}
