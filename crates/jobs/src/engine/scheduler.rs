//! Gives jobs their agents: the acting half of `core::schedule`, which decides. And removes those whose time is over.

use std::time::Duration;

use longshore_core::job::{Event, Status};
use longshore_core::schedule::{Candidate, Decision, schedule};
use longshore_store::StoreError;

use longshore_core::time::Timestamp;

use super::{Engine, Order, agent, needs_agent, remove};
use crate::error::FailureReason;
use crate::table::{Change, JobRow, MoveError};

/// Besides being woken, the scheduler looks this often: for what only time brings, and as a net (spec 8.2, point 6).
const EVERY: Duration = Duration::from_secs(5);

/// Jobs removed in one step, between which the engine may stop. Of a large one hundreds of files go.
pub(super) const RETIRED_MAX: usize = 16;

/// Removes jobs whose time is over, step by step, until the engine stops (rules P-1 and P-9, C-63). Apart from the
/// passes: no job waits for its slot until the files of others are gone.
pub(super) async fn retire(engine: Engine) {
    loop {
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
    let now = (world.settings.wall_clock)();
    let before = Timestamp(now.0.saturating_sub(world.settings.retention_ms));
    let expired = world.table.expired(before, world.settings.retained_max, RETIRED_MAX).await?;
    let mut removed = 0;
    for job in &expired {
        // An agent that has just ended its job may still be on its way out; the next step finds it gone.
        if engine.agents().contains_key(&job.id) {
            continue;
        }
        // The files first: of a job without a record nobody would know that it had any.
        remove(engine, &job.id).await?;
        world.table.delete(&job.id).await?;
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
    loop {
        tokio::select! {
            biased;
            () = engine.shared.stopping.cancelled() => return,
            () = engine.shared.wake.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = pass(&engine).await {
            tracing::warn!(%error, "a scheduling pass failed, will retry");
        }
    }
}

/// One look at all jobs that are not over.
pub(super) async fn pass(engine: &Engine) -> Result<(), StoreError> {
    let world = &engine.shared.world;
    let mut jobs = world.table.alive().await?;
    let mut preparing = jobs.iter().filter(|j| j.status == Status::Preparing).count();
    for job in &mut jobs {
        match job.status {
            Status::New if preparing < world.settings.preparing_slots => {
                preparing += 1;
                step(engine, job, Event::PickedUp, Change::default()).await?;
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
        let (id, event) = match &decision {
            Decision::Activate(id) => (id, Event::SlotGranted),
            Decision::Preempt(id) => (id, Event::Preempted),
        };
        let Some(job) = jobs.iter_mut().find(|j| j.id == *id) else { continue };
        step(engine, job, event, Change::default()).await?;
    }
    for job in jobs {
        if job.status == Status::Pausing {
            let orders = engine.agents().get(&job.id).map(|a| a.orders.clone());
            if let Some(orders) = orders {
                // A pause may be given twice; an agent whose orders are full, or that has ended, is told in the next
                // pass.
                let _ = orders.try_send(Order::Pause);
            }
        }
        if needs_agent(job.status) && !engine.shared.stopping.is_cancelled() {
            agent::spawn(engine, job);
        }
    }
    Ok(())
}

/// Moves a job; one that has moved on by itself since it was read is left to the next pass.
async fn step(engine: &Engine, job: &mut JobRow, event: Event, change: Change) -> Result<(), StoreError> {
    match engine.shared.world.table.transition(&job.id, event, change).await {
        Ok(status) => job.status = status,
        // The other jobs' agents need no space of their own, or wait for it themselves.
        Err(MoveError::Store(error)) if error.is_full() => {
            tracing::warn!(job = job.id, %error, "a job's status waits for space on the disk");
        }
        Err(MoveError::Store(error)) => return Err(error),
        Err(MoveError::NotFound | MoveError::Illegal(_)) => engine.wake(),
    }
    Ok(())
}

/// Fails a job that nobody has confirmed for too long (rule L-4).
async fn time_out(engine: &Engine, job: &mut JobRow) -> Result<(), StoreError> {
    let settings = &engine.shared.world.settings;
    let now = (settings.wall_clock)();
    if job.suspended.is_some_and(|since| now.0.saturating_sub(since.0) > settings.confirmation_ms_max) {
        let days = settings.confirmation_ms_max / crate::DAY_MS;
        let reason = FailureReason::new("ConfirmationTimeout", format!("The job was not confirmed within {days} days"));
        let change = Change { failure_reason: Some(reason), ..Change::default() };
        step(engine, job, Event::ConfirmationTimedOut, change).await?;
        if job.status.is_terminal() {
            engine.clean(&job.id).await;
        }
    }
    Ok(())
}
