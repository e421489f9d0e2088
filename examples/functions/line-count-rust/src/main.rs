//! Answers, for every object of a job: how many lines it has. A custom runtime (`provided.al2023`) on AWS's own crate
//! `lambda_runtime`.
//!
//! Build it, then try it on a folder, without a server:
//!
//! ```text
//! cargo build --release -p line-count-rust
//! longshore run target/release/line-count-rust --source .
//! ```
//!
//! The zip for `aws lambda create-function --runtime provided.al2023 --handler bootstrap` holds the program under the
//! name `bootstrap`:
//!
//! ```text
//! mkdir -p target/line-count && cp target/release/line-count-rust target/line-count/bootstrap
//! (cd target/line-count && zip -q ../line-count.zip bootstrap)
//! ```
//!
//! The S3 client below speaks plain HTTP to the endpoint in `AWS_ENDPOINT_URL_S3`, which is what Longshore gives to
//! its functions. For AWS itself, whose endpoints are HTTPS alone, use the crate `aws-sdk-s3` in its place.

#![forbid(unsafe_code)]

use std::env;
use std::fmt::Write as _;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(handle)).await
}

/// Answers one invocation, which holds one task.
async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let event = event.payload;
    let task = &event["tasks"][0];
    // Schema 2.0 names the bucket, schema 1.0 gives its ARN.
    let bucket = match task["s3Bucket"].as_str() {
        Some(name) => name,
        None => text(task, "s3BucketArn")?.rsplit(':').next().unwrap_or_default(),
    };
    // Keys arrive URL-encoded, a space as "+" or "%20".
    let spaces = text(task, "s3Key")?.replace('+', " ");
    let key = percent_decode_str(&spaces).decode_utf8_lossy();
    let (code, answer) = match count_lines(bucket, &key, task["s3VersionId"].as_str()).await {
        Ok(lines) => ("Succeeded", lines.to_string()),
        Err(Failure { sentence, temporary: true }) => ("TemporaryFailure", sentence),
        Err(Failure { sentence, temporary: false }) => ("PermanentFailure", sentence),
    };
    Ok(json!({
        "invocationSchemaVersion": event["invocationSchemaVersion"],
        "treatMissingKeysAs": "PermanentFailure",
        "invocationId": event["invocationId"],
        "results": [{ "taskId": task["taskId"], "resultCode": code, "resultString": answer }],
    }))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Error> {
    value[name].as_str().ok_or_else(|| format!("the task has no {name}").into())
}

/// Why an object was not counted, in a sentence for the completion report.
struct Failure {
    sentence: String,
    /// Whether the same task may well succeed later.
    temporary: bool,
}

/// Reads the object piece by piece, so that memory does not grow with it. A last line without a newline is a line.
async fn count_lines(bucket: &str, key: &str, version_id: Option<&str>) -> Result<u64, Failure> {
    let unreachable = |cause: &dyn std::fmt::Display| Failure {
        sentence: format!("{bucket}/{key} could not be read: {cause}."),
        temporary: true,
    };
    let endpoint: Uri = env::var("AWS_ENDPOINT_URL_S3")
        .ok()
        .and_then(|url| url.parse().ok())
        .filter(|url: &Uri| url.scheme_str() == Some("http"))
        .ok_or_else(|| Failure {
            sentence: "AWS_ENDPOINT_URL_S3 has to name an http endpoint.".into(),
            temporary: false,
        })?;
    let host = endpoint.authority().map(ToString::to_string).unwrap_or_default();
    let address = (endpoint.host().unwrap_or_default(), endpoint.port_u16().unwrap_or(80));
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    // Its failure reaches us through the response as well; the task ends with the connection.
    tokio::spawn(async move { connection.await.is_ok() });

    let request = signed_get(&host, bucket, key, version_id);
    let mut response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return Err(Failure {
                sentence: format!("There is no object {key:?} in the bucket {bucket:?}."),
                temporary: false,
            });
        }
        status => {
            return Err(Failure {
                sentence: format!("S3 refused to hand out {bucket}/{key}: {status}."),
                temporary: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
            });
        }
    }
    let (mut newlines, mut last) = (0, b'\n');
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        if let Some(piece) = frame.data_ref() {
            newlines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            last = piece.last().copied().unwrap_or(last);
        }
    }
    Ok(newlines + u64::from(last != b'\n'))
}

/// What SigV4 leaves bare in a query value.
const BARE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a path, which keeps its slashes.
const BARE_IN_PATH: AsciiSet = BARE.remove(b'/');

/// GetObject with AWS Signature Version 4. The steps are those of AWS's page "Create a signed AWS API request".
fn signed_get(host: &str, bucket: &str, key: &str, version_id: Option<&str>) -> Request<Empty<Bytes>> {
    let path = format!("/{}/{}", utf8_percent_encode(bucket, &BARE), utf8_percent_encode(key, &BARE_IN_PATH));
    let query = version_id.map(|id| format!("versionId={}", utf8_percent_encode(id, &BARE))).unwrap_or_default();
    let region = env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".into());
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &now[..8];
    let mut headers = vec![
        ("host", host.to_owned()),
        ("x-amz-content-sha256", hex::encode(Sha256::digest(b""))),
        ("x-amz-date", now.clone()),
    ];
    if let Ok(token) = env::var("AWS_SESSION_TOKEN") {
        headers.push(("x-amz-security-token", token));
    }
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let mut canonical = format!("GET\n{path}\n{query}\n");
    for (name, value) in &headers {
        writeln!(canonical, "{name}:{value}").expect("writing to a string does not fail");
    }
    write!(canonical, "\n{names}\n{}", headers[1].1).expect("writing to a string does not fail");
    let scope = format!("{date}/{region}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let mut key = format!("AWS4{}", env::var("AWS_SECRET_ACCESS_KEY").unwrap_or_default()).into_bytes();
    for part in [date, &region, "s3", "aws4_request", &to_sign] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let credential = format!("{}/{scope}", env::var("AWS_ACCESS_KEY_ID").unwrap_or_default());
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={}", hex::encode(&key));
    let target = if query.is_empty() { path } else { format!("{path}?{query}") };
    let mut request = Request::get(target).header("authorization", authorization);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).expect("every part is made of visible ASCII")
}
