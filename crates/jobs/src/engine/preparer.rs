//! Preparing: the whole manifest is read once, checked row by row, and pinned.

use futures::StreamExt;
use longshore_core::manifest::{Fault, FaultKind, LineTooLong, Lines};
use longshore_store::StoreError;
use longshore_wire::arn;
use tokio::sync::mpsc;

use super::{Engine, pinned};
use crate::error::FailureReason;
use crate::ports::ObjectError;
use crate::shape::{self, Source};

/// Why preparing stopped.
pub(super) enum Unprepared {
    /// The job fails, and this is what it says.
    Failed(FailureReason),
    /// No space of our own: waited for as long as it takes.
    NoSpace(StoreError),
    /// A store that does not answer now: tried again from the start, for a while.
    Unavailable(ObjectError),
    Store(StoreError),
}

/// Pieces of the manifest between the store and the thread that checks them: 8 pieces of usually 64 KiB to 1 MiB.
const PIECES_MAX: usize = 8;

/// Reads, checks and pins the manifest; returns its number of rows. With `growth` the rows that are checked can be read
/// meanwhile.
pub(super) async fn prepare(
    engine: &Engine,
    job_id: &str,
    source: &Source,
    growth: Option<pinned::Growth>,
) -> Result<u64, Unprepared> {
    let world = &engine.shared.world;
    let Source::Manifest(manifest) = source;
    let format = manifest.row_format().ok_or_else(|| failed("InvalidManifestContent", "Invalid Manifest Content"))?;
    let (bucket, key) = arn::object_of(&manifest.object_arn)
        .ok_or_else(|| failed("InvalidManifestContent", "Invalid Manifest Content"))?;
    let object = world.objects.get(bucket, key, manifest.object_version_id.as_deref()).await.map_err(unreadable)?;
    if shape::bare_etag(&object.etag) != manifest.etag_bare() {
        let text = format!(
            "The manifest's ETag is {}, not {} as the job says: it has changed",
            shape::bare_etag(&object.etag),
            manifest.etag_bare()
        );
        return Err(failed("ManifestETagMismatch", text));
    }

    // The end is said in so many words: a channel that merely closes is a fetch that was given up.
    let (pieces, mut incoming) = mpsc::channel::<Option<bytes::Bytes>>(PIECES_MAX);
    let dir = world.job_dir(job_id);
    let rows_max = world.settings.rows_max;
    // Tracked, so that a server that stops waits for it: nobody else may find it writing.
    let checking = engine.shared.tasks.spawn_blocking(move || {
        let mut writer = pinned::Writer::create(&dir, format.clone(), growth)?;
        let mut lines = Lines::default();
        let mut check = |line: &[u8]| {
            let row = writer.rows();
            if row >= rows_max {
                return Err(Stop::TooManyRows);
            }
            format.parse(row, line)?;
            writer.push(line).map_err(Stop::Store)
        };
        let checked = loop {
            match incoming.blocking_recv() {
                None => break Err(Stop::GivenUp),
                Some(None) => break Ok(()),
                Some(Some(piece)) => {
                    if let Err(stop) = lines.push(&piece, &mut check) {
                        break Err(stop);
                    }
                }
            }
        };
        // The sender notices that nobody takes its pieces any more.
        drop(incoming);
        let checked = checked.and_then(|()| lines.finish().map_or(Ok(()), |last| check(&last)));
        match checked {
            Ok(()) => {
                let rows = writer.rows();
                writer.finish()?;
                Ok(Ok(rows))
            }
            Err(stop) => {
                // A part of a manifest must not lie about, least of all where space is short.
                writer.discard();
                match stop {
                    Stop::Store(error) => Err(error),
                    stop => Ok(Err(stop)),
                }
            }
        }
    });
    let fetching = async move {
        let mut stream = object.stream;
        let mut fetched = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            fetched += piece.len() as u64;
            if pieces.send(Some(piece)).await.is_err() {
                return Ok(());
            }
        }
        if let Some(size) = object.size.filter(|size| *size != fetched) {
            let message = format!("the manifest broke off after {fetched} of {size} bytes");
            return Err(ObjectError { code: "IncompleteBody".into(), message, passing: true });
        }
        // Refused only by a check that has failed already, which decides.
        let _ = pieces.send(None).await;
        Ok::<(), ObjectError>(())
    };
    let (checked, fetched) = tokio::join!(checking, fetching);
    let checked = checked.unwrap_or_else(|panic| Err(StoreError::Damaged(format!("file work panicked: {panic}"))));
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) if error.is_full() => return Err(Unprepared::NoSpace(error)),
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
        Err(Stop::GivenUp) => Err(fetched.err().map_or_else(
            || Unprepared::Store(StoreError::Damaged("a manifest's check lost its fetch".into())),
            unreadable,
        )),
        Ok(0) => Err(failed("InvalidManifestContent", "The manifest has no rows")),
        Ok(rows) => Ok(rows),
    }
}

enum Stop {
    Fault(Fault),
    TooManyRows,
    /// The fetch ended early: what was read may end in a row that only looks whole.
    GivenUp,
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
fn unreadable(error: ObjectError) -> Unprepared {
    match error.code.as_str() {
        _ if error.passing => Unprepared::Unavailable(error),
        "AccessDenied" => failed("ManifestAccessDenied", "Reading the manifest is forbidden: AccessDenied"),
        code => failed("ManifestNotFound", format!("Reading the manifest failed: {code}")),
    }
}
