use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route, page_token};

use super::asks;
use crate::Jobs;
use longshore_core::job::Status;
use longshore_wire::xml::Writer;

use crate::error::JobError;
use crate::ledger::{After, JobRow};
use crate::operations::iso;
use crate::shape::{self, LAMBDA_INVOKE};

pub const OPERATION: Operation<Jobs> = Operation {
    name: "ListJobs",
    route: Route("GET", "/v20180820/jobs"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_ListJobs.html",
    asks: |_, _| Box::pin(async { asks::list() }),
    handle: |jobs, call| Box::pin(async move { jobs.told(list_jobs(jobs, call).await) }),
};

/// The page size where none, or 0, is asked for (rule P-3, our choice).
const PAGE_MAX: usize = 1_000;

async fn list_jobs(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let query = &call.request.query;
    let invalid = JobError::InvalidList;
    let parameter =
        |name: &'static str| super::parameter(query, name).map_err(|_| invalid(format!("{name} stands twice")));
    let mut statuses = Vec::new();
    for name in query.all("jobStatuses") {
        statuses.push(Status::parse(name).ok_or_else(|| invalid(format!("unknown job status {name:?}")))?);
    }
    statuses.sort_unstable();
    statuses.dedup();
    let max = match parameter("maxResults")? {
        None => PAGE_MAX,
        Some(text) => match shape::whole(text) {
            Some(0) => PAGE_MAX,
            Some(max) if max <= PAGE_MAX as u64 => max as usize,
            _ => return Err(invalid(format!("maxResults must be a whole number from 0 to {PAGE_MAX}"))),
        },
    };
    // A token is bound to the account and the filter it was issued for (rule P-6).
    let bound_to = format!("{}/{statuses:?}", call.request.caller.account());
    let after = match parameter("nextToken")? {
        None => None,
        Some(token) => {
            let (created, id) = page_token::decode(token, &bound_to).ok_or(JobError::BadToken)?;
            Some(After { created, id })
        }
    };
    // Before the rows: an agent that ends in between has written its counts there.
    let glance = jobs.engine.look_around().await;
    let (page, more) = jobs.ledger.list(statuses, after, max).await?;

    let mut xml = super::document("ListJobsResult");
    if more && let Some(last) = page.last() {
        xml.text("NextToken", &page_token::encode(last.created.0, &last.id, &bound_to));
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
