//! What a job may ask for beyond AWS: a sample first, an early start.

use futures::StreamExt;
use tokio::sync::watch;

use super::*;

pub(super) fn tagged(body: &str, tag: &str, value: &str) -> String {
    body.replace("<Key>a</Key><Value />", &format!("<Key>{tag}</Key><Value>{value}</Value>"))
}

fn confirmed(body: &str) -> String {
    body.replace("<ConfirmationRequired>false", "<ConfirmationRequired>true")
}

fn count(described: &str, name: &str) -> u64 {
    between(described, &format!("<{name}>"), &format!("</{name}>")).parse().unwrap()
}

async fn ask(world: &World, id: &str, status: &str) -> String {
    let query = format!("requestedJobStatus={status}");
    let (code, answer) = world.send("POST", &format!("/v20180820/jobs/{id}/status"), &query, "").await;
    assert_eq!(code, 200, "{answer}");
    answer
}

fn assert_once(world: &World, wanted: &[String]) {
    let (mut calls, mut wanted) = (world.function.calls(), wanted.to_vec());
    calls.sort();
    wanted.sort();
    assert_eq!(calls, wanted);
}

#[tokio::test]
async fn a_sample_runs_first_and_the_rest_once_it_is_confirmed() {
    let mut world = World::new().await;
    world.manifest(&keys(2_500));
    let id = world.create(|b| tagged(&b, "longshore:sample", "20")).await;
    let described = world.wait_for(&id, "Suspended").await;
    assert!(described.contains("<SuspendedCause>AWAITING_PROMOTION</SuspendedCause>"), "{described}");
    assert_eq!(count(&described, "TotalNumberOfTasks"), 2_500);
    assert_eq!(count(&described, "NumberOfTasksSucceeded") + count(&described, "NumberOfTasksFailed"), 20);
    let sampled = world.function.calls();
    assert_eq!(sampled.len(), 20);
    let (_, results) = world.send("GET", &format!("/_longshore/v1/jobs/{id}/results"), "", "").await;
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    let bad = sampled.iter().filter(|key| key.starts_with("bad")).count();
    assert_eq!(
        (&results["numberOfTasksFailed"], &results["numberOfTasksSucceeded"]),
        (&bad.into(), &(20 - bad).into())
    );
    assert_eq!(results["failureGroups"].as_array().unwrap().len(), bad, "each has a message of its own");
    for group in results["failureGroups"].as_array().unwrap() {
        assert_eq!((&group["errorCode"], &group["numberOfTasks"]), (&"PermanentFailure".into(), &1.into()));
        assert_eq!(group["example"]["key"], group["resultMessage"]);
    }
    world.restart().await;
    assert!(world.describe(&id).await.contains("<Status>Suspended</Status>"), "a restart promotes nothing");
    assert_eq!(world.function.calls(), sampled);
    assert!(ask(&world, &id, "Ready").await.contains("<Status>Ready</Status>"));
    world.wait_for(&id, "Complete").await;
    assert_once(&world, &keys(2_500));
    assert_eq!(world.report(&id).len(), 2_500);
}

#[tokio::test]
async fn a_sample_that_is_interrupted_goes_on_with_the_same_rows() {
    let mut world = World::new().await;
    world.manifest(&keys(300));
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| tagged(&b, "longshore:sample", "40")).await;
    for round in 1..=2 {
        world.wait_for(&id, "Active").await;
        world.function.gate.add_permits(10);
        while world.function.calls().len() < 10 * round {
            tokio::task::yield_now().await;
        }
        world.stop().await;
        world.restart().await;
    }
    world.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    world.wait_for(&id, "Suspended").await;
    let mut calls = world.function.calls();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), 40);
    let drawn = sample::draw(&id, 300, 40).unwrap();
    let mut wanted: Vec<_> = drawn.iter().map(|row| keys(300)[row as usize].clone()).collect();
    wanted.sort();
    assert_eq!(calls, wanted);
}

#[tokio::test]
async fn a_sample_that_is_cancelled_or_not_confirmed_in_time_is_reported() {
    let world = World::new().await;
    world.manifest(&keys(300));
    let id = world.create(|b| tagged(&b, "longshore:sample", "20")).await;
    world.wait_for(&id, "Suspended").await;
    assert!(ask(&world, &id, "Cancelled").await.contains("<Status>Cancelling</Status>"));
    world.wait_for(&id, "Cancelled").await;
    assert_eq!((world.report(&id).len(), world.function.calls().len()), (20, 20));

    let dir = tempfile::tempdir().unwrap();
    let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
    let fatal = Fatal::new();
    let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let settings = crate::Settings { confirmation_ms_max: -1, ..crate::Settings::new(ACCOUNT, "us-west-2") };
    let (objects, invoker) = (Arc::clone(&shelf) as Arc<dyn Objects>, Arc::clone(&function) as Arc<dyn Invoker>);
    let jobs = Jobs::open(records, dir.path().join("jobs"), fatal, settings, objects, invoker).await.unwrap();
    let world = World { dir, shelf, function, jobs };
    world.manifest(&keys(300));
    let id = world.create(|b| tagged(&b, "longshore:sample", "20")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("<FailureCode>ConfirmationTimeout</FailureCode>"), "{described}");
    assert_eq!(world.report(&id).len(), 20);
}

#[tokio::test]
async fn a_sample_of_all_rows_is_the_whole_job() {
    let world = World::new().await;
    world.manifest(&keys(10));
    let id = world.create(|b| tagged(&b, "longshore:sample", "10")).await;
    let described = world.wait_for(&id, "Complete").await;
    assert!(!described.contains("SuspendedDate"), "{described}");
    assert_eq!(world.report(&id).len(), 10);
}

#[tokio::test]
async fn a_sample_waits_for_the_first_confirmation_too() {
    let world = World::new().await;
    world.manifest(&keys(100));
    let id = world.create(|b| confirmed(&tagged(&b, "longshore:sample", "5"))).await;
    assert!(world.wait_for(&id, "Suspended").await.contains("AWAITING_CONFIRMATION"));
    assert!(world.function.calls().is_empty());
    ask(&world, &id, "Ready").await;
    while !world.describe(&id).await.contains("AWAITING_PROMOTION") {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.function.calls().len(), 5);
    ask(&world, &id, "Ready").await;
    world.wait_for(&id, "Complete").await;
    assert_once(&world, &keys(100));
}

#[tokio::test]
async fn too_many_failures_in_a_sample_fail_the_job() {
    let world = World::new().await;
    let rows: Vec<_> = (0..3_000).map(|n| format!("bad-{n}")).collect();
    world.manifest(&rows);
    let id = world.create(|b| tagged(&b, "longshore:sample", "1500")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("TaskFailureThresholdExceeded"), "{described}");
    assert!(world.function.calls().len() < 1_500);
}

/// A shelf whose manifest comes in two parts: the second waits until it is let go.
struct Slow {
    shelf: Arc<Shelf>,
    /// Bytes that come at once.
    first: usize,
    go: watch::Sender<bool>,
    /// Whether the next second part breaks off.
    breaks: std::sync::atomic::AtomicBool,
    etag: Mutex<String>,
}

#[async_trait::async_trait]
impl Objects for Slow {
    async fn get(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectBody, ObjectError> {
        let whole = self.shelf.get(bucket, key, version).await?;
        let mut bytes = Vec::new();
        let mut pieces = whole.stream;
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        let second = Bytes::from(bytes.split_off(self.first.min(bytes.len())));
        let (mut go, breaks) = (self.go.subscribe(), self.breaks.swap(false, Ordering::SeqCst));
        let first = futures::stream::once(async move { Ok(Bytes::from(bytes)) });
        let rest = futures::stream::once(async move {
            let _ = go.wait_for(|go| *go).await;
            match breaks {
                true => Err(ObjectError { code: "InternalError".into(), message: "broken".into(), passing: true }),
                false => Ok(second),
            }
        });
        let stream = Box::pin(first.chain(rest));
        Ok(ObjectBody { etag: self.etag.lock().unwrap().clone(), size: None, tags: None, stream })
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        self.shelf.put(bucket, key, terms, body).await
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.shelf.list(bucket, query).await
    }

    async fn facts(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        self.shelf.facts(bucket, key, version).await
    }

    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        self.shelf.check_owner(bucket, account).await
    }
}

/// A job that starts early, on a manifest of which the first `first` rows come at once.
struct Early {
    world: World,
    slow: Arc<Slow>,
    id: String,
}

impl Early {
    async fn new(rows: &[String], first: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
        let first = rows[..first].iter().map(|key| format!("b,{key}\n").len()).sum();
        let (go, etag) = (watch::Sender::new(false), Mutex::new("\"e1\"".into()));
        let slow = Arc::new(Slow { shelf: Arc::clone(&shelf), first, go, breaks: false.into(), etag });
        let jobs = Self::open(dir.path(), &slow, &function).await;
        let world = World { dir, shelf, function, jobs };
        world.manifest(rows);
        let id = world.create(|b| tagged(&b, "longshore:start", "while-preparing")).await;
        Self { world, slow, id }
    }

    async fn open(dir: &std::path::Path, slow: &Arc<Slow>, function: &Arc<Function>) -> Jobs {
        let fatal = Fatal::new();
        let records = Records::open(&dir.join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
        let settings = crate::Settings::new(ACCOUNT, "us-west-2");
        let (objects, invoker) = (Arc::clone(slow) as Arc<dyn Objects>, Arc::clone(function) as Arc<dyn Invoker>);
        Jobs::open(records, dir.join("jobs"), fatal, settings, objects, invoker).await.unwrap()
    }

    async fn restart(&mut self) {
        self.world.jobs.shutdown().await;
        self.world.jobs = Self::open(self.world.dir.path(), &self.slow, &self.world.function).await;
    }

    fn go(&self) {
        self.slow.go.send_replace(true);
    }

    async fn wait_for_results(&self, results: u64) -> String {
        for _ in 0..2_000 {
            let described = self.world.describe(&self.id).await;
            if count(&described, "NumberOfTasksSucceeded") + count(&described, "NumberOfTasksFailed") == results {
                return described;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("there were never {results} results: {}", self.world.describe(&self.id).await);
    }
}

#[tokio::test]
async fn a_job_that_may_start_early_runs_what_is_checked_and_ends_with_the_manifest() {
    let rows = keys(2_600);
    let early = Early::new(&rows, 1_500).await;
    let described = early.wait_for_results(1_024).await;
    assert!(described.contains("<Status>Active</Status>"), "{described}");
    assert_eq!(count(&described, "TotalNumberOfTasks"), 1_024);
    early.go();
    let described = early.world.wait_for(&early.id, "Complete").await;
    assert_eq!(count(&described, "TotalNumberOfTasks"), 2_600);
    assert_once(&early.world, &rows);
    assert_eq!(early.world.report(&early.id).len(), 2_600);
}

#[tokio::test]
async fn a_manifest_of_less_than_a_chunk_is_read_whole_before_it_starts() {
    let rows = keys(30);
    let early = Early::new(&rows, 30).await;
    early.go();
    early.world.wait_for(&early.id, "Complete").await;
    assert_once(&early.world, &rows);
}

#[tokio::test]
async fn a_bad_row_found_late_fails_the_job_and_what_ran_is_reported() {
    let mut rows = keys(2_000);
    rows[1_800] = "%zz".into();
    let early = Early::new(&rows, 1_100).await;
    early.wait_for_results(1_024).await;
    early.go();
    let described = early.world.wait_for(&early.id, "Failed").await;
    assert!(described.contains("<FailureReason>Invalid object key format</FailureReason>"), "{described}");
    assert_eq!(early.world.report(&early.id).len(), 1_024);
    assert_once(&early.world, &rows[..1_024]);
}

#[tokio::test]
async fn an_early_job_that_is_interrupted_reads_its_manifest_again_and_repeats_nothing() {
    let rows = keys(2_600);
    let mut early = Early::new(&rows, 2_100).await;
    early.wait_for_results(2_048).await;
    early.restart().await;
    let described = early.world.describe(&early.id).await;
    assert_eq!(count(&described, "TotalNumberOfTasks"), 2_048, "what was shown is not taken back");
    early.go();
    early.world.wait_for(&early.id, "Complete").await;
    assert_once(&early.world, &rows);
    assert_eq!(early.world.report(&early.id).len(), 2_600);
}

#[tokio::test]
async fn an_early_job_whose_manifest_is_another_after_an_interruption_fails_and_reports_what_ran() {
    let rows = keys(2_600);
    let mut early = Early::new(&rows, 1_500).await;
    early.wait_for_results(1_024).await;
    *early.slow.etag.lock().unwrap() = "\"e2\"".into();
    early.restart().await;
    let described = early.world.wait_for(&early.id, "Failed").await;
    assert!(described.contains("<FailureCode>ManifestETagMismatch</FailureCode>"), "{described}");
    assert_eq!(early.world.report(&early.id).len(), 1_024);
    assert_once(&early.world, &rows[..1_024]);
}

/// An early job whose first chunk has run, and whose store breaks off then.
async fn broken_off(rows: &[String]) -> Early {
    let early = Early::new(rows, 1_500).await;
    early.wait_for_results(1_024).await;
    // What waits for its second part was asked for before this; so it is asked for once more.
    early.slow.breaks.store(true, Ordering::SeqCst);
    let mut early = early;
    early.restart().await;
    early.wait_for_results(1_024).await;
    while early.slow.breaks.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    early
}

#[tokio::test]
async fn a_store_that_breaks_off_while_tasks_run_is_asked_again_and_nothing_is_repeated() {
    let rows = keys(2_600);
    let early = broken_off(&rows).await;
    early.go();
    early.world.wait_for(&early.id, "Complete").await;
    assert_once(&early.world, &rows);
    assert_eq!(early.world.report(&early.id).len(), 2_600);
}

#[tokio::test]
async fn a_store_that_gives_other_bytes_under_one_etag_fails_the_job_and_what_ran_is_reported() {
    let rows = keys(2_600);
    let early = broken_off(&rows).await;
    // Known to the run before the bytes change.
    early.world.wait_for(&early.id, "Active").await;
    let other: Vec<_> = rows.iter().rev().cloned().collect();
    early.world.manifest(&other);
    early.go();
    let described = early.world.wait_for(&early.id, "Failed").await;
    assert!(described.contains("<FailureCode>ManifestDamaged</FailureCode>"), "{described}");
    assert_eq!(early.world.report(&early.id).len(), 1_024);
    assert_once(&early.world, &rows[..1_024]);
}

#[tokio::test]
async fn an_early_job_is_cancelled_while_its_manifest_is_still_being_checked() {
    let rows = keys(2_600);
    let early = Early::new(&rows, 1_500).await;
    early.wait_for_results(1_024).await;
    ask(&early.world, &early.id, "Cancelled").await;
    early.world.wait_for(&early.id, "Cancelled").await;
    assert_eq!(early.world.report(&early.id).len(), 1_024);
    assert!(!early.world.dir.path().join("jobs").join(&early.id).join("manifest.csv").exists());
}

fn of_report(body: &str, id: &str, rows: &str) -> String {
    let fields = &body[body.find("<Fields>").unwrap()..body.find("</Spec>").unwrap()];
    let body = body.replace(fields, "").replace("S3BatchOperations_CSV_20180820", "Report_CSV_20180820");
    let body = body.replace("m/list.csv", &format!("r/p/job-{id}/manifest.json"));
    tagged(&body, "longshore:rows", rows).replace("tok-1", &format!("of-{id}-{rows}"))
}

fn ids(world: &World) -> BTreeMap<String, String> {
    let mut ids = std::mem::take(&mut *world.function.ids.lock().unwrap());
    ids.sort();
    let rows = ids.len();
    let ids: BTreeMap<_, _> = ids.into_iter().collect();
    assert_eq!(ids.len(), rows, "a task was invoked twice");
    ids
}

#[tokio::test]
async fn a_retry_and_a_retry_of_it_run_what_failed_and_keep_the_task_ids() {
    let world = World::new().await;
    world.manifest(&keys(2_500));
    let first = world.create(|b| b).await;
    world.wait_for(&first, "Complete").await;
    let mut wanted = ids(&world);
    assert_eq!(wanted["bad-3"], longshore_core::task::task_id(&first, 3));
    let everything = wanted.clone();
    wanted.retain(|key, _| key.starts_with("bad"));
    assert_eq!(wanted.len(), 250);
    let second = world.create(|b| of_report(&b, &first, "failed")).await;
    let described = world.wait_for(&second, "Complete").await;
    assert_eq!(count(&described, "TotalNumberOfTasks"), 250);
    assert_eq!(ids(&world), wanted);
    let third = world.create(|b| of_report(&b, &second, "failed")).await;
    world.wait_for(&third, "Complete").await;
    assert_eq!(ids(&world), wanted, "the numbers are in the second job's log too");
    let whole = world.create(|b| of_report(&b, &first, "all")).await;
    world.wait_for(&whole, "Complete").await;
    assert_eq!(ids(&world), everything);
    assert_eq!(world.report(&whole), world.report(&first));
}

#[tokio::test]
async fn a_report_that_no_job_here_has_made_gives_tasks_ids_of_their_own() {
    let world = World::new().await;
    world.manifest(&keys(50));
    let first = world.create(|b| b).await;
    world.wait_for(&first, "Complete").await;
    let before = ids(&world);
    {
        // The same report, one part of it somewhere else.
        let mut shelf = world.shelf.0.lock().unwrap();
        let name = format!("r/p/job-{first}/manifest.json");
        let text = String::from_utf8(shelf[&name].to_vec()).unwrap();
        let part = between(&text, "\"failed\",", "}");
        let key = between(&part, "\"Key\":\"", "\"");
        let moved = format!("elsewhere/job-{first}/results/x.csv");
        let csv = shelf[&format!("r/{key}")].clone();
        shelf.insert(format!("r/{moved}"), csv);
        shelf.insert(name, text.replace(&key, &moved).into());
    }
    let second = world.create(|b| of_report(&b, &first, "failed")).await;
    world.wait_for(&second, "Complete").await;
    let after = ids(&world);
    assert!(after.len() == 5 && after.iter().all(|(key, id)| before[key] != *id));
    assert!(after.values().any(|id| *id == longshore_core::task::task_id(&second, 0)));
}

#[tokio::test]
async fn a_report_that_is_not_whole_fails_the_job() {
    let world = World::new().await;
    world.manifest(&keys(50));
    let first = world.create(|b| b).await;
    world.wait_for(&first, "Complete").await;
    ids(&world);
    let name = {
        let shelf = world.shelf.0.lock().unwrap();
        let failed = shelf.iter().find(|(name, csv)| name.contains("/results/") && csv.starts_with(b"b,bad"));
        failed.unwrap().0.clone()
    };
    let good = world.shelf.0.lock().unwrap()[&name].clone();
    for (n, (bad, reason)) in [
        (good.slice(..good.len() / 2), "The MD5 of the completion report"),
        (
            String::from_utf8(good.to_vec()).unwrap().replace("bad-3,", "bad-4,").into(),
            "The MD5 of the completion report",
        ),
        ([&good[..], &good[..]].concat().into(), "The MD5 of the completion report"),
        ("b,k,,failed\r\n".into(), "seven columns"),
        ("b,k,,succeeded,200,,\r\n".into(), "of another status"),
    ]
    .into_iter()
    .enumerate()
    {
        {
            let mut shelf = world.shelf.0.lock().unwrap();
            let md5 = |bytes: &[u8]| hex::encode(<md5::Md5 as md5::Digest>::digest(bytes));
            if n >= 3 {
                // A report that is consistent in itself, and not one of ours.
                let listed = format!("r/p/job-{first}/manifest.json");
                let text = String::from_utf8(shelf[&listed].to_vec()).unwrap();
                let text = text.replace(&md5(&shelf[&name]), &md5(&bad)).replace(&md5(&good), &md5(&bad));
                shelf.insert(listed, text.into());
            }
            shelf.insert(name.clone(), bad);
        }
        let id = world.create(|b| of_report(&b, &first, "failed").replace("of-", &format!("{n}-"))).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains("InvalidManifestContent") && described.contains(reason), "{n}: {described}");
    }
    world.shelf.0.lock().unwrap().remove(&name);
    let id = world.create(|b| of_report(&b, &first, "failed")).await;
    assert!(world.wait_for(&id, "Failed").await.contains("ManifestNotFound"));
    assert!(ids(&world).is_empty());
}

#[tokio::test]
async fn a_report_without_failures_has_nothing_to_retry() {
    let world = World::new().await;
    world.manifest(&["a".into(), "b".into()]);
    let first = world.create(|b| b).await;
    world.wait_for(&first, "Complete").await;
    let id = world.create(|b| of_report(&b, &first, "failed")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("The completion report has no rows to run"), "{described}");
}
