//! The operations of S3 Control that concern jobs: one file each, one line each in [`OPERATIONS`].

mod asks;
mod create_job;
mod delete_job_tagging;
mod deliver_job_report;
mod describe_job;
mod get_job_tagging;
mod job_events;
mod job_figures;
mod job_results;
mod list_jobs;
mod put_job_tagging;
mod update_job_priority;
mod update_job_status;

use longshore_core::time::Timestamp;
use longshore_wire::error::S3_CONTROL_NAMESPACE;
use longshore_wire::xml::Writer;
use longshore_wire::{Operation, Query, Request};

use crate::Jobs;
use crate::error::JobError;

/// Every operation of this room.
pub const OPERATIONS: &[Operation<Jobs>] = &[
    create_job::OPERATION,
    describe_job::OPERATION,
    list_jobs::OPERATION,
    update_job_priority::OPERATION,
    update_job_status::OPERATION,
    put_job_tagging::OPERATION,
    get_job_tagging::OPERATION,
    delete_job_tagging::OPERATION,
];

/// Every operation of our own API on jobs, below `/_longshore/v1/`: what AWS has no operation for. AWS's clients never
/// notice them.
pub const OWN_OPERATIONS: &[Operation<Jobs>] =
    &[job_events::OPERATION, job_figures::OPERATION, job_results::OPERATION, deliver_job_report::OPERATION];

/// The value of `x-amz-account-id`, if it is there once and can be read.
pub(crate) fn account_header(request: &Request) -> Option<&str> {
    let mut values = request.headers.get_all("x-amz-account-id").iter();
    let first = values.next()?;
    // Which of two would be meant?
    if values.next().is_some() { None } else { first.to_str().ok() }
}

/// A parameter of the query that has one value.
fn parameter<'q>(query: &'q Query, name: &'static str) -> Result<Option<&'q str>, JobError> {
    let mut values = query.all(name);
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(JobError::Invalid(format!("{name} stands twice"))),
    }
}

/// `x-amz-account-id` must be there, be an account's number, be the one that the host names, if it names one (rule N-10),
/// and be the caller's (spec 1.11, rows 14 and 15).
pub(crate) fn check_account(header: Option<&str>, host: Option<&str>, callers: &str) -> Result<(), JobError> {
    let Some(account) = header else {
        return Err(JobError::Invalid("the header x-amz-account-id is required, once".into()));
    };
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(JobError::Invalid("x-amz-account-id must be 12 digits".into()));
    }
    if host.is_some_and(|host| host != account) {
        return Err(JobError::Invalid("the account in the host and the one in x-amz-account-id differ".into()));
    }
    if account != callers {
        return Err(JobError::AccessDenied("Access Denied"));
    }
    Ok(())
}

/// ISO 8601 in UTC with milliseconds, as every date of this API (rule X-5).
pub(crate) fn iso(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.0).unwrap_or_default();
    format!("{time:.3}")
}

fn document(root: &str) -> Writer {
    Writer::document(root, Some(S3_CONTROL_NAMESPACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_of_one_value_stands_once() {
        let query = Query::parse(Some("priority=1&priority=2&other=3"));
        assert!(matches!(parameter(&query, "priority"), Err(JobError::Invalid(_))));
        assert_eq!(parameter(&query, "other").unwrap(), Some("3"));
        assert_eq!(parameter(&query, "none").unwrap(), None);
    }

    #[test]
    fn dates_have_milliseconds_and_end_in_z() {
        assert_eq!(iso(Timestamp(1_570_139_328_048)), "2019-10-03T21:48:48.048Z");
        assert_eq!(iso(Timestamp(0)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_account_must_be_named_and_be_the_hosts_and_the_callers() {
        let (own, other) = ("123456789012", "999999999999");
        assert!(check_account(Some(own), None, own).is_ok());
        assert!(check_account(Some(own), Some(own), own).is_ok());
        for host in [None, Some(other)] {
            assert!(matches!(check_account(Some(other), host, own), Err(JobError::AccessDenied(_))));
        }
        for bad in [None, Some(""), Some("12345678901x"), Some("1234567890123")] {
            assert!(matches!(check_account(bad, None, own), Err(JobError::Invalid(_))));
        }
        for header in [own, other] {
            let host = if header == own { other } else { own };
            assert!(matches!(check_account(Some(header), Some(host), own), Err(JobError::Invalid(_))));
        }
    }
}
