//! What a function is sent for a task, and what its answer amounts to.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::random::Random;
use crate::task::{Outcome, ResultCode, Task, TaskIds, VersionId};

/// The event's schema. Source: S3 Batch spec 5.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Bucket as an ARN, no user arguments.
    V1,
    /// Bucket by name, user arguments.
    V2,
}

/// The parts of a job's events that are the same for every task, rendered once.
#[derive(Debug, Clone)]
pub struct EventTemplate {
    ids: TaskIds,
    /// From the event's first byte to the value of its `invocationId`.
    start: String,
    /// From there to the value of the task's `taskId`.
    job: String,
    /// From the value of `s3VersionId` to the bucket's name.
    bucket: &'static str,
}

impl EventTemplate {
    /// `user_arguments` in the order given; only schema 2.0 carries them. Task IDs come from `lineage`, usually the
    /// job's own ID (see [`task_id`]).
    ///
    /// [`task_id`]: crate::task::task_id
    pub fn new(job_id: &str, lineage: &str, schema: Schema, user_arguments: &[(String, String)]) -> Self {
        let mut job = format!("\",\"job\":{{\"id\":{}", quoted(job_id));
        if schema == Schema::V2 {
            let pairs: Vec<_> = user_arguments.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
            job.push_str(&format!(",\"userArguments\":{{{}}}", pairs.join(",")));
        }
        job.push_str("},\"tasks\":[{\"taskId\":\"");
        let (version, bucket) = match schema {
            Schema::V1 => ("1.0", ",\"s3BucketArn\":\"arn:aws:s3:::"),
            Schema::V2 => ("2.0", ",\"s3Bucket\":\""),
        };
        let start = format!("{{\"invocationSchemaVersion\":\"{version}\",\"invocationId\":\"");
        Self { ids: TaskIds::new(lineage), start, job, bucket }
    }

    /// The event for one attempt at a task: UTF-8 JSON, fields in the order of AWS's samples.
    pub fn event(&self, invocation_id: &str, task: &Task) -> Bytes {
        const REST: usize = 128;
        let version = if let VersionId::Given(id) = &task.version { id.len() } else { 0 };
        let names = invocation_id.len() + task.key.len() + task.bucket.len() + version;
        let mut out = String::with_capacity(self.start.len() + self.job.len() + names + REST);
        out.push_str(&self.start);
        out.push_str(invocation_id);
        out.push_str(&self.job);
        out.push_str(self.ids.of(task.number).as_str());
        out.push_str("\",\"s3Key\":");
        push_quoted(&mut out, &task.key);
        out.push_str(",\"s3VersionId\":");
        match &task.version {
            VersionId::Given(id) => push_quoted(&mut out, id),
            VersionId::NoColumn | VersionId::Missing => out.push_str("null"),
        }
        out.push_str(self.bucket);
        push_escaped(&mut out, &task.bucket);
        out.push_str("\"}]}");
        Bytes::from(out)
    }

    pub fn task_id(&self, task: &Task) -> String {
        self.ids.of(task.number).as_str().to_owned()
    }
}

/// A fresh `invocationId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvocationId([u8; 48]);

impl InvocationId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

/// Makes an `invocationId`: unpadded base64 of 36 bytes, 48 characters. Source: rule EV-7, our choice.
pub fn invocation_id(random: &mut Random) -> InvocationId {
    use base64::Engine;
    let mut bytes = [0_u8; 36];
    for chunk in bytes.chunks_mut(8) {
        let word = random.next_u64().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    let mut text = [0; 48];
    let written = base64::engine::general_purpose::STANDARD_NO_PAD.encode_slice(bytes, &mut text);
    debug_assert_eq!(written, Ok(text.len()));
    InvocationId(text)
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

fn push_escaped(out: &mut String, mut text: &str) {
    // Few keys have anything in them that has to be escaped: they are copied whole.
    while let Some(at) = text.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        let (plain, rest) = text.split_at(at);
        out.push_str(plain);
        match rest.as_bytes()[0] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
        text = &rest[1..];
    }
    out.push_str(text);
}

/// What came back from one call of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// HTTP 200: the function's bytes.
    Answer(Bytes),
    /// HTTP 200 with `X-Amz-Function-Error`: it threw, timed out, died, or answered too much. The error's JSON.
    FunctionError(Bytes),
    /// It was called off before it began: the job is being paused, cancelled or failed.
    NotStarted,
    /// HTTP 429: there was no room for it. `retry_after_ms` if the other side said when.
    Throttled { message: String, retry_after_ms: Option<u64> },
    /// No answer at all: refused, reset, timed out on the way. A short cause.
    Unreachable { cause: String },
    /// Any other HTTP status, with the error's type and message.
    Refused { status: u16, code: String, message: String },
}

/// What a reply means for the task, before attempts are counted. Each carries the outcome that stands if it is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Final at once.
    Settle(Outcome),
    /// To be redriven, which counts as an attempt.
    Redrive(Outcome),
    /// The function threw, timed out or died: final, unless the policy gives such tasks another attempt.
    FunctionError(Outcome),
    /// To be called again; the function was not heard, so it does not count.
    RetryTransport(Outcome),
    /// Not started. To be called again, and fewer at a time.
    Throttled(Outcome, Option<u64>),
    /// Not started, by our own wish. As if it had not been tried.
    NotStarted,
}

impl Judgement {
    /// What the function has said of the task, by the code that this amounts to: an answer that cannot be made out is a
    /// PermanentFailure. `None` where it did not answer for the task.
    pub fn code(&self) -> Option<ResultCode> {
        match self {
            Judgement::Settle(outcome) if outcome.succeeded => Some(ResultCode::Succeeded),
            Judgement::Settle(_) => Some(ResultCode::PermanentFailure),
            Judgement::Redrive(_) => Some(ResultCode::TemporaryFailure),
            Judgement::FunctionError(_)
            | Judgement::RetryTransport(_)
            | Judgement::Throttled(..)
            | Judgement::NotStarted => None,
        }
    }
}

const MISSING: &str = "Task result missing from Lambda response";
/// What the report says of an answer that is not one, `null` for instance.
pub const NOT_JSON: &str = "Invalid JSON returned in Lambda payload";

/// Reads one reply by the decision table of S3 Batch spec 5.5, top to bottom (rules R-1 to R-13).
pub fn judge(reply: &Reply, task_id: &str) -> Judgement {
    match reply {
        Reply::NotStarted => Judgement::NotStarted,
        Reply::Throttled { message, retry_after_ms } => {
            Judgement::Throttled(Outcome::failed(429, "TooManyRequestsException", message), *retry_after_ms)
        }
        Reply::Unreachable { cause } => Judgement::RetryTransport(Outcome::failed(500, "ServiceUnavailable", cause)),
        Reply::Refused { status, code, message } => {
            let outcome = Outcome::failed(*status, code.as_str(), message);
            match status {
                500..=599 | 408..=410 => Judgement::RetryTransport(outcome),
                _ => Judgement::Settle(outcome),
            }
        }
        Reply::FunctionError(payload) => {
            let message = format!("Lambda returned function error: {}", String::from_utf8_lossy(payload));
            Judgement::FunctionError(Outcome::failed(200, "PermanentFailure", message))
        }
        Reply::Answer(payload) => judge_answer(payload, task_id),
    }
}

/// An answer as AWS documents it, of texts alone. Whatever else there may be, [`judge_any_answer`] reads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UsualAnswer<'a> {
    #[serde(borrow, default, rename = "invocationSchemaVersion")]
    _version: Cow<'a, str>,
    #[serde(borrow, default, rename = "invocationId")]
    _id: Cow<'a, str>,
    #[serde(borrow, default)]
    treat_missing_keys_as: Cow<'a, str>,
    #[serde(borrow)]
    results: Vec<UsualResult<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UsualResult<'a> {
    #[serde(borrow, default)]
    task_id: Cow<'a, str>,
    #[serde(borrow, default)]
    result_code: Cow<'a, str>,
    #[serde(borrow, default)]
    result_string: Cow<'a, str>,
}

fn judge_answer(payload: &[u8], task_id: &str) -> Judgement {
    let payload = payload.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(payload);
    // Reading into borrowed fields costs less than half of reading into a tree. A second bracket may be that of an array in
    // an object's place, which serde would take for one.
    let usual = match payload.iter().filter(|b| **b == b'[').count() {
        1 => serde_json::from_slice::<UsualAnswer<'_>>(payload).ok(),
        _ => None,
    };
    let Some(answer) = usual else { return judge_any_answer(payload, task_id) };
    match answer.results.into_iter().find(|result| result.task_id == task_id) {
        None => missing(ResultCode::parse(&answer.treat_missing_keys_as)),
        Some(result) => by_code(&result.result_code, result.result_string.into_owned()),
    }
}

fn permanent(message: String) -> Judgement {
    Judgement::Settle(Outcome::failed(200, "PermanentFailure", message))
}

fn missing(treat_as: Option<ResultCode>) -> Judgement {
    match treat_as {
        Some(ResultCode::Succeeded) => Judgement::Settle(Outcome::succeeded("")),
        Some(ResultCode::PermanentFailure) => permanent(MISSING.to_owned()),
        Some(ResultCode::TemporaryFailure) | None => {
            Judgement::Redrive(Outcome::failed(200, "TemporaryFailure", MISSING))
        }
    }
}

fn by_code(code: &str, message: String) -> Judgement {
    match ResultCode::parse(code) {
        Some(ResultCode::Succeeded) => Judgement::Settle(Outcome::succeeded(message)),
        Some(ResultCode::PermanentFailure) => permanent(message),
        Some(ResultCode::TemporaryFailure) => Judgement::Redrive(Outcome::failed(200, "TemporaryFailure", message)),
        None => permanent(format!("Invalid result code returned in Lambda payload: {code}")),
    }
}

/// As [`judge_answer`], of any JSON: what is not as documented counts as far as it can be made out.
fn judge_any_answer(payload: &[u8], task_id: &str) -> Judgement {
    let Ok(Value::Object(answer)) = serde_json::from_slice::<Value>(payload) else {
        return permanent(NOT_JSON.to_owned());
    };
    let Some(Value::Array(results)) = answer.get("results") else { return permanent(NOT_JSON.to_owned()) };
    // Of several results for our task the first counts; results for others are not ours to read (rule RD-1).
    let Some(result) = results.iter().find(|r| r.get("taskId").and_then(Value::as_str) == Some(task_id)) else {
        return missing(answer.get("treatMissingKeysAs").and_then(Value::as_str).and_then(ResultCode::parse));
    };
    let shown = |member: Option<&Value>| match member {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let message = shown(result.get("resultString").filter(|value| !value.is_null()));
    by_code(&shown(result.get("resultCode")), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::task_id;
    use proptest::prelude::*;

    fn task(version: VersionId) -> Task {
        Task { row: 0, number: 0, bucket: "b".into(), key: "a%20b\"é".into(), version }
    }

    #[test]
    fn the_event_of_schema_1_0_is_the_documented_one() {
        let template = EventTemplate::new("job-1", "job-1", Schema::V1, &[]);
        let event = template.event("inv", &task(VersionId::Given("1".into())));
        let id = task_id("job-1", 0);
        let wanted = format!(
            "{{\"invocationSchemaVersion\":\"1.0\",\"invocationId\":\"inv\",\"job\":{{\"id\":\"job-1\"}},\"tasks\":[{{\
             \"taskId\":\"{id}\",\"s3Key\":\"a%20b\\\"é\",\"s3VersionId\":\"1\",\"s3BucketArn\":\"arn:aws:s3:::b\"}}]}}"
        );
        assert_eq!(event, wanted);
    }

    #[test]
    fn the_event_of_schema_2_0_has_arguments_and_a_bare_bucket() {
        let arguments = [("k1".to_owned(), "v\n1".to_owned()), ("k2".to_owned(), String::new())];
        let event =
            EventTemplate::new("job-1", "job-1", Schema::V2, &arguments).event("inv", &task(VersionId::NoColumn));
        let event: Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(event["job"]["userArguments"], serde_json::json!({"k1": "v\n1", "k2": ""}));
        assert_eq!(event["tasks"][0]["s3Bucket"], "b");
        assert_eq!(event["tasks"][0]["s3VersionId"], Value::Null);
        assert!(event["tasks"][0].get("s3BucketArn").is_none());
        let bare = EventTemplate::new("job-1", "job-1", Schema::V2, &[]).event("inv", &task(VersionId::NoColumn));
        assert_eq!(serde_json::from_slice::<Value>(&bare).unwrap()["job"]["userArguments"], serde_json::json!({}));
    }

    #[test]
    fn a_task_that_is_retried_in_another_job_keeps_its_id_and_names_the_new_job() {
        let first = EventTemplate::new("job-1", "job-1", Schema::V1, &[]);
        let again = EventTemplate::new("job-2", "job-1", Schema::V1, &[]);
        let (was, is) =
            (Task { row: 7, number: 7, ..task(VersionId::NoColumn) }, Task { number: 7, ..task(VersionId::NoColumn) });
        assert_eq!(again.task_id(&is), first.task_id(&was));
        assert!(String::from_utf8_lossy(&again.event("inv", &is)).contains(r#""job":{"id":"job-2"}"#));
    }

    #[test]
    fn invocation_ids_differ_and_are_48_characters() {
        let mut random = Random::seeded(1);
        let (a, b) = (invocation_id(&mut random), invocation_id(&mut random));
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 48);
    }

    fn answer(text: &str) -> Judgement {
        judge(&Reply::Answer(Bytes::from(text.to_owned())), "t")
    }

    fn permanent(message: &str) -> Judgement {
        Judgement::Settle(Outcome::failed(200, "PermanentFailure", message))
    }

    #[test]
    fn the_decision_table_holds_row_by_row() {
        let ok = |m: &str| Judgement::Settle(Outcome::succeeded(m));
        let redrive = |m: &str| Judgement::Redrive(Outcome::failed(200, "TemporaryFailure", m));
        let cases: Vec<(&str, Judgement)> = vec![
            // R-6
            ("", permanent(NOT_JSON)),
            ("null", permanent(NOT_JSON)),
            ("[]", permanent(NOT_JSON)),
            ("garbage", permanent(NOT_JSON)),
            ("{}", permanent(NOT_JSON)),
            (r#"{"results":{}}"#, permanent(NOT_JSON)),
            // R-7 to R-9
            (r#"{"results":[],"treatMissingKeysAs":"Succeeded"}"#, ok("")),
            (r#"{"results":[],"treatMissingKeysAs":"PermanentFailure"}"#, permanent(MISSING)),
            (r#"{"results":[],"treatMissingKeysAs":"TemporaryFailure"}"#, redrive(MISSING)),
            (r#"{"results":[],"treatMissingKeysAs":"whatever"}"#, redrive(MISSING)),
            (r#"{"results":[],"treatMissingKeyAs":"Succeeded"}"#, redrive(MISSING)),
            (r#"{"results":[{"taskId":"other","resultCode":"Succeeded"}]}"#, redrive(MISSING)),
            (r#"{"results":[7,null,"x"]}"#, redrive(MISSING)),
            // R-10 to R-13
            (r#"{"results":[{"taskId":"t","resultCode":"Succeeded","resultString":"done"}]}"#, ok("done")),
            (r#"{"results":[{"taskId":"t","resultCode":"Succeeded","resultString":null}]}"#, ok("")),
            (r#"{"results":[{"taskId":"t","resultCode":"PermanentFailure","resultString":"no"}]}"#, permanent("no")),
            (r#"{"results":[{"taskId":"t","resultCode":"TemporaryFailure","resultString":"x"}]}"#, redrive("x")),
            (
                r#"{"results":[{"taskId":"t","resultCode":"succeeded"}]}"#,
                permanent("Invalid result code returned in Lambda payload: succeeded"),
            ),
            (r#"{"results":[{"taskId":"t"}]}"#, permanent("Invalid result code returned in Lambda payload: ")),
            // RD-1: the first of several counts.
            (
                r#"{"results":[{"taskId":"t","resultCode":"Succeeded"},{"taskId":"t","resultCode":"PermanentFailure"}]}"#,
                ok(""),
            ),
            // RD-2, RD-7
            (r#"{"results":[{"taskId":"t","resultCode":"Succeeded","resultString":{"a":1}}]}"#, ok(r#"{"a":1}"#)),
            ("\u{feff} {\"results\":[{\"taskId\":\"t\",\"resultCode\":\"Succeeded\"}]}", ok("")),
            (r#"{"results":[],"results":[{"taskId":"t","resultCode":"Succeeded"}]}"#, ok("")),
        ];
        for (text, wanted) in cases {
            assert_eq!(answer(text), wanted, "{text}");
        }
    }

    fn any_answer() -> impl Strategy<Value = String> {
        let value = proptest::sample::select(vec![
            r#""t""#,
            r#""t""#,
            r#""Succeeded""#,
            r#""TemporaryFailure""#,
            r#""x\u00e9""#,
            r#""\ud800""#,
            r#""""#,
            r#""[""#,
            "null",
            "7",
            "1e999",
            "[]",
            r#"["t","Succeeded","s"]"#,
            "{}",
            "",
        ]);
        let member = |names: Vec<&'static str>| {
            (proptest::sample::select(names), value.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"))
        };
        let result = proptest::collection::vec(member(vec!["taskId", "resultCode", "resultString", "more"]), 0..4);
        let result = prop_oneof![
            9 => result.prop_map(|members| format!("{{{}}}", members.join(","))),
            1 => value.clone().prop_map(str::to_owned),
        ];
        let results =
            proptest::collection::vec(result, 0..3).prop_map(|all| format!("\"results\":[{}]", all.join(",")));
        let other = member(vec!["invocationSchemaVersion", "treatMissingKeysAs", "invocationId", "results", "more"]);
        (proptest::collection::vec(other.clone(), 0..2), results, proptest::collection::vec(other, 0..2))
            .prop_map(|(before, results, after)| format!("{{{}}}", [before, vec![results], after].concat().join(",")))
    }

    proptest! {
        #[test]
        fn an_answer_read_the_short_way_amounts_to_what_the_long_way_makes_of_it(text in any_answer()) {
            prop_assert_eq!(judge_answer(text.as_bytes(), "t"), judge_any_answer(text.as_bytes(), "t"));
        }

        #[test]
        fn a_key_of_any_characters_is_in_the_event_as_it_is_in_the_manifest(key in ".{0,20}", bucket in "[ -~]{0,9}") {
            let task = Task { key: key.clone().into(), bucket: bucket.clone().into(), ..task(VersionId::Given(key.as_str().into())) };
            for (schema, member, named) in [
                (Schema::V1, "s3BucketArn", format!("arn:aws:s3:::{bucket}")),
                (Schema::V2, "s3Bucket", bucket),
            ] {
                let event = EventTemplate::new("job-1", "job-1", schema, &[]).event("inv", &task);
                let event: Value = serde_json::from_slice(&event).unwrap();
                prop_assert_eq!(&event["tasks"][0]["s3Key"], &Value::from(key.as_str()));
                prop_assert_eq!(&event["tasks"][0]["s3VersionId"], &Value::from(key.as_str()));
                prop_assert_eq!(&event["tasks"][0][member], &Value::from(named));
            }
        }
    }

    #[test]
    fn a_call_that_failed_is_sorted_by_its_status() {
        let refused = |status| judge(&Reply::Refused { status, code: "C".into(), message: "m".into() }, "t");
        for status in [500, 502, 503, 408, 409, 410] {
            assert!(matches!(refused(status), Judgement::RetryTransport(_)), "{status}");
        }
        for status in [400, 403, 404, 413, 415] {
            assert_eq!(refused(status), Judgement::Settle(Outcome::failed(status, "C", "m")));
        }
        let throttled = judge(&Reply::Throttled { message: "Rate Exceeded.".into(), retry_after_ms: Some(9) }, "t");
        let outcome = Outcome::failed(429, "TooManyRequestsException", "Rate Exceeded.");
        assert_eq!(throttled, Judgement::Throttled(outcome, Some(9)));
        let error = judge(&Reply::FunctionError(Bytes::from_static(b"{\"errorMessage\":\"x\"}")), "t");
        let message = "Lambda returned function error: {\"errorMessage\":\"x\"}";
        assert_eq!(error, Judgement::FunctionError(Outcome::failed(200, "PermanentFailure", message)));
    }
}
