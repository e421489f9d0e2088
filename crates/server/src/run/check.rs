//! What can be known of a function before it is invoked: whether something here runs it, and whether its source is a
//! program at all. Each would else be found out object by object.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_functions::host::{Found, check_runtime};
use longshore_functions::{VARIABLES_BYTES_MAX, is_reserved_variable, is_variable_name, variables_bytes};

use crate::failure::Failure;
use crate::run::package::{Language, Source};

/// Finds what runs functions of this runtime. `dirs` are those with interpreters installed for functions.
pub fn runtime(runtime: &str, dirs: &[PathBuf]) -> Result<Found, Failure> {
    if !longshore_functions::runtimes().any(|known| known == runtime) {
        let known: Vec<&str> = longshore_functions::runtimes().collect();
        return Err(Failure::usage(format!("{runtime} is no runtime that functions have here"))
            .hint(format!("the runtimes are {}", known.join(", "))));
    }
    check_runtime(runtime, dirs).map_err(Failure::usage)
}

/// Refuses what Lambda would refuse of a function's environment variables.
pub fn variables(given: &[(String, String)]) -> Result<(), Failure> {
    for (name, value) in given {
        if !is_variable_name(name) {
            return Err(Failure::usage(format!(
                "--env: {name} cannot be the name of a function's environment variable"
            ))
            .hint("Lambda wants a letter, and then one letter, digit or underscore at least"));
        }
        if is_reserved_variable(name) {
            return Err(Failure::usage(format!("--env: Lambda sets {name} itself")).hint("choose another name"));
        }
        if value.contains('\0') {
            return Err(Failure::usage(format!("--env: the value of {name} has a NUL character")));
        }
    }
    variables_together(&given.iter().cloned().collect())
}

/// Refuses more variables than a function may have. Without their values, which Lambda's own refusal repeats.
pub fn variables_together(variables: &BTreeMap<String, String>) -> Result<(), Failure> {
    let bytes = variables_bytes(variables);
    if bytes > VARIABLES_BYTES_MAX {
        return Err(Failure::usage(format!(
            "--env: the variables are {bytes} bytes as JSON; Lambda takes {VARIABLES_BYTES_MAX} at most"
        ))
        .hint("hand larger things to the function in its folder"));
    }
    Ok(())
}

/// Reads a source from standard input; a syntax error is its line and its text on standard output, and status 3.
/// Anything else that goes wrong is no statement about the source.
const COMPILE: &str = "\
import sys
try:
    compile(sys.stdin.buffer.read(), 'source', 'exec', dont_inherit=True)
except SyntaxError as error:
    sys.stdout.buffer.write(('%d\\n%s' % (error.lineno or 0, error.msg)).encode('utf-8', 'replace'))
    sys.stdout.flush()
    sys.exit(3)
";
/// How [`COMPILE`] ends where it has found a syntax error.
const SYNTAX_ERROR: i32 = 3;

/// Refuses a source that its own interpreter cannot compile. Runs nothing of it. Where the interpreter does not say, the
/// source passes: a wrong alarm would be worse than a late one.
pub fn syntax(found: &Found, source: &Source) -> Result<(), Failure> {
    let wrong = match Language::of(&source.file) {
        Some(Language::Python) => python(&found.program, &source.bytes),
        Some(Language::Node) => node(&found.program, source),
        None => None,
    };
    let Some((line, error)) = wrong else { return Ok(()) };
    let line = if line == 0 { String::new() } else { format!(", line {line}") };
    Err(Failure::usage(format!("{}{line}: {error}", source.file)).hint(format!(
        "that is what {} {} says of it; nothing was invoked",
        found.program.display(),
        found.version
    )))
}

/// The line and the error.
fn python(program: &Path, source: &[u8]) -> Option<(u64, String)> {
    let mut child = Command::new(program)
        .args(["-I", "-S", "-W", "ignore", "-c", COMPILE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // It reads all before it writes. Where it ended before, its status tells.
    let _ = child.stdin.take()?.write_all(source);
    let output = child.wait_with_output().ok()?;
    if output.status.code() != Some(SYNTAX_ERROR) {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (line, error) = said.split_once('\n')?;
    Some((line.parse().ok()?, format!("syntax error: {error}")))
}

/// As [`python`]. Whether a `.js` file is a module depends on things outside of it, so it must be wrong as either.
fn node(program: &Path, source: &Source) -> Option<(u64, String)> {
    let text = String::from_utf8_lossy(&source.bytes);
    let looks_like_a_module = text.lines().any(|line| line.starts_with("import ") || line.starts_with("export "));
    let kinds: &[&str] = match source.file.rsplit_once('.')?.1 {
        "mjs" => &["mjs"],
        "cjs" => &["cjs"],
        _ if looks_like_a_module => &["mjs", "cjs"],
        _ => &["cjs", "mjs"],
    };
    let folder = tempfile::tempdir().ok()?;
    let mut told = None;
    for kind in kinds {
        let file = format!("source.{kind}");
        std::fs::write(folder.path().join(&file), &source.bytes).ok()?;
        let output = Command::new(program)
            .arg("--check")
            .arg(&file)
            .current_dir(folder.path())
            .env_remove("NODE_OPTIONS")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = said.lines().find(|line| line.starts_with("SyntaxError: "));
        let (false, Some(error)) = (output.status.success(), error) else { return None };
        let marked = said.lines().find_map(|line| line.rsplit_once(&format!("{file}:"))?.1.parse().ok());
        told.get_or_insert((marked.unwrap_or(0), error.replacen("SyntaxError", "syntax error", 1)));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(program: &str, file: &str, text: &str) -> Option<String> {
        let found = Found { program: program.into(), version: "1".into(), notice: None };
        let source = Source { file: file.into(), bytes: text.into() };
        syntax(&found, &source).err().map(|failure| {
            assert_eq!(failure.status, crate::failure::USAGE);
            failure.message
        })
    }

    #[test]
    fn a_python_source_that_cannot_be_compiled_is_told_with_its_line_and_nothing_of_it_runs() {
        let cases = [
            ("def handler(event, context):\n    return {\n", Some("h.py, line 2: syntax error: ")),
            ("def handler(event, context):\nreturn 1\n", Some("h.py, line 2: syntax error: ")),
            ("import nowhere\nraise SystemExit(3)\ndef handler(event, context): pass\n", None),
            ("\u{feff}x = 'ü'\n", None),
            ("x = '\\d'\n", None),
        ];
        for (text, wanted) in cases {
            let message = told("python3", "h.py", text);
            match wanted {
                Some(begins) => assert!(message.as_ref().is_some_and(|m| m.starts_with(begins)), "{text}: {message:?}"),
                None => assert_eq!(message, None, "{text}"),
            }
        }
        assert_eq!(told("/nowhere/python3", "h.py", "def"), None, "who cannot be asked says nothing");
        assert_eq!(told("false", "h.py", "def"), None, "any other end is no syntax error");
    }

    #[test]
    fn a_node_source_is_refused_only_if_it_is_wrong_in_every_way_it_may_be_read() {
        if Command::new("node").arg("--version").output().is_err() {
            return;
        }
        let cases = [
            ("h.mjs", "export const handler = async () => {\n  return {;\n}\n", Some("h.mjs, line 2: syntax error: ")),
            ("h.cjs", "exports.handler = (\n", Some("h.cjs, line ")),
            ("h.js", "export const handler = async () => {\n", Some("h.js, line ")),
            ("h.js", "export const handler = 1;\nawait 1;\n", None),
            ("h.js", "exports.handler = 1;\nreturn;\n", None),
            ("h.mjs", "import x from 'nowhere';\nexport const handler = x;\n", None),
        ];
        for (file, text, wanted) in cases {
            let message = told("node", file, text);
            match wanted {
                Some(begins) => assert!(message.as_ref().is_some_and(|m| m.starts_with(begins)), "{text}: {message:?}"),
                None => assert_eq!(message, None, "{text}"),
            }
        }
    }

    #[test]
    fn a_runtime_that_is_none_is_told_with_those_there_are() {
        for name in ["python", "python3.99", "java21", "nodejs"] {
            let failure = runtime(name, &[]).unwrap_err();
            assert_eq!(failure.status, crate::failure::USAGE, "{name}");
            assert!(failure.hint.unwrap().contains("python3.12, python3.13"), "{name}");
        }
        runtime("provided.al2023", &[]).unwrap();
    }

    #[test]
    fn environment_variables_are_checked_in_words() {
        let wrong = |name: &str, value: &str| variables(&[(name.into(), value.into())]).map_err(|f| f.message);
        assert_eq!(wrong("X", "1"), Err("--env: X cannot be the name of a function's environment variable".into()));
        assert_eq!(wrong("AWS_REGION", "1"), Err("--env: Lambda sets AWS_REGION itself".into()));
        assert!(wrong("XX", &"x".repeat(5_000)).unwrap_err().contains("bytes as JSON"));
        assert_eq!(wrong("XX", "x"), Ok(()));
    }
}
