//! `longshore function stats`: how often functions were called since the server began, how long it took, how it failed.

use serde_json::Value;

use super::{needs_longshore, own_told, text};
use crate::failure::{Failure, OK, plain};
use crate::output::{self, out, time};
use crate::place::Place;

pub async fn print(place: &Place, function: Option<&str>, json: bool) -> Result<u8, Failure> {
    needs_longshore(place, "figures are kept", "look for the metrics of AWS/Lambda in CloudWatch").await?;
    let found = match function {
        Some(function) => place.client.function_stats(function).await,
        None => place.client.functions_stats().await,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return Err(own_told(place, function.unwrap_or_default(), error).await),
    };
    if json {
        output::json(&found);
        return Ok(OK);
    }
    if function.is_some() {
        out(&description(&found));
        return Ok(OK);
    }
    let functions = found.get("functions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if functions.is_empty() {
        eprintln!("there are no functions");
        return Ok(OK);
    }
    eprintln!("since {}", time(text(&found, "since")));
    let rows: Vec<[String; 9]> = functions.iter().map(row).collect();
    let heading = ["NAME", "INVOCATIONS", "ERRORS", "TIMEOUTS", "THROTTLES", "P50", "P99", "COLD STARTS", "NOW"];
    out(&output::table(heading, &rows, |_, cell| cell.to_owned()));
    Ok(OK)
}

fn row(stats: &Value) -> [String; 9] {
    let count = |member: &str| number(stats, member).to_string();
    [
        plain(text(stats, "functionName")),
        count("invocations"),
        count("errors"),
        count("timeouts"),
        count("throttles"),
        ms(stats, "/duration/p50Ms"),
        ms(stats, "/duration/p99Ms"),
        count("coldStarts"),
        now(stats),
    ]
}

fn number(stats: &Value, member: &str) -> u64 {
    stats.get(member).and_then(Value::as_u64).unwrap_or(0)
}

fn ms(stats: &Value, pointer: &str) -> String {
    match stats.pointer(pointer).and_then(Value::as_f64) {
        Some(ms) if ms >= 10_000.0 => format!("{:.1} s", ms / 1_000.0),
        Some(ms) if ms >= 100.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{ms:.2} ms"),
        None => "-".into(),
    }
}

/// What is there at the moment: `2 in flight, 1 idle`.
fn now(stats: &Value) -> String {
    let kinds = [("inFlight", "in flight"), ("idle", "idle"), ("starting", "starting"), ("waiting", "waiting")];
    let said: Vec<String> = kinds
        .iter()
        .filter(|(member, _)| number(stats, member) > 0)
        .map(|(member, name)| format!("{} {name}", number(stats, member)))
        .collect();
    if said.is_empty() { "-".into() } else { said.join(", ") }
}

fn description(stats: &Value) -> String {
    let times = |member: &str| {
        let of = |quantile: &str| ms(stats, &format!("/{member}/{quantile}Ms"));
        format!("p50 {}, p99 {}, longest {}", of("p50"), of("p99"), of("max"))
    };
    let parts = |member: &str| {
        let parts = stats.get(member).and_then(Value::as_object).into_iter().flatten();
        parts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    let with = |count: u64, more: String| {
        if more.is_empty() { count.to_string() } else { format!("{count} ({more})") }
    };
    let timed = |count: &str, member: &str| {
        let count = number(stats, count);
        if count == 0 { "0".to_owned() } else { format!("{count}, {}", times(member)) }
    };
    let mut lines = vec![
        ("Function", text(stats, "functionName").to_owned()),
        ("Since", time(text(stats, "since"))),
        ("Invocations", timed("invocations", "duration")),
        ("Errors", with(number(stats, "errors"), parts("errorsByType"))),
        ("Timeouts", number(stats, "timeouts").to_string()),
        ("Throttles", with(number(stats, "throttles"), parts("throttlesByReason"))),
        ("Cold starts", timed("coldStarts", "initDuration")),
        ("Now", now(stats)),
    ];
    let dropped = number(stats, "eventsDropped");
    if dropped > 0 {
        lines.push(("Dropped", format!("{} events", with(dropped, parts("eventsDroppedByReason")))));
    }
    let memory = number(stats, "maxMemoryUsedMB");
    if memory > 0 {
        lines.push(("Memory", format!("{memory} MB used at most")));
    }
    lines.iter().map(|(name, value)| format!("{name:<13}{}\n", plain(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_told_in_lines_and_in_a_row() {
        let stats = json!({
            "functionName": "f", "since": "2026-01-31T10:00:00.000Z", "invocations": 12, "errors": 3, "timeouts": 1,
            "duration": {"p50Ms": 1.5, "p99Ms": 250.4, "maxMs": 12_345.0}, "throttles": 2, "coldStarts": 1,
            "errorsByType": {"Function.Broken": 1, "Runtime.ExitError": 2}, "throttlesByReason": {"Reason": 2},
            "initDuration": {"p50Ms": 90.0, "p99Ms": 90.0, "maxMs": 90.0}, "maxMemoryUsedMB": 40,
            "inFlight": 0, "idle": 1, "starting": 0, "waiting": 4,
        });
        let said = description(&stats);
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            [
                "Function     f",
                "Since        2026-01-31 10:00:00Z",
                "Invocations  12, p50 1.50 ms, p99 250 ms, longest 12.3 s",
                "Errors       3 (1 Function.Broken, 2 Runtime.ExitError)",
                "Timeouts     1",
                "Throttles    2 (2 Reason)",
                "Cold starts  1, p50 90.00 ms, p99 90.00 ms, longest 90.00 ms",
                "Now          1 idle, 4 waiting",
                "Memory       40 MB used at most",
            ]
        );
        assert_eq!(row(&stats), ["f", "12", "3", "1", "2", "1.50 ms", "250 ms", "1", "1 idle, 4 waiting"]);
        let none = json!({"functionName": "g", "duration": {"p50Ms": null}});
        assert_eq!(row(&none), ["g", "0", "0", "0", "0", "-", "-", "0", "-"]);
        assert!(description(&none).contains("Invocations  0\n"));
    }
}
