//! How a job goes and how long its tasks took, as a Longshore tells it; elsewhere nobody does.
//!
//! The answer is `{"tasksPerSecond": {"now", "mean"}, "secondsLeft", "secondsLeftUnknown", "tasks", "invocations",
//! "taskDuration": {"count", "p50Ms", "p90Ms", "p99Ms", "maxMs"}, "attemptDuration", "coldStartDuration"}` and some more;
//! docs/metrics.md explains every member.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::failure::plain;
use crate::progress::{Going, duration};

/// Between two questions of a watch: the answer is about the last ten seconds.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a watch does without its other news for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// What a Longshore tells of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures(pub Value);

/// Asks. `None` where the endpoint is no Longshore, or one that keeps no figures yet.
pub async fn ask(client: &Client, id: &str) -> Result<Option<Figures>, ClientError> {
    if !client.is_longshore().await? {
        return Ok(None);
    }
    match client.job_figures(id).await {
        Ok(figures) => Ok(Some(Figures(figures))),
        Err(ClientError::Refused { status, code, .. }) if status.as_u16() == 404 && code != "NoSuchJob" => Ok(None),
        Err(error) => Err(error),
    }
}

impl Figures {
    fn number(&self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer).and_then(Value::as_f64)
    }

    /// For a bar. A job that does not run makes no results, and has no end that could be told.
    pub fn going(&self) -> Going {
        let per_second = self.number("/tasksPerSecond/now").unwrap_or(0.0);
        let left = self.number("/secondsLeft").map(|seconds| Duration::from_secs(seconds as u64));
        Going { per_second, left, why_unknown: why(self.0.get("secondsLeftUnknown").and_then(Value::as_str)) }
    }

    fn runs(&self) -> bool {
        self.number("/tasksPerSecond/now").is_some()
    }

    /// Names and texts: how fast it goes, what is left, and how long tasks, attempts and cold starts took.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        let rate = |pointer| self.number(pointer).map(|rate| format!("{rate:.1}"));
        let now = rate("/tasksPerSecond/now").map(|now| format!("{now} tasks a second now"));
        let mean = rate("/tasksPerSecond/mean").map(|mean| format!("{mean} on average"));
        let speed: Vec<String> = now.into_iter().chain(mean).collect();
        if !speed.is_empty() {
            told.push(("Speed", speed.join(", ")));
        }
        if self.runs() {
            let going = self.going();
            told.push(("Left", going.left.map_or_else(|| format!("unknown: {}", going.why_unknown), duration)));
        }
        if let (Some(running), Some(max)) = (self.number("/tasks/inFlight"), self.number("/atOnce/max")) {
            let limit = match self.0.pointer("/atOnce/limitedBy").and_then(Value::as_str) {
                Some("ramp-up") => "what the ramp-up allows by now",
                _ => "what the function and environments_max or concurrency_max allow",
            };
            told.push(("At once", format!("{running} of {max}: {limit}")));
        }
        let answers: Vec<String> = ["Succeeded", "TemporaryFailure", "PermanentFailure"]
            .into_iter()
            .filter_map(|code| Some((self.number(&format!("/answers/{code}"))?, code)))
            .filter(|(count, _)| *count > 0.0)
            .map(|(count, code)| format!("{count} × {code}"))
            .collect();
        if !answers.is_empty() {
            told.push(("Answers", answers.join(", ")));
        }
        if let Some(retries) = self.number("/retries").filter(|retries| *retries > 0.0) {
            told.push(("Retries", retries.to_string()));
        }
        for (name, member) in
            [("Tasks took", "taskDuration"), ("Attempts", "attemptDuration"), ("Cold start", "coldStartDuration")]
        {
            if self.number(&format!("/{member}/count")).is_some_and(|count| count > 0.0) {
                told.push((name, self.times(member)));
            }
        }
        told
    }

    fn times(&self, member: &str) -> String {
        let of = |name: &str| self.number(&format!("/{member}/{name}Ms")).map_or_else(|| "-".into(), ms);
        let count = self.number(&format!("/{member}/count")).unwrap_or(0.0);
        format!("p50 {}, p90 {}, p99 {}, longest {} ({count})", of("p50"), of("p90"), of("p99"), of("max"))
    }
}

fn ms(ms: f64) -> String {
    match ms {
        ms if ms >= 600_000.0 => duration(Duration::from_millis(ms as u64)),
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1_000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 1.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

/// Why nobody knows what is left; a reason of a later version stands as it is.
fn why(reason: Option<&str>) -> String {
    match reason {
        None => String::new(),
        Some("ramping-up") => "more tasks at once soon".into(),
        Some("total-unknown") => "how many tasks there are is not known yet".into(),
        Some("too-early") => "it has not run for long enough yet".into(),
        Some("too-few-results") => "too few results yet".into(),
        Some("not-running") => "it does not run".into(),
        Some(other) => plain(other),
    }
}

/// What a watch knows of a job's figures.
#[derive(Debug, Default)]
pub struct Watched {
    asked: Option<Instant>,
}

impl Watched {
    /// How the job goes now, asked once a second; `None` where there is nothing new, or no answer.
    pub async fn news(&mut self, client: &Client, id: &str) -> Option<Figures> {
        if self.asked.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return None;
        }
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, ask(client, id)).await;
        self.asked = Some(Instant::now());
        answer.ok()?.ok()?
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_told_as_far_as_they_are_known() {
        let times =
            |count: u64| json!({"count": count, "p50Ms": 0.25, "p90Ms": 12.34, "p99Ms": 250.4, "maxMs": 700_000.0});
        let mut figures = Figures(json!({
            "tasksPerSecond": {"now": 120.04, "mean": 99.0}, "secondsLeft": 75, "secondsLeftUnknown": null,
            "taskDuration": times(7), "attemptDuration": times(9),
            "coldStartDuration": {"count": 0, "p50Ms": null, "p90Ms": null, "p99Ms": null, "maxMs": null},
        }));
        assert_eq!(
            figures.told(),
            [
                ("Speed", "120.0 tasks a second now, 99.0 on average".to_owned()),
                ("Left", "1 min 15 s".into()),
                ("Tasks took", "p50 0.25 ms, p90 12.3 ms, p99 250 ms, longest 11 min 40 s (7)".into()),
                ("Attempts", "p50 0.25 ms, p90 12.3 ms, p99 250 ms, longest 11 min 40 s (9)".into()),
            ]
        );
        figures.0["secondsLeft"] = Value::Null;
        for (reason, said) in [("ramping-up", "unknown: more tasks at once soon"), ("a\u{1b}", "unknown: a\u{fffd}")] {
            figures.0["secondsLeftUnknown"] = reason.into();
            assert_eq!(figures.told()[1], ("Left", said.to_owned()));
        }
        let over = Figures(json!({"tasksPerSecond": {"now": null, "mean": 3.0}, "taskDuration": times(1)}));
        assert_eq!(over.told()[0], ("Speed", "3.0 on average".to_owned()));
        assert_eq!((over.told().len(), over.going().left), (2, None), "nothing of it runs");
        let retried = Figures(json!({
            "tasksPerSecond": {"now": 1.0}, "secondsLeftUnknown": "too-early", "tasks": {"inFlight": 7},
            "atOnce": {"max": 8, "limitedBy": "slots"}, "retries": 66,
            "answers": {"Succeeded": 284, "TemporaryFailure": 82, "PermanentFailure": 0},
        }));
        assert_eq!(
            retried.told()[1..],
            [
                ("Left", "unknown: it has not run for long enough yet".to_owned()),
                ("At once", "7 of 8: what the function and environments_max or concurrency_max allow".into()),
                ("Answers", "284 × Succeeded, 82 × TemporaryFailure".into()),
                ("Retries", "66".into()),
            ]
        );
        let mut ramping = retried.clone();
        ramping.0["atOnce"]["limitedBy"] = "ramp-up".into();
        assert_eq!(ramping.told()[2].1, "7 of 8: what the ramp-up allows by now");
    }
}
