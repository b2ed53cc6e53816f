//! When to try again, how much to send at once, and what an answer to a publish means. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// How long to wait before trying again: exponential, with full jitter, so that a thousand gateways do not return in step
/// (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone)]
pub struct Backoff {
    base_ms: u64,
    ms_max: u64,
    failures: u32,
}

impl Backoff {
    /// Waits up to `base_ms` after the first failure, twice as long after each further one, at most `ms_max`.
    #[must_use]
    pub fn new(base_ms: u64, ms_max: u64) -> Self {
        Backoff { base_ms, ms_max, failures: 0 }
    }

    /// Something failed. `random` decides where in the range the wait lies.
    pub fn failed(&mut self, random: u64) -> Duration {
        let range_ms = self.base_ms.saturating_mul(1 << self.failures.min(32)).clamp(1, self.ms_max);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(random % (range_ms + 1))
    }

    /// Something succeeded: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// How many bytes to put into a segment: all that is allowed, halved whenever one did not get through in time or took long
/// (a narrow link, on which what is urgent should not have to wait for it), doubled again with each one that does not.
#[derive(Debug, Clone)]
pub struct SegmentSize {
    bytes: usize,
    bytes_max: usize,
    /// How long one of twice the size took, if that is why it was halved.
    slow: Option<Duration>,
}

impl SegmentSize {
    /// However slow the link, segments do not get smaller than this.
    const BYTES_MIN: usize = 4 * 1024;
    /// Longer than this is long.
    const TOOK_MAX: Duration = Duration::from_secs(2);

    /// Begins with all that is allowed.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        SegmentSize { bytes: bytes_max, bytes_max, slow: None }
    }

    /// What to put into the next segment.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// No answer came in time.
    pub fn timed_out(&mut self) {
        self.slow = None;
        self.halve();
    }

    fn halve(&mut self) {
        self.bytes = (self.bytes / 2).max(Self::BYTES_MIN.min(self.bytes_max));
    }

    /// A segment was acknowledged.
    pub fn delivered(&mut self, took: Duration) {
        // If half was not faster by far, the way is long, not narrow.
        let long_way = self.slow.take().is_some_and(|whole| took > whole / 4 * 3);
        if took > Self::TOOK_MAX && !long_way {
            self.slow = Some(took);
            self.halve();
        } else {
            self.bytes = (self.bytes * 2).min(self.bytes_max);
        }
    }
}

/// Keeps below a number of bytes a second, on average: what was sent is paid for by waiting after it. `now` is the time since
/// some beginning.
#[derive(Debug, Clone)]
pub struct Allowance {
    bytes_per_s: u64,
    free_at: Duration,
}

impl Allowance {
    /// Of so many bytes a second; 0 is no limit.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Allowance { bytes_per_s, free_at: Duration::ZERO }
    }

    /// How long to wait before sending more.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Duration {
        self.free_at.saturating_sub(now)
    }

    /// This much is sent now.
    pub fn spend(&mut self, bytes: usize, now: Duration) {
        if self.bytes_per_s > 0 {
            let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
            self.free_at = self.free_at.max(now) + takes;
        }
    }

    /// The most bytes to put into a segment, so that none takes much longer than a second; `usize::MAX` is no limit.
    #[must_use]
    pub fn segment_bytes_max(&self) -> usize {
        match usize::try_from(self.bytes_per_s).unwrap_or(usize::MAX) {
            0 => usize::MAX,
            bytes => bytes.max(SegmentSize::BYTES_MIN),
        }
    }
}

/// An answer to a publish, as the protocol has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A JetStream acknowledgement.
    Acknowledged {
        /// The stream that says it stored the message.
        stream: String,
        /// The sequence it gave it.
        sequence: u64,
        /// Whether it took it for a repetition and stored nothing.
        duplicate: bool,
    },
    /// A JetStream error.
    Refused {
        /// JetStream's error code.
        code: u64,
        /// What it says.
        description: String,
    },
    /// No stream listens on the subject.
    NobodyListens,
    /// Nothing came.
    TimedOut,
    /// Something else went wrong; whether the message arrived is not known.
    Failed(Trouble),
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// It is in the stream, under this sequence.
    Delivered(u64),
    /// It may be in the stream or not: look.
    Unclear(Trouble),
}

/// What went wrong: a fixed word for metrics, and words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// One of a few fixed words.
    pub kind: Kind,
    /// What happened, and what may help.
    pub text: String,
    /// What to do about it, if it does not pass by itself.
    pub help: &'static str,
}

/// What went wrong, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No connection to a NATS server can be made.
    Unreachable,
    /// The connection ended.
    Disconnected,
    /// The server does not let us in, or does not allow what we do.
    Denied,
    /// The stream does not exist, or JetStream is not there.
    NoStream,
    /// The servers are there, but for the moment none of them leads the stream.
    NoLeader,
    /// Something answered that is not our stream.
    WrongStream,
    /// The stream, the account or the server is full.
    Full,
    /// The server takes only shorter messages.
    TooLong,
    /// The last message on our subject is not the one we knew.
    NotInStep,
    /// JetStream refused for another reason.
    Refused,
    /// No answer came in time.
    TimedOut,
    /// Another gateway has our name, or another process our spool.
    Conflict,
    /// Our own disk cannot be read.
    Spool,
}

impl Kind {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unreachable => "unreachable",
            Kind::Disconnected => "disconnected",
            Kind::Denied => "denied",
            Kind::NoStream => "no-stream",
            Kind::NoLeader => "no-leader",
            Kind::WrongStream => "wrong-stream",
            Kind::Full => "full",
            Kind::TooLong => "too-long",
            Kind::NotInStep => "not-in-step",
            Kind::Refused => "refused",
            Kind::TimedOut => "timed-out",
            Kind::Conflict => "conflict",
            Kind::Spool => "spool",
        }
    }

    /// What to do about it, if it does not pass by itself. Whatever it is, what has been taken is kept, and sent once it is cured.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Kind::Unreachable => "look at the network, at nats-server, and at uplink.servers",
            Kind::Disconnected => "look at the network; the log of nats-server says why it ends connections",
            Kind::Denied => {
                "give this gateway the rights that gateway.toml lists under [uplink], or renew its credentials"
            }
            Kind::NoStream => {
                "enable JetStream for this account and start weir-cloud, which makes the stream, or set uplink.create_stream"
            }
            Kind::NoLeader => "have more than half of the cluster's servers up and connected to each other",
            Kind::WrongStream => "have the stream WEIR, and nothing else, listen on weir.1.segments.>",
            Kind::Full => {
                "make room: raise the stream's max_bytes or max_age, the account's storage, or the server's disk"
            }
            Kind::TooLong => "raise max_payload of nats-server, or the stream's max_msg_size, to 512 KB",
            Kind::NotInStep => "somebody else publishes on this gateway's subject; find out who",
            Kind::Refused => "the log of nats-server says more",
            Kind::TimedOut => {
                "look at the link's quality; a slow one may need a longer uplink.ack_timeout_ms"
            }
            Kind::Conflict => "give every gateway a name and a spool of its own",
            Kind::Spool => "look at this gateway's disk",
        }
    }
}

impl Trouble {
    /// Trouble of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Trouble { kind, text: text.into(), help: kind.help() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What an answer means for a segment published to `stream` after the message `follows`.
///
/// Only an acknowledgement by the right stream with a plausible sequence is one. Everything else, also a plain
/// refusal, leaves open what the stream holds; the next look tells.
#[must_use]
pub fn meaning(answer: Answer, stream: &str, follows: u64) -> Meaning {
    let trouble = match answer {
        Answer::Acknowledged { stream: by, sequence, duplicate } => {
            if by != stream {
                let text = format!("stream {by} has answered instead of {stream}: it listens on our subject");
                Trouble::new(Kind::WrongStream, text)
            } else if duplicate || sequence <= follows {
                let text = format!(
                    "the acknowledgement is not plausible: sequence {sequence} after {follows}, duplicate: {duplicate}"
                );
                Trouble::new(Kind::WrongStream, text)
            } else {
                return Meaning::Delivered(sequence);
            }
        }
        Answer::Refused { code, description } => refused(code, &description),
        Answer::NobodyListens => Trouble::new(
            Kind::NoStream,
            format!("no stream listens on our subject; is there a stream {stream}?"),
        ),
        Answer::TimedOut => Trouble::new(Kind::TimedOut, "no acknowledgement in time"),
        Answer::Failed(trouble) => trouble,
    };
    Meaning::Unclear(trouble)
}

/// JetStream's error codes (nats-server, `server/errors.json`) by what has to be done about them.
#[must_use]
pub fn refused(code: u64, description: &str) -> Trouble {
    let kind = match code {
        10_071 | 10_164 => Kind::NotInStep,
        10_059 | 10_039 | 10_076 => Kind::NoStream,
        10_004 | 10_006..=10_009 | 10_118 => Kind::NoLeader,
        10_060 => Kind::WrongStream,
        10_002 | 10_023 | 10_047 | 10_077 | 10_028 | 10_122 => Kind::Full,
        10_054 | 10_097 => Kind::TooLong,
        _ => Kind::Refused,
    };
    Trouble::new(kind, format!("JetStream refused: {description}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(stream: &str, sequence: u64, duplicate: bool) -> Answer {
        Answer::Acknowledged { stream: stream.to_owned(), sequence, duplicate }
    }

    fn kind_of(answer: Answer) -> Kind {
        match meaning(answer, "WEIR", 41) {
            Meaning::Unclear(trouble) => trouble.kind,
            Meaning::Delivered(sequence) => panic!("taken for delivered in {sequence}"),
        }
    }

    #[test]
    fn only_the_right_streams_acknowledgement_means_delivered() {
        assert_eq!(meaning(ack("WEIR", 42, false), "WEIR", 41), Meaning::Delivered(42));
        assert_eq!(meaning(ack("WEIR", 1, false), "WEIR", 0), Meaning::Delivered(1));
        assert_eq!(kind_of(ack("OTHER", 42, false)), Kind::WrongStream);
        assert_eq!(kind_of(ack("WEIR", 41, false)), Kind::WrongStream, "a sequence we have seen already");
        assert_eq!(kind_of(ack("WEIR", 42, true)), Kind::WrongStream, "nothing was stored");
    }

    #[test]
    fn a_refusal_is_never_taken_for_delivered() {
        for code in (0..300).chain(10_000..10_300) {
            kind_of(Answer::Refused { code, description: "no".to_owned() });
        }
        assert_eq!(kind_of(Answer::TimedOut), Kind::TimedOut);
        assert_eq!(kind_of(Answer::NobodyListens), Kind::NoStream);
        assert_eq!(kind_of(Answer::Failed(Trouble::new(Kind::Denied, "x"))), Kind::Denied);
    }

    #[test]
    fn refusals_are_told_apart() {
        let kind = |code| refused(code, "").kind;
        assert_eq!(kind(10_071), Kind::NotInStep);
        assert_eq!(kind(10_077), Kind::Full);
        assert_eq!(kind(10_059), Kind::NoStream);
        assert_eq!(kind(10_054), Kind::TooLong);
        assert_eq!(kind(10_008), Kind::NoLeader);
        assert_eq!(kind(1), Kind::Refused);
    }

    #[test]
    fn waits_double_up_to_the_limit_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(100, 1000);
        let longest = |backoff: &mut Backoff| {
            let range = (0..=1000).map(|random| backoff.clone().failed(random)).max().unwrap();
            backoff.failed(0);
            range.as_millis()
        };
        assert_eq!([(); 6].map(|()| longest(&mut backoff)), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.failures(), 6);
        backoff.succeeded();
        assert_eq!(longest(&mut backoff), 100);
    }

    #[test]
    fn waits_stay_bounded_for_ever_and_for_any_randomness() {
        let mut backoff = Backoff::new(u64::MAX, 30_000);
        for random in [0, 1, u64::MAX, u64::MAX / 2].into_iter().cycle().take(1000) {
            assert!(backoff.failed(random) <= Duration::from_secs(30));
        }
    }

    #[test]
    fn a_slow_link_gets_smaller_segments_and_a_fast_one_full_ones_again() {
        let mut size = SegmentSize::new(65_536);
        size.timed_out();
        size.delivered(Duration::from_secs(3));
        assert_eq!(size.bytes(), 16_384);
        for _ in 0..2 {
            size.delivered(Duration::from_millis(100));
        }
        assert_eq!(size.bytes(), 65_536);
        for _ in 0..100 {
            size.timed_out();
        }
        assert_eq!(size.bytes(), SegmentSize::BYTES_MIN);
    }

    /// Sends on a link with this way there and back and this rate; the sizes of the last ten of a hundred segments.
    fn sizes(round_trip_ms: u64, bytes_per_s: u64) -> Vec<usize> {
        let mut size = SegmentSize::new(262_144);
        let mut sizes = Vec::new();
        for _ in 0..100 {
            sizes.push(size.bytes());
            let takes_ms = round_trip_ms + size.bytes() as u64 * 1000 / bytes_per_s;
            size.delivered(Duration::from_millis(takes_ms));
        }
        sizes.split_off(90)
    }

    #[test]
    fn a_narrow_link_gets_segments_of_some_seconds_and_a_long_one_gets_large_ones() {
        let narrow = sizes(50, 20_000);
        assert!(narrow.iter().all(|bytes| (16_384..=65_536).contains(bytes)), "{narrow:?}");
        for round_trip_ms in [600, 1_900, 2_500, 30_000] {
            let long = sizes(round_trip_ms, 10_000_000);
            assert!(long.iter().all(|bytes| *bytes >= 131_072), "{round_trip_ms} ms: {long:?}");
        }
        let mut size = SegmentSize::new(65_536);
        size.timed_out();
        size.delivered(Duration::from_millis(1_500));
        assert_eq!(size.bytes(), 65_536, "what was halved once comes back on a long way, too");
    }

    #[test]
    fn no_more_is_sent_than_is_allowed_on_average() {
        let (mut allowance, mut now, mut sent) = (Allowance::new(10_000), Duration::ZERO, 0);
        for bytes in [4_000, 1, 60_000, 0, 10_000].into_iter().cycle().take(100) {
            now += allowance.wait(now);
            allowance.spend(bytes, now);
            sent += bytes;
        }
        now += allowance.wait(now);
        assert_eq!(now.as_secs(), sent as u64 / 10_000);
        // A pause is not made up for by a burst.
        now += Duration::from_secs(1_000);
        allowance.spend(5_000, now);
        assert_eq!(allowance.wait(now), Duration::from_millis(500));
        assert_eq!(allowance.segment_bytes_max(), 10_000);
    }

    #[test]
    fn no_limit_is_no_wait() {
        let mut allowance = Allowance::new(0);
        allowance.spend(usize::MAX, Duration::ZERO);
        assert_eq!(
            (allowance.wait(Duration::ZERO), allowance.segment_bytes_max()),
            (Duration::ZERO, usize::MAX)
        );
    }

    #[test]
    fn segments_are_never_larger_than_allowed() {
        let mut size = SegmentSize::new(1000);
        size.timed_out();
        assert_eq!(size.bytes(), 1000);
    }
}
