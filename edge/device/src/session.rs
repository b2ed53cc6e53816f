//! The session: when to connect, to subscribe, to publish. Knows nothing of what is published.

/// What the shell should do about the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until this time or for ever, unless something is reported.
    Wait(Option<u64>),
    /// Open a connection, and report [`Session::connected`] or [`Session::disconnected`].
    Connect,
    /// Ask for what the device listens to.
    Subscribe,
    /// Publish what there is.
    Publish,
}

/// The life of a device's connections.
#[derive(Debug, Clone)]
pub struct Session {
    link: Link,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy)]
enum Link {
    Down { retry_at: u64 },
    Connecting,
    Up { subscribed: bool },
}

impl Session {
    /// Without a connection; the first one is due at `connect_at`.
    pub fn new(connect_at: u64, backoff: Backoff) -> Self {
        Self { link: Link::Down { retry_at: connect_at }, backoff }
    }

    /// What to do at `now`. `Connect` and `Subscribe` are said once each.
    pub fn step(&mut self, now: u64) -> Step {
        match self.link {
            Link::Down { retry_at } if now < retry_at => Step::Wait(Some(retry_at)),
            Link::Down { .. } => {
                self.link = Link::Connecting;
                Step::Connect
            }
            Link::Connecting => Step::Wait(None),
            Link::Up { subscribed: false } => {
                self.link = Link::Up { subscribed: true };
                Step::Subscribe
            }
            Link::Up { subscribed: true } => Step::Publish,
        }
    }

    /// The gateway has accepted the connection (CONNACK).
    pub fn connected(&mut self) {
        self.link = Link::Up { subscribed: false };
    }

    /// The gateway has taken an uplink: the next trouble is a new one, so back-off starts over. Being accepted is not
    /// enough for that: a gateway that accepts and then closes would be asked again at once, for ever.
    pub fn progressed(&mut self) {
        self.backoff.reset();
    }

    /// The connection is gone, or could not be made.
    pub fn disconnected(&mut self, now: u64) {
        self.link = Link::Down { retry_at: now.saturating_add(self.backoff.wait_ms()) };
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }
}

/// Waiting times that double up to a limit, each with a random half, so that devices that lost a gateway together do
/// not come back together ("equal jitter": AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015).
#[derive(Debug, Clone)]
pub struct Backoff {
    wait_ms_min: u32,
    wait_ms_max: u32,
    failures: u8,
    random: u64,
}

impl Backoff {
    /// The first wait is up to `wait_ms_min`, no wait is above `wait_ms_max`. `seed` should differ between devices.
    pub fn new(wait_ms_min: u32, wait_ms_max: u32, seed: u64) -> Self {
        // Spread neighbouring seeds (the multiplier of splitmix64); xorshift needs a state other than zero.
        let random = (seed ^ (seed >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1);
        Self { wait_ms_min, wait_ms_max: wait_ms_max.max(wait_ms_min), failures: 0, random }
    }

    /// How long to wait after one more failure: at least half of the present limit, at most all of it.
    pub fn wait_ms(&mut self) -> u64 {
        let limit = u64::from(self.wait_ms_min)
            .checked_shl(u32::from(self.failures))
            .map_or(u64::from(self.wait_ms_max), |doubled| doubled.min(u64::from(self.wait_ms_max)));
        // 32 doublings are past every limit of 32 bits.
        self.failures = (self.failures + 1).min(32);
        let half = limit / 2;
        half + self.next_random() % (limit - half + 1)
    }

    /// The trouble is over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// xorshift64 (Marsaglia 2003): enough to spread devices.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_and_subscribe_are_said_once_per_connection() {
        let mut session = Session::new(5, Backoff::new(100, 1000, 7));
        assert_eq!(session.step(0), Step::Wait(Some(5)));
        assert_eq!(session.step(5), Step::Connect);
        assert_eq!(session.step(6), Step::Wait(None));
        session.connected();
        assert_eq!(session.step(7), Step::Subscribe);
        assert_eq!(session.step(7), Step::Publish);
        session.disconnected(8);
        let Step::Wait(Some(retry_at)) = session.step(8) else { panic!("waits before it connects again") };
        assert!((58..=108).contains(&retry_at), "{retry_at}");
        assert_eq!(session.step(retry_at), Step::Connect);
    }

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_only_after_progress() {
        let mut session = Session::new(0, Backoff::new(100, 3000, 42));
        let wait = |session: &mut Session| {
            session.connected();
            session.disconnected(0);
            let Step::Wait(Some(wait)) = session.step(0) else { panic!("waits") };
            wait
        };
        for limit in [100, 200, 400, 800, 1600, 3000, 3000, 3000] {
            let waited = wait(&mut session);
            assert!((limit / 2..=limit).contains(&waited), "{waited} for {limit}");
        }
        session.progressed();
        assert!(wait(&mut session) <= 100);
    }

    #[test]
    fn backing_off_for_ever_does_not_overflow() {
        let mut backoff = Backoff::new(u32::MAX, u32::MAX, 0);
        for _ in 0..1000 {
            assert!(backoff.wait_ms() <= u64::from(u32::MAX));
        }
        assert_eq!(Backoff::new(0, 0, 3).wait_ms(), 0);
    }

    #[test]
    fn devices_with_different_seeds_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<u64> =
            (0..1000).map(|device| Backoff::new(1_000_000, 1_000_000, device).wait_ms()).collect();
        assert!(waits.len() > 990, "{} different waits", waits.len());
    }
}
