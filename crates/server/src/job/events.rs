//! `longshore job events`: what happened to a job, as Longshore keeps it beside the API.
//!
//! A page is `{"events": [{"jobEventId", "eventName", "status", "time", "failureCodes", "statusChangeReason",
//! "deliveries", "document"}], "nextToken"}`, the oldest event first.

use std::collections::HashSet;
use std::time::Duration;

use longshore_core::job::Status;
use serde_json::Value;

use crate::client::ClientError;
use crate::failure::{Failure, plain};
use crate::output::{self, out};
use crate::place::{Place, told};

/// Between two looks for more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Prints the events. With `follow` it goes on until the job is over. As JSON: the whole list, or with `follow` an event
/// a line.
pub async fn print(place: &Place, id: &str, follow: bool, json: bool) -> Result<(), Failure> {
    if !place.client.is_longshore().await.map_err(told)? {
        return Err(Failure::new("events are kept by Longshore alone; AWS sends those of its jobs to EventBridge")
            .hint("make an EventBridge rule for the source aws.s3 and the events of CloudTrail"));
    }
    let mut reader = Reader::default();
    let mut all = Vec::new();
    let mut asked = false;
    loop {
        let page = match place.client.job_events(id, reader.token.as_deref()).await {
            // Whoever follows a job sees a restart through.
            Err(error @ ClientError::Broken(_)) if follow && asked => {
                eprintln!("{}, asking again", refused(error).message);
                tokio::time::sleep(LOOK_EVERY).await;
                place.look_again();
                continue;
            }
            page => page.map_err(refused)?,
        };
        asked = true;
        let (events, more) = reader.take(page)?;
        let over = events.iter().any(is_last);
        for event in events {
            if json && !follow {
                all.push(event);
            } else if json {
                out(&format!("{}\n", output::json_line(&event)));
            } else {
                out(&line(&event));
            }
        }
        if more {
            continue;
        }
        if !follow || over {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if json && !follow {
        output::json(&serde_json::json!({"events": all}));
    }
    Ok(())
}

fn refused(error: ClientError) -> Failure {
    match &error {
        ClientError::Refused { status, code, .. } if status.as_u16() == 404 && code != "NoSuchJob" => {
            Failure::new("this Longshore keeps no events yet").hint("a later version does")
        }
        _ => told(error),
    }
}

/// Where reading is: the last page is read again, for more may have come onto it.
#[derive(Default)]
struct Reader {
    token: Option<String>,
    /// The events of the page at `token` that were handed out. A page is at most a few hundred.
    seen: HashSet<String>,
}

impl Reader {
    /// The events of a page that were not handed out before, and whether there is another page.
    fn take(&mut self, mut page: Value) -> Result<(Vec<Value>, bool), Failure> {
        let Some(Value::Array(events)) = page.get_mut("events").map(Value::take) else {
            return Err(Failure::new("the answer has no list of events"));
        };
        let id = |event: &Value| event.get("jobEventId").map(ToString::to_string).unwrap_or_default();
        let new = events.into_iter().filter(|event| self.seen.insert(id(event))).collect();
        let next = page.get("nextToken").and_then(Value::as_str).map(str::to_owned);
        let more = next.is_some();
        if more {
            self.token = next;
            self.seen.clear();
        }
        Ok((new, more))
    }
}

/// Whether a job has no events after this one.
fn is_last(event: &Value) -> bool {
    let status = event.get("status").and_then(Value::as_str).and_then(Status::parse);
    status.is_some_and(Status::is_terminal)
}

/// An event on a line, and below it to whom it could not be delivered yet.
fn line(event: &Value) -> String {
    let text = |name| event.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut parts = vec![text("time"), text("eventName"), text("status")];
    for name in ["failureCodes", "statusChangeReason"] {
        let list = event.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        parts.push(list.join(", "));
    }
    parts.retain(|part| !part.is_empty());
    let mut out = format!("{}\n", plain(&parts.join("  ")));
    let deliveries = event.get("deliveries").and_then(Value::as_array).into_iter().flatten();
    for delivery in deliveries.filter(|d| d.get("delivered") != Some(&Value::Bool(true))) {
        let told: Vec<String> = match delivery {
            Value::Object(members) => members.iter().filter_map(|(name, value)| member(name, value)).collect(),
            other => vec![other.to_string()],
        };
        out.push_str(&format!("    delivery: {}\n", plain(&told.join(" "))));
    }
    out
}

fn member(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name}={text}")),
        other => Some(format!("{name}={other}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_handed_out_once_though_the_last_page_is_read_again() {
        let event = |n: u32| json!({"jobEventId": n.to_string()});
        let mut reader = Reader::default();
        let first = json!({"events": [event(1), event(2)], "nextToken": "t"});
        assert_eq!(reader.take(first).unwrap(), (vec![event(1), event(2)], true));
        assert_eq!(reader.token.as_deref(), Some("t"));
        let last = json!({"events": [event(3)], "nextToken": null});
        assert_eq!(reader.take(last).unwrap(), (vec![event(3)], false));
        assert_eq!(reader.token.as_deref(), Some("t"), "the page is read again");
        let again = json!({"events": [event(3), event(4)]});
        assert_eq!(reader.take(again).unwrap(), (vec![event(4)], false));
        assert!(reader.take(json!({})).is_err());
    }

    #[test]
    fn an_event_is_a_line_that_cannot_steer_a_terminal() {
        let event = json!({
            "jobEventId": "1", "eventName": "JobStatusChanged", "status": "Failed", "time": "2026-01-31T10:00:00Z",
            "failureCodes": ["A", "B"], "statusChangeReason": ["no\u{1b}[2J"],
            "deliveries": [{"target": "webhook", "attempts": 2, "error": null}],
        });
        assert_eq!(
            line(&event),
            "2026-01-31T10:00:00Z  JobStatusChanged  Failed  A, B  no\u{fffd}[2J\n    delivery: attempts=2 target=webhook\n"
        );
        assert!(is_last(&event) && !is_last(&json!({"status": "Active"})));
    }
}
