use super::*;

const LIMITS: Limits = Limits { per_device: 3, pending: 5, bytes: 500, retry_ms: 100, retry_ms_max: 400 };

fn id(name: &str) -> Id {
    name.parse().expect("a name")
}

fn payload(command_id: &str, deadline_ms: u64) -> Vec<u8> {
    let command = Command { id: command_id.into(), name: "identify".into(), deadline_ms, args: &[0xa0] };
    let mut payload = vec![0; 200];
    let len = command.write(&mut payload).expect("room");
    payload.truncate(len);
    payload
}

fn order(number: u64, device: &str, deadline_ms: u64) -> Order {
    let payload = payload(&format!("c-{number}"), deadline_ms);
    Order::read(number, id(device), &payload).expect("a command")
}

fn core() -> Core {
    Core::new(LIMITS)
}

/// What there is to do, in words.
fn done(core: &mut Core) -> Vec<String> {
    let in_words = |effect| match effect {
        Effect::Send { listener, payload } => {
            format!("send {} on {listener}", Command::read(&payload).expect("a command").id)
        }
        Effect::Answered { number, outcome } => format!("{number} {outcome:?}"),
        Effect::Expired { number, device, id } => format!("{number} expired: {id} of {device}"),
    };
    core.take_effects().into_iter().map(in_words).collect()
}

#[test]
fn a_command_waits_until_its_device_listens() {
    let mut core = core();
    core.take(0, order(1, "a", 10_000));
    assert!(done(&mut core).is_empty());
    core.subscribed(50, &id("b"), 1);
    assert!(done(&mut core).is_empty(), "it is for another");
    core.subscribed(60, &id("a"), 2);
    assert_eq!(done(&mut core), ["send c-1 on 2"]);
    core.answered(70, &id("b"), "c-1", Outcome::Completed);
    assert!(core.awaits(&id("a")), "another's answer is no answer");
    core.answered(80, &id("a"), "c-1", Outcome::Completed);
    assert_eq!(done(&mut core), ["1 Completed"]);
    assert_eq!((core.pending(), core.bytes(), core.due_at()), (0, 0, None));
}

#[test]
fn what_is_not_answered_is_sent_again_ever_more_rarely_and_at_once_on_a_new_connection() {
    let mut core = core();
    core.subscribed(0, &id("a"), 1);
    core.take(0, order(1, "a", 100_000));
    let mut sent_at = vec![0];
    assert_eq!(done(&mut core).len(), 1);
    for now in 1..=1600 {
        core.tick(now);
        sent_at.extend(done(&mut core).iter().map(|_| now));
    }
    assert_eq!(sent_at, [0, 100, 300, 700, 1100, 1500]);
    core.unsubscribed(&id("a"), 1);
    core.tick(5_000);
    assert!(done(&mut core).is_empty(), "nobody listens");
    core.subscribed(6_000, &id("a"), 2);
    assert_eq!((done(&mut core).len(), core.due_at()), (1, Some(6_100)));
    core.unsubscribed(&id("a"), 1);
    core.tick(6_100);
    assert_eq!(done(&mut core), ["send c-1 on 2"], "the connection before has no say");
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut core = core();
    core.subscribed(0, &id("a"), 1);
    core.take(1_000_000, order(1, "a", u64::MAX));
    done(&mut core);
    core.tick(5);
    assert_eq!(done(&mut core), ["send c-1 on 1"]);
    assert_eq!(core.due_at(), Some(205));
}

#[test]
fn to_one_device_commands_go_one_after_the_other_and_to_others_meanwhile() {
    let mut core = core();
    core.subscribed(0, &id("a"), 1);
    core.subscribed(0, &id("b"), 2);
    for (number, device) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        core.take(0, order(number, device, 10_000));
    }
    assert_eq!(done(&mut core), ["send c-1 on 1", "send c-3 on 2"]);
    core.answered(1, &id("a"), "c-1", Outcome::Accepted);
    assert_eq!(done(&mut core), ["send c-2 on 1"]);
    core.answered(2, &id("a"), "c-2", Outcome::Failed);
    core.answered(3, &id("a"), "c-1", Outcome::Completed);
    assert_eq!(done(&mut core), ["2 Failed", "send c-4 on 1", "1 Completed"]);
}

#[test]
fn what_is_accepted_is_not_sent_again_but_on_a_new_connection() {
    let mut core = core();
    core.subscribed(0, &id("a"), 1);
    core.take(0, order(1, "a", 10_000));
    core.answered(1, &id("a"), "c-1", Outcome::Accepted);
    done(&mut core);
    core.tick(5_000);
    assert!(done(&mut core).is_empty());
    core.subscribed(6_000, &id("a"), 2);
    assert_eq!(done(&mut core), ["send c-1 on 2"]);
    core.tick(10_000);
    assert_eq!(done(&mut core), ["1 expired: c-1 of a"], "nobody said how it ended");
}

#[test]
fn a_deadline_ends_a_command_and_the_next_one_goes() {
    let mut core = core();
    core.take(0, order(1, "a", 1_000));
    core.take(0, order(2, "a", 2_000));
    core.subscribed(0, &id("a"), 1);
    assert_eq!(done(&mut core), ["send c-1 on 1"]);
    core.answered(999, &id("b"), "c-1", Outcome::Completed);
    core.tick(1_000);
    let told = done(&mut core);
    assert_eq!(told[..], ["1 expired: c-1 of a".to_owned(), "send c-2 on 1".to_owned()]);
    core.answered(1_001, &id("a"), "c-1", Outcome::Completed);
    assert!(done(&mut core).is_empty(), "over is over");
    core.tick(u64::MAX);
    assert_eq!(done(&mut core), ["2 expired: c-2 of a"]);
}

#[test]
fn the_same_command_is_taken_once() {
    let mut core = core();
    let first = order(1, "a", 1_000);
    assert_eq!(core.admit(&first), Ok(Admission::New));
    core.take(0, first.clone());
    assert_eq!(core.admit(&first), Ok(Admission::Known));
    core.answered(5, &id("a"), "c-1", Outcome::Completed);
    assert_eq!(core.admit(&first), Ok(Admission::Known), "also when it is over");
    assert_eq!(core.admit(&order(1, "b", 1_000)), Ok(Admission::New), "ids are a device's own");
    let mut later = Core::new(LIMITS);
    later.remember_ended(&id("a"), "c-1");
    assert_eq!(later.admit(&first), Ok(Admission::Known), "and after a restart");
}

#[test]
fn over_the_limits_a_command_is_refused_with_the_limit() {
    let mut core = core();
    for number in 1..=3 {
        core.take(0, order(number, "a", 1_000));
    }
    assert_eq!(core.admit(&order(9, "a", 1)), Err(Refusal::DeviceFull(3)));
    for number in 4..=5 {
        assert_eq!(core.admit(&order(number, "b", 1_000)), Ok(Admission::New));
        core.take(0, order(number, "b", 1_000));
    }
    let refusal = core.admit(&order(9, "c", 1)).expect_err("five wait");
    assert!(refusal.to_string().contains("commands.pending_max"), "{refusal}");
    let mut few_bytes = Core::new(Limits { bytes: 30, ..LIMITS });
    few_bytes.take(0, order(1, "a", 1_000));
    assert_eq!(few_bytes.admit(&order(2, "a", 1_000)), Err(Refusal::BytesFull(few_bytes.bytes())));
}

#[test]
fn what_is_no_command_is_refused_with_the_reason() {
    let read = |payload: &[u8]| Order::read(1, id("a"), payload).expect_err("refused").to_string();
    assert!(read(b"\x80").contains("id is missing"));
    assert!(read(&vec![0; COMMAND_LEN_MAX + 1]).contains("at most 1024 bytes"));
    assert!(read(&payload("", 1)).contains("1 to 64 bytes"));
    assert!(read(&payload(&"x".repeat(65), 1)).contains("1 to 64 bytes"));
}

/// Whatever happens in whatever order, every command ends once, and is not sent after that.
#[test]
fn every_command_ends_once_and_is_not_sent_after_its_end() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = Limits { per_device: 1000, pending: 1000, bytes: 1 << 20, ..LIMITS };
    for _ in 0..300 {
        let (mut core, mut now, mut taken, mut ended) = (Core::new(limits), 0, 0, HashSet::new());
        for step in 1..=200 {
            now += random.u64(..60);
            let device = *random.choice(&["a", "b", "c"]).expect("one of them");
            match random.u8(..6) {
                0 | 1 => {
                    core.take(now, order(step, device, now + random.u64(1..2_000)));
                    taken += 1;
                }
                2 => core.subscribed(now, &id(device), step),
                3 => core.unsubscribed(&id(device), random.u64(..=step)),
                4 => {
                    let outcomes = [Outcome::Accepted, Outcome::Completed, Outcome::Failed];
                    let outcome = *random.choice(&outcomes).expect("one of them");
                    core.answered(now, &id(device), &format!("c-{}", random.u64(..=step)), outcome);
                }
                _ => core.tick(now),
            }
            check(&mut core, &mut ended);
        }
        core.tick(u64::MAX);
        check(&mut core, &mut ended);
        assert_eq!((core.pending(), core.bytes(), core.due_at(), ended.len()), (0, 0, None, taken));
    }

    fn check(core: &mut Core, ended: &mut HashSet<u64>) {
        for effect in core.take_effects() {
            match effect {
                Effect::Answered { number, .. } | Effect::Expired { number, .. } => {
                    assert!(ended.insert(number), "{number} has ended before");
                }
                Effect::Send { payload, .. } => {
                    let id = Command::read(&payload).expect("a command").id.to_string();
                    let number: u64 = id[2..].parse().expect("c-number");
                    assert!(!ended.contains(&number), "{number} is over");
                }
            }
        }
    }
}
