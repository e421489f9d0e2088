//! What goes wrong in IAM and STS, and how the caller is told.

use http::StatusCode;
use longshore_core::policy::Malformed;
use longshore_store::{SealError, StoreError};
use longshore_wire::{ApiError, Denied};

/// Every failure of an operation. [`IdentityError::told`] is the user's side of it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0}")]
    NoSuchEntity(String),
    #[error("{0}")]
    EntityAlreadyExists(String),
    /// Something is there that has to go first.
    #[error("{0}")]
    DeleteConflict(String),
    #[error("{0}")]
    LimitExceeded(String),
    /// A document that is no policy: the place in it, and what is wrong there.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// Something that is well-formed and makes no sense.
    #[error("{0}")]
    InvalidInput(String),
    /// A breach of the API model's constraints, already in AWS's words.
    #[error("{0}")]
    Validation(String),
    /// Session policies and tags that do not go into a token.
    #[error("{0}")]
    PackedPolicyTooLarge(String),
    #[error("{0}")]
    Denied(Box<Denied>),
    /// Refused by a rule that no policy can change.
    #[error("{0}")]
    NotAllowed(String),
    /// IAM and STS of sessions without MFA, as AWS has it.
    #[error("the security token is not good for this")]
    NoIamWithSession,
    /// A request without an action, or with one that there is not.
    #[error("{0}")]
    InvalidAction(String),
    #[error("the action is missing")]
    MissingAction,
    /// A body that does not read.
    #[error("{0}")]
    Unreadable(String),
    /// An operation or a member that exists on AWS and not here.
    #[error("{0}")]
    NotImplemented(String),
    /// What stands in the tables does not read any more.
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the system has no random numbers: {0}")]
    NoRandom(getrandom::Error),
    #[error("{0}")]
    Fault(String),
}

impl From<Box<Denied>> for IdentityError {
    fn from(denied: Box<Denied>) -> Self {
        Self::Denied(denied)
    }
}

impl From<rusqlite::Error> for IdentityError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl IdentityError {
    /// What the caller is told; what we know goes to the log, under the same request ID.
    pub fn told(&self) -> ApiError {
        let (status, code) = match self {
            Self::NoSuchEntity(_) => (StatusCode::NOT_FOUND, "NoSuchEntity"),
            Self::EntityAlreadyExists(_) => (StatusCode::CONFLICT, "EntityAlreadyExists"),
            Self::DeleteConflict(_) => (StatusCode::CONFLICT, "DeleteConflict"),
            Self::LimitExceeded(_) => (StatusCode::CONFLICT, "LimitExceeded"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "MalformedPolicyDocument"),
            Self::InvalidInput(_) => (StatusCode::BAD_REQUEST, "InvalidInput"),
            Self::Validation(_) => (StatusCode::BAD_REQUEST, "ValidationError"),
            Self::PackedPolicyTooLarge(_) => (StatusCode::BAD_REQUEST, "PackedPolicyTooLarge"),
            Self::Denied(denied) => return ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", told_denial(denied)),
            Self::NotAllowed(_) => (StatusCode::FORBIDDEN, "AccessDenied"),
            Self::NoIamWithSession => {
                let message = "The security token included in the request is invalid: IAM is not served to sessions of \
                               GetSessionToken.";
                return ApiError::new(StatusCode::FORBIDDEN, "InvalidClientTokenId", message);
            }
            Self::InvalidAction(_) => (StatusCode::BAD_REQUEST, "InvalidAction"),
            Self::MissingAction => {
                let message = "One of Action or a signed version of Action is required.";
                return ApiError::new(StatusCode::BAD_REQUEST, "MissingAction", message);
            }
            Self::Unreadable(_) => (StatusCode::BAD_REQUEST, "MalformedInput"),
            Self::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
            Self::Store(error) if error.is_full() => {
                let message = "The server has no room on its disk for this now. Please try again later.";
                return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
            }
            Self::Damaged(_) | Self::Store(_) | Self::Seal(_) | Self::NoRandom(_) | Self::Fault(_) => {
                let message = "The request processing has failed because of an unknown error, exception or failure.";
                return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ServiceFailure", message);
            }
        };
        ApiError::new(status, code, self.to_string())
    }
}

/// A user or a role that the caller named without its path is told without it: with it, whoever may nothing could tell one that there
/// is from one that there is not. The audit log has the whole ARN.
fn told_denial(denied: &Denied) -> String {
    let of_iam = denied.action.starts_with("iam:");
    let without_path = || {
        let (account, entity) = denied.resource.rsplit_once(':')?;
        let (kind @ ("user" | "role"), path) = entity.split_once('/')? else { return None };
        Some(format!("{account}:{kind}/{}", path.rsplit('/').next()?))
    };
    match of_iam.then(without_path).flatten() {
        Some(resource) => Denied { resource, ..denied.clone() }.to_string(),
        None => denied.to_string(),
    }
}

/// Why a role cannot be assumed by a service.
#[derive(Debug, thiserror::Error)]
pub enum AssumeError {
    #[error("there is no role {0}")]
    NoSuchRole(String),
    /// Its trust policy does not let the service. `why` names statements of it, and with them other principals and what is asked
    /// of them: it is for whoever runs the server, and not among what is told ([`AssumeError::why`]).
    #[error("{role_arn} does not trust {service}")]
    NotTrusted { role_arn: String, service: String, why: String },
    /// No credentials could be made: a fault of this machine.
    #[error(transparent)]
    Fault(#[from] IdentityError),
}

impl AssumeError {
    /// What of the role is in the way, in a clause. For the server's log alone: whoever else wants to know needs `iam:GetRole`, and
    /// asks `longshore iam explain`.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::NotTrusted { why, .. } => Some(why),
            Self::NoSuchRole(_) | Self::Fault(_) => None,
        }
    }
}
