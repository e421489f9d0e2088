//! The one binary: reads the command line, sets the process up, and hands over to the command.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod access;
mod audit;
mod bodies;
mod brake;
mod cli;
mod client;
mod credentials;
mod demo;
mod dispatch;
mod doctor;
mod endpoints;
mod env;
mod failure;
mod function;
mod gateway;
mod iam;
mod interrupt;
mod job;
mod listener;
mod log_lines;
mod logs;
mod metrics;
mod names;
mod output;
mod place;
mod progress;
mod remote_functions;
mod report;
mod rooms;
mod run;
mod runtimes;
mod server;
mod settings;
mod sinks;
mod state_file;
mod threads;
mod tls;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use longshore_store::failpoint::{self, Place};

use crate::cli::{Cli, Command, LogFormat};
use crate::failure::{Because, FAILED, Failure, JOB_FAILED, OK, USAGE};
use crate::interrupt::Interrupt;
use crate::server::Server;
use crate::settings::Settings;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|word| word == longshore_sandbox::HELPER_ARGUMENT) {
        // The process that forks those of functions: before anything that has threads, files or settings.
        longshore_sandbox::helper::main();
    }
    longshore_sandbox::bound_the_allocator();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked =
                matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion);
            // A reader that is gone is not worth a word.
            let _ = error.print();
            return ExitCode::from(if asked { OK } else { USAGE });
        }
    };
    match set_up(&cli).and_then(|format| command(cli, &format)) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.status)
        }
    }
}

/// What holds for the whole process: private files, no core dumps, logs on standard error. Returns how these are written,
/// which the settings of a server may change.
fn set_up(cli: &Cli) -> Result<log_lines::Format, Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // A core dump would hold the secret.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).because("cannot turn core dumps off")?;
    // A function may hold a thousand connections to its Runtime API, and the usual limit of 1,024 files is for programs
    // that use select(2). Functions have a limit of their own.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)
        .because("cannot raise the limit of open files")?;
    // Nor is this memory shown to other processes of the same user, functions among them.
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).because("cannot keep this process's memory from others")?;

    // `serve` tells a job's life; commands that print their own progress are not interrupted by it. s3s calls every
    // answer that is an error of its own, a missing object too; what is one is logged by the room.
    let default = if matches!(cli.command, Command::Serve(_)) { "info,s3s=off" } else { "error,s3s=off" };
    let filter = match std::env::var("LONGSHORE_LOG") {
        Ok(asked) if !asked.is_empty() => EnvFilter::try_new(&asked).map_err(|e| {
            Failure::usage(format!("LONGSHORE_LOG: {e}")).hint("try info, debug or info,longshore_jobs=debug")
        })?,
        _ => EnvFilter::new(default),
    };
    let format = log_lines::Format::default();
    format.set(cli.log_format.unwrap_or(LogFormat::Text));
    let lines = log_lines::Lines::new(format.clone());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).event_format(lines).init();
    Ok(format)
}

fn command(cli: Cli, format: &log_lines::Format) -> Result<u8, Failure> {
    // A flag goes before the settings.
    let is_given = cli.log_format.is_some();
    match cli.command {
        Command::Serve(args) if args.print_config => {
            // A reader that is gone (`| head`) is not an error.
            let _ = std::io::stdout().write_all(settings::DEFAULTS.as_bytes());
            Ok(OK)
        }
        Command::Serve(args) => block_on(serve(args, format, is_given)),
        Command::Env(args) => block_on(async move { env::env(&args).await.map(|()| OK) }),
        Command::Demo(args) => block_on(demo::demo(args)),
        // 1 is for tasks that failed: whoever reads the status must not take an error of ours for that.
        Command::Run(args) => block_on(run::run(*args)).map_err(|failure| match failure.status {
            FAILED => Failure { status: JOB_FAILED, ..failure },
            _ => failure,
        }),
        Command::Job(args) => block_on(job::job(*args)),
        Command::Function(args) => block_on(function::function(*args)),
        Command::Iam(args) => block_on(iam::iam(*args)),
        Command::Doctor(args) => {
            let (data_dir, mut settings) = place(&args.place)?;
            settings.confine(&args.confine);
            doctor::doctor(&data_dir, &settings, args.json)
        }
        Command::Logs(args) => {
            let data_dir = settings::data_dir(args.data_dir.as_deref(), variable)?;
            if let Some(kept) = run::state::log_of_run(args.data_dir.as_deref(), variable, &args.function)
                && !args.follow
            {
                logs::print_file(&kept)?;
                return Ok(OK);
            }
            block_on(async move { logs::print(&data_dir, &args.function, args.follow).await.map(|()| OK) })
        }
        Command::Runtimes(cli::Runtimes::Install { runtime, packages, python, data_dir }) => {
            let named = data_dir;
            let data_dir = settings::data_dir(named.as_deref(), variable)?;
            let installed = runtimes::install(&data_dir, &runtime, &packages, python.as_deref())?;
            println!("{}", installed.folder.display());
            eprintln!("{}", installed.told(named.as_deref()));
            Ok(OK)
        }
        Command::Failpoints => {
            for place in Place::ALL {
                // A reader that is gone is not an error.
                let _ = writeln!(std::io::stdout(), "{place}");
            }
            Ok(OK)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "longshore", &mut script);
            let _ = std::io::stdout().write_all(&script);
            Ok(OK)
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The data directory and its settings, flags apart.
fn place(place: &cli::Where) -> Result<(PathBuf, Settings), Failure> {
    let data_dir = settings::data_dir(place.data_dir.as_deref(), variable)?;
    let settings = Settings::load(&data_dir, place.config.as_deref(), settings::variables())?;
    Ok((data_dir, settings))
}

fn block_on(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("longshore")
        .build()
        .because("cannot start threads")?;
    let outcome = runtime.block_on(command);
    // What still blocks then (a name lookup, a read of standard input) is nobody's any more.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: cli::Serve, format: &log_lines::Format, is_given: bool) -> Result<u8, Failure> {
    let (failpoint, passed) = (variable(failpoint::VARIABLE), variable(failpoint::VARIABLE_PASSED));
    let set = failpoint::set(failpoint.as_deref(), passed.as_deref());
    if let Some(failpoint) = set.map_err(|error| Failure::usage(error.to_string()))? {
        tracing::warn!(failpoint, "this server is set to kill itself: it is for tests");
    }
    let mut interrupt = Interrupt::listen()?;
    let (data_dir, mut settings) = place(&args.place)?;
    if !is_given {
        format.set(settings.log_format);
    }
    if let Some(listen) = args.listen {
        settings.listen = listen;
    }
    settings.allow_plain_http |= args.allow_plain_http;
    settings.iam = args.iam.unwrap_or(settings.iam);
    if let (Some(certificate), Some(key)) = (args.tls_certificate, args.tls_key) {
        settings.tls = settings::Tls { certificate, key };
    }
    settings.metrics_listen = args.metrics_listen.or(settings.metrics_listen);
    settings.confine(&args.confine);
    settings.check_listen()?;
    settings.check_iam()?;
    let jobs = settings.jobs();
    let patience = Duration::from_secs(settings.limits.stop_seconds);
    let server = Server::start(server::open_data_dir(&data_dir)?, settings, jobs).await?;
    // In a terminal, a server ends with it.
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        server.heed_hang_ups()?;
    }
    // On standard output, for whoever started it and waits for it; the rest is talk.
    println!("listening on {}://{}", server.scheme(), server.address);
    // A variable of this shell is not one of the shell that the line is for.
    let is_named = args.place.data_dir.is_some() || variable("LONGSHORE_DATA_DIR").is_some_and(|dir| !dir.is_empty());
    let named = match is_named {
        true => format!(" --data-dir {}", env::quoted(&server.data_dir().to_string_lossy())),
        false => String::new(),
    };
    let hint = format!("eval \"$(longshore env{named})\" points the AWS CLI at it");
    match format.is_json() {
        // Whoever reads these lines reads them as JSON, each of them.
        true => tracing::info!(hint, "serving"),
        false => eprintln!("hint: {hint}"),
    }
    // Behind the line that others wait for.
    longshore_sandbox::let_go_of_the_program();
    let fatal = server.fatal.clone();
    tokio::select! {
        () = interrupt.asked() => {
            server.stop(Some(patience)).await;
            Ok(OK)
        }
        reason = fatal.thrown() => Err(not_durable(&reason)),
    }
}

/// After a failed sync nothing may be acknowledged, and nothing is waited for: the process ends.
pub fn not_durable(reason: &str) -> Failure {
    Failure::new(format!("state could not be made durable: {reason}"))
        .hint("what was acknowledged is kept; look at the disk, then start again")
}
