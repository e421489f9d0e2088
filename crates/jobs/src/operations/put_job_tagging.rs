use http::StatusCode;
use longshore_wire::{ApiError, Call, Operation, Response, Route};

use crate::Jobs;
use longshore_wire::xml::Element;

use crate::error::JobError;
use crate::shape;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "PutJobTagging",
    route: Route("PUT", "/v20180820/jobs/{JobId}/tagging"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_PutJobTagging.html",
    handle: |jobs, call| Box::pin(put_job_tagging(jobs, call)),
};

/// Replaces the whole set; an empty one deletes all (rule T-1).
async fn put_job_tagging(jobs: &Jobs, call: Call) -> Result<Response, ApiError> {
    let root = Element::parse(&call.request.body).map_err(|e| JobError::Malformed(e.to_string()).told())?;
    if root.name != "PutJobTaggingRequest" {
        return Err(JobError::Malformed(format!("the root element is {}", root.name)).told());
    }
    let tags = root.child("Tags").map_or(Ok(Vec::new()), shape::parse_tags).map_err(|e| e.told())?;
    jobs.table.set_tags(call.label("JobId"), tags).await.map_err(|e| e.told())?;
    Ok(Response::empty(StatusCode::OK))
}
