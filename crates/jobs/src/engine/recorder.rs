//! Makes results durable, and reads them back: the acting half of `core::record`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_core::past::{Misread, Past};
use longshore_core::record::{Entry, Logged, Unreadable};
use longshore_store::{Fatal, Mark, Position, ResultLog, StoreError};

use tokio::task::JoinHandle;

use super::checkpointer;

pub(super) fn log_dir(job_dir: &Path) -> PathBuf {
    job_dir.join("results")
}

/// Whether a job has ever run, so that it has a log.
pub(super) fn has_log(job_dir: &Path) -> bool {
    log_dir(job_dir).exists()
}

/// Opens a job's log for appending and reads its past: what came since the last checkpoint, or all of it. From here on
/// checkpoints are written as the log grows.
pub(super) async fn open(job_dir: &Path, fatal: Fatal) -> Result<(Arc<ResultLog>, Past), StoreError> {
    // The task ends by itself, with the log.
    open_followed(job_dir, fatal).await.map(|(log, past, _following)| (log, past))
}

/// As [`open`], with the task that writes the checkpoints.
pub(super) async fn open_followed(
    job_dir: &Path,
    fatal: Fatal,
) -> Result<(Arc<ResultLog>, Past, JoinHandle<()>), StoreError> {
    let dir = log_dir(job_dir);
    let (reading, thrown) = (dir.clone(), fatal.clone());
    let (log, past, kept) = blocking(move || {
        if let Some((mark, past, bytes)) = checkpointer::last(&reading)? {
            match replay(&reading, thrown.clone(), Some(mark), past)? {
                Ok((log, past)) => return Ok((log, past, Some((mark, bytes)))),
                Err(wrong) => checkpointer::passed_over(&reading, &wrong),
            }
        }
        match replay(&reading, thrown, None, Past::default())? {
            Ok((log, past)) => Ok((log, past, None)),
            Err(wrong) => Err(StoreError::Damaged(format!("the result log {}: {wrong}", reading.display()))),
        }
    })
    .await?;
    let following = checkpointer::start(dir, fatal, &log, past.clone(), kept);
    Ok((Arc::new(log), past, following))
}

/// Opens the log and adds to `past` what stands behind `from`; or what about it is wrong. Blocks.
fn replay(
    dir: &Path,
    fatal: Fatal,
    from: Option<Mark>,
    mut past: Past,
) -> Result<Result<(ResultLog, Past), Misread>, StoreError> {
    let mut wrong = None;
    let log = ResultLog::open(dir, fatal, from, |payload| {
        if let Err(misread) = past.add_frame(payload) {
            wrong.get_or_insert(misread);
        }
    })?;
    Ok(wrong.map_or(Ok((log, past)), Err))
}

/// Writes one batch; answers with its number.
pub(super) fn write(
    log: &Arc<ResultLog>,
    batch: u64,
    entries: Arc<Vec<Entry>>,
) -> impl Future<Output = (u64, Result<(), StoreError>)> + Send + 'static {
    let log = Arc::clone(log);
    async move {
        let mut payload = Vec::with_capacity(entries.len() * 128);
        entries.iter().for_each(|entry| entry.encode(&mut payload));
        (batch, log.append(payload).await)
    }
}

/// Reads every settled task of a job in the order of its log, and checks that none is there twice. Blocks. Memory: a frame,
/// and what [`Past`] takes.
pub(super) fn settled(
    job_dir: &Path,
    mut each: impl FnMut(&Logged<'_>) -> Result<(), Unreadable>,
) -> Result<(), StoreError> {
    let mut past = Past::default();
    settled_since(job_dir, Position::default(), |logged| {
        past.settle(logged.row, logged.succeeded).map_err(Misread::Twice)?;
        Ok(each(logged)?)
    })
    .map(drop)
}

/// Reads the settled tasks from where an earlier reading ended; returns where this one did.
pub(super) fn settled_since(
    job_dir: &Path,
    from: Position,
    mut each: impl FnMut(&Logged<'_>) -> Result<(), Misread>,
) -> Result<Position, StoreError> {
    let dir = log_dir(job_dir);
    let mut wrong = None;
    let to = ResultLog::read_on(&dir, from, |payload| {
        if wrong.is_none() {
            let read = Logged::read_all(payload, |logged| if logged.settled { each(&logged) } else { Ok(()) });
            wrong = read.err();
        }
    })?;
    match wrong {
        None => Ok(to),
        Some(wrong) => Err(StoreError::Damaged(format!("the result log {}: {wrong}", dir.display()))),
    }
}

/// Runs blocking file work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(StoreError::Damaged(format!("file work panicked: {panic}"))))
}
