//! What the processes of an environment use, as `/proc` tells it.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

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

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// In use now: what is the processes' own, without files and what several have together.
    pub own: u64,
    /// The sum of what each process had in memory at its highest, files included.
    pub peak: u64,
}

impl Processes {
    /// The memory of all processes but the environment's init.
    pub fn memory(&self) -> io::Result<Memory> {
        let mut sum = Memory::default();
        let mut add = |status: io::Result<String>| {
            // One that has ended since is in nobody's way.
            if let Ok(status) = status {
                let one = memory_of(&status);
                sum.own += one.own;
                sum.peak += one.peak;
            }
        };
        match self {
            Processes::Namespace(proc) => {
                for entry in rustix::fs::Dir::read_from(proc)? {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    if name == b"1" || !name.iter().all(u8::is_ascii_digit) {
                        continue;
                    }
                    let Ok(name) = std::str::from_utf8(name) else { continue };
                    add(read(proc, &format!("{name}/status")));
                }
            }
            Processes::Below(init) => {
                for pid in descendants(*init) {
                    add(std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())));
                }
            }
        }
        Ok(sum)
    }
}

fn read(proc: &OwnedFd, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc.as_fd(), path, flags, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).take(64 * 1024).read_to_string(&mut text)?;
    Ok(text)
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

/// The memory of a process by the text of its `/proc/PID/status`.
pub fn memory_of(status: &str) -> Memory {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let bytes = |name| kib(name).unwrap_or(0) * 1024;
    Memory { own: bytes("RssAnon:"), peak: bytes("VmHWM:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status_and_a_kernel_thread_has_none() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1500 kB\nRssAnon:\t    1024 kB\nRssFile:\t 476 kB\n";
        assert_eq!(memory_of(status), Memory { own: 1 << 20, peak: 2 << 20 });
        assert_eq!(memory_of("Name:\tkthreadd\n"), Memory::default());
    }
}
