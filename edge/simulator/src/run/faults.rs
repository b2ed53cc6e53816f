//! What goes wrong, and when: everything from one seed.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

const MS_PER_MIN: f64 = 60_000.0;

/// How often things go wrong. Rates are per device and minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The device says goodbye (DISCONNECT) and comes back.
    pub reconnects: f64,
    /// The socket is closed without a word.
    pub drops: f64,
    /// The device neither reads nor writes any more, the socket stays open; it comes back on another one.
    pub silences: f64,
    /// Power is cut. What was not acknowledged is in memory that outlives it.
    pub boots: f64,
    /// Share of uplinks that are published twice.
    pub duplicates: f64,
    /// Share of devices whose clock is wrong.
    pub skewed: f64,
}

impl Faults {
    const MILD: Self =
        Self { reconnects: 0.5, drops: 0.5, silences: 0.2, boots: 0.2, duplicates: 0.01, skewed: 0.1 };
    const ROUGH: Self =
        Self { reconnects: 3.0, drops: 6.0, silences: 2.0, boots: 2.0, duplicates: 0.1, skewed: 0.3 };
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = match text {
            "none" => return Ok(Self::default()),
            "mild" => return Ok(Self::MILD),
            "rough" => return Ok(Self::ROUGH),
            _ => Self::default(),
        };
        for setting in text.split(',') {
            let (name, value) = setting.split_once('=').ok_or_else(|| {
                format!("{setting:?}: expected none, mild, rough, or NAME=NUMBER,… of reconnects, drops, silences, boots, duplicates, skewed")
            })?;
            let number: f64 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
            let (field, max) = match name {
                "reconnects" => (&mut faults.reconnects, 600.0),
                "drops" => (&mut faults.drops, 600.0),
                "silences" => (&mut faults.silences, 600.0),
                "boots" => (&mut faults.boots, 600.0),
                "duplicates" => (&mut faults.duplicates, 1.0),
                "skewed" => (&mut faults.skewed, 1.0),
                other => return Err(format!("there is no fault {other:?}")),
            };
            if !(0.0..=max).contains(&number) {
                return Err(format!("{name} must be from 0 to {max}"));
            }
            *field = number;
        }
        Ok(faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reconnects, drops, silences, boots, duplicates, skewed } = self;
        write!(
            f,
            "reconnects={reconnects},drops={drops},silences={silences},boots={boots},duplicates={duplicates},skewed={skewed}"
        )
    }
}

/// Something that goes wrong with one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Reconnect,
    Drop,
    Silence,
    Boot,
}

/// The faults of one device.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    faults: Faults,
    rng: Rng,
}

impl FaultPlan {
    pub(crate) fn new(faults: Faults, rng: Rng) -> Self {
        Self { faults, rng }
    }

    /// The next fault and in how many milliseconds; `None` if nothing ever goes wrong. Intervals are exponential, so
    /// faults come at random and in clusters (a Poisson process).
    pub(crate) fn next(&mut self) -> Option<(u64, Fault)> {
        let Faults { reconnects, drops, silences, boots, .. } = self.faults;
        let kinds = [
            (reconnects, Fault::Reconnect),
            (drops, Fault::Drop),
            (silences, Fault::Silence),
            (boots, Fault::Boot),
        ];
        let rate: f64 = kinds.iter().map(|kind| kind.0).sum();
        if rate <= 0.0 {
            return None;
        }
        let wait_ms = -(1.0 - self.rng.f64()).ln() / rate * MS_PER_MIN;
        let mut pick = self.rng.f64() * rate;
        let fault = kinds.iter().find(|kind| {
            pick -= kind.0;
            pick < 0.0
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and `as` saturates"
        )]
        Some((wait_ms as u64, fault.map_or(Fault::Drop, |kind| kind.1)))
    }

    /// Whether to publish the uplink at hand twice.
    pub(crate) fn duplicates(&mut self) -> bool {
        self.faults.duplicates > 0.0 && self.rng.f64() < self.faults.duplicates
    }

    /// How long the power is off, in milliseconds.
    pub(crate) fn power_off_ms(&mut self) -> u64 {
        self.rng.u64(100..2000)
    }

    /// The device's clock.
    pub(crate) fn clock(&mut self) -> Clock {
        if self.rng.f64() >= self.faults.skewed {
            return Clock::default();
        }
        match self.rng.u8(0..3) {
            0 => Clock { rate: 1.0 + (self.rng.f64() - 0.5) * 0.04, ..Clock::default() },
            1 => Clock { deaf: true, ..Clock::default() },
            _ => Clock { told_off_by_ms: self.rng.i64(-86_400_000..=86_400_000), ..Clock::default() },
        }
    }
}

/// A device's clock and what may be wrong with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Clock {
    /// Its seconds per second: up to 2 % fast or slow.
    pub(crate) rate: f64,
    /// It never learns the time.
    pub(crate) deaf: bool,
    /// The time it learns is wrong by this: up to a day.
    pub(crate) told_off_by_ms: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { rate: 1.0, deaf: false, told_off_by_ms: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_are_read() {
        for text in ["none", "mild", "rough", "drops=600", "boots=0.5,duplicates=1,skewed=0"] {
            let faults: Faults = text.parse().expect("well-formed");
            assert_eq!(faults.to_string().parse(), Ok(faults), "{text}");
        }
        for text in ["", "some", "drops", "drops=-1", "drops=601", "duplicates=1.1", "drops=NaN", "floods=1"]
        {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
    }

    #[test]
    fn faults_come_as_often_as_they_should_and_the_same_seed_gives_the_same() {
        let faults: Faults = "drops=3,boots=1".parse().expect("well-formed");
        let plan = || {
            let mut plan = FaultPlan::new(faults, Rng::with_seed(7));
            (0..20_000).map_while(|_| plan.next()).collect::<Vec<_>>()
        };
        let (first, second) = (plan(), plan());
        assert_eq!(first, second);
        let mean_ms = first.iter().map(|fault| fault.0).sum::<u64>() as f64 / first.len() as f64;
        assert!((14_000.0..16_000.0).contains(&mean_ms), "four a minute, not one every {mean_ms} ms");
        let boots = first.iter().filter(|fault| fault.1 == Fault::Boot).count();
        assert!((4600..5400).contains(&boots), "a quarter, not {boots} of 20000");
    }

    #[test]
    fn nothing_goes_wrong_unless_asked_for() {
        let mut plan = FaultPlan::new(Faults::default(), Rng::with_seed(1));
        assert_eq!(plan.next(), None);
        assert!(!plan.duplicates());
        assert_eq!(plan.clock(), Clock::default());
    }
}
