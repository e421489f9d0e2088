//! `longshore demo`: a whole job on real files, step by step, each with the line of the AWS CLI that does the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cli;
use crate::client::{Client, Content, NewFunction, NewJob};
use crate::env::quoted;
use crate::failure::{Because, Failure, INTERRUPTED, OK};
use crate::interrupt::Interrupt;
use crate::progress::{Progress, duration};
use crate::report;
use crate::run::{check, package, summarize, walk, watch};
use crate::server::{Server, open_data_dir, runtimes_dirs};
use crate::settings::{self, Settings};

/// The function that the demo deploys, as it stands in the repository.
const FUNCTION: &str = include_str!("../../../examples/functions/checksum/handler.py");
/// Where that is in the repository.
const FUNCTION_FILE: &str = "examples/functions/checksum/handler.py";
const OBJECTS: &str = "demo";
const JOBS: &str = "demo-jobs";
/// Uploads at once: enough to keep the disk's group commit busy.
const UPLOADS: usize = 8;

pub async fn demo(args: cli::Demo) -> Result<u8, Failure> {
    if args.print_function {
        print!("{FUNCTION}");
        return Ok(OK);
    }
    let mut interrupt = Interrupt::listen()?;
    let source = source(args.source.as_deref())?;
    let runtime = package::python_runtime(&runtimes_dirs(args.data_dir.as_deref()))?;
    if let Some(notice) = check::runtime(&runtime, &runtimes_dirs(args.data_dir.as_deref()))?.notice {
        eprintln!("warning: {notice}");
    }
    // Removed when it is dropped, unless it is kept.
    let mut temporary = None;
    let data_dir = match &args.data_dir {
        Some(path) => path.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("longshore-demo-").tempdir();
            let made = made.because("cannot make a temporary folder")?;
            if args.keep { made.keep() } else { temporary.insert(made).path().to_owned() }
        }
    };
    let kept = temporary.is_none();
    let report = match &args.report {
        Some(path) => std::path::absolute(path).because("cannot use the folder of --report")?,
        None => default_report_folder(),
    };
    let data_dir = open_data_dir(&data_dir)?;
    let mut settings = Settings::load(data_dir.path(), None, settings::variables())?;
    settings.listen = ([127, 0, 0, 1], 0).into();
    settings.tls = Default::default();
    settings.confine(&args.confine);
    // The demo's function is its own, whatever it is called.
    settings.function_endpoint.clear();
    let jobs = settings.jobs();
    let server = Server::start(data_dir, settings, jobs).await?;
    let fatal = server.fatal.clone();
    let path = server.data_dir().to_owned();
    let outcome = tokio::select! {
        outcome = show(&server, &source, &runtime, &report) => outcome,
        reason = fatal.thrown() => return Err(crate::not_durable(&reason)),
        () = interrupt.asked() => {
            eprintln!("stopping");
            Ok(INTERRUPTED)
        }
    };
    server.stop(None).await;
    if !kept {
        println!(
            "\nIts server has stopped and its data are gone: the lines with $ are for a server of your own, or for this one's \
             data after \"longshore demo --keep\"."
        );
    } else {
        println!("\nThe data directory is kept: longshore serve --data-dir {}", quoted(&path.to_string_lossy()));
    }
    outcome
}

async fn show(server: &Server, source: &Path, runtime: &str, report_folder: &Path) -> Result<u8, Failure> {
    let began = std::time::Instant::now();
    let client = server.client();
    let account = server.account().to_owned();
    let shown_source = quoted(&source.to_string_lossy());
    let shown_report = quoted(&report_folder.to_string_lossy());

    step(1, &format!("A server for S3, Lambda, S3 Control and IAM listens on http://{}.", server.address));
    println!("   It stops with the demo. The lines with $ do the same by hand, at a server of your own:");
    command(&["longshore serve", "eval \"$(longshore env)\""]);

    let files = files(source)?;
    let bytes: u64 = files.iter().map(|(_, _, size)| size).sum();
    step(2, &format!("{} files of {shown_source} become objects ({}).", files.len(), megabytes(bytes)));
    command(&[
        &format!("aws s3 mb s3://{OBJECTS}"),
        &format!("aws s3 mb s3://{JOBS}"),
        &format!("aws s3 sync {shown_source} s3://{OBJECTS} --exclude '.git/*' --exclude 'target/*'"),
    ]);
    client.create_bucket(OBJECTS).await?;
    client.create_bucket(JOBS).await?;
    upload(server, &files).await?;

    step(3, "A Python function is deployed: checksum, media type, size and lines of an object.");
    let here = Path::new(FUNCTION_FILE);
    let in_repository = source.join(here);
    // Where the repository is not at hand, the binary still has the function in it.
    let (made, file) = if here.is_file() {
        (None, FUNCTION_FILE.to_owned())
    } else if in_repository.is_file() {
        (None, quoted(&in_repository.to_string_lossy()))
    } else {
        (Some("longshore demo --print-function > handler.py".to_owned()), "handler.py".to_owned())
    };
    if let Some(made) = made {
        command(&[&made]);
    }
    command(&[
        &format!("zip -j checksum.zip {file}"),
        &format!(
            "aws lambda create-function --function-name checksum --runtime {runtime} --handler handler.handler \\"
        ),
        &format!("    --role arn:aws:iam::{account}:role/longshore-batch --timeout 60 --zip-file fileb://checksum.zip"),
    ]);
    let zip = package::zip_of(&[("handler.py", FUNCTION.as_bytes(), 0o644)])?;
    let function = NewFunction {
        name: "checksum",
        runtime,
        handler: "handler.handler",
        zip: &zip,
        timeout_seconds: 60,
        memory_mib: 256,
        variables: &[],
    };
    client.create_function(&function).await?;
    client.function_active("checksum").await?;

    step(4, "A manifest lists the objects: one line each, bucket and key, the key URL-encoded.");
    command(&[
        &format!("aws s3api list-objects-v2 --bucket {OBJECTS} --query 'Contents[].[Key]' --output text |"),
        &format!(
            "    python3 -c 'import sys, urllib.parse as u; [print(\"{OBJECTS},\" + u.quote(k[:-1])) for k in sys.stdin]' \\"
        ),
        "    > manifest.csv",
        &format!("aws s3 cp manifest.csv s3://{JOBS}/manifest.csv"),
    ]);
    let mut manifest = String::new();
    for (key, _, _) in &files {
        let key = percent_encoding::utf8_percent_encode(key, crate::client::KEY);
        manifest.push_str(&format!("{OBJECTS},{key}\n"));
    }
    let etag = client.put(JOBS, "manifest.csv", Content::Bytes(manifest.into())).await?;

    step(5, "A job calls the function for every object of the manifest.");
    command(&[
        &format!("aws s3control create-job --account-id {account} --no-confirmation-required --priority 10 \\"),
        &format!("    --role-arn arn:aws:iam::{account}:role/longshore-batch \\"),
        "    --operation '{\"LambdaInvoke\": {\"FunctionArn\": \"checksum\"}}' \\",
        "    --manifest '{\"Spec\": {\"Format\": \"S3BatchOperations_CSV_20180820\", \"Fields\": [\"Bucket\", \"Key\"]},",
        &format!(
            "        \"Location\": {{\"ObjectArn\": \"arn:aws:s3:::{JOBS}/manifest.csv\", \"ETag\": \"{etag}\"}}}}' \\"
        ),
        &format!("    --report '{{\"Bucket\": \"arn:aws:s3:::{JOBS}\", \"Prefix\": \"report\", \"Enabled\": true,"),
        "        \"Format\": \"Report_CSV_20180820\", \"ReportScope\": \"AllTasks\"}'",
    ]);
    let job = client
        .create_job(&NewJob {
            token: uuid::Uuid::new_v4().to_string(),
            description: "The demo: a checksum of every file".into(),
            function_arn: "checksum".into(),
            arguments: Vec::new(),
            manifest_bucket: JOBS.into(),
            manifest_key: "manifest.csv".into(),
            manifest_etag: etag,
            with_versions: false,
            report_bucket: JOBS.into(),
            report_prefix: "report".into(),
            tags: Vec::new(),
        })
        .await?;

    step(6, &format!("Job {job} runs."));
    command(&[&format!("aws s3control describe-job --account-id {account} --job-id {job}")]);
    let mut progress = Progress::new();
    let described = watch(&client, &job, &mut progress).await?;
    progress.end();
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        println!();
    }

    step(7, "The completion report has one row for every object.");
    command(&[&format!("aws s3 cp --recursive s3://{JOBS}/report/job-{job} {shown_report}")]);
    // A report of an earlier demo is not mixed with this one's.
    remove_old_report(report_folder)?;
    let failures = report::fetch(&client, JOBS, "report", &job, report_folder).await?;
    println!();
    let place = report_folder.join("manifest.json").display().to_string();
    let status = summarize(&described, failures.as_ref(), failures.as_ref().map(|_| place.as_str()));
    println!("The demo took {}.", took(began.elapsed()));
    Ok(status)
}

/// How long something took, in words that are true below a second, too.
fn took(time: std::time::Duration) -> String {
    if time.as_secs() == 0 { "less than a second".to_owned() } else { duration(time) }
}

fn step(number: u32, text: &str) {
    println!("{}{number}. {text}", if number == 1 { "" } else { "\n" });
}

fn command(lines: &[&str]) {
    for line in lines {
        let continued = line.starts_with(' ');
        println!("   {} {line}", if continued { " " } else { "$" });
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// Key, path and size of each file.
fn files(source: &Path) -> Result<Vec<(String, PathBuf, u64)>, Failure> {
    let mut files = Vec::new();
    let left_out = walk::files(source, &[".git", "target"], |path, key| {
        let size = path.metadata().because(format!("cannot read {}", path.display()))?.len();
        files.push((key.to_owned(), path.to_owned(), size));
        Ok(())
    })?;
    if files.is_empty() {
        return Err(Failure::usage(format!("there are no files in {}", source.display())));
    }
    if left_out.unnameable > 0
        && let Some(said) = (walk::LeftOut { unnameable: left_out.unnameable, ..walk::LeftOut::default() }).told()
    {
        eprintln!("{said}");
    }
    Ok(files)
}

/// Puts all files, several at once.
async fn upload(server: &Server, files: &[(String, PathBuf, u64)]) -> Result<(), Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<Client> = (0..UPLOADS.min(files.len())).map(|_| server.client()).collect();
    let lanes = clients.iter().map(|client| {
        let next = next.clone();
        async move {
            while let Some((key, path, _)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                client.put(OBJECTS, key, Content::File(path)).await?;
            }
            Ok::<_, Failure>(())
        }
    });
    futures::future::try_join_all(lanes).await.map(drop)
}

/// The folder asked for, or the repository around the working folder.
fn source(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = asked {
        let found = path.canonicalize();
        let found = found.map_err(|e| Failure::usage(format!("cannot read the folder {}: {e}", path.display())))?;
        return if found.is_dir() {
            Ok(found)
        } else {
            Err(Failure::usage(format!("{} is not a folder", path.display())))
        };
    }
    let here = std::env::current_dir().because("cannot tell the working folder")?;
    repository_around(&here).ok_or_else(|| {
        Failure::usage("there is no repository around this folder whose files could be the objects")
            .hint("name a folder with --source DIR")
    })
}

/// The nearest folder upwards with a `.git`; else the topmost with a `Cargo.toml`, for a source archive has no `.git`.
fn repository_around(here: &Path) -> Option<PathBuf> {
    let git = here.ancestors().find(|folder| folder.join(".git").exists());
    git.or_else(|| here.ancestors().filter(|folder| folder.join("Cargo.toml").exists()).last()).map(Path::to_owned)
}

/// Below `target/` of the repository, where it is in nobody's way; else in the working folder.
fn default_report_folder() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let target = repository_around(&here).map(|r| r.join("target")).filter(|t| t.is_dir());
    target.unwrap_or(here).join("longshore-demo-report")
}

/// Removes the files that an earlier report left: those that this one would not overwrite.
fn remove_old_report(folder: &Path) -> Result<(), Failure> {
    let results = folder.join("results");
    if !folder.join("manifest.json").is_file() || !results.is_dir() {
        return Ok(());
    }
    let cannot = || format!("cannot remove the earlier report in {}", folder.display());
    for entry in std::fs::read_dir(&results).because(cannot())? {
        let path = entry.because(cannot())?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            std::fs::remove_file(&path).because(cannot())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_less_than_a_second_did_not_take_none() {
        let took = |ms| took(std::time::Duration::from_millis(ms));
        assert_eq!([took(340), took(2_900), took(61_000)], ["less than a second", "2 s", "1 min 1 s"]);
    }

    #[test]
    fn the_repository_is_found_upwards() {
        let temp = tempfile::tempdir().unwrap();
        let deep = temp.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(temp.path().join("a/Cargo.toml"), "").unwrap();
        std::fs::write(temp.path().join("a/b/Cargo.toml"), "").unwrap();
        assert_eq!(repository_around(&deep).unwrap(), temp.path().join("a"));
        std::fs::create_dir(temp.path().join("a/b/.git")).unwrap();
        assert_eq!(repository_around(&deep).unwrap(), temp.path().join("a/b"));
    }
}
