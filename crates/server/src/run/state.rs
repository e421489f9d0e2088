//! What is kept of a run, so that it can be resumed: a folder with `run.json`, the manifest, the function's zip and, for
//! a run with a storage of its own, the data directory.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::credentials::write_file;
use crate::failure::{Because, Failure, OK};

const FILE: &str = "run.json";

/// Everything that a run needs to go on. Written once the manifest and the zip are there, and whenever it changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Names the run, its function, its bucket and its request token.
    pub id: String,
    /// Where its server keeps state.
    pub data_dir: PathBuf,
    /// Made for this run alone, and removed with it.
    pub data_dir_is_ours: bool,
    pub runtime: String,
    pub handler: String,
    pub timeout_seconds: u32,
    pub memory_mib: u32,
    pub variables: Vec<(String, String)>,
    pub arguments: Vec<(String, String)>,
    pub concurrency: Option<u32>,
    pub attempts: Option<u32>,
    /// The folder whose files the manifest names; `None` if they are in the storage already.
    pub local_folder: Option<PathBuf>,
    pub manifest: ManifestPlace,
    pub with_versions: bool,
    pub report: ReportPlace,
    /// The store of all buckets but the run's own; `None` for the embedded one.
    #[serde(default)]
    pub endpoint: Option<EndpointPlan>,
    pub json: bool,
    /// The job, once it was created.
    pub job: Option<String>,
    /// The exit status, once it is over.
    pub ended: Option<u8>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ManifestPlace {
    /// `manifest.csv` in the run's folder, to be uploaded.
    Here,
    /// In the storage.
    Stored { bucket: String, key: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportPlace {
    /// Copied to this folder.
    Folder(PathBuf),
    Stored {
        bucket: String,
        prefix: String,
    },
}

/// The S3 of somebody else that a run works on, without any secret: credentials are found anew at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPlan {
    /// `None` for Amazon S3.
    pub url: Option<String>,
    pub profile: Option<String>,
    pub region: Option<String>,
    pub anonymous: bool,
    pub allow_plain_http: bool,
}

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    /// Makes the folder of a new run below `runs`. Its name is the time and a few random characters.
    pub fn make(runs: &Path) -> Result<(Self, String), Failure> {
        let now = jiff::Timestamp::now();
        let random = uuid::Uuid::new_v4().simple().to_string();
        // To the millisecond, so that of two runs in one second the later one is the latest.
        let id = format!("{}-{:03}{}", now.strftime("%Y%m%d-%H%M%S"), now.subsec_millisecond(), &random[..4]);
        let folder = runs.join(&id);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .because(format!("cannot make {}", folder.display()))?;
        Ok((Self(folder), id))
    }

    /// The run named, or the latest that is `wanted` if `name` is empty; `what` is the sentence if there is none.
    pub fn find(runs: &Path, name: &str, what: &str, wanted: impl Fn(&Plan) -> bool) -> Result<(Self, Plan), Failure> {
        if !name.is_empty() {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let folder = Self(runs.join(name));
            return match folder.read() {
                Ok(plan) if plain => Ok((folder, plan)),
                _ => Err(Failure::usage(format!("there is no run {name} in {}", runs.display()))),
            };
        }
        // The names begin with the time, so the last by name is the latest.
        let mut folders: Vec<PathBuf> =
            std::fs::read_dir(runs).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
        folders.sort_unstable();
        let latest = folders.into_iter().rev().map(Self).find_map(|folder| {
            let plan = folder.read().ok()?;
            wanted(&plan).then_some((folder, plan))
        });
        latest.ok_or_else(|| Failure::usage(format!("there is no run {what} in {}", runs.display())))
    }

    /// The run named, or the latest that is not over.
    pub fn find_to_resume(runs: &Path, name: &str) -> Result<(Self, Plan), Failure> {
        Self::find(runs, name, "to resume", |plan| plan.ended.is_none())
    }

    /// The run named, or the latest that is over. Refuses one in which nothing can be tried again.
    pub fn find_to_retry(runs: &Path, name: &str) -> Result<(Self, Plan), Failure> {
        let (folder, plan) = Self::find(runs, name, "that is over", |plan| plan.ended.is_some())?;
        match plan.ended {
            None => Err(Failure::usage(format!("run {} is not over", plan.id))
                .hint(format!("longshore run --resume {} goes on with it", plan.id))),
            Some(OK) => {
                Err(Failure::usage(format!("nothing failed in run {}, so there is nothing to try again", plan.id)))
            }
            Some(_) => Ok((folder, plan)),
        }
    }

    fn read(&self) -> Result<Plan, Failure> {
        let path = self.0.join(FILE);
        let text = std::fs::read(&path).because(format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).because(format!("{} is damaged", path.display()))
    }

    pub fn write(&self, plan: &Plan) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(plan).because("cannot write run.json")?;
        write_file(&self.0, FILE, &text)
    }

    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.csv")
    }

    pub fn zip(&self) -> PathBuf {
        self.0.join("function.zip")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report")
    }

    /// Where the function's log is, once the run is over.
    pub fn log(&self) -> PathBuf {
        self.0.join("function.log")
    }

    /// Moves the log of the run's function out of the data directory, with the older part of a long one beside it.
    /// `None` if the function printed nothing.
    pub fn keep_log(&self, plan: &Plan, function: &str) -> Result<Option<PathBuf>, Failure> {
        let (from, to) = (longshore_functions::host::logs::path(&plan.data_dir, function), self.log());
        for suffix in ["log", "log.1"] {
            let (from, to) = (from.with_extension(suffix), to.with_extension(suffix));
            let cannot = || format!("cannot keep the function's log {}", from.display());
            match std::fs::rename(&from, &to) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // The data directory may be on another file system.
                Err(_) => {
                    std::fs::copy(&from, &to).because(cannot())?;
                    std::fs::remove_file(&from).because(cannot())?;
                }
            }
        }
        Ok(to.metadata().is_ok_and(|m| m.len() > 0).then_some(to))
    }

    /// Removes what only resuming would need. The report, the function's log and `run.json` stay, and where something
    /// failed the function, with which it can be tried again.
    pub fn tidy(&self, plan: &Plan) {
        // What cannot be removed does no harm but take space.
        let _ = std::fs::remove_file(self.manifest());
        if plan.ended == Some(OK) {
            let _ = std::fs::remove_file(self.zip());
        }
        if plan.data_dir_is_ours {
            let _ = std::fs::remove_dir_all(&plan.data_dir);
        }
    }
}

/// Where runs are kept: below the data directory if one was named, else `$XDG_STATE_HOME/longshore/runs`.
pub fn runs_folder(data_dir: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> Result<PathBuf, Failure> {
    let set = |name: &str| environment(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    data_dir
        .map(|d| d.join("runs"))
        .or_else(|| set("XDG_STATE_HOME").map(|s| s.join("longshore/runs")))
        .or_else(|| set("HOME").map(|h| h.join(".local/state/longshore/runs")))
        .ok_or_else(|| {
            Failure::usage("no folder for the state of a run: HOME is not set").hint("name one with --data-dir")
        })
}

/// The log that a run has kept, if `function` (`run-…`) is that of a run that is over.
pub fn log_of_run(
    data_dir: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
    function: &str,
) -> Option<PathBuf> {
    let id = function.strip_prefix("run-").filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))?;
    let log = RunFolder(runs_folder(data_dir, environment).ok()?.join(id)).log();
    log.is_file().then_some(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(id: &str, ended: Option<u8>) -> Plan {
        Plan {
            id: id.into(),
            data_dir: "/d".into(),
            data_dir_is_ours: false,
            runtime: "python3.12".into(),
            handler: "h.f".into(),
            timeout_seconds: 1,
            memory_mib: 128,
            variables: Vec::new(),
            arguments: vec![("k".into(), "v".into())],
            concurrency: None,
            attempts: Some(2),
            local_folder: None,
            manifest: ManifestPlace::Here,
            with_versions: false,
            report: ReportPlace::Folder("/r".into()),
            endpoint: None,
            json: false,
            job: None,
            ended,
        }
    }

    #[test]
    fn the_latest_run_that_is_not_over_is_the_one_to_resume() {
        let temp = tempfile::tempdir().unwrap();
        assert!(RunFolder::find_to_resume(&temp.path().join("none"), "").is_err());
        for (id, ended) in [("20260101-000000-a", None), ("20260102-000000-a", None), ("20260103-000000-a", Some(0))] {
            let folder = RunFolder(temp.path().join(id));
            std::fs::create_dir(&folder.0).unwrap();
            folder.write(&plan(id, ended)).unwrap();
        }
        std::fs::create_dir(temp.path().join("20260104-000000-a")).unwrap();
        let find = |name| RunFolder::find_to_resume(temp.path(), name);
        assert_eq!(find("").unwrap().1.id, "20260102-000000-a");
        assert_eq!(find("20260103-000000-a").unwrap().1.ended, Some(0));
        assert!(find("../x").is_err());
        assert!(find("20260109-000000-a").is_err());
    }

    #[test]
    fn a_run_is_tried_again_once_it_is_over_and_only_if_something_failed() {
        let temp = tempfile::tempdir().unwrap();
        let find = |name| RunFolder::find_to_retry(temp.path(), name).map(|(_, plan)| plan.id).map_err(|f| f.message);
        let make = |id: &str, ended| {
            let folder = RunFolder(temp.path().join(id));
            std::fs::create_dir(&folder.0).unwrap();
            folder.write(&plan(id, ended)).unwrap();
        };
        assert!(find("").unwrap_err().starts_with("there is no run that is over in "));
        make("20260101-000000-a", Some(1));
        make("20260102-000000-a", None);
        assert_eq!(find(""), Ok("20260101-000000-a".into()));
        assert_eq!(find("20260102-000000-a"), Err("run 20260102-000000-a is not over".into()));
        make("20260103-000000-a", Some(0));
        assert!(find("").unwrap_err().starts_with("nothing failed in run 20260103-000000-a"));
        assert_eq!(find("20260101-000000-a"), Ok("20260101-000000-a".into()));
    }

    #[test]
    fn the_function_stays_where_something_failed() {
        for (ended, stays) in [(0, false), (1, true), (2, true)] {
            let temp = tempfile::tempdir().unwrap();
            let folder = RunFolder(temp.path().to_owned());
            std::fs::write(folder.zip(), "").unwrap();
            folder.tidy(&plan("a", Some(ended)));
            assert_eq!(folder.zip().exists(), stays, "{ended}");
        }
    }
}
