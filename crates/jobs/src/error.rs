//! What can go wrong with a request about a job: an enum for us, [`JobError::told`] for the caller.
//!
//! A job's own failure takes another road: `FailureReasons` (see [`FailureReason`]); a task's failure a third: its row
//! in the completion report.

use http::StatusCode;
use longshore_core::job::Status;
use longshore_store::StoreError;
use longshore_wire::ApiError;
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The document is sound and one of its fields breaks a rule; the text says which.
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("malformed XML: {0}")]
    Malformed(String),
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
    #[error("the request is for another account than the caller's, or names none")]
    AccessDenied(&'static str),
    #[error("no such resource")]
    NoSuchResource,
    #[error("the method is not allowed here")]
    MethodNotAllowed,
    #[error("state: {0}")]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        JobError::Store(error.into())
    }
}

impl JobError {
    /// What the caller is told: code, status and message as real clients observe them (S3 Batch spec 1.11, dialect
    /// `observed`). What we know goes to the log.
    pub fn told(&self) -> ApiError {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            JobError::Invalid(detail) => ApiError::new(BAD, "InvalidRequest", format!("Request invalid: {detail}")),
            JobError::Malformed(detail) => {
                tracing::debug!(detail, "a request's XML was refused");
                let text = "The XML you provided was not well-formed or did not validate against our published schema";
                ApiError::new(BAD, "MalformedXML", text)
            }
            JobError::NotImplemented(what) => ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                format!("{what} is not implemented by this server yet"),
            ),
            JobError::NotFound => ApiError::new(StatusCode::NOT_FOUND, "NoSuchJob", "The specified job does not exist"),
            JobError::StatusForbidden(from, to) => ApiError::new(
                BAD,
                "InvalidRequest",
                format!("Requested job status forbidden: a job that is {} cannot become {to}", from.name()),
            ),
            JobError::PriorityForbidden(status) => ApiError::new(
                BAD,
                "InvalidRequest",
                format!("The priority of a job that is {} cannot be changed", status.name()),
            ),
            JobError::TokenReused => ApiError::new(
                BAD,
                "IdempotencyException",
                "The client request token was used before with a different request",
            ),
            JobError::BadToken => {
                ApiError::new(BAD, "InvalidNextTokenException", "The provided next token is not valid here")
            }
            JobError::TooManyTags => ApiError::new(BAD, "TooManyTagsException", "A job can have at most 50 tags"),
            JobError::AccessDenied(message) => ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", *message),
            JobError::NoSuchResource => {
                ApiError::new(StatusCode::NOT_FOUND, "NoSuchResource", "The path names no resource of this API")
            }
            JobError::MethodNotAllowed => ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "The specified method is not allowed against this resource",
            ),
            JobError::Store(error) if error.is_full() => {
                tracing::warn!(%error, "a request was refused: the disk is full");
                let text = "There is no space to store this durably; try again later";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", text)
            }
            JobError::Store(error) => {
                tracing::error!(%error, "a request failed inside");
                let text = "We encountered an internal error. Please try again.";
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
            }
        }
    }
}

/// One entry of a failed job's `FailureReasons`. Codes and texts: S3 Batch spec 2.7.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReason {
    /// At most 64 characters.
    pub code: String,
    /// At most 256 characters.
    pub reason: String,
}

impl FailureReason {
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        let cut = |text: String, max: usize| match text.char_indices().nth(max) {
            Some((end, _)) => text[..end].to_owned(),
            None => text,
        };
        Self { code: cut(code.to_owned(), 64), reason: cut(reason.into(), 256) }
    }
}
