//! When a device's boots began, and so in which order its events happened.
//!
//! Events of a device are ordered by (when their boot began, seq), never by arrival: an older boot may arrive later through
//! another gateway. Of what is told of a boot's beginning, the device's last word is taken, and of the gateways' estimates the
//! least, so it does not depend on the order in which it was told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use weir_contract::time::NOT_BEFORE_MS;
use weir_contract::uplink::Header;

/// No device that was heard by this version had been up for longer.
const UP_MS_MAX: u64 = 10 * 365 * 86_400_000;
/// Most boots remembered as later than an older one. The least numbers are kept, whatever came first.
pub const VIAS_MAX: usize = 8;

/// What the uplinks of a boot tell of its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beginning {
    /// Unix milliseconds at the boot's zero by the device's own clock, and the number of the last event in the uplink that
    /// told it. A device that was told a wrong time corrects itself, so its last word counts.
    pub device_ms: Option<(u32, u64)>,
    /// The least `received − now`: an upper bound, the nearer the faster an uplink travelled.
    pub gateway_ms: Option<u64>,
    /// The least time of receipt: an upper bound for want of anything better.
    pub received_ms: Option<u64>,
    /// Later boots, which sent events of this one or came after it, ascending, at most [`VIAS_MAX`].
    pub vias: Vec<u64>,
}

impl Beginning {
    /// Learns from an uplink with `header`, whose last event has the number `last_seq`, that was received at `received_ms`.
    pub fn learn(&mut self, header: &Header, last_seq: u32, received_ms: u64) {
        self.device_ms = self.device_ms.max(header.epoch.map(|epoch_ms| (last_seq, epoch_ms)));
        least(&mut self.gateway_ms, header.now.map(|now| received_ms.saturating_sub(now)));
        least(&mut self.received_ms, Some(received_ms));
        if let (None, Some(via)) = (header.now, header.via)
            && let Err(place) = self.vias.binary_search(&via)
        {
            self.vias.insert(place, via);
            self.vias.truncate(VIAS_MAX);
        }
    }

    /// Unix milliseconds of the beginning, if the device or a gateway knows.
    pub fn known_ms(&self) -> Option<u64> {
        self.device_ms.map(|(_, ms)| ms).or(self.gateway_ms)
    }
}

/// The least of those that can be true, and only of the others if there are none: a gateway whose clock was not set says 1970.
fn least(known: &mut Option<u64>, told: Option<u64>) {
    let cannot_be = |ms: u64| ms < NOT_BEFORE_MS - UP_MS_MAX;
    *known = (*known).into_iter().chain(told).min_by_key(|ms| (cannot_be(*ms), *ms));
}

/// Where a boot stands among the boots of its device; lesser is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    ms: u64,
    /// A boot of unknown time stands just before a later one that its uplinks name: one step, or several in a chain.
    steps_before: Reverse<u32>,
}

/// The boots of one device, oldest first. Those that cannot be told apart in time are ordered by their number.
pub fn in_order<'a>(boots: impl IntoIterator<Item = (u64, &'a Beginning)>) -> Vec<u64> {
    let boots: BTreeMap<u64, &Beginning> = boots.into_iter().collect();
    let mut ranks = Ranks { boots: &boots, known: BTreeMap::new() };
    let mut order: Vec<(Rank, u64)> = boots.keys().map(|&boot| (ranks.of(boot), boot)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, boot)| boot).collect()
}

struct Ranks<'a> {
    boots: &'a BTreeMap<u64, &'a Beginning>,
    known: BTreeMap<u64, Rank>,
}

impl Ranks<'_> {
    /// The rank of `boot`. Follows the chain of boots that sent one another, without recursion: a device decides how long
    /// that chain is, and may even close it to a ring.
    fn of(&mut self, boot: u64) -> Rank {
        let mut chain = vec![boot];
        let mut on_chain = BTreeSet::from([boot]);
        while let Some(&last) = chain.last() {
            if self.known.contains_key(&last) {
                chain.pop();
                continue;
            }
            let Some(beginning) = self.boots.get(&last) else { break };
            let to_rank_first = beginning.vias.iter().find(|via| {
                self.boots.contains_key(via) && !self.known.contains_key(via) && !on_chain.contains(via)
            });
            match to_rank_first {
                Some(&via) if beginning.known_ms().is_none() => {
                    chain.push(via);
                    on_chain.insert(via);
                }
                _ => {
                    self.known.insert(last, self.rank(beginning));
                }
            }
        }
        self.known.get(&boot).copied().unwrap_or(Rank { ms: u64::MAX, steps_before: Reverse(0) })
    }

    fn rank(&self, beginning: &Beginning) -> Rank {
        let at = |ms| Rank { ms, steps_before: Reverse(0) };
        let before =
            |rank: &Rank| Rank { ms: rank.ms, steps_before: Reverse(rank.steps_before.0.saturating_add(1)) };
        if let Some(ms) = beginning.known_ms() {
            return at(ms);
        }
        // Of a boot that is only known by its losses there is no time at all: it places nobody.
        let placed = |rank: &&Rank| rank.ms != u64::MAX;
        let before_its_vias =
            beginning.vias.iter().filter_map(|via| self.known.get(via)).filter(placed).map(before).min();
        before_its_vias.unwrap_or_else(|| at(beginning.received_ms.unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use weir_contract::uplink::Header;

    use super::{Beginning, NOT_BEFORE_MS, VIAS_MAX, in_order};

    fn sent(now: Option<u64>, epoch: Option<u64>, via: Option<u64>) -> Header {
        Header { boot: 0, now, epoch, via }
    }

    fn learnt(uplinks: &[(Header, u64)]) -> Beginning {
        let mut beginning = Beginning::default();
        for (last_seq, (header, received_ms)) in (1..).zip(uplinks) {
            beginning.learn(header, last_seq, *received_ms);
        }
        beginning
    }

    #[test]
    fn the_devices_clock_goes_before_the_least_estimate_of_the_gateways() {
        let by_gateways = [(sent(Some(100), None, None), 10_300), (sent(Some(900), None, None), 11_000)];
        assert_eq!(learnt(&by_gateways).known_ms(), Some(10_100));
        let by_device = learnt(&[by_gateways[0], (sent(Some(950), Some(10_050), None), 11_500)]);
        assert_eq!(by_device.known_ms(), Some(10_050));
    }

    #[test]
    fn a_device_that_was_told_a_wrong_time_is_believed_when_it_corrects_itself() {
        let wrong_then_right =
            [(sent(Some(5), Some(10), None), 15), (sent(Some(9), Some(7_000), None), 7_009)];
        assert_eq!(learnt(&wrong_then_right).known_ms(), Some(7_000));
        let ahead_then_right = [wrong_then_right[1], wrong_then_right[0]];
        assert_eq!(learnt(&ahead_then_right).known_ms(), Some(10));
    }

    #[test]
    fn what_is_known_does_not_depend_on_the_order_it_was_told_in() {
        let mut uplinks: Vec<(u32, Header, u64)> = (0..20)
            .map(|i| (sent(None, (i % 3 == 0).then_some(500 + i), Some(100 - i)), 1_000 + (i * 7) % 11))
            .zip(1..)
            .map(|((header, received_ms), last_seq)| (last_seq, header, received_ms))
            .collect();
        let learnt = |uplinks: &[(u32, Header, u64)]| {
            let mut beginning = Beginning::default();
            for (last_seq, header, received_ms) in uplinks {
                beginning.learn(header, *last_seq, *received_ms);
            }
            beginning
        };
        let forwards = learnt(&uplinks);
        uplinks.reverse();
        assert_eq!(learnt(&uplinks), forwards);
        assert_eq!(forwards.vias.len(), VIAS_MAX);
    }

    #[test]
    fn what_a_gateway_says_whose_clock_is_not_set_is_no_beginning() {
        let set = NOT_BEFORE_MS + 1_000_000;
        let by_unset = [(sent(Some(5), None, None), 60_000), (sent(None, None, None), 70_000)];
        let by_set = [(sent(Some(400), None, None), set), (sent(Some(500), None, None), set + 90)];
        let before = learnt(&[by_unset[0], by_set[0], by_unset[1], by_set[1]]);
        assert_eq!((before.known_ms(), before.received_ms), (Some(set - 410), Some(set)));
        let after = learnt(&[by_set[1], by_unset[1], by_set[0], by_unset[0]]);
        assert_eq!((after.known_ms(), after.received_ms), (before.known_ms(), before.received_ms));
        // It stands among the boots of its time, not before all of them.
        let earlier = learnt(&[(sent(Some(0), None, None), set - 1000)]);
        assert_eq!(in_order([(1, &before), (2, &earlier)]), [2, 1]);
        assert_eq!(learnt(&by_unset).known_ms(), Some(59_995), "for want of anything better");
    }

    #[test]
    fn an_older_boot_stands_just_before_the_one_that_sent_it() {
        let current = learnt(&[(sent(Some(0), None, None), 5_000)]);
        let earlier = learnt(&[(sent(Some(0), None, None), 4_999)]);
        // 7 was sent by 6, 6 by the current boot 5: later received, yet older.
        let sent_by_5 = learnt(&[(sent(None, None, Some(5)), 9_000)]);
        let sent_by_6 = learnt(&[(sent(None, None, Some(6)), 9_001)]);
        assert_eq!(in_order([(5, &current), (6, &sent_by_5), (7, &sent_by_6), (9, &earlier)]), [9, 7, 6, 5]);
    }

    #[test]
    fn boots_sent_by_one_stand_in_the_order_in_which_they_name_each_other() {
        let current = learnt(&[(sent(Some(0), None, None), 5_000)]);
        // All were sent by 5; the last uplink of each names the one that came next.
        let third = learnt(&[(sent(None, None, Some(5)), 9_000)]);
        let second = learnt(&[(sent(None, None, Some(6)), 9_000)]);
        let first = learnt(&[(sent(None, None, Some(5)), 9_000), (sent(None, None, Some(9)), 9_000)]);
        assert_eq!(in_order([(5, &current), (6, &third), (9, &second), (7, &first)]), [7, 9, 6, 5]);
    }

    #[test]
    fn a_boot_only_known_by_its_losses_draws_no_other_to_the_end() {
        let sent_by_7 = learnt(&[(sent(None, None, Some(7)), 5_000)]);
        let only_lost = Beginning::default();
        let later = learnt(&[(sent(Some(0), None, None), 9_000)]);
        assert_eq!(in_order([(3, &sent_by_7), (7, &only_lost), (9, &later)]), [3, 9, 7]);
    }

    #[test]
    fn boots_that_say_they_sent_each_other_still_have_one_order() {
        let a = learnt(&[(sent(None, None, Some(2)), 100)]);
        let b = learnt(&[(sent(None, None, Some(1)), 50)]);
        let itself = learnt(&[(sent(None, None, Some(3)), 70)]);
        let order = in_order([(1, &a), (2, &b), (3, &itself)]);
        assert_eq!(order, in_order([(3, &itself), (2, &b), (1, &a)]));
        assert_eq!(order.len(), 3);
    }

    #[test]
    fn a_boot_of_which_nothing_is_known_stands_where_it_was_received() {
        let known = learnt(&[(sent(Some(10), None, None), 1_010)]);
        let unknown = learnt(&[(sent(None, None, None), 900)]);
        let sent_by_a_stranger = learnt(&[(sent(None, None, Some(77)), 2_000)]);
        assert_eq!(in_order([(1, &known), (2, &unknown), (3, &sent_by_a_stranger)]), [2, 1, 3]);
    }
}
