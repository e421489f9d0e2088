//! What can go wrong with a request about a job: an enum for us, [`JobError::told_in`] for the caller.
//!
//! A job's own failure takes another road: `FailureReasons` (see [`FailureReason`]); a task's failure a third: its row
//! in the completion report.

use http::StatusCode;
use longshore_core::job::Status;
use longshore_store::StoreError;
use longshore_wire::ApiError;
use serde::{Deserialize, Serialize};

use crate::shape::is_xml_char;

use crate::shape::TAGS_MAX;

/// Which names errors have. AWS's model and what real clients observe are not the same (decision 0008).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// What clients see of AWS.
    #[default]
    Observed,
    /// What the model names, and typed SDKs turn into typed exceptions.
    Modeled,
}

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The document is sound and one of its fields breaks a rule, or a parameter in path, query or headers does; the
    /// text says which.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// As [`JobError::Invalid`], for ListJobs, whose model has another name for it.
    #[error("invalid list request: {0}")]
    InvalidList(String),
    #[error("malformed XML: {0}")]
    Malformed(String),
    #[error("a body of more than {0} bytes")]
    TooLarge(u64),
    #[error("the body broke off")]
    BrokenBody,
    #[error("an operation that is not offered yet: {0}")]
    NotImplemented(String),
    #[error("no such job")]
    NotFound,
    #[error("a job that is {0:?} cannot become {1}")]
    StatusForbidden(Status, String),
    #[error("a job that is {0:?} takes no new priority")]
    PriorityForbidden(Status),
    #[error("the client request token was used with another request")]
    TokenReused,
    #[error("a bad page token")]
    BadToken,
    #[error("too many tags")]
    TooManyTags,
    #[error("too many requests")]
    TooManyRequests,
    #[error("denied: {0}")]
    AccessDenied(&'static str),
    /// A policy of the caller's says no, or none says yes.
    #[error("denied: {0}")]
    Denied(Box<longshore_wire::Denied>),
    /// A report that is to be delivered again is not, and why.
    #[error("a report is not delivered: {0}")]
    Undelivered(String),
    /// As [`JobError::Undelivered`], for good: the results that it would be made of do not read as they were written.
    #[error("the results are damaged: {0}")]
    ResultsDamaged(String),
    #[error("no such resource")]
    NoSuchResource,
    #[error("the method is not allowed here")]
    MethodNotAllowed,
    #[error("state: {0}")]
    Store(#[from] StoreError),
    /// A bug of ours; the panic is in the log.
    #[error("a request panicked")]
    Panicked,
}

impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        JobError::Store(error.into())
    }
}

impl JobError {
    /// What the caller is told: S3 Batch spec 1.11, row by row, and what the table leaves open in its spirit. Both
    /// dialects say the same in words. What we know goes to the log.
    pub fn told_in(&self, dialect: Dialect) -> ApiError {
        let (observed, modeled, message): ((u16, &str), (u16, &str), String) = match self {
            JobError::Invalid(detail) => {
                ((400, "InvalidRequest"), (400, "BadRequestException"), format!("Request invalid: {detail}"))
            }
            JobError::InvalidList(detail) => {
                ((400, "InvalidRequest"), (400, "InvalidRequestException"), format!("Request invalid: {detail}"))
            }
            JobError::Malformed(detail) => {
                tracing::debug!(detail, "a request's XML was refused");
                let text = "The XML you provided was not well-formed or did not validate against our published schema";
                ((400, "MalformedXML"), (400, "BadRequestException"), text.into())
            }
            JobError::TooLarge(max) => {
                let text = format!("Your request was too big. At most {max} bytes are taken.");
                ((400, "MaxMessageLengthExceeded"), (400, "BadRequestException"), text)
            }
            JobError::BrokenBody => {
                let text = "The body broke off, or came too slowly.";
                ((400, "IncompleteBody"), (400, "BadRequestException"), text.into())
            }
            JobError::NotImplemented(what) => {
                both(501, "NotImplemented", format!("{what} is not implemented by this server yet"))
            }
            JobError::NotFound => {
                ((404, "NoSuchJob"), (400, "NotFoundException"), "The specified job does not exist".into())
            }
            JobError::StatusForbidden(from, to) => {
                let text = format!("Requested job status forbidden: a job that is {} cannot become {to}", from.name());
                ((400, "InvalidRequest"), (400, "JobStatusException"), text)
            }
            JobError::PriorityForbidden(status) => {
                let text = format!("The priority of a job that is {} cannot be changed", status.name());
                ((400, "InvalidRequest"), (400, "BadRequestException"), text)
            }
            JobError::TokenReused => both(
                400,
                "IdempotencyException",
                "The client request token was used before with a different request".into(),
            ),
            JobError::BadToken => {
                both(400, "InvalidNextTokenException", "The provided next token is not valid here".into())
            }
            JobError::TooManyTags => {
                both(400, "TooManyTagsException", format!("A job can have at most {TAGS_MAX} tags"))
            }
            JobError::TooManyRequests => {
                ((503, "SlowDown"), (400, "TooManyRequestsException"), "Please reduce your request rate".into())
            }
            JobError::AccessDenied(message) => both(403, "AccessDenied", (*message).into()),
            JobError::Denied(why) => both(403, "AccessDenied", why.to_string()),
            JobError::Undelivered(why) => {
                both(409, "ReportDeliveryFailed", format!("The report is not delivered: {why}"))
            }
            JobError::ResultsDamaged(what) => {
                let text =
                    format!("The report is not delivered: the job's results are damaged: {what}. {AFTER_DAMAGE}");
                both(409, "StateDamaged", text)
            }
            JobError::NoSuchResource => both(404, "NoSuchResource", "The path names no resource of this API".into()),
            JobError::MethodNotAllowed => {
                both(405, "MethodNotAllowed", "The specified method is not allowed against this resource".into())
            }
            JobError::Store(error) if error.is_full() => {
                tracing::warn!(%error, "a request was refused: the disk is full");
                let text = "There is no space to store this durably; try again later";
                ((503, "ServiceUnavailable"), (500, "InternalServiceException"), text.into())
            }
            JobError::Store(_) | JobError::Panicked => {
                if let JobError::Store(error) = self {
                    tracing::error!(%error, "a request failed inside");
                }
                let text = "We encountered an internal error. Please try again.";
                ((500, "InternalError"), (500, "InternalServiceException"), text.into())
            }
        };
        let (status, code) = if dialect == Dialect::Observed { observed } else { modeled };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ApiError::new(status, code.to_owned(), message)
    }
}

#[cfg(test)]
impl JobError {
    /// As most callers are told, for tests whose matter is not the dialect.
    pub fn told(&self) -> ApiError {
        self.told_in(Dialect::default())
    }
}

/// A situation that both dialects name alike.
fn both(status: u16, code: &str, message: String) -> ((u16, &str), (u16, &str), String) {
    ((status, code), (status, code), message)
}

/// One entry of a failed job's `FailureReasons`. Codes and texts: S3 Batch spec 2.7.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReason {
    /// At most 64 characters.
    pub code: String,
    /// At most 256 characters. Where AWS has a sentence for it, that sentence and no other.
    pub reason: String,
    /// What is known beside AWS's sentence; shown as a second entry of the same code. At most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What can be done about a job whose state on our disk is damaged: its row and its results are of one moment, so that a folder alone
/// cannot be put back.
pub(crate) const AFTER_DAMAGE: &str =
    "Restore the whole data directory from a backup, or create the job again: all its tasks then run anew";

impl FailureReason {
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: cut(code.to_owned(), 64), reason: cut(reason.into(), 256), detail: None }
    }

    pub fn detailed(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(cut(detail.into(), 256)), ..self }
    }
}

/// Text that an answer's XML can carry: what it holds of others' names must not keep clients from reading of the job.
fn cut(text: String, chars_max: usize) -> String {
    let text: String = text.chars().map(|c| if is_xml_char(c) { c } else { char::REPLACEMENT_CHARACTER }).collect();
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reason_is_cut_and_holds_nothing_that_xml_cannot_carry() {
        let reason = FailureReason::new("c", format!("a\u{1}{}", "x".repeat(300))).detailed("b\u{0}\u{ffff}\tc");
        assert!(reason.reason.starts_with("a\u{fffd}x") && reason.reason.chars().count() == 256);
        assert_eq!(reason.detail.as_deref(), Some("b\u{fffd}\u{fffd}\tc"));
    }

    #[test]
    fn each_situation_has_its_name_in_both_dialects() {
        let own = |text: &str| text.to_owned();
        for (error, observed, modeled, words) in [
            (JobError::Invalid(own("x")), "400 InvalidRequest", "400 BadRequestException", "Request invalid: x"),
            (
                JobError::InvalidList(own("x")),
                "400 InvalidRequest",
                "400 InvalidRequestException",
                "Request invalid: x",
            ),
            (JobError::Malformed(own("x")), "400 MalformedXML", "400 BadRequestException", "was not well-formed"),
            (JobError::TokenReused, "400 IdempotencyException", "400 IdempotencyException", "token was used before"),
            (JobError::NotFound, "404 NoSuchJob", "400 NotFoundException", "The specified job does not exist"),
            (
                JobError::StatusForbidden(Status::Active, own("Ready")),
                "400 InvalidRequest",
                "400 JobStatusException",
                "Requested job status forbidden",
            ),
            (
                JobError::PriorityForbidden(Status::Failed),
                "400 InvalidRequest",
                "400 BadRequestException",
                "cannot be changed",
            ),
            (JobError::BadToken, "400 InvalidNextTokenException", "400 InvalidNextTokenException", "next token"),
            (JobError::TooManyTags, "400 TooManyTagsException", "400 TooManyTagsException", "50"),
            (
                JobError::TooManyRequests,
                "503 SlowDown",
                "400 TooManyRequestsException",
                "Please reduce your request rate",
            ),
            (JobError::AccessDenied("Access Denied"), "403 AccessDenied", "403 AccessDenied", "Access Denied"),
            (
                JobError::Undelivered(own("x")),
                "409 ReportDeliveryFailed",
                "409 ReportDeliveryFailed",
                "The report is not delivered: x",
            ),
            (JobError::NoSuchResource, "404 NoSuchResource", "404 NoSuchResource", "no resource"),
            (JobError::MethodNotAllowed, "405 MethodNotAllowed", "405 MethodNotAllowed", "method"),
            (JobError::NotImplemented(own("X")), "501 NotImplemented", "501 NotImplemented", "X is not implemented"),
            (
                JobError::Store(StoreError::Damaged(own("secret"))),
                "500 InternalError",
                "500 InternalServiceException",
                "We encountered an internal error. Please try again.",
            ),
            (JobError::Panicked, "500 InternalError", "500 InternalServiceException", "internal error"),
            (JobError::TooLarge(7), "400 MaxMessageLengthExceeded", "400 BadRequestException", "At most 7 bytes"),
            (JobError::BrokenBody, "400 IncompleteBody", "400 BadRequestException", "broke off"),
        ] {
            for (dialect, wanted) in [(Dialect::Observed, observed), (Dialect::Modeled, modeled)] {
                let told = error.told_in(dialect);
                assert_eq!(format!("{} {}", told.status.as_u16(), told.code), wanted, "{error} {dialect:?}");
                assert!(told.message.contains(words), "{}", told.message);
                assert!(!told.message.contains("secret"), "what we know goes to the log");
            }
        }
    }
}
