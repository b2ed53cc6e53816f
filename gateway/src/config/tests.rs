use super::Config;
use crate::{admin, logging, mqtt, spool, uplink};

const DEPLOYED: &str = include_str!("../../../deploy/gateway.toml");
const LEAST: &str = "[gateway]\nsite = \"s\"\nid = \"g\"\n[spool]\nfolder = \"f\"\n";

/// The file with its examples switched on.
fn with_examples() -> String {
    let is_example = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let key = rest.split([' ', '=']).next()?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
        (rest.starts_with("[[") || (is_key && rest[key.len()..].starts_with(" = ")))
            .then_some(rest.to_owned())
    };
    DEPLOYED.lines().map(|line| is_example(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_deployed_file_loads_and_says_the_defaults() {
    let deployed = Config::parse(DEPLOYED).unwrap();
    let listener = deployed.mqtt.listeners.clone();
    assert_eq!(listener, [mqtt::Listener::default()]);
    let mqtt = mqtt::Config { listeners: Vec::new(), ..deployed.mqtt };
    assert_eq!(format!("{mqtt:?}"), format!("{:?}", mqtt::Config::default()));
    let spool = spool::Config::new(&deployed.spool.folder);
    assert_eq!(format!("{:?}", deployed.spool), format!("{spool:?}"));
    assert_eq!(format!("{:?}", deployed.uplink), format!("{:?}", uplink::Config::default()));
    assert_eq!(format!("{:?}", deployed.admin), format!("{:?}", admin::Config::default()));
    assert_eq!(format!("{:?}", deployed.log), format!("{:?}", logging::Config::default()));
    assert_eq!(deployed.gateway.threads, Config::parse(LEAST).unwrap().gateway.threads);
}

#[test]
fn the_deployed_files_examples_load() {
    let config = Config::parse(&with_examples()).unwrap();
    assert_eq!((config.mqtt.listeners.len(), config.mqtt.clients.len()), (2, 1));
    assert!(config.mqtt.password_file.is_some() && config.uplink.credentials_file.is_some());
    assert!(config.uplink.tls.unwrap().key.is_some());
}

#[test]
fn every_setting_is_in_the_deployed_file() {
    let config = Config::parse(&with_examples()).unwrap();
    for line in format!("{config:#?}").lines() {
        let Some((key, _)) = line.trim().split_once(": ") else { continue };
        // Tables that are lists have a name for one of them.
        let key = key.strip_suffix("s").filter(|key| ["listener", "client"].contains(key)).unwrap_or(key);
        assert!(DEPLOYED.contains(key), "{key} is not in deploy/gateway.toml");
    }
}

#[test]
fn what_must_be_said_is_little() {
    let config = Config::parse(LEAST).unwrap();
    assert!(config.mqtt.listeners.is_empty());
    for missing in ["site = \"s\"\n", "id = \"g\"\n", "folder = \"f\"\n"] {
        let error = Config::parse(&LEAST.replace(missing, "")).expect_err(missing).to_string();
        assert!(error.contains("missing field"), "{error}");
    }
}

#[test]
fn an_error_names_file_line_key_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.toml");
    let cases = [
        ("site = \"s\"", "site = \"a b\"", ["line 2", "site = \"a b\"", "1 to 32 of"]),
        ("[spool]", "[spol]", ["line 4", "[spol]", "expected one of"]),
        ("[spool]", "[spool]\nbytes_max = \"1 KiB\"", ["line 5", "bytes_max", "between 32 MiB and"]),
        ("[spool]", "[uplink.tls]\nkey = \"k\"\n[spool]", ["line 4", "tls", "only together"]),
        ("[spool]", "[log]\nfilter = \"=,=\"\n[spool]", ["line 5", "filter", "is no filter"]),
    ];
    for (right, wrong, said) in cases {
        std::fs::write(&file, LEAST.replace(right, wrong)).unwrap();
        let error = anyhow::Error::from(Config::load(&file).expect_err(wrong));
        let error = format!("{error:#}");
        for said in said.into_iter().chain([file.to_str().unwrap()]) {
            assert!(error.contains(said), "{said:?} is not in: {error}");
        }
    }
}
