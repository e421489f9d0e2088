//! Thousands of random faults against the host, black box: runtimes that crash, hang, answer by halves, twice, late and
//! under wrong names; environments that are killed and stopped from outside while they start, wait and work; callers that
//! leave; code that is replaced in the middle; a shutdown, and a server that is killed.
//!
//! What holds all the same: every call gets one answer, its own; no call runs twice; every place in the host is there
//! again afterwards; no process is left. One seed makes one course of faults (what happens at the same time differs):
//! `FAULT_SEED=… FAULTS=… cargo test -p longshore-functions --test faults -- --nocapture`.
//!
//! Source: Lambda specification 1.4, 1.8, 13.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use longshore_core::random::Random;
use longshore_functions::host::{self, Call, Deployment, Host, HostSettings, Launcher, Outcome, Patience, S3Door};

/// Faults of one run, if `FAULTS` does not say otherwise: some seconds' worth.
const FAULTS: usize = 1_000;
/// Environments at once: more than cores, so that the system decides who goes on.
const ENVIRONMENTS: u32 = 8;
/// Calls at once: more than environments, so that some wait.
const CALLERS: usize = 24;
/// Reserved concurrency of one of the two functions.
const RESERVED: u32 = 2;
/// Time-out of a call. A machine that stands still for so long fails the test.
const TIMEOUT_S: u32 = 2;
/// Time-out of calls that wait for one another: the first of them waits until the last places are free, and a call of the
/// storm whose caller has left keeps its place until its own time-out.
const PATIENT_TIMEOUT_S: u32 = 60;
/// How long a start may take before it goes on on the clock of its call.
const INIT_LIMIT: Duration = Duration::from_millis(500);
/// A call that has not come back by then is lost.
const LOST: Duration = Duration::from_secs(120);

// --- what is planned ---

/// What a call asks the runtime to do, how often (of a thousand), and what its caller has to see.
const BEHAVIOURS: [(&str, u64, Seen); 28] = [
    ("answer", 330, Seen::Answer),
    ("slow", 50, Seen::Answer),
    ("stream", 20, Seen::Answer),
    ("error", 50, Seen::Error),
    ("exit0", 30, Seen::Exit("Runtime exited without providing a reason")),
    ("exit7", 40, Seen::Exit("Runtime exited with error: exit status 7")),
    ("abort", 20, Seen::Exit("Runtime exited with error: signal: aborted")),
    ("kill", 40, Seen::Exit("Runtime exited with error: signal: killed")),
    ("segv", 15, Seen::Exit("Runtime exited with error: signal: segmentation fault")),
    ("hang", 4, Seen::Timeout),
    ("halfhang", 3, Seen::Timeout),
    ("answerhang", 4, Seen::Answer),
    ("half", 40, Seen::Truncated),
    ("chunkhalf", 20, Seen::Truncated),
    ("halfexit", 20, Seen::Truncated),
    ("twice", 50, Seen::Answer),
    ("late", 50, Seen::Answer),
    ("wrong", 30, Seen::Answer),
    ("attempt", 30, Seen::Answer),
    ("again", 40, Seen::Answer),
    ("answerexit", 30, Seen::Answer),
    ("answerdie", 20, Seen::Answer),
    ("large", 10, Seen::TooLarge),
    ("huge", 5, Seen::TooLarge),
    ("garbage", 15, Seen::Answer),
    ("nohead", 15, Seen::Answer),
    ("streamerror", 15, Seen::StreamError),
    ("orphan", 4, Seen::Answer),
];

/// Those that are no fault.
const WELL: [&str; 4] = ["answer", "slow", "stream", "error"];

/// What the caller of a call has to see, unless somebody killed the environment meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Answer,
    Error,
    Exit(&'static str),
    Timeout,
    Truncated,
    TooLarge,
    StreamError,
}

/// What is done to the host when a call goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Nothing,
    /// SIGKILL to some environment, whatever it does.
    Kill,
    /// SIGSTOP to some environment: it hangs from there on.
    Stop,
    /// New code, whose environments start in this way.
    Redeploy(&'static str),
}

#[derive(Debug, Clone)]
struct Plan {
    function: usize,
    behaviour: &'static str,
    seen: Seen,
    action: Action,
    /// The call is given up after so long.
    leaves: Option<Duration>,
    patience: Patience,
}

fn plans(seed: u64, faults: usize) -> Vec<Plan> {
    let mut random = Random::seeded(seed);
    let (mut plans, mut left) = (Vec::new(), faults);
    // Calls that a deployment whose starts fail still gets.
    let mut sick_for = [0u64; 2];
    while left > 0 {
        let function = usize::from(random.one_in(4));
        let mut dice = random.below(1_000);
        let (behaviour, _, seen) = BEHAVIOURS
            .into_iter()
            .find(|(_, share, _)| {
                let hit = dice < *share;
                dice = dice.saturating_sub(*share);
                hit
            })
            .unwrap_or(BEHAVIOURS[0]);
        let mut action = match random.below(1_000) {
            0..80 => Action::Kill,
            80..83 => Action::Stop,
            83..103 => {
                let how = ["", "", "", "", "flaky", "flaky", "exit", "error", "kill", "hang", "empty", "foreign"];
                Action::Redeploy(how[random.below(how.len() as u64) as usize])
            }
            _ => Action::Nothing,
        };
        if sick_for[function] == 1 {
            action = Action::Redeploy("");
        }
        if let Action::Redeploy(how) = action {
            sick_for[function] = match how {
                "" | "flaky" => 0,
                "hang" => 4,
                _ => 12,
            };
        }
        sick_for[function] = sick_for[function].saturating_sub(1);
        let leaves = random.one_in(20).then(|| Duration::from_micros(random.below(20_000)));
        let patience = match random.below(10) {
            0 => Patience::For(Duration::from_millis(random.below(50))),
            _ => Patience::Forever,
        };
        let count = usize::from(!WELL.contains(&behaviour))
            + usize::from(action != Action::Nothing)
            + usize::from(leaves.is_some());
        left = left.saturating_sub(count);
        plans.push(Plan { function, behaviour, seen, action, leaves, patience });
    }
    plans
}

// --- the host under test ---

struct Bench {
    host: Host,
    data_dir: PathBuf,
    code_dir: PathBuf,
    /// In the command line of every process that a function leaves behind.
    token: String,
    seen: Arc<S3>,
    generations: AtomicUsize,
}

/// What the functions say of themselves.
#[derive(Default)]
struct S3 {
    /// How often each call was run.
    ran: Mutex<HashMap<String, u32>>,
    /// Calls that hold until they are let go.
    held: AtomicUsize,
    let_go: tokio::sync::Notify,
}

impl Bench {
    fn new(dir: &Path) -> Self {
        let code_dir = dir.join("code");
        std::fs::create_dir_all(&code_dir).unwrap();
        std::fs::create_dir_all(dir.join("empty")).unwrap();
        let bootstrap = code_dir.join("bootstrap");
        // Processes of an earlier server may still run it, so it is replaced and not written over.
        let _ = std::fs::remove_file(&bootstrap);
        std::fs::copy(env!("CARGO_BIN_EXE_longshore-fault-runtime"), &bootstrap).unwrap();
        std::fs::set_permissions(&bootstrap, std::fs::Permissions::from_mode(0o755)).unwrap();
        let data_dir = dir.join("data");
        let settings = HostSettings {
            launcher: Launcher { program: env!("CARGO_BIN_EXE_longshore-launch").into(), arguments: Vec::new() },
            environments_max: ENVIRONMENTS,
            starts_at_once: 4,
            init_limit: INIT_LIMIT,
            ..HostSettings::new("eu-west-1", "123456789012", &data_dir)
        };
        let seen: Arc<S3> = Arc::default();
        let heard = seen.clone();
        let door: S3Door = Arc::new(move |_, request| {
            let heard = heard.clone();
            Box::pin(async move {
                match request.uri().path().split('/').collect::<Vec<_>>()[..] {
                    ["", "ran", number] => *heard.ran.lock().unwrap().entry(number.to_owned()).or_default() += 1,
                    ["", "hold", _] => {
                        let let_go = heard.let_go.notified();
                        tokio::pin!(let_go);
                        let_go.as_mut().enable();
                        heard.held.fetch_add(1, Ordering::SeqCst);
                        let_go.await;
                    }
                    _ => panic!("nobody asks for {}", request.uri()),
                }
                http::Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed())
            })
        });
        let host = Host::new(settings, door).unwrap();
        let token = format!("token-{}", uuid::Uuid::new_v4());
        Self { host, data_dir, code_dir, token, seen, generations: AtomicUsize::new(0) }
    }

    fn deployment(&self, function: usize, init: &str) -> Arc<Deployment> {
        self.deployment_within(function, init, TIMEOUT_S)
    }

    fn deployment_within(&self, function: usize, init: &str, timeout_s: u32) -> Arc<Deployment> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{generation}", ["f", "g"][function]);
        let runtime = if init == "foreign" { "java21" } else { "provided.al2023" };
        let code_dir = if init == "empty" { self.code_dir.with_file_name("empty") } else { self.code_dir.clone() };
        let variables = [("DEPLOYMENT", id.as_str()), ("INIT", init), ("TOKEN", &self.token)];
        Arc::new(Deployment {
            name: ["f", "g"][function].into(),
            role: "arn:aws:iam::000000000000:role/r".into(),
            version: "$LATEST".into(),
            runtime: runtime.into(),
            handler: "handler".into(),
            code_dir,
            layers_dir: None,
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            timeout_s,
            memory_mib: 128,
            ephemeral_storage_mib: 512,
            concurrency: (function == 1).then_some(RESERVED),
            log_format: host::LogFormat::Text,
            application_log_level: None,
            system_log_level: None,
            log_group: "/aws/lambda/f".into(),
            id,
        })
    }

    /// Calls what `deployment` names, and again what it names then for as long as the call is handed back because the code
    /// was replaced while it waited. Returns the call's ID, who had it, and what came of it.
    async fn invoke_current(
        &self,
        deployment: impl Fn() -> Arc<Deployment>,
        number: &str,
        what: &str,
        patience: Patience,
    ) -> (String, Arc<Deployment>, Outcome) {
        let id = uuid::Uuid::new_v4().to_string();
        let mut call = Call {
            request_id: id.clone(),
            invoked_arn: "arn:aws:lambda:eu-west-1:123456789012:function:f".into(),
            payload: format!("{number} {what}").into(),
            client_context: None,
            trace_id: None,
            want_log_tail: false,
            patience,
            start: None,
        };
        loop {
            let d = deployment();
            match tokio::time::timeout(LOST, self.host.invoke(d.clone(), call)).await {
                Ok(Outcome::Gone { call: back }) => call = *back,
                Ok(outcome) => return (id, d, outcome),
                Err(_) => panic!("call {number} ({what}) of {} was lost", d.id),
            }
        }
    }

    async fn invoke(&self, d: &Arc<Deployment>, number: &str, what: &str, patience: Patience) -> Outcome {
        self.invoke_current(|| d.clone(), number, what, patience).await.2
    }

    fn log(&self, function: &str) -> String {
        self.host.flush_logs();
        let bytes = host::logs::read_tail(&self.data_dir, function, 1 << 30).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

// --- processes ---

/// Every process that there is: its ID, its parent's, its state, and its name.
fn processes() -> Vec<(i32, i32, char, String)> {
    let stat = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let mut rest = rest.split_ascii_whitespace();
        let state = rest.next()?.chars().next()?;
        Some((pid, rest.next()?.parse().ok()?, state, name.to_owned()))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(stat).collect()
}

/// Those that descend from this process.
fn descendants() -> Vec<(i32, char, String)> {
    let all = processes();
    let mut families = vec![i32::try_from(std::process::id()).unwrap()];
    let mut found = Vec::new();
    while let Some(parent) = families.pop() {
        for (pid, of, state, name) in &all {
            if *of == parent {
                families.push(*pid);
                found.push((*pid, *state, name.clone()));
            }
        }
    }
    found
}

/// Sends a signal to some runtime of this process's. Returns whether there was one.
fn hurt(random: &mut Random, signal: rustix::process::Signal) -> bool {
    let runtimes: Vec<i32> =
        descendants().into_iter().filter(|(_, _, name)| name == "bootstrap").map(|(pid, ..)| pid).collect();
    let Some(pid) = runtimes.get(random.below(runtimes.len() as u64) as usize) else { return false };
    let pid = rustix::process::Pid::from_raw(*pid).unwrap();
    rustix::process::kill_process(pid, signal).is_ok()
}

/// Processes that a function left behind, by the token in their command line.
fn left_behind(token: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(token)
    };
    processes().into_iter().filter(|(_, _, state, _)| *state != 'Z').map(|(pid, ..)| pid).filter(has).collect()
}

async fn soon(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn from_environment(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

// --- the judgement of one call ---

/// What a call came to, where it is not what was planned: what may have come in between explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Instead {
    Throttled,
    Killed,
    TimedOut,
    /// Its start failed, as that of its deployment does.
    Start,
}

/// Whether the outcome is the call's own. `Ok(None)`: as planned.
fn judge(plan: &Plan, number: &str, d: &Deployment, id: &str, outcome: &Outcome) -> Result<Option<Instead>, String> {
    let (payload, function_error) = match outcome {
        Outcome::Answered { payload, function_error, .. } => (String::from_utf8_lossy(payload), *function_error),
        Outcome::Fault(why) if d.variables["INIT"] == "foreign" && why.contains("java21") => {
            return Ok(Some(Instead::Start));
        }
        Outcome::Throttled { .. } if plan.patience != Patience::Forever => return Ok(Some(Instead::Throttled)),
        other => return Err(format!("{other:?}")),
    };
    let own = format!("{number} {}", d.id);
    let error = |error_type: &str, message: &str| {
        format!(r#"{{"errorType":"{error_type}","errorMessage":"RequestId: {id} Error: {message}"}}"#)
    };
    let timed_out = error("Sandbox.Timedout", &format!("Task timed out after {TIMEOUT_S}.00 seconds"));
    let truncated = error("Runtime.TruncatedResponse", "Runtime closed the connection before the end of its response");
    let killed = error("Runtime.ExitError", "Runtime exited with error: signal: killed");
    let (planned, failed) = match plan.seen {
        Seen::Answer => (own, false),
        Seen::Error => (own, true),
        Seen::Exit(message) => (error("Runtime.ExitError", message), true),
        Seen::Timeout => (timed_out.clone(), true),
        Seen::Truncated => (truncated.clone(), true),
        Seen::TooLarge => (
            r#"{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}"#
                .to_owned(),
            true,
        ),
        Seen::StreamError => ("failed in the middle".to_owned(), true),
    };
    if payload == planned && function_error == failed {
        return Ok(None);
    }
    let start = match d.variables["INIT"].as_str() {
        "exit" | "flaky" => error("Runtime.ExitError", "Runtime exited with error: exit status 3"),
        "kill" => killed.clone(),
        "error" => format!("init error {}", d.id),
        "hang" => timed_out.clone(),
        "empty" => {
            error("Runtime.InvalidEntrypoint", "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")
        }
        _ => String::new(),
    };
    let instead = [
        (start, Instead::Start),
        (killed, Instead::Killed),
        (truncated, Instead::Killed),
        (timed_out, Instead::TimedOut),
    ];
    match instead.into_iter().find(|(text, _)| *text == payload) {
        Some((_, instead)) if function_error => Ok(Some(instead)),
        _ => Err(format!("{payload} (a function error: {function_error}), planned was {planned}")),
    }
}

// --- the tests ---

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_thousands_of_faults_every_call_has_its_own_answer_and_nothing_is_left() {
    let seed = from_environment("FAULT_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let faults = from_environment("FAULTS").map_or(FAULTS, |n| usize::try_from(n).unwrap());
    println!("FAULT_SEED={seed} FAULTS={faults}");
    let began = Instant::now();
    let temp = tempfile::tempdir().unwrap();
    let bench = Bench::new(temp.path());
    let plans = plans(seed, faults);
    let current = Mutex::new([bench.deployment(0, ""), bench.deployment(1, "")]);
    let next = AtomicUsize::new(0);
    let signals = Mutex::new((Random::seeded(seed ^ 1), 0u32, 0u32));
    let counted: Mutex<BTreeMap<String, u32>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let answered: Mutex<Vec<String>> = Mutex::default();
    let count = |what: String| *counted.lock().unwrap().entry(what).or_default() += 1;

    let caller = || async {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = plans.get(n) else { return };
            match plan.action {
                Action::Nothing => {}
                Action::Kill | Action::Stop => {
                    let (random, kills, stops) = &mut *signals.lock().unwrap();
                    use rustix::process::Signal;
                    let (signal, sent) =
                        if plan.action == Action::Kill { (Signal::KILL, kills) } else { (Signal::STOP, stops) };
                    *sent += u32::from(hurt(random, signal));
                }
                Action::Redeploy(init) => {
                    let new = bench.deployment(plan.function, init);
                    let old = std::mem::replace(&mut current.lock().unwrap()[plan.function], new);
                    bench.host.retire(&old.id);
                    count(format!("redeployed {init}"));
                }
            }
            let number = n.to_string();
            let newest = || current.lock().unwrap()[plan.function].clone();
            let invoked = bench.invoke_current(newest, &number, plan.behaviour, plan.patience);
            let (id, d, outcome) = match plan.leaves {
                Some(after) => match tokio::time::timeout(after, invoked).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        count("left".into());
                        continue;
                    }
                },
                None => invoked.await,
            };
            count(plan.behaviour.to_owned());
            match judge(plan, &number, &d, &id, &outcome) {
                Ok(None) => {
                    if matches!(plan.seen, Seen::Answer | Seen::Error) {
                        answered.lock().unwrap().push(number);
                    }
                }
                Ok(Some(instead)) => count(format!("instead {instead:?}")),
                Err(what) => wrong.lock().unwrap().push(format!("call {number} of {}, {plan:?}: {what}", d.id)),
            }
        }
    };
    futures::future::join_all((0..CALLERS).map(|_| caller())).await;
    let stormed = began.elapsed();

    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} calls have no answer of their own:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    let (_, kills, stops) = *signals.lock().unwrap();
    let counted = counted.into_inner().unwrap();
    let times = |what: &str| counted.get(what).copied().unwrap_or(0);
    // One signal ends one environment, and one environment has one call.
    assert!(times("instead Killed") <= kills, "{} calls ended by {kills} signals", times("instead Killed"));
    assert!(times("instead TimedOut") <= stops, "{} calls timed out for {stops} signals", times("instead TimedOut"));
    {
        let ran = bench.seen.ran.lock().unwrap();
        let twice: Vec<_> = ran.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "calls that were run twice: {twice:?}");
        let never: Vec<_> = answered.lock().unwrap().iter().filter(|n| !ran.contains_key(*n)).cloned().collect();
        assert!(never.is_empty(), "calls that were answered and never run: {never:?}");
    }

    all_places_are_there(&bench).await;
    a_shutdown_in_the_middle_leaves_nothing(&bench).await;
    for function in ["f", "g"] {
        every_start_has_its_end(&bench.log(function));
    }
    println!(
        "{} calls and {faults} faults in {:.1} s, all in {:.1} s; {kills} killed, {stops} stopped; {counted:?}",
        plans.len(),
        stormed.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
}

/// No permit has leaked: the whole host can be filled with one function, and the other one has what was reserved for it.
async fn all_places_are_there(bench: &Bench) {
    for (function, places) in [(1, RESERVED), (0, ENVIRONMENTS)] {
        let d = bench.deployment_within(function, "", PATIENT_TIMEOUT_S);
        for generation in 0..bench.generations.load(Ordering::Relaxed) - 1 {
            bench.host.retire(&format!("{}-{generation}", d.name));
        }
        bench.seen.held.store(0, Ordering::SeqCst);
        let holders = (0..places + 1).map(|n| {
            let d = &d;
            async move {
                let number = format!("hold-{n}");
                (number.clone(), bench.invoke(d, &number, "hold", Patience::Forever).await)
            }
        });
        let began = Instant::now();
        let watch = async {
            soon("full use of the host", || bench.seen.held.load(Ordering::SeqCst) == places as usize).await;
            println!("all {places} places were taken after {} ms", began.elapsed().as_millis());
            // The one too many holds as soon as there is a place for it, and would be late for the first word.
            while bench.seen.held.load(Ordering::SeqCst) <= places as usize {
                bench.seen.let_go.notify_waiters();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bench.seen.let_go.notify_waiters();
        };
        let (outcomes, ()) = tokio::join!(futures::future::join_all(holders), watch);
        for (number, outcome) in outcomes {
            match outcome {
                Outcome::Answered { payload, function_error: false, .. } => {
                    assert_eq!(payload, format!("{number} {}", d.id));
                }
                other => panic!("{number}: {other:?}"),
            }
        }
    }
}

async fn a_shutdown_in_the_middle_leaves_nothing(bench: &Bench) {
    let d = bench.deployment(0, "");
    let what = ["slow", "answer", "orphan", "half", "kill", "hang", "halfhang", "slow"];
    let calls = (0..64).map(|n: usize| {
        let d = &d;
        async move {
            let number = format!("last-{n}");
            match bench.invoke(d, &number, what[n % what.len()], Patience::Forever).await {
                Outcome::Answered { payload, function_error: false, .. } => {
                    assert_eq!(payload, format!("{number} {}", d.id));
                }
                Outcome::Answered { function_error: true, .. } | Outcome::Fault(_) => {}
                other => panic!("{number}: {other:?}"),
            }
        }
    });
    let shutdown = async {
        let ran = || bench.seen.ran.lock().unwrap().keys().filter(|number| number.starts_with("last-")).count();
        soon("the last calls", || ran() >= 12).await;
        bench.host.shutdown(Duration::from_millis(300)).await;
    };
    tokio::join!(futures::future::join_all(calls), shutdown);
    assert_eq!(bench.host.environments(), 0);
    let of_functions = |(_, state, name): &(i32, char, String)| *state == 'Z' || name == "bootstrap";
    let left: Vec<_> = descendants().into_iter().filter(of_functions).collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    assert_eq!(left_behind(&bench.token), Vec::<i32>::new(), "processes that functions left behind are left");
    assert_eq!(std::fs::read_dir(bench.data_dir.join("environments")).unwrap().count(), 0, "folders are left");
}

/// Every invocation that was begun in the log was ended there, once, and reported.
fn every_start_has_its_end(log: &str) {
    assert!(!log.contains("lines were dropped"), "the log is not whole");
    let mut open: HashMap<&str, [u32; 3]> = HashMap::new();
    for line in log.lines() {
        let kinds = ["START RequestId: ", "END RequestId: ", "REPORT RequestId: "];
        for (n, kind) in kinds.into_iter().enumerate() {
            if let Some(rest) = line.strip_prefix(kind) {
                open.entry(&rest[..36]).or_default()[n] += 1;
            }
        }
    }
    assert!(open.len() > 50, "a log of {} invocations", open.len());
    let uneven: Vec<_> = open.iter().filter(|(_, counts)| **counts != [1, 1, 1]).take(5).collect();
    assert!(uneven.is_empty(), "START, END and REPORT: {uneven:?}");
}

/// Not a test of its own: the server that the next test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_that_is_killed() {
    let Some(dir) = std::env::var_os("LONGSHORE_TEST_KILLED_SERVER") else { return };
    let dir = PathBuf::from(dir);
    let bench = Bench::new(&dir);
    std::fs::write(dir.join("token.new"), &bench.token).unwrap();
    std::fs::rename(dir.join("token.new"), dir.join("token")).unwrap();
    let d = bench.deployment(0, "");
    let what = ["orphan", "slow", "answer", "hang", "halfhang", "kill", "answer", "slow"];
    let endless = |caller: usize| {
        let (bench, d) = (&bench, &d);
        async move {
            for n in caller.. {
                bench.invoke(d, &n.to_string(), what[n % what.len()], Patience::Forever).await;
            }
        }
    };
    futures::future::join_all((0..16).map(endless)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_the_middle_leaves_nothing_to_the_next_one() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..from_environment("FAULT_KILLS").unwrap_or(3) {
        let _ = std::fs::remove_file(temp.path().join("token"));
        let mut server = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_server_that_is_killed"])
            .env("LONGSHORE_TEST_KILLED_SERVER", temp.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        soon("its start", || temp.path().join("token").exists()).await;
        let token = std::fs::read_to_string(temp.path().join("token")).unwrap();
        soon("a process that is left behind", || !left_behind(&token).is_empty()).await;
        let runtimes = || -> Vec<i32> {
            let theirs = |pid: &i32| {
                let exe = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&exe).contains(&token)
            };
            let alive = processes().into_iter().filter(|(_, _, state, _)| *state != 'Z');
            alive.filter(|(_, _, _, name)| name == "bootstrap").map(|(pid, ..)| pid).filter(theirs).collect()
        };
        assert!(!runtimes().is_empty());
        server.kill().unwrap();
        server.wait().unwrap();
        // What a function left behind has its environment's variables too: what is left of all of these are those.
        soon("the end of the runtimes", || {
            let left = left_behind(&token);
            runtimes().iter().all(|pid| left.contains(pid))
        })
        .await;
        let next = Bench::new(temp.path());
        assert_eq!(left_behind(&token), Vec::<i32>::new());
        assert_eq!(runtimes(), Vec::<i32>::new());
        assert_eq!(std::fs::read_dir(next.data_dir.join("environments")).unwrap().count(), 0);
    }
}
