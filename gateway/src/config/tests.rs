use super::{Config, Profile};
use crate::{admin, logging, mqtt, spool, uplink};

const DEPLOYED: &str = include_str!("../../../deploy/gateway.toml");
const LEAST: &str = "[gateway]\nsite = \"s\"\nid = \"g\"\n[spool]\nfolder = \"f\"\n";

/// A line that is a setting with `# ` before it.
fn switched_off(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# ")?;
    let key = rest.split([' ', '=']).next()?;
    let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
    (rest.starts_with("[[") || (is_key && rest[key.len()..].starts_with(" = "))).then_some(rest)
}

/// The file with its examples, and what profiles say, switched on.
fn with_examples() -> String {
    DEPLOYED.lines().map(|line| switched_off(line).unwrap_or(line).to_owned() + "\n").collect()
}

/// The file with what profiles say switched on, in the column of this profile.
fn with_profile_spelled_out(profile: Profile) -> String {
    let column = |line: &str| {
        let (setting, others) = switched_off(line)?.split_once("  # profile pi: ")?;
        let (key, server) = setting.split_once(" = ")?;
        let (pi, zero) = others.split_once(", pi-zero-2: ")?;
        let value = match profile {
            Profile::Server => server,
            Profile::Pi => pi,
            Profile::PiZero2 => zero,
        };
        Some(format!("{key} = {value}"))
    };
    DEPLOYED.lines().map(|line| column(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_deployed_file_loads_and_says_the_defaults() {
    for text in [DEPLOYED.to_owned(), with_profile_spelled_out(Profile::Server)] {
        let deployed = Config::parse(&text).unwrap();
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
        assert_eq!(deployed.gateway.profile, Profile::default());
    }
}

#[test]
fn the_deployed_file_tells_what_profiles_say() {
    for profile in Profile::ALL {
        let chosen = |text: &str| {
            let line = format!("profile = \"{}\"", profile.as_str());
            Config::parse(&text.replace("profile = \"server\"", &line)).unwrap()
        };
        let (short, long) = (chosen(DEPLOYED), chosen(&with_profile_spelled_out(profile)));
        assert_eq!(short.gateway.profile, profile);
        assert_eq!(format!("{short:#?}"), format!("{long:#?}"));
        for (table, settings) in profile.settings() {
            for key in settings.as_table().unwrap().keys() {
                let told =
                    |line: &str| line.starts_with(&format!("# {key} = ")) && line.contains("pi-zero-2: ");
                assert!(DEPLOYED.lines().any(told), "that {table}.{key} depends on the profile is not told");
            }
        }
    }
}

#[test]
fn what_the_file_says_goes_before_its_profile() {
    let text = LEAST.replace("[spool]", "profile = \"pi-zero-2\"\n[mqtt]\nconnections_max = 77\n[spool]");
    let config = Config::parse(&text).unwrap();
    assert_eq!((config.mqtt.connections_max, config.mqtt.subscribers_max), (77, 8));
    assert_eq!(config.spool.folder.to_str(), Some("f"));
    let unknown =
        Config::parse(&LEAST.replace("[spool]", "profile = \"pi-9\"\n[spool]")).unwrap_err().to_string();
    for part in ["line 4", "pi-zero-2", "server"] {
        assert!(unknown.contains(part), "{unknown}");
    }
}

#[test]
fn what_is_in_effect_is_shown_as_a_file_that_means_the_same() {
    let text = with_examples().replace("nats://127.0.0.1:4222", "tls://127.0.0.1:4222");
    for text in [text.as_str(), LEAST] {
        let config = Config::parse(text).unwrap();
        let shown = toml::to_string(&config).unwrap();
        assert_eq!(format!("{:#?}", Config::parse(&shown).unwrap()), format!("{config:#?}"), "{shown}");
    }
}

#[test]
fn a_password_in_a_servers_address_is_not_shown() {
    let text = format!("{LEAST}[uplink]\nservers = [\"nats://user:se@cret@host:4222\"]\n");
    let shown = toml::to_string(&Config::parse(&text).unwrap()).unwrap();
    assert!(shown.contains("nats://***@host:4222") && !shown.contains("cret"), "{shown}");
}

#[test]
fn the_deployed_files_examples_load() {
    let config = Config::parse(&with_examples()).unwrap();
    assert_eq!((config.mqtt.listeners.len(), config.mqtt.clients.len()), (2, 1));
    assert!(config.mqtt.password_file.is_some() && config.uplink.credentials_file.is_some());
    assert!(config.uplink.tls.unwrap().key.is_some());
    config.source.check().unwrap();
    assert!(config.source.mqtt[0].tls.as_ref().unwrap().key.is_some());
    assert_eq!((config.source.mqtt[0].presets.len(), config.source.mqtt[0].rule[0].reading.len()), (2, 1));
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

#[test]
fn on_every_profile_one_address_leaves_places_to_others() {
    for profile in Profile::ALL {
        let text = LEAST.replace("[spool]", &format!("profile = \"{}\"\n[spool]", profile.as_str()));
        let mqtt = Config::parse(&text).unwrap().mqtt;
        assert!(mqtt.connections_per_address_max <= mqtt.connections_max / 2, "{}", profile.as_str());
    }
}
