//! `weir-provision` as people use it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use weir_device::provision::{Host, RECORD_LEN, Record};

/// Runs it in a folder, with the words of a line.
fn run(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-provision"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("it starts")
}

fn ok(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {err}");
    String::from_utf8(output.stdout).expect("text")
}

/// What it says when it could not.
fn fails(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert_eq!(output.status.code(), Some(2), "{line}");
    String::from_utf8(output.stderr).expect("text")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_record_is_written_and_read_in_every_format() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("secret"), "open sesame\n").expect("writes");
    let write = "write --device dev-1 --gateway 192.168.1.20:1884 --password-file secret --seed 0x2a";
    ok(at, &format!("{write} --out r.bin"));
    ok(at, &format!("{write} --out r.hex --address 0x080E0000"));
    ok(at, &format!("{write} --out r.uf2 --address 0x101FF000"));
    ok(at, &format!("{write} --out r.txt --format uf2 --address 0x1000 --family 0x1234"));

    let bin = fs::read(at.join("r.bin")).expect("written");
    let record = Record::read(&bin).expect("a record");
    assert_eq!(bin.len(), RECORD_LEN);
    assert_eq!((record.device.as_str(), record.port, record.seed), ("dev-1", 1884, Some(42)));
    assert_eq!(record.host, Host::Address([192, 168, 1, 20].into()));
    assert_eq!(record.password, Some(&b"open sesame"[..]));

    for (file, address) in
        [("r.bin", "null"), ("r.hex", "0x080e0000"), ("r.uf2", "0x101ff000"), ("r.txt", "0x00001000")]
    {
        let text = ok(at, &format!("read {file}"));
        assert!(
            text.contains("dev-1") && text.contains("192.168.1.20:1884") && !text.contains("sesame"),
            "{text}"
        );
        let json = ok(at, &format!("read {file} --json"));
        assert!(
            json.contains("\"password\": true") && json.contains("\"seed\": \"0x000000000000002a\""),
            "{json}"
        );
        assert!(json.contains(address) && !json.contains("sesame"), "{json}");
    }
}

#[test]
fn an_image_is_made_then_patched_and_keeps_what_else_is_in_it() {
    let folder = folder();
    let at = folder.path();
    let image = || fs::read(at.join("ee.bin")).expect("there");
    ok(at, "write --device dev-1 --gateway gw.local --image ee.bin --size 32768");
    let first = image();
    assert_eq!(first.len(), 32_768);
    assert!(first[RECORD_LEN..].iter().all(|&byte| byte == 0xff));
    let seed = Record::read(&first).expect("a record").seed.expect("a random one");

    let mut lived = first;
    lived[20_000] = 7;
    fs::write(at.join("ee.bin"), &lived).expect("writes");
    ok(at, "write --device dev-1 --gateway 10.0.2.2:1999 --image ee.bin");
    let patched = image();
    let record = Record::read(&patched).expect("a record");
    assert_eq!((record.port, record.seed), (1999, Some(seed)), "the same board, the same seed");
    assert_eq!(patched[RECORD_LEN..], lived[RECORD_LEN..], "its events stay");

    let refused = fails(at, "write --device dev-2 --gateway gw.local --image ee.bin");
    assert!(refused.contains("dev-1") && refused.contains("--blank"), "{refused}");
    assert_eq!(image(), patched, "nothing has changed");
    ok(at, "write --device dev-2 --gateway gw.local --image ee.bin --blank --out also.bin");
    let blank = image();
    assert!(blank[RECORD_LEN..].iter().all(|&byte| byte == 0xff));
    let record = Record::read(&blank).expect("a record");
    assert!(record.device == *"dev-2" && record.seed != Some(seed), "another seed for another device");
    assert_eq!(fs::read(at.join("also.bin")).expect("written"), blank[..RECORD_LEN]);
}

#[test]
fn two_records_have_two_seeds_unless_told() {
    let folder = folder();
    let seed = |file: &str| {
        ok(folder.path(), &format!("write --device d --gateway g --out {file}"));
        Record::read(&fs::read(folder.path().join(file)).expect("written")).expect("a record").seed
    };
    assert_ne!(seed("one.bin"), seed("two.bin"));
}

#[test]
fn what_is_wrong_is_told_with_what_is_allowed() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("long"), [b'x'; 65]).expect("writes");
    fs::write(at.join("lines"), "a\nb\n").expect("writes");
    fs::write(at.join("small.bin"), [0xff; 100]).expect("writes");
    fs::write(at.join("foreign.bin"), [0x55; 1000]).expect("writes");
    for (line, told) in [
        ("write --device dev/1 --gateway g --out r", "1 to 32 of A-Z a-z 0-9 _ -"),
        ("write --device d --gateway g:0 --out r", "a number from 1 to 65535"),
        ("write --device d --gateway g:http --out r", "a number from 1 to 65535"),
        ("write --device d --gateway 10.0.0.999 --out r", "an IPv4 address or a host name"),
        ("write --device d --gateway g", "--out"),
        (
            "write --device d --gateway g --out r --password-file nowhere",
            "--password-file: cannot read nowhere",
        ),
        ("write --device d --gateway g --out r --password-file long", "65 bytes; 1 to 64 are allowed"),
        ("write --device d --gateway g --out r --password-file lines", "more than one line"),
        ("write --device d --gateway g --out r --seed x", "a number of at most 64 bits"),
        ("write --device d --gateway g --out r.hex", "--address: r.hex needs"),
        ("write --device d --gateway g --out r.uf2 --address 0x1010", "a multiple of 256"),
        ("write --device d --gateway g --out r.bin --address 0", "a plain file has none"),
        ("write --device d --gateway g --out r.hex --address 0 --family 1", "only UF2"),
        ("write --device d --gateway g --out no/where/r.bin", "cannot write no/where/r.bin"),
        ("write --device d --gateway g --image new.bin", "--size (32768 for a 24C256)"),
        ("write --device d --gateway g --image small.bin", "does not fit in 100 bytes"),
        ("write --device d --gateway g --image foreign.bin", "--blank erases all"),
        ("write --device d --gateway g --image foreign.bin --size 99", "has 1000 bytes"),
        ("read nowhere.bin", "cannot read nowhere.bin"),
    ] {
        let err = fails(at, line);
        assert!(err.contains(told), "{line}: {err}");
        assert!(!at.join("r").exists() && !at.join("new.bin").exists(), "{line}: nothing is written");
    }
    assert_eq!(fs::read(at.join("foreign.bin")).expect("there"), [0x55; 1000]);
}

#[test]
fn no_record_is_told_apart_from_no_file() {
    let folder = folder();
    fs::write(folder.path().join("blank.bin"), [0xff; 512]).expect("writes");
    let output = run(folder.path(), "read blank.bin");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no provisioning record was written"));
}

#[cfg(unix)]
#[test]
fn a_file_with_a_password_is_only_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("secret"), "x").expect("writes");
    ok(at, "write --device d --gateway g --password-file secret --out r.bin --image ee.bin --size 1024");
    for file in ["r.bin", "ee.bin"] {
        let mode = fs::metadata(at.join(file)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn help_has_examples_that_run() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("secret"), "x").expect("writes");
    let program = Path::new(env!("CARGO_BIN_EXE_weir-provision")).parent().expect("in a folder").display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let mut examples = 0;
    for help in ["--help", "write --help", "read --help"] {
        let text = ok(at, help);
        let is_example = |line: &&str| line.starts_with("weir-provision ") || line.starts_with("for n in ");
        for line in text.lines().map(str::trim).filter(is_example) {
            let output = Command::new("sh").args(["-ec", line]).current_dir(at).env("PATH", &path).output();
            let output = output.expect("a shell");
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            examples += 1;
        }
    }
    assert!(examples >= 9, "{examples} examples");
}
