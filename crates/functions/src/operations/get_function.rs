//! A function or version, with a link to its code. Source: Lambda spec 3.4.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::shape::{self, View};

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunction",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html",
    asks: asks!(function, "GetFunction"),
    handle: |functions, call| answered(get_function(functions, call)),
};

async fn get_function(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "GetFunction")?;
    let (entry, version) = functions.find(&named).await?;
    let view = View { qualifier: named.qualifier.as_deref(), with_state: true };
    let host = call.request.header("host").unwrap_or("localhost");
    let mut answer = json!({
        "Configuration": shape::configuration(&functions.inner.settings, &named.name, &version, view),
        "Code": {"RepositoryType": "S3", "Location": functions.link(host, &version.code.sha256)},
    });
    // Tags and concurrency are the function's, not a version's.
    if named.qualifier.is_none() {
        if !entry.function.tags.is_empty() {
            answer["Tags"] = json!(entry.function.tags);
        }
        if let Some(reserved) = entry.function.reserved_concurrency {
            answer["Concurrency"] = json!({"ReservedConcurrentExecutions": reserved});
        }
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
