//! The ledger: jobs, their events, who works on them, and their results. A port: the engine and the operations know
//! nothing else of how state is kept.
//!
//! Two implementations ship: [`Embedded`], which is SQLite and segment files in the data directory of one server, and
//! [`Memory`], which several servers of one process share. The scale-out one fits behind the same methods; decision 0026
//! says how. What they have in common is decided in `core`: the legal moves of a job ([`Status::on`]), and whose lease
//! counts (`core::lease`).
//!
//! **Each method is one transaction, whole or not at all.** `Ok` means that it survives a power cut. An `Err` says
//! whether it happened ([`StoreError::may_have_happened`]); whoever does not know asks again, for each method can be
//! repeated with the same arguments. What is written under a lease carries its [`Fence`], and is [`StoreError::Fenced`]
//! once another has taken the lease, now and ever after.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod embedded;
mod logs;
mod memory;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::job::{Event, IllegalMove, Status};
use longshore_core::lease::{Epoch, Worker};
use longshore_core::record::Entries;
use longshore_core::run::Past;
use longshore_core::time::{Age, Timestamp};
use longshore_store::{Position, StoreError};
use longshore_wire::event::JobEvent;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::embedded::Embedded;
pub(crate) use self::embedded::Leases;
pub use self::logs::{Admit, Logs};
pub use self::memory::{Afterwards, Before, Clock, Faults, Memory, NoFaults, Step, Tear};
pub use crate::error::{FailureReason, JobError};
pub use crate::shape::NewJob;

/// All state of all jobs of one account, as one server sees it. Other servers may change it at any moment.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Changes soon after a job has changed or a duty has become free. A hint: it may be missing or too many, so whoever
    /// waits looks again from time to time.
    fn announced(&self) -> watch::Receiver<()>;

    // ── Jobs ──

    /// Stores a job in status New under `id`, with its first event, unless its token has a job: that one then, if the
    /// request was the same, or [`JobError::TokenReused`]. Of two requests with one token one makes the job (rule I-5).
    async fn create(&self, id: String, job: NewJob) -> Result<Created, JobError>;

    /// A job. Its counts are at least those of any earlier look at this ledger.
    async fn job(&self, id: &str) -> Result<Option<JobRow>, StoreError>;

    /// A page of at most `max` jobs in one of these statuses (none: in any), newest first, and whether there are more.
    async fn list(
        &self,
        statuses: Vec<Status>,
        after: Option<After>,
        max: usize,
    ) -> Result<(Vec<JobRow>, bool), StoreError>;

    /// Every job that is not over, oldest first.
    async fn alive(&self) -> Result<Vec<JobRow>, StoreError>;

    /// Moves a job by an event, with what changes at the same time, and keeps the event that tells of it, owed to every
    /// sink there is. Returns the new status.
    ///
    /// An illegal move changes nothing, and neither does one whose terms do not hold. A move into the status that the
    /// job has already (a cancel that is repeated) is no event and changes nothing but the reason that the call gives
    /// (C-10). A job whose sample has run takes the event as [`Event::after_sample`] says. Repeated after it has
    /// happened it is mostly illegal: the job's row says how far it is.
    async fn transition(&self, id: &str, terms: Terms<'_>, event: Event, change: Change) -> Result<Status, MoveError>;

    /// Refused ([`JobError::PriorityForbidden`]) where the job's status takes none.
    async fn set_priority(&self, id: &str, priority: u32) -> Result<(), JobError>;

    /// A job's tags, in the order in which they were given.
    async fn tags(&self, id: &str) -> Result<Vec<(String, String)>, JobError>;

    /// Replaces the whole set of tags.
    async fn set_tags(&self, id: &str, tags: Vec<(String, String)>) -> Result<(), JobError>;

    /// What the age of jobs is reckoned by: no wall clock that is set makes one older or younger (promise X13).
    fn age(&self) -> Age;

    /// Keeps how far that clock has come. To be called now and then; each move of a job does it, too.
    async fn note_age(&self) -> Result<(), StoreError>;

    /// Jobs whose time is over, at most `max`, the earliest ended first: those that ended before `before`, and, where
    /// more than `jobs_max` (0: any number) are over, those that are too many. A job with an event that a sink is still
    /// owed stays; a sink that is not configured any more is owed nothing.
    async fn expired(&self, before: Age, jobs_max: usize, max: usize) -> Result<Vec<Expired>, StoreError>;

    /// What there is.
    async fn census(&self) -> Result<Census, StoreError>;

    /// Deletes a job that is over, with its tags, its token, its events, and its results. One that is not over stays.
    async fn delete(&self, id: &str) -> Result<(), StoreError>;

    // ── Events and their deliveries ──

    /// A page of at most `max` of a job's events, oldest first, after number `after`, and whether there are more.
    /// `None`: the account has no such job.
    async fn events(
        &self,
        account: &str,
        id: &str,
        after: u64,
        max: usize,
    ) -> Result<Option<(Vec<Kept>, bool)>, StoreError>;

    /// What a sink is owed at `now`, longest due first, at most `max`: of each job only its first event that the sink
    /// does not have, so that they come in order. One whose date is further ahead than any wait can be is due as well:
    /// the wall clock has been set back since.
    async fn due(&self, sink: &str, now: Timestamp, wait_ms_max: u64, max: usize) -> Result<Vec<Due>, StoreError>;

    /// Notes what came of a try at the sink whose lease this is. Of a job that is gone nothing is noted.
    async fn note_try(&self, fence: &Fence, job_id: &str, number: u64, tried: Try) -> Result<(), StoreError>;

    // ── Who works on what ──

    /// How long a lease holds without being renewed. `None`: until this ledger is closed, for no other server can take
    /// one; then there is nothing to renew either.
    fn term(&self) -> Option<Duration>;

    /// Takes a duty, if nobody has it or this server has it already; then it keeps its lease, for another term. `None`:
    /// another server has it.
    async fn lease(&self, duty: &Duty) -> Result<Option<Lease>, StoreError>;

    /// Keeps leases for another term from now; for each of them whether it still holds.
    async fn renew(&self, fences: &[Fence]) -> Result<Vec<bool>, StoreError>;

    /// Frees a duty. Of a lease that is lost there is nothing to give back.
    async fn give_back(&self, fence: &Fence) -> Result<(), StoreError>;

    /// Notes that the holder starts no further invocation of a job that is being cancelled.
    async fn halt(&self, fence: &Fence) -> Result<(), StoreError>;

    /// Whether no server starts an invocation of the job: none has its lease, or the one that has it has said so
    /// ([`Ledger::halt`]). Lasting for a job that is being cancelled or is over: its next agents start nothing.
    async fn is_halted(&self, id: &str) -> Result<bool, StoreError>;

    // ── What an agent notes of its job ──

    /// Notes how far a running job is: tasks (succeeded, failed) and milliseconds in Active, all from the job's start.
    /// None of them goes down.
    async fn note_progress(&self, fence: &Fence, counts: (u64, u64), active_ms: u64) -> Result<(), StoreError>;

    /// Notes what a job's runs have counted, as JSON, in place of what was noted before. Nobody decides anything by it.
    async fn note_figures(&self, fence: &Fence, figures: String) -> Result<(), StoreError>;

    /// What was noted last; `None` for a job of which nothing was, or that there is not.
    async fn figures(&self, id: &str) -> Result<Option<String>, StoreError>;

    /// Notes how many rows of a manifest that is still being checked are known; the number never goes down.
    async fn note_rows(&self, fence: &Fence, rows_total: u64) -> Result<(), StoreError>;

    /// Sets the date of the report's creation if it has none yet, and returns the one that counts.
    async fn report_created(&self, fence: &Fence) -> Result<Timestamp, StoreError>;

    // ── Results ──

    /// Opens a job's results for appending, and reads what there is. What was acknowledged is there, each entry once;
    /// what was cut off while it was being written is gone, for good. Whoever had them open under this lease before
    /// appends nothing more.
    async fn open_results(&self, fence: &Fence) -> Result<(Arc<dyn Results>, Past), StoreError>;

    /// Whether a job's results were ever opened.
    async fn has_results(&self, id: &str) -> Result<bool, StoreError>;

    /// Hands each durable payload ([`longshore_core::record::Entry::decode_all`] reads one) behind `from` to `each`, in the order in which they
    /// were appended, and returns how far that is. A position is good for as long as the process lives. Blocks: call it
    /// on a thread for that. Memory: one segment.
    fn read_results(&self, id: &str, from: Position, each: &mut dyn FnMut(&[u8])) -> Result<Position, StoreError>;
}

/// The results of one job, open for appending.
#[async_trait]
pub trait Results: Send + Sync {
    /// Appends one batch of entries and returns once they are durable. `batch` counts up from one call to the next; who
    /// does not know whether a batch is there gives it again, under the same number.
    ///
    /// `Err(Full)`: it is not there, and may be tried again. `Err(Fenced)`: it is not there and never will be.
    async fn append(&self, batch: u64, entries: Arc<Entries>) -> Result<Appended, StoreError>;
}

/// What became of a batch that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Done,
    /// It was there before: the answer to an earlier call was lost.
    Already,
}

/// What one server at a time works on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Running the job of this ID.
    Job(String),
    /// Handing events to the sink of this name.
    Sink(String),
}

/// Every row of a manifest.
pub const ALL_ROWS: Range<u64> = 0..u64::MAX;

/// The right to work on a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub fence: Fence,
    /// Which rows of the job it is for. Both ledgers here lease whole jobs ([`ALL_ROWS`]); one that shares a job among
    /// servers names a part.
    pub rows: Range<u64>,
}

/// What an agent shows with each thing that it writes: under which lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub duty: Duty,
    pub worker: Worker,
    pub epoch: Epoch,
}

impl Fence {
    /// The job that the lease is for; an error for one of another kind, which no caller of ours hands in.
    pub(crate) fn job(&self) -> Result<&str, StoreError> {
        match &self.duty {
            Duty::Job(id) => Ok(id),
            Duty::Sink(_) => Err(StoreError::Fenced),
        }
    }

    /// Whether the lease is for this job.
    pub(crate) fn is_for(&self, id: &str) -> Result<(), StoreError> {
        if self.job()? == id { Ok(()) } else { Err(StoreError::Fenced) }
    }

    /// As [`Fence::job`], for a sink.
    pub(crate) fn sink(&self) -> Result<&str, StoreError> {
        match &self.duty {
            Duty::Sink(name) => Ok(name),
            Duty::Job(_) => Err(StoreError::Fenced),
        }
    }
}

/// On what terms a job is moved, beside that the move is legal.
#[derive(Debug, Clone, Copy)]
pub enum Terms<'a> {
    /// None: what a caller of the API asks for.
    Legal,
    /// Nothing has changed since the job was read with this `rev`.
    Unchanged(u64),
    /// As [`Terms::Unchanged`], and fewer than `slots` jobs hold one of the account's slots.
    Slot { rev: u64, slots: usize },
    /// The one who moves it holds the job's lease.
    Leased(&'a Fence),
}

/// Why a move did not happen.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error("no such job")]
    NotFound,
    #[error("{0}")]
    Illegal(IllegalMove),
    /// [`Terms::Unchanged`] or [`Terms::Slot`] did not hold.
    #[error("somebody else was faster")]
    Overtaken,
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for MoveError {
    fn from(error: rusqlite::Error) -> Self {
        MoveError::Store(error.into())
    }
}

/// One job as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: String,
    /// Greater after each change that somebody who decides about the job ought to know of.
    pub rev: u64,
    pub created: Timestamp,
    pub request: NewJob,
    pub status: Status,
    pub priority: u32,
    pub rows_total: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub active_ms: u64,
    pub suspended: Option<Timestamp>,
    pub terminated: Option<Timestamp>,
    /// When it came to rest, Suspended or over, by the clock of its age.
    pub rested: Option<Age>,
    pub status_update_reason: Option<String>,
    pub failure_reasons: Vec<FailureReason>,
    pub generated_manifest: Option<GeneratedManifest>,
    /// Its sample has run to its end. Then Suspended means that the others wait, any other status that they may run.
    pub sampled: bool,
    /// The job that task IDs come from: this one, unless it retries tasks of another.
    pub lineage: String,
}

/// A list that was generated and saved: what `GeneratedManifestDescriptor` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedManifest {
    pub object_arn: String,
    /// As the store gave it.
    pub etag: String,
}

/// What changes together with a status.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub rows_total: Option<u64>,
    pub generated_manifest: Option<GeneratedManifest>,
    /// (succeeded, failed)
    pub counts: Option<(u64, u64)>,
    pub failure_reason: Option<FailureReason>,
    pub status_update_reason: Option<String>,
    /// The job whose task IDs are kept, where it is another.
    pub lineage: Option<String>,
}

/// Where a page of ListJobs begins: behind this job, in the order of creation, newest first.
#[derive(Debug, Clone)]
pub struct After {
    pub created: i64,
    pub id: String,
}

/// What became of a CreateJob.
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    New,
    /// The token was used before, for the same request: the job of that time.
    Before(String),
}

/// A job whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    pub id: String,
    /// Whether it goes before its days are over, because there are too many jobs (C-63).
    pub early: bool,
}

/// What there is of jobs and their events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Jobs by status, in the order of the statuses' names; those that no job is in may be missing.
    pub jobs: Vec<(Status, u64)>,
    /// Events that a sink does not have yet; one that is not configured any more is owed nothing.
    pub deliveries_owed: u64,
}

/// An event as kept, with what became of it at each sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub number: u64,
    pub event: JobEvent,
    pub deliveries: Vec<Delivery>,
}

/// What became of one event at one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub sink: String,
    pub state: DeliveryState,
    pub attempts: u32,
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    GivenUp,
}

/// An event that a sink is owed now: the first of its job that it does not have yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    pub number: u64,
    pub event: JobEvent,
    /// Tries so far, and the milliseconds that they and the waiting between them took.
    pub attempts: u32,
    pub tried_ms: u64,
}

/// What is noted of one try at a delivery.
#[derive(Debug, Clone)]
pub struct Try {
    pub state: DeliveryState,
    pub attempts: u32,
    pub tried_ms: u64,
    /// Milliseconds since the epoch: when this event is due again, or from when the job's next one is.
    pub not_before: i64,
    pub error: Option<String>,
}

/// Who waits for changes. Each waiter has a channel of its own, so that they are woken in the order in which they came:
/// one seed then makes one course of events.
#[derive(Debug, Default)]
pub(crate) struct Announcements(Mutex<Vec<watch::Sender<()>>>);

impl Announcements {
    pub fn subscribe(&self) -> watch::Receiver<()> {
        let (sender, receiver) = watch::channel(());
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        receiver
    }

    pub fn announce(&self) {
        for waiter in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            waiter.send_replace(());
        }
    }
}

/// The furthest that a date of creation runs ahead of the clock: 1,000 jobs made in one millisecond.
const AHEAD_MS_MAX: i64 = 1_000;

/// `now`, or just after the latest job, so that the newest is first in ListJobs also where two are made in one
/// millisecond, and none that is made while a list is paged through gets behind the place where that is (rule P-7).
/// A clock that was set back further than [`AHEAD_MS_MAX`] is believed.
pub(crate) fn after_the_latest(latest: Option<Timestamp>, now: Timestamp) -> Timestamp {
    match latest {
        Some(latest) if (0..AHEAD_MS_MAX).contains(&(latest.0 - now.0)) => Timestamp(latest.0 + 1),
        _ => now,
    }
}
