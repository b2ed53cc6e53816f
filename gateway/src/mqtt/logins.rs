//! Who may try to log in now: to check a password costs tens of milliseconds of a core, and that is not to be had for nothing.
//! Pure: times go in.
//!
//! Many devices may share one address (a router's), and one of them may have a wrong password and try it for ever: it must not
//! keep the others out. So a name's wrong logins are its own: after [`NAME_FREE`] of them each further one of that name has to
//! wait, twice as long as the one before, and is refused unchecked until then. An address is charged with the first
//! [`CHARGED_MAX`] of each name; after [`FAILURES_FREE`] it is somebody who tries names, and every login from there waits in
//! the same way, with these exceptions:
//!
//! * a name that has logged in from there before does not wait, unless its own last login was wrong;
//! * a name that has not failed goes before those that have: they wait twice as long;
//! * when a name logs in from there for the first time, the address begins anew: it is a house of devices, not of guesses.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Wrong logins from one address before the next has to wait.
pub(super) const FAILURES_FREE: u32 = 5;
/// Of these, from one name.
const CHARGED_MAX: u32 = 2;
/// Wrong logins of a name before that name has to wait: a person mistypes.
const NAME_FREE: u32 = 5;
/// The first wait, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Without a wrong login for this long, an address or a name begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Logins from one address that are checked, or wait to be, at a time.
pub(super) const PENDING_MAX: u32 = 32;
/// So many wrong logins from one address are still a few devices', each with its own wait; with more, each one counts.
const FEW_DEVICES: u32 = 4 * FAILURES_FREE;
/// Addresses that are remembered, and names that fail. When there are more, those that come wait for the old to be forgotten as
/// if they were one.
const REMEMBERED_MAX: usize = 4096;
/// Names that have logged in. When there are more, all are forgotten, as after a restart.
const KNOWN_MAX: usize = 16_384;

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
    sources: Failures<Source>,
    /// By the hash of address and name: only those that fail.
    names: Failures<u64>,
    /// Logins that are being checked, or wait to be.
    pending: HashMap<Source, u32>,
    /// Hashes of addresses and names that have logged in.
    known: HashSet<u64>,
}

/// Who was wrong lately, and those that there was no place for.
#[derive(Debug)]
struct Failures<K> {
    each: HashMap<K, Tries>,
    others: Tries,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    failures: u32,
    failed_at: Duration,
}

impl Tries {
    /// After more than so many failures, how long the next has to wait.
    fn wait(&self, free: u32) -> Duration {
        match self.failures.checked_sub(free) {
            None => Duration::ZERO,
            Some(more) => WAIT.saturating_mul(1 << more.min(10)).min(WAIT_MAX),
        }
    }

    fn fail(&mut self, now: Duration) {
        *self = Tries { failures: self.failures.saturating_add(1), failed_at: now };
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        now > self.failed_at + FORGOTTEN_AFTER
    }
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Failures { each: HashMap::new(), others: Tries::default() }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Failures<K> {
    fn get(&mut self, key: K, now: Duration) -> Tries {
        let is_full = self.each.len() >= REMEMBERED_MAX;
        let tries = self.each.get(&key).copied().or(is_full.then_some(self.others));
        tries.filter(|tries| !tries.is_forgotten(now)).unwrap_or_default()
    }

    /// Whether there is place to remember it.
    fn fail(&mut self, key: K, now: Duration) -> bool {
        let before = self.get(key, now);
        if self.each.len() >= REMEMBERED_MAX && !self.each.contains_key(&key) {
            self.each.retain(|_, tries| !tries.is_forgotten(now));
        }
        if self.each.len() < REMEMBERED_MAX || self.each.contains_key(&key) {
            let tries = self.each.entry(key).or_default();
            *tries = before;
            tries.fail(now);
            true
        } else {
            self.others.fail(now);
            false
        }
    }

    fn has_failed(&self, key: &K, now: Duration) -> bool {
        self.each.get(key).is_some_and(|tries| tries.failures > 0 && !tries.is_forgotten(now))
    }
}

impl Logins {
    /// Whether this login is to be checked now. If so, [`Self::end`] has to be told how it went.
    pub fn begin(&mut self, source: Source, name: &str, now: Duration) -> bool {
        let hash = self.hash(source, name);
        let (of_source, of_name) = (self.sources.get(source, now), self.names.get(hash, now));
        let is_known = self.known.contains(&hash) && !self.names.has_failed(&hash, now);
        // Of those that wait for the address, who has failed himself comes second.
        let wait = of_source.wait(FAILURES_FREE) * if of_name.failures > 0 { 2 } else { 1 };
        let waits = now < of_source.failed_at + wait || now < of_name.failed_at + of_name.wait(NAME_FREE);
        let pending = self.pending.get(&source).copied().unwrap_or(0);
        if pending >= PENDING_MAX || (!is_known && waits) {
            return false;
        }
        self.pending.insert(source, pending + 1);
        true
    }

    /// The login was checked: `right`, or not, or `None` if it came to no check: then nothing is known of whoever it was.
    pub fn end(&mut self, source: Source, name: &str, right: Option<bool>, now: Duration) {
        let hash = self.hash(source, name);
        if let Some(pending) = self.pending.get_mut(&source) {
            *pending -= 1;
            if *pending == 0 {
                self.pending.remove(&source);
            }
        }
        match right {
            None => {}
            Some(true) => {
                self.names.each.remove(&hash);
                if self.known.len() >= KNOWN_MAX && !self.known.contains(&hash) {
                    self.known.clear();
                }
                if self.known.insert(hash) {
                    self.sources.each.remove(&source);
                }
            }
            Some(false) => {
                let of_name = self.names.get(hash, now).failures;
                if !self.names.fail(hash, now) {
                    self.known.remove(&hash);
                }
                if of_name < CHARGED_MAX || self.sources.get(source, now).failures > FEW_DEVICES {
                    self.sources.fail(source, now);
                }
            }
        }
    }

    #[cfg(test)]
    pub fn failures(&self, source: Source) -> u32 {
        self.sources.each.get(&source).map_or(0, |tries| tries.failures)
    }

    fn hash(&self, source: Source, name: &str) -> u64 {
        self.sources.each.hasher().hash_one((source, name))
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
        let guessed =
            (0..100).filter(|guess| wrong(&mut logins, "10.0.0.1", &format!("guess-{guess}"), SECOND));
        assert_eq!(guessed.count(), FAILURES_FREE as usize);
        assert!(logins.begin(from, "dev-1", SECOND));
        // But not to guess.
        logins.end(from, "dev-1", Some(false), SECOND);
        assert!(!logins.begin(from, "dev-1", SECOND));
    }

    #[test]
    fn a_device_with_a_wrong_password_keeps_nobody_at_its_address_out() {
        let from = source("10.0.0.1");
        for wrong_devices in [1, 2, 9] {
            // As after a restart: nobody is known yet.
            let mut logins = Logins::default();
            let (mut checked, mut longest) = (0, Duration::ZERO);
            for second in 1..600 {
                let now = SECOND * second;
                let devices = (0..wrong_devices).map(|device| format!("wrong-{device}"));
                checked += devices.filter(|device| wrong(&mut logins, "10.0.0.1", device, now)).count();
                // Every 10 s one comes that was never there, and tries again every second.
                if second % 10 == 0 {
                    let name = format!("dev-{second}");
                    let let_in = (0..60).find(|more| logins.begin(from, &name, now + SECOND * *more));
                    logins.end(from, &name, Some(true), now);
                    longest = longest.max(SECOND * let_in.expect("within a minute"));
                }
            }
            assert!(longest <= 8 * SECOND, "{wrong_devices} wrong: one was kept out for {longest:?}");
            assert!(checked < 20 * wrong_devices, "{wrong_devices} wrong: {checked} were checked");
        }
    }

    #[test]
    fn at_an_address_of_guessers_who_has_not_failed_goes_first() {
        let (mut logins, from) = (Logins::default(), source("10.0.0.1"));
        // A house of devices with an old password, all of them tried at every moment.
        let names: Vec<String> = (0..100).map(|index| format!("old-{index}")).collect();
        for second in 1..3600 {
            names.iter().for_each(|name| _ = wrong(&mut logins, "10.0.0.1", name, SECOND * second));
        }
        let let_in = (0..120).find(|more| logins.begin(from, "dev-1", SECOND * (3600 + more)));
        assert!(let_in.is_some_and(|seconds| seconds <= 60), "{let_in:?}");
    }

    #[test]
    fn who_was_never_checked_is_not_called_wrong() {
        let (mut logins, from) = (Logins::default(), source("10.0.0.1"));
        for _ in 0..100 {
            assert!(logins.begin(from, "dev-1", SECOND));
            logins.end(from, "dev-1", None, SECOND);
        }
        assert!(logins.sources.each.is_empty() && logins.pending.is_empty());
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
        assert_eq!((logins.sources.each.len(), logins.names.each.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(logins.pending.is_empty());
        assert!(!logins.begin(source("11.0.0.1"), "n", SECOND), "as if they were one");
        assert!(logins.begin(source("11.0.0.1"), "n", 2 * FORGOTTEN_AFTER), "until the old are forgotten");
    }
}
