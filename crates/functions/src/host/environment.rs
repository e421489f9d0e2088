//! One execution environment: a process tree, its listeners, its log, and the keeper that starts and ends it.
//!
//! The keeper is one task; it alone starts and ends the process. Connections of the runtime change the session under
//! its lock and tell the pool. No lock is held while the pool is told anything.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use longshore_core::pool::{CallId, EnvironmentId, Kind};
use longshore_sandbox::usage::Times;
use longshore_store::failpoint::{self, Place};
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::crowds::Crowded;
use super::figures::{self, Activity, FunctionFigures};
use super::lines::{Figures, Status, Threshold, Writer, runtime_version};
use super::logs::{LINE_BYTES_MAX, Sink};
use super::outcome::{Failure, response_too_large};
use super::process::{self, Anew, NotStarted, Plan};
use super::runtimes::{self, Language};
use super::sandbox::{Lease, Network, Parts};
use super::session::{AnswerKind, Event, Next, Refusal, Session, Work};
use super::variables::{Addresses, variables};
use super::{Deployment, FunctionCredentials, Outcome, Pending, Shared, forwarder, runtime_api};
use crate::random;

/// What of an invocation's log is returned with its answer, in bytes. Lambda's.
const LOG_TAIL_BYTES: usize = 4096;
/// How long after an answer its log is waited for, where the caller wants it.
const TRAILING_OUTPUT: Duration = Duration::from_millis(10);
/// Between SIGTERM and SIGKILL for an environment that is idle.
const TERM_GRACE: Duration = Duration::from_millis(500);
/// How long the connections of a process that ended are read. Its own are at their end at once; those that it handed to
/// a child are not.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often a call may find its environment dead before it saw the call. A runtime that polls and dies at once would
/// else be started for the same call for ever.
const LOSSES_MAX: u8 = 3;
/// Bodies up to this size are copied behind their head: one buffer, one write. Larger ones go out beside it.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;
/// How old a figure of used memory may be in a REPORT line; asking the kernel costs more than the rest of the line.
const MEMORY_FIGURE_AGE: Duration = Duration::from_secs(1);
/// How long the start of a provisioned environment may take: the function's time-out, but at least and at most so long.
/// Source: Lambda specification 1.9.
const PROVISIONED_INIT: (Duration, Duration) = (Duration::from_secs(130), Duration::from_secs(900));
/// Read from a function's output in one go; then others have their turn.
const OUTPUT_TURN_BYTES: usize = 1024 * 1024;

pub(super) struct Environment {
    pub id: EnvironmentId,
    pub deployment: Arc<Deployment>,
    kind: Kind,
    /// Where its connections are served, and its keeper runs.
    pub thread: tokio::runtime::Handle,
    shared: std::sync::Weak<Shared>,
    /// Random; names the folder and finds the processes. That of the environment that was made ahead, if there is one.
    marker: OnceLock<String>,
    created: Instant,
    guarded: Mutex<Guarded>,
    /// Something in the session changed that a waiting `/next` should look at.
    changed: Notify,
    /// See `STOP_*`; read by the keeper when it is notified.
    stop: AtomicU8,
    stop_ordered: Notify,
    /// The process is gone, and nothing new can come from it.
    pub process_ended: Notify,
    /// After [`Environment::process_ended`]: all that it had sent has been read.
    pub heard: Notify,
    counters: Arc<FunctionFigures>,
    crowded: Arc<Crowded>,
    /// Calls that it was given.
    given: AtomicU64,
    log: Mutex<EnvironmentLog>,
    process: OnceLock<Process>,
    /// Whether its log says already that it has no network.
    hinted: AtomicBool,
}

struct Process {
    of: process::Process,
    output: pipe::Receiver,
}

const STOP_NOT: u8 = 0;
const STOP_WHEN_FREE: u8 = 1;
/// Ask it to end, then kill it.
const STOP_POLITELY: u8 = 2;
const STOP_NOW: u8 = 3;

struct Guarded {
    session: Session<Context>,
    /// When the running invocation's time is up, until the runtime polls again; while starting, when the time of the
    /// first one is.
    deadline: Option<Instant>,
    /// What is to be logged of an invocation that was answered, and told to a caller who waits for its log.
    answered: Option<Answered>,
    /// How long the start took; taken by the first invocation's REPORT line. A provisioned one's is no invocation's.
    init: Option<Duration>,
    failure: Option<Failure>,
    /// Only while the session is idle: whoever gives it work thaws it, under the same lock.
    frozen: bool,
    /// What the pool knows of the memory that it uses.
    measured_mib: u64,
}

/// What goes with an event.
pub(super) struct Context {
    call: CallId,
    pending: Box<Pending>,
    dispatched: Instant,
}

struct Answered {
    request_id: String,
    duration: Duration,
    /// The name of the error, if it was one.
    error_type: Option<String>,
    /// Bytes of the answer.
    produced: usize,
    /// The caller who waits for the log, and the answer.
    waits: Option<(tokio::sync::oneshot::Sender<Outcome>, Bytes, bool)>,
}

/// How a runtime ended an invocation.
pub(super) enum Answer {
    Response(Bytes),
    Error { payload: Bytes, error_type: Option<String> },
    TooLarge,
}

/// How an environment came to its end.
enum End {
    /// The process ended by itself.
    Exited(Option<ExitStatus>),
    /// Its time was up.
    TimedOut,
    /// Its start took too long, and is to begin anew.
    InitTimedOut,
    /// It said that it could not start, or it broke off an answer: it has to go.
    Broken,
    /// The pool or the host said so.
    Stopped {
        politely: bool,
    },
    NotStarted,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Environment {
    pub fn new(
        id: EnvironmentId,
        deployment: Arc<Deployment>,
        kind: Kind,
        thread: tokio::runtime::Handle,
        shared: &Arc<Shared>,
    ) -> Self {
        let log = EnvironmentLog {
            sink: shared.logs.sink(&deployment.name),
            threshold: Threshold::new(deployment.log_format, deployment.application_log_level.as_deref()),
            partial: Vec::new(),
            // What a start prints belongs to the invocation that it fails.
            tail: Some(Vec::new()),
            memory: None,
        };
        let created = Instant::now();
        // A start that begins anew is on the clock of the call that waits for it.
        let deadline = (kind == Kind::Again).then(|| created + Duration::from_secs(u64::from(deployment.timeout_s)));
        Self {
            id,
            counters: shared.figures.of(&deployment.name),
            crowded: shared.crowds.of(&deployment.name),
            given: AtomicU64::new(0),
            deployment,
            kind,
            thread,
            shared: Arc::downgrade(shared),
            marker: OnceLock::new(),
            created,
            guarded: Mutex::new(Guarded {
                session: Session::new(),
                deadline,
                answered: None,
                init: None,
                failure: None,
                frozen: false,
                measured_mib: 0,
            }),
            changed: Notify::new(),
            stop: AtomicU8::new(STOP_NOT),
            stop_ordered: Notify::new(),
            process_ended: Notify::new(),
            heard: Notify::new(),
            log: Mutex::new(log),
            process: OnceLock::new(),
            hinted: AtomicBool::new(false),
        }
    }

    fn marker(&self) -> &str {
        self.marker.get_or_init(|| uuid::Uuid::new_v4().simple().to_string())
    }

    // --- for the pool's effects ---

    /// Gives the environment a call. It comes back if the environment does not take one any more.
    pub fn assign(&self, call: CallId, pending: Box<Pending>) -> Result<(), Box<Pending>> {
        let now = Instant::now();
        let attempt_id = random::uuid().hyphenated().to_string();
        {
            let mut guarded = lock(&self.guarded);
            let timeout = Duration::from_secs(u64::from(self.deployment.timeout_s));
            // A start that took longer than its own limit went on on the first invocation's clock.
            let deadline = guarded.deadline.unwrap_or(now + timeout);
            let deadline_ms = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |wall| wall.as_millis() as u64 + deadline.saturating_duration_since(now).as_millis() as u64);
            let event = render(&pending, &attempt_id, deadline_ms);
            let work = Work {
                request_id: pending.call.request_id.clone(),
                attempt_id,
                event,
                handed_out: false,
                context: Context { call, pending, dispatched: now },
            };
            if let Err(work) = guarded.session.assign(work) {
                return Err(work.context.pending);
            }
            guarded.deadline = Some(deadline);
            self.given.fetch_add(1, Ordering::Relaxed);
            self.thaw(&mut guarded);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Whether its processes run. Asked before an environment that was idle gets a call.
    pub fn is_alive(&self) -> bool {
        self.process.get().is_some_and(|process| process.of.is_alive())
    }

    /// What it is doing, for figures.
    pub fn activity(&self) -> Activity {
        let guarded = lock(&self.guarded);
        match &guarded.session {
            session if session.is_starting() => Activity::Starting,
            session if session.is_ready() && guarded.frozen => Activity::Frozen,
            session if session.is_ready() => Activity::Idle,
            session if session.is_running() => Activity::Running,
            _ => Activity::Ending,
        }
    }

    /// Stops its processes, unless it has got a call meanwhile.
    pub fn freeze(&self) {
        let mut guarded = lock(&self.guarded);
        if guarded.session.is_ready()
            && !guarded.frozen
            && let Some(process) = self.process.get()
        {
            // What cannot be frozen goes on; it costs others its background work.
            guarded.frozen = process.of.freeze().is_ok();
        }
    }

    fn thaw(&self, guarded: &mut Guarded) {
        if std::mem::take(&mut guarded.frozen)
            && let Some(process) = self.process.get()
        {
            // One that cannot be thawed is gone, or runs into its function's time-out.
            let _ = process.of.thaw();
        }
    }

    /// Whether a call is in it.
    pub fn is_running(&self) -> bool {
        lock(&self.guarded).session.is_running()
    }

    /// Calls that it was given since it began.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// How long its runtime has had a processor, and waited for one; `None` where nobody can tell.
    pub fn times(&self) -> Option<Times> {
        self.process.get()?.of.times()
    }

    /// Whether its memory is worth a look: a call is in it, or it starts.
    pub fn is_working(&self) -> bool {
        let guarded = lock(&self.guarded);
        guarded.session.is_running() || guarded.session.is_starting()
    }

    /// Ends it where it uses more memory than its function has: as if the kernel had killed it, which is what AWS's does.
    pub fn check_memory(&self) {
        let Some(process) = self.process.get() else { return };
        let bytes_max = u64::from(self.deployment.memory_mib) << 20;
        let tmp_bytes = u64::from(self.deployment.ephemeral_storage_mib) << 20;
        if !process.of.uses_more_than(bytes_max, tmp_bytes) {
            return;
        }
        {
            let mut guarded = lock(&self.guarded);
            if guarded.failure.is_some() {
                return;
            }
            guarded.failure = Some(Failure::Exit(Some(ExitStatus::from_raw(Signal::KILL.as_raw()))));
        }
        self.told_of_memory();
        self.stop_ordered.notify_one();
    }

    fn told_of_memory(&self) {
        let mut log = lock(&self.log);
        // What it used is gone with it, and was last asked for before this invocation.
        let before = log.memory.map_or(0, |(_, mib)| mib);
        log.memory = Some((Instant::now(), before.max(u64::from(self.deployment.memory_mib))));
        log.end_line();
        log.line(&format!(
            "longshore: killed, for it used more than its {} MB of memory\n",
            self.deployment.memory_mib
        ));
    }

    /// Ends it with the next poll of its runtime.
    pub fn stop_when_free(&self) {
        self.stop.fetch_max(STOP_WHEN_FREE, Ordering::Relaxed);
        if !self.is_running() {
            self.order_stop(true);
        }
    }

    pub fn order_stop(&self, politely: bool) {
        self.stop.fetch_max(if politely { STOP_POLITELY } else { STOP_NOW }, Ordering::Relaxed);
        self.stop_ordered.notify_one();
    }

    /// Answers a call with the failure of this environment's start.
    pub fn fail(&self, pending: Pending) {
        if !pending.call.begins() {
            return;
        }
        let failure = lock(&self.guarded).failure.clone();
        let failure = failure.clone().unwrap_or_else(|| Failure::Host("The environment could not be started.".into()));
        // Its log begins with what the start printed.
        self.log_start(&pending.call, true);
        self.tell_failure(pending, &failure, self.created.elapsed());
    }

    // --- for the runtime's connections ---

    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub fn next(&self) -> Next {
        let mut guarded = lock(&self.guarded);
        while guarded.session.about_to_hand_out().is_some_and(|work| !work.context.pending.call.begins()) {
            // Called off on its last steps: nobody waits for it, and the environment is free for the next.
            drop(guarded.session.take_back());
            guarded.deadline = None;
            drop(guarded);
            if let Some(shared) = self.shared.upgrade() {
                shared.event(|pool, now| pool.released(self.id, now));
            }
            guarded = lock(&self.guarded);
        }
        if let Some(work) = guarded.session.about_to_hand_out() {
            let call = &work.context.pending.call;
            // What was printed while it started may not have been read yet. Later, nothing is printed between two
            // invocations but by threads of the function's own, and a read a call for that would cost everybody.
            if guarded.init.is_some() || call.want_log_tail {
                self.drain();
                lock(&self.log).end_line();
            }
            self.log_start(call, false);
        }
        guarded.session.next()
    }

    /// The first poll: the start is over.
    pub fn came_up(&self) {
        let init = self.created.elapsed();
        self.counters.started(init);
        let end = self.lines().init_end(jiff::Timestamp::now(), init, Status::Success);
        if self.kind != Kind::Provisioned {
            lock(&self.guarded).init = Some(init);
        }
        // What a provisioned one printed is no invocation's, and nobody reads it later.
        if self.kind == Kind::Provisioned || !end.is_empty() {
            self.drain();
            let mut log = lock(&self.log);
            log.end_line();
            log.line(&end);
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.event(|pool, now| pool.ready(self.id, now));
            shared.ahead.replenish();
        }
        let mut guarded = lock(&self.guarded);
        if guarded.session.is_ready() {
            // No call waited: the clock of a late start is nobody's.
            guarded.deadline = None;
        }
    }

    /// A poll after an answer: the invocation is over, the environment is free.
    pub fn finished(self: &Arc<Self>) {
        lock(&self.guarded).deadline = None;
        self.close_invocation(None);
        if self.stop.load(Ordering::Relaxed) == STOP_WHEN_FREE {
            self.order_stop(true);
        }
        let used_mib = lock(&self.log).memory.map_or(0, |(_, mib)| mib);
        let known_mib = std::mem::replace(&mut lock(&self.guarded).measured_mib, used_mib);
        if let Some(shared) = self.shared.upgrade() {
            shared.event(|pool, now| {
                if used_mib > known_mib {
                    pool.measured(self.id, used_mib);
                }
                pool.released(self.id, now);
            });
        }
    }

    pub fn begin_answer(&self, id: &str, attempt: Option<&str>, kind: AnswerKind) -> Result<(), Refusal> {
        lock(&self.guarded).session.begin_answer(id, attempt, kind)
    }

    /// The answer is complete: its caller has it from here, the environment is free with the next poll.
    pub fn answered(self: &Arc<Self>, answer: Answer) {
        // Before its caller can ask again.
        if let Some(shared) = self.shared.upgrade() {
            if self.crowded.answered() {
                shared.crowds.look();
            }
            shared.event(|pool, now| pool.answered(self.id, now));
        }
        let waits = {
            let mut guarded = lock(&self.guarded);
            let Some(work) = guarded.session.end_answer() else { return };
            let mut exception = None;
            let (payload, function_error, error_type) = match answer {
                Answer::Response(payload) => (payload, false, None),
                Answer::Error { payload, error_type } => {
                    self.hint_at_network(&payload);
                    exception = figures::exception(&payload);
                    (payload, true, Some(known_error_type(error_type.as_deref()).to_owned()))
                }
                Answer::TooLarge => (response_too_large(), true, Some("Function.ResponseSizeTooLarge".to_owned())),
            };
            let Context { pending, dispatched, .. } = work.context;
            let mut answered = Answered {
                request_id: pending.call.request_id,
                duration: dispatched.elapsed(),
                error_type,
                produced: payload.len(),
                waits: None,
            };
            let name = match answered.error_type.as_deref() {
                // It says no more than that the function failed; the exception says how.
                Some("Runtime.Unknown" | "Function.Unknown") => exception.as_deref().or(answered.error_type.as_deref()),
                named => named,
            };
            self.counters.ended(answered.duration, name.map_or(Status::Success, Status::Error));
            if pending.call.want_log_tail {
                answered.waits = Some((pending.reply, payload, function_error));
            } else {
                // A caller that is gone needs no answer.
                let _ = pending.reply.send(Outcome::Answered { payload, function_error, log_tail: None });
            }
            let waits = answered.waits.as_ref().map(|_| answered.request_id.clone());
            guarded.answered = Some(answered);
            waits
        };
        if let Some(request_id) = waits {
            // The next poll ends the log as well; a function that goes on working behind its answer is not waited for.
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(TRAILING_OUTPUT).await;
                this.close_invocation(Some(&request_id));
            });
        }
    }

    /// Says in the log that functions have no network here, where an error reads as if one had been missed.
    fn hint_at_network(&self, error: &[u8]) {
        let Some(shared) = self.shared.upgrade() else { return };
        if shared.sandbox.settings().network == Network::S3
            && shared.sandbox.settings().mode != super::layers::Mode::Off
            && misses_network(error)
            && !self.hinted.swap(true, Ordering::Relaxed)
        {
            let mut log = lock(&self.log);
            log.end_line();
            log.line(
                "longshore: functions reach S3 here and no other address; --network=open or network = \"open\" below \
                 [functions] lets them\n",
            );
        }
    }

    /// The connection broke in the middle of an answer.
    pub fn truncated(&self) {
        let work = {
            let mut guarded = lock(&self.guarded);
            // Its time may have been up before: then that is what happened.
            let (Some(work), _) = guarded.session.close() else { return };
            guarded.failure = Some(Failure::Truncated);
            work
        };
        self.tell_failure(*work.context.pending, &Failure::Truncated, work.context.dispatched.elapsed());
        self.stop_ordered.notify_one();
    }

    /// The runtime could not start, and says why.
    pub fn init_error(&self, payload: Bytes, error_type: Option<&str>) -> Result<(), Refusal> {
        {
            let mut guarded = lock(&self.guarded);
            guarded.session.init_error()?;
            guarded.failure = Some(Failure::InitError { payload, error_type: known_error_type(error_type).to_owned() });
        }
        self.stop_ordered.notify_one();
        Ok(())
    }

    // --- logs ---

    fn lines(&self) -> Writer {
        Writer::new(self.deployment.log_format, self.deployment.system_log_level.as_deref(), self.kind)
    }

    /// Logs that the start begins: before anything that the function prints.
    fn log_init_start(&self, interpreter: &str, region: &str) {
        let d = &self.deployment;
        let build = runtime_version(&d.runtime, interpreter);
        let arn = crate::shape::runtime_version_arn(region, &d.runtime, interpreter);
        let now = jiff::Timestamp::now();
        lock(&self.log).line(&self.lines().init_start(now, &build, &arn, &d.name, &d.version, d.memory_mib));
    }

    /// Logs that an invocation begins. Its log is what follows, and for `with_init` also what came before.
    fn log_start(&self, call: &super::Call, with_init: bool) {
        let line = self.lines().start(jiff::Timestamp::now(), &call.request_id, &self.deployment.version);
        let mut log = lock(&self.log);
        if !with_init || log.tail.is_none() {
            log.tail = call.want_log_tail.then(Vec::new);
        }
        log.line(&line);
    }

    /// Reads what the runtime had sent when it ended: an answer on the wire is an answer. Somebody else may hold its
    /// connections open; that is not waited for.
    async fn hear_last_words(&self) {
        self.process_ended.notify_one();
        let _ = tokio::time::timeout(LAST_WORDS, self.heard.notified()).await;
    }

    /// Logs that the start failed, if that is how the environment ended: behind all that it printed.
    fn log_failed_init(&self, end: &End) {
        let error_type = {
            let guarded = lock(&self.guarded);
            match (&guarded.failure, end) {
                _ if !guarded.session.is_starting() => return,
                // Ours, and no word of the function's.
                (Some(Failure::Host(_) | Failure::NoSpace(_)), _) | (_, End::Stopped { .. } | End::TimedOut) => return,
                (Some(failure), _) => failure.error_type().to_owned(),
                (None, _) => Failure::Exit(None).error_type().to_owned(),
            }
        };
        self.drain();
        let line = self.lines().init_end(jiff::Timestamp::now(), self.created.elapsed(), Status::Error(&error_type));
        let mut log = lock(&self.log);
        log.end_line();
        log.line(&line);
    }

    /// Reads what the process has printed. Blocks nobody.
    fn drain(&self) {
        if let Some(process) = self.process.get() {
            lock(&self.log).drain(|buffer| Ok(rustix::io::read(&process.output, buffer)?));
        }
    }

    /// Ends the log of the invocation that was answered, if it is `only`.
    fn close_invocation(&self, only: Option<&str>) {
        let (answered, init) = {
            let mut guarded = lock(&self.guarded);
            let taken = guarded.answered.take_if(|a| only.is_none_or(|only| only == a.request_id));
            let Some(answered) = taken else { return };
            (answered, guarded.init.take())
        };
        let status = answered.error_type.as_deref().map_or(Status::Success, Status::Error);
        let figures = self.figures(answered.duration, init, answered.produced);
        let tail = self.report(&answered.request_id, status, figures, answered.waits.is_some());
        if let Some((reply, payload, function_error)) = answered.waits {
            let _ = reply.send(Outcome::Answered { payload, function_error, log_tail: tail });
        }
    }

    fn figures(&self, duration: Duration, init: Option<Duration>, produced: usize) -> Figures {
        Figures { duration, init, memory_mib: self.deployment.memory_mib, used_mib: 0, produced }
    }

    /// Writes END and REPORT of an invocation, with the memory that is in use now; returns the end of its log if it is
    /// wanted.
    fn report(&self, request_id: &str, status: Status, figures: Figures, want_tail: bool) -> Option<Vec<u8>> {
        let process = self.process.get();
        let mut log = lock(&self.log);
        if let Some(process) = process {
            log.drain(|buffer| Ok(rustix::io::read(&process.output, buffer)?));
        }
        log.end_line();
        let used_mib = log.memory_used_mib(process.map(|p| &p.of));
        self.counters.memory(used_mib);
        log.line(&self.lines().end(jiff::Timestamp::now(), request_id, status, Figures { used_mib, ..figures }));
        let tail = log.tail.take();
        want_tail.then(|| {
            let mut tail = tail.unwrap_or_default();
            tail.drain(..tail.len().saturating_sub(LOG_TAIL_BYTES));
            tail
        })
    }

    fn tell_failure(&self, pending: Pending, failure: &Failure, duration: Duration) {
        let init = lock(&self.guarded).init.take();
        let request_id = &pending.call.request_id;
        let status = failure.status();
        if let Some(message) = failure.message() {
            let line = self.lines().failure(jiff::Timestamp::now(), request_id, status, &message);
            self.drain();
            let mut log = lock(&self.log);
            log.end_line();
            log.line(&line);
        }
        self.counters.ended(duration, status);
        let payload = failure.payload(request_id);
        let figures = self.figures(duration, init, payload.as_ref().map_or(0, Bytes::len));
        let tail = self.report(request_id, status, figures, pending.call.want_log_tail);
        let outcome = match payload {
            Some(payload) => Outcome::Answered { payload, function_error: true, log_tail: tail },
            None => match failure {
                Failure::Host(reason) => Outcome::Fault(reason.clone()),
                // Not run, as without a slot for it, and worth another try: a task that waits for room must not fail.
                Failure::NoSpace(_) => Outcome::Throttled { reason: "ConcurrentInvocationLimitExceeded" },
                _ => Outcome::Fault("The function host failed.".to_owned()),
            },
        };
        let _ = pending.reply.send(outcome);
    }
}

/// Lives as long as the environment: starts it, watches it, ends it.
pub(super) async fn keep(environment: Arc<Environment>, shared: Arc<Shared>) {
    let mut tasks = tokio::task::JoinSet::new();
    let (end, child) = match start(&environment, &shared, &mut tasks).await {
        Ok(mut child) => (watch(&environment, &shared, &mut child).await, Some(child)),
        Err(failure) => {
            if let Failure::Host(reason) | Failure::NoSpace(reason) = &failure {
                tracing::warn!(function = environment.deployment.name, reason, "environment could not be started");
            }
            lock(&environment.guarded).failure = Some(failure);
            (End::NotStarted, None)
        }
    };
    if let End::Exited(_) = end {
        environment.hear_last_words().await;
    }
    environment.log_failed_init(&end);
    finish(&environment, &shared, end, child, tasks).await;
}

async fn start(
    environment: &Arc<Environment>,
    shared: &Arc<Shared>,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Result<process::Child, Failure> {
    let host = |what: &'static str| move |error: io::Error| Failure::of_io(what, &error);
    let d = &environment.deployment;
    let found = shared.find_runtime(&d.runtime).await.map_err(Failure::Host)?;
    if let Some(notice) = &found.notice {
        // In the server's log: among the function's own lines it would come back with each environment.
        shared.notice_once(&d.runtime, notice);
    }
    environment.log_init_start(&found.version, &shared.settings.region);
    if runtimes::has_extensions(d.layers_dir.as_deref()) {
        lock(&environment.log).line(
            "longshore: the layers bring extensions (/opt/extensions), which this server does not start: what they \
             would do is not done.\n",
        );
    }
    let language = Language::of(&d.runtime).ok_or_else(|| Failure::Host("unknown runtime".into()))?;
    let credentials = FunctionCredentials::random(&d.name, &d.role).map_err(Failure::Host)?;
    // Where the environment has no network of its own, anybody's programs could reach its listeners, but only it is told
    // where they are.
    let outside = if shared.sandbox.listens_inside() {
        None
    } else {
        let (runtime_listener, runtime_address) = runtime_api::listen().map_err(host("no listener"))?;
        let (s3_listener, s3_address) = runtime_api::listen().map_err(host("no listener"))?;
        Some((runtime_listener, s3_listener, [runtime_address, s3_address].map(|address| address.port())))
    };
    let ports = match &outside {
        Some((_, _, ports)) => *ports,
        None => [super::layers::RUNTIME_API_PORT, super::layers::S3_PORT],
    };
    let credentials = Arc::new(credentials);
    let plan = {
        let (environment, shared) = (environment.clone(), shared.clone());
        let credentials = credentials.clone();
        let planned =
            tokio::task::spawn_blocking(move || plan(&environment, &shared, language, &found, &credentials, ports));
        planned.await.map_err(|_| Failure::Host("the start was broken off".into()))??
    };
    let failed = |error| match error {
        NotStarted::Program(what) => Failure::InvalidEntrypoint(what),
        NotStarted::Host(what) => Failure::Host(what),
        NotStarted::NoSpace(what) => Failure::NoSpace(what),
    };
    failpoint::pass(Place::EnvironmentStartBefore);
    let started = process::start(shared.sandbox.clone(), plan).await.map_err(failed)?;
    failpoint::pass(Place::EnvironmentStartAfter);
    let (runtime_listener, s3_listener) = match (outside, started.listeners) {
        (Some((runtime_listener, s3_listener, _)), _) | (None, Some((runtime_listener, s3_listener))) => {
            (runtime_listener, s3_listener)
        }
        (None, None) => return Err(Failure::Host("the environment has no listeners".into())),
    };
    // The program may be connecting already.
    tasks.spawn(runtime_api::serve(runtime_listener, environment.clone()));
    // What a function sends to S3 is hashed where it is served: not where invocations wait.
    let s3 = forwarder::serve(s3_listener, shared.s3.clone(), credentials);
    tasks.spawn_on(s3, &shared.runtime);
    let output = pipe::Receiver::from_owned_fd(started.output).map_err(host("its output cannot be read"))?;
    let process = Process { of: started.process, output };
    if environment.process.set(process).is_err() {
        unreachable!("an environment is started once");
    }
    tasks.spawn(read_output(environment.clone()));
    let mut child = started.child;
    let runtime = child.runs().await.map_err(failed)?;
    if let Some(process) = environment.process.get() {
        process.of.runs(runtime);
    }
    Ok(child)
}

fn log_stream(version: &str, marker: &str) -> String {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    format!("{:04}/{:02}/{:02}/[{version}]{marker}", today.year(), today.month(), today.day())
}

/// What is to be started: on ground that was laid ahead, if there is some. Blocking: it may have to copy code.
fn plan(
    environment: &Environment,
    shared: &Shared,
    language: Language,
    found: &runtimes::Found,
    credentials: &FunctionCredentials,
    ports: [u16; 2],
) -> Result<Plan, Failure> {
    let sandbox = &shared.sandbox;
    let Some(laid) = shared.ahead.take() else {
        let lease = sandbox.lease().map_err(Failure::Host)?;
        let spec = |parts: &Parts| sandbox.spec(parts);
        let spec = told(environment, shared, language, found, credentials, ports, lease.as_ref(), spec)?;
        let marker = environment.marker();
        let (dir, tmp) = (shared.environments_dir.join(marker), sandbox.staged_tmp(marker));
        return Ok(Plan::Anew(Box::new(Anew { spec, lease, dir, tmp, marker: marker.to_owned() })));
    };
    if environment.marker.set(laid.marker().to_owned()).is_err() {
        unreachable!("an environment is started once");
    }
    let program = |parts: &Parts| sandbox.program(parts);
    match told(environment, shared, language, found, credentials, ports, laid.lease(), program) {
        Ok(program) => Ok(Plan::Ahead(Box::new(laid), Box::new(program))),
        Err(failure) => {
            shared.ahead.let_go(laid);
            Err(failure)
        }
    }
}

/// What `tell` makes of an environment's parts.
#[expect(clippy::too_many_arguments, reason = "called from where these are made alone")]
fn told<T>(
    environment: &Environment,
    shared: &Shared,
    language: Language,
    found: &runtimes::Found,
    credentials: &FunctionCredentials,
    ports: [u16; 2],
    lease: Option<&Lease>,
    tell: impl FnOnce(&Parts<'_>) -> Result<T, String>,
) -> Result<T, Failure> {
    let sandbox = &shared.sandbox;
    let d = &environment.deployment;
    let host = |what: &'static str| move |error: io::Error| Failure::of_io(what, &error);
    let clients = &shared.clients_dir;
    let marker = environment.marker();
    let dir = shared.environments_dir.join(marker);
    let seen = sandbox.seen(d, clients, &dir).map_err(host("its code cannot be shown to it"))?;
    let code = (d.code_dir.as_path(), seen.code.as_path());
    let layers = d.layers_dir.as_deref().zip(seen.layers.as_deref());
    let as_seen = Deployment { code_dir: seen.code.clone(), layers_dir: seen.layers.clone(), ..(**d).clone() };
    let (program, arguments) = runtimes::command(language, found, &seen.clients, code, layers, &d.handler)
        .map(|command| runtimes::wrapped(&as_seen, language, command))
        .map_err(Failure::InvalidEntrypoint)?;
    let addresses = Addresses {
        runtime_api: format!("127.0.0.1:{}", ports[0]),
        s3_endpoint: format!("http://127.0.0.1:{}", ports[1]),
        log_stream: log_stream(&d.version, marker),
        region: &shared.settings.region,
        tmp_dir: &seen.tmp,
        clients_dir: &seen.clients,
        credentials,
    };
    let mut variables = variables(&as_seen, environment.kind, language, found, &addresses);
    variables.insert(process::MARKER.into(), marker.to_owned());
    sandbox.make_tmp(&seen, lease).map_err(host("its folder for temporary files could not be made"))?;
    let parts = Parts {
        deployment: d,
        seen: &seen,
        lease,
        clients,
        interpreter: &found.program,
        program: &program,
        arguments: &arguments,
        variables: &variables,
        dir: &dir,
        marker,
        ports,
        bounds: shared.settings.bounds,
    };
    tell(&parts).map_err(Failure::Host)
}

async fn read_output(environment: Arc<Environment>) {
    let Some(process) = environment.process.get() else { return };
    while process.output.readable().await.is_ok() {
        // By its own read, which takes note of an empty pipe.
        let drained = lock(&environment.log).drain(|buffer| process.output.try_read(buffer));
        match drained {
            Drained::Empty => {}
            Drained::More => tokio::task::yield_now().await,
            Drained::Ended => return,
        }
    }
}

/// How long a start may take. `on_demand` is what an ordinary one may.
fn init_limit(kind: Kind, timeout: Duration, on_demand: Duration) -> Duration {
    match kind {
        Kind::Provisioned => timeout.clamp(PROVISIONED_INIT.0, PROVISIONED_INIT.1),
        Kind::OnDemand | Kind::Again => on_demand,
    }
}

/// Waits for whatever ends the environment.
async fn watch(environment: &Arc<Environment>, shared: &Arc<Shared>, child: &mut process::Child) -> End {
    let timeout = Duration::from_secs(u64::from(environment.deployment.timeout_s));
    let init_limit = init_limit(environment.kind, timeout, shared.settings.init_limit);
    let init_ends = environment.created + init_limit;
    let mut init_over = environment.kind == Kind::Again;
    let alarm = tokio::time::sleep_until((environment.created + timeout.min(init_limit)).into());
    tokio::pin!(alarm);
    loop {
        tokio::select! {
            biased;
            status = child.wait() => return End::Exited(status),
            () = environment.stop_ordered.notified() => {
                if lock(&environment.guarded).failure.is_some() {
                    return End::Broken;
                }
                match environment.stop.load(Ordering::Relaxed) {
                    STOP_NOT | STOP_WHEN_FREE => {}
                    how => return End::Stopped { politely: how == STOP_POLITELY },
                }
            }
            () = &mut alarm => {
                let now = Instant::now();
                let mut guarded = lock(&environment.guarded);
                if !init_over && now >= init_ends {
                    init_over = true;
                    if guarded.init.is_none() && guarded.deadline.is_none() && guarded.session.is_starting() {
                        let at = jiff::Timestamp::now();
                        let line = environment.lines().init_end(at, init_limit, Status::Timeout);
                        lock(&environment.log).line(&line);
                        match environment.kind {
                            Kind::Provisioned => return End::TimedOut,
                            _ if shared.settings.init_restarts => return End::InitTimedOut,
                            _ => guarded.deadline = Some(init_ends + timeout),
                        }
                    }
                }
                // A deadline is never nearer than the time-out from when it was set, so it is enough to look once in
                // that time: an invocation arms no timer.
                let next = match guarded.deadline {
                    Some(deadline) if deadline <= now => {
                        if guarded.failure.is_none() && !guarded.session.is_answered() {
                            guarded.failure = Some(Failure::Timeout(environment.deployment.timeout_s));
                        }
                        return End::TimedOut;
                    }
                    Some(deadline) => deadline,
                    None => now + timeout,
                };
                let next = if init_over { next } else { next.min(init_ends) };
                alarm.as_mut().reset(next.into());
            }
        }
    }
}

/// Ends the process tree, tells the caller and the pool, removes what is left.
async fn finish(
    environment: &Arc<Environment>,
    shared: &Arc<Shared>,
    end: End,
    mut child: Option<process::Child>,
    mut tasks: tokio::task::JoinSet<()>,
) {
    let (work, arriving, starting, failure) = {
        let mut guarded = lock(&environment.guarded);
        let starting = guarded.session.is_starting();
        let (work, arriving) = guarded.session.close();
        // It could not follow a request to end.
        environment.thaw(&mut guarded);
        if guarded.failure.is_none() {
            guarded.failure = match &end {
                // As if they had ended the runtime: they brought themselves down.
                End::Exited(None)
                    if environment.process.get().is_some_and(|p| p.of.may_have_ended_itself(&shared.sandbox)) =>
                {
                    Some(Failure::Exit(Some(ExitStatus::from_raw(Signal::KILL.as_raw()))))
                }
                End::Exited(None) => {
                    Some(Failure::Host("The environment was ended from outside, or the sandbox's helper was.".into()))
                }
                End::Exited(_) if arriving => Some(Failure::Truncated),
                End::Exited(status) => Some(Failure::Exit(*status)),
                End::Stopped { .. } => Some(Failure::Host("The environment was stopped.".into())),
                _ => None,
            };
        }
        (work, arriving, starting, guarded.failure.clone())
    };
    // What was answered is done; only its log is open.
    environment.close_invocation(None);
    // A call that no runtime ever saw is as good as new.
    let lost = match work {
        Some(work) if !work.handed_out && !arriving && work.context.pending.losses < LOSSES_MAX => Some(work.context),
        // Called off before anybody saw it: there is nobody to be told.
        Some(work) if !work.handed_out && !work.context.pending.call.begins() => None,
        Some(work) => {
            let failure = failure.clone().unwrap_or_else(|| Failure::Host("The environment ended.".into()));
            let duration = work.context.dispatched.elapsed();
            if !work.handed_out {
                environment.log_start(&work.context.pending.call, false);
            }
            environment.tell_failure(*work.context.pending, &failure, duration);
            None
        }
        None => None,
    };
    if let (Some(child), Some(Failure::InitError { .. })) = (&mut child, &failure) {
        // It was told that its word arrived, and may print why it ends.
        let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
    }
    let mut also = Vec::new();
    if let (Some(child), Some(process), End::Stopped { politely: true }) = (&mut child, environment.process.get(), &end)
    {
        // Found while their parents live: what left the session is known by its parent alone.
        also = process.of.members(environment.marker()).await;
        if !child.has_ended() {
            process.of.terminate();
            let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
        }
    }
    if let Some(process) = environment.process.get() {
        process.of.end(environment.marker(), also).await;
    }
    environment.drain();
    lock(&environment.log).end_line();
    let crashed = matches!(end, End::Exited(_) | End::Broken | End::NotStarted);
    match lost {
        Some(context) => shared.lost(environment.id, context.call, context.pending),
        None if starting && matches!(end, End::InitTimedOut) => {
            shared.event(|pool, now| pool.init_timed_out(environment.id, now));
        }
        None if starting => {
            shared.ahead.replenish();
            let by_function = !matches!(failure, Some(Failure::Host(_) | Failure::NoSpace(_)));
            shared.event(|pool, now| pool.start_failed(environment.id, by_function, now));
        }
        None => shared.event(|pool, now| pool.died(environment.id, crashed, now)),
    }
    // Connections of the runtime end here, so that its last answer has been written.
    tasks.shutdown().await;
    // With what it wrote outside of its folder, where it had no file system of its own: nobody else gets that, and the disk
    // gets its room back.
    let dir = shared.environments_dir.join(environment.marker());
    let tmp = shared.sandbox.staged_tmp(environment.marker());
    let removed = tokio::task::spawn_blocking(move || {
        let removed = tmp.map_or(Ok(()), |tmp| process::remove_dir(&tmp));
        process::remove_dir(&dir).and(removed)
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(%error, "an environment's folder could not be removed");
    }
    shared.gone(environment.id);
}

/// The answer to `/next` for a call.
fn render(pending: &Pending, attempt_id: &str, deadline_ms: u64) -> Event {
    use std::fmt::Write;
    let call = &pending.call;
    let payload = if call.payload.is_empty() { Bytes::from_static(b"{}") } else { call.payload.clone() };
    let copied = payload.len() <= COPIED_BODY_BYTES_MAX;
    let mut head = String::with_capacity(640 + if copied { payload.len() } else { 0 });
    head.push_str("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: ");
    push_value(&mut head, &call.request_id);
    // Writing to a string cannot fail.
    let _ = write!(head, "\r\nLambda-Runtime-Deadline-Ms: {deadline_ms}\r\nLambda-Runtime-Invoked-Function-Arn: ");
    push_value(&mut head, &call.invoked_arn);
    head.push_str("\r\nLambda-Runtime-Trace-Id: ");
    match call.trace_id.as_deref().filter(|id| !id.is_empty()) {
        Some(trace_id) => push_value(&mut head, trace_id),
        None => {
            let random = random::uuid().simple().to_string();
            let parent = &attempt_id.replace('-', "")[..16];
            let seconds = deadline_ms / 1000;
            let _ = write!(head, "Root=1-{seconds:08x}-{};Parent={parent};Sampled=0", &random[..24]);
        }
    }
    let _ = write!(head, "\r\nLambda-Runtime-Invocation-Id: {attempt_id}");
    if let Some(context) = call.client_context.as_deref().filter(|c| !c.is_empty()) {
        head.push_str("\r\nLambda-Runtime-Client-Context: ");
        push_value(&mut head, context);
    }
    let _ = write!(head, "\r\nContent-Length: {}\r\n\r\n", payload.len());
    let mut head = head.into_bytes();
    if copied {
        head.extend_from_slice(&payload);
        return Event { head: head.into(), body: Bytes::new() };
    }
    Event { head: head.into(), body: payload }
}

/// A header's value as one line, whatever the caller put into it.
fn push_value(head: &mut String, value: &str) {
    if value.bytes().any(|b| b.is_ascii_control()) {
        head.extend(value.chars().map(|c| if c.is_ascii_control() { ' ' } else { c }));
    } else {
        head.push_str(value);
    }
}

/// The category of an error as AWS keeps it: `Function.Xxx` or `Runtime.Xxx`, or unknown.
fn known_error_type(said: Option<&str>) -> &str {
    let said = said.unwrap_or_default();
    let known = said.split_once('.').is_some_and(|(category, reason)| {
        matches!(category, "Function" | "Runtime")
            && reason.len() > 1
            && reason.starts_with(|c: char| c.is_ascii_uppercase())
            && reason.bytes().all(|b| b.is_ascii_alphabetic())
    });
    match said {
        said if known => said,
        said if said.starts_with("Function.") => "Function.Unknown",
        _ => "Runtime.Unknown",
    }
}

/// Whether an error reads like one of a program without a network, in the words of the C library, of Python and of Node.
fn misses_network(error: &[u8]) -> bool {
    const WORDS: [&str; 6] = [
        "Network is unreachable",
        "ENETUNREACH",
        "Temporary failure in name resolution",
        "Name or service not known",
        "EAI_AGAIN",
        "Could not connect to the endpoint URL",
    ];
    // The message stands at the beginning; what follows is a stack trace.
    let beginning = String::from_utf8_lossy(&error[..error.len().min(4096)]);
    WORDS.iter().any(|words| beginning.contains(words))
}

/// The log of one environment: whole lines go to the function's log as they come.
struct EnvironmentLog {
    sink: Arc<Sink>,
    /// Which of the function's own lines are written; all of them, if there is none.
    threshold: Option<Threshold>,
    /// The beginning of a line whose end has not come. At most [`LINE_BYTES_MAX`].
    partial: Vec<u8>,
    /// What the start or the running invocation printed, if somebody may want it. Cut to twice [`LOG_TAIL_BYTES`] as it grows.
    tail: Option<Vec<u8>>,
    memory: Option<(Instant, u64)>,
}

enum Drained {
    Empty,
    More,
    Ended,
}

impl EnvironmentLog {
    /// Takes what `read` gives until there is nothing more, or it is somebody else's turn.
    fn drain(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Drained {
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        loop {
            match read(&mut buffer) {
                Ok(0) => return Drained::Ended,
                Ok(n) => {
                    self.output(&buffer[..n]);
                    taken += n;
                    if taken >= OUTPUT_TURN_BYTES {
                        return Drained::More;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Empty,
                Err(_) => return Drained::Ended,
            }
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            let (first, others) = rest.split_at(end);
            self.continue_line(first);
            rest = others;
        }
        // The whole lines of one read are short enough: a read is shorter than the longest line.
        let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (lines, begun) = rest.split_at(whole);
        self.function_lines(lines);
        self.continue_line(begun);
    }

    /// Takes more of one line, up to its end at most. What is longer than [`LINE_BYTES_MAX`] becomes lines of that
    /// length.
    fn continue_line(&mut self, bytes: &[u8]) {
        let (mut rest, ends) = match bytes.strip_suffix(b"\n") {
            Some(rest) => (rest, true),
            None => (bytes, false),
        };
        while self.partial.len() + rest.len() > LINE_BYTES_MAX {
            let (now, later) = rest.split_at(LINE_BYTES_MAX - self.partial.len());
            self.partial.extend_from_slice(now);
            self.end_line();
            rest = later;
        }
        self.partial.extend_from_slice(rest);
        if ends {
            self.partial.push(b'\n');
            let line = std::mem::take(&mut self.partial);
            self.function_lines(&line);
        }
    }

    /// Ends a line that was begun.
    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            let mut line = std::mem::take(&mut self.partial);
            line.push(b'\n');
            self.function_lines(&line);
        }
    }

    /// Whole lines that the function printed.
    fn function_lines(&mut self, lines: &[u8]) {
        match self.threshold {
            None => self.append(lines),
            Some(threshold) => {
                for line in lines.split_inclusive(|b| *b == b'\n').filter(|line| threshold.passes(line)) {
                    self.append(line);
                }
            }
        }
    }

    /// A line of the host's own; empty if the function does not want it.
    fn line(&mut self, line: &str) {
        self.append(line.as_bytes());
    }

    fn append(&mut self, lines: &[u8]) {
        self.sink.append(lines);
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(&lines[lines.len().saturating_sub(LOG_TAIL_BYTES)..]);
            if tail.len() > 2 * LOG_TAIL_BYTES {
                tail.drain(..tail.len() - LOG_TAIL_BYTES);
            }
        }
    }

    fn memory_used_mib(&mut self, process: Option<&process::Process>) -> u64 {
        if let Some((asked, mib)) = self.memory
            && asked.elapsed() < MEMORY_FIGURE_AGE
        {
            return mib;
        }
        let before = self.memory.map_or(0, |(_, mib)| mib);
        let peak =
            process.and_then(|process| process.memory().ok()).map_or(0, |memory| memory.used().div_ceil(1 << 20));
        let peak = peak.max(before);
        self.memory = Some((Instant::now(), peak));
        peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_types_are_kept_as_aws_keeps_them() {
        for (said, kept) in [
            (Some("Runtime.ImportModuleError"), "Runtime.ImportModuleError"),
            (Some("Function.SomeThing"), "Function.SomeThing"),
            (Some("Function.some thing"), "Function.Unknown"),
            (Some("unhandled"), "Runtime.Unknown"),
            (None, "Runtime.Unknown"),
        ] {
            assert_eq!(known_error_type(said), kept);
        }
    }

    /// A log with a file of its own, and a reader of what is in it.
    fn log(temp: &std::path::Path, threshold: Option<Threshold>) -> (EnvironmentLog, impl Fn() -> String) {
        let logs = super::super::logs::Logs::new(temp).unwrap();
        let log = EnvironmentLog { sink: logs.sink("f"), threshold, partial: Vec::new(), tail: None, memory: None };
        let dir = temp.to_owned();
        let read = move || {
            logs.flush();
            String::from_utf8(super::super::logs::read_tail(&dir, "f", 1 << 30).unwrap()).unwrap()
        };
        (log, read)
    }

    #[test]
    fn a_provisioned_start_may_take_longer_than_one_on_demand() {
        let limit =
            |kind, timeout_s| init_limit(kind, Duration::from_secs(timeout_s), Duration::from_secs(10)).as_secs();
        assert_eq!([3, 130, 131, 900].map(|timeout| limit(Kind::Provisioned, timeout)), [130, 130, 131, 900]);
        assert_eq!([3, 900].map(|timeout| limit(Kind::OnDemand, timeout)), [10, 10]);
    }

    #[test]
    fn a_line_is_cut_at_its_limit_and_not_a_byte_before_however_it_arrives() {
        for step in [1_000, 16 * 1024] {
            let temp = tempfile::tempdir().unwrap();
            let (mut log, read) = log(temp.path(), None);
            let exact = "a".repeat(LINE_BYTES_MAX);
            let text = format!("{exact}\n{exact}b\n\nshort\n{exact}{exact}c");
            for (n, piece) in text.as_bytes().chunks(step).enumerate() {
                log.output(piece);
                // What waits for the file is bounded, and what is more is dropped.
                if n % 16 == 0 {
                    read();
                }
            }
            log.end_line();
            let lengths: Vec<usize> = read().lines().map(str::len).collect();
            let max = LINE_BYTES_MAX;
            assert_eq!(lengths, [max, max, 1, 0, 5, max, max, 1], "{step}");
        }
    }

    #[test]
    fn an_error_of_a_missing_network_is_known_by_its_words() {
        for (error, misses) in [
            (r#"{"errorMessage":"<urlopen error [Errno -3] Temporary failure in name resolution>"}"#, true),
            (r#"{"errorMessage":"getaddrinfo EAI_AGAIN example.org"}"#, true),
            (r#"{"errorMessage":"[Errno 101] Network is unreachable"}"#, true),
            (r#"{"errorMessage":"'size'","errorType":"KeyError"}"#, false),
        ] {
            assert_eq!(misses_network(error.as_bytes()), misses, "{error}");
        }
    }

    #[test]
    fn lines_below_the_chosen_level_are_left_out_also_where_they_arrive_in_pieces() {
        let temp = tempfile::tempdir().unwrap();
        let (mut log, read) = log(temp.path(), Threshold::new(super::super::LogFormat::Json, Some("WARN")));
        log.output(b"{\"level\":\"INFO\"}\n{\"level\":\"ER");
        log.output(b"ROR\"}\nprinted\n{\"level\":\"WARN\"}\n{\"lev");
        log.output(b"el\":\"DEBUG\"}\n");
        log.line("ours\n");
        assert_eq!(read(), "{\"level\":\"ERROR\"}\n{\"level\":\"WARN\"}\nours\n");
    }
}
