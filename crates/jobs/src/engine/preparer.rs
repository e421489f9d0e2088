//! Preparing: the whole manifest is read once, checked row by row, and pinned.

use futures::StreamExt;
use longshore_core::manifest::{Fault, FaultKind, LineTooLong, Lines, RowFormat};
use longshore_store::StoreError;
use longshore_wire::arn;
use tokio::sync::mpsc;

use super::recorder::blocking;
use super::{World, pinned};
use crate::error::FailureReason;
use crate::ports::ObjectError;
use crate::shape::{self, Manifest};

/// Why preparing stopped.
pub(super) enum Unprepared {
    /// The job fails, and this is what it says.
    Failed(FailureReason),
    /// Passing trouble (no space, a store that does not answer): it is tried again from the start.
    TryAgain(String),
    Store(StoreError),
}

/// Pieces of the manifest between the store and the thread that checks them: 8 pieces of usually 64 KiB to 1 MiB.
const PIECES_MAX: usize = 8;

/// Reads, checks and pins the manifest; returns its number of rows.
pub(super) async fn prepare(
    world: &World,
    job_id: &str,
    manifest: &Manifest,
    format: RowFormat,
) -> Result<u64, Unprepared> {
    let (bucket, key) = arn::object_of(&manifest.object_arn)
        .ok_or_else(|| failed("InvalidManifestContent", "Invalid Manifest Content"))?;
    let object = world
        .objects
        .get(bucket, key, manifest.object_version_id.as_deref())
        .await
        .map_err(|error| unreadable(&error))?;
    if shape::bare_etag(&object.etag) != manifest.etag_bare() {
        let text = format!(
            "The manifest's ETag is {}, not {} as the job says: it has changed",
            shape::bare_etag(&object.etag),
            manifest.etag_bare()
        );
        return Err(failed("ManifestETagMismatch", text));
    }

    let (pieces, mut incoming) = mpsc::channel::<bytes::Bytes>(PIECES_MAX);
    let dir = world.job_dir(job_id);
    let rows_max = world.settings.rows_max;
    let checking = blocking(move || {
        let mut writer = pinned::Writer::create(&dir)?;
        let mut lines = Lines::default();
        let mut check = |line: &[u8]| {
            let row = writer.rows();
            if row >= rows_max {
                return Err(Stop::TooManyRows);
            }
            format.parse(row, line)?;
            writer.push(line).map_err(Stop::Store)
        };
        let mut checked = Ok(());
        while let Some(piece) = incoming.blocking_recv() {
            checked = lines.push(&piece, &mut check);
            if checked.is_err() {
                break;
            }
        }
        // The sender notices that nobody takes its pieces any more.
        drop(incoming);
        let checked = checked.and_then(|()| lines.finish().map_or(Ok(()), |last| check(&last)));
        match checked {
            Ok(()) => {
                let rows = writer.rows();
                writer.finish()?;
                Ok(Ok(rows))
            }
            Err(Stop::Store(error)) => Err(error),
            Err(stop) => Ok(Err(stop)),
        }
    });
    let fetching = async move {
        let mut stream = object.stream;
        while let Some(piece) = stream.next().await {
            if pieces.send(piece?).await.is_err() {
                break;
            }
        }
        Ok::<(), ObjectError>(())
    };
    let (checked, fetched) = tokio::join!(checking, fetching);
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) if error.is_full() => return Err(Unprepared::TryAgain(error.to_string())),
        Err(error) => return Err(Unprepared::Store(error)),
    };
    match checked {
        Err(Stop::Fault(fault)) => {
            tracing::info!(job = job_id, row = fault.row, fault = ?fault.what, "the manifest has a bad row");
            Err(failed("InvalidManifestContent", fault.what.reason()))
        }
        Err(Stop::TooManyRows) => Err(failed(
            "InvalidManifestContent",
            "The S3 Batch Operations job failed because it contains more keys than the maximum allowed in a single job",
        )),
        Err(Stop::Store(error)) => Err(Unprepared::Store(error)),
        // A body that broke off may end in a row that looks whole: what was fetched decides, not what was checked.
        Ok(rows) => match fetched {
            Err(error) => Err(unreadable(&error)),
            Ok(()) if rows == 0 => Err(failed("InvalidManifestContent", "The manifest has no rows")),
            Ok(()) => Ok(rows),
        },
    }
}

enum Stop {
    Fault(Fault),
    TooManyRows,
    Store(StoreError),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

impl From<LineTooLong> for Stop {
    fn from(_: LineTooLong) -> Self {
        Stop::Fault(Fault { row: 0, what: FaultKind::Malformed })
    }
}

fn failed(code: &str, reason: impl Into<String>) -> Unprepared {
    Unprepared::Failed(FailureReason::new(code, reason))
}

/// Sorts a store's refusal into the reasons of S3 Batch spec 2.7.
fn unreadable(error: &ObjectError) -> Unprepared {
    match error.code.as_str() {
        _ if error.passing => Unprepared::TryAgain(error.to_string()),
        "AccessDenied" => failed("ManifestAccessDenied", "Reading the manifest is forbidden: AccessDenied"),
        code => failed("ManifestNotFound", format!("Reading the manifest failed: {code}")),
    }
}
