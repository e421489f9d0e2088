//! `longshore job retry`: a job from the completion report of one that is over.
//!
//! A Longshore takes the report's `manifest.json` as a manifest. Elsewhere a CSV manifest is made of the report's rows
//! here, and laid beside the report.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::client::Content;
use crate::failure::{Because, Failure, plain};
use crate::job::{create, describe, json, results};
use crate::place::{Place, told};
use crate::report::Wanted;

/// Which rows of a report a job is made of, as a tag: `failed` or `all`.
const TAG_ROWS: &str = "longshore:rows";

pub struct Asked {
    pub all: bool,
    pub token: Option<String>,
    pub confirm: bool,
}

/// Creates the job and returns its ID.
pub async fn retry(place: &Place, id: &str, asked: &Asked) -> Result<String, Failure> {
    let described = describe(place, id).await?;
    let (bucket, base) = results::place_of_ended(&described)?;
    // Before what else may be wrong: without a report there is nothing to be made of it.
    if results::written(place, &described).await.map_err(told)?.is_none() {
        return Err(results::no_report(place, &described));
    }
    let earlier = json::of(&described.job);
    if asked.all && earlier.pointer("/Report/ReportScope").and_then(Value::as_str) == Some("FailedTasksOnly") {
        return Err(Failure::usage(format!("the report of job {id} lists failed tasks alone; --all needs the others"))
            .hint("without --all, those that failed are tried again"));
    }
    let (total, succeeded, failed) = described.progress();
    if !asked.all && failed == 0 {
        return Err(Failure::new(format!("no task of job {id} failed, so there is nothing to try again"))
            .hint("--all takes the tasks of its report once more; what never ran is in no report"));
    }
    let never = total.saturating_sub(succeeded + failed);
    if never > 0 {
        eprintln!(
            "warning: {never} of the {total} tasks of job {id} never ran; they are in no report and not in the new job"
        );
        eprintln!("hint: a new job over the same manifest runs them, and the others again");
    }
    let rows = if asked.all { "all" } else { "failed" };
    let (manifest, tags) = if place.client.is_longshore().await.map_err(told)? {
        let key = format!("{base}/manifest.json");
        let etag = match place.client.head(&bucket, &key).await {
            Ok(etag) => etag,
            Err(error) if results::is_not_there(&error) => return Err(results::no_report(place, &described)),
            Err(error) => return Err(told(error)),
        };
        let spec = json!({"Format": "Report_CSV_20180820"});
        (manifest(&earlier, spec, &key, &etag), Some(json!([{"Key": TAG_ROWS, "Value": rows}])))
    } else {
        let file = tempfile::NamedTempFile::new().because("cannot make a temporary file")?;
        let wanted = if asked.all { Wanted::All } else { Wanted::Failed };
        let mut writer = RowWriter::new(file.as_file());
        results::download(place, &described, None, wanted, |row| writer.row(row)).await?;
        let fields = writer.finish()?;
        let key = format!("{base}/retry-{rows}.csv");
        let etag = place.client.put(&bucket, &key, Content::File(file.path())).await;
        let etag = etag.map_err(|e| Failure::new(format!("cannot write s3://{bucket}/{}: {e}", plain(&key))))?;
        let spec = json!({"Format": "S3BatchOperations_CSV_20180820", "Fields": fields});
        (manifest(&earlier, spec, &key, &etag), None)
    };
    let mut request = request(&earlier, id, asked);
    request.insert("Manifest".into(), manifest);
    if let Some(tags) = tags {
        request.insert("Tags".into(), tags);
    }
    create::send(place, &request).await
}

/// A manifest in the report's bucket, whose ARN names the partition too.
fn manifest(earlier: &Value, spec: Value, key: &str, etag: &str) -> Value {
    let bucket = earlier.pointer("/Report/Bucket").and_then(Value::as_str).unwrap_or("");
    json!({"Spec": spec, "Location": {"ObjectArn": format!("{bucket}/{key}"), "ETag": etag}})
}

/// All but the manifest: what the earlier job had, under a description of its own.
fn request(earlier: &Value, id: &str, asked: &Asked) -> Map<String, Value> {
    let mut request = Map::new();
    for member in ["Operation", "Report", "RoleArn", "Priority"] {
        if let Some(value) = earlier.get(member) {
            request.insert(member.into(), value.clone());
        }
    }
    let what = if asked.all { "Again" } else { "Retry of what failed" };
    request.insert("Description".into(), format!("{what}: job {id}").into());
    request.insert("ConfirmationRequired".into(), asked.confirm.into());
    let token = asked.token.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    request.insert("ClientRequestToken".into(), token.into());
    request
}

/// Makes a CSV manifest of a report's rows.
struct RowWriter<W: Write> {
    out: std::io::BufWriter<W>,
    /// Whether the rows have a version, which the first one decides: a report is of one manifest.
    versions: Option<bool>,
}

impl<W: Write> RowWriter<W> {
    fn new(out: W) -> Self {
        Self { out: std::io::BufWriter::new(out), versions: None }
    }

    /// Takes a row of the report. Its key is encoded as the manifest had it, and stays so.
    fn row(&mut self, row: &[String]) -> Result<(), Failure> {
        let [bucket, key, version, ..] = row else { return Err(Failure::new("a row of the report is cut short")) };
        let versions = *self.versions.get_or_insert(!version.is_empty());
        if versions == version.is_empty() {
            return Err(Failure::new(format!(
                "some rows of the report have a version and others do not: {}",
                plain(key)
            )));
        }
        let mut line = format!("{},{}", cell(bucket), cell(key));
        if versions {
            line.push(',');
            // `\N` is how a report says that the column was empty.
            line.push_str(&cell(if version == "\\N" { "" } else { version }));
        }
        line.push('\n');
        self.out.write_all(line.as_bytes()).because("cannot write the manifest")
    }

    /// The columns that the rows have.
    fn finish(mut self) -> Result<Vec<&'static str>, Failure> {
        self.out.flush().because("cannot write the manifest")?;
        match self.versions {
            None => Err(Failure::new("the report has no such rows, so there is nothing to try again")),
            Some(true) => Ok(vec!["Bucket", "Key", "VersionId"]),
            Some(false) => Ok(vec!["Bucket", "Key"]),
        }
    }
}

fn cell(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Result<(String, Vec<&'static str>), Failure> {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(&mut out);
        for row in rows {
            writer.row(&row.map(str::to_owned))?;
        }
        let fields = writer.finish()?;
        Ok((String::from_utf8(out).unwrap(), fields))
    }

    #[test]
    fn rows_of_a_report_are_rows_of_a_manifest() {
        assert_eq!(
            rows(&[["b", "a%20b", ""], ["b", "c,\"d", ""]]).unwrap(),
            ("b,a%20b\nb,\"c,\"\"d\"\n".to_owned(), vec!["Bucket", "Key"])
        );
        assert_eq!(
            rows(&[["b", "k", "v"], ["b", "k", "\\N"], ["b", "k", "null"]]).unwrap(),
            ("b,k,v\nb,k,\nb,k,null\n".to_owned(), vec!["Bucket", "Key", "VersionId"])
        );
        assert!(rows(&[["b", "k", "v"], ["b", "k", ""]]).is_err());
        assert!(rows(&[]).is_err());
    }

    #[test]
    fn a_retry_has_what_the_earlier_job_had_but_for_its_name() {
        let earlier = json!({
            "JobId": "i", "Operation": {"LambdaInvoke": {"FunctionArn": "f"}}, "Report": {"Bucket": "arn:aws:s3:::r"},
            "RoleArn": "r", "Priority": 4, "Description": "d", "Status": "Complete", "ConfirmationRequired": true,
        });
        let asked = Asked { all: false, token: Some("t".into()), confirm: false };
        assert_eq!(
            Value::from(request(&earlier, "i", &asked)),
            json!({
                "Operation": {"LambdaInvoke": {"FunctionArn": "f"}}, "Report": {"Bucket": "arn:aws:s3:::r"},
                "RoleArn": "r", "Priority": 4, "Description": "Retry of what failed: job i",
                "ConfirmationRequired": false, "ClientRequestToken": "t",
            })
        );
        let made = manifest(&earlier, json!({}), "p/job-i/manifest.json", "e");
        assert_eq!(made["Location"]["ObjectArn"], "arn:aws:s3:::r/p/job-i/manifest.json");
    }
}
