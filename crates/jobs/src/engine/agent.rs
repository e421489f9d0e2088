//! One agent a job: takes it from where it stands to where it next waits, or to its end.

use std::time::Duration;

use longshore_core::job::{Event, Status};
use longshore_core::run::{Command, Ended};
use longshore_store::StoreError;
use tokio::sync::mpsc;

use super::preparer::{self, Unprepared};
use super::reporter::{self, Unreported};
use super::{AgentHandle, Engine, Live, ORDERS_MAX, Order, run};
use crate::error::FailureReason;
use crate::table::{Change, JobRow, MoveError};

/// How long passing trouble (no space, a store that does not answer) is waited for before the next try.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts the agent of a job, unless it has one.
pub(super) fn spawn(engine: &Engine, job: JobRow) {
    let mut agents = engine.agents();
    if agents.contains_key(&job.id) {
        return;
    }
    let (orders, receiver) = mpsc::channel(ORDERS_MAX);
    // Only a job that may have run before has counts in its log that are ahead of its row.
    let live = Live::new(matches!(job.status, Status::Preparing));
    live.set_counts((job.succeeded, job.failed));
    agents.insert(job.id.clone(), AgentHandle { orders, live: std::sync::Arc::clone(&live) });
    drop(agents);
    let engine = engine.clone();
    engine.shared.tasks.clone().spawn(async move {
        let id = job.id.clone();
        if let Err(error) = work(&engine, job, receiver, &live).await {
            tracing::error!(job = id, %error, "a job stands still: its state cannot be used");
            // Nothing is taken up again by itself: the agent stays registered, so that the failure is not repeated
            // every few seconds. The server's restart tries again.
            live.set_loaded();
            return;
        }
        live.set_loaded();
        engine.agents().remove(&id);
        engine.wake();
    });
}

/// Repeats a write until there is space for it.
pub(super) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(
    mut write: impl FnMut() -> F,
) -> Result<T, StoreError> {
    loop {
        match write().await {
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "a job waits for space on the disk");
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Moves the job; `None` if it has moved elsewhere meanwhile, by a cancel, so that the move is not legal any more.
async fn step(engine: &Engine, id: &str, event: Event, change: Change) -> Result<Option<Status>, StoreError> {
    persist(|| async {
        match engine.shared.world.table.transition(id, event, change.clone()).await {
            Ok(status) => Ok(Some(status)),
            Err(MoveError::Store(error)) => Err(error),
            Err(MoveError::NotFound | MoveError::Illegal(_)) => Ok(None),
        }
    })
    .await
}

async fn work(engine: &Engine, job: JobRow, mut orders: mpsc::Receiver<Order>, live: &Live) -> Result<(), StoreError> {
    // Read again now that the agent is known: a cancel before this moment is in the row, one after it in the orders.
    let Some(job) = engine.shared.world.table.get(&job.id).await? else { return Ok(()) };
    match job.status {
        Status::Preparing => prepare(engine, &job, orders).await,
        Status::Active => {
            let Some(status) = activate(engine, &job, &mut orders, live, None).await? else { return Ok(()) };
            finish(engine, &job, status).await
        }
        Status::Cancelling | Status::Failing => {
            let pinned = engine.shared.world.job_dir(&job.id).join("manifest.idx");
            if job.rows_total > 0 && pinned.exists() {
                // What waited for a redrive when the server died fails with its last error before the report is made.
                let command = if job.status == Status::Cancelling { Command::Cancel } else { Command::Fail };
                activate(engine, &job, &mut orders, live, Some(command)).await?;
            }
            finish(engine, &job, job.status).await
        }
        Status::Completing => {
            live.set_loaded();
            finish(engine, &job, Status::Completing).await
        }
        _ => Ok(()),
    }
}

async fn prepare(engine: &Engine, job: &JobRow, mut orders: mpsc::Receiver<Order>) -> Result<(), StoreError> {
    let world = &engine.shared.world;
    let Some(format) = job.request.row_format() else {
        return fail(engine, job, FailureReason::new("InvalidManifestContent", "Invalid Manifest Content")).await;
    };
    loop {
        let prepared = tokio::select! {
            prepared = preparer::prepare(world, &job.id, &job.request.manifest, format.clone()) => prepared,
            order = orders.recv() => {
                // The job is Cancelling: preparing is given up, the next agent finishes it.
                if let Some(Order::Cancel(taken)) = order {
                    let _ = taken.send(());
                }
                return Ok(());
            }
            // Preparing begins again at the next start.
            () = engine.shared.stopping.cancelled() => return Ok(()),
        };
        match prepared {
            Ok(rows) => {
                let read = Event::ManifestRead { confirmation_required: job.request.confirmation_required };
                step(engine, &job.id, read, Change { rows_total: Some(rows), ..Change::default() }).await?;
                return Ok(());
            }
            Err(Unprepared::Failed(reason)) => return fail(engine, job, reason).await,
            Err(Unprepared::Store(error)) => return Err(error),
            Err(Unprepared::TryAgain(why)) => {
                tracing::warn!(job = job.id, why, "the manifest cannot be read yet, will retry");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A job that fails before it ran: Failing, then Failed; there is nothing to report.
async fn fail(engine: &Engine, job: &JobRow, reason: FailureReason) -> Result<(), StoreError> {
    let change = Change { failure_reason: Some(reason), ..Change::default() };
    if step(engine, &job.id, Event::Failed, change).await? == Some(Status::Failing) {
        step(engine, &job.id, Event::ReportWritten, Change::default()).await?;
    }
    Ok(())
}

/// Runs the job until it rests, and moves it on. The status it then has to be finished from; `None` if it only waits.
async fn activate(
    engine: &Engine,
    job: &JobRow,
    orders: &mut mpsc::Receiver<Order>,
    live: &Live,
    command: Option<Command>,
) -> Result<Option<Status>, StoreError> {
    let Some(format) = job.request.row_format() else { return Ok(Some(job.status)) };
    let rest = match run(engine, job, format, orders, live, command).await {
        Ok(rest) => rest,
        // Another job's results are as good as ever; this one's are not to be trusted, and it says so.
        Err(StoreError::Damaged(what)) => {
            tracing::error!(job = job.id, what, "a job fails because its state is damaged");
            let change = Change { failure_reason: Some(FailureReason::new("StateDamaged", what)), ..Change::default() };
            if step(engine, &job.id, Event::Failed, change).await? == Some(Status::Failing) {
                step(engine, &job.id, Event::ReportWritten, Change::default()).await?;
            }
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let counts = Some(rest.counts);
    let (event, failure_reason) = match rest.ended {
        _ if command.is_some() => return Ok(Some(job.status)),
        Ended::Finished => (Event::TasksFinished, None),
        Ended::Paused if engine.shared.stopping.is_cancelled() => return Ok(None),
        Ended::Paused => (Event::Drained, None),
        Ended::Cancelled => return Ok(Some(Status::Cancelling)),
        Ended::Failed => {
            let threshold = || {
                let (succeeded, failed) = rest.counts;
                let text = format!("{failed} of the {} tasks that ran have failed", succeeded + failed);
                FailureReason::new("TaskFailureThresholdExceeded", text)
            };
            (Event::Failed, Some(rest.reason.unwrap_or_else(threshold)))
        }
    };
    let status = step(engine, &job.id, event, Change { counts, failure_reason, ..Change::default() }).await?;
    Ok(match status {
        Some(Status::Paused) => None,
        Some(status) => Some(status),
        // A cancel was accepted before the last result was: it wins (spec 2.4, race rules).
        None => Some(Status::Cancelling),
    })
}

/// Writes the report and ends the job.
async fn finish(engine: &Engine, job: &JobRow, status: Status) -> Result<(), StoreError> {
    if !matches!(status, Status::Completing | Status::Cancelling | Status::Failing) {
        return Ok(());
    }
    match reporter::report(&engine.shared.world, job).await {
        Ok(()) => {
            step(engine, &job.id, Event::ReportWritten, Change::default()).await?;
        }
        Err(Unreported::Failed(reason)) => fail(engine, job, reason).await?,
        Err(Unreported::Store(error)) => return Err(error),
    }
    // The log stays with the job; the pinned manifest has served. Failing to remove it costs space alone.
    let dir = engine.shared.world.job_dir(&job.id);
    for name in ["manifest.csv", "manifest.idx"] {
        if let Err(error) = tokio::fs::remove_file(dir.join(name)).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(job = job.id, %error, "a pinned manifest stays behind");
        }
    }
    Ok(())
}
