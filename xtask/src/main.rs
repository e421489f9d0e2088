//! Chores of the project: `cargo xtask bench` measures a job of 20,000 tasks through the embedded host, `cargo xtask
//! bench-host` the host's starts and what its environments cost, `cargo xtask goals` every goal of docs/performance.md.
//!
//! The measuring itself is Python beside this file, run with the boto3 of `target/venv`, so that the client is not ours.

#![forbid(unsafe_code)]

mod stub;

use std::path::Path;
use std::process::{Command, ExitCode};

const HELP: &str = "\
usage: cargo xtask bench [ARGUMENTS OF xtask/bench.py]
       cargo xtask bench-host [ARGUMENTS OF xtask/host.py]
       cargo xtask goals [P1 P5 ...] [--rounds 5] [--bench DIR] [--binary PATH] [--json FILE] [--table FILE]
       cargo xtask stub                                 a function elsewhere that costs next to nothing
  e.g. cargo xtask bench --tasks 20000 --rounds 5
       cargo xtask bench --floor DIR        beside the bare floor and the ceiling, in one run
       cargo xtask goals P1 P2 --bench DIR  two goals, beside the floors whose sources are in DIR";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let which = arguments.next();
    let rest: Vec<String> = arguments.collect();
    match which.as_deref() {
        Some("bench") => measure(&["xtask/bench.py"], &rest),
        Some("bench-host") => measure(&["xtask/host.py"], &rest),
        Some("goals") => measure(&["-m", "goals"], &rest),
        Some("stub") if rest.is_empty() => match stub::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: the stub cannot serve: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(64)
        }
    }
}

/// Builds the server, unless another build is named, and runs one of the scripts.
fn measure(script: &[&str], arguments: &[String]) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let python = root.join("target/venv/bin/python");
    if !python.exists() {
        eprintln!("error: target/venv is missing\nhint: ./check makes it, with the AWS clients in it");
        return ExitCode::from(2);
    }
    let has =
        |name: &str| arguments.iter().any(|a| a == name || a.strip_prefix(name).is_some_and(|a| a.starts_with('=')));
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "longshore"]).current_dir(root);
    if !["--binary", "--help", "-h"].into_iter().any(has) && !run(without_cargo(&mut build)) {
        return ExitCode::from(2);
    }
    let tools = std::env::current_exe().unwrap_or_default();
    let measured = without_cargo(&mut Command::new(python))
        .args(script)
        .args(arguments)
        .current_dir(root)
        .env("PYTHONPATH", root.join("xtask"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("XTASK", tools)
        .status();
    match measured {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {script:?} does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes out what `cargo run` tells this program of its own package: build scripts look at it, and a build below this one would
/// do theirs anew, as the next one without it would again.
fn without_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if name.to_str().is_some_and(|name| ours.iter().any(|ours| name.starts_with(ours))) {
            command.env_remove(name);
        }
    }
    command
}

fn run(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("error: {command:?} does not start: {error}");
            false
        }
    }
}
