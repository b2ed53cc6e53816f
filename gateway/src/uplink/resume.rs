//! Where to go on, given what the stream holds and what the spool holds. Pure.
//!
//! The stream is asked, never remembered: after a connection, and whenever a publish was not plainly acknowledged, the
//! last message on the gateway's own subject says what has arrived. So no acknowledgement that got lost makes a double,
//! no matter how long ago, and no deduplication window is involved.

use std::fmt;
use std::ops::Range;

use weir_contract::segment::Head;

/// What the gateway knows of itself. To be taken after [`Seen`], so that it is not older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Which spool this is.
    pub incarnation: u64,
    /// The first number that can still be read.
    pub oldest: u64,
    /// The first number that is not durable yet.
    pub next: u64,
    /// Everything below was acknowledged by the stream. May be behind the truth (it is written lazily), never ahead.
    pub delivered: u64,
    /// The stream sequence of the message that holds the last delivered uplink; 0 before the first.
    pub delivered_sequence: u64,
}

/// What the stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The stream's first sequence: what was before has expired or been purged.
    pub first_sequence: u64,
    /// The stream's last sequence.
    pub last_sequence: u64,
    /// The last message on the gateway's own subject. To be asked for before the two above, so that a message which
    /// expires in between is not taken for one that was lost.
    pub last: Option<Last>,
    /// The segment at [`Own::delivered_sequence`], whatever its subject, if there is one.
    pub at_delivered: Option<Head>,
}

/// The last message on the gateway's own subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Its stream sequence.
    pub sequence: u64,
    /// What it holds; `None` if it is no segment.
    pub head: Option<Head>,
    /// Whether the spool has the same uplinks under these numbers.
    pub content: Content,
}

/// A segment's uplinks compared with those the spool has under the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The same bytes.
    Same,
    /// Other bytes: somebody else gave out the same numbers.
    Differs,
    /// The spool does not have them (any more).
    NotHeld,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send from here on.
    GoOn(GoOn),
    /// Send nothing: somebody else is writing under this gateway's name.
    Stop(Conflict),
}

/// Where to go on, and why there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoOn {
    /// The first number to send. Everything below is in the stream, or gone.
    pub from: u64,
    /// The sequence of the last message on the own subject, 0 for none: what the next segment must follow.
    pub follows: u64,
    /// How the stream compares with what was known.
    pub standing: Standing,
}

/// How the stream compares with what the gateway knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As known.
    InStep,
    /// Nothing was ever sent by this spool; the stream may hold what an earlier spool of this gateway sent.
    First,
    /// The stream has more than was known: an acknowledgement was lost, or not yet written down.
    Ahead,
    /// The stream let go of everything by its own limits, after having had it. Nothing is lost.
    Expired,
    /// What was delivered is there under another subject: the gateway has been given a new name.
    Renamed,
    /// The last message on the own subject is no segment. It is left alone.
    Unreadable,
    /// The stream no longer has what it had acknowledged: it will be sent again, except `gone`, which the spool no longer has.
    WentBack {
        /// Gone from the stream and from the spool; empty if everything can be sent again.
        gone: Range<u64>,
    },
}

/// Somebody else is writing under this gateway's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Another spool's segment is last on the subject, after this spool had sent.
    OtherGateway {
        /// The other spool.
        incarnation: u64,
        /// Its message.
        sequence: u64,
    },
    /// Another copy of this spool has given out the same numbers for other uplinks.
    Copy {
        /// The message that tells.
        sequence: u64,
        /// From where numbers are used twice, or a little before.
        first: u64,
    },
    /// The stream has numbers this spool has not given out yet: this spool is an older copy, or lost what it had written.
    SpoolWentBack {
        /// The number after the stream's last.
        stream_next: u64,
        /// The spool's next number.
        next: u64,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::OtherGateway { incarnation, sequence } => write!(
                f,
                "another gateway (incarnation {incarnation}, stream sequence {sequence}) publishes under this gateway's name; \
                 give one of them another `gateway.id`"
            ),
            Conflict::Copy { sequence, first } => write!(
                f,
                "stream sequence {sequence} holds other uplinks than this spool under the numbers from {first} on: two gateways run \
                 on copies of one spool; give this one another `gateway.id` and move its spool folder away"
            ),
            Conflict::SpoolWentBack { stream_next, next } => write!(
                f,
                "the stream already holds uplinks up to number {stream_next} of this spool, which has given out numbers up to {next} only: \
                 the spool is an older copy or its disk lost writes; move its folder away"
            ),
        }
    }
}

/// Where to go on.
#[must_use]
pub fn resume(own: &Own, seen: &Seen) -> Verdict {
    let Some(last) = &seen.last else { return go_on(0, nothing_on_subject(own, seen)) };
    let Some(head) = last.head else { return go_on(last.sequence, (own.delivered, Standing::Unreadable)) };

    if head.incarnation != own.incarnation {
        return if own.has_delivered_nothing() {
            go_on(last.sequence, (own.delivered, Standing::First))
        } else if seen.has_what_was_delivered(own) {
            go_on(last.sequence, (own.delivered, Standing::Renamed))
        } else {
            let (incarnation, sequence) = (head.incarnation, last.sequence);
            Verdict::Stop(Conflict::OtherGateway { incarnation, sequence })
        };
    }
    if head.end() > own.next {
        return Verdict::Stop(Conflict::SpoolWentBack { stream_next: head.end(), next: own.next });
    }
    if last.content == Content::Differs {
        return Verdict::Stop(Conflict::Copy { sequence: last.sequence, first: head.first });
    }
    let found = match head.end() {
        end if end == own.delivered => (end, Standing::InStep),
        end if end > own.delivered => (end, Standing::Ahead),
        _ if seen.has_what_was_delivered(own) => (own.delivered, Standing::Renamed),
        end => went_back(own, end),
    };
    go_on(last.sequence, found)
}

/// There is no message on the own subject.
fn nothing_on_subject(own: &Own, seen: &Seen) -> (u64, Standing) {
    if own.has_delivered_nothing() {
        return (own.delivered, Standing::First);
    }
    // A stream lets go of its oldest messages first. One that had gone back would not have come to our sequence again.
    let was_reached = seen.last_sequence >= own.delivered_sequence;
    if was_reached && seen.first_sequence > own.delivered_sequence {
        return (own.delivered, Standing::Expired);
    }
    if seen.has_what_was_delivered(own) {
        return (own.delivered, Standing::Renamed);
    }
    went_back(own, 1)
}

/// The stream has everything below `end` and has lost what came after.
fn went_back(own: &Own, end: u64) -> (u64, Standing) {
    let from = end.max(own.oldest).min(own.delivered);
    (from, Standing::WentBack { gone: end..from })
}

fn go_on(follows: u64, (from, standing): (u64, Standing)) -> Verdict {
    Verdict::GoOn(GoOn { from, follows, standing })
}

impl Own {
    fn has_delivered_nothing(&self) -> bool {
        self.delivered_sequence == 0
    }
}

impl Seen {
    /// Whether the message that was acknowledged last is where it was.
    fn has_what_was_delivered(&self, own: &Own) -> bool {
        self.at_delivered
            .is_some_and(|head| head.incarnation == own.incarnation && head.end() >= own.delivered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 7;
    const OTHER: u64 = 8;

    /// A spool holding numbers 1..1000 that has delivered what is below 500, last in stream sequence 90.
    fn given() -> (Own, Seen) {
        let own = Own { incarnation: OWN, oldest: 1, next: 1000, delivered: 500, delivered_sequence: 90 };
        let seen = Seen { first_sequence: 1, last_sequence: 120, last: None, at_delivered: None };
        (own, seen)
    }

    fn fresh() -> (Own, Seen) {
        let (own, seen) = given();
        (Own { delivered: 1, delivered_sequence: 0, ..own }, seen)
    }

    fn last(incarnation: u64, sequence: u64, numbers: Range<u64>) -> Option<Last> {
        let head = Head { incarnation, first: numbers.start, count: numbers.end - numbers.start };
        Some(Last { sequence, head: Some(head), content: Content::Same })
    }

    fn then(own: &Own, seen: &Seen) -> (u64, u64, Standing) {
        match resume(own, seen) {
            Verdict::GoOn(GoOn { from, follows, standing }) => (from, follows, standing),
            Verdict::Stop(conflict) => panic!("{conflict}"),
        }
    }

    fn then_conflict(own: &Own, seen: &Seen) -> Conflict {
        match resume(own, seen) {
            Verdict::Stop(conflict) => conflict,
            Verdict::GoOn(go_on) => panic!("{go_on:?}"),
        }
    }

    #[test]
    fn a_first_start_begins_at_one_after_nothing() {
        let (own, seen) = fresh();
        assert_eq!(then(&own, &seen), (1, 0, Standing::First));
    }

    #[test]
    fn a_first_start_in_an_empty_stream_begins_at_one() {
        let (own, seen) = fresh();
        let seen = Seen { first_sequence: 0, last_sequence: 0, ..seen };
        assert_eq!(then(&own, &seen), (1, 0, Standing::First));
    }

    #[test]
    fn a_new_spool_follows_what_an_earlier_spool_of_this_gateway_sent() {
        let (own, seen) = fresh();
        let seen = Seen { last: last(OTHER, 77, 4000..4100), ..seen };
        assert_eq!(then(&own, &seen), (1, 77, Standing::First));
    }

    #[test]
    fn a_stream_that_holds_what_was_delivered_is_in_step() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 90, 480..500), ..seen };
        assert_eq!(then(&own, &seen), (500, 90, Standing::InStep));
    }

    #[test]
    fn in_step_follows_the_sequence_the_stream_has_now() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 12, 480..500), last_sequence: 12, ..seen };
        assert_eq!(
            then(&own, &seen),
            (500, 12, Standing::InStep),
            "restored into a stream with other sequences"
        );
    }

    #[test]
    fn a_lost_acknowledgement_does_not_send_twice() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 91, 500..640), ..seen };
        assert_eq!(then(&own, &seen), (640, 91, Standing::Ahead));
    }

    #[test]
    fn a_lost_first_acknowledgement_does_not_send_twice() {
        let (own, seen) = fresh();
        let seen = Seen { last: last(OWN, 3, 1..10), ..seen };
        assert_eq!(then(&own, &seen), (10, 3, Standing::Ahead));
    }

    #[test]
    fn everything_may_be_delivered() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 91, 500..1000), ..seen };
        assert_eq!(then(&own, &seen), (1000, 91, Standing::Ahead));
    }

    #[test]
    fn another_spool_after_we_had_sent_is_another_gateway() {
        let (own, seen) = given();
        let seen = Seen { last: last(OTHER, 95, 1..2), ..seen };
        assert_eq!(then_conflict(&own, &seen), Conflict::OtherGateway { incarnation: OTHER, sequence: 95 });
    }

    #[test]
    fn other_uplinks_under_our_numbers_are_a_copy_of_our_spool() {
        let (own, seen) = given();
        let mut found = last(OWN, 95, 500..510);
        found.as_mut().unwrap().content = Content::Differs;
        assert_eq!(
            then_conflict(&own, &Seen { last: found, ..seen }),
            Conflict::Copy { sequence: 95, first: 500 }
        );
    }

    #[test]
    fn uplinks_the_spool_no_longer_has_are_believed() {
        let (own, seen) = given();
        let mut found = last(OWN, 90, 480..500);
        found.as_mut().unwrap().content = Content::NotHeld;
        assert_eq!(then(&own, &Seen { last: found, ..seen }), (500, 90, Standing::InStep));
    }

    #[test]
    fn numbers_we_never_gave_out_are_not_believed() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 95, 990..1001), ..seen };
        assert_eq!(then_conflict(&own, &seen), Conflict::SpoolWentBack { stream_next: 1001, next: 1000 });
    }

    #[test]
    fn a_number_that_overflows_is_not_believed() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 95, u64::MAX - 1..u64::MAX), ..seen };
        assert!(matches!(then_conflict(&own, &seen), Conflict::SpoolWentBack { .. }));
    }

    #[test]
    fn a_stream_restored_from_an_older_copy_gets_what_it_lost_again() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 60, 280..300), last_sequence: 80, ..seen };
        assert_eq!(then(&own, &seen), (300, 60, Standing::WentBack { gone: 300..300 }));
    }

    #[test]
    fn an_older_copy_is_noticed_also_when_others_have_published_since() {
        let (own, seen) = given();
        let seen = Seen { last: last(OWN, 60, 280..300), last_sequence: 5000, ..seen };
        assert_eq!(then(&own, &seen), (300, 60, Standing::WentBack { gone: 300..300 }));
    }

    #[test]
    fn what_the_spool_no_longer_has_is_told() {
        let (own, seen) = given();
        let own = Own { oldest: 350, ..own };
        let seen = Seen { last: last(OWN, 60, 280..300), last_sequence: 80, ..seen };
        assert_eq!(then(&own, &seen), (350, 60, Standing::WentBack { gone: 300..350 }));
    }

    #[test]
    fn a_spool_that_keeps_nothing_delivered_goes_on_where_it_was_and_tells_the_rest() {
        let (own, seen) = given();
        let own = Own { oldest: 600, ..own };
        let seen = Seen { last: last(OWN, 60, 280..300), last_sequence: 80, ..seen };
        assert_eq!(then(&own, &seen), (500, 60, Standing::WentBack { gone: 300..500 }));
    }

    #[test]
    fn a_stream_made_anew_gets_everything_that_is_kept() {
        let (own, seen) = given();
        let seen = Seen { first_sequence: 0, last_sequence: 0, ..seen };
        assert_eq!(then(&own, &seen), (1, 0, Standing::WentBack { gone: 1..1 }));
        let own = Own { oldest: 400, ..own };
        assert_eq!(then(&own, &seen), (400, 0, Standing::WentBack { gone: 1..400 }));
    }

    #[test]
    fn a_message_removed_from_the_middle_is_sent_again() {
        let (own, seen) = given();
        assert!(
            seen.first_sequence <= own.delivered_sequence && seen.last_sequence >= own.delivered_sequence
        );
        assert_eq!(then(&own, &seen), (1, 0, Standing::WentBack { gone: 1..1 }));
    }

    #[test]
    fn expiry_by_retention_is_not_loss() {
        let (own, seen) = given();
        for (first_sequence, last_sequence) in [(91, 120), (91, 90), (121, 120)] {
            let seen = Seen { first_sequence, last_sequence, ..seen };
            assert_eq!(then(&own, &seen), (500, 0, Standing::Expired), "{first_sequence} to {last_sequence}");
        }
    }

    #[test]
    fn a_new_name_does_not_send_again_what_is_there_under_the_old_one() {
        let (own, seen) = given();
        let at_delivered = last(OWN, 90, 480..500).unwrap().head;
        for (on_subject, follows) in [(None, 0), (last(OTHER, 95, 1..2), 95), (last(OWN, 60, 280..300), 60)] {
            let seen = Seen { at_delivered, last: on_subject, ..seen };
            assert_eq!(then(&own, &seen), (500, follows, Standing::Renamed), "{on_subject:?}");
        }
    }

    #[test]
    fn somebody_elses_segment_where_ours_was_is_no_evidence() {
        let (own, seen) = given();
        let at_delivered = last(OTHER, 90, 480..500).unwrap().head;
        assert!(matches!(then(&own, &Seen { at_delivered, ..seen }).2, Standing::WentBack { .. }));
        let at_delivered = last(OWN, 90, 400..420).unwrap().head;
        assert!(matches!(then(&own, &Seen { at_delivered, ..seen }).2, Standing::WentBack { .. }));
    }

    #[test]
    fn what_is_no_segment_is_followed_and_left_alone() {
        let (own, seen) = given();
        let found = Some(Last { sequence: 99, head: None, content: Content::NotHeld });
        assert_eq!(then(&own, &Seen { last: found, ..seen }), (500, 99, Standing::Unreadable));
    }

    /// Whatever is seen: never beyond the spool, never back without saying so, never forward over what was not seen.
    #[test]
    fn no_answer_skips_what_was_not_delivered() {
        let numbers = [1_u64, 2, 300, 499, 500, 501, 999, 1000, 1001];
        let sequences = [0, 1, 60, 89, 90, 91, 200];
        let mut verdicts = 0;
        for (oldest, delivered) in [(1, 1), (1, 500), (300, 500), (500, 500), (600, 600), (1000, 1000)] {
            let delivered_sequence = if delivered == 1 { 0 } else { 90 };
            let own = Own { incarnation: OWN, oldest, next: 1000, delivered, delivered_sequence };
            for first_sequence in sequences {
                for last_sequence in sequences {
                    for on_subject in [OWN, OTHER]
                        .into_iter()
                        .flat_map(|who| {
                            numbers.map(|end| last(who, 60, end.saturating_sub(1).max(1)..end.max(2)))
                        })
                        .chain([None])
                    {
                        let seen =
                            Seen { first_sequence, last_sequence, last: on_subject, at_delivered: None };
                        let Verdict::GoOn(found) = resume(&own, &seen) else { continue };
                        verdicts += 1;
                        let stream_end =
                            on_subject.and_then(|last| last.head).filter(|head| head.incarnation == OWN);
                        let known = delivered.max(stream_end.map_or(1, |head| head.end()));
                        assert!(found.from <= known && found.from <= own.next, "{own:?} {seen:?} {found:?}");
                        match found.standing {
                            Standing::WentBack { gone } => assert_eq!(gone.end, found.from),
                            _ => assert!(found.from >= delivered, "{own:?} {seen:?} {found:?}"),
                        }
                    }
                }
            }
        }
        assert!(verdicts > 1000);
    }
}
