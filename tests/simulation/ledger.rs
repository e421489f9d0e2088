//! The ledger as one machine reaches it: slow, full, torn, without an answer, or the place where the machine dies. What
//! the ledger behind it says is what has happened, and goes into the world's books whatever the machine gets to know.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use longshore_core::job::{Event, Status};
use longshore_core::record::{Entries, Entry};
use longshore_core::run::Past;
use longshore_core::time::{Age, Timestamp};
use longshore_jobs::JobError;
use longshore_jobs::ledger::{
    After, Appended, Before, Census, Change, Created, Due, Duty, Expired, Faults, Fence, JobRow, Kept, Lease, Ledger,
    Logs, MoveError, NewJob, Results, Step, Tear, Terms, Try,
};
use longshore_store::{Position, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::defect::Defect;
use crate::machine::Machine;
use crate::plan::Fault;

/// See the module.
pub struct Reached {
    machine: Arc<Machine>,
    inner: Arc<dyn Ledger>,
    /// The results, in a world with a disk: those of the ledger are not used then.
    logs: Option<Logs>,
    tears: Arc<Tears>,
}

/// What is to become of the next append: it is torn, and nobody gets to know.
#[derive(Default)]
pub struct Tears(Mutex<Option<Tear>>);

#[async_trait::async_trait]
impl Faults for Tears {
    async fn before(&self, step: &Step) -> Before {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| step.what == "append") {
            Some(tear) => Before::Torn(tear),
            None => Before::GoOn,
        }
    }
}

impl Reached {
    pub fn new(machine: &Arc<Machine>, inner: Arc<dyn Ledger>, logs: Option<Logs>, tears: Arc<Tears>) -> Self {
        Self { machine: Arc::clone(machine), inner, logs, tears }
    }

    fn has(&self, defect: Defect) -> bool {
        self.machine.world.has(defect)
    }
}

/// `Err(Broken)` once a sync has failed here: nothing more is acknowledged.
fn check(machine: &Machine) -> Result<(), StoreError> {
    match machine.fatal.reason() {
        None => Ok(()),
        Some(reason) => Err(StoreError::Broken(reason.to_owned())),
    }
}

/// The way there: mostly short.
async fn way(machine: &Machine) {
    let world = &machine.world;
    machine.alive().await;
    if world.fault(Fault::SlowLedger) {
        machine.shake();
        world.sleep_up_to(5_000).await;
        machine.shake();
    } else if world.one_in(3) {
        world.sleep_up_to(10).await;
    }
}

fn is_full(machine: &Machine) -> bool {
    let world = &machine.world;
    let until = world.state().full_until;
    // It is never full for everything at once: somebody makes room, and somebody else takes it.
    until > Instant::now() && !world.one_in(10)
}

async fn read<T>(machine: &Machine, call: impl Future<Output = T>) -> T {
    way(machine).await;
    call.await
}

/// One transaction that changes something. `known` is told what has happened, whatever the machine gets to know.
async fn write<T, E: From<StoreError>>(
    machine: &Machine,
    call: impl Future<Output = Result<T, E>>,
    known: impl FnOnce(&Result<T, E>),
) -> Result<T, E> {
    let world = &machine.world;
    check(machine)?;
    way(machine).await;
    if world.fault(Fault::CrashBeforeWrite) {
        machine.die_here(Fault::CrashBeforeWrite).await;
    }
    check(machine)?;
    if world.fault(Fault::PauseAtWrite) {
        machine.pause_here().await;
    }
    if is_full(machine) {
        machine.shake();
        return Err(StoreError::Full("of the world".into()).into());
    }
    let failed = world.fault(Fault::FailedSync);
    let unknown = !failed && world.fault(Fault::UnknownWrite);
    let done = if (failed || unknown) && world.one_in(2) { None } else { Some(call.await) };
    if let Some(done) = &done {
        known(done);
    }
    match done {
        _ if failed => Err(machine.sync_fails().into()),
        Some(done) if !unknown => {
            if world.fault(Fault::CrashAfterWrite) {
                machine.die_here(Fault::CrashAfterWrite).await;
            }
            // The answer takes its time as well.
            if world.one_in(4) {
                world.sleep_up_to(5).await;
            }
            done
        }
        _ => {
            machine.shake();
            world.sleep_up_to(1_000).await;
            Err(StoreError::Unknown("of the world".into()).into())
        }
    }
}

#[async_trait::async_trait]
impl Ledger for Reached {
    fn announced(&self) -> watch::Receiver<()> {
        self.inner.announced()
    }

    async fn create(&self, id: String, mut job: NewJob) -> Result<Created, JobError> {
        let world = &self.machine.world;
        let number = job.description.as_deref().and_then(|text| text.strip_prefix("job ")?.parse().ok());
        let number: usize = number.expect("a job of the world says which one it is");
        if self.has(Defect::TokenForgotten) && self.machine.life > 0 {
            job.client_request_token.push_str(&self.machine.life.to_string());
        }
        let made = id.clone();
        write(&self.machine, self.inner.create(id, job), |created| {
            if let Ok(Created::New) = created {
                world.job_made(number, &made);
            }
        })
        .await
    }

    async fn job(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        let mut job = read(&self.machine, self.inner.job(id)).await?;
        if let Some(job) = &mut job
            && self.has(Defect::CountsForgotten)
            && self.machine.life > 0
        {
            (job.succeeded, job.failed) = (0, 0);
        }
        Ok(job)
    }

    async fn list(
        &self,
        statuses: Vec<Status>,
        after: Option<After>,
        max: usize,
    ) -> Result<(Vec<JobRow>, bool), StoreError> {
        read(&self.machine, self.inner.list(statuses, after, max)).await
    }

    async fn alive(&self) -> Result<Vec<JobRow>, StoreError> {
        read(&self.machine, self.inner.alive()).await
    }

    async fn transition(&self, id: &str, terms: Terms<'_>, event: Event, change: Change) -> Result<Status, MoveError> {
        let world = Arc::clone(&self.machine.world);
        let asked_for = matches!(terms, Terms::Legal);
        if self.has(Defect::CancelInMemory)
            && asked_for
            && event == Event::CancelRequested
            && let Some(job) = self.inner.job(id).await?
            && matches!(job.status, Status::Active | Status::Pausing | Status::Paused)
        {
            return Ok(Status::Cancelling);
        }
        if self.has(Defect::MoveBeforeDurable)
            && asked_for
            && let Some(job) = self.inner.job(id).await?
            && let Ok(to) = job.status.on(event)
        {
            let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
            self.machine.spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if let Ok(status) = inner.transition(&id, Terms::Legal, event, change).await {
                    world.job_moved(&id, status);
                }
            });
            return Ok(to);
        }
        let newest;
        let terms = match terms {
            Terms::Leased(fence) if self.has(Defect::StaleEpochAccepted) => {
                newest = self.machine.world.newest(fence);
                Terms::Leased(&newest)
            }
            terms => terms,
        };
        write(&self.machine, self.inner.transition(id, terms, event, change), |moved| {
            if let Ok(status) = moved {
                world.job_moved(id, *status);
            }
        })
        .await
    }

    async fn set_priority(&self, id: &str, priority: u32) -> Result<(), JobError> {
        write(&self.machine, self.inner.set_priority(id, priority), |_| {}).await
    }

    async fn tags(&self, id: &str) -> Result<Vec<(String, String)>, JobError> {
        read(&self.machine, self.inner.tags(id)).await
    }

    async fn set_tags(&self, id: &str, tags: Vec<(String, String)>) -> Result<(), JobError> {
        write(&self.machine, self.inner.set_tags(id, tags), |_| {}).await
    }

    fn age(&self) -> Age {
        self.inner.age()
    }

    async fn note_age(&self) -> Result<(), StoreError> {
        read(&self.machine, self.inner.note_age()).await
    }

    async fn expired(&self, before: Age, jobs_max: usize, max: usize) -> Result<Vec<Expired>, StoreError> {
        read(&self.machine, self.inner.expired(before, jobs_max, max)).await
    }

    async fn delete(&self, id: &str) -> Result<(), StoreError> {
        assert!(self.logs.is_none(), "no job of a world grows so old");
        write(&self.machine, self.inner.delete(id), |_| {}).await
    }

    async fn events(
        &self,
        account: &str,
        id: &str,
        after: u64,
        max: usize,
    ) -> Result<Option<(Vec<Kept>, bool)>, StoreError> {
        read(&self.machine, self.inner.events(account, id, after, max)).await
    }

    async fn due(&self, sink: &str, now: Timestamp, wait_ms_max: u64, max: usize) -> Result<Vec<Due>, StoreError> {
        read(&self.machine, self.inner.due(sink, now, wait_ms_max, max)).await
    }

    async fn note_try(&self, fence: &Fence, job_id: &str, number: u64, tried: Try) -> Result<(), StoreError> {
        write(&self.machine, self.inner.note_try(fence, job_id, number, tried), |_| {}).await
    }

    async fn census(&self) -> Result<Census, StoreError> {
        read(&self.machine, self.inner.census()).await
    }

    async fn note_figures(&self, fence: &Fence, figures: String) -> Result<(), StoreError> {
        write(&self.machine, self.inner.note_figures(fence, figures), |_| {}).await
    }

    async fn figures(&self, id: &str) -> Result<Option<String>, StoreError> {
        read(&self.machine, self.inner.figures(id)).await
    }

    fn term(&self) -> Option<Duration> {
        // Who looks at its own clock drops its work in time, and has nothing to write that is stale.
        let late = if self.has(Defect::StaleEpochAccepted) { 20 } else { 1 };
        // A server with a disk of its own is the only one.
        self.inner.term().filter(|_| self.logs.is_none()).map(|term| term * late)
    }

    async fn lease(&self, duty: &Duty) -> Result<Option<Lease>, StoreError> {
        let world = &self.machine.world;
        let known = |lease: &Result<Option<Lease>, StoreError>| {
            if let Ok(Some(lease)) = lease {
                world.leased(&lease.fence);
            }
        };
        if self.logs.is_some() {
            // Those of a server that is alone lie in its memory.
            let lease = self.inner.lease(duty).await;
            known(&lease);
            return lease;
        }
        write(&self.machine, self.inner.lease(duty), known).await
    }

    async fn renew(&self, fences: &[Fence]) -> Result<Vec<bool>, StoreError> {
        let world = &self.machine.world;
        write(&self.machine, self.inner.renew(fences), |renewed| {
            let held = renewed.as_ref().map_or(0, |held| held.iter().filter(|held| **held).count());
            world.event("renewals", held as u64);
        })
        .await
    }

    async fn give_back(&self, fence: &Fence) -> Result<(), StoreError> {
        if let (Some(logs), Duty::Job(id)) = (&self.logs, &fence.duty) {
            logs.leave(id);
            return self.inner.give_back(fence).await;
        }
        write(&self.machine, self.inner.give_back(fence), |_| {}).await
    }

    async fn halt(&self, fence: &Fence) -> Result<(), StoreError> {
        write(&self.machine, self.inner.halt(fence), |_| {}).await
    }

    async fn is_halted(&self, id: &str) -> Result<bool, StoreError> {
        read(&self.machine, self.inner.is_halted(id)).await
    }

    async fn note_progress(&self, fence: &Fence, counts: (u64, u64), active_ms: u64) -> Result<(), StoreError> {
        write(&self.machine, self.inner.note_progress(fence, counts, active_ms), |_| {}).await
    }

    async fn note_rows(&self, fence: &Fence, rows_total: u64) -> Result<(), StoreError> {
        write(&self.machine, self.inner.note_rows(fence, rows_total), |_| {}).await
    }

    async fn report_created(&self, fence: &Fence) -> Result<Timestamp, StoreError> {
        write(&self.machine, self.inner.report_created(fence), |_| {}).await
    }

    async fn open_results(&self, fence: &Fence) -> Result<(Arc<dyn Results>, Past), StoreError> {
        let Duty::Job(id) = &fence.duty else { return Err(StoreError::Fenced) };
        let torn = self.has(Defect::TornTailAccepted) && self.machine.world.is_torn(id);
        if torn {
            return Err(StoreError::Damaged("what a crash has cut off does not read".into()));
        }
        let (results, mut past) = match &self.logs {
            // What goes wrong with a disk, it does itself.
            Some(logs) => {
                check(&self.machine)?;
                read(&self.machine, logs.open(fence)).await?
            }
            None => write(&self.machine, self.inner.open_results(fence), |_| {}).await?,
        };
        self.machine.world.learn_anew(id);
        self.machine.world.run_begins(id);
        let restarted = self.machine.life > 0;
        if restarted && self.has(Defect::AttemptsForgotten) {
            past = self.past(id, |entry| matches!(entry, Entry::Settled { .. }));
        }
        if restarted && self.has(Defect::SettledForgotten) {
            let settled = self.machine.world.settled(id);
            past = self.past(id, |entry| Some(entry.task().row) != settled);
        }
        let job = id.clone();
        let results = Appends {
            machine: Arc::clone(&self.machine),
            ledger: Arc::clone(&self.inner),
            inner: results,
            fence: fence.clone(),
            job,
            turn: Arc::default(),
            tears: Arc::clone(&self.tears),
            lost: Mutex::default(),
            keys: Mutex::default(),
        };
        Ok((Arc::new(results), past))
    }

    async fn has_results(&self, id: &str) -> Result<bool, StoreError> {
        match &self.logs {
            Some(logs) => {
                let there = read(&self.machine, async { logs.are_there(id) }).await;
                self.machine.alive().await;
                Ok(there)
            }
            None => read(&self.machine, self.inner.has_results(id)).await,
        }
    }

    fn read_results(&self, id: &str, from: Position, each: &mut dyn FnMut(&[u8])) -> Result<Position, StoreError> {
        if let Some(logs) = &self.logs {
            return logs.read(id, from, each);
        }
        let (twice, restarted) = (self.has(Defect::RowTwiceInReport), self.machine.life > 0);
        let edge = self.has(Defect::RowLostAtChunkEdge);
        let mut first = true;
        let read = self.inner.read_results(id, from, &mut |payload| {
            if edge {
                let mut rest = Vec::new();
                Entry::decode_all(payload, |entry| {
                    if (entry.task().row + 1) % longshore_core::manifest::CHUNK_ROWS != 0 {
                        entry.encode(&mut rest);
                    }
                })
                .expect("a durable frame reads");
                return each(&rest);
            }
            if twice && restarted && std::mem::take(&mut first) {
                each(payload);
            }
            each(payload);
        });
        if self.has(Defect::TornTailAccepted) && self.machine.world.is_torn(id) {
            each(b"what a crash has cut off");
        }
        read
    }
}

impl Reached {
    /// The past of a job as one would have it that knows some of its entries alone.
    fn past(&self, id: &str, knows: impl Fn(&Entry) -> bool) -> Past {
        let mut past = Past::default();
        let read = self.inner.read_results(id, Position::default(), &mut |payload| {
            Entry::decode_all(payload, |entry| {
                if knows(&entry) {
                    past.add(&entry).expect("no row is settled twice");
                }
            })
            .expect("a durable frame reads");
        });
        read.expect("the results of a world read");
        past
    }
}

/// Results open for appending.
struct Appends {
    machine: Arc<Machine>,
    ledger: Arc<dyn Ledger>,
    inner: Arc<dyn Results>,
    fence: Fence,
    job: String,
    tears: Arc<Tears>,
    /// What a defect has acknowledged is written in order.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Batches that were lost in a sync that failed, where a defect tries it once more.
    lost: Mutex<BTreeSet<u64>>,
    /// Keys whose rows are settled, by row, for a defect.
    keys: Mutex<BTreeMap<String, u64>>,
}

impl Appends {
    fn has(&self, defect: Defect) -> bool {
        self.machine.world.has(defect)
    }

    /// The entries but those of keys that others have settled.
    fn deduped(&self, entries: &Entries) -> Arc<Entries> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = Vec::new();
        Entry::decode_all(entries.payload(), |entry| {
            let (row, key) = (entry.task().row, entry.task().key.to_string());
            if *keys.entry(key).or_insert(row) == row {
                own.push(entry);
            }
        })
        .expect("what is recorded reads");
        Arc::new(own.into_iter().collect())
    }
}

/// Appends, and takes what is durable by then into the books, whatever came of it.
async fn append(
    inner: &Arc<dyn Results>,
    machine: &Machine,
    job: &str,
    batch: u64,
    entries: Arc<Entries>,
) -> Result<Appended, StoreError> {
    let appended = inner.append(batch, entries).await;
    // What a disk has of one that failed is not durable.
    if machine.world.disk.is_none() || appended.is_ok() {
        machine.world.learn(job);
    }
    appended
}

#[async_trait::async_trait]
impl Results for Appends {
    async fn append(&self, batch: u64, entries: Arc<Entries>) -> Result<Appended, StoreError> {
        let (machine, world) = (&self.machine, &self.machine.world);
        check(machine)?;
        if self.has(Defect::AckBeforeSync) {
            let (machine, inner, job, turn) =
                (Arc::clone(machine), Arc::clone(&self.inner), self.job.clone(), Arc::clone(&self.turn));
            self.machine.spawn(async move {
                let _turn = turn.lock().await;
                machine.world.sleep_up_to(100).await;
                // Nobody is told what came of it: that is the defect.
                let _ = append(&inner, &machine, &job, batch, entries).await;
            });
            return Ok(Appended::Done);
        }
        if self.lost.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch) {
            return Ok(Appended::Done);
        }
        way(machine).await;
        if world.fault(Fault::TornWrite) {
            world.tear(&self.job);
            let byte = world.below(1 << if world.one_in(2) { 6 } else { 16 }) as usize;
            let bit = world.below(8) as u8;
            let tear = if world.one_in(2) { Tear::Cut(byte) } else { Tear::Garbled { byte, bit } };
            *self.tears.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tear);
            // Leaves what is torn, and never answers; one whose lease is lost leaves nothing.
            assert!(!matches!(self.inner.append(batch, entries).now_or_never(), Some(Ok(_))), "what was torn is there");
            machine.die_here(Fault::TornWrite).await;
        }
        if world.fault(Fault::LostWrite) {
            machine.die_here(Fault::LostWrite).await;
        }
        check(machine)?;
        if world.fault(Fault::PauseAtWrite) {
            machine.pause_here().await;
        }
        if is_full(machine) {
            return match self.has(Defect::FullDiskSwallowed) {
                true => Ok(Appended::Done),
                false => Err(StoreError::Full("of the world".into())),
            };
        }
        let entries = if self.has(Defect::DedupeByKey) { self.deduped(&entries) } else { entries };
        if entries.is_empty() {
            return Ok(Appended::Done);
        }
        if self.has(Defect::StaleEpochAccepted) {
            let newest = world.newest(&self.fence);
            if newest != self.fence {
                let (opened, _) = self.ledger.open_results(&newest).await?;
                return append(&opened, machine, &self.job, 1, entries).await;
            }
        }
        let failed = world.fault(Fault::FailedSync);
        let unknown = !failed && world.fault(Fault::UnknownWrite);
        if (failed || unknown) && world.one_in(2) {
            if failed && self.has(Defect::RetryAfterFailedSync) {
                self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(batch);
                return Err(StoreError::Full("the sync has failed, and is tried once more".into()));
            }
        } else {
            let appended = append(&self.inner, machine, &self.job, batch, entries).await;
            if !failed && !unknown {
                if world.fault(Fault::CrashAfterWrite) {
                    machine.die_here(Fault::CrashAfterWrite).await;
                }
                if world.one_in(4) {
                    world.sleep_up_to(5).await;
                }
                return appended;
            }
        }
        if failed {
            return Err(machine.sync_fails());
        }
        world.sleep_up_to(1_000).await;
        Err(StoreError::Unknown("of the world".into()))
    }
}
