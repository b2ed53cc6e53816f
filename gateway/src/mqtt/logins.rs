//! Who may try to log in now: to check a password costs tens of milliseconds of a core, and that is not to be had for nothing.
//! Pure: times go in.
//!
//! After [`FAILURES_FREE`] wrong logins from one address each further one has to wait, twice as long as the one before, and
//! is refused unchecked until then. A name that has logged in from there before is not made to wait for what others at its
//! address do wrong.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Wrong logins from one address before the next has to wait.
pub(super) const FAILURES_FREE: u32 = 5;
/// The first wait, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Without a wrong login for this long, an address begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Logins from one address that are checked, or wait to be, at a time.
pub(super) const PENDING_MAX: u32 = 32;
/// Addresses that are remembered, and names that have logged in. When there are more, those that come wait for the old to be
/// forgotten as if they were one address.
const REMEMBERED_MAX: usize = 4096;

/// Whom one network connection gives: of IPv6 that is a whole /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Source(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

/// See the module's documentation. Times are since any moment in the past.
#[derive(Debug, Default)]
pub(super) struct Logins {
    sources: HashMap<Source, Tries>,
    /// Those that there was no place for.
    others: Tries,
    /// Hashes of addresses and names that have logged in.
    known: HashSet<u64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    pending: u32,
    failures: u32,
    failed_at: Duration,
}

impl Tries {
    /// No login is checked before.
    fn waits_until(&self) -> Duration {
        match self.failures.checked_sub(FAILURES_FREE) {
            None => Duration::ZERO,
            Some(more) => self.failed_at + WAIT.saturating_mul(1 << more.min(10)).min(WAIT_MAX),
        }
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        self.pending == 0 && now > self.failed_at + FORGOTTEN_AFTER
    }
}

impl Logins {
    /// Whether this login is to be checked now. If so, [`Self::end`] has to be told how it went.
    pub fn begin(&mut self, source: Source, name: &str, now: Duration) -> bool {
        let known = self.known.contains(&self.hash(source, name));
        if !self.sources.contains_key(&source) && self.sources.len() >= REMEMBERED_MAX {
            self.sources.retain(|_, tries| !tries.is_forgotten(now));
        }
        let tries = if self.sources.contains_key(&source) || self.sources.len() < REMEMBERED_MAX {
            self.sources.entry(source).or_default()
        } else {
            &mut self.others
        };
        if tries.failures > 0 && now > tries.failed_at + FORGOTTEN_AFTER {
            tries.failures = 0;
        }
        if tries.pending >= PENDING_MAX || (!known && now < tries.waits_until()) {
            return false;
        }
        tries.pending += 1;
        true
    }

    /// The login was checked: `right`, or not, or `None` if nobody waits for that any more.
    pub fn end(&mut self, source: Source, name: &str, right: Option<bool>, now: Duration) {
        let hash = self.hash(source, name);
        let tries = self.sources.get_mut(&source).unwrap_or(&mut self.others);
        tries.pending = tries.pending.saturating_sub(1);
        match right {
            Some(true) => {
                if tries.pending == 0 && tries.failures == 0 {
                    self.sources.remove(&source);
                }
                if self.known.len() < REMEMBERED_MAX {
                    self.known.insert(hash);
                }
            }
            // Who gives up before its answer is no better than who was wrong.
            Some(false) | None => {
                tries.failures = tries.failures.saturating_add(1);
                tries.failed_at = now;
                self.known.remove(&hash);
            }
        }
    }

    fn hash(&self, source: Source, name: &str) -> u64 {
        self.sources.hasher().hash_one((source, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// Tries at that time; whether it was checked.
    fn wrong(logins: &mut Logins, from: &str, name: &str, now: Duration) -> bool {
        let checked = logins.begin(source(from), name, now);
        if checked {
            logins.end(source(from), name, Some(false), now);
        }
        checked
    }

    #[test]
    fn guessing_becomes_slower_and_slower_and_nobody_else_waits_for_it() {
        let mut logins = Logins::default();
        let now = 100 * SECOND;
        let checked = (0..1000).filter(|index| wrong(&mut logins, "10.0.0.1", &format!("n{index}"), now));
        assert_eq!(checked.count(), FAILURES_FREE as usize);
        // Ten a second for an hour.
        let hour =
            (0..36_000).filter(|tenth| wrong(&mut logins, "10.0.0.1", "n", now + SECOND / 10 * *tenth));
        assert!(hour.count() < 70);
        assert!(logins.begin(source("10.0.0.2"), "dev-1", now));
        let mut forgiven = logins.begin(source("10.0.0.1"), "dev-1", now + 2 * 3600 * SECOND);
        assert!(forgiven);
        logins.end(source("10.0.0.1"), "dev-1", Some(true), now + 2 * 3600 * SECOND);
        forgiven = (0..100).all(|_| wrong(&mut logins, "10.0.0.1", "x", now + 2 * 3600 * SECOND));
        assert!(!forgiven, "not for ever");
    }

    #[test]
    fn who_has_logged_in_before_is_let_in_whatever_others_at_its_address_do() {
        let mut logins = Logins::default();
        let from = source("10.0.0.1");
        assert!(logins.begin(from, "dev-1", SECOND));
        logins.end(from, "dev-1", Some(true), SECOND);
        while wrong(&mut logins, "10.0.0.1", "guess", SECOND) {}
        assert!(logins.begin(from, "dev-1", SECOND));
        // But not to guess.
        logins.end(from, "dev-1", Some(false), SECOND);
        assert!(!logins.begin(from, "dev-1", SECOND));
    }

    #[test]
    fn a_few_at_a_time_are_checked_for_one_address() {
        let mut logins = Logins::default();
        let begun = (0..100).filter(|_| logins.begin(source("2001:db8::1"), "n", SECOND)).count();
        assert_eq!(begun, PENDING_MAX as usize);
        assert!(!logins.begin(source("2001:db8::ffff:1"), "n", SECOND), "the same network");
        assert!(logins.begin(source("2001:db8:0:1::1"), "n", SECOND));
        logins.end(source("2001:db8::1"), "n", Some(true), SECOND);
        assert!(logins.begin(source("2001:db8::1"), "n", SECOND));
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let mut logins = Logins::default();
        for index in 0..20_000_u32 {
            let from = format!("10.{}.{}.{}", index >> 16, (index >> 8) & 255, index & 255);
            wrong(&mut logins, &from, &from, SECOND);
        }
        assert_eq!(logins.sources.len(), REMEMBERED_MAX);
        assert!(!logins.begin(source("11.0.0.1"), "n", SECOND), "as if they were one");
        assert!(logins.begin(source("11.0.0.1"), "n", 2 * FORGOTTEN_AFTER), "until the old are forgotten");
    }
}
