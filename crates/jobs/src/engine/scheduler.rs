//! Gives jobs their agents: the acting half of `core::schedule`, which decides. And removes those whose time is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_core::job::{Event, Status};
use longshore_core::schedule::{Candidate, Decision, schedule};
use longshore_store::StoreError;
use longshore_store::failpoint::{self, Place};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Engine, Order, agent, needs_agent, remove};
use crate::error::FailureReason;
use crate::ledger::{Change, Duty, JobRow, MoveError, Terms};

/// Besides being woken, the scheduler looks this often: for what only time brings, and as a net (spec 8.2, point 6).
const EVERY: Duration = Duration::from_secs(5);

/// As `EVERY`, where other servers change jobs as well: a cancel that was asked for there waits for us this long.
const EVERY_SHARED: Duration = Duration::from_millis(500);

/// How often the clock of age is noted while no job moves.
const AGE_NOTED_EVERY: Duration = Duration::from_secs(60 * 60);

/// Jobs removed in one step, between which the engine may stop. Of a large one hundreds of files go.
pub(super) const RETIRED_MAX: usize = 16;

/// Removes jobs whose time is over, step by step, until the engine stops (rules P-1 and P-9, C-63). Apart from the
/// passes: no job waits for its slot until the files of others are gone.
pub(super) async fn retire(engine: Engine) {
    let mut noted = Instant::now();
    loop {
        if noted.elapsed() >= AGE_NOTED_EVERY {
            // What is lost of it is made up for by the wall clock at the next start, up to a day.
            if let Err(error) = engine.shared.world.ledger.note_age().await {
                tracing::debug!(%error, "the clock of age is not noted, will retry");
            }
            noted = Instant::now();
        }
        let more = match retire_some(&engine).await {
            Ok(removed) => removed == RETIRED_MAX,
            Err(error) => {
                tracing::warn!(%error, "jobs whose time is over stay, will retry");
                false
            }
        };
        if engine.shared.stopping.is_cancelled() {
            return;
        }
        if more {
            continue;
        }
        tokio::select! {
            biased;
            () = engine.shared.stopping.cancelled() => return,
            () = engine.shared.retire.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One step. Returns how many jobs it removed.
pub(super) async fn retire_some(engine: &Engine) -> Result<usize, StoreError> {
    let world = &engine.shared.world;
    let before = world.ledger.age().before_ms(world.settings.retention_ms);
    let expired = world.ledger.expired(before, world.settings.retained_max, RETIRED_MAX).await?;
    let mut removed = 0;
    for job in &expired {
        // A delivery that begins from here on waits, and finds the job gone.
        let _removing = engine.shared.removing.lock().await;
        // An agent that has just ended its job may still be on its way out; the next step finds it gone.
        if engine.agents().contains_key(&job.id) || engine.redelivered().contains_key(&job.id) {
            continue;
        }
        // The files first: of a job without a record nobody would know that it had any.
        remove(engine, &job.id).await?;
        failpoint::pass(Place::JobRemoveFiles);
        world.ledger.delete(&job.id).await?;
        if job.early {
            tracing::warn!(job = job.id, "job removed before its time, because there are too many jobs");
        } else {
            tracing::info!(job = job.id, "job removed, its time was over");
        }
        removed += 1;
    }
    Ok(removed)
}

/// Looks again and again until the engine stops.
pub(super) async fn run(engine: Engine) {
    let ledger = &engine.shared.world.ledger;
    let shared = ledger.term().is_some();
    let mut announced = ledger.announced();
    loop {
        tokio::select! {
            biased;
            () = engine.shared.stopping.cancelled() => return,
            () = engine.shared.wake.notified() => {}
            // What this server changes itself it is woken for.
            Ok(()) = announced.changed(), if shared => {}
            () = tokio::time::sleep(if shared { EVERY_SHARED } else { EVERY }) => {}
        }
        if let Err(error) = pass(&engine).await {
            tracing::warn!(%error, "a scheduling pass failed, will retry");
        }
    }
}

/// The first look of a server at all jobs that are not over: what it takes on went on before, and the log says so.
pub(super) async fn first_pass(engine: &Engine) -> Result<(), StoreError> {
    look(engine, true).await
}

/// One look at all jobs that are not over.
pub(super) async fn pass(engine: &Engine) -> Result<(), StoreError> {
    look(engine, false).await
}

async fn look(engine: &Engine, at_start: bool) -> Result<(), StoreError> {
    let world = &engine.shared.world;
    let mut jobs = world.ledger.alive().await?;
    let mut preparing = jobs.iter().filter(|j| j.status == Status::Preparing).count();
    for job in &mut jobs {
        let unchanged = Terms::Unchanged(job.rev);
        match job.status {
            Status::New if preparing < world.settings.preparing_slots => {
                preparing += 1;
                step(engine, job, unchanged, Event::PickedUp, Change::default()).await?;
            }
            Status::Suspended => time_out(engine, job).await?,
            _ => {}
        }
    }
    let candidates: Vec<Candidate> = jobs
        .iter()
        .map(|j| Candidate { job_id: j.id.clone(), status: j.status, priority: j.priority, created: j.created.0 })
        .collect();
    for decision in schedule(&candidates, world.settings.active_slots) {
        let (Decision::Activate(id) | Decision::Preempt(id)) = &decision;
        let Some(job) = jobs.iter_mut().find(|j| j.id == *id) else { continue };
        let (rev, slots) = (job.rev, world.settings.active_slots);
        // Another server may have given the slot away since the jobs were read.
        let (terms, event) = match &decision {
            Decision::Activate(_) => (Terms::Slot { rev, slots }, Event::SlotGranted),
            Decision::Preempt(_) => (Terms::Unchanged(rev), Event::Preempted),
        };
        step(engine, job, terms, event, Change::default()).await?;
    }
    for job in jobs {
        let orders = engine.agents().get(&job.id).map(|agent| {
            agent.live.priority.store(job.priority, Ordering::Relaxed);
            agent.orders.clone()
        });
        match orders {
            Some(orders) if job.status == Status::Pausing => {
                // A pause may be given twice; an agent whose orders are full, or that has ended, is told in the next
                // pass.
                let _ = orders.try_send(Order::Pause);
            }
            Some(orders) if job.status == Status::Cancelling && world.ledger.term().is_some() => {
                // The cancel may have come to another server, where somebody waits for its answer.
                halt(engine, &job, &orders);
            }
            Some(_) => {}
            None if needs_agent(job.status) && !engine.shared.stopping.is_cancelled() => {
                let duty = Duty::Job(job.id.clone());
                match engine.shared.keeper.take(&*world.ledger, &duty).await {
                    Ok(Some(held)) => agent::spawn(engine, job, held, at_start),
                    // Another server has it.
                    Ok(None) => {}
                    Err(error @ StoreError::Broken(_)) => return Err(error),
                    Err(error) => tracing::warn!(job = job.id, %error, "a job cannot be taken on, will retry"),
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// Has the agent of a job that is being cancelled start nothing more, and lets other servers know once that is so.
fn halt(engine: &Engine, job: &JobRow, orders: &mpsc::Sender<Order>) {
    let Some(fence) = engine.agents().get(&job.id).map(|agent| agent.fence.clone()) else { return };
    let (done, taken) = oneshot::channel();
    // An agent whose orders are full is told in the next pass.
    if orders.try_send(Order::Cancel(done)).is_err() {
        return;
    }
    let engine = engine.clone();
    engine.clone().shared.tasks.spawn(async move {
        // An agent that ends without answering starts nothing either.
        let _ = taken.await;
        if let Err(error) = engine.shared.world.ledger.halt(&fence).await {
            tracing::debug!(%error, "that a job is halted is not noted, will retry");
        }
    });
}

/// Moves a job; one that has moved on by itself since it was read is left to the next pass.
async fn step(
    engine: &Engine,
    job: &mut JobRow,
    terms: Terms<'_>,
    event: Event,
    change: Change,
) -> Result<(), StoreError> {
    match engine.shared.world.ledger.transition(&job.id, terms, event, change).await {
        Ok(status) => {
            job.status = status;
            // As it is now, unless somebody else has changed it since: then the next move is refused, and looked at anew.
            job.rev += 1;
        }
        // The other jobs' agents need no space of their own, or wait for it themselves.
        Err(MoveError::Store(error)) if error.is_full() => {
            tracing::warn!(job = job.id, %error, "a job's status waits for space on the disk");
        }
        // The next pass sees whether it happened.
        Err(MoveError::Store(StoreError::Unknown(why))) => {
            tracing::warn!(job = job.id, why, "it is not known whether a job's status has changed, will look");
            engine.wake();
        }
        Err(MoveError::Store(error)) => return Err(error),
        Err(MoveError::NotFound | MoveError::Illegal(_) | MoveError::Overtaken) => engine.wake(),
    }
    Ok(())
}

/// Fails a job that nobody has confirmed for too long (rule L-4).
async fn time_out(engine: &Engine, job: &mut JobRow) -> Result<(), StoreError> {
    let settings = &engine.shared.world.settings;
    let before = engine.shared.world.ledger.age().before_ms(settings.confirmation_ms_max);
    if job.rested.is_some_and(|since| since < before) {
        let days = settings.confirmation_ms_max / crate::DAY_MS;
        let reason = FailureReason::new("ConfirmationTimeout", format!("The job was not confirmed within {days} days"));
        let change = Change { failure_reason: Some(reason), ..Change::default() };
        let unchanged = Terms::Unchanged(job.rev);
        step(engine, job, unchanged, Event::ConfirmationTimedOut, change).await?;
        if job.status.is_terminal() {
            engine.clean(&job.id).await;
        }
    }
    Ok(())
}
