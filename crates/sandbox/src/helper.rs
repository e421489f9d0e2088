//! The helper: a process of one thread that forks the environments, and the server's side of it.
//!
//! Namespaces are made and users changed between `fork` and `exec`, where a program with threads may do next to nothing; and
//! what is forked should be small. So the server starts its own program once more, with an empty environment and one socket,
//! and hands it one message an environment. The helper keeps nothing: what an environment has to say goes over a line of its
//! own. The helper ends with the server, and its environments with it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::SocketFlags;
use rustix::net::sockopt::Timeout;
use rustix::process::DumpableBehavior;

use crate::filter::Filters;
use crate::init;
use crate::layers::Layer;
use crate::line::{self, Line, News};
use crate::network::{Network, Store};
use crate::spec::{Identity, SPEC_BYTES_MAX, Spec};
use crate::sys;

/// Names of control groups that are kept before those that are gone are forgotten: some kilobytes, and a look that costs less than a
/// start.
const GROUPS_LOOKED_AT: usize = 64;

/// How the helper is called: the server's own program, as it runs (also if its file was replaced meanwhile).
#[derive(Debug, Clone)]
pub struct Command {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl Default for Command {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), arguments: vec![crate::HELPER_ARGUMENT.into()] }
    }
}

/// How long the helper may leave a message unread before it counts as hung. Between two messages it only forks.
const UNREAD_MAX: Duration = Duration::from_secs(5);
/// Helpers that hang and are kept for the sake of their environments. With one more the first goes, and those with it.
const HUNG_MAX: usize = 4;

/// The server's hold on the helper. A helper that died is replaced by the next start; the environments of the old one have
/// died with it. So is one that hangs, but its environments go on.
#[derive(Debug)]
pub struct Helper {
    command: Command,
    helpers: Mutex<Helpers>,
}

#[derive(Debug)]
struct Helpers {
    running: Option<Running>,
    /// How many there have been.
    generation: u64,
    hung: VecDeque<Running>,
}

#[derive(Debug)]
struct Running {
    /// Its end is the helper's.
    socket: OwnedFd,
    child: Child,
}

impl Helpers {
    fn start(&mut self, command: &Command) -> io::Result<&Running> {
        self.generation += 1;
        Ok(self.running.insert(Running::start(command)?))
    }

    fn set_hung_aside(&mut self) {
        if self.hung.len() >= HUNG_MAX {
            self.hung.pop_front();
        }
        self.hung.extend(self.running.take());
    }
}

impl Helper {
    /// Starts the helper.
    pub fn new(command: Command) -> io::Result<Self> {
        let mut helpers = Helpers { running: None, generation: 0, hung: VecDeque::new() };
        helpers.start(&command)?;
        Ok(Self { command, helpers: Mutex::new(helpers) })
    }

    /// Which helper starts environments now: another one has another number.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Whether the helper of this number still starts environments, and lives.
    pub fn is_alive(&self, generation: u64) -> bool {
        let mut helpers = self.lock();
        helpers.generation == generation
            && helpers.running.as_mut().is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// The helper of this number does not do what it was told: the next start has another one. Its environments go on, for
    /// they need nothing of it but that it lives.
    pub fn give_up(&self, generation: u64) {
        let mut helpers = self.lock();
        if helpers.generation == generation {
            helpers.set_hung_aside();
        }
    }

    /// Has an environment started. Its output goes to `output`; all else is told over the line. Blocks for as long as the
    /// helper needs for the messages before this one. A spec of more than [`SPEC_BYTES_MAX`] is an error.
    pub fn start(&self, spec: &Spec, output: BorrowedFd<'_>) -> io::Result<Line> {
        let spec = line::spec_text(spec)?;
        let (line, theirs) = Line::pair()?;
        let mut helpers = self.lock();
        for _ in 0..2 {
            let running = match &helpers.running {
                Some(running) => running,
                None => helpers.start(&self.command)?,
            };
            match line::send_text(running.socket.as_fd(), &spec, &[theirs.as_fd(), output]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    helpers.running = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => helpers.set_hung_aside(),
                Err(error) => return Err(error),
                Ok(()) => return Ok(line),
            }
        }
        Err(io::Error::new(io::ErrorKind::BrokenPipe, "the helper that starts environments ends at once"))
    }

    /// The helper's process ID, for a table and for tests.
    pub fn pid(&self) -> Option<u32> {
        self.lock().running.as_ref().map(|running| running.child.id())
    }

    fn lock(&self) -> MutexGuard<'_, Helpers> {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn start(command: &Command) -> io::Result<Self> {
        let (socket, theirs) = line::pair(SocketFlags::CLOEXEC)?;
        // The largest message has to fit.
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, 2 * SPEC_BYTES_MAX)?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(UNREAD_MAX))?;
        let child = std::process::Command::new(&command.program)
            .args(&command.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket, child })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be stopped or stuck; nobody needs it any more, and it has nothing to write.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The helper itself. Standard input is the socket. Never returns.
pub fn main() -> ! {
    sys::exit(match serve() {
        Ok(()) => 0,
        Err(_) => 125,
    })
}

fn serve() -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    {
        use std::os::fd::AsRawFd;
        let kept = socket.as_raw_fd() as u32;
        sys::close_range(3, kept - 1, false)?;
        sys::close_range(kept + 1, u32::MAX, false)?;
    }
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    // It was the server's environment that a launcher was seen to show through /proc/1/environ.
    if std::env::vars_os().next().is_some() {
        return Err(io::Error::other("the helper has to be started with an empty environment"));
    }
    // A group leader cannot have a new session; then it has one of its own already.
    let _ = rustix::process::setsid();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    sys::forget_children();
    let outside = Identity { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let filters = Filters::compile().map_err(io::Error::other)?;
    // Readable at its end, which is this process's.
    let (life, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut buffer = vec![0; 2 * SPEC_BYTES_MAX];
    // What a server that is killed could not take away any more. The server removes those of environments that end.
    let mut groups: Vec<PathBuf> = Vec::new();
    let mut networks = Store::new()?;
    loop {
        let (length, fds) = match line::receive(socket.as_fd(), &mut buffer) {
            // Its line is closed with the message, which tells the server; all other environments go on.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
            received => received?,
        };
        if length == 0 {
            // The environments end by themselves: their lines are closed, too.
            let _ = crate::cgroup::remove(&groups);
            return Ok(());
        }
        let mut fds = fds.into_iter();
        let (Some(line), Some(output)) = (fds.next(), fds.next()) else { continue };
        let spec: Spec = match line::parse(&buffer[..length]) {
            Ok(spec) => spec,
            Err(error) => {
                fail(&line, None, format!("the helper was not understood: {error}"));
                continue;
            }
        };
        // What belongs to a user namespace is made in it.
        let layers = &spec.ground.layers;
        let made_ahead = layers.contains(&Layer::NetNamespace) && !layers.contains(&Layer::UserNamespace);
        let network = if made_ahead { networks.take() } else { None };
        match sys::clone_into(namespaces(layers, network.as_ref())) {
            Ok(sys::Forked::Child) => {
                // Nothing of what the others have or will have.
                drop((socket, alive, networks));
                init::run(&spec, &filters, outside, [life, line, output], network)
            }
            Ok(sys::Forked::Parent(pid, pidfd)) => {
                drop(network);
                if groups.len() >= GROUPS_LOOKED_AT {
                    groups.retain(|group| group.exists());
                }
                groups.extend(spec.ground.cgroups.iter().cloned());
                let fds: Vec<BorrowedFd<'_>> = pidfd.iter().map(AsFd::as_fd).collect();
                // A server that hung up kills nobody: the init sees it, too.
                let _ = line::send(line.as_fd(), &News::Born { pid }, &fds);
                if made_ahead {
                    networks.fill();
                }
            }
            Err(error) => {
                let made: Vec<Layer> = layers.iter().copied().filter(|layer| layer.is_namespace()).collect();
                let layer = if let [one] = made[..] { Some(one) } else { None };
                fail(&line, layer, format!("clone: {error}"));
            }
        }
    }
}

fn fail(line: &OwnedFd, layer: Option<Layer>, what: String) {
    // A server that hung up does not ask.
    let _ = line::send(line.as_fd(), &News::Failed { layer, what }, &[]);
}

/// The namespaces that come with the process; a network that was made ahead does not.
fn namespaces(layers: &BTreeSet<Layer>, network: Option<&Network>) -> libc::c_int {
    layers.iter().fold(0, |flags, layer| {
        flags
            | match layer {
                Layer::UserNamespace => libc::CLONE_NEWUSER,
                Layer::MountNamespace => libc::CLONE_NEWNS,
                Layer::PidNamespace => libc::CLONE_NEWPID,
                Layer::NetNamespace if network.is_none() => libc::CLONE_NEWNET,
                Layer::IpcNamespace => libc::CLONE_NEWIPC,
                Layer::UtsNamespace => libc::CLONE_NEWUTS,
                _ => 0,
            }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::spec::{Ground, Landlock, Limits, Program};

    fn with(argument: String) -> Spec {
        let ground = Ground {
            layers: BTreeSet::new(),
            identity: Identity { uid: 1, gid: 1 },
            root: None,
            landlock: Landlock::default(),
            streams_only: false,
            cgroups: Vec::new(),
            hostname: String::new(),
        };
        let program = Program {
            binds: Vec::new(),
            tmp_bytes: 1,
            cgroups: Vec::new(),
            limits: Limits { open_files: 1, file_bytes: 1, processes: None },
            program: "/".into(),
            program_shown: String::new(),
            arguments: vec![argument],
            variables: BTreeMap::new(),
            working_dir: "/".into(),
            trial: true,
        };
        Spec { ground, program: Some(program) }
    }

    #[test]
    fn a_helper_that_reads_nothing_is_replaced_and_not_killed_and_only_once() {
        let null = std::fs::File::create("/dev/null").unwrap();
        let deaf = Command { program: "/bin/sleep".into(), arguments: vec!["1000".into()] };
        let helper = Helper::new(deaf).unwrap();
        let is_there = |pid: u32| std::path::Path::new(&format!("/proc/{pid}/stat")).exists();
        let (mut pids, first) = (vec![helper.pid().unwrap()], helper.generation());
        helper.start(&with("a".into()), null.as_fd()).unwrap();
        assert!(helper.is_alive(first));
        for round in 0..=HUNG_MAX {
            let generation = helper.generation();
            helper.give_up(generation);
            assert!(!helper.is_alive(generation));
            helper.start(&with("a".into()), null.as_fd()).unwrap();
            pids.push(helper.pid().unwrap());
            // One that was given up before is not given up again in place of its successor.
            helper.give_up(generation);
            assert_eq!(helper.pid(), pids.last().copied(), "{round}");
        }
        assert_eq!(pids.iter().filter(|pid| is_there(**pid)).count(), HUNG_MAX + 1);
        assert!(!is_there(pids[0]), "the first of too many goes");
        drop(helper);
        assert!(!pids.into_iter().any(is_there));
    }

    #[test]
    fn a_spec_that_no_message_holds_is_refused_before_the_helper_hears_of_it() {
        let null = std::fs::File::create("/dev/null").unwrap();
        let helper = Helper::new(Command { program: "/bin/cat".into(), arguments: Vec::new() }).unwrap();
        helper.start(&with("a".repeat(SPEC_BYTES_MAX / 2)), null.as_fd()).unwrap();
        let refused = helper.start(&with("a".repeat(SPEC_BYTES_MAX)), null.as_fd()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        // Characters that JSON writes in six count for six.
        let refused = helper.start(&with("\u{1}".repeat(SPEC_BYTES_MAX / 6)), null.as_fd()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
