//! The API as its callers see it: hand-made requests against a scripted host.

mod configuration;
mod events;
mod invoke;
mod layers;
mod packages;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use longshore_store::{Fatal, Records};
use longshore_wire::Caller;
use longshore_wire::{Query, Request, RequestId, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::code::archive::fixtures::{file, zip};
use crate::environments::Environments;
use longshore_core::histogram::Histogram;

use crate::host::figures::FunctionStats;
use crate::host::log_pages::{Begin, Cursor, Line, Page};
use crate::host::{Call, Deployment, Outcome, Patience, Provisioning, Terms};
use crate::{CodeSource, Functions, Invoked, SCHEMA, Settings, SourceError, body_limit};

mod concurrency;
mod permissions;
mod versions;

const ACCOUNT: &str = "111111111111";
const ROLE: &str = "arn:aws:iam::111111111111:role/r";
const ARN: &str = "arn:aws:lambda:us-east-1:111111111111:function:f";

/// A host that answers as it is told, and else with the payload it was given.
#[derive(Default)]
struct Scripted {
    outcomes: Mutex<VecDeque<Outcome>>,
    seen: Mutex<Vec<(Arc<Deployment>, Call)>>,
    /// Deployments by their IDs.
    retired: Mutex<Vec<String>>,
    pages: Mutex<Vec<(String, Begin)>>,
    stats: Mutex<BTreeMap<String, FunctionStats>>,
    /// A runtime that is not there any more.
    without: Mutex<Option<String>>,
    terms: Mutex<BTreeMap<String, Terms>>,
    /// How far every provisioned concurrency is.
    provisioning: Mutex<Provisioning>,
    prepared: Mutex<Vec<(String, u32)>>,
    /// How many calls of a function at once are of use, if not any number.
    of_use: Mutex<BTreeMap<String, u32>>,
    /// Lets a call go on whose scripted outcome is [`Outcome::Gone`].
    retiring: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Environments for Scripted {
    async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome {
        let payload = call.payload.clone();
        self.seen.lock().unwrap().push((deployment, call.clone()));
        let scripted = self.outcomes.lock().unwrap().pop_front();
        if let Some(Outcome::Gone { .. }) = scripted {
            self.retiring.notified().await;
            return Outcome::Gone { call: Box::new(call) };
        }
        scripted.unwrap_or(Outcome::Answered { payload, function_error: false, log_tail: None })
    }

    fn slots(&self, deployment: &Deployment) -> u32 {
        deployment.concurrency.unwrap_or(8).min(8)
    }

    fn of_use(&self, name: &str) -> u32 {
        self.of_use.lock().unwrap().get(name).copied().unwrap_or(u32::MAX)
    }

    fn retire(&self, deployment_id: &str) {
        self.retired.lock().unwrap().push(deployment_id.to_owned());
    }

    fn set_terms(&self, name: &str, terms: &Terms) {
        self.terms.lock().unwrap().insert(name.to_owned(), terms.clone());
    }

    fn provisioning(&self, _: &str) -> Provisioning {
        *self.provisioning.lock().unwrap()
    }

    fn provisioned_max(&self) -> u32 {
        950
    }

    fn prepare(&self, deployment: &Arc<Deployment>, wanted: u32) {
        self.prepared.lock().unwrap().push((deployment.version.clone(), wanted));
    }

    fn check_runtime(&self, runtime: &str) -> Result<String, String> {
        let there = self.without.lock().unwrap().as_deref() != Some(runtime);
        if there && (runtime.starts_with("python3.1") || runtime.starts_with("provided.")) {
            return Ok(runtime.strip_prefix("python").map(|minor| format!("{minor}.5")).unwrap_or_default());
        }
        Err(format!("No interpreter for {runtime} was found."))
    }

    fn log_page(&self, name: &str, begin: Begin) -> std::io::Result<Page> {
        self.pages.lock().unwrap().push((name.to_owned(), begin));
        let line = |text: &str| Line { time_ms: Some(1_769_853_600_000), text: text.into() };
        let next = Cursor::parse(if name == "printed" { "7-9" } else { "0-0" }).unwrap();
        let lines = if name == "printed" { vec![line("START"), line("a\u{1b}")] } else { Vec::new() };
        Ok(Page { lines, next, more: false, missed: false })
    }

    fn stats(&self) -> BTreeMap<String, FunctionStats> {
        self.stats.lock().unwrap().clone()
    }

    fn counted_since_ms(&self) -> i64 {
        1_769_853_600_000
    }

    fn count_throttle(&self, name: &str, reason: &'static str) {
        *self.stats.lock().unwrap().entry(name.to_owned()).or_default().throttles.entry(reason).or_default() += 1;
    }

    fn count_dropped_events(&self, name: &str, events: u64, reason: &'static str) {
        let mut stats = self.stats.lock().unwrap();
        *stats.entry(name.to_owned()).or_default().events_dropped.entry(reason).or_default() += events;
    }

    fn cold_starts(&self, name: &str) -> Histogram {
        self.stats.lock().unwrap().get(name).map(|stats| stats.starts.clone()).unwrap_or_default()
    }

    fn forget_figures(&self, name: &str) {
        self.stats.lock().unwrap().remove(name);
    }
}

/// An S3 with one object, `b/package.zip`.
struct OneObject;

#[async_trait::async_trait]
impl CodeSource for OneObject {
    async fn fetch(&self, bucket: &str, key: &str, _: Option<&str>, _: usize) -> Result<Bytes, SourceError> {
        let missing = |code: &str, message: &str| SourceError::S3 { code: code.into(), message: message.into() };
        match (bucket, key) {
            ("b", "package.zip") => Ok(zip(&[file("handler.py", b"from s3")]).into()),
            ("b", "large.zip") => Err(SourceError::TooLarge),
            ("b", _) => Err(missing("NoSuchKey", "The specified key does not exist.")),
            _ => Err(missing("NoSuchBucket", "The specified bucket does not exist")),
        }
    }
}

struct Api {
    functions: Functions,
    host: Arc<Scripted>,
    _temp: Option<tempfile::TempDir>,
}

/// An answer, as a client reads it.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn of(response: Response) -> Self {
        let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        Self { status: response.status.as_u16(), headers: response.headers, body }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn ok(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Status, code and message of an error. Which key the message has is `longshore_wire`'s to test.
    fn error(&self) -> (u16, &str, &str) {
        let message = ["message", "Message"].iter().find_map(|key| self.body[key].as_str()).unwrap_or("");
        (self.status, self.header("x-amzn-errortype"), message)
    }

    #[track_caller]
    fn fails(&self, status: u16, code: &str, message: &str) {
        assert_eq!(self.error(), (status, code, message));
    }
}

impl Api {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { _temp: None, ..Self::at(temp.path(), Settings::new("us-east-1", ACCOUNT)) }.keeping(temp)
    }

    fn at(path: &Path, settings: Settings) -> Self {
        // Only a look settles a function, so that no test depends on how fast it is.
        Self::settling(path, Settings { settle: Duration::from_secs(3_600), ..settings })
    }

    fn settling(path: &Path, settings: Settings) -> Self {
        Self::with_source(path, settings, Arc::new(OneObject))
    }

    /// With packages from another S3 than the one of one object.
    fn with_source(path: &Path, settings: Settings, source: Arc<dyn CodeSource>) -> Self {
        let records = Records::open(&path.join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        let code = path.join("code");
        std::fs::create_dir_all(&code).unwrap();
        let host = Arc::new(Scripted::default());
        let functions = Functions::with_environments(records, host.clone(), source, &code, settings).unwrap();
        Self { functions, host, _temp: None }
    }

    /// As [`Api::at`], where a change is over by itself at once.
    fn at_once(path: &Path) -> Self {
        Self::settling(path, Settings { settle: Duration::ZERO, ..Settings::new("us-east-1", ACCOUNT) })
    }

    fn keeping(self, temp: tempfile::TempDir) -> Self {
        Self { _temp: Some(temp), ..self }
    }

    async fn send(&self, method: Method, target: &str, headers: &[(&'static str, &str)], body: Bytes) -> Answer {
        self.send_as(Caller::in_process(ACCOUNT), method, target, headers, body).await
    }

    async fn send_as(
        &self,
        caller: Caller,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Answer {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_static("localhost:7300"));
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method,
            path: path.to_owned(),
            query: Query::parse(query),
            headers: map,
            body,
            caller,
            request_id: RequestId("11111111-2222-3333-4444-555555555555".into()),
        };
        let own = path.starts_with(Functions::OWN_PREFIX);
        let answer = if own { self.functions.serve_own(request).await } else { self.functions.serve(request).await };
        Answer::of(answer)
    }

    async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, &[], Bytes::new()).await
    }

    async fn delete(&self, target: &str) -> Answer {
        self.send(Method::DELETE, target, &[], Bytes::new()).await
    }

    async fn put(&self, target: &str, body: Value) -> Answer {
        self.send(Method::PUT, target, &[], body.to_string().into()).await
    }

    async fn post(&self, target: &str, body: Value) -> Answer {
        self.send(Method::POST, target, &[], body.to_string().into()).await
    }

    async fn create_with(&self, changes: Value) -> Answer {
        let mut body = request("f");
        for (member, value) in changes.as_object().unwrap() {
            body[member] = value.clone();
        }
        self.post("/2015-03-31/functions", body).await
    }

    /// Creates `f` and waits for it as a tool does: by a look.
    async fn create(&self) -> Answer {
        let created = self.create_with(json!({})).await.ok(201);
        self.configuration().await;
        created
    }

    async fn invoke(&self, function: &str, headers: &[(&'static str, &str)], payload: &str) -> Answer {
        let target = format!("/2015-03-31/functions/{function}/invocations");
        self.send(Method::POST, &target, headers, Bytes::copy_from_slice(payload.as_bytes())).await
    }

    async fn configuration(&self) -> Value {
        self.get("/2015-03-31/functions/f/configuration").await.ok(200).body
    }

    fn next(&self, outcome: Outcome) {
        self.host.outcomes.lock().unwrap().push_back(outcome);
    }
}

fn package() -> Vec<u8> {
    zip(&[file("handler.py", b"def handler(event, context): return event")])
}

fn encoded(package: &[u8]) -> String {
    STANDARD.encode(package)
}

fn request(name: &str) -> Value {
    json!({
        "FunctionName": name,
        "Role": ROLE,
        "Runtime": "python3.12",
        "Handler": "handler.handler",
        "Code": {"ZipFile": encoded(&package())},
    })
}

#[tokio::test]
async fn a_new_function_is_pending_once_and_active_from_the_next_look() {
    let api = Api::new();
    let created = api.create().await.body;
    assert_eq!(created["State"], "Pending");
    assert_eq!(created["StateReason"], "The function is being created.");
    assert_eq!(created["StateReasonCode"], "Creating");
    assert_eq!(created["LastUpdateStatus"], Value::Null);
    assert_eq!(created["FunctionArn"], ARN);
    assert_eq!(created["Version"], "$LATEST");
    assert_eq!(created["CodeSha256"], STANDARD.encode(Sha256::digest(package())));
    assert_eq!(created["CodeSize"], package().len());
    assert_eq!((&created["Timeout"], &created["MemorySize"]), (&json!(3), &json!(128)));
    assert_eq!(created["Environment"], Value::Null);
    let modified = created["LastModified"].as_str().unwrap();
    assert!(modified.len() == 28 && modified.ends_with("+0000"), "{modified}");

    let settled = api.configuration().await;
    assert_eq!((&settled["State"], &settled["LastUpdateStatus"]), (&json!("Active"), &json!("Successful")));
    assert_ne!(settled["RevisionId"], created["RevisionId"]);
    assert_eq!(api.configuration().await["RevisionId"], settled["RevisionId"]);
}

#[tokio::test]
async fn an_update_passes_through_in_progress_and_changes_the_revision_twice_even_if_nothing_else() {
    let api = Api::new();
    api.create().await;
    let before = api.configuration().await;
    let updated = api.put("/2015-03-31/functions/f/configuration", json!({})).await.ok(200).body;
    assert_eq!((&updated["State"], &updated["LastUpdateStatus"]), (&json!("Active"), &json!("InProgress")));
    assert_eq!(updated["LastUpdateStatusReasonCode"], "Creating");
    let after = api.configuration().await;
    assert_eq!(after["LastUpdateStatus"], "Successful");
    assert_ne!(before["RevisionId"], updated["RevisionId"]);
    assert_ne!(updated["RevisionId"], after["RevisionId"]);
}

#[tokio::test]
async fn a_configuration_update_changes_what_is_there_and_nothing_else() {
    let api = Api::new();
    api.create_with(json!({"Description": "d", "Environment": {"Variables": {"AB": "1"}}})).await.ok(201);
    api.configuration().await;
    let target = "/2015-03-31/functions/f/configuration";
    let updated = api.put(target, json!({"Timeout": 60, "MemorySize": 256})).await.ok(200).body;
    assert_eq!(
        (&updated["Timeout"], &updated["MemorySize"], &updated["Description"]),
        (&json!(60), &json!(256), &json!("d"))
    );
    assert_eq!(updated["Environment"], json!({"Variables": {"AB": "1"}}));
    api.configuration().await;
    let cleared = api.put(target, json!({"Environment": {"Variables": {}}, "Description": ""})).await.ok(200).body;
    assert_eq!(cleared["Environment"], json!({"Variables": {}}));
    assert_eq!(cleared["Description"], "");
    assert_eq!(cleared["Timeout"], 60);
    for member in ["Code", "Publish", "Tags", "PackageType", "Architectures", "FunctionName"] {
        api.configuration().await;
        let answer = api.put(target, json!({member: request("f")[member]})).await;
        let expected = if request("f")[member].is_null() { 200 } else { 400 };
        assert_eq!(answer.status, expected, "{member}: {answer:?}");
    }
}

#[tokio::test]
async fn a_change_by_someone_who_has_not_seen_the_last_one_is_refused() {
    let api = Api::new();
    let created = api.create().await.body;
    let stale = json!({"RevisionId": created["RevisionId"], "Timeout": 9});
    let text = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to \
                retrieve the latest Revision Id";
    let answer = api.put("/2015-03-31/functions/f/configuration", stale).await;
    answer.fails(412, "PreconditionFailedException", text);
    let code = json!({"RevisionId": "no", "ZipFile": encoded(&package())});
    api.put("/2015-03-31/functions/f/code", code).await.fails(412, "PreconditionFailedException", text);
    let fresh = json!({"RevisionId": api.configuration().await["RevisionId"], "Timeout": 9});
    api.put("/2015-03-31/functions/f/configuration", fresh).await.ok(200);
}

#[tokio::test]
async fn new_code_reaches_the_next_invocation_and_retires_the_old_environments() {
    let api = Api::new();
    api.create().await;
    api.invoke("f", &[], "{}").await.ok(200);
    let newer = zip(&[file("handler.py", b"newer")]);
    let updated = api.put("/2015-03-31/functions/f/code", json!({"ZipFile": encoded(&newer)})).await.ok(200).body;
    assert_eq!(updated["CodeSha256"], STANDARD.encode(Sha256::digest(&newer)));
    assert_eq!(*api.host.retired.lock().unwrap(), [api.host.seen.lock().unwrap()[0].0.id.clone()]);
    api.invoke("f", &[], "{}").await.ok(200);
    let seen = api.host.seen.lock().unwrap();
    assert_ne!(seen[0].0.id, seen[1].0.id);
    assert_eq!(std::fs::read(seen[1].0.code_dir.join("handler.py")).unwrap(), b"newer");
}

#[tokio::test]
async fn settling_and_reserving_keep_warm_environments() {
    let api = Api::new();
    api.create().await;
    api.configuration().await;
    api.invoke("f", &[], "{}").await.ok(200);
    api.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 3})).await.ok(200);
    api.invoke("f", &[], "{}").await.ok(200);
    let seen = api.host.seen.lock().unwrap();
    assert_eq!(seen[0].0.id, seen[1].0.id);
    assert_eq!((seen[0].0.concurrency, seen[1].0.concurrency), (None, Some(3)));
    assert!(api.host.retired.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_dry_run_of_new_code_shows_what_would_be_and_changes_nothing() {
    let api = Api::new();
    api.create().await;
    let before = api.configuration().await;
    let newer = zip(&[file("handler.py", b"newer")]);
    let body = json!({"ZipFile": encoded(&newer), "DryRun": true});
    let answer = api.put("/2015-03-31/functions/f/code", body).await.ok(200).body;
    assert_eq!(answer["CodeSha256"], STANDARD.encode(Sha256::digest(&newer)));
    assert_eq!(api.configuration().await, before);
    let bad = json!({"ZipFile": encoded(b"no zip"), "DryRun": true});
    assert_eq!(api.put("/2015-03-31/functions/f/code", bad).await.status, 400);
}

#[tokio::test]
async fn a_function_that_is_not_there_is_named_as_aws_names_it() {
    let api = Api::new();
    let code = "ResourceNotFoundException";
    let missing = |suffix: &str| format!("Function not found: {ARN}{suffix}");
    api.get("/2015-03-31/functions/f").await.fails(404, code, &missing(""));
    api.get("/2015-03-31/functions/f?Qualifier=7").await.fails(404, code, &missing(":7"));
    api.get("/2015-03-31/functions/f:$LATEST/configuration").await.fails(404, code, &missing(":$LATEST"));
    api.delete("/2015-03-31/functions/f?Qualifier=7").await.fails(404, code, &missing(""));
    api.invoke("f", &[], "{}").await.fails(404, code, &missing(":$LATEST"));
    api.invoke("f:prod", &[], "{}").await.fails(404, code, &missing(":prod"));
    api.get("/2019-09-30/functions/f/concurrency").await.fails(404, code, &missing(":$LATEST"));
    let body = json!({"ZipFile": encoded(&package())});
    api.put("/2015-03-31/functions/f/code", body).await.fails(404, code, &missing(""));
    api.create().await;
    api.get("/2015-03-31/functions/f?Qualifier=7").await.fails(404, code, &missing(":7"));
    // In the wrong case it is an alias, and not there.
    api.get("/2015-03-31/functions/f?Qualifier=$latest").await.fails(404, code, &missing(":$latest"));
}

#[tokio::test]
async fn a_function_is_reached_by_every_form_of_its_name() {
    let api = Api::new();
    api.create().await;
    let encoded_arn = ARN.replace(':', "%3A");
    for form in ["f", "function:f", "111111111111:function:f", ARN, &encoded_arn, "f:$LATEST", "f%3A%24LATEST"] {
        let answer = api.get(&format!("/2015-03-31/functions/{form}")).await.ok(200);
        assert_eq!(answer.body["Configuration"]["FunctionName"], "f", "{form}");
    }
    api.get("/2015-03-31/functions/f:1?Qualifier=2").await.fails(
        400,
        "InvalidParameterValueException",
        "The derived qualifier from the function name does not match the specified qualifier.",
    );
    api.get("/2015-03-31/functions/f:$LATEST?Qualifier=$LATEST").await.ok(200);
    let elsewhere = "arn:aws:lambda:eu-west-1:111111111111:function:f";
    api.get(&format!("/2015-03-31/functions/{elsewhere}")).await.fails(
        404,
        "ResourceNotFoundException",
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
    );
    let foreign = api.get("/2015-03-31/functions/222222222222:function:f").await;
    assert_eq!((foreign.status, foreign.header("x-amzn-errortype")), (403, "AccessDeniedException"));
    let long = api.get(&format!("/2015-03-31/functions/{}", "f".repeat(100))).await;
    assert_eq!(long.status, 404);
    let broken = api.get("/2015-03-31/functions/f%20g").await;
    let (status, code, message) = broken.error();
    assert_eq!((status, code), (400, "ValidationException"));
    assert!(message.starts_with("1 validation error detected: Value 'f g' at 'functionName' failed"), "{message}");
    assert_eq!(broken.body["Type"], Value::Null);
}

#[tokio::test]
async fn what_a_new_function_must_not_have_is_refused_in_the_words_of_aws() {
    let api = Api::new();
    let parameter = "InvalidParameterValueException";
    let constraint = "ValidationException";
    let one = |rest: &str| format!("1 validation error detected: {rest}");
    let long = "n".repeat(65);
    let role_pattern = "arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+";
    let cases = [
        (json!({"Timeout": 0}), 400, constraint, one("Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1")),
        (json!({"Timeout": 901}), 400, constraint, one("Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900")),
        (json!({"MemorySize": 20000, "Description": "d".repeat(257)}), 400, constraint, format!("2 validation errors detected: Value '{}' at 'description' failed to satisfy constraint: Member must have length less than or equal to 256; Value '20000' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240", "d".repeat(257))),
        (json!({"Role": "r"}), 400, constraint, one(&format!("Value 'r' at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: {role_pattern}"))),
        (json!({"Role": null, "Code": null}), 400, constraint, "2 validation errors detected: Value null at 'role' failed to satisfy constraint: Member must not be null; Value null at 'code' failed to satisfy constraint: Member must not be null".into()),
        (json!({"PackageType": "Jar"}), 400, constraint, one("Value 'Jar' at 'packageType' failed to satisfy constraint: Member must satisfy enum value set: [Zip, Image]")),
        (json!({"FunctionName": long}), 400, parameter, one(&format!("Value '{long}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"))),
        (json!({"Runtime": "python3.6"}), 400, parameter, "The runtime parameter of python3.6 is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions.".into()),
        (json!({"Runtime": "cobol"}), 400, parameter, "Value cobol at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [python3.10, python3.11, python3.12, python3.13, python3.14, provided.al2, provided.al2023] or be a valid ARN".into()),
        (json!({"Runtime": "java21"}), 400, parameter, "Value java21 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [python3.10, python3.11, python3.12, python3.13, python3.14, provided.al2, provided.al2023] or be a valid ARN. No interpreter for java21 was found.".into()),
        (json!({"Handler": null}), 400, parameter, "Runtime and Handler are mandatory parameters for functions created with deployment packages.".into()),
        (json!({"Environment": {"Variables": {"AWS_REGION": "x", "AB": "y"}}}), 400, parameter, "Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: AWS_REGION".into()),
        (json!({"Environment": {"Variables": {"AB": "v".repeat(4096)}}}), 400, parameter, format!("Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {{\"AB\":\"{}\"}}", "v".repeat(4096))),
        (json!({"Code": {"ZipFile": encoded(b"")}}), 400, parameter, "Uploaded file must be a non-empty zip".into()),
        (json!({"Code": {"ZipFile": encoded(b"no zip"), "S3Key": "k"}}), 400, parameter, "Please do not provide other FunctionCode parameters when providing a ZipFile.".into()),
        (json!({"Code": {}}), 400, parameter, "Please provide a source for function code.".into()),
        (json!({"Code": {"S3Bucket": "no", "S3Key": "k"}}), 400, parameter, "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist".into()),
        (json!({"Code": {"S3Bucket": "b", "S3Key": "k"}}), 400, parameter, "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.".into()),
        (json!({"Code": {"S3Bucket": "b", "S3Key": "large.zip"}}), 413, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes".into()),
        (json!({"Tags": (0..51).map(|n| (format!("k{n}"), "v")).collect::<std::collections::BTreeMap<_, _>>()}), 400, parameter, "Number of tags exceeds resource tag limit.".into()),
    ];
    for (changes, status, code, message) in cases {
        api.create_with(changes).await.fails(status, code, &message);
    }
    let unzip = api.create_with(json!({"Code": {"ZipFile": encoded(b"this is not a zip archive")}})).await;
    let prefix = "Could not unzip uploaded file. Please check your file, then try to upload again.";
    assert!(unzip.error().2.starts_with(prefix), "{unzip:?}");
    let base64 = api.create_with(json!({"Code": {"ZipFile": "***"}})).await;
    assert_eq!((base64.status, base64.error().1), (400, "InvalidRequestContentException"));
    assert!(base64.error().2.contains("ZipFile is not base64"), "{base64:?}");
    let keys = api.create_with(json!({"Environment": {"Variables": {"_A": "x"}}})).await;
    assert_eq!(keys.error().1, constraint);
    assert_eq!(api.get("/2015-03-31/functions").await.body["Functions"], json!([]));

    api.create().await;
    api.create_with(json!({})).await.fails(409, "ResourceConflictException", "Function already exist: f");
}

#[tokio::test]
async fn what_would_be_dropped_is_refused_by_name_and_harmless_defaults_pass() {
    let api = Api::new();
    let refused = [
        (json!({"PackageType": "Image", "Code": {"ImageUri": "x"}}), "PackageType Image"),
        (json!({"Code": {"ImageUri": "x"}}), "ImageUri"),
        (json!({"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []}}), "VpcConfig"),
        (json!({"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:111111111111:q"}}), "DeadLetterConfig"),
        (json!({"FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/x"}]}), "FileSystemConfigs"),
        (json!({"KMSKeyArn": "arn:aws:kms:x"}), "KMSKeyArn"),
        (json!({"TracingConfig": {"Mode": "Active"}}), "TracingConfig other than Mode=PassThrough"),
        (json!({"SnapStart": {"ApplyOn": "PublishedVersions"}}), "SnapStart other than ApplyOn=None"),
        (json!({"DurableConfig": {"ExecutionTimeout": 1}}), "DurableConfig"),
        (json!({"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}}), "TenancyConfig"),
        (json!({"CodeSigningConfigArn": "arn:x"}), "CodeSigningConfigArn"),
        (json!({"PublishTo": "LATEST_PUBLISHED"}), "PublishTo"),
    ];
    for (changes, what) in refused {
        let message = format!("{what} is not supported by this server.");
        api.create_with(changes).await.fails(400, "InvalidParameterValueException", &message);
    }
    let unknown = api.create_with(json!({"Colour": "red"})).await;
    unknown.fails(400, "InvalidParameterValueException", "The member Colour is not known here.");
    let harmless = json!({
        "Layers": [],
        "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
        "DeadLetterConfig": {"TargetArn": ""},
        "FileSystemConfigs": [],
        "KMSKeyArn": "",
        "TracingConfig": {"Mode": "PassThrough"},
        "SnapStart": {"ApplyOn": "None"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"},
        "ImageConfig": {},
        "PackageType": "Zip",
    });
    api.create_with(harmless).await.ok(201);
}

#[tokio::test]
async fn a_package_may_come_from_s3() {
    let api = Api::new();
    let from_s3 = zip(&[file("handler.py", b"from s3")]);
    let created = api.create_with(json!({"Code": {"S3Bucket": "b", "S3Key": "package.zip"}})).await.ok(201);
    assert_eq!(created.body["CodeSha256"], STANDARD.encode(Sha256::digest(from_s3)));
}

#[tokio::test]
async fn a_package_of_many_bytes_arrives_whole() {
    let api = Api::new();
    let noise: Vec<u8> = (0..40_000u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
    let package = zip(&[file("handler.py", b"x"), file("noise.bin", &noise)]);
    let created = api.create_with(json!({"Code": {"ZipFile": encoded(&package)}})).await.ok(201);
    assert_eq!(created.body["CodeSize"], package.len());
    assert_eq!(created.body["CodeSha256"], STANDARD.encode(Sha256::digest(&package)));
}

#[tokio::test]
async fn an_invocation_gives_the_functions_bytes_and_the_version_that_ran() {
    let api = Api::new();
    api.create().await;
    let context = STANDARD.encode(r#"{"client":1}"#);
    let headers = [("x-amz-client-context", context.as_str()), ("x-amzn-trace-id", "Root=1-2-3")];
    let answer = api.invoke("f", &headers, r#"{"a": 1}"#).await.ok(200);
    assert_eq!(answer.body, json!({"a": 1}));
    assert_eq!(answer.header("x-amz-executed-version"), "$LATEST");
    assert_eq!(answer.header("x-amzn-requestid"), "11111111-2222-3333-4444-555555555555");
    assert_eq!(answer.header("x-amz-function-error"), "");
    assert_eq!(answer.header("x-amz-log-result"), "");
    assert_eq!(answer.header("content-type"), "application/json");
    api.invoke("f:$LATEST", &[], "").await.ok(200);
    let seen = api.host.seen.lock().unwrap();
    let (deployment, call) = &seen[0];
    assert_eq!((deployment.name.as_str(), deployment.version.as_str()), ("f", "$LATEST"));
    assert_eq!(call.request_id, "11111111-2222-3333-4444-555555555555");
    assert_eq!((call.invoked_arn.as_str(), seen[1].1.invoked_arn.as_str()), (ARN, format!("{ARN}:$LATEST").as_str()));
    assert_eq!(call.client_context.as_deref(), Some(r#"{"client":1}"#));
    assert_eq!(call.trace_id.as_deref(), Some("Root=1-2-3"));
    assert_eq!(&seen[1].1.payload[..], b"{}");
}

#[tokio::test]
async fn a_function_that_fails_is_still_a_200() {
    let api = Api::new();
    api.create().await;
    let payload = Bytes::from_static(br#"{"errorType":"E"}"#);
    let log_tail = Some(vec![b'x'; 5_000]);
    api.next(Outcome::Answered { payload, function_error: true, log_tail });
    let answer = api.invoke("f", &[("x-amz-log-type", "Tail")], "{}").await.ok(200);
    assert_eq!(answer.header("x-amz-function-error"), "Unhandled");
    assert_eq!(answer.body, json!({"errorType": "E"}));
    assert_eq!(STANDARD.decode(answer.header("x-amz-log-result")).unwrap(), vec![b'x'; 4_096]);
}

#[tokio::test]
async fn what_keeps_an_invocation_from_running_is_told_with_its_exact_code() {
    let api = Api::new();
    api.create().await;
    let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
    api.next(Outcome::Throttled { reason });
    let throttled = api.invoke("f", &[], "{}").await;
    throttled.fails(429, "TooManyRequestsException", "Rate Exceeded.");
    assert_eq!((&throttled.body["Reason"], &throttled.body["Type"]), (&json!(reason), &json!("User")));
    api.next(Outcome::Fault("No process could be started.".into()));
    let fault = api.invoke("f", &[], "{}").await;
    fault.fails(500, "ServiceException", "No process could be started.");
    assert_eq!(fault.body["Type"], "Service");

    let content = "InvalidRequestContentException";
    for bad in ["x", "{", "{} {}", "nul"] {
        let answer = api.invoke("f", &[], bad).await;
        let (status, code, message) = answer.error();
        assert_eq!((status, code), (400, content), "{bad}");
        assert!(message.starts_with("Could not parse request body into json: "), "{message}");
    }
    let target = "/2015-03-31/functions/f/invocations";
    let bytes = Bytes::from_static(b"\"\x87\"");
    let invalid = api.send(Method::POST, target, &[], bytes).await;
    invalid.fails(
        400,
        content,
        "Could not parse request body into json: Could not parse payload into json: Invalid UTF-8 start byte 0x87",
    );
    let large = format!("\"{}\"", "x".repeat(6_291_455));
    api.invoke("f", &[], &large).await.fails(
        413,
        "RequestEntityTooLargeException",
        "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)",
    );
    let kind = api.invoke("f", &[("x-amz-invocation-type", "Later")], "{}").await;
    kind.fails(
        400,
        "ValidationException",
        "1 validation error detected: Value 'Later' at 'invocationType' failed to satisfy constraint: Member must \
         satisfy enum value set: [Event, RequestResponse, DryRun]",
    );
    for context in ["***", "bm8=", &"a".repeat(3_584)] {
        let answer = api.invoke("f", &[("x-amz-client-context", context)], "{}").await;
        assert_eq!((answer.status, answer.error().1), (400, content), "{context}");
    }
    // What ran is what was not refused.
    assert_eq!(api.host.seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_dry_run_checks_all_and_runs_nothing() {
    let api = Api::new();
    let dry = [("x-amz-invocation-type", "DryRun")];
    assert_eq!(api.invoke("f", &dry, "{}").await.status, 404);
    api.create().await;
    assert_eq!(api.invoke("f", &dry, "x").await.status, 400);
    let answer = api.invoke("f", &dry, "{}").await.ok(204);
    assert_eq!(answer.body, Value::Null);
    assert!(api.host.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_engine_invokes_by_the_same_rules_without_http() {
    let api = Api::new();
    let call = |name: &'static str, payload: &'static [u8]| {
        let functions = api.functions.clone();
        async move { functions.invoke(name, Bytes::from_static(payload), Patience::Forever, None).await }
    };
    let refused = |invoked: Invoked| match invoked {
        Invoked::Refused(error) => (error.status.as_u16(), error.code.into_owned(), error.message),
        Invoked::Answered { .. } => panic!("{invoked:?}"),
    };
    let missing = (404, "ResourceNotFoundException".to_owned(), format!("Function not found: {ARN}:$LATEST"));
    assert_eq!(refused(call("f", b"{}").await), missing);
    assert_eq!(api.functions.slots("f"), 1);
    // Right after it was made, without a look in between: a job may start at once.
    api.create().await;
    let expected = Invoked::Answered {
        payload: Bytes::from_static(b"{}"),
        function_error: false,
        executed_version: "$LATEST".into(),
    };
    assert_eq!(call(ARN, b"{}").await, expected);
    assert_eq!(api.functions.slots(ARN), 8);
    for (of_use, slots) in [(3, 3), (0, 1), (u32::MAX, 8)] {
        api.host.of_use.lock().unwrap().insert("f".into(), of_use);
        assert_eq!(api.functions.slots(ARN), slots, "more would make each other slower");
    }
    assert_eq!(refused(call("f", b"x").await).0, 400);
    api.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 0})).await.ok(200);
    let Invoked::Refused(error) = call("f", b"{}").await else { panic!("it is switched off") };
    assert_eq!((error.status, &*error.code), (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException"));
    assert_eq!(error.members, [("Reason", "ReservedFunctionConcurrentInvocationLimitExceeded".to_owned())]);
    assert_eq!(api.functions.slots("f"), 1);
}

#[tokio::test]
async fn reserved_concurrency_leaves_a_hundred_for_the_others() {
    let api = Api::new();
    api.create().await;
    api.create_with(json!({"FunctionName": "g"})).await.ok(201);
    let put = |name: &str, n: i64| {
        let target = format!("/2017-10-31/functions/{name}/concurrency");
        let api = &api;
        async move { api.put(&target, json!({"ReservedConcurrentExecutions": n})).await }
    };
    let floor = "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution \
                 below its minimum value of [100].";
    assert_eq!(put("f", 500).await.ok(200).body, json!({"ReservedConcurrentExecutions": 500}));
    put("g", 401).await.fails(400, "InvalidParameterValueException", floor);
    put("g", 400).await.ok(200);
    put("f", 501).await.fails(400, "InvalidParameterValueException", floor);
    put("f", 500).await.ok(200);
    put("f:1", 5).await.fails(
        400,
        "InvalidParameterValueException",
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. \
         Please specify either a function name or an unqualified function ARN.",
    );
    let settings = api.get("/2016-08-19/account-settings/").await.ok(200).body;
    assert_eq!(settings["AccountLimit"]["UnreservedConcurrentExecutions"], 100);
    assert_eq!(settings["AccountUsage"]["FunctionCount"], 2);
    assert_eq!(settings["AccountUsage"]["TotalCodeSize"], 2 * package().len());
    let target = "/2019-09-30/functions/f/concurrency";
    assert_eq!(api.get(target).await.body, json!({"ReservedConcurrentExecutions": 500}));
    assert_eq!(
        api.get("/2015-03-31/functions/f").await.body["Concurrency"],
        json!({"ReservedConcurrentExecutions": 500})
    );
    api.delete("/2017-10-31/functions/f/concurrency").await.ok(204);
    assert_eq!(api.get(target).await.ok(200).body, json!({}));
}

#[tokio::test]
async fn a_function_is_deleted_whole_and_a_new_one_of_its_name_starts_again() {
    let api = Api::new();
    api.create_with(json!({"Publish": true})).await.ok(201);
    api.delete("/2015-03-31/functions/f?Qualifier=$LATEST").await.fails(
        400,
        "InvalidParameterValueException",
        "$LATEST version cannot be deleted without deleting the function.",
    );
    api.delete("/2015-03-31/functions/f:prod").await.fails(
        400,
        "InvalidParameterValueException",
        "Deletion of aliases is not currently supported.",
    );
    api.delete("/2015-03-31/functions/f").await.ok(204);
    assert_eq!(api.host.retired.lock().unwrap().len(), 2, "of both versions");
    assert_eq!(api.get("/2015-03-31/functions/f").await.status, 404);
    assert_eq!(api.create_with(json!({"Publish": true})).await.ok(201).body["Version"], "1");
}

#[tokio::test]
async fn versions_are_numbered_once_frozen_and_listed_after_latest() {
    let api = Api::new();
    api.create().await;
    let versions = "/2015-03-31/functions/f/versions";
    let first = api.post(versions, json!({"Description": "one"})).await.ok(201).body;
    assert_eq!((&first["Version"], &first["Description"]), (&json!("1"), &json!("one")));
    assert_eq!((&first["FunctionArn"], &first["State"]), (&json!(format!("{ARN}:1")), &json!("Active")));
    // Nothing has changed since: the same version, the same revision.
    let again = api.post(versions, json!({})).await.ok(201).body;
    assert_eq!((&again["Version"], &again["RevisionId"]), (&first["Version"], &first["RevisionId"]));
    let sha = first["CodeSha256"].as_str().unwrap();
    api.post(versions, json!({"CodeSha256": "no"})).await.fails(
        400,
        "InvalidParameterValueException",
        &format!(
            "CodeSHA256 (no) is different from current CodeSHA256 in $LATEST ({sha}). Please try again with the \
             CodeSHA256 in $LATEST."
        ),
    );
    let newer = encoded(&zip(&[file("handler.py", b"newer")]));
    let body = json!({"ZipFile": newer, "Publish": true});
    let second = api.put("/2015-03-31/functions/f/code", body).await.ok(200).body;
    assert_eq!((&second["Version"], &second["State"]), (&json!("2"), &json!("Pending")));
    assert_eq!(second["FunctionArn"], format!("{ARN}:2"));

    let listed = api.get(versions).await.ok(200).body;
    let numbers: Vec<&str> =
        listed["Versions"].as_array().unwrap().iter().map(|v| v["Version"].as_str().unwrap()).collect();
    assert_eq!(numbers, ["$LATEST", "1", "2"]);
    assert_eq!(listed["Versions"][0]["FunctionArn"], format!("{ARN}:$LATEST"));
    assert_eq!(listed["Versions"][0]["State"], Value::Null);
    let one = api.invoke("f:1", &[], "{}").await.ok(200);
    assert_eq!(one.header("x-amz-executed-version"), "1");
    api.delete("/2015-03-31/functions/f?Qualifier=2").await.ok(204);
    api.delete("/2015-03-31/functions/f?Qualifier=2").await.ok(204);
    assert_eq!(api.invoke("f:2", &[], "{}").await.status, 404);
    api.put("/2015-03-31/functions/f/configuration", json!({"Timeout": 9})).await.ok(200);
    api.configuration().await;
    assert_eq!(api.post(versions, json!({})).await.ok(201).body["Version"], "3");
}

#[tokio::test]
async fn lists_come_in_pages_that_neither_miss_nor_repeat() {
    let api = Api::new();
    for n in 0..7 {
        api.create_with(json!({"FunctionName": format!("f{n}"), "Publish": true})).await.ok(201);
    }
    for (extra, total) in [("", 7), ("&FunctionVersion=ALL", 14)] {
        let mut names = Vec::new();
        let mut marker = String::new();
        loop {
            let page = api.get(&format!("/2015-03-31/functions/?MaxItems=3{extra}{marker}")).await.ok(200).body;
            let items = page["Functions"].as_array().unwrap();
            assert!(items.len() <= 3);
            names.extend(items.iter().map(|f| f["FunctionArn"].as_str().unwrap().to_owned()));
            let Some(next) = page["NextMarker"].as_str() else { break };
            marker = format!("&Marker={next}");
        }
        assert_eq!(names.len(), total);
        assert!(names.is_sorted(), "{names:?}");
    }
    assert_eq!(api.get("/2015-03-31/functions?Marker=!").await.status, 400);
    assert_eq!(api.get("/2015-03-31/functions?MaxItems=0").await.error().1, "ValidationException");
    assert_eq!(api.get("/2015-03-31/functions?FunctionVersion=SOME").await.status, 400);
    assert_eq!(api.get("/2015-03-31/functions?MasterRegion=ALL").await.status, 400);
}

#[tokio::test]
async fn functions_are_listed_in_the_order_of_their_names() {
    let api = Api::new();
    for name in ["f1", "f_1", "f-1", "f", "F"] {
        api.create_with(json!({"FunctionName": name, "Publish": true})).await.ok(201);
    }
    for (query, each) in [("", 1), ("&FunctionVersion=ALL", 2)] {
        let page = api.get(&format!("/2015-03-31/functions?MaxItems=50{query}")).await.ok(200).body;
        let names: Vec<&str> =
            page["Functions"].as_array().unwrap().iter().map(|f| f["FunctionName"].as_str().unwrap()).collect();
        let wanted: Vec<&str> = ["F", "f", "f-1", "f1", "f_1"].into_iter().flat_map(|name| vec![name; each]).collect();
        assert_eq!(names, wanted);
    }
}

#[tokio::test]
async fn tags_belong_to_the_function_and_not_to_a_version() {
    let api = Api::new();
    api.create_with(json!({"Tags": {"a": "1"}})).await.ok(201);
    let target = format!("/2017-03-31/tags/{}", ARN.replace(':', "%3A"));
    api.post(&target, json!({"Tags": {"b": "2", "c": "3"}})).await.ok(204);
    api.delete(&format!("{target}?tagKeys=a&tagKeys=c")).await.ok(204);
    assert_eq!(api.get(&target).await.ok(200).body, json!({"Tags": {"b": "2"}}));
    assert_eq!(api.get("/2015-03-31/functions/f").await.body["Tags"], json!({"b": "2"}));
    assert_eq!(api.get("/2015-03-31/functions/f?Qualifier=$LATEST").await.body["Tags"], Value::Null);
    api.get(&format!("/2017-03-31/tags/{ARN}:1")).await.fails(
        400,
        "InvalidParameterValueException",
        "Tags on function aliases and versions are not supported. Please specify a function ARN.",
    );
    api.post(&target, json!({"Tags": {}})).await.fails(
        400,
        "InvalidParameterValueException",
        "An error occurred and the request cannot be processed.",
    );
    assert_eq!(api.get("/2017-03-31/tags/f").await.error().1, "ValidationException");
}

#[tokio::test]
async fn the_link_to_the_code_downloads_it_and_nothing_else() {
    use std::io::Read;
    let api = Api::new();
    api.create().await;
    let answer = api.get("/2015-03-31/functions/f").await.ok(200).body;
    assert_eq!(answer["Code"]["RepositoryType"], "S3");
    let link = answer["Code"]["Location"].as_str().unwrap();
    let rest = link.strip_prefix("http://localhost:7300").unwrap();
    let (path, query) = rest.split_once('?').unwrap();
    let mut download = api.functions.download(path, &Query::parse(Some(query))).unwrap();
    let mut bytes = Vec::new();
    download.file.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.as_slice(), download.size), (package().as_slice(), package().len() as u64));

    let status =
        |path: &str, query: &str| api.functions.download(path, &Query::parse(Some(query))).unwrap_err().status.as_u16();
    let later = query.replace("expires=", "expires=9");
    let zeros = format!("{}{}", Functions::DOWNLOAD_PREFIX, "0".repeat(64));
    let above = format!("{}../records.db", Functions::DOWNLOAD_PREFIX);
    assert_eq!(status(path, &later), 403);
    assert_eq!(status(path, ""), 403);
    assert_eq!(status(&zeros, query), 403);
    assert_eq!(status(&above, query), 403);
}

#[tokio::test]
async fn functions_outlive_the_server_and_code_that_nobody_names_does_not() {
    let temp = tempfile::tempdir().unwrap();
    let settings = || Settings::new("us-east-1", ACCOUNT);
    let api = Api::at(temp.path(), settings());
    api.create_with(json!({"Publish": true, "Tags": {"a": "1"}, "Environment": {"Variables": {"AB": "1"}}}))
        .await
        .ok(201);
    api.configuration().await;
    let newer = encoded(&zip(&[file("handler.py", b"newer")]));
    api.put("/2015-03-31/functions/f/code", json!({"ZipFile": newer})).await.ok(200);
    let unused = encoded(&zip(&[file("handler.py", b"in between")]));
    api.create_with(json!({"FunctionName": "gone", "Code": {"ZipFile": unused}})).await.ok(201);
    api.delete("/2015-03-31/functions/gone").await.ok(204);
    let before = api.get("/2015-03-31/functions/f/versions").await.body;
    let packages = || std::fs::read_dir(temp.path().join("code")).unwrap().count();
    assert_eq!(packages(), 3);
    drop(api);

    let api = Api::at(temp.path(), settings());
    assert_eq!(packages(), 2);
    assert_eq!(api.configuration().await["LastUpdateStatus"], "Successful");
    let after = api.get("/2015-03-31/functions/f/versions").await.body;
    assert_eq!(after["Versions"][1]["CodeSha256"], before["Versions"][1]["CodeSha256"]);
    assert_eq!(after["Versions"][0]["Environment"], json!({"Variables": {"AB": "1"}}));
    assert_eq!(api.get("/2015-03-31/functions/f").await.body["Tags"], json!({"a": "1"}));
    api.invoke("f:1", &[], "{}").await.ok(200);
    assert!(api.host.seen.lock().unwrap()[0].0.code_dir.join("handler.py").is_file());
    assert_eq!(api.get("/2015-03-31/functions/gone").await.status, 404);
}

#[tokio::test]
async fn one_name_asked_for_by_many_at_once_is_given_once() {
    let api = Api::new();
    let answers = futures::future::join_all((0..8).map(|_| api.create_with(json!({})))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn more_code_than_the_account_may_store_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let code_bytes_max = package().len() as u64;
    let api = Api::at(temp.path(), Settings { code_bytes_max, ..Settings::new("us-east-1", ACCOUNT) });
    api.create().await;
    let second = api.create_with(json!({"FunctionName": "g"})).await;
    second.fails(400, "CodeStorageExceededException", "Code storage limit exceeded.");
    api.put("/2015-03-31/functions/f/code", json!({"ZipFile": encoded(&package())})).await.ok(200);
}

#[tokio::test]
async fn an_operation_that_is_not_offered_is_named() {
    let api = Api::new();
    let code = "UnknownOperationException";
    let url = api.post("/2021-10-31/functions/f/url", json!({})).await;
    url.fails(404, code, "The operation CreateFunctionUrlConfig is not offered by this server.");
    let mapping = api.post("/2015-03-31/event-source-mappings", json!({})).await;
    mapping.fails(404, code, "The operation CreateEventSourceMapping is not offered by this server.");
    api.get("/nowhere").await.fails(404, code, "There is no operation GET /nowhere.");
    let policy = api.get("/2015-03-31/functions/f/policy").await;
    policy.fails(404, "ResourceNotFoundException", "The resource you requested does not exist.");
    api.create().await;
    let signing = api.get("/2020-06-30/functions/f/code-signing-config").await.ok(200);
    assert_eq!(signing.body, json!({"FunctionName": "f"}));
}

#[test]
fn the_listener_is_told_how_long_a_body_may_be() {
    let bytes = |method: Method, path: &str| body_limit(&method, path).bytes;
    assert_eq!(bytes(Method::POST, "/2015-03-31/functions"), 70_167_211);
    assert_eq!(bytes(Method::POST, "/2015-03-31/functions/"), 70_167_211);
    assert_eq!(bytes(Method::PUT, "/2015-03-31/functions/f/code"), 70_167_211);
    assert_eq!(bytes(Method::POST, "/2018-10-31/layers/l/versions"), 70_167_211);
    assert!(bytes(Method::POST, "/2015-03-31/functions/f/invocations") > 6_291_456);
    assert_eq!(bytes(Method::PUT, "/2015-03-31/functions/f/configuration"), 1_048_576);
    let create = body_limit(&Method::POST, "/2015-03-31/functions").too_large();
    assert_eq!(create.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(create.message, "Request must be smaller than 70167211 bytes for the CreateFunction operation");
    let invoke = body_limit(&Method::POST, "/2015-03-31/functions/f/invocations").too_large();
    assert_eq!(invoke.message, "Request must be smaller than 6291456 bytes for the InvokeFunction operation");
}

// --- our own API ---

#[tokio::test]
async fn a_log_is_told_in_lines_with_their_times_and_where_to_go_on() {
    let api = Api::new();
    let own = "/_longshore/v1/functions";
    let answer = api.get(&format!("{own}/printed/logs?tail=2")).await.ok(200);
    let time = "2026-01-31T10:00:00.000Z";
    assert_eq!(
        answer.body,
        json!({"lines": [{"time": time, "text": "START"}, {"time": time, "text": "a\u{1b}"}], "nextToken": "7-9",
               "isTruncated": false, "linesMissed": false})
    );
    let asked = Begin::At { since_ms: None, tail: Some(2) };
    assert_eq!(api.host.pages.lock().unwrap().pop(), Some(("printed".to_owned(), asked)));
    // Neither a function nor a log.
    let answer = api.get(&format!("{own}/nowhere/logs")).await.ok(404);
    assert_eq!(answer.body["code"], "ResourceNotFoundException");
    assert!(answer.body["message"].as_str().unwrap().ends_with(":function:nowhere"), "{answer:?}");
    // A function that has not printed yet.
    api.create().await.ok(201);
    assert_eq!(api.get(&format!("{own}/f/logs")).await.ok(200).body["lines"], json!([]));
    assert_eq!(api.get(&format!("{own}/f:1/logs")).await.ok(400).body["code"], "InvalidParameterValueException");
    assert_eq!(api.get(&format!("{own}/f/logs?tail=x")).await.ok(400).body["code"], "InvalidParameterValueException");
    assert_eq!(api.post(&format!("{own}/f/logs"), json!({})).await.ok(405).body["code"], "MethodNotAllowed");
    assert_eq!(api.get(&format!("{own}/f/other")).await.ok(404).body["code"], "NoSuchResource");
}

fn histogram(times: &[u64]) -> Histogram {
    let mut made = Histogram::default();
    times.iter().for_each(|micros| made.add(*micros));
    made
}

#[tokio::test]
async fn figures_are_told_of_functions_that_there_are() {
    let api = Api::new();
    api.create().await.ok(201);
    let own = "/_longshore/v1/functions";
    let figures = api.get(&format!("{own}/f/stats")).await.ok(200).body;
    assert_eq!((&figures["invocations"], &figures["duration"]["p50Ms"]), (&json!(0), &Value::Null));
    assert_eq!(figures["since"], "2026-01-31T10:00:00.000Z");
    let mut stats = FunctionStats {
        durations: histogram(&[100, 1_500, 1_600, 1_700, 2_001]),
        starts: histogram(&[90_000]),
        timeouts: 1,
        memory_used_max_mib: 40,
        in_flight: 1,
        idle: 2,
        frozen: 1,
        starting: 3,
        waiting: 4,
        ..FunctionStats::default()
    };
    stats.errors.insert("Runtime.Unknown".into(), 2);
    api.host.stats.lock().unwrap().extend([("f".to_owned(), stats.clone()), ("gone".to_owned(), stats)]);
    // Refused before the host is asked, and counted all the same.
    api.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 0})).await.ok(200);
    api.post("/2015-03-31/functions/f/invocations", json!({})).await.ok(429);
    let (duration, init) = (histogram(&[100, 1_500, 1_600, 1_700, 2_001]).times(), histogram(&[90_000]).times());
    let ms = |micros: u64| micros as f64 / 1_000.0;
    assert!(
        (1.55..1.65).contains(&ms(duration.p50_us)) && (87.0..=90.0).contains(&ms(init.p50_us)),
        "{duration:?} {init:?}"
    );
    let wanted = json!({
        "functionName": "f", "invocations": 5,
        "duration": {"p50Ms": ms(duration.p50_us), "p90Ms": 2.001, "p99Ms": 2.001, "maxMs": 2.001},
        "errors": 2, "errorsByType": {"Runtime.Unknown": 2}, "timeouts": 1,
        "throttles": 1, "throttlesByReason": {"ReservedFunctionConcurrentInvocationLimitExceeded": 1},
        "eventsDropped": 0, "eventsDroppedByReason": {},
        "coldStarts": 1,
        "initDuration": {"p50Ms": ms(init.p50_us), "p90Ms": ms(init.p50_us), "p99Ms": ms(init.p50_us), "maxMs": 90.0},
        "maxMemoryUsedMB": 40, "inFlight": 1, "idle": 2, "frozen": 1, "starting": 3, "waiting": 4,
    });
    let all = api.get(&format!("{own}/stats")).await.ok(200).body;
    assert_eq!(all["functions"], json!([wanted]), "a function that is gone is not told of");
    assert_eq!(api.get(&format!("{own}/gone/stats")).await.ok(404).body["code"], "ResourceNotFoundException");
    // Deleted and made again, it is another function.
    api.delete("/2015-03-31/functions/f").await.ok(204);
    api.create().await.ok(201);
    assert_eq!(api.get(&format!("{own}/f/stats")).await.ok(200).body["invocations"], 0);
}
