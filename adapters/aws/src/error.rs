//! What went wrong at a store, in the words in which the engine takes it.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use longshore_jobs::ports::ObjectError;

use crate::credentials::{CredentialsFailed, failed};

/// Characters of a store's message or of a chain of causes that are passed on: they end in logs and failure reasons.
const MESSAGE_MAX: usize = 400;

/// Codes that ask for patience with a status below 500.
const PASSING: [&str; 7] = [
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeTooSkewed",
];

/// An error and what caused it, each once, on one line.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    bounded(&text)
}

fn bounded(text: &str) -> String {
    let plain: String = text.chars().take(MESSAGE_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.trim().to_owned()
}

pub(crate) fn passing(code: &str, message: impl Into<String>) -> ObjectError {
    ObjectError { code: code.into(), message: message.into(), passing: true }
}

pub(crate) fn lasting(code: &str, message: impl Into<String>) -> ObjectError {
    ObjectError { code: code.into(), message: message.into(), passing: false }
}

/// Turns what the SDK says of a call into the engine's words. `endpoint` is named where the store said nothing.
///
/// A store's own code and message are kept. Without them the status decides, as for HEAD, whose answers have no body. An
/// answer that cannot be read, a connection that breaks and a time-out pass; a call that cannot be made does not.
pub(crate) fn told<E>(endpoint: &str, error: &SdkError<E, HttpResponse>) -> ObjectError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    if let Some(found) = find_credentials_error(error) {
        return without_credentials(&failed(&format!("endpoint {endpoint}"), found));
    }
    match error {
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            let (code, message) = (context.err().code(), context.err().message());
            if code.is_none() && context.raw().status().is_success() {
                return passing("InvalidResponse", format!("endpoint {endpoint}: its answer ({status}) is not S3's"));
            }
            from_store(endpoint, status, code, message)
        }
        SdkError::ResponseError(context) => {
            let status = context.raw().status().as_u16();
            let said = with_causes(error);
            if status >= 400 {
                return from_store(endpoint, status, None, Some(&said));
            }
            passing("InvalidResponse", format!("endpoint {endpoint}: its answer ({status}) cannot be read: {said}"))
        }
        SdkError::TimeoutError(_) => passing("RequestTimeout", format!("endpoint {endpoint} did not answer in time")),
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            lasting("InvalidRequest", format!("endpoint {endpoint}: {}", with_causes(error)))
        }
        SdkError::DispatchFailure(_) => {
            passing("ServiceUnavailable", format!("endpoint {endpoint} cannot be reached: {}", with_causes(error)))
        }
        _ => lasting("InvalidRequest", format!("endpoint {endpoint}: {}", with_causes(error))),
    }
}

fn without_credentials(error: &CredentialsFailed) -> ObjectError {
    match error {
        CredentialsFailed::Unavailable { .. } => passing("ServiceUnavailable", error.to_string()),
        _ => lasting("AccessDenied", error.to_string()),
    }
}

fn find_credentials_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e CredentialsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// What a status, and perhaps a code, amount to.
pub(crate) fn from_store(endpoint: &str, status: u16, code: Option<&str>, message: Option<&str>) -> ObjectError {
    // The SDK's own names for HEAD's 404, and none for the rest.
    let code = code.filter(|code| !code.is_empty() && *code != "NotFound").unwrap_or(match status {
        301 | 307 => "PermanentRedirect",
        304 | 412 => "PreconditionFailed",
        400 => "InvalidRequest",
        401 | 403 => "AccessDenied",
        404 => "NoSuchKey",
        405 => "MethodNotAllowed",
        408 => "RequestTimeout",
        416 => "InvalidRange",
        429 => "SlowDown",
        501 => "NotImplemented",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    });
    let said = message.map(bounded).filter(|m| !m.is_empty());
    let message = said.unwrap_or_else(|| format!("endpoint {endpoint} answered {status}"));
    let passes = (status >= 500 && status != 501) || matches!(status, 408 | 429) || PASSING.contains(&code);
    // A success that carries an error (200 and <Error>) is one of the store's own, and worth another try.
    let passes = passes || (200..300).contains(&status) && matches!(code, "InternalError" | "ServiceUnavailable");
    ObjectError { code: code.to_owned(), message, passing: passes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_asked_again_after_trouble_of_its_own_and_not_after_a_refusal() {
        let cases = [
            (503, Some("SlowDown"), "SlowDown", true),
            (400, Some("RequestTimeout"), "RequestTimeout", true),
            (500, None, "InternalError", true),
            (502, None, "InternalError", true),
            (429, None, "SlowDown", true),
            (501, None, "NotImplemented", false),
            (403, None, "AccessDenied", false),
            (404, Some("NotFound"), "NoSuchKey", false),
            (404, Some("NoSuchBucket"), "NoSuchBucket", false),
            (412, None, "PreconditionFailed", false),
            (301, None, "PermanentRedirect", false),
            (200, Some("InternalError"), "InternalError", true),
            (200, Some("AccessDenied"), "AccessDenied", false),
        ];
        for (status, code, told, passes) in cases {
            let error = from_store("e", status, code, None);
            assert_eq!((error.code.as_str(), error.passing), (told, passes), "{status} {code:?}");
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let error = from_store("e", 403, Some("AccessDenied"), Some(&format!("a\nb{}", "c".repeat(1_000))));
        assert_eq!(error.message.len(), MESSAGE_MAX);
        assert!(error.message.starts_with("a b"));
    }
}
