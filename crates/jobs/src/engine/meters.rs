//! What the engine counts of jobs: each run in figures of its own, which are looked at with each tick of its loop, so that
//! nothing is locked or shared where tasks go by.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_core::figures::{Call, Figures};
use longshore_core::histogram::Histogram;
use longshore_core::run::{Depths, Run};
use longshore_core::speed::{Outlook, Speed, Unknown};
use longshore_core::time::Tick;
use longshore_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::ports::Invoker;

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
    /// Of the job's earlier runs.
    before: KeptFigures,
    totals: Totals,
    depths: Depths,
    speed: Speed,
    outlook: Outlook,
    /// The function's cold starts when the run began.
    cold_before: Histogram,
}

/// What is kept of a job's figures over its runs, and after its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeptFigures {
    pub figures: Figures,
    /// Cold starts of its function while it ran; none where nobody counts them, elsewhere.
    pub cold_starts: Option<Histogram>,
}

/// How a job goes that runs.
#[derive(Debug, Clone)]
pub struct Going {
    pub depths: Depths,
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

    /// Of one job that runs: all that its runs have counted, and how it goes.
    pub fn of(&self, id: &str, cold_starts: Option<Histogram>) -> Option<(KeptFigures, Going)> {
        let inner = self.lock();
        let running = inner.running.get(id)?;
        let left_ms = running.speed.left_ms(running.outlook);
        let going = Going { depths: running.depths, per_second: running.speed.per_second(), left_ms };
        Some((running.kept(cold_starts), going))
    }
}

impl Running {
    fn kept(&self, cold_starts: Option<Histogram>) -> KeptFigures {
        let mut kept = self.before.clone();
        kept.figures.merge(&self.totals.figures);
        if let Some(cold_starts) = cold_starts {
            kept.cold_starts.get_or_insert_default().merge(&cold_starts.since(&self.cold_before));
        }
        kept
    }
}

/// The meter of one run. Dropped when that rests, however it does: what it counted stays in the totals.
pub(super) struct Meter {
    meters: Arc<Meters>,
    id: String,
    invoker: Arc<dyn Invoker>,
    function: String,
    /// Results that were there before the run.
    results_before: (u64, u64),
}

impl Meter {
    pub fn start(
        meters: &Arc<Meters>,
        id: &str,
        (invoker, function): (&Arc<dyn Invoker>, &str),
        before: KeptFigures,
        results_before: (u64, u64),
    ) -> Self {
        let running = Running {
            before,
            totals: Totals::default(),
            depths: Depths::default(),
            speed: Speed::default(),
            outlook: Outlook { left: 0, total_known: false, ramps_up: false },
            cold_before: invoker.cold_starts(function).unwrap_or_default(),
        };
        meters.lock().running.insert(id.to_owned(), running);
        Self {
            meters: Arc::clone(meters),
            id: id.to_owned(),
            invoker: Arc::clone(invoker),
            function: function.to_owned(),
            results_before,
        }
    }

    /// Takes what the run has counted by now.
    pub fn read(&self, run: &mut Run, now: Tick) {
        let (succeeded, failed) = run.counts();
        let (rows_total, total_known) = run.extent();
        let outlook =
            Outlook { left: rows_total.saturating_sub(succeeded + failed), total_known, ramps_up: run.ramps_up(now) };
        let mut inner = self.meters.lock();
        let Some(running) = inner.running.get_mut(&self.id) else { return };
        running.totals.figures.clone_from(run.figures());
        running.totals.succeeded = succeeded - self.results_before.0;
        running.totals.failed = failed - self.results_before.1;
        running.depths = run.depths();
        running.outlook = outlook;
        running.speed.sample(now, succeeded + failed);
    }

    /// What is to be kept of the job, as JSON.
    pub fn kept(&self) -> Option<String> {
        let cold_starts = self.invoker.cold_starts(&self.function);
        self.meters.of(&self.id, cold_starts).map(|(kept, _)| kept.to_json())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let mut inner = self.meters.lock();
        if let Some(running) = inner.running.remove(&self.id) {
            inner.over.merge(&running.totals);
        }
    }
}

/// [`KeptFigures`] at rest, some kilobytes at most: buckets that nothing is in are left out. A member that is not there is zero.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AtRest {
    /// By name, in one order, so that one course of events keeps the same. A name of a later version is passed over.
    calls: BTreeMap<String, u64>,
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

impl KeptFigures {
    pub fn to_json(&self) -> String {
        let called = |call: &Call| self.figures.calls(*call) > 0;
        let calls = Call::ALL.into_iter().filter(called);
        let at_rest = AtRest {
            calls: calls.map(|call| (call.name().to_owned(), self.figures.calls(call))).collect(),
            tasks: (&self.figures.tasks).into(),
            attempts: (&self.figures.attempts).into(),
            cold_starts: self.cold_starts.as_ref().map(Into::into),
        };
        serde_json::to_string(&at_rest).expect("text, numbers and lists always serialise")
    }

    pub fn from_json(text: &str) -> Result<Self, StoreError> {
        let at_rest: AtRest =
            serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("a job's figures: {e}")))?;
        let calls = Call::ALL.map(|call| at_rest.calls.get(call.name()).copied().unwrap_or_default());
        let figures = Figures::of(calls, at_rest.attempts.into(), at_rest.tasks.into());
        Ok(Self { figures, cold_starts: at_rest.cold_starts.map(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_what_an_older_version_kept_reads_as_far_as_it_goes() {
        let mut kept = KeptFigures::default();
        assert_eq!(KeptFigures::from_json(&kept.to_json()).unwrap(), kept);
        for n in 0..100 {
            kept.figures.answered(if n % 10 == 0 { Call::Throttled } else { Call::Succeeded }, Some(n * n));
            kept.figures.settled(Some(n * 1_000));
        }
        kept.cold_starts.get_or_insert_default().add(77_000);
        let text = kept.to_json();
        assert_eq!(KeptFigures::from_json(&text).unwrap(), kept);
        assert!(text.len() < 2_000, "{} bytes", text.len());
        assert_eq!(KeptFigures::from_json("{}").unwrap(), KeptFigures::default());
        let newer = KeptFigures::from_json(r#"{"calls": {"succeeded": 2, "mistaken": 9}, "weather": "fine"}"#).unwrap();
        assert_eq!(newer.figures.calls(Call::Succeeded), 2);
        assert!(matches!(KeptFigures::from_json("7"), Err(StoreError::Damaged(_))));
    }
}
