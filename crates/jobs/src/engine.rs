//! The engine: runs jobs from New to their end, one agent a job.
//!
//! `scheduler` decides which job has an agent; an agent prepares (`preparer`), runs (here), reports (`reporter`). The
//! loop in [`run`] is the only one that drives [`longshore_core::run::Run`]: it takes effects until there are none,
//! waits for a completion, an order or the time, and hands it back.

mod agent;
mod dispatcher;
mod pinned;
mod preparer;
mod recorder;
mod reporter;
mod scheduler;

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::job::Status;
use longshore_core::manifest::{CHUNK_ROWS, RowFormat};
use longshore_core::run::{Command, Effect, Ended, Event, Run};
use longshore_core::time::Tick;
use longshore_store::{Fatal, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Settings;
use crate::error::FailureReason;
use crate::ports::{Invoker, Objects};
use crate::table::{JobRow, Table};

/// Everything an agent may touch.
#[derive(Clone)]
pub struct World {
    pub table: Table,
    /// One folder a job below it.
    pub dir: PathBuf,
    pub fatal: Fatal,
    pub settings: Arc<Settings>,
    pub objects: Arc<dyn Objects>,
    pub invoker: Arc<dyn Invoker>,
}

impl World {
    fn job_dir(&self, id: &str) -> PathBuf {
        // IDs are UUIDs of our own making, so this is no path from outside.
        self.dir.join(id)
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
    agents: Mutex<HashMap<String, AgentHandle>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    started: Instant,
}

struct AgentHandle {
    orders: mpsc::Sender<Order>,
    live: Arc<Live>,
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
    loaded: watch::Sender<bool>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds in Active that are not in the table yet.
    active_ms: AtomicU64,
}

impl Live {
    fn new(loaded: bool) -> Arc<Self> {
        Arc::new(Self {
            loaded: watch::Sender::new(loaded),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            active_ms: AtomicU64::new(0),
        })
    }

    fn set_counts(&self, (succeeded, failed): (u64, u64)) {
        self.succeeded.store(succeeded, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    fn set_loaded(&self) {
        self.loaded.send_replace(true);
    }
}

impl Engine {
    /// Takes up the jobs that are not over, and starts scheduling.
    pub async fn start(world: World) -> Result<Self, StoreError> {
        let engine = Self {
            shared: Arc::new(Shared {
                world,
                wake: Notify::new(),
                agents: Mutex::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                started: Instant::now(),
            }),
        };
        // Once before anybody is served: a running job has its agent, and so its true counts, before it is described.
        scheduler::pass(&engine).await?;
        engine.shared.tasks.spawn(scheduler::run(engine.clone()));
        Ok(engine)
    }

    /// Something has changed that the scheduler should look at.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// A job with the counts of this moment. While its log is still being read after a restart, this waits.
    pub async fn look(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        // The live counts are taken before the row: an agent that ends in between has written them there.
        let live = self.live(id);
        if let Some(live) = &live {
            // Fails only if the agent is gone, and then the row has it all.
            let _ = live.loaded.subscribe().wait_for(|loaded| *loaded).await;
        }
        let seen = live.map(|l| overlay(&l));
        let job = self.shared.world.table.get(id).await?;
        Ok(job.map(|job| with_overlay(job, seen)))
    }

    /// [`Engine::look`] for a row that is at hand already; it does not wait.
    pub fn with_live_counts(&self, job: JobRow) -> JobRow {
        let seen = self.live(&job.id).map(|l| overlay(&l));
        with_overlay(job, seen)
    }

    /// Returns once no further invocation of this job, whose status is Cancelling or Cancelled, can start.
    pub async fn cancelled(&self, id: &str) {
        let orders = self.agents().get(id).map(|a| a.orders.clone());
        let Some(orders) = orders else { return };
        let (done, taken) = oneshot::channel();
        if orders.send(Order::Cancel(done)).await.is_ok() {
            // An agent that ends without answering starts nothing either.
            let _ = taken.await;
        }
    }

    /// Lets what is in flight finish and be recorded, and ends every agent. The jobs go on at the next start.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn live(&self, id: &str) -> Option<Arc<Live>> {
        self.agents().get(id).map(|a| Arc::clone(&a.live))
    }

    fn agents(&self) -> std::sync::MutexGuard<'_, HashMap<String, AgentHandle>> {
        self.shared.agents.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn at(&self, tick: Tick) -> Instant {
        self.shared.started + Duration::from_millis(tick.0)
    }
}

fn overlay(live: &Live) -> (u64, u64, u64) {
    (
        live.succeeded.load(Ordering::Relaxed),
        live.failed.load(Ordering::Relaxed),
        live.active_ms.load(Ordering::Relaxed),
    )
}

/// Counts only grow, so of the row's and the agent's the greater ones are the newer ones (promise X2).
fn with_overlay(mut job: JobRow, seen: Option<(u64, u64, u64)>) -> JobRow {
    if let Some((succeeded, failed, active_ms)) = seen {
        job.succeeded = job.succeeded.max(succeeded);
        job.failed = job.failed.max(failed);
        if job.status.holds_slot() {
            job.active_ms += active_ms;
        }
    }
    job
}

/// A note of progress on its way to the table, and the moment it was made for.
type Noting = Pin<Box<dyn Future<Output = (Tick, Result<(), StoreError>)> + Send>>;

/// How a run came to rest.
struct Rest {
    ended: Ended,
    counts: (u64, u64),
    /// Why it failed, if it was not the threshold.
    reason: Option<FailureReason>,
}

/// How often the number of slots is asked for, and how often progress is noted in the table.
const SLOTS_EVERY: Duration = Duration::from_millis(200);
const NOTE_EVERY_MS: u64 = 5_000;

/// Runs one job until it rests. `first` is a command that holds from the start: a job that was being cancelled when the
/// server died starts nothing.
async fn run(
    engine: &Engine,
    job: &JobRow,
    format: RowFormat,
    orders: &mut mpsc::Receiver<Order>,
    live: &Live,
    first: Option<Command>,
) -> Result<Rest, StoreError> {
    let world = &engine.shared.world;
    let dir = world.job_dir(&job.id);
    let (log, past) = recorder::open(&dir, world.fatal.clone()).await?;
    live.set_counts((past.succeeded(), past.failed()));
    live.set_loaded();
    let manifest = Arc::new(pinned::Pinned::open(&dir, format).await?);
    let mut random = seed()?;
    let mut run = Run::new(&job.id, manifest.rows(), past, world.settings.run.clone(), random.next_u64(), engine.now());
    let mut dispatcher = dispatcher::Dispatcher::new(Arc::clone(&world.invoker), job, random);

    let began = engine.now();
    let mut noted = began;
    let mut reason = None;
    let mut reading = None;
    let mut recording = None;
    let mut noting: Option<Noting> = None;
    let mut stopping = false;
    let mut slots_tick = tokio::time::interval(SLOTS_EVERY);
    slots_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    if let Some(command) = first {
        run.handle(Event::Command(command), began);
    }
    loop {
        while let Some(effect) = run.next_effect() {
            match effect {
                Effect::Invoke { invocation, task, attempt } => dispatcher.start(invocation, &task, attempt),
                Effect::Read { first_row, rows_max } => {
                    debug_assert_eq!(rows_max, CHUNK_ROWS);
                    let manifest = Arc::clone(&manifest);
                    reading = Some(tokio::task::spawn_blocking(move || manifest.read_from(first_row)));
                }
                Effect::Record { batch, entries } => recording = Some(Box::pin(recorder::write(&log, batch, entries))),
                Effect::Ended(ended) => {
                    let counts = run.counts();
                    live.set_counts(counts);
                    if let Some(note) = noting.take() {
                        let (at, written) = note.await;
                        noted = if written.is_ok() { at } else { noted };
                    }
                    let more = engine.now().since_ms(noted);
                    agent::persist(|| world.table.note_progress(&job.id, counts, more)).await?;
                    live.active_ms.store(0, Ordering::Relaxed);
                    return Ok(Rest { ended, counts, reason });
                }
            }
        }
        live.set_counts(run.counts());
        let wake_at = run.wake_at(engine.now()).map(|tick| engine.at(tick));
        let event = tokio::select! {
            (invocation, reply) = dispatcher.next_answer() => Event::Answered { invocation, reply },
            written = some(&mut recording) => {
                recording = None;
                match written {
                    (batch, Ok(())) => Event::Recorded { batch },
                    (batch, Err(error)) if error.is_full() => {
                        tracing::warn!(job = job.id, %error, "results wait for space on the disk");
                        Event::NotRecorded { batch }
                    }
                    (_, Err(error)) => return Err(error),
                }
            }
            rows = some(&mut reading) => {
                reading = None;
                match rows.unwrap_or_else(|panic| Err(StoreError::Damaged(format!("reading rows: {panic}")))) {
                    Ok(rows) => Event::Rows(rows),
                    Err(error) => {
                        tracing::error!(job = job.id, %error, "the pinned manifest cannot be read");
                        reason = Some(FailureReason::new("ManifestDamaged", error.to_string()));
                        Event::Command(Command::Fail)
                    }
                }
            }
            Some(order) = orders.recv() => match order {
                Order::Pause => Event::Command(Command::Pause),
                Order::Cancel(taken) => {
                    run.handle(Event::Command(Command::Cancel), engine.now());
                    // Whoever asked may have hung up.
                    let _ = taken.send(());
                    continue;
                }
            },
            () = engine.shared.stopping.cancelled(), if !stopping => {
                stopping = true;
                Event::Command(Command::Pause)
            }
            _ = slots_tick.tick() => {
                let now = engine.now();
                live.active_ms.store(now.since_ms(noted), Ordering::Relaxed);
                if now.since_ms(noted) >= NOTE_EVERY_MS && noting.is_none() {
                    let (table, id) = (world.table.clone(), job.id.clone());
                    let (counts, more) = (run.counts(), now.since_ms(noted));
                    // Beside the loop, not in it: a disk that stalls must not hold up the calls.
                    noting = Some(Box::pin(async move { (now, table.note_progress(&id, counts, more).await) }));
                }
                Event::Slots(slots(engine, &job.request.operation.function_arn))
            }
            (at, written) = some(&mut noting) => {
                noting = None;
                // A note that finds no space is made the next time.
                if written.is_ok() {
                    noted = at;
                    live.active_ms.store(engine.now().since_ms(noted), Ordering::Relaxed);
                }
                continue;
            }
            () = until(wake_at) => Event::Woken,
        };
        run.handle(event, engine.now());
    }
}

/// What the function allows, and this job's share of what the server allows.
fn slots(engine: &Engine, function: &str) -> u32 {
    let world = &engine.shared.world;
    let jobs = u32::try_from(engine.agents().len()).unwrap_or(u32::MAX).max(1);
    let share = (world.settings.concurrency_total_max / jobs).max(1);
    world.invoker.slots(function).map_or(share, |slots| slots.min(share))
}

fn seed() -> Result<longshore_core::random::Random, StoreError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Io(std::io::Error::other(e.to_string())))?;
    Ok(longshore_core::random::Random::seeded(u64::from_le_bytes(bytes)))
}

/// Waits for a future that may not be there.
async fn some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether an agent has work in this status.
fn needs_agent(status: Status) -> bool {
    matches!(status, Status::Preparing | Status::Active | Status::Completing | Status::Cancelling | Status::Failing)
}

#[cfg(test)]
mod tests;
