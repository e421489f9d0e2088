use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks;
use crate::Jobs;
use crate::error::JobError;
use crate::ledger::Created;
use crate::shape::NewJob;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "CreateJob",
    route: Route("POST", "/v20180820/jobs"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_CreateJob.html",
    asks: |jobs, call| Box::pin(async move { asks::create(jobs, call) }),
    handle: |jobs, call| Box::pin(async move { jobs.told(create_job(jobs, call).await) }),
};

/// Checks and stores a job. It reads neither the manifest nor the function: problems there fail the job later.
async fn create_job(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let job = NewJob::parse(&call.request.body, &jobs.settings)?;
    let function = job.operation.function_arn.clone();
    let new_id = jobs.settings.new_id().to_string();
    let id = match jobs.ledger.create(new_id.clone(), job).await? {
        Created::New => {
            tracing::info!(job = new_id, function, request_id = %call.request.request_id, "job created");
            new_id
        }
        Created::Before(id) => id,
    };
    jobs.engine.wake();
    let mut xml = super::document("CreateJobResult");
    xml.text("JobId", &id);
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}
