//! The reserved concurrency, if any.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunctionConcurrency",
    route: Route("GET", "/2019-09-30/functions/{FunctionName}/concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConcurrency.html",
    asks: asks!(whole, "GetFunctionConcurrency"),
    handle: |functions, call| answered(get_function_concurrency(functions, call)),
};

async fn get_function_concurrency(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "GetFunctionConcurrency")?;
    let (entry, _) = functions.find(&named).await.map_err(|error| match error {
        FunctionError::NotFound(_) => functions.latest_not_found(&named),
        error => error,
    })?;
    Ok(Response::json(
        StatusCode::OK,
        &match entry.function.reserved_concurrency {
            Some(reserved) => json!({"ReservedConcurrentExecutions": reserved}),
            None => json!({}),
        },
    ))
}
