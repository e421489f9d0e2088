use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::of_job;
use crate::Jobs;
use crate::error::JobError;
use crate::shape;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "GetJobTagging",
    route: Route("GET", "/v20180820/jobs/{JobId}/tagging"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_GetJobTagging.html",
    asks: of_job!("s3:GetJobTagging"),
    handle: |jobs, call| Box::pin(async move { jobs.told(get_job_tagging(jobs, call).await) }),
};

async fn get_job_tagging(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let tags = jobs.ledger.tags(call.label("JobId")).await?;
    let mut xml = super::document("GetJobTaggingResult");
    shape::write_tags(&mut xml, &tags);
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}
