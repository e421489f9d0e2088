//! The engine: runs jobs from New to their end, one agent a job.
//!
//! `scheduler` decides which job has an agent; an agent prepares (`preparer`), runs (here), reports (`reporter`);
//! `deliverer` hands to sinks what was kept of their moves. The loop in [`run`] is the only one that drives [`longshore_core::run::Run`]: it takes effects until there are none,
//! waits for a completion, an order or the time, and hands it back.

mod agent;
mod checkpointer;
mod deliverer;
mod dispatcher;
mod feed;
mod gate;
mod keeper;
mod meters;
mod patience;
mod pinned;
mod preparer;
pub(crate) mod recorder;
mod redelivery;
mod reporter;
mod role;
mod scheduler;
mod tallies;
mod tasks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::counted::Counted;
use longshore_core::failures::Failures;
use longshore_core::figures::Figures;
use longshore_core::histogram::Histogram;
use longshore_core::job::Status;
use longshore_core::manifest::CHUNK_ROWS;
use longshore_core::random::Random;
use longshore_core::run::{Command, Depths, Effect, Ended, Event, Extent, Run};
use longshore_core::sample;
use longshore_core::time::Tick;
use longshore_store::failpoint::{self, Place};
use longshore_store::{Fatal, Files, StoreError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::meters::Meter;
pub use self::meters::{Going, Totals};
pub use self::role::Doors;
pub use self::tasks::{Boxed, Ground, Pretend};
use crate::Settings;
use crate::error::FailureReason;
use crate::ledger::{Fence, JobRow, Ledger, Results};
use crate::shape::Source;

/// Everything an agent may touch.
#[derive(Clone)]
pub struct World {
    pub ledger: Arc<dyn Ledger>,
    pub fatal: Fatal,
    /// One folder a job below it: pinned manifests, what preparing needs, report spools.
    pub dir: PathBuf,
    pub settings: Arc<Settings>,
    pub doors: Doors,
}

impl World {
    fn job_dir(&self, id: &str) -> PathBuf {
        // IDs are UUIDs of our own making, so this is no path from outside.
        self.dir.join(id)
    }

    fn log(&self, id: &str) -> recorder::Log {
        recorder::Log { ledger: Arc::clone(&self.ledger), job_id: id.to_owned() }
    }
}

/// The engine's handle; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    wake: Notify,
    /// As `wake`, for what removes jobs whose time is over.
    retire: Notify,
    gate: gate::Gate,
    tallies: tallies::Tallies,
    meters: Arc<meters::Meters>,
    keeper: keeper::Keeper,
    agents: Mutex<BTreeMap<String, AgentHandle>>,
    /// Jobs whose reports are being delivered again, and their roles.
    redelivered: Mutex<BTreeMap<String, String>>,
    /// Held by whoever removes files of one job that is over, from the look whether its report is being delivered on.
    removing: tokio::sync::Mutex<()>,
    /// Held by whoever reads all results of a job for a line in the log: one at a time.
    looking_back: tokio::sync::Mutex<()>,
    tasks: tasks::Tasks,
    stopping: CancellationToken,
    started: Instant,
}

struct AgentHandle {
    /// The lease under which it works.
    fence: Fence,
    orders: mpsc::Sender<Order>,
    live: Arc<Live>,
    /// Cancelled once it has given its lease back, or has ended otherwise.
    gone: CancellationToken,
}

/// Orders to one agent: a cancel and a few pauses; nobody sends more before the last is taken.
const ORDERS_MAX: usize = 8;

/// What the API and the scheduler tell an agent.
#[derive(Debug)]
enum Order {
    /// A job of higher priority needs the slot.
    Pause,
    /// The job's status is Cancelling already; answered once no further invocation can start.
    Cancel(oneshot::Sender<()>),
}

/// What is seen of a job while it runs, ahead of its row in the table.
#[derive(Debug)]
struct Live {
    /// Whether the counts below are those of the log: after a restart they must not seem to go back.
    loaded: AtomicBool,
    /// Cancelled once they are, and once it is known that they will not be so soon.
    looked: CancellationToken,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds in Active, those of earlier turns included, as far as they are durable.
    active_ms: AtomicU64,
    /// As the scheduler last saw it.
    priority: Arc<AtomicU32>,
    /// Whether the log is still to say that the job goes on, which was not over when the server started.
    goes_on: AtomicBool,
}

/// (succeeded, failed, milliseconds in Active) of one moment.
type Seen = (u64, u64, u64);

impl Live {
    fn new(loaded: bool, goes_on: bool) -> Arc<Self> {
        let looked = CancellationToken::new();
        if loaded {
            looked.cancel();
        }
        Arc::new(Self {
            loaded: AtomicBool::new(loaded),
            looked,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            active_ms: AtomicU64::new(0),
            priority: Arc::default(),
            goes_on: AtomicBool::new(goes_on),
        })
    }

    /// Says once in the log that a job goes on after a start, with what is settled of it by now.
    fn log_goes_on(&self, job: &JobRow, (succeeded, failed): (u64, u64)) {
        if self.goes_on.swap(false, Ordering::Relaxed) {
            let (status, settled, rows) = (job.status.name(), succeeded + failed, job.rows_total);
            tracing::info!(job = job.id, status, settled, rows, "a job went on after a start of the server");
        }
    }

    fn set_counts(&self, (succeeded, failed): (u64, u64)) {
        self.succeeded.store(succeeded, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// Never goes down, as the counts never do.
    fn set_active_ms(&self, active_ms: u64) {
        self.active_ms.fetch_max(active_ms, Ordering::Relaxed);
    }

    fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
        self.looked.cancel();
    }

    /// What is to be shown; waits while the log is being read after a restart. `None`: it could not be read yet.
    async fn seen(&self) -> Option<Seen> {
        self.looked.cancelled().await;
        let (succeeded, failed) = self.counts();
        let seen = (succeeded, failed, self.active_ms.load(Ordering::Relaxed));
        self.loaded.load(Ordering::Acquire).then_some(seen)
    }
}

impl Engine {
    /// Takes up the jobs that are not over, and starts scheduling.
    pub async fn start(world: World) -> Result<Self, StoreError> {
        let engine = Self {
            shared: Arc::new(Shared {
                gate: gate::Gate::new(world.settings.concurrency_total_max),
                tallies: tallies::Tallies::new(),
                meters: Arc::default(),
                keeper: keeper::Keeper::default(),
                tasks: tasks::Tasks::new(world.settings.ground.clone()),
                world,
                wake: Notify::new(),
                retire: Notify::new(),
                agents: Mutex::default(),
                redelivered: Mutex::default(),
                removing: tokio::sync::Mutex::default(),
                looking_back: tokio::sync::Mutex::default(),
                stopping: CancellationToken::new(),
                started: Instant::now(),
            }),
        };
        // Once before anybody is served: a running job has its agent, and so its true counts, before it is described.
        scheduler::first_pass(&engine).await?;
        let tasks = &engine.shared.tasks;
        tasks.spawn(cut_off_when_broken(engine.clone()));
        if let Some(term) = engine.shared.world.ledger.term() {
            engine.serve("the keeper of leases", keeper::run(engine.clone(), term));
        }
        tasks.spawn(sweep(engine.clone()));
        engine.serve("the scheduler", scheduler::run(engine.clone()));
        engine.serve("the removal of jobs", scheduler::retire(engine.clone()));
        let settings = &engine.shared.world.settings;
        for sink in &settings.event_sinks {
            let delivering = deliverer::run(engine.clone(), Arc::clone(sink), Random::seeded(settings.seed()));
            engine.serve("the delivery of events", delivering);
        }
        Ok(engine)
    }

    /// Starts what all jobs need for as long as the engine runs. After a panic of it nothing would go on, and nobody would
    /// know: then the server ends, and the next one takes everything up again.
    fn serve(&self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let engine = self.clone();
        self.shared.tasks.spawn(async move {
            if engine.shared.tasks.caught(what, work).await.is_none() {
                engine.shared.world.fatal.throw(format!("{what} has panicked"));
            }
        });
    }

    /// Something has changed that the scheduler should look at.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
        self.shared.retire.notify_one();
    }

    /// A job with the counts of this moment. While its log is still being read after a restart, this waits; while it cannot
    /// be read, nobody knows them, and those in its row are older than what was shown before.
    pub async fn look(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        // The live counts are taken before the row: an agent that ends in between has written them there.
        let live = self.agents().get(id).map(|a| Arc::clone(&a.live));
        let seen = match live {
            Some(live) => match live.seen().await {
                None => return Err(StoreError::Unknown(format!("the results of job {id} could not be read yet"))),
                seen => seen,
            },
            None => None,
        };
        let job = self.shared.world.ledger.job(id).await?;
        Ok(job.map(|job| with_overlay(job, seen)))
    }

    /// [`Engine::look`] for many: take this before the rows are read, and give it to each of them.
    pub async fn look_around(&self) -> Glance {
        let lives: Vec<_> = self.agents().iter().map(|(id, a)| (id.clone(), Arc::clone(&a.live))).collect();
        let mut seen = BTreeMap::new();
        for (id, live) in lives {
            // One job that cannot be read does not hide the others: its row is shown, as it was noted last.
            if let Some(its) = live.seen().await {
                seen.insert(id, its);
            }
        }
        Glance(seen)
    }

    /// What a job's runs have counted, and how it goes if it runs.
    pub async fn figures(&self, job: &JobRow) -> Result<(Figures, Option<Going>), StoreError> {
        match self.shared.meters.of(&job.id) {
            Some((figures, going)) => Ok((figures, Some(going))),
            None => Ok((kept(&self.shared.world.ledger, &job.id).await?, None)),
        }
    }

    /// What all runs since the start have counted, what is where in them, and how many calls wait at the gate.
    pub fn total(&self) -> (Totals, Depths, u64) {
        let (totals, depths) = self.shared.meters.total();
        (totals, depths, self.shared.gate.waiting() as u64)
    }

    /// What the results that a job has by now amount to. The first time, a pass over its whole log; later, what came
    /// since, as long as [`tallies::Tallies`] remembers.
    pub async fn failures(&self, id: &str) -> Result<Failures, StoreError> {
        let shared = &self.shared;
        shared.tallies.look(&shared.tasks, shared.world.log(id)).await
    }

    /// Removes what a job that is over does not need any more: its pinned manifest and its report's spool. The result
    /// log stays. Failing to remove something costs space alone; the next start tries again.
    pub async fn clean(&self, id: &str) {
        let dir = self.shared.world.job_dir(id);
        let ground = self.shared.tasks.ground().clone();
        let cleaned = self.shared.tasks.blocking(move || Ok(clean(ground.files(), &dir))).await;
        if let Ok(Err(error)) | Err(StoreError::Io(error)) = cleaned {
            tracing::warn!(job = id, %error, "files of a job that is over stay behind");
        }
    }

    /// Returns once no further invocation of this job, whose status is Cancelling or Cancelled, can start, at whichever
    /// server it runs.
    pub async fn cancelled(&self, id: &str) -> Result<(), StoreError> {
        let agent = self.agents().get(id).map(|a| (a.orders.clone(), a.fence.clone()));
        if let Some((orders, _)) = &agent {
            let (done, taken) = oneshot::channel();
            if orders.send(Order::Cancel(done)).await.is_ok() {
                // An agent that ends without answering starts nothing either.
                let _ = taken.await;
            }
        }
        let ledger = &self.shared.world.ledger;
        if ledger.term().is_none() {
            return Ok(());
        }
        if let Some((_, fence)) = &agent
            && ledger.halt(fence).await.is_ok()
        {
            return Ok(());
        }
        // There is no agent here, or the lease is another server's by now, which ours does not know yet.
        // The other server says when it has halted; one that is dead loses the lease.
        let mut announced = ledger.announced();
        while !ledger.is_halted(id).await? {
            tokio::select! {
                biased;
                // Fails only if the ledger is gone, and that we hold.
                _ = announced.changed() => {}
                () = tokio::time::sleep(HALTED_EVERY) => {}
            }
        }
        Ok(())
    }

    /// Lets what is in flight finish and be recorded, and ends every agent. The jobs go on at the next start.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.ended().await;
    }

    fn agents(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, AgentHandle>> {
        self.shared.agents.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn at(&self, tick: Tick) -> Instant {
        self.shared.started + Duration::from_millis(tick.0)
    }
}

/// The counts of all running jobs at one moment.
pub struct Glance(BTreeMap<String, Seen>);

impl Glance {
    pub fn over(&self, job: JobRow) -> JobRow {
        let seen = self.0.get(&job.id).copied();
        with_overlay(job, seen)
    }
}

/// Counts only grow, so of the row's and the agent's the greater ones are the newer ones (promise X2).
fn with_overlay(mut job: JobRow, seen: Option<Seen>) -> JobRow {
    if let Some((succeeded, failed, active_ms)) = seen {
        job.succeeded = job.succeeded.max(succeeded);
        job.failed = job.failed.max(failed);
        job.active_ms = job.active_ms.max(active_ms);
    }
    job
}

/// Once a sync has failed nothing that is done can be kept: no further invocation starts while the server comes to its end.
async fn cut_off_when_broken(engine: Engine) {
    tokio::select! {
        biased;
        () = engine.shared.stopping.cancelled() => {}
        _ = engine.shared.world.fatal.thrown() => engine.shared.tasks.cut_off(),
    }
}

/// Removes what a crash left behind of jobs that were over by then.
async fn sweep(engine: Engine) {
    let (ground, dir) = (engine.shared.tasks.ground().clone(), engine.shared.world.dir.clone());
    let listed = engine.shared.tasks.blocking(move || {
        let names = ground.files().names_in(&dir)?;
        let mut ids: Vec<_> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    });
    for id in listed.await.unwrap_or_default() {
        if engine.shared.stopping.is_cancelled() {
            return;
        }
        match engine.shared.world.ledger.job(&id).await {
            Ok(Some(job)) if job.status.is_terminal() => {
                let _removing = engine.shared.removing.lock().await;
                // Whoever delivers its report removes what is left behind as well.
                if !engine.redelivered().contains_key(&id) {
                    engine.clean(&id).await;
                }
            }
            // Not over, or not ours to judge.
            _ => {}
        }
    }
}

/// Where a preparation keeps what it needs on disk only for a while.
fn spool_dir(job_dir: &std::path::Path) -> PathBuf {
    job_dir.join("prepare")
}

/// Removes all that is on disk of a job whose time is over. Safe to repeat.
async fn remove(engine: &Engine, id: &str) -> Result<(), StoreError> {
    let dir = engine.shared.world.job_dir(id);
    let ground = engine.shared.tasks.ground().clone();
    let removed = engine.shared.tasks.blocking(move || match ground.files().remove_folder(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    });
    removed.await
}

/// The index goes first: the rest without it is nothing that anyone would open.
fn clean(files: &dyn Files, dir: &std::path::Path) -> std::io::Result<()> {
    let gone = |removed: std::io::Result<()>| match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(files.remove(&dir.join("manifest.idx")))?;
    failpoint::pass(Place::JobCleanHalf);
    longshore_store::checkpoint::remove(files, &recorder::log_dir(dir))?;
    gone(files.remove(&dir.join("manifest.idx.new")))?;
    gone(files.remove(&dir.join("manifest.csv")))?;
    gone(files.remove_folder(&spool_dir(dir)))?;
    gone(files.remove_folder(&dir.join("report")))
}

/// A note of progress on its way to the table, and what it says.
type Noting = Pin<Box<dyn Future<Output = (Counted, Result<(), StoreError>)> + Send>>;

/// The cold starts of a function that are counted with a run: those since it began.
struct ColdStarts<'a> {
    world: &'a World,
    function: &'a str,
    counted: Histogram,
}

impl<'a> ColdStarts<'a> {
    fn of(world: &'a World, function: &'a str) -> Self {
        Self { world, function, counted: world.doors.cold_starts(function).unwrap_or_default() }
    }

    fn count_in(&mut self, run: &mut Run) {
        let Some(by_now) = self.world.doors.cold_starts(self.function) else { return };
        if by_now != self.counted {
            run.cold_started(&by_now.since(&self.counted));
            self.counted = by_now;
        }
    }
}

/// How a run came to rest.
struct Rest {
    ended: Ended,
    counts: (u64, u64),
    /// Why it failed, if it was not the threshold.
    reason: Option<FailureReason>,
}

/// How often it is asked, besides being told, whether another server has halted a job.
const HALTED_EVERY: Duration = Duration::from_millis(100);
/// How often the number of slots is asked for, and how often progress is noted in the table.
const SLOTS_EVERY: Duration = Duration::from_millis(200);
/// After so many answers the number of slots is asked for as well: where calls are short, how many of them at once are of use
/// may change within milliseconds.
const SLOTS_AFTER_ANSWERS: u32 = 256;
const NOTE_EVERY_MS: u64 = 5_000;
/// Answers taken one after the other before orders, time and what else may happen are looked at: each turn looks at all of
/// that, which costs more than an answer does, and this many take less than a millisecond.
const ANSWERS_IN_TURN_MAX: u32 = 64;
/// How often more rows of a manifest that is being checked are made known, at most: a note is a commit, and a chunk is
/// checked within a millisecond.
const ROWS_NOTED_EVERY: Duration = Duration::from_millis(20);

/// A note of how many rows are known on its way to the table: the rows, whether these are all, and what came of it.
type NotingRows<'a> = Pin<Box<dyn Future<Output = (u64, bool, Result<(), StoreError>)> + Send + 'a>>;

/// The rows that a run is made of.
struct Rows {
    extent: Extent,
    /// Absent where none can be asked for.
    manifest: Option<Arc<pinned::Pinned>>,
    /// What makes more of them known.
    feed: Option<feed::Feed>,
}

impl Rows {
    async fn open(
        engine: &Engine,
        held: &keeper::Held,
        job: &JobRow,
        first: Option<Command>,
    ) -> Result<Self, StoreError> {
        let world = &engine.shared.world;
        let dir = world.job_dir(&job.id);
        if matches!(first, Some(Command::Cancel | Command::Fail)) {
            // It only comes to rest, whatever has become of its manifest.
            return Ok(Self { extent: Extent::all(0), manifest: None, feed: None });
        }
        let early = job.request.beyond.early_start;
        if early && !pinned::Pinned::is_whole(engine.shared.tasks.ground().files(), &dir) {
            let growing = pinned::Growing::create(&engine.shared.tasks, &dir).await?;
            let manifest = Some(Arc::clone(&growing.pinned));
            let feed = first.is_none().then(|| feed::Feed::start(engine, held, job, growing));
            return Ok(Self { extent: Extent::growing(), manifest, feed });
        }
        let before = match &job.request.source {
            Source::Manifest(manifest) => manifest.row_format(),
            Source::ManifestGenerator(_) => None,
        };
        let manifest = pinned::Pinned::open(&engine.shared.tasks, &dir, before).await?;
        let (have, noted) = (manifest.rows(), job.rows_total);
        match have {
            // It was pinned whole, and the server died before it was noted.
            _ if early && have > noted => agent::persist(engine, || world.ledger.note_rows(&held.fence, have)).await?,
            _ if have != noted => {
                return Err(StoreError::Damaged(format!("the pinned manifest has {have} rows of {noted}")));
            }
            _ => {}
        }
        let wanted = job.request.beyond.sample.filter(|_| !job.sampled);
        let extent = match wanted.and_then(|wanted| sample::draw(&job.id, have, wanted)) {
            Some(drawn) => Extent::sample(have, drawn),
            None => Extent::all(have),
        };
        Ok(Self { extent, manifest: Some(Arc::new(manifest)), feed: None })
    }
}

/// Runs one job until it rests. `first` is a command that holds from the start: a job that was being cancelled when the
/// server died starts nothing.
async fn run(
    engine: &Engine,
    held: &keeper::Held,
    job: &JobRow,
    orders: &mut mpsc::Receiver<Order>,
    live: &Live,
    first: Option<Command>,
) -> Result<Rest, StoreError> {
    let world = &engine.shared.world;
    if first.is_none() {
        // While the log is read and the first rows are, so that the first tasks do not wait for all of their cold starts.
        let function = &job.request.operation.function_arn;
        world.doors.prepare(function, world.settings.run.ramp.initial.min(slots(world, function)));
    }
    let (results, past) = world.ledger.open_results(&held.fence).await?;
    // A note is never ahead of the log: one that is shows that whole frames of it are gone.
    if past.succeeded() < job.succeeded || past.failed() < job.failed {
        let (has, noted) = ((past.succeeded(), past.failed()), (job.succeeded, job.failed));
        return Err(StoreError::Damaged(format!(
            "the result log of job {} has {has:?} results, noted are {noted:?}",
            job.id
        )));
    }
    let counts = (past.succeeded(), past.failed());
    let noted = Counted { active_ms: job.active_ms, figures: kept(&world.ledger, &job.id).await? };
    // All that is shown of the job is known before any of it is shown.
    let meter = Meter::start(&engine.shared.meters, &job.id, past.counted(), counts, noted.clone());
    live.set_counts(counts);
    live.set_active_ms(past.counted().active_ms);
    live.set_loaded();
    live.log_goes_on(job, counts);
    let Rows { extent, manifest, mut feed } = Rows::open(engine, held, job, first).await?;
    let mut random = Random::seeded(world.settings.seed());
    let mut run = Run::new(&job.lineage, extent, past, world.settings.run.clone(), random.next_u64(), engine.now());
    run.noted(&noted);
    if first.is_some() {
        // Time in Pausing or Cancelling is none in Active (spec 2.6).
        run.leave_active(engine.now());
    }
    let rest = drive(
        engine,
        job,
        orders,
        live,
        first,
        Driven { run, fence: &held.fence, random, results, manifest, feed: feed.as_mut(), meter },
    )
    .await;
    if let Some(feed) = feed {
        // Nobody else may find it writing.
        feed.stop().await;
    }
    rest
}

/// What [`drive`] turns the wheel of.
struct Driven<'a> {
    run: Run,
    fence: &'a Fence,
    random: Random,
    results: Arc<dyn Results>,
    manifest: Option<Arc<pinned::Pinned>>,
    feed: Option<&'a mut feed::Feed>,
    meter: Meter,
}

async fn drive(
    engine: &Engine,
    job: &JobRow,
    orders: &mut mpsc::Receiver<Order>,
    live: &Live,
    first: Option<Command>,
    driven: Driven<'_>,
) -> Result<Rest, StoreError> {
    let world = &engine.shared.world;
    let Driven { mut run, fence, random, results, manifest, mut feed, meter } = driven;
    let mut dispatcher = {
        let door = engine.shared.gate.door(&job.request.operation.function_arn, Arc::clone(&live.priority));
        dispatcher::Dispatcher::new(world.doors.invoker_of(job), door, job, random)
    };

    let mut noted_ms = run.active_ms(engine.now());
    let mut cold_starts = ColdStarts::of(world, &job.request.operation.function_arn);
    let mut reason = None;
    let mut reading = None;
    let mut recording = None;
    let mut noting: Option<Noting> = None;
    let mut noting_rows: Option<NotingRows<'_>> = None;
    let mut rows_noted: Option<Instant> = None;
    let mut stopping = false;
    let mut slots_tick = tokio::time::interval(SLOTS_EVERY);
    slots_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Made once, not for each turn: what waits is entered in a list, and leaving it costs as much again.
    let mut stopped = std::pin::pin!(engine.shared.stopping.cancelled());
    let mut alarm = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
    let mut alarm_at: Option<Instant> = None;
    let mut answers_in_turn = 0;
    let mut answers_since_slots = 0;
    if let Some(command) = first {
        run.handle(Event::Command(command), engine.now());
    }
    let mut failing = false;
    loop {
        if run.winds_down() {
            dispatcher.halt();
        }
        if let (Some(at), false) = (run.threshold_passed(), failing) {
            agent::pass_threshold(engine, fence, run.counts(), at).await?;
            failing = true;
        }
        while let Some(effect) = run.next_effect() {
            match effect {
                Effect::Invoke { invocation, task, attempt } => dispatcher.start(invocation, &task, attempt),
                Effect::Read { first_row, rows_max } => {
                    debug_assert_eq!(rows_max, CHUNK_ROWS);
                    let Some(manifest) = manifest.clone() else {
                        return Err(StoreError::Damaged(format!("row {first_row} of no manifest was asked for")));
                    };
                    reading = Some(Box::pin(engine.shared.tasks.blocking(move || manifest.read_from(first_row))));
                }
                Effect::Record { batch, entries } => {
                    recording = Some(Box::pin(recorder::record(Arc::clone(&results), batch, entries)));
                }
                Effect::Ended(ended) => {
                    let counts = run.counts();
                    live.set_counts(counts);
                    if let Some(note) = noting.take() {
                        // What comes of it does not matter: the next note says all of it again.
                        let _ = note.await;
                    }
                    cold_starts.count_in(&mut run);
                    let counted = meters::to_be_noted(&run, engine.now());
                    meter.read(&mut run, engine.now());
                    agent::persist(engine, || note(&world.ledger, fence, counts, &counted)).await?;
                    let active_ms = counted.active_ms;
                    live.set_active_ms(active_ms);
                    let times = counted.figures.tasks.times();
                    meter.noted(counted);
                    let (p50_ms, p99_ms) = (times.p50_us / 1_000, times.p99_us / 1_000);
                    let (succeeded, failed) = counts;
                    tracing::info!(
                        job = job.id,
                        ?ended,
                        succeeded,
                        failed,
                        active_ms,
                        p50_ms,
                        p99_ms,
                        "tasks came to rest"
                    );
                    return Ok(Rest { ended, counts, reason });
                }
            }
        }
        // What is over by now is taken without a look at all else that may have happened.
        if answers_in_turn < ANSWERS_IN_TURN_MAX
            && let Some((invocation, reply, took)) = dispatcher.answer_now()
        {
            answers_in_turn += 1;
            answers_since_slots += 1;
            if let Some(took) = took {
                run.took(invocation, took);
            }
            run.handle(Event::Answered { invocation, reply }, engine.now());
            continue;
        }
        answers_in_turn = 0;
        if answers_since_slots >= SLOTS_AFTER_ANSWERS {
            answers_since_slots = 0;
            let slots = slots(world, &job.request.operation.function_arn);
            dispatcher.set_limit(slots);
            run.handle(Event::Slots(slots), engine.now());
            continue;
        }
        live.set_counts(run.counts());
        live.set_active_ms(run.counted_durable().active_ms);
        let wake_at = run.wake_at(engine.now()).map(|tick| engine.at(tick));
        if wake_at != alarm_at {
            alarm_at = wake_at;
            alarm.as_mut().reset(wake_at.unwrap_or_else(Instant::now));
        }
        // In this order, each time. First what stops the job: a cancel is answered once it is taken, and must not wait behind
        // calls that are over one after the other. Then what comes seldom and makes room or rows: of each kind one is under
        // way at most, and the slots come five times a second. The answers, of which there may always be one more, are
        // last but for the time, which no event needs: each is handled with the time that it is.
        let event = tokio::select! {
            biased;
            Some(order) = orders.recv() => match order {
                Order::Pause => {
                    run.leave_active(engine.now());
                    Event::Command(Command::Pause)
                }
                Order::Cancel(taken) => {
                    run.leave_active(engine.now());
                    run.handle(Event::Command(Command::Cancel), engine.now());
                    dispatcher.halt();
                    failpoint::pass(Place::JobCancelTaken);
                    // Whoever asked may have hung up.
                    let _ = taken.send(());
                    continue;
                }
            },
            () = &mut stopped, if !stopping => {
                stopping = true;
                Event::Command(Command::Pause)
            }
            written = some(&mut recording) => {
                recording = None;
                match written {
                    (batch, Ok(())) => Event::Recorded { batch },
                    // Whoever stops the server does not wait for that; these tasks are invoked again (promise X4).
                    (_, Err(error)) if error.is_not_written() && stopping => return Err(error),
                    // To leave here would leave calls in flight behind, and have them made again beside those.
                    (batch, Err(error)) if error.is_not_written() => {
                        tracing::warn!(job = job.id, %error, "results cannot be recorded yet, will retry");
                        Event::NotRecorded { batch }
                    }
                    (_, Err(error)) => return Err(error),
                }
            }
            rows = some(&mut reading) => {
                reading = None;
                match rows {
                    Ok(rows) => Event::Rows(rows),
                    Err(error) => {
                        tracing::error!(job = job.id, %error, "the pinned manifest cannot be read");
                        reason = Some(FailureReason::new("ManifestDamaged", error.to_string()));
                        Event::Command(Command::Fail)
                    }
                }
            }
            // One note at a time: what becomes known meanwhile goes with the next.
            news = some_feed(&mut feed), if noting_rows.is_none() => match news {
                feed::News::Known { rows, whole } => {
                    feed = feed.filter(|_| !whole);
                    let not_before = rows_noted.map(|at| at + ROWS_NOTED_EVERY);
                    noting_rows = Some(Box::pin(async move {
                        if let Some(not_before) = not_before {
                            tokio::time::sleep_until(not_before).await;
                        }
                        // On disk before a task of them starts: what is shown must neither go back nor be passed.
                        (rows, whole, agent::persist(engine, || world.ledger.note_rows(fence, rows)).await)
                    }));
                    continue;
                }
                feed::News::Failed(why) => {
                    feed = None;
                    // A job that ends already has its reason.
                    if !run.winds_down() {
                        preparer::log_failed(&job.id, &why);
                        reason = Some(why);
                    }
                    Event::Command(Command::Fail)
                }
                feed::News::Broken(StoreError::Damaged(what)) => {
                    tracing::error!(job = job.id, what, "the manifest cannot be read to its end");
                    feed = None;
                    reason = Some(FailureReason::new("ManifestDamaged", what));
                    Event::Command(Command::Fail)
                }
                feed::News::Broken(error) => return Err(error),
            },
            (rows_total, whole, written) = some(&mut noting_rows) => {
                noting_rows = None;
                rows_noted = Some(Instant::now());
                match written {
                    Ok(()) => Event::RowsKnown { rows_total, whole },
                    // They are read and noted again at the next start.
                    Err(error) if error.is_full() && stopping => continue,
                    Err(error) => return Err(error),
                }
            }
            (counted, written) = some(&mut noting) => {
                noting = None;
                // A note that finds no space is made the next time.
                if written.is_ok() {
                    noted_ms = counted.active_ms;
                    live.set_active_ms(noted_ms);
                    meter.noted(counted);
                }
                continue;
            }
            _ = slots_tick.tick() => {
                cold_starts.count_in(&mut run);
                meter.read(&mut run, engine.now());
                if run.active_ms(engine.now()) - noted_ms >= NOTE_EVERY_MS && noting.is_none() {
                    let (ledger, fence, counts) = (Arc::clone(&world.ledger), fence.clone(), run.counts());
                    let counted = meters::to_be_noted(&run, engine.now());
                    // Beside the loop, not in it: a disk that stalls must not hold up the calls.
                    noting = Some(Box::pin(async move {
                        let written = note(&ledger, &fence, counts, &counted).await;
                        (counted, written)
                    }));
                }
                let slots = slots(world, &job.request.operation.function_arn);
                dispatcher.set_limit(slots);
                Event::Slots(slots)
            }
            (invocation, reply, took) = dispatcher.next_answer() => {
                answers_since_slots += 1;
                if let Some(took) = took {
                    run.took(invocation, took);
                }
                Event::Answered { invocation, reply }
            }
            () = &mut alarm, if alarm_at.is_some() => {
                alarm_at = None;
                Event::Woken
            }
        };
        run.handle(event, engine.now());
    }
}

/// What is kept of a job's figures. Those that do not read are forgotten: no result depends on them.
async fn kept(ledger: &Arc<dyn Ledger>, id: &str) -> Result<Figures, StoreError> {
    let text = ledger.figures(id).await?.unwrap_or_else(|| "{}".into());
    Ok(meters::from_json(&text).unwrap_or_else(|error| {
        tracing::warn!(job = id, %error, "figures of a job were forgotten, they could not be read");
        Figures::default()
    }))
}

/// Notes how far a job is, and its figures: side by side, so that they mostly share a commit.
async fn note(
    ledger: &Arc<dyn Ledger>,
    fence: &Fence,
    counts: (u64, u64),
    counted: &Counted,
) -> Result<(), StoreError> {
    let figures = ledger.note_figures(fence, meters::to_json(&counted.figures));
    let (progress, figures) = futures::join!(ledger.note_progress(fence, counts, counted.active_ms), figures);
    progress.and(figures)
}

/// What the function and the server allow. Jobs share it at the gate, where whoever has the highest priority is next, and
/// among equals whoever waits longest.
fn slots(world: &World, function: &str) -> u32 {
    let total = world.settings.concurrency_total_max.max(1);
    world.doors.slots(function).map_or(total, |slots| slots.min(total))
}

/// Waits for a future that may not be there.
async fn some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The next news of a manifest that is still being checked.
async fn some_feed(feed: &mut Option<&mut feed::Feed>) -> feed::News {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// Whether an agent has work in this status.
fn needs_agent(status: Status) -> bool {
    use Status::{Active, Cancelling, Completing, Failing, Pausing, Preparing};
    matches!(status, Preparing | Active | Pausing | Completing | Cancelling | Failing)
}

#[cfg(test)]
mod tests;
