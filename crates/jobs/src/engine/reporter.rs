//! Writes the completion report: from the result log to spool files, from there to the report's bucket.
//!
//! The CSVs first, then `manifest.json.md5`, then `manifest.json`, which commits the report. Names, rows and dates do
//! not change when it is written again after a crash (rules RP-2, RP-8).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use longshore_core::job::Status;
use longshore_core::record::Logged;
use longshore_core::report::{self, Names, Part, Scope, TaskStatus, is_part_full};
use longshore_store::StoreError;
use longshore_store::failpoint::{self, Place};
use longshore_wire::arn;
use md5::{Digest, Md5};

use super::patience::{GaveUp, Patience, patiently};
use super::recorder::{self, Log};
use super::{Engine, agent};
use crate::error::FailureReason;
use crate::ledger::{Fence, JobRow};
use crate::operations::iso;
use crate::ports::{PutBody, PutTerms};

/// Why there is no report.
pub(super) enum Unreported {
    /// The bucket does not take it: the job fails.
    Failed(FailureReason),
    Store(StoreError),
}

impl From<StoreError> for Unreported {
    fn from(error: StoreError) -> Self {
        Unreported::Store(error)
    }
}

/// Writes the report of a job whose results are final, if it is to have one; returns how many tasks it tells of. Safe to repeat.
pub(super) async fn report(
    engine: &Engine,
    fence: &Fence,
    job: &JobRow,
    status: Status,
    patience: Patience,
) -> Result<u64, Unreported> {
    let world = &engine.shared.world;
    let wanted = &job.request.report;
    let bucket = wanted.bucket.as_deref().and_then(arn::bucket_of);
    let (true, Some(bucket)) = (wanted.enabled, bucket) else { return Ok(0) };
    let scope = scope(job);
    let names = Names::new(wanted.prefix.as_deref(), &job.id);
    let spool = world.job_dir(&job.id).join("report");

    let (settled, spooled) = persist(engine, patience, || {
        let (log, spool) = (world.log(&job.id), spool.clone());
        engine.shared.tasks.blocking(move || {
            let spooled = spool_parts(&log, &spool, scope);
            if spooled.is_err() {
                // Half a report must not hold the space that it and others wait for. What cannot be removed is
                // overwritten by the next try.
                let _ = std::fs::remove_dir_all(&spool);
            }
            spooled
        })
    })
    .await?;
    let (rows, whole) = match status {
        Status::Completing => (job.rows_total, settled == job.rows_total),
        // What ended in flight is in the log, and may have come too late for the row.
        status if status.is_terminal() => (job.succeeded + job.failed, settled >= job.succeeded + job.failed),
        _ => (job.rows_total, true),
    };
    if !whole {
        // Better no report than one with rows missing.
        let what = format!("the result log of job {} has {settled} of {rows} rows", job.id);
        return Err(Unreported::Store(StoreError::Damaged(what)));
    }
    // No task was ever invoked: no report (rule L-13).
    if settled == 0 {
        return Ok(0);
    }
    let objects = world.doors.objects_of(job);
    if let Some(owner) = &wanted.expected_bucket_owner {
        // Whose a bucket is, and whether it is there, is told to those whose role may write to it.
        let (key, encryption) = (names.manifest(), objects.report_encryption(bucket));
        let allowed = patiently(engine, patience, &key, || objects.may_put(bucket, &key, &encryption));
        allowed.await.map_err(|gave_up| undelivered(&job.id, bucket, gave_up))?;
        let what = "the owner of a report's bucket";
        let checked = patiently(engine, patience, what, || objects.check_owner(bucket, owner));
        checked.await.map_err(|gave_up| match gave_up {
            GaveUp::Refused(error) if error.code == "AccessDenied" => {
                let detail = format!("The bucket {bucket} does not belong to the account {owner}");
                Unreported::Failed(undeliverable().detailed(detail))
            }
            other => undelivered(&job.id, bucket, other),
        })?;
    }
    failpoint::pass(Place::ReportSpooled);
    let created = persist(engine, patience, || world.ledger.report_created(fence)).await?;
    failpoint::pass(Place::ReportDated);
    let encryption = objects.report_encryption(bucket);
    let put = async |key: &str, kind: &str, body: PutBody| {
        let terms = PutTerms { content_type: kind, encryption: &encryption };
        // Its key names the job.
        let put = patiently(engine, patience, key, || objects.put(bucket, key, terms, body.clone()));
        put.await.map(drop).map_err(|gave_up| undelivered(&job.id, bucket, gave_up))
    };
    let mut parts = Vec::new();
    for part in spooled {
        let key = names.part(part.status, part.number);
        failpoint::pass(Place::ReportPartBefore);
        put(&key, "text/csv", PutBody::File(part.path, part.bytes)).await?;
        failpoint::pass(Place::ReportPartAfter);
        parts.push(Part { status: part.status, bucket: bucket.to_owned(), key, md5: part.md5 });
    }
    let manifest = report::manifest_json(&iso(created), &parts);
    let md5 = hex::encode(Md5::digest(&manifest));
    put(&names.manifest_md5(), "text/plain", PutBody::Bytes(Bytes::from(md5))).await?;
    failpoint::pass(Place::ReportManifestBefore);
    put(&names.manifest(), "application/json", PutBody::Bytes(Bytes::from(manifest))).await?;
    failpoint::pass(Place::ReportManifestAfter);
    tracing::info!(job = job.id, bucket, rows = settled, parts = parts.len(), "completion report written");
    Ok(settled)
}

/// The code with which a job fails whose report its bucket does not take.
pub(super) const REPORT_DELIVERY_FAILED: &str = "ReportDeliveryFailed";

fn undeliverable() -> FailureReason {
    FailureReason::new(
        REPORT_DELIVERY_FAILED,
        "The job report could not be written to your report bucket. Please check your permissions.",
    )
}

fn undelivered(job_id: &str, bucket: &str, gave_up: GaveUp) -> Unreported {
    match gave_up {
        GaveUp::Refused(error) => {
            tracing::warn!(job = job_id, bucket, %error, "a report cannot be delivered");
            Unreported::Failed(undeliverable().detailed(format!("{bucket}: {error}")))
        }
        // The report is written anew at the next start, or with the next request.
        GaveUp::NotNow(error) => Unreported::Store(error),
    }
}

/// As [`agent::persist`] for an agent; a request is told at once that there is no space.
async fn persist<T, F: Future<Output = Result<T, StoreError>>>(
    engine: &Engine,
    patience: Patience,
    mut write: impl FnMut() -> F,
) -> Result<T, StoreError> {
    match patience {
        Patience::Agent => agent::persist(engine, write).await,
        Patience::Request => write().await,
    }
}

fn scope(job: &JobRow) -> Scope {
    match job.request.report.scope.as_deref() {
        Some("FailedTasksOnly") => Scope::FailedTasksOnly,
        _ => Scope::AllTasks,
    }
}

/// One finished spool file.
struct Spooled {
    status: TaskStatus,
    number: u32,
    path: PathBuf,
    bytes: u64,
    md5: String,
}

/// Rows gather to so many bytes before they are hashed and written: each of both is dear for a row alone.
const GATHER_BYTES: usize = 128 << 10;

/// A result file being made.
struct Filling<W> {
    status: TaskStatus,
    number: u32,
    sink: W,
    md5: Md5,
    rows: u64,
    bytes: u64,
    /// Rows that are in neither yet.
    gathered: Vec<u8>,
}

impl<W: Write> Filling<W> {
    fn push(&mut self, logged: &Logged<'_>) -> std::io::Result<()> {
        let before = self.gathered.len();
        report::push_row(&mut self.gathered, logged);
        self.rows += 1;
        self.bytes += (self.gathered.len() - before) as u64;
        if self.gathered.len() >= GATHER_BYTES { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> std::io::Result<()> {
        self.md5.update(&self.gathered);
        self.sink.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<(Filled, W)> {
        self.hand_on()?;
        self.sink.flush()?;
        let Self { status, number, sink, md5, bytes, .. } = self;
        Ok((Filled { status, number, md5: hex::encode(md5.finalize()), bytes }, sink))
    }
}

/// A finished result file.
struct Filled {
    status: TaskStatus,
    number: u32,
    md5: String,
    bytes: u64,
}

/// Makes the result files of a log, each in a sink that `make` gives; a new one begins where one `is_full` by its rows
/// and bytes. Returns how many tasks were settled, listed there or not, and the files. Blocks. Memory: a frame of the log
/// and [`GATHER_BYTES`] for each of two files.
fn fill_parts<W: Write>(
    log: &Log,
    scope: Scope,
    is_full: impl Fn(u64, u64) -> bool,
    mut make: impl FnMut(TaskStatus, u32) -> std::io::Result<W>,
) -> Result<(u64, Vec<(Filled, W)>), StoreError> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full(e.to_string()),
        _ => StoreError::Io(e),
    };
    let mut open: [Option<Filling<W>>; 2] = [None, None];
    let mut done = Vec::new();
    let mut settled = 0;
    let mut failure = None;
    recorder::settled(log, |logged| {
        settled += 1;
        if failure.is_some() || (scope == Scope::FailedTasksOnly && logged.succeeded) {
            return Ok(());
        }
        let status = if logged.succeeded { TaskStatus::Succeeded } else { TaskStatus::Failed };
        let written = (|| {
            let slot = &mut open[usize::from(!logged.succeeded)];
            let mut number = 0;
            if let Some(full) = slot.take_if(|s| is_full(s.rows, s.bytes)) {
                number = full.number + 1;
                done.push(full.finish()?);
            }
            let filling = match slot {
                Some(filling) => filling,
                None => slot.insert(Filling {
                    status,
                    number,
                    sink: make(status, number)?,
                    md5: Md5::new(),
                    rows: 0,
                    bytes: 0,
                    gathered: Vec::new(),
                }),
            };
            filling.push(logged)
        })();
        failure = written.err();
        Ok(())
    })?;
    if let Some(failure) = failure {
        return Err(io(failure));
    }
    for filling in open.into_iter().flatten() {
        done.push(filling.finish().map_err(io)?);
    }
    done.sort_by_key(|(file, _)| (file.status, file.number));
    Ok((settled, done))
}

/// Writes the log's results as CSVs below `dir`.
fn spool_parts(log: &Log, dir: &Path, scope: Scope) -> Result<(u64, Vec<Spooled>), StoreError> {
    let path = |status: TaskStatus, number: u32| dir.join(format!("{}-{number}.csv", status.name()));
    let (settled, filled) = fill_parts(log, scope, is_part_full, |status, number| {
        std::fs::create_dir_all(dir)?;
        File::create(path(status, number))
    })?;
    let spooled = filled.into_iter().map(|(part, _)| {
        let (status, number, bytes) = (part.status, part.number, part.bytes);
        Spooled { status, number, path: path(status, number), bytes, md5: part.md5 }
    });
    Ok((settled, spooled.collect()))
}

/// The result files of the report that a job has written, as its log has them; none if it has no report. Blocks.
pub(super) fn parts_of(job: &JobRow, log: &Log) -> Result<Vec<Part>, StoreError> {
    let wanted = &job.request.report;
    let bucket = wanted.bucket.as_deref().and_then(arn::bucket_of);
    let (true, Some(bucket)) = (wanted.enabled, bucket) else { return Ok(Vec::new()) };
    let names = Names::new(wanted.prefix.as_deref(), &job.id);
    let (_, filled) = fill_parts(log, scope(job), is_part_full, |_, _| Ok(std::io::sink()))?;
    let parts = filled.into_iter().map(|(part, _)| Part {
        status: part.status,
        bucket: bucket.to_owned(),
        key: names.part(part.status, part.number),
        md5: part.md5,
    });
    Ok(parts.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longshore_core::record::Entry;
    use longshore_core::task::{Outcome, Task, VersionId};

    use super::*;
    use crate::ledger::Duty;

    #[tokio::test]
    async fn a_new_file_begins_at_so_many_rows_or_bytes_and_holds_one_status() {
        let dir = tempfile::tempdir().unwrap();
        let log = crate::engine::tests::log_in(dir.path(), "j").await;
        let fence = log.ledger.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
        let (results, _) = log.ledger.open_results(&fence).await.unwrap();
        let settled = |row: u64| {
            let key: Box<str> = format!("k{row}").into();
            let outcome = match row % 3 {
                0 => Outcome::failed(200, "PermanentFailure", "no"),
                _ => Outcome::succeeded("yes"),
            };
            let task = Task { row, number: row, bucket: "b".into(), key, version: VersionId::NoColumn };
            Entry::Settled { task: Arc::new(task), attempts: 1, outcome }
        };
        results.append(1, Arc::new((0..10).map(settled).collect())).await.unwrap();
        // Succeeded: 1, 2, 4, 5, 7, 8. Failed: 0, 3, 6, 9.
        for (is_full, wanted) in [
            ((|rows, _| rows >= 4) as fn(u64, u64) -> bool, vec![(0, 4), (1, 2), (0, 4)]),
            (|_, bytes| bytes >= 60, vec![(0, 3), (1, 3), (0, 2), (1, 2)]),
            (|_, _| false, vec![(0, 6), (0, 4)]),
        ] {
            let wanted: Vec<(u32, usize)> = wanted;
            let (all, files) = fill_parts(&log, Scope::AllTasks, is_full, |_, _| Ok(Vec::new())).unwrap();
            assert_eq!(all, 10);
            let mut found = Vec::new();
            for (file, text) in files {
                assert_eq!((text.len() as u64, hex::encode(Md5::digest(&text))), (file.bytes, file.md5));
                let text = String::from_utf8(text).unwrap();
                let told = format!(",{},", file.status.name());
                assert!(text.ends_with("\r\n") && text.split_terminator("\r\n").all(|row| row.contains(&told)));
                found.push((file.number, text.split_terminator("\r\n").count()));
            }
            assert_eq!(found, wanted);
        }
    }

    #[tokio::test]
    async fn a_row_that_is_in_the_log_twice_makes_no_report() {
        let dir = tempfile::tempdir().unwrap();
        let log = crate::engine::tests::log_in(dir.path(), "j").await;
        let fence = log.ledger.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
        let (results, _) = log.ledger.open_results(&fence).await.unwrap();
        for batch in 1..=2 {
            let task = Task { row: 4, number: 4, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn };
            let entry = Entry::Settled { task: Arc::new(task), attempts: 1, outcome: Outcome::succeeded("") };
            results.append(batch, Arc::new(std::iter::once(entry).collect())).await.unwrap();
        }
        let filled = fill_parts(&log, Scope::AllTasks, is_part_full, |_, _| Ok(Vec::new()));
        assert!(matches!(filled, Err(StoreError::Damaged(what)) if what.contains("row 4 is settled twice")));
    }
}
