//! What every ledger has to do, as one suite: [`all`], which each implementation runs on itself.
//!
//! A case knows nothing but [`Ledger`], and of what is examined only what [`Subject`] says. Where state outlives the
//! process, it is closed and opened again between any two steps of a case.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::job::{Event, Status};
use longshore_core::lease::{Epoch, Worker};
use longshore_core::record::{Entries, Entry};
use longshore_core::task::{Outcome, Task, VersionId};
use longshore_core::time::{Age, Tick, Timestamp};
use longshore_store::{Position, StoreError};
use longshore_wire::event::JobEvent;

use super::{After, Appended, Change, Created, DeliveryState, Duty, Fence, JobRow, Ledger, MoveError, Terms, Try};
use crate::Settings;
use crate::error::{FailureReason, JobError};
use crate::ports::{EventSink, SinkError};
use crate::shape::NewJob;

/// A ledger that is examined.
#[async_trait]
pub trait Subject: Send {
    /// One more server on it. Where only one server at a time can be, those before it are gone.
    async fn server(&mut self) -> Arc<dyn Ledger>;

    /// Whether several servers can be on it at once.
    fn is_shared(&self) -> bool;

    /// Leaves half a frame behind the results of a job, as a power cut in the middle of an append does. Nobody has them
    /// open any more, and the lease is the caller's.
    async fn tear(&mut self, fence: &Fence);
}

/// The clocks that a case sets. The first values: some moment of 2019, and 0.
#[derive(Clone)]
pub struct Clocks {
    /// Milliseconds since 1970.
    pub wall: Arc<AtomicI64>,
    /// Milliseconds of the ledger's clock, by which leases run out.
    pub ledger: Arc<AtomicU64>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { wall: Arc::new(AtomicI64::new(1_570_139_328_048)), ledger: Arc::default() }
    }
}

impl Clocks {
    pub fn tick(&self) -> Tick {
        Tick(self.ledger.load(Ordering::SeqCst))
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    /// Lets time pass on both.
    pub fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).expect("a case lasts no such time");
        self.ledger.fetch_add(ms, Ordering::SeqCst);
        self.wall.fetch_add(ms as i64, Ordering::SeqCst);
    }
}

/// How long leases last on what is examined, if they run out.
pub const TERM: Duration = Duration::from_secs(60);

const ACCOUNT: &str = "123456789012";
const SINKS: [&str; 2] = ["first", "second"];

/// The settings of every server that is examined.
pub fn settings(clocks: &Clocks) -> Settings {
    let (clocks, own) = (clocks.clone(), clocks.clone());
    let mut settings = Settings::new(ACCOUNT, "us-west-2");
    settings.wall_clock = Arc::new(move || clocks.now());
    settings.running = Arc::new(move || own.tick());
    settings.event_sinks = SINKS.map(|name| Arc::new(Named(name)) as Arc<dyn EventSink>).to_vec();
    settings
}

/// A sink of which nothing but its name matters: a ledger only keeps what it is owed.
struct Named(&'static str);

#[async_trait]
impl EventSink for Named {
    fn name(&self) -> &str {
        self.0
    }

    async fn deliver(&self, _: &JobEvent) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A request with this token and priority.
pub fn request(token: &str, priority: u32) -> NewJob {
    let text = format!(
        "<CreateJobRequest><Operation><LambdaInvoke>
           <FunctionArn>arn:aws:lambda:us-west-2:{ACCOUNT}:function:f</FunctionArn></LambdaInvoke></Operation>
         <Report><Enabled>false</Enabled></Report><ClientRequestToken>{token}</ClientRequestToken>
         <Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format>
           <Fields><member>Bucket</member><member>Key</member></Fields></Spec>
           <Location><ObjectArn>arn:aws:s3:::m/list.csv</ObjectArn><ETag>e1</ETag></Location></Manifest>
         <Priority>{priority}</Priority><RoleArn>arn:aws:iam::{ACCOUNT}:role/r</RoleArn>
         <Tags><member><Key>a</Key><Value>1</Value></member><member><Key>b</Key><Value /></member></Tags>
         </CreateJobRequest>"
    );
    NewJob::parse(text.as_bytes(), &Settings::new(ACCOUNT, "us-west-2")).expect("the request is sound")
}

/// Settled tasks of these rows; each third has failed.
pub fn settled(rows: std::ops::Range<u64>) -> Arc<Entries> {
    let entry = |row: u64| {
        let task = Task { row, number: row, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn };
        let outcome = match row % 3 {
            0 => Outcome::failed(200, "PermanentFailure", "no"),
            _ => Outcome::succeeded("yes"),
        };
        Entry::Settled { task: Arc::new(task), attempts: 1, outcome }
    };
    Arc::new(rows.map(entry).collect())
}

/// The rows of the settled tasks behind a position, and where they end.
pub fn read(ledger: &dyn Ledger, id: &str, from: Position) -> Result<(Vec<u64>, Position), StoreError> {
    let mut rows = Vec::new();
    let to = ledger.read_results(id, from, &mut |payload| {
        Entry::decode_all(payload, |entry| rows.push(entry.task().row)).expect("what is read was written");
    })?;
    Ok((rows, to))
}

/// A case under way: what is examined, and the server that is asked now.
struct Case<'a> {
    subject: &'a mut dyn Subject,
    clocks: Clocks,
    ledger: Arc<dyn Ledger>,
}

type Story = for<'a, 'b> fn(&'a mut Case<'b>) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The cases by name.
const CASES: &[(&str, Story)] = &[
    ("a token makes one job, and no other request gets it", |case| Box::pin(tokens(case))),
    ("pages of jobs are newest first and miss and repeat nothing", |case| Box::pin(pages(case))),
    ("a job makes legal moves alone, each with its event", |case| Box::pin(moves(case))),
    ("of two who race for a move one makes it", |case| Box::pin(races(case))),
    ("no more jobs hold a slot than there are", |case| Box::pin(slots(case))),
    ("tags and priority are what was set last, as long as it may be", |case| Box::pin(tags_and_priority(case))),
    ("a job that is over is kept for its time, and then gone with all of it", |case| Box::pin(retention(case))),
    ("each sink is owed each event, in order for each job", |case| Box::pin(deliveries(case))),
    ("a duty is one server's, until it is given back or runs out", |case| Box::pin(leases(case))),
    ("nothing of a stale owner is written, before and after the new owner's own", |case| Box::pin(stale(case))),
    ("a sink's lease is none for a job, and a job's none for a sink", |case| Box::pin(kinds(case))),
    ("what an agent notes only grows, and survives", |case| Box::pin(notes(case))),
    ("results that were acknowledged are there, once and in order", |case| Box::pin(results(case))),
    ("a torn frame is gone, and the next follows behind whole ones", |case| Box::pin(torn(case))),
    ("whoever had results open before appends no more", |case| Box::pin(reopened(case))),
    ("a job is halted when its holder says so, or there is none", |case| Box::pin(halted(case))),
    ("whoever waits for changes hears of them", |case| Box::pin(announced(case))),
];

/// Examines an implementation, each case on one that `make` makes anew with these clocks. Panics at the first fault.
pub async fn all<S: Subject>(make: impl AsyncFn(Clocks) -> S) {
    for (name, story) in CASES {
        let clocks = Clocks::default();
        let mut subject = make(clocks.clone()).await;
        let ledger = subject.server().await;
        println!("{name}");
        story(&mut Case { subject: &mut subject, clocks, ledger }).await;
    }
}

impl Case<'_> {
    /// Goes on at another server; the one before may still be there, see [`Subject::server`].
    async fn another(&mut self) {
        self.ledger = self.subject.server().await;
    }

    /// Closes the ledger and opens it again, if it is one that can be.
    async fn again(&mut self) {
        if !self.subject.is_shared() {
            self.another().await;
        }
    }

    async fn create(&mut self, id: &str) {
        let created = self.ledger.create(id.into(), request(&format!("token of {id}"), 10)).await;
        assert_eq!(created.expect("it is new"), Created::New);
    }

    async fn job(&self, id: &str) -> JobRow {
        self.ledger.job(id).await.expect("it can be read").expect("it is there")
    }

    async fn moved(&self, id: &str, events: &[Event]) {
        for event in events {
            let moved = self.ledger.transition(id, Terms::Legal, *event, Change::default()).await;
            moved.unwrap_or_else(|error| panic!("{id} {event:?}: {error}"));
        }
    }

    /// The lease of a job at the server that is asked now.
    async fn lease(&self, id: &str) -> Fence {
        self.try_lease(&Duty::Job(id.into())).await.expect("nobody has it")
    }

    async fn try_lease(&self, duty: &Duty) -> Option<Fence> {
        let lease = self.ledger.lease(duty).await.expect("it can be asked for")?;
        assert_eq!((&lease.fence.duty, lease.rows.clone()), (duty, super::ALL_ROWS));
        Some(lease.fence)
    }

    async fn events(&self, id: &str) -> Vec<(u64, String)> {
        let (events, more) = self.ledger.events(ACCOUNT, id, 0, 1_000).await.unwrap().expect("it is there");
        assert!(!more);
        events.into_iter().map(|kept| (kept.number, kept.event.status)).collect()
    }
}

const READ: Event = Event::ManifestRead { confirmation_required: false };
const TO_ACTIVE: [Event; 3] = [Event::PickedUp, READ, Event::SlotGranted];

async fn tokens(case: &mut Case<'_>) {
    assert_eq!(case.ledger.create("1".into(), request("t", 10)).await.unwrap(), Created::New);
    case.again().await;
    for repeated in ["1", "2"] {
        let created = case.ledger.create(repeated.into(), request("t", 10)).await.unwrap();
        assert_eq!(created, Created::Before("1".into()));
    }
    let other = case.ledger.create("3".into(), request("t", 11)).await;
    assert!(matches!(other, Err(JobError::TokenReused)), "{other:?}");
    assert_eq!(case.ledger.create("4".into(), request("u", 11)).await.unwrap(), Created::New);
    // Two at once.
    let (a, b) = futures::join!(
        case.ledger.create("5".into(), request("v", 1)),
        case.ledger.create("6".into(), request("v", 1))
    );
    let (made, before) = if matches!(a, Ok(Created::New)) { ("5", b) } else { ("6", a) };
    assert_eq!(before.unwrap(), Created::Before(made.into()));
    case.again().await;
    let job = case.job("1").await;
    assert_eq!((job.request, job.status, job.rev, job.lineage), (request("t", 10), Status::New, 1, "1".into()));
    assert_eq!((job.priority, job.rows_total, job.succeeded, job.failed, job.active_ms), (10, 0, 0, 0, 0));
    assert_eq!((job.created, job.suspended, job.terminated), (case.clocks.now(), None, None));
    assert_eq!(case.events("1").await, [(1, "New".to_owned())]);
    for none in ["2", "3"] {
        assert!(case.ledger.job(none).await.unwrap().is_none());
        assert!(case.ledger.events(ACCOUNT, none, 0, 1).await.unwrap().is_none());
    }
    assert!(case.ledger.events("999999999999", "1", 0, 1).await.unwrap().is_none());
}

async fn pages(case: &mut Case<'_>) {
    // By the names alone, which break ties, the order would be the other way round.
    for n in 1..6 {
        case.create(&format!("{n}")).await;
        if n == 3 {
            case.clocks.pass(Duration::from_secs(1));
        }
    }
    case.moved("2", &[Event::PickedUp]).await;
    case.again().await;
    let alive = case.ledger.alive().await.unwrap();
    assert_eq!(alive.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, more) = case.ledger.list(vec![], after, 2).await.unwrap();
        seen.extend(page.iter().map(|job| job.id.clone()));
        after = page.last().map(|last| After { created: last.created.0, id: last.id.clone() });
        if !more {
            break;
        }
        // What is made meanwhile is newer than all of them.
        case.create(&format!("later {}", seen.len())).await;
        case.again().await;
    }
    assert_eq!(seen, ["5", "4", "3", "2", "1"]);
    let (preparing, more) = case.ledger.list(vec![Status::Preparing, Status::Active], None, 1).await.unwrap();
    assert_eq!((preparing[0].id.as_str(), preparing.len(), more), ("2", 1, false));
}

async fn moves(case: &mut Case<'_>) {
    case.create("j").await;
    let illegal = case.ledger.transition("j", Terms::Legal, Event::SlotGranted, Change::default()).await;
    assert!(matches!(illegal, Err(MoveError::Illegal(_))), "{illegal:?}");
    let none = case.ledger.transition("nobody", Terms::Legal, Event::PickedUp, Change::default()).await;
    assert!(matches!(none, Err(MoveError::NotFound)), "{none:?}");
    case.moved("j", &[Event::PickedUp]).await;
    case.again().await;
    case.clocks.pass(Duration::from_secs(1));
    let suspended = case.clocks.now();
    let read = Event::ManifestRead { confirmation_required: true };
    let change = Change { rows_total: Some(7), lineage: Some("origin".into()), ..Change::default() };
    assert_eq!(case.ledger.transition("j", Terms::Legal, read, change).await.unwrap(), Status::Suspended);
    case.again().await;
    let job = case.job("j").await;
    assert_eq!((job.rows_total, job.lineage.as_str(), job.suspended), (7, "origin", Some(suspended)));
    assert_eq!(job.rev, 3);
    case.moved("j", &[Event::Confirmed, Event::SlotGranted]).await;
    let failure = |code: &str| Some(FailureReason::new(code, "why"));
    let change = Change { counts: Some((2, 3)), failure_reason: failure("A"), ..Change::default() };
    assert_eq!(case.ledger.transition("j", Terms::Legal, Event::TasksFailed, change).await.unwrap(), Status::Failing);
    case.again().await;
    case.clocks.pass(Duration::from_secs(1));
    // The same reason again adds nothing, and counts do not go back.
    let change = Change { counts: Some((1, 4)), failure_reason: failure("A"), ..Change::default() };
    assert_eq!(case.ledger.transition("j", Terms::Legal, Event::Failed, change).await.unwrap(), Status::Failed);
    case.again().await;
    let job = case.job("j").await;
    assert_eq!((job.succeeded, job.failed, job.failure_reasons.len()), (2, 4, 1));
    assert_eq!((job.status, job.terminated), (Status::Failed, Some(case.clocks.now())));
    let over = case.ledger.transition("j", Terms::Legal, Event::CancelRequested, Change::default()).await;
    assert!(matches!(over, Err(MoveError::Illegal(_))), "{over:?}");
    let states = ["New", "Preparing", "Suspended", "Ready", "Active", "Failing", "Failed"];
    let numbered: Vec<_> = (1..).zip(states.map(str::to_owned)).collect();
    assert_eq!(case.events("j").await, numbered);
    let (kept, more) = case.ledger.events(ACCOUNT, "j", 5, 1).await.unwrap().unwrap();
    assert_eq!((kept[0].number, kept[0].event.failure_codes.as_slice(), more), (6, ["A".to_owned()].as_slice(), true));

    // A cancel that is repeated is no event, and changes the reason alone; the last state has the first one's.
    case.create("c").await;
    let reason = |text: &str| Change { status_update_reason: Some(text.into()), ..Change::default() };
    let cancel = Event::CancelRequested;
    for (text, rev) in [("no", 2), ("no, really", 3)] {
        let moved = case.ledger.transition("c", Terms::Legal, cancel, reason(text)).await;
        assert_eq!(moved.unwrap(), Status::Cancelling);
        case.again().await;
        let job = case.job("c").await;
        assert_eq!((job.status_update_reason.as_deref(), job.rev), (Some(text), rev));
    }
    case.moved("c", &[cancel, Event::ReportWritten]).await;
    case.again().await;
    let (kept, _) = case.ledger.events(ACCOUNT, "c", 0, 10).await.unwrap().unwrap();
    let told: Vec<_> = kept.iter().map(|k| (k.event.status.as_str(), k.event.status_change_reason.clone())).collect();
    let no = vec!["no".to_owned()];
    assert_eq!(told, [("New", vec![]), ("Cancelling", no.clone()), ("Cancelled", no)]);
    let ids: std::collections::BTreeSet<_> = kept.iter().map(|k| k.event.job_event_id.clone()).collect();
    assert_eq!(ids.len(), 3);

    // A job whose sample has run takes some events otherwise.
    case.create("s").await;
    case.moved("s", &TO_ACTIVE).await;
    assert!(!case.job("s").await.sampled);
    case.moved("s", &[Event::SampleFinished]).await;
    case.again().await;
    assert!(case.job("s").await.sampled);
    case.moved("s", &[cancel]).await;
    assert_eq!(case.job("s").await.status, Status::Cancelling);
}

async fn races(case: &mut Case<'_>) {
    case.create("j").await;
    let rev = case.job("j").await.rev;
    let other = if case.subject.is_shared() { case.subject.server().await } else { Arc::clone(&case.ledger) };
    let pick = |ledger: Arc<dyn Ledger>| async move {
        ledger.transition("j", Terms::Unchanged(rev), Event::PickedUp, Change::default()).await
    };
    let (a, b) = futures::join!(pick(Arc::clone(&case.ledger)), pick(other));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    assert_eq!(won.unwrap(), Status::Preparing);
    assert!(matches!(lost, Err(MoveError::Overtaken)), "{lost:?}");
    case.again().await;
    assert_eq!(case.events("j").await.len(), 2, "who lost has left no event");
    // What is legal is refused all the same once something has changed, and taken as long as nothing has.
    let rev = case.job("j").await.rev;
    case.ledger.set_priority("j", 5).await.unwrap();
    let stale = case.ledger.transition("j", Terms::Unchanged(rev), READ, Change::default()).await;
    assert!(matches!(stale, Err(MoveError::Overtaken)), "{stale:?}");
    case.again().await;
    let rev = case.job("j").await.rev;
    let moved = case.ledger.transition("j", Terms::Unchanged(rev), READ, Change::default()).await;
    assert_eq!(moved.unwrap(), Status::Ready);
    assert_eq!(case.job("j").await.rev, rev + 1);
}

async fn slots(case: &mut Case<'_>) {
    for id in ["a", "b", "c"] {
        case.create(id).await;
        case.moved(id, &[Event::PickedUp, READ]).await;
    }
    let grant = async |ledger: &dyn Ledger, id: &str, slots: usize| {
        let rev = ledger.job(id).await.unwrap().unwrap().rev;
        ledger.transition(id, Terms::Slot { rev, slots }, Event::SlotGranted, Change::default()).await
    };
    assert_eq!(grant(&*case.ledger, "a", 2).await.unwrap(), Status::Active);
    case.again().await;
    // Two that saw one free slot.
    let (b, c) = futures::join!(grant(&*case.ledger, "b", 2), grant(&*case.ledger, "c", 2));
    assert!(b.is_ok() != c.is_ok(), "{b:?} {c:?}");
    case.moved("a", &[Event::Preempted]).await;
    let waits = if b.is_ok() { "c" } else { "b" };
    // A job that pauses still holds its slot.
    assert!(matches!(grant(&*case.ledger, waits, 2).await, Err(MoveError::Overtaken)));
    case.moved("a", &[Event::Drained]).await;
    case.again().await;
    assert_eq!(grant(&*case.ledger, waits, 2).await.unwrap(), Status::Active);
    let rev = case.job("a").await.rev;
    let late = Terms::Slot { rev: rev - 1, slots: 9 };
    let late = case.ledger.transition("a", late, Event::SlotGranted, Change::default()).await;
    assert!(matches!(late, Err(MoveError::Overtaken)), "{late:?}");
}

async fn tags_and_priority(case: &mut Case<'_>) {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    case.create("j").await;
    assert_eq!(case.ledger.tags("j").await.unwrap(), [tag("a", "1"), tag("b", "")]);
    let set = vec![tag("z", "1"), tag("a", "2")];
    for _ in 0..2 {
        case.ledger.set_tags("j", set.clone()).await.unwrap();
        case.again().await;
        assert_eq!(case.ledger.tags("j").await.unwrap(), set, "in their order");
    }
    case.ledger.set_tags("j", vec![]).await.unwrap();
    assert!(case.ledger.tags("j").await.unwrap().is_empty());
    for _ in 0..2 {
        case.ledger.set_priority("j", 77).await.unwrap();
        case.again().await;
        assert_eq!(case.job("j").await.priority, 77);
    }
    case.moved("j", &[Event::CancelRequested]).await;
    let refused = case.ledger.set_priority("j", 1).await;
    assert!(matches!(refused, Err(JobError::PriorityForbidden(Status::Cancelling))), "{refused:?}");
    assert_eq!(case.job("j").await.priority, 77);
    assert!(matches!(case.ledger.set_priority("nobody", 1).await, Err(JobError::NotFound)));
    assert!(matches!(case.ledger.set_tags("nobody", vec![]).await, Err(JobError::NotFound)));
    assert!(matches!(case.ledger.tags("nobody").await, Err(JobError::NotFound)));
}

async fn retention(case: &mut Case<'_>) {
    let over = [Event::CancelRequested, Event::ReportWritten];
    let mut ended = Vec::new();
    for id in ["z", "y", "x"] {
        case.create(id).await;
        case.moved(id, &over).await;
        ended.push(case.ledger.age());
        case.clocks.pass(Duration::from_secs(1));
    }
    case.create("alive").await;
    let expired = async |case: &Case<'_>, before: Age, jobs_max: usize, max: usize| {
        let found = case.ledger.expired(before, jobs_max, max).await.unwrap();
        found.into_iter().map(|job| (job.id, job.early)).collect::<Vec<_>>()
    };
    let all_over = Age(i64::MAX);
    assert_eq!(expired(case, all_over, 0, 9).await, [], "sinks are owed their events");
    for sink in SINKS {
        let fence = case.try_lease(&Duty::Sink(sink.into())).await.unwrap();
        loop {
            let due = case.ledger.due(sink, case.clocks.now(), 0, 100).await.unwrap();
            let Some(first) = due.into_iter().find(|due| due.event.job_id != "alive") else { break };
            let tried = tried(DeliveryState::Delivered, 1, case.clocks.now().0);
            case.ledger.note_try(&fence, &first.event.job_id, first.number, tried).await.unwrap();
        }
    }
    case.again().await;
    let name = |id: &str, early: bool| (id.to_owned(), early);
    // Strictly before the date, the earliest ended first, not by name.
    assert_eq!(expired(case, ended[0], 0, 9).await, []);
    assert_eq!(expired(case, ended[2], 0, 9).await, [name("z", false), name("y", false)]);
    assert_eq!(expired(case, all_over, 0, 1).await, [name("z", false)]);
    // One that lives takes no place; two are one too many.
    assert_eq!(expired(case, ended[0], 2, 9).await, [name("z", true)]);
    assert_eq!(expired(case, ended[1], 1, 9).await, [name("z", false), name("y", true)]);
    assert_eq!(expired(case, ended[0], 3, 9).await, []);

    let fence = case.lease("alive").await;
    case.ledger.open_results(&fence).await.unwrap();
    for _ in 0..2 {
        let fence = case.lease("alive").await;
        for id in ["y", "alive"] {
            case.ledger.delete(id).await.unwrap();
        }
        case.ledger.note_rows(&fence, 1).await.expect("its lease is still there");
        case.again().await;
        assert!(case.ledger.job("y").await.unwrap().is_none());
        assert!(case.ledger.events(ACCOUNT, "y", 0, 1).await.unwrap().is_none());
        assert_eq!(case.job("alive").await.status, Status::New, "what is not over is never deleted");
        assert!(case.ledger.has_results("alive").await.unwrap());
    }
    assert_eq!(case.ledger.create("new".into(), request("token of y", 3)).await.unwrap(), Created::New);
    assert_eq!(
        case.ledger.create("newer".into(), request("token of z", 10)).await.unwrap(),
        Created::Before("z".into())
    );
}

fn tried(state: DeliveryState, attempts: u32, not_before: i64) -> Try {
    let error = (state != DeliveryState::Delivered).then(|| format!("error {attempts}"));
    Try { state, attempts, tried_ms: u64::from(attempts) * 100, not_before, error }
}

async fn deliveries(case: &mut Case<'_>) {
    const WAIT_MS: u64 = 300_000;
    case.create("j").await;
    case.clocks.pass(Duration::from_millis(5));
    case.create("k").await;
    case.moved("j", &[Event::PickedUp, READ]).await;
    case.again().await;
    let due = async |case: &Case<'_>, sink: &str, max: usize| {
        let due = case.ledger.due(sink, case.clocks.now(), WAIT_MS, max).await.unwrap();
        due.into_iter().map(|due| (due.event.job_id, due.number, due.attempts, due.tried_ms)).collect::<Vec<_>>()
    };
    let job = |id: &str, number: u64, attempts: u32| (id.to_owned(), number, attempts, u64::from(attempts) * 100);
    for sink in SINKS {
        assert_eq!(due(case, sink, 9).await, [job("j", 1, 0), job("k", 1, 0)], "the first of each job");
        assert_eq!(due(case, sink, 1).await, [job("j", 1, 0)]);
    }
    assert_eq!(due(case, "unknown", 9).await, []);
    let census = case.ledger.census().await.unwrap();
    let statuses: Vec<(&str, u64)> = census.jobs.iter().map(|(status, jobs)| (status.name(), *jobs)).collect();
    assert_eq!(statuses, [("New", 1), (case.job("j").await.status.name(), 1)]);
    let all: usize = case.events("j").await.len() + case.events("k").await.len();
    assert_eq!(census.deliveries_owed, (all * SINKS.len()) as u64, "each event to each sink");

    // One that failed is due again when its time has come; the next of the job waits behind it.
    let mut fence = case.try_lease(&Duty::Sink("first".into())).await.unwrap();
    let later = case.clocks.now().0 + 1_000;
    for _ in 0..2 {
        case.ledger.note_try(&fence, "j", 1, tried(DeliveryState::Pending, 1, later)).await.unwrap();
    }
    case.again().await;
    assert_eq!(due(case, "first", 9).await, [job("k", 1, 0)]);
    assert_eq!(due(case, "second", 9).await.len(), 2, "the other sink is owed as before");
    case.clocks.pass(Duration::from_secs(1));
    assert_eq!(due(case, "first", 9).await, [job("k", 1, 0), job("j", 1, 1)], "longest due first");
    // A clock that was set back by more than any wait: what lies so far ahead is due.
    let ahead = case.clocks.now().0;
    case.clocks.wall.fetch_sub(400_000, Ordering::SeqCst);
    assert_eq!(due(case, "first", 9).await.len(), 2);
    case.clocks.wall.fetch_add(390_000, Ordering::SeqCst);
    assert_eq!(due(case, "first", 9).await, [], "within a wait it is not");
    case.clocks.wall.store(ahead, Ordering::SeqCst);

    fence = case.try_lease(&Duty::Sink("first".into())).await.unwrap();
    for _ in 0..2 {
        case.ledger.note_try(&fence, "j", 1, tried(DeliveryState::Delivered, 2, ahead)).await.unwrap();
        case.again().await;
        fence = case.try_lease(&Duty::Sink("first".into())).await.unwrap();
        assert_eq!(due(case, "first", 9).await, [job("k", 1, 0), job("j", 2, 0)]);
    }
    case.ledger.note_try(&fence, "j", 2, tried(DeliveryState::GivenUp, 3, ahead)).await.unwrap();
    case.again().await;
    assert_eq!(due(case, "first", 9).await, [job("k", 1, 0), job("j", 3, 0)]);
    // What comes while nothing is owed is due at once.
    fence = case.try_lease(&Duty::Sink("first".into())).await.unwrap();
    case.ledger.note_try(&fence, "j", 3, tried(DeliveryState::Delivered, 1, ahead)).await.unwrap();
    assert_eq!(due(case, "first", 9).await, [job("k", 1, 0)]);
    case.moved("j", &[Event::CancelRequested]).await;
    assert_eq!(due(case, "first", 9).await, [job("k", 1, 0), job("j", 4, 0)]);
    case.ledger.note_try(&fence, "nobody", 1, tried(DeliveryState::Delivered, 1, ahead)).await.unwrap();
    case.again().await;
    let (kept, _) = case.ledger.events(ACCOUNT, "j", 0, 9).await.unwrap().unwrap();
    let told: Vec<_> = kept.iter().flat_map(|kept| kept.deliveries.iter().filter(|d| d.sink == "first")).collect();
    let states: Vec<_> = told.iter().map(|d| (d.state, d.attempts, d.last_error.as_deref())).collect();
    use DeliveryState::{Delivered, GivenUp, Pending};
    // The last error stays where a later try has none.
    let wanted =
        [(Delivered, 2, Some("error 1")), (GivenUp, 3, Some("error 3")), (Delivered, 1, None), (Pending, 0, None)];
    assert_eq!(states, wanted);
}

async fn leases(case: &mut Case<'_>) {
    case.create("j").await;
    let duty = Duty::Job("j".into());
    let first = case.lease("j").await;
    assert!(first.epoch > Epoch::default());
    assert_eq!(case.lease("j").await, first, "who asks again has it still");
    assert_eq!(case.ledger.renew(std::slice::from_ref(&first)).await.unwrap(), [true]);
    let forged = Fence { worker: Worker(first.worker.0 + 1_000), ..first.clone() };
    let guessed = Fence { epoch: Epoch(first.epoch.0 + 1), ..first.clone() };
    assert_eq!(case.ledger.renew(&[forged, first.clone(), guessed]).await.unwrap(), [false, true, false]);
    // Given back: free at once, for anybody, and the old one counts no more.
    for _ in 0..2 {
        case.ledger.give_back(&first).await.unwrap();
    }
    assert_eq!(case.ledger.renew(std::slice::from_ref(&first)).await.unwrap(), [false]);
    let second = case.lease("j").await;
    assert!(second.epoch > first.epoch);
    case.ledger.give_back(&first).await.unwrap();
    assert_eq!(case.ledger.renew(std::slice::from_ref(&second)).await.unwrap(), [true], "it was not his to give back");
    let old = Arc::clone(&case.ledger);
    case.another().await;
    if case.subject.is_shared() {
        assert_eq!(case.ledger.term(), Some(TERM));
        assert_eq!(case.try_lease(&duty).await, None);
        // It holds for a term from its renewal, to the millisecond, and no clock but the ledger's matters.
        case.clocks.pass(TERM - Duration::from_millis(1));
        old.renew(std::slice::from_ref(&second)).await.unwrap();
        case.clocks.wall.fetch_add(1 << 40, Ordering::SeqCst);
        case.clocks.pass(TERM - Duration::from_millis(1));
        assert_eq!(case.try_lease(&duty).await, None);
        // One that has run out and that nobody has taken is renewed.
        case.clocks.pass(Duration::from_millis(1));
        assert_eq!(old.renew(std::slice::from_ref(&second)).await.unwrap(), [true]);
        assert_eq!(case.try_lease(&duty).await, None);
        case.clocks.pass(TERM);
    }
    let third = case.lease("j").await;
    assert!(third.epoch > second.epoch && third.worker != second.worker);
    assert_eq!(case.ledger.renew(&[second.clone(), third.clone()]).await.unwrap(), [false, true]);
    case.ledger.give_back(&second).await.unwrap();
    assert_eq!(case.ledger.renew(std::slice::from_ref(&third)).await.unwrap(), [true]);
    // Duties are apart.
    case.create("k").await;
    case.lease("k").await;
    case.try_lease(&Duty::Sink("j".into())).await.expect("a sink that is called as the job is");
}

/// What a server without the job's lease, or with a lost one, tries; each has to be refused.
async fn is_fenced(ledger: &dyn Ledger, fence: &Fence) {
    fn fenced<T: std::fmt::Debug>(what: &str, done: Result<T, StoreError>) {
        assert!(matches!(done, Err(StoreError::Fenced)), "{what}: {done:?}");
    }
    let moved = ledger.transition("j", Terms::Leased(fence), Event::TasksFinished, Change::default()).await;
    assert!(matches!(moved, Err(MoveError::Store(StoreError::Fenced))), "{moved:?}");
    fenced("note_progress", ledger.note_progress(fence, (9, 9), 9).await);
    fenced("note_figures", ledger.note_figures(fence, "{}".into()).await);
    fenced("note_rows", ledger.note_rows(fence, 9).await);
    fenced("report_created", ledger.report_created(fence).await);
    fenced("halt", ledger.halt(fence).await);
    fenced("open_results", ledger.open_results(fence).await.map(drop));
}

async fn stale(case: &mut Case<'_>) {
    case.create("j").await;
    case.moved("j", &TO_ACTIVE).await;
    let nobody = Fence { duty: Duty::Job("j".into()), worker: Worker(1), epoch: Epoch::default() };
    is_fenced(&*case.ledger, &nobody).await;
    let old = case.lease("j").await;
    let (old_results, _) = case.ledger.open_results(&old).await.unwrap();
    old_results.append(1, settled(0..3)).await.unwrap();
    let old_server = Arc::clone(&case.ledger);
    case.another().await;
    let shared = case.subject.is_shared();
    if shared {
        // It has run out, but nobody has taken it: what its owner writes counts.
        case.clocks.pass(TERM);
        old_results.append(2, settled(3..5)).await.unwrap();
        old_server.note_rows(&old, 5).await.unwrap();
    }
    let new = case.lease("j").await;
    let before = case.job("j").await;
    let refused = async |case: &Case<'_>| {
        is_fenced(&*case.ledger, &old).await;
        // Also where the old owner still believes in its lease.
        is_fenced_writing(&*old_server, &old).await;
        if shared {
            is_fenced(&*old_server, &old).await;
            let late = old_results.append(3, settled(7..9)).await;
            assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
        }
    };
    refused(case).await;
    assert_eq!(case.job("j").await, before, "nothing of it was written");
    // The new owner's own.
    let (results, past) = case.ledger.open_results(&new).await.unwrap();
    assert_eq!(past.succeeded() + past.failed(), if shared { 5 } else { 3 });
    results.append(1, settled(20..22)).await.unwrap();
    case.ledger.note_progress(&new, (8, 7), 2_000).await.unwrap();
    refused(case).await;
    let moved = case.ledger.transition("j", Terms::Leased(&new), Event::TasksFinished, Change::default()).await;
    assert_eq!(moved.unwrap(), Status::Completing);
    refused(case).await;
    let job = case.job("j").await;
    assert_eq!((job.succeeded, job.failed, job.active_ms), (8, 7, 2_000));
    assert_eq!(case.events("j").await.len(), 5);
    let rows = read(&*case.ledger, "j", Position::default()).unwrap().0;
    assert!(!rows.contains(&7) && rows.contains(&21), "{rows:?}");
}

/// As [`is_fenced`], of what is written in one transaction with the check.
async fn is_fenced_writing(ledger: &dyn Ledger, fence: &Fence) {
    let moved = ledger.transition("j", Terms::Leased(fence), Event::TasksFinished, Change::default()).await;
    assert!(matches!(moved, Err(MoveError::Store(StoreError::Fenced))), "{moved:?}");
    for done in [ledger.note_progress(fence, (9, 9), 9).await, ledger.note_rows(fence, 9).await] {
        assert!(matches!(done, Err(StoreError::Fenced)), "{done:?}");
    }
    let done = ledger.report_created(fence).await;
    assert!(matches!(done, Err(StoreError::Fenced)), "{done:?}");
}

async fn kinds(case: &mut Case<'_>) {
    case.create("j").await;
    let sink = case.try_lease(&Duty::Sink("j".into())).await.unwrap();
    let job = case.lease("j").await;
    is_fenced(&*case.ledger, &sink).await;
    case.create("k").await;
    let other = case.lease("k").await;
    let moved = case.ledger.transition("j", Terms::Leased(&other), Event::PickedUp, Change::default()).await;
    assert!(matches!(moved, Err(MoveError::Store(StoreError::Fenced))), "{moved:?}");
    let noted = case.ledger.note_try(&job, "j", 1, tried(DeliveryState::Delivered, 1, 0)).await;
    assert!(matches!(noted, Err(StoreError::Fenced)), "{noted:?}");
    // Of a sink nobody delivers to without its lease, nor with a lost one.
    let first = case.try_lease(&Duty::Sink("first".into())).await.unwrap();
    case.ledger.give_back(&first).await.unwrap();
    let noted = case.ledger.note_try(&first, "j", 1, tried(DeliveryState::Delivered, 1, 0)).await;
    assert!(matches!(noted, Err(StoreError::Fenced)), "{noted:?}");
    assert_eq!(case.ledger.due("first", case.clocks.now(), 0, 9).await.unwrap().len(), 2);
}

async fn notes(case: &mut Case<'_>) {
    case.create("j").await;
    case.moved("j", &TO_ACTIVE).await;
    for (noted, shown) in [(1_024, 1_024), (2_048, 2_048), (1_024, 2_048)] {
        let fence = case.lease("j").await;
        case.ledger.note_rows(&fence, noted).await.unwrap();
        case.again().await;
        assert_eq!(case.job("j").await.rows_total, shown);
    }
    // Each says how far it is from the start, so that one that is repeated, or comes late, counts once.
    for (counts, active_ms, shown) in
        [((3, 1), 500, (3, 1, 500)), ((3, 1), 500, (3, 1, 500)), ((2, 4), 400, (3, 4, 500)), ((5, 4), 900, (5, 4, 900))]
    {
        let fence = case.lease("j").await;
        case.ledger.note_progress(&fence, counts, active_ms).await.unwrap();
        case.again().await;
        let job = case.job("j").await;
        assert_eq!((job.succeeded, job.failed, job.active_ms), shown);
    }
    // The latest figures are in place of the earlier ones; nobody's are nobody's.
    assert_eq!(case.ledger.figures("j").await.unwrap(), None);
    for figures in ["{}", r#"{"calls": {}}"#] {
        let fence = case.lease("j").await;
        case.ledger.note_figures(&fence, figures.into()).await.unwrap();
        case.again().await;
        assert_eq!(case.ledger.figures("j").await.unwrap().as_deref(), Some(figures));
    }
    assert_eq!(case.ledger.figures("none").await.unwrap(), None);
    let fence = case.lease("j").await;
    let created = case.ledger.report_created(&fence).await.unwrap();
    assert_eq!(created, case.clocks.now());
    case.clocks.pass(Duration::from_secs(9));
    case.again().await;
    let fence = case.lease("j").await;
    assert_eq!(case.ledger.report_created(&fence).await.unwrap(), created, "the first one counts");
    // An agent's moves under its lease.
    let moved = case.ledger.transition("j", Terms::Leased(&fence), Event::TasksFinished, Change::default()).await;
    assert_eq!(moved.unwrap(), Status::Completing);
    let moved = case.ledger.transition("j", Terms::Leased(&fence), Event::TasksFinished, Change::default()).await;
    assert!(matches!(moved, Err(MoveError::Illegal(_))), "{moved:?}");
}

async fn results(case: &mut Case<'_>) {
    case.create("j").await;
    assert!(!case.ledger.has_results("j").await.unwrap());
    assert_eq!(read(&*case.ledger, "j", Position::default()).unwrap(), (vec![], Position::default()));
    let mut next = 0;
    let mut position = Position::default();
    for turn in 0..4 {
        let fence = case.lease("j").await;
        let (open, past) = case.ledger.open_results(&fence).await.unwrap();
        assert_eq!((past.succeeded() + past.failed(), past.first_open_row()), (next, next));
        assert!(case.ledger.has_results("j").await.unwrap());
        for batch in 1..=3 {
            let entries = settled(next..next + batch);
            assert_eq!(open.append(batch, Arc::clone(&entries)).await.unwrap(), Appended::Done);
            // Its answer was lost, and it is given again.
            assert_eq!(open.append(batch, entries).await.unwrap(), Appended::Already);
            next += batch;
        }
        let (rows, to) = read(&*case.ledger, "j", position).unwrap();
        assert_eq!(rows, (turn * 6..next).collect::<Vec<_>>());
        assert_eq!(read(&*case.ledger, "j", to).unwrap(), (vec![], to));
        position = to;
        case.again().await;
        assert_eq!(read(&*case.ledger, "j", Position::default()).unwrap().0, (0..next).collect::<Vec<_>>());
    }
    let fence = case.lease("j").await;
    let (_, past) = case.ledger.open_results(&fence).await.unwrap();
    let failed = (0..next).filter(|row| row % 3 == 0).count() as u64;
    assert_eq!((past.succeeded(), past.failed()), (next - failed, failed));
    if case.subject.is_shared() {
        // Other servers see the counts that the results have, whatever was noted.
        let job = case.job("j").await;
        assert_eq!((job.succeeded, job.failed), (next - failed, failed));
    }
    let none = case.ledger.open_results(&fence).await.unwrap().0.append(1, Arc::default()).await;
    assert!(matches!(none, Err(StoreError::Damaged(_))), "a batch of nothing: {none:?}");
}

async fn torn(case: &mut Case<'_>) {
    case.create("j").await;
    for turn in 0..4 {
        let fence = case.lease("j").await;
        let (open, past) = case.ledger.open_results(&fence).await.unwrap();
        assert_eq!(past.first_open_row(), turn * 2, "what was torn is gone, and what was whole is not");
        assert_eq!(open.append(1, settled(turn * 2..turn * 2 + 2)).await.unwrap(), Appended::Done);
        drop(open);
        case.subject.tear(&fence).await;
        let whole: Vec<u64> = (0..turn * 2 + 2).collect();
        assert_eq!(read(&*case.ledger, "j", Position::default()).unwrap().0, whole);
        case.another().await;
        case.clocks.pass(TERM);
        assert_eq!(read(&*case.ledger, "j", Position::default()).unwrap().0, whole);
    }
}

async fn reopened(case: &mut Case<'_>) {
    case.create("j").await;
    let fence = case.lease("j").await;
    let (first, _) = case.ledger.open_results(&fence).await.unwrap();
    first.append(1, settled(0..1)).await.unwrap();
    // The same agent again, after an error: its batches count from 1 once more, and are other ones.
    let (second, _) = case.ledger.open_results(&fence).await.unwrap();
    let late = first.append(2, settled(1..2)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    assert_eq!(second.append(1, settled(1..2)).await.unwrap(), Appended::Done);
    assert_eq!(read(&*case.ledger, "j", Position::default()).unwrap().0, [0, 1]);
    // Given back, it appends no more either.
    case.ledger.give_back(&fence).await.unwrap();
    let late = second.append(2, settled(2..3)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    case.another().await;
    assert_eq!(read(&*case.ledger, "j", Position::default()).unwrap().0, [0, 1]);
}

async fn halted(case: &mut Case<'_>) {
    case.create("j").await;
    assert!(case.ledger.is_halted("j").await.unwrap());
    let fence = case.lease("j").await;
    assert!(!case.ledger.is_halted("j").await.unwrap());
    for _ in 0..2 {
        case.ledger.halt(&fence).await.unwrap();
        assert!(case.ledger.is_halted("j").await.unwrap());
    }
    case.ledger.give_back(&fence).await.unwrap();
    assert!(case.ledger.is_halted("j").await.unwrap());
    let fence = case.lease("j").await;
    assert!(!case.ledger.is_halted("j").await.unwrap(), "the next one has said nothing yet");
    if case.subject.is_shared() {
        case.another().await;
        assert!(!case.ledger.is_halted("j").await.unwrap(), "at every server");
        case.clocks.pass(TERM);
        assert!(case.ledger.is_halted("j").await.unwrap(), "its time is over");
        let other = case.lease("j").await;
        assert!(!case.ledger.is_halted("j").await.unwrap());
        assert!(case.ledger.halt(&fence).await.is_err() && case.ledger.halt(&other).await.is_ok());
    }
}

async fn announced(case: &mut Case<'_>) {
    let other = if case.subject.is_shared() { case.subject.server().await } else { Arc::clone(&case.ledger) };
    let mut hears = [case.ledger.announced(), other.announced(), other.announced()];
    case.create("j").await;
    for heard in &mut hears {
        assert!(heard.has_changed().unwrap());
        heard.borrow_and_update();
    }
    other.transition("j", Terms::Legal, Event::PickedUp, Change::default()).await.unwrap();
    assert!(hears.iter().all(|heard| heard.has_changed().unwrap()));
}
