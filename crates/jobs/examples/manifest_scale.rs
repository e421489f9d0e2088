//! Prepares and runs a job over a manifest of many rows, with a function that does nothing: what it shows is how much
//! memory the rows take (none) and how fast they go.
//!
//! ```text
//! cargo run --release -p longshore-jobs --example manifest_scale -- 10000 10000000
//! ```
//!
//! One process a size, so that peaks are not mixed: the program starts itself once for each. The manifest is made on
//! the fly by the store, row by row; nothing here ever holds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use longshore_core::invocation::Reply;
use longshore_jobs::ports::{
    Invoker, ListPage, ListQuery, ObjectBody, ObjectError, ObjectFacts, Objects, PutBody, PutTerms,
};
use longshore_jobs::{Jobs, SCHEMA, Settings};
use longshore_store::{Fatal, Records};
use longshore_wire::sigv4::Verified;
use longshore_wire::{Query, Request, RequestId};

const ACCOUNT: &str = "123456789012";
/// Rows in one piece of the manifest's body.
const PIECE_ROWS: u64 = 4_096;

/// A store whose one object is a manifest of so many rows, and which forgets what is written to it.
struct Rows(u64);

fn none() -> ObjectError {
    ObjectError { code: "NoSuchKey".into(), message: "none".into(), passing: false }
}

#[async_trait::async_trait]
impl Objects for Rows {
    async fn get(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectBody, ObjectError> {
        let rows = self.0;
        let pieces = futures::stream::iter((0..rows).step_by(PIECE_ROWS as usize)).map(move |first| {
            let mut text = String::new();
            for row in first..rows.min(first + PIECE_ROWS) {
                text.push_str(&format!("bucket,folder/{:04}/object-{row:012}.bin\n", row % 1_000));
            }
            Ok(Bytes::from(text))
        });
        Ok(ObjectBody { etag: "e".into(), size: None, stream: pieces.boxed() })
    }

    async fn put(&self, _: &str, _: &str, _: PutTerms<'_>, _: PutBody) -> Result<String, ObjectError> {
        Ok("e".into())
    }

    async fn list(&self, _: &str, _: &ListQuery) -> Result<ListPage, ObjectError> {
        Err(none())
    }

    async fn facts(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        Err(none())
    }

    async fn check_owner(&self, _: &str, _: &str) -> Result<(), ObjectError> {
        Ok(())
    }
}

/// Answers every task that it succeeded.
struct NoOp;

#[async_trait::async_trait]
impl Invoker for NoOp {
    async fn invoke(&self, _: &str, payload: Bytes) -> Reply {
        let event = String::from_utf8_lossy(&payload);
        let task = event.split_once("\"taskId\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let task = task.map_or("", |(task, _)| task);
        let answer = format!(r#"{{"results":[{{"taskId":"{task}","resultCode":"Succeeded","resultString":""}}]}}"#);
        Reply::Answer(answer.into())
    }

    fn slots(&self, _: &str) -> Option<u32> {
        Some(1_000)
    }
}

const REQUEST: &str = r#"<CreateJobRequest xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/">
 <ConfirmationRequired>true</ConfirmationRequired>
 <Operation><LambdaInvoke><FunctionArn>arn:aws:lambda:us-east-1:123456789012:function:f</FunctionArn></LambdaInvoke></Operation>
 <Report><Enabled>false</Enabled></Report><ClientRequestToken>t</ClientRequestToken>
 <Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format><Fields><member>Bucket</member><member>Key</member></Fields></Spec>
 <Location><ObjectArn>arn:aws:s3:::m/list.csv</ObjectArn><ETag>e</ETag></Location></Manifest>
 <Priority>1</Priority><RoleArn>arn:aws:iam::123456789012:role/r</RoleArn></CreateJobRequest>"#;

async fn send(jobs: &Jobs, method: &str, path: &str, query: &str, body: &str) -> String {
    let account = (http::HeaderName::from_static("x-amz-account-id"), http::HeaderValue::from_static(ACCOUNT));
    let request = Request {
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        query: Query::parse(Some(query)),
        headers: http::HeaderMap::from_iter([account]),
        body: Bytes::copy_from_slice(body.as_bytes()),
        caller: Verified::in_process(ACCOUNT),
        request_id: RequestId("r".into()),
    };
    String::from_utf8_lossy(&jobs.serve(request, None).await.body).into_owned()
}

async fn wait_for(jobs: &Jobs, id: &str, status: &str) -> Duration {
    let began = Instant::now();
    loop {
        let described = send(jobs, "GET", &format!("/v20180820/jobs/{id}"), "", "").await;
        if described.contains(&format!("<Status>{status}</Status>")) {
            return began.elapsed();
        }
        assert!(!described.contains("<Status>Failed</Status>"), "{described}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The most memory that this process ever had, in MiB. Source: `VmHWM` of proc(5).
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

async fn one(rows: u64) {
    let dir = std::env::temp_dir().join(format!("manifest-scale-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let fatal = Fatal::new();
    let records = Records::open(&dir.join("records.db"), &[SCHEMA], fatal.clone()).expect("a database");
    let settings = Settings::new(ACCOUNT, "us-east-1");
    let (objects, invoker) = (Arc::new(Rows(rows)), Arc::new(NoOp));
    let jobs = Jobs::open(records, dir.join("jobs"), fatal, settings, objects, invoker).await.expect("jobs");
    let created = send(&jobs, "POST", "/v20180820/jobs", "", REQUEST).await;
    let id = created.split_once("<JobId>").and_then(|(_, rest)| rest.split_once('<')).expect("an ID").0.to_owned();
    let prepared = wait_for(&jobs, &id, "Suspended").await;
    let peak = peak_mib();
    send(&jobs, "POST", &format!("/v20180820/jobs/{id}/status"), "requestedJobStatus=Ready", "").await;
    let ran = wait_for(&jobs, &id, "Complete").await;
    let rate = |time: Duration| rows as f64 / time.as_secs_f64();
    println!(
        "{rows} rows: prepared in {:.1} s ({:.0} rows/s, peak {peak} MiB), run in {:.1} s ({:.0} rows/s, peak {} MiB)",
        prepared.as_secs_f64(),
        rate(prepared),
        ran.as_secs_f64(),
        rate(ran),
        peak_mib()
    );
    jobs.shutdown().await;
    std::fs::remove_dir_all(dir).expect("the folder goes");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, rows] = arguments.as_slice()
        && flag == "--one"
    {
        let rows = rows.parse().expect("a number of rows");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(one(rows));
    }
    for rows in &arguments {
        let this = std::env::current_exe().expect("a path");
        let status = std::process::Command::new(this).args(["--one", rows]).status().expect("it starts");
        assert!(status.success(), "{rows} rows");
    }
}
