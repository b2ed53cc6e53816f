//! What the machine has: memory, as the kernel and the control groups allow it, and room on the spool's file system.

use std::path::{Path, PathBuf};

use super::value::show;

/// What the machine has; `None` is what it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Memory the gateway may count on.
    pub memory: Option<Memory>,
    /// Room for the spool.
    pub disk: Option<Disk>,
}

/// Memory the gateway may count on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// How much.
    pub bytes: u64,
    /// Whose limit that is.
    pub whose: String,
}

/// Room for the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Free on the file system for an ordinary user.
    pub free_bytes: u64,
    /// What the spool has on it already.
    pub spool_bytes: u64,
    /// Whether there is no spool yet.
    pub spool_is_new: bool,
}

impl Machine {
    /// Looks at this machine. `spool` need not be there yet.
    #[must_use]
    pub fn look(spool: &Path) -> Machine {
        Machine { memory: memory(Path::new("/")), disk: disk(spool) }
    }
}

/// The least of what the kernel has and what the control groups of this process allow, as told below `root`.
fn memory(root: &Path) -> Option<Memory> {
    // A sandboxed process may not see it (systemd: ProcSubset=pid).
    let all = std::fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total_bytes(&text));
    // The rest is for the kernel and everything else on the machine.
    let share =
        |all| Memory { bytes: all / 4 * 3, whose: format!("three quarters of the machine's {}", show(all)) };
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain(all.map(share)).min_by_key(|memory| memory.bytes)
}

/// `MemTotal:        3884956 kB`
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits of a group and of those it is in. `0::/system.slice/weir-gateway.service` (version 2), or
/// `9:memory:/docker/4711` (version 1). A container may see its own group at the mount's root, so that is asked, too.
fn group_limits(root: &Path, line: &str) -> Vec<Memory> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let limit = |group: &Path| {
        let file = root.join(mount).join(group).join(file);
        // No limit is "max", or (version 1) a number beyond all machines.
        let bytes: u64 = std::fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        Some(Memory { bytes, whose: format!("the limit of the control group /{}", group.display()) })
    };
    groups.filter_map(limit).collect()
}

fn disk(spool: &Path) -> Option<Disk> {
    let absolute = std::path::absolute(spool).ok()?;
    let there = absolute.ancestors().find(|folder| folder.is_dir())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let spool_bytes = used_bytes(spool);
    Some(Disk {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        spool_bytes,
        // Who may not look takes it for there: he is told too little rather than something wrong.
        spool_is_new: matches!(spool.join("incarnation").try_exists(), Ok(false)),
    })
}

/// What is in a folder, folders in it included; what vanishes meanwhile is nothing.
fn used_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |path: PathBuf, metadata: std::fs::Metadata| {
        if metadata.is_dir() { used_bytes(&path) } else { metadata.len() }
    };
    entries.filter_map(|entry| Some(bytes(entry.path(), entry.metadata().ok()?))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:         400000 kB\nMemFree:          1 kB\n");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "0::/system.slice/weir-gateway.service\n");

    fn bytes(files: &[(&str, &str)]) -> Option<u64> {
        memory(root(files).path()).map(|memory| memory.bytes)
    }

    #[test]
    fn without_control_groups_it_is_a_share_of_the_machine() {
        assert_eq!(bytes(&[MEMINFO]), Some(400_000 * 1024 / 4 * 3));
        assert_eq!(bytes(&[]), None);
        let own = ("sys/fs/cgroup/system.slice/weir-gateway.service/memory.max", "1000000\n");
        assert_eq!(bytes(&[GROUP, own]), Some(1_000_000), "a sandbox may hide the machine's memory");
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let service = "sys/fs/cgroup/system.slice/weir-gateway.service/memory.max";
        let slice = "sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(bytes(&[MEMINFO, GROUP, (service, "1000000\n"), (slice, "max\n")]), Some(1_000_000));
        assert_eq!(bytes(&[MEMINFO, GROUP, (service, "max\n"), (slice, "2000000\n")]), Some(2_000_000));
        assert_eq!(bytes(&[MEMINFO, GROUP, (service, "max\n")]), Some(400_000 * 1024 / 4 * 3));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root_and_version_1_is_known() {
        let own = ("sys/fs/cgroup/memory.max", "3000000\n");
        assert_eq!(bytes(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), own]), Some(3_000_000));
        let old = ("proc/self/cgroup", "3:cpu,cpuacct:/x\n2:memory:/docker/4711\n");
        let limit = ("sys/fs/cgroup/memory/docker/4711/memory.limit_in_bytes", "4000000\n");
        assert_eq!(bytes(&[MEMINFO, old, limit]), Some(4_000_000));
    }

    #[test]
    fn the_disk_is_looked_at_before_the_spool_is_there_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("not/yet/there");
        let before = disk(&spool).unwrap();
        assert!(before.spool_is_new && before.spool_bytes == 0 && before.free_bytes > 0);
        std::fs::create_dir_all(spool.join("epochs/1")).unwrap();
        std::fs::write(spool.join("incarnation"), [0; 10]).unwrap();
        std::fs::write(spool.join("epochs/1/db"), [0; 1000]).unwrap();
        let after = disk(&spool).unwrap();
        assert!(!after.spool_is_new);
        assert_eq!(after.spool_bytes, 1010);
    }
}
