//! Keeps what ARCHITECTURE.md says true: its map, the direction of imports, and what is deliberately absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The repository, which is the parent of this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder of the repository, as a path from its root; what builds and clones make is left out.
fn files_below(folder: &str) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "__pycache__", "node_modules"].contains(&name.as_str()) {
                    walk(root, &path, found);
                }
            } else {
                let inside = path.strip_prefix(root).expect("what was walked to lies below the root");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &root().join(folder), &mut found);
    found.sort();
    found
}

/// The crates of the workspace by folder, from the members of its Cargo.toml.
fn crates() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("members").0;
    let mut found = BTreeSet::new();
    for member in members.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty()) {
        match member.strip_suffix("/*") {
            Some(folder) => {
                for entry in fs::read_dir(root().join(folder)).expect("the members' folder exists") {
                    let name = entry.expect("the folder can be listed").file_name();
                    found.insert(format!("{folder}/{}", name.to_string_lossy()));
                }
            }
            None => {
                found.insert(member.to_owned());
            }
        }
    }
    found
}

/// The modules at the top of a crate: its files and folders below `src`, its roots left out.
fn modules_of(krate: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(root().join(krate).join("src")) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let rust = path.extension().is_some_and(|extension| extension == "rs");
            let module = path.is_dir() && files_in(&path).iter().any(|file| file.ends_with(".rs"));
            let name = path.file_stem()?.to_string_lossy().into_owned();
            ((rust || module) && !["lib", "main", "tests"].contains(&name.as_str())).then_some(name)
        })
        .collect()
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    entries.map(|entry| entry.expect("the folder can be listed").file_name().to_string_lossy().into_owned()).collect()
}

/// The map of ARCHITECTURE.md: the text block below "## The map". A line that begins at the margin names a crate's
/// folder, an indented one a module of it; what follows two spaces or more is for the reader.
fn map() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("ARCHITECTURE.md");
    let block = text
        .split_once("\n## The map\n")
        .and_then(|(_, rest)| rest.split_once("```text\n"))
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .expect("ARCHITECTURE.md has a text block below \"## The map\"")
        .0;
    let mut map = BTreeMap::<String, BTreeSet<String>>::new();
    let mut current = None;
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split_whitespace().next().expect("the line is not empty").trim_end_matches('/').to_owned();
        if line.starts_with(' ') {
            let krate = current.as_ref().expect("a module stands below its crate");
            assert!(
                map.entry(String::clone(krate)).or_default().insert(name.clone()),
                "{name} stands in the map twice"
            );
        } else {
            map.entry(name.clone()).or_default();
            current = Some(name);
        }
    }
    map
}

/// The crates of ours that a crate depends on, in any kind of dependency.
fn our_dependencies(krate: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in read(format!("{krate}/Cargo.toml")).lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && let Some(name) = line.strip_prefix("longshore-") {
            found.insert(name.split(['.', ' ', '=']).next().expect("split yields a first part").to_owned());
        }
    }
    found
}

/// A crate's Rust code without comments and without its test modules, file by file.
fn code_of(krate: &str) -> Vec<(String, String)> {
    files_below(&format!("{krate}/src"))
        .into_iter()
        .filter(|file| file.ends_with(".rs") && !file.ends_with("/tests.rs") && !file.contains("/tests/"))
        .map(|file| {
            let text = read(&file);
            // Tests stand at the end of a file, and may read fixtures.
            let text = text.split("#[cfg(test)]\nmod ").next().expect("split yields a first part");
            let code = text.lines().map(|line| line.split("//").next().expect("split yields a first part"));
            (file, code.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn every_crate_and_module_of_the_map_exists() {
    for (krate, modules) in map() {
        assert!(root().join(&krate).is_dir(), "the map names {krate}, which is not there");
        let there = modules_of(&krate);
        for module in modules {
            assert!(there.contains(&module), "the map names {krate}: {module}, which is not there");
        }
    }
}

#[test]
fn every_crate_and_module_stands_in_the_map() {
    let map = map();
    for krate in crates() {
        let named = map.get(&krate).unwrap_or_else(|| panic!("{krate} is not in the map of ARCHITECTURE.md"));
        for module in modules_of(&krate) {
            assert!(named.contains(&module), "{krate}: {module} is not in the map of ARCHITECTURE.md");
        }
    }
}

#[test]
fn every_path_that_architecture_names_exists() {
    let text = read("ARCHITECTURE.md");
    let mut checked = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let path = word.trim_end_matches('/');
        let ours = ["crates/", "adapters/", "tests/", "docs/", "examples/", "xtask", "qa/", ".ci/"]
            .iter()
            .any(|start| path.starts_with(start));
        if ours && !path.contains(['<', '*', ' ', '{']) {
            assert!(root().join(path).exists(), "ARCHITECTURE.md names {path}, which is not there");
            checked += 1;
        }
    }
    assert!(checked > 5, "ARCHITECTURE.md names files");
}

#[test]
fn core_and_wire_depend_on_none_of_ours() {
    for krate in ["core", "wire"] {
        assert_eq!(our_dependencies(&format!("crates/{krate}")), BTreeSet::new(), "{krate}");
    }
}

#[test]
fn imports_point_downhill() {
    let allowed = BTreeMap::from([
        ("core", vec![]),
        ("wire", vec![]),
        ("store", vec!["core"]),
        ("objects", vec!["core", "wire", "store"]),
        ("functions", vec!["core", "wire", "store"]),
        ("jobs", vec!["core", "wire", "store"]),
        ("server", vec!["core", "wire", "store", "objects", "functions", "jobs", "aws", "inventory"]),
        ("adapters/aws", vec!["jobs"]),
        ("adapters/inventory", vec!["jobs"]),
    ]);
    for krate in crates() {
        let guest = krate.starts_with("adapters/").then_some(krate.as_str());
        let Some(name) = krate.strip_prefix("crates/").or(guest) else { continue };
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("say in tests/tidy.rs what {name} may import"));
        for dependency in our_dependencies(&krate) {
            assert!(allowed.contains(&dependency.as_str()), "{name} may not import {dependency}");
        }
        for (file, code) in code_of(&krate) {
            for (other, _) in code.match_indices("longshore_").map(|(at, start)| {
                let rest = &code[at + start.len()..];
                (rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(), at)
            }) {
                let ours = ["crates", "adapters"].iter().any(|folder| root().join(folder).join(other).is_dir());
                assert!(!ours || other == name || allowed.contains(&other), "{file} names longshore_{other}");
            }
        }
    }
}

#[test]
fn nothing_imports_the_server() {
    for krate in crates() {
        let manifest = read(format!("{krate}/Cargo.toml"));
        let imports = manifest.lines().any(|line| line.starts_with("longshore.") || line.starts_with("longshore ="));
        assert!(!imports, "{krate} imports the server");
    }
}

/// Core and wire take time and randomness as arguments, and never wait.
#[test]
fn core_and_wire_name_no_clock_file_socket_environment_or_random_source() {
    let banned = [
        "std::time::Instant",
        "std::time::SystemTime",
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "std::fs",
        "std::env",
        "std::net",
        "std::thread",
        "std::process",
        "tokio",
        "getrandom",
        "rand::",
    ];
    for krate in ["crates/core", "crates/wire"] {
        let manifest = read(format!("{krate}/Cargo.toml"));
        let shipped = manifest.split("[dev-dependencies]").next().expect("split yields a first part");
        for dependency in ["tokio", "getrandom", "rand", "rustix", "uuid", "rusqlite", "hyper"] {
            let there = shipped
                .lines()
                .any(|line| line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '='])));
            assert!(!there, "{krate} depends on {dependency}");
        }
        for (file, code) in code_of(krate) {
            for word in banned {
                assert!(!code.contains(word), "{file} names {word}: take the value as an argument");
            }
            // `use std::{fs, time::Instant}` is the other way to write it.
            for group in code.split("use std::{").skip(1) {
                let group = group.split(';').next().expect("split yields a first part");
                for word in ["fs", "env", "net", "Instant", "SystemTime", "thread", "process"] {
                    let named = group.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word);
                    assert!(!named, "{file} uses std's {word}");
                }
            }
        }
    }
}

/// The code is to be read and built anywhere.
#[test]
fn no_file_names_a_path_of_one_machine() {
    let banned = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/fa", "rm/")];
    for file in files_below(".") {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for path in banned {
            assert!(!text.contains(path), "{file} names {path}");
        }
    }
}

#[test]
fn every_decision_has_its_sections_and_a_number_of_its_own() {
    let mut numbers = BTreeSet::new();
    for file in files_below("docs/decisions") {
        let name = file.rsplit('/').next().expect("split yields a first part");
        let (number, title) = name.split_once('-').unwrap_or_else(|| panic!("{file} is not named NNNN-title.md"));
        assert!(
            number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()),
            "{file} is not named NNNN-title.md"
        );
        assert!(title.ends_with(".md"), "{file} is not named NNNN-title.md");
        assert!(numbers.insert(number.to_owned()), "{number} is the number of two decisions");
        let text = read(&file);
        let mut rest = text.as_str();
        assert!(text.starts_with("# "), "{file} begins with its title");
        for section in ["Context", "Choice", "What we turned down", "What would change our mind"] {
            let Some((_, after)) = rest.split_once(&format!("\n## {section}\n")) else {
                panic!("{file} lacks its section \"{section}\", or has it in another place");
            };
            let body = after.split("\n## ").next().expect("split yields a first part");
            assert!(!body.trim().is_empty(), "{file}: the section \"{section}\" is empty");
            rest = after;
        }
    }
    assert!(numbers.contains("0000") && numbers.len() > 1, "docs/decisions holds the template and decisions");
}

#[test]
fn every_example_function_says_how_to_run_it() {
    for entry in fs::read_dir(root().join("examples/functions")).expect("the examples are there") {
        let folder = entry.expect("the folder can be listed").path();
        let said = files_below(&folder.strip_prefix(root()).expect("below the root").to_string_lossy())
            .iter()
            .any(|file| read(file).contains("longshore run "));
        assert!(said, "{} does not say how to run it", folder.display());
    }
}
