//! What keeps the code readable, and what no compiler checks: who may know whom, and what may stand where.
//!
//! Needs no servers: it reads `cargo metadata` and the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which packages a package may depend on; `None`: on all. Gateway and cloud never know each other: they meet in the
/// contract.
const ARROWS: [(&str, Option<&[&str]>); 7] = [
    ("weir-contract", Some(&[])),
    ("weir-device", Some(&["weir-contract"])),
    ("weir-simulator", Some(&["weir-contract", "weir-device"])),
    ("weir-provision", Some(&["weir-contract", "weir-device"])),
    ("weir-gateway", Some(&["weir-contract"])),
    ("weir-cloud", Some(&["weir-contract"])),
    ("weir-tests", None),
];

/// Files and folders that decide and never do: no clock, no socket, no disk, no runtime.
const PURE: &[&str] = &[
    "edge/contract/src",
    "edge/device/src",
    "gateway/src/intake.rs",
    "gateway/src/custody/runs.rs",
    "gateway/src/downlink/core.rs",
    "gateway/src/mqtt/answer.rs",
    "gateway/src/mqtt/frame.rs",
    "gateway/src/mqtt/properties.rs",
    "gateway/src/mqtt/reader.rs",
    "gateway/src/mqtt/reason.rs",
    "gateway/src/mqtt/session.rs",
    "gateway/src/mqtt/strict.rs",
    "gateway/src/mqtt/topics.rs",
    "gateway/src/source/map",
    "gateway/src/source/numbers.rs",
    "gateway/src/source/window.rs",
    "gateway/src/spool/account.rs",
    "gateway/src/spool/room.rs",
    "gateway/src/uplink/ahead.rs",
    "gateway/src/uplink/ahead",
    "gateway/src/uplink/pacing.rs",
    "gateway/src/uplink/resume.rs",
    "gateway/src/uplink/segment.rs",
    "cloud/src/log/message.rs",
    "cloud/src/log/resume.rs",
    "cloud/src/projection/beginning.rs",
    "cloud/src/projection/boot.rs",
    "cloud/src/projection/device.rs",
    "cloud/src/projection/registers.rs",
    "cloud/src/projection/runs.rs",
    "cloud/src/times.rs",
    "cloud/src/api/json.rs",
    "cloud/src/api/query.rs",
    "cloud/src/cli/print.rs",
    "cloud/src/cli/print/words.rs",
    "cloud/src/cli/doctor/checks.rs",
    "tests/src/bin/weir-soak/schedule.rs",
];

const IMPURE: &[&str] = &[
    "SystemTime",
    "Instant::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "tokio",
    "sled",
    "rusqlite",
    "async_nats",
    "axum",
    "ureq",
    "tracing",
];

/// What only one place may know, so that it can be replaced there.
const KNOWN_ONLY_IN: [(&str, &[&str]); 5] = [
    ("sled", &["gateway/src/spool/"]),
    ("rumqttd", &["gateway/src/mqtt/"]),
    // The tests of the listener read its answers with it.
    ("rumqttc", &["gateway/src/source/link.rs", "gateway/src/mqtt/", "edge/simulator/"]),
    ("rusqlite", &["cloud/src/store/"]),
    (
        "async_nats",
        &[
            "gateway/src/uplink/",
            "gateway/src/downlink/nats.rs",
            "cloud/src/log.rs",
            "cloud/src/log/",
            "cloud/src/nats.rs",
        ],
    ),
];

const LINES_MAX: usize = 600;

/// Names for a folder that has no subject.
const NOT_A_SUBJECT: [&str; 6] = ["base", "common", "helpers", "misc", "util", "utils"];

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let placed: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(ours, placed, "every package has its place among the arrows");

    for package in packages {
        let name = text(&package["name"]);
        let (_, allowed) = ARROWS.iter().find(|(placed, _)| *placed == name).expect("checked above");
        let Some(allowed) = allowed else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency = text(&dependency["name"]);
            let itself = dependency == name;
            assert!(
                itself || !ours.contains(&dependency) || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}, only on {allowed:?}"
            );
        }
    }
}

#[test]
fn pure_modules_decide_and_never_do() {
    let sources = sources();
    for pure in PURE {
        let mut found = sources.iter().filter(|source| source.is_in(pure)).peekable();
        assert!(found.peek().is_some(), "{pure} is not there: mend the list of pure modules");
        for source in found {
            for impure in IMPURE {
                assert!(!source.mentions(impure), "{} is pure, and names {impure}", source.path);
            }
        }
    }
}

#[test]
fn each_technology_is_known_in_one_place() {
    // Tests look on from outside: into the stream, for example.
    let looks_on = |source: &Source| source.path.starts_with("tests/") || !source.path.contains("/src/");
    for source in sources().into_iter().filter(|source| !looks_on(source)) {
        for (technology, places) in KNOWN_ONLY_IN {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            assert!(
                allowed || !source.mentions(technology),
                "{} names {technology}, which only {places:?} may know",
                source.path
            );
        }
    }
}

#[test]
fn files_stay_readable() {
    for source in sources() {
        let lines = source.lines;
        assert!(lines < LINES_MAX, "{} has {lines} lines: part it by subject", source.path);
    }
}

#[test]
fn every_folder_has_a_subject() {
    for source in sources() {
        for name in source.path.trim_end_matches(".rs").split('/') {
            assert!(!NOT_A_SUBJECT.contains(&name), "{}: {name} says nothing", source.path);
        }
    }
}

/// Where tests are named as the proof of something.
const NAME_TESTS: [&str; 2] = ["README.md", "docs/reliability.md"];

#[test]
fn tests_that_are_named_as_proof_are_there() {
    let sources = sources();
    for file in NAME_TESTS {
        let text = fs::read_to_string(root().join(file)).expect(file);
        let named = test_names(&text);
        assert!(!named.is_empty(), "{file} names no test");
        for name in named {
            let function = format!("fn {name}(");
            assert!(
                sources.iter().any(|source| source.code.contains(&function)),
                "{file} names {name}, and there is no such test"
            );
        }
    }
}

/// What stands between backticks and has three underscores or more: our tests are named by sentences, our settings not.
fn test_names(text: &str) -> Vec<&str> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let words = quoted.flat_map(|quoted| quoted.split([' ', ':']));
    words
        .filter(|word| word.matches('_').count() >= 3)
        .filter(|word| word.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()))
        .collect()
}

#[test]
fn code_is_told_from_comments_and_texts() {
    let code = code_of(concat!(
        "use tokio::net; // not sled\n",
        "/* nor /* rusqlite */ here */ let a = \"async_nats \\\" ureq\";\n",
        "let b = r#\"axum \" axum\"#; let c = '\"'; fn d<'sled_>() {} let e = '\\''; tracing!();",
    ));
    for there in ["tokio", "net", "tokio::net", "tracing", "sled_"] {
        assert!(mentions(&code, there), "{there} in {code}");
    }
    for absent in ["sled", "rusqlite", "async_nats", "ureq", "axum"] {
        assert!(!mentions(&code, absent), "{absent} in {code}");
    }
}

/// A source file of ours.
struct Source {
    /// From the root, with slashes.
    path: String,
    lines: usize,
    /// Without comments and literals.
    code: String,
}

impl Source {
    fn is_in(&self, place: &str) -> bool {
        self.path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn mentions(&self, name: &str) -> bool {
        mentions(&self.code, name)
    }
}

/// Whether `name` stands in `code` as a whole identifier or path.
fn mentions(code: &str, name: &str) -> bool {
    let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(start, _)| {
        !code[..start].ends_with(part_of_a_word) && !code[start + name.len()..].starts_with(part_of_a_word)
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root").to_owned()
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for part in ["edge", "gateway", "cloud", "tests"] {
        collect(&root(), part, &mut sources);
    }
    assert!(!sources.is_empty(), "no sources below {}", root().display());
    sources
}

fn collect(root: &Path, folder: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(folder)).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let name = entry.file_name().into_string().expect("UTF-8 file names");
        let path = format!("{folder}/{name}");
        if entry.file_type().expect("a file type").is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, sources);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a readable source");
            sources.push(Source { path, lines: text.lines().count(), code: code_of(&text) });
        }
    }
}

/// Rust without its comments, texts and characters: enough of its grammar for finding names.
fn code_of(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if c == '"' {
            text_len(rest, '"')
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_text_len(rest)
        } else if c == '\'' && is_character(rest) {
            text_len(rest, '\'')
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// They nest.
fn block_comment_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn text_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#` …; for `r#name` only its `r#`.
fn raw_text_len(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let start = 1 + hashes;
    if !text[start..].starts_with('"') {
        return start;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[start + 1..].find(&end).map_or(text.len(), |at| start + 1 + at + end.len())
}

/// `'x'` and `'\n'`, but not the lifetime `'x`.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}
