//! Lists event source mappings: there are none here. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::{Page, answered};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListEventSourceMappings",
    route: Route("GET", "/2015-03-31/event-source-mappings"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListEventSourceMappings.html",
    asks: asks!(anywhere, "ListEventSourceMappings"),
    handle: |functions, call| answered(list_event_source_mappings(functions, call)),
};

async fn list_event_source_mappings(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    Page::read(&call.request.query)?;
    if let Some(name) = call.request.query.get("FunctionName") {
        functions.name(name, None, call.request.caller.account(), "ListEventSourceMappings")?;
    }
    Ok(Response::json(StatusCode::OK, &json!({"EventSourceMappings": []})))
}
