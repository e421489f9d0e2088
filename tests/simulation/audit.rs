//! What is judged of a report as it is put, and of everything at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use longshore_core::job::Status;
use longshore_core::task::Outcome;

use crate::objects::md5;
use crate::plan::{JobPlan, Manner, Row};
use crate::world::{JobBook, RowBook, World};

/// An object of a report is written. `manifest.json` commits it: what it names has to be there, and it never changes.
pub fn put(world: &Arc<World>, job: usize, key: &str, bytes: Bytes) {
    let mut state = world.state();
    let book = &mut state.jobs[job];
    let status = book.statuses.last().copied();
    let committed = book.report.keys().any(|key| key.ends_with("/manifest.json"));
    if committed {
        let same = book.report.get(key).is_some_and(|before| *before == bytes);
        assert!(same, "{key} of job {job} is put again, and is another, after its report was there (X11)");
    }
    let writes = matches!(status, Some(Status::Completing | Status::Cancelling | Status::Failing)) || committed;
    assert!(writes, "{key} of job {job} is put while the job is {status:?} (X11)");
    if key.ends_with("/manifest.json") {
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("a report's manifest.json is JSON (X11)");
        for part in parts(&json) {
            let found = book.report.get(&part.0).map(|part| md5(part));
            assert_eq!(found.as_ref(), Some(&part.1), "{key} of job {job} names {}, which is not there (X11)", part.0);
        }
        let checksum = book.report.iter().find(|(key, _)| key.ends_with("/manifest.json.md5"));
        let right = checksum.is_some_and(|(_, text)| *text == md5(&bytes).as_bytes());
        assert!(right, "manifest.json of job {job} is there before its MD5 (X11)");
    }
    book.report.insert(key.to_owned(), bytes);
}

/// Keys and MD5s of the result files.
fn parts(json: &serde_json::Value) -> Vec<(String, String)> {
    let text = |part: &serde_json::Value, name: &str| part[name].as_str().unwrap_or_default().to_owned();
    let results = json["Results"].as_array().map(Vec::as_slice).unwrap_or_default();
    results.iter().map(|part| (text(part, "Key"), text(part, "MD5Checksum"))).collect()
}

/// One row of a report: key, version, status, HTTP status, error code, message.
type Reported = (String, String, String, String, String, String);

/// All rows of a job's report, in no order.
fn reported(book: &JobBook) -> Option<Vec<Reported>> {
    let json = book.report.iter().find(|(key, _)| key.ends_with("/manifest.json"))?.1;
    let json: serde_json::Value = serde_json::from_slice(json).expect("it was read as it was put");
    let mut rows = Vec::new();
    for (key, checksum) in parts(&json) {
        let part = &book.report[&key];
        assert_eq!(md5(part), checksum, "{key} has another MD5 than manifest.json says (X11)");
        for row in csv(std::str::from_utf8(part).expect("a report is UTF-8")) {
            let [bucket, key, version, status, http, code, message]: [String; 7] =
                row.try_into().expect("a row of a report has seven columns");
            assert_eq!(bucket, "src");
            rows.push((key, version, status, http, code, message));
        }
    }
    Some(rows)
}

/// Reads RFC 4180, by another way than the one that wrote it.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && rest.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    assert!(row.is_empty() && cell.is_empty() && !quoted, "a report ends within a row");
    rows
}

/// What a row of the report has to say of a settled row.
fn expected(plan: &JobPlan, job: usize, row: usize, outcome: &Outcome) -> Reported {
    let version = match (plan.versions, plan.rows[row].manner) {
        (false, _) => "",
        (true, Manner::HasNoVersion) => "\\N",
        (true, _) => "v1",
    };
    let status = if outcome.succeeded { "succeeded" } else { "failed" };
    let http = outcome.http_status.to_string();
    let key = plan.key(job, 1, row);
    (key, version.into(), status.into(), http, outcome.error_code.clone(), outcome.message.clone())
}

/// Whether an outcome is what a naive loop over the manifest would have come to; the words of calls apart.
fn is_naive(manner: Manner, outcome: &Outcome) -> bool {
    let is = |succeeded: bool, http: u16, code: &str, message: Option<&str>| {
        (outcome.succeeded, outcome.http_status, &*outcome.error_code) == (succeeded, http, code)
            && message.map_or(outcome.message.starts_with("row "), |message| outcome.message == message)
    };
    match manner {
        Manner::Succeeds => is(true, 200, "", None),
        Manner::FailsForGood => is(false, 200, "PermanentFailure", None),
        Manner::Busy(times) if times < 5 => is(true, 200, "", None),
        Manner::Busy(_) => is(false, 200, "TemporaryFailure", None),
        Manner::Throws => is(false, 200, "PermanentFailure", Some("Lambda returned function error: {}")),
        Manner::AnswersGarbage => is(false, 200, "PermanentFailure", Some("Invalid JSON returned in Lambda payload")),
        Manner::AnswersForAnother => {
            is(false, 200, "TemporaryFailure", Some("Task result missing from Lambda response"))
        }
        Manner::HasNoVersion => is(false, 400, "InvalidRequest", Some("Task failed due to missing VersionId")),
    }
}

/// How many tasks had failed, and how many had run, when a job passed its threshold, as it says itself.
fn threshold_told(text: &str) -> Option<(u64, u64)> {
    let (failed, rest) = text.split_once(" of the ")?;
    let all = rest.strip_suffix(" tasks that ran have failed")?;
    Some((failed.parse().ok()?, all.parse().ok()?))
}

/// What must be true of every job once all of them are over. `reasons` are those of failure that each shows, codes and texts.
pub fn whole(world: &Arc<World>, reasons: &BTreeMap<usize, Vec<(String, String)>>) {
    let state = world.state();
    for (job, book) in state.jobs.iter().enumerate() {
        let plan = &world.plan.jobs[job];
        let Some(status) = book.statuses.last().copied() else { panic!("job {job} was never made (D1)") };
        assert!(status.is_terminal(), "job {job} is still {status:?} (X3)");
        let settled = book.rows.iter().filter(|row| row.settled.is_some()).count();
        assert_eq!(settled, book.results.len());
        let reasons = reasons.get(&job).map(Vec::as_slice).unwrap_or_default();
        match status {
            Status::Complete => {
                assert_eq!(settled, plan.rows.len(), "job {job} is Complete without all of its rows (X1)");
                assert!(!book.threshold_passed, "job {job} is Complete and has passed its threshold (X9)");
                let uncalled = book.rows.iter().zip(&plan.rows);
                let uncalled = uncalled.filter(|(row, plan)| row.calls == 0 && plan.manner != Manner::HasNoVersion);
                assert_eq!(uncalled.count(), 0, "job {job} is Complete with rows that were never called (X3)");
            }
            Status::Cancelled => assert!(book.cancel_sent, "job {job} is Cancelled and nobody has asked for it"),
            _ => {
                for (code, text) in reasons {
                    let may = match code.as_str() {
                        "InvalidManifestContent" => plan.rows.is_empty(),
                        "ManifestETagMismatch" => book.version > 1,
                        // Those that had their result by then may have lost it in a crash; called they were.
                        "TaskFailureThresholdExceeded" => {
                            let ran =
                                |(row, plan): &(&RowBook, &Row)| row.calls > 0 || plan.manner == Manner::HasNoVersion;
                            let ran: Vec<_> = book.rows.iter().zip(&plan.rows).filter(ran).collect();
                            let bad = ran.iter().filter(|(_, plan)| plan.manner.fails()).count() as u64;
                            let tasks_min = world.plan.settings.threshold.tasks_min;
                            let told = threshold_told(text);
                            told.is_some_and(|(failed, all)| {
                                // Of all that ran more than a half, and neither more than there were.
                                all >= tasks_min && 2 * failed > all && failed <= bad && all <= ran.len() as u64
                            })
                        }
                        _ => false,
                    };
                    assert!(may, "job {job} has failed for {code} ({text}), which is no fault of the world's (X9)");
                }
                assert!(!reasons.is_empty(), "job {job} has failed without a reason");
            }
        }
        let running: u32 = book.running.values().sum();
        assert_eq!(running, 0, "job {job} is over, and {running} calls of it are in flight (X8)");
        for (row, kept) in book.rows.iter().enumerate() {
            let Some(outcome) = &kept.settled else { continue };
            // A redrive that the end cut short fails with the last error, which a naive loop would not have kept.
            let again = ["TemporaryFailure", "ServiceUnavailable", "TooManyRequestsException"];
            let cut_short = status != Status::Complete && again.contains(&&*outcome.error_code);
            let naive = is_naive(plan.rows[row].manner, outcome);
            assert!(naive || cut_short, "row {row} of job {job}, {:?}: {outcome:?}", plan.rows[row].manner);
        }
        let listed = |outcome: &&Outcome| !plan.failed_only || !outcome.succeeded;
        let settled = book.rows.iter().enumerate().filter_map(|(row, kept)| Some((row, kept.settled.as_ref()?)));
        let mut wanted: Vec<Reported> = settled
            .filter(|(_, outcome)| listed(outcome))
            .map(|(row, outcome)| expected(plan, job, row, outcome))
            .collect();
        match reported(book) {
            Some(mut found) => {
                wanted.sort();
                found.sort();
                assert!(found == wanted, "the report of job {job} does not list what has become of its rows (X1)");
            }
            // None is due where none is asked for, and where no task was ever called (rule L-13).
            None => assert!(!plan.report || book.results.is_empty(), "job {job} has no report (X1)"),
        }
        assert_eq!(
            book.seen.0 + book.seen.1,
            book.results.len() as u64,
            "job {job} shows other counts than its report (X2)"
        );
        let statuses: Vec<String> = book.statuses.iter().map(|status| status.name().to_owned()).collect();
        assert_eq!(book.delivered, statuses, "the events of job {job} that were delivered are not those that happened");
    }
}
