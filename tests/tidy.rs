//! Keeps what ARCHITECTURE.md says true: its map, the direction of imports, and what is deliberately absent.

#![forbid(unsafe_code)]

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
fn core_depends_on_none_of_ours_and_wire_on_core_alone() {
    assert_eq!(our_dependencies("crates/core"), BTreeSet::new());
    // A caller is a signature that was verified, and what core says that its owner may do.
    assert_eq!(our_dependencies("crates/wire"), BTreeSet::from(["core".to_owned()]));
}

#[test]
fn imports_point_downhill() {
    let allowed = BTreeMap::from([
        ("core", vec![]),
        ("wire", vec!["core"]),
        ("store", vec!["core"]),
        ("objects", vec!["core", "wire", "store"]),
        ("sandbox", vec![]),
        ("functions", vec!["core", "wire", "store", "sandbox"]),
        ("jobs", vec!["core", "wire", "store"]),
        ("identity", vec!["core", "wire", "store"]),
        (
            "server",
            vec!["core", "wire", "store", "sandbox", "objects", "functions", "identity", "jobs", "aws", "inventory"],
        ),
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

/// The sections of the specification whose rules compatibility.md lists: 1.1 describes AWS's service, 2.1 and 8.4 say
/// again what others say.
fn is_listed_section(section: &str) -> bool {
    let within = |major: &str| section.starts_with(&format!("{major}."));
    (["1", "2", "3", "5", "7", "8", "9"].into_iter().any(within) || ["6", "10.4"].contains(&section))
        && !["1.1", "2.1", "8.4"].contains(&section)
}

/// Sections that are one rule each, in prose.
const RULES_IN_PROSE: [&str; 10] = ["1.5.3", "1.8", "1.9", "1.12", "3.4", "3.7", "5.8", "7.3", "7.5", "7.6"];

/// A name like `V-15`.
fn is_rule_number(cell: &str) -> bool {
    cell.split_once('-').is_some_and(|(letters, digits)| {
        let upper = !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_uppercase());
        upper && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The number at the beginning of a heading: `3.2` of `### 3.2 CSV`, `6` of `## 6. Failure threshold`.
fn section_of(heading: &str) -> Option<String> {
    let number =
        heading.strip_prefix('#')?.trim_start_matches('#').trim_start().split(' ').next()?.trim_end_matches('.');
    let digits = !number.is_empty()
        && number.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    digits.then(|| number.to_owned())
}

fn first_cell(row: &str) -> &str {
    row.trim_matches('|').split('|').next().expect("split yields a first part").trim()
}

/// The rules of docs/specification.md in the order of the document, as (number of the chapter, rule).
///
/// A row that begins with a number like `V-15` is that rule. Other rows of tables, and items of numbered lists, are
/// counted: the third in section 2.7 is `2.7/3`. The vectors of 3.2 belong to the rules above them.
fn rules_of_the_specification() -> Vec<(String, String)> {
    let mut rules = Vec::new();
    let (mut section, mut counted, mut fenced, mut vectors) = (String::new(), 0, false, false);
    let text = read("docs/specification.md");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
        } else if line.starts_with('#') {
            section = section_of(line).unwrap_or_default();
            counted = 0;
            if RULES_IN_PROSE.contains(&section.as_str()) {
                rules.push((section.clone(), section.clone()));
            }
        } else if is_listed_section(&section) && !RULES_IN_PROSE.contains(&section.as_str()) {
            let header = line.starts_with('|') && lines.peek().is_some_and(|next| next.starts_with("|---"));
            if header {
                vectors = first_cell(line) == "Line";
                lines.next();
            } else if line.starts_with('|') && !vectors {
                let cell = first_cell(line);
                if is_rule_number(cell) {
                    rules.push((section.clone(), cell.to_owned()));
                } else {
                    counted += 1;
                    rules.push((section.clone(), format!("{section}/{counted}")));
                }
            } else if line.split_once(". ").is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            {
                counted += 1;
                rules.push((section.clone(), format!("{section}/{counted}")));
            }
        }
    }
    let chapter = |section: String| section.split('.').next().expect("split yields a first part").to_owned();
    rules.into_iter().map(|(section, rule)| (chapter(section), rule)).collect()
}

/// The rules of docs/lambda-specification.md: the rows of tables and the items of lists, counted in each section, so that
/// the third of section 1.2 is `1.2/3`; a section without any is one rule, `3.6`. Section 0 says how to read it, 9 what
/// clients do.
fn rules_of_lambda() -> Vec<(String, String)> {
    fn is_item(line: &str) -> bool {
        let numbered = line.split_once(". ").map(|(number, _)| number);
        line.starts_with("* ") || numbered.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }
    let mut sections: Vec<(String, u32)> = Vec::new();
    let (mut listed, mut fenced) = (false, false);
    let text = read("docs/lambda-specification.md");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
        } else if line.starts_with('#') {
            let section = section_of(line).unwrap_or_default();
            listed = section == "7" || (section.contains('.') && !["0", "9"].iter().any(|n| section.starts_with(n)));
            if listed {
                sections.push((section, 0));
            }
        } else if let Some((_, counted)) = sections.last_mut().filter(|_| listed) {
            if line.starts_with('|') && lines.peek().is_some_and(|next| next.replace(' ', "").starts_with("|---")) {
                lines.next();
            } else if line.starts_with('|') || is_item(line) {
                *counted += 1;
            }
        }
    }
    let chapter = |section: &str| section.split('.').next().expect("split yields a first part").to_owned();
    let rules = sections.iter().flat_map(|(section, counted)| match counted {
        0 => vec![(chapter(section), section.clone())],
        _ => (1..=*counted).map(|n| (chapter(section), format!("{section}/{n}"))).collect(),
    });
    rules.collect()
}

/// The rules that a cell of compatibility.md names: `V-1`, `V-1, V-3`, `2.7/3–5`, `CSV-3–5`.
fn rules_of_cell(cell: &str) -> Vec<String> {
    let mut rules = Vec::new();
    for part in cell.split(',').map(str::trim) {
        match part.split_once('–') {
            None => rules.push(part.to_owned()),
            Some((from, to)) => {
                let at = from.rfind(['-', '/']).expect("a range begins with a number") + 1;
                let number = |text: &str| text.parse::<u32>().unwrap_or_else(|_| panic!("{cell} is no range of rules"));
                rules.extend((number(&from[at..])..=number(to)).map(|n| format!("{}{n}", &from[..at])));
            }
        }
    }
    rules
}

/// Where a test named in compatibility.md stands, or why it is none. `test_jobs.py::test_name`,
/// `crate::module::tests::name` (the folder of the crate, one of its modules), `simulation::name`.
fn find_test(name: &str) -> Result<(), String> {
    let Some((place, function)) = name.rsplit_once("::") else { return Err(format!("{name} names no test")) };
    if place.ends_with(".py") {
        let text = fs::read_to_string(root().join("tests/conformance").join(place)).unwrap_or_default();
        let found = text.lines().any(|line| line.starts_with(&format!("def {function}(")));
        return found.then_some(()).ok_or(format!("there is no {name} in tests/conformance"));
    }
    let mut parts = place.split("::");
    let krate = parts.next().expect("split yields a first part");
    let modules: Vec<&str> = parts.filter(|part| *part != "tests").collect();
    let folders = [format!("crates/{krate}"), format!("adapters/{krate}"), format!("tests/{krate}.rs")];
    let files = folders
        .iter()
        .flat_map(|folder| if folder.ends_with(".rs") { vec![folder.clone()] } else { files_below(folder) });
    for file in files.filter(|file| file.ends_with(".rs")) {
        let inside = modules
            .iter()
            .all(|module| file.split('/').any(|part| part == *module || part.strip_suffix(".rs") == Some(module)));
        let text = fs::read_to_string(root().join(&file)).unwrap_or_default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let attribute = line.trim();
            let test = attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test");
            if test && inside && lines.clone().take(3).any(|line| line.contains(&format!("fn {function}("))) {
                return Ok(());
            }
        }
    }
    Err(format!("there is no {name}"))
}

#[test]
fn compatibility_names_tests_that_exist_and_lists_every_rule_once() {
    every_rule_stands_once_and_has_its_test("docs/compatibility.md", rules_of_the_specification());
    every_rule_stands_once_and_has_its_test("docs/compatibility-lambda.md", rules_of_lambda());
}

fn every_rule_stands_once_and_has_its_test(page: &str, rules: Vec<(String, String)>) {
    let mut wanted = BTreeMap::new();
    for rule in rules {
        assert!(
            wanted.insert(rule.clone(), 0).is_none(),
            "the specification has {} twice in its chapter {}",
            rule.1,
            rule.0
        );
    }
    assert!(wanted.len() > 250, "the specification is read");
    let (mut chapter, mut wrong) = (String::new(), Vec::new());
    for line in read(page).lines() {
        if line.starts_with('#') {
            chapter =
                section_of(line).map(|s| s.split('.').next().expect("a first part").to_owned()).unwrap_or_default();
        }
        if !line.starts_with('|')
            || line.starts_with("|---")
            || ["| Rule |", "| Beyond |"].iter().any(|head| line.starts_with(head))
        {
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [rules, is, what, tests] = cells[..] else { panic!("a row has four cells: {line}") };
        // What goes beyond AWS has no rule of the specification.
        for rule in if chapter.is_empty() { Vec::new() } else { rules_of_cell(rules) } {
            match wanted.get_mut(&(chapter.clone(), rule.clone())) {
                Some(times) => *times += 1,
                None => wrong.push(format!("{rule} is no rule of chapter {chapter}")),
            }
        }
        if !["yes", "differs", "no"].contains(&is) || what.len() < 5 {
            wrong.push(format!("{rules} says neither yes, differs nor no, or does not say what"));
        }
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && is != "no" {
            wrong.push(format!("{rules} names no test"));
        }
        wrong.extend(names.iter().filter_map(|name| find_test(name).err()).map(|why| format!("{rules}: {why}")));
    }
    for ((chapter, rule), times) in &wanted {
        if *times != 1 {
            wrong.push(format!("{rule} of chapter {chapter} stands {times} times"));
        }
    }
    assert!(wrong.is_empty(), "{page}:\n{}", wrong.join("\n"));
}

#[test]
fn a_named_test_is_told_from_one_that_is_not_there() {
    for there in [
        "test_jobs.py::test_an_unknown_job_is_told_as_such",
        "core::threshold::tests::the_documented_edges_hold",
        "jobs::engine::tests::a_job_waits_to_be_confirmed_and_then_runs",
        "tidy::a_named_test_is_told_from_one_that_is_not_there",
    ] {
        assert_eq!(find_test(there), Ok(()));
    }
    for missing in [
        "test_jobs.py::rows_of_nobody",
        "test_nowhere.py::test_an_unknown_job_is_told_as_such",
        "core::retry::tests::the_documented_edges_hold",
        "core::threshold::tests::passed",
        "nowhere::threshold::tests::the_documented_edges_hold",
        "nothing",
    ] {
        assert!(find_test(missing).is_err(), "{missing}");
    }
    assert_eq!(rules_of_cell("V-1, CSV-3–5, 2.7/9–10"), ["V-1", "CSV-3", "CSV-4", "CSV-5", "2.7/9", "2.7/10"]);
}

/// The last literal of a macro's arguments that begin at the start of `text`: its message.
fn message_of(text: &str) -> Option<String> {
    let (mut depth, mut message, mut characters) = (1, None, text.chars());
    while let Some(c) = characters.next() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                loop {
                    match characters.next()? {
                        '\\' => literal.extend(characters.next().filter(|c| !c.is_whitespace())),
                        '"' => break,
                        c => literal.push(c),
                    }
                }
                message = Some(literal);
            }
            _ => {}
        }
        if depth == 0 {
            return message;
        }
    }
    None
}

/// Whoever makes a caller without a signature acts with all rights, or with those that it says: that is done for the services that this
/// server is, and for a job's role, and is otherwise for tests.
#[test]
fn a_caller_is_made_without_a_signature_in_three_files_alone() {
    const MAY: [&str; 3] = ["crates/server/src/access.rs", "crates/wire/src/caller.rs", "crates/wire/src/sigv4.rs"];
    let is_test = |file: &str| file.ends_with("/tests.rs") || file.contains("/tests/") || file.contains("/matrix/");
    let mut found = BTreeSet::new();
    for file in files_below("crates").into_iter().filter(|f| f.contains("/src/") && f.ends_with(".rs")) {
        let source = read(&file);
        // What stands below it is compiled for tests alone.
        let shipped = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let made = ["Verified::in_process(", "Caller::in_process(", "Self::in_process(", "Caller::service("];
        let defined = shipped.contains("fn in_process(");
        if !is_test(&file) && (defined || made.iter().any(|made| shipped.contains(made))) {
            found.insert(file);
        }
    }
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), MAY);
}

/// A phrase, and what it is about as fields, which programs find and which the log bounds and escapes.
#[test]
fn what_is_logged_is_a_phrase_and_fields() {
    let sources = files_below("crates").into_iter().chain(files_below("adapters"));
    let mut seen = 0;
    // The tests of the log itself log what should not be.
    for file in sources.filter(|f| f.ends_with(".rs") && !f.ends_with("log_lines.rs")) {
        let source = read(&file);
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in source.split(&format!("tracing::{level}!(")).skip(1) {
                let message = message_of(call).unwrap_or_else(|| panic!("{file}: a {level} without a message"));
                let told = || format!("{file}: {level} {message:?}");
                seen += 1;
                assert!(!message.contains('{'), "what changes is a field: {}", told());
                assert!(!message.ends_with(['.', '!']), "{}", told());
                let mut letters = message.chars();
                let capital = letters.next().is_none_or(char::is_uppercase);
                let name = letters.next().is_some_and(|c| c.is_uppercase() || c.is_ascii_digit());
                assert!(!capital || name, "a phrase, no sentence: {}", told());
            }
        }
    }
    assert!(seen > 80, "{seen} found: the source is written differently now");
}

/// Each line of the checklist once, with tests that are there.
#[test]
fn the_page_about_security_has_every_line_and_names_tests_that_exist() {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for row in read("docs/security.md").lines().filter(|line| line.starts_with("| ") && !line.starts_with("| # |")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, line, is, what, tests] = cells[..] else { panic!("a row has five cells: {row}") };
        lines.push(number.parse::<u32>().unwrap_or_else(|_| panic!("a row begins with its number: {row}")));
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let fits = match is {
            "yes" => !names.is_empty(),
            "partly" => !names.is_empty() && what.len() > 20,
            "not yet" => names.is_empty(),
            "said" => names.is_empty() && what.contains("SECURITY.md"),
            _ => false,
        };
        if !fits || line.len() < 5 {
            wrong.push(format!("{number} says {is:?}, which does not fit what follows"));
        }
        wrong.extend(names.iter().filter_map(|name| find_test(name).err()).map(|why| format!("{number}: {why}")));
    }
    assert_eq!(lines, (1..=41).collect::<Vec<_>>());
    assert!(wrong.is_empty(), "docs/security.md:\n{}", wrong.join("\n"));
}

/// The one place where memory can be mishandled, small enough to be read as a whole.
const UNSAFE_LINES_MAX: usize = 500;

#[test]
fn only_the_sandbox_has_unsafe_code_and_all_of_it_in_one_file() {
    const FORBIDDEN: &str = "#![forbid(unsafe_code)]";
    for krate in crates().iter().filter(|krate| *krate != "crates/sandbox" && *krate != "tests") {
        let source = format!("{krate}/src");
        let roots: Vec<String> = ["lib.rs", "main.rs"].iter().map(|name| format!("{source}/{name}")).collect();
        let mut roots = roots.iter().filter(|root| files_below(&source).contains(root)).peekable();
        assert!(roots.peek().is_some(), "{krate} has a root");
        for root in roots {
            assert!(read(root).lines().any(|line| line == FORBIDDEN), "{root} lacks {FORBIDDEN}");
        }
    }
    let sys = "crates/sandbox/src/sys.rs";
    assert!(read("crates/sandbox/src/lib.rs").contains("#![deny(unsafe_code)]"));
    for file in files_below("crates/sandbox/src") {
        let text = read(&file);
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        assert!(file == sys || !code.into_iter().any(|line| line.contains("unsafe ")), "{file} has unsafe code");
        assert!(file == sys || !text.contains("allow(unsafe_code)"), "{file} allows unsafe code");
    }
    let blocks = read(sys).matches("unsafe {").count();
    let reasons = read(sys).matches("// SAFETY: ").count();
    assert!(blocks > 0 && reasons >= blocks, "{blocks} blocks and {reasons} reasons why they are sound");
    assert!(read(sys).lines().count() <= UNSAFE_LINES_MAX);
}

#[test]
fn the_two_lists_of_what_may_be_depended_on_say_the_same() {
    let quoted = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let between = |text: &str, from: &str, to: &str| {
        let rest = text.split_once(from).unwrap_or_else(|| panic!("{from} is there")).1;
        rest.split_once(to).unwrap_or_else(|| panic!("{to} follows {from}")).0.to_owned()
    };
    let (ours, theirs) = (read("tests/deps.py"), read("deny.toml"));
    assert_eq!(quoted(&between(&ours, "LICENCES = {", "}")), quoted(&between(&theirs, "allow = [", "]")));
    let denied = quoted(&between(&theirs, "deny = [", "\n]"));
    let mut wanted = quoted(&between(&ours, "BANNED = {", "}"));
    let floors = between(&ours, "FLOORS = {", "}");
    for floor in floors.split("),").filter(|floor| floor.contains('(')) {
        let (name, version) = floor.split_once("\": (").expect("a name and a version");
        let version = version.trim_end_matches(')').replace(", ", ".");
        wanted.insert(format!("{}:<{version}", name.trim().trim_matches('"')));
    }
    assert_eq!(denied, wanted);
    assert!(
        ours.contains("https://github.com/rust-lang/crates.io-index") && theirs.contains("unknown-registry = \"deny\"")
    );
}
