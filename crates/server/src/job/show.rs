//! What `longshore job` prints for people: a table, a description. Text from outside cannot steer a terminal.

use std::time::Duration;

use longshore_wire::xml::Element;

use crate::client::Described;
use crate::failure::plain;
use crate::job::json;
use crate::output::{self, time};
use crate::progress::duration;

/// Characters of a description in a table: what is left of a line of 120 after the other columns.
const DESCRIPTION_MAX: usize = 40;

/// A status, in its colour if colours are wanted.
fn painted(status: &str, colours: bool) -> String {
    let code = match status {
        "Complete" => 32,
        "Failed" | "Failing" | "Cancelled" | "Cancelling" => 31,
        "Suspended" | "Paused" | "Pausing" => 33,
        _ => 36,
    };
    let status = plain(status);
    if colours { format!("\u{1b}[{code}m{status}\u{1b}[0m") } else { status }
}

/// Jobs of ListJobs as a table: a line each, below a heading.
pub fn table(jobs: &[Element], colours: bool) -> String {
    let rows: Vec<[String; 6]> = jobs
        .iter()
        .map(|job| {
            let text = |name| job.child_text(name).unwrap_or("");
            let described = Described { job: job.clone() };
            let mut description: String = plain(text("Description"));
            if description.chars().count() > DESCRIPTION_MAX {
                description = description.chars().take(DESCRIPTION_MAX - 1).chain(['…']).collect();
            }
            [
                plain(text("JobId")),
                plain(text("Status")),
                plain(text("Operation")),
                progress(&described),
                time(text("CreationTime")),
                description,
            ]
        })
        .collect();
    let heading = ["JOB ID", "STATUS", "OPERATION", "PROGRESS", "CREATED", "DESCRIPTION"];
    output::table(heading, &rows, |column, cell| if column == 1 { painted(cell, colours) } else { cell.to_owned() })
}

/// How far a job is, in one cell: `80 % of 1200, 3 failed`.
fn progress(job: &Described) -> String {
    let (total, succeeded, failed) = job.progress();
    if total == 0 {
        return "-".into();
    }
    // Downwards, so that 100 % is the end and nothing before it.
    let percent = u128::from(succeeded.saturating_add(failed)) * 100 / u128::from(total);
    let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{percent} % of {total}{failed}")
}

/// One job, a line for each thing that there is to say; `figures` are what a Longshore tells of how it goes. `reported`:
/// whether there is or will be a report, where it was to have one.
pub fn description(described: &Described, figures: &[(&'static str, String)], reported: bool, colours: bool) -> String {
    let job = json::of(&described.job);
    let text = |pointer: &str| job.pointer(pointer).and_then(|value| value.as_str()).unwrap_or("").to_owned();
    let (total, succeeded, failed) = described.progress();
    let mut lines: Vec<(&str, String)> = vec![("Job ID", plain(&text("/JobId")))];
    lines.push(("Status", painted(&text("/Status"), colours)));
    let mut say = |name, value: String| {
        if !value.is_empty() {
            lines.push((name, plain(&value)));
        }
    };
    say("Description", text("/Description"));
    for (name, operation) in job.pointer("/Operation").and_then(|o| o.as_object()).into_iter().flatten() {
        let function = operation.pointer("/FunctionArn").and_then(|arn| arn.as_str());
        say("Operation", name.clone());
        match function {
            Some(function) => say("Function", function.to_owned()),
            None if operation.as_object().is_some_and(|o| !o.is_empty()) => say("Parameters", operation.to_string()),
            None => {}
        }
        for (key, value) in operation.pointer("/UserArguments").and_then(|a| a.as_object()).into_iter().flatten() {
            say("Argument", format!("{key}={}", value.as_str().unwrap_or("")));
        }
    }
    say("Manifest", object(&text("/Manifest/Location/ObjectArn")));
    let generator = "/ManifestGenerator/S3JobManifestGenerator";
    say("Objects of", object(&text(&format!("{generator}/SourceBucket"))));
    say("Filter", job.pointer(&format!("{generator}/Filter")).map(ToString::to_string).unwrap_or_default());
    say("Generated", object(&text("/GeneratedManifestDescriptor/Location/ObjectArn")));
    say(
        "Progress",
        if total == 0 { String::new() } else { format!("{succeeded} of {total} succeeded, {failed} failed") },
    );
    let active = job.pointer("/ProgressSummary/Timers/ElapsedTimeInActiveSeconds").and_then(|s| s.as_u64());
    say("Active for", active.map(|seconds| duration(Duration::from_secs(seconds))).unwrap_or_default());
    for (name, text) in figures {
        say(name, text.clone());
    }
    say("Priority", job.pointer("/Priority").map(ToString::to_string).unwrap_or_default());
    say("Role", text("/RoleArn"));
    match super::results::place_of(described) {
        Some((bucket, base)) if !reported => say("Report", format!("none was written to s3://{bucket}/{base}")),
        Some((bucket, base)) => say("Report", format!("s3://{bucket}/{base} ({})", text("/Report/ReportScope"))),
        None => say("Report", "none".into()),
    }
    for (name, member) in [("Created", "/CreationTime"), ("Suspended", "/SuspendedDate"), ("Ended", "/TerminationDate")]
    {
        say(name, time(&text(member)));
    }
    if described.status() == "Suspended" {
        say("Waits for", text("/SuspendedCause"));
    }
    say("Reason", text("/StatusUpdateReason"));
    for (code, reason) in described.failure_reasons() {
        say("Failure", format!("{code}: {reason}"));
    }
    lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

/// `s3://bucket/key` for the ARN of an object or a bucket; what is none stays as it is.
fn object(arn: &str) -> String {
    arn.splitn(6, ':').nth(5).map_or_else(|| arn.to_owned(), |resource| format!("s3://{resource}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: &str = "<Jobs><member><JobId>id-1</JobId><Status>Active</Status><Operation>LambdaInvoke</Operation>\
        <Description>a&#27;[31mb</Description><CreationTime>2026-01-31T10:00:00.123Z</CreationTime>\
        <ProgressSummary><TotalNumberOfTasks>1000</TotalNumberOfTasks><NumberOfTasksSucceeded>998</NumberOfTasksSucceeded>\
        <NumberOfTasksFailed>1</NumberOfTasksFailed></ProgressSummary></member>\
        <member><JobId>id-22</JobId><Status>Complete</Status><CreationTime>x</CreationTime></member></Jobs>";

    #[test]
    fn a_table_is_aligned_and_what_stands_in_it_cannot_steer_a_terminal() {
        let jobs = Element::parse(JOBS.as_bytes()).unwrap().children;
        let lines = table(&jobs, false);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines,
            [
                "JOB ID  STATUS    OPERATION     PROGRESS                CREATED               DESCRIPTION",
                "id-1    Active    LambdaInvoke  99 % of 1000, 1 failed  2026-01-31 10:00:00Z  a\u{fffd}[31mb",
                "id-22   Complete                -                       x",
            ]
        );
        let painted = table(&jobs, true);
        assert!(painted.contains("\u{1b}[36mActive\u{1b}[0m    LambdaInvoke"), "{painted}");
        assert!(painted.contains("\u{1b}[32mComplete\u{1b}[0m  "));
        assert_eq!(super::painted("a\u{1b}[2J", false), "a\u{fffd}[2J");
    }

    #[test]
    fn a_description_says_what_there_is_and_nothing_else() {
        let job = "<Job><JobId>i</JobId><Status>Failed</Status><Operation><LambdaInvoke><FunctionArn>f</FunctionArn>\
            <UserArguments><entry><key>k</key><value>v</value></entry></UserArguments></LambdaInvoke></Operation>\
            <Manifest><Location><ObjectArn>arn:aws:s3:::b/a:c</ObjectArn></Location></Manifest><Priority>3</Priority>\
            <Report><Enabled>true</Enabled><Bucket>arn:aws:s3:::r</Bucket><Prefix>p</Prefix>\
            <ReportScope>AllTasks</ReportScope></Report>\
            <FailureReasons><member><FailureCode>c</FailureCode><FailureReason>r</FailureReason></member></FailureReasons></Job>";
        let described = Described { job: Element::parse(job.as_bytes()).unwrap() };
        let said = description(&described, &[("Speed", "9 tasks a second".into())], true, false);
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            [
                "Job ID      i",
                "Status      Failed",
                "Operation   LambdaInvoke",
                "Function    f",
                "Argument    k=v",
                "Manifest    s3://b/a:c",
                "Speed       9 tasks a second",
                "Priority    3",
                "Report      s3://r/p/job-i (AllTasks)",
                "Failure     c: r",
            ]
        );
        let said = description(&described, &[], false, false);
        assert!(said.contains("\nReport      none was written to s3://r/p/job-i\n"), "{said}");
    }
}
