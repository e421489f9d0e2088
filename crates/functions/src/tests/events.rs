//! Events: accepted onto the disk, run later, tried again. The host answers when the test says so, and the clock is set.
//! Source: Lambda spec 2.7, decision 0020.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longshore_core::histogram::Histogram;
use longshore_core::time::Tick;
use tokio::sync::{mpsc, oneshot, watch};

use super::*;
use crate::{Clock, EventFigures};

const MINUTE: u64 = 60_000;

/// A call that waits for the test's answer.
#[derive(Debug)]
struct Calling {
    deployment: Arc<Deployment>,
    call: Call,
    /// By the queue's clock.
    at: u64,
    reply: oneshot::Sender<Outcome>,
}

impl Calling {
    fn answer(self, outcome: Outcome) {
        self.reply.send(outcome).unwrap();
    }

    fn succeed(self) {
        self.answer(Outcome::Answered { payload: Bytes::new(), function_error: false, log_tail: None });
    }

    fn fail(self) {
        self.answer(Outcome::Answered { payload: Bytes::new(), function_error: true, log_tail: None });
    }
}

struct Controlled {
    calls: mpsc::UnboundedSender<Calling>,
    clock: Arc<AtomicU64>,
    stats: std::sync::Mutex<BTreeMap<String, FunctionStats>>,
}

#[async_trait::async_trait]
impl Environments for Controlled {
    async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let at = self.clock.load(Ordering::SeqCst);
        self.calls.send(Calling { deployment, call, at, reply }).unwrap();
        answer.await.unwrap_or_else(|_| Outcome::Fault("the test has ended".into()))
    }

    fn of_use(&self, _: &str) -> u32 {
        u32::MAX
    }

    fn slots(&self, deployment: &Deployment) -> u32 {
        deployment.concurrency.unwrap_or(8).min(8)
    }

    fn retire(&self, _: &str) {}

    fn set_terms(&self, _: &str, _: &Terms) {}

    fn provisioning(&self, _: &str) -> Provisioning {
        Provisioning::default()
    }

    fn provisioned_max(&self) -> u32 {
        0
    }

    fn prepare(&self, _: &Arc<Deployment>, _: u32) {}

    fn check_runtime(&self, _: &str) -> Result<String, String> {
        Ok(String::new())
    }

    fn log_page(&self, _: &str, _: Begin) -> std::io::Result<Page> {
        Ok(Page { lines: Vec::new(), next: Cursor::parse("0-0").unwrap(), more: false, missed: false })
    }

    fn stats(&self) -> BTreeMap<String, FunctionStats> {
        self.stats.lock().unwrap().clone()
    }

    fn counted_since_ms(&self) -> i64 {
        0
    }

    fn count_throttle(&self, _: &str, _: &'static str) {}

    fn count_dropped_events(&self, name: &str, events: u64, reason: &'static str) {
        let mut stats = self.stats.lock().unwrap();
        *stats.entry(name.to_owned()).or_default().events_dropped.entry(reason).or_default() += events;
    }

    fn cold_starts(&self, _: &str) -> Histogram {
        Histogram::default()
    }

    fn forget_figures(&self, _: &str) {}
}

/// A server with a queue of events; dropping it without [`Server::stop`] is a crash.
struct Server {
    api: Api,
    calls: mpsc::UnboundedReceiver<Calling>,
    clock: Arc<AtomicU64>,
    figures: watch::Receiver<EventFigures>,
}

impl std::ops::Deref for Server {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Server {
    fn at(path: &Path) -> Self {
        Self::with(path, |_| {})
    }

    fn with(path: &Path, change: impl FnOnce(&mut Settings)) -> Self {
        // Functions settle by a look alone, as in the other tests.
        let settle = Duration::from_secs(3_600);
        let mut settings = Settings { settle, ..Settings::new("us-east-1", ACCOUNT) };
        let clock = Arc::new(AtomicU64::new(0));
        let read = clock.clone();
        settings.events.clock = Clock(Arc::new(move || Tick(read.load(Ordering::SeqCst))));
        change(&mut settings);
        let records = Records::open(&path.join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        let code = path.join("code");
        std::fs::create_dir_all(&code).unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        let environments = Arc::new(Controlled { calls: sender, clock: clock.clone(), stats: Default::default() });
        let functions =
            Functions::with_environments(records, environments, Arc::new(OneObject), &code, settings).unwrap();
        let figures = functions.event_figures();
        Self { api: Api { functions, host: Arc::default(), _temp: None }, calls, clock, figures }
    }

    fn running(self) -> Self {
        self.functions.run_events();
        self
    }

    async fn send_event(&self, function: &str, payload: &str) -> Answer {
        self.invoke(function, &[("x-amz-invocation-type", "Event")], payload).await
    }

    /// The next call that reaches the host.
    async fn call(&mut self) -> Calling {
        let call = tokio::time::timeout(Duration::from_secs(20), self.calls.recv()).await;
        call.expect("a call comes").unwrap()
    }

    /// Waits until the queue holds so many events and so many of them run.
    #[track_caller]
    fn holds(&mut self, events: usize, running: usize) -> impl Future<Output = EventFigures> {
        let caller = std::panic::Location::caller();
        let mut figures = self.figures.clone();
        async move {
            let held = figures.wait_for(|f| (f.events, f.running) == (events, running));
            let seen = tokio::time::timeout(Duration::from_secs(20), held).await;
            match seen {
                Ok(seen) => *seen.unwrap(),
                Err(_) => panic!("{caller}: {:?}", self.figures.borrow()),
            }
        }
    }

    fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
        self.functions.inner.events.look();
    }

    /// Sends an event to another function and has it done: whatever was due before is running by now.
    async fn nothing_else_runs(&mut self, events: usize) {
        self.send_event("other", "{}").await.ok(202);
        let call = self.call().await;
        assert_eq!(call.deployment.name, "other");
        call.succeed();
        self.holds(events, 0).await;
    }

    async fn create_both(&self) {
        self.create().await;
        self.create_other().await;
    }

    async fn create_other(&self) {
        self.create_with(json!({"FunctionName": "other"})).await.ok(201);
        self.get("/2015-03-31/functions/other").await.ok(200);
    }

    /// As [`Api::create`], with version 1 beside it.
    async fn create_published(&self) {
        self.create_with(json!({"Publish": true})).await.ok(201);
        self.configuration().await;
    }
}

#[tokio::test]
async fn an_event_is_answered_before_it_runs_and_runs_as_it_was_sent() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create().await;
    let context = STANDARD.encode(r#"{"client":1}"#);
    let headers = [
        ("x-amz-invocation-type", "Event"),
        ("x-amz-client-context", context.as_str()),
        ("x-amzn-trace-id", "Root=1-2-3"),
    ];
    server.invoke("f:$LATEST", &headers, r#"{"a": 1}"#).await.ok(202);
    let call = server.call().await;
    assert_eq!(&call.call.payload[..], br#"{"a": 1}"#);
    assert_eq!(call.call.request_id, "11111111-2222-3333-4444-555555555555");
    assert_eq!(call.call.invoked_arn, format!("{ARN}:$LATEST"));
    assert_eq!(call.call.trace_id.as_deref(), Some("Root=1-2-3"));
    assert_eq!(call.call.client_context, None, "that is for synchronous calls");
    assert!(!call.call.want_log_tail);
    call.succeed();
    assert_eq!(server.holds(0, 0).await.succeeded, 1);
    server.send_event("f", "").await.ok(202);
    let empty = server.call().await;
    assert_eq!((&empty.call.payload[..], empty.call.invoked_arn.as_str()), (&b"{}"[..], ARN));
}

#[tokio::test]
async fn an_event_that_could_not_run_is_refused_before_it_is_accepted() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    assert_eq!(server.send_event("f", "{}").await.status, 404);
    server.create().await;
    assert_eq!(server.send_event("f:7", "{}").await.status, 404);
    assert_eq!(server.send_event("f", "x").await.status, 400);
    assert_eq!(server.figures.borrow().events, 0);
}

#[tokio::test]
async fn a_function_that_fails_gets_its_event_again_after_one_minute_and_two_more_and_then_no_more() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create_both().await;
    server.send_event("f", "{}").await.ok(202);
    let mut requests = Vec::new();
    for (before, at) in [(0, 0), (MINUTE, MINUTE), (2 * MINUTE, 3 * MINUTE)] {
        if before > 0 {
            server.advance(before - 1);
            server.nothing_else_runs(1).await;
            server.advance(1);
        }
        let call = server.call().await;
        assert_eq!(call.at, at);
        requests.push(call.call.request_id.clone());
        call.fail();
        server.holds(usize::from(at < 3 * MINUTE), 0).await;
    }
    assert_eq!(requests, ["11111111-2222-3333-4444-555555555555"; 3]);
    let figures = server.holds(0, 0).await;
    assert_eq!((figures.succeeded, figures.dropped), (2, 1));
}

#[tokio::test]
async fn an_event_that_is_not_run_comes_again_with_growing_pauses_and_loses_no_retry() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create().await;
    server.send_event("f", "{}").await.ok(202);
    let throttled = || Outcome::Throttled { reason: "ConcurrentInvocationLimitExceeded" };
    let mut due = 0;
    for (outcome, wait) in [(throttled(), 1_000), (Outcome::Fault("no process".into()), 2_000), (throttled(), 4_000)] {
        let call = server.call().await;
        assert_eq!(call.at, due);
        call.answer(outcome);
        server.holds(1, 0).await;
        due += wait;
        server.advance(wait);
    }
    // It has reached the function: three tries of its own are before it, whatever was before.
    let call = server.call().await;
    assert_eq!(call.at, due);
    call.fail();
    server.holds(1, 0).await;
    server.advance(MINUTE);
    server.call().await.fail();
    server.holds(1, 0).await;
    server.advance(2 * MINUTE);
    server.call().await.succeed();
    assert_eq!(server.holds(0, 0).await.succeeded, 1);
}

#[tokio::test]
async fn what_was_accepted_runs_after_a_crash_and_what_was_running_runs_again() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    server.create().await;
    server.send_event("f", r#"{"n":1}"#).await.ok(202);
    server.send_event("f", r#"{"n":2}"#).await.ok(202);
    drop(server);

    let mut server = Server::at(temp.path());
    assert_eq!(server.figures.borrow().events, 2);
    server = server.running();
    let (one, two) = (server.call().await, server.call().await);
    let mut payloads = [one.call.payload.clone(), two.call.payload.clone()];
    payloads.sort();
    assert_eq!(payloads, [&br#"{"n":1}"#[..], &br#"{"n":2}"#[..]]);
    one.succeed();
    server.holds(1, 1).await;
    // The second is under way, and nobody ever hears how it ended.
    server.functions.inner.events.crash();
    drop((server, two));

    let mut server = Server::at(temp.path()).running();
    let again = server.call().await;
    assert_eq!(again.call.request_id, "11111111-2222-3333-4444-555555555555");
    again.succeed();
    server.holds(0, 0).await;
    drop(server);
    assert_eq!(Server::at(temp.path()).figures.borrow().events, 0);
}

#[tokio::test]
async fn a_retry_and_the_age_of_an_event_outlive_a_restart_and_the_time_between_does_not_count() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create_both().await;
    let target = "/2019-09-25/functions/f/event-invoke-config";
    server.put(target, json!({"MaximumEventAgeInSeconds": 150})).await.ok(200);
    server.send_event("f", "{}").await.ok(202);
    server.call().await.fail();
    server.holds(1, 0).await;
    // Less than the clock is noted after by itself.
    server.advance(9_000);
    server.functions.stop_events(Duration::from_secs(20)).await;
    drop(server);

    // The clock of a new server starts at nothing; the rest of the minute is left, half of it for a third server.
    let mut server = Server::at(temp.path()).running();
    server.nothing_else_runs(1).await;
    server.advance(21_000);
    server.nothing_else_runs(1).await;
    server.functions.inner.events.crash();
    drop(server);

    let mut server = Server::at(temp.path()).running();
    server.advance(MINUTE / 2 - 1);
    server.nothing_else_runs(1).await;
    server.advance(1);
    server.call().await.fail();
    // The second retry would come at 180 seconds of age.
    assert_eq!(server.holds(0, 0).await.dropped, 1);
}

#[tokio::test]
async fn an_event_is_no_younger_than_those_that_came_after_it_whatever_was_noted() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    server.create().await;
    let target = "/2019-09-25/functions/f/event-invoke-config";
    server.put(target, json!({"MaximumEventAgeInSeconds": 60})).await.ok(200);
    server.send_event("f", r#"{"n":1}"#).await.ok(202);
    server.advance(50_000);
    server.send_event("f", r#"{"n":2}"#).await.ok(202);
    drop(server);

    let server = Server::at(temp.path());
    server.advance(10_001);
    let mut server = server.running();
    let call = server.call().await;
    assert_eq!(&call.call.payload[..], br#"{"n":2}"#);
    call.succeed();
    let figures = server.holds(0, 0).await;
    assert_eq!((figures.succeeded, figures.dropped), (1, 1));
}

#[tokio::test]
async fn an_event_that_could_not_be_stored_is_not_accepted_and_takes_no_room() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::with(temp.path(), |settings| settings.events.bounds.events_max = 2);
    server.create().await;
    let other = rusqlite::Connection::open(temp.path().join("records.db")).unwrap();
    other.execute_batch("CREATE TRIGGER no BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'no'); END").unwrap();
    for _ in 0..2 {
        server.send_event("f", "{}").await.fails(
            500,
            "ServiceException",
            "An error occurred and the request cannot be processed.",
        );
    }
    other.execute_batch("DROP TRIGGER no").unwrap();
    server.send_event("f", "{}").await.ok(202);
    assert_eq!(server.figures.borrow().events, 1);
}

#[tokio::test]
async fn an_event_runs_the_code_that_is_there_when_it_runs() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    server.create_published().await;
    server.send_event("f", "{}").await.ok(202);
    server.send_event("f:1", "{}").await.ok(202);
    let newer = encoded(&zip(&[file("handler.py", b"newer")]));
    server.put("/2015-03-31/functions/f/code", json!({"ZipFile": newer})).await.ok(200);
    let mut server = server.running();
    for _ in 0..2 {
        let call = server.call().await;
        let code = std::fs::read(call.deployment.code_dir.join("handler.py")).unwrap();
        assert_eq!(code == b"newer", call.deployment.version == "$LATEST", "{}", call.deployment.version);
        call.succeed();
    }
    server.holds(0, 0).await;
}

#[tokio::test]
async fn an_alias_leads_an_event_to_where_it_points_when_it_runs() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    server.create_published().await;
    server.post("/2015-03-31/functions/f/aliases", json!({"Name": "live", "FunctionVersion": "1"})).await.ok(201);
    server.send_event("f:live", "{}").await.ok(202);
    let newer = encoded(&zip(&[file("handler.py", b"newer")]));
    server.put("/2015-03-31/functions/f/code", json!({"ZipFile": newer, "Publish": true})).await.ok(200);
    server.configuration().await;
    let mut server = server.running();
    let alias = "/2015-03-31/functions/f/aliases/live";
    let first = server.call().await;
    assert_eq!((first.deployment.version.as_str(), first.call.invoked_arn), ("1", format!("{ARN}:live")));
    server.put(alias, json!({"FunctionVersion": "2"})).await.ok(200);
    first.reply.send(Outcome::Throttled { reason: "ConcurrentInvocationLimitExceeded" }).unwrap();
    server.holds(1, 0).await;
    server.advance(1_000);
    let second = server.call().await;
    assert_eq!(second.deployment.version, "2");
    second.succeed();
    server.holds(0, 0).await;
    // A share of 1 goes to the other version, each time.
    let weights = json!({"RoutingConfig": {"AdditionalVersionWeights": {"1": 1.0}}});
    server.put(alias, weights).await.ok(200);
    server.send_event("f:live", "{}").await.ok(202);
    let drawn = server.call().await;
    assert_eq!(drawn.deployment.version, "1");
    drawn.fail();
    server.holds(1, 0).await;
    server.delete(alias).await.ok(204);
    server.advance(MINUTE);
    assert_eq!(server.holds(0, 0).await.dropped, 1);
}

#[tokio::test]
async fn what_is_set_for_an_alias_or_a_version_goes_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    server.create_published().await;
    let aliases = "/2015-03-31/functions/f/aliases";
    let live = json!({"Name": "live", "FunctionVersion": "$LATEST"});
    server.post(aliases, live.clone()).await.ok(201);
    for qualifier in ["live", "1"] {
        let target = format!("/2019-09-25/functions/f:{qualifier}/event-invoke-config");
        server.put(&target, json!({"MaximumRetryAttempts": 0})).await.ok(200);
    }
    server.delete(&format!("{aliases}/live")).await.ok(204);
    server.delete("/2015-03-31/functions/f?Qualifier=1").await.ok(204);
    let list = "/2019-09-25/functions/f/event-invoke-config/list";
    assert_eq!(server.get(list).await.ok(200).body, json!({"FunctionEventInvokeConfigs": []}));
    server.post(aliases, live).await.ok(201);
    assert_eq!(server.get("/2019-09-25/functions/f:live/event-invoke-config").await.status, 404);
}

#[tokio::test]
async fn events_of_a_function_that_is_deleted_are_dropped_and_never_reach_one_made_after_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create().await;
    server.send_event("f", "{}").await.ok(202);
    server.call().await.fail();
    server.holds(1, 0).await;
    server.delete("/2015-03-31/functions/f").await.ok(204);
    server.create_both().await;
    server.advance(MINUTE);
    assert_eq!(server.holds(0, 0).await.dropped, 1);
    server.nothing_else_runs(0).await;
    // A version that is gone drops its own events alone.
    server.post("/2015-03-31/functions/f/versions", json!({})).await.ok(201);
    server.send_event("f:1", "{}").await.ok(202);
    server.call().await.fail();
    server.holds(1, 0).await;
    server.send_event("f", "{}").await.ok(202);
    server.delete("/2015-03-31/functions/f?Qualifier=1").await.ok(204);
    let other = server.call().await;
    server.advance(MINUTE);
    let figures = server.holds(1, 1).await;
    assert_eq!(figures.dropped, 2);
    other.succeed();
}

#[tokio::test]
async fn a_function_that_is_switched_off_has_its_events_discarded_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create_both().await;
    server.send_event("f", "{}").await.ok(202);
    server.call().await.fail();
    server.holds(1, 0).await;
    let off = json!({"ReservedConcurrentExecutions": 0});
    server.put("/2017-10-31/functions/f/concurrency", off).await.ok(200);
    // Accepted, as on AWS; and it takes the one along that waits for its retry.
    server.send_event("f", "{}").await.ok(202);
    assert_eq!(server.holds(0, 0).await.dropped, 2);
    let stats = server.get("/_longshore/v1/functions/f/stats").await.ok(200).body;
    assert_eq!(
        (&stats["eventsDropped"], &stats["eventsDroppedByReason"]),
        (&json!(2), &json!({"ZeroReservedConcurrency": 2}))
    );
    server.delete("/2017-10-31/functions/f/concurrency").await.ok(204);
    server.advance(5 * MINUTE);
    server.nothing_else_runs(0).await;
    drop(server);
    assert_eq!(Server::at(temp.path()).figures.borrow().events, 0);
}

#[tokio::test]
async fn a_queue_that_is_full_throttles_one_function_and_has_room_for_another() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::with(temp.path(), |settings| settings.events.bounds.events_max = 4);
    server.create_both().await;
    server.send_event("f", "{}").await.ok(202);
    server.send_event("f", "{}").await.ok(202);
    let full = server.send_event("f", "{}").await;
    full.fails(429, "TooManyRequestsException", "Rate Exceeded.");
    assert_eq!(full.body["Reason"], "FunctionInvocationRateLimitExceeded");
    assert_eq!(full.header("retry-after"), "1");
    server.send_event("other", "{}").await.ok(202);
    server = server.running();
    for _ in 0..3 {
        server.call().await.succeed();
    }
    server.holds(0, 0).await;
    server.send_event("f", "{}").await.ok(202);
}

#[tokio::test]
async fn events_are_bounded_by_the_bytes_of_their_payloads_too() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::with(temp.path(), |settings| settings.events.bounds.bytes_max = 200);
    server.create().await;
    let payload = |n: usize| format!("\"{}\"", "x".repeat(n - 2));
    assert_eq!(server.send_event("f", &payload(101)).await.status, 429);
    server.send_event("f", &payload(100)).await.ok(202);
    assert_eq!(server.send_event("f", "1").await.status, 429);
}

#[tokio::test]
async fn a_function_that_takes_long_does_not_hold_up_the_events_of_another() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create_both().await;
    for _ in 0..20 {
        server.send_event("f", "{}").await.ok(202);
    }
    let slow = server.holds(20, 4).await;
    assert_eq!(slow.running, 4, "half of the eight that the host could run");
    let mut hanging = Vec::new();
    for _ in 0..4 {
        hanging.push(server.call().await);
    }
    for _ in 0..10 {
        server.send_event("other", "{}").await.ok(202);
        let call = server.call().await;
        assert_eq!(call.deployment.name, "other");
        call.succeed();
        server.holds(20, 4).await;
    }
    // One that is done makes room for the next one of its own.
    hanging.pop().unwrap().succeed();
    server.holds(19, 4).await;
    assert_eq!(server.call().await.deployment.name, "f");
}

#[tokio::test]
async fn what_is_set_for_a_qualifier_holds_for_what_is_invoked_by_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create_published().await;
    server.create_other().await;
    let target = "/2019-09-25/functions/f/event-invoke-config";
    server.put(&format!("{target}?Qualifier=1"), json!({"MaximumRetryAttempts": 0})).await.ok(200);
    server.send_event("f:1", "{}").await.ok(202);
    server.call().await.fail();
    assert_eq!(server.holds(0, 0).await.dropped, 1);
    // Unqualified is `$LATEST`, for which nothing is set.
    server.send_event("f", "{}").await.ok(202);
    server.call().await.fail();
    server.holds(1, 0).await;
    // What is set while an event waits counts when it is judged again.
    server.put(target, json!({"MaximumRetryAttempts": 1})).await.ok(200);
    server.advance(MINUTE);
    server.call().await.fail();
    assert_eq!(server.holds(0, 0).await.dropped, 2);
    // An event that grew too old while it waited for its turn does not run.
    server.put(target, json!({"MaximumEventAgeInSeconds": 60})).await.ok(200);
    server.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 1})).await.ok(200);
    server.send_event("f", "{}").await.ok(202);
    server.send_event("f", "{}").await.ok(202);
    let first = server.call().await;
    server.advance(MINUTE + 1);
    first.succeed();
    let figures = server.holds(0, 0).await;
    assert_eq!((figures.succeeded, figures.dropped), (1, 3));
    server.nothing_else_runs(0).await;
}

#[tokio::test]
async fn a_server_that_stops_lets_running_events_end_and_keeps_the_others() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create().await;
    server.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 1})).await.ok(200);
    server.send_event("f", r#"{"n":1}"#).await.ok(202);
    server.send_event("f", r#"{"n":2}"#).await.ok(202);
    let first = server.call().await;
    let functions = server.functions.clone();
    let stopped = tokio::spawn(async move { functions.stop_events(Duration::from_secs(20)).await });
    while !server.functions.inner.events.is_stopping() {
        tokio::task::yield_now().await;
    }
    // Accepted still, and kept for the next start.
    server.send_event("f", r#"{"n":3}"#).await.ok(202);
    first.succeed();
    stopped.await.unwrap();
    assert_eq!(server.holds(2, 0).await.succeeded, 1);
    assert!(server.calls.try_recv().is_err());
    drop(server);

    let mut server = Server::at(temp.path()).running();
    for payload in [&br#"{"n":2}"#[..], br#"{"n":3}"#] {
        let call = server.call().await;
        assert_eq!(call.call.payload, payload);
        call.succeed();
    }
    server.holds(0, 0).await;
}

#[tokio::test]
async fn an_event_that_outlasts_the_stop_is_given_up_and_runs_again() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path()).running();
    server.create().await;
    server.send_event("f", "{}").await.ok(202);
    let hanging = server.call().await;
    server.functions.stop_events(Duration::ZERO).await;
    drop((server, hanging));
    let mut server = Server::at(temp.path()).running();
    server.call().await.succeed();
    assert_eq!(server.holds(0, 0).await.succeeded, 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_event_is_stored_leaves_it_stored_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::at(temp.path());
    server.create().await;
    server.get("/2015-03-31/functions/f").await.ok(200);
    {
        let mut sending = Box::pin(server.send_event("f", "{}"));
        // Polled until it waits for the disk, and then dropped.
        assert!(futures::poll!(&mut sending).is_pending());
    }
    server.holds(1, 0).await;
    server = server.running();
    server.call().await.succeed();
    assert_eq!(server.holds(0, 0).await.succeeded, 1);
}

#[tokio::test]
async fn how_events_are_tried_is_put_updated_shown_listed_and_deleted_by_qualifier() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::at(temp.path());
    let target = "/2019-09-25/functions/f/event-invoke-config";
    let none = |suffix: &str| format!("The function {ARN}:{suffix} doesn't have an EventInvokeConfig");
    let (missing, parameter, constraint) =
        ("ResourceNotFoundException", "InvalidParameterValueException", "ValidationException");
    let retries = |n: i64| json!({"MaximumRetryAttempts": n});
    // That nothing is given is found before whether the function is there.
    let nothing = "You must specify at least one of error handling or destination setting.";
    server.put(target, json!({})).await.fails(400, parameter, nothing);
    server.post(target, json!({})).await.fails(400, parameter, nothing);
    server.put(target, retries(1)).await.fails(404, missing, "The function doesn't exist.");
    server.post(target, retries(1)).await.fails(404, missing, "The function doesn't exist.");
    server.get(&format!("{target}/list")).await.fails(404, missing, "The function doesn't exist.");
    server.get(target).await.fails(404, missing, &none("$LATEST"));
    server.delete(target).await.fails(404, missing, &none("$LATEST"));
    server.create_published().await;
    server.post(target, retries(1)).await.fails(404, missing, &none("$LATEST"));
    server.put(&format!("{target}?Qualifier=7"), retries(1)).await.fails(404, missing, "The function doesn't exist.");
    server.get(&format!("{target}?Qualifier=7")).await.fails(404, missing, &none("7"));
    let mismatch = "The derived qualifier from the function name does not match the specified qualifier.";
    let one = "/2019-09-25/functions/f:1/event-invoke-config";
    server.put(&format!("{one}?Qualifier=$LATEST"), retries(1)).await.fails(400, parameter, mismatch);

    let both = json!({"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 21_600});
    let mut put = server.put(target, both).await.ok(200).body;
    assert!(put["LastModified"].as_f64().is_some_and(|s| s > 1_600_000_000.0 && s < 10_000_000_000.0), "{put}");
    put.as_object_mut().unwrap().remove("LastModified");
    let empty = json!({"OnSuccess": {}, "OnFailure": {}});
    let shape = |qualifier: &str, more: Value| {
        let mut shape = json!({"FunctionArn": format!("{ARN}:{qualifier}"), "DestinationConfig": empty});
        shape.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        shape
    };
    let without_date = |mut shape: Value| {
        shape.as_object_mut().unwrap().remove("LastModified");
        shape
    };
    assert_eq!(put, shape("$LATEST", json!({"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 21_600})));
    // Put leaves nothing of what was there, Update what it does not name.
    let put = server.put(target, retries(0)).await.ok(200).body;
    assert_eq!(without_date(put), shape("$LATEST", json!({"MaximumRetryAttempts": 0})));
    let updated = server.post(target, json!({"MaximumEventAgeInSeconds": 60})).await.ok(200).body;
    let all = shape("$LATEST", json!({"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}));
    assert_eq!(without_date(updated), all);
    assert_eq!(without_date(server.get(&format!("{target}?Qualifier=$LATEST")).await.ok(200).body), all);
    assert_eq!(without_date(server.put(one, retries(1)).await.ok(200).body), shape("1", retries(1)));
    let no_destination = json!({"DestinationConfig": {"OnFailure": {}, "OnSuccess": {"Destination": ""}}});
    assert_eq!(without_date(server.put(target, no_destination).await.ok(200).body), shape("$LATEST", json!({})));

    for (body, code, message) in [
        (
            retries(3),
            constraint,
            "1 validation error detected: Value '3' at 'maximumRetryAttempts' failed to satisfy constraint: Member must have value less than or equal to 2",
        ),
        (
            retries(-1),
            constraint,
            "1 validation error detected: Value '-1' at 'maximumRetryAttempts' failed to satisfy constraint: Member must have value greater than or equal to 0",
        ),
        (
            json!({"MaximumEventAgeInSeconds": 59}),
            constraint,
            "1 validation error detected: Value '59' at 'maximumEventAgeInSeconds' failed to satisfy constraint: Member must have value greater than or equal to 60",
        ),
        (
            json!({"MaximumEventAgeInSeconds": 21_601}),
            constraint,
            "1 validation error detected: Value '21601' at 'maximumEventAgeInSeconds' failed to satisfy constraint: Member must have value less than or equal to 21600",
        ),
        (
            json!({"DestinationConfig": {"OnFailure": {"Destination": "q"}}}),
            constraint,
            "1 validation error detected: Value 'q' at 'destinationConfig.onFailure.destination' failed to satisfy constraint: Member must satisfy regular expression pattern: $|kafka://([^.]([a-zA-Z0-9\\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\\-])+:([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1})?:(\\d{12})?:(.*)",
        ),
        (
            json!({"DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:sqs:us-east-1:111111111111:q"}}}),
            parameter,
            "A Destination in DestinationConfig is not supported by this server.",
        ),
        (json!({"DestinationConfig": {"OnWeekends": {}}}), parameter, "The member OnWeekends is not known here."),
    ] {
        server.put(target, body).await.fails(400, code, message);
    }

    let page = server.get(&format!("{target}/list?MaxItems=1")).await.ok(200).body;
    assert_eq!(page["FunctionEventInvokeConfigs"][0]["FunctionArn"], format!("{ARN}:$LATEST"));
    let marker = page["NextMarker"].as_str().unwrap();
    let page = server.get(&format!("{target}/list?MaxItems=1&Marker={marker}")).await.ok(200).body;
    assert_eq!(page["FunctionEventInvokeConfigs"][0]["FunctionArn"], format!("{ARN}:1"));
    assert_eq!(page["NextMarker"], Value::Null);
    assert_eq!(server.get(&format!("{target}/list?MaxItems=51")).await.error().1, constraint);
    drop(server);

    let server = Server::at(temp.path());
    assert_eq!(without_date(server.get(one).await.ok(200).body), shape("1", retries(1)), "it outlives the server");
    server.delete(one).await.ok(204);
    server.delete(one).await.fails(404, missing, &none("1"));
    server.delete("/2015-03-31/functions/f").await.ok(204);
    server.create().await;
    server.get(target).await.fails(404, missing, &none("$LATEST"));
}
