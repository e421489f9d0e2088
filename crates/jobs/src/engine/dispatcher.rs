//! Calls functions: the acting half of `core::dispatch` and `core::retry`, which decide.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use longshore_core::invocation::{EventTemplate, Reply, Schema, invocation_id};
use longshore_core::random::Random;
use longshore_core::run::Took;
use longshore_core::start::Start;
use longshore_core::task::Task;
use tokio::time::Instant;

use super::gate::Door;
use super::role::JobInvoker;
use crate::ledger::JobRow;

/// What came of a call, and how long it took if it began.
type Answer = (Reply, Option<Took>);

/// A call on its way: at the door, in a queue of what it calls, or under way.
struct Call {
    invocation: u64,
    start: Start,
    answered: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

impl Future for Call {
    type Output = (u64, Reply, Option<Took>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (reply, took) = ready!(self.answered.as_mut().poll(context));
        Poll::Ready((self.invocation, reply, took))
    }
}

/// The calls of one job that are under way. Their number is bounded by the run, which decides each of them.
pub(super) struct Dispatcher {
    invoker: JobInvoker,
    job_id: String,
    function: Arc<str>,
    template: EventTemplate,
    random: Random,
    door: Arc<Door>,
    calls: FuturesUnordered<Call>,
    /// No call begins any more.
    halted: bool,
    /// Those that never will, and those that were over at once. Not more than were on their way.
    over: VecDeque<(u64, Reply, Option<Took>)>,
}

impl Dispatcher {
    pub fn new(invoker: JobInvoker, door: Arc<Door>, job: &JobRow, random: Random) -> Self {
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
            calls: FuturesUnordered::new(),
            halted: false,
            over: VecDeque::new(),
        }
    }

    pub fn start(&mut self, invocation: u64, task: &Task, attempt: u32) {
        if self.halted {
            self.over.push_back((invocation, Reply::NotStarted, None));
            return;
        }
        let payload = self.template.event(invocation_id(&mut self.random).as_str(), task);
        tracing::debug!(job = self.job_id, row = task.row, attempt, invocation, "task started");
        let (invoker, function) = (self.invoker.clone(), Arc::clone(&self.function));
        let asked = Instant::now();
        let start = Start::default();
        let own = start.clone();
        let call = async move |pass, called| {
            let reply = invoker.invoke_unless_called_off(&function, payload, &own).await;
            let answered = Instant::now();
            drop(pass);
            let took = Took { since_asked_us: micros(asked, answered), call_us: micros(called, answered) };
            (reply, Some(took))
        };
        // Usually there is room, and nothing to wait for.
        let answered: Pin<Box<dyn Future<Output = Answer> + Send>> = match self.door.try_enter() {
            Some(pass) => Box::pin(call(pass, asked)),
            None => {
                let mut entering = Box::pin(Arc::clone(&self.door).enter());
                // Asked once now, it has its place in the queue before whoever comes next.
                let pass = (&mut entering).now_or_never();
                Box::pin(async move {
                    let pass = match pass {
                        Some(pass) => pass,
                        None => entering.await,
                    };
                    call(pass, Instant::now()).await
                })
            }
        };
        let mut call = Call { invocation, start, answered };
        // Sent now, not behind the answers that wait for their turn: whoever is called works while those are taken. Those
        // who wait below look at it once more, and are woken by it.
        match Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(over) => self.over.push_back(over),
            Poll::Pending => self.calls.push(call),
        }
    }

    /// From here on no call begins, wherever it waits for its turn. Those that have begun go on.
    pub fn halt(&mut self) {
        if std::mem::replace(&mut self.halted, true) {
            return;
        }
        for call in std::mem::take(&mut self.calls) {
            match call.start.call_off() {
                // Dropped with it, it gives up its place in whichever queue.
                true => self.over.push_back((call.invocation, Reply::NotStarted, None)),
                false => self.calls.push(call),
            }
        }
    }

    /// How many calls of this function all jobs may have under way.
    pub fn set_limit(&self, limit: u32) {
        self.door.set_limit(limit);
    }

    /// A call that is over by now. Calls that go on are known to go on until [`Dispatcher::next_answer`] is asked again.
    pub fn answer_now(&mut self) -> Option<(u64, Reply, Option<Took>)> {
        // These first: those that were over at once may make room for more of their kind, without end.
        let answered = if self.calls.is_empty() { None } else { self.calls.next().now_or_never().flatten() };
        answered.or_else(|| self.over.pop_front())
    }

    /// The next call that is over; waits for ever if none is under way.
    pub async fn next_answer(&mut self) -> (u64, Reply, Option<Took>) {
        if !self.over.is_empty()
            && let Some(answer) = self.answer_now()
        {
            return answer;
        }
        match self.calls.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
