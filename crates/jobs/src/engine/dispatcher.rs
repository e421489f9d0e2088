//! Calls functions: the acting half of `core::dispatch` and `core::retry`, which decide.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use longshore_core::invocation::{EventTemplate, Reply, Schema, invocation_id};
use longshore_core::random::Random;
use longshore_core::run::Took;
use longshore_core::task::Task;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::gate::Door;
use crate::ledger::JobRow;
use crate::ports::Invoker;

/// A call under way: its invocation, what came of it, and how long it took if it began.
type Call = Pin<Box<dyn Future<Output = (u64, Reply, Option<Took>)> + Send>>;

/// The calls of one job that are under way. Their number is bounded by the run, which decides each of them.
pub(super) struct Dispatcher {
    invoker: Arc<dyn Invoker>,
    job_id: String,
    function: Arc<str>,
    template: EventTemplate,
    random: Random,
    door: Arc<Door>,
    /// Calls that wait at the door are called off.
    halted: CancellationToken,
    calls: FuturesUnordered<Call>,
}

impl Dispatcher {
    pub fn new(invoker: Arc<dyn Invoker>, door: Arc<Door>, job: &JobRow, random: Random) -> Self {
        let operation = &job.request.operation;
        let schema = if operation.schema_version.as_deref() == Some("2.0") { Schema::V2 } else { Schema::V1 };
        let arguments = operation.user_arguments.as_deref().unwrap_or_default();
        Self {
            invoker,
            job_id: job.id.clone(),
            function: operation.function_arn.as_str().into(),
            template: EventTemplate::new(&job.id, &job.lineage, schema, arguments),
            random,
            door,
            halted: CancellationToken::new(),
            calls: FuturesUnordered::new(),
        }
    }

    pub fn start(&mut self, invocation: u64, task: &Task, attempt: u32) {
        let payload = self.template.event(invocation_id(&mut self.random).as_str(), task);
        tracing::debug!(job = self.job_id, row = task.row, attempt, invocation, "task started");
        let (invoker, function) = (Arc::clone(&self.invoker), Arc::clone(&self.function));
        let halted = self.halted.clone();
        let asked = Instant::now();
        // Usually there is room, and nothing to wait for or to call off.
        if let Some(pass) = self.door.try_enter() {
            self.calls.push(Box::pin(async move {
                if halted.is_cancelled() {
                    return (invocation, Reply::NotStarted, None);
                }
                let reply = invoker.invoke(&function, payload).await;
                drop(pass);
                // The call began as it was asked for.
                let us = micros(asked, Instant::now());
                (invocation, reply, Some(Took { since_asked_us: us, call_us: us }))
            }));
            return;
        }
        let mut entering = Box::pin(Arc::clone(&self.door).enter());
        // Asked once now, it has its place in the queue before whoever comes next.
        let pass = (&mut entering).now_or_never();
        self.calls.push(Box::pin(async move {
            let waited = async move {
                match pass {
                    Some(pass) => pass,
                    None => entering.await,
                }
            };
            let pass = tokio::select! {
                biased;
                () = halted.cancelled() => return (invocation, Reply::NotStarted, None),
                pass = waited => pass,
            };
            let called = Instant::now();
            let reply = invoker.invoke(&function, payload).await;
            let answered = Instant::now();
            drop(pass);
            let took = Took { since_asked_us: micros(asked, answered), call_us: micros(called, answered) };
            (invocation, reply, Some(took))
        }));
    }

    /// From here on no call begins. Those that have begun go on.
    pub fn halt(&self) {
        self.halted.cancel();
    }

    /// How many calls of this function all jobs may have under way.
    pub fn set_limit(&self, limit: u32) {
        self.door.set_limit(limit);
    }

    /// A call that is over by now. Calls that go on are known to go on until [`Dispatcher::next_answer`] is asked again.
    pub fn answer_now(&mut self) -> Option<(u64, Reply, Option<Took>)> {
        self.calls.next().now_or_never().flatten()
    }

    /// The next call that is over; waits for ever if none is under way.
    pub async fn next_answer(&mut self) -> (u64, Reply, Option<Took>) {
        match self.calls.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
