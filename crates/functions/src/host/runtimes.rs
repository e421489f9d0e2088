//! Which program runs a function: the interpreter for a runtime identifier, found once by its real path.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Deployment;

/// What a runtime identifier comes down to on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The interpreter's own path, not a shim's or a link's; empty for `provided*`.
    pub program: PathBuf,
    /// What it says of itself, `3.12.1`; empty for `provided*`.
    pub version: String,
    /// Set where it is not the version asked for: for the user, with where was looked and what helps.
    pub notice: Option<String>,
}

/// A runtime identifier, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// `python3.N`
    Python { minor: u32 },
    /// `nodejsN.x`
    Node { major: u32 },
    /// `provided`, `provided.al2`, `provided.al2023`
    Provided,
}

impl Language {
    pub fn of(runtime: &str) -> Option<Self> {
        if matches!(runtime, "provided" | "provided.al2" | "provided.al2023") {
            return Some(Language::Provided);
        }
        if let Some(minor) = runtime.strip_prefix("python3.") {
            return Some(Language::Python { minor: number(minor)? });
        }
        let major = runtime.strip_prefix("nodejs")?.strip_suffix(".x")?;
        Some(Language::Node { major: number(major)? })
    }

    /// The part of its version that its name tells: 12 of `python3.12`, 22 of `nodejs22.x`.
    fn version(self) -> u32 {
        match self {
            Language::Python { minor } => minor,
            Language::Node { major } => major,
            Language::Provided => 0,
        }
    }

    /// As people call it.
    fn name(self) -> String {
        match self {
            Language::Python { minor } => format!("Python 3.{minor}"),
            Language::Node { major } => format!("Node.js {major}"),
            Language::Provided => "nothing".to_owned(),
        }
    }

    /// Distance between what is asked for and what an interpreter is; the newer one wins where two are as near.
    fn distance(self, version: &str) -> Option<(u32, bool)> {
        let mut parts = version.split('.').map(number);
        let (wanted, got) = match self {
            Language::Python { minor } => {
                // 3.8 is the oldest that the runtime client is written for.
                let (3, got) = (parts.next()??, parts.next()??) else { return None };
                if got < 8 {
                    return None;
                }
                (minor, got)
            }
            Language::Node { major } => {
                let got = parts.next()??;
                if got < 16 {
                    return None;
                }
                (major, got)
            }
            Language::Provided => return None,
        };
        Some((wanted.abs_diff(got), got < wanted))
    }
}

fn number(digits: &str) -> Option<u32> {
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Finds what runs `runtime` on this machine; an interpreter is asked for its version once and remembered. The error
/// says what is missing and what provides it. Blocking: it may start an interpreter.
///
/// One that was installed for functions (`<one of the folders>/<runtime>/bin`) goes first.
pub fn check_runtime(runtime: &str, installed: &[PathBuf]) -> Result<Found, String> {
    check_usable_runtime(runtime, installed, &|_| true)
}

/// As [`check_runtime`], passing over interpreters that functions could not use.
pub(super) fn check_usable_runtime(
    runtime: &str,
    installed: &[PathBuf],
    usable: &dyn Fn(&Path) -> bool,
) -> Result<Found, String> {
    let language = Language::of(runtime).ok_or_else(|| {
        format!(
            "This server does not run functions of the runtime {runtime}: it runs python3.N, nodejsN.x and, for a \
             bootstrap of your own, provided.al2023."
        )
    })?;
    if language == Language::Provided {
        return Ok(Found { program: PathBuf::new(), version: String::new(), notice: None });
    }
    let path: Vec<PathBuf> = std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    let path = with_versions(path);
    let installed: Vec<PathBuf> = installed.iter().map(|dir| dir.join(runtime).join("bin")).collect();
    find(runtime, language, &installed, &path, usable)
}

/// What the interpreter that somebody names is, for a runtime: it has to be of that very version. The error is a sentence.
/// Blocking: it starts the interpreter.
pub fn check_interpreter(runtime: &str, program: &Path) -> Result<Found, String> {
    let language = Language::of(runtime).ok_or_else(|| format!("{runtime} is no runtime that an interpreter runs"))?;
    // Not by its real path: a virtual environment is known by the path it is called by.
    let (_, version) = ask(program, language)
        .ok_or_else(|| format!("{} is no interpreter that works, of {}", program.display(), language.name()))?;
    if language.distance(&version).is_none_or(|(distance, _)| distance != 0) {
        return Err(format!("{} is of version {version}, and {runtime} is {}", program.display(), language.name()));
    }
    Ok(Found { program: program.to_owned(), version, notice: None })
}

/// A PATH, and behind it what shims on it stand for. pyenv and nodenv put one program a name into `<root>/shims`, which
/// works only for the version that was chosen in a shell; the others are in `<root>/versions` all the same.
fn with_versions(mut path: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut behind = Vec::new();
    for root in path.iter().filter(|dir| dir.ends_with("shims")).filter_map(|dir| dir.parent()) {
        let versions = std::fs::read_dir(root.join("versions")).into_iter().flatten().flatten();
        behind.extend(versions.map(|version| version.path().join("bin")).filter(|bin| bin.is_dir()));
    }
    // So that two servers on one machine find the same.
    behind.sort();
    path.extend(behind);
    path
}

/// Whether functions of this runtime run here, as far as its name says.
pub fn is_supported(runtime: &str) -> bool {
    Language::of(runtime).is_some()
}

/// The newest runtime of those beginning with `prefix` (`python3.`, `nodejs`) for which an interpreter was installed in one of
/// these folders. The first folder that has any decides: it is nearer to whoever asks. Our choice.
pub fn newest_installed(prefix: &str, installed: &[PathBuf]) -> Option<String> {
    installed.iter().find_map(|dir| {
        let of_prefix = crate::runtimes().filter(|runtime| runtime.starts_with(prefix));
        let there = of_prefix.filter(|runtime| is_installed(runtime, std::slice::from_ref(dir)));
        there.max_by_key(|runtime| Language::of(runtime).map(Language::version)).map(str::to_owned)
    })
}

/// Whether an interpreter was installed for functions of this runtime, in one of these folders.
pub(super) fn is_installed(runtime: &str, installed: &[PathBuf]) -> bool {
    installed.iter().any(|dir| ["python3", "node"].iter().any(|name| dir.join(runtime).join("bin").join(name).exists()))
}

fn find(
    runtime: &str,
    language: Language,
    installed: &[PathBuf],
    path: &[PathBuf],
    usable: &dyn Fn(&Path) -> bool,
) -> Result<Found, String> {
    let mut passed_over = None;
    let mut ask = |program: &Path| {
        let (real, version) = ask(program, language)?;
        if usable(program) && usable(&real) {
            return Some((real, version));
        }
        passed_over.get_or_insert(real);
        None
    };
    let instead = |program: &Path, version: &str| {
        format!(
            "The runtime {runtime} asks for {}, which is not installed: {} (version {version}) is used instead. {}",
            language.name(),
            program.display(),
            looked(runtime, language, installed, path)
        )
    };
    for dir in installed {
        for name in ["python3", "node"] {
            // Its own path stays as it is: a virtual environment is known by the path it is called by.
            let program = dir.join(name);
            if let Some((_, version)) = ask(&program)
                && let Some((distance, _)) = language.distance(&version)
            {
                // Whoever installed it for this runtime meant it to be used, be it of the exact version or near it.
                let notice = (distance != 0).then(|| instead(&program, &version));
                return Ok(Found { program, version, notice });
            }
        }
    }
    let exact: Vec<String> = match language {
        Language::Python { minor } => vec![format!("python3.{minor}"), "python3".into(), "python".into()],
        Language::Node { major } => {
            vec![format!("node{major}"), format!("node-{major}"), "node".into(), "nodejs".into()]
        }
        Language::Provided => Vec::new(),
    };
    let mut nearest: Option<((u32, bool), PathBuf, String)> = None;
    let mut try_one = |program: &Path| -> Option<Found> {
        let (program, version) = ask(program)?;
        let distance = language.distance(&version)?;
        if nearest.as_ref().is_none_or(|(best, ..)| distance < *best) {
            nearest = Some((distance, program.clone(), version.clone()));
        }
        (distance.0 == 0).then_some(Found { program, version, notice: None })
    };
    for name in &exact {
        for dir in path {
            if let Some(found) = try_one(&dir.join(name)) {
                return Ok(found);
            }
        }
    }
    // The nearest one is taken among all that are there under a versioned name.
    for dir in path {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for name in entries.flatten().map(|e| e.file_name()) {
            let Some(name) = name.to_str() else { continue };
            let versioned = match language {
                Language::Python { .. } => name.strip_prefix("python3."),
                _ => name.strip_prefix("node").map(|rest| rest.strip_prefix('-').unwrap_or(rest)),
            };
            if versioned.is_some_and(|v| number(v).is_some())
                && let Some(found) = try_one(&dir.join(name))
            {
                return Ok(found);
            }
        }
    }
    let (others, provides) = match language {
        Language::Python { minor } => ("python3", format!("python3.{minor} (or any python3 from 3.8 on)")),
        Language::Node { major } => ("node", format!("Node.js {major} (or any from 16 on)")),
        Language::Provided => unreachable!("answered above"),
    };
    match nearest {
        Some((_, program, version)) => {
            let notice = Some(instead(&program, &version));
            Ok(Found { program, version, notice })
        }
        None if let Some(program) = passed_over => Err(format!(
            "The runtime {runtime} needs {}, and {} cannot be used: functions run as users of their own here, who may not \
             enter its folder. Install one where everybody may, below /usr/local say, or run the server as an ordinary user.",
            language.name(),
            program.display()
        )),
        None => Err(format!(
            "The runtime {runtime} needs {}, and no {others} is on this server's PATH. Install {provides} and restart \
             the server.",
            language.name()
        )),
    }
}

/// Where an interpreter was looked for, and how it is made known if it is elsewhere: two sentences.
fn looked(runtime: &str, language: Language, installed: &[PathBuf], path: &[PathBuf]) -> String {
    let mut shown: Vec<String> = Vec::new();
    for dir in installed.iter().chain(path) {
        // All versions that pyenv has are one place for whoever reads it.
        let versions = dir.parent().and_then(Path::parent).filter(|dir| dir.ends_with("versions"));
        let place = versions.map_or_else(|| dir.clone(), |versions| versions.join("*/bin"));
        let place = place.display().to_string();
        if !shown.contains(&place) {
            shown.push(place);
        }
    }
    let way = match language {
        Language::Python { .. } => format!(
            "If it is elsewhere, \"longshore runtimes install {runtime} --python FILE\" makes it the one that functions get."
        ),
        _ => "Put it where the server's PATH leads, and restart the server.".to_owned(),
    };
    format!("It was looked for in {}. {way}", shown.join(", "))
}

/// What an interpreter answered, and when.
type Asked = (Instant, Option<(PathBuf, String)>);

/// How long an interpreter that does not work is not asked again. A shim that fails takes a third of a second, and a
/// runtime that nobody knows asks for all there are; one that was put right is found after this time.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Asks an interpreter for its real path and its version. `None` if it is not there or does not work (a pyenv shim of a
/// version that is not chosen, for one).
fn ask(program: &Path, language: Language) -> Option<(PathBuf, String)> {
    // As many as there are interpreters on the machine.
    static ASKED: LazyLock<Mutex<HashMap<PathBuf, Asked>>> = LazyLock::new(Mutex::default);
    let metadata = program.metadata().ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return None;
    }
    match ASKED.lock().unwrap_or_else(PoisonError::into_inner).get(program) {
        // An interpreter that was removed since is asked for anew, and then passed over.
        Some((_, Some(known))) if known.0.exists() => return Some(known.clone()),
        Some((at, None)) if at.elapsed() < ASKED_AGAIN_AFTER => return None,
        _ => {}
    }
    let answer = ask_now(program, language);
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).insert(program.to_owned(), (Instant::now(), answer.clone()));
    answer
}

fn ask_now(program: &Path, language: Language) -> Option<(PathBuf, String)> {
    let arguments: [&str; 3] = match language {
        Language::Python { .. } => {
            ["-I", "-c", "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])"]
        }
        _ => ["--no-warnings", "-e", "console.log(process.execPath); console.log(process.versions.node)"],
    };
    let text = output_of(Command::new(program).args(arguments), Duration::from_secs(20))?;
    let mut lines = text.lines();
    let (real, version) = (PathBuf::from(lines.next()?), lines.next()?.to_owned());
    (real.is_absolute() && real.is_file()).then_some((real, version))
}

/// What a program prints, if it succeeds within the time.
fn output_of(command: &mut Command, within: Duration) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let deadline = Instant::now() + within;
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            // Two lines fit into the pipe, so it never waits for us to read.
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.take(64 * 1024).read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

/// Our runtime clients, as they are in the binary.
const CLIENTS: [(&str, &str); 2] = [
    ("python/bootstrap.py", include_str!("../../runtimes/python/bootstrap.py")),
    ("node/bootstrap.cjs", include_str!("../../runtimes/node/bootstrap.cjs")),
];

/// Writes our runtime clients to `<data>/runtime/<hash>/`, once for each version of them, and returns that folder.
pub(super) fn write_clients(data_dir: &Path) -> std::io::Result<PathBuf> {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for (name, text) in CLIENTS {
        hash.update(name);
        hash.update(text);
    }
    let parent = data_dir.join("runtime");
    let dir = parent.join(&hex::encode(hash.finalize())[..16]);
    for (name, text) in CLIENTS {
        let path = dir.join(name);
        // Read at every start: a power cut can leave a file of the right name and of no content, and a Python that runs
        // an empty client ends without a word.
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        let folder = path.parent().expect("every client is in a folder");
        std::fs::create_dir_all(folder)?;
        let new = folder.join("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        for folder in [folder, &dir, &parent, data_dir] {
            std::fs::File::open(folder)?.sync_all()?;
        }
    }
    Ok(dir)
}

/// The command that runs a function: the program and its arguments, as the function sees them. Of the folders of the code and
/// of the layers the first is where each is, the second where the function finds it.
pub(super) fn command(
    language: Language,
    found: &Found,
    clients: &Path,
    code: (&Path, &Path),
    layers: Option<(&Path, &Path)>,
    handler: &str,
) -> Result<(PathBuf, Vec<OsString>), String> {
    match language {
        Language::Python { .. } => {
            // -s: nothing of the server's user. -B: the code folder is shared and stays as it was unpacked.
            let client = clients.join("python/bootstrap.py");
            Ok((found.program.clone(), vec!["-s".into(), "-B".into(), client.into(), handler.into()]))
        }
        Language::Node { .. } => {
            Ok((found.program.clone(), vec![clients.join("node/bootstrap.cjs").into(), handler.into()]))
        }
        Language::Provided => [Some(code), layers]
            .into_iter()
            .flatten()
            .find(|(there, _)| there.join("bootstrap").is_file())
            .map(|(_, seen)| (seen.join("bootstrap"), Vec::new()))
            .ok_or_else(|| "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]".to_owned()),
    }
}

/// The command by way of `AWS_LAMBDA_EXEC_WRAPPER`, if the function of a managed runtime has one: the wrapper is started
/// with the whole command as its arguments.
///
/// A shell starts it, as on AWS, so that a wrapper that is not there ends the runtime with status 127 and a line in the
/// log. Source: Lambda spec 1.15.
pub(super) fn wrapped(
    d: &Deployment,
    language: Language,
    (program, arguments): (PathBuf, Vec<OsString>),
) -> (PathBuf, Vec<OsString>) {
    let wrapper = d.variables.get("AWS_LAMBDA_EXEC_WRAPPER").filter(|wrapper| !wrapper.is_empty());
    let (Some(wrapper), false) = (wrapper, language == Language::Provided) else { return (program, arguments) };
    // What AWS calls /opt and /var/task is somewhere else where there is no file system of its own.
    let places = [("/opt", d.layers_dir.as_deref()), ("/var/task", Some(d.code_dir.as_path()))];
    let moved = places.iter().find_map(|(place, dir)| Some((*dir)?.join(Path::new(wrapper).strip_prefix(place).ok()?)));
    let wrapper = moved.unwrap_or_else(|| wrapper.into());
    let mut all: Vec<OsString> = ["-c", "exec \"$@\"", "sh"].map(Into::into).into();
    all.extend([wrapper.into_os_string(), program.into_os_string()]);
    all.extend(arguments);
    ("/bin/sh".into(), all)
}

/// Whether layers bring external extensions, which are not run here.
pub(super) fn has_extensions(layers_dir: Option<&Path>) -> bool {
    let entries = layers_dir.and_then(|dir| std::fs::read_dir(dir.join("extensions")).ok());
    entries.is_some_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with pretend interpreters: name and version, or no version for one that fails.
    fn folder(programs: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (name, version) in programs {
            pretend(&temp.path().join(name), version);
        }
        temp
    }

    fn pretend(path: &Path, version: &str) {
        let script = match version {
            "" => "#!/bin/sh\nexit 127\n".to_owned(),
            version => format!("#!/bin/sh\necho {}\necho {version}\n", path.display()),
        };
        std::fs::write(path, script).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn found(runtime: &str, programs: &[(&str, &str)]) -> Result<(String, Option<String>), String> {
        let temp = folder(programs);
        let found = find(runtime, Language::of(runtime).unwrap(), &[], &[temp.path().to_owned()], &|_| true)?;
        let name = found.program.file_name().unwrap().to_str().unwrap().to_owned();
        Ok((name, found.notice.map(|n| n.replace(&temp.path().display().to_string(), ""))))
    }

    #[test]
    fn the_exact_version_is_taken_where_it_works() {
        let programs = [("python3.12", "3.12.1"), ("python3", "3.11.7")];
        assert_eq!(found("python3.12", &programs), Ok(("python3.12".into(), None)));
        assert_eq!(found("python3.11", &programs), Ok(("python3".into(), None)));
        assert_eq!(found("nodejs22.x", &[("node", "20.1.0"), ("node22", "22.3.0")]), Ok(("node22".into(), None)));
    }

    #[test]
    fn the_nearest_version_is_taken_with_a_notice_where_the_exact_one_is_missing_or_broken() {
        let programs = [("python3.12", ""), ("python3.9", "3.9.1"), ("python3.13", "3.13.0"), ("python3", "3.10.2")];
        let notice = "The runtime python3.12 asks for Python 3.12, which is not installed: /python3.13 (version 3.13.0) is used instead. \
                      It was looked for in . If it is elsewhere, \"longshore runtimes install python3.12 --python FILE\" makes it the one that functions get.";
        assert_eq!(found("python3.12", &programs), Ok(("python3.13".into(), Some(notice.into()))));
        let (node, notice) = found("nodejs22.x", &[("node", "20.1.0")]).unwrap();
        assert_eq!(node, "node");
        assert!(notice.unwrap().ends_with("Put it where the server's PATH leads, and restart the server."));
    }

    #[test]
    fn an_interpreter_that_functions_could_not_enter_is_passed_over_and_named_where_there_is_no_other() {
        let temp = folder(&[("python3.12", "3.12.1"), ("python3.11", "3.11.1")]);
        let find = |usable: &dyn Fn(&Path) -> bool| {
            find("python3.12", Language::of("python3.12").unwrap(), &[], &[temp.path().to_owned()], usable)
        };
        assert!(find(&|program| !program.ends_with("python3.12")).unwrap().program.ends_with("python3.11"));
        let why = find(&|_| false).unwrap_err();
        assert!(why.contains("python3.12 cannot be used: functions run as users of their own"), "{why}");
    }

    #[test]
    fn a_missing_interpreter_is_named_with_what_provides_it() {
        assert_eq!(
            found("python3.12", &[("python3", "3.6.1"), ("node", "20.0.0")]).unwrap_err(),
            "The runtime python3.12 needs Python 3.12, and no python3 is on this server's PATH. Install python3.12 (or any python3 from 3.8 on) and restart the server."
        );
        assert!(check_runtime("java21", &[]).unwrap_err().contains("does not run functions of the runtime java21"));
    }

    #[test]
    fn an_interpreter_that_somebody_names_is_of_the_version_of_the_runtime_or_refused() {
        let temp = folder(&[("right", "3.12.4"), ("other", "3.11.7"), ("broken", "")]);
        let check = |name: &str| check_interpreter("python3.12", &temp.path().join(name));
        assert_eq!(check("right").unwrap().version, "3.12.4");
        for (name, why) in [
            ("other", "is of version 3.11.7, and python3.12 is Python 3.12"),
            ("broken", "is no interpreter that works"),
            ("gone", "is no interpreter that works"),
        ] {
            assert!(check(name).unwrap_err().contains(why), "{name}");
        }
    }

    #[test]
    fn a_version_behind_a_shim_that_is_not_chosen_is_found() {
        let root = tempfile::tempdir().unwrap();
        let [shims, version, other] =
            ["shims", "versions/3.12.1/bin", "versions/3.9.18/bin"].map(|folder| root.path().join(folder));
        for (folder, name, said) in [
            (&shims, "python3.12", ""),
            (&shims, "python3", "3.11.7"),
            (&version, "python3.12", "3.12.1"),
            (&other, "python3", "3.9.18"),
        ] {
            std::fs::create_dir_all(folder).unwrap();
            pretend(&folder.join(name), said);
        }
        let path = with_versions(vec![shims.clone()]);
        assert_eq!(path, [shims, version.clone(), other]);
        let find = |runtime| find(runtime, Language::of(runtime).unwrap(), &[], &path, &|_| true).unwrap();
        assert_eq!(find("python3.12").program, version.join("python3.12"));
        assert!(find("python3.11").notice.is_none(), "what the shell has chosen goes first");
        assert_eq!(find("python3.9").version, "3.9.18");
        let notice = find("python3.14").notice.unwrap();
        let places = format!("It was looked for in {0}/shims, {0}/versions/*/bin. ", root.path().display());
        assert!(notice.contains(&places), "{notice}");
        let elsewhere = root.path().join("bin");
        assert_eq!(with_versions(vec![elsewhere.clone()]), [elsewhere], "no shims, nothing behind them");
    }

    #[test]
    fn the_newest_runtime_that_was_installed_is_told_of_the_first_folder_that_has_any() {
        let root = tempfile::tempdir().unwrap();
        let [nearer, usual, empty] = ["nearer", "usual", "empty"].map(|name| root.path().join(name));
        for (dir, runtime, name) in [
            (&nearer, "python3.9", "python3"),
            (&nearer, "python3.12", "python3"),
            (&nearer, "python3.99", "python3"),
            (&usual, "python3.13", "python3"),
            (&usual, "nodejs22.x", "node"),
        ] {
            let bin = dir.join(runtime).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            pretend(&bin.join(name), "");
        }
        // Half an environment: its interpreter is gone.
        std::fs::create_dir_all(nearer.join("python3.14/bin")).unwrap();
        let newest = |prefix: &str, dirs: &[&PathBuf]| {
            newest_installed(prefix, &dirs.iter().map(|dir| (*dir).clone()).collect::<Vec<_>>())
        };
        assert_eq!(newest("python3.", &[&nearer, &usual]).as_deref(), Some("python3.12"));
        assert_eq!(newest("python3.", &[&empty, &usual]).as_deref(), Some("python3.13"));
        assert_eq!(newest("nodejs", &[&nearer, &usual]).as_deref(), Some("nodejs22.x"));
        assert_eq!(newest("nodejs", &[&nearer]), None);
    }

    #[test]
    fn runtime_identifiers_are_read_strictly() {
        assert_eq!(Language::of("python3.12"), Some(Language::Python { minor: 12 }));
        assert_eq!(Language::of("nodejs20.x"), Some(Language::Node { major: 20 }));
        assert_eq!(Language::of("provided.al2023"), Some(Language::Provided));
        for bad in ["python3.", "python3.x", "python2.7", "nodejs", "nodejs20", "nodejs20.y", "go1.x", ""] {
            assert_eq!(Language::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_interpreter_that_does_not_work_is_not_asked_at_every_turn() {
        let temp = folder(&[]);
        let path = temp.path().join("python3.12");
        let asked = temp.path().join("asked");
        std::fs::write(&path, format!("#!/bin/sh\necho asked >> {}\nexit 127\n", asked.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for runtime in ["python3.12", "python3.12", "python3.11"] {
            assert!(find(runtime, Language::of(runtime).unwrap(), &[], &[temp.path().to_owned()], &|_| true).is_err());
        }
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "asked\n");
    }

    #[test]
    fn a_wrapper_is_started_with_the_whole_command_and_only_for_managed_runtimes() {
        let d = |wrapper: &str| Deployment {
            role: "arn:aws:iam::000000000000:role/r".into(),
            id: "1".into(),
            name: "f".into(),
            version: "1".into(),
            runtime: "python3.12".into(),
            handler: "a.b".into(),
            code_dir: "/code".into(),
            layers_dir: Some("/layers".into()),
            variables: [("AWS_LAMBDA_EXEC_WRAPPER".to_owned(), wrapper.to_owned())].into(),
            timeout_s: 3,
            memory_mib: 128,
            ephemeral_storage_mib: 512,
            concurrency: None,
            log_format: Default::default(),
            application_log_level: None,
            system_log_level: None,
            log_group: "/aws/lambda/f".into(),
        };
        let command = || (PathBuf::from("/bin/python"), vec![OsString::from("client.py"), "a.b".into()]);
        let python = Language::Python { minor: 12 };
        for (set, started) in [
            ("/opt/bin/wrapper", "/layers/bin/wrapper"),
            ("/var/task/wrapper", "/code/wrapper"),
            ("/usr/bin/nice", "/usr/bin/nice"),
            ("/optional/wrapper", "/optional/wrapper"),
        ] {
            let (program, arguments) = wrapped(&d(set), python, command());
            assert_eq!(program, Path::new("/bin/sh"));
            assert_eq!(arguments, ["-c", "exec \"$@\"", "sh", started, "/bin/python", "client.py", "a.b"]);
        }
        assert_eq!(wrapped(&d(""), python, command()), command());
        assert_eq!(wrapped(&d("/opt/wrapper"), Language::Provided, command()), command());
    }

    #[test]
    fn a_client_that_a_power_cut_has_emptied_is_written_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = write_clients(temp.path()).unwrap();
        std::fs::write(dir.join("python/bootstrap.py"), "").unwrap();
        std::fs::remove_file(dir.join("node/bootstrap.cjs")).unwrap();
        assert_eq!(write_clients(temp.path()).unwrap(), dir);
        for (name, text) in CLIENTS {
            assert_eq!(std::fs::read_to_string(dir.join(name)).unwrap(), text);
        }
    }
}
