//! What the operations on jobs ask of the caller's policies: actions, resources and condition keys. Source: S3 Batch spec 9.1, 9.2.

use longshore_core::job::Status;
use longshore_core::policy::Context;
use longshore_wire::{ApiError, Asked, Call};

use super::describe_job::suspended_cause;
use crate::Jobs;
use crate::error::JobError;
use crate::ledger::JobRow;
use crate::shape::{self, LAMBDA_INVOKE, NewJob};

type Asks = Result<Vec<Asked>, ApiError>;

/// Asks for an action on the job that the path names, as it stands. Of one that there is not, only its name is known.
macro_rules! of_job {
    ($action:literal) => {
        |jobs, call| Box::pin(async move { Ok(vec![crate::operations::asks::job(jobs, call, $action).await?]) })
    };
}
pub(super) use of_job;

/// For `ListJobs`, which names none.
pub(super) fn list() -> Asks {
    Ok(vec![Asked::new("s3:ListJobs", "*")])
}

/// The job does not exist yet; the role does the work, so the caller has to be allowed to hand it over. There is no
/// `iam:PassedToService`, as on AWS.
pub(super) fn create(jobs: &Jobs, call: &Call) -> Asks {
    let job = NewJob::parse(&call.request.body, &jobs.settings).map_err(|error| jobs.tell(&error))?;
    let tags = requested(&job.tags);
    let mut asks = vec![
        Asked::new("s3:CreateJob", "*")
            .with_context(tags.clone())
            .with("s3:RequestJobPriority", job.priority.to_string())
            .with("s3:RequestJobOperation", LAMBDA_INVOKE),
        Asked::new("iam:PassRole", job.role_arn),
    ];
    if !job.tags.is_empty() {
        asks.push(Asked::new("s3:PutJobTagging", jobs.job_arn("*")).with_context(tags));
    }
    Ok(asks)
}

pub(super) async fn job(jobs: &Jobs, call: &Call, action: &'static str) -> Result<Asked, ApiError> {
    let id = call.label("JobId");
    let mut asked = Asked::new(action, jobs.job_arn(id));
    let told = |error| jobs.tell(&error);
    if call.request.caller.is_root() {
        // Two reads of the database that would decide nothing.
        return Ok(asked);
    }
    if let Some(job) = jobs.ledger.job(id).await.map_err(JobError::from).map_err(told)? {
        let tags = jobs.ledger.tags(id).await.or_else(no_tags).map_err(told)?;
        asked = asked.with_context(existing(&job, &tags));
    }
    Ok(asked)
}

/// A job may be gone since it was looked at.
fn no_tags(error: JobError) -> Result<Vec<(String, String)>, JobError> {
    if matches!(error, JobError::NotFound) { Ok(Vec::new()) } else { Err(error) }
}

pub(super) async fn update_priority(jobs: &Jobs, call: &Call) -> Asks {
    let mut asked = job(jobs, call, "s3:UpdateJobPriority").await?;
    if let Some(priority) = call.request.query.get("priority") {
        asked = asked.with("s3:RequestJobPriority", priority);
    }
    Ok(vec![asked])
}

pub(super) async fn put_tagging(jobs: &Jobs, call: &Call) -> Asks {
    let tags = shape::parse_tagging(&call.request.body).map_err(|error| jobs.tell(&error))?;
    Ok(vec![job(jobs, call, "s3:PutJobTagging").await?.with_context(requested(&tags))])
}

fn existing(job: &JobRow, tags: &[(String, String)]) -> Context {
    let mut context = Context::new()
        .with("s3:ExistingJobPriority", job.priority.to_string())
        .with("s3:ExistingJobOperation", LAMBDA_INVOKE);
    if job.status == Status::Suspended {
        context.set("s3:JobSuspendedCause", suspended_cause(job));
    }
    context.with_tags("aws:ResourceTag/", pairs(tags))
}

fn requested(tags: &[(String, String)]) -> Context {
    Context::new().with_tags("aws:RequestTag/", pairs(tags))
}

fn pairs(tags: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}
