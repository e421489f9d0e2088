//! From what the user calls a function to what Lambda does: a zip, a runtime, a handler.

use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use longshore_functions::host::newest_installed;
use zip::write::SimpleFileOptions;

use crate::failure::{Because, BecauseGiven, Failure};

/// What CreateFunction takes, with a sentence on what was chosen for the user.
#[derive(Debug, Clone)]
pub struct Package {
    pub zip: Vec<u8>,
    /// `python3.12`, `nodejs22.x`, `provided.al2023`.
    pub runtime: String,
    pub handler: String,
    /// What was guessed; `None` if all was said.
    pub chosen: Option<String>,
    /// The file with the handler, if it is known and was read as a whole.
    pub source: Option<Source>,
    /// What it is written in; `None` for a bootstrap of its own.
    pub language: Option<Language>,
    /// What of a folder is not in the zip though it may be wanted there.
    pub left_out: Option<String>,
}

/// A source file of a function.
#[derive(Debug, Clone)]
pub struct Source {
    pub file: String,
    pub bytes: Vec<u8>,
}

/// Bytes of a source file in a zip that are read; what is longer is no handler that somebody wrote.
const SOURCE_BYTES_MAX: u64 = 1 << 20;

/// Lambda's limit on a zip that is sent with the request.
pub const ZIP_BYTES_MAX: u64 = 52_428_800;
/// Files in a folder that becomes a zip.
const FILES_MAX: usize = 10_000;
/// The names of a handler that are looked for, in this order.
const USUAL: [&str; 2] = ["handler", "lambda_handler"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
}

impl Language {
    pub fn of(name: &str) -> Option<Self> {
        match Path::new(name).extension()?.to_str()? {
            "py" => Some(Self::Python),
            "js" | "mjs" | "cjs" => Some(Self::Node),
            _ => None,
        }
    }
}

impl Package {
    /// Reads `FUNCTION` as the command line gives it; `handler` and `runtime` override what would be guessed. `installed` are
    /// the folders of the interpreters that were installed for functions.
    pub fn read(
        function: &str,
        handler: Option<&str>,
        runtime: Option<&str>,
        installed: &[PathBuf],
    ) -> Result<Self, Failure> {
        let (path, named) = split(function)?;
        let named = handler.map(str::to_owned).or(named);
        let cannot = || format!("cannot read {}", path.display());
        let metadata = path.metadata().because_given(cannot())?;
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        if metadata.is_dir() {
            let (zip, left_out) = zip_folder(&path)?;
            return Ok(Self { left_out, ..Self::of_zip(zip, &path, named, runtime, installed)? });
        }
        if name.ends_with(".zip") {
            if metadata.len() > ZIP_BYTES_MAX {
                return Err(too_large(&path, metadata.len()));
            }
            let zip = std::fs::read(&path).because_given(cannot())?;
            return Self::of_zip(zip, &path, named, runtime, installed);
        }
        if let Some(language) = Language::of(&name) {
            // An encoding other than UTF-8 is the language's own business; the names looked for are ASCII in any.
            let bytes = std::fs::read(&path).because_given(cannot())?;
            let text = String::from_utf8_lossy(&bytes);
            if let Some(named) = &named {
                names_something(&name, &text, named)?;
            }
            let (handler, chosen) = handler_of(language, &name, &text, named)?;
            let zip = zip_of(&[(name.as_str(), &bytes, 0o644)])?;
            let runtime = runtime_of(language, &name, runtime, installed)?;
            let source = Some(Source { file: name, bytes });
            return Ok(Self { zip, runtime, handler, chosen, source, language: Some(language), left_out: None });
        }
        if metadata.permissions().mode() & 0o111 != 0 {
            let content = std::fs::read(&path).because_given(cannot())?;
            return Self::of_bootstrap(zip_of(&[("bootstrap", &content, 0o755)])?, named, runtime);
        }
        Err(Failure::usage(format!("{} is not a function", path.display()))
            .hint("name a .py, .js, .mjs or .cjs file, a folder, a .zip, or an executable that speaks the Runtime API"))
    }

    /// As [`Package::read`], for a runtime whose packages are not looked into: `handler` and `runtime` are what was said.
    pub fn read_unseen(function: &str, handler: &str, runtime: &str) -> Result<Self, Failure> {
        let path = path_of(function)?;
        let (mut zip, mut left_out) = (Vec::new(), None);
        let is_zip = path.extension().is_some_and(|extension| extension == "zip" || extension == "jar");
        if path.is_dir() {
            (zip, left_out) = zip_folder(&path)?;
        } else if is_zip {
            zip = std::fs::read(&path).because_given(format!("cannot read {}", path.display()))?;
        }
        if zip.is_empty() {
            return Err(Failure::usage(format!("{} is neither a folder nor a zip", path.display())));
        }
        if zip.len() as u64 > ZIP_BYTES_MAX {
            return Err(too_large(&path, zip.len() as u64));
        }
        let (runtime, handler) = (runtime.to_owned(), handler.to_owned());
        Ok(Self { zip, runtime, handler, chosen: None, source: None, language: None, left_out })
    }

    fn of_bootstrap(zip: Vec<u8>, named: Option<String>, runtime: Option<&str>) -> Result<Self, Failure> {
        let runtime = runtime.unwrap_or("provided.al2023").to_owned();
        let handler = named.unwrap_or_else(|| "bootstrap".into());
        Ok(Self { zip, runtime, handler, chosen: None, source: None, language: None, left_out: None })
    }

    fn of_zip(
        zip: Vec<u8>,
        path: &Path,
        named: Option<String>,
        runtime: Option<&str>,
        installed: &[PathBuf],
    ) -> Result<Self, Failure> {
        let not_readable = format!("{} is not a readable zip", path.display());
        let mut archive = zip::ZipArchive::new(Cursor::new(&zip)).because_given(&not_readable)?;
        let names: Result<Vec<String>, _> = archive.file_names().map(|n| n.map(|n| n.into_owned())).collect();
        let names = names.because_given(&not_readable)?;
        let has = |wanted: &str| names.iter().any(|n| n == wanted);
        if has("bootstrap") && runtime.is_none_or(|r| r.starts_with("provided")) {
            drop(archive);
            return Self::of_bootstrap(zip, named, runtime);
        }
        // `module.function` says which file it is in; a bare function name does not.
        let module = named.as_deref().and_then(|n| n.rsplit_once('.')).map(|(m, _)| m.replace('.', "/"));
        let modules: Vec<String> = match &module {
            Some(module) => vec![module.clone()],
            None => ["lambda_function", "handler", "index", "main", "app"].iter().map(|&m| m.to_owned()).collect(),
        };
        let found = modules
            .iter()
            .flat_map(|m| ["py", "mjs", "js", "cjs"].map(|e| format!("{m}.{e}")))
            .find(|file| has(file))
            .or_else(|| module.is_none().then(|| only_source(&names)).flatten());
        let Some(file) = found else {
            return Err(Failure::usage(format!("it is not clear which file of {} has the function", path.display()))
                .hint(format!("say it with --handler module.function, or {}:module.function", path.display())));
        };
        let language = Language::of(&file).expect("only files of known languages are looked for");
        let runtime = runtime_of(language, &file, runtime, installed)?;
        // A longer one is searched in its beginning.
        let entry = archive.by_name(&file).because_given(&not_readable)?;
        let mut bytes = Vec::new();
        entry.take(SOURCE_BYTES_MAX).read_to_end(&mut bytes).because_given(&not_readable)?;
        drop(archive);
        let (handler, chosen) = match (named, &module) {
            (Some(named), Some(_)) => (named, None),
            (named, _) => handler_of(language, &file, &String::from_utf8_lossy(&bytes), named)?,
        };
        let is_whole = (bytes.len() as u64) < SOURCE_BYTES_MAX;
        let source = is_whole.then_some(Source { file, bytes });
        Ok(Self { zip, runtime, handler, chosen, source, language: Some(language), left_out: None })
    }
}

/// The file or folder of `FUNCTION`.
pub fn path_of(function: &str) -> Result<PathBuf, Failure> {
    split(function).map(|(path, _)| path)
}

/// Whether `FUNCTION` has the module of a handler, and names no other one itself. A bootstrap takes any.
pub fn has_handler(function: &str, handler: &str) -> bool {
    let Ok((path, None)) = split(function) else { return false };
    let module = handler.rsplit_once('.').map_or(handler, |(module, _)| module).replace('.', "/");
    let files = ["py", "mjs", "js", "cjs"].map(|extension| format!("{module}.{extension}"));
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    if path.is_dir() {
        return path.join("bootstrap").is_file() || files.iter().any(|file| path.join(file).is_file());
    }
    if name.ends_with(".zip") {
        let archive = std::fs::File::open(&path).ok().and_then(|file| zip::ZipArchive::new(file).ok());
        let names = archive.iter().flat_map(|archive| archive.file_names().flatten());
        return names.into_iter().any(|name| name == "bootstrap" || files.iter().any(|file| *file == name));
    }
    Language::of(&name).is_none() || files.contains(&name)
}

/// Splits `handler.py:function`; a colon in the path itself wins if such a file exists.
fn split(function: &str) -> Result<(PathBuf, Option<String>), Failure> {
    let whole = PathBuf::from(function);
    if whole.exists() {
        return Ok((whole, None));
    }
    match function.rsplit_once(':') {
        Some((path, name)) if Path::new(path).exists() && !name.is_empty() => Ok((path.into(), Some(name.to_owned()))),
        _ => Err(Failure::usage(format!("there is no file {function}"))),
    }
}

/// The handler as Lambda writes it (`file.function`), and what to say about it.
fn handler_of(
    language: Language,
    file: &str,
    text: &str,
    named: Option<String>,
) -> Result<(String, Option<String>), Failure> {
    let module = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    if let Some(named) = named {
        let whole = named.contains('.');
        return Ok((if whole { named } else { format!("{module}.{named}") }, None));
    }
    let found: Vec<&str> = USUAL.into_iter().filter(|name| defines(language, text, name)).collect();
    match found[..] {
        [] => Err(Failure::usage(format!("{file} defines neither \"handler\" nor \"lambda_handler\""))
            .hint(format!("name its function: {file}:my_function"))),
        [name, ..] => Ok((format!("{module}.{name}"), Some(format!("function {name} of {file}")))),
    }
}

/// Refuses a name that a file does not have in it: a typo, which would fail every invocation. Any mention will do, for a
/// function may be imported or made in ways that only the language itself understands.
fn names_something(file: &str, text: &str, named: &str) -> Result<(), Failure> {
    let name = named.rsplit('.').next().unwrap_or(named);
    let mentioned = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).any(|word| word == name);
    // All names of another module, whatever they are.
    let opaque = text.contains("import *") || text.contains("export *") || text.contains("module.exports = require");
    if mentioned || opaque {
        return Ok(());
    }
    Err(Failure::usage(format!("{file} has no function {name}"))
        .hint(format!("name one of its functions: {file}:my_function")))
}

/// Whether a source text defines `name` for others to see. A search by line, no parser: what it misses can be named.
fn defines(language: Language, text: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
    let starts =
        |line: &str, before: &str| line.strip_prefix(before).and_then(|r| r.strip_prefix(name)).is_some_and(ends);
    text.lines().any(|line| match language {
        // At the left edge only: an indented `def` belongs to a class or a function.
        Language::Python => {
            starts(line, "def ") || line.strip_prefix(name).is_some_and(|r| r.trim_start().starts_with('='))
        }
        Language::Node => {
            let line = line.trim_start();
            let declared =
                ["export const ", "export let ", "export var ", "export function ", "export async function "];
            declared.iter().any(|before| starts(line, before))
                || ["exports.", "module.exports."].iter().any(|before| starts(line, before))
                || (line.starts_with("module.exports") || line.starts_with("export {"))
                    && line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).any(|w| w == name)
        }
    })
}

/// The only Python or Node file at the top of a package.
fn only_source(names: &[String]) -> Option<String> {
    let mut sources = names.iter().filter(|n| !n.contains('/') && Language::of(n).is_some());
    let first = sources.next()?;
    sources.next().is_none().then(|| first.clone())
}

/// The runtime that was asked for, if it can run `file`. Else the newest that was installed for functions, which somebody
/// meant to be used; else that of the interpreter that is installed, so that nothing has to stand in for another version.
fn runtime_of(language: Language, file: &str, asked: Option<&str>, installed: &[PathBuf]) -> Result<String, Failure> {
    let (name, prefix) = match language {
        Language::Python => ("Python", "python"),
        Language::Node => ("Node.js", "nodejs"),
    };
    if let Some(asked) = asked {
        // What is no runtime at all is told by whoever knows them all.
        let is_other = longshore_functions::runtimes().any(|known| known == asked) && !asked.starts_with(prefix);
        if is_other {
            return Err(Failure::usage(format!("{file} is {name}, which the runtime {asked} does not run"))
                .hint("without --runtime, the one for the file is taken"));
        }
        return Ok(asked.to_owned());
    }
    if let Some(runtime) = newest_installed(prefix, installed) {
        return Ok(runtime);
    }
    let version = |program: &str| {
        let output = std::process::Command::new(program).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|_| output.status.success())
    };
    match language {
        Language::Python => {
            let missing = || Failure::new("python3 is not installed").hint("install Python 3.8 or newer");
            let said = version("python3").ok_or_else(missing)?;
            let minor: u32 = said
                .strip_prefix("Python 3.")
                .and_then(|rest| rest.split('.').next())
                .and_then(|minor| minor.parse().ok())
                .ok_or_else(missing)?;
            Ok(format!("python3.{}", minor.clamp(8, 14)))
        }
        Language::Node => {
            let missing = || Failure::new("node is not installed").hint("install Node.js 16 or newer");
            let said = version("node").ok_or_else(missing)?;
            let major: u32 = said
                .strip_prefix('v')
                .and_then(|rest| rest.split('.').next())
                .and_then(|major| major.parse().ok())
                .ok_or_else(missing)?;
            // Lambda has the even ones, which are those with long support.
            Ok(format!("nodejs{}.x", (major - major % 2).clamp(16, 24)))
        }
    }
}

/// The runtime of the Python that is installed, for functions first.
pub fn python_runtime(installed: &[PathBuf]) -> Result<String, Failure> {
    runtime_of(Language::Python, "", None, installed)
}

/// A zip in memory of these files: name, content, Unix mode.
pub fn zip_of(files: &[(&str, &[u8], u32)]) -> Result<Vec<u8>, Failure> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in files {
        add(&mut zip, name, content, *mode).because("cannot make a zip")?;
    }
    Ok(zip.finish().because("cannot make a zip")?.into_inner())
}

fn add(zip: &mut zip::ZipWriter<Cursor<Vec<u8>>>, name: &str, content: &[u8], mode: u32) -> zip::result::ZipResult<()> {
    // The clock stays out, so that the same files make the same zip.
    zip.start_file(name, SimpleFileOptions::default().unix_permissions(mode))?;
    Ok(zip.write_all(content)?)
}

/// The zip of a folder, and what is not in it though it may be wanted there.
fn zip_folder(folder: &Path) -> Result<(Vec<u8>, Option<String>), Failure> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let (mut files, mut bytes) = (0_usize, 0_u64);
    let left_out = super::walk::files(folder, &[".git", "__pycache__"], |path, relative| {
        let metadata = path.metadata().because(format!("cannot read {}", path.display()))?;
        files += 1;
        bytes += metadata.len();
        // Unzipped, Lambda allows five times the zip's limit.
        if files > FILES_MAX || bytes > 5 * ZIP_BYTES_MAX {
            return Err(Failure::usage(format!("{} is too large for a function", folder.display()))
                .hint("a function has at most 10,000 files and 250 MB; name the folder that holds the code alone"));
        }
        let content = std::fs::read(path).because(format!("cannot read {}", path.display()))?;
        let mode = if metadata.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 };
        add(&mut zip, relative, &content, mode).because("cannot make a zip")
    })?;
    if left_out.unnameable > 0 {
        // Of code, nothing is left out.
        return Err(Failure::usage(format!("{} has a file whose name is not UTF-8", folder.display()))
            .hint("rename it, or name a folder that holds the function alone"));
    }
    let zip = zip.finish().because("cannot make a zip")?.into_inner();
    if zip.len() as u64 > ZIP_BYTES_MAX {
        return Err(too_large(folder, zip.len() as u64));
    }
    // Folders of version control and of caches are nobody's code.
    Ok((zip, super::walk::LeftOut { folders: 0, ..left_out }.told()))
}

fn too_large(path: &Path, bytes: u64) -> Failure {
    Failure::usage(format!("{} is {bytes} bytes as a zip; Lambda takes {ZIP_BYTES_MAX} at most", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_found_by_its_usual_names() {
        let cases = [
            (Language::Python, "import os\ndef handler(event, context):\n  pass", Some("m.handler")),
            (Language::Python, "def lambda_handler(e, c): ...", Some("m.lambda_handler")),
            (Language::Python, "def lambda_handler(e, c): ...\ndef handler(e, c): ...", Some("m.handler")),
            (Language::Python, "handler = make()", Some("m.handler")),
            (Language::Python, "class A:\n    def handler(self): ...\ndef handlers(): ...\nhandler.x = 1", None),
            (Language::Node, "export const handler = async (event) => {}", Some("m.handler")),
            (Language::Node, "export async function handler(event) {}", Some("m.handler")),
            (Language::Node, "exports.handler = f", Some("m.handler")),
            (Language::Node, "module.exports = { lambda_handler }", Some("m.lambda_handler")),
            (Language::Node, "export { f as handler };", Some("m.handler")),
            (Language::Node, "const handler = 1; exports.handlers = 2", None),
        ];
        for (language, text, wanted) in cases {
            let found = handler_of(language, "m.x", text, None).ok().map(|(handler, _)| handler);
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
        assert_eq!(handler_of(Language::Python, "m.py", "", Some("f".into())).unwrap(), ("m.f".into(), None));
    }

    fn written(name: &str, content: &[u8], mode: u32) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path.to_str().unwrap().to_owned())
    }

    fn entries(package: &Package) -> Vec<String> {
        zip::ZipArchive::new(Cursor::new(&package.zip)).unwrap().file_names().map(|n| n.unwrap().into_owned()).collect()
    }

    #[test]
    fn a_file_a_folder_a_zip_and_an_executable_are_functions() {
        let (dir, path) = written("work.py", b"def handler(event, context): pass", 0o644);
        let runtime = Some("python3.12");
        let file = Package::read(&path, None, runtime, &[]).unwrap();
        assert_eq!((file.handler.as_str(), entries(&file)), ("work.handler", vec!["work.py".to_owned()]));
        let named = Package::read(&format!("{path}:handler"), None, runtime, &[]).unwrap();
        assert_eq!(named.handler, "work.handler");
        assert_eq!(
            Package::read(&format!("{path}:handle"), None, runtime, &[]).unwrap_err().message,
            "work.py has no function handle"
        );
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        std::fs::write(dir.path().join("lib/help.py"), "").unwrap();
        let folder = Package::read(dir.path().to_str().unwrap(), None, runtime, &[]).unwrap();
        assert_eq!((folder.handler.as_str(), entries(&folder).len()), ("work.handler", 2));

        let (_dir, path) = written("code.zip", &folder.zip, 0o644);
        assert_eq!(Package::read(&path, None, runtime, &[]).unwrap().handler, "work.handler");
        assert_eq!(Package::read(&path, Some("lib.help.f"), runtime, &[]).unwrap().handler, "lib.help.f");

        let (_dir, path) = written("program", b"\x7fELF", 0o755);
        let program = Package::read(&path, None, None, &[]).unwrap();
        assert_eq!((program.runtime.as_str(), entries(&program)), ("provided.al2023", vec!["bootstrap".to_owned()]));
    }

    #[test]
    fn a_handler_is_known_to_be_in_a_package_by_its_module() {
        let (dir, path) = written("work.py", b"def handler(event, context): pass", 0o644);
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        std::fs::write(dir.path().join("lib/help.js"), "").unwrap();
        let folder = dir.path().to_str().unwrap();
        let zip = zip_of(&[("lib/help.js", b"", 0o644)]).unwrap();
        let (_zip_dir, zip) = written("code.zip", &zip, 0o644);
        let (_program_dir, program) = written("program", b"\x7fELF", 0o755);
        for (function, handler, wanted) in [
            (path.as_str(), "work.anything", true),
            (path.as_str(), "other.handler", false),
            (&format!("{path}:named"), "work.anything", false),
            (folder, "work.f", true),
            (folder, "lib.help.f", true),
            (folder, "lib/help.f", true),
            (folder, "help.f", false),
            (&zip, "lib.help.f", true),
            (&zip, "work.f", false),
            (&program, "whatever", true),
            ("/nowhere/x.py", "x.f", false),
        ] {
            assert_eq!(has_handler(function, handler), wanted, "{function} {handler}");
        }
        let unseen = Package::read_unseen(&zip, "com.example.Work::handle", "java21").unwrap();
        assert_eq!((unseen.handler.as_str(), unseen.runtime.as_str()), ("com.example.Work::handle", "java21"));
        assert!(Package::read_unseen(&path, "h", "java21").is_err(), "a source file is no package of Java");
    }

    #[test]
    fn the_runtime_that_was_installed_for_functions_is_guessed_before_what_the_machine_has() {
        let (dir, path) = written("work.py", b"def handler(event, context): pass", 0o644);
        let dirs = [dir.path().join("runtimes")];
        let of_machine = Package::read(&path, None, None, &dirs).unwrap().runtime;
        for runtime in ["python3.8", "python3.14"] {
            let bin = dirs[0].join(runtime).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            std::fs::write(bin.join("python3"), "").unwrap();
            // Neither of the two is guessed for what this machine has.
            let guessed = Package::read(&path, None, None, &dirs).unwrap().runtime;
            assert_eq!(guessed, runtime, "{of_machine} is what the machine has");
            assert_eq!(python_runtime(&dirs).unwrap(), runtime);
        }
        assert_eq!(Package::read(&path, None, Some("python3.11"), &dirs).unwrap().runtime, "python3.11");
    }

    #[test]
    fn what_is_no_function_is_said_to_be_none() {
        for (name, content) in [("a.txt", &b"x"[..]), ("a.zip", b"no zip"), ("a.py", b"pass")] {
            let (_dir, path) = written(name, content, 0o644);
            assert!(Package::read(&path, None, Some("python3.12"), &[]).is_err(), "{name}");
        }
        assert_eq!(Package::read("/nowhere/x.py", None, None, &[]).unwrap_err().status, crate::failure::USAGE);
    }
}
