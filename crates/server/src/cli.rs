//! The command line: what can be said. What it does is in the module of each command.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Amazon S3 Batch Operations for everyone else's storage: calls a function for every object of a manifest and reports
/// each object exactly once.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, max_term_width = 120, arg_required_else_help = true)]
pub struct Cli {
    /// How log lines are written to standard error; LONGSHORE_LOG sets how much (info, debug, longshore_jobs=debug)
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LONGSHORE_LOG_FORMAT")]
    pub log_format: LogFormat,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: S3, Lambda and S3 Control on one port
    Serve(Serve),
    /// Print the lines that point the AWS CLI and SDKs at the server: eval "$(longshore env)"
    Env(Env),
    /// Run a real job over a folder of files and say at each step what it does
    Demo(Demo),
    /// Call a function for every object, without a server
    Run(Box<Run>),
    /// Print what a function wrote to standard output and standard error
    Logs(Logs),
    /// Install boto3, which AWS's Python runtimes carry, for functions of this server
    #[command(subcommand)]
    Runtimes(Runtimes),
    /// Print a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum Runtimes {
    /// Make an interpreter for functions of a runtime, with boto3 in it
    Install {
        /// The runtime of the functions: python3.12, say. The nearest installed Python is used
        runtime: String,
        /// Further packages to install, as pip names them
        packages: Vec<String>,
        /// Where state is kept [default: $LONGSHORE_DATA_DIR, else $XDG_DATA_HOME/longshore, else ~/.local/share/longshore]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct Where {
    /// Where state is kept [default: $LONGSHORE_DATA_DIR, else $XDG_DATA_HOME/longshore, else ~/.local/share/longshore]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The settings file [default: longshore.toml in the data directory]
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub place: Where,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7300]
    #[arg(long, value_name = "ADDRESS", value_parser = crate::settings::listen_address)]
    pub listen: Option<SocketAddr>,
    /// Listen even where other machines reach it, although nothing is encrypted
    #[arg(long)]
    pub allow_plain_http: bool,
    /// Print the settings file with every setting, its meaning and its default, and exit
    #[arg(long)]
    pub print_config: bool,
}

#[derive(Debug, Args)]
pub struct Env {
    #[command(flatten)]
    pub place: Where,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// The folder whose files become the objects [default: the repository around the current folder]
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Print the function that the demo deploys, and exit
    #[arg(long)]
    pub print_function: bool,
    /// Keep the demo's data directory instead of a temporary one
    #[arg(long)]
    pub keep: bool,
    /// The data directory to use; kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the completion report is copied to [default: longshore-demo-report, below target/ where there is one]
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Of a folder, every regular file is taken, hidden ones and those in folders like target/ or node_modules/ too; only .git folders, \
symbolic links and special files are left out, and counted. A path given twice is two tasks, as in a manifest; ./a is a.\n\n\
Exit status: 0 all succeeded, 1 some failed, 2 the job itself failed or its report could not be written, 64 usage, \
130 stopped by Ctrl-C."
)]
pub struct Run {
    /// A Python or Node file (handler.py, handler.py:function), a folder, a zip, or an executable bootstrap
    #[arg(required_unless_present = "resume")]
    pub function: Option<String>,

    /// The objects: a local folder, or s3://bucket/prefix of the embedded storage or of --endpoint-url
    #[arg(long, value_name = "DIR|s3://…", conflicts_with = "manifest")]
    pub source: Option<String>,
    /// The objects: a CSV manifest (bucket,key[,version]; keys URL-encoded), local or in a storage
    #[arg(long, value_name = "FILE|s3://…")]
    pub manifest: Option<String>,
    /// The objects: keys below --source, one a line, from a file or "-" for standard input. Without --source and
    /// --manifest, paths of local files are read from standard input
    #[arg(long, value_name = "FILE|-", conflicts_with = "manifest")]
    pub keys: Option<String>,
    /// Only N of the objects, drawn evenly
    #[arg(long, value_name = "N")]
    pub sample: Option<u64>,
    /// The draw of --sample: the same seed draws the same objects
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "sample")]
    pub seed: u64,

    /// The function in the file or package, as Lambda writes it (module.function)
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
    /// The Lambda runtime (python3.12, nodejs22.x, provided.al2023) [default: by the file's kind and what is installed]
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
    /// Seconds that one invocation may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub timeout: u32,
    /// Memory of one environment in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..=10240))]
    pub memory: u32,
    /// An environment variable of the function; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    pub variables: Vec<(String, String)>,
    /// An argument that the function finds in event["job"]["userArguments"]; may be repeated
    #[arg(long = "arg", value_name = "KEY=VALUE", value_parser = pair)]
    pub arguments: Vec<(String, String)>,

    /// Invocations at once [default: what the machine and the function allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub concurrency: Option<u32>,
    /// Attempts at a task before its failure is final
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: Option<u32>,

    /// Where the completion report goes: a local folder, or s3://bucket/prefix [default: with the run's state]. With
    /// --resume, another local folder than before
    #[arg(long, value_name = "DIR|s3://…")]
    pub report: Option<String>,
    /// Print the finished job as JSON on standard output, in the shape of DescribeJob
    #[arg(long)]
    pub json: bool,

    /// Go on with a run that was stopped: the one named, or the latest
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "", conflicts_with_all = [
        "function", "source", "manifest", "keys", "sample", "handler", "runtime", "timeout", "memory", "variables",
        "arguments", "concurrency", "attempts", "endpoint_url", "profile", "region", "no_sign_request", "allow_plain_http",
    ])]
    pub resume: Option<String>,
    /// The data directory with the embedded storage to use [default: one of the run's own; for s3:// the server's]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// The S3 in which s3:// places are: any store that speaks S3. Without it, --profile or --region mean that of the
    /// profile, else Amazon S3; without all of them, s3:// is the embedded storage
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// The profile of the AWS configuration with the credentials for it [default: AWS's credential chain]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// The region of that S3 [default: what profile or environment say, else us-east-1]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Do not sign requests to that S3: for public buckets
    #[arg(long, conflicts_with = "profile")]
    pub no_sign_request: bool,
    /// Let --endpoint-url be plain HTTP to another machine, although nothing is encrypted
    #[arg(long)]
    pub allow_plain_http: bool,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// The function's name
    pub function: String,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// Where state is kept [default: as for serve]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must be KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_needs_a_function_or_something_to_resume() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["longshore", "run"], words].concat());
        assert!(parse(&[]).is_err());
        assert!(parse(&["f.py", "--resume"]).is_err());
        assert!(parse(&["--resume", "--timeout", "9"]).is_err(), "what would be ignored is refused");
        assert!(parse(&["--resume", "--report", "x"]).is_ok());
        assert!(parse(&["--resume", "--json"]).is_ok());
        assert!(parse(&["--resume"]).is_ok());
        assert!(parse(&["--resume", "20261122-1"]).is_ok());
        assert!(parse(&["f.py", "--source", ".", "--arg", "a=b=c", "--arg", "d="]).is_ok());
        assert!(parse(&["f.py", "--arg", "=b"]).is_err());
        assert!(parse(&["f.py", "--source", ".", "--manifest", "m"]).is_err());
    }
}
