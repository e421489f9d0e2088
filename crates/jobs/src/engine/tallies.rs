//! What the results of jobs amount to while they are asked for again and again: counted on, not anew.
//!
//! The log of ten million tasks has more than a gigabyte, and whoever watches a job asks every few seconds.

use std::sync::{Arc, Mutex};

use longshore_core::failures::Failures;
use longshore_core::record::Entry;
use longshore_store::{Position, StoreError};
use tokio::sync::Semaphore;

use super::recorder::{self, Log};
use super::tasks::Tasks;

/// Jobs that are remembered, those that were asked for last: more are watched at once by nobody. At most 500 KB each.
const TALLIES_MAX: usize = 16;
/// Passes at once: they take the processor and the disk from jobs that run.
const PASSES_MAX: usize = 2;

#[derive(Debug, Default)]
struct Tally {
    read: Position,
    failures: Failures,
}

/// Held while it is being counted on, so that those who ask at once wait for one pass.
type Shared = Arc<tokio::sync::Mutex<Tally>>;

#[derive(Debug)]
pub(super) struct Tallies {
    /// By job, the one that was asked for last at the end.
    kept: Mutex<Vec<(String, Shared)>>,
    passes: Arc<Semaphore>,
}

impl Tallies {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), passes: Arc::new(Semaphore::new(PASSES_MAX)) }
    }

    fn of(&self, id: &str) -> Shared {
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let tally = match kept.iter().position(|(other, _)| other == id) {
            Some(at) => kept.remove(at).1,
            None => Shared::default(),
        };
        if kept.len() >= TALLIES_MAX {
            kept.remove(0);
        }
        kept.push((id.to_owned(), Arc::clone(&tally)));
        tally
    }

    /// Counts what a job's log has by now.
    pub(super) async fn look(&self, tasks: &Tasks, log: Log) -> Result<Failures, StoreError> {
        let mut tally = self.of(&log.job_id).lock_owned().await;
        let pass = Arc::clone(&self.passes).acquire_owned().await.expect("the semaphore is never closed");
        // Both go along: whoever asked may be gone before the pass is over.
        let looked = tasks.blocking(move || {
            let _pass = pass;
            // Taken out, so that a pass that breaks off leaves nothing half counted: the next one starts anew.
            let Tally { read, mut failures } = std::mem::take(&mut *tally);
            let read = recorder::settled_since(&log, read, |logged| {
                if logged.succeeded {
                    failures.succeeded += 1;
                } else if let Entry::Settled { task, outcome, .. } = logged.to_entry()? {
                    failures.add(&task, &outcome);
                }
                Ok(())
            })?;
            *tally = Tally { read, failures: failures.clone() };
            Ok(failures)
        });
        looked.await
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::task::{Outcome, Task, VersionId};
    use longshore_store::{Fatal, Ground, ResultLog};

    use super::*;
    use crate::engine::tests::log_in;

    async fn settle(log: &ResultLog, rows: std::ops::Range<u64>) {
        let mut payload = Vec::new();
        for row in rows {
            let task = Task { row, number: row, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn };
            let outcome = Outcome::failed(200, "PermanentFailure", "no");
            Entry::Settled { task: Arc::new(task), attempts: 1, outcome }.encode(&mut payload);
        }
        log.append(payload).await.unwrap();
    }

    #[tokio::test]
    async fn each_look_counts_what_came_since_the_last_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::open(&Ground::Threads, &dir.path().join("j/results"), Fatal::new(), None, |_| {}).unwrap();
        let (tallies, read) = (Tallies::new(), log_in(dir.path(), "j").await);
        let tasks = Tasks::new(crate::Ground::Threads);
        let failed = async || tallies.look(&tasks, read.clone()).await.unwrap().failed;
        assert_eq!(failed().await, 0);
        settle(&log, 0..10).await;
        assert_eq!((failed().await, failed().await), (10, 10));
        settle(&log, 10..15).await;
        assert_eq!(failed().await, 15);
        // What was counted is not read again: it may be gone.
        let segment = dir.path().join("j/results/00000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        let length = bytes.len();
        bytes.fill(0);
        std::fs::write(&segment, &bytes).unwrap();
        assert_eq!(failed().await, 15);
        // A pass that breaks off is forgotten, and the next one starts anew.
        bytes.truncate(length / 2);
        std::fs::write(&segment, b"").unwrap();
        std::fs::write(dir.path().join("j/results/strange.seg"), b"").unwrap();
        assert!(tallies.look(&tasks, read.clone()).await.is_err());
        std::fs::remove_file(dir.path().join("j/results/strange.seg")).unwrap();
        assert_eq!(failed().await, 0);
    }

    #[test]
    fn only_the_jobs_that_were_asked_for_last_are_remembered() {
        let tallies = Tallies::new();
        let first = tallies.of("0");
        for id in 1..TALLIES_MAX {
            tallies.of(&id.to_string());
        }
        assert!(Arc::ptr_eq(&first, &tallies.of("0")));
        tallies.of("one more");
        assert!(Arc::ptr_eq(&first, &tallies.of("0")), "it was asked for after the others");
        assert!(!tallies.kept.lock().unwrap().iter().any(|(id, _)| id == "1"));
        assert_eq!(tallies.kept.lock().unwrap().len(), TALLIES_MAX);
    }
}
