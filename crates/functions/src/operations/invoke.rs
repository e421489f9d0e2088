//! Runs a function and waits for its answer, or takes an event for it, or only looks whether it could run.
//!
//! Source: Lambda spec 2; the order of checks is that of 2.6. The way of a call is in [`crate::invocation`], that of an
//! event in [`crate::event_queue`].

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use longshore_wire::{Call, Operation, Request, Response, Route};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::host::{self, Patience};
use crate::invocation::check_payload;
use crate::members::unsupported;
use crate::operations::answered;
use crate::resolve::Named;
use crate::table::{Owner, StoredEvent};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "Invoke",
    route: Route("POST", "/2015-03-31/functions/{FunctionName}/invocations"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html",
    asks: asks!(invoke, "InvokeFunction"),
    handle: |functions, call| answered(invoke(functions, call)),
};

/// Bytes of `X-Amz-Client-Context` as sent, in base64.
const CLIENT_CONTEXT_BYTES_MAX: usize = 3_583;
/// Bytes of the log that `X-Amz-Log-Result` may carry.
const LOG_TAIL_BYTES_MAX: usize = 4_096;

async fn invoke(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request = &call.request;
    let kind = text(request, "x-amz-invocation-type").unwrap_or("RequestResponse".into());
    let log_type = text(request, "x-amz-log-type").unwrap_or("None".into());
    let mut v = Violations::default();
    v.one_of(&kind, "invocationType", &["Event", "RequestResponse", "DryRun"]);
    v.one_of(&log_type, "logType", &["None", "Tail"]);
    let named = functions.named_with(&call, "InvokeFunction", v)?;
    for header in ["x-amz-tenant-id", "x-amz-durable-execution-name"] {
        if request.headers.contains_key(header) {
            return Err(unsupported(&format!("The header {header}")));
        }
    }
    let mut resolved = functions.resolve(&named).await?;
    let client_context = client_context(text(request, "x-amz-client-context").as_deref())?;
    let payload = check_payload(request.body.clone(), &kind)?;
    let (trace_id, told_trace_id) = match text(request, "x-amzn-trace-id") {
        Some(given) => (given.clone().into_owned(), given.into_owned()),
        None => new_trace_id(),
    };
    let answer = |status| {
        Response::empty(status)
            .with_header("content-type", "application/json")
            .with_header("x-amzn-remapped-content-length", "0")
            .with_header("x-amzn-trace-id", &told_trace_id)
    };
    match &*kind {
        "DryRun" => return Ok(answer(StatusCode::NO_CONTENT)),
        "Event" => {
            accept(functions, &named, &request.request_id.0, &trace_id, payload).await?;
            return Ok(answer(StatusCode::ACCEPTED));
        }
        _ => {}
    }
    let host_call = host::Call {
        request_id: request.request_id.0.clone(),
        invoked_arn: resolved.invoked_arn.clone(),
        payload,
        client_context,
        trace_id: Some(trace_id.clone()),
        want_log_tail: log_type == "Tail",
        patience: Patience::For(functions.inner.settings.queue_wait),
        start: None,
    };
    let (payload, function_error, log_tail) = functions.dispatch(&named, &mut resolved, host_call).await?;
    let mut response =
        answer(StatusCode::OK).with_body(payload).with_header("x-amz-executed-version", &resolved.version.to_string());
    if function_error {
        response = response.with_header("x-amz-function-error", "Unhandled");
    }
    if log_type == "Tail" {
        let log = log_tail.unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
        response = response.with_header("x-amz-log-result", &STANDARD.encode(tail));
    }
    Ok(response)
}

/// Puts the event into the queue. A client context is for synchronous calls alone, as on AWS; what it leads to (version,
/// weights of an alias) is found out when it runs.
async fn accept(
    functions: &Functions,
    named: &Named,
    request_id: &str,
    trace_id: &str,
    payload: Bytes,
) -> Result<(), FunctionError> {
    let entry = functions.inner.catalogue.snapshot().get(&named.name).cloned();
    let id = entry.ok_or_else(|| functions.latest_not_found(named))?.function.id.clone();
    let event = StoredEvent {
        function: Owner { name: named.name.clone(), id },
        qualifier: named.qualifier.clone(),
        request_id: request_id.to_owned(),
        trace_id: trace_id.to_owned(),
        payload,
    };
    functions.inner.events.accept(event).await
}

/// A header as text. One that is not text is not taken for absent: it fits nothing, and is refused as what it is.
fn text<'r>(request: &'r Request, name: &str) -> Option<Cow<'r, str>> {
    request.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// Decodes the client context: base64 of JSON.
fn client_context(header: Option<&str>) -> Result<Option<String>, FunctionError> {
    let Some(header) = header.filter(|header| !header.is_empty()) else { return Ok(None) };
    if header.len() > CLIENT_CONTEXT_BYTES_MAX {
        return Err(FunctionError::Content(format!(
            "Client context must be no longer than {CLIENT_CONTEXT_BYTES_MAX} bytes"
        )));
    }
    let unread = |_| FunctionError::Content("Client context must be a valid Base64-encoded JSON object".into());
    let bytes = STANDARD.decode(header).map_err(|_| ()).map_err(unread)?;
    let text = String::from_utf8(bytes).map_err(|_| ()).map_err(unread)?;
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(_)) => Ok(Some(text)),
        _ => Err(unread(())),
    }
}

/// `Root=1-<seconds, hex>-<96 random bits>;Parent=<64 random bits>;Sampled=0`, the form of AWS X-Ray, which is not here;
/// and the same as the caller is told it, without a parent, which is a part of the call that the caller has not seen.
fn new_trace_id() -> (String, String) {
    let seconds = jiff::Timestamp::now().as_second();
    let random = uuid::Uuid::new_v4().simple().to_string();
    let parent = uuid::Uuid::new_v4().simple().to_string();
    let root = format!("Root=1-{seconds:08x}-{}", &random[..24]);
    (format!("{root};Parent={};Sampled=0", &parent[..16]), format!("{root};Sampled=0"))
}
