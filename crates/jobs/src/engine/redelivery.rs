//! Delivers the report of a job that is over, and whose report its bucket did not take when it ended (decision 0048).
//!
//! The results are kept as long as the job is, so that nothing is run again: once the role or the bucket is mended, the same report is
//! written to the same place, with the job's role as it is then.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use longshore_core::job::Event;
use longshore_core::report::Names;
use longshore_store::StoreError;
use longshore_wire::arn;

use super::Engine;
use super::patience::Patience;
use super::reporter::{self, REPORT_DELIVERY_FAILED, Unreported};
use crate::error::JobError;
use crate::ledger::{Change, Duty, JobRow, MoveError, Terms};
use crate::operations::iso;

/// Reports that are delivered again at once: each takes a pass over a result log, and as much room on our disk as it has bytes.
const REDELIVERED_MAX: usize = 4;

/// As many of them are of jobs of one role: a role whose bucket answers slowly leaves the others their places.
const REDELIVERED_OF_ROLE_MAX: usize = REDELIVERED_MAX / 2;

/// A report that is there now.
pub struct Redelivered {
    pub bucket: String,
    /// The key of its `manifest.json`.
    pub manifest: String,
    pub tasks: u64,
}

/// The place of one job among those whose reports are delivered again.
struct Turn {
    engine: Engine,
    id: String,
}

impl Turn {
    fn take(engine: &Engine, id: &str, role_arn: &str) -> Result<Self, JobError> {
        let mut turns = engine.redelivered();
        if turns.contains_key(id) {
            return Err(JobError::Undelivered("another request is delivering it".into()));
        }
        let of_role = turns.values().filter(|other| *other == role_arn).count();
        if turns.len() >= REDELIVERED_MAX || of_role >= REDELIVERED_OF_ROLE_MAX {
            return Err(JobError::TooManyRequests);
        }
        turns.insert(id.to_owned(), role_arn.to_owned());
        Ok(Self { engine: engine.clone(), id: id.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.engine.redelivered().remove(&self.id);
    }
}

impl Engine {
    pub(super) fn redelivered(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.shared.redelivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the report again of a job that failed because it could not be, and notes in the job's row that it is there. It goes on
    /// if nobody waits for the answer. Safe to repeat: the report is the same one.
    pub async fn deliver_again(&self, id: &str) -> Result<Redelivered, JobError> {
        let job = self.shared.world.ledger.job(id).await?.ok_or(JobError::NotFound)?;
        let turn = Turn::take(self, id, &job.request.role_arn)?;
        let engine = self.clone();
        let delivering = self.shared.tasks.spawn(async move {
            let work = deliver(&engine, &turn.id);
            engine.shared.tasks.caught("the delivery of a report", work).await
        });
        // Cut off, or a panic, which is in the log.
        delivering.await.ok().flatten().flatten().unwrap_or(Err(JobError::Panicked))
    }
}

/// Where the report goes, if the job is one whose report is missing.
fn due(job: &JobRow) -> Result<(String, String), JobError> {
    let not = |why: String| Err(JobError::Invalid(format!("job {} {why}", job.id)));
    let wanted = &job.request.report;
    let bucket = wanted.bucket.as_deref().and_then(arn::bucket_of);
    let (true, Some(bucket)) = (wanted.enabled, bucket) else {
        return not("was created without a completion report".into());
    };
    if !job.status.is_terminal() {
        return not(format!("is {}, and its report is not due yet", job.status.name()));
    }
    if !job.failure_reasons.iter().any(|reason| reason.code == REPORT_DELIVERY_FAILED) {
        return not(format!("is {}, and not for want of its report ({REPORT_DELIVERY_FAILED})", job.status.name()));
    }
    Ok((bucket.to_owned(), Names::new(wanted.prefix.as_deref(), &job.id).manifest()))
}

async fn deliver(engine: &Engine, id: &str) -> Result<Redelivered, JobError> {
    let world = &engine.shared.world;
    // Whoever removes files of the job now is done before this looks at it, and nobody begins to during its turn.
    drop(engine.shared.removing.lock().await);
    // Who ends a job shows that it has before it gives the lease back.
    let agent = engine.agents().get(id).map(|agent| agent.gone.clone());
    let job = world.ledger.job(id).await?.ok_or(JobError::NotFound)?;
    let (bucket, manifest) = due(&job)?;
    if let Some(gone) = agent {
        gone.cancelled().await;
    }
    let Some(held) = engine.shared.keeper.take(&*world.ledger, &Duty::Job(id.to_owned())).await? else {
        return Err(JobError::Undelivered("another server is at work on the job".into()));
    };
    let delivering = async {
        let reported = reporter::report(engine, &held.fence, &job, job.status, Patience::Request).await;
        engine.clean(id).await;
        let tasks = match reported {
            Ok(tasks) => tasks,
            Err(Unreported::Failed(reason)) => {
                return Err(JobError::Undelivered(reason.detail.unwrap_or(reason.reason)));
            }
            Err(Unreported::Store(StoreError::Damaged(what))) => {
                tracing::error!(job = id, what, "a report cannot be delivered again");
                return Err(JobError::ResultsDamaged(what));
            }
            Err(Unreported::Store(error)) => return Err(error.into()),
        };
        let note = format!("The completion report was delivered on {}", iso((world.settings.wall_clock)()));
        let change = Change { status_update_reason: Some(note), ..Change::default() };
        match world.ledger.transition(id, Terms::Leased(&held.fence), Event::ReportDelivered, change).await {
            Ok(_) => Ok(tasks),
            Err(MoveError::NotFound) => Err(JobError::NotFound),
            Err(MoveError::Store(error)) => Err(error.into()),
            Err(error @ (MoveError::Illegal(_) | MoveError::Overtaken)) => {
                Err(StoreError::Damaged(format!("a job that was over has moved: {error}")).into())
            }
        }
    };
    let delivered = held.during(delivering).await;
    held.give_back(&*world.ledger).await;
    let lost = || Err(JobError::Undelivered("another server is at work on the job".into()));
    let tasks = delivered.unwrap_or_else(lost)?;
    tracing::info!(job = id, bucket, tasks, "a report was delivered after its job had ended");
    Ok(Redelivered { bucket, manifest, tasks })
}
