//! The launcher: a process of one thread between the server and a runtime.
//!
//! What a function's process must be (a session of its own, bounded, dead when the server is dead) has to be set up
//! between `fork` and `exec`, where a program with threads may do next to nothing. So the server starts itself again as
//! `longshore __launch …`; that process sets itself up at leisure and then becomes the runtime. Its environment is
//! already the function's.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// How a launched process is bounded. Bytes and counts.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Open files, soft and hard. Lambda's is 1,024.
    pub open_files: u64,
    /// The largest file the function may write. Lambda bounds all of `/tmp` by 512 MB; without a file system of its own
    /// this is the nearest.
    pub file_bytes: u64,
    /// Processes and threads of the *user*, so only for a user that runs nothing else. `None`: not bounded.
    pub processes: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { open_files: 1024, file_bytes: 512 * 1024 * 1024, processes: None }
    }
}

/// The arguments behind `__launch` for a program: what [`main`] reads.
pub(super) fn arguments(server: u32, bounds: Bounds) -> Vec<String> {
    vec![
        server.to_string(),
        bounds.open_files.to_string(),
        bounds.file_bytes.to_string(),
        bounds.processes.map_or_else(|| "-".to_owned(), |n| n.to_string()),
    ]
}

/// Sets this process up and becomes the program. `args` are the process's arguments behind `__launch`: the server's
/// process ID, the bounds, the program and its own arguments. Standard input is the pipe on which the server learns why
/// the program could not be started; it closes with a successful `exec`. Never returns: it ends with status 125 for a
/// failed set-up, 126 for a program that cannot be run, 127 for one that is not there.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> ! {
    use std::io::Write;
    // Kept apart from standard input, which is the program's from `exec` on, also if that fails; closed by `exec`.
    let says = std::io::stdin().as_fd().try_clone_to_owned();
    let (status, message) = launch(args.into_iter().collect());
    // A server that is gone needs no word.
    let _ = says.and_then(|fd| std::fs::File::from(fd).write_all(message.as_bytes()));
    std::process::exit(status)
}

/// Returns only what went wrong.
fn launch(args: Vec<std::ffi::OsString>) -> (i32, String) {
    let failed = |what: &str, error: &dyn std::fmt::Display| (125, format!("{what}: {error}"));
    let number = |at: usize| args.get(at).and_then(|a| a.to_str()).and_then(|a| a.parse::<u64>().ok());
    let (Some(server), Some(open_files), Some(file_bytes), Some(program)) =
        (number(0), number(1), number(2), args.get(4))
    else {
        return (125, "the launcher was called without its arguments".to_owned());
    };
    // Dies with the server, however the server dies. If the server died before this line, it is not the parent now.
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed("the parent-death signal could not be set", &error);
    }
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(|p| i64::from(p.get())) != i64::try_from(server).ok() {
        return (125, "the server is gone".to_owned());
    }
    // A session of its own: no terminal to write into, and one name for all its processes.
    if let Err(error) = rustix::process::setsid() {
        return failed("no session of its own", &error);
    }
    let limits = [
        (Resource::Nofile, Some(open_files)),
        (Resource::Fsize, Some(file_bytes)),
        // A core dump would hold the function's credentials.
        (Resource::Core, Some(0)),
        (Resource::Nproc, number(3)),
    ];
    for (resource, limit) in limits {
        let Some(limit) = limit else { continue };
        // Never above what the server itself has: raising needs privileges.
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = hard.map_or(limit, |hard| hard.min(limit));
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        if let Err(error) = rustix::process::setrlimit(resource, limit) {
            return failed("a resource limit could not be set", &error);
        }
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return failed("no_new_privs could not be set", &error);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if !is_executable_format(Path::new(program)) {
        return (126, format!("{EXEC_FAILED}{}: exec format error", shown(Path::new(program))));
    }
    let mut command = Command::new(program);
    command.args(&args[5..]).stdin(Stdio::null());
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
    let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    // In the words of Go, of which AWS's message is made.
    let reason = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT) => "no such file or directory".to_owned(),
        Some(rustix::io::Errno::ACCESS) => "permission denied".to_owned(),
        Some(rustix::io::Errno::NOEXEC) => "exec format error".to_owned(),
        _ => error.to_string(),
    };
    (status, format!("{EXEC_FAILED}{}: {reason}", shown(Path::new(program))))
}

/// Begins the message of a program that could not be started; what precedes it is the launcher's own failure.
pub(super) const EXEC_FAILED: &str = "fork/exec ";

/// Whether the kernel knows what to do with the file, as far as its beginning says. The C library would hand any other
/// file to a shell, line by line. A file that cannot be read is left to `exec`, which says why.
fn is_executable_format(program: &Path) -> bool {
    use std::io::Read;
    let mut magic = Vec::new();
    match std::fs::File::open(program).and_then(|file| file.take(4).read_to_end(&mut magic)) {
        Ok(_) => magic.starts_with(b"#!") || magic == b"\x7fELF",
        Err(_) => true,
    }
}

/// A bootstrap is named by the path it has on AWS, which is the one its author knows.
fn shown(program: &Path) -> String {
    match program.file_name() {
        Some(name) if name == "bootstrap" => "/var/task/bootstrap".to_owned(),
        _ => program.display().to_string(),
    }
}
