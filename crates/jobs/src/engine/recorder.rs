//! Makes results durable, and reads them back: the acting half of `core::record`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_core::record::Entry;
use longshore_core::run::Past;
use longshore_store::{Fatal, Position, ResultLog, StoreError};

fn log_dir(job_dir: &Path) -> PathBuf {
    job_dir.join("results")
}

/// Whether a job has ever run, so that it has a log.
pub(super) fn has_log(job_dir: &Path) -> bool {
    log_dir(job_dir).exists()
}

/// Opens a job's log for appending and reads its past.
pub(super) async fn open(job_dir: &Path, fatal: Fatal) -> Result<(Arc<ResultLog>, Past), StoreError> {
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

/// Reads every settled task of a job in the order of its log. Blocks.
pub(super) fn settled(job_dir: &Path, each: impl FnMut(&Entry)) -> Result<(), StoreError> {
    settled_since(job_dir, Position::default(), each).map(drop)
}

/// As [`settled`], from where an earlier reading ended; returns where this one did.
pub(super) fn settled_since(
    job_dir: &Path,
    from: Position,
    mut each: impl FnMut(&Entry),
) -> Result<Position, StoreError> {
    let dir = log_dir(job_dir);
    let mut readable = true;
    let to = ResultLog::read_on(&dir, from, |payload| {
        let read = Entry::decode_all(payload, |entry| {
            if matches!(entry, Entry::Settled { .. }) {
                each(&entry);
            }
        });
        readable &= read.is_ok();
    })?;
    match readable {
        true => Ok(to),
        false => Err(StoreError::Damaged(format!("the result log {}: a frame does not read", dir.display()))),
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
