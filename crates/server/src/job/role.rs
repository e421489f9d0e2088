//! What the role of a job that is about to be created may not, as far as whoever creates it may ask that: so that it is said before a
//! long job has run, and not after it.

use longshore_wire::arn::bucket_of;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::failure::plain;
use crate::place::Place;

/// The job has no ID yet; policies on reports name it with a wildcard, or not at all.
const SOME_JOB: &str = "00000000-0000-4000-8000-000000000000";

/// Something that the job will do with its role.
#[derive(Debug, PartialEq, Eq)]
struct Needed {
    action: &'static str,
    resource: String,
    /// What becomes of the job otherwise.
    otherwise: &'static str,
}

/// A sentence for each thing that the job needs and its role may not do, or one if there is no such role. What cannot be asked, or hangs on
/// what is not known before the job runs, is not talked about.
pub async fn warnings(place: &Place, request: &Map<String, Value>) -> Vec<String> {
    let Some(role) = request.get("RoleArn").and_then(Value::as_str).filter(|role| role.contains(":role/")) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    for needed in needed(request) {
        match ask(&place.client, role, &needed).await {
            Word::May => {}
            Word::NoRole => {
                warnings.push(format!(
                    "there is no role {} on this server: the job will fail before its first task",
                    plain(role)
                ));
                return warnings;
            }
            Word::MayNot => warnings.push(format!(
                "the role {} may not {} on {}: {}; \"longshore iam explain {} {} {}{}\" shows why",
                plain(role),
                needed.action,
                plain(&needed.resource),
                needed.otherwise,
                plain(role),
                needed.action,
                plain(&needed.resource),
                place.flags
            )),
        }
    }
    warnings
}

fn needed(request: &Map<String, Value>) -> Vec<Needed> {
    let mut all = Vec::new();
    let invoke = request.get("Operation").and_then(|operation| operation.get("LambdaInvoke"));
    // A function's name alone is not what policies name.
    let function = invoke.and_then(|invoke| invoke.get("FunctionArn")?.as_str()).filter(|arn| arn.starts_with("arn:"));
    if let Some(function) = function {
        all.push(Needed {
            action: "lambda:InvokeFunction",
            resource: function.to_owned(),
            otherwise: "every task will fail",
        });
    }
    let report = request.get("Report").filter(|report| report.get("Enabled") == Some(&Value::Bool(true)));
    if let Some(arn) = report.and_then(|report| report.get("Bucket")?.as_str()).filter(|arn| bucket_of(arn).is_some()) {
        let prefix = report.and_then(|report| report.get("Prefix")?.as_str());
        let folder = crate::report::base(prefix.unwrap_or(""), SOME_JOB);
        all.push(Needed {
            action: "s3:PutObject",
            resource: format!("{arn}/{folder}/manifest.json"),
            otherwise: "all tasks will run, and the job will fail when it writes its report",
        });
    }
    all
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// It may, or nobody can tell.
    May,
    MayNot,
    NoRole,
}

async fn ask(client: &Client, role: &str, needed: &Needed) -> Word {
    let member = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let members = [
        member("PolicySourceArn", role),
        member("ActionNames.member.1", needed.action),
        member("ResourceArns.member.1", &needed.resource),
        // What the engine does leaves the machine at most through the door of a store.
        member("ContextEntries.member.1.ContextKeyName", "aws:SecureTransport"),
        member("ContextEntries.member.1.ContextKeyValues.member.1", "true"),
    ];
    match client.explain(&members).await {
        Ok(answer) => word(&answer),
        Err(error) if error.code() == "NoSuchEntity" => Word::NoRole,
        Err(_) => Word::May,
    }
}

fn word(answer: &Value) -> Word {
    let result = answer.pointer("/results/0");
    let denied = result.and_then(|result| result.get("allowed")) == Some(&Value::Bool(false));
    let open = result.and_then(|result| result.get("missingContextKeys")?.as_array());
    if denied && open.is_none_or(Vec::is_empty) { Word::MayNot } else { Word::May }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_needs_its_function_and_the_place_of_its_report() {
        let request = json!({
            "Operation": {"LambdaInvoke": {"FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f"}},
            "Report": {"Enabled": true, "Bucket": "arn:aws:s3:::r", "Prefix": "p"},
        });
        let told = |request: &Value| -> Vec<(&str, String)> {
            let needed = needed(request.as_object().unwrap());
            needed.into_iter().map(|needed| (needed.action, needed.resource)).collect()
        };
        let function = ("lambda:InvokeFunction", "arn:aws:lambda:us-east-1:000000000000:function:f".to_owned());
        let report = ("s3:PutObject", format!("arn:aws:s3:::r/p/job-{SOME_JOB}/manifest.json"));
        assert_eq!(told(&request), [function, report]);
        let little = json!({"Operation": {"LambdaInvoke": {"FunctionArn": "f"}}, "Report": {"Enabled": false}});
        assert_eq!(told(&little), []);
    }

    #[test]
    fn only_what_is_known_to_be_denied_is_talked_about() {
        for (result, wanted) in [
            (json!({"allowed": true, "missingContextKeys": []}), Word::May),
            (json!({"allowed": false, "missingContextKeys": []}), Word::MayNot),
            (json!({"allowed": false, "missingContextKeys": ["aws:SourceIp"]}), Word::May),
            (json!({}), Word::May),
        ] {
            assert_eq!(word(&json!({"results": [result]})), wanted, "{result}");
        }
        assert_eq!(word(&json!({})), Word::May);
    }
}
