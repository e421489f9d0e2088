//! The tags of a function. Source: Lambda spec 3.9.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::{answered, tagged};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListTags",
    route: Route("GET", "/2017-03-31/tags/{Resource}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListTags.html",
    asks: asks!(tags, "ListTags"),
    handle: |functions, call| answered(list_tags(functions, call)),
};

async fn list_tags(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = tagged(functions, &call, "ListTags")?;
    let (entry, _) = functions.find(&named).await?;
    Ok(Response::json(StatusCode::OK, &json!({"Tags": entry.function.tags})))
}
