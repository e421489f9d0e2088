use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks;
use crate::Jobs;
use crate::error::JobError;
use crate::shape;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "PutJobTagging",
    route: Route("PUT", "/v20180820/jobs/{JobId}/tagging"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_PutJobTagging.html",
    asks: |jobs, call| Box::pin(asks::put_tagging(jobs, call)),
    handle: |jobs, call| Box::pin(async move { jobs.told(put_job_tagging(jobs, call).await) }),
};

/// Replaces the whole set; an empty one deletes all (rule T-1).
async fn put_job_tagging(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let tags = shape::parse_tagging(&call.request.body)?;
    jobs.ledger.set_tags(call.label("JobId"), tags).await?;
    Ok(Response::empty(StatusCode::OK))
}
