//! One agent a job: takes it from where it stands to where it next waits, or to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_core::job::{Event, Status};
use longshore_core::record::Entry;
use longshore_core::run::{Command, Ended};
use longshore_core::task::Outcome;
use longshore_store::{Position, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keeper::Held;
use super::patience::Patience;
use super::pinned::Growing;
use super::preparer::{self, Prepared, Unprepared};
use super::recorder::{self, Log};
use super::reporter::{self, Unreported};
use super::{AgentHandle, Engine, Live, ORDERS_MAX, Order, Rest, run};
use crate::error::FailureReason;
use crate::ledger::{Change, Fence, JobRow, MoveError, Terms};

/// How long passing trouble (no space, a store that does not answer) is waited for before the next try.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest wait between two tries of an agent. A job goes on half a minute after its trouble is over at the latest
/// (promise D5).
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long a store may refuse a manifest for passing reasons before that fails the job; as long as it may refuse a
/// report.
const MANIFEST_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// A reading that went on for longer before it failed had made way: no single call to a store takes so long. What it
/// fails with is new trouble, and the waiting begins anew.
const READING_LONG: Duration = Duration::from_secs(5 * 60);

/// Starts the agent of a job that has none here and whose lease is ours.
///
/// `goes_on`: it was not over when this server started, which the log then says.
pub(super) fn spawn(engine: &Engine, job: JobRow, held: Held, goes_on: bool) {
    let mut agents = engine.agents();
    let (orders, mut receiver) = mpsc::channel(ORDERS_MAX);
    // Only a job that may have run before has counts in its log that are ahead of its row.
    let live = Live::new(matches!(job.status, Status::Preparing), goes_on);
    let gone = CancellationToken::new();
    live.set_counts((job.succeeded, job.failed));
    live.priority.store(job.priority, Ordering::Relaxed);
    let (fence, live_there) = (held.fence.clone(), Arc::clone(&live));
    agents.insert(job.id.clone(), AgentHandle { fence, orders, live: live_there, gone: gone.clone() });
    drop(agents);
    let own = engine.clone();
    engine.shared.tasks.spawn(async move {
        let engine = own;
        // Behind all else that this does.
        let _gone = gone.drop_guard();
        // However this ends, nobody waits for counts for ever.
        let _known = live.looked.clone().drop_guard();
        let mut wait = PAUSE;
        loop {
            let working = held.during(work(&engine, &held, &job.id, &mut receiver, &live));
            let error = match engine.shared.tasks.caught("the agent of a job", working).await {
                Some(Some(Err(error))) => error,
                // What it has come to stands in its row; but a stop may be before it has come to anything.
                Some(Some(Ok(()))) => {
                    if !engine.shared.stopping.is_cancelled() {
                        live.set_loaded();
                    }
                    break;
                }
                // Without a lease there is nothing to go on with: another server has it, or will.
                Some(None) => {
                    live.set_loaded();
                    break;
                }
                None => {
                    live.looked.cancel();
                    tracing::error!(job = job.id, "a job stands still, and begins anew");
                    tokio::select! {
                        biased;
                        () = engine.shared.stopping.cancelled() => {}
                        () = answering(&mut receiver, tokio::time::sleep(PAUSE_MAX)) => {}
                    }
                    break;
                }
            };
            // Whoever asks for the counts is answered: with those of the log, if it was read before this went wrong, or if there
            // is none.
            if let Ok(false) = engine.shared.world.ledger.has_results(&job.id).await {
                live.set_loaded();
            }
            live.looked.cancel();
            if engine.shared.stopping.is_cancelled() {
                break;
            }
            if let StoreError::Fenced = error {
                tracing::warn!(job = job.id, "a job goes on at another server");
                live.set_loaded();
                break;
            }
            if let StoreError::Broken(reason) = &error {
                // Thrown already, but for files that know no switch.
                engine.shared.world.fatal.throw(reason.clone());
                // The server is about to end. The agent stays registered, so that no other takes the job up.
                tracing::error!(job = job.id, %error, "a job stands still until the server is started again");
                return;
            }
            tracing::error!(job = job.id, %error, wait_ms = wait.as_millis(), "a job stands still, will retry");
            tokio::select! {
                biased;
                () = engine.shared.stopping.cancelled() => {}
                // Nothing runs here, so there is nothing to be stopped; the job's row says what comes next.
                Some(order) = receiver.recv() => take(order),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(PAUSE_MAX);
        }
        live.looked.cancel();
        // Before the agent is forgotten: the next one's lease is another.
        held.give_back(&*engine.shared.world.ledger).await;
        // A stop does not wait for room, or for a disk that answers: where the last counts could not be noted, they are
        // known here alone, and shown until the server has ended.
        if !engine.shared.stopping.is_cancelled() {
            engine.agents().remove(&job.id);
        }
        engine.wake();
    });
}

/// Answers an order where nothing is invoked: there is nothing to stop.
fn take(order: Order) {
    if let Order::Cancel(taken) = order {
        // Whoever asked may have hung up.
        let _ = taken.send(());
    }
}

/// Goes on with `work`, in which nothing is invoked, and answers orders meanwhile.
async fn answering<T>(orders: &mut mpsc::Receiver<Order>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            // An order is answered although the work is done: whoever gave it waits for that.
            biased;
            Some(order) = orders.recv() => take(order),
            done = &mut work => return done,
        }
    }
}

/// Repeats a write until there is space for it and it is known to have happened, or the server stops: then the error is
/// returned.
pub(super) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(
    engine: &Engine,
    mut write: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let mut wait = PAUSE;
    loop {
        match write().await {
            Err(error)
                if (error.is_full() || matches!(error, StoreError::Unknown(_)))
                    && !engine.shared.stopping.is_cancelled() =>
            {
                match error.is_full() {
                    true => tracing::warn!(%error, "a job waits for space on the disk"),
                    false => tracing::warn!(%error, "it is not known whether a job's state is kept, will retry"),
                }
                tokio::select! {
                    biased;
                    () = engine.shared.stopping.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
    }
}

/// Moves the job; `None` if it has moved elsewhere meanwhile, by a cancel, so that the move is not legal any more.
async fn step(engine: &Engine, fence: &Fence, event: Event, change: Change) -> Result<Option<Status>, StoreError> {
    let id = fence.job()?;
    persist(engine, || async {
        match engine.shared.world.ledger.transition(id, Terms::Leased(fence), event, change.clone()).await {
            Ok(status) => Ok(Some(status)),
            Err(MoveError::Store(error)) => Err(error),
            Err(MoveError::NotFound | MoveError::Illegal(_) | MoveError::Overtaken) => Ok(None),
        }
    })
    .await
}

async fn work(
    engine: &Engine,
    held: &Held,
    id: &str,
    orders: &mut mpsc::Receiver<Order>,
    live: &Arc<Live>,
) -> Result<(), StoreError> {
    // Read again now that the agent is known: a cancel before this moment is in the row, one after it in the orders.
    let Some(job) = engine.shared.world.ledger.job(id).await? else { return Ok(()) };
    match job.status {
        Status::Preparing => {
            live.log_goes_on(&job, (0, 0));
            prepare(engine, &held.fence, &job, orders).await
        }
        Status::Active => {
            let Some(status) = activate(engine, held, &job, orders, live, None).await? else { return Ok(()) };
            finish(engine, &held.fence, &job, status, orders).await
        }
        Status::Pausing => {
            // Nothing of it is in flight after a restart; its log may be ahead of its row.
            let Some(status) = activate(engine, held, &job, orders, live, Some(Command::Pause)).await? else {
                return Ok(());
            };
            finish(engine, &held.fence, &job, status, orders).await
        }
        Status::Cancelling | Status::Failing => {
            let mut status = job.status;
            if engine.shared.world.ledger.has_results(&job.id).await? {
                // What waited for a redrive when the server died fails with its last error before the report is made.
                let command = if job.status == Status::Cancelling { Command::Cancel } else { Command::Fail };
                let Some(now) = activate(engine, held, &job, orders, live, Some(command)).await? else {
                    return Ok(());
                };
                status = now;
            }
            live.set_loaded();
            live.log_goes_on(&job, (job.succeeded, job.failed));
            finish(engine, &held.fence, &job, status, orders).await
        }
        Status::Completing => {
            live.set_loaded();
            live.log_goes_on(&job, (job.succeeded, job.failed));
            finish(engine, &held.fence, &job, Status::Completing, orders).await
        }
        _ => Ok(()),
    }
}

/// Pins the manifest, again and again while trouble passes. With `growing` it can be read meanwhile.
pub(super) async fn pin(engine: &Engine, job: &JobRow, growing: Option<&Arc<Growing>>) -> Result<Prepared, Unprepared> {
    let mut wait = PAUSE;
    let mut refused_since = None;
    loop {
        let growth = match growing {
            Some(growing) => Some(growing.turn().await),
            None => None,
        };
        let began = Instant::now();
        match preparer::prepare(engine, job, growth).await {
            // Of a job that runs already an error of our disk must not call off what is in flight.
            Err(Unprepared::Store(error @ StoreError::Io(_))) if growing.is_some() => {
                tracing::error!(job = job.id, %error, "the manifest cannot be kept, will retry");
                wait = (wait * 2).min(PAUSE_MAX);
            }
            Err(Unprepared::NoSpace(error)) => {
                tracing::warn!(job = job.id, %error, "the manifest waits for space on the disk");
                refused_since = None;
                wait = (wait * 2).min(PAUSE_MAX);
            }
            Err(Unprepared::Unavailable(error)) => {
                if began.elapsed() >= READING_LONG {
                    (refused_since, wait) = (None, PAUSE);
                }
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= MANIFEST_WAIT_MAX {
                    let text = format!("Reading the manifest failed: {}", error.code);
                    return Err(Unprepared::Failed(FailureReason::new("ManifestUnavailable", text)));
                }
                tracing::warn!(job = job.id, %error, "the manifest cannot be read yet, will retry");
                wait = (wait * 2).min(PAUSE_MAX);
            }
            prepared => return prepared,
        }
        tokio::time::sleep(wait).await;
    }
}

async fn prepare(
    engine: &Engine,
    fence: &Fence,
    job: &JobRow,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<(), StoreError> {
    let growing = match job.request.beyond.early_start {
        true => Some(Growing::create(&engine.shared.tasks, &engine.shared.world.job_dir(&job.id)).await?),
        false => None,
    };
    let first_chunk = async {
        let Some(growing) = &growing else { return std::future::pending().await };
        // Fails only if nobody can make rows known any more, and somebody can: we.
        growing.known().wait_for(|rows| *rows > 0).await.map_or(0, |rows| *rows)
    };
    let prepared = tokio::select! {
        biased;
        Some(order) = orders.recv() => {
            // The job is Cancelling: preparing is given up, the next agent finishes it.
            take(order);
            idle(growing.as_ref()).await;
            return Ok(());
        }
        // Preparing begins again at the next start.
        () = engine.shared.stopping.cancelled() => return Ok(()),
        prepared = pin(engine, job, growing.as_ref()) => prepared,
        rows = first_chunk => {
            // The rest is read by the run, which begins anew: so a pause and a crash have one way to go on, the same.
            idle(growing.as_ref()).await;
            step(engine, fence, Event::RowsChecked, Change { rows_total: Some(rows), ..Change::default() }).await?;
            return Ok(());
        }
    };
    match prepared {
        Ok(prepared) => {
            let (rows_total, generated_manifest) = (Some(prepared.rows), prepared.generated);
            let read = Event::ManifestRead { confirmation_required: job.request.confirmation_required };
            let change = Change { rows_total, generated_manifest, lineage: prepared.lineage, ..Change::default() };
            step(engine, fence, read, change).await?;
            Ok(())
        }
        Err(Unprepared::Failed(reason)) => {
            preparer::log_failed(&job.id, &reason);
            engine.clean(&job.id).await;
            fail(engine, fence, reason).await
        }
        // No waiting mends it, and it would hold a place among those that prepare.
        Err(Unprepared::Store(StoreError::Damaged(what))) => {
            tracing::error!(job = job.id, what, "a job fails because its manifest cannot be kept");
            engine.clean(&job.id).await;
            fail(engine, fence, state_damaged(what)).await
        }
        Err(Unprepared::Store(error) | Unprepared::NoSpace(error)) => Err(error),
        Err(Unprepared::Unavailable(error)) => Err(StoreError::Io(std::io::Error::other(error))),
        Err(Unprepared::NotTaken) => Err(StoreError::Damaged("a manifest's check gave no verdict".into())),
    }
}

/// Waits until nobody writes to the manifest any more.
async fn idle(growing: Option<&Arc<Growing>>) {
    if let Some(growing) = growing {
        growing.turn().await;
    }
}

/// The code with which a job fails whose state on our disk does not read as it was written.
const STATE_DAMAGED: &str = "StateDamaged";

/// What is damaged, and what can be done about it.
fn state_damaged(what: String) -> FailureReason {
    FailureReason::new(STATE_DAMAGED, what).detailed(crate::error::AFTER_DAMAGE)
}

/// A job that fails where there is nothing (more) to report: Failing, then Failed.
async fn fail(engine: &Engine, fence: &Fence, reason: FailureReason) -> Result<(), StoreError> {
    let change = Change { failure_reason: Some(reason), ..Change::default() };
    if step(engine, fence, Event::Failed, change).await? == Some(Status::Failing) {
        step(engine, fence, Event::ReportWritten, Change::default()).await?;
    }
    Ok(())
}

/// [`run`], on the thread of what it calls: an answer and the call that follows from it are then one wake-up. Preparing and
/// reporting stay where they hold nobody up.
async fn run_beside_its_function(
    engine: &Engine,
    held: &Held,
    job: &JobRow,
    orders: &mut mpsc::Receiver<Order>,
    live: &Arc<Live>,
    command: Option<Command>,
) -> Result<Rest, StoreError> {
    let Some(thread) = engine.shared.world.doors.thread_of(&job.request.operation.function_arn) else {
        return run(engine, held, job, orders, live, command).await;
    };
    let (there, held, job, live) = (engine.clone(), held.clone(), job.clone(), Arc::clone(live));
    // Nobody looks at what stands in their place: this waits until they are back.
    let mut lent = std::mem::replace(orders, mpsc::channel(1).1);
    let ran = engine.shared.tasks.spawn_on_while_wanted(&thread, async move {
        // By the clock of that thread, too: it may have stood still on its own.
        let rest = held.during(run(&there, &held, &job, &mut lent, &live, command)).await;
        (rest, lent)
    });
    // What cuts it off cuts this off first. The orders are lost with it: the job's next agent has others.
    let (rest, back) = ran.await.ok().flatten().expect("a run that does not end has panicked");
    *orders = back;
    match rest {
        Some(rest) => rest,
        // The lease is lost, and with it this, the next time that it is looked at.
        None => std::future::pending().await,
    }
}

/// Runs the job until it rests, and moves it on. The status it then has to be finished from; `None` if it only waits.
async fn activate(
    engine: &Engine,
    held: &Held,
    job: &JobRow,
    orders: &mut mpsc::Receiver<Order>,
    live: &Arc<Live>,
    command: Option<Command>,
) -> Result<Option<Status>, StoreError> {
    let rest = match run_beside_its_function(engine, held, job, orders, live, command).await {
        Ok(rest) => rest,
        // Another job's results are as good as ever; this one's are not to be trusted, and it says so.
        Err(StoreError::Damaged(what)) => {
            tracing::error!(job = job.id, what, "a job fails because its state is damaged");
            if job.status == Status::Failing {
                return Ok(Some(Status::Failing));
            }
            // What was shown of it stays shown, and what can be read of its log is reported.
            let (counts, failure_reason) = (Some(live.counts()), Some(state_damaged(what)));
            return step(engine, &held.fence, Event::Failed, Change { counts, failure_reason, ..Change::default() })
                .await;
        }
        Err(error) => return Err(error),
    };
    let counts = Some(rest.counts);
    let (event, failure_reason) = match rest.ended {
        _ if matches!(command, Some(Command::Cancel | Command::Fail)) => return Ok(Some(job.status)),
        Ended::Finished => (Event::TasksFinished, None),
        Ended::Paused if engine.shared.stopping.is_cancelled() => return Ok(None),
        Ended::Paused => (Event::Drained, None),
        Ended::Sampled => {
            tracing::info!(job = job.id, succeeded = rest.counts.0, failed = rest.counts.1, "a sample has run");
            (Event::SampleFinished, None)
        }
        Ended::Cancelled => return Ok(Some(Status::Cancelling)),
        Ended::Failed => match rest.reason {
            Some(reason) => (Event::TasksFailed, Some(reason)),
            // It passed its threshold, and is Failing since then, or a cancel was faster.
            None => {
                let job = engine.shared.world.ledger.job(&job.id).await?;
                return Ok(job.map(|job| job.status).filter(|status| *status == Status::Failing));
            }
        },
    };
    let status = step(engine, &held.fence, event, Change { counts, failure_reason, ..Change::default() }).await?;
    Ok(match status {
        Some(Status::Paused | Status::Suspended) => None,
        Some(status) => Some(status),
        // A cancel was accepted before the last result was: it wins (spec 2.4, race rules). The next agent winds the
        // job down, and with it what still waits for a redrive.
        None => None,
    })
}

/// Too many tasks have failed: notes that, before any further result is (see [`longshore_core::run::Run::threshold_passed`]).
/// Where a cancel was accepted before, that one counts. `at`: what had its final result by then.
pub(super) async fn pass_threshold(
    engine: &Engine,
    fence: &Fence,
    counts: (u64, u64),
    at: (u64, u64),
) -> Result<(), StoreError> {
    let text = format!("{} of the {} tasks that ran have failed", at.1, at.0 + at.1);
    let failure_reason = Some(FailureReason::new("TaskFailureThresholdExceeded", text));
    step(engine, fence, Event::TasksFailed, Change { counts: Some(counts), failure_reason, ..Change::default() })
        .await?;
    Ok(())
}

/// Writes the report and ends the job. Safe to repeat from any point: only the last step counts.
async fn finish(
    engine: &Engine,
    fence: &Fence,
    job: &JobRow,
    status: Status,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<(), StoreError> {
    if !matches!(status, Status::Completing | Status::Cancelling | Status::Failing) {
        return Ok(());
    }
    // How many rows there are may have become known since the agent began.
    let Some(job) = &engine.shared.world.ledger.job(&job.id).await? else { return Ok(()) };
    let reason = match answering(orders, reporter::report(engine, fence, job, status, Patience::Agent)).await {
        Ok(_) => None,
        Err(Unreported::Failed(reason)) => Some(reason),
        // It is for that damage that it fails, and said so: its report is what is missing for it.
        Err(Unreported::Store(StoreError::Damaged(what)))
            if status == Status::Failing && job.failure_reasons.iter().any(|reason| reason.code == STATE_DAMAGED) =>
        {
            tracing::debug!(job = job.id, what, "no report can be made of damaged results");
            None
        }
        Err(Unreported::Store(StoreError::Damaged(what))) => {
            tracing::error!(job = job.id, what, "a job fails because its results are damaged");
            Some(state_damaged(what))
        }
        Err(Unreported::Store(error)) => return Err(error),
    };
    // Before the job is over: afterwards nobody would come back for it.
    engine.clean(&job.id).await;
    match reason {
        Some(reason) => fail(engine, fence, reason).await?,
        None => drop(step(engine, fence, Event::ReportWritten, Change::default()).await?),
    }
    if job.succeeded == 0 && job.failed > 0 {
        // For a line in the log neither the job's lease nor its agent waits.
        let (there, id) = (engine.clone(), job.id.clone());
        engine.shared.tasks.spawn(async move { warn_of_one_reason(&there, &id).await });
    }
    Ok(())
}

/// Says in the log if every task of a job that is over failed for the same reason: then it lies with no object, and a job that is
/// Complete says nothing of it.
async fn warn_of_one_reason(engine: &Engine, id: &str) {
    // One at a time, and not among the passes that those wait for who watch a job.
    let _looking = engine.shared.looking_back.lock().await;
    let (log, stopping) = (engine.shared.world.log(id), engine.shared.stopping.clone());
    let looked = engine.shared.tasks.blocking(move || only_reason(&log, || stopping.is_cancelled()));
    // Whoever asks for its failures is told what is wrong with them.
    let Ok(Some((tasks, outcome))) = looked.await else { return };
    let (http_status, code) = (outcome.http_status, &*outcome.error_code);
    // What a function says of itself is a payload, and those are in no log.
    let reason = if http_status == 200 { "the function says it, and the report has it" } else { &*outcome.message };
    tracing::warn!(job = id, tasks, http_status, code, reason, "every task of a job failed for one reason");
}

/// How many tasks failed, and how, if all of them did and in the same way. No outcome behind the first that differs is decoded, nor
/// any once `given_up`. Blocks.
fn only_reason(log: &Log, given_up: impl Fn() -> bool) -> Result<Option<(u64, Outcome)>, StoreError> {
    let (mut only, mut differs) = (None::<(u64, Outcome)>, false);
    recorder::settled_since(log, Position::default(), |logged| {
        differs |= logged.succeeded || given_up();
        if differs {
            return Ok(());
        }
        if let Entry::Settled { outcome, .. } = logged.to_entry()? {
            let (tasks, first) = only.get_or_insert_with(|| (0, outcome.clone()));
            *tasks += 1;
            differs = *first != outcome;
        }
        Ok(())
    })?;
    // That a function turns one object away says nothing of others.
    Ok(only.filter(|(tasks, outcome)| !differs && (*tasks > 1 || outcome.http_status != 200)))
}

#[cfg(test)]
mod tests {
    use longshore_core::task::{Task, VersionId};

    use super::*;
    use crate::ledger::Duty;

    #[tokio::test]
    async fn a_reason_is_the_only_one_where_every_task_failed_for_it() {
        let denied = Outcome::failed(403, "AccessDeniedException", "The role may not.");
        let other = Outcome::failed(200, "PermanentFailure", "no");
        for (outcomes, wanted) in [
            (vec![&denied, &denied], Some((2, denied.clone()))),
            (vec![&denied], Some((1, denied.clone()))),
            (vec![&other, &other], Some((2, other.clone()))),
            (vec![&other], None),
            (vec![&denied, &other], None),
            (vec![&denied, &Outcome::succeeded("")], None),
            (vec![], None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let log = crate::engine::tests::log_in(dir.path(), "j").await;
            let fence = log.ledger.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
            let (results, _) = log.ledger.open_results(&fence).await.unwrap();
            let settled = |(row, outcome): (usize, &Outcome)| {
                let row = row as u64;
                let task = Task { row, number: row, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn };
                Entry::Settled { task: Arc::new(task), attempts: 1, outcome: outcome.clone() }
            };
            if !outcomes.is_empty() {
                results.append(1, Arc::new(outcomes.into_iter().enumerate().map(settled).collect())).await.unwrap();
            }
            assert_eq!(only_reason(&log, || false).unwrap(), wanted);
            assert_eq!(only_reason(&log, || true).unwrap(), None, "a server that stops says nothing");
        }
    }
}
