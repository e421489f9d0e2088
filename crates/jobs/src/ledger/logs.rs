//! The results of jobs in segment files, a folder a job: the half of [`super::Embedded`] that is not SQLite.
//!
//! It stands apart so that the simulation can run it on a disk of its own, with records that lie elsewhere.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use longshore_core::record::Entries;
use longshore_core::run::Past;
use longshore_store::{Fatal, Ground, Position, ResultLog, StoreError};

use super::{Appended, Fence, Results};
use crate::engine::recorder;

/// Whether what is written under a lease counts.
pub type Admit = Arc<dyn Fn(&Fence) -> Result<(), StoreError> + Send + Sync>;

/// See the module.
pub struct Logs {
    ground: Ground,
    /// One folder a job below it.
    dir: PathBuf,
    fatal: Fatal,
    admit: Admit,
    /// By job, how its results were last opened. Only of jobs that have an agent, or an append still under way.
    opened: Mutex<HashMap<String, Arc<Opened>>>,
}

/// The openings of one job's results: only the last one appends.
#[derive(Debug, Default)]
struct Opened {
    /// Held by an append until it is on disk, also where nobody waits for it any more, and by whoever opens: a log is
    /// never read for appending while an earlier opening still writes to it.
    turn: tokio::sync::Mutex<()>,
    number: AtomicU64,
}

impl Logs {
    pub fn new(ground: Ground, dir: PathBuf, fatal: Fatal, admit: Admit) -> Self {
        Self { ground, dir, fatal, admit, opened: Mutex::default() }
    }

    fn job_dir(&self, id: &str) -> PathBuf {
        // IDs are UUIDs of our own making, so this is no path from outside.
        self.dir.join(id)
    }

    fn opened(&self, id: &str) -> Arc<Opened> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(opened.entry(id.to_owned()).or_default())
    }

    /// As [`super::Ledger::open_results`].
    pub async fn open(&self, fence: &Fence) -> Result<(Arc<dyn Results>, Past), StoreError> {
        let id = fence.job()?;
        let opened = self.opened(id);
        let _turn = opened.turn.lock().await;
        (self.admit)(fence)?;
        let number = opened.number.fetch_add(1, Ordering::Relaxed) + 1;
        let (log, past) = recorder::open(&self.ground, &self.job_dir(id), self.fatal.clone()).await?;
        let opening = Opening { number, last: AtomicU64::new(0), opened: Arc::clone(&opened) };
        let (ground, admit) = (self.ground.clone(), Arc::clone(&self.admit));
        let results = Segments { ground, log, admit, fence: fence.clone(), opening: Arc::new(opening) };
        Ok((Arc::new(results), past))
    }

    /// Whether a job's results were ever opened.
    pub fn are_there(&self, id: &str) -> bool {
        recorder::has_log(self.ground.files(), &self.job_dir(id))
    }

    /// As [`super::Ledger::read_results`].
    pub fn read(&self, id: &str, from: Position, each: &mut dyn FnMut(&[u8])) -> Result<Position, StoreError> {
        ResultLog::read_on(self.ground.files(), &recorder::log_dir(&self.job_dir(id)), from, |payload| each(payload))
    }

    /// Removes a job's results. Safe to repeat.
    pub async fn remove(&self, id: &str) -> Result<(), StoreError> {
        let (ground, dir) = (self.ground.clone(), recorder::log_dir(&self.job_dir(id)));
        let removed = self.ground.blocking(move || match ground.files().remove_folder(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        });
        removed.await
    }

    /// Forgets a job that is gone.
    pub fn forget(&self, id: &str) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Forgets a job that has no agent any more, unless an append of one is still under way.
    pub fn leave(&self, id: &str) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.get(id).is_some_and(|opened| Arc::strong_count(opened) == 1) {
            opened.remove(id);
        }
    }
}

/// [`Results`] in segment files.
struct Segments {
    ground: Ground,
    log: Arc<ResultLog>,
    admit: Admit,
    fence: Fence,
    opening: Arc<Opening>,
}

#[derive(Debug)]
struct Opening {
    number: u64,
    /// The last batch of this opening that is on disk.
    last: AtomicU64,
    opened: Arc<Opened>,
}

#[async_trait]
impl Results for Segments {
    async fn append(&self, batch: u64, entries: Arc<Entries>) -> Result<Appended, StoreError> {
        let (log, admit, fence) = (Arc::clone(&self.log), Arc::clone(&self.admit), self.fence.clone());
        let opening = Arc::clone(&self.opening);
        // A task of its own: what is on its way to the disk gets there, or not, whether or not somebody waits for it, and
        // nobody may open the results anew before that is known.
        let appended = self.ground.spawn(async move {
            let _turn = opening.opened.turn.lock().await;
            admit(&fence)?;
            if opening.opened.number.load(Ordering::Relaxed) != opening.number {
                return Err(StoreError::Fenced);
            }
            if batch <= opening.last.load(Ordering::Relaxed) {
                return Ok(Appended::Already);
            }
            recorder::write(&log, batch, entries).await.1?;
            opening.last.store(batch, Ordering::Relaxed);
            Ok(Appended::Done)
        });
        appended.await.map_err(|_| StoreError::Broken("an append ended without an answer".into()))?
    }
}
