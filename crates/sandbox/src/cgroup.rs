//! Control groups: where this server may make some, what is written into them, and how they are frozen and removed.
//!
//! Only below the server's own group: whoever limits the server limits its functions with it. Version 2 needs that group to be
//! the server's own (`Delegate=yes` in a unit); version 1 has a tree for each controller and is used where it is mounted.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::spec::CgroupDir;

/// Begins the name of every group of ours; the server's PID namespace and process ID and the environment's marker follow.
const PREFIX: &str = "longshore-";
/// Where the server itself goes in version 2, whose groups have either processes or groups with limits.
const OWN: &str = "longshore-server";

/// The groups that this server may make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// The folder of the server's own group in version 2, and the controllers that groups in it have.
    v2: Option<(PathBuf, Vec<String>)>,
    /// The folder of the server's own group for each controller of version 1.
    v1: BTreeMap<String, PathBuf>,
}

/// What an environment is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Memory with `/tmp` and what the kernel keeps of files.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
    /// Microseconds of CPU in each 100 ms, all cores together.
    pub cpu_us: Option<u64>,
}

const CPU_PERIOD_US: u64 = 100_000;
/// Version 1 takes no smaller quota.
const CPU_US_MIN: u64 = 1_000;
/// How long a group may stay after its last process: the kernel is done with that a moment later.
const REMOVAL: Duration = Duration::from_secs(1);

impl Cgroups {
    /// Looks for them, takes the groups of servers that are gone away, and in version 2 turns the controllers on. The error says
    /// what is in the way.
    pub fn find() -> Result<Self, String> {
        let read = |file: &str| std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
        let mut found = Self::in_text(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        if let Some((base, _)) = &found.v2 {
            let base = base.clone();
            let controllers = enable(&base);
            found.v2 = Some((base, controllers));
        }
        for base in found.v1.values().chain(found.v2.iter().map(|(base, _)| base)) {
            sweep(base);
        }
        let lacks: Vec<&str> = ["memory", "pids"].into_iter().filter(|name| !found.has(name)).collect();
        if lacks.is_empty() {
            return Ok(found);
        }
        let where_to = match (&found.v2, found.v1.is_empty()) {
            (None, true) => "no cgroups are mounted".to_owned(),
            (Some((base, _)), true) => format!("{} gives this server no controllers", base.display()),
            _ => "this server's groups have no such controllers".to_owned(),
        };
        Err(format!("{}: {where_to}", lacks.join(" and ")))
    }

    /// From the text of `/proc/self/cgroup` and of `/proc/self/mountinfo`.
    fn in_text(groups: &str, mounts: &str) -> Self {
        let mut found = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            for mount in mounts.lines().filter_map(Mount::parse) {
                let Some(below) = Path::new(path).strip_prefix(mount.root).ok() else { continue };
                let folder =
                    if below.as_os_str().is_empty() { mount.on.into() } else { Path::new(mount.on).join(below) };
                if controllers.is_empty() && mount.kind == "cgroup2" {
                    found.v2 = Some((folder, Vec::new()));
                    break;
                }
                if !controllers.is_empty() && mount.kind == "cgroup" {
                    let options: Vec<&str> = mount.options.split(',').collect();
                    let names = controllers.split(',').filter(|name| options.contains(name));
                    for name in names.filter(|name| ["memory", "pids", "cpu"].contains(name)) {
                        found.v1.entry(name.to_owned()).or_insert_with(|| folder.clone());
                    }
                }
            }
        }
        found
    }

    /// Whether groups have this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.v1.contains_key(controller) || self.v2.iter().any(|(_, has)| has.iter().any(|name| name == controller))
    }

    /// For a table: which controllers there are, and of which version.
    pub fn detail(&self) -> String {
        let mut parts = Vec::new();
        if let Some((_, has)) = self.v2.as_ref().filter(|(_, has)| !has.is_empty()) {
            parts.push(format!("v2: {} freezer", has.join(" ")));
        }
        if !self.v1.is_empty() {
            parts.push(format!("v1: {}", self.v1.keys().cloned().collect::<Vec<_>>().join(" ")));
        }
        parts.join(", ")
    }

    /// The groups of one environment.
    pub fn of_environment(&self, marker: &str, bounds: Bounds) -> Vec<CgroupDir> {
        let name = format!("{}{marker}", prefix());
        let must = |file: &str, value: String| (file.to_owned(), value, false);
        let may = |file: &str, value: String| (file.to_owned(), value, true);
        let mut groups: BTreeMap<PathBuf, Vec<(String, String, bool)>> = BTreeMap::new();
        let memory = bounds.memory_bytes.to_string();
        for (controller, base) in &self.v1 {
            let values = match controller.as_str() {
                // Swap would let it grow on; kernels without accounting of swap have no such file.
                "memory" => vec![
                    must("memory.limit_in_bytes", memory.clone()),
                    may("memory.memsw.limit_in_bytes", memory.clone()),
                ],
                "pids" => vec![must("pids.max", bounds.tasks.to_string())],
                "cpu" => match bounds.cpu_us {
                    Some(us) => vec![
                        must("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                        must("cpu.cfs_quota_us", us.max(CPU_US_MIN).to_string()),
                    ],
                    None => continue,
                },
                _ => Vec::new(),
            };
            groups.entry(base.join(&name)).or_default().extend(values);
        }
        if let Some((base, has)) = self.v2.as_ref().filter(|(_, has)| !has.is_empty()) {
            let has = |controller: &str| has.iter().any(|name| name == controller);
            let mut values = Vec::new();
            if has("memory") {
                values.extend([must("memory.max", memory), may("memory.swap.max", "0".into())]);
            }
            if has("pids") {
                values.push(must("pids.max", bounds.tasks.to_string()));
            }
            if let Some(us) = bounds.cpu_us.filter(|_| has("cpu")) {
                values.push(must("cpu.max", format!("{} {CPU_PERIOD_US}", us.max(CPU_US_MIN))));
            }
            groups.insert(base.join(&name), values);
        }
        groups.into_iter().map(|(path, values)| CgroupDir { path, values }).collect()
    }
}

/// Stops all processes of an environment's groups, or lets them go on. `Unsupported` where none of them can do that.
///
/// By version 2 alone: what the freezer of version 1 holds cannot be killed either, and would outlive a server that was killed.
pub fn freeze(groups: &[PathBuf], frozen: bool) -> io::Result<()> {
    match groups.iter().map(|group| group.join("cgroup.freeze")).find(|path| path.exists()) {
        Some(path) => std::fs::write(path, if frozen { "1" } else { "0" }),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Bytes that the processes of these groups have for themselves, as the kernel counts them; `None` where it does not.
pub fn own_memory(groups: &[PathBuf]) -> Option<u64> {
    let text = groups.iter().find_map(|group| std::fs::read_to_string(group.join("memory.stat")).ok())?;
    own_memory_in(&text)
}

fn own_memory_in(stat: &str) -> Option<u64> {
    let of = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
    // Version 2, and version 1.
    of("anon").or_else(|| of("total_rss"))
}

/// Kills what is left in groups and removes them. Blocking, for a second at most; called once their processes were ended.
pub fn remove(groups: &[PathBuf]) -> io::Result<()> {
    remove_until(groups, Instant::now() + REMOVAL)
}

fn remove_until(groups: &[PathBuf], deadline: Instant) -> io::Result<()> {
    // One that stays keeps none of the others.
    groups.iter().map(|group| remove_one(group, deadline)).fold(Ok(()), Result::and)
}

fn remove_one(group: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {
                end(group);
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Ends every process in a group.
fn end(group: &Path) {
    if std::fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// What the names of this server's groups begin with.
fn prefix() -> String {
    format!("{PREFIX}ns{}-{}-", pid_namespace(), std::process::id())
}

/// The kernel's number for this PID namespace; 0 if it does not say.
fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// Takes away what servers left behind that are gone. Those of another PID namespace are left alone: a server there lives on
/// under an ID that means nothing here.
fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    let ours = format!("{PREFIX}ns{}-", pid_namespace());
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(&ours)?.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // What cannot be removed is somebody else's after all.
            let _ = remove(&[entry.path()]);
        }
    }
}

/// Turns on what controllers there are for groups in `base`, and says which are on then.
fn enable(base: &Path) -> Vec<String> {
    let words = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(base.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().map(str::to_owned).collect()
    };
    let offered = words("cgroup.controllers");
    let wanted: Vec<&str> = ["memory", "pids", "cpu"].into_iter().filter(|c| offered.iter().any(|o| o == c)).collect();
    let on = || -> Vec<String> {
        words("cgroup.subtree_control").into_iter().filter(|c| wanted.contains(&c.as_str())).collect()
    };
    if on().len() == wanted.len() {
        return on();
    }
    let orders: String = wanted.iter().map(|controller| format!("+{controller} ")).collect();
    let turn_on = || std::fs::write(base.join("cgroup.subtree_control"), orders.trim_end());
    if turn_on().is_err() {
        // A group with processes has no groups with limits: the server's own process goes one down. If it was not alone,
        // nothing is won, and it goes back.
        let own = base.join(OWN);
        let pid = std::process::id().to_string();
        let moved = std::fs::create_dir(&own).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        });
        if moved.and_then(|()| std::fs::write(own.join("cgroup.procs"), &pid)).is_ok() && turn_on().is_err() {
            let _ = std::fs::write(base.join("cgroup.procs"), &pid);
            let _ = std::fs::remove_dir(&own);
        }
    }
    on()
}

/// A line of `/proc/self/mountinfo`, the part that matters.
struct Mount<'a> {
    root: &'a str,
    on: &'a str,
    kind: &'a str,
    /// Of the file system, not of the mount.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, on) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let kind = after.next()?;
        Some(Self { root, on, kind, options: after.nth(1)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { memory_bytes: 1000, tasks: 7, cpu_us: Some(20_000) };

    fn values(groups: &[CgroupDir]) -> Vec<(String, Vec<String>)> {
        let name = format!("{}m", prefix());
        let shown = |group: &CgroupDir| {
            let values =
                group.values.iter().map(|(file, value, may)| format!("{file}={value}{}", if *may { "?" } else { "" }));
            (group.path.display().to_string().replace(&name, "G"), values.collect())
        };
        groups.iter().map(shown).collect()
    }

    #[test]
    fn trees_of_version_1_are_found_below_the_servers_own_group() {
        let groups = "8:pids:/\n6:freezer:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n";
        let mounts = "\
30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 1 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 1 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 1 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
34 1 0:30 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw";
        let found = Cgroups::in_text(groups, mounts);
        assert!(
            ["memory", "pids", "cpu"].iter().all(|c| found.has(c)) && !found.has("freezer") && !found.has("cpuacct")
        );
        assert_eq!(found.detail(), "v1: cpu memory pids");
        let text = |s: &[&str]| s.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            values(&found.of_environment("m", BOUNDS)),
            [
                (
                    "/sys/fs/cgroup/cpu,cpuacct/G".to_owned(),
                    text(&["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=20000"])
                ),
                (
                    "/sys/fs/cgroup/memory/a/b/G".to_owned(),
                    text(&["memory.limit_in_bytes=1000", "memory.memsw.limit_in_bytes=1000?"])
                ),
                ("/sys/fs/cgroup/pids/G".to_owned(), text(&["pids.max=7"])),
            ]
        );
    }

    #[test]
    fn a_group_of_version_2_has_what_its_parent_gives_and_nothing_is_made_where_it_gives_nothing() {
        let mounts = "34 1 0:30 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let mut found = Cgroups::in_text("0::/outer/longshore.service\n", mounts);
        let base = PathBuf::from("/sys/fs/cgroup/longshore.service");
        assert_eq!(found.v2, Some((base.clone(), vec![])));
        assert_eq!(found.of_environment("m", BOUNDS), []);
        found.v2 = Some((base, vec!["cpu".into(), "memory".into(), "pids".into()]));
        let all = ["memory.max=1000", "memory.swap.max=0?", "pids.max=7", "cpu.max=20000 100000"];
        assert_eq!(
            values(&found.of_environment("m", BOUNDS)),
            [("/sys/fs/cgroup/longshore.service/G".to_owned(), all.map(str::to_owned).to_vec())]
        );
        let unlimited = Bounds { cpu_us: None, ..BOUNDS };
        assert!(!values(&found.of_environment("m", unlimited))[0].1.iter().any(|v| v.starts_with("cpu")));
    }

    #[test]
    fn controllers_are_turned_on_by_the_servers_move_into_a_group_of_its_own() {
        // An ordinary folder takes every order, but says nothing of what came of it.
        let base = tempfile::tempdir().unwrap();
        let file = |name: &str| base.path().join(name);
        std::fs::write(file("cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
        std::fs::write(file("cgroup.subtree_control"), "memory\n").unwrap();
        assert_eq!(enable(base.path()), Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(file("cgroup.subtree_control")).unwrap(), "+memory +pids +cpu");
        std::fs::write(file("cgroup.subtree_control"), "cpu memory pids").unwrap();
        assert_eq!(enable(base.path()), ["cpu", "memory", "pids"]);
    }

    #[test]
    fn the_memory_of_a_group_is_read_in_both_versions() {
        assert_eq!(own_memory_in("anon 4096\nfile 9\nanon_thp 0\n"), Some(4096));
        assert_eq!(own_memory_in("cache 9\nrss 1\ntotal_rss 8192\ntotal_rss_huge 0\n"), Some(8192));
        assert_eq!(own_memory_in("cache 9\n"), None);
    }

    #[test]
    fn a_group_that_stays_keeps_none_of_the_others() {
        let base = tempfile::tempdir().unwrap();
        let [full, empty] = ["full", "empty"].map(|name| base.path().join(name));
        std::fs::create_dir_all(full.join("group")).unwrap();
        std::fs::create_dir(&empty).unwrap();
        remove_until(&[full.clone(), empty.clone()], Instant::now()).unwrap_err();
        assert!(full.exists() && !empty.exists());
    }

    #[test]
    fn freezing_says_where_nothing_can_be_frozen() {
        let group = tempfile::tempdir().unwrap();
        let groups = [group.path().to_owned()];
        assert_eq!(freeze(&groups, true).unwrap_err().kind(), io::ErrorKind::Unsupported);
        std::fs::write(group.path().join("cgroup.freeze"), "").unwrap();
        freeze(&groups, true).unwrap();
        assert_eq!(std::fs::read_to_string(group.path().join("cgroup.freeze")).unwrap(), "1");
    }
}
