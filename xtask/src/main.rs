//! Chores of the project: `cargo xtask bench` measures a job of 20,000 tasks through the embedded host, `cargo xtask
//! bench-host` the host's starts and what its environments cost.
//!
//! The measuring itself is `xtask/bench.py` and `xtask/host.py`, run with the boto3 of `target/venv`, so that the client is
//! not ours.

use std::path::Path;
use std::process::{Command, ExitCode};

const HELP: &str = "\
usage: cargo xtask bench [ARGUMENTS OF xtask/bench.py]
       cargo xtask bench-host [ARGUMENTS OF xtask/host.py]
  e.g. cargo xtask bench --tasks 20000 --rounds 5
       cargo xtask bench --floor ../shared/bench        beside the bare floor and the ceiling, in one run";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bench") => bench("xtask/bench.py", &arguments.collect::<Vec<_>>()),
        Some("bench-host") => bench("xtask/host.py", &arguments.collect::<Vec<_>>()),
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(64)
        }
    }
}

fn bench(script: &str, arguments: &[String]) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let python = root.join("target/venv/bin/python");
    if !python.exists() {
        eprintln!("error: target/venv is missing\nhint: ./check makes it, with the AWS clients in it");
        return ExitCode::from(2);
    }
    let built = run(Command::new("cargo").args(["build", "--release", "--package", "longshore"]).current_dir(root));
    if !built {
        return ExitCode::from(2);
    }
    let measured = run(Command::new(python).arg(root.join(script)).args(arguments).current_dir(root));
    if measured { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
