//! Why a request was not let in, and what its sender is told.

use http::StatusCode;

use super::{SKEW_SECONDS_MAX, date};
use crate::error::ApiError;
use crate::payload::PayloadError;

/// Whose words an error is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// S3 and S3 Control; they differ in the wrapper alone.
    S3,
    /// Lambda, and the other services with JSON errors.
    Lambda,
    /// IAM and STS.
    Query,
}

/// What a client needs to find out why its signature differs. All of it came from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub access_key_id: String,
    pub string_to_sign: String,
    pub provided: String,
    pub canonical: String,
}

/// Why a request is not from whom it says. [`AuthError::told`] makes the answer; the text here is for the log and
/// holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the request is anonymous")]
    Missing,
    #[error("the request has more than one authentication")]
    TwoAuthentications,
    #[error("{0} comes more than once")]
    Duplicate(&'static str),
    #[error("signature version 2 or 4A")]
    OldSignature,
    #[error("an unknown authentication scheme")]
    Scheme,
    #[error("{what} is missing or malformed (presigned: {presigned})")]
    Malformed { presigned: bool, what: &'static str },
    #[error("the request has neither x-amz-date nor date")]
    DateMissing,
    #[error("the request's date is malformed")]
    Date,
    #[error("the credential scope has another date than the request")]
    ScopeDate,
    #[error("x-amz-expires is not between 1 and 604800 seconds")]
    ExpiresRange,
    #[error("not signed: {0}")]
    HeadersNotSigned(String),
    #[error("signed but not sent: {0}")]
    SignedHeaderAbsent(String),
    #[error("the path has empty or dot segments")]
    Path,
    #[error("x-amz-content-sha256 is missing")]
    PayloadHashMissing,
    #[error("x-amz-content-sha256 is of no form that can be checked here")]
    PayloadForm,
    #[error("the body is unsigned, which is not allowed here")]
    UnsignedPayload,
    #[error("the credential scope names service {given}")]
    Service { given: String, presigned: bool },
    #[error("the credential scope names region {given}, expected {expected}")]
    Region { given: String, expected: String, presigned: bool },
    #[error("the request's time {date_time} is too far from ours, {now}")]
    Skewed { request: i64, now: i64, date_time: String },
    #[error("the presigned URL is not valid before {from}")]
    NotYetValid { now: i64, from: i64 },
    #[error("the presigned URL expired at {at}")]
    Expired { seconds: u32, at: i64, now: i64 },
    #[error("no secret is known for the access key {0}")]
    UnknownKey(String),
    #[error("the signature of {} does not match", .0.access_key_id)]
    Signature(Box<Mismatch>),
    #[error("the session token is missing, superfluous or another's")]
    Token,
    #[error("the session token has expired")]
    TokenExpired,
    #[error("{0}")]
    Payload(#[from] PayloadError),
    /// A mistake of the server, not of the caller.
    #[error("the hash of the body is needed to verify this request and was not given")]
    BodyNotHashed,
}

impl AuthError {
    pub(super) fn malformed(presigned: bool, what: &'static str) -> Self {
        Self::Malformed { presigned, what }
    }

    /// What the sender is told, in the service's own codes. 403, but for the cases where AWS says 400.
    pub fn told(&self, dialect: Dialect) -> ApiError {
        match dialect {
            Dialect::S3 => self.s3(),
            Dialect::Lambda => self.lambda(),
            Dialect::Query => self.query(),
        }
    }

    fn s3(&self) -> ApiError {
        let denied = |message: &str| ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", message);
        let forbidden = |code: &'static str, message: &str| ApiError::new(StatusCode::FORBIDDEN, code, message);
        let bad = |code: &'static str, message: String| ApiError::new(StatusCode::BAD_REQUEST, code, message);
        let malformed = |presigned: bool, message: String| {
            if presigned {
                bad("AuthorizationQueryParametersError", message)
            } else {
                bad("AuthorizationHeaderMalformed", format!("The authorization header is malformed; {message}"))
            }
        };
        match self {
            Self::Missing => denied("Access Denied"),
            Self::TwoAuthentications => bad(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
                 parameter or the Authorization header should be specified"
                    .to_owned(),
            ),
            Self::Duplicate(name) => bad("InvalidArgument", format!("{name} must be given once.")),
            Self::OldSignature => bad(
                "InvalidRequest",
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
                    .to_owned(),
            ),
            Self::Scheme => bad("InvalidArgument", "Unsupported Authorization Type".to_owned()),
            Self::Malformed { presigned, what } => {
                malformed(*presigned, format!("{what} is missing or not in the form that Signature Version 4 needs."))
            }
            Self::DateMissing | Self::Date => {
                denied("AWS authentication requires a valid Date or x-amz-date header")
            }
            Self::ScopeDate => malformed(false, "the credential's date is not the date of the request.".to_owned()),
            Self::ExpiresRange => malformed(
                true,
                "X-Amz-Expires must be between 1 and 604800 seconds.".to_owned(),
            ),
            Self::HeadersNotSigned(names) => {
                denied("There were headers present in the request which were not signed").with("HeadersNotSigned", names)
            }
            Self::SignedHeaderAbsent(name) => {
                denied("There were headers signed which were not present in the request").with("HeadersNotPresent", name)
            }
            Self::Path => forbidden(SIGNATURE, SIGNATURE_MESSAGE),
            Self::PayloadHashMissing => bad(
                "InvalidRequest",
                "Missing required header for this request: x-amz-content-sha256".to_owned(),
            ),
            Self::PayloadForm => bad(
                "InvalidArgument",
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
                 STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
                    .to_owned(),
            ),
            Self::UnsignedPayload => denied("This server takes no unsigned payload over an unencrypted connection."),
            Self::Service { given, presigned } => {
                malformed(*presigned, format!("incorrect service \"{given}\". This endpoint belongs to \"s3\"."))
            }
            Self::Region { given, expected, presigned } => {
                malformed(*presigned, format!("the region '{given}' is wrong; expecting '{expected}'"))
                    .with("Region", expected)
            }
            Self::Skewed { now, date_time, .. } => forbidden(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            )
            .with("RequestTime", date_time)
            .with("ServerTime", date::format_extended(*now))
            .with("MaxAllowedSkewMilliseconds", (SKEW_SECONDS_MAX * 1000).to_string()),
            Self::NotYetValid { now, from } => denied("Request is not valid yet")
                .with("X-Amz-Date", date::format_basic(*from))
                .with("ServerTime", date::format_extended(*now)),
            Self::Expired { seconds, at, now } => denied("Request has expired")
                .with("X-Amz-Expires", seconds.to_string())
                .with("Expires", date::format_extended(*at))
                .with("ServerTime", date::format_extended(*now)),
            Self::UnknownKey(id) => {
                forbidden("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
                    .with("AWSAccessKeyId", id)
            }
            Self::Signature(mismatch) => forbidden(SIGNATURE, SIGNATURE_MESSAGE)
                .with("AWSAccessKeyId", &mismatch.access_key_id)
                .with("StringToSign", &mismatch.string_to_sign)
                .with("SignatureProvided", &mismatch.provided)
                .with("CanonicalRequest", &mismatch.canonical),
            Self::Token => bad("InvalidToken", "The provided token is malformed or otherwise invalid.".to_owned()),
            Self::TokenExpired => bad("ExpiredToken", "The provided token has expired.".to_owned()),
            Self::Payload(error) => error.told(),
            Self::BodyNotHashed => ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "We encountered an internal error. Please try again.",
            ),
        }
    }

    /// As Lambda says it, under the names that IAM and STS have. Source: IAM API reference, "Common errors".
    fn query(&self) -> ApiError {
        let said = self.lambda();
        let (status, code) = match &*said.code {
            "MissingAuthenticationTokenException" => (StatusCode::FORBIDDEN, "MissingAuthenticationToken"),
            "IncompleteSignatureException" => (StatusCode::BAD_REQUEST, "IncompleteSignature"),
            "UnrecognizedClientException" => (StatusCode::FORBIDDEN, "InvalidClientTokenId"),
            "ExpiredTokenException" => (StatusCode::FORBIDDEN, "ExpiredToken"),
            "InvalidSignatureException" => (StatusCode::FORBIDDEN, SIGNATURE),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
        };
        ApiError::new(status, code, said.message)
    }

    fn lambda(&self) -> ApiError {
        let forbidden = |code: &'static str, message: String| ApiError::new(StatusCode::FORBIDDEN, code, message);
        let incomplete = |message: String| forbidden("IncompleteSignatureException", message);
        let mismatch = |message: String| forbidden("InvalidSignatureException", message);
        match self {
            Self::Missing => {
                forbidden("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned())
            }
            Self::OldSignature | Self::Scheme => {
                incomplete("The authorization mechanism is not supported. Use AWS4-HMAC-SHA256.".to_owned())
            }
            Self::TwoAuthentications
            | Self::Duplicate(_)
            | Self::Malformed { .. }
            | Self::DateMissing
            | Self::Date
            | Self::ExpiresRange
            | Self::PayloadHashMissing
            | Self::PayloadForm => {
                incomplete(format!("The request is not signed as Signature Version 4 needs: {self}."))
            }
            Self::HeadersNotSigned(names) => {
                mismatch(format!("These headers must be in 'SignedHeaders' in the AWS Authorization header: {names}."))
            }
            Self::SignedHeaderAbsent(name) => mismatch(format!("'{name}' is signed but was not sent.")),
            Self::ScopeDate => mismatch("Date in Credential scope does not match the date of the request.".to_owned()),
            Self::Service { given, .. } => {
                mismatch(format!("Credential should be scoped to correct service, not '{given}'."))
            }
            Self::Region { .. } => mismatch("Credential should be scoped to a valid region.".to_owned()),
            Self::Skewed { request, now, date_time } => {
                let now = date::format_basic(*now);
                mismatch(if date::format_basic(*request) < now {
                    format!("Signature expired: {date_time} is now earlier than {now} less 15 min.")
                } else {
                    format!("Signature not yet current: {date_time} is still later than {now} plus 15 min.")
                })
            }
            Self::NotYetValid { from, .. } => {
                mismatch(format!("Signature not yet current: valid from {}.", date::format_basic(*from)))
            }
            Self::Expired { at, .. } => mismatch(format!("Signature expired at {}.", date::format_basic(*at))),
            Self::UnknownKey(_) | Self::Token => forbidden(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.".to_owned(),
            ),
            Self::TokenExpired => {
                forbidden("ExpiredTokenException", "The security token included in the request is expired".to_owned())
            }
            Self::Path | Self::UnsignedPayload | Self::Signature(_) | Self::Payload(_) => {
                mismatch(LAMBDA_SIGNATURE_MESSAGE.to_owned())
            }
            Self::BodyNotHashed => ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ServiceException",
                "Internal error. Please try again.",
            ),
        }
    }
}

const SIGNATURE: &str = "SignatureDoesNotMatch";
const SIGNATURE_MESSAGE: &str = "The request signature we calculated does not match the signature you provided. \
                                 Check your key and signing method.";
const LAMBDA_SIGNATURE_MESSAGE: &str = "The request signature we calculated does not match the signature you provided. \
                                        Check your AWS Secret Access Key and signing method. \
                                        Consult the service documentation for details.";
