use http::StatusCode;
use longshore_core::figures::{Call, Figures};
use longshore_core::histogram::Histogram;
use longshore_core::speed::Unknown;
use longshore_core::task::ResultCode;
use longshore_wire::{Call as Asked, Operation, Response, Route};
use serde_json::{Map, Value, json};

use super::asks::of_job;
use crate::Jobs;
use crate::engine::Going;
use crate::error::JobError;
use crate::ledger::JobRow;

/// Ours, not AWS's: how fast a job goes, when it may be over, and how long its tasks and calls took.
pub const OPERATION: Operation<Jobs> = Operation {
    name: "JobFigures",
    route: Route("GET", "/_longshore/v1/jobs/{JobId}/figures"),
    spec: "docs/decisions/0033-metrics-are-signed-or-on-a-loopback-listener.md",
    asks: of_job!("s3:DescribeJob"),
    handle: |jobs, call| Box::pin(async move { jobs.told(job_figures(jobs, call).await) }),
};

/// JSON. Of a job that is over: what its runs have counted; of one that runs, how it goes besides.
async fn job_figures(jobs: &Jobs, call: Asked) -> Result<Response, JobError> {
    let job = jobs.engine.look(call.label("JobId")).await?.ok_or(JobError::NotFound)?;
    let (figures, going) = jobs.engine.figures(&job).await?;
    Ok(Response::json(StatusCode::OK, &document(&job, &figures, going.as_ref())))
}

fn document(job: &JobRow, figures: &Figures, going: Option<&Going>) -> Value {
    // Both of one moment: of the row, or of what the run had counted.
    let (results, active_ms) = match going {
        Some(going) => (going.results, going.active_ms),
        None => (job.succeeded + job.failed, job.active_ms),
    };
    let left = match going {
        Some(going) => going.left_ms,
        None => Err(Unknown::NotRunning),
    };
    let calls = Call::ALL.iter().map(|call| (call.name().to_owned(), figures.calls(*call).into()));
    let answers = ResultCode::ALL.iter().map(|code| (code.name().to_owned(), figures.answers(*code).into()));
    // A mean over no time would be any number.
    let mean = (active_ms > 0).then(|| rounded(results as f64 * 1_000.0 / active_ms as f64));
    json!({
        "jobId": job.id,
        "status": job.status.name(),
        "tasksPerSecond": {
            "now": going.map(|going| rounded(going.per_second)),
            "mean": mean,
        },
        "secondsLeft": left.ok().map(|ms| ms.div_ceil(1_000)),
        "secondsLeftUnknown": left.err().map(Unknown::name),
        "tasks": going.map(|going| json!({
            "ready": going.depths.ready,
            "waiting": going.depths.waiting,
            "inFlight": going.depths.in_flight,
            "unrecorded": going.depths.unrecorded,
        })),
        "atOnce": going.map(|going| json!({
            "max": going.at_once.0,
            "limitedBy": if going.at_once.1 { "ramp-up" } else { "slots" },
        })),
        "invocations": Map::from_iter(calls),
        "answers": Map::from_iter(answers),
        "retries": figures.retries,
        "taskDuration": times(&figures.tasks),
        "attemptDuration": times(&figures.attempts),
        "coldStartDuration": times(&figures.cold_starts),
    })
}

/// In milliseconds; `null` where nothing was counted.
fn times(times: &Histogram) -> Value {
    let times = times.times();
    let ms = |micros: u64| if times.count == 0 { Value::Null } else { (micros as f64 / 1_000.0).into() };
    json!({
        "count": times.count, "p50Ms": ms(times.p50_us), "p90Ms": ms(times.p90_us), "p99Ms": ms(times.p99_us),
        "maxMs": ms(times.max_us),
    })
}

/// To a tenth.
fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
