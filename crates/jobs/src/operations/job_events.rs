use http::StatusCode;
use longshore_wire::event::Envelope;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Serialize;

use super::asks::of_job;
use crate::Jobs;
use crate::error::JobError;
use crate::ledger::{DeliveryState, Kept};
use crate::operations::iso;
use crate::shape;
use longshore_core::time::Timestamp;

pub const OPERATION: Operation<Jobs> = Operation {
    name: "JobEvents",
    route: Route("GET", "/_longshore/v1/jobs/{JobId}/events"),
    spec: "docs/decisions/0009-events-are-rows-beside-the-status.md",
    asks: of_job!("s3:DescribeJob"),
    handle: |jobs, call| Box::pin(async move { jobs.told(job_events(jobs, call).await) }),
};

/// Events in one answer, at most, and where nothing is asked for. Each is below 3 KiB.
const PAGE_MAX: usize = 1_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    events: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    job_event_id: &'a str,
    event_name: &'static str,
    status: &'a str,
    /// With milliseconds, which the document has not.
    time: String,
    failure_codes: &'a [String],
    status_change_reason: &'a [String],
    deliveries: Vec<ShownDelivery<'a>>,
    document: Envelope<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownDelivery<'a> {
    sink: &'a str,
    delivered: bool,
    given_up: bool,
    attempts: u32,
    last_error: Option<&'a str>,
}

/// Shows a job's events, oldest first, with what became of each at the sinks that there were when it happened.
async fn job_events(jobs: &Jobs, call: Call) -> Result<Response, JobError> {
    let query = &call.request.query;
    let max = match super::parameter(query, "maxResults")? {
        None => PAGE_MAX,
        Some(text) => match shape::whole(text) {
            Some(max) if (1..=PAGE_MAX as u64).contains(&max) => max as usize,
            _ => return Err(JobError::Invalid("maxResults must be a whole number from 1 to 1000".into())),
        },
    };
    // The number of the last event that was shown. It says nothing that its holder has not seen.
    let after = match super::parameter(query, "nextToken")? {
        None => 0,
        Some(token) => token.parse::<u64>().ok().filter(|n| *n > 0).ok_or(JobError::BadToken)?,
    };
    let found = jobs.ledger.events(call.request.caller.account(), call.label("JobId"), after, max).await;
    let (events, more) = found?.ok_or(JobError::NotFound)?;
    let page = Page {
        events: events.iter().map(shown).collect(),
        next_token: events.last().filter(|_| more).map(|last| last.number.to_string()),
    };
    let body = serde_json::to_vec(&page).expect("text, numbers and lists always serialise");
    Ok(Response::empty(StatusCode::OK).with_header("content-type", "application/json").with_body(body))
}

fn shown(kept: &Kept) -> Shown<'_> {
    let event = &kept.event;
    let deliveries = kept.deliveries.iter().map(|delivery| ShownDelivery {
        sink: &delivery.sink,
        delivered: delivery.state == DeliveryState::Delivered,
        given_up: delivery.state == DeliveryState::GivenUp,
        attempts: delivery.attempts,
        last_error: delivery.last_error.as_deref(),
    });
    Shown {
        job_event_id: &event.job_event_id,
        event_name: event.name(),
        status: &event.status,
        time: iso(Timestamp(event.time_ms)),
        failure_codes: &event.failure_codes,
        status_change_reason: &event.status_change_reason,
        deliveries: deliveries.collect(),
        document: event.envelope(),
    }
}
