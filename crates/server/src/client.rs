//! A small client of the public API, for `demo`, `run`, `job`, `function` and `iam`: they have no private door.
//!
//! One connection, one request at a time; opened anew when it is gone, or when the next request goes elsewhere. Several
//! clients make several connections.

mod endpoint;
mod functions;
mod proxy;

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, RANGE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use longshore_core::job::Status;
use longshore_wire::arn::FunctionName;
use longshore_wire::payload::PayloadForm;
use longshore_wire::sigv4;
use longshore_wire::xml::{Element, Writer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::CertificateError;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::names::INTERNAL;
use crate::tls::{self, TlsError};

pub use endpoint::{Endpoint, Endpoints, NoEndpoint};
pub use functions::{Invocation, Invoked, is_missing};

/// Answers that are read whole: job descriptions, lists, error documents, a function's answer of 6 MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// From the request's last byte to the answer's headers. The longest wait is for an upload to become durable.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
/// As [`ANSWER_TIME_MAX`], where the answer comes once a whole report is written: a hundred million rows take some minutes, and a store that
/// refuses for the moment is asked again for a quarter of an hour.
const REPORT_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// For the name lookup, the connection, and TLS.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
const PIECE_BYTES: usize = 256 * 1024;

/// A part of a query, or a segment of a path: everything but RFC 3986's unreserved characters is encoded.
pub const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// A key, in a path or in a manifest: the same, and its slashes stay.
pub const KEY: &AsciiSet = &COMPONENT.remove(b'/');

type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error of its API.
    #[error("{code}: {message}")]
    Refused { status: StatusCode, code: String, message: String },
    #[error("{0}")]
    Broken(String),
}

impl ClientError {
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Broken(_) => "",
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::new(error.to_string())
    }
}

/// What is sent.
pub enum Content<'a> {
    Bytes(Bytes),
    /// A local file, read twice: once for its hash, once to be sent.
    File(&'a Path),
}

/// Which API a request is for: it decides where it goes, and what it is signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    S3,
    Lambda,
    /// What Longshore offers about functions beside Lambda.
    OwnLambda,
    /// S3 Control, and what Longshore offers about jobs beside it.
    Control,
    Sts,
}

impl Api {
    /// The service in a signature's scope. S3 Control signs as S3 (spec 1.1).
    fn service(self) -> &'static str {
        match self {
            Api::S3 | Api::Control | Api::OwnLambda => "s3",
            Api::Lambda => "lambda",
            Api::Sts => "sts",
        }
    }
}

/// Nothing has answered yet.
const UNKNOWN: u8 = 0;
const LONGSHORE: u8 = 1;
const OTHER: u8 = 2;

pub struct Client {
    endpoints: RwLock<Endpoints>,
    credentials: sigv4::Credentials,
    region: String,
    account: String,
    /// What the endpoint of S3 Control, or of Lambda, said that it is. Nobody has a client for both where they are two.
    server: AtomicU8,
    connection: tokio::sync::Mutex<Option<(Endpoint, SendRequest<RequestBody>)>>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub size: u64,
}

/// What a job is created from.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub token: String,
    pub description: String,
    pub function_arn: String,
    /// Schema 2.0 if there are any.
    pub arguments: Vec<(String, String)>,
    pub manifest_bucket: String,
    pub manifest_key: String,
    pub manifest_etag: String,
    pub with_versions: bool,
    pub report_bucket: String,
    pub report_prefix: String,
    pub tags: Vec<(String, String)>,
}

/// What a function is created from.
#[derive(Debug, Clone)]
pub struct NewFunction<'a> {
    pub name: &'a str,
    pub runtime: &'a str,
    pub handler: &'a str,
    pub zip: &'a [u8],
    pub timeout_seconds: u32,
    pub memory_mib: u32,
    pub variables: &'a [(String, String)],
}

/// A job as DescribeJob tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub job: Element,
}

impl Described {
    pub fn status(&self) -> &str {
        self.job.child_text("Status").unwrap_or("")
    }

    pub fn is_over(&self) -> bool {
        matches!(self.status(), "Complete" | "Failed" | "Cancelled")
    }

    /// Total, succeeded, failed.
    pub fn progress(&self) -> (u64, u64, u64) {
        let summary = self.job.child("ProgressSummary");
        let number =
            |name| summary.and_then(|s: &Element| s.child_text(name)).and_then(|t| t.parse().ok()).unwrap_or(0);
        (number("TotalNumberOfTasks"), number("NumberOfTasksSucceeded"), number("NumberOfTasksFailed"))
    }

    /// Code and reason of each failure of the job itself.
    pub fn failure_reasons(&self) -> Vec<(String, String)> {
        let reasons = self.job.child("FailureReasons").map(|r| r.children.as_slice()).unwrap_or_default();
        let text = |reason: &Element, name| reason.child_text(name).unwrap_or("").to_owned();
        reasons.iter().map(|r| (text(r, "FailureCode"), text(r, "FailureReason"))).collect()
    }
}

impl Client {
    pub fn new(endpoint: Endpoint, credentials: &Credentials, region: &str, account: &str) -> Self {
        let credentials = sigv4::Credentials {
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret_access_key.clone(),
            session_token: None,
        };
        Self::of(Endpoints::one(endpoint), credentials, region, account)
    }

    /// A client of any endpoints.
    pub fn of(endpoints: Endpoints, credentials: sigv4::Credentials, region: &str, account: &str) -> Self {
        Self {
            endpoints: RwLock::new(endpoints),
            credentials,
            region: region.to_owned(),
            account: account.to_owned(),
            server: AtomicU8::new(UNKNOWN),
            connection: tokio::sync::Mutex::new(None),
        }
    }

    fn endpoints(&self) -> RwLockReadGuard<'_, Endpoints> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server listens elsewhere from here on: it was started again.
    pub fn move_to(&self, endpoint: Endpoint) {
        *self.endpoints.write().unwrap_or_else(PoisonError::into_inner) = Endpoints::one(endpoint);
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// Whether a Longshore answers for S3 Control: it says so in each answer. Asks only if nothing has answered yet.
    pub async fn is_longshore(&self) -> Result<bool, ClientError> {
        self.is_longshore_at(Api::Control).await
    }

    async fn is_longshore_at(&self, api: Api) -> Result<bool, ClientError> {
        if self.server.load(Ordering::Relaxed) == UNKNOWN {
            let none = Content::Bytes(Bytes::new());
            match self.call(api, Method::GET, "/_longshore/health", HeaderMap::new(), none).await {
                // Whatever the answer, its headers count.
                Ok(_) | Err(ClientError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.server.load(Ordering::Relaxed) == LONGSHORE)
    }

    // --- STS ---

    /// The account of the caller.
    pub async fn caller_account(&self) -> Result<String, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = Content::Bytes(Bytes::from_static(b"Action=GetCallerIdentity&Version=2011-06-15"));
        let (_, answer) = self.call(Api::Sts, Method::POST, "/", headers, body).await?;
        let document = parse(&answer)?;
        let account = document.child("GetCallerIdentityResult").and_then(|result| result.child_text("Account"));
        let account = account.filter(|a| a.len() == 12 && a.bytes().all(|b| b.is_ascii_digit()));
        let told = account.map(str::to_owned);
        told.ok_or_else(|| ClientError::Broken("the answer to GetCallerIdentity has no account".into()))
    }

    // --- S3 ---

    /// Creates a bucket, or finds it there.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        let path = format!("/{bucket}");
        match self.call(Api::S3, Method::PUT, &path, HeaderMap::new(), Content::Bytes(Bytes::new())).await {
            Err(error) if error.code() == "BucketAlreadyOwnedByYou" => Ok(()),
            other => other.map(drop),
        }
    }

    /// Writes an object and returns its ETag, without quotes.
    pub async fn put(&self, bucket: &str, key: &str, content: Content<'_>) -> Result<String, ClientError> {
        let (headers, _) =
            self.call(Api::S3, Method::PUT, &object_path(bucket, key), HeaderMap::new(), content).await?;
        Ok(etag(&headers))
    }

    /// The ETag of an object, without quotes.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<String, ClientError> {
        let path = object_path(bucket, key);
        let none = Content::Bytes(Bytes::new());
        match self.call(Api::S3, Method::HEAD, &path, HeaderMap::new(), none).await {
            Ok((headers, _)) => Ok(etag(&headers)),
            // The answer to HEAD has no body, so the code is not told, nor what it is that is not there.
            Err(ClientError::Refused { status, code, .. })
                if code.is_empty()
                    && status == StatusCode::NOT_FOUND
                    && matches!(self.has_bucket(bucket).await, Ok(false)) =>
            {
                let message = format!("There is no bucket {bucket} ({status}).");
                Err(ClientError::Refused { status, code: "NoSuchBucket".into(), message })
            }
            Err(ClientError::Refused { status, code, .. }) if code.is_empty() => Err(ClientError::Refused {
                status,
                code: match status {
                    StatusCode::NOT_FOUND => "NoSuchKey".into(),
                    StatusCode::FORBIDDEN => "AccessDenied".into(),
                    _ => status.as_u16().to_string(),
                },
                message: match status {
                    StatusCode::NOT_FOUND => format!("There is no object s3://{bucket}/{key} ({status})."),
                    StatusCode::FORBIDDEN => format!("s3://{bucket}/{key} may not be read ({status})."),
                    StatusCode::MOVED_PERMANENTLY => format!("The bucket {bucket} is in another region ({status})."),
                    _ => format!("s3://{bucket}/{key} cannot be looked up ({status})."),
                },
            }),
            Err(error) => Err(error),
        }
    }

    /// An object of at most 16 MiB.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Bytes, ClientError> {
        let none = Content::Bytes(Bytes::new());
        Ok(self.call(Api::S3, Method::GET, &object_path(bucket, key), HeaderMap::new(), none).await?.1)
    }

    /// The first bytes of an object, `bytes_max` at most. A store that knows no ranges gives all of it, which is an error where it
    /// is more than an answer may have.
    pub async fn beginning(&self, bucket: &str, key: &str, bytes_max: u32) -> Result<Bytes, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            RANGE,
            HeaderValue::from_str(&format!("bytes=0-{}", bytes_max.saturating_sub(1))).map_err(|e| {
                ClientError::Broken(format!("cannot ask for the beginning of s3://{bucket}/{key}: {e}"))
            })?,
        );
        let none = Content::Bytes(Bytes::new());
        Ok(self.call(Api::S3, Method::GET, &object_path(bucket, key), headers, none).await?.1)
    }

    /// Copies an object of any size into a local file.
    pub async fn get_to_file(&self, bucket: &str, key: &str, path: &Path) -> Result<(), ClientError> {
        let broken = |e: &dyn std::fmt::Display| ClientError::Broken(format!("cannot write {}: {e}", path.display()));
        let none = Content::Bytes(Bytes::new());
        let (_, _, mut body) = self
            .send(Api::S3, Method::GET, &object_path(bucket, key), HeaderMap::new(), &none, ANSWER_TIME_MAX)
            .await?;
        let mut file = tokio::fs::File::create(path).await.map_err(|e| broken(&e))?;
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|e| ClientError::Broken(format!("reading s3://{bucket}/{key} broke off: {e}")))?;
            if let Some(data) = frame.data_ref() {
                file.write_all(data).await.map_err(|e| broken(&e))?;
            }
        }
        file.flush().await.map_err(|e| broken(&e))
    }

    /// Deletes an object.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), ClientError> {
        let none = Content::Bytes(Bytes::new());
        self.call(Api::S3, Method::DELETE, &object_path(bucket, key), HeaderMap::new(), none).await.map(drop)
    }

    /// Deletes a bucket, which must be empty.
    pub async fn delete_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        let none = Content::Bytes(Bytes::new());
        self.call(Api::S3, Method::DELETE, &format!("/{bucket}"), HeaderMap::new(), none).await.map(drop)
    }

    /// The next page of a bucket's objects, at most a thousand, and the token of the page after it.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<(Vec<Listed>, Option<String>), ClientError> {
        let encoded = |text| utf8_percent_encode(text, COMPONENT);
        let mut path = format!("/{bucket}?encoding-type=url&list-type=2&prefix={}", encoded(prefix));
        if let Some(token) = token {
            path = format!("/{bucket}?continuation-token={}&{}", encoded(token), &path[bucket.len() + 2..]);
        }
        let none = Content::Bytes(Bytes::new());
        let (_, body) = self.call(Api::S3, Method::GET, &path, HeaderMap::new(), none).await?;
        let document = parse(&body)?;
        let mut page = Vec::new();
        // Another store behind us may not encode what it lists.
        let encoded = document.child_text("EncodingType") == Some("url");
        for object in document.children.iter().filter(|c| c.name == "Contents") {
            let key = object.child_text("Key").unwrap_or("");
            // In a list, unlike in a path, S3 encodes a space as a plus.
            let key = match encoded {
                false => key.to_owned(),
                true => percent_encoding::percent_decode_str(&key.replace('+', " "))
                    .decode_utf8()
                    .map_err(|_| ClientError::Broken(format!("the list of {bucket} has a key that is not UTF-8")))?
                    .into_owned(),
            };
            page.push(Listed { key, size: object.child_text("Size").and_then(|s| s.parse().ok()).unwrap_or(0) });
        }
        let next = document.child_text("NextContinuationToken").map(str::to_owned);
        Ok((page, next))
    }

    // --- Lambda ---

    /// Creates a function, or gives the existing one this code.
    pub async fn create_function(&self, new: &NewFunction<'_>) -> Result<(), ClientError> {
        use base64::Engine;
        let zip = base64::engine::general_purpose::STANDARD.encode(new.zip);
        let variables: serde_json::Map<_, _> =
            new.variables.iter().map(|(k, v)| (k.clone(), serde_json::Value::from(v.clone()))).collect();
        let role = format!("arn:aws:iam::{}:role/longshore-batch", self.account);
        let body = serde_json::json!({
            "FunctionName": new.name,
            "Runtime": new.runtime,
            "Handler": new.handler,
            "Role": role,
            "Timeout": new.timeout_seconds,
            "MemorySize": new.memory_mib,
            "Environment": {"Variables": variables},
            "Code": {"ZipFile": zip},
        });
        match self.lambda(Method::POST, "/2015-03-31/functions", &body).await {
            Err(error) if error.code() == "ResourceConflictException" => {
                let path = format!("/2015-03-31/functions/{}/code", new.name);
                self.lambda(Method::PUT, &path, &serde_json::json!({"ZipFile": zip})).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Waits until the function can be invoked.
    pub async fn function_active(&self, name: &str) -> Result<(), ClientError> {
        self.function_settled(name, Duration::from_millis(50)).await.map(drop)
    }

    async fn lambda(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, ClientError> {
        self.lambda_within(method, path, body, ANSWER_TIME_MAX).await
    }

    async fn lambda_within(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
        answer_time_max: Duration,
    ) -> Result<serde_json::Value, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Content::Bytes(if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) });
        let (_, _, answer) = self.send(Api::Lambda, method, path, headers, &body, answer_time_max).await?;
        let answer = whole(answer).await?;
        // Where something is deleted there is nothing to tell.
        if answer.is_empty() { Ok(serde_json::Value::Null) } else { json(&answer) }
    }

    // --- S3 Control ---

    /// Creates a job that needs no confirmation and returns its ID. Safe to repeat with the same token.
    pub async fn create_job(&self, new: &NewJob) -> Result<String, ClientError> {
        let mut xml = Writer::document("CreateJobRequest", Some(longshore_wire::error::S3_CONTROL_NAMESPACE));
        xml.text("ConfirmationRequired", "false");
        xml.open("Operation");
        xml.open("LambdaInvoke");
        xml.text("FunctionArn", &new.function_arn);
        xml.text("InvocationSchemaVersion", if new.arguments.is_empty() { "1.0" } else { "2.0" });
        if !new.arguments.is_empty() {
            xml.open("UserArguments");
            for (key, value) in &new.arguments {
                xml.open("entry");
                xml.text("key", key);
                xml.text("value", value);
                xml.close();
            }
            xml.close();
        }
        xml.close();
        xml.close();
        xml.open("Report");
        xml.text("Bucket", &format!("arn:aws:s3:::{}", new.report_bucket));
        xml.text("Format", "Report_CSV_20180820");
        xml.text("Enabled", "true");
        if !new.report_prefix.is_empty() {
            xml.text("Prefix", &new.report_prefix);
        }
        xml.text("ReportScope", "AllTasks");
        xml.close();
        xml.text("ClientRequestToken", &new.token);
        xml.open("Manifest");
        xml.open("Spec");
        xml.text("Format", "S3BatchOperations_CSV_20180820");
        xml.open("Fields");
        for field in ["Bucket", "Key"].into_iter().chain(new.with_versions.then_some("VersionId")) {
            xml.text("member", field);
        }
        xml.close();
        xml.close();
        xml.open("Location");
        xml.text("ObjectArn", &format!("arn:aws:s3:::{}/{}", new.manifest_bucket, new.manifest_key));
        xml.text("ETag", &new.manifest_etag);
        xml.close();
        xml.close();
        xml.text("Description", &new.description);
        xml.text("Priority", "10");
        xml.text("RoleArn", &format!("arn:aws:iam::{}:role/longshore-batch", self.account));
        if !new.tags.is_empty() {
            xml.open("Tags");
            for (key, value) in &new.tags {
                xml.open("member");
                xml.text("Key", key);
                xml.text("Value", value);
                xml.close();
            }
            xml.close();
        }
        self.create_job_of(xml.finish()).await
    }

    /// Creates a job from a whole document and returns its ID. Safe to repeat with the same token.
    pub async fn create_job_of(&self, document: String) -> Result<String, ClientError> {
        let answer = self.control(Method::POST, "/v20180820/jobs", document).await?;
        let id = answer.child_text("JobId").map(str::to_owned);
        id.ok_or_else(|| ClientError::Broken("the answer to CreateJob has no JobId".into()))
    }

    pub async fn describe_job(&self, id: &str) -> Result<Described, ClientError> {
        let answer = self.control(Method::GET, &format!("/v20180820/jobs/{id}"), String::new()).await?;
        let job = answer.child("Job").cloned();
        Ok(Described { job: job.ok_or_else(|| ClientError::Broken("the answer to DescribeJob has no Job".into()))? })
    }

    /// A page of ListJobs, at most `max` (1 to 1,000) of them: `ListJobsResult`.
    pub async fn list_jobs(
        &self,
        statuses: &[Status],
        max: usize,
        token: Option<&str>,
    ) -> Result<Element, ClientError> {
        let mut target = String::from("/v20180820/jobs?");
        for status in statuses {
            target.push_str(&format!("jobStatuses={}&", status.name()));
        }
        target.push_str(&format!("maxResults={max}"));
        if let Some(token) = token {
            target.push_str(&format!("&nextToken={}", utf8_percent_encode(token, COMPONENT)));
        }
        self.control(Method::GET, &target, String::new()).await
    }

    /// Asks for a status, `Ready` or `Cancelled`, and returns the one that the job has now: `UpdateJobStatusResult`.
    pub async fn update_job_status(&self, id: &str, to: &str, reason: Option<&str>) -> Result<Element, ClientError> {
        let mut target = format!("/v20180820/jobs/{id}/status?requestedJobStatus={to}");
        if let Some(reason) = reason {
            target.push_str(&format!("&statusUpdateReason={}", utf8_percent_encode(reason, COMPONENT)));
        }
        self.control(Method::POST, &target, String::new()).await
    }

    pub async fn update_job_priority(&self, id: &str, priority: u32) -> Result<Element, ClientError> {
        self.control(Method::POST, &format!("/v20180820/jobs/{id}/priority?priority={priority}"), String::new()).await
    }

    /// The tags of a job, in the server's order.
    pub async fn job_tags(&self, id: &str) -> Result<Vec<(String, String)>, ClientError> {
        let answer = self.control(Method::GET, &format!("/v20180820/jobs/{id}/tagging"), String::new()).await?;
        let tags = answer.child("Tags").map(|tags| tags.children.as_slice()).unwrap_or_default();
        let text = |tag: &Element, name| tag.child_text(name).unwrap_or("").to_owned();
        Ok(tags.iter().map(|tag| (text(tag, "Key"), text(tag, "Value"))).collect())
    }

    /// Replaces all tags of a job.
    pub async fn put_job_tags(&self, id: &str, tags: &[(String, String)]) -> Result<(), ClientError> {
        let mut xml = Writer::document("PutJobTaggingRequest", Some(longshore_wire::error::S3_CONTROL_NAMESPACE));
        xml.open("Tags");
        for (key, value) in tags {
            xml.open("member");
            xml.text("Key", key);
            xml.text("Value", value);
            xml.close();
        }
        xml.close();
        self.control(Method::PUT, &format!("/v20180820/jobs/{id}/tagging"), xml.finish()).await.map(drop)
    }

    pub async fn delete_job_tags(&self, id: &str) -> Result<(), ClientError> {
        self.control(Method::DELETE, &format!("/v20180820/jobs/{id}/tagging"), String::new()).await.map(drop)
    }

    /// A page of a job's events, oldest first, as Longshore tells them: `{"events": […], "nextToken": …}`.
    pub async fn job_events(&self, id: &str, token: Option<&str>) -> Result<serde_json::Value, ClientError> {
        let mut target = format!("/_longshore/v1/jobs/{id}/events");
        if let Some(token) = token {
            target.push_str(&format!("?nextToken={}", utf8_percent_encode(token, COMPONENT)));
        }
        self.own(&target).await
    }

    /// What a job's results amount to by now, as Longshore tells it: counts, and failures in groups.
    pub async fn job_results(&self, id: &str) -> Result<serde_json::Value, ClientError> {
        self.own(&format!("/_longshore/v1/jobs/{id}/results")).await
    }

    /// Has a Longshore write the report that a job's bucket did not take when it ended: `{"bucket", "key", "numberOfTasks"}`.
    pub async fn deliver_report(&self, id: &str) -> Result<serde_json::Value, ClientError> {
        self.own_within(Method::POST, &format!("/_longshore/v1/jobs/{id}/report"), REPORT_TIME_MAX).await
    }

    /// How a job goes, and how long its tasks took, as Longshore tells it.
    pub async fn job_figures(&self, id: &str) -> Result<serde_json::Value, ClientError> {
        self.own(&format!("/_longshore/v1/jobs/{id}/figures")).await
    }

    /// Whether somebody may do something and why, as Longshore tells it: `{"principal", "results": […]}`. `members` are those of
    /// SimulatePrincipalPolicy.
    pub async fn explain(&self, members: &[(String, String)]) -> Result<serde_json::Value, ClientError> {
        self.explain_at(Api::Control, members).await
    }

    async fn explain_at(&self, api: Api, members: &[(String, String)]) -> Result<serde_json::Value, ClientError> {
        let encoded = |text: &str| utf8_percent_encode(text, COMPONENT).to_string();
        let fields: Vec<String> =
            members.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = Content::Bytes(Bytes::from(fields.join("&")));
        let (_, answer) = self.call(api, Method::POST, "/_longshore/v1/iam/explain", headers, body).await?;
        json(&answer)
    }

    /// Whether there is a role where functions are, a Longshore; `None` where that is not for these credentials to know.
    pub async fn has_role_for_functions(&self, role: &str) -> Option<bool> {
        let member = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        // What is asked of it does not matter: it is what can be asked of a role that there is.
        let members = [
            member("PolicySourceArn", role),
            member("ActionNames.member.1", "s3:GetObject"),
            member("ResourceArns.member.1", "*"),
        ];
        if !self.functions_are_of_longshore().await.ok()? {
            return None;
        }
        match self.explain_at(Api::OwnLambda, &members).await {
            Ok(_) => Some(true),
            Err(error) if error.code() == "NoSuchEntity" => Some(false),
            Err(_) => None,
        }
    }

    /// Whether there is the function that a job names; `None` where nobody can be asked. At a Longshore: whether it is one
    /// of that server's own.
    pub async fn has_function(&self, function: &str) -> Result<Option<bool>, ClientError> {
        let Some(named) = FunctionName::parse(function) else { return Ok(None) };
        let name = utf8_percent_encode(&named.name, COMPONENT);
        let found = if self.is_longshore().await? {
            self.own(&format!("/_longshore/v1/functions/{name}/stats")).await.map(drop)
        } else if self.endpoints().lambda.is_aws() && self.endpoints().control.is_aws() {
            self.lambda(Method::GET, &format!("/2015-03-31/functions/{name}/configuration"), &serde_json::Value::Null)
                .await
                .map(drop)
        } else {
            return Ok(None);
        };
        match found {
            Ok(()) => Ok(Some(true)),
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a bucket, as far as these credentials see one.
    pub async fn has_bucket(&self, bucket: &str) -> Result<bool, ClientError> {
        let none = Content::Bytes(Bytes::new());
        match self.call(Api::S3, Method::HEAD, &format!("/{bucket}"), HeaderMap::new(), none).await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn own(&self, target: &str) -> Result<serde_json::Value, ClientError> {
        self.own_within(Method::GET, target, ANSWER_TIME_MAX).await
    }

    async fn own_within(
        &self,
        method: Method,
        target: &str,
        answer_time_max: Duration,
    ) -> Result<serde_json::Value, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-account-id", self.account_header()?);
        let none = Content::Bytes(Bytes::new());
        let (_, _, body) = self.send(Api::Control, method, target, headers, &none, answer_time_max).await?;
        json(&whole(body).await?)
    }

    fn account_header(&self) -> Result<HeaderValue, ClientError> {
        let value = HeaderValue::from_str(&self.account);
        value.map_err(|_| ClientError::Broken(format!("{} is not an account", self.account)))
    }

    async fn control(&self, method: Method, path: &str, body: String) -> Result<Element, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-account-id", self.account_header()?);
        let (_, answer) = self.call(Api::Control, method, path, headers, Content::Bytes(body.into())).await?;
        // The answers about tags that are written have no body.
        if answer.is_empty() { Ok(Element::default()) } else { parse(&answer) }
    }

    // --- the wire ---

    /// Sends one request and reads its answer whole. It may arrive twice if a kept connection breaks meanwhile.
    async fn call(
        &self,
        api: Api,
        method: Method,
        target: &str,
        headers: HeaderMap,
        content: Content<'_>,
    ) -> Result<(HeaderMap, Bytes), ClientError> {
        let (_, headers, body) = self.send(api, method, target, headers, &content, ANSWER_TIME_MAX).await?;
        Ok((headers, whole(body).await?))
    }

    /// Sends one request. Gives up if the head of its answer does not come within `answer_time_max`.
    async fn send(
        &self,
        api: Api,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        content: &Content<'_>,
        answer_time_max: Duration,
    ) -> Result<(StatusCode, HeaderMap, Incoming), ClientError> {
        let broken = |e: &dyn std::fmt::Display| ClientError::Broken(format!("cannot send {method} {target}: {e}"));
        let endpoint = &match api {
            Api::S3 => self.endpoints().s3.clone(),
            Api::Lambda | Api::OwnLambda => self.endpoints().lambda.clone(),
            Api::Control => self.endpoints().control.clone(),
            Api::Sts => self.endpoints().sts.clone(),
        };
        let target = &format!("{}{target}", endpoint.base());
        let proxy = proxy::of(endpoint, &|name| std::env::var(name).ok())
            .map_err(|why| ClientError::Broken(format!("cannot connect to {endpoint}: {why}")))?;
        headers.insert(HOST, HeaderValue::from_str(&endpoint.authority()).map_err(|e| broken(&e))?);
        let (hash, length) = match content {
            Content::Bytes(bytes) => (Sha256::digest(bytes).into(), bytes.len() as u64),
            Content::File(path) => hash_file(path).await?,
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let now = jiff::Timestamp::now().as_second();
        let signer = sigv4::Signer { credentials: &self.credentials, service: api.service(), region: &self.region };
        let signed = signer.sign(&method, target, &headers, PayloadForm::Hash(hash), now).map_err(|e| broken(&e))?;
        headers.extend(signed.headers.into_iter().map(|(name, value): (HeaderName, HeaderValue)| (Some(name), value)));

        let mut slot = self.connection.lock().await;
        // A kept connection may be closed by the other side at any time; one that is fresh may not.
        let kept = slot.take_if(|(to, _)| to == endpoint);
        for kept in [kept, None] {
            let fresh = kept.is_none();
            let mut connection = match kept {
                Some((_, connection)) => connection,
                None => connect(endpoint, proxy.as_ref()).await?,
            };
            let body: RequestBody = match content {
                Content::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
                Content::File(path) => file_body(path, length).await?,
            };
            // A proxy is told whose it is in the request's target. That is not what was signed, nor does it have to be.
            let uri = match &proxy {
                Some(_) => format!("http://{}{target}", endpoint.authority()),
                None => target.clone(),
            };
            let mut request = http::Request::builder().method(&method).uri(uri).body(body).map_err(|e| broken(&e))?;
            *request.headers_mut() = headers.clone();
            let sent = match connection.ready().await {
                Ok(()) => tokio::time::timeout(answer_time_max, connection.send_request(request))
                    .await
                    .map_err(|_| broken(&"no answer in time"))?,
                Err(error) => Err(error),
            };
            match sent {
                Ok(answer) => {
                    *slot = Some((endpoint.clone(), connection));
                    let (parts, body) = answer.into_parts();
                    if !matches!(api, Api::S3 | Api::Sts) {
                        let ours = parts.headers.get(SERVER).is_some_and(|name| name == "longshore");
                        self.server.store(if ours { LONGSHORE } else { OTHER }, Ordering::Relaxed);
                    }
                    if parts.status.is_success() {
                        return Ok((parts.status, parts.headers, body));
                    }
                    return Err(refused(parts.status, &parts.headers, &whole(body).await?));
                }
                Err(error) if fresh => return Err(broken(&error)),
                Err(_) => {}
            }
        }
        unreachable!("the second round is always fresh")
    }
}

async fn connect(endpoint: &Endpoint, proxy: Option<&Endpoint>) -> Result<SendRequest<RequestBody>, ClientError> {
    let proxied = endpoint.tls() && ["HTTPS_PROXY", "https_proxy"].iter().any(|name| std::env::var_os(name).is_some());
    let aside = match proxy {
        Some(proxy) => format!(" (by way of the proxy {proxy}, which HTTP_PROXY names)"),
        None if proxied => " (HTTPS_PROXY is set, but connections go straight)".to_owned(),
        None if endpoint.host().ends_with(INTERNAL) => {
            " (this name is answered for by the HTTP_PROXY that \"longshore env\" sets, and none is set)".to_owned()
        }
        None => String::new(),
    };
    let broken = |e: &dyn std::fmt::Display| ClientError::Broken(format!("cannot connect to {endpoint}: {e}{aside}"));
    let not_there = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => broken(&"nobody listens there"),
        _ => broken(&error),
    };
    let connected = tokio::time::timeout(CONNECT_TIME_MAX, async {
        let stream = tokio::net::TcpStream::connect(proxy.unwrap_or(endpoint).address()).await.map_err(not_there)?;
        stream.set_nodelay(true).map_err(|e| broken(&e))?;
        if endpoint.tls() {
            let config = match endpoint.certificate() {
                Some(certificate) => tls::of_this_machine(certificate),
                None => tls::usual(),
            };
            let config = config.map_err(|e| broken(&e))?;
            let stream = tls::handshake(stream, endpoint.host(), config).await.map_err(|error| match error {
                TlsError::NotTrusted(CertificateError::UnknownIssuer) => {
                    broken(&format!("{error} (AWS_CA_BUNDLE names a file of certificates to trust)"))
                }
                error => broken(&error),
            })?;
            handshake(stream).await.map_err(|e| broken(&e))
        } else {
            handshake(stream).await.map_err(|e| broken(&e))
        }
    });
    connected.await.map_err(|_| broken(&format!("no answer within {} s", CONNECT_TIME_MAX.as_secs())))?
}

async fn handshake(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<SendRequest<RequestBody>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or when the server hangs up; both are seen by the next request.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(read.map_err(|e| ClientError::Broken(format!("reading an answer broke off: {e}")))?.to_bytes())
}

fn json(body: &[u8]) -> Result<serde_json::Value, ClientError> {
    serde_json::from_slice(body).map_err(|e| ClientError::Broken(format!("the answer is no JSON: {e}")))
}

fn parse(body: &[u8]) -> Result<Element, ClientError> {
    Element::parse(body).map_err(|e| ClientError::Broken(format!("the answer is no XML: {e}")))
}

fn object_path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", utf8_percent_encode(key, KEY))
}

fn etag(headers: &HeaderMap) -> String {
    headers.get("etag").and_then(|v| v.to_str().ok()).unwrap_or("").trim_matches('"').to_owned()
}

/// The error in any of the four dialects.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ClientError {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |names: [&str; 2]| names.iter().find_map(|m| json.get(m)?.as_str()).map(str::to_owned);
    // Which of Lambda's limits it was stands beside the message.
    let why =
        json.get("Reason").and_then(serde_json::Value::as_str).map_or_else(String::new, |why| format!(" ({why})"));
    if let Some(code) = headers.get("x-amzn-errortype").and_then(|v| v.to_str().ok()) {
        // AWS puts the namespace of the model behind some.
        let code = code.split(':').next().unwrap_or(code).to_owned();
        let message = member(["message", "Message"]).unwrap_or_default() + &why;
        return ClientError::Refused { status, code, message };
    }
    if let Some(code) = member(["code", "Code"]) {
        return ClientError::Refused { status, code, message: member(["message", "Message"]).unwrap_or_default() };
    }
    let document = Element::parse(body).unwrap_or_default();
    let error = document.child("Error").unwrap_or(&document);
    let text = |name| error.child_text(name).unwrap_or("").to_owned();
    ClientError::Refused { status, code: text("Code"), message: text("Message") }
}

async fn hash_file(path: &Path) -> Result<([u8; 32], u64), ClientError> {
    let broken = |e: std::io::Error| ClientError::Broken(format!("cannot read {}: {e}", path.display()));
    let mut file = tokio::fs::File::open(path).await.map_err(broken)?;
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece).await.map_err(broken)?;
        if read == 0 {
            return Ok((hash.finalize().into(), length));
        }
        hash.update(&piece[..read]);
        length += read as u64;
    }
}

/// The first `length` bytes of a file: it may have grown since it was hashed, and the server would then refuse it for
/// its hash rather than for its length.
async fn file_body(path: &Path, length: u64) -> Result<RequestBody, ClientError> {
    let broken = |e: std::io::Error| ClientError::Broken(format!("cannot read {}: {e}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(broken)?;
    let stream = tokio_util::io::ReaderStream::with_capacity(file.take(length), PIECE_BYTES);
    Ok(StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_in_every_dialect() {
        let code = |headers: &HeaderMap, body: &str| match refused(StatusCode::NOT_FOUND, headers, body.as_bytes()) {
            ClientError::Refused { code, message, .. } => (code, message),
            other => panic!("{other}"),
        };
        let none = HeaderMap::new();
        let wanted = ("C".to_owned(), "m".to_owned());
        assert_eq!(code(&none, "<Error><Code>C</Code><Message>m</Message></Error>"), wanted);
        let wrapped = "<ErrorResponse><Error><Code>C</Code><Message>m</Message></Error></ErrorResponse>";
        assert_eq!(code(&none, wrapped), wanted);
        let mut lambda = HeaderMap::new();
        lambda.insert("x-amzn-errortype", HeaderValue::from_static("C"));
        assert_eq!(code(&lambda, "{\"Message\": \"m\"}"), wanted);
        lambda.insert("x-amzn-errortype", HeaderValue::from_static("C:http://internal.amazon.com/"));
        assert_eq!(code(&lambda, "{\"message\": \"m\"}"), wanted);
        assert_eq!(code(&none, "{\"code\": \"C\", \"message\": \"m\"}"), wanted);
        let throttled = "{\"Reason\": \"TooMany\", \"message\": \"m\"}";
        assert_eq!(code(&lambda, throttled).1, "m (TooMany)", "Lambda's limits are told apart");
        assert_eq!(code(&none, "no xml").0, "");
    }

    #[test]
    fn a_key_is_encoded_once_and_its_slashes_stay() {
        assert_eq!(object_path("b", "a b/ü+~"), "/b/a%20b/%C3%BC%2B~");
    }
}
