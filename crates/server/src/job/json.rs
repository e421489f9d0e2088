//! The API's JSON and its XML: what the AWS CLI prints for an answer, and what it sends for `--cli-input-json`.
//!
//! Both are one tree. XML does not say what is a list, a map, a number or an empty structure, so the names do.
//! Source: botocore's model of S3 Control, version 2018-08-20; S3 Batch spec 1.4.

use longshore_wire::xml::{Element, Writer};
use serde_json::{Map, Value};

/// Lists, whose elements are `<member>`; one list has another name for them (rule X-2).
const LISTS: [&str; 12] = [
    "FailureReasons",
    "Fields",
    "Grants",
    "Jobs",
    "MatchAnyObjectEncryption",
    "MatchAnyPrefix",
    "MatchAnyStorageClass",
    "MatchAnySubstring",
    "MatchAnySuffix",
    "ObjectReplicationStatuses",
    "TagSet",
    "Tags",
];
/// Maps, written as `<entry><key/><value/></entry>` (rule X-3).
const MAPS: [&str; 2] = ["UserArguments", "UserMetadata"];
const NUMBERS: [&str; 9] = [
    "ContentLength",
    "ElapsedTimeInActiveSeconds",
    "ExpirationInDays",
    "NumberOfTasksFailed",
    "NumberOfTasksSucceeded",
    "ObjectSizeGreaterThanBytes",
    "ObjectSizeLessThanBytes",
    "Priority",
    "TotalNumberOfTasks",
];
const BOOLEANS: [&str; 7] = [
    "BucketKeyEnabled",
    "BypassGovernanceRetention",
    "ConfirmationRequired",
    "EligibleForReplication",
    "EnableManifestOutput",
    "Enabled",
    "RequesterPays",
];
/// Structures that may have no member: without one they look like an empty text.
const STRUCTURES: [&str; 13] = [
    "DSSE-KMS",
    "Filter",
    "NOT-SSE",
    "ProgressSummary",
    "Retention",
    "S3DeleteObjectTagging",
    "S3ReplicateObject",
    "S3ComputeObjectChecksum",
    "S3InitiateRestoreObject",
    "SSE-C",
    "SSE-KMS",
    "SSE-S3",
    "Timers",
];
/// Members whose XML names have a hyphen (rule X-4): on the wire, in JSON.
const HYPHENS: [(&str, &str); 5] =
    [("SSE-S3", "SSES3"), ("SSE-KMS", "SSEKMS"), ("DSSE-KMS", "DSSEKMS"), ("SSE-C", "SSEC"), ("NOT-SSE", "NOTSSE")];

/// The value of an element as the AWS CLI prints it.
pub fn of(element: &Element) -> Value {
    let name = element.name.as_str();
    if LISTS.contains(&name) {
        return Value::Array(element.children.iter().map(of).collect());
    }
    if MAPS.contains(&name) {
        let pairs = element
            .children
            .iter()
            .filter_map(|e| Some((e.child_text("key")?.to_owned(), Value::from(e.child_text("value")?))));
        return Value::Object(pairs.collect());
    }
    if !element.children.is_empty() || (element.text.is_empty() && STRUCTURES.contains(&name)) {
        return Value::Object(element.children.iter().map(|c| (in_json(&c.name).to_owned(), of(c))).collect());
    }
    match element.text.as_str() {
        "true" if BOOLEANS.contains(&name) => true.into(),
        "false" if BOOLEANS.contains(&name) => false.into(),
        text if NUMBERS.contains(&name) => text.parse::<u64>().map_or_else(|_| text.into(), Value::from),
        text => text.into(),
    }
}

fn in_json(wire: &str) -> &str {
    HYPHENS.iter().find(|(on_the_wire, _)| *on_the_wire == wire).map_or(wire, |(_, json)| json)
}

fn on_the_wire(json: &str) -> &str {
    HYPHENS.iter().find(|(_, name)| *name == json).map_or(json, |(wire, _)| wire)
}

/// What a CreateJob request may have where the server would pass over an unknown name in silence: a misspelt
/// `Description` would be lost. Inside of `Operation` the server refuses it.
const MEMBERS: [(&str, &[&str]); 9] = [
    (
        "",
        &[
            "ClientRequestToken",
            "ConfirmationRequired",
            "Description",
            "Manifest",
            "ManifestGenerator",
            "Operation",
            "Priority",
            "Report",
            "RoleArn",
            "Tags",
        ],
    ),
    ("Report", &["Bucket", "Enabled", "ExpectedBucketOwner", "Format", "Prefix", "ReportScope"]),
    ("Manifest", &["Location", "Spec"]),
    ("Location", &["ETag", "ObjectArn", "ObjectVersionId"]),
    ("Spec", &["Fields", "Format"]),
    ("ManifestGenerator", &["S3JobManifestGenerator"]),
    (
        "S3JobManifestGenerator",
        &["EnableManifestOutput", "ExpectedBucketOwner", "Filter", "ManifestOutputLocation", "SourceBucket"],
    ),
    (
        "ManifestOutputLocation",
        &["Bucket", "ExpectedManifestBucketOwner", "ManifestEncryption", "ManifestFormat", "ManifestPrefix"],
    ),
    (
        "Filter",
        &[
            "CreatedAfter",
            "CreatedBefore",
            "EligibleForReplication",
            "KeyNameConstraint",
            "MatchAnyObjectEncryption",
            "MatchAnyStorageClass",
            "ObjectReplicationStatuses",
            "ObjectSizeGreaterThanBytes",
            "ObjectSizeLessThanBytes",
        ],
    ),
];

/// The document of a CreateJob request. The error is a clause about the member that cannot be sent.
pub fn create_job(request: &Map<String, Value>) -> Result<String, String> {
    let mut xml = Writer::document("CreateJobRequest", Some(longshore_wire::error::S3_CONTROL_NAMESPACE));
    members(&mut xml, "", "", request)?;
    Ok(xml.finish())
}

fn members(xml: &mut Writer, path: &str, name: &str, object: &Map<String, Value>) -> Result<(), String> {
    let known = MEMBERS.iter().find(|(of, _)| *of == name).filter(|_| !path.starts_with("Operation"));
    for (member, value) in object {
        let path = if path.is_empty() { member.clone() } else { format!("{path}.{member}") };
        if known.is_some_and(|(_, known)| !known.contains(&member.as_str())) {
            return Err(format!("{path} is no member of the request"));
        }
        write(xml, &path, member, value)?;
    }
    Ok(())
}

fn write(xml: &mut Writer, path: &str, name: &str, value: &Value) -> Result<(), String> {
    // What stands between < and > is not escaped.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!("{path} is no name of a member"));
    }
    let element = on_the_wire(name);
    match value {
        Value::Null => return Err(format!("{path} is null; leave it out")),
        Value::Bool(flag) => xml.text(element, if *flag { "true" } else { "false" }),
        Value::Number(number) => xml.text(element, &number.to_string()),
        Value::String(text) => xml.text(element, text),
        Value::Array(list) => {
            xml.open(element);
            let member = if name == "MatchAnyObjectEncryption" { "ObjectEncryption" } else { "member" };
            for value in list {
                write(xml, path, member, value)?;
            }
            xml.close();
        }
        Value::Object(map) if MAPS.contains(&name) => {
            xml.open(element);
            for (key, value) in map {
                let Value::String(value) = value else { return Err(format!("{path}.{key} must be text")) };
                xml.open("entry");
                xml.text("key", key);
                xml.text("value", value);
                xml.close();
            }
            xml.close();
        }
        Value::Object(object) => {
            xml.open(element);
            members(xml, path, name, object)?;
            xml.close();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_printed_as_the_aws_cli_prints_it() {
        let xml = "<Job><Status>Complete</Status><Priority>10</Priority><ConfirmationRequired>false</ConfirmationRequired>\
                   <Description>true</Description><Operation><S3DeleteObjectTagging/></Operation>\
                   <Manifest><Spec><Fields><member>Bucket</member><member>Key</member></Fields></Spec></Manifest>\
                   <ProgressSummary><TotalNumberOfTasks>2</TotalNumberOfTasks></ProgressSummary><FailureReasons/></Job>";
        let job = Element::parse(xml.as_bytes()).unwrap();
        assert_eq!(
            of(&job),
            serde_json::json!({
                "Status": "Complete", "Priority": 10, "ConfirmationRequired": false,
                "Description": "true", "Operation": {"S3DeleteObjectTagging": {}},
                "Manifest": {"Spec": {"Fields": ["Bucket", "Key"]}},
                "ProgressSummary": {"TotalNumberOfTasks": 2}, "FailureReasons": [],
            })
        );
    }

    #[test]
    fn a_request_in_json_survives_the_way_to_xml_and_back() {
        let request = serde_json::json!({
            "Operation": {"LambdaInvoke": {"FunctionArn": "f", "UserArguments": {"a": "<&>", "b c": ""}}},
            "ManifestGenerator": {"S3JobManifestGenerator": {
                "SourceBucket": "arn:aws:s3:::b", "EnableManifestOutput": true,
                "ManifestOutputLocation": {"ManifestEncryption": {"SSES3": {}}},
                "Filter": {"KeyNameConstraint": {"MatchAnyPrefix": ["p"]}, "ObjectSizeLessThanBytes": 7,
                           "MatchAnyObjectEncryption": [{"SSEKMS": {"BucketKeyEnabled": false}}, {"NOTSSE": {}}]},
            }},
            "Report": {"Enabled": false}, "Priority": 3, "Tags": [{"Key": "k", "Value": ""}],
        });
        let document = create_job(request.as_object().unwrap()).unwrap();
        assert!(document.contains("<ObjectEncryption><SSE-KMS><BucketKeyEnabled>false</BucketKeyEnabled></SSE-KMS>"));
        assert!(document.contains("<entry><key>a</key><value>&lt;&amp;&gt;</value></entry>"));
        assert_eq!(of(&Element::parse(document.as_bytes()).unwrap()), request);
    }

    #[test]
    fn what_the_server_would_pass_over_is_refused_here() {
        for (request, wanted) in [
            (serde_json::json!({"Descripton": "d"}), "Descripton is no member"),
            (serde_json::json!({"Report": {"enabled": true}}), "Report.enabled is no member"),
            (serde_json::json!({"Description": null}), "Description is null"),
            (serde_json::json!({"Operation": {"a><b": {}}}), "Operation.a><b is no name"),
            (serde_json::json!({"Operation": {"L": {"UserArguments": {"a": 1}}}}), "UserArguments.a must be text"),
        ] {
            let said = create_job(request.as_object().unwrap()).unwrap_err();
            assert!(said.contains(wanted), "{said}");
        }
    }
}
