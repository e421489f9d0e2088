use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use crate::Jobs;
use base64::Engine;
use longshore_core::job::Status;
use longshore_wire::xml::Writer;
use sha1::{Digest, Sha1};

use crate::error::JobError;
use crate::operations::iso;
use crate::shape::{self, LAMBDA_INVOKE};
use crate::table::{After, JobRow};

pub const OPERATION: Operation<Jobs> = Operation {
    name: "ListJobs",
    route: Route("GET", "/v20180820/jobs"),
    spec: "https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_ListJobs.html",
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
        Some(token) => Some(decode_token(token, &bound_to).ok_or(JobError::BadToken)?),
    };
    // Before the rows: an agent that ends in between has written its counts there.
    let glance = jobs.engine.look_around().await;
    let (page, more) = jobs.table.list(statuses, after, max).await?;

    let mut xml = super::document("ListJobsResult");
    if more && let Some(last) = page.last() {
        let after = After { created: last.created.0, id: last.id.clone() };
        xml.text("NextToken", &encode_token(&after, &bound_to));
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

/// Shows a token that is damaged, or meant for another list. No secret is in it: whoever makes one up with care pages
/// through a list that they may see anyway.
fn seal(created: i64, id: &str, bound_to: &str) -> String {
    hex::encode(&Sha1::digest(format!("{created}/{id}/{bound_to}"))[..8])
}

fn encode_token(after: &After, bound_to: &str) -> String {
    let text = format!("{}/{}/{}", after.created, after.id, seal(after.created, &after.id, bound_to));
    base64::engine::general_purpose::URL_SAFE.encode(text)
}

fn decode_token(token: &str, bound_to: &str) -> Option<After> {
    let text = String::from_utf8(base64::engine::general_purpose::URL_SAFE.decode(token).ok()?).ok()?;
    let mut parts = text.split('/');
    let (created, id, given) = (parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?);
    (parts.next().is_none() && seal(created, &id, bound_to) == given).then_some(After { created, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_where_it_was_made_and_to_nowhere_else() {
        let after = After { created: 1_570_139_328_048, id: "93735294-df46-44d5-8638-6356f335324e".into() };
        let token = encode_token(&after, "123456789012/[Active]");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+:/=?#-_".contains(c);
        assert!(token.len() <= 1_024 && token.chars().all(allowed), "{token}");
        let back = decode_token(&token, "123456789012/[Active]").unwrap();
        assert_eq!((back.created, back.id), (after.created, after.id));
        for other in ["999999999999/[Active]", "123456789012/[]", "123456789012/[Active, Ready]"] {
            assert!(decode_token(&token, other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_token_of_which_one_character_was_changed_is_none() {
        let after = After { created: 1_570_139_328_048, id: "93735294-df46-44d5-8638-6356f335324e".into() };
        let token = encode_token(&after, "a");
        for (at, c) in token.char_indices() {
            for other in ['A', 'b', '0', '_', '='] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, &other.to_string());
                assert_eq!(decode_token(&changed, "a").is_some(), other == c, "{changed}");
            }
        }
        for shorter in 0..token.len() {
            assert!(decode_token(&token[..shorter], "a").is_none());
        }
        for other in ["", "!", "\u{e4}", &"A".repeat(2_000)] {
            assert!(decode_token(other, "a").is_none(), "{other}");
        }
    }
}
