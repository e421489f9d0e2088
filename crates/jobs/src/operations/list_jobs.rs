use http::StatusCode;
use longshore_wire::{ApiError, Call, Operation, Response, Route};

use crate::Jobs;
use base64::Engine;
use longshore_core::job::Status;
use longshore_wire::xml::Writer;
use sha1::{Digest, Sha1};

use crate::error::JobError;
use crate::operations::iso;
use crate::shape::LAMBDA_INVOKE;
use crate::table::{After, JobRow};

pub const OPERATION: Operation<Jobs> = Operation {
    name: "ListJobs",
    route: Route("GET", "/v20180820/jobs"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_ListJobs.html",
    handle: |jobs, call| Box::pin(list_jobs(jobs, call)),
};

/// The page size where none, or 0, is asked for (rule P-3, our choice).
const PAGE_MAX: usize = 1_000;

async fn list_jobs(jobs: &Jobs, call: Call) -> Result<Response, ApiError> {
    let query = &call.request.query;
    let invalid = |detail: String| JobError::Invalid(detail).told();
    let mut statuses = Vec::new();
    for name in query.all("jobStatuses") {
        statuses.push(Status::parse(name).ok_or_else(|| invalid(format!("unknown job status {name}")))?);
    }
    statuses.sort_unstable();
    statuses.dedup();
    let max = match query.get("maxResults") {
        None | Some("0") => PAGE_MAX,
        Some(text) => match text.parse::<usize>() {
            Ok(max) if max <= PAGE_MAX => max,
            _ => return Err(invalid("maxResults must be a whole number from 0 to 1000".into())),
        },
    };
    // A token is bound to the account and the filter it was issued for (rule P-6).
    let bound_to = format!("{}/{statuses:?}", call.request.caller.account());
    let after = match query.get("nextToken") {
        None => None,
        Some(token) => Some(decode_token(token, &bound_to).ok_or_else(|| JobError::BadToken.told())?),
    };
    // Before the rows: an agent that ends in between has written its counts there.
    let glance = jobs.engine.look_around().await;
    let (page, more) = jobs.table.list(statuses, after, max).await.map_err(|e| JobError::from(e).told())?;

    let mut xml = super::document("ListJobsResult");
    if more && let Some(last) = page.last() {
        xml.text("NextToken", &encode_token(last, &bound_to));
    }
    xml.open("Jobs");
    for job in &page {
        let job = glance.over(job.clone());
        xml.open("member");
        xml.text("JobId", &job.id);
        if let Some(description) = &job.request.description {
            xml.text("Description", description);
        }
        xml.text("Operation", LAMBDA_INVOKE);
        xml.text("Priority", &job.priority.to_string());
        xml.text("Status", job.status.name());
        xml.text("CreationTime", &iso(job.created));
        if let Some(terminated) = job.terminated {
            xml.text("TerminationDate", &iso(terminated));
        }
        write_progress(&mut xml, &job);
        xml.close();
    }
    xml.close();
    Ok(Response::xml(StatusCode::OK, xml.finish()))
}

/// `<ProgressSummary>` as both DescribeJob and ListJobs show it.
pub(super) fn write_progress(xml: &mut Writer, job: &JobRow) {
    xml.open("ProgressSummary");
    xml.text("TotalNumberOfTasks", &job.rows_total.to_string());
    xml.text("NumberOfTasksSucceeded", &job.succeeded.to_string());
    xml.text("NumberOfTasksFailed", &job.failed.to_string());
    xml.open("Timers");
    xml.text("ElapsedTimeInActiveSeconds", &(job.active_ms / 1_000).to_string());
    xml.close();
    xml.close();
}

fn seal(created: i64, id: &str, bound_to: &str) -> String {
    hex::encode(&Sha1::digest(format!("{created}/{id}/{bound_to}"))[..8])
}

fn encode_token(last: &JobRow, bound_to: &str) -> String {
    let text = format!("{}/{}/{}", last.created.0, last.id, seal(last.created.0, &last.id, bound_to));
    base64::engine::general_purpose::URL_SAFE.encode(text)
}

fn decode_token(token: &str, bound_to: &str) -> Option<After> {
    let text = String::from_utf8(base64::engine::general_purpose::URL_SAFE.decode(token).ok()?).ok()?;
    let mut parts = text.split('/');
    let (created, id, given) = (parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?);
    (parts.next().is_none() && seal(created, &id, bound_to) == given).then_some(After { created, id })
}
