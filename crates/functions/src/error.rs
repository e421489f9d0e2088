//! What goes wrong in the Lambda API, and how the caller is told.

use http::StatusCode;
use longshore_core::permission::{POLICY_BYTES_MAX, PolicyError};
use longshore_store::{SealError, StoreError};
use longshore_wire::ApiError;

use crate::code::CodeError;
use crate::code::archive::{ArchiveError, UNZIPPED_BYTES_LIMIT};

/// Every failure of an operation. [`FunctionError::told`] is the user's side of it.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// No such function, version or alias. Carries the full ARN in our region and account.
    #[error("function not found: {0}")]
    NotFound(String),
    /// Something else that is not there, in AWS's words.
    #[error("{0}")]
    Missing(String),
    /// An alias or version without provisioned concurrency.
    #[error("no provisioned concurrency")]
    NotProvisioned,
    /// A breach of the API model's constraints, already in AWS's words.
    #[error("{0}")]
    Constraint(String),
    /// A request that is well-formed and asks for what cannot be.
    #[error("{0}")]
    Parameter(String),
    /// A body that does not read.
    #[error("{0}")]
    Content(String),
    #[error("{0}")]
    Conflict(String),
    /// The `RevisionId` given is not the present one.
    #[error("the revision ID does not match")]
    Revision,
    /// As [`FunctionError::Revision`], for a layer version's policy.
    #[error("the revision ID of the layer's policy does not match")]
    LayerRevision,
    /// As `Revision`, of a call on a policy, for which AWS names another way out.
    #[error("the revision ID does not match")]
    PolicyRevision,
    /// How long the policy would be, in bytes.
    #[error("the policy would have {0} bytes")]
    PolicyLength(usize),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Denied(String),
    /// With AWS's `Reason`.
    #[error("throttled: {0}")]
    Throttled(&'static str),
    /// The function is switched off: its reserved concurrency is 0.
    #[error("throttled: the reserved concurrency is 0")]
    SwitchedOff,
    #[error("the code storage limit is reached")]
    CodeStorage,
    /// An operation that exists on AWS and not here.
    #[error("{0}")]
    UnknownOperation(String),
    /// The function could not be run, through no fault of its own.
    #[error("{0}")]
    Fault(String),
    /// What the function's runtime needs is not on this machine any more.
    #[error("{0}")]
    InvalidRuntime(String),
    /// The function's code is not on the disk any more.
    #[error("{0}")]
    InvalidZipFile(String),
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<rusqlite::Error> for FunctionError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<PolicyError> for FunctionError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Taken(sid) => Self::Conflict(format!(
                "The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the \
                 existing statement."
            )),
            PolicyError::TooLong(bytes) => Self::PolicyLength(bytes),
        }
    }
}

impl FunctionError {
    /// What the caller is told. What we know goes to the log. Source of codes and texts: Lambda spec 2.3, 2.4, 3.3.
    pub fn told(&self) -> ApiError {
        let (status, code, message) = match self {
            Self::NotFound(arn) => return longshore_wire::arn::function_not_found(arn),
            Self::Missing(text) => (StatusCode::NOT_FOUND, "ResourceNotFoundException", text.clone()),
            Self::NotProvisioned => (
                StatusCode::NOT_FOUND,
                "ProvisionedConcurrencyConfigNotFoundException",
                "No Provisioned Concurrency Config found for this function".into(),
            ),
            Self::Constraint(text) => (StatusCode::BAD_REQUEST, "ValidationException", text.clone()),
            Self::Parameter(text) => (StatusCode::BAD_REQUEST, "InvalidParameterValueException", text.clone()),
            Self::Content(text) => (StatusCode::BAD_REQUEST, "InvalidRequestContentException", text.clone()),
            Self::Conflict(text) => (StatusCode::CONFLICT, "ResourceConflictException", text.clone()),
            Self::Revision => (
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailedException",
                "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to \
                 retrieve the latest Revision Id"
                    .into(),
            ),
            Self::LayerRevision => (
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailedException",
                "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to \
                 retrieve the latest Revision Id"
                    .into(),
            ),
            Self::PolicyRevision => (
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailedException",
                "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve \
                 the latest Revision Id"
                    .into(),
            ),
            Self::PolicyLength(bytes) => (
                StatusCode::BAD_REQUEST,
                "PolicyLengthExceededException",
                format!("The final policy size ({bytes}) is bigger than the limit ({POLICY_BYTES_MAX})."),
            ),
            Self::TooLarge(text) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", text.clone()),
            Self::Denied(text) => (StatusCode::FORBIDDEN, "AccessDeniedException", text.clone()),
            Self::Throttled(reason) => return throttled(reason).with_retry_after(RETRY_AFTER_S),
            // To come back is of no use until somebody changes that.
            Self::SwitchedOff => return throttled("ReservedFunctionConcurrentInvocationLimitExceeded"),
            Self::CodeStorage => {
                (StatusCode::BAD_REQUEST, "CodeStorageExceededException", "Code storage limit exceeded.".into())
            }
            Self::UnknownOperation(text) => (StatusCode::NOT_FOUND, "UnknownOperationException", text.clone()),
            Self::Fault(text) => (StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", text.clone()),
            Self::InvalidRuntime(text) => (StatusCode::BAD_GATEWAY, "InvalidRuntimeException", text.clone()),
            Self::InvalidZipFile(text) => (StatusCode::BAD_GATEWAY, "InvalidZipFileException", text.clone()),
            Self::Code(error) => return told_code(error),
            Self::Store(error) if error.is_full() => {
                (StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", "The server's disk is full.".into())
            }
            Self::Store(_) | Self::Seal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "ServiceException",
                "An error occurred and the request cannot be processed.".into(),
            ),
        };
        ApiError::new(status, code, message)
    }
}

/// What is told of when to come back: an environment comes free at any time, and a second is what callers wait by
/// themselves. AWS sends none. Our choice.
const RETRY_AFTER_S: u32 = 1;

fn throttled(reason: &'static str) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.").with("Reason", reason)
}

fn told_code(error: &CodeError) -> ApiError {
    let parameter = |text: String| FunctionError::Parameter(text).told();
    match error {
        CodeError::TooLarge(_) => {
            FunctionError::TooLarge(format!("Zipped size must be smaller than {} bytes", crate::code::ZIPPED_BYTES_MAX))
                .told()
        }
        CodeError::Archive(ArchiveError::Empty) => parameter("Uploaded file must be a non-empty zip".into()),
        CodeError::Archive(ArchiveError::TooLarge) => {
            parameter(format!("Unzipped size must be smaller than {UNZIPPED_BYTES_LIMIT} bytes"))
        }
        // AWS's sentence first, since clients match on it; then what is wrong, which AWS keeps to itself.
        CodeError::Archive(reason) => parameter(format!(
            "Could not unzip uploaded file. Please check your file, then try to upload again. The reason: {reason}."
        )),
        CodeError::Io(error) => {
            let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            FunctionError::Fault(
                if full { "The server's disk is full." } else { "The function's code could not be stored." }.into(),
            )
            .told()
        }
        CodeError::Store(_) => {
            FunctionError::Fault("An error occurred and the request cannot be processed.".into()).told()
        }
    }
}
