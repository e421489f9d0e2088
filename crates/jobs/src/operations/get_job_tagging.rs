use http::StatusCode;
use longshore_wire::{ApiError, Call, Operation, Response, Route};

use crate::Jobs;
use crate::shape;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "GetJobTagging",
    route: Route("GET", "/v20180820/jobs/{JobId}/tagging"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_GetJobTagging.html",
    handle: |jobs, call| Box::pin(get_job_tagging(jobs, call)),
};

async fn get_job_tagging(jobs: &Jobs, call: Call) -> Result<Response, ApiError> {
    let tags = jobs.table.tags(call.label("JobId")).await.map_err(|e| e.told())?;
    let mut xml = super::document("GetJobTaggingResult");
    shape::write_tags(&mut xml, &tags);
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}
