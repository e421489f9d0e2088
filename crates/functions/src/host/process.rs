//! The processes of an environment: had started by the sandbox's helper, found and ended to the last one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use longshore_sandbox::usage::{Memory, Processes, Runnable, Times};
use longshore_sandbox::{Layer, Line, News, Program, Spec, Word, cgroup};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

use super::outcome::Failure;
use super::sandbox::{Lease, Sandbox};

/// The variable by which a function's processes are found again after the server died. Its value is random.
pub(super) const MARKER: &str = "LONGSHORE_ENVIRONMENT";
/// How long the end of processes that were killed is waited for.
const END: Duration = Duration::from_secs(2);
/// How long the helper may take to fork: it does nothing else, so one that takes longer hangs, and is replaced.
const BIRTH: Duration = Duration::from_secs(20);
/// How long the file system of an environment may take to be built. It is a matter of milliseconds; a folder on a server that
/// does not answer would keep its place for ever.
const BEGINNING: Duration = Duration::from_secs(60);

/// How processes of functions are bounded, besides what their deployment says.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Open files, soft and hard. Lambda's is 1,024.
    pub open_files: u64,
    /// Processes and threads of the *user*. `None`: Lambda's 1,024 where the user is the environment's own, else not bounded.
    pub processes: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { open_files: 1024, processes: None }
    }
}

/// What is to be started.
pub(super) enum Plan {
    Anew(Box<Anew>),
    /// The ground is laid, and this is to be run on it.
    Ahead(Box<Laid>, Box<Program>),
}

/// An environment of which there is nothing yet.
pub(super) struct Anew {
    pub spec: Spec,
    pub lease: Option<Lease>,
    /// The environment's own folder: `record.json` in it is ours.
    pub dir: PathBuf,
    /// A folder for temporary files outside of it.
    pub tmp: Option<PathBuf>,
    pub marker: String,
}

/// Why there is no process.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// The program is not there or cannot be run: the function's fault.
    Program(String),
    /// Ours: no process, no file, no pipe.
    Host(String),
    /// No room on the disk for what belongs to it.
    NoSpace(String),
}

/// An environment whose init is there, and whose program may not be known yet. What it waits with is watched only by the thread
/// that it is run on.
pub(super) struct Laid {
    pid: Pid,
    pidfd: OwnedFd,
    line: Line,
    early: VecDeque<(News, Vec<OwnedFd>)>,
    output: OwnedFd,
    listeners: Option<(TcpListener, TcpListener)>,
    processes: Processes,
    groups: Vec<PathBuf>,
    has_namespace: bool,
    helper: u64,
    lease: Option<Lease>,
    dir: PathBuf,
    marker: String,
}

/// An environment whose init is there, and whose program may not run yet.
pub(super) struct Starting {
    pub process: Process,
    pub child: Child,
    pub output: OwnedFd,
    /// Made inside it, where it has a network of its own: the Runtime API's, and S3's.
    pub listeners: Option<(TcpListener, TcpListener)>,
}

/// What can be done to an environment's processes from anywhere.
pub(super) struct Process {
    /// The init's, as the server sees it.
    pub pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// The program's, once it runs.
    runtime: OnceLock<OwnedFd>,
    line: Arc<AsyncFd<Line>>,
    processes: Processes,
    /// Opened when it is first asked for; `None` where that fails, as on a kernel that does not count.
    runnable: OnceLock<Option<Runnable>>,
    groups: Vec<PathBuf>,
    /// Whether all others end with the init.
    has_namespace: bool,
    /// The helper that forked it.
    helper: u64,
    /// Given back when nobody runs as this user any more.
    _lease: Option<Lease>,
}

/// The one who waits for the end.
pub(super) struct Child {
    line: Arc<AsyncFd<Line>>,
    /// What was said before its turn. Three at most: there is no more to say.
    early: VecDeque<(News, Vec<OwnedFd>)>,
    /// Once it is known: `None` for one that was not told.
    ended: Option<Option<ExitStatus>>,
}

/// Has an environment started.
pub(super) async fn start(sandbox: Arc<Sandbox>, plan: Plan) -> Result<Starting, NotStarted> {
    let laid = match plan {
        Plan::Anew(anew) => lay(sandbox, *anew).await?,
        Plan::Ahead(laid, program) => {
            if let Err(error) = laid.line.tell(&program) {
                laid.end().await;
                return Err(NotStarted::Host(format!("an environment could not be told its program: {error}")));
            }
            *laid
        }
    };
    laid.begin().map_err(|error| NotStarted::Host(format!("its line cannot be heard: {error}")))
}

/// Has the ground of an environment laid, and its program run where the spec has one. Its folder is made, and a record of it
/// written, before there is a process.
pub(super) async fn lay(sandbox: Arc<Sandbox>, anew: Anew) -> Result<Laid, NotStarted> {
    let groups = anew.spec.ground.cgroups.clone();
    let hung = || NotStarted::Host(format!("the sandbox was not there after {} s", BEGINNING.as_secs()));
    let begun = tokio::time::timeout(BEGINNING, first_process(sandbox, anew, groups.clone())).await;
    let started = begun.unwrap_or_else(|_| Err(hung()));
    if started.is_err() {
        // Its init has ended, or ends now that its line is closed.
        let removed = tokio::task::spawn_blocking(move || cgroup::remove(&groups)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "control groups of an environment that did not start could not be removed");
        }
    }
    started
}

async fn first_process(sandbox: Arc<Sandbox>, anew: Anew, groups: Vec<PathBuf>) -> Result<Laid, NotStarted> {
    let host = |what: &'static str| {
        move |error: io::Error| match Failure::of_io(what, &error) {
            Failure::NoSpace(told) => NotStarted::NoSpace(told),
            _ => NotStarted::Host(format!("{what}: {error}")),
        }
    };
    let Anew { spec, lease, dir, tmp, marker } = anew;
    let has_namespace = spec.ground.layers.contains(&Layer::PidNamespace);
    let record = Record {
        marker: marker.clone(),
        boot: boot_id(),
        pid: None,
        groups: groups.clone(),
        folders: tmp.into_iter().collect(),
    };
    let helper = sandbox.helper().generation();
    let started_by = sandbox.clone();
    let (record, line, output) = {
        let dir = dir.clone();
        let started = tokio::task::spawn_blocking(move || {
            // Before the process, so that none is ever without a record: the marker alone finds it.
            record.write(&dir).map_err(host("the environment's record could not be written"))?;
            let flags = rustix::pipe::PipeFlags::CLOEXEC;
            let (output, prints) = rustix::pipe::pipe_with(flags).map_err(|e| host("no pipe")(e.into()))?;
            let nonblocking = rustix::fs::fcntl_setfl(&output, rustix::fs::OFlags::NONBLOCK);
            nonblocking.map_err(|e| host("a pipe cannot be read")(e.into()))?;
            let line = sandbox.helper().start(&spec, prints.as_fd()).map_err(host("no process could be started"))?;
            Ok((record, line, output))
        });
        started.await.map_err(|_| NotStarted::Host("the start was broken off".into()))??
    };
    let line = watched(line).map_err(host("its line cannot be heard"))?;
    let (mut born, mut ready, mut early) = (None, None, VecDeque::new());
    // Both come, from two processes: what the init says after the one may come before the other.
    let birth = tokio::time::sleep(BIRTH);
    tokio::pin!(birth);
    while born.is_none() || ready.is_none() {
        let heard = tokio::select! {
            biased;
            heard = hear(&line) => heard,
            () = &mut birth, if born.is_none() => {
                tracing::error!("the helper that starts environments hangs, and is replaced");
                started_by.helper().give_up(helper);
                return Err(NotStarted::Host(format!("there was no process after {} s", BIRTH.as_secs())));
            }
        };
        match heard.map_err(host("its line cannot be heard"))? {
            Some((News::Born { pid }, fds)) => {
                born = Pid::from_raw(pid).zip(fds.into_iter().next());
                if born.is_none() {
                    return Err(NotStarted::Host("the process has no ID".into()));
                }
            }
            Some((News::Ready { proc, listeners }, fds)) => {
                let mut fds = fds.into_iter();
                let proc = if proc { fds.next() } else { None };
                let mut listener = || -> io::Result<TcpListener> {
                    let fd = fds.next().ok_or(io::ErrorKind::UnexpectedEof)?;
                    let listener = TcpListener::from(fd);
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                };
                let made = if listeners {
                    Some((listener().map_err(host("no listener"))?, listener().map_err(host("no listener"))?))
                } else {
                    None
                };
                ready = Some((proc, made));
            }
            Some((failed @ News::Failed { .. }, _)) => return Err(not_started(&failed)),
            Some(other) => early.push_back(other),
            None => return Err(NotStarted::Host("the environment's first process ended before its time".into())),
        }
    }
    let (Some((pid, pidfd)), Some((proc, listeners))) = (born, ready) else { unreachable!("the loop waited for both") };
    let known = started_at(pid);
    let written = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || Record { pid: known, ..record }.write(&dir)).await
    };
    written
        .map_err(|_| NotStarted::Host("the start was broken off".into()))?
        .map_err(host("the environment's record could not be written"))?;
    let processes = match proc {
        Some(proc) => Processes::Namespace(proc),
        None => Processes::Below(pid),
    };
    let line = line.into_inner();
    Ok(Laid {
        pid,
        pidfd,
        line,
        early,
        output,
        listeners,
        processes,
        groups,
        has_namespace,
        helper,
        lease,
        dir,
        marker,
    })
}

impl Laid {
    /// By what its folder is named, and its processes are found.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The user that is its own, if it has one.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Whether its init is there. An init whose runtime could not be set up has ended.
    pub fn is_alive(&self) -> bool {
        all_live([&self.pidfd])
    }

    /// Has it watched by this thread's runtime.
    fn begin(self) -> io::Result<Starting> {
        let Laid {
            pid, pidfd, line, early, output, listeners, processes, groups, has_namespace, helper, lease, ..
        } = self;
        let line = Arc::new(watched(line)?);
        let pidfd = watched(pidfd)?;
        let process = Process {
            pid,
            pidfd,
            runtime: OnceLock::new(),
            line: line.clone(),
            processes,
            runnable: OnceLock::new(),
            groups,
            has_namespace,
            helper,
            _lease: lease,
        };
        Ok(Starting { process, child: Child { line, early, ended: None }, output, listeners })
    }

    /// Ends one that is not needed, with its folder.
    pub async fn end(self) {
        let (marker, dir) = (self.marker.clone(), self.dir.clone());
        match self.begin() {
            Ok(starting) => starting.process.end(&marker, Vec::new()).await,
            // Its line is closed now, and it ends by that.
            Err(error) => tracing::warn!(%error, "an environment that was made ahead cannot be seen to its end"),
        }
        let removed = tokio::task::spawn_blocking(move || remove_dir(&dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "the folder of an environment that was made ahead could not be removed");
        }
    }
}

/// Whether none of these processes has ended. One system call, for it is asked on the way of a call.
fn all_live<const N: usize>(pidfds: [&OwnedFd; N]) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = pidfds.map(|pidfd| PollFd::new(pidfd, PollFlags::IN));
    !matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(n) if n > 0)
}

/// Waits for a descriptor with tokio.
#[expect(deprecated, reason = "what replaces it is unsafe to call; ours own their descriptors and keep them open")]
fn watched<T: AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(fd)
}

fn not_started(news: &News) -> NotStarted {
    match news {
        News::NoProgram(what) => NotStarted::Program(what.clone()),
        News::Failed { layer: Some(layer), what } => NotStarted::Host(format!("the sandbox failed at {layer}: {what}")),
        News::Failed { layer: None, what } => NotStarted::Host(what.clone()),
        other => NotStarted::Host(format!("the environment's first process said {other:?} out of turn")),
    }
}

async fn hear(line: &AsyncFd<Line>) -> io::Result<Option<(News, Vec<OwnedFd>)>> {
    loop {
        let mut guard = line.readable().await?;
        match guard.try_io(|line| line.get_ref().hear()) {
            Ok(heard) => return heard,
            Err(_not_yet) => {}
        }
    }
}

impl Child {
    async fn hear(&mut self) -> io::Result<Option<(News, Vec<OwnedFd>)>> {
        match self.early.pop_front() {
            Some(heard) => Ok(Some(heard)),
            None => hear(&self.line).await,
        }
    }

    /// Waits until the program runs, or it is told why it does not. With the pidfd of its process.
    pub async fn runs(&mut self) -> Result<OwnedFd, NotStarted> {
        match self.hear().await {
            Ok(Some((News::Started, fds))) => {
                let unseen = || NotStarted::Host("the runtime's process cannot be seen".into());
                fds.into_iter().next().ok_or_else(unseen)
            }
            Ok(Some((other, _))) => Err(not_started(&other)),
            Ok(None) => Err(NotStarted::Host("the environment's first process ended before its time".into())),
            Err(error) => Err(NotStarted::Host(format!("its line cannot be heard: {error}"))),
        }
    }

    /// Waits for the end of the runtime. `None` where nobody can tell how it ended: then its init was killed, or the helper.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = match self.hear().await {
            Ok(Some((News::Exited { status }, _))) => Some(ExitStatus::from_raw(status)),
            _ => None,
        };
        self.ended = Some(ended);
        ended
    }

    /// Whether the runtime's end was heard of.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }
}

impl Process {
    /// The program runs, as this process.
    pub fn runs(&self, runtime: OwnedFd) {
        // It starts once.
        let _ = self.runtime.set(runtime);
    }

    /// Whether the environment still has its init, and its runtime if that runs already. Of a runtime's end the init tells
    /// a moment later, and a call must not be given away in that moment.
    pub fn is_alive(&self) -> bool {
        let init = self.pidfd.get_ref();
        match self.runtime.get() {
            Some(runtime) => all_live([init, runtime]),
            None => all_live([init]),
        }
    }

    /// Whether its own programs may have ended its init, which went without a word: nobody keeps them from it outside of a
    /// namespace, and the helper, whose end is its init's as well, lives.
    pub fn may_have_ended_itself(&self, sandbox: &Sandbox) -> bool {
        !self.has_namespace && sandbox.helper().is_alive(self.helper)
    }

    /// Asks the runtime to end.
    pub fn terminate(&self) {
        // What cannot be said is not heard: then it is killed.
        let _ = self.thaw();
        let _ = self.line.get_ref().say(Word::Terminate);
    }

    /// Stops all processes of the environment where they are, until [`Process::thaw`]. Takes effect at once, and costs some ten
    /// microseconds.
    pub fn freeze(&self) -> io::Result<()> {
        match cgroup::freeze(&self.groups, true) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.line.get_ref().say(Word::Stop),
            other => other,
        }
    }

    /// Lets them go on. Harmless where they were not frozen.
    pub fn thaw(&self) -> io::Result<()> {
        match cgroup::freeze(&self.groups, false) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.line.get_ref().say(Word::Continue),
            other => other,
        }
    }

    /// Whether its processes have more memory of their own than so many bytes. What forked processes still have in common
    /// counts once. Memory that they share on purpose is bounded by a control group, and without one counts as far as it is
    /// more than `tmp_bytes`: files of `/tmp` that are mapped look the same.
    pub fn uses_more_than(&self, bytes: u64, tmp_bytes: u64) -> bool {
        let counts =
            |own: u64, shared: u64| own + if self.groups.is_empty() { shared.saturating_sub(tmp_bytes) } else { 0 };
        // The cheap sum counts it for each of them, and is too much rather than too little.
        self.processes.memory().is_ok_and(|memory| counts(memory.own, memory.shared) > bytes)
            && cgroup::own_memory(&self.groups)
                .or_else(|| self.processes.shares().ok().map(|(own, shared)| counts(own, shared)))
                .is_none_or(|used| used > bytes)
    }

    /// What its processes use now.
    pub fn memory(&self) -> io::Result<Memory> {
        self.processes.memory()
    }

    /// How long its runtime has had a processor, and waited for one; `None` where nobody can tell.
    pub fn times(&self) -> Option<Times> {
        self.runnable.get_or_init(|| self.processes.runnable().ok()).as_ref()?.times().ok()
    }

    /// The processes that its end would not reach by itself, each by its ID and start.
    pub async fn members(&self, marker: &str) -> Vec<(i32, u64)> {
        if self.has_namespace {
            return Vec::new();
        }
        let (known, marker) = (started_at(self.pid), marker.to_owned());
        tokio::task::spawn_blocking(move || members(known, &marker)).await.unwrap_or_default()
    }

    /// Kills every process of the environment, and those of `also` with their descendants, waits for their end, and takes its
    /// control groups away.
    pub async fn end(&self, marker: &str, also: Vec<(i32, u64)>) {
        let _ = self.thaw();
        if !self.has_namespace {
            // It ends what descends from it when the server hangs up, and does so better than anybody from outside.
            let _ = rustix::net::shutdown(self.line.get_ref(), rustix::net::Shutdown::Both);
            let _ = tokio::time::timeout(END, self.pidfd.readable()).await;
        }
        let known = started_at(self.pid);
        // In a namespace all others are killed with it, and gone before it is.
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        // Its end is certain but not its moment: a process in an uninterruptible wait stays until that is over.
        let _ = tokio::time::timeout(END, self.pidfd.readable()).await;
        let (has_namespace, marker, groups) = (self.has_namespace, marker.to_owned(), self.groups.clone());
        let rest = tokio::task::spawn_blocking(move || {
            if !has_namespace {
                kill_all(known, &marker, &also);
            }
            cgroup::remove(&groups)
        });
        if let Ok(Err(error)) = rest.await {
            tracing::warn!(%error, "an environment's control groups could not be removed");
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).field("line", &self.line.as_raw_fd()).finish_non_exhaustive()
    }
}

/// What is known on disk of an environment's processes, for the next server after a crash of this one.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Record {
    marker: String,
    /// The kernel's name for this boot: process IDs of another one mean nothing.
    boot: String,
    /// The process of its init and when it was started (clock ticks after boot).
    pid: Option<(i32, u64)>,
    /// Its control groups.
    #[serde(default)]
    groups: Vec<PathBuf>,
    /// What else is to be removed with it.
    #[serde(default)]
    folders: Vec<PathBuf>,
}

impl Record {
    fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
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
fn members(leader: Option<(i32, u64)>, marker: &str) -> Vec<(i32, u64)> {
    let all = all_processes();
    belonging(&all, leader, marker).into_iter().map(|pid| (pid, all[&pid].started)).collect()
}

/// Kills every process of an environment, and those of `also` with their descendants, and waits for their end, for up
/// to two seconds. Returns how many it killed. Blocking.
fn kill_all(leader: Option<(i32, u64)>, marker: &str, also: &[(i32, u64)]) -> usize {
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
fn started_at(pid: Pid) -> Option<(i32, u64)> {
    let raw = pid.as_raw_nonzero().get();
    Some((raw, stat(raw)?.started))
}

/// Writes down a folder that is to be removed if this server dies.
pub(super) fn record_folder(environments_dir: &Path, folder: &Path) -> io::Result<()> {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    let record = Record {
        marker: uuid::Uuid::new_v4().simple().to_string(),
        boot: boot_id(),
        pid: None,
        groups: Vec::new(),
        folders: vec![folder.to_owned()],
    };
    record.write(&environments_dir.join(name))
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
            // What was in them is dead or dies; that the kernel still keeps one is no reason not to start.
            if let Err(error) = cgroup::remove(&record.groups) {
                tracing::warn!(%error, "control groups of an earlier server could not be removed");
            }
            for folder in &record.folders {
                remove_dir(folder)?;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_that_stays_keeps_no_server_from_starting() {
        let temp = tempfile::tempdir().unwrap();
        let (environments, group, folder) =
            (temp.path().join("environments"), temp.path().join("group"), temp.path().join("folder"));
        std::fs::create_dir_all(group.join("not empty")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let record = Record {
            marker: uuid::Uuid::new_v4().simple().to_string(),
            boot: boot_id(),
            pid: None,
            groups: vec![group.clone()],
            folders: vec![folder.clone()],
        };
        record.write(&environments.join("one")).unwrap();
        assert_eq!(clear_leftovers(&environments).unwrap(), 0);
        assert!(group.exists() && !folder.exists() && !environments.join("one").exists());
    }
}
