//! The function host: processes that speak the Lambda Runtime API, kept warm and bounded.
//!
//! [`Host::invoke`] is the whole interface for a call. Which environment serves it is decided by
//! [`longshore_core::pool`]; this module does what the pool says. Environments are served on [`Threads`] of the server's
//! choice; all else of the host runs on the tokio runtime on which [`Host::new`] is called.
//!
//! Source: Lambda specification 1, 5.2 to 5.4, 8.4.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use longshore_core::pattern;
use longshore_core::pool::{self, Ask, CallId, Effect, EnvironmentId, Limits, Millis, Pool, StopReason, Target};
use longshore_core::start::Start;
use longshore_store::Budget;
use tokio::sync::{Notify, oneshot};
use zeroize::{Zeroize, Zeroizing};

mod ahead;
mod crowds;
mod environment;
pub mod figures;
mod forwarder;
mod http;
mod lines;
pub mod log_pages;
pub mod logs;
mod machine;
mod outcome;
mod process;
mod runtime_api;
mod runtimes;
pub mod sandbox;
mod session;
mod threads;
mod variables;

pub use longshore_core::pool::Provisioning;
pub use longshore_sandbox as layers;
pub use longshore_sandbox::Command as Launcher;
pub use outcome::RESPONSE_BYTES_MAX;
pub use process::Bounds;
pub use runtimes::{Found, check_interpreter, check_runtime, is_supported, newest_installed};
pub use sandbox::{Network, SandboxRefusal, SandboxSettings};
pub use threads::Threads;

use environment::Environment;

/// Any error of a response body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves one HTTP request of a function's S3 client. Given by the server, which verifies it against the credentials
/// and hands it to S3; nothing else of the server is reachable by it.
pub type S3Door = Arc<
    dyn Fn(
            Arc<FunctionCredentials>,
            ::http::Request<hyper::body::Incoming>,
        ) -> BoxFuture<'static, ::http::Response<BoxBody<Bytes, BoxError>>>
        + Send
        + Sync,
>;

/// The credentials of one environment: random, known to it alone, and gone with it, from memory too. Without `Debug`, so that no log
/// can hold them.
pub struct FunctionCredentials {
    /// `ASIA` and 16 characters.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: String,
    pub session_token: String,
    pub function_name: String,
    /// The ARN of the function's execution role, with whose rights it acts.
    pub role: String,
    /// What the server holds in memory of this environment's requests.
    pub documents: Budget,
}

/// Bytes of documents that one environment may have the server hold: two of the largest, or a hundred of a thousand keys each.
const DOCUMENTS_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Drop for FunctionCredentials {
    fn drop(&mut self) {
        self.secret_access_key.zeroize();
        self.session_token.zeroize();
    }
}

impl FunctionCredentials {
    fn random(function_name: &str, role: &str) -> Result<Self, String> {
        use base64::Engine;
        let mut bytes = Zeroizing::new([0u8; 16 + 30 + 48]);
        getrandom::fill(&mut *bytes).map_err(|e| format!("no random bytes for credentials: {e}"))?;
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let id: String = bytes[..16].iter().map(|b| char::from(letters[usize::from(*b) % 32])).collect();
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        Ok(Self {
            access_key_id: format!("ASIA{id}"),
            secret_access_key: encode(&bytes[16..46]),
            session_token: encode(&bytes[46..]),
            function_name: function_name.to_owned(),
            role: role.to_owned(),
            documents: Budget::new(DOCUMENTS_BYTES_MAX),
        })
    }
}

/// How the host is set up.
#[derive(Debug, Clone)]
pub struct HostSettings {
    pub region: String,
    pub account: String,
    /// Holds `environments/`, `logs/` and `runtime/`.
    pub data_dir: PathBuf,
    /// Where interpreters are installed for functions, as `<runtime>/bin/python3`; the first that has one is used.
    /// First value: `runtimes/` in the data directory.
    pub runtimes_dirs: Vec<PathBuf>,
    /// Environments on this machine, all functions together. First value: 4 a core, at least 4. See
    /// [`HostSettings::fit_to_machine`].
    pub environments_max: u32,
    /// MiB for all environments together; what one counts for is said at [`longshore_core::pool::Pool::measured`]. First
    /// value: three quarters of the machine's memory, or of the container's limit.
    pub memory_mib_max: u64,
    /// Calls in flight, all functions together. AWS's default: 1,000.
    pub account_concurrency: u32,
    /// New environments that one function may get in ten seconds: 1,000 on AWS. First value: any number.
    pub scale_up: Option<u32>,
    /// Environments that may be starting at once. First value: the number of cores.
    pub starts_at_once: u32,
    /// How long an environment stays without work. First value: 300 s; 60 s at most while memory is short.
    pub idle_timeout: Duration,
    /// As `idle_timeout`, for the functions whose names fit the pattern; the first that fits counts. First value: none.
    pub idle_timeouts: Vec<(String, Duration)>,
    /// How old an environment gets: as long as the credentials in it may be used. First value: 12 h.
    pub age_max: Duration,
    /// How long an environment is idle before its processes are stopped until the next call; zero for at once, `None` for
    /// never. First value: 50 ms.
    pub freeze_after: Option<Duration>,
    /// Whether another version of an interpreter than the one asked for is an error and not a notice.
    pub strict_runtimes: bool,
    /// How long a start may take before it goes on on the clock of the first invocation. Lambda's: 10 s.
    pub init_limit: Duration,
    /// Whether it then begins anew, as on AWS, instead of going on.
    pub init_restarts: bool,
    /// Calls that may wait for an environment, all functions together. One more is throttled. A call that waits is
    /// some hundred bytes and its payload.
    pub calls_waiting_max: usize,
    /// How the helper is started that starts environments.
    pub launcher: Launcher,
    /// Where environments are served. First value: on the runtime on which the host is made.
    pub threads: Option<Threads>,
    pub bounds: Bounds,
    pub sandbox: SandboxSettings,
}

impl HostSettings {
    pub fn new(region: impl Into<String>, account: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let data_dir: PathBuf = data_dir.into();
        Self {
            region: region.into(),
            account: account.into(),
            runtimes_dirs: vec![data_dir.join("runtimes")],
            data_dir,
            environments_max: cores.saturating_mul(4).max(4),
            memory_mib_max: machine::memory_mib_default(),
            account_concurrency: 1_000,
            scale_up: None,
            starts_at_once: cores,
            idle_timeout: Duration::from_secs(300),
            idle_timeouts: Vec::new(),
            age_max: Duration::from_secs(12 * 60 * 60),
            freeze_after: Some(Duration::from_millis(50)),
            strict_runtimes: false,
            init_limit: Duration::from_secs(10),
            init_restarts: false,
            calls_waiting_max: 10_000,
            launcher: Launcher::default(),
            threads: None,
            bounds: Bounds::default(),
            sandbox: SandboxSettings::default(),
        }
    }

    /// Lowers `environments_max` to what there are descriptors and processes for: a start that fails for want of them
    /// would take others along.
    pub fn fit_to_machine(&mut self) {
        self.lower_environments_max(machine::environments_max(), "too few descriptors or processes are allowed");
    }

    fn lower_environments_max(&mut self, max: u32, why: &'static str) {
        if self.environments_max > max {
            let asked = self.environments_max;
            tracing::warn!(asked, max, why, "fewer environments than asked for");
            self.environments_max = max;
        }
    }
}

/// What environments are started from. Two deployments with equal `id` are interchangeable; an environment never serves
/// a call of another `id`.
#[derive(Clone)]
pub struct Deployment {
    pub id: String,
    /// The function's name; its versions share `concurrency`.
    pub name: String,
    /// `$LATEST` or a number.
    pub version: String,
    /// The ARN of the execution role.
    pub role: String,
    pub runtime: String,
    pub handler: String,
    /// The code, unpacked. Never written to.
    pub code_dir: PathBuf,
    /// The layers, merged into one folder: what is `/opt` on AWS.
    pub layers_dir: Option<PathBuf>,
    pub variables: BTreeMap<String, String>,
    pub timeout_s: u32,
    pub memory_mib: u32,
    /// The size of `/tmp`, `EphemeralStorage.Size`.
    pub ephemeral_storage_mib: u32,
    /// Reserved concurrency when this was made; 0 refuses every call. Where the host was told [`Terms`], it goes by those.
    pub concurrency: Option<u32>,
    /// How the system's own log lines look, and what the function is told to write in.
    pub log_format: LogFormat,
    /// `TRACE` to `FATAL`: for the function, which is told it. `None` unless the format is JSON.
    pub application_log_level: Option<String>,
    /// `DEBUG`, `INFO` or `WARN`: which of the system's lines are written. `None` unless the format is JSON.
    pub system_log_level: Option<String>,
    /// `/aws/lambda/<name>` or what was set: the function is told it. Source: Lambda spec 1.11.
    pub log_group: String,
}

/// Without the values of variables, which may be secrets.
impl std::fmt::Debug for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, name, version, runtime, handler, variables, .. } = self;
        let mut shown = f.debug_struct("Deployment");
        shown.field("id", id).field("name", name).field("version", version).field("runtime", runtime);
        shown.field("handler", handler).field("variables", &variables.keys()).finish_non_exhaustive()
    }
}

/// `LoggingConfig.LogFormat`. Source: Lambda spec 1.11, 1.14.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LogFormat {
    #[default]
    Text,
    #[serde(rename = "JSON")]
    Json,
}

/// What of the concurrency is a function's own.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// At least and at most so many calls at once; 0 refuses every call.
    pub reserved: Option<u32>,
    /// Environments that are to be kept ready, of which deployments.
    pub provisioned: Vec<(Arc<Deployment>, u32)>,
}

/// One call of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub request_id: String,
    /// The ARN as the caller addressed it, qualifier included if there was one.
    pub invoked_arn: String,
    pub payload: Bytes,
    /// Decoded JSON.
    pub client_context: Option<String>,
    /// `X-Amzn-Trace-Id`; one is made up if there is none.
    pub trace_id: Option<String>,
    /// Whether the end of the invocation's log is wanted. It costs up to 10 ms.
    pub want_log_tail: bool,
    pub patience: Patience,
    /// Asked when a runtime is handed the call: one that was called off by then is not. Nobody waits for its outcome.
    pub start: Option<Start>,
}

impl Call {
    /// Whether it may begin, which it does then.
    fn begins(&self) -> bool {
        self.start.as_ref().is_none_or(Start::begin)
    }
}

/// How long a call waits where nothing is free and nothing can be started for it. A start that is under way for it is
/// always waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Also for concurrency that others have; it is never throttled but by a function that is switched off.
    Forever,
    /// For a place on the machine. For concurrency it does not wait.
    For(Duration),
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        payload: Bytes,
        /// The function failed; the payload says how (`X-Amz-Function-Error: Unhandled`).
        function_error: bool,
        /// At most 4 KiB, if it was asked for.
        log_tail: Option<Vec<u8>>,
    },
    /// Not run. The reason is AWS's word for it.
    Throttled { reason: &'static str },
    /// Not run: the deployment was retired while the call waited. The call, for what may have taken its place.
    Gone { call: Box<Call> },
    /// Not the function's fault; the text is for the log and, in short, for the caller.
    Fault(String),
}

/// The function host. Cheap to clone; when the last clone is dropped, every function's process is killed.
#[derive(Clone)]
pub struct Host {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(false);
    }
}

/// A call with the way back to its caller. Boxed where it is passed on: it changes hands several times.
struct Pending {
    call: Call,
    reply: oneshot::Sender<Outcome>,
    deployment: Arc<Deployment>,
    /// How often its environment died before it saw the call.
    losses: u8,
}

struct Shared {
    settings: HostSettings,
    s3: S3Door,
    sandbox: Arc<sandbox::Sandbox>,
    ahead: Arc<ahead::Ahead>,
    logs: logs::Logs,
    figures: figures::Figures,
    crowds: crowds::Crowds,
    clients_dir: PathBuf,
    environments_dir: PathBuf,
    /// Zero of the pool's clock.
    started: Instant,
    runtime: tokio::runtime::Handle,
    threads: Threads,
    state: Mutex<State>,
    /// The pool wants a tick earlier than before, or the host closes.
    alarm: Notify,
    /// An environment is gone.
    fewer: Notify,
    found: Mutex<HashMap<String, Found>>,
    /// By runtime, what was last told of the interpreter that stands in for it.
    noticed: Mutex<HashMap<String, String>>,
}

struct State {
    pool: Pool<Arc<Deployment>>,
    /// Calls that the pool has not given to anything yet.
    calls: HashMap<CallId, Box<Pending>>,
    environments: HashMap<EnvironmentId, Arc<Environment>>,
    next_call: u64,
    alarm: Option<Millis>,
    /// Nothing was there to be frozen when the pool was last told the time: with the next call there will be.
    calm: bool,
    closed: bool,
}

/// What an event leads to, done after the lock is released.
enum Action {
    Start(Arc<Environment>),
    Run { environment: Arc<Environment>, call: CallId, pending: Box<Pending>, was_idle: bool },
    Fail(Arc<Environment>, Box<Pending>),
    Gone(Box<Pending>),
    Throttle(Box<Pending>, &'static str),
    Stop { environment: Arc<Environment>, politely: bool },
    Freeze(Arc<Environment>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Sets the host up: ends what an earlier server left behind, writes the runtime clients, starts its threads. Call
    /// it on the tokio runtime that shall run the host. Blocks for as long as the clearing takes.
    pub fn new(mut settings: HostSettings, s3: S3Door) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let environments_dir = settings.data_dir.join("environments");
        let left = process::clear_leftovers(&environments_dir)?;
        if left > 0 {
            tracing::warn!(processes = left, "function processes of an earlier server were ended");
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&environments_dir)?;
        let runtime = tokio::runtime::Handle::current();
        settings.fit_to_machine();
        let sandbox =
            sandbox::Sandbox::new(&settings.sandbox, &settings.launcher, &settings.data_dir, &environments_dir)?;
        if let Some(max) = sandbox.environments_max() {
            settings.lower_environments_max(max, "too few user IDs in functions.sandbox_uids");
        }
        let limits = Limits {
            environments_max: settings.environments_max.max(1),
            starts_at_once: settings.starts_at_once.max(1),
            calls_waiting_max: settings.calls_waiting_max,
            idle_timeout_ms: millis(settings.idle_timeout),
            // An import of a large package is 2 s of work; what takes longer mostly waits.
            start_gate_ms: 2_000,
            crashes_free: crashes_free(settings.starts_at_once),
            crash_delay_ms_max: crash_delay_ms_max(),
            idle_timeout_short_ms: millis(IDLE_TIMEOUT_SHORT),
            account_concurrency: settings.account_concurrency,
            scale_up: settings.scale_up,
            age_ms_max: millis(settings.age_max),
            memory_mib_max: settings.memory_mib_max,
            freeze_after_ms: settings.freeze_after.map(millis),
        };
        if let Some(folder) = sandbox.stage_dir() {
            process::record_folder(&environments_dir, folder)?;
        }
        let sandbox = Arc::new(sandbox);
        let ahead = ahead::Ahead::new(
            sandbox.clone(),
            environments_dir.clone(),
            runtime.clone(),
            settings.starts_at_once.min(settings.environments_max),
        );
        let shared = Arc::new(Shared {
            s3,
            sandbox,
            ahead: Arc::new(ahead),
            logs: logs::Logs::new(&settings.data_dir)?,
            figures: figures::Figures::default(),
            crowds: crowds::Crowds::default(),
            clients_dir: runtimes::write_clients(&settings.data_dir)?,
            environments_dir,
            started: Instant::now(),
            threads: settings.threads.clone().unwrap_or_else(|| Threads::new(runtime.clone(), [])),
            runtime,
            state: Mutex::new(State {
                pool: Pool::new(limits),
                calls: HashMap::new(),
                environments: HashMap::new(),
                next_call: 0,
                alarm: None,
                calm: false,
                closed: false,
            }),
            alarm: Notify::new(),
            fewer: Notify::new(),
            found: Mutex::default(),
            noticed: Mutex::default(),
            settings,
        });
        shared.runtime.spawn(tick(Arc::downgrade(&shared)));
        shared.runtime.spawn(crowds::watch(Arc::downgrade(&shared)));
        if is_memory_watched(&shared) {
            shared.runtime.spawn(watch_memory(Arc::downgrade(&shared)));
        }
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Calls the function. Dropping the future while the call waits takes it back; once it runs, it runs to its end.
    pub async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome {
        let shared = &self.handle.shared;
        let patience = call.patience;
        let (reply, mut answer) = oneshot::channel();
        let pending = Box::new(Pending { call, reply, deployment, losses: 0 });
        let waits = match patience {
            Patience::Forever => pool::Patience::All,
            Patience::For(time) if time.is_zero() => pool::Patience::UnderWay,
            Patience::For(_) => pool::Patience::Place,
        };
        let Some(id) = shared.ask(None, pending, waits) else {
            return Outcome::Fault(SHUTTING_DOWN.to_owned());
        };
        let mut waiting = WaitingCall { shared, id, done: false };
        if let Patience::For(time) = patience
            && waits == pool::Patience::Place
        {
            tokio::select! {
                biased;
                outcome = &mut answer => {
                    waiting.done = true;
                    return outcome.unwrap_or_else(|_| Outcome::Fault(NO_ANSWER.to_owned()));
                }
                () = tokio::time::sleep(time) => shared.event(|pool, now| {
                    pool.patience_ended(id, now);
                }),
            }
        }
        let outcome = answer.await;
        waiting.done = true;
        outcome.unwrap_or_else(|_| Outcome::Fault(NO_ANSWER.to_owned()))
    }

    /// How many calls of this deployment can run at once. A caller that keeps a few more waiting loses no time between
    /// two of them: a waiting call is handed out in the same wake-up in which an environment comes free.
    pub fn slots(&self, deployment: &Deployment) -> u32 {
        lock(&self.handle.shared.state).pool.slots(&deployment.name, &deployment.id, deployment.concurrency)
    }

    /// How many calls of a function at once are of use now: where they are short and the processors are what they wait for,
    /// more of them make each other slower. A caller that has many waiting keeps to it; whoever asks for more is served.
    pub fn of_use(&self, name: &str) -> u32 {
        self.handle.shared.crowds.of_use(name)
    }

    /// Environments that may be provisioned at all, of all functions together: one place stays for everything else.
    pub fn provisioned_max(&self) -> u32 {
        self.handle.shared.settings.environments_max.saturating_sub(1)
    }

    /// Says what of the concurrency is the function's own: from now on, and until it is said anew.
    pub fn set_terms(&self, name: &str, terms: &Terms) {
        let settings = &self.handle.shared.settings;
        let provisioned: Vec<_> =
            terms.provisioned.iter().map(|(deployment, wanted)| (settings.target(deployment), *wanted)).collect();
        self.handle.shared.event_while_open(|pool, now| pool.set_terms(name, terms.reserved, &provisioned, now));
    }

    /// How far the provisioned concurrency of a deployment is.
    pub fn provisioning(&self, deployment_id: &str) -> Provisioning {
        lock(&self.handle.shared.state).pool.provisioning(deployment_id)
    }

    /// Says that calls of this deployment are about to come, so many at once.
    pub fn prepare(&self, deployment: &Arc<Deployment>, wanted: u32) {
        let shared = &self.handle.shared;
        shared.event_while_open(|pool, now| pool.prepare(&shared.settings.target(deployment), wanted, now));
    }

    /// The deployment is no more: its version was changed or deleted. No environment of it that exists now gets another
    /// call, and its calls that wait are answered with [`Outcome::Gone`]. What runs is finished.
    pub fn retire(&self, deployment_id: &str) {
        self.handle.shared.event(|pool, now| pool.retire(deployment_id, now));
    }

    /// As [`check_runtime`], with this host's settings: an interpreter that was installed for it goes first, and a
    /// version other than the one asked for may be an error. Blocking.
    pub fn check_runtime(&self, runtime: &str) -> Result<Found, String> {
        self.handle.shared.check_runtime(runtime)
    }

    /// Which layers of the sandbox this host puts functions into.
    pub fn sandbox(&self) -> &layers::Report {
        self.handle.shared.sandbox.report()
    }

    /// The process that starts environments, if it runs.
    pub fn helper_pid(&self) -> Option<u32> {
        self.handle.shared.sandbox.helper().pid()
    }

    /// Environments that were made ahead and wait for a function, and how many of them there are to be.
    pub fn environments_ahead(&self) -> (usize, usize) {
        self.handle.shared.ahead.count()
    }

    /// Processes of functions that there are, in whatever state.
    pub fn environments(&self) -> usize {
        lock(&self.handle.shared.state).environments.len()
    }

    /// Waits until everything printed so far is in the log files. Blocking, for a moment.
    pub fn flush_logs(&self) {
        self.handle.shared.logs.flush();
    }

    /// Takes no more calls, lets those that run finish for up to `grace`, then kills; returns when no process of a
    /// function is left (or after five more seconds, if one cannot be killed).
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.handle.shared;
        shared.close(true);
        let empty = async {
            loop {
                let fewer = shared.fewer.notified();
                tokio::pin!(fewer);
                fewer.as_mut().enable();
                if lock(&shared.state).environments.is_empty() {
                    return;
                }
                fewer.await;
            }
        };
        tokio::pin!(empty);
        if tokio::time::timeout(grace, &mut empty).await.is_err() {
            shared.close(false);
            let _ = tokio::time::timeout(Duration::from_secs(5), &mut empty).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), shared.ahead.gone()).await;
        let shared = shared.clone();
        let _ = tokio::task::spawn_blocking(move || shared.logs.flush()).await;
    }
}

/// Crashes in a row that no start waits for: twice as many as environments start at once, so that a mishap of the first ones
/// costs nothing, and eight at most. Where cores are few these are most of what a short crash loop takes from others (goal P36).
const fn crashes_free(starts_at_once: u32) -> u32 {
    match starts_at_once {
        0 => 2,
        1..=4 => 2 * starts_at_once,
        _ => 8,
    }
}

/// The longest space between two starts of a function whose environments crash one after the other. A start is some 50 ms of
/// processor time with an interpreter: so a crash loop has a sixteenth of the machine, and the others what is left (goal P36).
fn crash_delay_ms_max() -> Millis {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    800 / Millis::try_from(cores.clamp(2, 16)).unwrap_or(2)
}

/// How long an environment stays without work at most while memory is short.
const IDLE_TIMEOUT_SHORT: Duration = Duration::from_secs(60);
const SHUTTING_DOWN: &str = "The server is shutting down.";
/// However soon environments are to be frozen, the pool is not told the time more often for it.
const FREEZE_TICK_MS_MIN: Millis = 20;
/// A reply channel that was dropped: a bug of ours, or the runtime that ran the host is gone.
const NO_ANSWER: &str = "The function host gave no answer.";

/// A call that is given up if its caller is dropped.
struct WaitingCall<'a> {
    shared: &'a Arc<Shared>,
    id: CallId,
    done: bool,
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.shared.state).calls.remove(&self.id);
            self.shared.event(|pool, now| pool.gave_up(self.id, now));
        }
    }
}

impl HostSettings {
    fn target<'a>(&self, deployment: &'a Arc<Deployment>) -> Target<'a, Arc<Deployment>> {
        let own = self.idle_timeouts.iter().find(|(pattern, _)| pattern::fits(pattern, &deployment.name));
        Target {
            deployment_id: &deployment.id,
            function: &deployment.name,
            memory_mib: deployment.memory_mib,
            idle_timeout_ms: own.map(|(_, time)| millis(*time)),
            deployment,
        }
    }
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// How often the memory of environments is looked at while one works, and while none does.
const MEMORY_WATCH: Duration = Duration::from_millis(50);
const MEMORY_WATCH_IDLE: Duration = Duration::from_millis(250);

fn is_memory_watched(shared: &Shared) -> bool {
    shared.settings.sandbox.mode != layers::Mode::Off
}

/// Ends environments that use more memory than their function has. Control groups, where there are any, bound memory and
/// `/tmp` together: what the kernel keeps for files is charged there, too, and a full `/tmp` must not kill a function.
async fn watch_memory(shared: std::sync::Weak<Shared>) {
    let mut wait = MEMORY_WATCH_IDLE;
    loop {
        tokio::time::sleep(wait).await;
        let Some(this) = shared.upgrade() else { return };
        let all: Vec<Arc<Environment>> = {
            let state = lock(&this.state);
            if state.closed && state.environments.is_empty() {
                return;
            }
            state.environments.values().cloned().collect()
        };
        let working: Vec<_> = all.into_iter().filter(|environment| environment.is_working()).collect();
        wait = if working.is_empty() { MEMORY_WATCH_IDLE } else { MEMORY_WATCH };
        if !working.is_empty() {
            // A function may have a thousand processes, each a file to read, and much memory to walk over: calls of others must
            // not wait for that.
            let look = move || working.iter().for_each(|environment| environment.check_memory());
            let _ = tokio::task::spawn_blocking(look).await;
        }
    }
}

/// Tells the pool the time: when it asks for it, and once a second; more often while an environment may become due for
/// freezing, since the pool's next time is not asked for at each call.
async fn tick(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(this) = shared.upgrade() else { return };
        let (wake_at, longest, closed) = {
            let mut state = lock(&this.state);
            let freeze_after = this.settings.freeze_after.filter(|_| state.pool.may_freeze());
            state.calm = freeze_after.is_none();
            let longest = freeze_after.map_or(1_000, millis).clamp(FREEZE_TICK_MS_MIN, 1_000);
            (state.pool.wake_at(), longest, state.closed && state.environments.is_empty())
        };
        if closed {
            return;
        }
        let now = millis(this.started.elapsed());
        let wait = wake_at.map_or(longest, |at| at.saturating_sub(now)).clamp(1, longest);
        // Not held while it sleeps: a host that nobody needs any more must go.
        tokio::select! {
            () = this.alarm.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        }
        this.event(|pool, now| pool.tick(now));
    }
}

impl Shared {
    /// Tells the pool something and does what it says.
    fn event(self: &Arc<Self>, tell: impl FnOnce(&mut Pool<Arc<Deployment>>, Millis)) {
        let mut state = lock(&self.state);
        let now = millis(self.started.elapsed());
        tell(&mut state.pool, now);
        self.act(state);
    }

    /// As [`Shared::event`], for what may start an environment without a call: a host that closes waits for those that there are
    /// and tells no further one to end.
    fn event_while_open(self: &Arc<Self>, tell: impl FnOnce(&mut Pool<Arc<Deployment>>, Millis)) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        let now = millis(self.started.elapsed());
        tell(&mut state.pool, now);
        self.act(state);
    }

    /// Gives the pool a call. `None` if the host is closed.
    fn ask(self: &Arc<Self>, id: Option<CallId>, pending: Box<Pending>, patience: pool::Patience) -> Option<CallId> {
        let mut state = lock(&self.state);
        if state.closed {
            // A call that asks again has a caller who waits for a word.
            let _ = pending.reply.send(Outcome::Fault(SHUTTING_DOWN.to_owned()));
            return None;
        }
        let now = millis(self.started.elapsed());
        let id = id.unwrap_or_else(|| {
            state.next_call += 1;
            CallId(state.next_call)
        });
        let deployment = pending.deployment.clone();
        state.calls.insert(id, pending);
        state.pool.ask(
            Ask { call: id, target: self.settings.target(&deployment), reserved: deployment.concurrency, patience },
            now,
        );
        self.act(state);
        Some(id)
    }

    /// The environment died before it saw the call.
    fn lost(self: &Arc<Self>, environment: EnvironmentId, call: CallId, mut pending: Box<Pending>) {
        pending.losses += 1;
        let mut state = lock(&self.state);
        if state.closed {
            let _ = pending.reply.send(Outcome::Fault(SHUTTING_DOWN.to_owned()));
            let now = millis(self.started.elapsed());
            state.pool.died(environment, true, now);
            return self.act(state);
        }
        state.calls.insert(call, pending);
        let now = millis(self.started.elapsed());
        if state.pool.lost(environment, now) {
            return self.act(state);
        }
        let pending = state.calls.remove(&call).expect("just inserted, under the same lock");
        drop(state);
        // It was taken on once: it is not refused for what others have taken since.
        self.ask(Some(call), pending, pool::Patience::All);
    }

    fn gone(self: &Arc<Self>, environment: EnvironmentId) {
        let mut state = lock(&self.state);
        state.environments.remove(&environment);
        let now = millis(self.started.elapsed());
        state.pool.gone(environment, now);
        self.act(state);
        self.fewer.notify_waiters();
    }

    /// Takes the pool's effects and, with the lock released, does them.
    fn act(self: &Arc<Self>, mut guard: MutexGuard<'_, State>) {
        let state = &mut *guard;
        let mut first = None;
        let mut others = Vec::new();
        let mut stirred = false;
        while let Some(effect) = state.pool.next_effect() {
            let action = match effect {
                Effect::Start { environment: id, deployment, kind } => {
                    let others = state.environments.values().filter(|e| e.deployment.name == deployment.name).count();
                    let thread = self.threads.of(&deployment.name, others).clone();
                    let environment = Arc::new(Environment::new(id, deployment, kind, thread, self));
                    state.environments.insert(id, environment.clone());
                    stirred = true;
                    Action::Start(environment)
                }
                Effect::Run { environment: id, call, was_idle } => {
                    let environment = state.environments.get(&id).expect("the pool names environments that exist");
                    let environment = environment.clone();
                    stirred = true;
                    match state.calls.remove(&call) {
                        Some(pending) => Action::Run { environment, call, pending, was_idle },
                        // Its caller left between the decision and now; nobody has it, so the environment is free.
                        None => {
                            let now = millis(self.started.elapsed());
                            state.pool.released(id, now);
                            continue;
                        }
                    }
                }
                Effect::Fail { environment: id, call } => {
                    let environment = state.environments.get(&id).expect("the pool names environments that exist");
                    let Some(pending) = state.calls.remove(&call) else { continue };
                    Action::Fail(environment.clone(), pending)
                }
                Effect::Gone { call } => {
                    let Some(pending) = state.calls.remove(&call) else { continue };
                    Action::Gone(pending)
                }
                Effect::Throttle { call, reason } => {
                    let Some(pending) = state.calls.remove(&call) else { continue };
                    Action::Throttle(pending, reason.reason())
                }
                Effect::Stop { environment: id, why } => {
                    let environment = state.environments.get(&id).expect("the pool names environments that exist");
                    Action::Stop { environment: environment.clone(), politely: why != StopReason::RoomNeeded }
                }
                Effect::Freeze { environment: id } => {
                    let environment = state.environments.get(&id).expect("the pool names environments that exist");
                    Action::Freeze(environment.clone())
                }
            };
            // One effect is the rule; a vector is for the rest.
            if first.is_none() {
                first = Some(action);
            } else {
                others.push(action);
            }
        }
        let alarm = state.pool.alarm();
        let earlier = alarm.is_some_and(|at| state.alarm.is_none_or(|before| at < before));
        state.alarm = alarm;
        let stirred = stirred && self.settings.freeze_after.is_some() && std::mem::take(&mut state.calm);
        drop(guard);
        if earlier || stirred {
            self.alarm.notify_one();
        }
        for action in first.into_iter().chain(others) {
            self.act_on(action);
        }
    }

    fn act_on(self: &Arc<Self>, action: Action) {
        match action {
            Action::Start(environment) => {
                let thread = environment.thread.clone();
                thread.spawn(environment::keep(environment, self.clone()));
            }
            Action::Run { environment, call, pending, was_idle } => {
                let assigned =
                    if was_idle && !environment.is_alive() { Err(pending) } else { environment.assign(call, pending) };
                if let Err(pending) = assigned {
                    self.lost(environment.id, call, pending);
                }
            }
            Action::Fail(environment, pending) => environment.fail(*pending),
            Action::Gone(pending) => {
                let Pending { call, reply, .. } = *pending;
                // A caller that left needs no answer.
                let _ = reply.send(Outcome::Gone { call: Box::new(call) });
            }
            Action::Throttle(pending, reason) => {
                // A caller that left needs no answer.
                let _ = pending.reply.send(Outcome::Throttled { reason });
            }
            Action::Stop { environment, politely } => environment.order_stop(politely),
            Action::Freeze(environment) => environment.freeze(),
        }
    }

    /// Takes no more calls. `gently`: what runs may finish; else everything is killed.
    fn close(self: &Arc<Self>, gently: bool) {
        let (waiting, environments) = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.pool.let_go();
            let waiting: Vec<(CallId, Box<Pending>)> = state.calls.drain().collect();
            (waiting, state.environments.values().cloned().collect::<Vec<_>>())
        };
        for (call, pending) in waiting {
            let _ = pending.reply.send(Outcome::Fault(SHUTTING_DOWN.to_owned()));
            self.event(|pool, now| pool.gave_up(call, now));
        }
        for environment in environments {
            if !gently || !environment.is_running() {
                environment.order_stop(gently);
            } else {
                environment.stop_when_free();
            }
        }
        self.ahead.close();
        self.alarm.notify_one();
    }

    fn check_runtime(&self, runtime: &str) -> Result<Found, String> {
        let reachable = |program: &std::path::Path| self.sandbox.is_reachable(program);
        let found = runtimes::check_usable_runtime(runtime, &self.settings.runtimes_dirs, &reachable)?;
        match &found.notice {
            Some(notice) if self.settings.strict_runtimes => {
                Err(format!("{notice} The setting strict_runtimes forbids that."))
            }
            _ => Ok(found),
        }
    }

    /// As [`Shared::check_runtime`], asked once a runtime and off the async threads.
    async fn find_runtime(self: &Arc<Self>, runtime: &str) -> Result<Found, String> {
        // One that was installed since is used from the next start of an environment on.
        let dirs = &self.settings.runtimes_dirs;
        let newer = |found: &Found| {
            !dirs.iter().any(|dir| found.program.starts_with(dir)) && runtimes::is_installed(runtime, dirs)
        };
        if let Some(found) = lock(&self.found).get(runtime)
            && (found.program.as_os_str().is_empty() || (found.program.exists() && !newer(found)))
        {
            return Ok(found.clone());
        }
        let (this, name) = (self.clone(), runtime.to_owned());
        let found = tokio::task::spawn_blocking(move || this.check_runtime(&name))
            .await
            .map_err(|_| "the search for the interpreter was broken off".to_owned())??;
        lock(&self.found).insert(runtime.to_owned(), found.clone());
        Ok(found)
    }

    fn notice_once(&self, runtime: &str, notice: &str) {
        let before = lock(&self.noticed).insert(runtime.to_owned(), notice.to_owned());
        // Another interpreter may have taken the place of the one that was told of.
        if before.is_none_or(|before| before != notice) {
            tracing::warn!(runtime, notice, "a runtime was found that is not quite as asked for");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn twice_as_many_crashes_as_starts_at_once_are_free_and_eight_at_most() {
        for (starts_at_once, free) in [(0, 2), (1, 2), (2, 4), (4, 8), (64, 8)] {
            assert_eq!(super::crashes_free(starts_at_once), free, "{starts_at_once}");
        }
    }
}
