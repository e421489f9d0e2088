//! The life of a job and its events, through the real table, with a clock that the tests set and servers that they kill.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use longshore_core::delivery;
use longshore_core::job::Status;
use longshore_core::retry::Backoff;
use longshore_core::time::{Tick, Timestamp};
use longshore_wire::event::JobEvent;

use super::super::scheduler::{RETIRED_MAX, retire_some};
use super::*;
use crate::ports::{EventSink, SinkError};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const BORN: i64 = 1_700_000_000_000;
const ROWS: usize = 12;

/// What outlives a server: the disk, the stores, the clock, and the settings.
struct Life {
    dir: tempfile::TempDir,
    shelf: Arc<Shelf>,
    clock: Arc<AtomicI64>,
    /// Milliseconds.
    running: Arc<AtomicU64>,
    /// Whether functions wait to be let go.
    held: AtomicBool,
    settings: Box<dyn Fn(&mut crate::Settings)>,
}

impl Life {
    fn new(settings: impl Fn(&mut crate::Settings) + 'static) -> Self {
        let life = Self {
            dir: tempfile::tempdir().unwrap(),
            shelf: Arc::default(),
            clock: Arc::new(AtomicI64::new(BORN)),
            running: Arc::default(),
            held: AtomicBool::new(false),
            settings: Box::new(settings),
        };
        life.manifest("key");
        life
    }

    fn manifest(&self, word: &str) {
        let text: String = (0..ROWS).map(|i| format!("b,{word}-{i}\n")).collect();
        self.shelf.0.lock().unwrap().insert("m/list.csv".into(), text.into());
    }

    fn set_clock(&self, ms: i64) {
        self.clock.store(ms, Ordering::SeqCst);
    }

    /// Time in which a server runs.
    fn pass(&self, ms: i64) {
        self.running.fetch_add(ms.unsigned_abs(), Ordering::SeqCst);
    }

    async fn open(&self) -> World {
        let function = Function::new();
        if self.held.load(Ordering::SeqCst) {
            function.gate.forget_permits(Semaphore::MAX_PERMITS);
        }
        let fatal = Fatal::new();
        let path = self.dir.path().join("records.db");
        let records = loop {
            match Records::open(&path, &[crate::SCHEMA], fatal.clone()) {
                Ok(records) => break records,
                // A process that is killed lets go of its files at once; here the thread that wrote is still ending.
                Err(error) if error.to_string().contains("locked") => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let mut settings = crate::Settings::new(ACCOUNT, "us-west-2");
        // A millisecond at each look, so that dates differ.
        let clock = Arc::clone(&self.clock);
        settings.wall_clock = Arc::new(move || Timestamp(clock.fetch_add(1, Ordering::SeqCst)));
        let running = Arc::clone(&self.running);
        settings.running = Arc::new(move || Tick(running.load(Ordering::SeqCst)));
        (self.settings)(&mut settings);
        let (objects, invoker) =
            (Arc::clone(&self.shelf) as Arc<dyn Objects>, Arc::clone(&function) as Arc<dyn Invoker>);
        let jobs = Jobs::open(records, self.dir.path().join("jobs"), fatal, settings, objects, invoker).await.unwrap();
        // The world's own folder is of no account here: the data outlives it.
        World { dir: tempfile::tempdir().unwrap(), shelf: Arc::clone(&self.shelf), function, jobs }
    }

    /// The time of one server: it starts, `story` happens, and it is killed. Nothing ends in order.
    fn era<T>(&self, story: impl AsyncFnOnce(&World) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let told = runtime.block_on(async {
            let world = self.open().await;
            story(&world).await
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        told
    }
}

/// Waits for what must come, and fails if it does not.
async fn until(what: &str, mut came: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if came().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what} did not come");
}

impl World {
    async fn create_as(&self, token: &str, priority: u32, confirm: bool) -> String {
        self.create(|body| {
            body.replace("tok-1", token)
                .replace("<Priority>42", &format!("<Priority>{priority}"))
                .replace("<ConfirmationRequired>false", &format!("<ConfirmationRequired>{confirm}"))
        })
        .await
    }

    async fn ask(&self, id: &str, requested: &str) -> (u16, String) {
        let query = format!("requestedJobStatus={requested}");
        let (status, answer) = self.send("POST", &format!("/v20180820/jobs/{id}/status"), &query, "").await;
        (status, if status == 200 { between(&answer, "<Status>", "<") } else { answer })
    }

    async fn status(&self, id: &str) -> String {
        between(&self.describe(id).await, "<Status>", "<")
    }

    async fn calls_are(&self, n: usize) {
        until("the calls", async || self.function.calls().len() >= n).await;
    }

    fn release(&self) {
        self.shelf.set_down(false);
        self.function.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn own(&self, path: &str, query: &str) -> (u16, serde_json::Value) {
        let request = Request {
            method: http::Method::GET,
            path: path.to_owned(),
            query: Query::parse(Some(query)),
            headers: http::HeaderMap::new(),
            body: Bytes::new(),
            caller: Caller::in_process(ACCOUNT),
            request_id: RequestId("r".into()),
        };
        let response = self.jobs.serve_own(request, None).await;
        (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap())
    }

    async fn events(&self, id: &str) -> Vec<serde_json::Value> {
        let (status, answer) = self.own(&format!("/_longshore/v1/jobs/{id}/events"), "").await;
        assert_eq!(status, 200, "{answer}");
        answer["events"].as_array().unwrap().clone()
    }

    async fn statuses(&self, id: &str) -> Vec<String> {
        self.events(id).await.iter().map(|e| e["status"].as_str().unwrap().to_owned()).collect()
    }

    /// Brings a job into a status in which it stays until [`World::release`].
    async fn hold(&self, life: &Life, status: Status) -> String {
        let four = self.function.slots as usize;
        match status {
            Status::New | Status::Preparing => {
                self.shelf.set_down(true);
                let first = self.create_as("first", 1, false).await;
                self.wait_for(&first, "Preparing").await;
                if status == Status::Preparing { first } else { self.create_as("second", 9, false).await }
            }
            Status::Suspended => {
                let id = self.create_as("first", 1, true).await;
                self.wait_for(&id, "Suspended").await;
                id
            }
            Status::Ready => {
                let first = self.create_as("first", 1, false).await;
                self.wait_for(&first, "Active").await;
                let second = self.create_as("second", 1, false).await;
                self.wait_for(&second, "Ready").await;
                second
            }
            Status::Pausing | Status::Paused => {
                let low = self.create_as("first", 1, false).await;
                self.wait_for(&low, "Active").await;
                self.calls_are(four).await;
                let high = self.create_as("second", 2, false).await;
                self.wait_for(&low, "Pausing").await;
                if status == Status::Paused {
                    self.function.gate.add_permits(four);
                    self.wait_for(&low, "Paused").await;
                    self.wait_for(&high, "Active").await;
                }
                low
            }
            status => {
                if status == Status::Failing || status == Status::Failed {
                    life.manifest("bad");
                }
                let id = self.create_as("first", 1, false).await;
                self.wait_for(&id, "Active").await;
                self.calls_are(four).await;
                match status {
                    Status::Active => {}
                    Status::Cancelling | Status::Cancelled => {
                        assert_eq!(self.ask(&id, "Cancelled").await, (200, "Cancelling".into()));
                    }
                    _ => self.shelf.set_down(true),
                }
                if matches!(status, Status::Completing | Status::Failing) {
                    self.function.gate.add_permits(1_000);
                }
                if status.is_terminal() {
                    self.release();
                }
                self.wait_for(&id, status.name()).await;
                if status == Status::Failing {
                    // All that ran is recorded before anybody is killed.
                    until("the last result", async || {
                        let failed = between(&self.describe(&id).await, "<NumberOfTasksFailed>", "<");
                        failed == self.function.calls().len().to_string()
                    })
                    .await;
                }
                id
            }
        }
    }
}

/// One slot of each kind, functions that wait, and a threshold that two failures pass.
fn narrow() -> Life {
    let life = Life::new(|settings| {
        settings.active_slots = 1;
        settings.preparing_slots = 1;
        settings.run.threshold.tasks_min = 2;
    });
    life.held.store(true, Ordering::SeqCst);
    life
}

#[test]
fn a_request_is_answered_in_each_status_as_the_matrix_says_and_the_job_ends_accordingly() {
    // From; what a cancel is answered; how the job ends. Spec 2.4.
    for (status, answer, end) in [
        (Status::New, Some("Cancelling"), "Cancelled"),
        (Status::Preparing, Some("Cancelling"), "Cancelled"),
        (Status::Suspended, Some("Cancelled"), "Cancelled"),
        (Status::Ready, Some("Cancelled"), "Cancelled"),
        (Status::Active, Some("Cancelling"), "Cancelled"),
        (Status::Pausing, Some("Cancelling"), "Cancelled"),
        (Status::Paused, Some("Cancelling"), "Cancelled"),
        (Status::Completing, None, "Complete"),
        (Status::Complete, None, "Complete"),
        (Status::Cancelling, Some("Cancelling"), "Cancelled"),
        (Status::Cancelled, Some("Cancelled"), "Cancelled"),
        (Status::Failing, None, "Failed"),
        (Status::Failed, None, "Failed"),
    ] {
        let life = narrow();
        life.era(async |world| {
            let id = world.hold(&life, status).await;
            if status != Status::Suspended {
                let (code, told) = world.ask(&id, "Ready").await;
                assert_eq!((code, told.contains("Requested job status forbidden")), (400, true), "{status:?}");
            }
            let before = world.statuses(&id).await;
            match (world.ask(&id, "Cancelled").await, answer) {
                ((200, now), Some(wanted)) => assert_eq!(now, wanted, "{status:?}"),
                ((400, told), None) => assert!(told.contains("Requested job status forbidden"), "{status:?}"),
                (other, _) => panic!("{status:?}: {other:?}"),
            }
            if matches!(status, Status::Cancelling | Status::Cancelled) {
                assert_eq!(world.statuses(&id).await, before, "a repeated cancel is no event");
            }
            world.release();
            world.wait_for(&id, end).await;
            let (events, told) = (world.events(&id).await, world.statuses(&id).await);
            assert_eq!((told[0].as_str(), told.last().unwrap().as_str()), ("New", end), "{status:?}: {told:?}");
            assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "one event an entry: {told:?}");
            let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e["jobEventId"].to_string()).collect();
            assert_eq!(ids.len(), events.len());
        });
    }
}

#[test]
fn a_kill_changes_no_status_and_tells_nothing_and_the_job_goes_on_to_its_end() {
    use Status::{Active, Cancelling, Completing, Failing, New, Paused, Pausing, Preparing, Ready, Suspended};
    for status in [New, Preparing, Suspended, Ready, Active, Pausing, Paused, Completing, Cancelling, Failing] {
        let life = narrow();
        let (id, events, ran) = life.era(async |world| {
            let id = world.hold(&life, status).await;
            (id.clone(), world.events(&id).await, world.function.calls())
        });
        life.era(async |world| {
            if status == Pausing {
                // Nothing of it is in flight any more.
                world.wait_for(&id, "Paused").await;
                assert_eq!(world.events(&id).await.len(), events.len() + 1);
            } else {
                assert_eq!(world.status(&id).await, status.name(), "rule E-5");
                assert_eq!(world.events(&id).await, events, "{status:?}: a restart is no event");
            }
            world.release();
            let (end, rows) = match status {
                Suspended => {
                    assert_eq!(world.ask(&id, "Ready").await.0, 200);
                    ("Complete", ROWS)
                }
                // What was in flight when the server died is unknown, and nothing starts any more.
                Cancelling => ("Cancelled", 0),
                Failing => ("Failed", ran.len()),
                _ => ("Complete", ROWS),
            };
            let described = world.wait_for(&id, end).await;
            if rows > 0 {
                assert_eq!(world.report(&id).len(), rows, "{status:?}: {described}");
            }
            let again = world.function.calls().len();
            match status {
                Completing | Cancelling | Failing => assert_eq!(again, 0, "{status:?}"),
                _ => assert!(again > 0, "{status:?}"),
            }
        });
    }
}

#[test]
fn an_unconfirmed_job_fails_after_30_days_over_restarts_and_whatever_the_clock_does() {
    let life = narrow();
    let id = life.era(async |world| world.hold(&life, Status::Suspended).await);
    // Opening looks at every job before it returns.
    for (clock, passed, wanted) in [
        (BORN + 4_000 * DAY_MS, 0, "Suspended"),
        (BORN - 400 * DAY_MS, 0, "Suspended"),
        (BORN, 29 * DAY_MS, "Suspended"),
        (BORN + 4_000 * DAY_MS, DAY_MS - 1_000, "Suspended"),
        (BORN - 4_000 * DAY_MS, DAY_MS, "Failed"),
    ] {
        life.era(async |world| {
            life.set_clock(clock);
            life.pass(passed);
            world.jobs.ledger.note_age().await.unwrap();
            scheduler::pass(&world.jobs.engine).await.unwrap();
            assert_eq!(world.status(&id).await, wanted, "{clock} {passed}");
        });
    }
    life.era(async |world| {
        let described = world.describe(&id).await;
        assert!(described.contains("<FailureCode>ConfirmationTimeout</FailureCode>"), "{described}");
        assert!(described.contains("not confirmed within 30 days"), "{described}");
        assert!(described.contains("<SuspendedCause>AWAITING_CONFIRMATION</SuspendedCause>"), "{described}");
        let events = world.events(&id).await;
        assert_eq!(events.last().unwrap()["failureCodes"], serde_json::json!(["ConfirmationTimeout"]));
        assert_eq!(world.ask(&id, "Ready").await.0, 400);
    });
}

#[test]
fn the_30_days_pass_without_a_restart_as_well() {
    let life = narrow();
    life.era(async |world| {
        let id = world.hold(&life, Status::Suspended).await;
        life.pass(31 * DAY_MS);
        world.jobs.engine.wake();
        world.wait_for(&id, "Failed").await;
    });
}

#[test]
fn a_confirmed_job_runs_the_manifest_as_it_was_read() {
    let life = narrow();
    life.held.store(false, Ordering::SeqCst);
    let id = life.era(async |world| world.hold(&life, Status::Suspended).await);
    life.shelf.0.lock().unwrap().remove("m/list.csv");
    life.era(async |world| {
        assert_eq!(world.ask(&id, "Ready").await, (200, "Ready".into()));
        world.wait_for(&id, "Complete").await;
        assert_eq!(world.report(&id).len(), ROWS, "rules L-6 and E-6");
    });
}

#[test]
fn whether_a_job_that_does_not_say_so_is_to_be_confirmed_is_a_setting() {
    for (default, wanted) in [(true, "Suspended"), (false, "Complete")] {
        let life = Life::new(move |settings| settings.confirmation_default = default);
        life.era(async |world| {
            let silent = |b: String| b.replace("<ConfirmationRequired>false</ConfirmationRequired>", "");
            let id = world.create(silent).await;
            let described = world.wait_for(&id, wanted).await;
            let shown = format!("<ConfirmationRequired>{default}</ConfirmationRequired>");
            assert!(described.contains(&shown), "{described}");
        });
    }
}

#[test]
fn a_clock_that_runs_backwards_breaks_nothing() {
    let mailbox = Mailbox::new("box", 1, false);
    let sink = Arc::clone(&mailbox) as Arc<dyn EventSink>;
    let life = Life::new(move |settings| {
        let clock = AtomicI64::new(BORN);
        // An hour at each look.
        settings.wall_clock = Arc::new(move || Timestamp(clock.fetch_sub(3_600_000, Ordering::SeqCst)));
        settings.event_sinks = vec![Arc::clone(&sink)];
        settings.delivery.backoff = Backoff { base_ms: 1, cap_ms: 1 };
    });
    life.era(async |world| {
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(world.create_as(&format!("t{n}"), 1, false).await);
        }
        for id in &ids {
            world.wait_for(id, "Complete").await;
            assert_eq!(world.report(id).len(), ROWS);
            assert_eq!(world.statuses(id).await, PLAIN);
        }
        mailbox.has(ids.len() * PLAIN.len()).await;
        for id in &ids {
            assert_eq!(mailbox.statuses(id), PLAIN);
        }
        assert_eq!(retire_some(&world.jobs.engine).await.unwrap(), 0);
    });
}

#[test]
fn ninety_days_after_its_end_a_job_is_gone_with_all_that_belongs_to_it() {
    let life = narrow();
    life.held.store(false, Ordering::SeqCst);
    let folder = |id: &str| life.dir.path().join("jobs").join(id);
    let (old, half, waiting, ended) = life.era(async |world| {
        let half = world.create_as("half", 1, false).await;
        world.wait_for(&half, "Complete").await;
        let old = world.create_as("old", 1, false).await;
        world.wait_for(&old, "Complete").await;
        let ended = world.jobs.ledger.job(&old).await.unwrap().unwrap().terminated.unwrap().0;
        world.shelf.set_down(true);
        let waiting = world.create_as("waiting", 1, false).await;
        world.wait_for(&waiting, "Preparing").await;
        (old, half, waiting, ended)
    });
    let young = life.era(async |world| {
        life.pass(90 * DAY_MS - 10_000);
        assert_eq!(retire_some(&world.jobs.engine).await.unwrap(), 0);
        world.jobs.ledger.note_age().await.unwrap();
        world.describe(&old).await;
        assert!(folder(&old).exists());
        world.create_as("young", 1, true).await
    });
    life.era(async |world| {
        world.ask(&young, "Cancelled").await;
        world.wait_for(&young, "Cancelled").await;
        // A clock that is set removes nothing, and breaks nothing.
        for days in [-1_000, 4_000] {
            life.set_clock(ended + days * DAY_MS);
            assert_eq!(retire_some(&world.jobs.engine).await.unwrap(), 0);
        }
        // As a crash between the two halves of a removal would leave it.
        std::fs::remove_dir_all(folder(&half)).unwrap();
        assert!(folder(&old).exists());
        // One whose report is being delivered stays until that is over.
        world.jobs.engine.redelivered().insert(old.clone(), String::new());
        life.pass(10_001);
        retire_some(&world.jobs.engine).await.unwrap();
        assert!(folder(&old).exists() && world.jobs.ledger.job(&old).await.unwrap().is_some());
        world.jobs.engine.redelivered().remove(&old);
        // As one does whose delivery begins between the look at the jobs and the removal.
        let removing = world.jobs.engine.shared.removing.lock().await;
        let mut retiring = std::pin::pin!(retire_some(&world.jobs.engine));
        for _ in 0..1_000 {
            assert!(futures::poll!(&mut retiring).is_pending());
            tokio::task::yield_now().await;
        }
        world.jobs.engine.redelivered().insert(old.clone(), String::new());
        drop(removing);
        retiring.await.unwrap();
        assert!(folder(&old).exists());
        world.jobs.engine.redelivered().remove(&old);
        retire_some(&world.jobs.engine).await.unwrap();
        assert_eq!(world.ask(&half, "Cancelled").await.0, 404);
        for (path, query) in [("", ""), ("/tagging", "")] {
            let (status, answer) = world.send("GET", &format!("/v20180820/jobs/{old}{path}"), query, "").await;
            assert_eq!((status, answer.contains("<Code>NoSuchJob</Code>")), (404, true), "{answer}");
        }
        assert_eq!(world.ask(&old, "Cancelled").await.0, 404);
        let priority = world.send("POST", &format!("/v20180820/jobs/{old}/priority"), "priority=1", "").await;
        assert_eq!(priority.0, 404);
        assert_eq!(world.own(&format!("/_longshore/v1/jobs/{old}/events"), "").await.0, 404);
        let (_, list) = world.send("GET", "/v20180820/jobs", "", "").await;
        assert!(!list.contains(&old) && list.contains(&young) && list.contains(&waiting), "{list}");
        let again = world.create_as("old", 1, true).await;
        assert_ne!(again, old, "the token went with its job");
        assert!(!folder(&old).exists());
        assert_eq!(world.status(&waiting).await, "Preparing", "only what has ended is ever removed");
        let left = |table: &'static str| {
            let db = rusqlite::Connection::open(life.dir.path().join("records.db")).unwrap();
            let sql = format!("SELECT count(*) FROM {table} WHERE job_id = ?1");
            db.query_row(&sql, [&old], |row| row.get::<_, i64>(0)).unwrap()
        };
        for table in ["job_tag", "job_event"] {
            assert_eq!(left(table), 0, "{table}");
        }
    });
}

#[test]
fn jobs_are_removed_in_bounded_steps_and_those_beyond_the_limit_before_their_time() {
    let limit = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&limit);
    let life = Life::new(move |settings| settings.retained_max = shared.load(Ordering::SeqCst));
    let ids = life.era(async |world| {
        let mut ids = Vec::new();
        for n in 0..RETIRED_MAX + 9 {
            let id = world.create_as(&format!("t{n}"), 1, true).await;
            world.wait_for(&id, "Suspended").await;
            world.ask(&id, "Cancelled").await;
            ids.push(id);
        }
        ids.push(world.create_as("running", 1, true).await);
        world.wait_for(ids.last().unwrap(), "Suspended").await;
        assert_eq!(retire_some(&world.jobs.engine).await.unwrap(), 0, "without a limit all stay");
        ids
    });
    limit.store(4, Ordering::SeqCst);
    life.era(async |world| {
        until("the last step", async || {
            // The engine takes steps, too: of a folder that both remove one finds a part gone.
            if let Ok(removed) = retire_some(&world.jobs.engine).await {
                assert!(removed <= RETIRED_MAX);
            }
            world.jobs.ledger.list(vec![], None, 1_000).await.unwrap().0.len() <= 5
        })
        .await;
        assert_eq!(retire_some(&world.jobs.engine).await.unwrap(), 0);
        let (left, _) = world.jobs.ledger.list(vec![], None, 1_000).await.unwrap();
        let mut left: Vec<_> = left.into_iter().map(|job| job.id).collect();
        left.reverse();
        assert_eq!(
            left,
            ids[ids.len() - 5..],
            "four that are over are kept, and one that is not takes no place of theirs"
        );
    });
}

#[test]
fn a_paused_job_returns_to_active_directly_and_an_equal_priority_never_preempts() {
    let life = narrow();
    life.era(async |world| {
        let low = world.create_as("low", 5, false).await;
        world.wait_for(&low, "Active").await;
        world.calls_are(4).await;
        let equal = world.create_as("equal", 5, false).await;
        world.wait_for(&equal, "Ready").await;
        scheduler::pass(&world.jobs.engine).await.unwrap();
        assert_eq!((world.status(&low).await, world.status(&equal).await), ("Active".into(), "Ready".into()));
        // A raised priority takes effect at the next pass (spec 1.8).
        let path = format!("/v20180820/jobs/{equal}/priority");
        assert_eq!(world.send("POST", &path, "priority=6", "").await.0, 200);
        world.wait_for(&low, "Pausing").await;
        assert_eq!(world.status(&equal).await, "Ready", "the slot is free only once it has drained");
        world.release();
        world.wait_for(&equal, "Complete").await;
        world.wait_for(&low, "Complete").await;
        let wanted = ["New", "Preparing", "Ready", "Active", "Pausing", "Paused", "Active", "Completing", "Complete"];
        assert_eq!(world.statuses(&low).await, wanted);
        assert_eq!(world.report(&low).len(), ROWS);
    });
}

#[test]
fn manifests_are_prepared_one_by_one_in_the_order_of_creation() {
    let life = narrow();
    life.era(async |world| {
        world.shelf.set_down(true);
        let mut ids = Vec::new();
        for (token, priority) in [("a", 1), ("b", 2), ("c", 3)] {
            ids.push(world.create_as(token, priority, false).await);
        }
        for n in 0..3 {
            world.wait_for(&ids[n], "Preparing").await;
            for later in &ids[n + 1..] {
                assert_eq!(world.status(later).await, "New");
            }
            assert_eq!(world.ask(&ids[n], "Cancelled").await, (200, "Cancelling".into()));
            world.wait_for(&ids[n], "Cancelled").await;
        }
    });
}

#[test]
fn a_cancel_that_races_with_the_end_either_wins_or_is_refused() {
    let life = narrow();
    life.era(async |world| {
        for n in 0..25 {
            let before = world.function.calls().len();
            let id = world.create_as(&format!("t{n}"), 1, false).await;
            world.wait_for(&id, "Active").await;
            world.calls_are(before + 4).await;
            // All but the last four are through; these end while the cancel is under way.
            world.function.gate.add_permits(ROWS - 4);
            world.calls_are(before + ROWS).await;
            let asked = async {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
                world.ask(&id, "Cancelled").await
            };
            let (answered, ()) = futures::join!(asked, async { world.function.gate.add_permits(4) });
            let end = match answered.0 {
                200 => "Cancelled",
                400 => "Complete",
                other => panic!("{other}: {}", answered.1),
            };
            world.wait_for(&id, end).await;
            assert_eq!(world.report(&id).len(), ROWS, "what ran is reported either way");
        }
    });
}

#[test]
fn events_carry_the_codes_of_a_failure_and_the_reason_of_a_call_and_nothing_else_makes_one() {
    let life = narrow();
    life.era(async |world| {
        let id = world.hold(&life, Status::Active).await;
        let path = format!("/v20180820/jobs/{id}");
        let before = world.events(&id).await.len();
        assert_eq!(world.send("POST", &format!("{path}/priority"), "priority=7", "").await.0, 200);
        assert_eq!(world.send("DELETE", &format!("{path}/tagging"), "", "").await.0, 200);
        assert_eq!(world.events(&id).await.len(), before, "rule EVT-6");
        for reason in ["first", "second"] {
            let query = format!("requestedJobStatus=Cancelled&statusUpdateReason={reason}");
            assert_eq!(world.send("POST", &format!("{path}/status"), &query, "").await.0, 200);
        }
        world.release();
        let described = world.wait_for(&id, "Cancelled").await;
        assert!(described.contains("<StatusUpdateReason>second<"), "the last value wins (C-10): {described}");
        for event in world.events(&id).await {
            let wanted: &[&str] = match event["status"].as_str().unwrap() {
                "Cancelling" | "Cancelled" => &["first"],
                _ => &[],
            };
            assert_eq!(event["statusChangeReason"], serde_json::json!(wanted), "{event}");
            assert_eq!(event["failureCodes"], serde_json::json!([]), "{event}");
        }
    });
    let life = narrow();
    life.era(async |world| {
        let id = world.hold(&life, Status::Failed).await;
        for event in world.events(&id).await {
            let wanted: &[&str] = match event["status"].as_str().unwrap() {
                "Failing" | "Failed" => &["TaskFailureThresholdExceeded"],
                _ => &[],
            };
            assert_eq!(event["failureCodes"], serde_json::json!(wanted), "{event}");
            let details = &event["document"]["detail"]["serviceEventDetails"];
            assert_eq!((&details["failureCodes"], &details["status"]), (&event["failureCodes"], &event["status"]));
        }
    });
}

#[test]
fn events_come_in_pages_and_of_the_callers_jobs_alone() {
    let life = narrow();
    life.era(async |world| {
        let id = world.hold(&life, Status::Complete).await;
        let path = format!("/_longshore/v1/jobs/{id}/events");
        let whole = world.events(&id).await;
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let (status, page) = world.own(&path, &format!("maxResults=2{token}")).await;
            assert_eq!(status, 200, "{page}");
            assert!(page["events"].as_array().unwrap().len() <= 2);
            paged.extend(page["events"].as_array().unwrap().clone());
            match page["nextToken"].as_str() {
                Some(next) => token = format!("&nextToken={next}"),
                None => break,
            }
        }
        assert_eq!(paged, whole);
        for (query, code) in [
            ("maxResults=0", "InvalidRequest"),
            ("maxResults=1001", "InvalidRequest"),
            ("maxResults=x", "InvalidRequest"),
            ("nextToken=x", "InvalidNextTokenException"),
            ("nextToken=0", "InvalidNextTokenException"),
        ] {
            let (status, answer) = world.own(&path, query).await;
            assert_eq!((status, &answer["code"]), (400, &code.into()), "{query}: {answer}");
        }
        assert_eq!(world.own("/_longshore/v1/jobs/nothing/events", "").await.1["code"], "NoSuchJob");
        assert_eq!(world.own("/_longshore/v1/nothing", "").await.0, 404);
        assert!(world.jobs.ledger.events("999999999999", &id, 0, 10).await.unwrap().is_none());
    });
}

/// A sink that keeps what it is given, and can refuse or hang.
struct Mailbox {
    name: &'static str,
    got: Mutex<Vec<JobEvent>>,
    tries: AtomicUsize,
    /// So many tries of each event are refused.
    refusals: AtomicUsize,
    refused: Mutex<BTreeMap<String, usize>>,
    hangs: bool,
    /// Looks at the world when the event of an end comes.
    witness: Mutex<Option<(Jobs, Arc<Shelf>)>>,
}

impl Mailbox {
    fn new(name: &'static str, refusals: usize, hangs: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            got: Mutex::default(),
            tries: AtomicUsize::new(0),
            refusals: AtomicUsize::new(refusals),
            refused: Mutex::default(),
            hangs,
            witness: Mutex::new(None),
        })
    }

    fn statuses(&self, id: &str) -> Vec<String> {
        self.got.lock().unwrap().iter().filter(|e| e.job_id == id).map(|e| e.status.clone()).collect()
    }

    async fn has(&self, n: usize) {
        until("the events", async || self.got.lock().unwrap().len() >= n).await;
    }
}

#[async_trait::async_trait]
impl EventSink for Mailbox {
    fn name(&self) -> &str {
        self.name
    }

    async fn deliver(&self, event: &JobEvent) -> Result<(), SinkError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let refusals = self.refusals.load(Ordering::SeqCst);
        {
            let mut refused = self.refused.lock().unwrap();
            let so_far = refused.entry(event.job_event_id.clone()).or_default();
            if *so_far < refusals {
                *so_far += 1;
                return Err(SinkError("not now".into()));
            }
        }
        let witness = self.witness.lock().unwrap().clone();
        if let Some((jobs, shelf)) = witness
            && event.status == "Complete"
        {
            let job = jobs.ledger.job(&event.job_id).await.unwrap().unwrap();
            assert_eq!(job.status, Status::Complete, "rule EVT-5");
            assert!(shelf.0.lock().unwrap().contains_key(&format!("r/p/job-{}/manifest.json", event.job_id)));
        }
        self.got.lock().unwrap().push(event.clone());
        Ok(())
    }
}

fn with_sinks(sinks: &[&Arc<Mailbox>], backoff_ms: u64, tried_ms_max: u64) -> Life {
    let sinks: Vec<Arc<dyn EventSink>> = sinks.iter().map(|s| Arc::clone(s) as Arc<dyn EventSink>).collect();
    Life::new(move |settings| {
        settings.event_sinks = sinks.clone();
        let backoff = Backoff { base_ms: backoff_ms, cap_ms: backoff_ms };
        settings.delivery = delivery::Policy { backoff, tried_ms_max };
    })
}

const PLAIN: [&str; 6] = ["New", "Preparing", "Ready", "Active", "Completing", "Complete"];

#[test]
fn each_sink_has_every_event_once_and_in_order_though_it_refuses_some_and_another_hangs() {
    let (fine, fussy, stuck) =
        (Mailbox::new("fine", 0, false), Mailbox::new("fussy", 3, false), Mailbox::new("stuck", 0, true));
    let life = with_sinks(&[&fine, &fussy, &stuck], 1, u64::MAX);
    life.era(async |world| {
        *fine.witness.lock().unwrap() = Some((world.jobs.clone(), Arc::clone(&world.shelf)));
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(world.create_as(&format!("t{n}"), 1, false).await);
        }
        for id in &ids {
            world.wait_for(id, "Complete").await;
        }
        fine.has(ids.len() * PLAIN.len()).await;
        fussy.has(ids.len() * PLAIN.len()).await;
        for id in &ids {
            assert_eq!(
                (fine.statuses(id), fussy.statuses(id)),
                (PLAIN.map(str::to_owned).into(), PLAIN.map(str::to_owned).into())
            );
        }
        assert!(stuck.tries.load(Ordering::SeqCst) <= 8, "what hangs is bounded");
        // The last note is written after the sink has its event.
        let told = |events: &[serde_json::Value]| -> Vec<(bool, u64, bool)> {
            let of = |event: &serde_json::Value| {
                let fussy = &event["deliveries"][1];
                assert_eq!(fussy["sink"], "fussy");
                (
                    fussy["delivered"].as_bool().unwrap(),
                    fussy["attempts"].as_u64().unwrap(),
                    fussy["lastError"] == "not now",
                )
            };
            events.iter().map(of).collect()
        };
        let all = vec![(true, 4, true); PLAIN.len()];
        until("the notes", async || told(&world.events(&ids[0]).await) == all).await;
        let stopped = tokio::time::timeout(Duration::from_secs(5), world.jobs.shutdown()).await;
        stopped.expect("a sink that hangs does not hold up the stop");
        *fine.witness.lock().unwrap() = None;
    });
}

#[test]
fn a_sink_that_was_down_has_everything_in_order_after_a_kill() {
    let down = Mailbox::new("down", usize::MAX, false);
    let life = with_sinks(&[&down], 1, u64::MAX);
    let (id, events) = life.era(async |world| {
        let id = world.create_as("t", 1, false).await;
        world.wait_for(&id, "Complete").await;
        until("three tries", async || down.tries.load(Ordering::SeqCst) >= 3).await;
        // Kept for as long as a sink is owed something, whatever its age.
        life.pass(100 * DAY_MS);
        assert_eq!(retire_some(&world.jobs.engine).await.unwrap(), 0);
        world.jobs.ledger.note_age().await.unwrap();
        (id.clone(), world.events(&id).await)
    });
    assert!(down.refused.lock().unwrap().len() == 1, "the first event alone was tried: order");
    down.refusals.store(0, Ordering::SeqCst);
    life.era(async |world| {
        down.has(PLAIN.len()).await;
        assert_eq!(down.statuses(&id), PLAIN);
        let ids: Vec<_> = down.got.lock().unwrap().iter().map(|e| e.job_event_id.clone()).collect();
        let kept: Vec<_> = events.iter().map(|e| e["jobEventId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, kept, "the same event has the same ID");
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))));
        // Now nothing is owed any more.
        until("the removal", async || {
            world.jobs.engine.wake();
            world.jobs.ledger.job(&id).await.unwrap().is_none()
        })
        .await;
    });
}

#[test]
fn an_event_whose_time_is_used_up_is_given_up_and_the_next_one_is_tried() {
    let down = Mailbox::new("down", usize::MAX, false);
    let life = with_sinks(&[&down], 1, 0);
    life.era(async |world| {
        let id = world.create_as("t", 1, false).await;
        world.wait_for(&id, "Complete").await;
        let given_up = |event: &serde_json::Value| {
            event["deliveries"]
                == serde_json::json!([{"sink": "down", "delivered": false, "givenUp": true, "attempts": 1,
                    "lastError": "not now"}])
        };
        until("the end of trying", async || {
            let events = world.events(&id).await;
            events.len() == PLAIN.len() && events.iter().all(given_up)
        })
        .await;
        assert_eq!(down.tries.load(Ordering::SeqCst), PLAIN.len());
    });
}

#[test]
fn a_clock_that_is_set_back_holds_up_no_delivery() {
    let down = Mailbox::new("down", 1, false);
    let life = with_sinks(&[&down], 3_000, u64::MAX);
    life.era(async |world| {
        world.shelf.set_down(true);
        world.create_as("t", 1, false).await;
        until("a try", async || down.tries.load(Ordering::SeqCst) >= 1).await;
    });
    life.set_clock(BORN - 365 * DAY_MS);
    life.era(async |_| down.has(1).await);
}

#[test]
fn a_failure_reason_is_cut_to_the_lengths_that_the_model_has() {
    let reason = FailureReason::new(&"c".repeat(100), "\u{1F600}".repeat(300));
    assert_eq!((reason.code.chars().count(), reason.reason.chars().count()), (64, 256));
    let short = FailureReason::new("InvalidManifestContent", "Unexpected number of task fields");
    assert_eq!((short.code.as_str(), short.reason.len()), ("InvalidManifestContent", 32));
}
