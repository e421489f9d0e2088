//! Named places at which a server that was told so kills itself: how the tests crash it where they mean to.
//!
//! Always compiled, so that what is tested is what is shipped, and off: [`pass`] is one relaxed load then. A server is told
//! by the environment variable [`VARIABLE`] alone, which only who starts it can set. `docs/decisions/0032` says why that is safe.
//!
//! [`Place`] is the one list. `longshore failpoints` prints it, and `tests/conformance/test_failpoints.py` fails when a
//! place is never passed.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// `PLACE` or `PLACE:N`: the process ends by SIGKILL when it comes to the place for the n-th time, counted from 1.
pub const VARIABLE: &str = "LONGSHORE_TEST_FAILPOINT";
/// A file to which the name of each place is appended, a line each time that it is passed.
pub const VARIABLE_PASSED: &str = "LONGSHORE_TEST_FAILPOINTS_PASSED";

macro_rules! places {
    ($($(#[$doc:meta])* $place:ident = $name:literal,)*) => {
        /// Where a server may be told to kill itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Place { $($(#[$doc])* $place,)* }

        impl Place {
            /// Every place, in the order of the list.
            pub const ALL: &[Place] = &[$(Place::$place,)*];

            pub fn name(self) -> &'static str {
                match self { $(Place::$place => $name,)* }
            }
        }
    };
}

places! {
    // Starting.
    /// A small file of ours (the root credentials, `server.json`) is written and synced, under another name.
    FileUnnamed = "file.unnamed",
    FileNamed = "file.named",
    /// As these, for the key that seals variables.
    KeyUnnamed = "key.unnamed",
    KeyNamed = "key.named",
    /// All that was there has been opened and taken up; nobody is served yet.
    ServerOpened = "server.opened",

    // Records.
    CommitBefore = "records.commit.before",
    /// Durable, and nobody has been told.
    CommitAfter = "records.commit.after",
    CheckpointBefore = "records.checkpoint.before",
    CheckpointAfter = "records.checkpoint.after",
    /// The checksums of what was copied are written, not yet synced.
    CheckpointSums = "records.checkpoint.sums",

    // The result log of a job.
    ResultsOpenBefore = "results.open.before",
    ResultsOpenAfter = "results.open.after",
    ResultsAppendBefore = "results.append.before",
    /// Half of a frame is written.
    ResultsAppendTorn = "results.append.torn",
    ResultsSyncBefore = "results.sync.before",
    /// Durable, and the engine has not been told.
    ResultsSyncAfter = "results.sync.after",
    ResultsRollBefore = "results.roll.before",
    /// A new segment is there; its name is not durable.
    ResultsRollAfter = "results.roll.after",
    /// A checkpoint is written and synced, under another name.
    ResultsCheckpointBefore = "results.checkpoint.before",
    ResultsCheckpointAfter = "results.checkpoint.after",

    // A job's way.
    JobCreateBefore = "job.create.before",
    JobCreateAfter = "job.create.after",
    JobPreparingBefore = "job.preparing.before",
    JobPreparingAfter = "job.preparing.after",
    JobSuspendedBefore = "job.suspended.before",
    JobSuspendedAfter = "job.suspended.after",
    JobReadyBefore = "job.ready.before",
    JobReadyAfter = "job.ready.after",
    JobActiveBefore = "job.active.before",
    JobActiveAfter = "job.active.after",
    JobPausingBefore = "job.pausing.before",
    JobPausingAfter = "job.pausing.after",
    JobPausedBefore = "job.paused.before",
    JobPausedAfter = "job.paused.after",
    JobCompletingBefore = "job.completing.before",
    JobCompletingAfter = "job.completing.after",
    JobCompleteBefore = "job.complete.before",
    JobCompleteAfter = "job.complete.after",
    JobCancellingBefore = "job.cancelling.before",
    JobCancellingAfter = "job.cancelling.after",
    JobCancelledBefore = "job.cancelled.before",
    JobCancelledAfter = "job.cancelled.after",
    JobFailingBefore = "job.failing.before",
    JobFailingAfter = "job.failing.after",
    JobFailedBefore = "job.failed.before",
    JobFailedAfter = "job.failed.after",
    /// No further task of a cancelled job can start; the caller has not been told.
    JobCancelTaken = "job.cancel.taken",
    /// The files of a job whose time is over are gone, its record is not.
    JobRemoveFiles = "job.remove.files",
    /// Its pinned manifest has no index any more.
    JobCleanHalf = "job.clean.half",

    // The pinned manifest.
    ManifestSyncBefore = "manifest.sync.before",
    ManifestIndexBefore = "manifest.index.before",
    ManifestRenameBefore = "manifest.rename.before",
    ManifestRenameAfter = "manifest.rename.after",
    ManifestPinned = "manifest.pinned",

    // The completion report.
    ReportSpooled = "report.spooled",
    ReportDated = "report.dated",
    ReportPartBefore = "report.part.before",
    ReportPartAfter = "report.part.after",
    ReportManifestBefore = "report.manifest.before",
    ReportManifestAfter = "report.manifest.after",

    // Events of jobs, on their way to sinks.
    EventDeliverBefore = "event.deliver.before",
    /// The sink has it; that is not noted yet.
    EventDeliverAfter = "event.deliver.after",
    EventNoted = "event.noted",

    // Bodies of objects.
    BodySyncBefore = "body.sync.before",
    BodyRenameBefore = "body.rename.before",
    BodyRenameAfter = "body.rename.after",
    BodyNamed = "body.named",
    ObjectCommitBefore = "object.commit.before",
    ObjectCommitAfter = "object.commit.after",
    /// No record names it any more, and it is there.
    BodyRemoveBefore = "body.remove.before",

    // Code of functions.
    CodePackageStored = "code.package.stored",
    /// The first file of the package is unpacked.
    CodeUnpackHalf = "code.unpack.half",
    CodeRenameBefore = "code.rename.before",
    CodeRenameAfter = "code.rename.after",
    CodeNamed = "code.named",

    // Asynchronous invocations.
    QueueAcceptBefore = "queue.accept.before",
    QueueAcceptAfter = "queue.accept.after",
    QueueTryBefore = "queue.try.before",
    /// The function has run; that is not noted yet.
    QueueTryAfter = "queue.try.after",
    QueueSettled = "queue.settled",

    // Environments.
    EnvironmentStartBefore = "environment.start.before",
    EnvironmentStartAfter = "environment.start.after",
}

impl Place {
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|place| place.name() == name)
    }
}

/// Why a server was not told what its variables say.
#[derive(Debug, thiserror::Error)]
pub enum FailpointError {
    #[error("{VARIABLE}: there is no failpoint {0:?}")]
    NoSuchPlace(String),
    #[error("{VARIABLE}: {0:?} is no count: 1 is the first time")]
    NoCount(String),
    #[error("{VARIABLE_PASSED}: {0}: {1}")]
    File(String, #[source] std::io::Error),
    #[error("failpoints are set once a process")]
    Twice,
}

static SET: AtomicBool = AtomicBool::new(false);
static PLAN: OnceLock<Plan> = OnceLock::new();

#[derive(Debug)]
struct Plan {
    /// Where to end, and after how many more times.
    end: Option<(Place, AtomicU64)>,
    passed: Option<File>,
}

/// Sets what the two variables say; `None` and empty text are the same. Returns what was set, for the log: nothing, usually.
pub fn set(failpoint: Option<&str>, passed: Option<&str>) -> Result<Option<String>, FailpointError> {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let (failpoint, passed) = (given(failpoint), given(passed));
    if failpoint.is_none() && passed.is_none() {
        return Ok(None);
    }
    let end = failpoint.as_deref().map(read).transpose()?;
    let passed = passed.map(|path| {
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        opened.map_err(|error| FailpointError::File(path, error))
    });
    let plan = Plan { end: end.map(|(place, count)| (place, AtomicU64::new(count))), passed: passed.transpose()? };
    PLAN.set(plan).map_err(|_| FailpointError::Twice)?;
    SET.store(true, Ordering::Release);
    Ok(Some(failpoint.unwrap_or_else(|| "none, but what is passed is written down".into())))
}

fn read(text: &str) -> Result<(Place, u64), FailpointError> {
    let (name, count) = match text.split_once(':') {
        None => (text, 1),
        Some((name, count)) => {
            let read = count.parse().ok().filter(|count| *count > 0);
            (name, read.ok_or_else(|| FailpointError::NoCount(count.to_owned()))?)
        }
    };
    Ok((Place::named(name).ok_or_else(|| FailpointError::NoSuchPlace(name.to_owned()))?, count))
}

/// Tells that the work has come to a place. Does not return where the process is to end there.
#[inline]
pub fn pass(place: Place) {
    // Relaxed is enough: a thread that does not see the switch yet passes once more than it might have.
    if SET.load(Ordering::Relaxed) {
        reached(place);
    }
}

/// Whether this process is to end at the place: for work that is done in two halves only then.
#[inline]
pub fn is_set(place: Place) -> bool {
    SET.load(Ordering::Relaxed)
        && PLAN
            .get()
            .is_some_and(|plan| plan.passed.is_some() || plan.end.as_ref().is_some_and(|(end, _)| *end == place))
}

#[cold]
fn reached(place: Place) {
    let Some(plan) = PLAN.get() else { return };
    if let Some(mut file) = plan.passed.as_ref() {
        // One write of one line: those of other threads do not mix with it. A test that misses it fails by itself.
        let _ = file.write_all(format!("{place}\n").as_bytes());
    }
    if let Some((end, left)) = &plan.end
        && *end == place
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // No handler, no destructor and no buffer's flush, as with a kill from outside.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_place_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<_> = Place::ALL.iter().map(|place| place.name()).collect();
        assert_eq!(names.len(), Place::ALL.len());
        for place in Place::ALL {
            assert_eq!(Place::named(place.name()), Some(*place));
            assert_eq!(read(place.name()).unwrap(), (*place, 1));
        }
    }

    #[test]
    fn what_is_no_place_or_no_count_is_refused_and_nothing_is_set_by_nothing() {
        assert_eq!(read("job.ready.after:12").unwrap(), (Place::JobReadyAfter, 12));
        for (text, told) in [
            ("job.ready", "no failpoint \"job.ready\""),
            ("job.ready.after:0", "\"0\" is no count"),
            ("job.ready.after:", "\"\" is no count"),
            ("job.ready.after:-1", "\"-1\" is no count"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(set(None, Some("")).unwrap().is_none());
        assert!(!is_set(Place::CommitBefore));
        // Off: it returns.
        Place::ALL.iter().copied().for_each(pass);
    }
}
