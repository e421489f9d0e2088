//! The lines that Lambda itself writes into a function's log, as text and as JSON.
//!
//! Pure: times and figures are given. The texts are recorded from AWS (Lambda specification 1.14), tabs included; the
//! JSON records are those of AWS's pages on log formats and on log levels.

use std::time::Duration;

use longshore_core::pool::Kind;
use serde_json::{Value, json};

use super::LogFormat;

/// How important AWS takes a line of its own to be; `LoggingConfig.SystemLogLevel` names the least that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Warn,
}

/// How one function's lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    format: LogFormat,
    least: Level,
    kind: Kind,
}

/// What became of a start or of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status<'a> {
    Success,
    /// With the name of the error, as `Runtime.ExitError`.
    Error(&'a str),
    Timeout,
}

impl Status<'_> {
    fn word(self) -> &'static str {
        match self {
            Status::Success => "success",
            Status::Error(_) => "error",
            Status::Timeout => "timeout",
        }
    }

    /// Success is as important as `level`, anything else is a warning.
    fn level(self, level: Level) -> Level {
        if self == Status::Success { level } else { Level::Warn }
    }

    /// As text lines end with it; nothing for success.
    fn text(self) -> String {
        match self {
            Status::Success => String::new(),
            Status::Error(error_type) => format!("Status: error\tError Type: {error_type}"),
            Status::Timeout => "Status: timeout".to_owned(),
        }
    }

    fn put(self, record: &mut Value) {
        record["status"] = self.word().into();
        if let Status::Error(error_type) = self {
            record["errorType"] = error_type.into();
        }
    }
}

/// The figures of an invocation that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub duration: Duration,
    /// Of the start before it; of the first invocation of an environment alone.
    pub init: Option<Duration>,
    pub memory_mib: u32,
    pub used_mib: u64,
    /// Bytes of the answer.
    pub produced: usize,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// To the microsecond, as AWS's JSON records have it.
fn ms_rounded(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

impl Writer {
    /// `system_level` is `DEBUG`, `INFO` or `WARN`; INFO if it is not said. It has no meaning in text.
    pub fn new(format: LogFormat, system_level: Option<&str>, kind: Kind) -> Self {
        let least = match system_level {
            Some("DEBUG") => Level::Debug,
            Some("WARN") => Level::Warn,
            _ => Level::Info,
        };
        Self { format, least, kind }
    }

    fn initialization(&self) -> &'static str {
        match self.kind {
            Kind::Provisioned => "provisioned-concurrency",
            Kind::OnDemand | Kind::Again => "on-demand",
        }
    }

    /// A start that is on the clock of its first invocation belongs to that.
    fn phase(&self) -> &'static str {
        match self.kind {
            Kind::Again => "invoke",
            Kind::OnDemand | Kind::Provisioned => "init",
        }
    }

    fn record(&self, now: jiff::Timestamp, level: Level, kind: &str, record: Value) -> String {
        if level < self.least {
            return String::new();
        }
        format!("{{\"time\":\"{now:.3}\",\"type\":\"platform.{kind}\",\"record\":{record}}}\n")
    }

    /// An environment begins to start. `runtime` as `python:3.12.v38`.
    pub fn init_start(
        &self,
        now: jiff::Timestamp,
        runtime: &str,
        arn: &str,
        function: &str,
        version: &str,
        memory_mib: u32,
    ) -> String {
        if self.format == LogFormat::Text {
            return format!("INIT_START Runtime Version: {runtime}\tRuntime Version ARN: {arn}\n");
        }
        let record = json!({
            "initializationType": self.initialization(), "phase": self.phase(), "runtimeVersion": runtime,
            "runtimeVersionArn": arn, "functionName": function, "functionVersion": version, "instanceMaxMemory": u64::from(memory_mib) << 20,
        });
        self.record(now, Level::Info, "initStart", record)
    }

    /// A start is over, well or not. Text says so only if it went wrong.
    pub fn init_end(&self, now: jiff::Timestamp, duration: Duration, status: Status) -> String {
        if self.format == LogFormat::Text {
            if status == Status::Success {
                return String::new();
            }
            let (ms, phase) = (ms(duration), self.phase());
            return format!("INIT_REPORT Init Duration: {ms:.2} ms\tPhase: {phase}\t{}\n", status.text());
        }
        let level = status.level(Level::Debug);
        let of_report = status.level(if self.kind == Kind::Provisioned { Level::Info } else { Level::Debug });
        let mut done = json!({"initializationType": self.initialization(), "phase": self.phase()});
        status.put(&mut done);
        let mut report = done.clone();
        report["metrics"] = json!({"durationMs": ms_rounded(duration)});
        self.record(now, level, "initRuntimeDone", done) + &self.record(now, of_report, "initReport", report)
    }

    pub fn start(&self, now: jiff::Timestamp, request_id: &str, version: &str) -> String {
        match self.format {
            LogFormat::Text => format!("START RequestId: {request_id} Version: {version}\n"),
            LogFormat::Json => {
                self.record(now, Level::Info, "start", json!({"requestId": request_id, "version": version}))
            }
        }
    }

    /// Why an invocation ended without an answer; `message` is that of the payload. JSON has it in its records.
    pub fn failure(&self, now: jiff::Timestamp, request_id: &str, status: Status, message: &str) -> String {
        match (self.format, status) {
            (LogFormat::Json, _) | (_, Status::Success) => String::new(),
            (LogFormat::Text, Status::Timeout) => format!("{now:.3} {request_id} {message}\n\n"),
            (LogFormat::Text, Status::Error(error_type)) => {
                format!("RequestId: {request_id} Error: {message}\n{error_type}\n")
            }
        }
    }

    /// An invocation is over: END and REPORT.
    pub fn end(&self, now: jiff::Timestamp, request_id: &str, status: Status, figures: Figures) -> String {
        use std::fmt::Write;
        let Figures { duration, init, memory_mib, used_mib, produced } = figures;
        let billed = duration.as_micros().div_ceil(1000);
        if self.format == LogFormat::Json {
            let mut done = json!({
                "requestId": request_id, "metrics": {"durationMs": ms_rounded(duration), "producedBytes": produced}
            });
            let mut report = json!({
                "requestId": request_id,
                "metrics": {
                    "durationMs": ms_rounded(duration), "billedDurationMs": u64::try_from(billed).unwrap_or(u64::MAX),
                    "memorySizeMB": memory_mib, "maxMemoryUsedMB": used_mib,
                },
            });
            if let Some(init) = init {
                report["metrics"]["initDurationMs"] = ms_rounded(init).into();
            }
            status.put(&mut done);
            status.put(&mut report);
            return self.record(now, status.level(Level::Debug), "runtimeDone", done)
                + &self.record(now, status.level(Level::Info), "report", report);
        }
        let mut lines = format!(
            "END RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: {:.2} ms\tBilled Duration: {billed} \
             ms\tMemory Size: {memory_mib} MB\tMax Memory Used: {used_mib} MB\t",
            ms(duration)
        );
        if let Some(init) = init {
            // Writing to a string cannot fail.
            let _ = write!(lines, "Init Duration: {:.2} ms\t", ms(init));
        }
        lines.push_str(&status.text());
        lines.push('\n');
        lines
    }
}

/// The name of a runtime's build as AWS writes it, `python:3.12.v38`: the identifier, and what of the interpreter's
/// version goes beyond it. A bootstrap has no version that we knew: `v0`.
pub(super) fn runtime_version(runtime: &str, interpreter: &str) -> String {
    let digits = runtime.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(runtime.len());
    let (family, version) = runtime.split_at(digits);
    let version = version.trim_start_matches('.').trim_end_matches(".x");
    let beyond = interpreter.split('.').nth(version.split('.').count()).unwrap_or("0");
    if version.is_empty() {
        return format!("{family}.v{beyond}");
    }
    format!("{family}:{version}.v{beyond}")
}

/// Which of a function's own lines are written: `LoggingConfig.ApplicationLogLevel`, for functions that log in JSON.
///
/// AWS reads the member `level` of a line that is a JSON object; any other line, and any other level, is INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Threshold(u8);

const APPLICATION_LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

impl Threshold {
    /// `None` if every line is written.
    pub fn new(format: LogFormat, level: Option<&str>) -> Option<Self> {
        let at = APPLICATION_LEVELS.iter().position(|known| Some(*known) == level)?;
        (format == LogFormat::Json && at > 0).then_some(Self(at as u8))
    }

    pub fn passes(self, line: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Levelled {
            level: Option<String>,
        }
        let said = line
            .trim_ascii_start()
            .starts_with(b"{")
            .then(|| serde_json::from_slice::<Levelled>(line).ok()?.level)
            .flatten()
            .map(|level| level.to_ascii_uppercase());
        let known = said.as_deref().map(|said| if said == "WARNING" { "WARN" } else { said });
        let at = APPLICATION_LEVELS.iter().position(|level| Some(*level) == known).unwrap_or(2);
        at as u8 >= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures = Figures {
        duration: Duration::from_micros(12_340),
        init: Some(Duration::from_millis(99)),
        memory_mib: 128,
        used_mib: 40,
        produced: 4,
    };

    fn now() -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(1_678_733_784_046).unwrap()
    }

    #[test]
    fn text_lines_are_lambdas_tabs_included() {
        let w = Writer::new(LogFormat::Text, Some("WARN"), Kind::OnDemand);
        let again = Writer::new(LogFormat::Text, None, Kind::Again);
        let later = Figures { init: None, ..FIGURES };
        for (line, expected) in [
            (
                w.init_start(now(), "python:3.12.v38", "arn:aws:lambda:r::runtime:ab", "f", "1", 128),
                "INIT_START Runtime Version: python:3.12.v38\tRuntime Version ARN: arn:aws:lambda:r::runtime:ab\n",
            ),
            (w.init_end(now(), Duration::from_secs(1), Status::Success), ""),
            (
                w.init_end(now(), Duration::from_micros(9_999_990), Status::Timeout),
                "INIT_REPORT Init Duration: 9999.99 ms\tPhase: init\tStatus: timeout\n",
            ),
            (
                w.init_end(now(), Duration::from_millis(12), Status::Error("Runtime.ExitError")),
                "INIT_REPORT Init Duration: 12.00 ms\tPhase: init\tStatus: error\tError Type: Runtime.ExitError\n",
            ),
            (
                again.init_end(now(), Duration::from_millis(12), Status::Error("Runtime.ExitError")),
                "INIT_REPORT Init Duration: 12.00 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError\n",
            ),
            (w.start(now(), "8a", "$LATEST"), "START RequestId: 8a Version: $LATEST\n"),
            (
                w.failure(now(), "8a", Status::Timeout, "Task timed out after 3.00 seconds"),
                "2023-03-13T18:56:24.046Z 8a Task timed out after 3.00 seconds\n\n",
            ),
            (
                w.failure(now(), "8a", Status::Error("Runtime.ExitError"), "Runtime exited with error: exit status 1"),
                "RequestId: 8a Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n",
            ),
            (
                w.end(now(), "8a", Status::Success, FIGURES),
                "END RequestId: 8a\nREPORT RequestId: 8a\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\tInit Duration: 99.00 ms\t\n",
            ),
            (
                w.end(now(), "8a", Status::Timeout, later),
                "END RequestId: 8a\nREPORT RequestId: 8a\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\tStatus: timeout\n",
            ),
            (
                w.end(now(), "8a", Status::Error("Runtime.ExitError"), later),
                "END RequestId: 8a\nREPORT RequestId: 8a\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\tStatus: error\tError Type: Runtime.ExitError\n",
            ),
        ] {
            assert_eq!(line, expected);
        }
    }

    /// The kinds of all lines of a good and a bad invocation, start included.
    fn kinds(level: Option<&str>) -> Vec<String> {
        let w = Writer::new(LogFormat::Json, level, Kind::OnDemand);
        let error = Status::Error("Runtime.ExitError");
        let all = [
            w.init_start(now(), "python:3.12.v38", "arn", "f", "1", 128),
            w.init_end(now(), Duration::from_micros(1_500), Status::Success),
            w.start(now(), "8a", "1"),
            w.end(now(), "8a", Status::Success, FIGURES),
            w.init_end(now(), Duration::from_micros(1_500), error),
            w.failure(now(), "8a", error, "no line of its own"),
            w.end(now(), "8a", error, FIGURES),
        ]
        .concat();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        all.lines().map(line).map(|line| line["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn json_records_are_written_from_the_level_that_was_chosen() {
        let p = |kinds: &[&str]| kinds.iter().map(|kind| format!("platform.{kind}")).collect::<Vec<_>>();
        let bad = ["initRuntimeDone", "initReport", "runtimeDone", "report"];
        assert_eq!(kinds(Some("WARN")), p(&bad));
        let info = [&["initStart", "start", "report"], &bad[..]].concat();
        assert_eq!(kinds(Some("INFO")), p(&info));
        assert_eq!(kinds(None), p(&info));
        let debug =
            [&["initStart", "initRuntimeDone", "initReport", "start", "runtimeDone", "report"], &bad[..]].concat();
        assert_eq!(kinds(Some("DEBUG")), p(&debug));
    }

    #[test]
    fn json_records_carry_what_aws_puts_into_them() {
        let w = Writer::new(LogFormat::Json, Some("DEBUG"), Kind::OnDemand);
        let lines = w.end(now(), "8a", Status::Error("Runtime.ExitError"), FIGURES);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let time = "2023-03-13T18:56:24.046Z";
        assert_eq!(
            lines,
            [
                json!({"time": time, "type": "platform.runtimeDone", "record": {
                    "requestId": "8a", "status": "error", "errorType": "Runtime.ExitError",
                    "metrics": {"durationMs": 12.34, "producedBytes": 4}}}),
                json!({"time": time, "type": "platform.report", "record": {
                    "requestId": "8a", "status": "error", "errorType": "Runtime.ExitError",
                    "metrics": {"durationMs": 12.34, "billedDurationMs": 13, "memorySizeMB": 128, "maxMemoryUsedMB": 40,
                                "initDurationMs": 99.0}}}),
            ]
        );
        let start = w.init_start(now(), "python:3.12.v38", "arn", "f", "7", 128);
        assert_eq!(
            serde_json::from_str::<Value>(&start).unwrap()["record"],
            json!({"initializationType": "on-demand", "phase": "init", "runtimeVersion": "python:3.12.v38",
                "runtimeVersionArn": "arn", "functionName": "f", "functionVersion": "7", "instanceMaxMemory": 134_217_728})
        );
        // The start of one that is kept ready is told by default.
        let ready = Writer::new(LogFormat::Json, None, Kind::Provisioned);
        let report = ready.init_end(now(), Duration::from_micros(1_500), Status::Success);
        assert_eq!(
            serde_json::from_str::<Value>(&report).unwrap()["record"],
            json!({"initializationType": "provisioned-concurrency", "phase": "init", "status": "success",
                "metrics": {"durationMs": 1.5}})
        );
    }

    #[test]
    fn a_build_is_named_by_the_identifier_and_the_rest_of_the_interpreters_version() {
        for (runtime, interpreter, expected) in [
            ("python3.12", "3.12.38", "python:3.12.v38"),
            ("nodejs20.x", "20.11.1", "nodejs:20.v11"),
            ("provided.al2023", "", "provided:al2023.v0"),
            ("provided", "", "provided.v0"),
        ] {
            assert_eq!(runtime_version(runtime, interpreter), expected);
        }
    }

    #[test]
    fn lines_of_a_function_pass_by_their_level_and_are_info_without_one() {
        let passes = |level, line: &str| {
            Threshold::new(LogFormat::Json, Some(level)).is_none_or(|threshold| threshold.passes(line.as_bytes()))
        };
        for (level, line, expected) in [
            ("TRACE", r#"{"level":"trace"}"#, true),
            ("INFO", r#"{"level":"debug","msg":"x"}"#, false),
            ("INFO", r#"{"level":"INFO"}"#, true),
            ("INFO", "printed", true),
            ("WARN", "printed", false),
            ("WARN", r#"{"level":"warning"}"#, true),
            ("WARN", r#"{"level":7}"#, false),
            ("ERROR", r#"{"level":"WARN"}"#, false),
            ("FATAL", r#"{"level":"FATAL"}"#, true),
        ] {
            assert_eq!(passes(level, line), expected, "{level} {line}");
        }
        assert_eq!(Threshold::new(LogFormat::Text, Some("FATAL")), None, "text is never cut");
        assert_eq!(Threshold::new(LogFormat::Json, None), None);
    }
}
