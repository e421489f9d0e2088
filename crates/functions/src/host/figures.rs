//! What was counted of each function since this host began: invocations, times, errors, throttles.
//!
//! An environment holds its function's counters, so that an invocation costs a few atomic additions and no lock; only what
//! fails takes one, for the name of the error. Snapshots are read beside the counting and may be an invocation apart from
//! one member to the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::histogram::{self, BUCKETS};
use serde::Deserialize;

use super::lines::Status;
use super::{Host, lock};

/// Names of errors that are told apart, a function: some are the function's own words. Further ones count as [`OTHER`].
const ERROR_TYPES_MAX: usize = 64;
const OTHER: &str = "(others)";
/// Characters of such a name that are kept: the longest classes of real programs have some sixty.
const ERROR_TYPE_CHARS_MAX: usize = 128;
/// An error's document is read up to this many bytes for the name of its exception. A stack trace has some ten thousand.
const ERROR_BYTES_MAX: usize = 256 * 1024;
/// Functions that metrics tell apart, from the first that was called on: a time series of each is kept by whoever scrapes.
/// Further ones are summed up. Stats, which are asked for, tell of all.
const TOLD_APART_MAX: usize = 250;

/// The counters of all functions.
#[derive(Debug)]
pub(super) struct Figures {
    since_ms: i64,
    /// One entry for each function that was called since it was made: no more than the catalogue has.
    functions: Mutex<HashMap<String, Arc<FunctionFigures>>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self { since_ms: jiff::Timestamp::now().as_millisecond(), functions: Mutex::default() }
    }
}

impl Figures {
    /// The counters of a function, which begin with its first call.
    pub fn of(&self, function: &str) -> Arc<FunctionFigures> {
        let mut functions = lock(&self.functions);
        if let Some(found) = functions.get(function) {
            return found.clone();
        }
        let told_apart = functions.values().filter(|figures| figures.told_apart).count() < TOLD_APART_MAX;
        let made = Arc::new(FunctionFigures { told_apart, ..FunctionFigures::default() });
        functions.entry(function.to_owned()).or_insert(made).clone()
    }
}

/// The counters of one function.
#[derive(Debug, Default)]
pub(super) struct FunctionFigures {
    durations: Histogram,
    starts: Histogram,
    timeouts: AtomicU64,
    memory_mib: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    throttles: Mutex<BTreeMap<&'static str, u64>>,
    events_dropped: Mutex<BTreeMap<&'static str, u64>>,
    /// Whether metrics have series of this function's own. Decided once: a series must not begin in the middle.
    told_apart: bool,
}

/// The name of the exception in an error's document, where it has one that can be shown: `KeyError`.
pub(super) fn exception(document: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        error_type: String,
    }
    let document = Some(document).filter(|document| document.len() <= ERROR_BYTES_MAX)?;
    let name = serde_json::from_slice::<Named>(document).ok()?.error_type;
    let shown: String = name.chars().filter(|c| !c.is_control()).take(ERROR_TYPE_CHARS_MAX).collect();
    Some(shown).filter(|shown| !shown.is_empty())
}

impl FunctionFigures {
    /// An invocation is over, as its REPORT line says.
    pub fn ended(&self, duration: Duration, status: Status<'_>) {
        self.durations.add(duration);
        match status {
            Status::Success => {}
            Status::Timeout => {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
            }
            Status::Error(name) => count(&self.errors, name),
        }
    }

    /// An environment is ready for its first invocation.
    pub fn started(&self, init: Duration) {
        self.starts.add(init);
    }

    pub fn memory(&self, used_mib: u64) {
        self.memory_mib.fetch_max(used_mib, Ordering::Relaxed);
    }

    fn throttled(&self, reason: &'static str) {
        // The reasons are AWS's few.
        *lock(&self.throttles).entry(reason).or_default() += 1;
    }
}

fn count(errors: &Mutex<BTreeMap<String, u64>>, name: &str) {
    let mut errors = lock(errors);
    match errors.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            let name = if errors.len() < ERROR_TYPES_MAX { name } else { OTHER };
            *errors.entry(name.to_owned()).or_default() += 1;
        }
    }
}

#[derive(Debug)]
struct Histogram {
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let (sum_us, max_us) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), sum_us, max_us }
    }
}

impl Histogram {
    fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.counts[histogram::bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
        // Most times are not the longest, and a look costs less than an exchange.
        if micros > self.max_us.load(Ordering::Relaxed) {
            self.max_us.fetch_max(micros, Ordering::Relaxed);
        }
    }

    fn read(&self) -> histogram::Histogram {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        histogram::Histogram::of(self.counts.iter().map(load), load(&self.sum_us), load(&self.max_us))
    }
}

/// What is known of a function at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionStats {
    /// Invocations that are over, failed ones too.
    pub durations: histogram::Histogram,
    /// Environments that became ready, from their creation to their first poll.
    pub starts: histogram::Histogram,
    /// Invocations that failed, by the name of their exception or of Lambda's own error; those whose time was up are counted in `timeouts` alone.
    pub errors: BTreeMap<String, u64>,
    pub timeouts: u64,
    /// Calls that were refused, by AWS's reason.
    pub throttles: BTreeMap<&'static str, u64>,
    /// Events that were accepted and then dropped, by AWS's reason.
    pub events_dropped: BTreeMap<&'static str, u64>,
    /// The most that any environment was seen to use; 0 until the first invocation is over.
    pub memory_used_max_mib: u64,
    /// Environments with a call in them, waiting for one, and not ready yet.
    pub in_flight: u64,
    pub idle: u64,
    /// Those of the idle ones whose processes are stopped.
    pub frozen: u64,
    pub starting: u64,
    /// Calls that wait for an environment.
    pub waiting: u64,
    /// Whether metrics tell this function from others.
    pub told_apart: bool,
}

impl Host {
    /// Since when is counted: milliseconds since 1970.
    pub fn counted_since_ms(&self) -> i64 {
        self.handle.shared.figures.since_ms
    }

    /// A call of this function was refused, by the host or before it.
    pub fn count_throttle(&self, function: &str, reason: &'static str) {
        self.handle.shared.figures.of(function).throttled(reason);
    }

    /// Events of this function that had been accepted were dropped, so many: counted, and told in its log.
    pub fn count_dropped_events(&self, function: &str, events: u64, reason: &'static str) {
        *lock(&self.handle.shared.figures.of(function).events_dropped).entry(reason).or_default() += events;
        let what = if events == 1 { "an event was".to_owned() } else { format!("{events} events were") };
        let line = format!("longshore: {what} dropped, and will not be run: {reason}\n");
        self.handle.shared.logs.sink(function).append(line.as_bytes());
    }

    /// How long environments of a function took to become ready, since counting began.
    pub fn cold_starts(&self, function: &str) -> histogram::Histogram {
        let found = lock(&self.handle.shared.figures.functions).get(function).cloned();
        found.map(|figures| figures.starts.read()).unwrap_or_default()
    }

    /// Forgets what was counted of a function: one that is made with the same name later is another.
    pub fn forget_figures(&self, function: &str) {
        lock(&self.handle.shared.figures.functions).remove(function);
    }

    /// What is known of each function that was called since this host began, or has environments.
    pub fn stats(&self) -> BTreeMap<String, FunctionStats> {
        let shared = &self.handle.shared;
        let counted: Vec<(String, Arc<FunctionFigures>)> =
            lock(&shared.figures.functions).iter().map(|(name, figures)| (name.clone(), figures.clone())).collect();
        let mut all: BTreeMap<String, FunctionStats> =
            counted.into_iter().map(|(name, figures)| (name, read(&figures))).collect();
        let environments: Vec<_> = {
            let state = lock(&shared.state);
            for pending in state.calls.values() {
                if let Some(stats) = all.get_mut(&pending.deployment.name) {
                    stats.waiting += 1;
                } else {
                    all.entry(pending.deployment.name.clone()).or_default().waiting += 1;
                }
            }
            state.environments.values().cloned().collect()
        };
        // Behind the lock: each has one of its own.
        for environment in environments {
            let stats = all.entry(environment.deployment.name.clone()).or_default();
            match environment.activity() {
                Activity::Starting => stats.starting += 1,
                Activity::Idle => stats.idle += 1,
                Activity::Frozen => {
                    stats.idle += 1;
                    stats.frozen += 1;
                }
                Activity::Running => stats.in_flight += 1,
                Activity::Ending => {}
            }
        }
        all
    }
}

/// What an environment is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Starting,
    Idle,
    /// Idle, and its processes are stopped.
    Frozen,
    Running,
    Ending,
}

fn read(figures: &FunctionFigures) -> FunctionStats {
    FunctionStats {
        durations: figures.durations.read(),
        starts: figures.starts.read(),
        errors: lock(&figures.errors).clone(),
        timeouts: figures.timeouts.load(Ordering::Relaxed),
        throttles: lock(&figures.throttles).clone(),
        events_dropped: lock(&figures.events_dropped).clone(),
        told_apart: figures.told_apart,
        memory_used_max_mib: figures.memory_mib.load(Ordering::Relaxed),
        ..FunctionStats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_are_counted_with_their_times_and_by_how_they_ended() {
        let figures = Figures::default();
        let of_f = figures.of("f");
        for ms in 1..=100 {
            of_f.ended(Duration::from_millis(ms), Status::Success);
        }
        of_f.ended(Duration::from_millis(3_000), Status::Timeout);
        for _ in 0..2 {
            of_f.ended(Duration::from_millis(1), Status::Error("Runtime.ExitError"));
        }
        of_f.started(Duration::from_micros(90_001));
        for mib in [40, 70, 60] {
            of_f.memory(mib);
        }
        of_f.throttled("ConcurrentInvocationLimitExceeded");
        let read = read(&figures.of("f"));
        let (durations, starts) = (read.durations.times(), read.starts.times());
        assert_eq!(
            (durations.count, durations.max_us, read.durations.sum_us()),
            (103, 3_000_000, 5_050_000 + 3_002_000)
        );
        assert!(durations.p50_us.abs_diff(49_000) < 2_000 && durations.p99_us.abs_diff(100_000) < 4_000);
        assert_eq!((starts.count, starts.max_us), (1, 90_001));
        assert!(starts.p99_us <= 90_001 && starts.p99_us.abs_diff(90_001) * 32 <= 90_001, "{read:?}");
        assert_eq!((read.timeouts, read.errors), (1, BTreeMap::from([("Runtime.ExitError".to_owned(), 2)])));
        assert_eq!(read.throttles, BTreeMap::from([("ConcurrentInvocationLimitExceeded", 1)]));
        assert_eq!(read.memory_used_max_mib, 70);
        let none = FunctionStats { told_apart: true, ..FunctionStats::default() };
        let of_g = super::read(&figures.of("g"));
        assert_eq!((of_g.durations.count(), of_g.errors), (0, none.errors), "of another function, nothing");
    }

    #[test]
    fn metrics_tell_the_first_functions_apart_and_no_more_than_that() {
        let figures = Figures::default();
        for n in 0..TOLD_APART_MAX + 5 {
            assert_eq!(figures.of(&n.to_string()).told_apart, n < TOLD_APART_MAX, "{n}");
        }
        assert!(figures.of("3").told_apart && !figures.of(&TOLD_APART_MAX.to_string()).told_apart, "and it stays so");
    }

    #[test]
    fn an_error_is_called_by_its_exception_where_that_can_be_shown() {
        for (document, wanted) in [
            (r#"{"errorMessage": "'k'", "errorType": "KeyError", "stackTrace": []}"#, Some("KeyError")),
            (r#"{"errorType": "a\nb\u001b[31m"}"#, Some("ab[31m")),
            (r#"{"errorType": ""}"#, None),
            (r#"{"errorType": 7}"#, None),
            (r#"{"errorMessage": "no name"}"#, None),
            ("not JSON", None),
        ] {
            assert_eq!(exception(document.as_bytes()).as_deref(), wanted, "{document}");
        }
        let long = format!(r#"{{"errorType": "{}"}}"#, "ü".repeat(500));
        assert_eq!(exception(long.as_bytes()).map(|name| name.chars().count()), Some(ERROR_TYPE_CHARS_MAX));
        let huge = format!(r#"{{"errorType": "E", "errorMessage": "{}"}}"#, "x".repeat(ERROR_BYTES_MAX));
        assert_eq!(exception(huge.as_bytes()), None);
    }

    #[test]
    fn a_function_that_makes_up_names_of_errors_costs_a_bounded_number_of_them() {
        let figures = FunctionFigures::default();
        for n in 0..ERROR_TYPES_MAX + 10 {
            figures.ended(Duration::ZERO, Status::Error(&format!("Function.E{n}")));
        }
        figures.ended(Duration::ZERO, Status::Error("Function.E3"));
        let errors = read(&figures).errors;
        assert_eq!((errors.len(), errors[OTHER], errors["Function.E3"]), (ERROR_TYPES_MAX + 1, 10, 2));
    }
}
