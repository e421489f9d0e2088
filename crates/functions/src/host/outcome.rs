//! What the caller of a function sees when the function, or its runtime, did not answer.
//!
//! Each is an ordinary answer with `X-Amz-Function-Error: Unhandled`; the texts are AWS's. Source: Lambda specification
//! 1.8.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use bytes::Bytes;

use super::lines::Status;

/// The largest answer of a function in bytes: 6 MiB and 100 bytes, inclusive.
pub const RESPONSE_BYTES_MAX: usize = 6_291_556;

/// Why an environment failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The runtime posted this to `/init/error`, and called it so.
    InitError { payload: Bytes, error_type: String },
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
    /// The disk has no room for another environment: it passes.
    NoSpace(String),
}

impl Failure {
    /// A failure of ours, by what was tried: a full disk apart from the rest.
    pub fn of_io(what: &str, error: &std::io::Error) -> Self {
        let told = format!("{what}: {error}");
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::NoSpace(told),
            _ => Failure::Host(told),
        }
    }

    /// What happened, in AWS's words; `None` where the runtime said it itself, and for a failure of ours.
    pub fn message(&self) -> Option<String> {
        Some(match self {
            Failure::InitError { .. } | Failure::Host(_) | Failure::NoSpace(_) => return None,
            Failure::Exit(Some(status)) if !status.success() => {
                format!("Runtime exited with error: {}", describe(*status))
            }
            Failure::Exit(_) => "Runtime exited without providing a reason".to_owned(),
            Failure::Timeout(seconds) => format!("Task timed out after {seconds}.00 seconds"),
            Failure::InvalidEntrypoint(what) => what.clone(),
            Failure::Truncated => "Runtime closed the connection before the end of its response".to_owned(),
        })
    }

    /// The payload for the call `request_id`; `None` for a failure of ours, which is no function error.
    pub fn payload(&self, request_id: &str) -> Option<Bytes> {
        if let Failure::InitError { payload, .. } = self {
            return Some(payload.clone());
        }
        let message = self.message()?;
        Some(error_payload(self.error_type(), &format!("RequestId: {request_id} Error: {message}")))
    }

    /// The name by which AWS's payloads and `REPORT` lines call it.
    pub fn error_type(&self) -> &str {
        match self {
            Failure::InitError { error_type, .. } => error_type,
            Failure::Exit(_) => "Runtime.ExitError",
            Failure::Timeout(_) => "Sandbox.Timedout",
            Failure::InvalidEntrypoint(_) => "Runtime.InvalidEntrypoint",
            Failure::Truncated => "Runtime.TruncatedResponse",
            Failure::Host(_) | Failure::NoSpace(_) => "ServiceException",
        }
    }

    /// How the log tells it.
    pub fn status(&self) -> Status<'_> {
        match self {
            Failure::Timeout(_) => Status::Timeout,
            other => Status::Error(other.error_type()),
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
        (None, Some(signal)) => {
            let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {}{dumped}", signal_name(signal))
        }
        (None, None) => "unknown status".to_owned(),
    }
}

/// Go's names of Linux's signals from 1 on (`syscall.Signal.String`).
const SIGNALS: [&str; 31] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
    "stack fault",
    "child exited",
    "continued",
    "stopped (signal)",
    "stopped",
    "stopped (tty input)",
    "stopped (tty output)",
    "urgent I/O condition",
    "CPU time limit exceeded",
    "file size limit exceeded",
    "virtual timer expired",
    "profiling timer expired",
    "window changed",
    "I/O possible",
    "power failure",
    "bad system call",
];

fn signal_name(signal: i32) -> String {
    let known = usize::try_from(signal).ok().and_then(|n| SIGNALS.get(n.checked_sub(1)?));
    known.map_or_else(|| format!("signal {signal}"), |name| (*name).to_owned())
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
                exit(11),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: signal: segmentation fault"}"#,
            ),
            (
                exit(6 | 0x80),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: signal: aborted (core dumped)"}"#,
            ),
            (
                exit(31),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: signal: bad system call"}"#,
            ),
            (
                exit(34),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a6c Error: Runtime exited with error: signal: signal 34"}"#,
            ),
            (
                Failure::InvalidEntrypoint("fork/exec /var/task/bootstrap: no such file or directory".into()),
                r#"{"errorType":"Runtime.InvalidEntrypoint","errorMessage":"RequestId: 8a6c Error: fork/exec /var/task/bootstrap: no such file or directory"}"#,
            ),
            (
                Failure::Timeout(3),
                r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 8a6c Error: Task timed out after 3.00 seconds"}"#,
            ),
        ] {
            assert_eq!(told(failure), expected);
        }
        let init =
            Failure::InitError { payload: Bytes::from_static(b"as posted"), error_type: "Runtime.Unknown".into() };
        assert_eq!(told(init), "as posted");
        assert!(Failure::Host("no".into()).payload("8a6c").is_none());
        assert!(Failure::NoSpace("no".into()).payload("8a6c").is_none());
        assert_eq!(
            response_too_large(),
            r#"{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}"#
        );
    }

    #[test]
    fn a_full_disk_is_told_apart_from_what_does_not_pass() {
        let of = |kind| Failure::of_io("a folder", &std::io::Error::from(kind));
        for full in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert!(matches!(of(full), Failure::NoSpace(told) if told.starts_with("a folder: ")));
        }
        assert!(matches!(of(ErrorKind::PermissionDenied), Failure::Host(told) if told.starts_with("a folder: ")));
    }
}
