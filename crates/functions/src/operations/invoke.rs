//! Runs a function and waits for its answer. Source: Lambda spec 2; the way itself is in [`crate::invocation`].

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Functions;
use crate::error::FunctionError;
use crate::host::{self, Patience};
use crate::invocation::check_payload;
use crate::members::unsupported;
use crate::operations::answered;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "Invoke",
    route: Route("POST", "/2015-03-31/functions/{FunctionName}/invocations"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html",
    handle: |functions, call| answered(invoke(functions, call)),
};

/// Bytes of `X-Amz-Client-Context` as sent, in base64.
const CLIENT_CONTEXT_BYTES_MAX: usize = 3_583;
/// Bytes of the log that `X-Amz-Log-Result` may carry.
const LOG_TAIL_BYTES_MAX: usize = 4_096;

async fn invoke(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request = &call.request;
    let kind = request.header("x-amz-invocation-type").unwrap_or("RequestResponse");
    let log_type = request.header("x-amz-log-type").unwrap_or("None");
    let mut v = Violations::default();
    v.one_of(kind, "invocationType", &["Event", "RequestResponse", "DryRun"]);
    v.one_of(log_type, "logType", &["None", "Tail"]);
    v.finish()?;
    for header in ["x-amz-tenant-id", "x-amz-durable-execution-name"] {
        if request.headers.contains_key(header) {
            return Err(unsupported(&format!("The header {header}")));
        }
    }
    let named = functions.named(&call, "InvokeFunction")?;
    let client_context = client_context(request.header("x-amz-client-context"))?;
    if kind == "Event" {
        return Err(FunctionError::Parameter(
            "The invocation type Event is not supported by this server: use RequestResponse.".into(),
        ));
    }
    let mut resolved = functions.resolve(&named).await?;
    let payload = check_payload(request.body.clone())?;
    if kind == "DryRun" {
        return Ok(Response::empty(StatusCode::NO_CONTENT));
    }
    let trace_id = request.header("x-amzn-trace-id").map_or_else(new_trace_id, str::to_owned);
    let host_call = host::Call {
        request_id: request.request_id.0.clone(),
        invoked_arn: resolved.invoked_arn.clone(),
        payload,
        client_context,
        trace_id: Some(trace_id.clone()),
        want_log_tail: log_type == "Tail",
        patience: Patience::For(functions.inner.settings.queue_wait),
    };
    let (payload, function_error, log_tail) = functions.dispatch(&named, &mut resolved, host_call).await?;
    let mut response = Response::empty(StatusCode::OK)
        .with_body(payload)
        .with_header("content-type", "application/json")
        .with_header("x-amz-executed-version", &resolved.version.to_string())
        .with_header("x-amzn-remapped-content-length", "0")
        .with_header("x-amzn-trace-id", &trace_id);
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

/// `Root=1-<seconds, hex>-<96 random bits>;Parent=<64 random bits>;Sampled=0`, the form of AWS X-Ray, which is not here.
fn new_trace_id() -> String {
    let seconds = jiff::Timestamp::now().as_second();
    let random = uuid::Uuid::new_v4().simple().to_string();
    let parent = uuid::Uuid::new_v4().simple().to_string();
    format!("Root=1-{seconds:08x}-{};Parent={};Sampled=0", &random[..24], &parent[..16])
}
