//! Which events each device has handed over lately, so that an uplink sent again is not stored again.
//!
//! Only an optimisation: what is forgotten here is stored twice and told apart by name in the cloud. So what is
//! remembered must be exact, and may be little: per device one run without holes, for the devices seen last.

use std::collections::HashMap;

use weir_contract::Id;

use crate::intake::SeqRun;

/// Devices in each of two generations; an entry has about 100 bytes.
const DEVICES_MAX: usize = 8 * 1024;

/// Both generations, with the room that tables keep free.
pub(super) const MEMORY_BYTES_MAX: u64 = 2 * DEVICES_MAX as u64 * 200;

/// What was taken from a device: all of `from ..= to` of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    boot: u64,
    from: u32,
    to: u32,
    /// The commit that makes the last of it durable; the rest is in this or in earlier ones.
    ticket: u64,
}

/// The latest run of each of the devices seen last.
#[derive(Debug, Default)]
pub(super) struct Runs {
    recent: HashMap<Id, Taken>,
    older: HashMap<Id, Taken>,
}

impl Runs {
    /// The commit with which all of `run` is durable, if all of it has been taken before.
    pub fn ticket_of(&mut self, device: &Id, run: SeqRun) -> Option<u64> {
        let taken = self.find(device)?;
        let inside = taken.boot == run.boot && taken.from <= run.first && run.last <= taken.to;
        inside.then_some(taken.ticket)
    }

    /// `run` has been taken with this commit.
    pub fn take(&mut self, device: &Id, run: SeqRun, ticket: u64) {
        if let Some(taken) = self.find(device)
            && taken.boot == run.boot
            // They touch or overlap: together they have no hole.
            && run.first <= taken.to.saturating_add(1)
            && taken.from <= run.last.saturating_add(1)
        {
            taken.from = taken.from.min(run.first);
            taken.to = taken.to.max(run.last);
            taken.ticket = ticket;
            return;
        }
        self.remember(*device, Taken { boot: run.boot, from: run.first, to: run.last, ticket });
    }

    fn find(&mut self, device: &Id) -> Option<&mut Taken> {
        if let Some(taken) = self.older.remove(device) {
            self.remember(*device, taken);
        }
        self.recent.get_mut(device)
    }

    fn remember(&mut self, device: Id, taken: Taken) {
        if self.recent.len() >= DEVICES_MAX && !self.recent.contains_key(&device) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(device, taken);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn only_what_was_taken_is_known_as_taken(
            steps in prop::collection::vec((0_u8..3, 0_u64..2, 1_u32..30, 0_u32..8), 1..300),
        ) {
            let (mut runs, mut taken) = (Runs::default(), HashSet::new());
            for (ticket, (device, boot, first, more)) in (1..).zip(steps) {
                let id: Id = format!("d{device}").parse().expect("a name");
                let run = SeqRun { boot, first, last: first + more };
                let names = || (run.first..=run.last).map(|seq| (device, boot, seq));
                if let Some(with) = runs.ticket_of(&id, run) {
                    prop_assert!(with < ticket);
                    prop_assert!(names().all(|name| taken.contains(&name)), "{run:?} was never taken whole");
                } else {
                    runs.take(&id, run, ticket);
                    taken.extend(names());
                    prop_assert_eq!(runs.ticket_of(&id, run), Some(ticket), "what was taken last is known");
                }
            }
        }
    }

    #[test]
    fn the_last_numbers_there_are_do_not_overflow() {
        let (mut runs, id) = (Runs::default(), "d".parse().expect("a name"));
        runs.take(&id, SeqRun { boot: 1, first: u32::MAX, last: u32::MAX }, 1);
        runs.take(&id, SeqRun { boot: 1, first: 1, last: 1 }, 2);
        assert_eq!(runs.ticket_of(&id, SeqRun { boot: 1, first: 1, last: u32::MAX }), None);
    }

    #[test]
    fn a_million_devices_are_not_remembered() {
        let mut runs = Runs::default();
        for device in 0..100_000 {
            let id = format!("d{device}").parse().expect("a name");
            runs.take(&id, SeqRun { boot: 1, first: 1, last: 1 }, 1);
        }
        assert!(runs.recent.len() + runs.older.len() <= 2 * DEVICES_MAX);
    }
}
