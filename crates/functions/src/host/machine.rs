//! What this machine has for functions: memory, descriptors, processes. Read once, at the start of the host.
//!
//! A container's limits count where they are smaller than the machine. What cannot be read is taken for unlimited.

use std::path::{Path, PathBuf};

/// Descriptors that one environment costs the server: two listeners, its output, its init, its line, its `/proc` and a file in
/// it, and the connections of its runtime and its S3 client.
const DESCRIPTORS_EACH: u64 = 10;
/// Descriptors that stay for everything else: clients, the store, result logs.
const DESCRIPTORS_KEPT: u64 = 256;
/// Processes and threads that one environment is taken to have: a Node runtime has eleven, and functions start some.
const PROCESSES_EACH: u64 = 32;

/// MiB that all environments together may use if nobody says otherwise: three quarters of what there is. The rest is for
/// the server, and for the kernel to keep files in.
pub(super) fn memory_mib_default() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_kib(&text)).map(|kib| kib * 1024);
    let container = own_limits("memory", &["memory.max", "memory.limit_in_bytes"]).into_iter().min();
    [machine, container].into_iter().flatten().min().map_or(u64::MAX, |bytes| bytes / 4 * 3 / (1024 * 1024))
}

/// How many environments there are descriptors and processes for.
pub(super) fn environments_max() -> u32 {
    use rustix::process::{Resource, getrlimit};
    let descriptors = getrlimit(Resource::Nofile).current;
    let by_descriptors = descriptors.map(|n| n.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH);
    // Root is not bound by its own; and what a user runs beside us is his to count.
    let processes = getrlimit(Resource::Nproc).current.filter(|_| !rustix::process::geteuid().is_root());
    let pids = own_limits("pids", &["pids.max"]).into_iter().min();
    let by_processes = [processes, pids].into_iter().flatten().min().map(|n| n / PROCESSES_EACH);
    let max = [by_descriptors, by_processes].into_iter().flatten().min();
    max.map_or(u32::MAX, |max| u32::try_from(max.max(1)).unwrap_or(u32::MAX))
}

fn total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// The limits that hold for this process's control group of a controller and for those above it.
fn own_limits(controller: &str, files: &[&str]) -> Vec<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let folders = group_folders(&groups, controller, Path::new("/sys/fs/cgroup"));
    let paths = folders.iter().flat_map(|folder| files.iter().map(move |file| folder.join(file)));
    // "max", a huge number, or no such file: no limit.
    paths.filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).collect()
}

/// The folders of a controller's groups, from this process's own up to the root. `groups` is `/proc/self/cgroup`: lines
/// `number:controllers:path`, of which version 2 has one without controllers.
fn group_folders(groups: &str, controller: &str, mount: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let base = match controllers {
            "" => mount.to_owned(),
            _ if controllers.split(',').any(|c| c == controller) => mount.join(controller),
            _ => continue,
        };
        // Inside a container the path may be one that only the outside knows; then the root stands for it.
        folders.extend(Path::new(path).ancestors().map(|group| base.join(group.strip_prefix("/").unwrap_or(group))));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read_from_its_first_line() {
        assert_eq!(total_kib("MemTotal:       24689876 kB\nMemFree: 1 kB\n"), Some(24_689_876));
        assert_eq!(total_kib("nothing"), None);
        assert!(memory_mib_default() > 0 && environments_max() > 0);
    }

    #[test]
    fn limits_are_looked_for_in_the_own_group_and_all_above_it_of_both_versions() {
        let groups = "4:memory,hugetlb:/a/b\n3:pids:/p\n0::/user.slice/one\n";
        let folders = |controller| group_folders(groups, controller, Path::new("/cg"));
        assert_eq!(
            folders("memory"),
            ["/cg/memory/a/b", "/cg/memory/a", "/cg/memory/", "/cg/user.slice/one", "/cg/user.slice", "/cg/"]
                .map(PathBuf::from)
        );
        assert_eq!(folders("pids")[..2], ["/cg/pids/p", "/cg/pids/"].map(PathBuf::from));
    }
}
