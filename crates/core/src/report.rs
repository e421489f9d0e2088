//! The completion report's bytes, written and read back: its rows, its names, its `manifest.json`. Source: S3 Batch
//! spec 7.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha1::{Digest, Sha1};

use crate::manifest::{Fields, LineTooLong};
use crate::record::{Logged, LoggedVersion};

/// Which tasks a report lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    AllTasks,
    FailedTasksOnly,
}

/// A result file holds rows of one status only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
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

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Succeeded, Self::Failed].into_iter().find(|status| status.name() == name)
    }
}

/// A result file is closed at this many rows or bytes, whichever comes first. Source: rule RP-3, our choice.
const PART_ROWS_MAX: u64 = 1_000_000;
const PART_BYTES_MAX: u64 = 256 << 20;

/// Whether a result file that has so many rows and bytes is closed before the next row.
pub fn is_part_full(rows: u64, bytes: u64) -> bool {
    rows >= PART_ROWS_MAX || bytes >= PART_BYTES_MAX
}

/// As AWS writes it. It names ErrorCode before HTTPStatusCode; the rows have them the other way round (rule 7.4).
pub const REPORT_SCHEMA: &str = "Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode, ResultMessage";

/// Appends the row of a settled task: RFC 4180, quotes only where needed, CRLF.
pub fn push_row(out: &mut Vec<u8>, logged: &Logged<'_>) {
    push_cell(out, logged.bucket);
    out.push(b',');
    push_cell(out, logged.key);
    out.push(b',');
    match logged.version {
        LoggedVersion::NoColumn => {}
        LoggedVersion::Missing => out.extend_from_slice(b"\\N"),
        LoggedVersion::Given(version) => push_cell(out, version),
    }
    out.extend_from_slice(if logged.succeeded { b",succeeded," } else { b",failed," });
    push_number(out, logged.http_status);
    out.push(b',');
    push_cell(out, logged.error_code);
    out.push(b',');
    push_cell(out, logged.message);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, number: u16) {
    // Nearly every one, and formatting takes longer than the rest of the row.
    if number == 200 {
        return out.extend_from_slice(b"200");
    }
    out.extend_from_slice(number.to_string().as_bytes());
}

fn push_cell(out: &mut Vec<u8>, cell: &[u8]) {
    // Without a branch a byte, which lets the compiler look at many at once.
    let special = cell.iter().fold(false, |found, b| found | matches!(b, b',' | b'"' | b'\r' | b'\n'));
    if !special {
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    for byte in cell {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
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

    /// The ID of the job that a result file's key names, if it is a key as [`Names::part`] makes them. Whether the job
    /// has a report there is another question.
    pub fn job_of_part(key: &str) -> Option<&str> {
        let (folder, _) = key.rsplit_once("/results/")?;
        folder.rsplit('/').next()?.strip_prefix("job-")
    }

    /// The key of a result file: 40 hex digits of SHA-1 over job, status and part number (from 0), so that a report
    /// that is written again after a crash has the same names (rule RP-2).
    pub fn part(&self, status: TaskStatus, number: u32) -> String {
        let digest = Sha1::new().chain_update(format!("{}/{}/{number}", self.job_id, status.name())).finalize();
        format!("{}/results/{}.csv", self.base, hex::encode(digest))
    }
}

/// One result file, as `manifest.json` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Part {
    #[serde(rename = "TaskExecutionStatus")]
    pub status: TaskStatus,
    pub bucket: String,
    pub key: String,
    /// Lower-case hex MD5 of the file.
    #[serde(rename = "MD5Checksum")]
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

/// Why a report cannot be used as a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReport(pub &'static str);

/// What is looked at first, so that a document of another kind is told from one with a bad result.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Form {
    format: Option<String>,
    results: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    results: Vec<Part>,
}

/// Reads a report's `manifest.json`: its result files, in its order. Other members are ignored, and one that stands twice
/// is refused.
///
/// Memory: the result files alone, some two bytes for each of the document's; the first one that lacks a member ends the
/// reading, so that a document of empty ones takes none.
pub fn read_manifest_json(bytes: &[u8]) -> Result<Vec<Part>, NoReport> {
    let form: Form = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => NoReport("the report's manifest.json is not of a report's form"),
        _ => NoReport("the report is not JSON"),
    })?;
    if form.format.as_deref() != Some("Report_CSV_20180820") {
        return Err(NoReport("the report's Format is not Report_CSV_20180820"));
    }
    form.results.ok_or(NoReport("the report has no Results"))?;
    let document: Document =
        serde_json::from_slice(bytes).map_err(|_| NoReport("a result of the report lacks a member"))?;
    Ok(document.results)
}

/// The first four columns of a report's row.
#[derive(Debug, PartialEq, Eq)]
pub struct ReportedRow<'a> {
    pub bucket: std::borrow::Cow<'a, str>,
    pub key: std::borrow::Cow<'a, str>,
    /// As it stands there: `\N` if missing, blank if the manifest had no such column.
    pub version: std::borrow::Cow<'a, str>,
    pub status: TaskStatus,
}

impl<'a> ReportedRow<'a> {
    /// Reads one record, without its line break. The other three columns are not looked at, so that their order, which
    /// AWS's schema has wrong, does not matter.
    pub fn parse(record: &'a [u8]) -> Result<Self, NoReport> {
        const ODD: NoReport = NoReport("a row of the report does not have a report's seven columns");
        let text = std::str::from_utf8(record).map_err(|_| NoReport("a row of the report is not UTF-8"))?;
        let fields = Fields { rest: Some(text) }.collect::<Result<Vec<_>, ()>>().map_err(|()| ODD)?;
        let [bucket, key, version, status, _, _, _] = <[_; 7]>::try_from(fields).map_err(|_| ODD)?;
        Ok(Self { bucket, key, version, status: TaskStatus::parse(&status).ok_or(ODD)? })
    }

    /// Appends the row as a line of a pinned manifest: its three columns as they are, and the task's number if given.
    pub fn push_pinned(&self, out: &mut Vec<u8>, number: Option<u64>) {
        for (at, cell) in [&self.bucket, &self.key, &self.version].into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            push_cell(out, cell.as_bytes());
        }
        if let Some(number) = number {
            out.extend_from_slice(format!(",{number}").as_bytes());
        }
        out.push(b'\n');
    }
}

/// A record of a report is at most this long: a message of 4 KB and a key of 3 KB, every byte of them doubled by quotes,
/// and the rest, four times over for a report that is not ours.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// Cuts a stream of bytes into records: lines, but that a line break inside quotes ends none. Feed pieces as they come.
///
/// Memory: one record, at most [`RECORD_BYTES_MAX`]; a longer one is a fault.
#[derive(Debug, Default)]
pub struct Records {
    partial: Vec<u8>,
    quoted: bool,
}

impl Records {
    /// Calls `each` with every record that ends in `piece`, without its CR LF or LF.
    pub fn push<E: From<LineTooLong>>(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for part in piece.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            self.quoted ^= part.iter().filter(|b| **b == b'"').count() % 2 == 1;
            if self.partial.len() > RECORD_BYTES_MAX {
                return Err(LineTooLong.into());
            }
            if part.ends_with(b"\n") && !self.quoted {
                each(without_break(&self.partial))?;
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// The last record, if the stream did not end in a line break.
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then_some(self.partial)
    }
}

fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Entry, Unreadable};
    use crate::task::{Outcome, Task, VersionId};

    fn records(text: &str, piece: usize) -> Vec<String> {
        let mut records = Records::default();
        let mut all = Vec::new();
        let mut each = |record: &[u8]| {
            all.push(String::from_utf8(record.to_vec()).unwrap());
            Ok::<(), LineTooLong>(())
        };
        text.as_bytes().chunks(piece).for_each(|piece| records.push(piece, &mut each).unwrap());
        records.finish().iter().for_each(|last| each(last).unwrap());
        all
    }

    #[test]
    fn a_report_is_read_back_row_by_row_wherever_its_pieces_are_cut() {
        let rows = [
            ("k", VersionId::NoColumn, "plain"),
            ("x,y", VersionId::Missing, "two\r\nlines, \"quoted\""),
            ("say \"hi\"", VersionId::Given("v1".into()), "\n"),
        ];
        let mut text = String::new();
        for (key, version, message) in &rows {
            text += &row(key, version.clone(), Outcome::failed(200, "PermanentFailure", *message));
        }
        for piece in [1, 2, 7, 1_000] {
            let read = records(&text, piece);
            assert_eq!(read.len(), 3, "{read:?}");
            for (record, (key, version, _)) in read.iter().zip(&rows) {
                let mut pinned = Vec::new();
                let reported = ReportedRow::parse(record.as_bytes()).unwrap();
                assert_eq!(reported.status, TaskStatus::Failed);
                reported.push_pinned(&mut pinned, Some(9));
                use crate::manifest::{Column, RowFormat};
                let columns = vec![Column::Bucket, Column::Key, Column::ReportedVersion, Column::Number];
                let task = RowFormat::new(columns).unwrap().parse(0, pinned.strip_suffix(b"\n").unwrap()).unwrap();
                assert_eq!((&*task.key, &task.version, task.number), (*key, version, 9));
            }
        }
        assert_eq!(records("a\r\nb", 3), ["a", "b"], "the last line needs no end");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for record in ["", "b,k,,failed,200,x", "b,k,,failed,200,x,m,more", "b,k,,odd,200,x,m", "b,\"k,,failed,200,x,m"]
        {
            assert!(ReportedRow::parse(record.as_bytes()).is_err(), "{record}");
        }
        for json in ["", "[]", "{}", r#"{"Format":"Report_CSV_20180820"}"#, r#"{"Format":"x","Results":[]}"#] {
            assert!(read_manifest_json(json.as_bytes()).is_err(), "{json}");
        }
        let lacking = r#"{"Format":"Report_CSV_20180820","Results":[{"TaskExecutionStatus":"failed","Bucket":"b"}]}"#;
        assert!(read_manifest_json(lacking.as_bytes()).is_err());
        // A reader that made a tree of the whole document would keep the last of the two.
        let twice = r#"{"Format":"x","Format":"Report_CSV_20180820","Results":[]}"#;
        assert_eq!(
            read_manifest_json(twice.as_bytes()).unwrap_err().0,
            "the report's manifest.json is not of a report's form"
        );
        let endless = "\"".to_owned() + &"x".repeat(RECORD_BYTES_MAX);
        let told: Result<(), LineTooLong> = Records::default().push(endless.as_bytes(), |_| Ok(()));
        assert_eq!(told, Err(LineTooLong));
    }

    #[test]
    fn the_manifest_json_of_a_report_reads_back_and_its_keys_name_the_job() {
        let key = Names::new(Some("a/job-x/b"), "id-1").part(TaskStatus::Failed, 0);
        assert_eq!(Names::job_of_part(&key), Some("id-1"));
        assert_eq!((Names::job_of_part("results/x.csv"), Names::job_of_part("p/id/results/x")), (None, None));
        let parts = [Part { status: TaskStatus::Failed, bucket: "r".into(), key, md5: "m".into() }];
        assert_eq!(read_manifest_json(manifest_json("now", &parts).as_bytes()).unwrap(), parts);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_report_holds_is_read_or_refused(text in "[bk,\"\r\n\\\\Nfailed0]{0,60}", piece in 1..9_usize) {
            let read = records(&text, piece);
            proptest::prop_assert_eq!(&read, &records(&text, 1_000), "where it is cut does not matter");
            for record in read {
                if let Ok(row) = ReportedRow::parse(record.as_bytes()) {
                    proptest::prop_assert!(row.key.len() <= record.len());
                }
            }
            let _ = read_manifest_json(text.as_bytes());
        }
    }

    fn row(key: &str, version: VersionId, outcome: Outcome) -> String {
        let task = Task { row: 0, number: 0, bucket: "awsexamplebucket1".into(), key: key.into(), version };
        let (mut payload, mut out) = (Vec::new(), Vec::new());
        Entry::Settled { task: task.into(), attempts: 1, outcome }.encode(&mut payload);
        Logged::read_all::<Unreadable>(&payload, |logged| {
            push_row(&mut out, &logged);
            Ok(())
        })
        .unwrap();
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
    fn a_part_is_full_at_a_million_rows_or_256_mebibytes() {
        for (rows, bytes, full) in [
            (0, 0, false),
            (999_999, 0, false),
            (1_000_000, 0, true),
            (1, (256 << 20) - 1, false),
            (1, 256 << 20, true),
        ] {
            assert_eq!(is_part_full(rows, bytes), full, "{rows} rows, {bytes} bytes");
        }
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
