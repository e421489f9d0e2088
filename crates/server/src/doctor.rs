//! `longshore doctor`: which layers of the sandbox this machine has for functions, and what else of it matters to them.
//!
//! It tries the layers as a server with the same settings would, on the same machine and as the same user. Nothing is started and
//! nothing is left behind.

use std::io::Write;
use std::path::Path;

use longshore_functions::host::sandbox::examine;
use longshore_functions::host::{Launcher, Network, check_runtime};
use longshore_sandbox::{Layer, Mode, Report, State};
use rustix::process::Resource;
use serde_json::{Value, json};

use crate::failure::{Because, FAILED, Failure, OK};
use crate::server::runtimes_dirs;
use crate::settings::Settings;

/// One of each language is asked for; what is found says its version.
const LANGUAGES: [(&str, &str); 2] = [("Python", "python3.12"), ("Node.js", "nodejs22.x")];

/// Prints the table, or one JSON document. Status 1 where a server with these settings would not start.
pub fn doctor(data_dir: &Path, settings: &Settings, as_json: bool) -> Result<u8, Failure> {
    let sandbox = settings.sandbox();
    let scratch = std::env::temp_dir();
    let (report, refused) = examine(&sandbox, &Launcher::default(), &scratch).because("the sandbox cannot be tried")?;
    let machine = machine(data_dir);
    let status = if refused.is_some() { FAILED } else { OK };
    let text = if as_json {
        let document = json!({
            "sandbox": {
                "mode": sandbox.mode,
                "network": sandbox.network,
                "starts": refused.is_none(),
                "refusal": refused.as_ref().map(|refusal| &refusal.message),
                "root": report.root,
                "layers": layers(&report),
            },
            "machine": machine.iter().map(|fact| (fact.name.to_owned(), fact.value.clone())).collect::<serde_json::Map<_, _>>(),
        });
        format!("{document:#}\n")
    } else {
        table(&report, &machine, sandbox.mode, sandbox.network)
    };
    // A reader that is gone (`| head`) is not an error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let Some(refusal) = refused.filter(|_| !as_json) {
        Failure::new(refusal.message).hint(refusal.hint).print();
    }
    Ok(status)
}

fn hint(layer: Layer, state: &State, root: bool) -> Option<&'static str> {
    matches!(state, State::Missing(_)).then(|| layer.hint(root))
}

fn layers(report: &Report) -> Vec<Value> {
    let rows = report.layers.iter().map(|(layer, state)| {
        json!({
            "layer": layer,
            "state": state.word(),
            "detail": state.detail(),
            "why": layer.why(),
            "hint": hint(*layer, state, report.root),
        })
    });
    rows.collect()
}

fn table(report: &Report, machine: &[Fact], mode: Mode, network: Network) -> String {
    let mut text = String::from("The sandbox of functions, each layer tried on this machine:\n\n");
    for (layer, state) in &report.layers {
        let why = layer.why();
        text.push_str(&format!("  {:<16} {:<11} {why}\n", layer.name(), state.word()));
        let indent = " ".repeat(31);
        if !state.detail().is_empty() {
            text.push_str(&format!("{indent}{}\n", state.detail()));
        }
        if let Some(hint) = hint(*layer, state, report.root) {
            text.push_str(&format!("{indent}to turn it on: {hint}\n"));
        }
    }
    let (mode, network) = (json!(mode), json!(network));
    text.push_str(&format!("\n  settings: sandbox = {mode}, network = {network}\n\nThis machine:\n\n"));
    for fact in machine {
        let shown = match &fact.value {
            Value::String(text) => text.clone(),
            Value::Null => "none".to_owned(),
            other => other.to_string(),
        };
        text.push_str(&format!("  {:<29}{}{}\n", fact.label, shown, fact.unit));
    }
    text
}

/// Something of the machine that explains what functions can do on it.
struct Fact {
    name: &'static str,
    label: String,
    value: Value,
    unit: &'static str,
}

fn machine(data_dir: &Path) -> Vec<Fact> {
    let fact = |name, label: &str, value, unit| Fact { name, label: label.to_owned(), value, unit };
    let uname = rustix::system::uname();
    let kernel = format!("{} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy());
    let mib = |bytes: u64| json!(bytes / (1 << 20));
    let memory = rustix::system::sysinfo();
    let files = rustix::process::getrlimit(Resource::Nofile);
    let cores = std::thread::available_parallelism().map(usize::from).ok();
    let mut facts = vec![
        fact("kernel", "kernel", json!(kernel), ""),
        fact("user", "user ID", json!(rustix::process::geteuid().as_raw()), ""),
        fact("cgroups", "cgroups", json!(cgroups()), ""),
        fact("cores", "cores", json!(cores), ""),
        fact("memory_mib", "memory", mib(memory.totalram as u64 * u64::from(memory.mem_unit)), " MiB"),
        fact("open_files_max", "open files, at most", json!(files.current), ""),
    ];
    for (language, runtime) in LANGUAGES {
        let found = check_runtime(runtime, &runtimes_dirs(Some(data_dir)));
        let shown = match found {
            Ok(found) => json!(format!("{} ({})", found.version, found.program.display())),
            Err(_) => Value::Null,
        };
        facts.push(fact(if language == "Python" { "python" } else { "node" }, language, shown, ""));
    }
    facts.push(fact("data_dir", "data directory", json!(data_dir.display().to_string()), ""));
    // What is not there yet will be made in the nearest folder that is.
    let there = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let mode = std::fs::metadata(data_dir).ok().map(|metadata| {
        use std::os::unix::fs::PermissionsExt;
        format!("{:04o}", metadata.permissions().mode() & 0o7777)
    });
    facts.push(fact("data_dir_mode", "  its mode", json!(mode), ""));
    let free = rustix::fs::statvfs(there).ok().map(|disk| disk.f_bavail * disk.f_frsize / (1 << 20));
    facts.push(fact("disk_free_mib", "  free on its disk", json!(free), " MiB"));
    facts
}

/// Which versions of control groups are mounted.
fn cgroups() -> &'static str {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "v1 and v2",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}
