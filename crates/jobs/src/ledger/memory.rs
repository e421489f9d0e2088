//! The ledger in memory: the same promises as any other's but for power cuts, for as long as the process lives.
//!
//! One store, shared by the servers that have joined it: cheap handles, each with its own settings and its own faults.
//! Everything is in order (`BTreeMap`s, randomness from a seed, time handed in), so that one seed makes one course of
//! events; there are no threads and no files. Results are kept as the bytes of a segment file, so that a torn frame is
//! found by the code that finds it on disk.
//!
//! [`Faults`] decides what goes wrong, and the default is nothing. What is lost then is what a power cut would lose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::job::{Event, Status};
use longshore_core::lease::{Epoch, Holding, Worker};
use longshore_core::random::Random;
use longshore_core::record::Entries;
use longshore_core::run::Past;
use longshore_core::time::{Age, Tick, Timestamp};
use longshore_store::segment::{self, HEADER};
use longshore_store::{Fatal, Position, StoreError};
use longshore_wire::event::JobEvent;
use tokio::sync::watch;

use super::{
    ALL_ROWS, After, Announcements, Appended, Census, Change, Created, Delivery, DeliveryState, Due, Duty, Expired,
    Fence, JobRow, Kept, Lease, Ledger, MoveError, Results, Terms, Try, after_the_latest,
};
use crate::Settings;
use crate::error::{FailureReason, JobError};
use crate::shape::NewJob;

/// The ledger's clock, which decides when leases run out.
pub type Clock = Arc<dyn Fn() -> Tick + Send + Sync>;

/// [`Ledger`] in memory, as one server sees it.
#[derive(Clone)]
pub struct Memory {
    store: Arc<Mutex<Store>>,
    announcements: Arc<Announcements>,
    clock: Clock,
    term: Duration,
    worker: Worker,
    settings: Arc<Settings>,
    /// Thrown by a sync that fails, after which this server acknowledges nothing any more.
    fatal: Fatal,
    faults: Arc<dyn Faults>,
}

/// What may go wrong with a call. Asked before and after each; may wait, as a slow disk does.
#[async_trait]
pub trait Faults: Send + Sync + 'static {
    async fn before(&self, _: &Step) -> Before {
        Before::GoOn
    }

    async fn after(&self, _: &Step) -> Afterwards {
        Afterwards::GoOn
    }
}

/// Nothing ever goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}

/// One call to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The server that calls.
    pub worker: Worker,
    /// The method's name.
    pub what: &'static str,
    /// Whether it changes something that is to be durable. Those that do not are only ever lost.
    pub writes: bool,
    /// The job it is about, if it is about one.
    pub job: Option<String>,
}

/// What becomes of a call before anything has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    GoOn,
    /// There is no space: it does not happen.
    Full,
    /// It does not happen, and the caller does not get to know.
    Unknown,
    /// The sync fails: it does not happen, and the caller does not get to know.
    SyncFails,
    /// It does not happen, and no answer ever comes: the server dies.
    Lost,
    /// As `Lost`, and what was to be appended is there in part. Of any call but an append it is `Lost`.
    Torn(Tear),
}

/// What becomes of a call after it has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    GoOn,
    /// The caller does not get to know.
    Unknown,
    /// The sync is said to have failed.
    SyncFails,
    /// No answer ever comes: the server dies.
    Lost,
}

/// What a power cut leaves of a frame that was being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// So many of its bytes, at most all but one.
    Cut(usize),
    /// All of them, with this bit of this byte (counted round the frame) turned over.
    Garbled { byte: usize, bit: u8 },
}

/// The calls that others may wait for. Not those that a look at all jobs makes itself, or it would wake itself for ever.
const ANNOUNCED: [&str; 5] = ["create", "transition", "set_priority", "give_back", "halt"];

/// What all servers share.
struct Store {
    jobs: BTreeMap<String, Job>,
    /// By account and token.
    tokens: BTreeMap<(String, String), String>,
    leases: BTreeMap<Duty, Holding>,
    /// Servers that have joined so far.
    workers: u64,
    /// Jobs made so far.
    made: u64,
    random: Random,
}

struct Job {
    row: JobRow,
    account: String,
    fingerprint: String,
    tags: Vec<(String, String)>,
    report_created: Option<Timestamp>,
    figures: Option<String>,
    /// In the order of their numbers, which count from 1.
    events: Vec<Entered>,
    results: Option<Log>,
    /// Jobs that were made before this one.
    place: u64,
}

/// An entry into a state.
struct Entered {
    event: JobEvent,
    /// By sink.
    owed: BTreeMap<String, Owed>,
}

struct Owed {
    state: DeliveryState,
    attempts: u32,
    tried_ms: u64,
    /// `None` while an earlier event of the job is still to be delivered: that comes first.
    not_before: Option<i64>,
    last_error: Option<String>,
}

/// The results of one job: one segment file, as bytes.
#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    /// Counts the openings: only the last one appends.
    opened: u64,
    /// The last batch of this opening that is there.
    last: u64,
    /// The settled tasks in it.
    succeeded: u64,
    failed: u64,
    /// A frame was torn: nothing is appended until it is cut off.
    torn: bool,
}

impl Store {
    fn job(&self, id: &str) -> Result<&Job, JobError> {
        self.jobs.get(id).ok_or(JobError::NotFound)
    }

    fn job_mut(&mut self, id: &str) -> Result<&mut Job, JobError> {
        self.jobs.get_mut(id).ok_or(JobError::NotFound)
    }

    fn admit(&self, fence: &Fence) -> Result<(), StoreError> {
        let holding = self.leases.get(&fence.duty).ok_or(StoreError::Fenced)?;
        holding.admit(fence.worker, fence.epoch).map_err(|_| StoreError::Fenced)
    }

    /// The job that a lease is for, if the lease counts and the job is still there.
    fn admitted(&mut self, fence: &Fence) -> Result<Option<&mut Job>, StoreError> {
        self.admit(fence)?;
        Ok(self.jobs.get_mut(fence.job()?))
    }

    fn uuid(&mut self) -> uuid::Uuid {
        let (high, low) = (self.random.next_u64(), self.random.next_u64());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
    }

    /// Keeps that a job has entered a status, and owes that to every sink.
    fn enter(&mut self, settings: &Settings, id: &str, now: Timestamp, codes: Vec<String>, reasons: Vec<String>) {
        let ids = [self.uuid(), self.uuid(), self.uuid()];
        let Some(job) = self.jobs.get_mut(id) else { return };
        let event = JobEvent {
            job_event_id: ids[0].simple().to_string(),
            event_id: ids[1].to_string(),
            envelope_id: ids[2].to_string(),
            account: settings.account.clone(),
            region: settings.region.clone(),
            job_id: id.to_owned(),
            status: job.row.status.name().to_owned(),
            time_ms: now.0,
            failure_codes: codes,
            status_change_reason: reasons,
        };
        let owed = settings.event_sinks.iter().map(|sink| {
            let behind = job.events.iter().any(|e| e.owed.get(sink.name()).is_some_and(Owed::is_pending));
            let not_before = (!behind).then_some(now.0);
            let state = DeliveryState::Pending;
            (sink.name().to_owned(), Owed { state, attempts: 0, tried_ms: 0, not_before, last_error: None })
        });
        let owed = owed.collect();
        job.events.push(Entered { event, owed });
    }
}

impl Owed {
    fn is_pending(&self) -> bool {
        self.state == DeliveryState::Pending
    }
}

impl Job {
    /// The reasons of the last entry into a status.
    fn reasons_of(&self, status: Status) -> Vec<String> {
        let entered = self.events.iter().rev().find(|entered| entered.event.status == status.name());
        entered.map_or_else(Vec::new, |entered| entered.event.status_change_reason.clone())
    }
}

impl Memory {
    /// A new store, and the first server on it. Leases last for `term`, by `clock`; `seed` is what IDs of events are made
    /// of. `fatal` is the switch that this server's failed syncs throw.
    pub fn new(seed: u64, term: Duration, clock: Clock, settings: Arc<Settings>, fatal: Fatal) -> Self {
        let store = Store {
            jobs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            leases: BTreeMap::new(),
            workers: 1,
            made: 0,
            random: Random::seeded(seed),
        };
        Self {
            store: Arc::new(Mutex::new(store)),
            announcements: Arc::default(),
            clock,
            term,
            worker: Worker(1),
            settings,
            fatal,
            faults: Arc::new(NoFaults),
        }
    }

    /// One more server on the same store; or the same one after a restart, which is another.
    pub fn join(&self, settings: Arc<Settings>, fatal: Fatal) -> Self {
        let worker = {
            let mut store = self.store();
            store.workers += 1;
            Worker(store.workers)
        };
        Self { worker, settings, fatal, faults: Arc::new(NoFaults), ..self.clone() }
    }

    /// What goes wrong with the calls of this server from now on.
    pub fn with_faults(self, faults: Arc<dyn Faults>) -> Self {
        Self { faults, ..self }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        (self.settings.wall_clock)()
    }

    fn tick(&self) -> Tick {
        (self.clock)()
    }

    fn term_ms(&self) -> Option<u64> {
        Some(u64::try_from(self.term.as_millis()).unwrap_or(u64::MAX))
    }

    fn step(&self, what: &'static str, job: Option<&str>) -> Step {
        Step { worker: self.worker, what, writes: false, job: job.map(str::to_owned) }
    }

    /// Does something that changes nothing.
    async fn look<T, E: From<StoreError>>(
        &self,
        what: &'static str,
        job: Option<&str>,
        work: impl FnOnce(&mut Store) -> Result<T, E>,
    ) -> Result<T, E> {
        self.act(self.step(what, job), |_| (), work).await
    }

    /// One transaction. `work` either does all that it does, or returns an error and has done nothing.
    async fn write<T, E: From<StoreError>>(
        &self,
        what: &'static str,
        job: Option<&str>,
        work: impl FnOnce(&mut Store) -> Result<T, E>,
    ) -> Result<T, E> {
        let step = Step { writes: true, ..self.step(what, job) };
        // Within the transaction, so that it is told whether or not the caller gets to know.
        let work = |store: &mut Store| {
            let done = work(store)?;
            if ANNOUNCED.contains(&what) {
                self.announcements.announce();
            }
            Ok(done)
        };
        self.act(step, |_| (), work).await
    }

    async fn act<T, E: From<StoreError>>(
        &self,
        step: Step,
        tear: impl FnOnce(Tear),
        work: impl FnOnce(&mut Store) -> Result<T, E>,
    ) -> Result<T, E> {
        let broken = |reason: &str| E::from(StoreError::Broken(reason.to_owned()));
        let sync_fails = || {
            self.fatal.throw("syncing failed");
            Err(broken("syncing failed"))
        };
        let unknown = || Err(E::from(StoreError::Unknown("the connection broke off".into())));
        let never = std::future::pending();
        match self.faults.before(&step).await {
            Before::GoOn => {}
            Before::Full if step.writes => return Err(StoreError::Full("of the store in memory".into()).into()),
            Before::Unknown if step.writes => return unknown(),
            Before::SyncFails if step.writes => return sync_fails(),
            Before::Full | Before::Unknown | Before::SyncFails => {}
            Before::Lost => return never.await,
            Before::Torn(torn) => {
                tear(torn);
                return never.await;
            }
        }
        if let Some(reason) = self.fatal.reason().filter(|_| step.writes) {
            return Err(broken(reason));
        }
        let done = work(&mut self.store());
        match self.faults.after(&step).await {
            Afterwards::Unknown if step.writes => unknown(),
            Afterwards::SyncFails if step.writes => sync_fails(),
            Afterwards::Lost => never.await,
            Afterwards::GoOn | Afterwards::Unknown | Afterwards::SyncFails => done,
        }
    }

    fn transition_in(
        &self,
        store: &mut Store,
        id: &str,
        terms: Terms<'_>,
        event: Event,
        change: Change,
    ) -> Result<Status, MoveError> {
        if let Terms::Leased(fence) = terms {
            fence.is_for(id)?;
            store.admit(fence)?;
        }
        let job = store.jobs.get(id).ok_or(MoveError::NotFound)?;
        let (rev, slots) = match terms {
            Terms::Unchanged(rev) => (Some(rev), None),
            Terms::Slot { rev, slots } => (Some(rev), Some(slots)),
            Terms::Legal | Terms::Leased(_) => (None, None),
        };
        if rev.is_some_and(|rev| rev != job.row.rev) {
            return Err(MoveError::Overtaken);
        }
        let event = if job.row.sampled { event.after_sample() } else { event };
        let to = job.row.status.on(event).map_err(MoveError::Illegal)?;
        let holds = |other: &&Job| other.account == self.settings.account && other.row.status.holds_slot();
        if slots.is_some_and(|slots| store.jobs.values().filter(holds).count() >= slots) {
            return Err(MoveError::Overtaken);
        }
        let (now, age) = (self.now(), self.age());
        let job = store.jobs.get_mut(id).ok_or(MoveError::NotFound)?;
        if to == job.row.status {
            if let Some(reason) = change.status_update_reason {
                job.row.status_update_reason = Some(reason);
                job.row.rev += 1;
            }
            return Ok(to);
        }
        let event_reasons = match &change.status_update_reason {
            Some(reason) => vec![reason.clone()],
            // Cancelled comes of the same call as Cancelling.
            None if to == Status::Cancelled => job.reasons_of(Status::Cancelling),
            None => Vec::new(),
        };
        let row = &mut job.row;
        // A step that is repeated after a crash gives its reason again.
        let added = change.failure_reason.filter(|reason| !row.failure_reasons.contains(reason));
        row.failure_reasons.extend(added);
        (row.status, row.rev) = (to, row.rev + 1);
        row.rows_total = change.rows_total.unwrap_or(row.rows_total);
        let (succeeded, failed) = change.counts.unwrap_or_default();
        (row.succeeded, row.failed) = (row.succeeded.max(succeeded), row.failed.max(failed));
        row.status_update_reason = change.status_update_reason.or(row.status_update_reason.take());
        row.generated_manifest = change.generated_manifest.or(row.generated_manifest.take());
        row.sampled |= event == Event::SampleFinished;
        row.lineage = change.lineage.unwrap_or_else(|| std::mem::take(&mut row.lineage));
        if to == Status::Suspended {
            row.suspended = Some(now);
        }
        if to.is_terminal() {
            row.terminated = Some(now);
        }
        if to == Status::Suspended || to.is_terminal() {
            row.rested = Some(age);
        }
        let code = |reason: &FailureReason| reason.code.clone();
        let codes = match to {
            Status::Failing | Status::Failed => row.failure_reasons.iter().map(code).collect(),
            _ => Vec::new(),
        };
        store.enter(&self.settings, id, now, codes, event_reasons);
        Ok(to)
    }
}

#[async_trait]
impl Ledger for Memory {
    fn announced(&self) -> watch::Receiver<()> {
        self.announcements.subscribe()
    }

    async fn create(&self, id: String, job: NewJob) -> Result<Created, JobError> {
        let (account, token) = (self.settings.account.clone(), job.client_request_token.clone());
        let fingerprint = job.fingerprint();
        let about = id.clone();
        self.write("create", Some(&about), |store| {
            if let Some(before) = store.tokens.get(&(account.clone(), token.clone())) {
                return match store.job(before)?.fingerprint == fingerprint {
                    true => Ok(Created::Before(before.clone())),
                    false => Err(JobError::TokenReused),
                };
            }
            if store.jobs.contains_key(&id) {
                return Err(StoreError::Damaged(format!("a second job {id}")).into());
            }
            let now = self.now();
            let latest = store.jobs.values().filter(|job| job.account == account).map(|job| job.row.created).max();
            let row = JobRow {
                id: id.clone(),
                rev: 1,
                created: after_the_latest(latest, now),
                status: Status::New,
                priority: job.priority,
                rows_total: 0,
                succeeded: 0,
                failed: 0,
                active_ms: 0,
                suspended: None,
                rested: None,
                terminated: None,
                status_update_reason: None,
                failure_reasons: Vec::new(),
                generated_manifest: None,
                sampled: false,
                lineage: id.clone(),
                request: job,
            };
            let (tags, place) = (row.request.tags.clone(), store.made);
            store.made += 1;
            store.tokens.insert((account.clone(), token), id.clone());
            let (report_created, figures, events, results) = (None, None, Vec::new(), None);
            let job = Job { row, account, fingerprint, tags, report_created, figures, events, results, place };
            store.jobs.insert(id.clone(), job);
            store.enter(&self.settings, &id, now, Vec::new(), Vec::new());
            Ok(Created::New)
        })
        .await
    }

    async fn job(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        self.look("job", Some(id), |store| Ok(store.jobs.get(id).map(|job| job.row.clone()))).await
    }

    async fn list(
        &self,
        statuses: Vec<Status>,
        after: Option<After>,
        max: usize,
    ) -> Result<(Vec<JobRow>, bool), StoreError> {
        let place = |row: &JobRow| (std::cmp::Reverse(row.created.0), row.id.clone());
        let after = after.map(|after| (std::cmp::Reverse(after.created), after.id));
        self.look("list", None, |store| {
            let ours = store.jobs.values().filter(|job| job.account == self.settings.account).map(|job| &job.row);
            let mut jobs: Vec<JobRow> = ours
                .filter(|row| statuses.is_empty() || statuses.contains(&row.status))
                .filter(|row| after.as_ref().is_none_or(|after| place(row) > *after))
                .cloned()
                .collect();
            jobs.sort_by_key(place);
            let more = jobs.len() > max;
            jobs.truncate(max);
            Ok((jobs, more))
        })
        .await
    }

    async fn alive(&self) -> Result<Vec<JobRow>, StoreError> {
        self.look("alive", None, |store| {
            let rows = store.jobs.values().map(|job| &job.row);
            let mut jobs: Vec<JobRow> = rows.filter(|row| !row.status.is_terminal()).cloned().collect();
            jobs.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
            Ok(jobs)
        })
        .await
    }

    async fn transition(&self, id: &str, terms: Terms<'_>, event: Event, change: Change) -> Result<Status, MoveError> {
        self.write("transition", Some(id), |store| self.transition_in(store, id, terms, event, change)).await
    }

    async fn set_priority(&self, id: &str, priority: u32) -> Result<(), JobError> {
        self.write("set_priority", Some(id), |store| {
            let row = &mut store.job_mut(id)?.row;
            if !row.status.takes_priority() {
                return Err(JobError::PriorityForbidden(row.status));
            }
            (row.priority, row.rev) = (priority, row.rev + 1);
            Ok(())
        })
        .await
    }

    async fn tags(&self, id: &str) -> Result<Vec<(String, String)>, JobError> {
        self.look("tags", Some(id), |store| Ok(store.job(id)?.tags.clone())).await
    }

    async fn set_tags(&self, id: &str, tags: Vec<(String, String)>) -> Result<(), JobError> {
        self.write("set_tags", Some(id), |store| {
            store.job_mut(id)?.tags = tags;
            Ok(())
        })
        .await
    }

    fn age(&self) -> Age {
        Age::default().after_ms(self.tick().0)
    }

    async fn note_age(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn expired(&self, before: Age, jobs_max: usize, max: usize) -> Result<Vec<Expired>, StoreError> {
        self.look("expired", None, |store| {
            let account = &self.settings.account;
            let over = |job: &&Job| job.account == *account && job.row.terminated.is_some();
            let mut jobs: Vec<&Job> = store.jobs.values().filter(over).collect();
            let too_many = if jobs_max == 0 { 0 } else { jobs.len().saturating_sub(jobs_max) };
            let owed = |job: &Job| {
                let ours = |name: &String| self.settings.event_sinks.iter().any(|sink| sink.name() == name);
                job.events.iter().flat_map(|e| &e.owed).any(|(sink, owed)| owed.is_pending() && ours(sink))
            };
            jobs.retain(|job| (too_many > 0 || job.row.rested < Some(before)) && !owed(job));
            jobs.sort_by_key(|job| (job.row.rested, job.row.terminated, job.place));
            let mut expired = Vec::new();
            for (place, job) in jobs.into_iter().take(max).enumerate() {
                let early = job.row.rested >= Some(before);
                if !early || place < too_many {
                    expired.push(Expired { id: job.row.id.clone(), early });
                }
            }
            Ok(expired)
        })
        .await
    }

    async fn census(&self) -> Result<Census, StoreError> {
        self.look("census", None, |store| {
            let ours = || store.jobs.values().filter(|job| job.account == self.settings.account);
            let mut jobs: Vec<(Status, u64)> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
            for job in ours() {
                jobs.iter_mut().filter(|(status, _)| *status == job.row.status).for_each(|(_, count)| *count += 1);
            }
            jobs.retain(|(_, count)| *count > 0);
            jobs.sort_by_key(|(status, _)| status.name());
            let sinks: Vec<&str> = self.settings.event_sinks.iter().map(|sink| sink.name()).collect();
            let owed = ours().flat_map(|job| &job.events).flat_map(|entered| &entered.owed);
            let pending =
                owed.filter(|(sink, owed)| owed.state == DeliveryState::Pending && sinks.contains(&sink.as_str()));
            Ok(Census { jobs, deliveries_owed: pending.count() as u64 })
        })
        .await
    }

    async fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.write("delete", Some(id), |store| {
            if store.jobs.get(id).is_some_and(|job| job.row.terminated.is_some())
                && let Some(job) = store.jobs.remove(id)
            {
                store.tokens.remove(&(job.account, job.row.request.client_request_token));
                store.leases.remove(&Duty::Job(id.to_owned()));
            }
            Ok(())
        })
        .await
    }

    async fn events(
        &self,
        account: &str,
        id: &str,
        after: u64,
        max: usize,
    ) -> Result<Option<(Vec<Kept>, bool)>, StoreError> {
        self.look("events", Some(id), |store| {
            let Some(job) = store.jobs.get(id).filter(|job| job.account == account) else { return Ok(None) };
            let delivery = |(sink, owed): (&String, &Owed)| Delivery {
                sink: sink.clone(),
                state: owed.state,
                attempts: owed.attempts,
                last_error: owed.last_error.clone(),
            };
            let kept = (1..).zip(&job.events).filter(|(number, _)| *number > after).map(|(number, entered)| Kept {
                number,
                event: entered.event.clone(),
                deliveries: entered.owed.iter().map(delivery).collect(),
            });
            let mut events: Vec<Kept> = kept.collect();
            let more = events.len() > max;
            events.truncate(max);
            Ok(Some((events, more)))
        })
        .await
    }

    async fn due(&self, sink: &str, now: Timestamp, wait_ms_max: u64, max: usize) -> Result<Vec<Due>, StoreError> {
        let horizon = now.0.saturating_add(i64::try_from(wait_ms_max).unwrap_or(i64::MAX));
        self.look("due", None, |store| {
            let mut found = Vec::new();
            for (id, job) in &store.jobs {
                for (number, entered) in (1..).zip(&job.events) {
                    let Some(owed) = entered.owed.get(sink).filter(|owed| owed.is_pending()) else { continue };
                    let Some(at) = owed.not_before.filter(|at| *at <= now.0 || *at > horizon) else { continue };
                    let event = entered.event.clone();
                    let due = Due { number, event, attempts: owed.attempts, tried_ms: owed.tried_ms };
                    found.push(((at > now.0, at, id, number), due));
                }
            }
            found.sort_by_key(|(place, _)| *place);
            Ok(found.into_iter().take(max).map(|(_, due)| due).collect())
        })
        .await
    }

    async fn note_try(&self, fence: &Fence, job_id: &str, number: u64, tried: Try) -> Result<(), StoreError> {
        let sink = fence.sink()?;
        self.write("note_try", Some(job_id), |store| {
            store.admit(fence)?;
            let Some(job) = store.jobs.get_mut(job_id) else { return Ok(()) };
            let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            if let Some(owed) = at.and_then(|at| job.events.get_mut(at)).and_then(|e| e.owed.get_mut(sink)) {
                (owed.state, owed.attempts, owed.tried_ms) = (tried.state, tried.attempts, tried.tried_ms);
                owed.not_before = Some(tried.not_before);
                owed.last_error = tried.error.or(owed.last_error.take());
            }
            if tried.state != DeliveryState::Pending {
                // Now the next one is due, if the job has one.
                let mut owed = job.events.iter_mut().filter_map(|e| e.owed.get_mut(sink));
                if let Some(next) = owed.find(|owed| owed.is_pending()) {
                    next.not_before = next.not_before.or(Some(tried.not_before));
                }
            }
            Ok(())
        })
        .await
    }

    fn term(&self) -> Option<Duration> {
        Some(self.term)
    }

    async fn lease(&self, duty: &Duty) -> Result<Option<Lease>, StoreError> {
        let about = match duty {
            Duty::Job(id) => Some(id.as_str()),
            Duty::Sink(_) => None,
        };
        self.write("lease", about, |store| {
            let holding = store.leases.entry(duty.clone()).or_default();
            let granted = holding.grant(self.worker, Epoch::default(), self.tick(), self.term_ms());
            let lease =
                |epoch| Lease { fence: Fence { duty: duty.clone(), worker: self.worker, epoch }, rows: ALL_ROWS };
            Ok(granted.map(lease))
        })
        .await
    }

    async fn renew(&self, fences: &[Fence]) -> Result<Vec<bool>, StoreError> {
        self.write("renew", None, |store| {
            let (now, term_ms) = (self.tick(), self.term_ms());
            let mut renew = |fence: &Fence| {
                let holding = store.leases.get_mut(&fence.duty)?;
                holding.renew(fence.worker, fence.epoch, now, term_ms).ok()
            };
            Ok(fences.iter().map(|fence| renew(fence).is_some()).collect())
        })
        .await
    }

    async fn give_back(&self, fence: &Fence) -> Result<(), StoreError> {
        self.write("give_back", fence.job().ok(), |store| {
            if let Some(holding) = store.leases.get_mut(&fence.duty) {
                holding.give_back(fence.worker, fence.epoch);
            }
            Ok(())
        })
        .await
    }

    async fn halt(&self, fence: &Fence) -> Result<(), StoreError> {
        let id = fence.job()?;
        self.write("halt", Some(id), |store| {
            let holding = store.leases.get_mut(&fence.duty).ok_or(StoreError::Fenced)?;
            holding.halt(fence.worker, fence.epoch).map_err(|_| StoreError::Fenced)
        })
        .await
    }

    async fn is_halted(&self, id: &str) -> Result<bool, StoreError> {
        let duty = Duty::Job(id.to_owned());
        self.look("is_halted", Some(id), |store| {
            Ok(store.leases.get(&duty).is_none_or(|holding| holding.is_halted(self.tick())))
        })
        .await
    }

    async fn note_progress(&self, fence: &Fence, counts: (u64, u64), active_ms: u64) -> Result<(), StoreError> {
        self.write("note_progress", fence.job().ok(), |store| {
            if let Some(Job { row, .. }) = store.admitted(fence)? {
                (row.succeeded, row.failed) = (row.succeeded.max(counts.0), row.failed.max(counts.1));
                row.active_ms = row.active_ms.max(active_ms);
            }
            Ok(())
        })
        .await
    }

    async fn note_figures(&self, fence: &Fence, figures: String) -> Result<(), StoreError> {
        self.write("note_figures", fence.job().ok(), |store| {
            if let Some(job) = store.admitted(fence)? {
                job.figures = Some(figures);
            }
            Ok(())
        })
        .await
    }

    async fn figures(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.look("figures", Some(id), |store| Ok(store.jobs.get(id).and_then(|job| job.figures.clone()))).await
    }

    async fn note_rows(&self, fence: &Fence, rows_total: u64) -> Result<(), StoreError> {
        self.write("note_rows", fence.job().ok(), |store| {
            if let Some(Job { row, .. }) = store.admitted(fence)? {
                row.rows_total = row.rows_total.max(rows_total);
            }
            Ok(())
        })
        .await
    }

    async fn report_created(&self, fence: &Fence) -> Result<Timestamp, StoreError> {
        self.write("report_created", fence.job().ok(), |store| {
            let gone = || StoreError::Damaged("a report's job is gone".into());
            let job = store.admitted(fence)?.ok_or_else(gone)?;
            Ok(*job.report_created.get_or_insert_with(|| self.now()))
        })
        .await
    }

    async fn open_results(&self, fence: &Fence) -> Result<(Arc<dyn Results>, Past), StoreError> {
        let id = fence.job()?;
        let (opened, past) = self
            .write("open_results", Some(id), |store| {
                let gone = || StoreError::Damaged(format!("the results of a job that is gone: {id}"));
                let job = store.admitted(fence)?.ok_or_else(gone)?;
                let log = job.results.get_or_insert_default();
                let mut past = Past::default();
                let mut wrong = None;
                let recovered = segment::recover(&log.bytes, |payload| {
                    if let Err(misread) = past.add_frame(payload) {
                        wrong.get_or_insert(misread.to_string());
                    }
                });
                let damaged = |what: String| StoreError::Damaged(format!("the results of job {id}: {what}"));
                let recovered = recovered.map_err(|at| damaged(format!("damaged at byte {at}")))?;
                if let Some(wrong) = wrong {
                    return Err(damaged(wrong));
                }
                log.bytes.truncate(recovered.valid_len);
                (log.opened, log.last, log.torn) = (log.opened + 1, 0, false);
                Ok((log.opened, past))
            })
            .await?;
        Ok((Arc::new(Opening { memory: self.clone(), fence: fence.clone(), opened }), past))
    }

    async fn has_results(&self, id: &str) -> Result<bool, StoreError> {
        self.look("has_results", Some(id), |store| Ok(store.jobs.get(id).is_some_and(|job| job.results.is_some())))
            .await
    }

    fn read_results(&self, id: &str, from: Position, each: &mut dyn FnMut(&[u8])) -> Result<Position, StoreError> {
        // A copy, so that `each` may ask this ledger for something.
        let bytes = match self.store().jobs.get(id).and_then(|job| job.results.as_ref()) {
            Some(log) => log.bytes.clone(),
            None => return Ok(from),
        };
        let start = usize::try_from(from.bytes).unwrap_or(usize::MAX).min(bytes.len());
        let recovered = match start {
            0 => segment::recover(&bytes, each),
            start => segment::recover_behind(&bytes[start..], each),
        };
        let damaged = |at| StoreError::Damaged(format!("the results of job {id}: damaged at byte {}", start + at));
        Ok(Position { segments_before: 0, bytes: (start + recovered.map_err(damaged)?.valid_len) as u64 })
    }
}

/// [`Results`] of one opening.
struct Opening {
    memory: Memory,
    fence: Fence,
    opened: u64,
}

#[async_trait]
impl Results for Opening {
    async fn append(&self, batch: u64, entries: Arc<Entries>) -> Result<Appended, StoreError> {
        let (memory, fence) = (&self.memory, &self.fence);
        let payload = entries.payload();
        let mut frame = Vec::new();
        if payload.is_empty() || payload.len() > segment::PAYLOAD_MAX {
            return Err(StoreError::Damaged(format!("a result frame of {} bytes", payload.len())));
        }
        segment::push_frame(&mut frame, payload);
        let tear = |tear| {
            let mut store = memory.store();
            let Ok(Some(Job { results: Some(log), .. })) = store.admitted(fence) else { return };
            if log.opened == self.opened && !log.torn && batch > log.last {
                log.push(&torn(frame.clone(), tear));
                log.torn = true;
            }
        };
        let step = Step { writes: true, ..memory.step("append", fence.job().ok()) };
        let appended = memory.act(step, tear, |store| {
            let Some(Job { results: Some(log), row, .. }) = store.admitted(fence)? else {
                return Err(StoreError::Fenced);
            };
            if log.opened != self.opened {
                return Err(StoreError::Fenced);
            }
            if log.torn {
                return Err(StoreError::Broken("a frame before this one is torn".into()));
            }
            if batch <= log.last {
                return Ok(Appended::Already);
            }
            log.push(&frame);
            log.last = batch;
            // In the same transaction: so the counts are those of the results, at every server.
            let (succeeded, failed) = entries.settled();
            (log.succeeded, log.failed) = (log.succeeded + succeeded, log.failed + failed);
            (row.succeeded, row.failed) = (row.succeeded.max(log.succeeded), row.failed.max(log.failed));
            Ok(Appended::Done)
        });
        appended.await
    }
}

impl Log {
    fn push(&mut self, frame: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(HEADER);
        }
        self.bytes.extend_from_slice(frame);
    }
}

/// What is left of a frame.
fn torn(mut frame: Vec<u8>, tear: Tear) -> Vec<u8> {
    match tear {
        Tear::Cut(bytes) => frame.truncate(bytes.min(frame.len() - 1)),
        Tear::Garbled { byte, bit } => {
            let byte = byte % frame.len();
            frame[byte] ^= 1 << (bit % 8);
        }
    }
    frame
}
