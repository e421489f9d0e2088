//! Makes results durable, and reads them back: the acting half of `core::record`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore_core::record::Entry;
use longshore_core::run::Past;
use longshore_store::{Fatal, Position, ResultLog, StoreError};
use tokio::time::Instant;

use crate::ledger::{Ledger, Results};

/// How long a batch of which nobody knows whether it is there is left alone before it is given again.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn log_dir(job_dir: &Path) -> PathBuf {
    job_dir.join("results")
}

/// Whether a job has ever run, so that it has a log.
pub(crate) fn has_log(job_dir: &Path) -> bool {
    log_dir(job_dir).exists()
}

/// Opens a job's log for appending and reads its past.
pub(crate) async fn open(job_dir: &Path, fatal: Fatal) -> Result<(Arc<ResultLog>, Past), StoreError> {
    let dir = log_dir(job_dir);
    blocking(move || {
        let mut past = Past::default();
        let mut wrong = None;
        let log = ResultLog::open(&dir, fatal, |payload| {
            let read = Entry::decode_all(payload, |entry| {
                if let Err(row) = past.add(&entry) {
                    wrong.get_or_insert(format!("row {row} is settled twice"));
                }
            });
            if read.is_err() {
                wrong.get_or_insert("a frame does not read".to_owned());
            }
        })?;
        match wrong {
            None => Ok((Arc::new(log), past)),
            Some(wrong) => Err(StoreError::Damaged(format!("the result log {}: {wrong}", dir.display()))),
        }
    })
    .await
}

/// Writes one batch; answers with its number.
pub(crate) fn write(
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

/// Records one batch under the run's lease; answers with its number. One of which nobody knows whether it is there is
/// given again until it is known.
pub(super) async fn record(
    results: Arc<dyn Results>,
    batch: u64,
    entries: Arc<Vec<Entry>>,
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

/// Reads every settled task of a job in the order of its log. Blocks.
pub(super) fn settled(log: &Log, each: impl FnMut(&Entry)) -> Result<(), StoreError> {
    settled_since(log, Position::default(), each).map(drop)
}

/// As [`settled`], from where an earlier reading ended; returns where this one did.
pub(super) fn settled_since(log: &Log, from: Position, mut each: impl FnMut(&Entry)) -> Result<Position, StoreError> {
    let mut readable = true;
    let to = log.ledger.read_results(&log.job_id, from, &mut |payload| {
        let read = Entry::decode_all(payload, |entry| {
            if matches!(entry, Entry::Settled { .. }) {
                each(&entry);
            }
        });
        readable &= read.is_ok();
    })?;
    match readable {
        true => Ok(to),
        false => Err(StoreError::Damaged(format!("the result log of job {}: a frame does not read", log.job_id))),
    }
}

/// Runs blocking file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(StoreError::Damaged(format!("file work panicked: {panic}"))))
}
