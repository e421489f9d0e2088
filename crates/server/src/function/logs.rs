//! `longshore function logs`: what a function printed, from the server that ran it.
//!
//! A page is `{"lines": [{"time", "text"}], "nextToken", "isTruncated", "linesMissed"}`, the oldest line first.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::{needs_longshore, own_told, text};
use crate::cli::FunctionLogs;
use crate::client::ClientError;
use crate::failure::{Failure, OK};
use crate::output::{self, escaped, out_bytes};
use crate::place::Place;

/// Between two looks for more: at a server on this machine, and elsewhere.
const LOOK_EVERY_NEAR: Duration = Duration::from_millis(200);
const LOOK_EVERY_FAR: Duration = Duration::from_secs(1);
/// Invocations whose end has not been seen, at most: beyond, some must have lost it (lines may be dropped), and all are
/// forgotten.
const OPEN_MAX: usize = 10_000;

pub async fn print(args: FunctionLogs, place: &Place, json: bool) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(|text| since(text, jiff::Timestamp::now())).transpose()?;
    needs_longshore(place, "logs are kept", &format!("aws logs tail /aws/lambda/{}", super::bare(&args.function)))
        .await?;
    let mut query: Vec<(&str, String)> = Vec::new();
    if let Some(since) = since {
        query.push(("since", since.to_string()));
    }
    let mut filter = args.request_id.clone().map(Filter::new);
    // The last lines of one invocation are counted here, where it is known which they are.
    let last_wanted = if filter.is_some() { args.tail } else { None };
    if let (None, Some(tail)) = (&filter, args.tail) {
        query.push(("tail", tail.to_string()));
    }
    let mut last: VecDeque<Value> = VecDeque::new();
    let mut printer = Printer { json, follow: args.follow, all: Vec::new() };
    let mut asked = false;
    let mut told_mixed = false;
    loop {
        let mut page = match place.client.function_logs(&args.function, &query).await {
            Ok(page) => page,
            // Whoever follows a log sees a restart through.
            Err(error @ ClientError::Broken(_)) if args.follow && asked => {
                eprintln!("{}, asking again", own_told(place, &args.function, error).await.message);
                tokio::time::sleep(LOOK_EVERY_FAR).await;
                place.look_again();
                continue;
            }
            Err(error) => return Err(own_told(place, &args.function, error).await),
        };
        let Some(Value::Array(mut lines)) = page.get_mut("lines").map(Value::take) else {
            return Err(Failure::new("the answer has no list of lines"));
        };
        if page.get("linesMissed") == Some(&Value::Bool(true)) {
            eprintln!("some lines are missing here: they came faster than they were read, and are no longer kept");
        }
        if let Some(filter) = &mut filter {
            lines.retain(|line| filter.takes(text(line, "text")));
            if filter.mixed && !told_mixed {
                told_mixed = true;
                eprintln!("other invocations ran at the same time: lines without a request ID may be theirs");
            }
        }
        let more = page.get("isTruncated") == Some(&Value::Bool(true));
        if let Some(wanted) = last_wanted.filter(|_| !asked || !last.is_empty() || more) {
            last.extend(lines.drain(..));
            last.drain(..last.len().saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX)));
            if !more {
                lines = last.drain(..).collect();
            }
        }
        if printer.print(lines).is_err() {
            return Ok(OK);
        }
        asked |= !more;
        query = vec![("nextToken", text(&page, "nextToken").to_owned())];
        if more {
            continue;
        }
        if !args.follow {
            printer.end();
            return Ok(OK);
        }
        tokio::time::sleep(if place.near { LOOK_EVERY_NEAR } else { LOOK_EVERY_FAR }).await;
    }
}

struct Printer {
    json: bool,
    follow: bool,
    /// For one document: a log has an end that is kept, 128 MB.
    all: Vec<Value>,
}

impl Printer {
    /// An error says that nobody reads any more (`| head`), which is an end like another.
    fn print(&mut self, lines: Vec<Value>) -> std::io::Result<()> {
        if self.json && !self.follow {
            self.all.extend(lines);
            return Ok(());
        }
        let mut shown = String::new();
        for line in &lines {
            if self.json {
                shown.push_str(&output::json_line(line));
            } else {
                shown.push_str(&escaped(text(line, "text")));
            }
            shown.push('\n');
        }
        if shown.is_empty() { Ok(()) } else { out_bytes(shown.as_bytes()) }
    }

    fn end(self) {
        if self.json && !self.follow {
            output::json(&json!({"lines": self.all}));
        }
    }
}

/// When: `10m` before `now`, or a time.
fn since(text: &str, now: jiff::Timestamp) -> Result<jiff::Timestamp, Failure> {
    let wrong =
        || Failure::usage(format!("--since {text} is no time: write 90s, 10m, 2h, 1d, or 2026-01-31T10:00:00Z"));
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count = &text[..text.len() - 1];
    let count: i64 = count.parse().ok().filter(|_| count.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
    let back = count.checked_mul(seconds).map(jiff::SignedDuration::from_secs).ok_or_else(wrong)?;
    now.checked_sub(back).map_err(|_| wrong())
}

/// Finds the lines of one invocation. Environments write into one log: between START and REPORT of an invocation stand
/// its own lines, and those of whatever runs at the same time.
struct Filter {
    /// Its ID, or the beginning of it.
    wanted: String,
    /// Invocations that have begun and not ended.
    open: HashSet<String>,
    /// Whether a line was taken that may be another's.
    mixed: bool,
}

impl Filter {
    fn new(wanted: String) -> Self {
        Self { wanted, open: HashSet::new(), mixed: false }
    }

    fn takes(&mut self, line: &str) -> bool {
        let mark = mark(line);
        match &mark {
            Some(("START", id)) => {
                if self.open.len() >= OPEN_MAX {
                    self.open.clear();
                }
                self.open.insert(id.clone());
            }
            Some(("REPORT", id)) => {
                self.open.remove(id);
            }
            _ => {}
        }
        if let Some((_, id)) = &mark {
            return id.starts_with(&self.wanted);
        }
        if line.contains(&self.wanted) {
            return true;
        }
        let begun = self.open.iter().any(|id| id.starts_with(&self.wanted));
        if !begun || self.open.iter().any(|other| line.contains(other.as_str())) {
            return false;
        }
        self.mixed |= self.open.len() > 1;
        true
    }
}

/// What a line of Lambda's own says of an invocation: `START`, `END` or `REPORT`, and which one; in text or in JSON.
fn mark(line: &str) -> Option<(&'static str, String)> {
    const WORDS: [(&str, &str); 3] =
        [("START", "platform.start"), ("END", "platform.runtimeDone"), ("REPORT", "platform.report")];
    if line.starts_with('{') && line.contains("\"platform.") {
        let event: Value = serde_json::from_str(line).ok()?;
        let (word, _) = WORDS.into_iter().find(|(_, kind)| *kind == text(&event, "type"))?;
        return Some((word, event.pointer("/record/requestId")?.as_str()?.to_owned()));
    }
    let (said, rest) = line.split_once(" RequestId: ")?;
    let (word, _) = WORDS.into_iter().find(|(word, _)| *word == said)?;
    Some((word, rest.split([' ', '\t']).next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_or_counted_back_from_now() {
        let now: jiff::Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
        let of = |text: &str| since(text, now).map(|time| time.to_string()).map_err(|failure| failure.status);
        for (text, wanted) in [
            ("90s", "2026-01-31T09:58:30Z"),
            ("10m", "2026-01-31T09:50:00Z"),
            ("2h", "2026-01-31T08:00:00Z"),
            ("1d", "2026-01-30T10:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in ["", "m", "10", "-1m", "+1m", "10w", "1.5h", "ü", "9999999999999999999d", "99999999999d"] {
            assert_eq!(of(text), Err(crate::failure::USAGE), "{text}");
        }
    }

    #[test]
    fn the_lines_of_one_invocation_are_found_and_it_is_said_where_they_may_be_anothers() {
        let lines = [
            "loading",
            "START RequestId: a Version: $LATEST",
            "of a",
            "END RequestId: a",
            "REPORT RequestId: a\tDuration: 1 ms",
            "START RequestId: bbbb Version: $LATEST",
            "of b",
            "END RequestId: bbbb",
            "REPORT RequestId: bbbb\tDuration: 1 ms",
            "2026-01-31T10:00:00Z bbbb late",
        ];
        let taken = |id: &str, lines: &[&str]| {
            let mut filter = Filter::new(id.to_owned());
            let taken: Vec<String> = lines.iter().filter(|line| filter.takes(line)).map(|l| (*l).to_owned()).collect();
            (taken, filter.mixed)
        };
        let (of_b, mixed) = taken("bbbb", &lines);
        assert_eq!(
            (of_b.as_slice(), mixed),
            (&lines[5..].iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()[..], false)
        );
        let of_all_b = of_b;
        let side_by_side = [
            "START RequestId: aaaa Version: 1",
            "START RequestId: bbbb Version: 1",
            "aaaa says",
            "whose",
            "REPORT RequestId: aaaa\tDuration",
            "surely of b",
            "REPORT RequestId: bbbb\tDuration",
            "after",
        ];
        let (of_b, mixed) = taken("bbbb", &side_by_side);
        assert_eq!(of_b, [side_by_side[1], side_by_side[3], side_by_side[5], side_by_side[6]]);
        assert!(mixed, "one of them may be of a");
        assert_eq!(taken("none", &lines), (vec![], false));
        assert_eq!(taken("bb", &lines).0, of_all_b, "the beginning of the ID is enough");
        let in_json = [
            r#"{"time":"t","type":"platform.start","record":{"requestId":"aaaa","version":"1"}}"#,
            "{\"message\": \"of a\"}",
            r#"{"time":"t","type":"platform.report","record":{"requestId":"aaaa"}}"#,
            "after",
        ];
        assert_eq!(taken("aaaa", &in_json).0, in_json[..3]);
    }
}
