//! The command line: what can be said. What it does is in the module of each command.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longshore_functions::host::Network;
use longshore_sandbox::Mode;

/// Amazon S3 Batch Operations for everyone else's storage: calls a function for every object of a manifest and reports
/// each object exactly once.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, max_term_width = 120, arg_required_else_help = true)]
pub struct Cli {
    /// How log lines are written to standard error; LONGSHORE_LOG sets how much (info, debug, longshore_jobs=debug)
    /// [default: text, or for serve what the settings say]
    #[arg(long, global = true, value_enum, env = "LONGSHORE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: S3, Lambda, S3 Control, IAM and STS on one port
    Serve(Serve),
    /// Print the lines that point the AWS CLI and SDKs at the server: eval "$(longshore env)"
    Env(Env),
    /// Run a real job over a folder of files and say at each step what it does
    Demo(Demo),
    /// Call a function for every object, without a server
    Run(Box<Run>),
    /// Create jobs, watch them, steer them, and read what came of them: here, or at any other endpoint
    Job(Box<Job>),
    /// Deploy functions, invoke them, and see what they do: here, or at any other endpoint
    Function(Box<Function>),
    /// Say who may do what and why, and show what was denied
    Iam(Box<Iam>),
    /// Say which layers of the sandbox this machine has for functions, what is missing, and what would turn it on
    Doctor(Doctor),
    /// Print what a function wrote to standard output and standard error
    Logs(Logs),
    /// Install boto3, which AWS's Python runtimes carry, for functions of this server
    #[command(subcommand)]
    Runtimes(Runtimes),
    /// Print the places at which a test may have the server kill itself
    #[command(hide = true)]
    Failpoints,
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
        /// The runtime of the functions: python3.12, say
        runtime: String,
        /// Further packages to install, as pip names them
        packages: Vec<String>,
        /// The Python to make it from, of the runtime's version [default: the nearest one on the PATH]
        #[arg(long, value_name = "FILE")]
        python: Option<PathBuf>,
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

/// How functions are kept apart.
#[derive(Debug, Clone, Default, Args)]
pub struct Confine {
    /// How much sandbox functions get: auto (every layer that this machine has, and never too few), require (every layer), or
    /// off (none: functions can do what the server's user can) [default: auto, or what the settings say]
    #[arg(long, value_name = "auto|require|off")]
    pub sandbox: Option<Mode>,
    /// What functions may reach: s3 (this server's S3 alone), or open (what this machine reaches) [default: s3, or what the
    /// settings say]
    #[arg(long, value_name = "s3|open")]
    pub network: Option<Network>,
}

#[derive(Debug, Args)]
pub struct Iam {
    #[command(flatten)]
    pub at: At,
    #[command(subcommand)]
    pub command: IamCommand,
}

#[derive(Debug, Subcommand)]
pub enum IamCommand {
    /// Say whether a user or a role may do something, which statement decides, and what would change it
    #[command(
        after_help = "Exit status: 0 allowed, 1 denied, 2 it could not be asked, 64 what was given cannot be meant."
    )]
    Explain {
        /// Who would ask: an ARN (of a user, a role, or a role's session), user/NAME, role/NAME, or a service that would assume a role
        /// (batchoperations.s3.amazonaws.com)
        principal: String,
        /// What it would do: s3:GetObject, say
        action: String,
        /// With what: an ARN, *, s3://BUCKET/KEY; for an action of lambda a function's name, of jobs a job's ID, of iam and sts
        /// user/NAME, role/NAME or policy/NAME
        resource: String,
        /// A condition key that the request would have (aws:SourceIp=203.0.113.7); may be repeated, for a key with several values too
        #[arg(long = "context", value_name = "KEY=VALUE", value_parser = pair)]
        context: Vec<(String, String)>,
    },
    /// Show what was denied, the newest first: from the audit log in the data directory
    Denials {
        /// Show instead who was not let in at all, as anybody can make that come about: the signature or the key does not hold
        #[arg(long)]
        refused: bool,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub place: Where,
    #[command(flatten)]
    pub confine: Confine,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub place: Where,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7300]
    #[arg(long, value_name = "ADDRESS", value_parser = crate::settings::listen_address)]
    pub listen: Option<SocketAddr>,
    /// Whether policies are asked; off is for throw-away test servers on loopback [default: on]
    #[arg(long, value_name = "ON|OFF")]
    pub iam: Option<crate::settings::Iam>,
    /// Listen even where other machines reach it, although nothing is encrypted
    #[arg(long)]
    pub allow_plain_http: bool,
    /// Serve over TLS with this certificate, a PEM file with the chain behind it [default: plain HTTP]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Where metrics are served to Prometheus without a signature: an address of the loopback interface [default: nowhere]
    #[arg(long, value_name = "ADDRESS", value_parser = crate::settings::metrics_address)]
    pub metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub confine: Confine,
    /// Print the settings file with every setting, its meaning and its default, and exit
    #[arg(long)]
    pub print_config: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --endpoint-url, the lines are those of root, from the data directory of the server. With it, they have no key but that of \
--profile: for everybody who was given one, on any machine."
)]
pub struct Env {
    #[command(flatten)]
    pub place: Where,
    /// The server, wherever it is: http(s)://host[:port]. No data directory is needed then
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub endpoint_url: Option<String>,
    /// The profile of the AWS configuration with the access key [default: what the environment has]
    #[arg(long, value_name = "NAME", requires = "endpoint_url")]
    pub profile: Option<String>,
    /// The server's region [default: what environment or profile say, else us-east-1]
    #[arg(long, value_name = "REGION", requires = "endpoint_url")]
    pub region: Option<String>,
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
    #[command(flatten)]
    pub confine: Confine,
    /// Where the completion report is copied to [default: longshore-demo-report, below target/ where there is one]
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Of a folder, every regular file is taken, hidden ones and those in folders like target/ or node_modules/ too; only .git folders, \
symbolic links, special files and names that are not UTF-8 are left out, and counted. A path given twice is two tasks, as in a \
manifest; ./a is a.\n\n\
Exit status: 0 all succeeded, 1 some failed, 2 the job itself failed or its report could not be written, 64 what was given cannot \
be meant and nothing was invoked, 130 stopped by Ctrl-C.",
    // Which flags go with which form is more than clap can say by itself.
    override_usage = "longshore run [OPTIONS] FUNCTION\n       longshore run --resume [RUN] [--report DIR] [--json] [--data-dir DIR]\n       \
longshore run --retry [RUN] [FUNCTION] [OPTIONS]"
)]
pub struct Run {
    /// A Python or Node file (handler.py, handler.py:function), a folder, a zip, or an executable bootstrap
    #[arg(required_unless_present_any = ["resume", "retry"])]
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
    #[arg(long, value_name = "NAME", requires = "function")]
    pub handler: Option<String>,
    /// The Lambda runtime (python3.12, nodejs22.x, provided.al2023) [default: by the file's kind and what is installed]
    #[arg(long, value_name = "RUNTIME", requires = "function")]
    pub runtime: Option<String>,
    /// Seconds that one invocation may take [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=900))]
    pub timeout: Option<u32>,
    /// Memory of one environment in MiB [default: 512]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..=10240))]
    pub memory: Option<u32>,
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

    #[command(flatten)]
    pub confine: Confine,
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
    /// Try again what failed in a run that is over: the one named, or the latest. A run of its own, with the function, the
    /// settings and the arguments of the earlier one where no others are given
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "", conflicts_with_all = [
        "resume", "source", "manifest", "keys", "sample", "endpoint_url", "profile", "region", "no_sign_request",
        "allow_plain_http",
    ])]
    pub retry: Option<String>,
    /// The data directory with the embedded storage to use [default: one of the run's own; for s3:// the server's]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// The S3 in which s3:// places are: any store that speaks S3. Without it, --profile or --region mean what the AWS CLI
    /// would use: what AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile name, else Amazon S3; without all of them,
    /// s3:// is the embedded storage
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
#[command(
    after_help = "Without --endpoint-url, --profile and --region, the Longshore that runs on the data directory is meant, with \
its own credentials. With one of them, credentials come from the AWS_* variables, then from the profile's access key, and the region \
and the endpoint from the same places as for the AWS CLI. A job may be named by the beginning of its ID."
)]
pub struct Job {
    #[command(flatten)]
    pub at: JobAt,
    #[command(subcommand)]
    pub command: JobCommand,
}

/// Which endpoint is meant, and how its answer is printed.
#[derive(Debug, Clone, Default, Args)]
pub struct At {
    /// Where the state of the server is kept [default: as for serve]; with --endpoint-url, whose credentials are meant. Not with --profile
    /// or --region, which mean credentials of another kind
    #[arg(long, value_name = "DIR", global = true, help_heading = "Endpoint", conflicts_with_all = ["profile", "region"])]
    pub data_dir: Option<PathBuf>,
    /// Another endpoint for all that is asked: http(s)://host[:port]
    #[arg(long, value_name = "URL", global = true, help_heading = "Endpoint")]
    pub endpoint_url: Option<String>,
    /// The region to ask, of AWS or of --endpoint-url
    #[arg(long, value_name = "REGION", global = true, help_heading = "Endpoint")]
    pub region: Option<String>,
    /// A profile of the AWS configuration files
    #[arg(long, value_name = "NAME", global = true, help_heading = "Endpoint")]
    pub profile: Option<String>,
    /// Print JSON in the API's own shape
    #[arg(long, global = true)]
    pub json: bool,
}

/// As [`At`], and whose jobs are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct JobAt {
    #[command(flatten)]
    pub at: At,
    /// The account of the jobs [default: the caller's]
    #[arg(long, value_name = "ID", global = true, help_heading = "Endpoint", value_parser = account)]
    pub account_id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Create a job and print its ID
    Create(Box<CreateJob>),
    /// List jobs, the newest first
    List {
        /// Only jobs of this status; may be repeated, or a list with commas
        #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
        status: Vec<longshore_core::job::Status>,
        /// At most so many jobs
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Show one job
    Describe {
        /// The job's ID, or the beginning of it
        job: String,
    },
    /// Show a job's progress until it is over. Ctrl-C leaves the job running
    #[command(after_help = "Exit status: 0 all tasks succeeded, 1 some failed, 2 the job itself failed or was \
cancelled, or it could not be watched, 3 these credentials may not be told how it goes, 130 stopped by Ctrl-C.")]
    Watch {
        /// The job's ID, or the beginning of it
        job: String,
    },
    /// Let a job run that waits to be confirmed
    Confirm {
        /// The job's ID, or the beginning of it
        job: String,
        /// Why; kept with the job
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Cancel a job. Tasks that are over keep their results
    Cancel {
        /// The job's ID, or the beginning of it
        job: String,
        /// Why; kept with the job
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Change a job's priority: the higher runs first
    Priority {
        /// The job's ID, or the beginning of it
        job: String,
        /// From 0 to 2147483647
        #[arg(value_parser = clap::value_parser!(u32).range(0..=2_147_483_647))]
        priority: u32,
    },
    /// List, set or remove a job's tags
    #[command(subcommand)]
    Tag(JobTag),
    /// Print a job's events, oldest first
    Events {
        /// The job's ID, or the beginning of it
        job: String,
        /// Wait for more until the job is over
        #[arg(long, short)]
        follow: bool,
    },
    /// Download a job's completion report, check it, and sum it up
    Report {
        /// The job's ID, or the beginning of it
        job: String,
        /// The folder it is written to [default: report-JOB]
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Write the report that the job's bucket did not take when the job ended, once the role or the bucket is mended (Longshore alone)
    Deliver {
        /// The job's ID, or the beginning of it
        job: String,
    },
    /// Show what failed, grouped by code and message
    #[command(
        after_help = "Exit status: 0 the failures were told; 1 they could not be, or the job's report is missing and they come from the \
server's own results: the reason is on standard error."
    )]
    Failures {
        /// The job's ID, or the beginning of it
        job: String,
        /// Print the key of each failed task instead, one a line, URL-encoded as in the report
        #[arg(long)]
        keys: bool,
    },
    /// Create a job from the completion report of one that is over: of what failed, with the same operation
    Retry {
        /// The job's ID, or the beginning of it
        job: String,
        /// Of all its tasks, those that succeeded too
        #[arg(long)]
        all: bool,
        /// The token that makes a repetition of this command the same job [default: a new one]
        #[arg(long, value_name = "TOKEN")]
        token: Option<String>,
        /// Wait to be confirmed before the first task
        #[arg(long)]
        confirm: bool,
        /// Show the job's progress until it is over
        #[arg(long)]
        watch: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum JobTag {
    /// Print a job's tags, one a line
    List {
        /// The job's ID, or the beginning of it
        job: String,
    },
    /// Add tags, or give them another value
    Set {
        /// The job's ID, or the beginning of it
        job: String,
        /// Tags to set
        #[arg(value_name = "KEY=VALUE", value_parser = pair, required = true)]
        tags: Vec<(String, String)>,
    },
    /// Remove tags
    Remove {
        /// The job's ID, or the beginning of it
        job: String,
        /// Keys of tags to remove
        #[arg(value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
        keys: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Default, Args)]
pub struct CreateJob {
    /// The function: its name, NAME:QUALIFIER, or its ARN
    #[arg(long, value_name = "FUNCTION", required_unless_present = "cli_input_json")]
    pub function: Option<String>,
    /// An argument that the function finds in event["job"]["userArguments"] (invocation schema 2.0); may be repeated
    #[arg(long = "arg", value_name = "KEY=VALUE", value_parser = pair, requires = "function")]
    pub arguments: Vec<(String, String)>,

    // A requirement that conflicts with what is given is not asked for by clap; hence the conflicts beside each.
    /// The objects: a CSV manifest. Its ETag is looked up
    #[arg(long, value_name = "s3://BUCKET/KEY", group = "rows", help_heading = "Objects")]
    pub manifest: Option<String>,
    /// The columns of --manifest: Bucket, Key, VersionId, Ignore [default: Bucket,Key]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', requires = "manifest", conflicts_with_all = ["inventory", "generate"], help_heading = "Objects")]
    pub fields: Vec<String>,
    /// The objects: the manifest.json of an S3 Inventory. Its ETag is looked up
    #[arg(long, value_name = "s3://BUCKET/KEY", group = "rows", help_heading = "Objects")]
    pub inventory: Option<String>,
    /// The ETag of --manifest or --inventory, so that it is not looked up, which takes s3:GetObject of your own credentials
    #[arg(long, value_name = "ETAG", requires = "rows", conflicts_with = "generate", value_parser = clap::builder::NonEmptyStringValueParser::new(), help_heading = "Objects")]
    pub etag: Option<String>,
    /// The objects: all below a prefix that pass the filters, listed by the job itself
    #[arg(long, value_name = "s3://BUCKET/PREFIX", group = "rows", help_heading = "Objects")]
    pub generate: Option<String>,
    /// Only keys that end so
    #[arg(long, value_name = "TEXT", requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub suffix: Option<String>,
    /// Only keys with this in them
    #[arg(long, value_name = "TEXT", requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub substring: Option<String>,
    /// Only objects that were written after this time (2026-01-31 or 2026-01-31T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = time, requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub created_after: Option<String>,
    /// Only objects that were written before this time
    #[arg(long, value_name = "TIME", value_parser = time, requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub created_before: Option<String>,
    /// Only objects of more bytes
    #[arg(long, value_name = "BYTES", requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub larger_than: Option<u64>,
    /// Only objects of fewer bytes
    #[arg(long, value_name = "BYTES", requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub smaller_than: Option<u64>,
    /// Only objects of this storage class; may be repeated
    #[arg(long, value_name = "CLASS", value_delimiter = ',', requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub storage_class: Vec<String>,
    /// Only objects with this replication status (COMPLETED, FAILED, REPLICA, NONE); may be repeated
    #[arg(long, value_name = "STATUS", value_delimiter = ',', requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub replication_status: Vec<String>,
    /// Only objects that the bucket's replication rules are for
    #[arg(long, requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub eligible_for_replication: bool,
    /// Only objects encrypted so
    #[arg(long, value_name = "KIND", value_enum, requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub encryption: Option<Encryption>,
    /// Keep the list that was made, as a manifest below this prefix
    #[arg(long, value_name = "s3://BUCKET/PREFIX", requires = "generate", conflicts_with_all = ["manifest", "inventory"], help_heading = "Objects")]
    pub save_manifest: Option<String>,

    /// Where the completion report goes. Without it there is none
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    pub report: Option<String>,
    /// Which tasks the report lists [default: all]
    #[arg(long, value_enum, requires = "report")]
    pub scope: Option<Scope>,
    /// The higher runs first [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=2_147_483_647))]
    pub priority: Option<u32>,
    /// The role of the job: its name or its ARN [default, where a Longshore answers: longshore-batch]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// What the job is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A tag of the job; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = pair)]
    pub tags: Vec<(String, String)>,
    /// Wait to be confirmed before the first task
    #[arg(long)]
    pub confirm: bool,
    /// The token that makes a repetition of this command the same job [default: a new one]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Run N tasks drawn at random, then wait to be confirmed (Longshore alone)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,
    /// Start while the manifest is still being checked (Longshore alone)
    #[arg(long)]
    pub start_while_preparing: bool,
    /// The request as the AWS CLI takes it; the flags go over its members
    #[arg(long, value_name = "FILE|-")]
    pub cli_input_json: Option<String>,
    /// Show the job's progress until it is over
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --endpoint-url, --profile and --region, the Longshore that runs on the data directory is meant, with \
its own credentials. With one of them, credentials, region and endpoint come from where the AWS CLI finds them. logs and stats \
need a Longshore at the other end. A function is its name, or its ARN."
)]
pub struct Function {
    #[command(flatten)]
    pub at: At,
    #[command(subcommand)]
    pub command: FunctionCommand,
}

#[derive(Debug, Subcommand)]
pub enum FunctionCommand {
    /// Create a function from a file, a folder or a zip, or bring one up to date. Prints its ARN
    Deploy(Box<Deploy>),
    /// List functions
    List,
    /// Show one function
    Describe {
        /// The function: NAME, or NAME:QUALIFIER for a version or an alias
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        function: String,
    },
    /// List a function's versions, $LATEST first
    Versions {
        /// The function
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        function: String,
    },
    /// List a function's aliases
    Aliases {
        /// The function
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        function: String,
    },
    /// Call a function and print its answer
    #[command(
        after_help = "Exit status: 0 the function answered (or the call was accepted), 1 the function failed: what it said is \
on standard error; 2 it was not called, or the call broke off; 64 what was given cannot be meant."
    )]
    Invoke(Invoke),
    /// Print what a function wrote to standard output and standard error
    Logs(FunctionLogs),
    /// Show how often functions were called since the server began, how long they took, and how they failed
    Stats {
        /// One function [default: all of them]
        function: Option<String>,
    },
    /// Delete a function, or one version of it
    Delete {
        /// The function: NAME with all its versions, or NAME:VERSION
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        function: String,
    },
}

#[derive(Debug, Default, Args)]
#[command(
    after_help = "What is not said is guessed from the file where the function is new, and stays as it is where it is not. A folder \
is zipped without .git and __pycache__. Whatever was guessed, and whatever changed, is said on standard error."
)]
pub struct Deploy {
    /// A Python or Node file (handler.py, handler.py:function), a folder, a zip, or an executable bootstrap
    pub path: String,
    /// The function's name [default: that of the file or folder]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The Lambda runtime (python3.12, nodejs22.x, provided.al2023) [default: by the file's kind and what is installed]
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
    /// The function in the package, as Lambda writes it (module.function)
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
    /// Seconds that one invocation may take [default of a new function: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=900))]
    pub timeout: Option<u32>,
    /// Memory of one environment in MiB [default of a new function: 512]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..=10240))]
    pub memory: Option<u32>,
    /// An environment variable to set beside those that there are; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    pub variables: Vec<(String, String)>,
    /// A file with all environment variables, KEY=VALUE a line: others are removed. --env goes over it
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// The ARN of a layer's version; may be repeated, and replaces the layers that there are
    #[arg(long = "layer", value_name = "ARN")]
    pub layers: Vec<String>,
    /// The role of the function: its ARN, or its name [default, where a Longshore answers: longshore-batch]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Publish a version of what was deployed, and print its ARN
    #[arg(long)]
    pub publish: bool,
    /// Publish a version and let this alias lead to it; it is made if there is none. Prints its ARN
    #[arg(long, value_name = "NAME")]
    pub alias: Option<String>,
    /// Reserve so many invocations at once for the function; 0 stops it and drops the events that wait for it; or "none"
    #[arg(long, value_name = "N|none", value_parser = reservation)]
    pub concurrency: Option<Reservation>,
    /// What the function is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

/// Reserved concurrency that is asked for; `None` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation(pub Option<u32>);

fn reservation(text: &str) -> Result<Reservation, String> {
    if text == "none" {
        return Ok(Reservation(None));
    }
    text.parse().map(|n| Reservation(Some(n))).map_err(|_| "it must be a whole number, or none".into())
}

#[derive(Debug, Default, Args)]
pub struct Invoke {
    /// The function: NAME, or NAME:QUALIFIER for a version or an alias
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub function: String,
    /// What the function is called with: JSON, @FILE, or "-" for standard input [default: {}]
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: Option<String>,
    /// Show the end of what the function printed, on standard error
    #[arg(long, conflicts_with_all = ["event", "dry_run"])]
    pub tail: bool,
    /// Queue the call and do not wait for it
    #[arg(long, conflicts_with = "dry_run")]
    pub event: bool,
    /// Only check whether the function could be called so
    #[arg(long)]
    pub dry_run: bool,
    /// The version or the alias that is meant
    #[arg(long, value_name = "VERSION|ALIAS")]
    pub qualifier: Option<String>,
    /// JSON that the function finds in its context
    #[arg(long, value_name = "JSON|@FILE")]
    pub client_context: Option<String>,
}

#[derive(Debug, Default, Args)]
#[command(
    after_help = "A log is kept up to 128 MB a function, the oldest lines go first. Control characters are shown as \\x1b and the \
like. --json prints one document with \"lines\", or with --follow a line of JSON for each."
)]
pub struct FunctionLogs {
    /// The function
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub function: String,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// Only lines since then: 90s, 10m, 2h, 1d, or a time such as 2026-01-31T10:00:00Z. To a second
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only lines of this invocation
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Only the last lines
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub tail: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    All,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum Encryption {
    #[value(name = "SSE-S3")]
    SseS3,
    #[value(name = "SSE-KMS")]
    SseKms,
    #[value(name = "DSSE-KMS")]
    DsseKms,
    #[value(name = "SSE-C")]
    SseC,
    #[value(name = "NOT-SSE")]
    NotSse,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// The function's name
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
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

fn account(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an account is twelve digits".into())
    }
}

/// A job status in any case.
fn status(text: &str) -> Result<longshore_core::job::Status, String> {
    use longshore_core::job::Status;
    let found = Status::ALL.into_iter().find(|status| status.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("the statuses are {}", Status::ALL.map(Status::name).join(", ")))
}

/// A date, or a date and a time with its zone; as the wire has it, in UTC.
fn time(text: &str) -> Result<String, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time: jiff::Timestamp = whole.parse().map_err(|_| "write it as 2026-01-31 or 2026-01-31T10:00:00Z")?;
    Ok(time.to_string())
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
        let told = parse(&["--resume", "--timeout", "9"]).unwrap_err().to_string();
        assert!(told.contains("longshore run --resume [RUN] [--report DIR]"), "{told}");
        assert!(parse(&["--retry"]).is_ok());
        assert!(parse(&["g.py", "--retry", "20261122-1", "--timeout", "9", "--handler", "h.f"]).is_ok());
        assert!(parse(&["--retry", "--handler", "h.f"]).is_err(), "of which function?");
        assert!(parse(&["--retry", "--source", "."]).is_err());
        assert!(parse(&["--retry", "a", "--resume", "b"]).is_err());
        assert!(parse(&["--resume", "--report", "x"]).is_ok());
        assert!(parse(&["--resume", "--json"]).is_ok());
        assert!(parse(&["--resume"]).is_ok());
        assert!(parse(&["--resume", "20261122-1"]).is_ok());
        assert!(parse(&["f.py", "--source", ".", "--arg", "a=b=c", "--arg", "d="]).is_ok());
        assert!(parse(&["f.py", "--arg", "=b"]).is_err());
        assert!(parse(&["f.py", "--source", ".", "--manifest", "m"]).is_err());
    }

    #[test]
    fn a_job_is_named_before_or_after_the_endpoint() {
        let parse = |words: &str| {
            let words = words.split(' ');
            Cli::try_parse_from(["longshore", "job"].into_iter().chain(words)).map(|cli| match cli.command {
                Command::Job(job) => job.at.at,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(parse("--profile p list").unwrap().profile.as_deref(), Some("p"));
        assert_eq!(parse("tag list x --profile p --json").unwrap().profile.as_deref(), Some("p"));
        assert!(parse("list --data-dir d --profile p").is_err(), "one of them would be ignored");
        assert!(parse("list --account-id 12").is_err());
        assert!(parse("list --status active,FAILED --limit 3").is_ok());
        assert!(parse("list --status going").is_err());
        assert!(parse("tag remove x").is_err());
        assert!(parse("tag remove x a --all").is_err());
        assert!(parse("tag remove x --all").is_ok());
        assert!(parse("priority x 2147483648").is_err());
    }

    #[test]
    fn a_job_has_one_source_of_rows_and_filters_only_where_they_count() {
        let parse = |words: &str| Cli::try_parse_from("longshore job create".split(' ').chain(words.split(' ')));
        assert!(parse("--function f --manifest s3://b/k --fields Bucket,Key,VersionId").is_ok());
        assert!(parse("--function f --manifest s3://b/k --generate s3://b").is_err());
        assert!(parse("--function f --manifest s3://b/k --suffix .jpg").is_err());
        assert!(parse("--function f --inventory s3://b/k --fields Bucket,Key").is_err());
        assert!(parse("--cli-input-json f.json --suffix .jpg").is_err());
        assert!(parse("--function f --generate s3://b --suffix .jpg --encryption SSE-S3").is_ok());
        assert!(parse("--manifest s3://b/k").is_err(), "nothing says what is to be done");
        assert!(parse("--cli-input-json f.json").is_ok());
        assert!(parse("--function f --manifest s3://b/k --scope failed").is_err(), "there is no report");
        assert!(parse("--function f --generate s3://b --created-after yesterday").is_err());
    }

    #[test]
    fn a_function_is_deployed_and_called_in_ways_that_do_not_contradict_each_other() {
        let parse = |words: &str| Cli::try_parse_from("longshore function".split(' ').chain(words.split(' ')));
        assert!(parse("deploy app.py --env A=b --env C= --timeout 900 --alias live --concurrency none").is_ok());
        assert!(parse("deploy").is_err());
        assert!(parse("deploy app.py --concurrency many").is_err());
        assert!(parse("deploy app.py --timeout 901").is_err());
        assert!(parse("invoke f --payload - --tail --json --profile p").is_ok());
        assert!(parse("invoke f --event --dry-run").is_err());
        assert!(parse("invoke f --event --tail").is_err(), "nobody waits for a log");
        assert!(parse("logs f -f -n 5 --since 10m").is_ok());
        assert!(parse("stats").is_ok() && parse("stats f --json").is_ok());
        assert!(parse("list --data-dir d --profile p").is_err(), "one of them would be ignored");
        assert!(parse("list --account-id 111122223333").is_err(), "functions are the caller's");
    }

    #[test]
    fn a_time_is_told_in_utc() {
        assert_eq!(time("2026-01-31").unwrap(), "2026-01-31T00:00:00Z");
        assert_eq!(time("2026-01-31T01:00:00+02:00").unwrap(), "2026-01-30T23:00:00Z");
    }
}
