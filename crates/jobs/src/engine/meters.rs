//! What the engine counts of jobs: each run in figures of its own, which are looked at with each tick of its loop, so that
//! nothing is locked or shared where tasks go by.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_core::counted::Counted;
use longshore_core::figures::{Call, Figures};
use longshore_core::histogram::Histogram;
use longshore_core::run::{Depths, Run};
use longshore_core::speed::{Outlook, Speed, Unknown};
use longshore_core::task::ResultCode;
use longshore_core::time::Tick;
use longshore_store::StoreError;
use serde::{Deserialize, Serialize};

/// The meters of all jobs.
#[derive(Debug, Default)]
pub(super) struct Meters {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of runs that have come to rest.
    over: Totals,
    /// No more than there are slots for jobs.
    running: HashMap<String, Running>,
}

/// What runs have come to since the server began.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub figures: Figures,
    /// Final results that became durable.
    pub succeeded: u64,
    pub failed: u64,
}

impl Totals {
    fn merge(&mut self, other: &Self) {
        self.figures.merge(&other.figures);
        self.succeeded += other.succeeded;
        self.failed += other.failed;
    }
}

#[derive(Debug)]
struct Running {
    totals: Totals,
    /// Of the job, all of it durable: in its log, with so many final results, and what was noted beside it.
    counted: Counted,
    results: u64,
    noted: Counted,
    depths: Depths,
    at_once: (u32, bool),
    speed: Speed,
    outlook: Outlook,
}

/// How a job goes that runs.
#[derive(Debug, Clone)]
pub struct Going {
    pub depths: Depths,
    /// How many tasks may run at once, and whether the ramp is what allows no more.
    pub at_once: (u32, bool),
    /// Final results, and milliseconds in Active, of the moment of which its figures are.
    pub results: u64,
    pub active_ms: u64,
    /// Final results over the last ten seconds.
    pub per_second: f64,
    pub left_ms: Result<u64, Unknown>,
}

impl Meters {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of all runs since the server began, and what is where in those that go on.
    pub fn total(&self) -> (Totals, Depths) {
        let inner = self.lock();
        let (mut totals, mut depths) = (inner.over.clone(), Depths::default());
        for running in inner.running.values() {
            totals.merge(&running.totals);
            depths.ready += running.depths.ready;
            depths.waiting += running.depths.waiting;
            depths.in_flight += running.depths.in_flight;
            depths.unrecorded += running.depths.unrecorded;
        }
        (totals, depths)
    }

    /// Of one job that runs: all that its runs have counted, as far as it outlives a crash, and how it goes.
    pub fn of(&self, id: &str) -> Option<(Figures, Going)> {
        let inner = self.lock();
        let running = inner.running.get(id)?;
        let Counted { active_ms, figures } = &running.counted;
        let mut shown = figures.clone();
        // Calls that settle nothing for a while are in a note before they are in the log.
        shown.merge(&running.noted.figures.since(figures));
        let going = Going {
            depths: running.depths,
            at_once: running.at_once,
            results: running.results,
            active_ms: running.noted.active_ms.max(*active_ms),
            per_second: running.speed.per_second(),
            left_ms: running.speed.left_ms(running.outlook),
        };
        Some((shown, going))
    }
}

/// The meter of one run. Dropped when that rests, however it does: what it counted stays in the totals.
pub(super) struct Meter {
    meters: Arc<Meters>,
    id: String,
    /// What was there before the run.
    results_before: (u64, u64),
    figures_before: Figures,
}

impl Meter {
    /// For a job whose log has counted `logged` with `results_before`, and of which `noted` is kept beside it.
    pub fn start(meters: &Arc<Meters>, id: &str, logged: &Counted, results_before: (u64, u64), noted: Counted) -> Self {
        let mut figures_before = logged.figures.clone();
        figures_before.merge(&noted.figures.since(&logged.figures));
        let running = Running {
            totals: Totals::default(),
            counted: logged.clone(),
            results: results_before.0 + results_before.1,
            noted,
            depths: Depths::default(),
            at_once: (0, false),
            speed: Speed::default(),
            outlook: Outlook { left: 0, total_known: false, ramps_up: false },
        };
        meters.lock().running.insert(id.to_owned(), running);
        Self { meters: Arc::clone(meters), id: id.to_owned(), results_before, figures_before }
    }

    /// Takes what the run has counted by now.
    pub fn read(&self, run: &mut Run, now: Tick) {
        let (succeeded, failed) = run.counts();
        let (rows_total, total_known) = run.extent();
        let outlook =
            Outlook { left: rows_total.saturating_sub(succeeded + failed), total_known, ramps_up: run.ramps_up(now) };
        let at_once = run.at_once(now);
        let mut inner = self.meters.lock();
        let Some(running) = inner.running.get_mut(&self.id) else { return };
        running.totals.figures = run.figures().since(&self.figures_before);
        running.totals.succeeded = succeeded - self.results_before.0;
        running.totals.failed = failed - self.results_before.1;
        running.counted.clone_from(run.counted_durable());
        running.results = succeeded + failed;
        running.depths = run.depths();
        running.at_once = at_once;
        running.outlook = outlook;
        running.speed.sample(now, succeeded + failed);
    }

    /// What a note has become durable of.
    pub fn noted(&self, noted: Counted) {
        if let Some(running) = self.meters.lock().running.get_mut(&self.id) {
            running.noted = noted;
        }
    }
}

/// What is to be noted of a run beside its log: all that it has counted, but tasks that it may repeat after a crash.
pub(super) fn to_be_noted(run: &Run, now: Tick) -> Counted {
    let mut figures = run.figures();
    figures.tasks.clone_from(&run.counted_durable().figures.tasks);
    Counted { active_ms: run.active_ms(now), figures }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let mut inner = self.meters.lock();
        if let Some(running) = inner.running.remove(&self.id) {
            inner.over.merge(&running.totals);
        }
    }
}

/// [`Figures`] at rest, some kilobytes at most: buckets that nothing is in are left out. A member that is not there is zero.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AtRest {
    /// By name, in one order, so that one course of events keeps the same. A name of a later version is passed over.
    calls: BTreeMap<String, u64>,
    answers: BTreeMap<String, u64>,
    retries: u64,
    tasks: TimesAtRest,
    attempts: TimesAtRest,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold_starts: Option<TimesAtRest>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TimesAtRest {
    /// Buckets and their counts.
    counts: Vec<(usize, u64)>,
    sum_us: u64,
    max_us: u64,
}

impl From<&Histogram> for TimesAtRest {
    fn from(times: &Histogram) -> Self {
        Self { counts: times.filled().collect(), sum_us: times.sum_us(), max_us: times.max_us() }
    }
}

impl From<TimesAtRest> for Histogram {
    fn from(kept: TimesAtRest) -> Self {
        Histogram::sparse(kept.counts, kept.sum_us, kept.max_us)
    }
}

/// What is kept of a job's figures over its runs, and after its end, as JSON.
pub(super) fn to_json(figures: &Figures) -> String {
    let named = |counts: &[(&str, u64)]| {
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let at_rest = AtRest {
        calls: named(&Call::ALL.map(|call| (call.name(), figures.calls(call)))),
        answers: named(&ResultCode::ALL.map(|code| (code.name(), figures.answers(code)))),
        retries: figures.retries,
        tasks: (&figures.tasks).into(),
        attempts: (&figures.attempts).into(),
        cold_starts: (figures.cold_starts.count() > 0).then(|| (&figures.cold_starts).into()),
    };
    serde_json::to_string(&at_rest).expect("text, numbers and lists always serialise")
}

/// Reads what [`to_json`] has made, or an earlier version.
pub(super) fn from_json(text: &str) -> Result<Figures, StoreError> {
    let at_rest: AtRest =
        serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("a job's figures: {e}")))?;
    let mut figures = Figures::default();
    figures.retries = at_rest.retries;
    figures.tasks = at_rest.tasks.into();
    figures.attempts = at_rest.attempts.into();
    figures.cold_starts = at_rest.cold_starts.map(Into::into).unwrap_or_default();
    for call in Call::ALL {
        figures.add_calls(call, at_rest.calls.get(call.name()).copied().unwrap_or_default());
    }
    for code in ResultCode::ALL {
        figures.add_answers(code, at_rest.answers.get(code.name()).copied().unwrap_or_default());
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_what_an_older_version_kept_reads_as_far_as_it_goes() {
        let mut kept = Figures::default();
        assert_eq!(from_json(&to_json(&kept)).unwrap(), kept);
        for n in 0..100 {
            kept.answered(if n % 10 == 0 { Call::Throttled } else { Call::Succeeded }, Some(n * n));
            kept.settled(Some(n * 1_000));
        }
        kept.cold_starts.add(77_000);
        kept.add_answers(ResultCode::TemporaryFailure, 9);
        kept.retries = 8;
        let text = to_json(&kept);
        assert_eq!(from_json(&text).unwrap(), kept);
        assert!(text.len() < 2_000, "{} bytes", text.len());
        assert_eq!(from_json("{}").unwrap(), Figures::default());
        let newer = from_json(r#"{"calls": {"succeeded": 2, "mistaken": 9}, "weather": "fine"}"#).unwrap();
        assert_eq!(newer.calls(Call::Succeeded), 2);
        assert!(matches!(from_json("7"), Err(StoreError::Damaged(_))));
    }
}
