//! `longshore job create`: from flags, and a request in the AWS CLI's JSON below them, to a CreateJob request.

use serde_json::{Map, Value, json};

use crate::cli::{CreateJob, Encryption, JobAt, Scope};
use crate::client::ClientError;
use crate::failure::{Failure, plain};
use crate::job::json;
use crate::job::{print_made, role};
use crate::place::{Place, partition, told};
use crate::run::rows::looks_like_a_header;
use crate::run::split_s3;

/// Where nobody names one. The README's examples have it too.
const PRIORITY: u32 = 10;
/// The role where a Longshore answers: its first start makes it.
const ROLE: &str = crate::access::ROLE;
/// Bytes of a manifest that are read to see whether it begins with a header: the names of all its fields, and some to spare.
const FIRST_LINE_BYTES_MAX: u32 = 256;
/// Tags by which a job asks Longshore for more than AWS has.
pub const TAG_SAMPLE: &str = "longshore:sample";
pub const TAG_START: &str = "longshore:start";

pub async fn create(args: CreateJob, at: &JobAt) -> Result<u8, Failure> {
    let base = args.cli_input_json.as_deref().map(read_input).transpose()?;
    let account = base.as_ref().and_then(|base| base.get("AccountId")).and_then(Value::as_str);
    let place = Place::of_jobs(at, account).await?;
    let longshore = place.client.is_longshore().await.map_err(told)?;
    let etag = match args.manifest.as_deref().or(args.inventory.as_deref()) {
        Some(uri) => {
            let (bucket, key) = object(uri)?;
            match &args.etag {
                Some(etag) => etag.trim_matches('"').to_owned(),
                None => place.client.head(&bucket, &key).await.map_err(|error| no_etag(error, uri, &bucket))?,
            }
        }
        None => String::new(),
    };
    let facts = Facts { region: place.client.region(), account: place.client.account(), longshore, etag: &etag };
    let mut request = request(&args, base, &facts)?;
    let token = args.token.clone().or_else(|| request.get("ClientRequestToken")?.as_str().map(str::to_owned));
    let token = token.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    request.insert("ClientRequestToken".into(), token.into());
    let mut warnings = missing(&place, &request).await;
    if longshore {
        warnings.extend(role::warnings(&place, &request).await);
    }
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let id = send(&place, &request).await?;
    if request.get("Report").and_then(|report| report.get("Enabled")) != Some(&Value::Bool(true)) {
        eprintln!(
            "warning: the job writes no report: which tasks failed will not be known (--report s3://bucket/prefix)"
        );
    }
    print_made(&place, &id, at.at.json, args.watch).await
}

/// Why the manifest's ETag is not known, and what helps.
fn no_etag(error: ClientError, uri: &str, bucket: &str) -> Failure {
    let status = match &error {
        ClientError::Refused { status, .. } => status.as_u16(),
        ClientError::Broken(_) => 0,
    };
    match status {
        400 if !(3..=63).contains(&bucket.len()) => {
            Failure::usage(format!("{uri} cannot be meant: the name of a bucket has 3 to 63 characters"))
        }
        403 => Failure::from(error).hint(
            "its ETag is looked up with your own credentials, which takes s3:GetObject on it; or give the ETag with --etag: \
             the job itself reads the manifest with its role",
        ),
        404 => Failure::from(error).hint("the job's manifest must lie in the storage before the job"),
        _ => told(error),
    }
}

/// What the job will look for and not find, and a header where it takes every line for a task: a sentence each. A job may be created before its function is, so that is no
/// reason to refuse it; what cannot be looked up is not talked about.
async fn missing(place: &Place, request: &Map<String, Value>) -> Vec<String> {
    let text = |pointer: &[&str]| {
        let first = request.get(*pointer.first()?)?;
        pointer[1..].iter().try_fold(first, |value, member| value.get(member))?.as_str()
    };
    let mut warnings = Vec::new();
    if let Some(function) = text(&["Operation", "LambdaInvoke", "FunctionArn"])
        && let Ok(Some(false)) = place.client.has_function(function).await
    {
        let function = plain(function);
        warnings.push(match place.client.is_longshore().await {
            Ok(true) => {
                format!("there is no function {function} on this server: unless it is elsewhere, every task will fail")
            }
            _ => format!("there is no function {function}: every task will fail"),
        });
    }
    let report = text(&["Report", "Bucket"]).filter(|_| request["Report"].get("Enabled") == Some(&Value::Bool(true)));
    if let Some(bucket) = report.and_then(|arn| arn.rsplit(':').next())
        && let Ok(false) = place.client.has_bucket(bucket).await
    {
        warnings
            .push(format!("there is no bucket {} for the report: the job will fail when it writes it", plain(bucket)));
    }
    if text(&["Manifest", "Spec", "Format"]) == Some("S3BatchOperations_CSV_20180820")
        && let Some((bucket, key)) = text(&["Manifest", "Location", "ObjectArn"]).and_then(object_of_arn)
        && let Ok(beginning) = place.client.beginning(bucket, key, FIRST_LINE_BYTES_MAX).await
        && is_header(&String::from_utf8_lossy(&beginning), &request["Manifest"]["Spec"]["Fields"])
    {
        warnings.push(format!(
            "the first line of s3://{bucket}/{} looks like a header; it is a task like every other line: leave it out",
            plain(key)
        ));
    }
    warnings
}

/// Whether a manifest begins with the names of its columns, which it does not have: those that the job gives it, or the usual two.
fn is_header(beginning: &str, fields: &Value) -> bool {
    let line = beginning.lines().next().unwrap_or("");
    let cells = line.trim_start_matches('\u{feff}').split(',').map(|cell| cell.trim().trim_matches('"').to_lowercase());
    let fields = fields.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_lowercase);
    looks_like_a_header(line) || cells.eq(fields)
}

/// Bucket and key of an object's ARN.
fn object_of_arn(arn: &str) -> Option<(&str, &str)> {
    arn.split_once(":::")?.1.split_once('/')
}

/// Creates a job from a request in JSON.
pub async fn send(place: &Place, request: &Map<String, Value>) -> Result<String, Failure> {
    let document = json::create_job(request).map_err(Failure::usage)?;
    place.client.create_job_of(document).await.map_err(told)
}

/// Reads the request of `--cli-input-json`: a file, with `file://` or without, or standard input.
fn read_input(from: &str) -> Result<Map<String, Value>, Failure> {
    let usage = |e: &dyn std::fmt::Display| Failure::usage(format!("cannot read the request of --cli-input-json: {e}"));
    let text = match from {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|e| usage(&e))?,
        path => std::fs::read_to_string(path.strip_prefix("file://").unwrap_or(path)).map_err(|e| usage(&e))?,
    };
    match serde_json::from_str(&text).map_err(|e| usage(&e))? {
        Value::Object(request) => Ok(request),
        _ => Err(usage(&"it must be an object")),
    }
}

/// What the request depends on beside its flags.
struct Facts<'a> {
    region: &'a str,
    account: &'a str,
    longshore: bool,
    /// Of the manifest, if there is one.
    etag: &'a str,
}

impl Facts<'_> {
    fn bucket_arn(&self, bucket: &str) -> String {
        format!("arn:{}:s3:::{bucket}", partition(self.region))
    }

    /// The API takes ARNs alone for roles, and AWS for functions.
    fn arn(&self, service: &str, kind: &str, name: &str) -> String {
        if name.starts_with("arn:") {
            return name.to_owned();
        }
        let (region, slash) = if service == "iam" { ("", '/') } else { (self.region, ':') };
        format!("arn:{}:{service}:{region}:{}:{kind}{slash}{name}", partition(self.region), self.account)
    }
}

/// Bucket and key of a manifest.
fn object(uri: &str) -> Result<(String, String), Failure> {
    let (bucket, key) = split_s3(uri)?;
    if key.is_empty() { Err(Failure::usage(format!("{uri} names no object"))) } else { Ok((bucket, key)) }
}

/// The request, but for its token. Flags go over the members of `base`, as with the AWS CLI.
fn request(
    args: &CreateJob,
    base: Option<Map<String, Value>>,
    facts: &Facts<'_>,
) -> Result<Map<String, Value>, Failure> {
    let from_file = base.is_some();
    let mut request = base.unwrap_or_default();
    // It travels in a header.
    request.remove("AccountId");
    if let Some(function) = &args.function {
        let mut invoke = json!({"FunctionArn": facts.arn("lambda", "function", function)});
        if !args.arguments.is_empty() {
            let mut arguments = Map::new();
            for (key, value) in &args.arguments {
                if arguments.insert(key.clone(), value.as_str().into()).is_some() {
                    return Err(Failure::usage(format!("--arg names {key} twice")));
                }
            }
            invoke["InvocationSchemaVersion"] = "2.0".into();
            invoke["UserArguments"] = arguments.into();
        }
        request.insert("Operation".into(), json!({"LambdaInvoke": invoke}));
    }
    if let Some(uri) = args.manifest.as_ref().or(args.inventory.as_ref()) {
        let (bucket, key) = object(uri)?;
        let spec = if args.inventory.is_some() {
            json!({"Format": "S3InventoryReport_CSV_20161130"})
        } else {
            let usual = || vec!["Bucket".to_owned(), "Key".to_owned()];
            let fields = if args.fields.is_empty() { usual() } else { args.fields.clone() };
            json!({"Format": "S3BatchOperations_CSV_20180820", "Fields": fields})
        };
        let location = json!({"ObjectArn": format!("{}/{key}", facts.bucket_arn(&bucket)), "ETag": facts.etag});
        request.remove("ManifestGenerator");
        request.insert("Manifest".into(), json!({"Spec": spec, "Location": location}));
    }
    if let Some(uri) = &args.generate {
        request.remove("Manifest");
        request.insert("ManifestGenerator".into(), json!({"S3JobManifestGenerator": generator(args, uri, facts)?}));
    }
    if let Some(uri) = &args.report {
        let (bucket, prefix) = split_s3(uri)?;
        let scope = if args.scope == Some(Scope::Failed) { "FailedTasksOnly" } else { "AllTasks" };
        let mut report = json!({
            "Bucket": facts.bucket_arn(&bucket), "Format": "Report_CSV_20180820", "Enabled": true, "ReportScope": scope,
        });
        // A slash at its end would be two in the keys.
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() {
            report["Prefix"] = prefix.into();
        }
        request.insert("Report".into(), report);
    }
    request.entry("Report").or_insert_with(|| json!({"Enabled": false}));
    if let Some(description) = &args.description {
        request.insert("Description".into(), description.as_str().into());
    }
    if let Some(priority) = args.priority {
        request.insert("Priority".into(), priority.into());
    }
    request.entry("Priority").or_insert_with(|| PRIORITY.into());
    if let Some(role) = &args.role {
        request.insert("RoleArn".into(), facts.arn("iam", "role", role).into());
    }
    if !request.contains_key("RoleArn") {
        if !facts.longshore {
            return Err(Failure::usage("no role is named for the job").hint("name one with --role"));
        }
        request.insert("RoleArn".into(), facts.arn("iam", "role", ROLE).into());
    }
    if args.confirm {
        request.insert("ConfirmationRequired".into(), true.into());
    } else if !from_file {
        // Absent would mean true.
        request.insert("ConfirmationRequired".into(), false.into());
    }
    tags(args, &mut request, facts)?;
    for (member, hint) in [
        ("Operation", "name a function with --function"),
        ("Manifest", "name them with --manifest, --inventory or --generate"),
    ] {
        let there = request.contains_key(member) || (member == "Manifest" && request.contains_key("ManifestGenerator"));
        if !there {
            let lacks = if member == "Manifest" { "no objects to work on" } else { "nothing to do" };
            return Err(Failure::usage(format!("the job has {lacks}")).hint(hint));
        }
    }
    Ok(request)
}

fn tags(args: &CreateJob, request: &mut Map<String, Value>, facts: &Facts<'_>) -> Result<(), Failure> {
    let sample = args.sample.map(|n| (TAG_SAMPLE.to_owned(), n.to_string()));
    let start = args.start_while_preparing.then(|| (TAG_START.to_owned(), "while-preparing".to_owned()));
    let ours: Vec<_> = sample.into_iter().chain(start).collect();
    if !ours.is_empty() && !facts.longshore {
        let flag = if args.sample.is_some() { "--sample" } else { "--start-while-preparing" };
        return Err(Failure::usage(format!("{flag} is an offer of Longshore, and another server answers here")));
    }
    let given: Vec<_> = args.tags.iter().cloned().chain(ours).collect();
    if given.is_empty() {
        return Ok(());
    }
    let list = request.entry("Tags").or_insert_with(|| Value::Array(Vec::new()));
    let list = list.as_array_mut().ok_or_else(|| Failure::usage("Tags must be a list"))?;
    for (key, value) in given {
        list.retain(|tag| tag.get("Key").and_then(Value::as_str) != Some(&key));
        list.push(json!({"Key": key, "Value": value}));
    }
    Ok(())
}

fn generator(args: &CreateJob, uri: &str, facts: &Facts<'_>) -> Result<Value, Failure> {
    let (bucket, prefix) = split_s3(uri)?;
    let mut constraint = Map::new();
    let parts = [
        ("MatchAnyPrefix", Some(&prefix).filter(|prefix| !prefix.is_empty())),
        ("MatchAnySuffix", args.suffix.as_ref()),
        ("MatchAnySubstring", args.substring.as_ref()),
    ];
    for (name, text) in parts {
        if let Some(text) = text {
            constraint.insert(name.into(), json!([text]));
        }
    }
    let mut filter = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            filter.insert(name.into(), value);
        }
    };
    put("KeyNameConstraint", (!constraint.is_empty()).then(|| constraint.into()));
    put("CreatedAfter", args.created_after.clone().map(Value::from));
    put("CreatedBefore", args.created_before.clone().map(Value::from));
    put("ObjectSizeGreaterThanBytes", args.larger_than.map(Value::from));
    put("ObjectSizeLessThanBytes", args.smaller_than.map(Value::from));
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| json!(list));
    put("MatchAnyStorageClass", list(&args.storage_class));
    put("ObjectReplicationStatuses", list(&args.replication_status));
    put("EligibleForReplication", args.eligible_for_replication.then_some(Value::Bool(true)));
    let encryption = args.encryption.map(|kind| match kind {
        Encryption::SseS3 => "SSES3",
        Encryption::SseKms => "SSEKMS",
        Encryption::DsseKms => "DSSEKMS",
        Encryption::SseC => "SSEC",
        Encryption::NotSse => "NOTSSE",
    });
    put("MatchAnyObjectEncryption", encryption.map(|kind| json!([{kind: {}}])));
    let mut generator = json!({
        "SourceBucket": facts.bucket_arn(&bucket), "EnableManifestOutput": args.save_manifest.is_some(),
    });
    if !filter.is_empty() {
        generator["Filter"] = filter.into();
    }
    if let Some(uri) = &args.save_manifest {
        let (bucket, prefix) = split_s3(uri)?;
        let mut location =
            json!({"Bucket": facts.bucket_arn(&bucket), "ManifestFormat": "S3InventoryReport_CSV_20211130"});
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() {
            location["ManifestPrefix"] = prefix.into();
        }
        generator["ManifestOutputLocation"] = location;
    }
    Ok(generator)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, JobCommand};

    const FACTS: Facts<'_> = Facts { region: "us-east-1", account: "123456789012", longshore: true, etag: "e" };

    fn args(words: &str) -> CreateJob {
        let words = "longshore job create".split(' ').chain(words.split(' '));
        let Command::Job(job) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        let JobCommand::Create(args) = job.command else { panic!() };
        *args
    }

    fn of(words: &str) -> Value {
        request(&args(words), None, &FACTS).unwrap().into()
    }

    #[test]
    fn flags_become_the_request_that_they_mean() {
        let made = of("--function f:PROD --arg a=b --manifest s3://m/a/b.csv --report s3://r/p/ --scope failed \
             --priority 3 --role r --description d --tag k=v --sample 5 --start-while-preparing --confirm");
        assert_eq!(
            made,
            json!({
                "Operation": {"LambdaInvoke": {
                    "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f:PROD",
                    "InvocationSchemaVersion": "2.0", "UserArguments": {"a": "b"}}},
                "Manifest": {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
                             "Location": {"ObjectArn": "arn:aws:s3:::m/a/b.csv", "ETag": "e"}},
                "Report": {"Bucket": "arn:aws:s3:::r", "Prefix": "p", "Format": "Report_CSV_20180820", "Enabled": true,
                           "ReportScope": "FailedTasksOnly"},
                "Priority": 3, "RoleArn": "arn:aws:iam::123456789012:role/r", "Description": "d",
                "ConfirmationRequired": true,
                "Tags": [{"Key": "k", "Value": "v"}, {"Key": "longshore:sample", "Value": "5"},
                         {"Key": "longshore:start", "Value": "while-preparing"}],
            })
        );
    }

    #[test]
    fn why_a_manifest_cannot_be_looked_up_is_told_with_what_helps() {
        let refused = |status: u16| ClientError::Refused {
            status: http::StatusCode::from_u16(status).unwrap(),
            code: String::new(),
            message: String::new(),
        };
        for (status, bucket, wanted) in [
            (403, "photos", "takes s3:GetObject"),
            (403, "photos", "--etag"),
            (404, "photos", "must lie in the storage"),
            (400, "tl", "has 3 to 63 characters"),
        ] {
            let told = no_etag(refused(status), &format!("s3://{bucket}/t.csv"), bucket);
            let told = format!("{} {}", told.message, told.hint.unwrap_or_default());
            assert!(told.contains(wanted), "{told}");
            assert_eq!(told.contains("before the job"), status == 404, "{told}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_safe_value() {
        let made = of("--function arn:x --inventory s3://m/manifest.json");
        assert_eq!(made["Operation"], json!({"LambdaInvoke": {"FunctionArn": "arn:x"}}));
        assert_eq!(made["Manifest"]["Spec"], json!({"Format": "S3InventoryReport_CSV_20161130"}));
        assert_eq!((&made["Report"], &made["Priority"]), (&json!({"Enabled": false}), &json!(10)));
        assert_eq!(made["ConfirmationRequired"], false);
        assert_eq!(made["RoleArn"], "arn:aws:iam::123456789012:role/longshore-batch");
        assert!(made.get("Tags").is_none());
    }

    #[test]
    fn a_generator_has_the_filters_that_were_given() {
        let made = of("--function f --generate s3://b/p/ --suffix .jpg --created-after 2026-01-31 --larger-than 5 \
             --storage-class STANDARD,GLACIER --encryption NOT-SSE --save-manifest s3://m/lists");
        assert_eq!(
            made["ManifestGenerator"]["S3JobManifestGenerator"],
            json!({
                "SourceBucket": "arn:aws:s3:::b", "EnableManifestOutput": true,
                "Filter": {"KeyNameConstraint": {"MatchAnyPrefix": ["p/"], "MatchAnySuffix": [".jpg"]},
                           "CreatedAfter": "2026-01-31T00:00:00Z", "ObjectSizeGreaterThanBytes": 5,
                           "MatchAnyStorageClass": ["STANDARD", "GLACIER"],
                           "MatchAnyObjectEncryption": [{"NOTSSE": {}}]},
                "ManifestOutputLocation": {"Bucket": "arn:aws:s3:::m", "ManifestPrefix": "lists",
                                           "ManifestFormat": "S3InventoryReport_CSV_20211130"},
            })
        );
        let all = of("--function f --generate s3://b");
        assert_eq!(
            all["ManifestGenerator"]["S3JobManifestGenerator"],
            json!({"SourceBucket": "arn:aws:s3:::b", "EnableManifestOutput": false})
        );
    }

    #[test]
    fn flags_go_over_the_members_of_a_request_in_json() {
        let base = json!({
            "AccountId": "123456789012", "Priority": 1, "RoleArn": "arn:r", "Report": {"Enabled": false},
            "Operation": {"S3DeleteObjectTagging": {}}, "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
            "ManifestGenerator": {},
        });
        let args = args("--cli-input-json x --priority 9 --manifest s3://m/k --tag a=3");
        let made = Value::from(request(&args, base.as_object().cloned(), &FACTS).unwrap());
        assert_eq!((&made["Priority"], &made["RoleArn"]), (&json!(9), &json!("arn:r")));
        assert_eq!(made["Operation"], json!({"S3DeleteObjectTagging": {}}));
        assert_eq!(made["Tags"], json!([{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "3"}]));
        assert!(made.get("ManifestGenerator").is_none() && made.get("AccountId").is_none());
        assert!(made.get("ConfirmationRequired").is_none(), "the request in JSON decides, and the API's default");
    }

    #[test]
    fn a_first_line_that_names_the_columns_is_a_header_in_whichever_order_they_are() {
        for (beginning, fields, wanted) in [
            ("Bucket,Key\nb,k\n", json!(["Bucket", "Key"]), true),
            ("bucket,ignore,\"key\"\r\nb,x,k\r\n", json!(["Bucket", "Ignore", "Key"]), true),
            ("bucket,key,size\nb,k,1\n", json!(["Bucket", "Key", "Ignore"]), true),
            ("b,k\nBucket,Key\n", json!(["Bucket", "Key"]), false),
            ("bucket,ignore\n", json!(["Bucket", "Key"]), false),
            ("", json!(["Bucket", "Key"]), false),
            ("", Value::Null, false),
        ] {
            assert_eq!(is_header(beginning, &fields), wanted, "{beginning} {fields}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let elsewhere = Facts { longshore: false, ..FACTS };
        for (words, facts, wanted) in [
            ("--function f", &FACTS, "no objects to work on"),
            ("--function f --manifest s3://m", &FACTS, "names no object"),
            ("--function f --manifest m.csv", &FACTS, "not of the form s3://"),
            ("--function f --manifest s3://m/k --arg a=1 --arg a=2", &FACTS, "names a twice"),
            ("--function f --manifest s3://m/k", &elsewhere, "no role"),
            ("--function f --manifest s3://m/k --role r --sample 3", &elsewhere, "--sample is an offer of Longshore"),
        ] {
            let said = request(&args(words), None, facts).unwrap_err();
            assert!(said.message.contains(wanted), "{words}: {}", said.message);
        }
    }
}
