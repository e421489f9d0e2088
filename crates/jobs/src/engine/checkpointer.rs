//! Writes checkpoints of a job's past beside its log, and finds the last one again, so that neither a restart nor a pause
//! reads the whole log (decision 0028).
//!
//! The task here knows nothing of the loop that runs the job. It follows the log on disk: what became durable since the
//! last checkpoint is read, added to a past of its own, and written down. So a checkpoint cannot say anything that the
//! log does not.

use std::path::{Path, PathBuf};

use longshore_core::past::Past;
use longshore_store::checkpoint::{self, Found};
use longshore_store::{Fatal, Files, Ground, Mark, ResultLog, StoreError};
use tokio::sync::{oneshot, watch};

/// A log grows at least so much from one checkpoint to the next: some hundred thousand results that say no more than that their
/// task succeeded, which an opening reads again in 4 ms; fewer of those that say more. A checkpoint costs two syncs and some
/// 350 µs.
const EVERY_BYTES: u64 = 1 << 20;
/// And at least so many times the size of the last one, so that checkpoints write at most a quarter of what the log does.
/// Only a job whose rows settle in no order has one of more than some kilobytes: 1.2 MB for each ten million rows.
const EVERY_SIZES: u64 = 4;

/// The last checkpoint of the log in `dir`, with its size in bytes, if it can be used. Blocks.
pub(super) fn last(files: &dyn Files, dir: &Path) -> Result<Option<(Mark, Past, u64)>, StoreError> {
    let found = match checkpoint::read(files, dir) {
        Ok(Found::None) => return Ok(None),
        Ok(Found::Whole(mark, bytes)) => Some((mark, bytes)),
        Ok(Found::Unreadable) => None,
        // The log itself may be readable all the same, and it has everything.
        Err(error) => {
            passed_over(dir, &error);
            return Ok(None);
        }
    };
    let read = found.and_then(|(mark, bytes)| Past::decode(&bytes).map(|past| (mark, past, bytes.len() as u64)));
    match read {
        Some((mark, ..)) if !ResultLog::reaches(files, dir, &mark)? => passed_over(dir, &"it is of another log"),
        Some(last) => return Ok(Some(last)),
        None => passed_over(dir, &"it does not read"),
    }
    Ok(None)
}

/// Says why a whole log is read.
pub(super) fn passed_over(dir: &Path, why: &dyn std::fmt::Display) {
    tracing::warn!(log = %dir.display(), %why, "a checkpoint was passed over, the whole log is read");
}

/// Starts writing checkpoints of an open log. `past` is what all of it amounts to; `kept` is the last checkpoint, and its
/// size in bytes. Ends with the log.
pub(super) fn start(
    ground: &Ground,
    dir: PathBuf,
    fatal: Fatal,
    log: &ResultLog,
    past: Past,
    kept: Option<(Mark, u64)>,
) -> oneshot::Receiver<()> {
    let marks = log.marks();
    let read = *marks.borrow();
    let (written, size) = kept.map_or((0, 0), |(mark, size)| (mark.bytes(), size));
    let own = ground.clone();
    ground.spawn(follow(Checkpointer { ground: own, dir, fatal, past, read, written, size }, marks))
}

struct Checkpointer {
    ground: Ground,
    dir: PathBuf,
    fatal: Fatal,
    /// What the log amounts to up to `read`.
    past: Past,
    read: Mark,
    /// Bytes of the log that the last checkpoint covers, and its own.
    written: u64,
    size: u64,
}

async fn follow(mut checkpointer: Checkpointer, mut marks: watch::Receiver<Mark>) {
    loop {
        let mark = *marks.borrow_and_update();
        // A segment that was begun and has nothing yet would be no place to go on from.
        if mark.is_known() && checkpointer.is_due_at(mark.bytes()) {
            let ground = checkpointer.ground.clone();
            let advanced = ground.blocking(move || {
                let written = checkpointer.advance(mark);
                Ok((checkpointer, written))
            });
            let written = match advanced.await {
                Ok((back, written)) => {
                    checkpointer = back;
                    written
                }
                Err(error) => return tracing::error!(%error, "no more checkpoints are written of a job"),
            };
            match written {
                Ok(()) => {}
                // It saves time alone. The next one finds space, or the job stands still for want of it anyhow.
                Err(error) if error.is_full() => {
                    tracing::warn!(log = %checkpointer.dir.display(), %error, "a checkpoint finds no space");
                }
                // Whoever reads the log is told the same: at the next opening, or at the report.
                Err(error) => {
                    let log = checkpointer.dir.display();
                    return tracing::error!(%log, %error, "no more checkpoints are written of a job");
                }
            }
        }
        if marks.changed().await.is_err() {
            return;
        }
    }
}

impl Checkpointer {
    /// Whether one is due when the log has so many bytes.
    fn is_due_at(&self, bytes: u64) -> bool {
        bytes.saturating_sub(self.written) >= self.ground.length(EVERY_BYTES).max(EVERY_SIZES * self.size)
    }

    /// Reads on to `mark` and writes a checkpoint there. Blocks.
    fn advance(&mut self, mark: Mark) -> Result<(), StoreError> {
        let (mut past, mut wrong) = (std::mem::take(&mut self.past), None);
        ResultLog::read_between(self.ground.files(), &self.dir, &self.read, &mark, |payload| {
            if let Err(misread) = past.add_frame(payload) {
                wrong.get_or_insert(misread);
            }
        })?;
        if let Some(wrong) = wrong {
            return Err(StoreError::Damaged(wrong.to_string()));
        }
        let bytes = past.encode();
        (self.past, self.read) = (past, mark);
        checkpoint::write(self.ground.files(), &self.dir, &mark, &bytes, &self.fatal)?;
        (self.written, self.size) = (mark.bytes(), bytes.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use longshore_core::record::Entry;
    use longshore_core::task::{Outcome, Task, VersionId};
    use longshore_store::Os;

    use super::*;
    use crate::engine::recorder;

    const KIB_EACH: u64 = 2;
    /// Rows whose results make a log that is due for a checkpoint.
    const DUE: u64 = EVERY_BYTES / 1_024 / KIB_EACH;

    /// With a message that makes the log grow fast.
    fn entry(row: u64, settled: bool) -> Entry {
        let task =
            Arc::new(Task { row, number: row, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn });
        let mut outcome = if row.is_multiple_of(3) { Outcome::failed(200, "C", "") } else { Outcome::succeeded("") };
        outcome.message = "m".repeat(KIB_EACH as usize * 1_024);
        match settled {
            true => Entry::Settled { task, attempts: 1, outcome },
            false => Entry::Redriven { task, attempts: 1, outcome },
        }
    }

    /// Opens the log of a job, settles these rows, a batch for each 128, and waits for the checkpoints that come of it.
    async fn settle(job_dir: &Path, rows: std::ops::Range<u64>) -> Result<Past, StoreError> {
        let (log, past, following) = recorder::open_followed(&Ground::Threads, job_dir, Fatal::new()).await?;
        let rows: Vec<u64> = rows.collect();
        for (batch, rows) in (1..).zip(rows.chunks(128)) {
            let entries = rows.iter().map(|row| entry(*row, true)).collect();
            recorder::write(&log, batch, Arc::new(entries)).await.1?;
        }
        drop(log);
        following.await.unwrap();
        Ok(past)
    }

    fn checkpoint_of(job_dir: &Path) -> Option<(Mark, Past, u64)> {
        last(&Os, &recorder::log_dir(job_dir)).unwrap()
    }

    #[tokio::test]
    async fn an_opening_reads_what_came_since_the_last_checkpoint_and_nothing_before() {
        let dir = tempfile::tempdir().unwrap();
        settle(dir.path(), 0..DUE / 2).await.unwrap();
        assert!(checkpoint_of(dir.path()).is_none(), "the log is short");
        settle(dir.path(), DUE / 2..DUE + 300).await.unwrap();
        let (mark, kept, size) = checkpoint_of(dir.path()).unwrap();
        assert!(kept.first_open_row() >= DUE - 128 && size < 200, "{} rows, {size} bytes", kept.first_open_row());
        settle(dir.path(), DUE + 300..DUE + 400).await.unwrap();
        assert_eq!(checkpoint_of(dir.path()).unwrap().0, mark, "it is not due again so soon");

        // What stands before the checkpoint may be anything, until the report reads it: but its last frame.
        let segment = recorder::log_dir(dir.path()).join("00000001.seg");
        let good = std::fs::read(&segment).unwrap();
        let mut bad = good.clone();
        bad[8..500_000].fill(0);
        std::fs::write(&segment, &bad).unwrap();
        let past = settle(dir.path(), 0..0).await.unwrap();
        assert_eq!((past.first_open_row(), past.succeeded() + past.failed()), (DUE + 400, DUE + 400));
        assert_eq!(past.failed(), (DUE + 400).div_ceil(3));
        let whole = ResultLog::read(&Os, &recorder::log_dir(dir.path()), |_| {});
        assert!(matches!(whole, Err(StoreError::Damaged(_))));

        // Without it the whole log is read, and is what it is.
        let checkpoint = recorder::log_dir(dir.path()).join("checkpoint");
        std::fs::write(&checkpoint, b"LSCKPv1\nand more").unwrap();
        assert!(matches!(settle(dir.path(), 0..0).await, Err(StoreError::Damaged(_))));
        std::fs::write(&segment, &good).unwrap();
        assert_eq!(settle(dir.path(), 0..0).await.unwrap().first_open_row(), DUE + 400);
        assert!(checkpoint_of(dir.path()).is_some(), "another one was written at once");
        std::fs::remove_file(&checkpoint).unwrap();
        assert_eq!(settle(dir.path(), 0..0).await.unwrap().first_open_row(), DUE + 400);
    }

    #[tokio::test]
    async fn a_checkpoint_of_another_log_or_one_that_the_log_gainsays_is_passed_over() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        settle(dir.path(), 0..DUE + 256).await.unwrap();
        settle(other.path(), 1..DUE + 257).await.unwrap();
        let path = |dir: &Path| recorder::log_dir(dir).join("checkpoint");
        let own = std::fs::read(path(dir.path())).unwrap();
        std::fs::copy(path(other.path()), path(dir.path())).unwrap();
        assert!(checkpoint_of(dir.path()).is_none());
        assert_eq!(settle(dir.path(), 0..0).await.unwrap().first_open_row(), DUE + 256);

        std::fs::write(path(dir.path()), own).unwrap();
        let (mark, mut kept, _) = checkpoint_of(dir.path()).unwrap();
        let next = kept.first_open_row();
        kept.settle(next, true).unwrap();
        checkpoint::write(&Os, &recorder::log_dir(dir.path()), &mark, &kept.encode(), &Fatal::new()).unwrap();
        settle(dir.path(), DUE + 256..DUE + 257).await.unwrap();
        let past = settle(dir.path(), 0..0).await.unwrap();
        assert_eq!((past.first_open_row(), past.succeeded() + past.failed()), (DUE + 257, DUE + 257));
        // The same written into the log is damage of the log.
        settle(dir.path(), 3..4).await.unwrap();
        let found = settle(dir.path(), 0..0).await;
        assert!(matches!(found, Err(StoreError::Damaged(what)) if what.contains("row 3 is settled twice")));
    }

    #[tokio::test]
    async fn what_waits_for_a_redrive_is_kept_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _, following) = recorder::open_followed(&Ground::Threads, dir.path(), Fatal::new()).await.unwrap();
        let redriven = vec![entry(0, false), entry(1, false), entry(1, true)];
        recorder::write(&log, 1, Arc::new(redriven.into_iter().collect())).await.1.unwrap();
        drop(log);
        following.await.unwrap();
        settle(dir.path(), 2..DUE + 128).await.unwrap();
        let (_, mut kept, _) = checkpoint_of(dir.path()).unwrap();
        let mut past = settle(dir.path(), 0..1).await.unwrap();
        assert_eq!((past.first_open_row(), past.is_settled(1)), (0, true));
        // As an entry of the log that has its message: some 2 KiB.
        assert!(kept.encode().len() > KIB_EACH as usize * 1_024);
        assert!(past.encode().len() > KIB_EACH as usize * 1_024);
        assert!(settle(dir.path(), 0..0).await.unwrap().encode().len() < 200);
    }

    #[test]
    fn a_large_checkpoint_is_written_less_often() {
        let checkpointer = |size| {
            let (ground, dir, fatal, past) = (Ground::Threads, PathBuf::new(), Fatal::new(), Past::default());
            Checkpointer { ground, dir, fatal, past, read: Mark::default(), written: 0, size }
        };
        let due = |size: u64, bytes: u64| checkpointer(size).is_due_at(bytes);
        assert_eq!((due(0, EVERY_BYTES - 1), due(0, EVERY_BYTES)), (false, true));
        assert_eq!((due(EVERY_BYTES, 4 * EVERY_BYTES - 1), due(EVERY_BYTES, 4 * EVERY_BYTES)), (false, true));
    }
}
