//! Preparing: the rows of a job are read once, checked one by one, and pinned.
//!
//! Each kind of source is a file below here with one `pin` that opens it and feeds the lines of its rows to the one
//! stage that checks and keeps them, [`pinning`].

mod csv;
mod generator;
mod inventory;
mod pinning;
mod report;

use longshore_core::manifest::FaultKind;
use longshore_store::StoreError;
use longshore_wire::arn;

use super::role::JobObjects;
use super::{Engine, pinned};
use crate::error::FailureReason;
use crate::ledger::{GeneratedManifest, JobRow};
use crate::ports::{ObjectBody, ObjectError};
use crate::shape::{Manifest, Source, bare_etag};

/// Why preparing stopped.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// The job fails, and this is what it says.
    Failed(FailureReason),
    /// No space of our own: waited for as long as it takes.
    NoSpace(StoreError),
    /// A store that does not answer now: tried again from the start, for a while.
    Unavailable(ObjectError),
    Store(StoreError),
    /// The pinning stage takes no more lines: its own verdict counts. Known to sources alone, never leaves here.
    NotTaken,
}

impl From<std::io::Error> for Unprepared {
    fn from(error: std::io::Error) -> Self {
        pinned::io("preparing")(error).into()
    }
}

impl From<StoreError> for Unprepared {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Unprepared::NoSpace(error) } else { Unprepared::Store(error) }
    }
}

/// What a preparation has made.
#[derive(Debug)]
pub(super) struct Prepared {
    pub rows: u64,
    /// The list that a generator has saved.
    pub generated: Option<GeneratedManifest>,
    /// The job that the rows' task numbers belong to, where it is another.
    pub lineage: Option<String>,
}

const TOO_MANY_ROWS: &str =
    "The S3 Batch Operations job failed because it contains more keys than the maximum allowed in a single job";

/// Reads, checks and pins the rows of a job. With `growth` the rows that are checked can be read meanwhile.
///
/// It can be repeated from any point: nothing of an earlier, interrupted try counts.
pub(super) async fn prepare(
    engine: &Engine,
    job: &JobRow,
    growth: Option<pinned::Growth>,
) -> Result<Prepared, Unprepared> {
    let (job_id, mut lineage) = (job.id.as_str(), None);
    let objects = engine.shared.world.doors.objects_of(job);
    objects.assume().map_err(|why| {
        let reason = FailureReason::new(ROLE_ACCESS_DENIED, why.reason);
        Unprepared::Failed(why.hint.into_iter().fold(reason, FailureReason::detailed))
    })?;
    let rows = match &job.request.source {
        Source::Manifest(manifest) => {
            let object = open(&objects, manifest).await?;
            if manifest.is_report() {
                let (rows, origin) = report::pin(engine, &objects, job, object, growth).await?;
                lineage = origin;
                rows
            } else if manifest.is_inventory() {
                inventory::pin(engine, &objects, job_id, manifest, object, growth).await?
            } else {
                csv::pin(engine, job_id, manifest, object, growth).await?
            }
        }
        Source::ManifestGenerator(generator) => return generator::pin(engine, &objects, job_id, generator).await,
    };
    if rows == 0 {
        return Err(content("The manifest has no rows"));
    }
    Ok(Prepared { rows, generated: None, lineage })
}

/// Opens the manifest object, which has to be the one that the job names (rules M-6, M-7).
///
/// The port's body belongs to the ETag that comes with it, so comparing them guards what is read from it.
async fn open(objects: &JobObjects, manifest: &Manifest) -> Result<ObjectBody, Unprepared> {
    let (bucket, key) = arn::object_of(&manifest.object_arn).ok_or_else(|| content("Invalid Manifest Content"))?;
    if !manifest.etag_fits() {
        return Err(content("ETag format is invalid"));
    }
    let object = objects.get(bucket, key, manifest.object_version_id.as_deref()).await.map_err(unreadable)?;
    let (found, wanted) = (bare_etag(&object.etag), manifest.etag_bare());
    if found != wanted {
        let text = format!("The manifest's ETag is {found}, not {wanted} as the job says: it has changed");
        return Err(failed("ManifestETagMismatch", text));
    }
    Ok(object)
}

/// The body that broke off: the same call may give it whole the next time.
fn check_whole(size: Option<u64>, fetched: u64) -> Result<(), Unprepared> {
    match size.filter(|size| *size != fetched) {
        None => Ok(()),
        Some(size) => {
            let message = format!("the manifest broke off after {fetched} of {size} bytes");
            Err(Unprepared::Unavailable(ObjectError { code: "IncompleteBody".into(), message, passing: true }))
        }
    }
}

fn failed(code: &str, reason: impl Into<String>) -> Unprepared {
    Unprepared::Failed(FailureReason::new(code, reason))
}

/// What is in the manifest fails the job.
fn content(reason: impl Into<String>) -> Unprepared {
    failed("InvalidManifestContent", reason)
}

/// AWS's sentence for a bad row, and which one it is.
fn bad(kind: FaultKind, detail: impl Into<String>) -> Unprepared {
    Unprepared::Failed(FailureReason::new("InvalidManifestContent", kind.reason()).detailed(detail))
}

/// The code with which a job fails whose role cannot be taken on.
const ROLE_ACCESS_DENIED: &str = "RoleAccessDenied";
/// The code with which a job fails whose manifest does not read as it was stored.
const MANIFEST_DAMAGED: &str = "ManifestDamaged";

/// Says in the log why a job fails for its manifest. Damage is for whoever runs the server; all else is for whoever made
/// the job, who finds it there.
pub(super) fn log_failed(job_id: &str, reason: &FailureReason) {
    let (code, reason) = (reason.code.as_str(), reason.reason.as_str());
    match code {
        MANIFEST_DAMAGED => tracing::error!(job = job_id, code, reason, "a job fails because its manifest is damaged"),
        ROLE_ACCESS_DENIED => tracing::warn!(job = job_id, code, reason, "a job fails because of its role"),
        _ => tracing::info!(job = job_id, code, reason, "a job fails because of its manifest"),
    }
}

/// Sorts a store's refusal into the reasons of S3 Batch spec 2.7.
fn unreadable(error: ObjectError) -> Unprepared {
    match error.code.as_str() {
        _ if error.passing => Unprepared::Unavailable(error),
        "AccessDenied" => Unprepared::Failed(
            FailureReason::new("ManifestAccessDenied", "Reading the manifest is forbidden: AccessDenied")
                .detailed(error.message),
        ),
        // It was found; what is wrong is our disk.
        ObjectError::DAMAGED => Unprepared::Failed(
            FailureReason::new(MANIFEST_DAMAGED, format!("Reading the manifest failed: {}", error.message))
                .detailed("Put the object again and create the job again, or restore the data directory from a backup"),
        ),
        // A store that has the object and does not give it.
        code @ ("InvalidObjectState" | "SourceChanged") => {
            failed("ManifestUnavailable", format!("Reading the manifest failed: {code}: {}", error.message))
        }
        code => failed("ManifestNotFound", format!("Reading the manifest failed: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_store_fails_the_job_for_what_it_is() {
        for (code, wanted, text) in [
            ("NoSuchKey", "ManifestNotFound", "Reading the manifest failed: NoSuchKey"),
            ("NoSuchBucket", "ManifestNotFound", "Reading the manifest failed: NoSuchBucket"),
            ("AccessDenied", "ManifestAccessDenied", "Reading the manifest is forbidden: AccessDenied"),
            // It was found.
            (ObjectError::DAMAGED, "ManifestDamaged", "Reading the manifest failed: s3://b/k: no"),
            ("SourceChanged", "ManifestUnavailable", "Reading the manifest failed: SourceChanged: s3://b/k: no"),
            (
                "InvalidObjectState",
                "ManifestUnavailable",
                "Reading the manifest failed: InvalidObjectState: s3://b/k: no",
            ),
        ] {
            let error = ObjectError { code: code.into(), message: "s3://b/k: no".into(), passing: false };
            let Unprepared::Failed(reason) = unreadable(error) else { panic!("{code} fails no job") };
            assert_eq!((reason.code.as_str(), reason.reason.as_str()), (wanted, text));
            assert_eq!(
                reason.detail.is_some(),
                ["ManifestDamaged", "ManifestAccessDenied"].contains(&wanted),
                "{code}"
            );
        }
        let passing = ObjectError { code: "NoSuchKey".into(), message: String::new(), passing: true };
        assert!(matches!(unreadable(passing), Unprepared::Unavailable(_)));
    }
}
