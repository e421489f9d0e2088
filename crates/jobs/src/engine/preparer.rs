//! Preparing: the rows of a job are read once, checked one by one, and pinned.
//!
//! Each kind of source is a file below here with one `pin` that opens it and feeds the lines of its rows to the one
//! stage that checks and keeps them, [`pinning`].

mod csv;
mod pinning;
mod report;

use longshore_store::StoreError;
use longshore_wire::arn;

use super::{Engine, pinned};
use crate::error::FailureReason;
use crate::ports::{ObjectBody, ObjectError};
use crate::shape::{Manifest, Source, bare_etag};
use crate::table::JobRow;

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

impl From<StoreError> for Unprepared {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Unprepared::NoSpace(error) } else { Unprepared::Store(error) }
    }
}

/// What a preparation has made.
#[derive(Debug)]
pub(super) struct Prepared {
    pub rows: u64,
    /// The job that the rows' task numbers belong to, where it is another.
    pub lineage: Option<String>,
}

/// Reads, checks and pins the rows of a job. With `growth` the rows that are checked can be read meanwhile.
pub(super) async fn prepare(
    engine: &Engine,
    job: &JobRow,
    growth: Option<pinned::Growth>,
) -> Result<Prepared, Unprepared> {
    let (job_id, source) = (job.id.as_str(), &job.request.source);
    let rows = match source {
        Source::Manifest(manifest) => {
            let object = open(engine, manifest).await?;
            if manifest.is_report() {
                return report::pin(engine, job, object, growth).await;
            }
            csv::pin(engine, job_id, manifest, object, growth).await?
        }
    };
    Ok(Prepared { rows, lineage: None })
}

/// Opens the manifest object, which has to be the one that the job names (rules M-6, M-7).
///
/// The port's body belongs to the ETag that comes with it, so comparing them guards what is read from it.
async fn open(engine: &Engine, manifest: &Manifest) -> Result<ObjectBody, Unprepared> {
    let (bucket, key) = arn::object_of(&manifest.object_arn).ok_or_else(|| content("Invalid Manifest Content"))?;
    let objects = &engine.shared.world.objects;
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

/// Sorts a store's refusal into the reasons of S3 Batch spec 2.7.
fn unreadable(error: ObjectError) -> Unprepared {
    match error.code.as_str() {
        _ if error.passing => Unprepared::Unavailable(error),
        "AccessDenied" => failed("ManifestAccessDenied", "Reading the manifest is forbidden: AccessDenied"),
        code => failed("ManifestNotFound", format!("Reading the manifest failed: {code}")),
    }
}
