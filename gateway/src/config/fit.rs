//! Do the limits fit the machine? A limit that cannot be kept is worse than none: the kernel ends the process, or the card
//! is full, at the worst of times, which is when everything is used at once.
//!
//! Each module says what its settings may need of memory at most, setting by setting ([`Need`]); that is held against the
//! machine's memory and the limits of the control groups the process is in. The spool's budget is held against its file
//! system. All of it is arithmetic on what [`machine`](super::machine) found.

use std::path::PathBuf;

use super::machine::Machine;
use super::value::show;
use super::{Config, Profile};

/// Binary, stacks, allocator, the libraries' own: measured as resident when nothing is connected, with some room.
const BASE_BYTES: u64 = 24 << 20;

/// Memory that a setting allows to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The setting, as in `mqtt.connections_max`.
    pub key: &'static str,
    /// What it is set to.
    pub value: u64,
    /// Whether that is a number of bytes.
    pub is_bytes: bool,
    /// Memory for each one of the value, at most.
    pub each_bytes: u64,
}

impl Need {
    /// Of so many, each may take so much.
    #[must_use]
    pub fn count(key: &'static str, value: u64, each_bytes: u64) -> Need {
        Need { key, value, is_bytes: false, each_bytes }
    }

    /// Of so many bytes, so many times as many may be in memory.
    #[must_use]
    pub fn bytes(key: &'static str, value: u64, times: u64) -> Need {
        Need { key, value, is_bytes: true, each_bytes: times }
    }

    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.value.saturating_mul(self.each_bytes)
    }

    fn show(&self, value: u64) -> String {
        if self.is_bytes { show(value) } else { value.to_string() }
    }
}

/// Limits that do not fit the machine.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Used to the full, they take more memory than there is.
    #[error(
        "{key} = {value} does not fit: with everything in use the gateway may need {} of memory ({parts}), and {} are \
         there ({whose}). {allowed}", show(*needed_bytes), show(*there_bytes)
    )]
    Memory {
        /// The setting that needs most.
        key: &'static str,
        /// What it is.
        value: String,
        /// What all settings need together.
        needed_bytes: u64,
        /// Who needs how much.
        parts: String,
        /// What there is.
        there_bytes: u64,
        /// Whose limit that is.
        whose: String,
        /// What would fit.
        allowed: String,
    },
    /// The spool would fill its file system before it reaches its budget.
    #[error(
        "spool.bytes_max = {} does not fit: the file system of {} has room for {} ({} more are kept free, spool.free_min). \
         Allowed here: at most that",
        show(*budget_bytes), folder.display(), show(*there_bytes), show(*free_min)
    )]
    Disk {
        /// The spool's folder.
        folder: PathBuf,
        /// The budget.
        budget_bytes: u64,
        /// What is free beyond `free_min`, and what the spool has already.
        there_bytes: u64,
        /// What is to stay free.
        free_min: u64,
    },
}

/// What the settings may need of memory at most.
#[must_use]
pub fn needs(config: &Config) -> Vec<Need> {
    let mut needs = config.mqtt.needs();
    needs.extend(config.spool.needs());
    needs.extend(config.uplink.needs());
    needs.extend(config.source.needs());
    needs
}

/// All of them together, and what is there without any.
#[must_use]
pub fn needed_bytes(needs: &[Need]) -> u64 {
    needs.iter().map(Need::total_bytes).fold(BASE_BYTES, u64::saturating_add)
}

/// Holds the limits against the machine. What the machine does not tell is not asked for.
///
/// Returns what does not fit and is let pass.
///
/// # Errors
/// What does not fit, and what would.
pub fn check(config: &Config, machine: &Machine) -> Result<Option<Box<Unfit>>, Box<Unfit>> {
    memory(config, machine)?;
    disk(config, machine)
}

fn memory(config: &Config, machine: &Machine) -> Result<(), Box<Unfit>> {
    let Some(there) = &machine.memory else { return Ok(()) };
    let needs = needs(config);
    let needed_bytes = needed_bytes(&needs);
    if needed_bytes <= there.bytes {
        return Ok(());
    }
    let largest = needs.iter().max_by_key(|need| need.total_bytes()).expect("every module needs something");
    let rest_bytes = needed_bytes - largest.total_bytes();
    let fitting = there.bytes.saturating_sub(rest_bytes) / largest.each_bytes.max(1);
    let mut allowed = match fitting {
        0 => "Others must become less, too".to_owned(),
        fitting => format!("Allowed here: at most {}", largest.show(fitting)),
    };
    if let Some(profile) = smaller_profile(config, largest, there.bytes) {
        allowed.push_str(&format!("; or gateway.profile = \"{}\"", profile.as_str()));
    }
    let mut parts: Vec<&Need> = needs.iter().filter(|need| need.total_bytes() > 0).collect();
    parts.sort_by_key(|need| std::cmp::Reverse(need.total_bytes()));
    let parts: Vec<String> =
        parts.iter().take(4).map(|need| format!("{} {}", need.key, show(need.total_bytes()))).collect();
    Err(Box::new(Unfit::Memory {
        key: largest.key,
        value: largest.show(largest.value),
        needed_bytes,
        parts: parts.join(", "),
        there_bytes: there.bytes,
        whose: there.whose.clone(),
        allowed,
    }))
}

/// The largest profile that would fit, if it is a profile that says what is too much.
fn smaller_profile(config: &Config, too_much: &Need, there_bytes: u64) -> Option<Profile> {
    let needs_of = |profile: Profile| needs(&Config::of_profile(profile));
    let is_profiles = needs_of(config.gateway.profile).contains(too_much);
    let mut profiles = Profile::ALL.into_iter().rev();
    profiles.find(|profile| is_profiles && needed_bytes(&needs_of(*profile)) <= there_bytes)
}

/// A new spool has to fit. One that is there already is opened all the same: it may hold what was acknowledged, and other files
/// on its disk are no reason to take no more care of that.
fn disk(config: &Config, machine: &Machine) -> Result<Option<Box<Unfit>>, Box<Unfit>> {
    let Some(there) = &machine.disk else { return Ok(None) };
    let free_min = config.spool.free_min;
    let there_bytes = there.free_bytes.saturating_add(there.spool_bytes).saturating_sub(free_min);
    let budget_bytes = config.spool.bytes_max;
    if budget_bytes <= there_bytes {
        return Ok(None);
    }
    let folder = config.spool.folder.clone();
    let unfit = Box::new(Unfit::Disk { folder, budget_bytes, there_bytes, free_min });
    if there.spool_is_new { Err(unfit) } else { Ok(Some(unfit)) }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Disk, Memory};
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn memory_of(bytes: u64) -> Machine {
        Machine { memory: Some(Memory { bytes, whose: "a test's".to_owned() }), disk: None }
    }

    fn disk_of(free_bytes: u64, spool_bytes: u64, spool_is_new: bool) -> Machine {
        Machine { memory: None, disk: Some(Disk { free_bytes, spool_bytes, spool_is_new }) }
    }

    fn said(text: &str, machine: &Machine) -> String {
        let text = format!("gateway = {{ site = \"s\", id = \"g\", {text}\nspool.folder = \"f\"\n");
        check(&Config::parse(&text).unwrap(), machine)
            .map_or_else(|unfit| unfit.to_string(), |_| String::new())
    }

    #[test]
    fn every_profile_fits_its_machine_and_half_of_its_memory() {
        // What Linux sees of 512 MB and 1 GB, the graphics' share taken off; the package's unit allows half of it.
        for (profile, bytes) in [("pi-zero-2", 430 * MIB), ("pi", 900 * MIB), ("server", 8 * GIB)] {
            assert_eq!(said(&format!("profile = \"{profile}\" }}"), &memory_of(bytes / 2)), "");
        }
    }

    #[test]
    fn what_needs_too_much_memory_is_refused_with_key_number_and_profile() {
        let error = said("}", &memory_of(GIB));
        for part in [
            "mqtt.connections_max = 10000 does not fit",
            "1 GiB are there (a test's)",
            "at most ",
            "gateway.profile = \"pi\"",
        ] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        let allowed = error.split("at most ").nth(1).unwrap().split(';').next().unwrap();
        let less = format!("}}\nmqtt.connections_max = {allowed}");
        assert_eq!(said(&less, &memory_of(GIB)), "", "what is said to fit fits");
    }

    #[test]
    fn a_key_that_the_file_says_is_not_blamed_on_the_profile() {
        let error = said("profile = \"pi\" }\nspool.epoch_bytes = \"256 MiB\"", &memory_of(400 * MIB));
        assert!(error.contains("spool.epoch_bytes = 256 MiB does not fit"), "{error}");
        assert!(!error.contains("gateway.profile"), "{error}");
    }

    #[test]
    fn a_machine_too_small_for_everything_is_said_so() {
        let error = said("profile = \"pi-zero-2\" }", &memory_of(20 * MIB));
        assert!(error.contains("Others must become less, too"), "{error}");
    }

    #[test]
    fn a_new_spool_that_does_not_fit_its_file_system_is_refused() {
        let error = said("}", &disk_of(3 * GIB, 0, true));
        for part in
            ["spool.bytes_max = 4 GiB does not fit", "room for 2.7 GiB", "256 MiB more", "at most that"]
        {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert_eq!(said("}", &disk_of(4 * GIB + 256 * MIB, 0, true)), "");
        assert_eq!(said("}\nspool.free_min = 0", &disk_of(4 * GIB, 0, true)), "");
    }

    #[test]
    fn a_spool_that_is_there_counts_what_it_has_and_is_opened_whatever_else_is_on_its_disk() {
        assert_eq!(said("}", &disk_of(GIB + 256 * MIB, 3 * GIB, true)), "");
        assert_eq!(said("}", &disk_of(GIB, GIB, false)), "");
        let config = Config::of_profile(Profile::Server);
        let warning = check(&config, &disk_of(GIB, GIB, false)).unwrap().expect("but it is told");
        assert!(warning.to_string().contains("has room for 1.7 GiB"), "{warning}");
    }
}
