use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::of_job;
use crate::Jobs;
use crate::error::JobError;

/// Ours, not AWS's: writes the report of a job that failed because its bucket did not take it, from the results that are still here.
pub const OPERATION: Operation<Jobs> = Operation {
    name: "DeliverJobReport",
    route: Route("POST", "/_longshore/v1/jobs/{JobId}/report"),
    spec: "docs/decisions/0048-a-report-that-was-not-taken-is-delivered-later.md",
    asks: of_job!("s3:UpdateJobStatus"),
    handle: |jobs, call| Box::pin(async move { jobs.told(deliver_job_report(jobs, call).await) }),
};

/// JSON: where the report is now, and how many tasks had run. Answered once it is there, which may take as long as a report does; it
/// goes on if nobody waits.
async fn deliver_job_report(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let id = call.label("JobId");
    let delivered = jobs.engine.deliver_again(id).await?;
    let answer = json!({
        "jobId": id,
        "bucket": delivered.bucket,
        "key": delivered.manifest,
        "numberOfTasks": delivered.tasks,
    });
    Ok(Response::json(StatusCode::OK, &answer))
}
