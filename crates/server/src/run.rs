//! `longshore run`: a job without a server to set up. It starts one inside, does all through its public API, and stops.
//!
//! Everything that a run needs to go on is in its folder before the job is created, so that Ctrl-C, or a `kill -9`, at
//! any moment after that loses nothing: `--resume` starts a server on the same data directory, and the engine there
//! invokes what has no recorded result.

pub mod check;
pub mod package;
pub mod rows;
pub mod state;
pub mod walk;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_store::DataDir;
use longshore_store::data_dir::DataDirError;

use crate::cli;
use crate::client::{Client, ClientError, Content, Described, NewFunction, NewJob};
use crate::endpoints::EndpointSettings;
use crate::failure::{Because, BecauseGiven, FAILED, Failure, INTERRUPTED, JOB_FAILED, OK, plain};
use crate::interrupt::Interrupt;
use crate::place::{self, Files, Service};
use crate::progress::Progress;
use crate::report::{self, Failures, Wanted};
use crate::run::package::Package;
use crate::run::rows::RowWriter;
use crate::run::state::{EndpointPlan, ManifestPlace, Plan, ReportPlace, RunFolder, runs_folder};
use crate::server::{Server, open_data_dir, runtimes_dirs};
use crate::settings::{self, Settings};

/// Between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where a run's report is written in its bucket, before it is copied out.
const REPORT_PREFIX: &str = "report";
/// What an invocation may take where nothing else is asked for.
const TIMEOUT_SECONDS: u32 = 60;
const MEMORY_MIB: u32 = 512;
/// Files taken into the storage in one go.
const IMPORT_BATCH: usize = 10_000;

/// Runs the command and returns its exit status.
pub async fn run(args: cli::Run) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let environment = |name: &str| std::env::var(name).ok();
    let runs = runs_folder(args.data_dir.as_deref(), environment)?;
    let earlier = match &args.retry {
        Some(name) => Some(RunFolder::find_to_retry(&runs, name)?),
        None => None,
    };
    let (folder, mut plan, data_dir) = match &args.resume {
        Some(name) => {
            let (folder, mut plan) = RunFolder::find_to_resume(&runs, name)?;
            plan.json |= args.json;
            if let Some(status) = plan.ended {
                let over = format!("run {} is over; its report: {}", plan.id, place_of_report(&plan));
                if args.report.is_some() {
                    return Err(Failure::usage(over).hint("copy it from there"));
                }
                eprintln!("{over}");
                return Ok(status);
            }
            eprintln!("resuming run {} of {}", plan.id, plan.handler);
            let data_dir = open_to_resume(&plan)?;
            let before = plan.report.clone();
            if let Some(asked) = &args.report {
                let place = report_place(Some(asked), &folder)?;
                let both_local = matches!((&plan.report, &place), (ReportPlace::Folder(_), ReportPlace::Folder(_)));
                if !both_local {
                    return Err(Failure::usage("a run that has begun keeps the storage of its report")
                        .hint("--report with --resume names another local folder, for a run whose report is local"));
                }
                plan.report = place;
            }
            check_report(&plan.report, plan.report != before)?;
            folder.write(&plan)?;
            (folder, plan, data_dir)
        }
        None => {
            let package = match &earlier {
                Some((folder, plan)) if args.function.is_none() => kept_package(folder, plan)?,
                _ => read_package(&args)?,
            };
            let earlier = earlier.as_ref().map(|(_, plan)| plan);
            let endpoint = match earlier {
                Some(earlier) => earlier.endpoint.clone(),
                None => endpoint(&args, environment).await?,
            };
            let stored = is_stored(&args) && endpoint.is_none();
            let named = match (&args.data_dir, stored) {
                // Where the objects are.
                _ if earlier.is_some_and(|earlier| !earlier.data_dir_is_ours) => {
                    earlier.map(|earlier| earlier.data_dir.clone())
                }
                (None, false) => None,
                (flag, _) => Some(settings::data_dir(flag.as_deref(), environment)?),
            };
            check::variables(&args.variables)?;
            let found = check::runtime(&package.runtime, &runtimes_dirs(named.as_deref()))?;
            if let Some(source) = &package.source {
                check::syntax(&found, source)?;
            }
            // Only now is it true.
            if let Some(chosen) = &package.chosen {
                eprintln!("using {chosen} with {}", package.runtime);
            }
            if let Some(left_out) = &package.left_out {
                eprintln!("{left_out}");
            }
            if let Some(notice) = &found.notice {
                eprintln!("warning: {notice}");
            }
            // Taken before the run's folder is made in it: the directory must be new, or one of ours.
            let named = named.as_deref().map(open_data_dir).transpose()?;
            let (folder, id) = RunFolder::make(&runs)?;
            let (data_dir, is_ours) = match named {
                Some(data_dir) => (data_dir, false),
                None => (open_data_dir(&folder.0.join("data"))?, true),
            };
            let plan = Plan {
                id,
                data_dir: data_dir.path().to_owned(),
                data_dir_is_ours: is_ours,
                runtime: package.runtime.clone(),
                handler: package.handler.clone(),
                timeout_seconds: args.timeout.or(earlier.map(|e| e.timeout_seconds)).unwrap_or(TIMEOUT_SECONDS),
                memory_mib: args.memory.or(earlier.map(|e| e.memory_mib)).unwrap_or(MEMORY_MIB),
                variables: given_or(&args.variables, earlier.map(|e| &e.variables)),
                arguments: given_or(&args.arguments, earlier.map(|e| &e.arguments)),
                concurrency: args.concurrency.or(earlier.and_then(|e| e.concurrency)),
                attempts: args.attempts.or(earlier.and_then(|e| e.attempts)),
                local_folder: None,
                manifest: ManifestPlace::Here,
                with_versions: false,
                report: report_place(args.report.as_deref(), &folder)?,
                endpoint,
                json: args.json,
                job: None,
                ended: None,
            };
            std::fs::write(folder.zip(), &package.zip).because("cannot keep the function's zip")?;
            (folder, plan, data_dir)
        }
    };
    let earlier = earlier.map(|(_, plan)| plan);
    if args.resume.is_none() {
        let prepared = check_report(&plan.report, true).and_then(|()| match &earlier {
            Some(earlier) => write_failed(earlier, &folder, &mut plan),
            None => write_manifest(&args, &folder, &mut plan),
        });
        if let Err(failure) = prepared {
            // Nothing has happened yet that could be resumed.
            drop(data_dir);
            let _ = std::fs::remove_dir_all(&folder.0);
            return Err(failure);
        }
    }

    let settings = inner_settings(&plan, &args.confine)?;
    let jobs_settings = jobs_settings(&settings, &plan);
    let server = Server::start(data_dir, settings, jobs_settings).await?;
    let client = server.client();
    let fatal = server.fatal.clone();
    let mut progress = Progress::new();
    let outcome = tokio::select! {
        outcome = carry_out(&args, earlier.as_ref(), &folder, &mut plan, &server, &client, &mut progress) => Some(outcome),
        () = interrupt.asked() => None,
        reason = fatal.thrown() => {
            let failure = crate::not_durable(&reason);
            return Err(Failure { status: JOB_FAILED, ..failure });
        }
    };
    let Some(outcome) = outcome else {
        progress.clear();
        eprintln!("stopping: what is in flight is finished first; Ctrl-C again stops at once");
        let job = plan.job.clone();
        // Before it is waited for: whoever stops at once needs it too.
        if folder.0.join("run.json").exists() {
            eprintln!("to go on later: {}", resume_command(&plan, &args));
        }
        // The numbers that count are those after the last result, which the listener still tells then.
        server.finish_tasks().await;
        if let Some(job) = job
            && let Ok(described) = client.describe_job(&job).await
        {
            let (total, succeeded, failed) = described.progress();
            if total > 0 {
                eprintln!("{} of {total} done: {succeeded} succeeded, {failed} failed", succeeded + failed);
            }
            if failed > 0
                && let Ok(results) = client.job_results(&job).await
            {
                tell_failures(&Failures::of_results(&results));
            }
        }
        server.stop(None).await;
        let log = longshore_functions::host::logs::path(&plan.data_dir, &function_of(&plan));
        if log.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            eprintln!("function's log so far: {}", log.display());
        }
        return Ok(INTERRUPTED);
    };
    progress.end();
    server.stop(None).await;
    match outcome {
        Ok(ended) => {
            // The server has written the last line of it.
            let log = folder.keep_log(&plan, &function_of(&plan))?;
            let status = tell(&plan, &args, &ended, log.as_deref());
            plan.ended = Some(status);
            folder.write(&plan)?;
            folder.tidy(&plan);
            Ok(status)
        }
        Err(failure) => {
            if plan.job.is_none() {
                // It never became a job; what is wrong will be wrong again.
                folder.tidy(&plan);
                let _ = std::fs::remove_dir_all(&folder.0);
            }
            Err(failure)
        }
    }
}

/// The command that goes on with a run, to be pasted into a shell.
fn resume_command(plan: &Plan, args: &cli::Run) -> String {
    command_for("--resume", plan, args)
}

fn command_for(flag: &str, plan: &Plan, args: &cli::Run) -> String {
    let place = args.data_dir.as_ref().map_or_else(String::new, |dir| {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        format!(" --data-dir {}", crate::env::quoted(&dir.to_string_lossy()))
    });
    format!("longshore run {flag} {}{place}", plan.id)
}

/// The store of somebody else that the flags name, if they do. Looks for its credentials, so that a run which could read
/// nothing ends before it begins.
async fn endpoint(
    args: &cli::Run,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<EndpointPlan>, Failure> {
    let given = [
        ("--endpoint-url", args.endpoint_url.is_some()),
        ("--profile", args.profile.is_some()),
        ("--region", args.region.is_some()),
        ("--no-sign-request", args.no_sign_request),
        ("--allow-plain-http", args.allow_plain_http),
    ];
    let Some((flag, _)) = given.iter().find(|(_, given)| *given) else { return Ok(None) };
    if !is_stored(args) {
        return Err(Failure::usage(format!("{flag}: nothing of this run is in a store"))
            .hint("--source s3://bucket/prefix, --manifest or --report s3://bucket/prefix says what is there"));
    }
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let files = Files::read(&variable)?;
    let (profile, is_named) = place::profile(args.profile.as_deref(), &files, &variable)?;
    // Kept with the run, which may be resumed where the variables say something else.
    let url = place::url(args.endpoint_url.as_deref(), Service::S3, &profile, &files, &variable);
    let profile = is_named.then_some(profile);
    let (region, anonymous) = (args.region.clone(), args.no_sign_request);
    let plan = EndpointPlan { url, profile, region, anonymous, allow_plain_http: args.allow_plain_http };
    settings_of("run", &plan).check()?;
    if !anonymous {
        let found = longshore_aws::identity(plan.profile.as_deref(), plan.region.as_deref()).await;
        found.map_err(|e| {
            Failure::usage(e.to_string())
                .hint("--profile names a profile of AWS's configuration, --no-sign-request needs none")
        })?;
    }
    Ok(Some(plan))
}

/// The endpoint of a run: it has every bucket but the run's own.
fn settings_of(own_bucket: &str, plan: &EndpointPlan) -> EndpointSettings {
    EndpointSettings {
        name: "run".into(),
        url: plan.url.clone(),
        region: plan.region.clone(),
        buckets: vec![format!("!{own_bucket}"), "*".into()],
        profile: plan.profile.clone().filter(|_| !plan.anonymous),
        anonymous: plan.anonymous,
        allow_plain_http: plan.allow_plain_http,
        ..EndpointSettings::default()
    }
}

/// What is given, else what the run that is tried again had.
fn given_or(given: &[(String, String)], earlier: Option<&Vec<(String, String)>>) -> Vec<(String, String)> {
    if given.is_empty() { earlier.cloned().unwrap_or_default() } else { given.to_vec() }
}

/// The function of a run that is over.
fn kept_package(folder: &RunFolder, plan: &Plan) -> Result<Package, Failure> {
    let zip = std::fs::read(folder.zip()).map_err(|_| {
        Failure::usage(format!("the function of run {} was not kept", plan.id))
            .hint(format!("name one: longshore run FUNCTION --retry {}", plan.id))
    })?;
    let (runtime, handler) = (plan.runtime.clone(), plan.handler.clone());
    // What it is written in was looked at when the run began.
    Ok(Package { zip, runtime, handler, chosen: None, source: None, language: None, left_out: None })
}

fn read_package(args: &cli::Run) -> Result<Package, Failure> {
    let function = args.function.as_deref().unwrap_or_default();
    let installed = runtimes_dirs(args.data_dir.as_deref());
    Package::read(function, args.handler.as_deref(), args.runtime.as_deref(), &installed)
}

/// Whether objects, manifest or report are in a storage: the embedded one, which then is the server's, or an endpoint.
fn is_stored(args: &cli::Run) -> bool {
    let stored = |place: &Option<String>| place.as_deref().is_some_and(|p| p.starts_with("s3://"));
    args.manifest.is_some() || stored(&args.source) || stored(&args.report)
}

/// Bucket and the rest of `s3://bucket/rest`.
pub fn split_s3(uri: &str) -> Result<(String, String), Failure> {
    let (bucket, rest) = uri.strip_prefix("s3://").map(|r| r.split_once('/').unwrap_or((r, ""))).unwrap_or(("", ""));
    if bucket.is_empty() {
        return Err(Failure::usage(format!("{uri} is not of the form s3://bucket/key")));
    }
    Ok((bucket.to_owned(), rest.to_owned()))
}

fn report_place(asked: Option<&str>, folder: &RunFolder) -> Result<ReportPlace, Failure> {
    Ok(match asked {
        None => ReportPlace::Folder(folder.report()),
        Some(uri) if uri.starts_with("s3://") => {
            let (bucket, prefix) = split_s3(uri)?;
            ReportPlace::Stored { bucket, prefix: prefix.trim_end_matches('/').to_owned() }
        }
        // A run may be resumed from another folder.
        Some(path) => ReportPlace::Folder(std::path::absolute(path).because(format!("cannot use {path}"))?),
    })
}

fn place_of_report(plan: &Plan) -> String {
    match &plan.report {
        ReportPlace::Folder(path) => path.display().to_string(),
        ReportPlace::Stored { bucket, prefix } => {
            let slash = if prefix.is_empty() { "" } else { "/" };
            format!("s3://{bucket}/{prefix}{slash}job-{}", plan.job.as_deref().unwrap_or(""))
        }
    }
}

fn bucket_of(plan: &Plan) -> String {
    format!("run-{}", plan.id)
}

/// The function has the name of the run's bucket.
fn function_of(plan: &Plan) -> String {
    bucket_of(plan)
}

/// The data directory of a run to go on with, which may still be at work.
fn open_to_resume(plan: &Plan) -> Result<DataDir, Failure> {
    if !plan.data_dir_is_ours {
        return open_data_dir(&plan.data_dir);
    }
    match DataDir::open(&plan.data_dir) {
        // Nobody else has one: it is the run.
        Err(DataDirError::InUse { pid, .. }) => Err(Failure::usage(format!("run {} is still running{pid}", plan.id))
            .hint("wait until it is over, or stop it with Ctrl-C where it runs")),
        Ok(data_dir) => Ok(data_dir),
        // In the words that it has for all commands.
        Err(_) => open_data_dir(&plan.data_dir),
    }
}

/// Finds out, before anything is invoked, whether the report can be written to the folder it is for. Makes the folder. One
/// that is `new` to the run must have no report in it yet: the two would be mixed.
fn check_report(place: &ReportPlace, new: bool) -> Result<(), Failure> {
    // Whether there is a bucket can be asked once a server runs; that is before the first invocation too.
    let ReportPlace::Folder(folder) = place else { return Ok(()) };
    let results = folder.join("results");
    let mut there = results.read_dir().into_iter().flatten().flatten();
    if new && (folder.join("manifest.json").exists() || there.any(|e| e.path().extension().is_some_and(|e| e == "csv")))
    {
        return Err(Failure::usage(format!("there is another report in {} already", folder.display()))
            .hint("nothing was invoked; name another folder with --report DIR, or take that report away first"));
    }
    let probe = std::fs::create_dir_all(&results)
        .and_then(|()| tempfile::tempfile_in(folder).map(drop))
        .and_then(|()| tempfile::tempfile_in(&results).map(drop));
    probe.map_err(|error| {
        Failure::usage(format!("the report cannot be written to {}: {error}", folder.display()))
            .hint("nothing was invoked; name another folder with --report DIR")
    })
}

/// Writes the manifest of a run from local files, keys or a local manifest; what is in the storage is looked up once a
/// server runs. Sets the plan's fields about it.
fn write_manifest(args: &cli::Run, folder: &RunFolder, plan: &mut Plan) -> Result<(), Failure> {
    let bucket = bucket_of(plan);
    let sample = args.sample;
    let create = || RowWriter::create(&folder.manifest(), sample, args.seed);
    if let Some(manifest) = &args.manifest {
        if manifest.starts_with("s3://") {
            let (bucket, key) = split_s3(manifest)?;
            plan.manifest = ManifestPlace::Stored { bucket, key };
            return Ok(());
        }
        let file = std::fs::File::open(manifest)
            .map_err(|e| Failure::usage(format!("cannot read the manifest {manifest}: {e}")))?;
        let mut rows = create()?;
        let mut first = true;
        for line in std::io::BufReader::new(file).lines() {
            let line = line.because_given(format!("cannot read the manifest {manifest}"))?;
            if std::mem::take(&mut first) {
                plan.with_versions = rows::has_versions(&line);
                warn_of_header(manifest, &line);
            }
            rows.line(&line)?;
        }
        return some(rows.finish()?, &format!("the manifest {manifest} is empty"));
    }
    let source = args.source.as_deref();
    if source.is_some_and(|s| s.starts_with("s3://")) {
        // Listed when the server runs.
        return Ok(());
    }
    let base = match source {
        Some(source) => {
            let path = Path::new(source).canonicalize();
            let path = path.map_err(|e| Failure::usage(format!("cannot read the folder {source}: {e}")))?;
            if !path.is_dir() {
                return Err(Failure::usage(format!("{source} is not a folder")));
            }
            path
        }
        None => std::env::current_dir().because("cannot tell the working folder")?,
    };
    let mut rows = create()?;
    match (source, &args.keys) {
        (Some(_), None) => {
            let left_out = walk::files(&base, &[".git"], |_, relative| rows.key(&bucket, relative))?;
            if let Some(said) = left_out.told() {
                eprintln!("{said}");
            }
        }
        (Some(_), Some(from)) => rows::keys(from, |key| {
            // "./a" from find is the key "a"; a path that leaves the folder is no key below it.
            let key = rows::key_of_file(key, &base)?;
            if Path::new(&key).is_absolute() {
                return Err(Failure::job(format!("{key} is not below --source")));
            }
            rows.key(&bucket, &key)
        })?,
        (None, from) => {
            let from = from.as_deref().unwrap_or("-");
            if from == "-" && std::io::stdin().is_terminal() {
                return Err(nothing_to_work_on());
            }
            rows::keys(from, |path| rows.key(&bucket, &rows::key_of_file(path, &base)?))?;
        }
    }
    plan.local_folder = Some(base);
    if rows.finish()? == 0 { Err(nothing_to_work_on()) } else { Ok(()) }
}

/// Writes the manifest of a run that tries again what failed in an earlier one, from a report in a local folder; one in the
/// storage is looked up once a server runs. Sets the plan's fields about it.
fn write_failed(earlier: &Plan, folder: &RunFolder, plan: &mut Plan) -> Result<(), Failure> {
    plan.local_folder = earlier.local_folder.clone();
    plan.with_versions = earlier.with_versions;
    let ReportPlace::Folder(report) = &earlier.report else { return Ok(()) };
    let mut rows = RowWriter::create(&folder.manifest(), None, 0)?;
    report::read(report, earlier.job.as_deref().unwrap_or(""), Wanted::Failed, |row| failed_row(&mut rows, plan, row))?;
    some(rows.finish()?, &nothing_failed(earlier))
}

/// [`write_failed`] for a report in the storage.
async fn look_up_failed(earlier: &Plan, folder: &RunFolder, plan: &Plan, client: &Client) -> Result<(), Failure> {
    let ReportPlace::Stored { bucket, prefix } = &earlier.report else { return Ok(()) };
    let mut rows = RowWriter::create(&folder.manifest(), None, 0)?;
    let copy = tempfile::tempdir().because("cannot make a temporary folder")?;
    let base = report::base(prefix, earlier.job.as_deref().unwrap_or(""));
    let found =
        report::download(client, bucket, &base, copy.path(), Wanted::Failed, |row| failed_row(&mut rows, plan, row));
    if found.await?.is_none() {
        return Err(Failure::usage(format!("there is no report at {}", place_of_report(earlier))));
    }
    some(rows.finish()?, &nothing_failed(earlier))
}

fn nothing_failed(earlier: &Plan) -> String {
    format!("the report of run {} has nothing that failed", earlier.id)
}

/// A row of a report as one of a manifest. Its key is encoded as the manifest had it, and stays so.
fn failed_row(rows: &mut RowWriter, plan: &Plan, row: &[String]) -> Result<(), Failure> {
    let [bucket, key, version, ..] = row else { return Err(Failure::new("a row of the report is cut short")) };
    // Files are in the bucket of the run that takes them.
    let own = bucket_of(plan);
    let bucket = if plan.local_folder.is_some() { &own } else { bucket };
    // `\N` is how a report says that the column was empty.
    let version = plan.with_versions.then_some(if version == "\\N" { "" } else { version.as_str() });
    let mut line = Vec::new();
    longshore_core::manifest::write_row(&mut line, bucket, key, version);
    rows.line(String::from_utf8_lossy(&line).trim_end_matches('\n'))
}

/// A row is a row, for Longshore as for AWS; that one of them was not meant to be is worth a word.
fn warn_of_header(manifest: &str, first_line: &str) {
    if rows::looks_like_a_header(first_line) {
        eprintln!("warning: the first line of {manifest} looks like a header; it is a task like every other line");
        eprintln!("hint: a manifest has no header: leave that line out");
    }
}

fn nothing_to_work_on() -> Failure {
    Failure::usage("there are no objects to work on")
        .hint("name them: --source DIR, --source s3://bucket/prefix, --manifest FILE, or paths on standard input")
}

fn some(rows: u64, otherwise: &str) -> Result<(), Failure> {
    if rows == 0 { Err(Failure::usage(otherwise)) } else { Ok(()) }
}

/// The server inside listens where nobody else looks, and takes its other settings from where `serve` does.
fn inner_settings(plan: &Plan, confine: &cli::Confine) -> Result<Settings, Failure> {
    let mut settings = Settings::load(&plan.data_dir, None, settings::variables())?;
    settings.listen = ([127, 0, 0, 1], 0).into();
    settings.tls = Default::default();
    settings.confine(confine);
    let own = bucket_of(plan);
    match &plan.endpoint {
        Some(endpoint) => settings.endpoint = vec![settings_of(&own, endpoint)],
        // Files are taken into the run's bucket, and its manifest is there, without copying them anywhere.
        None => settings.endpoint.iter_mut().for_each(|endpoint| endpoint.buckets.insert(0, format!("!{own}"))),
    }
    // The run's function is always its own.
    settings.function_endpoint.clear();
    if let Some(concurrency) = plan.concurrency {
        settings.functions.environments_max = concurrency;
    }
    Ok(settings)
}

fn jobs_settings(settings: &Settings, plan: &Plan) -> longshore_jobs::Settings {
    let mut jobs = settings.jobs();
    if let Some(concurrency) = plan.concurrency {
        jobs.run.ramp.initial = concurrency;
        jobs.run.ramp.max = concurrency;
        jobs.concurrency_total_max = concurrency.max(jobs.concurrency_total_max);
    }
    if let Some(attempts) = plan.attempts {
        jobs.run.retry.attempts_max = attempts;
    }
    jobs
}

/// A run that is over: the job as it ended, and what failed, if there is a report.
struct Ended {
    described: Described,
    failures: Option<Failures>,
}

/// Tells the outcome: the job on standard output where JSON was asked for, the rest on standard error. Returns the exit
/// status.
fn tell(plan: &Plan, args: &cli::Run, ended: &Ended, log: Option<&Path>) -> u8 {
    let report = ended.failures.as_ref().map(|_| place_of_report(plan));
    if plan.json {
        // Beside the job, which has the API's own shape.
        let log = log.map(|path| path.display().to_string());
        println!(
            "{}",
            serde_json::json!({"Job": crate::job::json::of(&ended.described.job), "Report": report, "FunctionLog": log})
        );
    }
    let status = summarize(&ended.described, ended.failures.as_ref(), report.as_deref());
    if let Some(log) = log {
        let is_more = ended.failures.as_ref().is_some_and(Failures::are_in_the_log);
        let more = if is_more { " (with the whole of each error that it raised)" } else { "" };
        eprintln!("function's log: {}{more}", log.display());
    }
    let (_, _, failed) = ended.described.progress();
    if failed > 0 && report.is_some() {
        eprintln!("to try again what failed: {}", command_for("--retry", plan, args));
    }
    status
}

/// Brings the run to its end, from wherever it was.
async fn carry_out(
    args: &cli::Run,
    earlier: Option<&Plan>,
    folder: &RunFolder,
    plan: &mut Plan,
    server: &Server,
    client: &Client,
    progress: &mut Progress,
) -> Result<Ended, Failure> {
    let job = match &plan.job {
        Some(job) => job.clone(),
        None => {
            if args.resume.is_none() {
                match earlier {
                    Some(earlier) => look_up_failed(earlier, folder, plan, client).await?,
                    None => look_up_stored(args, folder, plan, client).await?,
                }
                folder.write(plan)?;
            }
            let job = create_job(folder, plan, server, client).await?;
            plan.job = Some(job.clone());
            folder.write(plan)?;
            job
        }
    };
    let described = watch(client, &job, progress).await?;
    progress.end();
    let bucket = bucket_of(plan);
    let failures = match &plan.report {
        ReportPlace::Folder(path) => {
            let fetched = report::fetch(client, &bucket, REPORT_PREFIX, &job, path).await;
            fetched.map_err(|failure| {
                // Nothing is lost: the data directory has the report, and stays.
                let place = place_of_report(plan);
                let status = described.status();
                Failure::job(format!("the job is over ({status}), but not its report in {place}: {}", failure.message))
                    .hint(format!(
                        "the report is kept; {} --report DIR writes it elsewhere",
                        resume_command(plan, args)
                    ))
            })?
        }
        ReportPlace::Stored { bucket, prefix } => {
            let copy = tempfile::tempdir().because("cannot make a temporary folder")?;
            report::fetch(client, bucket, prefix, &job, copy.path()).await?
        }
    };
    if !plan.data_dir_is_ours
        && let Err(error) = clean_up(plan, client).await
    {
        // The run is over and reported all the same.
        eprintln!("what the run left in the storage could not be removed: {error}");
    }
    Ok(Ended { described, failures })
}

/// Takes out of somebody else's storage what the run put there: its function, and its bucket.
async fn clean_up(plan: &Plan, client: &Client) -> Result<(), ClientError> {
    let bucket = bucket_of(plan);
    client.delete_function(&bucket, None).await?;
    loop {
        let (page, _) = client.list(&bucket, "", None).await?;
        if page.is_empty() {
            return client.delete_bucket(&bucket).await;
        }
        let deletions = page.iter().map(|object| client.delete(&bucket, &object.key));
        futures::future::try_join_all(deletions).await?;
    }
}

/// Lists what `--source s3://…` names, or samples a stored manifest, into the run's manifest.
async fn look_up_stored(args: &cli::Run, folder: &RunFolder, plan: &mut Plan, client: &Client) -> Result<(), Failure> {
    if let ManifestPlace::Stored { bucket, key } = &plan.manifest {
        let here = folder.manifest();
        let usage = |error: ClientError| Failure::usage(format!("cannot read s3://{bucket}/{key}: {error}"));
        client.get_to_file(bucket, key, &here).await.map_err(usage)?;
        let cannot = || format!("cannot read {}", here.display());
        let mut lines = std::io::BufReader::new(std::fs::File::open(&here).because(cannot())?).lines();
        let first = lines.next().transpose().because(cannot())?.unwrap_or_default();
        plan.with_versions = rows::has_versions(&first);
        warn_of_header(&format!("s3://{bucket}/{key}"), &first);
        let Some(sample) = args.sample else {
            drop(lines);
            return std::fs::remove_file(&here).because(cannot());
        };
        let whole = folder.0.join("whole.csv");
        std::fs::rename(&here, &whole).because(cannot())?;
        let mut rows = RowWriter::create(&here, Some(sample), args.seed)?;
        rows.line(&first)?;
        for line in lines {
            rows.line(&line.because(cannot())?)?;
        }
        rows.finish()?;
        plan.manifest = ManifestPlace::Here;
        return std::fs::remove_file(&whole).because(cannot());
    }
    let Some(uri) = args.source.as_deref().filter(|s| s.starts_with("s3://")) else { return Ok(()) };
    let (bucket, prefix) = split_s3(uri)?;
    let mut rows = RowWriter::create(&folder.manifest(), args.sample, args.seed)?;
    if let Some(from) = &args.keys {
        let below = if prefix.is_empty() || prefix.ends_with('/') { prefix.clone() } else { format!("{prefix}/") };
        rows::keys(from, |key| rows.key(&bucket, &format!("{below}{key}")))?;
    } else {
        let mut token = None;
        loop {
            let listed = client.list(&bucket, &prefix, token.as_deref()).await;
            let (page, next) = listed.map_err(|e| Failure::usage(format!("cannot list {uri}: {e}")))?;
            for object in page {
                rows.key(&bucket, &object.key)?;
            }
            token = next;
            if token.is_none() {
                break;
            }
        }
    }
    some(rows.finish()?, &format!("there are no objects at {uri}"))
}

/// Everything up to CreateJob. Each step may be repeated.
async fn create_job(folder: &RunFolder, plan: &Plan, server: &Server, client: &Client) -> Result<String, Failure> {
    let bucket = bucket_of(plan);
    client.create_bucket(&bucket).await?;
    if let Some(base) = &plan.local_folder {
        import(server, &bucket, base, &folder.manifest()).await?;
    }
    let zip = std::fs::read(folder.zip()).because("cannot read the function's zip")?;
    let new = NewFunction {
        name: &bucket,
        runtime: &plan.runtime,
        handler: &plan.handler,
        zip: &zip,
        timeout_seconds: plan.timeout_seconds,
        memory_mib: plan.memory_mib,
        variables: &plan.variables,
    };
    client.create_function(&new).await.map_err(|e| refused("the function", &e))?;
    client.function_active(&bucket).await.map_err(|e| Failure::job(e.to_string()))?;
    let (manifest_bucket, manifest_key, etag) = match &plan.manifest {
        ManifestPlace::Here => {
            let key = ".longshore/manifest.csv";
            let etag = client.put(&bucket, key, Content::File(&folder.manifest())).await?;
            (bucket.clone(), key.to_owned(), etag)
        }
        ManifestPlace::Stored { bucket, key } => (bucket.clone(), key.clone(), client.head(bucket, key).await?),
    };
    let (report_bucket, report_prefix) = match &plan.report {
        ReportPlace::Folder(_) => (bucket.clone(), REPORT_PREFIX.to_owned()),
        ReportPlace::Stored { bucket, prefix } => (bucket.clone(), prefix.clone()),
    };
    check_report_bucket(plan, client).await?;
    let new = NewJob {
        token: plan.id.clone(),
        description: format!("longshore run {}", plan.id),
        function_arn: bucket,
        arguments: plan.arguments.clone(),
        manifest_bucket,
        manifest_key,
        manifest_etag: etag,
        with_versions: plan.with_versions,
        report_bucket,
        report_prefix,
        // Its first rows are at work while the others are checked (decision 0013).
        tags: vec![("longshore:start".to_owned(), "while-preparing".to_owned())],
    };
    client.create_job(&new).await.map_err(|e| refused("the job", &e))
}

/// Finds out whether the bucket of a report is there: a job with none does its work, and fails when it is to report it.
async fn check_report_bucket(plan: &Plan, client: &Client) -> Result<(), Failure> {
    let ReportPlace::Stored { bucket, prefix } = &plan.report else { return Ok(()) };
    match client.list(bucket, prefix, None).await {
        Err(error) if error.code() == "NoSuchBucket" => {
            Err(Failure::usage(format!("there is no bucket {bucket} for the report"))
                .hint("nothing was invoked; make the bucket, or name another place with --report"))
        }
        // Who may write there need not be allowed to list.
        _ => Ok(()),
    }
}

/// What the server will not have: something that the caller gave, unless the server is at fault.
fn refused(what: &str, error: &ClientError) -> Failure {
    let message = format!("{what} was refused: {error}");
    match error {
        ClientError::Refused { status, .. } if status.is_client_error() => {
            Failure::usage(message).hint("nothing was invoked")
        }
        _ => Failure::job(message),
    }
}

/// Makes the local files of the manifest objects, without copying them.
async fn import(server: &Server, bucket: &str, base: &Path, manifest: &Path) -> Result<(), Failure> {
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    rows::keys_of(manifest, |key| {
        let path = base.join(&key);
        files.push((key, path));
        Ok(())
    })?;
    for batch in files.chunks(IMPORT_BATCH) {
        server
            .objects
            .import_files(bucket, batch.to_vec())
            .await
            .map_err(|e| Failure::usage(format!("cannot take the files: {e}")))?;
    }
    Ok(())
}

/// Looks at the job until it is over.
pub async fn watch(client: &Client, job: &str, progress: &mut Progress) -> Result<Described, Failure> {
    loop {
        let described = client.describe_job(job).await?;
        let (total, succeeded, failed) = described.progress();
        progress.show(described.status(), total, succeeded, failed);
        if described.is_over() {
            return Ok(described);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn tell_failures(failures: &Failures) {
    for line in failures.lines() {
        eprintln!("{line}");
    }
    if let Some(hint) = failures.hint() {
        eprintln!("hint: {hint}");
    }
}

/// Says on standard error how the job ended, and makes that an exit status.
pub fn summarize(described: &Described, failures: Option<&Failures>, report: Option<&str>) -> u8 {
    let (total, succeeded, failed) = described.progress();
    match total {
        // Whatever it came to was before its tasks.
        0 => eprintln!("{}: 0 of its tasks were begun", plain(described.status())),
        _ => eprintln!("{}: {succeeded} of {total} succeeded, {failed} failed", plain(described.status())),
    }
    if let Some(failures) = failures {
        tell_failures(failures);
    }
    for (code, reason) in described.failure_reasons() {
        eprintln!("{}: {}", plain(&code), plain(&reason));
    }
    if let Some(report) = report {
        eprintln!("report: {report}");
    }
    match described.status() {
        "Complete" if failed == 0 => OK,
        "Complete" => FAILED,
        _ => JOB_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_a_run_has_every_bucket_but_its_own_and_keeps_no_secret() {
        let plan = EndpointPlan {
            url: Some("http://127.0.0.1:9000".into()),
            profile: Some("p".into()),
            region: None,
            anonymous: false,
            allow_plain_http: false,
        };
        let settings = settings_of("run-1", &plan);
        settings.check().unwrap();
        assert_eq!(settings.buckets, ["!run-1", "*"]);
        let kept = serde_json::to_value(&plan).unwrap();
        let mut names: Vec<&str> = kept.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["allow_plain_http", "anonymous", "profile", "region", "url"]);
        let public = EndpointPlan { anonymous: true, ..plan };
        settings_of("run-1", &public).check().expect("AWS_PROFILE does not keep a run from being anonymous");
    }

    #[test]
    fn a_place_in_the_storage_is_a_bucket_and_a_rest() {
        assert_eq!(split_s3("s3://b/a/c").unwrap(), ("b".into(), "a/c".into()));
        assert_eq!(split_s3("s3://b").unwrap(), ("b".into(), String::new()));
        assert!(split_s3("s3:///k").is_err());
    }
}
