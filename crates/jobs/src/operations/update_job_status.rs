use http::StatusCode;
use longshore_wire::{ApiError, Call, Operation, Response, Route};

use crate::Jobs;
use longshore_core::job::Event;

use crate::error::JobError;
use crate::table::{Change, MoveError};

pub const OPERATION: Operation<Jobs> = Operation {
    name: "UpdateJobStatus",
    route: Route("POST", "/v20180820/jobs/{JobId}/status"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_UpdateJobStatus.html",
    handle: |jobs, call| Box::pin(update_job_status(jobs, call)),
};

/// Confirms or cancels. The answer's status is the one right after the request. Once a cancel is answered no further
/// invocation of the job starts (promise X8).
async fn update_job_status(jobs: &Jobs, call: Call) -> Result<Response, ApiError> {
    let id = call.label("JobId");
    let query = &call.request.query;
    let requested = query.get("requestedJobStatus").unwrap_or("");
    let event = match requested {
        "Ready" => Event::Confirmed,
        "Cancelled" => Event::CancelRequested,
        _ => return Err(JobError::Invalid("requestedJobStatus must be Ready or Cancelled".into()).told()),
    };
    let reason = query.get("statusUpdateReason").map(str::to_owned);
    if reason.as_ref().is_some_and(|r| r.is_empty() || r.chars().count() > 256) {
        return Err(JobError::Invalid("statusUpdateReason must have 1 to 256 characters".into()).told());
    }
    let change = Change { status_update_reason: reason.clone(), ..Change::default() };
    let status = match jobs.table.transition(id, event, change).await {
        Ok(status) => status,
        Err(MoveError::NotFound) => return Err(JobError::NotFound.told()),
        Err(MoveError::Illegal(illegal)) => {
            return Err(JobError::StatusForbidden(illegal.from, requested.to_owned()).told());
        }
        Err(MoveError::Store(error)) => return Err(JobError::from(error).told()),
    };
    if event == Event::CancelRequested {
        jobs.engine.cancelled(id).await;
        if status.is_terminal() {
            jobs.engine.clean(id).await;
        }
    }
    jobs.engine.wake();
    let mut xml = super::document("UpdateJobStatusResult");
    xml.text("JobId", id);
    xml.text("Status", status.name());
    if let Some(reason) = &reason {
        xml.text("StatusUpdateReason", reason);
    }
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}
