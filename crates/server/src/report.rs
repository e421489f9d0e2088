//! The completion report as `demo`, `run` and `job` show it: fetched, checked, its failures grouped by code and message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longshore_core::report::Names;
use md5::{Digest, Md5};
use serde::Deserialize;

use crate::client::{Client, ClientError};
use crate::failure::{Because, BecauseGiven, Failure, plain};

/// Different failures that are told apart; what comes later counts as "other".
const GROUPS_MAX: usize = 1_000;
/// Groups shown; the report has the rest.
const GROUPS_SHOWN: usize = 10;
/// Keys kept of each group, as examples.
const EXAMPLES: usize = 3;
/// Characters of a message that are shown and told apart: a few lines of a terminal.
const MESSAGE_MAX: usize = 400;
/// What the engine writes before the JSON in which a function's error arrives.
const FUNCTION_ERROR: &str = "Lambda returned function error: ";

/// What `manifest.json` says.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "Results")]
    results: Vec<ResultFile>,
}

#[derive(Debug, Deserialize)]
struct ResultFile {
    #[serde(rename = "TaskExecutionStatus")]
    status: String,
    #[serde(rename = "Bucket")]
    bucket: String,
    #[serde(rename = "Key")]
    key: String,
    /// In hex.
    #[serde(rename = "MD5Checksum")]
    md5: String,
}

/// How often each failure happened, with some keys that it happened to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// By code and [`told`] message.
    groups: BTreeMap<(String, String), (u64, Vec<String>)>,
    other: u64,
    /// Of all of them, those that are an error of the function itself, which its log has in full.
    thrown: u64,
}

/// Failures that have code and message in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Group<'a> {
    pub code: &'a str,
    pub message: &'a str,
    pub count: u64,
    /// The first few keys that it happened to, as the report has them.
    pub keys: &'a [String],
}

/// Which of a report's files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    All,
    Failed,
}

/// A report that was copied and whose MD5s are right.
#[derive(Debug, Default)]
pub struct Report {
    pub failures: Failures,
    /// Rows, and of them those that failed. Of the files that were wanted.
    pub rows: u64,
    pub failed: u64,
    pub files: usize,
}

impl Report {
    /// How many files there are, whose MD5s were compared.
    pub fn checked(&self) -> String {
        match self.files {
            1 => "1 file, its MD5 is right".into(),
            files => format!("{files} files, their MD5s are right"),
        }
    }
}

/// Where a job's report lies: all its keys begin so. The prefix is joined verbatim (S3 Batch spec, rule RP-1).
pub fn base(prefix: &str, job: &str) -> String {
    if prefix.is_empty() { format!("job-{job}") } else { format!("{prefix}/job-{job}") }
}

/// Copies a job's report to a local folder: `manifest.json` with its MD5, and `results/*.csv`. `None` if there is no report (yet).
///
/// `prefix` is the one that the job was created with.
pub async fn fetch(
    client: &Client,
    bucket: &str,
    prefix: &str,
    job: &str,
    folder: &Path,
) -> Result<Option<Failures>, Failure> {
    let report = download(client, bucket, &base(prefix, job), folder, Wanted::All, |_| Ok(())).await?;
    Ok(report.map(|report| report.failures))
}

/// Copies what is wanted of the report at `base`, checks it against its MD5s, and hands out each row: Bucket, Key,
/// VersionId, TaskStatus, HTTPStatusCode, ErrorCode, ResultMessage. `None` if there is no report (yet).
pub async fn download(
    client: &Client,
    bucket: &str,
    base: &str,
    folder: &Path,
    wanted: Wanted,
    mut each: impl FnMut(&[String]) -> Result<(), Failure>,
) -> Result<Option<Report>, Failure> {
    let key = format!("{base}/manifest.json");
    let Some(manifest) = get_if_there(client, bucket, &key).await? else { return Ok(None) };
    // AWS writes one too, but nowhere says what is in it: what is no MD5 is not compared.
    let summed = get_if_there(client, bucket, &format!("{key}.md5")).await?;
    if let Some(sum) = &summed {
        let sum = String::from_utf8_lossy(sum).trim().to_ascii_lowercase();
        if sum.len() == 32 && sum.bytes().all(|b| b.is_ascii_hexdigit()) {
            check(&key, &sum, &hex::encode(Md5::digest(&manifest)))?;
        }
    }
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    let results = folder.join("results");
    std::fs::create_dir_all(&results).because(cannot(&results))?;
    let read: Manifest = serde_json::from_slice(&manifest).because("the report's manifest.json cannot be read")?;
    let mut report = Report::default();
    for file in read.results.iter().filter(|file| wanted == Wanted::All || file.status == "failed") {
        let name = file.key.rsplit('/').next().unwrap_or(&file.key);
        let path: PathBuf = results.join(name);
        client.get_to_file(&file.bucket, &file.key, &path).await?;
        let failed = file.status == "failed";
        let sum = read_rows(&path, |row| {
            report.rows += 1;
            if failed {
                report.failed += 1;
                report.failures.add(row);
            }
            each(row)
        })?;
        check(&file.key, &file.md5.to_ascii_lowercase(), &sum)?;
        report.files += 1;
    }
    if let Some(sum) = &summed {
        let path = folder.join("manifest.json.md5");
        std::fs::write(&path, sum).because(cannot(&path))?;
    }
    // Last, as the server does: where it is, the report is whole.
    let path = folder.join("manifest.json");
    std::fs::write(&path, &manifest).because(cannot(&path))?;
    Ok(Some(report))
}

/// Reads what is wanted of a report in a local folder, checks it against its MD5s, and hands out each row, as [`download`]
/// does. It must be the report of `job`.
pub fn read(
    folder: &Path,
    job: &str,
    wanted: Wanted,
    mut each: impl FnMut(&[String]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = folder.join("manifest.json");
    let manifest = std::fs::read(&path).because_given(format!("cannot read the report {}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&manifest).because_given(format!("{} is damaged", path.display()))?;
    for file in &manifest.results {
        if Names::job_of_part(&file.key) != Some(job) {
            return Err(Failure::usage(format!("{} has another report now", folder.display())));
        }
        if wanted == Wanted::Failed && file.status != "failed" {
            continue;
        }
        let path = folder.join("results").join(file.key.rsplit('/').next().unwrap_or(&file.key));
        check(&path.display().to_string(), &file.md5.to_ascii_lowercase(), &read_rows(&path, &mut each)?)?;
    }
    Ok(())
}

async fn get_if_there(client: &Client, bucket: &str, key: &str) -> Result<Option<bytes::Bytes>, Failure> {
    match client.get(bucket, key).await {
        Ok(found) => Ok(Some(found)),
        Err(ClientError::Refused { code, .. }) if code == "NoSuchKey" || code == "NoSuchBucket" => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check(key: &str, said: &str, is: &str) -> Result<(), Failure> {
    if said == is {
        return Ok(());
    }
    Err(Failure::new(format!("the report is damaged: {key} has the MD5 {is}, but should have {said}"))
        .hint("it was changed after the job wrote it, or on its way here"))
}

/// Hands out each row of a result file and returns the file's MD5 in hex.
fn read_rows(path: &Path, mut each: impl FnMut(&[String]) -> Result<(), Failure>) -> Result<String, Failure> {
    use std::io::Read;
    let cannot = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).because(cannot())?;
    let (mut rows, mut sum) = (Rows::default(), Md5::new());
    let mut piece = vec![0; 256 * 1024];
    loop {
        let length = file.read(&mut piece).because(cannot())?;
        if length == 0 {
            return Ok(hex::encode(sum.finalize()));
        }
        sum.update(&piece[..length]);
        for byte in &piece[..length] {
            if let Some(row) = rows.push(*byte) {
                each(&row)?;
            }
        }
    }
}

impl Failures {
    /// Takes one row: Bucket, Key, VersionId, TaskStatus, HTTPStatusCode, ErrorCode, ResultMessage.
    fn add(&mut self, row: &[String]) {
        let [_, key, _, _, status, code, message] = row else { return };
        self.add_some(1, key, status, code, message);
    }

    /// Takes `count` failures of the same kind, `key` one of those that it happened to.
    fn add_some(&mut self, count: u64, key: &str, status: &str, code: &str, message: &str) {
        let code = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
        if message.starts_with(FUNCTION_ERROR) {
            self.thrown += count;
        }
        let message = told(message);
        if let Some((before, keys)) = self.groups.get_mut(&(code.clone(), message.clone())) {
            *before += count;
            if keys.len() < EXAMPLES {
                keys.push(key.to_owned());
            }
        } else if self.groups.len() < GROUPS_MAX {
            self.groups.insert((code, message), (count, vec![key.to_owned()]));
        } else {
            self.other += count;
        }
    }

    /// The failures so far of a job that is not over: of [`Client::job_results`].
    pub fn of_results(results: &serde_json::Value) -> Self {
        let mut failures = Self::default();
        let groups = results["failureGroups"].as_array().map(Vec::as_slice).unwrap_or_default();
        for group in groups {
            let text = |name: &str| group[name].as_str().unwrap_or("");
            let count = group["numberOfTasks"].as_u64().unwrap_or(0);
            let key = group["example"]["key"].as_str().unwrap_or("");
            let status = group["httpStatusCode"].to_string();
            failures.add_some(count, key, &status, text("errorCode"), text("resultMessage"));
        }
        failures.other += results["numberOfTasksInNoGroup"].as_u64().unwrap_or(0);
        failures
    }

    /// Whether the function's log says more of some of them than the report does.
    pub fn are_in_the_log(&self) -> bool {
        self.thrown > 0
    }

    /// What helps where a failure has one usual cause.
    pub fn hint(&self) -> Option<&'static str> {
        let is_no_answer = |(_, message): &(String, String)| message == longshore_core::invocation::NOT_JSON;
        self.groups.keys().any(is_no_answer).then_some(
            "the function must return an object with \"results\", as the README's example does; one that ends without \
             a return statement returns nothing",
        )
    }

    /// The groups, the most frequent first, and how many failures are in none of them.
    pub fn groups(&self) -> (Vec<Group<'_>>, u64) {
        let groups = self.groups.iter();
        let groups = groups.map(|((code, message), (count, keys))| Group { code, message, count: *count, keys });
        let mut groups: Vec<Group<'_>> = groups.collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        (groups, self.other)
    }

    /// Lines to print, the most frequent failure first. Empty if nothing failed.
    pub fn lines(&self) -> Vec<String> {
        let (groups, other) = self.groups();
        let shown = groups.iter().take(GROUPS_SHOWN);
        let mut lines: Vec<String> = shown
            .map(|group| {
                let example = group.keys.first().map(|key| plain(&decoded(key))).unwrap_or_default();
                format!("{}  (for example {example})", group.line())
            })
            .collect();
        let hidden: u64 = groups.iter().skip(GROUPS_SHOWN).map(|group| group.count).sum::<u64>() + other;
        if hidden > 0 {
            lines.push(format!("{hidden:>8} × other failures; the report has each one"));
        }
        lines
    }
}

impl Group<'_> {
    /// How often, code and message.
    pub fn line(&self) -> String {
        let colon = if self.message.is_empty() { "" } else { ": " };
        format!("{:>8} × {}{colon}{}", self.count, plain(self.code), self.message)
    }
}

/// A key as people call it: a report has it URL-encoded, as the manifest did.
pub fn decoded(key: &str) -> String {
    percent_encoding::percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// A message as it is shown and grouped: a function's error without its stack, no identifiers or times, which would make
/// every failure one of its own, no control characters, and no more than fits.
fn told(message: &str) -> String {
    let error = message.strip_prefix(FUNCTION_ERROR).and_then(|json| {
        let error: serde_json::Value = serde_json::from_str(json).ok()?;
        let said = error.get("errorMessage")?.as_str()?;
        Some(match error.get("errorType").and_then(|kind| kind.as_str()) {
            Some(kind) if !kind.is_empty() => format!("{kind}: {}", without_request(said)),
            _ => without_request(said),
        })
    });
    let whole = plain(error.unwrap_or_else(|| without_passing(message)).trim());
    let mut characters = whole.chars();
    let mut text: String = characters.by_ref().take(MESSAGE_MAX).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

/// The host names the request where it speaks itself, which no two failures have in common.
fn without_request(message: &str) -> String {
    let text = without_passing(message);
    let rest =
        ["RequestId: <id> Error: ", "RequestId: <id> ", "<time> <id> "].iter().find_map(|p| text.strip_prefix(p));
    rest.map_or_else(|| text.clone(), str::to_owned)
}

/// Writes `<id>` for each UUID and `<time>` for each ISO 8601 time.
fn without_passing(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(first) = rest.chars().next() {
        // Only where a word begins: a longer run of digits is something else.
        let begins = !before.is_some_and(char::is_alphanumeric);
        let found = begins.then(|| uuid_at(rest).map(|n| ("<id>", n)).or_else(|| time_at(rest).map(|n| ("<time>", n))));
        if let Some((word, length)) = found.flatten() {
            out.push_str(word);
            rest = &rest[length..];
            before = Some('>');
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            before = Some(first);
        }
    }
    out
}

/// The length of what `pattern` matches at the start of `text`: `x` a hexadecimal digit, `d` a decimal one, else itself.
fn matches(text: &str, pattern: &str) -> Option<usize> {
    let mut bytes = text.bytes();
    let fits = pattern.bytes().all(|wanted| match (wanted, bytes.next()) {
        (b'x', Some(byte)) => byte.is_ascii_hexdigit(),
        (b'd', Some(byte)) => byte.is_ascii_digit(),
        (wanted, byte) => byte == Some(wanted),
    });
    fits.then_some(pattern.len())
}

fn uuid_at(text: &str) -> Option<usize> {
    let length = matches(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")?;
    (!text[length..].starts_with(char::is_alphanumeric)).then_some(length)
}

/// `2026-01-02T03:04:05`, also with a blank for the `T`, with a fraction, with `Z` or an offset.
fn time_at(text: &str) -> Option<usize> {
    let mut length = matches(text, "dddd-dd-ddTdd:dd:dd").or_else(|| matches(text, "dddd-dd-dd dd:dd:dd"))?;
    let fraction =
        text[length..].strip_prefix(['.', ',']).map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    length += fraction.filter(|digits| *digits > 0).map_or(0, |digits| digits + 1);
    let zone = ["Z", "+dd:dd", "-dd:dd", "+dddd", "-dddd"].iter().find_map(|zone| matches(&text[length..], zone));
    Some(length + zone.unwrap_or(0))
}

/// Cuts CSV into rows: RFC 4180 quotes, a quoted cell may have line breaks. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Default)]
struct Rows {
    cells: Vec<String>,
    cell: Vec<u8>,
    quoted: bool,
    /// The last byte was a quote inside of a quoted cell: its end, or the first of two.
    quote: bool,
}

impl Rows {
    fn push(&mut self, byte: u8) -> Option<Vec<String>> {
        if self.quoted {
            match (self.quote, byte) {
                (false, b'"') => self.quote = true,
                (true, b'"') => {
                    self.quote = false;
                    self.cell.push(byte);
                }
                (false, _) => self.cell.push(byte),
                (true, _) => {
                    (self.quoted, self.quote) = (false, false);
                    return self.push(byte);
                }
            }
            return None;
        }
        match byte {
            b'"' if self.cell.is_empty() => self.quoted = true,
            b',' => self.end_cell(),
            b'\r' => {}
            b'\n' => {
                self.end_cell();
                return Some(std::mem::take(&mut self.cells));
            }
            _ => self.cell.push(byte),
        }
        None
    }

    fn end_cell(&mut self) {
        self.cells.push(String::from_utf8_lossy(&std::mem::take(&mut self.cell)).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Vec<String>> {
        let mut rows = Rows::default();
        text.bytes().filter_map(|b| rows.push(b)).collect()
    }

    #[test]
    fn a_quoted_cell_may_hold_commas_quotes_and_line_breaks() {
        assert_eq!(rows("a,b,\r\n\"x,\"\"y\"\"\r\nz\",,\"\"\r\n"), [vec!["a", "b", ""], vec!["x,\"y\"\r\nz", "", ""]]);
    }

    #[test]
    fn a_message_is_told_without_what_only_one_failure_has() {
        let error = |json: &str| told(&format!("{FUNCTION_ERROR}{json}"));
        let id = "2845ca0d-38d9-4c4b-abcf-379dc749c452";
        assert_eq!(error(r#"{"errorMessage":"no é","errorType":"KeyError","stackTrace":["a"]}"#), "KeyError: no é");
        assert_eq!(
            error(&format!(
                r#"{{"errorMessage":"RequestId: {id} Error: exit status 1","errorType":"Runtime.ExitError"}}"#
            )),
            "Runtime.ExitError: exit status 1"
        );
        assert_eq!(
            error(&format!(r#"{{"errorMessage":"2019-04-05T17:35:21.155Z {id} Task timed out after 3.00 seconds"}}"#)),
            "Task timed out after 3.00 seconds"
        );
        assert_eq!(told(&format!("a {id}, at 2026-01-02 03:04:05+01:00: x")), "a <id>, at <time>: x");
        assert_eq!(told(&format!("1{id} 12026-01-02T03:04:05")), format!("1{id} 12026-01-02T03:04:05"));
        assert_eq!(error("{\"cut"), "Lambda returned function error: {\"cut");
        assert_eq!(told("a\u{1b}b"), "a\u{fffd}b");
        let long = told(&"ü".repeat(1_000));
        assert!(long.ends_with('…') && long.chars().count() == MESSAGE_MAX + 1);
    }

    #[test]
    fn a_file_that_is_not_what_its_md5_says_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "b,k,,succeeded,200,,\r\n").unwrap();
        let mut keys = Vec::new();
        let sum = read_rows(file.path(), |row| {
            keys.push(row[1].clone());
            Ok(())
        })
        .unwrap();
        assert_eq!((keys, sum.as_str()), (vec!["k".to_owned()], "48f731175ae143d574f7b040938fdad4"));
        assert!(check("k", &sum, &sum).is_ok());
        assert!(check("k", &sum, "0").unwrap_err().message.contains("the report is damaged: k"));
    }

    #[test]
    fn failures_are_grouped_by_code_and_message_the_most_frequent_first() {
        let mut failures = Failures::default();
        let text = "b,k1,,failed,200,PermanentFailure,broken\r\nb,k2,,failed,404,,\r\nb,k3,,failed,200,PermanentFailure,broken\r\n";
        for row in rows(text) {
            failures.add(&row);
        }
        assert_eq!(
            failures.lines(),
            ["       2 × PermanentFailure: broken  (for example k1)", "       1 × HTTP 404  (for example k2)",]
        );
        let (groups, other) = failures.groups();
        assert_eq!((groups[0].keys, groups[0].count, other), (&["k1".to_owned(), "k3".to_owned()][..], 2, 0));
        assert!(!failures.are_in_the_log() && failures.hint().is_none());
    }

    #[test]
    fn an_example_is_named_as_its_file_is_and_cannot_steer_a_terminal() {
        let mut failures = Failures::default();
        for row in rows("b,a%2Bb+%C3%BC%1B.txt,,failed,404,,\r\n") {
            failures.add(&row);
        }
        assert_eq!(failures.lines(), ["       1 × HTTP 404  (for example a+b ü\u{fffd}.txt)"]);
    }

    #[test]
    fn an_answer_that_is_none_has_a_hint_and_only_what_was_thrown_is_said_to_be_in_the_log() {
        let mut failures = Failures::default();
        failures.add_some(2, "k", "200", "PermanentFailure", longshore_core::invocation::NOT_JSON);
        assert!(failures.hint().unwrap().contains("\"results\"") && !failures.are_in_the_log());
        failures.add_some(1, "k", "200", "PermanentFailure", &format!("{FUNCTION_ERROR}{{\"errorMessage\":\"x\"}}"));
        assert!(failures.are_in_the_log());
    }

    #[test]
    fn failures_of_a_job_that_is_not_over_are_grouped_in_the_same_way() {
        let results = serde_json::json!({
            "failureGroups": [
                {"numberOfTasks": 3, "httpStatusCode": 200, "errorCode": "PermanentFailure", "resultMessage": "broken",
                 "example": {"bucket": "b", "key": "a%20b", "versionId": null}},
                {"numberOfTasks": 1, "httpStatusCode": 404, "errorCode": "", "resultMessage": "", "example": {"key": "k"}},
            ],
            "numberOfTasksInNoGroup": 5,
        });
        assert_eq!(
            Failures::of_results(&results).lines(),
            [
                "       3 × PermanentFailure: broken  (for example a b)",
                "       1 × HTTP 404  (for example k)",
                "       5 × other failures; the report has each one",
            ]
        );
    }
}
