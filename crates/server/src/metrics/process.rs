//! What the kernel says of this process, in `/proc/self`.

use std::sync::OnceLock;

/// Clock ticks a second in `/proc`: a part of the kernel's interface to programs, and 100 wherever this runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is known of this process; absent what cannot be read, in a container without `/proc`, say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub open_descriptors: Option<u64>,
    pub descriptors_max: Option<u64>,
    /// Since 1970.
    pub started_seconds: Option<f64>,
}

impl Process {
    /// Looks. Blocks: a listing of all descriptors is among it.
    pub fn look() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The listing has a descriptor of its own.
        let listed = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        Self {
            cpu_seconds: stat.map(|stat| stat.cpu_ticks as f64 / TICKS_PER_SECOND),
            resident_bytes: member(&status, "VmRSS").map(|kib| kib * 1_024),
            threads: member(&status, "Threads"),
            open_descriptors: listed.map(|count| count.saturating_sub(1)),
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            started_seconds: started(stat),
        }
    }
}

/// The moment of the start. Reckoned once: both clocks are read with it, and may drift apart.
fn started(stat: Option<Stat>) -> Option<f64> {
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
        let age = uptime - stat?.started_ticks as f64 / TICKS_PER_SECOND;
        Some(jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0 - age)
    })
}

/// Members of `/proc/self/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    started_ticks: u64,
}

/// A number of `/proc/self/status`, without its unit.
fn member(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold any.
        let members: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // proc(5) counts from 1, and the state behind the name is the third.
        let member = |number: usize| members.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: member(14)?.saturating_add(member(15)?), started_ticks: member(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_are_counted_from_behind_the_name() {
        let text =
            "7 (a) b (c)) S 1 7 7 0 -1 4194560 500 0 0 0 31 12 0 0 20 0 9 0 8600 12345678 2222 18446744073709551615";
        let wanted = Stat { cpu_ticks: 43, started_ticks: 8_600 };
        assert_eq!(Stat::parse(text), Some(wanted));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        let status = "Name:\tThreads: 3\nVmRSS:\t    8120 kB\nThreads:\t9\n";
        assert_eq!(["VmRSS", "Threads", "Vm"].map(|name| member(status, name)), [Some(8_120), Some(9), None]);
    }

    #[test]
    fn this_process_is_seen() {
        let seen = Process::look();
        assert!(seen.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{seen:?}");
        assert!(seen.open_descriptors.is_some_and(|count| count >= 3) && seen.threads.is_some_and(|count| count >= 1));
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!(seen.started_seconds.is_some_and(|at| at <= now + 1.0 && at > now - 86_400.0), "{seen:?}");
        assert_eq!(Process::look().started_seconds, seen.started_seconds);
    }
}
