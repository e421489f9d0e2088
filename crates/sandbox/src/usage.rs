//! What the processes of an environment use, as `/proc` tells it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

/// The processes of one environment.
#[derive(Debug)]
pub enum Processes {
    /// Those that the `/proc` of its PID namespace shows. Works from outside, for any user.
    Namespace(OwnedFd),
    /// Those that descend from its init.
    Below(Pid),
}

/// Memory of several processes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// The sum of what is in use now and is no file; what forked processes have in common counts for each.
    pub own: u64,
    /// The sum of what processes could share and is in nobody's file, or in one in memory, as those of `/tmp` are.
    pub shared: u64,
    /// The sum of all that is in use now, files included.
    pub resident: u64,
    /// What the largest of them had at its highest, files included.
    pub highest: u64,
}

impl Memory {
    /// The figure for people: what there was at the highest, as far as it can be told afterwards.
    pub fn used(&self) -> u64 {
        self.highest.max(self.resident)
    }

    fn add(&mut self, one: Memory) {
        self.own += one.own;
        self.shared += one.shared;
        self.resident += one.resident;
        self.highest = self.highest.max(one.highest);
    }
}

/// What tells how long the runtime of one environment has had a processor, or waited for one.
#[derive(Debug)]
pub struct Runnable {
    file: File,
}

/// Time of a runtime in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// On a processor.
    pub cpu_ns: u64,
    /// On a processor, or in a queue for one.
    pub runnable_ns: u64,
}

impl Runnable {
    /// Of its first thread since it began. `Err` once it has ended, or where the kernel does not count.
    /// Source: the kernel's Documentation/scheduler/sched-stats.rst, `/proc/PID/schedstat`.
    pub fn times(&self) -> io::Result<Times> {
        // Three numbers of 20 digits at most.
        let mut text = [0; 64];
        let length = self.file.read_at(&mut text, 0)?;
        times_of(&text[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The first two of the numbers: time on a processor, and time in a queue for one.
fn times_of(schedstat: &[u8]) -> Option<Times> {
    let mut numbers = std::str::from_utf8(schedstat).ok()?.split_ascii_whitespace();
    let mut number = || numbers.next()?.parse::<u64>().ok();
    let cpu_ns = number()?;
    Some(Times { cpu_ns, runnable_ns: cpu_ns.checked_add(number()?)? })
}

impl Processes {
    /// Opens what tells of the runtime: the first process that the environment's init started.
    pub fn runnable(&self) -> io::Result<Runnable> {
        let file = match self {
            Processes::Namespace(proc) => {
                let names = rustix::fs::Dir::read_from(proc)?.filter_map(Result::ok);
                let pids = names.filter_map(|entry| entry.file_name().to_str().ok()?.parse::<u32>().ok());
                let runtime = pids.filter(|pid| *pid != 1).min().ok_or(io::ErrorKind::NotFound)?;
                open(proc, &format!("{runtime}/schedstat"))?
            }
            Processes::Below(init) => {
                let init = init.as_raw_nonzero();
                let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
                let runtime = children.split_ascii_whitespace().next().ok_or(io::ErrorKind::NotFound)?;
                File::open(format!("/proc/{runtime}/schedstat"))?
            }
        };
        Ok(Runnable { file })
    }

    /// The memory of all processes but the environment's init.
    pub fn memory(&self) -> io::Result<Memory> {
        let mut sum = Memory::default();
        self.each(|read| {
            // One that has ended since is in nobody's way.
            if let Ok(status) = read("status") {
                sum.add(memory_of(&status));
            }
        })?;
        Ok(sum)
    }

    /// Own and shared memory as in [`Processes::memory`], where what several processes have in common counts once. Costs a walk
    /// over all pages. Of a process that lets nobody look at them all counts that it has: whoever hides memory must not have
    /// more of it for that.
    pub fn shares(&self) -> io::Result<(u64, u64)> {
        let (mut own, mut shared) = (0, 0);
        self.each(|read| {
            if let Ok(text) = read("smaps_rollup") {
                own += bytes_of(&text, "Pss_Anon:");
                shared += bytes_of(&text, "Pss_Shmem:");
            } else if let Ok(status) = read("status") {
                let all = memory_of(&status);
                own += all.own;
                shared += all.shared;
            }
        })?;
        Ok((own, shared))
    }

    /// Calls `take` for each process, with what reads one of its files.
    fn each(&self, mut take: impl FnMut(&dyn Fn(&str) -> io::Result<String>)) -> io::Result<()> {
        match self {
            Processes::Namespace(proc) => {
                for entry in rustix::fs::Dir::read_from(proc)? {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    if name == b"1" || !name.iter().all(u8::is_ascii_digit) {
                        continue;
                    }
                    let Ok(name) = std::str::from_utf8(name) else { continue };
                    take(&|file| read(proc, &format!("{name}/{file}")));
                }
            }
            Processes::Below(init) => {
                for pid in descendants(*init) {
                    take(&|file| std::fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero())));
                }
            }
        }
        Ok(())
    }
}

fn read(proc: &OwnedFd, path: &str) -> io::Result<String> {
    let mut text = String::new();
    open(proc, path)?.take(64 * 1024).read_to_string(&mut text)?;
    Ok(text)
}

fn open(proc: &OwnedFd, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(proc.as_fd(), path, flags, Mode::empty())?.into())
}

/// All that descends from a process.
pub fn descendants(from: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut look = vec![from];
    while let Some(pid) = look.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                found.push(child);
                look.push(child);
            }
        }
    }
    found
}

/// Processes and threads that a user has now, in this PID namespace.
pub fn tasks_of(uid: u32) -> u64 {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    let number = |status: &str, name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
    };
    let of_user = statuses.filter(|status| number(status, "Uid:") == Some(u64::from(uid)));
    of_user.filter_map(|status| number(&status, "Threads:")).sum()
}

/// The memory of a process by the text of its `/proc/PID/status`.
fn memory_of(status: &str) -> Memory {
    let of = |name| bytes_of(status, name);
    Memory { own: of("RssAnon:"), shared: of("RssShmem:"), resident: of("VmRSS:"), highest: of("VmHWM:") }
}

fn bytes_of(text: &str, name: &str) -> u64 {
    let kib = || {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    kib().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_threads_are_among_those_of_its_user() {
        let uid = rustix::process::geteuid().as_raw();
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count() as u64;
        assert!(tasks_of(uid) >= threads && threads >= 1);
        assert_eq!(tasks_of(4_000_000_000), 0);
    }

    #[test]
    fn a_runtime_is_the_first_process_beside_the_init_and_its_time_counts_on_a_processor_and_before_one() {
        let proc = tempfile::tempdir().unwrap();
        let times = [("1", "9 9 9\n"), ("12", "7 7 7\n"), ("2", "1000 234 5\n"), ("self", "6 6 6\n")];
        for (pid, text) in times {
            std::fs::create_dir_all(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("schedstat"), text).unwrap();
        }
        let processes = Processes::Namespace(std::fs::File::open(proc.path()).unwrap().into());
        let runnable = processes.runnable().unwrap();
        assert_eq!(runnable.times().unwrap(), Times { cpu_ns: 1_000, runnable_ns: 1_234 });
        std::fs::write(proc.path().join("2/schedstat"), "2000 500 6\n").unwrap();
        assert_eq!(runnable.times().unwrap(), Times { cpu_ns: 2_000, runnable_ns: 2_500 }, "it is read anew");
        for other in ["", "5", "5 x 1", "99999999999999999999 1 1", "18446744073709551615 1 1"] {
            assert_eq!(times_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn memory_that_a_process_lets_nobody_look_at_counts_in_full() {
        let proc = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = proc.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let status = "RssAnon:\t 1024 kB\nRssShmem:\t 30 kB\n";
        file("1/status", status);
        file("2/status", status);
        file("2/smaps_rollup", "Pss_Anon:  512 kB\nPss_Shmem:  10 kB\n");
        let processes = Processes::Namespace(std::fs::File::open(proc.path()).unwrap().into());
        assert_eq!(processes.shares().unwrap(), (512 << 10, 10 << 10), "without the init");
        file("3/status", status);
        assert_eq!(processes.shares().unwrap(), (1536 << 10, 40 << 10));
        let memory = processes.memory().unwrap();
        assert_eq!((memory.own, memory.shared), (2048 << 10, 60 << 10));
    }

    #[test]
    fn memory_is_read_from_the_status_and_a_kernel_thread_has_none() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1500 kB\nRssAnon:\t    1024 kB\nRssFile:\t 446 kB\nRssShmem:\t  30 kB\n";
        let one = memory_of(status);
        assert_eq!(one, Memory { own: 1 << 20, shared: 30 << 10, resident: 1500 << 10, highest: 2 << 20 });
        let mut sum = memory_of("Name:\tkthreadd\n");
        assert_eq!(sum, Memory::default());
        sum.add(one);
        assert_eq!(sum.used(), 2 << 20);
        sum.add(one);
        assert_eq!((sum.used(), sum.own), (3000 << 10, 2 << 20));
    }
}
