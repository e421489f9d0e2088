use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::of_job;
use crate::Jobs;
use longshore_core::job::Event;
use longshore_store::StoreError;

use crate::error::JobError;
use crate::ledger::{Change, MoveError, Terms};
use crate::shape;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "UpdateJobStatus",
    route: Route("POST", "/v20180820/jobs/{JobId}/status"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_UpdateJobStatus.html",
    asks: of_job!("s3:UpdateJobStatus"),
    handle: |jobs, call| Box::pin(async move { jobs.told(update_job_status(jobs, call).await) }),
};

/// Confirms or cancels. The answer's status is the one right after the request. Once a cancel is answered no further
/// invocation of the job starts (promise X8).
async fn update_job_status(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let id = call.label("JobId");
    let query = &call.request.query;
    let requested = super::parameter(query, "requestedJobStatus")?.unwrap_or("");
    let event = asked(requested)?;
    let reason = super::parameter(query, "statusUpdateReason")?.map(str::to_owned);
    if reason.as_ref().is_some_and(|r| r.is_empty() || r.chars().count() > 256) {
        return Err(JobError::Invalid("statusUpdateReason must have 1 to 256 characters".into()));
    }
    if reason.as_ref().is_some_and(|r| !shape::is_xml(r)) {
        return Err(JobError::Invalid("statusUpdateReason has characters that XML cannot carry".into()));
    }
    let change = Change { status_update_reason: reason.clone(), ..Change::default() };
    let status = match jobs.ledger.transition(id, Terms::Legal, event, change).await {
        Ok(status) => status,
        Err(MoveError::NotFound) => return Err(JobError::NotFound),
        Err(MoveError::Illegal(illegal)) => {
            return Err(JobError::StatusForbidden(illegal.from, requested.to_owned()));
        }
        // Without terms nobody can be faster.
        Err(MoveError::Overtaken) => return Err(JobError::from(StoreError::Damaged("a move without terms".into()))),
        Err(MoveError::Store(error)) => return Err(JobError::from(error)),
    };
    if event == Event::CancelRequested {
        jobs.engine.cancelled(id).await?;
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

/// What a requested status asks for.
fn asked(status: &str) -> Result<Event, JobError> {
    match status {
        "Ready" => Ok(Event::Confirmed),
        "Cancelled" => Ok(Event::CancelRequested),
        _ => Err(JobError::Invalid("requestedJobStatus must be Ready or Cancelled".into())),
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::job::Status::{
        self, Active, Cancelled, Cancelling, Complete, Completing, Failed, Failing, New, Paused, Pausing, Preparing,
        Ready, Suspended,
    };

    use super::*;

    #[test]
    fn each_status_answers_each_request_as_the_matrix_has_it() {
        // Spec 2.4: the status right after the request, or the error of row 5.
        let matrix: [(Status, Option<Status>, Option<Status>); 13] = [
            (New, None, Some(Cancelling)),
            (Preparing, None, Some(Cancelling)),
            (Suspended, Some(Ready), Some(Cancelled)),
            (Ready, None, Some(Cancelled)),
            (Active, None, Some(Cancelling)),
            (Pausing, None, Some(Cancelling)),
            (Paused, None, Some(Cancelling)),
            (Completing, None, None),
            (Failing, None, None),
            (Cancelling, None, Some(Cancelling)),
            (Cancelled, None, Some(Cancelled)),
            (Complete, None, None),
            (Failed, None, None),
        ];
        for (status, ready, cancelled) in matrix {
            assert_eq!(status.on(asked("Ready").unwrap()).ok(), ready, "{status:?}");
            assert_eq!(status.on(asked("Cancelled").unwrap()).ok(), cancelled, "{status:?}");
        }
        for other in ["", "ready", "Active", "Paused", "Cancelling"] {
            assert!(matches!(asked(other), Err(JobError::Invalid(_))), "{other}");
        }
    }
}
