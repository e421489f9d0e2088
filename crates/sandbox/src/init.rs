//! The first process of an environment: sets everything up, forks the runtime, and takes everything with it when it ends.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions};

use crate::confine::{self, At, Fault};
use crate::filter::{Filters, Kind};
use crate::layers::Layer;
use crate::line::{self, News, Word};
use crate::network::{self, Network};
use crate::spec::{Ground, Identity, Program, SPEC_BYTES_MAX, Spec};
use crate::{root, sys, usage};

/// A trial's runtime sends this before its details; a program that cannot be run is told without it.
const TRIED: u8 = b'+';
const FAULT: u8 = b'!';

/// The rest of this process's life. `outside`: who the server is; `life`: what ends with the helper; `network`: one that was
/// made ahead, if it is not to be in one of its own making.
pub fn run(
    spec: &Spec,
    filters: &Filters,
    outside: Identity,
    [life, line, output]: [OwnedFd; 3],
    network: Option<Network>,
) -> ! {
    let tell = |news: &News, fds: &[BorrowedFd<'_>]| {
        // A server that is gone needs no news.
        let _ = line::send(line.as_fd(), news, fds);
    };
    let status = match live(spec, filters, outside, [&life, &line], output, network, &tell) {
        Ok(()) => 0,
        Err(Fault { layer, what }) => {
            tell(&News::Failed { layer, what }, &[]);
            1
        }
    };
    sys::exit(status)
}

fn live(
    spec: &Spec,
    filters: &Filters,
    outside: Identity,
    [life, line]: [&OwnedFd; 2],
    output: OwnedFd,
    network: Option<Network>,
    tell: &dyn Fn(&News, &[BorrowedFd<'_>]),
) -> Result<(), Fault> {
    let ground = &spec.ground;
    let on = |layer| ground.layers.contains(&layer);
    // All others die with it in a namespace. Elsewhere it has to live long enough to end them.
    let dies_at_once = on(Layer::PidNamespace);
    if dies_at_once {
        die_with_parent()?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if on(Layer::Cgroup) {
        enter_cgroups(ground)?;
    }
    if on(Layer::UserNamespace) {
        confine::map_ids(outside, ground.identity)?;
    }
    if !on(Layer::PidNamespace) {
        // Orphans come here, and are found here.
        rustix::process::set_child_subreaper(Some(Pid::INIT)).at(None, "orphans cannot be taken in")?;
    }
    let listeners = match network {
        Some(network) => Some(network.enter()?),
        None if on(Layer::NetNamespace) => Some(network::listen()?),
        None => None,
    };
    if on(Layer::UtsNamespace) {
        rustix::system::sethostname(ground.hostname.as_bytes()).at(Layer::UtsNamespace, "no host name of its own")?;
    }
    let mut proc = None;
    let root = ground.root.as_ref().filter(|_| on(Layer::MountNamespace));
    if let Some(root) = root {
        root::lay(root, ground.identity, on(Layer::PidNamespace))?;
        if on(Layer::PidNamespace) {
            proc = Some(std::fs::File::open("proc").at(Layer::PidNamespace, "its /proc cannot be opened")?);
        }
    }
    {
        let mut fds = Vec::new();
        fds.extend(proc.iter().map(AsFd::as_fd));
        if let Some((runtime_api, s3)) = &listeners {
            fds.extend([runtime_api.as_fd(), s3.as_fd()]);
        }
        tell(&News::Ready { proc: proc.is_some(), listeners: listeners.is_some() }, &fds);
    }
    drop((proc, listeners));

    let ended = sys::children_end().at(None, "the end of children cannot be seen")?;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(None, "no pipe");
    let ((words, says), (orders, tells)) = (pipe()?, pipe()?);
    let init = rustix::process::getpid();
    let runtime = match sys::fork().at(None, "no process could be started")? {
        sys::Forked::Child => {
            drop((words, tells));
            let said = become_runtime(ground, filters, init, output, orders);
            let _ = std::fs::File::from(says).write_all(&said);
            sys::exit(127);
        }
        sys::Forked::Parent(pid, _) => pid,
    };
    let runtime = Pid::from_raw(runtime).ok_or_else(|| Fault::new(None, "the process has no ID"))?;
    drop((says, output, orders));
    let told;
    let program = match &spec.program {
        Some(program) => program,
        None => match wait_for_program([life, line, &words])? {
            Wait::Told(program) => {
                told = program;
                &told
            }
            Wait::Over => return Ok(()),
            Wait::Spoke => return Err(fault_in(words)),
        },
    };
    if on(Layer::Cgroup) {
        bound(program)?;
    }
    if let Some(root) = root {
        root::enter(root, program)?;
    }
    // One that is no more has said why.
    let _ = std::fs::File::from(tells).write_all(&line::text(program).at(None, "what is to be run")?);
    // From here on it needs nothing of what it had.
    if on(Layer::Capabilities) {
        confine::forget_capabilities()?;
    }
    if on(Layer::OwnUid) {
        confine::become_user(ground.identity)?;
    }
    if on(Layer::Capabilities) {
        confine::drop_capabilities()?;
    }
    rustix::thread::set_no_new_privs(true).at(None, "no_new_privs")?;
    // Both are undone by a change of the user.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(None, "prctl")?;
    if dies_at_once {
        die_with_parent()?;
    }

    let said = all_of(words)?;
    match said.split_first() {
        None => {
            // Ours to wait for, so its ID is nobody else's yet.
            let seen = rustix::process::pidfd_open(runtime, PidfdFlags::empty());
            let seen = seen.at(None, "the runtime's process cannot be seen")?;
            tell(&News::Started, &[seen.as_fd()]);
        }
        Some((&TRIED, details)) => {
            tell(&News::Tried { details: line::parse(details).at(None, "a trial's details")? }, &[]);
            return Ok(());
        }
        Some((&FAULT, fault)) => return Err(fault_of(fault)),
        Some(_) => {
            tell(&News::NoProgram(String::from_utf8_lossy(&said).into_owned()), &[]);
            return Ok(());
        }
    }
    let status = watch(ground, [life, line, &ended], runtime);
    if let Some(status) = status {
        tell(&News::Exited { status }, &[]);
    }
    if !on(Layer::PidNamespace) {
        end_descendants();
    }
    Ok(())
}

/// All that the runtime's process says before it runs the program.
fn all_of(words: OwnedFd) -> Result<Vec<u8>, Fault> {
    let mut said = Vec::new();
    let read = std::fs::File::from(words).take(64 * 1024).read_to_end(&mut said);
    read.at(None, "the runtime's process cannot be heard").map(|_| said)
}

fn fault_of(text: &[u8]) -> Fault {
    match line::parse(text) {
        Ok((layer, what)) => Fault { layer, what },
        Err(error) => Fault::new(None, format!("a fault: {error}")),
    }
}

/// Why the runtime's process ended before it was told anything.
fn fault_in(words: OwnedFd) -> Fault {
    match all_of(words) {
        Ok(said) if said.first() == Some(&FAULT) => fault_of(&said[1..]),
        Ok(_) => Fault::new(None, "the runtime's process ended before its time"),
        Err(fault) => fault,
    }
}

/// What an environment that was made ahead waits for.
enum Wait {
    Told(Box<Program>),
    /// The server is gone, or the helper.
    Over,
    /// The runtime's process has something to say, which can only be a fault.
    Spoke,
}

fn wait_for_program([life, line, words]: [&OwnedFd; 3]) -> Result<Wait, Fault> {
    loop {
        let mut fds = [line, words, life].map(|fd| PollFd::new(fd, PollFlags::IN));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).at(None, "nothing can be waited for"),
        }
        let [told, spoke, orphaned] = fds.map(|fd| !fd.revents().is_empty());
        if orphaned {
            return Ok(Wait::Over);
        }
        if spoke {
            return Ok(Wait::Spoke);
        }
        if told {
            let mut buffer = vec![0; SPEC_BYTES_MAX];
            return match line::receive(line.as_fd(), &mut buffer) {
                Ok((0, _)) => Ok(Wait::Over),
                Ok((length, _)) => {
                    Ok(Wait::Told(Box::new(line::parse(&buffer[..length]).at(None, "what is to be run")?)))
                }
                Err(error) => Err(error).at(None, "what is to be run cannot be heard"),
            };
        }
    }
}

/// Waits until the runtime has ended; `None` when the server is gone, or the helper.
fn watch(ground: &Ground, [life, line, ended]: [&OwnedFd; 3], runtime: Pid) -> Option<i32> {
    loop {
        let mut fds = [line, ended, life].map(|fd| PollFd::new(fd, PollFlags::IN));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        let [spoken, child, orphaned] = fds.map(|fd| !fd.revents().is_empty());
        if child {
            // One signal may stand for many children.
            while matches!(rustix::io::read(ended, &mut [0u8; 1024][..]), Ok(n) if n > 0) {}
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if pid == runtime {
                    return Some(status.as_raw());
                }
            }
        }
        if orphaned {
            return None;
        }
        if spoken {
            let mut buffer = [0; 256];
            match line::receive(line.as_fd(), &mut buffer) {
                Ok((0, _)) | Err(_) => return None,
                Ok((length, _)) => match line::parse(&buffer[..length]) {
                    Ok(Word::Terminate) => {
                        let _ = rustix::process::kill_process_group(runtime, Signal::TERM);
                    }
                    Ok(Word::Stop) => signal_all(ground, Signal::STOP),
                    Ok(Word::Continue) => signal_all(ground, Signal::CONT),
                    Err(_) => {}
                },
            }
        }
    }
}

fn signal_all(ground: &Ground, signal: Signal) {
    if ground.layers.contains(&Layer::PidNamespace) {
        return sys::kill_all(signal);
    }
    for pid in descendants() {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Kills all that descends from this process: what its parent left behind is a child of this one.
fn end_descendants() {
    // A fork between the look and the kill is found in the next round; a bomb of forks is bounded by its limits, and the
    // server looks again.
    for _ in 0..1000 {
        let found = descendants();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Blocks until one of them is gone, and takes along who else is.
        let mut options = WaitOptions::empty();
        while let Ok(Some(_)) = rustix::process::wait(options) {
            options = WaitOptions::NOHANG;
        }
    }
}

fn descendants() -> Vec<Pid> {
    usage::descendants(rustix::process::getpid())
}

fn die_with_parent() -> Result<(), Fault> {
    // A parent that died before this line leaves the line to the server closed as well, in time: `watch` sees that.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(None, "the parent-death signal")
}

/// Takes some ten milliseconds, in which nothing is worked at: whoever changes its group has to be sure that nobody forks
/// meanwhile, and the kernel waits for all cores to say so.
fn enter_cgroups(ground: &Ground) -> Result<(), Fault> {
    let layer = Layer::Cgroup;
    for path in &ground.cgroups {
        let named = |what: &str| format!("{what} {}", path.display());
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.at(layer, &named("cannot make"))?,
        }
        std::fs::write(path.join("cgroup.procs"), "0").at(layer, &named("cannot enter"))?;
    }
    Ok(())
}

/// Sets the groups' values, while the host's files show.
fn bound(program: &Program) -> Result<(), Fault> {
    for group in &program.cgroups {
        for (file, value, optional) in &group.values {
            match std::fs::write(group.path.join(file), value) {
                Err(_) if *optional => {}
                written => written.at(Layer::Cgroup, &format!("cannot set {file} in {}", group.path.display()))?,
            }
        }
    }
    Ok(())
}

/// Gives up what a function must not have, waits for the program, and becomes it. Returns only what is to be said of a failure,
/// or of a trial.
fn become_runtime(ground: &Ground, filters: &Filters, init: Pid, output: OwnedFd, orders: OwnedFd) -> Vec<u8> {
    let told = |first: u8, rest: serde_json::Result<Vec<u8>>| {
        let mut said = vec![first];
        said.extend(rest.unwrap_or_else(|_| b"[null,\"?\"]".to_vec()));
        said
    };
    let restricted = hand_over(ground, &output).and_then(|()| restrict(ground, filters, init));
    let ready = restricted.and_then(|details| {
        let Some(program) = program(orders)? else { sys::exit(0) };
        settle(ground, &program)?;
        Ok((details, program))
    });
    match ready {
        Ok((details, program)) if program.trial => told(TRIED, serde_json::to_vec(&details)),
        Ok((_, program)) => exec(&program, output).into_bytes(),
        Err(Fault { layer, what }) => told(FAULT, serde_json::to_vec(&(layer, what))),
    }
}

/// What has to be done for the function while there are the rights to do it.
fn hand_over(ground: &Ground, output: &OwnedFd) -> Result<(), Fault> {
    if ground.layers.contains(&Layer::Cgroup) {
        confine::be_ended_first();
    }
    // Functions open their output by its path, too, as `/dev/stdout`: then it matters whose the pipe is. A trial's output is
    // a device of the machine.
    let is_pipe =
        rustix::fs::fstat(output).is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_fifo());
    if ground.layers.contains(&Layer::OwnUid) && is_pipe {
        let (uid, gid) = (Uid::from_raw(ground.identity.uid), Gid::from_raw(ground.identity.gid));
        rustix::fs::fchown(output, Some(uid), Some(gid)).at(Layer::OwnUid, "the output cannot be handed over")?;
    }
    Ok(())
}

type Details = Vec<(Layer, String)>;

/// What is given up whichever the function is.
fn restrict(ground: &Ground, filters: &Filters, init: Pid) -> Result<Details, Fault> {
    let on = |layer| ground.layers.contains(&layer);
    let mut details = Details::new();
    sys::default_signals();
    // A session of its own: no terminal to write into, and one group for all its processes.
    rustix::process::setsid().at(None, "no session of its own")?;
    if on(Layer::Capabilities) {
        confine::forget_capabilities()?;
    }
    if on(Layer::OwnUid) {
        confine::become_user(ground.identity)?;
    }
    if on(Layer::Capabilities) {
        confine::drop_capabilities()?;
    }
    die_with_parent()?;
    if rustix::process::getppid() != Some(init) {
        return Err(Fault::new(None, "the environment's first process is gone"));
    }
    rustix::thread::set_no_new_privs(true).at(None, "no_new_privs")?;
    if on(Layer::Landlock) {
        // This process is in the folder that is to be its root, if it is to have one.
        let root = Path::new(if ground.root.is_some() && on(Layer::MountNamespace) { "." } else { "/" });
        details.push((Layer::Landlock, confine::lock(&ground.landlock, root)?));
    }
    // Some of them are still in use, but end with the program's beginning.
    sys::close_range(3, u32::MAX, true).at(None, "descriptors cannot be closed")?;
    if on(Layer::Seccomp) {
        let kind = Kind {
            streams_only: ground.streams_only,
            unix: on(Layer::MountNamespace),
            alone: on(Layer::PidNamespace) || on(Layer::OwnUid),
            bounded: on(Layer::Cgroup),
        };
        filters.apply(kind).map_err(|what| Fault::new(Layer::Seccomp, what))?;
    }
    Ok(details)
}

/// Waits for what is to be run. `None` where there never will be anything.
fn program(orders: OwnedFd) -> Result<Option<Program>, Fault> {
    let mut text = Vec::new();
    std::fs::File::from(orders).read_to_end(&mut text).at(None, "what is to be run cannot be heard")?;
    if text.is_empty() {
        return Ok(None);
    }
    line::parse(&text).at(None, "what is to be run").map(Some)
}

/// What is the function's own.
fn settle(ground: &Ground, program: &Program) -> Result<(), Fault> {
    let on = |layer| ground.layers.contains(&layer);
    if on(Layer::MountNamespace) && ground.root.is_some() {
        // It was moved there by its init, together with it.
        let of = |path: &str| rustix::fs::stat(path).at(Layer::MountNamespace, "the root cannot be looked at");
        let (root, here) = (of("/")?, of(".")?);
        if (root.st_dev, root.st_ino) != (here.st_dev, here.st_ino) {
            return Err(Fault::new(Layer::MountNamespace, "the root is still the host's"));
        }
    }
    std::env::set_current_dir(&program.working_dir).at(None, "the code's folder cannot be entered")?;
    if on(Layer::Rlimits) {
        confine::limit(program.limits)?;
    }
    if program.trial { prove(ground) } else { Ok(()) }
}

/// Looks whether what was put on holds.
fn prove(ground: &Ground) -> Result<(), Fault> {
    let on = |layer| ground.layers.contains(&layer);
    let must = |holds: bool, layer, what: &str| if holds { Ok(()) } else { Err(Fault::new(layer, what)) };
    let uid = rustix::process::geteuid().as_raw();
    if on(Layer::OwnUid) || on(Layer::UserNamespace) {
        let layer = if on(Layer::OwnUid) { Layer::OwnUid } else { Layer::UserNamespace };
        must(uid == ground.identity.uid, layer, "the user is still another one")?;
    }
    if on(Layer::Capabilities) {
        must(!confine::has_capabilities(), Layer::Capabilities, "there still are capabilities")?;
    }
    if on(Layer::Seccomp) {
        must(sys::clone3_is_hidden(), Layer::Seccomp, "the filter does nothing")?;
    }
    if on(Layer::PidNamespace) {
        must(rustix::process::getpid().as_raw_nonzero().get() < 10, Layer::PidNamespace, "it is not a new one")?;
    }
    if on(Layer::MountNamespace) {
        must(std::fs::write("/made", "").is_err(), Layer::MountNamespace, "the root can be written to")?;
        if let Some(root) = &ground.root {
            must(!root.on.exists(), Layer::MountNamespace, "the host's files show")?;
        }
    }
    for path in &ground.landlock.write {
        must(
            std::fs::write(path.join("trial"), "x").is_ok() && std::fs::remove_file(path.join("trial")).is_ok(),
            if on(Layer::MountNamespace) { Layer::MountNamespace } else { Layer::Landlock },
            "the folder for temporary files cannot be written to",
        )?;
    }
    Ok(())
}

/// Begins the message of a program that could not be started.
pub const EXEC_FAILED: &str = "fork/exec ";

fn exec(program: &Program, output: OwnedFd) -> String {
    let say = |reason: &str| format!("{EXEC_FAILED}{}: {reason}", program.program_shown);
    if !is_executable_format(&program.program) {
        return say("exec format error");
    }
    let Ok(output_too) = output.try_clone() else { return say("too many open files") };
    let mut command = Command::new(&program.program);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(&program.variables)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(output_too));
    let mut error = command.exec();
    // A program that was just unpacked may be "busy": a process that the server forked while it wrote the file holds
    // the file open for writing until its own `exec`. That is a matter of milliseconds, and nothing tells of its end.
    for _ in 0..100 {
        if error.raw_os_error() != Some(rustix::io::Errno::TXTBSY.raw_os_error()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        error = command.exec();
    }
    // In the words of Go, of which AWS's message is made.
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT) => say("no such file or directory"),
        Some(rustix::io::Errno::ACCESS) => say("permission denied"),
        Some(rustix::io::Errno::NOEXEC) => say("exec format error"),
        _ => say(&error.to_string()),
    }
}

/// Whether the kernel knows what to do with the file, as far as its beginning says. The C library would hand any other
/// file to a shell, line by line. A file that cannot be read is left to `exec`, which says why.
fn is_executable_format(program: &Path) -> bool {
    let mut magic = Vec::new();
    match std::fs::File::open(program).and_then(|file| file.take(4).read_to_end(&mut magic)) {
        Ok(_) => magic.starts_with(b"#!") || magic == b"\x7fELF",
        Err(_) => true,
    }
}
