use std::io::Write as _;

use super::*;

fn load(text: &str) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it can be written");
    Config::load(file.path()).map_err(|error| {
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            said = format!("{said}: {inner}");
            cause = inner.source();
        }
        assert!(said.contains(&*file.path().to_string_lossy()), "names the file: {said}");
        said
    })
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(load("").expect("every setting has a default"), Config::default());
}

#[test]
fn the_explained_file_is_valid_and_leaves_no_setting_out() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cloud.toml");
    let text = std::fs::read_to_string(file).expect("deploy/cloud.toml is part of the project");
    Config::load(Path::new(file)).expect("the explained file is a configuration");

    // Optional settings are explained in a comment: `# key = …`. So every key must occur at a line's start.
    let explained: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key))
        .collect();
    let defaults = toml::Table::try_from(Config::default()).expect("a configuration is a table");
    let mut keys =
        vec!["credentials_file".to_owned(), "ca".to_owned(), "certificate".to_owned(), "key".to_owned()];
    collect_keys(&defaults, &mut keys);
    for key in keys {
        assert!(explained.contains(&key.as_str()), "deploy/cloud.toml does not explain `{key}`");
    }
}

fn collect_keys(table: &toml::Table, keys: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => collect_keys(inner, keys),
            _ => keys.push(key.clone()),
        }
    }
}

#[test]
fn what_check_prints_is_a_configuration_again() {
    let printed = toml::to_string(&Config::default()).expect("a configuration is a table");
    assert_eq!(load(&printed).expect("it was printed by us"), Config::default());
}

#[test]
fn an_unknown_key_is_named_with_the_known_ones() {
    let said = load("[api]\nadress = \"127.0.0.1:1\"\n").expect_err("there is no such key");
    assert!(said.contains("adress") && said.contains("`address`"), "{said}");
}

#[test]
fn a_wrong_type_is_named_with_its_line() {
    let said = load("[api]\nrequest_timeout_ms = \"soon\"\n").expect_err("not a number");
    assert!(said.contains("line 2") && said.contains("request_timeout_ms"), "{said}");
}

#[test]
fn a_value_out_of_range_is_named_with_the_range() {
    let said = load("[stream]\nreplicas = 9\n").expect_err("NATS knows at most 5");
    assert!(
        said.contains("stream.replicas = \"9\" is not allowed; allowed: a whole number from 1 to 5"),
        "{said}"
    );
}

#[test]
fn a_certificate_goes_with_its_key() {
    let said = load("[nats.tls]\ncertificate = \"/c.pem\"\n").expect_err("no key");
    assert!(said.contains("nats.tls.certificate") && said.contains("together with nats.tls.key"), "{said}");
}

#[test]
fn an_address_of_another_scheme_is_refused() {
    let said = load("[nats]\nservers = [\"http://127.0.0.1:4222\"]\n").expect_err("not NATS");
    assert!(said.contains("nats.servers") && said.contains("nats://host:port"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/cloud.toml")).expect_err("it is not there");
    assert!(error.to_string().contains("/nonexistent/cloud.toml"));
}
