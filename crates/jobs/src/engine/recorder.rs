//! Makes results durable, and reads them back: the acting half of `core::record`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore_core::past::{Misread, Past};
use longshore_core::record::{Entries, Logged, Unreadable};
use longshore_store::{Fatal, Files, Ground, Mark, Position, ResultLog, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::checkpointer;
use crate::ledger::{Ledger, Results};

/// How long a batch of which nobody knows whether it is there is left alone before it is given again.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn log_dir(job_dir: &Path) -> PathBuf {
    job_dir.join("results")
}

/// Whether a job has ever run, so that it has a log.
pub(crate) fn has_log(files: &dyn Files, job_dir: &Path) -> bool {
    files.is_there(&log_dir(job_dir))
}

/// Opens a job's log for appending and reads its past: what came since the last checkpoint, or all of it. From here on
/// checkpoints are written as the log grows.
pub(crate) async fn open(ground: &Ground, job_dir: &Path, fatal: Fatal) -> Result<(Arc<ResultLog>, Past), StoreError> {
    // The task ends by itself, with the log.
    open_followed(ground, job_dir, fatal).await.map(|(log, past, _following)| (log, past))
}

/// As [`open`], with the task that writes the checkpoints.
pub(super) async fn open_followed(
    ground: &Ground,
    job_dir: &Path,
    fatal: Fatal,
) -> Result<(Arc<ResultLog>, Past, oneshot::Receiver<()>), StoreError> {
    let dir = log_dir(job_dir);
    let (reading, thrown, on) = (dir.clone(), fatal.clone(), ground.clone());
    let opened = ground.blocking(move || {
        if let Some((mark, past, bytes)) = checkpointer::last(on.files(), &reading)? {
            match replay(&on, &reading, thrown.clone(), Some(mark), past)? {
                Ok((log, past)) => return Ok((log, past, Some((mark, bytes)))),
                Err(wrong) => checkpointer::passed_over(&reading, &wrong),
            }
        }
        match replay(&on, &reading, thrown, None, Past::default())? {
            Ok((log, past)) => Ok((log, past, None)),
            Err(wrong) => Err(StoreError::Damaged(format!("the result log {}: {wrong}", reading.display()))),
        }
    });
    let (log, past, kept) = opened.await?;
    let following = checkpointer::start(ground, dir, fatal, &log, past.clone(), kept);
    Ok((Arc::new(log), past, following))
}

/// Opens the log and adds to `past` what stands behind `from`; or what about it is wrong. Blocks.
fn replay(
    ground: &Ground,
    dir: &Path,
    fatal: Fatal,
    from: Option<Mark>,
    mut past: Past,
) -> Result<Result<(ResultLog, Past), Misread>, StoreError> {
    let mut wrong = None;
    let log = ResultLog::open(ground, dir, fatal, from, |payload| {
        if let Err(misread) = past.add_frame(payload) {
            wrong.get_or_insert(misread);
        }
    })?;
    Ok(wrong.map_or(Ok((log, past)), Err))
}

/// Writes one batch; answers with its number.
pub(crate) fn write(
    log: &Arc<ResultLog>,
    batch: u64,
    entries: Arc<Entries>,
) -> impl Future<Output = (u64, Result<(), StoreError>)> + Send + 'static {
    let log = Arc::clone(log);
    async move { (batch, log.append(Payload(entries)).await) }
}

/// Entries on their way to the log, which needs nothing of them but the bytes.
struct Payload(Arc<Entries>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

/// Records one batch under the run's lease; answers with its number. One of which nobody knows whether it is there is
/// given again until it is known.
pub(super) async fn record(
    results: Arc<dyn Results>,
    batch: u64,
    entries: Arc<Entries>,
) -> (u64, Result<(), StoreError>) {
    loop {
        match results.append(batch, Arc::clone(&entries)).await {
            Err(StoreError::Unknown(why)) => {
                tracing::warn!(why, "it is not known whether results are recorded, will retry");
                tokio::time::sleep_until(Instant::now() + PAUSE).await;
            }
            other => return (batch, other.map(drop)),
        }
    }
}

/// A job's results, to be read.
#[derive(Clone)]
pub(super) struct Log {
    pub ledger: Arc<dyn Ledger>,
    pub job_id: String,
}

/// Reads every settled task of a job in the order of its log, and checks that none is there twice. Blocks. Memory: a frame,
/// and what [`Past`] takes.
pub(super) fn settled(
    log: &Log,
    mut each: impl FnMut(&Logged<'_>) -> Result<(), Unreadable>,
) -> Result<(), StoreError> {
    let mut past = Past::default();
    settled_since(log, Position::default(), |logged| {
        past.settle(logged.row, logged.succeeded).map_err(Misread::Twice)?;
        Ok(each(logged)?)
    })
    .map(drop)
}

/// Reads the settled tasks from where an earlier reading ended; returns where this one did.
pub(super) fn settled_since(
    log: &Log,
    from: Position,
    mut each: impl FnMut(&Logged<'_>) -> Result<(), Misread>,
) -> Result<Position, StoreError> {
    let mut wrong = None;
    let to = log.ledger.read_results(&log.job_id, from, &mut |payload| {
        if wrong.is_none() {
            let read = Logged::read_all(payload, |logged| if logged.settled { each(&logged) } else { Ok(()) });
            wrong = read.err();
        }
    })?;
    match wrong {
        None => Ok(to),
        Some(wrong) => Err(StoreError::Damaged(format!("the result log of job {}: {wrong}", log.job_id))),
    }
}
