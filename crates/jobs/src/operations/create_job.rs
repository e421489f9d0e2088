use http::StatusCode;
use longshore_wire::{ApiError, Call, Operation, Response, Route};

use crate::Jobs;
use crate::error::JobError;
use crate::shape::NewJob;
use crate::table::Created;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "CreateJob",
    route: Route("POST", "/v20180820/jobs"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_CreateJob.html",
    handle: |jobs, call| Box::pin(create_job(jobs, call)),
};

/// Bytes of a CreateJob document, at most (rule X-9).
const BODY_MAX: usize = 1 << 20;

/// Checks and stores a job. It reads neither the manifest nor the function: problems there fail the job later.
async fn create_job(jobs: &Jobs, call: Call) -> Result<Response, ApiError> {
    let body = &call.request.body;
    if body.len() > BODY_MAX {
        return Err(JobError::Malformed("longer than 1 MiB".into()).told());
    }
    let job = NewJob::parse(body, &jobs.settings).map_err(|e| e.told())?;
    let new_id = uuid::Uuid::new_v4().to_string();
    let id = match jobs.table.create(new_id.clone(), job).await.map_err(|e| e.told())? {
        Created::New => new_id,
        Created::Before(id) => id,
    };
    jobs.engine.wake();
    let mut xml = super::document("CreateJobResult");
    xml.text("JobId", &id);
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}
