//! What a function printed, in pages. An operation of our own: AWS has CloudWatch Logs for it, which is not here.

use http::StatusCode;
use longshore_wire::{Call, Operation, Query, Response, Route};
use serde_json::{Value, json};

use super::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::host::log_pages::{Begin, Cursor, Line, TAIL_LINES_MAX};
use crate::operations::{answered, own_parameter};

pub const OPERATION: Operation<Functions> = Operation {
    name: "FunctionLogs",
    route: Route("GET", "/_longshore/v1/functions/{FunctionName}/logs"),
    spec: "docs/decisions/0025-logs-and-figures-of-functions-below-our-own-path.md",
    asks: |functions, call| Box::pin(async move { asks::logs(functions, call, "logs:FilterLogEvents") }),
    handle: |functions, call| answered(function_logs(functions, call)),
};

/// Shows whole lines, the oldest first, and where the next page begins: `nextToken` is always there, so that whoever
/// follows the log asks again with it. `isTruncated` says that there is more already; `linesMissed`, that lines behind the
/// token are no longer kept.
///
/// `nextToken` (alone), or `since` (a time in ISO 8601) and `tail` (a number of lines) say where to begin; without any, the
/// oldest line that is kept does. A function that is gone has a log until another one's takes its place.
async fn function_logs(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "GetFunctionLogs")?;
    let begin = begin(&call.request.query)?;
    let exists = functions.inner.catalogue.get(&named.name).await?.is_some();
    let environments = functions.inner.environments.clone();
    let name = named.name.clone();
    let read = tokio::task::spawn_blocking(move || environments.log_page(&name, begin)).await;
    let page = read
        .map_err(|_| FunctionError::Fault("Reading the log was broken off.".into()))?
        .map_err(|error| FunctionError::Fault(format!("The log cannot be read: {error}.")))?;
    if !exists && page.is_nothing() {
        return Err(functions.not_found(&named));
    }
    let answer = json!({
        "lines": page.lines.iter().map(shown).collect::<Vec<_>>(),
        "nextToken": page.next.to_string(),
        "isTruncated": page.more,
        "linesMissed": page.missed,
    });
    Ok(Response::json(StatusCode::OK, &answer))
}

fn shown(line: &Line) -> Value {
    let time = line.time_ms.and_then(|ms| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    json!({"time": time.map(|time| format!("{time:.3}")), "text": String::from_utf8_lossy(&line.text)})
}

fn begin(query: &Query) -> Result<Begin, FunctionError> {
    let wrong = |text: String| FunctionError::Parameter(text);
    let since = match own_parameter(query, "since")? {
        None => None,
        Some(text) => {
            let time: jiff::Timestamp =
                text.parse().map_err(|_| wrong("since must be a time such as 2026-01-31T10:00:00Z".into()))?;
            Some(u64::try_from(time.as_millisecond()).unwrap_or(0))
        }
    };
    let tail = match own_parameter(query, "tail")? {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(lines) if lines <= TAIL_LINES_MAX && text.bytes().all(|b| b.is_ascii_digit()) => Some(lines),
            _ => return Err(wrong(format!("tail must be a whole number from 0 to {TAIL_LINES_MAX}"))),
        },
    };
    match own_parameter(query, "nextToken")? {
        None => Ok(Begin::At { since_ms: since, tail }),
        Some(_) if since.is_some() || tail.is_some() => {
            Err(wrong("nextToken stands alone: what it leads to is behind since and tail already".into()))
        }
        Some(text) => match Cursor::parse(text) {
            Some(cursor) => Ok(Begin::After(cursor)),
            None => Err(wrong("The nextToken is not one that was given out.".into())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_at_a_token_or_at_a_time_and_a_number_of_lines() {
        let begin = |query: &str| begin(&Query::parse(Some(query))).map_err(|e| e.told().message);
        assert_eq!(begin(""), Ok(Begin::At { since_ms: None, tail: None }));
        let wanted = Begin::At { since_ms: Some(1_769_853_600_000), tail: Some(7) };
        assert_eq!(begin("since=2026-01-31T10:00:00Z&tail=7"), Ok(wanted));
        assert_eq!(begin("since=1960-01-01T00:00:00Z"), Ok(Begin::At { since_ms: Some(0), tail: None }));
        assert_eq!(begin("nextToken=5-9"), Ok(Begin::After(Cursor::parse("5-9").unwrap())));
        for (query, told) in [
            ("since=yesterday", "since must be a time"),
            ("tail=-1", "tail must be"),
            ("tail=%2B1", "tail must be"),
            ("tail=1000001", "tail must be"),
            ("nextToken=x", "not one that was given out"),
            ("nextToken=5-9&tail=1", "stands alone"),
            ("tail=1&tail=2", "stands twice"),
        ] {
            assert!(begin(query).is_err_and(|message| message.contains(told)), "{query}");
        }
    }
}
