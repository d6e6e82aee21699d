//! The memory that this process can use.

use std::fs;
use std::path::Path;

/// Where Linux mounts its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Returns the memory of the machine, or of the smallest control group that the process is in, in bytes. `None` if the
/// system doesn't report it.
pub fn total() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| cgroup_limit(&text, Path::new(CGROUPS)));
    machine.into_iter().chain(groups).min()
}

/// Reads `MemTotal` from the text of `/proc/meminfo`.
fn parse_meminfo(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the lowest memory limit of the groups in the text of `/proc/self/cgroup` and of their parents. In a
/// container, the path of a group may be that of the host's hierarchy: then only the mounted root has a limit.
fn cgroup_limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        // Version 2 has one hierarchy without a list of controllers.
        let (root, file) = match controllers.split(',').any(|controller| controller == "memory") {
            true => (mounted.join("memory"), "memory.limit_in_bytes"),
            false if controllers.is_empty() => (mounted.to_owned(), "memory.max"),
            false => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let limits = group.ancestors().take_while(|ancestor| ancestor.starts_with(&root));
        limits.chain([&*root]).filter_map(|folder| parse_limit(&fs::read_to_string(folder.join(file)).ok()?)).min()
    });
    limits.min()
}

/// Parses the limit of a group; `None` if it has none: "max" in version 2, a number close to 2⁶³ in version 1.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_memory_of_the_machine() {
        assert_eq!(parse_meminfo("MemTotal:       24576 kB\nMemFree:  1 kB\n"), Some(24 << 20));
        assert_eq!(parse_meminfo("MemFree:  1 kB\n"), None);
        if cfg!(target_os = "linux") {
            assert!(total().is_some_and(|bytes| bytes > 1 << 20));
        }
    }

    #[test]
    fn lowest_limit_of_the_groups_counts() {
        let mounted = tempfile::tempdir().unwrap();
        let limit = |group: &str, file: &str, text: &str| {
            fs::create_dir_all(mounted.path().join(group)).unwrap();
            fs::write(mounted.path().join(group).join(file), text).unwrap();
        };
        limit("", "memory.max", "max\n");
        limit("system/modhost", "memory.max", "3000000\n");
        limit("system", "memory.max", "2000000\n");
        let of = |groups: &str| cgroup_limit(groups, mounted.path());
        assert_eq!(of("0::/system/modhost\n"), Some(2_000_000));
        assert_eq!(of("0::/system\n"), Some(2_000_000));
        assert_eq!(of("0::/elsewhere\n"), None);
        assert_eq!(of("nonsense\n\n1:cpu:/system\n"), None);

        limit("memory", "memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(of("4:memory:/docker/1f\n"), None);
        limit("memory", "memory.limit_in_bytes", "1000000\n");
        assert_eq!(of("4:cpu,memory:/docker/1f\n0::/system\n"), Some(1_000_000), "the path is that of another root");
    }
}
