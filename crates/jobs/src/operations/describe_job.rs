use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::of_job;
use crate::Jobs;
use crate::error::JobError;
use crate::ledger::JobRow;
use crate::operations::iso;
use crate::shape::GENERATED_FORMAT;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "DescribeJob",
    route: Route("GET", "/v20180820/jobs/{JobId}"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_DescribeJob.html",
    asks: of_job!("s3:DescribeJob"),
    handle: |jobs, call| Box::pin(async move { jobs.told(describe_job(jobs, call).await) }),
};

async fn describe_job(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let id = call.label("JobId");
    let job = jobs.engine.look(id).await?;
    let job = job.ok_or(JobError::NotFound)?;
    Ok(Response::xml(StatusCode::OK, document(&job, &jobs.settings.region, &jobs.settings.account)))
}

/// Why a job is Suspended. The second is ours: a sample has run, and the other rows wait (decision 0013).
pub(super) fn suspended_cause(job: &JobRow) -> &'static str {
    if job.sampled { "AWAITING_PROMOTION" } else { "AWAITING_CONFIRMATION" }
}

fn document(job: &JobRow, region: &str, account: &str) -> String {
    let mut xml = super::document("DescribeJobResult");
    let request = &job.request;
    xml.open("Job");
    xml.text("JobId", &job.id);
    xml.text("ConfirmationRequired", if request.confirmation_required { "true" } else { "false" });
    if let Some(description) = &request.description {
        xml.text("Description", description);
    }
    xml.text("JobArn", &format!("arn:aws:s3:{region}:{account}:job/{}", job.id));
    xml.text("Status", job.status.name());
    request.source.write(&mut xml);
    xml.open("Operation");
    request.operation.write(&mut xml);
    xml.close();
    xml.text("Priority", &job.priority.to_string());
    super::list_jobs::write_progress(&mut xml, job);
    if let Some(reason) = &job.status_update_reason {
        xml.text("StatusUpdateReason", reason);
    }
    xml.open("FailureReasons");
    for failure in &job.failure_reasons {
        for text in [Some(&failure.reason), failure.detail.as_ref()].into_iter().flatten() {
            xml.open("member");
            xml.text("FailureCode", &failure.code);
            xml.text("FailureReason", text);
            xml.close();
        }
    }
    xml.close();
    request.report.write(&mut xml);
    xml.text("CreationTime", &iso(job.created));
    if let Some(terminated) = job.terminated {
        xml.text("TerminationDate", &iso(terminated));
    }
    xml.text("RoleArn", &request.role_arn);
    if let Some(suspended) = job.suspended {
        xml.text("SuspendedDate", &iso(suspended));
        xml.text("SuspendedCause", suspended_cause(job));
    }
    if let Some(generated) = &job.generated_manifest {
        xml.open("GeneratedManifestDescriptor");
        xml.text("Format", GENERATED_FORMAT);
        xml.open("Location");
        xml.text("ObjectArn", &generated.object_arn);
        xml.text("ETag", &generated.etag);
        xml.close();
        xml.close();
    }
    xml.close();
    xml.finish()
}
