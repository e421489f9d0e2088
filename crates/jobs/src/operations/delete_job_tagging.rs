use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::of_job;
use crate::Jobs;
use crate::error::JobError;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "DeleteJobTagging",
    route: Route("DELETE", "/v20180820/jobs/{JobId}/tagging"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_DeleteJobTagging.html",
    asks: of_job!("s3:DeleteJobTagging"),
    handle: |jobs, call| Box::pin(async move { jobs.told(delete_job_tagging(jobs, call).await) }),
};

/// Succeeds when there are no tags as well (rule T-4).
async fn delete_job_tagging(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    jobs.ledger.set_tags(call.label("JobId"), Vec::new()).await?;
    Ok(Response::empty(StatusCode::OK))
}
