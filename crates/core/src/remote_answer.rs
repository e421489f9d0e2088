//! What a function elsewhere answered over HTTP: status and bytes in, the reply that the decision table reads out.

use bytes::Bytes;
use serde_json::Value;

use crate::invocation::Reply;

/// Bytes of an answer, at most: Lambda's own limit, 6 MiB and 100 bytes. Whoever reads one may stop there.
pub const ANSWER_BYTES_MAX: usize = 6_291_556;

/// Characters of a message that are kept: the report has 1,024, and an error may come with megabytes.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answerer {
    /// The Lambda API.
    Lambda,
    /// AWS's runtime interface emulator, which is less: see [`emulated`].
    Emulator,
}

/// What counts of an answer's head. Header values as they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head<'a> {
    pub status: u16,
    /// Whether there is an `X-Amz-Function-Error`.
    pub function_error: bool,
    /// `x-amzn-ErrorType`.
    pub error_type: Option<&'a str>,
    /// `Retry-After`: seconds, or a date, which is not read.
    pub retry_after: Option<&'a str>,
}

/// Reads an answer; `body` is `None` where it is longer than [`ANSWER_BYTES_MAX`].
/// Source: S3 Batch spec 5.5, R-1 to R-5, and 5.7.
pub fn reply(from: Answerer, head: &Head<'_>, body: Option<Bytes>) -> Reply {
    let Some(body) = body else {
        return match head.status {
            200 => Reply::FunctionError(Bytes::from(format!(
                r#"{{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."}}"#
            ))),
            _ => refused(head, &[]),
        };
    };
    if from == Answerer::Emulator
        && let Some(reply) = emulated(head.status, &body)
    {
        return reply;
    }
    match head.status {
        200 if head.function_error => Reply::FunctionError(body),
        200 => Reply::Answer(body),
        _ => refused(head, &body),
    }
}

/// What the emulator says otherwise than Lambda does; `None` where it does not.
///
/// It has no `X-Amz-Function-Error`: an error is an ordinary answer, a time-out is plain text, and an exit a 502. It runs
/// one invocation at a time, and answers 400 without a body to another.
fn emulated(status: u16, body: &Bytes) -> Option<Reply> {
    let object = || match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    match status {
        200 if body.starts_with(b"Task timed out") => {
            let message = String::from_utf8_lossy(body);
            let wrapped = serde_json::json!({ "errorMessage": message.trim_end() });
            Some(Reply::FunctionError(Bytes::from(wrapped.to_string())))
        }
        200 => {
            let failed = object().is_some_and(|o| o.contains_key("errorMessage") && !o.contains_key("results"));
            failed.then(|| Reply::FunctionError(body.clone()))
        }
        502 => object().is_some_and(|o| o.contains_key("errorMessage")).then(|| Reply::FunctionError(body.clone())),
        400 if body.is_empty() => {
            let message = "The runtime interface emulator runs another invocation.".to_owned();
            Some(Reply::Throttled { message, retry_after_ms: None })
        }
        _ => None,
    }
}

/// An error of the API itself: it is named by its header, or in its body.
fn refused(head: &Head<'_>, body: &[u8]) -> Reply {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name)?.as_str().filter(|text| !text.is_empty());
    let message = ["message", "Message"].iter().find_map(|name| text(name));
    let message = match message {
        Some(message) => message.chars().take(MESSAGE_CHARS_MAX).collect(),
        None => format!("HTTP status {} without a message", head.status),
    };
    if head.status == 429 {
        let seconds = head.retry_after.and_then(|text| text.trim().parse::<u64>().ok());
        return Reply::Throttled { message, retry_after_ms: seconds.map(|s| s.saturating_mul(1_000)) };
    }
    // Lambda's `Type` says whose fault it was, and no more; others name the error there.
    let of_type = || text("Type").filter(|kind| !matches!(*kind, "User" | "Service" | "Sender" | "Receiver"));
    let code = head.error_type.or_else(|| text("__type")).or_else(|| text("code")).or_else(of_type);
    // `Name:http://…` in the header, `namespace#Name` in the body.
    let code = code.and_then(|code| code.split(':').next()?.rsplit('#').next()).map_or("", str::trim);
    let code = if code.is_empty() { "UnknownError" } else { code };
    Reply::Refused { status: head.status, code: code.chars().take(MESSAGE_CHARS_MAX).collect(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Reply {
        Reply::Answer(Bytes::from(text.to_owned()))
    }

    fn error(text: &str) -> Reply {
        Reply::FunctionError(Bytes::from(text.to_owned()))
    }

    fn no(status: u16, code: &str, message: &str) -> Reply {
        Reply::Refused { status, code: code.into(), message: message.into() }
    }

    fn throttled(message: &str, retry_after_ms: Option<u64>) -> Reply {
        Reply::Throttled { message: message.into(), retry_after_ms }
    }

    fn read(from: Answerer, head: Head<'_>, body: &str) -> Reply {
        reply(from, &head, Some(Bytes::from(body.to_owned())))
    }

    #[test]
    fn an_answer_of_lambda_is_read_by_its_status_and_its_headers() {
        let of = |status, error_type| Head { status, error_type, ..Head::default() };
        let after = |retry_after| Head { status: 429, retry_after: Some(retry_after), ..Head::default() };
        let failed = Head { status: 200, function_error: true, ..Head::default() };
        let missing = r#"{"Type":"User","Message":"Function not found: f"}"#;
        let rate = r#"{"Reason":"CallerRateLimitExceeded","Type":"User","message":"Rate Exceeded."}"#;
        let cases = [
            (of(200, None), r#"{"results":[]}"#, answer(r#"{"results":[]}"#)),
            (of(200, None), "", answer("")),
            // What only the emulator says is an ordinary answer here.
            (of(200, None), r#"{"errorMessage":"m"}"#, answer(r#"{"errorMessage":"m"}"#)),
            (of(200, None), "Task timed out after 3.00 seconds", answer("Task timed out after 3.00 seconds")),
            (failed, r#"{"errorMessage":"m"}"#, error(r#"{"errorMessage":"m"}"#)),
            (of(429, Some("TooManyRequestsException")), rate, throttled("Rate Exceeded.", None)),
            (after("7"), rate, throttled("Rate Exceeded.", Some(7_000))),
            (after("Fri, 27 Nov 2026 16:00:00 GMT"), rate, throttled("Rate Exceeded.", None)),
            (after("99999999999999999999"), rate, throttled("Rate Exceeded.", None)),
            (
                of(404, Some("ResourceNotFoundException:http://internal.amazon.com/coral/")),
                missing,
                no(404, "ResourceNotFoundException", "Function not found: f"),
            ),
            (of(404, None), missing, no(404, "UnknownError", "Function not found: f")),
            (of(403, None), r#"{"__type":"a.b#AccessDenied","message":"m"}"#, no(403, "AccessDenied", "m")),
            (of(400, None), r#"{"code":"Bad","message":"m"}"#, no(400, "Bad", "m")),
            (of(400, None), r#"{"Type":"Bad","message":"m"}"#, no(400, "Bad", "m")),
            (of(400, None), "", no(400, "UnknownError", "HTTP status 400 without a message")),
            (of(502, None), "<html>", no(502, "UnknownError", "HTTP status 502 without a message")),
            (of(502, None), r#"{"errorMessage":"m"}"#, no(502, "UnknownError", "HTTP status 502 without a message")),
            (of(500, Some("ServiceException")), r#"{"Message":"m"}"#, no(500, "ServiceException", "m")),
            (of(307, None), "", no(307, "UnknownError", "HTTP status 307 without a message")),
            (of(202, None), "", no(202, "UnknownError", "HTTP status 202 without a message")),
        ];
        for (head, body, wanted) in cases {
            assert_eq!(read(Answerer::Lambda, head, body), wanted, "{head:?} {body}");
        }
    }

    #[test]
    fn an_answer_of_the_emulator_is_read_as_what_lambda_would_have_said() {
        let raised = r#"{"errorMessage":"m","errorType":"E"}"#;
        let both = r#"{"errorMessage":"m","results":[]}"#;
        let busy = "The runtime interface emulator runs another invocation.";
        let cases = [
            (200, r#"{"results":[]}"#, answer(r#"{"results":[]}"#)),
            (200, raised, error(raised)),
            (200, both, answer(both)),
            (200, r#"["errorMessage"]"#, answer(r#"["errorMessage"]"#)),
            (
                200,
                "Task timed out after 3.00 seconds\n",
                error(r#"{"errorMessage":"Task timed out after 3.00 seconds"}"#),
            ),
            (200, r#""Task timed out""#, answer(r#""Task timed out""#)),
            (502, raised, error(raised)),
            (502, "", no(502, "UnknownError", "HTTP status 502 without a message")),
            (504, raised, no(504, "UnknownError", "HTTP status 504 without a message")),
            (400, "", throttled(busy, None)),
            (400, r#"{"message":"m"}"#, no(400, "UnknownError", "m")),
            (404, "404 page not found", no(404, "UnknownError", "HTTP status 404 without a message")),
        ];
        for (status, body, wanted) in cases {
            let head = Head { status, ..Head::default() };
            assert_eq!(read(Answerer::Emulator, head, body), wanted, "{status} {body}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_an_error_of_the_function_and_a_long_message_is_cut() {
        for from in [Answerer::Lambda, Answerer::Emulator] {
            let Reply::FunctionError(payload) = reply(from, &Head { status: 200, ..Head::default() }, None) else {
                panic!("{from:?}")
            };
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(payload["errorType"], "Function.ResponseSizeTooLarge");
            let head = Head { status: 503, error_type: Some("E"), ..Head::default() };
            assert_eq!(reply(from, &head, None), no(503, "E", "HTTP status 503 without a message"));
        }
        let long = format!(r#"{{"message":"{}"}}"#, "ü".repeat(5_000));
        let head = Head { status: 500, ..Head::default() };
        assert_eq!(read(Answerer::Lambda, head, &long), no(500, "UnknownError", &"ü".repeat(1_024)));
    }
}
