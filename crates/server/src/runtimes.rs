//! `longshore runtimes install`: an interpreter of their own for functions, with boto3 in it.
//!
//! AWS's Python runtimes carry boto3, and most handlers import it; a machine's Python does not. A virtual environment in
//! the data directory does what AWS's image does, and leaves the machine's own Python alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_functions::host::{check_interpreter, check_runtime};

use crate::env::quoted;
use crate::failure::{Because, Failure};

/// The folder of a data directory that holds what is installed, one folder a runtime.
pub const FOLDER: &str = "runtimes";
/// What AWS's Python runtimes have beyond Python.
const PACKAGES: [&str; 1] = ["boto3"];

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub folder: PathBuf,
    runtime: String,
    /// What the interpreter says of itself, `3.12.1`.
    version: String,
}

impl Installed {
    /// What it is and what to do next. `data_dir` is the flag that was given, if one was.
    pub fn told(&self, data_dir: Option<&Path>) -> String {
        let flag = data_dir.map(|dir| {
            let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
            format!(" --data-dir {}", quoted(&whole.to_string_lossy()))
        });
        format!(
            "functions of the runtime {} run on this Python {} from their next start on, and \"longshore function deploy \
             FILE.py{}\" makes a function of it",
            self.runtime,
            self.version,
            flag.unwrap_or_default()
        )
    }
}

/// Makes `<data>/runtimes/<runtime>` from the interpreter `from`, or the nearest one that is found, and installs boto3 and `packages` into
/// it. An existing one is added to.
pub fn install(data_dir: &Path, runtime: &str, packages: &[String], from: Option<&Path>) -> Result<Installed, Failure> {
    if !runtime.starts_with("python3.") {
        return Err(Failure::usage(format!("{runtime} is no runtime that packages can be installed for")).hint(
            "name one such as python3.12; a Node function brings its packages in its folder or zip (npm install there)",
        ));
    }
    let found = match from {
        Some(program) => {
            let program = std::path::absolute(program).because(format!("cannot find {}", program.display()))?;
            check_interpreter(runtime, &program).map_err(Failure::usage)?
        }
        None => check_runtime(runtime, &[]).map_err(Failure::new)?,
    };
    if let Some(notice) = &found.notice {
        eprintln!("warning: {notice}");
    }
    std::fs::create_dir_all(data_dir.join(FOLDER)).because(format!("cannot write in {}", data_dir.display()))?;
    // Functions may be users of their own. The folders above keep everybody else out.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let folder = data_dir.join(FOLDER).join(runtime);
    let python = folder.join("bin/python3");
    if !python.exists() {
        // Made beside its place would not do: a virtual environment knows its own path.
        let made = do_it(Command::new(&found.program).args(["-m", "venv"]).arg(&folder));
        if let Err(failure) = made {
            // Half an environment would be taken for a whole one.
            let _ = std::fs::remove_dir_all(&folder);
            return Err(failure.hint("on Debian and Ubuntu the module venv is in the package python3-venv"));
        }
    }
    // One that is there already keeps the Python it was made from, whatever is found by now.
    let made_from = check_runtime(runtime, &[data_dir.join(FOLDER)]).map_err(Failure::new)?;
    if made_from.version != found.version && made_from.program.starts_with(&folder) {
        let said = format!("{} is of Python {} already, not {}", folder.display(), made_from.version, found.version);
        if from.is_some() {
            return Err(Failure::new(said).hint("remove that folder, and install again"));
        }
        eprintln!("warning: {said}; remove that folder and install again to change that");
    }
    let wanted = PACKAGES.iter().copied().chain(packages.iter().map(String::as_str));
    do_it(Command::new(&python).args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet"]).args(wanted))?;
    Ok(Installed { folder, runtime: runtime.to_owned(), version: made_from.version })
}

/// Runs a program that talks to the user itself, on standard error: results alone go to standard output.
fn do_it(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().because(format!("cannot start {name}"))?;
    if let Some(mut out) = child.stdout.take() {
        std::io::copy(&mut out, &mut std::io::stderr()).because(format!("cannot read what {name} says"))?;
    }
    let status = child.wait().because(format!("cannot wait for {name}"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{name} failed ({status})"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_installed_is_told_with_what_to_do_next() {
        let installed = Installed {
            folder: "/d/runtimes/python3.12".into(),
            runtime: "python3.12".into(),
            version: "3.12.1".into(),
        };
        let told = installed.told(Some(Path::new("/my data")));
        assert!(told.contains("functions of the runtime python3.12 run on this Python 3.12.1"), "{told}");
        assert!(told.contains("\"longshore function deploy FILE.py --data-dir '/my data'\""), "{told}");
        assert!(installed.told(None).contains("\"longshore function deploy FILE.py\""));
    }
}
