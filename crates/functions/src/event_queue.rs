//! Asynchronous invocations: accepted onto the disk, run later, tried again. Source: Lambda spec 2.7, decision 0020.
//!
//! [`longshore_core::event_invocation`] decides which event runs, when, and what follows; this is the agent that stores
//! events, calls functions, and keeps what was decided. What counts is in the table: an event is accepted once it is
//! there, and is there until it is done or dropped. So a crash repeats what was running, and loses nothing.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use longshore_core::event_invocation::{
    AGE_MS_MAX, Bounds, Event, Full, Limits, Outcome, Policy, Queue, RETRIES_MAX, Reason, Tries, Verdict,
};
use longshore_core::time::Tick;
use longshore_store::failpoint::{self, Place};
use longshore_store::{Records, StoreError};
use rusqlite::Connection;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::Functions;
use crate::error::FunctionError;
use crate::function::{Function, VersionNumber};
use crate::host::{self, Patience};
use crate::resolve::Named;
use crate::table::{self, Owner, StoredEvent};

/// Bytes of an event's payload. Source: Lambda spec 7.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Events that run at once, all functions together: their payloads, 256 MiB at worst, are all that the queue holds of
/// them in memory. More than any machine runs environments; how many of one function run is decided by its slots.
const RUNNING_MAX: usize = 256;
/// How long an event waits for an environment before it is put off: long enough to get its turn among other calls, short
/// enough that its place goes to another event of the function in time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the queue's clock is noted while there are events: so much of their age a crash makes them forget.
const CLOCK_NOTED_EVERY: Duration = Duration::from_secs(10);
/// How long the table is left alone after it could not be written.
const TABLE_PAUSE: Duration = Duration::from_secs(5);

/// Where the queue has the time from: milliseconds that never go back. A test hands in its own.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> Tick + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Default for Clock {
    fn default() -> Self {
        let started = Instant::now();
        Self(Arc::new(move || Tick(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))))
    }
}

/// How the queue of events is set up.
#[derive(Debug, Clone)]
pub struct EventSettings {
    pub policy: Policy,
    pub bounds: Bounds,
    pub clock: Clock,
}

impl Default for EventSettings {
    /// AWS's policy, and room for 100,000 events or 1 GiB: some 20 MB of memory, and a database that still fits any disk.
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            bounds: Bounds { events_max: 100_000, bytes_max: 1 << 30, running_max: RUNNING_MAX },
            clock: Clock::default(),
        }
    }
}

/// What the queue holds, and what became of events since the server was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventFigures {
    /// Accepted and not done; those that run are among them.
    pub events: usize,
    pub running: usize,
    pub succeeded: u64,
    pub dropped: u64,
}

pub(crate) struct EventQueue {
    records: Records,
    policy: Policy,
    clock: Clock,
    /// The queue's time when it was opened, and the clock's.
    opened: (Tick, Tick),
    state: Mutex<State>,
    /// There is another event to run, perhaps.
    news: Notify,
    figures: watch::Sender<EventFigures>,
    stopping: CancellationToken,
    agent: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    queue: Queue<Owner>,
    next_number: u64,
}

/// What a try came to, and what it takes to judge it and to tell of it.
struct Tried {
    outcome: Outcome,
    limits: Limits,
    request_id: String,
    /// For the log, where something went wrong.
    error: String,
    /// The function itself, not only what was invoked of it, is what no event of it can do without.
    concerns_all: bool,
}

impl EventQueue {
    /// Reads what earlier servers have accepted. Blocks; for start-up.
    pub fn open(records: Records, settings: &EventSettings) -> Result<Self, FunctionError> {
        let read = records.read_blocking::<_, FunctionError>(|c| Ok((table::events(c)?, table::event_clock(c)?)));
        let (events, noted) = read?;
        let mut queue = Queue::new(settings.bounds);
        let (mut now, mut next_number) = (noted, 1);
        for (number, function, event) in events {
            now = now.max(event.accepted);
            next_number = next_number.max(number + 1);
            queue.restore(&function, number, event);
        }
        let figures = EventFigures { events: queue.len(), ..EventFigures::default() };
        if figures.events > 0 {
            tracing::info!(events = figures.events, "events of an earlier run are in the queue");
        }
        Ok(Self {
            records,
            policy: settings.policy.clone(),
            opened: (now, (settings.clock.0)()),
            clock: settings.clock.clone(),
            state: Mutex::new(State { queue, next_number }),
            news: Notify::new(),
            figures: watch::Sender::new(figures),
            stopping: CancellationToken::new(),
            agent: Mutex::default(),
        })
    }

    /// Takes an event: it is on the disk when this returns, and will run.
    ///
    /// Runs to its end even if the caller goes away: what is stored is known to the agent.
    pub async fn accept(self: &Arc<Self>, stored: StoredEvent) -> Result<(), FunctionError> {
        let queue = self.clone();
        let work = async move {
            let (function, bytes) = (stored.function.clone(), stored.payload.len() as u64);
            let now = queue.now();
            let event = Event { accepted: now, due: now, bytes, tries: Tries::default() };
            let number = {
                let mut state = queue.lock();
                // AWS has no word for a queue that is full; this one is for a function that is invoked too often.
                let full = |Full| FunctionError::Throttled("FunctionInvocationRateLimitExceeded");
                state.queue.admit(&function, bytes).map_err(full)?;
                state.next_number += 1;
                state.next_number - 1
            };
            failpoint::pass(Place::QueueAcceptBefore);
            let written = queue.records.write::<_, FunctionError>(move |connection| {
                Ok(table::put_event(connection, number, &stored, &event)?)
            });
            let written = written.await;
            failpoint::pass(Place::QueueAcceptAfter);
            let mut state = queue.lock();
            match &written {
                Ok(()) => state.queue.put(&function, number, event),
                Err(_) => state.queue.withdraw(&function, bytes),
            }
            queue.count(&state, |_| {});
            drop(state);
            queue.news.notify_one();
            written
        };
        tokio::spawn(work)
            .await
            .unwrap_or_else(|panic| Err(FunctionError::Fault(format!("An internal error occurred: {panic}"))))
    }

    /// What there is, and every change of it.
    pub fn figures(&self) -> watch::Receiver<EventFigures> {
        self.figures.subscribe()
    }

    /// Has the agent look at the clock again, which a test has set.
    #[cfg(test)]
    pub fn look(&self) {
        self.news.notify_one();
    }

    #[cfg(test)]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Ends the agent where it is, as a crash would.
    #[cfg(test)]
    pub fn crash(&self) {
        if let Some(agent) = self.agent.lock().unwrap_or_else(PoisonError::into_inner).take() {
            agent.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Tick {
        let (queues, clocks) = self.opened;
        queues.after_ms((self.clock.0)().since_ms(clocks))
    }

    fn count(&self, state: &State, change: impl FnOnce(&mut EventFigures)) {
        self.figures.send_modify(|figures| {
            figures.events = state.queue.len();
            figures.running = state.queue.running();
            change(figures);
        });
    }

    /// Writes until it is written. `false`: it will never be, and the process is about to end.
    async fn persist(&self, work: impl Fn(&Connection) -> Result<(), StoreError> + Clone + Send + 'static) -> bool {
        loop {
            match self.records.write::<_, StoreError>(work.clone()).await {
                Ok(()) => return true,
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "what came of an event cannot be noted, will retry");
                    tokio::time::sleep(TABLE_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, "what came of an event cannot be noted; it will run again");
                    return false;
                }
            }
        }
    }

    async fn note_clock(&self) {
        let now = self.now();
        let noted = self.records.write::<_, StoreError>(move |connection| table::put_event_clock(connection, now));
        if let Err(error) = noted.await {
            tracing::debug!(%error, "the time of the queue of events is not noted");
        }
    }
}

impl Functions {
    /// Starts to run events, those of earlier servers first. Once, on the runtime of the caller.
    pub fn run_events(&self) {
        let agent = tokio::spawn(run(self.clone()));
        *self.inner.events.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent);
    }

    /// What the queue of events holds, and every change of it.
    pub fn event_figures(&self) -> watch::Receiver<EventFigures> {
        self.inner.events.figures()
    }

    /// Starts no more events, and waits up to `grace` for those that run. One that takes longer is given up: it runs
    /// again when the next server starts. What is accepted meanwhile is kept for that server.
    pub async fn stop_events(&self, grace: Duration) {
        let queue = &self.inner.events;
        queue.stopping.cancel();
        let agent = queue.agent.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut agent) = agent
            && tokio::time::timeout(grace, &mut agent).await.is_err()
        {
            agent.abort();
            let events = queue.lock().queue.running();
            tracing::warn!(events, "events that were running are given up; they run again at the next start");
        }
        let events = queue.lock().queue.len();
        if events > 0 {
            queue.note_clock().await;
            tracing::info!(events, "events wait for the next start");
        }
    }
}

/// Runs events until it is told to stop; then those that run may end.
async fn run(functions: Functions) {
    let queue = &functions.inner.events;
    let mut trying = JoinSet::new();
    let mut noted = queue.now();
    while !queue.stopping.is_cancelled() {
        // While events arrive all the time, news is all that the pause below ever sees: what is done must not gather.
        while trying.try_join_next().is_some() {}
        let now = queue.now();
        let wake_at = {
            let snapshot = functions.inner.catalogue.snapshot();
            // Of all versions `$LATEST` speaks for the function: what is reserved is reserved for all of them.
            let slots = |owner: &Owner| {
                let entry = snapshot.get(&owner.name).filter(|entry| entry.function.id == owner.id);
                let deployment = entry.and_then(|entry| entry.deployments.get(&VersionNumber::LATEST));
                deployment.map_or(1, |deployment| functions.inner.environments.slots(deployment))
            };
            let mut state = queue.lock();
            while let Some((function, number)) = state.queue.next(now, slots) {
                trying.spawn(attempt(functions.clone(), function, number));
            }
            queue.count(&state, |_| {});
            state.queue.wake_at(now)
        };
        let pause = wake_at.map_or(CLOCK_NOTED_EVERY, |at| Duration::from_millis(at.since_ms(now)));
        tokio::select! {
            biased;
            () = queue.stopping.cancelled() => {}
            () = queue.news.notified() => {}
            Some(_) = trying.join_next() => {}
            () = tokio::time::sleep(pause.min(CLOCK_NOTED_EVERY)) => {}
        }
        let since_noted = queue.now().since_ms(noted);
        if u128::from(since_noted) >= CLOCK_NOTED_EVERY.as_millis() && !queue.lock().queue.is_empty() {
            noted = queue.now();
            queue.note_clock().await;
        }
    }
    while trying.join_next().await.is_some() {}
}

/// One try of a running event, and what follows it.
async fn attempt(functions: Functions, function: Owner, number: u64) {
    let queue = &functions.inner.events;
    let Some(event) = queue.lock().queue.event(&function, number) else { return };
    failpoint::pass(Place::QueueTryBefore);
    let tried = AssertUnwindSafe(functions.try_event(&function, number, event)).catch_unwind().await;
    failpoint::pass(Place::QueueTryAfter);
    let tried = tried.unwrap_or_else(|_| Tried {
        outcome: Outcome::NotRun,
        limits: Limits::default(),
        request_id: String::new(),
        error: "the call panicked".into(),
        concerns_all: false,
    });
    let mut tries = event.tries;
    let verdict = queue.policy.after(tried.outcome, &mut tries, tried.limits, event.accepted, queue.now());
    let kept = match verdict {
        Verdict::Again { due } => {
            queue.persist(move |connection| table::put_off_event(connection, number, tries, due)).await
        }
        Verdict::Done | Verdict::Drop(_) => {
            queue.persist(move |connection| table::delete_events(connection, &[number])).await
        }
    };
    if !kept {
        return;
    }
    failpoint::pass(Place::QueueSettled);
    let (name, request_id, error) = (&function.name, &tried.request_id, &tried.error);
    match verdict {
        Verdict::Done => {}
        Verdict::Again { due } => {
            let after_ms = due.since_ms(queue.now());
            tracing::debug!(function = name, request_id, error, after_ms, "event not done, will retry");
        }
        Verdict::Drop(reason) => {
            let (function_errors, faults) = (tries.function_errors, tries.faults);
            tracing::warn!(function = name, request_id, %reason, function_errors, faults, error, "event dropped");
        }
    }
    let others = {
        let mut state = queue.lock();
        state.queue.settle(&function, number, tries, verdict);
        let others = if tried.concerns_all { state.queue.take_waiting(&function) } else { Vec::new() };
        if let Verdict::Drop(reason) = verdict
            && functions.has(&function)
        {
            functions.inner.environments.count_dropped_events(name, 1 + others.len() as u64, reason.name());
        }
        queue.count(&state, |figures| match verdict {
            Verdict::Done => figures.succeeded += 1,
            Verdict::Again { .. } => {}
            Verdict::Drop(_) => figures.dropped += 1 + others.len() as u64,
        });
        others
    };
    if !others.is_empty() {
        let events = others.len();
        if let Verdict::Drop(reason) = verdict {
            tracing::warn!(function = name, %reason, events, "further events of the function dropped");
        }
        queue.persist(move |connection| table::delete_events(connection, &others)).await;
    }
}

impl Functions {
    /// Whether the function is there, and no later one of its name.
    fn has(&self, owner: &Owner) -> bool {
        self.inner.catalogue.snapshot().get(&owner.name).is_some_and(|entry| entry.function.id == owner.id)
    }

    /// Calls the function as it is now, by the name and qualifier that the event was sent to.
    async fn try_event(&self, owner: &Owner, number: u64, event: Event) -> Tried {
        let read = self.inner.events.records.read::<_, StoreError>(move |c| table::event(c, number)).await;
        let mut tried = Tried {
            outcome: Outcome::NotRun,
            limits: Limits::default(),
            request_id: String::new(),
            error: String::new(),
            concerns_all: false,
        };
        let stored = match read {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                let (outcome, error) = (Outcome::Refused(Reason::Refused), "there is no record of it".into());
                return Tried { outcome, error, ..tried };
            }
            Err(error) => return Tried { error: error.to_string(), ..tried },
        };
        tried.request_id = stored.request_id.clone();
        let entry = self.inner.catalogue.snapshot().get(&owner.name).cloned();
        let Some(entry) = entry.filter(|entry| entry.function.id == owner.id) else {
            return Tried { outcome: Outcome::Refused(Reason::FunctionNotFound), concerns_all: true, ..tried };
        };
        tried.limits = limits(&entry.function, stored.qualifier.as_deref());
        if tried.limits.are_exceeded(event.accepted, self.inner.events.now()) {
            return Tried { outcome: Outcome::Refused(Reason::EventAgeExceeded), ..tried };
        }
        let named = Named { name: owner.name.clone(), qualifier: stored.qualifier };
        let called = async {
            let mut resolved = self.resolve(&named).await?;
            if resolved.entry.function.id != owner.id {
                return Err(self.latest_not_found(&named));
            }
            let call = host::Call {
                request_id: stored.request_id,
                invoked_arn: resolved.invoked_arn.clone(),
                payload: stored.payload,
                client_context: None,
                trace_id: Some(stored.trace_id),
                want_log_tail: false,
                patience: Patience::For(PATIENCE),
                start: None,
            };
            self.dispatch(&named, &mut resolved, call).await
        };
        match called.await {
            Ok((_, false, _)) => Tried { outcome: Outcome::Succeeded, ..tried },
            Ok((_, true, _)) => Tried { outcome: Outcome::FunctionError, error: "the function failed".into(), ..tried },
            Err(error) => {
                let (outcome, concerns_all) = after_error(&error);
                Tried { outcome, concerns_all, error: error.to_string(), ..tried }
            }
        }
    }
}

/// What a call that did not reach the function amounts to, and whether that holds for the whole function.
fn after_error(error: &FunctionError) -> (Outcome, bool) {
    match error {
        FunctionError::NotFound(_) | FunctionError::Missing(_) => (Outcome::Refused(Reason::FunctionNotFound), false),
        FunctionError::SwitchedOff => (Outcome::Refused(Reason::ZeroReservedConcurrency), true),
        // A conflict is one with a state that passes.
        error => match error.told().status.as_u16() {
            409 | 429 | 500.. => (Outcome::NotRun, false),
            _ => (Outcome::Refused(Reason::Refused), false),
        },
    }
}

/// What is set for what was invoked; each qualifier is on its own, as on AWS.
fn limits(function: &Function, qualifier: Option<&str>) -> Limits {
    let config = function.event_invoke_configs.get(qualifier.unwrap_or("$LATEST")).copied().unwrap_or_default();
    Limits {
        retries_max: config.maximum_retry_attempts.unwrap_or(RETRIES_MAX),
        age_ms_max: config.maximum_event_age_s.map_or(AGE_MS_MAX, |seconds| u64::from(seconds) * 1_000),
    }
}
