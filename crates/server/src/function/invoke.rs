//! `longshore function invoke`: one call, its answer on standard output.

use std::io::IsTerminal;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{bare, text, told};
use crate::cli::{At, Invoke};
use crate::client::{Invocation, Invoked};
use crate::failure::{FAILED, Failure, JOB_FAILED, OK, plain};
use crate::output::{self, escaped, out_bytes};
use crate::place::Place;

pub async fn invoke(args: Invoke, at: &At) -> Result<u8, Failure> {
    // 1 is for a function that failed: whoever reads the status must not take an error of ours for that.
    call(args, at).await.map_err(|failure| match failure.status {
        FAILED => Failure { status: JOB_FAILED, ..failure },
        _ => failure,
    })
}

async fn call(args: Invoke, at: &At) -> Result<u8, Failure> {
    let payload = match &args.payload {
        Some(given) => read(given, "payload")?,
        None => String::new(),
    };
    let client_context = match args.client_context.as_deref() {
        Some("-") => return Err(Failure::usage("--client-context is JSON or @FILE")),
        Some(given) => Some(read(given, "client context")?),
        None => None,
    };
    let kind = match (args.event, args.dry_run) {
        (true, _) => "Event",
        (_, true) => "DryRun",
        _ => "RequestResponse",
    };
    let place = Place::of_functions(at).await?;
    let invocation = Invocation {
        function: &args.function,
        qualifier: args.qualifier.as_deref(),
        kind,
        payload: Bytes::from(payload),
        tail: args.tail,
        client_context: client_context.as_deref(),
    };
    let invoked = match place.client.invoke(&invocation).await {
        Ok(invoked) => invoked,
        Err(error) => return Err(told(&place, &args.function, error).await),
    };
    let status = if invoked.function_error.is_some() { FAILED } else { OK };
    if at.json {
        output::json(&document(&invoked));
        return Ok(status);
    }
    if let Some(tail) = &invoked.log_tail {
        for line in String::from_utf8_lossy(tail).lines() {
            eprintln!("{}", escaped(line));
        }
    }
    match kind {
        "Event" => eprintln!("queued, with the request ID {}", plain(invoked.request_id.as_deref().unwrap_or("?"))),
        "DryRun" => eprintln!("the function could be called so"),
        _ if status == FAILED => {
            for line in failure(bare(&args.function), &invoked.payload) {
                eprintln!("{}", plain(&line));
            }
        }
        _ => print(&invoked.payload),
    }
    Ok(status)
}

/// Reads JSON from the command line, a file, or standard input, and looks whether it is any: what is sent are the bytes
/// that were given.
fn read(given: &str, what: &str) -> Result<String, Failure> {
    let wrong =
        |from: &str, e: &dyn std::fmt::Display| Failure::usage(format!("cannot read the {what} from {from}: {e}"));
    let (text, from) = match given {
        "-" => (std::io::read_to_string(std::io::stdin()).map_err(|e| wrong("standard input", &e))?, "standard input"),
        given => match given.strip_prefix('@') {
            Some(path) => (std::fs::read_to_string(path).map_err(|e| wrong(path, &e))?, path),
            None => (given.to_owned(), "the command line"),
        },
    };
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let failure = Failure::usage(format!("the {what} from {from} is no JSON: {error}"));
            Err(match std::path::Path::new(given).is_file() {
                true => failure.hint(format!("a file is named with an @ before it: @{given}")),
                false => failure.hint("write it as the shell leaves it alone: '{\"key\": \"value\"}'"),
            })
        }
    }
}

/// Prints an answer: its own bytes where they go into a pipe, and nothing that a terminal would obey on one.
fn print(payload: &[u8]) {
    let mut bytes = payload.to_vec();
    if std::io::stdout().is_terminal() {
        let text = String::from_utf8_lossy(payload).into_owned();
        bytes = text.lines().map(plain).collect::<Vec<_>>().join("\n").into_bytes();
    }
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    // A reader that is gone is not an error.
    let _ = out_bytes(&bytes);
}

/// What a function that failed said, for people: its error, and the trace below.
fn failure(function: &str, payload: &[u8]) -> Vec<String> {
    let said: Value = serde_json::from_slice(payload).unwrap_or_default();
    let (kind, message) = (text(&said, "errorType"), text(&said, "errorMessage"));
    if kind.is_empty() && message.is_empty() {
        return vec![format!("error: {function} failed: {}", String::from_utf8_lossy(payload))];
    }
    let glue = if kind.is_empty() || message.is_empty() { "" } else { ": " };
    // A message may be of several lines.
    let first = format!("error: {function} failed: {kind}{glue}{message}");
    let mut lines: Vec<String> = first.lines().map(str::to_owned).collect();
    let trace = ["stackTrace", "trace"].iter().find_map(|member| said.get(member)?.as_array());
    for entry in trace.into_iter().flatten().filter_map(Value::as_str) {
        lines.extend(entry.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("  {}", line.trim_end())));
    }
    lines
}

/// The answer in the shape of the AWS CLI's, with the payload in it: as JSON if it is any, else as text.
fn document(invoked: &Invoked) -> Value {
    let mut document = json!({"StatusCode": invoked.status});
    if let Some(version) = &invoked.executed_version {
        document["ExecutedVersion"] = version.as_str().into();
    }
    if let Some(error) = &invoked.function_error {
        document["FunctionError"] = error.as_str().into();
    }
    if let Some(tail) = &invoked.log_tail {
        document["LogResult"] = String::from_utf8_lossy(tail).into();
    }
    if let Some(id) = &invoked.request_id {
        document["RequestId"] = id.as_str().into();
    }
    if !invoked.payload.is_empty() {
        document["Payload"] = serde_json::from_slice(&invoked.payload)
            .unwrap_or_else(|_| String::from_utf8_lossy(&invoked.payload).into());
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_that_failed_said_is_readable() {
        let said = |payload: &str| failure("f", payload.as_bytes());
        assert_eq!(
            said(
                r#"{"errorType": "KeyError", "errorMessage": "'a'", "stackTrace": ["  File \"h.py\", line 1\n    x\n"]}"#
            ),
            ["error: f failed: KeyError: 'a'", "    File \"h.py\", line 1", "      x"]
        );
        assert_eq!(said(r#"{"errorMessage": "Task timed out"}"#), ["error: f failed: Task timed out"]);
        assert_eq!(
            said(r#"{"errorType": "E", "trace": ["E: m", "at h"]}"#),
            ["error: f failed: E", "  E: m", "  at h"]
        );
        assert_eq!(said("no JSON"), ["error: f failed: no JSON"]);
    }

    #[test]
    fn what_is_no_json_is_refused_before_anything_is_sent() {
        assert_eq!(read("{\"a\": 1}", "payload").unwrap(), "{\"a\": 1}");
        let failure = read("{a: 1}", "payload").unwrap_err();
        assert_eq!(failure.status, crate::failure::USAGE);
        assert!(failure.message.starts_with("the payload from the command line is no JSON: "), "{failure:?}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        std::fs::write(&path, "[1]").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(read(&format!("@{path}"), "payload").unwrap(), "[1]");
        assert!(read(path, "payload").unwrap_err().hint.unwrap().contains("with an @ before it"));
        assert!(read("@/nowhere", "payload").unwrap_err().message.contains("/nowhere"));
    }

    #[test]
    fn the_document_has_the_payload_in_it() {
        let invoked = Invoked { status: 200, payload: Bytes::from_static(b"{\"a\":1}"), ..Invoked::default() };
        assert_eq!(document(&invoked), json!({"StatusCode": 200, "Payload": {"a": 1}}));
        let invoked = Invoked {
            payload: Bytes::from_static(b"text"),
            function_error: Some("Unhandled".into()),
            log_tail: Some(b"START".to_vec()),
            ..invoked
        };
        let wanted = json!({"StatusCode": 200, "FunctionError": "Unhandled", "LogResult": "START", "Payload": "text"});
        assert_eq!(document(&invoked), wanted);
    }
}
