use std::process::Command;

use super::*;

#[test]
fn a_manual_clock_stands_still_and_its_clones_follow() {
    let clock = Clock::manual(5);
    let clone = clock.clone();
    clock.set(7);
    assert_eq!((clock.unix_ms(), clone.unix_ms()), (7, 7));
}

#[test]
fn the_machines_clock_is_past_2020() {
    assert!(Clock::system().unix_ms() > 1_577_836_800_000);
}

#[test]
fn a_clock_that_is_not_set_is_not_believed() {
    let clock = Clock::manual(60_000);
    assert_eq!(clock.known_unix_ms(), None);
    clock.set(NOT_BEFORE_MS);
    assert_eq!(clock.known_unix_ms(), Some(NOT_BEFORE_MS));
}

#[test]
fn steps_are_told_apart_from_drift() {
    let begin = Duration::from_secs(3);
    let mut steps = Steps::new(60_000, begin);
    let after = |ms| begin + Duration::from_millis(ms);
    // A clock that gains 1 % is a bad one, and not set.
    for second in 1..1000 {
        assert_eq!(steps.look(60_000 + second * 1010, after(second * 1000)), None);
    }
    let mut steps = Steps::new(60_000, begin);
    assert_eq!(steps.look(NOT_BEFORE_MS, after(1000)), i64::try_from(NOT_BEFORE_MS - 61_000).ok());
    assert_eq!(steps.look(NOT_BEFORE_MS + 5_000, after(6_000)), None, "it was late, not set");
    assert_eq!(steps.look(NOT_BEFORE_MS + 4_000, after(7_000)), Some(-2_000));
    assert_eq!(steps.look(u64::MAX, after(8_000)), Some(i64::MAX));
}

#[test]
fn a_clock_that_went_back_since_an_earlier_run_is_not_believed_though_it_comes_to_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clock");
    let earlier = Clock::manual(NOT_BEFORE_MS + 3_600_000);
    earlier.remember(&file);
    earlier.write_down();
    for (shows, doubt) in [(0, Some(Doubt::WentBack)), (3_599_000, None), (4_000_000, None)] {
        let clock = Clock::manual(NOT_BEFORE_MS + shows);
        clock.remember(&file);
        assert_eq!(clock.doubt(), doubt, "{shows}");
        clock.set(NOT_BEFORE_MS + 7_200_000);
        assert_eq!((clock.doubt(), clock.known_unix_ms().is_some()), (doubt, doubt.is_none()));
    }
    fs::write(&file, "rubbish").unwrap();
    let clock = Clock::manual(NOT_BEFORE_MS);
    clock.remember(&file);
    assert_eq!(clock.doubt(), None);
}

#[tokio::test]
async fn a_clock_that_nothing_keeps_going_is_believed_when_timesyncd_has_set_it() {
    let root = tempfile::tempdir().unwrap();
    let unset = || Clock::of_machine(root.path());
    assert_eq!(unset().doubt(), None, "somebody else sets it, or nobody");
    fs::create_dir_all(root.path().join("run/systemd/timesync")).unwrap();
    let clock = unset();
    assert_eq!((clock.doubt(), clock.known_unix_ms()), (Some(Doubt::NotSynchronized), None));
    let (journal, _entries) = journal::channel();
    let watching = tokio::spawn(clock.clone().watch(journal));
    fs::write(root.path().join("run/systemd/timesync/synchronized"), "").unwrap();
    // It was right all the time: no step, and yet those who wait for the time are told.
    tokio::time::timeout(Duration::from_secs(20), clock.stepped(0)).await.expect("it is told");
    assert!(clock.known_unix_ms().is_some());
    watching.abort();
    fs::remove_file(root.path().join("run/systemd/timesync/synchronized")).unwrap();
    fs::create_dir_all(root.path().join("sys/class/rtc/rtc0")).unwrap();
    assert_eq!(unset().doubt(), None, "it has a battery");
}

#[tokio::test]
async fn a_clock_that_was_wrong_in_an_earlier_run_is_believed_again_when_timesyncd_has_set_it() {
    let root = tempfile::tempdir().unwrap();
    let synchronized = root.path().join("run/systemd/timesync/synchronized");
    fs::create_dir_all(synchronized.parent().unwrap()).unwrap();
    fs::create_dir_all(root.path().join("sys/class/rtc/rtc0")).unwrap();
    let file = root.path().join("clock");
    let ahead_ms = Clock::of_machine(root.path()).unix_ms() + 3 * 86_400_000;
    let begin = || {
        fs::write(&file, ahead_ms.to_string()).unwrap();
        let clock = Clock::of_machine(root.path());
        clock.remember(&file);
        clock
    };
    let clock = begin();
    assert_eq!(clock.doubt(), Some(Doubt::WentBack));
    let (journal, _entries) = journal::channel();
    let watching = tokio::spawn(clock.clone().watch(journal));
    fs::write(&synchronized, "").unwrap();
    let told = async {
        clock.stepped(0).await;
        // What was wrong is not found again by the next start.
        while fs::read_to_string(&file).unwrap() == ahead_ms.to_string() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told, and written down");
    assert!(clock.known_unix_ms().is_some());
    watching.abort();
    assert_eq!(begin().doubt(), None, "it was set before we began");
}

/// The time the machine has slept is in it: what the system says of its uptime has that, too, and a time namespace can be told
/// that the machine has slept for a day.
#[test]
fn a_machine_that_has_slept_is_no_clock_that_was_set() {
    const ASLEEP: &str = "WEIR_TEST_ASLEEP";
    let uptime = fs::read_to_string("/proc/uptime").expect("Linux");
    let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
    assert!((since_boot().as_secs_f64() - uptime).abs() < 5.0, "{uptime} {:?}", since_boot());
    if std::env::var_os(ASLEEP).is_some() {
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let test = "clock::tests::a_machine_that_has_slept_is_no_clock_that_was_set";
    let mut command = Command::new("unshare");
    command.args(["--time", "--boottime", "86400", "--fork"]).arg(itself).args(["--exact", test]);
    let output = command.env(ASLEEP, "1").output();
    match output {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("1 passed") => {}
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running") => {
            panic!("{}", String::from_utf8_lossy(&output.stdout))
        }
        other => eprintln!("SKIPPED in part: no time namespace here: {other:?}"),
    }
}
