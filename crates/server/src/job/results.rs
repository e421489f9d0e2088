//! What came of a job: its completion report downloaded and checked, its failures.

use std::path::{Path, PathBuf};

use crate::client::{ClientError, Described};
use crate::failure::{Because, Failure, OK, plain};
use crate::job::describe;
use crate::job::so_far;
use crate::output::{self, out};
use crate::place::{Place, told};
use crate::report::{self, Failures, Report, Wanted};

/// Bucket and the beginning of the keys of a job's report; `None` if it was to have none.
pub fn place_of(described: &Described) -> Option<(String, String)> {
    let report = described.job.child("Report")?;
    let text = |name| report.child_text(name).filter(|text| !text.is_empty());
    if text("Enabled") != Some("true") {
        return None;
    }
    let bucket = text("Bucket")?.rsplit(':').next()?.to_owned();
    let id = described.job.child_text("JobId")?;
    Some((bucket, report::base(text("Prefix").unwrap_or(""), id)))
}

/// Where the report of a job lies that is over and was to have one; an error in words for any other.
pub fn place_of_ended(described: &Described) -> Result<(String, String), Failure> {
    let id = described.job.child_text("JobId").unwrap_or("");
    let at = place_of(described).ok_or_else(|| {
        Failure::new(format!("job {id} was created without a completion report"))
            .hint("only its counts are known: \"longshore job describe\" shows them")
    })?;
    if !described.is_over() {
        return Err(Failure::new(format!("job {id} is {} and has no report yet", plain(described.status())))
            .hint("the report is written when the job is over; \"longshore job watch\" waits for that"));
    }
    Ok(at)
}

/// Where the report lies that a job has written which is over; `None` if it was to have none, or has none: one that came
/// to no task (S3 Batch spec 7.1), whose results are damaged, or whose report's bucket did not take it.
pub async fn written(place: &Place, described: &Described) -> Result<Option<(String, String)>, ClientError> {
    let Some((bucket, base)) = place_of(described).filter(|_| has_results(described)) else { return Ok(None) };
    // It became so by writing it.
    if described.status() == "Complete" {
        return Ok(Some((bucket, base)));
    }
    match place.client.head(&bucket, &format!("{base}/manifest.json")).await {
        Ok(_) => Ok(Some((bucket, base))),
        Err(error) if is_not_there(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_results(described: &Described) -> bool {
    let (_, succeeded, failed) = described.progress();
    succeeded + failed > 0
}

/// Whether what was asked for is not there, or nothing of its bucket is.
pub fn is_not_there(error: &ClientError) -> bool {
    matches!(error.code(), "NoSuchKey" | "NoSuchBucket")
}

/// Whether a job failed because its state at the server is damaged: then its results cannot be read.
pub fn is_damaged(described: &Described) -> bool {
    described.failure_reasons().iter().any(|(code, _)| code == "StateDamaged")
}

/// What is said where a job that is over has none.
pub fn no_report(place: &Place, described: &Described) -> Failure {
    let id = described.job.child_text("JobId").unwrap_or("");
    let why = undelivered(described).map_or_else(String::new, |why| format!(": {}", plain(&why)));
    Failure::new(format!("job {id} is {} and left no report{why}", plain(described.status())))
        .hint(without_report(described, &place.flags))
}

/// Why the report's bucket did not take it, as precisely as that is told: the last reason of that code.
fn undelivered(described: &Described) -> Option<String> {
    let reasons = described.failure_reasons();
    reasons.into_iter().rev().find(|(code, _)| code == "ReportDeliveryFailed").map(|(_, reason)| reason)
}

/// `longshore job deliver`: prints where the report is now.
pub async fn deliver(place: &Place, id: &str, json: bool) -> Result<u8, Failure> {
    if !place.client.is_longshore().await.map_err(told)? {
        return Err(Failure::usage("a report is delivered later by Longshore alone, and another server answers here"));
    }
    let answer = place.client.deliver_report(id).await.map_err(|error| match error.code() {
        "ReportDeliveryFailed" => Failure::from(error).hint("mend that, and repeat this command: no task runs again"),
        _ => told(error),
    })?;
    if json {
        output::json(&answer);
        return Ok(OK);
    }
    let text = |name: &str| plain(answer.get(name).and_then(serde_json::Value::as_str).unwrap_or(""));
    out(&format!("s3://{}/{}\n", text("bucket"), text("key").trim_end_matches("/manifest.json")));
    Ok(OK)
}

/// What can be done about a job that is over and has no report: a line, the same wherever that is told.
pub fn without_report(described: &Described, flags: &str) -> String {
    let id = described.job.child_text("JobId").unwrap_or("");
    let reasons = described.failure_reasons();
    let last_of = |wanted: &str| reasons.iter().rev().find(|(code, _)| code == wanted).map(|(_, reason)| reason);
    if let Some(reason) = last_of("StateDamaged") {
        // Longshore says as the last reason what can be done.
        return reason.clone();
    }
    if !has_results(described) {
        return format!("it came to no task; \"longshore job describe {id}{flags}\" shows why it ended");
    }
    if last_of("ReportDeliveryFailed").is_some() {
        return format!(
            "the server still has its results: mend what the reason names, and \"longshore job deliver {id}{flags}\" writes the \
             report; meanwhile \"longshore job failures {id}{flags}\" shows what failed, in groups"
        );
    }
    "its report was written, and is not there any more".into()
}

/// Copies what is wanted of a report into a folder, a temporary one if none is named.
pub async fn download(
    place: &Place,
    described: &Described,
    folder: Option<&Path>,
    wanted: Wanted,
    each: impl FnMut(&[String]) -> Result<(), Failure>,
) -> Result<Report, Failure> {
    let (bucket, base) = place_of_ended(described)?;
    let temporary = tempfile::tempdir().because("cannot make a temporary folder")?;
    let folder = folder.unwrap_or(temporary.path());
    let report = report::download(&place.client, &bucket, &base, folder, wanted, each).await?;
    report.ok_or_else(|| no_report(place, described))
}

/// `longshore job report`: prints the folder; the summary is talk.
pub async fn report(place: &Place, id: &str, output: Option<PathBuf>, json: bool) -> Result<u8, Failure> {
    let described = describe(place, id).await?;
    let folder = output.unwrap_or_else(|| PathBuf::from(format!("report-{id}")));
    // A report of another job is not mixed with this one's.
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(
            Failure::usage(format!("{} is not empty", folder.display())).hint("name another folder with --output DIR")
        );
    }
    // It gets its name when it is whole and was checked.
    let cannot = || format!("cannot write {}", folder.display());
    let absolute = std::path::absolute(&folder).because(cannot())?;
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).because(cannot())?;
    let made = tempfile::Builder::new().prefix(".report-").tempdir_in(parent).because(cannot())?;
    let report = download(place, &described, Some(made.path()), Wanted::All, |_| Ok(())).await?;
    std::fs::rename(made.keep(), &absolute).because(cannot())?;
    let succeeded = report.rows - report.failed;
    if json {
        output::json(&serde_json::json!({
            "JobId": id, "Folder": folder, "Files": report.files, "Succeeded": succeeded, "Failed": report.failed,
            "Failures": json_of(&report.failures),
        }));
    } else {
        out(&format!("{}\n", folder.display()));
    }
    eprintln!("{succeeded} succeeded, {} failed; {}", report.failed, report.checked());
    for line in report.failures.lines() {
        eprintln!("{line}");
    }
    Ok(OK)
}

/// `longshore job failures`: groups of failures, the most frequent first, with examples.
pub async fn failures(place: &Place, id: &str, json: bool) -> Result<u8, Failure> {
    let described = describe(place, id).await?;
    let at_server = match described.is_over() {
        false => true,
        // The server still has the results that it could not write into a report.
        true => {
            place_of(&described).is_some()
                && has_results(&described)
                && !is_damaged(&described)
                && written(place, &described).await.map_err(told)?.is_none()
        }
    };
    if at_server && let Some(so_far) = so_far::ask(place, id).await.map_err(told)? {
        if json {
            output::json(&so_far.json(id));
        } else {
            out(&so_far.lines().into_iter().map(|line| format!("{line}\n")).collect::<String>());
        }
        if !described.is_over() {
            if !json {
                eprintln!("so far: job {id} is {}", plain(described.status()));
            }
            return Ok(OK);
        }
        // It was answered, but who goes on with the report has none: that must not look like success.
        return Err(no_report(place, &described));
    }
    let report = download(place, &described, None, Wanted::Failed, |_| Ok(())).await?;
    if json {
        output::json(&serde_json::json!({"JobId": id, "Failed": report.failed, "Failures": json_of(&report.failures)}));
        return Ok(OK);
    }
    let (groups, other) = report.failures.groups();
    let mut text = String::new();
    for group in groups {
        text.push_str(&format!("{}\n", group.line()));
        for key in group.keys {
            text.push_str(&format!("           {}\n", plain(key)));
        }
    }
    if other > 0 {
        text.push_str(&format!("{other:>8} × other failures; --keys lists them all\n"));
    }
    out(&text);
    if report.failed == 0 {
        eprintln!("nothing failed");
    }
    Ok(OK)
}

/// `longshore job failures --keys`: what failed, as a list.
pub async fn keys(place: &Place, id: &str, json: bool) -> Result<u8, Failure> {
    let described = describe(place, id).await?;
    // Opened by the first row: where there is no report, nothing is printed that looks like an answer.
    let mut opened = false;
    download(place, &described, None, Wanted::Failed, |row| {
        let [bucket, key, version, ..] = row else { return Ok(()) };
        if json {
            let before = if std::mem::replace(&mut opened, true) { ",\n" } else { "{\"Failed\": [\n" };
            let row = serde_json::json!({"Bucket": bucket, "Key": key, "VersionId": version});
            out(&format!("{before}{}", output::json_line(&row)));
        } else {
            out(&format!("{}\n", encoded(key)));
        }
        Ok(())
    })
    .await?;
    if json {
        out(if opened { "\n]}\n" } else { "{\"Failed\": []}\n" });
    }
    Ok(OK)
}

/// A key of a report is URL-encoded as its manifest had it. One that had raw control characters would be two lines, or
/// steer a terminal; so they are encoded here, which names the same key.
fn encoded(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for c in key.chars() {
        let mut bytes = [0; 4];
        match c.encode_utf8(&mut bytes) {
            text if c.is_control() => out.extend(text.bytes().map(|byte| format!("%{byte:02X}"))),
            text => out.push_str(text),
        }
    }
    out
}

fn json_of(failures: &Failures) -> serde_json::Value {
    let (groups, other) = failures.groups();
    let group = |group: &report::Group<'_>| {
        serde_json::json!({
            "ErrorCode": group.code, "Message": group.message, "Count": group.count, "Keys": group.keys,
        })
    };
    let mut list: Vec<serde_json::Value> = groups.iter().map(group).collect();
    if other > 0 {
        list.push(serde_json::json!({"ErrorCode": null, "Message": null, "Count": other, "Keys": []}));
    }
    list.into()
}

#[cfg(test)]
mod tests {
    use longshore_wire::xml::Element;

    use super::*;

    fn described(status: &str, report: &str) -> Described {
        let xml = format!("<Job><JobId>i</JobId><Status>{status}</Status><Report>{report}</Report></Job>");
        Described { job: Element::parse(xml.as_bytes()).unwrap() }
    }

    #[test]
    fn a_report_lies_below_its_prefix_joined_verbatim() {
        let enabled = "<Enabled>true</Enabled><Bucket>arn:aws:s3:::b</Bucket>";
        let at = |prefix: &str| place_of(&described("Complete", &format!("{enabled}{prefix}"))).unwrap();
        assert_eq!(at(""), ("b".into(), "job-i".into()));
        assert_eq!(at("<Prefix>p/</Prefix>"), ("b".into(), "p//job-i".into()));
        assert_eq!(place_of(&described("Complete", "<Enabled>false</Enabled>")), None);
        let active = place_of_ended(&described("Active", enabled)).unwrap_err();
        assert!(active.message.contains("job i is Active and has no report yet"));
    }

    #[test]
    fn a_job_that_left_no_report_says_what_can_be_done_for_each_reason_that_there_may_be() {
        let described = |succeeded: u32, reasons: &[(&str, &str)]| {
            let member = |(code, text): &(&str, &str)| {
                format!("<member><FailureCode>{code}</FailureCode><FailureReason>{text}</FailureReason></member>")
            };
            let xml = format!(
                "<Job><JobId>i</JobId><Status>Failed</Status><ProgressSummary><TotalNumberOfTasks>9</TotalNumberOfTasks>\
                 <NumberOfTasksSucceeded>{succeeded}</NumberOfTasksSucceeded><NumberOfTasksFailed>0</NumberOfTasksFailed>\
                 </ProgressSummary><FailureReasons>{}</FailureReasons></Job>",
                reasons.iter().map(member).collect::<String>()
            );
            Described { job: Element::parse(xml.as_bytes()).unwrap() }
        };
        let damaged = [("StateDamaged", "1.seg is damaged"), ("StateDamaged", "Restore it")];
        let undelivered_and_damaged = [damaged[0], damaged[1], ("ReportDeliveryFailed", "x")];
        for (succeeded, reasons, wanted) in [
            // The counts of a damaged job may be those of before.
            (0, &damaged[..], "Restore it"),
            (3, &damaged[..], "Restore it"),
            // Nor is it delivered for want of the bucket alone.
            (3, &undelivered_and_damaged[..], "Restore it"),
            (0, &[("InvalidManifestContent", "x")][..], "\"longshore job describe i --region r\" shows why"),
            (3, &[("ReportDeliveryFailed", "x")][..], "\"longshore job deliver i --region r\" writes the report"),
            (3, &[("ReportDeliveryFailed", "x")][..], "\"longshore job failures i --region r\" shows what failed"),
            (3, &[][..], "is not there any more"),
        ] {
            let job = described(succeeded, reasons);
            let said = without_report(&job, " --region r");
            assert!(said.contains(wanted), "{said}");
            assert_eq!(is_damaged(&job), reasons.starts_with(&damaged));
        }
    }

    #[test]
    fn a_key_stays_on_its_line() {
        assert_eq!(encoded("a%20b/ü\u{1b}\n\u{9b}c"), "a%20b/ü%1B%0A%C2%9Bc");
    }
}
