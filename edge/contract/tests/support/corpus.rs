//! The frozen bytes in `tests/wire`.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1")
}

/// Bytes of `{rule}/{case}` or `also-read/{rule}/{case}`.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = root().join(name).with_extension("hex");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: String = text
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(hex, _comment)| hex))
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    hex(&digits)
}

/// Bytes of hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "half a byte in {digits}");
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// Names of all files in a folder of the corpus (`""` for what is also written, `also-read`), as `{rule}/{case}`.
pub fn names(folder: &str) -> Vec<String> {
    let folder = root().join(folder);
    let mut names = Vec::new();
    for rule in entries(&folder).into_iter().filter(|rule| rule != "also-read") {
        for file in entries(&folder.join(&rule)) {
            let case = file.strip_suffix(".hex").expect("frozen bytes are .hex files").to_owned();
            names.push(format!("{rule}/{case}"));
        }
    }
    names.sort();
    names
}

fn entries(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("readable folder").file_name().into_string().expect("ASCII file names"))
        .collect()
}
