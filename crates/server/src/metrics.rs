//! What Prometheus scrapes: jobs, tasks, invocations, queues, syncs, environments, this process.
//!
//! A scrape reads what the rooms count anyway, five times a second for what runs; where tasks go by nothing is locked for it.
//! Whoever may read it: `docs/decisions/0033-metrics-are-signed-or-on-a-loopback-listener.md`. All metrics, in words:
//! `docs/metrics.md`, which a test holds to the table here.

mod process;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use http::header::HOST;
use longshore_core::figures::Call;
use longshore_core::task::ResultCode;
use longshore_functions::host::figures::FunctionStats;
use longshore_functions::{EventFigures, Functions};
use longshore_jobs::Jobs;
use longshore_store::syncs::{BOUNDS_US, SyncTimes};
use longshore_store::{Fatal, Records, StoreError};

use self::process::Process;
pub use self::text::CONTENT_TYPE;
use self::text::{Kind, Metric, Text, seconds};
use crate::dispatch::plain;
use crate::listener::{Answer, RequestBody, Service};

/// Connections to the listener for metrics: a few that scrape, and whoever looks by hand.
pub const CONNECTIONS_MAX: usize = 16;
/// Where the listener for metrics has them, as every exporter.
const PATH: &str = "/metrics";
/// What stands for functions that are not told apart. No function can be called so.
const OTHERS: &str = "(others)";

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal $help:literal;)*) => {
        $(static $id: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*
        /// Every metric there is, in the order in which they are told.
        #[cfg(test)]
        static METRICS: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BUILD_INFO Gauge "longshore_build_info" "Always 1; the version of the server is its label.";
    JOBS Gauge "longshore_jobs" "Jobs that there are, by status.";
    TASKS Counter "longshore_tasks_total" "Tasks that came to a durable final result, by outcome.";
    INVOCATIONS Counter "longshore_invocations_total" "Invocations that jobs asked for and that are over, by what they came to.";
    ANSWERS Counter "longshore_task_answers_total" "Answers of functions for tasks of jobs, by result code.";
    RETRIES Counter "longshore_task_retries_total" "Attempts at tasks that were followed by another because of what the function answered.";
    IN_FLIGHT Gauge "longshore_invocations_in_flight" "Invocations that jobs have asked for and that are not over.";
    TASK_SECONDS Histogram "longshore_task_duration_seconds" "From a task's first dispatch to the answer that settled it.";
    ATTEMPT_SECONDS Histogram "longshore_attempt_duration_seconds" "From the call to the answer, of attempts at tasks that reached their function.";
    QUEUES Gauge "longshore_queue_depth" "What waits, by queue.";
    SYNCS Histogram "longshore_sync_duration_seconds" "Syncs of the disk, by what was made durable: records (a group commit of the database) or results (of a job).";
    ENVIRONMENTS Gauge "longshore_environments" "Execution environments of functions, by state.";
    FUNCTION_INVOCATIONS Counter "longshore_function_invocations_total" "Invocations of functions that are over, by function and result.";
    FUNCTION_SECONDS Histogram "longshore_function_duration_seconds" "How long functions ran, by function.";
    COLD_STARTS Histogram "longshore_function_cold_start_seconds" "From the creation of an environment until it was ready, by function.";
    THROTTLES Counter "longshore_function_throttles_total" "Calls of functions that were refused because there was no room, by function.";
    EVENTS_DROPPED Counter "longshore_function_events_dropped_total" "Asynchronous invocations that were accepted and then dropped, by function.";
    EVENTS Counter "longshore_function_events_total" "Asynchronous invocations that are over, by outcome.";
    REQUESTS Counter "longshore_requests_total" "Requests that were answered, by API (as their path has it) and class of status.";
    CPU Counter "process_cpu_seconds_total" "Processor time that the server used, user and system; that of functions is not in it.";
    RESIDENT Gauge "process_resident_memory_bytes" "Memory of the server that is resident.";
    THREADS Gauge "process_threads" "Threads of the server.";
    DESCRIPTORS Gauge "process_open_fds" "File descriptors that are open.";
    DESCRIPTORS_MAX Gauge "process_max_fds" "File descriptors that may be open.";
    STARTED Gauge "process_start_time_seconds" "When the server was started, in seconds since 1970.";
}

/// Requests that were answered, by API and class of status.
#[derive(Debug, Default)]
pub struct Requests {
    counts: [[AtomicU64; CLASSES.len()]; APIS.len()],
}

pub const APIS: [&str; 5] = ["s3", "s3-control", "lambda", "longshore", "iam"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Requests {
    /// One more. `api` is a place in [`APIS`].
    pub fn count(&self, api: usize, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        if let Some(classes) = self.counts.get(api) {
            classes[class].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Everything that counts.
pub struct Metrics {
    pub jobs: Jobs,
    pub functions: Functions,
    pub records: Records,
    pub fatal: Fatal,
    pub requests: Requests,
}

impl Metrics {
    /// The whole document.
    pub async fn text(&self) -> Result<String, StoreError> {
        let jobs = self.jobs.metrics().await?;
        let process = tokio::task::spawn_blocking(Process::look).await.unwrap_or_default();
        let (functions, events) = self.functions.metrics();
        let mut text = Text::default();
        text.metric(&BUILD_INFO).count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        let mut samples = text.metric(&JOBS);
        for (status, count) in &jobs.jobs {
            samples = samples.count(&[("status", status.name())], *count);
        }
        let totals = &jobs.totals;
        text.metric(&TASKS)
            .count(&[("outcome", "succeeded")], totals.succeeded)
            .count(&[("outcome", "failed")], totals.failed);
        let mut samples = text.metric(&INVOCATIONS);
        for call in Call::ALL {
            samples = samples.count(&[("result", call.name())], totals.figures.calls(call));
        }
        let mut samples = text.metric(&ANSWERS);
        for code in ResultCode::ALL {
            samples = samples.count(&[("code", code.name())], totals.figures.answers(code));
        }
        text.metric(&RETRIES).count(&[], totals.figures.retries);
        let depths = &jobs.depths;
        text.metric(&IN_FLIGHT).count(&[], depths.in_flight);
        text.metric(&TASK_SECONDS).times(&[], &totals.figures.tasks);
        text.metric(&ATTEMPT_SECONDS).times(&[], &totals.figures.attempts);
        let calls_waiting = functions.values().map(|stats| stats.waiting).sum();
        let mut samples = text.metric(&QUEUES);
        for (queue, waiting) in [
            ("tasks-ready", depths.ready),
            ("tasks-to-retry", depths.waiting),
            ("gate", jobs.waiting_at_gate),
            ("results-unrecorded", depths.unrecorded),
            ("records-writer", self.records.waiting() as u64),
            ("environment", calls_waiting),
            ("function-events", events.events as u64),
            ("event-deliveries", jobs.deliveries_owed),
        ] {
            samples = samples.count(&[("queue", queue)], waiting);
        }
        let syncs = self.fatal.syncs();
        let bounds = BOUNDS_US.map(|micros| seconds(micros).to_string());
        let mut samples = text.metric(&SYNCS);
        for (store, times) in [("records", &syncs.records), ("results", &syncs.results)] {
            let counted = SyncTimes::read(times);
            let at_most = bounds.iter().zip(counted.at_most);
            samples = samples.histogram(&[("store", store)], at_most, counted.count, counted.sum_us);
        }
        write_functions(&mut text, functions, events);
        let mut samples = text.metric(&REQUESTS);
        for (api, classes) in APIS.iter().zip(&self.requests.counts) {
            for (class, count) in CLASSES.iter().zip(classes) {
                samples = samples.count(&[("api", api), ("status", class)], count.load(Ordering::Relaxed));
            }
        }
        write_process(&mut text, &process);
        Ok(text.finish())
    }

    /// The answer to whoever may read it.
    pub async fn answer(&self) -> Answer {
        match self.text().await {
            Ok(text) => crate::dispatch::document(CONTENT_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "metrics could not be gathered");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "The metrics could not be gathered.")
            }
        }
    }
}

fn write_functions(text: &mut Text, functions: BTreeMap<String, FunctionStats>, events: EventFigures) {
    let mut states = [("starting", 0), ("idle", 0), ("busy", 0), ("frozen", 0)];
    let mut shown: BTreeMap<String, FunctionStats> = BTreeMap::new();
    for (name, stats) in functions {
        let counts = [stats.starting, stats.idle.saturating_sub(stats.frozen), stats.in_flight, stats.frozen];
        states.iter_mut().zip(counts).for_each(|((_, sum), count)| *sum += count);
        if stats.told_apart {
            shown.insert(name, stats);
        } else {
            add(shown.entry(OTHERS.to_owned()).or_default(), &stats);
        }
    }
    let mut samples = text.metric(&ENVIRONMENTS);
    for (state, count) in states {
        samples = samples.count(&[("state", state)], count);
    }
    let mut samples = text.metric(&FUNCTION_INVOCATIONS);
    for (name, stats) in &shown {
        let errors: u64 = stats.errors.values().sum();
        let succeeded = stats.durations.count().saturating_sub(errors + stats.timeouts);
        for (result, count) in [("succeeded", succeeded), ("function_error", errors), ("timed_out", stats.timeouts)] {
            samples = samples.count(&[("function", name), ("result", result)], count);
        }
    }
    let mut samples = text.metric(&FUNCTION_SECONDS);
    for (name, stats) in &shown {
        samples = samples.times(&[("function", name)], &stats.durations);
    }
    let mut samples = text.metric(&COLD_STARTS);
    for (name, stats) in &shown {
        samples = samples.times(&[("function", name)], &stats.starts);
    }
    let mut samples = text.metric(&THROTTLES);
    for (name, stats) in &shown {
        samples = samples.count(&[("function", name)], stats.throttles.values().sum());
    }
    let mut samples = text.metric(&EVENTS_DROPPED);
    for (name, stats) in &shown {
        samples = samples.count(&[("function", name)], stats.events_dropped.values().sum());
    }
    text.metric(&EVENTS)
        .count(&[("outcome", "succeeded")], events.succeeded)
        .count(&[("outcome", "dropped")], events.dropped);
}

/// What is told of a function, added to another's.
fn add(sum: &mut FunctionStats, stats: &FunctionStats) {
    sum.durations.merge(&stats.durations);
    sum.starts.merge(&stats.starts);
    *sum.errors.entry(String::new()).or_default() += stats.errors.values().sum::<u64>();
    sum.timeouts += stats.timeouts;
    *sum.throttles.entry("").or_default() += stats.throttles.values().sum::<u64>();
    *sum.events_dropped.entry("").or_default() += stats.events_dropped.values().sum::<u64>();
}

fn write_process(text: &mut Text, process: &Process) {
    let counts = [
        (&RESIDENT, process.resident_bytes),
        (&THREADS, process.threads),
        (&DESCRIPTORS, process.open_descriptors),
        (&DESCRIPTORS_MAX, process.descriptors_max),
    ];
    if let Some(cpu) = process.cpu_seconds {
        text.metric(&CPU).number(&[], cpu);
    }
    for (metric, count) in counts {
        if let Some(count) = count {
            text.metric(metric).count(&[], count);
        }
    }
    if let Some(started) = process.started_seconds {
        text.metric(&STARTED).number(&[], started);
    }
}

/// The listener for metrics, which serves nothing else. It is on the loopback interface, where no signature is asked for.
pub struct Door(pub std::sync::Arc<Metrics>);

impl Service for Door {
    async fn answer(&self, request: http::Request<RequestBody>) -> Answer {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if !host.is_some_and(is_loopback) {
            // A web page that has pointed its own name at this address arrives in just that way.
            return plain(StatusCode::FORBIDDEN, "This is served as localhost, 127.0.0.1 or [::1] alone.");
        }
        match (request.method(), request.uri().path()) {
            (&http::Method::GET | &http::Method::HEAD, PATH) => self.0.answer().await,
            (_, PATH) => plain(StatusCode::METHOD_NOT_ALLOWED, "Metrics are read with GET."),
            _ => plain(StatusCode::NOT_FOUND, "There is nothing but /metrics here."),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_units_and_counters_their_total() {
        for metric in METRICS {
            let name = metric.name;
            let fits = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(
                name.chars().all(fits) && (name.starts_with("longshore_") || name.starts_with("process_")),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn the_page_of_metrics_tells_of_each_of_them_and_of_no_other() {
        let (page, _of_one_job) = include_str!("../../../docs/metrics.md").split_once("\n## ").unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let told: Vec<(&str, &str)> = rows
            .iter()
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                (cells[1].trim_matches('`'), cells[2])
            })
            .collect();
        let there: Vec<(&str, &str)> = METRICS.iter().map(|metric| (metric.name, metric.kind.name())).collect();
        assert_eq!(told, there);
    }

    #[test]
    fn the_listener_is_for_names_of_this_machine() {
        for (host, fine) in [
            ("localhost:9300", true),
            ("LOCALHOST", true),
            ("127.0.0.1:9300", true),
            ("127.8.8.8", true),
            ("[::1]:9300", true),
            ("rebound.example:9300", false),
            ("127.0.0.1.example", false),
            ("a@localhost", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), fine, "{host}");
        }
    }

    #[test]
    fn functions_beyond_those_told_apart_are_summed_up() {
        let mut stats = FunctionStats { timeouts: 1, idle: 3, frozen: 2, in_flight: 1, ..FunctionStats::default() };
        for micros in [900, 70_000, 5_000_000] {
            stats.durations.add(micros);
        }
        stats.errors.insert("KeyError".into(), 1);
        let own = FunctionStats { told_apart: true, ..stats.clone() };
        let functions = [("f", own), ("g", stats.clone()), ("h", stats)].map(|(name, stats)| (name.to_owned(), stats));
        let mut text = Text::default();
        write_functions(&mut text, functions.into(), EventFigures::default());
        let text = text.finish();
        for line in [
            "longshore_function_invocations_total{function=\"f\",result=\"succeeded\"} 1",
            "longshore_function_invocations_total{function=\"(others)\",result=\"succeeded\"} 2",
            "longshore_function_invocations_total{function=\"(others)\",result=\"function_error\"} 2",
            "longshore_function_duration_seconds_bucket{function=\"(others)\",le=\"0.1\"} 4",
            "longshore_function_duration_seconds_count{function=\"(others)\"} 6",
            "longshore_environments{state=\"idle\"} 3",
            "longshore_environments{state=\"frozen\"} 6",
            "longshore_environments{state=\"busy\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("\"g\""));
    }
}
