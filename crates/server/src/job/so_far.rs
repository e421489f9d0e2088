//! What has failed so far in a job that is not over, as a Longshore groups it; elsewhere only the report tells.
//!
//! The answer is `{"failureGroups": [{"numberOfTasks", "httpStatusCode", "errorCode", "resultMessage", "example": {"key"}}],
//! "numberOfTasksFailed", "numberOfTasksInNoGroup"}` and some more, the largest group first.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::ClientError;
use crate::failure::plain;
use crate::place::Place;
use crate::report::decoded;

/// Groups shown. The server keeps up to a hundred.
const GROUPS_SHOWN: usize = 10;
/// Characters of a message: a few lines of a terminal.
const MESSAGE_MAX: usize = 400;
/// Between two questions of a watch: each costs the server a look at what it has written since.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a watch does without its other news for an answer. The first one about a large job may take longer; the server
/// goes on with it, and the next question finds it done.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    tasks: u64,
    code: String,
    message: String,
    key: String,
}

/// The failures that a job has by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SoFar {
    failed: u64,
    groups: Vec<Group>,
    /// Failures in no group.
    others: u64,
}

/// Asks. `None` where the endpoint is no Longshore.
pub async fn ask(place: &Place, id: &str) -> Result<Option<SoFar>, ClientError> {
    if !place.client.is_longshore().await? {
        return Ok(None);
    }
    Ok(Some(SoFar::of(&place.client.job_results(id).await?)))
}

impl SoFar {
    fn of(answer: &Value) -> Self {
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let group = |group: &Value| {
            let text = |pointer: &str| group.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
            let code = match text("/errorCode") {
                none if none.is_empty() => format!("HTTP {}", number(group, "httpStatusCode")),
                code => code,
            };
            let (message, key) = (text("/resultMessage"), text("/example/key"));
            Group { tasks: number(group, "numberOfTasks"), code, message, key }
        };
        let groups = answer.get("failureGroups").and_then(Value::as_array).into_iter().flatten().map(group).collect();
        Self { failed: number(answer, "numberOfTasksFailed"), groups, others: number(answer, "numberOfTasksInNoGroup") }
    }

    /// Lines to print, the most frequent failure first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.groups.iter().take(GROUPS_SHOWN).map(Group::line).collect();
        let hidden = self.groups.iter().skip(GROUPS_SHOWN).map(|group| group.tasks).sum::<u64>() + self.others;
        if hidden > 0 {
            lines.push(format!("{hidden:>8} × other failures"));
        }
        lines
    }

    /// As `longshore job failures --json` has them once there is a report.
    pub fn json(&self, id: &str) -> Value {
        let mut groups: Vec<Value> = self
            .groups
            .iter()
            .map(|g| serde_json::json!({"ErrorCode": g.code, "Message": g.message, "Count": g.tasks, "Keys": [g.key]}))
            .collect();
        if self.others > 0 {
            groups.push(serde_json::json!({"ErrorCode": null, "Message": null, "Count": self.others, "Keys": []}));
        }
        serde_json::json!({"JobId": id, "Failed": self.failed, "Failures": groups})
    }
}

impl Group {
    fn line(&self) -> String {
        let mut message: String = plain(&self.message);
        if message.chars().count() > MESSAGE_MAX {
            message = message.chars().take(MESSAGE_MAX).chain(['…']).collect();
        }
        let colon = if message.is_empty() { "" } else { ": " };
        format!(
            "{:>8} × {}{colon}{message}  (for example {})",
            self.tasks,
            plain(&self.code),
            plain(&decoded(&self.key))
        )
    }
}

/// What a watch has told of a job's failures.
#[derive(Debug, Default)]
pub struct Watched {
    asked: Option<Instant>,
    /// Failures when it was asked last.
    failed: u64,
    /// Code and message of groups that were told; [`GROUPS_SHOWN`] at most.
    told: HashSet<(String, String)>,
    said_more: bool,
}

impl Watched {
    /// Whether there is something to ask: failures that are new, and not right after the last time.
    fn is_due(&self, failed: u64, now: Instant) -> bool {
        failed > self.failed && self.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY)
    }

    /// A line for each failure of a kind that was not there before; none where there is nothing to ask, or no answer. What
    /// is told too late or never is in the report.
    pub async fn news(&mut self, place: &Place, id: &str, failed: u64) -> Vec<String> {
        if !self.is_due(failed, Instant::now()) {
            return Vec::new();
        }
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, ask(place, id)).await;
        self.asked = Some(Instant::now());
        match answer {
            Ok(Ok(Some(so_far))) => {
                self.failed = failed;
                self.new_in(&so_far, &format!("longshore job failures {id}{}", place.flags))
            }
            _ => Vec::new(),
        }
    }

    fn new_in(&mut self, so_far: &SoFar, command: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for group in &so_far.groups {
            let kind = (group.code.clone(), group.message.clone());
            if self.told.contains(&kind) {
                continue;
            }
            if self.told.len() < GROUPS_SHOWN {
                lines.push(group.line());
                self.told.insert(kind);
            } else if !std::mem::replace(&mut self.said_more, true) {
                lines.push(format!("there are more kinds of failure: {command}"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn so_far(kinds: &[(&str, u64)]) -> SoFar {
        let groups: Vec<Value> = kinds
            .iter()
            .map(|(message, tasks)| {
                serde_json::json!({"numberOfTasks": tasks, "httpStatusCode": 404, "errorCode": "", "resultMessage": message,
                    "example": {"bucket": "b", "key": "a%20k\u{1b}", "versionId": null}})
            })
            .collect();
        SoFar::of(&serde_json::json!({"failureGroups": groups, "numberOfTasksFailed": 9, "numberOfTasksInNoGroup": 3}))
    }

    #[test]
    fn an_answer_is_read_shown_and_told_in_the_form_of_the_report() {
        let found = so_far(&[("no\u{1b}[2J", 5), ("", 1)]);
        assert_eq!(
            found.lines(),
            [
                "       5 × HTTP 404: no\u{fffd}[2J  (for example a k\u{fffd})",
                "       1 × HTTP 404  (for example a k\u{fffd})",
                "       3 × other failures",
            ]
        );
        let json = found.json("j");
        assert_eq!((&json["JobId"], &json["Failed"]), (&"j".into(), &9.into()));
        assert_eq!(json["Failures"][0]["Count"], 5);
        assert_eq!(
            json["Failures"][2],
            serde_json::json!({"ErrorCode": null, "Message": null, "Count": 3, "Keys": []})
        );
        assert!(so_far(&[(&"x".repeat(500), 1)]).lines()[0].contains(&format!(": {}…  (", "x".repeat(400))));
        assert_eq!(SoFar::of(&Value::Null), SoFar::default());
    }

    #[test]
    fn a_watch_tells_each_kind_once_and_no_more_than_fit() {
        let mut watched = Watched::default();
        assert_eq!(watched.new_in(&so_far(&[("a", 1)]), "c").len(), 1);
        let second = watched.new_in(&so_far(&[("b", 3), ("a", 2)]), "c");
        assert!(second.len() == 1 && second[0].contains("3 × HTTP 404: b"), "{second:?}");
        let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let many: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let more = watched.new_in(&so_far(&many), "the command");
        assert_eq!(more.len(), GROUPS_SHOWN - 2 + 1);
        assert_eq!(more.last().unwrap(), "there are more kinds of failure: the command");
        assert!(watched.new_in(&so_far(&many), "the command").is_empty());
    }

    #[test]
    fn a_watch_asks_when_more_has_failed_and_not_at_every_look() {
        let now = Instant::now();
        let new = Watched::default();
        assert!(!new.is_due(0, now) && new.is_due(1, now), "the first failure is told at once");
        let asked = Watched { asked: Some(now), failed: 1, ..Watched::default() };
        assert!(!asked.is_due(2, now + ASK_EVERY / 2) && asked.is_due(2, now + ASK_EVERY));
        assert!(!asked.is_due(1, now + ASK_EVERY), "nothing new has failed");
    }
}
