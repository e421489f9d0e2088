//! What the caller of a function sees when the function, or its runtime, did not answer.
//!
//! Each is an ordinary answer with `X-Amz-Function-Error: Unhandled`; the texts are AWS's. Source: Lambda specification
//! 1.8.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use bytes::Bytes;

/// The largest answer of a function in bytes: 6 MiB and 100 bytes, inclusive.
pub const RESPONSE_BYTES_MAX: usize = 6_291_556;

/// Why an environment failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The runtime posted this to `/init/error`.
    InitError(Bytes),
    /// The process ended; `None` if its status could not be had.
    Exit(Option<ExitStatus>),
    /// The function's time was up, in seconds.
    Timeout(u32),
    /// There is no program to run, or it cannot be run.
    InvalidEntrypoint(String),
    /// The connection broke in the middle of an answer.
    Truncated,
    /// Ours, not the function's: no process, no memory, no interpreter.
    Host(String),
}

impl Failure {
    /// The payload for the call `request_id`; `None` for a failure of ours, which is no function error.
    pub fn payload(&self, request_id: &str) -> Option<Bytes> {
        let message = match self {
            Failure::InitError(body) => return Some(body.clone()),
            Failure::Host(_) => return None,
            Failure::Exit(status) => match status {
                Some(status) if status.success() => "Runtime exited without providing a reason".to_owned(),
                Some(status) => format!("Runtime exited with error: {}", describe(*status)),
                None => "Runtime exited without providing a reason".to_owned(),
            },
            Failure::Timeout(seconds) => format!("Task timed out after {seconds}.00 seconds"),
            Failure::InvalidEntrypoint(what) => what.clone(),
            Failure::Truncated => "Runtime closed the connection before the end of its response".to_owned(),
        };
        Some(error_payload(self.error_type(), &format!("RequestId: {request_id} Error: {message}")))
    }

    /// The name by which AWS's payloads and `REPORT` lines call it.
    pub fn error_type(&self) -> &'static str {
        match self {
            Failure::InitError(_) => "Runtime.Unknown",
            Failure::Exit(_) => "Runtime.ExitError",
            Failure::Timeout(_) => "Sandbox.Timedout",
            Failure::InvalidEntrypoint(_) => "Runtime.InvalidEntrypoint",
            Failure::Truncated => "Runtime.TruncatedResponse",
            Failure::Host(_) => "ServiceException",
        }
    }
}

/// The payload for an answer that is too large.
pub(super) fn response_too_large() -> Bytes {
    error_payload(
        "Function.ResponseSizeTooLarge",
        &format!("Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES_MAX} bytes)."),
    )
}

fn error_payload(error_type: &str, message: &str) -> Bytes {
    let message = serde_json::Value::from(message);
    Bytes::from(format!(r#"{{"errorType":"{error_type}","errorMessage":{message}}}"#))
}

/// A status in the words of Go's `os.ProcessState`, which AWS's texts are made of.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
        (None, None) => "unknown status".to_owned(),
    }
}

/// Go's names of Linux signals (`syscall.Signal.String`).
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        16 => "stack fault",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        31 => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: Failure) -> String {
        String::from_utf8(failure.payload("8a6c").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn failures_are_told_in_the_words_of_aws() {
        let exit = |raw| Failure::Exit(Some(ExitStatus::from_raw(raw)));
        for (failure, expected) in [
            (
                exit(0),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited without providing a reason"}"#,
            ),
            (
                exit(127 << 8),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: exit status 127"}"#,
            ),
            (
                exit(9),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: signal: killed"}"#,
            ),
            (
                exit(11 | 0x80),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: signal: segmentation fault"}"#,
            ),
            (
                Failure::Timeout(3),
                r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 8a6c Error: Task timed out after 3.00 seconds"}"#,
            ),
        ] {
            assert_eq!(told(failure), expected);
        }
        assert_eq!(told(Failure::InitError(Bytes::from_static(b"as posted"))), "as posted");
        assert!(Failure::Host("no".into()).payload("8a6c").is_none());
        assert_eq!(
            response_too_large(),
            r#"{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}"#
        );
    }
}
