//! The engine with real state on disk and a pretend world behind its two doors.

mod beyond;
mod life;
mod roles;
mod servers;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use longshore_core::invocation::Reply;
use longshore_core::record::Entry;
use longshore_store::{Fatal, Records};
use longshore_wire::Caller;
use longshore_wire::{Query, Request, RequestId};
use tokio::sync::Semaphore;

use super::*;
use crate::Jobs;
use crate::ports::{
    Encryption, Invoker, ListPage, ListQuery, Listed, ObjectBody, ObjectError, ObjectFacts, Objects, PutBody, PutTerms,
};

mod store;

const ACCOUNT: &str = "123456789012";

/// The results of a job whose folder is below `dir`, on a ledger of their own.
pub(super) async fn log_in(dir: &std::path::Path, job_id: &str) -> recorder::Log {
    let fatal = Fatal::new();
    let records = Records::open(&dir.join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let settings = Arc::new(crate::Settings::new(ACCOUNT, "us-west-2"));
    let ledger = crate::ledger::Embedded::open(records, dir.to_owned(), fatal, settings).await.unwrap();
    recorder::Log { ledger: Arc::new(ledger), job_id: job_id.to_owned() }
}

/// Objects in memory, by `bucket/key`, whether the store is down, and with which encryption each object was put.
#[derive(Default)]
struct Shelf(
    Mutex<BTreeMap<String, Bytes>>,
    std::sync::atomic::AtomicBool,
    Mutex<BTreeMap<String, Encryption>>,
    Mutex<Option<&'static str>>,
    /// How many calls were refused.
    AtomicUsize,
);

impl Shelf {
    /// From now on every call is refused as by a store that is down, or served again.
    fn set_down(&self, down: bool) {
        self.1.store(down, Ordering::SeqCst);
    }

    /// [`Shelf::set_down`], with the code of each refusal.
    fn set_down_with(&self, code: &'static str) {
        *self.3.lock().unwrap() = Some(code);
        self.set_down(true);
    }

    fn check(&self) -> Result<(), ObjectError> {
        let code = self.3.lock().unwrap().unwrap_or("InternalError");
        let down = || ObjectError { code: code.into(), message: "down".into(), passing: true };
        if self.1.load(Ordering::SeqCst) {
            self.4.fetch_add(1, Ordering::SeqCst);
            return Err(down());
        }
        Ok(())
    }

    fn refused(&self) -> usize {
        self.4.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Objects for Shelf {
    async fn get(&self, bucket: &str, key: &str, _: Option<&str>) -> Result<ObjectBody, ObjectError> {
        self.check()?;
        let found = self.0.lock().unwrap().get(&format!("{bucket}/{key}")).cloned();
        let missing = || ObjectError { code: "NoSuchKey".into(), message: "none".into(), passing: false };
        let body = found.ok_or_else(missing)?;
        // In odd pieces, so that rows fall across them.
        let pieces: Vec<_> = body.chunks(7).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
        Ok(ObjectBody {
            etag: "\"e1\"".into(),
            size: None,
            tags: None,
            stream: Box::pin(futures::stream::iter(pieces)),
        })
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        self.check()?;
        if bucket == "denied" {
            return Err(ObjectError { code: "AccessDenied".into(), message: "no".into(), passing: false });
        }
        if bucket == "plain" && *terms.encryption != Encryption::Unasked {
            return Err(ObjectError { code: "NotImplemented".into(), message: "no keys".into(), passing: false });
        }
        let bytes = match body {
            PutBody::Bytes(bytes) => bytes,
            PutBody::File(path, length) => {
                let bytes = std::fs::read(path).unwrap();
                assert_eq!(bytes.len() as u64, length);
                bytes.into()
            }
        };
        self.0.lock().unwrap().insert(format!("{bucket}/{key}"), bytes);
        self.2.lock().unwrap().insert(format!("{bucket}/{key}"), terms.encryption.clone());
        Ok("\"e1\"".into())
    }

    fn report_encryption(&self, bucket: &str) -> Encryption {
        match bucket {
            "sealed" | "plain" => Encryption::SseKms { key_id: Some("reports".into()) },
            _ => Encryption::Unasked,
        }
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.check()?;
        let first = format!("{bucket}/{}", query.prefix);
        let names = self.0.lock().unwrap();
        let keys = names.keys().filter_map(|name| name.strip_prefix(&first)).map(|rest| query.prefix.clone() + rest);
        let objects = keys.map(|key| Listed {
            key,
            version_id: query.versions.then(|| "null".into()),
            is_latest: true,
            is_delete_marker: false,
            size: 1,
            modified_ms: 0,
            storage_class: "STANDARD".into(),
        });
        Ok(ListPage { objects: objects.collect(), next: None })
    }

    async fn facts(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        self.check().map(|()| ObjectFacts::default())
    }

    async fn check_owner(&self, bucket: &str, _: &str) -> Result<(), ObjectError> {
        self.check()?;
        match bucket {
            "denied" => Err(ObjectError { code: "AccessDenied".into(), message: "no".into(), passing: false }),
            _ => Ok(()),
        }
    }
}

/// A function that does as its key says, and can be held back.
struct Function {
    calls: Mutex<Vec<String>>,
    /// The task IDs it was sent, each with its key.
    ids: Mutex<Vec<(String, String)>>,
    running: AtomicUsize,
    gate: Semaphore,
    slots: u32,
    /// How often the slots were asked for.
    asked: AtomicUsize,
    /// Calls that panic from now on.
    defects: AtomicUsize,
    /// Calls that were announced: of which function, and how many at once.
    announced: Mutex<Vec<(String, u32)>>,
}

impl Function {
    fn new() -> Arc<Self> {
        let (calls, ids, running) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        let (gate, announced) = (Semaphore::new(Semaphore::MAX_PERMITS), Mutex::default());
        let (asked, defects) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { calls, ids, running, gate, slots: 4, asked, defects, announced })
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Invoker for Function {
    async fn invoke(&self, _: &str, payload: Bytes) -> Reply {
        let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let task = &event["tasks"][0];
        let key = task["s3Key"].as_str().unwrap().to_owned();
        let left = self.defects.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "a defect");
        self.calls.lock().unwrap().push(key.clone());
        self.ids.lock().unwrap().push((key.clone(), task["taskId"].as_str().unwrap().to_owned()));
        assert!(self.running.fetch_add(1, Ordering::SeqCst) < self.slots as usize, "more at once than allowed");
        self.gate.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        let code = if key.starts_with("bad") { "PermanentFailure" } else { "Succeeded" };
        let body =
            serde_json::json!({"results": [{"taskId": task["taskId"], "resultCode": code, "resultString": key}]});
        Reply::Answer(body.to_string().into())
    }

    fn slots(&self, _: &str) -> Option<u32> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Some(self.slots)
    }

    fn prepare(&self, function: &str, wanted: u32) {
        self.announced.lock().unwrap().push((function.to_owned(), wanted));
    }
}

struct World {
    dir: tempfile::TempDir,
    shelf: Arc<Shelf>,
    function: Arc<Function>,
    jobs: Jobs,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
        let jobs = open(dir.path(), &shelf, &function).await;
        Self { dir, shelf, function, jobs }
    }

    /// Stops the server in order, letting what is in flight go one by one.
    async fn stop(&self) {
        let jobs = self.jobs.clone();
        let stop = tokio::spawn(async move { jobs.shutdown().await });
        while !stop.is_finished() {
            if self.function.running.load(Ordering::SeqCst) > 0 && self.function.gate.available_permits() == 0 {
                self.function.gate.add_permits(1);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Stops the server in order and starts it again.
    async fn restart(&mut self) {
        self.jobs.shutdown().await;
        self.jobs = open(self.dir.path(), &self.shelf, &self.function).await;
    }

    fn manifest(&self, rows: &[String]) {
        let text = rows.iter().map(|key| format!("b,{key}\n")).collect::<String>();
        self.shelf.0.lock().unwrap().insert("m/list.csv".into(), text.into());
    }

    async fn send(&self, method: &str, path: &str, query: &str, body: &str) -> (u16, String) {
        let request = Request {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: Query::parse(Some(query)),
            headers: http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-amz-account-id"),
                http::HeaderValue::from_static(ACCOUNT),
            )]),
            body: Bytes::copy_from_slice(body.as_bytes()),
            caller: Caller::in_process(ACCOUNT),
            request_id: RequestId("r".into()),
        };
        let response = match path.starts_with("/_longshore/") {
            true => self.jobs.serve_own(request, None).await,
            false => self.jobs.serve(request, None).await,
        };
        (response.status.as_u16(), String::from_utf8(response.body.to_vec()).unwrap())
    }

    async fn create(&self, change: impl Fn(String) -> String) -> String {
        let body = crate::shape::tests::SAMPLE
            .replace("<member>VersionId</member>", "")
            .replace("m/a b.csv", "m/list.csv")
            .replace("\"60e460c9d1046e73f7dde5043ac3ae85\"", "\"e1\"");
        let (status, answer) = self.send("POST", "/v20180820/jobs", "", &change(body)).await;
        assert_eq!(status, 200, "{answer}");
        between(&answer, "<JobId>", "</JobId>")
    }

    async fn describe(&self, id: &str) -> String {
        let (status, answer) = self.send("GET", &format!("/v20180820/jobs/{id}"), "", "").await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn wait_for(&self, id: &str, status: &str) -> String {
        for _ in 0..2_000 {
            let answer = self.describe(id).await;
            if answer.contains(&format!("<Status>{status}</Status>")) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the job never became {status}: {}", self.describe(id).await);
    }

    fn report(&self, id: &str) -> Vec<String> {
        let shelf = self.shelf.0.lock().unwrap();
        let manifest = &shelf[&format!("r/p/job-{id}/manifest.json")];
        assert_eq!(
            shelf[&format!("r/p/job-{id}/manifest.json.md5")],
            hex::encode(<md5::Md5 as md5::Digest>::digest(manifest))
        );
        let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        let mut rows = Vec::new();
        for result in manifest["Results"].as_array().unwrap() {
            let csv = &shelf[&format!("r/{}", result["Key"].as_str().unwrap())];
            assert_eq!(result["MD5Checksum"], hex::encode(<md5::Md5 as md5::Digest>::digest(csv)));
            rows.extend(std::str::from_utf8(csv).unwrap().lines().map(str::to_owned));
        }
        rows.sort();
        rows
    }
}

async fn open(dir: &std::path::Path, shelf: &Arc<Shelf>, function: &Arc<Function>) -> Jobs {
    open_with(dir, shelf, function, Fatal::new()).await
}

async fn open_with(dir: &std::path::Path, shelf: &Arc<Shelf>, function: &Arc<Function>, fatal: Fatal) -> Jobs {
    let records = Records::open(&dir.join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let mut settings = crate::Settings::new(ACCOUNT, "us-west-2");
    settings.run.retry.redrive.base_ms = 2;
    let (shelf, function) = (Arc::clone(shelf) as Arc<dyn Objects>, Arc::clone(function) as Arc<dyn Invoker>);
    Jobs::open(records, dir.join("jobs"), fatal, settings, shelf, function).await.unwrap()
}

fn between(text: &str, from: &str, to: &str) -> String {
    let start = text.find(from).unwrap() + from.len();
    text[start..start + text[start..].find(to).unwrap()].to_owned()
}

fn keys(n: usize) -> Vec<String> {
    (0..n).map(|i| if i % 10 == 3 { format!("bad-{i}") } else { format!("key-{i}") }).collect()
}

async fn figures(world: &World, id: &str) -> serde_json::Value {
    let (status, answer) = world.send("GET", &format!("/_longshore/v1/jobs/{id}/figures"), "", "").await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test]
async fn what_a_job_has_counted_is_seen_while_it_runs_and_kept_when_it_pauses_and_when_it_is_over() {
    let mut world = World::new().await;
    world.manifest(&keys(50));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.function.gate.add_permits(20);
    let totals = |world: &World| {
        let (totals, depths, waiting) = world.jobs.engine.total();
        (totals.succeeded + totals.failed, totals.figures.tasks.count(), depths.in_flight, waiting)
    };
    for _ in 0..2_000 {
        if totals(&world).0 == 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(totals(&world), (20, 20, 4, 0), "twenty are over, four run");
    let seen = figures(&world, &id).await;
    assert_eq!((&seen["taskDuration"]["count"], &seen["tasks"]["inFlight"]), (&20.into(), &4.into()));
    assert_eq!((&seen["tasks"]["ready"], &seen["secondsLeft"]), (&26.into(), &serde_json::Value::Null));
    assert_eq!(world.jobs.metrics().await.unwrap().jobs.iter().map(|(_, jobs)| jobs).sum::<u64>(), 1);
    // A server that is stopped keeps what the run has counted, and the next one goes on from there.
    world.stop().await;
    world.function.gate.add_permits(50);
    world.jobs = open(world.dir.path(), &world.shelf, &world.function).await;
    world.wait_for(&id, "Complete").await;
    let seen = figures(&world, &id).await;
    assert_eq!((&seen["taskDuration"]["count"], &seen["attemptDuration"]["count"]), (&50.into(), &50.into()));
    assert_eq!((&seen["invocations"]["succeeded"], &seen["tasks"]), (&50.into(), &serde_json::Value::Null));
    assert_eq!(seen["coldStartDuration"]["count"], 0, "this function counts none");
    let since = totals(&world);
    assert!(since.0 == since.1 && (20..=30).contains(&since.0), "of this server's time alone: {since:?}");
    let census = world.jobs.ledger.census().await.unwrap();
    assert_eq!((census.jobs, census.deliveries_owed), (vec![(longshore_core::job::Status::Complete, 1)], 0));
    world.restart().await;
    assert_eq!(figures(&world, &id).await, seen);
    let (status, _) = world.send("GET", "/_longshore/v1/jobs/none/figures", "", "").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_job_runs_to_its_end_and_reports_every_row_once() {
    let world = World::new().await;
    world.manifest(&keys(2_500));
    let id = world.create(|b| b).await;
    let described = world.wait_for(&id, "Complete").await;
    assert!(described.contains("<TotalNumberOfTasks>2500</TotalNumberOfTasks>"), "{described}");
    assert!(described.contains("<NumberOfTasksSucceeded>2250</NumberOfTasksSucceeded>"), "{described}");
    assert!(described.contains("<NumberOfTasksFailed>250</NumberOfTasksFailed>"), "{described}");
    let mut wanted: Vec<_> = keys(2_500)
        .into_iter()
        .map(|k| match k.starts_with("bad") {
            true => format!("b,{k},,failed,200,PermanentFailure,{k}"),
            false => format!("b,{k},,succeeded,200,,{k}"),
        })
        .collect();
    wanted.sort();
    assert_eq!(world.report(&id), wanted);
    assert_eq!(world.function.calls().len(), 2_500);
}

#[tokio::test]
async fn a_job_with_short_calls_asks_for_its_slots_as_often_as_they_may_change() {
    let world = World::new().await;
    world.manifest(&(0..5_000).map(|n| format!("k{n}")).collect::<Vec<_>>());
    let id = world.create(|body| body).await;
    world.wait_for(&id, "Complete").await;
    // By the clock alone it would have taken that many times 200 ms.
    let asked = world.function.asked.load(Ordering::SeqCst);
    assert!(asked >= 15, "{asked} times");
}

#[tokio::test]
async fn a_stop_and_a_start_in_the_middle_repeat_nothing() {
    let mut world = World::new().await;
    world.manifest(&keys(300));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    for round in 1..=5 {
        world.wait_for(&id, "Active").await;
        // Twenty tasks end; then the server stops while four are in flight, and these are let go.
        world.function.gate.add_permits(20);
        while world.function.calls().len() < 20 * round {
            tokio::task::yield_now().await;
        }
        world.stop().await;
        world.restart().await;
    }
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.wait_for(&id, "Complete").await;
    let mut calls = world.function.calls();
    calls.sort();
    let mut wanted = keys(300);
    wanted.sort();
    assert_eq!(calls, wanted);
    assert_eq!(world.report(&id).len(), 300);
}

#[tokio::test]
async fn after_a_cancel_is_answered_nothing_more_starts() {
    let world = World::new().await;
    world.manifest(&keys(300));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    while world.function.calls().len() < 4 {
        tokio::task::yield_now().await;
    }
    let path = format!("/v20180820/jobs/{id}/status");
    let (status, answer) =
        world.send("POST", &path, "requestedJobStatus=Cancelled&statusUpdateReason=enough", "").await;
    assert_eq!(status, 200);
    assert!(answer.contains("<Status>Cancelling</Status>"), "{answer}");
    world.function.gate.add_permits(1_000);
    let described = world.wait_for(&id, "Cancelled").await;
    assert_eq!(world.function.calls().len(), 4);
    assert!(described.contains("<StatusUpdateReason>enough</StatusUpdateReason>"));
    assert_eq!(world.report(&id).len(), 4, "rows that were never started are not in the report");
    let (status, answer) = world.send("POST", &path, "requestedJobStatus=Cancelled", "").await;
    assert_eq!((status, answer.contains("<Status>Cancelled</Status>")), (200, true), "a cancel may be repeated");
}

#[tokio::test]
async fn once_state_cannot_be_made_durable_nothing_more_starts_and_nobody_waits_for_the_engine() {
    let (dir, shelf, function) = (tempfile::tempdir().unwrap(), Arc::new(Shelf::default()), Function::new());
    let fatal = Fatal::new();
    let jobs = open_with(dir.path(), &shelf, &function, fatal.clone()).await;
    let world = World { dir, shelf, function, jobs };
    world.manifest(&keys(300));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    while world.function.calls().len() < 4 {
        tokio::task::yield_now().await;
    }
    fatal.throw("a test says so");
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    world.jobs.shutdown().await;
    assert_eq!(world.function.calls().len(), 4);
}

#[tokio::test]
async fn two_jobs_of_one_function_share_its_slots_and_a_cancel_calls_off_what_waits_for_one() {
    let world = World::new().await;
    world.manifest(&keys(20));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let first = world.create(|b| b).await;
    world.wait_for(&first, "Active").await;
    while world.function.calls().len() < 4 {
        tokio::task::yield_now().await;
    }
    let second = world.create(|b| b.replace("tok-1", "tok-2")).await;
    world.wait_for(&second, "Active").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let path = format!("/v20180820/jobs/{second}/status");
    assert_eq!(world.send("POST", &path, "requestedJobStatus=Cancelled", "").await.0, 200);
    let described = world.wait_for(&second, "Cancelled").await;
    assert!(described.contains("<NumberOfTasksFailed>0</NumberOfTasksFailed>"), "{described}");
    assert_eq!(world.function.calls().len(), 4);
    let reported = world.shelf.0.lock().unwrap().keys().any(|key| key.contains(&second));
    assert!(!reported, "a job none of whose tasks was invoked has no report");
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.wait_for(&first, "Complete").await;
    // The function itself sees to it that never more than four run.
    let third = world.create(|b| b.replace("tok-1", "tok-3")).await;
    let fourth = world.create(|b| b.replace("tok-1", "tok-4")).await;
    for id in [third, fourth] {
        world.wait_for(&id, "Complete").await;
        assert_eq!(world.report(&id).len(), 20);
    }
}

#[tokio::test]
async fn a_job_waits_to_be_confirmed_and_then_runs() {
    let world = World::new().await;
    world.manifest(&keys(3));
    let id = world.create(|b| b.replace("<ConfirmationRequired>false", "<ConfirmationRequired>true")).await;
    world.wait_for(&id, "Suspended").await;
    assert!(world.function.calls().is_empty() && world.function.announced.lock().unwrap().is_empty());
    let path = format!("/v20180820/jobs/{id}/status");
    let (_, answer) = world.send("POST", &path, "requestedJobStatus=Ready", "").await;
    assert!(answer.contains("<Status>Ready</Status>"), "{answer}");
    let described = world.wait_for(&id, "Complete").await;
    assert!(described.contains("<SuspendedCause>AWAITING_CONFIRMATION</SuspendedCause>"));
    let (status, answer) = world.send("POST", &path, "requestedJobStatus=Ready", "").await;
    assert_eq!((status, answer.contains("Requested job status forbidden")), (400, true));
    // Its function was told when it became Active, of no more calls than can run at once.
    let function = "arn:aws:lambda:us-west-2:123456789012:function:f:PROD".to_owned();
    assert_eq!(*world.function.announced.lock().unwrap(), [(function, 4)]);
}

#[tokio::test]
async fn a_job_that_nobody_confirms_in_time_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
    let fatal = Fatal::new();
    let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let settings = crate::Settings { confirmation_ms_max: -1, ..crate::Settings::new(ACCOUNT, "us-west-2") };
    let (objects, invoker) = (Arc::clone(&shelf) as Arc<dyn Objects>, Arc::clone(&function) as Arc<dyn Invoker>);
    let jobs = Jobs::open(records, dir.path().join("jobs"), fatal, settings, objects, invoker).await.unwrap();
    let world = World { dir, shelf, function, jobs };
    world.manifest(&keys(3));
    let id = world.create(|b| b.replace("<ConfirmationRequired>false", "<ConfirmationRequired>true")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("<FailureCode>ConfirmationTimeout</FailureCode>"), "{described}");
    assert!(world.function.calls().is_empty());
}

#[tokio::test]
async fn a_bad_manifest_fails_the_job_with_the_documented_reason() {
    let world = World::new().await;
    for (text, etag, code, reason) in [
        ("b,k\nb\n", "e1", "InvalidManifestContent", "Unexpected number of task fields"),
        ("b,k\n\n", "e1", "InvalidManifestContent", "Manifest file is not properly formatted"),
        ("\u{feff}b,k\n", "e1", "InvalidManifestContent", "Manifest file is not properly formatted"),
        ("\u{1f}\u{8}\u{0}", "e1", "InvalidManifestContent", "Unexpected number of task fields"),
        ("b,100%.txt\n", "e1", "InvalidManifestContent", "Invalid object key format"),
        ("", "e1", "InvalidManifestContent", "The manifest has no rows"),
        ("b,k\n", "other", "ManifestETagMismatch", "it has changed"),
        ("b,k\n", "e 1", "InvalidManifestContent", "ETag format is invalid"),
    ] {
        world.shelf.0.lock().unwrap().insert("m/list.csv".into(), text.into());
        let id = world.create(|b| b.replace("tok-1", &uuid::Uuid::new_v4().to_string()).replace("e1", etag)).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains(&format!("<FailureCode>{code}</FailureCode>")), "{described}");
        assert!(described.contains(reason), "{described}");
        assert!(described.contains("<TotalNumberOfTasks>0</TotalNumberOfTasks>"));
    }
    let missing = world.create(|b| b.replace("m/list.csv", "m/nothing.csv").replace("tok-1", "tok-2")).await;
    let described = world.wait_for(&missing, "Failed").await;
    assert!(described.contains("Reading the manifest failed: NoSuchKey"), "{described}");
}

#[tokio::test]
async fn a_report_that_is_not_taken_fails_a_job_all_of_whose_tasks_ran() {
    let world = World::new().await;
    world.manifest(&keys(3));
    let id = world.create(|b| b.replace("arn:aws:s3:::r<", "arn:aws:s3:::denied<")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("The job report could not be written"), "{described}");
    assert!(described.contains("<NumberOfTasksSucceeded>3</NumberOfTasksSucceeded>"), "{described}");
}

#[tokio::test]
async fn too_many_failures_fail_the_job_and_are_reported() {
    let world = World::new().await;
    world.manifest(&(0..3_000).map(|i| format!("bad-{i}")).collect::<Vec<_>>());
    let id = world.create(|b| b).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("TaskFailureThresholdExceeded"), "{described}");
    let rows = world.report(&id).len();
    assert!((1_000..1_010).contains(&rows), "{rows}");
    assert_eq!(world.function.calls().len(), rows);
}

#[tokio::test]
async fn of_two_jobs_that_run_at_once_the_calls_of_the_higher_priority_go_first_and_a_raised_one_counts() {
    let world = World::new().await;
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let called = || world.function.calls.lock().unwrap().len();
    let until = async |all: usize| {
        for _ in 0..2_000 {
            if called() == all {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} calls instead of {all}", called());
    };
    let rows = |name: &str| (0..60).map(|i| format!("{name}-{i}")).collect::<Vec<_>>();
    let of = |priority: u32, token: &'static str| {
        move |body: String| body.replace("tok-1", token).replace("<Priority>42", &format!("<Priority>{priority}"))
    };
    world.manifest(&rows("low"));
    let low = world.create(of(5, "low")).await;
    until(4).await;
    world.manifest(&rows("high"));
    let high = world.create(of(7, "high")).await;
    world.wait_for(&high, "Active").await;
    // How many of the next calls are of the job with the higher number.
    let next = async |calls: usize| {
        let before = called();
        for more in 1..=calls {
            world.function.gate.add_permits(1);
            until(before + more).await;
        }
        world.function.calls()[before..].iter().filter(|key| key.starts_with("high")).count()
    };
    // Its calls come to the gate, when that may be; then hardly another gets in before they do.
    for _ in 0..20 {
        if next(1).await == 1 {
            break;
        }
    }
    let share = next(20).await;
    assert!(share >= 16, "{share} of 20");
    let raised = world.send("POST", &format!("/v20180820/jobs/{low}/priority"), "priority=9", "").await;
    assert_eq!(raised.0, 200);
    next(12).await;
    let share = next(20).await;
    assert!(share <= 4, "{share} of 20, after the other was raised");
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.wait_for(&low, "Complete").await;
    world.wait_for(&high, "Complete").await;
}

#[tokio::test]
async fn a_job_of_higher_priority_takes_the_slot_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
    function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let fatal = Fatal::new();
    let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let settings = crate::Settings { active_slots: 1, ..crate::Settings::new(ACCOUNT, "us-west-2") };
    let jobs = Jobs::open(
        records,
        dir.path().join("jobs"),
        fatal,
        settings,
        Arc::clone(&shelf) as Arc<dyn Objects>,
        Arc::clone(&function) as Arc<dyn Invoker>,
    )
    .await
    .unwrap();
    let world = World { dir, shelf, function, jobs };
    world.manifest(&keys(50));
    let low = world.create(|b| b).await;
    world.wait_for(&low, "Active").await;
    let high = world.create(|b| b.replace("tok-1", "tok-2").replace("<Priority>42", "<Priority>43")).await;
    world.wait_for(&low, "Pausing").await;
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.wait_for(&high, "Complete").await;
    world.wait_for(&low, "Complete").await;
    assert_eq!(world.function.calls().len(), 100);
    assert_eq!(world.report(&low).len(), 50);
}

#[tokio::test]
async fn a_result_log_with_fewer_results_than_were_noted_fails_its_job() {
    let mut world = World::new().await;
    world.manifest(&keys(3_000));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    world.function.gate.add_permits(2_000);
    while world.function.calls().len() < 2_004 {
        tokio::task::yield_now().await;
    }
    // What has been recorded by now is noted as the server stops.
    world.stop().await;
    let path = world.dir.path().join("jobs").join(&id).join("results/00000001.seg");
    let bytes = std::fs::read(&path).unwrap();
    let longshore_store::segment::Step::Frame(_, first) = longshore_store::segment::step(&bytes[8..]) else {
        panic!("a log begins with a whole frame")
    };
    // Whole frames alone: no checksum says that others followed.
    std::fs::write(&path, &bytes[..8 + first]).unwrap();
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.restart().await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("StateDamaged") && described.contains("noted are"), "{described}");
}

#[tokio::test]
async fn a_damaged_result_log_fails_its_job_and_no_other() {
    let mut world = World::new().await;
    world.manifest(&keys(3_000));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    world.function.gate.add_permits(2_000);
    while world.function.calls().len() < 2_004 {
        tokio::task::yield_now().await;
    }
    world.stop().await;
    let path = world.dir.path().join("jobs").join(&id).join("results/00000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.restart().await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("StateDamaged"), "{described}");
    let other = world.create(|b| b.replace("tok-1", "tok-2")).await;
    world.wait_for(&other, "Complete").await;
}

#[tokio::test]
async fn a_manifest_that_a_store_refuses_to_give_for_long_fails_its_job() {
    let world = World::new().await;
    world.shelf.set_down(true);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Preparing").await;
    while world.shelf.refused() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Only while nothing is written: the records' thread knows nothing of this clock.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    assert!(world.describe(&id).await.contains("<Status>Preparing</Status>"), "a short trouble is waited for");
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    tokio::time::resume();
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("Reading the manifest failed: InternalError"), "{described}");
}

#[tokio::test]
async fn results_that_cannot_be_written_for_the_moment_are_written_later_and_nothing_is_called_again() {
    let world = World::new().await;
    world.manifest(&keys(30));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    while world.function.calls().len() < 4 {
        tokio::task::yield_now().await;
    }
    // No segment can be begun in a folder that is away, as none can when too many files are open.
    let folder = world.dir.path().join("jobs").join(&id).join("results");
    std::fs::remove_dir(&folder).unwrap();
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    while world.function.calls().len() < 30 {
        tokio::task::yield_now().await;
    }
    std::fs::create_dir(&folder).unwrap();
    world.wait_for(&id, "Complete").await;
    assert_eq!((world.report(&id).len(), world.function.calls().len()), (30, 30));
}

#[tokio::test]
async fn a_job_whose_agent_panics_gets_another_one_after_a_while() {
    let world = World::new().await;
    world.manifest(&keys(3));
    world.function.defects.store(1, Ordering::SeqCst);
    let id = world.create(|b| b).await;
    while world.function.defects.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(16)).await;
    tokio::time::resume();
    world.wait_for(&id, "Complete").await;
    assert_eq!(world.report(&id).len(), 3);
}

/// A job whose tasks have run, and whose report's store refuses with `code` by then.
async fn unreported(code: &'static str) -> (World, String) {
    let world = World::new().await;
    world.manifest(&keys(3));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    while world.function.calls().len() < 3 {
        tokio::task::yield_now().await;
    }
    world.shelf.set_down_with(code);
    world.function.gate.add_permits(3);
    world.wait_for(&id, "Completing").await;
    // Until nothing is left to be written on the way to the store: the records' thread knows nothing of this clock.
    while world.shelf.refused() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::pause();
    (world, id)
}

#[tokio::test]
async fn a_store_that_refuses_a_report_for_long_fails_the_job_whatever_it_calls_that() {
    for code in ["ServiceUnavailable", "SlowDown", "InternalError"] {
        let (world, id) = unreported(code).await;
        tokio::time::sleep(Duration::from_secs(10 * 60)).await;
        assert!(world.describe(&id).await.contains("<Status>Completing</Status>"), "a short trouble is waited for");
        tokio::time::sleep(Duration::from_secs(10 * 60)).await;
        tokio::time::resume();
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains("ReportDeliveryFailed") && described.contains(code), "{described}");
    }
}

#[tokio::test]
async fn a_full_disk_of_our_own_is_waited_for_and_fails_no_report() {
    let (world, id) = unreported(ObjectError::DISK_FULL).await;
    tokio::time::sleep(Duration::from_secs(3 * 60 * 60)).await;
    tokio::time::resume();
    assert!(world.describe(&id).await.contains("<Status>Completing</Status>"));
    world.shelf.set_down(false);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::resume();
    world.wait_for(&id, "Complete").await;
}

#[tokio::test]
async fn a_cancel_while_the_manifest_cannot_be_read_is_answered_and_ends_the_job() {
    let world = World::new().await;
    world.shelf.set_down(true);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Preparing").await;
    let path = format!("/v20180820/jobs/{id}/status");
    let (status, _) = world.send("POST", &path, "requestedJobStatus=Cancelled", "").await;
    assert_eq!(status, 200);
    world.wait_for(&id, "Cancelled").await;
}

#[tokio::test]
async fn a_server_stops_though_a_report_cannot_be_written_and_writes_it_after_the_next_start() {
    let mut world = World::new().await;
    world.manifest(&keys(3));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    world.shelf.set_down(true);
    world.function.gate.add_permits(3);
    world.wait_for(&id, "Completing").await;
    tokio::time::timeout(Duration::from_secs(5), world.jobs.shutdown()).await.expect("it stops");
    world.shelf.set_down(false);
    world.restart().await;
    world.wait_for(&id, "Complete").await;
    assert_eq!(world.report(&id).len(), 3);
}

#[tokio::test]
async fn a_job_whose_folder_cannot_be_used_goes_on_once_it_can() {
    let world = World::new().await;
    world.manifest(&keys(30));
    let jobs = world.dir.path().join("jobs");
    std::fs::write(&jobs, "in the way").unwrap();
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Preparing").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_file(&jobs).unwrap();
    world.wait_for(&id, "Complete").await;
    assert_eq!(world.report(&id).len(), 30);
}

#[tokio::test]
async fn nothing_but_its_results_is_kept_of_a_job_that_is_over() {
    let mut world = World::new().await;
    world.manifest(&keys(3));
    let jobs = world.dir.path().join("jobs");
    let left = |id: &str| {
        let entries = std::fs::read_dir(jobs.join(id)).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().into_string().unwrap()).filter(|n| n != "results").collect::<Vec<_>>()
    };
    let waits = |b: String| b.replace("<ConfirmationRequired>false", "<ConfirmationRequired>true");
    let cancelled = world.create(waits).await;
    world.wait_for(&cancelled, "Suspended").await;
    let (status, _) =
        world.send("POST", &format!("/v20180820/jobs/{cancelled}/status"), "requestedJobStatus=Cancelled", "").await;
    assert_eq!((status, left(&cancelled)), (200, vec![]), "cancelled before it ran");
    let complete = world.create(|b| b.replace("tok-1", "tok-2")).await;
    world.wait_for(&complete, "Complete").await;
    assert_eq!(left(&complete), [""; 0], "complete");
    let denied = world.create(|b| b.replace("tok-1", "tok-3").replace("arn:aws:s3:::r<", "arn:aws:s3:::denied<")).await;
    world.wait_for(&denied, "Failed").await;
    assert_eq!(left(&denied), [""; 0], "failed by its report");
    world.manifest(&["fine".into(), "100%.txt".into()]);
    let failed = world.create(|b| b.replace("tok-1", "tok-4")).await;
    world.wait_for(&failed, "Failed").await;
    assert_eq!(left(&failed), [""; 0], "failed by its manifest");
    // As a crash between the last step and the cleaning would have left it.
    std::fs::write(jobs.join(&complete).join("manifest.csv"), "b,k\n").unwrap();
    world.restart().await;
    while !left(&complete).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_counts_of_a_job_that_was_killed_while_pausing_do_not_go_back() {
    let mut world = World::new().await;
    world.manifest(&keys(100));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    world.function.gate.add_permits(20);
    while world.function.calls().len() < 24 {
        tokio::task::yield_now().await;
    }
    world.stop().await;
    let ran = world.function.calls().len();
    // What a kill would have left: the status is durable at once, the counts only every few seconds.
    let db = rusqlite::Connection::open(world.dir.path().join("records.db")).unwrap();
    db.execute("UPDATE job SET status = 'Pausing', succeeded = 0, failed = 0", []).unwrap();
    drop(db);
    world.restart().await;
    let described = world.describe(&id).await;
    let count = |name: &str| between(&described, &format!("<{name}>"), "<").parse::<usize>().unwrap();
    assert_eq!(count("NumberOfTasksSucceeded") + count("NumberOfTasksFailed"), ran, "{described}");
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.wait_for(&id, "Complete").await;
    assert_eq!((world.report(&id).len(), world.function.calls().len()), (100, 100));
}

#[tokio::test]
async fn a_pinned_manifest_that_is_lost_fails_its_job_and_what_ran_is_reported_and_counted() {
    let mut world = World::new().await;
    world.manifest(&keys(300));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    world.function.gate.add_permits(20);
    while world.function.calls().len() < 24 {
        tokio::task::yield_now().await;
    }
    world.stop().await;
    let ran = world.function.calls().len();
    std::fs::remove_file(world.dir.path().join("jobs").join(&id).join("manifest.csv")).unwrap();
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.restart().await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("manifest.csv is missing"), "{described}");
    let count = |name: &str| between(&described, &format!("<{name}>"), "<").parse::<usize>().unwrap();
    assert_eq!(count("NumberOfTasksSucceeded") + count("NumberOfTasksFailed"), ran);
    assert_eq!(world.report(&id).len(), ran);
}

#[tokio::test]
async fn a_result_log_with_rows_missing_makes_no_report() {
    let mut world = World::new().await;
    world.manifest(&keys(3));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Active").await;
    world.shelf.set_down(true);
    world.function.gate.add_permits(3);
    world.wait_for(&id, "Completing").await;
    world.jobs.shutdown().await;
    let segment = world.dir.path().join("jobs").join(&id).join("results/00000001.seg");
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    world.shelf.set_down(false);
    world.restart().await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("StateDamaged") && described.contains(" of 3 rows"), "{described}");
    assert!(!world.shelf.0.lock().unwrap().keys().any(|key| key.starts_with("r/")));
}

#[test]
fn entries_of_one_batch_fit_into_one_frame() {
    let task = longshore_core::task::Task {
        row: u64::MAX,
        number: 0,
        bucket: "b".repeat(longshore_core::manifest::BUCKET_BYTES_MAX).into(),
        key: "k".repeat(longshore_core::manifest::RAW_KEY_BYTES_MAX).into(),
        version: longshore_core::task::VersionId::Given("v".repeat(1_024).into()),
    };
    let outcome = longshore_core::task::Outcome::failed(200, "\u{1F600}".repeat(200), "\u{1F600}".repeat(2_000));
    let mut bytes = Vec::new();
    Entry::Settled { task: Arc::new(task), attempts: 5, outcome }.encode(&mut bytes);
    // The last one begins before the batch is full.
    assert!(longshore_core::run::BATCH_BYTES_MAX - 1 + bytes.len() <= longshore_store::segment::PAYLOAD_MAX);
}

mod inventories;
mod sources;
