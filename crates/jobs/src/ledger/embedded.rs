//! The ledger of one server: records in SQLite (`table`), results in segment files ([`Logs`]), leases in memory.
//!
//! The lock of the data directory lets one server at a time in, so a lease needs no disk: it lasts until the ledger is
//! opened anew. Each opening has a number, which is counted once and durably, and is the upper half of every epoch.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::job::{Event, Status};
use longshore_core::lease::{Epoch, Holding, Worker};
use longshore_core::run::Past;
use longshore_core::time::{Age, Tick, Timestamp};
use longshore_store::{Fatal, Position, Records, StoreError};
use tokio::sync::watch;

use super::{
    ALL_ROWS, After, Census, Change, Created, Due, Duty, Expired, Fence, JobRow, Kept, Lease, Ledger, Logs, MoveError,
    Results, Terms, Try,
};
use crate::Settings;
use crate::error::JobError;
use crate::shape::NewJob;
use crate::table::Table;

/// [`Ledger`] on a data directory of its own.
pub struct Embedded {
    table: Table,
    logs: Logs,
    leases: Arc<Leases>,
}

/// The leases of one opening.
#[derive(Debug)]
pub(crate) struct Leases {
    incarnation: u64,
    /// Those that somebody has. One that is given back is forgotten: epochs are counted over all duties.
    held: Mutex<HashMap<Duty, Holding>>,
    asked: AtomicU64,
}

impl Leases {
    pub fn new(incarnation: u64) -> Self {
        Self { incarnation, held: Mutex::default(), asked: AtomicU64::new(0) }
    }

    /// The number of this opening, from 1.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether what is written under this lease counts.
    pub fn admit(&self, fence: &Fence) -> Result<(), StoreError> {
        let lost = |_| StoreError::Fenced;
        self.held().get(&fence.duty).ok_or(StoreError::Fenced)?.admit(fence.worker, fence.epoch).map_err(lost)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Duty, Holding>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self) -> Worker {
        Worker(self.incarnation)
    }

    /// Greater than any epoch so far, of this opening and of those before it.
    fn next_epoch(&self) -> Epoch {
        Epoch((self.incarnation << 32) + self.asked.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a duty, which nobody but this server can have.
    pub fn lease(&self, duty: &Duty) -> Option<Lease> {
        let mut held = self.held();
        let holding = held.entry(duty.clone()).or_default();
        // There is no term, so that the clock decides nothing.
        let epoch = holding.grant(self.worker(), self.next_epoch(), Tick::default(), None)?;
        Some(Lease { fence: Fence { duty: duty.clone(), worker: self.worker(), epoch }, rows: ALL_ROWS })
    }
}

impl Embedded {
    /// Opens the ledger of a data directory. `dir` has one folder a job, with its results and what the engine keeps.
    pub async fn open(
        records: Records,
        dir: PathBuf,
        fatal: Fatal,
        settings: Arc<Settings>,
    ) -> Result<Self, StoreError> {
        let leases = Arc::new(Leases::new(Table::open_anew(&records).await?));
        let noted = Table::noted_age(&records).await?;
        let held = Arc::clone(&leases);
        let logs = Logs::new(settings.ground.clone(), dir, fatal, Arc::new(move |fence| held.admit(fence)));
        Ok(Self { table: Table::new(records, settings, Arc::clone(&leases), noted), logs, leases })
    }
}

#[async_trait]
impl Ledger for Embedded {
    fn announced(&self) -> watch::Receiver<()> {
        self.table.announced()
    }

    async fn create(&self, id: String, job: NewJob) -> Result<Created, JobError> {
        self.table.create(id, job).await
    }

    async fn job(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        self.table.job(id).await
    }

    async fn list(
        &self,
        statuses: Vec<Status>,
        after: Option<After>,
        max: usize,
    ) -> Result<(Vec<JobRow>, bool), StoreError> {
        self.table.list(statuses, after, max).await
    }

    async fn alive(&self) -> Result<Vec<JobRow>, StoreError> {
        self.table.alive().await
    }

    async fn transition(&self, id: &str, terms: Terms<'_>, event: Event, change: Change) -> Result<Status, MoveError> {
        self.table.transition(id, terms, event, change).await
    }

    async fn set_priority(&self, id: &str, priority: u32) -> Result<(), JobError> {
        self.table.set_priority(id, priority).await
    }

    async fn tags(&self, id: &str) -> Result<Vec<(String, String)>, JobError> {
        self.table.tags(id).await
    }

    async fn set_tags(&self, id: &str, tags: Vec<(String, String)>) -> Result<(), JobError> {
        self.table.set_tags(id, tags).await
    }

    fn age(&self) -> Age {
        self.table.age()
    }

    async fn note_age(&self) -> Result<(), StoreError> {
        self.table.note_age().await
    }

    async fn expired(&self, before: Age, jobs_max: usize, max: usize) -> Result<Vec<Expired>, StoreError> {
        self.table.expired(before, jobs_max, max).await
    }

    async fn census(&self) -> Result<Census, StoreError> {
        self.table.census().await
    }

    async fn delete(&self, id: &str) -> Result<(), StoreError> {
        // What is over stays over.
        if !self.table.job(id).await?.is_some_and(|job| job.status.is_terminal()) {
            return Ok(());
        }
        // The files first: of a job without a record nobody would know that it had any.
        self.logs.remove(id).await?;
        self.table.delete(id).await?;
        let duty = Duty::Job(id.to_owned());
        self.leases.held().remove(&duty);
        self.logs.forget(id);
        Ok(())
    }

    async fn events(
        &self,
        account: &str,
        id: &str,
        after: u64,
        max: usize,
    ) -> Result<Option<(Vec<Kept>, bool)>, StoreError> {
        self.table.events(account, id, after, max).await
    }

    async fn due(&self, sink: &str, now: Timestamp, wait_ms_max: u64, max: usize) -> Result<Vec<Due>, StoreError> {
        self.table.due(sink, now, wait_ms_max, max).await
    }

    async fn note_try(&self, fence: &Fence, job_id: &str, number: u64, tried: Try) -> Result<(), StoreError> {
        self.table.note_try(fence, job_id, number, tried).await
    }

    fn term(&self) -> Option<Duration> {
        None
    }

    async fn lease(&self, duty: &Duty) -> Result<Option<Lease>, StoreError> {
        Ok(self.leases.lease(duty))
    }

    async fn renew(&self, fences: &[Fence]) -> Result<Vec<bool>, StoreError> {
        Ok(fences.iter().map(|fence| self.leases.admit(fence).is_ok()).collect())
    }

    async fn give_back(&self, fence: &Fence) -> Result<(), StoreError> {
        let mut held = self.leases.held();
        if let Some(holding) = held.get_mut(&fence.duty) {
            holding.give_back(fence.worker, fence.epoch);
            if holding.is_free() {
                held.remove(&fence.duty);
            }
        }
        drop(held);
        if let Duty::Job(id) = &fence.duty {
            self.logs.leave(id);
        }
        Ok(())
    }

    async fn halt(&self, fence: &Fence) -> Result<(), StoreError> {
        fence.job()?;
        let mut held = self.leases.held();
        let holding = held.get_mut(&fence.duty).ok_or(StoreError::Fenced)?;
        holding.halt(fence.worker, fence.epoch).map_err(|_| StoreError::Fenced)
    }

    async fn is_halted(&self, id: &str) -> Result<bool, StoreError> {
        let duty = Duty::Job(id.to_owned());
        Ok(self.leases.held().get(&duty).is_none_or(|holding| holding.is_halted(Tick::default())))
    }

    async fn note_progress(&self, fence: &Fence, counts: (u64, u64), active_ms: u64) -> Result<(), StoreError> {
        self.table.note_progress(fence, counts, active_ms).await
    }

    async fn note_figures(&self, fence: &Fence, figures: String) -> Result<(), StoreError> {
        self.table.note_figures(fence, figures).await
    }

    async fn figures(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.table.figures(id).await
    }

    async fn note_rows(&self, fence: &Fence, rows_total: u64) -> Result<(), StoreError> {
        self.table.note_rows(fence, rows_total).await
    }

    async fn report_created(&self, fence: &Fence) -> Result<Timestamp, StoreError> {
        self.table.report_created(fence).await
    }

    async fn open_results(&self, fence: &Fence) -> Result<(Arc<dyn Results>, Past), StoreError> {
        self.logs.open(fence).await
    }

    async fn has_results(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.logs.are_there(id))
    }

    fn read_results(&self, id: &str, from: Position, each: &mut dyn FnMut(&[u8])) -> Result<Position, StoreError> {
        self.logs.read(id, from, each)
    }
}
