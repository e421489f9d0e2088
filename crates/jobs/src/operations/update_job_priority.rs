use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks;
use crate::Jobs;
use crate::error::JobError;
use crate::shape;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "UpdateJobPriority",
    route: Route("POST", "/v20180820/jobs/{JobId}/priority"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_UpdateJobPriority.html",
    asks: |jobs, call| Box::pin(asks::update_priority(jobs, call)),
    handle: |jobs, call| Box::pin(async move { jobs.told(update_job_priority(jobs, call).await) }),
};

/// Takes effect at the next scheduling pass; it does not change how fast a job runs.
async fn update_job_priority(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let id = call.label("JobId");
    let given = super::parameter(&call.request.query, "priority")?.unwrap_or("");
    let priority = shape::priority(given)?;
    jobs.ledger.set_priority(id, priority).await?;
    jobs.engine.wake();
    let mut xml = super::document("UpdateJobPriorityResult");
    xml.text("JobId", id);
    xml.text("Priority", &priority.to_string());
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}
