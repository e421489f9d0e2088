//! The operations of S3 Control that concern jobs: one file each, one line each in [`OPERATIONS`].

mod create_job;
mod delete_job_tagging;
mod describe_job;
mod get_job_tagging;
mod job_events;
mod list_jobs;
mod put_job_tagging;
mod update_job_priority;
mod update_job_status;

use longshore_core::time::Timestamp;
use longshore_wire::Operation;
use longshore_wire::error::S3_CONTROL_NAMESPACE;
use longshore_wire::xml::Writer;

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
pub const OWN_OPERATIONS: &[Operation<Jobs>] = &[job_events::OPERATION];

/// `x-amz-account-id` must be there, be an account's number, and be the caller's (spec 1.11, rows 14 and 15).
pub(crate) fn check_account(header: Option<&str>, callers: &str) -> Result<(), JobError> {
    let Some(account) = header else {
        return Err(JobError::Invalid("the header x-amz-account-id is required".into()));
    };
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(JobError::Invalid("x-amz-account-id must be 12 digits".into()));
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
    fn dates_have_milliseconds_and_end_in_z() {
        assert_eq!(iso(Timestamp(1_570_139_328_048)), "2019-10-03T21:48:48.048Z");
        assert_eq!(iso(Timestamp(0)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_account_must_be_named_and_be_the_callers() {
        assert!(check_account(Some("123456789012"), "123456789012").is_ok());
        assert!(matches!(check_account(Some("999999999999"), "123456789012"), Err(JobError::AccessDenied(_))));
        for bad in [None, Some(""), Some("12345678901x"), Some("1234567890123")] {
            assert!(matches!(check_account(bad, "123456789012"), Err(JobError::Invalid(_))));
        }
    }
}
