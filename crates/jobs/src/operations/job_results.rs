use http::StatusCode;
use longshore_core::task::{Task, VersionId};
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::{Value, json};

use super::asks::of_job;
use crate::Jobs;
use crate::error::JobError;

/// Ours, not AWS's: what a job's results amount to while it waits or runs, before there is a report.
pub const OPERATION: Operation<Jobs> = Operation {
    name: "JobResults",
    route: Route("GET", "/_longshore/v1/jobs/{JobId}/results"),
    spec: "docs/decisions/0013-beyond-aws-by-tags-on-the-job.md",
    asks: of_job!("s3:DescribeJob"),
    handle: |jobs, call| Box::pin(async move { jobs.told(job_results(jobs, call).await) }),
};

/// JSON: how many durable results there are, and the failures among them in groups of the same failure.
async fn job_results(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let id = call.label("JobId");
    let job = jobs.ledger.job(id).await?.ok_or(JobError::NotFound)?;
    let failures = jobs.engine.failures(id).await?;
    let (succeeded, failed) = (failures.succeeded, failures.failed);
    let (groups, others) = failures.groups();
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| {
            json!({
                "numberOfTasks": group.tasks,
                "httpStatusCode": group.outcome.http_status,
                "errorCode": group.outcome.error_code,
                "resultMessage": group.outcome.message,
                "example": example(&group.example),
            })
        })
        .collect();
    let answer = json!({
        "jobId": id,
        "status": job.status.name(),
        "totalNumberOfTasks": job.rows_total,
        "numberOfTasksSucceeded": succeeded,
        "numberOfTasksFailed": failed,
        "failureGroups": groups,
        "numberOfTasksInNoGroup": others,
    });
    Ok(Response::json(StatusCode::OK, &answer))
}

fn example(task: &Task) -> Value {
    let version = match &task.version {
        VersionId::Given(version) => Some(version),
        VersionId::NoColumn | VersionId::Missing => None,
    };
    json!({"bucket": *task.bucket, "key": task.key, "versionId": version})
}
