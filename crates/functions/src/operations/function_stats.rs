//! What was counted of functions since the server began. Operations of our own: AWS has CloudWatch for it, which is not here.

use http::StatusCode;
use longshore_core::histogram::Histogram;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::{Value, json};

use super::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::host::figures::FunctionStats;
use crate::operations::{Page, answered};

pub const OF_ONE: Operation<Functions> = Operation {
    name: "FunctionStats",
    route: Route("GET", "/_longshore/v1/functions/{FunctionName}/stats"),
    spec: "docs/decisions/0025-logs-and-figures-of-functions-below-our-own-path.md",
    asks: |functions, call| Box::pin(async move { asks::anywhere(functions, call, "cloudwatch:GetMetricData") }),
    handle: |functions, call| answered(of_one(functions, call)),
};

pub const OF_ALL: Operation<Functions> = Operation {
    name: "FunctionsStats",
    route: Route("GET", "/_longshore/v1/functions/stats"),
    spec: "docs/decisions/0025-logs-and-figures-of-functions-below-our-own-path.md",
    asks: |functions, call| Box::pin(async move { asks::anywhere(functions, call, "cloudwatch:GetMetricData") }),
    handle: |functions, call| answered(of_all(functions, call)),
};

/// Shows the figures of one function.
async fn of_one(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "GetFunctionStats")?;
    if functions.inner.catalogue.get(&named.name).await?.is_none() {
        return Err(functions.not_found(&named));
    }
    let stats = functions.inner.environments.stats().remove(&named.name).unwrap_or_default();
    let mut shown = shown(&named.name, &stats);
    shown["since"] = since(functions);
    Ok(Response::json(StatusCode::OK, &shown))
}

/// Shows the figures of all functions that there are, by name, in pages like those of ListFunctions (`Marker`, `MaxItems`).
async fn of_all(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let page = Page::read(&call.request.query)?;
    let stats = functions.inner.environments.stats();
    let none = FunctionStats::default();
    let snapshot = functions.inner.catalogue.snapshot();
    let listed = snapshot.keys().map(|name| (name.clone(), || shown(name, stats.get(name).unwrap_or(&none))));
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"since": since(functions), "functions": shapes});
    if let Some(next) = next {
        answer["nextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}

fn since(functions: &Functions) -> Value {
    let since = jiff::Timestamp::from_millisecond(functions.inner.environments.counted_since_ms());
    format!("{:.3}", since.unwrap_or_default()).into()
}

fn shown(name: &str, stats: &FunctionStats) -> Value {
    let errors: u64 = stats.errors.values().sum();
    let throttles: u64 = stats.throttles.values().sum();
    json!({
        "functionName": name,
        "invocations": stats.durations.count(),
        "duration": times(&stats.durations),
        "errors": errors,
        "errorsByType": stats.errors,
        "timeouts": stats.timeouts,
        "throttles": throttles,
        "throttlesByReason": stats.throttles,
        "eventsDropped": stats.events_dropped.values().sum::<u64>(),
        "eventsDroppedByReason": stats.events_dropped,
        "coldStarts": stats.starts.count(),
        "initDuration": times(&stats.starts),
        "maxMemoryUsedMB": stats.memory_used_max_mib,
        "inFlight": stats.in_flight,
        "idle": stats.idle,
        "frozen": stats.frozen,
        "starting": stats.starting,
        "waiting": stats.waiting,
    })
}

/// In milliseconds; `null` where nothing was counted.
fn times(histogram: &Histogram) -> Value {
    let times = histogram.times();
    let ms = |micros: u64| if times.count == 0 { Value::Null } else { (micros as f64 / 1_000.0).into() };
    json!({"p50Ms": ms(times.p50_us), "p90Ms": ms(times.p90_us), "p99Ms": ms(times.p99_us), "maxMs": ms(times.max_us)})
}
