//! Processes of functions: started from one thread, found and ended to the last one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::launch::{self, Bounds};

/// The variable by which a function's processes are found again after the server died. Its value is random.
pub(super) const MARKER: &str = "LONGSHORE_ENVIRONMENT";

/// How the launcher is called: the server's own program, as it runs (also if its file was replaced meanwhile).
#[derive(Debug, Clone)]
pub struct Launcher {
    pub program: PathBuf,
    /// What stands before the launcher's own arguments.
    pub arguments: Vec<String>,
}

impl Default for Launcher {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), arguments: vec!["__launch".into()] }
    }
}

/// What is to be started.
#[derive(Debug)]
pub(super) struct Plan {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub variables: BTreeMap<String, String>,
    pub working_dir: PathBuf,
    /// The environment's own folder, made before the start: `tmp/` in it is the function's, `record.json` ours.
    pub dir: PathBuf,
    pub marker: String,
    pub bounds: Bounds,
}

/// A process that became the program.
#[derive(Debug)]
pub(super) struct Started {
    pub child: tokio::process::Child,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Standard output and error, in the order they were written; reading does not block.
    pub output: OwnedFd,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// The program is not there or cannot be run: the function's fault.
    Program(String),
    /// Ours: no process, no file, no pipe.
    Host(String),
}

/// The started process, and the pipe on which the launcher says why the program could not be started.
type Forked = (Started, OwnedFd);
type Request = (Plan, oneshot::Sender<Result<Forked, NotStarted>>);

/// The thread that starts processes. The parent-death signal is sent when the *thread* that forked ends, so this one
/// lives as long as the host, and its end is the end of every function's process.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    pub fn new(launcher: Launcher, runtime: tokio::runtime::Handle) -> io::Result<Self> {
        // Unbounded by itself; the pool lets no more than `starts_at_once` wait here.
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::Builder::new().name("longshore-spawn".into()).spawn(move || {
            let _in_runtime = runtime.enter();
            for (plan, answer) in inbox {
                // A start that nobody waits for any more ends with its dropped child: `kill_on_drop`.
                let _ = answer.send(start(&launcher, plan));
            }
        })?;
        Ok(Self { requests })
    }

    pub async fn start(&self, plan: Plan) -> Result<Started, NotStarted> {
        let (answer, started) = oneshot::channel();
        let gone = || NotStarted::Host("the thread that starts processes is gone".into());
        self.requests.send((plan, answer)).map_err(|_| gone())?;
        let (process, said) = started.await.map_err(|_| gone())??;
        // Ends with the `exec`, or with the launcher's words why there is none.
        let deaf = |error: io::Error| NotStarted::Host(format!("the launcher cannot be heard: {error}"));
        let mut words = String::new();
        let said = tokio::net::unix::pipe::Receiver::from_owned_fd(said).map_err(deaf)?;
        said.take(4096).read_to_string(&mut words).await.map_err(deaf)?;
        if words.starts_with(launch::EXEC_FAILED) {
            return Err(NotStarted::Program(words));
        }
        if !words.is_empty() {
            return Err(NotStarted::Host(words));
        }
        Ok(process)
    }
}

fn start(launcher: &Launcher, plan: Plan) -> Result<Forked, NotStarted> {
    let host = |what: &'static str| move |error: io::Error| NotStarted::Host(format!("{what}: {error}"));
    let pipe = |flags| rustix::pipe::pipe_with(flags | rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
    let (said, says) = pipe(rustix::pipe::PipeFlags::empty()).map_err(host("no pipe"))?;
    let (output, prints) = pipe(rustix::pipe::PipeFlags::empty()).map_err(host("no pipe"))?;
    let prints_too = prints.try_clone().map_err(host("no pipe"))?;
    let folder = || -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(plan.dir.join("tmp"))?;
        // Before the process, so that none is ever without a record: the marker alone finds it.
        Record { marker: plan.marker.clone(), boot: boot_id(), pid: None }.write(&plan.dir)
    };
    folder().map_err(host("the environment's folder could not be made"))?;
    let mut command = tokio::process::Command::new(&launcher.program);
    command
        .args(&launcher.arguments)
        .args(launch::arguments(std::process::id(), plan.bounds))
        .arg(&plan.program)
        .args(&plan.arguments)
        .env_clear()
        .envs(&plan.variables)
        .env(MARKER, &plan.marker)
        .current_dir(&plan.working_dir)
        .stdin(Stdio::from(says))
        .stdout(Stdio::from(prints))
        .stderr(Stdio::from(prints_too))
        .kill_on_drop(true);
    let child = command.spawn().map_err(host("no process could be started"))?;
    // The command holds our copies of the pipes' ends; with them open, their ends would never be seen.
    drop(command);
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| NotStarted::Host("the process has no ID".into()))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| host("no pidfd")(e.into()))?;
    let started = stat(pid.as_raw_nonzero().get()).map(|s| s.started);
    let record =
        Record { marker: plan.marker, boot: boot_id(), pid: started.map(|at| (pid.as_raw_nonzero().get(), at)) };
    record.write(&plan.dir).map_err(host("the environment's record could not be written"))?;
    for fd in [&said, &output] {
        let nonblocking = rustix::fs::fcntl_setfl(fd, rustix::fs::OFlags::NONBLOCK);
        nonblocking.map_err(|e| host("a pipe cannot be read")(e.into()))?;
    }
    Ok((Started { child, pid, pidfd, output }, said))
}

/// Stops the processes of a session's group, until [`thaw`] or SIGKILL. Whether they were. What has left the group goes
/// on.
pub(super) fn freeze(leader: Pid) -> bool {
    rustix::process::kill_process_group(leader, Signal::STOP).is_ok()
}

/// Lets the processes of a session's group go on.
pub(super) fn thaw(leader: Pid) {
    // A group that is gone needs it no more.
    let _ = rustix::process::kill_process_group(leader, Signal::CONT);
}

/// Whether the process still runs (a zombie does not).
pub(super) fn is_alive(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(n) if n > 0)
}

/// What is known on disk of an environment's processes, for the next server after a crash of this one.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Record {
    marker: String,
    /// The kernel's name for this boot: process IDs of another one mean nothing.
    boot: String,
    /// The runtime's process and when it was started (clock ticks after boot).
    pid: Option<(i32, u64)>,
}

impl Record {
    fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::write(dir.join("record.json"), serde_json::to_vec(self)?)
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// One line of `/proc/PID/stat`, the part that matters.
#[derive(Debug, Clone, Copy)]
struct Stat {
    state: u8,
    parent: i32,
    group: i32,
    session: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let line = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too: fields count from the last one.
    let rest = std::str::from_utf8(&line[line.iter().rposition(|b| *b == b')')? + 2..]).ok()?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

fn all_processes() -> HashMap<i32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| !matches!(stat.state, b'Z' | b'X')).collect()
}

fn has_marker(pid: i32, marker: &str) -> bool {
    let Ok(variables) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARKER}={marker}");
    variables.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes())
}

/// The processes of an environment among `all`: those that carry its marker, those of its session or group, and their
/// descendants. `leader` is the runtime's process ID and start; a process that has the ID but another start is a
/// stranger, and then session and group of that ID are strangers too.
fn belonging(all: &HashMap<i32, Stat>, leader: Option<(i32, u64)>, marker: &str) -> HashSet<i32> {
    let leader = leader.filter(|(pid, started)| all.get(pid).is_none_or(|stat| stat.started == *started));
    let own = std::process::id() as i32;
    let mut found: HashSet<i32> = all
        .iter()
        .filter(|(pid, stat)| {
            leader.is_some_and(|(id, started)| {
                stat.started >= started && (**pid == id || stat.session == id || stat.group == id)
            }) || has_marker(**pid, marker)
        })
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, s)| found.contains(&s.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.remove(&own);
    found
}

/// The processes of an environment, each by its ID and start. Blocking.
pub(super) fn members(leader: Option<(i32, u64)>, marker: &str) -> Vec<(i32, u64)> {
    let all = all_processes();
    belonging(&all, leader, marker).into_iter().map(|pid| (pid, all[&pid].started)).collect()
}

/// Kills every process of an environment, and those of `also` with their descendants, and waits for their end, for up
/// to two seconds. Returns how many it killed. Blocking.
pub(super) fn kill_all(leader: Option<(i32, u64)>, marker: &str, also: &[(i32, u64)]) -> usize {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut killed = HashSet::new();
    loop {
        let all = all_processes();
        let mut found = belonging(&all, leader, marker);
        for known in also.iter().filter(|(pid, started)| all.get(pid).is_some_and(|stat| stat.started == *started)) {
            found.extend(belonging(&all, Some(*known), marker));
        }
        if found.is_empty() || Instant::now() >= deadline {
            return killed.len();
        }
        let mut ending = Vec::new();
        for pid in found {
            // Pinned first, then looked at again: what is killed is what was found, whoever has the ID by now.
            let Some(raw) = Pid::from_raw(pid) else { continue };
            let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else { continue };
            if stat(pid).is_some_and(|now| now.started == all[&pid].started)
                && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
            {
                killed.insert(pid);
                ending.push(pidfd);
            }
        }
        for pidfd in ending {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            // Its end, or the deadline: the next round looks again either way.
            let _ = rustix::event::poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], Some(&left));
        }
    }
}

/// The start of a process by its ID, for [`kill_all`].
pub(super) fn started_at(pid: Pid) -> Option<(i32, u64)> {
    let raw = pid.as_raw_nonzero().get();
    Some((raw, stat(raw)?.started))
}

/// Ends what a server that died left behind: processes and folders of its environments. Blocking; called before the
/// first environment is started. Returns how many processes were still there.
pub(super) fn clear_leftovers(environments_dir: &Path) -> io::Result<usize> {
    let mut killed = 0;
    let entries = match std::fs::read_dir(environments_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let boot = boot_id();
    for entry in entries {
        let dir = entry?.path();
        // A record cut short by the crash names nobody: then no process was started, or it died with the server.
        let record = std::fs::read(dir.join("record.json")).ok();
        if let Some(record) = record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
            && record.boot == boot
        {
            killed += kill_all(record.pid, &record.marker, &[]);
        }
        remove_dir(&dir)?;
    }
    Ok(killed)
}

/// Removes an environment's folder with all that a function may have put there, unreadable folders too.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(dir);
            std::fs::remove_dir_all(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // What stays closed makes the second removal fail with the reason.
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            open_up(&entry.path());
        }
    }
}
