//! The completion report's bytes: its rows, its names, its `manifest.json`. Source: S3 Batch spec 7.

use sha1::{Digest, Sha1};

use crate::task::{Outcome, Task, VersionId};

/// Which tasks a report lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    AllTasks,
    FailedTasksOnly,
}

/// A result file holds rows of one status only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskStatus {
    Succeeded,
    Failed,
}

impl TaskStatus {
    pub fn name(self) -> &'static str {
        match self {
            TaskStatus::Succeeded => "succeeded",
            TaskStatus::Failed => "failed",
        }
    }
}

/// A result file is closed at this many rows or bytes, whichever comes first. Source: rule RP-3, our choice.
pub const PART_ROWS_MAX: u64 = 1_000_000;
pub const PART_BYTES_MAX: u64 = 256 << 20;

/// As AWS writes it. It names ErrorCode before HTTPStatusCode; the rows have them the other way round (rule 7.4).
pub const REPORT_SCHEMA: &str = "Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode, ResultMessage";

/// Appends one row: RFC 4180, quotes only where needed, CRLF.
pub fn push_row(out: &mut Vec<u8>, task: &Task, outcome: &Outcome) {
    push_cell(out, &task.bucket);
    out.push(b',');
    push_cell(out, &task.key);
    out.push(b',');
    match &task.version {
        VersionId::NoColumn => {}
        VersionId::Missing => out.extend_from_slice(b"\\N"),
        VersionId::Given(version) => push_cell(out, version),
    }
    out.push(b',');
    let status = if outcome.succeeded { TaskStatus::Succeeded } else { TaskStatus::Failed };
    out.extend_from_slice(status.name().as_bytes());
    out.push(b',');
    out.extend_from_slice(outcome.http_status.to_string().as_bytes());
    out.push(b',');
    push_cell(out, &outcome.error_code);
    out.push(b',');
    push_cell(out, &outcome.message);
    out.extend_from_slice(b"\r\n");
}

fn push_cell(out: &mut Vec<u8>, cell: &str) {
    if !cell.bytes().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n')) {
        out.extend_from_slice(cell.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in cell.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Where a report's objects lie: the prefix joined verbatim, so one that ends in `/` gives `//` (rule RP-1).
#[derive(Debug, Clone)]
pub struct Names {
    base: String,
    job_id: String,
}

impl Names {
    pub fn new(prefix: Option<&str>, job_id: &str) -> Self {
        let base = match prefix {
            Some(prefix) if !prefix.is_empty() => format!("{prefix}/job-{job_id}"),
            _ => format!("job-{job_id}"),
        };
        Self { base, job_id: job_id.to_owned() }
    }

    pub fn manifest(&self) -> String {
        format!("{}/manifest.json", self.base)
    }

    pub fn manifest_md5(&self) -> String {
        format!("{}/manifest.json.md5", self.base)
    }

    /// The key of a result file: 40 hex digits of SHA-1 over job, status and part number (from 0), so that a report
    /// that is written again after a crash has the same names (rule RP-2).
    pub fn part(&self, status: TaskStatus, number: u32) -> String {
        let digest = Sha1::new().chain_update(format!("{}/{}/{number}", self.job_id, status.name())).finalize();
        format!("{}/results/{}.csv", self.base, hex::encode(digest))
    }
}

/// One result file, as `manifest.json` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub status: TaskStatus,
    pub bucket: String,
    pub key: String,
    /// Lower-case hex MD5 of the file.
    pub md5: String,
}

/// The report's `manifest.json`. `created` as ISO 8601 with milliseconds; succeeded files first (rule 7.3).
pub fn manifest_json(created: &str, parts: &[Part]) -> String {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|p| p.status);
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let results: Vec<String> = parts
        .iter()
        .map(|part| {
            format!(
                "{{\"TaskExecutionStatus\":{},\"Bucket\":{},\"MD5Checksum\":{},\"Key\":{}}}",
                quote(part.status.name()),
                quote(&part.bucket),
                quote(&part.md5),
                quote(&part.key)
            )
        })
        .collect();
    format!(
        "{{\"Format\":\"Report_CSV_20180820\",\"ReportCreationDate\":{},\"Results\":[{}],\"ReportSchema\":{}}}",
        quote(created),
        results.join(","),
        quote(REPORT_SCHEMA)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, version: VersionId, outcome: Outcome) -> String {
        let mut out = Vec::new();
        push_row(
            &mut out,
            &Task { row: 0, number: 0, bucket: "awsexamplebucket1".into(), key: key.into(), version },
            &outcome,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_rows_of_awss_page_are_written_to_the_byte() {
        let error = r#"Lambda returned function error: {"errorMessage":"2019-04-05T17:35:21.155Z 2845ca0d-38d9-4c4b-abcf-379dc749c452 Task timed out after 3.00 seconds"}"#;
        let failed = Outcome::failed(200, "PermanentFailure", error);
        let wanted = "awsexamplebucket1,image_14975,,failed,200,PermanentFailure,\"Lambda returned function error: {\"\"errorMessage\"\":\"\"2019-04-05T17:35:21.155Z 2845ca0d-38d9-4c4b-abcf-379dc749c452 Task timed out after 3.00 seconds\"\"}\"\r\n";
        assert_eq!(row("image_14975", VersionId::NoColumn, failed), wanted);
        let ok = Outcome::succeeded("{u'CopySourceVersionId': 'x', …}");
        let wanted = "awsexamplebucket1,image_17775,,succeeded,200,,\"{u'CopySourceVersionId': 'x', …}\"\r\n";
        assert_eq!(row("image_17775", VersionId::NoColumn, ok), wanted);
    }

    #[test]
    fn cells_are_quoted_only_where_they_must_be() {
        let plain = |message: &str| row("k", VersionId::NoColumn, Outcome::succeeded(message));
        assert!(plain("a b;c'd").ends_with(",a b;c'd\r\n"));
        assert!(plain("a\r\nb").ends_with(",\"a\r\nb\"\r\n"));
        assert!(row("x,y", VersionId::Missing, Outcome::succeeded("")).contains(",\"x,y\",\\N,"));
        assert!(row("k", VersionId::Given("null".into()), Outcome::succeeded("")).contains(",k,null,"));
    }

    #[test]
    fn names_join_the_prefix_verbatim_and_do_not_change_when_written_again() {
        assert_eq!(Names::new(Some("p/"), "j").manifest(), "p//job-j/manifest.json");
        assert_eq!(Names::new(None, "j").manifest_md5(), "job-j/manifest.json.md5");
        let part = Names::new(Some("p"), "j").part(TaskStatus::Failed, 0);
        assert_eq!(part, Names::new(Some("p"), "j").part(TaskStatus::Failed, 0));
        assert_ne!(part, Names::new(Some("p"), "j").part(TaskStatus::Failed, 1));
        assert_eq!(part.len(), "p/job-j/results/".len() + 40 + 4);
    }

    #[test]
    fn manifest_json_lists_succeeded_files_first_and_keeps_the_schema_string() {
        let part = |status: TaskStatus| Part { status, bucket: "r".into(), key: "k".into(), md5: "m".into() };
        let parts = [part(TaskStatus::Failed), part(TaskStatus::Succeeded)];
        let json: serde_json::Value = serde_json::from_str(&manifest_json("2019-04-05T17:48:39.725Z", &parts)).unwrap();
        assert_eq!(json["Results"][0]["TaskExecutionStatus"], "succeeded");
        assert_eq!(json["Results"][1]["TaskExecutionStatus"], "failed");
        assert_eq!(json["ReportSchema"], REPORT_SCHEMA);
        assert_eq!(json["Format"], "Report_CSV_20180820");
    }
}
